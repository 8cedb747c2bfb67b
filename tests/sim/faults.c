/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which fault comes when, and how much the cluster must be able to bear.
 *
 * What a cluster can't repair: that the members left who remember are too few to agree. A crash or a restart takes
 * a member's memory; a cut or a pause that others notice may make them drop it, which takes it as well; and a proposal
 * that somebody has accepted stays possible until another view of its epoch is in force. So before a fault, every view
 * that is or may come to be in force must keep a majority without the nodes that are lost or disturbed.
 */
#include "kind.h"

#include <inttypes.h>
#include <string.h>

enum action { ACTION_CRASH, ACTION_PAUSE, ACTION_CUT, ACTION_COUNT };

static uint32_t
majority(uint64_t voters)
{
	return chp_count_bits(voters) / 2 + 1;
}

/* ------------------------------------------------------------------ what can be borne */

/* The voters of a view that still are who they were. */
static uint64_t
remembering(const struct sim_world *w, uint64_t voters, const uint64_t *incarnation)
{
	uint64_t mask = 0;

	for (; voters != 0; voters &= voters - 1) {
		const uint32_t n = chp_first_bit(voters);

		if (w->node[n].alive && w->node[n].membership.incarnation == incarnation[n])
			mask |= chp_bit(n);
	}
	return mask;
}

/* A view that is not known to be in force, from the last one that is: those in both must be able to decide it. */
static bool
can_decide(const struct sim_world *w, const struct sim_possible *p, uint64_t without)
{
	const struct chp_view *before = sim_entered(w, p->epoch - 1);
	uint64_t left = 0;

	if (before == NULL)
		return true;
	for (uint64_t v = remembering(w, before->voters, before->incarnation) & ~without; v != 0; v &= v - 1) {
		const uint32_t n = chp_first_bit(v);

		if ((p->voters & chp_bit(n)) != 0 && p->incarnation[n] == before->incarnation[n])
			left |= chp_bit(n);
	}
	return chp_count_bits(left) >= majority(before->voters);
}

/*
 * Until a cold start is reconciled, most of all members must still be those that it began with: nothing else keeps
 * another one from happening beside it.
 */
static bool
reconciling_bearable(const struct sim_world *w, uint64_t without)
{
	const struct chp_view *v = sim_newest_view(w);
	uint64_t first = 0;

	if (v == NULL || v->sources == 0)
		return true;
	for (uint32_t n = 0; n < w->config.n_nodes; n++)
		if ((chp_view_live(v) & chp_bit(n)) != 0 && v->writer[n] <= w->config.n_nodes)
			first |= chp_bit(n);
	return chp_count_bits(remembering(w, first, v->incarnation) & ~without) >= w->config.n_nodes / 2 + 1;
}

bool
sim_faults_views_bearable(const struct sim_world *w, uint64_t lost, uint64_t disturbed)
{
	const uint64_t without = lost | disturbed;
	uint64_t newest = 0;

	for (uint32_t n = 0; n < w->config.n_nodes; n++)
		if (w->node[n].alive && (lost & chp_bit(n)) == 0)
			newest = chp_max_u64(newest, w->node[n].view.epoch);
	if (newest == 0)
		return w->n_entered == 0;
	for (uint32_t i = 0; i < w->n_possible; i++) {
		const struct sim_possible *p = &w->possible[i];

		if (p->epoch < newest)
			continue;
		if (chp_count_bits(remembering(w, p->voters, p->incarnation) & ~without) < majority(p->voters))
			return false;
		if (p->epoch > newest && !can_decide(w, p, without))
			return false;
	}
	return reconciling_bearable(w, without);
}

static uint64_t
disturbed(const struct sim_world *w)
{
	uint64_t mask = 0;

	for (uint32_t n = 0; n < w->config.n_nodes; n++)
		if (w->disturbed_until_ns[n] > w->now_ns)
			mask |= chp_bit(n);
	return mask;
}

static bool
may_lose(const struct sim_world *w, uint32_t n)
{
	return w->config.budget == SIM_BEYOND || w->config.kind->bearable(w, chp_bit(n), disturbed(w));
}

/* Nodes that others may take for dead from now on, and for some time after it is over. */
static bool
may_disturb(struct sim_world *w, uint64_t nodes, uint64_t ns)
{
	if (ns < w->config.suspect_ns / 4)
		return true;
	if (w->config.budget != SIM_BEYOND && !w->config.kind->bearable(w, 0, disturbed(w) | nodes))
		return false;
	for (; nodes != 0; nodes &= nodes - 1)
		w->disturbed_until_ns[chp_first_bit(nodes)] = w->now_ns + ns + 2 * w->config.suspect_ns;
	return true;
}

bool
sim_faults_repairable(const struct sim_world *w)
{
	return w->config.kind->bearable(w, 0, 0);
}

bool
sim_faults_whole(const struct sim_world *w)
{
	const uint64_t wanted = (chp_bit(w->config.n_nodes) - 1) & ~w->stay_dead;
	const uint64_t epoch = w->node[chp_first_bit(wanted)].view.epoch;

	for (uint64_t rest = wanted; rest != 0; rest &= rest - 1) {
		const struct sim_node *node = &w->node[chp_first_bit(rest)];

		if (!node->alive || epoch == 0 || node->view.epoch != epoch || node->view.voters != wanted)
			return false;
	}
	return true;
}

/* ------------------------------------------------------------------ one fault */

/* Half of the faults are too short to be noticed, half long enough. */
static uint64_t
draw_ns(struct sim_world *w)
{
	struct chp_random *r = &w->random;

	return chp_random_chance(r, 500000) ? chp_random_below(r, w->config.suspect_ns / 4)
					    : chp_random_range(r, w->config.suspect_ns / 2, w->config.long_ns);
}

static uint64_t
long_ns(struct sim_world *w)
{
	return chp_random_range(&w->random, w->config.suspect_ns, w->config.long_ns);
}

bool
sim_faults_lose(struct sim_world *w, uint32_t n)
{
	if (!w->node[n].alive || !may_lose(w, n))
		return false;
	sim_node_crash(w, n);
	sim_schedule(w, w->now_ns + SIM_MS + chp_random_below(&w->random, w->config.down_ns_max), SIM_RESTART, n, NULL);
	return true;
}

static void
pause_node(struct sim_world *w, uint32_t n, uint64_t ns)
{
	const uint32_t what = w->config.whole_pauses ? 0 : (uint32_t)chp_random_below(&w->random, 3);

	/* The shard stage alone is noticed by clients only. */
	if (w->node[n].alive && (what == 2 || may_disturb(w, chp_bit(n), ns)))
		sim_node_pause(w, n, what != 2, what != 1, ns);
}

/* Cut every way between two groups; one way only sometimes. */
static void
cut_groups(struct sim_world *w, uint64_t group, uint64_t ns)
{
	const uint32_t way = (uint32_t)chp_random_below(&w->random, 4); /* 0: from the group, 1: to it */

	sim_trace(w, "cut %" PRIx64 " from the rest, way %u, for %" PRIu64 " us", group, way, ns / 1000);
	w->seen.cuts++;
	for (uint32_t a = 0; a < w->config.n_nodes; a++) {
		for (uint32_t b = 0; b < w->config.n_nodes; b++) {
			if ((group & chp_bit(a)) == 0 || (group & chp_bit(b)) != 0)
				continue;
			if (way != 1)
				w->cut_until_ns[a][b] = w->now_ns + ns;
			if (way != 0)
				w->cut_until_ns[b][a] = w->now_ns + ns;
		}
	}
}

static void
cut_node(struct sim_world *w, uint32_t n, uint64_t ns)
{
	if (may_disturb(w, chp_bit(n), ns))
		cut_groups(w, chp_bit(n), ns);
}

static void
cut_pair(struct sim_world *w, uint32_t a, uint32_t b, uint64_t ns)
{
	if (!may_disturb(w, chp_bit(a), ns))
		return;
	w->seen.cuts++;
	w->cut_until_ns[a][b] = w->now_ns + ns;
	if (chp_random_chance(&w->random, 500000))
		w->cut_until_ns[b][a] = w->cut_until_ns[a][b];
	sim_trace(w, "cut %u %u for %" PRIu64 " us", a, b, ns / 1000);
}

static void
draw_partition(struct sim_world *w, uint32_t a, uint32_t b)
{
	struct chp_random *r = &w->random;
	const uint64_t ns = draw_ns(w);
	uint64_t group;

	switch (chp_random_below(r, 4)) {
	case 0:
		if (a != b)
			cut_pair(w, a, b, ns);
		break;
	case 1:
		cut_node(w, a, ns);
		break;
	case 2:
		group = chp_random_below(r, UINT64_C(1) << w->config.n_nodes);
		if (chp_count_bits(group) > w->config.n_nodes / 2)
			group = ~group & ((UINT64_C(1) << w->config.n_nodes) - 1);
		if (group != 0 && may_disturb(w, group, ns))
			cut_groups(w, group, ns);
		break;
	default:
		if (a != b && w->flap_until_ns <= w->now_ns && may_disturb(w, chp_bit(a), long_ns(w))) {
			w->flap_until_ns = w->disturbed_until_ns[a] - 2 * w->config.suspect_ns;
			w->flap_a = a;
			w->flap_b = b;
			sim_trace(w, "flap %u %u until %" PRIu64 " us", a, b, w->flap_until_ns / 1000);
		}
	}
}

/* A client that reaches one node only, which may be a node that is cut off as well. */
static void
cut_client(struct sim_world *w, uint32_t n)
{
	const uint32_t c = (uint32_t)chp_random_below(&w->random, w->config.n_clients);
	const uint64_t until_ns = w->now_ns + long_ns(w);

	for (uint32_t i = 0; i < w->config.n_nodes; i++)
		if (i != n)
			w->client_cut_until_ns[c][i] = until_ns;
	sim_trace(w, "client %u reaches node %u only", c, n);
}

/*
 * A node dies while it sends: some of the others, perhaps its clients, too, hear nothing of what it does last. What
 * it has begun then is known to some and not to others, and what it has answered is not known to who asked.
 */
static void
ambush(struct sim_world *w, uint32_t n)
{
	struct chp_random *r = &w->random;
	const uint64_t others = (chp_bit(w->config.n_nodes) - 1) & ~chp_bit(n);
	const uint64_t until_ns = w->now_ns + chp_random_below(r, w->config.ambush_ns_max);
	uint64_t deaf = chp_random_below(r, chp_bit(w->config.n_nodes)) & others;

	if (!w->node[n].alive || !may_lose(w, n))
		return;
	if (chp_random_chance(r, 500000))
		deaf = chp_bit((uint32_t)chp_random_below(r, w->config.n_nodes)) & others;
	sim_trace(w, "%" PRIx64 " hear no more of %u, which will crash", deaf, n);
	for (; deaf != 0; deaf &= deaf - 1)
		w->cut_until_ns[n][chp_first_bit(deaf)] = until_ns;
	if (chp_random_chance(r, 500000))
		w->mute_until_ns[n] = until_ns + SIM_MS;
	sim_schedule(w, until_ns, SIM_ACT, n | ACTION_CRASH << 8, NULL);
}

static void
act(struct sim_world *w, uint32_t n, enum action action)
{
	switch (action) {
	case ACTION_CRASH:
		sim_faults_lose(w, n);
		break;
	case ACTION_PAUSE:
		pause_node(w, n, long_ns(w));
		break;
	default:
		cut_node(w, n, long_ns(w));
	}
}

void
sim_faults_act(struct sim_world *w, uint32_t who)
{
	if (!w->healed)
		act(w, who & 0xff, (enum action)(who >> 8));
}

/* ------------------------------------------------------------------ faults at a packet */

static void
set_trigger(struct sim_world *w)
{
	static const uint32_t types[] = { CHP_CONTROL_PREPARE,  CHP_CONTROL_PROMISE, CHP_CONTROL_ACCEPT,
					  CHP_CONTROL_ACCEPTED, CHP_CONTROL_ACCEPT,  CHP_CONTROL_DECIDED };
	const struct sim_kind *kind = w->config.kind;
	struct sim_trigger *t = &w->trigger;

	if (t->type != 0 && w->now_ns < t->expires_ns)
		return;
	t->is_message = kind->n_triggers != 0 && chp_random_chance(&w->random, 800000);
	if (t->is_message)
		t->type = kind->triggers[chp_random_below(&w->random, kind->n_triggers)];
	else
		t->type = types[chp_random_below(&w->random, CHP_ARRAY_LEN(types))];
	t->countdown = (uint32_t)chp_random_range(&w->random, 1, 2 * w->config.n_nodes);
	t->action = (uint32_t)chp_random_below(&w->random, ACTION_COUNT);
	t->expires_ns = w->now_ns + 200 * SIM_MS;
}

/* False: the node is gone, and what it was about to send as well. */
static bool
pull_trigger(struct sim_world *w, uint32_t n)
{
	struct sim_trigger *t = &w->trigger;

	t->type = 0;
	/* At once, or when what was sent has arrived, and perhaps its answers as well. */
	if (chp_random_chance(&w->random, 500000)) {
		sim_schedule(w, w->now_ns + 1 + chp_random_below(&w->random, 4 * w->config.latency_ns_max), SIM_ACT,
			     n | t->action << 8, NULL);
		return true;
	}
	act(w, n, (enum action)t->action);
	return w->node[n].alive;
}

bool
sim_faults_on_send(struct sim_world *w, uint32_t n, const struct sim_packet *p)
{
	const struct chp_control_header *h = (const void *)p->data;
	struct sim_trigger *t = &w->trigger;

	if (h->type > CHP_CONTROL_FOUNDING && h->type != CHP_CONTROL_HEARTBEAT && h->type != CHP_CONTROL_GRANT)
		sim_trace(w, "node %u sends control packet of type %u to %u", n, h->type, p->to);
	if (w->healed || t->is_message || t->type != h->type || --t->countdown > 0)
		return true;
	return pull_trigger(w, n);
}

bool
sim_faults_on_packet(struct sim_world *w, uint32_t n, const struct sim_packet *p)
{
	const struct chp_message *m;
	struct sim_trigger *t = &w->trigger;

	if (w->healed || !t->is_message || t->type == 0)
		return true;
	for (uint32_t at = sizeof(struct chp_peer_header); at < p->len; at += m->len) {
		m = (const void *)(p->data + at);
		if (t->type == m->type && --t->countdown == 0)
			return pull_trigger(w, n);
	}
	return true;
}

/* ------------------------------------------------------------------ every millisecond */

/* One node after the other, each when all are voters again. */
static void
roll(struct sim_world *w)
{
	if (!w->config.kind->whole(w))
		return;
	if (w->roll_ns == 0) {
		w->roll_ns = w->now_ns + chp_random_below(&w->random, 30 * SIM_MS);
	} else if (w->now_ns >= w->roll_ns) {
		act(w, w->roll_next, (enum action)chp_random_below(&w->random, ACTION_COUNT));
		w->roll_next = (w->roll_next + 1) % w->config.n_nodes;
		w->roll_ns = 0;
	}
}

/* Another view of the newest epoch's members; who is in it hears of it sooner or later, or when there is another. */
static void
same_view(struct sim_world *w)
{
	const struct chp_view *newest = sim_newest_view(w);

	if (newest == NULL)
		return;
	if (w->same_epoch != newest->epoch) {
		w->same_epoch = newest->epoch;
		w->same_views = 0;
	}
	if (w->same_views + 1 == SIM_EPOCHS)
		return;
	w->same_views++;
	w->seen.same_views++;
	for (uint32_t n = 0; n < w->config.n_nodes; n++)
		if (chp_random_chance(&w->random, 900000))
			sim_schedule(w, w->now_ns + chp_random_below(&w->random, w->config.lag_ns_max), SIM_EPOCH, n,
				     NULL);
}

/* Some ways are slow for a while, most are not. */
static void
draw_uneven(struct sim_world *w)
{
	for (uint32_t a = 0; a < w->config.n_nodes; a++)
		for (uint32_t b = 0; b < w->config.n_nodes; b++)
			w->uneven_ns[a][b] = chp_random_chance(&w->random, 300000)
						     ? chp_random_below(&w->random, w->config.uneven_ns_max)
						     : 0;
}

/* Something happens to the node on which most depends. */
static void
attack(struct sim_world *w)
{
	const struct sim_kind *kind = w->config.kind;
	const uint32_t n = kind->target == NULL ? SIM_NODES_MAX : kind->target(w);

	uint64_t group, ns;

	if (n == SIM_NODES_MAX)
		return;
	group = chp_bit(n);
	ns = long_ns(w);
	/* A minority goes on with it, as if nothing had happened. */
	while (chp_count_bits(group) < (w->config.n_nodes - 1) / 2)
		group |= chp_bit((uint32_t)chp_random_below(&w->random, w->config.n_nodes));
	if (w->config.n_nodes >= 5 && chp_random_chance(&w->random, 300000) && may_disturb(w, group, ns))
		cut_groups(w, group, ns);
	else if (chp_random_chance(&w->random, 300000))
		ambush(w, n);
	else
		act(w, n, (enum action)chp_random_below(&w->random, ACTION_COUNT));
}

/* Every node's memory at once, and the machines of some: the stores are what is left. */
static void
lose_all(struct sim_world *w)
{
	bool is_formed = false;

	for (uint32_t n = 0; n < w->config.n_nodes; n++)
		is_formed |= w->node[n].view.epoch != 0;
	if (!is_formed)
		return; /* it begins already */
	for (uint32_t n = 0; n < w->config.n_nodes; n++) {
		if (w->node[n].alive)
			sim_node_crash(w, n);
		sim_schedule(w, w->now_ns + SIM_MS + chp_random_below(&w->random, w->config.down_ns_max), SIM_RESTART,
			     n, NULL);
		if (chp_random_chance(&w->random, 300000))
			sim_host_lose(w, n, chp_random_chance(&w->random, 500000));
	}
}

static void
draw_faults(struct sim_world *w)
{
	const struct sim_config *c = &w->config;
	struct chp_random *r = &w->random;
	const uint32_t a = (uint32_t)chp_random_below(r, c->n_nodes), b = (uint32_t)chp_random_below(r, c->n_nodes);

	if (chp_random_chance(r, c->pause_ppm))
		pause_node(w, a, draw_ns(w));
	if (chp_random_chance(r, c->partition_ppm))
		draw_partition(w, a, b);
	if (a != b && w->node[a].alive && chp_random_chance(r, c->reset_ppm)) {
		sim_trace(w, "reset %u-%u", a, b);
		chp_shard_reset_link(w->node[a].shard, b);
		sim_node_run_soon(w, a, w->now_ns);
	}
	if (chp_random_chance(r, c->crash_ppm))
		sim_faults_lose(w, a);
	if (chp_random_chance(r, c->ambush_ppm))
		ambush(w, a);
	if (c->attack_ppm != 0 && chp_random_chance(r, c->attack_ppm))
		attack(w);
	if (chp_random_chance(r, c->view_ppm))
		same_view(w);
	if (c->uneven_ns_max != 0 && chp_random_chance(r, 50000))
		draw_uneven(w);
	if (chp_random_chance(r, c->trigger_ppm))
		set_trigger(w);
	if (chp_random_chance(r, c->client_cut_ppm))
		cut_client(w, a);
	if (c->clock_drift_ppm != 0 && chp_random_chance(r, c->rate_ppm))
		sim_node_set_rate(w, a, (int32_t)chp_random_below(r, 2 * c->clock_drift_ppm + 1) -
						(int32_t)c->clock_drift_ppm);
	if (w->flap_until_ns > w->now_ns && chp_random_chance(r, 400000))
		w->cut_until_ns[w->flap_a][w->flap_b] = w->cut_until_ns[w->flap_b][w->flap_a] =
			w->now_ns + chp_random_below(r, 3 * SIM_MS);
	if (c->budget == SIM_ROLLING)
		roll(w);
	if (chp_random_chance(r, c->cold_ppm))
		lose_all(w);
	if (c->shard.has_host)
		sim_host_faults(w);
}

void
sim_faults_tick(struct sim_world *w)
{
	if (w->healed)
		return;
	if (w->faults_from_ns == 0 && (w->config.early_faults || sim_faults_whole(w)))
		w->faults_from_ns = w->now_ns;
	if (w->faults_from_ns != 0)
		draw_faults(w);
	sim_schedule(w, w->now_ns + SIM_MS, SIM_FAULTS, 0, NULL);
}

/* One that the rest can do without, dead already or killed now, is not restarted. */
static void
choose_dead(struct sim_world *w)
{
	const uint32_t from = (uint32_t)chp_random_below(&w->random, w->config.n_nodes);

	if (w->n_entered == 0 || w->config.budget == SIM_BEYOND || !w->config.stays_dead || w->config.n_nodes < 3)
		return;
	for (uint32_t i = 0; i < w->config.n_nodes && w->stay_dead == 0; i++) {
		const uint32_t n = (from + i) % w->config.n_nodes;

		if (w->node[n].alive && may_lose(w, n))
			sim_node_crash(w, n);
		if (!w->node[n].alive)
			w->stay_dead = chp_bit(n);
	}
	sim_trace(w, "%" PRIx64 " stay dead", w->stay_dead);
}

void
sim_faults_heal(struct sim_world *w)
{
	/* Beyond the budget, the dead may stay dead. */
	const bool restart = w->config.budget != SIM_BEYOND || chp_random_chance(&w->random, 500000);

	choose_dead(w);
	sim_trace(w, "heal");
	w->healed = true;
	memset(w->cut_until_ns, 0, sizeof(w->cut_until_ns));
	memset(w->client_cut_until_ns, 0, sizeof(w->client_cut_until_ns));
	memset(w->mute_until_ns, 0, sizeof(w->mute_until_ns));
	for (uint32_t n = 0; n < w->config.n_nodes; n++) {
		sim_schedule(w, w->now_ns + chp_random_below(&w->random, SIM_MS), SIM_EPOCH, n, NULL);
		if (w->node[n].alive)
			sim_node_resume(w, n);
		else if (restart)
			sim_schedule(w, w->now_ns + chp_random_below(&w->random, SIM_MS), SIM_RESTART, n, NULL);
	}
	sim_host_heal(w);
	sim_clients_settle(w);
}
