/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * view.h - who is in the cluster: an epoch, its members with their incarnations, who is live.
 */
#ifndef CHP_PROTOCOLS_VIEW_H
#define CHP_PROTOCOLS_VIEW_H

#include "base/bytes.h"
#include "base/limits.h"

#include <stdint.h>

/*
 * A cold start begins with an epoch that is a multiple of 2^20, plus 1, above all that any store has recorded: no
 * cluster lives through so many views. What is above these bits is the generation.
 */
#define CHP_GENERATION_SHIFT 20u

struct chp_view {
	uint64_t epoch;    /* 1 is the first view; 0 = no view yet */
	uint64_t voters;   /* node masks: live members that vote, coordinate and answer */
	uint64_t learners; /* live members that only acknowledge (SAFETY 9) */
	uint64_t incarnation[CHP_NODES_MAX]; /* random, compared for equality only (SAFETY 21) */
	uint16_t writer[CHP_NODES_MAX];      /* writer number of each incarnation, never reused (SAFETY 1) */
	uint16_t next_writer;                /* the lowest that no view has given out yet; 0 = all are used up */
	/*
	 * After a cold start (SAFETY 34): the members whose stores hold the data. What they hold of an earlier life
	 * counts until all of it is reconciled. 0: there is nothing to reconcile.
	 */
	uint64_t sources;
};

/* Every node whose acknowledgement a write needs. */
static inline uint64_t
chp_view_live(const struct chp_view *v)
{
	return v->voters | v->learners;
}

#endif /* CHP_PROTOCOLS_VIEW_H */
