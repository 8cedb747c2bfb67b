/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/bytes.h"
#include "base/random.h"
#include "sessions/sessions.h"
#include "../support/short_memory.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static struct chp_sessions
table_of(uint32_t capacity, uint32_t window)
{
	struct chp_sessions t;

	cr_assert_eq(chp_sessions_init(&t, capacity, window, &chp_memory_libc), 0);
	return t;
}

/*
 * Session numbers: every other one as they are, the version of the write that opened the session,
 * the rest at random, because the table spreads the former so well that they hardly ever meet.
 */
static uint64_t
id_of(uint64_t i)
{
	struct chp_random r = { i };

	return i % 2 == 0 ? (i + 2) << 16 | 3 : chp_random_u64(&r);
}

Test(sessions, open_find_close)
{
	struct chp_sessions t = table_of(4, 8);

	cr_assert_null(chp_session_find(&t, 5));
	struct chp_session *s = chp_session_open(&t, 5);

	cr_assert_eq(s->id, 5);
	cr_assert_eq(s->lowest, 0);
	cr_assert_eq(s->open_ops, 0);
	cr_assert_eq(chp_session_find(&t, 5), s);
	cr_assert_eq(chp_session_open(&t, 5), s, "opening again finds it");
	cr_assert_eq(t.n, 1);
	cr_assert_null(chp_session_find(&t, 6));
	cr_assert_null(chp_session_find(&t, 0));
	chp_session_close(&t, 6);
	cr_assert_eq(t.n, 1);
	chp_session_close(&t, 5);
	cr_assert_null(chp_session_find(&t, 5));
	chp_session_close(&t, 5);
	cr_assert_eq(t.n, 0);
	chp_sessions_check(&t);
	chp_sessions_fini(&t, &chp_memory_libc);
}

Test(sessions, a_new_session_has_nothing_of_the_old)
{
	struct chp_sessions t = table_of(1, 4);
	struct chp_session *s = chp_session_open(&t, 1);

	s->lowest = 9;
	s->used_ns = 10;
	s->open_ops = 2;
	for (uint64_t request = 1; request <= 4; request++) {
		struct chp_record *r = chp_session_record(&t, s, request);

		*r = (struct chp_record){ .request = request, .state = CHP_RECORD_DONE };
	}
	chp_sessions_check(&t);
	chp_session_close(&t, 1);
	chp_sessions_check(&t);
	s = chp_session_open(&t, 2);
	cr_assert(s->lowest == 0 && s->used_ns == 0 && s->open_ops == 0);
	for (uint64_t request = 1; request <= 4; request++)
		cr_assert_eq(chp_session_record(&t, s, request)->state, CHP_RECORD_EMPTY);
	chp_sessions_fini(&t, &chp_memory_libc);
}

Test(sessions, every_place_can_be_used)
{
	struct chp_sessions t = table_of(1000, 2);

	for (int round = 0; round < 3; round++) {
		for (uint64_t i = 0; i < 1000; i++)
			chp_session_open(&t, id_of(i))->lowest = i;
		cr_assert_eq(t.n, 1000);
		chp_sessions_check(&t);
		for (uint64_t i = 0; i < 1000; i++)
			cr_assert_eq(chp_session_find(&t, id_of(i))->lowest, i);
		for (uint64_t i = 0; i < 1000; i++)
			chp_session_close(&t, id_of((i * 7 + 3) % 1000));
		cr_assert_eq(t.n, 0);
		chp_sessions_check(&t);
	}
	chp_sessions_fini(&t, &chp_memory_libc);
}

Test(sessions, records_are_a_window)
{
	struct chp_sessions t = table_of(3, 8);
	struct chp_session *a = chp_session_open(&t, 1), *b = chp_session_open(&t, 2);

	for (uint64_t i = 0; i < 8; i++) {
		for (uint64_t j = 0; j < i; j++)
			cr_assert_neq(chp_session_record(&t, a, i), chp_session_record(&t, a, j));
		cr_assert_eq(chp_session_record(&t, a, i), chp_session_record(&t, a, i + 8));
		cr_assert_neq(chp_session_record(&t, a, i), chp_session_record(&t, b, i));
	}
	cr_assert_eq(chp_session_record(&t, a, UINT64_MAX), chp_session_record(&t, a, 7));
	chp_sessions_fini(&t, &chp_memory_libc);
}

static void
expect_record(const struct chp_record *r, uint64_t request, uint8_t state, uint64_t version,
	      uint64_t number)
{
	cr_assert_eq(r->request, request);
	cr_assert_eq(r->state, state);
	cr_assert_eq(r->version, version);
	cr_assert_eq(r->number, number);
}

Test(sessions, a_write_that_passes_is_remembered)
{
	struct chp_sessions t = table_of(2, 4);
	struct chp_session *s = chp_session_open(&t, 1);
	struct chp_record *r = chp_session_record(&t, s, 5);

	chp_session_saw(&t, 2, 5, 100, 7, false, false); /* no such session */
	chp_session_saw(&t, 0, 5, 100, 7, false, false); /* a write without one */
	cr_assert_eq(r->state, CHP_RECORD_EMPTY);
	chp_session_saw(&t, 1, 5, 100, 7, false, false);
	expect_record(r, 5, CHP_RECORD_SEEN, 100, 7);
	/* The same request tried again with a newer version. */
	chp_session_saw(&t, 1, 5, 200, 8, false, false);
	expect_record(r, 5, CHP_RECORD_SEEN, 200, 8);
	/* The first try, replayed late. */
	chp_session_saw(&t, 1, 5, 100, 7, false, false);
	expect_record(r, 5, CHP_RECORD_SEEN, 200, 8);
	/* An older request of the same place, replayed late. */
	chp_session_saw(&t, 1, 1, 300, 9, false, false);
	expect_record(r, 5, CHP_RECORD_SEEN, 200, 8);
	/* A newer one takes the place, whatever its version. */
	chp_session_saw(&t, 1, 9, 150, 3, false, false);
	expect_record(r, 9, CHP_RECORD_SEEN, 150, 3);
	chp_sessions_check(&t);
	chp_sessions_fini(&t, &chp_memory_libc);
}

Test(sessions, an_answer_is_never_replaced_by_its_own_write)
{
	struct chp_sessions t = table_of(2, 4);
	struct chp_session *s = chp_session_open(&t, 1);
	struct chp_record *r = chp_session_record(&t, s, 5);

	*r = (struct chp_record){
		.request = 5, .version = 10, .number = 20, .state = CHP_RECORD_DONE,
	};
	chp_session_saw(&t, 1, 5, 11, 21, false, false);
	expect_record(r, 5, CHP_RECORD_DONE, 10, 20);
	chp_session_saw(&t, 1, 9, 12, 22, false, false);
	expect_record(r, 9, CHP_RECORD_SEEN, 12, 22);
	cr_assert_eq(r->status, 0);
	chp_sessions_fini(&t, &chp_memory_libc);
}

/* SAFETY 25: what failed at one home may have been executed by the next, and then counts. */
Test(sessions, a_failure_is_replaced_by_the_write_of_a_later_home)
{
	struct chp_sessions t = table_of(2, 4);
	struct chp_session *s = chp_session_open(&t, 1);
	struct chp_record *r = chp_session_record(&t, s, 5);

	*r = (struct chp_record){ .request = 5, .version = 900, .state = CHP_RECORD_DONE, .status = 3 };
	chp_session_saw(&t, 1, 5, 11, 21, true, false);
	expect_record(r, 5, CHP_RECORD_SEEN, 11, 21);
	cr_assert_eq(r->status, 0);
	cr_assert_eq(r->rmw, 1);
	chp_sessions_fini(&t, &chp_memory_libc);
}

/* SAFETY 7: the fate of a read-modify-write is settled once, and only that of the very try. */
Test(sessions, a_fate_is_settled_once)
{
	struct chp_sessions t = table_of(2, 4);
	struct chp_session *s = chp_session_open(&t, 1);
	struct chp_record *r = chp_session_record(&t, s, 5);

	chp_session_saw(&t, 1, 5, 11, 21, true, false);
	cr_assert_eq(r->fate, CHP_FATE_OPEN);
	chp_session_settle(&t, 1, 5, 10, CHP_FATE_COMMITTED); /* an earlier try */
	chp_session_settle(&t, 1, 6, 11, CHP_FATE_COMMITTED); /* another request */
	chp_session_settle(&t, 2, 5, 11, CHP_FATE_COMMITTED); /* another session */
	chp_session_settle(&t, 0, 5, 11, CHP_FATE_COMMITTED);
	cr_assert_eq(r->fate, CHP_FATE_OPEN);
	chp_session_settle(&t, 1, 5, 11, CHP_FATE_ABORTED);
	chp_session_settle(&t, 1, 5, 11, CHP_FATE_COMMITTED);
	cr_assert_eq(r->fate, CHP_FATE_ABORTED);
	/* The same try replayed changes nothing, the next one is open again. */
	chp_session_saw(&t, 1, 5, 11, 21, true, false);
	cr_assert_eq(r->fate, CHP_FATE_ABORTED);
	chp_session_saw(&t, 1, 5, 15, 22, true, false);
	expect_record(r, 5, CHP_RECORD_SEEN, 15, 22);
	cr_assert_eq(r->fate, CHP_FATE_OPEN);
	chp_sessions_fini(&t, &chp_memory_libc);
}

/* A learner hears of writes before the opening of their session was copied to it. */
Test(sessions, a_learner_guesses_sessions_and_drops_wrong_guesses)
{
	struct chp_sessions t = table_of(2, 4);

	chp_session_saw(&t, 1, 5, 11, 21, false, true);
	chp_session_saw(&t, 2, 7, 12, 22, false, true);
	chp_session_saw(&t, 3, 7, 12, 22, false, true); /* no room: ignored */
	cr_assert_eq(t.n, 2);
	cr_assert_null(chp_session_find(&t, 3));
	chp_session_open(&t, 2); /* copied, or opened again by a late INV */
	chp_sessions_drop_guesses(&t);
	cr_assert_null(chp_session_find(&t, 1));
	expect_record(chp_session_record(&t, chp_session_find(&t, 2), 7), 7, CHP_RECORD_SEEN, 12, 22);
	chp_sessions_check(&t);
	chp_sessions_fini(&t, &chp_memory_libc);
}

Test(sessions, a_copied_record_never_replaces_a_newer_one)
{
	struct chp_sessions t = table_of(2, 4);
	const struct chp_record old = { .request = 5, .version = 10, .number = 1 };
	const struct chp_record committed = {
		.request = 9, .version = 30, .number = 3, .rmw = 1, .fate = CHP_FATE_COMMITTED,
	};
	struct chp_record *r;

	chp_session_copied(&t, 1, &old);
	r = chp_session_record(&t, chp_session_find(&t, 1), 5);
	expect_record(r, 5, CHP_RECORD_SEEN, 10, 1);
	chp_session_saw(&t, 1, 5, 20, 2, false, true);
	chp_session_copied(&t, 1, &old);
	expect_record(r, 5, CHP_RECORD_SEEN, 20, 2);
	chp_session_copied(&t, 1, &committed);
	expect_record(r, 9, CHP_RECORD_SEEN, 30, 3);
	cr_assert_eq(r->fate, CHP_FATE_COMMITTED);
	chp_session_copied(&t, 1, &old);
	expect_record(r, 9, CHP_RECORD_SEEN, 30, 3);
	chp_sessions_check(&t);
	chp_sessions_fini(&t, &chp_memory_libc);
}

/* Whoever executes it here will answer: a retry must go on waiting for that. */
Test(sessions, a_pending_request_stays_pending)
{
	struct chp_sessions t = table_of(2, 4);
	struct chp_session *s = chp_session_open(&t, 1);
	struct chp_record *r = chp_session_record(&t, s, 5);

	*r = (struct chp_record){ .request = 5, .state = CHP_RECORD_PENDING };
	chp_session_saw(&t, 1, 5, 11, 21, false, false);
	expect_record(r, 5, CHP_RECORD_PENDING, 11, 21);
	chp_session_saw(&t, 1, 1, 12, 22, false, false);
	expect_record(r, 5, CHP_RECORD_PENDING, 11, 21);
	chp_session_saw(&t, 1, 9, 13, 23, false, false);
	expect_record(r, 9, CHP_RECORD_SEEN, 13, 23);
	chp_sessions_fini(&t, &chp_memory_libc);
}

Test(sessions, a_log_decides_a_record)
{
	struct chp_sessions t = table_of(2, 4);
	struct chp_session *s = chp_session_open(&t, 1);
	struct chp_record *r = chp_session_record(&t, s, 6);

	chp_session_done(&t, 1, 6, 3, 100, 7);
	cr_assert(r->state == CHP_RECORD_DONE && r->request == 6 && r->status == 3 && r->version == 100 &&
		  r->number == 7);
	chp_session_done(&t, 1, 6, 0, 101, 8); /* the same request, another end: the last one counts */
	cr_assert(r->status == 0 && r->version == 101 && r->number == 8);
	chp_session_done(&t, 1, 2, 3, 50, 1);
	cr_assert(r->request == 6 && r->status == 0, "an older request of the same place");
	*r = (struct chp_record){ .request = 10, .state = CHP_RECORD_PENDING };
	chp_session_done(&t, 1, 6, 3, 50, 1);
	cr_assert(r->request == 10 && r->state == CHP_RECORD_PENDING);
	chp_session_done(&t, 1, 10, 0, 200, 9);
	cr_assert(r->request == 10 && r->state == CHP_RECORD_DONE && r->version == 200);
	chp_session_done(&t, 1, 14, 0, 300, 9);
	cr_assert(r->request == 14 && r->version == 300, "a newer one replaces it");
	*r = (struct chp_record){ .request = 18, .state = CHP_RECORD_SEEN, .is_asked = 1, .rmw = 1, .fate = 2 };
	chp_session_done(&t, 1, 18, 0, 400, 9);
	cr_assert(r->state == CHP_RECORD_DONE && r->is_asked == 0 && r->rmw == 0 && r->fate == 0);
	chp_session_done(&t, 2, 1, 0, 500, 9);
	chp_session_done(&t, 0, 1, 0, 500, 9);
	cr_assert_eq(t.n, 1, "unknown sessions are not opened");
	cr_assert_eq(chp_session_record(&t, s, 1)->state, CHP_RECORD_EMPTY);
	chp_sessions_check(&t);
	chp_sessions_fini(&t, &chp_memory_libc);
}

Test(sessions, the_digest_is_of_the_set)
{
	struct chp_sessions a = table_of(10, 1), b = table_of(20, 4);

	cr_assert_eq(chp_sessions_digest(&a), chp_sessions_digest(&b));
	for (uint64_t i = 0; i < 5; i++)
		chp_session_open(&a, id_of(i));
	for (uint64_t i = 7; i-- > 0;) {
		cr_assert_neq(chp_sessions_digest(&a), chp_sessions_digest(&b));
		chp_session_open(&b, id_of(i));
	}
	chp_session_close(&b, id_of(6));
	cr_assert_neq(chp_sessions_digest(&a), chp_sessions_digest(&b));
	chp_session_close(&b, id_of(5));
	cr_assert_eq(chp_sessions_digest(&a), chp_sessions_digest(&b));
	chp_sessions_fini(&a, &chp_memory_libc);
	chp_sessions_fini(&b, &chp_memory_libc);
}

#define MODEL_IDS 60u
#define MODEL_WINDOW 4u

struct model_session {
	bool open;
	struct chp_record record[MODEL_WINDOW];
};

static void
model_expect(const struct model_session *m, const struct chp_sessions *t)
{
	uint32_t n = 0;

	for (uint64_t i = 0; i < MODEL_IDS; i++) {
		const struct chp_session *s = chp_session_find(t, id_of(i));

		cr_assert_eq(s != NULL, m[i].open);
		if (s == NULL)
			continue;
		n++;
		for (uint64_t w = 0; w < MODEL_WINDOW; w++) {
			const struct chp_record *r = chp_session_record(t, s, w);
			const struct chp_record *want = &m[i].record[w];

			cr_assert_eq(r->state, want->state);
			if (want->state != CHP_RECORD_EMPTY)
				expect_record(r, want->request, want->state, want->version,
					      want->number);
		}
	}
	cr_assert_eq(t->n, n);
	chp_sessions_check(t);
}

static void
model_saw(struct model_session *m, uint64_t request, uint64_t version, uint64_t number)
{
	struct chp_record *r = &m->record[request % MODEL_WINDOW];
	bool empty = r->state == CHP_RECORD_EMPTY;

	if (!m->open || (!empty && r->request > request))
		return;
	if (!empty && r->request == request &&
	    ((r->state == CHP_RECORD_DONE && r->status == 0) || (r->state != CHP_RECORD_DONE && r->version >= version)))
		return;
	if (empty || r->request != request)
		r->state = CHP_RECORD_SEEN;
	r->request = request;
	r->version = version;
	r->number = number;
}

Test(sessions, agrees_with_an_array)
{
	for (uint64_t seed = 1; seed <= 8; seed++) {
		struct chp_sessions t = table_of(40, MODEL_WINDOW);
		struct model_session m[MODEL_IDS] = { 0 };
		struct chp_random r = { seed };
		uint32_t full = 0;

		for (uint32_t step = 0; step < 20000; step++) {
			uint64_t i = chp_random_below(&r, MODEL_IDS);
			uint64_t request = chp_random_below(&r, 20);
			uint64_t version = chp_random_below(&r, 1000);
			struct chp_session *s = chp_session_find(&t, id_of(i));

			full += t.n == t.capacity;
			switch (chp_random_below(&r, 6)) {
			case 0:
			case 1:
				if (t.n < t.capacity || s != NULL) {
					chp_session_open(&t, id_of(i));
					m[i].open = true;
				}
				break;
			case 2:
				chp_session_close(&t, id_of(i));
				m[i] = (struct model_session){ 0 };
				break;
			case 3:
				if (s != NULL) {
					struct chp_record own = {
						.request = request,
						.version = version,
						.state = step % 2 ? CHP_RECORD_PENDING :
								    CHP_RECORD_DONE,
					};

					*chp_session_record(&t, s, request) = own;
					m[i].record[request % MODEL_WINDOW] = own;
				}
				break;
			default:
				chp_session_saw(&t, id_of(i), request, version, step, false, false);
				model_saw(&m[i], request, version, step);
			}
			if (step % 100 == 0)
				model_expect(m, &t);
		}
		model_expect(m, &t);
		cr_assert_gt(full, 0, "the table was never full");
		chp_sessions_fini(&t, &chp_memory_libc);
	}
}

Test(sessions, too_little_memory_is_an_error)
{
	struct chp_sessions t;

	for (int enough = 0; enough < 3; enough++) {
		short_memory_left = enough;
		cr_assert_eq(chp_sessions_init(&t, 10, 8, &short_memory), -ENOMEM);
		cr_assert_eq(short_memory_held, 0);
	}
	short_memory_left = 3;
	cr_assert_eq(chp_sessions_init(&t, 10, 8, &short_memory), 0);
	chp_sessions_fini(&t, &short_memory);
	chp_sessions_fini(&t, &short_memory);
	cr_assert_eq(short_memory_held, 0);
}

Test(sessions, one_too_many_asserts, .signal = SIGABRT)
{
	struct chp_sessions t = table_of(2, 1);

	for (uint64_t i = 0; i < 3; i++)
		chp_session_open(&t, id_of(i));
}

Test(sessions, number_zero_asserts, .signal = SIGABRT)
{
	struct chp_sessions t = table_of(2, 1);

	chp_session_open(&t, 0);
}

Test(sessions, a_record_out_of_place_is_found_by_check, .signal = SIGABRT)
{
	struct chp_sessions t = table_of(2, 4);
	struct chp_record *r = chp_session_record(&t, chp_session_open(&t, 1), 2);

	r->state = CHP_RECORD_DONE;
	r->request = 3;
	chp_sessions_check(&t);
}
