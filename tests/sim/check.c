/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What must hold over all nodes at any time, and what must hold when the world is at rest.
 */
#include "kind.h"

#include "history/linear.h"

#include <inttypes.h>
#include <string.h>

/* A slot's key looked up at another node. */
static struct chp_slot *
same_key(struct sim_node *node, struct chp_cache *from, const struct chp_slot *s)
{
	struct chp_cache *cache = chp_shard_cache(node->shard);
	uint8_t bytes[CHP_KEY_BYTES_MAX];
	struct chp_key key = { .bytes = bytes, .len = s->key_len, .session = s->flags & CHP_SLOT_SESSION, .pos = -1 };

	chp_cache_key(from, s, bytes);
	key.digest = chp_cache_digest(cache, bytes, key.len, key.session);
	return chp_cache_find(cache, &key);
}

static bool
same_value(struct chp_cache *a, const struct chp_slot *s, struct chp_cache *b, const struct chp_slot *t)
{
	uint8_t x[CHP_VALUE_BYTES_MAX], y[CHP_VALUE_BYTES_MAX];

	if (s->value_len != t->value_len || (s->flags & CHP_SLOT_TOMBSTONE) != (t->flags & CHP_SLOT_TOMBSTONE))
		return false;
	chp_cache_value(a, s, x);
	chp_cache_value(b, t, y);
	return memcmp(x, y, s->value_len) == 0;
}

/* Two live nodes: one version has one value; a key that is settled at both has one version, where the kind says so. */
static void
check_pair(struct sim_world *w, uint32_t a, uint32_t b)
{
	struct chp_cache *ca = chp_shard_cache(w->node[a].shard), *cb = chp_shard_cache(w->node[b].shard);
	const bool together = w->config.kind->agree(w, a, b);

	for (uint32_t i = 0; i < chp_cache_slots(ca); i++) {
		struct chp_slot *s = chp_cache_slot(ca, i), *t;

		if (s == NULL)
			continue;
		t = same_key(&w->node[b], ca, s);
		if (t == NULL || s->version == 0 || t->version == 0) /* being loaded, or it says that there is none */
			continue;
		if (s->version == t->version && !same_value(ca, s, cb, t))
			sim_fail(w, "nodes %u and %u hold different values of version %" PRIu64 ".%u", a, b,
				 chp_version_counter(s->version), (uint16_t)s->version);
		if (together && s->state == 0 && t->state == 0 && s->version != t->version)
			sim_fail(w,
				 "nodes %u and %u are settled at versions %" PRIu64 ".%u and %" PRIu64 ".%u", a, b,
				 chp_version_counter(s->version), (uint16_t)s->version,
				 chp_version_counter(t->version), (uint16_t)t->version);
	}
}

void
sim_check_agreement(struct sim_world *w)
{
	for (uint32_t a = 0; a < w->config.n_nodes; a++)
		for (uint32_t b = a + 1; b < w->config.n_nodes; b++)
			if (w->node[a].alive && w->node[b].alive)
				check_pair(w, a, b);
}

void
sim_check_history(struct sim_world *w)
{
	static struct chp_linear_report report;
	const struct chp_linear_limits limits = { .states_max = 500000 };

	if (chp_linear_check(&w->history, &limits, &report) != 0) {
		sim_fail(w, "the checker ran out of memory");
		return;
	}
	if (report.verdict == CHP_LINEAR_UNDECIDED) {
		w->undecided = true; /* counted: the runner accepts few of them, never calls them right */
	} else if (report.verdict != CHP_LINEAR_OK) {
		sim_fail(w, "history: %s", chp_linear_verdict_name(report.verdict));
		if (w->config.trace)
			sim_trace(w, "%s", report.text);
	}
}

void
sim_check_end(struct sim_world *w, bool at_rest)
{
	uint64_t digest = 0, mine;
	bool first = true;

	sim_check_agreement(w);
	for (uint32_t n = 0; n < w->config.n_nodes; n++) {
		struct chp_shard_stats stats;

		if (!w->node[n].alive)
			continue;
		chp_shard_stats(w->node[n].shard, &stats);
		if (stats.protocol.overrun != 0)
			sim_fail(w, "node %u had no room for what a peer had begun", n);
		for (uint32_t p = 0; p < w->config.n_nodes; p++)
			if (stats.link[p].bad_message != 0)
				sim_fail(w, "node %u was sent a message it does not accept by %u", n, p);
		mine = chp_shard_digest(w->node[n].shard);
		if (w->config.shard.has_host) /* of caches, each has its own part; the sessions are left */
			mine ^= chp_cache_state_digest(chp_shard_cache(w->node[n].shard));
		if (at_rest && !first && mine != digest)
			sim_fail(w, "at rest, node %u differs from the others", n);
		digest = mine;
		first = false;
	}
	if (at_rest && w->config.shard.has_host)
		sim_backed_end(w);
	sim_check_history(w);
}
