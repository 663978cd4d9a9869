/* Congestion controls against one bottleneck in virtual time: how much of it they use, what queue they leave, what loss, silence and a wrong contract do to them. */
#include "cc/explore.h"
#include "flow/model.h"

static uint64_t seed;

struct result {
	uint64_t took_ns, queue_ns, drops, lost_frames, tx_frames, probes;
	uint64_t pace;
	uint32_t lost_most; /* of any chunk */
	const char *state;
};

static uint64_t ideal_ns(const struct model_config *c, uint64_t rate)
{
	return (uint64_t)((double)c->chunks * MODEL_WIRE / (double)rate * 1e9) + c->rtt_ns;
}

static struct result run_cell(struct model_config c, const char *name)
{
	struct model *m = malloc(sizeof(*m));
	struct result r = {0};

	c.extents = c.chunks < 100000 ? 100000 : c.chunks;
	c.ranges = 100000;
	model_open(m, &c, seed);
	r.took_ns = model_run(m, 100 * ideal_ns(&c, c.bottleneck ? c.bottleneck : c.rate) + 10000000000ull);
	CU_ASSERT_NOT_EQUAL(r.took_ns, UINT64_MAX);
	r.queue_ns = m->queue_peak_ns;
	r.drops = m->drops;
	r.lost_frames = m->tx.count.lost_frames;
	r.tx_frames = m->tx.count.tx_frames;
	r.lost_most = m->lost_most;
	r.probes = m->tx.count.probes;
	r.state = flow_cc(&m->tx)->state;
	r.pace = flow_cc(&m->tx)->pace_bytes_per_s;
	printf("  %-28s %9.2f ms (ideal %9.2f) queue %7.0f us drops %6llu lost %6llu %s\n", name, (double)r.took_ns / 1e6,
	       (double)ideal_ns(&c, c.bottleneck ? c.bottleneck : c.rate) / 1e6, (double)r.queue_ns / 1e3, (unsigned long long)r.drops,
	       (unsigned long long)r.lost_frames, r.state);
	model_close(m);
	free(m);
	return r;
}

static uint64_t above(uint64_t ns, double factor)
{
	return (uint64_t)((double)ns * factor);
}

static void names(void)
{
	CU_ASSERT_PTR_EQUAL(cc_find("lightpath"), &cc_lightpath);
	CU_ASSERT_PTR_EQUAL(cc_find("cubic"), &cc_cubic);
	CU_ASSERT_PTR_EQUAL(cc_find("fixed"), &cc_fixed);
	CU_ASSERT_PTR_NULL(cc_find("cubi"));
	CU_ASSERT_PTR_NULL(cc_find("cubics"));
	CU_ASSERT_PTR_NULL(cc_find(""));
}

/* 98 % of the pinned limit from the first frame on, start included; the ideal has one RTT for the last acknowledgement. */
static void pinned(void)
{
	static const uint64_t rates[] = {125000000, 1250000000, 12500000000};
	static const double losses[] = {0, 1e-3};

	for (int i = 0; i < 6; i++) {
		struct model_config c = {.cc = "lightpath", .rate = rates[i % 3], .bottleneck = rates[i % 3], .queue_bytes = 10000000,
			.rtt_ns = 100000000,
					 .chunks = 767000, .loss = losses[i / 3], .dedicated = 1};
		struct result r = run_cell(c, losses[i / 3] > 0 ? "pinned, loss 1e-3" : "pinned");
		uint64_t pin = rates[i % 3] / 1000 * 985, bound = above(ideal_ns(&c, pin) - c.rtt_ns, 1 / 0.98) + c.rtt_ns;

		CU_ASSERT(r.took_ns <= bound + model_repair_ns(&c, r.lost_most) + (losses[i / 3] > 0 ? ideal_ns(&c, pin) / 500 : 0));
		CU_ASSERT_STRING_EQUAL(r.state, "PINNED");
		CU_ASSERT(r.queue_ns < 50000);
		CU_ASSERT_EQUAL(r.drops, 0);
	}
}

static void short_paths(void)
{
	static const uint64_t rtts[] = {100000, 500000, 5000000};

	for (int i = 0; i < 3; i++) {
		struct model_config c = {.cc = "lightpath", .rate = 1250000000, .bottleneck = 1250000000, .queue_bytes = 1000000,
			.rtt_ns = rtts[i], .chunks = 100000,
					 .loss = 1e-3, .dedicated = 1};
		struct result r = run_cell(c, "pinned, short, loss 1e-3");

		CU_ASSERT(r.took_ns < above(ideal_ns(&c, 1231250000), 1.01) + model_repair_ns(&c, r.lost_most) + 1000000);
		CU_ASSERT_STRING_EQUAL(r.state, "PINNED");
	}
}

/* An outage costs its own length and at most five milliseconds, if the contract says that the wave is protected. */
static void outage(void)
{
	static const uint64_t rtts[] = {1000000, 10000000, 100000000};

	for (int i = 0; i < 3; i++) {
		struct model_config c = {.cc = "lightpath", .rate = 125000000, .bottleneck = 125000000, .queue_bytes = 1000000, .rtt_ns = rtts[i],
			.chunks = 100000,
					 .dedicated = 1, .protection_ns = 60000000};
		uint64_t calm = run_cell(c, "no outage").took_ns, dark;

		c.dark_from_ns = 300000000;
		c.dark_ns = 50000000;
		dark = run_cell(c, "50 ms outage").took_ns;
		CU_ASSERT(dark < calm + 55000000);
		c.dark_ns = 2000000000;
		dark = run_cell(c, "2 s outage").took_ns;
		CU_ASSERT(dark < calm + 2000000000 + 2 * c.rtt_ns + 5000000);
	}
}

/* Another route costs the time that it is longer, where the contract knows the buffer (a larger step is no queue) and the protection (flight may grow while
 * acknowledgements are late). Without either: the bound on flight stops sending for as long again, and a drain has to fail first. */
static void route(void)
{
	static const uint64_t rtts[] = {10000000, 100000000}, steps[] = {1000000, 4000000, 10000000};

	for (int i = 0; i < 12; i++) {
		struct model_config c = {.cc = "lightpath", .rate = 125000000, .bottleneck = 125000000, .queue_bytes = 125000,
			.rtt_ns = rtts[i % 2], .chunks = 300000,
					 .dedicated = 1, .buffer_bytes = i < 6 ? 62500 : 0, .protection_ns = i < 6 ? 60000000 : 0};
		uint64_t calm = run_cell(c, "no step").took_ns;
		struct result r;

		c.step_from_ns = 500000000;
		c.step_ns = steps[i / 2 % 3];
		r = run_cell(c, i < 6 ? "RTT step, buffer known" : "RTT step, buffer not known");
		CU_ASSERT(r.took_ns < calm + c.step_ns + (i < 6 ? 1000000 : c.step_ns + 2 * c.rtt_ns));
		CU_ASSERT_STRING_EQUAL(r.state, "PINNED");
	}
}

/* The wave carries half of what the contract says: found within a few RTTs, most of the half is used, and little is thrown away. */
static void wrong_contract(void)
{
	static const uint64_t rtts[] = {1000000, 20000000, 100000000};

	for (int i = 0; i < 3; i++) {
		struct model_config c = {.cc = "lightpath", .rate = 125000000, .bottleneck = 62500000, .queue_bytes = 625000, .rtt_ns = rtts[i],
			.chunks = 400000,
					 .dedicated = 1};
		struct result r = run_cell(c, "contract twice too high");

		CU_ASSERT(r.took_ns < above(ideal_ns(&c, c.bottleneck), 1.15) + 4 * c.rtt_ns);
		CU_ASSERT(r.drops < 125000000 / 1e9 * 5 * (double)c.rtt_ns / MODEL_WIRE + 4000);
		CU_ASSERT(r.pace < 80000000);
	}
}

static void cubic(void)
{
	struct model_config c = {.cc = "cubic", .rate = 125000000, .bottleneck = 125000000, .queue_bytes = 2500000, .rtt_ns = 20000000,
		.chunks = 400000};
	struct result r = run_cell(c, "cubic"), lossy;

	CU_ASSERT(r.took_ns < above(ideal_ns(&c, c.bottleneck), 1.15));
	CU_ASSERT_STRING_EQUAL(r.state, "CUBIC");
	c.loss = 1e-3;
	c.chunks = 100000;
	lossy = run_cell(c, "cubic, loss 1e-3");
	CU_ASSERT(lossy.took_ns > 2 * ideal_ns(&c, c.bottleneck)); /* it does react */
}

static void unknown(void)
{
	/* the last is memory: many rounds between two measurements of the rate */
	static const uint64_t rates[] = {125000000, 1250000000, 1250000000, 7500000000, 12500000000};
	static const uint64_t rtts[] = {20000000, 100000000, 1000000, 60000, 6000};

	for (int i = 0; i < 10; i++) {
		struct model_config c = {.cc = "lightpath", .rate = rates[i % 5], .bottleneck = rates[i % 5], .rtt_ns = rtts[i % 5], .chunks = 400000,
					 .contract = UINT64_MAX, .loss = i / 5 * 1e-3};
		struct result r;

		c.queue_bytes = rates[i % 5] / 1000 * (rtts[i % 5] / 1000) / 1000 + 1000000;
		r = run_cell(c, i / 5 ? "no contract, loss 1e-3" : "no contract");
		CU_ASSERT(r.took_ns < above(ideal_ns(&c, c.bottleneck), i % 5 == 4 ? 1.25 : 1.12) + 16 * c.rtt_ns + 5000000);
		CU_ASSERT(r.lost_frames < 40000);
		CU_ASSERT_STRING_EQUAL(r.state, "UNKNOWN");
	}
}

/* What loss has taken off the bound on flight comes back and stays: no number of quiet rounds makes it small again. */
static void quiet_rounds(void)
{
	struct explore x = {0};
	struct tern_cc_out out;
	const struct tern_cc_init init = {.frame_bytes = 1460};
	struct tern_cc_ack ev = {.acked_bytes = 146000, .rtt_ns = 1000000, .delivery_bytes_per_s = 146000000,
		.flow = {.srtt_ns = 1000000, .min_rtt_ns = 1000000, .frame_bytes = 1460, .in_flight_bytes = 146000}};
	const struct tern_cc_loss loss = {.lost_bytes = 50 * 1460};
	uint64_t before = 0;

	explore_init(&x, &init, &out);
	for (int i = 0; i < 2000; i++) {
		ev.flow.delivered_bytes = ev.round_bytes = (uint64_t)i * 146000;
		if (i == 10)
			explore_on_loss(&x, &loss);
		explore_on_ack(&x, &ev, &out);
		CU_ASSERT(i <= 10 || out.window_bytes >= before);
		before = out.window_bytes;
		if (i == 10)
			CU_ASSERT(x.flight_cap < 146000);
	}
	CU_ASSERT(x.flight_cap > UINT64_MAX / 4);
}

static const struct unit_case cases[] = {
	{"by name", names}, {"pinned", pinned}, {"pinned on short paths", short_paths}, {"outages", outage}, {"another route", route},
		{"a wrong contract", wrong_contract},
	{"cubic", cubic}, {"no contract", unknown}, {"quiet rounds", quiet_rounds},
};

int main(void)
{
	setbuf(stdout, NULL);
	seed = unit_seed();
	return unit_main("cc", cases, sizeof(cases) / sizeof(cases[0]));
}
