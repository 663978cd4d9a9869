/* The link over a simulated network; see sim.h. Called by the loop through link_sim_ops. A frame taken is on the wire, or lost, at once: its descriptor can be
 * reaped in the same step. */
#include "link/sim/inner.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tern/error.h"

enum { REF_MIN_BYTES = 128 }; /* a shorter segment is cheaper copied */

static int fail(const struct link_config *config, int rc, const char *text)
{
	if (config->error && config->error_bytes)
		snprintf(config->error, config->error_bytes, "sim: %s", text);
	return rc;
}

uint64_t sim_option(const char *options, const char *key, uint64_t otherwise)
{
	size_t n = strlen(key);

	for (const char *at = options; at && *at; at = strchr(at, '&'), at = at ? at + 1 : NULL)
		if (!strncmp(at, key, n) && at[n] == '=')
			return strtoull(at + n + 1, NULL, 10);
	return otherwise;
}

static int addr_get(const struct link_addr *addr, uint32_t *node, uint32_t *port)
{
	uint32_t words[2];

	if (!addr || addr->bytes < sizeof(words))
		return -TERN_EADDR;
	memcpy(words, addr->data, sizeof(words));
	*node = words[0];
	*port = words[1];
	return 0;
}

/* What others may know: numbers, not where our memory lies. */
static void addr_put(uint32_t node, uint32_t port, struct link_addr *out)
{
	*out = (struct link_addr){.bytes = 2 * sizeof(uint32_t)};
	memcpy(out->data, &(uint32_t[2]){node, port}, out->bytes);
}

static struct sim_path **bucket(const struct sim_link *link, uint32_t own_port, uint32_t node, uint32_t port)
{
	uint64_t mix = ((uint64_t)node << 32 | port) + own_port * 0x9e3779b97f4a7c15u;

	return &link->buckets[rng_mix(&mix) & (link->buckets_n - 1)];
}

struct sim_path *sim_path_find(const struct sim_link *link, uint32_t own_port, uint32_t node, uint32_t port)
{
	struct sim_path *path = link->buckets_n ? *bucket(link, own_port, node, port) : NULL;

	while (path && (path->own_port != own_port || path->node != node || path->port != port))
		path = path->next;
	return path;
}

void sim_path_move(struct sim_path *path, uint32_t node, uint32_t port)
{
	struct sim_link *link = (struct sim_link *)path->base.link;
	struct sim_path **at = bucket(link, path->own_port, path->node, path->port);

	while (*at != path)
		at = &(*at)->next;
	*at = path->next;
	path->node = node;
	path->port = port;
	addr_put(node, port, &path->base.remote);
	at = bucket(link, path->own_port, node, port);
	path->next = *at;
	*at = path;
}

static int add_path(struct sim_link *link, struct sim_path *path)
{
	if (link->paths_n == link->buckets_n) {
		struct sim_path **old = link->buckets;
		uint32_t old_n = link->buckets_n;
		struct sim_path **buckets = calloc(old_n ? 2 * old_n : 8, sizeof(*buckets));
		if (!buckets)
			return -TERN_EIO;
		link->buckets = buckets;
		link->buckets_n = old_n ? 2 * old_n : 8;
		for (uint32_t i = 0; i < old_n; i++)
			while (old[i]) {
				struct sim_path *moved = old[i];
				old[i] = moved->next;
				struct sim_path **to = bucket(link, moved->own_port, moved->node, moved->port);
				moved->next = *to;
				*to = moved;
			}
		free(old);
	}
	struct sim_path **to = bucket(link, path->own_port, path->node, path->port);
	path->next = *to;
	*to = path;
	link->paths_n++;
	return 0;
}

/* An open link names a table without empty slots. */
static struct link_ops sim_ops;
static pthread_once_t sim_ops_once = PTHREAD_ONCE_INIT;

static void sim_ops_fill(void)
{
	link_fill(&link_sim_ops, &sim_ops);
}

static int sim_open(const struct link_config *config, struct link **out)
{
	struct sim_net *net;
	uint32_t node, port;

	*out = NULL;
	pthread_once(&sim_ops_once, sim_ops_fill);
	if (addr_get(config->net, &node, &port) || config->net->bytes != 2 * sizeof(uint64_t))
		return fail(config, -TERN_EADDR, "no network given; open one by sim_net_open and pass sim_net_addr in link_config.net");
	memcpy(&net, config->net->data + sizeof(uint64_t), sizeof(net));
	if (node >= net->nodes_n)
		return fail(config, -TERN_EADDR, "the network has no such node; open it with more nodes");
	if (net->nodes[node].link)
		return fail(config, -TERN_EADDR, "another link is open on this node; close it or take another node");
	uint64_t mtu = sim_option(config->options, "mtu", SIM_MTU_BYTES);
	if (mtu < 128 || mtu > 65535)
		return fail(config, -TERN_EADDR, "mtu is 128 to 65535 bytes");
	struct sim_link *link = calloc(1, sizeof(*link));
	if (!link)
		return fail(config, -TERN_ENOMEM, "no memory");
	link->net = net;
	link->node = node;
	link->listening = config->listening;
	link->mtu_bytes = (uint32_t)mtu;
	link->by_ref = sim_option(config->options, "by_ref", 0);
	link->base.ops = &sim_ops;
	link->base.caps = LINK_BYTES | LINK_TIMESTAMPS | LINK_VIRTUAL | (link->by_ref ? LINK_TX_ZERO_COPY : 0);
	link->base.max_segments = FRAME_SEGS_MAX;
	const char *wrong = sim_write_open(link, config->options);
	if (wrong) {
		free(link);
		return fail(config, -TERN_EADDR, wrong);
	}
	addr_put(link->node, 0, &link->base.local);
	net->nodes[node].link = link;
	*out = &link->base;
	return 0;
}

static void unready(struct sim_net *net, struct sim_link *link)
{
	struct sim_link **at = &net->ready, *last = NULL;

	while (*at) {
		if (*at == link)
			*at = link->ready_next;
		else {
			last = *at;
			at = &last->ready_next;
		}
	}
	net->ready_last = last;
}

static void sim_close(struct link **out)
{
	struct sim_link *link = (struct sim_link *)*out;

	*out = NULL;
	if (!link)
		return;
	link->net->nodes[link->node].link = NULL; /* first: none of its paths connects any more */
	while (link->inbox) {
		struct sim_frame *frame = link->inbox;
		link->inbox = (struct sim_frame *)frame->item.next;
		sim_frame_free(link->net, frame);
	}
	for (uint32_t i = 0; i < link->buckets_n; i++)
		while (link->buckets[i]) {
			struct sim_path *path = link->buckets[i];
			link->buckets[i] = path->next;
			if (link->is_writing)
				sim_connect_close(path);
			free(path);
		}
	sim_write_fini(link);
	free(link->buckets);
	unready(link->net, link); /* lent frames: their memory is the network's and goes with it */
	free(link);
}

static int trouble(struct sim_link *link, int rc, const char *text)
{
	snprintf(link->base.trouble, sizeof(link->base.trouble), "sim: %s", text);
	return rc;
}

static int sim_path_open(struct link *base, const struct link_path_config *config, struct link_path **out)
{
	struct sim_link *link = (struct sim_link *)base;
	uint32_t node, port;

	*out = NULL;
	if (link->is_writing && !config->token)
		return trouble(link, -TERN_EADDR, "a path that connects needs the session's token");
	if (link->is_writing && config->is_acceptor && !config->remote.bytes)
		node = SIM_ANYONE, port = 0;
	else if (addr_get(&config->remote, &node, &port) || node == link->node || !sim_net_reaches(link->net, link->node, node))
		return trouble(link, -TERN_EADDR, "no way leads to that node");
	struct sim_path *path = calloc(1, sizeof(*path));
	if (!path)
		return -TERN_EIO;
	uint32_t mtu = config->mtu_bytes > SIM_UDP_OVERHEAD_BYTES && config->mtu_bytes < link->mtu_bytes ? config->mtu_bytes : link->mtu_bytes;
	path->node = node;
	path->port = port;
	path->own_port = link->listening && !link->is_writing && !sim_path_find(link, 0, node, port) ? 0 : ++link->last_port;
	path->spread = (uint16_t)config->spread;
	path->base.link = base;
	path->base.max_frame_bytes = mtu - SIM_UDP_OVERHEAD_BYTES;
	path->base.overhead_bytes = SIM_UDP_OVERHEAD_BYTES;
	addr_put(node, port, &path->base.remote);
	int rc = add_path(link, path);
	if (rc) {
		free(path);
		return rc;
	}
	if (link->is_writing)
		sim_connect_open(path, config);
	*out = &path->base;
	return 0;
}

/* What it sent is on the wire, and its frames are in the ring of taken ones. */
static void sim_path_close(struct link *base, struct link_path **out)
{
	struct sim_link *link = (struct sim_link *)base;
	struct sim_path *path = (struct sim_path *)*out, **at;

	*out = NULL;
	if (!path)
		return;
	if (link->is_writing)
		sim_connect_close(path);
	at = bucket(link, path->own_port, path->node, path->port);
	while (*at != path)
		at = &(*at)->next;
	*at = path->next;
	link->paths_n--;
	free(path);
}

static void sim_path_reset(struct link *base, struct link_path *path)
{
	if (((struct sim_link *)base)->is_writing)
		sim_connect_break((struct sim_path *)path);
}

struct sim_frame *sim_frame_new(struct sim_net *net, size_t data_bytes)
{
	size_t bytes = sizeof(struct sim_frame) + data_bytes;
	struct sim_frame *frame = slab_get(&net->slab, bytes);

	if (!frame)
		return NULL;
	frame->body = NULL;
	frame->body_bytes = 0;
	frame->ce = frame->pieces = 0;
	frame->kind = SIM_BYTES;
	frame->is_reliable = frame->goes_back = false;
	frame->lane = 0;
	frame->stall_ns = 0;
	frame->packets = 1;
	frame->epoch = 0;
	frame->alloc_bytes = (uint32_t)bytes;
	return frame;
}

static struct sim_frame *take_copy(struct sim_net *net, const struct frame *tx)
{
	struct sim_frame *frame = sim_frame_new(net, tx->wire_bytes);
	uint8_t *to = frame ? frame->data : NULL;

	for (uint32_t i = 0; frame && i < tx->segs; i++) {
		memcpy(to, tx->seg[i].addr, tx->seg[i].bytes);
		to += tx->seg[i].bytes;
	}
	if (frame)
		frame->head_bytes = tx->wire_bytes;
	return frame;
}

/* Header and one payload, the usual case: the receiver gets just that. */
static struct sim_frame *take_split(struct sim_net *net, const struct frame *tx)
{
	struct sim_frame *frame = sim_frame_new(net, tx->seg[0].bytes);

	if (!frame)
		return NULL;
	memcpy(frame->data, tx->seg[0].addr, tx->seg[0].bytes);
	frame->head_bytes = tx->seg[0].bytes;
	frame->body = tx->seg[1].addr;
	frame->body_bytes = tx->seg[1].bytes;
	return frame;
}

/* Several runs: short ones are copied, the others noted, rx puts them together. */
static struct sim_frame *take_pieces(struct sim_net *net, const struct frame *tx)
{
	size_t copied = 0, list = tx->segs * sizeof(struct frame_seg);

	for (uint32_t i = 0; i < tx->segs; i++)
		if (!i || tx->seg[i].bytes < REF_MIN_BYTES)
			copied += tx->seg[i].bytes;
	struct sim_frame *frame = sim_frame_new(net, list + copied);
	if (!frame)
		return NULL;
	struct frame_seg *seg = (struct frame_seg *)frame->data;
	uint8_t *to = frame->data + list;
	for (uint32_t i = 0; i < tx->segs; i++) {
		seg[i] = tx->seg[i];
		if (i && tx->seg[i].bytes >= REF_MIN_BYTES)
			continue;
		memcpy(to, tx->seg[i].addr, tx->seg[i].bytes);
		seg[i].addr = to;
		to += tx->seg[i].bytes;
	}
	frame->pieces = tx->segs;
	frame->head_bytes = tx->wire_bytes;
	return frame;
}

static struct sim_frame *take(struct sim_link *link, const struct frame *tx)
{
	bool by_ref = link->by_ref && !tx->chunk && tx->segs > 1;

	if (by_ref && tx->segs == 2 && tx->seg[1].bytes >= REF_MIN_BYTES)
		return take_split(link->net, tx);
	if (by_ref && tx->segs > 2 && tx->wire_bytes > FRAME_SEGS_MAX * REF_MIN_BYTES)
		return take_pieces(link->net, tx);
	return take_copy(link->net, tx);
}

static void send_one(struct sim_link *link, const struct frame *tx)
{
	struct sim_net *net = link->net;
	struct sim_path *path = (struct sim_path *)tx->path;

	if (tx->is_write && link->is_writing) {
		sim_write_send(link, tx);
		return;
	}
	bool fits = tx->wire_bytes && tx->wire_bytes <= path->base.max_frame_bytes;
	if (!fits || (net->filter && !net->filter(net->filter_arg, link->node, path->node, tx))) {
		link->base.tx_dropped++;
		if (fits && path->base.is_reliable) /* there nothing is lost but with the connection */
			sim_connect_break(path);
		return;
	}
	struct sim_frame *frame = take(link, tx);
	if (!frame) {
		link->base.tx_dropped++;
		return;
	}
	frame->from = link->node;
	frame->to = path->node;
	frame->from_port = path->own_port;
	frame->to_port = path->port;
	frame->spread = path->spread;
	frame->epoch = path->epoch;
	frame->is_reliable = path->base.is_reliable;
	if (link->is_writing)
		sim_write_lane(link, frame, tx->lane);
	sim_net_send(net, link->node, frame);
}

static size_t sim_tx(struct link *base, struct frame *const *frames, size_t n, uint64_t now_ns)
{
	struct sim_link *link = (struct sim_link *)base;
	size_t i;

	base->tx_calls++;
	sim_net_advance(link->net, now_ns);
	for (i = 0; i < n && link->taken_n < SIM_TX_MAX; i++) {
		if (link->is_writing && !sim_write_ready(link, frames[i]))
			break;
		send_one(link, frames[i]);
		link->taken[(link->taken_at + link->taken_n++) % SIM_TX_MAX] = frames[i];
		base->tx_frames++;
		base->tx_bytes += frames[i]->wire_bytes;
	}
	return i;
}

static size_t sim_reap(struct link *base, struct frame **out, size_t n, uint64_t now_ns)
{
	struct sim_link *link = (struct sim_link *)base;
	size_t i;

	(void)now_ns;
	for (i = 0; i < n && link->taken_n; i++) {
		out[i] = link->taken[link->taken_at];
		link->taken_at = (link->taken_at + 1) % SIM_TX_MAX;
		link->taken_n--;
	}
	return i;
}

/* @return the frame in one run of bytes, in new memory, or NULL without memory; takes the frame */
static struct sim_frame *join(struct sim_net *net, struct sim_frame *frame)
{
	const struct frame_seg *seg = (const struct frame_seg *)frame->data;
	struct sim_frame *whole = sim_frame_new(net, frame->head_bytes);
	uint8_t *to = whole ? whole->data : NULL;

	for (uint32_t i = 0; whole && i < frame->pieces; i++) {
		memcpy(to, seg[i].addr, seg[i].bytes);
		to += seg[i].bytes;
	}
	if (whole) {
		whole->item = frame->item;
		whole->head_bytes = frame->head_bytes;
		whole->from = frame->from;
		whole->to = frame->to;
		whole->from_port = frame->from_port;
		whole->to_port = frame->to_port;
		whole->ce = frame->ce;
	}
	sim_frame_free(net, frame);
	return whole;
}

static void lend(struct sim_link *link, struct sim_frame *frame, struct sim_path *path, struct rx_frame *out)
{
	*out = (struct rx_frame){.head = frame->data,
	                         .body = frame->body,
	                         .head_bytes = frame->head_bytes,
	                         .body_bytes = frame->body_bytes,
	                         .time_ns = frame->item.time_ns,
	                         .path = path ? &path->base : NULL,
	                         .lent = frame,
	                         .from = frame->from,
	                         .ecn = frame->ce ? 3 : 2,
	                         .lane = frame->lane};
	if (frame->kind == SIM_WRITE) {
		out->is_placed = true;
		out->placed_number = (uint32_t)((const struct sim_write *)frame->data)->number;
		out->placed_bytes = frame->head_bytes;
		out->head = NULL;
		out->head_bytes = 0;
	}
	link->lent_n++;
	link->base.rx_frames++;
	link->base.rx_bytes += frame->head_bytes + frame->body_bytes;
}

static size_t sim_rx(struct link *base, struct rx_frame *out, size_t n, uint64_t now_ns)
{
	struct sim_link *link = (struct sim_link *)base;
	size_t got = 0;

	base->rx_calls++;
	sim_net_advance(link->net, now_ns);
	while (got < n && link->inbox && link->lent_n < SIM_LENT_MAX) {
		struct sim_frame *frame = link->inbox;
		struct sim_path *path = sim_path_find(link, frame->to_port, frame->from, frame->from_port);
		link->inbox = (struct sim_frame *)frame->item.next;
		link->inbox_n--;
		if (!path && frame->to_port) { /* for a path that is closed, or from a stranger to it */
			sim_frame_free(link->net, frame);
			base->rx_dropped++;
			continue;
		}
		if (frame->pieces)
			frame = join(link->net, frame);
		if (frame)
			lend(link, frame, path, &out[got++]);
		else
			base->rx_dropped++;
	}
	return got;
}

static void sim_rx_free(struct link *base, struct rx_frame *frames, size_t n)
{
	struct sim_link *link = (struct sim_link *)base;

	for (size_t i = 0; i < n; i++)
		sim_frame_free(link->net, frames[i].lent);
	link->lent_n -= (uint32_t)n;
}

static int sim_from(struct link *base, const struct rx_frame *rx, struct link_addr *out)
{
	const struct sim_frame *frame = rx->lent;

	(void)base;
	if (!frame)
		return -TERN_ENOENT;
	addr_put(frame->from, frame->from_port, out);
	return 0;
}

static void sim_wait(struct link *base, bool armed, struct link_wait *out)
{
	struct sim_link *link = (struct sim_link *)base;

	(void)armed; /* no descriptor could fire under a virtual clock */
	bool has = link->inbox || link->told.at != link->told.end || link->exposed.at != link->exposed.end;
	*out = (struct link_wait){.fd = -1, .deadline_ns = has ? link->net->now_ns : sim_net_next_ns(link->net)};
}

const struct link_ops link_sim_ops = {
	.name = "sim",
	.open = sim_open,
	.close = sim_close,
	.path_open = sim_path_open,
	.path_close = sim_path_close,
	.path_reset = sim_path_reset,
	.tx = sim_tx,
	.reap = sim_reap,
	.rx = sim_rx,
	.rx_free = sim_rx_free,
	.from = sim_from,
	.mem_map = sim_mem_map,
	.mem_unmap = sim_mem_unmap,
	.expose = sim_expose,
	.hide = sim_hide,
	.exposed = sim_exposed,
	.done = sim_done,
	.wait = sim_wait,
};
