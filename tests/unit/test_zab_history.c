/* SPDX-License-Identifier: BSD-3-Clause */
/* What two logs have in common, and which of two histories is the newer. */
#include "protocols/zab_history.h"
#include "base/bytes.h"
#include "base/random.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>

#define ENTRIES 64u

/* A log whose entries, from index 1, are of the epochs that the digits say. */
static struct chp_log
log_of(const char *epochs)
{
	struct chp_log l;

	cr_assert_eq(chp_log_init(&l, ENTRIES, 64, true, &chp_memory_libc), 0);
	chp_log_restart(&l, 1, 0);
	for (; *epochs != '\0'; epochs++) {
		const struct chp_log_entry e = { .version = l.next,
						 .base = (uint64_t)(*epochs - '0'),
						 .key_len = 1,
						 .value_len = 1 };

		chp_log_append(&l, &e, (const uint8_t *)"k", (const uint8_t *)"v", CHP_LOG_NONE, false);
	}
	return l;
}

static void
commit(struct chp_log *l, uint64_t to)
{
	for (uint64_t at = l->head; at <= to; at++)
		chp_log_commit(l, at);
}

static struct chp_zab_history
history_of(const struct chp_log *l, uint64_t committed)
{
	struct chp_zab_history h = { 0 };

	chp_zab_history_of(l, committed, &h);
	return h;
}

/* What "ours" has in common with "theirs", whose entries up to `committed` are committed; -1: it cannot tell. */
static int64_t
common(const char *ours, const char *theirs, uint64_t committed)
{
	struct chp_log a = log_of(ours), b = log_of(theirs);
	const struct chp_zab_history h = history_of(&b, committed);
	uint64_t at;
	const bool found = chp_zab_common(&a, &h, &at);

	chp_log_fini(&a, &chp_memory_libc);
	chp_log_fini(&b, &chp_memory_libc);
	return found ? (int64_t)at : -1;
}

Test(zab_history, an_empty_log)
{
	struct chp_log l = log_of("");
	const struct chp_zab_history h = history_of(&l, 0);

	cr_assert_eq(h.last, 0);
	cr_assert_eq(h.last_epoch, 0);
	cr_assert_eq(h.n_runs, 0);
	cr_assert_eq(chp_zab_epoch_at(&l, 0), 0);
	chp_log_fini(&l, &chp_memory_libc);
}

Test(zab_history, runs_of_what_is_not_committed)
{
	struct chp_log l = log_of("1122244");
	struct chp_zab_history h = history_of(&l, 0);

	cr_assert_eq(h.last, 7);
	cr_assert_eq(h.last_epoch, 4);
	cr_assert_eq(h.n_runs, 3);
	cr_assert(h.run[0].epoch == 1 && h.run[0].first == 1);
	cr_assert(h.run[1].epoch == 2 && h.run[1].first == 3);
	cr_assert(h.run[2].epoch == 4 && h.run[2].first == 6);
	cr_assert(h.run[3].epoch == 0 && h.run[3].first == 0);
	h = history_of(&l, 3);
	cr_assert_eq(h.committed, 3);
	cr_assert_eq(h.n_runs, 2);
	cr_assert(h.run[0].epoch == 2 && h.run[0].first == 4, "the run begins behind what is committed");
	h = history_of(&l, 7);
	cr_assert_eq(h.n_runs, 0);
	cr_assert_eq(h.last, 7);
	chp_log_fini(&l, &chp_memory_libc);
}

Test(zab_history, a_log_whose_beginning_is_compacted)
{
	struct chp_log l = log_of("1122244");
	struct chp_zab_history h;

	commit(&l, 4);
	chp_log_compact(&l, 100);
	cr_assert_eq(l.head, 5);
	cr_assert_eq(chp_zab_epoch_at(&l, 4), 2);
	h = history_of(&l, 4);
	cr_assert_eq(h.n_runs, 2);
	cr_assert(h.run[0].epoch == 2 && h.run[0].first == 5);
	commit(&l, 7);
	chp_log_compact(&l, 100);
	h = history_of(&l, 7);
	cr_assert_eq(h.n_runs, 0);
	cr_assert_eq(h.last, 7);
	cr_assert_eq(h.last_epoch, 4, "of the entry before the log");
	chp_log_fini(&l, &chp_memory_libc);
}

Test(zab_history, more_leaders_than_a_history_names)
{
	struct chp_log l, other = log_of("123");
	struct chp_zab_history h;
	uint64_t at;
	char epochs[CHP_ZAB_RUNS_MAX + 3] = { 0 };

	for (uint32_t i = 0; i < sizeof(epochs) - 1; i++)
		epochs[i] = (char)('1' + i);
	l = log_of(epochs);
	h = history_of(&l, 0);
	cr_assert_eq(h.n_runs, CHP_ZAB_RUNS_MAX);
	cr_assert_eq(h.run[0].first, 3, "the newest");
	cr_assert_eq(h.run[CHP_ZAB_RUNS_MAX - 1].first, sizeof(epochs) - 1);
	cr_assert(chp_zab_common(&other, &h, &at));
	cr_assert_eq(at, 3);
	chp_log_truncate(&other, 3);
	cr_assert_not(chp_zab_common(&other, &h, &at), "what lies below counts as unknown");
	chp_log_fini(&l, &chp_memory_libc);
	chp_log_fini(&other, &chp_memory_libc);
}

Test(zab_history, of_two_logs_the_last_common_entry)
{
	cr_assert_eq(common("", "", 0), 0);
	cr_assert_eq(common("11", "", 0), 0);
	cr_assert_eq(common("", "11", 0), 0);
	cr_assert_eq(common("11", "11", 0), 2);
	cr_assert_eq(common("1111", "11", 0), 2, "DIFF");
	cr_assert_eq(common("11", "1111", 0), 2, "TRUNC");
	cr_assert_eq(common("1122", "1133", 0), 2);
	cr_assert_eq(common("1133", "1122", 0), 2);
	cr_assert_eq(common("1333", "1122", 0), 1);
	cr_assert_eq(common("1122", "1333", 0), 1);
	cr_assert_eq(common("11222", "1123", 0), 3);
	cr_assert_eq(common("1123", "11222", 0), 3);
	cr_assert_eq(common("222", "111", 0), 0);
	cr_assert_eq(common("124", "134", 0), 3, "of one epoch at one index: equal up to there, whatever else");
	cr_assert_eq(common("12", "11113333", 0), 1);
	cr_assert_eq(common("11113333", "12", 0), 1);
	cr_assert_eq(common("1144", "1122334", 0), 2);
}

Test(zab_history, committed_entries_are_common_to_all_that_may_lead)
{
	cr_assert_eq(common("1122", "11", 2), 2);
	cr_assert_eq(common("1122", "1133", 2), 2);
	cr_assert_eq(common("1111", "1133", 1), 2);
	cr_assert_eq(common("11", "1111", 4), -1, "it says that entries which we lack are committed");
	cr_assert_eq(common("11", "1111", 2), 2);
}

Test(zab_history, a_log_that_does_not_reach_back)
{
	struct chp_log ours = log_of("11112222"), theirs = log_of("111");
	struct chp_zab_history h = history_of(&theirs, 3);
	uint64_t at;

	commit(&ours, 6);
	chp_log_compact(&ours, 3);
	cr_assert_eq(ours.head, 4);
	cr_assert(chp_zab_common(&ours, &h, &at), "the entry right before the log is known");
	cr_assert_eq(at, 3);
	chp_log_compact(&ours, 1);
	cr_assert_not(chp_zab_common(&ours, &h, &at));
	h = history_of(&theirs, 0);
	cr_assert_not(chp_zab_common(&ours, &h, &at));
	chp_log_fini(&ours, &chp_memory_libc);
	chp_log_fini(&theirs, &chp_memory_libc);
}

Test(zab_history, a_state_that_was_being_copied_is_a_prefix_of_nothing)
{
	struct chp_log l = log_of("111");
	struct chp_zab_history h = history_of(&l, 3);
	uint64_t at;

	h.flags = CHP_ZAB_INCOMPLETE;
	cr_assert_not(chp_zab_common(&l, &h, &at));
	chp_log_fini(&l, &chp_memory_libc);
}

Test(zab_history, the_newer_one_has_the_later_epoch_then_the_later_entry)
{
	struct chp_zab_history a = { .current_epoch = 2, .last_epoch = 2, .last = 5 }, b = a;

	cr_assert_not(chp_zab_history_older(&a, &b), "neither is");
	b.last = 6;
	cr_assert(chp_zab_history_older(&a, &b));
	cr_assert_not(chp_zab_history_older(&b, &a));
	a.last_epoch = 3;
	cr_assert(chp_zab_history_older(&b, &a), "a later entry though fewer");
	b.current_epoch = 3;
	cr_assert(chp_zab_history_older(&a, &b), "what an established leader left counts for more");
	cr_assert_not(chp_zab_history_older(&b, &a));
}

/* Logs as leaders make them: whoever has an entry of an epoch at an index has what its leader had before it. */
Test(zab_history, as_comparing_all_entries_would)
{
	struct chp_random r = { .state = 5 };

	for (uint32_t round = 0; round < 20000; round++) {
		char made[4][16] = { "" };

		for (uint32_t epoch = 1; epoch <= 6; epoch++) {
			/* A leader continues some prefix of its own log, another's log becomes a prefix of that. */
			char *leader = made[chp_random_below(&r, 4)];
			char *follower = made[chp_random_below(&r, 4)];
			size_t len = strlen(leader), more = chp_random_below(&r, 3);

			len = chp_random_below(&r, len + 1);
			memset(leader + len, '0' + (int)epoch, more);
			leader[len + more] = '\0';
			if (follower != leader) {
				memcpy(follower, leader, len + more + 1);
				follower[chp_random_below(&r, len + more + 1)] = '\0';
			}
		}
		for (uint32_t i = 0; i < 4; i++) {
			const char *a = made[i], *b = made[(i + 1) % 4];
			int64_t same = 0;

			while (a[same] != '\0' && a[same] == b[same])
				same++;
			cr_assert_eq(common(a, b, 0), same, "%s and %s: %ld", a, b, same);
		}
	}
}

Test(zab_history, what_is_not_in_the_log_is_committed_by_nobody, .signal = SIGABRT)
{
	struct chp_log l = log_of("11");

	history_of(&l, 3);
}
