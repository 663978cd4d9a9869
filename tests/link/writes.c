/* What links with LINK_WRITES must do while their connection stands: writes land exactly, are told, and nothing lands anywhere else. Called by main.c; breaks.c has
 * connections. */
#include "writes.h"
#include <string.h>

/* Waits for the notice of one write, and checks it. */
static void landed(struct suite_end end[2], int at, uint64_t number, uint32_t bytes)
{
	struct writes_seen *seen = &writes_seen[at];

	writes_until(end, &seen->placed_n, seen->placed_n + 1);
	CU_ASSERT_EQUAL(seen->placed[seen->placed_n - 1].number, (uint32_t)number);
	CU_ASSERT_EQUAL(seen->placed[seen->placed_n - 1].bytes, bytes);
}

static void write_lands(void)
{
	struct suite_end end[2];

	CU_ASSERT_FATAL(writes_open(end));
	CU_ASSERT(end[0].path->max_write_bytes >= 256 && end[0].path->lanes >= 1);
	for (int at = 0; at < 2; at++) {
		uint32_t max = end[!at].path->max_write_bytes < WRITES_AREA_BYTES ? end[!at].path->max_write_bytes : WRITES_AREA_BYTES;
		struct writes_area *source = &writes_area[!at][0], *area = writes_expose(end, at, 1);
		writes_map(&end[!at], source);
		for (uint32_t bytes = 1, segs = 1; bytes; bytes = bytes < max ? (bytes * 3 < max ? bytes * 3 : max) : 0, segs++) {
			uint32_t segs_max = end[!at].link->max_segments < 4 ? end[!at].link->max_segments : 4;
			struct writes_one one = {.from = source, .target = area->target, .bytes = bytes, .segs = 1 + segs % segs_max};
			one.source_at = suite_random() % (WRITES_AREA_BYTES - bytes + 1);
			one.target_at = suite_random() % (WRITES_AREA_BYTES - bytes + 1);
			memset(area->memory, 0x5a, WRITES_AREA_BYTES + 2 * WRITES_GUARD);
			writes_fill(source->addr + one.source_at, bytes);
			landed(end, at, writes_put(end, !at, &one), bytes);
			CU_ASSERT(!memcmp(area->addr + one.target_at, source->addr + one.source_at, bytes));
			CU_ASSERT(writes_untouched(area->memory, WRITES_GUARD + one.target_at));
			CU_ASSERT(writes_untouched(area->addr + one.target_at + bytes, WRITES_AREA_BYTES - one.target_at - bytes + WRITES_GUARD));
		}
	}
	writes_close(end);
}

/* A write that must not land: outside, wrong key, after HIDDEN. Afterwards everything works, on a new connection if that one broke. */
static void astray(struct suite_end end[2], const struct writes_one *one, const struct writes_area *area)
{
	struct writes_seen *seen = &writes_seen[1];
	size_t placed = writes_seen[0].placed_n, told = seen->done_n + seen->lost_n;

	uint64_t number = writes_put(end, 1, one);
	if (end[1].path->is_reliable) { /* there it ends the connection */
		while (seen->done_n + seen->lost_n == told && !seen->lost[number - WRITES_FIRST])
			writes_until(end, &seen->lost_n, seen->lost_n + 1);
		CU_ASSERT_EQUAL(seen->lost[number - WRITES_FIRST], 1);
		CU_ASSERT_EQUAL(seen->done[number - WRITES_FIRST], 0);
	}
	writes_settle(end);
	writes_connected(end);
	CU_ASSERT_EQUAL(writes_seen[0].placed_n, placed);
	CU_ASSERT(writes_untouched(area->memory, WRITES_AREA_BYTES + 2 * WRITES_GUARD));
	struct writes_area *other = writes_expose(end, 0, 7);
	struct writes_one good = {.from = one->from, .target = other->target, .bytes = 200};
	landed(end, 0, writes_put(end, 1, &good), 200);
	CU_ASSERT(!memcmp(other->addr, one->from->addr, 200));
	if (!other->ended) { /* free for the next round */
		size_t events = writes_seen[0].events_n;
		suite_ops->hide(end[0].link, other->id);
		writes_until(end, &writes_seen[0].events_n, events + 1);
	}
}

static void writes_go_astray(void)
{
	struct suite_end end[2];

	CU_ASSERT_FATAL(writes_open(end));
	struct writes_area *source = &writes_area[1][0];
	writes_map(&end[1], source);
	writes_fill(source->addr, 200);
	static const struct {
		int64_t addr;
		uint32_t key;
	} wrong[] = {
	        {-200, 0}, {-1, 0}, {WRITES_AREA_BYTES, 0}, {WRITES_AREA_BYTES - 199, 0}, {1ll << 40, 0}, {0, 1}, {0, 0x80000000}, {0, 0x00010000}};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		if (wrong[i].addr && wrong[i].addr <= WRITES_AREA_BYTES && !(suite_fixture->has & SUITE_BOUNDS))
			continue;
		struct writes_area *area = writes_expose(end, 0, 2);
		struct writes_one one = {.from = source, .target = area->target, .bytes = 200};
		one.target.addr += (uint64_t)wrong[i].addr;
		one.target.key ^= wrong[i].key;
		astray(end, &one, area);
		if (!area->ended) {
			size_t events = writes_seen[0].events_n;
			suite_ops->hide(end[0].link, area->id);
			writes_until(end, &writes_seen[0].events_n, events + 1);
		}
		CU_ASSERT_EQUAL(area->ended, 1);
		CU_ASSERT(area->last == LINK_BROKEN || !end[0].path->is_reliable); /* others may break, but need not */
	}
	writes_close(end);
}

static void writes_after_hidden(void)
{
	struct suite_end end[2];

	CU_ASSERT_FATAL(writes_open(end));
	struct writes_area *source = &writes_area[1][0];
	writes_map(&end[1], source);
	writes_fill(source->addr, 4096);
	for (int round = 0; round < 5; round++) {
		struct writes_area *area = writes_expose(end, 0, 2);
		struct writes_one one = {.from = source, .target = area->target, .bytes = 200, .target_at = suite_random() % 1000};
		landed(end, 0, writes_put(end, 1, &one), 200);
		size_t events = writes_seen[0].events_n;
		suite_ops->hide(end[0].link, area->id);
		writes_until(end, &writes_seen[0].events_n, events + 1);
		CU_ASSERT_EQUAL(area->last, LINK_HIDDEN);
		memset(area->memory, 0x5a, WRITES_AREA_BYTES + 2 * WRITES_GUARD);
		astray(end, &one, area);
		CU_ASSERT_EQUAL(area->exposed, 1);
		CU_ASSERT_EQUAL(area->ended, 1);
	}
	writes_close(end);
}

/* Whenever hide comes, and however often: one last event, after EXPOSED if that one comes at all. */
static void hidden_once(void)
{
	struct suite_end end[2];

	CU_ASSERT_FATAL(writes_open(end));
	for (int round = 0; round < 20; round++) {
		for (size_t i = 0; i < 8; i++) {
			struct writes_area *area = &writes_area[0][i];
			if (!area->memory)
				writes_map(&end[0], area);
			struct link_expose what = {
			        .addr = area->addr + i, .bytes = 1 + suite_random() % 5000, .mem = area->mem, .ref = i};
			area->exposed = area->ended = area->last = 0;
			CU_ASSERT_EQUAL_FATAL(suite_ops->expose(end[0].link, end[0].path, &what, &area->id), 0);
			if (i % 4 == 0)
				suite_ops->hide(end[0].link, area->id);
		}
		writes_step(end);
		if (round % 2)
			writes_settle(end);
		for (size_t i = 0; i < 8; i++) {
			if (!writes_area[0][i].ended)
				suite_ops->hide(end[0].link, writes_area[0][i].id);
			if (i % 2 && !writes_area[0][i].ended)
				suite_ops->hide(end[0].link, writes_area[0][i].id);
		}
		writes_settle(end);
		for (size_t i = 0; i < 8; i++) {
			CU_ASSERT_EQUAL(writes_area[0][i].ended, 1);
			CU_ASSERT_EQUAL(writes_area[0][i].last, LINK_HIDDEN);
			CU_ASSERT(writes_area[0][i].exposed <= 1);
		}
	}
	writes_close(end);
}

static void exposing_refused(void)
{
	struct suite_end end[2];
	uint32_t id, key;
	static uint8_t memory[3 * 4096] __attribute__((aligned(4096)));

	CU_ASSERT_FATAL(writes_open(end));
	CU_ASSERT_EQUAL(link_map(suite_ops, end[0].link, memory, 8192, &key), 0);
	CU_ASSERT_NOT_EQUAL(key, 0);
	struct link_expose bad[] = {{.addr = memory, .bytes = 100, .mem = key ^ 0x40000000},
	                            {.addr = memory, .bytes = 100, .mem = 0},
	                            {.addr = memory + 8000, .bytes = 1000, .mem = key},
	                            {.addr = memory, .bytes = 0, .mem = key}};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CU_ASSERT_EQUAL(suite_ops->expose(end[0].link, end[0].path, &bad[i], &id), -TERN_EINVAL);
	writes_settle(end);
	CU_ASSERT_EQUAL(writes_seen[0].events_n, 0);
	suite_ops->mem_unmap(end[0].link, key);
	CU_ASSERT_EQUAL(
	        suite_ops->expose(end[0].link, end[0].path, &(struct link_expose){.addr = memory, .bytes = 9, .mem = key}, &id),
	        -TERN_EINVAL);
	writes_close(end);
}

/* Datagrams and writes of one lane: the order of tx is the order of rx. */
static void lanes_keep_order(void)
{
	enum { N = 400 };
	struct suite_end end[2];
	uint32_t sent[256] = {0}, next[256] = {0}, late = 0;

	CU_ASSERT_FATAL(writes_open(end));
	struct writes_area *source = &writes_area[1][0], *area = writes_expose(end, 0, 1);
	uint32_t lanes = end[1].path->lanes, writes = 0;
	writes_map(&end[1], source);
	for (uint32_t i = 0; i < N; i++) {
		uint8_t lane = (uint8_t)(suite_random() % (lanes + 1));
		if (lane == area->target.lane && suite_random() % 2) {
			writes_put(end, 1, &(struct writes_one){.from = source, .target = area->target, .bytes = 256});
			writes++;
		}
		writes_say(end, 1, lane, (uint32_t)lane << 16 | sent[lane]++);
	}
	writes_until(end, &writes_seen[0].words_n, N);
	writes_until(end, &writes_seen[0].placed_n, writes);
	for (uint32_t i = 0; i < N; i++) {
		uint32_t lane = writes_seen[0].words[i] >> 16, number = writes_seen[0].words[i] & 0xffff;
		CU_ASSERT_FATAL(lane <= lanes);
		late += number != next[lane];
		next[lane] = number + 1;
	}
	for (uint32_t i = 0; i < writes; i++)
		late += writes_seen[0].placed[i].number != (uint32_t)(WRITES_FIRST + i);
	CU_ASSERT(late <= (end[1].path->is_reliable ? 0 : N / 50));
	writes_close(end);
}

/* Each number once, in extents of any shape; only with what has landed; the payload may change right after. */
static void done_once(void)
{
	enum { N = 500 };
	struct suite_end end[2];

	CU_ASSERT_FATAL(writes_open(end));
	struct writes_area *source = &writes_area[1][0], *area = writes_expose(end, 0, 1);
	writes_map(&end[1], source);
	for (uint32_t i = 0; i < N; i++) {
		uint32_t bytes = 1 + (uint32_t)(suite_random() % 500);
		writes_fill(source->addr + 512 * i, bytes);
		writes_put(end, 1, &(struct writes_one){source, area->target, 512 * i, 512 * i, bytes, 1});
	}
	writes_until(end, &writes_seen[1].done_n, N);
	writes_settle(end);
	CU_ASSERT_EQUAL(writes_seen[1].done_n, N);
	CU_ASSERT_EQUAL(writes_seen[1].lost_n, 0);
	CU_ASSERT_EQUAL(writes_seen[0].done_n + writes_seen[0].lost_n, 0);
	for (uint32_t i = 0; i < N; i++)
		CU_ASSERT_EQUAL(writes_seen[1].done[i], 1);
	CU_ASSERT(!memcmp(area->addr, source->addr, 512 * N));
	for (uint32_t i = 0; i < 50; i++) { /* one place, used again as soon as it is done */
		writes_fill(source->addr, 256);
		writes_put(end, 1, &(struct writes_one){source, area->target, 0, 256 * i, 256, 1});
		writes_until(end, &writes_seen[1].done_n, N + i + 1);
		CU_ASSERT(!memcmp(area->addr + 256 * i, source->addr, 256));
		memset(source->addr, 0, 256);
	}
	writes_close(end);
}

/* Random writes both ways, among datagrams, to areas that come and go between; a copy kept beside says what each must hold at the end. */
static void writes_random(void)
{
	enum { N = 1000, AREAS = 4 };
	static uint8_t wanted[2][AREAS][WRITES_AREA_BYTES];
	struct suite_end end[2];
	size_t sent[2] = {0}, said[2] = {0};

	CU_ASSERT_FATAL(writes_open(end));
	for (int at = 0; at < 2; at++) {
		writes_map(&end[at], &writes_area[at][AREAS]);
		writes_fill(writes_area[at][AREAS].addr, WRITES_AREA_BYTES);
		for (size_t i = 0; i < AREAS; i++)
			writes_expose(end, at, i);
	}
	memset(wanted, 0x5a, sizeof(wanted));
	for (uint32_t i = 0; i < N; i++) {
		int to = (int)(suite_random() % 2);
		size_t area = suite_random() % AREAS;
		uint32_t max = end[!to].path->max_write_bytes < 20000 ? end[!to].path->max_write_bytes : 20000;
		struct writes_one one = {
		        .from = &writes_area[!to][AREAS], .target = writes_area[to][area].target, .segs = 1 + (uint32_t)(suite_random() % 2)};
		one.bytes = 1 + (uint32_t)(suite_random() % (suite_random() % 4 ? 300 : max));
		one.source_at = suite_random() % (WRITES_AREA_BYTES - one.bytes);
		one.target_at = suite_random() % (WRITES_AREA_BYTES - one.bytes);
		writes_put(end, !to, &one);
		memcpy(wanted[to][area] + one.target_at, one.from->addr + one.source_at, one.bytes);
		sent[to]++;
		if (suite_random() % 8 == 0) {
			writes_say(end, !to, 0, i);
			said[to]++;
		}
		/* lanes go their own ways: what lands on one area keeps its order, since an area has one lane */
	}
	for (int to = 0; to < 2; to++) {
		writes_until(end, &writes_seen[to].placed_n, sent[to]);
		writes_until(end, &writes_seen[to].words_n, said[to]);
		if (end[0].path->is_reliable)
			writes_until(end, &writes_seen[!to].done_n, sent[to]);
		for (size_t i = 0; i < AREAS; i++) {
			CU_ASSERT(!memcmp(writes_area[to][i].addr, wanted[to][i], WRITES_AREA_BYTES));
			CU_ASSERT(writes_untouched(writes_area[to][i].memory, WRITES_GUARD));
			CU_ASSERT(writes_untouched(writes_area[to][i].addr + WRITES_AREA_BYTES, WRITES_GUARD));
		}
	}
	writes_close(end);
}

const struct suite_case write_cases[] = {
    {"write_lands", write_lands, SUITE_WRITES},
    {"writes_go_astray", writes_go_astray, SUITE_WRITES},
    {"writes_after_hidden", writes_after_hidden, SUITE_WRITES},
    {"hidden_once", hidden_once, SUITE_WRITES},
    {"exposing_refused", exposing_refused, SUITE_WRITES},
    {"lanes_keep_order", lanes_keep_order, SUITE_WRITES},
    {"done_once", done_once, SUITE_WRITES | SUITE_RELIABLE},
    {"writes_random", writes_random, SUITE_WRITES},
};
const size_t write_n_cases = sizeof(write_cases) / sizeof(write_cases[0]);
