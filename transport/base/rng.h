/* Random numbers for simulated networks and for tests: xoshiro256** (Blackman and Vigna, ACM TOMS 47, 2021), started by splitmix64. The same seed gives the
 * same numbers on every machine. Called by link/sim, link/emu and tests; not for keys or nonces. */
#ifndef BASE_RNG_H
#define BASE_RNG_H
#include <stdbool.h>
#include <stdint.h>

struct rng {
	uint64_t s[4];
};

/** splitmix64: also mixes a seed with the index of a stream. */
static inline uint64_t rng_mix(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static inline void rng_init(struct rng *rng, uint64_t seed)
{
	for (int i = 0; i < 4; i++)
		rng->s[i] = rng_mix(&seed);
}

static inline uint64_t rng_rotate(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

static inline uint64_t rng_next(struct rng *rng)
{
	uint64_t *s = rng->s, result = rng_rotate(s[1] * 5, 7) * 9, t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rng_rotate(s[3], 45);
	return result;
}

/** A number below n, n > 0; biased by less than n / 2^64. */
static inline uint64_t rng_below(struct rng *rng, uint64_t n)
{
	return (uint64_t)(((unsigned __int128)rng_next(rng) * n) >> 64);
}

/** True with probability threshold / 2^64; draws nothing for 0. */
static inline bool rng_chance(struct rng *rng, uint64_t threshold)
{
	return threshold && rng_next(rng) < threshold;
}

#endif
