/* Objects that any thread may take and give back without a lock: a ring of free indices (Concurrency Kit's). Called by the rest of api/. */
#include <stdlib.h>
#include <sys/mman.h>
#include "api/context.h"

ck_ring_buffer_t *api_ring_open(ck_ring_t *ring, uint32_t least)
{
	uint32_t size = 16;
	while (size <= least) /* a ring of size n holds n - 1 */
		size *= 2;
	ck_ring_buffer_t *slots = calloc(size, sizeof(*slots));
	if (slots)
		ck_ring_init(ring, size);
	return slots;
}

int api_slab_open(struct api_slab *s, size_t bytes, uint32_t n)
{
	s->bytes = (bytes + 63) & ~(size_t)63;
	s->n = n;
	/* mapped, not allocated: pages that are never used cost nothing */
	s->memory = mmap(NULL, s->bytes * n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s->memory == MAP_FAILED) {
		s->memory = NULL;
		return -TERN_ENOMEM;
	}
	s->slots = api_ring_open(&s->ring, n);
	if (!s->slots)
		return -TERN_ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		ring_put_any(&s->ring, s->slots, s->memory + s->bytes * i); /* by many, as they come back */
	return 0;
}

void api_slab_close(struct api_slab *s)
{
	if (s->memory)
		munmap(s->memory, s->bytes * s->n);
	free(s->slots);
	s->memory = NULL;
	s->slots = NULL;
}

void *api_slab_get(struct api_slab *s)
{
	return ring_get_any(&s->ring, s->slots);
}

void api_slab_put(struct api_slab *s, void *object)
{
	/* there is room for every object there is; it can only be full to a taker who has not said so yet */
	while (!ring_put_any(&s->ring, s->slots, object))
		ck_pr_stall();
}
