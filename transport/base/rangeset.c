/* Range sets: see rangeset.h. The tree is a treap (Seidel and Aragon, 1996) whose priority is a hash of the node's number: no balance is stored, every
 * operation walks one path downwards, expected length 2 ln n. Knows nothing of what a number means. */
#include <assert.h>
#include "base/rangeset.h"

_Static_assert(sizeof(struct range_node) == 32, "two nodes a cache line");

size_t range_pool_bytes(uint32_t n)
{
	return ((size_t)n + 1) * sizeof(struct range_node);
}

void range_pool_init(struct range_pool *pool, void *memory, uint32_t n)
{
	*pool = (struct range_pool){.node = memory, .fresh = 1, .max = n, .salt = 0x9e3779b9};
	pool->node[0] = (struct range_node){.first = UINT64_MAX, .end = UINT64_MAX};
}

/* murmur3's finalizer: a bijection, so no two nodes have the same priority. */
static inline uint32_t priority(const struct range_pool *pool, uint32_t i)
{
	uint32_t x = i ^ pool->salt;
	x = (x ^ x >> 16) * 0x85ebca6b;
	x = (x ^ x >> 13) * 0xc2b2ae35;
	return x ^ x >> 16;
}

static uint32_t node_get(struct range_pool *pool)
{
	uint32_t i = pool->free_head;
	if (i)
		pool->free_head = pool->node[i].next;
	else if (pool->fresh <= pool->max)
		i = pool->fresh++;
	else
		return 0;
	pool->used++;
	return i;
}

static void node_put(struct range_pool *pool, uint32_t i)
{
	pool->node[i].next = pool->free_head;
	pool->free_head = i;
	pool->used--;
}

/* The last range that begins at or below x, 0 if there is none. Both ends first: that is where frames arrive. */
static uint32_t floor_of(const struct rangeset *set, uint64_t x)
{
	const struct range_node *node = set->pool->node;
	if (!set->tail || x < node[set->head].first)
		return 0;
	if (x >= node[set->tail].first)
		return set->tail;
	if (x < node[node[set->head].next].first)
		return set->head;
	uint32_t found = 0;
	for (uint32_t i = set->root; i;) {
		if (node[i].first <= x) {
			found = i;
			i = node[i].right;
		} else {
			i = node[i].left;
		}
	}
	return found;
}

/* Puts node i into the tree: down to where its priority belongs, then the subtree there is split by its key. */
static void tree_insert(struct rangeset *set, uint32_t i)
{
	struct range_node *node = set->pool->node;
	uint64_t key = node[i].first;
	uint32_t mine = priority(set->pool, i);
	uint32_t *link = &set->root;
	while (*link && priority(set->pool, *link) > mine)
		link = key < node[*link].first ? &node[*link].left : &node[*link].right;
	uint32_t below = *link;
	uint32_t *less = &node[i].left, *more = &node[i].right;
	*link = i;
	while (below) {
		if (node[below].first < key) {
			*less = below;
			less = &node[below].right;
			below = *less;
		} else {
			*more = below;
			more = &node[below].left;
			below = *more;
		}
	}
	*less = *more = 0;
}

static void tree_remove(struct rangeset *set, uint32_t i)
{
	struct range_node *node = set->pool->node;
	uint32_t *link = &set->root;
	while (*link != i)
		link = node[i].first < node[*link].first ? &node[*link].left : &node[*link].right;
	uint32_t less = node[i].left, more = node[i].right;
	while (less && more) {
		if (priority(set->pool, less) > priority(set->pool, more)) {
			*link = less;
			link = &node[less].right;
			less = *link;
		} else {
			*link = more;
			link = &node[more].left;
			more = *link;
		}
	}
	*link = less ? less : more;
}

/* A new range behind range `prev` (0: before all). @return false: no node is free */
static bool range_insert(struct rangeset *set, uint32_t prev, uint64_t first, uint64_t end)
{
	struct range_node *node = set->pool->node;
	uint32_t i = node_get(set->pool);
	if (!i)
		return false;
	uint32_t next = prev ? node[prev].next : set->head;
	node[i] = (struct range_node){.first = first, .end = end, .prev = prev, .next = next};
	if (prev)
		node[prev].next = i;
	else
		set->head = i;
	if (next)
		node[next].prev = i;
	else
		set->tail = i;
	set->count++;
	tree_insert(set, i);
	return true;
}

static void range_drop(struct rangeset *set, uint32_t i)
{
	struct range_node *node = set->pool->node;
	uint32_t prev = node[i].prev, next = node[i].next;
	tree_remove(set, i);
	if (prev)
		node[prev].next = next;
	else
		set->head = next;
	if (next)
		node[next].prev = prev;
	else
		set->tail = prev;
	set->count--;
	node_put(set->pool, i);
}

uint64_t rangeset_add_any(struct rangeset *set, uint64_t first, uint64_t end)
{
	struct range_node *node = set->pool->node;
	assert(first <= end);
	if (first == end)
		return 0;
	uint32_t i = floor_of(set, first);
	uint64_t added;
	if (i && node[i].end >= first) { /* begins inside or at the end of a range: that one grows */
		if (node[i].end >= end)
			return 0;
		added = end - node[i].end;
		node[i].end = end;
	} else {
		uint32_t next = i ? node[i].next : set->head;
		added = end - first;
		if (!next || node[next].first > end) {
			if (!range_insert(set, i, first, end))
				return RANGE_NO_ROOM;
			set->bytes += added;
			return added;
		}
		i = next; /* the next one grows downwards: nothing lies between, so the order stays */
		if (node[i].end >= end) {
			added = node[i].first - first;
			node[i].first = first;
			set->bytes += added;
			return added;
		}
		added -= node[i].end - node[i].first;
		node[i].first = first;
		node[i].end = end;
	}
	for (uint32_t next = node[i].next; next && node[next].first <= end; next = node[i].next) {
		uint64_t stop = node[next].end;
		added -= (stop < end ? stop : end) - node[next].first;
		if (stop > end)
			node[i].end = stop;
		range_drop(set, next);
	}
	set->bytes += added;
	return added;
}

uint64_t rangeset_remove_any(struct rangeset *set, uint64_t first, uint64_t end)
{
	struct range_node *node = set->pool->node;
	assert(first <= end);
	if (first == end)
		return 0;
	uint32_t i = floor_of(set, first);
	uint64_t removed = 0;
	if (i && node[i].first < first) {
		if (node[i].end > end) {
			if (!range_insert(set, i, end, node[i].end))
				return RANGE_NO_ROOM;
			node[i].end = first;
			set->bytes -= end - first;
			return end - first;
		}
		if (node[i].end > first) {
			removed = node[i].end - first;
			node[i].end = first;
		}
		i = node[i].next;
	} else if (!i) {
		i = set->head;
	}
	while (i && node[i].first < end) {
		uint32_t next = node[i].next;
		if (node[i].end > end) {
			removed += end - node[i].first;
			node[i].first = end;
			break;
		}
		removed += node[i].end - node[i].first;
		range_drop(set, i);
		i = next;
	}
	set->bytes -= removed;
	return removed;
}

uint32_t rangeset_seek(const struct rangeset *set, uint64_t x)
{
	const struct range_node *node = set->pool->node;
	uint32_t i = floor_of(set, x);
	if (!i)
		return set->head;
	return x < node[i].end ? i : node[i].next;
}

bool rangeset_contains(const struct rangeset *set, uint64_t x)
{
	uint32_t i = floor_of(set, x);
	return i && x < set->pool->node[i].end;
}

bool rangeset_covers(const struct rangeset *set, uint64_t first, uint64_t end)
{
	if (first >= end)
		return true;
	uint32_t i = floor_of(set, first);
	return i && end <= set->pool->node[i].end;
}

uint64_t rangeset_overlap(const struct rangeset *set, uint64_t first, uint64_t end)
{
	const struct range_node *node = set->pool->node;
	uint64_t sum = 0;
	for (uint32_t i = rangeset_seek(set, first); i && node[i].first < end; i = node[i].next) {
		uint64_t from = node[i].first > first ? node[i].first : first;
		uint64_t to = node[i].end < end ? node[i].end : end;
		if (to > from)
			sum += to - from;
	}
	return sum;
}

bool rangeset_next_gap(const struct rangeset *set, uint64_t from, uint64_t limit, uint64_t *first, uint64_t *end)
{
	const struct range_node *node = set->pool->node;
	uint32_t i = floor_of(set, from);
	uint32_t next = i ? node[i].next : set->head;
	if (i && from < node[i].end)
		from = node[i].end;
	if (from >= limit)
		return false;
	*first = from;
	*end = next && node[next].first < limit ? node[next].first : limit;
	return true;
}

uint64_t rangeset_pop_front(struct rangeset *set, uint64_t max, uint64_t *first)
{
	uint32_t i = set->head;
	if (!i || !max)
		return 0;
	struct range_node *n = &set->pool->node[i];
	uint64_t bytes = n->end - n->first;
	*first = n->first;
	if (bytes > max) {
		bytes = max;
		n->first += max;
	} else {
		range_drop(set, i);
	}
	set->bytes -= bytes;
	return bytes;
}

void rangeset_clear_any(struct rangeset *set)
{
	struct range_pool *pool = set->pool;
	pool->node[set->tail].next = pool->free_head;
	pool->free_head = set->head;
	pool->used -= set->count;
	rangeset_init(set, pool);
}
