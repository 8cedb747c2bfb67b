/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * local.h - a cluster in one process: replicas on the ports of a ring_net, in any mapping to lcores.
 *
 * For tests, which poll everything from one thread or launch lcores, and for `make bench`.
 */
#ifndef TESTS_LOCAL_H
#define TESTS_LOCAL_H

#include "pipeline/pipeline.h"
#include "ring_net.h"

#include <stdbool.h>
#include <stdint.h>

#define LOCAL_REPLICAS_MAX 8u

struct local_options {
	uint32_t replicas;
	uint32_t shards;
	uint32_t queues;       /* of each port */
	const char *lcores;    /* JSON of "lcores" in the node files; NULL: everything on one lcore */
	const char *cluster;   /* more members of the cluster file, as "\"keys_max\": 1000,"; or NULL */
	const char *node;      /* more members of the node file; or NULL */
	uint32_t ring_entries; /* of the network; 0 = 4096 */
	bool (*tap)(void *context, uint32_t from, struct rte_mbuf *m); /* see ring_net.h */
	void *tap_context;
};

struct local {
	struct local_options options;
	struct ring_net net;
	struct chp_cluster_config cluster;
	struct chp_node_config node[LOCAL_REPLICAS_MAX];
	struct chp_pipeline *replica[LOCAL_REPLICAS_MAX];
	uint32_t reports;        /* lines for people */
	char last_report[256];
};

/**
 * Create the replicas: addresses 10.0.0.1, 10.0.0.2, ..., UDP ports from 7168. Nothing runs yet.
 *
 * @return  0; -1 with *error
 */
int local_create(struct local *l, const struct local_options *options, struct chp_error *error);

/** Destroy the replicas; the network's rings stay, as EAL's clean-up frees them. */
void local_destroy(struct local *l);

/** One iteration of every lcore of every replica, and of the network. Returns whether anything moved. */
bool local_poll(struct local *l);

/** Poll until every replica serves. False when it does not happen in two seconds. */
bool local_wait_serving(struct local *l);

#endif /* TESTS_LOCAL_H */
