/* Random numbers of the wire tests: splitmix64 from one printed seed, values near the edges of integers, and damage to bytes. */
#ifndef TESTS_WIRE_RANDOM_H
#define TESTS_WIRE_RANDOM_H
#include <stddef.h>
#include <stdint.h>

static inline uint64_t random_next(uint64_t *seed)
{
	uint64_t z = (*seed += 0x9e3779b97f4a7c15ull);
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static inline uint64_t random_below(uint64_t *seed, uint64_t n)
{
	return random_next(seed) % n;
}

/* Any width of number, and often one next to a power of two or to the largest. */
static inline uint64_t random_edge(uint64_t *seed)
{
	uint64_t v = random_next(seed);
	uint32_t bits = (uint32_t)random_below(seed, 64);
	switch (random_below(seed, 4)) {
	case 0:
		return v;
	case 1:
		return v >> bits;
	case 2:
		return (1ull << bits) - 1 + random_below(seed, 3);
	default:
		return UINT64_MAX - random_below(seed, 3);
	}
}

/* Flips a bit, or sets a byte, one to four times. */
static inline void random_damage(uint64_t *seed, uint8_t *at, size_t bytes)
{
	for (uint64_t n = 1 + random_below(seed, 4); n; n--) {
		size_t i = random_below(seed, bytes);
		if (random_below(seed, 2))
			at[i] ^= (uint8_t)(1u << random_below(seed, 8));
		else
			at[i] = (uint8_t)random_edge(seed);
	}
}

#endif
