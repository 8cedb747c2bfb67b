/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * shard.h - one slice of the key space on one replica: the pure state machine at the heart.
 *
 *   events in (a batch)                           effects out
 *     packets from peers    \                    / packets to peers
 *     client operations      >  chp_shard_run() <  replies to clients
 *     now, a view           /                    \ next deadline
 *
 * Same events, same effects, bit for bit: the DPDK pipeline and the simulator call the same function.
 * Shard i of a node talks to shard i of the other nodes and to nothing else.
 *
 * The core's part, between packets and the protocol: links, the epoch fence, credits, sessions
 * (exactly once), the log's compaction, batches with their bulk look-ups.
 *
 * Owner: one lcore; not thread-safe. Nothing allocates after chp_shard_create.
 */
#ifndef CHP_CORE_SHARD_H
#define CHP_CORE_SHARD_H

#include "base/histogram.h"
#include "base/memory.h"
#include "core/host.h"
#include "core/link.h"
#include "protocols/application.h"
#include "protocols/copy.h"
#include "protocols/protocol.h"
#include "protocols/zab.h"

#include <stdint.h>

struct chp_shard;

struct chp_shard_config {
	const struct chp_protocol *protocol;
	const struct chp_application *application;
	const struct chp_memory *memory;
	const char *name;           /* unique in the process, at most 16 characters */
	uint32_t cluster_hash;
	uint32_t shard, shards;
	uint32_t self, n_nodes;     /* node ids are 0..n_nodes-1 */
	uint64_t hash_seed;
	uint32_t payload_bytes_max; /* UDP payload of the MTU */
	uint32_t key_bytes_max, value_bytes_max;
	uint32_t keys_max, value_blocks_max;
	uint32_t sessions_max, session_window;
	uint64_t session_idle_ns;
	uint32_t credits;           /* operations of one peer that may be open here */
	uint32_t link_window;
	uint32_t log_entries, log_blocks;
	uint32_t ops;               /* client operations that may wait or run */
	uint32_t copy_bytes;        /* of one chunk of the state copy that a learner asks for */
	uint64_t rto_ns_min, rto_ns_max, ack_delay_ns, link_down_ns;
	uint64_t election_ns, leader_lease_ns; /* as in struct chp_protocol_env: of protocols with a leader */
	uint32_t clock_drift_ppm;
	/* The host (core/host.h). Without one the rest is unused. */
	bool has_host;
	bool is_durable;            /* durability level `datastore`: needs a host */
	uint64_t incarnation;       /* random; of this shard, on the channel */
	uint32_t batch_items, batch_bytes; /* of one batch written behind */
	uint64_t batch_age_ns;      /* after which a batch is sent though it is not full */
	uint32_t loads_max;         /* keys that may be asked for at the same time */
	uint32_t busy_fill_percent; /* of the log, from which on new operations are refused; 100 without a host */
};

/*
 * One packet from a peer, the UDP payload, accepted by chp_peer_check; or from the host, accepted by chp_host_check or
 * chp_host_hello_check.
 */
struct chp_packet {
	const uint8_t *data;
	uint32_t len;
};

struct chp_events {
	const struct chp_packet *packet; /* all are consumed */
	uint32_t n_packets;
	struct chp_op *op;               /* n_ops <= CHP_BATCH_MAX and <= effects->reply_room; keys' */
	uint32_t n_ops;                  /* digests are filled in here */
	const struct chp_view *view;     /* a new view to enter before anything else, or NULL */
	/*
	 * Epoch of a first view that this replica is about to accept, 0 = none: its life in the store becomes at least
	 * that, which chp_shard_host_status tells (SAFETY 34). May be given in every run until there is a view.
	 */
	uint64_t founding;
	/* The channel to the host is known to have lost it: nobody waits until it has been silent for long. */
	bool host_is_gone;
};

/* A buffer for one packet to a peer, supplied by the caller. */
struct chp_buffer {
	uint8_t *data;  /* config.payload_bytes_max bytes */
	uint32_t len;   /* set when used */
	uint32_t peer;  /* node id, or CHP_TO_HOST; set when used */
};
#define CHP_TO_HOST CHP_NODES_MAX

struct chp_effects {
	struct chp_buffer *buffer; /* n_buffers to write; the first n_used were written, unsealed */
	uint32_t n_buffers;
	uint32_t n_used;
	/* Takes a reply; see struct chp_out. Called at most reply_room times. */
	uint8_t *(*reply)(void *frontend, const struct chp_reply *r);
	void *frontend;
	uint32_t reply_room;
	uint64_t wake_ns;          /* call again at this time or earlier; 0 = at once, more is ready */
	/*
	 * [SAFETY 16] The replies of this run that tell what this replica holds are good before this, CHP_NEVER if
	 * there are none: whoever sends them reads the clock again and takes reads back if it is later.
	 */
	uint64_t reads_until_ns;
};

#define CHP_SHARD_COUNTERS(X)                                                                    \
	X(runs, "batches run")                                                                   \
	X(messages, "messages delivered to the protocol")                                        \
	X(ops, "client operations taken")                                                        \
	X(replies, "replies given")                                                              \
	X(retry_replayed, "retries answered from a session's record")                            \
	X(retry_pending, "retries of an operation that still runs here")                         \
	X(retry_stale, "retries of requests that the client had seen answered")                  \
	X(session_unknown, "requests refused for an unknown session")                            \
	X(session_window, "requests refused because their number is beyond the session's window") \
	X(sessions_expired, "idle sessions closed")                                              \
	X(wrong_shard, "requests for keys of another shard")                                     \
	X(not_serving, "requests refused while there is no view, lease or leader")               \
	X(redirected, "requests for another replica to execute, or that name an old epoch")      \
	X(home_not_ready, "requests put off until this replica has heard of all earlier ones")   \
	X(misdirected, "packets from peers that name another node or shard")                     \
	X(log_compacted, "log entries dropped after commit and durability")

struct chp_shard_counters {
#define CHP_COUNTER_FIELD(name, help) uint64_t name;
	CHP_SHARD_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
};

/* A copy of what `status` shows. */
struct chp_shard_stats {
	struct chp_shard_counters shard;
	struct chp_protocol_counters protocol;
	struct chp_copy_counters copy;
	struct chp_zab_counters zab;
	struct chp_cache_stats cache;
	struct chp_host_counters host;
	struct chp_link_counters host_link;
	uint64_t epoch;
	uint64_t open_ops;
	uint64_t sessions;
	uint64_t log_head, log_next, log_capacity;
	struct chp_link_counters link[CHP_NODES_MAX];
	struct {
		uint64_t session, in_flight, queued, credits, rtt_ns, up;
	} link_state[CHP_NODES_MAX];
};

/** Create a shard without a view: it serves nobody until one arrives. NULL, *err -ENOMEM or -EINVAL. */
struct chp_shard *chp_shard_create(const struct chp_shard_config *config, int *err);

/** Accepts NULL. */
void chp_shard_destroy(struct chp_shard *s);

/** Bytes of memory a shard takes, by part: for --print-config. */
struct chp_shard_bytes {
	uint64_t cache, log, sessions, links, ops, total;
};
void chp_shard_bytes(const struct chp_shard_config *config, struct chp_shard_bytes *out);

/** Buffers that chp_shard_run wants at least, to move every link once. */
uint32_t chp_shard_buffers_min(const struct chp_shard *s);

/**
 * Run a batch. Consumes all events; packets, keys and values may be reused when it returns.
 *
 * @param now  read after the last event was taken (SAFETY 16)
 *
 * Errors: none. What cannot be done is answered with a status or counted.
 */
void chp_shard_run(struct chp_shard *s, const struct chp_now *now, const struct chp_events *in,
		   struct chp_effects *out);

/**
 * Whether this learner has everything that its cluster's voters have: it may become a voter (SAFETY 9). Stays
 * true for as long as the shard lives; true for who was a voter from the first view on.
 */
bool chp_shard_copy_done(const struct chp_shard *s);

/** How far a learner's copy is. */
void chp_shard_copy_progress(const struct chp_shard *s, struct chp_copy_progress *out);

/** For tests: chp_hermes_raise_evicted, where the protocol is Hermes; between runs. */
void chp_shard_raise_evicted(struct chp_shard *s, uint64_t counter);

/** Reset the link to a peer in the next run, as if it had been silent for link_down_ns. */
void chp_shard_reset_link(struct chp_shard *s, uint32_t peer);

/** Copy the counters. Call on the shard's own lcore. */
void chp_shard_stats(const struct chp_shard *s, struct chp_shard_stats *out);

/* How long commits took, from the shard's creation on: see commit_ns in struct chp_protocol_env. */
#define CHP_COMMIT_QUANTILES(X)      \
	X(p1_ns, 10000)              \
	X(p10_ns, 100000)            \
	X(p25_ns, 250000)            \
	X(p50_ns, 500000)            \
	X(p75_ns, 750000)            \
	X(p90_ns, 900000)            \
	X(p99_ns, 990000)            \
	X(p999_ns, 999000)           \
	X(max_ns, 1000000)

struct chp_commit_times {
	uint64_t n;
#define CHP_COMMIT_FIELD(name, ppm) uint64_t name;
	CHP_COMMIT_QUANTILES(CHP_COMMIT_FIELD)
#undef CHP_COMMIT_FIELD
};
void chp_shard_commit_times(const struct chp_shard *s, struct chp_commit_times *out);

/** All of them, for whoever polls the shard himself. */
const struct chp_histogram *chp_shard_commit_histogram(const struct chp_shard *s);

/** How the host is. Call on the shard's own lcore. */
void chp_shard_host_status(const struct chp_shard *s, uint64_t now_ns, struct chp_host_status *out);

/** The protocol's epoch, which replies to clients carry; see struct chp_protocol. */
uint64_t chp_shard_epoch(const struct chp_shard *s);

/** The epoch of the view in force; 0 before the first. */
uint64_t chp_shard_view_epoch(const struct chp_shard *s);

/** Where the protocol stands. */
void chp_shard_status(const struct chp_shard *s, struct chp_protocol_status *out);

/** Order-independent digest of keys, versions, values and sessions: equal on replicas at rest. Cold. */
uint64_t chp_shard_digest(const struct chp_shard *s);

/**
 * True when no operation is open, nothing waits or is uncommitted and, in a protocol that views fence, no packet is
 * unacknowledged. Others speak to their peers all the time, and with silent ones in vain. A host that is READY has
 * saved everything, too.
 */
bool chp_shard_is_idle(const struct chp_shard *s);

/** Assert the invariants of the shard and everything below it. Cold. */
void chp_shard_check(const struct chp_shard *s);

/** State of a key, or a summary for NULL, as text for people. Cold. */
void chp_shard_dump(const struct chp_shard *s, const char *key, struct chp_text *t);

/* Parts for checkers: the shard's cache, log and protocol state. */
struct chp_cache *chp_shard_cache(struct chp_shard *s);
const struct chp_log *chp_shard_log(const struct chp_shard *s);
void *chp_shard_instance(const struct chp_shard *s);

#endif /* CHP_CORE_SHARD_H */
