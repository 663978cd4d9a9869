/* Two connected ends for the cases of direct placement: stepping both, noting what the links tell, memory, frames. Called by writes.c and breaks.c; see writes.h. */
#include "writes.h"
#include <stdlib.h>
#include <string.h>

enum { FRAMES = 256 };

struct writes_seen writes_seen[2];
struct writes_area writes_area[2][WRITES_AREAS];
uint64_t writes_next;
static struct frame frames[2][FRAMES];
static bool in_use[2][FRAMES];

void writes_fill(uint8_t *at, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		at[i] = i % 32 ? (uint8_t)(at[i - 1] * 5 + 91) : (uint8_t)suite_random();
}

bool writes_untouched(const uint8_t *at, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (at[i] != 0x5a)
			return false;
	return true;
}

static bool note_rx(struct suite_end *end, struct writes_seen *seen)
{
	size_t n = suite_ops->rx(end->link, end->in, SUITE_BURST, suite_now());

	for (size_t i = 0; i < n; i++) {
		const struct rx_frame *in = &end->in[i];
		seen->strange_n += !end->path || in->path != end->path;
		if (in->is_placed) {
			CU_ASSERT(!in->head && !in->body && seen->placed_n < WRITES_SEEN);
			seen->placed[seen->placed_n++ % WRITES_SEEN] = (struct writes_placed){in->placed_number, in->placed_bytes};
		} else {
			CU_ASSERT_FATAL(in->head && in->head_bytes >= sizeof(uint32_t));
			memcpy(&seen->words[seen->words_n++ % WRITES_SEEN], in->head, sizeof(uint32_t));
		}
	}
	suite_ops->rx_free(end->link, end->in, n);
	return n;
}

static bool note_done(struct suite_end *end, struct writes_seen *seen)
{
	struct link_done done[8];
	size_t n = suite_ops->done(end->link, done, 8, suite_now());

	for (size_t i = 0; i < n; i++) {
		CU_ASSERT(done[i].frames > 0);
		seen->strange_n += !end->path || done[i].path != end->path;
		for (uint64_t number = done[i].first; number < done[i].first + done[i].frames; number++) {
			if (number < WRITES_FIRST || number >= writes_next || number - WRITES_FIRST >= WRITES_MAX)
				seen->strange_n++;
			else if (done[i].is_lost)
				seen->lost[number - WRITES_FIRST]++, seen->lost_n++;
			else
				seen->done[number - WRITES_FIRST]++, seen->done_n++;
		}
	}
	return n;
}

static bool note_exposed(struct suite_end *end, struct writes_seen *seen, struct writes_area *areas)
{
	struct link_exposed event[8];
	size_t n = suite_ops->exposed(end->link, event, 8, suite_now());

	for (size_t i = 0; i < n; i++) {
		struct writes_area *area = event[i].ref < WRITES_AREAS ? &areas[event[i].ref] : NULL;
		if (!area || !end->path || event[i].path != end->path || event[i].id != area->id) {
			seen->strange_n++;
			continue;
		}
		seen->events_n++;
		area->last = event[i].state;
		if (event[i].state == LINK_EXPOSED) {
			area->exposed++;
			area->target = event[i].target;
		} else {
			CU_ASSERT(event[i].state == LINK_HIDDEN || event[i].state == LINK_BROKEN);
			area->ended++;
		}
	}
	return n;
}

static bool note_reaped(struct suite_end *end, struct writes_seen *seen, int at)
{
	struct frame *back[64];
	size_t n = suite_ops->reap(end->link, back, 64, suite_now());

	for (size_t i = 0; i < n; i++) {
		CU_ASSERT_FATAL(back[i] >= frames[at] && back[i] < frames[at] + FRAMES);
		CU_ASSERT(in_use[at][back[i] - frames[at]]);
		in_use[at][back[i] - frames[at]] = false;
	}
	seen->reaped_n += n;
	return n;
}

void writes_step(struct suite_end end[2])
{
	static int turn;
	bool busy = false;

	for (int i = 0; i < 2; i++) {
		if (!end[i].link)
			continue;
		busy |= note_rx(&end[i], &writes_seen[i]);
		busy |= note_done(&end[i], &writes_seen[i]);
		busy |= note_exposed(&end[i], &writes_seen[i], writes_area[i]);
		busy |= note_reaped(&end[i], &writes_seen[i], i);
	}
	turn ^= 1;
	if (!busy)
		suite_pause(&end[turn]);
}

void writes_until(struct suite_end end[2], const size_t *counter, size_t value)
{
	uint64_t until = suite_now() + SUITE_PATIENCE_MS * 1000000ull;

	while (*counter < value && suite_now() < until)
		writes_step(end);
	CU_ASSERT_EQUAL_FATAL(*counter, value);
}

void writes_connected(struct suite_end end[2])
{
	uint64_t until = suite_now() + SUITE_PATIENCE_MS * 1000000ull;

	while (!(end[0].path->is_connected && end[1].path->is_connected) && suite_now() < until)
		writes_step(end);
	CU_ASSERT_FATAL(end[0].path->is_connected && end[1].path->is_connected);
}

void writes_settle(struct suite_end end[2])
{
	uint64_t until = suite_now() + 30000000;

	while (suite_now() < until)
		writes_step(end);
}

bool writes_open(struct suite_end end[2])
{
	memset(writes_seen, 0, sizeof(writes_seen));
	memset(in_use, 0, sizeof(in_use));
	writes_next = WRITES_FIRST;
	return suite_open(end, 0);
}

void writes_close(struct suite_end end[2])
{
	for (int i = 0; i < 2; i++)
		CU_ASSERT_EQUAL(writes_seen[i].strange_n, 0);
	for (int i = 0; i < 2; i++)
		if (end[i].path)
			suite_ops->path_close(end[i].link, &end[i].path);
	for (int i = 0; i < 2; i++)
		for (size_t k = 0; k < WRITES_AREAS; k++) {
			if (writes_area[i][k].memory)
				suite_ops->mem_unmap(end[i].link, writes_area[i][k].mem);
			free(writes_area[i][k].memory);
			writes_area[i][k] = (struct writes_area){0};
		}
	suite_close(end);
}

void writes_map(struct suite_end *end, struct writes_area *area)
{
	size_t bytes = WRITES_AREA_BYTES + 2 * WRITES_GUARD;

	area->memory = aligned_alloc(4096, bytes);
	CU_ASSERT_PTR_NOT_NULL_FATAL(area->memory);
	memset(area->memory, 0x5a, bytes);
	area->addr = area->memory + WRITES_GUARD;
	CU_ASSERT_EQUAL_FATAL(link_map(suite_ops, end->link, area->memory, bytes, &area->mem), 0);
}

struct writes_area *writes_expose(struct suite_end end[2], int at, size_t i)
{
	struct writes_area *area = &writes_area[at][i];
	size_t events = writes_seen[at].events_n;

	if (!area->memory)
		writes_map(&end[at], area);
	struct link_expose what = {.addr = area->addr, .bytes = WRITES_AREA_BYTES, .mem = area->mem, .ref = i};
	area->exposed = area->ended = area->last = 0;
	CU_ASSERT_EQUAL_FATAL(suite_ops->expose(end[at].link, end[at].path, &what, &area->id), 0);
	writes_until(end, &writes_seen[at].events_n, events + 1);
	CU_ASSERT_EQUAL_FATAL(area->last, LINK_EXPOSED);
	CU_ASSERT(area->target.lane >= 1 && area->target.lane <= end[!at].path->lanes);
	CU_ASSERT_EQUAL(area->target.connection, (uint8_t)end[!at].path->connection); /* both ends count alike, or targets could not be judged */
	return area;
}

static struct frame *free_frame(struct suite_end end[2], int at)
{
	uint64_t until = suite_now() + SUITE_PATIENCE_MS * 1000000ull;

	while (suite_now() < until) {
		for (size_t i = 0; i < FRAMES; i++)
			if (!in_use[at][i]) {
				memset(&frames[at][i], 0, sizeof(frames[at][i]));
				frames[at][i].path = end[at].path;
				return &frames[at][i];
			}
		writes_step(end);
	}
	CU_FAIL_FATAL("no frame came back by reap");
	return NULL;
}

static bool offer(struct suite_end end[2], int at, struct frame *f)
{
	bool took = suite_ops->tx(end[at].link, &f, 1, suite_now()) == 1;

	if (took) {
		in_use[at][f - frames[at]] = true;
		writes_next += f->is_write;
	}
	return took;
}

bool writes_offer(struct suite_end end[2], int at, const struct writes_one *one)
{
	struct frame *f = free_frame(end, at);

	CU_ASSERT_FATAL(writes_next - WRITES_FIRST < WRITES_MAX);
	f->is_write = true;
	f->by_link = f->path->is_reliable;
	f->lane = one->target.lane;
	f->number = writes_next;
	f->target = one->target;
	f->target.addr += one->target_at;
	f->payload_bytes = f->wire_bytes = one->bytes;
	f->segs = one->segs && one->segs <= one->bytes ? (uint8_t)one->segs : 1;
	for (uint32_t i = 0, done = 0; i < f->segs; i++) {
		uint32_t part = i + 1u == f->segs ? one->bytes - done : one->bytes / f->segs;
		f->seg[i] = (struct frame_seg){.addr = one->from->addr + one->source_at + done, .bytes = part, .mem = one->from->mem};
		done += part;
	}
	return offer(end, at, f);
}

uint64_t writes_put(struct suite_end end[2], int at, const struct writes_one *one)
{
	uint64_t until = suite_now() + SUITE_PATIENCE_MS * 1000000ull;
	bool took;

	while (!(took = writes_offer(end, at, one)) && suite_now() < until)
		writes_step(end);
	CU_ASSERT_FATAL(took);
	return writes_next - 1;
}

void writes_say(struct suite_end end[2], int at, uint8_t lane, uint32_t word)
{
	uint64_t until = suite_now() + SUITE_PATIENCE_MS * 1000000ull;
	struct frame *f = free_frame(end, at);
	bool took;

	f->lane = lane;
	f->segs = 1;
	f->wire_bytes = 48;
	f->seg[0] = (struct frame_seg){.addr = f->head, .bytes = 48};
	memcpy(f->head, &word, sizeof(word));
	while (!(took = offer(end, at, f)) && suite_now() < until)
		writes_step(end);
	CU_ASSERT_FATAL(took);
}
