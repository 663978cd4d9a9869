/* Copies of payload; see copy.h. Every byte passes through copy_run or one of the two loops over small runs, and is counted by their four callers. Pure. */
#include <string.h>
#include "base/copy.h"

/* Frames of these sizes come from packet buffers, which lie otherwise in their lines and pages than tensors do. On AMD Zen 4 libc's copy takes longer for that than a
 * plain loop: 8 KiB frames out of the second cache 565 ns a frame, 545 with the loop (tern-bw over memif, least quarters of three interleaved comparisons; whole or in
 * pieces below the size at which libc takes `rep movsb`). Not measured elsewhere; memory bounds both. Above, libc knows better: it may leave the caches out. */
enum { COPY_LOOP_MIN = 4096, COPY_LOOP_MAX = 65536 };

typedef uint64_t copy_vec __attribute__((vector_size(16), aligned(1), may_alias));

static void copy_loop(uint8_t *dst, const uint8_t *src, size_t bytes)
{
	for (; bytes >= 4 * sizeof(copy_vec); dst += 4 * sizeof(copy_vec), src += 4 * sizeof(copy_vec), bytes -= 4 * sizeof(copy_vec)) {
		const copy_vec *from = (const copy_vec *)src;
		copy_vec a = from[0], b = from[1], c = from[2], d = from[3], *to = (copy_vec *)dst;
		to[0] = a;
		to[1] = b;
		to[2] = c;
		to[3] = d;
	}
	memcpy(dst, src, bytes);
}

static inline void copy_run(uint8_t *dst, const uint8_t *src, size_t bytes)
{
	if (bytes >= COPY_LOOP_MIN && bytes <= COPY_LOOP_MAX)
		copy_loop(dst, src, bytes);
	else
		memcpy(dst, src, bytes);
}

void copy_bytes(void *dst, const void *src, size_t bytes, uint64_t *copied_bytes)
{
	if (bytes)
		copy_run(dst, src, bytes);
	*copied_bytes += bytes;
}

uint64_t copy_segs(const struct frame_seg *dst, size_t nd, const struct frame_seg *src, size_t ns, uint64_t *copied_bytes)
{
	uint64_t sum = 0;
	uint32_t to = 0, from = 0; /* used bytes of the first segment left on each side */
	while (nd && ns) {
		uint32_t room = dst->bytes - to, have = src->bytes - from, part = room < have ? room : have;
		if (part)
			copy_run(dst->addr + to, src->addr + from, part);
		sum += part;
		to += part;
		from += part;
		if (to == dst->bytes) {
			dst++;
			nd--;
			to = 0;
		}
		if (from == src->bytes) {
			src++;
			ns--;
			from = 0;
		}
	}
	*copied_bytes += sum;
	return sum;
}

/* n runs with a stride on either side. The compiler makes a load and a store of a memcpy of constant size: element-sized runs (a transposed tensor) are 5 to 10
 * times faster than with a call a run. */
static void copy_rows(uint8_t *dst, int64_t dst_stride, const uint8_t *src, int64_t src_stride, const struct layout_row *row)
{
	uint64_t n = row->n;
	switch (row->run) {
	case 1:
		for (; n; n--, dst += dst_stride, src += src_stride)
			*dst = *src;
		return;
	case 2:
		for (; n; n--, dst += dst_stride, src += src_stride)
			memcpy(dst, src, 2);
		return;
	case 4:
		for (; n; n--, dst += dst_stride, src += src_stride)
			memcpy(dst, src, 4);
		return;
	case 8:
		for (; n; n--, dst += dst_stride, src += src_stride)
			memcpy(dst, src, 8);
		return;
	case 16:
		for (; n; n--, dst += dst_stride, src += src_stride)
			memcpy(dst, src, 16);
		return;
	default:
		for (; n; n--, dst += dst_stride, src += src_stride)
			copy_run(dst, src, row->run);
	}
}

void layout_pack(const struct layout *layout, uint64_t offset, void *dst, uint64_t bytes, uint64_t *copied_bytes)
{
	struct layout_walk walk;
	struct layout_row row;
	uint8_t *to = dst;
	*copied_bytes += bytes;
	for (layout_walk_init(&walk, layout, offset, bytes); layout_walk_next(&walk, &row); to += row.run * row.n)
		copy_rows(to, (int64_t)row.run, row.addr, row.stride, &row);
}

void layout_spread(const struct layout *layout, uint64_t offset, const void *src, uint64_t bytes, uint64_t *copied_bytes)
{
	struct layout_walk walk;
	struct layout_row row;
	const uint8_t *from = src;
	*copied_bytes += bytes;
	for (layout_walk_init(&walk, layout, offset, bytes); layout_walk_next(&walk, &row); from += row.run * row.n)
		copy_rows(row.addr, row.stride, from, (int64_t)row.run, &row);
}
