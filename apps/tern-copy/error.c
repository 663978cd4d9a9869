/* The first error of a transfer, time, signals. Called by every part of tern-copy. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "copy.h"
#include "tern/tern.h"
#include "units.h"

volatile sig_atomic_t copy_interrupted;

int copy_fail(struct copy_error *error, enum copy_exit code, const char *format, ...)
{
	va_list args;
	pthread_mutex_lock(&error->lock);
	if (!copy_failed(error)) {
		va_start(args, format);
		vsnprintf(error->text, sizeof(error->text), format, args);
		units_printable(error->text);
		va_end(args);
		/* pairs with the acquire in copy_failed: who sees the code sees the text */
		atomic_store_explicit(&error->exit, code, memory_order_release);
	}
	pthread_mutex_unlock(&error->lock);
	return -1;
}

int copy_fail_tern(struct copy_error *error, const char *what, int tern_err)
{
	char detail[TERN_TEXT_MAX] = "";
	int err = tern_err < 0 ? -tern_err : tern_err;
	bool refused = err == TERN_EAUTH || err == TERN_EKEY || err == TERN_EPRIVATE || err == TERN_EVERSION || err == TERN_EADDR ||
	               err == TERN_ESCHEME || err == TERN_EBLOCKED || err == TERN_EINVAL;
	tern_error_detail(NULL, 0, detail, sizeof(detail));
	return copy_fail(error, refused ? COPY_REFUSED : COPY_FAILED, "%s: %s%s%s", what, tern_error_text(tern_err), detail[0] ? ": " : "", detail);
}

uint64_t copy_now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void on_signal(int number)
{
	if (copy_interrupted)
		_exit(128 + number);
	copy_interrupted = number;
}

void copy_signals_set(void)
{
	struct sigaction action = {.sa_handler = on_signal};
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}
