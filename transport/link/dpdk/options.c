/* What the address's query says to the dpdk link, and what a kernel interface that it takes over adds. Called by dpdk.c at open. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "link/dpdk/dpdk.h"
#include "link/dpdk/ifconf.h"
#include "link/option.h"
#include "tern/error.h"

static int option_wrong(const struct link_config *config, const char *name, const char *value, const char *want)
{
	snprintf(config->error, config->error_bytes, "dpdk: %s=%s: give %s", name, value, want);
	return -TERN_EINVAL;
}

static int option_number(const struct link_config *config, const char *name, unsigned long low, unsigned long high, unsigned long *out)
{
	char text[32], want[64], *end;
	if (!link_option(config->options, name, text, sizeof(text)))
		return 0;
	errno = 0;
	unsigned long value = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || value < low || value > high) {
		snprintf(want, sizeof(want), "%lu to %lu", low, high);
		return option_wrong(config, name, text, want);
	}
	*out = value;
	return 0;
}

/* "address/prefix" or "address". */
static bool option_prefix(char *text, int family, void *addr, uint8_t *prefix)
{
	char *slash = strchr(text, '/'), *end = NULL;
	unsigned long most = family == AF_INET ? 32 : 128, n = most;
	if (slash) {
		*slash++ = 0;
		n = strtoul(slash, &end, 10);
		if (!*slash || *end || n < 1 || n > most)
			return false;
	}
	*prefix = (uint8_t)n;
	return inet_pton(family, text, addr) == 1;
}

static int option_addresses(struct dpdk_options *o, const struct link_config *config)
{
	char text[64], copy[64];
	if (link_option(config->options, "ip", text, sizeof(text))) {
		snprintf(copy, sizeof(copy), "%s", text);
		if (!option_prefix(copy, AF_INET, &o->net.ip4, &o->net.prefix4))
			return option_wrong(config, "ip", text, "an IPv4 address with its prefix, as in 10.0.0.1/24");
	}
	if (link_option(config->options, "ip6", text, sizeof(text))) {
		snprintf(copy, sizeof(copy), "%s", text);
		if (!option_prefix(copy, AF_INET6, &o->net.ip6, &o->net.prefix6))
			return option_wrong(config, "ip6", text, "an IPv6 address with its prefix, as in fd00::1/64");
	}
	if (link_option(config->options, "gw", text, sizeof(text)) && inet_pton(AF_INET, text, &o->net.gateway4) != 1 &&
	    inet_pton(AF_INET6, text, &o->net.gateway6) != 1)
		return option_wrong(config, "gw", text, "the gateway's address");
	return 0;
}

/* Without ip=, a listener's host is our address. Its prefix is not known: everything is on the link unless the interface or ip= says more. */
int dpdk_options_listen(struct dpdk_options *o, const struct link_config *config)
{
	const char *host = config->host;
	struct in_addr four;
	struct in6_addr six;
	if (!config->listening || !host || !*host)
		return 0;
	if (inet_pton(AF_INET, host, &four) == 1) {
		if (o->net.ip4.s_addr && o->net.ip4.s_addr != four.s_addr)
			return option_wrong(config, "ip", host, "the address that is listened at, or leave one out");
		o->net.prefix4 = o->net.ip4.s_addr ? o->net.prefix4 : 24;
		o->net.ip4 = four;
	} else if (inet_pton(AF_INET6, host, &six) == 1) {
		o->net.prefix6 = IN6_IS_ADDR_UNSPECIFIED(&o->net.ip6) ? 64 : o->net.prefix6;
		o->net.ip6 = six;
	} else {
		snprintf(config->error, config->error_bytes, "dpdk: \"%s\" is no address; a dpdk listener needs one in digits", host);
		return -TERN_EADDR;
	}
	return 0;
}

int dpdk_options_read(struct dpdk_options *o, const struct link_config *config)
{
	static const char *const names = "dev ip ip6 gw if vlan mtu dscp ecn ctl twin queues eal";
	unsigned long vlan = 0, mtu = 0, dscp = 0, ecn = 1, twin = 1, queues = 0;
	size_t bytes;
	char ctl[2];

	memset(o, 0, sizeof(*o));
	const char *other = link_option_unknown(config->options, names, &bytes);
	if (other) {
		snprintf(config->error, config->error_bytes, "dpdk: option %.*s: unknown; there are %s",
		         (int)(bytes < 64 ? bytes : 64), other, names);
		return -TERN_EINVAL;
	}
	link_option(config->options, "dev", o->dev, sizeof(o->dev));
	link_option(config->options, "eal", o->eal, sizeof(o->eal));
	for (char *at = o->eal; *at; at++) /* in an address blanks are commas; what needs commas goes into the environment */
		*at = *at == ',' ? ' ' : *at;
	link_option(config->options, "if", o->host_if, sizeof(o->host_if));
	int err = option_number(config, "vlan", 1, 4094, &vlan);
	if (!err)
		err = option_number(config, "mtu", NET_MTU_MIN, NET_MTU_MAX, &mtu);
	if (!err)
		err = option_number(config, "dscp", 0, 63, &dscp);
	if (!err)
		err = option_number(config, "ecn", 0, 1, &ecn);
	if (!err)
		err = option_number(config, "twin", 0, 1, &twin);
	if (!err)
		err = option_number(config, "queues", 1, DPDK_LINKS_MAX, &queues);
	if (!err)
		err = option_addresses(o, config);
	o->twin = twin && !link_option(config->options, "ctl", ctl, sizeof(ctl)); /* the control connection goes elsewhere: no need of one */
	o->net.vlan = (uint16_t)vlan;
	o->mtu_bytes = (uint32_t)mtu;
	o->dscp = (uint8_t)dscp;
	o->ecn = ecn;
	o->queues = (uint16_t)queues;
	return err;
}

/* What the kernel's interface has fills what the options leave open. */
static void host_merge(struct dpdk_options *o, const struct net_config *kernel)
{
	struct net_config *net = &o->net;
	if (!net->ip4.s_addr) {
		net->ip4 = kernel->ip4;
		net->prefix4 = kernel->prefix4;
	}
	if (IN6_IS_ADDR_UNSPECIFIED(&net->ip6)) {
		net->ip6 = kernel->ip6;
		net->prefix6 = kernel->prefix6;
	}
	if (!net->gateway4.s_addr)
		net->gateway4 = kernel->gateway4;
	if (IN6_IS_ADDR_UNSPECIFIED(&net->gateway6))
		net->gateway6 = kernel->gateway6;
	net->local6 = kernel->local6;
	if (!net->vlan && !o->is_own_if) /* a VLAN's interface as the port itself puts the tag on and takes it off */
		net->vlan = kernel->vlan;
	if (kernel->mtu_bytes >= NET_MTU_MIN && kernel->mtu_bytes <= NET_MTU_MAX)
		o->host_mtu_bytes = kernel->mtu_bytes;
}

int dpdk_options_host(struct dpdk_options *o, const struct link_config *config)
{
	struct net_config kernel = {0};
	int err = *o->host_if ? net_from_interface(o->host_if, &kernel, config->error, config->error_bytes) : 0;
	if (!err && *o->host_if) {
		host_merge(o, &kernel);
		if (!o->is_own_if)
			memcpy(o->mac, kernel.mac, sizeof(o->mac));
	}
	if (!err)
		err = dpdk_options_listen(o, config);
	if (!err && !o->net.ip4.s_addr && IN6_IS_ADDR_UNSPECIFIED(&o->net.ip6)) {
		snprintf(config->error, config->error_bytes, "dpdk: the port has no address; give ip=10.0.0.1/24 (or ip6=), or if= for a kernel "
		         "interface's");
		err = -TERN_EADDR;
	}
	return err;
}

/* "10.0.0.1", or "no address". */
static const char *join_addr(int family, const void *addr, char *out, size_t bytes)
{
	static const struct in6_addr none;
	bool is_none = !memcmp(addr, &none, family == AF_INET6 ? 16 : 4);
	return is_none || !inet_ntop(family, addr, out, (socklen_t)bytes) ? "no address" : out;
}

static int join_wrong(const struct dpdk_share *s, const struct link_config *config, const char *name, const char *wish, const char *has)
{
	snprintf(config->error, config->error_bytes,
	        "dpdk: %s=%s: port %s is open in this process with %s; say the same, leave it out, or use another port", name, wish, s->port.name,
	        has);
	return -TERN_EADDR;
}

int dpdk_options_join(struct dpdk_options *o, const struct dpdk_share *s, const struct link_config *config)
{
	const struct net_config *net = &s->net;
	char wish[64], has[64];
	const char *args = strchr(o->dev, ','), *theirs = strchr(s->options.dev, ',');

	int err = dpdk_options_listen(o, config);
	if (err)
		return err;
	if (o->net.ip4.s_addr && o->net.ip4.s_addr != net->ip4.s_addr)
		return join_wrong(
		        s, config, "ip", join_addr(AF_INET, &o->net.ip4, wish, sizeof(wish)), join_addr(AF_INET, &net->ip4, has, sizeof(has)));
	if (!IN6_IS_ADDR_UNSPECIFIED(&o->net.ip6) && memcmp(&o->net.ip6, &net->ip6, sizeof(net->ip6)))
		return join_wrong(
		        s, config, "ip6", join_addr(AF_INET6, &o->net.ip6, wish, sizeof(wish)), join_addr(AF_INET6, &net->ip6, has, sizeof(has)));
	if (o->net.gateway4.s_addr && o->net.gateway4.s_addr != net->gateway4.s_addr)
		return join_wrong(s, config, "gw", join_addr(AF_INET, &o->net.gateway4, wish, sizeof(wish)),
		        join_addr(AF_INET, &net->gateway4, has, sizeof(has)));
	if (!IN6_IS_ADDR_UNSPECIFIED(&o->net.gateway6) && memcmp(&o->net.gateway6, &net->gateway6, sizeof(net->gateway6)))
		return join_wrong(s, config, "gw", join_addr(AF_INET6, &o->net.gateway6, wish, sizeof(wish)),
			join_addr(AF_INET6, &net->gateway6, has, sizeof(has)));
	snprintf(wish, sizeof(wish), "%u", o->net.vlan);
	snprintf(has, sizeof(has), net->vlan ? "%u" : "no VLAN", net->vlan);
	if (o->net.vlan && o->net.vlan != net->vlan)
		return join_wrong(s, config, "vlan", wish, has);
	if (*o->host_if && strcmp(o->host_if, s->options.host_if))
		return join_wrong(s, config, "if", o->host_if, *s->options.host_if ? s->options.host_if : "no interface");
	snprintf(wish, sizeof(wish), "%u", o->queues);
	snprintf(has, sizeof(has), s->options.queues ? "%u" : "no number of queues", s->options.queues);
	if (o->queues && o->queues != s->options.queues)
		return join_wrong(s, config, "queues", wish, has);
	if (args && theirs && strcmp(args, theirs))
		return join_wrong(s, config, "dev", o->dev, s->options.dev);
	memcpy(o->host_if, s->options.host_if, sizeof(o->host_if)); /* its kernel answers for our address: dpdk.c keeps it quiet */
	o->is_own_if = s->options.is_own_if;
	return 0;
}
