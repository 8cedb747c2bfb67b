/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * home.h - which replica executes a session's requests, in protocols without a leader (SAFETY 25).
 *
 * A session has one home in each view: the incarnation that opened it while that is a voter, otherwise the first
 * voter behind it in the order of node ids. The session's number says who opened it. Pure; owner: the protocol.
 */
#ifndef CHP_PROTOCOLS_HOME_H
#define CHP_PROTOCOLS_HOME_H

#include "protocols/protocol.h"

/*
 * A session's number names who opened it: writer number of the incarnation << 48 | its node id << 40 | a
 * number of its own.
 */
#define CHP_SESSION_WRITER_SHIFT 48u
#define CHP_SESSION_NODE_SHIFT 40u
/* Numbers of its own begin at generation << 24, room for as many opens of one incarnation, and 2^16 cold starts. */
#define CHP_SESSION_GENERATION_SHIFT 24u

struct chp_homes {
	/*
	 * Since what epoch this node has surely been the home of the sessions that a node's earlier incarnations
	 * opened, as long as it is: never too low.
	 */
	uint64_t since[CHP_NODES_MAX];
	uint64_t opened; /* the last session number's lower part */
};

/** The node that executes a session's requests in this view; CHP_NODES_MAX without voters. */
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

/** A view replaces another; the first replaces one with epoch 0. Before anything is admitted in it. */
void chp_homes_enter(struct chp_homes *h, const struct chp_view *old, const struct chp_view *v, uint32_t n_nodes);

/** A number for a session that `self` opens: its writer number makes sure that no other incarnation used it. */
uint64_t chp_homes_number(struct chp_homes *h, const struct chp_view *v, uint32_t self);

/**
 * Whether this node may look at a request of a session: OK, REDIRECT (*number: the home), or OVERLOAD.
 *
 * @param has_replays  every live member has sent again all it had in flight when the view began: what has left no
 *                     record here by now was not sent, and never will be
 */
enum chp_status chp_homes_admit(const struct chp_homes *h, const struct chp_view *v, uint32_t self,
				const struct chp_op *op, bool has_replays, uint64_t *number);

#endif /* CHP_PROTOCOLS_HOME_H */
