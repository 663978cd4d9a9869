/* Regions, their numbers and the columns of keys. A column is reserved whole, so that it never moves: pages that no number reaches are never touched. */
#include "mem/map.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { COLUMN_BYTES = MEM_NUMBERS_MAX * sizeof(uint32_t), MAP_FIRST = 64 };

void mem_map_init(struct mem_map *m)
{
	memset(m, 0, sizeof(*m));
}

void mem_map_fini(struct mem_map *m)
{
	for (int i = 0; i < MEM_KINDS_MAX; i++)
		mem_kind_put(m, i);
	for (uint32_t i = 0; i < m->room; i++)
		free(m->region[i]);
	free(m->region);
	mem_index_fini(&m->index);
	memset(m, 0, sizeof(*m));
}

int mem_kind_get(struct mem_map *m, const void *scope, bool *is_new)
{
	int spare = -1;
	*is_new = false;
	for (int i = 0; i < MEM_KINDS_MAX; i++) {
		if (m->column[i] && m->scope[i] == scope)
			return i;
		spare = spare < 0 && !m->column[i] ? i : spare;
	}
	void *column = spare < 0 ? MAP_FAILED : mmap(NULL, COLUMN_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (column == MAP_FAILED)
		return -1;
	m->column[spare] = column;
	m->scope[spare] = scope;
	m->kinds++;
	*is_new = true;
	return spare;
}

void mem_kind_put(struct mem_map *m, int kind)
{
	if (!m->column[kind])
		return;
	munmap(m->column[kind], COLUMN_BYTES);
	m->column[kind] = NULL;
	m->scope[kind] = NULL;
	m->kinds--;
}

struct mem_region *mem_region_find(const struct mem_map *m, const struct mem_what *what)
{
	/* a registration shares with its like only: one that lies inside another may outlive it */
	struct mem_range *r = what->lasts ? mem_index_same(&m->index, what->addr, what->addr + what->bytes)
	                                  : mem_index_holding(&m->index, what->addr, what->addr + what->bytes);
	return (struct mem_region *)r;
}

/* Number 0 is nobody's. */
static uint32_t region_number(struct mem_map *m)
{
	if (m->used + 1 >= m->room) {
		uint32_t n = m->room ? m->room * 2 : MAP_FIRST;
		struct mem_region **region = n <= MEM_NUMBERS_MAX ? realloc(m->region, n * sizeof(struct mem_region *)) : NULL;
		if (!region)
			return 0;
		memset(region + m->room, 0, (n - m->room) * sizeof(struct mem_region *));
		m->region = region;
		m->room = n;
	}
	uint32_t i = m->free_hint ? m->free_hint : 1;
	while (m->region[i])
		i = i + 1 < m->room ? i + 1 : 1;
	m->free_hint = i + 1 < m->room ? i + 1 : 1;
	return i;
}

struct mem_region *mem_region_new(struct mem_map *m, const struct mem_what *what)
{
	uint32_t number = mem_index_grow(&m->index) ? region_number(m) : 0;
	struct mem_region *r = number ? calloc(1, sizeof(*r)) : NULL;
	if (!r)
		return NULL;
	*r = (struct mem_region){.range = {.addr = what->addr, .end = what->addr + what->bytes}, .what = *what, .number = number};
	m->region[number] = r;
	m->used++;
	for (int i = 0; i < MEM_KINDS_MAX; i++)
		if (m->column[i])
			m->column[i][number] = 0;
	mem_index_insert(&m->index, &r->range);
	return r;
}

void mem_region_free(struct mem_map *m, struct mem_region *r)
{
	mem_index_remove(&m->index, &r->range);
	m->region[r->number] = NULL;
	m->used--;
	for (int i = 0; i < MEM_KINDS_MAX; i++)
		if (m->column[i])
			m->column[i][r->number] = 0;
	free(r);
}

struct mem_region *mem_region_at(const struct mem_map *m, uint32_t number)
{
	return number && number < m->room ? m->region[number] : NULL;
}
