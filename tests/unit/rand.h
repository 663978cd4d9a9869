/* Random numbers for the unit tests: xorshift64*, seeded by unit_seed, so that a run can be repeated. */
#ifndef TESTS_RAND_H
#define TESTS_RAND_H
#include <stdint.h>

static uint64_t rand_state = 1;

static inline void rand_start(uint64_t seed)
{
	rand_state = seed * 0x9e3779b97f4a7c15 + 0x1234567;
	if (!rand_state)
		rand_state = 1;
}

static inline uint64_t rand_next(void)
{
	rand_state ^= rand_state >> 12;
	rand_state ^= rand_state << 25;
	rand_state ^= rand_state >> 27;
	return rand_state * 0x2545f4914f6cdd1d;
}

/** @return a number below n (n > 0) */
static inline uint64_t rand_below(uint64_t n)
{
	return (rand_next() >> 16) % n;
}

#endif
