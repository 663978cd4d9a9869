/* The clock, see clock.h. Impure: the only place of base that asks the system for the time. */
#include <time.h>
#include "base/clock.h"

uint64_t clock_now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail for this clock (clock_gettime(2)) */
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}
