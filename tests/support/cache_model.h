/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cache_model.h - random operations on a data cache and on an array of plain structures, compared.
 */
#ifndef CHP_TESTS_CACHE_MODEL_H
#define CHP_TESTS_CACHE_MODEL_H

#include "base/bytes.h"
#include "base/random.h"
#include "cache/cache.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_MODEL_KEYS 256u
#define CACHE_MODEL_SEED UINT64_C(99)

struct cache_model_key {
	uint8_t bytes[CHP_KEY_BYTES_MAX];
	uint8_t value[CHP_VALUE_BYTES_MAX];
	uint64_t version;
	uint32_t len;
	uint32_t value_len;
	uint8_t version_flags;
	bool session;
	bool present;
};

struct cache_model {
	struct cache_model_key key[CACHE_MODEL_KEYS];
	struct chp_cache *cache;
	struct chp_random random;
	uint32_t keys, tombstones, sessions;
	uint32_t refused_keys, refused_values;
};

/* Keys of all sizes about the limits; each 8th is a session number with a client key's bytes. */
static inline void
cache_model_init(struct cache_model *m, const char *name, uint32_t keys_max, uint32_t blocks,
		 uint64_t seed)
{
	static const uint8_t lens[] = { 2, 8, 8, 8, 16, 39, 40, 41, 120, 121, 249, 250 };
	struct chp_cache_config config = {
		.name = name,
		.keys_max = keys_max,
		.value_blocks_max = blocks,
		.headroom = 4,
		.seed = CACHE_MODEL_SEED,
		.memory = &chp_memory_libc,
	};
	int err = 0;

	memset(m, 0, sizeof(*m));
	m->random.state = seed;
	m->cache = chp_cache_create(&config, &err);
	cr_assert_not_null(m->cache);
	for (uint32_t i = 0; i < CACHE_MODEL_KEYS; i++) {
		struct cache_model_key *k = &m->key[i];

		k->session = i % 8 == 1;
		k->len = k->session ? 8 : lens[chp_random_below(&m->random, sizeof(lens))];
		if (i % 8 == 0)
			k->len = 8;
		for (uint32_t b = 2; b < k->len; b++)
			k->bytes[b] = (uint8_t)chp_random_u64(&m->random);
		k->bytes[0] = (uint8_t)i;
		k->bytes[1] = (uint8_t)(i >> 8);
		if (k->session)
			memcpy(k->bytes, m->key[i - 1].bytes, 8);
	}
}

static inline struct chp_key
cache_model_key(const struct cache_model *m, const struct cache_model_key *k)
{
	return (struct chp_key){
		.bytes = k->bytes,
		.len = k->len,
		.session = k->session,
		.pos = -1,
		.digest = chp_cache_digest(m->cache, k->bytes, k->len, k->session),
	};
}

/* Assert that a key is in the cache as it is in the model. */
static inline void
cache_model_expect(struct cache_model *m, const struct cache_model_key *k,
		   const struct chp_key *key)
{
	struct chp_slot *s = chp_cache_find(m->cache, key);
	uint8_t bytes[CHP_RECORD_BYTES_MAX];

	cr_assert_eq(s != NULL, k->present);
	if (s == NULL)
		return;
	cr_assert_eq(s->version, k->version);
	cr_assert_eq(s->key_len, k->len);
	cr_assert_eq(s->value_len, k->value_len);
	cr_assert_eq(s->flags & CHP_SLOT_VERSION_FLAGS, k->version_flags);
	chp_cache_key(m->cache, s, bytes);
	cr_assert_arr_eq(bytes, k->bytes, k->len);
	chp_cache_value(m->cache, s, bytes);
	cr_assert_arr_eq(bytes, k->value, k->value_len);
}

static inline void
cache_model_set(struct cache_model *m, struct cache_model_key *k)
{
	struct chp_key key = cache_model_key(m, k);
	const uint32_t lens[] = { 0, 1, 32, k->len < 40 ? 40 - k->len : 0,
				  k->len < 41 ? 41 - k->len : 1, CHP_VALUE_BYTES_MAX,
				  (uint32_t)chp_random_below(&m->random, CHP_VALUE_BYTES_MAX + 1) };
	uint32_t len = lens[chp_random_below(&m->random, CHP_ARRAY_LEN(lens))];
	uint8_t flags = k->session ? CHP_SLOT_SESSION : 0;

	if (chp_random_chance(&m->random, 200000)) {
		flags |= CHP_SLOT_TOMBSTONE;
		len = 0;
	}
	flags |= chp_random_chance(&m->random, 300000) ? CHP_SLOT_RMW : 0;
	if (!chp_cache_admits(m->cache, k->len, len, !k->present)) {
		if (!k->present)
			m->refused_keys++;
		else
			m->refused_values++;
		return;
	}
	struct chp_slot *s = k->present ? chp_cache_find(m->cache, &key) :
					  chp_cache_insert(m->cache, &key);

	for (uint32_t i = 0; i < len; i++)
		k->value[i] = (uint8_t)chp_random_u64(&m->random);
	m->keys += !k->present;
	m->sessions += !k->present && k->session;
	m->tombstones -= (k->version_flags & CHP_SLOT_TOMBSTONE) != 0;
	m->tombstones += (flags & CHP_SLOT_TOMBSTONE) != 0;
	k->present = true;
	k->value_len = len;
	k->version_flags = flags;
	k->version++;
	s->version = k->version;
	chp_cache_set(m->cache, s, k->value, len, flags);
}

/* Look up a batch of random keys, some twice. */
static inline void
cache_model_bulk(struct cache_model *m)
{
	struct cache_model_key *of[CHP_BATCH_MAX];
	struct chp_key key[CHP_BATCH_MAX];
	struct chp_key *keys[CHP_BATCH_MAX];
	uint32_t n = (uint32_t)chp_random_range(&m->random, 1, CHP_BATCH_MAX);

	for (uint32_t i = 0; i < n; i++) {
		of[i] = &m->key[chp_random_below(&m->random, CACHE_MODEL_KEYS)];
		key[i] = cache_model_key(m, of[i]);
		key[i].pos = 12345678; /* whatever was there before */
		keys[i] = &key[i];
	}
	chp_cache_find_bulk(m->cache, keys, n);
	for (uint32_t i = 0; i < n; i++) {
		cr_assert_eq(key[i].pos >= 0, of[i]->present);
		cache_model_expect(m, of[i], &key[i]);
	}
}

static inline void
cache_model_expect_stats(struct cache_model *m)
{
	struct chp_cache_stats stats;
	uint64_t blocks = 0;

	for (uint32_t i = 0; i < CACHE_MODEL_KEYS; i++) {
		uint32_t len = m->key[i].len + m->key[i].value_len;

		if (m->key[i].present && len > CHP_SLOT_INLINE)
			blocks += chp_blocks_for(len);
	}
	chp_cache_stats(m->cache, &stats);
	cr_assert_eq(stats.keys, m->keys);
	cr_assert_eq(stats.tombstones, m->tombstones);
	cr_assert_eq(stats.sessions, m->sessions);
	cr_assert_eq(stats.blocks, blocks);
	cr_assert_eq(stats.collisions, 0);
	chp_cache_check(m->cache);
}

/* A cache with the same contents, put in another order, has the same digest; and only that. */
static inline void
cache_model_expect_digest(struct cache_model *m, const char *name)
{
	struct cache_model *other = malloc(sizeof(*other));
	uint64_t digest = chp_cache_state_digest(m->cache);
	struct chp_slot *last = NULL;

	cr_assert_not_null(other);
	cache_model_init(other, name, CACHE_MODEL_KEYS, 11 * CACHE_MODEL_KEYS, 1);
	for (uint32_t i = CACHE_MODEL_KEYS; i-- > 0;) {
		const struct cache_model_key *k = &m->key[i];
		struct chp_key key = cache_model_key(m, k);

		if (!k->present)
			continue;
		cr_assert_neq(chp_cache_state_digest(other->cache), digest);
		last = chp_cache_insert(other->cache, &key);
		last->version = k->version;
		chp_cache_set(other->cache, last, k->value, k->value_len, k->version_flags);
	}
	cr_assert_eq(chp_cache_state_digest(other->cache), digest);
	cr_assert_not_null(last);
	last->version++;
	cr_assert_neq(chp_cache_state_digest(other->cache), digest);
	chp_cache_destroy(other->cache);
	free(other);
}

/* Run `steps` random operations. keys_max below CACHE_MODEL_KEYS and few blocks make it full. */
static inline void
cache_model_run(const char *name, uint32_t keys_max, uint32_t blocks, uint32_t steps, uint64_t seed)
{
	struct cache_model *m = malloc(sizeof(*m));

	cr_assert_not_null(m);
	cache_model_init(m, name, keys_max, blocks, seed);
	for (uint32_t step = 0; step < steps; step++) {
		struct cache_model_key *k =
			&m->key[chp_random_below(&m->random, CACHE_MODEL_KEYS)];
		struct chp_key key = cache_model_key(m, k);

		if (chp_random_chance(&m->random, 600000))
			cache_model_set(m, k);
		cache_model_expect(m, k, &key);
		if (step % 16 == 0)
			cache_model_bulk(m);
		if (step % 200 == 0)
			cache_model_expect_stats(m);
	}
	cache_model_expect_stats(m);
	cr_assert_eq(m->refused_keys > 0, keys_max < CACHE_MODEL_KEYS);
	cr_assert_eq(m->refused_values > 0, blocks < CACHE_MODEL_KEYS);
	cache_model_expect_digest(m, "model-digest");
	chp_cache_destroy(m->cache);
	free(m);
}

#endif /* CHP_TESTS_CACHE_MODEL_H */
