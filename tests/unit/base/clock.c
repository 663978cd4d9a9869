/* The clock never goes back, and runs at the pace of the system's. */
#include <time.h>
#include "base/clock.h"
#include "unit.h"

static void monotonic(void)
{
	struct timespec ts;
	uint64_t start = clock_now_ns(), last = start;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	uint64_t system = (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
	CU_ASSERT(system >= start);
	for (int i = 0; i < 100000; i++) {
		uint64_t now = clock_now_ns();
		CU_ASSERT_FATAL(now >= last);
		last = now;
	}
	CU_ASSERT(last > start);
	clock_gettime(CLOCK_MONOTONIC, &ts);
	CU_ASSERT(last <= (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec);
}

static const struct unit_case cases[] = {{"never goes back", monotonic}};
UNIT_MAIN("base clock", cases)
