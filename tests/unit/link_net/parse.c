/* net_parse and net_answer: what the kernel sends is taken for what it is; every malformed kind is refused and counted; answers are those the kernel would give. */
#include "station.h"

#define CAPTURED(name) captured_##name, sizeof(captured_##name)

static void test_captured(void)
{
	struct net_host *host = station(true);
	struct net_packet p;
	static const char text[] = "The arctic tern has the longest journey of all birds";

	CU_ASSERT_EQUAL(parse_exact(host, CAPTURED(udp4), 0, &p), NET_UDP);
	CU_ASSERT_TRUE(same_address(&p.from, "10.9.0.1", 5001) && same_address(&p.to, "10.9.0.2", 7400) && !p.is_hw_verified && !p.is_ip6);
	CU_ASSERT_TRUE(p.payload_bytes == strlen(text) && !memcmp(captured_udp4 + p.payload_at, text, p.payload_bytes) && p.ecn == 0);
	CU_ASSERT_EQUAL(parse_exact(host, CAPTURED(udp6), 0, &p), NET_UDP);
	CU_ASSERT_TRUE(same_address(&p.from, "fd09::1", 5001) && same_address(&p.to, "fd09::2", 7400) && p.is_ip6);
	CU_ASSERT_TRUE(p.payload_bytes == strlen(text) && !memcmp(captured_udp6 + p.payload_at, text, p.payload_bytes));
	CU_ASSERT_EQUAL(parse_exact(host, CAPTURED(udp4_odd), 0, &p), NET_UDP);
	CU_ASSERT_TRUE(p.payload_bytes == 7 && p.ecn == 3);
	CU_ASSERT_EQUAL(parse_exact(host, CAPTURED(udp6_odd), 0, &p), NET_UDP);
	CU_ASSERT_TRUE(p.payload_bytes == 7 && p.ecn == 3);
	CU_ASSERT_TRUE(parse_exact(host, CAPTURED(udp4_empty), 0, &p) == NET_UDP && p.payload_bytes == 0);
	CU_ASSERT_TRUE(parse_exact(host, CAPTURED(udp6_empty), 0, &p) == NET_UDP && p.payload_bytes == 0);
	CU_ASSERT_TRUE(parse_exact(host, CAPTURED(udp6), NET_IP_GOOD | NET_L4_GOOD, &p) == NET_UDP && p.is_hw_verified);
	CU_ASSERT_EQUAL(parse_exact(host, CAPTURED(arp_request), 0, &p), NET_ARP);
	CU_ASSERT_EQUAL(parse_exact(host, CAPTURED(arp_reply), 0, &p), NET_ARP);
	CU_ASSERT_EQUAL(parse_exact(host, CAPTURED(solicit), 0, &p), NET_ND);
	CU_ASSERT_EQUAL(parse_exact(host, CAPTURED(advertise), 0, &p), NET_ND);
	CU_ASSERT_EQUAL(parse_exact(host, CAPTURED(echo4), 0, &p), NET_ECHO);
	CU_ASSERT_EQUAL(parse_exact(host, CAPTURED(echo6), 0, &p), NET_ECHO);
	net_port_close(host, 7400);
	CU_ASSERT_EQUAL(parse_exact(host, CAPTURED(udp4), 0, &p), NET_FOREIGN);
	CU_ASSERT_EQUAL(parse_exact(host, CAPTURED(udp6), 0, &p), NET_FOREIGN);
	host->config.has_twin = false;
	CU_ASSERT_TRUE(parse_exact(host, CAPTURED(udp4), 0, &p) == NET_DROP && p.drop == NET_DROP_FOREIGN);
	CU_ASSERT_EQUAL(host->drops[NET_DROP_FOREIGN], 1);
	free(host);
}

/* Whose a frame is, without checks: the same UDP port that net_parse finds, whatever lies before it; what everybody must learn from goes to everybody; a frame cut
 * anywhere is nobody's, and nothing beyond its end is read. */
static void test_steer(void)
{
	static const struct {
		const uint8_t *frame;
		size_t bytes;
		int to;
	} of[] = {
	        {CAPTURED(udp4), 7400},
	        {CAPTURED(udp6), 7400},
	        {CAPTURED(udp4_empty), 7400},
	        {CAPTURED(udp6_odd), 7400},
	        {CAPTURED(arp_request), NET_STEER_ALL},
	        {CAPTURED(arp_reply), NET_STEER_ALL},
	        {CAPTURED(solicit), NET_STEER_ALL},
	        {CAPTURED(advertise), NET_STEER_ALL},
	        {CAPTURED(echo4), NET_STEER_NONE},
	        {CAPTURED(echo6), NET_STEER_NONE},
	        {CAPTURED(fragment4), NET_STEER_NONE},
	        {CAPTURED(fragment6), NET_STEER_NONE},
	};
	uint8_t tagged[256], options[256];

	for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++) {
		CU_ASSERT_EQUAL(net_steer(of[i].frame, of[i].bytes), of[i].to);
		for (size_t cut = 0; cut < of[i].bytes; cut++) {
			uint8_t *exact = malloc(cut ? cut : 1); /* the sanitizer sees a byte too far */
			memcpy(exact, of[i].frame, cut);
			int to = net_steer(exact, cut);
			CU_ASSERT(to == of[i].to || to == NET_STEER_NONE);
			free(exact);
		}
		if (of[i].bytes + 4 > sizeof(tagged))
			continue;
		memcpy(tagged, of[i].frame, 12);
		memcpy(tagged + 12, (const uint8_t[]){0x81, 0, 0, 5}, 4);
		memcpy(tagged + 16, of[i].frame + 12, of[i].bytes - 12);
		CU_ASSERT_EQUAL(net_steer(tagged, of[i].bytes + 4), of[i].to);
	}
	/* behind destination options, RFC 8200 section 4.6 */
	memcpy(options, captured_udp6, 54);
	options[20] = 60;
	memcpy(options + 54, (const uint8_t[]){17, 0, 1, 4, 0, 0, 0, 0}, 8);
	memcpy(options + 62, captured_udp6 + 54, sizeof(captured_udp6) - 54);
	CU_ASSERT_EQUAL(net_steer(options, sizeof(captured_udp6) + 8), 7400);
}

/* Anybody can send news of the path's MTU that quotes a datagram of ours (the captured ones came from 5001): the kernel's, never ours. */
static void test_pmtu(void)
{
	struct net_host *host = station(true);
	struct net_packet p;

	net_port_open(host, 5001);
	CU_ASSERT_EQUAL(parse_exact(host, CAPTURED(pmtu4), 0, &p), NET_FOREIGN);
	CU_ASSERT_EQUAL(parse_exact(host, CAPTURED(pmtu6), 0, &p), NET_FOREIGN);
	host->config.has_twin = false;
	CU_ASSERT_TRUE(parse_exact(host, CAPTURED(pmtu4), 0, &p) == NET_DROP && p.drop == NET_DROP_FOREIGN);
	CU_ASSERT_TRUE(parse_exact(host, CAPTURED(pmtu6), 0, &p) == NET_DROP && p.drop == NET_DROP_FOREIGN);
	free(host);
}

/* A sum that the sending kernel never finished is taken where it may be one, and nothing else that is wrong. */
static void test_partial(void)
{
	struct net_host *host = station(false);
	struct net_packet p;
	uint8_t frame[sizeof(captured_udp4)], *udp = frame + 34;

	memcpy(frame, captured_udp4, sizeof(frame));
	uint16_t length = (uint16_t)(udp[4] << 8 | udp[5]), sum = plain_sum(frame + 26, 8, 17 + length);
	udp[6] = (uint8_t)(sum >> 8);
	udp[7] = (uint8_t)sum;
	CU_ASSERT_TRUE(parse_exact(host, frame, sizeof(frame), NET_L4_PARTIAL, &p) == NET_UDP && p.is_hw_verified);
	CU_ASSERT_TRUE(parse_exact(host, frame, sizeof(frame), 0, &p) == NET_DROP && p.drop == NET_DROP_UDP_SUM);
	udp[7] ^= 1;
	CU_ASSERT_TRUE(parse_exact(host, frame, sizeof(frame), NET_L4_PARTIAL, &p) == NET_DROP && p.drop == NET_DROP_UDP_SUM);
	CU_ASSERT_TRUE(parse_exact(host, CAPTURED(udp4), NET_L4_PARTIAL, &p) == NET_UDP && !p.is_hw_verified);
	free(host);
}

static void test_fragments(void)
{
	struct net_host *host = station(true);
	struct net_packet p;

	CU_ASSERT_TRUE(parse_exact(host, CAPTURED(fragment4), 0, &p) == NET_DROP && p.drop == NET_DROP_FRAGMENT);
	CU_ASSERT_TRUE(parse_exact(host, CAPTURED(fragment6), 0, &p) == NET_DROP && p.drop == NET_DROP_FRAGMENT);
	net_port_close(host, 7400); /* now it is the kernel's */
	CU_ASSERT_EQUAL(parse_exact(host, CAPTURED(fragment4), 0, &p), NET_FOREIGN);
	CU_ASSERT_EQUAL(parse_exact(host, CAPTURED(fragment6), 0, &p), NET_FOREIGN);
	CU_ASSERT_EQUAL(host->drops[NET_DROP_FRAGMENT], 2);
	free(host);
}

struct bad {
	const char *what;
	const uint8_t *frame;
	size_t bytes;
	struct { uint16_t at; uint8_t value; } set[4]; /* at 0: end; checksums are not mended */
	unsigned verified;
	uint8_t drop;
};

/* Every kind of malformed frame, each one change to a good one. */
static const struct bad bads[] = {
	{"Ethernet header cut", captured_udp4, 13, {{0}}, 0, NET_DROP_SHORT},
	{"nothing", captured_udp4, 0, {{0}}, 0, NET_DROP_SHORT},
	{"another station's", CAPTURED(udp4), {{5, 0xc}}, 0, NET_DROP_MAC},
	{"from a group", CAPTURED(udp4), {{6, 3}}, 0, NET_DROP_MAC},
	{"from ourselves", CAPTURED(udp4), {{11, 0xb}}, 0, NET_DROP_MAC},
	{"from zero", CAPTURED(udp4), {{6, 0}, {11, 0}}, 0, NET_DROP_MAC},
	{"tagged", CAPTURED(udp4), {{12, 0x81}, {13, 0}, {15, 5}}, 0, NET_DROP_VLAN},
	{"tag cut", captured_udp4, 17, {{12, 0x81}, {13, 0}}, 0, NET_DROP_SHORT},
	{"IPv4 header cut", captured_udp4, 33, {{0}}, 0, NET_DROP_SHORT},
	{"IPv4 of version 6", CAPTURED(udp4), {{14, 0x65}}, 0, NET_DROP_VERSION},
	{"IPv4 header of 16", CAPTURED(udp4), {{14, 0x44}}, 0, NET_DROP_VERSION},
	{"IPv4 options beyond the end", captured_udp4_empty, 42, {{14, 0x4f}}, 0, NET_DROP_SHORT},
	{"IPv4 total beyond the end", captured_udp4, 93, {{0}}, 0, NET_DROP_SHORT},
	{"IPv4 total below the header", CAPTURED(udp4), {{16, 0}, {17, 19}}, 0, NET_DROP_SHORT},
	{"IPv4 checksum", CAPTURED(udp4), {{22, 7}}, 0, NET_DROP_IP_SUM},
	{"IPv4 from a group", CAPTURED(udp4), {{26, 224}}, NET_IP_GOOD, NET_DROP_SOURCE},
	{"IPv4 from 127", CAPTURED(udp4), {{26, 127}}, NET_IP_GOOD, NET_DROP_SOURCE},
	{"IPv4 from 0", CAPTURED(udp4), {{26, 0}, {27, 0}, {29, 0}}, NET_IP_GOOD, NET_DROP_SOURCE},
	{"IPv4 from ourselves", CAPTURED(udp4), {{29, 2}}, NET_IP_GOOD, NET_DROP_SOURCE},
	{"IPv4 from broadcast", CAPTURED(udp4), {{29, 255}}, NET_IP_GOOD, NET_DROP_SOURCE},
	{"UDP length beyond the packet", CAPTURED(udp4), {{39, 61}}, 0, NET_DROP_SHORT},
	{"UDP length 7", CAPTURED(udp4), {{39, 7}}, 0, NET_DROP_SHORT},
	{"UDP header cut", captured_udp4_empty, 42, {{17, 27}}, NET_IP_GOOD, NET_DROP_SHORT},
	{"UDP checksum", CAPTURED(udp4), {{60, 7}}, 0, NET_DROP_UDP_SUM},
	{"IPv6 header cut", captured_udp6, 53, {{0}}, 0, NET_DROP_SHORT},
	{"IPv6 of version 4", CAPTURED(udp6), {{14, 0x40}}, 0, NET_DROP_VERSION},
	{"IPv6 payload beyond the end", captured_udp6, 113, {{0}}, 0, NET_DROP_SHORT},
	{"jumbogram", CAPTURED(udp6), {{18, 0}, {19, 0}, {20, 0}}, 0, NET_DROP_EXTENSION},
	{"IPv6 from a group", CAPTURED(udp6), {{22, 0xff}}, 0, NET_DROP_SOURCE},
	{"IPv6 from nobody", CAPTURED(udp6), {{22, 0}, {23, 0}, {37, 0}}, 0, NET_DROP_SOURCE},
	{"IPv6 from ::1", CAPTURED(udp6), {{22, 0}, {23, 0}}, 0, NET_DROP_SOURCE},
	{"IPv6 from ourselves", CAPTURED(udp6), {{37, 2}}, 0, NET_DROP_SOURCE},
	{"extension beyond the end", CAPTURED(udp6), {{20, 60}, {55, 200}}, 0, NET_DROP_SHORT},
	{"UDP over IPv6 without a checksum", CAPTURED(udp6), {{60, 0}, {61, 0}}, NET_L4_GOOD, NET_DROP_UDP_SUM},
	{"UDP over IPv6 checksum", CAPTURED(udp6), {{80, 7}}, 0, NET_DROP_UDP_SUM},
	{"echo checksum", CAPTURED(echo4), {{60, 7}}, 0, NET_DROP_ICMP_SUM},
	{"echo of IPv6 checksum", CAPTURED(echo6), {{80, 7}}, 0, NET_DROP_ICMP_SUM},
	{"ICMP cut", captured_echo4, 119, {{17, 27}}, NET_IP_GOOD, NET_DROP_SHORT},
	{"ICMPv6 cut", captured_echo6, 139, {{18, 0}, {19, 7}}, 0, NET_DROP_SHORT},
	{"ARP cut", captured_arp_request, 41, {{0}}, 0, NET_DROP_SHORT},
	{"ARP of other hardware", CAPTURED(arp_request), {{15, 6}}, 0, NET_DROP_ARP},
	{"ARP of another protocol", CAPTURED(arp_request), {{16, 0x86}}, 0, NET_DROP_ARP},
	{"ARP lengths", CAPTURED(arp_request), {{18, 8}}, 0, NET_DROP_ARP},
	{"ARP operation", CAPTURED(arp_request), {{21, 3}}, 0, NET_DROP_ARP},
	{"ARP from a group's hardware", CAPTURED(arp_request), {{22, 3}}, 0, NET_DROP_ARP},
	{"ARP from a group", CAPTURED(arp_request), {{28, 224}}, 0, NET_DROP_ARP},
	{"advertisement through a router", CAPTURED(advertise), {{21, 254}}, 0, NET_DROP_ND},
	{"solicitation through a router", CAPTURED(solicit), {{21, 64}}, 0, NET_DROP_ND},
};

static void test_bad(void)
{
	struct net_host *host = station(false);

	for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
		const struct bad *b = &bads[i];
		uint8_t frame[2048];
		struct net_packet p;
		memcpy(frame, b->frame, b->bytes);
		for (int n = 0; n < 4 && b->set[n].at; n++)
			frame[b->set[n].at] = b->set[n].value;
		uint64_t before = host->drops[b->drop];
		enum net_kind kind = parse_exact(host, frame, b->bytes, b->verified, &p);
		if (kind != NET_DROP || p.drop != b->drop || host->drops[b->drop] != before + 1)
			printf("\n    %s: kind %d drop %d, wanted %d", b->what, kind, p.drop, b->drop);
		CU_ASSERT_TRUE(kind == NET_DROP && p.drop == b->drop && host->drops[b->drop] == before + 1);
	}
	free(host);
}

/* Mends the ICMPv6 checksum of a captured frame that was changed. */
static void mend6(uint8_t *frame)
{
	uint8_t *ip = frame + 14, *icmp = ip + 40;
	size_t length = (size_t)ip[4] << 8 | ip[5];
	icmp[2] = icmp[3] = 0;
	uint16_t sum = (uint16_t)~plain_sum(icmp, length, plain_sum(ip + 8, 32, length + 58));
	icmp[2] = (uint8_t)(sum >> 8);
	icmp[3] = (uint8_t)sum;
}

static void test_bad_nd(void)
{
	static const struct { const char *what; size_t bytes; uint16_t at; uint8_t value; } bad[] = {
		{"code", 86, 55, 1}, {"target is a group", 86, 62, 0xff}, {"option of length 0", 86, 79, 0},
		{"option beyond the end", 86, 79, 2}, {"cut", 70, 0, 0},
	};
	struct net_host *host = station(false);
	struct net_packet p;
	uint8_t frame[86];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		for (int advert = 0; advert < 2; advert++) {
			memcpy(frame, advert ? captured_advertise : captured_solicit, sizeof(frame));
			if (bad[i].at)
				frame[bad[i].at] = bad[i].value;
			frame[19] = (uint8_t)(bad[i].bytes - 54);
			mend6(frame);
			enum net_kind kind = parse_exact(host, frame, bad[i].bytes, 0, &p);
			if (kind != NET_DROP || p.drop != NET_DROP_ND)
				printf("\n    %s: kind %d drop %d", bad[i].what, kind, p.drop);
			CU_ASSERT_TRUE(kind == NET_DROP && p.drop == NET_DROP_ND);
		}
	free(host);
}

/* Extension headers are stepped over, but not for ever, and hop-by-hop options only at the start. */
static void test_extensions(void)
{
	struct net_host *host = station(false);
	struct net_packet p;

	for (int n = 0; n <= 12; n++) {
		uint8_t frame[300];
		memcpy(frame, captured_udp6, 54);
		memcpy(frame + 54 + 8 * n, captured_udp6 + 54, 60);
		for (int i = 0; i < n; i++)
			memcpy(frame + 54 + 8 * i, (uint8_t[8]){i == n - 1 ? 17 : 60, 0, 1, 4}, 8);
		frame[19] = (uint8_t)(60 + 8 * n);
		frame[20] = n ? 60 : 17;
		enum net_kind kind = parse_exact(host, frame, 114 + 8 * (size_t)n, 0, &p);
		if (n <= NET_EXTENSIONS_MAX) {
			CU_ASSERT_TRUE(kind == NET_UDP && p.payload_at == 62 + 8 * n);
		} else {
			CU_ASSERT_TRUE(kind == NET_DROP && p.drop == NET_DROP_EXTENSION);
		}
		if (n != 2)
			continue;
		frame[20] = 0;
		CU_ASSERT_EQUAL(parse_exact(host, frame, 130, 0, &p), NET_UDP);
		frame[54] = 0;
		CU_ASSERT_TRUE(parse_exact(host, frame, 130, 0, &p) == NET_DROP && p.drop == NET_DROP_EXTENSION);
	}
	free(host);
}

/* Each cut and each changed byte of each captured frame: never taken for a datagram with another payload, unless the hardware vouches for it. */
static void test_mangled(void)
{
	static const struct { const uint8_t *frame; size_t bytes; } all[] = {{CAPTURED(udp4)}, {CAPTURED(udp6)}, {CAPTURED(udp4_odd)},
		{CAPTURED(echo4)}, {CAPTURED(echo6)}, {CAPTURED(arp_request)}, {CAPTURED(solicit)}, {CAPTURED(advertise)}, {CAPTURED(pmtu4)}};
	struct net_host *host = station(false);
	struct net_packet p;
	uint8_t frame[2048];

	rand_start(unit_seed());
	net_port_open(host, 5001);
	for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++) {
		for (size_t cut = 0; cut < all[k].bytes; cut++)
			CU_ASSERT_EQUAL(parse_exact(host, all[k].frame, cut, 0, &p), NET_DROP);
		for (int n = 0; n < 20000; n++) {
			memcpy(frame, all[k].frame, all[k].bytes);
			size_t at = rand_below(all[k].bytes);
			frame[at] ^= (uint8_t)(1 + rand_below(255));
			enum net_kind kind = parse_exact(host, frame, all[k].bytes, 0, &p);
			bool is_ip6 = all[k].frame[12] == 0x86; /* its header has no checksum: class, label and hop limit may be anything */
			CU_ASSERT_FALSE(kind == NET_UDP && at >= (is_ip6 ? 22 : 14));
		}
	}
	free(host);
}

static size_t answered(struct net_host *host, const uint8_t *frame, size_t bytes, uint8_t *out, size_t room)
{
	struct net_packet p;
	net_parse(host, frame, bytes, 0, &p);
	return net_answer(host, frame, bytes, &p, out, room);
}

static void test_answers(void)
{
	struct net_host *host = station(false);
	uint8_t out[2048], frame[86];

	/* the kernel's own answer to the mirrored question differs only in who is who */
	CU_ASSERT_EQUAL(answered(host, CAPTURED(arp_request), out, sizeof(out)), 42);
	CU_ASSERT_TRUE(!memcmp(out, mac_a, 6) && !memcmp(out + 6, mac_b, 6) && !memcmp(out + 12, captured_arp_reply + 12, 10));
	CU_ASSERT_TRUE(!memcmp(out + 22, mac_b, 6) && !memcmp(out + 28, &host->config.ip4, 4) && !memcmp(out + 32, captured_arp_request + 22, 10));
	CU_ASSERT_EQUAL(answered(host, CAPTURED(arp_reply), out, sizeof(out)), 0);
	CU_ASSERT_EQUAL(answered(host, CAPTURED(solicit), out, sizeof(out)), 86);
	CU_ASSERT_TRUE(!memcmp(out, mac_a, 6) && sums_are_right(out) && out[54] == 136 && out[58] == 0x60 && out[21] == 255);
	CU_ASSERT_TRUE(!memcmp(out + 22, &host->config.ip6, 16) && !memcmp(out + 38, captured_solicit + 22, 16) && !memcmp(out + 80, mac_b, 6));
	/* whether an address is taken is asked from ::, in the shortest form */
	memcpy(frame, captured_solicit, 78);
	memset(frame + 22, 0, 16);
	frame[19] = 24;
	mend6(frame);
	CU_ASSERT_EQUAL(answered(host, frame, 78, out, sizeof(out)), 78);
	CU_ASSERT_TRUE(out[0] == 0x33 && out[5] == 1 && sums_are_right(out) && out[58] == 0x20 && out[38] == 0xff && out[53] == 1);
	CU_ASSERT_EQUAL(answered(host, CAPTURED(echo4), out, sizeof(out)), 119);
	CU_ASSERT_TRUE(sums_are_right(out) && out[34] == 0 && !memcmp(out + 38, captured_echo4 + 38, 81));
	CU_ASSERT_TRUE(!memcmp(out + 26, captured_echo4 + 30, 4));
	CU_ASSERT_EQUAL(answered(host, CAPTURED(echo6), out, sizeof(out)), 139);
	CU_ASSERT_TRUE(sums_are_right(out) && out[54] == 129 && !memcmp(out + 58, captured_echo6 + 58, 81));
	CU_ASSERT_TRUE(!memcmp(out + 38, captured_echo6 + 22, 16));
	CU_ASSERT_EQUAL(answered(host, CAPTURED(echo6), out, 138), 0);
	host->config.has_twin = true;
	CU_ASSERT_EQUAL(answered(host, CAPTURED(echo4), out, sizeof(out)), 0);
	CU_ASSERT_EQUAL(answered(host, CAPTURED(arp_request), out, sizeof(out)), 0);
	free(host);
}

/* With a VLAN the tagged frames are ours, all others not. */
static void test_vlan(void)
{
	struct net_config config = station_config();
	config.vlan = 100;
	config.vlan_priority = 5;
	struct net_host *host = station_new(&config);
	struct net_packet p;
	uint8_t frame[200], out[2048];

	memcpy(frame, captured_echo4, 12);
	memcpy(frame + 12, (uint8_t[4]){0x81, 0, 0x20, 100}, 4);
	memcpy(frame + 16, captured_echo4 + 12, 107);
	CU_ASSERT_EQUAL(parse_exact(host, frame, 123, 0, &p), NET_ECHO);
	CU_ASSERT_EQUAL(answered(host, frame, 123, out, sizeof(out)), 123);
	CU_ASSERT_TRUE(!memcmp(out + 12, (uint8_t[6]){0x81, 0, 0xa0, 100, 8, 0}, 6));
	frame[15] = 101;
	CU_ASSERT_TRUE(parse_exact(host, frame, 123, 0, &p) == NET_DROP && p.drop == NET_DROP_VLAN);
	CU_ASSERT_TRUE(parse_exact(host, CAPTURED(echo4), 0, &p) == NET_DROP && p.drop == NET_DROP_VLAN);
	free(host);
	host = station(false);
	frame[14] = 0xe0, frame[15] = 0; /* only a priority: the same as untagged */
	CU_ASSERT_EQUAL(parse_exact(host, frame, 123, 0, &p), NET_ECHO);
	CU_ASSERT_EQUAL(answered(host, frame, 123, out, sizeof(out)), 119);
	free(host);
}

static const struct unit_case cases[] = {
	{"the kernel's frames", test_captured},
	{"whose it is", test_steer},
	{"path MTU", test_pmtu},
	{"unfinished checksums", test_partial},
	{"fragments", test_fragments},
	{"malformed", test_bad},
	{"malformed neighbour discovery", test_bad_nd},
	{"extension headers", test_extensions},
	{"cut and changed anywhere", test_mangled},
	{"answers", test_answers},
	{"VLAN", test_vlan},
};
UNIT_MAIN("link/dpdk/net_parse", cases)
