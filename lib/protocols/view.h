/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * view.h - who is in the cluster: an epoch, its members with their incarnations, who is live.
 */
#ifndef CHP_PROTOCOLS_VIEW_H
#define CHP_PROTOCOLS_VIEW_H

#include "base/bytes.h"
#include "base/limits.h"

#include <stdint.h>

struct chp_view {
	uint64_t epoch;    /* 1 is the first view; 0 = no view yet */
	uint64_t voters;   /* node masks: live members that vote, coordinate and answer */
	uint64_t learners; /* live members that only acknowledge (SAFETY 9) */
	uint64_t incarnation[CHP_NODES_MAX]; /* random, compared for equality only (SAFETY 21) */
	uint16_t writer[CHP_NODES_MAX];      /* writer number of each incarnation, never reused (SAFETY 1) */
	uint16_t next_writer;                /* the lowest that no view has given out yet; 0 = all are used up */
};

/* Every node whose acknowledgement a write needs. */
static inline uint64_t
chp_view_live(const struct chp_view *v)
{
	return v->voters | v->learners;
}

/*
 * A session's number names who opened it: writer number of the incarnation << 48 | its node id << 40 | a
 * number of its own.
 */
#define CHP_SESSION_WRITER_SHIFT 48u
#define CHP_SESSION_NODE_SHIFT 40u

/** The node that executes a session's requests in this view (SAFETY 25); CHP_NODES_MAX without voters. */
static inline uint32_t
chp_view_home(const struct chp_view *v, uint64_t session)
{
	const uint32_t node = (uint32_t)(session >> CHP_SESSION_NODE_SHIFT) & (CHP_NODES_MAX - 1);
	uint64_t after;

	if ((v->voters & chp_bit(node)) != 0 && v->writer[node] == session >> CHP_SESSION_WRITER_SHIFT)
		return node;
	/* Who opened it is gone: the first voter behind it, in a circle. */
	after = v->voters & ~(chp_bit(node) | (chp_bit(node) - 1));
	if (after == 0)
		after = v->voters;
	return after == 0 ? CHP_NODES_MAX : chp_first_bit(after);
}

#endif /* CHP_PROTOCOLS_VIEW_H */
