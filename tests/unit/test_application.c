/* SPDX-License-Identifier: BSD-3-Clause */
#include "protocols/application.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_MAX 30u

static uint8_t scratch[CHP_VALUE_BYTES_MAX];

/* One operation on a key with a value and version 77; NULL: on a key that is absent. */
static struct chp_outcome
evaluate(const struct chp_application *a, uint8_t opcode, uint64_t arg, const char *operand, const char *value)
{
	const struct chp_current now = {
		.present = value != NULL,
		.version = value != NULL ? 77 : 0,
		.value = value != NULL && chp_application_needs_value(a, opcode) ? (const uint8_t *)value : NULL,
		.value_len = value != NULL ? (uint32_t)strlen(value) : 0,
	};
	struct chp_outcome out;

	memset(&out, 0xff, sizeof(out));
	memset(scratch, 'x', sizeof(scratch));
	a->evaluate(opcode, arg, (const uint8_t *)operand, operand == NULL ? 0 : (uint32_t)strlen(operand), &now,
		    VALUE_MAX, scratch, &out);
	return out;
}

static void
expect_value(const struct chp_outcome *o, const char *value)
{
	cr_assert_eq(o->status, CHP_STATUS_OK);
	cr_assert_eq(o->remove, false);
	cr_assert_eq(o->value_len, strlen(value));
	cr_assert_arr_eq(o->value, value, o->value_len);
}

static void
expect_status(const struct chp_application *a, uint8_t opcode, uint64_t arg, const char *operand, const char *value,
	      uint8_t status)
{
	const struct chp_outcome o = evaluate(a, opcode, arg, operand, value);

	cr_assert_eq(o.status, status, "%s is %s", chp_opcode_name(opcode), chp_status_name(o.status));
}

Test(application, they_are_found_by_name)
{
	const char *const *names = chp_application_names();
	uint32_t n = 0;

	for (; names[n] != NULL; n++) {
		cr_assert_not_null(chp_application_find(names[n]));
		cr_assert_str_eq(chp_application_find(names[n])->name, names[n]);
	}
	cr_assert_eq(n, 2);
	cr_assert_eq(chp_application_find("store"), &chp_store);
	cr_assert_eq(chp_application_find("sequencer"), &chp_sequencer);
	cr_assert_null(chp_application_find("stor"));
	cr_assert_null(chp_application_find(""));
}

Test(store, a_put_depends_on_nothing)
{
	struct chp_outcome o = evaluate(&chp_store, CHP_OPCODE_PUT, 0, "new", NULL);

	expect_value(&o, "new");
	cr_assert_not(o.is_rmw);
	o = evaluate(&chp_store, CHP_OPCODE_PUT, 0, "new", "old");
	expect_value(&o, "new");
	cr_assert_not(o.is_rmw);
	o = evaluate(&chp_store, CHP_OPCODE_PUT, 0, "", "old");
	expect_value(&o, "");
}

Test(store, conditions)
{
	struct chp_outcome o = evaluate(&chp_store, CHP_OPCODE_ADD, 0, "new", NULL);

	expect_value(&o, "new");
	cr_assert(o.is_rmw);
	expect_status(&chp_store, CHP_OPCODE_ADD, 0, "new", "old", CHP_STATUS_EXISTS);
	o = evaluate(&chp_store, CHP_OPCODE_REPLACE, 0, "new", "old");
	expect_value(&o, "new");
	cr_assert(o.is_rmw);
	expect_status(&chp_store, CHP_OPCODE_REPLACE, 0, "new", NULL, CHP_STATUS_NOT_FOUND);
	o = evaluate(&chp_store, CHP_OPCODE_CAS, 77, "new", "old");
	expect_value(&o, "new");
	cr_assert(o.is_rmw);
	expect_status(&chp_store, CHP_OPCODE_CAS, 76, "new", "old", CHP_STATUS_COMPARE_FAILED);
	expect_status(&chp_store, CHP_OPCODE_CAS, 0, "new", NULL, CHP_STATUS_NOT_FOUND);
}

Test(store, a_delete_removes)
{
	const struct chp_outcome o = evaluate(&chp_store, CHP_OPCODE_DELETE, 0, NULL, "old");

	cr_assert_eq(o.status, CHP_STATUS_OK);
	cr_assert(o.remove && o.is_rmw);
	cr_assert_eq(o.value_len, 0);
	expect_status(&chp_store, CHP_OPCODE_DELETE, 0, NULL, NULL, CHP_STATUS_NOT_FOUND);
}

Test(store, append_and_prepend)
{
	struct chp_outcome o = evaluate(&chp_store, CHP_OPCODE_APPEND, 0, "cd", "ab");

	expect_value(&o, "abcd");
	cr_assert(o.is_rmw);
	o = evaluate(&chp_store, CHP_OPCODE_PREPEND, 0, "cd", "ab");
	expect_value(&o, "cdab");
	o = evaluate(&chp_store, CHP_OPCODE_APPEND, 0, "", "ab");
	expect_value(&o, "ab");
	o = evaluate(&chp_store, CHP_OPCODE_PREPEND, 0, "ab", "");
	expect_value(&o, "ab");
	o = evaluate(&chp_store, CHP_OPCODE_APPEND, 0, "123456789012345", "123456789012345");
	expect_value(&o, "123456789012345123456789012345");
	expect_status(&chp_store, CHP_OPCODE_APPEND, 0, "1234567890123456", "123456789012345", CHP_STATUS_TOO_LARGE);
	expect_status(&chp_store, CHP_OPCODE_PREPEND, 0, "1", NULL, CHP_STATUS_NOT_FOUND);
}

Test(store, numbers)
{
	struct chp_outcome o = evaluate(&chp_store, CHP_OPCODE_INCR, 5, NULL, "37");

	expect_value(&o, "42");
	cr_assert_eq(o.number, 42);
	cr_assert(o.is_rmw);
	o = evaluate(&chp_store, CHP_OPCODE_INCR, 1, NULL, "18446744073709551615");
	expect_value(&o, "0"); /* wraps */
	o = evaluate(&chp_store, CHP_OPCODE_DECR, 5, NULL, "37");
	expect_value(&o, "32");
	o = evaluate(&chp_store, CHP_OPCODE_DECR, 38, NULL, "37");
	expect_value(&o, "0"); /* stops */
	cr_assert_eq(o.number, 0);
	o = evaluate(&chp_store, CHP_OPCODE_INCR, 0, NULL, "007");
	expect_value(&o, "7");
	for (uint32_t i = 0; i < 2; i++) {
		const uint8_t opcode = i == 0 ? CHP_OPCODE_INCR : CHP_OPCODE_DECR;

		expect_status(&chp_store, opcode, 1, NULL, NULL, CHP_STATUS_NOT_FOUND);
		expect_status(&chp_store, opcode, 1, NULL, "", CHP_STATUS_NOT_NUMBER);
		expect_status(&chp_store, opcode, 1, NULL, "-1", CHP_STATUS_NOT_NUMBER);
		expect_status(&chp_store, opcode, 1, NULL, "1 ", CHP_STATUS_NOT_NUMBER);
		expect_status(&chp_store, opcode, 1, NULL, "18446744073709551616", CHP_STATUS_NOT_NUMBER);
		expect_status(&chp_store, opcode, 1, NULL, "000000000000000000001", CHP_STATUS_NOT_NUMBER);
	}
}

Test(store, a_number_that_does_not_fit_is_too_large)
{
	const struct chp_current now = { .present = true, .value = (const uint8_t *)"9", .value_len = 1 };
	struct chp_outcome o;

	chp_store.evaluate(CHP_OPCODE_INCR, 1, NULL, 0, &now, 1, scratch, &o);
	cr_assert_eq(o.status, CHP_STATUS_TOO_LARGE);
	chp_store.evaluate(CHP_OPCODE_INCR, 1, NULL, 0, &now, 2, scratch, &o);
	cr_assert_eq(o.status, CHP_STATUS_OK);
}

Test(store, what_it_does_not_have)
{
	for (uint8_t opcode = CHP_OPCODE_SESSION_OPEN; opcode != 0; opcode++)
		cr_assert_eq(evaluate(&chp_store, opcode, 0, NULL, "1").status, CHP_STATUS_UNKNOWN_OP);
}

Test(sequencer, numbers_are_handed_out_once)
{
	char value[CHP_VALUE_BYTES_MAX] = "";
	uint64_t next = 0;

	for (uint64_t n = 0; n < 40; n++) {
		const struct chp_outcome o =
			evaluate(&chp_sequencer, CHP_OPCODE_INCR, n * n, NULL, next == 0 ? NULL : value);

		cr_assert_eq(o.status, CHP_STATUS_OK);
		cr_assert(o.is_rmw && !o.remove);
		cr_assert_eq(o.number, next, "the first of them");
		next += n * n;
		memcpy(value, o.value, o.value_len);
		value[o.value_len] = '\0';
		cr_assert_eq(strtoull(value, NULL, 10), next, "the next one");
	}
}

Test(sequencer, a_sequence_ends_and_does_not_begin_again)
{
	struct chp_outcome o = evaluate(&chp_sequencer, CHP_OPCODE_INCR, 5, NULL, "18446744073709551610");

	expect_value(&o, "18446744073709551615");
	cr_assert_eq(o.number, UINT64_MAX - 5);
	expect_status(&chp_sequencer, CHP_OPCODE_INCR, 1, NULL, "18446744073709551615", CHP_STATUS_TOO_LARGE);
	expect_status(&chp_sequencer, CHP_OPCODE_INCR, 1, NULL, "ten", CHP_STATUS_NOT_NUMBER);
	o = evaluate(&chp_sequencer, CHP_OPCODE_DELETE, 0, NULL, "5");
	cr_assert(o.status == CHP_STATUS_OK && o.remove);
	expect_status(&chp_sequencer, CHP_OPCODE_DELETE, 0, NULL, NULL, CHP_STATUS_NOT_FOUND);
}

Test(sequencer, it_is_no_store)
{
	for (uint8_t opcode = CHP_OPCODE_PUT; opcode != 0; opcode++)
		if (opcode != CHP_OPCODE_INCR && opcode != CHP_OPCODE_DELETE)
			cr_assert_eq(evaluate(&chp_sequencer, opcode, 77, "1", "1").status, CHP_STATUS_UNKNOWN_OP);
}
