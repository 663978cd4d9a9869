/* Several paths of one peer where it hurts (docs/design/008): paths that are late, that die before anything is known of them, that break while the others are
 * dead, that refuse frames; a peer that sleeps; links that give up; keys that overtake their connection; more paths than a receive is exposed on; then any
 * mixture. Virtual time, each cell says what its bound is made of. TERN_SEED replays a run. */
#include <stdio.h>
#include <string.h>
#include "base/rng.h"
#include "paths_common.h"
#include "tern/error.h"

enum { LOT_MAX = 64, BIG = 64 << 20, MIB = 1 << 20, KIB32 = 32 << 10, MTU_DIRECT = 4200 };

/* ---- messages, several at a time, from A to B ---- */

struct lot {
	unsigned n;
	uint64_t bytes, odd_bytes; /* of each even one, of each odd one */
};

static struct msg_op send[LOT_MAX], recv[LOT_MAX];

static uint64_t lot_bytes(const struct lot *lot, unsigned i)
{
	return i % 2 ? lot->odd_bytes : lot->bytes;
}

static uint64_t lot_total(const struct lot *lot)
{
	return (lot->n + 1) / 2 * lot->bytes + lot->n / 2 * lot->odd_bytes;
}

static void lot_announce(struct harness *h, const struct lot *lot)
{
	memset(to, 0, lot->n * lot->bytes);
	memset(send, 0, sizeof(send));
	for (unsigned i = 0; i < lot->n; i++)
		harness_post(h, HARNESS_B, &recv[i], MSG_OP_RECV, to + i * lot->bytes, lot_bytes(lot, i), i);
	h->ops_done = 0;
	h->arg = (void *)lot;
}

static void lot_send(struct harness *h, const struct lot *lot, unsigned first, unsigned end)
{
	for (unsigned i = first; i < end; i++)
		harness_post(h, HARNESS_A, &send[i], MSG_OP_SEND, from + i * lot->bytes, lot_bytes(lot, i), i);
}

static bool lot_done(const struct harness *h)
{
	const struct lot *lot = h->arg;
	return h->ops_done >= 2 * lot->n;
}

/* Until all have ended, or for so long. @return ms from begin_ns to the last end; 0: they did not end, or not well */
static double lot_wait(struct harness *h, uint64_t begin_ns, uint64_t most_ms)
{
	const struct lot *lot = h->arg;
	unsigned wrong = 0;
	bool done = harness_run(h, lot_done, begin_ns + most_ms * MS);
	expect(done, "every message ends");
	for (unsigned i = 0; i < lot->n && done; i++)
		wrong += send[i].status || recv[i].status || memcmp(from + i * lot->bytes, to + i * lot->bytes, lot_bytes(lot, i));
	expect(!wrong, "well, with its bytes");
	return done && !wrong ? (double)(h->now_ns - begin_ns) / 1e6 : 0;
}

/* Nobody may come to the conclusion later on that the peer is gone: its timeout is 10 s. */
static void expect_alive(struct harness *h)
{
	harness_run(h, never, h->now_ns + 15000 * MS);
	expect(!h->gone[HARNESS_A] && !h->gone[HARNESS_B], "the peer is alive 15 s later");
}

static unsigned long long failovers(const struct harness *h, int end)
{
	return h->peer[end]->peer.failovers;
}

static struct peer_path *path_of(const struct harness *h, unsigned path)
{
	return &h->peer[HARNESS_A]->path[path]->pp;
}

static void direct(struct harness_config *c, const char *options)
{
	c->options = options;
	c->mtu = options ? MTU_DIRECT : c->mtu;
}

/* ---- cells ---- */

/* The links of both paths give up between two steps: the peer ends with what they say, within the step that sees it. */
static void cell_faults(void)
{
	static const uint64_t rtt[] = {10, 10};
	struct harness_config c;
	struct harness h;
	base(&c, 2, rtt, 0);
	direct(&c, "writes=rc");
	harness_open(&h, &c);
	harness_run(&h, never, 100 * MS);
	for (unsigned i = 0; i < 2; i++)
		h.peer[HARNESS_A]->path[i]->via->fault = -TERN_EVERSION;
	loop_activate(h.peer[HARNESS_A]->path[0]);
	harness_run(&h, never, h.now_ns + MS);
	printf("the links of both paths give up: the peer ends with %d\n", h.gone[HARNESS_A]);
	expect(h.gone[HARNESS_A] == -TERN_EVERSION, "the peer ends with the status of its links");
	harness_close(&h);
}

static bool path1_up(const struct harness *h)
{
	return path_of(h, 1)->state == PEER_PATH_UP;
}

/* A path is dark for its first 3 s. Pings are further and further apart, doubled each time, so that it is found at the latest after as long again and a round
 * trip; what is known of it then is the RTT of the ping that was answered, not the time since the first. The next message has the use of both paths. */
static void cell_late(void)
{
	static const uint64_t rtt[] = {30, 30};
	struct harness_config c;
	struct harness h;
	base(&c, 2, rtt, 0);
	outage(&c, 1, 0, 3000 * MS);
	harness_open(&h, &c);
	bool up = harness_run(&h, path1_up, 20000 * MS);
	double found = (double)h.now_ns / 1e6, first = (double)path_of(&h, 1)->first_rtt_ns / 1e6;
	double took = send_one(&h, PATHS_BYTES), ideal = ideal_ms(&c, PATHS_BYTES, 2) + 30;
	printf("a path that is late by 3 s: found at %.0f ms, first RTT %.1f; %.1f ms, ideal %.1f\n", found, first, took, ideal);
	expect(up && found >= 3000 && found <= 6000 + 30 + 20, "it is found"); /* and 20: the first gap */
	expect(first >= 30 && first <= 31, "its RTT is that of the answered ping");
	expect(took <= ideal * 1.02 + 10, "it is used at once"); /* 10: its first windows */
	expect(failovers(&h, HARNESS_A) == 0, "nothing is taken for dead");
	harness_close(&h);
}

/* The receiver's process sleeps in the middle of a message, for longer than a dead path would be granted: all is silent, so nothing is dead, whatever the RTTs
 * are. The message takes that long longer, and at most a round trip of the longer path to fill the windows again. */
static void cell_sleep(uint64_t rtt0_ms, uint64_t rtt1_ms, uint64_t sleep_ms)
{
	const uint64_t rtt[] = {rtt0_ms, rtt1_ms};
	static const struct lot lot = {1, BIG, 0};
	struct harness_config c;
	struct harness h;
	base(&c, 2, rtt, 0);
	harness_open(&h, &c);
	harness_run(&h, never, 400 * MS);
	send_one(&h, BIG); /* the RTTs are known now */
	lot_announce(&h, &lot);
	harness_run(&h, never, h.now_ns + 120 * MS);
	uint64_t begin = h.now_ns;
	lot_send(&h, &lot, 0, 1);
	harness_run(&h, never, begin + 150 * MS);
	h.asleep[HARNESS_B] = true;
	harness_run(&h, never, begin + (150 + sleep_ms) * MS);
	h.asleep[HARNESS_B] = false;
	/* what takes the longer path comes half the difference later, half of that is the cost (see cell_unequal); the ACK comes over the shorter one */
	double took = lot_wait(&h, begin, 20000), ideal = ideal_ms(&c, BIG, 2) + (double)(rtt0_ms - rtt1_ms) / 4 + (double)rtt1_ms + (double)sleep_ms;
	printf("the peer sleeps %llu ms, RTTs %llu and %llu: %.1f ms, ideal %.1f\n", (unsigned long long)sleep_ms, (unsigned long long)rtt0_ms,
	       (unsigned long long)rtt1_ms, took, ideal);
	expect(failovers(&h, HARNESS_A) == 0 && failovers(&h, HARNESS_B) == 0, "a peer that sleeps is no dead path");
	expect(took <= ideal * 1.05 + (double)rtt0_ms, "it goes on where it was");
	harness_close(&h);
}

/* Path 1 dies before its first acknowledgement: all that is known of its RTT is the validation. The other carries the whole message; at the worst after the time to
 * notice, three times the RTT and 10 ms. */
static void cell_early_death(const char *options)
{
	static const uint64_t rtt[] = {30, 30};
	static const struct lot lot = {1, BIG, 0};
	struct harness_config c;
	struct harness h;
	base(&c, 2, rtt, 0);
	direct(&c, options);
	outage(&c, 1, 405 * MS, 1000000 * MS);
	harness_open(&h, &c);
	lot_announce(&h, &lot);
	harness_run(&h, never, 395 * MS);
	lot_send(&h, &lot, 0, 1);
	double took = lot_wait(&h, 395 * MS, 60000), alone = ideal_ms(&c, BIG, 1) + 30;
	printf("a path dies at once, %s: %.1f ms, %.1f over the other alone, %llu paths given up\n", options ? options : "udp", took, alone,
	       failovers(&h, HARNESS_A));
	expect(flow_srtt_ns(&path_of(&h, 1)->flow) == UINT64_MAX, "nothing was acknowledged on it");
	expect(took <= alone + 3 * 30 + 10, "the message leaves by the other");
	expect_alive(&h);
	expect(failovers(&h, HARNESS_A) == 1, "it was given up once");
	harness_close(&h);
}

/* Path 0 is dark from 300 to 1200 ms; at 720 the connection of path 1 breaks, for good, since its wire is dark from 700 on. The peer has no path then; path 0 is
 * pinged at least every 500 ms, so that what is left goes over it from 1700 on at the latest: 40 MiB, and 60 ms for its first windows and the end. */
static void cell_last_breaks(const char *options)
{
	static const uint64_t rtt[] = {10, 10};
	static const struct lot lot = {48, MIB, MIB};
	struct harness_config c;
	struct harness h;
	base(&c, 2, rtt, 0);
	direct(&c, options);
	outage(&c, 0, 300 * MS, 900 * MS);
	outage(&c, 1, 700 * MS, 1000000 * MS);
	harness_open(&h, &c);
	lot_announce(&h, &lot);
	harness_run(&h, never, 290 * MS);
	lot_send(&h, &lot, 0, 8);
	harness_run(&h, never, 690 * MS);
	expect(h.ops_done == 16 && path_of(&h, 0)->state == PEER_PATH_DEAD, "the first have left by path 1, path 0 is dead");
	lot_send(&h, &lot, 8, lot.n);
	harness_run(&h, never, 720 * MS);
	for (int end = 0; end < 2; end++)
		h.peer[end]->path[1]->via->is_connected = false;
	double took = lot_wait(&h, 690 * MS, 60000), most = 1700 - 690 + ideal_ms(&c, 40 * MIB, 1) + 60;
	printf("the last path breaks, %s: %.1f ms, at most %.1f\n", options, took, most);
	expect(took <= most, "all leaves by the path that comes back");
	expect_alive(&h);
	harness_close(&h);
}

#define LATE_NS (20 * MS)
static uint64_t seen_ns;

/* The sender sees the connection of path 1 only so much later than the receiver. */
static void step_late(struct harness *h, int end)
{
	struct link_path *via = h->peer[HARNESS_A]->path[1]->via;
	bool is_connected = via->is_connected;
	if (is_connected && !seen_ns)
		seen_ns = h->now_ns;
	if (end == HARNESS_A && h->now_ns < seen_ns + LATE_NS)
		via->is_connected = false;
	loop_step(h->loop[end], h->now_ns);
	via->is_connected = is_connected;
}

/* Path 1's keys of receives that were announced before it stood come over path 0, 20 ms before the sender sees the connection they hold for. It carries its half
 * then; one that was thrown away would leave all to path 0, for twice the time. */
static void cell_key_first(void)
{
	static const uint64_t rtt[] = {2, 40};
	static const struct lot lot = {8, 8 * MIB, 8 * MIB};
	struct harness_config c;
	struct harness h;
	base(&c, 2, rtt, 0);
	direct(&c, "writes=uc");
	c.contract_rtt_ns = 40 * MS; /* one for all paths: that of the longest */
	harness_open(&h, &c); /* path 1 stands after 40 ms */
	seen_ns = 0;
	h.step = step_late;
	h.tick_ns = MS / 10;
	lot_announce(&h, &lot);
	harness_run(&h, never, 300 * MS);
	h.step = NULL;
	h.tick_ns = 0;
	uint64_t begin = h.now_ns, other = tx_bytes(&h, 0), own = tx_bytes(&h, 1);
	lot_send(&h, &lot, 0, lot.n);
	/* the far path's bytes come 19 ms later: half of that is the cost */
	double took = lot_wait(&h, begin, 20000), ideal = ideal_ms(&c, BIG, 2) + 9.5 + 2;
	own = tx_bytes(&h, 1) - own;
	other = tx_bytes(&h, 0) - other;
	double share = (double)own / (double)(own + other), placed = (double)h.loop[HARNESS_A]->count.tx_direct_bytes / BIG;
	printf("keys before their connection: %.1f ms, ideal %.1f, %.2f over path 1, %.2f of it directly\n", took, ideal, share, placed);
	expect(share > 0.4 && share < 0.6, "the keys are kept");
	expect(placed >= 0.97, "directly");
	expect(took <= ideal * 1.1 + 25, "at the sum of the rates");
	harness_close(&h);
}

/* 8 paths, a receive is exposed on 4 of them: all carry their part, and those that may not carry what waits do not look for it again and again. */
static void cell_many(void)
{
	static const uint64_t rtt[] = {20, 20, 20, 20, 20, 20, 20, 20};
	static const struct lot lot = {64, MIB, KIB32};
	struct harness_config c;
	struct harness h;
	uint64_t least = UINT64_MAX, most = 0;
	base(&c, 8, rtt, 0);
	direct(&c, "writes=rc");
	harness_open(&h, &c);
	lot_announce(&h, &lot);
	harness_run(&h, never, 1000 * MS);
	uint64_t begin = h.now_ns, steps = h.steps;
	lot_send(&h, &lot, 0, lot.n);
	double took = lot_wait(&h, begin, 20000), ideal = ideal_ms(&c, lot_total(&lot), 8) + 20;
	steps = h.steps - steps;
	for (unsigned i = 0; i < 8; i++) {
		least = tx_bytes(&h, i) < least ? tx_bytes(&h, i) : least;
		most = tx_bytes(&h, i) > most ? tx_bytes(&h, i) : most;
	}
	printf("8 paths: %.1f ms, ideal %.1f, %.1f to %.1f MB over each, %llu steps\n", took, ideal, (double)least / 1e6, (double)most / 1e6,
	       (unsigned long long)steps);
	expect(took <= ideal * 1.1 + 25, "at the sum of the rates");
	expect(least * 2 >= most, "over all of them");
	expect(steps < 50000, "nobody spins"); /* 8500 frames and hardly more acknowledgements, each in a step of its own, and as many timers */
	harness_close(&h);
}

/* 5 paths and 4 messages, the first path much nearer than the rest: it may not carry the message that it has no key for, and what is left of that one, less than
 * a burst for each of the others, must not be left to each other by all of them. The near path brings three about as early as the far ones would and so has them
 * for itself; the fourth then leaves by the far ones. */
static void cell_unkeyed(const char *options)
{
	static const uint64_t rtt[] = {4, 20, 20, 20, 20};
	static const struct lot lot = {4, MIB, MIB};
	struct harness_config c;
	struct harness h;
	base(&c, 5, rtt, 0);
	direct(&c, options);
	c.contract_rtt_ns = 20 * MS; /* one for all paths: that of the longest */
	harness_open(&h, &c);
	harness_run(&h, never, 500 * MS);
	lot_announce(&h, &lot);
	harness_run(&h, never, 1000 * MS);
	uint64_t begin = h.now_ns;
	lot_send(&h, &lot, 0, lot.n);
	double took = lot_wait(&h, begin, 60000), most = ideal_ms(&c, 3 * MIB, 1) + ideal_ms(&c, MIB, 4) + 20;
	printf("no key for the nearest of 5 paths, %s: %.1f ms, one after another %.1f\n", options, took, most);
	expect(took <= most * 1.05 + 2, "all end soon"); /* 2: who left bytes to others looks again after 1 ms, at the beginning and at the end */
	expect_alive(&h);
	harness_close(&h);
}

static const struct link_ops *real_ops;
static const struct link_path *stuck;

/* Takes nothing for one path. */
static size_t tx_stuck(struct link *link, struct frame *const *frames, size_t n, uint64_t now_ns)
{
	size_t i = 0;
	while (i < n && frames[i]->path != stuck && real_ops->tx(link, frames + i, 1, now_ns))
		i++;
	return i;
}

/* A link that takes nothing more for one path, in the middle of a message: nothing is in flight there after a round trip, yet nothing can leave. 10 ms later it is
 * given up, and the rest leaves by the other: as when the path had died. */
static void cell_stuck(void)
{
	static const uint64_t rtt[] = {30, 30};
	static const struct lot lot = {1, BIG, 0};
	struct harness_config c;
	struct harness h;
	base(&c, 2, rtt, 0);
	harness_open(&h, &c);
	send_one(&h, BIG);
	lot_announce(&h, &lot);
	harness_run(&h, never, h.now_ns + 200 * MS);
	real_ops = h.link[HARNESS_A]->ops;
	struct link_ops ops = *real_ops;
	ops.tx = tx_stuck;
	uint64_t begin = h.now_ns;
	lot_send(&h, &lot, 0, 1);
	harness_run(&h, never, begin + 100 * MS);
	stuck = h.peer[HARNESS_A]->path[1]->via;
	h.link[HARNESS_A]->ops = &ops;
	h.tick_ns = 20000; /* a link that refuses has no time at which it will not */
	/* 100 ms at both rates, the rest at one */
	double both = 100 * harness_pinned_limit(&c) / 1e3 * 2, ideal = 100 + ideal_ms(&c, BIG - (uint64_t)both, 1) + 30;
	double took = lot_wait(&h, begin, 20000);
	printf("a link takes nothing for one path: %.1f ms, ideal %.1f, %llu paths given up\n", took, ideal, failovers(&h, HARNESS_A));
	expect(failovers(&h, HARNESS_A) == 1, "it is given up");
	expect(took <= ideal + 60, "the message ends over the other"); /* as cell_failover: what was in flight, and 10 ms */
	h.tick_ns = MS;
	expect_alive(&h);
	h.link[HARNESS_A]->ops = real_ops;
	harness_close(&h);
}

static uint64_t between(struct rng *r, uint64_t low, uint64_t high)
{
	return low + rng_below(r, high - low + 1);
}

/* Any number of paths with any RTTs, messages of two sizes; one path other than the first may be dark for a while. At the worst everything leaves by one path of
 * 1 Gb/s, all of it twice, after a path of the longest RTT has died: 3 RTTs, 10 ms and a ping; over RC 4 RTTs and 100 ms more, in which the link repeats by itself.
 * And 3 RTTs for the HEAD, the bytes and the answer. Each frame is a step or two, as its acknowledgement is, and each ms of a path; over RC its completion, too. A path
 * that goes dark is sent to for 60 ms more. */
static void cell_any(struct rng *r)
{
	static const char *const options[] = {NULL, "writes=uc", "writes=rc", "writes=rc&turns=1"};
	uint64_t rtt[HARNESS_PATHS_MAX], far = 0;
	unsigned paths = (unsigned)between(r, 2, HARNESS_PATHS_MAX), which = (unsigned)between(r, 0, 3);
	struct lot lot = {(unsigned)between(r, 1, 24), 0, 0};
	struct harness_config c;
	struct harness h;
	lot.odd_bytes = between(r, 1, between(r, 0, 1) ? 4 * MIB : KIB32);
	lot.bytes = between(r, lot.odd_bytes, 4 * MIB);
	for (unsigned i = 0; i < paths; i++) {
		rtt[i] = between(r, 0, 2) ? between(r, 2, 60) : i ? rtt[i - 1] : 20;
		far = rtt[i] > far ? rtt[i] : far;
	}
	base(&c, paths, rtt, 0);
	c.contract_rtt_ns = far * MS;
	direct(&c, options[which]);
	unsigned dark = (unsigned)between(r, 1, paths - 1);
	uint64_t start_ms = between(r, 480, 600), length_ms = between(r, 0, 1) * between(r, 1, 2000);
	if (length_ms)
		outage(&c, dark, start_ms * MS, length_ms * MS);
	harness_open(&h, &c);
	lot_announce(&h, &lot);
	harness_run(&h, never, 500 * MS);
	lot_send(&h, &lot, 0, lot.n);
	uint64_t steps = h.steps;
	double took = lot_wait(&h, 500 * MS, 60000), most = 2 * ideal_ms(&c, lot_total(&lot), 1) + 6 * (double)far + 20;
	if (which >= 2)
		most += 4 * (double)far + 100;
	steps = h.steps - steps;
	printf("%u paths, %s, %u messages of %llu and %llu B, path %u of %llu ms dark for %llu ms: %.1f ms, at most %.1f\n", paths,
	       which ? options[which] : "udp", lot.n, (unsigned long long)lot.bytes, (unsigned long long)lot.odd_bytes, dark,
	       (unsigned long long)rtt[dark], (unsigned long long)length_ms, took, most);
	expect(took <= most, "all end soon");
	double frames = (double)lot_total(&lot) / (MTU_DIRECT - 100) + (length_ms ? 60 * GBIT / 1e3 / 1400 : 0);
	expect((double)steps <= (which >= 2 ? 6 : 4) * (frames + paths * took + 10), "nobody spins");
	expect_alive(&h);
	harness_close(&h);
}

int main(void)
{
	struct rng r;
	paths_begin();
	cell_faults();
	cell_late();
	cell_sleep(30, 28, 60);
	cell_sleep(30, 10, 30);
	cell_sleep(30, 10, 60);
	cell_sleep(100, 10, 100);
	cell_early_death(NULL);
	cell_early_death("writes=rc");
	cell_last_breaks("writes=uc");
	cell_key_first();
	cell_many();
	cell_unkeyed("writes=uc");
	cell_unkeyed("writes=rc");
	cell_stuck();
	rng_init(&r, paths_seed());
	for (unsigned i = 0; i < 12; i++)
		cell_any(&r);
	return paths_end();
}
