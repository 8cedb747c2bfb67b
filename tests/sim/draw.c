/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a seed means: sizes, rates, times, which faults and how many of them.
 */
#include "kind.h"

#include <string.h>

uint32_t
sim_one_of(struct chp_random *r, const uint32_t *choices, uint32_t n)
{
	return choices[chp_random_below(r, n)];
}

static void
draw_network(struct sim_config *c, struct chp_random *r)
{
	c->latency_ns_min = 2000;
	c->latency_ns_max = chp_random_range(r, 3000, 60000);
	c->delay_ns_max = chp_random_range(r, 1, 4) * SIM_MS;
	if (!chp_random_chance(r, 900000))
		return;
	c->drop_ppm = SIM_ONE_OF(r, 0, 0, 1000, 20000, 50000, 200000);
	c->duplicate_ppm = SIM_ONE_OF(r, 0, 0, 1000, 50000, 200000);
	c->corrupt_ppm = SIM_ONE_OF(r, 0, 0, 1000, 20000);
	c->delay_ppm = SIM_ONE_OF(r, 0, 1000, 20000, 100000);
	c->uneven_ns_max = SIM_ONE_OF(r, 0, 0, 100000);
	c->late_ppm = SIM_ONE_OF(r, 0, 0, 0, 1000);
}

void
sim_draw_times(struct sim_config *c, struct chp_random *r, uint64_t suspect_ns)
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
	sim_draw_times(c, r, c->drop_ppm > 50000 ? 40 * SIM_MS : suspect_ns);
	c->clock_drift_ppm = SIM_ONE_OF(r, 0, 1000, 20000);
	c->lag_ns_max = SIM_ONE_OF(r, 1, 100000, 3000000);
	c->every_view = chp_random_chance(r, 500000);
}

/* Each fault is in some seeds, in others it is not. */
static void
draw_faults(struct sim_config *c, struct chp_random *r)
{
	c->budget = (enum sim_budget)SIM_ONE_OF(r, SIM_REPAIRABLE, SIM_REPAIRABLE, SIM_REPAIRABLE, SIM_ROLLING,
						SIM_ROLLING, SIM_BEYOND);
	c->pause_ppm = SIM_ONE_OF(r, 0, 0, 5000, 30000);
	c->partition_ppm = SIM_ONE_OF(r, 0, 0, 5000, 30000);
	c->reset_ppm = SIM_ONE_OF(r, 0, 0, 2000, 20000);
	c->crash_ppm = SIM_ONE_OF(r, 0, 5000, 20000);
	c->trigger_ppm = SIM_ONE_OF(r, 0, 20000, 100000);
	c->client_cut_ppm = SIM_ONE_OF(r, 0, 0, 10000);
	c->rate_ppm = SIM_ONE_OF(r, 0, 10000);
	c->view_ppm = SIM_ONE_OF(r, 0, 0, 2000, 20000);
	c->ambush_ppm = SIM_ONE_OF(r, 0, 0, 5000);
	c->ambush_ns_max = 2 * SIM_MS;
	c->point_ppm = SIM_ONE_OF(r, 0, 0, 100, 1000);
	c->down_ns_max = SIM_ONE_OF(r, 5, 40, 150) * SIM_MS;
	c->early_faults = chp_random_chance(r, 100000);
	c->stays_dead = chp_random_chance(r, 250000);
	if (c->budget == SIM_ROLLING)
		c->crash_ppm /= 10;
}

void
sim_set_load(struct sim_config *c, uint32_t ops, uint64_t faults_ns)
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
	const uint32_t ops = SIM_ONE_OF(r, 100, 200, 400);

	sim_set_load(c, ops, SIM_ONE_OF(r, 40, 100, 200, 400) * SIM_MS);
	c->value_bytes_typical = SIM_ONE_OF(r, 12, 12, 32, 40);
	c->delete_ppm = SIM_ONE_OF(r, 0, 0, 100000, 300000);
	c->get_ppm = SIM_ONE_OF(r, 0, 0, 400000);
	c->rmw_ppm = SIM_ONE_OF(r, 0, 0, 300000);
	c->roamer_ppm = SIM_ONE_OF(r, 0, 200000, 500000);
	c->anywhere_ppm = SIM_ONE_OF(r, 0, 300000, 1000000);
	c->close_ppm = SIM_ONE_OF(r, 0, 0, 50000);
	c->retry_ns_min = SIM_MS;
	c->retry_ns_max = 4 * SIM_MS;
	c->retry_ns_cap = 20 * SIM_MS;
	c->patience_ns_min = 5 * SIM_MS;
}

void
sim_set_credits(struct sim_config *c, uint32_t credits, uint32_t times)
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
		.protocol = c->kind->protocol,
		.application = &chp_store,
		.memory = &chp_memory_libc,
		.cluster_hash = 0xc4aa9a12,
		.shards = 1,
		.n_nodes = c->n_nodes,
		.hash_seed = 7,
		.payload_bytes_max = SIM_PACKET_BYTES,
		.key_bytes_max = CHP_KEY_BYTES_MAX,
		.value_bytes_max = SIM_ONE_OF(r, 48, 200, CHP_VALUE_BYTES_MAX),
		.keys_max = SIM_ONE_OF(r, roomy, roomy, 64, 64, c->n_keys / 2 + c->n_clients),
		.value_blocks_max = SIM_ONE_OF(r, 2, 24, 100, 200, 200),
		.sessions_max = SIM_ONE_OF(r, c->n_clients, 64, 64),
		.session_window = SIM_ONE_OF(r, 1, 2, 8, 8),
		.session_idle_ns = chp_random_chance(r, 200000) ? 30 * SIM_MS : SIM_IDLE_NEVER_NS,
		.copy_bytes = SIM_ONE_OF(r, 256, 256, 1024, 65536),
		.link_window = SIM_ONE_OF(r, 1, 2, 4, 16, 64),
		.rto_ns_min = SIM_ONE_OF(r, 100000, 500000, 2000000),
		.rto_ns_max = 20 * SIM_MS,
		.ack_delay_ns = SIM_ONE_OF(r, 0, 20000, 200000),
		.link_down_ns = CHP_NEVER,
	};
	if (chp_random_chance(r, 300000))
		s->link_down_ns = chp_random_range(r, 30, 200) * SIM_MS;
	sim_set_credits(c, SIM_ONE_OF(r, 1, 2, 4, 16, 16), SIM_ONE_OF(r, 1, 1, 4));
	s->ops = SIM_ONE_OF(r, 2, 16, 64, 64);
}

void
sim_make_room(struct sim_config *c)
{
	c->shard.keys_max = 64;
	c->shard.value_blocks_max = 200;
	c->shard.ops = 64;
	c->shard.session_idle_ns = SIM_IDLE_NEVER_NS;
	c->drop_ppm = chp_min_u32(c->drop_ppm, 20000);
}

/* Hosts that are slow, fail, and go away; each fault is in some seeds, in others it is not. */
static void
draw_host_faults(struct sim_config *c, struct chp_random *r)
{
	c->store_ns_min = SIM_ONE_OF(r, 1000, 20000);
	c->store_ns_max = c->store_ns_min + SIM_ONE_OF(r, 5000, 100000, 1000000);
	c->slow_ns_max = SIM_ONE_OF(r, 1, 5, 20) * SIM_MS;
	c->store_fail_ppm = SIM_ONE_OF(r, 0, 0, 10000, 200000);
	c->store_twice_ppm = SIM_ONE_OF(r, 0, 100000);
	c->store_slow_ppm = SIM_ONE_OF(r, 0, 5000, 20000);
	c->store_down_ppm = SIM_ONE_OF(r, 0, 0, 5000);
	c->host_crash_ppm = SIM_ONE_OF(r, 0, 5000, 20000, 50000);
	c->machine_crash_ppm = SIM_ONE_OF(r, 0, 0, 5000);
	c->channel_cut_ppm = SIM_ONE_OF(r, 0, 5000, 20000);
	c->floor_ppm = SIM_ONE_OF(r, 0, 20000, 200000);
	c->cold_ppm = SIM_ONE_OF(r, 0, 0, 2000, 10000);
	c->host_down_ns_max = SIM_ONE_OF(r, 1, 10, 60) * SIM_MS;
}

/*
 * Stores so quick and ways between nodes so uneven that a version is saved and has left the cache before an older one
 * arrives (SAFETY 3).
 */
static void
draw_uneven_hosts(struct sim_config *c, struct chp_random *r)
{
	c->uneven_ns_max = SIM_ONE_OF(r, 1, 2, 5) * SIM_MS;
	c->latency_ns_max = 60000;
	if (c->shard.election_ns != 0) /* a healed network must be quick enough for elections, as in every world */
		c->shard.election_ns = chp_max_u64(c->shard.election_ns, 16 * c->latency_ns_max);
	sim_draw_times(c, r, 40 * SIM_MS);
	c->lease_ns = 25 * SIM_MS; /* a lease needs a round trip */
	c->drop_ppm = chp_min_u32(c->drop_ppm, 1000);
	c->n_keys = SIM_ONE_OF(r, 4, 8, SIM_KEYS_MAX);
	c->rmw_ppm = SIM_ONE_OF(r, 300000, 600000);
	c->store_ns_min = 1000;
	c->store_ns_max = 5000;
	c->store_slow_ppm = c->store_down_ppm = 0;
	c->shard.keys_max = 3 * c->n_clients + 1;
	c->shard.batch_age_ns = 0;
	c->shard.loads_max = SIM_ONE_OF(r, 8, 64);
}

/* Nothing can be evicted to a store that may forget, nor can a cluster begin again from it (SAFETY 31). */
static void
draw_forgetful_hosts(struct sim_config *c)
{
	c->forgets = true;
	c->cold_ppm = 0;
	c->shard.keys_max += c->n_keys;
	c->shard.value_blocks_max = 200;
}

/*
 * A cache that is mostly much smaller than what is in use. Sessions take slots that stay, those as well that a client
 * never heard of, or has closed a moment ago; with three times as many slots as clients there is always one for keys.
 * The log is as short as the credits allow.
 */
static void
draw_hosts(struct sim_config *c, struct chp_random *r)
{
	struct chp_shard_config *s = &c->shard;

	s->has_host = true;
	c->channel_tells = c->seed / (2 * SIM_PROFILES) % 2 == 0;
	c->n_keys = SIM_ONE_OF(r, 4, 12, SIM_KEYS_MAX, SIM_KEYS_MAX, SIM_KEYS_MAX, SIM_KEYS_MAX);
	c->n_clients = chp_min_u32(c->n_clients, SIM_ONE_OF(r, 2, 3, 6));
	s->sessions_max = c->n_clients;
	s->keys_max = 3 * c->n_clients + SIM_ONE_OF(r, 1, 1, 2, 4, c->n_keys);
	s->value_blocks_max = SIM_ONE_OF(r, 24, 100, 200);
	s->batch_items = SIM_ONE_OF(r, 1, 2, 8, 64);
	s->batch_bytes = SIM_ONE_OF(r, 2048, 65536);
	s->batch_age_ns = SIM_ONE_OF(r, 0, 50000, 500000, 5000000);
	s->loads_max = SIM_ONE_OF(r, 1, 2, 8, 64);
	s->busy_fill_percent = SIM_ONE_OF(r, 50, 80, 95);
	c->host_grace_ns = SIM_ONE_OF(r, 20, 100, 1000) * SIM_MS;
	c->leave_fill_ppm = SIM_ONE_OF(r, 0, 0, 900000);
	c->put_bytes = SIM_ONE_OF(r, 2048, 65536);
	c->loads = SIM_ONE_OF(r, 1, 4, 64);
	sim_set_credits(c, SIM_ONE_OF(r, 1, 2, 4, 16), SIM_ONE_OF(r, 1, 1, 1, 4));
	if (!c->kind->protocol->is_fenced) {
		sim_set_credits(c, (uint32_t)chp_max_u64(s->credits, 2), 1);
		/* A host is given up as soon as a peer; one that is slow must not be away all the time. */
		s->link_down_ns = chp_max_u64(s->link_down_ns, 30 * SIM_MS);
	}
	s->is_durable = chp_random_chance(r, 300000);
	draw_host_faults(c, r);
	if (s->is_durable) /* what the level promises shows when all memory is lost */
		c->cold_ppm = (uint32_t)chp_max_u64(c->cold_ppm, 2000);
	if (chp_random_chance(r, 250000))
		draw_uneven_hosts(c, r);
	else if (!s->is_durable && chp_random_chance(r, 100000))
		draw_forgetful_hosts(c);
}

static bool
has_hosts(const struct sim_kind *kind, uint64_t seed, enum sim_hosts hosts)
{
	if (!kind->protocol->is_backed || hosts == SIM_HOSTS_NO)
		return false;
	return hosts == SIM_HOSTS_YES || seed / SIM_PROFILES % 2 == 1;
}

void
sim_config_draw(struct sim_config *c, const struct sim_kind *kind, uint64_t seed, uint32_t n_nodes,
		enum sim_hosts hosts)
{
	struct chp_random r = { seed * UINT64_C(0x2545f4914f6cdd1d) + n_nodes };

	memset(c, 0, sizeof(*c));
	c->kind = kind;
	c->seed = seed;
	c->profile = (uint32_t)(seed % SIM_PROFILES);
	c->n_nodes = n_nodes;
	c->n_clients = (uint32_t)chp_random_range(&r, 2, SIM_CLIENTS_MAX);
	c->n_keys = SIM_ONE_OF(&r, 1, 1, 2, 4, 12);
	draw_network(c, &r);
	draw_membership(c, &r);
	draw_clients(c, &r);
	draw_shard(c, &r);
	c->depth = (uint32_t)chp_random_range(&r, 1, chp_min_u32(SIM_DEPTH_MAX, c->shard.session_window));
	draw_faults(c, &r);
	if (kind->draw[c->profile] != NULL)
		kind->draw[c->profile](c, &r);
	if (has_hosts(kind, seed, hosts))
		draw_hosts(c, &r);
}
