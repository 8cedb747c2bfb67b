/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load.h - the load generator of the benchmark: a closed loop of clients on the outside of a ring_net.
 *
 * By default one connection per replica and shard, each with a session, a window of requests in flight, coalesced
 * into full datagrams. Frames are written and read here directly: no kernel, no client library.
 */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include "base/histogram.h"
#include "base/random.h"

#include "../../tests/datapath/local.h"
#include "../chaaparctl/zipf.h"

#include <stdbool.h>
#include <stdint.h>

/* A key begins with its number. */
#define LOAD_KEY_BYTES_MIN 8u

struct load_options {
	uint32_t keys;
	uint32_t key_bytes;
	uint32_t value_bytes;
	uint32_t connections; /* of each shard; connection i is of replica i modulo the number of replicas */
	uint32_t window;      /* requests in flight per connection */
	uint32_t writes_pct;  /* LOAD_MIXED */
	uint32_t hot_keys;    /* LOAD_HITS: of each shard */
	double theta;         /* of Zipf's law in LOAD_WRITES, LOAD_READS and LOAD_MIXED; 0: all keys alike */
};

/* What is asked for. */
enum load_mix {
	LOAD_NOTHING,
	LOAD_PRELOAD, /* every key once, in order */
	LOAD_WRITES,
	LOAD_READS,
	LOAD_MIXED,
	LOAD_HITS,   /* reads of hot_keys keys: once read they stay in a cache */
	LOAD_MISSES, /* reads of all keys in turn: what is read next left a smaller cache long ago */
};

/* Who is asked to read. Writes go where the replicas say, at first to the connection's own. */
enum load_readers {
	LOAD_READ_OWN,       /* each connection its own replica */
	LOAD_READ_LEADER,    /* where the connection's writes go */
	LOAD_READ_FOLLOWERS, /* never there */
};

struct load_counts {
	uint64_t reads, writes; /* answered OK */
	uint64_t refused;       /* answered busy, which is final, or overload: asked again */
	uint64_t failed;        /* answered anything else */
	uint64_t resent;        /* no answer for RESEND_MS */
	uint64_t redirected;    /* sent again to another replica, which the answer named */
};

struct load_connection;

struct load {
	struct local *l;
	struct load_options options;
	enum load_mix mix;
	enum load_readers readers;
	struct load_counts counts;
	struct chp_histogram read_latency, write_latency; /* ticks, of the phase */
	struct chp_random random;
	struct rte_mempool *pool;
	uint32_t n_connections;
	struct load_connection *connection;
	uint32_t **shard_keys;   /* numbers of the keys of each shard */
	uint32_t *n_shard_keys;
	struct load_zipf *zipf;   /* of each shard */
	uint64_t resend_ticks, refused_ticks;
};

/** Create the generator and open its sessions. Returns 0; -1 with *error. */
int load_create(struct load *g, struct local *l, const struct load_options *options,
		struct chp_error *error);
void load_destroy(struct load *g);

/** Begin a phase: counts and latencies start at zero. */
void load_begin(struct load *g, enum load_mix mix, enum load_readers readers);

/** Whom writes of a shard are sent to: without a leader, the replica of its first connection. */
uint32_t load_leader(const struct load *g, uint32_t shard);

/**
 * Switch the quorum rule of every shard (enum chp_quorum_rule), between phases.
 *
 * @return  false when a shard did not say that the rule is in force
 */
bool load_set_quorum(struct load *g, uint32_t rule);

/** One iteration: take replies, fill windows, forward frames. */
void load_poll(struct load *g);

/** Whether every key was written (LOAD_PRELOAD). */
bool load_is_preloaded(const struct load *g);

/** Requests without an answer. */
uint32_t load_in_flight(const struct load *g);

#endif /* BENCH_LOAD_H */
