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
	c->uneven_ns_max = ONE_OF(r, 0, 0, 100000);
	c->late_ppm = ONE_OF(r, 0, 0, 0, 1000);
}

/* Times are in the order that a node file asks for: lease < suspicion < what is long. */
static void
draw_times(struct sim_config *c, struct chp_random *r, uint64_t suspect_ns)
{
	c->suspect_ns = suspect_ns;
	c->lease_ns = chp_random_range(r, 2 * SIM_MS, c->suspect_ns * 2 / 3);
	c->long_ns = c->suspect_ns + chp_random_range(r, 10, 60) * SIM_MS;
	c->late_ns_max = c->suspect_ns + chp_random_range(r, 20, 200) * SIM_MS;
}

static void
draw_membership(struct sim_config *c, struct chp_random *r)
{
	const uint64_t suspect_ns = chp_random_range(r, 10, 40) * SIM_MS;

	/* Loss that makes members suspect each other all the time would be a fault beyond any budget. */
	draw_times(c, r, c->drop_ppm > 50000 ? 40 * SIM_MS : suspect_ns);
	c->clock_drift_ppm = ONE_OF(r, 0, 1000, 20000);
	c->lag_ns_max = ONE_OF(r, 1, 100000, 3000000);
	c->every_view = chp_random_chance(r, 500000);
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
	c->view_ppm = ONE_OF(r, 0, 0, 2000, 20000);
	c->ambush_ppm = ONE_OF(r, 0, 0, 5000);
	c->ambush_ns_max = 2 * SIM_MS;
	c->point_ppm = ONE_OF(r, 0, 0, 100, 1000);
	c->down_ns_max = ONE_OF(r, 5, 40, 150) * SIM_MS;
	c->early_faults = chp_random_chance(r, 100000);
	c->stays_dead = chp_random_chance(r, 250000);
	if (c->budget == SIM_ROLLING)
		c->crash_ppm /= 10;
}

/* So many operations, while faults go on for so long. */
static void
set_load(struct sim_config *c, uint32_t ops, uint64_t faults_ns)
{
	c->ops = ops;
	c->faults_ns_min = faults_ns;
	c->faults_ns_max = 2 * faults_ns + 100 * SIM_MS;
	c->think_ns = faults_ns * c->n_clients / ops;
	c->think_ns = chp_min_u64(chp_max_u64(c->think_ns, SIM_MS / 4), 10 * SIM_MS);
}

static void
draw_clients(struct sim_config *c, struct chp_random *r)
{
	const uint32_t ops = ONE_OF(r, 100, 200, 400);

	set_load(c, ops, ONE_OF(r, 40, 100, 200, 400) * SIM_MS);
	c->value_bytes_typical = ONE_OF(r, 12, 12, 32, 40);
	c->delete_ppm = ONE_OF(r, 0, 0, 100000, 300000);
	c->get_ppm = ONE_OF(r, 0, 0, 400000);
	c->rmw_ppm = ONE_OF(r, 0, 0, 300000);
	c->roamer_ppm = ONE_OF(r, 0, 200000, 500000);
	c->anywhere_ppm = ONE_OF(r, 0, 300000, 1000000);
	c->close_ppm = ONE_OF(r, 0, 0, 50000);
	c->retry_ns_min = SIM_MS;
	c->retry_ns_max = 4 * SIM_MS;
	c->retry_ns_cap = 20 * SIM_MS;
	c->patience_ns_min = 5 * SIM_MS;
}

/* The log that so many operations need at least, and as much more. */
static void
set_credits(struct sim_config *c, uint32_t credits, uint32_t times)
{
	struct chp_shard_config *s = &c->shard;

	s->credits = credits;
	s->log_entries = chp_pow2_up(4 * c->n_nodes * credits * times);
	s->log_blocks = CHP_RECORD_BLOCKS_MAX * 3 * c->n_nodes * credits;
}

static void
draw_shard(struct sim_config *c, struct chp_random *r)
{
	struct chp_shard_config *s = &c->shard;
	const uint32_t roomy = 4 * (c->n_keys + c->n_clients);

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
		.keys_max = ONE_OF(r, roomy, roomy, 64, 64, c->n_keys / 2 + c->n_clients),
		.value_blocks_max = ONE_OF(r, 2, 24, 100, 200, 200),
		.sessions_max = ONE_OF(r, c->n_clients, 64, 64),
		.session_window = ONE_OF(r, 1, 2, 8, 8),
		.session_idle_ns = chp_random_chance(r, 200000) ? 30 * SIM_MS : SIM_IDLE_NEVER_NS,
		.copy_bytes = ONE_OF(r, 256, 256, 1024, 65536),
		.link_window = ONE_OF(r, 1, 2, 4, 16, 64),
		.rto_ns_min = ONE_OF(r, 100000, 500000, 2000000),
		.rto_ns_max = 20 * SIM_MS,
		.ack_delay_ns = ONE_OF(r, 0, 20000, 200000),
		.link_down_ns = CHP_NEVER,
	};
	if (chp_random_chance(r, 300000))
		s->link_down_ns = chp_random_range(r, 30, 200) * SIM_MS;
	set_credits(c, ONE_OF(r, 1, 2, 4, 16, 16), ONE_OF(r, 1, 1, 4));
	s->ops = ONE_OF(r, 2, 16, 64, 64);
}

/* ------------------------------------------------------------------ profiles: what plain chance finds too seldom */

/* Nothing is refused for want of room, nobody is away. */
static void
make_room(struct sim_config *c)
{
	c->shard.keys_max = 64;
	c->shard.value_blocks_max = 200;
	c->shard.ops = 64;
	c->shard.session_idle_ns = SIM_IDLE_NEVER_NS;
	c->drop_ppm = chp_min_u32(c->drop_ppm, 20000);
}

/* Sessions, too, which are keys of which none comes again, while two nodes lose each other for a moment. */
static void
draw_session_churn(struct sim_config *c, struct chp_random *r)
{
	c->latency_ns_max = 60000;
	c->uneven_ns_max = 0;
	c->n_clients = 6;
	c->shard.keys_max = ONE_OF(r, 24, 40);
	c->close_ppm = 700000;
	c->partition_ppm = 60000;
	c->view_ppm = ONE_OF(r, 0, 2000);
	c->retry_ns_max = SIM_MS;
	set_credits(c, ONE_OF(r, 1, 2, 4), 1);
	set_load(c, 600, 100 * SIM_MS);
}

/*
 * Few keys that are deleted, forgotten and added again all the time, over slow or uneven links, so that floors differ
 * for long, and what one node says is old when it arrives.
 */
static void
draw_churn(struct sim_config *c, struct chp_random *r)
{
	make_room(c);
	c->n_keys = ONE_OF(r, 4, 8, SIM_KEYS_MAX);
	c->n_clients = SIM_CLIENTS_MAX;
	c->roamer_ppm = 0;
	c->get_ppm = c->rmw_ppm = 0;
	c->delete_ppm = 800000;
	c->depth = 1;
	c->latency_ns_max = ONE_OF(r, 60000, 60000, 60000, 1000000);
	c->uneven_ns_max = ONE_OF(r, 1, 2, 5) * SIM_MS;
	c->lag_ns_max = ONE_OF(r, 1, 100000);
	draw_times(c, r, 40 * SIM_MS);
	c->lease_ns = 25 * SIM_MS; /* a lease needs a round trip */
	c->drop_ppm = ONE_OF(r, 0, 0, 1000);
	c->view_ppm = ONE_OF(r, 100000, 200000, 400000);
	c->crash_ppm = ONE_OF(r, 0, 2000);
	c->ambush_ppm = c->trigger_ppm = 0;
	c->pause_ppm = c->partition_ppm = ONE_OF(r, 0, 5000);
	c->shard.keys_max = SIM_CLIENTS_MAX + c->n_keys + ONE_OF(r, 2, 6);
	set_credits(c, ONE_OF(r, 4, 16), 1);
	set_load(c, 800, 120 * SIM_MS);
	if (chp_random_chance(r, 300000))
		draw_session_churn(c, r);
}

/* Everything in flight is lost again and again, at one node sooner than at the other. */
static void
draw_views(struct sim_config *c, struct chp_random *r)
{
	make_room(c);
	c->n_keys = ONE_OF(r, 1, 1, 2);
	c->n_clients = SIM_CLIENTS_MAX;
	c->view_ppm = ONE_OF(r, 50000, 200000);
	c->lag_ns_max = ONE_OF(r, 100000, 1000000, 3000000);
	c->latency_ns_max = ONE_OF(r, 60000, 500000, 2000000);
	c->rmw_ppm = ONE_OF(r, 300000, 700000);
	c->crash_ppm = ONE_OF(r, 0, 2000);
	c->partition_ppm = 0;
	draw_times(c, r, 40 * SIM_MS);
	c->lease_ns = 25 * SIM_MS;
	set_load(c, ONE_OF(r, 400, 800), 150 * SIM_MS);
}

/* Concurrent read-modify-writes of one key, and writers that die while they send. */
static void
draw_contend(struct sim_config *c, struct chp_random *r)
{
	make_room(c);
	c->n_keys = 1;
	c->n_clients = SIM_CLIENTS_MAX;
	c->roamer_ppm = 0;
	c->rmw_ppm = 800000;
	c->delete_ppm = 0;
	c->latency_ns_max = ONE_OF(r, 60000, 300000, 1000000);
	c->uneven_ns_max = c->latency_ns_max;
	draw_times(c, r, 20 * SIM_MS);
	c->lease_ns = 12 * SIM_MS;
	c->budget = SIM_REPAIRABLE;
	c->pause_ppm = c->partition_ppm = c->crash_ppm = c->trigger_ppm = 0;
	c->ambush_ppm = 30000;
	c->ambush_ns_max = 4 * c->latency_ns_max;
	c->down_ns_max = 5 * SIM_MS;
	c->retry_ns_min = 2 * c->latency_ns_max;
	set_load(c, 600, 300 * SIM_MS);
}

/* Homes of sessions that die with requests in flight, clients that are quick, nodes that enter views at other times. */
static void
draw_retry(struct sim_config *c, struct chp_random *r)
{
	make_room(c);
	c->n_keys = ONE_OF(r, 1, 2, 3);
	c->n_clients = (uint32_t)chp_random_range(r, 6, SIM_CLIENTS_MAX);
	c->roamer_ppm = 0;
	c->anywhere_ppm = 0;
	c->put_ppm = ONE_OF(r, 300000, 700000);
	c->rmw_ppm = 500000;
	c->delete_ppm = 0;
	c->latency_ns_max = ONE_OF(r, 30000, 100000, 300000);
	c->uneven_ns_max = c->latency_ns_max;
	draw_times(c, r, 12 * SIM_MS);
	c->lease_ns = 6 * SIM_MS;
	c->lag_ns_max = ONE_OF(r, 1, 2, 8) * SIM_MS;
	c->budget = SIM_REPAIRABLE;
	c->pause_ppm = c->partition_ppm = c->crash_ppm = c->trigger_ppm = 0;
	c->ambush_ppm = 30000;
	c->ambush_ns_max = 6 * c->latency_ns_max;
	c->down_ns_max = 5 * SIM_MS;
	c->retry_ns_min = c->latency_ns_max;
	c->retry_ns_max = 3 * c->latency_ns_max;
	c->retry_ns_cap = 2 * SIM_MS;
	c->patience_ns_min = 200 * SIM_MS;
	c->shard.session_window = 8;
	c->depth = (uint32_t)chp_random_range(r, 1, 4);
	set_credits(c, 16, 1);
	set_load(c, 500, 250 * SIM_MS);
}

/* Reads asked of who is cut off or stood still, while the others go on. */
static void
draw_stale(struct sim_config *c, struct chp_random *r)
{
	make_room(c);
	c->n_keys = ONE_OF(r, 1, 2);
	c->n_clients = SIM_CLIENTS_MAX;
	c->roamer_ppm = 400000;
	c->anywhere_ppm = 1000000;
	c->get_ppm = 500000;
	c->put_ppm = 700000;
	c->delete_ppm = 0;
	c->duplicate_ppm = 0;
	draw_times(c, r, chp_random_range(r, 10, 20) * SIM_MS);
	c->long_ns = 3 * c->suspect_ns;
	c->whole_pauses = true;
	c->pause_ppm = ONE_OF(r, 10000, 40000);
	c->partition_ppm = ONE_OF(r, 0, 20000);
	c->point_ppm = ONE_OF(r, 0, 1000);
	c->client_cut_ppm = ONE_OF(r, 0, 10000);
	c->crash_ppm = 0;
	c->patience_ns_min = 100 * SIM_MS;
	set_load(c, 600, 200 * SIM_MS);
}

/* Short lives, in which packets of earlier ones arrive. */
static void
draw_rebirth(struct sim_config *c, struct chp_random *r)
{
	make_room(c);
	draw_times(c, r, 10 * SIM_MS);
	c->late_ppm = ONE_OF(r, 20000, 100000, 300000);
	c->drop_ppm = ONE_OF(r, 0, 1000);
	c->budget = ONE_OF(r, SIM_REPAIRABLE, SIM_ROLLING);
	c->crash_ppm = 20000;
	c->down_ns_max = ONE_OF(r, 2, 10) * SIM_MS;
	c->pause_ppm = c->partition_ppm = 0;
	c->shard.link_window = ONE_OF(r, 16, 64);
	c->shard.copy_bytes = ONE_OF(r, 256, 1024);
	set_load(c, 200, 400 * SIM_MS);
}

/* Proposers that are lost in the middle of agreeing, to the others or for good. */
static void
draw_split(struct sim_config *c, struct chp_random *r)
{
	make_room(c);
	draw_times(c, r, chp_random_range(r, 10, 20) * SIM_MS);
	c->long_ns = 5 * c->suspect_ns;
	c->trigger_ppm = 300000;
	c->partition_ppm = ONE_OF(r, 0, 10000);
	c->pause_ppm = ONE_OF(r, 0, 10000);
	c->crash_ppm = 10000;
	c->down_ns_max = ONE_OF(r, 5, 40) * SIM_MS;
	set_load(c, 100, 400 * SIM_MS);
}

void
sim_config_draw(struct sim_config *c, const struct chp_protocol *protocol, uint64_t seed, uint32_t n_nodes)
{
	static void (*const draw_profile[SIM_PROFILES])(struct sim_config *c, struct chp_random *r) = {
		[SIM_CHURN] = draw_churn,     [SIM_VIEWS] = draw_views, [SIM_CONTEND] = draw_contend,
		[SIM_RETRY] = draw_retry,     [SIM_STALE] = draw_stale, [SIM_REBIRTH] = draw_rebirth,
		[SIM_SPLIT] = draw_split,
	};
	struct chp_random r = { seed * UINT64_C(0x2545f4914f6cdd1d) + n_nodes };

	memset(c, 0, sizeof(*c));
	c->protocol = protocol;
	c->seed = seed;
	c->profile = (enum sim_profile)(seed % SIM_PROFILES);
	c->n_nodes = n_nodes;
	c->n_clients = (uint32_t)chp_random_range(&r, 2, SIM_CLIENTS_MAX);
	c->n_keys = ONE_OF(&r, 1, 1, 2, 4, SIM_KEYS_MAX);
	draw_network(c, &r);
	draw_membership(c, &r);
	draw_clients(c, &r);
	draw_shard(c, &r);
	c->depth = (uint32_t)chp_random_range(&r, 1, chp_min_u32(SIM_DEPTH_MAX, c->shard.session_window));
	draw_faults(c, &r);
	if (draw_profile[c->profile] != NULL)
		draw_profile[c->profile](c, &r);
}
