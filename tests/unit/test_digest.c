/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/digest.h"
#include "base/limits.h"

#include <criterion/criterion.h>
#include <string.h>

/* Published values of XXH3: clients in other languages must come to the same digests. */
Test(digest, published_vectors)
{
	struct chp_digest d = chp_digest_of("", 0, 0);

	cr_assert_eq(d.hi, UINT64_C(0x99aa06d3014798d8));
	cr_assert_eq(d.lo, UINT64_C(0x6001c324468d497f));
	d = chp_digest_of("a", 1, 0);
	cr_assert_eq(d.hi, UINT64_C(0xa96faf705af16834));
	cr_assert_eq(d.lo, UINT64_C(0xe6c632b61e964e1f));
	cr_assert_eq(chp_hash64("", 0, 0), UINT64_C(0x2d06800538d394c2));
	cr_assert_eq(chp_hash64("a", 1, 0), UINT64_C(0xe6c632b61e964e1f));
}

Test(digest, every_length_and_alignment_of_a_key)
{
	uint8_t buffer[CHP_KEY_BYTES_MAX + 16];
	uint8_t key[CHP_KEY_BYTES_MAX];
	struct chp_digest before = { 0, 0 };

	for (uint32_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)(i * 7);
	for (uint32_t len = 1; len <= CHP_KEY_BYTES_MAX; len++) {
		struct chp_digest d = chp_digest_of(key, len, 5);

		cr_assert(d.lo != before.lo && d.hi != before.hi);
		before = d;
		for (uint32_t offset = 1; offset < 16; offset += 3) {
			memcpy(buffer + offset, key, len);
			struct chp_digest again = chp_digest_of(buffer + offset, len, 5);

			cr_assert(again.lo == d.lo && again.hi == d.hi);
		}
	}
}

Test(digest, the_seed_matters)
{
	struct chp_digest before = chp_digest_of("key", 3, 0);

	for (uint64_t seed = 1; seed < 100; seed++) {
		struct chp_digest d = chp_digest_of("key", 3, seed);

		cr_assert(d.lo != before.lo && d.hi != before.hi);
		cr_assert_neq(chp_hash64("key", 3, seed), chp_hash64("key", 3, seed - 1));
		before = d;
	}
}

/* 64,000 keys over 64 shards: 1,000 each, with a standard deviation of 31. */
Test(digest, shards_are_even)
{
	uint32_t count[64] = { 0 };

	for (uint64_t key = 0; key < 64000; key++) {
		uint32_t shard = chp_shard_of(chp_digest_of(&key, sizeof(key), 42), 64);

		cr_assert_lt(shard, 64);
		count[shard]++;
	}
	for (int i = 0; i < 64; i++)
		cr_assert(count[i] > 800 && count[i] < 1200, "shard %d has %u", i, count[i]);
	cr_assert_eq(chp_shard_of(chp_digest_of("x", 1, 0), 1), 0);
}
