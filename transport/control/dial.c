/* From a host's name to a TCP connection: names are looked up by short-lived threads (getaddrinfo blocks for as long as a name server likes),
 * addresses are tried in order. Called by conn.c and control.c; knows nothing of TLS. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "control/inner.h"

/* One look-up; filled by its thread, then moved to the resolver's list. */
struct find {
	struct find *next;
	struct resolver *home;
	uint64_t serial;
	char host[CONTROL_HOST_MAX];
	uint16_t port;
	int gai; /* getaddrinfo's error */
	struct sockaddr_storage addr[CONN_ADDRS_MAX];
	size_t addrs;
};

/* Shared with the threads, which may outlive the context: freed by the last one. */
struct resolver {
	pthread_mutex_t lock;
	struct find *found;
	int wakefd;       /* -1: the context has gone */
	uint32_t threads; /* at work */
};

int resolver_open(struct control *ct)
{
	ct->resolver = calloc(1, sizeof(*ct->resolver));
	if (!ct->resolver)
		return -TERN_ENOMEM;
	pthread_mutex_init(&ct->resolver->lock, NULL);
	ct->resolver->wakefd = ct->wakefd;
	return 0;
}

static void resolver_free(struct resolver *r)
{
	while (r->found) {
		struct find *f = r->found;
		r->found = f->next;
		free(f);
	}
	pthread_mutex_destroy(&r->lock);
	free(r);
}

void resolver_close(struct control *ct)
{
	struct resolver *r = ct->resolver;

	if (!r)
		return;
	ct->resolver = NULL;
	pthread_mutex_lock(&r->lock);
	r->wakefd = -1;
	bool last = r->threads == 0;
	pthread_mutex_unlock(&r->lock);
	if (last)
		resolver_free(r);
}

/* May block only without AI_NUMERICHOST. */
static void find_run(struct find *f, int flags)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags}, *list = NULL;
	char port[8];

	snprintf(port, sizeof(port), "%u", f->port);
	f->gai = getaddrinfo(f->host, port, &hints, &list);
	for (struct addrinfo *a = f->gai == 0 ? list : NULL; a && f->addrs < CONN_ADDRS_MAX; a = a->ai_next)
		if (a->ai_addrlen <= sizeof(f->addr[0]))
			memcpy(&f->addr[f->addrs++], a->ai_addr, a->ai_addrlen);
	if (list)
		freeaddrinfo(list);
}

static void *find_thread(void *arg)
{
	struct find *f = arg;
	struct resolver *r = f->home;
	uint64_t one = 1;

	pthread_setname_np(pthread_self(), "tern-resolve");
	find_run(f, 0);
	pthread_mutex_lock(&r->lock);
	f->next = r->found;
	r->found = f;
	r->threads--;
	bool last = r->wakefd < 0 && r->threads == 0;
	if (r->wakefd >= 0 && write(r->wakefd, &one, sizeof(one)) < 0)
		errno = 0; /* the counter is full: it is readable already */
	pthread_mutex_unlock(&r->lock);
	if (last)
		resolver_free(r);
	return NULL;
}

/* @return 0, -TERN_EAGAIN (all threads are busy), -TERN_ENOMEM */
static int find_start(struct resolver *r, struct conn *c)
{
	struct find *f;
	pthread_t thread;
	sigset_t all, old;

	pthread_mutex_lock(&r->lock);
	bool busy = r->threads >= RESOLVERS_MAX;
	r->threads += !busy;
	pthread_mutex_unlock(&r->lock);
	if (busy)
		return -TERN_EAGAIN;
	f = calloc(1, sizeof(*f));
	if (f) {
		f->home = r;
		f->serial = c->serial;
		f->port = c->setup->port;
		memcpy(f->host, c->setup->host, sizeof(f->host));
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &old);
		int rc = pthread_create(&thread, NULL, find_thread, f);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
		if (rc == 0) {
			pthread_detach(thread);
			return 0;
		}
		free(f);
	}
	pthread_mutex_lock(&r->lock);
	r->threads--;
	pthread_mutex_unlock(&r->lock);
	return -TERN_ENOMEM;
}

const char *addr_text(const struct sockaddr_storage *addr, char *out, size_t bytes)
{
	char host[INET6_ADDRSTRLEN] = "?";
	unsigned port;

	if (addr->ss_family == AF_INET6) {
		const struct sockaddr_in6 *a = (const void *)addr;
		inet_ntop(AF_INET6, &a->sin6_addr, host, sizeof(host));
		port = ntohs(a->sin6_port);
	} else {
		const struct sockaddr_in *a = (const void *)addr;
		inet_ntop(AF_INET, &a->sin_addr, host, sizeof(host));
		port = ntohs(a->sin_port);
	}
	snprintf(out, bytes, addr->ss_family == AF_INET6 ? "[%s]:%u" : "%s:%u", host, port);
	return out;
}

/* ::ffff:a.b.c.d, what a dual-stack socket shows of an IPv4 peer, becomes a.b.c.d. */
void addr_unmap(struct sockaddr_storage *addr)
{
	struct sockaddr_in6 *a6 = (void *)addr;
	struct sockaddr_in a4 = {.sin_family = AF_INET};

	if (addr->ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&a6->sin6_addr))
		return;
	a4.sin_port = a6->sin6_port;
	memcpy(&a4.sin_addr, a6->sin6_addr.s6_addr + 12, 4);
	memset(addr, 0, sizeof(*addr));
	memcpy(addr, &a4, sizeof(a4));
}

struct link_addr addr_link(const struct sockaddr_storage *addr)
{
	struct link_addr out = {.bytes = addr->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in)};

	memcpy(out.data, addr, out.bytes);
	return out;
}

static void dial_give_up(struct control *ct, struct conn *c)
{
	const struct conn_setup *s = c->setup;
	char text[80];

	conn_fail(ct, c, -TERN_EADDR, "%s port %u is not reachable (last tried %s: %s)%s", s->host, s->port, addr_text(&c->peer, text, sizeof(text)),
	          strerror(s->last_errno), s->last_errno == ECONNREFUSED ? "; nobody listens there" : "");
}

/* Closes the attempt that failed; its number would otherwise stay in epoll. */
static void dial_hang_up(struct conn *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->watched = 0;
}

/* Tries addresses until one is under way. */
static void dial_next(struct control *ct, struct conn *c)
{
	struct conn_setup *s = c->setup;

	dial_hang_up(c);
	while (s->next_addr < s->addrs) {
		c->peer = s->addr[s->next_addr++];
		socklen_t bytes = c->peer.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
		int on = 1;

		c->fd = socket(c->peer.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (c->fd >= 0)
			setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		if (c->fd >= 0 && (connect(c->fd, (struct sockaddr *)&c->peer, bytes) == 0 || errno == EINPROGRESS)) {
			uint64_t until = control_now_ns() + CONTROL_ATTEMPT_NS;
			conn_arm(ct, c);
			conn_timer_set(ct, c, s->next_addr < s->addrs && until < c->setup_ns ? until : c->setup_ns);
			return;
		}
		s->last_errno = errno;
		dial_hang_up(c);
	}
	dial_give_up(ct, c);
}

static void dial_found(struct control *ct, struct conn *c, const struct find *f)
{
	if (f->gai != 0 || f->addrs == 0) {
		conn_fail(ct, c, -TERN_EADDR, "the name \"%s\" is not known: %s", f->host, f->gai ? gai_strerror(f->gai) : "no address");
		return;
	}
	memcpy(c->setup->addr, f->addr, sizeof(f->addr));
	c->setup->addrs = f->addrs;
	c->state = CONN_TCP;
	dial_next(ct, c);
}

static void dial_resolve(struct control *ct, struct conn *c)
{
	int rc = find_start(ct->resolver, c);

	c->setup->resolving = rc == 0;
	if (rc == -TERN_ENOMEM)
		conn_fail(ct, c, rc, "no memory to look up \"%s\"", c->setup->host);
}

void dial_start(struct control *ct, struct conn *c)
{
	struct find f = {.port = c->setup->port};

	memcpy(f.host, c->setup->host, sizeof(f.host));
	conn_timer_set(ct, c, c->setup_ns);
	find_run(&f, AI_NUMERICHOST); /* a numeric address asks nobody */
	if (f.gai == 0)
		dial_found(ct, c, &f);
	else
		dial_resolve(ct, c);
}

/* Called when the wake descriptor fired: takes what threads found and starts those that waited for a free thread. */
void resolver_take(struct control *ct)
{
	struct resolver *r = ct->resolver;

	pthread_mutex_lock(&r->lock);
	struct find *list = r->found;
	r->found = NULL;
	pthread_mutex_unlock(&r->lock);
	if (!list)
		return;
	while (list) {
		struct find *f = list;
		list = f->next;
		for (struct conn *c = ct->conns; c; c = c->next)
			if (c->serial == f->serial && c->state == CONN_RESOLVE) {
				dial_found(ct, c, f);
				break;
			}
		free(f);
	}
	for (struct conn *c = ct->conns, *next; c; c = next) {
		next = c->next;
		if (c->state == CONN_RESOLVE && !c->setup->resolving)
			dial_resolve(ct, c);
	}
}

void dial_ready(struct control *ct, struct conn *c)
{
	int error = 0;
	socklen_t bytes = sizeof(error);

	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
	if (error) {
		c->setup->last_errno = error;
		dial_next(ct, c);
		return;
	}
	conn_connected(ct, c);
}

/* An address that says nothing gives way to the next; conn_timer has seen to the whole time. */
void dial_timer(struct control *ct, struct conn *c)
{
	c->setup->last_errno = ETIMEDOUT;
	dial_next(ct, c);
}
