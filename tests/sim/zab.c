/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is ZAB's alone: what its seeds are about, which losses it survives, which faults hit it hardest, its messages
 * in words. What must hold of it is in zab_watch.c.
 */
#include "zab_watch.h"

#include "base/mutation.h"
#include "wire/zab.h"

#include <inttypes.h>
#include <string.h>

/* ------------------------------------------------------------------ profiles */

enum profile {
	MIX,       /* everything, in all sizes */
	ELECTIONS, /* leaders that are attacked again and again */
	SYNC,      /* followers that are away for so long that they need DIFF, TRUNC or SNAP */
	QUORUM,    /* switches of the quorum rule under load, while nodes come and go */
	REBIRTH, /* restarts, which forget what was promised, and packets that arrive in another life */
	RETRY, /* leaders that die with requests in flight, and clients that are quick */
	STALE, /* reads asked of deposed leaders, and of followers that are cut off */
	CHURN, /* keys that are deleted and added again while they are copied */
};

_Static_assert(CHURN + 1 == SIM_PROFILES, "each has its seeds");

/*
 * Elections after so long without a leader, leases that fit (SAFETY 18), links that give up a silent peer later. A
 * healed network must be quick enough for the shortest: some round trips.
 */
static void
set_election(struct sim_config *c, struct chp_random *r, uint64_t election_ns)
{
	struct chp_shard_config *s = &c->shard;
	const uint64_t longest_ns =
		election_ns * 1000000 / (1000000 + 2 * c->clock_drift_ppm) * 95 / 100;

	s->election_ns = election_ns;
	s->clock_drift_ppm = c->clock_drift_ppm;
	s->leader_lease_ns = longest_ns * SIM_ONE_OF(r, 0, 25, 60, 100) / 100;
	s->link_down_ns = chp_max_u64(SIM_MS, election_ns * SIM_ONE_OF(r, 2, 5, 20));
	c->long_ns = chp_max_u64(c->suspect_ns / 2, 0) + election_ns * SIM_ONE_OF(r, 2, 5);
}

/* The log is as short as it may be, and there is room for what the credits allow. */
static void
set_credits(struct sim_config *c, uint32_t credits)
{
	sim_set_credits(c, credits, 1);
	c->shard.ops = (uint32_t)chp_max_u64(c->shard.ops, 2 * credits);
}

/* What every profile begins with. */
static void
draw_mix(struct sim_config *c, struct chp_random *r)
{
	static const uint32_t round_trips[] = { 8, 20, 60, 200 };
	const uint64_t trip_ns = 2 * c->latency_ns_max;

	c->relaxed_ppm = SIM_ONE_OF(r, 0, 0, 200000);
	set_credits(c, SIM_ONE_OF(r, 2, 4, 16));
	c->quorum_ppm = SIM_ONE_OF(r, 0, 0, 0, 1000);
	c->attack_ppm = SIM_ONE_OF(r, 0, 0, 20000, 60000);
	c->trigger_ppm = SIM_ONE_OF(r, 0, 20000, 100000, 400000);
	c->view_ppm = SIM_ONE_OF(r, 0, 0, 0, 2000);
	c->whole_pauses = chp_random_chance(r, 500000);
	c->ops = chp_min_u32(c->ops, 200);
	c->faults_ns_min = chp_min_u64(c->faults_ns_min, 100 * SIM_MS);
	set_election(c, r, trip_ns * round_trips[chp_random_below(r, CHP_ARRAY_LEN(round_trips))]);
	sim_set_load(c, c->ops, c->faults_ns_min);
}

/* Elections take longer than what a link repairs, and shorter than the faults. */
static void
set_calm(struct sim_config *c, struct chp_random *r)
{
	c->latency_ns_max = chp_random_range(r, 10000, 40000);
	c->uneven_ns_max = 0;
	c->drop_ppm = SIM_ONE_OF(r, 0, 0, 1000, 20000);
	c->delay_ppm = SIM_ONE_OF(r, 0, 1000);
	c->shard.rto_ns_min = SIM_ONE_OF(r, 100000, 300000);
	set_election(c, r, SIM_ONE_OF(r, 1, 2, 4) * SIM_MS);
}

/* Leaders die, stand still, are cut off, alone or with some followers, at each step of becoming one. */
static void
draw_elections(struct sim_config *c, struct chp_random *r)
{
	draw_mix(c, r);
	sim_make_room(c);
	set_calm(c, r);
	c->put_ppm = 500000;
	c->attack_ppm = SIM_ONE_OF(r, 50000, 150000);
	c->trigger_ppm = SIM_ONE_OF(r, 100000, 400000);
	c->partition_ppm = SIM_ONE_OF(r, 0, 20000);
	c->crash_ppm = SIM_ONE_OF(r, 0, 5000);
	c->ambush_ns_max = c->shard.election_ns;
	c->long_ns = c->shard.election_ns * SIM_ONE_OF(r, 2, 4, 8);
	c->down_ns_max = 10 * SIM_MS;
	sim_set_load(c, 200, 100 * SIM_MS);
}

/* Short logs, writes, and followers that miss many of them; deposed leaders with entries that nobody else has. */
static void
draw_sync(struct sim_config *c, struct chp_random *r)
{
	draw_mix(c, r);
	sim_make_room(c);
	set_calm(c, r);
	c->n_clients = SIM_CLIENTS_MAX;
	c->roamer_ppm = SIM_ONE_OF(r, 0, 300000);
	c->put_ppm = 800000;
	c->get_ppm = c->rmw_ppm = 0;
	c->n_keys = SIM_ONE_OF(r, 2, 12);
	c->crash_ppm = SIM_ONE_OF(r, 0, 2000);
	c->partition_ppm = SIM_ONE_OF(r, 30000, 60000);
	c->pause_ppm = SIM_ONE_OF(r, 0, 10000);
	c->attack_ppm = SIM_ONE_OF(r, 0, 50000);
	c->long_ns = 10 * SIM_MS;
	c->shard.copy_bytes = SIM_ONE_OF(r, 256, 1024);
	c->shard.link_down_ns = SIM_ONE_OF(r, 2, 5) * SIM_MS;
	set_credits(c, SIM_ONE_OF(r, 2, 4));
	sim_set_load(c, 500, 100 * SIM_MS);
}

static void
draw_quorum(struct sim_config *c, struct chp_random *r)
{
	draw_mix(c, r);
	sim_make_room(c);
	set_calm(c, r);
	c->quorum_ppm = SIM_ONE_OF(r, 5000, 50000);
	c->put_ppm = 500000;
	c->crash_ppm = SIM_ONE_OF(r, 0, 5000, 10000);
	c->partition_ppm = SIM_ONE_OF(r, 10000, 30000);
	c->attack_ppm = SIM_ONE_OF(r, 0, 30000);
	c->down_ns_max = 10 * SIM_MS;
	c->long_ns = 10 * SIM_MS;
	sim_set_load(c, 300, 100 * SIM_MS);
}

static void
draw_rebirth(struct sim_config *c, struct chp_random *r)
{
	draw_mix(c, r);
	sim_make_room(c);
	set_calm(c, r);
	sim_draw_times(c, r, 10 * SIM_MS);
	c->late_ppm = SIM_ONE_OF(r, 0, 20000, 100000);
	c->budget = SIM_ONE_OF(r, SIM_REPAIRABLE, SIM_ROLLING, SIM_BEYOND);
	c->crash_ppm = SIM_ONE_OF(r, 20000, 60000);
	c->attack_ppm = SIM_ONE_OF(r, 0, 50000);
	c->down_ns_max = SIM_ONE_OF(r, 2, 10) * SIM_MS;
	c->pause_ppm = 0;
	c->partition_ppm = SIM_ONE_OF(r, 0, 20000);
	c->shard.copy_bytes = SIM_ONE_OF(r, 256, 1024);
	c->put_ppm = 300000;
	sim_set_load(c, 200, 200 * SIM_MS);
}

static void
draw_retry(struct sim_config *c, struct chp_random *r)
{
	draw_mix(c, r);
	sim_make_room(c);
	set_calm(c, r);
	c->n_keys = SIM_ONE_OF(r, 1, 2, 3);
	c->n_clients = (uint32_t)chp_random_range(r, 6, SIM_CLIENTS_MAX);
	c->roamer_ppm = c->anywhere_ppm = c->delete_ppm = 0;
	c->rmw_ppm = 700000;
	c->pause_ppm = c->partition_ppm = SIM_ONE_OF(r, 0, 5000);
	c->crash_ppm = 0;
	c->attack_ppm = SIM_ONE_OF(r, 30000, 100000);
	c->ambush_ns_max = 2 * SIM_MS;
	c->down_ns_max = 5 * SIM_MS;
	c->retry_ns_min = c->latency_ns_max;
	c->retry_ns_max = 3 * c->latency_ns_max;
	c->retry_ns_cap = SIM_MS;
	c->patience_ns_min = 200 * SIM_MS;
	c->shard.session_window = 8;
	c->depth = (uint32_t)chp_random_range(r, 1, 4);
	set_credits(c, 16);
	sim_set_load(c, 400, 100 * SIM_MS);
}

static void
draw_stale(struct sim_config *c, struct chp_random *r)
{
	draw_mix(c, r);
	sim_make_room(c);
	set_calm(c, r);
	c->n_keys = SIM_ONE_OF(r, 1, 2);
	c->n_clients = SIM_CLIENTS_MAX;
	c->roamer_ppm = 400000;
	c->anywhere_ppm = SIM_ONE_OF(r, 0, 500000, 1000000);
	c->relaxed_ppm = SIM_ONE_OF(r, 0, 200000);
	c->get_ppm = 500000;
	c->put_ppm = 700000;
	c->delete_ppm = 0;
	c->duplicate_ppm = 0;
	c->long_ns = c->shard.election_ns * SIM_ONE_OF(r, 2, 4);
	c->whole_pauses = true;
	c->attack_ppm = SIM_ONE_OF(r, 50000, 150000);
	c->pause_ppm = SIM_ONE_OF(r, 0, 20000);
	c->partition_ppm = SIM_ONE_OF(r, 0, 30000);
	c->point_ppm = SIM_ONE_OF(r, 0, 1000, 5000);
	c->client_cut_ppm = SIM_ONE_OF(r, 0, 20000);
	c->crash_ppm = 0;
	c->patience_ns_min = 100 * SIM_MS;
	sim_set_load(c, 500, 100 * SIM_MS);
}

/* Copies of keys that come and go, in chunks so small that much happens meanwhile. */
static void
draw_churn(struct sim_config *c, struct chp_random *r)
{
	draw_sync(c, r);
	c->n_keys = SIM_ONE_OF(r, 4, 8, 12);
	c->delete_ppm = 800000;
	c->put_ppm = 0;
	c->close_ppm = SIM_ONE_OF(r, 0, 50000, 300000);
	c->crash_ppm = SIM_ONE_OF(r, 2000, 20000);
	c->down_ns_max = 5 * SIM_MS;
	c->shard.keys_max = SIM_CLIENTS_MAX + c->n_keys + SIM_ONE_OF(r, 4, 20);
	c->shard.copy_bytes = 256;
}

/* ------------------------------------------------------------------ what can be borne */

/* Whether a node has all that it ever promised: it was there from the first view on, or has recovered. */
static bool
remembers(const struct sim_world *w, uint32_t n)
{
	const struct sim_node *node = &w->node[n];
	const struct zab_life *life = &zab_watch(w)->life[n];

	if (!node->alive || node->shard_lives != node->lives)
		return false;
	if (life->in_view)
		return life->state.phase != CHP_ZAB_RECOVERING;
	return w->n_entered > 0 && w->entered[0].epoch != 0 &&
	       w->entered[0].incarnation[n] == node->membership.incarnation;
}

/* Partitions and pauses heal, and nobody is dropped for them. What counts is what is remembered. */
static bool
bearable(const struct sim_world *w, uint64_t lost, uint64_t disturbed)
{
	uint32_t left = 0;

	if (lost == 0 && disturbed != 0)
		return true;
	for (uint32_t n = 0; n < w->config.n_nodes; n++)
		left += remembers(w, n) && (lost & chp_bit(n)) == 0;
	if (w->n_entered > 0 && left < w->config.n_nodes / 2 + 1)
		return false;
	return sim_faults_views_bearable(w, lost, 0);
}

/* Nodes that are to be there. */
static uint64_t
wanted(const struct sim_world *w)
{
	return (chp_bit(w->config.n_nodes) - 1) & ~w->stay_dead;
}

/* All are voters of one view, which may have others, who are dead; and all follow one leader. */
static bool
whole(const struct sim_world *w)
{
	const struct zab_life *life = zab_watch(w)->life;
	const uint32_t first = chp_first_bit(wanted(w));
	uint32_t leaders = 0;

	for (uint64_t rest = wanted(w); rest != 0; rest &= rest - 1) {
		const uint32_t n = chp_first_bit(rest);
		const struct sim_node *node = &w->node[n];
		const struct chp_zab_state *s = &life[n].state;

		if (!node->alive || node->view.epoch == 0 ||
		    node->view.epoch != w->node[first].view.epoch ||
		    (node->view.voters & wanted(w)) != wanted(w) ||
		    node->shard_lives != node->lives)
			return false;
		if (s->phase != CHP_ZAB_BROADCAST || s->copying ||
		    s->current_epoch != life[first].state.current_epoch ||
		    s->leader != life[first].state.leader)
			return false;
		leaders += s->is_leader;
	}
	return leaders == 1;
}

/* Everything is committed and applied, by all; beats go on for ever. */
static bool
is_idle(const struct sim_world *w, uint32_t n)
{
	const struct zab_life *life = zab_watch(w)->life;
	const struct chp_zab_state *s = &life[n].state, *leader = &life[s->leader].state;
	static struct chp_shard_stats stats;

	if (s->leader == CHP_NODES_MAX || s->last != s->committed || s->applied != s->committed ||
	    s->last != leader->last)
		return false;
	chp_shard_stats(w->node[n].shard, &stats);
	return stats.open_ops == 0;
}

/* The newest leader. */
static uint32_t
target(struct sim_world *w)
{
	const struct zab_watch *z = zab_watch(w);

	if (z->established == 0 || !w->node[z->leader].alive)
		return SIM_NODES_MAX;
	return z->leader;
}

/* What two replicas have applied equally far is equal, unless one copies. */
static bool
agree(const struct sim_world *w, uint32_t a, uint32_t b)
{
	const struct zab_life *x = &zab_watch(w)->life[a], *y = &zab_watch(w)->life[b];

	return x->in_view && y->in_view && x->state.applied == y->state.applied &&
	       !x->state.copying && !y->state.copying && x->state.phase != CHP_ZAB_RECOVERING &&
	       y->state.phase != CHP_ZAB_RECOVERING;
}

/* ------------------------------------------------------------------ messages in words */

/* An epoch is a counter and its leader's writer number. */
static void
print_epoch(FILE *out, const char *before, uint64_t epoch)
{
	fprintf(out, "%s%" PRIu64 ".%" PRIu64, before, epoch >> 16, epoch & UINT16_MAX);
}

static void
print_zxid(FILE *out, const char *before, uint64_t epoch, uint64_t index)
{
	print_epoch(out, before, epoch);
	fprintf(out, "/%" PRIu64, index);
}

static void
print_history(FILE *out, const struct chp_zab_history *h)
{
	print_zxid(out, " last ", h->last_epoch, h->last);
	fprintf(out, " committed %" PRIu64 "%s", h->committed,
		(h->flags & CHP_ZAB_INCOMPLETE) != 0 ? " incomplete" : "");
}

static void
print_propose(FILE *out, const struct chp_zab_propose *m)
{
	print_zxid(out, "PROPOSE ", m->entry_epoch, m->index);
	if (m->entry_epoch != m->epoch)
		print_epoch(out, " in ", m->epoch);
	if ((m->entry_flags & CHP_ZAB_RULE) != 0) {
		fprintf(out, " rule %s", m->number == CHP_ZAB_ALL ? "all" : "majority");
	} else if ((m->entry_flags & CHP_ZAB_SESSION) != 0) {
		uint64_t id;

		memcpy(&id, chp_zab_propose_key(m), sizeof(id));
		fputs(" session ", out);
		sim_print_session(out, id);
		fputs((m->entry_flags & CHP_ZAB_REMOVE) != 0 ? " close" : " open", out);
	} else if (m->key_len != 0) {
		fputs(" k=", out);
		sim_print_bytes(out, chp_zab_propose_key(m), m->key_len);
		if ((m->entry_flags & CHP_ZAB_NOTHING) != 0) {
			fprintf(out, " %s", chp_status_name(m->status));
		} else if ((m->entry_flags & CHP_ZAB_REMOVE) != 0) {
			fputs(" deleted", out);
		} else {
			fputs(" \"", out);
			sim_print_bytes(out, chp_zab_propose_value(m), m->value_total);
			fputc('"', out);
		}
	} else {
		fputs(" nothing", out);
	}
	if (m->session != 0) {
		fputs(" for ", out);
		sim_print_session(out, m->session);
		fprintf(out, " req %" PRIu64, m->request);
	}
}

static void
print_sync(FILE *out, const char *name, const struct chp_zab_sync *m)
{
	print_epoch(out, name, m->epoch);
	fprintf(out, " keep %" PRIu64 " end %" PRIu64 "%s%s", m->keep, m->end,
		(m->sync_flags & CHP_ZAB_SNAP) != 0 ? " snap" : "",
		(m->sync_flags & CHP_ZAB_BEYOND) != 0 ? " beyond" : "");
}

static void
print_election(FILE *out, const struct chp_message *m)
{
	const struct chp_zab_look *look = (const void *)m;
	const struct chp_zab_newepoch *newepoch = (const void *)m;
	const struct chp_zab_ackepoch *ack = (const void *)m;
	const struct chp_zab_recover *recover = (const void *)m;
	const struct chp_zab_recovered *recovered = (const void *)m;

	if (m->type == CHP_ZAB_LOOK) {
		fprintf(out, "LOOK round %" PRIu64 "%s", look->round,
			(look->look_flags & CHP_ZAB_JOIN) != 0 ? " join" : "");
		print_epoch(out, " accepted ", look->accepted_epoch);
	} else if (m->type == CHP_ZAB_NEWEPOCH) {
		print_epoch(out, "NEWEPOCH ", newepoch->epoch);
	} else if (m->type == CHP_ZAB_RECOVER) {
		fprintf(out, "RECOVER %" PRIu64, recover->id);
	} else if (m->type == CHP_ZAB_RECOVERED) {
		fprintf(out, "RECOVERED %" PRIu64, recovered->id);
		print_epoch(out, " accepted ", recovered->accepted_epoch);
		fprintf(out, " last %" PRIu64 "%s", recovered->last,
			(recovered->recovered_flags & CHP_ZAB_ESTABLISHED) != 0 ? " leads" : "");
	} else {
		print_epoch(out, m->type == CHP_ZAB_PULL ? "PULL " : "ACKEPOCH ", ack->epoch);
		print_history(out, &ack->history);
	}
}

static void
print(FILE *out, const struct chp_message *m)
{
	const struct chp_zab_index *index = (const void *)m;
	const struct chp_zab_read *read = (const void *)m;
	const struct chp_zab_beat *beat = (const void *)m;
	const struct chp_zab_fetch *fetch = (const void *)m;
	const struct chp_zab_fetched *fetched = (const void *)m;
	static const char *const fetched_text[] = { "found", "deleted", "absent", "again", "known" };

	switch (m->type) {
	case CHP_ZAB_HISTORY:
		print_sync(out, "HISTORY ", (const void *)m);
		break;
	case CHP_ZAB_NEWLEADER:
		print_sync(out, "NEWLEADER ", (const void *)m);
		break;
	case CHP_ZAB_PROPOSE:
		print_propose(out, (const void *)m);
		break;
	case CHP_ZAB_ACKLD:
		print_zxid(out, "ACKLD ", index->epoch, index->index);
		break;
	case CHP_ZAB_ACK:
		print_zxid(out, "ACK ", index->epoch, index->index);
		break;
	case CHP_ZAB_COMMIT:
		print_zxid(out, "COMMIT ", index->epoch, index->index);
		fputs((index->index_flags & CHP_ZAB_UPTODATE) != 0 ? " up to date" : "", out);
		break;
	case CHP_ZAB_BEAT:
	case CHP_ZAB_BEAT_ACK:
		print_epoch(out, m->type == CHP_ZAB_BEAT ? "BEAT " : "BEAT_ACK ", beat->epoch);
		break;
	case CHP_ZAB_FETCH:
	case CHP_ZAB_OFFER:
		fprintf(out, "%s %u \"", m->type == CHP_ZAB_FETCH ? "FETCH" : "OFFER", m->op);
		sim_print_bytes(out, (const uint8_t *)(fetch + 1), fetch->key_len);
		fputc('"', out);
		break;
	case CHP_ZAB_FETCHED:
		fprintf(out, "FETCHED %u %s", m->op, fetched_text[fetched->status]);
		if (fetched->version != 0)
			fprintf(out, " v%" PRIu64, fetched->version);
		break;
	case CHP_ZAB_READ:
		fprintf(out, "READ %" PRIu64, read->id);
		break;
	case CHP_ZAB_READ_INDEX:
		fprintf(out, "READ_INDEX %" PRIu64 " at %" PRIu64, read->id, read->index);
		break;
	default:
		print_election(out, m);
	}
}

/* A leader says all the time that it is alive. */
static bool
is_dull(const struct chp_message *m)
{
	return m->type == CHP_ZAB_BEAT || m->type == CHP_ZAB_BEAT_ACK;
}

/* ------------------------------------------------------------------ the kind */

static bool
is_copying(const struct sim_world *w, uint32_t n)
{
	return zab_watch(w)->life[n].state.copying;
}

static const uint8_t triggers[] = { CHP_ZAB_LOOK,   CHP_ZAB_NEWEPOCH,   CHP_ZAB_ACKEPOCH,
				    CHP_ZAB_PULL,   CHP_ZAB_HISTORY,    CHP_ZAB_NEWLEADER,
				    CHP_ZAB_ACKLD,  CHP_ZAB_PROPOSE,    CHP_ZAB_ACK,
				    CHP_ZAB_COMMIT, CHP_ZAB_READ_INDEX, CHP_ZAB_RECOVERED };

/* Where some are found soonest, or, too rare for seeds, by a scenario. The others are everywhere. */
static const struct sim_ground grounds[] = {
	{ CHP_MUTATION_ZAB_READ_INDEX_EARLY, 5, STALE, NULL },
	{ .mutation = CHP_MUTATION_S23_SUPERSEDED_VOTE,
	  .scenario = "tests/scenarios/zab_superseded_vote.txt" },
	{ .mutation = CHP_MUTATION_NONE },
};

const struct sim_kind sim_zab = {
	.protocol = &chp_zab,
	.watch_bytes = sizeof(struct zab_watch),
	.draw = { [MIX] = draw_mix,
		  [ELECTIONS] = draw_elections,
		  [SYNC] = draw_sync,
		  [QUORUM] = draw_quorum,
		  [REBIRTH] = draw_rebirth,
		  [RETRY] = draw_retry,
		  [STALE] = draw_stale,
		  [CHURN] = draw_churn },
	.grounds = grounds,
	.triggers = triggers,
	.n_triggers = CHP_ARRAY_LEN(triggers),
	.target = target,
	.bearable = bearable,
	.whole = whole,
	.is_idle = is_idle,
	.born = zab_watch_born,
	.ran = zab_watch_ran,
	.forget = zab_watch_forget,
	.sends = zab_watch_sends,
	.is_copying = is_copying,
	.agree = agree,
	.print = print,
	.is_dull = is_dull,
};
