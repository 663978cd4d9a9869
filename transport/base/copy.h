/* The one place that copies payload, and the one that counts it: docs/copies.md is asserted from these counts. Called by loop (bounces, unmatched messages, tensors whose
 * runs are shorter than a frame) and by links that must copy. Pure. Ciphers do not copy: they seal and open in one pass (seal/). */
#ifndef BASE_COPY_H
#define BASE_COPY_H
#include <stddef.h>
#include <stdint.h>
#include "base/frame.h"
#include "base/layout.h"

/**
 * Copies from one list of segments to another until either ends. Segments may be of any size; source and destination must not overlap.
 * @param copied_bytes  grows by what was copied
 * @return bytes copied: the lesser of the two sums
 */
uint64_t copy_segs(const struct frame_seg *dst, size_t nd, const struct frame_seg *src, size_t ns, uint64_t *copied_bytes);

/** One run to one run. */
void copy_bytes(void *dst, const void *src, size_t bytes, uint64_t *copied_bytes);

/** The same for anything but one run. */
void layout_pack(const struct layout *layout, uint64_t offset, void *dst, uint64_t bytes, uint64_t *copied_bytes);
void layout_spread(const struct layout *layout, uint64_t offset, const void *src, uint64_t bytes, uint64_t *copied_bytes);

/** Packs bytes [offset, offset + bytes) of the layout into dst; the range must lie inside the layout. */
static inline void layout_copy_out(const struct layout *layout, uint64_t offset, void *dst, uint64_t bytes, uint64_t *copied_bytes)
{
	if (layout->kind == LAYOUT_FLAT)
		copy_bytes(dst, layout->addr + offset, bytes, copied_bytes);
	else
		layout_pack(layout, offset, dst, bytes, copied_bytes);
}

/** Spreads `bytes` bytes from src over the layout, from its byte `offset` on; the range must lie inside the layout. */
static inline void layout_copy_in(const struct layout *layout, uint64_t offset, const void *src, uint64_t bytes, uint64_t *copied_bytes)
{
	if (layout->kind == LAYOUT_FLAT)
		copy_bytes(layout->addr + offset, src, bytes, copied_bytes);
	else
		layout_spread(layout, offset, src, bytes, copied_bytes);
}

#endif
