/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * twin.h - keys of 250 bytes with one XXH3-128 digest under each of 9 seeds in a row, `seed` to `seed` + 8.
 *
 * Long inputs are summed in 64-byte stripes: each word itself, and the product of its halves after
 * an xor with a word of a known secret minus the seed. Words 3 of stripes 0 and 2 meet secret words
 * 3 and 5. Where their low halves give the same factor, and a bit of the high halves of the secret
 * is the same in both, moving that bit from the one word to the other changes nothing.
 */
#ifndef TESTS_TWIN_H
#define TESTS_TWIN_H

#include "base/limits.h"

#include <stdint.h>
#include <string.h>

/* Key n of those that share a digest: CHP_KEY_BYTES_MAX bytes. */
static inline void
chp_twin(uint64_t seed, uint32_t n, uint8_t *key)
{
	uint64_t a = UINT64_C(0x1f67b3b7a4a44072) - seed, b = UINT64_C(0x2172ffcc7dd05a82) - seed;
	uint32_t same = ~(uint32_t)((a ^ b) >> 32);
	uint64_t from = (uint32_t)a, to = (uint32_t)b;

	memset(key, 'x', CHP_KEY_BYTES_MAX);
	for (uint32_t bit = 0; bit < 32; bit++) {
		if (!(same >> bit & 1))
			continue;
		*(n & 1 ? &to : &from) |= UINT64_C(1) << (32 + bit);
		n >>= 1;
	}
	memcpy(key + 3 * 8, &from, 8);
	memcpy(key + 2 * 64 + 3 * 8, &to, 8);
}

#endif /* TESTS_TWIN_H */
