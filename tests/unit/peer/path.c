/* A path's pings under a fake clock: the size search against networks of every MTU, black holes, liveness. Two ends of the real peer, flow and msg,
 * joined by a wire of this file that delays, and drops what is too long. */
#include <stdlib.h>
#include <string.h>
#include "cc/cc.h"
#include "flow/shared.h"
#include "peer/peer.h"
#include "tern/error.h"
#include "rand.h"
#include "unit.h"

enum { FRAMES = 64, BUF = 160 << 10, WIRE_MAX = 4096, MS = 1000000 };
#define SECOND 1000000000ull

struct end {
	struct msg *msg;
	struct msg_ep *ep;
	struct peer peer;
	struct peer_path path;
	struct flow_shared *flows;
	void *memory[3];
	struct frame frame[FRAMES];
	uint8_t buf[BUF];
	uint64_t sent_datagrams, sent_bytes, largest;
};

struct datagram {
	uint64_t at_ns, number;
	uint8_t to;
	uint32_t bytes;
	uint8_t *payload;
	uint32_t payload_bytes;
};

static struct world {
	struct end end[2];
	struct datagram wire[WIRE_MAX];
	size_t on_wire;
	uint64_t now_ns, delay_ns;
	uint32_t mtu_bytes; /* largest datagram that passes */
	bool cut[2];        /* nothing arrives at this end */
	int gone[2];        /* what peer_timers said */
} * w;

static void end_open(int who, uint32_t limit, uint64_t timeout_ns)
{
	struct end *e = &w->end[who];
	struct msg_config mc = {.max_pairs = 1, .max_replies = 1, .max_ops = 16, .max_inbound = 16, .unmatched_bytes = 1 << 20, .ranges = 64};
	struct msg_pair *pair;
	e->memory[0] = aligned_alloc(64, (msg_bytes(&mc) + 63) & ~63ul);
	memset(e->memory[0], 0, msg_bytes(&mc));
	e->memory[1] = aligned_alloc(64, 1 << 20);
	e->memory[2] = aligned_alloc(64, (flow_shared_bytes(4096, 4096) + 63) & ~63ul);
	CU_ASSERT_EQUAL_FATAL(msg_init(&e->msg, &mc, e->memory[0], e->memory[1]), 0);
	CU_ASSERT_EQUAL_FATAL(msg_ep_open(e->msg, &e->ep), 0);
	CU_ASSERT_EQUAL_FATAL(msg_pair_open(e->msg, e->ep, 7, &pair), 0);
	e->flows = flow_shared_init(e->memory[2], 4096, 4096);
	peer_init(&e->peer, 7, e->msg, pair, timeout_ns);
	struct peer_path_config pc = {
	        .path_id = 3,
	        .initiator = true,
	        .remote_flow_id = 1,
	        .frame_limit = limit,
	        .overhead_bytes = 28,
	        .flow = {.path_id = 3,
	                .cc = cc_find("fixed"),
	                .peer_ack_delay_ns = 500000,
	                .shared = e->flows,
	                .now_ns = w->now_ns,
	                .cc_init = {.contract_bytes_per_s = TERN_CC_NONE,
	                        .contract_rtt_ns = TERN_CC_NONE,
	                        .buffer_bytes = TERN_CC_NONE,
	                        .frame_bytes = 1500,
	                        .now_ns = w->now_ns}},
	};
	CU_ASSERT_EQUAL_FATAL(peer_path_init(&e->path, &e->peer, &pc), 0);
	msg_pair_up(pair, &(struct msg_limits){.credit_bytes = 1 << 16, .credit_heads = 16});
}

static void world_open(uint32_t limit, uint32_t mtu, uint64_t delay_ns, uint64_t timeout_ns)
{
	w = calloc(1, sizeof(*w));
	CU_ASSERT_PTR_NOT_NULL_FATAL(w);
	w->now_ns = SECOND;
	w->mtu_bytes = mtu;
	w->delay_ns = delay_ns;
	end_open(0, limit, timeout_ns);
	end_open(1, limit, timeout_ns);
}

static void world_close(void)
{
	for (size_t i = 0; i < w->on_wire; i++)
		free(w->wire[i].payload);
	for (int i = 0; i < 2; i++) {
		peer_end(&w->end[i].peer, -TERN_ECANCELED);
		for (int k = 0; k < 3; k++)
			free(w->end[i].memory[k]);
	}
	free(w);
}

/* Frames made in a room lie in the buffer one after another, each behind the space for its link's headers, which begins at a cache line. */
static void rooms_apart(const struct peer_tray *t, size_t n)
{
	const uint8_t *free_at = t->buf;
	for (size_t i = 0; i < n; i++) {
		const struct frame *f = t->frame[i];
		CU_ASSERT_EQUAL(f->front_bytes, t->front_bytes);
		CU_ASSERT(f->room - f->front_bytes >= free_at);
		CU_ASSERT(!t->front_bytes || (f->room - f->front_bytes - t->buf) % FRAME_LINE_BYTES == 0);
		free_at = f->room + WIRE_HEADER_BYTES + f->payload_bytes;
	}
	CU_ASSERT(free_at <= t->buf + t->buf_bytes);
}

static void send_all(int who)
{
	struct end *e = &w->end[who];
	struct frame *tray[FRAMES];
	for (int i = 0; i < FRAMES; i++)
		tray[i] = &e->frame[i];
	struct peer_tray t = {.frame = tray, .room = FRAMES, .buf = e->buf, .buf_bytes = BUF, .front_bytes = who ? 0 : 42};
	size_t n = peer_tx(&e->path, &t, w->now_ns);
	rooms_apart(&t, n);
	for (size_t i = 0; i < n; i++) {
		struct frame *f = tray[i];
		uint32_t bytes = WIRE_HEADER_BYTES + f->payload_bytes;
		CU_ASSERT_EQUAL_FATAL(f->type, WIRE_MIX);
		CU_ASSERT_FATAL(bytes <= e->path.frame_limit);
		e->sent_datagrams++;
		e->sent_bytes += bytes;
		e->largest = bytes > e->largest ? bytes : e->largest;
		if (bytes > w->mtu_bytes || w->cut[!who])
			continue;
		CU_ASSERT_FATAL(w->on_wire < WIRE_MAX);
		struct datagram *d = &w->wire[w->on_wire++];
		*d = (struct datagram){.at_ns = w->now_ns + w->delay_ns,
		        .number = f->number,
		        .to = !who,
		        .bytes = bytes,
		        .payload = malloc(f->payload_bytes),
		        .payload_bytes = f->payload_bytes};
		memcpy(d->payload, f->seg[1].addr, f->payload_bytes);
	}
}

static void receive(const struct datagram *d)
{
	struct end *e = &w->end[d->to];
	bool eliciting = true;
	if (e->peer.state == PEER_GONE || flow_rx_check(&e->path.flow, d->number))
		return;
	CU_ASSERT_EQUAL(peer_rx_mix(&e->path, d->payload, d->payload_bytes, w->now_ns, &eliciting), 0);
	peer_heard(&e->path, w->now_ns);
	struct flow_arrival a = {.number = d->number, .wire_bytes = d->bytes + 28, .ack_eliciting = eliciting};
	flow_rx_commit(&e->path.flow, &a, w->now_ns);
}

/* Until `end_ns`, jumping from event to event. */
static void run(uint64_t end_ns)
{
	uint64_t steps = 0;
	while (w->now_ns < end_ns) {
		uint64_t next = end_ns;
		CU_ASSERT_FATAL(steps++ < 2000000); /* it never spins */
		for (size_t i = 0; i < w->on_wire;) {
			struct datagram d = w->wire[i];
			if (d.at_ns > w->now_ns) {
				next = d.at_ns < next ? d.at_ns : next;
				i++;
				continue;
			}
			w->wire[i] = w->wire[--w->on_wire];
			receive(&d);
			free(d.payload);
		}
		for (int i = 0; i < 2; i++) {
			struct end *e = &w->end[i];
			if (e->peer.state == PEER_GONE)
				continue;
			int status = peer_timers(&e->path, w->now_ns);
			if (status) {
				w->gone[i] = status;
				peer_end(&e->peer, status);
				continue;
			}
			send_all(i);
			uint64_t when = peer_when_ns(&e->path, w->now_ns);
			when = when > w->now_ns ? when : w->now_ns + 1000;
			next = when < next ? when : next;
		}
		for (size_t i = 0; i < w->on_wire; i++)
			next = w->wire[i].at_ns < next ? w->wire[i].at_ns : next;
		w->now_ns = next > w->now_ns ? next : w->now_ns + 1;
	}
}

/* ---- the size search ----------------------------------------------------------------------------------------------------------------- */

static const uint32_t ladder[] = {65507, 32768, 8972, 8952, 4068, 1472, 1452, 1372, PEER_FRAME_MIN};

static uint32_t best(uint32_t limit, uint32_t mtu)
{
	if (limit <= mtu)
		return limit;
	for (size_t i = 0; i < sizeof(ladder) / sizeof(ladder[0]); i++)
		if (ladder[i] <= mtu && ladder[i] < limit)
			return ladder[i];
	return PEER_FRAME_MIN;
}

static void found(uint32_t limit, uint32_t mtu, uint64_t delay_ns)
{
	world_open(limit, mtu, delay_ns, 10 * SECOND);
	/* both ends ping at once: both know after one round trip */
	run(SECOND + 2 * delay_ns + 2 * MS);
	for (int i = 0; i < 2; i++) {
		if (w->end[i].path.frame_max != best(limit, mtu))
			printf("\n    limit %u, MTU %u: %u in use, %u pass", limit, mtu, w->end[i].path.frame_max, best(limit, mtu));
		CU_ASSERT_EQUAL(w->end[i].peer.state, PEER_UP);
		CU_ASSERT_EQUAL(w->end[i].path.frame_max, best(limit, mtu));
	}
	world_close();
}

static void every_mtu(void)
{
	rand_start(unit_seed());
	for (size_t i = 0; i < sizeof(ladder) / sizeof(ladder[0]); i++)
		for (int off = -1; off <= 1; off++)
			if (ladder[i] + (uint32_t)off >= PEER_FRAME_MIN)
				found(65507, ladder[i] + (uint32_t)off, MS);
	for (int i = 0; i < 300; i++)
		found(PEER_FRAME_MIN + (uint32_t)rand_below(65507 - PEER_FRAME_MIN),
		        PEER_FRAME_MIN + (uint32_t)rand_below(rand_below(2) ? 9000 : 64000), rand_below(100 * MS));
	found(PEER_FRAME_MIN, 65507, MS);
	found(1472, 1472, 50 * MS);
}

/* The first round is lost: another follows, and is not much later. */
static void first_round_lost(void)
{
	world_open(8972, 8972, 5 * MS, 10 * SECOND);
	w->cut[0] = w->cut[1] = true;
	run(SECOND + 15 * MS);
	w->cut[0] = w->cut[1] = false;
	CU_ASSERT_EQUAL(w->end[0].peer.state, PEER_OPENING);
	run(SECOND + 80 * MS);
	CU_ASSERT_EQUAL(w->end[0].peer.state, PEER_UP);
	CU_ASSERT_EQUAL(w->end[1].peer.state, PEER_UP);
	CU_ASSERT_EQUAL(w->end[0].path.frame_max, 8972);
	world_close();
}

/* The network's MTU falls: sizes that no longer pass are given up, and found again when they do. */
static void black_hole(void)
{
	world_open(8972, 8972, 5 * MS, 30 * SECOND);
	run(2 * SECOND);
	CU_ASSERT_EQUAL(w->end[0].path.frame_max, 8972);
	w->mtu_bytes = 1472;
	/* what is owed and not answered makes probes; here the loop's way of saying so */
	w->end[0].path.ping_unanswered = 3;
	w->end[0].path.ping_when_ns = w->now_ns;
	run(w->now_ns + SECOND);
	CU_ASSERT_EQUAL(w->end[0].path.frame_max, 1472);
	w->mtu_bytes = 8972;
	run(w->now_ns + 70 * SECOND); /* looked for once a minute */
	CU_ASSERT_EQUAL(w->end[0].path.frame_max, 8972);
	/* the link itself says so: at once */
	peer_path_shrunk(&w->end[0].path, 1300, w->now_ns);
	CU_ASSERT_EQUAL(w->end[0].path.frame_max, 1300);
	world_close();
}

/* The link's limit falls below the least size, as when a path's connection is of another kind than expected: before the path is up, and after. */
static void shrinks_below_least(void)
{
	for (int late = 0; late < 2; late++) {
		world_open(8192, late ? 8192 : 1024, 5 * MS, 10 * SECOND);
		run(SECOND + (late ? 100 * MS : 0));
		w->mtu_bytes = 1024;
		for (int i = 0; i < 2; i++)
			peer_path_shrunk(&w->end[i].path, 1024, w->now_ns);
		run(w->now_ns + 200 * MS);
		for (int i = 0; i < 2; i++) {
			CU_ASSERT_EQUAL(w->end[i].peer.state, PEER_UP);
			CU_ASSERT_EQUAL(w->end[i].path.frame_max, 1024);
			CU_ASSERT(w->end[i].path.frame_min <= 1024);
		}
		world_close();
	}
}

/* A PONG for a ping that was never sent, or larger than the link, makes nothing larger. */
static void invented_pongs(void)
{
	uint8_t payload[64];
	bool eliciting;
	world_open(1472, 1472, MS, 10 * SECOND);
	w->cut[0] = true;
	run(SECOND + MS);
	struct wire_record r = {.type = WIRE_PONG, .ping = {.path_id = 3, .token = 1u << 30, .size_bytes = 1472}};
	size_t n = wire_record_encode(&r, payload, sizeof(payload));
	CU_ASSERT_EQUAL(peer_rx_mix(&w->end[0].path, payload, n, w->now_ns, &eliciting), 0);
	CU_ASSERT_EQUAL(w->end[0].peer.state, PEER_OPENING);
	r.ping.token = 0;
	n = wire_record_encode(&r, payload, sizeof(payload));
	CU_ASSERT_EQUAL(peer_rx_mix(&w->end[0].path, payload, n, w->now_ns, &eliciting), 0);
	r.ping = (struct wire_ping){.path_id = 3, .token = 1, .size_bytes = 9000};
	n = wire_record_encode(&r, payload, sizeof(payload));
	CU_ASSERT_EQUAL(peer_rx_mix(&w->end[0].path, payload, n, w->now_ns, &eliciting), 0);
	CU_ASSERT_EQUAL(w->end[0].peer.state, PEER_OPENING);
	CU_ASSERT_EQUAL(w->end[0].path.frame_max, PEER_FRAME_MIN);
	CU_ASSERT_FALSE(eliciting);
	world_close();
}

/* More PINGs than a path remembers: no answer is larger than what asked for it, none is written past its place. */
static void many_pings(void)
{
	uint8_t payload[20 * 30];
	size_t n = 0;
	bool eliciting;
	world_open(1472, 1472, MS, 10 * SECOND);
	run(2 * SECOND);
	for (uint64_t i = 0; i < 30; i++) {
		struct wire_record r = {.type = WIRE_PING, .ping = {.path_id = 3, .token = i + 1}};
		n += wire_record_encode(&r, payload + n, sizeof(payload) - n);
	}
	CU_ASSERT_EQUAL(peer_rx_mix(&w->end[0].path, payload, n, w->now_ns, &eliciting), 0);
	CU_ASSERT_TRUE(w->end[0].path.pongs <= PEER_PONGS_MAX);
	uint64_t before = w->end[0].sent_bytes;
	send_all(0);
	CU_ASSERT_TRUE(w->end[0].sent_bytes - before <= n + WIRE_HEADER_BYTES);
	world_close();
}

/* ---- liveness ------------------------------------------------------------------------------------------------------------------------ */

/* Nobody is there from the start: blocked, after the timeout and not before. */
static void never_heard(void)
{
	world_open(1472, 1472, 5 * MS, 4 * SECOND);
	w->cut[0] = w->cut[1] = true;
	run(SECOND + 4 * SECOND - MS);
	CU_ASSERT_EQUAL(w->gone[0], 0);
	run(SECOND + 4 * SECOND + MS);
	CU_ASSERT_EQUAL(w->gone[0], -TERN_EBLOCKED);
	CU_ASSERT_EQUAL(w->gone[1], -TERN_EBLOCKED);
	/* it asked several times, ever more rarely, and not by the thousand */
	CU_ASSERT_TRUE(w->end[0].sent_datagrams > 10);
	CU_ASSERT_TRUE(w->end[0].sent_datagrams < 200);
	world_close();
}

/* Idle for hours: nobody dies, and it costs a frame each way a quarter of a minute. */
static void idle(void)
{
	world_open(1472, 1472, 40 * MS, 4 * SECOND);
	run(2 * SECOND);
	uint64_t before = w->end[0].sent_datagrams + w->end[1].sent_datagrams;
	run(3602 * SECOND);
	uint64_t sent = w->end[0].sent_datagrams + w->end[1].sent_datagrams - before;
	CU_ASSERT_EQUAL(w->end[0].peer.state, PEER_UP);
	CU_ASSERT_EQUAL(w->end[1].peer.state, PEER_UP);
	CU_ASSERT_TRUE(sent >= 3600 / 15);
	/* both ends ask and both answer; once a minute the size search asks for more */
	CU_ASSERT_TRUE(sent <= 5 * 3600 / 15);
	world_close();
}

/* An idle peer goes away without a word: the next keepalive finds it out. */
static void gone_while_idle(void)
{
	world_open(1472, 1472, 5 * MS, 4 * SECOND);
	run(2 * SECOND);
	w->cut[0] = w->cut[1] = true;
	run(2 * SECOND + (PEER_KEEPALIVE_S + 5) * SECOND);
	CU_ASSERT_EQUAL(w->gone[0], -TERN_EPEER);
	CU_ASSERT_EQUAL(w->gone[1], -TERN_EPEER);
	world_close();
}

/* The control connection went as well: a tenth of the timeout. When it answers, it lives on. */
static void control_lost(void)
{
	world_open(1472, 1472, 5 * MS, 4 * SECOND);
	run(2 * SECOND);
	for (int i = 0; i < 2; i++)
		peer_control_lost(&w->end[i].peer, w->now_ns);
	run(2 * SECOND + 3 * SECOND);
	CU_ASSERT_EQUAL(w->gone[0], 0);
	w->cut[0] = w->cut[1] = true;
	for (int i = 0; i < 2; i++)
		peer_control_lost(&w->end[i].peer, w->now_ns);
	run(w->now_ns + 500 * MS);
	CU_ASSERT_EQUAL(w->gone[0], -TERN_EPEER);
	CU_ASSERT_EQUAL(w->gone[1], -TERN_EPEER);
	world_close();
}

/* A cut shorter than the timeout is sat out, at any moment of the pings' course. Two cuts with less between them than a ping (at most 500 ms apart) and its answer may
 * take are one: all of it is shorter than the timeout then. */
static void short_cuts(void)
{
	const uint64_t most = 4 * SECOND - 600ull * MS;
	rand_start(unit_seed());
	for (int round = 0; round < 30; round++) {
		world_open(1472, 1472, 20 * MS, 4 * SECOND);
		run(2 * SECOND);
		uint64_t dark = 0; /* of this cut, and those that it is one with */
		for (int i = 0; i < 20; i++) {
			uint64_t gap = rand_below(4) ? rand_below(20 * SECOND) : rand_below(600 * MS);
			dark = gap < 600 * MS ? dark + gap : 0;
			uint64_t cut = rand_below(dark < 400 * MS ? 3 * SECOND : dark < most ? most - dark : 1);
			run(w->now_ns + gap);
			w->cut[rand_below(2)] = true;
			w->cut[rand_below(2)] = true;
			dark += cut;
			run(w->now_ns + cut);
			w->cut[0] = w->cut[1] = false;
		}
		run(w->now_ns + SECOND);
		CU_ASSERT_EQUAL(w->gone[0], 0);
		CU_ASSERT_EQUAL(w->gone[1], 0);
		world_close();
	}
}

static void rubbish_records(void)
{
	uint8_t payload[300];
	bool eliciting;
	rand_start(unit_seed());
	world_open(1472, 1472, MS, 10 * SECOND);
	run(2 * SECOND);
	for (int i = 0; i < 200000; i++) {
		size_t n = rand_below(sizeof(payload));
		for (size_t k = 0; k < n; k++)
			payload[k] = (uint8_t)rand_next();
		if (n > 4) { /* a likely type and a length that fits */
			payload[0] = (uint8_t)rand_below(WIRE_RECORD_END + 1);
			payload[1] = 0;
			payload[2] = (uint8_t)(rand_below(2) ? n : rand_below(50));
			payload[3] = 0;
		}
		int err = peer_rx_mix(&w->end[0].path, payload, n, w->now_ns, &eliciting);
		CU_ASSERT_FATAL(err == 0 || err == -TERN_EPROTO || err == -TERN_EAGAIN || err == -TERN_EPEER);
	}
	world_close();
}

static const struct unit_case cases[] = {
        {"every_mtu", every_mtu},
        {"first_round_lost", first_round_lost},
        {"black_hole", black_hole},
        {"shrinks_below_least", shrinks_below_least},
        {"invented_pongs", invented_pongs},
        {"many_pings", many_pings},
        {"never_heard", never_heard},
        {"idle", idle},
        {"gone_while_idle", gone_while_idle},
        {"control_lost", control_lost},
        {"short_cuts", short_cuts},
        {"rubbish_records", rubbish_records},
};
UNIT_MAIN("peer_path", cases)
