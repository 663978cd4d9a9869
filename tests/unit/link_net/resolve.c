/* Routes and neighbours under a virtual clock: who is asked, when, how often; what sets a hardware address and what does not. */
#include "station.h"

struct net_frame {
	uint8_t data[NET_POLL_MAX];
	size_t bytes;
};

/* All that is due now; the last goes to *last. @return how many */
static int poll_all(struct net_host *host, uint64_t now, struct net_frame *last)
{
	uint8_t out[NET_POLL_MAX];
	int n = 0;
	for (size_t bytes; n < 1000 && (bytes = net_poll(host, now, out, sizeof(out))); n++)
		if (last) {
			memcpy(last->data, out, bytes);
			last->bytes = bytes;
		}
	CU_ASSERT_TRUE(net_deadline(host) > now);
	return n;
}

static struct net_host *quiet_station(bool has_twin)
{
	struct net_host *host = station(has_twin);
	poll_all(host, 0, NULL);
	poll_all(host, second, NULL);
	CU_ASSERT_EQUAL(net_deadline(host), UINT64_MAX);
	return host;
}

/* An ARP frame to B, from 10.9.0.last with that hardware address. */
static void say_arp(struct net_host *host, uint64_t now, int op, uint8_t last, const uint8_t *mac, const uint8_t *to)
{
	uint8_t frame[42];
	struct net_packet p;
	memcpy(frame, captured_arp_reply, sizeof(frame));
	memcpy(frame, to, 6);
	memcpy(frame + 6, mac, 6);
	frame[21] = (uint8_t)op;
	memcpy(frame + 22, mac, 6);
	frame[31] = last;
	CU_ASSERT_EQUAL(net_parse(host, frame, sizeof(frame), 0, &p), NET_ARP);
	net_learn(host, frame, &p, now);
}

static void test_announce(void)
{
	struct net_host *host = station(false);
	uint8_t out[NET_POLL_MAX];
	uint64_t now = 0;

	for (int round = 0; round < 2; round++, now += second) {
		CU_ASSERT_EQUAL(net_deadline(host), now);
		CU_ASSERT_EQUAL(net_poll(host, now, out, NET_POLL_MAX - 1), 0);
		CU_ASSERT_EQUAL(net_poll(host, now, out, sizeof(out)), 42);
		CU_ASSERT_TRUE(out[0] == 255 && !memcmp(out + 28, out + 38, 4) && !memcmp(out + 22, mac_b, 6));
		for (int n = 0; n < 2; n++) {
			CU_ASSERT_EQUAL(net_poll(host, now, out, sizeof(out)), 86);
			CU_ASSERT_TRUE(out[54] == 136 && out[58] == 0x20 && sums_are_right(out) && !memcmp(out + 22, out + 62, 16));
		}
		size_t bytes = net_poll(host, now, out, sizeof(out)); /* both addresses' groups */
		CU_ASSERT_TRUE(bytes == 110 && out[62] == 143 && out[69] == 2 && sums_are_right(out));
		CU_ASSERT_EQUAL(net_poll(host, now, out, sizeof(out)), 0);
	}
	CU_ASSERT_EQUAL(net_deadline(host), UINT64_MAX);
	CU_ASSERT_TRUE(out[62] == 143);
	free(host);
}

static void test_resolve(void)
{
	struct net_host *host = quiet_station(false);
	union net_addr a = address("10.9.0.1", 7400), far = address("192.0.2.9", 7400), mapped = address("::ffff:10.9.0.1", 7400);
	struct net_frame asked = {.bytes = 0};
	uint8_t mac[6];
	uint64_t now = 100 * second;

	CU_ASSERT_EQUAL(net_neighbour(host, &a, now, mac), -TERN_EAGAIN);
	CU_ASSERT_EQUAL(net_neighbour(host, &far, now, mac), -TERN_EAGAIN); /* through the same gateway: one entry, one question */
	CU_ASSERT_EQUAL(poll_all(host, now, &asked), 1);
	CU_ASSERT_TRUE(asked.bytes == 42 && asked.data[0] == 255 && asked.data[21] == 1 && !memcmp(asked.data + 38, &a.v4.sin_addr, 4));
	say_arp(host, now + 1000, 2, 1, mac_a, mac_b);
	CU_ASSERT_TRUE(!net_neighbour(host, &a, now + 1000, mac) && !memcmp(mac, mac_a, 6));
	CU_ASSERT_TRUE(!net_neighbour(host, &far, now + 1000, mac) && !net_neighbour(host, &mapped, now + 1000, mac));
	CU_ASSERT_EQUAL(host->neighbours, 1);
	CU_ASSERT_EQUAL(poll_all(host, now + 20 * second, NULL), 0);
	/* grown old and in use: asked again, at the old address, usable meanwhile */
	now += 31 * second;
	CU_ASSERT_EQUAL(net_neighbour(host, &a, now, mac), 0);
	CU_ASSERT_EQUAL(poll_all(host, now, &asked), 1);
	CU_ASSERT_TRUE(!memcmp(asked.data, mac_a, 6));
	CU_ASSERT_EQUAL(net_neighbour(host, &a, now, mac), 0);
	say_arp(host, now + 1000, 2, 1, mac_a, mac_b);
	CU_ASSERT_EQUAL(net_deadline(host) > now + 1000, true);
	CU_ASSERT_EQUAL(poll_all(host, now + 20 * second, NULL), 0);
	free(host);
}

/* Nobody answers: asked with growing pauses, then unreachable, asked slowly while wanted, and well again when it answers. */
static void test_unreachable(void)
{
	struct net_host *host = quiet_station(false);
	union net_addr a = address("fd09::1", 7400);
	uint64_t start = 10 * second, last = 0, gap = 0;
	uint8_t mac[6];
	int asked = 0, err = -TERN_EAGAIN;
	struct net_packet p;

	for (uint64_t now = start; now < start + 60 * second; now += 10000000) {
		err = net_neighbour(host, &a, now, mac);
		CU_ASSERT_EQUAL(err, now < start + 3750000000 ? -TERN_EAGAIN : -TERN_EADDR);
		struct net_frame f;
		int n = poll_all(host, now, &f);
		if (n) {
			CU_ASSERT_TRUE(f.bytes == 86 && f.data[0] == 0x33 && f.data[54] == 135 && sums_are_right(f.data) && f.data[21] == 255);
			CU_ASSERT_TRUE(!asked || now - last >= gap);
			gap = asked ? now - last : 0;
			last = now;
			asked += n;
		}
	}
	CU_ASSERT_TRUE(asked >= 7 && asked <= 9);
	net_parse(host, captured_advertise, sizeof(captured_advertise), 0, &p);
	net_learn(host, captured_advertise, &p, start + 60 * second);
	CU_ASSERT_TRUE(!net_neighbour(host, &a, start + 60 * second, mac) && !memcmp(mac, mac_a, 6));
	/* it goes silent: the address is used on while four questions are open, then not any more */
	uint64_t now = start + 100 * second, version = host->version;
	for (; now < start + 103 * second; now += 10000000, poll_all(host, now, NULL))
		CU_ASSERT_EQUAL(net_neighbour(host, &a, now, mac), 0);
	for (; now < start + 105 * second; now += 10000000, poll_all(host, now, NULL))
		err = net_neighbour(host, &a, now, mac);
	CU_ASSERT_TRUE(err == -TERN_EADDR && host->version != version);
	/* unwanted, it is left alone */
	poll_all(host, now + 200 * second, NULL);
	CU_ASSERT_EQUAL(net_deadline(host), UINT64_MAX);
	free(host);
}

static void test_hijack(void)
{
	static const uint8_t everyone[6] = {255, 255, 255, 255, 255, 255};
	struct net_host *host = quiet_station(true);
	union net_addr a = address("10.9.0.1", 7400);
	struct net_frame asked;
	uint8_t mac[6];
	uint64_t now = 10 * second;

	say_arp(host, now, 2, 1, mac_evil, mac_b);    /* nobody was asked for */
	say_arp(host, now, 1, 1, mac_evil, everyone);
	say_arp(host, now, 2, 77, mac_evil, everyone);
	CU_ASSERT_EQUAL(host->neighbours, 0);
	CU_ASSERT_EQUAL(net_neighbour(host, &a, now, mac), -TERN_EAGAIN);
	say_arp(host, now, 2, 1, mac_evil, mac_b);    /* answers before the question is out do not count */
	CU_ASSERT_EQUAL(net_neighbour(host, &a, now, mac), -TERN_EAGAIN);
	CU_ASSERT_EQUAL(poll_all(host, now, NULL), 1);
	say_arp(host, now, 1, 1, mac_evil, mac_b);    /* neither do questions, nor replies to everyone */
	say_arp(host, now, 2, 1, mac_evil, everyone);
	CU_ASSERT_EQUAL(net_neighbour(host, &a, now, mac), -TERN_EAGAIN);
	say_arp(host, now, 2, 1, mac_a, mac_b);
	CU_ASSERT_TRUE(!net_neighbour(host, &a, now, mac) && !memcmp(mac, mac_a, 6));
	/* a flood of claims: the address stays, everyone is asked at most once a second */
	int questions = 0;
	for (int i = 0; i < 5000; i++, now += 1000000) {
		say_arp(host, now, i & 1 ? 2 : 1, 1, mac_evil, i & 2 ? mac_b : everyone);
		int n = poll_all(host, now, &asked);
		questions += n;
		if (n) {
			CU_ASSERT_EQUAL(asked.data[0], 255);
			say_arp(host, now, 2, 1, mac_a, mac_b);
		}
		CU_ASSERT_TRUE(!net_neighbour(host, &a, now, mac) && !memcmp(mac, mac_a, 6));
	}
	CU_ASSERT_TRUE(questions >= 1 && questions <= 6);
	/* the neighbour really moved: its claim makes us ask, its answer counts */
	now += 2 * second;
	uint32_t version = host->version;
	say_arp(host, now, 1, 1, mac_evil, everyone);
	CU_ASSERT_EQUAL(poll_all(host, now, NULL), 1);
	say_arp(host, now, 2, 1, mac_evil, mac_b);
	CU_ASSERT_TRUE(!net_neighbour(host, &a, now, mac) && !memcmp(mac, mac_evil, 6) && host->version != version);
	/* someone has our address */
	say_arp(host, now, 1, 2, mac_evil, everyone);
	CU_ASSERT_EQUAL(host->conflicts, 1);
	free(host);
}

static void test_hijack_nd(void)
{
	struct net_host *host = quiet_station(true);
	union net_addr a = address("fd09::1", 7400);
	uint8_t mac[6], frame[86];
	struct net_packet p;

	CU_ASSERT_EQUAL(net_parse(host, captured_advertise, 86, 0, &p), NET_ND);
	net_learn(host, captured_advertise, &p, 0);
	CU_ASSERT_EQUAL(host->neighbours, 0);
	CU_ASSERT_EQUAL(net_neighbour(host, &a, 10 * second, mac), -TERN_EAGAIN);
	CU_ASSERT_EQUAL(poll_all(host, 10 * second, NULL), 1);
	/* unsolicited, with the override flag; the parser has judged the frame before, the flags are learn's */
	memcpy(frame, captured_advertise, 86);
	frame[58] &= 0x9f;
	frame[58] |= 0x20;
	frame[58] &= (uint8_t)~0x40;
	net_learn(host, frame, &p, 10 * second);
	CU_ASSERT_EQUAL(net_neighbour(host, &a, 10 * second, mac), -TERN_EAGAIN);
	net_learn(host, captured_advertise, &p, 10 * second);
	CU_ASSERT_EQUAL(net_neighbour(host, &a, 10 * second, mac), 0);
	/* a solicited answer of another station, but without override, while one is awaited: the old address stays */
	CU_ASSERT_EQUAL(net_neighbour(host, &a, 50 * second, mac), 0);
	CU_ASSERT_EQUAL(poll_all(host, 50 * second, NULL), 1);
	memcpy(frame, captured_advertise, 86);
	frame[58] &= 0xdf;
	memcpy(frame + 80, mac_evil, 6);
	net_learn(host, frame, &p, 50 * second);
	CU_ASSERT_TRUE(!net_neighbour(host, &a, 50 * second, mac) && !memcmp(mac, mac_a, 6));
	free(host);
}

static void test_routes(void)
{
	static const char *const nowhere[] = {"0.0.0.0", "127.0.0.1", "224.0.0.5", "255.255.255.255", "10.9.0.255",
	                                      "10.9.0.0", "10.9.0.2", "::", "::1", "ff02::1", "fd09::2", "fe80::ff:fe00:b"};
	struct net_host *host = quiet_station(false);
	uint8_t mac[6];

	for (size_t i = 0; i < sizeof(nowhere) / sizeof(nowhere[0]); i++) {
		union net_addr a = address(nowhere[i], 1);
		int err = net_neighbour(host, &a, 0, mac);
		if (err != -TERN_EADDR)
			printf("\n    %s: %d", nowhere[i], err);
		CU_ASSERT_EQUAL(err, -TERN_EADDR);
	}
	CU_ASSERT_EQUAL(host->neighbours, 0);
	union net_addr local = address("fe80::9", 1), source, far4 = address("192.0.2.1", 1), far6 = address("2001:db8::1", 1);
	CU_ASSERT_TRUE(!net_source(host, &local, 9, &source) && same_address(&source, "fe80::ff:fe00:b", 9));
	CU_ASSERT_TRUE(!net_source(host, &far4, 9, &source) && same_address(&source, "10.9.0.2", 9));
	CU_ASSERT_TRUE(!net_source(host, &far6, 9, &source) && same_address(&source, "fd09::2", 9));
	host->config.gateway4.s_addr = 0;
	host->config.gateway6 = in6addr_any;
	CU_ASSERT_EQUAL(net_source(host, &far4, 9, &source), -TERN_EADDR);
	CU_ASSERT_EQUAL(net_source(host, &far6, 9, &source), -TERN_EADDR);
	free(host);
}

/* More neighbours than the table holds: those used last stay, one that a flow holds stays unused, and when flows hold all of them a new one is refused. */
static void test_many(void)
{
	enum { MORE = 300 };
	struct net_config config = station_config();
	config.prefix4 = 8;
	struct net_host *host = station_new(&config);
	static struct net_flow flow[NET_NEIGHBOURS_MAX];
	union net_addr kept = address("10.9.0.1", 1), held = address("10.9.0.9", 1), a = {.v4 = {.sin_family = AF_INET}};
	struct net_flow_config to = {.remote = held, .port = 7400};
	uint8_t mac[6];

	poll_all(host, 0, NULL);
	poll_all(host, second, NULL);
	to.remote.v4.sin_port = htons(9);
	CU_ASSERT_TRUE(!net_flow_init(host, &to, &flow[0]) && !net_flow_hold(host, &flow[0], 9 * second));
	for (uint32_t i = 0; i < NET_NEIGHBOURS_MAX + MORE; i++) {
		uint64_t now = 10 * second + (uint64_t)i * 1000;
		a.v4.sin_addr.s_addr = htonl(0x0a0a0001 + i);
		CU_ASSERT_EQUAL(net_neighbour(host, &a, now, mac), -TERN_EAGAIN);
		CU_ASSERT_EQUAL(net_neighbour(host, &kept, now, mac), i ? 0 : -TERN_EAGAIN);
		if (i < MORE)
			poll_all(host, now, NULL);
		if (!i)
			say_arp(host, now, 2, 1, mac_a, mac_b);
	}
	CU_ASSERT_TRUE(host->neighbours == NET_NEIGHBOURS_MAX && host->evictions == MORE + 2);
	CU_ASSERT_TRUE(!memcmp(host->entry[flow[0].neighbour - 1].addr.s6_addr + 12, &held.v4.sin_addr, 4));
	for (uint32_t i = 1; i < NET_NEIGHBOURS_MAX; i++) {
		to.remote.v4.sin_addr.s_addr = htonl(0x0a0a0001 + MORE + i);
		CU_ASSERT_TRUE(!net_flow_init(host, &to, &flow[i]) && !net_flow_hold(host, &flow[i], 20 * second));
	}
	a.v4.sin_addr.s_addr = htonl(0x0a640001);
	CU_ASSERT_EQUAL(net_neighbour(host, &a, 20 * second, mac), -TERN_ELIMIT);
	net_flow_release(host, &flow[7]);
	CU_ASSERT_EQUAL(net_neighbour(host, &a, 20 * second, mac), -TERN_EAGAIN);
	free(host);
}

static void test_config(void)
{
	struct net_config good = station_config(), c;
	struct net_host *host = malloc(sizeof(*host));
	const char *why;

	CU_ASSERT_PTR_NOT_NULL_FATAL(host);
	CU_ASSERT_EQUAL(net_init(host, &good, 0, &why), 0);
#define BAD(change) c = good; change; CU_ASSERT_TRUE(net_init(host, &c, 0, &why) == -TERN_EINVAL && why && *why)
	BAD(memset(c.mac, 0, 6));
	BAD(c.mac[0] = 1);
	BAD(c.vlan = 4095);
	BAD(c.vlan_priority = 8);
	BAD(c.mtu_bytes = 1279);
	BAD(c.mtu_bytes = 9217);
	BAD(c.prefix4 = 0);
	BAD(c.prefix4 = 33);
	BAD(c.gateway4 = c.ip4);
	BAD(c.ip4.s_addr = htonl(0xe0000001));
	BAD(c.ip4.s_addr = htonl(0x0a0900ff));
	BAD(c.prefix6 = 0);
	BAD(c.ip6.s6_addr[0] = 0xff);
	BAD(c.ip6 = in6addr_any);
	BAD(c.local6 = c.ip6);
#undef BAD
	c = good;
	c.ip4.s_addr = c.gateway4.s_addr = 0; /* an IPv6-only station */
	CU_ASSERT_EQUAL(net_init(host, &c, 0, &why), 0);
	union net_addr a = address("10.9.0.1", 1);
	uint8_t mac[6];
	CU_ASSERT_EQUAL(net_neighbour(host, &a, 0, mac), -TERN_EADDR);
	free(host);
}

static const struct unit_case cases[] = {
	{"announcements", test_announce},
	{"resolution and refresh", test_resolve},
	{"unreachable, and back", test_unreachable},
	{"nobody else's word", test_hijack},
	{"nobody else's advertisement", test_hijack_nd},
	{"routes and sources", test_routes},
	{"a full table", test_many},
	{"configurations", test_config},
};
UNIT_MAIN("link/dpdk/net_resolve", cases)
