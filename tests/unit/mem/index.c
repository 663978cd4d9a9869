/* mem/index.c: ranges at random, nested, equal and apart, against a search of all of them. */
#include "unit.h"
#include <string.h>
#include "mem/index.h"
#include "rand.h"

enum { RANGES = 300, SPACE = 1 << 12 };

static struct mem_range range[RANGES];
static bool is_in[RANGES];

static void check(const struct mem_index *x, uint8_t *addr, uint8_t *end)
{
	bool held = false, same = false;
	for (int i = 0; i < RANGES; i++) {
		held |= is_in[i] && range[i].addr <= addr && range[i].end >= end;
		same |= is_in[i] && range[i].addr == addr && range[i].end == end;
	}
	const struct mem_range *r = mem_index_holding(x, addr, end);
	CU_ASSERT_EQUAL(r != NULL, held);
	CU_ASSERT(!r || (r->addr <= addr && r->end >= end));
	r = mem_index_same(x, addr, end);
	CU_ASSERT_EQUAL(r != NULL, same);
	CU_ASSERT(!r || (r->addr == addr && r->end == end));
}

static void at_random(void)
{
	static uint8_t memory[SPACE];
	struct mem_index x = {0};
	rand_start(unit_seed());

	for (int round = 0; round < 20000; round++) {
		int i = (int)(rand_next() % RANGES);
		if (is_in[i]) {
			mem_index_remove(&x, &range[i]);
		} else {
			uint64_t from = rand_next() % SPACE, bytes = 1 + rand_below(rand_below(8) ? 64 : SPACE - from);
			bytes = bytes < SPACE - from ? bytes : SPACE - from;
			range[i] = (struct mem_range){.addr = memory + from, .end = memory + from + bytes};
			CU_ASSERT_FATAL(mem_index_grow(&x));
			mem_index_insert(&x, &range[i]);
		}
		is_in[i] = !is_in[i];
		uint64_t from = rand_next() % SPACE, bytes = 1 + rand_next() % 32;
		check(&x, memory + from, memory + (from + bytes < SPACE ? from + bytes : SPACE));
		check(&x, range[i].addr, range[i].end);
	}
	mem_index_fini(&x);
	memset(is_in, 0, sizeof(is_in));
	check(&x, memory, memory + 1);
}

static const struct unit_case cases[] = {
        {"at_random", at_random},
};
UNIT_MAIN("mem_index", cases)
