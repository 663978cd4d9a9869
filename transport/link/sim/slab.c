/* Size-classed memory of datagrams in flight; see slab.h. */
#include "link/sim/slab.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct slab_item {
	struct slab_item *next;
};

struct slab_chunk {
	struct slab_chunk *next;
	uint8_t pad[56]; /* items stay 64-byte aligned */
};

void slab_init(struct slab *slab, uint64_t limit_bytes)
{
	memset(slab, 0, sizeof(*slab));
	slab->limit_bytes = limit_bytes ? limit_bytes : UINT64_MAX;
}

void slab_fini(struct slab *slab)
{
	while (slab->chunks) {
		struct slab_chunk *chunk = slab->chunks;
		slab->chunks = chunk->next;
		free(chunk);
	}
	memset(slab, 0, sizeof(*slab));
}

static uint32_t class_of(size_t bytes)
{
	assert(bytes && bytes <= SLAB_ITEM_MAX);
	return bytes <= 2048 ? (uint32_t)(bytes - 1) / 64 : SLAB_SMALL_CLASSES + (uint32_t)(bytes - 1) / 1024 - 2;
}

static size_t class_bytes(uint32_t c)
{
	return c < SLAB_SMALL_CLASSES ? (c + 1) * 64 : (c - SLAB_SMALL_CLASSES + 3) * 1024;
}

static int grow(struct slab *slab, uint32_t c)
{
	size_t item = class_bytes(c), bytes = SLAB_CHUNK_BYTES;

	struct slab_chunk *chunk = aligned_alloc(64, bytes);
	if (!chunk)
		return -1;
	chunk->next = slab->chunks;
	slab->chunks = chunk;
	slab->chunk_bytes += bytes;
	slab->fresh[c] = (uint8_t *)(chunk + 1);
	slab->fresh_end[c] = slab->fresh[c] + (bytes - sizeof(*chunk)) / item * item;
	return 0;
}

void *slab_get(struct slab *slab, size_t bytes)
{
	uint32_t c = class_of(bytes);
	struct slab_item *item = slab->free[c];

	if (slab->used_bytes + class_bytes(c) > slab->limit_bytes)
		return NULL;
	if (item) {
		slab->free[c] = item->next;
	} else {
		if (slab->fresh[c] == slab->fresh_end[c] && grow(slab, c))
			return NULL;
		item = (struct slab_item *)slab->fresh[c];
		slab->fresh[c] += class_bytes(c);
	}
	slab->items++;
	slab->used_bytes += class_bytes(c);
	return item;
}

void slab_put(struct slab *slab, void *item, size_t bytes)
{
	struct slab_item *it = item;
	uint32_t c = class_of(bytes);

	it->next = slab->free[c];
	slab->free[c] = it;
	slab->items--;
	slab->used_bytes -= class_bytes(c);
}
