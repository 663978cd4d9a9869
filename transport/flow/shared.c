/* Lays out the pools that the flows of a context share. Called when a context opens. */
#include "flow/shared.h"

enum { SPLIT_RESERVE_MAX = 256, ALIGN_BYTES = 64 };

_Static_assert(sizeof(struct flow_extent) == 64, "an extent is a cache line");

static size_t round_up(size_t bytes)
{
	return (bytes + ALIGN_BYTES - 1) & ~(size_t)(ALIGN_BYTES - 1);
}

size_t flow_shared_bytes(uint32_t extents, uint32_t ranges)
{
	return round_up(sizeof(struct flow_shared)) + round_up((size_t)extents * sizeof(struct flow_extent)) + range_pool_bytes(ranges);
}

struct flow_shared *flow_shared_init(void *memory, uint32_t extents, uint32_t ranges)
{
	struct flow_shared *s = memory;
	unsigned char *at = memory;
	uint32_t reserve = extents / 8;

	at += round_up(sizeof(*s));
	s->extent = (struct flow_extent *)(void *)at;
	s->extent_free = FLOW_NONE;
	s->extent_fresh = 0;
	s->extents = extents;
	s->extents_left = extents;
	s->extent_reserve = reserve < SPLIT_RESERVE_MAX ? reserve : SPLIT_RESERVE_MAX;
	at += round_up((size_t)extents * sizeof(struct flow_extent));
	range_pool_init(&s->ranges, at, ranges);
	return s;
}
