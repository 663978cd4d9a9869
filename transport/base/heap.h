/* Binary min-heap of {key, ref}: timers and turns. ref is a small number, unique in the heap (an index of the thing that waits); an array says where each ref
 * stands, so that a key is changed or removed in O(log n). Memory comes at init. Called by flow, msg, peer and loop. Knows nothing of what a ref means. */
#ifndef BASE_HEAP_H
#define BASE_HEAP_H
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HEAP_NONE UINT32_MAX
#define HEAP_KEY_NONE UINT64_MAX /* heap_min_key of an empty heap */

struct heap_node {
	uint64_t key;
	uint32_t ref;
};

struct heap {
	struct heap_node *node; /* node[i].key <= node[2i+1].key, node[2i+2].key */
	uint32_t *place;        /* place[ref]: index into node, or HEAP_NONE */
	uint32_t n, max;
};

/** Memory for refs 0..max-1. */
static inline size_t heap_bytes(uint32_t max)
{
	return (size_t)max * (sizeof(struct heap_node) + sizeof(uint32_t));
}

/** @param memory  heap_bytes(max) bytes, aligned to 8; the caller's, in use as long as the heap is */
static inline void heap_init(struct heap *heap, void *memory, uint32_t max)
{
	heap->node = memory;
	heap->place = (uint32_t *)(void *)(heap->node + max);
	heap->n = 0;
	heap->max = max;
	if (max)
		memset(heap->place, 0xff, max * sizeof(uint32_t));
}

static inline bool heap_empty(const struct heap *heap)
{
	return heap->n == 0;
}

static inline uint64_t heap_min_key(const struct heap *heap)
{
	return heap->n ? heap->node[0].key : HEAP_KEY_NONE;
}

/** The ref with the least key, HEAP_NONE when empty. */
static inline uint32_t heap_min_ref(const struct heap *heap)
{
	return heap->n ? heap->node[0].ref : HEAP_NONE;
}

static inline bool heap_has(const struct heap *heap, uint32_t ref)
{
	return heap->place[ref] != HEAP_NONE;
}

/** Key of a ref that is in the heap. */
static inline uint64_t heap_key(const struct heap *heap, uint32_t ref)
{
	return heap->node[heap->place[ref]].key;
}

static inline void heap_put_at(struct heap *heap, uint32_t i, struct heap_node node)
{
	heap->node[i] = node;
	heap->place[node.ref] = i;
}

static inline void heap_up(struct heap *heap, uint32_t i, struct heap_node node)
{
	while (i) {
		uint32_t parent = (i - 1) / 2;
		if (heap->node[parent].key <= node.key)
			break;
		heap_put_at(heap, i, heap->node[parent]);
		i = parent;
	}
	heap_put_at(heap, i, node);
}

static inline void heap_down(struct heap *heap, uint32_t i, struct heap_node node)
{
	for (;;) {
		uint64_t child = 2 * (uint64_t)i + 1;
		if (child >= heap->n)
			break;
		if (child + 1 < heap->n && heap->node[child + 1].key < heap->node[child].key)
			child++;
		if (node.key <= heap->node[child].key)
			break;
		heap_put_at(heap, i, heap->node[child]);
		i = (uint32_t)child;
	}
	heap_put_at(heap, i, node);
}

/** Puts ref in with this key, or changes its key. */
static inline void heap_set(struct heap *heap, uint32_t ref, uint64_t key)
{
	assert(ref < heap->max);
	uint32_t i = heap->place[ref];
	struct heap_node node = {.key = key, .ref = ref};
	if (i == HEAP_NONE)
		heap_up(heap, heap->n++, node);
	else if (key < heap->node[i].key)
		heap_up(heap, i, node);
	else
		heap_down(heap, i, node);
}

/** Takes ref out; nothing happens if it is not in. */
static inline void heap_remove(struct heap *heap, uint32_t ref)
{
	uint32_t i = heap->place[ref];
	if (i == HEAP_NONE)
		return;
	heap->place[ref] = HEAP_NONE;
	struct heap_node last = heap->node[--heap->n];
	if (i == heap->n)
		return;
	if (i && last.key < heap->node[(i - 1) / 2].key)
		heap_up(heap, i, last);
	else
		heap_down(heap, i, last);
}

/** Takes the least out. @return its ref, HEAP_NONE when empty */
static inline uint32_t heap_pop(struct heap *heap)
{
	uint32_t ref = heap_min_ref(heap);
	if (ref != HEAP_NONE)
		heap_remove(heap, ref);
	return ref;
}

#endif
