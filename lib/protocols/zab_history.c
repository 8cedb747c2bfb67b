/* SPDX-License-Identifier: BSD-3-Clause */
#include "protocols/zab_history.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/mutation.h"

uint64_t
chp_zab_epoch_at(const struct chp_log *l, uint64_t index)
{
	if (index + 1 == l->head)
		return l->base_epoch;
	return chp_log_at(l, index)->base;
}

void
chp_zab_history_of(const struct chp_log *l, uint64_t committed, struct chp_zab_history *out)
{
	uint64_t at = l->next - 1;
	uint32_t n = 0;

	CHP_ASSERT_OP(committed, <=, at);
	out->last = at;
	out->last_epoch = chp_zab_epoch_at(l, at);
	out->committed = committed;
	/* From the newest backwards, then the right way round. */
	for (; at > committed && at >= l->head; at--) {
		const uint64_t epoch = chp_zab_epoch_at(l, at);

		if (n > 0 && out->run[n - 1].epoch == epoch) {
			out->run[n - 1].first = at;
			continue;
		}
		/* More leaders than one log ever shows; what lies below then counts as unknown, and is copied. */
		if (n == CHP_ZAB_RUNS_MAX)
			break;
		out->run[n++] = (struct chp_zab_run){ .epoch = epoch, .first = at };
	}
	out->n_runs = n;
	for (uint32_t i = 0; i < n / 2; i++) {
		const struct chp_zab_run r = out->run[i];

		out->run[i] = out->run[n - 1 - i];
		out->run[n - 1 - i] = r;
	}
	for (uint32_t i = n; i < CHP_ZAB_RUNS_MAX; i++)
		out->run[i] = (struct chp_zab_run){ 0 };
}

/* The last index from `first` to `last` that is of this epoch in our log, 0 when there is none. */
static uint64_t
last_of_epoch(const struct chp_log *l, uint64_t epoch, uint64_t first, uint64_t last)
{
	first = chp_max_u64(first, l->head - 1);
	for (uint64_t at = chp_min_u64(last, l->next - 1); at >= first && at > 0; at--) {
		const uint64_t ours = chp_zab_epoch_at(l, at);

		if (ours == epoch)
			return at;
		if (ours < epoch)
			break;
	}
	return 0;
}

bool
chp_zab_common(const struct chp_log *ours, const struct chp_zab_history *theirs, uint64_t *common)
{
	uint64_t end = theirs->last;

	if ((theirs->flags & CHP_ZAB_INCOMPLETE) != 0)
		return false;
	for (uint32_t i = theirs->n_runs; i > 0; i--) {
		const struct chp_zab_run *r = &theirs->run[i - 1];
		const uint64_t at = last_of_epoch(ours, r->epoch, r->first, end);

		if (at != 0) {
			*common = at;
			return true;
		}
		end = r->first - 1;
	}
	/* Nothing beyond what is committed; that is in every log that may ever lead. */
	if (end != theirs->committed || end >= ours->next || end + 1 < ours->head)
		return false;
	*common = end;
	return true;
}

bool
chp_zab_history_older(const struct chp_zab_history *a, const struct chp_zab_history *b)
{
	if (a->current_epoch != b->current_epoch || CHP_MUTATED(P26_WINNER_BY_EPOCH))
		return a->current_epoch < b->current_epoch;
	if (a->last_epoch != b->last_epoch)
		return a->last_epoch < b->last_epoch;
	return a->last < b->last;
}
