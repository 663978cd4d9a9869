/* Datagrams on their way along one direction, by arrival time. Nearly all arrive in the order they left, so they wait in a list, O(1); the few that do not
 * (reordering, a delay that became shorter) wait in a binary heap beside it. Items are the caller's, linked through their first member. Ties: pushed first
 * comes first, so two equal runs agree. Called by sim and emu; one thread. */
#ifndef SIM_LINE_H
#define SIM_LINE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct line_item {
	struct line_item *next;
	uint64_t time_ns, seq;
};

struct line {
	struct line_item *head, *tail;
	struct line_item **heap;
	size_t heap_n, heap_max, n;
	uint64_t seq;
};

void line_init(struct line *line);
/** Frees the line, not the items. */
void line_fini(struct line *line);
/** @param late  comes out of order: must not hold up those behind it. @return 0, -TERN_ENOMEM: not taken */
int line_push(struct line *line, struct line_item *item, uint64_t time_ns, bool late);
/** Earliest arrival, UINT64_MAX when empty. */
uint64_t line_next_ns(const struct line *line);
/** Takes the earliest; NULL when empty. */
struct line_item *line_pop(struct line *line);
/** Takes out every item that match accepts, in no order, chained by next. */
struct line_item *line_remove(struct line *line, bool (*match)(const struct line_item *item, const void *arg), const void *arg);

#endif
