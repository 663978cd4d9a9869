/* net_known: what it takes net_parse takes too, and says the same of it; the datagrams of a flow that differ as they may are known. */
#include "station.h"
#include "link/dpdk/net_known.h"

enum { ROUNDS = 200000, FRAME_ROOM = 1600, PAYLOAD_MOST = 1400 };

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void sum4(uint8_t *ip)
{
	put16(ip + 10, 0);
	put16(ip + 10, (uint16_t)~plain_sum(ip, NET_IP4_BYTES, 0));
}

/* The flow's next datagram: other length, identification, ECN, hop limit. @return its bytes */
static size_t next_frame(const struct net_packet *p, uint8_t *frame)
{
	uint8_t *ip = frame + p->ip_at, *udp = frame + p->l4_at;
	uint32_t length = NET_UDP_BYTES + 1 + (uint32_t)rand_below(PAYLOAD_MOST);

	put16(udp + 4, length);
	put16(udp + 6, p->is_ip6 ? 1 : 0); /* for hardware to have checked; without, in IPv4 */
	ip[1] = (uint8_t)rand_next();
	if (p->is_ip6) {
		put16(ip + 4, length);
		ip[7] = (uint8_t)(1 + rand_below(255));
	} else {
		put16(ip + 2, length + NET_IP4_BYTES);
		put16(ip + 4, (uint32_t)rand_next());
		ip[8] = (uint8_t)(1 + rand_below(255));
		sum4(ip);
	}
	return p->l4_at + length;
}

/* @return whether it is known; what it says is held against net_parse, from a block of the header's size, so that a sanitizer sees each byte too far */
static bool is_known(struct net_host *host, const struct net_known *known, const uint8_t *frame, size_t bytes, unsigned verified)
{
	struct net_known_datagram d;
	struct net_packet p;
	uint8_t *exact = malloc(known->header_bytes ? known->header_bytes : 1u);

	if (!exact)
		abort();
	memcpy(exact, frame, known->header_bytes);
	bool is = net_known_is(known, exact, known->header_bytes, bytes, verified, &d);
	free(exact);
	if (!is)
		return false;
	CU_ASSERT_EQUAL(net_parse(host, frame, bytes, verified, &p), NET_UDP);
	CU_ASSERT_TRUE(p.payload_bytes == d.payload_bytes && p.ecn == d.ecn && p.payload_at == known->header_bytes);
	CU_ASSERT_TRUE(p.ip_at == known->ip_at && p.l4_at == known->l4_at && p.is_ip6 == known->is_ip6);
	return true;
}

static void flow(const uint8_t *captured, size_t bytes)
{
	struct net_host *host = station(false);
	struct net_known known = {0};
	struct net_packet first, p;
	static uint8_t frame[FRAME_ROOM];
	unsigned passed = 0, good;

	rand_start(unit_seed());
	CU_ASSERT_EQUAL(net_parse(host, captured, bytes, 0, &first), NET_UDP);
	CU_ASSERT_FALSE(is_known(host, &known, captured, bytes, 0));
	net_known_make(&known, captured, &first);
	CU_ASSERT_TRUE(known.parts > 0);
	memcpy(frame, captured, first.payload_at);
	for (int i = 0; i < ROUNDS; i++) {
		size_t n = next_frame(&first, frame), at = rand_below(first.payload_at);
		CU_ASSERT_TRUE(is_known(host, &known, frame, n + rand_below(20), NET_IP_GOOD | NET_L4_GOOD)); /* padding is fine */
		CU_ASSERT_FALSE(is_known(host, &known, frame, n - 1, NET_IP_GOOD | NET_L4_GOOD));
		good = (unsigned)rand_below(4);
		uint8_t was = frame[at];
		frame[at] = (uint8_t)rand_next();
		if (!first.is_ip6 && rand_below(2))
			sum4(frame + first.ip_at);
		passed += is_known(host, &known, frame, n, good);
		if (was != frame[at] && net_parse(host, frame, n, good, &p) == NET_UDP && (p.from.v4.sin_port != first.from.v4.sin_port))
			CU_ASSERT_FALSE(is_known(host, &known, frame, n, good)); /* another sender is another flow */
		memcpy(frame, captured, first.payload_at);
	}
	CU_ASSERT_TRUE(passed > ROUNDS / 50 && passed < ROUNDS);
	free(host);
}

static void test_flow4(void)
{
	flow(captured_udp4, sizeof(captured_udp4));
}

static void test_flow6(void)
{
	flow(captured_udp6, sizeof(captured_udp6));
}

/* Headers that are not where they are for every other frame of the flow: never known. */
static void test_options(void)
{
	struct net_known known = {.parts = 1};
	struct net_packet p = {.kind = NET_UDP, .ip_at = 14, .l4_at = 38, .payload_at = 46};

	net_known_make(&known, captured_udp4, &p);
	CU_ASSERT_EQUAL(known.parts, 0);
	p = (struct net_packet){.kind = NET_ECHO, .ip_at = 14, .l4_at = 34, .payload_at = 42};
	net_known_make(&known, captured_udp4, &p);
	CU_ASSERT_EQUAL(known.parts, 0);
}

static const struct unit_case cases[] = {
	{"IPv4", test_flow4},
	{"IPv6", test_flow6},
	{"headers elsewhere", test_options},
};
UNIT_MAIN("link/dpdk/net_known", cases)
