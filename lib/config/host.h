/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * host.h - the host file: the configuration of chaapar-host, one for each node (docs/config.md).
 *
 * Thread rule: no shared state.
 */
#ifndef CHP_CONFIG_HOST_H
#define CHP_CONFIG_HOST_H

#include "config/config.h"

#include <jansson.h>

#define CHP_HOST_PATH_BYTES 108u /* of a Unix socket */
#define CHP_HOST_READERS_MAX 16u

struct chp_host_file {
	struct chp_channel_keys channel;
	json_t *store;              /* the object "store": what is in it is its adapter's; owned */
	enum chp_idle idle;
	uint64_t idle_sleep_ns;     /* the longest sleep */
	uint32_t put_bytes;         /* per shard: of versions that a replica may send before they are durable */
	uint32_t scan_bytes;        /* of one part of a scan */
	uint32_t readers;           /* threads, each with a connection of its own */
	uint64_t retry_ns_min, retry_ns_max; /* waits between tries of what failed */
	uint64_t down_ns;           /* a store that fails for this long, or does not answer, is down */
	uint64_t stop_ns;           /* how long the end waits for a store that hangs */
	char status[CHP_HOST_PATH_BYTES]; /* a Unix socket that tells the status; "" = none */
};

/**
 * Asked about the object "store", which has a "type" that is a text.
 *
 * @param why  why it is not right, "key: ..." where it is about one key
 */
typedef bool chp_host_check_store(const json_t *store, char why[CHP_CONFIG_ERROR_BYTES]);

/**
 * Parse and validate a host file, as chp_node_config_parse does.
 *
 * Owns: chp_host_file_free; not needed after false.
 */
bool chp_host_file_parse(const char *text, size_t len, const char *file, const struct chp_cluster_config *cluster,
			 chp_host_check_store *check_store, struct chp_host_file *out,
			 struct chp_config_errors *errors);
void chp_host_file_free(struct chp_host_file *h);

/**
 * The effective configuration as JSON that parses again.
 *
 * @param bytes  memory that the program will take, printed in an object that is ignored when read
 * @return       malloc'd text without a newline at its end; NULL when memory is short
 */
char *chp_host_file_print(const struct chp_host_file *h, uint64_t bytes);

#endif /* CHP_CONFIG_HOST_H */
