/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/digest.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

struct chp_digest
chp_digest_of(const void *key, uint32_t key_len, uint64_t seed)
{
	XXH128_hash_t h = XXH3_128bits_withSeed(key, key_len, seed);

	return (struct chp_digest){ .lo = h.low64, .hi = h.high64 };
}

uint64_t
chp_hash64(const void *data, uint64_t len, uint64_t seed)
{
	return XXH3_64bits_withSeed(data, len, seed);
}
