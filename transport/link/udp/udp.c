/* The udp link: datagrams over kernel sockets, one shared socket for whoever comes and a connected one a path. Called by the loop through
 * link_udp_ops. Which engine moves the messages (plain sockets or io_uring) is decided at open; this file only keeps the link's lists. Knows nothing
 * of what is in a frame. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "link/option.h"
#include "link/udp/udp.h"
#include "tern/tern.h"
#include "tern_config.h"

static const struct udp_engine *const engines[] = {
    &udp_engine_plain, /* the default: see docs/design/002-udp-link.md */
#ifdef TERN_HAVE_URING
    &udp_engine_uring,
#endif
};

/* Options of other rooms are in the same text: unknown names are none of this file's business, wrong values are. */
static int udp_options(struct udp_link *l, const struct link_config *config, char *engine, size_t room)
{
	static const char *const flags[] = {"ecn", "gso", "gro"};
	bool *const values[] = {&l->options.ecn, &l->options.gso, &l->options.gro};
	char text[16];

	l->options = (struct udp_options){.ecn = true, .gso = true, .gro = true};
	for (size_t i = 0; i < 3; i++) {
		if (!link_option(config->options, flags[i], text, sizeof(text)))
			continue;
		if (strcmp(text, "0") && strcmp(text, "1")) {
			snprintf(config->error, config->error_bytes, "udp: %s=%s: give 0 or 1", flags[i], text);
			return -TERN_EINVAL;
		}
		*values[i] = *text == '1';
	}
	if (link_option(config->options, "dscp", text, sizeof(text))) {
		char *end;
		unsigned long value = strtoul(text, &end, 10);
		if (!*text || *end || value > 63) {
			snprintf(config->error, config->error_bytes, "udp: dscp=%s: give 0 to 63", text);
			return -TERN_EINVAL;
		}
		l->options.dscp = (uint8_t)value;
	}
	if (link_option(config->options, "engine", engine, room))
		l->options.engine = engine;
	return 0;
}

/* The engine asked for, or the first that opens. */
static int udp_engine_open(struct udp_link *l, const struct link_config *config)
{
	bool known = false;
	for (size_t i = 0; i < sizeof(engines) / sizeof(engines[0]); i++) {
		if (l->options.engine && strcmp(l->options.engine, engines[i]->name))
			continue;
		known = true;
		if (!engines[i]->open(l)) {
			l->engine = engines[i];
			udp_log(l, TERN_LOG_INFO, "udp engine: %s", l->engine->name);
			return 0;
		}
		udp_log(l, TERN_LOG_WARN, "udp engine %s is refused here", engines[i]->name);
	}
	snprintf(config->error, config->error_bytes, "udp: engine=%s %s; leave it out to have one chosen",
	         l->options.engine ? l->options.engine : "any", known ? "is refused by this system" : "is not in this build");
	l->options.engine = NULL;
	return known ? -TERN_EIO : -TERN_EINVAL;
}

static int udp_sock_join(struct udp_link *l, struct udp_sock *s)
{
	s->slot = l->n_socks;
	l->socks[l->n_socks++] = s;
	int err = l->engine->sock_add(l, s);
	if (err)
		l->n_socks--;
	return err;
}

static void udp_sock_leave(struct udp_link *l, struct udp_sock *s)
{
	l->engine->sock_del(l, s);
	struct udp_sock *last = l->socks[--l->n_socks];
	l->socks[s->slot] = last;
	last->slot = s->slot;
	close(s->fd);
}

static void udp_free(struct udp_link *l)
{
	udp_bufs_close(l);
	free(l->done);
	free(l->socks);
	free(l->paths);
	free(l);
}

static struct udp_link *udp_alloc(const struct link_config *config)
{
	struct udp_link *l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	l->listening = config->listening;
	link_log_open(&l->base, config);
	l->shared.fd = -1;
	l->done = calloc(UDP_DONE_MAX, sizeof(*l->done));
	l->socks = calloc(UDP_PATHS_MAX + 1, sizeof(*l->socks));
	l->paths = calloc(UDP_PATHS_MAX, sizeof(*l->paths));
	if (!l->done || !l->socks || !l->paths || udp_bufs_open(l)) {
		udp_free(l);
		return NULL;
	}
	return l;
}

/* An open link names a table without empty slots. */
static struct link_ops udp_ops;
static pthread_once_t udp_ops_once = PTHREAD_ONCE_INIT;

static void udp_ops_fill(void)
{
	link_fill(&link_udp_ops, &udp_ops);
}

static int udp_open(const struct link_config *given, struct link **out)
{
	char none[1], engine[16];
	struct link_config config = *given;

	*out = NULL;
	pthread_once(&udp_ops_once, udp_ops_fill);
	if (!config.error || !config.error_bytes) {
		config.error = none;
		config.error_bytes = sizeof(none);
	}
	struct udp_link *l = udp_alloc(&config);
	if (!l) {
		snprintf(config.error, config.error_bytes, "udp: no memory");
		return -TERN_ENOMEM;
	}
	int err = udp_options(l, &config, engine, sizeof(engine));
	if (!err)
		err = udp_sock_bind(l, &config);
	if (err)
		goto fail;
	err = udp_engine_open(l, &config);
	if (err)
		goto fail_engine;
	if (l->listening && udp_sock_join(l, &l->shared)) { /* not listening: it only holds the port, nothing is expected there */
		snprintf(config.error, config.error_bytes, "udp: engine %s does not take the socket", l->engine->name);
		err = -TERN_EIO;
		goto fail_sock;
	}
	l->base.caps = LINK_BYTES | (l->engine == &udp_engine_plain ? LINK_PLACES : 0);
	l->base.max_segments = FRAME_SEGS_MAX;
	l->base.ops = &udp_ops;
	l->options.engine = NULL;
	*out = &l->base;
	return 0;

fail_sock:
	l->engine->close(l);
fail_engine:
	close(l->shared.fd);
fail:
	udp_free(l);
	return err;
}

static int udp_path_open(struct link *link, const struct link_path_config *config, struct link_path **out)
{
	struct udp_link *l = (struct udp_link *)link;

	*out = NULL;
	if (l->n_paths == UDP_PATHS_MAX)
		return -TERN_ELIMIT;
	struct udp_path *p = calloc(1, sizeof(*p));
	if (!p)
		return -TERN_ENOMEM;
	p->base.link = link;
	p->base.remote = config->remote;
	p->local = config->local;
	p->gso = l->options.gso;
	int err = udp_sock_connect(l, p);
	if (err)
		goto fail;
	p->base.max_frame_bytes = udp_sock_max_bytes(p);
	if (config->mtu_bytes > p->base.overhead_bytes && config->mtu_bytes - p->base.overhead_bytes < p->base.max_frame_bytes)
		p->base.max_frame_bytes = config->mtu_bytes - p->base.overhead_bytes;
	p->sock.path = p;
	err = udp_sock_join(l, &p->sock);
	if (err)
		goto fail_sock;
	p->index = l->n_paths;
	l->paths[l->n_paths++] = p;
	*out = &p->base;
	return 0;

fail_sock:
	close(p->sock.fd);
fail:
	free(p);
	return err;
}

static void udp_path_close(struct link *link, struct link_path **path)
{
	struct udp_link *l = (struct udp_link *)link;
	struct udp_path *p = (struct udp_path *)*path;

	if (!p)
		return;
	udp_sock_leave(l, &p->sock);
	udp_bufs_forget(l, p);
	l->paths[p->index] = l->paths[--l->n_paths];
	l->paths[p->index]->index = p->index;
	free(p);
	*path = NULL;
}

static void udp_close(struct link **link)
{
	struct udp_link *l = (struct udp_link *)*link;

	if (!l)
		return;
	while (l->n_paths) {
		struct link_path *p = &l->paths[l->n_paths - 1]->base;
		udp_path_close(*link, &p);
	}
	if (l->listening)
		udp_sock_leave(l, &l->shared);
	else
		close(l->shared.fd);
	l->engine->close(l);
	udp_free(l);
	*link = NULL;
}

static size_t udp_tx(struct link *link, struct frame *const *frames, size_t n, uint64_t now_ns)
{
	struct udp_link *l = (struct udp_link *)link;
	uint32_t room = udp_done_room(l);
	(void)now_ns;
	return l->engine->tx(l, frames, n < room ? n : room);
}

static size_t udp_reap(struct link *link, struct frame **out, size_t n, uint64_t now_ns)
{
	struct udp_link *l = (struct udp_link *)link;
	size_t got = 0;
	(void)now_ns;
	if (l->engine->reap)
		l->engine->reap(l);
	while (got < n && l->done_tail != l->done_head)
		out[got++] = l->done[l->done_tail++ & (UDP_DONE_MAX - 1)];
	return got;
}

static size_t udp_rx(struct link *link, struct rx_frame *out, size_t n, uint64_t now_ns)
{
	struct udp_link *l = (struct udp_link *)link;
	size_t got = udp_split_next(l, out, n);
	(void)now_ns;
	return got < n ? got + l->engine->rx(l, out + got, n - got) : got;
}

static void udp_rx_free(struct link *link, struct rx_frame *frames, size_t n)
{
	for (size_t i = 0; i < n; i++)
		udp_buf_put((struct udp_link *)link, frames[i].lent);
}

static int udp_from(struct link *link, const struct rx_frame *frame, struct link_addr *out)
{
	struct udp_link *l = (struct udp_link *)link;
	if (frame->from >= UDP_BUFS || !l->bufs[frame->from].refs)
		return -TERN_ENOENT;
	const struct udp_buf *b = &l->bufs[frame->from];
	if (b->path)
		*out = b->path->base.remote;
	else
		udp_addr_from(&b->from, out);
	return 0;
}

static int udp_to(struct link *link, const struct rx_frame *frame, struct link_addr *out)
{
	const struct udp_link *l = (const struct udp_link *)link;
	if (frame->from >= UDP_BUFS || !l->bufs[frame->from].refs || l->bufs[frame->from].path || !l->bufs[frame->from].to.ss_family)
		return -TERN_ENOENT;
	udp_addr_from(&l->bufs[frame->from].to, out);
	return 0;
}

static int udp_rx_post(struct link *link, struct link_path *path, const struct link_post *post)
{
	struct udp_link *l = (struct udp_link *)link;
	return l->engine == &udp_engine_plain ? udp_scatter_post(l, (struct udp_path *)path, post) : -TERN_EINVAL;
}

static void udp_rx_revoke(struct link *link, struct link_path *path)
{
	udp_scatter_revoke((struct udp_link *)link, (struct udp_path *)path);
}

static void udp_wait(struct link *link, bool armed, struct link_wait *out)
{
	struct udp_link *l = (struct udp_link *)link;
	l->engine->wait(l, armed, out);
	if (l->rest.bytes || l->done_tail != l->done_head)
		out->deadline_ns = 0;
}

const struct link_ops link_udp_ops = {
    .name = "udp",
    .open = udp_open,
    .close = udp_close,
    .path_open = udp_path_open,
    .path_close = udp_path_close,
    .tx = udp_tx,
    .reap = udp_reap,
    .rx = udp_rx,
    .rx_free = udp_rx_free,
    .from = udp_from,
    .to = udp_to,
    .rx_post = udp_rx_post,
    .rx_revoke = udp_rx_revoke,
    .wait = udp_wait,
};
