/* The list against an array of numbers. */
#include <string.h>
#include "base/list.h"
#include "rand.h"
#include "unit.h"

struct item {
	int number;
	struct list link;
};

static void check(struct list *head, const int *want, int n)
{
	struct list *at = list_first(head);
	for (int i = 0; i < n; i++, at = list_next(head, at)) {
		CU_ASSERT_PTR_NOT_NULL_FATAL(at);
		CU_ASSERT_EQUAL_FATAL(list_entry(at, struct item, link)->number, want[i]);
		CU_ASSERT_PTR_EQUAL_FATAL(at->next->prev, at);
	}
	CU_ASSERT_PTR_NULL_FATAL(at);
	CU_ASSERT_EQUAL_FATAL(list_empty(head), n == 0);
	CU_ASSERT_FATAL(n == 0 ? !list_last(head) : list_entry(list_last(head), struct item, link)->number == want[n - 1]);
}

static void against_array(void)
{
	enum { N = 20 };
	struct item item[N];
	struct list head;
	int want[N], n = 0;
	list_init(&head);
	for (int i = 0; i < N; i++) {
		item[i].number = i;
		list_init(&item[i].link);
	}
	rand_start(unit_seed());
	for (int step = 0; step < 200000; step++) {
		int i = (int)rand_below(N), at = 0;
		while (at < n && want[at] != i)
			at++;
		CU_ASSERT_EQUAL_FATAL(list_linked(&item[i].link), at < n);
		if (at < n) {
			list_remove(&item[i].link);
			memmove(want + at, want + at + 1, (size_t)(--n - at) * sizeof(int));
		} else if (step & 1) {
			list_push_back(&head, &item[i].link);
			want[n++] = i;
		} else {
			list_push_front(&head, &item[i].link);
			memmove(want + 1, want, (size_t)n++ * sizeof(int));
			want[0] = i;
		}
		check(&head, want, n);
	}
}

static void splice_and_pop(void)
{
	struct item item[6];
	struct list a, b;
	list_init(&a);
	list_init(&b);
	list_splice_back(&a, &b);
	check(&a, NULL, 0);
	for (int i = 0; i < 6; i++) {
		item[i].number = i;
		list_push_back(i < 3 ? &a : &b, &item[i].link);
	}
	list_splice_back(&a, &b);
	check(&a, (int[]){0, 1, 2, 3, 4, 5}, 6);
	check(&b, NULL, 0);
	CU_ASSERT_PTR_EQUAL(list_pop_front(&a), &item[0].link);
	list_remove(&item[0].link); /* twice does no harm */
	check(&a, (int[]){1, 2, 3, 4, 5}, 5);
	CU_ASSERT_PTR_NULL(list_pop_front(&b));
}

static const struct unit_case cases[] = {
	{"random pushes and removals", against_array},
	{"splice and pop", splice_and_pop},
};
UNIT_MAIN("base list", cases)
