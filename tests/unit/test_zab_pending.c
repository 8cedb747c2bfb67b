/* SPDX-License-Identifier: BSD-3-Clause */
#include "protocols/zab_pending.h"
#include "base/random.h"
#include "../support/short_memory.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#define KEYS 64u

static struct chp_zab_pending
table_of(uint32_t keys)
{
	struct chp_zab_pending t;

	cr_assert_eq(chp_zab_pending_init(&t, keys, &chp_memory_libc), 0);
	return t;
}

static struct chp_digest
digest_of(uint64_t lo, uint64_t hi)
{
	return (struct chp_digest){ .lo = lo, .hi = hi };
}

Test(zab_pending, the_newest_entry_of_a_key_is_found)
{
	struct chp_zab_pending t = table_of(4);
	const struct chp_digest a = digest_of(1, 1), b = digest_of(2, 2);

	cr_assert_eq(chp_zab_pending_find(&t, &a), 0);
	chp_zab_pending_set(&t, &a, 5);
	cr_assert_eq(chp_zab_pending_find(&t, &a), 5);
	cr_assert_eq(chp_zab_pending_find(&t, &b), 0);
	chp_zab_pending_set(&t, &a, 7);
	cr_assert_eq(chp_zab_pending_find(&t, &a), 7);
	cr_assert_eq(t.n, 1);
	chp_zab_pending_applied(&t, &a, 5);
	cr_assert_eq(chp_zab_pending_find(&t, &a), 7, "a newer one is there");
	chp_zab_pending_applied(&t, &b, 6);
	chp_zab_pending_applied(&t, &a, 7);
	cr_assert_eq(chp_zab_pending_find(&t, &a), 0);
	cr_assert_eq(t.n, 0);
	chp_zab_pending_fini(&t, &chp_memory_libc);
}

Test(zab_pending, all_of_a_digest_counts)
{
	struct chp_zab_pending t = table_of(4);
	const struct chp_digest a = digest_of(1, 1), same_lo = digest_of(1, 2), same_hi = digest_of(2, 1);

	chp_zab_pending_set(&t, &a, 5);
	cr_assert_eq(chp_zab_pending_find(&t, &same_lo), 0);
	cr_assert_eq(chp_zab_pending_find(&t, &same_hi), 0);
	chp_zab_pending_set(&t, &same_lo, 6);
	chp_zab_pending_set(&t, &same_hi, 7);
	cr_assert_eq(chp_zab_pending_find(&t, &a), 5);
	cr_assert_eq(chp_zab_pending_find(&t, &same_lo), 6);
	cr_assert_eq(chp_zab_pending_find(&t, &same_hi), 7);
	chp_zab_pending_fini(&t, &chp_memory_libc);
}

Test(zab_pending, the_number_of_keys_asked_for_fits)
{
	for (uint32_t keys = 1; keys <= 33; keys++) {
		struct chp_zab_pending t = table_of(keys);

		for (uint32_t i = 0; i < keys; i++) {
			const struct chp_digest d = digest_of(0, i + 1); /* all at one home */

			chp_zab_pending_set(&t, &d, i + 1);
		}
		for (uint32_t i = 0; i < keys; i++) {
			const struct chp_digest d = digest_of(0, i + 1);

			cr_assert_eq(chp_zab_pending_find(&t, &d), i + 1);
		}
		chp_zab_pending_fini(&t, &chp_memory_libc);
	}
}

Test(zab_pending, clearing_forgets_everything)
{
	struct chp_zab_pending t = table_of(KEYS);

	chp_zab_pending_clear(&t);
	for (uint32_t i = 0; i < KEYS; i++) {
		const struct chp_digest d = digest_of(i, i);

		chp_zab_pending_set(&t, &d, i + 1);
	}
	chp_zab_pending_clear(&t);
	cr_assert_eq(t.n, 0);
	for (uint32_t i = 0; i < KEYS; i++) {
		const struct chp_digest d = digest_of(i, i);

		cr_assert_eq(chp_zab_pending_find(&t, &d), 0);
		chp_zab_pending_set(&t, &d, 1); /* indices may be smaller in another term */
	}
	chp_zab_pending_fini(&t, &chp_memory_libc);
}

/* Against a plain array, with homes that wrap around and chains that interleave. */
Test(zab_pending, as_an_array_would)
{
	struct chp_zab_pending t = table_of(KEYS);
	uint64_t newest[2 * KEYS] = { 0 }, index = 0;
	struct chp_random r = { .state = 11 };
	uint32_t n = 0;

	for (uint32_t step = 0; step < 20000; step++) {
		const uint32_t i = (uint32_t)chp_random_below(&r, 2 * KEYS);
		const struct chp_digest d = digest_of(i % 16 * 9 - 7, i);

		if (chp_random_below(&r, 2) == 0 && (newest[i] != 0 || n < KEYS)) {
			n += newest[i] == 0;
			newest[i] = ++index;
			chp_zab_pending_set(&t, &d, index);
		} else if (chp_random_below(&r, 4) == 0) {
			chp_zab_pending_applied(&t, &d, newest[i] == 0 ? index + 1 : newest[i] - 1);
		} else if (newest[i] != 0) {
			chp_zab_pending_applied(&t, &d, newest[i]);
			newest[i] = 0;
			n--;
		}
		cr_assert_eq(t.n, n);
		for (uint32_t k = 0; k < 2 * KEYS; k++) {
			const struct chp_digest other = digest_of(k % 16 * 9 - 7, k);

			cr_assert_eq(chp_zab_pending_find(&t, &other), newest[k]);
		}
	}
	chp_zab_pending_fini(&t, &chp_memory_libc);
}

Test(zab_pending, indices_rise, .signal = SIGABRT)
{
	struct chp_zab_pending t = table_of(4);
	const struct chp_digest d = digest_of(1, 1);

	chp_zab_pending_set(&t, &d, 5);
	chp_zab_pending_set(&t, &d, 5);
}

Test(zab_pending, no_memory)
{
	struct chp_zab_pending t;

	short_memory_left = 0;
	cr_assert_eq(chp_zab_pending_init(&t, 4, &short_memory), -ENOMEM);
	chp_zab_pending_fini(&t, &short_memory);
}
