/* Several paths of one peer over the dpdk link: two or four UDP ports of ours, over one port. Both ends of a memif in this process, or a kernel's udp context at the
 * other end of a veth (af_packet). Every byte is checked, and that each path carried its share; one path leads to a station that is not there. */
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "inter.h"

enum { BYTES = 1 << 20, ROUNDS = 40 };

static struct inter_pair p;

static bool command(const char *text)
{
	char quiet[512];
	snprintf(quiet, sizeof(quiet), "(%s) >/dev/null 2>&1", text);
	return system(quiet) == 0;
}

/* How the ends are joined: scheme, host and options of each. The first listens, at `any` if it has more addresses. */
struct wire {
	const char *scheme[2], *host[2], *options[2], *any;
};

static const char *device(int end)
{
	static char text[2][256];
	snprintf(text[end], sizeof(text[end]),
	        "dev=net_memif%d,role=%s,socket-abstract=no,socket=/tmp/tern-paths-%d.sock&ip=10.9.0.%d/24&ip6=fd00:9::%d/64", end,
	        end ? "client" : "server", (int)getpid(), end + 1, end + 1);
	return text[end];
}

static struct wire memif(void)
{
	return (struct wire){{"dpdk", "dpdk"}, {"10.9.0.1", "10.9.0.2"}, {device(0), device(1)}};
}

/* @param more  options of both @param query  of who dials */
static void open_pair(const struct wire *w, const char *more, const char *query)
{
	char text[512];
	uint16_t port = inter_free_port();

	memset(&p, 0, sizeof(p));
	inter_open(&p.a, NULL);
	inter_open(&p.b, NULL);
	snprintf(text, sizeof(text), "%s://%s:%u?ctl=127.0.0.1:%u&%s%s", w->scheme[0], w->any ? w->any : w->host[0], port, port, w->options[0], more);
	int err = tern_listen(p.b.ep, text);
	if (err)
		inter_fail(__FILE__, __LINE__, "%s: %d %s", text, err, inter_detail(&p.b, 0));
	snprintf(text, sizeof(text), "%s://%s:%u?ctl=127.0.0.1:%u&%s%s%s", w->scheme[1], w->host[0], port, port, w->options[1], more, query);
	err = tern_connect_text(p.a.ep, text, NULL, &p.ab);
	if (err)
		inter_fail(__FILE__, __LINE__, "%s: %d %s", text, err, inter_detail(&p.a, 0));
	tern_event e = inter_await(&p.a, TERN_EV_CONNECTED, 0);
	if (e.status)
		inter_fail(__FILE__, __LINE__, "connecting: %d %s", e.status, inter_detail(&p.a, e.peer));
	p.ba = inter_await(&p.b, TERN_EV_CONNECTED, 0).peer;
}

static void exchange(unsigned rounds)
{
	static uint8_t out[2][BYTES], in[2][BYTES];
	static uint64_t tag;

	for (unsigned i = 0; i < rounds; i++, tag++) {
		memset(in, 0, sizeof(in));
		for (int d = 0; d < 2; d++)
			inter_fill(out[d], BYTES, 2 * tag + (uint64_t)d);
		tern_op there = inter_recv(&p.b, p.ba, in[0], BYTES, tag, 0), back = inter_recv(&p.a, p.ab, in[1], BYTES, tag, 0);
		tern_op s = inter_send(&p.a, p.ab, out[0], BYTES, tag, 0), t = inter_send(&p.b, p.ba, out[1], BYTES, tag, 0);
		CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, there).status, 0);
		CHECK_EQ(inter_await(&p.a, TERN_EV_RECV, back).status, 0);
		CHECK_EQ(inter_await(&p.a, TERN_EV_SEND, s).status, 0);
		CHECK_EQ(inter_await(&p.b, TERN_EV_SEND, t).status, 0);
		CHECK(inter_filled(in[0], BYTES, 2 * tag) && inter_filled(in[1], BYTES, 2 * tag + 1));
	}
}

static uint64_t sent(struct inter_node *n, tern_peer peer, unsigned path)
{
	char scope[64];
	snprintf(scope, sizeof(scope), "peer/%llu/path/%u", (unsigned long long)peer, path);
	return inter_stat_of(n, scope, "tx_bytes");
}

/* Until path k of the first end has sent so many bytes more. */
static void exchange_until(unsigned k, uint64_t bytes)
{
	uint64_t before = sent(&p.a, p.ab, k);
	for (unsigned i = 0; i < 4 * ROUNDS && sent(&p.a, p.ab, k) < before + bytes; i++)
		exchange(1);
	CHECK(sent(&p.a, p.ab, k) >= before + bytes);
}

/* Both ends, all paths: paced, so that the machine does not decide which one is the faster. */
static void over_all(const struct wire *w, const char *more, unsigned paths)
{
	char query[256], with[256];
	bool all = false;

	snprintf(with, sizeof(with), "%s&cc=fixed&contract=%s", more, inter_file("contract.ini", "rate = 200Mbit\ndedicated = yes\n", 0600));
	snprintf(query, sizeof(query), "&paths=%u", paths);
	open_pair(w, with, query);
	for (unsigned i = 1; i < paths; i++)
		CHECK_EQ(inter_await(&p.a, TERN_EV_PATH, 0).status, 0);
	CHECK_EQ(inter_stat(&p.a, p.ab, "paths_up"), paths);
	CHECK_EQ(inter_stat(&p.b, p.ba, "paths"), paths);
	for (unsigned i = 0; i < ROUNDS && !all; i++) {
		exchange(1);
		all = true;
		for (unsigned k = 0; k < paths; k++)
			all &= sent(&p.a, p.ab, k) > BYTES / 2 && sent(&p.b, p.ba, k) > BYTES / 2;
	}
	for (unsigned k = 0; k < paths; k++)
		printf("\n    fact path %u: %llu bytes sent, %llu back", k, (unsigned long long)sent(&p.a, p.ab, k),
		        (unsigned long long)sent(&p.b, p.ba, k));
	CHECK(all);
	inter_pair_close(&p);
}

static void memif_sealed(void)
{
	struct wire w = memif();
	over_all(&w, "", 2);
}

static void memif_private(void)
{
	struct wire w = memif();
	over_all(&w, "&private=1", 4);
}

static void memif_ip6(void)
{
	struct wire w = memif();
	w.host[0] = "[fd00:9::1]";
	over_all(&w, "", 2);
}

/* Its neighbour does not answer: what was to go there goes by the other one, and nothing of it is missed. */
static void memif_nobody(void)
{
	struct wire w = memif();
	open_pair(&w, "", "&also=10.9.0.77");
	CHECK_EQ(inter_stat(&p.a, p.ab, "paths"), 2);
	exchange(8);
	CHECK_EQ(inter_stat(&p.a, p.ab, "paths_up"), 1);
	CHECK(sent(&p.a, p.ab, 0) > 8 * BYTES);
	inter_pair_close(&p);
}

/* A path to an address of its own that goes away while messages move, and comes back: they go on by the other, complete, and by both again. */
static void path_dies(struct wire w)
{
	char with[256];

	CHECK(command("ip addr add 10.9.0.3/24 dev tpb"));
	snprintf(with, sizeof(with), "&cc=fixed&contract=%s", inter_file("contract.ini", "rate = 200Mbit\ndedicated = yes\n", 0600));
	w.any = "0.0.0.0";
	open_pair(&w, with, "&also=10.9.0.3");
	CHECK_EQ(inter_await(&p.a, TERN_EV_PATH, 0).status, 0);
	exchange_until(0, BYTES);
	exchange_until(1, BYTES);
	CHECK(command("ip addr del 10.9.0.3/24 dev tpb"));
	uint64_t before = sent(&p.a, p.ab, 0);
	exchange(ROUNDS / 2);
	CHECK(sent(&p.a, p.ab, 0) > before + (uint64_t)BYTES * ROUNDS / 4);
	CHECK_EQ(inter_stat(&p.a, p.ab, "paths_up"), 1);
	CHECK(command("ip addr add 10.9.0.3/24 dev tpb"));
	exchange_until(1, BYTES);
	CHECK_EQ(inter_stat(&p.a, p.ab, "paths_up"), 2);
	inter_pair_close(&p);
}

/* The kernel at the other end, which listens or dials. */
static void kernel(void)
{
	static const char dev[] = "dev=net_af_packet0,iface=tpa,framecnt=2048&ip=10.9.0.1/24";
	const struct wire listens = {{"dpdk", "udp"}, {"10.9.0.1", "10.9.0.2"}, {dev, ""}};
	const struct wire dials = {{"udp", "dpdk"}, {"10.9.0.2", "10.9.0.1"}, {"", dev}};

	if (!command("ip link add tpa type veth peer name tpb && ip link set tpa up && ip link set tpb up && ip addr add 10.9.0.2/24 dev tpb && "
	             "ethtool -K tpb tx off tso off gso off gro off")) {
		printf("\n    SKIP: no veth, or no ethtool\n");
		return;
	}
	over_all(&listens, "", 2);
	over_all(&listens, "&private=1", 2);
	over_all(&dials, "", 2);
	over_all(&dials, "&private=1", 2);
	path_dies(dials);
}

static const struct inter_case cases[] = {
        {"memif_sealed", memif_sealed},
        {"memif_private", memif_private},
        {"memif_ip6", memif_ip6},
        {"memif_nobody", memif_nobody},
        {"kernel", kernel},
};

int main(int argc, char **argv)
{
	setenv("TERN_DPDK_EAL", "--no-huge -m 320 --no-pci", 0);
	if (unshare(CLONE_NEWNET) || !command("ip link set lo up")) {
		printf("skip: no network namespace of our own (needs root): %s\n", strerror(errno));
		return 77;
	}
	return inter_main(argc, argv, "dpdk_paths", cases, sizeof(cases) / sizeof(cases[0]));
}
