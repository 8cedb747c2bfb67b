/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * local.h - a cluster in one process: replicas on the ports of a ring_net, in any mapping to lcores.
 *
 * For tests, which poll everything from one thread or launch lcores, and for `make bench`.
 */
#ifndef TESTS_LOCAL_H
#define TESTS_LOCAL_H

#include "local_host.h"
#include "pipeline/pipeline.h"
#include "ring_net.h"

#include <stdbool.h>
#include <stdint.h>

#define LOCAL_REPLICAS_MAX 8u
/* For the node files: nobody is suspected or without a lease because this process has to wait for a CPU. */
#define LOCAL_PATIENT                                                                             \
	"\"timers\": { \"suspect_us\": 20000000, \"lease_us\": 10000000, \"election_us\": 20000000, " \
	"\"leader_lease_us\": 10000000 },"
/* Replicas killed in one test; each keeps its memory until the end. */
#define LOCAL_DEAD_MAX 8u

struct local_options {
	uint32_t replicas;
	uint32_t shards;
	uint32_t queues;       /* of each port */
	const char *protocol;  /* NULL: hermes */
	const char *lcores;    /* JSON of "lcores" in the node files; NULL: everything on one lcore */
	const char *cluster;   /* more members of the cluster file, as "\"keys_max\": 1000,"; or NULL */
	const char *node;      /* more members of the node file; NULL: LOCAL_PATIENT */
	const char *node_of[LOCAL_REPLICAS_MAX]; /* the same for one replica alone, instead of `node`; or NULL */
	uint32_t ring_entries; /* of the network; 0 = 4096 */
	bool hosts;            /* each replica has one (local_host.h); `cluster` says how durable things are */
	bool hosts_apart;      /* whoever created this polls the hosts, with another thread */
	bool keep;             /* the hosts' stores permit eviction, though they are volatile */
	const char *host_ports; /* the hosts are processes of their own, behind DPDK ports of this name and the
				 * replica's number; NULL: they are here */
	bool (*tap)(void *context, uint32_t from, struct rte_mbuf *m); /* see ring_net.h */
	void *tap_context;
};

struct local {
	struct local_options options;
	struct ring_net net;
	struct chp_cluster_config cluster;
	struct chp_node_config node[LOCAL_REPLICAS_MAX];
	struct chp_pipeline *replica[LOCAL_REPLICAS_MAX]; /* NULL: killed */
	struct local_host *host[LOCAL_REPLICAS_MAX];      /* NULL: none in this process */
	uint32_t born[LOCAL_REPLICAS_MAX]; /* processes that there were of each */
	uint32_t n_dead;
	struct chp_pipeline *dead[LOCAL_DEAD_MAX];
	uint32_t reports;        /* lines for people */
	char last_report[256];
};

/**
 * Create the replicas: addresses 10.0.0.1, 10.0.0.2, ..., UDP ports from 7168. Nothing runs yet.
 *
 * @return  0; -1 with *error
 */
int local_create(struct local *l, const struct local_options *options, struct chp_error *error);

/**
 * Only read the configuration that local_create would, into l->cluster and l->node. As local_create.
 */
int local_configure(struct local *l, const struct local_options *options, struct chp_error *error);

/** End a replica as a power cut would: what it had is lost, and what is sent to it from now on. */
void local_kill(struct local *l, uint32_t replica);

/** Start one that was killed again: a new process, without memory and without --bootstrap. As local_create. */
int local_start(struct local *l, uint32_t replica, struct chp_error *error);

/** Destroy the replicas; the network's rings stay, as EAL's clean-up frees them. */
void local_destroy(struct local *l);

/** One iteration of every lcore of every living replica, of the hosts and the network. Whether anything moved. */
bool local_poll(struct local *l);

/** Poll until every living replica serves. False when it does not happen in ten seconds. */
bool local_wait_serving(struct local *l);

#endif /* TESTS_LOCAL_H */
