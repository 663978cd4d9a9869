/* Reading and writing a peer's exported memory: rights, bounds, revocation, immediates, strided ends. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "inter.h"

static struct inter_pair p;

enum { REGION = 5 << 20 };

/* b exports memory to a. */
struct region {
	uint8_t *addr;
	tern_mem *mem;
	tern_rmem *remote;
};

static void region_open(struct region *g, uint64_t bytes, uint32_t rights)
{
	uint8_t blob[TERN_HANDLE_MAX];
	size_t n = sizeof(blob);
	CHECK_EQ(tern_mem_alloc(p.b.ctx, bytes, (void **)&g->addr, &g->mem), 0);
	CHECK_EQ((uintptr_t)g->addr % 4096, 0);
	int err = tern_mem_export(p.b.ep, g->mem, p.ba, rights, blob, &n);
	CHECK_EQ(err, 0);
	CHECK(n <= TERN_HANDLE_MAX);
	CHECK_EQ(tern_mem_import(p.a.ep, p.ab, blob, n, &g->remote), 0);
}

static void region_close(struct region *g)
{
	CHECK_EQ(tern_rmem_release(&g->remote), 0);
	/* the peer's event may be ahead of its last acknowledgement: the memory is in use until that is here */
	uint64_t end = inter_now_ns() + 5000000000ull;
	int err;
	while ((err = tern_mem_release(&g->mem)) == -TERN_EBUSY && inter_now_ns() < end)
		inter_pump(1000000);
	CHECK_EQ(err, 0);
	CHECK(!g->mem && !g->remote);
}

static int move(bool reading, struct region *g, uint64_t offset, void *addr, uint64_t bytes, const tern_args *args, tern_op *op)
{
	tern_iov iov = {.addr = addr, .bytes = bytes};
	tern_buf buf = {.iov = &iov, .n = 1};
	return reading ? tern_read(p.a.ep, g->remote, offset, &buf, args, op) : tern_write(p.a.ep, g->remote, offset, &buf, args, op);
}

static int move_wait(bool reading, struct region *g, uint64_t offset, void *addr, uint64_t bytes)
{
	tern_op op = 0;
	CHECK_EQ(move(reading, g, offset, addr, bytes, NULL, &op), 0);
	tern_event e = inter_await(&p.a, reading ? TERN_EV_READ : TERN_EV_WRITE, op);
	if (!e.status)
		CHECK_EQ(e.bytes, bytes);
	return e.status;
}

static void there_and_back(const char *query, uint32_t flags)
{
	static uint8_t from[REGION], to[REGION];
	static const uint64_t lengths[] = {1, 8, 100, 1208, 4096, 4097, 65536, 1000003, REGION};
	struct region g;
	inter_pair(&p, query, flags);
	region_open(&g, REGION, TERN_REMOTE_READ | TERN_REMOTE_WRITE);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		uint64_t n = lengths[i], at = (REGION - n) / 2;
		inter_stat(&p.b, 0,
		        "rx_frames"); /* takes b's lock: what its thread read of the region for us comes before, as far as a race detector can see */
		memset(g.addr, 0xee, REGION);
		inter_fill(from, n, n);
		CHECK_EQ(move_wait(false, &g, at, from, n), 0);
		/* the event says that every byte is placed: the owner sees them now */
		CHECK(inter_filled(g.addr + at, n, n));
		CHECK(at == 0 || g.addr[at - 1] == 0xee);
		CHECK(at + n == REGION || g.addr[at + n] == 0xee);
		memset(to, 0, n);
		CHECK_EQ(move_wait(true, &g, at, to, n), 0);
		CHECK(inter_filled(to, n, n));
	}
	CHECK_EQ(move_wait(false, &g, 0, from, 0), 0);
	CHECK_EQ(move_wait(true, &g, REGION, to, 0), 0);
	region_close(&g);
	inter_pair_close(&p);
}

static void sealed(void)
{
	there_and_back("", 0);
}

static void private_thread(void)
{
	there_and_back("?private=1", TERN_OWN_THREAD);
}

static void rights(void)
{
	static uint8_t x[100000];
	struct region r, w;
	inter_pair(&p, "", 0);
	region_open(&r, sizeof(x), TERN_REMOTE_READ);
	region_open(&w, sizeof(x), TERN_REMOTE_WRITE);
	memset(r.addr, 0x33, sizeof(x));
	CHECK_EQ(move_wait(true, &r, 0, x, sizeof(x)), 0);
	CHECK_EQ(x[77777], 0x33);
	for (uint64_t n = 100; n <= sizeof(x); n *= 1000) {
		CHECK_EQ(move_wait(false, &r, 0, x, n > sizeof(x) ? sizeof(x) : n), -TERN_EAUTH);
		CHECK_EQ(move_wait(true, &w, 0, x, n), -TERN_EAUTH);
	}
	memset(x, 0x44, sizeof(x));
	CHECK_EQ(move_wait(false, &r, 0, x, sizeof(x)), -TERN_EAUTH);
	CHECK_EQ(r.addr[5], 0x33); /* and nothing was written */
	CHECK_EQ(r.addr[99999], 0x33);
	CHECK_EQ(move_wait(false, &w, 0, x, sizeof(x)), 0);
	CHECK_EQ(w.addr[99999], 0x44);
	region_close(&r);
	region_close(&w);
	inter_pair_close(&p);
}

static void bounds_and_handles(void)
{
	uint8_t x[64], blob[TERN_HANDLE_MAX];
	size_t n = sizeof(blob);
	struct region g;
	tern_rmem *other = NULL;
	inter_pair(&p, "", 0);
	region_open(&g, 1000, TERN_REMOTE_READ | TERN_REMOTE_WRITE);
	CHECK_EQ(move(false, &g, 990, x, 11, NULL, NULL), -TERN_EINVAL);
	CHECK_SAYS(inter_detail(&p.a, 0), "1000");
	CHECK_EQ(move(true, &g, UINT64_MAX - 3, x, 11, NULL, NULL), -TERN_EINVAL);
	CHECK_EQ(move(true, &g, 1001, x, 0, NULL, NULL), -TERN_EINVAL);
	/* handles: damaged, of nobody, of another life */
	CHECK_EQ(tern_mem_export(p.b.ep, g.mem, p.ba, TERN_REMOTE_READ, blob, &n), 0);
	CHECK_EQ(tern_mem_import(p.a.ep, p.ab, blob, n - 1, &other), -TERN_EINVAL);
	blob[0] ^= 1;
	CHECK_EQ(tern_mem_import(p.a.ep, p.ab, blob, n, &other), -TERN_EINVAL);
	blob[0] ^= 1;
	blob[n - 1] ^= 1; /* the epoch ends the handle */
	CHECK_EQ(tern_mem_import(p.a.ep, p.ab, blob, n, &other), -TERN_ESTALE);
	blob[n - 1] ^= 1;
	CHECK_EQ(tern_mem_import(p.a.ep, 4711, blob, n, &other), -TERN_ESTALE);
	blob[9] ^= 0x40; /* the key */
	CHECK_EQ(tern_mem_import(p.a.ep, p.ab, blob, n, &other), 0);
	struct region wrong = {.remote = other};
	CHECK_EQ(move_wait(true, &wrong, 0, x, 10), -TERN_EAUTH);
	CHECK_EQ(tern_rmem_release(&other), 0);
	n = 5;
	CHECK_EQ(tern_mem_export(p.b.ep, g.mem, p.ba, TERN_REMOTE_READ, blob, &n), -TERN_EINVAL);
	n = sizeof(blob);
	CHECK_EQ(tern_mem_export(p.b.ep, g.mem, p.ba, 0, blob, &n), -TERN_EINVAL);
	CHECK_EQ(tern_mem_export(p.b.ep, g.mem, 4711, TERN_REMOTE_READ, blob, &n), -TERN_ESTALE);
	region_close(&g);
	inter_pair_close(&p);
}

/* An export is for one peer: another peer that got hold of the handle reads nothing. */
static void only_one_peer(void)
{
	static struct inter_node c;
	uint8_t x[10] = {0}, blob[TERN_HANDLE_MAX];
	size_t n = sizeof(blob);
	struct region g;
	inter_pair(&p, "", 0);
	inter_open(&c, NULL);
	tern_peer cb = inter_connect(&c, "127.0.0.1", p.b.port, "");
	CHECK_EQ(inter_await(&c, TERN_EV_CONNECTED, 0).status, 0);
	region_open(&g, 100, TERN_REMOTE_READ);
	CHECK_EQ(tern_mem_export(p.b.ep, g.mem, p.ba, TERN_REMOTE_READ, blob, &n), 0);
	tern_rmem *stolen;
	CHECK_EQ(tern_mem_import(c.ep, cb, blob, n, &stolen), 0);
	tern_iov iov = {.addr = x, .bytes = sizeof(x)};
	tern_op op;
	CHECK_EQ(tern_read(c.ep, stolen, 0, &(tern_buf){.iov = &iov, .n = 1}, NULL, &op), 0);
	CHECK_EQ(inter_await(&c, TERN_EV_READ, op).status, -TERN_EAUTH);
	CHECK_EQ(tern_rmem_release(&stolen), 0);
	region_close(&g);
	inter_close(&c);
	inter_pair_close(&p);
}

static void revoke(void)
{
	static uint8_t x[200000];
	struct region g;
	inter_pair(&p, "", 0);
	region_open(&g, sizeof(x), TERN_REMOTE_READ | TERN_REMOTE_WRITE);
	CHECK_EQ(move_wait(false, &g, 0, x, sizeof(x)), 0);
	CHECK_EQ(tern_mem_revoke(p.b.ep, g.mem, p.ba), 0);
	tern_event e = inter_await(&p.b, TERN_EV_REVOKED, 0);
	CHECK_EQ(e.peer, p.ba);
	memset(g.addr, 0x55, sizeof(x));
	CHECK_EQ(move_wait(false, &g, 0, x, 10), -TERN_EAUTH);
	CHECK_EQ(move_wait(false, &g, 0, x, sizeof(x)), -TERN_EAUTH);
	CHECK_EQ(move_wait(true, &g, 0, x, sizeof(x)), -TERN_EAUTH);
	CHECK_EQ(g.addr[0], 0x55);
	CHECK_EQ(g.addr[199999], 0x55);
	CHECK_EQ(tern_mem_revoke(p.b.ep, g.mem, p.ba), -TERN_ENOENT);
	CHECK_EQ(tern_mem_revoke(p.b.ep, g.mem, 4711), -TERN_ESTALE);
	region_close(&g);
	inter_pair_close(&p);
}

/* Revoked in the middle of a write: REVOKED comes in bounded time, and afterwards nothing lands. */
static void revoke_under_way(void)
{
	enum { BYTES = 64 << 20 };
	struct region g;
	uint8_t *from = malloc(BYTES);
	tern_op op;
	memset(from, 0x66, BYTES);
	inter_pair(&p, "", 0);
	region_open(&g, BYTES, TERN_REMOTE_WRITE);
	CHECK_EQ(move(false, &g, 0, from, BYTES, NULL, &op), 0);
	uint64_t end = inter_now_ns() + 10000000000ull;
	while (!g.addr[1000] && inter_now_ns() < end)
		inter_pump(0);
	CHECK_EQ(g.addr[1000], 0x66);
	CHECK_EQ(tern_mem_revoke(p.b.ep, g.mem, p.ba), 0);
	inter_await(&p.b, TERN_EV_REVOKED, 0);
	memset(g.addr, 0, BYTES);
	tern_event e = inter_await(&p.a, TERN_EV_WRITE, op);
	CHECK(e.status == -TERN_EAUTH || e.status == 0);
	inter_drive(10000000);
	for (size_t i = 0; i < BYTES; i += 512)
		CHECK_EQ(g.addr[i], 0);
	region_close(&g);
	inter_pair_close(&p);
	free(from);
}

/* The owner learns of a write with IMM after its data. */
static void immediate(void)
{
	static uint8_t x[300000];
	struct region g;
	inter_pair(&p, "", 0);
	region_open(&g, sizeof(x), TERN_REMOTE_WRITE);
	for (uint64_t i = 1; i <= 4; i++) {
		uint64_t n = i % 2 ? sizeof(x) : 16;
		tern_args args = {.size_bytes = sizeof(args), .flags = TERN_IMM | TERN_QUIET, .imm = 0x100 + i};
		inter_fill(x, n, i);
		CHECK_EQ(move(false, &g, 0, x, n, &args, NULL), 0);
		tern_event e = inter_await(&p.b, TERN_EV_REMOTE_WRITE, 0);
		CHECK_EQ(e.imm, 0x100 + i);
		CHECK_EQ(e.peer, p.ba);
		CHECK_EQ(e.op, 0);
		CHECK_EQ(e.bytes, n);
		CHECK(inter_filled(g.addr, n, i));
		/* its memory is ours again only after the acknowledgement */
		inter_drive(3000000);
	}
	region_close(&g);
	inter_pair_close(&p);
}

static void many_blocks(void)
{
	enum { N = 1000, BLOCK = 3000 };
	static uint8_t from[N * BLOCK], to[N * BLOCK];
	struct region g;
	inter_pair(&p, "", 0);
	region_open(&g, sizeof(from), TERN_REMOTE_READ | TERN_REMOTE_WRITE);
	inter_fill(from, sizeof(from), 1);
	for (unsigned reading = 0; reading < 2; reading++) {
		for (uint64_t i = 0; i < N; i++) {
			uint64_t k = i * 7 % N;
			CHECK_EQ(move(reading, &g, k * BLOCK, (reading ? to : from) + k * BLOCK, BLOCK, NULL, NULL), 0);
		}
		for (uint64_t i = 0; i < N; i++)
			CHECK_EQ(inter_await(&p.a, reading ? TERN_EV_READ : TERN_EV_WRITE, 0).status, 0);
	}
	CHECK(inter_filled(g.addr, sizeof(from), 1));
	CHECK(inter_filled(to, sizeof(to), 1));
	region_close(&g);
	inter_pair_close(&p);
}

static void strided(void)
{
	static uint8_t from[64 * 100], to[64 * 100];
	struct region g;
	tern_op op;
	inter_pair(&p, "", 0);
	region_open(&g, 64 * 10, TERN_REMOTE_READ | TERN_REMOTE_WRITE);
	inter_fill(from, sizeof(from), 1);
	/* 64 rows of 10 bytes with a pitch of 100, packed remotely; read back into another order of rows */
	tern_tensor t = {.data = from, .dtype = TERN_U8, .dims = 2, .shape = {64, 10}, .stride_bytes = {100, 1}};
	CHECK_EQ(tern_write(p.a.ep, g.remote, 0, &(tern_buf){.tensor = &t}, NULL, &op), 0);
	CHECK_EQ(inter_await(&p.a, TERN_EV_WRITE, op).status, 0);
	for (int row = 0; row < 64; row++)
		CHECK(!memcmp(g.addr + row * 10, from + row * 100, 10));
	t.data = to + 63 * 100;
	t.stride_bytes[0] = -100;
	CHECK_EQ(tern_read(p.a.ep, g.remote, 0, &(tern_buf){.tensor = &t}, NULL, &op), 0);
	CHECK_EQ(inter_await(&p.a, TERN_EV_READ, op).status, 0);
	for (int row = 0; row < 64; row++)
		CHECK(!memcmp(to + (63 - row) * 100, from + row * 100, 10));
	region_close(&g);
	inter_pair_close(&p);
}

static void release_while_used(void)
{
	static uint8_t x[100];
	tern_mem *mem;
	tern_op op;
	inter_pair(&p, "", 0);
	CHECK_EQ(tern_mem_register(p.a.ctx, x, sizeof(x), &mem), 0);
	tern_iov iov = {.addr = x, .bytes = sizeof(x), .mem = mem};
	CHECK_EQ(tern_recv(p.a.ep, p.ab, &(tern_buf){.iov = &iov, .n = 1}, NULL, &op), 0);
	CHECK_EQ(tern_mem_release(&mem), -TERN_EBUSY);
	CHECK(mem);
	CHECK_EQ(tern_cancel(p.a.ep, op), 0);
	inter_await(&p.a, TERN_EV_RECV, op);
	CHECK_EQ(tern_mem_release(&mem), 0);
	CHECK_EQ(tern_mem_register(p.a.ctx, (void *)~(uintptr_t)15, 4096, &mem), -TERN_EINVAL);
	CHECK_EQ(tern_mem_alloc(p.a.ctx, 0, (void *[1]){NULL}, &mem), -TERN_EINVAL);
	inter_pair_close(&p);
}

/* A list keeps every one of its registrations, and one that stands in it twice. */
static void release_while_listed(void)
{
	static uint8_t x[3][100];
	tern_mem *mem[2];
	tern_op op;
	inter_pair(&p, "", 0);
	CHECK_EQ(tern_mem_register(p.a.ctx, x[0], 200, &mem[0]), 0);
	CHECK_EQ(tern_mem_register(p.a.ctx, x[2], 100, &mem[1]), 0);
	tern_iov iov[] = {{x[0], 100, mem[0]}, {x[1], 100, mem[0]}, {x[2], 100, mem[1]}};
	for (int round = 0; round < 300; round++) { /* more than there are lists: each comes back */
		CHECK_EQ(tern_recv(p.a.ep, p.ab, &(tern_buf){.iov = iov, .n = 3}, NULL, &op), 0);
		for (int i = 0; i < 2; i++)
			CHECK_EQ(tern_mem_release(&mem[i]), -TERN_EBUSY);
		CHECK_EQ(tern_cancel(p.a.ep, op), 0);
		CHECK_EQ(inter_await(&p.a, TERN_EV_RECV, op).status, -TERN_ECANCELED);
	}
	/* refused: nothing is kept */
	iov[2].bytes = UINT64_MAX;
	CHECK_EQ(tern_recv(p.a.ep, p.ab, &(tern_buf){.iov = iov, .n = 3}, NULL, &op), -TERN_EINVAL);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(tern_mem_release(&mem[i]), 0);
	inter_pair_close(&p);
}

/* A peer of one endpoint is none of another's, of the same context too. */
static void another_endpoint(void)
{
	struct region g;
	uint8_t blob[TERN_HANDLE_MAX];
	size_t bytes = sizeof(blob);
	uint64_t epoch, payload, limit;
	tern_ep *others[2];
	tern_rmem *remote;
	inter_pair(&p, "", 0);
	region_open(&g, 100, TERN_REMOTE_READ);
	CHECK_EQ(tern_mem_export(p.b.ep, g.mem, p.ba, TERN_REMOTE_READ, blob, &bytes), 0);
	CHECK_EQ(tern_ep_open(p.a.ctx, &others[0]), 0);
	CHECK_EQ(tern_ep_open(p.b.ctx, &others[1]), 0);
	CHECK_EQ(tern_peer_identity(others[0], p.ab, NULL, 0, &epoch), -TERN_ESTALE);
	CHECK_EQ(tern_path_limits(others[0], p.ab, &payload, &limit), -TERN_ESTALE);
	CHECK_EQ(tern_mem_import(others[0], p.ab, blob, bytes, &remote), -TERN_ESTALE);
	CHECK_EQ(tern_mem_revoke(others[1], g.mem, p.ba), -TERN_ESTALE);
	CHECK_EQ(tern_disconnect(others[0], p.ab, 0), -TERN_ESTALE);
	/* and its owner has it still */
	CHECK_EQ(tern_peer_identity(p.a.ep, p.ab, NULL, 0, &epoch), 0);
	CHECK_EQ(tern_path_limits(p.a.ep, p.ab, &payload, &limit), 0);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(tern_ep_close(&others[i]), 0);
	region_close(&g);
	CHECK_EQ(tern_disconnect(p.a.ep, p.ab, 0), 0);
	inter_pair_close(&p);
}

static const struct inter_case cases[] = {
        {"sealed", sealed},
        {"private_thread", private_thread},
        {"rights", rights},
        {"bounds_and_handles", bounds_and_handles},
        {"only_one_peer", only_one_peer},
        {"revoke", revoke},
        {"revoke_under_way", revoke_under_way},
        {"immediate", immediate},
        {"many_blocks", many_blocks},
        {"strided", strided},
        {"release_while_used", release_while_used},
        {"release_while_listed", release_while_listed},
        {"another_endpoint", another_endpoint},
};
INTER_MAIN("onesided", cases)
