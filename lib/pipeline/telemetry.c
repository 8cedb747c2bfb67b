/* SPDX-License-Identifier: BSD-3-Clause */
#include "pipeline/telemetry.h"

#include "pipeline/stages.h"

#include <rte_telemetry.h>

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* The callbacks get no argument of ours, so the replica of the process stands here. The lock is between
 * telemetry's thread and the end of the program; lcores never see it. */
static struct {
	pthread_mutex_t lock;
	struct chp_pipeline *p;
} of_process = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void
add(struct rte_tel_data *d, const char *name, uint64_t value)
{
	(void)rte_tel_data_add_dict_u64(d, name, value);
}

static int
show_node(struct chp_pipeline *p, const char *parameters, struct rte_tel_data *d)
{
	struct chp_node_report r;

	(void)parameters;
	if (!chp_pipeline_report(p, UINT32_MAX, NULL, &r))
		return -ETIMEDOUT;
	add(d, "epoch", r.epoch);
	add(d, "membership_state", (uint64_t)r.membership);
	add(d, "lives", r.lives);
	add(d, "lease_ns", r.lease_ns);
	add(d, "heard", r.heard);
	add(d, "uptime_s", r.uptime_ns / CHP_NS_PER_S);
	for (uint32_t i = 0; i < CHP_COUNT_COUNT; i++)
		add(d, chp_counter_name(i), r.count[i]);
	for (uint32_t i = 0; i < p->node.n_lcores; i++) {
		static const char *const what[] = { "protocol", "network", "rest", "idle" };
		uint64_t t[CHP_CYCLES_COUNT];
		char name[48];

		chp_pipeline_cycles(p, i, t);
		for (uint32_t k = 0; k < CHP_CYCLES_COUNT; k++) {
			(void)snprintf(name, sizeof(name), "lcore%u_cycles_%s", p->node.lcore[i].lcore,
				       what[k]);
			add(d, name, t[k]);
		}
	}
	return 0;
}

static void
show_link(struct rte_tel_data *d, const struct chp_shard_stats *t, uint32_t peer)
{
	char name[64];

#define CHP_COUNTER_FIELD(field, help)                                            \
	(void)snprintf(name, sizeof(name), "link%u_" #field, peer);                \
	add(d, name, t->link[peer].field);
	CHP_LINK_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
#define STATE(field)                                                              \
	(void)snprintf(name, sizeof(name), "link%u_" #field, peer);                \
	add(d, name, t->link_state[peer].field);
	STATE(up)
	STATE(session)
	STATE(in_flight)
	STATE(queued)
	STATE(credits)
	STATE(rtt_ns)
#undef STATE
}

static int
show_shard(struct chp_pipeline *p, const char *parameters, struct rte_tel_data *d)
{
	struct chp_shard_report r;
	char *end;
	unsigned long shard = parameters != NULL ? strtoul(parameters, &end, 10) : ULONG_MAX;
	unsigned long peer = ULONG_MAX;

	if (shard < p->cluster.shards && *end == ',')
		peer = strtoul(end + 1, &end, 10);
	if (shard >= p->cluster.shards || *end != '\0' || (peer != ULONG_MAX && peer >= p->cluster.n_members))
		return -EINVAL;
	if (!chp_pipeline_report(p, (uint32_t)shard, &r, NULL))
		return -ETIMEDOUT;
	/* A dictionary of telemetry has no room for the links of many members: they can be asked for one by one. */
	if (peer != ULONG_MAX) {
		show_link(d, &r.core, (uint32_t)peer);
		return 0;
	}
	add(d, "epoch", r.core.epoch);
	add(d, "life", r.life);
	add(d, "copy_done", r.copy.done);
	add(d, "copy_items", r.copy.items);
	add(d, "copy_bytes", r.copy.bytes);
	add(d, "open_ops", r.core.open_ops);
	add(d, "sessions", r.core.sessions);
	add(d, "keys", r.core.cache.keys);
	add(d, "tombstones", r.core.cache.tombstones);
	add(d, "blocks", r.core.cache.blocks);
	add(d, "log_head", r.core.log_head);
	add(d, "log_next", r.core.log_next);
	add(d, "log_capacity", r.core.log_capacity);
#define CHP_COUNTER_FIELD(field, help) add(d, #field, r.core.shard.field);
	CHP_SHARD_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
#define CHP_COUNTER_FIELD(field, help) add(d, "protocol_" #field, r.core.protocol.field);
	CHP_PROTOCOL_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
#define CHP_COUNTER_FIELD(field, help) add(d, "native_" #field, r.native.field);
	CHP_NATIVE_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
#define CHP_COUNTER_FIELD(field, help) add(d, "copy_" #field, r.core.copy.field);
	CHP_COPY_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
#define CHP_COUNTER_FIELD(field, help) add(d, "zab_" #field, r.core.zab.field);
	CHP_ZAB_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
	for (uint32_t i = 0; i < p->cluster.n_members; i++) {
		if (i != p->node.node)
			show_link(d, &r.core, i);
	}
	return 0;
}

/* The channel, and what its host says to each shard. */
static int
show_host(struct chp_pipeline *p, const char *parameters, struct rte_tel_data *d)
{
	struct chp_shard_report r;
	char *end;
	unsigned long shard = parameters != NULL ? strtoul(parameters, &end, 10) : 0;

	if (p->host == NULL || shard >= p->cluster.shards || (parameters != NULL && *end != '\0'))
		return -EINVAL;
	if (!chp_pipeline_report(p, (uint32_t)shard, &r, NULL))
		return -ETIMEDOUT;
	add(d, "state", (uint64_t)r.host.state);
	add(d, "store_state", r.host.store_state);
	add(d, "store_flags", r.host.store_flags);
	add(d, "away_ns", r.host.away_ns);
	add(d, "backlog", r.host.backlog);
	add(d, "oldest_ns", r.host.oldest_ns);
	add(d, "log_fill_ppm", r.host.log_fill_ppm);
	add(d, "epoch", r.host.epoch);
	add(d, "life", r.host.life);
	add(d, "newest", r.host.newest);
	add(d, "items", r.host.items);
	add(d, "tombstones", r.host.tombstones);
	add(d, "errors", r.host.errors);
	add(d, "evictions", r.core.cache.evictions);
	add(d, "pinned", r.core.cache.pinned);
#define CHP_COUNTER_FIELD(field, help) add(d, #field, r.core.host.field);
	CHP_HOST_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
	for (uint32_t i = 0; i < CHP_CHANNEL_COUNTER_COUNT; i++) {
		char name[48];

		(void)snprintf(name, sizeof(name), "channel_%s", chp_channel_counter_name(i));
		add(d, name, chp_channel_counter(p->host->channel, i));
	}
	return 0;
}

static int
show_impairment(struct chp_pipeline *p, struct rte_tel_data *d)
{
	struct chp_impairment now;

	chp_impair_get(&p->impair, &now);
	add(d, "drop_ppm", now.drop_ppm);
	add(d, "duplicate_ppm", now.duplicate_ppm);
	add(d, "delay_ppm", now.delay_ppm);
	add(d, "delay_us", now.delay_us);
	add(d, "cut", now.cut);
	return 0;
}

static int
impair(struct chp_pipeline *p, const char *parameters, struct rte_tel_data *d)
{
	unsigned int drop, duplicate, delay, delay_us;
	struct chp_impairment to;
	char rest;

	if (parameters == NULL)
		return show_impairment(p, d);
	if (sscanf(parameters, "%u,%u,%u,%u%c", &drop, &duplicate, &delay, &delay_us, &rest) != 4 ||
	    drop > 1000000 || duplicate > 1000000 || delay > 1000000 || delay_us > 10000000)
		return -EINVAL;
	chp_impair_get(&p->impair, &to);
	to.drop_ppm = drop;
	to.duplicate_ppm = duplicate;
	to.delay_ppm = delay;
	to.delay_us = delay_us;
	chp_pipeline_impair(p, &to);
	return show_impairment(p, d);
}

static int
cut(struct chp_pipeline *p, const char *parameters, struct rte_tel_data *d)
{
	struct chp_impairment to;
	unsigned long long mask;
	char *end;

	if (parameters == NULL)
		return show_impairment(p, d);
	errno = 0;
	mask = strtoull(parameters, &end, 0);
	if (errno != 0 || end == parameters || *end != '\0')
		return -EINVAL;
	chp_impair_get(&p->impair, &to);
	to.cut = mask;
	chp_pipeline_impair(p, &to);
	return show_impairment(p, d);
}

static int
with_pipeline(int (*show)(struct chp_pipeline *, const char *, struct rte_tel_data *),
	      const char *parameters, struct rte_tel_data *d)
{
	int rc = -ESHUTDOWN;

	(void)rte_tel_data_start_dict(d);
	(void)pthread_mutex_lock(&of_process.lock);
	if (of_process.p != NULL)
		rc = show(of_process.p, parameters, d);
	(void)pthread_mutex_unlock(&of_process.lock);
	return rc;
}

static int
on_node(const char *command, const char *parameters, struct rte_tel_data *d)
{
	(void)command;
	return with_pipeline(show_node, parameters, d);
}

static int
on_shard(const char *command, const char *parameters, struct rte_tel_data *d)
{
	(void)command;
	return with_pipeline(show_shard, parameters, d);
}

static int
on_host(const char *command, const char *parameters, struct rte_tel_data *d)
{
	(void)command;
	return with_pipeline(show_host, parameters, d);
}

static int
on_impair(const char *command, const char *parameters, struct rte_tel_data *d)
{
	(void)command;
	return with_pipeline(impair, parameters, d);
}

static int
on_cut(const char *command, const char *parameters, struct rte_tel_data *d)
{
	(void)command;
	return with_pipeline(cut, parameters, d);
}

void
chp_telemetry_start(struct chp_pipeline *p)
{
	(void)pthread_mutex_lock(&of_process.lock);
	of_process.p = p;
	(void)pthread_mutex_unlock(&of_process.lock);
	/* Refused where telemetry is off: then nobody can ask either. */
	(void)rte_telemetry_register_cmd("/chaapar/node", on_node, "Counters of this replica.");
	(void)rte_telemetry_register_cmd("/chaapar/shard", on_shard,
					 "Counters of a shard, or of its link to a peer. "
					 "Parameters: int shard[, int peer]");
	(void)rte_telemetry_register_cmd("/chaapar/host", on_host,
					 "What a shard knows of its host, and the channel. Parameters: int shard");
	(void)rte_telemetry_register_cmd(
		"/chaapar/impair", on_impair,
		"Faults on purpose. Parameters: drop_ppm,duplicate_ppm,delay_ppm,delay_us");
	(void)rte_telemetry_register_cmd("/chaapar/cut", on_cut,
					 "Send nothing to these nodes. Parameters: node mask");
}

void
chp_telemetry_stop(void)
{
	(void)pthread_mutex_lock(&of_process.lock);
	of_process.p = NULL;
	(void)pthread_mutex_unlock(&of_process.lock);
}
