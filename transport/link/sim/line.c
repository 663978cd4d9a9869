/* Order of arrival on one direction; see line.h. */
#include "link/sim/line.h"
#include <stdlib.h>
#include <string.h>
#include "tern/error.h"

void line_init(struct line *line)
{
	memset(line, 0, sizeof(*line));
}

void line_fini(struct line *line)
{
	free(line->heap);
	memset(line, 0, sizeof(*line));
}

static bool before(const struct line_item *a, const struct line_item *b)
{
	return a->time_ns < b->time_ns || (a->time_ns == b->time_ns && a->seq < b->seq);
}

static void sift_up(struct line *line, size_t at)
{
	struct line_item *item = line->heap[at];

	for (; at && before(item, line->heap[(at - 1) / 2]); at = (at - 1) / 2)
		line->heap[at] = line->heap[(at - 1) / 2];
	line->heap[at] = item;
}

static void sift_down(struct line *line, size_t at)
{
	struct line_item *item = line->heap[at];

	for (size_t child; (child = 2 * at + 1) < line->heap_n; at = child) {
		if (child + 1 < line->heap_n && before(line->heap[child + 1], line->heap[child]))
			child++;
		if (!before(line->heap[child], item))
			break;
		line->heap[at] = line->heap[child];
	}
	line->heap[at] = item;
}

static int heap_push(struct line *line, struct line_item *item)
{
	if (line->heap_n == line->heap_max) {
		size_t max = line->heap_max ? 2 * line->heap_max : 64;
		struct line_item **heap = realloc(line->heap, max * sizeof(*heap));
		if (!heap)
			return -TERN_ENOMEM;
		line->heap = heap;
		line->heap_max = max;
	}
	line->heap[line->heap_n++] = item;
	sift_up(line, line->heap_n - 1);
	return 0;
}

int line_push(struct line *line, struct line_item *item, uint64_t time_ns, bool late)
{
	item->next = NULL;
	item->time_ns = time_ns;
	item->seq = line->seq;
	if (late || (line->tail && time_ns < line->tail->time_ns)) {
		int rc = heap_push(line, item);
		if (rc)
			return rc;
	} else if (line->tail) {
		line->tail->next = item;
		line->tail = item;
	} else {
		line->head = line->tail = item;
	}
	line->seq++;
	line->n++;
	return 0;
}

uint64_t line_next_ns(const struct line *line)
{
	uint64_t list = line->head ? line->head->time_ns : UINT64_MAX, heap = line->heap_n ? line->heap[0]->time_ns : UINT64_MAX;

	return list < heap ? list : heap;
}

struct line_item *line_pop(struct line *line)
{
	struct line_item *item = line->head;

	if (line->heap_n && (!item || before(line->heap[0], item))) {
		item = line->heap[0];
		line->heap[0] = line->heap[--line->heap_n];
		if (line->heap_n)
			sift_down(line, 0);
	} else if (item) {
		line->head = item->next;
		if (!line->head)
			line->tail = NULL;
		else
			__builtin_prefetch(line->head->next); /* in flight for long: not in the cache any more */
	} else {
		return NULL;
	}
	line->n--;
	return item;
}

struct line_item *line_remove(struct line *line, bool (*match)(const struct line_item *item, const void *arg), const void *arg)
{
	struct line_item *out = NULL, **at = &line->head, *last = NULL;
	size_t kept = 0;

	while (*at) {
		struct line_item *item = *at;
		if (match(item, arg)) {
			*at = item->next;
			item->next = out;
			out = item;
			line->n--;
		} else {
			last = item;
			at = &item->next;
		}
	}
	line->tail = last;
	for (size_t i = 0; i < line->heap_n; i++) {
		struct line_item *item = line->heap[i];
		if (match(item, arg)) {
			item->next = out;
			out = item;
			line->n--;
		} else {
			line->heap[kept++] = item;
		}
	}
	line->heap_n = kept;
	for (size_t i = kept / 2; i-- > 0;)
		sift_down(line, i);
	return out;
}
