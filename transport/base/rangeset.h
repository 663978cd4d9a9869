/* Sets of disjoint, non-touching ranges [first, end) of 64-bit numbers: received frame numbers, acknowledged bytes, bytes to resend. Called by flow and msg.
 * Many sets share one pool of 32-byte nodes, so that state grows with losses and not with sets. Each set is a treap whose nodes are also chained in order:
 * extending the last range or cutting the first is O(1) and inline, anything else O(log n). Knows nothing of what a number means. */
#ifndef BASE_RANGESET_H
#define BASE_RANGESET_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RANGE_NO_ROOM UINT64_MAX /* no node is free; the set is as before */

struct range_node {
	uint64_t first, end;  /* [first, end), never empty */
	uint32_t left, right; /* treap by `first`; 0: none */
	uint32_t prev, next;  /* in order; 0: none. A free node: next free one */
};

/* Node 0 is no range but stands for "none": first and end are UINT64_MAX, which no range touches, so that fast paths need no test for an empty set. */
struct range_pool {
	struct range_node *node;
	uint32_t free_head;  /* chain of nodes given back */
	uint32_t fresh;      /* nodes from here on were never used, their memory not touched */
	uint32_t max;        /* nodes that may be out at once */
	uint32_t used;
	uint32_t salt;       /* of the treap's priorities; any value, before the first add */
};

struct rangeset {
	struct range_pool *pool;
	uint64_t bytes;      /* sum of all ranges */
	uint32_t root;
	uint32_t head, tail; /* lowest and highest range; 0: empty */
	uint32_t count;
};

/** Memory for a pool of n nodes. */
size_t range_pool_bytes(uint32_t n);
/** @param memory  range_pool_bytes(n) bytes, aligned to 8 (better 32); the caller's, in use as long as the pool is */
void range_pool_init(struct range_pool *pool, void *memory, uint32_t n);

/** Starts an empty set. It holds no node, so it needs no end; rangeset_clear gives back what it has come to hold. */
static inline void rangeset_init(struct rangeset *set, struct range_pool *pool)
{
	*set = (struct rangeset){.pool = pool};
}

static inline uint64_t rangeset_bytes(const struct rangeset *set)
{
	return set->bytes;
}

static inline uint32_t rangeset_count(const struct rangeset *set)
{
	return set->count;
}

static inline bool rangeset_empty(const struct rangeset *set)
{
	return set->count == 0;
}

/* Iteration: a range is named by its node's number, 0 is the end. Valid until the set changes; a range that only grew or shrank keeps its number.
 *	for (uint32_t i = rangeset_last(set); i; i = rangeset_prev(set, i))
 *		use(rangeset_at(set, i)->first); */
static inline uint32_t rangeset_first(const struct rangeset *set)
{
	return set->head;
}

static inline uint32_t rangeset_last(const struct rangeset *set)
{
	return set->tail;
}

static inline const struct range_node *rangeset_at(const struct rangeset *set, uint32_t i)
{
	return &set->pool->node[i];
}

static inline uint32_t rangeset_next(const struct rangeset *set, uint32_t i)
{
	return set->pool->node[i].next;
}

static inline uint32_t rangeset_prev(const struct rangeset *set, uint32_t i)
{
	return set->pool->node[i].prev;
}

/** The general case of rangeset_add and rangeset_remove. */
uint64_t rangeset_add_any(struct rangeset *set, uint64_t first, uint64_t end);
uint64_t rangeset_remove_any(struct rangeset *set, uint64_t first, uint64_t end);

/**
 * Adds [first, end); first <= end.
 * @return bytes that were not in before: 0 if all were; RANGE_NO_ROOM: no node free, nothing changed. Extending a range never needs a node
 */
static inline uint64_t rangeset_add(struct rangeset *set, uint64_t first, uint64_t end)
{
	struct range_node *tail = &set->pool->node[set->tail];
	if (tail->end != first || end < first)
		return rangeset_add_any(set, first, end);
	tail->end = end;
	set->bytes += end - first;
	return end - first;
}

/**
 * Takes [first, end) out; first <= end.
 * @return bytes that were in; RANGE_NO_ROOM: the middle of a range was to go and no node is free for the second half; nothing changed
 */
static inline uint64_t rangeset_remove(struct rangeset *set, uint64_t first, uint64_t end)
{
	struct range_node *head = &set->pool->node[set->head];
	if (head->first != first || end >= head->end || end < first)
		return rangeset_remove_any(set, first, end);
	head->first = end;
	set->bytes -= end - first;
	return end - first;
}

/** The range that holds x, or the first one above it. 0: none. */
uint32_t rangeset_seek(const struct rangeset *set, uint64_t x);
bool rangeset_contains(const struct rangeset *set, uint64_t x);
/** All of [first, end)? An empty range is in every set. */
bool rangeset_covers(const struct rangeset *set, uint64_t first, uint64_t end);
/** How many of [first, end) are in; walks the ranges between. */
uint64_t rangeset_overlap(const struct rangeset *set, uint64_t first, uint64_t end);

/**
 * The lowest run in [from, limit) that is not in the set.
 * @return false: there is none
 */
bool rangeset_next_gap(const struct rangeset *set, uint64_t from, uint64_t limit, uint64_t *first, uint64_t *end);

/**
 * Takes up to `max` bytes off the lowest range.
 * @return how many (then *first is where they began), 0 when the set is empty or max is 0
 */
uint64_t rangeset_pop_front(struct rangeset *set, uint64_t max, uint64_t *first);

/** rangeset_clear of one that is not empty. */
void rangeset_clear_any(struct rangeset *set);

/** Empties the set; all nodes go back to the pool. O(1). */
static inline void rangeset_clear(struct rangeset *set)
{
	if (set->tail)
		rangeset_clear_any(set);
}

#endif
