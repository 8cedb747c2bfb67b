/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a seed means: sizes, rates, times, which faults and how many of them.
 */
#include "world.h"

#include <string.h>

static uint32_t
one_of(struct chp_random *r, const uint32_t *choices, uint32_t n)
{
	return choices[chp_random_below(r, n)];
}
#define ONE_OF(r, ...) \
	one_of(r, (const uint32_t[]){ __VA_ARGS__ }, (uint32_t)CHP_ARRAY_LEN(((const uint32_t[]){ __VA_ARGS__ })))

static void
draw_network(struct sim_config *c, struct chp_random *r)
{
	c->latency_ns_min = 2000;
	c->latency_ns_max = chp_random_range(r, 3000, 60000);
	c->delay_ns_max = chp_random_range(r, 1, 4) * SIM_MS;
	if (!chp_random_chance(r, 900000))
		return;
	c->drop_ppm = ONE_OF(r, 0, 0, 1000, 20000, 50000, 200000);
	c->duplicate_ppm = ONE_OF(r, 0, 0, 1000, 50000, 200000);
	c->corrupt_ppm = ONE_OF(r, 0, 0, 1000, 20000);
	c->delay_ppm = ONE_OF(r, 0, 1000, 20000, 100000);
}

/* Times are in the order that a node file asks for: lease < suspicion < what is long. */
static void
draw_membership(struct sim_config *c, struct chp_random *r)
{
	c->suspect_ns = chp_random_range(r, 10, 40) * SIM_MS;
	/* Loss that makes members suspect each other all the time would be a fault beyond any budget. */
	if (c->drop_ppm > 50000)
		c->suspect_ns = 40 * SIM_MS;
	c->lease_ns = chp_random_range(r, 2 * SIM_MS, c->suspect_ns * 2 / 3);
	c->clock_drift_ppm = ONE_OF(r, 0, 1000, 20000);
	c->long_ns = c->suspect_ns + chp_random_range(r, 10, 60) * SIM_MS;
	c->lag_ns_max = ONE_OF(r, 1, 100000, 3000000);
}

/* Each fault is in some seeds, in others it is not. */
static void
draw_faults(struct sim_config *c, struct chp_random *r)
{
	c->budget = (enum sim_budget)ONE_OF(r, SIM_REPAIRABLE, SIM_REPAIRABLE, SIM_REPAIRABLE, SIM_ROLLING, SIM_ROLLING,
					    SIM_BEYOND);
	c->pause_ppm = ONE_OF(r, 0, 0, 5000, 30000);
	c->partition_ppm = ONE_OF(r, 0, 0, 5000, 30000);
	c->reset_ppm = ONE_OF(r, 0, 0, 2000, 20000);
	c->crash_ppm = ONE_OF(r, 0, 5000, 20000);
	c->trigger_ppm = ONE_OF(r, 0, 20000, 100000);
	c->client_cut_ppm = ONE_OF(r, 0, 0, 10000);
	c->rate_ppm = ONE_OF(r, 0, 10000);
	c->point_ppm = ONE_OF(r, 0, 0, 100, 1000);
	c->down_ns_max = ONE_OF(r, 5, 40, 150) * SIM_MS;
	c->early_faults = chp_random_chance(r, 100000);
	if (c->budget == SIM_ROLLING)
		c->crash_ppm /= 10;
}

static void
draw_clients(struct sim_config *c, struct chp_random *r)
{
	c->ops = ONE_OF(r, 100, 200, 400);
	c->faults_ns_min = ONE_OF(r, 40, 100, 200, 400) * SIM_MS;
	c->faults_ns_max = 2 * c->faults_ns_min + 100 * SIM_MS;
	c->think_ns = c->faults_ns_min * c->n_clients / c->ops;
	c->think_ns = chp_min_u64(chp_max_u64(c->think_ns, SIM_MS / 4), 10 * SIM_MS);
	c->value_bytes_typical = ONE_OF(r, 12, 12, 32, 40);
	c->delete_ppm = ONE_OF(r, 0, 0, 100000, 300000);
	c->get_ppm = ONE_OF(r, 0, 0, 400000);
	c->roamer_ppm = ONE_OF(r, 0, 200000, 500000);
	c->anywhere_ppm = ONE_OF(r, 0, 300000, 1000000);
}

static void
draw_shard(struct sim_config *c, struct chp_random *r)
{
	struct chp_shard_config *s = &c->shard;

	*s = (struct chp_shard_config){
		.protocol = c->protocol,
		.memory = &chp_memory_libc,
		.cluster_hash = 0xc4aa9a12,
		.shards = 1,
		.n_nodes = c->n_nodes,
		.hash_seed = 7,
		.payload_bytes_max = SIM_PACKET_BYTES,
		.key_bytes_max = CHP_KEY_BYTES_MAX,
		.value_bytes_max = ONE_OF(r, 48, 200, CHP_VALUE_BYTES_MAX),
		.keys_max = ONE_OF(r, 2 * (c->n_keys + c->n_clients), 64, 64, c->n_keys / 2 + c->n_clients),
		.value_blocks_max = ONE_OF(r, 2, 24, 200),
		.sessions_max = ONE_OF(r, c->n_clients, 64, 64),
		.session_window = ONE_OF(r, 1, 2, 8, 8),
		.session_idle_ns = chp_random_chance(r, 200000) ? 30 * SIM_MS : SIM_IDLE_NEVER_NS,
		.copy_bytes = ONE_OF(r, 256, 256, 1024, 65536),
		.credits = ONE_OF(r, 1, 2, 4, 16),
		.link_window = ONE_OF(r, 1, 2, 4, 16, 64),
		.rto_ns_min = ONE_OF(r, 100000, 500000, 2000000),
		.rto_ns_max = 20 * SIM_MS,
		.ack_delay_ns = ONE_OF(r, 0, 20000, 200000),
		.link_down_ns = CHP_NEVER,
	};
	if (chp_random_chance(r, 300000))
		s->link_down_ns = chp_random_range(r, 30, 200) * SIM_MS;
	s->log_entries = chp_pow2_up(4 * c->n_nodes * s->credits * ONE_OF(r, 1, 1, 4));
	s->log_blocks = CHP_RECORD_BLOCKS_MAX * 3 * c->n_nodes * s->credits;
	s->ops = ONE_OF(r, 2, 8, 64);
}

/*
 * A profile for what plain chance finds too seldom: few keys that are deleted, forgotten and added again all
 * the time, over slow and uneven links, so that floors differ for long.
 */
static void
draw_churn(struct sim_config *c, struct chp_random *r)
{
	c->n_keys = ONE_OF(r, 1, 2, 3);
	c->n_clients = SIM_CLIENTS_MAX;
	c->delete_ppm = 700000;
	c->depth = 1;
	c->latency_ns_max = ONE_OF(r, 100000, 1000000, 3000000);
	c->suspect_ns = 40 * SIM_MS; /* a lease needs a round trip */
	c->long_ns = 60 * SIM_MS;
	c->lease_ns = 25 * SIM_MS;
	c->shard.keys_max = ONE_OF(r, 14, 20);
	c->shard.credits = ONE_OF(r, 4, 16);
	c->shard.session_idle_ns = SIM_IDLE_NEVER_NS;
	c->shard.log_entries = chp_pow2_up(4 * c->n_nodes * c->shard.credits);
	c->shard.log_blocks = CHP_RECORD_BLOCKS_MAX * 3 * c->n_nodes * c->shard.credits;
	c->shard.ops = 64;
}

void
sim_config_draw(struct sim_config *c, const struct chp_protocol *protocol, uint64_t seed, uint32_t n_nodes)
{
	struct chp_random r = { seed * UINT64_C(0x2545f4914f6cdd1d) + n_nodes };

	memset(c, 0, sizeof(*c));
	c->protocol = protocol;
	c->seed = seed;
	c->n_nodes = n_nodes;
	c->n_clients = (uint32_t)chp_random_range(&r, 2, SIM_CLIENTS_MAX);
	c->n_keys = ONE_OF(&r, 1, 1, 2, 4, SIM_KEYS_MAX);
	draw_network(c, &r);
	draw_membership(c, &r);
	draw_clients(c, &r);
	draw_shard(c, &r);
	c->depth = (uint32_t)chp_random_range(&r, 1, chp_min_u32(SIM_DEPTH_MAX, c->shard.session_window));
	draw_faults(c, &r);
	if (seed % 4 == 3)
		draw_churn(c, &r);
}
