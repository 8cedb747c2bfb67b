/* SPDX-License-Identifier: BSD-3-Clause */
/* [SAFETY 28] Whose acknowledgements commit which entries. */
#include "protocols/zab_quorum.h"

#include <criterion/criterion.h>
#include <signal.h>

#define MAJORITY CHP_ZAB_MAJORITY
#define ALL CHP_ZAB_ALL

/* Switches in the order of the log; the rest of the list is empty. */
static struct chp_zab_quorum
quorum_of(enum chp_zab_rule rule, const struct chp_zab_switch *s, uint32_t n)
{
	struct chp_zab_quorum q = { .rule = rule };

	for (uint32_t i = 0; i < n; i++)
		cr_assert(chp_zab_quorum_add(&q, s[i].index, s[i].rule));
	return q;
}

#define SWITCHES(...) ((const struct chp_zab_switch[]){ __VA_ARGS__ }), \
		      (sizeof((const struct chp_zab_switch[]){ __VA_ARGS__ }) / sizeof(struct chp_zab_switch))

Test(zab_quorum, majority_and_all_without_switches)
{
	struct chp_zab_quorum q = { .rule = MAJORITY };

	cr_assert_eq(chp_zab_quorum_committed(&q, 3, 10, 7, 5), 7);
	cr_assert_eq(chp_zab_quorum_committed(&q, 3, 10, 12, 5), 10, "not beyond the log");
	cr_assert_eq(chp_zab_quorum_committed(&q, 8, 10, 7, 5), 8, "never back");
	q.rule = ALL;
	cr_assert_eq(chp_zab_quorum_committed(&q, 3, 10, 7, 5), 5);
	cr_assert_eq(chp_zab_quorum_committed(&q, 3, 10, 10, 10), 10);
	cr_assert_eq(chp_zab_quorum_committed(&q, 3, 10, 10, 0), 3);
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 0, 0, 0), 0, "an empty log");
}

Test(zab_quorum, all_binds_from_the_switch_on)
{
	const struct chp_zab_quorum q = quorum_of(MAJORITY, SWITCHES({ 6, ALL }));

	cr_assert_eq(chp_zab_quorum_committed(&q, 3, 10, 4, 4), 4);
	cr_assert_eq(chp_zab_quorum_committed(&q, 3, 10, 10, 4), 5, "what stands before it needs a majority only");
	cr_assert_eq(chp_zab_quorum_committed(&q, 3, 10, 10, 5), 5, "the switch itself needs all");
	cr_assert_eq(chp_zab_quorum_committed(&q, 3, 10, 10, 6), 6);
	cr_assert_eq(chp_zab_quorum_committed(&q, 3, 10, 10, 8), 8);
	cr_assert_eq(chp_zab_quorum_committed(&q, 3, 10, 5, 5), 5);
}

Test(zab_quorum, a_switch_to_majority_commits_itself_and_all_before_it)
{
	const struct chp_zab_quorum q = quorum_of(ALL, SWITCHES({ 6, MAJORITY }));

	cr_assert_eq(chp_zab_quorum_committed(&q, 3, 10, 5, 3), 3, "a majority has all before it, not itself");
	cr_assert_eq(chp_zab_quorum_committed(&q, 3, 10, 5, 4), 4);
	cr_assert_eq(chp_zab_quorum_committed(&q, 3, 10, 6, 3), 6);
	cr_assert_eq(chp_zab_quorum_committed(&q, 3, 10, 9, 3), 9, "and what follows needs no more");
	cr_assert_eq(chp_zab_quorum_committed(&q, 3, 6, 6, 3), 6);
}

Test(zab_quorum, majority_does_not_bind_before_its_switch_is_committed)
{
	const struct chp_zab_quorum q = quorum_of(ALL, SWITCHES({ 6, MAJORITY }));

	/* All have the entries up to 5, and none but the leader the switch. */
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 10, 5, 5), 5);
}

Test(zab_quorum, several_switches_pending)
{
	struct chp_zab_quorum q = quorum_of(MAJORITY, SWITCHES({ 4, ALL }, { 6, MAJORITY }, { 8, ALL }));

	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 10, 3, 0), 3);
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 10, 5, 0), 3, "4 and 5 need all, or 6 at a majority");
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 10, 5, 4), 4);
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 10, 5, 5), 5);
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 10, 6, 0), 6);
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 10, 10, 0), 7, "8 on needs all again");
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 10, 10, 8), 8);
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 10, 10, 10), 10);
	cr_assert_eq(chp_zab_quorum_newest(&q), ALL);
	/* The last switch to majority that a majority has counts, whatever stands before it. */
	q = quorum_of(ALL, SWITCHES({ 2, MAJORITY }, { 4, ALL }, { 6, MAJORITY }));
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 10, 9, 0), 9);
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 10, 5, 0), 3);
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 10, 1, 0), 0);
}

Test(zab_quorum, switches_that_change_nothing)
{
	struct chp_zab_quorum q = quorum_of(MAJORITY, SWITCHES({ 4, MAJORITY }, { 6, MAJORITY }));

	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 10, 9, 0), 9);
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 10, 5, 0), 5);
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 10, 3, 0), 3);
	q = quorum_of(ALL, SWITCHES({ 4, ALL }, { 6, ALL }));
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 10, 9, 5), 5);
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 10, 9, 9), 9);
	cr_assert_eq(chp_zab_quorum_newest(&q), ALL);
}

Test(zab_quorum, neighbours)
{
	const struct chp_zab_quorum q = quorum_of(MAJORITY, SWITCHES({ 1, ALL }, { 2, MAJORITY }, { 3, ALL }));

	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 3, 1, 0), 0);
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 3, 2, 0), 2);
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 3, 3, 2), 2);
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 3, 3, 3), 3);
}

Test(zab_quorum, commit_puts_switches_in_force)
{
	struct chp_zab_quorum q = quorum_of(MAJORITY, SWITCHES({ 4, ALL }, { 6, MAJORITY }, { 8, ALL }));

	chp_zab_quorum_commit(&q, 3);
	cr_assert_eq(q.rule, MAJORITY);
	cr_assert_eq(q.n, 3);
	chp_zab_quorum_commit(&q, 4);
	cr_assert_eq(q.rule, ALL);
	cr_assert_eq(q.n, 2);
	cr_assert_eq(q.pending[0].index, 6);
	chp_zab_quorum_commit(&q, 9);
	cr_assert_eq(q.rule, ALL);
	cr_assert_eq(q.n, 0);
	cr_assert_eq(chp_zab_quorum_newest(&q), ALL);
	chp_zab_quorum_commit(&q, 100);
	cr_assert_eq(q.rule, ALL);
}

Test(zab_quorum, truncated_switches_never_were)
{
	struct chp_zab_quorum q = quorum_of(MAJORITY, SWITCHES({ 4, ALL }, { 6, MAJORITY }, { 8, ALL }));

	chp_zab_quorum_truncate(&q, 9);
	cr_assert_eq(q.n, 3);
	chp_zab_quorum_truncate(&q, 8);
	cr_assert_eq(q.n, 2);
	cr_assert_eq(chp_zab_quorum_newest(&q), MAJORITY);
	chp_zab_quorum_truncate(&q, 5);
	cr_assert_eq(q.n, 1);
	cr_assert_eq(chp_zab_quorum_newest(&q), ALL);
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 4, 4, 3), 3);
	chp_zab_quorum_truncate(&q, 1);
	cr_assert_eq(q.n, 0);
	cr_assert_eq(chp_zab_quorum_newest(&q), MAJORITY);
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 4, 4, 0), 4);
	cr_assert(chp_zab_quorum_add(&q, 4, ALL), "its place may be another's");
}

Test(zab_quorum, only_so_many_may_be_pending)
{
	struct chp_zab_quorum q = { .rule = MAJORITY };

	for (uint32_t i = 1; i <= CHP_ZAB_SWITCHES_MAX; i++) {
		cr_assert(chp_zab_quorum_room(&q));
		cr_assert(chp_zab_quorum_add(&q, i, i % 2 == 0 ? MAJORITY : ALL));
	}
	cr_assert_not(chp_zab_quorum_room(&q));
	cr_assert_not(chp_zab_quorum_add(&q, 100, ALL));
	cr_assert_eq(q.n, CHP_ZAB_SWITCHES_MAX);
	cr_assert_eq(chp_zab_quorum_committed(&q, 0, 100, 99, 0), 99);
	chp_zab_quorum_commit(&q, 1);
	cr_assert(chp_zab_quorum_add(&q, 100, ALL));
}

Test(zab_quorum, switches_come_in_order, .signal = SIGABRT)
{
	quorum_of(MAJORITY, SWITCHES({ 4, ALL }, { 4, MAJORITY }));
}

/* Against the rule as it is written down, for every short log. */
static uint64_t
by_the_book(enum chp_zab_rule rule, const enum chp_zab_rule *at, const bool *is_switch, uint64_t last,
	    uint64_t majority, uint64_t all)
{
	uint64_t freed = 0, committed;

	for (uint64_t i = 1; i <= last && i <= majority; i++)
		if (is_switch[i] && at[i] == MAJORITY)
			freed = i;
	for (uint64_t i = 1; i <= freed; i++)
		if (is_switch[i])
			rule = at[i];
	committed = freed;
	for (uint64_t i = freed + 1; i <= last; i++) {
		/* A switch to all counts for itself, one to majority for what follows it. */
		if (is_switch[i] && at[i] == ALL)
			rule = ALL;
		else if (is_switch[i])
			break; /* a majority does not have it */
		if (i > (rule == ALL ? all : majority))
			break;
		committed = i;
	}
	return committed;
}

Test(zab_quorum, as_the_rule_says_for_every_log_of_five)
{
	enum { LAST = 5, KINDS = 3 * 3 * 3 * 3 * 3 };

	for (uint32_t kind = 0; kind < 2 * KINDS; kind++) {
		struct chp_zab_quorum q = { .rule = kind % 2 == 0 ? MAJORITY : ALL };
		enum chp_zab_rule at[LAST + 1] = { MAJORITY };
		bool is_switch[LAST + 1] = { false };

		for (uint32_t i = 1, k = kind / 2; i <= LAST; i++, k /= 3) {
			is_switch[i] = k % 3 != 0;
			at[i] = k % 3 == 1 ? MAJORITY : ALL;
			if (is_switch[i])
				cr_assert(chp_zab_quorum_add(&q, i, at[i]));
		}
		for (uint64_t majority = 0; majority <= LAST; majority++)
			for (uint64_t all = 0; all <= majority; all++)
				cr_assert_eq(chp_zab_quorum_committed(&q, 0, LAST, majority, all),
					     by_the_book(q.rule, at, is_switch, LAST, majority, all),
					     "log %u, majority %lu, all %lu", kind, majority, all);
	}
}
