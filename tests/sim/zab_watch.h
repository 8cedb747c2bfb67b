/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * zab_watch.h - the invariants of ZAB over all nodes, looked at after each run of a shard (protocols.md 6.3):
 *
 *   Leadership          at most one established leader in an epoch
 *   PrefixConsistency   logs that share an entry are equal up to there; what is committed is one sequence
 *   Integrity           what is committed was proposed, by the leader of its epoch
 *   Agreement           what one node has committed, the others commit too, or never get so far
 *   TotalOrder          they commit it at the same place
 *   LocalPrimaryOrder   the entries of one leader are committed in the order in which it proposed them
 *   GlobalPrimaryOrder  entries of an earlier epoch come before those of a later one
 *   PrimaryIntegrity    an established leader has everything that was committed in earlier epochs
 *
 * And what makes them hold, or clients rely on: quorums under both rules (SAFETY 28), nothing forgotten in a life,
 * no vote of who lost its memory (SAFETY 23), no lease beside a newer leader (SAFETY 18), each request once, relaxed
 * reads that were once true and do not go back.
 */
#ifndef CHP_TESTS_SIM_ZAB_WATCH_H
#define CHP_TESTS_SIM_ZAB_WATCH_H

#include "kind.h"

#include "protocols/zab.h"

/* An entry that a leader proposed: its zxid, and what was seen of it. */
struct zab_entry {
	uint64_t epoch, index;     /* epoch 0: not in use */
	uint64_t before;           /* epoch of the entry before it in every log that holds it; 0: none, or not seen */
	uint64_t digest;           /* as logs have it; 0: not seen in one */
	uint64_t held;             /* nodes that had it in their log and may be counted on */
	/* As PROPOSE says. */
	bool told;
	uint8_t flags, status;
	uint64_t session, request, number;
	uint64_t key, value;       /* hashes; key 0: none */
};

/* A node's shard, from its creation on. */
struct zab_life {
	bool in_view;              /* it knows a view, so its phase means something */
	struct chp_zab_state state;  /* after the last run */
	struct chp_zab_state before; /* the run before that */
	uint64_t led;              /* newest epoch that it was the established leader of; 0: none */
	uint64_t read;             /* entries that were applied when it last answered a relaxed read */
	uint64_t *epoch;           /* of the entries in its log, by index */
	uint64_t cap;
};

struct zab_watch {
	struct zab_life life[SIM_NODES_MAX];
	struct zab_entry *entry;   /* hash table */
	uint32_t n_entries, cap_entries;
	uint64_t *order;           /* epoch of what is committed, by index */
	uint64_t committed, cap_order; /* everything up to here */
	uint64_t established;      /* newest epoch with an established leader */
	uint32_t leader;           /* of that epoch */
	uint64_t *leaders;         /* all of them: pairs of epoch and incarnation */
	uint64_t n_leaders, cap_leaders;
};

static inline struct zab_watch *
zab_watch(const struct sim_world *w)
{
	return w->watch;
}

void zab_watch_born(struct sim_world *w, uint32_t n);
void zab_watch_ran(struct sim_world *w, uint32_t n, const struct chp_now *now);
void zab_watch_sends(struct sim_world *w, uint32_t n, const struct chp_peer_header *h, const struct chp_message *m);
void zab_watch_forget(struct sim_world *w);

#endif /* CHP_TESTS_SIM_ZAB_WATCH_H */
