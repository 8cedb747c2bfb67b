/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * zab_quorum.h - the tunable quorum: whose acknowledgements commit which entries (SAFETY 28).
 *
 * The rule is switched by entries of the log. A switch to "all" binds itself and what follows. A switch to
 * "majority" commits itself and everything before it as soon as a majority has it: an entry that a dead
 * member holds up is freed by the switch, and by nothing else. Pure.
 */
#ifndef CHP_PROTOCOLS_ZAB_QUORUM_H
#define CHP_PROTOCOLS_ZAB_QUORUM_H

#include "wire/zab.h"

#include <stdbool.h>
#include <stdint.h>

/* Switches that may be in the log uncommitted: people make them one at a time. */
#define CHP_ZAB_SWITCHES_MAX 16u

struct chp_zab_switch {
	uint64_t index;
	enum chp_zab_rule rule;
};

struct chp_zab_quorum {
	enum chp_zab_rule rule; /* in force at the last committed entry */
	uint32_t n;
	struct chp_zab_switch pending[CHP_ZAB_SWITCHES_MAX]; /* by index, all uncommitted */
};

/** Whether another switch may be proposed. */
static inline bool
chp_zab_quorum_room(const struct chp_zab_quorum *q)
{
	return q->n < CHP_ZAB_SWITCHES_MAX;
}

/** A switch came into the log. False when there is no room: its entry must not be taken. */
bool chp_zab_quorum_add(struct chp_zab_quorum *q, uint64_t index, enum chp_zab_rule rule);

/** Entries from `next` on left the log. */
void chp_zab_quorum_truncate(struct chp_zab_quorum *q, uint64_t next);

/** Everything up to `index` is committed. */
void chp_zab_quorum_commit(struct chp_zab_quorum *q, uint64_t index);

/** The rule that the newest entry of the log puts in force. */
enum chp_zab_rule chp_zab_quorum_newest(const struct chp_zab_quorum *q);

/**
 * Up to where the log is committed.
 *
 * @param committed  so far; not beyond `last`
 * @param last       last entry of the log
 * @param majority   a majority of the configured members has every entry up to here
 * @param all        all of them have
 */
uint64_t chp_zab_quorum_committed(const struct chp_zab_quorum *q, uint64_t committed, uint64_t last,
				  uint64_t majority, uint64_t all);

#endif /* CHP_PROTOCOLS_ZAB_QUORUM_H */
