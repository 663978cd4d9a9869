/* The heap against an array: least key, changes and removals in any order. */
#include "base/heap.h"
#include "rand.h"
#include "unit.h"

enum { REFS = 300 };
static uint64_t model[REFS]; /* key by ref; HEAP_KEY_NONE: not in */

static uint64_t model_min(void)
{
	uint64_t least = HEAP_KEY_NONE;
	for (int i = 0; i < REFS; i++)
		if (model[i] < least)
			least = model[i];
	return least;
}

static void against_model(void)
{
	struct heap heap;
	void *memory = malloc(heap_bytes(REFS));
	heap_init(&heap, memory, REFS);
	for (int i = 0; i < REFS; i++)
		model[i] = HEAP_KEY_NONE;
	rand_start(unit_seed());
	for (int step = 0; step < 400000; step++) {
		uint32_t ref = (uint32_t)rand_below(REFS), act = (uint32_t)rand_below(step / 50000 % 2 ? 3 : 8);
		if (act == 0) {
			heap_remove(&heap, ref);
			model[ref] = HEAP_KEY_NONE;
		} else if (act == 1) {
			uint64_t least = model_min();
			ref = heap_pop(&heap);
			CU_ASSERT_EQUAL_FATAL(ref == HEAP_NONE, least == HEAP_KEY_NONE);
			if (ref != HEAP_NONE) {
				CU_ASSERT_EQUAL_FATAL(model[ref], least);
				model[ref] = HEAP_KEY_NONE;
			}
		} else {
			model[ref] = rand_below(act == 2 ? 10 : 1u << 30); /* many equal keys too */
			heap_set(&heap, ref, model[ref]);
			CU_ASSERT_EQUAL_FATAL(heap_key(&heap, ref), model[ref]);
		}
		CU_ASSERT_EQUAL_FATAL(heap_has(&heap, (uint32_t)(step % REFS)), model[step % REFS] != HEAP_KEY_NONE);
		CU_ASSERT_EQUAL_FATAL(heap_min_key(&heap), model_min());
	}
	uint64_t before = 0;
	while (!heap_empty(&heap)) {
		uint64_t key = heap_min_key(&heap);
		CU_ASSERT_FATAL(key >= before);
		before = key;
		model[heap_pop(&heap)] = HEAP_KEY_NONE;
	}
	CU_ASSERT_EQUAL(model_min(), HEAP_KEY_NONE);
	free(memory);
}

static void empty_heap(void)
{
	struct heap heap;
	uint64_t memory[4];
	heap_init(&heap, memory, 1);
	CU_ASSERT_EQUAL(heap_min_key(&heap), HEAP_KEY_NONE);
	CU_ASSERT_EQUAL(heap_pop(&heap), HEAP_NONE);
	heap_remove(&heap, 0);
	heap_set(&heap, 0, HEAP_KEY_NONE - 1);
	CU_ASSERT_EQUAL(heap_min_ref(&heap), 0);
}

static const struct unit_case cases[] = {
	{"random sets, changes, removals, pops", against_model},
	{"empty and one", empty_heap},
};
UNIT_MAIN("base heap", cases)
