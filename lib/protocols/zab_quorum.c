/* SPDX-License-Identifier: BSD-3-Clause */
#include "protocols/zab_quorum.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/mutation.h"

bool
chp_zab_quorum_add(struct chp_zab_quorum *q, uint64_t index, enum chp_zab_rule rule)
{
	if (!chp_zab_quorum_room(q))
		return false;
	CHP_ASSERT(q->n == 0 || q->pending[q->n - 1].index < index);
	q->pending[q->n++] = (struct chp_zab_switch){ .index = index, .rule = rule };
	return true;
}

void
chp_zab_quorum_truncate(struct chp_zab_quorum *q, uint64_t next)
{
	while (q->n > 0 && q->pending[q->n - 1].index >= next)
		q->n--;
}

void
chp_zab_quorum_commit(struct chp_zab_quorum *q, uint64_t index)
{
	uint32_t gone = 0;

	while (gone < q->n && q->pending[gone].index <= index)
		q->rule = q->pending[gone++].rule;
	for (uint32_t i = gone; i < q->n; i++)
		q->pending[i - gone] = q->pending[i];
	q->n -= gone;
}

enum chp_zab_rule
chp_zab_quorum_newest(const struct chp_zab_quorum *q)
{
	return q->n > 0 ? q->pending[q->n - 1].rule : q->rule;
}

uint64_t
chp_zab_quorum_committed(const struct chp_zab_quorum *q, uint64_t committed, uint64_t last, uint64_t majority,
			 uint64_t all)
{
	enum chp_zab_rule rule = q->rule;
	uint32_t at = 0;

	if (CHP_MUTATED(S28_WRONG_RULE)) { /* the newest switch counts at once, for everything */
		rule = chp_zab_quorum_newest(q);
		return chp_max_u64(committed, chp_min_u64(last, rule == CHP_ZAB_ALL ? all : majority));
	}
	for (uint32_t i = 0; i < q->n; i++) {
		if (q->pending[i].rule == CHP_ZAB_MAJORITY && majority >= q->pending[i].index) {
			committed = chp_max_u64(committed, q->pending[i].index);
			rule = CHP_ZAB_MAJORITY;
			at = i + 1;
		}
	}
	/* One stretch of the log under one rule after the other, each up to where the next switch stands. */
	for (; at < q->n; at++) {
		const struct chp_zab_switch *s = &q->pending[at];
		const uint64_t reach = chp_min_u64(s->index - 1, rule == CHP_ZAB_ALL ? all : majority);

		committed = chp_max_u64(committed, reach);
		if (committed < s->index - 1 || s->rule == CHP_ZAB_MAJORITY)
			return committed;
		rule = CHP_ZAB_ALL;
	}
	return chp_max_u64(committed, chp_min_u64(last, rule == CHP_ZAB_ALL ? all : majority));
}
