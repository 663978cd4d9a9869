/* The two hellos and what they must agree on: versions, private, at least one path. The initiator speaks first; the acceptor, who then knows both,
 * decides and answers with its own hello or with a refusal. From both comes the session. Called by conn.c; docs/control.md has the order of things.
 */
#include <assert.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include "control/inner.h"
#include "wire/wire.h"

static void hello_identify(struct control *ct, const struct conn *c, struct wire_hello *h)
{
	h->version_min = ct->config.version_min;
	h->version_max = ct->config.version_max;
	memcpy(h->node_id, ct->config.node_id, sizeof(h->node_id));
	h->epoch = ct->config.epoch;
	h->flags = c->is_private ? WIRE_HELLO_PRIVATE : 0;
}

/* @return 0, or why it failed; the connection has then been told off */
static int hello_send(struct control *ct, struct conn *c, const struct wire_hello *h)
{
	uint8_t bytes[WIRE_HELLO_MAX];
	size_t n = wire_hello_encode(h, bytes, sizeof(bytes));

	if (n && conn_send(ct, c, bytes, n) == 0)
		return 0;
	if (!n)
		conn_fail(ct, c, -TERN_EINVAL, "our own hello cannot be written: more paths or longer names than fit");
	else
		conn_fail(ct, c, -TERN_EPROTO, "the connection broke while the hello was sent");
	return -TERN_EPROTO;
}

static void hello_refuse(struct control *ct, struct conn *c, int err, const char *text)
{
	struct wire_hello h;

	wire_hello_init(&h);
	hello_identify(ct, c, &h);
	h.status = (uint8_t)(err < 0 ? -err : err);
	snprintf(h.error_text, sizeof(h.error_text), "%s", text);
	if (hello_send(ct, c, &h) == 0)
		conn_fail(ct, c, err < 0 ? err : -err, "%s", text);
}

static int hello_prepare(struct control *ct, struct conn *c, const struct wire_hello *theirs)
{
	struct sockaddr_storage local = {0};
	socklen_t bytes = sizeof(local);
	struct control_ask ask = {.id = c->id,
	                          .listener = c->listener,
	                          .is_initiator = c->is_initiator,
	                          .is_private = c->is_private,
	                          .peer = addr_link(&c->peer),
	                          .theirs = theirs};
	struct wire_hello *mine = &c->setup->mine;

	getsockname(c->fd, (struct sockaddr *)&local, &bytes);
	addr_unmap(&local);
	ask.local = addr_link(&local);
	wire_hello_init(mine);
	int err = ct->config.events->prepare(ct->config.arg, &ask, mine);
	assert(mine->paths <= WIRE_HELLO_PATHS_MAX);
	mine->status = 0;
	mine->error_text[0] = 0;
	hello_identify(ct, c, mine);
	return err;
}

void exchange_begin(struct control *ct, struct conn *c)
{
	c->state = CONN_HELLO;
	if (!c->is_initiator)
		return;
	int err = hello_prepare(ct, c, NULL);
	if (err)
		conn_fail(ct, c, err, "this end refused: %s", tern_error_text(err));
	else
		hello_send(ct, c, &c->setup->mine);
}

static struct link_addr path_remote(const struct conn *c, const struct wire_hello_path *p)
{
	struct link_addr out = {.bytes = p->link_bytes};
	struct sockaddr_storage addr = c->peer;

	if (p->link_bytes) {
		memcpy(out.data, p->link, p->link_bytes);
		return out;
	}
	if (addr.ss_family == AF_INET6)
		((struct sockaddr_in6 *)&addr)->sin6_port = htons(p->udp_port);
	else
		((struct sockaddr_in *)&addr)->sin_port = htons(p->udp_port);
	return addr_link(&addr);
}

static uint32_t smaller_known(uint32_t a, uint32_t b)
{
	return !a || (b && b < a) ? b : a;
}

/* From the session's keys, under a direction that no data key has: whoever shows it has been through this handshake. */
static int token_make(const struct conn *c, uint8_t path_id, uint8_t token[LINK_TOKEN_BYTES])
{
	uint8_t secret[SESSION_SECRET_BYTES];
	int err = tls_secret(c->ssl, path_id, UINT8_MAX, 0, secret);

	memcpy(token, secret, LINK_TOKEN_BYTES);
	explicit_bzero(secret, sizeof(secret));
	return err;
}

static int path_make(const struct conn *c, const struct wire_hello_path *mine, const struct wire_hello_path *theirs, struct session_path *out)
{
	uint8_t tx = c->is_initiator ? 0 : 1; /* directions are named by role, so that both ends name the same */

	out->path_id = mine->path_id;
	out->local_flow_id = mine->flow_id;
	out->remote_flow_id = theirs->flow_id;
	out->mtu_bytes = smaller_known(mine->mtu_bytes, theirs->mtu_bytes);
	out->udp_port = theirs->udp_port;
	out->remote = path_remote(c, theirs);
	if (token_make(c, out->path_id, out->token))
		return -TERN_EIO;
	if (c->is_private)
		return 0;
	if (tls_secret(c->ssl, out->path_id, tx, 0, out->tx_secret) || tls_secret(c->ssl, out->path_id, !tx, 0, out->rx_secret))
		return -TERN_EIO;
	return 0;
}

/* @return 0, -TERN_EPROTO (no path in common), -TERN_EIO */
static int session_make(const struct conn *c, uint8_t version, struct session *s)
{
	const struct wire_hello *mine = &c->setup->mine, *theirs = &c->setup->theirs;
	struct sockaddr_storage local = {0};
	socklen_t bytes = sizeof(local);

	memset(s, 0, sizeof(*s));
	memcpy(s->peer_node, theirs->node_id, sizeof(s->peer_node));
	s->peer_epoch = theirs->epoch;
	memcpy(s->peer_name, theirs->name, sizeof(s->peer_name));
	s->is_initiator = c->is_initiator;
	s->is_private = c->is_private;
	s->version = version;
	s->credit_bytes = theirs->credit_bytes;
	s->credit_heads = theirs->credit_heads;
	s->max_message_bytes = theirs->max_message_bytes;
	s->capabilities = mine->capabilities & theirs->capabilities;
	getsockname(c->fd, (struct sockaddr *)&local, &bytes);
	addr_unmap(&local);
	s->control_local = addr_link(&local);
	s->control_peer = addr_link(&c->peer);
	for (uint32_t i = 0; i < mine->paths; i++)
		for (uint32_t j = 0; j < theirs->paths; j++) {
			if (mine->path[i].path_id != theirs->path[j].path_id)
				continue;
			if (path_make(c, &mine->path[i], &theirs->path[j], &s->path[s->paths++]))
				return -TERN_EIO;
		}
	return s->paths ? 0 : -TERN_EPROTO;
}

static void version_text(const struct control *ct, const struct wire_hello *theirs, char *out, size_t bytes)
{
	snprintf(out, bytes, "no protocol version in common: this end speaks %u to %u, the other %u to %u", ct->config.version_min,
	         ct->config.version_max, theirs->version_min, theirs->version_max);
}

static const char *private_text(const struct conn *c)
{
	return c->is_private ? "private=1 is set at this end only; set it at the other too, or take it away here"
	                     : "private=1 is set at the other end only; set it here too, or take it away there";
}

/* The initiator's hello is here: this end decides for both. */
static void exchange_accept(struct control *ct, struct conn *c)
{
	const struct wire_hello *theirs = &c->setup->theirs;
	uint8_t version = wire_version_choose(ct->config.version_min, ct->config.version_max, theirs->version_min, theirs->version_max);
	struct session session;
	char text[WIRE_HELLO_TEXT_MAX + 1];
	int err;

	if (theirs->status) {
		conn_fail(ct, c, -TERN_EPROTO, "the peer opened with a refusal: %s", theirs->error_text);
		return;
	}
	if (!version) {
		version_text(ct, theirs, text, sizeof(text));
		hello_refuse(ct, c, -TERN_EVERSION, text);
		return;
	}
	if (c->is_private != !!(theirs->flags & WIRE_HELLO_PRIVATE)) {
		hello_refuse(ct, c, -TERN_EPRIVATE, private_text(c));
		return;
	}
	err = hello_prepare(ct, c, theirs);
	if (err) {
		snprintf(text, sizeof(text), "the accepting end refused: %s", tern_error_text(err));
		hello_refuse(ct, c, err, text);
		return;
	}
	err = session_make(c, version, &session);
	if (err) {
		hello_refuse(ct, c, err, err == -TERN_EPROTO ? "the two ends have no path in common" : "keys could not be derived");
	} else if (hello_send(ct, c, &c->setup->mine) == 0) {
		conn_opened(ct, c);
		ct->config.events->established(ct->config.arg, c->id, &session);
	}
	session_wipe(&session);
}

/* The acceptor refused. Where both ends know why, say it from this end's side. */
static void exchange_refused(struct control *ct, struct conn *c)
{
	const struct wire_hello *theirs = &c->setup->theirs;
	char text[WIRE_HELLO_TEXT_MAX + 1];

	if (theirs->status == TERN_EVERSION)
		version_text(ct, theirs, text, sizeof(text));
	else if (theirs->status == TERN_EPRIVATE)
		snprintf(text, sizeof(text), "%s", private_text(c));
	else
		snprintf(text, sizeof(text), "%s", theirs->error_text[0] ? theirs->error_text : tern_error_text(theirs->status));
	conn_fail(ct, c, theirs->status < TERN_ERR_END ? -theirs->status : -TERN_EPROTO, "%s", text);
}

static void exchange_answer(struct control *ct, struct conn *c)
{
	const struct wire_hello *theirs = &c->setup->theirs;
	uint8_t version = wire_version_choose(ct->config.version_min, ct->config.version_max, theirs->version_min, theirs->version_max);
	struct session session;
	int err;

	if (theirs->status) {
		exchange_refused(ct, c);
		return;
	}
	/* A sound acceptor has refused these already. */
	if (!version || c->is_private != !!(theirs->flags & WIRE_HELLO_PRIVATE)) {
		conn_fail(ct, c, version ? -TERN_EPRIVATE : -TERN_EVERSION, "%s", version ? private_text(c) : "no protocol version in common");
		return;
	}
	err = session_make(c, version, &session);
	if (err) {
		conn_fail(ct, c, err, "%s", err == -TERN_EPROTO ? "the two ends have no path in common" : "keys could not be derived");
	} else {
		conn_opened(ct, c);
		ct->config.events->established(ct->config.arg, c->id, &session);
	}
	session_wipe(&session);
}

/* Reads exactly the peer's hello, so that what follows it stays in TLS for conn.c. */
void exchange_read(struct control *ct, struct conn *c)
{
	struct conn_setup *s = c->setup;
	struct control_error why;
	size_t want = WIRE_HELLO_HEADER_BYTES;

	for (;;) {
		long got = tls_read(c, s->in + s->in_have, want - s->in_have, &why);
		if (got < 0)
			conn_fail(ct, c, -TERN_EPROTO, "no hello: %s", why.text);
		if (got <= 0)
			return;
		s->in_have += (size_t)got;
		long used = wire_hello_decode(s->in, s->in_have, &s->theirs);
		if (used > 0)
			break;
		if (used < 0) {
			conn_fail(ct, c, -TERN_EPROTO, "the peer's hello is malformed or longer than %d bytes", WIRE_HELLO_MAX);
			return;
		}
		if (s->in_have >= WIRE_HELLO_HEADER_BYTES) /* the decoder has accepted the length, bytes 4 to 7 */
			want = (size_t)s->in[4] | (size_t)s->in[5] << 8;
	}
	if (c->is_initiator)
		exchange_answer(ct, c);
	else
		exchange_accept(ct, c);
}
