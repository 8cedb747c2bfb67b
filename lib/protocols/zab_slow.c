/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * zab_slow.c - ZAB's slow path: the datastore behind the cache (the paper's 5.2; protocols/backing.h).
 *
 * A replica's cache and its store together hold what it has applied. What is at rest and durable may leave the cache,
 * so a key that is not there is in the store as it was applied last, or nowhere: no floors are needed, as the log
 * brings all that is newer. Rules are numbered as in docs/protocols/zab.md.
 *
 *   Z13 misses       chp_zab_ask(), chp_zab_loaded(), serve_ready()     one load a key, however many wait
 *   Z14 eviction     may_leave(), evict(), chp_zab_make_room()          deleted keys stay until the store knows
 *   Z15 copies       chp_zab_slot_copied(), save_some()                 what was copied stands in no entry of the log
 *   Z18 cold start   fetch(), conclude(), reconcile()                   SAFETY 34
 *
 * Cold start. All begin with an empty log; its indices are above all versions that any store has. What a store has of
 * an earlier life is a candidate: stores hold what was committed only, so the newest version of a majority is the
 * key's. Who needs a key that the log has not had since has the leader ask all sources, and the leader proposes the
 * newest (RESTORED, with the version that it had). Each source offers the leader what its store has until nothing old
 * is left.
 */
#include "protocols/zab_state.h"

#include "base/mutation.h"

#include <errno.h>
#include <string.h>

#define NONE CHP_ZAB_NONE
#define FETCHES CHP_ZAB_FETCHES
#define OFFERS CHP_ZAB_OFFERS

/* Slots that one search for a victim looks at, and keys that one run evicts ahead of need. */
#define EVICT_LOOKS 256u
#define EVICT_MAX 32u
/* Slots that one run looks at for what has to be saved. */
#define SAVE_LOOKS 1024u
/* What could not be asked for or told is tried again after so long; the store is looked through again after so long. */
#define AGAIN_NS UINT64_C(1000000)
#define LOOK_AGAIN_NS UINT64_C(10000000)

_Static_assert((int)CHP_ZAB_FETCH_FOUND == CHP_LOAD_FOUND && (int)CHP_ZAB_FETCH_TOMBSTONE == CHP_LOAD_TOMBSTONE &&
		       (int)CHP_ZAB_FETCH_ABSENT == CHP_LOAD_ABSENT,
	       "what a store says is what the leader is told");
_Static_assert((int)CHP_ZAB_REMOVE == CHP_SLOT_TOMBSTONE && (int)CHP_ZAB_SESSION == CHP_SLOT_SESSION,
	       "flags of entries go to slots and stores as they are");

/* ------------------------------------------------------------------ small things */

static struct chp_slot *
slot_of(const struct chp_zab *z, const struct chp_zab_miss *m)
{
	return chp_cache_slot(z->env.cache, m->slot);
}

static uint32_t
index_of(const struct chp_zab *z, const struct chp_zab_miss *m)
{
	return (uint32_t)(m - z->slow.miss);
}

static bool
is_source(const struct chp_zab *z)
{
	return (z->view.sources & chp_bit(z->env.self)) != 0;
}

/* The log has had this key since the last cold start, or will. */
static bool
is_known(const struct chp_zab *z, const struct chp_slot *s, const struct chp_digest *d)
{
	return (s != NULL && s->version != 0) || chp_zab_pending_find(&z->pending, d) != 0;
}

/* ------------------------------------------------------------------ eviction */

/* What may leave: what was applied and is durable; what says that the store has nothing may at any time. */
static bool
may_leave(const void *p, const struct chp_slot *s)
{
	const struct chp_zab *z = p;

	if (s->state != CHP_ZAB_REST || s == z->slow.keep)
		return false;
	return s->version == 0 || (z->env.backing->may_evict && (chp_backing_is_clean(z->env.log, s->log_low) ||
								 CHP_MUTATED(ZAB_EVICT_UNSAVED)));
}

static bool
evict(struct chp_zab *z)
{
	struct chp_slot *s = chp_cache_victim(z->env.cache, EVICT_LOOKS, may_leave, z);

	z->slow.is_short |= z->incomplete && s != NULL;
	return s != NULL && chp_cache_remove(z->env.cache, s);
}

bool
chp_zab_make_room(struct chp_zab *z, uint32_t key_len, uint32_t value_len, bool is_new)
{
	for (uint32_t i = 0; !chp_cache_admits(z->env.cache, key_len, value_len, is_new); i++)
		if (!z->is_backed || i == EVICT_MAX || !evict(z))
			return false;
	return true;
}

bool
chp_zab_make_any_room(struct chp_zab *z, const struct chp_slot *keep)
{
	bool has_room;

	z->slow.keep = keep;
	for (uint32_t i = 0; !(has_room = chp_cache_room(z->env.cache) > 0); i++)
		if (!z->is_backed || i == EVICT_MAX || !evict(z))
			break;
	z->slow.keep = NULL;
	return has_room;
}

static void
evict_ahead(struct chp_zab *z)
{
	for (uint32_t i = 0; i < EVICT_MAX && chp_cache_is_tight(z->env.cache); i++)
		if (!evict(z))
			return;
}

/* ------------------------------------------------------------------ misses */

static void
drop_load(struct chp_zab *z, uint32_t token)
{
	z->slow.load_for[token] = NONE;
	chp_backing_drop_load(z->env.backing, token);
}

/* What was asked for this key is not waited for any more: what comes of it is stale (SAFETY 5). */
static void
stop_asking(struct chp_zab *z, struct chp_zab_miss *m)
{
	if (m->token != NONE)
		drop_load(z, m->token);
	m->token = NONE;
	if (m->fetch != NONE) {
		z->slow.fetch[m->fetch].miss = NONE;
		z->slow.n_fetches--;
	}
	m->fetch = NONE;
	z->slow.n_again -= m->is_again;
	m->is_again = false;
}

/* The key is known, or cannot be: who waits is served from the run. */
static void
make_ready(struct chp_zab *z, struct chp_zab_miss *m)
{
	struct chp_zab_list *l = &z->slow.ready;

	stop_asking(z, m);
	if (m->is_ready)
		return;
	m->is_ready = true;
	m->next = NONE;
	if (l->head == NONE)
		l->head = index_of(z, m);
	else
		z->slow.miss[l->tail].next = index_of(z, m);
	l->tail = index_of(z, m);
}

static void
release_miss(struct chp_zab *z, struct chp_zab_miss *m)
{
	slot_of(z, m)->busy = CHP_SLOT_NO_BUSY;
	m->slot = NONE;
	m->is_ready = false;
	m->next = z->slow.free_miss;
	z->slow.free_miss = index_of(z, m);
}

/*
 * Nobody waits any more. What could not be loaded leaves the cache; if another key's digest leads over it, it is asked
 * for once more, until it is known: a slot that stays must not lie.
 */
static void
end_miss(struct chp_zab *z, struct chp_zab_miss *m)
{
	struct chp_slot *s = slot_of(z, m);

	stop_asking(z, m);
	m->is_ready = false;
	if (s->state != CHP_ZAB_LOADING) {
		release_miss(z, m);
		return;
	}
	if ((s->flags & CHP_SLOT_COLLIDED) != 0) {
		m->is_again = true;
		z->slow.n_again++;
		return;
	}
	release_miss(z, m);
	CHP_ASSERT(chp_cache_remove(z->env.cache, s));
}

static uint32_t
free_fetch(const struct chp_zab *z)
{
	for (uint32_t i = 0; i < FETCHES; i++)
		if (z->slow.fetch[i].miss == NONE)
			return i;
	return NONE;
}

/* [SAFETY 34] Ask all other sources, besides our own store. */
static void
fetch(struct chp_zab *z, struct chp_zab_miss *m)
{
	struct chp_zab_asked *f;

	m->fetch = free_fetch(z);
	f = &z->slow.fetch[m->fetch];
	*f = (struct chp_zab_asked){ .miss = index_of(z, m), .tag = f->tag + 1 };
	f->waiting = f->due = z->view.sources & ~chp_bit(z->env.self);
	z->slow.n_fetches++;
	z->env.counters->fetches++;
}

/* Ask our store. False: it takes no more now. */
static bool
load(struct chp_zab *z, struct chp_zab_miss *m, const struct chp_key *key)
{
	if ((z->view.sources != 0 && z->slow.n_fetches == FETCHES) ||
	    !chp_backing_load(z->env.backing, key, &m->token))
		return false;
	z->slow.load_for[m->token] = index_of(z, m);
	if (z->view.sources != 0)
		fetch(z, m);
	return true;
}

struct chp_zab_miss *
chp_zab_ask(struct chp_zab *z, struct chp_slot *s, const struct chp_key *key)
{
	const uint32_t i = s == NULL ? z->slow.free_miss : s->busy;
	struct chp_zab_miss *m;

	if (i == NONE)
		return NULL;
	m = &z->slow.miss[i];
	if (s != NULL)
		return m;
	if (!chp_zab_make_room(z, key->len, 0, true))
		return NULL;
	z->slow.free_miss = m->next;
	*m = (struct chp_zab_miss){ .slot = NONE, .token = NONE, .fetch = NONE, .waiters = { NONE, NONE } };
	if (!load(z, m, key)) {
		m->next = z->slow.free_miss;
		z->slow.free_miss = i;
		return NULL;
	}
	s = chp_cache_insert(z->env.cache, key);
	chp_cache_set(z->env.cache, s, NULL, 0, CHP_SLOT_TOMBSTONE);
	s->state = CHP_ZAB_LOADING;
	s->busy = i;
	m->slot = chp_cache_slot_index(z->env.cache, s);
	return m;
}

static void
key_of_slot(const struct chp_zab *z, const struct chp_slot *s, uint8_t *bytes, struct chp_key *key)
{
	chp_cache_key(z->env.cache, s, bytes);
	*key = (struct chp_key){ .bytes = bytes, .len = s->key_len, .pos = -1 };
	key->digest = chp_cache_digest(z->env.cache, bytes, key->len, false);
}

static void
load_again(struct chp_zab *z, const struct chp_now *now)
{
	if (z->slow.n_again == 0 || now->ns < z->slow.again_ns)
		return;
	z->slow.again_ns = now->ns + AGAIN_NS;
	for (uint32_t i = 0; i < z->env.loads_max; i++) {
		struct chp_zab_miss *m = &z->slow.miss[i];
		uint8_t bytes[CHP_KEY_BYTES_MAX];
		struct chp_key key;

		if (m->slot == NONE || !m->is_again || (z->view.sources != 0 && !chp_zab_serves(z)))
			continue;
		key_of_slot(z, slot_of(z, m), bytes, &key);
		if (!load(z, m, &key))
			break;
		m->is_again = false;
		z->slow.n_again--;
	}
}

/* The slot is at rest with what the store has of its key; version 0: nothing. */
static void
come_to_rest(struct chp_zab *z, struct chp_zab_miss *m, uint64_t version)
{
	struct chp_slot *s = slot_of(z, m);

	s->version = version;
	s->log_low = (uint32_t)z->env.log->mark - 1;
	s->state = CHP_ZAB_REST;
	make_ready(z, m);
}

void
chp_zab_slot_applied(struct chp_zab *z, struct chp_slot *s, const struct chp_digest *digest)
{
	const uint8_t was = s->state;

	s->state = CHP_ZAB_REST;
	chp_cache_touch(s);
	if (was == CHP_ZAB_UNSAVED)
		z->slow.n_unsaved--;
	if (was == CHP_ZAB_LOADING)
		make_ready(z, &z->slow.miss[s->busy]);
	for (uint32_t i = 0; i < OFFERS && z->slow.n_offers > 0; i++) {
		struct chp_zab_offer *o = &z->slow.offer[i];

		if (o->key_len == 0 || o->digest.lo != digest->lo || o->digest.hi != digest->hi)
			continue;
		o->key_len = 0;
		z->slow.n_offers--;
	}
}

/* Who waited for keys that are known by now, or could not be loaded. True: there was no room for all replies. */
static bool
serve_ready(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	while (z->slow.ready.head != NONE) {
		struct chp_zab_miss *m = &z->slow.miss[z->slow.ready.head];
		const bool is_failed = slot_of(z, m)->state == CHP_ZAB_LOADING;

		while (m->waiters.head != NONE) {
			if (out->replies_left == 0)
				return true;
			chp_zab_resume(z, now, chp_zab_pop(z, &m->waiters), is_failed, out);
		}
		z->slow.ready.head = m->next;
		end_miss(z, m);
	}
	return false;
}

/* ------------------------------------------------------------------ cold start (SAFETY 34) */

static void
send_question(const struct chp_zab *z, enum chp_zab_type type, uint32_t to, uint32_t op, uint32_t tag,
	      const uint8_t *key, uint32_t key_len, struct chp_out *out)
{
	const uint32_t bytes = chp_align_u32((uint32_t)sizeof(struct chp_zab_fetch) + key_len, CHP_MESSAGE_ALIGN);
	uint8_t *m = chp_send(out, to, bytes);
	const struct chp_zab_fetch header = {
		.message = { .type = (uint8_t)type, .len = (uint16_t)bytes, .op = op },
		.epoch = z->accepted_epoch,
		.tag = tag,
		.key_len = (uint8_t)key_len,
	};

	memset(m, 0, bytes);
	memcpy(m, &header, sizeof(header));
	memcpy(m + sizeof(header), key, key_len);
}

/* @param l  what the store has; NULL: `status` says it all */
static void
send_fetched(const struct chp_zab *z, uint32_t to, uint32_t op, uint32_t tag, enum chp_zab_fetched_status status,
	     const struct chp_loaded *l, struct chp_out *out)
{
	const uint32_t value_len = l != NULL && status == CHP_ZAB_FETCH_FOUND ? l->value_len : 0;
	const uint32_t used = (uint32_t)sizeof(struct chp_zab_fetched) + value_len;
	const uint32_t bytes = chp_align_u32(used, CHP_MESSAGE_ALIGN);
	uint8_t *m = chp_send(out, to, bytes);
	const struct chp_zab_fetched header = {
		.message = { .type = CHP_ZAB_FETCHED, .len = (uint16_t)bytes, .op = op },
		.epoch = z->accepted_epoch,
		.version = l == NULL ? 0 : l->version,
		.tag = tag,
		.value_total = value_len,
		.generation = l == NULL ? 0 : l->generation,
		.status = (uint8_t)status,
	};

	memcpy(m, &header, sizeof(header));
	if (value_len > 0)
		memcpy(m + sizeof(header), l->value, value_len);
	memset(m + used, 0, bytes - used);
}

static uint8_t *
value_of_fetch(const struct chp_zab *z, const struct chp_zab_asked *f)
{
	return z->slow.fetch_value + (size_t)(f - z->slow.fetch) * z->env.value_bytes_max;
}

/*
 * A later generation's word counts, and of one generation the newer version. One that the log is not above is of no
 * earlier generation, and nobody would take an entry that restores it.
 */
static void
take_newer(struct chp_zab *z, struct chp_zab_asked *f, uint64_t version, uint32_t generation, bool is_deleted,
	   const uint8_t *value, uint32_t value_len)
{
	if (version > z->generation << CHP_ZAB_GENERATION_SHIFT) {
		z->env.counters->fetches_stale++;
		return;
	}
	if (version == 0 || (f->version != 0 && (generation < f->generation ||
						  (generation == f->generation && version <= f->version))))
		return;
	f->version = version;
	f->generation = generation;
	f->is_deleted = is_deleted;
	f->value_len = value_len;
	if (value_len > 0)
		memcpy(value_of_fetch(z, f), value, value_len);
}

void
chp_zab_on_fetched(struct chp_zab *z, const struct chp_peer_message *pm)
{
	const struct chp_zab_fetched *m = (const void *)pm->message;
	const uint64_t from = chp_bit(pm->from);
	struct chp_zab_asked *f;

	if (!z->is_backed)
		return;
	if (m->status == CHP_ZAB_FETCH_KNOWN) {
		struct chp_zab_offer *o = m->message.op < OFFERS ? &z->slow.offer[m->message.op] : NULL;

		if (o == NULL || o->key_len == 0 || (uint32_t)o->digest.lo != m->tag)
			return;
		o->key_len = 0;
		z->slow.n_offers--;
		return;
	}
	f = m->message.op < FETCHES ? &z->slow.fetch[m->message.op] : NULL;
	if (f == NULL || f->miss == NONE || f->tag != m->tag || (f->waiting & from) == 0) {
		z->env.counters->fetches_stale++;
		return;
	}
	if (m->status == CHP_ZAB_FETCH_AGAIN) {
		f->again |= from;
		return;
	}
	f->waiting &= ~from;
	f->answered |= from;
	take_newer(z, f, m->version, m->generation, m->status == CHP_ZAB_FETCH_TOMBSTONE, (const uint8_t *)(m + 1),
		   m->value_total);
}

/*
 * Whether what was told is enough: all sources have, or a majority of all configured members among them, where the rest
 * is silent. Whatever was durable at a majority is known to one of any majority.
 */
static bool
is_told(const struct chp_zab *z, const struct chp_now *now, const struct chp_zab_asked *f)
{
	const uint64_t waiting = f->waiting & z->view.sources;
	uint64_t told = f->answered;

	if (waiting == 0 || CHP_MUTATED(ZAB_OWN_STORE_ONLY))
		return true;
	/* Who began this generation and is no source has a store that never had anything. */
	for (uint32_t i = 0; i < z->env.n_nodes; i++)
		if ((z->view.sources & chp_bit(i)) == 0 && z->view.incarnation[i] != 0 &&
		    z->view.writer[i] <= z->env.n_nodes)
			told |= chp_bit(i);
	if (chp_count_bits(told) < z->quorum)
		return false;
	for (uint64_t p = waiting; p != 0; p &= p - 1)
		if (now->ns < z->peer[chp_first_bit(p)].heard_ns + 2 * z->env.election_ns)
			return false;
	return true;
}

/*
 * The newest version is the key's, and is proposed so that all have it; where there is no room for that now, by a later
 * run. Nobody has it: the key is absent.
 */
static void
conclude(struct chp_zab *z, struct chp_zab_asked *f, struct chp_out *out)
{
	struct chp_zab_miss *m = &z->slow.miss[f->miss];
	uint8_t bytes[CHP_KEY_BYTES_MAX];
	struct chp_key key;

	if (f->version == 0) {
		come_to_rest(z, m, 0);
		return;
	}
	key_of_slot(z, slot_of(z, m), bytes, &key);
	/* A write that did not wait for it will be applied. */
	if (chp_zab_pending_find(&z->pending, &key.digest) != 0 ||
	    chp_zab_restore(z, &key, f->version, value_of_fetch(z, f), f->is_deleted ? 0 : f->value_len,
			    f->is_deleted, out))
		stop_asking(z, m);
}

static void
run_fetches(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	const bool again = now->ns >= z->slow.fetch_again_ns;

	if (z->slow.n_fetches == 0 || !chp_zab_serves(z))
		return;
	for (uint32_t i = 0; i < FETCHES; i++) {
		struct chp_zab_asked *f = &z->slow.fetch[i];
		const struct chp_slot *s;

		if (f->miss == NONE)
			continue;
		if (again) {
			f->due |= f->again & f->waiting;
			f->again = 0;
		}
		if (now->ns >= f->asked_ns + z->env.election_ns) {
			f->due |= f->waiting;
			f->asked_ns = now->ns;
		}
		s = slot_of(z, &z->slow.miss[f->miss]);
		for (uint64_t to = f->due; to != 0; to &= to - 1) {
			uint8_t key[CHP_KEY_BYTES_MAX];

			chp_cache_key(z->env.cache, s, key);
			send_question(z, CHP_ZAB_FETCH, chp_first_bit(to), i, f->tag, key, s->key_len, out);
		}
		f->due = 0;
		if (z->slow.miss[f->miss].token == NONE && is_told(z, now, f))
			conclude(z, f, out);
	}
	if (again)
		z->slow.fetch_again_ns = now->ns + AGAIN_NS;
	if (z->slow.n_fetches > 0)
		chp_out_wake_at(out, z->slow.fetch_again_ns);
}

/* The leader asks what our store has. What the log has had since it knows itself. */
void
chp_zab_on_fetch(struct chp_zab *z, const struct chp_peer_message *pm, struct chp_out *out)
{
	const struct chp_zab_fetch *m = (const void *)pm->message;
	const struct chp_slot *s = chp_cache_find(z->env.cache, &pm->key);
	struct chp_zab_told *t;

	if (!z->is_backed || m->message.op >= FETCHES)
		return;
	t = &z->slow.told[m->message.op];
	if (t->token != NONE && t->tag == m->tag && t->to == pm->from)
		return; /* asked once more: it is being loaded */
	if (t->token != NONE)
		drop_load(z, t->token);
	t->token = NONE;
	if ((s != NULL && s->version != 0) || !z->env.backing->is_ready ||
	    !chp_backing_load(z->env.backing, &pm->key, &t->token)) {
		send_fetched(z, pm->from, m->message.op, m->tag, CHP_ZAB_FETCH_AGAIN, NULL, out);
		return;
	}
	z->slow.load_for[t->token] = z->env.loads_max + m->message.op;
	t->tag = m->tag;
	t->to = pm->from;
}

static void
tell(struct chp_zab *z, uint32_t op, const struct chp_loaded *l, struct chp_out *out)
{
	struct chp_zab_told *t = &z->slow.told[op];

	t->token = NONE;
	if (l->status == CHP_LOAD_FAILED || (l->status != CHP_LOAD_ABSENT && !l->is_old))
		send_fetched(z, t->to, op, t->tag, CHP_ZAB_FETCH_AGAIN, NULL, out);
	else
		send_fetched(z, t->to, op, t->tag, (enum chp_zab_fetched_status)l->status,
			     l->status == CHP_LOAD_ABSENT ? NULL : l, out);
}

/* A source's store has a key of before. True: the log has it by now. */
static bool
take_offer(struct chp_zab *z, const struct chp_key *key)
{
	struct chp_slot *s = chp_cache_find(z->env.cache, key);

	if (is_known(z, s, &key->digest))
		return true;
	/* That nobody has it was said while this source was silent. */
	if (s != NULL && s->state == CHP_ZAB_REST && s->busy == CHP_SLOT_NO_BUSY &&
	    (s->flags & CHP_SLOT_COLLIDED) == 0 && chp_cache_remove(z->env.cache, s))
		s = NULL;
	if (s == NULL && z->slow.n_fetches < FETCHES / 2)
		chp_zab_ask(z, NULL, key);
	return false;
}

void
chp_zab_on_offer(struct chp_zab *z, const struct chp_peer_message *pm, struct chp_out *out)
{
	const struct chp_zab_fetch *m = (const void *)pm->message;

	if (z->is_backed && chp_zab_serves(z) && take_offer(z, &pm->key))
		send_fetched(z, pm->from, m->message.op, m->tag, CHP_ZAB_FETCH_KNOWN, NULL, out);
}

/* Keys of the part of our store that is held become offers, as far as there are places. */
static void
fill_offers(struct chp_zab *z)
{
	const uint8_t *keys = z->slow.parts + (size_t)z->env.self * CHP_COPY_PART_BYTES;

	while (z->slow.old.at < z->slow.old.bytes && z->slow.n_offers < OFFERS) {
		struct chp_key key = { .bytes = keys + z->slow.old.at + 1, .len = keys[z->slow.old.at], .pos = -1 };
		struct chp_zab_offer *o = z->slow.offer;
		const struct chp_slot *s;

		key.digest = chp_cache_digest(z->env.cache, key.bytes, key.len, false);
		s = chp_cache_find(z->env.cache, &key);
		z->slow.old.at += 1 + key.len;
		if (s != NULL && s->version != 0)
			continue; /* the log has had it: it will take the old item's place */
		while (o->key_len != 0)
			o++;
		o->digest = key.digest;
		o->key_len = key.len;
		memcpy(o->key, key.bytes, key.len);
		z->slow.n_offers++;
	}
}

static void
make_offers(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	if (z->slow.n_offers == 0)
		return;
	if (now->ns >= z->slow.old.offer_ns) {
		z->slow.old.offer_ns = now->ns + AGAIN_NS;
		for (uint32_t i = 0; i < OFFERS; i++) {
			struct chp_zab_offer *o = &z->slow.offer[i];
			const struct chp_key key = {
				.bytes = o->key, .len = o->key_len, .pos = -1, .digest = o->digest
			};

			if (o->key_len == 0)
				continue;
			if (chp_zab_serves(z) && take_offer(z, &key)) {
				o->key_len = 0;
				z->slow.n_offers--;
			} else if (!z->is_leader && z->phase == CHP_ZAB_BROADCAST) {
				send_question(z, CHP_ZAB_OFFER, z->leader, i, (uint32_t)o->digest.lo, o->key,
					      o->key_len, out);
			}
		}
	}
	chp_out_wake_at(out, z->slow.old.offer_ns);
}

/* Look through our store until nothing in it is of an earlier life. */
static void
reconcile(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	if (z->slow.old.is_done)
		return;
	if (!z->env.backing->may_evict) {
		z->slow.old.is_done = z->env.backing->is_ready; /* a store that keeps nothing has nothing old */
		return;
	}
	fill_offers(z);
	make_offers(z, now, out);
	if (z->slow.n_offers > 0 || z->slow.old.at < z->slow.old.bytes || z->slow.old.is_asked)
		return;
	if (z->slow.old.is_last) {
		z->slow.old.is_done = !z->slow.old.has_met;
		z->slow.old.is_last = z->slow.old.is_begun = z->slow.old.has_met = false;
		/* What was proposed again has to become durable first. */
		z->slow.old.again_ns = now->ns + LOOK_AGAIN_NS;
	}
	if (now->ns < z->slow.old.again_ns) {
		chp_out_wake_at(out, z->slow.old.again_ns);
		return;
	}
	if (!chp_backing_scan(z->env.backing, CHP_SCAN_OWN, !z->slow.old.is_begun, true, CHP_COPY_PART_BYTES))
		return;
	z->slow.old.is_asked = z->slow.old.is_begun = true;
	z->slow.old.bytes = z->slow.old.at = 0;
}

static void
take_old(struct chp_zab *z, const struct chp_stored *item)
{
	uint8_t *to = z->slow.parts + (size_t)z->env.self * CHP_COPY_PART_BYTES + z->slow.old.bytes;

	z->slow.old.has_met = true;
	/* More than was asked for: the next look through the store meets it again. */
	if (z->slow.old.bytes + 1 + item->key_len > CHP_COPY_PART_BYTES)
		return;
	*to = item->key_len;
	memcpy(to + 1, item->key, item->key_len);
	z->slow.old.bytes += 1u + item->key_len;
}

/* ------------------------------------------------------------------ what the store answers */

static void
take_loaded(struct chp_zab *z, struct chp_zab_miss *m, const struct chp_loaded *l)
{
	struct chp_slot *s = slot_of(z, m);
	const bool is_ours = l->status != CHP_LOAD_ABSENT && !l->is_old;

	m->token = NONE;
	if (l->status == CHP_LOAD_FAILED ||
	    (is_ours && !chp_zab_make_room(z, s->key_len, l->value_len, false))) {
		z->env.counters->loads_failed++;
		make_ready(z, m);
		return;
	}
	if (is_ours) {
		chp_cache_set(z->env.cache, s, l->value, l->value_len, l->version_flags & CHP_SLOT_TOMBSTONE);
		come_to_rest(z, m, l->version);
	} else if (m->fetch == NONE) {
		come_to_rest(z, m, 0);
	} else if (is_source(z)) {
		struct chp_zab_asked *f = &z->slow.fetch[m->fetch];

		f->answered |= chp_bit(z->env.self);
		if (l->status != CHP_LOAD_ABSENT)
			take_newer(z, f, l->version, l->generation, l->status == CHP_LOAD_TOMBSTONE, l->value,
				   l->value_len);
	}
}

void
chp_zab_loaded(void *instance, const struct chp_now *now, const struct chp_loaded *l, uint32_t n, struct chp_out *out)
{
	struct chp_zab *z = instance;

	(void)now;
	CHP_ASSERT_OP(n, <=, CHP_BATCH_MAX);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t whose;

		CHP_ASSERT_OP(l[i].token, <, z->env.loads_max);
		whose = z->slow.load_for[l[i].token];
		z->slow.load_for[l[i].token] = NONE;
		if (whose == NONE)
			z->env.counters->loads_stale++; /* a write came first, or nobody waits any more */
		else if (whose >= z->env.loads_max)
			tell(z, whose - z->env.loads_max, &l[i], out);
		else
			take_loaded(z, &z->slow.miss[whose], &l[i]);
	}
}

void
chp_zab_scanned(void *instance, const struct chp_now *now, uint32_t scan, const struct chp_stored *item,
		struct chp_out *out)
{
	struct chp_zab *z = instance;

	(void)now;
	(void)out;
	if (scan == CHP_SCAN_OWN)
		take_old(z, item);
	else
		chp_copy_scanned(&z->copy, scan, item);
}

void
chp_zab_scan_end(void *instance, const struct chp_now *now, uint32_t scan, bool end, bool failed, struct chp_out *out)
{
	struct chp_zab *z = instance;

	(void)now;
	(void)out;
	if (scan != CHP_SCAN_OWN) {
		chp_copy_scan_end(&z->copy, scan, end, failed);
		return;
	}
	z->slow.old.is_asked = false;
	z->slow.old.is_last = end && !failed;
	z->slow.old.is_begun = z->slow.old.is_begun && !failed;
	z->slow.old.has_met = z->slow.old.has_met || failed;
}

/* ------------------------------------------------------------------ what was copied */

void
chp_zab_slot_copied(struct chp_zab *z, struct chp_slot *s)
{
	CHP_ASSERT(s->state != CHP_ZAB_LOADING); /* nobody is served before the copy is complete */
	/* Once such a key has left the cache, entries that are older than it make it look older for a while. */
	z->slow.copied_until = chp_max_u64(z->slow.copied_until, s->version);
	if (CHP_MUTATED(ZAB_COPIED_IS_SAVED)) {
		s->log_low = (uint32_t)z->env.log->mark - 1;
		return;
	}
	z->slow.n_unsaved += s->state != CHP_ZAB_UNSAVED;
	s->state = CHP_ZAB_UNSAVED;
	s->log_low = (uint32_t)z->env.log->next - 1;
}

/*
 * What was on its way is durable, unless it was written anew meanwhile: then its log entry is what counts. A copy may
 * bring a key twice, older the second time. Once keys leave the cache nobody but the store can tell: it keeps the newer
 * version, and what was saved leaves the cache, too.
 */
static void
take_saved(struct chp_zab *z)
{
	for (uint32_t i = 0; i < z->slow.save.n; i++) {
		struct chp_slot *s = chp_cache_slot(z->env.cache, z->slow.save.slot[i]);

		if (s == NULL || s->state != CHP_ZAB_UNSAVED || s->version != z->slow.save.version[i])
			continue;
		s->state = CHP_ZAB_REST;
		s->log_low = (uint32_t)z->env.log->mark - 1;
		z->slow.n_unsaved--;
		if (z->slow.is_short && (s->flags & CHP_SLOT_COLLIDED) == 0)
			CHP_ASSERT(chp_cache_remove(z->env.cache, s));
	}
	z->slow.save.n = 0;
}

static void
save_some(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	const struct chp_backing *b = z->env.backing;
	const uint32_t slots = chp_cache_slots(z->env.cache);
	const uint32_t looks = chp_min_u32(slots, SAVE_LOOKS); /* at no slot twice */

	if (z->slow.save.n > 0 && b->losses != z->slow.save.losses)
		z->slow.save.n = 0; /* they are met again */
	else if (z->slow.save.n > 0 && b->saved >= z->slow.save.number)
		take_saved(z);
	if (z->slow.save.n > 0 || z->slow.n_unsaved == 0 || !b->is_ready)
		return;
	z->slow.save.losses = b->losses;
	for (uint32_t i = 0; i < looks && z->slow.save.n < CHP_ZAB_SAVES; i++) {
		const struct chp_slot *s;

		z->slow.save.at = z->slow.save.at + 1 < slots ? z->slow.save.at + 1 : 0;
		s = chp_cache_slot(z->env.cache, z->slow.save.at);
		if (s == NULL || s->state != CHP_ZAB_UNSAVED)
			continue;
		if (!chp_backing_save(z->env.backing, s, &z->slow.save.number)) {
			z->slow.save.at--; /* wraps to before the first: it is the next one again */
			break;
		}
		z->slow.save.slot[z->slow.save.n] = z->slow.save.at;
		z->slow.save.version[z->slow.save.n++] = s->version;
	}
	if (z->slow.save.n == 0)
		chp_out_wake_at(out, now->ns + AGAIN_NS);
}

/* ------------------------------------------------------------------ runs, terms, life */

bool
chp_zab_slow_run(struct chp_zab *z, const struct chp_now *now, struct chp_out *out)
{
	bool is_more;

	if (z->view.epoch == 0)
		return false;
	evict_ahead(z);
	save_some(z, now, out);
	load_again(z, now);
	if (is_source(z))
		reconcile(z, now, out);
	run_fetches(z, now, out);
	is_more = serve_ready(z, now, out);
	if (z->slow.n_again > 0) /* some may just have failed */
		chp_out_wake_at(out, z->slow.again_ns);
	return is_more;
}

bool
chp_zab_slow_is_done(const struct chp_zab *z)
{
	return !z->incomplete && z->slow.n_unsaved == 0 && (!is_source(z) || z->slow.old.is_done);
}

void
chp_zab_slow_leave(struct chp_zab *z)
{
	for (uint32_t i = 0; i < z->env.loads_max; i++) {
		struct chp_zab_miss *m = &z->slow.miss[i];
		uint32_t op;

		if (m->slot == NONE)
			continue;
		while ((op = chp_zab_pop(z, &m->waiters)) != NONE)
			chp_zab_push(z, &z->list[CHP_ZAB_OP_REFUSE], op);
		end_miss(z, m);
	}
	z->slow.ready.head = NONE;
	for (uint32_t i = 0; i < FETCHES; i++) {
		if (z->slow.told[i].token != NONE)
			drop_load(z, z->slow.told[i].token);
		z->slow.told[i].token = NONE;
	}
}

void
chp_zab_slow_link_up(struct chp_zab *z, uint32_t node)
{
	for (uint32_t i = 0; i < FETCHES; i++) {
		struct chp_zab_asked *f = &z->slow.fetch[i];

		if (f->miss != NONE)
			f->due |= f->waiting & chp_bit(node);
	}
}

void
chp_zab_slow_restart(struct chp_zab *z, const struct chp_now *now)
{
	chp_zab_slow_leave(z);
	for (uint32_t i = 0; i < z->env.loads_max; i++) {
		struct chp_zab_miss *m = &z->slow.miss[i];

		if (m->slot == NONE)
			continue;
		/* It stays because of its digest; what the copy does not bring is absent. */
		slot_of(z, m)->state = CHP_ZAB_REST;
		end_miss(z, m);
	}
	z->slow.n_unsaved = z->slow.save.n = 0;
	z->slow.copied_until = 0;
	z->slow.is_short = false;
	chp_backing_restart(z->env.backing, now->ns, true);
}

int
chp_zab_slow_init(struct chp_zab *z)
{
	const struct chp_memory *memory = z->env.memory;
	struct chp_zab_slow *w = &z->slow;

	w->miss = memory->zalloc(z->env.loads_max * sizeof(*w->miss));
	w->load_for = memory->zalloc(z->env.loads_max * sizeof(*w->load_for));
	w->fetch_value = memory->zalloc((size_t)FETCHES * z->env.value_bytes_max);
	w->parts = memory->zalloc((size_t)z->env.n_nodes * CHP_COPY_PART_BYTES);
	if (w->miss == NULL || w->load_for == NULL || w->fetch_value == NULL || w->parts == NULL)
		return -ENOMEM;
	w->ready = (struct chp_zab_list){ NONE, NONE };
	w->free_miss = NONE;
	for (uint32_t i = z->env.loads_max; i-- > 0;) {
		w->miss[i] = (struct chp_zab_miss){ .slot = NONE, .token = NONE, .fetch = NONE, .next = w->free_miss };
		w->free_miss = i;
		w->load_for[i] = NONE;
	}
	for (uint32_t i = 0; i < FETCHES; i++) {
		w->fetch[i].miss = NONE;
		w->told[i].token = NONE;
	}
	return 0;
}

void
chp_zab_slow_fini(struct chp_zab *z)
{
	const struct chp_memory *memory = z->env.memory;

	memory->free(z->slow.miss);
	memory->free(z->slow.load_for);
	memory->free(z->slow.fetch_value);
	memory->free(z->slow.parts);
}

static void
check_miss(const struct chp_zab *z, const struct chp_zab_miss *m, uint32_t *ops)
{
	const struct chp_slot *s = slot_of(z, m);

	CHP_ASSERT(s != NULL);
	CHP_ASSERT_OP(s->busy, ==, index_of(z, m));
	CHP_ASSERT(s->state == CHP_ZAB_LOADING || m->is_ready);
	CHP_ASSERT(m->token == NONE || z->slow.load_for[m->token] == index_of(z, m));
	CHP_ASSERT(m->fetch == NONE || z->slow.fetch[m->fetch].miss == index_of(z, m));
	CHP_ASSERT(!m->is_ready || (m->token == NONE && m->fetch == NONE));
	for (uint32_t i = m->waiters.head; i != NONE; i = z->op[i].next)
		++*ops;
}

void
chp_zab_slow_check(const struct chp_zab *z, uint32_t *ops)
{
	uint32_t unsaved = 0, loading = 0, misses = 0, fetches = 0, offers = 0, again = 0;

	if (!z->is_backed)
		return;
	for (uint32_t i = 0; i < z->env.loads_max; i++) {
		const struct chp_zab_miss *m = &z->slow.miss[i];

		if (m->slot == NONE)
			continue;
		check_miss(z, m, ops);
		misses += slot_of(z, m)->state == CHP_ZAB_LOADING;
		again += m->is_again;
	}
	for (uint32_t i = 0; i < chp_cache_slots(z->env.cache); i++) {
		const struct chp_slot *s = chp_cache_slot(z->env.cache, i);

		unsaved += s != NULL && s->state == CHP_ZAB_UNSAVED;
		loading += s != NULL && s->state == CHP_ZAB_LOADING;
	}
	for (uint32_t i = 0; i < FETCHES; i++)
		fetches += z->slow.fetch[i].miss != NONE;
	for (uint32_t i = 0; i < OFFERS; i++)
		offers += z->slow.offer[i].key_len != 0;
	CHP_ASSERT_OP(loading, ==, misses);
	CHP_ASSERT_OP(again, ==, z->slow.n_again);
	CHP_ASSERT_OP(fetches, ==, z->slow.n_fetches);
	CHP_ASSERT_OP(offers, ==, z->slow.n_offers);
	if (!z->clearing)
		CHP_ASSERT_OP(unsaved, ==, z->slow.n_unsaved);
}
