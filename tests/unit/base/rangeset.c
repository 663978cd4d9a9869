/* Range sets against a bitmap: several sets on one small pool, so that it runs out often; the tree is checked from inside as well. */
#include <string.h>
#include "base/rangeset.h"
#include "rand.h"
#include "unit.h"

enum { SPAN = 2048, SETS = 3 };

static uint8_t model[SETS][SPAN];

static uint32_t model_count(const uint8_t *bit)
{
	uint32_t n = 0;
	for (uint32_t x = 0; x < SPAN; x++)
		n += bit[x] && (x == 0 || !bit[x - 1]);
	return n;
}

static uint64_t model_sum(const uint8_t *bit, uint64_t first, uint64_t end)
{
	uint64_t sum = 0;
	for (uint64_t x = first; x < end; x++)
		sum += bit[x];
	return sum;
}

/* @return depth of the subtree; checks order, and counts nodes */
static uint32_t tree_depth(const struct rangeset *set, uint32_t i, uint64_t low, uint64_t high, uint32_t *nodes)
{
	if (!i)
		return 0;
	const struct range_node *node = rangeset_at(set, i);
	CU_ASSERT_FATAL(node->first >= low && node->end <= high && node->first < node->end);
	++*nodes;
	uint32_t left = tree_depth(set, node->left, low, node->first, nodes), right = tree_depth(set, node->right, node->end, high, nodes);
	return 1 + (left > right ? left : right);
}

static void check_all(const struct rangeset *set, const uint8_t *bit)
{
	uint32_t count = 0, nodes = 0, before = 0;
	uint64_t at = 0, bytes = 0;
	for (uint32_t i = rangeset_first(set); i; before = i, i = rangeset_next(set, i)) {
		const struct range_node *node = rangeset_at(set, i);
		CU_ASSERT_EQUAL_FATAL(rangeset_prev(set, i), before);
		CU_ASSERT_FATAL(count == 0 || node->first > at);
		CU_ASSERT_EQUAL_FATAL(model_sum(bit, at, node->first), 0);
		CU_ASSERT_EQUAL_FATAL(model_sum(bit, node->first, node->end), node->end - node->first);
		bytes += node->end - node->first;
		at = node->end;
		count++;
	}
	CU_ASSERT_EQUAL_FATAL(rangeset_last(set), before);
	CU_ASSERT_EQUAL_FATAL(model_sum(bit, at, SPAN), 0);
	CU_ASSERT_EQUAL_FATAL(rangeset_count(set), count);
	CU_ASSERT_EQUAL_FATAL(rangeset_bytes(set), bytes);
	CU_ASSERT_EQUAL_FATAL(rangeset_empty(set), count == 0);
	tree_depth(set, set->root, 0, UINT64_MAX, &nodes);
	CU_ASSERT_EQUAL_FATAL(nodes, count);
}

static void check_questions(const struct rangeset *set, const uint8_t *bit, uint64_t first, uint64_t end)
{
	CU_ASSERT_EQUAL_FATAL(rangeset_contains(set, first), bit[first]);
	uint64_t sum = model_sum(bit, first, end), from = first, gap = 0, stop = 0;
	CU_ASSERT_EQUAL_FATAL(rangeset_covers(set, first, end), sum == end - first);
	CU_ASSERT_EQUAL_FATAL(rangeset_overlap(set, first, end), sum);
	while (from < end && bit[from])
		from++;
	bool found = rangeset_next_gap(set, first, end, &gap, &stop);
	CU_ASSERT_EQUAL_FATAL(found, from < end);
	if (found) {
		uint64_t to = from;
		while (to < end && !bit[to])
			to++;
		CU_ASSERT_FATAL(gap == from && stop == to);
	}
	uint32_t i = rangeset_seek(set, first);
	uint64_t x = first;
	while (x < SPAN && !bit[x])
		x++;
	CU_ASSERT_EQUAL_FATAL(i == 0, x == SPAN);
	if (i)
		CU_ASSERT_FATAL(rangeset_at(set, i)->first <= x && x < rangeset_at(set, i)->end && (x == first || rangeset_at(set, i)->first == x));
}

static void step_add(struct rangeset *set, uint8_t *bit, uint64_t first, uint64_t end)
{
	bool alone = model_sum(bit, first, end) == 0 && !(first && bit[first - 1]) && !(end < SPAN && bit[end]) && end > first;
	bool full = set->pool->used == set->pool->max;
	uint64_t added = rangeset_add(set, first, end);
	if (alone && full) {
		CU_ASSERT_EQUAL_FATAL(added, RANGE_NO_ROOM);
		return;
	}
	CU_ASSERT_EQUAL_FATAL(added, end - first - model_sum(bit, first, end));
	memset(bit + first, 1, end - first);
}

static void step_remove(struct rangeset *set, uint8_t *bit, uint64_t first, uint64_t end)
{
	bool splits = end > first && first && end < SPAN && model_sum(bit, first - 1, end + 1) == end - first + 2;
	bool full = set->pool->used == set->pool->max;
	uint64_t removed = rangeset_remove(set, first, end);
	if (splits && full) {
		CU_ASSERT_EQUAL_FATAL(removed, RANGE_NO_ROOM);
		return;
	}
	CU_ASSERT_EQUAL_FATAL(removed, model_sum(bit, first, end));
	memset(bit + first, 0, end - first);
}

static void step_pop(struct rangeset *set, uint8_t *bit)
{
	uint64_t max = rand_below(30), first = 0, want = 0;
	while (want < SPAN && !bit[want])
		want++;
	uint64_t got = rangeset_pop_front(set, max, &first);
	CU_ASSERT_EQUAL_FATAL(got == 0, want == SPAN || max == 0);
	if (!got)
		return;
	CU_ASSERT_FATAL(first == want && got <= max && model_sum(bit, first, first + got) == got);
	CU_ASSERT_FATAL(got == max || first + got == SPAN || !bit[first + got]);
	memset(bit + first, 0, got);
}

static void against_bitmap(uint32_t room, int steps)
{
	struct range_pool pool;
	struct rangeset set[SETS];
	void *memory = malloc(range_pool_bytes(room));
	range_pool_init(&pool, memory, room);
	memset(model, 0, sizeof(model));
	for (int s = 0; s < SETS; s++)
		rangeset_init(&set[s], &pool);
	for (int step = 0; step < steps; step++) {
		int s = (int)rand_below(SETS);
		uint64_t first = rand_below(SPAN), end = first + rand_below(rand_next() >> 60 ? 6 : 400);
		uint32_t act = (uint32_t)rand_below(64), bias = step / 20000 % 2 ? 20 : 40;
		if (end > SPAN)
			end = SPAN;
		if (act == 0 && step % 100 == 0) {
			rangeset_clear(&set[s]);
			memset(model[s], 0, SPAN);
		} else if (act == 1) {
			step_pop(&set[s], model[s]);
		} else if (act < 8 && set[s].tail) { /* at the edges: the fast paths */
			uint64_t low = rangeset_at(&set[s], rangeset_first(&set[s]))->first, high = rangeset_at(&set[s], rangeset_last(&set[s]))->end;
			uint64_t n = 1 + rand_below(5);
			if (act < 5 && high + n <= SPAN)
				step_add(&set[s], model[s], high, high + n);
			else if (low + n <= SPAN)
				step_remove(&set[s], model[s], low, low + n);
		} else if (act < bias) {
			step_add(&set[s], model[s], first, end);
		} else {
			step_remove(&set[s], model[s], first, end);
		}
		if (step % 8 == 0)
			check_questions(&set[s], model[s], first, end);
		if (step % 512 == 0)
			check_all(&set[s], model[s]);
	}
	uint32_t sum = 0;
	for (int s = 0; s < SETS; s++) {
		check_all(&set[s], model[s]);
		sum += model_count(model[s]);
	}
	CU_ASSERT_EQUAL(pool.used, sum);
	for (int s = 0; s < SETS; s++)
		rangeset_clear(&set[s]);
	CU_ASSERT_EQUAL(pool.used, 0);
	free(memory);
}

static void room_for_all(void)
{
	rand_start(unit_seed());
	against_bitmap(SETS * SPAN, 1500000);
}

static void room_runs_out(void)
{
	rand_start(unit_seed() + 1);
	against_bitmap(40, 1500000);
}

static void grows_in_order(void)
{
	struct range_pool pool;
	struct rangeset set;
	uint64_t memory[8];
	range_pool_init(&pool, memory, 1);
	rangeset_init(&set, &pool);
	CU_ASSERT_EQUAL(rangeset_remove(&set, 0, UINT64_MAX), 0);
	CU_ASSERT_EQUAL(rangeset_add(&set, UINT64_MAX, UINT64_MAX), 0);
	CU_ASSERT_EQUAL(rangeset_count(&set), 0);
	for (uint64_t i = 0; i < 100000; i++)
		CU_ASSERT_EQUAL_FATAL(rangeset_add(&set, i * 3, i * 3 + 3), 3);
	CU_ASSERT_EQUAL(rangeset_count(&set), 1);
	CU_ASSERT_EQUAL(rangeset_add(&set, 17, 20000), 0);
	CU_ASSERT_EQUAL(rangeset_add(&set, 300001, 300002), RANGE_NO_ROOM);
	CU_ASSERT_EQUAL(rangeset_remove(&set, 100, 200), RANGE_NO_ROOM);
	CU_ASSERT_EQUAL(rangeset_bytes(&set), 300000);
	CU_ASSERT_EQUAL(rangeset_remove(&set, 0, 100), 100);
	CU_ASSERT_EQUAL(rangeset_remove(&set, 299000, UINT64_MAX), 1000);
	CU_ASSERT_EQUAL(rangeset_add(&set, 299000, UINT64_MAX), UINT64_MAX - 299000);
	CU_ASSERT_TRUE(rangeset_contains(&set, UINT64_MAX - 1));
	CU_ASSERT_FALSE(rangeset_contains(&set, UINT64_MAX));
}

/* Thousands of holes must not make it slow: in order, backwards and at random the tree stays shallow. */
static void stays_shallow(void)
{
	enum { N = 20000 };
	struct range_pool pool;
	struct rangeset set;
	void *memory = malloc(range_pool_bytes(N));
	range_pool_init(&pool, memory, N);
	rangeset_init(&set, &pool);
	for (int order = 0; order < 3; order++) {
		uint32_t nodes = 0;
		for (uint64_t i = 0; i < N; i++) {
			uint64_t x = order == 0 ? i : order == 1 ? N - 1 - i : i * 7919 % N; /* 7919 is prime to N: a permutation */
			CU_ASSERT_EQUAL_FATAL(rangeset_add(&set, x * 2, x * 2 + 1), 1);
		}
		uint32_t depth = tree_depth(&set, set.root, 0, UINT64_MAX, &nodes);
		CU_ASSERT_EQUAL(nodes, N);
		CU_ASSERT(depth < 64); /* log2 N is 14.3; a treap of 20000 is 30 to 40 deep */
		CU_ASSERT_EQUAL(rangeset_add(&set, 0, 2 * N), N);
		CU_ASSERT_EQUAL(pool.used, 1);
		rangeset_clear(&set);
	}
	free(memory);
}

static const struct unit_case cases[] = {
	{"in order: one node, whatever the length", grows_in_order},
	{"random operations, room for all", room_for_all},
	{"random operations, the pool runs out", room_runs_out},
	{"20000 ranges: shallow", stays_shallow},
};
UNIT_MAIN("base rangeset", cases)
