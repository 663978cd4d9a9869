/* Listening sockets: binding (in the caller's thread), taking connections, and not being overrun by those that never finish. Called by control.c and
 * epoll. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "control/inner.h"

enum { BACKLOG = 512, ACCEPTS_A_TURN = 64 };

static int listener_bind(const struct addrinfo *a)
{
	int on = 1, off = 0, fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)); /* past connections in TIME_WAIT do not count; a live listener still does */
	if (a->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	int saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

/* @return the socket, or -TERN_E */
static int listener_open(const struct control_listen *opts, struct control_error *error)
{
	bool any = !opts->host || !opts->host[0];
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *list = NULL;
	char port[8];
	int fd = -1, saved = EADDRNOTAVAIL;

	snprintf(port, sizeof(port), "%u", opts->port);
	for (int try = 0; fd < 0 && try < (any ? 2 : 1); try++) { /* any: IPv6 takes IPv4 too; a host without IPv6 gets IPv4 */
		hints.ai_family = !any ? AF_UNSPEC : try == 0 ? AF_INET6 : AF_INET;
		int gai = getaddrinfo(any ? NULL : opts->host, port, &hints, &list);
		if (gai != 0 && !any)
			return control_say(error, -TERN_EADDR, "cannot listen at \"%s\": %s; give an address of this host", opts->host,
			                   gai_strerror(gai));
		for (struct addrinfo *a = gai == 0 ? list : NULL; a && fd < 0; a = a->ai_next) {
			fd = listener_bind(a);
			saved = fd < 0 ? errno : 0;
		}
		if (gai == 0)
			freeaddrinfo(list);
		if (fd < 0 && saved == EADDRINUSE)
			break;
	}
	if (fd >= 0)
		return fd;
	const char *host = any ? "every address" : opts->host;
	if (saved == EADDRINUSE)
		return control_say(error, -TERN_EADDR, "TCP port %u at %s is in use; find the program with: ss -ltnp 'sport = :%u'", opts->port, host,
		                   opts->port);
	if (saved == EACCES)
		return control_say(error, -TERN_EADDR, "TCP port %u needs root; take one above 1023", opts->port);
	return control_say(error, saved == EADDRNOTAVAIL ? -TERN_EADDR : -TERN_EIO, "cannot listen at %s port %u: %s", host, opts->port,
	                   strerror(saved));
}

static uint16_t listener_port(int fd)
{
	struct sockaddr_storage addr = {0};
	socklen_t bytes = sizeof(addr);

	if (getsockname(fd, (struct sockaddr *)&addr, &bytes) != 0)
		return 0;
	return ntohs(addr.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&addr)->sin6_port : ((struct sockaddr_in *)&addr)->sin_port);
}

/* The connection that has been at its handshake for longest. */
static struct conn *handshake_oldest(struct control *ct)
{
	struct conn *oldest = NULL;

	for (struct conn *c = ct->conns; c; c = c->next)
		if (!c->is_initiator && c->state < CONN_OPEN && (!oldest || c->began_ns < oldest->began_ns))
			oldest = c;
	return oldest;
}

/* Room for one more handshake? The oldest gives way, but not before it had a fair chance: until then new ones wait in the kernel's queue. */
static bool handshake_room(struct control *ct, uint64_t now_ns)
{
	if (ct->handshakes < CONTROL_HANDSHAKES_MAX)
		return true;
	struct conn *c = handshake_oldest(ct);
	if (now_ns < c->began_ns + CONTROL_GRACE_NS) {
		listeners_rest(ct, c->began_ns + CONTROL_GRACE_NS);
		return false;
	}
	conn_fail(ct, c, -TERN_ELIMIT, "dropped: the oldest of %d connections that did not finish their handshake", CONTROL_HANDSHAKES_MAX);
	return true;
}

static void listener_take(struct control *ct, struct listener *l, int fd, const struct sockaddr_storage *peer)
{
	struct conn *c = ct->conn_count < ct->config.max_conns ? conn_new() : NULL;
	int on = 1;

	if (!c) {
		control_log(ct, TERN_LOG_WARN, __LINE__, "an incoming connection was refused: no memory, or max_conns reached");
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	c->fd = fd;
	c->peer = *peer;
	c->id = CONTROL_ID_ACCEPTED | ct->next_accepted++;
	c->listener = l->id;
	c->is_private = l->is_private;
	c->began_ns = control_now_ns();
	c->setup_ns = c->began_ns + ct->config.accept_timeout_ns;
	conn_add(ct, c);
	conn_timer_set(ct, c, c->setup_ns);
	conn_connected(ct, c);
}

static void listener_ready(struct control *ct, struct watch *w, uint32_t events)
{
	struct listener *l = (struct listener *)w;

	(void)events;
	for (int i = 0; i < ACCEPTS_A_TURN && l->fd >= 0 && handshake_room(ct, control_now_ns()); i++) { /* a callback may stop the listening */
		struct sockaddr_storage peer = {0};
		socklen_t bytes = sizeof(peer);
		int fd = accept4(l->fd, (struct sockaddr *)&peer, &bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			listener_take(ct, l, fd, &peer);
			continue;
		}
		if (errno == ECONNABORTED || errno == EINTR)
			continue;
		if (errno != EAGAIN) { /* no descriptors or memory: the queue stays readable, so do not ask again at once */
			char text[128];
			snprintf(text, sizeof(text), "cannot take a connection: %s", strerror(errno));
			control_log(ct, TERN_LOG_WARN, __LINE__, text);
			listeners_rest(ct, control_now_ns() + CONTROL_ACCEPT_PAUSE_NS);
		}
		return;
	}
}

static void listeners_watch(struct control *ct, uint32_t events)
{
	for (struct listener *l = ct->listeners; l; l = l->next) {
		struct epoll_event ev = {.events = events, .data.ptr = l};
		epoll_ctl(ct->epfd, EPOLL_CTL_MOD, l->fd, &ev);
	}
}

void listeners_rest(struct control *ct, uint64_t until_ns)
{
	if (!ct->accept_at_ns)
		listeners_watch(ct, 0);
	ct->accept_at_ns = until_ns;
	if (until_ns < ct->timer_ns)
		ct->timer_ns = until_ns;
}

void listeners_resume(struct control *ct)
{
	if (ct->accept_at_ns)
		listeners_watch(ct, EPOLLIN);
	ct->accept_at_ns = 0;
}

void listener_add(struct control *ct, struct listener *l)
{
	struct epoll_event ev = {.events = ct->accept_at_ns ? 0 : EPOLLIN, .data.ptr = l};

	l->next = ct->listeners;
	ct->listeners = l;
	if (epoll_ctl(ct->epfd, EPOLL_CTL_ADD, l->fd, &ev) != 0)
		control_log(ct, TERN_LOG_ERROR, __LINE__, "epoll refused a listener");
}

int listener_remove(struct control *ct, uint64_t id)
{
	for (struct listener **at = &ct->listeners; *at; at = &(*at)->next) {
		struct listener *l = *at;
		if (l->id != id)
			continue;
		*at = l->next;
		close(l->fd);
		l->fd = -1;
		l->next = ct->dead_listeners;
		ct->dead_listeners = l;
		return 0;
	}
	return -TERN_ENOENT;
}

void listeners_bury(struct control *ct)
{
	while (ct->dead_listeners) {
		struct listener *l = ct->dead_listeners;
		ct->dead_listeners = l->next;
		free(l);
	}
}

/* One that no thread has seen. */
void listener_free(struct listener *l)
{
	close(l->fd);
	free(l);
}

int listener_new(const struct control_listen *opts, struct listener **out, uint16_t *port, struct control_error *error)
{
	struct listener *l = calloc(1, sizeof(*l));

	*out = NULL;
	if (!l)
		return control_say(error, -TERN_ENOMEM, "no memory for a listener");
	l->fd = listener_open(opts, error);
	if (l->fd < 0) {
		int err = l->fd;
		free(l);
		return err;
	}
	l->watch.ready = listener_ready;
	l->id = opts->id;
	l->is_private = opts->is_private;
	*port = listener_port(l->fd);
	*out = l;
	return 0;
}
