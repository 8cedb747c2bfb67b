/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The membership among 1 to 7, and once 64, nodes over a network in virtual time that loses, repeats, reorders, delays
 * and cuts, with processes that die, pause and come back, each with a clock of its own.
 *
 * After every step of every run (check): a view of an epoch is the same for all that enter it; two first
 * views that were entered have no process in common; no process has a valid lease when a later view
 * without it was entered anywhere (SAFETY 17); no incarnation returns to a view that has once lost it.
 */
#include "core/membership.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define MS UINT64_C(1000000)
#define S (1000 * MS)
#define NODES_MAX 7u /* of most tests */
#define PROCESSES_MAX 96u
#define PACKETS_MAX 16384u
#define VIEWS_MAX 512u
#define PAYLOAD 1472u
#define HASH 0x1234abcdu
#define SUSPECT (1 * S)
#define LEASE (300 * MS)
#define DRIFT_PPM 20000u
#define HOST_GRACE (2 * S)
#define NOBODY UINT32_MAX

struct process {
	struct chp_membership m;
	uint32_t id;
	bool alive;
	uint64_t paused_until_ns;
	int64_t clock_ppm;        /* how fast its clock is */
	uint64_t clock_at_0_ns;
	uint64_t incarnation;     /* when last looked at */
	uint32_t lives;
	uint64_t epoch;
	uint32_t history;         /* of its view: see struct entered */
	uint64_t copied_at_ns;    /* when a learner has its copy; 0 = is none */

	/* Its end of the channel to its host. */
	uint64_t welcomed_at_ns;
	uint64_t need_life, begun_at_ns; /* it asked for a life, which begins then */
	uint64_t life;                   /* that has begun */
	uint64_t recorded_at_ns;         /* when its store will have recorded its view; 0 = it need not */
	uint64_t value;                  /* the newest committed one that it knows */
};

/* The datastore of a node's host: it survives the processes. */
struct store {
	uint64_t life, recorded;
	uint64_t value;           /* the newest that is durable here */
	bool is_down, has_lost, has_items;
	uint64_t log_fill_ppm;    /* of the replica in front of it */
	bool is_stuck;            /* its cache, as well */
};

struct packet {
	uint64_t at_ns;
	uint32_t from, to; /* node ids */
	uint32_t len;
	uint8_t data[PAYLOAD];
};

/* A view that was entered. Every first view begins a history: several only where processes double. */
struct entered {
	struct chp_view view;
	uint32_t history;
	uint64_t at_ns;
};

struct world {
	struct chp_random random;
	uint64_t now_ns;
	uint32_t n_nodes;
	struct process process[PROCESSES_MAX];
	uint32_t n_processes;
	uint32_t n_packets;
	uint32_t loss_ppm, duplicate_ppm, slow_ppm;
	uint64_t suspect_ns, lease_ns;
	uint64_t delay_ns_min, delay_ns_max;
	uint64_t copy_ns;        /* how long a learner copies */
	uint32_t small_only;     /* node id whose outgoing path drops full-size packets; NOBODY */
	uint64_t cut[CHP_NODES_MAX]; /* cut[i]: node mask that node i cannot send to */
	bool one_of_two;         /* a packet reaches one of the processes with its node id, not all */
	bool clocks_agree;
	bool keeps;              /* as in protocols that keep their members */
	bool hosts;
	struct store store[NODES_MAX];
	uint64_t store_ns;       /* how long a store takes at most for anything */
	uint64_t value;          /* the last one given out; durable, and acknowledged: */
	uint64_t acknowledged;
	uint32_t cold_starts;
	struct entered entered[VIEWS_MAX];
	uint32_t n_entered, n_histories;
	uint64_t packets_of[CHP_CONTROL_TYPES];
	uint32_t leases_seen;    /* steps in which somebody had a lease: the check is not vacuous */
};

static struct world w;
static struct packet packet[PACKETS_MAX]; /* on the way: w.n_packets, in no order */

static void
world_init(uint64_t seed, uint32_t n_nodes)
{
	memset(&w, 0, sizeof(w));
	w.random.state = seed;
	w.now_ns = 1 * S;
	w.n_nodes = n_nodes;
	w.suspect_ns = SUSPECT;
	w.lease_ns = LEASE;
	w.copy_ns = 200 * MS;
	w.delay_ns_min = MS / 20;
	w.delay_ns_max = 2 * MS;
	w.small_only = NOBODY;
}

/* Of protocols that keep their members. */
static void
world_init_keeping(uint64_t seed, uint32_t n_nodes)
{
	world_init(seed, n_nodes);
	w.keeps = true;
}

/* With hosts. */
static void
world_init_hosts(uint64_t seed, uint32_t n_nodes)
{
	world_init(seed, n_nodes);
	w.hosts = true;
	w.store_ns = 20 * MS;
}

/* ---- clocks ---- */

static uint64_t
clock_of(const struct process *p)
{
	return p->clock_at_0_ns + (uint64_t)((int64_t)w.now_ns + (int64_t)(w.now_ns / 1000) * p->clock_ppm / 1000);
}

/* The first moment at which a process's clock shows a time. */
static uint64_t
moment_of(const struct process *p, uint64_t clock_ns)
{
	uint64_t ns, step = 2000;

	if (clock_ns == CHP_NEVER)
		return CHP_NEVER;
	if (clock_ns <= clock_of(p))
		return w.now_ns;
	ns = (uint64_t)((__int128)(clock_ns - p->clock_at_0_ns) * 1000000 / (1000000 + p->clock_ppm));
	return ns + step;
}

/* ---- what must hold always ---- */

static bool
has_lease(const struct process *p)
{
	return chp_membership_lease_until_ns(&p->m) > clock_of(p);
}

static bool
is_in(const struct chp_view *v, uint32_t id, uint64_t incarnation)
{
	return (chp_view_live(v) & chp_bit(id)) != 0 && v->incarnation[id] == incarnation;
}

/* Nobody has a lease in the presence of a later view of its history that does not have it. */
static void
check_lease(const struct process *p)
{
	if (!p->alive || p->epoch == 0 || !has_lease(p))
		return;
	w.leases_seen++;
	for (uint32_t i = 0; i < w.n_entered; i++) {
		const struct entered *e = &w.entered[i];

		if (e->history == p->history && e->view.epoch > p->epoch)
			cr_assert(is_in(&e->view, p->id, p->m.incarnation),
				  "node %u has a lease in view %lu, view %lu was entered without it", p->id,
				  p->epoch, e->view.epoch);
	}
}

static void
check_new_view(const struct entered *e)
{
	for (uint32_t i = 0; i < w.n_entered; i++) {
		const struct entered *o = &w.entered[i];

		if (o->history == e->history) {
			cr_assert_neq(o->view.epoch, e->view.epoch, "two views %lu", e->view.epoch);
			continue;
		}
		for (uint32_t n = 0; n < w.n_nodes && e->view.epoch == 1 && o->view.epoch == 1; n++)
			cr_assert_neq(o->view.incarnation[n], e->view.incarnation[n],
				      "two first views share a process");
	}
	/* Who has been dropped, never comes back. */
	for (uint32_t n = 0; n < w.n_nodes; n++) {
		bool before = false, between = false;

		for (uint32_t i = 0; i < w.n_entered; i++) {
			const struct entered *o = &w.entered[i];

			if (o->history != e->history || o->view.epoch >= e->view.epoch)
				continue;
			before = before || (e->view.incarnation[n] != 0 &&
					    o->view.incarnation[n] == e->view.incarnation[n]);
			between = before && o->view.incarnation[n] != e->view.incarnation[n];
		}
		cr_assert_not(between, "node %u came back as the same process", n);
	}
}

/* With keeps_members a view changes incarnations, whose vote is gone with them, and makes voters; no more. */
static void
check_kept(const struct chp_view *old, const struct chp_view *v)
{
	uint64_t all = UINT64_MAX >> (CHP_NODES_MAX - w.n_nodes);

	cr_assert_eq(chp_view_live(v), all);
	cr_assert_gt(2 * chp_count_bits(v->voters), w.n_nodes, "a majority of all votes");
	for (uint32_t n = 0; n < w.n_nodes; n++) {
		if (v->incarnation[n] != old->incarnation[n])
			cr_assert((v->learners & chp_bit(n)) != 0);
		else
			cr_assert((v->voters & chp_bit(n)) != 0 || (old->voters & chp_bit(n)) == 0);
	}
}

/*
 * Until all is reconciled, what is left of the stores that count has what was acknowledged at level `datastore`; and a
 * new cluster begins where nothing was.
 */
static void
check_sources(const struct chp_view *old, const struct chp_view *v)
{
	uint64_t sources = v->sources, newest = 0;

	if (v->epoch == 1)
		cr_assert_eq(w.acknowledged, 0, "a new cluster, and value %lu was acknowledged", w.acknowledged);
	if (old != NULL && old->sources != 0)
		sources = old->sources & v->voters;
	if (sources == 0)
		return;
	for (; sources != 0; sources &= sources - 1)
		newest = chp_max_u64(newest, w.store[chp_first_bit(sources)].value);
	cr_assert_geq(newest, w.acknowledged, "value %lu is lost with view %lu", w.acknowledged, v->epoch);
}

/* A view with hosts: there is one history, through all cold starts. */
static void
note_view_of_hosts(struct process *p, const struct chp_view *v)
{
	const struct chp_view *old = NULL;

	p->history = 1;
	for (uint32_t i = 0; i < w.n_entered; i++)
		if (w.entered[i].view.epoch + 1 == v->epoch)
			old = &w.entered[i].view;
	w.cold_starts += v->sources != 0 && chp_epoch_is_first(v->epoch);
	check_sources(old, v);
}

/* A process has entered a view. */
static void
note_view(struct process *p, const struct chp_view *v)
{
	struct entered e = { .view = *v, .history = p->history, .at_ns = w.now_ns };

	cr_assert_leq(w.n_entered, VIEWS_MAX);
	for (uint32_t i = 0; i < w.n_entered; i++)
		if (memcmp(&w.entered[i].view, v, sizeof(*v)) == 0) {
			p->history = w.entered[i].history;
			return;
		}
	/* Who decided it enters it first, and was in the view before. */
	if (w.hosts)
		note_view_of_hosts(p, v);
	e.history = p->history;
	if (w.hosts)
		cr_assert(p->epoch != 0 || chp_epoch_is_first(v->epoch), "a view from nowhere");
	else if (v->epoch == 1)
		p->history = e.history = ++w.n_histories;
	else
		cr_assert_neq(p->epoch, 0, "a view from nowhere");
	check_new_view(&e);
	for (uint32_t i = 0; i < w.n_entered && w.keeps; i++)
		if (w.entered[i].history == e.history && w.entered[i].view.epoch + 1 == v->epoch)
			check_kept(&w.entered[i].view, v);
	cr_assert_lt(w.n_entered, VIEWS_MAX);
	w.entered[w.n_entered++] = e;
	for (uint32_t i = 0; i < w.n_processes; i++)
		check_lease(&w.process[i]);
}

/* What the driver does: copy the state as a learner, tell when it is complete. */
static void
drive_learner(struct process *p, const struct chp_view *v)
{
	uint64_t copies = v == NULL ? 0 : v->sources != 0 ? v->sources : v->learners;
	bool learner = (copies & chp_bit(p->id)) != 0;

	if (!learner)
		p->copied_at_ns = 0;
	else if (p->copied_at_ns == 0)
		p->copied_at_ns = w.now_ns + w.copy_ns;
	else if (w.now_ns >= p->copied_at_ns)
		chp_membership_set_ready(&p->m, clock_of(p), true);
}

/* Time that a store takes for something, at least the least step of the clocks. */
static uint64_t
done_at_ns(void)
{
	return w.now_ns + 1 + chp_random_below(&w.random, w.store_ns);
}

/* A life begins, when membership wants one for a first view, or in the first view that there is. */
static void
drive_life(struct process *p, struct store *s, const struct chp_view *v)
{
	uint64_t need = chp_membership_founding(&p->m);

	if (v != NULL && p->life == 0)
		need = chp_max_u64(need, v->epoch);
	if (need > p->life && need > p->need_life) {
		p->need_life = need;
		p->begun_at_ns = done_at_ns();
	}
	if (p->need_life > p->life && w.now_ns >= p->begun_at_ns)
		p->life = s->life = chp_max_u64(s->life + 1, p->need_life);
}

/* What this replica has of before its view is recorded: when its copy is complete, or all is reconciled. */
static void
drive_record(struct process *p, struct store *s, const struct chp_view *v)
{
	bool copies = v != NULL && (v->learners & chp_bit(p->id)) != 0;

	if (v == NULL || p->life == 0 || s->recorded >= v->epoch || v->sources != 0 ||
	    (copies && (p->copied_at_ns == 0 || w.now_ns < p->copied_at_ns))) {
		p->recorded_at_ns = 0;
		return;
	}
	if (p->recorded_at_ns == 0)
		p->recorded_at_ns = done_at_ns();
	if (w.now_ns < p->recorded_at_ns)
		return;
	s->value = chp_max_u64(s->value, w.acknowledged); /* all voters have that, and it has all they have */
	s->recorded = v->epoch;
	p->recorded_at_ns = 0;
}

/* What the driver does with a host. True: membership may be in another view now. */
static void
drive_host(struct process *p)
{
	const struct chp_view *v = chp_membership_view(&p->m);
	struct store *s = &w.store[p->id];
	struct chp_membership_host h = { .shards = 1, .has_lost = s->has_lost && p->epoch != 0,
					 .is_stuck = s->is_stuck };

	if (p->welcomed_at_ns == 0)
		p->welcomed_at_ns = done_at_ns();
	if (w.now_ns >= p->welcomed_at_ns && !s->is_down) {
		drive_life(p, s, v);
		drive_record(p, s, v);
		h.is_there = !h.has_lost;
		h.is_ready = h.is_there && v != NULL && p->life != 0;
		h.has_items = s->has_items;
		h.recorded_min = h.recorded_max = s->recorded;
		h.life_min = h.life_max = s->life;
		h.log_fill_ppm = s->log_fill_ppm;
	}
	chp_membership_set_host(&p->m, clock_of(p), &h);
}

/* Look at every process after every step. */
static void
look(struct process *p)
{
	const struct chp_view *v = chp_membership_view(&p->m);

	chp_membership_check(&p->m);
	if (v == NULL || p->m.incarnation != p->incarnation) {
		/* Out of a view only as another incarnation in another life. */
		if (p->epoch != 0) {
			cr_assert_neq(p->m.incarnation, p->incarnation);
			cr_assert_eq(p->m.lives, p->lives + 1);
			cr_assert_not(p->m.ready);
			p->need_life = p->life = p->welcomed_at_ns = p->recorded_at_ns = 0;
			w.store[p->id % NODES_MAX].has_lost = false; /* what it had reported was to its predecessor */
		} else {
			cr_assert_eq(p->m.lives, p->lives);
		}
		p->epoch = 0;
		p->copied_at_ns = 0;
	}
	p->lives = p->m.lives;
	p->incarnation = p->m.incarnation;
	if (v != NULL && v->epoch != p->epoch) {
		cr_assert_gt(v->epoch, p->epoch);
		note_view(p, v);
		p->epoch = v->epoch;
	}
	check_lease(p);
	drive_learner(p, v);
}

static void
check(struct process *p)
{
	look(p);
	for (uint32_t i = 0; i < 2 && w.hosts && p->alive; i++) { /* what it hears leads to what it wants */
		drive_host(p);
		look(p);
	}
}

/*
 * A write of level `datastore`: acknowledged when all live members have it and the stores of a majority of all
 * configured members, each of which has recorded the view, or is in the first one of a generation.
 */
static void
write_value(struct process *p)
{
	const struct chp_view *v = chp_membership_view(&p->m);
	uint64_t stores = 0;

	if (v == NULL || !p->alive || (v->voters & chp_bit(p->id)) == 0 || !has_lease(p))
		return;
	for (uint64_t rest = chp_view_live(v); rest != 0; rest &= rest - 1) {
		uint32_t id = chp_first_bit(rest);
		const struct process *o = NULL;

		for (uint32_t i = 0; i < w.n_processes; i++)
			if (w.process[i].alive && w.process[i].m.incarnation == v->incarnation[id])
				o = &w.process[i];
		if (o == NULL || o->epoch != v->epoch)
			return;
		if (!w.store[id].is_down && o->life != 0 && chp_random_chance(&w.random, 700000) &&
		    (w.store[id].recorded >= v->epoch ||
		     (chp_epoch_is_first(v->epoch) && v->sources != 0)))
			stores |= chp_bit(id);
	}
	if (2 * chp_count_bits(stores) <= w.n_nodes)
		return;
	w.acknowledged = ++w.value;
	for (; stores != 0; stores &= stores - 1) {
		w.store[chp_first_bit(stores)].value = w.value;
		w.store[chp_first_bit(stores)].has_items = true;
	}
}

/* ---- processes ---- */

static struct process *
start(uint32_t id, bool bootstrap)
{
	struct process *p = &w.process[w.n_processes++];
	struct chp_membership_config config = {
		.cluster_hash = HASH,
		.self = id,
		.n_nodes = w.n_nodes,
		.payload_bytes = PAYLOAD,
		.incarnation = chp_random_u64(&w.random) | 1,
		.bootstrap = bootstrap,
		.suspect_ns = w.suspect_ns,
		.lease_ns = w.lease_ns,
		.clock_drift_ppm = DRIFT_PPM,
		.keeps_members = w.keeps,
		.has_hosts = w.hosts,
		.host_grace_ns = HOST_GRACE,
		.leave_fill_ppm = 950000,
		.lease_ns_max = w.lease_ns,
	};

	cr_assert_leq(w.n_processes, PROCESSES_MAX);
	for (uint32_t i = 0; i < w.n_nodes; i++)
		config.address[i] = 0x0a63000au + i;
	p->id = id;
	p->alive = true;
	p->clock_at_0_ns = chp_random_below(&w.random, 1000 * S);
	if (!w.clocks_agree)
		p->clock_ppm = (int64_t)chp_random_below(&w.random, 2 * DRIFT_PPM + 1) - (int64_t)DRIFT_PPM;
	chp_membership_init(&p->m, &config, clock_of(p));
	p->incarnation = p->m.incarnation;
	p->lives = 1;
	check(p);
	return p;
}

static void
start_all(void)
{
	for (uint32_t i = 0; i < w.n_nodes; i++)
		start(i, i == 0);
}

/* The newest process of a node id. */
static struct process *
node(uint32_t id)
{
	for (uint32_t i = w.n_processes; i-- > 0;)
		if (w.process[i].id == id)
			return &w.process[i];
	return NULL;
}

static void
end(uint32_t id)
{
	node(id)->alive = false;
}

static void
pause_for(struct process *p, uint64_t ns)
{
	p->paused_until_ns = w.now_ns + ns;
}

/* ---- network ---- */

static void
put_packet(uint32_t from, uint32_t to, const uint8_t *data, uint32_t len)
{
	struct packet *k = &packet[w.n_packets++];
	uint64_t delay = chp_random_range(&w.random, w.delay_ns_min, w.delay_ns_max);

	cr_assert_leq(w.n_packets, PACKETS_MAX);
	if (chp_random_chance(&w.random, w.slow_ppm))
		delay += chp_random_below(&w.random, 400 * MS);
	k->at_ns = w.now_ns + delay;
	k->from = from;
	k->to = to;
	k->len = len;
	memcpy(k->data, data, len);
}

static void
send_all(struct process *p)
{
	uint8_t data[PAYLOAD];
	uint32_t len, to;

	while ((len = chp_membership_transmit(&p->m, clock_of(p), data, &to)) != 0) {
		const struct chp_control_header *h = (const void *)data;

		cr_assert_leq(len, PAYLOAD);
		cr_assert_neq(to, p->id);
		cr_assert_eq(chp_control_check(data, len, HASH, w.n_nodes), CHP_PACKET_OK, "type %u", h->type);
		w.packets_of[h->type]++;
		if (chp_random_chance(&w.random, w.loss_ppm) || (w.cut[p->id] & chp_bit(to)) != 0 ||
		    (w.small_only == p->id && len == PAYLOAD))
			continue;
		put_packet(p->id, to, data, len);
		if (chp_random_chance(&w.random, w.duplicate_ppm))
			put_packet(p->id, to, data, len);
	}
}

/* Nobody reaches anybody of the other side, in either direction. */
static void
cut_off(uint64_t side)
{
	for (uint32_t i = 0; i < w.n_nodes; i++)
		w.cut[i] = (side & chp_bit(i)) != 0 ? ~side : side;
}

static void
heal(void)
{
	memset(w.cut, 0, sizeof(w.cut));
}

static void
random_faults(void)
{
	w.loss_ppm = (uint32_t)chp_random_below(&w.random, 300000);
	w.duplicate_ppm = (uint32_t)chp_random_below(&w.random, 200000);
	w.slow_ppm = (uint32_t)chp_random_below(&w.random, 300000);
}

static void
no_faults(void)
{
	w.loss_ppm = w.duplicate_ppm = w.slow_ppm = 0;
	heal();
	for (uint32_t i = 0; i < w.n_processes; i++)
		w.process[i].paused_until_ns = chp_min_u64(w.process[i].paused_until_ns, w.now_ns);
}

static void
deliver(const struct packet *k)
{
	uint32_t candidates = 0, chosen;

	for (uint32_t i = 0; i < w.n_processes; i++)
		candidates += w.process[i].alive && w.process[i].id == k->to;
	if (candidates == 0)
		return;
	chosen = (uint32_t)chp_random_below(&w.random, candidates);
	for (uint32_t i = 0; i < w.n_processes; i++) {
		struct process *p = &w.process[i];

		if (!p->alive || p->id != k->to)
			continue;
		if (w.one_of_two && chosen-- != 0)
			continue;
		if (p->paused_until_ns > w.now_ns) {
			struct packet *again = &packet[w.n_packets++]; /* it waits in the port */

			*again = *k;
			again->at_ns = p->paused_until_ns + chp_random_below(&w.random, MS);
			return;
		}
		chp_membership_receive(&p->m, clock_of(p), k->data, k->len, k->from);
		check(p);
		send_all(p);
	}
}

/* ---- time ---- */

static uint64_t
wake_of(const struct process *p)
{
	const uint64_t host_ns[] = { p->welcomed_at_ns, p->begun_at_ns, p->recorded_at_ns, p->copied_at_ns };
	uint64_t wake_ns;

	if (!p->alive)
		return CHP_NEVER;
	wake_ns = moment_of(p, chp_membership_wake_ns(&p->m));
	for (uint32_t i = 0; i < 4 && w.hosts; i++)
		if (host_ns[i] > w.now_ns)
			wake_ns = chp_min_u64(wake_ns, host_ns[i]);
	return chp_max_u64(wake_ns, p->paused_until_ns);
}

/* The next thing happens, at most until `until_ns`. False when there is nothing before. */
static bool
step(uint64_t until_ns)
{
	uint64_t at_ns = until_ns;
	struct process *wake = NULL;
	int64_t arrives = -1;
	struct packet k;

	for (uint32_t i = 0; i < w.n_packets; i++)
		if (packet[i].at_ns < at_ns) {
			at_ns = packet[i].at_ns;
			arrives = i;
		}
	for (uint32_t i = 0; i < w.n_processes; i++) {
		uint64_t wake_ns = wake_of(&w.process[i]);

		if (wake_ns < at_ns) {
			at_ns = wake_ns;
			wake = &w.process[i];
		}
	}
	w.now_ns = chp_max_u64(w.now_ns, at_ns);
	if (wake != NULL) {
		chp_membership_tick(&wake->m, clock_of(wake));
		check(wake);
		send_all(wake);
		return true;
	}
	if (arrives < 0)
		return false;
	k = packet[arrives];
	packet[arrives] = packet[--w.n_packets];
	deliver(&k);
	return true;
}

static void
run_for(uint64_t ns)
{
	uint64_t until_ns = w.now_ns + ns;

	while (step(until_ns))
		;
	w.now_ns = until_ns;
}

static bool
run_until(bool (*condition)(void), uint64_t ns)
{
	uint64_t until_ns = w.now_ns + ns;

	while (!condition())
		if (!step(until_ns))
			return false;
	return true;
}

/* ---- questions ---- */

static uint32_t
count(enum chp_membership_state state)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < w.n_processes; i++)
		n += w.process[i].alive && w.process[i].m.state == state;
	return n;
}

static bool
settled(void)
{
	return count(CHP_MEMBERSHIP_FORMING) == 0;
}

/* Run until nobody is forming any more. */
static bool
run_until_settled(uint64_t ns)
{
	return run_until(settled, ns);
}

static uint64_t
alive_nodes(void)
{
	uint64_t mask = 0;

	for (uint32_t i = 0; i < w.n_processes; i++)
		if (w.process[i].alive && w.process[i].m.state != CHP_MEMBERSHIP_REFUSED)
			mask |= chp_bit(w.process[i].id);
	return mask;
}

/* All that live and were not refused are voters of one view, and have a lease where there are leases. */
static bool
all_serve(void)
{
	uint64_t epoch = 0, alive = alive_nodes();

	for (uint32_t i = 0; i < w.n_processes; i++) {
		const struct process *p = &w.process[i];

		if (!p->alive || p->m.state == CHP_MEMBERSHIP_REFUSED)
			continue;
		if (p->m.view.voters != alive || p->m.view.learners != 0 || (!w.keeps && !has_lease(p)))
			return false;
		if (epoch != 0 && p->m.view.epoch != epoch)
			return false;
		epoch = p->m.view.epoch;
	}
	return epoch != 0;
}

/* A member that was silent until just now: it is one fault together with the next one that comes within a moment. */
static bool
half_suspects(const struct chp_membership *m)
{
	for (uint64_t rest = chp_view_live(&m->view) & ~chp_bit(m->config.self); rest != 0; rest &= rest - 1)
		if (m->detector.score[chp_first_bit(rest)] < CHP_DETECTOR_FULL)
			return true;
	return false;
}

/* And nothing is on its way that could change that: a voter that waits to be dropped counts as dead. */
static bool
all_quiet(void)
{
	if (!all_serve())
		return false;
	for (uint32_t i = 0; i < w.n_processes; i++) {
		const struct chp_membership *m = &w.process[i].m;

		if (w.process[i].alive && m->state == CHP_MEMBERSHIP_MEMBER &&
		    (m->wanted_ns != 0 || m->agreement.accepted_ballot != 0 ||
		     chp_membership_suspected(m) != 0 || half_suspects(m)))
			return false;
	}
	return true;
}

static const char *
waiting(const struct process *p)
{
	static char text[CHP_MEMBERSHIP_TEXT_BYTES];
	struct chp_text t = chp_text_of(text, sizeof(text));

	chp_membership_waiting(&p->m, clock_of(p), &t);
	return text;
}

/* Of every process, for a test that fails. */
static const char *
everybody(void)
{
	static char text[4096];
	struct chp_text t = chp_text_of(text, sizeof(text));

	for (uint32_t i = 0; i < w.n_processes; i++)
		if (w.process[i].alive)
			chp_text_add(&t, "\n  node %u: view %lu voters %lx learners %lx: %s", w.process[i].id,
				     w.process[i].m.view.epoch, w.process[i].m.view.voters,
				     w.process[i].m.view.learners, waiting(&w.process[i]));
	return text;
}

/* Whether a process ever reported a line that contains `part`. */
static bool
reported(struct process *p, const char *part)
{
	const char *line;
	bool found = false;

	while ((line = chp_membership_report(&p->m)) != NULL)
		found = found || strstr(line, part) != NULL;
	return found;
}

/* All nodes in view 1, with leases. */
static void
found(uint64_t seed, uint32_t n_nodes)
{
	world_init(seed, n_nodes);
	start_all();
	cr_assert(run_until(all_serve, 2 * S), "%s", everybody());
}

static void
found_keeping(uint64_t seed, uint32_t n_nodes)
{
	world_init_keeping(seed, n_nodes);
	start_all();
	cr_assert(run_until(all_serve, 2 * S), "%s", everybody());
}

/* ---- the first view ---- */

Test(membership, single_member_is_in_its_view_at_once_with_bootstrap)
{
	world_init(1, 1);
	struct process *p = start(0, true);

	check(p);
	cr_assert_eq(p->m.state, CHP_MEMBERSHIP_MEMBER);
	cr_assert_eq(chp_membership_view(&p->m)->epoch, 1);
	cr_assert_eq(chp_membership_view(&p->m)->voters, 1);
	cr_assert_eq(chp_membership_view(&p->m)->incarnation[0], p->m.incarnation);
	cr_assert_eq(chp_membership_wake_ns(&p->m), CHP_NEVER);
	cr_assert_eq(chp_membership_lease_until_ns(&p->m), CHP_NEVER, "it is a majority alone");
	run_for(100 * S);
	cr_assert(has_lease(p));
	cr_assert_str_eq(waiting(p), "in view 1");
}

Test(membership, without_bootstrap_there_is_no_view)
{
	for (uint32_t n = 1; n <= 3; n++) {
		world_init(n, n);
		for (uint32_t i = 0; i < n; i++)
			start(i, false);
		run_for(20 * S);
		cr_assert_eq(count(CHP_MEMBERSHIP_FORMING), n);
		for (uint32_t i = 0; i < n; i++) {
			cr_assert(strstr(waiting(&w.process[i]), "--bootstrap") != NULL, "%s",
				  waiting(&w.process[i]));
			cr_assert_eq(chp_membership_lease_until_ns(&w.process[i].m), 0);
		}
	}
}

Test(membership, bootstrap_on_another_node_is_not_enough_and_is_reported)
{
	world_init(1, 3);
	start(0, false);
	start(1, true);
	start(2, false);
	run_for(5 * S);
	cr_assert_eq(count(CHP_MEMBERSHIP_FORMING), 3);
	cr_assert(reported(&w.process[0], "node 1 (10.99.0.11) was started with --bootstrap"));
}

Test(membership, a_quiet_network_forms_fast_and_leases_follow)
{
	for (uint32_t n = 2; n <= NODES_MAX; n++) {
		world_init(n, n);
		start_all();
		cr_assert(run_until_settled(S / 4), "%u nodes: %s", n, waiting(&w.process[0]));
		cr_assert_eq(count(CHP_MEMBERSHIP_MEMBER), n);
		cr_assert(run_until(all_serve, 20 * MS), "%s", everybody());
		run_for(20 * S);
		cr_assert(all_serve());
		cr_assert_eq(w.n_entered, 1, "nothing changes");
		for (uint32_t i = 0; i < n; i++) {
			const struct chp_membership *m = &w.process[i].m;

			cr_assert_eq(m->counters.leases_lost, 0);
			cr_assert_eq(m->counters.leases_refused, 0);
			cr_assert_eq(m->counters.suspected, 0);
			cr_assert_eq(m->counters.proposals, 0);
			cr_assert_eq(m->view.writer[i], i + 1);
			cr_assert_eq(m->view.next_writer, n + 1);
			cr_assert_eq(m->n_changes, 1);
			cr_assert_str_eq(m->change[0].why, "first view");
		}
	}
}

Test(membership, all_members_are_needed)
{
	world_init(1, 3);
	start(0, true);
	struct process *one = start(1, false);

	run_for(10 * S);
	cr_assert_eq(count(CHP_MEMBERSHIP_FORMING), 2);
	cr_assert_str_eq(waiting(one), "waiting for node 2 (10.99.0.12): never heard");
	start(2, false);
	cr_assert(run_until_settled(2 * S));
	cr_assert_eq(count(CHP_MEMBERSHIP_MEMBER), 3);
	cr_assert(run_until(all_serve, S));
	cr_assert_str_eq(waiting(one), "in view 1");
}

Test(membership, a_bad_network_forms_one_view)
{
	for (uint64_t seed = 0; seed < 300; seed++) {
		world_init(seed, 1 + (uint32_t)(seed % NODES_MAX));
		random_faults();
		for (uint32_t i = 0; i < w.n_nodes; i++) {
			start(i, i == 0 || chp_random_chance(&w.random, 300000));
			run_for(chp_random_below(&w.random, 50 * MS));
		}
		cr_assert(run_until_settled(60 * S), "seed %lu: %s", seed, everybody());
		cr_assert_eq(count(CHP_MEMBERSHIP_MEMBER), w.n_nodes, "seed %lu", seed);
		cr_assert_eq(w.n_histories, 1, "seed %lu", seed);
	}
}

/* Processes die and start again at random until the first of them is in a view. */
Test(membership, restarts_while_forming)
{
	uint32_t abandoned = 0;

	for (uint64_t seed = 0; seed < 800; seed++) {
		world_init(seed, 3 + (uint32_t)(seed % (NODES_MAX - 2)));
		random_faults();
		start_all();
		for (uint32_t restarts = 0; restarts < 8 && w.n_entered == 0; restarts++) {
			uint32_t i = (uint32_t)chp_random_below(&w.random, w.n_processes);
			uint64_t until_ns = w.now_ns + chp_random_below(&w.random, 200 * MS);

			while (w.n_entered == 0 && step(until_ns))
				;
			if (w.n_entered != 0 || !w.process[i].alive)
				continue;
			w.process[i].alive = false;
			start(w.process[i].id, w.process[i].id == 0);
		}
		cr_assert(run_until_settled(90 * S), "seed %lu: %s", seed, everybody());
		cr_assert_eq(w.n_histories, 1, "seed %lu", seed);
		cr_assert_eq(count(CHP_MEMBERSHIP_REFUSED), 0);
		/* Those whose earlier process accepted the view before it died come back, a minority. */
		no_faults();
		if (2 * count(CHP_MEMBERSHIP_MEMBER) > w.n_nodes)
			cr_assert(run_until(all_serve, 60 * S), "seed %lu: %s", seed, everybody());
		for (uint32_t i = 0; i < w.n_processes; i++)
			abandoned += (uint32_t)w.process[i].m.counters.abandoned;
	}
	cr_assert_gt(abandoned, 0, "the hard case never came up");
}

Test(membership, a_member_that_small_packets_alone_reach_is_reported_and_awaited)
{
	world_init(1, 3);
	w.small_only = 2;
	start_all();
	run_for(10 * S);
	cr_assert_eq(count(CHP_MEMBERSHIP_FORMING), 3);
	cr_assert_str_eq(waiting(&w.process[0]),
			 "waiting for node 2 (10.99.0.12): heard only in small packets (MTU?)");
	cr_assert_str_eq(waiting(&w.process[2]),
			 "waiting for node 0 (10.99.0.10): hears us only in small packets (MTU?)");
	cr_assert(reported(&w.process[1], "we hear node 2 (10.99.0.12) only in small packets"));
	cr_assert(reported(&w.process[2], "node 1 (10.99.0.11) hears us only in small packets"));
	cr_assert_gt(w.process[1].m.counters.short_only, 0);
	w.small_only = NOBODY;
	cr_assert(run_until_settled(3 * S));
	cr_assert_eq(count(CHP_MEMBERSHIP_MEMBER), 3);
}

Test(membership, one_way_cuts_are_named)
{
	world_init(1, 3);
	w.cut[1] = chp_bit(2);
	start_all();
	run_for(10 * S);
	cr_assert_eq(count(CHP_MEMBERSHIP_FORMING), 3);
	cr_assert_str_eq(waiting(&w.process[0]),
			 "waiting for node 2 (10.99.0.12): does not hear node 1 (10.99.0.11)");
	cr_assert_str_eq(waiting(&w.process[1]),
			 "waiting for node 2 (10.99.0.12): does not hear us");
	w.cut[1] = 0;
	cr_assert(run_until_settled(3 * S));
}

/* ---- members die ---- */

/* When the survivors of the death of `dead` were in a view without them. */
static uint64_t
change_time(uint64_t dead)
{
	uint64_t died_ns = w.now_ns;

	for (uint32_t i = 0; i < w.n_nodes; i++)
		if ((dead & chp_bit(i)) != 0)
			end(i);
	cr_assert(run_until(all_serve, 10 * S), "dead %lx: %s", dead, everybody());
	return w.now_ns - died_ns;
}

Test(membership, a_dead_member_is_dropped_after_the_suspicion_time)
{
	for (uint32_t n = 3; n <= NODES_MAX; n++) {
		for (uint32_t dead = 0; dead < n; dead++) {
			uint64_t ns;

			found(n * 100 + dead, n);
			run_for(chp_random_below(&w.random, 2 * S));
			ns = change_time(chp_bit(dead));
			/* Heartbeats are jittered, clocks drift: a tenth on both sides. */
			cr_assert_geq(ns, SUSPECT * 85 / 100, "%lu ms", ns / MS);
			cr_assert_leq(ns, SUSPECT * 125 / 100, "%lu ms", ns / MS);
			cr_assert_eq(w.n_entered, 2);
			for (uint32_t i = 0; i < n; i++) {
				struct process *p = node(i);
				char why[64];

				if (!p->alive)
					continue;
				snprintf(why, sizeof(why), "node %u suspected", dead);
				cr_assert_str_eq(p->m.change[1].why, why);
				cr_assert_eq(p->m.counters.leases_lost, 0, "reads went on");
				cr_assert_eq(p->m.view.next_writer, n + 1);
				cr_assert_eq(p->m.view.writer[i], i + 1);
				cr_assert_eq(p->m.view.incarnation[dead], 0);
				snprintf(why, sizeof(why), "(node %u suspected)", dead);
				cr_assert(reported(p, why));
			}
		}
	}
}

/* As on pinned cores: half a millisecond of silence is suspicious. */
Test(membership, times_may_be_a_thousand_times_shorter)
{
	for (uint64_t seed = 0; seed < 20; seed++) {
		uint64_t ns;

		world_init(seed, 3);
		w.suspect_ns = MS / 2;
		w.lease_ns = MS / 5;
		w.copy_ns = MS;
		w.delay_ns_min = 2000;
		w.delay_ns_max = 8000;
		start_all();
		cr_assert(run_until(all_serve, S), "%s", everybody());
		run_for(20 * MS);
		cr_assert_eq(w.n_entered, 1);
		ns = change_time(chp_bit((uint32_t)(seed % 3)));
		cr_assert_leq(ns, w.suspect_ns * 13 / 10, "%lu us", ns / 1000);
		start((uint32_t)(seed % 3), false);
		cr_assert(run_until(all_serve, 100 * MS), "%s", everybody());
		for (uint32_t i = 0; i < 3; i++)
			cr_assert_eq(node(i)->m.counters.leases_lost, 0);
	}
}

Test(membership, any_minority_may_die_at_once)
{
	for (uint32_t n = 3; n <= NODES_MAX; n++) {
		for (uint64_t seed = 0; seed < 10; seed++) {
			uint64_t dead = 0;

			found(seed, n);
			while (chp_count_bits(dead) < (n - 1) / 2)
				dead |= chp_bit((uint32_t)chp_random_below(&w.random, n));
			/* One view change, two where they are suspected a step apart. */
			cr_assert_leq(change_time(dead), 3 * S);
			cr_assert_leq(w.n_entered, 3);
		}
	}
}

Test(membership, one_after_the_other_down_to_two)
{
	found(1, 5);
	for (uint32_t i = 0; i < 3; i++) {
		cr_assert_leq(change_time(chp_bit(i)), 2 * S);
		cr_assert_eq(node(4)->m.view.voters, 0x1fu & ~((2u << i) - 1));
	}
	/* Two: neither is a majority without the other. */
	end(3);
	run_for(20 * S);
	cr_assert_eq(node(4)->m.view.voters, 0x18u);
	cr_assert_not(has_lease(node(4)));
	cr_assert_eq(node(4)->m.counters.leases_lost, 1);
	cr_assert(strstr(waiting(node(4)), "no lease: node 3 (10.99.0.13) not heard for ") != NULL, "%s",
		  waiting(node(4)));
	cr_assert(reported(node(4), "no lease: node 3 (10.99.0.13) "));
	/* A restart of the other one has lost its memory: it is not taken for it, and says why. */
	start(3, true);
	run_for(20 * S);
	cr_assert_eq(node(4)->m.view.voters, 0x18u);
	cr_assert_eq(node(3)->m.state, CHP_MEMBERSHIP_JOINING);
	cr_assert(strstr(waiting(node(3)), "heard another process as node 3") != NULL, "%s", waiting(node(3)));
	cr_assert_not(has_lease(node(4)));
}

Test(membership, a_minority_serves_nothing_and_a_majority_goes_on)
{
	for (uint64_t seed = 0; seed < 60; seed++) {
		uint32_t n = 3 + (uint32_t)(seed % 5);
		uint64_t side = 0;
		uint32_t cut;

		found(seed, n);
		run_for(chp_random_below(&w.random, S));
		while (chp_count_bits(side) < (n - 1) / 2)
			side |= chp_bit((uint32_t)chp_random_below(&w.random, n));
		cut = chp_first_bit(side);
		cut_off(side);
		/* check() sees to it that no lease is left when the majority enters its view. */
		run_for(3 * S);
		for (uint32_t i = 0; i < n; i++) {
			bool minority = (side & chp_bit(i)) != 0;

			cr_assert_eq(has_lease(node(i)), !minority, "seed %lu node %u", seed, i);
			cr_assert_eq(chp_membership_view(&node(i)->m)->epoch == 1, minority);
		}
		cr_assert_eq(node(cut)->m.lives, 1);
		cr_assert(strstr(waiting(node(cut)), "no lease: ") != NULL);
		heal();
		cr_assert(run_until(all_serve, 15 * S), "seed %lu: %s", seed, everybody());
		cr_assert_eq(node(cut)->m.lives, 2);
		cr_assert_eq(node(cut)->m.counters.reborn, 1);
		cr_assert(reported(node(cut), "we drop our state"));
	}
}

/* Half and half: nobody goes on, and nothing is lost. */
Test(membership, without_any_majority_all_wait_and_then_go_on)
{
	found(1, 4);
	cut_off(3);
	run_for(20 * S);
	for (uint32_t i = 0; i < 4; i++) {
		cr_assert_not(has_lease(node(i)));
		cr_assert_eq(node(i)->m.view.epoch, 1);
	}
	cr_assert_eq(chp_membership_suspected(&node(0)->m), 0xcu);
	heal();
	cr_assert(run_until(all_serve, 2 * S), "%s", everybody());
	cr_assert_eq(w.n_entered, 1);
	cr_assert(reported(node(0), "lease regained"));
}

Test(membership, a_paused_member_wakes_without_a_lease)
{
	for (uint64_t seed = 0; seed < 40; seed++) {
		uint32_t victim = (uint32_t)(seed % 3);

		found(seed, 3);
		pause_for(node(victim), SUSPECT / 4 + chp_random_below(&w.random, 3 * S));
		run_for(4 * S); /* check() looks at its lease when the others go on, and when it wakes */
		cr_assert(run_until(all_serve, 10 * S), "seed %lu: %s", seed, everybody());
		cr_assert_leq(node(victim)->m.lives, 2);
		/* It slept: the others did not. */
		cr_assert_eq(node((victim + 1) % 3)->m.lives, 1);
		cr_assert_eq(node((victim + 2) % 3)->m.lives, 1);
	}
}

/* ---- the proposer dies ---- */

/* Run until the proposer, node 0, is in a phase of its agreement, or already in the next view. */
static void
run_to_phase(enum chp_agreement_phase phase)
{
	uint64_t epoch = node(0)->m.view.epoch;

	while (node(0)->m.agreement.phase != phase && node(0)->m.view.epoch == epoch)
		cr_assert(step(w.now_ns + 2 * SUSPECT));
}

/* It leaves two of four voters: a majority only if the view change was decided before it died. */
Test(membership, a_proposer_may_die_with_half_of_the_voters)
{
	uint32_t decided = 0, stuck = 0;

	for (uint64_t seed = 0; seed < 60; seed++) {
		found(seed, 5);
		change_time(chp_bit(4)); /* view 2: four voters */
		end(3);
		run_to_phase(seed % 3 == 0 ? CHP_AGREEMENT_PREPARING : CHP_AGREEMENT_ACCEPTING);
		if (seed % 3 == 2)
			while (node(0)->m.view.epoch == 2)
				cr_assert(step(w.now_ns + SUSPECT));
		end(0);
		if (seed % 2 == 0) /* what it sent last is lost with it */
			w.n_packets = 0;
		start(3, false);
		start(0, false);
		run_for(5 * S);
		if (node(1)->m.view.epoch == 2) {
			cr_assert_not(has_lease(node(1)));
			cr_assert_not(has_lease(node(2)));
			stuck++;
		} else {
			cr_assert(run_until(all_serve, 20 * S), "seed %lu: %s", seed, everybody());
			decided++;
		}
	}
	cr_assert_gt(decided, 5);
	cr_assert_gt(stuck, 15);
}

/* Pitfall P37: only the dead proposer knows what was decided; the others would want something else. */
Test(membership, what_was_decided_is_found_again)
{
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct chp_view decided;

		found(seed, 5);
		end(4);
		for (uint32_t i = 1; i < 4; i++)
			node(i)->m.hold_ns = CHP_NEVER;
		while (node(0)->m.view.epoch == 1) {
			cr_assert(step(w.now_ns + 2 * SUSPECT));
			for (uint32_t i = 1; i < 4; i++)
				node(i)->m.hold_ns = CHP_NEVER;
		}
		decided = node(0)->m.view;
		end(0);
		w.n_packets = 0;
		run_for(2 * SUSPECT);
		for (uint32_t i = 1; i < 4; i++) {
			cr_assert_eq(node(i)->m.view.epoch, 1);
			cr_assert_neq(chp_membership_suspected(&node(i)->m) & 1, 0);
			node(i)->m.hold_ns = 0;
		}
		cr_assert(run_until(all_serve, 5 * S), "seed %lu: %s", seed, everybody());
		cr_assert_eq(node(1)->m.view.epoch, 3);
		cr_assert_eq(w.n_entered, 3);
		cr_assert_eq(memcmp(&w.entered[1].view, &decided, sizeof(decided)), 0);
	}
}

/* The same where a majority is left in any case: the view change must come to its end. */
Test(membership, another_voter_finishes_what_a_dead_proposer_began)
{
	uint32_t adopted = 0;

	for (uint64_t seed = 0; seed < 200; seed++) {
		uint64_t died_ns;

		found(seed, 5);
		end(4);
		run_to_phase(seed % 3 == 0 ? CHP_AGREEMENT_PREPARING : CHP_AGREEMENT_ACCEPTING);
		if (seed % 3 == 2)
			run_for(chp_random_below(&w.random, 3 * MS));
		end(0);
		if (seed % 2 == 0)
			w.n_packets = 0;
		for (uint32_t i = 1; i < 4; i++)
			adopted += node(i)->m.agreement.accepted_ballot != 0;
		died_ns = w.now_ns;
		cr_assert(run_until(all_serve, 10 * S), "seed %lu: %s", seed, everybody());
		cr_assert_leq(w.now_ns - died_ns, 25 * S / 10, "seed %lu: %lu ms", seed,
			      (w.now_ns - died_ns) / MS);
		cr_assert_eq(node(1)->m.view.voters, 0xeu);
	}
	cr_assert_gt(adopted, 50, "nobody had accepted anything");
}

Test(membership, duelling_proposers_come_to_an_end)
{
	uint64_t rejected = 0;

	for (uint64_t seed = 0; seed < 60; seed++) {
		uint64_t epoch;

		found(seed, 5);
		end(4);
		/* Let all want the next view, and then believe to be first. */
		for (uint32_t i = 0; i < 4; i++)
			node(i)->m.hold_ns = CHP_NEVER;
		run_for(2 * SUSPECT);
		w.slow_ppm = 500000;
		w.loss_ppm = 200000;
		for (uint32_t i = 0; i < 4; i++) {
			cr_assert_neq(node(i)->m.wanted_ns, 0);
			node(i)->m.wanted_ns = 1;
			node(i)->m.hold_ns = 0;
		}
		cr_assert(run_until(all_serve, 30 * S), "seed %lu: %s", seed, everybody());
		epoch = node(0)->m.view.epoch;
		cr_assert_geq(epoch, 2);
		for (uint32_t i = 0; i < 4; i++)
			rejected += node(i)->m.counters.rejected;
	}
	cr_assert_gt(rejected, 20, "nobody duelled");
}

/* ---- members return ---- */

Test(membership, a_restarted_member_learns_and_votes_again)
{
	for (uint64_t seed = 0; seed < 60; seed++) {
		uint32_t n = 3 + (uint32_t)(seed % 5), victim = (uint32_t)chp_random_below(&w.random, n);
		uint64_t first;

		found(seed, n);
		victim = (uint32_t)chp_random_below(&w.random, n);
		first = node(victim)->m.incarnation;
		end(victim);
		/* Within the suspicion time and after it. */
		run_for(chp_random_below(&w.random, 2 * SUSPECT));
		start(victim, victim == 0);
		run_for(200 * MS);
		cr_assert_neq(node(victim)->m.state, CHP_MEMBERSHIP_REFUSED);
		cr_assert(run_until(all_serve, 8 * S), "seed %lu: %s", seed, everybody());
		cr_assert_eq(w.n_entered, 4, "dropped, admitted, promoted");
		cr_assert_eq(w.entered[2].view.learners, chp_bit(victim));
		cr_assert_eq(w.entered[2].view.writer[victim], n + 1);
		cr_assert_eq(w.entered[3].view.learners, 0);
		cr_assert_eq(w.entered[3].view.writer[victim], n + 1);
		cr_assert_eq(w.entered[3].view.next_writer, n + 2);
		cr_assert_neq(node(victim)->m.incarnation, first);
		cr_assert_eq(node(victim)->m.lives, 1, "it had not been in a view in this process");
		for (uint32_t i = 0; i < n; i++) {
			const struct chp_membership *m = &node(i)->m;

			if (i == victim)
				continue;
			cr_assert_eq(m->counters.leases_lost, 0, "seed %lu node %u: reads went on", seed, i);
			cr_assert(strstr(m->change[2].why, "admitted") != NULL);
			cr_assert(strstr(m->change[3].why, "promoted") != NULL);
			cr_assert_eq(m->counters.admitted, 1);
			cr_assert_eq(m->counters.promoted, 1);
			cr_assert_eq(m->lives, 1);
		}
		cr_assert_str_eq(node(victim)->m.change[0].why, "joined");
	}
}

Test(membership, a_learner_serves_nothing_until_it_is_ready)
{
	found(1, 3);
	end(2);
	w.copy_ns = 5 * S;
	start(2, false);
	run_for(4 * S);
	cr_assert_eq(node(2)->m.view.learners, 4u);
	cr_assert_eq(chp_membership_lease_until_ns(&node(2)->m), 0);
	cr_assert_str_eq(waiting(node(2)), "in view 3, copying the state");
	cr_assert(has_lease(node(0)));
	cr_assert_eq(node(0)->m.counters.leases_given > 0, true);
	cr_assert(run_until(all_serve, 8 * S), "%s", everybody());
	/* Ready is forgotten with the life in which it was said. */
	cr_assert(node(2)->m.ready);
	cut_off(4);
	run_for(3 * S);
	heal();
	run_for(200 * MS);
	cr_assert_eq(node(2)->m.lives, 2);
	cr_assert_not(node(2)->m.ready);
	/* What the driver says outside a view is of the life before. */
	cr_assert_null(chp_membership_view(&node(2)->m));
	chp_membership_set_ready(&node(2)->m, clock_of(node(2)), true);
	cr_assert_not(node(2)->m.ready);
}

Test(membership, a_learner_that_dies_is_dropped)
{
	found(1, 3);
	end(2);
	w.copy_ns = 1000 * S;
	start(2, false);
	run_for(4 * S);
	cr_assert_eq(node(0)->m.view.learners, 4u);
	cr_assert_leq(change_time(chp_bit(2)), 2 * S);
	cr_assert_eq(node(0)->m.view.voters, 3u);
}

Test(membership, restarts_at_any_time)
{
	for (uint64_t seed = 0; seed < 40; seed++) {
		found(seed, 3 + 2 * (uint32_t)(seed % 2));
		for (uint32_t k = 0; k < 8; k++) {
			uint32_t victim = (uint32_t)chp_random_below(&w.random, w.n_nodes);

			end(victim);
			run_for(chp_random_below(&w.random, 100 * MS));
			start(victim, victim == 0);
			cr_assert(run_until(all_serve, 20 * S), "seed %lu: %s", seed, everybody());
		}
		cr_assert_eq(w.n_histories, 1);
		cr_assert_eq(count(CHP_MEMBERSHIP_REFUSED), 0);
	}
}

/* When all are gone and nobody knows of a view any more, a new cluster can be founded. */
Test(membership, after_all_have_died_a_new_cluster_can_be_founded)
{
	found(1, 3);
	end(1);
	end(2);
	run_for(500 * MS);
	start(1, false);
	start(2, false);
	run_for(5 * S);
	cr_assert_eq(node(1)->m.state, CHP_MEMBERSHIP_JOINING);
	cr_assert_eq(node(2)->m.state, CHP_MEMBERSHIP_JOINING);
	end(0);
	start(0, true);
	cr_assert(run_until(all_serve, 15 * S), "%s", everybody());
	cr_assert_eq(w.n_histories, 2);
	cr_assert_eq(node(0)->m.view.epoch, 1);
	cr_assert_eq(node(1)->m.lives, 1);
}

Test(membership, a_flapping_member_does_not_cause_endless_views)
{
	uint32_t views;

	found(1, 3);
	for (uint32_t k = 0; k < 8; k++) {
		cut_off(4);
		run_for(1500 * MS);
		heal();
		run_for(2500 * MS);
	}
	views = w.n_entered;
	/* Without waits each round has three views. */
	cr_assert_leq(views, 17, "%u views", views);
	for (uint32_t k = 0; k < 8; k++) {
		cut_off(4);
		run_for(1500 * MS);
		heal();
		run_for(2500 * MS);
	}
	cr_assert_leq(w.n_entered - views, 12, "%u views", w.n_entered - views);
	cr_assert_eq(node(0)->m.lives, 1);
	cr_assert_eq(node(0)->m.counters.leases_lost, 0, "the others went on");
	cr_assert(run_until(all_serve, (CHP_MEMBERSHIP_FLAP_WAITS + 5) * SUSPECT), "%s", everybody());
}

/* Heard now and then is not heard well: the score does not recover, so it is not admitted. */
Test(membership, one_way_cuts_end_in_a_stable_view)
{
	for (uint32_t from = 0; from < 3; from++) {
		for (uint32_t to = 0; to < 3; to++) {
			uint32_t views;

			if (from == to)
				continue;
			found(from * 3 + to, 3);
			w.cut[from] = chp_bit(to);
			run_for(10 * S);
			/* Who is not heard is out, by whoever noticed; the other two serve. */
			cr_assert_eq(chp_count_bits(node(3 - from - to)->m.view.voters), 2);
			cr_assert(has_lease(node(3 - from - to)));
			views = w.n_entered;
			run_for(30 * S);
			cr_assert_eq(w.n_entered, views, "cut %u to %u", from, to);
			heal();
			cr_assert(run_until(all_serve, 15 * S), "%s", everybody());
		}
	}
}

/* ---- two processes with one node id ---- */

Test(membership, of_two_processes_with_one_id_one_is_refused)
{
	for (uint64_t seed = 0; seed < 60; seed++) {
		uint32_t n = 3 + (uint32_t)(seed % (NODES_MAX - 2));
		uint32_t twin = (uint32_t)chp_random_below(&w.random, n);

		found(seed, n);
		twin = (uint32_t)chp_random_below(&w.random, n);
		random_faults();
		w.loss_ppm /= 2;
		run_for(chp_random_below(&w.random, S));
		start(twin, twin == 0);
		run_for(20 * S);
		cr_assert_eq(count(CHP_MEMBERSHIP_REFUSED), 1, "seed %lu n %u twin %u: %s", seed, n, twin,
			     everybody());
		if (node(twin)->m.state == CHP_MEMBERSHIP_REFUSED) {
			cr_assert(strstr(node(twin)->m.reason, "another process runs as node") != NULL);
			cr_assert_eq(chp_membership_wake_ns(&node(twin)->m), CHP_NEVER);
			cr_assert_eq(chp_membership_lease_until_ns(&node(twin)->m), 0);
		}
		no_faults();
		cr_assert(run_until(all_serve, 20 * S), "seed %lu: %s", seed, everybody());
		cr_assert(reported(node((twin + 1) % n), "two processes run as node"));
	}
}

Test(membership, of_two_processes_that_found_together_one_is_refused)
{
	for (uint64_t seed = 0; seed < 60; seed++) {
		uint32_t n = 3 + (uint32_t)(seed % (NODES_MAX - 2));
		uint32_t twin;

		world_init(seed, n);
		twin = (uint32_t)chp_random_below(&w.random, n);
		random_faults();
		w.loss_ppm /= 2;
		w.one_of_two = seed % 2 == 0;
		start_all();
		run_for(chp_random_below(&w.random, 100 * MS));
		start(twin, twin == 0);
		run_for(20 * S);
		no_faults();
		w.one_of_two = false;
		run_for(30 * S);
		cr_assert(all_serve(), "seed %lu n %u twin %u: %s", seed, n, twin, everybody());
		cr_assert_eq(count(CHP_MEMBERSHIP_REFUSED), 1, "seed %lu n %u twin %u: %s", seed, n, twin,
			     everybody());
		cr_assert_eq(w.n_histories, 1, "seed %lu", seed);
	}
}

/* ---- refusals ---- */

static struct chp_control_header
header(const struct process *from, const struct process *to, enum chp_control_type type)
{
	return (struct chp_control_header){
		.prelude = {
			.magic = CHP_WIRE_MAGIC,
			.version = CHP_WIRE_VERSION,
			.kind = CHP_PACKET_CONTROL,
			.cluster_hash = HASH,
		},
		.from = (uint8_t)from->id,
		.to = (uint8_t)to->id,
		.type = (uint8_t)type,
		.from_incarnation = from->m.incarnation,
		.to_incarnation = to->m.incarnation,
		.epoch = from->m.view.epoch,
	};
}

static void
hand_over(const struct process *from, struct process *to, void *data, uint32_t len)
{
	chp_control_seal(data, len);
	chp_membership_receive(&to->m, clock_of(to), data, len, from->id);
	check(to);
}

Test(membership, refusals_are_for_one_incarnation_and_from_members)
{
	found(1, 3);
	end(2);
	struct process *p = start(2, false);
	struct chp_control_refused r = {
		.header = header(node(1), p, CHP_CONTROL_REFUSED),
		.reason = CHP_REFUSED_MEMBERS,
		.heard_ms = UINT32_MAX,
	};

	r.header.to_incarnation++;
	hand_over(node(1), p, &r, sizeof(r));
	/* It hears of a view, and that is all. */
	cr_assert_eq(p->m.state, CHP_MEMBERSHIP_JOINING);
	r.header.to_incarnation--;
	r.header.epoch = 0;
	hand_over(node(1), p, &r, sizeof(r));
	cr_assert_eq(p->m.state, CHP_MEMBERSHIP_JOINING);
	/* A member is in the view, whatever anybody says. */
	r.header.epoch = 1;
	r.header.to = 0;
	r.header.to_incarnation = node(0)->m.incarnation;
	hand_over(node(1), node(0), &r, sizeof(r));
	cr_assert_eq(node(0)->m.state, CHP_MEMBERSHIP_MEMBER);
	r.header = header(node(1), p, CHP_CONTROL_REFUSED);
	hand_over(node(1), p, &r, sizeof(r));
	cr_assert_eq(p->m.state, CHP_MEMBERSHIP_REFUSED);
	cr_assert_eq(p->m.refused_by, 1);
	cr_assert_str_eq(p->m.reason, "node 1 (10.99.0.11) refused us: our cluster file has other members or "
				      "addresses than that of the cluster");
	cr_assert_eq(chp_membership_wake_ns(&p->m), CHP_NEVER);
}

Test(membership, a_newcomer_with_other_members_is_refused)
{
	found(1, 3);
	end(2);
	run_for(3 * S);
	struct process *p = start(2, false);

	p->m.members_hash++;
	run_for(5 * S);
	cr_assert_eq(p->m.state, CHP_MEMBERSHIP_REFUSED);
	cr_assert(strstr(p->m.reason, "other members or addresses") != NULL);
	cr_assert_eq(node(0)->m.view.voters, 3u);
}

Test(membership, writer_numbers_end)
{
	found(1, 3);
	end(2);
	run_for(3 * S);
	/* As after 65,532 admissions. */
	for (uint32_t i = 0; i < 2; i++)
		node(i)->m.view.next_writer = UINT16_MAX;
	w.n_entered = 0;
	start(2, false);
	cr_assert(run_until(all_serve, 8 * S), "%s", everybody());
	cr_assert_eq(node(2)->m.view.writer[2], UINT16_MAX);
	cr_assert_eq(node(2)->m.view.next_writer, 0);
	end(1);
	cr_assert(run_until(all_serve, 8 * S), "%s", everybody());
	start(1, false);
	run_for(5 * S);
	cr_assert_eq(node(1)->m.state, CHP_MEMBERSHIP_REFUSED);
	cr_assert(strstr(node(1)->m.reason, "every writer number") != NULL);
	cr_assert(reported(node(0), "every writer number is used up"));
	cr_assert(all_serve());
}

/* An incarnation that was admitted and dropped before it knew of either becomes another one. */
Test(membership, an_incarnation_that_was_dropped_is_told)
{
	uint64_t incarnation;

	found(1, 3);
	end(2);
	run_for(3 * S);
	struct process *p = start(2, false);

	incarnation = p->m.incarnation;
	node(0)->m.peer[2].retired = incarnation;
	node(1)->m.peer[2].retired = incarnation;
	cr_assert(run_until(all_serve, 8 * S), "%s", everybody());
	cr_assert_neq(p->m.incarnation, incarnation);
	cr_assert_eq(p->m.lives, 1);
}

/* ---- leases ---- */

Test(membership, a_grant_counts_from_the_question)
{
	found(1, 3);
	struct process *p = node(0), *q = node(1);
	struct chp_control_heartbeat h = {
		.header = header(p, q, CHP_CONTROL_HEARTBEAT),
		.sent_ns = clock_of(p),
		.lease_ns = LEASE,
	};
	struct chp_control_grant g = { .lease_ns = LEASE };
	uint64_t asked_ns = clock_of(p), given_ns;

	/* Two of three: its own and that of node 1. */
	run_for(100 * MS);
	cut_off(1);
	run_for(2 * LEASE);
	cr_assert_not(has_lease(p));
	given_ns = clock_of(q);
	hand_over(p, q, &h, sizeof(h));
	cr_assert_geq(chp_lease_given_until(&q->m.lease, 0, p->m.incarnation), given_ns + LEASE);
	g.header = header(q, p, CHP_CONTROL_GRANT);
	g.sent_ns = asked_ns;
	hand_over(q, p, &g, sizeof(g));
	cr_assert_not(has_lease(p), "what was asked that long ago is over");
	g.sent_ns = clock_of(p) - 100 * MS;
	hand_over(q, p, &g, sizeof(g));
	cr_assert_eq(chp_membership_lease_until_ns(&p->m), g.sent_ns + LEASE - 2 * LEASE * DRIFT_PPM / 1000000);
	/* What was never asked for is not believed, nor what is for another incarnation or view. */
	g.sent_ns = clock_of(p) + 1;
	hand_over(q, p, &g, sizeof(g));
	cr_assert_eq(p->m.counters.conflicts, 1);
	g.sent_ns = clock_of(p);
	g.lease_ns = LEASE + 1;
	hand_over(q, p, &g, sizeof(g));
	cr_assert_eq(p->m.counters.conflicts, 2);
	g.lease_ns = LEASE;
	g.header.to_incarnation++;
	hand_over(q, p, &g, sizeof(g));
	g.header = header(q, p, CHP_CONTROL_GRANT);
	g.header.epoch++;
	hand_over(q, p, &g, sizeof(g));
	cr_assert_lt(chp_membership_lease_until_ns(&p->m), clock_of(p) + LEASE - 50 * MS);
}

/* A packet with a view that a test makes, before it spoils it: of the present members, one epoch later. */
struct made {
	struct chp_control_view v;
	struct chp_control_member member[CHP_NODES_MAX];
};

static struct made
make_view(const struct process *from, const struct process *to, enum chp_control_type type, uint64_t round)
{
	const struct chp_view *view = &from->m.view;
	struct made k = { .v = {
				  .header = header(from, to, type),
				  .epoch = view->epoch + 1,
				  .ballot = round == 0 ? 0 : round << 8 | from->id,
				  .voters = view->voters,
				  .learners = view->learners,
				  .n_members = (uint8_t)w.n_nodes,
				  .next_writer = view->next_writer,
			  } };

	for (uint32_t i = 0; i < w.n_nodes; i++)
		k.member[i] = (struct chp_control_member){ view->incarnation[i], view->writer[i], { 0 } };
	return k;
}

static void
drop_from(struct made *k, uint32_t id)
{
	k->v.voters &= ~chp_bit(id);
	k->v.learners &= ~chp_bit(id);
	k->member[id] = (struct chp_control_member){ 0 };
}

static void
hand_view(const struct process *from, struct process *to, struct made *k)
{
	hand_over(from, to, k, chp_control_view_bytes(w.n_nodes));
}

/* From accepting a view that drops a node on, it gets no lease; the proposer is told when all are over. */
Test(membership, an_acceptor_waits_for_the_leases_that_it_gave)
{
	found(1, 3);
	struct process *a = node(0), *b = node(1), *c = node(2);
	uint64_t given, until_ns, told = w.packets_of[CHP_CONTROL_ACCEPTED];
	struct made accept = make_view(a, b, CHP_CONTROL_ACCEPT, 1);
	struct chp_control_heartbeat h = {
		.header = header(c, b, CHP_CONTROL_HEARTBEAT),
		.sent_ns = clock_of(c),
		.lease_ns = LEASE,
	};

	drop_from(&accept, 2);
	hand_over(c, b, &h, sizeof(h));
	given = b->m.counters.leases_given;
	until_ns = chp_lease_given_until(&b->m.lease, 2, c->m.incarnation);
	cr_assert_eq(until_ns, clock_of(b) + LEASE);
	hand_view(a, b, &accept);
	cr_assert_eq(b->m.agreement.accepted_ballot, 1 << 8);
	cr_assert_eq(b->m.agreement.told, 0, "its lease runs");
	cr_assert_eq(b->m.accepted_at_ns, until_ns);
	hand_over(c, b, &h, sizeof(h));
	cr_assert_eq(b->m.counters.leases_given, given);
	cr_assert_eq(b->m.counters.leases_refused, 1);
	/* The others of the view get theirs until it is told. */
	h.header = header(a, b, CHP_CONTROL_HEARTBEAT);
	hand_over(a, b, &h, sizeof(h));
	cr_assert_eq(b->m.counters.leases_given, given + 1);
	cut_off(2); /* only the clock of node 1 matters */
	while (clock_of(b) < until_ns) {
		cr_assert_eq(w.packets_of[CHP_CONTROL_ACCEPTED], told);
		if (!step(moment_of(b, until_ns)))
			break;
	}
	run_for(10 * MS);
	cr_assert_eq(b->m.agreement.told, 1 << 8);
	cr_assert_gt(w.packets_of[CHP_CONTROL_ACCEPTED], told);
	given = b->m.counters.leases_given;
	hand_over(a, b, &h, sizeof(h));
	cr_assert_eq(b->m.counters.leases_given, given, "from telling on it gives none");
	/* A stranger as voter. */
	accept.v.ballot = 2 << 8;
	accept.v.voters = 7;
	accept.member[2] = (struct chp_control_member){ c->m.incarnation + 1, 3, { 0 } };
	hand_view(a, b, &accept);
	cr_assert_eq(b->m.agreement.accepted_ballot, 1 << 8);
	cr_assert_eq(b->m.counters.bad_view, 1);
}

/* Who accepts to be dropped counts its own lease like one that it gave. */
Test(membership, an_acceptor_that_is_dropped_gives_its_lease_up_first)
{
	found(1, 3);
	struct process *a = node(0), *b = node(1);
	struct made accept = make_view(a, b, CHP_CONTROL_ACCEPT, 1);
	uint64_t accepted_ns = clock_of(b);

	drop_from(&accept, 1);
	cr_assert(has_lease(b));
	hand_view(a, b, &accept);
	cr_assert_eq(b->m.agreement.accepted_ballot, 1 << 8);
	run_for(LEASE / 2);
	cr_assert_eq(b->m.agreement.told, 0);
	/* A later ballot changes nothing: it has asked for none since. */
	accept.v.ballot = 2 << 8;
	hand_view(a, b, &accept);
	cr_assert_eq(b->m.accepted_at_ns, accepted_ns + LEASE);
	while (b->m.agreement.told == 0 && b->m.view.epoch == 1)
		cr_assert(step(w.now_ns + S));
	cr_assert_geq(clock_of(b), accepted_ns + LEASE);
	cr_assert_not(has_lease(b));
	/* It was accepted, so it comes about, and node 1 comes back. */
	cr_assert(run_until(all_serve, 10 * S), "%s", everybody());
	cr_assert_eq(b->m.lives, 2);
}

/* The same where it had first accepted, and told, a view that keeps it. */
Test(membership, an_acceptor_that_told_and_is_dropped_then_waits_too)
{
	uint64_t told_ns;

	found(1, 5);
	struct process *a = node(0), *b = node(1);
	struct made accept = make_view(a, b, CHP_CONTROL_ACCEPT, 1);

	run_for(LEASE);
	drop_from(&accept, 4);
	/* No lease of node 4 is left: it may be told at once. */
	b->m.lease.given_until_ns[4] = 0;
	hand_view(a, b, &accept);
	cr_assert_eq(b->m.agreement.told, 1 << 8);
	cr_assert(has_lease(b));
	told_ns = clock_of(b);
	accept = make_view(a, b, CHP_CONTROL_ACCEPT, 2);
	drop_from(&accept, 1);
	run_for(10 * MS);
	hand_view(a, b, &accept);
	cr_assert_eq(b->m.agreement.accepted_ballot, 2 << 8);
	cr_assert_eq(b->m.agreement.told, 1 << 8);
	cr_assert_eq(b->m.accepted_at_ns, told_ns + LEASE);
}

/* Leases of the view before may be known to none of the acceptors: nobody is dropped until they are over. */
Test(membership, soon_after_a_view_change_an_acceptor_waits_for_older_leases)
{
	uint64_t entered_ns;

	found(1, 5);
	change_time(chp_bit(4));
	struct process *a = node(0), *b = node(1);
	struct made accept = make_view(a, b, CHP_CONTROL_ACCEPT, 1);

	entered_ns = b->m.entered_ns;
	drop_from(&accept, 3);
	b->m.lease.given_until_ns[3] = 0;
	hand_view(a, b, &accept);
	cr_assert_eq(b->m.agreement.accepted_ballot, 1 << 8);
	cr_assert_eq(b->m.agreement.told, 0);
	cr_assert_eq(b->m.accepted_at_ns, entered_ns + LEASE);
	/* How long the leases of a member are that never asked for one, nobody knows. */
	b->m.peer[3].lease_ns = 0;
	accept.v.ballot = 2 << 8;
	hand_view(a, b, &accept);
	cr_assert_eq(b->m.accepted_at_ns, entered_ns + CHP_LEASE_NS_MAX);
}

/* ---- views that cannot be ---- */

#define BAD_VIEW(...)                                                              \
	do {                                                                       \
		uint64_t bad = b->m.counters.bad_view, epoch = b->m.view.epoch;    \
		struct made k = make_view(a, b, CHP_CONTROL_DECIDED, 0);           \
		__VA_ARGS__;                                                       \
		hand_view(a, b, &k);                                               \
		cr_assert_eq(b->m.counters.bad_view, bad + 1, #__VA_ARGS__);       \
		cr_assert_eq(b->m.view.epoch, epoch);                              \
		k.v.header.type = CHP_CONTROL_ACCEPT;                              \
		k.v.ballot = 9 << 8;                                               \
		if (k.v.epoch != epoch + 1)                                        \
			break;                                                     \
		hand_view(a, b, &k);                                               \
		cr_assert_eq(b->m.counters.bad_view, bad + 2, #__VA_ARGS__);       \
		cr_assert_eq(b->m.agreement.accepted_ballot, 0);                   \
		k.v.header.type = CHP_CONTROL_PROMISE;                             \
		k.v.accepted = 8 << 8;                                             \
		hand_view(a, b, &k);                                               \
		cr_assert_eq(b->m.counters.bad_view, bad + 3, #__VA_ARGS__);       \
	} while (0)

Test(membership, views_that_cannot_be_are_counted)
{
	found(1, 5);
	change_time(chp_bit(4)); /* so view 2 has four voters and nobody is node 4 */
	struct process *a = node(0), *b = node(1);

	BAD_VIEW(drop_from(&k, 2); drop_from(&k, 3)); /* no majority stays */
	BAD_VIEW(k.v.voters ^= 4; k.v.learners ^= 4); /* a voter is none any more */
	BAD_VIEW(k.member[2].writer = 77; k.v.next_writer = 78); /* another writer number */
	BAD_VIEW(k.member[2].writer = k.member[3].writer);
	BAD_VIEW(k.member[2].writer = 0);
	BAD_VIEW(k.v.next_writer = 2); /* has been given out */
	BAD_VIEW(k.v.voters |= 16; k.member[4].incarnation = 99; k.member[4].writer = k.v.next_writer++);
	BAD_VIEW(k.v.learners |= 16; k.member[4].incarnation = 99; k.member[4].writer = 5); /* used before */
	BAD_VIEW(k.v.epoch = 9; for (uint32_t i = 1; i < 4; i++) drop_from(&k, i)); /* one voter */
	BAD_VIEW(k.v.epoch = 1); /* not all members */
	BAD_VIEW(k.v.epoch = 1; k.v.voters = 31; k.member[4].incarnation = 9; k.member[4].writer = 6);
	/* Not in the view itself; another view of the same epoch. */
	struct made k = make_view(a, b, CHP_CONTROL_DECIDED, 0);

	drop_from(&k, 0);
	hand_view(a, b, &k);
	k = make_view(a, b, CHP_CONTROL_DECIDED, 0);
	k.v.epoch = 2;
	drop_from(&k, 3);
	hand_view(a, b, &k);
	cr_assert_eq(b->m.counters.conflicts, 2);
	cr_assert_eq(b->m.view.epoch, 2);
	cr_assert_eq(b->m.lives, 1);
}

/* It was dropped and admitted again by voters that had not seen it go, before it knew of either. */
Test(membership, who_was_away_for_a_view_is_reborn_though_it_is_in_the_next)
{
	found(1, 3);
	struct process *a = node(0), *b = node(1);
	struct made k = make_view(a, b, CHP_CONTROL_DECIDED, 0);

	k.v.epoch = 5;
	k.v.voters ^= 2;
	k.v.learners ^= 2;
	k.member[1].writer = k.v.next_writer++;
	chp_control_seal(&k, chp_control_view_bytes(3));
	chp_membership_receive(&b->m, clock_of(b), &k, chp_control_view_bytes(3), 0);
	cr_assert_null(chp_membership_view(&b->m));
	cr_assert_eq(b->m.lives, 2);
	cr_assert_neq(b->m.incarnation, k.member[1].incarnation);
}

Test(membership, ballots_that_are_used_up_stop_nothing_else)
{
	found(1, 3);
	struct chp_control_ballot reject = {
		.header = header(node(1), node(0), CHP_CONTROL_REJECTED),
		.epoch = 2,
		.ballot = CHP_AGREEMENT_ROUND_MAX << 8 | 1,
	};

	hand_over(node(1), node(0), &reject, sizeof(reject));
	end(2);
	/* Node 1 proposes, in its turn. */
	cr_assert(run_until(all_serve, 5 * S), "%s", everybody());
	cr_assert_eq(node(0)->m.counters.proposals, 0);
}

/* ---- texts ---- */

static const char *
peer_text(const struct process *p, uint32_t peer)
{
	static char text[CHP_MEMBERSHIP_TEXT_BYTES];
	struct chp_text t = chp_text_of(text, sizeof(text));

	chp_membership_peer_text(&p->m, clock_of(p), peer, &t);
	return text;
}

#define SAYS(text, part) \
	cr_assert(strstr(text, part) != NULL, "\"%s\" without \"%s\"", text, part)

Test(membership, who_forms_a_view_says_what_it_waits_for)
{
	world_init(1, 3);
	for (uint32_t i = 0; i < 3; i++)
		start(i, false);
	run_for(S);
	cr_assert_str_eq(peer_text(node(0), 0), "this node");
	cr_assert_str_eq(peer_text(node(0), 1), "ready");
	end(2);
	run_for(5 * S);
	SAYS(waiting(node(0)), "waiting for node 2 (10.99.0.12): not heard for ");
	start(2, false)->m.members_hash++;
	run_for(S);
	SAYS(waiting(node(0)), "has other members or addresses in its cluster file");
	/* The founder is bound, the others wait for it, then for the last to accept. */
	world_init(1, 3);
	start_all();
	while (node(0)->m.founding.epoch == 0)
		cr_assert(step(w.now_ns + S));
	SAYS(waiting(node(1)), "waiting for node 0 (10.99.0.10) to begin the first view");
	end(2);
	run_for(S);
	SAYS(waiting(node(0)), "waiting for node 2 (10.99.0.12) to accept the first view");
}

Test(membership, who_is_not_in_the_view_says_why)
{
	found(1, 3);
	end(2);
	run_for(500 * MS);
	start(2, false);
	run_for(200 * MS);
	SAYS(waiting(node(2)), "heard another process as node 2 0.");
	SAYS(peer_text(node(0), 2), "heard ");
	while (node(0)->m.view.epoch == 1)
		cr_assert(step(w.now_ns + S));
	SAYS(peer_text(node(0), 2), "not in the view");
	run_for(250 * MS);
	SAYS(peer_text(node(0), 2), "waits to be admitted");
	SAYS(waiting(node(2)), "will admit us when we and all members hear each other");
	SAYS(peer_text(node(2), 0), "heard ");
	cut_off(4);
	run_for(2 * S);
	SAYS(waiting(node(2)), "; members not heard for ");
	SAYS(peer_text(node(0), 2), "not in the view");
	/* One that still runs: the second is refused. */
	found(2, 3);
	start(1, false);
	run_for(5 * S);
	cr_assert_eq(node(1)->m.state, CHP_MEMBERSHIP_REFUSED);
	cr_assert_str_eq(waiting(node(1)), node(1)->m.reason);
	SAYS(waiting(node(1)), "another process runs as node 1: node ");
}

Test(membership, reports_that_nobody_reads_are_the_oldest_to_go)
{
	found(1, 3);
	for (uint32_t i = 0; i < 3 * CHP_MEMBERSHIP_REPORTS; i++) {
		cut_off(4);
		run_for(1500 * MS);
		heal();
		run_for(1500 * MS);
	}
	uint32_t n = 0;

	while (chp_membership_report(&node(2)->m) != NULL)
		n++;
	cr_assert_eq(n, CHP_MEMBERSHIP_REPORTS);
	cr_assert_gt(node(0)->m.n_changes, CHP_MEMBERSHIP_CHANGES);
	cr_assert_eq(node(0)->m.change[(node(0)->m.n_changes - 1) % CHP_MEMBERSHIP_CHANGES].epoch,
		     node(0)->m.view.epoch);
}

/* ---- protocols that keep their members ---- */

Test(membership, silence_drops_nobody_that_is_kept)
{
	for (uint64_t seed = 0; seed < 20; seed++) {
		uint32_t n = 3 + (uint32_t)(seed % 5);
		uint64_t side, dead;

		found_keeping(seed, n);
		side = chp_random_u64(&w.random) & (chp_bit(n) - 1);
		cut_off(side);
		run_for(20 * S);
		heal();
		pause_for(node(1), 5 * S);
		run_for(6 * S);
		dead = chp_random_below(&w.random, n);
		end((uint32_t)dead);
		run_for(10 * S);
		cr_assert_eq(w.n_entered, 1, "seed %lu: %s", seed, everybody());
		for (uint32_t i = 0; i < n; i++) {
			const struct chp_membership *m = &node(i)->m;

			if (i == dead)
				continue;
			cr_assert_eq(m->lives, 1);
			cr_assert_eq(m->counters.proposals, 0);
			cr_assert_eq(chp_membership_suspected(m), chp_bit((uint32_t)dead));
			cr_assert_str_eq(waiting(node(i)), "in view 1");
		}
		cr_assert(reported(node((uint32_t)(dead + 1) % n), "is heard again") || side == 0 ||
			  side == chp_bit(n) - 1);
	}
}

Test(membership, nobody_asks_for_leases_where_members_are_kept)
{
	found_keeping(1, 5);
	run_for(10 * S);
	cr_assert_eq(w.packets_of[CHP_CONTROL_GRANT], 0);
	cr_assert_eq(w.leases_seen, 0);
	cr_assert_eq(node(0)->m.counters.suspected, 0, "heartbeats alone are enough");
	cr_assert_eq(node(0)->m.counters.leases_refused, 0);
	/* Ten heartbeats in a suspicion time, to each. */
	cr_assert_leq(w.packets_of[CHP_CONTROL_HEARTBEAT], 20u * 11 * 14);
	world_init_keeping(2, 1);
	cr_assert_eq(chp_membership_lease_until_ns(&start(0, true)->m), CHP_NEVER, "a majority alone");
}

Test(membership, a_restarted_member_that_is_kept_is_replaced_in_one_view)
{
	for (uint64_t seed = 0; seed < 60; seed++) {
		uint32_t n = 3 + (uint32_t)(seed % 5), victim;
		const struct chp_view *v = &w.entered[1].view;
		uint64_t first, ended_ns;

		found_keeping(seed, n);
		if (seed % 3 == 0)
			w.loss_ppm = 100000;
		victim = (uint32_t)chp_random_below(&w.random, n);
		first = node(victim)->m.incarnation;
		end(victim);
		ended_ns = w.now_ns;
		run_for(chp_random_below(&w.random, 2 * SUSPECT));
		cr_assert_eq(w.n_entered, 1);
		start(victim, victim == 0);
		cr_assert(run_until(all_serve, 4 * S), "seed %lu: %s", seed, everybody());
		cr_assert_eq(w.n_entered, 3, "replaced, promoted");
		cr_assert_geq(w.entered[1].at_ns, ended_ns + SUSPECT * 8 / 10, "its predecessor was silent");
		cr_assert_eq(v->learners, chp_bit(victim));
		cr_assert_eq(v->voters, (chp_bit(n) - 1) & ~chp_bit(victim));
		cr_assert_eq(v->writer[victim], n + 1);
		cr_assert_eq(v->incarnation[victim], node(victim)->m.incarnation);
		cr_assert_neq(v->incarnation[victim], first);
		cr_assert_eq(w.entered[2].view.voters, chp_bit(n) - 1);
		cr_assert_eq(w.entered[2].view.next_writer, n + 2);
		cr_assert_eq(node(victim)->m.lives, 1, "it had not been in a view in this process");
		cr_assert_str_eq(node(victim)->m.change[0].why, "joined");
		for (uint32_t i = 0; i < n; i++) {
			const struct chp_membership *m = &node(i)->m;

			if (i == victim)
				continue;
			cr_assert(strstr(m->change[1].why, "replaced") != NULL);
			cr_assert(strstr(m->change[2].why, "promoted") != NULL);
			cr_assert_eq(m->lives, 1);
			cr_assert_eq(m->heirs, 0);
		}
	}
}

/* While its copy goes on the learner may die: its own heir gets the place, still as a learner. */
Test(membership, a_learner_that_is_kept_is_replaced_too)
{
	found_keeping(1, 3);
	w.copy_ns = 6 * S;
	end(2);
	start(2, false);
	run_for(4 * S);
	cr_assert_eq(node(2)->m.view.learners, 4u);
	cr_assert_str_eq(waiting(node(2)), "in view 2, copying the state");
	end(2);
	run_for(20 * S);
	cr_assert_eq(node(0)->m.view.learners, 4u, "nobody drops a learner either");
	cr_assert_eq(node(0)->m.view.epoch, 2);
	start(2, false);
	cr_assert(run_until(all_serve, 15 * S), "%s", everybody());
	cr_assert_eq(w.n_entered, 4);
	cr_assert_eq(w.entered[2].view.writer[2], 5);
}

/* It dies again before it was admitted: the next one must not wait for it for ever. */
Test(membership, an_heir_that_dies_has_an_heir)
{
	for (uint64_t seed = 0; seed < 20; seed++) {
		found_keeping(seed, 3 + (uint32_t)(seed % 5));
		for (uint32_t k = 0; k < 4; k++) {
			end(1);
			start(1, false);
			run_for(chp_random_below(&w.random, 900 * MS));
		}
		cr_assert(run_until(all_serve, 10 * S), "seed %lu: %s", seed, everybody());
		cr_assert_eq(count(CHP_MEMBERSHIP_REFUSED), 0);
	}
}

Test(membership, a_twin_of_a_living_member_that_is_kept_is_refused)
{
	for (uint64_t seed = 0; seed < 60; seed++) {
		uint32_t n = 3 + (uint32_t)(seed % (NODES_MAX - 2)), twin;

		found_keeping(seed, n);
		twin = (uint32_t)chp_random_below(&w.random, n);
		random_faults();
		w.loss_ppm /= 2;
		run_for(chp_random_below(&w.random, S));
		start(twin, twin == 0);
		run_for(20 * S);
		cr_assert_eq(node(twin)->m.state, CHP_MEMBERSHIP_REFUSED, "seed %lu: %s", seed, everybody());
		cr_assert(strstr(node(twin)->m.reason, "another process runs as node") != NULL);
		cr_assert_eq(w.n_entered, 1, "who lives keeps its place");
		cr_assert(reported(node((twin + 1) % n), "two processes run as node"));
	}
}

/* It was cut off, its heir got its place, and when it is back it is the twin. */
Test(membership, of_a_cut_off_member_and_its_heir_one_is_refused)
{
	struct process *first;

	found_keeping(1, 3);
	first = node(2);
	first->alive = false; /* its packets reach nobody, the heir's do */
	start(2, false);
	cr_assert(run_until(all_serve, 5 * S), "%s", everybody());
	first->alive = true;
	run_for(10 * S);
	cr_assert_eq(first->m.lives, 2, "it learned of a view without it");
	cr_assert_eq(first->m.state, CHP_MEMBERSHIP_REFUSED, "%s", everybody());
	cr_assert_eq(node(0)->m.view.voters, 7u);
	cr_assert_eq(node(0)->m.view.epoch, 3);
}

/* Members that lost their memory wait for each other where a majority would be without. */
Test(membership, a_majority_that_is_kept_keeps_its_memory)
{
	found_keeping(1, 5);
	w.copy_ns = 5 * S;
	end(3);
	end(4);
	start(3, false);
	start(4, false);
	run_for(4 * S);
	cr_assert_eq(node(0)->m.view.voters, 7u);
	cr_assert_eq(node(0)->m.view.learners, 24u);
	end(2);
	start(2, false);
	run_for(1500 * MS);
	cr_assert_eq(node(0)->m.view.voters, 7u);
	cr_assert(strstr(waiting(node(2)), "cannot take us yet") != NULL, "%s", waiting(node(2)));
	cr_assert(run_until(all_serve, 20 * S), "%s", everybody());
	/* Of three, one at a time. */
	found_keeping(2, 3);
	end(1);
	end(2);
	start(1, false);
	start(2, false);
	run_for(20 * S);
	cr_assert_eq(w.n_entered, 1, "one memory of three is none");
	cr_assert_leq(node(0)->m.counters.proposals, 1, "before it suspected both");
	cr_assert(strstr(waiting(node(1)), "cannot take us yet") != NULL, "%s", waiting(node(1)));
}

Test(membership, an_heir_with_other_members_is_refused)
{
	found_keeping(1, 3);
	end(2);
	struct process *p = start(2, false);

	p->m.members_hash++;
	run_for(5 * S);
	cr_assert_eq(p->m.state, CHP_MEMBERSHIP_REFUSED);
	cr_assert(strstr(p->m.reason, "other members or addresses") != NULL);
	cr_assert_eq(w.n_entered, 1);
}

Test(membership, views_that_drop_whom_they_keep_are_counted)
{
	found_keeping(1, 5);
	struct process *a = node(0), *b = node(1);

	BAD_VIEW(drop_from(&k, 2));
	BAD_VIEW(drop_from(&k, 2); k.v.learners |= 4; k.member[2].incarnation = 9); /* without a writer number */
	BAD_VIEW(k.v.voters = 3; k.v.learners = 28; for (uint32_t i = 2; i < 5; i++) {
		k.member[i].incarnation = i;
		k.member[i].writer = k.v.next_writer++;
	});
	BAD_VIEW(k.member[2].incarnation = 9; k.member[2].writer = k.v.next_writer++); /* a voter at once */
	cr_assert_eq(b->m.view.epoch, 1);
	cr_assert_eq(b->m.lives, 1);
}

/* A member is dead, cut off, paused, restarted at any time: in the end all vote again. */
Test(membership, repairable_faults_at_random_where_members_are_kept)
{
	for (uint64_t seed = 0; seed < 60; seed++) {
		uint32_t n = 3 + (uint32_t)(seed % 5);

		found_keeping(seed, n);
		for (uint32_t round = 0; round < 8; round++) {
			uint32_t victim = (uint32_t)chp_random_below(&w.random, n);
			uint32_t views = w.n_entered;
			bool restarted = chp_random_chance(&w.random, 400000);

			random_faults();
			if (restarted) {
				end(victim);
				run_for(chp_random_below(&w.random, 3 * S));
				start(victim, victim == 0);
			} else if (chp_random_chance(&w.random, 500000)) {
				w.cut[victim] = chp_random_u64(&w.random);
				w.cut[chp_random_below(&w.random, n)] = chp_bit(victim);
			} else {
				pause_for(node(victim), chp_random_below(&w.random, 4 * S));
			}
			run_for(chp_random_below(&w.random, 4 * S));
			no_faults();
			cr_assert(run_until(all_quiet, 40 * S), "seed %lu: %s", seed, everybody());
			cr_assert_eq(w.n_entered, views + (restarted ? 2 : 0), "seed %lu", seed);
		}
	}
}

/* Any number of processes at any time; see check(). */
Test(membership, chaos_where_members_are_kept)
{
	uint32_t views = 0;

	for (uint64_t seed = 0; seed < 80; seed++) {
		world_init_keeping(seed, 3 + (uint32_t)(seed % 5));
		random_faults();
		w.one_of_two = seed % 3 == 0;
		start_all();
		run_for(3 * S);
		for (uint32_t i = 0; i < 30; i++) {
			uint32_t k = (uint32_t)chp_random_below(&w.random, w.n_processes);

			run_for(chp_random_below(&w.random, 1500 * MS));
			w.cut[chp_random_below(&w.random, w.n_nodes)] =
				chp_random_u64(&w.random) & chp_random_u64(&w.random);
			if (chp_random_chance(&w.random, 400000))
				heal();
			if (chp_random_chance(&w.random, 300000))
				pause_for(&w.process[k], chp_random_below(&w.random, 3 * S));
			if (chp_random_chance(&w.random, 700000))
				continue;
			w.process[k].alive = chp_random_chance(&w.random, 200000);
			start(w.process[k].id, chp_random_chance(&w.random, 500000));
		}
		views += w.n_entered;
	}
	cr_assert_gt(views, 150);
}

/* The largest cluster: everything fits its packets and tables, and time is not used up. */
Test(membership, sixty_four_members)
{
	const struct chp_view *v = &w.entered[1].view;
	uint64_t beats;

	world_init_keeping(1, CHP_NODES_MAX);
	start_all();
	cr_assert(run_until(all_serve, 2 * S), "%s", everybody());
	cr_assert_eq(w.n_entered, 1);
	cr_assert_eq(node(63)->m.view.voters, UINT64_MAX);
	cr_assert(reported(node(5), "61 62 63 (first view)"), "the line is long enough");
	/* What goes on all the time: ten heartbeats a second from each to each, no full-size packets. */
	run_for(200 * MS);
	memset(w.packets_of, 0, sizeof(w.packets_of));
	run_for(S);
	beats = w.packets_of[CHP_CONTROL_HEARTBEAT];
	cr_assert_leq(beats, UINT64_C(64) * 63 * 14);
	for (uint32_t type = 1; type < CHP_CONTROL_TYPES; type++)
		cr_assert_eq(w.packets_of[type], type == CHP_CONTROL_HEARTBEAT ? beats : 0, "type %u", type);
	/* Two members restart; HELLOs go between them and the rest, not among the rest. */
	end(9);
	end(63);
	start(9, false);
	start(63, false);
	cr_assert(run_until(all_serve, 5 * S), "%s", everybody());
	cr_assert_eq(v->learners & ~(chp_bit(9) | chp_bit(63)), 0);
	cr_assert_eq(node(0)->m.view.incarnation[9], node(9)->m.incarnation);
	cr_assert_eq(node(0)->m.view.incarnation[63], node(63)->m.incarnation);
	cr_assert_leq(w.n_entered, 5, "replaced and promoted, together or one by one");
	cr_assert_eq(node(1)->m.counters.suspected, 2);
}

/* ---- everything at once ---- */

/* A minority is dead, cut off or paused at any time, packets are lost: then all come back. */
Test(membership, repairable_faults_at_random)
{
	for (uint64_t seed = 0; seed < 80; seed++) {
		uint32_t n = 3 + (uint32_t)(seed % 5);

		found(seed, n);
		for (uint32_t round = 0; round < 8; round++) {
			uint32_t victim = (uint32_t)chp_random_below(&w.random, n);

			random_faults();
			switch (chp_random_below(&w.random, 5)) {
			case 0:
				end(victim);
				run_for(chp_random_below(&w.random, 3 * S));
				start(victim, victim == 0);
				break;
			case 1:
				cut_off(chp_bit(victim));
				break;
			case 2:
				w.cut[victim] = chp_random_u64(&w.random);
				break;
			case 3:
				w.cut[chp_random_below(&w.random, n)] = chp_bit(victim);
				break;
			default:
				pause_for(node(victim), chp_random_below(&w.random, 4 * S));
				break;
			}
			run_for(chp_random_below(&w.random, 4 * S));
			no_faults();
			/* One fault at a time: a majority of every view lives. */
			cr_assert(run_until(all_quiet, 40 * S), "seed %lu: %s", seed, everybody());
		}
		cr_assert_gt(w.leases_seen, 1000);
	}
}

/* Anything at any time, any number of processes: only what must hold always is checked, see check(). */
Test(membership, chaos)
{
	uint32_t formed = 0, views = 0;

	for (uint64_t seed = 0; seed < 120; seed++) {
		world_init(seed, 2 + (uint32_t)(seed % 5));
		random_faults();
		w.one_of_two = seed % 3 == 0;
		start_all();
		if (seed % 2 == 0)
			run_for(2 * S);
		for (uint32_t i = 0; i < 30; i++) {
			uint32_t k = (uint32_t)chp_random_below(&w.random, w.n_processes);

			run_for(chp_random_below(&w.random, 1500 * MS));
			w.cut[chp_random_below(&w.random, w.n_nodes)] =
				chp_random_u64(&w.random) & chp_random_u64(&w.random);
			if (chp_random_chance(&w.random, 300000))
				heal();
			if (chp_random_chance(&w.random, 300000))
				pause_for(&w.process[k], chp_random_below(&w.random, 3 * S));
			if (seed % 2 == 0 && chp_random_chance(&w.random, 700000))
				continue;
			w.process[k].alive = chp_random_chance(&w.random, 200000);
			start(w.process[k].id, chp_random_chance(&w.random, 500000));
		}
		formed += w.n_histories;
		views += w.n_entered;
	}
	cr_assert_gt(formed, 60);
	cr_assert_gt(views, 250);
}

/* ---- strangers ---- */

/* Let node 0 hear the HELLOs of a process with another configuration three times. */
static struct process *
meet_a_stranger(struct chp_membership_config *stranger, uint32_t from_address)
{
	struct chp_membership m;
	uint8_t data[PAYLOAD];
	uint32_t len, to;

	world_init(1, 3);
	struct process *p = start(0, true);

	stranger->n_nodes = stranger->n_nodes == 0 ? 3 : stranger->n_nodes;
	stranger->payload_bytes = PAYLOAD;
	stranger->incarnation = 77;
	stranger->suspect_ns = SUSPECT;
	stranger->lease_ns = LEASE;
	chp_membership_init(&m, stranger, w.now_ns);
	chp_membership_tick(&m, w.now_ns);
	while ((len = chp_membership_transmit(&m, w.now_ns, data, &to)) != 0)
		if (to == 0)
			for (uint32_t i = 0; i < 3; i++)
				chp_membership_receive(&p->m, clock_of(p), data, len, from_address);
	return p;
}

Test(membership, strangers_are_counted_and_reported_once)
{
	struct chp_membership_config other = { .cluster_hash = 0xfeedf00d, .self = 1 };
	struct process *p = meet_a_stranger(&other, 1);
	const char *line = chp_membership_report(&p->m);

	cr_assert_str_eq(line, "node at 10.99.0.11 belongs to another cluster or has another "
			       "configuration: hash feedf00d, ours 1234abcd");
	cr_assert_null(chp_membership_report(&p->m));
	cr_assert_eq(p->m.counters.dropped[CHP_PACKET_CLUSTER], 6);
	cr_assert_eq(p->m.peer[1].incarnation, 0);

	p = meet_a_stranger(&other, CHP_MEMBERSHIP_NO_MEMBER);
	cr_assert(reported(p, "a node at an unlisted address belongs to another cluster"));

	struct chp_membership_config elsewhere = { .cluster_hash = HASH, .self = 2 };

	p = meet_a_stranger(&elsewhere, 1);
	cr_assert(reported(p, "node at 10.99.0.11 says it is node 2, which our cluster file has"));
	cr_assert_eq(p->m.counters.other_address, 6);
	cr_assert_eq(p->m.peer[2].incarnation, 0);

	struct chp_membership_config more = { .cluster_hash = HASH, .self = 5, .n_nodes = 6 };

	p = meet_a_stranger(&more, 1);
	cr_assert(reported(p, "says it is node 5"));
	cr_assert_eq(p->m.counters.dropped[CHP_PACKET_NODE], 6);

	struct chp_membership_config members = { .cluster_hash = HASH, .self = 1 };

	p = meet_a_stranger(&members, 1);
	cr_assert(reported(p, "has other members or addresses in its cluster file"));
	cr_assert(p->m.peer[1].members_differ);
}

Test(membership, two_processes_with_one_id_are_reported)
{
	world_init(1, 3);
	struct process *p = start(0, true);

	start(1, false);
	start(1, false);
	run_for(5 * S);
	cr_assert(reported(p, "two processes run as node 1 (10.99.0.11)"));
}

Test(membership, peers_are_heard_through_their_links_too)
{
	char text[CHP_MEMBERSHIP_TEXT_BYTES];
	struct chp_text t = chp_text_of(text, sizeof(text));

	found(1, 3);
	struct process *p = &w.process[0];

	run_for(S);
	cr_assert_eq(chp_membership_heard(&p->m, clock_of(p)), 7);
	w.process[1].alive = w.process[2].alive = false;
	run_for(5 * S);
	cr_assert_eq(chp_membership_heard(&p->m, clock_of(p)), 1);
	chp_membership_peer_heard(&p->m, clock_of(p), 1, w.process[1].m.incarnation + 1);
	cr_assert_eq(chp_membership_heard(&p->m, clock_of(p)), 1);
	chp_membership_peer_heard(&p->m, clock_of(p), 1, w.process[1].m.incarnation);
	cr_assert_eq(chp_membership_heard(&p->m, clock_of(p)), 3);
	chp_membership_peer_text(&p->m, clock_of(p) + 12 * MS, 1, &t);
	cr_assert_str_eq(text, "heard 12 ms ago, suspected, does not hear us");
	cr_assert_eq(p->m.view.epoch, 1, "no majority, no view");
}

/* ---- hosts ---- */

static void
found_hosts(uint64_t seed, uint32_t n_nodes)
{
	world_init_hosts(seed, n_nodes);
	start_all();
	cr_assert(run_until(all_serve, 3 * S), "%s", everybody());
	cr_assert_eq(w.entered[0].view.epoch, 1);
	cr_assert_eq(w.entered[0].view.sources, 0);
}

static bool
all_recorded(void)
{
	for (uint32_t i = 0; i < w.n_nodes; i++)
		if (node(i)->alive && w.store[i].recorded < node(i)->epoch)
			return false;
	return all_serve() && node(0)->m.view.sources == 0;
}

/* Write until something was acknowledged. */
static void
write_values(uint32_t n)
{
	uint64_t before = w.acknowledged;

	for (uint32_t i = 0; i < 100000 && w.acknowledged < before + n; i++)
		write_value(&w.process[chp_random_below(&w.random, w.n_processes)]);
	cr_assert_eq(w.acknowledged, before + n, "%s", everybody());
}

static void
end_all(void)
{
	for (uint32_t i = 0; i < w.n_processes; i++)
		w.process[i].alive = false;
}

Test(membership, a_new_cluster_waits_for_every_host)
{
	world_init_hosts(1, 3);
	w.store[2].is_down = true;
	start_all();
	run_for(20 * S);
	cr_assert_eq(w.n_entered, 0);
	cr_assert_str_eq(waiting(node(0)), "waiting for node 2 (10.99.0.12): its host is not there");
	cr_assert_str_eq(waiting(node(2)), "waiting for our host");
	w.store[2].is_down = false;
	cr_assert(run_until(all_serve, 3 * S), "%s", everybody());
	for (uint32_t i = 0; i < 3; i++)
		cr_assert_eq(w.store[i].life, 1, "the store knows the view before anybody enters it");
}

Test(membership, a_cluster_of_one_waits_for_its_host)
{
	world_init_hosts(1, 1);
	start(0, true);
	cr_assert_eq(w.n_entered, 0);
	cr_assert(run_until(all_recorded, S));
	write_values(3);
	end(0);
	start(0, true);
	cr_assert(run_until(all_recorded, S), "%s", everybody());
	cr_assert_eq(chp_generation(node(0)->epoch), 1);
}

Test(membership, all_processes_restart_and_begin_again)
{
	for (uint64_t seed = 0; seed < 40; seed++) {
		uint32_t n = 1 + (uint32_t)(seed % NODES_MAX);

		found_hosts(seed, n);
		for (uint32_t generation = 1; generation <= 3; generation++) {
			cr_assert(run_until(all_recorded, 5 * S), "seed %lu: %s", seed, everybody());
			write_values(5);
			end_all();
			start_all();
			cr_assert(run_until(all_serve, 10 * S), "seed %lu: %s", seed, everybody());
			/* More where a late packet of before made somebody wait for a view that there is not. */
			cr_assert_geq(chp_generation(node(0)->epoch), generation);
			cr_assert_eq(w.cold_starts, generation);
		}
	}
}

/* The founder says what it does; the others are admitted when they come. */
Test(membership, a_majority_begins_again_after_the_grace)
{
	uint64_t at_ns;

	found_hosts(1, 5);
	cr_assert(run_until(all_recorded, S));
	write_values(5);
	end_all();
	at_ns = w.now_ns;
	for (uint32_t i = 0; i < 3; i++)
		start(i, i == 0);
	run_for(S);
	cr_assert_not_null(strstr(waiting(node(0)), "beginning without it in "), "%s", waiting(node(0)));
	cr_assert(run_until(all_recorded, 10 * S), "%s", everybody());
	cr_assert_geq(w.now_ns, at_ns + HOST_GRACE);
	cr_assert(reported(node(0), "cold start: view 1048577 from the stores of the hosts of 0 1 2, without 3 4"));
	start(3, false);
	start(4, true);
	cr_assert(run_until(all_recorded, 10 * S), "%s", everybody());
	cr_assert_eq(w.cold_starts, 1);
	cr_assert_eq(chp_generation(node(4)->epoch), 1);
}

Test(membership, a_minority_begins_nothing)
{
	found_hosts(1, 5);
	cr_assert(run_until(all_recorded, S));
	write_values(5);
	end_all();
	start(0, true);
	start(1, true);
	run_for(60 * S);
	cr_assert_eq(w.n_entered, 1);
	/* Nor one with a host that was emptied. */
	w.store[2] = (struct store){ .life = 0 };
	start(2, false);
	run_for(60 * S);
	cr_assert_eq(w.n_entered, 1);
	start(3, false);
	cr_assert(run_until(all_recorded, 20 * S), "%s", everybody());
}

/* Node 0 is lost: another one begins. */
Test(membership, another_founder)
{
	found_hosts(1, 3);
	cr_assert(run_until(all_recorded, S));
	write_values(5);
	end_all();
	start(1, false);
	start(2, false);
	run_for(S);
	cr_assert_str_eq(waiting(node(2)), "waiting for node 0 (10.99.0.10): never heard");
	cr_assert(run_until(all_recorded, 20 * S), "%s", everybody());
	cr_assert_eq(w.cold_starts, 1);
}

/* Whose stores hold data must not read that a flag would make a new, empty cluster of them. */
Test(membership, who_remembers_is_not_told_to_form_a_new_cluster)
{
	bool waited = false;

	world_init_hosts(1, 3);
	for (uint32_t i = 0; i < 3; i++)
		start(i, false);
	run_for(5 * S);
	for (uint32_t i = 0; i < 3; i++)
		cr_assert(strstr(waiting(node(i)), "start node 0 (10.99.0.10) with --bootstrap") != NULL, "%s",
			  waiting(node(i)));
	found_hosts(1, 3);
	cr_assert(run_until(all_recorded, S));
	write_values(5);
	end_all();
	w.store[1].is_down = true; /* so that the others have heard each other long before all is there */
	for (uint32_t i = 0; i < 3; i++)
		start(i, false);
	for (uint32_t i = 0; !all_serve() && i < 30000; i++) {
		run_for(S / 1000);
		w.store[1].is_down = i < 2000;
		for (uint32_t n = 0; n < 3; n++) {
			cr_assert_null(strstr(waiting(node(n)), "--bootstrap"), "%s", waiting(node(n)));
			waited |= strstr(waiting(node(n)), "what the hosts hold") != NULL;
		}
	}
	cr_assert(all_serve(), "%s", everybody());
	cr_assert(waited);
	cr_assert_eq(w.cold_starts, 1);
}

/* One that was out of the view when the power failed: what it holds is not the newest. */
Test(membership, who_was_behind_is_a_learner)
{
	found_hosts(1, 3);
	cr_assert(run_until(all_recorded, S));
	end(1);
	cr_assert(run_until(all_recorded, 10 * S), "%s", everybody());
	write_values(5);
	end_all();
	start_all();
	cr_assert(run_until(settled, 10 * S), "%s", everybody());
	cr_assert_eq(w.entered[w.n_entered - 1].view.sources, 5);
	cr_assert_eq(w.entered[w.n_entered - 1].view.learners, 2);
	cr_assert(run_until(all_recorded, 10 * S), "%s", everybody());
}

/*
 * The founder dies after all have accepted, and one is in the view. Those that were slow form another one with its
 * successor: of a later generation, which their stores make sure of.
 */
Test(membership, two_first_views_have_two_generations)
{
	uint32_t twice = 0;

	for (uint64_t seed = 0; seed < 200; seed++) {
		found_hosts(seed, 3);
		cr_assert(run_until(all_recorded, 2 * S));
		write_values(3);
		end_all();
		start(0, true);
		start(1, false);
		w.n_packets = 0;
		for (uint32_t i = 0; i < 4000 && node(0)->m.founding_by != 3 && node(0)->epoch == 0; i++)
			(void)step(CHP_NEVER);
		/* At some moment of the founding. */
		run_for(chp_random_below(&w.random, 3 * MS));
		end(0);
		run_for(chp_random_below(&w.random, 10 * MS));
		cut_off(chp_bit(1));
		start(0, true);
		start(2, false);
		run_for(12 * S);
		heal();
		cr_assert(run_until(all_recorded, 60 * S), "seed %lu: %s", seed, everybody());
		twice += w.cold_starts >= 2;
	}
	cr_assert_gt(twice, 50);
}

/* A minority that is cut off stops to serve before the others can begin again. */
Test(membership, a_minority_does_not_serve_beside_a_new_generation)
{
	for (uint64_t seed = 0; seed < 60; seed++) {
		uint32_t n = 3 + 2 * (uint32_t)(seed % 3);
		uint64_t minority = 0;

		found_hosts(seed, n);
		cr_assert(run_until(all_recorded, 5 * S));
		/* Down to a majority first: the rest could go on alone, without hosts. */
		for (uint32_t i = n; i-- > n / 2 + 1;)
			end(i);
		cr_assert(run_until(all_recorded, 20 * S), "seed %lu: %s", seed, everybody());
		write_values(3);
		while (chp_count_bits(minority) < n / 2)
			minority |= chp_bit(1 + (uint32_t)chp_random_below(&w.random, n / 2));
		cut_off(minority);
		for (uint32_t i = 0; i < n; i++) {
			if ((minority & chp_bit(i)) != 0)
				continue;
			end(i);
			start(i, i == 0);
		}
		run_for(20 * S);
		cr_assert_eq(w.cold_starts, 1, "seed %lu: %s", seed, everybody());
		heal();
		cr_assert(run_until(all_recorded, 60 * S), "seed %lu: %s", seed, everybody());
	}
}

/* ---- leaving because of the host ---- */

Test(membership, a_replica_without_its_host_leaves_and_comes_back_with_it)
{
	found_hosts(1, 3);
	cr_assert(run_until(all_recorded, S));
	w.store[1].is_down = true;
	run_for(HOST_GRACE / 2);
	cr_assert_eq(w.n_entered, 1, "there is a grace");
	run_for(HOST_GRACE);
	cr_assert_eq(w.entered[1].view.voters, 5);
	cr_assert_str_eq(node(0)->m.change[1].why, "node 1 left");
	cr_assert(reported(node(1), "asks for a view without it: its host is gone"));
	run_for(20 * S);
	cr_assert_eq(w.n_entered, 2, "not admitted without it");
	cr_assert_str_eq(waiting(node(1)), "joining: node 0 (10.99.0.10) will admit us when our host is there");
	w.store[1].is_down = false;
	cr_assert(run_until(all_recorded, 20 * S), "%s", everybody());
	cr_assert_eq(node(1)->m.lives, 2);
}

Test(membership, a_host_that_is_back_in_time_changes_nothing)
{
	found_hosts(1, 3);
	w.store[1].is_down = true;
	run_for(HOST_GRACE / 2);
	w.store[1].is_down = false;
	run_for(10 * S);
	cr_assert_eq(w.n_entered, 1);
}

static bool
without_node_0(void)
{
	return node(1)->m.view.voters == 6;
}

static bool
without_node_2(void)
{
	return node(0)->m.view.voters == 3;
}

Test(membership, a_full_log_and_lost_data_are_reasons_to_leave)
{
	found_hosts(1, 3);
	w.store[2].log_fill_ppm = 950000;
	run_for(S);
	cr_assert_eq(w.entered[1].view.voters, 3);
	cr_assert(reported(node(2), "its log is full"));
	w.store[2].log_fill_ppm = 0;
	cr_assert(run_until(all_recorded, 20 * S), "%s", everybody());
	w.store[0].has_lost = true;
	cr_assert(run_until(without_node_0, S), "%s", everybody());
	cr_assert(reported(node(0), "less than it had reported durable"));
	cr_assert(run_until(all_recorded, 20 * S), "%s", everybody());
}

/* Whose cache holds nothing but what is not saved holds up the others, but only while its host does not take it. */
Test(membership, a_cache_without_room_makes_a_grace_shorter)
{
	uint64_t from_ns;

	found_hosts(1, 3);
	w.store[2].is_stuck = true;
	run_for(2 * HOST_GRACE);
	cr_assert_eq(w.n_entered, 1, "its host is there");
	w.store[2].is_down = true;
	run_for(HOST_GRACE / 10);
	w.store[2].is_stuck = false;
	run_for(HOST_GRACE / 20);
	w.store[2].is_stuck = true;
	from_ns = w.now_ns;
	run_for(HOST_GRACE / 10);
	cr_assert_eq(w.n_entered, 1, "there was room meanwhile");
	cr_assert(run_until(without_node_2, S), "%s", everybody());
	cr_assert_geq(w.now_ns - from_ns, HOST_GRACE / 5);
	cr_assert_lt(w.now_ns - from_ns, HOST_GRACE / 2);
	cr_assert(reported(node(2), "its cache is full"));
	w.store[2].is_stuck = w.store[2].is_down = false;
	cr_assert(run_until(all_recorded, 20 * S), "%s", everybody());
}

Test(membership, a_host_that_is_back_in_time_is_none_with_a_full_cache_either)
{
	found_hosts(1, 3);
	w.store[2].is_stuck = w.store[2].is_down = true;
	run_for(HOST_GRACE / 10);
	w.store[2].is_down = false;
	run_for(2 * HOST_GRACE);
	cr_assert_eq(w.n_entered, 1);
}

/* The rest would not be a majority: it stays, as long as it takes. */
Test(membership, nobody_leaves_a_view_that_needs_it)
{
	found_hosts(1, 3);
	w.store[1].is_down = true;
	run_for(2 * HOST_GRACE);
	cr_assert_eq(w.entered[1].view.voters, 5);
	w.store[2].is_down = true;
	run_for(10 * HOST_GRACE);
	cr_assert_eq(w.n_entered, 2);
	cr_assert(has_lease(node(2)));
	cr_assert_str_eq(waiting(node(2)), "in view 2, asks to leave it because of its host");
	w.store[2].is_down = false;
	run_for(S);
	cr_assert_str_eq(waiting(node(2)), "in view 2");
	w.store[1].is_down = false;
	cr_assert(run_until(all_recorded, 20 * S), "%s", everybody());
}

/* All hosts are gone: nobody leaves, whoever noticed first. */
Test(membership, all_hosts_gone_is_no_reason_to_end)
{
	found_hosts(1, 5);
	for (uint32_t i = 0; i < 5; i++)
		w.store[i].is_down = true;
	run_for(10 * HOST_GRACE);
	cr_assert_geq(chp_count_bits(w.entered[w.n_entered - 1].view.voters), 3);
	for (uint32_t i = 0; i < 5; i++)
		w.store[i].is_down = false;
	cr_assert(run_until(all_recorded, 30 * S), "%s", everybody());
}

/* ---- reconciling ---- */

/* Sources that are lost before all is reconciled: who is left goes on only while nothing can be missing. */
Test(membership, too_many_sources_lost_is_a_standstill)
{
	found_hosts(1, 5);
	cr_assert(run_until(all_recorded, S));
	write_values(5);
	end_all();
	w.copy_ns = 1000 * S;
	for (uint32_t i = 0; i < 4; i++)
		start(i, i == 0);
	cr_assert(run_until(all_serve, 10 * S), "%s", everybody());
	end(3);
	run_for(5 * S);
	cr_assert_eq(node(0)->m.view.sources, 7);
	start(4, false);
	run_for(5 * S);
	cr_assert_eq(node(0)->m.view.learners, 0, "nobody is admitted meanwhile");
	end(2);
	run_for(30 * S);
	cr_assert_eq(node(0)->m.view.sources, 7, "stands still");
	cr_assert_not(has_lease(node(0)) && has_lease(node(1)) && node(0)->m.view.voters == 3);
	/* All again, as people do. */
	w.copy_ns = 100 * MS;
	end_all();
	start_all();
	cr_assert(run_until(all_recorded, 20 * S), "%s", everybody());
}

/* ---- with hosts, everything at once ---- */

Test(membership, repairable_faults_at_random_with_hosts)
{
	for (uint64_t seed = 0; seed < 60; seed++) {
		uint32_t n = 3 + (uint32_t)(seed % 5);

		found_hosts(seed, n);
		cr_assert(run_until(all_recorded, 20 * S));
		for (uint32_t round = 0; round < 8; round++) {
			uint32_t victim = (uint32_t)chp_random_below(&w.random, n);

			random_faults();
			switch (chp_random_below(&w.random, 5)) {
			case 0:
				end(victim);
				run_for(chp_random_below(&w.random, 3 * S));
				start(victim, victim == 0);
				break;
			case 1:
				w.store[victim].is_down = true;
				break;
			case 2:
				end_all();
				for (uint32_t i = 0; i < n; i++) {
					run_for(chp_random_below(&w.random, 500 * MS));
					start(i, chp_random_chance(&w.random, 500000) || i == 0);
				}
				break;
			case 3:
				cut_off(chp_bit(victim));
				break;
			default:
				pause_for(node(victim), chp_random_below(&w.random, 4 * S));
				break;
			}
			run_for(chp_random_below(&w.random, 4 * S));
			write_value(node((uint32_t)chp_random_below(&w.random, n)));
			no_faults();
			w.store[victim].is_down = false;
			cr_assert(run_until(all_quiet, 60 * S), "seed %lu round %u: %s", seed, round, everybody());
			cr_assert(run_until(all_recorded, 5 * S), "seed %lu round %u: %s", seed, round, everybody());
			write_values(2);
		}
	}
}

/* Processes die, alone and all together, at any time; one of a node id at a time. See check(). */
Test(membership, chaos_with_hosts)
{
	uint32_t cold_starts = 0;
	uint64_t written = 0;

	for (uint64_t seed = 0; seed < 150; seed++) {
		world_init_hosts(seed, 2 + (uint32_t)(seed % 4));
		random_faults();
		if (seed % 3 == 0)
			no_faults();
		w.copy_ns = chp_random_below(&w.random, 2 * S);
		start_all();
		run_for(3 * S);
		for (uint32_t i = 0; i < 60 && w.n_processes < PROCESSES_MAX - NODES_MAX; i++) {
			uint32_t k = (uint32_t)chp_random_below(&w.random, w.n_nodes);

			run_for(chp_random_below(&w.random, chp_random_chance(&w.random, 200000) ? 6 * S : 500 * MS));
			for (uint32_t t = 0; t < 5; t++)
				write_value(node((uint32_t)chp_random_below(&w.random, w.n_nodes)));
			w.cut[k] = chp_random_u64(&w.random) & chp_random_u64(&w.random) & chp_random_u64(&w.random);
			if (chp_random_chance(&w.random, 600000))
				heal();
			w.store[k].is_down = chp_random_chance(&w.random, 200000);
			k = (uint32_t)chp_random_below(&w.random, w.n_nodes);
			if (chp_random_chance(&w.random, 200000))
				pause_for(node(k), chp_random_below(&w.random, 3 * S));
			if (chp_random_chance(&w.random, 300000)) {
				end(k);
				start(k, chp_random_chance(&w.random, 500000));
			} else if (chp_random_chance(&w.random, 60000)) {
				end_all();
				for (uint32_t n = 0; n < w.n_nodes; n++)
					start(n, n == 0 || chp_random_chance(&w.random, 300000));
			}
		}
		cold_starts += w.cold_starts;
		written += w.acknowledged;
	}
	cr_assert_gt(cold_starts, 100);
	cr_assert_gt(written, 500);
}
