/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * protocol.h - what a replication protocol is: events in, effects out.
 *
 * A protocol is a deterministic state machine for one shard of keys. It performs no I/O, reads no clock,
 * allocates nothing, never blocks and never prints. The core calls it with batches of events; it writes
 * its effects, messages and replies, in place into packets that the core holds open. Same calls, same
 * effects, bit for bit.
 *
 * Contract:
 *  1. Views, not ownership: messages, keys and values point into packets and die when the call returns.
 *  2. Links are reliable and FIFO until a link_down or, if views fence the protocol, a view: a protocol
 *     never retransmits. Both mean the loss of everything in flight, and the protocol re-sends from its own
 *     state. A view that gives a peer another incarnation calls link_down for it before view() if views do
 *     not fence the protocol, and link_up behind it.
 *  3. If views fence the protocol (is_fenced), every message delivered was sent in the view that is in force.
 *     Otherwise the protocol has epochs of its own and checks them itself.
 *  4. A message that begins an operation takes a credit of every peer it goes to (chp_out_credits). Any
 *     other message always has room. So a peer's message is never refused, only client operations are.
 *  5. OVERLOAD, REDIRECT and NOT_SERVING say nothing of what became of a request: the core keeps no record of
 *     them. What a log decided it records with chp_session_done, which no later reply takes back.
 *  6. Each message and each operation makes at most one reply at once. Whoever waited is answered from
 *     wake(), which the core calls while there is room for replies.
 *  7. What must be applied per key in one order is applied in the order of the calls.
 *
 * Thread rule: an instance belongs to one lcore.
 */
#ifndef CHP_PROTOCOLS_PROTOCOL_H
#define CHP_PROTOCOLS_PROTOCOL_H

#include "base/assert.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "base/text.h"
#include "cache/cache.h"
#include "oplog/oplog.h"
#include "protocols/backing.h"
#include "protocols/view.h"
#include "sessions/sessions.h"
#include "wire/client.h"
#include "wire/packet.h"

/* The clocks of one batch, read after its last event was taken from port or ring (SAFETY 16). */
struct chp_now {
	uint64_t ns;             /* this node's monotonic clock */
	uint64_t lease_until_ns; /* this node may serve before this (SAFETY 17); 0 = it has no lease */
};

/* Where a reply goes: written by the frontend that took the request, opaque to everything else. */
struct chp_origin {
	uint8_t address[20];
	uint32_t frontend; /* the driver's number of the frontend; 0 = native UDP */
};

/* One client operation. Key and value point into the request and die when the call returns. */
struct chp_op {
	struct chp_key key;
	const uint8_t *value;
	uint32_t value_len;
	uint8_t opcode;    /* enum chp_opcode, an operation on one key or a session's open or close */
	uint64_t arg;      /* cas: version; incr, decr: delta */
	uint64_t session;  /* 0 = none */
	uint64_t lowest;
	uint64_t request;
	uint32_t epoch;    /* the client's, see wire/client.h */
	bool is_asked;     /* not to be executed: a record says that it was sent, the protocol says how it ended */
	bool is_relaxed;   /* get only: may be answered from this replica's state, however old */
	struct chp_origin origin;
};

/* One message from a peer, its shape already checked by the protocol's `accepts`. */
struct chp_peer_message {
	const struct chp_message *message;
	struct chp_key key; /* filled by the core where `key_of` gave one */
	uint8_t from;       /* node id */
};

/* One answer. */
struct chp_reply {
	const struct chp_origin *origin;
	uint64_t session;
	uint64_t request;
	uint64_t version;
	uint64_t number;
	uint32_t value_len;
	uint8_t opcode;
	uint8_t status;  /* enum chp_status */
	bool is_relaxed; /* a read that may be older than what others have been answered */
};

/* The open packet of one destination. */
struct chp_lane {
	uint8_t *at;
	uint8_t *end;
	uint32_t credits; /* operations that may still begin towards it; this node's own: log room */
	uint32_t begun;   /* begun in this call; the core settles it */
	uint32_t bulk_bytes; /* bytes of state copy that may be sent in this run, besides everything else */
};

/* Where a call writes its effects. Belongs to the core. */
struct chp_out {
	struct chp_lane lane[CHP_NODES_MAX];
	uint64_t wake_ns;      /* earliest time at which tick() is wanted; see chp_out_wake_at */
	uint64_t reads_until_ns; /* replies that tell what this replica holds are good before this */
	uint32_t replies_left; /* replies that can still be taken; the core keeps it >= 1 per event */
	uint64_t ungranted;    /* peers whose link is new: their first credits are still on their way */
	/* Close the lane's packet and open another with at least `bytes` of room. Cannot fail. */
	void (*next_packet)(struct chp_out *out, uint32_t peer, uint32_t bytes);
	/* Take a reply. Returns where its value_len bytes go; they are written before the call returns. */
	uint8_t *(*reply)(struct chp_out *out, const struct chp_reply *r);
};

/**
 * Reserve `bytes` (a multiple of 8) in the open packet of a peer. Write the whole message: the memory is
 * not zeroed.
 *
 * Owns: valid until the next chp_send to the same peer or the call's return.
 */
static inline void *
chp_send(struct chp_out *out, uint32_t peer, uint32_t bytes)
{
	struct chp_lane *lane = &out->lane[peer];

	if ((uint32_t)(lane->end - lane->at) < bytes)
		out->next_packet(out, peer, bytes);
	void *p = lane->at;
	lane->at += bytes;
	return p;
}

/** Operations that may begin now towards every peer of a set: the least of their credits. */
static inline uint32_t
chp_out_credits(const struct chp_out *out, uint64_t peers)
{
	uint32_t least = UINT32_MAX;

	for (; peers != 0; peers &= peers - 1)
		least = chp_min_u32(least, out->lane[chp_first_bit(peers)].credits);
	return least;
}

/** Take one credit of a peer, for a message with CHP_MESSAGE_BEGIN. */
static inline void
chp_out_begin(struct chp_out *out, uint32_t peer)
{
	struct chp_lane *lane = &out->lane[peer];

	CHP_ASSERT_OP(lane->credits, >, 0u);
	lane->credits--;
	lane->begun++;
}

/** Ask for tick() at `ns` or earlier. */
static inline void
chp_out_wake_at(struct chp_out *out, uint64_t ns)
{
	if (ns < out->wake_ns)
		out->wake_ns = ns;
}

/**
 * A reply tells what this replica holds, which is certain before `ns` only: whoever sends it reads the clock again
 * (SAFETY 16).
 */
static inline void
chp_out_reads_until(struct chp_out *out, uint64_t ns)
{
	if (ns < out->reads_until_ns)
		out->reads_until_ns = ns;
}

/* What every protocol counts; names and help are the telemetry's. */
#define CHP_PROTOCOL_COUNTERS(X)                                                           \
	X(reads, "reads answered")                                                         \
	X(reads_parked, "reads that waited for a key to become Valid")                     \
	X(writes, "writes and read-modify-writes committed here")                          \
	X(writes_parked, "writes that waited for a key to become Valid")                   \
	X(begun, "operations begun here")                                                  \
	X(aborts, "read-modify-writes overtaken and tried again")                          \
	X(unknown, "read-modify-writes whose outcome could not be told")                   \
	X(busy, "operations refused for want of credits, log or operation room")           \
	X(full, "operations refused for want of cache room")                               \
	X(resent, "operations sent again after a view change or link reset")               \
	X(replays, "versions of others replayed")                                          \
	X(inv_received, "INV messages received")                                           \
	X(forgotten, "deleted keys that left the data cache")                              \
	X(floors, "times the floor of versions was raised")                                \
	X(inv_stale, "of those, older than the key's version")                             \
	X(unstable, "writes put off until all floors are equal and new links have credits") \
	X(moved, "operations not begun because their session's home is elsewhere now")     \
	X(asked, "requests whose outcome was told from another's record")                  \
	X(overrun, "INV messages dropped because a peer began more than it was granted")   \
	X(nacks, "read-modify-writes refused with a newer version")                        \
	X(misses, "operations that needed a key that the cache did not hold")                \
	X(misses_refused, "of those, refused because too many keys were being loaded")      \
	X(host_away, "of those, while the host was away")                         \
	X(loads_failed, "keys that could not be loaded, or had no room in the cache")       \
	X(loads_stale, "keys loaded that a write had overtaken")                            \
	X(fetches, "keys asked for of the other members after a cold start")               \
	X(fetches_stale, "answers to what was not asked, or not any more")                  \
	X(reconciled, "keys written again to all members after a cold start")               \
	X(inv_parked, "INV messages that waited for the stored version of their key")       \
	X(ack_stale, "ACK messages that named no open operation")                          \
	X(val_stale, "VAL messages of a version that is not the key's")

struct chp_protocol_counters {
#define CHP_COUNTER_FIELD(name, help) uint64_t name;
	CHP_PROTOCOL_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
};

/* How far a learner's copy is: for people. */
struct chp_copy_progress {
	bool done;
	uint32_t source;     /* node id copied from; CHP_NODES_MAX = none */
	uint64_t at, total;  /* in the source's numbering; total 0 = not known yet */
	uint64_t items, bytes, restarts;
};

/* Where a protocol stands: for people and checkers. */
struct chp_protocol_status {
	const char *role;    /* what this replica is, as "coordinator" */
	uint32_t leader;     /* node id; CHP_NODES_MAX: none known, or a protocol without one */
	uint64_t epoch;      /* the protocol's own; see struct chp_protocol */
	uint64_t proposed, committed, applied; /* positions in a log that is the same everywhere; else 0 */
	const char *quorum;  /* whose acknowledgements a write needs: "majority", "all", "live" */
	char waiting[96];    /* why this replica does not serve; empty when nothing is missing */
};

struct chp_copy_counters; /* protocols/copy.h */
struct chp_zab_counters;  /* protocols/zab.h */
struct chp_application;   /* protocols/application.h */
struct chp_histogram;     /* base/histogram.h */

/* What a protocol instance works with; everything outlives the instance. */
struct chp_protocol_env {
	struct chp_cache *cache;
	struct chp_log *log;
	struct chp_sessions *sessions;
	struct chp_backing *backing; /* the datastore behind the cache; never NULL */
	struct chp_protocol_counters *counters;
	struct chp_copy_counters *copy_counters;
	struct chp_zab_counters *zab_counters;
	/*
	 * Nanoseconds of each client's write from where it began here to where it was committed, by the clocks of the
	 * two batches. Protocols with a leader record them, others need not.
	 */
	struct chp_histogram *commit_ns;
	const struct chp_application *application;
	const struct chp_memory *memory;
	uint32_t shard;
	uint32_t self;            /* node id */
	uint32_t n_nodes;
	uint32_t ops;             /* client operations that may wait or run */
	uint32_t credits;         /* operations of one peer that may be open */
	uint32_t keys_max;        /* what the data cache admits */
	uint32_t value_bytes_max;
	uint32_t copy_bytes;      /* of one chunk that a learner asks for */
	uint32_t loads_max;       /* keys that may be asked for of the store at the same time; 0 = there is none */
	uint64_t election_ns;     /* a leader that is silent for so long is given up */
	uint64_t leader_lease_ns; /* a leader's followers vote for nobody else for so long; 0: reads ask a quorum */
	uint32_t clock_drift_ppm; /* by which two nodes' clocks may run apart */
};

/* A protocol. All members are required but those of is_backed. */
struct chp_protocol {
	const char *name;

	/*
	 * Views fence it: what was sent in another view is discarded, or waits for its view. Otherwise packets carry
	 * epoch 0, and a view touches only the links to peers whose incarnation it changes.
	 */
	bool is_fenced;
	/* Committed entries stay in the log while there is room, for whoever has to catch up (SAFETY 36). */
	bool keeps_log;

	/* It works with a cache that holds a part of the data: loaded, scanned and scan_end are there. */
	bool is_backed;

	/* Memory from env->memory; NULL when it is short. env is copied. */
	void *(*create)(const struct chp_protocol_env *env);
	void (*destroy)(void *p);

	/* Whether a message is well-formed: checked before it is given to step. */
	bool (*accepts)(const struct chp_message *m, uint32_t value_bytes_max);
	/* The key a message is about: sets bytes, len, session; false when it names none. */
	bool (*key_of)(const struct chp_message *m, struct chp_key *key);

	/* n <= CHP_BATCH_MAX messages, in order per peer. */
	void (*step)(void *p, const struct chp_now *now, const struct chp_peer_message *m, uint32_t n,
		     struct chp_out *out);
	/*
	 * Whether this replica takes an operation now: OK, or how to answer it at once: NOT_SERVING, OVERLOAD,
	 * REDIRECT (*number: the node to ask), UNKNOWN_OP. Asked before the session's record is looked at, about pings
	 * too. op->key may be unset; op->session is 0 for the opening of a session. Has no effects.
	 */
	enum chp_status (*admit)(void *p, const struct chp_now *now, const struct chp_op *op, uint64_t *number);
	/* n <= CHP_BATCH_MAX admitted client operations; each is answered now or later, exactly once. */
	void (*submit)(void *p, const struct chp_now *now, const struct chp_op *op, uint32_t n,
		       struct chp_out *out);
	/* Answer and start what waited, at most while out->replies_left > 0. True when more is ready. */
	bool (*wake)(void *p, const struct chp_now *now, struct chp_out *out);
	void (*tick)(void *p, const struct chp_now *now, struct chp_out *out);

	/* The new view is in force; everything in flight is lost (SAFETY 8). */
	void (*view)(void *p, const struct chp_now *now, const struct chp_view *v, struct chp_out *out);
	/* The link to a peer was reset: everything in flight on it is lost, down first, later up. */
	void (*link_down)(void *p, const struct chp_now *now, uint32_t peer, struct chp_out *out);
	void (*link_up)(void *p, const struct chp_now *now, uint32_t peer, struct chp_out *out);

	/*
	 * From the store behind the cache, if the cluster has hosts (protocols/backing.h): the answers to loads, at
	 * most CHP_BATCH_MAX at a time; an item of a scan; the end of a part of a scan. Called where step() is.
	 */
	void (*loaded)(void *p, const struct chp_now *now, const struct chp_loaded *l, uint32_t n,
		       struct chp_out *out);
	void (*scanned)(void *p, const struct chp_now *now, uint32_t scan, const struct chp_stored *item,
			struct chp_out *out);
	void (*scan_end)(void *p, const struct chp_now *now, uint32_t scan, bool end, bool failed, struct chp_out *out);

	/* A number for a session that is about to be opened: never 0, never used before by any replica. */
	uint64_t (*new_session)(void *p);
	/* Whether this replica closes the session when it has been idle for long. */
	bool (*is_home)(const void *p, uint64_t session);
	/*
	 * What replies and requests of clients carry as epoch: rises when another replica may have begun to execute
	 * the requests of sessions; 0 = nobody is served yet.
	 */
	uint64_t (*epoch)(const void *p);
	void (*status)(const void *p, struct chp_protocol_status *out);

	/* Whether this learner's copy is complete, and how far it is. */
	bool (*copy_done)(const void *p);
	void (*copy_progress)(const void *p, struct chp_copy_progress *out);
	/* Client operations not answered yet. */
	uint32_t (*open_ops)(const void *p);
	/* Cold. check asserts all invariants; dump prints a key's state, or a summary for NULL. */
	void (*check)(const void *p);
	void (*dump)(const void *p, const struct chp_key *key, struct chp_text *t);
};

extern const struct chp_protocol chp_hermes, chp_zab;

/** Protocol by name; NULL if there is none. */
const struct chp_protocol *chp_protocol_find(const char *name);

/** NULL-terminated names of all protocols. Static storage. */
const char *const *chp_protocol_names(void);

#endif /* CHP_PROTOCOLS_PROTOCOL_H */
