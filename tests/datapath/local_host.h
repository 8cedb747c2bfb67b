/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * local_host.h - the host of a replica in the same process: a memory channel, a chp_dsi for each shard, and the adapter
 * "memory", which outlives the host that dies as a datastore of its own does.
 *
 * Owner: one thread, which also polls the replica.
 */
#ifndef TESTS_LOCAL_HOST_H
#define TESTS_LOCAL_HOST_H

#include "channel/channel.h"
#include "config/config.h"
#include "dsi/dsi.h"

struct local_host;

/** Requests that the datastore takes in one poll; 0: it stands still. */
#define LOCAL_HOST_FAST UINT32_MAX

/**
 * Make the host of a node, running.
 *
 * @param allow_loss  whether the store, which is volatile, permits eviction (SAFETY 31)
 * @return            NULL: no memory
 */
struct local_host *local_host_create(const struct chp_cluster_config *cluster, uint32_t node, bool allow_loss);
void local_host_destroy(struct local_host *h);

/** The replica's end of the channel. */
struct chp_channel *local_host_channel(struct local_host *h);
/** Its own end, for faults (channel/memory.h). */
struct chp_channel *local_host_end(struct local_host *h);

/** One iteration. Returns whether anything moved. */
bool local_host_poll(struct local_host *h);

/** From now on the datastore takes so many requests in a poll. */
void local_host_speed(struct local_host *h, uint32_t requests);

/** From now on its datastore says of every batch at once that it is stored, and keeps nothing of it. */
void local_host_forget(struct local_host *h);

/** End its process as a power cut would, and start another one; the datastore keeps what it completed. */
void local_host_kill(struct local_host *h);
void local_host_start(struct local_host *h);

/** What the datastore has of a key: enum chp_store_found; the value is copied, at most `cap` bytes. */
uint32_t local_host_find(struct local_host *h, const char *key, void *value, uint32_t cap, uint32_t *value_len);

/** What it has of a shard. */
const struct chp_store_record *local_host_record(const struct local_host *h, uint32_t shard);

#endif /* TESTS_LOCAL_HOST_H */
