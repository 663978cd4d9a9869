/* The export table: open addressing with linear probing, keys are random so the key is its own hash. Removal closes the gap, so finds stay short. */
#include "mem/table.h"
#include "tern/error.h"

enum { SLOTS = MEM_EXPORTS_MAX * 2 };

static uint32_t home(uint64_t key)
{
	return (uint32_t)(key % SLOTS);
}

static uint32_t mem_table_at(const struct mem_table *t, uint64_t key)
{
	uint32_t i = home(key);
	while (t->slot[i].key && t->slot[i].key != key)
		i = (i + 1) % SLOTS;
	return i;
}

struct mem_export *mem_table_find(const struct mem_table *t, uint64_t key, uint64_t peer)
{
	if (!key)
		return NULL;
	const struct mem_export *e = &t->slot[mem_table_at(t, key)];
	return e->key && e->peer == peer ? (struct mem_export *)e : NULL;
}

int mem_table_add(struct mem_table *t, const struct mem_export *e)
{
	uint32_t i = mem_table_at(t, e->key);
	if (t->used >= MEM_EXPORTS_MAX || t->slot[i].key)
		return -TERN_ELIMIT;
	t->slot[i] = *e;
	t->used++;
	return 0;
}

void mem_table_remove(struct mem_table *t, uint64_t key)
{
	uint32_t gap = mem_table_at(t, key);
	if (!t->slot[gap].key)
		return;
	t->used--;
	for (uint32_t i = (gap + 1) % SLOTS; t->slot[i].key; i = (i + 1) % SLOTS) {
		uint32_t want = home(t->slot[i].key);
		/* slot i may move to the gap if its home is not between them */
		if ((i + SLOTS - want) % SLOTS >= (i + SLOTS - gap) % SLOTS) {
			t->slot[gap] = t->slot[i];
			gap = i;
		}
	}
	t->slot[gap] = (struct mem_export){0};
}
