/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/agreement.h"

#include "base/assert.h"
#include "base/mutation.h"

#include <string.h>

void
chp_agreement_begin(struct chp_agreement *a, uint32_t self, const struct chp_view *view)
{
	memset(a, 0, sizeof(*a));
	a->epoch = view->epoch + 1;
	a->voters = view->voters;
	a->self = self;
}

/* A ballot above our own was promised here or elsewhere: nobody who promised it can accept ours. */
static bool
overtaken(struct chp_agreement *a, uint64_t ballot)
{
	a->seen = chp_max_u64(a->seen, ballot);
	if (a->phase == CHP_AGREEMENT_IDLE || ballot <= a->ballot)
		return false;
	chp_agreement_stop(a);
	return true;
}

bool
chp_agreement_promise(struct chp_agreement *a, uint64_t ballot)
{
	CHP_ASSERT_OP(ballot, !=, 0u);
	a->seen = chp_max_u64(a->seen, ballot);
	if (ballot < a->promised)
		return false;
	a->promised = ballot;
	overtaken(a, ballot);
	return true;
}

bool
chp_agreement_accept(struct chp_agreement *a, uint64_t ballot, const struct chp_view *v)
{
	CHP_ASSERT_OP(v->epoch, ==, a->epoch);
	if (!chp_agreement_promise(a, ballot))
		return false;
	if (a->accepted_ballot != ballot) {
		a->accepted_ballot = ballot;
		a->accepted = *v;
	}
	return true;
}

bool
chp_agreement_propose(struct chp_agreement *a, const struct chp_view *v, uint32_t quorum)
{
	uint64_t highest = chp_max_u64(chp_max_u64(a->seen, a->promised), a->ballot);
	uint64_t round = (highest >> 8) + 1;

	CHP_ASSERT((a->voters & chp_bit(a->self)) != 0);
	CHP_ASSERT_OP(v->epoch, ==, a->epoch);
	if (round > CHP_AGREEMENT_ROUND_MAX)
		return false;
	a->ballot = a->seen = round << 8 | a->self;
	a->phase = CHP_AGREEMENT_PREPARING;
	a->quorum = quorum;
	a->answered = 0;
	a->adopted_ballot = 0;
	a->value = *v;
	a->promised = a->ballot;
	chp_agreement_promised(a, a->self, a->ballot, a->accepted_ballot, &a->accepted);
	return true;
}

bool
chp_agreement_promised(struct chp_agreement *a, uint32_t from, uint64_t ballot,
		       uint64_t accepted_ballot, const struct chp_view *v)
{
	a->seen = chp_max_u64(a->seen, ballot);
	if (a->phase != CHP_AGREEMENT_PREPARING || ballot != a->ballot ||
	    (a->voters & chp_bit(from)) == 0)
		return false;
	a->answered |= chp_bit(from);
	/* "The value of the highest-numbered proposal among the responses." */
	if (accepted_ballot > a->adopted_ballot && !CHP_MUTATED(P37_OWN_VALUE)) {
		a->adopted_ballot = accepted_ballot;
		a->value = *v;
	}
	if (chp_count_bits(a->answered) < a->quorum)
		return false;
	a->phase = CHP_AGREEMENT_ACCEPTING;
	a->answered = 0;
	return true;
}

bool
chp_agreement_accepted(struct chp_agreement *a, uint32_t from, uint64_t ballot)
{
	a->seen = chp_max_u64(a->seen, ballot);
	if (a->phase != CHP_AGREEMENT_ACCEPTING || ballot != a->ballot ||
	    (a->voters & chp_bit(from)) == 0)
		return false;
	a->answered |= chp_bit(from);
	if (chp_count_bits(a->answered) < a->quorum)
		return false;
	a->phase = CHP_AGREEMENT_IDLE;
	return true;
}

bool
chp_agreement_rejected(struct chp_agreement *a, uint64_t promised)
{
	return overtaken(a, promised);
}

void
chp_agreement_stop(struct chp_agreement *a)
{
	a->phase = CHP_AGREEMENT_IDLE;
	a->answered = 0;
}

void
chp_agreement_check(const struct chp_agreement *a)
{
	CHP_ASSERT_OP(a->accepted_ballot, <=, a->promised);
	CHP_ASSERT_OP(a->told, <=, a->accepted_ballot);
	CHP_ASSERT_OP(a->promised, <=, a->seen);
	CHP_ASSERT_OP(a->ballot, <=, a->seen);
	CHP_ASSERT((a->answered & ~a->voters) == 0);
	if (a->accepted_ballot != 0)
		CHP_ASSERT_OP(a->accepted.epoch, ==, a->epoch);
	if (a->phase == CHP_AGREEMENT_IDLE)
		return;
	CHP_ASSERT_OP(chp_ballot_node(a->ballot), ==, a->self);
	CHP_ASSERT_OP(a->promised, ==, a->ballot); /* a higher promise would have ended it */
	CHP_ASSERT_OP(a->value.epoch, ==, a->epoch);
}
