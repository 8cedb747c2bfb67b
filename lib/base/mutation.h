/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mutation.h - known bugs that a test build can switch on, to prove that the simulator finds them.
 *
 * Without CHP_MUTATIONS every question is the constant false and the shipped code has no trace of them.
 */
#ifndef CHP_BASE_MUTATION_H
#define CHP_BASE_MUTATION_H

#include <stdbool.h>

/*
 * name, what goes wrong: P numbers are pitfalls, S numbers are safety rules. Those of what all protocols share are in
 * the first list: the simulator looks for a mutation in worlds of its list's protocol.
 */
#define CHP_MUTATION_LIST_HERMES(X)                                                               \
	X(P1_ACK_IGNORES_VERSION, "an ACK completes whatever write its op index now holds")       \
	X(P3_TIMEOUT_SHRINKS_ACKS, "a write that waited long stops waiting for the missing ACKs") \
	X(P5_VAL_IGNORES_VERSION, "a VAL validates whatever version the key has")                 \
	X(P8_FLAG_OF_KEY, "the key's flag decides whether the pending write is an RMW")           \
	X(P10_RMW_FROM_INVALID, "a read-modify-write starts on a key that is not Valid")          \
	X(P56_READ_NOT_VALID, "a read is answered though the key is not Valid")                   \
	X(S6_NO_FLOOR, "a write to a forgotten key takes a version as if it had never existed")   \
	X(S6_STALE_INV, "an INV older than what was forgotten is adopted")                        \
	X(S7_ABORT_WITHOUT_BASE, "an overtaken RMW counts as aborted whatever its overtaker saw") \
	X(S8_TRANS_NOT_RESENT, "a view change does not re-send writes in Trans")                  \
	X(S12_NO_CREDITS, "operations begin without credits")                                     \
	X(S24_NO_RECORD, "a retry finds no record of the first execution")                        \
	X(P4_UNSUSPECTED_MAJORITY, "a view needs a majority of the unsuspected voters only")      \
	X(P9_RMW_ACKS_KEPT, "ACKs of a read-modify-write count on after a view change")           \
	X(P12_LEASE_FROM_RECEIPT, "a lease counts from the arrival of its grant")                 \
	X(P13_NO_LEASE_AT_ANSWER, "a read that waited is answered without another look at the lease") \
	X(P14_NO_WAIT_FOR_LEASES, "a view is accepted while leases of dropped members run")       \
	X(P15_SAME_INCARNATION, "a restarted node keeps its incarnation and its vote")            \
	X(P32_DEAD_HOLD_WRITES, "a member that left the view must still acknowledge")             \
	X(P37_OWN_VALUE, "a proposer ignores what was accepted at a lower ballot")                \
	X(P45_PUT_RETRIED, "a put that a dead home had sent is executed again by the next")       \
	X(P47_COPY_NO_TOMBSTONES, "deleted keys and their versions are not copied")               \
	X(P52_ANY_INCARNATION, "packets from before a restart are accepted")                      \
	X(S9_LEARNER_NOT_ACKING, "a write does not wait for the learner")                         \
	X(S16_CLOCK_BEFORE_EVENTS, "the clock is read before the last event was taken")           \
	X(S17_GRANT_AFTER_ACCEPT, "a lease is renewed after a view without its holder was accepted") \
	X(S25_RECORD_ON_ADOPTION, "a request is recorded only where its value was adopted")       \
	X(S25_NO_BARRIER, "a new home executes requests before it has heard all replays")         \
	X(LINK_LOST_ACK, "a duplicate is not acknowledged again, so a lost ack stays lost")       \
	X(LINK_FALSE_ACK, "the link acknowledges a packet that never came when a later one did")  \
	X(LINK_NO_DEDUP, "the link delivers duplicated packets again")

#define CHP_MUTATION_LIST_ZAB(X)                                                                  \
	X(P16_EPOCH_BEFORE_HISTORY, "a follower counts its leader's history as its own before it has it") \
	X(P17_PROPOSE_TO_SYNCED_ONLY, "a leader proposes only to followers that finished their synchronisation") \
	X(P18_COMMITLD_OLD, "a late follower hears only of what was committed when it began") \
	X(P19_HOLES_ACCEPTED, "a follower takes a proposal though an earlier one is missing") \
	X(P26_WINNER_BY_EPOCH, "the history of a new leader is chosen by epoch alone") \
	X(P28_NO_TRUNCATION, "a follower keeps entries that its new leader does not have") \
	X(P34_SERVES_EARLY, "a leader takes operations before a quorum has its history") \
	X(P51_LATE_TRUNCATION, "a follower truncates its log for a leader's message of an earlier epoch") \
	X(S13_DEAD_FOLLOWER_STOPS, "a leader proposes only what every follower has credits for") \
	X(S18_VOTE_DURING_LEASE, "a follower helps another leader while the lease that it gave runs") \
	X(S23_AMNESIA_VOTES, "a restarted replica votes at once, with an empty history") \
	X(S23_SUPERSEDED_VOTE, "votes of incarnations that were replaced go on counting") \
	X(S26_COMPARE_UNCOMMITTED, "a leader evaluates operations against what is committed only") \
	X(S28_WRONG_RULE, "a switch of the quorum rule counts at once, for all that is open") \
	X(ZAB_READ_WITHOUT_LEASE, "a leader answers reads without lease or confirmation") \
	X(ZAB_READ_INDEX_EARLY, "a leader answers a follower's sync without being sure that it leads")

/* Of clusters with datastores behind their caches. */
#define CHP_MUTATION_LIST_HOSTS(X)                                                                \
	X(S29_DURABLE_TOO_EARLY, "a batch is reported durable before the datastore has it")         \
	X(S30_MARK_PASSES, "a version is not sent for a newer one that goes in a later batch")     \
	X(S34_OLD_SOURCE, "a cold start takes what stores hold of an older epoch for as good as the newest") \
	X(S34_MINORITY_FOUNDS, "a cold start does with the hosts of a minority") \
	X(S34_PROMISE_NOT_DURABLE, "a first view is accepted before the store knows of its generation") \
	X(S34_SERVES_IN_MINORITY, "members that are no majority of all configured ones hold leases") \
	X(P47_EVICT_FORGETS_VERSION, "a key leaves the cache and its version is forgotten")       \
	X(P60_EVICT_UNSAVED, "a key leaves the cache before the datastore has it")                \
	X(P56_PARKED_UNCOMMITTED, "a read that waited for a load gets the value of a write under way") \
	X(S3_ACK_AND_SKIP, "an INV that may be older than what is stored is acknowledged and ignored") \
	X(S3_RMW_WITHOUT_LOAD, "a read-modify-write takes a key that is not in the cache for absent")

#define CHP_MUTATION_LIST_ZAB_HOSTS(X)                                                            \
	X(ZAB_EVICT_UNSAVED, "a key leaves the cache before the datastore has it")                \
	X(ZAB_COPIED_IS_SAVED, "what was copied counts as durable before the datastore has it")   \
	X(ZAB_TOLD_UNSTORED, "level datastore: clients are answered when the log has committed")  \
	X(ZAB_OWN_STORE_ONLY, "after a cold start a leader takes what its own store has for the newest")

#define CHP_MUTATION_LIST(X)                                                                      \
	CHP_MUTATION_LIST_HERMES(X) CHP_MUTATION_LIST_ZAB(X) CHP_MUTATION_LIST_HOSTS(X) CHP_MUTATION_LIST_ZAB_HOSTS(X)

enum chp_mutation {
	CHP_MUTATION_NONE = 0,
#define CHP_MUTATION_ENUM(name, text) CHP_MUTATION_##name,
	CHP_MUTATION_LIST(CHP_MUTATION_ENUM)
#undef CHP_MUTATION_ENUM
	CHP_MUTATION_COUNT
};

#ifdef CHP_MUTATIONS
/* The one that is on; set once by the test program. */
extern enum chp_mutation chp_mutation;
#define CHP_MUTATED(name) (__builtin_expect(chp_mutation == CHP_MUTATION_##name, 0))
#else
#define CHP_MUTATED(name) (false)
#endif

#endif /* CHP_BASE_MUTATION_H */
