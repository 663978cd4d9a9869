/* Tests of apps/lib/units.c and progress.c: text a person reads, numbers a person writes. */
#include <string.h>
#include "progress.h"
#include "unit/unit.h"
#include "units.h"

static void test_write(void)
{
	char t[UNITS_TEXT_MAX];
	CU_ASSERT_STRING_EQUAL(units_bytes(t, sizeof(t), 0), "0 B");
	CU_ASSERT_STRING_EQUAL(units_bytes(t, sizeof(t), 999), "999 B");
	CU_ASSERT_STRING_EQUAL(units_bytes(t, sizeof(t), 999600), "1.00 MB");
	CU_ASSERT_STRING_EQUAL(units_bytes(t, sizeof(t), 1234567890), "1.23 GB");
	CU_ASSERT_STRING_EQUAL(units_rate(t, sizeof(t), 123125000), "985 Mb/s (123 MB/s)");
	CU_ASSERT_STRING_EQUAL(units_time(t, sizeof(t), 15000000), "15 ms");
	CU_ASSERT_STRING_EQUAL(units_time(t, sizeof(t), UINT64_C(125000000000)), "2m 05s");
	CU_ASSERT_STRING_EQUAL(units_time(t, sizeof(t), UINT64_C(3720000000000)), "1h 02m");
}

static void test_parse(void)
{
	uint64_t v = 0;
	CU_ASSERT(!units_parse_bytes("256MiB", &v) && v == 256 << 20);
	CU_ASSERT(!units_parse_bytes("1.5 GB", &v) && v == 1500000000);
	CU_ASSERT(!units_parse_bytes("4096", &v) && v == 4096);
	CU_ASSERT(!units_parse_rate("1Gb/s", &v) && v == 125000000);
	CU_ASSERT(!units_parse_rate("10 MB/s", &v) && v == 10000000);
	CU_ASSERT(!units_parse_time("15ms", &v) && v == 15000000);
	CU_ASSERT(!units_parse_time("2 min", &v) && v == UINT64_C(120000000000));
	static const char *const wrong[] = {"", "-1", "x", "5parsecs", "1e40", "nan", "inf", " 1", "1 2"};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		CU_ASSERT_EQUAL(units_parse_bytes(wrong[i], &v), -1);
		CU_ASSERT_EQUAL(units_parse_time(wrong[i], &v), -1);
	}
}

static unsigned columns(const char *text)
{
	unsigned n = 0;
	for (; *text; text++)
		n += (*text & 0xc0) != 0x80;
	return n;
}

static void test_line(void)
{
	char line[PROGRESS_LINE_MAX];
	struct progress p;
	progress_open(&p, stderr, 1000000000, 0);
	p.terminal = false;
	p.plain_ns = UINT64_MAX;
	p.limit_bytes_per_s = 125000000;
	for (unsigned i = 1; i <= 20; i++)
		progress_step(&p, "a", UINT64_C(25000000) * i, UINT64_C(250000000) * i); /* 100 MB/s */
	CU_ASSERT_EQUAL(progress_rate(&p), 100000000);
	progress_line(&p, "model.safetensors", 500000000, 120, line);
	CU_ASSERT_PTR_NOT_NULL(strstr(line, " 50% 500 MB  800 Mb/s (100 MB/s)  80% of contract  5.00 s left"));
	CU_ASSERT_PTR_NOT_NULL(strstr(line, "[####"));
	progress_line(&p, "model.safetensors", 500000000, 79, line);
	CU_ASSERT_PTR_NOT_NULL(strstr(line, "[#####.....]   50% 500 MB  800 Mb/s  80% of contract  5.00 s left"));
	for (unsigned width = 1; width < 250; width++)
		CU_ASSERT(columns(progress_line(&p, "b\303\244r/with\033a/very/long/name/that/is/cut/from/the/left.bin", 500000000, width, line)) <=
		          width);
	CU_ASSERT_PTR_NULL(strchr(line, '\033'));
	CU_ASSERT_PTR_NOT_NULL(strstr(line, "left.bin"));
}

static void test_printable(void)
{
	char text[] = "a\033[2Jb\r\n\tc\177 b\303\244r";
	CU_ASSERT_STRING_EQUAL(units_printable(text), "a?[2Jb???c? b\303\244r");
}

static const struct unit_case cases[] = {{"printable", test_printable}, {"write", test_write}, {"parse", test_parse}, {"line", test_line}};
UNIT_MAIN("units", cases)
