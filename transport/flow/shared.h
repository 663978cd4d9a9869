/* Pools that all flows of a context draw from: extents (what was sent) and ranges (what was received). Memory is given once, at init; indices instead of pointers
 * keep an extent at 64 bytes. Called by flow's own files and, to set it up, by the owner of the context. Knows no flow. */
#ifndef FLOW_SHARED_H
#define FLOW_SHARED_H
#include <stddef.h>
#include <stdint.h>
#include "base/rangeset.h"

enum { FLOW_NONE = 0xffffffff };

enum flow_extent_flags {
	FLOW_EXTENT_APP_LIMITED = 1,
	FLOW_EXTENT_JOINED = 2, /* another item of the frame whose number the extent before it ends with; carries no wire bytes */
	FLOW_EXTENT_ACKED = 4,  /* waits to be reported as acknowledged; else, when it waits, as lost */
};

/* Numbers [first, first + frames) carried a run of one item. Every frame but the last carries stride_bytes. */
struct flow_extent {
	uint64_t first;
	uint64_t ref, offset;
	uint64_t sent_ns;         /* of the first frame */
	uint32_t bytes, kind;
	uint32_t stride_bytes;
	uint32_t wire_bytes;
	uint32_t span_ns;         /* from the first frame's leaving to the last one's */
	uint32_t next;
	uint16_t frames;
	uint16_t flags;
	uint32_t delivered_64;    /* what the flow had delivered when the last frame left, in 64 bytes, modulo 2^32 */
};

struct flow_shared {
	struct flow_extent *extent;
	uint32_t extent_free, extent_fresh, extents_left; /* list of returned ones; never used ones from extent_fresh on */
	uint32_t extents;
	uint32_t extent_reserve;                          /* kept for splits: commits stop above it, so that an acknowledgement can always be taken in */
	struct range_pool ranges;
};

/** Memory that flow_shared_init needs. */
size_t flow_shared_bytes(uint32_t extents, uint32_t ranges);
/** Lays the pools out in `memory` (64-byte aligned, flow_shared_bytes long), which stays the caller's and must outlive all flows. */
struct flow_shared *flow_shared_init(void *memory, uint32_t extents, uint32_t ranges);

static inline uint32_t flow_extent_get(struct flow_shared *s)
{
	uint32_t i = s->extent_free;

	if (i != FLOW_NONE)
		s->extent_free = s->extent[i].next;
	else if (s->extents_left)
		i = s->extent_fresh++;
	else
		return FLOW_NONE;
	s->extents_left--;
	return i;
}

static inline void flow_extent_put(struct flow_shared *s, uint32_t i)
{
	s->extent[i].next = s->extent_free;
	s->extent_free = i;
	s->extents_left++;
}

#endif
