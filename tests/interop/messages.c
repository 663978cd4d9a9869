/* Tagged messages between two contexts: sizes, order, masks, any peer, flags, cancels; sealed and private, IPv4 and IPv6, own thread and polling. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "inter.h"

static struct inter_pair p;

static const uint64_t sizes[] = {0, 1, 7, 64, 1000, 1207, 1208, 1400, 4096, 4097, 9000, 65536, 65537, 1 << 20, (3 << 20) + 5, 64 << 20};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

static void transfer(uint64_t bytes, bool announced)
{
	uint8_t *from = malloc(bytes + 1), *to = calloc(1, bytes + 1);
	CHECK(from && to);
	inter_fill(from, bytes, bytes);
	to[bytes] = 0x77;
	tern_op recv = 0;
	if (announced) {
		recv = inter_recv(&p.b, p.ba, to, bytes, 5, 0);
		inter_drive(2000000);
	}
	tern_op send = inter_send(&p.a, p.ab, from, bytes, 5, 0);
	if (!announced) {
		inter_drive(2000000);
		recv = inter_recv(&p.b, p.ba, to, bytes, 5, 0);
	}
	tern_event e = inter_await_for(&p.b, TERN_EV_RECV, recv, 60);
	CHECK_EQ(e.status, 0);
	CHECK_EQ(e.bytes, bytes);
	CHECK_EQ(e.tag, 5);
	CHECK_EQ(e.peer, p.ba);
	CHECK(inter_filled(to, bytes, bytes));
	CHECK_EQ(to[bytes], 0x77);
	e = inter_await(&p.a, TERN_EV_SEND, send);
	CHECK_EQ(e.status, 0);
	free(from);
	free(to);
}

static void all_sizes(const char *query, uint32_t flags, const char *host)
{
	tern_config c = inter_config();
	c.flags = flags;
	inter_pair_with(&p, host, query, &c);
	for (size_t i = 0; i < SIZES; i++) {
		transfer(sizes[i], true);
		transfer(sizes[i], false);
	}
	CHECK_EQ(p.a.events + p.b.events, 0);
	inter_pair_close(&p);
}

static void sizes_sealed(void)
{
	all_sizes("", 0, "127.0.0.1");
}

static void sizes_private(void)
{
	all_sizes("?private=1", 0, "127.0.0.1");
}

/* The two ways into the kernel; where io_uring is refused it is the plain one twice. */
static void sizes_engines(void)
{
	if (getenv("TERN_TEST_RDMA")) /* engines are udp's */
		return;
	all_sizes("?engine=plain", 0, "127.0.0.1");
	all_sizes("?engine=uring", TERN_OWN_THREAD, "127.0.0.1");
	all_sizes("?engine=uring&private=1", 0, "127.0.0.1");
}

static void sizes_ipv6(void)
{
	all_sizes("", 0, "[::1]");
}

static void sizes_thread(void)
{
	all_sizes("", TERN_OWN_THREAD, "127.0.0.1");
}

static void sizes_thread_private(void)
{
	all_sizes("?private=1", TERN_OWN_THREAD, "[::1]");
}

/* Messages of random sizes and tags: each receive (in posting order, with its mask) must get the first message in send order that fits. Both ends are
 * held to a model. */
enum { ORDER_N = 200 };
static struct {
	uint64_t tag, bytes, seed;
	bool taken;
} sent[ORDER_N];

static int model_match(uint64_t tag, uint64_t ignore)
{
	for (int i = 0; i < ORDER_N; i++)
		if (!sent[i].taken && !((sent[i].tag ^ tag) & ~ignore))
			return i;
	return -1;
}

static void order_and_masks(void)
{
	static uint8_t *to[ORDER_N], *from[ORDER_N];
	static tern_op recv[ORDER_N];
	int expect[ORDER_N], posted = 0;
	srand48((long)inter_seed());
	inter_pair(&p, "", 0);
	for (int i = 0; i < ORDER_N; i++) {
		sent[i].tag = (uint64_t)lrand48() % 4 | (uint64_t)(lrand48() % 3) << 32;
		sent[i].bytes = lrand48() % 8 ? (uint64_t)lrand48() % 3000 : (uint64_t)lrand48() % 200000;
		sent[i].seed = (uint64_t)i + 1000;
		sent[i].taken = false;
		from[i] = malloc(sent[i].bytes + 1);
		inter_fill(from[i], sent[i].bytes, sent[i].seed);
	}
	for (int i = 0; i < ORDER_N; i++)
		inter_send(&p.a, p.ab, from[i], sent[i].bytes, sent[i].tag, TERN_QUIET);
	for (int i = 0; i < ORDER_N; i++) {
		uint64_t tag = (uint64_t)lrand48() % 4 | (uint64_t)(lrand48() % 3) << 32;
		uint64_t ignore = i % 5 == 0 ? UINT64_MAX : i % 3 == 0 ? 0xffffffff : i % 2 ? 0xffffffff00000000ull : 0;
		int want = model_match(tag, ignore);
		if (want < 0)
			continue; /* it would wait for ever */
		sent[want].taken = true;
		expect[posted] = want;
		to[posted] = malloc(200001);
		recv[posted] = inter_recv(&p.b, i % 7 ? p.ba : TERN_ANY_PEER, to[posted], 200000, tag, ignore);
		posted++;
		if (i % 11 == 0)
			inter_pump(0);
	}
	for (int i = 0; i < posted; i++) {
		tern_event e = inter_await(&p.b, TERN_EV_RECV, recv[i]);
		CHECK_EQ(e.status, 0);
		CHECK_EQ(e.tag, sent[expect[i]].tag);
		CHECK_EQ(e.bytes, sent[expect[i]].bytes);
		CHECK(inter_filled(to[i], e.bytes, sent[expect[i]].seed));
		free(to[i]);
	}
	inter_pair_close(&p);
	for (int i = 0; i < ORDER_N; i++)
		free(from[i]);
}

static void any_peer(void)
{
	static struct inter_node c;
	static uint8_t big[2][300000], to[4][300000];
	inter_pair(&p, "", 0);
	inter_open(&c, NULL);
	tern_peer cb = inter_connect(&c, "127.0.0.1", p.b.port, "");
	CHECK_EQ(inter_await(&c, TERN_EV_CONNECTED, 0).status, 0);
	tern_peer bc = inter_await(&p.b, TERN_EV_CONNECTED, 0).peer;
	inter_fill(big[0], 300000, 1);
	inter_fill(big[1], 300000, 2);
	tern_op r[4];
	for (int i = 0; i < 4; i++)
		r[i] = inter_recv(&p.b, TERN_ANY_PEER, to[i], 300000, 0, UINT64_MAX);
	inter_drive(2000000);
	for (int i = 0; i < 2; i++) {
		inter_send(&p.a, p.ab, big[0], i ? 300000 : 100, 10, TERN_QUIET);
		inter_send(&c, cb, big[1], i ? 300000 : 100, 20, TERN_QUIET);
	}
	int seen[2] = {0, 0};
	for (int i = 0; i < 4; i++) {
		tern_event e = inter_await(&p.b, TERN_EV_RECV, r[i]);
		int who = e.peer == bc;
		CHECK_EQ(e.status, 0);
		CHECK_EQ(e.peer, who ? bc : p.ba);
		CHECK_EQ(e.tag, who ? 20 : 10);
		CHECK_EQ(e.bytes, seen[who]++ ? 300000 : 100); /* send order of each */
		CHECK(inter_filled(to[i], e.bytes, who ? 2 : 1));
	}
	inter_close(&c);
	inter_pair_close(&p);
}

static void flags(void)
{
	char text[4096], to[4096];
	tern_event e;
	inter_pair(&p, "", 0);
	/* INJECT: the buffer is free on return */
	inter_fill(text, sizeof(text), 9);
	tern_op s = inter_send(&p.a, p.ab, text, sizeof(text), 1, TERN_INJECT);
	memset(text, 0, sizeof(text));
	tern_op r = inter_recv(&p.b, p.ba, to, sizeof(to), 1, 0);
	CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, r).status, 0);
	CHECK(inter_filled(to, sizeof(to), 9));
	CHECK_EQ(inter_await(&p.a, TERN_EV_SEND, s).status, 0);
	tern_iov iov = {.addr = text, .bytes = 4097};
	tern_args args = {.size_bytes = sizeof(args), .flags = TERN_INJECT};
	CHECK_EQ(tern_send(p.a.ep, p.ab, &(tern_buf){.iov = &iov, .n = 1}, &args, NULL), -TERN_EINVAL);
	CHECK_SAYS(inter_detail(&p.a, 0), "4097");
	/* QUIET: no event of a success; one of a failure */
	s = inter_send(&p.a, p.ab, "q", 1, 2, TERN_QUIET);
	r = inter_recv(&p.b, p.ba, to, 1, 2, 0);
	inter_await(&p.b, TERN_EV_RECV, r);
	tern_op mark = inter_send(&p.a, p.ab, "m", 1, 3, 0); /* acknowledged after the quiet one */
	inter_await(&p.a, TERN_EV_SEND, mark);
	CHECK(!inter_take(&p.a, TERN_EV_SEND, s, &e));
	/* DONE_MATCHED: not before a receive took it */
	s = inter_send(&p.a, p.ab, "d", 1, 4, TERN_DONE_MATCHED);
	mark = inter_send(&p.a, p.ab, "m", 1, 5, 0);
	inter_await(&p.a, TERN_EV_SEND, mark);
	inter_drive(5000000);
	CHECK(!inter_take(&p.a, TERN_EV_SEND, s, &e));
	r = inter_recv(&p.b, p.ba, to, 1, 4, 0);
	inter_await(&p.b, TERN_EV_RECV, r);
	CHECK_EQ(inter_await(&p.a, TERN_EV_SEND, s).status, 0);
	inter_pair_close(&p);
}

static void immediate_and_user(void)
{
	static uint8_t big[200000], to[200000];
	int mine, theirs;
	inter_pair(&p, "", 0);
	for (int i = 0; i < 2; i++) {
		uint64_t bytes = i ? sizeof(big) : 3;
		tern_iov from_iov = {.addr = big, .bytes = bytes}, to_iov = {.addr = to, .bytes = bytes};
		tern_args sa = {.size_bytes = sizeof(sa), .flags = TERN_IMM, .imm = 0xfeedfacecafe0001ull, .tag = 8, .user = &mine};
		tern_args ra = {.size_bytes = sizeof(ra), .tag = 8, .user = &theirs};
		CHECK_EQ(tern_recv(p.b.ep, p.ba, &(tern_buf){.iov = &to_iov, .n = 1}, &ra, NULL), 0);
		CHECK_EQ(tern_send(p.a.ep, p.ab, &(tern_buf){.iov = &from_iov, .n = 1}, &sa, NULL), 0);
		tern_event r = inter_await(&p.b, TERN_EV_RECV, 0), s = inter_await(&p.a, TERN_EV_SEND, 0);
		CHECK_EQ(r.status, 0);
		CHECK_EQ(r.imm, 0xfeedfacecafe0001ull);
		CHECK(r.user == &theirs);
		CHECK(s.user == &mine);
		CHECK(s.time_ns && r.time_ns);
	}
	/* NULL arguments: tag 0, no flags; NULL buffer: an empty message */
	CHECK_EQ(tern_recv(p.b.ep, p.ba, NULL, NULL, NULL), 0);
	CHECK_EQ(tern_send(p.a.ep, p.ab, NULL, NULL, NULL), 0);
	CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, 0).bytes, 0);
	CHECK_EQ(inter_await(&p.a, TERN_EV_SEND, 0).status, 0);
	inter_pair_close(&p);
}

static void two_endpoints(void)
{
	static struct inter_node a2, b2;
	char x = 0, y = 0;
	inter_pair(&p, "", 0);
	/* second endpoints in the same contexts: own order, tags, events */
	tern_ep *ea, *eb;
	CHECK_EQ(tern_ep_open(p.a.ctx, &ea), 0);
	CHECK_EQ(tern_ep_open(p.b.ctx, &eb), 0);
	a2 = (struct inter_node){.ctx = p.a.ctx, .ep = ea};
	b2 = (struct inter_node){.ctx = p.b.ctx, .ep = eb};
	inter_listen(&b2, "127.0.0.1", "");
	CHECK(b2.port != p.b.port);
	tern_peer ab2 = inter_connect(&a2, "127.0.0.1", b2.port, ""), ba2 = 0;
	tern_event e;
	size_t got = 0;
	uint64_t end = inter_now_ns() + INTER_DEADLINE_S * 1000000000ull;
	while (!ba2 && inter_now_ns() < end) {
		inter_pump(0);
		CHECK_EQ(tern_poll(eb, &e, 1, &got), 0);
		if (got) {
			CHECK_EQ(e.type, TERN_EV_CONNECTED);
			ba2 = e.peer;
		}
	}
	CHECK(ba2);
	CHECK_EQ(tern_wait(ea, &e, 1, 5000000000ull, &got), 0);
	CHECK_EQ(e.type, TERN_EV_CONNECTED);
	/* the same tag on both: neither takes the other's */
	inter_recv(&b2, TERN_ANY_PEER, &y, 1, 1, 0);
	tern_op r = inter_recv(&p.b, TERN_ANY_PEER, &x, 1, 1, 0);
	inter_send(&p.a, p.ab, "1", 1, 1, TERN_QUIET);
	CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, r).bytes, 1);
	CHECK_EQ(x, '1');
	CHECK_EQ(tern_poll(eb, &e, 1, &got), 0);
	CHECK_EQ(got, 0);
	inter_send(&a2, ab2, "2", 1, 1, TERN_QUIET);
	for (got = 0; !got && inter_now_ns() < end;) {
		inter_pump(0);
		CHECK_EQ(tern_poll(eb, &e, 1, &got), 0);
	}
	CHECK_EQ(got, 1);
	CHECK_EQ(e.type, TERN_EV_RECV);
	CHECK_EQ(y, '2');
	/* a peer of one endpoint is nothing to the other */
	tern_op op;
	CHECK_EQ(tern_send(ea, p.ab, NULL, NULL, &op), -TERN_ESTALE);
	CHECK_EQ(tern_ep_close(&ea), 0);
	CHECK_EQ(tern_ep_close(&eb), 0);
	/* and the first pair lives on */
	r = inter_recv(&p.b, p.ba, &x, 1, 3, 0);
	inter_send(&p.a, p.ab, "3", 1, 3, TERN_QUIET);
	CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, r).status, 0);
	inter_pair_close(&p);
}

static void self_connection(void)
{
	static struct inter_node n;
	static uint8_t from[1 << 20], to[1 << 20];
	inter_open(&n, NULL);
	inter_listen(&n, "127.0.0.1", "");
	tern_peer out = inter_connect(&n, "127.0.0.1", n.port, "");
	tern_event e1 = inter_await(&n, TERN_EV_CONNECTED, 0), e2 = inter_await(&n, TERN_EV_CONNECTED, 0);
	CHECK_EQ(e1.status, 0);
	CHECK_EQ(e2.status, 0);
	CHECK(e1.peer != e2.peer);
	tern_peer in = e1.peer == out ? e2.peer : e1.peer;
	inter_fill(from, sizeof(from), 3);
	tern_op r = inter_recv(&n, in, to, sizeof(to), 1, 0);
	tern_op s = inter_send(&n, out, from, sizeof(from), 1, 0);
	CHECK_EQ(inter_await(&n, TERN_EV_RECV, r).status, 0);
	CHECK_EQ(inter_await(&n, TERN_EV_SEND, s).status, 0);
	CHECK(inter_filled(to, sizeof(to), 3));
	r = inter_recv(&n, out, to, 5, 2, 0);
	inter_send(&n, in, "hello", 5, 2, TERN_QUIET);
	CHECK_EQ(inter_await(&n, TERN_EV_RECV, r).bytes, 5);
	inter_close(&n);
}

static void both_directions(void)
{
	enum { N = 6, BYTES = 4 << 20 };
	static uint8_t *from[2][N], *to[2][N];
	tern_op r[2][N];
	inter_pair(&p, "", 0);
	for (int side = 0; side < 2; side++)
		for (uint64_t i = 0; i < N; i++) {
			from[side][i] = malloc(BYTES);
			to[side][i] = calloc(1, BYTES);
			inter_fill(from[side][i], BYTES, (uint64_t)side * 100 + i);
			r[side][i] = inter_recv(side ? &p.b : &p.a, side ? p.ba : p.ab, to[side][i], BYTES, i, 0);
		}
	for (uint64_t i = 0; i < N; i++) {
		inter_send(&p.a, p.ab, from[1][i], BYTES, i, TERN_QUIET);
		inter_send(&p.b, p.ba, from[0][i], BYTES, i, TERN_QUIET);
	}
	for (int side = 0; side < 2; side++)
		for (uint64_t i = 0; i < N; i++) {
			CHECK_EQ(inter_await_for(side ? &p.b : &p.a, TERN_EV_RECV, r[side][i], 60).status, 0);
			CHECK(inter_filled(to[side][i], BYTES, (uint64_t)side * 100 + i));
		}
	inter_pair_close(&p);
	for (int side = 0; side < 2; side++)
		for (int i = 0; i < N; i++) {
			free(from[side][i]);
			free(to[side][i]);
		}
}

/* ---- cancel: of every kind, always one event ----------------------------------------------------------------------------------------- */

static void cancel_receives(void)
{
	static uint8_t buf[1 << 20], from[1 << 20];
	inter_pair(&p, "", 0);
	tern_op r = inter_recv(&p.b, p.ba, buf, sizeof(buf), 1, 0);
	CHECK_EQ(tern_cancel(p.b.ep, r), 0); /* before any step */
	CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, r).status, -TERN_ECANCELED);
	CHECK_EQ(tern_cancel(p.b.ep, r), -TERN_ESTALE);
	r = inter_recv(&p.b, p.ba, buf, sizeof(buf), 1, 0);
	inter_drive(3000000); /* now it is announced */
	CHECK_EQ(tern_cancel(p.b.ep, r), 0);
	CHECK_EQ(tern_cancel(p.b.ep, r), 0); /* twice is once */
	CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, r).status, -TERN_ECANCELED);
	r = inter_recv(&p.b, TERN_ANY_PEER, buf, sizeof(buf), 1, 0);
	inter_drive(3000000);
	CHECK_EQ(tern_cancel(p.b.ep, r), 0);
	CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, r).status, -TERN_ECANCELED);
	/* nothing of it takes the next message */
	inter_fill(from, sizeof(from), 4);
	memset(buf, 0, sizeof(buf));
	r = inter_recv(&p.b, p.ba, buf, sizeof(buf), 1, 0);
	inter_send(&p.a, p.ab, from, sizeof(from), 1, TERN_QUIET);
	CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, r).status, 0);
	CHECK(inter_filled(buf, sizeof(buf), 4));
	inter_pair_close(&p);
}

static void cancel_sends(void)
{
	enum { BYTES = 64 << 20 };
	static uint8_t small[100];
	uint8_t *big = malloc(BYTES);
	inter_fill(big, BYTES, 6);
	inter_pair(&p, "", 0);
	/* one that waits for a receive: it ends canceled, or was acknowledged into the unmatched memory */
	tern_op s = inter_send(&p.a, p.ab, big, BYTES, 1, 0);
	inter_drive(3000000);
	CHECK_EQ(tern_cancel(p.a.ep, s), 0);
	CHECK_EQ(inter_await(&p.a, TERN_EV_SEND, s).status, -TERN_ECANCELED);
	/* one in flight into a receive: either end, but both ends end */
	tern_op r = inter_recv(&p.b, p.ba, big, BYTES, 2, 0);
	uint8_t *from = malloc(BYTES);
	inter_fill(from, BYTES, 7);
	s = inter_send(&p.a, p.ab, from, BYTES, 2, 0);
	for (int i = 0; i < 50; i++)
		inter_pump(0);
	int err = tern_cancel(p.a.ep, s);
	CHECK(err == 0 || err == -TERN_ESTALE);
	tern_event es = inter_await(&p.a, TERN_EV_SEND, s), er = inter_await(&p.b, TERN_EV_RECV, r);
	CHECK(es.status == 0 || es.status == -TERN_ECANCELED);
	CHECK(er.status == 0 || er.status == -TERN_ECANCELED);
	if (!es.status)
		CHECK_EQ(er.status, 0);
	/* a receive in the middle of its message */
	r = inter_recv(&p.b, p.ba, big, BYTES, 3, 0);
	s = inter_send(&p.a, p.ab, from, BYTES, 3, 0);
	for (int i = 0; i < 50; i++)
		inter_pump(0);
	err = tern_cancel(p.b.ep, r);
	CHECK(err == 0 || err == -TERN_ESTALE);
	er = inter_await(&p.b, TERN_EV_RECV, r);
	memset(big, 0x11, BYTES); /* nothing lands late */
	es = inter_await(&p.a, TERN_EV_SEND, s);
	inter_drive(20000000);
	for (size_t i = 0; i < BYTES; i += 4096)
		CHECK_EQ(big[i], 0x11);
	/* the pair is as good as new; what was given up does not come up again */
	r = inter_recv(&p.b, p.ba, small, sizeof(small), 0, UINT64_MAX);
	inter_send(&p.a, p.ab, "after", 5, 4, TERN_QUIET);
	tern_event e = inter_await(&p.b, TERN_EV_RECV, r);
	CHECK_EQ(e.tag, 4);
	CHECK_EQ(e.status, 0);
	inter_pair_close(&p);
	free(big);
	free(from);
}

/* ---- numbers of ended things --------------------------------------------------------------------------------------------------------- */

static void stale_numbers(void)
{
	char x;
	tern_event e;
	inter_pair(&p, "", 0);
	tern_op r = inter_recv(&p.b, p.ba, &x, 1, 1, 0);
	inter_send(&p.a, p.ab, "x", 1, 1, TERN_QUIET);
	inter_await(&p.b, TERN_EV_RECV, r);
	CHECK_EQ(tern_cancel(p.b.ep, r), -TERN_ESTALE);
	CHECK_EQ(tern_test(p.b.ep, r, &e), -TERN_ESTALE);
	CHECK_EQ(tern_cancel(p.b.ep, 0), -TERN_ESTALE);
	CHECK_EQ(tern_cancel(p.b.ep, UINT64_MAX), -TERN_ESTALE);
	CHECK_EQ(tern_send(p.a.ep, 0, NULL, NULL, NULL), -TERN_ESTALE);
	CHECK_EQ(tern_send(p.a.ep, UINT64_MAX, NULL, NULL, NULL), -TERN_ESTALE);
	CHECK_EQ(tern_send(p.a.ep, p.ab + 1, NULL, NULL, NULL), -TERN_ESTALE);
	CHECK_EQ(tern_recv(p.a.ep, p.ab + (1ull << 32), NULL, NULL, NULL), -TERN_ESTALE);
	CHECK_EQ(tern_disconnect(p.a.ep, 12345, 0), -TERN_ESTALE);
	char name[40];
	uint64_t epoch = 0;
	CHECK_EQ(tern_peer_identity(p.a.ep, p.ab, name, sizeof(name), &epoch), 0);
	CHECK_EQ(strlen(name), 32);
	CHECK(epoch);
	CHECK_EQ(tern_peer_identity(p.a.ep, 999, name, sizeof(name), &epoch), -TERN_ESTALE);
	inter_pair_close(&p);
}

/* An older program's args end earlier; what lies behind them is not read. */
static void older_args(void)
{
	static char x[2];
	tern_args args = {.size_bytes = offsetof(tern_args, imm), .flags = TERN_IMM, .tag = 5, .imm = 77};
	tern_op r;
	inter_pair(&p, "", 0);
	CHECK_EQ(tern_recv(p.b.ep, p.ba, &(tern_buf){.iov = &(tern_iov){.addr = x, .bytes = 1}, .n = 1}, &args, &r), 0);
	CHECK_EQ(tern_send(p.a.ep, p.ab, &(tern_buf){.iov = &(tern_iov){.addr = "x", .bytes = 1}, .n = 1}, &args, NULL), 0);
	tern_event e = inter_await(&p.b, TERN_EV_RECV, r);
	CHECK_EQ(e.status, 0);
	CHECK_EQ(e.tag, 5);
	CHECK_EQ(e.imm, 0);
	args.size_bytes--;
	CHECK_EQ(tern_send(p.a.ep, p.ab, NULL, &args, NULL), -TERN_EINVAL);
	inter_pair_close(&p);
}

static const struct inter_case cases[] = {
        {"sizes_sealed", sizes_sealed},
        {"sizes_private", sizes_private},
        {"sizes_engines", sizes_engines},
        {"sizes_ipv6", sizes_ipv6},
        {"sizes_thread", sizes_thread},
        {"sizes_thread_private", sizes_thread_private},
        {"order_and_masks", order_and_masks},
        {"any_peer", any_peer},
        {"flags", flags},
        {"immediate_and_user", immediate_and_user},
        {"two_endpoints", two_endpoints},
        {"self_connection", self_connection},
        {"both_directions", both_directions},
        {"cancel_receives", cancel_receives},
        {"cancel_sends", cancel_sends},
        {"stale_numbers", stale_numbers},
        {"older_args", older_args},
};
INTER_MAIN("messages", cases)
