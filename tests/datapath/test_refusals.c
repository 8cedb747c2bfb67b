/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What cannot work is refused before anything runs, in one line that says what to change.
 */
#include "caller.h"

#include "pipeline/neighbour.h"
#include "pipeline/port.h"

#include <criterion/criterion.h>
#include <rte_ethdev.h>

#include <stdio.h>
#include <string.h>

#define CLUSTER                                                                                    \
	"\"keys_max\": 4096, \"value_blocks_max\": 4096, \"sessions_max\": 64, "                    \
	"\"session_window\": 16, \"credits\": 64,"
#define NODE "\"rx_ring\": 256, \"tx_ring\": 256, \"stage_ring\": 256,"

static struct local l;
static struct chp_error error;

/* A cluster that must not start, with this exit code and these words in its line. */
static void
refused(const char *cluster, const char *node, int exit_code, const char *words)
{
	struct local_options o = { .replicas = 3, .shards = 1, .cluster = cluster, .node = node };

	cr_assert(caller_start_eal("0"));
	cr_assert_eq(local_create(&l, &o, &error), -1);
	cr_assert_eq(error.exit_code, exit_code, "%s", error.text);
	cr_assert(strstr(error.text, words) != NULL, "%s", error.text);
	cr_assert(strchr(error.text, '\n') == NULL);
	local_destroy(&l);
}

Test(refusals, too_little_memory_for_the_shard)
{
	refused("\"keys_max\": 50000000,", NODE, CHP_EXIT_RESOURCE, "MiB in one EAL heap");
}

Test(refusals, too_little_memory_for_the_pools)
{
	refused(CLUSTER, NODE "\"pools\": { \"rx\": 10000000 },", CHP_EXIT_RESOURCE,
		"no memory for the pool \"rx\"");
}

Test(refusals, a_port_that_computes_no_checksums)
{
	refused(CLUSTER, NODE "\"rx_checksum\": \"offload\",", CHP_EXIT_RESOURCE,
		"set rx_checksum to \"verify\"");
}

Test(refusals, a_port_that_cannot_steer)
{
	refused(CLUSTER, NODE "\"steer\": true,", CHP_EXIT_RESOURCE, "set steer to false");
}

/* The configuration refuses such pools; a caller that made its own is refused here. */
Test(refusals, pools_below_what_rings_and_bursts_can_hold)
{
	struct local_options o = { .replicas = 1, .shards = 1, .cluster = CLUSTER, .node = NODE };
	struct chp_pipeline_config config = { .cluster = &l.cluster, .node = &l.node[0], .name = "again",
					      .incarnation = 1, .version = "test",
					      .keep_port = true };
	char need[16];

	cr_assert(caller_start_eal("0"));
	cr_assert_eq(local_create(&l, &o, &error), 0, "%s", error.text);
	(void)snprintf(need, sizeof(need), "%u", chp_node_pool_min(&l.cluster, &l.node[0], CHP_POOL_RX));
	l.node[0].rx_pool = 100;
	cr_assert(chp_pipeline_create(&config, &error) == NULL);
	cr_assert_eq(error.exit_code, CHP_EXIT_RESOURCE);
	cr_assert(strstr(error.text, need) != NULL, "%s", error.text);
	cr_assert(strstr(error.text, "pools.rx") != NULL, "%s", error.text);
	local_destroy(&l);
}

Test(refusals, more_queues_than_the_port_has)
{
	struct local_options o = { .replicas = 1, .shards = 1, .cluster = CLUSTER, .node = NODE,
				   .lcores = "[{ \"lcore\": 0, \"stages\": [\"rx0\", \"rx1\", \"shard0\", "
					     "\"tx0\", \"control\"] }]" };

	cr_assert(caller_start_eal("0"));
	cr_assert_eq(local_create(&l, &o, &error), -1);
	cr_assert_eq(error.exit_code, CHP_EXIT_RESOURCE);
	cr_assert(strstr(error.text, "at most 1 receive queues, the node file has 2") != NULL, "%s",
		  error.text);
	local_destroy(&l);
}

Test(refusals, a_port_that_does_not_exist)
{
	struct local_options o = { .replicas = 1, .shards = 1, .cluster = CLUSTER, .node = NODE };
	uint16_t id = 0;

	cr_assert(caller_start_eal("0"));
	cr_assert_eq(chp_port_find("net_af_xdp0", &id, &error), -1);
	cr_assert(strstr(error.text, "--vdev=net_af_xdp0") != NULL, "%s", error.text);
	cr_assert_eq(local_create(&l, &o, &error), 0, "%s", error.text);
	cr_assert_eq(chp_port_find("net_af_xdp0", &id, &error), -1);
	cr_assert(strstr(error.text, "the ports that do: net_ring_replica0") != NULL, "%s", error.text);
	cr_assert_eq(chp_port_find("net_ring_replica0", &id, &error), 0);
	cr_assert_eq(id, l.net.port_id[0]);
	local_destroy(&l);
}

/* ------------------------------------------------------------------ neighbours, without a network */

#define S UINT64_C(1000000000)

Test(neighbours, are_asked_again_more_and_more_slowly)
{
	static struct chp_neighbours t;
	uint64_t now = S, before = 0, gap = 0;
	uint8_t mac[6];

	chp_neighbours_init(&t);
	cr_assert_eq(chp_neighbours_wake_ns(&t), CHP_NEVER);
	chp_neighbours_add(&t, 1, 0x0a000001, now);
	for (uint32_t i = 0; i < 20; i++) {
		cr_assert(chp_neighbours_ask(&t, now - 1) == NULL);
		cr_assert(chp_neighbours_ask(&t, now) != NULL);
		cr_assert(chp_neighbours_ask(&t, now) == NULL);
		before = now;
		now = chp_neighbours_wake_ns(&t);
		cr_assert_geq(now - before, gap);
		gap = now - before;
	}
	cr_assert_eq(gap, CHP_ARP_NS_MAX);
	cr_assert(!chp_neighbours_mac(&t, 1, mac));
}

Test(neighbours, behind_a_gateway_share_its_address)
{
	static const uint8_t gateway[6] = { 2, 1, 2, 3, 4, 5 };
	static const uint8_t broadcast[6] = { 255, 255, 255, 255, 255, 255 };
	static struct chp_neighbours t;
	uint8_t mac[6];

	chp_neighbours_init(&t);
	chp_neighbours_add(&t, 1, 0x0a0000fe, 0);
	chp_neighbours_add(&t, 2, 0x0a0000fe, 0);
	chp_neighbours_add(&t, 3, 0x0a000003, 0);
	cr_assert(chp_neighbours_learn(&t, 0x0a0000fe, gateway, S));
	cr_assert(!chp_neighbours_learn(&t, 0x0a0000fe, gateway, S));
	cr_assert(!chp_neighbours_learn(&t, 0x0a000042, gateway, S));
	cr_assert(!chp_neighbours_learn(&t, 0x0a000003, broadcast, S));
	for (uint32_t node = 1; node <= 2; node++) {
		cr_assert(chp_neighbours_mac(&t, node, mac));
		cr_assert_arr_eq(mac, gateway, 6);
	}
	cr_assert(!chp_neighbours_mac(&t, 3, mac));
	/* Known: asked again after the refresh, and still in use while nobody answers. */
	cr_assert(chp_neighbours_ask(&t, 3 * S) != NULL); /* node 3's */
	cr_assert(chp_neighbours_ask(&t, 3 * S) == NULL);
	cr_assert(chp_neighbours_ask(&t, S + CHP_ARP_REFRESH_NS) != NULL);
	cr_assert(chp_neighbours_mac(&t, 2, mac));
	cr_assert_arr_eq(mac, gateway, 6);
}

Test(neighbours, keep_who_answers)
{
	static const uint8_t mine[6] = { 2, 1, 2, 3, 4, 5 }, other[6] = { 2, 9, 9, 9, 9, 9 };
	static struct chp_neighbours t;
	const struct chp_neighbour *e;
	uint64_t now = S;
	uint8_t mac[6];

	chp_neighbours_init(&t);
	chp_neighbours_add(&t, 1, 0x0a000001, now);
	cr_assert(chp_neighbours_learn(&t, 0x0a000001, mine, now));
	/* Another one: the known one is asked at once, and stays if it answers. */
	cr_assert(!chp_neighbours_learn(&t, 0x0a000001, other, now));
	e = chp_neighbours_ask(&t, now);
	cr_assert(e != NULL && e->known && e->unanswered <= CHP_ARP_TRIES);
	cr_assert(!chp_neighbours_learn(&t, 0x0a000001, other, now));
	cr_assert(chp_neighbours_ask(&t, now) == NULL);
	cr_assert(!chp_neighbours_learn(&t, 0x0a000001, mine, now));
	cr_assert(chp_neighbours_ask(&t, now + S) == NULL);
	cr_assert(chp_neighbours_mac(&t, 1, mac));
	cr_assert_arr_eq(mac, mine, 6);
	/* It does not answer: everybody is asked soon, and the other one believed. */
	now += S;
	cr_assert(!chp_neighbours_learn(&t, 0x0a000001, other, now));
	for (uint32_t i = 0; i <= CHP_ARP_TRIES; i++) {
		now = chp_max_u64(now, chp_neighbours_wake_ns(&t));
		e = chp_neighbours_ask(&t, now);
		cr_assert(e != NULL);
	}
	cr_assert_leq(now, 2 * S + 4 * CHP_ARP_NS_MIN);
	cr_assert_gt(e->unanswered, CHP_ARP_TRIES);
	cr_assert(chp_neighbours_learn(&t, 0x0a000001, other, now));
	cr_assert(chp_neighbours_mac(&t, 1, mac));
	cr_assert_arr_eq(mac, other, 6);
}
