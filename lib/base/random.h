/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * random.h - a small deterministic generator (splitmix64) for the simulator, jitter and load.
 *
 * Not for secrets. The state belongs to the caller; same seed, same numbers.
 */
#ifndef CHP_BASE_RANDOM_H
#define CHP_BASE_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct chp_random {
	uint64_t state;
};

static inline uint64_t
chp_random_u64(struct chp_random *r)
{
	uint64_t z = (r->state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* Uniform in [0, n); n at least 1. The bias is below n / 2^64. */
static inline uint64_t
chp_random_below(struct chp_random *r, uint64_t n)
{
	return (uint64_t)(((unsigned __int128)chp_random_u64(r) * n) >> 64);
}

/* Uniform in [lo, hi]. */
static inline uint64_t
chp_random_range(struct chp_random *r, uint64_t lo, uint64_t hi)
{
	return lo + chp_random_below(r, hi - lo + 1);
}

/* True ppm times in a million. */
static inline bool
chp_random_chance(struct chp_random *r, uint32_t ppm)
{
	return chp_random_below(r, 1000000) < ppm;
}

#endif /* CHP_BASE_RANDOM_H */
