/* The whole flow against the channel model: loss, lost acknowledgements, reordering, repeats, darkness, small pools, random mixtures. */
#include "model.h"

static uint64_t seed;

struct seen {
	struct flow_counters n;
	uint32_t lost_most;
};

static uint64_t run_cell(const struct model_config *cfg, uint64_t limit_ns, struct seen *seen)
{
	struct model *m = malloc(sizeof(*m));
	uint64_t took;

	model_open(m, cfg, seed);
	took = model_run(m, limit_ns);
	CU_ASSERT_NOT_EQUAL(took, UINT64_MAX);
	if (took == UINT64_MAX)
		printf("  not done: %u of %u chunks, %llu in flight\n", m->acked, cfg->chunks, (unsigned long long)m->tx.in_flight_bytes);
	if (seen) {
		*seen = (struct seen){m->tx.count, m->lost_most};
		seen->n.rx_duplicates = m->rx.count.rx_duplicates;
		seen->n.acks_tx = m->rx.count.acks_tx;
	}
	model_close(m);
	free(m);
	return took;
}

static uint64_t ideal_ns(const struct model_config *c)
{
	return (uint64_t)((double)c->chunks * MODEL_WIRE / (double)c->rate * 1e9) + c->rtt_ns;
}

static void clean(void)
{
	static const uint64_t rates[] = {12500000, 125000000, 1250000000, 12500000000}, rtts[] = {100000, 1000000, 30000000, 100000000};

	for (int i = 0; i < 16; i++) {
		struct model_config c = {.rate = rates[i % 4], .rtt_ns = rtts[i / 4], .chunks = 20000, .extents = 20000, .ranges = 4096};
		struct seen seen;
		uint64_t took = run_cell(&c, 10 * ideal_ns(&c), &seen);

		CU_ASSERT(took < ideal_ns(&c) + ideal_ns(&c) / 100 + 1000000);
		CU_ASSERT_EQUAL(seen.n.lost_frames, 0);
		CU_ASSERT(seen.n.acks_tx < 20000 / 16 + ideal_ns(&c) / FLOW_ACK_HOLD_NS + 8);
	}
}

static void losses(void)
{
	static const double p[] = {1e-4, 1e-3, 1e-2, 0.1, 0.5};

	for (int i = 0; i < 15; i++) {
		static const uint64_t rtts[] = {200000, 10000000, 100000000};
		struct model_config c = {.rate = 125000000, .rtt_ns = rtts[i / 5], .loss = p[i % 5], .chunks = 20000, .extents = 20000,
			.ranges = 4096};
		struct seen seen;
		uint64_t took = run_cell(&c, 100 * ideal_ns(&c), &seen);

		CU_ASSERT(seen.n.spurious_frames <= 3);
		if (p[i % 5] <= 1e-2)
			CU_ASSERT(took < ideal_ns(&c) * (1 + 2 * p[i % 5]) + model_repair_ns(&c, seen.lost_most) + 3000000);
		CU_ASSERT((double)seen.n.lost_frames < (double)seen.n.tx_frames * p[i % 5] * 1.1 + 60);
	}
}

static void lost_acks(void)
{
	static const double p[] = {0.01, 0.1, 0.3, 0.5};

	for (int i = 0; i < 4; i++) {
		struct model_config c = {.rate = 125000000, .rtt_ns = 10000000, .ack_loss = p[i], .loss = 1e-3, .chunks = 20000, .extents = 20000,
			.ranges = 4096};

		/* at the tail each probe is answered by one acknowledgement, and at 50 % eight in a row are lost once in 256 runs (17 RTTs
		 * seen): 32 RTTs are once in 60 000 */
		CU_ASSERT(run_cell(&c, 100 * ideal_ns(&c), NULL) < ideal_ns(&c) + ideal_ns(&c) / 20 + 32 * c.rtt_ns);
	}
}

/* Frames overtake each other by more than the first reordering window: it is learnt, so that few frames are sent twice. */
static void reordering(void)
{
	struct model_config c = {.rate = 125000000, .rtt_ns = 20000000, .jitter_ns = 4000000, .repeat = 0.01, .chunks = 50000, .extents = 50000,
		.ranges = 4096};
	struct seen seen;

	run_cell(&c, 10 * ideal_ns(&c), &seen);
	CU_ASSERT(seen.n.spurious_frames > 0);
	CU_ASSERT(seen.n.lost_frames < 50000 / 20);
	CU_ASSERT(seen.n.rx_duplicates > 100);
	printf("  lost %llu spurious %llu\n", (unsigned long long)seen.n.lost_frames, (unsigned long long)seen.n.spurious_frames);
}

/* Two seconds of nothing: nothing but a probe's frame is given up, and after the first acknowledgement it goes on at full rate. */
static void darkness(void)
{
	struct model_config c = {.rate = 125000000, .rtt_ns = 20000000, .chunks = 40000, .extents = 40000, .ranges = 4096,
		.dark_from_ns = 100000000, .dark_ns = 2000000000};
	struct seen seen;
	uint64_t took = run_cell(&c, 20000000000ull, &seen);

	CU_ASSERT(took < ideal_ns(&c) + 2000000000ull + 5 * c.rtt_ns);
	CU_ASSERT(seen.n.lost_bytes < 125000 * 25 + 200 * MODEL_WIRE); /* a window, and the probes */
	printf("  took %.1f ms above ideal, probes %llu\n", (double)(took - ideal_ns(&c)) / 1e6, (unsigned long long)seen.n.probes);
}

static void small_pools(void)
{
	struct model_config c = {.rate = 125000000, .rtt_ns = 20000000, .loss = 0.01, .ack_loss = 0.1, .chunks = 20000, .extents = 64, .ranges = 8};

	run_cell(&c, 400 * ideal_ns(&c), NULL);
	c.extents = 16;
	c.ranges = 2;
	run_cell(&c, 4000 * ideal_ns(&c), NULL);
}

static void late_caller(void)
{
	struct model_config c = {.rate = 125000000, .rtt_ns = 1000000, .chunks = 20000, .extents = 20000, .ranges = 64, .late = true};

	CU_ASSERT(run_cell(&c, 10 * ideal_ns(&c), NULL) < ideal_ns(&c) + ideal_ns(&c) / 50 + 1000000);
}

static void mixtures(void)
{
	uint64_t base = seed;

	for (int i = 0; i < 60; i++) {
		struct model dice = {.seed = base + 7919u * (unsigned)i + 1};
		struct model_config c = {.rate = 1000000ull << (model_random(&dice) % 11), .rtt_ns = 100000ull << (model_random(&dice) % 11),
			.chunks = 2000};
		uint64_t kind = model_random(&dice);

		c.loss = kind & 1 ? model_chance(&dice) * 0.2 : 0;
		c.ack_loss = kind & 2 ? model_chance(&dice) * 0.5 : 0;
		c.repeat = kind & 4 ? 0.05 : 0;
		c.jitter_ns = kind & 8 ? c.rtt_ns / 3 : 0;
		c.late = kind & 16;
		c.dark_ns = kind & 32 ? 10 * c.rtt_ns : 0;
		c.dark_from_ns = model_random(&dice) % ideal_ns(&c);
		c.extents = kind & 64 ? 100 : 4000;
		c.ranges = kind & 128 ? 10 : 4096;
		seed = base + (unsigned)i;
		run_cell(&c, 1000 * ideal_ns(&c) + 60000000000ull, NULL);
	}
	seed = base;
}

static const struct unit_case cases[] = {
	{"clean paths cost nothing", clean}, {"losses", losses}, {"lost acknowledgements", lost_acks}, {"reordering is learnt", reordering},
	{"two seconds of darkness", darkness}, {"pools run out", small_pools}, {"late caller", late_caller}, {"random mixtures", mixtures},
};

int main(void)
{
	setbuf(stdout, NULL);
	seed = unit_seed();
	return unit_main("flow", cases, sizeof(cases) / sizeof(cases[0]));
}
