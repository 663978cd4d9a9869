/* Text addresses and their opaque form. Called by endpoint.c and peer.c. A blob is a mark, a version and the text: it survives any store and is at most 128 bytes. */
#include <arpa/inet.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "api/context.h"
#include "base/err.h"

enum { BLOB_MARK = 'T', BLOB_VERSION = 1, BLOB_HEAD = 2 };

static int option_string(const char *name, const char *value, char *out, size_t bytes)
{
	if (!*value || strlen(value) >= bytes)
		return ERR(TERN_EINVAL, "option %s=%s: empty or longer than %zu bytes", name, value, bytes - 1);
	strcpy(out, value);
	return 0;
}

/* Digits only: strtoul alone takes blanks and signs as well. @return UINT32_MAX: no number, or a larger one */
static uint32_t address_number(const char *text)
{
	char *end;
	unsigned long n = *text >= '0' && *text <= '9' ? strtoul(text, &end, 10) : ULONG_MAX;
	return n < UINT32_MAX && !*end ? (uint32_t)n : UINT32_MAX;
}

/* HOST, HOST:PORT, [ADDRESS] or [ADDRESS]:PORT */
static int address_ctl(struct api_address *a, const char *value)
{
	const char *host = value + (*value == '['), *end = *value == '[' ? strchr(value, ']') : value + strcspn(value, ":");
	const char *port = end && *value == '[' ? end + 1 : end;
	uint32_t number = port && *port == ':' ? address_number(port + 1) : 0;
	if (!end || end == host || (size_t)(end - host) >= sizeof(a->ctl) || (*port && *port != ':') || number > 65535)
		return ERR(TERN_EINVAL, "option ctl=%s: must be host, host:port or [address]:port", value);
	memcpy(a->ctl, host, (size_t)(end - host));
	a->ctl[end - host] = 0;
	a->ctl_port = (uint16_t)number;
	return 0;
}

bool api_address_host(const struct api_address *a, unsigned path, char *out, size_t bytes)
{
	unsigned at = path / (a->paths ? a->paths : 1);
	const char *host = a->also;
	if (!at)
		return false;
	for (; at > 1 && *host; at--)
		host += strcspn(host, ",") + (host[strcspn(host, ",")] == ',');
	snprintf(out, bytes, "%.*s", (int)strcspn(host, ","), host);
	return true;
}

unsigned api_address_paths(const struct api_address *a)
{
	unsigned hosts = 1 + (*a->also != 0);
	for (const char *at = a->also; *at; at++)
		hosts += *at == ',';
	return hosts * (a->paths ? a->paths : 1);
}

static int address_also(struct api_address *a, const char *value)
{
	uint8_t digits[16];
	char host[64];
	int err = option_string("also", value, a->also, sizeof(a->also));
	for (const char *at = value; !err; at += strcspn(at, ",") + 1) {
		size_t bytes = strcspn(at, ",");
		bytes = bytes < sizeof(host) ? bytes : sizeof(host) - 1; /* longer than any address: none */
		memcpy(host, at, bytes);
		host[bytes] = 0;
		if (inet_pton(AF_INET, host, digits) != 1 && inet_pton(AF_INET6, host, digits) != 1)
			return ERR(TERN_EINVAL, "option also=%s: \"%s\" is no address in digits", value, host);
		if (!at[strcspn(at, ",")])
			break;
	}
	return err;
}

static int address_option(struct api_address *a, const char *name, const char *value)
{
	if (!strcmp(name, "private")) {
		if (strcmp(value, "1") && strcmp(value, "0"))
			return ERR(TERN_EINVAL, "option private=%s: must be 0 or 1", value);
		a->is_private = *value == '1';
		return 0;
	}
	if (!strcmp(name, "emu"))
		return option_string(name, value, a->emu, sizeof(a->emu));
	if (!strcmp(name, "cc"))
		return option_string(name, value, a->cc, sizeof(a->cc));
	if (!strcmp(name, "contract"))
		return option_string(name, value, a->contract, sizeof(a->contract));
	if (!strcmp(name, "ctl"))
		return address_ctl(a, value);
	if (!strcmp(name, "also"))
		return address_also(a, value);
	if (!strcmp(name, "paths")) {
		uint32_t n = address_number(value);
		if (n < 1 || n > PEER_PATHS_MAX)
			return ERR(TERN_EINVAL, "option paths=%s: must be 1 to %d", value, PEER_PATHS_MAX);
		a->paths = (uint8_t)n;
		return 0;
	}
	if (!strcmp(name, "mtu")) {
		a->mtu_bytes = address_number(value);
		if (a->mtu_bytes < 1280 || a->mtu_bytes > 65535)
			return ERR(TERN_EINVAL, "option mtu=%s: must be 1280 to 65535 bytes", value);
		return 0;
	}
	if (!strcmp(name, "engine") || strcmp(a->scheme, "udp")) { /* the link's own, which checks them when it opens */
		size_t used = strlen(a->options), room = sizeof(a->options) - used;
		int n = snprintf(a->options + used, room, "%s%s=%s", used ? "&" : "", name, value);
		return n < (int)room ? 0
		                     : ERR(TERN_EINVAL, "option %s=%s: with the others longer than %zu bytes", name, value, sizeof(a->options) - 1);
	}
	return ERR(TERN_EINVAL, "option %s: unknown; there are private, emu, cc, contract, mtu, ctl, also, paths and engine", name);
}

static int address_query(struct api_address *a, char *query)
{
	char *save = NULL;
	for (char *item = strtok_r(query, "&", &save); item; item = strtok_r(NULL, "&", &save)) {
		char *value = strchr(item, '=');
		if (!value)
			return ERR(TERN_EINVAL, "option %s: needs a value, as in %s=1", item, item);
		*value++ = 0;
		int err = address_option(a, item, value);
		if (err)
			return err;
	}
	return 0;
}

static int address_port(struct api_address *a, const char *text, const char *whole)
{
	uint32_t port = address_number(text);
	if (port > 65535)
		return ERR(TERN_EADDR, "address %s: port \"%s\" is not a number from 0 to 65535", whole, text);
	a->port = (uint16_t)port;
	return 0;
}

static int address_host(struct api_address *a, char *rest, const char *whole)
{
	char *host = rest, *port;
	if (*rest == '[') {
		char *close = strchr(rest, ']');
		if (!close || close[1] != ':')
			return ERR(TERN_EADDR, "address %s: an IPv6 address is written [address]:port", whole);
		*close = 0;
		host = rest + 1;
		port = close + 2;
	} else {
		port = strrchr(rest, ':');
		if (!port)
			return ERR(TERN_EADDR, "address %s: the port is missing, as in udp://host:7400", whole);
		*port++ = 0;
		if (strchr(host, ':'))
			return ERR(TERN_EADDR, "address %s: an IPv6 address is written [address]:port", whole);
	}
	if (strlen(host) >= sizeof(a->host))
		return ERR(TERN_EADDR, "address %s: host name longer than %zu bytes", whole, sizeof(a->host) - 1);
	strcpy(a->host, host);
	return address_port(a, port, whole);
}

int api_address_parse(const char *text, struct api_address *out)
{
	char copy[CONTROL_PATH_MAX];
	memset(out, 0, sizeof(*out));
	if (!text || strlen(text) >= sizeof(copy))
		return ERR(TERN_EADDR, "address is %s", text ? "longer than 4095 bytes" : "NULL");
	strcpy(copy, text);
	char *rest = strstr(copy, "://");
	if (!rest || rest == copy || (size_t)(rest - copy) >= sizeof(out->scheme))
		return ERR(TERN_EADDR, "address %s: must begin with a scheme, as in udp://host:7400", text);
	*rest = 0;
	rest += 3;
	strcpy(out->scheme, strcmp(copy, "tern") ? copy : "udp");
	char *query = strchr(rest, '?');
	if (query) {
		*query++ = 0;
		int err = address_query(out, query);
		if (err)
			return err;
	}
	if (api_address_paths(out) > PEER_PATHS_MAX)
		return ERR(TERN_EINVAL, "address %s: %u paths by paths= and also=; a peer has at most %d", text, api_address_paths(out),
		           PEER_PATHS_MAX);
	return address_host(out, rest, text);
}

int api_address_write_own(const struct api_address *a, void *blob, size_t *bytes)
{
	char text[TERN_ADDR_MAX];
	int n = snprintf(text, sizeof(text), strchr(a->host, ':') ? "%s://[%s]:%u%s" : "%s://%s:%u%s", a->scheme, a->host, a->port,
	                 a->is_private ? "?private=1" : "");
	const struct { const char *name, *value; } option[] = {{"emu", a->emu}, {"cc", a->cc}, {"contract", a->contract}};
	for (size_t i = 0; i < 3; i++)
		if (*option[i].value && n < (int)sizeof(text))
			n += snprintf(text + n, sizeof(text) - (size_t)n, "%c%s=%s", strchr(text, '?') ? '&' : '?', option[i].name, option[i].value);
	if (a->mtu_bytes && n < (int)sizeof(text))
		n += snprintf(text + n, sizeof(text) - (size_t)n, "%cmtu=%u", strchr(text, '?') ? '&' : '?', a->mtu_bytes);
	if (*a->ctl && n < (int)sizeof(text))
		n += snprintf(text + n, sizeof(text) - (size_t)n, strchr(a->ctl, ':') ? "%cctl=[%s]" : "%cctl=%s", strchr(text, '?') ? '&' : '?',
		              a->ctl);
	if (*a->ctl && a->ctl_port && n < (int)sizeof(text))
		n += snprintf(text + n, sizeof(text) - (size_t)n, ":%u", a->ctl_port);
	if (a->paths && n < (int)sizeof(text))
		n += snprintf(text + n, sizeof(text) - (size_t)n, "%cpaths=%u", strchr(text, '?') ? '&' : '?', a->paths);
	if (*a->also && n < (int)sizeof(text))
		n += snprintf(text + n, sizeof(text) - (size_t)n, "%calso=%s", strchr(text, '?') ? '&' : '?', a->also);
	if (*a->options && n < (int)sizeof(text)) /* is name=value already */
		n += snprintf(text + n, sizeof(text) - (size_t)n, "%c%s", strchr(text, '?') ? '&' : '?', a->options);
	if (n + BLOB_HEAD > TERN_ADDR_MAX)
		return ERR(TERN_EADDR, "address %.100s... does not fit into %d bytes; use a shorter host or file name", text, TERN_ADDR_MAX);
	if (*bytes < (size_t)n + BLOB_HEAD)
		return ERR(TERN_EINVAL, "address needs %d bytes, there is room for %zu", n + BLOB_HEAD, *bytes);
	uint8_t *out = blob;
	out[0] = BLOB_MARK;
	out[1] = BLOB_VERSION;
	memcpy(out + BLOB_HEAD, text, (size_t)n);
	*bytes = (size_t)n + BLOB_HEAD;
	return 0;
}

int api_address_write(const struct api_address *a, void *blob, size_t *bytes)
{
	struct api_address others = *a;
	*others.options = 0;
	return api_address_write_own(&others, blob, bytes);
}

/* A blob comes from any store: what it may say for the link are tastes. Devices, drivers and addresses of this machine are named on this machine, as text. */
static int address_travels(const struct api_address *a)
{
	static const char *const may[] = {"engine", "mode", "lanes", "sq", "rq", "timeout", "gid", "dscp", "ecn"};
	char options[API_OPTIONS_MAX], *save = NULL;
	snprintf(options, sizeof(options), "%s", a->options);
	for (char *item = strtok_r(options, "&", &save); item; item = strtok_r(NULL, "&", &save)) {
		bool ok = false;
		item[strcspn(item, "=")] = 0;
		for (size_t i = 0; i < sizeof(may) / sizeof(may[0]); i++)
			ok |= !strcmp(item, may[i]);
		if (!ok)
			return ERR(TERN_EINVAL, "option %s= in an address blob: only text may say it; use tern_connect_text", item);
	}
	return 0;
}

int api_address_read(const void *blob, size_t bytes, struct api_address *out)
{
	const uint8_t *in = blob;
	char text[TERN_ADDR_MAX];
	if (!blob || bytes <= BLOB_HEAD || bytes > TERN_ADDR_MAX || in[0] != BLOB_MARK || memchr(in, 0, bytes))
		return ERR(TERN_EADDR, "not an address made by tern_ep_address or tern_resolve (%zu bytes)", bytes);
	if (in[1] != BLOB_VERSION)
		return ERR(TERN_EVERSION, "address of version %u; this library knows version %d", in[1], BLOB_VERSION);
	memcpy(text, in + BLOB_HEAD, bytes - BLOB_HEAD);
	text[bytes - BLOB_HEAD] = 0;
	int err = api_address_parse(text, out);
	return err ? err : address_travels(out);
}

int tern_resolve(tern_ctx *ctx, const char *text, void *blob, size_t *bytes)
{
	struct api_address a;
	char why[CONTROL_TEXT_MAX];
	const struct link_ops *ops;
	if (!ctx || !blob || !bytes)
		return ERR(TERN_EINVAL, "tern_resolve: ctx, blob and bytes must not be NULL");
	int err = api_address_parse(text, &a);
	if (err)
		return err;
	err = link_find(a.scheme, &ops, why, sizeof(why));
	if (err)
		return ERR(err, "address %s: %s", text, why);
	err = address_travels(&a);
	return err ? err : api_address_write_own(&a, blob, bytes);
}
