/* SPDX-License-Identifier: BSD-3-Clause */
/* The books of leases: when a majority of grants holds, what drift costs, what view changes keep. */
#include "core/lease.h"

#include "base/random.h"

#include <criterion/criterion.h>

#define MS UINT64_C(1000000)

static struct chp_lease l;

Test(lease, a_majority_needs_half_of_the_others)
{
	chp_lease_init(&l);
	cr_assert_eq(chp_lease_until(&l, 0, 1), CHP_NEVER, "alone it is the majority");
	cr_assert_eq(chp_lease_until(&l, 0, 3), 0);
	chp_lease_take(&l, 1, 100);
	cr_assert_eq(chp_lease_until(&l, 0, 3), 100);
	cr_assert_eq(chp_lease_until(&l, 0, 7), 100, "two of three");
	cr_assert_eq(chp_lease_until(&l, 0, 15), 0, "two of four are none");
	chp_lease_take(&l, 3, 50);
	cr_assert_eq(chp_lease_until(&l, 0, 15), 50, "three of four, until the first ends");
	cr_assert_eq(chp_lease_until(&l, 0, 31), 50, "three of five");
	chp_lease_take(&l, 4, 70);
	cr_assert_eq(chp_lease_until(&l, 0, 31), 70, "the best three of five");
	cr_assert_eq(chp_lease_until(&l, 0, 7), 100, "grants of others than voters do not count");
}

/* Against counting: until t there are enough grants, and from t on there are not. */
Test(lease, a_majority_holds_until_then)
{
	struct chp_random r = { .state = 1 };

	for (uint32_t run = 0; run < 20000; run++) {
		uint64_t voters = chp_random_u64(&r) & chp_random_u64(&r), until_ns;
		uint32_t self = (uint32_t)chp_random_below(&r, CHP_NODES_MAX), before = 1, after = 1;

		voters |= chp_bit(self) | chp_bit((self + 1) % CHP_NODES_MAX);
		chp_lease_init(&l);
		for (uint32_t i = 0; i < CHP_NODES_MAX; i++)
			chp_lease_take(&l, i, chp_random_below(&r, 20));
		until_ns = chp_lease_until(&l, self, voters);
		for (uint64_t rest = voters & ~chp_bit(self); rest != 0; rest &= rest - 1) {
			uint64_t held_ns = l.held_until_ns[chp_first_bit(rest)];

			before += held_ns >= until_ns;
			after += held_ns > until_ns;
		}
		cr_assert_geq(before, chp_count_bits(voters) / 2 + 1);
		cr_assert_lt(after, chp_count_bits(voters) / 2 + 1);
	}
}

Test(lease, late_grants_change_nothing)
{
	chp_lease_init(&l);
	chp_lease_take(&l, 1, 100);
	chp_lease_take(&l, 1, 90);
	cr_assert_eq(chp_lease_until(&l, 0, 7), 100);
}

Test(lease, a_view_change_starts_a_new_count_and_keeps_what_was_held)
{
	chp_lease_init(&l);
	chp_lease_take(&l, 1, 100);
	chp_lease_give(&l, 2, 77, 500);
	chp_lease_enter(&l, chp_lease_until(&l, 0, 7));
	cr_assert_eq(chp_lease_until(&l, 0, 7), 100);
	chp_lease_take(&l, 2, 60);
	cr_assert_eq(chp_lease_until(&l, 0, 7), 100);
	chp_lease_take(&l, 1, 120);
	cr_assert_eq(chp_lease_until(&l, 0, 7), 120);
	cr_assert_eq(chp_lease_given_until(&l, 2, 77), 500, "what was promised stays promised");
	chp_lease_enter(&l, 0);
	cr_assert_eq(chp_lease_until(&l, 0, 7), 0);
	cr_assert_eq(chp_lease_given_until(&l, 2, 77), 500);
}

Test(lease, grants_given_are_of_one_process)
{
	chp_lease_init(&l);
	cr_assert_eq(chp_lease_given_until(&l, 2, 77), 0);
	chp_lease_give(&l, 2, 77, 500);
	chp_lease_give(&l, 2, 77, 400);
	cr_assert_eq(chp_lease_given_until(&l, 2, 77), 500, "never earlier than promised");
	cr_assert_eq(chp_lease_given_until(&l, 2, 78), 0);
	chp_lease_give(&l, 2, 78, 300);
	cr_assert_eq(chp_lease_given_until(&l, 2, 78), 300);
}

/*
 * For every pair of clocks within the bound: what the holder counts on its clock is over, in true time, no
 * later than what the giver counts on its own, though it begins earlier.
 */
Test(lease, drift_is_paid_by_the_holder)
{
	static const uint32_t ppm[] = { 0, 1, 500, 20000, CHP_CLOCK_DRIFT_PPM_MAX };
	static const uint64_t leases[] = { 1, 7, 100000, 300 * MS, CHP_LEASE_NS_MAX };

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(ppm); i++) {
		for (uint32_t k = 0; k < CHP_ARRAY_LEN(leases); k++) {
			uint64_t held = chp_lease_held_ns(leases[k], ppm[i]);
			/* The holder's clock is the slowest, the giver's the fastest: in millionths of true ns. */
			unsigned __int128 holder = (unsigned __int128)held * 1000000 * (1000000 + ppm[i]);
			unsigned __int128 giver = (unsigned __int128)leases[k] * 1000000 * (1000000 - ppm[i]);

			cr_assert(holder <= giver, "%u ppm, %lu ns", ppm[i], leases[k]);
		}
	}
	cr_assert_eq(chp_lease_held_ns(300 * MS, 0), 300 * MS);
	cr_assert_eq(chp_lease_held_ns(300 * MS, 500), 300 * MS - 300000);
	cr_assert_eq(chp_lease_held_ns(1, 1), 0, "rounded against the holder");
}
