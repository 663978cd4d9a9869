/* Contract files: every key, every unit, every refusal with its line and its words. */
#include <math.h>
#include <string.h>
#include <unistd.h>
#include "control/contract.h"
#include "control/units.h"
#include "tern/error.h"
#include "unit.h"

static struct contract c;
static struct control_error error;

static int parse(const char *text)
{
	error.text[0] = 0;
	return contract_parse(text, strlen(text), "wave.ini", &c, &error);
}

static const char full[] = "; the Hamburg wave\n"
                           "[contract]\n"
                           "circuit = DF-1234 Hamburg - Oslo\n"
                           "interface = eth1.7\n"
                           "rate_up = 10Gbit\n"
                           "rate_down = 2.5 Gbit/s\n"
                           "\trtt = 29.9ms ; as measured\n"
                           "layer = ethernet\n"
                           "share = 50%\n"
                           "dedicated = yes\n"
                           "buffer = 64KiB\n"
                           "mtu = 9000\r\n"
                           "dscp = af41\n"
                           "vlan = 7\n"
                           "policer_cir = 9Gbit\n"
                           "policer_cbs = 1.5MB\n"
                           "loss_ceiling = 1e-4\n"
                           "srlg = 12, 4294967295 ,3\n"
                           "# protection\n"
                           "protection = 1+1\n"
                           "protection_switch = 30ms\n"
                           "protection_rtt = 34ms\n"
                           "valid_from = 2026-01-01\n"
                           "valid_to = 2027-01-01T12:30Z";

static void test_full(void)
{
	CU_ASSERT_EQUAL_FATAL(parse(full), 0);
	CU_ASSERT_STRING_EQUAL(c.circuit, "DF-1234 Hamburg - Oslo");
	CU_ASSERT_STRING_EQUAL(c.interface, "eth1.7");
	CU_ASSERT_EQUAL(c.up_bytes_per_s, 1250000000);
	CU_ASSERT_EQUAL(c.down_bytes_per_s, 312500000);
	CU_ASSERT_EQUAL(c.rtt_ns, 29900000);
	CU_ASSERT_EQUAL(c.layer, CONTRACT_ETHERNET);
	CU_ASSERT(c.share == 0.5);
	CU_ASSERT(c.dedicated);
	CU_ASSERT_EQUAL(c.buffer_bytes, 65536);
	CU_ASSERT_EQUAL(c.mtu_bytes, 9000);
	CU_ASSERT_EQUAL(c.dscp, 34);
	CU_ASSERT_EQUAL(c.vlan, 7);
	CU_ASSERT_EQUAL(c.policer_cir_bytes_per_s, 1125000000);
	CU_ASSERT_EQUAL(c.policer_cbs_bytes, 1500000);
	CU_ASSERT(c.loss_ceiling == 1e-4);
	CU_ASSERT_EQUAL(c.srlgs, 3);
	CU_ASSERT_EQUAL(c.srlg[1], 4294967295u);
	CU_ASSERT_EQUAL(c.protection, CONTRACT_1PLUS1);
	CU_ASSERT_EQUAL(c.switch_ns, 30000000);
	CU_ASSERT_EQUAL(c.other_rtt_ns, 34000000);
	CU_ASSERT_EQUAL(c.valid_from_s, 1767225600);
	CU_ASSERT_EQUAL(c.valid_to_s, 1798806600);
	CU_ASSERT_EQUAL(contract_layer_bytes(&c, 28), 22);
	CU_ASSERT_EQUAL(contract_valid(&c, 1767225600, &error), 0);
	CU_ASSERT_EQUAL(contract_valid(&c, 1767225599, &error), -TERN_EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "not yet valid: valid_from is 2026-01-01T00:00Z"));
	CU_ASSERT_EQUAL(contract_valid(&c, 1798806600, &error), -TERN_EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "no longer valid: valid_to is 2027-01-01T12:30Z"));
}

static void test_defaults(void)
{
	CU_ASSERT_EQUAL_FATAL(parse("rate = 1Gbit"), 0);
	CU_ASSERT_EQUAL(c.up_bytes_per_s, 125000000);
	CU_ASSERT_EQUAL(c.down_bytes_per_s, 125000000);
	CU_ASSERT_EQUAL(c.rtt_ns, CONTRACT_NONE);
	CU_ASSERT_EQUAL(c.layer, CONTRACT_IP);
	CU_ASSERT(c.share == 1);
	CU_ASSERT(!c.dedicated);
	CU_ASSERT_EQUAL(c.buffer_bytes, CONTRACT_NONE);
	CU_ASSERT_EQUAL(c.mtu_bytes, 0);
	CU_ASSERT_EQUAL(c.dscp, -1);
	CU_ASSERT_EQUAL(c.vlan, -1);
	CU_ASSERT_EQUAL(c.policer_cir_bytes_per_s, CONTRACT_NONE);
	CU_ASSERT(c.loss_ceiling == 0);
	CU_ASSERT_EQUAL(c.srlgs, 0);
	CU_ASSERT_EQUAL(c.switch_ns, 0);
	CU_ASSERT_EQUAL(c.other_rtt_ns, CONTRACT_NONE);
	CU_ASSERT_EQUAL(contract_valid(&c, 0, &error), 0);
	CU_ASSERT_EQUAL_FATAL(parse("rate = 1Gbit\nprotection = restored\n"), 0);
	CU_ASSERT_EQUAL(c.switch_ns, 50000000);
}

static void test_words(void)
{
	static const struct {
		const char *text;
		int32_t dscp;
	} dscps[] = {{"ef", 46}, {"cs0", 0}, {"cs7", 56}, {"af11", 10}, {"af43", 38}, {"0", 0}, {"63", 63}};
	static const struct {
		const char *text;
		int32_t bytes;
	} layers[] = {{"ip", 0}, {"ethernet", 18}, {"line", 38}, {"payload", -28}, {"line\nvlan=1", 42}};
	static const char *const yes[] = {"yes", "true", "1"}, *const no[] = {"no", "false", "0"};
	char text[100];

	for (size_t i = 0; i < sizeof(dscps) / sizeof(dscps[0]); i++) {
		snprintf(text, sizeof(text), "rate=1Gbit\ndscp=%s", dscps[i].text);
		CU_ASSERT_EQUAL(parse(text), 0);
		CU_ASSERT_EQUAL(c.dscp, dscps[i].dscp);
	}
	for (size_t i = 0; i < sizeof(layers) / sizeof(layers[0]); i++) {
		snprintf(text, sizeof(text), "rate=1Gbit\nlayer=%s", layers[i].text);
		CU_ASSERT_EQUAL(parse(text), 0);
		CU_ASSERT_EQUAL(contract_layer_bytes(&c, 28), layers[i].bytes);
	}
	for (size_t i = 0; i < 3; i++) {
		snprintf(text, sizeof(text), "rate=1Gbit\ndedicated=%s", yes[i]);
		CU_ASSERT(parse(text) == 0 && c.dedicated);
		snprintf(text, sizeof(text), "rate=1Gbit\ndedicated=%s", no[i]);
		CU_ASSERT(parse(text) == 0 && !c.dedicated);
	}
}

/* The message is "wave.ini:LINE: " and holds each of the words. */
static void check_refused(const char *text, int line, const char *one, const char *two)
{
	char where[32];

	CU_ASSERT_EQUAL(parse(text), -TERN_EINVAL);
	snprintf(where, sizeof(where), "wave.ini:%d: ", line);
	if (strncmp(error.text, where, strlen(where)) != 0 || !strstr(error.text, one) || !strstr(error.text, two))
		printf("\n    wanted \"%s\" \"%s\" \"%s\"\n    got    \"%s\"", where, one, two, error.text);
	CU_ASSERT_EQUAL(strncmp(error.text, where, strlen(where)), 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.text, one));
	CU_ASSERT_PTR_NOT_NULL(strstr(error.text, two));
}

/* Values that a key does not take. */
static void test_values(void)
{
	static const struct {
		const char *key, *values[12];
	} bad[] = {
	    {"rate", {"0", "0Gbit", "-1Gbit", "10", "10 G", "101Tbit", "1e30Gbit", "fast", "nanGbit", "0x10Gbit", "1,5Gbit", ""}},
	    {"rate_up", {"0bit", "+1Gbit", "1.2.3Gbit", "1Gbitt"}},
	    {"rate_down", {"1Pbit", "Gbit", ".Gbit", "1 Gbit Gbit"}},
	    {"rtt", {"0ms", "-30ms", "30", "10.1s", "1h", "1e99s", "infs"}},
	    {"layer", {"IP", "tcp", "ethernet2"}},
	    {"share", {"0", "-0.5", "1.01", "101%", "nan", "half"}},
	    {"dedicated", {"maybe", "YES", "2"}},
	    {"buffer", {"0", "-1", "2000GiB", "64kiB", "1e400"}},
	    {"mtu", {"575", "65536", "1500.0", "-1", "1500B", "99999999999999999999"}},
	    {"dscp", {"64", "-1", "af44", "af51", "cs8", "EF", "4.0"}},
	    {"vlan", {"0", "4095", "-1", "x"}},
	    {"policer_cir", {"0", "1", "-1Gbit"}},
	    {"policer_cbs", {"0", "-1", "1Gbit"}},
	    {"loss_ceiling", {"0", "0.51", "-1e-4", "51%", "1e-4x"}},
	    {"srlg", {",", "1,", "1,,2", "1 2", "-1", "4294967296", "1,2,1", "a"}},
	    {"protection", {"2+1", "yes", "1+1x"}},
	    {"protection_switch", {"0ms", "11s", "50"}},
	    {"protection_rtt", {"0ms", "11s", "50"}},
	    {"circuit", {"\xc3\xa9t\xc3\xa9", "0123456789012345678901234567890123456789012345678901234567890123"}},
	    {"interface", {"0123456789012345", "a/b", "a b"}},
	    {"valid_from",
	     {"2026-13-01", "2026-02-29", "26-01-01", "2026-1-1", "2026-01-01T25:00Z", "2026-01-01T10:00", "2026-01-01x", "1969-12-31"}},
	    {"valid_to", {"today", "2026-01-01T10:60Z", "2026-01-32"}},
	};
	char text[256], shown[128];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		for (size_t j = 0; j < 12 && bad[i].values[j]; j++) {
			snprintf(text, sizeof(text), "# a comment\n[contract]\n%s = %s\n", bad[i].key, bad[i].values[j]);
			snprintf(shown, sizeof(shown), "%s = %.60s: not allowed; allowed: ", bad[i].key, bad[i].values[j]);
			check_refused(text, 3, shown, "allowed: ");
		}
}

static void test_structure(void)
{
	char text[600];

	check_refused("", 1, "without a rate", "rate = ");
	check_refused("rtt = 30ms\n# end\n", 2, "without a rate", "rate_up");
	check_refused("rate=1Gbit\nrtt=1ms\nrate=2Gbit\n", 3, "rate: said before in line 1", "once");
	check_refused("rate=1Gbit\nrate_up=1Gbit\nrate_down=1Gbit\n", 1, "rate stands beside", "");
	check_refused("rtt=1ms\nrate_up=1Gbit\n", 2, "come together", "rate_down");
	check_refused("rate=1Gbit\npolicer_cbs=1MB\n", 2, "come together", "policer_cir");
	check_refused("rate=1Gbit\nprotection_switch=50ms\n", 2, "nothing to switch to", "1+1");
	check_refused("rate=1Gbit\nprotection=none\nprotection_rtt=50ms\n", 3, "nothing to switch to", "1+1");
	check_refused("rate=1Gbit\nvalid_from=2026-01-02\nvalid_to=2026-01-02\n", 3, "later than", "");
	check_refused("rate=1Gbit\n[policer]\ncir=1\n", 2, "[policer]: unknown section", "[contract]");
	check_refused("rate=1Gbit\n[policer]\n", 2, "unknown section", "");
	check_refused("rate=1Gbit\nnonsense\nrtt=1\n", 2, "neither", "key = value");
	check_refused("rate=1Gbit\n[contract\nrtt=1ms\n", 2, "unknown section", "");
	check_refused("rate=1Gbit\n   rtt=oops\n", 2, "rtt = oops", "30ms"); /* not a continuation of the line before */
	check_refused("rate=1Gbit\nrtt=1\001ms\n", 2, "byte 1 is no text", "");
	CU_ASSERT_EQUAL(contract_parse("rate=1Gbit\0x\n", 13, "wave.ini", &c, &error), -TERN_EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "wave.ini:1: byte 0"));
	memset(text, 'a', sizeof(text));
	memcpy(text, "rate=1Gbit\n#", 12);
	text[599] = 0;
	check_refused(text, 2, "the line has 588 characters", "allowed");
}

static void test_nearest(void)
{
	check_refused("rate=1Gbit\nrrt=1ms\n", 2, "rrt: unknown key", "did you mean \"rtt\"");
	check_refused("Rate=1Gbit\n", 1, "unknown key", "\"rate\"");
	check_refused("rate-up=1Gbit\n", 1, "unknown key", "\"rate_up\"");
	check_refused("dedicate=yes\n", 1, "unknown key", "\"dedicated\"");
	check_refused("losses_ceiling=1\n", 1, "unknown key", "\"loss_ceiling\"");
	check_refused("something_else=1\n", 1, "unknown key", "docs/contract.md");
	check_refused("a_very_long_key_that_is_longer_than_every_key_there_could_be=1\n", 1, "unknown key", "docs/contract.md");
}

static void test_file(void)
{
	char path[] = "/tmp/tern-contract-XXXXXX", big[CONTRACT_FILE_MAX + 10];
	int fd = mkstemp(path);

	CU_ASSERT_FATAL(fd >= 0);
	CU_ASSERT_EQUAL(write(fd, full, strlen(full)), (ssize_t)strlen(full));
	CU_ASSERT_EQUAL(contract_read(path, &c, &error), 0);
	CU_ASSERT_EQUAL(c.vlan, 7);
	CU_ASSERT_EQUAL(ftruncate(fd, 0), 0);
	CU_ASSERT_EQUAL(contract_read(path, &c, &error), -TERN_EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.text, path));
	memset(big, '\n', sizeof(big));
	CU_ASSERT_EQUAL(pwrite(fd, big, sizeof(big), 0), (ssize_t)sizeof(big));
	CU_ASSERT_EQUAL(contract_read(path, &c, &error), -TERN_EIO);
	close(fd);
	unlink(path);
	CU_ASSERT_EQUAL(contract_read(path, &c, &error), -TERN_EIO);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "No such file"));
	CU_ASSERT_EQUAL(contract_read("/", &c, &error), -TERN_EIO);
}

static void test_units(void)
{
	static const struct {
		const char *text;
		uint64_t bytes_per_s;
	} rates[] = {{"8bit", 1},
	             {"100Gbit", 12500000000},
	             {"100Gb/s", 12500000000},
	             {"100Gbps", 12500000000},
	             {"1.25GB/s", 1250000000},
	             {"0.8 Tbit/s", 100000000000},
	             {"64kbit", 8000},
	             {"64Kbit", 8000},
	             {"10.3125Gbit", 1289062500},
	             {"1e3Mbit", 125000000},
	             {"5B/s", 5},
	             {"007Mbit", 875000}};
	uint64_t n;
	int64_t s;
	double r;

	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		CU_ASSERT(units_rate(rates[i].text, &n));
		CU_ASSERT_EQUAL(n, rates[i].bytes_per_s);
	}
	CU_ASSERT(units_time("1.5us", &n) && n == 1500);
	CU_ASSERT(units_time("0.3 s", &n) && n == 300000000);
	CU_ASSERT(units_bytes("1.5KiB", &n) && n == 1536);
	CU_ASSERT(units_bytes("3TiB", &n) && n == 3ull << 40);
	CU_ASSERT(units_ratio("0.01%", &r) && fabs(r - 1e-4) < 1e-18);
	CU_ASSERT(units_ratio(".5", &r) && r == 0.5);
	CU_ASSERT(units_whole("65535", 65535, &n) && n == 65535);
	CU_ASSERT(!units_whole("65536", 65535, &n));
	CU_ASSERT(units_date("1970-01-01", &s) && s == 0);
	CU_ASSERT(units_date("2024-02-29T23:59:59Z", &s) && s == 1709251199);
	CU_ASSERT(units_date("2000-03-01", &s) && s == 951868800);
	CU_ASSERT(!units_date("2100-02-29", &s));
	CU_ASSERT(!units_bytes("1234567890123456789", &n)); /* more digits than are exact */
	CU_ASSERT(!units_time("1e31s", &n));
}

static const struct unit_case cases[] = {
    {"every key", test_full},      {"defaults", test_defaults},   {"words", test_words}, {"values that are refused", test_values},
    {"structure", test_structure}, {"nearest key", test_nearest}, {"files", test_file},  {"units", test_units},
};
UNIT_MAIN("control_contract", cases)
