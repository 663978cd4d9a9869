/* Holds docs/copies.md to the counters: how often the bytes of a message are copied, sealed and opened on each way. The table is read from the
 * document: a row that is not tested here, or a test without a row, is a failure. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "inter.h"

static struct inter_pair p;
static bool rdma, rdma_uc; /* over an RDMA device: rows of their own */

/* What one message did, as multiples of its bytes, in thousandths. */
struct counts {
	uint64_t tx_copied, tx_sealed, rx_copied, rx_opened;
};

static struct counts look(void)
{
	return (struct counts){
	        .tx_copied = inter_stat(&p.a, 0, "copied_bytes"),
	        .tx_sealed = inter_stat(&p.a, 0, "sealed_bytes"),
	        .rx_copied = inter_stat(&p.b, 0, "copied_bytes"),
	        .rx_opened = inter_stat(&p.b, 0, "opened_bytes"),
	};
}

/* ---- the document -------------------------------------------------------------------------------------------------------------------- */

enum { ROWS = 48 };
static struct row {
	char name[64];
	unsigned value[4];
	bool tested;
} row[ROWS];
static size_t rows;
static unsigned wrong;

/* Rows look like: | `name` | what | 0 | 1 | 0 | 1 | */
static void read_document(void)
{
	char line[512];
	FILE *f = fopen(TERN_SOURCE "/docs/copies.md", "r");
	CHECK(f);
	rows = 0;
	while (fgets(line, sizeof(line), f)) {
		struct row r = {0};
		if (sscanf(line, "| `%63[a-z_]` | %*[^|] | %u | %u | %u | %u |", r.name, &r.value[0], &r.value[1], &r.value[2], &r.value[3]) != 5)
			continue;
		CHECK(rows < ROWS);
		row[rows++] = r;
	}
	fclose(f);
	CHECK(rows > 5);
}

/* turned: the answer to a read, b is its sender. @return true: as the document says. What was taken for lost on a busy machine is sent, packed and
 * sealed again: callers try a few times, only the last one counts. */
static bool hold(const char *name, const struct counts *before, uint64_t bytes, bool last, bool turned)
{
	bool right = true;
	struct counts now = look(), after = turned ? (struct counts){now.rx_copied, now.rx_opened, now.tx_copied, now.tx_sealed} : now;
	static const char *const what[] = {"sender's copies", "sealed", "receiver's copies", "opened"};
	const uint64_t moved[] = {after.tx_copied - before->tx_copied, after.tx_sealed - before->tx_sealed, after.rx_copied - before->rx_copied,
	        after.rx_opened - before->rx_opened};
	size_t i = 0;
	while (i < rows && strcmp(row[i].name, name))
		i++;
	if (i == rows)
		inter_fail(__FILE__, __LINE__, "docs/copies.md has no row `%s`", name);
	row[i].tested = true;
	for (int k = 0; k < 4; k++) {
		/* seals also cover heads and acknowledgements, which are no payload: a 16th more is allowed */
		/* so does the rdma link's ring: with a HEAD of each small block, too */
		uint64_t want = row[i].value[k] * bytes, slack = k % 2 || rdma ? want / 8 + 4096 + (rdma ? bytes / 64 : 0) : 0;
		/* and what is inlined into a work request is not counted */
		bool fits = moved[k] + (rdma ? want / 64 : 0) >= want && moved[k] <= want + slack;
		right &= fits;
		wrong += !fits && last;
		if (!fits && last)
			printf("\n    %s: %s %llu bytes of a message of %llu; docs/copies.md says %u times", name, what[k],
			        (unsigned long long)moved[k], (unsigned long long)bytes, row[i].value[k]);
	}
	return right;
}

/* ---- the ways ------------------------------------------------------------------------------------------------------------------------ */

enum { LARGE = 8 << 20, MEDIUM = 64 << 10, SMALL = 1000 };
static uint8_t *from, *to;

static bool one_try(const char *name, const tern_buf *out, const tern_buf *in, uint64_t bytes, bool announced, bool last)
{
	tern_op r = 0, s;
	struct counts before = look();
	if (announced) {
		CHECK_EQ(tern_recv(p.b.ep, p.ba, in, NULL, &r), 0);
		inter_drive(5000000);
	}
	CHECK_EQ(tern_send(p.a.ep, p.ab, out, NULL, &s), 0);
	if (!announced) {
		inter_drive(50000000);
		CHECK_EQ(tern_recv(p.b.ep, p.ba, in, NULL, &r), 0);
	}
	CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, r).status, 0);
	CHECK_EQ(inter_await(&p.a, TERN_EV_SEND, s).status, 0);
	return hold(name, &before, bytes, last, false);
}

enum { TRIES = 8 };
static void one(const char *name, const tern_buf *out, const tern_buf *in, uint64_t bytes, bool announced)
{
	for (int i = 0; i < TRIES && !one_try(name, out, in, bytes, announced, i == TRIES - 1); i++)
		;
}

/* b's memory, exported to a. */
struct target {
	void *addr;
	tern_mem *mem;
	tern_rmem *remote;
};

static void target_open(struct target *t)
{
	uint8_t blob[TERN_HANDLE_MAX];
	size_t n = sizeof(blob);
	CHECK_EQ(tern_mem_alloc(p.b.ctx, LARGE, &t->addr, &t->mem), 0);
	CHECK_EQ(tern_mem_export(p.b.ep, t->mem, p.ba, TERN_REMOTE_READ | TERN_REMOTE_WRITE, blob, &n), 0);
	CHECK_EQ(tern_mem_import(p.a.ep, p.ab, blob, n, &t->remote), 0);
	inter_drive(20000000); /* its key comes */
}

static void target_close(struct target *t)
{
	CHECK_EQ(tern_rmem_release(&t->remote), 0);
	uint64_t end = inter_now_ns() + 5000000000ull;
	while (tern_mem_release(&t->mem) == -TERN_EBUSY && inter_now_ns() < end)
		inter_pump(1000000);
	CHECK(!t->mem);
}

/* A write, or a read, held to a row. */
static void one_sided(const char *name, bool reading, struct target *t, const tern_buf *buf, uint64_t bytes)
{
	tern_op op;
	for (int i = 0; i < TRIES; i++) {
		struct counts before = look(), turned;
		CHECK_EQ(reading ? tern_read(p.a.ep, t->remote, 0, buf, NULL, &op) : tern_write(p.a.ep, t->remote, 0, buf, NULL, &op), 0);
		CHECK_EQ(inter_await(&p.a, reading ? TERN_EV_READ : TERN_EV_WRITE, op).status, 0);
		turned = (struct counts){before.rx_copied, before.rx_opened, before.tx_copied, before.tx_sealed};
		if (hold(name, reading ? &turned : &before, bytes, i == TRIES - 1, reading))
			break;
	}
}

static void blocks(struct target *t, tern_mem *source)
{
	enum { BLOCK = 8192, BLOCKS = 1000 };
	for (int i = 0; i < TRIES; i++) {
		struct counts before = look();
		for (uint64_t k = 0; k < BLOCKS; k++) {
			tern_iov iov = {.addr = from + k * 7 % BLOCKS * BLOCK, .bytes = BLOCK, .mem = source};
			CHECK_EQ(tern_write(p.a.ep, t->remote, k * 3 % BLOCKS * BLOCK, &(tern_buf){.iov = &iov, .n = 1}, NULL, NULL), 0);
		}
		for (uint64_t k = 0; k < BLOCKS; k++)
			CHECK_EQ(inter_await(&p.a, TERN_EV_WRITE, 0).status, 0);
		for (uint64_t k = 0; k < BLOCKS; k++)
			CHECK(!memcmp((uint8_t *)t->addr + k * 3 % BLOCKS * BLOCK, from + k * 7 % BLOCKS * BLOCK, BLOCK));
		if (hold("blocks_rdma", &before, (uint64_t)BLOCKS * BLOCK, i == TRIES - 1, false))
			break;
	}
}

/* What the rdma link gathers, and what it does not. */
static void gathered(struct target *t)
{
	enum { RANGES = 64, RANGE = 4096 };
	tern_mem *source;
	tern_iov list[RANGES], flat = {.addr = to, .bytes = RANGES * RANGE};
	tern_tensor pitched = {.data = from, .dtype = TERN_U8, .dims = 2, .shape = {512, 8192}, .stride_bytes = {16384, 1}};
	tern_iov rows_to = {.addr = to, .bytes = LARGE / 2};
	CHECK_EQ(tern_mem_register(p.a.ctx, from, LARGE, &source), 0);
	for (int i = 0; i < RANGES; i++)
		list[i] = (tern_iov){.addr = from + i * 37 % RANGES * 2 * RANGE, .bytes = RANGE, .mem = source};
	tern_buf lists = {.iov = list, .n = RANGES}, flats = {.iov = &flat, .n = 1};
	one("rows_rdma", &(tern_buf){.tensor = &pitched}, &(tern_buf){.iov = &rows_to, .n = 1}, LARGE / 2, true);
	one("list_rdma", &lists, &flats, RANGES * RANGE, true);
	for (int i = 0; i < RANGES; i++)
		CHECK(!memcmp(to + i * RANGE, list[i].addr, RANGE));
	for (int i = 0; i < RANGES; i++)
		list[i].mem = NULL, list[i].addr = to + i * 2 * RANGE;
	flat.addr = from;
	one("scattered_rdma", &flats, &lists, RANGES * RANGE, true);
	one_sided("read_rdma", true, t, &(tern_buf){.iov = &(tern_iov){.addr = to, .bytes = LARGE}, .n = 1}, LARGE);
	if (!rdma_uc) {
		for (int i = 0; i < RANGES; i++)
			list[i] = (tern_iov){.addr = from + i * 2 * RANGE, .bytes = RANGE, .mem = source};
		one_sided("write_list_rdma", false, t, &lists, RANGES * RANGE);
		for (int i = 0; i < RANGES; i++)
			CHECK(!memcmp((uint8_t *)t->addr + i * RANGE, list[i].addr, RANGE));
		blocks(t, source);
	}
	CHECK_EQ(tern_mem_release(&source), 0);
}

static void all(bool private)
{
	const char *kind = rdma ? "rdma" : private ? "private" : "sealed";
	char name[64];
	tern_iov big_from = {.addr = from, .bytes = LARGE}, big_to = {.addr = to, .bytes = LARGE};
	tern_iov small_from = {.addr = from, .bytes = SMALL}, small_to = {.addr = to, .bytes = SMALL};
	tern_iov mid_from = {.addr = from, .bytes = MEDIUM}, mid_to = {.addr = to, .bytes = MEDIUM};
	/* rows of 16 bytes: far shorter than a frame */
	tern_tensor thin = {.data = from, .dtype = TERN_U8, .dims = 2, .shape = {LARGE / 64, 16}, .stride_bytes = {32, 1}};
	tern_tensor thin_to = {.data = to, .dtype = TERN_U8, .dims = 2, .shape = {LARGE / 64, 16}};
	tern_config c = inter_config();
	c.mtu_bytes = rdma ? 0 : 1500;
	inter_pair_with(&p, "127.0.0.1", private ? "?private=1" : "", &c);
	inter_drive(30000000);
	snprintf(name, sizeof(name), "large_announced_%s", kind);
	one(name, &(tern_buf){.iov = &big_from, .n = 1}, &(tern_buf){.iov = &big_to, .n = 1}, LARGE, true);
	snprintf(name, sizeof(name), "large_unmatched_%s", kind);
	one(name, &(tern_buf){.iov = &big_from, .n = 1}, &(tern_buf){.iov = &big_to, .n = 1}, LARGE, false);
	snprintf(name, sizeof(name), "medium_unmatched_%s", kind);
	one(name, &(tern_buf){.iov = &mid_from, .n = 1}, &(tern_buf){.iov = &mid_to, .n = 1}, MEDIUM, false);
	snprintf(name, sizeof(name), "small_announced_%s", kind);
	one(name, &(tern_buf){.iov = &small_from, .n = 1}, &(tern_buf){.iov = &small_to, .n = 1}, SMALL, true);
	snprintf(name, sizeof(name), "small_unmatched_%s", kind);
	one(name, &(tern_buf){.iov = &small_from, .n = 1}, &(tern_buf){.iov = &small_to, .n = 1}, SMALL, false);
	snprintf(name, sizeof(name), "strided_%s", kind);
	one(name, &(tern_buf){.tensor = &thin}, &(tern_buf){.tensor = &thin_to}, LARGE / 4, true);
	struct target t;
	target_open(&t);
	snprintf(name, sizeof(name), "write_%s", rdma_uc ? "uc_rdma" : kind);
	one_sided(name, false, &t, &(tern_buf){.iov = &big_from, .n = 1}, LARGE);
	if (rdma)
		gathered(&t);
	target_close(&t);
	inter_pair_close(&p);
}

static bool is_rc_only(const char *name)
{
	return !strcmp(name, "write_rdma") || !strcmp(name, "write_list_rdma") || !strcmp(name, "blocks_rdma");
}

static void counted(void)
{
	read_document();
	from = malloc(LARGE);
	to = malloc(LARGE);
	inter_fill(from, LARGE, 1);
	rdma = getenv("TERN_TEST_RDMA") != NULL;
	rdma_uc = rdma && strstr(getenv("TERN_TEST_RDMA"), "mode=uc");
	all(true);
	if (!rdma)
		all(false);
	CHECK_EQ(wrong, 0);
	for (size_t i = 0; i < rows; i++)
		if (!row[i].tested && rdma == (strstr(row[i].name, "_rdma") != NULL) && !strstr(row[i].name, "_dpdk") && /* those: dpdk.sh */
		        (rdma_uc ? !is_rc_only(row[i].name) : strcmp(row[i].name, "write_uc_rdma")))
			inter_fail(__FILE__, __LINE__, "row `%s` of docs/copies.md is tested by nothing", row[i].name);
	free(from);
	free(to);
}

static const struct inter_case cases[] = {
        {"counted", counted},
};
INTER_MAIN("copies", cases)
