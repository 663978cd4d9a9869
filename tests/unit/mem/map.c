/* mem/map.c: numbers and columns. What links rely on: a column never moves, an entry is 0 for what is not there, a number means one region at a time. */
#include "unit.h"
#include "mem/map.h"

enum { MANY = 5000 };

static struct mem_what what(uint64_t at, uint64_t bytes, bool lasts)
{
	return mem_what_host((void *)(uintptr_t)(0x10000 + at), bytes, lasts);
}

static void columns_stay(void)
{
	static struct mem_region *region[MANY];
	struct mem_map m;
	bool is_new;
	int a_scope, b_scope;

	mem_map_init(&m);
	int a = mem_kind_get(&m, &a_scope, &is_new);
	CU_ASSERT(a >= 0 && is_new);
	CU_ASSERT_EQUAL(mem_kind_get(&m, &a_scope, &is_new), a);
	CU_ASSERT_FALSE(is_new);
	const uint32_t *column = m.column[a];
	for (uint32_t i = 0; i < MANY; i++) {
		struct mem_what w = what(i * 100, 50, true);
		region[i] = mem_region_new(&m, &w);
		CU_ASSERT_PTR_NOT_NULL_FATAL(region[i]);
		CU_ASSERT(region[i]->number && mem_region_at(&m, region[i]->number) == region[i]);
		CU_ASSERT_EQUAL(column[region[i]->number], 0);
		m.column[a][region[i]->number] = i + 1;
	}
	CU_ASSERT_PTR_EQUAL(m.column[a], column);
	CU_ASSERT_EQUAL(column[0], 0);
	for (uint32_t i = 0; i < MANY; i++)
		CU_ASSERT_EQUAL(column[region[i]->number], i + 1);
	int b = mem_kind_get(&m, &b_scope, &is_new);
	CU_ASSERT(b >= 0 && b != a && is_new);
	for (uint32_t i = 0; i < MANY; i += 2) {
		uint32_t number = region[i]->number;
		mem_region_free(&m, region[i]);
		CU_ASSERT_PTR_NULL(mem_region_at(&m, number));
		CU_ASSERT_EQUAL(column[number], 0);
	}
	mem_kind_put(&m, b);
	CU_ASSERT_EQUAL(m.kinds, 1);
	mem_map_fini(&m);
}

/* An operation finds what holds it; a registration only its like. */
static void found(void)
{
	struct mem_map m;
	struct mem_what outer = what(0, 1000, true), inner = what(100, 100, true), op = what(120, 10, false), out = what(950, 100, false);

	mem_map_init(&m);
	struct mem_region *r = mem_region_new(&m, &outer);
	CU_ASSERT_PTR_EQUAL(mem_region_find(&m, &outer), r);
	CU_ASSERT_PTR_NULL(mem_region_find(&m, &inner));
	CU_ASSERT_PTR_EQUAL(mem_region_find(&m, &op), r);
	CU_ASSERT_PTR_NULL(mem_region_find(&m, &out));
	struct mem_region *second = mem_region_new(&m, &inner);
	CU_ASSERT_PTR_EQUAL(mem_region_find(&m, &inner), second);
	CU_ASSERT_PTR_NOT_NULL(mem_region_find(&m, &op));
	mem_region_free(&m, r);
	CU_ASSERT_PTR_EQUAL(mem_region_find(&m, &op), second);
	op.addr += 200;
	CU_ASSERT_PTR_NULL(mem_region_find(&m, &op));
	mem_map_fini(&m);
}

static void kinds_run_out(void)
{
	static char scope[MEM_KINDS_MAX + 1];
	struct mem_map m;
	bool is_new;

	mem_map_init(&m);
	for (int i = 0; i < MEM_KINDS_MAX; i++)
		CU_ASSERT_EQUAL(mem_kind_get(&m, &scope[i], &is_new), i);
	CU_ASSERT_EQUAL(mem_kind_get(&m, &scope[MEM_KINDS_MAX], &is_new), -1);
	mem_kind_put(&m, 3);
	CU_ASSERT_EQUAL(mem_kind_get(&m, &scope[MEM_KINDS_MAX], &is_new), 3);
	mem_map_fini(&m);
}

static const struct unit_case cases[] = {
        {"columns_stay", columns_stay},
        {"found", found},
        {"kinds_run_out", kinds_run_out},
};
UNIT_MAIN("mem_map", cases)
