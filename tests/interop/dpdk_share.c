/* Several links at one DPDK port: a context that listens and connects, several contexts with a thread each, contexts that come and go under traffic, one that
 * nobody polls. Both ends of a memif in this process; whatever arrives is checked byte by byte. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "inter.h"

enum { MANY = 3, ROUNDS = 20, BIG = 1 << 20, FAMILY_END = 2 };

static const char *const ip_text[FAMILY_END][2] = {{"10.9.0.1", "10.9.0.2"}, {"[fd00:9::1]", "[fd00:9::2]"}};
static const char *const ip_option[FAMILY_END][2] = {{"ip=10.9.0.1/24", "ip=10.9.0.2/24"}, {"ip6=fd00:9::1/64", "ip6=fd00:9::2/64"}};

/* The device at end 0 or 1, with the arguments that make it. */
static const char *device(int end)
{
	static char text[2][256];
	snprintf(text[end], sizeof(text[end]), "net_memif%d,role=%s,socket-abstract=no,socket=/tmp/tern-share-%d.sock", end,
	        end ? "client" : "server", (int)getpid()); /* not in inter_dir: the file goes when the process ends */
	return text[end];
}

static void listen_at(struct inter_node *n, int end, int family, const char *more)
{
	char text[512];
	n->port = inter_free_port();
	snprintf(text, sizeof(text), "dpdk://%s:%u?ctl=127.0.0.1:%u&dev=%s%s", ip_text[family][end], n->port, n->port, device(end), more);
	int err = tern_listen(n->ep, text);
	if (err)
		inter_fail(__FILE__, __LINE__, "tern_listen %s: %d %s", text, err, inter_detail(n, 0));
}

/* From a port at `end`, which is there already or is made, to a listener at the other. */
static tern_peer dial(struct inter_node *n, int end, int family, const struct inter_node *to, bool makes)
{
	char text[512];
	tern_peer peer = 0;
	snprintf(text, sizeof(text), "dpdk://%s:%u?ctl=127.0.0.1:%u&dev=%s%s%s", ip_text[family][!end], to->port, to->port,
	         makes ? device(end) : end ? "net_memif1" : "net_memif0", makes ? "&" : "", makes ? ip_option[family][end] : "");
	int err = tern_connect_text(n->ep, text, NULL, &peer);
	if (err)
		inter_fail(__FILE__, __LINE__, "tern_connect_text %s: %d %s", text, err, inter_detail(n, 0));
	return peer;
}

static tern_peer connected(struct inter_node *n)
{
	tern_event e = inter_await(n, TERN_EV_CONNECTED, 0);
	if (e.status)
		inter_fail(__FILE__, __LINE__, "connecting: %d %s", e.status, inter_detail(n, e.peer));
	return e.peer;
}

static void threaded(struct inter_node *n, uint32_t flags)
{
	tern_config c = inter_config();
	c.flags = flags;
	inter_open(n, &c);
}

static void pass(struct inter_node *from, tern_peer to_peer, struct inter_node *to, tern_peer from_peer, uint64_t bytes)
{
	static uint8_t out[BIG], in[BIG];
	static uint64_t tag;
	tag++;
	inter_fill(out, bytes, tag);
	memset(in, 0, bytes);
	tern_op r = inter_recv(to, from_peer, in, bytes, tag, 0), s = inter_send(from, to_peer, out, bytes, tag, 0);
	tern_event e = inter_await(to, TERN_EV_RECV, r);
	CHECK_EQ(e.status, 0);
	CHECK(inter_filled(in, bytes, tag));
	CHECK_EQ(inter_await(from, TERN_EV_SEND, s).status, 0);
}

static void listens_and_dials_with(uint32_t flags, int family)
{
	static struct inter_node a, b;
	threaded(&a, flags);
	threaded(&b, flags);
	listen_at(&a, 0, family, "");
	listen_at(&b, 1, family, "");
	tern_peer ab = dial(&a, 0, family, &b, false);
	CHECK_EQ(connected(&a), ab);
	tern_peer ba = connected(&b);
	tern_peer ba2 = dial(&b, 1, family, &a, false);
	CHECK_EQ(connected(&b), ba2);
	tern_peer ab2 = connected(&a);
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t bytes = i % 2 ? BIG : 64;
		pass(&a, ab, &b, ba, bytes);
		pass(&b, ba, &a, ab, bytes);
		pass(&a, ab2, &b, ba2, bytes);
		pass(&b, ba2, &a, ab2, bytes);
	}
	inter_close(&a);
	inter_close(&b);
}

static void listens_and_dials(void)
{
	for (int family = 0; family < FAMILY_END; family++) {
		listens_and_dials_with(0, family);
		listens_and_dials_with(TERN_OWN_THREAD, family);
	}
}

/* MANY contexts at one port, each with a thread of its own and a listener; one context at the other end talks to all of them at once. */
static void contexts_with(int family)
{
	static uint8_t out[MANY][BIG], in[MANY][BIG];
	static struct inter_node one, many[MANY];
	tern_peer to[MANY], back[MANY];
	tern_op s[2][MANY], r[2][MANY];

	for (int i = 0; i < MANY; i++) {
		threaded(&many[i], TERN_OWN_THREAD);
		listen_at(&many[i], 0, family, "");
	}
	threaded(&one, TERN_OWN_THREAD);
	for (int i = 0; i < MANY; i++) {
		to[i] = dial(&one, 1, family, &many[i], true);
		CHECK_EQ(connected(&one), to[i]);
		back[i] = connected(&many[i]);
		inter_fill(out[i], BIG, (uint64_t)i);
	}
	for (int round = 0; round < ROUNDS; round++) {
		memset(in, 0, sizeof(in));
		for (int i = 0; i < MANY; i++) { /* there one half, back the other */
			r[0][i] = inter_recv(&many[i], back[i], in[i], BIG / 2, 1, 0);
			r[1][i] = inter_recv(&one, to[i], in[i] + BIG / 2, BIG / 2, 2, 0);
			s[0][i] = inter_send(&one, to[i], out[i], BIG / 2, 1, 0);
			s[1][i] = inter_send(&many[i], back[i], out[i] + BIG / 2, BIG / 2, 2, 0);
		}
		for (int i = 0; i < MANY; i++) {
			CHECK_EQ(inter_await(&many[i], TERN_EV_RECV, r[0][i]).status, 0);
			CHECK_EQ(inter_await(&one, TERN_EV_RECV, r[1][i]).status, 0);
			CHECK_EQ(inter_await(&one, TERN_EV_SEND, s[0][i]).status, 0);
			CHECK_EQ(inter_await(&many[i], TERN_EV_SEND, s[1][i]).status, 0);
			CHECK(!memcmp(in[i], out[i], BIG));
		}
	}
	inter_close(&many[0]); /* the one that opened the port; the others go on */
	for (int i = 1; i < MANY; i++)
		pass(&one, to[i], &many[i], back[i], BIG);
	inter_close(&one);
	for (int i = 1; i < MANY; i++)
		inter_close(&many[i]);
}

static void contexts(void)
{
	for (int family = 0; family < FAMILY_END; family++)
		contexts_with(family);
}

/* Contexts come to a port and leave it while another moves data over it. */
static void come_and_go(void)
{
	static struct inter_node a, b, guest;
	threaded(&a, TERN_OWN_THREAD);
	threaded(&b, TERN_OWN_THREAD);
	listen_at(&a, 0, 0, "");
	tern_peer ba = dial(&b, 1, 0, &a, true);
	CHECK_EQ(connected(&b), ba);
	tern_peer ab = connected(&a);
	static uint8_t out[2 * BIG], in[2 * BIG];
	inter_fill(out, sizeof(out), 9);
	for (int i = 0; i < ROUNDS; i++) {
		tern_op r = inter_recv(&a, ab, in, sizeof(in), 1, 0), s = inter_send(&b, ba, out, sizeof(out), 1, 0);
		threaded(&guest, i % 2 ? TERN_OWN_THREAD : 0);
		listen_at(&guest, i % 4 < 2, 0, "");
		inter_close(&guest);
		CHECK_EQ(inter_await(&a, TERN_EV_RECV, r).status, 0);
		CHECK_EQ(inter_await(&b, TERN_EV_SEND, s).status, 0);
		CHECK(inter_filled(in, sizeof(in), 9));
	}
	inter_close(&a);
	inter_close(&b);
}

/* Nobody polls the context that opened the port, though frames come for it: the other one loses nothing by that. */
static void unpolled(void)
{
	static struct inter_node a, b, c;
	tern_ctx *idle = NULL;
	tern_ep *ep = NULL;
	char text[512];
	tern_config config = inter_config();

	CHECK_EQ(tern_open(&config, &idle), 0);
	CHECK_EQ(tern_ep_open(idle, &ep), 0);
	uint16_t port = inter_free_port();
	snprintf(text, sizeof(text), "dpdk://10.9.0.1:%u?ctl=127.0.0.1:%u&dev=%s", port, port, device(0));
	CHECK_EQ(tern_listen(ep, text), 0);
	threaded(&a, 0);
	threaded(&b, 0);
	threaded(&c, 0);
	listen_at(&a, 0, 0, "");
	tern_peer ba = dial(&b, 1, 0, &a, true);
	CHECK_EQ(connected(&b), ba);
	tern_peer ab = connected(&a);
	struct inter_node none = {.port = port};
	dial(&c, 1, 0, &none, false); /* its session is set up by the control thread; its pings find nobody awake */
	for (int i = 0; i < ROUNDS; i++) {
		pass(&a, ab, &b, ba, BIG);
		pass(&b, ba, &a, ab, BIG);
	}
	inter_close(&c);
	tern_close(&idle);
	pass(&a, ab, &b, ba, BIG);
	inter_close(&a);
	inter_close(&b);
}

static void refused_as(struct inter_node *n, const char *host, const char *options, const char *words)
{
	char text[512];
	uint16_t port = inter_free_port();
	snprintf(text, sizeof(text), "dpdk://%s:%u?ctl=127.0.0.1:%u&dev=%s", host, port, port, options);
	int err = tern_listen(n->ep, text);
	if (!err)
		inter_fail(__FILE__, __LINE__, "tern_listen %s is taken", text);
	CHECK_SAYS(inter_detail(n, 0), words);
}

/* What a joining link says otherwise than the first is refused in words that name both. */
static void refused(void)
{
	static struct inter_node a, b;
	char text[512];
	int n = 0;

	threaded(&a, 0);
	threaded(&b, 0);
	listen_at(&a, 0, 0, "");
	refused_as(&b, "10.9.0.7", "net_memif0", "ip=10.9.0.7: port net_memif0 is open in this process with 10.9.0.1");
	refused_as(&b, "10.9.0.1", "net_memif0&vlan=7", "vlan=7: port net_memif0 is open in this process with no VLAN");
	refused_as(&b, "10.9.0.1", "net_memif0&gw=10.9.0.9", "gw=10.9.0.9: port net_memif0 is open in this process with no address");
	refused_as(&b, "10.9.0.1", "net_memif0&ip6=fd00::1/64", "ip6=fd00::1: port net_memif0 is open in this process with no address");
	refused_as(&b, "10.9.0.1", "net_memif0&if=lo", "if=lo: port net_memif0 is open in this process with no interface");
	refused_as(&b, "10.9.0.1", "net_memif0&mtu=9000", "mtu=9000: port net_memif0 is open with 1500");
	refused_as(&b, "10.9.0.1", "net_memif0,role=client",
	        "dev=net_memif0,role=client: port net_memif0 is open in this process with net_memif0,role=server");
	snprintf(text, sizeof(text), "dpdk://10.9.0.1:%u?ctl=127.0.0.1:%u&dev=net_memif0", a.port, inter_free_port());
	CHECK(tern_listen(b.ep, text) != 0);
	CHECK_SAYS(inter_detail(&b, 0), "is in use");
	for (; n < 7; n++) { /* as many as there can be, and one more */
		snprintf(text, sizeof(text), "dpdk://10.9.0.1:%u?ctl=127.0.0.1:%u", inter_free_port(), inter_free_port());
		CHECK_EQ(tern_listen(b.ep, text), 0);
	}
	CHECK_EQ(tern_listen(b.ep, text), -TERN_ELIMIT);
	CHECK_SAYS(inter_detail(&b, 0), "8 links, as many as there can be");
	inter_close(&b);
	inter_close(&a);
}

static const struct inter_case cases[] = {
	{"listens_and_dials", listens_and_dials},
	{"contexts", contexts},
	{"come_and_go", come_and_go},
	{"unpolled", unpolled},
	{"refused", refused},
};

int main(int argc, char **argv)
{
	setenv("TERN_DPDK_EAL", "--no-huge -m 320 --no-pci", 0);
	return inter_main(argc, argv, "dpdk_share", cases, sizeof(cases) / sizeof(cases[0]));
}
