/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A process: the control stage with the membership, the shard stage with a shard and its frontend, what one tells
 * the other, and the clock of the machine below.
 */
#include "host.h"
#include "kind.h"

#include "base/mutation.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The least time between two runs of a stage. */
#define STAGE_NS UINT64_C(500)
/* From a packet's arrival to the stage that takes it, at most. */
#define TAKE_NS_MAX UINT64_C(3000)

/* What a shard stage works with from taking events to sending. */
struct sim_batch {
	struct chp_packet packet[SIM_INBOX_MAX];
	struct chp_op op[CHP_BATCH_MAX];
	struct chp_buffer buffer[SIM_BUFFERS_MAX];
	struct chp_native_datagram datagram[SIM_BUFFERS_MAX];
	struct sim_packet *out[SIM_BUFFERS_MAX];
	struct sim_packet *reply[SIM_BUFFERS_MAX];
	struct chp_effects fx;
	uint32_t buffers;
};

/* ------------------------------------------------------------------ clocks */

uint64_t
sim_node_clock(const struct sim_world *w, uint32_t n)
{
	const struct sim_node *node = &w->node[n];
	const int64_t ns = (int64_t)(w->now_ns - node->clock_base_ns);

	return node->clock_offset_ns + (uint64_t)(ns + ns * node->clock_ppm / 1000000);
}

/* The true time at which the node's clock will show `ns`, or a little later. */
static uint64_t
true_time(const struct sim_world *w, uint32_t n, uint64_t ns)
{
	const struct sim_node *node = &w->node[n];

	if (ns == CHP_NEVER)
		return CHP_NEVER;
	if (ns <= sim_node_clock(w, n))
		return w->now_ns;
	ns -= node->clock_offset_ns;
	CHP_ASSERT_OP(ns, <, UINT64_C(1) << 43);
	return node->clock_base_ns + ns * 1000000 / (uint64_t)(1000000 + node->clock_ppm) + 2;
}

void
sim_node_set_rate(struct sim_world *w, uint32_t n, int32_t ppm)
{
	struct sim_node *node = &w->node[n];

	node->clock_offset_ns = sim_node_clock(w, n);
	node->clock_base_ns = w->now_ns;
	node->clock_ppm = ppm;
}

/* ------------------------------------------------------------------ when a stage runs */

static void
stage_soon(struct sim_world *w, uint32_t n, struct sim_stage *stage, enum sim_event_kind kind, uint64_t at_ns)
{
	if (at_ns == CHP_NEVER || !w->node[n].alive)
		return;
	at_ns = chp_max_u64(chp_max_u64(at_ns, stage->paused_until_ns), w->now_ns);
	if (at_ns >= stage->at_ns)
		return;
	stage->at_ns = at_ns;
	sim_schedule(w, at_ns, kind, n, NULL);
}

void
sim_node_run_soon(struct sim_world *w, uint32_t n, uint64_t at_ns)
{
	if (w->node[n].sending_until_ns == 0) /* else when that is done */
		stage_soon(w, n, &w->node[n].run, SIM_RUN, at_ns);
}

void
sim_node_control_soon(struct sim_world *w, uint32_t n, uint64_t at_ns)
{
	stage_soon(w, n, &w->node[n].control, SIM_CONTROL, at_ns);
}

/* Whether an event is the one that a stage waits for, and nothing holds the stage up. */
static bool
stage_begins(struct sim_world *w, uint32_t n, struct sim_stage *stage, enum sim_event_kind kind, uint64_t at_ns)
{
	if (!w->node[n].alive || stage->at_ns != at_ns)
		return false; /* a later decision replaced it */
	stage->at_ns = CHP_NEVER;
	if (stage->paused_until_ns <= w->now_ns)
		return true;
	stage_soon(w, n, stage, kind, stage->paused_until_ns);
	return false;
}

void
sim_node_arrives(struct sim_world *w, uint32_t n, enum sim_event_kind kind, struct sim_packet *p)
{
	struct sim_node *node = &w->node[n];
	const bool to_shard = kind == SIM_PACKET || kind == SIM_FROM_HOST;
	struct sim_packet **inbox = to_shard		       ? node->peer_inbox
				    : kind == SIM_MEMBERSHIP ? node->control_inbox
							     : node->client_inbox;
	uint32_t *count = to_shard		   ? &node->n_peer
			  : kind == SIM_MEMBERSHIP ? &node->n_control
						   : &node->n_client;
	const uint64_t at_ns = w->now_ns + chp_random_below(&w->random, TAKE_NS_MAX);

	if (!node->alive || *count == SIM_INBOX_MAX) {
		sim_packet_give(w, p);
		return;
	}
	inbox[(*count)++] = p;
	if (kind == SIM_MEMBERSHIP)
		sim_node_control_soon(w, n, at_ns);
	else
		sim_node_run_soon(w, n, at_ns);
}

static void
drop_first(struct sim_world *w, struct sim_packet **inbox, uint32_t *n, uint32_t used)
{
	for (uint32_t i = 0; i < used; i++)
		sim_packet_give(w, inbox[i]);
	memmove(inbox, inbox + used, (*n - used) * sizeof(*inbox));
	*n -= used;
}

/* ------------------------------------------------------------------ the control stage */

/* The shard stage runs behind the control stage. */
static void
tell_shard(struct sim_world *w, uint32_t n)
{
	struct sim_node *node = &w->node[n];

	if (node->view_at_ns <= w->now_ns) /* else news is under way and will carry this too */
		node->view_at_ns = w->now_ns + chp_random_below(&w->random, w->config.lag_ns_max);
	sim_node_run_soon(w, n, node->view_at_ns);
}

/* A view for the shard stage: behind the others, if it sees them all, otherwise instead of them. */
static void
add_view(struct sim_world *w, uint32_t n, uint32_t same)
{
	struct sim_node *node = &w->node[n];

	node->next_epoch = sim_shard_epoch(w, node->view.epoch, same);
	if (node->n_next == SIM_VIEWS_MAX) {
		memmove(node->next, node->next + 1, (SIM_VIEWS_MAX - 1) * sizeof(node->next[0]));
		node->n_next--;
	}
	if (!w->config.every_view)
		node->n_next = 0;
	node->next[node->n_next] = node->view;
	node->next[node->n_next++].epoch = node->next_epoch;
}

void
sim_node_same_view(struct sim_world *w, uint32_t n)
{
	struct sim_node *node = &w->node[n];

	if (!node->alive || node->view.epoch == 0 || node->view.epoch != w->same_epoch ||
	    node->next_epoch >= sim_shard_epoch(w, node->view.epoch, w->same_views))
		return;
	sim_trace(w, "node %u is given the same view for the %u. time", n, w->same_views);
	add_view(w, n, w->same_views);
	tell_shard(w, n);
}

/* What changed goes to the shard stage, which sees it some time later. */
static void
publish(struct sim_world *w, uint32_t n)
{
	struct sim_node *node = &w->node[n];
	const struct chp_view *v = chp_membership_view(&node->membership);
	const uint64_t epoch = v == NULL ? 0 : v->epoch;
	const bool born = node->lives != node->membership.lives;

	node->lease_until_ns = chp_membership_lease_until_ns(&node->membership);
	sim_watch_lease(w, n);
	if (chp_membership_founding(&node->membership) != node->founding) {
		node->founding = chp_membership_founding(&node->membership);
		tell_shard(w, n);
	}
	if (!born && epoch == node->view.epoch)
		return;
	if (born)
		sim_trace(w, "node %u is a new incarnation", n);
	node->lives = node->membership.lives;
	node->view.epoch = 0;
	if (born)
		node->n_next = 0;
	if (epoch != 0) {
		/* Whoever comes late to an epoch may see its first view or its last. */
		const bool last = v->epoch == w->same_epoch && (w->healed || chp_random_chance(&w->random, 500000));

		node->view = *v;
		add_view(w, n, last ? w->same_views : 0);
		sim_watch_view(w, n);
	}
	tell_shard(w, n);
}

/* False: a fault ended the process at one of its packets. */
static bool
control_transmit(struct sim_world *w, uint32_t n)
{
	struct sim_node *node = &w->node[n];

	for (;;) {
		struct sim_packet *p = sim_packet_take(w);

		p->from = n;
		p->len = chp_membership_transmit(&node->membership, sim_node_clock(w, n), p->data, &p->to);
		if (p->len == 0) {
			sim_packet_give(w, p);
			return true;
		}
		if (!sim_faults_on_send(w, n, p)) {
			sim_packet_give(w, p);
			return false;
		}
		sim_watch_proposal(w, p);
		sim_network_send(w, p, SIM_MEMBERSHIP, p->to);
	}
}

static void
control_reports(struct sim_world *w, uint32_t n)
{
	struct chp_membership *m = &w->node[n].membership;
	const char *line;

	while ((line = chp_membership_report(m)) != NULL)
		sim_trace(w, "node %u: %s", n, line);
	if (m->state == CHP_MEMBERSHIP_REFUSED)
		sim_fail(w, "node %u was refused for good: %s", n, m->reason);
}

/* What the shard says of its host and its copy, if it is the one of the present life: a new life begins anew. */
static void
hear_shard(struct sim_world *w, uint32_t n, uint64_t now_ns)
{
	struct sim_node *node = &w->node[n];
	struct chp_membership *m = &node->membership;
	struct chp_membership_host host = { 0 };
	struct chp_host_status status;

	if (node->shard_lives != m->lives)
		return;
	if (w->config.shard.has_host) {
		chp_shard_host_status(node->shard, now_ns, &node->told);
		status = node->told;
		status.epoch = sim_membership_epoch(w, status.epoch);
		status.life = sim_membership_epoch(w, status.life);
		chp_membership_host_add(&host, &status);
		chp_membership_set_host(m, now_ns, &host);
		if (chp_membership_view(m) != NULL && node->shard_lives == m->lives)
			chp_membership_set_ready(m, now_ns, node->copied_life == m->lives);
	} else if (node->copied_life == m->lives) {
		chp_membership_set_ready(m, now_ns, true);
	}
}

/* The control stage looks at what is new of the host. */
static void
tell_control(struct sim_world *w, uint32_t n)
{
	const struct chp_host_status *told = &w->node[n].told;
	struct chp_host_status now;

	if (!w->config.shard.has_host)
		return;
	chp_shard_host_status(w->node[n].shard, sim_node_clock(w, n), &now);
	if (now.state != told->state || now.store_state != told->store_state || now.epoch != told->epoch ||
	    now.life != told->life || now.has_record != told->has_record)
		sim_node_control_soon(w, n, w->now_ns + STAGE_NS);
}

void
sim_node_control(struct sim_world *w, uint32_t n, uint64_t at_ns)
{
	struct sim_node *node = &w->node[n];
	struct chp_membership *m = &node->membership;
	uint32_t taken;
	uint64_t now_ns;

	if (!stage_begins(w, n, &node->control, SIM_CONTROL, at_ns))
		return;
	taken = node->n_control - (chp_random_chance(&w->random, 50000) ? node->n_control / 2 : 0);
	now_ns = sim_node_clock(w, n);
	for (uint32_t i = 0; i < taken; i++)
		chp_membership_receive(m, now_ns, node->control_inbox[i]->data, node->control_inbox[i]->len,
				       node->control_inbox[i]->from);
	drop_first(w, node->control_inbox, &node->n_control, taken);
	hear_shard(w, n, now_ns);
	chp_membership_tick(m, now_ns);
	chp_membership_check(m);
	if (!control_transmit(w, n))
		return;
	publish(w, n);
	control_reports(w, n);
	sim_node_control_soon(w, n, node->n_control > 0 ? w->now_ns + STAGE_NS
							: chp_max_u64(true_time(w, n, chp_membership_wake_ns(m)),
								      w->now_ns + STAGE_NS));
}

/* ------------------------------------------------------------------ the shard stage */

static void
create_shard(struct sim_world *w, uint32_t n)
{
	struct sim_node *node = &w->node[n];
	struct chp_shard_config c = w->config.shard;
	char name[16];
	int err = 0;

	snprintf(name, sizeof(name), "n%u", n);
	c.self = n;
	c.name = name;
	if (c.has_host)
		c.incarnation = chp_random_u64(&w->random) | 1;
	node->shard = chp_shard_create(&c, &err);
	CHP_ASSERT(node->shard != NULL);
	node->shard_lives = node->lives;
	node->shard_view.epoch = 0;
	node->copied_life = 0;
	node->resume_ns = CHP_NEVER;
	w->config.kind->born(w, n);
	if (c.has_host)
		sim_backed_born(w, n);
}

void
sim_node_collect(struct sim_world *w, uint32_t n)
{
	struct chp_shard_stats stats;

	if (w->node[n].shard == NULL)
		return;
	chp_shard_stats(w->node[n].shard, &stats);
#define SUM(name, help) w->protocol.name += stats.protocol.name;
	CHP_PROTOCOL_COUNTERS(SUM)
#undef SUM
#define SUM(name, help) w->host_counters.name += stats.host.name;
	CHP_HOST_COUNTERS(SUM)
#undef SUM
	w->evictions += stats.cache.evictions;
	for (uint32_t p = 0; p < w->config.n_nodes; p++) {
		w->retransmits += stats.link[p].retransmits;
		w->resets += stats.link[p].resets;
	}
}

static void
destroy_shard(struct sim_world *w, uint32_t n)
{
	sim_node_collect(w, n);
	chp_shard_destroy(w->node[n].shard);
	w->node[n].shard = NULL;
}

/* Parse datagrams until the batch of operations is full. Returns operations; *used datagrams are done. */
static uint32_t
parse_clients(struct sim_world *w, struct sim_node *node, struct sim_batch *b, uint32_t cap, uint32_t *used)
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
prepare_batch(struct sim_world *w, struct sim_node *node, uint32_t packets)
{
	struct sim_batch *b = node->batch;
	const uint32_t replies = (uint32_t)chp_random_range(&w->random, 2, SIM_BUFFERS_MAX);

	b->buffers = (uint32_t)chp_random_range(&w->random, 1, SIM_BUFFERS_MAX);
	for (uint32_t i = 0; i < packets; i++)
		b->packet[i] = (struct chp_packet){ node->peer_inbox[i]->data, node->peer_inbox[i]->len };
	for (uint32_t i = 0; i < b->buffers; i++) {
		b->out[i] = sim_packet_take(w);
		b->buffer[i] = (struct chp_buffer){ .data = b->out[i]->data };
	}
	for (uint32_t i = 0; i < replies; i++) {
		b->reply[i] = sim_packet_take(w);
		b->datagram[i] = (struct chp_native_datagram){ .data = b->reply[i]->data, .cap = SIM_PACKET_BYTES };
	}
	node->native.datagram = b->datagram;
	node->native.n_datagrams = replies;
	node->native.n_used = 0;
	node->native.epoch = chp_shard_epoch(node->shard);
	b->fx = (struct chp_effects){ .buffer = b->buffer, .n_buffers = b->buffers };
}

/* The shard follows the control stage: a new life empties it, then a view can come. */
static const struct chp_view *
follow_control(struct sim_world *w, uint32_t n)
{
	struct sim_node *node = &w->node[n];

	if (node->view_at_ns > w->now_ns) {
		node->resume_ns = chp_min_u64(node->resume_ns, node->view_at_ns);
		return NULL;
	}
	if (node->shard_lives != node->lives) {
		sim_trace(w, "node %u empties its shard", n);
		destroy_shard(w, n);
		create_shard(w, n);
	}
	if (node->n_next == 0)
		return NULL;
	node->shard_view = node->next[0];
	memmove(node->next, node->next + 1, --node->n_next * sizeof(node->next[0]));
	return &node->shard_view;
}

/* [SAFETY 16] The clock and the lease of a batch, read when its last event was taken. */
static struct chp_now
read_clock(struct sim_world *w, uint32_t n)
{
	struct sim_node *node = &w->node[n];
	struct chp_now now = { .ns = sim_node_clock(w, n),
			       .lease_until_ns = node->lives == node->shard_lives ? node->lease_until_ns : 0 };

	if (CHP_MUTATED(S16_CLOCK_BEFORE_EVENTS) && node->before_pause_ns != 0)
		now = (struct chp_now){ node->before_pause_ns, node->before_pause_lease_ns };
	node->before_pause_ns = 0;
	return now;
}

static void
drop_sends(struct sim_world *w, struct sim_node *node)
{
	struct sim_batch *b = node->batch;

	if (node->sending_until_ns == 0)
		return;
	for (uint32_t i = 0; i < b->buffers; i++)
		sim_packet_give(w, b->out[i]);
	for (uint32_t i = 0; i < node->native.n_datagrams; i++)
		sim_packet_give(w, b->reply[i]);
	node->sending_until_ns = 0;
}

static void
watch_packet(struct sim_world *w, uint32_t n, const struct sim_packet *p)
{
	const struct chp_peer_header *h = (const void *)p->data;
	const struct chp_message *m;

	for (uint32_t at = sizeof(*h); at < p->len; at += m->len) {
		m = (const void *)(p->data + at);
		w->config.kind->sends(w, n, h, m);
	}
}

static void
send_effects(struct sim_world *w, uint32_t n)
{
	struct sim_node *node = &w->node[n];
	struct sim_batch *b = node->batch;

	/* [SAFETY 16] The second reading: the process may have stood still since the first. */
	if (sim_node_clock(w, n) >= b->fx.reads_until_ns && !CHP_MUTATED(S16_CLOCK_BEFORE_EVENTS))
		chp_native_revoke_reads(&node->native);
	node->sending_until_ns = 0;
	for (uint32_t i = 0; i < b->buffers; i++) {
		struct sim_packet *p = b->out[i];

		if (i >= b->fx.n_used || !node->alive) {
			sim_packet_give(w, p);
			continue;
		}
		p->from = n;
		p->to = b->buffer[i].peer;
		p->len = b->buffer[i].len;
		if (p->to == CHP_TO_HOST) {
			chp_peer_seal(p->data, p->len);
			sim_network_send(w, p, SIM_TO_HOST, n);
			continue;
		}
		if (!sim_faults_on_packet(w, n, p)) {
			sim_packet_give(w, p);
			continue;
		}
		watch_packet(w, n, p);
		chp_peer_seal(p->data, p->len);
		sim_network_send(w, p, SIM_PACKET, p->to);
	}
	for (uint32_t i = 0; i < node->native.n_datagrams; i++) {
		struct sim_packet *p = b->reply[i];

		if (i >= node->native.n_used || !node->alive) {
			sim_packet_give(w, p);
			continue;
		}
		p->from = n;
		p->len = b->datagram[i].len;
		sim_once_reply(w, n, p->data, p->len);
		memcpy(&p->to, b->datagram[i].address, sizeof(p->to));
		sim_network_send(w, p, SIM_REPLY, p->to);
	}
	sim_node_run_soon(w, n, node->resume_ns);
}

void
sim_node_send(struct sim_world *w, uint32_t n, uint64_t at_ns)
{
	struct sim_node *node = &w->node[n];

	if (!node->alive || node->sending_until_ns != at_ns)
		return;
	if (node->run.paused_until_ns > w->now_ns) {
		node->sending_until_ns = node->run.paused_until_ns;
		sim_schedule(w, node->sending_until_ns, SIM_SEND, n, NULL);
		return;
	}
	send_effects(w, n);
}

/* Whether the stage stands still between its two readings of the clock (SAFETY 16). */
static bool
pauses_here(struct sim_world *w, uint32_t n)
{
	struct sim_node *node = &w->node[n];

	if (w->healed || !chp_random_chance(&w->random, w->config.point_ppm))
		return false;
	node->sending_until_ns = w->now_ns + chp_random_below(&w->random, 3 * w->config.lease_ns);
	sim_trace(w, "node %u stands still after its clock reading", n);
	sim_schedule(w, node->sending_until_ns, SIM_SEND, n, NULL);
	return true;
}

/* Each run would cost more than it finds; a single seed that is looked at has the time. */
#define CHECK_EVERY 8u

static void
check_shard(const struct sim_world *w, uint32_t n)
{
	if (w->config.trace || w->runs % CHECK_EVERY == 0)
		chp_shard_check(w->node[n].shard);
}

void
sim_node_run(struct sim_world *w, uint32_t n, uint64_t at_ns)
{
	struct sim_node *node = &w->node[n];
	struct sim_batch *b = node->batch;
	struct chp_events in = { 0 };
	struct chp_now now;
	uint32_t packets, datagrams;

	if (!stage_begins(w, n, &node->run, SIM_RUN, at_ns))
		return;
	packets = (uint32_t)chp_random_range(&w->random, 0, node->n_peer);
	in.view = follow_control(w, n);
	in.founding = node->lives == node->shard_lives ? node->founding : 0;
	in.host_is_gone = w->config.channel_tells && !w->host[n]->alive;
	prepare_batch(w, node, packets);
	in.packet = b->packet;
	in.n_packets = packets;
	in.op = b->op;
	in.n_ops = parse_clients(w, node, b, node->native.n_datagrams / 2, &datagrams);
	b->fx.reply = chp_native_reply;
	b->fx.frontend = &node->native;
	b->fx.reply_room = chp_native_room(&node->native);
	now = read_clock(w, n);
	chp_shard_run(node->shard, &now, &in, &b->fx);
	w->runs++;
	check_shard(w, n);
	w->config.kind->ran(w, n, &now);
	sim_backed_ran(w, n);
	drop_first(w, node->peer_inbox, &node->n_peer, packets);
	drop_first(w, node->client_inbox, &node->n_client, datagrams);
	if (node->copied_life != node->shard_lives && node->shard_view.epoch != 0 &&
	    chp_shard_copy_done(node->shard)) {
		node->copied_life = node->shard_lives;
		sim_node_control_soon(w, n, w->now_ns + STAGE_NS);
	}
	tell_control(w, n);
	node->resume_ns = chp_max_u64(true_time(w, n, b->fx.wake_ns), w->now_ns + STAGE_NS);
	if (node->n_peer > 0 || node->n_client > 0 || (node->n_next > 0 && node->view_at_ns <= w->now_ns))
		node->resume_ns = w->now_ns + STAGE_NS;
	if (node->view_at_ns > w->now_ns)
		node->resume_ns = chp_min_u64(node->resume_ns, node->view_at_ns);
	if (!pauses_here(w, n))
		send_effects(w, n);
}

/* ------------------------------------------------------------------ life */

void
sim_node_start(struct sim_world *w, uint32_t n)
{
	struct sim_node *node = &w->node[n];
	struct chp_membership_config c = {
		.cluster_hash = w->config.shard.cluster_hash,
		.self = n,
		.n_nodes = w->config.n_nodes,
		.payload_bytes = SIM_PACKET_BYTES,
		.bootstrap = n == 0 || w->config.shard.has_host,
		.suspect_ns = w->config.suspect_ns,
		.lease_ns = w->config.lease_ns,
		.clock_drift_ppm = w->config.clock_drift_ppm,
		.keeps_members = !w->config.kind->protocol->is_fenced,
		.has_hosts = w->config.shard.has_host,
		.host_grace_ns = w->config.host_grace_ns,
		.leave_fill_ppm = w->config.leave_fill_ppm,
		.lease_ns_max = w->config.lease_ns,
	};

	CHP_ASSERT(!node->alive);
	for (uint32_t i = 0; i < c.n_nodes; i++)
		c.address[i] = 0x0a63000a + i;
	if (node->incarnation == 0 || !CHP_MUTATED(P15_SAME_INCARNATION))
		node->incarnation = chp_random_u64(&w->random) | 1;
	c.incarnation = node->incarnation;
	if (chp_random_chance(&w->random, 500000)) { /* so does the machine */
		node->clock_base_ns = w->now_ns;
		node->clock_offset_ns = 1 + chp_random_below(&w->random, 1000 * 1000 * SIM_MS);
	}
	node->alive = true;
	node->control = node->run = (struct sim_stage){ .at_ns = CHP_NEVER };
	chp_membership_init(&node->membership, &c, sim_node_clock(w, n));
	node->lives = node->membership.lives;
	node->view.epoch = 0;
	node->n_next = 0;
	node->next_epoch = 0;
	node->view_at_ns = 0;
	node->lease_until_ns = 0;
	node->founding = 0;
	memset(&node->told, 0, sizeof(node->told));
	node->client_offset = 0;
	node->before_pause_ns = 0;
	node->native = (struct chp_native){ .cluster_hash = c.cluster_hash,
					    .shards = 1,
					    .hash_seed = w->config.shard.hash_seed,
					    .key_bytes_max = w->config.shard.key_bytes_max,
					    .value_bytes_max = w->config.shard.value_bytes_max,
					    .node = n };
	create_shard(w, n);
	sim_node_control_soon(w, n, w->now_ns);
	sim_node_run_soon(w, n, w->now_ns);
}

void
sim_node_init(struct sim_world *w, uint32_t n)
{
	struct sim_node *node = &w->node[n];
	const int32_t drift = (int32_t)w->config.clock_drift_ppm;

	node->batch = malloc(sizeof(*node->batch));
	CHP_ASSERT(node->batch != NULL);
	node->clock_offset_ns = 1 + chp_random_below(&w->random, 1000 * 1000 * SIM_MS);
	/* The bounds themselves are the worst. */
	node->clock_ppm = drift * (int32_t)chp_random_range(&w->random, 0, 2) - drift;
	if (w->config.shard.has_host) {
		sim_backed_init(w, n);
		sim_host_init(w, n);
	}
	sim_node_start(w, n);
}

void
sim_node_crash(struct sim_world *w, uint32_t n)
{
	struct sim_node *node = &w->node[n];

	sim_trace(w, "crash %u", n);
	w->seen.crashes++;
	w->seen.leases_lost += node->membership.counters.leases_lost;
	drop_sends(w, node);
	drop_first(w, node->peer_inbox, &node->n_peer, node->n_peer);
	drop_first(w, node->client_inbox, &node->n_client, node->n_client);
	drop_first(w, node->control_inbox, &node->n_control, node->n_control);
	destroy_shard(w, n);
	node->alive = false;
	node->view.epoch = node->shard_view.epoch = 0;
}

void
sim_node_fini(struct sim_world *w, uint32_t n)
{
	struct sim_node *node = &w->node[n];

	if (node->alive) {
		drop_sends(w, node);
		drop_first(w, node->peer_inbox, &node->n_peer, node->n_peer);
		drop_first(w, node->client_inbox, &node->n_client, node->n_client);
		drop_first(w, node->control_inbox, &node->n_control, node->n_control);
		chp_shard_destroy(node->shard);
	}
	sim_host_fini(w, n);
	sim_backed_fini(w, n);
	free(node->batch);
}

void
sim_node_pause(struct sim_world *w, uint32_t n, bool control, bool shard, uint64_t ns)
{
	struct sim_node *node = &w->node[n];

	sim_trace(w, "pause %u%s%s for %" PRIu64 " us", n, control ? " control" : "", shard ? " shard" : "",
		  ns / 1000);
	w->seen.pauses++;
	if (control)
		node->control.paused_until_ns = chp_max_u64(node->control.paused_until_ns, w->now_ns + ns);
	if (!shard)
		return;
	if (node->before_pause_ns == 0) {
		node->before_pause_ns = sim_node_clock(w, n);
		node->before_pause_lease_ns = node->lives == node->shard_lives ? node->lease_until_ns : 0;
	}
	node->run.paused_until_ns = chp_max_u64(node->run.paused_until_ns, w->now_ns + ns);
}

void
sim_node_resume(struct sim_world *w, uint32_t n)
{
	struct sim_node *node = &w->node[n];

	node->control.paused_until_ns = node->run.paused_until_ns = 0;
	if (node->sending_until_ns != 0) {
		node->sending_until_ns = w->now_ns;
		sim_schedule(w, w->now_ns, SIM_SEND, n, NULL);
	}
	sim_node_control_soon(w, n, w->now_ns);
	sim_node_run_soon(w, n, w->now_ns);
}
