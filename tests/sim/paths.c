/* Several paths of one peer in virtual time (docs/design/008): rates add up, tails stay off far paths, small messages take the nearest, a path that dies
 * costs milliseconds and comes back, a peer that stalls is no dead path, direct placement goes over all of them. Each cell says what its bound is made of.
 * TERN_SEED replays a run. */
#include <stdio.h>
#include <string.h>
#include "paths_common.h"

enum { BYTES = PATHS_BYTES, SMALL = 4096, MANY = 48, MANY_BYTES = 1 << 20 };

/* Rates add up; what is over the ideal is one way there and the acknowledgement's way back. */
static void cell_sum(unsigned paths, double loss, bool sealed)
{
	static const uint64_t rtt[] = {30, 30, 30, 30};
	struct harness_config c;
	struct harness h;
	base(&c, paths, rtt, loss);
	c.sealed = sealed;
	harness_open(&h, &c);
	double took = send_one(&h, BYTES), ideal = ideal_ms(&c, BYTES, paths) + 30, more = loss > 0 ? 32 : 2;
	printf("%u paths, loss %g%s: %.1f ms, ideal %.1f\n", paths, loss, sealed ? ", sealed" : "", took, ideal);
	expect(took <= ideal * 1.02 + more, "several paths carry the sum of their rates"); /* a lost tail costs its RTT */
	expect(h.peer[HARNESS_A]->peer.failovers == 0, "nothing is taken for dead");
	harness_close(&h);
}

/* 10 ms and 100 ms. A small message must not see the far path, nor must one of 1 MB, which is over before a byte of the far one would arrive; a large
 * one has the use of both. */
static void cell_unequal(void)
{
	static const uint64_t rtt[] = {100, 10}; /* path 0 is the long one: nothing may depend on the order */
	struct harness_config c;
	struct harness h;
	base(&c, 2, rtt, 0);
	harness_open(&h, &c);
	double warm = send_one(&h, SMALL), small = send_one(&h, SMALL), medium = send_one(&h, 1000000), large = send_one(&h, BYTES);
	/* both begin at 0; what takes the far path comes 45 ms later, so that it ends sending 45 ms before the near one: half of that is the cost */
	double alone = ideal_ms(&c, 1000000, 1) + 10, both = ideal_ms(&c, BYTES, 2) + 22.5 + 10;
	printf("10 and 100 ms: %d B %.1f ms (first %.1f), 1 MB %.1f (ideal %.1f), ", SMALL, small, warm, medium, alone);
	printf("256 MiB %.1f (%.1f)\n", large, both);
	expect(small <= 12, "a small message takes the near path, and so does its acknowledgement");
	expect(medium <= alone + 3, "the tail of a message stays off the far path");
	expect(large <= both * 1.02 + 25, "a large one has the use of both");
	expect(h.peer[HARNESS_A]->peer.failovers == 0, "a long path is not a dead one");
	harness_close(&h);
}

/* A path dies for 2 s in the middle of a transfer. It costs what was in flight there (sent again: RTT x rate), 10 ms until that is noticed after the RTT
 * in which it could not be, and its rate from then on. Then it comes back by itself and takes its part of another message. */
static void cell_failover(bool sealed)
{
	static const uint64_t rtt[] = {30, 30};
	struct harness_config c;
	struct harness h;
	base(&c, 2, rtt, 0);
	c.sealed = sealed;
	outage(&c, 1, 700 * MS, 2000 * MS);
	harness_open(&h, &c);
	harness_run(&h, never, 400 * MS);
	double took = send_one(&h, BYTES); /* begins at 520 */
	double rate = harness_pinned_limit(&c) / 1e3, before = (700 - 520) * rate * 2, lost = 30 * rate; /* bytes, a ms */
	double ideal = 180 + ((double)BYTES - before + lost) / rate + 30;
	printf("a path dies%s: %.1f ms, %.1f if it had been known at once\n", sealed ? ", sealed" : "", took, ideal);
	expect(took <= ideal + 60, "a dead path costs 10 ms beyond what it held"); /* its last 30 ms, and 10: both at the other's cost */
	expect(h.peer[HARNESS_A]->peer.failovers == 1, "it was given up once");
	harness_run(&h, never, 3500 * MS + 5000 * MS);
	uint64_t bytes = tx_bytes(&h, 1);
	took = send_one(&h, BYTES);
	printf("    it comes back: %.1f ms, %llu MB over it\n", took, (unsigned long long)((tx_bytes(&h, 1) - bytes) / 1000000));
	expect(took <= ideal_ms(&c, BYTES, 2) * 1.1 + 40, "and comes back by itself");
	expect(h.gone[0] == 0 && h.gone[1] == 0, "the peer lives");
	harness_close(&h);
}

/* Single messages while the nearer path dies: each takes its round trip, the one that meets the death that of the other path and the time to notice. */
static void cell_small_failover(void)
{
	static const uint64_t rtt[] = {10, 30};
	struct harness_config c;
	struct harness h;
	double worst = 0, last = 0;
	base(&c, 2, rtt, 0);
	outage(&c, 0, 1000 * MS, 60000 * MS);
	harness_open(&h, &c);
	for (unsigned i = 0; i < 20; i++) {
		last = send_one(&h, SMALL);
		worst = last > worst ? last : worst;
	}
	printf("4 KiB while the near path dies: worst %.1f ms, then %.1f\n", worst, last);
	expect(worst <= 60, "the message that meets the death of a path leaves by the other at the first probe");
	expect(last <= 35, "later ones take the other path");
	harness_close(&h);
}

/* Both paths dark: the peer has stalled, no path is moved away from; both go on when it is back. */
static void cell_stall(void)
{
	static const uint64_t rtt[] = {30, 30};
	struct harness_config c;
	struct harness h;
	base(&c, 2, rtt, 0);
	outage(&c, 0, 700 * MS, 500 * MS);
	outage(&c, 1, 700 * MS, 500 * MS);
	harness_open(&h, &c);
	harness_run(&h, never, 400 * MS);
	double took = send_one(&h, BYTES), ideal = ideal_ms(&c, BYTES, 2) + 30 + 500;
	uint64_t failovers = h.peer[HARNESS_A]->peer.failovers;
	printf("a peer that stalls for 500 ms: %.1f ms, ideal %.1f, %llu paths given up\n", took, ideal, (unsigned long long)failovers);
	expect(failovers == 0, "a silent peer is not a dead path (DESIGN 5.13)");
	expect(took <= ideal * 1.05 + 100, "it goes on where it was");
	harness_close(&h);
}

/* Messages of 1 MiB over links that place them, several at a time, over two paths; a connection breaks, or a path dies. */
static void cell_direct(const char *options, double loss, unsigned breaks, bool dies)
{
	static const uint64_t rtt[] = {10, 10};
	static struct msg_op send[MANY], recv[MANY];
	struct harness_config c;
	struct harness h;
	unsigned wrong = 0;
	base(&c, 2, rtt, loss);
	c.options = options;
	c.mtu = 4200;
	if (dies)
		outage(&c, 1, 300 * MS, 30000 * MS);
	harness_open(&h, &c);
	memset(to, 0, MANY * MANY_BYTES);
	for (unsigned i = 0; i < MANY; i++)
		harness_post(&h, HARNESS_B, &recv[i], MSG_OP_RECV, to + (size_t)i * MANY_BYTES, MANY_BYTES, i % 3);
	harness_run(&h, never, 200 * MS);
	uint64_t begin = h.now_ns, base_ops = h.ops_done;
	for (unsigned i = 0; i < MANY; i++)
		harness_post(&h, HARNESS_A, &send[i], MSG_OP_SEND, from + (size_t)i * MANY_BYTES, MANY_BYTES, i % 3);
	for (unsigned i = 0; i < breaks; i++) {
		harness_run(&h, never, h.now_ns + 40 * MS);
		sim_net_break(h.net, 0, 1);
	}
	for (unsigned i = 0; h.ops_done < base_ops + 2 * MANY && i < 20000; i++)
		harness_run(&h, never, h.now_ns + MS);
	double took = (double)(h.now_ns - begin) / 1e6, ideal = (double)MANY * MANY_BYTES / (double)GBIT / 2 * 1e3;
	for (unsigned i = 0; i < MANY; i++)
		wrong += send[i].status || recv[i].status || memcmp(from + (size_t)i * MANY_BYTES, to + (size_t)i * MANY_BYTES, MANY_BYTES);
	double direct = (double)h.loop[0]->count.tx_direct_bytes / ((double)MANY * MANY_BYTES);
	double share = (double)tx_bytes(&h, 1) / (double)(tx_bytes(&h, 0) + tx_bytes(&h, 1));
	printf("direct, %s, loss %g%s%s: %.0f ms (ideal %.0f), %.2f of it directly, %.2f over path 1\n", options, loss, breaks ? ", breaks" : "",
	       dies ? ", a path dies" : "", took, ideal, direct, share);
	expect(h.ops_done == base_ops + 2 * MANY && !wrong, "every message arrives, whole");
	expect(!breaks || took <= ideal * 1.5 + 50, "a break costs what was under way, and not the rate");
	expect(direct >= (breaks ? 0.9 : 0.97), "directly"); /* what was in flight when a connection broke goes as bytes, the rest of its message does not */
	expect(breaks || dies || (share > 0.4 && share < 0.6), "over both paths");
	expect(breaks || dies || took <= ideal * 1.1 + 25, "at the sum of their rates");
	expect(!dies || h.peer[HARNESS_A]->peer.failovers >= 1, "the dead path was given up");
	expect(!dies || took <= ideal * 2 + 200, "and the other carries on");
	for (int side = 0; side < 2 && !breaks && !dies; side++)
		if (*h.link[side]->trouble)
			printf("    trouble at %d: %s\n", side, h.link[side]->trouble);
	harness_close(&h);
}

int main(void)
{
	paths_begin();
	cell_sum(1, 0, false);
	cell_sum(2, 0, false);
	cell_sum(4, 0, true);
	cell_sum(2, 1e-3, false);
	cell_unequal();
	cell_failover(false);
	cell_failover(true);
	cell_small_failover();
	cell_stall();
	cell_direct("writes=uc", 0, 0, false);
	cell_direct("writes=uc", 1e-3, 0, false);
	cell_direct("writes=rc", 0, 0, false);
	cell_direct("writes=uc", 0, 3, false);
	cell_direct("writes=rc", 0, 3, false);
	cell_direct("writes=rc&turns=1", 1e-3, 3, false);
	cell_direct("writes=uc&turns=1", 1e-3, 3, false);
	cell_direct("writes=uc", 0, 0, true);
	cell_direct("writes=rc", 0, 0, true);
	return paths_end();
}
