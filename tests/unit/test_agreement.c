/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One instance of Paxos: the rules of each role, and a network of 1 to 7 of them that loses, repeats and
 * reorders everything, in which no two proposers ever see different views decided.
 */
#include "core/agreement.h"

#include "base/random.h"

#include <criterion/criterion.h>
#include <string.h>

#define NODES_MAX 7u
#define MESSAGES_MAX 4096u
#define BALLOT(round, node) ((uint64_t)(round) << 8 | (node))

static const struct chp_view before = { .epoch = 4, .voters = 7 };

/* A view of epoch 5 that can be told from others by its writer. */
static struct chp_view
view_of(uint16_t mark)
{
	return (struct chp_view){ .epoch = 5, .voters = 3, .next_writer = mark };
}

static struct chp_agreement a;

static void
begin(uint32_t self)
{
	chp_agreement_begin(&a, self, &before);
	chp_agreement_check(&a);
	cr_assert_eq(a.epoch, 5);
	cr_assert_eq(a.voters, 7);
}

Test(agreement, majorities_are_of_all_voters)
{
	static const uint32_t want[] = { 1, 2, 2, 3, 3, 4, 4 };

	for (uint32_t n = 1; n <= 7; n++)
		cr_assert_eq(chp_agreement_majority((1u << n) - 1), want[n - 1]);
	cr_assert_eq(chp_agreement_majority(UINT64_MAX), 33);
}

Test(agreement, an_acceptor_promises_the_highest_ballot)
{
	begin(1);
	cr_assert(chp_agreement_promise(&a, BALLOT(2, 0)));
	cr_assert(chp_agreement_promise(&a, BALLOT(2, 0)), "again");
	cr_assert(chp_agreement_promise(&a, BALLOT(2, 2)), "the node id breaks ties");
	cr_assert_not(chp_agreement_promise(&a, BALLOT(2, 0)));
	cr_assert_not(chp_agreement_promise(&a, BALLOT(1, 2)));
	cr_assert_eq(a.promised, BALLOT(2, 2));
	chp_agreement_check(&a);
}

Test(agreement, an_acceptor_accepts_nothing_below_its_promise)
{
	struct chp_view v = view_of(10), other = view_of(11);

	begin(1);
	cr_assert(chp_agreement_promise(&a, BALLOT(3, 2)));
	cr_assert_not(chp_agreement_accept(&a, BALLOT(2, 0), &v));
	cr_assert_eq(a.accepted_ballot, 0);
	cr_assert(chp_agreement_accept(&a, BALLOT(3, 2), &v));
	cr_assert_eq(a.accepted.next_writer, 10);
	/* Without having promised: the acceptance is a promise too. */
	cr_assert(chp_agreement_accept(&a, BALLOT(4, 0), &other));
	cr_assert_eq(a.promised, BALLOT(4, 0));
	cr_assert_eq(a.accepted.next_writer, 11);
	cr_assert_not(chp_agreement_promise(&a, BALLOT(3, 2)));
	cr_assert_not(chp_agreement_accept(&a, BALLOT(3, 2), &v));
	cr_assert_eq(a.accepted.next_writer, 11);
	chp_agreement_check(&a);
}

Test(agreement, a_proposer_decides_with_a_majority)
{
	struct chp_view v = view_of(10);

	begin(1);
	cr_assert(chp_agreement_propose(&a, &v, 2));
	chp_agreement_check(&a);
	cr_assert_eq(a.ballot, BALLOT(1, 1));
	cr_assert_eq(a.phase, CHP_AGREEMENT_PREPARING);
	cr_assert_eq(a.answered, 2, "its own promise");
	cr_assert_not(chp_agreement_promised(&a, 1, a.ballot, 0, NULL), "one is one, however often");
	cr_assert_not(chp_agreement_promised(&a, 3, a.ballot, 0, NULL), "not a voter");
	cr_assert_not(chp_agreement_promised(&a, 0, BALLOT(9, 1), 0, NULL), "another ballot");
	cr_assert_not(chp_agreement_accepted(&a, 0, a.ballot), "nothing was proposed yet");
	cr_assert(chp_agreement_promised(&a, 0, a.ballot, 0, NULL));
	cr_assert_eq(a.phase, CHP_AGREEMENT_ACCEPTING);
	cr_assert_eq(a.value.next_writer, 10);
	cr_assert_not(chp_agreement_promised(&a, 2, a.ballot, BALLOT(1, 0), &before), "too late to matter");
	cr_assert_eq(a.value.next_writer, 10);
	cr_assert(chp_agreement_accept(&a, a.ballot, &v));
	cr_assert_not(chp_agreement_accepted(&a, 1, a.ballot));
	cr_assert_not(chp_agreement_accepted(&a, 1, a.ballot));
	cr_assert_not(chp_agreement_accepted(&a, 2, BALLOT(0, 1)));
	cr_assert(chp_agreement_accepted(&a, 2, a.ballot));
	cr_assert_eq(a.phase, CHP_AGREEMENT_IDLE);
	chp_agreement_check(&a);
}

/* Pitfall P37. */
Test(agreement, a_proposer_adopts_what_was_accepted_at_the_highest_ballot)
{
	struct chp_view own = view_of(10), low = view_of(11), high = view_of(12);

	begin(1);
	cr_assert(chp_agreement_accept(&a, BALLOT(1, 0), &low));
	cr_assert(chp_agreement_propose(&a, &own, 2));
	cr_assert_eq(a.value.next_writer, 11, "its own acceptance counts too");
	cr_assert(chp_agreement_promised(&a, 2, a.ballot, BALLOT(1, 2), &high));
	cr_assert_eq(a.value.next_writer, 12);

	begin(1);
	cr_assert(chp_agreement_propose(&a, &own, 3));
	cr_assert_not(chp_agreement_promised(&a, 2, a.ballot, BALLOT(1, 0), &high));
	cr_assert(chp_agreement_promised(&a, 0, a.ballot, BALLOT(0, 2), &low));
	cr_assert_eq(a.value.next_writer, 12);
}

Test(agreement, a_higher_ballot_ends_a_proposal)
{
	struct chp_view v = view_of(10);

	begin(0);
	cr_assert(chp_agreement_propose(&a, &v, 2));
	cr_assert_not(chp_agreement_rejected(&a, a.ballot), "not higher");
	cr_assert(chp_agreement_rejected(&a, BALLOT(7, 2)));
	cr_assert_eq(a.phase, CHP_AGREEMENT_IDLE);
	cr_assert_not(chp_agreement_rejected(&a, BALLOT(7, 2)), "only once");
	cr_assert(chp_agreement_propose(&a, &v, 2));
	cr_assert_eq(a.ballot, BALLOT(8, 0), "above all that it heard of");
	cr_assert(chp_agreement_promise(&a, BALLOT(8, 1)));
	cr_assert_eq(a.phase, CHP_AGREEMENT_IDLE);
	cr_assert_not(chp_agreement_promised(&a, 1, BALLOT(8, 0), 0, NULL));
	cr_assert(chp_agreement_propose(&a, &v, 2));
	cr_assert_eq(a.ballot, BALLOT(9, 0));
	chp_agreement_check(&a);
}

Test(agreement, ballots_end_and_nothing_breaks)
{
	struct chp_view v = view_of(10);

	begin(0);
	chp_agreement_rejected(&a, BALLOT(CHP_AGREEMENT_ROUND_MAX, 2));
	cr_assert_not(chp_agreement_propose(&a, &v, 2));
	cr_assert_eq(a.phase, CHP_AGREEMENT_IDLE);
	chp_agreement_check(&a);
}

/* ---- a network ---- */

enum kind { PREPARE, PROMISE, ACCEPT, ACCEPTED, REJECTED };

struct message {
	enum kind kind;
	uint32_t from, to;
	uint64_t ballot, accepted;
	struct chp_view view;
};

static struct chp_agreement net[NODES_MAX];
static struct message message[MESSAGES_MAX];
static uint32_t n_messages;

static void
post(struct chp_random *r, struct message m)
{
	uint32_t copies = chp_random_chance(r, 200000) ? 0 : chp_random_chance(r, 200000) ? 2 : 1;

	while (copies-- > 0 && n_messages < MESSAGES_MAX)
		message[n_messages++] = m;
}

static void
post_all(struct chp_random *r, uint32_t n, struct message m)
{
	for (m.to = 0; m.to < n; m.to++)
		if (m.to != m.from)
			post(r, m);
}

static void
ask_to_accept(struct chp_random *r, uint32_t n, uint32_t i)
{
	struct chp_agreement *p = &net[i];
	struct chp_view v = p->value;

	cr_assert(chp_agreement_accept(p, p->ballot, &v));
	post_all(r, n, (struct message){ .kind = ACCEPT, .from = i, .ballot = p->ballot, .view = v });
	if (chp_agreement_accepted(p, i, p->ballot))
		cr_assert_eq(n, 1);
}

/* Returns whether this decided. */
static bool
deliver(struct chp_random *r, uint32_t n, const struct message *m)
{
	struct chp_agreement *p = &net[m->to];
	struct message answer = { .from = m->to, .to = m->from, .ballot = m->ballot };

	switch (m->kind) {
	case PREPARE:
		answer.kind = chp_agreement_promise(p, m->ballot) ? PROMISE : REJECTED;
		if (answer.kind == REJECTED)
			answer.ballot = p->promised;
		answer.accepted = p->accepted_ballot;
		answer.view = p->accepted;
		post(r, answer);
		return false;
	case ACCEPT:
		answer.kind = chp_agreement_accept(p, m->ballot, &m->view) ? ACCEPTED : REJECTED;
		if (answer.kind == REJECTED)
			answer.ballot = p->promised;
		post(r, answer);
		return false;
	case PROMISE:
		if (chp_agreement_promised(p, m->from, m->ballot, m->accepted, &m->view))
			ask_to_accept(r, n, m->to);
		return false;
	case ACCEPTED:
		return chp_agreement_accepted(p, m->from, m->ballot);
	case REJECTED:
		chp_agreement_rejected(p, m->ballot);
		return false;
	}
	return false;
}

static void
begin_ballot(struct chp_random *r, uint32_t n, uint32_t i, uint16_t mark)
{
	struct chp_view v = view_of(mark);

	cr_assert(chp_agreement_propose(&net[i], &v, chp_agreement_majority(net[i].voters)));
	post_all(r, n, (struct message){ .kind = PREPARE, .from = i, .ballot = net[i].ballot });
}

/* Any message that is on its way, to *to. Returns whether this decided. */
static bool
deliver_any(struct chp_random *r, uint32_t n, uint32_t *to)
{
	uint32_t at = (uint32_t)chp_random_below(r, n_messages);
	struct message m = message[at];

	message[at] = message[--n_messages];
	*to = m.to;
	return deliver(r, n, &m);
}

Test(agreement, all_that_is_decided_is_one_view)
{
	uint32_t twice = 0, never = 0;

	for (uint64_t seed = 0; seed < 4000; seed++) {
		struct chp_random r = { .state = seed };
		uint32_t n = 2 + (uint32_t)(seed % (NODES_MAX - 1)), decisions = 0;
		struct chp_view start = { .epoch = 4, .voters = chp_bit(n) - 1 }, decided = { .epoch = 0 };
		uint16_t mark = 0;

		n_messages = 0;
		for (uint32_t i = 0; i < n; i++)
			chp_agreement_begin(&net[i], i, &start);
		for (uint32_t k = 0; k < 400; k++) {
			uint32_t i = (uint32_t)chp_random_below(&r, n);

			if (n_messages == 0 || chp_random_chance(&r, 40000)) {
				begin_ballot(&r, n, i, ++mark);
			} else if (deliver_any(&r, n, &i)) {
				cr_assert(decisions == 0 ||
						  memcmp(&decided, &net[i].value, sizeof(decided)) == 0,
					  "seed %lu: two views were decided", seed);
				decided = net[i].value;
				decisions++;
			}
			chp_agreement_check(&net[i]);
		}
		twice += decisions > 1;
		never += decisions == 0;
	}
	cr_assert_gt(twice, 500, "%u: nothing was at stake", twice);
	cr_assert_lt(never, 2000, "%u", never);
}
