/* The receiving side by itself: replay, floor, bounded memory, when acknowledgements are due and what they say. */
#include <string.h>
#include "unit.h"
#include "cc/cc.h"
#include "flow/state.h"
#include "tern/error.h"

static uint64_t seed;
static _Alignas(64) unsigned char memory[1 << 20];
static struct flow_shared *shared;
static const uint64_t start_ns = 5000000;

static void fresh(struct flow *f, uint32_t ranges)
{
	struct flow_config c = {.cc = &cc_fixed, .now_ns = start_ns, .peer_ack_delay_ns = 500000,
				.cc_init = {.contract_bytes_per_s = 125000000, .contract_rtt_ns = 1000000, .frame_bytes = 1500,
					.buffer_bytes = UINT64_MAX}};

	CU_ASSERT_FATAL(flow_shared_bytes(64, ranges) <= sizeof(memory));
	shared = c.shared = flow_shared_init(memory, 64, ranges);
	CU_ASSERT_EQUAL_FATAL(flow_init(f, &c), 0);
}

static int take(struct flow *f, uint64_t number, uint64_t now_ns)
{
	struct flow_arrival a = {.number = number, .wire_bytes = 1500, .ack_eliciting = true};
	int err = flow_rx_check(f, number);

	if (!err)
		flow_rx_commit(f, &a, now_ns);
	return err;
}

/* Against a plain array of booleans. */
static void replay(void)
{
	static uint8_t seen[4096];
	struct flow f;
	uint64_t x = seed | 1, floor = 0;

	fresh(&f, 4096);
	memset(seen, 0, sizeof(seen));
	for (uint32_t i = 0; i < 20000; i++) {
		uint64_t number;

		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		number = (i / 6 + x % 300) % 4096;
		CU_ASSERT_EQUAL_FATAL(take(&f, number, start_ns + i), seen[number] || number < floor ? -TERN_ESTALE : 0);
		seen[number] = 1;
		if (x % 512 == 7 && number > 40) {
			floor = number - 40 > floor ? number - 40 : floor;
			flow_rx_floor(&f, number - 40);
		}
	}
	CU_ASSERT(f.rx.count < 400);
	while (flow_close(&f, NULL, 0))
		;
	CU_ASSERT_EQUAL(shared->ranges.used, 0);
}

/* Every second number is missing for ever: the memory stays bounded, and what was given up is refused. */
static void bounded(void)
{
	struct flow f;
	uint64_t number;

	fresh(&f, 4096);
	for (number = 0; number < 8000; number += 2)
		CU_ASSERT_EQUAL_FATAL(take(&f, number, start_ns + number), 0);
	CU_ASSERT_EQUAL(f.rx.count, FLOW_RANGES_MAX);
	CU_ASSERT_EQUAL(take(&f, 1, start_ns + 9000), -TERN_ESTALE);
	CU_ASSERT_EQUAL(take(&f, 7001, start_ns + 9000), 0);
	fresh(&f, 1);
	for (number = 0; number < 100; number += 2)
		CU_ASSERT_EQUAL_FATAL(take(&f, number, start_ns + number), 0);
	for (number = 0; number < 97; number++)
		CU_ASSERT_EQUAL(take(&f, number, start_ns + number), -TERN_ESTALE);
	CU_ASSERT_EQUAL(take(&f, 97, start_ns), 0);
}

static void ack_times(void)
{
	struct flow_arrival now = {.number = 100, .ack_eliciting = true, .ack_now = true}, quiet = {.number = 101};
	struct flow f;
	struct wire_ack ack;
	uint64_t t = start_ns, n;

	fresh(&f, 64);
	CU_ASSERT_FALSE(flow_ack_build(&f, t, &ack));
	CU_ASSERT_EQUAL(flow_ack_when_ns(&f), UINT64_MAX);
	take(&f, 0, t);
	CU_ASSERT_EQUAL(flow_ack_when_ns(&f), t); /* the very first: the sender knows no RTT yet */
	flow_ack_build(&f, t, &ack);
	t += 1000000;
	take(&f, 1, t);
	CU_ASSERT_EQUAL(flow_ack_when_ns(&f), t + 500000); /* a lone frame is held */
	for (n = 2; n < 16; n++)
		take(&f, n, t + n);
	CU_ASSERT_EQUAL(flow_ack_when_ns(&f), t + 500000);
	take(&f, n++, t + 16);
	CU_ASSERT_EQUAL(flow_ack_when_ns(&f), t + 16); /* 16 frames, the last acknowledgement is long ago */
	CU_ASSERT_TRUE(flow_ack_build(&f, t + 40, &ack));
	CU_ASSERT_EQUAL(ack.ranges, 1);
	CU_ASSERT(ack.range[0].first == 0 && ack.range[0].last == 16);
	CU_ASSERT_EQUAL(ack.delay_ns, 24);
	CU_ASSERT_EQUAL(flow_ack_when_ns(&f), UINT64_MAX);
	for (; n < 40; n++)
		take(&f, n, t + 50);
	CU_ASSERT_EQUAL(flow_ack_when_ns(&f), t + 40 + 50000); /* whichever is later */
	flow_ack_build(&f, t + 50040, &ack);
	take(&f, 41, t + 50041); /* 40 is missing */
	CU_ASSERT_EQUAL(flow_ack_when_ns(&f), t + 100040); /* gaps are told each 50 us */
	flow_rx_commit(&f, &now, t + 50042);
	CU_ASSERT_EQUAL(flow_ack_when_ns(&f), t + 50042);
	flow_ack_build(&f, t + 50043, &ack);
	CU_ASSERT_EQUAL(ack.ranges, 3);
	CU_ASSERT(ack.range[0].first == 100 && ack.range[1].first == 41 && ack.range[2].last == 39);
	flow_rx_commit(&f, &quiet, t + 50044); /* acknowledgements are not acknowledged */
	CU_ASSERT_EQUAL(flow_ack_when_ns(&f), UINT64_MAX);
}

/* More ranges than a record has room for: within a few records all are said. */
static void all_said(void)
{
	static uint8_t said[600];
	struct flow f;
	struct wire_ack ack;

	fresh(&f, 1024);
	memset(said, 0, sizeof(said));
	for (uint64_t n = 0; n < 600; n += 3)
		take(&f, n, start_ns + n);
	for (int i = 0; i < 14; i++) {
		CU_ASSERT_TRUE(flow_ack_build(&f, start_ns + 1000, &ack));
		CU_ASSERT_EQUAL(ack.range[0].last, 597);
		for (uint32_t r = 0; r < ack.ranges; r++) {
			said[ack.range[r].first] = 1;
			CU_ASSERT(!r || ack.range[r].last + 1 < ack.range[r - 1].first);
		}
	}
	for (uint64_t n = 0; n < 600; n++)
		CU_ASSERT_EQUAL(said[n], n % 3 == 0);
}

static void bad_acks(void)
{
	struct flow_run run = {.item = {1, 0, 0, 2}, .frames = 1, .wire_bytes = 100, .ack_eliciting = true};
	struct wire_ack ack = {.ranges = 1, .range = {{0, 1}}};
	struct flow_report out[4];
	struct flow f;

	fresh(&f, 64);
	CU_ASSERT_EQUAL(flow_tx_commit(&f, &run, start_ns), 0);
	CU_ASSERT_EQUAL(flow_on_ack(&f, &ack, start_ns + 1, out, 4), -TERN_EPROTO);
	CU_ASSERT_EQUAL(flow_in_flight_bytes(&f), 100);
	ack.range[0].last = 0;
	CU_ASSERT_EQUAL(flow_on_ack(&f, &ack, start_ns + 1000000, out, 4), 1);
	CU_ASSERT(out[0].kind == FLOW_ACKED && out[0].item.ref == 1 && out[0].item.kind == 2);
	CU_ASSERT_EQUAL(flow_on_ack(&f, &ack, start_ns + 1000001, out, 4), 0);
	CU_ASSERT_EQUAL(flow_srtt_ns(&f), 1000000);
	CU_ASSERT_EQUAL(flow_silent_ns(&f, start_ns + 900000000), 0);
	CU_ASSERT_EQUAL(flow_deadline_ns(&f), UINT64_MAX);
}

static const struct unit_case cases[] = {
	{"replay", replay}, {"bounded memory", bounded}, {"when to acknowledge", ack_times}, {"every range is said", all_said},
		{"bad acknowledgements", bad_acks},
};

int main(void)
{
	setbuf(stdout, NULL);
	seed = unit_seed();
	return unit_main("flow_rx", cases, sizeof(cases) / sizeof(cases[0]));
}
