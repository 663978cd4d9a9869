/* Error text, one buffer a thread; see err.h. Impure: formats text. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/err.h"

enum { ERR_TEXT_BYTES = 512, ERR_PLACE_BYTES = 80 };

static _Thread_local struct {
	int err;
	char text[ERR_TEXT_BYTES];
} last;

int err_set(int err, const char *func, int line, const char *fmt, ...)
{
	char text[ERR_TEXT_BYTES], place[ERR_PLACE_BYTES]; /* not `last` itself: an argument may be err_text() */
	va_list args;
	va_start(args, fmt);
	int n = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (n < 0)
		strcpy(text, "(the message could not be formatted)");
	int tail = snprintf(place, sizeof(place), " [%.60s:%d]", func, line);
	size_t keep = strlen(text), room = sizeof(last.text) - 1 - (size_t)tail;
	if (keep > room)
		keep = room;
	memcpy(last.text, text, keep);
	memcpy(last.text + keep, place, (size_t)tail + 1);
	last.err = err < 0 ? err : -err;
	return last.err;
}

const char *err_text(void)
{
	return last.text;
}

int err_last(void)
{
	return last.err;
}

void err_clear(void)
{
	last.err = 0;
	last.text[0] = 0;
}
