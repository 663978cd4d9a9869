/* perf/lib/sample.c: the summary against definitions worked out here, and what a run longer than the memory keeps. */
#include <math.h>
#include <string.h>
#include "perf/lib/sample.h"
#include "unit/unit.h"

static void test_hundred(void)
{
	struct samples s;
	struct sample_summary sum;

	CU_ASSERT_EQUAL(samples_open(&s, 1000), 0);
	for (uint64_t i = 1000; i >= 1; i--) /* 1 to 1000 us, backwards */
		samples_add(&s, i * 1000);
	samples_summarize(&s, &sum);
	CU_ASSERT_EQUAL(sum.n, 1000);
	CU_ASSERT_DOUBLE_EQUAL(sum.min_us, 1, 1e-9);
	CU_ASSERT_DOUBLE_EQUAL(sum.max_us, 1000, 1e-9);
	CU_ASSERT_DOUBLE_EQUAL(sum.typical_us, 500, 1e-9);
	CU_ASSERT_DOUBLE_EQUAL(sum.avg_us, 500.5, 1e-9);
	CU_ASSERT_DOUBLE_EQUAL(sum.stdev_us, sqrt(1000.0 * 1001 / 12), 1e-6);
	CU_ASSERT_DOUBLE_EQUAL(sum.p99_us, 990, 1e-9);
	CU_ASSERT_DOUBLE_EQUAL(sum.p999_us, 999, 1e-9);
	samples_close(&s);
}

static void test_few(void)
{
	struct samples s;
	struct sample_summary sum;

	CU_ASSERT_EQUAL(samples_open(&s, 1), 0);
	samples_summarize(&s, &sum);
	CU_ASSERT_EQUAL(sum.n, 0);
	samples_add(&s, 7000);
	samples_summarize(&s, &sum);
	CU_ASSERT_EQUAL(sum.n, 1);
	CU_ASSERT_DOUBLE_EQUAL(sum.typical_us, 7, 1e-9);
	CU_ASSERT_DOUBLE_EQUAL(sum.p999_us, 7, 1e-9);
	CU_ASSERT_DOUBLE_EQUAL(sum.stdev_us, 0, 1e-9);
	samples_close(&s);
}

/* Far more samples than room: extremes and count stay exact, the median near. */
static void test_thinned(void)
{
	struct samples s;
	struct sample_summary sum;
	enum { N = SAMPLES_MIN * 37 };

	CU_ASSERT_EQUAL(samples_open(&s, SAMPLES_MIN), 0);
	for (uint64_t i = 0; i < N; i++)
		samples_add(&s, i == 12345 ? 3 : i == 20001 ? 900000000 : 1000 + i % 1000);
	CU_ASSERT_TRUE(s.n <= s.room);
	samples_summarize(&s, &sum);
	CU_ASSERT_EQUAL(sum.n, N);
	CU_ASSERT_DOUBLE_EQUAL(sum.min_us, 0.003, 1e-9);
	CU_ASSERT_DOUBLE_EQUAL(sum.max_us, 900000, 1e-9);
	CU_ASSERT_DOUBLE_EQUAL(sum.typical_us, 1.5, 0.05);
	samples_close(&s);
}

/* Every sample is in one bucket, within its bounds, and the shares end at 100 %. */
static void test_histogram(void)
{
	struct samples s;
	struct sample_summary sum;
	char line[256];
	double from, to, share = 0, before = 0;
	unsigned long long count, total = 0;
	FILE *f = tmpfile();

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	CU_ASSERT_EQUAL(samples_open(&s, 0), 0);
	for (uint64_t ns = 1; ns < 1u << 20; ns = ns * 5 / 4 + 1)
		samples_add(&s, ns);
	samples_summarize(&s, &sum);
	samples_histogram(&s, f);
	rewind(f);
	CU_ASSERT_PTR_NOT_NULL(fgets(line, sizeof(line), f));
	while (fgets(line, sizeof(line), f)) {
		CU_ASSERT_EQUAL(sscanf(line, "%lf %lf %llu %lf", &from, &to, &count, &share), 4);
		CU_ASSERT_TRUE(from >= before - 1e-9 && to > from);
		unsigned long long within = 0;
		for (size_t i = 0; i < s.n; i++)
			within += (double)s.ns[i] / 1000 >= from - 1e-9 && (double)s.ns[i] / 1000 < to - 1e-9;
		CU_ASSERT_EQUAL(within, count);
		before = to;
		total += count;
	}
	CU_ASSERT_EQUAL(total, s.n);
	CU_ASSERT_DOUBLE_EQUAL(share, 100, 1e-3);
	fclose(f);
	samples_close(&s);
}

static const struct unit_case cases[] = {{"hundred", test_hundred}, {"few", test_few}, {"thinned", test_thinned}, {"histogram", test_histogram}};
UNIT_MAIN("perf/sample", cases)
