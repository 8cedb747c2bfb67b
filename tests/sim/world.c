/* SPDX-License-Identifier: BSD-3-Clause */
#include "kind.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A healed cluster must be whole, have answered everything and be at rest within this. */
#define LIVENESS_NS (UINT64_C(20000) * SIM_MS)
/* After so long it is worth a look whether it can be whole again, if more was lost than was meant. */
#define LOOK_NS (UINT64_C(5000) * SIM_MS)
/* Beyond the budget nothing needs to come to rest; a healed cluster that can will, in this time. */
#define BEYOND_NS (UINT64_C(1500) * SIM_MS)
/* The first view must have formed within this, whatever the network does. */
#define FOUNDING_NS (UINT64_C(20000) * SIM_MS)
/* So many events at one time: whoever is woken asks to be woken again. Never were there more than some hundreds. */
#define EVENTS_AT_ONCE_MAX 100000

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

/* The time becomes that of the event. Somebody who wants to be woken now, again and again, would stop it for ever. */
static void
move_time(struct sim_world *w, const struct sim_event *e)
{
	w->events_now = e->at_ns == w->now_ns ? w->events_now + 1 : 0;
	w->now_ns = e->at_ns;
	if (w->events_now > EVENTS_AT_ONCE_MAX)
		sim_fail(w, "liveness: time stands still: %u events, the last of kind %d at %u", w->events_now, e->kind,
			 e->who);
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

/* Very late, and never lost: a copy of it may have come in time. */
static void
send_late(struct sim_world *w, struct sim_packet *p, enum sim_event_kind kind, uint32_t who)
{
	struct sim_packet *copy = sim_packet_take(w);

	memcpy(copy, p, offsetof(struct sim_packet, data) + p->len);
	sim_schedule(w, w->now_ns + chp_random_range(&w->random, w->config.suspect_ns, w->config.late_ns_max), kind,
		     who, copy);
}

/* Put a packet on its way: lost, doubled, changed, late. Keeps the packet. */
void
sim_network_send(struct sim_world *w, struct sim_packet *p, enum sim_event_kind kind, uint32_t who)
{
	struct sim_packet *copy;
	const bool to_client = kind == SIM_DATAGRAM || kind == SIM_REPLY;
	const uint64_t uneven_ns = kind == SIM_PACKET ? w->uneven_ns[p->from][p->to] : 0;

	if (w->healed) {
		sim_schedule(w, w->now_ns + sim_latency(w), kind, who, p);
		return;
	}
	if (!to_client && chp_random_chance(&w->random, w->config.late_ppm))
		send_late(w, p, kind, who);
	if (chp_random_chance(&w->random, w->config.drop_ppm)) {
		sim_packet_give(w, p);
		return;
	}
	if (chp_random_chance(&w->random, w->config.duplicate_ppm)) {
		copy = sim_packet_take(w);
		memcpy(copy, p, offsetof(struct sim_packet, data) + p->len);
		sim_schedule(w, w->now_ns + sim_latency(w), kind, who, copy);
	}
	/* Clients' packets have no checksum but UDP's. */
	if (!to_client && chp_random_chance(&w->random, w->config.corrupt_ppm))
		p->data[chp_random_below(&w->random, p->len)] ^=
			(uint8_t)(1u << chp_random_below(&w->random, 8));
	sim_schedule(w, w->now_ns + sim_latency(w) + uneven_ns, kind, who, p);
}

/* Whether a packet gets through to a node, and is whole. */
static bool
passes(const struct sim_world *w, const struct sim_event *e)
{
	const struct sim_packet *p = e->packet;

	if (e->kind == SIM_DATAGRAM)
		return w->client_cut_until_ns[p->from][e->who] <= w->now_ns;
	if (e->kind == SIM_REPLY)
		return w->client_cut_until_ns[e->who][p->from] <= w->now_ns &&
		       w->mute_until_ns[p->from] <= w->now_ns;
	if (e->kind == SIM_TO_HOST || e->kind == SIM_FROM_HOST)
		return w->channel_cut_until_ns[e->who][e->kind == SIM_FROM_HOST] <= w->now_ns &&
		       (e->kind == SIM_TO_HOST || /* it checks itself */
			sim_channel_check(&w->config.shard, e->who, p->data, p->len));
	if (w->cut_until_ns[p->from][e->who] > w->now_ns)
		return false;
	/* A control packet is checked by the membership itself. */
	return e->kind == SIM_MEMBERSHIP ||
	       chp_peer_check(p->data, p->len, w->config.shard.cluster_hash, w->config.n_nodes, 1) == CHP_PACKET_OK;
}

/* ------------------------------------------------------------------ the course of a run */

static void
world_init(struct sim_world *w, const struct sim_config *c)
{
	memset(w, 0, sizeof(*w));
	w->config = *c;
	w->random.state = c->seed ^ UINT64_C(0x5bd1e9955bd1e995);
	w->watch = calloc(1, c->kind->watch_bytes);
	CHP_ASSERT(w->watch != NULL);
	chp_history_init(&w->history);
	for (uint32_t n = 0; n < c->n_nodes; n++)
		sim_node_init(w, n);
	for (uint32_t i = 0; i < c->n_clients; i++)
		sim_client_init(w, i);
	w->roll_next = (uint32_t)chp_random_below(&w->random, c->n_nodes);
	sim_schedule(w, SIM_MS, SIM_FAULTS, 0, NULL);
}

static void
world_fini(struct sim_world *w)
{
	for (uint32_t n = 0; n < w->config.n_nodes; n++)
		sim_node_fini(w, n);
	for (uint32_t i = 0; i < w->n_events; i++)
		free(w->heap[i].packet);
	while (w->free_packets != NULL) {
		struct sim_packet *p = w->free_packets;

		w->free_packets = p->next;
		free(p);
	}
	free(w->heap);
	free(w->entered);
	sim_once_forget(w);
	w->config.kind->forget(w);
	free(w->watch);
	chp_history_fini(&w->history);
}

static void
restart(struct sim_world *w, uint32_t n)
{
	if (w->node[n].alive || (w->stay_dead & chp_bit(n)) != 0)
		return;
	sim_trace(w, "restart %u", n);
	w->seen.restarts++;
	sim_node_start(w, n);
}

static void
handle_event(struct sim_world *w, const struct sim_event *e)
{
	switch (e->kind) {
	case SIM_RUN:
		sim_node_run(w, e->who, e->at_ns);
		break;
	case SIM_SEND:
		sim_node_send(w, e->who, e->at_ns);
		break;
	case SIM_CONTROL:
		sim_node_control(w, e->who, e->at_ns);
		break;
	case SIM_PACKET:
	case SIM_FROM_HOST:
	case SIM_MEMBERSHIP:
	case SIM_DATAGRAM:
		if (passes(w, e))
			sim_node_arrives(w, e->who, e->kind, e->packet);
		else
			sim_packet_give(w, e->packet);
		break;
	case SIM_REPLY:
		if (passes(w, e))
			sim_client_reply(w, e->who, e->packet);
		sim_packet_give(w, e->packet);
		break;
	case SIM_CLIENT:
		if (w->client[e->who].wake_ns == e->at_ns)
			sim_client_wake(w, e->who);
		break;
	case SIM_RESTART:
		restart(w, e->who);
		break;
	case SIM_FAULTS:
		sim_faults_tick(w);
		break;
	case SIM_ACT:
		sim_faults_act(w, e->who);
		break;
	case SIM_EPOCH:
		sim_node_same_view(w, e->who);
		break;
	case SIM_TO_HOST:
		if (passes(w, e))
			sim_host_arrives(w, e->who, e->packet);
		else
			sim_packet_give(w, e->packet);
		break;
	case SIM_HOST:
		sim_host_run(w, e->who, e->at_ns);
		break;
	case SIM_STORE:
		sim_host_store(w, e->who);
		break;
	case SIM_HOST_RESTART:
		sim_host_start(w, e->who);
		break;
	}
}

static bool
faults_are_over(const struct sim_world *w)
{
	const uint64_t ns = w->now_ns - w->faults_from_ns;

	if (w->healed)
		return false;
	if (w->faults_from_ns == 0)
		return w->now_ns > FOUNDING_NS;
	return ns > w->config.faults_ns_max || (ns > w->config.faults_ns_min && w->issued >= w->config.ops);
}

/* All voters, all answered, nothing under way. */
static bool
at_rest(const struct sim_world *w)
{
	uint64_t epoch = 0;

	if (!sim_clients_done(w) || !w->config.kind->whole(w))
		return false;
	for (uint32_t n = 0; n < w->config.n_nodes; n++) {
		const struct sim_node *node = &w->node[n];

		if ((w->stay_dead & chp_bit(n)) != 0)
			continue;
		if (epoch == 0)
			epoch = node->shard_view.epoch;
		if (node->shard_lives != node->lives ||
		    node->shard_view.epoch < sim_shard_epoch(w, node->view.epoch, 0) ||
		    node->shard_view.epoch != epoch || node->sending_until_ns != 0 ||
		    !w->config.kind->is_idle(w, n) || !sim_host_is_idle(w, n))
			return false;
	}
	return true;
}

static void
not_at_rest(struct sim_world *w)
{
	char text[1000];
	struct chp_text t = chp_text_of(text, sizeof(text));

	for (uint32_t n = 0; n < w->config.n_nodes; n++) {
		struct sim_node *node = &w->node[n];

		chp_text_add(&t, " [%u]", n);
		if (!node->alive) {
			chp_text_add(&t, " dead");
			continue;
		}
		chp_text_add(&t, " state %u view %" PRIu64 " voters %" PRIx64 " shard %" PRIu64 "%s ",
			     node->membership.state, node->view.epoch, node->view.voters, node->shard_view.epoch,
			     w->config.kind->is_idle(w, n) ? " idle" : "");
		chp_shard_dump(node->shard, NULL, &t);
		if (w->host[n] != NULL)
			sim_host_dump(w, n, &t);
	}
	sim_clients_dump(w, &t);
	sim_fail(w, "liveness: not at rest %" PRIu64 " s after healing%s:%s", LIVENESS_NS / (1000 * SIM_MS),
		 sim_clients_done(w) ? "" : ", clients wait", text);
}

/* Whether the run is over before it is at rest. */
static bool
is_over(struct sim_world *w, uint64_t healed_ns, bool *beyond_repair)
{
	if (w->refounded)
		return true;
	if (!w->healed)
		return false;
	if (w->config.budget == SIM_BEYOND)
		return w->now_ns > healed_ns + BEYOND_NS;
	if (w->now_ns > healed_ns + LOOK_NS && !sim_faults_repairable(w)) {
		*beyond_repair = true;
		return true;
	}
	if (w->now_ns > healed_ns + LIVENESS_NS)
		not_at_rest(w);
	return false;
}

static void
take_results(struct sim_world *w, struct sim_result *result)
{
	for (uint32_t n = 0; n < w->config.n_nodes; n++) {
		sim_node_collect(w, n);
		if (!w->node[n].alive)
			continue;
		w->seen.leases_lost += w->node[n].membership.counters.leases_lost;
		result->digest = result->digest * 31 + chp_shard_digest(w->node[n].shard);
	}
	result->runs = w->runs;
	result->undecided = w->undecided;
	result->ops = w->history.n_ops;
	for (uint32_t i = 0; i < w->history.n_ops; i++)
		result->ok += w->history.op[i].outcome == CHP_HISTORY_OK;
	result->protocol = w->protocol;
	result->host = w->host_counters;
	result->evictions = w->evictions;
	result->hosts_lost = w->seen.hosts_lost;
	result->writes_lost = w->seen.writes_lost;
	result->writes_late = w->seen.writes_late;
	result->cold_starts = w->seen.cold_starts;
	result->retransmits = w->retransmits;
	result->resets = w->resets;
	result->views = w->seen.views;
	result->same_views = w->seen.same_views;
	result->crashes = w->seen.crashes;
	result->restarts = w->seen.restarts;
	result->rejoins = w->seen.rejoins;
	result->leases_lost = w->seen.leases_lost;
	result->drops = w->seen.drops;
	result->digest = result->digest * 31 + w->now_ns + w->runs;
}

bool
sim_run(const struct sim_config *c, struct sim_result *result, char failure[SIM_FAILURE_BYTES])
{
	static struct sim_world w;
	uint64_t healed_ns = 0;

	memset(result, 0, sizeof(*result));
	world_init(&w, c);
	while (w.failure[0] == '\0' && !is_over(&w, healed_ns, &result->beyond_repair)) {
		struct sim_event e;

		CHP_ASSERT_OP(w.n_events, >, 0u);
		e = next_event(&w);
		move_time(&w, &e);
		handle_event(&w, &e);
		if (faults_are_over(&w)) {
			sim_faults_heal(&w);
			healed_ns = w.now_ns;
		}
		if (w.runs % 64 == 0 && e.kind == SIM_RUN)
			sim_check_agreement(&w);
		if (w.healed && (e.kind == SIM_RUN || e.kind == SIM_CONTROL) && at_rest(&w))
			break;
	}
	if (w.failure[0] == '\0' && !w.refounded)
		sim_check_end(&w, at_rest(&w));
	take_results(&w, result);
	memcpy(failure, w.failure, sizeof(w.failure));
	world_fini(&w);
	return failure[0] == '\0';
}
