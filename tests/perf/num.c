/* perf/lib/num.c: what people write as sizes, counts and times, and what must be refused. */
#include <string.h>
#include "perf/lib/num.h"
#include "unit/unit.h"

static void test_bytes(void)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {{"0", 0}, {"64", 64}, {"64K", 65536}, {"8M", 8 << 20}, {"1G", 1 << 30}, {"2kb", 2048}, {"2KiB", 2048}, {"7b", 7}};
	static const char *const bad[] = {"", "-1", "K", "1T", "64KK", "1.5M", " 64", "64 K", "7bb", "99999999999999999999", "18446744073709551615G"};
	uint64_t bytes;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		CU_ASSERT_EQUAL(num_bytes(good[i].text, &bytes), 0);
		CU_ASSERT_EQUAL(bytes, good[i].bytes);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CU_ASSERT_EQUAL(num_bytes(bad[i], &bytes), -1);
}

static void test_count(void)
{
	uint64_t n = 0;

	CU_ASSERT_EQUAL(num_count("10", 1, 10, &n), 0);
	CU_ASSERT_EQUAL(n, 10);
	CU_ASSERT_EQUAL(num_count("11", 1, 10, &n), -1);
	CU_ASSERT_EQUAL(num_count("0", 1, 10, &n), -1);
	CU_ASSERT_EQUAL(num_count("-5", 0, UINT64_MAX, &n), -1);
	CU_ASSERT_EQUAL(num_count("5x", 0, UINT64_MAX, &n), -1);
}

static void test_time(void)
{
	uint64_t ns = 0;

	CU_ASSERT_EQUAL(num_time("10", &ns), 0);
	CU_ASSERT_EQUAL(ns, 10000000000u);
	CU_ASSERT_EQUAL(num_time("500ms", &ns), 0);
	CU_ASSERT_EQUAL(ns, 500000000u);
	CU_ASSERT_EQUAL(num_time("2m", &ns), 0);
	CU_ASSERT_EQUAL(ns, 120000000000u);
	CU_ASSERT_EQUAL(num_time("0", &ns), -1);
	CU_ASSERT_EQUAL(num_time("1h", &ns), -1);
	CU_ASSERT_EQUAL(num_time("-1s", &ns), -1);
	CU_ASSERT_EQUAL(num_time("inf", &ns), -1);
}

static void test_hex(void)
{
	uint8_t data[64], back[64];
	char text[2 * sizeof(data) + 1];
	size_t bytes;
	uint64_t seed = unit_seed();

	for (size_t n = 0; n <= sizeof(data); n++) {
		for (size_t i = 0; i < n; i++)
			data[i] = (uint8_t)((seed = seed * 6364136223846793005u + 1442695040888963407u) >> 56);
		num_to_hex(data, n, text);
		bytes = sizeof(back);
		CU_ASSERT_EQUAL(num_from_hex(text, back, &bytes), 0);
		CU_ASSERT_EQUAL(bytes, n);
		CU_ASSERT_EQUAL(memcmp(data, back, n), 0);
	}
	bytes = 1;
	CU_ASSERT_EQUAL(num_from_hex("0102", back, &bytes), -1);
	CU_ASSERT_EQUAL(num_from_hex("012", back, &bytes), -1);
	CU_ASSERT_EQUAL(num_from_hex("0g", back, &bytes), -1);
}

static const struct unit_case cases[] = {{"bytes", test_bytes}, {"count", test_count}, {"time", test_time}, {"hex", test_hex}};
UNIT_MAIN("perf/num", cases)
