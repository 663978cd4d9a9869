/* Transfers over an emulated long link in real time: delay, loss, reordering, duplicates. What arrives is what was sent, once and in order. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "inter.h"

static struct inter_pair p;

static void over(const char *file, uint32_t flags, const char *more)
{
	enum { N = 40, BIG = 6 << 20 };
	static uint8_t *to[N], *from[N];
	static uint64_t bytes[N];
	tern_op r[N];
	char query[200];
	tern_config c = inter_config();
	c.flags = flags;
	srand48((long)inter_seed());
	snprintf(query, sizeof(query), "?emu=%s%s", inter_file("wan.ini", file, 0600), more);
	inter_pair_with(&p, "127.0.0.1", query, &c);
	for (uint64_t i = 0; i < N; i++) {
		bytes[i] = i == 7 ? BIG : i % 4 == 0 ? (uint64_t)lrand48() % 300000 : (uint64_t)lrand48() % 2000;
		from[i] = malloc(bytes[i] + 1);
		to[i] = malloc(bytes[i] + 1);
		inter_fill(from[i], bytes[i], i);
		if (i % 3)
			r[i] = inter_recv(&p.b, p.ba, to[i], bytes[i], i, 0);
	}
	for (uint64_t i = 0; i < N; i++)
		inter_send(&p.a, p.ab, from[i], bytes[i], i, TERN_QUIET);
	for (uint64_t i = 0; i < N; i++)
		if (i % 3 == 0)
			r[i] = inter_recv(&p.b, p.ba, to[i], bytes[i], i, 0);
	for (uint64_t i = 0; i < N; i++) {
		tern_event e = inter_await_for(&p.b, TERN_EV_RECV, r[i], 60);
		CHECK_EQ(e.status, 0);
		CHECK_EQ(e.bytes, bytes[i]);
		CHECK(inter_filled(to[i], bytes[i], i));
	}
	/* and back, one small message at a time: tail losses */
	for (int i = 0; i < 20; i++) {
		char x = 0;
		tern_op op = inter_recv(&p.a, p.ab, &x, 1, 99, 0);
		inter_send(&p.b, p.ba, "y", 1, 99, TERN_QUIET);
		CHECK_EQ(inter_await(&p.a, TERN_EV_RECV, op).status, 0);
		CHECK_EQ(x, 'y');
	}
	CHECK_EQ(p.b.events, 0);
	for (int i = 0; i < N; i++) {
		free(from[i]);
		free(to[i]);
	}
}

static void lossy(void)
{
	over("[link]\ndelay = 5ms\nrate = 500mbit\nlimit = 4mib\nloss = 1%\n", 0, "");
	CHECK(inter_stat(&p.a, p.ab, "lost_frames") > 0);
	uint64_t rtt = inter_stat(&p.a, p.ab, "min_rtt_ns");
	CHECK(rtt >= 10000000 && rtt < 100000000);
	inter_pair_close(&p);
}

static void lossy_thread(void)
{
	over("[link]\ndelay = 5ms\nrate = 500mbit\nlimit = 4mib\nloss = 1%\n", TERN_OWN_THREAD, "");
	inter_pair_close(&p);
}

static void bursts(void)
{
	over("[link]\ndelay = 3ms\nrate = 500mbit\nlimit = 4mib\ngemodel = 0.1% 5%\n", 0, "&private=1");
	inter_pair_close(&p);
}

static void reordered(void)
{
	over("[link]\ndelay = 2ms\nrate = 500mbit\nlimit = 4mib\nreorder = 5% 1ms\n", 0, "");
	inter_pair_close(&p);
}

static void duplicated(void)
{
	over("[link]\ndelay = 2ms\nrate = 500mbit\nlimit = 4mib\nduplicate = 20%\n", 0, "");
	CHECK(inter_stat(&p.b, p.ba, "duplicate_frames") > 0);
	inter_pair_close(&p);
}

static void everything(void)
{
	over("[link]\ndelay = 4ms\nrate = 300mbit\nlimit = 256kib\nloss = 2%\nreorder = 3% 2ms\nduplicate = 3%\noutage = 200ms 60ms\nstep = 300ms "
	     "7ms\n",
	        0, "");
	inter_pair_close(&p);
}

/* A contract makes the sender fast from the first round trip on. */
static void with_contract(void)
{
	enum { BYTES = 10 << 20 };
	char query[300];
	uint8_t *from = malloc(BYTES), *to = malloc(BYTES);
	inter_fill(from, BYTES, 1);
	snprintf(query, sizeof(query), "?emu=%s&contract=%s", inter_file("wan.ini", "[link]\ndelay = 25ms\nrate = 200mbit 28b\nlimit = 4mib\n", 0600),
	        inter_file("c.ini", "rate = 200Mbit\nrtt = 50ms\ndedicated = yes\n", 0600));
	inter_pair_with(&p, "127.0.0.1", query, NULL);
	tern_op r = inter_recv(&p.b, p.ba, to, BYTES, 1, 0);
	inter_drive(60000000);
	uint64_t start = inter_now_ns();
	inter_send(&p.a, p.ab, from, BYTES, 1, TERN_QUIET);
	CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, r).status, 0);
	uint64_t took = inter_now_ns() - start;
	CHECK(inter_filled(to, BYTES, 1));
	/* the line alone needs 420 ms and 25 of delay; slow start from nothing needs five round trips more */
	CHECK(took >= 420000000);
	if (took > 700000000)
		inter_fail(__FILE__, __LINE__, "10 MiB at 200 Mbit/s took %llu ms", (unsigned long long)took / 1000000);
	inter_pair_close(&p);
	free(from);
	free(to);
}

static const struct inter_case cases[] = {
        {"lossy", lossy},
        {"lossy_thread", lossy_thread},
        {"bursts", bursts},
        {"reordered", reordered},
        {"duplicated", duplicated},
        {"everything", everything},
        {"with_contract", with_contract},
};
INTER_MAIN("emulated", cases)
