/* Headers of our datagrams: byte for byte those of the kernel, right checksums for random sizes and addresses, and taken apart again by the other side. */
#include "station.h"

static struct frame_seg seg(const void *data, size_t bytes)
{
	return (struct frame_seg){.addr = (uint8_t *)(uintptr_t)data, .bytes = (uint32_t)bytes};
}

/* The kernel's choices that are free (identification, flow label) are taken over, all else must be equal. */
static void test_like_the_kernel(void)
{
	struct net_host *host = station(false);
	uint8_t out[NET_HEADER_MAX];
	struct net_flow flow;
	struct net_flow_config c = {.remote = address("10.9.0.1", 7400), .port = 5001, .dscp = 0xb8 >> 2, .ecn = 1};
	struct frame_seg payload = seg(captured_b_udp4 + 42, sizeof(captured_b_udp4) - 42);

	CU_ASSERT_EQUAL(net_flow_init(host, &c, &flow), 0);
	CU_ASSERT_TRUE(flow.header_bytes == 42 && net_flow_ready(host, &flow, 0) == -TERN_EAGAIN);
	memcpy(flow.header, mac_a, 6);
	net_udp_header(&flow, out, payload.bytes, (uint16_t)(captured_b_udp4[18] << 8 | captured_b_udp4[19]));
	net_udp_sum(&flow, out, &payload, 1);
	CU_ASSERT_EQUAL(memcmp(out, captured_b_udp4, 42), 0);
	c.remote = address("fd09::1", 7400);
	payload.addr = (uint8_t *)(uintptr_t)captured_b_udp6 + 62;
	CU_ASSERT_EQUAL(net_flow_init(host, &c, &flow), 0);
	CU_ASSERT_EQUAL(flow.header_bytes, 62);
	memcpy(flow.header, mac_a, 6);
	net_udp_header(&flow, out, payload.bytes, 0);
	net_udp_sum(&flow, out, &payload, 1);
	out[15] = (uint8_t)((out[15] & 0xf0) | (captured_b_udp6[15] & 15));
	memcpy(out + 16, captured_b_udp6 + 16, 2);
	CU_ASSERT_EQUAL(memcmp(out, captured_b_udp6, 62), 0);
	free(host);
}

static void test_sum(void)
{
	static uint8_t data[20000];

	rand_start(unit_seed());
	for (int n = 0; n < 5000; n++) {
		size_t at = rand_below(64), bytes = rand_below(n % 10 ? 300 : 19000);
		uint8_t fill = n % 7 == 0 ? 0xff : 0;
		for (size_t i = 0; i < bytes; i++)
			data[at + i] = fill ? fill : (uint8_t)rand_next();
		uint16_t slow = plain_sum(data + at, bytes, 0), fast = ntohs(net_fold(net_sum(data + at, bytes, 0)));
		CU_ASSERT_TRUE(slow == fast || (slow % 0xffff == 0 && fast % 0xffff == 0 && bytes));
		size_t cut = bytes / 2 & ~(size_t)1;
		CU_ASSERT_EQUAL(ntohs(net_checksum(data + at + cut, bytes - cut, net_sum(data + at, cut, 0))), (uint16_t)~fast);
	}
}

/* A random flow between two random stations, through the second one's parser. */
static void round_trip(int n)
{
	static uint8_t frame[9300];
	struct net_config ca = {.mtu_bytes = 9000, .prefix4 = 24, .prefix6 = 64}, cb;
	bool is_ip6 = n & 1;

	ca.vlan = n & 2 ? (uint16_t)(1 + rand_below(4094)) : 0;
	ca.ip4.s_addr = htonl((uint32_t)(0x0a000002 + (rand_below(1 << 16) << 8)));
	for (int i = 0; i < 16; i++)
		ca.ip6.s6_addr[i] = (uint8_t)rand_next();
	ca.ip6.s6_addr[0] = 0x20;
	cb = ca;
	cb.ip4.s_addr ^= htonl((uint32_t)(0xf0 ^ rand_below(8) << 4));
	cb.ip6.s6_addr[15] ^= 0x55;
	for (int i = 1; i < 6; i++) {
		ca.mac[i] = (uint8_t)rand_next();
		cb.mac[i] = (uint8_t)~ca.mac[i];
	}
	struct net_host *a = station_new(&ca), *b = station_new(&cb);
	struct net_flow_config c = {.port = (uint16_t)(1 + rand_below(65535)), .dscp = (uint8_t)rand_below(64), .ecn = (uint8_t)rand_below(4)};
	if (is_ip6)
		c.remote.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(7400), .sin6_addr = cb.ip6};
	else
		c.remote.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(7400), .sin_addr = cb.ip4};
	struct net_flow flow;
	CU_ASSERT_EQUAL_FATAL(net_flow_init(a, &c, &flow), 0);
	memcpy(flow.header, cb.mac, 6);
	uint32_t bytes = (uint32_t)rand_below(8900), cuts[3] = {(uint32_t)rand_below(bytes + 1), (uint32_t)rand_below(bytes + 1)};
	if (cuts[0] > cuts[1])
		cuts[2] = cuts[0], cuts[0] = cuts[1], cuts[1] = cuts[2];
	uint8_t *payload = frame + flow.header_bytes;
	for (uint32_t i = 0; i < bytes; i++)
		payload[i] = (uint8_t)rand_next();
	struct frame_seg segs[3] = {seg(payload, cuts[0]), seg(payload + cuts[0], cuts[1] - cuts[0]), seg(payload + cuts[1], bytes - cuts[1])};
	net_udp_header(&flow, frame, bytes, (uint16_t)rand_next());
	uint8_t ecn = (uint8_t)rand_below(4);
	net_set_ecn(&flow, frame, ecn);
	net_udp_sum(&flow, frame, segs, 3);
	struct net_packet p;
	CU_ASSERT_EQUAL(net_parse(b, frame, flow.header_bytes + bytes, 0, &p), NET_UDP);
	CU_ASSERT_TRUE(p.ecn == ecn && p.payload_bytes == bytes && p.payload_at == flow.header_bytes && !p.is_hw_verified);
	CU_ASSERT_EQUAL(p.to.sa.sa_family, is_ip6 ? AF_INET6 : AF_INET);
	CU_ASSERT_TRUE(is_ip6 ? !memcmp(&p.from.v6.sin6_addr, &ca.ip6, 16) && p.from.v6.sin6_port == htons(c.port)
	                      : p.from.v4.sin_addr.s_addr == ca.ip4.s_addr && p.from.v4.sin_port == htons(c.port));
	if (!ca.vlan)
		CU_ASSERT_TRUE(sums_are_right(frame));
	CU_ASSERT_TRUE(is_ip6 || (frame[flow.ip_at + 6] == 0x40 && frame[flow.ip_at + 1] >> 2 == c.dscp));
	free(a);
	free(b);
}

static void test_round_trips(void)
{
	rand_start(unit_seed());
	for (int n = 0; n < 2000; n++)
		round_trip(n);
}

/* A sum that comes out as zero is sent as 0xffff: zero means none (RFC 768), and over IPv6 would be refused. */
static void test_zero(void)
{
	static const char *const to[2] = {"10.9.0.1", "fd09::1"};
	struct net_host *host = station(false);
	uint8_t out[NET_HEADER_MAX], payload[2] = {0, 0};
	struct frame_seg s = seg(payload, 2);

	for (int k = 0; k < 2; k++) {
		struct net_flow_config c = {.remote = address(to[k], 7400), .port = 5001};
		struct net_flow flow;
		CU_ASSERT_EQUAL_FATAL(net_flow_init(host, &c, &flow), 0);
		memset(payload, 0, 2);
		net_udp_header(&flow, out, 2, 0);
		net_udp_sum(&flow, out, &s, 1);
		memcpy(payload, out + flow.udp_at + 6, 2); /* brings the sum to all ones */
		net_udp_header(&flow, out, 2, 0);
		net_udp_sum(&flow, out, &s, 1);
		CU_ASSERT_TRUE(out[flow.udp_at + 6] == 0xff && out[flow.udp_at + 7] == 0xff);
	}
	free(host);
}

static void test_refused(void)
{
	struct net_host *host = station(false);
	struct net_flow flow;
	struct net_flow_config good = {.remote = address("10.9.0.1", 7400), .port = 5001}, c = good;

	c.port = 0;
	CU_ASSERT_EQUAL(net_flow_init(host, &c, &flow), -TERN_EINVAL);
	c = good, c.remote.v4.sin_port = 0;
	CU_ASSERT_EQUAL(net_flow_init(host, &c, &flow), -TERN_EINVAL);
	c = good, c.dscp = 64;
	CU_ASSERT_EQUAL(net_flow_init(host, &c, &flow), -TERN_EINVAL);
	c = good, c.remote = address("10.9.0.255", 1);
	CU_ASSERT_EQUAL(net_flow_init(host, &c, &flow), -TERN_EADDR);
	c = good, c.remote.sa.sa_family = AF_UNIX;
	CU_ASSERT_EQUAL(net_flow_init(host, &c, &flow), -TERN_EADDR);
	c = good, c.remote = address("::ffff:10.9.0.1", 7400);
	CU_ASSERT_TRUE(!net_flow_init(host, &c, &flow) && !flow.is_ip6 && flow.header_bytes == 42);
	free(host);
}

static const struct unit_case cases[] = {
	{"like the kernel's", test_like_the_kernel},
	{"sums", test_sum},
	{"round trips", test_round_trips},
	{"a sum of zero", test_zero},
	{"refused", test_refused},
};
UNIT_MAIN("link/dpdk/net_header", cases)
