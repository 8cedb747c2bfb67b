/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Histories with known verdicts, written as "from-to operation = outcome" (see add_op), and random
 * ones: those of a real register have to pass, and small damaged ones are judged by a checker that
 * tries all permutations. Every history is judged twice, with and without the order by version.
 */
#include "history/linear.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- histories in short form ------------------------------------------------------------------ */

static uint32_t
kind_of(const char *name)
{
	for (uint32_t k = 0; k < CHP_HISTORY_N_KINDS; k++) {
		if (strcmp(name, chp_history_kind_name(k)) == 0)
			return k;
	}
	cr_assert_fail("no such kind: %s", name);
	return 0;
}

/* What stands behind "=": see add_op. */
static void
read_outcome(char *text, uint32_t kind, struct chp_history_result *r)
{
	char *at = strchr(text, '@');

	r->outcome = CHP_HISTORY_OK;
	if (strcmp(text, "?") == 0) {
		r->outcome = CHP_HISTORY_UNKNOWN;
		return;
	}
	if (at != NULL) {
		*at = '\0';
		r->version = strtoull(at + 1, NULL, 10);
	}
	for (uint32_t s = CHP_HISTORY_NOT_FOUND; s <= CHP_HISTORY_STATUS_OTHER; s++) {
		if (strcmp(text, chp_history_status_name(s)) == 0) {
			r->outcome = CHP_HISTORY_FAIL;
			r->status = (enum chp_history_status)s;
			return;
		}
	}
	if (strcmp(text, "fail") == 0) {
		r->outcome = CHP_HISTORY_FAIL;
	} else if (kind == CHP_HISTORY_GET && strcmp(text, "-") != 0) {
		r->value = text;
		r->value_len = (uint32_t)strlen(text);
	} else if (kind == CHP_HISTORY_INCR || kind == CHP_HISTORY_DECR) {
		r->has_number = true;
		r->number = strtoull(text, NULL, 10);
	} else if (kind != CHP_HISTORY_GET && strcmp(text, "ok") != 0) {
		r->version = strtoull(text, NULL, 10);
	}
}

/*
 * One operation: "0-10 put a = 5", of key k. The outcome is the version of a mutation (or "ok"
 * without), "value@version", "value" or "-" of a get, "number@version" of incr and decr, a reason
 * of a failure with or without @version, "fail", "?" for unknown, or "open" for no completion at
 * all. Arguments: the expected version and the value of cas, the operand of incr and decr, else the
 * value.
 */
static void
add_op(struct chp_history *h, const char *key, char *text)
{
	struct chp_history_call c = { .node = CHP_HISTORY_NONE, .key = key, .req = h->n_ops };
	struct chp_history_result r = { .node = CHP_HISTORY_NONE };
	char *save = NULL;
	char *word = strtok_r(text, " ", &save);
	char *to = strchr(word, '-');
	int64_t idx;

	cr_assert_not_null(to);
	c.t_ns = strtoull(word, NULL, 10);
	r.t_ns = strtoull(to + 1, NULL, 10);
	c.kind = (enum chp_history_kind)kind_of(strtok_r(NULL, " ", &save));
	c.key_len = (uint32_t)strlen(key);
	word = strtok_r(NULL, " ", &save);
	if (c.kind == CHP_HISTORY_CAS || c.kind >= CHP_HISTORY_INCR) {
		c.arg = strtoull(word, NULL, 10);
		word = strtok_r(NULL, " ", &save);
	}
	if (strcmp(word, "=") != 0) {
		c.value = strcmp(word, "''") == 0 ? "" : word;
		c.value_len = (uint32_t)strlen(c.value);
		word = strtok_r(NULL, " ", &save);
	}
	cr_assert_str_eq(word, "=");
	idx = chp_history_invoke(h, &c);
	cr_assert_geq(idx, 0);
	word = strtok_r(NULL, " ", &save);
	if (strcmp(word, "open") == 0)
		return;
	read_outcome(word, c.kind, &r);
	cr_assert_eq(chp_history_complete(h, (uint32_t)idx, &r), 0);
}

/* Operations separated by ";". */
static void
add_ops(struct chp_history *h, const char *key, const char *ops)
{
	char *copy = strdup(ops);
	char *save = NULL;

	for (char *op = strtok_r(copy, ";", &save); op != NULL; op = strtok_r(NULL, ";", &save))
		add_op(h, key, op);
	free(copy);
}

/*
 * Judge with and without the order by version; both agree. Returns the fault, or -1 for undecided.
 */
static int
judge_history(const struct chp_history *h, struct chp_linear_report *r)
{
	const struct chp_linear_limits search = { .search_only = true };
	struct chp_linear_report other;

	cr_assert_eq(chp_linear_check(h, NULL, r), 0);
	cr_assert_eq(chp_linear_check(h, &search, &other), 0);
	cr_assert_eq(r->verdict, other.verdict);
	cr_assert_eq(r->fault, other.fault);
	cr_assert_eq(r->verdict == CHP_LINEAR_OK, r->text[0] == '\0');
	cr_assert_eq(r->verdict == CHP_LINEAR_OK, r->key == CHP_HISTORY_NONE);
	if (r->verdict == CHP_LINEAR_UNDECIDED)
		return -1;
	cr_assert_eq(r->verdict == CHP_LINEAR_OK, r->fault == CHP_LINEAR_NO_FAULT);
	cr_assert_eq(r->verdict == CHP_LINEAR_OK, r->op == CHP_HISTORY_NONE);
	return (int)r->fault;
}

static int
judge(const char *ops)
{
	struct chp_history h;
	struct chp_linear_report r;
	int fault;

	chp_history_init(&h);
	add_ops(&h, "k", ops);
	fault = judge_history(&h, &r);
	if (getenv("CHP_TEST_VERBOSE") != NULL)
		fprintf(stderr, "--- %s\n%s", ops, r.text);
	chp_history_fini(&h);
	return fault;
}

#define GOOD(ops) cr_assert_eq(judge(ops), CHP_LINEAR_NO_FAULT, "%s", ops)
#define BAD(ops) cr_assert_eq(judge(ops), CHP_LINEAR_NO_ORDER, "%s", ops)
#define MISORDERED(ops) cr_assert_eq(judge(ops), CHP_LINEAR_VERSION_ORDER, "%s", ops)

/* --- plain reads and writes ------------------------------------------------------------------- */

Test(linear, test_linear_empty_history_is_ok)
{
	struct chp_history h;
	struct chp_linear_report r;

	chp_history_init(&h);
	cr_assert_eq(judge_history(&h, &r), CHP_LINEAR_NO_FAULT);
	chp_history_fini(&h);
}

Test(linear, test_linear_sequential_operations_are_ok)
{
	GOOD("0-1 get = -;2-3 put a = 5;4-5 get = a@5;6-7 put b = 6;8-9 get = b@6");
	GOOD("0-1 get = -;2-3 put a = ok;4-5 get = a;6-7 put b = ok;8-9 get = b");
	GOOD("0-1 put '' = 5;2-3 get = @5;4-5 append '' = 6;6-7 append x = 7;8-9 get = x@7");
}

Test(linear, test_linear_stale_read_is_found)
{
	BAD("0-1 put a = 5;2-3 put b = 6;4-5 get = a@5");
	BAD("0-1 put a = ok;2-3 put b = ok;4-5 get = a");
	BAD("0-1 put a = 5;2-3 get = -");
	BAD("0-1 put a = ok;2-3 get = -");
}

Test(linear, test_linear_concurrent_read_may_see_either_value)
{
	GOOD("0-1 put a = 5;2-9 put b = 6;3-4 get = a@5;5-6 get = b@6");
	GOOD("0-1 put a = 5;2-9 put b = 6;3-4 get = b@6;5-6 get = b@6");
	GOOD("0-9 put a = 5;1-2 get = -;3-4 get = a@5");
	GOOD("0-9 put a = ok;1-2 get = -;3-4 get = a");
}

Test(linear, test_linear_reads_that_go_back_in_time_are_found)
{
	BAD("0-1 put a = 5;2-9 put b = 6;3-4 get = b@6;5-6 get = a@5");
	BAD("0-1 put a = ok;2-9 put b = ok;3-4 get = b;5-6 get = a");
	BAD("0-9 put a = 5;1-2 get = a@5;3-4 get = -");
	BAD("0-9 put a = ok;1-2 get = a;3-4 get = -");
}

Test(linear, test_linear_moments_that_touch_are_concurrent)
{
	GOOD("0-5 put a = 5;5-9 get = -");
	GOOD("0-5 put a = 5;5-9 get = a@5");
	GOOD("5-9 put a = 5;0-5 get = a@5");
	BAD("6-9 put a = 5;0-5 get = a@5");
	BAD("0-5 put a = 5;6-9 get = -");
}

Test(linear, test_linear_never_written_value_is_found)
{
	BAD("0-1 put a = 5;2-3 get = b@5");
	BAD("0-1 put a = 5;2-3 get = b@6");
	BAD("0-1 put a = 5;2-3 get = a@6");
	BAD("0-1 put a = ok;2-3 get = b");
	BAD("0-1 get = b");
	BAD("0-1 get = b@4");
	BAD("0-1 put ab = ok;2-3 get = a");
	BAD("0-1 put a = fail;2-3 get = a@5");
	BAD("0-1 put a = other;2-3 get = a");
}

Test(linear, test_linear_read_from_the_future_is_found)
{
	BAD("0-1 get = a@5;2-3 put a = 5");
	BAD("0-1 get = a;2-3 put a = ok");
	BAD("0-1 get = a;2-3 put a = ?");
	GOOD("0-2 get = a@5;2-3 put a = 5");
}

Test(linear, test_linear_order_of_version_must_be_the_order)
{
	MISORDERED("0-1 put a = 6;2-3 put b = 5");
	MISORDERED("0-1 put a = 6;2-3 put b = 5;4-5 get = b@5");
	BAD("0-1 put a = 6;2-3 put b = 5;4-5 get = a@6");
	GOOD("0-3 put a = 6;2-3 put b = 5");
	GOOD("0-3 put a = 6;2-3 put b = 5;4-5 get = a@6");
	MISORDERED("0-3 put a = 6;2-3 put b = 5;4-5 get = b@5");
	/* The version of an unknown mutation counts as soon as somebody sees it. */
	MISORDERED("0-1 put a = 6;2-3 put b = ?;4-5 get = b@5");
	GOOD("0-1 put a = 6;2-3 put b = ?;4-5 get = b@7");
}

Test(linear, test_linear_version_given_twice_is_found)
{
	cr_assert_eq(judge("0-1 put a = 5;2-3 put b = 5"), CHP_LINEAR_VERSION_TWICE);
	cr_assert_eq(judge("0-1 put a = 5;0-1 delete = 5"), CHP_LINEAR_VERSION_TWICE);
	/* The same where only reads tell: two values, or one that was gone in between. */
	BAD("0-1 put a = ?;0-1 put b = ?;2-3 get = a@5;4-5 get = b@5");
	BAD("0-1 put a = ?;0-1 put a = ?;2-3 get = a@5;4-5 put c = 6;6-7 get = a@5");
	GOOD("0-1 put a = ?;0-1 put a = ?;2-3 get = a@5;4-5 put c = 6;6-7 get = a@7");
}

Test(linear, test_linear_versions_compare_as_unsigned_64_bits)
{
	GOOD("0-1 put a = 9223372036854775807;2-3 put b = 9223372036854775808;"
	     "4-5 put c = 18446744073709551615;6-7 get = c@18446744073709551615");
}

/* --- conditional operations ------------------------------------------------------------------- */

Test(linear, test_linear_cas_needs_exactly_its_version)
{
	GOOD("0-1 put a = 5;2-3 cas 5 b = 6;4-5 get = b@6");
	BAD("0-1 put a = 5;2-3 put b = 6;4-5 cas 5 c = 7");
	BAD("0-1 put a = 5;2-3 cas 4 b = 6");
	BAD("0-1 cas 5 b = 6");
	BAD("0-1 cas 0 b = 6");
	BAD("0-1 put a = 5;2-3 delete = 6;4-5 cas 5 b = 7");
	BAD("0-1 put a = 5;2-3 delete = 6;4-5 cas 6 b = 7");
	/* The same value again, but another version. */
	BAD("0-1 put a = 5;2-3 put a = 6;4-5 cas 5 b = 7");
}

Test(linear, test_linear_two_cas_on_one_version_is_found)
{
	BAD("0-1 put a = 5;2-9 cas 5 b = 6;2-9 cas 5 c = 7");
	BAD("0-1 put a = ok;2-9 cas 5 b = ok;2-9 cas 5 c = ok");
	GOOD("0-1 put a = 5;2-9 cas 5 b = 6;2-9 cas 5 c = compare_failed");
	GOOD("0-1 put a = 5;2-9 cas 5 b = 6;2-9 cas 6 c = 7;3-4 get = b@6");
}

Test(linear, test_linear_failed_cas_is_an_observation)
{
	BAD("0-1 put a = 5;2-3 cas 5 b = compare_failed");
	GOOD("0-1 put a = 5;2-3 cas 4 b = compare_failed");
	GOOD("0-1 put a = 5;2-3 cas 4 b = compare_failed@5");
	BAD("0-1 put a = 5;2-3 put a = 6;4-5 cas 4 b = compare_failed@5");
	BAD("0-1 put a = 5;2-3 cas 5 b = compare_failed@5");
	BAD("0-1 cas 5 b = compare_failed");
	GOOD("0-1 cas 5 b = not_found");
	BAD("0-1 put a = 5;2-3 cas 5 b = not_found");
	/* Answered on a value that was not committed: the writer fails later. */
	BAD("0-1 put a = 5;2-9 put b = fail;3-4 cas 5 c = compare_failed;10-11 get = a@5");
	GOOD("0-1 put a = 5;2-9 put b = ?;3-4 cas 5 c = compare_failed");
	BAD("0-1 put a = 5;2-9 put b = ?;3-4 cas 5 c = compare_failed;10-11 get = a@5");
}

Test(linear, test_linear_lost_update_is_found)
{
	/*
	 * Two read-modify-writes by cas on the same version, and two increments that both give 1.
	 */
	BAD("0-1 put 0 = 5;2-3 get = 0@5;2-3 get = 0@5;"
	    "4-9 cas 5 1 = 6;4-9 cas 5 1 = 7;10-11 get = 1@7");
	BAD("0-1 put 0 = 5;2-9 incr 1 = 1@6;2-9 incr 1 = 1@7");
	BAD("0-1 put a = 5;2-9 append b = 6;2-9 append c = 7;10-11 get = ac@7");
	GOOD("0-1 put a = 5;2-9 append b = 6;2-9 append c = 7;10-11 get = abc@7");
	MISORDERED("0-1 put a = 5;2-9 append b = 6;2-9 append c = 7;10-11 get = acb@6");
}

Test(linear, test_linear_add_needs_absence)
{
	GOOD("0-1 add a = 5;2-3 add b = exists;4-5 get = a@5");
	GOOD("0-1 add a = 5;2-3 add b = exists@5");
	BAD("0-1 add a = 5;2-3 add b = exists@4");
	BAD("0-1 add a = 5;2-3 add b = 6");
	BAD("0-1 add b = exists");
	GOOD("0-1 add a = 5;2-3 delete = 6;4-5 add b = 7");
	BAD("0-1 add a = 5;2-3 delete = 6;4-5 add b = exists");
	GOOD("0-9 add a = 5;0-9 add b = exists");
	BAD("0-9 add a = ok;0-9 add b = ok");
}

Test(linear, test_linear_replace_append_prepend_need_presence)
{
	GOOD("0-1 put m = 5;2-3 append z = 6;4-5 prepend a = 7;"
	     "6-7 get = amz@7;8-9 replace x = 8;10-11 get = x@8");
	GOOD("0-1 replace a = not_found;0-1 append a = not_found;0-1 prepend a = not_found");
	BAD("0-1 replace a = 5");
	BAD("0-1 append a = ok");
	BAD("0-1 prepend a = ok");
	BAD("0-1 put m = 5;2-3 append z = 6;4-5 get = zm@6");
	BAD("0-1 put m = 5;2-3 prepend z = 6;4-5 get = mz@6");
	BAD("0-1 put m = 5;2-3 replace z = not_found");
}

Test(linear, test_linear_delete_leaves_absence)
{
	GOOD("0-1 put a = 5;2-3 delete = 6;4-5 get = -;6-7 delete = not_found");
	BAD("0-1 delete = 6");
	BAD("0-1 put a = 5;2-3 delete = not_found");
	BAD("0-1 put a = 5;2-3 delete = 6;4-5 delete = 7");
	BAD("0-1 put a = ok;2-9 delete = ok;2-9 delete = ok");
	GOOD("0-1 put a = 5;2-9 delete = 6;2-9 delete = not_found");
	GOOD("0-1 put a = 5;2-9 delete = 6;3-4 get = a@5;5-6 get = -");
	BAD("0-1 put a = 5;2-9 delete = 6;3-4 get = -;5-6 get = a@5");
	BAD("0-1 put a = 5;2-3 delete = 6;4-5 get = a@6");
	/* The version that comes with "not found" says nothing. */
	GOOD("0-1 put a = 5;2-3 delete = 6;4-5 get = -@99");
	GOOD("0-1 put a = 5;2-3 delete = 6;4-5 delete = not_found@5");
}

Test(linear, test_linear_resurrected_value_is_found)
{
	BAD("0-1 put a = 5;2-3 delete = 6;4-5 get = a@5");
	BAD("0-1 put a = 5;2-3 delete = 6;4-5 get = a@7");
	BAD("0-1 put a = 5;2-3 put b = 6;4-5 get = b@6;6-7 get = a@7");
	BAD("0-1 put a = ok;2-3 delete = ok;4-5 get = a");
	/* A retry that applied an unknown put once more: one put, two versions. */
	BAD("0-1 put a = ?;2-3 get = a@5;4-5 put b = 6;6-7 get = a@7");
	BAD("0-1 put a = ?;2-3 get = a;4-5 put b = ok;6-7 get = a");
	/* Between absences there was a put and two deletes are needed. */
	BAD("0-1 put a = ?;2-3 get = -;4-5 get = a@5;6-7 get = -");
	GOOD("0-1 put a = ?;2-3 get = -;4-5 get = a@5;5-9 delete = ?;6-7 get = -");
}

Test(linear, test_linear_incr_and_decr_follow_the_numbers)
{
	GOOD("0-1 put 7 = 5;2-3 incr 3 = 10@6;4-5 decr 4 = 6@7;6-7 get = 6@7");
	GOOD("0-1 put 007 = 5;2-3 incr 3 = 10@6;4-5 get = 10@6");
	GOOD("0-1 put 3 = 5;2-3 decr 9 = 0@6;4-5 get = 0@6");
	GOOD("0-1 put 18446744073709551615 = 5;2-3 incr 2 = 1@6;4-5 get = 1@6");
	GOOD("0-1 put 18446744073709551615 = 5;"
	     "2-3 incr 18446744073709551615 = 18446744073709551614@6");
	BAD("0-1 put 3 = 5;2-3 decr 9 = 18446744073709551610@6");
	BAD("0-1 put 7 = 5;2-3 incr 3 = 11@6");
	BAD("0-1 put 7 = 5;2-3 incr 3 = 10@6;4-5 get = 11@6");
	BAD("0-1 put x = 5;2-3 incr 3 = 3@6");
	BAD("0-1 incr 3 = 3@6");
	GOOD("0-1 incr 3 = not_found;2-3 decr 3 = not_found");
	GOOD("0-1 put x = 5;2-3 incr 3 = not_number;4-5 decr 3 = not_number@5");
	GOOD("0-1 put 18446744073709551616 = 5;2-3 incr 3 = not_number");
	GOOD("0-1 put '' = 5;2-3 incr 3 = not_number");
	GOOD("0-1 put 000000000000000000001 = 5;2-3 incr 3 = not_number");
	BAD("0-1 put 1 = 5;2-3 incr 3 = not_number");
	BAD("0-1 put x = 5;2-3 put 1 = 6;4-5 incr 3 = not_number@6");
}

Test(linear, test_linear_doubly_applied_retry_is_found)
{
	BAD("0-1 put 0 = 5;2-3 incr 1 = 1@6;4-5 get = 2@7");
	BAD("0-1 put 0 = 5;2-3 incr 1 = 2@7;4-5 get = 2@7");
	BAD("0-1 put 0 = 5;2-3 incr 1 = 1@6;4-5 get = 2@6");
	BAD("0-1 put 0 = ok;2-3 incr 1 = 1;4-5 get = 2");
	BAD("0-1 put 0 = 5;2-3 incr 1 = ?;4-5 get = 2@7");
	BAD("0-1 put 0 = ok;2-3 incr 1 = ?;4-5 get = 2");
	BAD("0-1 put 0 = 5;2-3 incr 1 = ?;4-5 get = 1@6;6-7 get = 2@7");
	GOOD("0-1 put 0 = 5;2-3 incr 1 = ?;2-3 incr 1 = ?;4-5 get = 1@6;6-7 get = 2@7");
	BAD("0-1 put x = 5;2-3 append y = ?;4-5 get = xyy@7");
	BAD("0-1 put x = 5;2-3 append y = 6;4-5 get = xyy@6");
	GOOD("0-1 put x = 5;2-3 append y = ?;4-5 get = xy@7");
}

/* --- unknown outcomes ------------------------------------------------------------------------- */

Test(linear, test_linear_unknown_may_or_may_not_apply)
{
	GOOD("0-1 put a = ?;2-3 get = -");
	GOOD("0-1 put a = ?;2-3 get = a@5");
	GOOD("0-1 put a = open;2-3 get = a");
	GOOD("0-1 put a = open;2-3 get = -;4-5 get = -");
	GOOD("0-1 put a = 5;2-3 delete = ?;4-5 get = a@5");
	GOOD("0-1 put a = 5;2-3 delete = ?;4-5 get = -");
	GOOD("0-1 put a = 5;2-3 delete = open;4-5 add b = 7");
	GOOD("0-1 put a = 5;2-3 delete = ?;4-5 replace b = not_found");
	BAD("0-1 put a = 5;2-3 delete = ?;4-5 get = -;6-7 get = a@5");
	BAD("0-1 put a = ?;2-3 get = a@5;4-5 get = -");
	GOOD("0-1 add a = ?;0-1 add b = ?;2-3 get = b@5");
	BAD("0-1 add a = ?;0-1 add b = ?;2-3 get = b@5;4-5 get = a@6");
	GOOD("0-1 get = ?;2-3 get = open;4-5 get = -");
}

Test(linear, test_linear_unknown_may_apply_much_later)
{
	GOOD("0-1 put old = ?;2-3 put a = 5;4-5 get = a@5;"
	     "6-7 put b = 6;8-9 get = b@6;100-101 get = old@7");
	GOOD("0-1 put old = ?;2-3 put a = ok;4-5 get = a;"
	     "6-7 put b = ok;8-9 get = b;100-101 get = old");
	BAD("0-1 put old = ?;2-3 put a = 5;4-5 get = old@6;"
	    "6-7 put b = 7;8-9 get = b@7;100-101 get = old@8");
	GOOD("0-1 delete = ?;2-3 put a = 5;4-5 get = a@5;6-7 get = -;8-9 add b = 8");
	BAD("0-1 delete = ?;2-3 put a = 5;4-5 get = -;6-7 put b = 6;8-9 get = -");
	GOOD("0-1 incr 5 = ?;2-3 put 1 = 5;4-5 incr 1 = 2@6;6-7 incr 1 = 8@9;8-9 get = 8@9");
	BAD("0-1 incr 5 = ?;2-3 put 1 = 5;4-5 incr 1 = 7@6;6-7 incr 1 = 13@9");
}

Test(linear, test_linear_unknown_does_not_apply_before_its_invocation)
{
	BAD("0-1 get = a@5;2-3 put a = ?");
	GOOD("0-2 get = a@5;2-3 put a = ?");
	BAD("0-1 put a = 5;2-3 get = -;4-5 delete = ?");
	BAD("0-1 put 0 = 5;2-3 incr 1 = 2@7;4-5 incr 1 = ?");
}

Test(linear, test_linear_unknown_cas_applies_only_on_its_version)
{
	GOOD("0-1 put a = 5;2-3 cas 5 b = ?;4-5 get = b@6");
	GOOD("0-1 put a = 5;2-3 cas 5 b = ?;4-5 get = a@5");
	BAD("0-1 put a = 5;2-3 cas 4 b = ?;4-5 get = b@6");
	BAD("0-1 put a = 5;2-3 put c = 6;4-5 cas 5 b = ?;6-7 get = b@7");
	/*
	 * Both unknown: the version that the cas expects is that of the put, though nobody saw it.
	 */
	GOOD("0-1 put a = ?;2-3 cas 5 b = ?;4-5 get = b@6");
	BAD("0-1 put a = ?;2-3 cas 5 b = ?;4-5 get = a@7;6-7 get = b@8");
	BAD("0-1 put a = ?;0-1 put c = ?;2-3 cas 5 b = ?;"
	    "2-3 cas 5 d = ?;4-5 get = b@6;6-7 get = a@7;8-9 get = d@8");
}

Test(linear, test_linear_expected_version_is_written_once)
{
	/*
	 * Nobody but the two cas names version 5, and two unknown puts cannot both have written it.
	 */
	BAD("0-1 put a = ?;0-1 put c = ?;0-1 put e = ?;2-3 cas 5 b = ?;2-3 cas 5 d = ?;"
	    "4-5 get = b@6;6-7 get = a@7;8-9 get = d@8");
	GOOD("0-1 put a = ?;0-1 put c = ?;0-1 put e = ?;2-3 cas 5 b = ?;2-3 cas 8 d = ?;"
	     "4-5 get = b@6;6-7 get = a@7;8-9 get = d@9");
}

Test(linear, test_linear_sights_without_version_keep_real_time)
{
	BAD("0-1 put a = 5;2-99 delete = 6;10-20 get = -;30-40 add b = exists");
	GOOD("0-1 put a = 5;2-99 delete = 6;10-20 add b = exists;30-40 get = -");
	BAD("0-1 put 1 = 5;2-99 put x = 6;10-20 incr 1 = not_number;30-40 cas 6 b = compare_failed");
	GOOD("0-1 put 1 = 5;2-99 put x = 6;10-20 cas 6 b = compare_failed;30-40 incr 1 = not_number");
	GOOD("0-1 put 1 = 5;2-99 put x = 6;10-35 incr 1 = not_number;30-40 cas 6 b = compare_failed");
	/* Through a third one in between, and on three states. */
	BAD("0-1 put a = 5;2-99 delete = 6;2-99 add c = 7;10-20 cas 5 x = compare_failed;30-40 get = -");
	GOOD("0-1 put a = 5;2-99 delete = 6;2-99 add c = 7;10-20 get = -;30-40 cas 5 x = compare_failed");
}

Test(linear, test_linear_unknown_mutations_may_follow_one_another_unseen)
{
	GOOD("0-1 put 5 = 5;2-3 put 9999999999999999999 = ?;2-3 append 9 = ?;"
	     "4-5 incr 1 = not_number;6-7 put c = 6");
	GOOD("0-1 put a = ?;0-1 replace b = ?;2-3 get = -;4-5 append c = 7;6-7 get = bc@7");
	BAD("0-1 replace b = ?;2-3 get = -;4-5 append c = 7;6-7 get = bc@7");
	GOOD("0-1 put 5 = 5;2-3 incr 2 = ?;2-3 incr 3 = ?;4-5 incr 1 = 11@6");
	BAD("0-1 put 5 = 5;2-3 incr 2 = ?;2-3 incr 3 = ?;4-5 incr 1 = 12@6");
	GOOD("0-1 put 5 = 5;2-3 decr 9 = ?;2-3 incr 3 = ?;4-5 incr 1 = 4@6");
	GOOD("0-1 put a = 5;2-3 delete = ?;2-3 add b = ?;4-5 append c = 6;6-7 get = bc@6");
	GOOD("0-1 put 5 = 5;2-3 append 1 = ?;2-3 incr 9 = ?;4-5 append x = 6;6-7 get = 60x@6");
	GOOD("0-1 put 5 = 5;2-3 append 1 = ?;2-3 incr 9 = ?;4-5 append x = 6;6-7 get = 141x@6");
	BAD("0-1 put 5 = 5;2-3 append 1 = ?;2-3 incr 9 = ?;4-5 append x = 6;6-7 get = 61x@6");
}

Test(linear, test_linear_unknown_effect_hidden_under_known_one)
{
	/*
	 * The version read is that of the known append, the value shows the unknown one before it.
	 */
	GOOD("0-1 put a = 5;2-3 append u = ?;4-5 append b = 8;6-7 get = aub@8");
	BAD("0-1 put a = 5;2-3 append u = ?;4-5 append b = 8;6-7 get = auub@8");
	GOOD("0-1 put a = 5;2-9 append u = ?;4-5 append b = 8;6-7 get = ab@8;8-9 get = abu@9");
	GOOD("0-1 put a = ?;2-3 delete = 6;4-5 get = -");
	BAD("0-1 put a = ?;2-3 delete = 6;4-5 get = a@5");
}

Test(linear, test_linear_failed_operations_constrain_only_by_reason)
{
	GOOD("0-1 put a = other;2-3 get = -");
	GOOD("0-1 put a = fail;2-3 put a = other;4-5 get = fail;6-7 add x = not_found;"
	     "8-9 put x = exists;10-11 get = -");
	GOOD("0-1 get = not_found");
	BAD("0-1 put a = 5;2-3 get = not_found");
	GOOD("0-1 incr 3 = exists;2-3 add b = compare_failed;4-5 cas 3 a = exists");
}

/* --- several keys, limits, reports ------------------------------------------------------------ */

Test(linear, test_linear_keys_are_independent)
{
	struct chp_history h;
	struct chp_linear_report r;

	chp_history_init(&h);
	add_ops(&h, "a", "0-1 put x = 5;4-5 get = x@5");
	add_ops(&h, "b", "0-1 put y = 5;2-3 put z = 4;4-5 get = z@4");
	add_ops(&h, "a", "6-7 get = x@5");
	add_ops(&h, "c", "0-1 get = never");
	cr_assert_eq(judge_history(&h, &r), CHP_LINEAR_VERSION_ORDER);
	cr_assert_eq(r.key, 1);
	cr_assert_eq(r.keys_by_version, 1);
	cr_assert_eq(r.keys_violated, 1);
	cr_assert_eq(chp_linear_check(&h, &(struct chp_linear_limits){ .violations_max = 9 }, &r),
		     0);
	cr_assert_eq(r.keys_violated, 2);
	cr_assert_eq(r.key, 1);
	chp_history_fini(&h);
}

/* Blind puts of unknown outcome and one value that nobody wrote: only all subsets show that. */
static void
add_hard(struct chp_history *h, uint32_t n)
{
	char text[64];

	add_ops(h, "hard", "0-1 put x = ok");
	for (uint32_t i = 0; i < n; i++) {
		snprintf(text, sizeof(text), "2-3 append %" PRIu32 " = ?", i);
		add_ops(h, "hard", text);
	}
	add_ops(h, "hard", "4-5 get = never");
}

Test(linear, test_linear_limit_is_undecided_never_ok)
{
	struct chp_linear_limits states = { .states_max = 1000 };
	struct chp_linear_limits bytes = { .bytes_max = 100000 };
	struct chp_history h;
	struct chp_linear_report r;

	chp_history_init(&h);
	add_hard(&h, 40);
	cr_assert_eq(chp_linear_check(&h, &states, &r), 0);
	cr_assert_eq(r.verdict, CHP_LINEAR_UNDECIDED);
	cr_assert_eq(r.fault, CHP_LINEAR_NO_FAULT);
	cr_assert_eq(r.keys_undecided, 1);
	cr_assert_leq(r.states, 2000);
	cr_assert_not_null(strstr(r.text, "undecided"));
	cr_assert_eq(chp_linear_check(&h, &bytes, &r), 0);
	cr_assert_eq(r.verdict, CHP_LINEAR_UNDECIDED);
	/* A violation elsewhere weighs more. */
	add_ops(&h, "b", "0-1 get = never");
	cr_assert_eq(chp_linear_check(&h, &states, &r), 0);
	cr_assert_eq(r.verdict, CHP_LINEAR_VIOLATION);
	cr_assert_eq(r.key, 1);
	chp_history_reset(&h);
	add_hard(&h, 5);
	cr_assert_eq(judge_history(&h, &r), CHP_LINEAR_NO_ORDER);
	chp_history_fini(&h);
}

/* The whole text stands here so that a change of it is seen. */
Test(linear, test_linear_report_explains_stale_read)
{
	struct chp_history h;
	struct chp_linear_report r;

	chp_history_init(&h);
	add_ops(&h, "k", "100-110 put a = 5;120-130 put b = 6;140-150 get = a@5;160-170 get = b@6");
	cr_assert_eq(judge_history(&h, &r), CHP_LINEAR_NO_ORDER);
	cr_assert_eq(r.op, 2);
	cr_assert_str_eq(
		r.text,
		"key \"k\": not linearizable\n"
		"client 0 request 2 saw version 5, which was there before, but between the two client 0 "
		"request 1 replaced it.\n"
		"Times in ns since 100:\n"
		"    +0..+10  client 0 request 0: put \"a\" -> ok, version 5\n"
		"    +20..+30  client 0 request 1: put \"b\" -> ok, version 6\n"
		"  > +40..+50  client 0 request 2: get -> \"a\", version 5\n");
	chp_history_fini(&h);
}

static void
expect_text(const char *ops, const char *part)
{
	struct chp_history h;
	struct chp_linear_report r;

	chp_history_init(&h);
	add_ops(&h, "k", ops);
	cr_assert_gt(judge_history(&h, &r), 0);
	cr_assert_not_null(strstr(r.text, part), "%s", r.text);
	chp_history_fini(&h);
}

Test(linear, test_linear_report_says_what_is_wrong)
{
	expect_text(
		"0-1 put a = 6;2-3 put b = 5",
		"client 0 request 0 was complete with version 6 before client 0 request 1 began, which got 5");
	expect_text("0-1 put a = 5;2-3 put b = 5", "two operations were given version 5");
	expect_text("0-1 put a = 5;2-3 get = b@6", "saw version 6, which nothing can have written");
	expect_text("0-1 put a = 5;2-3 get = b@5", "not the value that was written with it");
	expect_text("0-1 get = a@5;2-3 put a = 5", "before the operation that wrote it began");
	expect_text("0-1 put a = 5;2-3 get = -;4-5 get = a@5",
		    "client 0 request 1 saw another state");
	expect_text(
		"0-1 put 0 = 5;2-3 incr 1 = 1@6;4-5 incr 1 = 3@7",
		"After 2 of 3 certain operations the key holds \"1\", version 6, and no order goes on to client "
		"0 request 2");
}

Test(linear, test_linear_report_of_hostile_bytes_is_bounded)
{
	struct chp_history_call c = { .kind = CHP_HISTORY_PUT, .node = CHP_HISTORY_NONE };
	struct chp_history_result res = { .outcome = CHP_HISTORY_OK, .node = CHP_HISTORY_NONE };
	struct chp_history h;
	struct chp_linear_report r;
	char bytes[5000];

	memset(bytes, 0xff, sizeof(bytes));
	bytes[3] = '\n';
	chp_history_init(&h);
	for (uint32_t i = 0; i < 100; i++) {
		c.key = c.value = bytes;
		c.key_len = c.value_len = sizeof(bytes);
		c.t_ns = i < 50 ? UINT64_MAX - 1 : 0;
		c.client = c.req = UINT64_MAX - i;
		res.t_ns = UINT64_MAX;
		res.version = UINT64_MAX - i;
		c.kind = i % 2 == 0 ? CHP_HISTORY_PUT : CHP_HISTORY_GET;
		res.value = NULL;
		if (c.kind == CHP_HISTORY_GET) {
			c.value = NULL;
			res.value = bytes;
			res.value_len = 4999;
		}
		cr_assert_eq(chp_history_complete(&h, (uint32_t)chp_history_invoke(&h, &c), &res),
			     0);
	}
	cr_assert_eq(chp_linear_check(&h, NULL, &r), 0);
	cr_assert_eq(r.fault, CHP_LINEAR_NO_ORDER);
	cr_assert_lt(strlen(r.text), sizeof(r.text));
	for (const char *p = r.text; *p != '\0'; p++)
		cr_assert(*p == '\n' || (*p >= ' ' && *p <= '~'));
	chp_history_fini(&h);
}

Test(linear, test_linear_names_of_verdicts_and_faults)
{
	cr_assert_str_eq(chp_linear_verdict_name(CHP_LINEAR_VIOLATION), "violation");
	cr_assert_str_eq(chp_linear_fault_name(CHP_LINEAR_VERSION_TWICE), "version_twice");
	cr_assert_str_eq(chp_linear_verdict_name(3), "?");
	cr_assert_str_eq(chp_linear_fault_name(4), "?");
}

/* --- random histories ------------------------------------------------------------------------- */

static uint64_t
random_u64(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static uint32_t
below(uint64_t *state, uint32_t n)
{
	return (uint32_t)(random_u64(state) % n);
}

/* Values of the model grow by appends only; long enough for all histories here. */
#define MODEL_BYTES 8192u

struct model_value {
	char bytes[MODEL_BYTES];
	uint32_t len;
};

/*
 * An operation of a random history, with its outcome; small so that the histories can be damaged.
 */
struct model_op {
	uint64_t inv;
	uint64_t ret;
	uint64_t lin; /* when the register applied it */
	uint64_t arg;
	uint64_t version;
	uint64_t number;
	enum chp_history_kind kind;
	enum chp_history_outcome outcome;
	enum chp_history_status status;
	bool applies;      /* an unknown one that takes effect */
	const char *value; /* argument */
	char *seen;        /* a get's result, malloc'ed; NULL: nothing */
};

struct model_shape {
	uint32_t n;
	uint32_t span;    /* longest interval */
	uint32_t gap;     /* mean time between invocations */
	uint32_t unknown; /* per cent */
	uint32_t reads;   /* per cent */
	bool versions;
	bool sparse; /* some versions are missing */
};

static const char *const model_values[] = { "a", "b", "1", "20", "" };

static int
by_lin(const void *a, const void *b)
{
	const struct model_op *const *x = a;
	const struct model_op *const *y = b;

	return (*x)->lin < (*y)->lin ? -1 : (*x)->lin > (*y)->lin;
}

/* The rules of the register, written down a second time for the tests. Returns the status. */
static enum chp_history_status
model_apply(struct model_value *v, bool *exists, uint64_t version, struct model_op *op)
{
	char number[32];
	char *end;
	uint64_t n;

	switch (op->kind) {
	case CHP_HISTORY_PUT:
		break;
	case CHP_HISTORY_ADD:
		if (*exists)
			return CHP_HISTORY_EXISTS;
		break;
	case CHP_HISTORY_CAS:
		if (!*exists)
			return CHP_HISTORY_NOT_FOUND;
		if (version != op->arg)
			return CHP_HISTORY_COMPARE_FAILED;
		break;
	default:
		if (!*exists)
			return CHP_HISTORY_NOT_FOUND;
	}
	if (op->kind == CHP_HISTORY_GET)
		return CHP_HISTORY_STATUS_NONE;
	if (op->kind == CHP_HISTORY_DELETE) {
		*exists = false;
		v->len = 0;
		return CHP_HISTORY_STATUS_NONE;
	}
	if (op->kind == CHP_HISTORY_INCR || op->kind == CHP_HISTORY_DECR) {
		if (v->len == 0 || v->len > 20 || strspn(v->bytes, "0123456789") != v->len)
			return CHP_HISTORY_NOT_NUMBER;
		errno = 0;
		n = strtoull(v->bytes, &end, 10);
		if (errno != 0)
			return CHP_HISTORY_NOT_NUMBER;
		if (op->kind == CHP_HISTORY_INCR)
			n += op->arg;
		else
			n = n > op->arg ? n - op->arg : 0;
		op->number = n;
		snprintf(number, sizeof(number), "%" PRIu64, n);
		v->len = (uint32_t)strlen(number);
		memcpy(v->bytes, number, v->len + 1);
		return CHP_HISTORY_STATUS_NONE;
	}
	n = strlen(op->value);
	cr_assert_lt(v->len + n + 1, MODEL_BYTES);
	if (op->kind == CHP_HISTORY_PREPEND) {
		memmove(v->bytes + n, v->bytes, v->len + 1);
		memcpy(v->bytes, op->value, n);
		v->len += (uint32_t)n;
	} else if (op->kind == CHP_HISTORY_APPEND) {
		memcpy(v->bytes + v->len, op->value, n + 1);
		v->len += (uint32_t)n;
	} else {
		memcpy(v->bytes, op->value, n + 1);
		v->len = (uint32_t)n;
		*exists = true;
	}
	return CHP_HISTORY_STATUS_NONE;
}

/* Choose the operations, without outcomes yet. */
static void
model_choose(const struct model_shape *shape, struct model_op *op, uint64_t *seed)
{
	uint64_t t = 0;

	for (uint32_t i = 0; i < shape->n; i++) {
		struct model_op *o = &op[i];

		memset(o, 0, sizeof(*o));
		t += below(seed, 2 * shape->gap + 1);
		o->inv = t;
		o->ret = t + below(seed, shape->span);
		o->lin = o->inv + below(seed, (uint32_t)(o->ret - o->inv) + 1);
		o->kind = below(seed, 100) < shape->reads ? CHP_HISTORY_GET
			  : below(seed, 4) == 0           ? CHP_HISTORY_PUT
							  : (enum chp_history_kind)below(seed, 10);
		if (i == 0)
			o->kind = CHP_HISTORY_PUT;
		o->value = model_values[below(seed, 5)];
		o->outcome = CHP_HISTORY_OK;
		if (below(seed, 100) < shape->unknown) {
			o->outcome = below(seed, 2) == 0 ? CHP_HISTORY_UNKNOWN : CHP_HISTORY_OPEN;
			o->applies = below(seed, 3) > 0;
			if (below(seed, 4) == 0)
				o->lin += below(seed, shape->span * 20);
		} else if (below(seed, 20) == 0) {
			o->outcome = CHP_HISTORY_FAIL;
			o->status = below(seed, 2) == 0 ? CHP_HISTORY_STATUS_OTHER
							: CHP_HISTORY_STATUS_NONE;
		}
		if (o->kind == CHP_HISTORY_INCR || o->kind == CHP_HISTORY_DECR)
			o->arg = 1 + below(seed, 3);
	}
}

/* Run a register: every outcome is what it gives at the operation's moment. */
static void
model_run(const struct model_shape *shape, struct model_op *op, uint64_t *seed)
{
	static struct model_value v;
	struct model_op **order = malloc(shape->n * sizeof(*order));
	uint64_t version = 0;
	uint64_t next = 10;
	bool exists = false;

	v.len = 0;
	v.bytes[0] = '\0';
	for (uint32_t i = 0; i < shape->n; i++)
		order[i] = &op[i];
	qsort(order, shape->n, sizeof(*order), by_lin);
	for (uint32_t i = 0; i < shape->n; i++) {
		struct model_op *o = order[i];
		bool known = o->outcome == CHP_HISTORY_OK;
		enum chp_history_status status;

		if (o->outcome == CHP_HISTORY_FAIL || (!known && !o->applies))
			continue;
		if (o->kind == CHP_HISTORY_CAS)
			o->arg = below(seed, 3) > 0 ? version : below(seed, 12);
		if (v.len > 600 &&
		    (o->kind == CHP_HISTORY_APPEND || o->kind == CHP_HISTORY_PREPEND))
			o->kind = CHP_HISTORY_PUT;
		status = model_apply(&v, &exists, version, o);
		if (status != CHP_HISTORY_STATUS_NONE) {
			if (known) {
				o->outcome = o->kind == CHP_HISTORY_GET ? CHP_HISTORY_OK
									: CHP_HISTORY_FAIL;
				o->status = o->kind == CHP_HISTORY_GET ? CHP_HISTORY_STATUS_NONE
								       : status;
				o->version = exists && below(seed, 2) == 0 ? version : 0;
			}
			continue;
		}
		if (o->kind == CHP_HISTORY_GET)
			o->seen = known ? strdup(v.bytes) : NULL;
		else
			version = next += 1 + below(seed, 3);
		o->version = known ? version : 0;
	}
	for (uint32_t i = 0; i < shape->n; i++) {
		if (!shape->versions || (shape->sparse && below(seed, 3) == 0))
			op[i].version = 0;
	}
	free(order);
}

static void
model_add(struct chp_history *h, const struct model_op *o, const char *key, uint32_t req)
{
	bool valued = o->kind == CHP_HISTORY_PUT ||
		      (o->kind >= CHP_HISTORY_CAS && o->kind <= CHP_HISTORY_PREPEND);
	struct chp_history_call c = {
		.t_ns = o->inv,
		.client = 1,
		.req = req,
		.kind = o->kind,
		.node = CHP_HISTORY_NONE,
		.key = key,
		.key_len = (uint32_t)strlen(key),
		.value = valued ? o->value : NULL,
		.value_len = valued ? (uint32_t)strlen(o->value) : 0,
		.arg = o->arg,
	};
	struct chp_history_result r = {
		.t_ns = o->ret,
		.outcome = o->outcome,
		.status = o->status,
		.node = CHP_HISTORY_NONE,
		.value = o->kind == CHP_HISTORY_GET && o->outcome == CHP_HISTORY_OK ? o->seen
										    : NULL,
		.version = o->version,
		.number = o->number,
		.has_number = o->outcome == CHP_HISTORY_OK,
	};
	int64_t idx = chp_history_invoke(h, &c);

	cr_assert_geq(idx, 0);
	if (o->outcome == CHP_HISTORY_OPEN)
		return;
	r.value_len = r.value == NULL ? 0 : (uint32_t)strlen(r.value);
	cr_assert_eq(chp_history_complete(h, (uint32_t)idx, &r), 0);
}

static void
model_free(struct model_op *op, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		free(op[i].seen);
}

/* Random histories of a real register pass; returns how many keys needed a search. */
static uint64_t
random_good(const struct model_shape *shape, uint32_t rounds, uint64_t seed)
{
	struct model_op *op = calloc(shape->n, sizeof(*op));
	struct chp_history h;
	struct chp_linear_report r;
	uint64_t searched = 0;

	chp_history_init(&h);
	for (uint32_t round = 0; round < rounds; round++) {
		uint64_t state = seed + round;

		chp_history_reset(&h);
		model_choose(shape, op, &state);
		model_run(shape, op, &state);
		for (uint32_t i = 0; i < shape->n; i++)
			model_add(&h, &op[i], "k", i);
		model_free(op, shape->n);
		cr_assert_eq(judge_history(&h, &r), CHP_LINEAR_NO_FAULT, "seed %" PRIu64 "\n%s",
			     seed + round, r.text);
		searched += r.keys_by_search;
	}
	chp_history_fini(&h);
	free(op);
	return searched;
}

Test(linear, test_linear_random_histories_of_a_register_pass)
{
	struct model_shape shape = {
		.n = 60, .span = 60, .gap = 8, .unknown = 0, .reads = 40, .versions = true
	};

	/* Everything known: the order by version needs no search. */
	cr_assert_eq(random_good(&shape, 1500, 1000), 0);
	shape.unknown = 10;
	random_good(&shape, 1500, 5000);
	shape.sparse = true;
	shape.n = 30;
	random_good(&shape, 500, 9000);
	shape.versions = false;
	random_good(&shape, 500, 12000);
}

Test(linear, test_linear_long_random_histories_pass)
{
	struct model_shape shape = {
		.n = 4000, .span = 200, .gap = 10, .unknown = 0, .reads = 50, .versions = true
	};

	cr_assert_eq(random_good(&shape, 10, 100), 0);
	shape.unknown = 1;
	random_good(&shape, 10, 200);
}

/* --- small damaged histories against all permutations ----------------------------------------- */

#define BRUTE_OPS_MAX 7u
#define BRUTE_VERSIONS_MAX 24u

struct brute {
	const struct model_op *op;
	uint32_t n;
	bool ordered;
	bool placed[BRUTE_OPS_MAX];
	uint64_t version
		[BRUTE_VERSIONS_MAX]; /* all that are named and that nothing is known to write */
	uint32_t n_versions;
	uint64_t used[BRUTE_OPS_MAX]; /* versions written so far */
	uint32_t n_used;
};

struct brute_state {
	bool exists;
	char value[64];
	uint64_t version; /* 0: one that nobody names */
};

static bool
brute_is_maybe(const struct model_op *o)
{
	return o->outcome == CHP_HISTORY_UNKNOWN || o->outcome == CHP_HISTORY_OPEN;
}

static bool
brute_has_reason(const struct model_op *o)
{
	bool number = o->kind == CHP_HISTORY_INCR || o->kind == CHP_HISTORY_DECR;

	return (o->status == CHP_HISTORY_NOT_FOUND && o->kind != CHP_HISTORY_PUT &&
		o->kind != CHP_HISTORY_ADD) ||
	       (o->status == CHP_HISTORY_EXISTS && o->kind == CHP_HISTORY_ADD) ||
	       (o->status == CHP_HISTORY_COMPARE_FAILED && o->kind == CHP_HISTORY_CAS) ||
	       (o->status == CHP_HISTORY_NOT_NUMBER && number);
}

/* Whether the operation has to stand in the order. */
static bool
brute_is_certain(const struct model_op *o)
{
	return o->outcome == CHP_HISTORY_OK ||
	       (o->outcome == CHP_HISTORY_FAIL && brute_has_reason(o));
}

/* Apply to a copy: false if the outcome would not be the one recorded. */
static bool
brute_step(const struct model_op *o, struct brute_state *s)
{
	static struct model_value v;
	struct model_op again = *o;
	enum chp_history_status status;

	v.len = (uint32_t)strlen(s->value);
	memcpy(v.bytes, s->value, v.len + 1);
	status = model_apply(&v, &s->exists, s->version, &again);
	/* 0 stands for a version that nobody names here, and is nobody's version. */
	if (o->kind == CHP_HISTORY_CAS && o->arg == 0 && s->exists)
		status = CHP_HISTORY_COMPARE_FAILED;
	if (brute_is_maybe(o)) {
		if (status != CHP_HISTORY_STATUS_NONE)
			return false;
	} else if (o->kind == CHP_HISTORY_GET && o->outcome == CHP_HISTORY_OK && o->seen == NULL) {
		return status == CHP_HISTORY_NOT_FOUND;
	} else if (o->outcome == CHP_HISTORY_FAIL) {
		return status == o->status && (status == CHP_HISTORY_NOT_FOUND || o->version == 0 ||
					       o->version == s->version);
	} else if (status != CHP_HISTORY_STATUS_NONE) {
		return false;
	} else if (o->kind == CHP_HISTORY_GET) {
		return strcmp(s->value, o->seen) == 0 &&
		       (o->version == 0 || o->version == s->version);
	} else if (o->kind >= CHP_HISTORY_INCR && again.number != o->number) {
		return false;
	}
	memcpy(s->value, v.bytes, v.len + 1);
	return true;
}

static bool brute_from(struct brute *b, const struct brute_state *s);

/* Place a mutation that writes `version`; 0 is one that nobody names. */
static bool
brute_write(struct brute *b, struct brute_state s, uint64_t version)
{
	bool found;

	for (uint32_t i = 0; version != 0 && i < b->n_used; i++) {
		if (b->used[i] == version || (b->ordered && b->used[i] > version))
			return false;
	}
	s.version = version;
	if (version != 0)
		b->used[b->n_used++] = version;
	found = brute_from(b, &s);
	if (version != 0)
		b->n_used--;
	return found;
}

static bool
brute_place(struct brute *b, uint32_t i, const struct brute_state *before)
{
	const struct model_op *o = &b->op[i];
	struct brute_state s = *before;

	if (!brute_step(o, &s))
		return false;
	if (o->kind == CHP_HISTORY_GET || o->outcome == CHP_HISTORY_FAIL)
		return brute_from(b, &s);
	if (o->outcome == CHP_HISTORY_OK && o->version != 0)
		return brute_write(b, s, o->version);
	for (uint32_t v = 0; v < b->n_versions; v++) {
		if (brute_write(b, s, b->version[v]))
			return true;
	}
	return brute_write(b, s, 0);
}

/*
 * Whether the operations that are not placed can follow in some order. Recursive: at most 7 deep.
 */
static bool
brute_from(struct brute *b, const struct brute_state *s)
{
	bool all = true;

	for (uint32_t i = 0; i < b->n; i++)
		all = all && (b->placed[i] || !brute_is_certain(&b->op[i]));
	if (all)
		return true;
	for (uint32_t i = 0; i < b->n; i++) {
		bool can = !b->placed[i] &&
			   (brute_is_certain(&b->op[i]) ||
			    (brute_is_maybe(&b->op[i]) && b->op[i].kind != CHP_HISTORY_GET));
		bool found;

		for (uint32_t k = 0; can && k < b->n; k++)
			can = b->placed[k] || !brute_is_certain(&b->op[k]) ||
			      b->op[k].ret >= b->op[i].inv;
		if (!can)
			continue;
		b->placed[i] = true;
		found = brute_place(b, i, s);
		b->placed[i] = false;
		if (found)
			return true;
	}
	return false;
}

static void
brute_name_version(struct brute *b, uint64_t version)
{
	for (uint32_t i = 0; i < b->n; i++) {
		if (b->op[i].outcome == CHP_HISTORY_OK && b->op[i].kind != CHP_HISTORY_GET &&
		    b->op[i].version == version)
			return;
	}
	for (uint32_t i = 0; i < b->n_versions; i++) {
		if (b->version[i] == version)
			return;
	}
	if (version != 0)
		b->version[b->n_versions++] = version;
}

static int
brute_judge(const struct model_op *op, uint32_t n)
{
	struct brute b = { .op = op, .n = n };
	struct brute_state s = { .exists = false };

	for (uint32_t i = 0; i < n; i++) {
		for (uint32_t k = 0; k < i; k++) {
			if (op[i].outcome == CHP_HISTORY_OK && op[k].outcome == CHP_HISTORY_OK &&
			    op[i].kind != CHP_HISTORY_GET && op[k].kind != CHP_HISTORY_GET &&
			    op[i].version != 0 && op[i].version == op[k].version)
				return CHP_LINEAR_VERSION_TWICE;
		}
		brute_name_version(&b, op[i].version);
		if (op[i].kind == CHP_HISTORY_CAS)
			brute_name_version(&b, op[i].arg);
	}
	b.ordered = true;
	if (brute_from(&b, &s))
		return CHP_LINEAR_NO_FAULT;
	b.ordered = false;
	return brute_from(&b, &s) ? CHP_LINEAR_VERSION_ORDER : CHP_LINEAR_NO_ORDER;
}

/* Change one thing of one operation. */
static void
damage(struct model_op *op, uint32_t n, uint64_t *seed)
{
	struct model_op *o = &op[below(seed, n)];
	struct model_op *other = &op[below(seed, n)];
	uint64_t t;

	switch (below(seed, 10)) {
	case 0:
		if (o->version != 0 && other->version != 0)
			o->version = other->version;
		break;
	case 1:
		t = o->version;
		o->version = other->version;
		other->version = t;
		break;
	case 2:
		o->version = 10 + below(seed, 12);
		break;
	case 3:
		t = o->ret - o->inv;
		o->inv = other->inv + below(seed, 20);
		o->ret = o->inv + t;
		break;
	case 4:
		if (o->kind == CHP_HISTORY_GET && o->outcome == CHP_HISTORY_OK) {
			free(o->seen);
			o->seen = below(seed, 3) == 0 ? NULL : strdup(model_values[below(seed, 5)]);
		}
		break;
	case 5:
		o->number += 1;
		break;
	case 6:
		o->outcome = (enum chp_history_outcome)below(seed, 4);
		break;
	case 7:
		t = o->inv;
		o->inv = other->inv;
		other->inv = t;
		o->ret = o->ret < o->inv ? o->inv + 5 : o->ret;
		other->ret = other->ret < other->inv ? other->inv + 5 : other->ret;
		break;
	case 8:
		o->status = (enum chp_history_status)below(seed, 6);
		break;
	default:
		o->value = model_values[below(seed, 5)];
		break;
	}
}

Test(linear, test_linear_agrees_with_all_permutations_on_small_histories)
{
	const char *rounds_text = getenv("CHP_TEST_ROUNDS");
	uint32_t rounds = rounds_text == NULL ? 40000 : (uint32_t)strtoul(rounds_text, NULL, 10);
	struct model_op op[BRUTE_OPS_MAX];
	uint32_t count[4] = { 0 };
	uint32_t searched = 0;
	struct chp_history h;
	struct chp_linear_report r;

	chp_history_init(&h);
	for (uint32_t round = 0; round < rounds; round++) {
		uint64_t seed = 77 + round;
		struct model_shape shape = {
			.n = 2 + below(&seed, BRUTE_OPS_MAX - 1),
			.span = 1 + below(&seed, 60),
			.gap = 10,
			.unknown = below(&seed, 50),
			.reads = 40,
			.versions = below(&seed, 4) > 0,
			.sparse = below(&seed, 3) == 0,
		};
		uint32_t times = below(&seed, 8);
		int want;
		int got;

		model_choose(&shape, op, &seed);
		model_run(&shape, op, &seed);
		for (uint32_t i = 0; i < times; i++)
			damage(op, shape.n, &seed);
		chp_history_reset(&h);
		for (uint32_t i = 0; i < shape.n; i++)
			model_add(&h, &op[i], "k", i);
		want = brute_judge(op, shape.n);
		got = judge_history(&h, &r);
		if (got != want) {
			chp_history_write(&h, stderr);
			cr_assert_fail("round %" PRIu32 ": expected %d, got %d\n%s", round, want,
				       got, r.text);
		}
		cr_assert(times > 0 || want == CHP_LINEAR_NO_FAULT);
		count[want]++;
		searched += r.keys_by_search > 0;
		model_free(op, shape.n);
	}
	chp_history_fini(&h);
	if (getenv("CHP_TEST_VERBOSE") != NULL)
		fprintf(stderr, "ok %u (searched %u), no order %u, version order %u, twice %u\n",
			count[0], searched, count[1], count[2], count[3]);
	/* All verdicts occur often, so none of them is agreed on by accident. */
	for (uint32_t i = 0; i < 4; i++)
		cr_assert_gt(count[i], rounds / 100);
}

/*
 * Larger ones, too large for permutations: with and without the order by version the verdict is the
 * same.
 */
Test(linear, test_linear_witness_and_search_agree_on_damaged_histories)
{
	struct model_shape shape = {
		.n = 40, .span = 50, .gap = 10, .unknown = 8, .reads = 45, .versions = true
	};
	const struct chp_linear_limits search = { .search_only = true };
	struct model_op *op = calloc(shape.n, sizeof(*op));
	uint32_t count[3] = { 0 };
	struct chp_history h;
	struct chp_linear_report a;
	struct chp_linear_report b;

	chp_history_init(&h);
	for (uint32_t round = 0; round < 600; round++) {
		uint64_t seed = 500000 + round;

		model_choose(&shape, op, &seed);
		model_run(&shape, op, &seed);
		damage(op, shape.n, &seed);
		chp_history_reset(&h);
		for (uint32_t i = 0; i < shape.n; i++)
			model_add(&h, &op[i], "k", i);
		model_free(op, shape.n);
		cr_assert_eq(chp_linear_check(&h, NULL, &a), 0);
		cr_assert_eq(chp_linear_check(&h, &search, &b), 0);
		cr_assert_eq(a.verdict, b.verdict, "round %" PRIu32 "\n%s\n%s", round, a.text,
			     b.text);
		count[a.verdict]++;
	}
	cr_assert_eq(count[CHP_LINEAR_UNDECIDED], 0);
	cr_assert_gt(count[CHP_LINEAR_OK], 100);
	cr_assert_gt(count[CHP_LINEAR_VIOLATION], 100);
	chp_history_fini(&h);
	free(op);
}

Test(linear, test_linear_one_stale_read_in_a_long_history_is_found)
{
	struct model_shape shape = {
		.n = 3000, .span = 200, .gap = 10, .unknown = 1, .reads = 50, .versions = true
	};
	struct model_op *op = calloc(shape.n, sizeof(*op));
	struct chp_history h;
	struct chp_linear_report r;

	chp_history_init(&h);
	for (uint64_t seed = 1; seed <= 5; seed++) {
		uint64_t state = seed;
		uint32_t i = 1500;

		chp_history_reset(&h);
		model_choose(&shape, op, &state);
		model_run(&shape, op, &state);
		while (op[i].kind != CHP_HISTORY_GET || op[i].seen == NULL)
			i++;
		/* What it saw is what another get saw long before. */
		op[i].inv += 20000;
		op[i].ret += 20000;
		for (uint32_t k = 0; k < shape.n; k++)
			model_add(&h, &op[k], "k", k);
		model_free(op, shape.n);
		cr_assert_eq(chp_linear_check(&h, NULL, &r), 0);
		cr_assert_eq(r.fault, CHP_LINEAR_NO_ORDER);
		cr_assert_eq(r.states, 0);
		cr_assert_eq(r.op, i, "seed %" PRIu64 "\n%s", seed, r.text);
	}
	chp_history_fini(&h);
	free(op);
}
