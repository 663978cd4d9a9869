/* Where the bytes of a message lie in memory: one run, a list of ranges, or a strided tensor, each seen as one string of bytes 0..bytes. Made by api from what the
 * caller gives, used by msg and loop to turn a byte range of a message into segments. Pure; holds no memory of its own. Knows nothing of links: `mem` is a number
 * that the caller keeps there and finds again in every segment. */
#ifndef BASE_LAYOUT_H
#define BASE_LAYOUT_H
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/frame.h"
#include "tern/tensor.h"

enum layout_kind { LAYOUT_FLAT = 0, LAYOUT_LIST = 1, LAYOUT_STRIDED = 2 };
enum { LAYOUT_RANGES_MAX = 64 };

/* One range of a list; the empty ones of the caller's list are left out. */
struct layout_range {
	uint8_t *addr;
	uint64_t end;    /* bytes of this range and all before it */
	uint32_t mem;    /* goes into frame_seg.mem; 0 until the caller sets it */
	uint32_t source; /* index in tern_buf.iov */
};

struct layout {
	uint64_t bytes;
	uint64_t run;     /* bytes of the shortest contiguous run */
	uint32_t mem;     /* FLAT, STRIDED: as layout_range.mem */
	uint16_t source;  /* FLAT made from a list: index in tern_buf.iov */
	uint8_t kind;     /* enum layout_kind */
	uint8_t n;        /* LIST: ranges; STRIDED: dimensions outside the run */
	union {
		uint8_t *addr;              /* FLAT */
		struct layout_range *range; /* LIST: the storage given to layout_from_buf */
		struct {                    /* STRIDED: outermost dimension first, none of length 1, neighbours that continue each other merged */
			uint8_t *base;      /* of index 0,0,... */
			uint64_t shape[TERN_DIMS_MAX];
			int64_t stride[TERN_DIMS_MAX]; /* bytes; may be negative or 0 */
		} dim;
	};
};
_Static_assert(sizeof(struct layout) <= 176, "two of them in every operation");

/**
 * Checks and normalises what the caller gave. Tensors lose their length-1 dimensions and merge those that lie one behind another, so a dense tensor is FLAT.
 * @param buf      NULL: a message of 0 bytes
 * @param storage  LAYOUT_RANGES_MAX entries, kept by the caller as long as the layout; may be NULL when buf has at most one range that is not empty
 * @return 0, or -TERN_EINVAL: unknown dtype, more than 8 dimensions or 64 ranges, sizes that overflow, addresses that wrap around, bytes without an address,
 *         both a tensor and ranges; *out is then empty, and *why (if why is not NULL) says which, static
 */
int layout_from_buf(const tern_buf *buf, struct layout *out, struct layout_range *storage, const char **why);

/** The layout of one run. */
static inline void layout_flat(struct layout *out, void *addr, uint64_t bytes)
{
	out->bytes = out->run = bytes; /* field by field: the dimensions, which nobody reads, are most of it */
	out->mem = 0;
	out->source = 0;
	out->kind = LAYOUT_FLAT;
	out->n = 0;
	out->addr = (uint8_t *)addr;
}

/** Nearly every buffer: one range with an address. @return false: it is another, or wrong; layout_from_buf tells */
static inline bool layout_from_one(const tern_buf *buf, struct layout *out)
{
	if (!buf || buf->n != 1 || buf->tensor || !buf->iov || !buf->iov->addr || buf->iov->bytes > UINTPTR_MAX - (uintptr_t)buf->iov->addr)
		return false;
	layout_flat(out, buf->iov->bytes ? buf->iov->addr : NULL, buf->iov->bytes);
	return true;
}

static inline uint64_t layout_bytes(const struct layout *layout)
{
	return layout->bytes;
}

/** The shortest contiguous run: worth gathering without a copy while it is at least a frame's payload. */
static inline uint64_t layout_min_run(const struct layout *layout)
{
	return layout->run;
}

/** layout_span for anything but one run. */
void layout_span_any(const struct layout *layout, uint8_t **low, uint8_t **end);

/** The lowest address of one run or a strided tensor, and the one behind the highest. Not for lists. */
static inline void layout_span(const struct layout *layout, uint8_t **low, uint8_t **end)
{
	if (layout->kind != LAYOUT_FLAT) {
		layout_span_any(layout, low, end);
		return;
	}
	*low = layout->addr;
	*end = layout->addr + layout->bytes;
}

/**
 * May two bytes of the message share an address? Then nothing may be received into it.
 * Cautious: nested strides where an inner dimension reaches past the next outer stride count as overlapping even where they interleave.
 */
bool layout_overlaps(const struct layout *layout);

/* A row: n runs of `run` bytes, `stride` apart. */
struct layout_row {
	uint8_t *addr;
	uint64_t run, n;
	int64_t stride;
	uint32_t mem;
};

/* A walk over a byte range of a layout, row by row. */
struct layout_walk {
	const struct layout *layout;
	uint64_t left;                /* bytes still to come */
	uint64_t skip;                /* bytes of the present run already passed */
	uint8_t *at;                  /* STRIDED: start of the present run */
	uint32_t range;               /* LIST: present range */
	uint64_t index[TERN_DIMS_MAX]; /* STRIDED: present run */
};

void layout_walk_init(struct layout_walk *walk, const struct layout *layout, uint64_t offset, uint64_t bytes);
/** @return false at the end. A row is a whole number of equal runs; broken runs at either end come as rows of one. */
bool layout_walk_next(struct layout_walk *walk, struct layout_row *row);

/** layout_segs for anything but one run. */
size_t layout_segs_any(const struct layout *layout, uint64_t offset, uint64_t bytes, struct frame_seg *out, size_t max);

/**
 * The segments of bytes [offset, offset + bytes), which must lie inside the layout.
 * @return how many were written; 0: more than max would be needed (out may be partly written), or bytes is 0
 */
static inline size_t layout_segs(const struct layout *layout, uint64_t offset, uint64_t bytes, struct frame_seg *out, size_t max)
{
	assert(offset <= layout->bytes && bytes <= layout->bytes - offset);
	if (layout->kind != LAYOUT_FLAT || bytes - 1 >= UINT32_MAX || !max)
		return layout_segs_any(layout, offset, bytes, out, max);
	out->addr = layout->addr + offset;
	out->bytes = (uint32_t)bytes;
	out->mem = layout->mem;
	return 1;
}

#endif
