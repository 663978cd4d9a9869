/* Text addresses: what is accepted, what is refused, and that a blob says the same as its text. */
#include <string.h>
#include "api/context.h"
#include "base/err.h"
#include "rand.h"
#include "unit.h"

static void accepted(void)
{
	struct api_address a;
	CU_ASSERT_EQUAL(api_address_parse("udp://site-b.example:7400", &a), 0);
	CU_ASSERT_STRING_EQUAL(a.scheme, "udp");
	CU_ASSERT_STRING_EQUAL(a.host, "site-b.example");
	CU_ASSERT_EQUAL(a.port, 7400);
	CU_ASSERT_FALSE(a.is_private);
	CU_ASSERT_EQUAL(api_address_parse("tern://10.0.0.1:0", &a), 0);
	CU_ASSERT_STRING_EQUAL(a.scheme, "udp");
	CU_ASSERT_EQUAL(api_address_parse("udp://[fe80::1%eth0]:65535?private=1&mtu=9000&cc=cubic&emu=/a/b.ini&contract=/c.ini&engine=plain", &a), 0);
	CU_ASSERT_STRING_EQUAL(a.host, "fe80::1%eth0");
	CU_ASSERT_EQUAL(a.port, 65535);
	CU_ASSERT_TRUE(a.is_private);
	CU_ASSERT_EQUAL(a.mtu_bytes, 9000);
	CU_ASSERT_STRING_EQUAL(a.cc, "cubic");
	CU_ASSERT_STRING_EQUAL(a.emu, "/a/b.ini");
	CU_ASSERT_STRING_EQUAL(a.contract, "/c.ini");
	CU_ASSERT_STRING_EQUAL(a.options, "engine=plain");
	CU_ASSERT_EQUAL(api_address_parse("udp://:7400?private=0", &a), 0);
	CU_ASSERT_STRING_EQUAL(a.host, "");
	CU_ASSERT_FALSE(a.is_private);
	CU_ASSERT_EQUAL(api_address_parse("udp://h:1?", &a), 0);
}

static void refused(void)
{
	static const struct { const char *text; int err;
	} bad[] = {
	        {NULL, TERN_EADDR},
	        {"", TERN_EADDR},
	        {"://h:1", TERN_EADDR},
	        {"h:1", TERN_EADDR},
	        {"udp:/h:1", TERN_EADDR},
	        {"udp://h", TERN_EADDR},
	        {"udp://h:", TERN_EADDR},
	        {"udp://h:x", TERN_EADDR},
	        {"udp://h:1x", TERN_EADDR},
	        {"udp://h: 1", TERN_EADDR},
	        {"udp://h:+1", TERN_EADDR},
	        {"udp://h:-1", TERN_EADDR},
	        {"udp://h:65536", TERN_EADDR},
	        {"udp://h:99999999999999999999999", TERN_EADDR},
	        {"udp://a:b:1", TERN_EADDR},
	        {"udp://[::1", TERN_EADDR},
	        {"udp://[::1]", TERN_EADDR},
	        {"udp://[::1]1", TERN_EADDR},
	        {"udp://[::1]:", TERN_EADDR},
	        {"schemelongerthan15://h:1", TERN_EADDR},
	        {"udp://h:1?private", TERN_EINVAL},
	        {"udp://h:1?private=yes", TERN_EINVAL},
	        {"udp://h:1?private=", TERN_EINVAL},
	        {"udp://h:1?mtu=1279", TERN_EINVAL},
	        {"udp://h:1?mtu=65536", TERN_EINVAL},
	        {"udp://h:1?mtu= 1500", TERN_EINVAL},
	        {"udp://h:1?mtu=1500b", TERN_EINVAL},
	        {"udp://h:1?cc=", TERN_EINVAL},
	        {"udp://h:1?emu=", TERN_EINVAL},
	        {"udp://h:1?Private=1", TERN_EINVAL},
	        {"udp://h:1?=1", TERN_EINVAL},
	        {"udp://h:1?private=1&x=2", TERN_EINVAL},
	};
	struct api_address a;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int err = api_address_parse(bad[i].text, &a);
		if (err != -bad[i].err)
			printf("\n    \"%s\" gives %d", bad[i].text ? bad[i].text : "NULL", err);
		CU_ASSERT_EQUAL(err, -bad[i].err);
		CU_ASSERT_TRUE(strlen(err_text()) > 10);
	}
	/* names as long as they may be, and one longer */
	char text[CONTROL_PATH_MAX + 100], host[CONTROL_HOST_MAX + 1];
	memset(host, 'h', sizeof(host));
	host[CONTROL_HOST_MAX - 1] = 0;
	snprintf(text, sizeof(text), "udp://%s:1", host);
	CU_ASSERT_EQUAL(api_address_parse(text, &a), 0);
	host[CONTROL_HOST_MAX - 1] = 'h';
	host[CONTROL_HOST_MAX] = 0;
	snprintf(text, sizeof(text), "udp://%s:1", host);
	CU_ASSERT_EQUAL(api_address_parse(text, &a), -TERN_EADDR);
	memset(text, 'a', sizeof(text));
	text[sizeof(text) - 1] = 0;
	CU_ASSERT_EQUAL(api_address_parse(text, &a), -TERN_EADDR);
}

static void blobs(void)
{
	static const char *const texts[] = {"udp://h:1", "udp://[::1]:7400?private=1", "udp://h:1?private=1&emu=/e&cc=fixed&contract=/c&mtu=1500",
	        "udp://:0", "udp://h:1?engine=plain", "udp://h:1?mtu=1500&engine=plain", "dpdk://10.0.0.1:7400?ctl=127.0.0.1",
	        "rdma://10.0.0.1:7400?private=1&mode=uc&lanes=2", "dpdk://10.0.0.1:7400?ctl=a.b:0"};
	struct api_address a, b;
	uint8_t blob[TERN_ADDR_MAX];
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		size_t bytes = sizeof(blob);
		CU_ASSERT_EQUAL_FATAL(api_address_parse(texts[i], &a), 0);
		CU_ASSERT_EQUAL_FATAL(api_address_write_own(&a, blob, &bytes), 0);
		CU_ASSERT_EQUAL_FATAL(api_address_read(blob, bytes, &b), 0);
		CU_ASSERT_EQUAL(memcmp(&a, &b, sizeof(a)), 0);
		/* every room too small is refused, and nothing behind it is touched */
		for (size_t room = 0; room < bytes; room++) {
			size_t n = room;
			uint8_t small[TERN_ADDR_MAX + 1];
			memset(small, 0xee, sizeof(small));
			CU_ASSERT_EQUAL(api_address_write_own(&a, small, &n), -TERN_EINVAL);
			CU_ASSERT_EQUAL(small[room], 0xee);
		}
	}
	CU_ASSERT_EQUAL(api_address_parse("dpdk://10.0.0.1:7400?ctl=[fd00::1]:7401&dev=net_ring0,a=b", &a), 0);
	CU_ASSERT_STRING_EQUAL(a.ctl, "fd00::1");
	CU_ASSERT_EQUAL(a.ctl_port, 7401);
	CU_ASSERT_STRING_EQUAL(a.options, "dev=net_ring0,a=b");
	static const char *const bad[] = {"ctl=", "ctl=:1", "ctl=[::1", "ctl=[::1]x", "ctl=h:65536", "ctl=h:x", "ctl=[]:1"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char wrong[64];
		snprintf(wrong, sizeof(wrong), "dpdk://10.0.0.1:7400?%s", bad[i]);
		CU_ASSERT_EQUAL(api_address_parse(wrong, &a), -TERN_EINVAL);
	}
	/* a stranger's blob must not choose devices or drivers here */
	static const char *const local[] = {"dpdk://10.0.0.1:7400?dev=net_pcap0,tx_pcap=/tmp/x", "dpdk://10.0.0.1:7400?eal=-d,/tmp/x.so",
	        "rdma://10.0.0.1:7400?dev=rxe0", "dpdk://10.0.0.1:7400?mode=uc&if=eth0"};
	for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++) {
		size_t n = sizeof(blob);
		CU_ASSERT_EQUAL_FATAL(api_address_parse(local[i], &a), 0);
		CU_ASSERT_EQUAL_FATAL(api_address_write_own(&a, blob, &n), 0);
		CU_ASSERT_EQUAL(api_address_read(blob, n, &b), -TERN_EINVAL);
	}
	/* for others: the engine is a choice of this machine */
	size_t room = sizeof(blob);
	CU_ASSERT_EQUAL(api_address_parse("udp://h:1?cc=fixed&engine=plain", &a), 0);
	CU_ASSERT_EQUAL(api_address_write(&a, blob, &room), 0);
	CU_ASSERT_EQUAL(api_address_read(blob, room, &b), 0);
	CU_ASSERT_STRING_EQUAL(b.options, "");
	CU_ASSERT_STRING_EQUAL(b.cc, "fixed");
	CU_ASSERT_STRING_EQUAL(a.options, "engine=plain");
	/* one that cannot fit into any */
	char text[300];
	size_t bytes = sizeof(blob);
	snprintf(text, sizeof(text), "udp://h:1?emu=/%0150d", 7);
	CU_ASSERT_EQUAL(api_address_parse(text, &a), 0);
	CU_ASSERT_EQUAL(api_address_write_own(&a, blob, &bytes), -TERN_EADDR);
}

/* Damaged blobs: an error or an address, never anything else (the sanitizers watch). */
static void damaged(void)
{
	struct api_address a;
	uint8_t blob[TERN_ADDR_MAX];
	rand_start(unit_seed());
	for (int round = 0; round < 100000; round++) {
		size_t bytes = sizeof(blob);
		CU_ASSERT_EQUAL_FATAL(api_address_parse("udp://[fe80::1]:7400?private=1&mtu=1500&cc=fixed", &a), 0);
		CU_ASSERT_EQUAL_FATAL(api_address_write(&a, blob, &bytes), 0);
		for (uint64_t n = 1 + rand_below(4); n; n--)
			blob[rand_below(bytes)] = (uint8_t)rand_below(256);
		bytes = rand_below(3) ? bytes : rand_below(sizeof(blob) + 1);
		int err = api_address_read(blob, bytes, &a);
		CU_ASSERT_TRUE_FATAL(err == 0 || err == -TERN_EADDR || err == -TERN_EVERSION || err == -TERN_EINVAL);
	}
}

static const struct unit_case cases[] = {{"accepted", accepted}, {"refused", refused}, {"blobs", blobs}, {"damaged", damaged}};
UNIT_MAIN("api_address", cases)
