/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * zab.h - looking into an instance of the ZAB protocol: counters, state, entries. For simulator, status, tests.
 */
#ifndef CHP_PROTOCOLS_ZAB_H
#define CHP_PROTOCOLS_ZAB_H

#include <stdbool.h>
#include <stdint.h>

/* The longest leader lease that may be asked for: what a node file may say (docs/config.md). */
#define CHP_ZAB_LEASE_NS_MAX UINT64_C(10000000000)

#define CHP_ZAB_COUNTERS(X)                                                                     \
	X(elections, "elections begun here")                                                    \
	X(leaderships, "times this replica became the established leader")                      \
	X(epochs_seen, "epochs that a leader proposed to this replica")                         \
	X(look_received, "votes received")                                                      \
	X(proposals, "entries proposed as the leader")                                          \
	X(acks, "acknowledgements of entries received as the leader")                           \
	X(commits, "entries committed as the leader")                                           \
	X(applied, "entries applied to keys and sessions")                                      \
	X(syncs_diff, "followers brought up to date from the log")                              \
	X(syncs_trunc, "followers that had to drop entries which no leader kept")               \
	X(syncs_snap, "followers too far behind for the log, brought up to date by a copy")     \
	X(holes_refused, "proposals refused because an earlier one was missing")                \
	X(superseded, "incarnations of others that were replaced, and all they said forgotten") \
	X(lease_reads, "reads answered by the leader under its lease")                          \
	X(confirmed_reads, "reads answered by the leader after a quorum confirmed it")          \
	X(sync_reads, "reads answered by a follower after it caught up with the leader")        \
	X(relaxed_reads, "reads answered from this replica's state, however old")               \
	X(stale_epoch, "messages of an earlier epoch, dropped")                                 \
	X(busy, "operations refused for want of credits, log or operation room")                \
	X(step_downs, "times this replica gave up leading or following")                        \
	X(hosts_away, "times this replica gave up leading because its host was away")           \
	X(pulls, "requests of a new leader for entries that a follower had and it lacked")      \
	X(recoveries, "times this replica recovered what its earlier incarnation may have promised")

struct chp_zab_counters {
#define CHP_COUNTER_FIELD(name, help) uint64_t name;
	CHP_ZAB_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
};

enum chp_zab_phase {
	CHP_ZAB_RECOVERING, /* a new incarnation that may have forgotten promises (SAFETY 23) */
	CHP_ZAB_LOOKING,
	CHP_ZAB_DISCOVERY,
	CHP_ZAB_SYNC,
	CHP_ZAB_BROADCAST,
};

struct chp_zab_state {
	enum chp_zab_phase phase;
	bool is_leader;
	uint32_t leader; /* node id; CHP_NODES_MAX: none */
	uint64_t round;
	uint64_t accepted_epoch, current_epoch;
	uint64_t first, last, last_epoch; /* indices in the log; first > last: it is empty */
	uint64_t committed, applied;
	bool all_rule;
	bool copying;
	uint64_t lease_until_ns;
};

/** The state of an instance of chp_zab. */
void chp_zab_inspect(const void *instance, struct chp_zab_state *out);

/** The entry at an index from first to last: its epoch and a digest of all it says. */
void chp_zab_entry(const void *instance, uint64_t index, uint64_t *epoch, uint64_t *digest);

#endif /* CHP_PROTOCOLS_ZAB_H */
