/* Connections of links with LINK_CONNECTS: how paths find each other, what a closed or broken one leaves behind. Called by main.c. */
#include "writes.h"
#include <string.h>

static void random_token(uint8_t *token)
{
	for (size_t i = 0; i < LINK_TOKEN_BYTES; i++)
		token[i] = (uint8_t)suite_random();
}

static void connects_in_both_orders(void)
{
	struct suite_end end[2];
	uint8_t token[LINK_TOKEN_BYTES];
	uint32_t size = 700;

	for (int first = 0; first < 2; first++) {
		CU_ASSERT_FATAL(suite_open_links(end, 0));
		random_token(token);
		suite_open_path(end, first, token);
		CU_ASSERT(!end[first].path->is_connected);
		for (int i = 0; i < 20; i++) {
			CU_ASSERT_EQUAL(suite_ops->rx(end[first].link, end[first].in, 1, suite_now()), 0);
			suite_pause(&end[first]);
		}
		CU_ASSERT(!end[first].path->is_connected);
		suite_open_path(end, !first, token);
		CU_ASSERT_FATAL(suite_connected(end));
		CU_ASSERT_EQUAL(end[0].path->fault, 0);
		CU_ASSERT(end[0].path->connection >= 1);
		CU_ASSERT_EQUAL(end[0].path->connection, end[1].path->connection);
		suite_pass(end, 0, &size, 1, 1, false);
		suite_pass(end, 1, &size, 1, 1, false);
		suite_close(end);
	}
}

static void wrong_token_waits(void)
{
	struct suite_end end[2];
	uint8_t token[2][LINK_TOKEN_BYTES];
	uint32_t id, size = 500;

	CU_ASSERT_FATAL(writes_open(end)); /* the usual connection, to be left alone by the strangers */
	struct writes_area *area = &writes_area[1][0];
	writes_map(&end[1], area);
	random_token(token[0]);
	memcpy(token[1], token[0], LINK_TOKEN_BYTES);
	token[1][suite_random() % LINK_TOKEN_BYTES] ^= 1;
	struct suite_end more[2] = {{.link = end[0].link, .ops = end[0].ops}, {.link = end[1].link, .ops = end[1].ops}};
	suite_open_path(more, 0, token[0]);
	suite_open_path(more, 1, token[1]);
	for (int i = 0; i < 10; i++)
		writes_settle(end);
	CU_ASSERT(!more[0].path->is_connected && !more[1].path->is_connected);
	struct frame f, *list = &f;
	uint8_t memory[64];
	suite_frame(&f, more[1].path, memory, sizeof(memory), 1);
	CU_ASSERT_EQUAL(suite_ops->tx(end[1].link, &list, 1, suite_now()), 0);
	struct link_expose what = {.addr = area->addr, .bytes = 100, .mem = area->mem};
	CU_ASSERT_EQUAL(suite_ops->expose(end[1].link, more[1].path, &what, &id), -TERN_EAGAIN);
	suite_pass(end, 0, &size, 1, 1, false);
	suite_ops->path_close(end[1].link, &more[1].path);
	suite_open_path(more, 1, token[0]);
	CU_ASSERT(suite_connected(more));
	suite_pass(more, 1, &size, 1, 1, false);
	suite_pass(end, 1, &size, 1, 1, false);
	for (int i = 0; i < 2; i++)
		suite_ops->path_close(end[i].link, &more[i].path);
	writes_close(end);
}

/* Writes in flight when the exposing end closes: afterwards its memory is its own. The writer learns of the end, each number once. */
static void closing_stops_writes(void)
{
	struct suite_end end[2];

	for (int round = 0; round < 10; round++) {
		CU_ASSERT_FATAL(writes_open(end));
		struct writes_area *source = &writes_area[1][0], *area = writes_expose(end, 0, 1);
		struct writes_seen *seen = &writes_seen[1];
		writes_map(&end[1], source);
		uint32_t n = 20 + (uint32_t)(suite_random() % 30),
		         bytes = end[1].path->max_write_bytes < 16384 ? end[1].path->max_write_bytes : 16384;
		for (uint32_t i = 0; i < n; i++)
			if (!writes_offer(end, 1, &(struct writes_one){.from = source, .target = area->target, .bytes = bytes, .target_at = i * 100}))
				writes_step(end);
		for (uint64_t steps = suite_random() % 8; steps; steps--)
			writes_step(end);
		suite_ops->path_close(end[0].link, &end[0].path);
		memset(area->memory, 0xa7, WRITES_AREA_BYTES + 2 * WRITES_GUARD);
		size_t events = writes_seen[0].events_n, taken = (size_t)(writes_next - WRITES_FIRST);
		uint64_t until = suite_now() + SUITE_PATIENCE_MS * 1000000ull;
		while (end[1].path->is_connected && suite_now() < until)
			writes_step(end);
		CU_ASSERT(!end[1].path->is_connected);
		writes_settle(end);
		CU_ASSERT_EQUAL(writes_seen[0].events_n, events);
		for (size_t i = 0; i < WRITES_AREA_BYTES + 2 * WRITES_GUARD; i++)
			CU_ASSERT_FATAL(area->memory[i] == 0xa7);
		CU_ASSERT_EQUAL(seen->done_n + seen->lost_n, end[1].path->is_reliable ? taken : 0);
		for (size_t i = 0; i < taken; i++)
			CU_ASSERT(seen->done[i] + seen->lost[i] == end[1].path->is_reliable);
		CU_ASSERT_EQUAL(seen->reaped_n, taken);
		writes_seen[0].strange_n = 0; /* notices of what had landed before, of a path that is gone */
		writes_close(end);
	}
}

/* The writer closes: its payload is its own, the other's exposures are broken. */
static void closing_writer(void)
{
	struct suite_end end[2];

	CU_ASSERT_FATAL(writes_open(end));
	struct writes_area *source = &writes_area[1][0], *area = writes_expose(end, 0, 1);
	writes_map(&end[1], source);
	memset(source->addr, 0x5a, WRITES_AREA_BYTES);
	for (uint32_t i = 0; i < 20; i++)
		writes_offer(end, 1, &(struct writes_one){.from = source, .target = area->target, .bytes = 256, .target_at = i * 1000});
	suite_ops->path_close(end[1].link, &end[1].path);
	memset(source->addr, 0x11, WRITES_AREA_BYTES); /* must not be seen at the other end */
	size_t events = writes_seen[0].events_n;
	writes_until(end, &writes_seen[0].events_n, events + 1);
	CU_ASSERT_EQUAL(area->last, LINK_BROKEN);
	writes_settle(end);
	CU_ASSERT(!end[0].path->is_connected);
	CU_ASSERT(writes_untouched(area->memory, WRITES_AREA_BYTES + 2 * WRITES_GUARD));
	CU_ASSERT_EQUAL(area->ended, 1);
	writes_close(end);
}

/* Breaks under writes in flight, and what the new connection finds. */
static void break_once(struct suite_end end[2], struct writes_area *source)
{
	struct writes_seen *seen = &writes_seen[1];
	struct writes_area *area = writes_expose(end, 0, 1), *hidden = writes_expose(end, 0, 2);
	uint32_t before = end[0].path->connection;
	struct writes_one one = {.from = source, .target = area->target, .bytes = 256};

	for (uint32_t i = 0; i < 40; i++, one.target_at += 1000)
		if (!writes_offer(end, 1, &one))
			writes_step(end);
	for (uint64_t steps = suite_random() % 8; steps; steps--)
		writes_step(end);
	size_t taken = (size_t)(writes_next - WRITES_FIRST), events = writes_seen[0].events_n;
	if (suite_random() % 2)
		suite_ops->hide(end[0].link, hidden->id);
	suite_fixture->break_connection();
	writes_until(end, &writes_seen[0].events_n, events + 2);
	CU_ASSERT_EQUAL(area->last, LINK_BROKEN);
	CU_ASSERT(area->ended == 1 && hidden->ended == 1);
	memset(area->memory, 0x5a, WRITES_AREA_BYTES + 2 * WRITES_GUARD); /* from BROKEN on nothing is written there */
	writes_connected(end);
	writes_settle(end);
	CU_ASSERT_EQUAL(end[0].path->connection, before + 1);
	CU_ASSERT_EQUAL(end[1].path->connection, before + 1);
	CU_ASSERT(area->ended == 1 && hidden->ended == 1);
	CU_ASSERT(writes_untouched(area->memory, WRITES_AREA_BYTES + 2 * WRITES_GUARD));
	for (size_t i = 0; i < taken; i++)
		CU_ASSERT_EQUAL(seen->done[i] + seen->lost[i], end[1].path->is_reliable);
	CU_ASSERT_EQUAL(seen->reaped_n, taken);
}

static void breaks_and_connects_again(void)
{
	struct suite_end end[2];

	CU_ASSERT_FATAL(writes_open(end));
	struct writes_area *source = &writes_area[1][0];
	writes_map(&end[1], source);
	writes_fill(source->addr, WRITES_AREA_BYTES);
	for (int round = 0; round < 10; round++) {
		break_once(end, source);
		struct frame_target old = writes_area[0][1].target;
		struct writes_area *area = writes_expose(end, 0, 3);
		size_t placed = writes_seen[0].placed_n;
		struct writes_one one = {.from = source, .target = area->target, .bytes = 256};
		writes_put(end, 1, &one);
		writes_until(end, &writes_seen[0].placed_n, placed + 1);
		CU_ASSERT(!memcmp(area->addr, source->addr, 256));
		one.target = old; /* the old connection's target holds no more */
		writes_put(end, 1, &one);
		writes_settle(end);
		writes_connected(end);
		CU_ASSERT_EQUAL(writes_seen[0].placed_n, placed + 1);
		CU_ASSERT(writes_untouched(writes_area[0][1].memory, WRITES_AREA_BYTES + 2 * WRITES_GUARD));
		if (!area->ended) {
			size_t events = writes_seen[0].events_n;
			suite_ops->hide(end[0].link, area->id);
			writes_until(end, &writes_seen[0].events_n, events + 1);
		}
	}
	writes_close(end);
}

/* A peer that gives the path up: all that was under way is told when the call returns, and both ends connect again. */
static void reset_tells_all(void)
{
	struct suite_end end[2];

	CU_ASSERT_FATAL(writes_open(end));
	struct writes_area *source = &writes_area[1][0];
	writes_map(&end[1], source);
	for (int round = 0; round < 6; round++) {
		struct writes_seen *seen = &writes_seen[1];
		struct writes_area *area = writes_expose(end, 0, 1);
		uint32_t before = end[0].path->connection;
		struct writes_one one = {.from = source, .target = area->target, .bytes = 256};
		for (uint32_t i = 0; i < 40; i++, one.target_at += 1000)
			if (!writes_offer(end, 1, &one))
				writes_step(end);
		size_t events = writes_seen[0].events_n;
		int who = round % 2; /* the writer, or the one written to */
		suite_ops->path_reset(end[who].link, end[who].path);
		CU_ASSERT(!end[who].path->is_connected);
		writes_until(end, &writes_seen[0].events_n, events + 1);
		CU_ASSERT(area->last == LINK_BROKEN && area->ended == 1);
		memset(area->memory, 0x5a, WRITES_AREA_BYTES + 2 * WRITES_GUARD);
		writes_connected(end);
		writes_settle(end);
		CU_ASSERT(end[0].path->connection > before);
		CU_ASSERT_EQUAL(end[1].path->connection, end[0].path->connection);
		CU_ASSERT(writes_untouched(area->memory, WRITES_AREA_BYTES + 2 * WRITES_GUARD));
		size_t taken = (size_t)(writes_next - WRITES_FIRST);
		for (size_t i = 0; i < taken; i++)
			CU_ASSERT_EQUAL(seen->done[i] + seen->lost[i], end[1].path->is_reliable);
		CU_ASSERT_EQUAL(seen->reaped_n, taken);
	}
	writes_close(end);
}

const struct suite_case break_cases[] = {
    {"connects_in_both_orders", connects_in_both_orders, SUITE_WRITES},
    {"wrong_token_waits", wrong_token_waits, SUITE_WRITES},
    {"closing_stops_writes", closing_stops_writes, SUITE_WRITES},
    {"closing_writer", closing_writer, SUITE_WRITES},
    {"reset_tells_all", reset_tells_all, SUITE_WRITES},
    {"breaks_and_connects_again", breaks_and_connects_again, SUITE_WRITES | SUITE_BREAKS},
};
const size_t break_n_cases = sizeof(break_cases) / sizeof(break_cases[0]);
