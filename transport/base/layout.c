/* Layouts: checks of what the caller gave, normal form, and the walk from byte offsets to addresses. See layout.h. Pure. */
#include "base/layout.h"
#include "tern/error.h"

/* Largest segment: frame_seg.bytes is 32 bits, and a round number keeps what follows aligned. */
#define SEG_BYTES_MAX 0x80000000u

static bool wraps(const void *addr, uint64_t bytes)
{
	return bytes > UINTPTR_MAX - (uintptr_t)addr;
}

static int refuse(struct layout *out, const char **why, const char *text)
{
	*out = (struct layout){0};
	if (why)
		*why = text;
	return -TERN_EINVAL;
}

static int from_list(const tern_buf *buf, struct layout *out, struct layout_range *storage, const char **why)
{
	uint64_t sum = 0, least = UINT64_MAX;
	uint32_t n = 0, only = 0;
	if (buf->n > LAYOUT_RANGES_MAX)
		return refuse(out, why, "more than 64 ranges");
	if (buf->n && !buf->iov)
		return refuse(out, why, "iov is NULL");
	for (size_t i = 0; i < buf->n; i++) {
		const tern_iov *iov = &buf->iov[i];
		if (!iov->bytes)
			continue;
		if (!iov->addr)
			return refuse(out, why, "a range has bytes but no address");
		if (wraps(iov->addr, iov->bytes) || __builtin_add_overflow(sum, iov->bytes, &sum))
			return refuse(out, why, "a range reaches past the end of memory");
		if (n++ == 0)
			only = (uint32_t)i;
		if (iov->bytes < least)
			least = iov->bytes;
		if (storage)
			storage[n - 1] = (struct layout_range){.addr = iov->addr, .end = sum, .source = (uint32_t)i};
	}
	if (n <= 1) {
		layout_flat(out, n ? buf->iov[only].addr : NULL, sum);
		out->source = (uint16_t)only;
		return 0;
	}
	if (!storage)
		return refuse(out, why, "a list of ranges is not possible here");
	*out = (struct layout){.bytes = sum, .run = least, .kind = LAYOUT_LIST, .n = (uint8_t)n, .range = storage};
	return 0;
}

/* Bytes of all elements. @return false: more than 2^63-1 */
static bool tensor_bytes(const tern_tensor *t, uint64_t *bytes)
{
	*bytes = 0;
	for (uint32_t d = 0; d < t->dims; d++)
		if (t->shape[d] == 0)
			return true;
	*bytes = tern_dtype_bytes(t->dtype);
	for (uint32_t d = 0; d < t->dims; d++)
		if (__builtin_mul_overflow(*bytes, t->shape[d], bytes))
			return false;
	return *bytes <= INT64_MAX;
}

/* Do all elements lie inside the address space? */
static bool tensor_in_memory(const tern_tensor *t)
{
	__int128 low = 0, high = (__int128)tern_dtype_bytes(t->dtype), base = (__int128)(uintptr_t)t->data;
	for (uint32_t d = 0; d < t->dims; d++) {
		__int128 reach = (__int128)(t->shape[d] - 1) * t->stride_bytes[d]; /* < 2^64 times < 2^63 */
		if (reach > INT64_MAX || reach < -(__int128)INT64_MAX)
			return false;
		if (reach < 0)
			low += reach;
		else
			high += reach;
	}
	return base + low >= 0 && base + high <= (__int128)UINTPTR_MAX;
}

/* Outermost first, from the innermost outwards: a dimension that continues the run makes it longer, one that continues its inner neighbour merges with it. */
static void tensor_collapse(const tern_tensor *t, struct layout *out)
{
	uint64_t shape[TERN_DIMS_MAX], run = tern_dtype_bytes(t->dtype);
	int64_t stride[TERN_DIMS_MAX];
	uint8_t n = 0; /* innermost first here */
	for (uint32_t d = t->dims; d-- > 0;) {
		if (t->shape[d] == 1)
			continue;
		if (n == 0 && t->stride_bytes[d] > 0 && (uint64_t)t->stride_bytes[d] == run) {
			run *= t->shape[d];
		} else if (n && (__int128)stride[n - 1] * shape[n - 1] == t->stride_bytes[d]) {
			shape[n - 1] *= t->shape[d];
		} else {
			shape[n] = t->shape[d];
			stride[n++] = t->stride_bytes[d];
		}
	}
	out->run = run;
	if (!n) {
		out->kind = LAYOUT_FLAT;
		out->addr = t->data;
		return;
	}
	out->kind = LAYOUT_STRIDED;
	out->n = n;
	out->dim.base = t->data;
	for (uint8_t i = 0; i < n; i++) {
		out->dim.shape[i] = shape[n - 1 - i];
		out->dim.stride[i] = stride[n - 1 - i];
	}
}

static bool strides_all_zero(const tern_tensor *t)
{
	for (uint32_t d = 0; d < t->dims; d++)
		if (t->stride_bytes[d])
			return false;
	return true;
}

static int from_tensor(const tern_tensor *t, struct layout *out, const char **why)
{
	uint64_t bytes;
	*out = (struct layout){0};
	if (t->dims > TERN_DIMS_MAX)
		return refuse(out, why, "a tensor of more than 8 dimensions");
	if (!tern_dtype_bytes(t->dtype))
		return refuse(out, why, "unknown dtype");
	if (!tensor_bytes(t, &bytes))
		return refuse(out, why, "the tensor's shape overflows 63 bits");
	if (!bytes)
		return 0;
	if (!t->data)
		return refuse(out, why, "a tensor has elements but no address");
	out->bytes = bytes;
	if (strides_all_zero(t)) {
		if (wraps(t->data, bytes))
			return refuse(out, why, "the tensor reaches past the end of memory");
		layout_flat(out, t->data, bytes);
		return 0;
	}
	if (!tensor_in_memory(t))
		return refuse(out, why, "the tensor's strides reach past the end of memory");
	tensor_collapse(t, out);
	return 0;
}

int layout_from_buf(const tern_buf *buf, struct layout *out, struct layout_range *storage, const char **why)
{
	if (!buf) {
		*out = (struct layout){0};
		return 0;
	}
	if (buf->tensor && buf->n)
		return refuse(out, why, "both a tensor and ranges are given");
	return buf->tensor ? from_tensor(buf->tensor, out, why) : from_list(buf, out, storage, why);
}

void layout_span_any(const struct layout *layout, uint8_t **low, uint8_t **end)
{
	assert(layout->kind == LAYOUT_STRIDED);
	*low = layout->dim.base;
	*end = *low + layout->run;
	for (uint8_t i = 0; i < layout->n; i++) {
		int64_t reach = (int64_t)(layout->dim.shape[i] - 1) * layout->dim.stride[i];
		*(reach < 0 ? low : end) += reach;
	}
}

static bool ranges_overlap(const struct layout *layout)
{
	const struct layout_range *range = layout->range;
	for (uint32_t i = 1; i < layout->n; i++) {
		uintptr_t first = (uintptr_t)range[i].addr, end = first + (range[i].end - range[i - 1].end);
		for (uint32_t j = 0; j < i; j++) {
			uintptr_t other = (uintptr_t)range[j].addr, stop = other + (range[j].end - (j ? range[j - 1].end : 0));
			if (first < stop && other < end)
				return true;
		}
	}
	return false;
}

static uint64_t magnitude(int64_t x)
{
	return x < 0 ? 0 - (uint64_t)x : (uint64_t)x;
}

bool layout_overlaps(const struct layout *layout)
{
	uint8_t order[TERN_DIMS_MAX];
	if (layout->kind == LAYOUT_FLAT)
		return false;
	if (layout->kind == LAYOUT_LIST)
		return ranges_overlap(layout);
	for (uint8_t i = 0; i < layout->n; i++) { /* by size of stride, smallest first */
		uint8_t at = i;
		for (; at && magnitude(layout->dim.stride[order[at - 1]]) > magnitude(layout->dim.stride[i]); at--)
			order[at] = order[at - 1];
		order[at] = i;
	}
	uint64_t reach = layout->run; /* bytes from the lowest to behind the highest of the dimensions so far */
	for (uint8_t i = 0; i < layout->n; i++) {
		uint64_t step = magnitude(layout->dim.stride[order[i]]);
		if (step < reach)
			return true;
		reach += step * (layout->dim.shape[order[i]] - 1);
	}
	return false;
}

static uint32_t range_of(const struct layout *layout, uint64_t offset)
{
	uint32_t low = 0, high = layout->n - 1u;
	while (low < high) {
		uint32_t mid = (low + high) / 2;
		if (layout->range[mid].end <= offset)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

void layout_walk_init(struct layout_walk *walk, const struct layout *layout, uint64_t offset, uint64_t bytes)
{
	assert(offset <= layout->bytes && bytes <= layout->bytes - offset);
	walk->layout = layout;
	walk->left = bytes;
	walk->skip = offset;
	walk->range = 0;
	if (!bytes)
		return;
	if (layout->kind == LAYOUT_LIST) {
		walk->range = range_of(layout, offset);
		if (walk->range)
			walk->skip = offset - layout->range[walk->range - 1].end;
	} else if (layout->kind == LAYOUT_STRIDED) {
		uint64_t nth = offset / layout->run;
		walk->skip = offset - nth * layout->run;
		walk->at = layout->dim.base;
		for (uint8_t d = layout->n; d-- > 0;) {
			uint64_t outer = nth / layout->dim.shape[d];
			walk->index[d] = nth - outer * layout->dim.shape[d];
			walk->at += (int64_t)walk->index[d] * layout->dim.stride[d];
			nth = outer;
		}
	}
}

/* Steps n runs along the innermost dimension, then carries into the outer ones. */
static void walk_step(struct layout_walk *walk, uint64_t n)
{
	const struct layout *layout = walk->layout;
	uint8_t d = layout->n - 1;
	walk->index[d] += n;
	walk->at += (int64_t)n * layout->dim.stride[d];
	while (walk->index[d] == layout->dim.shape[d]) {
		walk->at -= (int64_t)layout->dim.shape[d] * layout->dim.stride[d];
		walk->index[d] = 0;
		if (d-- == 0)
			return;
		walk->index[d]++;
		walk->at += layout->dim.stride[d];
	}
}

static void row_strided(struct layout_walk *walk, struct layout_row *row)
{
	const struct layout *layout = walk->layout;
	uint8_t inner = layout->n - 1;
	*row = (struct layout_row){.addr = walk->at + walk->skip, .run = layout->run - walk->skip, .n = 1, .mem = layout->mem};
	if (walk->skip || walk->left < layout->run) {
		if (row->run > walk->left)
			row->run = walk->left;
		walk->skip = 0;
	} else {
		uint64_t whole = walk->left / layout->run, rest = layout->dim.shape[inner] - walk->index[inner];
		row->n = whole < rest ? whole : rest;
		row->stride = layout->dim.stride[inner];
	}
	walk->left -= row->run * row->n;
	if (walk->left)
		walk_step(walk, row->n);
}

bool layout_walk_next(struct layout_walk *walk, struct layout_row *row)
{
	const struct layout *layout = walk->layout;
	if (!walk->left)
		return false;
	if (layout->kind == LAYOUT_STRIDED) {
		row_strided(walk, row);
	} else if (layout->kind == LAYOUT_FLAT) {
		*row = (struct layout_row){.addr = layout->addr + walk->skip, .run = walk->left, .n = 1, .mem = layout->mem};
		walk->left = 0;
	} else {
		const struct layout_range *range = &layout->range[walk->range];
		uint64_t bytes = range->end - (walk->range ? range[-1].end : 0) - walk->skip;
		if (bytes > walk->left)
			bytes = walk->left;
		*row = (struct layout_row){.addr = range->addr + walk->skip, .run = bytes, .n = 1, .mem = range->mem};
		walk->left -= bytes;
		walk->skip = 0;
		walk->range++;
	}
	return true;
}

size_t layout_segs_any(const struct layout *layout, uint64_t offset, uint64_t bytes, struct frame_seg *out, size_t max)
{
	struct layout_walk walk;
	struct layout_row row;
	size_t n = 0;
	if (bytes && layout->kind == LAYOUT_STRIDED && (offset % layout->run + bytes - 1) / layout->run >= max)
		return 0; /* seen before walking: a transposed tensor has very many runs */
	layout_walk_init(&walk, layout, offset, bytes);
	while (layout_walk_next(&walk, &row)) {
		for (uint64_t i = 0; i < row.n; i++, row.addr += row.stride) {
			for (uint64_t done = 0; done < row.run; n++) {
				uint64_t part = row.run - done < SEG_BYTES_MAX ? row.run - done : SEG_BYTES_MAX;
				if (n == max)
					return 0;
				out[n] = (struct frame_seg){.addr = row.addr + done, .bytes = (uint32_t)part, .mem = row.mem};
				done += part;
			}
		}
	}
	return n;
}
