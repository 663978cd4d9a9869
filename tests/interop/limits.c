/* Limits are numbers: past one a call says TERN_EAGAIN or TERN_ELIMIT and nothing is lost. Many posts, many small messages, several threads. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "inter.h"

static struct inter_pair p;

/* A million sends through 512 operations; every one gives its event, and the receiver, who is bounded as well, gets each once and in order. */
static void million(uint32_t flags, uint64_t total)
{
	enum { OPS = 512, RECVS = 128 };
	static uint64_t value[RECVS];
	tern_config c = inter_config();
	c.flags = flags;
	c.max_ops = OPS;
	inter_pair_with(&p, "127.0.0.1", "", &c);
	uint64_t posted = 0, sent = 0, received = 0, asked = 0, again = 0, end = inter_now_ns() + 300000000000ull;
	while (sent < total || received < total) {
		CHECK(inter_now_ns() < end);
		while (asked < total && asked < received + RECVS) {
			tern_iov iov = {.addr = &value[asked % RECVS], .bytes = 8};
			CHECK_EQ(tern_recv(p.b.ep, p.ba, &(tern_buf){.iov = &iov, .n = 1}, NULL, NULL), 0);
			asked++;
		}
		while (posted < total) {
			tern_iov iov = {.addr = &posted, .bytes = 8};
			tern_args args = {.size_bytes = sizeof(args), .flags = TERN_INJECT};
			int err = tern_send(p.a.ep, p.ab, &(tern_buf){.iov = &iov, .n = 1}, &args, NULL);
			if (err) {
				CHECK_EQ(err, -TERN_EAGAIN);
				CHECK(posted - sent <= OPS);
				again++;
				break;
			}
			posted++;
		}
		inter_pump(1000000);
		for (size_t i = 0; i < p.a.events; i++)
			CHECK_EQ(p.a.queue[i].status, 0);
		sent += p.a.events;
		p.a.events = 0;
		for (size_t i = 0; i < p.b.events; i++) {
			CHECK_EQ(p.b.queue[i].status, 0);
			CHECK_EQ(p.b.queue[i].type, TERN_EV_RECV);
			CHECK_EQ(value[received % RECVS], received);
			received++;
		}
		p.b.events = 0;
	}
	CHECK_EQ(sent, total);
	CHECK_EQ(received, total);
	CHECK(again > 0);
	inter_pair_close(&p);
}

static void million_polling(void)
{
	million(0, 1000000);
}

static void million_thread(void)
{
	million(TERN_OWN_THREAD, 200000);
}

/* Thousands of small messages posted at once leave in few datagrams. */
static void coalescing(void)
{
	enum { N = 4000 };
	static uint8_t to[N][16], from[N][16];
	inter_pair(&p, "", 0);
	for (uint64_t i = 0; i < N; i++) {
		inter_fill(from[i], 16, i);
		inter_recv(&p.b, p.ba, to[i], 16, i, 0);
	}
	inter_drive(20000000);
	uint64_t before = inter_stat(&p.a, p.ab, "tx_frames");
	for (uint64_t i = 0; i < N; i++)
		inter_send(&p.a, p.ab, from[i], 16, i, TERN_QUIET);
	for (uint64_t i = 0; i < N; i++) {
		tern_event e = inter_await(&p.b, TERN_EV_RECV, 0);
		CHECK_EQ(e.status, 0);
		CHECK_EQ(e.tag, i);
	}
	for (uint64_t i = 0; i < N; i++)
		CHECK(inter_filled(to[i], 16, i));
	uint64_t frames = inter_stat(&p.a, p.ab, "tx_frames") - before;
	if (frames > N / 4)
		inter_fail(__FILE__, __LINE__, "%d messages of 16 bytes took %llu frames", N, (unsigned long long)frames);
	inter_pair_close(&p);
}

/* Far more unmatched bytes than there is memory for: the sender waits, nothing is dropped, whatever order the receives come in. */
static void unmatched_memory(void)
{
	enum { N = 64, BYTES = 100000 };
	static uint8_t from[N][BYTES], to[N][BYTES];
	tern_config c = inter_config();
	tern_op r[N];
	c.unmatched_bytes = 1 << 20;
	inter_pair_with(&p, "127.0.0.1", "", &c);
	for (uint64_t i = 0; i < N; i++) {
		inter_fill(from[i], BYTES, i);
		inter_send(&p.a, p.ab, from[i], BYTES, i, TERN_QUIET);
	}
	inter_drive(50000000);
	for (uint64_t i = N; i-- > 0;)
		r[i] = inter_recv(&p.b, p.ba, to[i], BYTES, i, 0);
	for (uint64_t i = 0; i < N; i++) {
		CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, r[i]).status, 0);
		CHECK(inter_filled(to[i], BYTES, i));
	}
	inter_pair_close(&p);
}

/* As many operations as the config says, no fewer, and not one more. */
static void every_operation(void)
{
	enum { OPS = 40000 };
	static uint8_t to[OPS];
	tern_config c = inter_config();
	tern_op op;
	c.max_ops = OPS;
	inter_pair_with(&p, "127.0.0.1", "", &c);
	for (uint64_t i = 0; i < OPS; i++)
		inter_recv(&p.b, p.ba, to + i, 1, i, 0);
	CHECK_EQ(tern_recv(p.b.ep, p.ba, NULL, NULL, &op), -TERN_EAGAIN);
	inter_drive(50000000);
	CHECK_EQ(p.b.events, 0);
	for (uint64_t i = 0; i < OPS; i++)
		inter_send(&p.a, p.ab, "z", 1, i, 0);
	for (uint64_t seen = 0, end = inter_now_ns() + 60000000000ull; seen < 2 * OPS;) {
		CHECK(inter_now_ns() < end);
		inter_pump(1000000);
		seen += p.a.events + p.b.events;
		for (size_t i = 0; i < p.a.events; i++)
			CHECK_EQ(p.a.queue[i].status, 0);
		for (size_t i = 0; i < p.b.events; i++)
			CHECK_EQ(p.b.queue[i].status, 0);
		p.a.events = p.b.events = 0;
	}
	for (uint64_t i = 0; i < OPS; i++)
		CHECK_EQ(to[i], 'z');
	inter_pair_close(&p);
}

static void too_many_peers(void)
{
	static struct inter_node n, far;
	tern_config c = inter_config();
	tern_peer peer[3];
	c.max_peers = 2;
	inter_open(&far, NULL);
	inter_listen(&far, "127.0.0.1", "");
	inter_open(&n, &c);
	char text[512];
	inter_address(text, sizeof(text), "127.0.0.1", far.port, "");
	for (int i = 0; i < 2; i++)
		CHECK_EQ(tern_connect_text(n.ep, text, NULL, &peer[i]), 0);
	CHECK_EQ(tern_connect_text(n.ep, text, NULL, &peer[2]), -TERN_ELIMIT);
	CHECK_SAYS(inter_detail(&n, 0), "max_peers");
	for (int i = 0; i < 2; i++)
		CHECK_EQ(inter_await(&n, TERN_EV_CONNECTED, 0).status, 0);
	/* one that has ended makes room, and its number stays stale */
	CHECK_EQ(tern_disconnect(n.ep, peer[0], 0), 0);
	CHECK_EQ(inter_await(&n, TERN_EV_PEER_CLOSED, 0).peer, peer[0]);
	CHECK_EQ(tern_connect_text(n.ep, text, NULL, &peer[2]), 0);
	CHECK(peer[2] != peer[0]);
	CHECK_EQ(inter_await(&n, TERN_EV_CONNECTED, 0).status, 0);
	CHECK_EQ(tern_send(n.ep, peer[0], NULL, NULL, NULL), -TERN_ESTALE);
	inter_close(&n);
	inter_close(&far);
}

/* Connecting and leaving again and again leaves nothing behind: slots, ports, descriptors. */
static void come_and_go(void)
{
	static struct inter_node far;
	char x;
	inter_open(&far, NULL);
	inter_listen(&far, "127.0.0.1", "");
	for (int i = 0; i < 150; i++) { /* more than far has slots for */
		static struct inter_node n;
		inter_open(&n, NULL);
		tern_peer peer = inter_connect(&n, "127.0.0.1", far.port, "");
		CHECK_EQ(inter_await(&n, TERN_EV_CONNECTED, 0).status, 0);
		tern_op r = inter_recv(&far, TERN_ANY_PEER, &x, 1, 0, UINT64_MAX);
		inter_send(&n, peer, "x", 1, (uint64_t)i, TERN_QUIET);
		CHECK_EQ(inter_await(&far, TERN_EV_RECV, r).tag, i);
		inter_close(&n);
		CHECK_EQ(inter_await(&far, TERN_EV_PEER_CLOSED, 0).status, 0);
	}
	/* a listener's port is free again when its endpoint is closed */
	char text[512];
	inter_address(text, sizeof(text), "127.0.0.1", far.port, "");
	for (int i = 0; i < 70; i++) {
		tern_ep *ep;
		CHECK_EQ(tern_ep_close(&far.ep), 0);
		CHECK_EQ(tern_ep_open(far.ctx, &ep), 0);
		far.ep = ep;
		int err = tern_listen(ep, text);
		if (err)
			inter_fail(__FILE__, __LINE__, "round %d: %d %s", i, err, inter_detail(&far, 0));
	}
	inter_close(&far);
}

/* Four threads post on one endpoint while one polls. */
enum { THREADS = 4, EACH = 5000 };
static void *poster(void *arg)
{
	uint64_t tag = (uint64_t)(uintptr_t)arg;
	for (uint64_t i = 0; i < EACH;) {
		uint64_t word = tag << 32 | i;
		tern_iov iov = {.addr = &word, .bytes = 8};
		tern_args args = {.size_bytes = sizeof(args), .flags = TERN_INJECT | TERN_QUIET, .tag = tag};
		int err = tern_send(p.a.ep, p.ab, &(tern_buf){.iov = &iov, .n = 1}, &args, NULL);
		if (err == -TERN_EAGAIN)
			sched_yield();
		else if (err)
			return (void *)1;
		else
			i++;
	}
	return NULL;
}

static void many_threads(uint32_t flags)
{
	pthread_t thread[THREADS];
	uint64_t next[THREADS] = {0}, word[64], got = 0, asked = 0, end = inter_now_ns() + 120000000000ull;
	inter_pair(&p, "", flags);
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, poster, (void *)i), 0);
	while (got < THREADS * EACH) {
		CHECK(inter_now_ns() < end);
		while (asked < THREADS * EACH && asked < got + 64) {
			inter_recv(&p.b, p.ba, &word[asked % 64], 8, 0, UINT64_MAX);
			asked++;
		}
		inter_pump(1000000);
		for (size_t i = 0; i < p.b.events; i++) {
			uint64_t w = word[got++ % 64];
			CHECK_EQ(p.b.queue[i].status, 0);
			CHECK_EQ(w >> 32, p.b.queue[i].tag);
			CHECK_EQ(w & 0xffffffff, next[w >> 32 & 3]++); /* each thread's in its order */
		}
		p.b.events = 0;
	}
	for (int i = 0; i < THREADS; i++) {
		void *bad;
		pthread_join(thread[i], &bad);
		CHECK(!bad);
	}
	inter_pair_close(&p);
}

static void threads_polling(void)
{
	many_threads(0);
}

static void threads_own(void)
{
	many_threads(TERN_OWN_THREAD);
}

static void configs(void)
{
	tern_ctx *ctx;
	tern_config c = inter_config();
	char text[TERN_TEXT_MAX];
	struct {
		const char *says;
		uint32_t max_ops, max_peers, mtu;
		uint64_t unmatched;
		const char *cc;
	} bad[] = {
	        {"max_ops is 0", 0, 1, 0, 1 << 20, NULL},
	        {"max_peers is 99999", 10, 99999, 0, 1 << 20, NULL},
	        {"mtu_bytes", 10, 1, 700, 1 << 20, NULL},
	        {"unmatched_bytes is 12", 10, 1, 0, 12, NULL},
	        {"\"warp\"", 10, 1, 0, 1 << 20, "warp"},
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		tern_config b = c;
		b.max_ops = bad[i].max_ops;
		b.max_peers = bad[i].max_peers;
		b.mtu_bytes = bad[i].mtu;
		b.unmatched_bytes = bad[i].unmatched;
		b.cc = bad[i].cc;
		CHECK_EQ(tern_open(&b, &ctx), -TERN_EINVAL);
		CHECK(!ctx);
		CHECK_EQ(tern_error_detail(NULL, 0, text, sizeof(text)), 0);
		CHECK_SAYS(text, bad[i].says);
	}
	c.size_bytes = 4;
	CHECK_EQ(tern_open(&c, &ctx), -TERN_EINVAL);
	/* an older program's smaller struct */
	c = inter_config();
	c.size_bytes = offsetof(tern_config, log);
	CHECK_EQ(tern_open(&c, &ctx), 0);
	CHECK_EQ(tern_close(&ctx), 0);
	CHECK(!ctx);
}

/* Timeouts of 0 are the defaults: nobody is given up at once. */
static void timeouts_of_zero(void)
{
	tern_config c = inter_config();
	char x = 0;
	c.peer_timeout_ns = c.connect_timeout_ns = 0;
	inter_pair_with(&p, "127.0.0.1", "", &c);
	tern_op r = inter_recv(&p.b, p.ba, &x, 1, 1, 0);
	inter_send(&p.a, p.ab, "x", 1, 1, TERN_QUIET);
	CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, r).status, 0);
	inter_drive(20000000);
	CHECK_EQ(p.a.events + p.b.events, 0);
	inter_pair_close(&p);
}

/* One file under as many names as there are numbers: to the library each is another emulation. */
static const char *emu_named(unsigned number)
{
	static char query[200];
	int n = snprintf(query, sizeof(query), "?emu=%s", inter_dir());
	for (int bit = 0; bit < 7; bit++)
		n += snprintf(query + n, sizeof(query) - (size_t)n, "%s", number >> bit & 1 ? "/." : "/");
	snprintf(query + n, sizeof(query) - (size_t)n, "/e.ini");
	return query;
}

/* Each connection with a way of its own: its link closes with it, and at the limit the text says the number. */
static void links_end(void)
{
	enum { LINKS = 64, ROUNDS = 80 };
	static struct inter_node n, far;
	tern_config c = inter_config();
	char text[300];
	tern_peer peer;
	int err = 0;
	inter_file("e.ini", "[link]\ndelay = 1ms\n", 0600);
	inter_open(&far, NULL);
	inter_listen(&far, "127.0.0.1", "");
	c.max_peers = 1; /* the slot is used again and again */
	inter_open(&n, &c);
	for (int i = 0; i < ROUNDS; i++) {
		peer = inter_connect(&n, "127.0.0.1", far.port, emu_named((unsigned)i));
		CHECK_EQ(inter_await(&n, TERN_EV_CONNECTED, 0).status, 0);
		CHECK_EQ(tern_disconnect(n.ep, peer, 0), 0);
		inter_await(&n, TERN_EV_PEER_CLOSED, 0);
	}
	inter_close(&n);
	inter_open(&n, NULL); /* room for 64 peers and a listener: one link too many */
	inter_listen(&n, "127.0.0.1", "");
	for (int i = 0; i < LINKS && !err; i++) {
		snprintf(text, sizeof(text), "udp://127.0.0.1:%u%s", far.port, emu_named((unsigned)i));
		err = tern_connect_text(n.ep, text, NULL, &peer);
	}
	CHECK_EQ(err, -TERN_ELIMIT);
	CHECK_SAYS(inter_detail(&n, 0), "64 links");
	inter_close(&n);
	inter_close(&far);
}

static const struct inter_case cases[] = {
        {"coalescing", coalescing},
        {"unmatched_memory", unmatched_memory},
        {"every_operation", every_operation},
        {"too_many_peers", too_many_peers},
        {"come_and_go", come_and_go},
        {"threads_polling", threads_polling},
        {"threads_own", threads_own},
        {"configs", configs},
        {"timeouts_of_zero", timeouts_of_zero},
        {"links_end", links_end},
        {"million_thread", million_thread},
        {"million_polling", million_polling},
};
INTER_MAIN("limits", cases)
