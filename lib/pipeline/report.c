/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * report.c - what others may know: reports of shards and node, info and status as JSON, part by part.
 *
 * Counters of a shard are its lcore's. Control asks for a copy ten times a second and the shard's lcore
 * makes it between two batches: no locks, and no word is read while it is written.
 */
#include "base/assert.h"
#include "pipeline/stages.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define PPM 1000000u

/* ------------------------------------------------------------------ JSON */

/* Text in a buffer of fixed size. len counts on where it is full: then the text is useless. */
struct json {
	char *text;
	uint32_t cap, len;
	bool comma; /* a member stands before the next one */
};

__attribute__((format(printf, 2, 3))) static void
put(struct json *j, const char *format, ...)
{
	uint32_t left = j->len < j->cap ? j->cap - j->len : 0;
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(left > 0 ? j->text + j->len : NULL, left, format, args);
	va_end(args);
	CHP_ASSERT_OP(n, >=, 0);
	j->len += (uint32_t)n;
}

/* Texts about datastores may have anything in them, and be cut in the midst of a character. */
static void
put_string(struct json *j, const char *s)
{
	put(j, "\"");
	for (; *s != '\0'; s++) {
		if (*s == '"' || *s == '\\')
			put(j, "\\%c", *s);
		else if (*s >= 0x20 && *s < 0x7f)
			put(j, "%c", *s);
		else
			put(j, "?");
	}
	put(j, "\"");
}

/* The name of a member, or nothing in a list. */
static void
name(struct json *j, const char *key)
{
	if (j->comma)
		put(j, ",");
	if (key != NULL)
		put(j, "\"%s\":", key);
	j->comma = true;
}

static void
open(struct json *j, const char *key, char bracket)
{
	name(j, key);
	put(j, "%c", bracket);
	j->comma = false;
}

static void
close(struct json *j, char bracket)
{
	put(j, "%c", bracket);
	j->comma = true;
}

static void
number(struct json *j, const char *key, uint64_t value)
{
	name(j, key);
	put(j, "%" PRIu64, value);
}

static void
string(struct json *j, const char *key, const char *value)
{
	name(j, key);
	put_string(j, value);
}

static void
hex(struct json *j, const char *key, uint64_t value)
{
	name(j, key);
	put(j, "\"%" PRIx64 "\"", value);
}

static void
address(struct json *j, const char *key, uint32_t a)
{
	name(j, key);
	put(j, "\"%u.%u.%u.%u\"", a >> 24, a >> 16 & 0xff, a >> 8 & 0xff, a & 0xff);
}

static void
mac(struct json *j, const char *key, const uint8_t *m)
{
	name(j, key);
	put(j, "\"%02x:%02x:%02x:%02x:%02x:%02x\"", m[0], m[1], m[2], m[3], m[4], m[5]);
}

/* ------------------------------------------------------------------ info */

static void
info_member(struct json *j, const struct chp_cluster_config *c, uint32_t i)
{
	open(j, NULL, '{');
	number(j, "id", i);
	string(j, "name", c->member[i].name);
	address(j, "address", c->member[i].address);
	close(j, '}');
}

uint32_t
chp_pipeline_info(const struct chp_pipeline *p, char *text, uint32_t cap)
{
	const struct chp_cluster_config *c = &p->cluster;
	struct json j = { .text = text, .cap = cap };

	open(&j, NULL, '{');
	string(&j, "name", c->name);
	number(&j, "hash", c->hash);
	string(&j, "protocol", c->protocol);
	string(&j, "application", c->application);
	number(&j, "shards", c->shards);
	name(&j, "hash_seed"); /* a string: JSON numbers of many languages have 53 bits */
	put(&j, "\"%" PRIu64 "\"", c->hash_seed);
	number(&j, "port_base", c->port_base);
	number(&j, "mtu", c->mtu);
	number(&j, "key_bytes_max", c->key_bytes_max);
	number(&j, "value_bytes_max", c->value_bytes_max);
	number(&j, "session_window", c->session_window);
	number(&j, "node", p->node.node);
	number(&j, "epoch", atomic_load_explicit(&p->epoch, memory_order_relaxed));
	open(&j, "members", '[');
	for (uint32_t i = 0; i < c->n_members; i++)
		info_member(&j, c, i);
	close(&j, ']');
	close(&j, '}');
	return j.len;
}

/* ------------------------------------------------------------------ status of the node */

static void
node_members(struct json *j, const struct chp_control *s, uint64_t now_ns)
{
	const struct chp_pipeline *p = s->p;
	const struct chp_cluster_config *c = &p->cluster;
	char line[CHP_MEMBERSHIP_TEXT_BYTES];

	open(j, "members", '[');
	for (uint32_t i = 0; i < c->n_members; i++) {
		bool self = i == p->node.node;
		uint8_t m[CHP_MAC_BYTES];

		open(j, NULL, '{');
		number(j, "id", i);
		string(j, "name", c->member[i].name);
		address(j, "address", c->member[i].address);
		hex(j, "incarnation", self ? s->membership.incarnation : s->membership.peer[i].incarnation);
		if (self)
			mac(j, "mac", p->port.self.mac);
		else if (chp_neighbours_mac(&p->neighbours, i, m))
			mac(j, "mac", m);
		if (!self) {
			struct chp_text text = chp_text_of(line, sizeof(line));

			chp_membership_peer_text(&s->membership, now_ns, i, &text);
			string(j, "text", line);
		}
		close(j, '}');
	}
	close(j, ']');
}

static void
node_port(struct json *j, const struct chp_pipeline *p)
{
	struct rte_eth_stats stats;

	if (rte_eth_stats_get(p->port.id, &stats) != 0)
		return;
	open(j, "port", '{');
	string(j, "name", p->node.port);
	number(j, "rx_packets", stats.ipackets);
	number(j, "tx_packets", stats.opackets);
	number(j, "rx_bytes", stats.ibytes);
	number(j, "tx_bytes", stats.obytes);
	number(j, "rx_missed", stats.imissed);
	number(j, "rx_errors", stats.ierrors);
	number(j, "tx_errors", stats.oerrors);
	number(j, "rx_no_mbuf", stats.rx_nombuf);
	close(j, '}');
}

static void
node_counters(struct json *j, const struct chp_pipeline *p)
{
	open(j, "drops", '{');
	for (uint32_t i = 0; i < CHP_COUNT_COUNT; i++) {
		if (strncmp(chp_counter_name(i), "drop_", 5) == 0)
			number(j, chp_counter_name(i), chp_pipeline_count(p, i));
	}
	close(j, '}');
	open(j, "counters", '{');
	for (uint32_t i = 0; i < CHP_COUNT_COUNT; i++) {
		if (strncmp(chp_counter_name(i), "drop_", 5) != 0)
			number(j, chp_counter_name(i), chp_pipeline_count(p, i));
	}
	close(j, '}');
}

/* A list of node ids. */
static void
nodes(struct json *j, const char *key, uint64_t mask)
{
	open(j, key, '[');
	for (; mask != 0; mask &= mask - 1)
		number(j, NULL, chp_first_bit(mask));
	close(j, ']');
}

static void
boolean(struct json *j, const char *key, bool value)
{
	name(j, key);
	put(j, value ? "true" : "false");
}

/* What a node is in a view; NULL: there is none. */
static const char *
role_of(const struct chp_view *v, uint32_t node, const char *none)
{
	if (v != NULL && (v->voters & chp_bit(node)) != 0)
		return "voter";
	return v != NULL && (v->learners & chp_bit(node)) != 0 ? "learner" : none;
}

/* Time left in which this node may serve. */
static uint64_t
lease_left_ns(const struct chp_control *s, uint64_t now_ns)
{
	uint64_t until_ns = atomic_load_explicit(&s->p->lease_until_ns, memory_order_relaxed);

	return until_ns > now_ns ? until_ns - now_ns : 0;
}

static uint64_t
ms_since(uint64_t now_ns, uint64_t ns)
{
	return now_ns > ns ? (now_ns - ns) / CHP_NS_PER_MS : 0;
}

static void
membership_members(struct json *j, const struct chp_control *s, uint64_t now_ns)
{
	const struct chp_membership *m = &s->membership;
	const struct chp_view *v = chp_membership_view(m);
	const struct chp_cluster_config *c = &s->p->cluster;
	uint64_t suspected = chp_membership_suspected(m);

	open(j, "members", '[');
	for (uint32_t i = 0; i < c->n_members; i++) {
		bool self = i == s->p->node.node;
		char line[CHP_MEMBERSHIP_TEXT_BYTES];
		struct chp_text text = chp_text_of(line, sizeof(line));

		if (self)
			chp_text_add(&text, "this node");
		else
			chp_membership_peer_text(m, now_ns, i, &text);
		open(j, NULL, '{');
		number(j, "node", i);
		string(j, "name", c->member[i].name);
		string(j, "role", role_of(v, i, "out"));
		hex(j, "incarnation", self ? m->incarnation : m->peer[i].incarnation);
		name(j, "heard_ms");
		if (!self && m->peer[i].heard_ns == 0)
			put(j, "-1");
		else
			put(j, "%" PRIu64, self ? 0 : ms_since(now_ns, m->peer[i].heard_ns));
		boolean(j, "suspected", (suspected & chp_bit(i)) != 0);
		string(j, "text", line);
		close(j, '}');
	}
	close(j, ']');
}

/* The newest changes of the view, oldest first. */
static void
membership_history(struct json *j, const struct chp_membership *m, uint64_t now_ns)
{
	uint32_t n = chp_min_u32(m->n_changes, CHP_MEMBERSHIP_CHANGES);

	open(j, "history", '[');
	for (uint32_t i = m->n_changes - n; i != m->n_changes; i++) {
		const struct chp_membership_change *c = &m->change[i % CHP_MEMBERSHIP_CHANGES];

		open(j, NULL, '{');
		number(j, "epoch", c->epoch);
		number(j, "age_ms", ms_since(now_ns, c->at_ns));
		number(j, "took_us", c->took_ns / 1000);
		nodes(j, "voters", c->voters);
		nodes(j, "learners", c->learners);
		string(j, "why", c->why);
		close(j, '}');
	}
	close(j, ']');
}

/* How far the copies of all shards are; what a shard reported of an earlier life counts as nothing. */
static void
membership_copy(struct json *j, const struct chp_control *s)
{
	struct chp_copy_progress sum = { .done = true, .source = CHP_NODES_MAX };
	uint32_t shards = s->p->cluster.shards;
	uint64_t ppm = 0;

	for (uint32_t i = 0; i < shards; i++) {
		const struct chp_copy_progress *c = &s->report[i].copy;

		if (s->report[i].life != s->membership.lives) {
			sum.done = false;
			continue;
		}
		if (c->done)
			ppm += PPM;
		else if (c->total > 0) /* in floating point, as what a peer sends may be large */
			ppm += (uint64_t)((double)PPM * (double)chp_min_u64(c->at, c->total) / (double)c->total);
		if (sum.source == CHP_NODES_MAX || !c->done)
			sum.source = c->source;
		sum.done &= c->done;
		sum.items += c->items;
		sum.bytes += c->bytes;
		sum.restarts += c->restarts;
	}
	open(j, "copy", '{');
	boolean(j, "done", sum.done);
	number(j, "progress_ppm", ppm / shards);
	number(j, "items", sum.items);
	number(j, "bytes", sum.bytes);
	name(j, "source");
	put(j, "%d", sum.source < CHP_NODES_MAX ? (int)sum.source : -1);
	number(j, "restarts", sum.restarts);
	close(j, '}');
}

/* The name of a counter; "suspected" is a list of nodes. */
static const char *
counter_key(const char *counter)
{
	return strcmp(counter, "suspected") == 0 ? "suspicions" : counter;
}

static void
node_membership(struct json *j, const struct chp_control *s, const char *waiting, uint64_t now_ns)
{
	static const char *const state[] = {
		[CHP_MEMBERSHIP_FORMING] = "forming",
		[CHP_MEMBERSHIP_JOINING] = "joining",
		[CHP_MEMBERSHIP_MEMBER] = "member",
		[CHP_MEMBERSHIP_REFUSED] = "refused",
	};
	const struct chp_membership *m = &s->membership;
	const struct chp_view *v = chp_membership_view(m);

	open(j, "membership", '{');
	string(j, "state", state[m->state]);
	hex(j, "incarnation", m->incarnation);
	number(j, "lives", m->lives);
	number(j, "epoch", v != NULL ? v->epoch : 0);
	string(j, "role", role_of(v, s->p->node.node, "none"));
	boolean(j, "serves", m->state == CHP_MEMBERSHIP_MEMBER && chp_pipeline_is_serving(s->p));
	number(j, "lease_ms", (lease_left_ns(s, now_ns) + CHP_NS_PER_MS - 1) / CHP_NS_PER_MS);
	nodes(j, "suspected", chp_membership_suspected(m));
	string(j, "waiting", waiting);
	membership_members(j, s, now_ns);
	membership_history(j, m, now_ns);
	membership_copy(j, s);
#define CHP_COUNTER_FIELD(field, help) number(j, counter_key(#field), m->counters.field);
	CHP_MEMBERSHIP_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
	for (uint32_t i = CHP_PACKET_SHORT; i < CHP_PACKET_ERRORS; i++)
		number(j, chp_packet_error_name(i), m->counters.dropped[i]);
	close(j, '}');
}

static void
node_pools(struct json *j, const struct chp_pipeline *p)
{
	open(j, "pools", '{');
	number(j, "rx_size", p->rx_pool->size);
	number(j, "rx_free", rte_mempool_avail_count(p->rx_pool));
	number(j, "tx_size", p->tx_pool->size);
	number(j, "tx_free", rte_mempool_avail_count(p->tx_pool));
	number(j, "control_size", p->control_pool->size);
	number(j, "control_free", rte_mempool_avail_count(p->control_pool));
	close(j, '}');
}

static void
lcore_stages(struct json *j, const struct chp_lcore_config *l)
{
	static const char *const kind[] = {
		[CHP_STAGE_RX] = "rx",
		[CHP_STAGE_SHARD] = "shard",
		[CHP_STAGE_TX] = "tx",
		[CHP_STAGE_CONTROL] = "control",
		[CHP_STAGE_HOST] = "host",
	};

	name(j, "stages");
	put(j, "\"");
	for (uint32_t i = 0; i < l->n_stages; i++) {
		put(j, "%s%s", i > 0 ? " " : "", kind[l->stage[i].kind]);
		if (l->stage[i].kind != CHP_STAGE_CONTROL && l->stage[i].kind != CHP_STAGE_HOST)
			put(j, "%u", l->stage[i].index);
	}
	put(j, "\"");
}

static void
node_lcores(struct json *j, const struct chp_pipeline *p)
{
	open(j, "lcores", '[');
	for (uint32_t i = 0; i < p->node.n_lcores; i++) {
		uint64_t t[CHP_CYCLES_COUNT], busy, all;

		chp_pipeline_cycles(p, i, t);
		busy = t[CHP_CYCLES_PROTOCOL] + t[CHP_CYCLES_NETWORK] + t[CHP_CYCLES_REST];
		all = busy + t[CHP_CYCLES_IDLE];
		open(j, NULL, '{');
		number(j, "lcore", p->node.lcore[i].lcore);
		lcore_stages(j, &p->node.lcore[i]);
		name(j, "busy_pct");
		put(j, "%.1f", all > 0 ? 100.0 * (double)busy / (double)all : 0.0);
		number(j, "cycles_protocol", t[CHP_CYCLES_PROTOCOL]);
		number(j, "cycles_network", t[CHP_CYCLES_NETWORK]);
		number(j, "cycles_rest", t[CHP_CYCLES_REST]);
		number(j, "cycles_idle", t[CHP_CYCLES_IDLE]);
		close(j, '}');
	}
	close(j, ']');
}

/* One word for all of it: what an operator wants to know first. */
static const char *
node_state(const struct chp_control *s)
{
	const struct chp_view *v = chp_membership_view(&s->membership);

	if (chp_pipeline_state_of(s->p) != CHP_PIPELINE_RUNNING)
		return "stopping";
	switch (s->membership.state) {
	case CHP_MEMBERSHIP_FORMING:
		return "forming";
	case CHP_MEMBERSHIP_JOINING:
		return "joining";
	case CHP_MEMBERSHIP_REFUSED:
		return "refused";
	case CHP_MEMBERSHIP_MEMBER:
		break;
	}
	if (v != NULL && (v->learners & chp_bit(s->p->node.node)) != 0)
		return "learner";
	if (chp_pipeline_is_serving(s->p))
		return "serving";
	return chp_pipeline_is_fenced(s->p) ? "no lease" : "waiting";
}

/* Why this node does not serve, or its state: membership's reason, else that of the first shard that has one. */
static void
waiting_text(const struct chp_control *s, uint64_t now_ns, struct chp_text *t)
{
	bool shards_wait = s->membership.state == CHP_MEMBERSHIP_MEMBER && !chp_pipeline_is_fenced(s->p);

	for (uint32_t i = 0; i < s->p->cluster.shards && shards_wait; i++) {
		const char *why = s->report[i].status.waiting;

		if (s->report[i].life != s->membership.lives || why[0] == '\0')
			continue;
		chp_text_add(t, "shard %u: %s", i, why);
		return;
	}
	chp_membership_waiting(&s->membership, now_ns, t);
}

/* Where each shard's protocol stands, in short: for those who look at all nodes again and again. */
static void
node_instances(struct json *j, const struct chp_control *s)
{
	open(j, "instances", '[');
	for (uint32_t i = 0; i < s->p->cluster.shards; i++) {
		const struct chp_protocol_status *t = &s->report[i].status;

		open(j, NULL, '{');
		number(j, "shard", i);
		string(j, "role", t->role != NULL ? t->role : "none");
		name(j, "leader");
		put(j, "%d", t->role != NULL && t->leader < CHP_NODES_MAX ? (int)t->leader : -1);
		number(j, "epoch", t->epoch);
		number(j, "committed", t->committed);
		number(j, "applied", t->applied);
		string(j, "quorum", t->quorum != NULL ? t->quorum : "");
		string(j, "waiting", t->waiting);
		close(j, '}');
	}
	close(j, ']');
}

/* ------------------------------------------------------------------ the host */

static const char *
host_state(const struct chp_host_status *h)
{
	static const char *const state[] = {
		[CHP_HOST_NONE] = "none",       [CHP_HOST_AWAY] = "away",   [CHP_HOST_REFUSES] = "refuses",
		[CHP_HOST_WAITING] = "waiting", [CHP_HOST_READY] = "ready", [CHP_HOST_LOST_DATA] = "lost data",
	};

	return state[h->state];
}

static const char *
store_state(const struct chp_host_status *h)
{
	static const char *const state[] = { "ok", "slow", "down" };

	return h->store_state < CHP_ARRAY_LEN(state) ? state[h->store_state] : "unknown";
}

/* What makes it "ready" is most, then what is nearest to it: for one word about several shards. */
static uint32_t
host_rank(const struct chp_host_status *h)
{
	static const uint8_t rank[] = {
		[CHP_HOST_NONE] = 0,    [CHP_HOST_LOST_DATA] = 1, [CHP_HOST_REFUSES] = 2,
		[CHP_HOST_AWAY] = 3,    [CHP_HOST_WAITING] = 4,   [CHP_HOST_READY] = 5,
	};

	return 4u * rank[h->state] + 3u - chp_min_u32(h->store_state, 3);
}

static void
percent(struct json *j, const char *key, uint64_t part, uint64_t whole)
{
	name(j, key);
	put(j, "%.1f", whole > 0 ? 100.0 * (double)part / (double)whole : 0.0);
}

/* Reads that had to load: not more than all operations that had to, nor than the reads that waited for anything. */
static uint64_t
read_misses(const struct chp_protocol_counters *c)
{
	return chp_min_u64(c->reads, chp_min_u64(c->misses, c->reads_parked));
}

/* What several shards have in common with one. */
static void
host_numbers(struct json *j, const struct chp_host_status *h)
{
	string(j, "state", host_state(h));
	string(j, "store", store_state(h));
	string(j, "text", h->text);
	boolean(j, "volatile", (h->store_flags & CHP_STORE_VOLATILE) != 0);
	boolean(j, "allow_loss", (h->store_flags & CHP_STORE_ALLOW_LOSS) != 0);
	number(j, "away_ms", h->away_ns / CHP_NS_PER_MS);
	number(j, "backlog", h->backlog);
	number(j, "oldest_ms", h->oldest_ns / CHP_NS_PER_MS);
	percent(j, "log_fill_pct", h->log_fill_ppm, PPM);
	number(j, "items", h->items);
	number(j, "tombstones", h->tombstones);
	number(j, "errors", h->errors);
}

static void
shard_host(struct json *j, const struct chp_shard_report *r)
{
	open(j, "host", '{');
	host_numbers(j, &r->host);
	number(j, "epoch", r->host.epoch);
	number(j, "life", r->host.life);
	number(j, "newest", r->host.newest);
#define CHP_COUNTER_FIELD(field, help) number(j, #field, r->core.host.field);
	open(j, "counters", '{');
	CHP_HOST_COUNTERS(CHP_COUNTER_FIELD)
	close(j, '}');
#undef CHP_COUNTER_FIELD
	close(j, '}');
}

/* All shards together: sums, the worst of what cannot be added, and the channel below them. */
static void
node_host(struct json *j, const struct chp_control *s)
{
	const struct chp_host_stage *stage = s->p->host;
	struct chp_host_status all = s->report[0].host;
	uint64_t reads = 0, misses = 0, evictions = 0;

	if (stage == NULL)
		return;
	for (uint32_t i = 0; i < s->p->cluster.shards; i++) {
		const struct chp_shard_report *r = &s->report[i];
		const struct chp_host_status *h = &r->host;

		reads += r->core.protocol.reads;
		misses += read_misses(&r->core.protocol);
		evictions += r->core.cache.evictions;
		if (i == 0)
			continue;
		if (host_rank(h) < host_rank(&all)) {
			all.state = h->state;
			all.store_state = h->store_state;
			memcpy(all.text, h->text, sizeof(all.text));
		}
		all.store_flags |= h->store_flags;
		all.away_ns = h->away_ns > all.away_ns ? h->away_ns : all.away_ns;
		all.backlog += h->backlog;
		all.oldest_ns = h->oldest_ns > all.oldest_ns ? h->oldest_ns : all.oldest_ns;
		all.log_fill_ppm = h->log_fill_ppm > all.log_fill_ppm ? h->log_fill_ppm : all.log_fill_ppm;
		all.items += h->items;
		all.tombstones += h->tombstones;
		all.errors = h->errors > all.errors ? h->errors : all.errors;
	}
	open(j, "host", '{');
	host_numbers(j, &all);
	percent(j, "hit_pct", reads - misses, reads);
	number(j, "evictions", evictions);
	string(j, "durability", s->p->cluster.durability == CHP_DURABILITY_DATASTORE ? "datastore" : "memory");
	open(j, "channel", '{');
	string(j, "kind", stage->channel->ops->name);
	string(j, "state", chp_channel_state_name(s->channel.state));
	string(j, "text", s->channel.text);
	for (uint32_t i = 0; i < CHP_CHANNEL_COUNTER_COUNT; i++)
		number(j, chp_channel_counter_name(i), chp_channel_counter(stage->channel, i));
	close(j, '}');
	close(j, '}');
}

static uint32_t
status_node(struct chp_control *s, char *text, uint32_t cap)
{
	const struct chp_pipeline *p = s->p;
	uint64_t now_ns = chp_clock_ns(&p->clock);
	char waiting[CHP_MEMBERSHIP_TEXT_BYTES];
	struct chp_text line = chp_text_of(waiting, sizeof(waiting));
	struct json j = { .text = text, .cap = cap };

	waiting_text(s, now_ns, &line);
	open(&j, NULL, '{');
	number(&j, "node", p->node.node);
	string(&j, "name", p->cluster.member[p->node.node].name);
	string(&j, "version", p->config.version);
	string(&j, "cluster", p->cluster.name);
	number(&j, "hash", p->cluster.hash);
	string(&j, "protocol", p->cluster.protocol);
	string(&j, "application", p->cluster.application);
	number(&j, "shards", p->cluster.shards);
	number(&j, "epoch", atomic_load_explicit(&p->epoch, memory_order_relaxed));
	string(&j, "state", node_state(s));
	string(&j, "text", waiting);
	number(&j, "uptime_s", (now_ns - p->start_ns) / CHP_NS_PER_S);
	string(&j, "peers", p->node.peers == CHP_PEERS_ETHERNET ? "ethernet" : "udp");
	node_members(&j, s, now_ns);
	node_port(&j, p);
	node_counters(&j, p);
	node_membership(&j, s, waiting, now_ns);
	node_instances(&j, s);
	node_host(&j, s);
	node_pools(&j, p);
	node_lcores(&j, p);
	close(&j, '}');
	return j.len;
}

/* ------------------------------------------------------------------ status of a shard */

static void
shard_link(struct json *j, const struct chp_shard_stats *t, uint32_t peer)
{
	char key[16];

	(void)snprintf(key, sizeof(key), "%u", peer);
	open(j, key, '{');
	string(j, "state", t->link_state[peer].up != 0 ? "up" : "down");
	number(j, "session", t->link_state[peer].session);
	number(j, "in_flight", t->link_state[peer].in_flight);
	number(j, "queued", t->link_state[peer].queued);
	number(j, "credits", t->link_state[peer].credits);
	number(j, "rtt_us", t->link_state[peer].rtt_ns / 1000);
#define CHP_COUNTER_FIELD(field, help) number(j, #field, t->link[peer].field);
	CHP_LINK_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
	close(j, '}');
}

/* Where the protocol stands. Roles and rules are named by the protocol. */
static void
shard_protocol(struct json *j, const struct chp_shard_report *r)
{
	const struct chp_protocol_status *s = &r->status;

	string(j, "role", s->role != NULL ? s->role : "none");
	name(j, "leader");
	put(j, "%d", s->role != NULL && s->leader < CHP_NODES_MAX ? (int)s->leader : -1);
	number(j, "zab_epoch", s->epoch);
	number(j, "proposed", s->proposed);
	number(j, "committed", s->committed);
	number(j, "applied", s->applied);
	string(j, "quorum", s->quorum != NULL ? s->quorum : "");
	string(j, "waiting", s->waiting);
	open(j, "commit", '{'); /* at the leader, of what clients asked */
	number(j, "n", r->commit.n);
#define CHP_COMMIT_FIELD(field, ppm) number(j, #field, r->commit.field);
	CHP_COMMIT_QUANTILES(CHP_COMMIT_FIELD)
#undef CHP_COMMIT_FIELD
	close(j, '}');
#define CHP_COUNTER_FIELD(field, help) number(j, #field, r->core.zab.field);
	open(j, "zab", '{');
	CHP_ZAB_COUNTERS(CHP_COUNTER_FIELD)
	close(j, '}');
#undef CHP_COUNTER_FIELD
}

static uint32_t
status_shard(const struct chp_pipeline *p, uint32_t shard, const struct chp_shard_report *r, char *text,
	     uint32_t cap)
{
	const struct chp_shard_stats *t = &r->core;
	struct json j = { .text = text, .cap = cap };

	open(&j, NULL, '{');
	number(&j, "shard", shard);
	number(&j, "life", r->life);
	number(&j, "epoch", t->epoch);
	shard_protocol(&j, r);
	number(&j, "open_ops", t->open_ops);
	number(&j, "sessions", t->sessions);
#define CHP_COUNTER_FIELD(field, help) number(&j, #field, t->shard.field);
	open(&j, "counters", '{');
	CHP_SHARD_COUNTERS(CHP_COUNTER_FIELD)
	close(&j, '}');
#undef CHP_COUNTER_FIELD
#define CHP_COUNTER_FIELD(field, help) number(&j, #field, t->protocol.field);
	open(&j, "protocol", '{');
	CHP_PROTOCOL_COUNTERS(CHP_COUNTER_FIELD)
	close(&j, '}');
#undef CHP_COUNTER_FIELD
	open(&j, "cache", '{');
	number(&j, "keys", t->cache.keys);
	number(&j, "keys_max", p->cluster.keys_max);
	number(&j, "tombstones", t->cache.tombstones);
	number(&j, "sessions", t->cache.sessions);
	number(&j, "blocks", t->cache.blocks);
	number(&j, "blocks_max", p->cluster.value_blocks_max);
	number(&j, "collisions", t->cache.collisions);
	if (p->cluster.hosts) {
		percent(&j, "hit_pct", t->protocol.reads - read_misses(&t->protocol), t->protocol.reads);
		number(&j, "evictions", t->cache.evictions);
		number(&j, "pinned", t->cache.pinned);
	}
	close(&j, '}');
	open(&j, "copy", '{');
	boolean(&j, "done", r->copy.done);
	number(&j, "at", r->copy.at);
	number(&j, "total", r->copy.total);
	number(&j, "items", r->copy.items);
	number(&j, "bytes", r->copy.bytes);
	open(&j, "counters", '{');
#define COPY(name, help) number(&j, #name, r->core.copy.name);
	CHP_COPY_COUNTERS(COPY)
#undef COPY
	close(&j, '}');
	close(&j, '}');
	open(&j, "log", '{');
	number(&j, "head", t->log_head);
	number(&j, "next", t->log_next);
	number(&j, "capacity", t->log_capacity);
	close(&j, '}');
	if (p->cluster.hosts)
		shard_host(&j, r);
	open(&j, "links", '{');
	for (uint32_t i = 0; i < p->cluster.n_members; i++) {
		if (i != p->node.node)
			shard_link(&j, t, i);
	}
	close(&j, '}');
#define CHP_COUNTER_FIELD(field, help) number(&j, #field, r->native.field);
	open(&j, "native", '{');
	CHP_NATIVE_COUNTERS(CHP_COUNTER_FIELD)
	close(&j, '}');
#undef CHP_COUNTER_FIELD
	close(&j, '}');
	return j.len;
}

uint32_t
chp_pipeline_status(struct chp_pipeline *p, uint32_t section, char *text, uint32_t cap)
{
	uint32_t shard = section - 1;

	if (section == 0)
		return status_node(p->control, text, cap);
	CHP_ASSERT_OP(shard, <, p->cluster.shards);
	if (chp_pipeline_is_stopped(p) && p->shard[shard].core != NULL) { /* nobody else is there: the last word */
		chp_shard_stats(p->shard[shard].core, &p->control->report[shard].core);
		chp_shard_status(p->shard[shard].core, &p->control->report[shard].status);
		chp_shard_commit_times(p->shard[shard].core, &p->control->report[shard].commit);
		chp_shard_host_status(p->shard[shard].core, chp_clock_ns(&p->clock), &p->control->report[shard].host);
		p->control->report[shard].native = p->shard[shard].native.counters;
	}
	return status_shard(p, shard, &p->control->report[shard], text, cap);
}

/* ------------------------------------------------------------------ requests on the control port */

#define SECTION_INFO UINT32_MAX

static void
make_text(struct chp_control *s, struct chp_text_slot *t)
{
	t->len = t->section == SECTION_INFO
			 ? chp_pipeline_info(s->p, t->text, CHP_TEXT_BYTES)
			 : chp_pipeline_status(s->p, t->section, t->text, CHP_TEXT_BYTES);
	t->len = chp_min_u32(t->len, CHP_TEXT_BYTES);
}

/*
 * The text that a client fetches. Its first part makes it, the others come from the same text, so that
 * they fit together; the client sees by the version if they do not (its place was taken meanwhile).
 */
static struct chp_text_slot *
text_for(struct chp_control *s, const struct chp_address *who, uint32_t section, uint32_t part)
{
	struct chp_text_slot *t = &s->text[0];

	for (uint32_t i = 0; i < CHP_TEXTS; i++) {
		struct chp_text_slot *x = &s->text[i];

		if (x->used != 0 && x->section == section && memcmp(&x->who, who, sizeof(*who)) == 0) {
			if (part == 0)
				make_text(s, x);
			x->used = part == 0 ? ++s->text_used : x->used;
			return x;
		}
		if (x->used < t->used)
			t = x;
	}
	t->who = *who;
	t->section = section;
	t->used = ++s->text_used;
	make_text(s, t);
	return t;
}

static enum chp_status
answer(struct chp_control *s, const struct chp_address *who, const struct chp_request *r,
       struct chp_reply_message *reply, const char **value)
{
	uint32_t section = (uint32_t)(r->arg & 0xffff), part = (uint32_t)(r->arg >> 16 & 0xffff), parts;
	const struct chp_cluster_config *c = &s->p->cluster;
	enum chp_status status = chp_request_check(r, c->key_bytes_max, c->value_bytes_max);
	const struct chp_text_slot *t;

	if (status != CHP_STATUS_OK)
		return status;
	if (r->opcode == CHP_OPCODE_PING)
		return chp_pipeline_is_serving(s->p) ? CHP_STATUS_OK : CHP_STATUS_NOT_SERVING;
	if (r->opcode != CHP_OPCODE_INFO && r->opcode != CHP_OPCODE_STATUS)
		return CHP_STATUS_UNKNOWN_OP;
	if (r->opcode == CHP_OPCODE_STATUS && section > c->shards)
		return CHP_STATUS_BAD_REQUEST;
	t = text_for(s, who, r->opcode == CHP_OPCODE_INFO ? SECTION_INFO : section, part);
	parts = (t->len + CHP_TEXT_PART - 1) / CHP_TEXT_PART;
	reply->number = parts;
	reply->version = t->used;
	if (part >= parts)
		return CHP_STATUS_BAD_REQUEST;
	*value = t->text + part * CHP_TEXT_PART;
	reply->value_total = chp_min_u32(CHP_TEXT_PART, t->len - part * CHP_TEXT_PART);
	return CHP_STATUS_OK;
}

bool
chp_control_request(struct chp_control *s, struct rte_mbuf *m)
{
	uint8_t *frame = rte_pktmbuf_mtod(m, uint8_t *);
	uint8_t *data = chp_frame_payload(frame);
	uint32_t offset = sizeof(struct chp_request_header);
	const struct chp_request *r = chp_request_next(data, chp_frame_payload_len(frame), &offset);
	struct chp_reply_message reply = { 0 };
	struct chp_reply_header header = {
		.prelude = { .magic = CHP_WIRE_MAGIC,
			     .version = CHP_WIRE_VERSION,
			     .kind = CHP_PACKET_REPLY,
			     .cluster_hash = s->p->cluster.hash },
		.session = ((const struct chp_request_header *)(const void *)data)->session,
		.epoch = atomic_load_explicit(&s->p->epoch, memory_order_relaxed),
		.shard = CHP_SHARD_ANY,
		.node = (uint8_t)s->p->node.node,
	};
	struct chp_address who;
	const char *value = NULL;
	uint32_t bytes;

	if (r == NULL)
		return false;
	chp_frame_address(frame, &who);
	reply.opcode = r->opcode;
	reply.request = r->request;
	reply.status = (uint8_t)answer(s, &who, r, &reply, &value);
	bytes = chp_reply_bytes(reply.value_total);
	reply.len = (uint16_t)bytes;
	if (CHP_FRAME_BYTES + sizeof(header) + bytes > m->data_len + (uint32_t)rte_pktmbuf_tailroom(m))
		return false;
	memcpy(frame, &who, sizeof(who));
	memcpy(data, &header, sizeof(header));
	memset(data + sizeof(header), 0, bytes);
	memcpy(data + sizeof(header), &reply, sizeof(reply));
	if (value != NULL)
		memcpy(data + sizeof(header) + sizeof(reply), value, reply.value_total);
	chp_mbuf_set_payload(m, (uint32_t)sizeof(header) + bytes);
	return true;
}

/* ------------------------------------------------------------------ reports */

static void
fill_node_report(const struct chp_control *s, struct chp_node_report *r, uint64_t now_ns)
{
	const struct chp_pipeline *p = s->p;

	r->epoch = atomic_load_explicit(&p->epoch, memory_order_relaxed);
	r->membership = s->membership.state;
	r->lives = s->membership.lives;
	r->lease_ns = lease_left_ns(s, now_ns);
	r->heard = chp_membership_heard(&s->membership, now_ns);
	r->uptime_ns = now_ns - p->start_ns;
	for (uint32_t i = 0; i < CHP_COUNT_COUNT; i++)
		r->count[i] = chp_pipeline_count(p, i);
}

static void
ask_host_stage(struct chp_control *s)
{
	struct chp_host_stage *h = s->p->host;
	uint32_t wanted = atomic_load_explicit(&h->report_wanted, memory_order_relaxed);

	if (atomic_load_explicit(&h->report_done, memory_order_acquire) != wanted)
		return;
	s->channel = h->report;
	atomic_store_explicit(&h->report_wanted, wanted + 1, memory_order_release);
}

void
chp_control_reports(struct chp_control *s, uint64_t now_ns)
{
	struct chp_mailbox *box = &s->mailbox;

	if (atomic_load_explicit(&box->state, memory_order_acquire) == CHP_MAILBOX_ASKED) {
		if (box->shard < s->p->cluster.shards)
			box->shard_report = s->report[box->shard];
		fill_node_report(s, &box->node_report, now_ns);
		atomic_store_explicit(&box->state, CHP_MAILBOX_DONE, memory_order_release);
	}
	if (now_ns < s->report_ns)
		return;
	s->report_ns = now_ns + CHP_REPORT_NS;
	for (uint32_t i = 0; i < s->p->cluster.shards; i++) {
		struct chp_shard_stage *t = &s->p->shard[i];
		uint32_t wanted = atomic_load_explicit(&t->report_wanted, memory_order_relaxed);

		if (atomic_load_explicit(&t->report_done, memory_order_acquire) != wanted)
			continue;
		s->report[i] = t->report;
		atomic_store_explicit(&t->report_wanted, wanted + 1, memory_order_release);
	}
	if (s->p->host != NULL)
		ask_host_stage(s);
}

static void
sleep_us(long us)
{
	struct timespec t = { .tv_nsec = us * 1000 };

	(void)nanosleep(&t, NULL);
}

/* Claim the mailbox, ask, wait for the answer: at most a second each. */
#define MAILBOX_TRIES 5000u
#define MAILBOX_SLEEP_US 200

bool
chp_pipeline_report(struct chp_pipeline *p, uint32_t shard, struct chp_shard_report *shard_report,
		    struct chp_node_report *node_report)
{
	struct chp_mailbox *box = &p->control->mailbox;
	uint32_t tries = 0, expected;

	for (;; sleep_us(MAILBOX_SLEEP_US)) {
		expected = CHP_MAILBOX_FREE;
		if (atomic_compare_exchange_strong_explicit(&box->state, &expected, CHP_MAILBOX_CLAIMED,
							    memory_order_acquire, memory_order_relaxed))
			break;
		if (++tries == MAILBOX_TRIES)
			return false;
	}
	box->shard = shard;
	atomic_store_explicit(&box->state, CHP_MAILBOX_ASKED, memory_order_release);
	for (tries = 0; tries < MAILBOX_TRIES; tries++, sleep_us(MAILBOX_SLEEP_US)) {
		if (atomic_load_explicit(&box->state, memory_order_acquire) != CHP_MAILBOX_DONE)
			continue;
		if (shard_report != NULL)
			*shard_report = box->shard_report;
		if (node_report != NULL)
			*node_report = box->node_report;
		atomic_store_explicit(&box->state, CHP_MAILBOX_FREE, memory_order_release);
		return true;
	}
	/* Control answers within one iteration or not at all: taking the question back is the same as FREE. */
	expected = CHP_MAILBOX_ASKED;
	if (!atomic_compare_exchange_strong_explicit(&box->state, &expected, CHP_MAILBOX_FREE,
						     memory_order_acq_rel, memory_order_acquire))
		atomic_store_explicit(&box->state, CHP_MAILBOX_FREE, memory_order_release);
	return false;
}
