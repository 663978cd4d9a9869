/* What the cases of direct placement (writes.c, breaks.c) share: two connected ends, what they have told so far, memory that is exposed. Time goes through the
 * fixture, so the same cases hold a simulated link and a device. */
#ifndef TESTS_LINK_WRITES_H
#define TESTS_LINK_WRITES_H
#include "map.h"
#include "suite.h"

enum {
	WRITES_MAX = 4096,          /* writes of a case, numbered from WRITES_FIRST on */
	WRITES_SEEN = 4 * WRITES_MAX,
	WRITES_AREAS = 16,
	WRITES_GUARD = 4096,
	WRITES_AREA_BYTES = 1 << 18,
};
#define WRITES_FIRST 0x2fffffff0ull /* above 32 bits, and soon passes a multiple of 2^32 */

struct writes_area {
	uint8_t *memory;    /* guard, WRITES_AREA_BYTES, guard */
	uint8_t *addr;      /* memory + guard */
	uint32_t mem, id;
	uint32_t exposed, ended; /* events so far */
	uint8_t last;       /* enum link_exposed_state */
	struct frame_target target;
};

/* A frame with a target: bytes from `from` at source_at on, to `target` plus target_at. */
struct writes_one {
	const struct writes_area *from;
	struct frame_target target;
	uint64_t source_at, target_at;
	uint32_t bytes, segs; /* segs 0: one */
};

struct writes_placed {
	uint32_t number, bytes;
};

/* What one end's link has told. */
struct writes_seen {
	struct writes_placed placed[WRITES_SEEN];
	uint32_t words[WRITES_SEEN]; /* the first four bytes of each datagram */
	uint8_t done[WRITES_MAX], lost[WRITES_MAX];
	size_t placed_n, words_n, done_n, lost_n, reaped_n, events_n, strange_n; /* strange: about nothing that we know */
};

extern struct writes_seen writes_seen[2];
extern struct writes_area writes_area[2][WRITES_AREAS];
extern uint64_t writes_next; /* number of the next frame with a target */

/** Opens and connects both ends, forgets what was seen. @return false: see suite_open */
bool writes_open(struct suite_end end[2]);
/** Closes, frees the areas. */
void writes_close(struct suite_end end[2]);
/** Steps both links until *counter reaches value or the patience is over; asserts it. */
void writes_until(struct suite_end end[2], const size_t *counter, size_t value);
/** Steps both links until both paths are connected; asserts it. */
void writes_connected(struct suite_end end[2]);
/** Steps both links for a while: what is there comes. */
void writes_settle(struct suite_end end[2]);
void writes_step(struct suite_end end[2]);
/** Maps memory at an end; contents 0x5a. */
void writes_map(struct suite_end *end, struct writes_area *area);
/** Maps and exposes area `i` of an end and waits for its target. */
struct writes_area *writes_expose(struct suite_end end[2], int at, size_t i);
/** Sends a frame with a target from an end and waits until tx has taken it. @return its number */
uint64_t writes_put(struct suite_end end[2], int at, const struct writes_one *one);
/** The same, but only offers it once. @return whether tx took it */
bool writes_offer(struct suite_end end[2], int at, const struct writes_one *one);
/** Sends a datagram that begins with word on a lane. */
void writes_say(struct suite_end end[2], int at, uint8_t lane, uint32_t word);
/** Random bytes. */
void writes_fill(uint8_t *at, size_t bytes);
bool writes_untouched(const uint8_t *at, size_t bytes);

#endif
