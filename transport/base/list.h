/* Intrusive doubly linked list: a link inside each element, a link as the list's head. Called by every room that keeps queues. An element is in at most one
 * list per link; a link that is in none points to itself after list_init. Knows nothing of the elements. */
#ifndef BASE_LIST_H
#define BASE_LIST_H
#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *next, *prev;
};

/* The element that holds the link `ptr` as its member. */
#define list_entry(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

static inline void list_init(struct list *head)
{
	head->next = head->prev = head;
}

static inline bool list_empty(const struct list *head)
{
	return head->next == head;
}

static inline struct list *list_first(const struct list *head)
{
	return head->next == head ? NULL : head->next;
}

static inline struct list *list_last(const struct list *head)
{
	return head->prev == head ? NULL : head->prev;
}

/** @return the link behind `at`, or NULL at the end */
static inline struct list *list_next(const struct list *head, const struct list *at)
{
	return at->next == head ? NULL : at->next;
}

static inline void list_insert_before(struct list *at, struct list *link)
{
	link->next = at;
	link->prev = at->prev;
	at->prev->next = link;
	at->prev = link;
}

static inline void list_push_back(struct list *head, struct list *link)
{
	list_insert_before(head, link);
}

static inline void list_push_front(struct list *head, struct list *link)
{
	list_insert_before(head->next, link);
}

/** Takes the link out of its list; afterwards it points to itself, so that removing twice does no harm. */
static inline void list_remove(struct list *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	list_init(link);
}

/** @return the first link, taken out, or NULL */
static inline struct list *list_pop_front(struct list *head)
{
	struct list *link = list_first(head);
	if (link)
		list_remove(link);
	return link;
}

/** Is the link in a list? It must have been initialised. */
static inline bool list_linked(const struct list *link)
{
	return link->next != link;
}

/** Moves all of `from` to the end of `to`; `from` is empty afterwards. */
static inline void list_splice_back(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

#endif
