/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ZAB with a datastore behind each replica's cache: three replicas without cores, their stores, the messages between
 * them. Loads and saves are answered at once, or when the test says so. Tests are named after rules Z13 to Z18 of
 * docs/protocols/zab.md.
 */
#include "../support/twin.h"
#include "base/histogram.h"
#include "protocols/application.h"
#include "protocols/copy.h"
#include "protocols/home.h"
#include "protocols/protocol.h"
#include "protocols/zab.h"
#include "wire/copy.h"
#include "wire/zab.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS UINT64_C(1000000)
#define NODES 3u
#define NONE UINT32_MAX
#define CREDITS 8u
#define KEYS 64u
#define LOADS_MAX 8u
#define VALUE_MAX 64u
#define KEPT_MAX 128u
#define SAVES_MAX 64u
#define LANE_BYTES 65536u
#define SEED UINT64_C(7)
#define ELECTION_MS 100u
#define LEASE_MS 50u
#define N0 chp_bit(0)
#define N1 chp_bit(1)
#define N2 chp_bit(2)
#define ALL3 (N0 | N1 | N2)

struct name {
	uint32_t len;
	uint8_t bytes[CHP_KEY_BYTES_MAX];
};

/* What a store has of a key. */
struct kept {
	struct name key;
	bool is_old;
	uint16_t generation;
	uint8_t flags;
	uint64_t version;
	uint32_t len;
	uint8_t value[VALUE_MAX];
};

struct store {
	struct chp_backing backing; /* first: the protocol's calls come back with it */
	struct node *node;
	struct {
		bool is_open;
		struct name key;
	} load[LOADS_MAX];
	uint32_t n_loads; /* asked so far */
	/* Answered when the test says so: loads, what was copied, what the log brings, scans. */
	bool holds_loads, holds_saves, holds_writes, holds_scans;
	bool fails;       /* to read */
	uint32_t scans_failing;
	struct kept kept[KEPT_MAX];
	uint32_t n_kept;
	struct {
		bool is_open, only_old;
		uint32_t bytes, at;
	} scan[CHP_SCANS];
	struct kept saving[SAVES_MAX];
	uint32_t n_saving;
	uint64_t saves;
	uint32_t restarts;
	bool begins;
};

/* Messages on their way. */
struct parcel {
	struct parcel *next;
	uint32_t from, len;
	uint8_t data[];
};

struct node {
	struct chp_out out; /* first: the protocol's calls come back with it */
	struct store store;
	struct world *w;
	struct chp_protocol_env env;
	struct chp_protocol_counters counters;
	struct chp_zab_counters zab;
	struct chp_copy_counters copy;
	struct chp_histogram commit_ns;
	struct chp_log log;
	struct chp_sessions sessions;
	void *p;
	uint8_t lane[NODES][LANE_BYTES];
	struct parcel *inbox;
	uint64_t held; /* what it sends to these waits until it is let go */
	bool is_more;
};

struct answer {
	bool is_given;
	struct chp_reply reply;
	uint8_t value[CHP_VALUE_BYTES_MAX];
};

struct world {
	struct node node[NODES];
	struct chp_view view;
	uint64_t now, request;
	struct answer answer[512];
	uint32_t tags;
};

/* ------------------------------------------------------------------ stores */

static struct name
name_of(const uint8_t *bytes, uint32_t len)
{
	struct name n = { .len = len };

	memcpy(n.bytes, bytes, len);
	return n;
}

static bool
is_named(const struct name *n, const uint8_t *bytes, uint32_t len)
{
	return n->len == len && memcmp(n->bytes, bytes, len) == 0;
}

static struct kept *
kept_of(struct store *s, const uint8_t *key, uint32_t len)
{
	for (uint32_t i = 0; i < s->n_kept; i++)
		if (is_named(&s->kept[i].key, key, len))
			return &s->kept[i];
	return NULL;
}

/* As a host does: of one life the newer version stays, and this life's takes the place of an older one's. */
static void
keep(struct store *s, const struct kept *k)
{
	struct kept *at = kept_of(s, k->key.bytes, k->key.len);

	if (at != NULL && (at->is_old == k->is_old ? at->version >= k->version : k->is_old))
		return;
	if (at == NULL) {
		cr_assert_lt(s->n_kept, KEPT_MAX);
		at = &s->kept[s->n_kept++];
	}
	*at = *k;
}

static bool
ask_load(struct chp_backing *backing, const struct chp_key *key, uint32_t *token)
{
	struct store *s = (struct store *)backing;

	for (uint32_t i = 0; i < LOADS_MAX; i++) {
		if (s->load[i].is_open)
			continue;
		s->load[i].is_open = true;
		s->load[i].key = name_of(key->bytes, key->len);
		s->n_loads++;
		*token = i;
		return true;
	}
	return false;
}

/* As the core does: what a host that is away was asked for is not asked any more, another one may still answer. */
static void
drop_load(struct chp_backing *backing, uint32_t token)
{
	struct store *s = (struct store *)backing;

	cr_assert(s->load[token].is_open);
	if (!backing->is_ready)
		s->load[token].is_open = false;
}

static bool
ask_scan(struct chp_backing *backing, uint32_t scan, bool from_start, bool only_old, uint32_t bytes)
{
	struct store *s = (struct store *)backing;

	if (s->scan[scan].is_open || s->holds_scans || !backing->is_ready)
		return false;
	s->scan[scan].is_open = true;
	s->scan[scan].only_old = only_old;
	s->scan[scan].bytes = bytes;
	if (from_start)
		s->scan[scan].at = 0;
	return true;
}

static bool
ask_save(struct chp_backing *backing, const struct chp_slot *slot, uint64_t *number)
{
	struct store *s = (struct store *)backing;
	const struct chp_cache *c = s->node->env.cache;
	struct kept *k = &s->saving[s->n_saving];

	if (!backing->is_ready || s->n_saving == SAVES_MAX)
		return false;
	*k = (struct kept){ .version = slot->version,
			    .len = slot->value_len,
			    .flags = slot->flags & CHP_SLOT_TOMBSTONE };
	k->key.len = slot->key_len;
	chp_cache_key(c, slot, k->key.bytes);
	chp_cache_value(c, slot, k->value);
	s->n_saving++;
	*number = ++s->saves;
	return true;
}

static void
restart(struct chp_backing *backing, uint64_t now_ns, bool new_life)
{
	struct store *s = (struct store *)backing;

	(void)now_ns;
	s->restarts++;
	for (uint32_t i = 0; new_life && i < s->n_kept; i++)
		s->kept[i].is_old = true;
	s->n_saving = 0;
	backing->losses++;
	backing->has_lost = false;
	backing->is_ready = backing->is_ready && !new_life;
	s->begins = new_life;
}

static void
answer_load(struct world *w, struct node *n, uint32_t token)
{
	const struct chp_now now = { .ns = w->now, .lease_until_ns = CHP_NEVER };
	struct store *s = &n->store;
	const struct kept *k = kept_of(s, s->load[token].key.bytes, s->load[token].key.len);
	struct chp_loaded l = { .token = token, .status = CHP_LOAD_ABSENT };

	if (k != NULL)
		l = (struct chp_loaded){ .token = token,
					 .status = k->flags != 0 ? CHP_LOAD_TOMBSTONE : CHP_LOAD_FOUND,
					 .is_old = k->is_old,
					 .version_flags = k->flags,
					 .generation = k->generation,
					 .version = k->version,
					 .value = k->value,
					 .value_len = k->len };
	if (s->fails)
		l = (struct chp_loaded){ .token = token, .status = CHP_LOAD_FAILED };
	s->load[token].is_open = false;
	chp_zab.loaded(n->p, &now, &l, 1, &n->out);
}

static void
answer_scan(struct world *w, struct node *n, uint32_t scan)
{
	const struct chp_now now = { .ns = w->now, .lease_until_ns = CHP_NEVER };
	struct store *s = &n->store;
	uint32_t bytes = 0;

	s->scan[scan].is_open = false;
	if (s->scans_failing > 0) {
		s->scans_failing--;
		chp_zab.scan_end(n->p, &now, scan, false, true, &n->out);
		return;
	}
	for (; s->scan[scan].at < s->n_kept; s->scan[scan].at++) {
		const struct kept *k = &s->kept[s->scan[scan].at];
		const struct chp_stored item = { .key = k->key.bytes,
						 .value = k->value,
						 .version = k->version,
						 .value_len = k->len,
						 .key_len = (uint8_t)k->key.len,
						 .version_flags = k->flags,
						 .is_old = k->is_old };

		if (k->is_old != s->scan[scan].only_old)
			continue;
		bytes += k->key.len + k->len;
		if (bytes > s->scan[scan].bytes && bytes > k->key.len + k->len)
			break;
		chp_zab.scanned(n->p, &now, scan, &item, &n->out);
	}
	chp_zab.scan_end(n->p, &now, scan, s->scan[scan].at == s->n_kept, false, &n->out);
}

/* What the core hears from the host in a run. */
static void
answer_store(struct world *w, struct node *n)
{
	struct store *s = &n->store;

	if (s->begins)
		s->backing.is_ready = true;
	s->begins = false;
	if (!s->backing.is_ready)
		return;
	for (uint32_t i = 0; i < LOADS_MAX; i++)
		if (s->load[i].is_open && !s->holds_loads)
			answer_load(w, n, i);
	for (uint32_t i = 0; i < CHP_SCANS; i++)
		if (s->scan[i].is_open)
			answer_scan(w, n, i);
	if (s->holds_saves)
		return;
	for (uint32_t i = 0; i < s->n_saving; i++)
		keep(s, &s->saving[i]);
	s->n_saving = 0;
	s->backing.saved = s->saves;
}

static bool
has_answers(const struct store *s)
{
	if (s->begins)
		return true;
	if (!s->backing.is_ready)
		return false;
	for (uint32_t i = 0; i < LOADS_MAX && !s->holds_loads; i++)
		if (s->load[i].is_open)
			return true;
	for (uint32_t i = 0; i < CHP_SCANS; i++)
		if (s->scan[i].is_open)
			return true;
	return s->n_saving > 0 && !s->holds_saves;
}

/* What was applied is written behind, and durable at once. */
static void
write_behind(struct node *n)
{
	struct store *s = &n->store;
	struct chp_zab_state state;

	chp_zab_inspect(n->p, &state);
	if (s->holds_writes || !s->backing.is_ready || n->log.mark > state.applied)
		return;
	for (uint64_t at = n->log.mark; at <= state.applied; at++) {
		const struct chp_log_entry *e = chp_log_at(&n->log, at);
		struct kept k = { .version = e->version,
				  .generation = (uint16_t)chp_generation(n->w->view.epoch),
				  .flags = e->version_flags & CHP_ZAB_REMOVE,
				  .len = e->value_len };

		if ((e->version_flags & (CHP_ZAB_SESSION | CHP_ZAB_NOTHING | CHP_ZAB_RULE)) != 0)
			continue;
		k.key.len = e->key_len;
		chp_log_key(&n->log, e, k.key.bytes);
		chp_log_value(&n->log, e, k.value);
		keep(s, &k);
	}
	chp_log_set_mark(&n->log, state.applied + 1);
	s->backing.durable = n->log.mark;
	n->is_more = true;
}

/* ------------------------------------------------------------------ running */

static void
no_next_packet(struct chp_out *out, uint32_t peer, uint32_t bytes)
{
	(void)out;
	cr_assert_fail("%u bytes more than a lane has room for, to %u", bytes, peer);
}

static uint8_t *
take_reply(struct chp_out *out, const struct chp_reply *r)
{
	struct world *w = ((struct node *)out)->w;
	struct answer *a;
	uint32_t tag;

	memcpy(&tag, r->origin->address, sizeof(tag));
	cr_assert_lt(tag, w->tags);
	a = &w->answer[tag];
	cr_assert_not(a->is_given, "operation %u is answered twice", tag);
	cr_assert_gt(out->replies_left, 0);
	out->replies_left--;
	a->is_given = true;
	a->reply = *r;
	return a->value;
}

static void
post(struct world *w, uint32_t to, uint32_t from, const void *data, uint32_t len)
{
	struct parcel *p = malloc(sizeof(*p) + len), **at = &w->node[to].inbox;

	cr_assert_not_null(p);
	*p = (struct parcel){ .from = from, .len = len };
	memcpy(p->data, data, len);
	while (*at != NULL)
		at = &(*at)->next;
	*at = p;
}

static void
begin(struct node *n)
{
	for (uint32_t i = 0; i < NODES; i++) {
		n->out.lane[i] = (struct chp_lane){ .at = n->lane[i],
						    .end = n->lane[i] + LANE_BYTES,
						    .credits = i == n->env.self ? chp_log_room(&n->log) : 1000,
						    .bulk_bytes = 16384 };
	}
	n->out.replies_left = CHP_BATCH_MAX;
	n->out.wake_ns = n->out.reads_until_ns = CHP_NEVER;
}

static const struct chp_message *
message_at(const uint8_t *data, uint32_t at)
{
	return (const void *)(data + at);
}

static void
finish(struct world *w, struct node *n)
{
	const struct chp_now now = { .ns = w->now, .lease_until_ns = CHP_NEVER };

	n->is_more = chp_zab.wake(n->p, &now, &n->out);
	for (uint32_t i = 0; i < NODES; i++) {
		const uint32_t len = (uint32_t)(n->out.lane[i].at - n->lane[i]);

		for (uint32_t at = 0; at < len; at += message_at(n->lane[i], at)->len)
			cr_assert(chp_zab.accepts(message_at(n->lane[i], at), VALUE_MAX));
		if (len > 0)
			post(w, i, n->env.self, n->lane[i], len);
	}
	write_behind(n);
	chp_zab.check(n->p);
	chp_cache_check(n->env.cache);
	chp_log_check(&n->log);
}

static void
step(struct world *w, struct node *n, uint32_t from, const struct chp_message *message)
{
	const struct chp_now now = { .ns = w->now, .lease_until_ns = CHP_NEVER };
	struct chp_peer_message m = { .message = message, .from = (uint8_t)from };

	if (chp_zab.key_of(message, &m.key)) {
		m.key.pos = -1;
		m.key.digest = chp_cache_digest(n->env.cache, m.key.bytes, m.key.len, m.key.session);
	}
	chp_zab.step(n->p, &now, &m, 1, &n->out);
}

static bool
has_parcels(const struct world *w, const struct node *n)
{
	for (const struct parcel *p = n->inbox; p != NULL; p = p->next)
		if ((w->node[p->from].held & chp_bit(n->env.self)) == 0)
			return true;
	return false;
}

/* What has come to a node, from its peers and its store. */
static void
run(struct world *w, struct node *n)
{
	begin(n);
	for (struct parcel **at = &n->inbox; *at != NULL;) {
		struct parcel *p = *at;

		if ((w->node[p->from].held & chp_bit(n->env.self)) != 0) {
			at = &p->next;
			continue;
		}
		*at = p->next;
		for (uint32_t i = 0; i < p->len; i += message_at(p->data, i)->len)
			step(w, n, p->from, message_at(p->data, i));
		free(p);
	}
	answer_store(w, n);
	finish(w, n);
}

/* Everything that may arrive does, until nothing is on its way and nothing due. */
static void
flow(struct world *w)
{
	bool more = true;

	for (uint32_t rounds = 0; more; rounds++) {
		cr_assert_lt(rounds, 2000, "it never comes to rest");
		more = false;
		for (uint32_t i = 0; i < NODES; i++) {
			struct node *n = &w->node[i];

			if (!n->is_more && n->out.wake_ns > w->now && !has_answers(&n->store) && !has_parcels(w, n))
				continue;
			run(w, n);
			more = true;
		}
	}
}

static void
pass(struct world *w, uint32_t ms)
{
	while (ms-- > 0) {
		w->now += MS;
		flow(w);
	}
}

struct setup {
	uint32_t keys_max, value_blocks_max, log_entries;
	uint64_t generation; /* they begin cold, from the stores of all, if it is not 0 */
	bool is_durable;     /* level `datastore` */
	bool keeps_nothing;  /* a store that may not be relied on */
};

static void
create(struct world *w, uint32_t self, const struct setup *setup)
{
	struct node *n = &w->node[self];
	const struct chp_cache_config cache = { .name = "zab",
						.keys_max = setup->keys_max == 0 ? KEYS : setup->keys_max,
						.value_blocks_max = setup->value_blocks_max == 0 ? 200 :
								    setup->value_blocks_max,
						.headroom = NODES * CREDITS,
						.seed = SEED,
						.memory = &chp_memory_libc };
	int err = 0;

	n->w = w;
	n->store.node = n;
	n->store.backing = (struct chp_backing){ .is_present = true,
						 .is_durable = setup->is_durable,
						 .is_ready = true,
						 .has_begun = true,
						 .may_evict = !setup->keeps_nothing,
						 .load = ask_load,
						 .drop_load = drop_load,
						 .scan = ask_scan,
						 .save = ask_save,
						 .restart = restart };
	n->env = (struct chp_protocol_env){ .cache = chp_cache_create(&cache, &err),
					    .log = &n->log,
					    .sessions = &n->sessions,
					    .backing = &n->store.backing,
					    .counters = &n->counters,
					    .zab_counters = &n->zab,
					    .copy_counters = &n->copy,
					    .commit_ns = &n->commit_ns,
					    .application = &chp_store,
					    .memory = &chp_memory_libc,
					    .self = self,
					    .n_nodes = NODES,
					    .ops = 32,
					    .credits = CREDITS,
					    .keys_max = cache.keys_max,
					    .value_bytes_max = VALUE_MAX,
					    .copy_bytes = 4096,
					    .loads_max = LOADS_MAX,
					    .election_ns = ELECTION_MS * MS,
					    .leader_lease_ns = LEASE_MS * MS,
					    .clock_drift_ppm = 100 };
	cr_assert_not_null(n->env.cache);
	cr_assert_eq(chp_log_init(&n->log, setup->log_entries == 0 ? 256 : setup->log_entries, 2000, false,
				  &chp_memory_libc), 0);
	chp_log_keep(&n->log, n->log.mask + 1, 2000);
	cr_assert_eq(chp_sessions_init(&n->sessions, 16, 4, &chp_memory_libc), 0);
	n->p = chp_zab.create(&n->env);
	cr_assert_not_null(n->p);
	n->out.next_packet = no_next_packet;
	n->out.reply = take_reply;
	n->out.wake_ns = CHP_NEVER;
}

/* Three replicas that have no view yet. */
static struct world *
created(const struct setup *setup)
{
	struct world *w = calloc(1, sizeof(*w));

	cr_assert_not_null(w);
	w->now = 1000 * MS;
	w->view.epoch = chp_epoch_of_generation(setup->generation);
	w->view.voters = ALL3;
	w->view.sources = setup->generation == 0 ? 0 : ALL3;
	for (uint32_t i = 0; i < NODES; i++) {
		create(w, i, setup);
		w->view.incarnation[i] = 100 + i;
		w->view.writer[i] = (uint16_t)(i + 1);
	}
	return w;
}

static void
enter(struct world *w)
{
	const struct chp_now now = { .ns = w->now, .lease_until_ns = CHP_NEVER };

	for (uint32_t i = 0; i < NODES; i++) {
		begin(&w->node[i]);
		chp_zab.view(w->node[i].p, &now, &w->view, &w->node[i].out);
		finish(w, &w->node[i]);
	}
}

static struct chp_zab_state
state_of(const struct world *w, uint32_t n)
{
	struct chp_zab_state s;

	chp_zab_inspect(w->node[n].p, &s);
	return s;
}

static bool
is_leading(const struct world *w, uint32_t n)
{
	const struct chp_zab_state s = state_of(w, n);

	return s.is_leader && s.phase == CHP_ZAB_BROADCAST && s.applied == s.committed;
}

/* Time passes until this node leads and the others follow it. */
static void
wait_leader(struct world *w, uint32_t leader)
{
	for (uint32_t ms = 0; ms < 30 * ELECTION_MS; ms++) {
		uint32_t with = 0;

		for (uint32_t i = 0; i < NODES; i++)
			with += state_of(w, i).leader == leader && state_of(w, i).phase == CHP_ZAB_BROADCAST;
		if (with == NODES && is_leading(w, leader))
			return;
		pass(w, 1);
	}
	cr_assert_fail("%u does not lead", leader);
}

/* Node 0 leads. */
static struct world *
started_with(const struct setup *setup)
{
	struct world *w = created(setup);

	enter(w);
	flow(w);
	wait_leader(w, 0);
	return w;
}

static struct world *
started(void)
{
	return started_with(&(struct setup){ 0 });
}

/* Every key at rest that the store has leaves its cache at once. */
static struct world *
started_tight(void)
{
	return started_with(&(struct setup){ .keys_max = 1 });
}

static void
end(struct world *w)
{
	for (uint32_t i = 0; i < NODES; i++) {
		struct node *n = &w->node[i];

		while (n->inbox != NULL) {
			struct parcel *p = n->inbox;

			n->inbox = p->next;
			free(p);
		}
		chp_zab.destroy(n->p);
		chp_sessions_fini(&n->sessions, &chp_memory_libc);
		chp_log_fini(&n->log, &chp_memory_libc);
		chp_cache_destroy(n->env.cache);
	}
	free(w);
}

/* Nobody hears a node, and it hears nobody. */
static void
silence(struct world *w, uint32_t n)
{
	for (uint32_t i = 0; i < NODES; i++)
		w->node[i].held |= chp_bit(n);
	w->node[n].held = UINT64_MAX;
}

static void
let_speak(struct world *w)
{
	for (uint32_t i = 0; i < NODES; i++)
		w->node[i].held = 0;
}

static void
lose_inbox(struct node *n, uint32_t from)
{
	for (struct parcel **at = &n->inbox; *at != NULL;) {
		struct parcel *p = *at;

		if (p->from != from) {
			at = &p->next;
			continue;
		}
		*at = p->next;
		free(p);
	}
}

/* What is on its way between two nodes is lost, and both know. */
static void
reset_link(struct world *w, uint32_t a, uint32_t b)
{
	const struct chp_now now = { .ns = w->now, .lease_until_ns = CHP_NEVER };
	const uint32_t end[2] = { a, b };

	for (uint32_t i = 0; i < 2; i++) {
		struct node *n = &w->node[end[i]];

		lose_inbox(n, end[1 - i]);
		begin(n);
		chp_zab.link_down(n->p, &now, end[1 - i], &n->out);
		n->out.lane[end[1 - i]].at = n->lane[end[1 - i]];
		finish(w, n);
	}
	for (uint32_t i = 0; i < 2; i++) {
		struct node *n = &w->node[end[i]];

		begin(n);
		chp_zab.link_up(n->p, &now, end[1 - i], &n->out);
		finish(w, n);
	}
}

/* ------------------------------------------------------------------ operations */

static struct chp_op
op_of(uint8_t opcode, const char *key, const char *value)
{
	return (struct chp_op){ .opcode = opcode,
				.key = { .bytes = (const uint8_t *)key, .len = (uint32_t)strlen(key), .pos = -1 },
				.value = (const uint8_t *)value,
				.value_len = value == NULL ? 0 : (uint32_t)strlen(value) };
}

static struct chp_op
in_session(struct chp_op op, uint64_t session, uint64_t request)
{
	op.session = session;
	op.request = request;
	op.lowest = 1;
	return op;
}

/* Hand an operation to a node. Returns its tag. */
static uint32_t
ask(struct world *w, uint32_t at, struct chp_op op)
{
	const struct chp_now now = { .ns = w->now, .lease_until_ns = CHP_NEVER };
	struct node *n = &w->node[at];
	struct answer *a = &w->answer[w->tags];
	enum chp_status status;
	uint64_t number = 0;

	cr_assert_lt(w->tags, CHP_ARRAY_LEN(w->answer));
	memcpy(op.origin.address, &w->tags, sizeof(w->tags));
	op.key.digest = chp_cache_digest(n->env.cache, op.key.bytes, op.key.len, op.key.session);
	status = chp_zab.admit(n->p, &now, &op, &number);
	w->tags++;
	if (status != CHP_STATUS_OK) {
		*a = (struct answer){ .is_given = true, .reply = { .status = (uint8_t)status, .number = number } };
		return w->tags - 1;
	}
	begin(n);
	chp_zab.submit(n->p, &now, &op, 1, &n->out);
	finish(w, n);
	return w->tags - 1;
}

static uint32_t
get(struct world *w, uint32_t n, const char *key)
{
	return ask(w, n, op_of(CHP_OPCODE_GET, key, NULL));
}

static bool
is_answered(const struct world *w, uint32_t tag)
{
	return w->answer[tag].is_given;
}

static const struct chp_reply *
reply_to(const struct world *w, uint32_t tag)
{
	cr_assert(is_answered(w, tag), "operation %u has no answer", tag);
	return &w->answer[tag].reply;
}

static uint8_t
status_to(const struct world *w, uint32_t tag)
{
	return reply_to(w, tag)->status;
}

static void
expect_value(const struct world *w, uint32_t tag, const char *value)
{
	const struct chp_reply *r = reply_to(w, tag);

	cr_assert_eq(r->status, value == NULL ? CHP_STATUS_NOT_FOUND : CHP_STATUS_OK, "get: %s",
		     chp_status_name(r->status));
	if (value == NULL)
		return;
	cr_assert_eq(r->value_len, strlen(value));
	cr_assert_arr_eq(w->answer[tag].value, value, strlen(value));
}

static void
expect_get(struct world *w, uint32_t n, const char *key, const char *value)
{
	const uint32_t tag = get(w, n, key);

	flow(w);
	expect_value(w, tag, value);
}

/* At the leader, and all that follows from it. Returns the version. */
static uint64_t
complete(struct world *w, uint8_t opcode, const char *key, const char *value)
{
	const uint32_t tag = ask(w, 0, op_of(opcode, key, value));

	flow(w);
	cr_assert_eq(status_to(w, tag), CHP_STATUS_OK, "%s", chp_status_name(status_to(w, tag)));
	return reply_to(w, tag)->version;
}

static uint64_t
put(struct world *w, const char *key, const char *value)
{
	return complete(w, CHP_OPCODE_PUT, key, value);
}

static uint64_t
open_session(struct world *w)
{
	static uint64_t id;
	uint32_t tag;

	id = chp_zab.new_session(w->node[0].p);
	tag = ask(w, 0, (struct chp_op){ .opcode = CHP_OPCODE_SESSION_OPEN,
					 .key = { .bytes = (const uint8_t *)&id,
						  .len = sizeof(id),
						  .session = true,
						  .pos = -1 } });
	flow(w);
	cr_assert_eq(status_to(w, tag), CHP_STATUS_OK);
	return id;
}

static struct chp_slot *
slot_of(const struct world *w, uint32_t n, const char *key)
{
	struct chp_op op = op_of(CHP_OPCODE_GET, key, NULL);

	op.key.digest = chp_cache_digest(w->node[n].env.cache, op.key.bytes, op.key.len, false);
	return chp_cache_find(w->node[n].env.cache, &op.key);
}

static bool
is_cached(const struct world *w, uint32_t n, const char *key)
{
	return slot_of(w, n, key) != NULL;
}

/* A key at rest that the store has leaves the cache of every node. */
static void
evict(struct world *w, const char *key)
{
	for (uint32_t i = 0; i < NODES; i++) {
		struct chp_slot *s = slot_of(w, i, key);

		cr_assert(chp_backing_is_clean(&w->node[i].log, s->log_low));
		cr_assert(chp_cache_remove(w->node[i].env.cache, s));
	}
}

/* A key that only the stores have. */
static void
put_away(struct world *w, const char *key, const char *value)
{
	put(w, key, value);
	evict(w, key);
}

static const struct kept *
stored(struct world *w, uint32_t n, const char *key)
{
	return kept_of(&w->node[n].store, (const uint8_t *)key, (uint32_t)strlen(key));
}

/* A store has this key since a life before the present one; value NULL: deleted. */
static void
had(struct world *w, uint32_t n, const char *key, uint64_t version, uint16_t generation, const char *value)
{
	struct kept k = { .key = name_of((const uint8_t *)key, (uint32_t)strlen(key)),
			  .is_old = true,
			  .generation = generation,
			  .version = version,
			  .flags = value == NULL ? CHP_SLOT_TOMBSTONE : 0,
			  .len = value == NULL ? 0 : (uint32_t)strlen(value) };

	if (value != NULL)
		memcpy(k.value, value, k.len);
	keep(&w->node[n].store, &k);
}

/* The answer to the only open load of a node. */
static void
let_load(struct world *w, uint32_t n)
{
	w->node[n].store.holds_loads = false;
	flow(w);
	w->node[n].store.holds_loads = true;
}

/* The store takes nothing any more, */
static void
stall(struct world *w, uint32_t n)
{
	w->node[n].store.holds_saves = w->node[n].store.holds_writes = true;
}

/* or everything; the run after that is the first that may evict it. */
static void
let_save(struct world *w, uint32_t n)
{
	w->node[n].store.holds_saves = w->node[n].store.holds_writes = false;
	for (uint32_t i = 0; i < 2; i++) {
		run(w, &w->node[n]);
		flow(w);
	}
}

/* The last message of a kind that is on its way between two nodes; false: there is none. */
static bool
find_message(const struct world *w, uint32_t from, uint32_t to, uint8_t type, void *copy, uint32_t bytes)
{
	bool found = false;

	for (const struct parcel *p = w->node[to].inbox; p != NULL; p = p->next) {
		for (uint32_t at = 0; p->from == from && at < p->len;) {
			const struct chp_message *m = message_at(p->data, at);

			at += m->len;
			if (m->type != type)
				continue;
			cr_assert_geq(m->len, bytes);
			memcpy(copy, m, bytes);
			found = true;
		}
	}
	return found;
}

/* A message that the test has made; it is taken at once. */
static void
say(struct world *w, uint32_t from, uint32_t to, const void *message)
{
	const struct chp_message *m = message;

	cr_assert(chp_zab.accepts(m, VALUE_MAX));
	begin(&w->node[to]);
	step(w, &w->node[to], from, m);
	answer_store(w, &w->node[to]);
	finish(w, &w->node[to]);
}

/* ------------------------------------------------------------------ Z13: misses */

Test(zab_backed, z13_one_load_answers_all_who_wait_for_a_key)
{
	struct world *w = started();
	struct node *n = &w->node[0];
	uint32_t tag[3];

	put_away(w, "x", "one");
	n->store.holds_loads = true;
	for (uint32_t i = 0; i < 3; i++)
		tag[i] = get(w, 0, "x");
	flow(w);
	cr_assert_not(is_answered(w, tag[0]));
	cr_assert_eq(n->store.n_loads, 1);
	cr_assert_eq(n->counters.misses, 3);
	let_load(w, 0);
	for (uint32_t i = 0; i < 3; i++)
		expect_value(w, tag[i], "one");
	cr_assert_eq(reply_to(w, tag[2])->version, 1);
	expect_get(w, 0, "x", "one");
	cr_assert_eq(n->store.n_loads, 1, "it is in the cache now");
	end(w);
}

Test(zab_backed, z13_that_the_store_has_nothing_is_remembered)
{
	struct world *w = started();

	for (uint32_t i = 0; i < 3; i++) {
		expect_get(w, i, "x", NULL);
		expect_get(w, i, "x", NULL);
		cr_assert_eq(w->node[i].store.n_loads, 1);
		cr_assert_eq(w->node[i].counters.misses, 1);
	}
	put(w, "x", "one");
	expect_get(w, 0, "x", "one");
	expect_get(w, 2, "x", "one");
	end(w);
}

Test(zab_backed, z13_who_asks_for_more_keys_than_may_be_asked_for_is_refused)
{
	struct world *w = started();
	const uint64_t session = open_session(w);
	uint32_t tag[LOADS_MAX], read, write, asked;
	char key[8];

	w->node[0].store.holds_loads = true;
	for (uint32_t i = 0; i < LOADS_MAX; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		tag[i] = get(w, 0, key);
	}
	read = get(w, 0, "more");
	write = ask(w, 0, op_of(CHP_OPCODE_APPEND, "more", "!"));
	asked = ask(w, 0, in_session(op_of(CHP_OPCODE_APPEND, "more", "!"), session, 1));
	cr_assert_eq(status_to(w, read), CHP_STATUS_OVERLOAD);
	cr_assert_eq(status_to(w, write), CHP_STATUS_BUSY);
	cr_assert_eq(status_to(w, asked), CHP_STATUS_OVERLOAD, "nothing final without an entry");
	cr_assert_eq(w->node[0].counters.misses_refused, 3);
	cr_assert(!is_cached(w, 0, "more"));
	/* One more for a key that is asked for already has room. */
	read = get(w, 0, "k3");
	let_load(w, 0);
	for (uint32_t i = 0; i < LOADS_MAX; i++)
		expect_value(w, tag[i], NULL);
	expect_value(w, read, NULL);
	w->node[0].store.holds_loads = false;
	expect_get(w, 0, "more", NULL);
	end(w);
}

Test(zab_backed, z13_a_write_that_needs_no_value_does_not_wait)
{
	struct world *w = started();

	put_away(w, "x", "one");
	w->node[0].store.holds_loads = true;
	cr_assert_eq(put(w, "x", "two"), 2);
	cr_assert_eq(put(w, "y", "new"), 3);
	cr_assert_eq(w->node[0].store.n_loads, 0);
	expect_get(w, 0, "x", "two");
	end(w);
}

Test(zab_backed, z13_a_write_ends_the_load_of_its_key)
{
	struct world *w = started();
	uint32_t read;

	put_away(w, "x", "one");
	w->node[0].store.holds_loads = true;
	read = get(w, 0, "x");
	put(w, "x", "two");
	expect_value(w, read, "two");
	let_load(w, 0);
	cr_assert_eq(w->node[0].counters.loads_stale, 1);
	expect_get(w, 0, "x", "two");
	end(w);
}

Test(zab_backed, z13_a_read_modify_write_has_its_key_loaded_first)
{
	struct world *w = started();
	uint32_t append, add;

	put_away(w, "x", "one");
	w->node[0].store.holds_loads = true;
	append = ask(w, 0, op_of(CHP_OPCODE_APPEND, "x", "!"));
	add = ask(w, 0, op_of(CHP_OPCODE_ADD, "y", "first"));
	flow(w);
	cr_assert_eq(state_of(w, 0).last, 1, "nothing is proposed");
	cr_assert_eq(w->node[0].counters.writes_parked, 2);
	let_load(w, 0);
	cr_assert_eq(status_to(w, append), CHP_STATUS_OK);
	cr_assert_eq(status_to(w, add), CHP_STATUS_OK);
	for (uint32_t i = 0; i < 3; i++) {
		w->node[i].store.holds_loads = false;
		expect_get(w, i, "x", "one!");
		expect_get(w, i, "y", "first");
	}
	end(w);
}

Test(zab_backed, z13_read_modify_writes_that_wait_for_one_key_follow_each_other)
{
	struct world *w = started();
	uint32_t tag[3];

	put_away(w, "x", "a");
	w->node[0].store.holds_loads = true;
	tag[0] = ask(w, 0, op_of(CHP_OPCODE_APPEND, "x", "b"));
	tag[1] = get(w, 0, "x");
	tag[2] = ask(w, 0, op_of(CHP_OPCODE_APPEND, "x", "c"));
	let_load(w, 0);
	cr_assert_eq(status_to(w, tag[0]), CHP_STATUS_OK);
	cr_assert_eq(reply_to(w, tag[0])->version, 2);
	expect_value(w, tag[1], "a");
	cr_assert_eq(reply_to(w, tag[2])->version, 3);
	cr_assert_eq(w->node[0].store.n_loads, 1);
	expect_get(w, 0, "x", "abc");
	end(w);
}

Test(zab_backed, z13_a_deleted_key_is_loaded_as_such)
{
	struct world *w = started_tight();

	put(w, "x", "one");
	complete(w, CHP_OPCODE_DELETE, "x", NULL);
	flow(w);
	cr_assert(!is_cached(w, 0, "x"));
	expect_get(w, 0, "x", NULL);
	cr_assert_geq(w->node[0].store.n_loads, 1);
	cr_assert_eq(complete(w, CHP_OPCODE_ADD, "x", "again"), 3);
	expect_get(w, 2, "x", "again");
	end(w);
}

Test(zab_backed, z13_what_cannot_be_loaded_is_not_answered_and_asked_for_anew)
{
	struct world *w = started();
	uint32_t read, write;

	put_away(w, "x", "one");
	w->node[0].store.fails = true;
	w->node[0].store.holds_loads = true;
	read = get(w, 0, "x");
	write = ask(w, 0, op_of(CHP_OPCODE_APPEND, "x", "!"));
	let_load(w, 0);
	cr_assert_eq(status_to(w, read), CHP_STATUS_OVERLOAD);
	cr_assert_eq(status_to(w, write), CHP_STATUS_BUSY);
	cr_assert_eq(w->node[0].counters.loads_failed, 1);
	cr_assert(!is_cached(w, 0, "x"), "a slot that stays must not lie");
	w->node[0].store.fails = w->node[0].store.holds_loads = false;
	expect_get(w, 0, "x", "one");
	end(w);
}

Test(zab_backed, z13_a_follower_loads_from_its_own_store)
{
	struct world *w = started();

	put_away(w, "x", "one");
	expect_get(w, 2, "x", "one");
	cr_assert_eq(w->node[2].store.n_loads, 1);
	cr_assert_eq(w->node[0].store.n_loads, 0);
	cr_assert_eq(w->node[2].counters.misses, 1);
	end(w);
}

Test(zab_backed, z13_a_follower_whose_store_is_away_names_the_leader)
{
	struct world *w = started();
	uint32_t read;

	put_away(w, "x", "one");
	put(w, "y", "here");
	w->node[2].store.backing.is_ready = false;
	read = get(w, 2, "x");
	flow(w);
	cr_assert_eq(status_to(w, read), CHP_STATUS_REDIRECT);
	cr_assert_eq(reply_to(w, read)->number, 0);
	cr_assert_eq(w->node[2].counters.host_away, 1);
	cr_assert_eq(w->node[2].store.n_loads, 0);
	expect_get(w, 2, "y", "here");
	end(w);
}

Test(zab_backed, z13_who_waits_for_a_key_when_the_term_ends_is_refused)
{
	struct world *w = started();
	uint32_t read, write;

	put_away(w, "x", "one");
	w->node[0].store.holds_loads = true;
	read = get(w, 0, "x");
	write = ask(w, 0, op_of(CHP_OPCODE_APPEND, "x", "!"));
	silence(w, 0);
	pass(w, 4 * ELECTION_MS);
	cr_assert(status_to(w, read) == CHP_STATUS_NOT_SERVING || status_to(w, read) == CHP_STATUS_REDIRECT, "%s",
		  chp_status_name(status_to(w, read)));
	cr_assert_neq(status_to(w, write), CHP_STATUS_OK);
	cr_assert_neq(status_to(w, write), CHP_STATUS_UNKNOWN_OUTCOME, "it was never proposed");
	cr_assert(!is_cached(w, 0, "x"));
	let_load(w, 0);
	cr_assert_eq(w->node[0].counters.loads_stale, 1);
	let_speak(w);
	pass(w, 6 * ELECTION_MS);
	expect_get(w, 1, "x", "one");
	end(w);
}

Test(zab_backed, z13_a_read_under_the_lease_needs_it_still_when_its_key_is_here)
{
	struct world *w = started();
	uint32_t read;

	put_away(w, "x", "one");
	pass(w, 30);
	w->node[0].store.holds_loads = true;
	read = get(w, 0, "x");
	cr_assert_eq(w->node[0].zab.lease_reads, 1);
	silence(w, 0);
	pass(w, LEASE_MS + 10);
	let_load(w, 0);
	cr_assert_not(is_answered(w, read), "others may lead by now");
	let_speak(w);
	pass(w, 20);
	expect_value(w, read, "one");
	end(w);
}

static struct chp_op
twin_op(uint32_t n, uint8_t *bytes)
{
	chp_twin(SEED, n, bytes);
	return (struct chp_op){ .opcode = CHP_OPCODE_GET,
				.key = { .bytes = bytes, .len = CHP_KEY_BYTES_MAX, .pos = -1 } };
}

Test(zab_backed, z13_a_key_whose_digest_another_needs_is_asked_for_until_it_is_known)
{
	struct world *w = started();
	uint8_t first[CHP_KEY_BYTES_MAX], second[CHP_KEY_BYTES_MAX];
	struct chp_op put_second = twin_op(1, second);
	uint32_t tag, loads;

	w->node[0].store.fails = w->node[0].store.holds_loads = true;
	tag = ask(w, 0, twin_op(0, first));
	put_second.opcode = CHP_OPCODE_PUT;
	put_second.value = (const uint8_t *)"two";
	put_second.value_len = 3;
	ask(w, 0, put_second);
	flow(w);
	let_load(w, 0);
	cr_assert_eq(status_to(w, tag), CHP_STATUS_OVERLOAD);
	loads = w->node[0].store.n_loads;
	pass(w, 5);
	cr_assert_gt(w->node[0].store.n_loads, loads);
	w->node[0].store.fails = w->node[0].store.holds_loads = false;
	pass(w, 5);
	loads = w->node[0].store.n_loads;
	tag = ask(w, 0, twin_op(0, first));
	flow(w);
	expect_value(w, tag, NULL);
	cr_assert_eq(w->node[0].store.n_loads, loads, "that it is nowhere is known");
	tag = ask(w, 0, twin_op(1, second));
	flow(w);
	expect_value(w, tag, "two");
	end(w);
}

/* ------------------------------------------------------------------ Z14: eviction */

Test(zab_backed, z14_what_the_store_has_not_yet_stays)
{
	struct world *w = started_tight();

	for (uint32_t i = 0; i < 3; i++)
		stall(w, i);
	put(w, "x", "one");
	pass(w, 5);
	for (uint32_t i = 0; i < 3; i++)
		cr_assert(is_cached(w, i, "x"));
	let_save(w, 1);
	cr_assert(!is_cached(w, 1, "x"));
	cr_assert(is_cached(w, 0, "x"));
	cr_assert(is_cached(w, 2, "x"));
	expect_get(w, 1, "x", "one");
	expect_get(w, 0, "x", "one");
	cr_assert_eq(w->node[1].store.n_loads, 1);
	cr_assert_eq(w->node[0].store.n_loads, 0);
	end(w);
}

Test(zab_backed, z14_a_key_that_is_waited_for_stays)
{
	struct world *w = started_tight();
	uint32_t tag;

	put(w, "x", "one");
	cr_assert(!is_cached(w, 0, "x"));
	w->node[0].store.holds_loads = true;
	tag = get(w, 0, "x");
	pass(w, 5);
	cr_assert(is_cached(w, 0, "x"), "its place, while it is loaded");
	let_load(w, 0);
	expect_value(w, tag, "one");
	run(w, &w->node[0]);
	cr_assert(!is_cached(w, 0, "x"));
	end(w);
}

Test(zab_backed, z14_a_store_that_keeps_nothing_is_no_reason_to_leave)
{
	struct world *w = started_with(&(struct setup){ .keys_max = 2, .keeps_nothing = true });

	put(w, "x", "one");
	pass(w, 5);
	cr_assert(is_cached(w, 0, "x"));
	/* But that it has nothing of a key is not worth a place. */
	expect_get(w, 2, "y", NULL);
	run(w, &w->node[2]);
	cr_assert(is_cached(w, 2, "x"));
	cr_assert(!is_cached(w, 2, "y"));
	end(w);
}

Test(zab_backed, z14_a_deleted_key_stays_until_the_store_knows)
{
	struct world *w = started_tight();

	put(w, "x", "one");
	stall(w, 0);
	complete(w, CHP_OPCODE_DELETE, "x", NULL);
	pass(w, 5);
	cr_assert(is_cached(w, 0, "x"));
	w->node[0].store.n_loads = 0;
	expect_get(w, 0, "x", NULL);
	cr_assert_eq(w->node[0].store.n_loads, 0, "a load would bring it back");
	let_save(w, 0);
	cr_assert(!is_cached(w, 0, "x"));
	cr_assert_eq(stored(w, 0, "x")->flags, CHP_SLOT_TOMBSTONE);
	expect_get(w, 0, "x", NULL);
	cr_assert_eq(w->node[0].store.n_loads, 1);
	end(w);
}

Test(zab_backed, z14_sessions_stay)
{
	struct world *w = started_with(&(struct setup){ .keys_max = 2 });
	const uint64_t session = open_session(w);
	uint32_t tag;

	put(w, "x", "one");
	put(w, "y", "two");
	for (uint32_t i = 0; i < 3; i++)
		cr_assert_eq(chp_cache_sessions(w->node[i].env.cache), 1);
	tag = ask(w, 0, in_session(op_of(CHP_OPCODE_PUT, "x", "two"), session, 1));
	flow(w);
	cr_assert_eq(status_to(w, tag), CHP_STATUS_OK);
	end(w);
}

Test(zab_backed, z14_a_full_cache_that_cannot_be_saved_refuses_writes_and_loses_none)
{
	struct world *w = started_with(&(struct setup){ .keys_max = 8 });
	uint32_t n = 0, tag;
	char key[8];

	stall(w, 0);
	for (;; n++) {
		snprintf(key, sizeof(key), "k%u", n);
		tag = ask(w, 0, op_of(CHP_OPCODE_PUT, key, key));
		flow(w);
		if (status_to(w, tag) != CHP_STATUS_OK)
			break;
	}
	cr_assert_eq(status_to(w, tag), CHP_STATUS_BUSY);
	cr_assert_eq(n, 8);
	cr_assert_eq(w->node[0].counters.full, 1);
	cr_assert_eq(state_of(w, 0).last, 8, "what was refused is in no log");
	/* A key that has its place is written all the same. */
	put(w, "k3", "k3");
	let_save(w, 0);
	put(w, key, key);
	for (uint32_t i = 0; i <= n; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		expect_get(w, 0, key, key);
	}
	end(w);
}

Test(zab_backed, z14_a_follower_that_cannot_save_falls_behind_and_catches_up)
{
	struct world *w = started_with(&(struct setup){ .keys_max = 8 });
	char key[8];

	stall(w, 2);
	for (uint32_t i = 0; i < 120; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		put(w, key, key);
	}
	cr_assert_lt(state_of(w, 2).applied, 120, "there is no room");
	cr_assert_eq(state_of(w, 2).committed, 120);
	cr_assert_eq(state_of(w, 0).applied, 120);
	let_save(w, 2);
	pass(w, 5);
	cr_assert_eq(state_of(w, 2).applied, 120);
	cr_assert_eq(w->node[2].counters.overrun, 0);
	for (uint32_t i = 0; i < 120; i += 7) {
		snprintf(key, sizeof(key), "k%u", i);
		expect_get(w, 2, key, key);
	}
	end(w);
}

Test(zab_backed, z14_what_is_loaded_needs_room)
{
	struct world *w = started_with(&(struct setup){ .value_blocks_max = 4 });
	char large[VALUE_MAX + 1] = { 0 };
	uint32_t tag;

	memset(large, 'l', VALUE_MAX);
	put(w, "x", large);
	evict(w, "x");
	stall(w, 0);
	for (uint32_t i = 0; chp_cache_admits(w->node[0].env.cache, 1, VALUE_MAX, true); i++) {
		char key[8];

		snprintf(key, sizeof(key), "%u", i);
		put(w, key, large);
	}
	tag = get(w, 0, "x");
	flow(w);
	cr_assert_eq(status_to(w, tag), CHP_STATUS_OVERLOAD);
	let_save(w, 0);
	expect_get(w, 0, "x", large);
	end(w);
}

/* ------------------------------------------------------------------ Z15: copies */

static bool
is_copied(const struct world *w, uint32_t n)
{
	return chp_zab.copy_done(w->node[n].p);
}

/* Node 2 hears nothing until it comes back, and then what it lacks is in no log any more. */
static void
fall_behind(struct world *w)
{
	silence(w, 2);
}

static void
come_back(struct world *w)
{
	for (uint32_t i = 0; i < 2; i++) {
		chp_log_keep(&w->node[i].log, 0, 0);
		chp_log_compact(&w->node[i].log, 1000);
	}
	let_speak(w);
	reset_link(w, 0, 2);
	reset_link(w, 1, 2);
	flow(w);
	cr_assert(is_leading(w, 0));
}

static struct world *
copied_to_a_stalled_store(void)
{
	struct world *w = started_tight();

	put(w, "z", "gone");
	fall_behind(w);
	put(w, "x", "one");
	put(w, "y", "two");
	complete(w, CHP_OPCODE_DELETE, "z", NULL);
	stall(w, 2);
	come_back(w);
	pass(w, 5);
	cr_assert_eq(w->node[0].zab.syncs_snap, 1);
	return w;
}

Test(zab_backed, z15_what_is_copied_stays_until_it_is_saved)
{
	struct world *w = copied_to_a_stalled_store();

	cr_assert_eq(w->node[2].store.restarts, 1);
	cr_assert(!state_of(w, 2).copying);
	cr_assert(!is_copied(w, 2), "not while the store lacks it");
	cr_assert(is_cached(w, 2, "x"));
	cr_assert(is_cached(w, 2, "y"));
	cr_assert(is_cached(w, 2, "z"), "the store has to hear that it is deleted");
	cr_assert_null(stored(w, 2, "x"));
	let_save(w, 2);
	cr_assert(is_copied(w, 2));
	cr_assert(!is_cached(w, 2, "x"));
	cr_assert_eq(stored(w, 2, "x")->version, 2);
	cr_assert_eq(stored(w, 2, "z")->flags, CHP_SLOT_TOMBSTONE);
	cr_assert(!stored(w, 2, "z")->is_old);
	expect_get(w, 2, "x", "one");
	expect_get(w, 2, "y", "two");
	expect_get(w, 2, "z", NULL);
	end(w);
}

Test(zab_backed, z15_what_was_lost_on_its_way_is_saved_again)
{
	struct world *w = copied_to_a_stalled_store();
	struct store *s = &w->node[2].store;

	cr_assert_eq(s->n_saving, 3, "each is on its way once");
	s->n_saving = 0;
	s->backing.saved = s->saves;
	s->backing.losses++;
	run(w, &w->node[2]);
	cr_assert_eq(s->n_saving, 3);
	cr_assert(is_cached(w, 2, "x"));
	let_save(w, 2);
	cr_assert(is_copied(w, 2));
	cr_assert_not_null(stored(w, 2, "x"));
	cr_assert_not_null(stored(w, 2, "y"));
	end(w);
}

Test(zab_backed, z15_what_is_written_while_it_is_saved_is_not_durable_yet)
{
	struct world *w = copied_to_a_stalled_store();

	put(w, "x", "new");
	w->node[2].store.holds_saves = false;
	flow(w);
	run(w, &w->node[2]);
	cr_assert(is_copied(w, 2));
	cr_assert(!is_cached(w, 2, "y"));
	cr_assert(is_cached(w, 2, "x"), "the log has a newer one, and the store not");
	expect_get(w, 2, "x", "new");
	let_save(w, 2);
	cr_assert(!is_cached(w, 2, "x"));
	expect_get(w, 2, "x", "new");
	end(w);
}

Test(zab_backed, z15_a_copy_that_does_not_fit_the_cache_goes_on_to_the_store)
{
	struct world *w = started_tight();
	char key[8];

	fall_behind(w);
	for (uint32_t i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		put(w, key, key);
		if (i % 10 == 0)
			complete(w, CHP_OPCODE_DELETE, key, NULL);
	}
	come_back(w);
	pass(w, 50);
	cr_assert(is_copied(w, 2));
	cr_assert_eq(w->node[0].zab.syncs_snap, 1);
	for (uint32_t i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		cr_assert_not_null(stored(w, 2, key), "%s", key);
		cr_assert_eq(stored(w, 2, key)->version, stored(w, 0, key)->version);
		expect_get(w, 2, key, i % 10 == 0 ? NULL : key);
	}
	end(w);
}

Test(zab_backed, z15_a_full_cache_slows_a_copy_down_until_the_store_takes_it)
{
	struct world *w = started_tight();
	char key[8];

	fall_behind(w);
	for (uint32_t i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		put(w, key, key);
	}
	stall(w, 2);
	come_back(w);
	pass(w, 20);
	cr_assert(state_of(w, 2).copying);
	cr_assert_lt(state_of(w, 2).applied, UINT64_MAX);
	let_save(w, 2);
	for (uint32_t ms = 0; !is_copied(w, 2); ms++) {
		cr_assert_lt(ms, 20 * ELECTION_MS, "it never ends");
		pass(w, 1);
	}
	for (uint32_t i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		expect_get(w, 2, key, key);
	}
	end(w);
}

/* A copy to node 2 whose items the test says: they may come twice, older the second time. */
struct by_hand {
	struct world *w;
	uint32_t transfer, items;
	uint64_t digest;
};

/* The leader has gone on to entry 9 by then, which node 2 has not heard. */
static struct by_hand
copied_by_hand(void)
{
	struct by_hand c = { .w = started_with(&(struct setup){ .keys_max = 2 }) };
	struct chp_copy_request m;

	put(c.w, "a", "1");
	fall_behind(c.w);
	put(c.w, "a", "2");
	for (uint32_t i = 0; i < 2; i++) {
		chp_log_keep(&c.w->node[i].log, 0, 0);
		chp_log_compact(&c.w->node[i].log, 1000);
	}
	let_speak(c.w);
	reset_link(c.w, 0, 2);
	for (uint32_t i = 0; !find_message(c.w, 2, 0, CHP_COPY_REQUEST, &m, sizeof(m)); i++) {
		cr_assert_lt(i, 20);
		run(c.w, &c.w->node[0]);
		run(c.w, &c.w->node[2]);
	}
	c.transfer = m.message.op;
	c.w->node[2].held = N0;
	c.w->node[0].held = N2;
	for (uint32_t i = 0; i < 7; i++)
		put(c.w, "a", "more");
	cr_assert_eq(state_of(c.w, 0).applied, 9);
	return c;
}

static void
copy_item(struct by_hand *c, const char *key, uint64_t version)
{
	struct {
		struct chp_copy_item item;
		uint8_t key[8];
	} m = { .item = { .message = { .type = CHP_COPY_ITEM, .op = c->transfer },
			  .version = version,
			  .key_len = (uint8_t)strlen(key) } };

	m.item.message.len = (uint16_t)chp_copy_item_bytes(m.item.key_len, 0);
	memcpy(m.key, key, strlen(key));
	c->items++;
	c->digest += chp_hash64(&m, m.item.message.len, 0);
	say(c->w, 0, 2, &m);
}

static void
copy_end(struct by_hand *c)
{
	const struct chp_copy_end m = { .message = { .type = CHP_COPY_END, .len = sizeof(m), .op = c->transfer },
					.next = 1,
					.items = c->items,
					.end_flags = CHP_COPY_DONE,
					.digest = c->digest,
					.total = 1 };

	say(c->w, 0, 2, &m);
	cr_assert_eq(c->w->node[2].copy.chunks_bad, 0);
}

Test(zab_backed, z15_a_newer_version_that_comes_while_an_older_is_saved_is_saved_too)
{
	struct by_hand c = copied_by_hand();
	struct store *s = &c.w->node[2].store;

	s->holds_saves = true;
	copy_item(&c, "x", 3);
	run(c.w, &c.w->node[2]);
	cr_assert_eq(s->n_saving, 1);
	copy_item(&c, "x", 4);
	s->holds_saves = false;
	run(c.w, &c.w->node[2]);
	cr_assert(is_cached(c.w, 2, "x"));
	run(c.w, &c.w->node[2]);
	cr_assert_eq(stored(c.w, 2, "x")->version, 4);
	end(c.w);
}

/* The key has left the cache at version 9, and comes again at 3, when the copy ends. */
static struct by_hand
copied_short(void)
{
	struct by_hand c = copied_by_hand();

	copy_item(&c, "x", 9);
	copy_item(&c, "y", 9);
	for (uint32_t i = 0; i < 4; i++)
		run(c.w, &c.w->node[2]);
	cr_assert(!is_cached(c.w, 2, "x"), "there is room for one");
	c.w->node[2].store.holds_saves = true;
	copy_item(&c, "x", 3);
	copy_end(&c);
	cr_assert(state_of(c.w, 2).copying, "a read would find what is older");
	return c;
}

Test(zab_backed, z15_only_the_store_knows_which_version_is_the_newer_one)
{
	struct by_hand c = copied_short();

	let_speak(c.w);
	flow(c.w);
	cr_assert_eq(state_of(c.w, 2).applied, 9);
	cr_assert(state_of(c.w, 2).copying);
	let_save(c.w, 2);
	cr_assert_eq(stored(c.w, 2, "x")->version, 9);
	cr_assert(!is_cached(c.w, 2, "x"));
	cr_assert(!state_of(c.w, 2).copying);
	cr_assert(is_copied(c.w, 2));
	expect_get(c.w, 2, "a", "more");
	end(c.w);
}

Test(zab_backed, z15_a_copy_that_is_ahead_of_the_log_waits_for_it)
{
	struct by_hand c = copied_short();

	c.w->node[2].store.holds_saves = false;
	for (uint32_t i = 0; i < 2; i++)
		run(c.w, &c.w->node[2]);
	cr_assert_eq(stored(c.w, 2, "x")->version, 9);
	cr_assert(state_of(c.w, 2).copying, "entries up to 9 would make it look older once more");
	let_speak(c.w);
	flow(c.w);
	cr_assert(!state_of(c.w, 2).copying);
	cr_assert(is_copied(c.w, 2));
	end(c.w);
}

/* [SAFETY 35] */
Test(zab_backed, z15_a_copy_begins_a_new_life_of_the_store)
{
	struct world *w = started();
	const struct kept ghost = { .key = { 5, "ghost" }, .version = 1, .len = 3, .value = "boo" };

	put(w, "x", "one");
	keep(&w->node[2].store, &ghost);
	expect_get(w, 0, "nowhere", NULL);
	fall_behind(w);
	put(w, "x", "two");
	come_back(w);
	pass(w, 5);
	cr_assert(is_copied(w, 2));
	cr_assert(stored(w, 2, "ghost")->is_old);
	expect_get(w, 2, "ghost", NULL);
	expect_get(w, 2, "x", "two");
	cr_assert_null(stored(w, 2, "nowhere"), "of what is nowhere there is nothing to copy");
	end(w);
}

Test(zab_backed, z15_who_waits_when_the_copy_begins_is_refused)
{
	struct world *w = started();
	uint32_t tag;

	put_away(w, "x", "one");
	w->node[2].store.holds_loads = true;
	tag = get(w, 2, "x");
	flow(w);
	cr_assert_eq(w->node[2].store.n_loads, 1);
	fall_behind(w);
	put(w, "x", "two");
	come_back(w);
	pass(w, 5);
	cr_assert(is_answered(w, tag));
	cr_assert_neq(status_to(w, tag), CHP_STATUS_OK);
	let_load(w, 2);
	cr_assert_eq(w->node[2].counters.loads_stale, 1);
	w->node[2].store.holds_loads = false;
	expect_get(w, 2, "x", "two");
	end(w);
}

/* ------------------------------------------------------------------ Z16: level `datastore` */

static struct world *
started_durable(void)
{
	return started_with(&(struct setup){ .is_durable = true });
}

/* [SAFETY 33] */
Test(zab_backed, z16_clients_hear_of_what_the_stores_of_a_majority_have)
{
	struct world *w = started_durable();
	uint32_t tag;

	stall(w, 1);
	stall(w, 2);
	tag = ask(w, 0, op_of(CHP_OPCODE_PUT, "x", "one"));
	pass(w, 5);
	cr_assert_not(is_answered(w, tag));
	for (uint32_t i = 0; i < 3; i++)
		cr_assert_eq(state_of(w, i).applied, 1, "it is applied all the same");
	cr_assert_not_null(stored(w, 0, "x"));
	let_save(w, 2);
	cr_assert_eq(status_to(w, tag), CHP_STATUS_OK);
	cr_assert_eq(reply_to(w, tag)->version, 1);
	end(w);
}

Test(zab_backed, z16_the_leaders_own_store_may_be_the_one_that_is_late)
{
	struct world *w = started_durable();
	uint32_t tag;

	for (uint32_t i = 0; i < 3; i++)
		stall(w, i);
	tag = ask(w, 0, op_of(CHP_OPCODE_PUT, "x", "one"));
	pass(w, 5);
	let_save(w, 1);
	cr_assert_not(is_answered(w, tag));
	let_save(w, 2);
	cr_assert_eq(status_to(w, tag), CHP_STATUS_OK);
	cr_assert_null(stored(w, 0, "x"));
	end(w);
}

Test(zab_backed, z16_a_read_waits_with_what_it_has_read)
{
	struct world *w = started_durable();
	uint32_t written, read, gone, relaxed, follower;

	put(w, "old", "1");
	stall(w, 1);
	stall(w, 2);
	written = ask(w, 0, op_of(CHP_OPCODE_PUT, "x", "one"));
	flow(w);
	read = get(w, 0, "x");
	follower = get(w, 2, "x");
	relaxed = ask(w, 0, (struct chp_op){ .opcode = CHP_OPCODE_GET,
					     .is_relaxed = true,
					     .key = { .bytes = (const uint8_t *)"x", .len = 1, .pos = -1 } });
	flow(w);
	expect_value(w, relaxed, "one");
	expect_get(w, 0, "old", "1");
	ask(w, 0, op_of(CHP_OPCODE_DELETE, "x", NULL));
	flow(w);
	gone = get(w, 0, "x");
	pass(w, 5);
	cr_assert_not(is_answered(w, written));
	cr_assert_not(is_answered(w, read));
	cr_assert_not(is_answered(w, gone));
	cr_assert_not(is_answered(w, follower));
	let_save(w, 1);
	pass(w, 1);
	cr_assert_eq(status_to(w, written), CHP_STATUS_OK);
	expect_value(w, read, "one");
	expect_value(w, gone, NULL);
	expect_value(w, follower, "one");
	end(w);
}

Test(zab_backed, z16_a_retry_of_what_is_not_in_enough_stores_is_put_off)
{
	struct world *w = started_durable();
	const uint64_t session = open_session(w);
	const struct chp_op op = in_session(op_of(CHP_OPCODE_PUT, "x", "one"), session, 1);
	const struct chp_now now = { .ns = w->now };
	uint64_t number;
	uint32_t tag;

	stall(w, 1);
	stall(w, 2);
	ask(w, 0, op);
	flow(w);
	tag = ask(w, 0, op);
	cr_assert_eq(status_to(w, tag), CHP_STATUS_OVERLOAD);
	let_save(w, 1);
	cr_assert_eq(chp_zab.admit(w->node[0].p, &now, &op, &number), CHP_STATUS_OK);
	end(w);
}

Test(zab_backed, z16_a_store_that_lacks_what_was_copied_counts_for_nothing)
{
	struct world *w = started_with(&(struct setup){ .keys_max = 1, .is_durable = true });
	uint32_t tag;

	fall_behind(w);
	put(w, "x", "one");
	put(w, "y", "two");
	stall(w, 1);
	w->node[2].store.holds_saves = true;
	come_back(w);
	tag = ask(w, 0, op_of(CHP_OPCODE_PUT, "z", "three"));
	pass(w, 5);
	cr_assert_not_null(stored(w, 2, "z"));
	cr_assert_null(stored(w, 2, "x"));
	cr_assert_not(is_answered(w, tag));
	let_save(w, 2);
	pass(w, 1);
	cr_assert_eq(status_to(w, tag), CHP_STATUS_OK);
	end(w);
}

/* ------------------------------------------------------------------ Z17: stores that are away */

static void
lose_store(struct world *w, uint32_t n)
{
	w->node[n].store.backing.is_ready = false;
}

/* [SAFETY 32] */
Test(zab_backed, z17_a_leader_whose_store_is_away_leaves_to_who_has_one)
{
	struct world *w = started();

	put_away(w, "x", "one");
	lose_store(w, 0);
	pass(w, ELECTION_MS - 10);
	cr_assert(is_leading(w, 0), "it may come back");
	pass(w, 10 * ELECTION_MS);
	wait_leader(w, 1);
	cr_assert_eq(w->node[0].zab.hosts_away, 1);
	expect_get(w, 1, "x", "one");
	end(w);
}

Test(zab_backed, z17_a_follower_without_a_store_is_not_the_one)
{
	struct world *w = started();

	lose_store(w, 1);
	pass(w, 50);
	lose_store(w, 0);
	pass(w, 10 * ELECTION_MS);
	wait_leader(w, 2);
	cr_assert_eq(w->node[0].zab.hosts_away, 1);
	end(w);
}

Test(zab_backed, z17_where_nobody_has_a_store_the_leader_goes_on_with_what_it_has)
{
	struct world *w = started();
	uint32_t read;

	put(w, "x", "one");
	put(w, "y", "two");
	evict(w, "x");
	for (uint32_t i = 0; i < 3; i++)
		lose_store(w, i);
	pass(w, 10 * ELECTION_MS);
	cr_assert(is_leading(w, 0));
	cr_assert_eq(w->node[0].zab.hosts_away, 0);
	expect_get(w, 0, "y", "two");
	put(w, "z", "three");
	read = get(w, 0, "x");
	flow(w);
	cr_assert_not(is_answered(w, read));
	w->node[0].store.backing.is_ready = true;
	pass(w, 1);
	expect_value(w, read, "one");
	end(w);
}

Test(zab_backed, z17_a_store_that_lost_data_is_copied_to_anew)
{
	struct world *w = started_tight();

	put(w, "x", "one");
	w->node[0].store.n_kept = 0;
	w->node[0].store.backing.has_lost = true;
	pass(w, 10 * ELECTION_MS);
	cr_assert(!is_leading(w, 0));
	cr_assert_eq(w->node[0].store.restarts, 1);
	cr_assert(is_copied(w, 0));
	cr_assert_not_null(stored(w, 0, "x"));
	cr_assert_eq(stored(w, 0, "x")->version, 1);
	wait_leader(w, state_of(w, 0).leader);
	expect_get(w, 0, "x", "one");
	end(w);
}

/* ------------------------------------------------------------------ Z18: cold start (SAFETY 34) */

#define BEFORE(generation) ((uint64_t)(generation) << CHP_ZAB_GENERATION_SHIFT)

/* Three whose stores are to be filled by the test; nobody looks through them by itself. */
static struct world *
cold_of(uint64_t generation)
{
	struct world *w = created(&(struct setup){ .generation = generation });

	for (uint32_t i = 0; i < NODES; i++)
		w->node[i].store.holds_scans = true;
	return w;
}

/* They enter the first view, and node 0 leads. */
static void
begin_cold(struct world *w)
{
	enter(w);
	flow(w);
	wait_leader(w, 0);
}

static void
let_scan(struct world *w)
{
	for (uint32_t i = 0; i < NODES; i++)
		w->node[i].store.holds_scans = false;
}

/* The leader's question to a node, while that does not hear it. */
static struct chp_zab_fetch
fetch_to(struct world *w, uint32_t to)
{
	struct chp_zab_fetch m;

	cr_assert(find_message(w, 0, to, CHP_ZAB_FETCH, &m, sizeof(m)), "no FETCH to %u", to);
	return m;
}

struct fetched {
	struct chp_zab_fetched header;
	uint8_t value[VALUE_MAX];
};

/* What a source says to the leader's question; value NULL: it has none. */
static struct fetched
fetched_of(const struct chp_zab_fetch *f, enum chp_zab_fetched_status status, uint64_t version, uint32_t generation,
	   const char *value)
{
	const uint32_t len = value == NULL ? 0 : (uint32_t)strlen(value);
	struct fetched m = { .header = { .message = { .type = CHP_ZAB_FETCHED, .op = f->message.op },
					 .epoch = f->epoch,
					 .version = version,
					 .tag = f->tag,
					 .value_total = len,
					 .generation = generation,
					 .status = (uint8_t)status } };

	m.header.message.len = (uint16_t)chp_align_u32((uint32_t)sizeof(m.header) + len, CHP_MESSAGE_ALIGN);
	if (len > 0)
		memcpy(m.value, value, len);
	return m;
}

static void
fetched(struct world *w, uint32_t from, const struct chp_zab_fetch *f, enum chp_zab_fetched_status status,
	uint64_t version, const char *value)
{
	const struct fetched m = fetched_of(f, status, version, 0, value);

	say(w, from, 0, &m);
}

/* All hold a key at this version, in log or cache, and their stores in this life. */
static void
expect_restored(struct world *w, const char *key, uint64_t version, const char *value)
{
	for (uint32_t i = 0; i < NODES; i++) {
		const struct kept *k = stored(w, i, key);

		cr_assert_not_null(k, "%u has no %s", i, key);
		cr_assert(!k->is_old, "%u has the old %s", i, key);
		cr_assert_eq(k->version, version, "%u has %s at %lu", i, key, k->version);
		cr_assert_eq(k->flags, value == NULL ? CHP_SLOT_TOMBSTONE : 0);
		cr_assert_eq(k->len, value == NULL ? 0 : strlen(value));
		if (value != NULL)
			cr_assert_arr_eq(k->value, value, k->len);
	}
}

Test(zab_backed, z18_the_log_begins_above_all_versions_that_stores_have)
{
	struct world *w = cold_of(3);

	begin_cold(w);
	for (uint32_t i = 0; i < NODES; i++) {
		cr_assert_eq(state_of(w, i).committed, BEFORE(3));
		cr_assert_eq(state_of(w, i).first, BEFORE(3) + 1);
		cr_assert_eq(state_of(w, i).last, BEFORE(3));
	}
	cr_assert_eq(put(w, "x", "one"), BEFORE(3) + 1);
	expect_get(w, 0, "x", "one");
	cr_assert_eq(open_session(w),
		     UINT64_C(1) << CHP_SESSION_WRITER_SHIFT | ((UINT64_C(3) << CHP_SESSION_GENERATION_SHIFT) + 1));
	end(w);
}

Test(zab_backed, z18_the_newest_of_all_stores_is_proposed_in_its_old_version)
{
	struct world *w = cold_of(1);
	uint32_t tag;

	had(w, 0, "x", 3, 0, "three");
	had(w, 1, "x", 5, 0, "five");
	had(w, 2, "x", 4, 0, "four");
	begin_cold(w);
	tag = get(w, 0, "x");
	flow(w);
	expect_value(w, tag, "five");
	cr_assert_eq(reply_to(w, tag)->version, 5);
	cr_assert_eq(w->node[0].counters.fetches, 1);
	cr_assert_eq(w->node[0].counters.reconciled, 1);
	for (uint32_t i = 0; i < NODES; i++) {
		const struct chp_log_entry *e = chp_log_at(&w->node[i].log, BEFORE(1) + 1);

		cr_assert_eq(state_of(w, i).last, BEFORE(1) + 1);
		cr_assert_eq(e->version, 5);
		cr_assert_eq(e->version_flags, CHP_ZAB_RESTORED);
	}
	expect_restored(w, "x", 5, "five");
	expect_get(w, 2, "x", "five");
	cr_assert_eq(w->node[0].counters.fetches, 1);
	cr_assert_eq(put(w, "x", "new"), BEFORE(1) + 2);
	end(w);
}

Test(zab_backed, z18_a_later_generations_word_counts)
{
	struct world *w = cold_of(2);

	had(w, 0, "x", 90, 0, "lost");
	had(w, 1, "x", 7, 1, "later");
	had(w, 2, "x", 6, 1, "older");
	/* In whatever order they answer. */
	had(w, 0, "y", 7, 1, "later");
	had(w, 1, "y", 90, 0, "lost");
	had(w, 2, "y", 91, 0, "lost");
	begin_cold(w);
	expect_get(w, 0, "x", "later");
	expect_get(w, 0, "y", "later");
	expect_restored(w, "x", 7, "later");
	expect_restored(w, "y", 7, "later");
	end(w);
}

Test(zab_backed, z18_what_was_deleted_last_is_deleted_everywhere)
{
	struct world *w = cold_of(1);

	had(w, 0, "x", 3, 0, "three");
	had(w, 1, "x", 5, 0, NULL);
	begin_cold(w);
	expect_get(w, 0, "x", NULL);
	expect_restored(w, "x", 5, NULL);
	end(w);
}

Test(zab_backed, z18_what_no_store_has_is_absent)
{
	struct world *w = cold_of(1);

	begin_cold(w);
	expect_get(w, 0, "x", NULL);
	expect_get(w, 0, "x", NULL);
	cr_assert_eq(w->node[0].counters.fetches, 1);
	cr_assert_eq(state_of(w, 0).last, BEFORE(1));
	end(w);
}

Test(zab_backed, z18_a_follower_leaves_what_it_has_not_to_the_leader)
{
	struct world *w = cold_of(1);
	uint32_t tag;

	had(w, 2, "x", 3, 0, "three");
	begin_cold(w);
	tag = get(w, 2, "x");
	flow(w);
	cr_assert_eq(status_to(w, tag), CHP_STATUS_REDIRECT);
	cr_assert_eq(reply_to(w, tag)->number, 0);
	cr_assert_eq(w->node[2].counters.host_away, 0);
	end(w);
}

Test(zab_backed, z18_a_read_modify_write_follows_what_was_restored)
{
	struct world *w = cold_of(1);
	uint32_t tag;

	had(w, 1, "x", 5, 0, "five");
	begin_cold(w);
	tag = ask(w, 0, op_of(CHP_OPCODE_APPEND, "x", "!"));
	flow(w);
	cr_assert_eq(status_to(w, tag), CHP_STATUS_OK);
	cr_assert_eq(reply_to(w, tag)->version, BEFORE(1) + 2);
	expect_get(w, 0, "x", "five!");
	expect_restored(w, "x", BEFORE(1) + 2, "five!");
	end(w);
}

Test(zab_backed, z18_a_write_ends_the_question)
{
	struct world *w = cold_of(1);
	uint32_t tag;

	had(w, 1, "x", 5, 0, "five");
	begin_cold(w);
	w->node[1].held = N0;
	tag = get(w, 0, "x");
	flow(w);
	cr_assert_not(is_answered(w, tag));
	put(w, "x", "new");
	expect_value(w, tag, "new");
	w->node[1].held = 0;
	flow(w);
	cr_assert_eq(w->node[0].counters.fetches_stale, 1);
	cr_assert_eq(w->node[0].counters.reconciled, 0);
	cr_assert_eq(state_of(w, 0).last, BEFORE(1) + 1);
	expect_restored(w, "x", BEFORE(1) + 1, "new");
	end(w);
}

/* The answer is complete while the write is proposed and not applied. */
Test(zab_backed, z18_a_write_that_did_not_wait_wins_over_what_is_restored)
{
	struct world *w = cold_of(1);
	uint32_t read, written;

	had(w, 1, "x", 5, 0, "five");
	begin_cold(w);
	w->node[0].held = N1 | N2;
	read = get(w, 0, "x");
	flow(w);
	written = ask(w, 0, op_of(CHP_OPCODE_PUT, "x", "new"));
	for (uint32_t i = 1; i < NODES; i++) {
		const struct chp_zab_fetch f = fetch_to(w, i);

		fetched(w, i, &f, i == 1 ? CHP_ZAB_FETCH_FOUND : CHP_ZAB_FETCH_ABSENT, i == 1 ? 5 : 0,
			i == 1 ? "five" : NULL);
	}
	cr_assert_not(is_answered(w, written));
	cr_assert_eq(state_of(w, 0).last, BEFORE(1) + 1, "nothing is restored");
	w->node[0].held = 0;
	flow(w);
	cr_assert_eq(status_to(w, written), CHP_STATUS_OK);
	expect_value(w, read, "new");
	end(w);
}

/* Asked for "x" by the leader, of two that have not heard of it yet. */
struct asked {
	uint32_t read;
	struct chp_zab_fetch of[NODES];
};

static struct asked
asked_for(struct world *w, const char *key)
{
	struct asked a = { 0 };

	w->node[0].held = N1 | N2;
	a.read = get(w, 0, key);
	flow(w);
	for (uint32_t i = 1; i < NODES; i++)
		a.of[i] = fetch_to(w, i);
	return a;
}

Test(zab_backed, z18_each_source_is_heard_once)
{
	struct world *w = cold_of(1);
	const struct chp_protocol_counters *c = &w->node[0].counters;
	struct asked a;

	begin_cold(w);
	a = asked_for(w, "x");
	fetched(w, 1, &a.of[1], CHP_ZAB_FETCH_FOUND, 5, "five");
	cr_assert_not(is_answered(w, a.read));
	fetched(w, 1, &a.of[1], CHP_ZAB_FETCH_FOUND, 9, "twice");
	cr_assert_eq(c->fetches_stale, 1);
	cr_assert_eq(state_of(w, 0).last, BEFORE(1), "the other has not answered");
	fetched(w, 2, &a.of[2], CHP_ZAB_FETCH_ABSENT, 0, NULL);
	cr_assert_eq(state_of(w, 0).last, BEFORE(1) + 1);
	fetched(w, 2, &a.of[2], CHP_ZAB_FETCH_FOUND, 9, "late");
	cr_assert_eq(c->fetches_stale, 2);
	w->node[0].held = 0;
	flow(w);
	expect_value(w, a.read, "five");
	/* The two questions are answered by whom they went to, too late. */
	cr_assert_eq(reply_to(w, a.read)->version, 5);
	end(w);
}

Test(zab_backed, z18_what_was_not_asked_is_not_believed)
{
	struct world *w = cold_of(1);
	const struct chp_protocol_counters *c = &w->node[0].counters;
	const uint64_t stale_before = w->node[0].zab.stale_epoch;
	struct chp_zab_fetch wrong;
	struct asked a;

	begin_cold(w);
	a = asked_for(w, "x");
	wrong = a.of[1];
	wrong.tag++;
	fetched(w, 1, &wrong, CHP_ZAB_FETCH_FOUND, 9, "another question");
	cr_assert_eq(c->fetches_stale, 1);
	wrong = a.of[1];
	wrong.message.op++;
	fetched(w, 1, &wrong, CHP_ZAB_FETCH_FOUND, 9, "another place");
	wrong.message.op = UINT32_MAX;
	fetched(w, 1, &wrong, CHP_ZAB_FETCH_FOUND, 9, "no place");
	cr_assert_eq(c->fetches_stale, 3);
	wrong = a.of[1];
	wrong.epoch--;
	fetched(w, 1, &wrong, CHP_ZAB_FETCH_FOUND, 9, "another term");
	cr_assert_eq(c->fetches_stale, 3);
	cr_assert_eq(w->node[0].zab.stale_epoch, stale_before + 1);
	fetched(w, 1, &a.of[1], CHP_ZAB_FETCH_ABSENT, 0, NULL);
	fetched(w, 2, &a.of[2], CHP_ZAB_FETCH_ABSENT, 0, NULL);
	expect_value(w, a.read, NULL);
	end(w);
}

/* Nobody would take an entry that restores it: the leader would lose its followers again and again. */
Test(zab_backed, z18_a_version_that_the_log_is_not_above_is_not_believed)
{
	struct world *w = cold_of(1);
	uint32_t tag;

	had(w, 0, "x", BEFORE(1) + 7, 0, "own");
	had(w, 1, "x", BEFORE(1), 0, "the last one");
	had(w, 2, "x", BEFORE(2), 1, "another's");
	begin_cold(w);
	tag = get(w, 0, "x");
	pass(w, 5);
	expect_value(w, tag, "the last one");
	cr_assert_eq(w->node[0].counters.fetches_stale, 2);
	expect_get(w, 1, "x", "the last one");
	cr_assert(is_leading(w, 0));
	cr_assert_eq(state_of(w, 0).accepted_epoch >> 16, 1);
	end(w);
}

Test(zab_backed, z18_a_source_that_cannot_tell_is_asked_again)
{
	struct world *w = cold_of(1);
	struct chp_zab_fetch again;
	struct asked a;

	begin_cold(w);
	a = asked_for(w, "x");
	fetched(w, 1, &a.of[1], CHP_ZAB_FETCH_FOUND, 5, "five");
	fetched(w, 2, &a.of[2], CHP_ZAB_FETCH_AGAIN, 0, NULL);
	lose_inbox(&w->node[1], 0);
	lose_inbox(&w->node[2], 0);
	pass(w, 2);
	again = fetch_to(w, 2);
	cr_assert_eq(again.tag, a.of[2].tag);
	cr_assert(!find_message(w, 0, 1, CHP_ZAB_FETCH, &again, sizeof(again)), "that one has answered");
	fetched(w, 2, &a.of[2], CHP_ZAB_FETCH_FOUND, 6, "six");
	w->node[0].held = 0;
	flow(w);
	expect_value(w, a.read, "six");
	end(w);
}

Test(zab_backed, z18_what_a_reset_link_lost_is_asked_again)
{
	struct world *w = cold_of(1);
	struct chp_zab_fetch again;
	struct asked a;

	had(w, 1, "x", 5, 0, "five");
	begin_cold(w);
	a = asked_for(w, "x");
	reset_link(w, 0, 1);
	flow(w);
	again = fetch_to(w, 1);
	cr_assert_eq(again.tag, a.of[1].tag);
	/* It begins anew with the leader, which ends what it was loading: it is asked once more. */
	w->node[0].held = 0;
	pass(w, ELECTION_MS + 5);
	expect_value(w, a.read, "five");
	end(w);
}

/* What was durable at a majority is known to one of any majority. */
Test(zab_backed, z18_a_silent_source_is_not_waited_for_where_the_others_are_a_majority)
{
	struct world *w = cold_of(1);
	uint32_t tag;

	had(w, 0, "x", 3, 0, "three");
	had(w, 1, "x", 5, 0, "five");
	had(w, 2, "x", 9, 0, "nobody heard of it");
	begin_cold(w);
	silence(w, 2);
	tag = get(w, 0, "x");
	pass(w, ELECTION_MS);
	cr_assert_not(is_answered(w, tag), "it may only be slow");
	pass(w, 2 * ELECTION_MS);
	expect_value(w, tag, "five");
	end(w);
}

Test(zab_backed, z18_what_a_source_brings_after_all_is_not_absent)
{
	struct world *w = cold_of(1);
	uint32_t leader;

	had(w, 2, "x", 9, 0, "nine");
	begin_cold(w);
	silence(w, 2);
	get(w, 0, "x");
	pass(w, 3 * ELECTION_MS);
	expect_get(w, 0, "x", NULL);
	let_scan(w);
	let_speak(w);
	pass(w, 10 * ELECTION_MS);
	leader = state_of(w, 0).leader;
	wait_leader(w, leader);
	expect_get(w, leader, "x", "nine");
	expect_restored(w, "x", 9, "nine");
	end(w);
}

Test(zab_backed, z18_all_that_stores_had_is_offered_and_restored)
{
	struct world *w = cold_of(1);
	char key[8];

	for (uint32_t i = 0; i < 60; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		had(w, i % 3, key, 1 + i, 0, i % 5 == 0 ? NULL : key);
		had(w, (i + 1) % 3, key, 100 + i, 0, i % 7 == 0 ? NULL : key);
	}
	begin_cold(w);
	for (uint32_t i = 0; i < NODES; i++)
		cr_assert(!is_copied(w, i));
	let_scan(w);
	pass(w, 200);
	for (uint32_t i = 0; i < NODES; i++)
		cr_assert(is_copied(w, i), "%u has something old left", i);
	for (uint32_t i = 0; i < 60; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		expect_restored(w, key, 100 + i, i % 7 == 0 ? NULL : key);
	}
	cr_assert_eq(w->node[0].counters.reconciled, 60, "each once");
	end(w);
}

Test(zab_backed, z18_a_look_through_the_store_that_fails_begins_anew)
{
	struct world *w = cold_of(1);

	had(w, 2, "x", 5, 0, "five");
	w->node[2].store.scans_failing = 3;
	begin_cold(w);
	let_scan(w);
	pass(w, 15);
	cr_assert(!is_copied(w, 2));
	pass(w, 100);
	cr_assert(is_copied(w, 2));
	expect_restored(w, "x", 5, "five");
	end(w);
}

Test(zab_backed, z18_a_store_that_keeps_nothing_has_nothing_to_offer)
{
	struct world *w = created(&(struct setup){ .generation = 1, .keeps_nothing = true });

	w->node[2].store.backing.is_ready = false;
	begin_cold(w);
	pass(w, 5);
	cr_assert(is_copied(w, 0));
	cr_assert(!is_copied(w, 2), "it has not said so yet");
	w->node[2].store.backing.is_ready = true;
	run(w, &w->node[2]);
	cr_assert(is_copied(w, 2));
	end(w);
}

Test(zab_backed, z18_restoring_leaves_half_of_the_credits_to_clients)
{
	struct world *w = cold_of(1);
	uint32_t read;
	char key[8];

	had(w, 1, "x", 5, 0, "five");
	begin_cold(w);
	for (uint32_t i = 0; i < CREDITS / 2; i++) {
		if (i == 1)
			w->node[1].held = w->node[2].held = N0;
		snprintf(key, sizeof(key), "k%u", i);
		ask(w, 0, op_of(CHP_OPCODE_PUT, key, key));
		flow(w);
	}
	/* Three are open, and one more does not matter; a fourth of clients does. */
	ask(w, 0, op_of(CHP_OPCODE_PUT, "more", "1"));
	w->node[0].held = N1 | N2;
	read = get(w, 0, "x");
	flow(w);
	for (uint32_t i = 1; i < NODES; i++) {
		const struct chp_zab_fetch f = fetch_to(w, i);

		fetched(w, i, &f, i == 1 ? CHP_ZAB_FETCH_FOUND : CHP_ZAB_FETCH_ABSENT, i == 1 ? 5 : 0,
			i == 1 ? "five" : NULL);
	}
	pass(w, 2);
	cr_assert_eq(w->node[0].counters.reconciled, 0);
	cr_assert_not(is_answered(w, read));
	let_speak(w);
	pass(w, 5);
	cr_assert_eq(w->node[0].counters.reconciled, 1);
	expect_value(w, read, "five");
	end(w);
}

Test(zab_backed, z18_the_end_of_the_term_ends_what_was_asked)
{
	struct world *w = cold_of(1);
	struct asked a;

	had(w, 0, "x", 3, 0, "three");
	had(w, 1, "x", 5, 0, "five");
	begin_cold(w);
	a = asked_for(w, "x");
	silence(w, 0);
	pass(w, 6 * ELECTION_MS);
	cr_assert(is_answered(w, a.read));
	cr_assert_neq(status_to(w, a.read), CHP_STATUS_OK);
	let_speak(w);
	pass(w, 6 * ELECTION_MS);
	wait_leader(w, state_of(w, 0).leader);
	expect_get(w, state_of(w, 0).leader, "x", "five");
	end(w);
}

/* ------------------------------------------------------------------ Z18: a source that is asked */

/* A FETCH or OFFER of this leader's term. */
struct question {
	struct chp_zab_fetch header;
	uint8_t key[8];
};

static struct question
question(const struct world *w, enum chp_zab_type type, const char *key, uint32_t op, uint32_t tag)
{
	struct question q = { .header = { .message = { .type = (uint8_t)type, .len = sizeof(q), .op = op },
					  .epoch = state_of(w, 0).accepted_epoch,
					  .tag = tag,
					  .key_len = (uint8_t)strlen(key) } };

	cr_assert_leq(strlen(key), sizeof(q.key));
	memcpy(q.key, key, strlen(key));
	return q;
}

/* The leader asks node 1, whose answers are not on their way to it. */
static void
ask_source(struct world *w, const char *key, uint32_t op, uint32_t tag)
{
	const struct question q = question(w, CHP_ZAB_FETCH, key, op, tag);

	w->node[1].held = N0;
	say(w, 0, 1, &q);
}

static bool
has_told(const struct world *w, struct fetched *m)
{
	*m = (struct fetched){ 0 };
	return find_message(w, 1, 0, CHP_ZAB_FETCHED, &m->header, sizeof(m->header));
}

static void
expect_told(struct world *w, uint32_t op, uint32_t tag, enum chp_zab_fetched_status status, uint64_t version)
{
	struct fetched m;

	cr_assert(has_told(w, &m), "it says nothing");
	cr_assert_eq(m.header.message.op, op);
	cr_assert_eq(m.header.tag, tag);
	cr_assert_eq(m.header.status, status);
	cr_assert_eq(m.header.version, version);
	lose_inbox(&w->node[0], 1);
}

Test(zab_backed, z18_a_source_tells_what_its_store_had)
{
	struct world *w = cold_of(2);
	struct fetched m;

	had(w, 1, "x", 5, 1, "five");
	had(w, 1, "y", 6, 1, NULL);
	begin_cold(w);
	w->node[1].store.holds_loads = true;
	ask_source(w, "x", 3, 77);
	cr_assert(!has_told(w, &m));
	w->node[1].store.holds_loads = false;
	run(w, &w->node[1]);
	cr_assert(has_told(w, &m));
	cr_assert_eq(m.header.generation, 1);
	cr_assert_eq(m.header.value_total, 4);
	expect_told(w, 3, 77, CHP_ZAB_FETCH_FOUND, 5);
	ask_source(w, "y", 3, 78);
	run(w, &w->node[1]);
	expect_told(w, 3, 78, CHP_ZAB_FETCH_TOMBSTONE, 6);
	ask_source(w, "z", 31, 0);
	run(w, &w->node[1]);
	expect_told(w, 31, 0, CHP_ZAB_FETCH_ABSENT, 0);
	cr_assert(!is_cached(w, 1, "x"), "what it had is not the key's version");
	end(w);
}

Test(zab_backed, z18_a_source_cannot_tell_of_what_the_log_has_or_its_store_does_not_say)
{
	struct world *w = cold_of(1);

	had(w, 1, "y", 5, 0, "five");
	begin_cold(w);
	put(w, "x", "one");
	ask_source(w, "x", 0, 1);
	expect_told(w, 0, 1, CHP_ZAB_FETCH_AGAIN, 0);
	w->node[1].store.fails = true;
	ask_source(w, "y", 0, 2);
	run(w, &w->node[1]);
	expect_told(w, 0, 2, CHP_ZAB_FETCH_AGAIN, 0);
	w->node[1].store.backing.is_ready = false;
	ask_source(w, "y", 0, 3);
	expect_told(w, 0, 3, CHP_ZAB_FETCH_AGAIN, 0);
	/* What is written and not saved yet is not what the store has. */
	w->node[1].store.fails = false;
	w->node[1].store.backing.is_ready = true;
	stall(w, 1);
	put(w, "y", "new");
	ask_source(w, "y", 0, 5);
	expect_told(w, 0, 5, CHP_ZAB_FETCH_AGAIN, 0);
	let_save(w, 1);
	/* Written in this life, and evicted: the log has it, too. */
	cr_assert(chp_cache_remove(w->node[1].env.cache, slot_of(w, 1, "x")));
	ask_source(w, "x", 0, 4);
	run(w, &w->node[1]);
	expect_told(w, 0, 4, CHP_ZAB_FETCH_AGAIN, 0);
	end(w);
}

Test(zab_backed, z18_a_source_loads_once_what_it_is_asked_twice)
{
	struct world *w = cold_of(1);
	struct fetched m;

	had(w, 1, "x", 5, 0, "five");
	had(w, 1, "y", 6, 0, "six");
	begin_cold(w);
	w->node[1].store.holds_loads = true;
	ask_source(w, "x", 3, 77);
	ask_source(w, "x", 3, 77);
	cr_assert_eq(w->node[1].store.n_loads, 1);
	/* The leader has given that up and uses the place for another key. */
	ask_source(w, "y", 3, 78);
	cr_assert_eq(w->node[1].store.n_loads, 2);
	w->node[1].store.holds_loads = false;
	run(w, &w->node[1]);
	cr_assert_eq(w->node[1].counters.loads_stale, 1);
	expect_told(w, 3, 78, CHP_ZAB_FETCH_FOUND, 6);
	cr_assert(!has_told(w, &m));
	end(w);
}

Test(zab_backed, z18_a_source_answers_its_leader_only)
{
	struct world *w = cold_of(1);
	const uint64_t stale = w->node[1].zab.stale_epoch;
	struct question q;

	had(w, 1, "x", 5, 0, "five");
	begin_cold(w);
	q = question(w, CHP_ZAB_FETCH, "x", 0, 1);
	say(w, 2, 1, &q);
	q.header.epoch--;
	say(w, 0, 1, &q);
	cr_assert_eq(w->node[1].zab.stale_epoch, stale + 2);
	q = question(w, CHP_ZAB_FETCH, "x", 32, 1);
	say(w, 0, 1, &q);
	cr_assert_eq(w->node[1].store.n_loads, 0);
	end(w);
}

/* ------------------------------------------------------------------ Z18: offers */

/* What a node has to offer still, as people see it. */
static void
expect_offers(const struct world *w, uint32_t n, const char *expected)
{
	char text[256];
	struct chp_text t = chp_text_of(text, sizeof(text));

	chp_zab.dump(w->node[n].p, NULL, &t);
	cr_assert_not_null(strstr(text, expected), "%s", text);
}

Test(zab_backed, z18_an_offer_stands_until_the_log_has_the_key)
{
	struct world *w = cold_of(1);
	struct question offer;
	struct fetched m;

	had(w, 2, "x", 5, 0, "five");
	begin_cold(w);
	w->node[2].store.holds_scans = false;
	w->node[2].held = N0;
	run(w, &w->node[2]);
	flow(w);
	cr_assert(find_message(w, 2, 0, CHP_ZAB_OFFER, &offer, sizeof(offer)));
	cr_assert_eq(offer.header.key_len, 1);
	cr_assert_eq(offer.key[0], 'x');
	expect_offers(w, 2, "offers 1");
	/* An answer to another offer, or of another place, ends nothing. */
	m = fetched_of(&offer.header, CHP_ZAB_FETCH_KNOWN, 0, 0, NULL);
	m.header.tag++;
	say(w, 0, 2, &m);
	m.header.tag--;
	m.header.message.op++;
	say(w, 0, 2, &m);
	m.header.message.op = UINT32_MAX;
	say(w, 0, 2, &m);
	expect_offers(w, 2, "offers 1");
	m.header.message.op = offer.header.message.op;
	say(w, 0, 2, &m);
	expect_offers(w, 2, "offers 0");
	cr_assert(!is_copied(w, 2), "it looks once more whether anything old is left");
	w->node[2].held = 0;
	pass(w, 50);
	cr_assert(is_copied(w, 2));
	expect_restored(w, "x", 5, "five");
	end(w);
}

Test(zab_backed, z18_an_offer_of_what_the_log_has_is_answered_at_once)
{
	struct world *w = cold_of(1);
	struct question q;
	struct fetched m = { 0 };

	begin_cold(w);
	put(w, "x", "one");
	q = question(w, CHP_ZAB_OFFER, "x", 3, 77);
	w->node[0].held = N1;
	say(w, 1, 0, &q);
	cr_assert(find_message(w, 0, 1, CHP_ZAB_FETCHED, &m.header, sizeof(m.header)));
	cr_assert_eq(m.header.status, CHP_ZAB_FETCH_KNOWN);
	cr_assert_eq(m.header.tag, 77);
	cr_assert_eq(m.header.message.op, 3);
	cr_assert_eq(w->node[0].counters.fetches, 0);
	/* Of what it has not it asks all. */
	q = question(w, CHP_ZAB_OFFER, "y", 4, 78);
	say(w, 1, 0, &q);
	cr_assert_eq(w->node[0].counters.fetches, 1);
	say(w, 1, 0, &q);
	cr_assert_eq(w->node[0].counters.fetches, 1, "once");
	end(w);
}
