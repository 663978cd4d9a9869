/* Endpoints: open, listen, address, close. Any thread, under the lock. */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "api/context.h"
#include "base/clock.h"
#include "base/err.h"
#include "cc/cc.h"

enum { PORT_TRIES = 16 };

static int ep_open_fds(tern_ep *ep)
{
	ep->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ep->event_fd < 0)
		return -TERN_EIO;
	ep->poll_fd = ep->event_fd;
	if (ep->ctx->has_thread)
		return 0;
	ep->poll_fd = epoll_create1(EPOLL_CLOEXEC);
	ep->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	ep->timer_ns = UINT64_MAX;
	if (ep->poll_fd < 0 || ep->timer_fd < 0 || api_watch(ep->poll_fd, ep->event_fd, false) ||
	    api_watch(ep->poll_fd, ep->timer_fd, false) || api_watch(ep->poll_fd, ep->ctx->wake_fd, false))
		return -TERN_EIO;
	return 0;
}

static void ep_free(tern_ep *ep)
{
	if (ep->poll_fd >= 0 && ep->poll_fd != ep->event_fd)
		close(ep->poll_fd);
	if (ep->event_fd >= 0)
		close(ep->event_fd);
	if (ep->timer_fd >= 0)
		close(ep->timer_fd);
	free(ep->slots);
	free(ep);
}

int tern_ep_open(tern_ctx *ctx, tern_ep **out)
{
	if (!ctx || !out)
		return ERR(TERN_EINVAL, "tern_ep_open: ctx and out must not be NULL");
	*out = NULL;
	if (api_fork_check(ctx))
		return -TERN_EFORK;
	tern_ep *ep = calloc(1, sizeof(*ep));
	if (!ep)
		return ERR(TERN_ENOMEM, "no memory for an endpoint");
	ep->ctx = ctx;
	ep->event_fd = ep->poll_fd = ep->timer_fd = -1;
	list_init(&ep->listeners);
	ep->slots = api_ring_open(&ep->events, ctx->config.max_ops + api_nodes(ctx));
	int err = ep->slots ? ep_open_fds(ep) : -TERN_ENOMEM;
	if (err) {
		ep_free(ep);
		return ERR(err, "endpoint: %s; raise `ulimit -n`", strerror(errno));
	}
	api_lock(ctx);
	err = msg_ep_open(ctx->loop->msg, &ep->msg);
	if (!err)
		list_push_back(&ctx->eps, &ep->link);
	ctx->is_unwatched = !err || ctx->is_unwatched;
	api_unlock(ctx);
	if (err) {
		ep_free(ep);
		return ERR(err, "too many endpoints");
	}
	*out = ep;
	return 0;
}

/* Operations that ended and wait for a tern_test that will not come. Under the lock; is_closing keeps more from waiting. */
static void ep_tested(tern_ep *ep)
{
	struct api_slab *ops = &ep->ctx->ops;
	for (uint32_t i = 0; i < ops->n; i++) {
		struct api_op *op = (struct api_op *)(ops->memory + ops->bytes * i);
		if (op->ep == ep && atomic_load(&op->state) == API_OP_TESTED)
			api_op_free(op);
	}
}

/* Runs the loop until every operation of the endpoint has come back; without a thread this call drives. Bounded by what path_close promises. */
static void ep_quiesce(tern_ep *ep)
{
	uint64_t end = clock_now_ns() + 1000000000ull;
	while (atomic_load(&ep->open_ops) && clock_now_ns() < end) {
		tern_event e[64];
		size_t got;
		if (tern_poll(ep, e, 64, &got))
			return;
	}
}

/* Events nobody will read go back to their slab. */
static void ep_unread(tern_ep *ep)
{
	tern_event e[64];
	size_t got = 1;
	while (got && !tern_poll(ep, e, 64, &got))
		;
}

int tern_ep_close(tern_ep **epp)
{
	if (!epp || !*epp)
		return -TERN_EINVAL;
	tern_ep *ep = *epp;
	tern_ctx *ctx = ep->ctx;
	*epp = NULL;
	if (api_forked(ctx))
		return -TERN_EFORK;
	api_lock(ctx);
	ep->is_closing = true; /* from here on nobody is accepted */
	ep_tested(ep);
	api_unlock(ctx);
	struct list *at;
	/* without the lock: it waits for the control thread, which may be waiting for the lock in a callback */
	for (at = list_first(&ep->listeners); at; at = list_next(&ep->listeners, at))
		control_unlisten(ctx->control, list_entry(at, struct api_listener, link)->id);
	api_lock(ctx);
	api_commands_flush(ctx); /* what is in the ring names the endpoint too */
	for (uint32_t i = 0; i < ctx->config.max_peers; i++)
		if (ctx->peers[i] && ctx->peers[i]->ep == ep)
			api_peer_close(ctx->peers[i], -TERN_ECANCELED, 0);
	msg_ep_close(ctx->loop->msg, ep->msg, -TERN_ECANCELED);
	api_step(ctx, clock_now_ns());
	api_unlock(ctx);
	ep_quiesce(ep);
	api_lock(ctx);
	for (uint32_t i = 0; i < ctx->config.max_peers; i++)
		if (ctx->peers[i] && ctx->peers[i]->ep == ep)
			api_peer_forget(ctx->peers[i]);
	while ((at = list_pop_front(&ep->listeners))) {
		struct api_listener *l = list_entry(at, struct api_listener, link);
		api_link_close(ctx, &l->via);
		free(l);
	}
	api_mem_forget(ctx, 0, ep);
	list_remove(&ep->link);
	api_unlock(ctx);
	ep_unread(ep);
	ep_free(ep);
	return 0;
}

/* The port that the link took; 0: its addresses have none. */
static uint16_t listen_port(const struct link *link)
{
	struct sockaddr_in6 six;
	struct sockaddr_in four;
	sa_family_t family = 0;
	if (link->local.bytes >= sizeof(four))
		memcpy(&family, link->local.data, sizeof(family));
	memcpy(&four, link->local.data, sizeof(four));
	memcpy(&six, link->local.data, sizeof(six));
	if (family == AF_INET)
		return ntohs(four.sin_port);
	return family == AF_INET6 && link->local.bytes >= sizeof(six) ? ntohs(six.sin6_port) : 0;
}

/* One port: TCP and the link with the same number unless ctl= gives TCP another. With udp TCP comes first; other links may bring the address to the kernel that TCP
 * binds, so they come first where they have ports. Under the lock, so that nobody is accepted before both are there.
 * *tcp: TCP is bound and must be given back; *again: only the pair was refused, another port may do. */
static int listen_try(tern_ctx *ctx, struct api_listener *l, const char *host, bool *tcp, bool *again)
{
	struct control_error why;
	struct api_address at = l->address;
	uint16_t own = at.port;
	bool link_first = strcmp(at.scheme, "udp") != 0;
	snprintf(at.host, sizeof(at.host), "%s", host);
	*tcp = *again = false;
	int err = link_first ? api_link_open(ctx, &at, API_LINK_LISTEN, at.port, &l->via) : 0;
	if (err)
		return err;
	if (link_first && !at.port) {
		own = listen_port(l->via->link);
		link_first = own != 0;
		if (!link_first)
			api_link_close(ctx, &l->via);
	}
	uint16_t port = at.ctl_port ? at.ctl_port : own;
	struct control_listen cl = {.host = *at.ctl ? at.ctl : at.host, .port = port, .is_private = l->address.is_private, .id = l->id};
	err = control_listen(ctx->control, &cl, &port, &why);
	*tcp = !err;
	*again = !at.port && (link_first || !err);
	if (err) {
		if (link_first)
			api_link_close(ctx, &l->via);
		return ERR(err, "%s", why.text);
	}
	if (at.ctl_port)
		l->address.ctl_port = port;
	port = (*at.ctl && at.port) || link_first ? own : port;
	if (!link_first)
		err = api_link_open(ctx, &at, API_LINK_LISTEN, port, &l->via);
	if (err)
		return err;
	l->address.port = port;
	l->via->listener = l->id;
	list_push_back(&l->ep->listeners, &l->link);
	return 0;
}

/* With port 0 another one is tried when TCP or the link does not get the one that the other has. */
static int listen_bind(tern_ctx *ctx, struct api_listener *l, const char *host)
{
	int err = 0;
	for (unsigned i = 0; i < PORT_TRIES; i++) {
		bool tcp, again;
		api_lock(ctx);
		l->id = ctx->next_id++;
		err = listen_try(ctx, l, host, &tcp, &again);
		api_unlock(ctx);
		if (!err)
			return 0;
		if (tcp) /* without the lock: it waits for the control thread, which may be waiting for the lock in a callback */
			control_unlisten(ctx->control, l->id);
		if (!again || err != -TERN_EADDR)
			break;
	}
	return err;
}

/* A name is looked up here, without the lock: a name server may take its time. The first of its addresses that can be bound is taken. */
static int listen_named(tern_ctx *ctx, struct api_listener *l)
{
	struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICHOST, .ai_socktype = SOCK_STREAM}, *list = NULL;
	const char *name = l->address.host;
	char host[CONTROL_HOST_MAX];
	if (!*name)
		return listen_bind(ctx, l, name);
	int gai = getaddrinfo(name, NULL, &hints, &list);
	if (!gai) { /* numeric as it stands */
		freeaddrinfo(list);
		return listen_bind(ctx, l, name);
	}
	hints.ai_flags = AI_PASSIVE;
	gai = getaddrinfo(name, NULL, &hints, &list);
	if (gai)
		return ERR(TERN_EADDR, "cannot listen at \"%s\": %s; give an address of this host", name, gai_strerror(gai));
	int err = -TERN_EADDR;
	for (struct addrinfo *a = list; a && err; a = a->ai_next) {
		gai = getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof(host), NULL, 0, NI_NUMERICHOST);
		err = gai ? ERR(TERN_EADDR, "cannot listen at \"%s\": %s", name, gai_strerror(gai)) : listen_bind(ctx, l, host);
		if (err && !gai)
			err = ERR(err, "cannot listen at \"%s\": %s", name, err_text());
	}
	freeaddrinfo(list);
	return err;
}

int tern_listen(tern_ep *ep, const char *text)
{
	if (!ep)
		return ERR(TERN_EINVAL, "endpoint is NULL");
	if (api_fork_check(ep->ctx))
		return -TERN_EFORK;
	tern_ctx *ctx = ep->ctx;
	struct api_listener *l = calloc(1, sizeof(*l));
	if (!l)
		return ERR(TERN_ENOMEM, "no memory for a listener");
	int err = api_address_parse(text, &l->address);
	const struct link_ops *ops;
	char why[CONTROL_TEXT_MAX];
	if (!err && (err = link_find(l->address.scheme, &ops, why, sizeof(why))))
		err = ERR(err, "address %s: %s", text, why);
	if (!err && *l->address.cc && !cc_find(l->address.cc))
		err = ERR(TERN_EINVAL, "option cc=%s: unknown; there are lightpath, cubic and fixed", l->address.cc);
	if (!err && !ctx->has_key)
		err = ERR(TERN_EKEY, "%s", ctx->key_trouble);
	if (!err)
		err = api_contract_load(ctx, &l->address, &l->contract, &l->has_contract);
	if (err) {
		free(l);
		return err;
	}
	l->ep = ep;
	err = listen_named(ctx, l);
	if (err)
		free(l);
	return err;
}

/* An address others can use, where the listener took any: the first interface that is up and not loopback, otherwise loopback. */
static void ep_own_host(char *host, size_t bytes)
{
	struct ifaddrs *all = NULL;
	snprintf(host, bytes, "127.0.0.1");
	if (getifaddrs(&all))
		return;
	for (struct ifaddrs *i = all; i; i = i->ifa_next) {
		if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || (i->ifa_flags & IFF_LOOPBACK) || !(i->ifa_flags & IFF_UP))
			continue;
		struct sockaddr_in in;
		memcpy(&in, i->ifa_addr, sizeof(in));
		inet_ntop(AF_INET, &in.sin_addr, host, (socklen_t)bytes);
		break;
	}
	freeifaddrs(all);
}

int tern_ep_address(tern_ep *ep, void *blob, size_t *bytes)
{
	if (!ep || !blob || !bytes)
		return ERR(TERN_EINVAL, "tern_ep_address: arguments must not be NULL");
	if (api_fork_check(ep->ctx))
		return -TERN_EFORK;
	api_lock(ep->ctx);
	struct list *first = list_first(&ep->listeners);
	struct api_address a;
	if (first)
		a = list_entry(first, struct api_listener, link)->address;
	api_unlock(ep->ctx);
	if (!first)
		return ERR(TERN_ENOENT, "the endpoint does not listen yet: call tern_listen first");
	if (!*a.host || !strcmp(a.host, "::") || !strcmp(a.host, "0.0.0.0"))
		ep_own_host(a.host, sizeof(a.host));
	*a.emu = *a.contract = 0; /* files of this machine mean nothing elsewhere */
	return api_address_write(&a, blob, bytes);
}
