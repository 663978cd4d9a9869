/* Fixed-size objects over memory given once: get and put are a few instructions, nothing is allocated afterwards. Called by every room that keeps objects
 * (operations, extents, frames). Free objects are chained by an index in their first four bytes; objects never handed out are not touched, so a large pool
 * costs pages only as it fills. Not thread-safe: one loop owns a pool. Knows nothing of what is in an object. */
#ifndef BASE_POOL_H
#define BASE_POOL_H
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { POOL_NONE = 0xffffffff };

struct pool {
	uint8_t *objects;
	uint8_t *taken;     /* one byte an object: 1 while it is out; finds double puts */
	uint64_t inverse;   /* of object_bytes' odd part, modulo 2^64: exact division by multiplying */
	uint32_t shift;     /* object_bytes = odd part << shift */
	uint32_t object_bytes;
	uint32_t n;
	uint32_t fresh;     /* objects from here on were never handed out */
	uint32_t free_head; /* chain of objects given back; POOL_NONE: empty */
	uint32_t used;
};

/** Bytes of an object as it lies in the pool: rounded up to 8. */
static inline uint32_t pool_stride(uint32_t object_bytes)
{
	return object_bytes ? (object_bytes + 7) & ~7u : 8;
}

/** Memory for n objects; align it as the object needs, at least to 8 (an object_bytes that is a multiple of 64 keeps cache lines apart). */
size_t pool_bytes(uint32_t object_bytes, uint32_t n);

/** @param memory  pool_bytes(object_bytes, n) bytes, the caller's, in use as long as the pool is */
void pool_init(struct pool *pool, void *memory, uint32_t object_bytes, uint32_t n);

static inline void *pool_at(const struct pool *pool, uint32_t index)
{
	return pool->objects + (size_t)index * pool->object_bytes;
}

static inline uint32_t pool_index_of(const struct pool *pool, const void *object)
{
	uint64_t diff = (uint64_t)((const uint8_t *)object - pool->objects);
	return (uint32_t)((diff >> pool->shift) * pool->inverse);
}

/** @return 1 while the object is out */
static inline int pool_is_used(const struct pool *pool, uint32_t index)
{
	return index < pool->n && pool->taken[index];
}

static inline uint32_t pool_used(const struct pool *pool)
{
	return pool->used;
}

/** @return an object with undefined contents, or NULL when all n are out */
static inline void *pool_get(struct pool *pool)
{
	uint32_t index = pool->free_head;
	void *object;
	if (index != POOL_NONE) {
		object = pool_at(pool, index);
		memcpy(&pool->free_head, object, sizeof(pool->free_head));
	} else {
		if (pool->fresh == pool->n)
			return NULL;
		index = pool->fresh++;
		object = pool_at(pool, index);
	}
	pool->taken[index] = 1;
	pool->used++;
	return object;
}

static inline void pool_put(struct pool *pool, void *object)
{
	uint32_t index = pool_index_of(pool, object);
	assert(index < pool->n && pool->taken[index]);
	pool->taken[index] = 0;
	memcpy(object, &pool->free_head, sizeof(pool->free_head));
	pool->free_head = index;
	pool->used--;
}

#endif
