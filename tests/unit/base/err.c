/* Error text: what is recorded, cutting, one a thread. */
#include <pthread.h>
#include <string.h>
#include "base/err.h"
#include "tern/error.h"
#include "unit.h"

static void records(void)
{
	err_clear();
	CU_ASSERT_STRING_EQUAL(err_text(), "");
	CU_ASSERT_EQUAL(err_last(), 0);
	CU_ASSERT_EQUAL(err_set(TERN_EADDR, "tern_listen", 12, "port %d: in use", 7400), -TERN_EADDR);
	CU_ASSERT_STRING_EQUAL(err_text(), "port 7400: in use [tern_listen:12]");
	CU_ASSERT_EQUAL(err_set(-TERN_EKEY, "f", 1, "%s; again", err_text()), -TERN_EKEY);
	CU_ASSERT_STRING_EQUAL(err_text(), "port 7400: in use [tern_listen:12]; again [f:1]");
	CU_ASSERT_EQUAL(err_last(), -TERN_EKEY);
	CU_ASSERT_EQUAL(ERR(TERN_EIO, "no"), -TERN_EIO);
	CU_ASSERT_PTR_NOT_NULL(strstr(err_text(), "no [records:"));
	err_clear();
	CU_ASSERT_STRING_EQUAL(err_text(), "");
}

static void long_text(void)
{
	char text[2000];
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	CU_ASSERT_EQUAL(err_set(TERN_EINVAL, "f", 3, "%s", text), -TERN_EINVAL);
	CU_ASSERT_EQUAL(strlen(err_text()), 511);
	CU_ASSERT_STRING_EQUAL(err_text() + 511 - 6, " [f:3]");
	err_set(TERN_EINVAL, text, 3, "short");
	CU_ASSERT_STRING_EQUAL(err_text() + strlen(err_text()) - 3, ":3]");
}

static void *other(void *arg)
{
	*(int *)arg = err_last() == 0 && !err_text()[0];
	ERR(TERN_EPEER, "other thread");
	return NULL;
}

static void per_thread(void)
{
	pthread_t thread;
	int clean = 0;
	err_set(TERN_EKEY, "g", 4, "mine");
	CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, other, &clean), 0);
	pthread_join(thread, NULL);
	CU_ASSERT(clean);
	CU_ASSERT_STRING_EQUAL(err_text(), "mine [g:4]");
}

static const struct unit_case cases[] = {
	{"text, place, number", records},
	{"long text is cut, the place is kept", long_text},
	{"one a thread", per_thread},
};
UNIT_MAIN("base err", cases)
