/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What must hold of a node's cache, log and store, after every run of its shard (SAFETY 1-5, 29, 30):
 *
 *   what was in the cache is there, or its version, or a newer one, is durable in the store;
 *   no key goes back to a version older than one it has had there;
 *   no key in the cache is older than what the store was given in this life;
 *   what is stored and not in the cache is not above what the replica says that it has evicted;
 *   the log's mark has passed no position whose key's version, or a newer one, is not durable.
 *
 * And of all nodes, at rest: cache and store together hold the same at each, and nothing that was acknowledged is
 * missing. Only keys of clients count: sessions are never evicted and not stored.
 */
#include "kind.h"

#include "host.h"
#include "protocols/hermes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A log entry whose position the mark has not passed. */
struct entry {
	uint64_t version;
	uint32_t key; /* number of a client's key; SIM_KEYS_MAX: it is about none */
};

/* What is remembered of a node's shard. */
struct sim_backed {
	uint64_t life;               /* its own, in the store; 0: it has not begun there */
	uint64_t held[SIM_KEYS_MAX]; /* the newest version of each key that its cache has had */
	uint64_t seen, passed;       /* log positions below: looked at; passed by the mark, and looked at again */
	struct entry *entry;         /* by position, as in the log */
};

/* What a node has of a key, in cache or store. */
struct have {
	uint64_t version; /* 0: nothing */
	uint32_t value_len;
	bool deleted;
	uint8_t value[CHP_VALUE_BYTES_MAX];
};

/* A store that may forget is not waited for, and nothing may be evicted to it (SAFETY 31). */
static bool
is_watched(const struct sim_world *w, uint32_t n)
{
	return w->backed[n] != NULL && (w->host[n]->flags & CHP_STORE_VOLATILE) == 0;
}

void
sim_backed_init(struct sim_world *w, uint32_t n)
{
	struct sim_backed *b = calloc(1, sizeof(*b));

	CHP_ASSERT(b != NULL);
	b->entry = calloc(w->config.shard.log_entries, sizeof(*b->entry));
	CHP_ASSERT(b->entry != NULL);
	w->backed[n] = b;
}

void
sim_backed_fini(struct sim_world *w, uint32_t n)
{
	if (w->backed[n] != NULL)
		free(w->backed[n]->entry);
	free(w->backed[n]);
	w->backed[n] = NULL;
}

void
sim_backed_born(struct sim_world *w, uint32_t n)
{
	struct sim_backed *b = w->backed[n];

	memset(b->held, 0, sizeof(b->held));
	b->life = 0;
	b->seen = b->passed = 1;
}

/* ------------------------------------------------------------------ after a run */

/* The version of a key that a table got in this life of the shard; 0: none. */
static uint64_t
stored(const struct sim_table *t, uint64_t life, uint32_t key)
{
	uint8_t bytes[CHP_KEY_BYTES_MAX];
	const struct sim_stored *s = sim_table_find(t, bytes, sim_client_key(key, bytes));

	return life != 0 && s != NULL && s->life == life ? s->version : 0;
}

static struct chp_slot *
find_slot(const struct sim_world *w, uint32_t n, uint32_t key)
{
	struct chp_cache *cache = chp_shard_cache(w->node[n].shard);
	uint8_t bytes[CHP_KEY_BYTES_MAX];
	struct chp_key k = { .bytes = bytes, .len = sim_client_key(key, bytes), .pos = -1 };

	k.digest = chp_cache_digest(cache, bytes, k.len, false);
	return chp_cache_find(cache, &k);
}

uint64_t
sim_backed_cached(const struct sim_world *w, uint32_t n, uint32_t key)
{
	const struct chp_slot *s = find_slot(w, n, key);

	return s == NULL ? 0 : s->version;
}

/* The store's life is the shard's own from when the shard says that it has begun. */
static uint64_t
life_of(struct sim_world *w, uint32_t n)
{
	struct sim_backed *b = w->backed[n];
	struct chp_host_status status;

	if (b->life == 0) {
		chp_shard_host_status(w->node[n].shard, sim_node_clock(w, n), &status);
		if (status.has_begun)
			b->life = status.life;
	}
	return b->life;
}

/* The highest version that it may have stored and not in the cache (SAFETY 2, 3). */
static uint64_t
above(const struct sim_world *w, uint32_t n)
{
	/* Where a log brings all that is newer, nothing else is asked for. */
	if (w->config.kind->protocol != &chp_hermes)
		return UINT64_MAX;
	return chp_version_make(chp_hermes_evicted(chp_shard_instance(w->node[n].shard)) + 1, 0) - 1;
}

static void
watch_key(struct sim_world *w, uint32_t n, uint64_t life, uint32_t key)
{
	const struct sim_store *store = &w->host[n]->store;
	const struct chp_slot *s = find_slot(w, n, key);
	uint64_t *held = &w->backed[n]->held[key];

	if (s == NULL && stored(&store->visible, life, key) > above(w, n))
		sim_fail(w, "node %u: key %u is stored at version %" PRIu64 ".%u, above what was evicted", n, key,
			 chp_version_counter(stored(&store->visible, life, key)),
			 (uint16_t)stored(&store->visible, life, key));
	if (s == NULL || s->version == 0) { /* a slot without a version is being loaded, or says that there is none */
		if (stored(&store->durable, life, key) < *held)
			sim_fail(w, "node %u evicted key %u at version %" PRIu64 ".%u, durable is %" PRIu64 ".%u", n,
				 key, chp_version_counter(*held), (uint16_t)*held,
				 chp_version_counter(stored(&store->durable, life, key)),
				 (uint16_t)stored(&store->durable, life, key));
		if (s != NULL && s->state == 0 && stored(&store->durable, life, key) != 0)
			sim_fail(w, "node %u: the cache says that there is no key %u, and the store has it", n, key);
		return;
	}
	if (s->version < *held)
		sim_fail(w, "node %u: key %u went back from version %" PRIu64 ".%u to %" PRIu64 ".%u", n, key,
			 chp_version_counter(*held), (uint16_t)*held, chp_version_counter(s->version),
			 (uint16_t)s->version);
	if (s->version < stored(&store->visible, life, key))
		sim_fail(w, "node %u: key %u is at version %" PRIu64 ".%u, its store has a newer one of this life", n,
			 key, chp_version_counter(s->version), (uint16_t)s->version);
	*held = s->version;
}

static struct entry
entry_of(const struct chp_log *log, uint64_t pos)
{
	const struct chp_log_entry *e;
	uint8_t key[CHP_KEY_BYTES_MAX];

	if (pos < log->head) /* appended and gone in one run: nothing had to be stored for it */
		return (struct entry){ .key = SIM_KEYS_MAX };
	e = chp_log_at(log, pos);
	if (e->key_len == 0 || (e->version_flags & CHP_SLOT_SESSION) != 0 || e->status != CHP_STATUS_OK)
		return (struct entry){ .key = SIM_KEYS_MAX };
	chp_log_key(log, e, key);
	return (struct entry){ .version = e->version, .key = sim_client_key_number(key, e->key_len) };
}

static void
watch_log(struct sim_world *w, uint32_t n, uint64_t life)
{
	struct sim_backed *b = w->backed[n];
	const struct chp_log *log = chp_shard_log(w->node[n].shard);

	if (log->head > b->seen)
		b->passed = log->head; /* a log begun anew */
	/* What others' leaders wrote into a log may be cut, and other entries follow. */
	b->seen = chp_max_u64(b->passed, log->head);
	for (; b->seen < log->next; b->seen++)
		b->entry[b->seen & log->mask] = entry_of(log, b->seen);
	for (; b->passed < chp_min_u64(log->mark, log->next); b->passed++) {
		const struct entry *e = &b->entry[b->passed & log->mask];
		const uint64_t version = e->key == SIM_KEYS_MAX
						 ? 0
						 : stored(&w->host[n]->store.durable, life, e->key);

		if (e->key != SIM_KEYS_MAX && version < e->version)
			sim_fail(w,
				 "node %u: the mark passes position %" PRIu64 ", key %u at version %" PRIu64
				 ".%u; durable is %" PRIu64 ".%u",
				 n, b->passed, e->key, chp_version_counter(e->version), (uint16_t)e->version,
				 chp_version_counter(version), (uint16_t)version);
	}
}

void
sim_backed_ran(struct sim_world *w, uint32_t n)
{
	uint64_t life;

	if (!is_watched(w, n))
		return;
	if (w->config.kind->is_copying != NULL && w->config.kind->is_copying(w, n)) {
		sim_backed_born(w, n); /* a log and a life of its own */
		w->backed[n]->seen = w->backed[n]->passed = chp_shard_log(w->node[n].shard)->head;
		return;
	}
	life = life_of(w, n);
	watch_log(w, n, life);
	for (uint32_t key = 0; key < w->config.n_keys; key++)
		watch_key(w, n, life, key);
}

/* ------------------------------------------------------------------ at the end */

static void
have_key(struct sim_world *w, uint32_t n, uint32_t key, struct have *h)
{
	struct chp_cache *cache = chp_shard_cache(w->node[n].shard);
	const struct chp_slot *slot = find_slot(w, n, key);
	uint8_t bytes[CHP_KEY_BYTES_MAX];
	const struct sim_stored *s;

	*h = (struct have){ .version = 0 };
	if (slot != NULL && slot->version != 0) {
		h->version = slot->version;
		h->value_len = slot->value_len;
		h->deleted = (slot->flags & CHP_SLOT_TOMBSTONE) != 0;
		chp_cache_value(cache, slot, h->value);
		return;
	}
	s = sim_table_find(&w->host[n]->store.durable, bytes, sim_client_key(key, bytes));
	if (s == NULL || s->life != life_of(w, n))
		return;
	h->version = s->version;
	h->value_len = s->value_len;
	h->deleted = (s->flags & CHP_SLOT_TOMBSTONE) != 0;
	memcpy(h->value, s->value, s->value_len);
}

/* A deleted key may be there or not. */
static bool
same(const struct have *a, const struct have *b)
{
	const bool gone = a->version == 0 || a->deleted;

	if (gone || b->version == 0 || b->deleted)
		return gone == (b->version == 0 || b->deleted) &&
		       (a->version == b->version || a->version == 0 || b->version == 0);
	return a->version == b->version && a->value_len == b->value_len &&
	       memcmp(a->value, b->value, a->value_len) == 0;
}

/* The newest version of a key whose write was acknowledged. */
static uint64_t
acknowledged(const struct sim_world *w, uint32_t key)
{
	uint64_t newest = 0;

	for (uint32_t i = 0; i < w->history.n_ops; i++) {
		const struct chp_history_op *op = &w->history.op[i];
		const struct chp_history_key *k = &w->history.key[op->key];

		if (op->outcome == CHP_HISTORY_OK && op->kind != CHP_HISTORY_GET &&
		    sim_client_key_number(k->bytes, k->len) == key)
			newest = chp_max_u64(newest, op->version);
	}
	return newest;
}

static void
check_key(struct sim_world *w, uint32_t key)
{
	static struct have first, other;
	uint32_t a = SIM_NODES_MAX;

	for (uint32_t n = 0; n < w->config.n_nodes; n++) {
		if (!w->node[n].alive)
			continue;
		have_key(w, n, key, a == SIM_NODES_MAX ? &first : &other);
		if (a == SIM_NODES_MAX)
			a = n;
		else if (!same(&first, &other))
			sim_fail(w,
				 "at rest, nodes %u and %u have key %u at versions %" PRIu64 ".%u and %" PRIu64 ".%u",
				 a, n, key, chp_version_counter(first.version), (uint16_t)first.version,
				 chp_version_counter(other.version), (uint16_t)other.version);
	}
	if (a != SIM_NODES_MAX && first.version < acknowledged(w, key))
		sim_fail(w, "at rest, key %u is at version %" PRIu64 ".%u, older than what was acknowledged", key,
			 chp_version_counter(first.version), (uint16_t)first.version);
}

void
sim_backed_end(struct sim_world *w)
{
	for (uint32_t key = 0; key < w->config.n_keys; key++)
		check_key(w, key);
}
