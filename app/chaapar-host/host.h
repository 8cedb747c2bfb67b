/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * host.h - what the program is made of: a channel, an engine that runs an adapter, and a chp_dsi for each shard.
 *
 * One thread runs everything but the engine's threads. Nothing here waits for the datastore.
 */
#ifndef CHAAPAR_HOST_HOST_H
#define CHAAPAR_HOST_HOST_H

#include "channel/channel.h"
#include "config/host.h"
#include "datastore/engine.h"
#include "dsi/dsi.h"
#include "pipeline/error.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Packets that a shard's end writes in one run. */
#define HOST_BUFFERS CHP_CHANNEL_BURST

/* What one shard's end gets with its next run. */
struct host_lane {
	struct chp_dsi *dsi;
	struct chp_dsi_packet packet[CHP_CHANNEL_BURST];
	uint32_t n_packets;
	struct chp_store_request *done[CHP_DSI_REQUESTS_MAX];
	uint32_t n_done;
	bool tell_info, tell_record;
	uint64_t wake_ns;
	char refused[CHP_HOST_TEXT_BYTES]; /* as last printed */
};

struct host {
	const struct chp_cluster_config *cluster;
	const struct chp_node_config *node;
	const struct chp_host_file *file;
	const struct chp_adapter *adapter;

	struct chp_channel *channel;
	enum chp_channel_state channel_state; /* as last printed */
	char channel_text[CHP_CHANNEL_TEXT_BYTES]; /* likewise */
	uint64_t refused;     /* connections of the channel, when last looked at */
	uint64_t strays;      /* packets for no shard of ours */
	uint64_t not_sent;    /* packets that the channel did not take: their links send them again */

	struct chp_engine *engine;
	uint64_t info_version;
	struct chp_store_info info;
	struct chp_store_info said; /* as last printed, and when; 0: never */
	uint64_t said_ns;
	bool is_open;         /* the shards' ends know their records */
	uint64_t starts;      /* of the store: 1, and one more for each time that it had lost something */
	atomic_bool news;     /* the engine has something */
	atomic_bool sleeps;   /* the main thread does: an event must be written */
	int event_fd;

	struct host_lane lane[CHP_SHARDS_MAX];
	uint8_t *memory;      /* of the buffers */
	struct chp_dsi_buffer buffer[HOST_BUFFERS];

	uint64_t now_ns, tick_ns; /* what is looked at now and then */
	uint32_t idle_rounds;
	uint64_t sleep_ns;
	int status_fd;        /* listens; -1: no status socket */
};

/** Start the engine and the shards' ends. The rest of *h stays as it is. Returns 0, or -1 with *error. */
int host_start_store(struct host *h, struct chp_error *error);

/** Open the channel and the status socket. Returns 0, or -1 with *error. */
int host_open(struct host *h, struct chp_error *error);

/** Say on standard error by what the replica and others reach us. */
void host_print_ways(const struct host *h);

/** Serve until told to stop. Returns 0, or -1 with *error. */
int host_run(struct host *h, const atomic_bool *stop, struct chp_error *error);

/** End everything that was started, also part of it. */
void host_close(struct host *h);

/** Bytes of memory that the shards' ends take. */
uint64_t host_bytes(const struct host *h);

/** The status as one line of JSON, malloc'd; NULL where memory is short. */
char *host_status(struct host *h);

/** Make the status socket, and tell whoever is connected to it. Call the second now and then. */
int host_status_open(struct host *h, struct chp_error *error);
void host_status_answer(struct host *h);
void host_status_close(struct host *h);

#endif /* CHAAPAR_HOST_HOST_H */
