/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rules of Hermes, one by one, at a single replica: messages in, messages and replies out. The rules
 * are quoted as docs/protocols/hermes.md has them; node 0 is the replica, nodes 1 and 2 its peers.
 */
#include "../support/hermes_replica.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* ------------------------------------------------------------------ H1 read
 * "Enabled only if state = Valid (and the membership lease is valid at the time of the read)."
 */

Test(hermes, h1_a_valid_key_is_read_at_once)
{
	struct replica *r = replica_new();

	expect_value(r, "x", NULL);
	put_valid(r, "x", "one");
	expect_value(r, "x", "one");
	cr_assert_eq(r->answer[0].reply.version, v(2, 1));
	cr_assert_eq(r->n_sent, 0, "reads are local");
	cr_assert_eq(r->counters.reads, 2);
	replica_free(r);
}

Test(hermes, h1_a_key_that_is_not_valid_is_not_read)
{
	struct replica *r = replica_new();

	put_valid(r, "x", "one");
	inv(r, 1, "x", v(4, 2), v(2, 1), 0, "two");
	submit(r, CHP_OPCODE_GET, "x", NULL);
	submit(r, CHP_OPCODE_GET, "x", NULL);
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_answers, 0);
	cr_assert_eq(r->counters.reads_parked, 2);
	val(r, 1, v(4, 2));
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_answers, 2);
	for (uint32_t i = 0; i < 2; i++) {
		expect_answer(r, i, CHP_OPCODE_GET, CHP_STATUS_OK, v(4, 2));
		cr_assert_arr_eq(r->answer[i].value, "two", 3);
	}
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_answers, 0, "once");
	replica_free(r);
}

Test(hermes, h1_a_read_needs_the_lease_when_it_is_answered)
{
	struct replica *r = replica_new();

	put_valid(r, "x", "one");
	r->now.lease_until_ns = r->now.ns;
	submit(r, CHP_OPCODE_GET, "x", NULL);
	expect_answer(r, 0, CHP_OPCODE_GET, CHP_STATUS_NOT_SERVING, 0);
	/* A parked read checks it again. */
	r->now.lease_until_ns = r->now.ns + 10;
	inv(r, 1, "x", v(4, 2), v(2, 1), 0, "two");
	submit(r, CHP_OPCODE_GET, "x", NULL);
	val(r, 1, v(4, 2));
	r->now.ns += 10;
	wake(r, CHP_BATCH_MAX);
	expect_answer(r, 0, CHP_OPCODE_GET, CHP_STATUS_NOT_SERVING, 0);
	replica_free(r);
}

/* ------------------------------------------------------------------ H2 write
 * "State = Valid; new ts = (version + 2, n); apply the value locally; state = Write; acked = {};
 * broadcast INV(flag 0)."
 */

Test(hermes, h2_a_write_invalidates_everywhere_with_its_value)
{
	struct replica *r = replica_new();

	submit(r, CHP_OPCODE_PUT, "x", "one");
	cr_assert_eq(r->n_sent, 2);
	cr_assert_eq(r->n_answers, 0);
	for (uint32_t i = 0; i < 2; i++) {
		expect_inv(r, i, i + 1, v(2, 1), 0, 0, "one");
		cr_assert_eq(r->sent[i].message.flags, CHP_MESSAGE_BEGIN);
		cr_assert_eq(r->out.lane[i + 1].begun, 1, "a credit of each peer");
	}
	expect_state(r, "x", "Write v2.1 own v2");
	replica_free(r);
}

Test(hermes, h2_a_write_adds_two_and_names_its_base)
{
	struct replica *r = replica_new();

	inv(r, 2, "x", v(7, 3), 0, 0, "old");
	val(r, 2, v(7, 3));
	submit(r, CHP_OPCODE_PUT, "x", "new");
	expect_inv(r, 0, 1, v(9, 1), v(7, 3), 0, "new");
	replica_free(r);
}

Test(hermes, h2_a_write_starts_only_in_valid)
{
	struct replica *r = replica_new();

	inv(r, 1, "x", v(2, 2), 0, 0, "theirs");
	submit(r, CHP_OPCODE_PUT, "x", "ours");
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_sent, 0);
	expect_state(r, "x", "Invalid v2.2");
	cr_assert_eq(r->counters.writes_parked, 1);
	val(r, 1, v(2, 2));
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_sent, 2);
	expect_inv(r, 0, 1, v(4, 1), v(2, 2), 0, "ours");
	replica_free(r);
}

/* ------------------------------------------------------------------ H3 read-modify-write
 * "State = Valid only; ts = (version + 1, n); INV(flag 1)."
 */

Test(hermes, h3_an_rmw_adds_one_and_is_marked)
{
	struct replica *r = replica_new();
	struct chp_op op;

	put_valid(r, "n", "41");
	op = op_of(r, CHP_OPCODE_INCR, "n", NULL);
	op.arg = 1;
	submit_op(r, op);
	cr_assert_eq(r->n_sent, 2);
	expect_inv(r, 0, 1, v(3, 1), v(2, 1), CHP_INV_RMW, "42");
	cr_assert_eq(r->sent[0].inv.number, 42);
	struct chp_hermes_inv m = r->sent[0].inv;

	ack(r, 1, &m);
	ack(r, 2, &m);
	expect_answer(r, 0, CHP_OPCODE_INCR, CHP_STATUS_OK, v(3, 1));
	cr_assert_eq(r->answer[0].reply.number, 42);
	expect_value(r, "n", "42");
	replica_free(r);
}

Test(hermes, h3_an_rmw_never_starts_from_invalid)
{
	struct replica *r = replica_new();

	put_valid(r, "x", "a");
	inv(r, 1, "x", v(4, 2), v(2, 1), 0, "b");
	submit(r, CHP_OPCODE_APPEND, "x", "!");
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_sent, 0);
	val(r, 1, v(4, 2));
	wake(r, CHP_BATCH_MAX);
	expect_inv(r, 0, 1, v(5, 1), v(4, 2), CHP_INV_RMW, "b!");
	replica_free(r);
}

Test(hermes, h3_comparisons_are_decided_on_the_valid_value)
{
	struct replica *r = replica_new();
	struct chp_op op;

	put_valid(r, "x", "a");
	op = op_of(r, CHP_OPCODE_CAS, "x", "b");
	op.arg = v(1, 1);
	submit_op(r, op);
	expect_answer(r, 0, CHP_OPCODE_CAS, CHP_STATUS_COMPARE_FAILED, v(2, 1));
	op.arg = v(2, 1);
	submit_op(r, op);
	cr_assert_eq(r->n_answers, 0);
	expect_inv(r, 0, 1, v(3, 1), v(2, 1), CHP_INV_RMW, "b");
	submit(r, CHP_OPCODE_ADD, "y", "new");
	expect_inv(r, 0, 1, v(1, 1), 0, CHP_INV_RMW, "new");
	submit(r, CHP_OPCODE_ADD, "x", "late"); /* the key is ours and not Valid: it waits */
	cr_assert_eq(r->n_answers, 0);
	submit(r, CHP_OPCODE_REPLACE, "z", "none");
	expect_answer(r, 0, CHP_OPCODE_REPLACE, CHP_STATUS_NOT_FOUND, 0);
	replica_free(r);
}

/* ------------------------------------------------------------------ H4 INV of a write
 * "Always ACK with the ts of the INV, older or not. If m.ts > key.ts adopt; Valid, Invalid, Replay -> Invalid;
 * Write, Trans -> Trans; a pending RMW -> Invalid (aborted)."
 */

Test(hermes, h4_a_newer_version_is_adopted_and_acknowledged)
{
	struct replica *r = replica_new();

	inv(r, 1, "x", v(2, 2), 0, 0, "one");
	expect_ack(r, 1, v(2, 2));
	expect_state(r, "x", "Invalid v2.2");
	inv(r, 2, "x", v(2, 3), 0, 0, "two");
	expect_ack(r, 2, v(2, 3));
	expect_state(r, "x", "Invalid v2.3");
	val(r, 2, v(2, 3));
	expect_value(r, "x", "two");
	replica_free(r);
}

Test(hermes, h4_an_older_or_equal_version_is_acknowledged_only)
{
	struct replica *r = replica_new();

	inv(r, 2, "x", v(4, 3), v(2, 1), 0, "newer");
	/* The base must be known here: what was never seen is not of this key's life. */
	cr_assert_eq(r->n_sent, 1);
	replica_free(r);

	r = replica_new();
	inv(r, 2, "x", v(2, 3), 0, 0, "newer");
	inv(r, 1, "x", v(2, 2), 0, 0, "older");
	expect_ack(r, 1, v(2, 2));
	expect_state(r, "x", "Invalid v2.3");
	cr_assert_eq(r->counters.inv_stale, 1);
	val(r, 2, v(2, 3)); /* this coordinator's last INV here was the newer one */
	expect_state(r, "x", "Valid v2.3");
	inv(r, 2, "x", v(2, 3), 0, CHP_INV_REPLAY, "newer");
	expect_ack(r, 2, v(2, 3));
	expect_state(r, "x", "Valid v2.3");
	expect_value(r, "x", "newer");
	replica_free(r);
}

Test(hermes, h4_the_counter_decides_before_the_writer)
{
	struct replica *r = replica_new();

	inv(r, 2, "x", v(2, 3), 0, 0, "low counter");
	inv(r, 1, "x", v(3, 2), 0, 0, "low writer");
	expect_state(r, "x", "Invalid v3.2");
	replica_free(r);
}

Test(hermes, h4_a_pending_write_that_is_overtaken_is_in_trans)
{
	struct replica *r = replica_new();

	submit(r, CHP_OPCODE_PUT, "x", "ours");
	inv(r, 1, "x", v(2, 2), 0, 0, "theirs");
	expect_ack(r, 1, v(2, 2));
	expect_state(r, "x", "Trans v2.2 own v2");
	inv(r, 2, "x", v(2, 3), 0, 0, "third");
	expect_state(r, "x", "Trans v2.3 own v2");
	replica_free(r);
}

Test(hermes, h4_a_pending_rmw_that_is_overtaken_is_invalid)
{
	struct replica *r = replica_new();

	put_valid(r, "x", "a");
	submit(r, CHP_OPCODE_APPEND, "x", "!");
	inv(r, 1, "x", v(4, 2), v(2, 1), 0, "b");
	expect_ack(r, 1, v(4, 2));
	expect_state(r, "x", "Invalid v4.2 own v3");
	cr_assert_eq(r->n_answers, 0, "nobody hears of it before the key is Valid");
	replica_free(r);
}

/* ------------------------------------------------------------------ H5 INV of an RMW
 * "If m.ts > key.ts adopt and ACK; if equal ACK; if smaller do not ACK, send back an INV carrying the local ts,
 * value and flag (a real INV, processed as such)."
 */

Test(hermes, h5_an_older_rmw_is_refused_with_what_the_key_has)
{
	struct replica *r = replica_new();

	put_valid(r, "x", "one");
	put_valid(r, "x", "two");
	inv(r, 1, "x", v(3, 2), v(2, 1), CHP_INV_RMW, "late");
	cr_assert_eq(r->n_sent, 1);
	expect_inv(r, 0, 1, v(4, 1), v(2, 1), CHP_INV_NACK, "two");
	cr_assert_eq(r->sent[0].message.op, CHP_OP_NONE);
	cr_assert_eq(r->counters.nacks, 1);
	expect_value(r, "x", "two");
	replica_free(r);
}

Test(hermes, h5_the_nack_of_a_key_in_progress_names_its_client)
{
	struct replica *r = replica_new();
	struct sent s;

	put_valid(r, "x", "one");
	s = inv_of("x", v(4, 3), v(2, 1), CHP_INV_RMW, "two", 3);
	s.inv.session = 9;
	s.inv.request = 5;
	s.inv.number = 77;
	step(r, 2, &s.inv);
	inv(r, 1, "x", v(3, 2), v(2, 1), CHP_INV_RMW, "late");
	expect_inv(r, 0, 1, v(4, 3), v(2, 1), CHP_INV_NACK | CHP_INV_RMW, "two");
	cr_assert_eq(r->sent[0].inv.session, 9);
	cr_assert_eq(r->sent[0].inv.request, 5);
	cr_assert_eq(r->sent[0].inv.number, 77);
	replica_free(r);
}

Test(hermes, h5_equal_and_newer_rmws_are_acknowledged)
{
	struct replica *r = replica_new();

	put_valid(r, "x", "one");
	inv(r, 1, "x", v(3, 2), v(2, 1), CHP_INV_RMW, "two");
	expect_ack(r, 1, v(3, 2));
	inv(r, 2, "x", v(3, 2), v(2, 1), CHP_INV_RMW | CHP_INV_REPLAY, "two");
	expect_ack(r, 2, v(3, 2));
	expect_state(r, "x", "Invalid v3.2");
	replica_free(r);
}

Test(hermes, h5_a_nack_is_an_inv_that_is_not_acknowledged)
{
	struct replica *r = replica_new();
	struct sent s;

	put_valid(r, "x", "one");
	submit(r, CHP_OPCODE_APPEND, "x", "!");
	s = inv_of("x", v(4, 2), v(2, 1), CHP_INV_NACK, "theirs", CHP_OP_NONE);
	step(r, 2, &s.inv);
	cr_assert_eq(r->n_sent, 0);
	expect_state(r, "x", "Invalid v4.2 own v3");
	/* An old one changes nothing and is not refused in turn. */
	s = inv_of("x", v(3, 2), v(2, 1), CHP_INV_NACK | CHP_INV_RMW, "old", CHP_OP_NONE);
	step(r, 2, &s.inv);
	cr_assert_eq(r->n_sent, 0);
	expect_state(r, "x", "Invalid v4.2 own v3");
	replica_free(r);
}

/* ------------------------------------------------------------------ H6 ACK
 * "Require sender not already in acked, m.ts = the pending ts, not the key's ts." Never a bare count.
 */

Test(hermes, h6_an_ack_counts_once_a_member)
{
	struct replica *r = replica_new();
	struct chp_hermes_inv m;

	submit(r, CHP_OPCODE_PUT, "x", "one");
	m = r->sent[0].inv;
	ack(r, 1, &m);
	ack(r, 1, &m);
	cr_assert_eq(r->n_answers, 0);
	expect_state(r, "x", "Write v2.1 own v2");
	ack(r, 2, &m);
	cr_assert_eq(r->n_answers, 1);
	replica_free(r);
}

Test(hermes, h6_an_ack_must_match_ticket_generation_and_version)
{
	struct replica *r = replica_new();
	struct chp_hermes_inv first, second, wrong;

	submit(r, CHP_OPCODE_PUT, "x", "one");
	first = r->sent[0].inv;
	ack(r, 1, &first);
	ack(r, 2, &first);
	submit(r, CHP_OPCODE_PUT, "x", "two");
	second = r->sent[0].inv;
	cr_assert_eq(second.message.op, first.message.op, "the same ticket");
	ack(r, 1, &first);
	ack(r, 2, &first);
	expect_state(r, "x", "Write v4.1 own v4");
	wrong = second;
	wrong.version = v(4, 2);
	ack(r, 1, &wrong);
	wrong = second;
	wrong.generation++;
	ack(r, 1, &wrong);
	wrong = second;
	wrong.message.op++;
	ack(r, 1, &wrong);
	wrong.message.op = CHP_OP_NONE;
	ack(r, 1, &wrong);
	ack(r, 2, &second);
	cr_assert_eq(r->n_answers, 0);
	cr_assert_eq(r->counters.ack_stale, 6);
	ack(r, 1, &second);
	expect_answer(r, 0, CHP_OPCODE_PUT, CHP_STATUS_OK, v(4, 1));
	replica_free(r);
}

/* ------------------------------------------------------------------ H7 all acknowledged
 * "Write, Replay and all live acked -> Valid; broadcast VAL(ts); complete the client. Trans: complete the client,
 * Invalid, no VAL (O1)."
 */

Test(hermes, h7_the_last_ack_validates)
{
	struct replica *r = replica_new();
	struct chp_hermes_inv m;

	submit(r, CHP_OPCODE_PUT, "x", "one");
	m = r->sent[0].inv;
	ack(r, 2, &m);
	cr_assert_eq(r->n_sent, 0);
	ack(r, 1, &m);
	expect_answer(r, 0, CHP_OPCODE_PUT, CHP_STATUS_OK, v(2, 1));
	cr_assert_eq(r->n_sent, 2);
	expect_val(r, 0, 1, v(2, 1));
	expect_val(r, 1, 2, v(2, 1));
	cr_assert_eq(r->sent[0].val.generation, m.generation);
	expect_state(r, "x", "Valid v2.1");
	cr_assert_eq(chp_hermes.open_ops(r->p), 0);
	replica_free(r);
}

Test(hermes, h7_an_overtaken_write_completes_without_val)
{
	struct replica *r = replica_new();
	struct chp_hermes_inv m;

	submit(r, CHP_OPCODE_PUT, "x", "ours");
	m = r->sent[0].inv;
	inv(r, 2, "x", v(2, 3), 0, 0, "theirs");
	ack(r, 1, &m);
	ack(r, 2, &m);
	expect_answer(r, 0, CHP_OPCODE_PUT, CHP_STATUS_OK, v(2, 1));
	cr_assert_eq(r->n_sent, 0);
	expect_state(r, "x", "Invalid v2.3");
	val(r, 2, v(2, 3));
	expect_value(r, "x", "theirs");
	replica_free(r);
}

Test(hermes, h7_a_newer_val_does_not_complete_an_older_write)
{
	/* The conservative choice of protocols.md 6.1: it stays open until all have acknowledged it. */
	struct replica *r = replica_new();
	struct chp_hermes_inv m;

	submit(r, CHP_OPCODE_PUT, "x", "ours");
	m = r->sent[0].inv;
	inv(r, 2, "x", v(2, 3), 0, 0, "theirs");
	ack(r, 1, &m);
	val(r, 2, v(2, 3));
	cr_assert_eq(r->n_answers, 0);
	expect_value(r, "x", "theirs");
	cr_assert_eq(chp_hermes.open_ops(r->p), 1);
	ack(r, 2, &m);
	expect_answer(r, 0, CHP_OPCODE_PUT, CHP_STATUS_OK, v(2, 1));
	expect_value(r, "x", "theirs");
	replica_free(r);
}

Test(hermes, h7_reads_behind_the_own_write_are_served)
{
	struct replica *r = replica_new();
	struct chp_hermes_inv m;

	submit(r, CHP_OPCODE_PUT, "x", "one");
	m = r->sent[0].inv;
	submit(r, CHP_OPCODE_GET, "x", NULL);
	submit(r, CHP_OPCODE_PUT, "x", "two");
	submit(r, CHP_OPCODE_GET, "x", NULL);
	ack(r, 1, &m);
	ack(r, 2, &m);
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_answers, 1);
	expect_answer(r, 0, CHP_OPCODE_GET, CHP_STATUS_OK, v(2, 1));
	expect_inv(r, 0, 1, v(4, 1), v(2, 1), 0, "two");
	m = r->sent[0].inv;
	ack(r, 1, &m);
	ack(r, 2, &m);
	wake(r, CHP_BATCH_MAX);
	expect_answer(r, 0, CHP_OPCODE_GET, CHP_STATUS_OK, v(4, 1));
	replica_free(r);
}

Test(hermes, h7_the_queue_is_served_as_room_for_replies_allows)
{
	struct replica *r = replica_new();

	inv(r, 1, "x", v(2, 2), 0, 0, "one");
	for (uint32_t i = 0; i < 5; i++)
		submit(r, CHP_OPCODE_GET, "x", NULL);
	val(r, 1, v(2, 2));
	begin_call(r, 2);
	cr_assert(chp_hermes.wake(r->p, &r->now, &r->out), "more is ready");
	end_call(r);
	cr_assert_eq(r->n_answers, 2);
	begin_call(r, 3);
	chp_hermes.wake(r->p, &r->now, &r->out);
	end_call(r);
	cr_assert_eq(r->n_answers, 3);
	begin_call(r, 3);
	cr_assert_not(chp_hermes.wake(r->p, &r->now, &r->out));
	replica_free(r);
}

Test(hermes, h7_a_learners_ack_is_needed)
{
	struct replica *r = replica_new();
	struct chp_hermes_inv m;

	enter_view(r, 3, 4);
	submit(r, CHP_OPCODE_PUT, "x", "one");
	cr_assert_eq(r->n_sent, 2);
	m = r->sent[0].inv;
	ack(r, 1, &m);
	cr_assert_eq(r->n_answers, 0);
	ack(r, 2, &m);
	cr_assert_eq(r->n_answers, 1);
	replica_free(r);
}

/* ------------------------------------------------------------------ H8 VAL
 * "State # Valid and m.ts = key.ts (exact equality) -> Valid. Fires in Write, Replay, Trans too: someone else's
 * replay of my ts may validate it; if m.ts = the pending ts the client is answered."
 */

Test(hermes, h8_a_val_of_another_version_is_ignored)
{
	struct replica *r = replica_new();

	inv(r, 1, "x", v(2, 2), 0, 0, "one");
	inv(r, 2, "x", v(2, 3), 0, 0, "two");
	val(r, 1, v(2, 2));
	expect_state(r, "x", "Invalid v2.3");
	val(r, 1, v(2, 3) + 1);
	val(r, 2, v(2, 2));
	cr_assert_eq(r->counters.val_stale, 3);
	expect_state(r, "x", "Invalid v2.3");
	val(r, 2, v(2, 3));
	expect_state(r, "x", "Valid v2.3");
	val(r, 2, v(2, 3));
	cr_assert_eq(r->counters.val_stale, 4);
	replica_free(r);
}

Test(hermes, h8_a_val_that_names_nothing_is_ignored)
{
	struct replica *r = replica_new();
	struct chp_hermes_val m = { .message = { .type = CHP_HERMES_VAL, .len = sizeof(m) }, .version = v(2, 2) };

	m.message.op = CHP_OP_NONE;
	step(r, 1, &m);
	m.message.op = 5; /* no INV came with it */
	step(r, 1, &m);
	cr_assert_eq(r->counters.val_stale, 2);
	/* Another peer's ticket 3 is another operation. */
	inv(r, 1, "x", v(2, 2), 0, 0, "one");
	val(r, 2, v(2, 2));
	expect_state(r, "x", "Invalid v2.2");
	replica_free(r);
}

Test(hermes, h8_a_val_for_an_earlier_stay_of_the_key_in_progress_is_ignored)
{
	/* The record that the VAL points to was given back and taken by another key meanwhile. */
	struct replica *r = replica_new();
	struct sent s;

	inv(r, 1, "x", v(2, 2), 0, 0, "one");
	s = inv_of("x", v(2, 2), 0, CHP_INV_REPLAY, "one", 4);
	step(r, 2, &s.inv);
	val(r, 1, v(2, 2));
	s = inv_of("y", v(2, 2), 0, 0, "other", 6);
	step(r, 1, &s.inv);
	struct chp_hermes_val late = { .message = { .type = CHP_HERMES_VAL, .len = sizeof(late), .op = 4 },
				       .version = v(2, 2) };

	step(r, 2, &late);
	expect_state(r, "y", "Invalid v2.2");
	replica_free(r);
}

Test(hermes, h8_anothers_replay_may_validate_our_write)
{
	struct replica *r = replica_new();

	submit(r, CHP_OPCODE_PUT, "x", "ours");
	inv(r, 2, "x", v(2, 1), 0, CHP_INV_REPLAY, "ours");
	expect_ack(r, 2, v(2, 1));
	expect_state(r, "x", "Write v2.1 own v2");
	val(r, 2, v(2, 1));
	expect_answer(r, 0, CHP_OPCODE_PUT, CHP_STATUS_OK, v(2, 1));
	expect_state(r, "x", "Valid v2.1");
	replica_free(r);
}

/* ------------------------------------------------------------------ H9 views: our own operations
 * "After an epoch change re-broadcast INV with the same ts in the new epoch. RMWs must reset their ACKs."
 * Here every own operation does, Trans included, with its own value from the log (SAFETY 8).
 */

Test(hermes, h9_a_view_sends_open_writes_again)
{
	struct replica *r = replica_new();
	struct chp_hermes_inv m;

	submit(r, CHP_OPCODE_PUT, "x", "one");
	m = r->sent[0].inv;
	ack(r, 1, &m);
	enter_view(r, 7, 0);
	cr_assert_eq(r->n_sent, 2);
	expect_inv(r, 0, 1, v(2, 1), 0, 0, "one");
	expect_inv(r, 1, 2, v(2, 1), 0, 0, "one");
	cr_assert_eq(r->sent[0].message.flags, 0, "it has its credit already");
	cr_assert_eq(r->sent[0].message.op, m.message.op);
	cr_assert_eq(r->counters.resent, 1);
	ack(r, 2, &m);
	cr_assert_eq(r->n_answers, 0, "node 1's old ACK does not count");
	ack(r, 1, &m);
	cr_assert_eq(r->n_answers, 1);
	replica_free(r);
}

Test(hermes, h9_a_view_resets_the_acks_of_an_rmw)
{
	struct replica *r = replica_new();
	struct chp_hermes_inv m;

	put_valid(r, "x", "a");
	submit(r, CHP_OPCODE_APPEND, "x", "!");
	m = r->sent[0].inv;
	ack(r, 1, &m);
	enter_view(r, 3, 0); /* without node 2, whose ACK was missing */
	cr_assert_eq(r->n_sent, 1);
	expect_inv(r, 0, 1, v(3, 1), v(2, 1), CHP_INV_RMW, "a!");
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_answers, 0);
	ack(r, 1, &m);
	expect_answer(r, 0, CHP_OPCODE_APPEND, CHP_STATUS_OK, v(3, 1));
	replica_free(r);
}

Test(hermes, h9_a_view_sends_trans_again_with_its_own_value)
{
	struct replica *r = replica_new();
	struct chp_hermes_inv m;
	uint32_t ours = 0, theirs = 0;

	submit(r, CHP_OPCODE_PUT, "x", "ours");
	m = r->sent[0].inv;
	inv(r, 1, "x", v(2, 2), 0, 0, "theirs");
	enter_view(r, 7, 0);
	for (uint32_t i = 0; i < r->n_sent; i++) {
		expect_inv(r, i, r->sent[i].to, v(2, 1), 0, 0, "ours");
		ours++;
	}
	cr_assert_eq(ours, 2);
	wake(r, CHP_BATCH_MAX);
	for (uint32_t i = 0; i < r->n_sent; i++) {
		expect_inv(r, i, r->sent[i].to, v(2, 2), 0, CHP_INV_REPLAY, "theirs");
		theirs++;
	}
	cr_assert_eq(theirs, 2);
	ack(r, 1, &m);
	ack(r, 2, &m);
	expect_answer(r, 0, CHP_OPCODE_PUT, CHP_STATUS_OK, v(2, 1));
	replica_free(r);
}

Test(hermes, h9_the_last_one_left_commits_alone)
{
	struct replica *r = replica_new();

	submit(r, CHP_OPCODE_PUT, "x", "ours");
	inv(r, 1, "y", v(2, 2), 0, 0, "theirs");
	submit(r, CHP_OPCODE_GET, "y", NULL);
	enter_view(r, 1, 0);
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_answers, 2);
	expect_value(r, "x", "ours");
	expect_value(r, "y", "theirs");
	submit(r, CHP_OPCODE_PUT, "z", "alone");
	expect_answer(r, 0, CHP_OPCODE_PUT, CHP_STATUS_OK, v(2, 1));
	replica_free(r);
}

/* ------------------------------------------------------------------ H10 replay
 * "acked = {}, broadcast INV with the same ts, value and RMW flag (original cid), state = Replay."
 * After a view change every key that is not Valid is replayed, its writer alive or not (SAFETY 8).
 */

Test(hermes, h10_a_view_replays_what_is_not_valid)
{
	struct replica *r = replica_new();
	struct sent s;
	struct chp_hermes_inv m;

	put_valid(r, "x", "one");
	s = inv_of("x", v(3, 2), v(2, 1), CHP_INV_RMW, "two", 3);
	s.inv.session = 9;
	s.inv.request = 5;
	step(r, 1, &s.inv);
	enter_view(r, 5, 0);
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_sent, 1);
	expect_inv(r, 0, 2, v(3, 2), v(2, 1), CHP_INV_RMW | CHP_INV_REPLAY, "two");
	cr_assert_eq(r->sent[0].inv.session, 9, "the write's client, for its record (SAFETY 25)");
	cr_assert_eq(r->sent[0].inv.request, 5);
	expect_state(r, "x", "Replay v3.2");
	m = r->sent[0].inv;
	ack(r, 2, &m);
	cr_assert_eq(r->n_sent, 1);
	expect_val(r, 0, 2, v(3, 2));
	expect_value(r, "x", "two");
	cr_assert_eq(r->counters.replays, 1);
	replica_free(r);
}

Test(hermes, h10_an_overtaken_replay_is_dropped)
{
	struct replica *r = replica_new();
	struct chp_hermes_inv m;

	inv(r, 1, "x", v(2, 2), 0, 0, "one");
	enter_view(r, 7, 0);
	wake(r, CHP_BATCH_MAX);
	m = r->sent[0].inv;
	inv(r, 2, "x", v(4, 3), v(2, 2), 0, "two");
	expect_state(r, "x", "Invalid v4.3");
	ack(r, 1, &m);
	ack(r, 2, &m);
	cr_assert_eq(r->n_sent, 0);
	expect_state(r, "x", "Invalid v4.3");
	val(r, 2, v(4, 3));
	expect_value(r, "x", "two");
	replica_free(r);
}

Test(hermes, h10_anothers_val_ends_a_replay)
{
	struct replica *r = replica_new();

	inv(r, 1, "x", v(2, 2), 0, 0, "one");
	enter_view(r, 7, 0);
	wake(r, CHP_BATCH_MAX);
	expect_state(r, "x", "Replay v2.2");
	inv(r, 1, "x", v(2, 2), 0, 0, "one");
	expect_ack(r, 1, v(2, 2));
	val(r, 1, v(2, 2));
	expect_state(r, "x", "Valid v2.2");
	replica_free(r);
}

Test(hermes, h10_vals_of_the_old_view_validate_nothing)
{
	struct replica *r = replica_new();

	inv(r, 1, "x", v(2, 2), 0, 0, "one");
	enter_view(r, 5, 0);
	enter_view(r, 7, 0);
	/* The core discards the old epoch's messages; what its tickets meant is forgotten as well. */
	val(r, 1, v(2, 2));
	cr_assert_eq(r->counters.val_stale, 1);
	replica_free(r);
}

Test(hermes, h10_replays_beyond_the_limit_follow_as_others_end)
{
	struct replica *r = replica_new();
	struct chp_hermes_inv m[KEYS];
	char key[8];
	uint32_t keys = 2 * CREDITS, sent;

	for (uint32_t i = 0; i < keys; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		inv(r, 1, key, v(2, 2), 0, 0, "one");
	}
	enter_view(r, 5, 0);
	wake(r, CHP_BATCH_MAX);
	sent = r->n_sent;
	cr_assert_eq(sent, CREDITS);
	while (sent > 0) {
		for (uint32_t i = 0; i < sent; i++)
			m[i] = r->sent[i].inv;
		for (uint32_t i = 0; i < sent; i++)
			ack(r, 2, &m[i]);
		wake(r, CHP_BATCH_MAX);
		sent = r->n_sent;
	}
	for (uint32_t i = 0; i < keys; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		expect_value(r, key, "one");
	}
	replica_free(r);
}

/* ------------------------------------------------------------------ H11 lost messages
 * "Coordinator past mlt: retransmit to those not acked. Follower in Invalid past mlt: replay."
 * Deviation: links are reliable, so time does nothing; a link's reset is the loss of what was on it.
 */

Test(hermes, h11_time_alone_does_nothing)
{
	struct replica *r = replica_new();

	submit(r, CHP_OPCODE_PUT, "x", "one");
	inv(r, 1, "y", v(2, 2), 0, 0, "two");
	r->now.ns += UINT64_C(1000000000000);
	begin_call(r, CHP_BATCH_MAX);
	chp_hermes.tick(r->p, &r->now, &r->out);
	end_call(r);
	cr_assert_eq(r->n_sent, 0);
	cr_assert_eq(r->n_answers, 0, "only a view takes a member out of those that must acknowledge");
	cr_assert_eq(r->out.wake_ns, CHP_NEVER);
	replica_free(r);
}

Test(hermes, h11_a_link_that_comes_up_gets_what_it_has_not_acknowledged)
{
	struct replica *r = replica_new();
	struct chp_hermes_inv x, y;

	submit(r, CHP_OPCODE_PUT, "x", "one");
	x = r->sent[0].inv;
	submit(r, CHP_OPCODE_PUT, "y", "two");
	y = r->sent[0].inv;
	ack(r, 1, &x);
	begin_call(r, CHP_BATCH_MAX);
	chp_hermes.link_down(r->p, &r->now, 1, &r->out);
	end_call(r);
	cr_assert_eq(r->n_sent, 0);
	begin_call(r, CHP_BATCH_MAX);
	chp_hermes.link_up(r->p, &r->now, 1, &r->out);
	end_call(r);
	cr_assert_eq(r->n_sent, 1);
	expect_inv(r, 0, 1, v(2, 1), 0, 0, "two");
	cr_assert_eq(r->sent[0].message.op, y.message.op);
	cr_assert_eq(r->sent[0].message.flags, 0);
	ack(r, 2, &x);
	cr_assert_eq(r->n_answers, 1, "within a view an ACK stays good");
	replica_free(r);
}

Test(hermes, h11_a_link_that_comes_up_may_have_lost_vals)
{
	struct replica *r = replica_new();
	struct chp_hermes_inv m;

	inv(r, 1, "x", v(2, 2), 0, 0, "one");
	begin_call(r, CHP_BATCH_MAX);
	chp_hermes.link_down(r->p, &r->now, 1, &r->out);
	chp_hermes.link_up(r->p, &r->now, 1, &r->out);
	end_call(r);
	val(r, 1, v(2, 2)); /* of an INV before the reset: it names nothing any more */
	expect_state(r, "x", "Invalid v2.2");
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_sent, 2);
	m = r->sent[0].inv;
	ack(r, 1, &m);
	ack(r, 2, &m);
	expect_value(r, "x", "one");
	replica_free(r);
}

Test(hermes, h11_a_link_to_a_node_outside_the_view_changes_nothing)
{
	struct replica *r = replica_new();

	enter_view(r, 3, 0);
	submit(r, CHP_OPCODE_PUT, "x", "one");
	begin_call(r, CHP_BATCH_MAX);
	chp_hermes.link_up(r->p, &r->now, 2, &r->out);
	end_call(r);
	cr_assert_eq(r->n_sent, 0);
	replica_free(r);
}

/* ------------------------------------------------------------------ SAFETY 7: what became of an overtaken RMW
 * "Committed when the key became Valid at exactly ts here, or VAL(ts) or an INV with base = ts arrived; aborted when
 * overtaken by an INV with base < ts. Undecidable: outcome unknown, never a second execution."
 */

/* An APPEND at v(3, 1) on v(2, 1), open. */
static struct replica *
replica_with_rmw(void)
{
	struct replica *r = replica_new();

	put_valid(r, "x", "a");
	submit(r, CHP_OPCODE_APPEND, "x", "!");
	expect_inv(r, 0, 1, v(3, 1), v(2, 1), CHP_INV_RMW, "a!");
	return r;
}

Test(hermes, s7_an_aborted_rmw_is_tried_again_when_the_key_is_valid)
{
	struct replica *r = replica_with_rmw();

	inv(r, 1, "x", v(4, 2), v(2, 1), 0, "b");
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_sent + r->n_answers, 0);
	val(r, 1, v(4, 2));
	cr_assert_eq(r->counters.aborts, 1);
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_answers, 0, "the client knows nothing of it");
	expect_inv(r, 0, 1, v(5, 1), v(4, 2), CHP_INV_RMW, "b!");
	struct chp_hermes_inv m = r->sent[0].inv;

	ack(r, 1, &m);
	ack(r, 2, &m);
	expect_answer(r, 0, CHP_OPCODE_APPEND, CHP_STATUS_OK, v(5, 1));
	replica_free(r);
}

Test(hermes, s7_an_rmw_that_was_built_upon_is_committed)
{
	struct replica *r = replica_with_rmw();

	inv(r, 1, "x", v(5, 2), v(3, 1), 0, "b");
	expect_answer(r, 0, CHP_OPCODE_APPEND, CHP_STATUS_OK, v(3, 1));
	expect_ack(r, 1, v(5, 2));
	expect_state(r, "x", "Invalid v5.2");
	val(r, 1, v(5, 2));
	expect_value(r, "x", "b");
	replica_free(r);
}

Test(hermes, s7_an_rmw_whose_fate_cannot_be_told_is_never_done_again)
{
	struct replica *r = replica_with_rmw();

	/* Issued on a version that we never saw, newer than ours: was ours below it or not? */
	inv(r, 1, "x", v(7, 2), v(5, 3), 0, "b");
	cr_assert_eq(r->n_answers, 0);
	val(r, 1, v(7, 2));
	expect_answer(r, 0, CHP_OPCODE_APPEND, CHP_STATUS_UNKNOWN_OUTCOME, 0);
	cr_assert_eq(r->counters.unknown, 1);
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_sent, 0);
	replica_free(r);

	r = replica_with_rmw();
	struct sent s = inv_of("x", v(4, 2), 0, CHP_INV_BASE_UNKNOWN, "b", 3);

	/* Who replays it may have committed it with our acknowledgement. */
	inv(r, 2, "x", v(3, 1), v(2, 1), CHP_INV_RMW | CHP_INV_REPLAY, "a!");
	step(r, 1, &s.inv);
	val(r, 1, v(4, 2));
	expect_answer(r, 0, CHP_OPCODE_APPEND, CHP_STATUS_UNKNOWN_OUTCOME, 0);
	replica_free(r);
}

Test(hermes, s7_what_nobody_replayed_nobody_committed)
{
	struct replica *r = replica_with_rmw();
	struct sent s = inv_of("x", v(4, 2), 0, CHP_INV_BASE_UNKNOWN, "b", 3);

	step(r, 1, &s.inv);
	val(r, 1, v(4, 2));
	cr_assert_eq(r->counters.aborts, 1);
	cr_assert_eq(r->counters.unknown, 0);
	wake(r, CHP_BATCH_MAX);
	expect_inv(r, 0, 1, v(5, 1), v(4, 2), CHP_INV_RMW, "b!");
	replica_free(r);
}

Test(hermes, s7_the_first_overtaker_decides)
{
	struct replica *r = replica_with_rmw();

	inv(r, 1, "x", v(4, 2), v(2, 1), 0, "b");
	inv(r, 2, "x", v(6, 3), v(4, 2), 0, "c"); /* says nothing new about v3.1 */
	val(r, 2, v(6, 3));
	cr_assert_eq(r->counters.aborts, 1);
	cr_assert_eq(r->counters.unknown, 0);
	wake(r, CHP_BATCH_MAX);
	expect_inv(r, 0, 1, v(7, 1), v(6, 3), CHP_INV_RMW, "c!");
	replica_free(r);
}

Test(hermes, s7_the_key_valid_at_its_version_commits_an_rmw)
{
	struct replica *r = replica_with_rmw();

	inv(r, 2, "x", v(3, 1), v(2, 1), CHP_INV_RMW | CHP_INV_REPLAY, "a!");
	val(r, 2, v(3, 1));
	expect_answer(r, 0, CHP_OPCODE_APPEND, CHP_STATUS_OK, v(3, 1));
	replica_free(r);
}

Test(hermes, s7_an_aborted_rmw_is_not_sent_again_by_a_view)
{
	struct replica *r = replica_with_rmw();

	inv(r, 1, "x", v(4, 2), v(2, 1), 0, "b");
	enter_view(r, 7, 0);
	for (uint32_t i = 0; i < r->n_sent; i++)
		cr_assert_eq(r->sent[i].inv.version, v(4, 2));
	cr_assert_eq(r->counters.resent, 0);
	replica_free(r);
}

Test(hermes, s7_an_aborted_rmw_goes_before_what_came_later)
{
	struct replica *r = replica_with_rmw();

	submit(r, CHP_OPCODE_GET, "x", NULL);
	inv(r, 1, "x", v(4, 2), v(2, 1), 0, "b");
	val(r, 1, v(4, 2));
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_answers, 0);
	cr_assert_eq(r->n_sent, 2);
	replica_free(r);
}

Test(hermes, s7_tries_are_limited)
{
	struct replica *r = replica_with_rmw();
	uint64_t counter = 2;

	for (uint32_t i = 0; i <= CHP_RMW_TRIES_MAX; i++) {
		inv(r, 1, "x", v(counter + 2, 2), v(counter, i == 0 ? 1 : 2), 0, "b");
		counter += 2;
		val(r, 1, v(counter, 2));
		wake(r, CHP_BATCH_MAX);
		if (r->n_answers > 0)
			break;
	}
	expect_answer(r, 0, CHP_OPCODE_APPEND, CHP_STATUS_BUSY, v(counter, 2));
	cr_assert_eq(r->counters.aborts, CHP_RMW_TRIES_MAX + 1);
	expect_state(r, "x", "Valid v132.2");
	replica_free(r);
}

Test(hermes, p8_a_pending_write_is_no_rmw_because_the_keys_version_is_one)
{
	/* Overtaken by an RMW, then by a write: our pending operation is a write all the while. */
	struct replica *r = replica_new();
	struct chp_hermes_inv m;

	submit(r, CHP_OPCODE_PUT, "x", "ours");
	m = r->sent[0].inv;
	inv(r, 1, "x", v(3, 2), 0, CHP_INV_RMW, "rmw");
	expect_state(r, "x", "Trans v3.2 own v2");
	inv(r, 2, "x", v(5, 3), v(3, 2), 0, "write");
	expect_state(r, "x", "Trans v5.3 own v2");
	val(r, 2, v(5, 3));
	cr_assert_eq(r->n_answers, 0);
	cr_assert_eq(r->counters.aborts, 0);
	ack(r, 1, &m);
	ack(r, 2, &m);
	expect_answer(r, 0, CHP_OPCODE_PUT, CHP_STATUS_OK, v(2, 1));
	replica_free(r);
}

/* ------------------------------------------------------------------ SAFETY 12: room
 * "Busy is decided at admission, before the first INV, and means: certainly not applied."
 */

Test(hermes, s12_no_operation_begins_without_a_credit_of_every_peer)
{
	struct replica *r = replica_new();

	for (uint32_t n = 0; n < NODES; n++) {
		r->out.lane[n].credits = 0;
		submit(r, CHP_OPCODE_PUT, "x", "one");
		expect_answer(r, 0, CHP_OPCODE_PUT, CHP_STATUS_BUSY, 0);
		cr_assert_eq(r->n_sent, 0);
		r->out.lane[n].credits = 1000;
	}
	expect_state(r, "x", "absent");
	cr_assert_eq(r->counters.busy, NODES);
	/* Reads need none. */
	r->out.lane[1].credits = 0;
	expect_value(r, "x", NULL);
	replica_free(r);
}

Test(hermes, s12_no_more_than_the_credits_of_one_node_are_open)
{
	struct replica *r = replica_new();
	char key[8];

	for (uint32_t i = 0; i < CREDITS; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		submit(r, CHP_OPCODE_PUT, key, "v");
		cr_assert_eq(r->n_answers, 0);
	}
	submit(r, CHP_OPCODE_PUT, "more", "v");
	expect_answer(r, 0, CHP_OPCODE_PUT, CHP_STATUS_BUSY, 0);
	replica_free(r);
}

Test(hermes, s12_acks_and_vals_need_no_credit)
{
	struct replica *r = replica_new();
	struct chp_hermes_inv m;

	submit(r, CHP_OPCODE_PUT, "x", "one");
	m = r->sent[0].inv;
	for (uint32_t n = 0; n < NODES; n++)
		r->out.lane[n].credits = 0;
	inv(r, 1, "y", v(2, 2), 0, 0, "two");
	expect_ack(r, 1, v(2, 2));
	ack(r, 1, &m);
	ack(r, 2, &m);
	cr_assert_eq(r->n_sent, 2);
	replica_free(r);
}

Test(hermes, s12_operations_that_find_no_place_to_wait_are_busy)
{
	struct replica *r = replica_new();

	inv(r, 1, "x", v(2, 2), 0, 0, "one");
	for (uint32_t i = 0; i < 32; i++)
		submit(r, CHP_OPCODE_GET, "x", NULL);
	cr_assert_eq(chp_hermes.open_ops(r->p), 32);
	submit(r, CHP_OPCODE_GET, "x", NULL);
	expect_answer(r, 0, CHP_OPCODE_GET, CHP_STATUS_BUSY, 0);
	submit(r, CHP_OPCODE_PUT, "y", "two");
	expect_answer(r, 0, CHP_OPCODE_PUT, CHP_STATUS_BUSY, 0);
	replica_free(r);
}

Test(hermes, s12_a_full_cache_has_its_own_status)
{
	struct replica *r = replica_new();
	char key[8];

	for (uint32_t i = 0; i < KEYS; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		put_valid(r, key, "v");
	}
	submit(r, CHP_OPCODE_PUT, "more", "v");
	expect_answer(r, 0, CHP_OPCODE_PUT, CHP_STATUS_FULL, 0);
	cr_assert_eq(r->counters.full, 1);
	put_valid(r, "k0", "old keys can be written");
	submit(r, CHP_OPCODE_DELETE, "k1", NULL);
	cr_assert_eq(r->n_sent, 2, "and deleted");
	/* A peer's is taken: its room is kept behind what is admitted. */
	inv(r, 1, "theirs", v(2, 2), 0, 0, "v");
	expect_ack(r, 1, v(2, 2));
	cr_assert_eq(r->counters.overrun, 0);
	replica_free(r);
}

/* ------------------------------------------------------------------ deletes */

Test(hermes, a_delete_is_an_rmw_of_a_tombstone)
{
	struct replica *r = replica_new();
	struct chp_hermes_inv m;

	submit(r, CHP_OPCODE_DELETE, "x", NULL);
	expect_answer(r, 0, CHP_OPCODE_DELETE, CHP_STATUS_NOT_FOUND, 0);
	put_valid(r, "x", "one");
	submit(r, CHP_OPCODE_DELETE, "x", NULL);
	expect_inv(r, 0, 1, v(3, 1), v(2, 1), CHP_INV_RMW | CHP_INV_TOMBSTONE, "");
	m = r->sent[0].inv;
	ack(r, 1, &m);
	ack(r, 2, &m);
	expect_answer(r, 0, CHP_OPCODE_DELETE, CHP_STATUS_OK, v(3, 1));
	expect_value(r, "x", NULL);
	submit(r, CHP_OPCODE_DELETE, "x", NULL);
	expect_answer(r, 0, CHP_OPCODE_DELETE, CHP_STATUS_NOT_FOUND, v(3, 1));
	submit(r, CHP_OPCODE_ADD, "x", "again");
	expect_inv(r, 0, 1, v(4, 1), v(3, 1), CHP_INV_RMW, "again");
	replica_free(r);
}

Test(hermes, a_late_inv_of_before_a_delete_is_stale)
{
	struct replica *r = replica_new();

	inv(r, 1, "x", v(2, 2), 0, 0, "one");
	inv(r, 1, "x", v(5, 2), v(4, 2), CHP_INV_RMW | CHP_INV_TOMBSTONE, "");
	val(r, 1, v(5, 2));
	inv(r, 2, "x", v(4, 3), v(2, 2), 0, "late");
	expect_ack(r, 2, v(4, 3));
	expect_value(r, "x", NULL);
	replica_free(r);
}

/* ------------------------------------------------------------------ sessions (SAFETY 24, 25) */

Test(hermes, s25_a_record_is_kept_whether_the_value_is_adopted_or_not)
{
	struct replica *r = replica_new();
	struct chp_session *session = chp_session_open(&r->sessions, 9);
	struct sent s = inv_of("x", v(2, 2), 0, 0, "older", 3);
	struct chp_record *record;

	inv(r, 2, "x", v(2, 3), 0, 0, "newer");
	s.inv.session = 9;
	s.inv.request = 2;
	s.inv.number = 44;
	step(r, 1, &s.inv);
	expect_ack(r, 1, v(2, 2));
	record = chp_session_record(&r->sessions, session, 2);
	cr_assert_eq(record->state, CHP_RECORD_SEEN);
	cr_assert_eq(record->request, 2);
	cr_assert_eq(record->version, v(2, 2));
	cr_assert_eq(record->number, 44);
	replica_free(r);
}

Test(hermes, s24_sessions_open_and_close_by_replicated_writes)
{
	struct replica *r = replica_new();
	uint64_t id = 0x0002000000000005;
	struct sent s = inv_of("12345678", v(2, 2), 0, CHP_INV_SESSION, "", 3);
	struct chp_op op;

	memcpy(s.bytes + sizeof(s.inv), &id, sizeof(id));
	step(r, 1, &s.inv);
	expect_ack(r, 1, v(2, 2));
	cr_assert_not_null(chp_session_find(&r->sessions, id));
	val(r, 1, v(2, 2));
	s.inv.version = v(4, 2);
	s.inv.base = v(2, 2);
	s.inv.inv_flags = CHP_INV_SESSION | CHP_INV_TOMBSTONE;
	step(r, 1, &s.inv);
	cr_assert_null(chp_session_find(&r->sessions, id));
	val(r, 1, v(4, 2));
	/* Our own. */
	id++;
	op = (struct chp_op){ .opcode = CHP_OPCODE_SESSION_OPEN,
			      .key = { .bytes = (const uint8_t *)&id, .len = 8, .session = true, .pos = -1 } };
	op.key.digest = chp_cache_digest(r->env.cache, op.key.bytes, 8, true);
	submit_op(r, op);
	expect_inv(r, 0, 1, v(2, 1), 0, CHP_INV_SESSION, "");
	struct chp_hermes_inv m = r->sent[0].inv;

	ack(r, 1, &m);
	ack(r, 2, &m);
	expect_answer(r, 0, CHP_OPCODE_SESSION_OPEN, CHP_STATUS_OK, v(2, 1));
	cr_assert_eq(r->answer[0].reply.number, id);
	replica_free(r);
}

Test(hermes, s24_the_client_of_a_write_travels_with_it)
{
	struct replica *r = replica_new();
	struct chp_op op = op_of(r, CHP_OPCODE_PUT, "x", "one");

	op.session = 9;
	op.request = 3;
	submit_op(r, op);
	cr_assert_eq(r->sent[0].inv.session, 9);
	cr_assert_eq(r->sent[0].inv.request, 3);
	replica_free(r);
}

/* ------------------------------------------------------------------ a learner */

Test(hermes, s9_an_item_of_the_copy_is_taken_over_an_older_write_that_nobody_validates)
{
	const struct replica_setup setup = { .self = SELF, .keys_max = KEYS, .value_blocks_max = 200 };
	struct replica *r = replica_of(&setup);
	uint32_t transfer;

	enter_view(r, 6, 1);
	wake(r, CHP_BATCH_MAX);
	transfer = transfer_asked(r);
	/* Node 2's write was overtaken before: the view made it send it again, and it will send no VAL. */
	inv(r, 2, "x", v(2, 3), 0, 0, "old");
	copy_item(r, transfer, "x", v(4, 2), "new");
	expect_state(r, "x", "Valid v4.2");
	cr_assert_eq(chp_log_unsettled(&r->log), 0);
	cr_assert_eq(r->copy_counters.no_room, 0);
	/* One that is under way and newer stays. */
	inv(r, 2, "y", v(6, 3), 0, 0, "newer");
	copy_item(r, transfer, "y", v(4, 2), "new");
	expect_state(r, "y", "Invalid v6.3");
	floor_from(r, 1, 0);
	floor_from(r, 2, 0);
	copy_end(r, transfer);
	wake(r, CHP_BATCH_MAX);
	cr_assert(chp_hermes.copy_done(r->p));
	replica_free(r);
}

/* ------------------------------------------------------------------ messages that are wrong */

Test(hermes, malformed_messages_are_not_accepted)
{
	struct sent s = inv_of("x", v(2, 2), 0, 0, "value", 3);
	struct chp_hermes_ack a = { .message = { .type = CHP_HERMES_ACK, .len = sizeof(a) } };

	cr_assert(chp_hermes.accepts(&s.message, VALUE_MAX));
	s.inv.value_total = VALUE_MAX + 1;
	cr_assert_not(chp_hermes.accepts(&s.message, VALUE_MAX));
	s = inv_of("x", v(2, 2), v(2, 2), 0, "value", 3);
	cr_assert_not(chp_hermes.accepts(&s.message, VALUE_MAX), "issued on itself");
	s = inv_of("x", v(2, 2), 0, CHP_INV_TOMBSTONE, "value", 3);
	cr_assert_not(chp_hermes.accepts(&s.message, VALUE_MAX), "a tombstone with a value");
	s = inv_of("x", v(2, 2), 0, CHP_INV_SESSION, "", 3);
	cr_assert_not(chp_hermes.accepts(&s.message, VALUE_MAX), "a session number of one byte");
	s = inv_of("x", 0, 0, 0, "", 3);
	cr_assert_not(chp_hermes.accepts(&s.message, VALUE_MAX), "no version");
	cr_assert(chp_hermes.accepts(&a.message, VALUE_MAX));
	a.message.len += 8;
	cr_assert_not(chp_hermes.accepts(&a.message, VALUE_MAX));
	a.message.type = 0x40;
	cr_assert_not(chp_hermes.accepts(&a.message, VALUE_MAX));
}
