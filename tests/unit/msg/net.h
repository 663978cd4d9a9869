/* A few nodes that send each other messages over channels that lose, repeat and reorder, without flow, peer or loop: what msg is tested
 * with. Everything comes from one random state, so a seed is a run. Included by one test program each. */
#ifndef TESTS_MSG_NET_H
#define TESTS_MSG_NET_H
#include <string.h>
#include "msg/msg.h"
#include "msg/state.h"
#include "unit.h"

enum { NET_NODES_MAX = 3, NET_PACKETS = 512, NET_ITEMS = 24, NET_FRAME_MAX = 9216 };

struct net_packet {
	int from, to;
	bool used, bulk, delivered, settled; /* settled: reported to its sender */
	unsigned copies;                     /* deliveries still to come */
	struct flow_item item[NET_ITEMS];
	size_t items;
	struct msg_arrival a;
	size_t bytes;
	uint8_t data[NET_FRAME_MAX];
};

struct net_node {
	struct msg *m;
	void *memory, *unmatched;
	struct msg_ep *ep;
	struct msg_pair *pair[NET_NODES_MAX];
	struct mem_table exports;
	uint64_t copied;
};

struct net {
	uint64_t rng;
	int nodes;
	unsigned loss_percent, repeat_percent, sealed_percent;
	uint32_t frame_bytes;
	struct net_node node[NET_NODES_MAX];
	struct net_packet packet[NET_PACKETS];
	void (*take)(void); /* takes what has ended, as a loop does each step; may be NULL */
	uint64_t sent, lost, refused, proto_errors;
};

static inline uint64_t net_random(struct net *n)
{
	uint64_t z = n->rng += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static inline uint64_t net_below(struct net *n, uint64_t limit)
{
	return net_random(n) % limit;
}

static inline bool net_chance(struct net *n, unsigned percent)
{
	return net_below(n, 100) < percent;
}

static inline void net_open(struct net *n, int nodes, const struct msg_config *config)
{
	n->nodes = nodes;
	for (int i = 0; i < nodes; i++) {
		struct net_node *o = &n->node[i];
		struct msg_config c = *config;
		c.exports = &o->exports;
		memset(&o->exports, 0, sizeof(o->exports));
		o->memory = aligned_alloc(64, (msg_bytes(&c) + 63) & ~(size_t)63);
		memset(o->memory, 0, msg_bytes(&c));
		o->unmatched = malloc(c.unmatched_bytes);
		CU_ASSERT_EQUAL_FATAL(msg_init(&o->m, &c, o->memory, o->unmatched), 0);
		CU_ASSERT_EQUAL_FATAL(msg_ep_open(o->m, &o->ep), 0);
		for (int k = 0; k < nodes; k++)
			if (k != i)
				CU_ASSERT_EQUAL_FATAL(msg_pair_open(o->m, o->ep, (uint64_t)k + 1, &o->pair[k]), 0);
	}
}

static inline void net_up(struct net *n, int a, int b)
{
	struct msg_limits la, lb;
	msg_pair_grant(n->node[a].m, n->node[a].pair[b], &la);
	msg_pair_grant(n->node[b].m, n->node[b].pair[a], &lb);
	msg_pair_up(n->node[a].pair[b], &lb);
	msg_pair_up(n->node[b].pair[a], &la);
}

static inline void net_up_all(struct net *n)
{
	for (int a = 0; a < n->nodes; a++)
		for (int b = a + 1; b < n->nodes; b++)
			net_up(n, a, b);
}

static inline void net_close(struct net *n)
{
	for (int i = 0; i < n->nodes; i++) {
		free(n->node[i].memory);
		free(n->node[i].unmatched);
	}
}

static inline struct net_packet *net_free_packet(struct net *n)
{
	for (int i = 0; i < NET_PACKETS; i++)
		if (!n->packet[i].used)
			return &n->packet[i];
	return NULL;
}

static inline void net_launch(struct net *n, struct net_packet *p, int from, int to)
{
	p->used = true;
	p->delivered = p->settled = false;
	p->from = from;
	p->to = to;
	p->copies = net_chance(n, n->loss_percent) ? 0 : net_chance(n, n->repeat_percent) ? 2 : 1;
	n->sent++;
	n->lost += !p->copies;
}

/* One frame of records or one run of up to three frames. @return false: nothing to send, or no room for it */
static inline bool net_send(struct net *n, int from, int to, unsigned mask)
{
	struct msg_pair *pair = n->node[from].pair[to];
	unsigned want = msg_tx_want(pair) & mask;
	struct net_packet *p = net_free_packet(n);
	if (!want || !p)
		return false;
	if (want & MSG_WANT_RECORDS) {
		p->bulk = false;
		p->items = 1 + net_below(n, NET_ITEMS);
		p->bytes = msg_tx_records(pair, p->data, n->frame_bytes, p->item, &p->items, &n->node[from].copied);
		CU_ASSERT_EQUAL(p->bytes == 0, p->items == 0);
		if (p->bytes) {
			net_launch(n, p, from, to);
			return true;
		}
	}
	struct msg_run run;
	uint32_t frames = 1 + (uint32_t)net_below(n, 3);
	if (!(want & ~MSG_WANT_RECORDS) || !msg_tx_run(pair, want & ~MSG_WANT_RECORDS, n->frame_bytes * frames, &run))
		return false;
	for (uint32_t at = 0; at < run.bytes; at += n->frame_bytes) {
		struct flow_item item = run.item;
		uint32_t part = run.bytes - at < n->frame_bytes ? run.bytes - at : n->frame_bytes;
		item.offset += at;
		item.bytes = part;
		p = net_free_packet(n);
		if (!p) {
			item.bytes = run.bytes - at;
			msg_lost(n->node[from].m, &item);
			break;
		}
		p->bulk = true;
		p->items = 1;
		p->item[0] = item;
		p->a = (struct msg_arrival){.seq = run.seq, .offset = run.offset + at, .bytes = part};
		p->bytes = part;
		layout_copy_out(&run.op->layout, run.offset + at, p->data, part, &n->node[from].copied);
		net_launch(n, p, from, to);
	}
	return true;
}

static inline int net_take_records(struct net *n, struct net_packet *p)
{
	int refused = 0;
	for (size_t at = 0; at < p->bytes;) {
		struct wire_record r;
		long used = wire_record_decode(p->data + at, p->bytes - at, &r);
		CU_ASSERT_FATAL(used > 0);
		int err = msg_rx_record(n->node[p->to].pair[p->from], &r, 0);
		if (err == -TERN_EAGAIN)
			refused = err;
		else if (err)
			return err;
		at += (size_t)used;
	}
	return refused;
}

static inline int net_take_run(struct net *n, struct net_packet *p)
{
	struct msg_pair *pair = n->node[p->to].pair[p->from];
	struct msg_place place;
	p->a.sealed = net_chance(n, n->sealed_percent);
	int err = msg_rx_where(pair, &p->a, &place);
	if (err)
		return err;
	if (place.flags & MSG_PLACE_BOUNCE) {
		place.bounce = p->data;
	} else if (!(place.flags & MSG_PLACE_DROP)) {
		struct frame_seg from = {.addr = p->data, .bytes = (uint32_t)p->bytes};
		uint64_t n_placed = 0;
		CU_ASSERT_EQUAL(copy_segs(place.seg, place.segs, &from, 1, &n_placed), p->bytes);
	}
	return msg_rx_commit(pair, &place, &n->node[p->to].copied);
}

static inline void net_deliver(struct net *n, struct net_packet *p)
{
	int err = p->bulk ? net_take_run(n, p) : net_take_records(n, p);
	p->copies--;
	if (!err)
		p->delivered = true;
	n->refused += err == -TERN_EAGAIN;
	n->proto_errors += err && err != -TERN_EAGAIN;
}

/* The flow's report. Some that arrived are said to be lost: so are losses that were spurious. */
static inline void net_report(struct net *n, struct net_packet *p)
{
	bool acked = p->delivered && !net_chance(n, n->loss_percent / 4);
	for (size_t i = 0; i < p->items; i++)
		(acked ? msg_acked : msg_lost)(n->node[p->from].m, &p->item[i]);
	p->settled = true;
}

/* Something happens to a random packet. */
static inline void net_stir(struct net *n)
{
	struct net_packet *p = &n->packet[net_below(n, NET_PACKETS)];
	for (int i = 0; i < NET_PACKETS && !p->used; i++)
		p = p == &n->packet[NET_PACKETS - 1] ? n->packet : p + 1;
	if (!p->used)
		return;
	if (p->copies && (p->settled || p->copies > 1 || !p->delivered || net_chance(n, 50)))
		net_deliver(n, p);
	else if (!p->settled)
		net_report(n, p);
	if (p->settled && !p->copies)
		p->used = false;
}

static inline bool net_quiet(const struct net *n)
{
	for (int i = 0; i < NET_PACKETS; i++)
		if (n->packet[i].used)
			return false;
	return true;
}

/* Lets everything run until nothing is under way. @return false: it does not come to rest */
static inline bool net_run(struct net *n, unsigned steps)
{
	while (steps--) {
		bool sent = false;
		for (int a = 0; a < n->nodes; a++)
			for (int b = 0; b < n->nodes; b++)
				if (a != b)
					sent |= (net_chance(n, 50) && net_send(n, a, b, MSG_WANT_SMALL | MSG_WANT_BULK)) || net_send(n, a, b, ~0u);
		if (!sent && net_quiet(n))
			return true;
		for (int i = 0; i < 8; i++)
			net_stir(n);
		if (n->take)
			n->take();
	}
	return false;
}

/* The byte at `at` of message `uid`. */
static inline uint8_t net_byte(uint64_t uid, uint64_t at)
{
	uint64_t x = (uid + 1) * 0x9e3779b97f4a7c15u + (at / 8) * 0xff51afd7ed558ccdu;
	x ^= x >> 29;
	return (uint8_t)(x >> at % 8 * 8);
}

static inline void net_fill(uint8_t *out, uint64_t uid, uint64_t bytes)
{
	for (uint64_t i = 0; i < bytes; i++)
		out[i] = net_byte(uid, i);
}

static inline bool net_same(const uint8_t *in, uint64_t uid, uint64_t bytes)
{
	for (uint64_t i = 0; i < bytes; i++)
		if (in[i] != net_byte(uid, i))
			return false;
	return true;
}

static inline void net_op(struct msg_op *op, struct net *n, int node, int peer, uint8_t type)
{
	memset(op, 0, sizeof(*op));
	op->type = type;
	op->ep = n->node[node].ep;
	op->pair = peer < 0 ? NULL : n->node[node].pair[peer];
	op->peer = peer < 0 ? 0 : (uint64_t)peer + 1;
}

/* Nothing is left in any pool. */
static inline void net_check_empty(struct net *n)
{
	for (int i = 0; i < n->nodes; i++) {
		struct msg *m = n->node[i].m;
		CU_ASSERT_EQUAL(pool_used(&m->ins), 0);
		CU_ASSERT_EQUAL(pool_used(&m->replies), 0);
		CU_ASSERT_EQUAL(m->tx_ranges.used, 0);
		CU_ASSERT_EQUAL(m->rx_ranges.used, 0);
		CU_ASSERT_EQUAL(m->chunks_used, 0);
		CU_ASSERT_EQUAL(m->ins_credited, 0);
		for (uint32_t k = 0; k < m->slots; k++)
			CU_ASSERT_PTR_NULL(m->slot[k].op);
		for (int k = 0; k < n->nodes; k++)
			if (k != i)
				CU_ASSERT(msg_pair_idle(n->node[i].pair[k]));
	}
}
#endif
