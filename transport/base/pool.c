/* Set-up of the object pool; the hot half is in pool.h. Called when a context or a connection opens. Knows nothing of what is in an object. */
#include "base/pool.h"

size_t pool_bytes(uint32_t object_bytes, uint32_t n)
{
	return (size_t)n * pool_stride(object_bytes) + n;
}

/* Newton's iteration doubles the correct low bits: an odd x is its own inverse modulo 8, so four rounds pass 48 bits and the fifth 64. */
static uint64_t odd_inverse(uint64_t odd)
{
	uint64_t inverse = odd;
	for (int i = 0; i < 5; i++)
		inverse *= 2 - odd * inverse;
	return inverse;
}

void pool_init(struct pool *pool, void *memory, uint32_t object_bytes, uint32_t n)
{
	uint32_t stride = pool_stride(object_bytes);
	uint32_t shift = (uint32_t)__builtin_ctz(stride);
	assert(n < POOL_NONE);
	*pool = (struct pool){.objects = memory, .object_bytes = stride, .n = n, .free_head = POOL_NONE};
	pool->taken = pool->objects + (size_t)n * stride;
	pool->shift = shift;
	pool->inverse = odd_inverse(stride >> shift);
	memset(pool->taken, 0, n);
}
