/* SPDX-License-Identifier: BSD-3-Clause */
#include "protocols/home.h"

#include "base/mutation.h"

/*
 * Since when this node is the home of sessions whose opener is gone: since the voter behind the opener's node
 * id or the opener itself last changed. Epochs that this node did not see count as the one that it enters.
 */
void
chp_homes_enter(struct chp_homes *h, const struct chp_view *old, const struct chp_view *v, uint32_t n_nodes)
{
	for (uint32_t node = 0; node < n_nodes; node++) {
		const uint64_t gone = (uint64_t)node << CHP_SESSION_NODE_SHIFT; /* writer 0: nobody's */
		const bool was = (old->voters & chp_bit(node)) != 0, is = (v->voters & chp_bit(node)) != 0;

		if (v->epoch != old->epoch + 1 || was != is || (is && old->writer[node] != v->writer[node]) ||
		    chp_view_home(old, gone) != chp_view_home(v, gone))
			h->since[node] = v->epoch;
	}
}

uint64_t
chp_homes_number(struct chp_homes *h, const struct chp_view *v, uint32_t self)
{
	/* After a cold start writer numbers begin again, sessions' numbers do not (SAFETY 34). */
	h->opened = chp_max_u64(h->opened,
				(v->epoch >> CHP_GENERATION_SHIFT) << CHP_SESSION_GENERATION_SHIFT) + 1;
	CHP_ASSERT_OP(h->opened, <, UINT64_C(1) << CHP_SESSION_NODE_SHIFT);
	return (uint64_t)v->writer[self] << CHP_SESSION_WRITER_SHIFT | (uint64_t)self << CHP_SESSION_NODE_SHIFT |
	       h->opened;
}

enum chp_status
chp_homes_admit(const struct chp_homes *h, const struct chp_view *v, uint32_t self, const struct chp_op *op,
		bool has_replays, uint64_t *number)
{
	const uint32_t home = chp_view_home(v, op->session);
	const uint32_t opener = (uint32_t)(op->session >> CHP_SESSION_NODE_SHIFT) & (CHP_NODES_MAX - 1);

	*number = home;
	if (home != self)
		return CHP_STATUS_REDIRECT;
	/* What this incarnation opened nobody else ever executed anything of. */
	if (op->session >> CHP_SESSION_WRITER_SHIFT == v->writer[self])
		return CHP_STATUS_OK;
	/*
	 * The home of a session that another opened has heard of all that was under way when the view began, and its
	 * client knows that it is the home, so that it takes no answer from an earlier one.
	 */
	if (!has_replays && !CHP_MUTATED(S25_NO_BARRIER))
		return CHP_STATUS_OVERLOAD;
	/* Epochs compare as serial numbers: a packet has their low halves. */
	return (int32_t)(op->epoch - (uint32_t)h->since[opener]) < 0 ? CHP_STATUS_REDIRECT : CHP_STATUS_OK;
}
