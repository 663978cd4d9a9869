/* The index of address ranges: an array sorted by address, beside it how far everything up to an entry reaches, so that a search ends where nothing before can hold the
 * range any more. Inserting moves what lies behind: 4096 entries cost a few microseconds, which is nothing beside registering memory. */
#include "mem/index.h"
#include <stdlib.h>
#include <string.h>

enum { INDEX_FIRST = 64 };

bool mem_index_grow(struct mem_index *x)
{
	if (x->used < x->room)
		return true;
	uint32_t n = x->room ? x->room * 2 : INDEX_FIRST;
	struct mem_range **sorted = realloc(x->sorted, n * sizeof(struct mem_range *));
	x->sorted = sorted ? sorted : x->sorted;
	uint8_t **reach = realloc(x->reach, n * sizeof(uint8_t *));
	x->reach = reach ? reach : x->reach;
	if (!sorted || !reach)
		return false;
	x->room = n;
	return true;
}

void mem_index_fini(struct mem_index *x)
{
	free(x->sorted);
	free(x->reach);
	memset(x, 0, sizeof(*x));
}

/* The first entry that begins behind addr. */
static uint32_t index_upper(const struct mem_index *x, const uint8_t *addr)
{
	uint32_t low = 0, high = x->used;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (x->sorted[middle]->addr <= addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void index_reach(struct mem_index *x, uint32_t from)
{
	for (uint32_t i = from; i < x->used; i++) {
		uint8_t *before = i ? x->reach[i - 1] : NULL;
		x->reach[i] = x->sorted[i]->end > before ? x->sorted[i]->end : before;
	}
}

void mem_index_insert(struct mem_index *x, struct mem_range *r)
{
	uint32_t at = index_upper(x, r->addr);
	memmove(x->sorted + at + 1, x->sorted + at, (x->used - at) * sizeof(struct mem_range *));
	x->sorted[at] = r;
	x->used++;
	index_reach(x, at);
}

void mem_index_remove(struct mem_index *x, const struct mem_range *r)
{
	uint32_t at = index_upper(x, r->addr);
	while (at && x->sorted[at - 1] != r)
		at--;
	if (!at)
		return;
	at--;
	memmove(x->sorted + at, x->sorted + at + 1, (x->used - at - 1) * sizeof(struct mem_range *));
	x->used--;
	index_reach(x, at);
}

struct mem_range *mem_index_holding(const struct mem_index *x, const uint8_t *addr, const uint8_t *end)
{
	for (uint32_t i = index_upper(x, addr); i > 0 && x->reach[i - 1] >= end; i--)
		if (x->sorted[i - 1]->end >= end)
			return x->sorted[i - 1];
	return NULL;
}

struct mem_range *mem_index_same(const struct mem_index *x, const uint8_t *addr, const uint8_t *end)
{
	for (uint32_t i = index_upper(x, addr); i > 0 && x->sorted[i - 1]->addr == addr; i--)
		if (x->sorted[i - 1]->end == end)
			return x->sorted[i - 1];
	return NULL;
}
