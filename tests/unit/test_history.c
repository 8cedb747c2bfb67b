/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The history in memory, its reader and its writer. jansson serves as a second opinion on what JSON
 * is.
 */
#include "history/history.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define HEAD "{\"t\":5,\"client\":1,\"req\":7,"
#define PUT HEAD "\"type\":\"invoke\",\"op\":\"put\",\"key\":\"k\",\"value\":\"v\"}\n"
#define GET HEAD "\"type\":\"invoke\",\"op\":\"get\",\"key\":\"k\"}\n"
#define OK "{\"t\":9,\"client\":1,\"req\":7,\"type\":\"ok\"}\n"

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

/* --- in memory -------------------------------------------------------------------------------- */

Test(history, test_history_fini_accepts_zeroed)
{
	struct chp_history h = { 0 };

	chp_history_fini(&h);
	chp_history_fini(NULL);
	chp_history_reset(&h);
	cr_assert_eq(h.n_ops, 0);
}

Test(history, test_history_operations_of_a_key_are_linked)
{
	const char *keys[] = { "a", "b", "a", "", "a", "b" };
	struct chp_history_call c = { .kind = CHP_HISTORY_GET };
	struct chp_history h;
	uint32_t op;

	chp_history_init(&h);
	for (uint32_t i = 0; i < 6; i++) {
		c.key = keys[i];
		c.key_len = (uint32_t)strlen(keys[i]);
		cr_assert_eq(chp_history_invoke(&h, &c), i);
	}
	cr_assert_eq(h.n_keys, 3);
	cr_assert_eq(h.key[0].n_ops, 3);
	op = h.key[0].first;
	cr_assert_eq(op, 0);
	op = h.op[op].next;
	cr_assert_eq(op, 2);
	op = h.op[op].next;
	cr_assert_eq(op, 4);
	cr_assert_eq(h.op[op].next, CHP_HISTORY_NONE);
	cr_assert_eq(h.key[2].len, 0);
	cr_assert_eq(h.op[3].complete_ns, CHP_HISTORY_NEVER);
	cr_assert_eq(h.op[3].outcome, CHP_HISTORY_OPEN);
	chp_history_fini(&h);
}

Test(history, test_history_many_keys_are_told_apart)
{
	struct chp_history_call c = { .kind = CHP_HISTORY_PUT };
	struct chp_history h;
	char key[32];

	chp_history_init(&h);
	for (uint32_t round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < 20000; i++) {
			c.key = c.value = key;
			c.key_len = c.value_len =
				(uint32_t)snprintf(key, sizeof(key), "key-%" PRIu32, i);
			cr_assert_eq(chp_history_invoke(&h, &c), round * 20000 + i);
		}
	}
	cr_assert_eq(h.n_keys, 20000);
	for (uint32_t i = 0; i < h.n_ops; i++) {
		snprintf(key, sizeof(key), "key-%" PRIu32, i % 20000);
		cr_assert_eq(h.op[i].key, i % 20000);
		cr_assert_eq(h.op[i].value_len, strlen(key));
		cr_assert_eq(memcmp(h.op[i].value, key, strlen(key)), 0);
		cr_assert_eq(memcmp(h.key[h.op[i].key].bytes, key, strlen(key)), 0);
	}
	chp_history_fini(&h);
}

Test(history, test_history_reset_forgets_and_can_be_used_again)
{
	static char large[600000];
	struct chp_history_call c = {
		.kind = CHP_HISTORY_PUT, .key = "k", .key_len = 1, .value = ""
	};
	struct chp_history h;

	chp_history_init(&h);
	for (uint32_t round = 0; round < 5; round++) {
		chp_history_reset(&h);
		cr_assert_eq(h.n_ops, 0);
		cr_assert_eq(h.n_keys, 0);
		for (uint32_t i = 0; i < 200; i++) {
			large[0] = (char)i;
			c.value = large;
			c.value_len = i % 50 == 0 ? sizeof(large) : 5000;
			cr_assert_eq(chp_history_invoke(&h, &c), i);
		}
		for (uint32_t i = 0; i < 200; i++) {
			cr_assert_eq(h.op[i].value[0], i);
			cr_assert_eq(h.op[i].value[4999], 0);
		}
		cr_assert_eq(h.n_keys, 1);
	}
	chp_history_fini(&h);
}

Test(history, test_history_invoke_refuses_what_makes_no_sense)
{
	struct chp_history_call c = { .kind = CHP_HISTORY_PUT, .key = "k", .key_len = 1 };
	struct chp_history h;

	chp_history_init(&h);
	cr_assert_eq(chp_history_invoke(&h, &c), -EINVAL);
	c.value = "";
	cr_assert_eq(chp_history_invoke(&h, &c), 0);
	c.kind = CHP_HISTORY_INCR;
	cr_assert_eq(chp_history_invoke(&h, &c), -EINVAL);
	c.value = NULL;
	c.kind = (enum chp_history_kind)CHP_HISTORY_N_KINDS;
	cr_assert_eq(chp_history_invoke(&h, &c), -EINVAL);
	c.kind = CHP_HISTORY_GET;
	c.key = NULL;
	cr_assert_eq(chp_history_invoke(&h, &c), -EINVAL);
	c.key_len = 0;
	cr_assert_eq(chp_history_invoke(&h, &c), 1);
	cr_assert_eq(h.n_ops, 2);
	chp_history_fini(&h);
}

Test(history, test_history_complete_refuses_what_makes_no_sense)
{
	struct chp_history_call c = { .kind = CHP_HISTORY_GET, .t_ns = 10 };
	struct chp_history_result r = { .outcome = CHP_HISTORY_OK,
					.t_ns = 10,
					.node = CHP_HISTORY_NONE };
	struct chp_history h;

	chp_history_init(&h);
	c.node = 3;
	cr_assert_eq(chp_history_complete(&h, 0, &r), -EINVAL);
	cr_assert_eq(chp_history_invoke(&h, &c), 0);
	r.outcome = CHP_HISTORY_OPEN;
	cr_assert_eq(chp_history_complete(&h, 0, &r), -EINVAL);
	r.outcome = CHP_HISTORY_UNKNOWN;
	r.value = "v";
	cr_assert_eq(chp_history_complete(&h, 0, &r), -EINVAL);
	r.outcome = CHP_HISTORY_OK;
	r.t_ns = 9;
	cr_assert_eq(chp_history_complete(&h, 0, &r), -EINVAL);
	r.t_ns = 10;
	r.value_len = 1;
	cr_assert_eq(chp_history_complete(&h, 0, &r), 0);
	cr_assert_eq(h.op[0].node, 3);
	cr_assert_eq(chp_history_complete(&h, 0, &r), -EALREADY);
	c.kind = CHP_HISTORY_PUT;
	c.value = "v";
	cr_assert_eq(chp_history_invoke(&h, &c), 1);
	cr_assert_eq(chp_history_complete(&h, 1, &r), -EINVAL);
	chp_history_fini(&h);
}

Test(history, test_history_utf8_follows_the_standard)
{
	static const char *const good[] = { "",
					    "a",
					    "\x7f",
					    "\xc2\x80",
					    "\xe0\xa0\x80",
					    "\xed\x9f\xbf",
					    "\xee\x80\x80",
					    "\xf0\x90\x80\x80",
					    "\xf4\x8f\xbf\xbf",
					    "a\xc3\xa4z" };
	static const char *const bad[] = { "\x80",
					   "\xc1\x80",
					   "\xc2",
					   "\xc2z",
					   "\xe0\x9f\xbf",
					   "\xed\xa0\x80",
					   "\xf0\x8f\xbf\xbf",
					   "\xf4\x90\x80\x80",
					   "\xf5\x80\x80\x80",
					   "\xff",
					   "\xe2\x82",
					   "a\xfe" };

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		cr_assert(chp_history_is_utf8(good[i], strlen(good[i])), "good %zu", i);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert_not(chp_history_is_utf8(bad[i], strlen(bad[i])), "bad %zu", i);
}

Test(history, test_history_names_cover_all_values)
{
	cr_assert_str_eq(chp_history_kind_name(CHP_HISTORY_PREPEND), "prepend");
	cr_assert_str_eq(chp_history_kind_name(CHP_HISTORY_N_KINDS), "?");
	cr_assert_str_eq(chp_history_outcome_name(CHP_HISTORY_UNKNOWN), "unknown");
	cr_assert_str_eq(chp_history_outcome_name(4), "?");
	cr_assert_str_eq(chp_history_status_name(CHP_HISTORY_NOT_NUMBER), "not_number");
	cr_assert_str_eq(chp_history_status_name(6), "?");
}

/* --- reader ----------------------------------------------------------------------------------- */

static int
parse(struct chp_history *h, const char *text, struct chp_history_error *err)
{
	/* A copy without a zero behind it, so that a sanitiser sees reads past the end. */
	size_t len = strlen(text);
	char *copy = malloc(len + 1);
	int rc;

	memcpy(copy, text, len);
	copy = realloc(copy, len == 0 ? 1 : len);
	chp_history_init(h);
	rc = chp_history_parse(h, copy, len, err);
	free(copy);
	return rc;
}

static void
accept(struct chp_history *h, const char *text)
{
	struct chp_history_error err;

	cr_assert_eq(parse(h, text, &err), 0, "%s", err.text);
	cr_assert_eq(err.line, 0);
	cr_assert_str_eq(err.text, "");
}

static void
refuse(const char *text, uint64_t line, const char *part)
{
	struct chp_history_error err;
	struct chp_history h;
	char where[32];

	snprintf(where, sizeof(where), "line %" PRIu64 ": ", line);
	cr_assert_eq(parse(&h, text, &err), -EINVAL, "%s", text);
	cr_assert_eq(err.line, line, "%s", err.text);
	cr_assert_eq(strncmp(err.text, where, strlen(where)), 0, "%s", err.text);
	cr_assert_not_null(strstr(err.text, part), "%s: %s", text, err.text);
	cr_assert_not_null(strstr(err.text, "expected"), "%s", err.text);
	chp_history_fini(&h);
	/* The caller may not want to know why. */
	cr_assert_eq(parse(&h, text, NULL), -EINVAL);
	chp_history_fini(&h);
}

Test(history, test_history_parse_pairs_events)
{
	struct chp_history h;

	accept(&h,
	       "{\"t\":5,\"client\":1,\"req\":7,\"type\":\"invoke\",\"op\":\"put\",\"key\":\"k\",\"value\":\"v\","
	       "\"node\":2}\n"
	       "{\"t\":6,\"client\":2,\"req\":7,\"type\":\"invoke\",\"op\":\"get\",\"key\":\"k\"}\n"
	       "{\"t\":9,\"client\":1,\"req\":7,\"type\":\"ok\",\"op\":\"put\",\"key\":\"k\",\"value\":\"v\","
	       "\"version\":65536,\"node\":1}\n"
	       "{\"t\":10,\"client\":2,\"req\":7,\"type\":\"ok\",\"value\":\"w\",\"version\":65537}\n");
	cr_assert_eq(h.n_ops, 2);
	cr_assert_eq(h.n_keys, 1);
	cr_assert_eq(h.op[0].invoke_ns, 5);
	cr_assert_eq(h.op[0].complete_ns, 9);
	cr_assert_eq(h.op[0].client, 1);
	cr_assert_eq(h.op[0].req, 7);
	cr_assert_eq(h.op[0].kind, CHP_HISTORY_PUT);
	cr_assert_eq(h.op[0].outcome, CHP_HISTORY_OK);
	cr_assert_eq(h.op[0].version, 65536);
	cr_assert_eq(h.op[0].node, 1);
	cr_assert_eq(h.op[0].value[0], 'v');
	cr_assert_eq(h.op[1].node, CHP_HISTORY_NONE);
	cr_assert_eq(h.op[1].value[0], 'w');
	cr_assert_eq(h.op[1].value_len, 1);
	cr_assert_eq(h.op[1].version, 65537);
	chp_history_fini(&h);
}

Test(history, test_history_parse_knows_all_kinds_and_outcomes)
{
	static const char *const extra[CHP_HISTORY_N_KINDS] = {
		"",
		",\"value\":\"v\"",
		"",
		",\"value\":\"v\",\"expect\":3",
		",\"value\":\"v\"",
		",\"value\":\"v\"",
		",\"value\":\"v\"",
		",\"value\":\"v\"",
		",\"delta\":3",
		",\"delta\":3",
	};
	static const char *const done[] = { "", "ok\",\"value\":null", "fail\"", "unknown\"" };
	char text[512];
	struct chp_history h;

	for (uint32_t k = 0; k < CHP_HISTORY_N_KINDS; k++) {
		for (uint32_t o = CHP_HISTORY_OK; o <= CHP_HISTORY_UNKNOWN; o++) {
			snprintf(text, sizeof(text),
				 HEAD "\"type\":\"invoke\",\"op\":\"%s\",\"key\":\"k\"%s}\n" HEAD
				      "\"type\":\"%s}",
				 chp_history_kind_name(k), extra[k], done[o]);
			accept(&h, text);
			cr_assert_eq(h.n_ops, 1);
			cr_assert_eq(h.op[0].kind, k);
			cr_assert_eq(h.op[0].outcome, o);
			cr_assert_eq(h.op[0].arg, strlen(extra[k]) > 11 && strchr(extra[k], '3') ? 3
						  : k >= CHP_HISTORY_INCR                        ? 3
									  : 0);
			chp_history_fini(&h);
		}
	}
}

Test(history, test_history_parse_knows_statuses_and_numbers)
{
	static const struct {
		const char *word;
		enum chp_history_status status;
	} row[] = {
		{ "not_found", CHP_HISTORY_NOT_FOUND },
		{ "exists", CHP_HISTORY_EXISTS },
		{ "compare_failed", CHP_HISTORY_COMPARE_FAILED },
		{ "not_number", CHP_HISTORY_NOT_NUMBER },
		{ "busy", CHP_HISTORY_STATUS_OTHER },
		{ "none", CHP_HISTORY_STATUS_OTHER },
	};
	char text[512];
	struct chp_history h;

	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		snprintf(text, sizeof(text),
			 GET HEAD "\"type\":\"fail\",\"status\":\"%s\",\"version\":4}",
			 row[i].word);
		accept(&h, text);
		cr_assert_eq(h.op[0].status, row[i].status);
		cr_assert_eq(h.op[0].version, 4);
		chp_history_fini(&h);
	}
	accept(&h, HEAD
	       "\"type\":\"invoke\",\"op\":\"incr\",\"key\":\"k\",\"delta\":18446744073709551615}\n" HEAD
	       "\"type\":\"ok\",\"number\":\"18446744073709551614\",\"version\":\"9223372036854775808\"}");
	cr_assert_eq(h.op[0].arg, UINT64_MAX);
	cr_assert(h.op[0].has_number);
	cr_assert_eq(h.op[0].number, UINT64_MAX - 1);
	cr_assert_eq(h.op[0].version, UINT64_C(1) << 63);
	chp_history_fini(&h);
}

Test(history, test_history_parse_missing_completion_stays_open)
{
	struct chp_history h;

	accept(&h, PUT);
	cr_assert_eq(h.op[0].outcome, CHP_HISTORY_OPEN);
	cr_assert_eq(h.op[0].complete_ns, CHP_HISTORY_NEVER);
	chp_history_fini(&h);
	/* Values in an unknown or failed get say nothing; null is what a recorder would write. */
	accept(&h, GET "{\"t\":9,\"client\":1,\"req\":7,\"type\":\"unknown\",\"value\":null}");
	cr_assert_eq(h.op[0].outcome, CHP_HISTORY_UNKNOWN);
	cr_assert_null(h.op[0].value);
	chp_history_fini(&h);
}

Test(history, test_history_parse_takes_blanks_and_space)
{
	struct chp_history h;

	accept(&h, "");
	cr_assert_eq(h.n_ops, 0);
	chp_history_fini(&h);
	accept(&h, "\n \t\r\n" PUT "\r\n\n" OK "\n   ");
	cr_assert_eq(h.n_ops, 1);
	cr_assert_eq(h.op[0].outcome, CHP_HISTORY_OK);
	chp_history_fini(&h);
	accept(&h,
	       " { \"t\" : 5 , \"client\" :1,\"req\": 7 ,\"type\":\"invoke\", \"op\":\"get\",\"key\":\"k\" } \r\n" HEAD
	       "\"type\":\"ok\" , \"value\" : null }");
	cr_assert_eq(h.op[0].outcome, CHP_HISTORY_OK);
	chp_history_fini(&h);
}

Test(history, test_history_parse_decodes_strings)
{
	struct chp_history h;

	accept(&h, HEAD "\"type\":\"invoke\",\"op\":\"put\",\"key\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\","
			"\"value\":\"a\\u0000b\\u00e4\\u20AC\\ud83d\\ude00\xc3\xa4\"}");
	cr_assert_eq(h.key[0].len, 8);
	cr_assert_eq(memcmp(h.key[0].bytes, "\"\\/\b\f\n\r\t", 8), 0);
	cr_assert_eq(h.op[0].value_len, 14);
	cr_assert_eq(memcmp(h.op[0].value, "a\0b\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\xc3\xa4", 14),
		     0);
	chp_history_fini(&h);
	/* Both as base64, with escapes in it, which takes the most room. */
	accept(&h, HEAD
	       "\"type\":\"invoke\",\"op\":\"put\",\"key64\":\"/w\\u003d=\",\"value64\":\"\\u0041P7\\/\"}");
	cr_assert_eq(h.key[0].len, 1);
	cr_assert_eq(h.key[0].bytes[0], 0xff);
	cr_assert_eq(h.op[0].value_len, 3);
	cr_assert_eq(memcmp(h.op[0].value, "\0\xfe\xff", 3), 0);
	chp_history_fini(&h);
	accept(&h, HEAD "\"type\":\"invoke\",\"op\":\"put\",\"key64\":\"\",\"value64\":\"\"}");
	cr_assert_eq(h.op[0].value_len, 0);
	cr_assert_not_null(h.op[0].value);
	chp_history_fini(&h);
}

Test(history, test_history_parse_skips_other_fields)
{
	struct chp_history h;

	accept(&h,
	       "{\"x\":-1.5e+3,\"y\":\"\\n\",\"z\":true,\"u\":false,\"v\":null,\"w\":0,\"x\":1E2,\"t\":5,\"client\":1,"
	       "\"req\":7,\"type\":\"invoke\",\"op\":\"get\",\"key\":\"k\"}");
	cr_assert_eq(h.n_ops, 1);
	chp_history_fini(&h);
	refuse("{\"x\":[1]}", 1, "field \"x\": expected a string, a number, true, false or null");
	refuse("{\"x\":{}}", 1, "field \"x\"");
	refuse("{\"x\":01}", 1, "expected , or }");
	refuse("{\"x\":1.}", 1, "field \"x\"");
	refuse("{\"x\":-}", 1, "field \"x\"");
	refuse("{\"x\":1e}", 1, "field \"x\"");
	refuse("{\"x\":tru}", 1, "field \"x\"");
	refuse("{\"a\\u0001name-that-is-very-long\":[]}", 1, "field \"a?name-that-is-v\"");
}

Test(history, test_history_parse_names_the_line_and_what_was_expected)
{
	refuse("x", 1, "expected {");
	refuse("\n\n[1]\n", 3, "expected {");
	refuse("{", 1, "expected a string");
	refuse("{}", 1, "expected field \"t\"");
	refuse("{\"t\"", 1, "field \"t\": expected :");
	refuse("{\"t\":", 1, "field \"t\": expected an unsigned integer below 2^64");
	refuse("{\"t\":-1}", 1, "field \"t\"");
	refuse("{\"t\":1.0}", 1, "field \"t\"");
	refuse("{\"t\":1e3}", 1, "field \"t\"");
	refuse("{\"t\":01}", 1, "field \"t\"");
	refuse("{\"t\":\"\"}", 1, "field \"t\"");
	refuse("{\"t\":\"1}", 1, "field \"t\"");
	refuse("{\"t\":18446744073709551616}", 1, "field \"t\"");
	refuse("{\"t\":null}", 1, "field \"t\"");
	refuse("{\"t\":1,\"t\":1}", 1, "field \"t\": expected once");
	refuse("{\"t\":1 \"client\":1}", 1, "expected , or }");
	refuse("{\"t\":1,}", 1, "expected a string");
	refuse("{\"t\":1} x", 1, "expected nothing after the event");
	refuse("{\"t\":1}{}", 1, "expected nothing after the event");
	refuse("{\"t\":1}", 1, "expected field \"client\"");
	refuse("{\"t\":1,\"client\":1}", 1, "expected field \"req\"");
	refuse("{\"t\":1,\"client\":1,\"req\":1}", 1, "expected field \"type\"");
	refuse(HEAD "\"type\":\"open\"}", 1,
	       "field \"type\": expected invoke, ok, fail or unknown");
	refuse(HEAD "\"type\":\"invoke\"}", 1, "expected field \"op\"");
	refuse(HEAD "\"type\":\"invoke\",\"op\":\"set\"}", 1, "field \"op\": expected get, put");
	refuse(HEAD "\"type\":\"invoke\",\"op\":\"get\"}", 1, "expected field \"key\"");
	refuse(HEAD "\"type\":\"invoke\",\"op\":\"get\",\"key\":\"k\",\"key64\":\"\"}", 1,
	       "only one of key");
	refuse(HEAD "\"type\":\"invoke\",\"op\":\"put\",\"key\":\"k\"}", 1,
	       "field \"value\" or \"value64\"");
	refuse(HEAD "\"type\":\"invoke\",\"op\":\"put\",\"key\":\"k\",\"value\":null}", 1,
	       "field \"value\"");
	refuse(HEAD "\"type\":\"invoke\",\"op\":\"put\",\"key\":\"k\",\"value\":1}", 1,
	       "field \"value\"");
	refuse(HEAD "\"type\":\"invoke\",\"op\":\"get\",\"key\":\"k\",\"value\":\"v\"}", 1,
	       "no value");
	refuse(HEAD "\"type\":\"invoke\",\"op\":\"cas\",\"key\":\"k\",\"value\":\"v\"}", 1,
	       "field \"expect\"");
	refuse(HEAD "\"type\":\"invoke\",\"op\":\"incr\",\"key\":\"k\"}", 1, "field \"delta\"");
	refuse(HEAD "\"type\":\"invoke\",\"op\":\"get\",\"key\":\"k\",\"delta\":1}", 1,
	       "field \"delta\"");
	refuse(HEAD "\"type\":\"invoke\",\"op\":\"get\",\"key\":\"k\",\"expect\":1}", 1,
	       "field \"expect\"");
	refuse(HEAD "\"type\":\"invoke\",\"op\":\"get\",\"key\":\"k\",\"node\":4294967295}", 1,
	       "field \"node\"");
	refuse(HEAD "\"type\":\"ok\",\"value\":\"v\",\"value64\":\"\"}", 1, "only one of value");
}

Test(history, test_history_parse_refuses_bad_strings)
{
	refuse("{\"t", 1, "expected \" at the end of a string");
	refuse("{\"t\\", 1, "expected an escape");
	refuse("{\"t\\x\":1}", 1, "after a backslash");
	refuse("{\"t\\u12g4\":1}", 1, "four hex digits");
	refuse("{\"t\\u12", 1, "four hex digits");
	refuse("{\"t\\ud800\":1}", 1, "surrogates");
	refuse("{\"t\\udc00\":1}", 1, "surrogates");
	refuse("{\"t\\ud800\\u0041\":1}", 1, "surrogates");
	refuse("{\"t\x01\":1}", 1, "UTF-8 without control characters");
	refuse("{\"t\\n\x01\":1}", 1, "UTF-8 without control characters");
	refuse("{\"t\xff\":1}", 1, "UTF-8");
	refuse("{\"t\\n\xc3\":1}", 1, "UTF-8");
	refuse("{\"key64\":\"YQ\"}", 1, "field \"key64\": expected base64");
	refuse("{\"key64\":\"YQ=\"}", 1, "expected base64");
	refuse("{\"key64\":\"Y===\"}", 1, "expected base64");
	refuse("{\"key64\":\"YR==\"}", 1, "unused bits");
	refuse("{\"key64\":\"YWJ=\"}", 1, "unused bits");
	refuse("{\"key64\":\"Y Q=\"}", 1, "expected base64");
	refuse("{\"key64\":\"YQ==YQ==\"}", 1, "expected base64");
	refuse("{\"value64\":null}", 1, "field \"value64\": expected a string");
}

Test(history, test_history_parse_refuses_unpaired_events)
{
	refuse(PUT PUT, 2, "expected a new request, client 1 has invoked 7");
	refuse(PUT OK PUT, 3, "expected a new request");
	refuse(OK, 1, "client 1 has not invoked 7");
	refuse(PUT "{\"t\":9,\"client\":2,\"req\":7,\"type\":\"ok\"}", 2,
	       "client 2 has not invoked 7");
	refuse(PUT OK OK, 3, "expected one completion");
	refuse(PUT "\n{\"t\":4,\"client\":1,\"req\":7,\"type\":\"ok\"}", 3,
	       "field \"t\": expected at least 5");
	refuse(PUT HEAD "\"type\":\"ok\",\"op\":\"get\"}", 2,
	       "field \"op\": expected put as in the invocation");
	refuse(PUT HEAD "\"type\":\"ok\",\"key\":\"l\"}", 2,
	       "field \"key\": expected the key of the invocation");
	refuse(PUT HEAD "\"type\":\"ok\",\"value\":\"w\"}", 2,
	       "field \"value\": expected that of the invocation");
	refuse(GET HEAD "\"type\":\"ok\"}", 2, "in an ok get, null if it found nothing");
	refuse(GET HEAD "\"type\":\"fail\",\"value\":\"v\"}", 2, "field \"value\"");
}

Test(history, test_history_parse_keeps_what_stands_before_an_error)
{
	struct chp_history h;
	struct chp_history_error err;

	cr_assert_eq(parse(&h, PUT OK "x", &err), -EINVAL);
	cr_assert_eq(err.line, 3);
	cr_assert_eq(h.n_ops, 1);
	cr_assert_eq(h.op[0].outcome, CHP_HISTORY_OK);
	/* And parsing again starts from nothing. */
	cr_assert_eq(chp_history_parse(&h, GET, strlen(GET), &err), 0);
	cr_assert_eq(h.n_ops, 1);
	cr_assert_eq(h.op[0].kind, CHP_HISTORY_GET);
	chp_history_fini(&h);
}

Test(history, test_history_parse_finds_requests_among_many)
{
	struct chp_history h;
	struct chp_history_error err;
	size_t len = 0;
	char *text = NULL;
	FILE *f = open_memstream(&text, &len);

	for (uint32_t i = 0; i < 5000; i++)
		fprintf(f,
			"{\"t\":1,\"client\":%u,\"req\":%u,\"type\":\"invoke\",\"op\":\"get\",\"key\":\"k%u\"}\n",
			i % 70, i / 70, i % 11);
	for (uint32_t i = 5000; i-- > 0;)
		fprintf(f,
			"{\"t\":%u,\"client\":%u,\"req\":%u,\"type\":\"ok\",\"value\":null,\"key\":\"k%u\"}\n",
			i + 1, i % 70, i / 70, i % 11);
	fclose(f);
	chp_history_init(&h);
	cr_assert_eq(chp_history_parse(&h, text, len, &err), 0, "%s", err.text);
	cr_assert_eq(h.n_ops, 5000);
	cr_assert_eq(h.n_keys, 11);
	for (uint32_t i = 0; i < 5000; i++)
		cr_assert_eq(h.op[i].complete_ns, i + 1);
	chp_history_fini(&h);
	free(text);
}

/* --- streams ---------------------------------------------------------------------------------- */

static int
read_text(struct chp_history *h, char *text, size_t len, struct chp_history_error *err)
{
	FILE *f = fmemopen(text, len, "r");
	int rc;

	chp_history_init(h);
	rc = chp_history_read(h, f, err);
	fclose(f);
	return rc;
}

/* A put whose value has n bytes. */
static char *
long_line(size_t n, size_t *len)
{
	static const char head[] = HEAD
		"\"type\":\"invoke\",\"op\":\"put\",\"key\":\"k\",\"value\":\"";
	char *text = malloc(n + 200);

	memcpy(text, head, sizeof(head) - 1);
	memset(text + sizeof(head) - 1, 'x', n);
	memcpy(text + sizeof(head) - 1 + n, "\"}\n" OK, strlen("\"}\n" OK));
	*len = sizeof(head) - 1 + n + strlen("\"}\n" OK);
	return text;
}

Test(history, test_history_read_takes_lines_of_any_length_up_to_the_limit)
{
	static const size_t sizes[] = { 0,      1,       4000,
					262000, 262144,  300000,
					600000, 3000000, CHP_HISTORY_LINE_BYTES_MAX - 76 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct chp_history h;
		struct chp_history_error err;
		size_t len;
		char *text = long_line(sizes[i], &len);

		cr_assert_eq(read_text(&h, text, len, &err), 0, "%zu: %s", sizes[i], err.text);
		cr_assert_eq(h.n_ops, 1);
		cr_assert_eq(h.op[0].value_len, sizes[i]);
		cr_assert_eq(h.op[0].outcome, CHP_HISTORY_OK);
		chp_history_fini(&h);
		free(text);
	}
}

Test(history, test_history_read_and_parse_refuse_longer_lines)
{
	struct chp_history h;
	struct chp_history_error err;
	size_t len;
	char *text = long_line(CHP_HISTORY_LINE_BYTES_MAX, &len);

	cr_assert_eq(read_text(&h, text, len, &err), -EINVAL);
	cr_assert_str_eq(err.text, "line 1: expected at most 4194304 bytes");
	chp_history_fini(&h);
	cr_assert_eq(chp_history_parse(&h, text, len, &err), -EINVAL);
	cr_assert_str_eq(err.text, "line 1: expected at most 4194304 bytes");
	chp_history_fini(&h);
	free(text);
	/* Without a line feed at all the reader stops long before the end. */
	len = 4 * (size_t)CHP_HISTORY_LINE_BYTES_MAX;
	text = malloc(len);
	memset(text, ' ', len);
	cr_assert_eq(read_text(&h, text, len, &err), -EINVAL);
	cr_assert_eq(err.line, 1);
	chp_history_fini(&h);
	free(text);
}

Test(history, test_history_read_reports_a_stream_that_fails)
{
	FILE *f = fopen("/", "r");
	struct chp_history h;
	struct chp_history_error err;

	cr_assert_not_null(f);
	chp_history_init(&h);
	cr_assert_eq(chp_history_read(&h, f, &err), -EIO);
	fclose(f);
	chp_history_fini(&h);
}

Test(history, test_history_write_reports_a_stream_that_fails)
{
	struct chp_history_call c = { .kind = CHP_HISTORY_GET, .key = "k", .key_len = 1 };
	struct chp_history h;
	FILE *f = fopen("/dev/full", "w");

	cr_assert_not_null(f);
	setvbuf(f, NULL, _IONBF, 0);
	cr_assert_eq(chp_history_write_call(f, &c), -EIO);
	chp_history_init(&h);
	cr_assert_eq(chp_history_write(&h, f), 0);
	cr_assert_eq(chp_history_invoke(&h, &c), 0);
	cr_assert_eq(chp_history_write(&h, f), -EIO);
	chp_history_fini(&h);
	fclose(f);
}

/* --- writer ----------------------------------------------------------------------------------- */

Test(history, test_history_format_writes_the_documented_form)
{
	struct chp_history_call c = { .t_ns = 5,
				      .client = 1,
				      .req = 7,
				      .kind = CHP_HISTORY_CAS,
				      .node = 2,
				      .key = "k\n\"",
				      .key_len = 3,
				      .value = "\\\x7f\x01",
				      .value_len = 3,
				      .arg = 9 };
	struct chp_history_result r = { .t_ns = 9,
					.outcome = CHP_HISTORY_FAIL,
					.status = CHP_HISTORY_COMPARE_FAILED,
					.node = CHP_HISTORY_NONE,
					.version = 65536 };
	char text[512];
	size_t len = chp_history_format_call(&c, text, sizeof(text));

	cr_assert_str_eq(text, HEAD "\"type\":\"invoke\",\"op\":\"cas\",\"key\":\"k\\u000a\\\"\","
				    "\"value\":\"\\\\\x7f\\u0001\",\"expect\":9,\"node\":2}\n");
	cr_assert_eq(len, strlen(text));
	chp_history_format_result(&c, &r, text, sizeof(text));
	cr_assert_str_eq(
		text,
		"{\"t\":9,\"client\":1,\"req\":7,\"type\":\"fail\",\"op\":\"cas\",\"key\":\"k\\u000a\\\"\","
		"\"status\":\"compare_failed\",\"version\":65536,\"node\":2}\n");
	c = (struct chp_history_call){ .t_ns = 5,
				       .client = 1,
				       .req = 7,
				       .kind = CHP_HISTORY_DECR,
				       .node = CHP_HISTORY_NONE,
				       .arg = UINT64_MAX };
	r = (struct chp_history_result){
		.t_ns = 9, .outcome = CHP_HISTORY_OK, .node = 0, .has_number = true
	};
	chp_history_format_call(&c, text, sizeof(text));
	cr_assert_str_eq(
		text, HEAD
		"\"type\":\"invoke\",\"op\":\"decr\",\"key\":\"\",\"delta\":18446744073709551615}\n");
	chp_history_format_result(&c, &r, text, sizeof(text));
	cr_assert_str_eq(
		text,
		"{\"t\":9,\"client\":1,\"req\":7,\"type\":\"ok\",\"op\":\"decr\",\"key\":\"\",\"number\":0,"
		"\"node\":0}\n");
	c = (struct chp_history_call){ .t_ns = 5,
				       .client = 1,
				       .req = 7,
				       .kind = CHP_HISTORY_GET,
				       .node = CHP_HISTORY_NONE,
				       .key = "\xff",
				       .key_len = 1 };
	r = (struct chp_history_result){ .t_ns = 9,
					 .outcome = CHP_HISTORY_OK,
					 .node = CHP_HISTORY_NONE };
	chp_history_format_result(&c, &r, text, sizeof(text));
	cr_assert_str_eq(
		text,
		"{\"t\":9,\"client\":1,\"req\":7,\"type\":\"ok\",\"op\":\"get\",\"key64\":\"/w==\","
		"\"value\":null}\n");
}

Test(history, test_history_format_cuts_as_snprintf)
{
	struct chp_history_call c = { .kind = CHP_HISTORY_PUT,
				      .key = "key",
				      .key_len = 3,
				      .value = "\xff\xff\xff\xff",
				      .value_len = 4,
				      .node = CHP_HISTORY_NONE };
	char whole[256];
	char part[256];
	size_t len = chp_history_format_call(&c, whole, sizeof(whole));

	cr_assert_eq(chp_history_format_call(&c, NULL, 0), len);
	for (size_t cap = 1; cap < sizeof(part); cap++) {
		memset(part, '#', sizeof(part));
		cr_assert_eq(chp_history_format_call(&c, part, cap), len);
		cr_assert_eq(strlen(part), cap <= len ? cap - 1 : len);
		cr_assert_eq(strncmp(part, whole, strlen(part)), 0);
		for (size_t i = cap; i < sizeof(part); i++)
			cr_assert_eq(part[i], '#');
	}
}

/* Bytes that stress the escapes: text, controls, any byte, or nothing. */
static uint32_t
random_bytes(uint64_t *seed, char *p, uint32_t max)
{
	static const char *const parts[] = { "\"",       "\\",           "\n",
					     "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
					     "/" };
	uint32_t style = below(seed, 4);
	uint32_t len = 0;

	for (uint32_t i = below(seed, max / 4); i > 0; i--) {
		const char *part = parts[below(seed, 7)];

		if (style == 0) {
			p[len++] = (char)('a' + below(seed, 26));
		} else if (style == 1) {
			p[len++] = (char)below(seed, 256);
		} else if (style == 2) {
			p[len++] = (char)below(seed, 128);
		} else {
			memcpy(p + len, part, strlen(part));
			len += (uint32_t)strlen(part);
		}
	}
	return len;
}

static void
random_history(struct chp_history *h, uint64_t *seed, uint32_t n)
{
	char key[64];
	char value[9000];

	for (uint32_t i = 0; i < n; i++) {
		struct chp_history_call c = { .t_ns = below(seed, 100),
					      .client = below(seed, 3),
					      .req = i };
		struct chp_history_result r = { .node = CHP_HISTORY_NONE };
		int64_t idx;

		c.kind = (enum chp_history_kind)below(seed, CHP_HISTORY_N_KINDS);
		c.node = below(seed, 2) == 0 ? CHP_HISTORY_NONE : below(seed, 5);
		c.key = key;
		c.key_len = random_bytes(seed, key, below(seed, 2) == 0 ? 4 : sizeof(key));
		if (c.kind == CHP_HISTORY_PUT ||
		    (c.kind >= CHP_HISTORY_CAS && c.kind <= CHP_HISTORY_PREPEND)) {
			c.value = value;
			c.value_len = random_bytes(seed, value,
						   below(seed, 20) == 0 ? sizeof(value) : 80);
		}
		if (c.kind == CHP_HISTORY_CAS || c.kind >= CHP_HISTORY_INCR)
			c.arg = random_u64(seed);
		idx = chp_history_invoke(h, &c);
		cr_assert_geq(idx, 0);
		r.outcome = (enum chp_history_outcome)below(seed, 4);
		if (r.outcome == CHP_HISTORY_OPEN)
			continue;
		r.t_ns = c.t_ns + below(seed, 50);
		r.status = (enum chp_history_status)below(seed, 6);
		r.version = below(seed, 2) == 0 ? 0 : random_u64(seed);
		r.has_number = below(seed, 2) == 0;
		r.number = random_u64(seed);
		if (c.kind == CHP_HISTORY_GET && r.outcome == CHP_HISTORY_OK &&
		    below(seed, 3) > 0) {
			r.value = value;
			r.value_len = random_bytes(seed, value, 80);
		}
		cr_assert_eq(chp_history_complete(h, (uint32_t)idx, &r), 0);
	}
}

/* The reader sees operations in order of time, so they are matched by request number. */
static void
expect_equal(const struct chp_history *a, const struct chp_history *b)
{
	uint32_t *at = malloc(a->n_ops * sizeof(*at));

	cr_assert_eq(a->n_ops, b->n_ops);
	cr_assert_eq(a->n_keys, b->n_keys);
	for (uint32_t i = 0; i < b->n_ops; i++)
		at[b->op[i].req] = i;
	for (uint32_t i = 0; i < a->n_ops; i++) {
		struct chp_history_op x = a->op[i];
		struct chp_history_op y = b->op[at[x.req]];
		const struct chp_history_key *k = &a->key[x.key];
		const struct chp_history_key *l = &b->key[y.key];

		cr_assert_eq(k->len, l->len);
		cr_assert(k->len == 0 || memcmp(k->bytes, l->bytes, k->len) == 0);
		cr_assert_eq(x.value == NULL, y.value == NULL);
		cr_assert_eq(x.value_len, y.value_len);
		cr_assert(x.value_len == 0 || memcmp(x.value, y.value, x.value_len) == 0);
		x.value = y.value = NULL;
		x.key = y.key = x.next = y.next = 0;
		cr_assert(x.invoke_ns == y.invoke_ns && x.complete_ns == y.complete_ns);
		cr_assert(x.client == y.client && x.arg == y.arg && x.version == y.version);
		cr_assert(x.number == y.number && x.has_number == y.has_number && x.node == y.node);
		cr_assert(x.kind == y.kind && x.outcome == y.outcome && x.status == y.status);
	}
	free(at);
}

Test(history, test_history_written_and_read_again_is_equal)
{
	struct chp_history a;
	struct chp_history b;
	struct chp_history_error err;

	chp_history_init(&a);
	chp_history_init(&b);
	for (uint64_t round = 0; round < 200; round++) {
		uint64_t seed = round;
		FILE *f = tmpfile();

		chp_history_reset(&a);
		random_history(&a, &seed, 1 + below(&seed, 60));
		cr_assert_eq(chp_history_write(&a, f), 0);
		rewind(f);
		cr_assert_eq(chp_history_read(&b, f, &err), 0, "%s", err.text);
		expect_equal(&a, &b);
		fclose(f);
	}
	chp_history_fini(&a);
	chp_history_fini(&b);
}

/* --- against jansson -------------------------------------------------------------------------- */

static void
expect_same_string(const json_t *o, const char *name, const uint8_t *p, uint32_t len)
{
	const json_t *s = json_object_get(o, name);

	if (!chp_history_is_utf8(p, len)) {
		cr_assert_null(s);
		return;
	}
	cr_assert_not_null(s);
	cr_assert_eq(json_string_length(s), len);
	cr_assert_eq(memcmp(json_string_value(s), p, len), 0);
}

Test(history, test_history_writer_is_understood_by_jansson)
{
	struct chp_history h;
	struct chp_history_call c = { .kind = CHP_HISTORY_PUT, .node = CHP_HISTORY_NONE };
	json_error_t err;
	char key[256];
	char value[256];
	char text[4096];

	chp_history_init(&h);
	for (uint64_t seed = 0; seed < 4000; seed++) {
		uint64_t state = seed;
		json_t *o;
		size_t len;

		c.key = key;
		c.key_len = random_bytes(&state, key, sizeof(key));
		c.value = value;
		c.value_len = random_bytes(&state, value, sizeof(value));
		c.t_ns = random_u64(&state) >> 1;
		len = chp_history_format_call(&c, text, sizeof(text));
		o = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &err);
		cr_assert_not_null(o, "%s: %s", err.text, text);
		expect_same_string(o, "key", (const uint8_t *)key, c.key_len);
		expect_same_string(o, "value", (const uint8_t *)value, c.value_len);
		cr_assert_eq(json_integer_value(json_object_get(o, "t")), (json_int_t)c.t_ns);
		json_decref(o);
	}
	chp_history_fini(&h);
}

/* What the reader takes is JSON, whatever was done to it; and it reads what jansson reads. */
Test(history, test_history_reader_takes_only_json)
{
	static const char *const lines[] = {
		"{\"t\":5,\"client\":1,\"req\":7,\"type\":\"invoke\",\"op\":\"put\",\"key\":\"k\\u00e4\\n\",\"value\":\"v\"}",
		"{\"t\":0,\"client\":1,\"req\":7,\"type\":\"invoke\",\"op\":\"cas\",\"key64\":\"YWI=\",\"value64\":\"\",\"expect\":12}",
		"{ \"t\" : 10, \"x\":-1.5e3, \"client\":\"1\",\"req\":7,\"type\":\"invoke\",\"op\":\"get\",\"key\":\"\xc3\xa4\"} ",
	};
	static const char bytes[] = "{}\":,\\u0123456789abcdef.-+eE nltrfs=/\xc3\xa4\x80\x01[]";
	uint32_t taken = 0;
	struct chp_history h;

	chp_history_init(&h);
	for (uint64_t round = 0; round < 150000; round++) {
		uint64_t seed = round;
		const char *line = lines[below(&seed, 3)];
		size_t len = strlen(line);
		char text[256];
		json_t *o;
		int rc;

		memcpy(text, line, len);
		for (uint32_t k = below(&seed, 3); k > 0; k--) {
			uint32_t at = below(&seed, (uint32_t)len);

			if (below(&seed, 3) == 0)
				memmove(text + at, text + at + 1, --len - at);
			else if (below(&seed, 2) == 0)
				memmove(text + at + 1, text + at, len++ - at);
			else
				text[at] = bytes[below(&seed, sizeof(bytes) - 1)];
		}
		if (memchr(text, '\n', len) != NULL)
			continue;
		rc = chp_history_parse(&h, text, len, NULL);
		cr_assert(rc == 0 || rc == -EINVAL);
		if (rc != 0 || h.n_ops == 0)
			continue;
		o = json_loadb(text, len, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, NULL);
		cr_assert_not_null(o, "%.*s", (int)len, text);
		if (json_object_get(o, "key") != NULL)
			expect_same_string(o, "key", h.key[0].bytes, h.key[0].len);
		if (json_object_get(o, "value") != NULL)
			expect_same_string(o, "value", h.op[0].value, h.op[0].value_len);
		json_decref(o);
		taken++;
	}
	cr_assert_gt(taken, 50000);
	chp_history_fini(&h);
}

/* The fuzzer does this better; here a little of it runs with every test. */
Test(history, test_history_parse_survives_any_bytes)
{
	struct chp_history h;
	struct chp_history_error err;

	chp_history_init(&h);
	for (uint64_t round = 0; round < 3000; round++) {
		uint64_t seed = round;
		size_t len = 0;
		char *text = NULL;
		FILE *f = open_memstream(&text, &len);
		struct chp_history from;

		chp_history_init(&from);
		random_history(&from, &seed, 1 + below(&seed, 6));
		cr_assert_eq(chp_history_write(&from, f), 0);
		fclose(f);
		chp_history_fini(&from);
		for (uint32_t k = below(&seed, 4); k > 0; k--)
			text[below(&seed, (uint32_t)len)] = (char)below(&seed, 256);
		len -= below(&seed, 3) == 0 ? below(&seed, (uint32_t)len) : 0;
		if (chp_history_parse(&h, text, len, &err) != 0) {
			cr_assert_gt(err.line, 0);
			cr_assert_lt(strlen(err.text), sizeof(err.text));
		}
		free(text);
	}
	chp_history_fini(&h);
}
