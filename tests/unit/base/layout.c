/* Layouts against a model that lists the address of every byte: random dense, sliced, transposed, reversed and broadcast tensors, random lists; refused arguments. */
#include <string.h>
#include "base/copy.h"
#include "base/layout.h"
#include "rand.h"
#include "tern/error.h"
#include "unit.h"

enum { MEMORY = 1 << 16, BYTES_MAX = 1 << 14 };
static uint8_t memory[MEMORY], packed[BYTES_MAX];
static uint8_t *address[BYTES_MAX]; /* of every byte of the message, in order */
static uint32_t seen[MEMORY];

static void model_tensor(const tern_tensor *t)
{
	uint64_t index[TERN_DIMS_MAX] = {0}, elem = tern_dtype_bytes(t->dtype), n = 1, at = 0;
	for (uint32_t d = 0; d < t->dims; d++)
		n *= t->shape[d];
	for (uint64_t i = 0; i < n; i++) {
		uint8_t *p = t->data;
		for (uint32_t d = 0; d < t->dims; d++)
			p += (int64_t)index[d] * t->stride_bytes[d];
		for (uint64_t b = 0; b < elem; b++)
			address[at++] = p + b;
		for (uint32_t d = t->dims; d-- > 0;) {
			if (++index[d] < t->shape[d])
				break;
			index[d] = 0;
		}
	}
}

static bool model_overlaps(uint64_t bytes)
{
	static uint32_t mark;
	mark++;
	for (uint64_t i = 0; i < bytes; i++) {
		size_t at = (size_t)(address[i] - memory);
		if (seen[at] == mark)
			return true;
		seen[at] = mark;
	}
	return false;
}

/* A dense array in memory whose dimensions are sliced, reversed, permuted. @return its bytes */
static uint64_t random_tensor(tern_tensor *t, bool broadcast)
{
	static const uint32_t types[] = {TERN_U8, TERN_BF16, TERN_F32, TERN_F64};
	uint64_t total;
	do {
		*t = (tern_tensor){.dtype = types[rand_below(4)], .dims = (uint32_t)rand_below(TERN_DIMS_MAX + 1)};
		uint64_t elem = tern_dtype_bytes(t->dtype), full = elem;
		uint8_t *at = memory;
		total = elem;
		for (uint32_t d = t->dims; d-- > 0;) {
			uint64_t have = 1 + rand_below(t->dims > 4 ? 4 : 12), first = rand_below(have), step = 1 + rand_below(2);
			bool slice = rand_below(3) == 0;
			t->shape[d] = slice ? (have - first + step - 1) / step : have;
			t->stride_bytes[d] = (int64_t)(full * (slice ? step : 1));
			if (slice)
				at += first * full;
			if (rand_below(5) == 0) {
				at += (int64_t)(t->shape[d] - 1) * t->stride_bytes[d];
				t->stride_bytes[d] = -t->stride_bytes[d];
			}
			if (broadcast && rand_below(4) == 0)
				t->stride_bytes[d] = 0;
			full *= have;
			total *= t->shape[d];
		}
		for (uint32_t d = t->dims; d > 1 && rand_next() >> 63; d--) { /* permute */
			uint32_t other = (uint32_t)rand_below(d);
			uint64_t shape = t->shape[d - 1];
			int64_t stride = t->stride_bytes[d - 1];
			t->shape[d - 1] = t->shape[other];
			t->stride_bytes[d - 1] = t->stride_bytes[other];
			t->shape[other] = shape;
			t->stride_bytes[other] = stride;
		}
		t->data = at;
		if (full > MEMORY)
			total = 0;
	} while (total == 0 || total > BYTES_MAX);
	bool zero = true;
	for (uint32_t d = 0; d < t->dims; d++)
		zero = zero && t->stride_bytes[d] == 0;
	if (zero) { /* means contiguous */
		uint64_t stride = tern_dtype_bytes(t->dtype);
		for (uint32_t d = t->dims; d-- > 0; stride *= t->shape[d])
			t->stride_bytes[d] = (int64_t)stride;
		t->data = memory;
	}
	return total;
}

/* Segments, copies out and in of random ranges agree with the addresses listed. */
static void check_ranges(const struct layout *layout, uint64_t bytes, bool writable)
{
	struct frame_seg seg[64];
	uint64_t copied = 0, want = 0;
	CU_ASSERT_EQUAL_FATAL(layout_bytes(layout), bytes);
	for (int i = 0; i < 8 && bytes; i++) {
		uint64_t offset = rand_below(bytes), n = i == 0 ? bytes - (offset = 0) : 1 + rand_below(bytes - offset), at = offset;
		size_t max = 1 + rand_below(64), segs = layout_segs(layout, offset, n, seg, max), runs = 1;
		CU_ASSERT_FATAL(segs <= max);
		for (size_t s = 0; s < segs; s++)
			for (uint32_t b = 0; b < seg[s].bytes; b++)
				CU_ASSERT_PTR_EQUAL_FATAL(seg[s].addr + b, address[at++]);
		for (uint64_t b = offset + 1; b < offset + n; b++)
			runs += address[b] != address[b - 1] + 1;
		CU_ASSERT_EQUAL_FATAL(segs ? at - offset : n, n);
		CU_ASSERT_FATAL(segs || runs > max || layout->kind == LAYOUT_LIST || runs + n / layout->run + 1 > max);
		memset(packed, 0xee, sizeof(packed));
		layout_copy_out(layout, offset, packed, n, &copied);
		for (uint64_t b = 0; b < n; b++)
			CU_ASSERT_EQUAL_FATAL(packed[b], *address[offset + b]);
		CU_ASSERT_FATAL(n == BYTES_MAX || packed[n] == 0xee);
		want += n;
		if (!writable)
			continue;
		static uint8_t before[MEMORY];
		memcpy(before, memory, MEMORY);
		for (uint64_t b = 0; b < n; b++)
			before[address[offset + b] - memory] = packed[b] = (uint8_t)rand_next();
		layout_copy_in(layout, offset, packed, n, &copied);
		CU_ASSERT_EQUAL_FATAL(memcmp(before, memory, MEMORY), 0); /* those bytes and no others */
		want += n;
	}
	CU_ASSERT_EQUAL(copied, want);
}

static void fill_memory(void)
{
	for (size_t i = 0; i < MEMORY; i++)
		memory[i] = (uint8_t)rand_next();
}

static void tensors(void)
{
	uint32_t kinds[3] = {0};
	rand_start(unit_seed());
	fill_memory();
	for (int step = 0; step < 6000; step++) {
		tern_tensor t;
		struct layout layout;
		bool broadcast = step % 4 == 0;
		uint64_t bytes = random_tensor(&t, broadcast), shortest = bytes, run = 1;
		CU_ASSERT_EQUAL_FATAL(layout_from_buf(&(tern_buf){.tensor = &t}, &layout, NULL, NULL), 0);
		model_tensor(&t);
		bool overlaps = model_overlaps(bytes);
		CU_ASSERT_EQUAL_FATAL(layout_overlaps(&layout), overlaps); /* slices and broadcasts of a dense array: exact */
		check_ranges(&layout, bytes, !overlaps);
		for (uint64_t b = 1; b <= bytes; b++, run++) {
			if (b < bytes && address[b] == address[b - 1] + 1)
				continue;
			shortest = run < shortest ? run : shortest;
			run = 0;
		}
		CU_ASSERT_FATAL(layout_min_run(&layout) <= shortest && shortest % layout_min_run(&layout) == 0);
		kinds[layout.kind]++;
	}
	CU_ASSERT(kinds[LAYOUT_FLAT] > 100 && kinds[LAYOUT_STRIDED] > 1000);
}

static void lists(void)
{
	rand_start(unit_seed());
	fill_memory();
	for (int step = 0; step < 5000; step++) {
		tern_iov iov[LAYOUT_RANGES_MAX];
		struct layout_range storage[LAYOUT_RANGES_MAX];
		struct layout layout;
		size_t n = rand_below(LAYOUT_RANGES_MAX + 1);
		uint64_t bytes = 0;
		for (size_t i = 0; i < n; i++) {
			iov[i] = (tern_iov){.addr = memory + rand_below(MEMORY - 256), .bytes = rand_below(4) ? rand_below(step % 2 ? 250 : 3) : 0};
			for (uint64_t b = 0; b < iov[i].bytes; b++)
				address[bytes++] = (uint8_t *)iov[i].addr + b;
		}
		CU_ASSERT_EQUAL_FATAL(layout_from_buf(&(tern_buf){.iov = iov, .n = n}, &layout, storage, NULL), 0);
		bool overlaps = model_overlaps(bytes);
		CU_ASSERT_EQUAL_FATAL(layout_overlaps(&layout), overlaps);
		if (layout.kind == LAYOUT_LIST)
			for (uint8_t i = 0; i < layout.n; i++)
				CU_ASSERT_PTR_EQUAL_FATAL(iov[storage[i].source].addr, storage[i].addr);
		check_ranges(&layout, bytes, !overlaps);
	}
}

static void collapses(void)
{
	struct layout layout;
	tern_tensor dense = {.data = memory, .dtype = TERN_F32, .dims = 4, .shape = {2, 1, 3, 5}};
	CU_ASSERT_EQUAL(layout_from_buf(&(tern_buf){.tensor = &dense}, &layout, NULL, NULL), 0);
	CU_ASSERT(layout.kind == LAYOUT_FLAT && layout.bytes == 120 && layout.run == 120);
	tern_tensor rows = {.data = memory, .dtype = TERN_F32, .dims = 3, .shape = {2, 3, 5}, .stride_bytes = {96, 32, 4}};
	CU_ASSERT_EQUAL(layout_from_buf(&(tern_buf){.tensor = &rows}, &layout, NULL, NULL), 0);
	CU_ASSERT(layout.kind == LAYOUT_STRIDED && layout.n == 1 && layout.run == 20 && layout.dim.shape[0] == 6 && layout.dim.stride[0] == 32);
	tern_tensor one = {.data = memory, .dtype = TERN_BF16};
	CU_ASSERT_EQUAL(layout_from_buf(&(tern_buf){.tensor = &one}, &layout, NULL, NULL), 0);
	CU_ASSERT(layout.kind == LAYOUT_FLAT && layout.bytes == 2);
	tern_tensor none = {.dtype = TERN_F64, .dims = 3, .shape = {UINT64_MAX, 0, UINT64_MAX}};
	CU_ASSERT_EQUAL(layout_from_buf(&(tern_buf){.tensor = &none}, &layout, NULL, NULL), 0);
	CU_ASSERT(layout.bytes == 0 && layout.kind == LAYOUT_FLAT && !layout_overlaps(&layout));
	struct layout_walk walk;
	struct layout_row row;
	layout_walk_init(&walk, &layout, 0, 0);
	CU_ASSERT_FALSE(layout_walk_next(&walk, &row));
	CU_ASSERT_EQUAL(layout_from_buf(NULL, &layout, NULL, NULL), 0);
	CU_ASSERT_EQUAL(layout_segs(&layout, 0, 0, &(struct frame_seg){0}, 1), 0);
	tern_tensor woven = {.data = memory, .dtype = TERN_U8, .dims = 2, .shape = {3, 4}, .stride_bytes = {2, 3}};
	CU_ASSERT_EQUAL(layout_from_buf(&(tern_buf){.tensor = &woven}, &layout, NULL, NULL), 0);
	CU_ASSERT_TRUE(layout_overlaps(&layout)); /* cautious */
}

static void giant_runs(void)
{
	struct layout layout;
	struct frame_seg seg[8];
	uint8_t *addr = (uint8_t *)(uintptr_t)0x100000000; /* never touched: only addresses are computed */
	layout_flat(&layout, addr, 5ull << 31);
	CU_ASSERT_EQUAL(layout_segs(&layout, 0, 5ull << 31, seg, 8), 5);
	CU_ASSERT((uintptr_t)seg[4].addr == 0x100000000 + (4ull << 31) && seg[4].bytes == 1u << 31);
	CU_ASSERT_EQUAL(layout_segs(&layout, 1, UINT32_MAX, seg, 1), 1);
	CU_ASSERT_EQUAL(layout_segs(&layout, 0, 1ull << 32, seg, 1), 0);
	CU_ASSERT_EQUAL(layout_segs(&layout, 0, 1, seg, 0), 0);
}

static void refuses(const tern_buf *buf, const char *why)
{
	struct layout layout;
	struct layout_range storage[LAYOUT_RANGES_MAX];
	const char *said = NULL;
	CU_ASSERT_EQUAL(layout_from_buf(buf, &layout, storage, &said), -TERN_EINVAL);
	CU_ASSERT_EQUAL(layout.bytes, 0);
	CU_ASSERT(said && strstr(said, why));
	CU_ASSERT_EQUAL(layout_from_buf(buf, &layout, storage, NULL), -TERN_EINVAL);
}

static void refused(void)
{
	struct layout layout;
	tern_iov iov[65] = {{.addr = memory, .bytes = 1}, {.addr = NULL, .bytes = 1}};
	refuses(&(tern_buf){.iov = iov, .n = 65}, "64");
	refuses(&(tern_buf){.iov = iov, .n = 2}, "no address");
	refuses(&(tern_buf){.iov = NULL, .n = 2}, "NULL");
	iov[1] = (tern_iov){.addr = memory, .bytes = UINT64_MAX - 5};
	refuses(&(tern_buf){.iov = iov, .n = 2}, "past the end");
	iov[1].bytes = 1;
	CU_ASSERT_EQUAL(layout_from_buf(&(tern_buf){.iov = iov, .n = 2}, &layout, NULL, NULL), -TERN_EINVAL);
	tern_tensor good = {.data = memory, .dtype = TERN_F32, .dims = 2, .shape = {4, 4}}, t = good;
	refuses(&(tern_buf){.iov = iov, .n = 1, .tensor = &good}, "both");
	t.dims = 9;
	refuses(&(tern_buf){.tensor = &t}, "dimensions");
	t = good;
	t.dtype = TERN_DTYPE_END;
	refuses(&(tern_buf){.tensor = &t}, "dtype");
	t = good;
	t.data = NULL;
	refuses(&(tern_buf){.tensor = &t}, "address");
	t = good;
	t.shape[0] = t.shape[1] = 1ull << 32;
	refuses(&(tern_buf){.tensor = &t}, "overflows");
	t = good;
	t.shape[0] = 1ull << 59;
	refuses(&(tern_buf){.tensor = &t}, "overflows");
	t = good;
	t.stride_bytes[0] = INT64_MAX;
	refuses(&(tern_buf){.tensor = &t}, "past the end");
	t.stride_bytes[0] = INT64_MIN;
	refuses(&(tern_buf){.tensor = &t}, "past the end");
	t.stride_bytes[0] = 4;
	t.stride_bytes[1] = -(int64_t)((uintptr_t)memory / 2);
	refuses(&(tern_buf){.tensor = &t}, "past the end");
}

static const struct unit_case cases[] = {
	{"normal form", collapses},
	{"random tensors", tensors},
	{"random lists", lists},
	{"runs beyond 4 GiB", giant_runs},
	{"refused arguments", refused},
};
UNIT_MAIN("base layout", cases)
