/* Files that describe a link: what they mean, and that each mistake is named with its line and a remedy. */
#include "unit.h"
#include <string.h>
#include <unistd.h>
#include "link/emu/config.h"
#include "tern/error.h"

static void test_values(void)
{
	const char *remedy;
	uint64_t v;
	double p;

	CU_ASSERT_TRUE(!emu_parse_time("1.5ms", &v, &remedy) && v == 1500000);
	CU_ASSERT_TRUE(!emu_parse_time("0", &v, &remedy) && v == 0);
	CU_ASSERT_TRUE(!emu_parse_time("250us", &v, &remedy) && v == 250000);
	CU_ASSERT_TRUE(!emu_parse_rate("99.999999977gbit", &v, &remedy) && v == 99999999977ull);
	CU_ASSERT_TRUE(!emu_parse_rate("400Gbit", &v, &remedy) && v == 400000000000ull);
	CU_ASSERT_TRUE(!emu_parse_size("1.5kib", &v, &remedy) && v == 1536);
	CU_ASSERT_TRUE(!emu_parse_probability("0.1%", &p, &remedy) && p > 0.00099999 && p < 0.00100001);
	CU_ASSERT_TRUE(!emu_parse_probability("1e-5", &p, &remedy) && p == 1e-5);
	CU_ASSERT_TRUE(!emu_parse_probability("100%", &p, &remedy) && p == 1);
	static const char *const bad_times[] = {"",     "5",   "-1ms", "1 ms", "ms", "1.5ns", "1e3ms", "99999999999999999999s", "18446744074s",
	                                        "1mss", "+1s", "1..5s"};
	for (size_t i = 0; i < sizeof(bad_times) / sizeof(bad_times[0]); i++)
		CU_ASSERT_EQUAL(emu_parse_time(bad_times[i], &v, &remedy), -TERN_EINVAL);
	static const char *const bad_p[] = {"", "1", "5", "-0.1", "nan", "inf", "0x1p-3", "101%", "0.1%%", "1e999%", "%"};
	for (size_t i = 0; i < sizeof(bad_p) / sizeof(bad_p[0]); i++)
		CU_ASSERT_EQUAL(emu_parse_probability(bad_p[i], &p, &remedy), -TERN_EINVAL);
	CU_ASSERT_EQUAL(emu_parse_rate("10", &v, &remedy), -TERN_EINVAL);
	CU_ASSERT_EQUAL(emu_parse_rate("10gb", &v, &remedy), -TERN_EINVAL);
	CU_ASSERT_EQUAL(emu_parse_size("10kb", &v, &remedy), -TERN_EINVAL);
}

static const char whole[] =
    "# Frankfurt - Singapore\n[link]\ndelay = 80ms\nrate = 10gbit 66b ; on the line\nlimit = 4mib\necn = 1mib\nloss = 0.001%\n"
    "outage = 10s 50ms\n  20s 60ms\nstep = 30s 84ms\nseed = 7\n[reverse]\nrate = 1gbit\ngemodel = 0.01% 2% 90%\nreorder = 1% 2ms\n"
    "duplicate = 0.5%\nrate_step = 5s 500mbit\n";

static void test_whole(void)
{
	struct emu_config c;
	char error[300] = "";

	CU_ASSERT_EQUAL(emu_config_parse(whole, "x.ini", &c, error, sizeof(error)), 0);
	CU_ASSERT_STRING_EQUAL(error, "");
	CU_ASSERT_EQUAL(c.forward.delay_ns, 80000000);
	CU_ASSERT_EQUAL(c.reverse.delay_ns, 80000000);
	CU_ASSERT_EQUAL(c.forward.rate_bits_per_s, 10000000000);
	CU_ASSERT_EQUAL(c.reverse.rate_bits_per_s, 1000000000);
	CU_ASSERT_TRUE(c.forward.overhead_bytes == 66 && c.reverse.overhead_bytes == 66);
	CU_ASSERT_TRUE(c.forward.queue_bytes == 4 << 20 && c.forward.ce_bytes == 1 << 20);
	CU_ASSERT_TRUE(c.forward.loss > 0.9e-5 && c.forward.loss < 1.1e-5);
	CU_ASSERT_TRUE(c.forward.outages == 2 && c.forward.outage[1].start_ns == 20000000000 && c.forward.outage[1].length_ns == 60000000);
	CU_ASSERT_TRUE(c.forward.steps == 1 && c.forward.step[0].at_ns == 30000000000 && c.forward.step[0].value == 84000000);
	CU_ASSERT_TRUE(c.forward.seed == 7 && c.forward.p_good_to_bad == 0 && c.forward.rate_steps == 0);
	CU_ASSERT_TRUE(c.reverse.p_bad_to_good > 0.0199 && c.reverse.loss_bad > 0.899 && c.reverse.loss_bad < 0.901 && c.reverse.loss_good == 0);
	CU_ASSERT_TRUE(c.reverse.reorder_extra_ns == 2000000 && c.reverse.rate_step[0].value == 500000000);
}

static void test_errors(void)
{
	static const struct {
		const char *text, *where, *remedy;
	} bad[] = {
		{"[link]\ndelay = 5 parsecs\n", "x.ini:2: delay = 5 parsecs", "delay = 15ms"},
		{"[link]\n\n# c\ndelay = 5parsecs\n", "x.ini:4: delay = 5parsecs", "ns, us, ms or s"},
		{"[link]\ndelay = 11s\n", "x.ini:2: delay = 11s", "at most 10s"},
		{"[link]\ndelay = -1ms\n", "x.ini:2: delay = -1ms", "for example 15ms"},
		{"[link]\nrate = 0bit\n", "x.ini:2: rate = 0bit", "1kbit"},
		{"[link]\nrate = 1gbit 2kib\n", "x.ini:2: rate", "1024b"},
		{"[link]\nloss = 5\n", "x.ini:2: loss = 5", "0.1%"},
		{"[link]\nlos = 5%\n", "x.ini:2: los = 5%", "loss"},
		{"[wire]\nloss = 5%\n", "x.ini:2: loss = 5%", "[forward]"},
		{"loss = 5%\n", "x.ini:1: loss = 5%", "[link]"},
		{"[link]\nloss 5%\n", "x.ini:2: ", "key = value"},
		{"[link]\ngemodel = 1%\n", "x.ini:2: gemodel", "into and out of a burst"},
		{"[link]\ngemodel = 1% 0%\n", "x.ini:2: gemodel", "leave"},
		{"[link]\noutage = 1s\n", "x.ini:2: outage", "10s 50ms"},
		{"[link]\noutage = 1s 0\n", "x.ini:2: outage", "lasts more than nothing"},
		{"[link]\nseed = x\n", "x.ini:2: seed = x", "whole number"},
		{"[link]\ndelay =\n", "x.ini:2: delay", "delay = 15ms"},
	};
	struct emu_config c;
	char error[300], longline[600];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		error[0] = 0;
		CU_ASSERT_EQUAL(emu_config_parse(bad[i].text, "x.ini", &c, error, sizeof(error)), -TERN_EINVAL);
		if (strncmp(error, bad[i].where, strlen(bad[i].where)) || !strstr(error, bad[i].remedy))
			printf("\n    %s", error);
		CU_ASSERT_TRUE(!strncmp(error, bad[i].where, strlen(bad[i].where)));
		CU_ASSERT_PTR_NOT_NULL(strstr(error, bad[i].remedy));
	}
	int n = snprintf(longline, sizeof(longline), "[link]\n#%0500d\ndelay = 1ms\n", 0);
	CU_ASSERT_TRUE(n > 500);
	CU_ASSERT_EQUAL(emu_config_parse(longline, "x.ini", &c, error, sizeof(error)), -TERN_EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "x.ini:2: the line is longer"));
}

static void test_many(void)
{
	char text[1000] = "[link]\n", error[300];
	struct emu_config c;

	for (int i = 0; i < 16; i++)
		strcat(text, "outage = 1s 1ms\n");
	CU_ASSERT_EQUAL(emu_config_parse(text, "x.ini", &c, error, sizeof(error)), 0);
	strcat(text, "outage = 1s 1ms\n");
	CU_ASSERT_EQUAL(emu_config_parse(text, "x.ini", &c, error, sizeof(error)), -TERN_EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "x.ini:18: outage"));
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "at most 16"));
}

static void test_file(void)
{
	char name[] = "/tmp/tern-emu-XXXXXX", error[300] = "";
	struct emu_config c, d;
	int fd = mkstemp(name);

	CU_ASSERT_TRUE_FATAL(fd >= 0);
	CU_ASSERT_EQUAL(write(fd, whole, sizeof(whole) - 1), (ssize_t)sizeof(whole) - 1);
	close(fd);
	CU_ASSERT_EQUAL(emu_config_load(name, &c, error, sizeof(error)), 0);
	CU_ASSERT_EQUAL(emu_config_parse(whole, "x", &d, error, sizeof(error)), 0);
	CU_ASSERT_EQUAL(memcmp(&c, &d, sizeof(c)), 0);
	unlink(name);
	CU_ASSERT_EQUAL(emu_config_load(name, &c, error, sizeof(error)), -TERN_EIO);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, name));
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "No such file"));
}

static const struct unit_case cases[] = {
	{"values", test_values},
	{"a whole file", test_whole},
	{"errors name file, line, key, value, remedy", test_errors},
	{"at most 16 outages", test_many},
	{"from a file", test_file},
};
UNIT_MAIN("link/emu/config", cases)
