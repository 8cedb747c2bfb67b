/* SPDX-License-Identifier: BSD-3-Clause */
#include "world.h"

#include "base/mutation.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS UINT64_C(1000000)

/* A healed cluster must have answered everything and be at rest within this. */
#define LIVENESS_NS (UINT64_C(120000) * MS)
#define FAULTS_EVERY_NS MS
/* Faults end after this even if few operations were possible. */
#define FAULTS_NS_MAX (UINT64_C(1000) * MS)

void
sim_fail(struct sim_world *w, const char *format, ...)
{
	va_list args;

	if (w->failure[0] != '\0')
		return;
	va_start(args, format);
	vsnprintf(w->failure, sizeof(w->failure), format, args);
	va_end(args);
}

void
sim_trace(const struct sim_world *w, const char *format, ...)
{
	va_list args;

	if (!w->config.trace)
		return;
	printf("%12.3f us  ", (double)w->now_ns / 1000);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

/* ------------------------------------------------------------------ configuration from a seed */

static uint32_t
one_of(struct chp_random *r, const uint32_t *choices, uint32_t n)
{
	return choices[chp_random_below(r, n)];
}
#define ONE_OF(r, ...) \
	one_of(r, (const uint32_t[]){ __VA_ARGS__ }, (uint32_t)CHP_ARRAY_LEN(((const uint32_t[]){ __VA_ARGS__ })))

static void
draw_faults(struct sim_config *c, struct chp_random *r)
{
	c->latency_ns_min = 2000;
	c->latency_ns_max = chp_random_range(r, 3000, 60000);
	c->delay_ns_max = chp_random_range(r, 1, 4) * MS;
	if (chp_random_chance(r, 900000)) {
		c->drop_ppm = ONE_OF(r, 0, 1000, 20000, 50000, 200000);
		c->duplicate_ppm = ONE_OF(r, 0, 1000, 50000, 200000);
		c->corrupt_ppm = ONE_OF(r, 0, 0, 1000, 20000);
		c->delay_ppm = ONE_OF(r, 0, 1000, 20000, 100000);
	}
	c->pause_ppm = ONE_OF(r, 0, 0, 5000, 30000);
	c->partition_ppm = ONE_OF(r, 0, 0, 5000, 30000);
	c->reset_ppm = ONE_OF(r, 0, 0, 2000, 20000);
	c->view_ppm = ONE_OF(r, 0, 0, 2000, 20000, 100000);
	c->crash_ppm = ONE_OF(r, 0, 0, 0, 5000);
	c->max_crashes = (c->n_nodes - 1) / 2;
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
		.session_idle_ns = ONE_OF(r, 30, 5000, 5000, 5000) * MS,
		.credits = ONE_OF(r, 1, 2, 4, 16),
		.link_window = ONE_OF(r, 1, 2, 4, 16, 64),
		.rto_ns_min = ONE_OF(r, 100000, 500000, 2000000),
		.rto_ns_max = 20 * MS,
		.ack_delay_ns = ONE_OF(r, 0, 20000, 200000),
		.link_down_ns = CHP_NEVER,
	};
	if (chp_random_chance(r, 300000))
		s->link_down_ns = chp_random_range(r, 30, 200) * MS;
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
	c->shard.keys_max = ONE_OF(r, 14, 20);
	c->shard.credits = ONE_OF(r, 4, 16);
	c->shard.session_idle_ns = 5000 * MS;
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
	c->ops = ONE_OF(&r, 100, 200, 400);
	c->value_bytes_typical = ONE_OF(&r, 12, 12, 32, 40);
	c->delete_ppm = ONE_OF(&r, 0, 0, 100000, 300000);
	draw_shard(c, &r);
	c->depth = (uint32_t)chp_random_range(&r, 1, chp_min_u32(SIM_DEPTH_MAX, c->shard.session_window));
	draw_faults(c, &r);
	if (seed % 4 == 3)
		draw_churn(c, &r);
}

/* ------------------------------------------------------------------ events */

static bool
earlier(const struct sim_event *a, const struct sim_event *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

void
sim_schedule(struct sim_world *w, uint64_t at_ns, enum sim_event_kind kind, uint32_t who,
	     struct sim_packet *packet)
{
	struct sim_event e = { .at_ns = chp_max_u64(at_ns, w->now_ns),
			       .order = w->order++,
			       .kind = kind,
			       .who = who,
			       .packet = packet };
	uint32_t i = w->n_events++;

	if (w->n_events > w->cap_events) {
		w->cap_events = w->cap_events == 0 ? 1024 : 2 * w->cap_events;
		w->heap = realloc(w->heap, w->cap_events * sizeof(*w->heap));
		CHP_ASSERT(w->heap != NULL);
	}
	while (i > 0 && earlier(&e, &w->heap[(i - 1) / 2])) {
		w->heap[i] = w->heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	w->heap[i] = e;
}

static struct sim_event
next_event(struct sim_world *w)
{
	struct sim_event first = w->heap[0], last = w->heap[--w->n_events];
	uint32_t i = 0;

	for (;;) {
		uint32_t child = 2 * i + 1;

		if (child >= w->n_events)
			break;
		if (child + 1 < w->n_events && earlier(&w->heap[child + 1], &w->heap[child]))
			child++;
		if (!earlier(&w->heap[child], &last))
			break;
		w->heap[i] = w->heap[child];
		i = child;
	}
	w->heap[i] = last;
	return first;
}

struct sim_packet *
sim_packet_take(struct sim_world *w)
{
	struct sim_packet *p = w->free_packets;

	if (p != NULL) {
		w->free_packets = p->next;
		return p;
	}
	p = malloc(sizeof(*p));
	CHP_ASSERT(p != NULL);
	return p;
}

void
sim_packet_give(struct sim_world *w, struct sim_packet *p)
{
	p->next = w->free_packets;
	w->free_packets = p;
}

uint64_t
sim_latency(struct sim_world *w)
{
	uint64_t ns = chp_random_range(&w->random, w->config.latency_ns_min, w->config.latency_ns_max);

	if (!w->healed && chp_random_chance(&w->random, w->config.delay_ppm))
		ns += chp_random_below(&w->random, w->config.delay_ns_max);
	return ns;
}

/* ------------------------------------------------------------------ network */

/* Put a packet on its way: lost, doubled, changed, late. Keeps the packet. */
static void
network_send(struct sim_world *w, struct sim_packet *p, enum sim_event_kind kind, uint32_t who)
{
	struct sim_packet *copy;
	bool faults = !w->healed;

	if (faults && chp_random_chance(&w->random, w->config.drop_ppm)) {
		sim_packet_give(w, p);
		return;
	}
	if (faults && chp_random_chance(&w->random, w->config.duplicate_ppm)) {
		copy = sim_packet_take(w);
		memcpy(copy, p, sizeof(*copy));
		sim_schedule(w, w->now_ns + sim_latency(w), kind, who, copy);
	}
	/* Only packets between replicas have a checksum of their own; clients have UDP's. */
	if (faults && kind == SIM_PACKET && chp_random_chance(&w->random, w->config.corrupt_ppm))
		p->data[chp_random_below(&w->random, p->len)] ^=
			(uint8_t)(1u << chp_random_below(&w->random, 8));
	sim_schedule(w, w->now_ns + sim_latency(w), kind, who, p);
}

static void
run_soon(struct sim_world *w, uint32_t n, uint64_t at_ns)
{
	struct sim_node *node = &w->node[n];

	at_ns = chp_max_u64(at_ns, node->paused_until_ns);
	if (at_ns >= node->run_at_ns)
		return;
	node->run_at_ns = at_ns;
	sim_schedule(w, at_ns, SIM_RUN, n, NULL);
}

static void
packet_arrives(struct sim_world *w, uint32_t n, struct sim_packet *p)
{
	struct sim_node *node = &w->node[n];

	if (!node->alive || node->n_peer == SIM_INBOX_MAX ||
	    w->cut_until_ns[p->from][n] > w->now_ns ||
	    chp_peer_check(p->data, p->len, w->config.shard.cluster_hash, w->config.n_nodes, 1) !=
		    CHP_PACKET_OK) {
		sim_packet_give(w, p);
		return;
	}
	node->peer_inbox[node->n_peer++] = p;
	run_soon(w, n, w->now_ns + chp_random_below(&w->random, 3000));
}

static void
datagram_arrives(struct sim_world *w, uint32_t n, struct sim_packet *p)
{
	struct sim_node *node = &w->node[n];

	if (!node->alive || node->n_client == SIM_INBOX_MAX) {
		sim_packet_give(w, p);
		return;
	}
	node->client_inbox[node->n_client++] = p;
	run_soon(w, n, w->now_ns + chp_random_below(&w->random, 3000));
}

/* ------------------------------------------------------------------ a node runs */

struct batch {
	struct chp_packet packet[SIM_INBOX_MAX];
	struct chp_op op[CHP_BATCH_MAX];
	struct chp_buffer buffer[SIM_BUFFERS_MAX];
	struct chp_native_datagram datagram[SIM_BUFFERS_MAX];
	struct sim_packet *out[SIM_BUFFERS_MAX];
	struct sim_packet *reply[SIM_BUFFERS_MAX];
};

/* Parse datagrams until the batch of operations is full. Returns operations; *used datagrams are done. */
static uint32_t
parse_clients(struct sim_world *w, struct sim_node *node, struct batch *b, uint32_t cap, uint32_t *used)
{
	uint32_t n = 0;

	*used = 0;
	while (*used < node->n_client && n < cap && chp_native_room(&node->native) > cap) {
		struct sim_packet *p = node->client_inbox[*used];
		uint8_t address[20] = { 0 };

		memcpy(address, &p->from, sizeof(p->from));
		if (chp_request_header_check(p->data, p->len, w->config.shard.cluster_hash) == CHP_PACKET_OK)
			n += chp_native_parse(&node->native, p->data, p->len, &node->client_offset, address,
					      &b->op[n], cap - n);
		else
			node->client_offset = p->len;
		if (node->client_offset < p->len)
			break;
		node->client_offset = 0;
		(*used)++;
	}
	return n;
}

static void
drop_first(struct sim_world *w, struct sim_packet **inbox, uint32_t *n, uint32_t used)
{
	for (uint32_t i = 0; i < used; i++)
		sim_packet_give(w, inbox[i]);
	memmove(inbox, inbox + used, (*n - used) * sizeof(*inbox));
	*n -= used;
}

static void
send_effects(struct sim_world *w, uint32_t n, struct batch *b, const struct chp_effects *fx, uint32_t buffers)
{
	struct sim_node *node = &w->node[n];

	for (uint32_t i = 0; i < buffers; i++) {
		struct sim_packet *p = b->out[i];

		if (i >= fx->n_used) {
			sim_packet_give(w, p);
			continue;
		}
		p->from = n;
		p->to = b->buffer[i].peer;
		p->len = b->buffer[i].len;
		chp_peer_seal(p->data, p->len);
		network_send(w, p, SIM_PACKET, p->to);
	}
	for (uint32_t i = 0; i < node->native.n_datagrams; i++) {
		struct sim_packet *p = b->reply[i];

		if (i >= node->native.n_used) {
			sim_packet_give(w, p);
			continue;
		}
		p->from = n;
		p->len = b->datagram[i].len;
		memcpy(&p->to, b->datagram[i].address, sizeof(p->to));
		network_send(w, p, SIM_REPLY, p->to);
	}
}

static void
node_run(struct sim_world *w, uint32_t n)
{
	static struct batch b;
	struct sim_node *node = &w->node[n];
	const uint32_t buffers = (uint32_t)chp_random_range(&w->random, 1, SIM_BUFFERS_MAX);
	const uint32_t replies = (uint32_t)chp_random_range(&w->random, 2, SIM_BUFFERS_MAX);
	const uint32_t packets = (uint32_t)chp_random_range(&w->random, 0, node->n_peer);
	struct chp_now now = { .ns = w->now_ns, .lease_until_ns = CHP_NEVER };
	struct chp_events in = { .packet = b.packet, .n_packets = packets, .op = b.op };
	struct chp_effects fx = { .buffer = b.buffer, .n_buffers = buffers };
	uint32_t datagrams;

	for (uint32_t i = 0; i < packets; i++)
		b.packet[i] = (struct chp_packet){ node->peer_inbox[i]->data, node->peer_inbox[i]->len };
	for (uint32_t i = 0; i < buffers; i++) {
		b.out[i] = sim_packet_take(w);
		b.buffer[i] = (struct chp_buffer){ .data = b.out[i]->data };
	}
	for (uint32_t i = 0; i < replies; i++) {
		b.reply[i] = sim_packet_take(w);
		b.datagram[i] = (struct chp_native_datagram){ .data = b.reply[i]->data, .cap = SIM_PACKET_BYTES };
	}
	node->native.datagram = b.datagram;
	node->native.n_datagrams = replies;
	node->native.n_used = 0;
	node->native.epoch = chp_shard_epoch(node->shard);
	if (node->next_view.epoch != 0)
		in.view = &node->next_view;
	in.n_ops = parse_clients(w, node, &b, replies / 2, &datagrams);
	fx.reply = chp_native_reply;
	fx.frontend = &node->native;
	fx.reply_room = chp_native_room(&node->native);
	chp_shard_run(node->shard, &now, &in, &fx);
	chp_shard_check(node->shard);
	node->next_view.epoch = 0;
	w->runs++;
	drop_first(w, node->peer_inbox, &node->n_peer, packets);
	drop_first(w, node->client_inbox, &node->n_client, datagrams);
	send_effects(w, n, &b, &fx, buffers);
	if (node->n_peer > 0 || node->n_client > 0)
		fx.wake_ns = 0;
	if (fx.wake_ns != CHP_NEVER)
		run_soon(w, n, chp_max_u64(fx.wake_ns, w->now_ns + 500));
}

/* ------------------------------------------------------------------ faults */

static void
new_view(struct sim_world *w)
{
	w->view.epoch++;
	sim_trace(w, "view %" PRIu64 " live %" PRIx64, w->view.epoch, w->view.voters);
	for (uint32_t n = 0; n < w->config.n_nodes; n++)
		if (w->node[n].alive)
			sim_schedule(w, w->now_ns + chp_random_below(&w->random, MS), SIM_VIEW, n, NULL);
}

static void
crash(struct sim_world *w, uint32_t n)
{
	struct sim_node *node = &w->node[n];

	sim_trace(w, "crash %u", n);
	w->crashes++;
	node->alive = false;
	drop_first(w, node->peer_inbox, &node->n_peer, node->n_peer);
	drop_first(w, node->client_inbox, &node->n_client, node->n_client);
	w->view.voters &= ~chp_bit(n);
	new_view(w);
}

static void
draw_fault_events(struct sim_world *w)
{
	const struct sim_config *c = &w->config;
	struct chp_random *r = &w->random;
	uint32_t a = (uint32_t)chp_random_below(r, c->n_nodes), b = (uint32_t)chp_random_below(r, c->n_nodes);

	if (chp_random_chance(r, c->pause_ppm)) {
		w->node[a].paused_until_ns = w->now_ns + chp_random_below(r, 50 * MS);
		sim_trace(w, "pause %u", a);
	}
	if (a != b && chp_random_chance(r, c->partition_ppm)) {
		w->cut_until_ns[a][b] = w->now_ns + chp_random_below(r, 60 * MS);
		if (chp_random_chance(r, 500000))
			w->cut_until_ns[b][a] = w->cut_until_ns[a][b];
		sim_trace(w, "cut %u %u", a, b);
	}
	if (a != b && w->node[a].alive && w->node[b].alive && chp_random_chance(r, c->reset_ppm)) {
		sim_trace(w, "reset %u-%u", a, b);
		chp_shard_reset_link(w->node[a].shard, b);
		run_soon(w, a, w->now_ns);
	}
	if (chp_random_chance(r, c->view_ppm))
		new_view(w);
	if (w->crashes < c->max_crashes && w->node[a].alive && chp_random_chance(r, c->crash_ppm))
		crash(w, a);
	sim_schedule(w, w->now_ns + FAULTS_EVERY_NS, SIM_FAULTS, 0, NULL);
}

static void
heal(struct sim_world *w)
{
	sim_trace(w, "heal");
	w->healed = true;
	memset(w->cut_until_ns, 0, sizeof(w->cut_until_ns));
	for (uint32_t n = 0; n < w->config.n_nodes; n++) {
		w->node[n].paused_until_ns = 0;
		w->node[n].run_at_ns = CHP_NEVER;
		if (w->node[n].alive)
			run_soon(w, n, w->now_ns);
	}
}

/* ------------------------------------------------------------------ the world */

static bool
world_init(struct sim_world *w, const struct sim_config *c)
{
	memset(w, 0, sizeof(*w));
	w->config = *c;
	w->random.state = c->seed ^ UINT64_C(0x5bd1e9955bd1e995);
	chp_history_init(&w->history);
	w->view.epoch = 1;
	for (uint32_t n = 0; n < c->n_nodes; n++) {
		struct chp_shard_config sc = c->shard;
		char name[16];
		int err = 0;

		snprintf(name, sizeof(name), "n%u", n);
		sc.self = n;
		sc.name = name;
		w->node[n].shard = chp_shard_create(&sc, &err);
		CHP_ASSERT(w->node[n].shard != NULL);
		w->node[n].alive = true;
		w->node[n].run_at_ns = CHP_NEVER;
		w->node[n].native = (struct chp_native){ .cluster_hash = sc.cluster_hash,
							 .shards = 1,
							 .hash_seed = sc.hash_seed,
							 .key_bytes_max = sc.key_bytes_max,
							 .value_bytes_max = sc.value_bytes_max,
							 .node = n };
		w->view.voters |= chp_bit(n);
		w->view.incarnation[n] = chp_random_u64(&w->random) | 1;
		w->view.writer[n] = (uint16_t)(n + 1);
		sim_schedule(w, chp_random_below(&w->random, MS), SIM_VIEW, n, NULL);
	}
	for (uint32_t i = 0; i < c->n_clients; i++)
		sim_client_init(w, i);
	sim_schedule(w, MS, SIM_FAULTS, 0, NULL);
	return true;
}

static void
world_fini(struct sim_world *w)
{
	for (uint32_t n = 0; n < w->config.n_nodes; n++) {
		drop_first(w, w->node[n].peer_inbox, &w->node[n].n_peer, w->node[n].n_peer);
		drop_first(w, w->node[n].client_inbox, &w->node[n].n_client, w->node[n].n_client);
		chp_shard_destroy(w->node[n].shard);
	}
	for (uint32_t i = 0; i < w->n_events; i++)
		free(w->heap[i].packet);
	while (w->free_packets != NULL) {
		struct sim_packet *p = w->free_packets;

		w->free_packets = p->next;
		free(p);
	}
	free(w->heap);
	chp_history_fini(&w->history);
}

static void
handle_event(struct sim_world *w, const struct sim_event *e)
{
	switch (e->kind) {
	case SIM_RUN: {
		struct sim_node *node = &w->node[e->who];

		if (node->run_at_ns != e->at_ns || !node->alive)
			break; /* a later decision replaced it */
		node->run_at_ns = CHP_NEVER;
		if (node->paused_until_ns > w->now_ns)
			run_soon(w, e->who, node->paused_until_ns);
		else
			node_run(w, e->who);
		break;
	}
	case SIM_PACKET:
		packet_arrives(w, e->who, e->packet);
		break;
	case SIM_DATAGRAM:
		datagram_arrives(w, e->who, e->packet);
		break;
	case SIM_REPLY:
		sim_client_reply(w, e->who, e->packet);
		sim_packet_give(w, e->packet);
		break;
	case SIM_CLIENT:
		if (w->client[e->who].wake_ns == e->at_ns)
			sim_client_wake(w, e->who);
		break;
	case SIM_VIEW:
		if (w->node[e->who].alive &&
		    w->view.epoch > chp_shard_epoch(w->node[e->who].shard)) {
			w->node[e->who].next_view = w->view;
			run_soon(w, e->who, w->now_ns);
		}
		break;
	case SIM_FAULTS:
		if (!w->healed)
			draw_fault_events(w);
		break;
	}
}

static bool
at_rest(const struct sim_world *w)
{
	if (!sim_clients_done(w))
		return false;
	for (uint32_t n = 0; n < w->config.n_nodes; n++)
		if (w->node[n].alive && (!chp_shard_is_idle(w->node[n].shard) ||
					 chp_shard_epoch(w->node[n].shard) != w->view.epoch))
			return false;
	return true;
}

static void
sum_results(struct sim_world *w, struct sim_result *result)
{
	memset(result, 0, sizeof(*result));
	result->runs = w->runs;
	result->undecided = w->undecided;
	result->ops = w->history.n_ops;
	for (uint32_t n = 0; n < w->config.n_nodes; n++) {
		struct chp_shard_stats stats;

		chp_shard_stats(w->node[n].shard, &stats);
#define SUM(name, help) result->protocol.name += stats.protocol.name;
		CHP_PROTOCOL_COUNTERS(SUM)
#undef SUM
		for (uint32_t p = 0; p < w->config.n_nodes; p++) {
			result->retransmits += stats.link[p].retransmits;
			result->resets += stats.link[p].resets;
		}
		result->digest = result->digest * 31 + chp_shard_digest(w->node[n].shard);
	}
	for (uint32_t i = 0; i < w->history.n_ops; i++)
		result->ok += w->history.op[i].outcome == CHP_HISTORY_OK;
	result->digest = result->digest * 31 + w->now_ns + w->runs;
}

bool
sim_run(const struct sim_config *c, struct sim_result *result, char failure[512])
{
	static struct sim_world w;
	uint64_t deadline_ns = CHP_NEVER;

	world_init(&w, c);
	while (w.failure[0] == '\0') {
		struct sim_event e;

		CHP_ASSERT_OP(w.n_events, >, 0u);
		e = next_event(&w);
		w.now_ns = e.at_ns;
		handle_event(&w, &e);
		if (!w.healed && (w.issued >= c->ops || w.now_ns > FAULTS_NS_MAX)) {
			heal(&w);
			deadline_ns = w.now_ns + LIVENESS_NS;
		}
		if (w.runs % 64 == 0 && e.kind == SIM_RUN)
			sim_check_agreement(&w);
		if (w.healed && e.kind == SIM_RUN && at_rest(&w))
			break;
		if (w.now_ns > deadline_ns) {
			char text[256];
			struct chp_text t = chp_text_of(text, sizeof(text));

			for (uint32_t n = 0; n < c->n_nodes; n++) {
				chp_text_add(&t, " [%u]%s%s ", n, w.node[n].alive ? "" : " dead",
					     chp_shard_is_idle(w.node[n].shard) ? " idle" : "");
				chp_shard_dump(w.node[n].shard, NULL, &t);
			}
			sim_fail(&w, "liveness: not at rest %" PRIu64 " s after healing:%s",
				 LIVENESS_NS / (1000 * MS), text);
		}
	}
	if (w.failure[0] == '\0')
		sim_check_end(&w);
	sum_results(&w, result);
	memcpy(failure, w.failure, sizeof(w.failure));
	world_fini(&w);
	return failure[0] == '\0';
}
