/* Strided tensors and lists of ranges between two contexts: gathered and scattered whatever the strides of either end, against a model that walks
 * indices. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "inter.h"

static struct inter_pair p;

/* A tensor inside a block of memory that it need not fill. */
struct strided {
	tern_tensor t;
	uint8_t *block;
	uint64_t bytes; /* of the block */
};

static uint64_t elements(const tern_tensor *t)
{
	uint64_t n = 1;
	for (uint32_t d = 0; d < t->dims; d++)
		n *= t->shape[d];
	return n;
}

/* The address of element `i` in row-major order. */
static uint8_t *element(const tern_tensor *t, uint64_t i)
{
	int64_t at = 0;
	for (uint32_t d = t->dims; d-- > 0;) {
		at += (int64_t)(i % t->shape[d]) * t->stride_bytes[d];
		i /= t->shape[d];
	}
	return (uint8_t *)t->data + at;
}

/* Random strides for a shape: dimensions lie in memory in a random order, with random gaps, some backwards. */
static void lay_out(struct strided *s, uint32_t dtype, uint32_t dims, const uint64_t *shape)
{
	uint32_t order[TERN_DIMS_MAX];
	memset(s, 0, sizeof(*s));
	s->t.dtype = dtype;
	s->t.dims = dims;
	for (uint32_t d = 0; d < dims; d++) {
		s->t.shape[d] = shape[d];
		order[d] = d;
	}
	for (uint32_t d = dims; d > 1; d--) {
		uint32_t k = (uint32_t)lrand48() % d, swap = order[d - 1];
		order[d - 1] = order[k];
		order[k] = swap;
	}
	uint64_t size = tern_dtype_bytes(dtype), start = 0;
	uint64_t step = size;
	for (uint32_t i = 0; i < dims; i++) {
		uint32_t d = order[i];
		step += lrand48() % 2 ? 0 : size * ((uint64_t)lrand48() % 4);
		s->t.stride_bytes[d] = (int64_t)step;
		if (lrand48() % 3 == 0) {
			s->t.stride_bytes[d] = -(int64_t)step;
			start += step * (shape[d] - 1);
		}
		step *= shape[d];
	}
	s->bytes = step + size;
	s->block = malloc(s->bytes);
	memset(s->block, 0xee, s->bytes);
	s->t.data = s->block + start;
}

static void transfer(struct strided *from, struct strided *to)
{
	uint64_t n = elements(&from->t), size = tern_dtype_bytes(from->t.dtype);
	uint8_t *flat = malloc(n * size + 1);
	inter_fill(flat, n * size, n);
	for (uint64_t i = 0; i < n; i++)
		memcpy(element(&from->t, i), flat + i * size, size);
	tern_op r, s;
	CHECK_EQ(tern_recv(p.b.ep, p.ba, &(tern_buf){.tensor = &to->t}, NULL, &r), 0);
	if (lrand48() % 2)
		inter_drive(1000000);
	CHECK_EQ(tern_send(p.a.ep, p.ab, &(tern_buf){.tensor = &from->t}, NULL, &s), 0);
	tern_event e = inter_await(&p.b, TERN_EV_RECV, r);
	CHECK_EQ(e.status, 0);
	CHECK_EQ(e.bytes, n * size);
	CHECK_EQ(inter_await(&p.a, TERN_EV_SEND, s).status, 0);
	for (uint64_t i = 0; i < n; i++)
		if (memcmp(element(&to->t, i), flat + i * size, size))
			inter_fail(__FILE__, __LINE__, "element %llu of %llu differs", (unsigned long long)i, (unsigned long long)n);
	/* nothing between the elements was touched: count what is still as it was */
	for (uint64_t i = 0; i < n; i++)
		memset(element(&to->t, i), 0xee, size);
	for (uint64_t i = 0; i < to->bytes; i++)
		if (to->block[i] != 0xee)
			inter_fail(__FILE__, __LINE__, "byte %llu lies between elements and was written", (unsigned long long)i);
	free(flat);
}

static void random_strides(const char *query)
{
	static const uint32_t types[] = {TERN_F64, TERN_F32, TERN_BF16, TERN_U8, TERN_F8E4M3, TERN_BOOL};
	srand48((long)inter_seed());
	inter_pair(&p, query, 0);
	for (int round = 0; round < 60; round++) {
		uint32_t dims = 1 + (uint32_t)lrand48() % TERN_DIMS_MAX, dtype = types[lrand48() % 6];
		uint64_t shape[TERN_DIMS_MAX], budget = round % 10 ? 4000 : 60000;
		for (uint32_t d = 0; d < dims; d++) {
			shape[d] = 1 + (uint64_t)lrand48() % 9;
			if (shape[d] > budget)
				shape[d] = 1;
			budget /= shape[d];
		}
		struct strided from, to;
		lay_out(&from, dtype, dims, shape);
		lay_out(&to, dtype, dims, shape);
		transfer(&from, &to);
		free(from.block);
		free(to.block);
	}
	inter_pair_close(&p);
}

static void strides_sealed(void)
{
	random_strides("");
}

static void strides_private(void)
{
	random_strides("?private=1");
}

/* Inner runs longer than a frame: gathered from where they are. */
static void long_runs(void)
{
	enum { ROWS = 9, ROW = 150000, PITCH = 160001 };
	inter_pair(&p, "?private=1", 0);
	struct strided from = {.bytes = (uint64_t)ROWS * PITCH}, to = {.bytes = (uint64_t)ROWS * PITCH};
	from.block = malloc(from.bytes);
	to.block = malloc(to.bytes);
	memset(to.block, 0xee, to.bytes);
	tern_tensor t = {.dtype = TERN_U8, .dims = 2, .shape = {ROWS, ROW}, .stride_bytes = {PITCH, 1}};
	from.t = to.t = t;
	from.t.data = from.block;
	to.t.data = to.block + (uint64_t)(ROWS - 1) * PITCH;
	to.t.stride_bytes[0] = -PITCH;
	transfer(&from, &to);
	free(from.block);
	free(to.block);
	inter_pair_close(&p);
}

static void lists(void)
{
	enum { N = 64 };
	static uint8_t from[3 << 20], to[3 << 20];
	tern_iov fi[N + 1], ti[N + 1];
	uint64_t total = 0, at = 0;
	srand48((long)inter_seed());
	inter_pair(&p, "", 0);
	for (int round = 0; round < 20; round++) {
		inter_fill(from, sizeof(from), (uint64_t)round);
		memset(to, 0, sizeof(to));
		total = 0;
		for (int i = 0; i < N; i++) { /* empty ranges among them */
			fi[i] = (tern_iov){.addr = from + total, .bytes = (uint64_t)lrand48() % (round % 2 ? 300 : 40000)};
			total += fi[i].bytes;
		}
		at = 0;
		for (int i = 0; i < N; i++) {
			uint64_t part = i == N - 1 ? total - at : (uint64_t)lrand48() % (2 * total / N + 1);
			part = part < total - at ? part : total - at;
			ti[i] = (tern_iov){.addr = to + at, .bytes = part};
			at += part;
		}
		tern_op r, s;
		CHECK_EQ(tern_recv(p.b.ep, p.ba, &(tern_buf){.iov = ti, .n = N}, NULL, &r), 0);
		CHECK_EQ(tern_send(p.a.ep, p.ab, &(tern_buf){.iov = fi, .n = N}, NULL, &s), 0);
		tern_event e = inter_await(&p.b, TERN_EV_RECV, r);
		CHECK_EQ(e.status, 0);
		CHECK_EQ(e.bytes, total);
		CHECK_EQ(inter_await(&p.a, TERN_EV_SEND, s).status, 0);
		CHECK(inter_filled(to, total, (uint64_t)round));
	}
	for (int i = 0; i <= N; i++)
		fi[i] = (tern_iov){.addr = from, .bytes = 1};
	CHECK_EQ(tern_send(p.a.ep, p.ab, &(tern_buf){.iov = fi, .n = N + 1}, NULL, NULL), -TERN_EINVAL);
	CHECK_SAYS(inter_detail(&p.a, 0), "64");
	inter_pair_close(&p);
}

static void empty_and_scalar(void)
{
	double x = 3.5, y = 0;
	tern_tensor scalar = {.data = &x, .dtype = TERN_F64}, into = {.data = &y, .dtype = TERN_F64};
	tern_tensor empty = {.data = &x, .dtype = TERN_F32, .dims = 3, .shape = {4, 0, 5}};
	tern_op r;
	inter_pair(&p, "", 0);
	CHECK_EQ(tern_recv(p.b.ep, p.ba, &(tern_buf){.tensor = &into}, NULL, &r), 0);
	CHECK_EQ(tern_send(p.a.ep, p.ab, &(tern_buf){.tensor = &scalar}, NULL, NULL), 0);
	CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, r).bytes, 8);
	CHECK(y == 3.5);
	CHECK_EQ(tern_recv(p.b.ep, p.ba, &(tern_buf){.tensor = &empty}, NULL, &r), 0);
	CHECK_EQ(tern_send(p.a.ep, p.ab, &(tern_buf){.tensor = &empty}, NULL, NULL), 0);
	tern_event e = inter_await(&p.b, TERN_EV_RECV, r);
	CHECK_EQ(e.status, 0);
	CHECK_EQ(e.bytes, 0);
	inter_pair_close(&p);
}

static void refused(int got, const char *says)
{
	CHECK_EQ(got, -TERN_EINVAL);
	CHECK_SAYS(inter_detail(&p.a, 0), says);
}

/* What cannot be a tensor or a buffer is refused when posted, in words. */
static void impossible(void)
{
	float x[16] = {0};
	tern_tensor good = {.data = x, .dtype = TERN_F32, .dims = 2, .shape = {4, 4}}, t = good;
	inter_pair(&p, "", 0);
	t.dtype = TERN_DTYPE_END;
	refused(tern_send(p.a.ep, p.ab, &(tern_buf){.tensor = &t}, NULL, NULL), "dtype");
	t = good;
	t.dims = 9;
	refused(tern_send(p.a.ep, p.ab, &(tern_buf){.tensor = &t}, NULL, NULL), "dim");
	t = good;
	t.data = NULL;
	refused(tern_send(p.a.ep, p.ab, &(tern_buf){.tensor = &t}, NULL, NULL), "no address");
	t = good;
	t.shape[0] = 1ull << 40;
	t.shape[1] = 1ull << 40;
	refused(tern_send(p.a.ep, p.ab, &(tern_buf){.tensor = &t}, NULL, NULL), "");
	t = good;
	t.stride_bytes[1] = 4; /* rows on top of each other: may be sent, not received into */
	CHECK_EQ(tern_send(p.a.ep, p.ab, &(tern_buf){.tensor = &t}, NULL, NULL), 0);
	refused(tern_recv(p.a.ep, p.ab, &(tern_buf){.tensor = &t}, NULL, NULL), "overlap");
	tern_iov iov = {.addr = NULL, .bytes = 5};
	refused(tern_send(p.a.ep, p.ab, &(tern_buf){.iov = &iov, .n = 1}, NULL, NULL), "no address");
	iov = (tern_iov){.addr = x, .bytes = 16};
	refused(tern_send(p.a.ep, p.ab, &(tern_buf){.iov = &iov, .n = 1, .tensor = &good}, NULL, NULL), "");
	tern_args args = {.size_bytes = 3};
	refused(tern_send(p.a.ep, p.ab, NULL, &args, NULL), "size_bytes is 3");
	inter_pair_close(&p);
}

static const struct inter_case cases[] = {
        {"strides_sealed", strides_sealed},
        {"strides_private", strides_private},
        {"long_runs", long_runs},
        {"lists", lists},
        {"empty_and_scalar", empty_and_scalar},
        {"impossible", impossible},
};
INTER_MAIN("tensors", cases)
