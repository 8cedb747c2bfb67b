/* SPDX-License-Identifier: BSD-3-Clause */
#include "cache/cache.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "cache/index.h"

#include <errno.h>
#include <string.h>

_Static_assert((CHP_SLOT_VERSION_FLAGS & (CHP_SLOT_USED | CHP_SLOT_EXTERNAL | CHP_SLOT_COLLIDED |
					  CHP_SLOT_BASE_ABSENT | CHP_SLOT_REFERENCED)) == 0,
	       "flags of the version and of the slot are apart");

/* Session numbers are digested with another seed, so that a client's key never meets them. */
#define SESSION_SEED UINT64_C(0x5e55105e55105e55)

struct chp_cache {
	struct chp_slot *slot; /* by position in the index */
	struct chp_index *index;
	struct chp_blocks blocks;
	const struct chp_memory *memory;
	uint64_t seed;
	uint64_t collisions;
	uint32_t slots;
	uint32_t keys_max;
	uint32_t value_blocks_max;
	uint32_t keys;
	uint32_t tombstones, session_tombstones;
	uint32_t sessions;
	uint32_t hand;           /* of the clock */
	uint32_t pinned;         /* met in this turn of it */
	uint32_t pinned_before;  /* in the last one */
	uint32_t in_vain;        /* slots looked at since one could leave, at most all */
	uint64_t evictions;
};

/* What a configuration comes to. */
struct sizes {
	uint64_t slots;
	uint64_t blocks;
};

static struct sizes
sizes_of(const struct chp_cache_config *config)
{
	uint64_t headroom = CHP_HEADROOMS * (uint64_t)config->headroom;
	struct sizes s = {
		.slots = chp_max_u64(config->keys_max + headroom, CHP_INDEX_ENTRIES_MIN),
		.blocks = config->value_blocks_max + headroom * CHP_RECORD_BLOCKS_MAX,
	};

	return s;
}

struct chp_cache *
chp_cache_create(const struct chp_cache_config *config, int *err)
{
	struct sizes sizes = sizes_of(config);

	if (config->keys_max == 0 || config->keys_max > CHP_KEYS_MAX ||
	    sizes.slots > 2 * (uint64_t)CHP_KEYS_MAX || sizes.blocks > CHP_BLOCKS_MAX ||
	    config->name == NULL || strlen(config->name) > CHP_INDEX_NAME_MAX) {
		*err = -EINVAL;
		return NULL;
	}
	struct chp_cache *c = config->memory->zalloc(sizeof(*c));

	if (c == NULL) {
		*err = -ENOMEM;
		return NULL;
	}
	c->memory = config->memory;
	c->seed = config->seed;
	c->slots = (uint32_t)sizes.slots;
	c->keys_max = config->keys_max;
	c->value_blocks_max = config->value_blocks_max;
	c->slot = config->memory->zalloc(c->slots * sizeof(*c->slot));
	*err = c->slot == NULL ? -ENOMEM : 0;
	if (*err == 0)
		*err = chp_blocks_init(&c->blocks, (uint32_t)sizes.blocks, c->memory);
	if (*err == 0)
		c->index = chp_index_create(config->name, c->slots, err);
	if (*err != 0) {
		chp_cache_destroy(c);
		return NULL;
	}
	return c;
}

void
chp_cache_destroy(struct chp_cache *c)
{
	if (c == NULL)
		return;
	const struct chp_memory *memory = c->memory;

	chp_index_destroy(c->index);
	chp_blocks_fini(&c->blocks, memory);
	memory->free(c->slot);
	memory->free(c);
}

size_t
chp_cache_bytes(const struct chp_cache_config *config)
{
	struct sizes s = sizes_of(config);
	/*
	 * rte_hash: 32 bytes of key store and a ring place of 4 an entry; 64-byte buckets of 8
	 * entries, as many overflow buckets, and a ring of those. Rings are one place larger than
	 * what they hold, and a power of two.
	 */
	uint64_t entries = chp_pow2_up((uint32_t)chp_min_u64(s.slots, UINT64_C(1) << 31));
	uint64_t ring = entries > s.slots ? entries : 2 * entries;
	uint64_t index = (s.slots + 1) * 32 + ring * 4 + entries / 8 * (2 * 64 + 2 * 4);

	return (size_t)(sizeof(struct chp_cache) + s.slots * sizeof(struct chp_slot) +
			s.blocks * sizeof(struct chp_block) + index);
}

static uint64_t
seed_of(const struct chp_cache *c, bool session)
{
	return session ? c->seed ^ SESSION_SEED : c->seed;
}

struct chp_digest
chp_cache_digest(const struct chp_cache *c, const uint8_t *bytes, uint32_t len, bool session)
{
	return chp_digest_of(bytes, len, seed_of(c, session));
}

void
chp_cache_find_bulk(const struct chp_cache *c, struct chp_key *const *keys, uint32_t n)
{
	struct chp_digest digests[CHP_BATCH_MAX];
	int32_t pos[CHP_BATCH_MAX];

	CHP_ASSERT_OP(n, <=, CHP_BATCH_MAX);
	if (n == 0)
		return;
	for (uint32_t i = 0; i < n; i++)
		digests[i] = keys[i]->digest;
	chp_index_lookup(c->index, digests, n, pos);
	for (uint32_t i = 0; i < n; i++) {
		keys[i]->pos = pos[i];
		if (pos[i] >= 0)
			chp_prefetch(&c->slot[pos[i]]);
	}
}

static uint32_t
slot_block(const struct chp_slot *s)
{
	uint32_t block;

	memcpy(&block, s->data, sizeof(block));
	return block;
}

void
chp_cache_prefetch_records(const struct chp_cache *c, struct chp_key *const *keys, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (keys[i]->pos >= 0 && (c->slot[keys[i]->pos].flags & CHP_SLOT_EXTERNAL) != 0)
			chp_blocks_prefetch(&c->blocks, slot_block(&c->slot[keys[i]->pos]));
}

static int32_t
position(const struct chp_cache *c, const struct chp_digest *d)
{
	int32_t pos;

	chp_index_lookup(c->index, d, 1, &pos);
	CHP_ASSERT(pos < 0 || ((uint32_t)pos < c->slots && c->slot[pos].flags & CHP_SLOT_USED));
	return pos;
}

static bool
slot_has_key(const struct chp_cache *c, const struct chp_slot *s, const struct chp_key *key)
{
	if (s->key_len != key->len || ((s->flags & CHP_SLOT_SESSION) != 0) != key->session)
		return false;
	if (s->flags & CHP_SLOT_EXTERNAL)
		return chp_blocks_equal(&c->blocks, slot_block(s), 0, key->bytes, key->len);
	return memcmp(s->data, key->bytes, key->len) == 0;
}

/*
 * The i-th digest that a key is looked for under when others hold those before it, i from 1.
 *
 * There is no limit on i but the number of keys: XXH3 is not cryptographic and its seed is public,
 * so anybody can make keys that share a digest under a whole run of seeds (test_cache.c does). Such
 * keys may cost time, but must not end the process. The alternatives up to the first free one are
 * all held by other keys, so there are at most as many as keys.
 */
static struct chp_digest
alternative(const struct chp_cache *c, const struct chp_key *key, uint32_t i)
{
	CHP_ASSERT_OP(i, <=, c->keys);
	return chp_digest_of(key->bytes, key->len, seed_of(c, key->session) + i);
}

/* The slot of a key whose digest is at pos, NULL if it is absent; counts the other keys met. */
static struct chp_slot *
find_from(const struct chp_cache *c, const struct chp_key *key, int32_t pos, uint32_t *met)
{
	*met = 0;
	while (pos >= 0) {
		CHP_ASSERT_OP((uint32_t)pos, <, c->slots);
		struct chp_slot *s = &c->slot[pos];

		if (__builtin_expect(slot_has_key(c, s, key), 1))
			return s;
		(*met)++;
		struct chp_digest d = alternative(c, key, *met);

		pos = position(c, &d);
	}
	return NULL;
}

struct chp_slot *
chp_cache_find(struct chp_cache *c, const struct chp_key *key)
{
	uint32_t met;
	struct chp_slot *s;

	/* What the batch did since its look-up may have moved the key, and given its place to another one. */
	if (key->pos >= 0 && slot_has_key(c, &c->slot[key->pos], key))
		return &c->slot[key->pos];
	s = find_from(c, key, position(c, &key->digest), &met);
	c->collisions += met;
	return s;
}

/* Blocks of a record: 0 when it fits its slot. */
static uint32_t
record_blocks(uint32_t key_len, uint32_t value_len)
{
	uint32_t len = key_len + value_len;

	return len <= CHP_SLOT_INLINE ? 0 : chp_blocks_for(len);
}

bool
chp_cache_admits(const struct chp_cache *c, uint32_t key_len, uint32_t value_len, bool is_new)
{
	uint32_t need = record_blocks(key_len, value_len);
	uint64_t in_use = c->blocks.n - c->blocks.n_free;

	if (is_new && c->keys >= c->keys_max)
		return false;
	return need == 0 || in_use + need <= c->value_blocks_max;
}

uint32_t
chp_cache_room(const struct chp_cache *c)
{
	return chp_min_u32(c->slots - c->keys, c->blocks.n_free / CHP_RECORD_BLOCKS_MAX);
}

bool
chp_cache_is_over(const struct chp_cache *c)
{
	return c->keys > c->keys_max;
}

/* What is kept free for the next new keys: a thirty-second, so that hardly a hit is lost for it. */
#define SPARE_SHIFT 5

bool
chp_cache_is_tight(const struct chp_cache *c)
{
	const uint64_t blocks = c->blocks.n - c->blocks.n_free;

	return c->keys + (c->keys_max >> SPARE_SHIFT) >= c->keys_max ||
	       blocks + (c->value_blocks_max >> SPARE_SHIFT) >= c->value_blocks_max;
}

/* Store a record in a slot that holds none. */
static void
slot_put(struct chp_cache *c, struct chp_slot *s, const uint8_t *key, const uint8_t *value,
	 uint32_t value_len)
{
	if (record_blocks(s->key_len, value_len) == 0) {
		s->flags &= (uint16_t)~CHP_SLOT_EXTERNAL;
		memcpy(s->data, key, s->key_len);
		if (value_len > 0)
			memcpy(s->data + s->key_len, value, value_len);
	} else {
		uint32_t block = chp_blocks_put(&c->blocks, key, s->key_len, value, value_len);

		s->flags |= CHP_SLOT_EXTERNAL;
		memcpy(s->data, &block, sizeof(block));
	}
	s->value_len = (uint16_t)value_len;
}

struct chp_slot *
chp_cache_insert(struct chp_cache *c, const struct chp_key *key)
{
	struct chp_digest d = key->digest;
	int32_t held;

	CHP_ASSERT_OP(key->len, >=, 1u);
	CHP_ASSERT_OP(key->len, <=, CHP_KEY_BYTES_MAX);
	CHP_ASSERT_OP(c->keys, <, c->slots);
	for (uint32_t i = 1; (held = position(c, &d)) >= 0; i++) {
		struct chp_slot *other = &c->slot[held];

		CHP_ASSERT(!slot_has_key(c, other, key));
		other->flags |= CHP_SLOT_COLLIDED;
		d = alternative(c, key, i);
	}
	uint32_t pos = chp_index_insert(c->index, &d);

	CHP_ASSERT_OP(pos, <, c->slots);
	struct chp_slot *s = &c->slot[pos];

	CHP_ASSERT_OP(s->flags, ==, 0);
	*s = (struct chp_slot){
		.busy = CHP_SLOT_NO_BUSY,
		.key_len = (uint8_t)key->len,
		.flags = (uint16_t)(CHP_SLOT_USED | (key->session ? CHP_SLOT_SESSION : 0)),
	};
	slot_put(c, s, key->bytes, NULL, 0);
	c->keys++;
	c->sessions += key->session;
	return s;
}

static void
count_tombstone(struct chp_cache *c, const struct chp_slot *s, int by)
{
	if ((s->flags & CHP_SLOT_TOMBSTONE) == 0)
		return;
	c->tombstones = (uint32_t)((int64_t)c->tombstones + by);
	if ((s->flags & CHP_SLOT_SESSION) != 0)
		c->session_tombstones = (uint32_t)((int64_t)c->session_tombstones + by);
}

void
chp_cache_set(struct chp_cache *c, struct chp_slot *s, const uint8_t *value, uint32_t len,
	      uint8_t version_flags)
{
	uint8_t key[CHP_KEY_BYTES_MAX];

	CHP_ASSERT(s->flags & CHP_SLOT_USED);
	CHP_ASSERT_OP(len, <=, CHP_VALUE_BYTES_MAX);
	CHP_ASSERT_OP(version_flags & ~CHP_SLOT_VERSION_FLAGS, ==, 0u);
	/* The name space is a property of the key: no version changes it. */
	CHP_ASSERT_OP(version_flags & CHP_SLOT_SESSION, ==, s->flags & CHP_SLOT_SESSION);
	count_tombstone(c, s, -1);
	s->flags = (uint16_t)((s->flags & ~CHP_SLOT_VERSION_FLAGS) | version_flags | CHP_SLOT_REFERENCED);
	count_tombstone(c, s, 1);

	if (!(s->flags & CHP_SLOT_EXTERNAL) && record_blocks(s->key_len, len) == 0) {
		/* The key stays where it is: most writes are these. */
		if (len > 0)
			memcpy(s->data + s->key_len, value, len);
		s->value_len = (uint16_t)len;
		return;
	}
	chp_cache_key(c, s, key);
	if (s->flags & CHP_SLOT_EXTERNAL)
		chp_blocks_free(&c->blocks, slot_block(s));
	slot_put(c, s, key, value, len);
}

bool
chp_cache_remove(struct chp_cache *c, struct chp_slot *s)
{
	uint8_t bytes[CHP_KEY_BYTES_MAX];
	struct chp_key key = { .bytes = bytes, .len = s->key_len };
	struct chp_digest d;

	CHP_ASSERT_OP(s->busy, ==, CHP_SLOT_NO_BUSY);
	if (s->flags & CHP_SLOT_COLLIDED)
		return false;
	key.session = (s->flags & CHP_SLOT_SESSION) != 0;
	chp_cache_key(c, s, bytes);
	d = chp_cache_digest(c, bytes, key.len, key.session);
	for (uint32_t i = 1; position(c, &d) != (int32_t)(s - c->slot); i++)
		d = alternative(c, &key, i);
	chp_index_remove(c->index, &d);
	if (s->flags & CHP_SLOT_EXTERNAL)
		chp_blocks_free(&c->blocks, slot_block(s));
	c->keys--;
	count_tombstone(c, s, -1);
	c->sessions -= key.session;
	*s = (struct chp_slot){ .busy = CHP_SLOT_NO_BUSY };
	return true;
}

uint32_t
chp_cache_tombstones(const struct chp_cache *c)
{
	return c->tombstones;
}

uint32_t
chp_cache_session_tombstones(const struct chp_cache *c)
{
	return c->session_tombstones;
}

uint32_t
chp_cache_sessions(const struct chp_cache *c)
{
	return c->sessions;
}

struct chp_slot *
chp_cache_victim(struct chp_cache *c, uint32_t looks, bool (*may)(const void *arg, const struct chp_slot *s),
		 const void *arg)
{
	const uint16_t stays = CHP_SLOT_SESSION | CHP_SLOT_COLLIDED;
	struct chp_slot *used = NULL;

	for (uint32_t i = 0; i < looks; i++) {
		struct chp_slot *s = &c->slot[c->hand];

		c->hand++;
		if (c->hand == c->slots) {
			c->hand = 0;
			c->pinned_before = c->pinned;
			c->pinned = 0;
		}
		if ((s->flags & CHP_SLOT_USED) == 0)
			continue;
		if ((s->flags & stays) != 0 || s->busy != CHP_SLOT_NO_BUSY || !may(arg, s)) {
			c->pinned++;
			continue;
		}
		if ((s->flags & CHP_SLOT_REFERENCED) == 0) {
			c->evictions++;
			c->in_vain = 0;
			return s;
		}
		s->flags &= (uint16_t)~CHP_SLOT_REFERENCED;
		if (used == NULL)
			used = s;
	}
	c->evictions += used != NULL;
	c->in_vain = used != NULL ? 0 : (uint32_t)chp_min_u64((uint64_t)c->in_vain + looks, c->slots);
	return used;
}

bool
chp_cache_is_stuck(const struct chp_cache *c)
{
	return c->in_vain == c->slots && chp_cache_is_tight(c);
}

void
chp_cache_key(const struct chp_cache *c, const struct chp_slot *s, uint8_t *to)
{
	CHP_ASSERT(s->flags & CHP_SLOT_USED);
	if (s->flags & CHP_SLOT_EXTERNAL)
		chp_blocks_get(&c->blocks, slot_block(s), 0, to, s->key_len);
	else
		memcpy(to, s->data, s->key_len);
}

void
chp_cache_value(const struct chp_cache *c, const struct chp_slot *s, uint8_t *to)
{
	CHP_ASSERT(s->flags & CHP_SLOT_USED);
	if (s->flags & CHP_SLOT_EXTERNAL)
		chp_blocks_get(&c->blocks, slot_block(s), s->key_len, to, s->value_len);
	else if (s->value_len > 0)
		memcpy(to, s->data + s->key_len, s->value_len);
}

void
chp_cache_prefetch(const struct chp_cache *c, uint32_t index)
{
	chp_prefetch(&c->slot[index]);
}

struct chp_slot *
chp_cache_slot(struct chp_cache *c, uint32_t index)
{
	CHP_ASSERT_OP(index, <, c->slots);
	return c->slot[index].flags & CHP_SLOT_USED ? &c->slot[index] : NULL;
}

uint32_t
chp_cache_slots(const struct chp_cache *c)
{
	return c->slots;
}

uint32_t
chp_cache_slot_index(const struct chp_cache *c, const struct chp_slot *s)
{
	CHP_ASSERT(s >= c->slot && s < c->slot + c->slots);
	return (uint32_t)(s - c->slot);
}

void
chp_cache_stats(const struct chp_cache *c, struct chp_cache_stats *out)
{
	*out = (struct chp_cache_stats){
		.keys = c->keys,
		.tombstones = c->tombstones,
		.sessions = c->sessions,
		.blocks = c->blocks.n - c->blocks.n_free,
		.collisions = c->collisions,
		.evictions = c->evictions,
		.pinned = c->pinned_before,
	};
}

/* The version first, then lengths and flags, then the record: no two states share the bytes. */
static uint64_t
slot_digest(const struct chp_cache *c, const struct chp_slot *s)
{
	uint8_t bytes[16 + CHP_RECORD_BYTES_MAX];
	const uint32_t value_len = s->value_len;

	memcpy(bytes, &s->version, 8);
	memcpy(bytes + 8, &value_len, 4);
	bytes[12] = s->key_len;
	bytes[13] = (uint8_t)(s->flags & CHP_SLOT_VERSION_FLAGS);
	bytes[14] = 0;
	bytes[15] = 0;
	chp_cache_key(c, s, bytes + 16);
	chp_cache_value(c, s, bytes + 16 + s->key_len);
	return chp_hash64(bytes, 16 + (uint64_t)s->key_len + s->value_len, 0);
}

uint64_t
chp_cache_state_digest(const struct chp_cache *c)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < c->slots; i++) {
		const struct chp_slot *s = &c->slot[i];
		const bool is_known_absent = s->version == 0 && (s->flags & CHP_SLOT_TOMBSTONE) != 0;

		if ((s->flags & (CHP_SLOT_USED | CHP_SLOT_FORGET)) == CHP_SLOT_USED && !is_known_absent)
			sum += slot_digest(c, s);
	}
	return sum;
}

/* Assert one slot in use; returns its blocks. */
static uint32_t
check_slot(const struct chp_cache *c, const struct chp_slot *s)
{
	uint8_t bytes[CHP_KEY_BYTES_MAX];
	uint32_t need = record_blocks(s->key_len, s->value_len);
	uint32_t met;

	CHP_ASSERT_OP(s->key_len, >=, 1);
	CHP_ASSERT_OP(s->key_len, <=, CHP_KEY_BYTES_MAX);
	CHP_ASSERT_OP(s->value_len, <=, CHP_VALUE_BYTES_MAX);
	CHP_ASSERT_OP((s->flags & CHP_SLOT_EXTERNAL) != 0, ==, need > 0);
	if (need > 0)
		CHP_ASSERT_OP(chp_blocks_length(&c->blocks, slot_block(s)), ==, need);

	chp_cache_key(c, s, bytes);
	struct chp_key key = {
		.bytes = bytes,
		.len = s->key_len,
		.session = (s->flags & CHP_SLOT_SESSION) != 0,
	};

	key.digest = chp_cache_digest(c, bytes, key.len, key.session);
	CHP_ASSERT(find_from(c, &key, position(c, &key.digest), &met) == s);
	return need;
}

void
chp_cache_check(const struct chp_cache *c)
{
	uint32_t keys = 0, tombstones = 0, session_tombstones = 0, sessions = 0;
	const uint16_t gone = CHP_SLOT_SESSION | CHP_SLOT_TOMBSTONE;
	uint64_t blocks = 0;

	for (uint32_t i = 0; i < c->slots; i++) {
		const struct chp_slot *s = &c->slot[i];

		if (!(s->flags & CHP_SLOT_USED)) {
			CHP_ASSERT_OP(s->flags, ==, 0);
			continue;
		}
		keys++;
		tombstones += (s->flags & CHP_SLOT_TOMBSTONE) != 0;
		session_tombstones += (s->flags & gone) == gone;
		sessions += (s->flags & CHP_SLOT_SESSION) != 0;
		blocks += check_slot(c, s);
	}
	CHP_ASSERT_OP(keys, ==, c->keys);
	CHP_ASSERT_OP(tombstones, ==, c->tombstones);
	CHP_ASSERT_OP(session_tombstones, ==, c->session_tombstones);
	CHP_ASSERT_OP(sessions, ==, c->sessions);
	CHP_ASSERT_OP(blocks, ==, c->blocks.n - c->blocks.n_free);
	chp_blocks_check(&c->blocks);
}
