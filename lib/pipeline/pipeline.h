/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pipeline.h - one replica on one DPDK port: packets in, packets out.
 *
 *            peers, one ring per (rx, shard)            +-------+
 *   port --> RX ------------------------------------->  | shard | --> TX --> port
 *            clients, one ring per (rx, shard) ------>  +-------+
 *            membership, ARP, ICMP, info, status ---->  control -->
 *            in a cluster with hosts: each shard <----> host <----> channel (channel/channel.h)
 *
 * Stages are run by lcores as the node file says. Between stages on different lcores there is an SP/SC
 * ring; between stages on the same lcore a plain array: that is run to completion. The stage functions are
 * the same. Everything a process needs is in its struct chp_pipeline, so several replicas can live in one
 * process, also on one lcore (tests, `make bench`).
 *
 * Owner: each function says who may call it. After chp_pipeline_create nothing allocates.
 */
#ifndef CHP_PIPELINE_PIPELINE_H
#define CHP_PIPELINE_PIPELINE_H

#include "config/config.h"
#include "core/membership.h"
#include "core/shard.h"
#include "frontends/native.h"
#include "pipeline/counters.h"
#include "pipeline/error.h"
#include "pipeline/impair.h"

#include <stdbool.h>
#include <stdint.h>

struct chp_channel;
struct chp_pipeline;

struct chp_pipeline_config {
	const struct chp_cluster_config *cluster; /* copied */
	const struct chp_node_config *node;       /* copied */
	uint16_t port_id;
	bool keep_port;         /* for another pipeline, in tests: otherwise the port is closed with this one */
	const char *name;       /* unique in the process, at most 8 characters; copied */
	uint64_t incarnation;   /* random, not 0 */
	bool bootstrap;         /* SAFETY 21 */
	const char *version;    /* of the program, for `status`; static */
	/*
	 * For tests, in a cluster with hosts: the end of a channel that is used instead of the node file's. It stays
	 * the caller's and outlives the pipeline. Otherwise NULL.
	 */
	struct chp_channel *channel;
	/* Takes lines for people: who refused whom, an address used twice. Control lcore. May be NULL. */
	void (*report)(void *context, const char *line);
	void *report_context;
};

/* What the shards' own lcores saw, at most CHP_REPORT_NS old. */
struct chp_shard_report {
	struct chp_shard_stats core;
	struct chp_native_counters native;
	struct chp_copy_progress copy;
	struct chp_protocol_status status;
	struct chp_commit_times commit;
	struct chp_host_status host;
	uint32_t life; /* of this process, see struct chp_membership; counters begin again with each */
};

#define CHP_REPORT_NS UINT64_C(100000000)

/* The node as a whole. */
struct chp_node_report {
	uint64_t epoch;
	enum chp_membership_state membership;
	uint32_t lives;      /* how often this process began without a state; from 1 */
	uint64_t lease_ns;   /* time left in which it may serve */
	uint64_t heard;      /* node mask */
	uint64_t uptime_ns;
	uint64_t count[CHP_COUNT_COUNT]; /* sums over lcores */
};

/**
 * Set up port, pools, rings and shards. Nothing runs yet.
 *
 * @return  NULL with *error: one line that says what to change
 */
struct chp_pipeline *chp_pipeline_create(const struct chp_pipeline_config *config,
					 struct chp_error *error);

/** Stop the port and free everything. No lcore may be in it. Accepts NULL. */
void chp_pipeline_destroy(struct chp_pipeline *p);

/**
 * Run one iteration of the stages of lcore[index] of the node file, in their order.
 *
 * @return  whether it received, ran or sent anything
 *
 * Any thread, one at a time per index; an EAL thread, so that mempool caches are used.
 */
bool chp_pipeline_poll(struct chp_pipeline *p, uint32_t index);

/** Poll until stopped, idling as the node file says; then send what is left. For rte_eal_remote_launch. */
void chp_pipeline_run(struct chp_pipeline *p, uint32_t index);

/**
 * Begin an orderly stop: client requests are answered "not serving" from now on, open operations may
 * finish for CHP_STOP_NS, then every chp_pipeline_run returns. Async-signal-safe.
 */
void chp_pipeline_stop(struct chp_pipeline *p);

#define CHP_STOP_NS UINT64_C(1000000000)

/** Whether the stop is complete. Any thread. */
bool chp_pipeline_is_stopped(const struct chp_pipeline *p);

/**
 * The exit code after the stop: CHP_EXIT_OK, CHP_EXIT_REFUSED, or CHP_EXIT_RESOURCE when a shard could not begin
 * anew. Any thread, after the stop.
 */
int chp_pipeline_exit_code(const struct chp_pipeline *p);

/** Ticks of lcore[index] by what for. Any thread. */
void chp_pipeline_cycles(const struct chp_pipeline *p, uint32_t index, uint64_t ticks[CHP_CYCLES_COUNT]);

/** A counter, summed over lcores. Any thread. */
uint64_t chp_pipeline_count(const struct chp_pipeline *p, enum chp_pipeline_counter which);

/** Impair on purpose, or not any more (all zero). Any thread. */
void chp_pipeline_impair(struct chp_pipeline *p, const struct chp_impairment *to);

/**
 * Whether the node may answer its clients: it is a voter with a lease. Where views do not fence the protocol: none of
 * its shards says that it waits, as of CHP_REPORT_NS ago at most. Any thread.
 */
bool chp_pipeline_is_serving(const struct chp_pipeline *p);

/**
 * Copy a shard's report, or the node's (shard NULL or node NULL: not wanted). Answered by the control
 * lcore within a few iterations; any other thread, which sleeps meanwhile.
 *
 * @return  false when the control lcore did not answer within a second
 */
bool chp_pipeline_report(struct chp_pipeline *p, uint32_t shard, struct chp_shard_report *shard_report,
			 struct chp_node_report *node_report);

/* What chp_pipeline_status writes at most: 64 members with their texts, 128 lcores and all counters. */
#define CHP_TEXT_BYTES 196608u

/**
 * What a `status` request of a section answers, as JSON. The control lcore, or anyone after the stop.
 *
 * @param section  0 = the node, 1 + s = shard s
 * @return         length; text is cut and useless when it is `cap` or more
 */
uint32_t chp_pipeline_status(struct chp_pipeline *p, uint32_t section, char *text, uint32_t cap);

/** Shards, for tests: only while their lcore is not in the pipeline, and until it is again. May be NULL. */
struct chp_shard *chp_pipeline_shard(struct chp_pipeline *p, uint32_t shard);

#endif /* CHP_PIPELINE_PIPELINE_H */
