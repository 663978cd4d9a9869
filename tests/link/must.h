/* For programs of tests/link that are no suites: a condition that must hold, and the loop's clock. */
#ifndef TESTS_LINK_MUST_H
#define TESTS_LINK_MUST_H
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

#define MUST(x) must((x), #x, __LINE__)
static inline void must(bool x, const char *what, int line)
{
	if (x)
		return;
	printf("FAILED line %d: %s (%s)\n", line, what, strerror(errno));
	exit(1);
}

#endif
