/* Several paths of one peer, on real sockets: bytes go over all of them, one that leads nowhere harms nobody, what cannot be asked for is said in words. Over RDMA
 * (TERN_TEST_RDMA, two wires in tests/guest) the same with a device a path. What happens when a path dies: paths.sh. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "inter.h"

enum { BYTES = 4 << 20, ROUNDS = 24 };

static struct inter_pair p;

static uint64_t path_stat(struct inter_node *n, tern_peer peer, unsigned path, const char *name)
{
	char scope[64];
	snprintf(scope, sizeof(scope), "peer/%llu/path/%u", (unsigned long long)peer, path);
	return inter_stat_of(n, scope, name);
}

/* The listener takes "private" from the query, and nothing else of it. */
static void open_pair(const tern_config *config, const char *listen, const char *query)
{
	const char *rdma = getenv("TERN_TEST_RDMA");
	char text[512];
	memset(&p, 0, sizeof(p));
	inter_open(&p.a, config);
	inter_open(&p.b, config);
	if (rdma) {
		snprintf(text, sizeof(text), "rdma://0.0.0.0:0?private=1&dev=rxe1,rxe3&%s", rdma);
		inter_listen_text(&p.b, text);
		snprintf(text, sizeof(text), "rdma://10.9.0.2:%u%s&private=1&dev=rxe0,rxe2&%s", p.b.port, query, rdma);
		p.ab = inter_connect_text(&p.a, text);
	} else {
		inter_listen(&p.b, listen, strstr(query, "private=1") ? "?private=1" : "");
		p.ab = inter_connect(&p.a, "127.0.0.1", p.b.port, query);
	}
	tern_event e = inter_await(&p.a, TERN_EV_CONNECTED, 0);
	if (e.status)
		inter_fail(__FILE__, __LINE__, "connecting: %d %s", e.status, inter_detail(&p.a, e.peer));
	p.ba = inter_await(&p.b, TERN_EV_CONNECTED, 0).peer;
}

/* Large messages one way, small ones back: each comes whole and in order. */
static void exchange(unsigned rounds)
{
	uint8_t *from = malloc(BYTES), *to = malloc(BYTES), word[64], back[64];
	CHECK(from && to);
	for (unsigned i = 0; i < rounds; i++) {
		inter_fill(from, BYTES, i);
		inter_fill(word, sizeof(word), 1000 + i);
		memset(to, 0, BYTES);
		tern_op recv = inter_recv(&p.b, p.ba, to, BYTES, i, 0), small = inter_recv(&p.a, p.ab, back, sizeof(back), i, 0);
		inter_send(&p.a, p.ab, from, BYTES, i, 0);
		inter_send(&p.b, p.ba, word, sizeof(word), i, 0);
		CHECK_EQ(inter_await_for(&p.b, TERN_EV_RECV, recv, 60).status, 0);
		CHECK_EQ(inter_await(&p.a, TERN_EV_RECV, small).status, 0);
		CHECK_EQ(inter_await(&p.a, TERN_EV_SEND, 0).status, 0);
		CHECK_EQ(inter_await(&p.b, TERN_EV_SEND, 0).status, 0);
		CHECK(inter_filled(to, BYTES, i));
		CHECK(inter_filled(back, sizeof(back), 1000 + i));
	}
	free(from);
	free(to);
}

/* The first came with CONNECTED; each other one is told, once. */
static void await_paths(unsigned n)
{
	uint64_t told = 0;
	for (unsigned i = 1; i < n; i++) {
		tern_event e = inter_await(&p.a, TERN_EV_PATH, 0);
		CHECK_EQ(e.status, 0);
		CHECK_EQ(e.peer, p.ab);
		CHECK(e.imm < n && !(told & 1u << e.imm));
		told |= 1u << e.imm;
	}
	CHECK_EQ(inter_stat(&p.a, p.ab, "paths_up"), n);
}

/* Paced by a contract, so that what the machine does besides does not decide which path is the faster: each one carries bulk. */
static void over_all(const char *query, unsigned paths)
{
	tern_config c = inter_config();
	char with[256];
	snprintf(with, sizeof(with), "%s&cc=fixed&contract=%s", query, inter_file("contract.ini", "rate = 200Mbit\ndedicated = yes\n", 0600));
	open_pair(&c, "0.0.0.0", with);
	CHECK_EQ(inter_stat(&p.a, p.ab, "paths"), paths);
	CHECK_EQ(inter_stat(&p.b, p.ba, "paths"), paths);
	await_paths(paths);
	uint64_t bytes[16] = {0};
	bool all = false;
	for (unsigned i = 0; i < ROUNDS && !all; i++) {
		exchange(4);
		all = true;
		for (unsigned k = 0; k < paths; k++) {
			bytes[k] = path_stat(&p.a, p.ab, k, "tx_bytes");
			all &= bytes[k] > BYTES;
		}
	}
	for (unsigned k = 0; k < paths; k++)
		printf("        path %u: %llu bytes sent\n", k, (unsigned long long)bytes[k]);
	CHECK(all);
	if (getenv("TERN_TEST_RDMA")) /* the cards place it, over whichever path */
		CHECK(inter_stat(&p.a, 0, "direct_bytes") > BYTES);
	inter_pair_close(&p);
}

static void two_addresses(void)
{
	over_all(getenv("TERN_TEST_RDMA") ? "?also=10.9.1.2" : "?also=127.0.0.2", 2);
}

static void two_addresses_private(void)
{
	if (!getenv("TERN_TEST_RDMA")) /* that is private always */
		over_all("?also=127.0.0.2&private=1", 2);
}

/* Frames small enough that one look at the sockets brings many of both paths, guessed into the same receive. */
static void guesses_of_two_paths(void)
{
	static const char *const query[] = {"?paths=2&private=1&mtu=9000", "?paths=2&private=1&mtu=9000&engine=plain",
		"?also=127.0.0.2&private=1&mtu=4200", "?paths=8&private=1&mtu=9000"};
	tern_config c = inter_config();
	for (unsigned i = 0; i < sizeof(query) / sizeof(query[0]) && !getenv("TERN_TEST_RDMA"); i++) {
		open_pair(&c, "0.0.0.0", query[i]);
		exchange(12);
		inter_pair_close(&p);
	}
}

static void four_paths(void)
{
	over_all(getenv("TERN_TEST_RDMA") ? "?also=10.9.1.2&paths=2" : "?also=127.0.0.2&paths=2", 4);
}

/* The second address has no listener: the peer is up by the first, and stays so although nothing ever comes back from the second. */
static void one_leads_nowhere(void)
{
	tern_config c = inter_config();
	c.peer_timeout_ns = 1000000000;
	open_pair(&c, "127.0.0.1", getenv("TERN_TEST_RDMA") ? "?also=10.9.1.77" : "?also=127.0.0.2");
	exchange(4);
	inter_drive(2500000000ull); /* longer than the peer's timeout */
	exchange(4);
	CHECK_EQ(inter_stat(&p.a, p.ab, "paths_up"), 1);
	CHECK_EQ(inter_stat(&p.a, p.ab, "paths"), 2);
	inter_pair_close(&p);
}

static void refused(const char *query, const char *word)
{
	char text[256];
	tern_peer peer;
	snprintf(text, sizeof(text), "udp://127.0.0.1:7400?%s", query);
	CHECK_EQ(tern_connect_text(p.a.ep, text, NULL, &peer), -TERN_EINVAL);
	CHECK_SAYS(inter_detail(&p.a, 0), word);
}

static void what_is_refused(void)
{
	tern_config c = inter_config();
	memset(&p, 0, sizeof(p));
	inter_open(&p.a, &c);
	refused("paths=0", "paths=0");
	refused("paths=17", "1 to 16");
	refused("paths=two", "paths=two");
	refused("also=", "also=");
	refused("also=elsewhere", "no address in digits");
	refused("also=127.0.0.2,", "no address in digits");
	refused("also=127.0.0.2,,127.0.0.3", "no address in digits");
	refused("also=127.0.0.2&paths=9", "18 paths");
	tern_stat s[4];
	size_t n = 4;
	CHECK_EQ(tern_stats_get(p.a.ctx, "peer/1/path/0", s, &n), -TERN_ENOENT);
	inter_close(&p.a);
}

static const struct inter_case cases[] = {
	{"two_addresses", two_addresses},
	{"two_addresses_private", two_addresses_private},
	{"guesses_of_two_paths", guesses_of_two_paths},
	{"four_paths", four_paths},
	{"one_leads_nowhere", one_leads_nowhere},
	{"what_is_refused", what_is_refused},
};

INTER_MAIN("paths", cases)
