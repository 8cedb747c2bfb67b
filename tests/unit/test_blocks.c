/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/blocks.h"
#include "base/bytes.h"
#include "base/random.h"
#include "../support/short_memory.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

static struct chp_blocks
pool(uint32_t n)
{
	struct chp_blocks b;

	cr_assert_eq(chp_blocks_init(&b, n, &chp_memory_libc), 0);
	return b;
}

static void
fill(uint8_t *to, uint32_t len, uint64_t seed)
{
	struct chp_random r = { seed };

	for (uint32_t i = 0; i < len; i++)
		to[i] = (uint8_t)chp_random_u64(&r);
}

Test(blocks, sizes_round_up)
{
	cr_assert_eq(chp_blocks_for(0), 0);
	cr_assert_eq(chp_blocks_for(1), 1);
	cr_assert_eq(chp_blocks_for(120), 1);
	cr_assert_eq(chp_blocks_for(121), 2);
	cr_assert_eq(chp_blocks_for(240), 2);
	cr_assert_eq(chp_blocks_for(241), 3);
	cr_assert_eq(chp_blocks_for(CHP_RECORD_BYTES_MAX), CHP_RECORD_BLOCKS_MAX);
}

Test(blocks, every_split_of_a_record_reads_back)
{
	struct chp_blocks b = pool(CHP_RECORD_BLOCKS_MAX);
	static const uint32_t lens[] = { 0, 1, 8, 119, 120, 121, 239, 240, 241, 250 };
	uint8_t in[CHP_RECORD_BYTES_MAX], out[CHP_RECORD_BYTES_MAX];

	fill(in, sizeof(in), 1);
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(lens); i++) {
		for (uint32_t second = 0; second <= CHP_VALUE_BYTES_MAX; second += 1 + second / 7) {
			uint32_t len = lens[i] + second;
			uint32_t chain = chp_blocks_put(&b, in, lens[i], in + lens[i], second);

			cr_assert_eq(chain == CHP_BLOCK_NONE, len == 0);
			cr_assert_eq(chp_blocks_length(&b, chain), chp_blocks_for(len));
			cr_assert_eq(b.n_free, b.n - chp_blocks_for(len));
			memset(out, 0, sizeof(out));
			chp_blocks_get(&b, chain, 0, out, len);
			cr_assert_arr_eq(out, in, len);
			cr_assert(chp_blocks_equal(&b, chain, 0, in, len));
			/* The pieces by themselves. */
			chp_blocks_get(&b, chain, lens[i], out, second);
			cr_assert_arr_eq(out, in + lens[i], second);
			cr_assert(chp_blocks_equal(&b, chain, lens[i], in + lens[i], second));
			chp_blocks_check(&b);
			chp_blocks_free(&b, chain);
		}
	}
	cr_assert_eq(b.n_free, b.n);
	chp_blocks_check(&b);
	chp_blocks_fini(&b, &chp_memory_libc);
}

Test(blocks, every_range_of_a_chain_can_be_read)
{
	struct chp_blocks b = pool(4);
	uint8_t in[400], out[400];

	fill(in, sizeof(in), 2);
	uint32_t chain = chp_blocks_put(&b, in, 130, in + 130, 270);

	for (uint32_t offset = 0; offset <= 400; offset += 10) {
		for (uint32_t len = 0; len <= 400 - offset; len += 13) {
			chp_blocks_get(&b, chain, offset, out, len);
			cr_assert_arr_eq(out, in + offset, len);
			cr_assert(chp_blocks_equal(&b, chain, offset, in + offset, len));
		}
	}
	chp_blocks_fini(&b, &chp_memory_libc);
}

Test(blocks, one_byte_makes_a_difference)
{
	struct chp_blocks b = pool(3);
	uint8_t in[300];

	fill(in, sizeof(in), 3);
	uint32_t chain = chp_blocks_put(&b, in, sizeof(in), NULL, 0);

	for (uint32_t i = 0; i < sizeof(in); i++) {
		in[i] ^= 1;
		cr_assert_not(chp_blocks_equal(&b, chain, 0, in, sizeof(in)));
		cr_assert(chp_blocks_equal(&b, chain, 0, in, i));
		in[i] ^= 1;
	}
	cr_assert(chp_blocks_equal(&b, chain, 0, in, sizeof(in)));
	chp_blocks_fini(&b, &chp_memory_libc);
}

Test(blocks, all_blocks_can_be_used_and_used_again)
{
	struct chp_blocks b = pool(22);
	uint8_t in[CHP_RECORD_BYTES_MAX];

	fill(in, sizeof(in), 4);
	for (int round = 0; round < 5; round++) {
		uint32_t a = chp_blocks_put(&b, in, 250, in + 250, 1024);
		uint32_t c = chp_blocks_put(&b, in, 250, in + 250, 1024);

		cr_assert_eq(b.n_free, 0);
		chp_blocks_check(&b);
		chp_blocks_free(&b, round & 1 ? a : c);
		chp_blocks_free(&b, round & 1 ? c : a);
		cr_assert_eq(b.n_free, 22);
		chp_blocks_check(&b);
	}
	chp_blocks_free(&b, CHP_BLOCK_NONE);
	cr_assert_eq(b.n_free, 22);
	chp_blocks_fini(&b, &chp_memory_libc);
}

Test(blocks, last_freed_is_used_first)
{
	struct chp_blocks b = pool(8);
	uint32_t a = chp_blocks_put(&b, "a", 1, NULL, 0);
	uint32_t c = chp_blocks_put(&b, "c", 1, NULL, 0);

	cr_assert_neq(a, c);
	chp_blocks_free(&b, a);
	cr_assert_eq(chp_blocks_put(&b, "d", 1, NULL, 0), a);
	chp_blocks_fini(&b, &chp_memory_libc);
}

#define CHAINS 64u

/* Random records come and go; each must keep its bytes whatever happens to the others. */
Test(blocks, random_chains_keep_their_bytes)
{
	for (uint64_t seed = 1; seed <= 10; seed++) {
		struct chp_blocks b = pool(200);
		struct chp_random r = { seed };
		uint32_t chain[CHAINS], len[CHAINS] = { 0 };
		uint8_t in[CHP_RECORD_BYTES_MAX];
		uint32_t refused = 0;

		for (uint32_t i = 0; i < CHAINS; i++)
			chain[i] = CHP_BLOCK_NONE;
		for (uint32_t step = 0; step < 3000; step++) {
			uint32_t i = (uint32_t)chp_random_below(&r, CHAINS);

			fill(in, len[i], seed * 1000 + i * 7 + len[i]);
			cr_assert(chp_blocks_equal(&b, chain[i], 0, in, len[i]));
			chp_blocks_free(&b, chain[i]);
			len[i] = (uint32_t)chp_random_below(&r, CHP_RECORD_BYTES_MAX + 1);
			if (chp_blocks_for(len[i]) > b.n_free) {
				refused++;
				len[i] = 0;
			}
			fill(in, len[i], seed * 1000 + i * 7 + len[i]);
			uint32_t first = chp_min_u32(len[i], 250);

			chain[i] = chp_blocks_put(&b, in, first, in + first, len[i] - first);
			if (step % 100 == 0)
				chp_blocks_check(&b);
		}
		cr_assert_gt(refused, 0, "the pool was never full");
		for (uint32_t i = 0; i < CHAINS; i++)
			chp_blocks_free(&b, chain[i]);
		cr_assert_eq(b.n_free, b.n);
		chp_blocks_check(&b);
		chp_blocks_fini(&b, &chp_memory_libc);
	}
}

Test(blocks, a_pool_may_be_empty)
{
	struct chp_blocks b = pool(0);

	cr_assert_eq(b.n_free, 0);
	cr_assert_eq(chp_blocks_put(&b, NULL, 0, NULL, 0), CHP_BLOCK_NONE);
	cr_assert(chp_blocks_equal(&b, CHP_BLOCK_NONE, 0, NULL, 0));
	chp_blocks_check(&b);
	chp_blocks_fini(&b, &chp_memory_libc);

	struct chp_blocks zeroed = { 0 };

	chp_blocks_fini(&zeroed, &chp_memory_libc);
}

Test(blocks, too_little_memory_is_an_error)
{
	struct chp_blocks b;

	short_memory_left = 0;
	cr_assert_eq(chp_blocks_init(&b, 16, &short_memory), -ENOMEM);
	chp_blocks_fini(&b, &short_memory);
	cr_assert_eq(short_memory_held, 0);
}

Test(blocks, a_full_pool_asserts, .signal = SIGABRT)
{
	struct chp_blocks b = pool(1);
	uint8_t in[121] = { 0 };

	chp_blocks_put(&b, in, sizeof(in), NULL, 0);
}

Test(blocks, freeing_twice_asserts, .signal = SIGABRT)
{
	struct chp_blocks b = pool(4);
	uint32_t chain = chp_blocks_put(&b, "a", 1, NULL, 0);

	chp_blocks_free(&b, chain);
	chp_blocks_free(&b, chain);
}

Test(blocks, reading_a_freed_chain_asserts, .signal = SIGABRT)
{
	struct chp_blocks b = pool(4);
	uint32_t chain = chp_blocks_put(&b, "a", 1, NULL, 0);
	uint8_t out;

	chp_blocks_free(&b, chain);
	chp_blocks_get(&b, chain, 0, &out, 1);
}

Test(blocks, reading_past_a_chain_asserts, .signal = SIGABRT)
{
	struct chp_blocks b = pool(4);
	uint32_t chain = chp_blocks_put(&b, "a", 1, NULL, 0);
	uint8_t out[2];

	chp_blocks_get(&b, chain, 119, out, 2);
}
