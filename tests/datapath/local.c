/* SPDX-License-Identifier: BSD-3-Clause */
#include "local.h"

#include "base/assert.h"
#include "channel/memory.h"
#include "protocols/protocol.h"

#include <rte_cycles.h>
#include <rte_ethdev.h>

#include <stdio.h>
#include <string.h>

static void
on_report(void *context, const char *line)
{
	struct local *l = context;

	l->reports++;
	(void)snprintf(l->last_report, sizeof(l->last_report), "%s", line);
}

static int
refuse(const struct chp_config_errors *errors, struct chp_error *error)
{
	return chp_error_set(error, CHP_EXIT_USAGE, "%s", errors->text[0]);
}

static int
make_cluster(struct local *l, struct chp_error *error)
{
	static struct chp_config_errors errors;
	char text[4096];
	int n = snprintf(text, sizeof(text),
			 "{ \"name\": \"local\", \"protocol\": \"%s\", \"shards\": %u, %s \"hosts\": %s, "
			 "\"port_base\": 7168, \"mtu\": 1500, \"members\": [",
			 l->options.protocol != NULL ? l->options.protocol : "hermes", l->options.shards,
			 l->options.cluster != NULL ? l->options.cluster : "", l->options.hosts ? "true" : "false");

	for (uint32_t i = 0; i < l->options.replicas; i++)
		n += snprintf(text + n, sizeof(text) - (size_t)n,
			      "%s{ \"name\": \"n%u\", \"address\": \"10.0.0.%u\" }", i > 0 ? "," : "", i,
			      i + 1);
	n += snprintf(text + n, sizeof(text) - (size_t)n, "] }");
	errors.n = 0;
	return chp_cluster_config_parse(text, (size_t)n, "cluster", chp_protocol_names(), chp_application_names(),
					&l->cluster, &errors)
		       ? 0
		       : refuse(&errors, error);
}

/* "rx0", ..., "shard0", ..., "tx0", ..., "host", "control": everything on one lcore. */
static void
one_lcore(const struct local *l, char *text, size_t size)
{
	size_t n = (size_t)snprintf(text, size, "[{ \"lcore\": 0, \"stages\": [");

	for (uint32_t i = 0; i < l->options.queues; i++)
		n += (size_t)snprintf(text + n, size - n, "\"rx%u\", ", i);
	for (uint32_t i = 0; i < l->options.shards; i++)
		n += (size_t)snprintf(text + n, size - n, "\"shard%u\", ", i);
	for (uint32_t i = 0; i < l->options.queues; i++)
		n += (size_t)snprintf(text + n, size - n, "\"tx%u\", ", i);
	(void)snprintf(text + n, size - n, "%s\"control\"] }]", l->options.hosts ? "\"host\", " : "");
}

static int
make_node(struct local *l, uint32_t i, struct chp_error *error)
{
	static struct chp_config_errors errors;
	const char *more = l->options.node_of[i] != NULL ? l->options.node_of[i] : l->options.node;
	char text[4096], lcores[2048], host[64] = "\"none\"";
	int n;

	one_lcore(l, lcores, sizeof(lcores));
	if (l->options.hosts && l->options.host_ports != NULL)
		(void)snprintf(host, sizeof(host), "{ \"port\": \"%s%u\" }", l->options.host_ports, i);
	else if (l->options.hosts)
		(void)snprintf(host, sizeof(host), "{ \"port\": \"memory\" }");
	n = snprintf(text, sizeof(text),
		     "{ \"node\": %u, \"port\": \"replica%u\", %s \"idle\": \"yield\", \"lcores\": %s, "
		     "\"host\": %s }",
		     i, i, more != NULL ? more : LOCAL_PATIENT, l->options.lcores != NULL ? l->options.lcores : lcores,
		     host);
	errors.n = 0;
	return chp_node_config_parse(text, (size_t)n, "node", &l->cluster, &l->node[i], &errors)
		       ? 0
		       : refuse(&errors, error);
}

/* The host of a replica in this process, or none. */
static int
make_host(struct local *l, uint32_t i, struct chp_error *error)
{
	if (!l->options.hosts || l->options.host_ports != NULL)
		return 0;
	if (l->host[i] == NULL)
		l->host[i] = local_host_create(&l->cluster, i, l->options.keep);
	else
		chp_channel_memory_revive(local_host_channel(l->host[i]));
	return l->host[i] != NULL ? 0 : chp_error_set(error, CHP_EXIT_RESOURCE, "no memory for a host");
}

static int
make_replica(struct local *l, uint32_t i, struct chp_error *error)
{
	struct chp_pipeline_config config = {
		.cluster = &l->cluster,
		.node = &l->node[i],
		.port_id = l->net.port_id[i],
		.keep_port = true,
		.incarnation = 0x1000 + i + 0x100 * l->born[i],
		.bootstrap = i == 0 && (l->born[i] == 0 || l->options.hosts), /* hosts know what they hold */
		.version = "test",
		.report = on_report,
		.report_context = l,
	};
	char name[16];

	if (make_node(l, i, error) != 0 || make_host(l, i, error) != 0)
		return -1;
	/* Pools of the dead keep their names. */
	(void)snprintf(name, sizeof(name), l->born[i] > 0 ? "n%u-%u" : "n%u", i, l->born[i]);
	config.name = name;
	l->born[i]++;
	config.channel = l->host[i] != NULL ? local_host_channel(l->host[i]) : NULL;
	l->replica[i] = chp_pipeline_create(&config, error);
	return l->replica[i] != NULL ? 0 : -1;
}

int
local_configure(struct local *l, const struct local_options *options, struct chp_error *error)
{
	memset(l, 0, sizeof(*l));
	l->options = *options;
	if (l->options.queues == 0)
		l->options.queues = 1;
	if (make_cluster(l, error) != 0)
		return -1;
	for (uint32_t i = 0; i < options->replicas; i++) {
		if (make_node(l, i, error) != 0)
			return -1;
	}
	return 0;
}

int
local_create(struct local *l, const struct local_options *options, struct chp_error *error)
{
	if (local_configure(l, options, error) != 0)
		return -1;
	if (ring_net_init(&l->net, options->replicas, l->options.queues,
			  options->ring_entries != 0 ? options->ring_entries : 4096) != 0)
		return chp_error_set(error, CHP_EXIT_RESOURCE, "no memory for the network");
	l->net.tap = options->tap;
	l->net.tap_context = options->tap_context;
	for (uint32_t i = 0; i < options->replicas; i++) {
		if (make_replica(l, i, error) != 0)
			return -1;
	}
	return 0;
}

/* What the port of a replica that is dead gets, or what it sent. */
static void
lose(struct rte_ring *ring)
{
	struct rte_mbuf *m;

	while (rte_ring_sc_dequeue(ring, (void **)&m) == 0)
		rte_pktmbuf_free(m);
}

static void
lose_all(struct local *l, uint32_t i)
{
	for (uint32_t q = 0; q < l->net.n_queues; q++) {
		lose(l->net.to[i][q]);
		lose(l->net.from[i][q]);
	}
}

/* Iterations in which a replica that was killed gives back mbufs of the others. Nobody hears of them. */
#define LAST_POLLS 64u

void
local_kill(struct local *l, uint32_t replica)
{
	struct chp_pipeline *p = l->replica[replica];

	CHP_ASSERT(p != NULL);
	CHP_ASSERT_OP(l->n_dead, <, LOCAL_DEAD_MAX);
	if (l->host[replica] != NULL)
		chp_channel_memory_kill(local_host_channel(l->host[replica]));
	for (uint32_t i = 0; i < LAST_POLLS; i++) {
		lose_all(l, replica);
		for (uint32_t k = 0; k < l->node[replica].n_lcores; k++)
			(void)chp_pipeline_poll(p, k);
	}
	lose_all(l, replica);
	(void)rte_eth_dev_stop(l->net.port_id[replica]);
	l->replica[replica] = NULL;
	l->dead[l->n_dead++] = p; /* others may hold mbufs of its pools */
}

int
local_start(struct local *l, uint32_t replica, struct chp_error *error)
{
	CHP_ASSERT(l->replica[replica] == NULL);
	lose_all(l, replica);
	return make_replica(l, replica, error);
}

void
local_destroy(struct local *l)
{
	for (uint32_t i = 0; i < l->options.replicas; i++)
		chp_pipeline_destroy(l->replica[i]);
	for (uint32_t i = 0; i < l->n_dead; i++)
		chp_pipeline_destroy(l->dead[i]);
	for (uint32_t i = 0; i < l->options.replicas; i++)
		local_host_destroy(l->host[i]);
}

bool
local_poll(struct local *l)
{
	bool work = false;

	for (uint32_t i = 0; i < l->options.replicas; i++) {
		if (l->replica[i] == NULL)
			lose_all(l, i);
		for (uint32_t k = 0; l->replica[i] != NULL && k < l->node[i].n_lcores; k++)
			work |= chp_pipeline_poll(l->replica[i], k);
		if (l->host[i] != NULL && !l->options.hosts_apart)
			work |= local_host_poll(l->host[i]);
	}
	return (ring_net_poll(&l->net) > 0) | work;
}

bool
local_wait_serving(struct local *l)
{
	uint64_t end = rte_rdtsc() + 10 * rte_get_tsc_hz();

	while (rte_rdtsc() < end) {
		uint32_t serving = 0;

		(void)local_poll(l);
		for (uint32_t i = 0; i < l->options.replicas; i++)
			serving += l->replica[i] == NULL || chp_pipeline_is_serving(l->replica[i]);
		if (serving == l->options.replicas)
			return true;
	}
	return false;
}
