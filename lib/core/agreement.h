/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * agreement.h - one instance of single-decree Paxos: what the view of one epoch is (SAFETY 20).
 *
 * The acceptors are the voters of the view before, as processes: whoever restarted is another process and
 * none of them, so an acceptor never forgets. A decision needs a majority of all of them, dead or alive
 * (pitfall P4). A ballot is round << 8 | node id, so no two proposers share one.
 *
 *   phase 1  PREPARE(b)     an acceptor that promised nothing higher promises b, and says what it accepted
 *   phase 2  ACCEPT(b, v)   v = what was accepted at the highest ballot among a majority of promises, else
 *                           the proposer's own (pitfall P37); an acceptor that promised nothing higher
 *                           accepts
 *   decided                 when a majority has accepted at one ballot
 *
 * This file has both roles of one node and no packets, time or leases: core/membership.c says when to
 * propose, what, and when an acceptance may be told (SAFETY 17). Every function may be called with anything
 * late, repeated or out of order.
 *
 * Owner: the membership; not thread-safe. Nothing allocates.
 */
#ifndef CHP_CORE_AGREEMENT_H
#define CHP_CORE_AGREEMENT_H

#include "protocols/view.h"

#include <stdbool.h>
#include <stdint.h>

/* Rounds are bounded on the wire, so that a corrupt ballot cannot use up the 64 bits. */
#define CHP_AGREEMENT_ROUND_MAX ((UINT64_C(1) << 48) - 1)

static inline uint32_t
chp_ballot_node(uint64_t ballot)
{
	return (uint32_t)(ballot & 0xff);
}

enum chp_agreement_phase {
	CHP_AGREEMENT_IDLE = 0,      /* proposes nothing */
	CHP_AGREEMENT_PREPARING = 1, /* collects promises */
	CHP_AGREEMENT_ACCEPTING = 2, /* collects acceptances of `value` */
};

struct chp_agreement {
	uint64_t epoch;    /* of the view to be decided; 0 = no instance */
	uint64_t voters;   /* node mask: the acceptors */
	uint32_t self;

	/* Acceptor. */
	uint64_t promised;        /* the highest ballot promised; 0 = none */
	uint64_t accepted_ballot; /* 0 = nothing accepted */
	struct chp_view accepted;
	uint64_t told;            /* the last ballot whose acceptance was told to its proposer; 0 = none */

	/* Proposer. */
	enum chp_agreement_phase phase;
	uint32_t quorum;
	uint64_t ballot;          /* its last one; 0 = none */
	uint64_t seen;            /* the highest ballot heard of anywhere */
	uint64_t answered;        /* node mask: who promised or accepted, as the phase is */
	uint64_t adopted_ballot;  /* highest ballot of an acceptance that a promise told; 0 = none */
	struct chp_view value;
};

/** Begin the instance that decides what comes after `view`. */
void chp_agreement_begin(struct chp_agreement *a, uint32_t self, const struct chp_view *view);

/** A majority of all acceptors. */
static inline uint32_t
chp_agreement_majority(uint64_t voters)
{
	return chp_count_bits(voters) / 2 + 1;
}

/**
 * Acceptor, phase 1. A promise to another proposer's higher ballot ends an own proposal.
 *
 * @return  true when `ballot` is promised, now or before; false when a higher one was: tell `promised`
 */
bool chp_agreement_promise(struct chp_agreement *a, uint64_t ballot);

/**
 * Acceptor, phase 2. The caller has checked that the view may follow the present one.
 *
 * @return  true when `v` is accepted at `ballot`, now or before; false when a higher one was promised
 */
bool chp_agreement_accept(struct chp_agreement *a, uint64_t ballot, const struct chp_view *v);

/**
 * Proposer: begin a ballot above all that were heard of, and promise it to itself.
 *
 * @param v       proposed where nothing was accepted before
 * @param quorum  chp_agreement_majority of the voters; another number only in a test of pitfall P4
 * @return        false when ballots are used up, which only corrupt packets can bring about
 */
bool chp_agreement_propose(struct chp_agreement *a, const struct chp_view *v, uint32_t quorum);

/**
 * Proposer: a promise came, with what its sender accepted before, if anything.
 *
 * @param accepted_ballot  0 = nothing; then v is not looked at
 * @return  true when this one completed a majority: the phase is ACCEPTING and `value` is set
 */
bool chp_agreement_promised(struct chp_agreement *a, uint32_t from, uint64_t ballot,
			    uint64_t accepted_ballot, const struct chp_view *v);

/** Proposer: an acceptance came. True when `value` is now decided; the proposal is over then. */
bool chp_agreement_accepted(struct chp_agreement *a, uint32_t from, uint64_t ballot);

/**
 * Somebody promised `promised`, which is higher than what we asked it for.
 *
 * @return  true when that ended an own proposal
 */
bool chp_agreement_rejected(struct chp_agreement *a, uint64_t promised);

/** Stop collecting. What acceptors said remains true. */
void chp_agreement_stop(struct chp_agreement *a);

/** Assert every invariant. */
void chp_agreement_check(const struct chp_agreement *a);

#endif /* CHP_CORE_AGREEMENT_H */
