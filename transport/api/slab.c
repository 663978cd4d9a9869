/* Objects that any thread may take and give back without a lock: a stack of the free ones (Concurrency Kit's). Called by the rest of api/. */
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
	s->on_put = NULL;
	/* mapped, not allocated: pages that are never used cost nothing */
	s->memory = mmap(NULL, s->bytes * n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s->memory == MAP_FAILED) {
		s->memory = NULL;
		return -TERN_ENOMEM;
	}
	s->entry = calloc(n, sizeof(*s->entry));
	if (!s->entry)
		return -TERN_ENOMEM;
	ck_stack_init(&s->stack);
	for (uint32_t i = n; i-- > 0;)
		stack_push(&s->stack, &s->entry[i]);
	return 0;
}

void api_slab_close(struct api_slab *s)
{
	if (s->memory)
		munmap(s->memory, s->bytes * s->n);
	free(s->entry);
	s->memory = NULL;
	s->entry = NULL;
}

/* The entries lie beside the objects, not in them: an operation's life and state outlast its use. */
void *api_slab_get(struct api_slab *s)
{
	const ck_stack_entry_t *entry = stack_pop(&s->stack);
	return entry ? s->memory + s->bytes * (size_t)(entry - s->entry) : NULL;
}

void api_slab_put(struct api_slab *s, void *object)
{
	if (s->on_put)
		s->on_put(object);
	stack_push(&s->stack, &s->entry[api_slab_index(s, object)]);
}
