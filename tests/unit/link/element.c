/* One direction of a link: rate, delay, queue, losses, outages, steps, each against what arithmetic or the binomial law says. */
#include "unit.h"
#include <math.h>
#include <string.h>
#include "link/sim/element.h"
#include "tern/error.h"

#define MS 1000000ull
#define SEC 1000000000ull

static uint64_t seed;

static struct element fresh(const struct element_config *config)
{
	struct element e;

	CU_ASSERT_EQUAL_FATAL(element_init(&e, config, seed, 0), 0);
	return e;
}

static void test_check(void)
{
	static const struct element_config bad[] = {
	    {.delay_ns = 11 * SEC},
	    {.rate_bits_per_s = 10},
	    {.loss = 1.1},
	    {.loss = -0.1},
	    {.reorder = NAN},
	    {.p_good_to_bad = 0.1},
	    {.outages = 17},
	    {.outages = 1},
	    {.rate_steps = 1},
	    {.overhead_bytes = 5000},
	    {.queue_bytes = UINT64_MAX},
	    {.steps = 1, .step = {{0, 20 * SEC}}},
	};
	char error[200];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct element e;
		error[0] = 0;
		CU_ASSERT_EQUAL(element_config_check(&bad[i], error, sizeof(error)), -TERN_EINVAL);
		CU_ASSERT_TRUE(error[0] != 0);
		CU_ASSERT_EQUAL(element_init(&e, &bad[i], 1, 0), -TERN_EINVAL);
	}
	CU_ASSERT_EQUAL(element_config_check(&(struct element_config){0}, error, sizeof(error)), 0);
}

/* 20 million frames at a rate that divides nothing: the last one leaves at floor(total bits / rate), not a ns beside it. */
static void test_rate(void)
{
	const uint64_t rate = 99999999977ull, n = 20000000;
	struct element e = fresh(&(struct element_config){.rate_bits_per_s = rate, .overhead_bytes = 66, .delay_ns = 50 * MS});
	struct element_verdict v;
	uint64_t bytes = 0;

	for (uint64_t i = 0; i < n; i++) {
		uint32_t length = 64 + (uint32_t)(i * 7919 % 9000);
		element_push(&e, 0, length, &v);
		bytes += length + 66;
	}
	CU_ASSERT_EQUAL(v.copies, 1);
	CU_ASSERT_EQUAL(v.at_ns[0], (uint64_t)((unsigned __int128)bytes * 8 * SEC / rate) + 50 * MS);
	struct element_counters c;
	element_counters(&e, &c);
	CU_ASSERT_EQUAL(c.queue_peak_bytes, bytes);
	CU_ASSERT_EQUAL(c.passed_frames, n);
}

static void test_delay(void)
{
	struct element e = fresh(&(struct element_config){.delay_ns = 12345678});
	struct element_verdict v;

	element_push(&e, 1000, 1500, &v);
	CU_ASSERT_EQUAL(v.at_ns[0], 12346678);
	element_push(&e, 1000, 1500, &v);
	CU_ASSERT_EQUAL(v.at_ns[0], 12346678);
	CU_ASSERT_EQUAL(v.copies, 1);
}

/* Random load of 1.3 times the rate: never above the bound, marks exactly above theirs, everything is counted. */
static void test_queue(void)
{
	const struct element_config config = {.rate_bits_per_s = SEC, .queue_bytes = 30000, .ce_bytes = 15000};
	struct element e = fresh(&config);
	struct rng rng;
	uint64_t now = 0, peak = 0, passed = 0, dropped = 0, marks = 0;

	rng_init(&rng, seed);
	for (int i = 0; i < 300000; i++) {
		struct element_verdict v;
		uint32_t length = 100 + (uint32_t)rng_below(&rng, 1400);
		now += rng_below(&rng, 2 * 800 * 8 * 10 / 13);
		uint64_t before = element_queue_bytes(&e, now);
		element_push(&e, now, length, &v);
		uint64_t level = element_queue_bytes(&e, now);
		peak = level > peak ? level : peak;
		CU_ASSERT_FATAL(level <= config.queue_bytes);
		if (v.copies)
			CU_ASSERT_FATAL(v.ce == (before > config.ce_bytes) || before == config.ce_bytes);
		if (!v.copies)
			CU_ASSERT_FATAL(v.drop == ELEMENT_DROP_QUEUE && before + length >= config.queue_bytes);
		passed += v.copies;
		dropped += !v.copies;
		marks += v.ce;
	}
	struct element_counters c;
	element_counters(&e, &c);
	CU_ASSERT_EQUAL(c.queue_peak_bytes, peak);
	CU_ASSERT_EQUAL(c.ce_marks, marks);
	CU_ASSERT_EQUAL(c.drops[ELEMENT_DROP_QUEUE], dropped);
	CU_ASSERT_EQUAL(c.passed_frames, passed);
	CU_ASSERT_TRUE(dropped > 30000 && marks > 100000);
	CU_ASSERT_TRUE(peak > config.queue_bytes - 1500);
}

static void test_one_frame_always_fits(void)
{
	struct element e = fresh(&(struct element_config){.rate_bits_per_s = SEC, .queue_bytes = 1000});
	struct element_verdict v;

	element_push(&e, 0, 9000, &v);
	CU_ASSERT_EQUAL(v.copies, 1);
	element_push(&e, 0, 100, &v);
	CU_ASSERT_EQUAL(v.drop, ELEMENT_DROP_QUEUE);
}

static bool within(uint64_t count, uint64_t n, double p, double sigmas)
{
	double mean = (double)n * p;

	return fabs((double)count - mean) <= sigmas * sqrt(mean * (1 - p)) + 1;
}

static void test_loss(void)
{
	static const double p[] = {1e-5, 1e-3, 0.02, 0.5};
	const uint64_t n = 1000000;

	for (size_t k = 0; k < 4; k++) {
		struct element e = fresh(&(struct element_config){.loss = p[k], .duplicate = p[k], .reorder = p[k], .reorder_extra_ns = 5});
		struct element_verdict v;
		uint64_t copies = 0, late = 0;
		for (uint64_t i = 0; i < n; i++) {
			element_push(&e, i, 100, &v);
			copies += v.copies == 2;
			late += v.late && v.at_ns[0] == i + 5 && v.at_ns[1] == i;
		}
		uint64_t lost = e.counters.drops[ELEMENT_DROP_LOSS];
		CU_ASSERT_TRUE(within(lost, n, p[k], 4.5));
		CU_ASSERT_TRUE(within(copies, n - lost, p[k], 4.5));
		CU_ASSERT_TRUE(within(late, n - lost, p[k], 4.5));
	}
	struct element e = fresh(&(struct element_config){.loss = 1});
	struct element_verdict v;
	for (int i = 0; i < 1000; i++)
		element_push(&e, 0, 100, &v);
	CU_ASSERT_EQUAL(e.counters.drops[ELEMENT_DROP_LOSS], 1000);
}

/* Bursts are geometric with mean 1 / p_bad_to_good, and start with p_good_to_bad. */
static void test_bursts(void)
{
	struct element e = fresh(&(struct element_config){.p_good_to_bad = 1e-3, .p_bad_to_good = 1.0 / 64, .loss_bad = 1});
	const uint64_t n = 8000000;
	uint64_t bursts = 0, lost = 0;
	bool in = false;

	for (uint64_t i = 0; i < n; i++) {
		struct element_verdict v;
		element_push(&e, i, 100, &v);
		CU_ASSERT_FATAL(v.copies || v.drop == ELEMENT_DROP_BURST);
		bursts += !v.copies && !in;
		lost += !v.copies;
		in = !v.copies;
	}
	double mean = (double)lost / (double)bursts; /* deviation of a geometric law of mean 64: about 63.5 */
	CU_ASSERT_TRUE(fabs(mean - 64) < 4.5 * 63.5 / sqrt((double)bursts));
	CU_ASSERT_TRUE(within(bursts, n - lost, 1e-3, 4.5));
}

static void test_outage(void)
{
	struct element e = fresh(&(struct element_config){.delay_ns = MS, .outages = 2, .outage = {{50 * MS, 10 * MS}, {20 * MS, 5 * MS}}});

	for (uint64_t now = 0; now < 100 * MS; now += MS / 2) {
		struct element_verdict v;
		bool dark = (now >= 20 * MS && now < 25 * MS) || (now >= 50 * MS && now < 60 * MS);
		element_push(&e, now, 1500, &v);
		CU_ASSERT_EQUAL(v.copies, !dark);
		CU_ASSERT_EQUAL(v.drop, dark ? ELEMENT_DROP_OUTAGE : ELEMENT_PASSED);
	}
	CU_ASSERT_EQUAL(e.counters.drops[ELEMENT_DROP_OUTAGE], 30);
}

static void test_step(void)
{
	struct element_config config = {.delay_ns = 10 * MS, .steps = 2, .step = {{200 * MS, 6 * MS}, {100 * MS, 20 * MS}}};
	struct element e;

	CU_ASSERT_EQUAL(element_init(&e, &config, seed, 7 * SEC), 0); /* times count from the origin */
	for (uint64_t now = 0; now < 300 * MS; now += MS) {
		struct element_verdict v;
		element_push(&e, 7 * SEC + now, 1500, &v);
		CU_ASSERT_EQUAL(v.at_ns[0] - 7 * SEC - now, now < 100 * MS ? 10 * MS : now < 200 * MS ? 20 * MS : 6 * MS);
	}
}

/* The rate halves while 100 frames wait: those already begun keep their time, and the queue is still counted in bytes. */
static void test_rate_step(void)
{
	struct element e =
	    fresh(&(struct element_config){.rate_bits_per_s = SEC, .queue_bytes = 150000, .rate_steps = 1, .rate_step = {{600000, SEC / 2}}});
	struct element_verdict v;

	for (int i = 0; i < 100; i++)
		element_push(&e, 0, 1500, &v); /* 12 us each: 50 at the old rate, 50 at the new one */
	CU_ASSERT_EQUAL(v.at_ns[0], 50 * 12000 + 50 * 24000);
	CU_ASSERT_EQUAL(element_queue_bytes(&e, 0), 150000);
	CU_ASSERT_EQUAL(element_queue_bytes(&e, 600000), 75000);
	element_push(&e, 0, 1, &v);
	CU_ASSERT_EQUAL(v.drop, ELEMENT_DROP_QUEUE);
	element_push(&e, 12000, 1500, &v);
	CU_ASSERT_EQUAL(v.at_ns[0], 50 * 12000 + 51 * 24000);
	struct element_counters c;
	element_counters(&e, &c);
	CU_ASSERT_EQUAL(c.queue_peak_bytes, 150000);
}

static const struct unit_case cases[] = {
	{"configurations out of range are refused", test_check},
	{"rate is exact over 20 million frames", test_rate},
	{"delay is exact", test_delay},
	{"queue bound, CE marks, counters", test_queue},
	{"an idle line takes any frame", test_one_frame_always_fits},
	{"loss, duplicates, reordering by the binomial law", test_loss},
	{"burst lengths by the geometric law", test_bursts},
	{"outages", test_outage},
	{"delay steps", test_step},
	{"rate step under a queue", test_rate_step},
};

int main(void)
{
	setbuf(stdout, NULL);
	seed = unit_seed();
	return unit_main("link/sim/element", cases, sizeof(cases) / sizeof(cases[0]));
}
