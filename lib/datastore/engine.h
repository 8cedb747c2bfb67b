/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * engine.h - runs an adapter (datastore.h) on threads: requests in, completions out.
 *
 *   owner --submit--> [ordered]  writer thread    --\
 *                     [reads]    reader threads   ----> [done] --poll--> owner
 *                     [scans]    scanner thread   --/
 *
 * The writer takes all batches that wait, of all shards, and gives them to the adapter as one: group commit. It tries
 * again what fails, with back-off, for ever. Reads are tried again once, scans never; after that the store is looked
 * at, with back-off, until it works again. The writer also opens the store, and tries that again until it succeeds or
 * the engine ends.
 *
 * Thread rule: chp_engine_* are for one thread, the owner. Nothing of it blocks but chp_engine_stop, and that
 * for a bounded time.
 */
#ifndef CHP_DATASTORE_ENGINE_H
#define CHP_DATASTORE_ENGINE_H

#include "datastore/datastore.h"

struct chp_engine;

struct chp_engine_config {
	const struct chp_adapter *adapter;
	const json_t *store;            /* its configuration; must outlive the engine */
	struct chp_store_identity identity;
	uint32_t readers;               /* threads for reads, 1..CHP_ENGINE_READERS_MAX */
	uint64_t retry_ns_min, retry_ns_max; /* back-off after errors: doubles */
	uint64_t down_ns;               /* SLOW becomes DOWN when nothing succeeded for this long */
	uint64_t stop_ns;               /* how long chp_engine_stop waits for threads that hang in the store */
	/* Called by the threads when something can be polled after nothing could; may be NULL. */
	void (*wake)(void *arg);
	void *wake_arg;
};

/* More connections than this help no store. */
#define CHP_ENGINE_READERS_MAX 16u

#define CHP_ENGINE_COUNTERS(X)                                                              \
	X(commits, "batches given to the store, each one commit")                           \
	X(writes, "batches of shards in them")                                              \
	X(items, "versions in them")                                                        \
	X(applied, "of those, newer than what was stored")                                  \
	X(write_ns, "time spent in commits")                                                \
	X(write_ns_max, "the longest commit")                                               \
	X(write_errors, "commits that failed and were tried again")                         \
	X(reads, "keys looked up")                                                          \
	X(read_calls, "calls for that")                                                     \
	X(read_ns, "time spent in them")                                                    \
	X(read_errors, "of those, failed")                                                  \
	X(scans, "parts of scans")                                                          \
	X(scan_errors, "of those, failed")                                                  \
	X(opens, "tries to open the store")

struct chp_engine_counters {
#define CHP_COUNTER_FIELD(name, help) uint64_t name;
	CHP_ENGINE_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
};

/** Start the threads. NULL with *err = -ENOMEM or another negative errno. */
struct chp_engine *chp_engine_start(const struct chp_engine_config *config, int *err);

/**
 * Hand over requests. They are the engine's until chp_engine_poll gives them back. Not before the store is open
 * (chp_engine_info: refusal is CHP_HOST_OK).
 */
void chp_engine_submit(struct chp_engine *e, struct chp_store_request *const *request, uint32_t n);

/** Take completed requests, at most n. Returns how many. */
uint32_t chp_engine_poll(struct chp_engine *e, struct chp_store_request **done, uint32_t n);

/**
 * How the store is.
 *
 * @param version  of what the caller has seen; 0 at first. Raised when there is news
 * @return         whether *info was written: there is news
 */
bool chp_engine_info(struct chp_engine *e, uint64_t *version, struct chp_store_info *info);

/** The record of a shard as it was when the store was opened. Valid when refusal is CHP_HOST_OK. */
void chp_engine_record(const struct chp_engine *e, uint32_t shard, struct chp_store_record *r);

/** Whether the store was found to hold less than it had reported (CHP_STORE_ERROR_LOST): start everything over. */
bool chp_engine_is_lost(const struct chp_engine *e);

void chp_engine_stats(const struct chp_engine *e, struct chp_engine_counters *to);

/**
 * End. What was not completed is not known to be durable, and never completes. Threads that hang in the store longer
 * than stop_ns are left behind with their memory, and so must be the memory of the open requests.
 *
 * @return  whether all threads ended: if not, the requests' memory must not be freed
 */
bool chp_engine_stop(struct chp_engine *e);

#endif /* CHP_DATASTORE_ENGINE_H */
