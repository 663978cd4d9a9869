/* The loop against rubbish: two real loops joined by a link of this file, which hands every datagram over, loses some, and slips in others: random
 * bytes, real frames with bits changed, cut, extended, repeated, sent back to their sender. Virtual time; messages must arrive intact, each operation
 * end once, and the counters must tell. */
#include <stdlib.h>
#include <string.h>
#include "cc/cc.h"
#include "loop/loop.h"
#include "tern/error.h"
#include "tern/tern.h"
#include "rand.h"
#include "unit.h"

enum { INBOX = 4096, FRAME_MAX_BYTES = 1472, TAKEN = 1024, CAUGHT = 256 };
#define SECOND 1000000000ull

struct datagram {
	uint8_t data[FRAME_MAX_BYTES + 64];
	uint32_t bytes;
	uint8_t from; /* node; 9: a stranger */
};

struct fake {
	struct link link; /* first */
	int node;
	struct datagram *inbox;
	size_t first, count, lent;
	struct frame *taken[TAKEN];
	size_t taken_n;
	struct link_path *paths;
};

static struct fake *fake[2];
static struct datagram caught[CAUGHT];
static size_t catches;
static unsigned loss_percent;

static void arrive(int node, const void *data, uint32_t bytes, uint8_t from)
{
	struct fake *f = fake[node];
	if (f->count == INBOX)
		return; /* as a socket's buffer does */
	struct datagram *d = &f->inbox[(f->first + f->count++) % INBOX];
	memcpy(d->data, data, bytes);
	d->bytes = bytes;
	d->from = from;
}

static struct link_addr address(uint8_t node)
{
	struct link_addr a = {.bytes = 1};
	a.data[0] = node;
	return a;
}

static void fake_close(struct link **link)
{
	struct fake *f = (struct fake *)*link;
	free(f->inbox);
	free(f);
	*link = NULL;
}

static int fake_path_open(struct link *link, const struct link_path_config *config, struct link_path **out)
{
	*out = calloc(1, sizeof(**out));
	**out = (struct link_path){.link = link, .max_frame_bytes = FRAME_MAX_BYTES, .overhead_bytes = 28, .remote = config->remote};
	((struct fake *)link)->paths = *out; /* the connected socket */
	return 0;
}

static void fake_path_close(struct link *link, struct link_path **path)
{
	if (((struct fake *)link)->paths == *path)
		((struct fake *)link)->paths = NULL;
	free(*path);
	*path = NULL;
}

static size_t fake_tx(struct link *link, struct frame *const *frames, size_t n, uint64_t now_ns)
{
	struct fake *f = (struct fake *)link;
	(void)now_ns;
	size_t k = 0;
	for (; k < n && f->taken_n < TAKEN; k++) {
		struct frame *fr = frames[k];
		struct datagram d = {.from = (uint8_t)f->node};
		for (unsigned s = 0; s < fr->segs; s++) {
			CU_ASSERT_FATAL(d.bytes + fr->seg[s].bytes <= FRAME_MAX_BYTES);
			memcpy(d.data + d.bytes, fr->seg[s].addr, fr->seg[s].bytes);
			d.bytes += fr->seg[s].bytes;
		}
		CU_ASSERT_EQUAL(d.bytes, fr->wire_bytes);
		caught[catches++ % CAUGHT] = d;
		if (rand_below(100) >= loss_percent && fr->path->remote.data[0] == !f->node)
			arrive(!f->node, d.data, d.bytes, d.from);
		f->taken[f->taken_n++] = fr;
	}
	return k;
}

static size_t fake_reap(struct link *link, struct frame **out, size_t n, uint64_t now_ns)
{
	struct fake *f = (struct fake *)link;
	(void)now_ns;
	size_t k = 0;
	while (k < n && f->taken_n)
		out[k++] = f->taken[--f->taken_n];
	return k;
}

static size_t fake_rx(struct link *link, struct rx_frame *out, size_t n, uint64_t now_ns)
{
	struct fake *f = (struct fake *)link;
	(void)now_ns;
	size_t k = 0;
	while (k < n && f->lent < f->count) {
		struct datagram *d = &f->inbox[(f->first + f->lent++) % INBOX];
		bool known = f->paths && f->paths->remote.data[0] == d->from;
		out[k++] = (struct rx_frame){.head = d->data, .head_bytes = d->bytes, .from = d->from, .path = known ? f->paths : NULL};
	}
	return k;
}

static void fake_rx_free(struct link *link, struct rx_frame *frames, size_t n)
{
	struct fake *f = (struct fake *)link;
	(void)frames;
	f->first = (f->first + n) % INBOX;
	f->count -= n;
	f->lent -= n;
}

static int fake_from(struct link *link, const struct rx_frame *frame, struct link_addr *out)
{
	(void)link;
	*out = address((uint8_t)frame->from);
	return 0;
}

static struct link_ops ops;
static const struct link_ops some_ops = {.name = "fake",
        .close = fake_close,
        .path_open = fake_path_open,
        .path_close = fake_path_close,
        .tx = fake_tx,
        .reap = fake_reap,
        .rx = fake_rx,
        .rx_free = fake_rx_free,
        .from = fake_from};

/* ---- two loops ----------------------------------------------------------------------------------------------------------------------- */

static struct node {
	struct loop *loop;
	struct msg_ep *ep;
	struct loop_peer *peer;
	unsigned ended;
	int gone;
	bool up;
} node[2];
static uint64_t now_ns;

static void node_open(int i)
{
	struct loop_config lc = {.max_peers = 4,
	        .max_paths = 4,
	        .max_inbound = 256,
	        .unmatched_bytes = 1 << 20,
	        .extents = 8192,
	        .ranges = 8192,
	        .peer_timeout_ns = 10 * SECOND,
	        .seed = 5 + (uint64_t)i,
	        .now_ns = now_ns};
	fake[i] = calloc(1, sizeof(*fake[i]));
	fake[i]->inbox = calloc(INBOX, sizeof(struct datagram));
	fake[i]->node = i;
	fake[i]->link = (struct link){.ops = &ops, .caps = LINK_BYTES, .max_segments = FRAME_SEGS_MAX, .local = address((uint8_t)i)};
	memset(&node[i], 0, sizeof(node[i]));
	CU_ASSERT_EQUAL_FATAL(loop_open(&lc, &node[i].loop), 0);
	CU_ASSERT_EQUAL_FATAL(loop_link_add(node[i].loop, &fake[i]->link, fake[i]->link.trouble, sizeof(fake[i]->link.trouble)), 0);
	CU_ASSERT_EQUAL_FATAL(msg_ep_open(node[i].loop->msg, &node[i].ep), 0);
	CU_ASSERT_EQUAL_FATAL(loop_peer_open(node[i].loop, node[i].ep, 100 + (uint64_t)i, &node[i], &node[i].peer), 0);
}

static void step(int i)
{
	struct loop_peer *peer;
	struct msg_op *op;
	struct msg_notice n;
	loop_step(node[i].loop, now_ns);
	while ((op = msg_done(node[i].loop->msg)))
		node[i].ended++;
	while (msg_notice_pop(node[i].loop->msg, &n))
		;
	while ((peer = loop_event(node[i].loop))) {
		node[i].up = peer->peer.state == PEER_UP;
		node[i].gone = peer->peer.status;
	}
}

static void nodes_open(bool sealed)
{
	struct session s[2];
	uint32_t flow[2];
	struct loop_path_params params = {.cc = cc_find("fixed"),
	        .cc_init = {.contract_bytes_per_s = 100000000, .contract_rtt_ns = 1000000, .buffer_bytes = TERN_CC_NONE, .frame_bytes = 1500}};
	link_fill(&some_ops, &ops);
	now_ns = SECOND;
	catches = 0;
	memset(s, 0, sizeof(s));
	for (int i = 0; i < 2; i++) {
		node_open(i);
		flow[i] = loop_peer_flow_id(node[i].peer, 0);
		CU_ASSERT_NOT_EQUAL_FATAL(flow[i], 0);
		CU_ASSERT_EQUAL(loop_peer_flow_id(node[i].peer, 0), flow[i]);
	}
	for (int i = 0; i < 2; i++) {
		struct msg_limits grant;
		msg_pair_grant(node[!i].loop->msg, node[!i].peer->peer.pair, &grant);
		s[i] = (struct session){.is_initiator = !i,
		        .is_private = !sealed,
		        .version = WIRE_VERSION,
		        .paths = 1,
		        .credit_bytes = grant.credit_bytes,
		        .credit_heads = grant.credit_heads};
		s[i].path[0].local_flow_id = flow[i];
		s[i].path[0].remote_flow_id = flow[!i];
		s[i].path[0].remote = address((uint8_t)!i);
		memset(s[i].path[0].tx_secret, i ? 0xa5 : 0x5a, SESSION_SECRET_BYTES);
		memset(s[i].path[0].rx_secret, i ? 0x5a : 0xa5, SESSION_SECRET_BYTES);
		CU_ASSERT_EQUAL_FATAL(loop_peer_up(node[i].peer, &s[i], &fake[i]->link, &params), 0);
	}
}

static void nodes_close(void)
{
	for (int i = 0; i < 2; i++) {
		loop_peer_free(&node[i].peer);
		loop_step(node[i].loop, now_ns);
		CU_ASSERT_EQUAL(node[i].loop->free_frames, LOOP_FRAMES); /* none leaked */
		loop_close(&node[i].loop);
	}
}

/* ---- harm ---------------------------------------------------------------------------------------------------------------------------- */

static void harm_random(void)
{
	uint8_t junk[FRAME_MAX_BYTES];
	uint32_t n = (uint32_t)rand_below(rand_below(3) ? 100 : sizeof(junk));
	for (uint32_t i = 0; i < n; i++)
		junk[i] = (uint8_t)rand_next();
	if (n > 8 && rand_below(2)) { /* a good beginning, sometimes with the right flow */
		junk[0] = WIRE_VERSION;
		junk[1] = (uint8_t)(1 + rand_below(2));
		junk[2] = (uint8_t)rand_below(8);
		junk[3] = 0;
		uint32_t flow = node[rand_below(2)].peer->path[0]->flow_id;
		memcpy(junk + 4, &flow, sizeof(flow));
	}
	arrive((int)rand_below(2), junk, n, rand_below(2) ? 9 : (uint8_t)rand_below(2));
}

static void harm_changed(void)
{
	if (!catches)
		return;
	struct datagram d = caught[rand_below(catches < CAUGHT ? catches : CAUGHT)];
	int to = rand_below(8) ? !d.from : d.from;
	switch (rand_below(5)) {
	case 0: /* cut */
		d.bytes = (uint32_t)rand_below(d.bytes + 1);
		break;
	case 1: /* extended */
		for (uint64_t n = 1 + rand_below(60); n; n--)
			d.data[d.bytes++] = (uint8_t)rand_next();
		break;
	case 2: /* the header: number, type, flags, flow, sequence, offset */
		d.data[rand_below(d.bytes < 32 ? d.bytes : 32)] ^= (uint8_t)(1 << rand_below(8));
		break;
	case 3: /* a high number: a window or a replay set must not follow it */
		d.data[8 + rand_below(8)] = (uint8_t)rand_next();
		break;
	default:
		d.data[rand_below(d.bytes)] ^= (uint8_t)(1 + rand_below(255));
	}
	arrive(to, d.data, d.bytes, rand_below(2) ? 9 : d.from);
}

static void harm_repeated(void)
{
	if (!catches)
		return;
	const struct datagram *d = &caught[rand_below(catches < CAUGHT ? catches : CAUGHT)];
	arrive(rand_below(8) ? !d->from : d->from, d->data, d->bytes, rand_below(4) ? d->from : 9);
}

/* ---- transfers ----------------------------------------------------------------------------------------------------------------------- */

enum { MESSAGES = 12, MESSAGE = 200000 };
static uint8_t *memory[4][MESSAGES];
static struct msg_op op[4][MESSAGES];

static void post(int i, int row, int k, uint8_t type)
{
	struct msg_op *o = &op[row][k];
	memset(o, 0, sizeof(*o));
	o->type = type;
	o->id = (uint64_t)row << 32 | (uint64_t)k;
	o->peer = 100 + (uint64_t)i;
	o->ep = node[i].ep;
	o->pair = node[i].peer->peer.pair;
	o->tag = (uint64_t)k;
	layout_flat(&o->layout, memory[row][k], k % 3 ? MESSAGE : 50);
	loop_post(node[i].loop, o);
}

/* Both directions at once: rows 0 and 1 are sent and received by node 0, rows 2 and 3 by node 1. */
static void transfers(bool sealed, void (*harm)(void), unsigned loss)
{
	uint64_t steps = 0;
	loss_percent = 0;
	nodes_open(sealed);
	while (!(node[0].up && node[1].up)) {
		CU_ASSERT_FATAL(steps++ < 10000);
		step(0);
		step(1);
		now_ns += 20000;
	}
	loss_percent = loss;
	for (int row = 0; row < 4; row++)
		for (int k = 0; k < MESSAGES; k++) {
			memory[row][k] = malloc(MESSAGE);
			for (size_t b = 0; b < MESSAGE; b++)
				memory[row][k][b] = row % 2 ? 0 : (uint8_t)rand_next();
		}
	for (int k = 0; k < MESSAGES; k++) {
		post(0, 0, k, MSG_OP_SEND);
		post(1, 2, k, MSG_OP_SEND);
		if (k % 2) {
			post(0, 1, k, MSG_OP_RECV);
			post(1, 3, k, MSG_OP_RECV);
		}
	}
	bool late = false;
	while (node[0].ended < 2 * MESSAGES || node[1].ended < 2 * MESSAGES) {
		CU_ASSERT_FATAL(steps++ < 2000000);
		CU_ASSERT_EQUAL_FATAL(node[0].gone | node[1].gone, 0);
		for (uint64_t n = rand_below(6); n && harm; n--)
			harm();
		step(0);
		step(1);
		now_ns += 10000 + rand_below(20000);
		if (steps > 300 && !late) {
			late = true;
			for (int k = 0; k < MESSAGES; k += 2) {
				post(0, 1, k, MSG_OP_RECV);
				post(1, 3, k, MSG_OP_RECV);
			}
		}
	}
	for (int k = 0; k < MESSAGES; k++) {
		for (int row = 0; row < 4; row++)
			CU_ASSERT_EQUAL(op[row][k].status, 0);
		CU_ASSERT_EQUAL(memcmp(memory[0][k], memory[3][k], k % 3 ? MESSAGE : 50), 0);
		CU_ASSERT_EQUAL(memcmp(memory[2][k], memory[1][k], k % 3 ? MESSAGE : 50), 0);
	}
	for (int row = 0; row < 4; row++)
		for (int k = 0; k < MESSAGES; k++)
			free(memory[row][k]);
}

static uint64_t sum(size_t offset)
{
	uint64_t n = 0;
	for (int i = 0; i < 2; i++)
		n += *(const uint64_t *)((const uint8_t *)&node[i].loop->count + offset);
	return n;
}
#define SUM(field) sum(offsetof(struct loop_counters, field))

static void nothing_wrong(void)
{
	rand_start(unit_seed());
	transfers(true, NULL, 0);
	CU_ASSERT_EQUAL(SUM(rx_malformed) + SUM(rx_strangers) + SUM(rx_forged), 0);
	nodes_close();
	transfers(false, NULL, 2);
	CU_ASSERT_EQUAL(SUM(rx_malformed) + SUM(rx_strangers) + SUM(rx_forged), 0);
	nodes_close();
}

static void random_bytes(void)
{
	rand_start(unit_seed());
	transfers(true, harm_random, 1);
	CU_ASSERT_TRUE(SUM(rx_malformed) > 0);
	CU_ASSERT_TRUE(SUM(rx_strangers) > 0);
	CU_ASSERT_TRUE(SUM(rx_forged) > 0);
	nodes_close();
}

static void changed_frames(void)
{
	rand_start(unit_seed());
	for (int round = 0; round < 20; round++) {
		transfers(true, harm_changed, round % 4);
		CU_ASSERT_TRUE(SUM(rx_forged) > 0);
		/* nobody led the path elsewhere */
		for (int i = 0; i < 2; i++)
			CU_ASSERT_EQUAL(node[i].peer->path[0]->via->remote.data[0], !i);
		nodes_close();
	}
}

static void repeated_frames(void)
{
	rand_start(unit_seed());
	for (int round = 0; round < 10; round++) {
		bool sealed = round % 2;
		transfers(sealed, harm_repeated, round % 4);
		CU_ASSERT_TRUE(flow_count(&node[1].peer->path[0]->pp.flow)->rx_duplicates > 0);
		nodes_close();
	}
}

/* A frame that says it is plain on a sealed path is forged, and one that says sealed on a plain one. */
static void other_protection(void)
{
	rand_start(unit_seed());
	for (int sealed = 0; sealed < 2; sealed++) {
		transfers(sealed, NULL, 0);
		struct datagram d = caught[0];
		uint64_t before = SUM(rx_forged);
		d.data[2] ^= WIRE_SEALED;
		d.data[8] ^= 0x55; /* a number not seen */
		d.data[13] = 1;
		arrive(!d.from, d.data, d.bytes, d.from);
		step(!d.from);
		CU_ASSERT_EQUAL(SUM(rx_forged), before + 1);
		CU_ASSERT_EQUAL(node[!d.from].gone, 0);
		nodes_close();
	}
}

static const struct unit_case cases[] = {
        {"nothing_wrong", nothing_wrong},
        {"random_bytes", random_bytes},
        {"changed_frames", changed_frames},
        {"repeated_frames", repeated_frames},
        {"other_protection", other_protection},
};
UNIT_MAIN("loop_rx", cases)
