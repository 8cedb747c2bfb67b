/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * view.h - who is in the cluster: an epoch, its members with their incarnations, who is live.
 */
#ifndef CHP_PROTOCOLS_VIEW_H
#define CHP_PROTOCOLS_VIEW_H

#include "base/bytes.h"
#include "base/limits.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Epochs are numbered by generations: epoch = generation << 20 | number of the view in it, from 1. A cluster begins in
 * generation 0, and each cold start from the stores of its hosts begins another one (SAFETY 34), so that no epoch ever
 * comes twice. The number never runs over: every view but the first admits, promotes or drops an incarnation or ends
 * a reconciliation, and writer numbers end after 65,535 incarnations.
 */
#define CHP_GENERATION_SHIFT 20u
/* Session numbers have 16 bits for it, clients the low half of an epoch. */
#define CHP_GENERATION_MAX 2047u

struct chp_view {
	uint64_t epoch;    /* 1 is the first view of a new cluster; 0 = no view yet */
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

static inline uint64_t
chp_generation(uint64_t epoch)
{
	return epoch >> CHP_GENERATION_SHIFT;
}

/** Whether an epoch is that of the first view of a generation. */
static inline bool
chp_epoch_is_first(uint64_t epoch)
{
	return (epoch & ((UINT64_C(1) << CHP_GENERATION_SHIFT) - 1)) == 1;
}

/** The first epoch of a generation. */
static inline uint64_t
chp_epoch_of_generation(uint64_t generation)
{
	return generation << CHP_GENERATION_SHIFT | 1;
}

/* Every node whose acknowledgement a write needs. */
static inline uint64_t
chp_view_live(const struct chp_view *v)
{
	return v->voters | v->learners;
}

#endif /* CHP_PROTOCOLS_VIEW_H */
