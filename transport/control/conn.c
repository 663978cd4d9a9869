/* One control connection's life: TCP, TLS, hello, open, the last words. Called by control.c's turns (readiness, timers, commands). States only go
 * forward; whoever ends a connection tells its owner first and frees it at the end of the turn, since epoll may have more to say about it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "control/inner.h"
#include "wire/bytes.h"

static void conn_ready(struct control *ct, struct watch *w, uint32_t events);

struct conn *conn_new(void)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->setup = calloc(1, sizeof(*c->setup));
	if (!c->setup) {
		free(c);
		return NULL;
	}
	c->watch.ready = conn_ready;
	c->fd = -1;
	c->out = c->setup->out;
	c->out_room = sizeof(c->setup->out);
	return c;
}

void conn_free(struct conn *c)
{
	tls_free(c);
	if (c->fd >= 0)
		close(c->fd);
	free(c->setup);
	free(c);
}

void conn_add(struct control *ct, struct conn *c)
{
	c->serial = ++ct->next_serial;
	c->next = ct->conns;
	if (c->next)
		c->next->prev = c;
	ct->conns = c;
	ct->conn_count++;
	c->counted = !c->is_initiator;
	ct->handshakes += c->counted;
}

struct conn *conn_find(struct control *ct, uint64_t id)
{
	for (struct conn *c = ct->conns; c; c = c->next)
		if (c->id == id && c->state != CONN_LINGER)
			return c;
	return NULL;
}

void conn_timer_set(struct control *ct, struct conn *c, uint64_t at_ns)
{
	c->timer_ns = at_ns;
	if (at_ns < ct->timer_ns)
		ct->timer_ns = at_ns;
}

void conn_arm(struct control *ct, struct conn *c)
{
	bool pending = c->out_sent < c->out_have || c->want_write;
	struct epoll_event ev = {.data.ptr = c};

	if (c->fd < 0 || c->state == CONN_DEAD)
		return;
	ev.events = c->state == CONN_TCP ? EPOLLOUT : pending ? EPOLLIN | EPOLLOUT : EPOLLIN;
	if (c->watched == ev.events)
		return;
	if (epoll_ctl(ct->epfd, c->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &ev) == 0)
		c->watched = ev.events;
	else
		control_log(ct, TERN_LOG_ERROR, __LINE__, "epoll refused a connection; it will time out");
}

void conn_settled(struct control *ct, struct conn *c)
{
	if (!c->counted)
		return;
	c->counted = false;
	ct->handshakes--;
	listeners_resume(ct);
}

/* Takes it out of everything at once; freed at the end of the turn. */
void conn_drop(struct control *ct, struct conn *c)
{
	conn_settled(ct, c);
	if (c->prev)
		c->prev->next = c->next;
	else
		ct->conns = c->next;
	if (c->next)
		c->next->prev = c->prev;
	ct->conn_count--;
	if (c->fd >= 0)
		close(c->fd); /* leaves epoll by itself */
	c->fd = -1;
	c->state = CONN_DEAD;
	c->next = ct->dead;
	ct->dead = c;
}

/* @return 0 all sent, 1 the socket is full, -1 gone */
static int conn_flush(struct conn *c, struct control_error *why)
{
	while (c->out_sent < c->out_have) {
		long n = tls_write(c, c->out + c->out_sent, c->out_have - c->out_sent, why);
		if (n <= 0)
			return n < 0 ? -1 : 1;
		c->out_sent += (size_t)n;
	}
	c->out_sent = c->out_have = 0;
	return 0;
}

int conn_send(struct control *ct, struct conn *c, const uint8_t *bytes, size_t n)
{
	struct control_error why;

	if (n > c->out_room - c->out_have)
		return -TERN_ELIMIT;
	memcpy(c->out + c->out_have, bytes, n);
	c->out_have += n;
	c->said_ns = control_now_ns();
	int rc = conn_flush(c, &why);
	conn_arm(ct, c);
	return rc < 0 ? -TERN_EIO : 0;
}

static int message_send(struct control *ct, struct conn *c, uint8_t type, const uint8_t *payload, size_t n)
{
	uint8_t bytes[OUT_SMALL_BYTES];

	wire_put16(bytes, (uint16_t)(MESSAGE_HEADER_BYTES + n));
	bytes[2] = type;
	if (n)
		memcpy(bytes + MESSAGE_HEADER_BYTES, payload, n);
	return conn_send(ct, c, bytes, MESSAGE_HEADER_BYTES + n);
}

/* Half-closes once everything is out, so that our last words are not overtaken by a reset; then the peer hangs up. */
static void linger_step(struct control *ct, struct conn *c)
{
	enum { READS_A_TURN = 16 };
	struct control_error why;
	uint8_t waste[1024];

	int rc = conn_flush(c, &why);
	if (rc < 0) {
		conn_drop(ct, c);
		return;
	}
	if (rc == 0 && !c->shut) {
		tls_shutdown(c);
		shutdown(c->fd, SHUT_WR);
		c->shut = true;
	}
	for (int i = 0; c->shut && i < READS_A_TURN; i++) {
		ssize_t n = recv(c->fd, waste, sizeof(waste), MSG_DONTWAIT);
		if (n > 0)
			continue;
		if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			conn_drop(ct, c);
			return;
		}
		break;
	}
	conn_arm(ct, c);
}

void conn_linger(struct control *ct, struct conn *c)
{
	conn_settled(ct, c);
	c->state = CONN_LINGER;
	conn_timer_set(ct, c, control_now_ns() + CONTROL_LINGER_NS);
	linger_step(ct, c);
}

void conn_fail(struct control *ct, struct conn *c, int err, const char *format, ...)
{
	char text[CONTROL_TEXT_MAX], where[80];
	enum conn_state was = c->state;
	va_list args;
	int at = 0;

	if (was >= CONN_TLS)
		at = snprintf(text, sizeof(text), "%s: ", addr_text(&c->peer, where, sizeof(where)));
	va_start(args, format);
	vsnprintf(text + at, sizeof(text) - (size_t)at, format, args);
	va_end(args);
	if (was >= CONN_LINGER)
		return;
	control_log(ct, TERN_LOG_WARN, __LINE__, text);
	/* An end that broke off, was too slow or too many has nothing to read; all others should learn why. */
	if ((was == CONN_TLS || was == CONN_HELLO) && err != -TERN_ETIMEDOUT && !(was == CONN_TLS && err == -TERN_ELIMIT))
		conn_linger(ct, c);
	else
		conn_drop(ct, c);
	if (was == CONN_OPEN)
		ct->config.events->lost(ct->config.arg, c->id, text);
	else
		ct->config.events->failed(ct->config.arg, c->id, err, text);
}

void conn_bye(struct control *ct, struct conn *c, int status)
{
	uint8_t payload = (uint8_t)(status < 0 ? -status : status);

	/* An initiator that gives up while its hello is on the way says so behind it: the acceptor then sees a goodbye. */
	bool speaks = c->state == CONN_OPEN || (c->state == CONN_HELLO && c->is_initiator);
	if (!speaks || message_send(ct, c, MESSAGE_BYE, &payload, 1) != 0)
		conn_drop(ct, c);
	else
		conn_linger(ct, c);
}

void conn_connected(struct control *ct, struct conn *c)
{
	addr_unmap(&c->peer);
	c->state = CONN_TLS;
	conn_timer_set(ct, c, c->setup_ns);
	c->ssl = tls_new(ct, c->fd, c->is_initiator);
	if (!c->ssl)
		conn_fail(ct, c, -TERN_ENOMEM, "no memory for a TLS connection");
	else
		conn_ready(ct, &c->watch, 0);
}

static void conn_handshake(struct control *ct, struct conn *c)
{
	struct control_error why;
	int err = 0;

	switch (tls_handshake(c, &why, &err)) {
	case TLS_WAIT:
		return;
	case TLS_FAIL:
		conn_fail(ct, c, err, "%s", why.text);
		return;
	case TLS_DONE:
		exchange_begin(ct, c);
	}
}

void conn_opened(struct control *ct, struct conn *c)
{
	conn_settled(ct, c);
	c->state = CONN_OPEN;
	c->heard_ns = c->said_ns = control_now_ns();
	conn_timer_set(ct, c, c->said_ns + ct->config.keepalive_ns);
}

/* @return false: the connection is no longer open */
static bool message_take(struct control *ct, struct conn *c, size_t length)
{
	uint8_t type = c->in[2];

	if (type == MESSAGE_BYE && length == MESSAGE_HEADER_BYTES + 1) {
		int status = c->in[MESSAGE_HEADER_BYTES];
		conn_drop(ct, c);
		ct->config.events->closed(ct->config.arg, c->id, -status);
		return false;
	}
	if ((type == MESSAGE_PING && length == MESSAGE_HEADER_BYTES) || type & MESSAGE_OPTIONAL)
		return true;
	conn_fail(ct, c, -TERN_EPROTO, "a control message of type %u and %zu bytes is not known", type, length);
	return false;
}

static void conn_read(struct control *ct, struct conn *c)
{
	struct control_error why;

	for (int taken = 0; taken < MESSAGES_A_TURN_MAX;) {
		size_t length = c->in_have < MESSAGE_HEADER_BYTES ? MESSAGE_HEADER_BYTES : wire_get16(c->in);
		long got = tls_read(c, c->in + c->in_have, length - c->in_have, &why);
		if (got < 0)
			conn_fail(ct, c, -TERN_EIO, "%s", why.text);
		if (got <= 0)
			return;
		c->in_have += (size_t)got;
		c->heard_ns = control_now_ns();
		if (c->in_have < MESSAGE_HEADER_BYTES)
			continue;
		length = wire_get16(c->in);
		if (length < MESSAGE_HEADER_BYTES || length > MESSAGE_MAX_BYTES) {
			conn_fail(ct, c, -TERN_EPROTO, "a control message says it has %zu bytes; %d to %d can be", length, MESSAGE_HEADER_BYTES,
			          MESSAGE_MAX_BYTES);
			return;
		}
		if (c->in_have < length)
			continue;
		c->in_have = 0;
		taken++;
		if (!message_take(ct, c, length))
			return;
	}
	conn_fail(ct, c, -TERN_EPROTO, "more than %d control messages at once", MESSAGES_A_TURN_MAX);
}

static void conn_step(struct control *ct, struct conn *c)
{
	struct control_error why;

	switch (c->state) {
	case CONN_TCP:
		dial_ready(ct, c);
		return;
	case CONN_TLS:
		conn_handshake(ct, c);
		return;
	case CONN_HELLO:
	case CONN_OPEN:
		if (conn_flush(c, &why) < 0)
			conn_fail(ct, c, -TERN_EPROTO, "%s", why.text);
		else if (c->state == CONN_HELLO)
			exchange_read(ct, c);
		else
			conn_read(ct, c);
		return;
	case CONN_LINGER:
		linger_step(ct, c);
		return;
	case CONN_RESOLVE:
	case CONN_DEAD:
		return;
	}
}

/* Goes on while the state moves: what the next one wants to read may be in TLS' hands already, and epoll would not tell. */
static void conn_ready(struct control *ct, struct watch *w, uint32_t events)
{
	struct conn *c = (struct conn *)w;
	enum conn_state was;

	(void)events;
	do {
		was = c->state;
		conn_step(ct, c);
	} while (c->state != was && c->state > CONN_TCP && c->state < CONN_LINGER);
	if (c->state == CONN_OPEN && c->setup && c->out_have == 0) {
		free(c->setup);
		c->setup = NULL;
		c->out = c->small_out;
		c->out_room = sizeof(c->small_out);
	}
	conn_arm(ct, c);
}

static void setup_late(struct control *ct, struct conn *c)
{
	static const char *const doing[] = {
	    [CONN_RESOLVE] = "its name was not found out",
	    [CONN_TCP] = "its TCP port did not answer; a firewall may drop what is sent there",
	    [CONN_TLS] = "the TLS handshake did not finish",
	    [CONN_HELLO] = "no hello came",
	};
	uint64_t took_ms = (c->setup_ns - c->began_ns) / 1000000;

	if (c->is_initiator)
		conn_fail(ct, c, -TERN_ETIMEDOUT, "%s port %u: %s within %llu ms", c->setup->host, c->setup->port, doing[c->state],
		          (unsigned long long)took_ms);
	else
		conn_fail(ct, c, -TERN_ETIMEDOUT, "%s within %llu ms", doing[c->state], (unsigned long long)took_ms);
}

static void open_timer(struct control *ct, struct conn *c, uint64_t now_ns)
{
	uint64_t every = ct->config.keepalive_ns, silent_at = c->heard_ns + 3 * every;

	if (now_ns >= silent_at) {
		conn_fail(ct, c, -TERN_ETIMEDOUT, "nothing was heard on the control connection for %llu ms",
		          (unsigned long long)(3 * every / 1000000));
		return;
	}
	if (now_ns >= c->said_ns + every && message_send(ct, c, MESSAGE_PING, NULL, 0) != 0) {
		conn_fail(ct, c, -TERN_EIO, "the control connection takes no more bytes");
		return;
	}
	conn_timer_set(ct, c, c->said_ns + every < silent_at ? c->said_ns + every : silent_at);
}

void conn_timer(struct control *ct, struct conn *c, uint64_t now_ns)
{
	if (c->state == CONN_LINGER)
		conn_drop(ct, c);
	else if (c->state == CONN_OPEN)
		open_timer(ct, c, now_ns);
	else if (now_ns >= c->setup_ns)
		setup_late(ct, c);
	else if (c->state == CONN_TCP)
		dial_timer(ct, c);
	else
		conn_timer_set(ct, c, c->setup_ns);
}
