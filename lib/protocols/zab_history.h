/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * zab_history.h - what two logs have in common (ZAB's DIFF, TRUNC or SNAP).
 *
 * Two logs that have an entry of the same epoch at the same index are equal up to there, because only the
 * leader of an epoch makes entries of it, in order, and a log takes an entry only right behind the one that
 * stood before it in its leader's log. So the epochs at each index say everything; a log names them as runs.
 * Pure.
 */
#ifndef CHP_PROTOCOLS_ZAB_HISTORY_H
#define CHP_PROTOCOLS_ZAB_HISTORY_H

#include "oplog/oplog.h"
#include "wire/zab.h"

#include <stdbool.h>
#include <stdint.h>

/** Epoch of the entry at `index`, which is in the log or right before its first entry (asserted). */
uint64_t chp_zab_epoch_at(const struct chp_log *l, uint64_t index);

/**
 * Say what a log holds. Sets last_epoch, last, committed and the runs; the caller sets the rest.
 *
 * @param committed  index; not beyond the log's end
 */
void chp_zab_history_of(const struct chp_log *l, uint64_t committed, struct chp_zab_history *out);

/**
 * The last entry that another log has in common with ours.
 *
 * @param theirs  accepted by chp_zab_check
 * @param common  set to its index when the result is true; from the entry behind it on ours is in the log
 * @return        false when our log does not reach back so far, or what it says cannot be
 */
bool chp_zab_common(const struct chp_log *ours, const struct chp_zab_history *theirs, uint64_t *common);

/** Whether history a is older than b: by the epoch whose history it was, then by the last zxid. */
bool chp_zab_history_older(const struct chp_zab_history *a, const struct chp_zab_history *b);

#endif /* CHP_PROTOCOLS_ZAB_HISTORY_H */
