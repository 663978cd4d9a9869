/* Ranges of memory by address, overlapping ones too: which of them holds a given one? Used by mem/map.c and by links that keep what they have registered; those that
 * are modules compile index.c in. Knows nothing of what a range is for. Not thread-safe. */
#ifndef MEM_INDEX_H
#define MEM_INDEX_H
#include <stdbool.h>
#include <stdint.h>

/* The first member of what is kept. Constant while it is in the index. */
struct mem_range {
	uint8_t *addr, *end;
};

struct mem_index {
	struct mem_range **sorted; /* by address */
	uint8_t **reach;           /* the largest end of sorted[0..i] */
	uint32_t used, room;
};

/** Makes room for one more. @return false: no memory, the index is as before */
bool mem_index_grow(struct mem_index *x);
/** Frees what the index holds; the ranges are the caller's. */
void mem_index_fini(struct mem_index *x);
/** Puts a range in, after mem_index_grow. It stays the caller's, at its place, until it is removed. */
void mem_index_insert(struct mem_index *x, struct mem_range *r);
void mem_index_remove(struct mem_index *x, const struct mem_range *r);
/** @return a range that holds all of [addr, end), the last to begin of them; NULL: none does */
struct mem_range *mem_index_holding(const struct mem_index *x, const uint8_t *addr, const uint8_t *end);
/** @return the range that is just [addr, end), NULL: none is */
struct mem_range *mem_index_same(const struct mem_index *x, const uint8_t *addr, const uint8_t *end);

#endif
