/* SPDX-License-Identifier: BSD-3-Clause */
#include "cache/cache.h"
#include "../support/cache_model.h"
#include "../support/index_conformance.h"
#include "../support/short_memory.h"
#include "../support/twin.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#define SEED UINT64_C(3)

static struct chp_cache *
cache_of(uint32_t keys_max, uint32_t blocks, uint32_t headroom)
{
	struct chp_cache_config config = {
		.name = "test",
		.keys_max = keys_max,
		.value_blocks_max = blocks,
		.headroom = headroom,
		.seed = SEED,
		.memory = &chp_memory_libc,
	};
	int err = 0;
	struct chp_cache *c = chp_cache_create(&config, &err);

	cr_assert_not_null(c);
	return c;
}

static struct chp_key
key_of(const struct chp_cache *c, const void *bytes, uint32_t len)
{
	return (struct chp_key){
		.bytes = bytes,
		.len = len,
		.pos = -1,
		.digest = chp_cache_digest(c, bytes, len, false),
	};
}

static struct chp_key
session_key(const struct chp_cache *c, const uint64_t *id)
{
	const uint8_t *bytes = (const uint8_t *)id;

	return (struct chp_key){
		.bytes = bytes,
		.len = sizeof(*id),
		.session = true,
		.pos = -1,
		.digest = chp_cache_digest(c, bytes, sizeof(*id), true),
	};
}

static struct chp_cache_stats
stats_of(const struct chp_cache *c)
{
	struct chp_cache_stats stats;

	chp_cache_stats(c, &stats);
	return stats;
}

static void
expect_value(const struct chp_cache *c, const struct chp_slot *s, const void *value, uint32_t len)
{
	uint8_t out[CHP_VALUE_BYTES_MAX];

	cr_assert_eq(s->value_len, len);
	chp_cache_value(c, s, out);
	cr_assert_arr_eq(out, value, len);
}

Test(cache, a_new_key_is_empty_and_found)
{
	struct chp_cache *c = cache_of(10, 10, 1);
	struct chp_key key = key_of(c, "apple", 5);
	struct chp_key other = key_of(c, "appl", 4);

	cr_assert_null(chp_cache_find(c, &key));
	struct chp_slot *s = chp_cache_insert(c, &key);

	cr_assert_eq(s->version, 0);
	cr_assert_eq(s->busy, CHP_SLOT_NO_BUSY);
	cr_assert_eq(s->state, 0);
	cr_assert_eq(s->value_len, 0);
	cr_assert_eq(s->flags, CHP_SLOT_USED);
	cr_assert_eq((uintptr_t)s % CHP_CACHE_LINE, 0);
	cr_assert_eq(chp_cache_find(c, &key), s);
	cr_assert_null(chp_cache_find(c, &other));
	expect_value(c, s, "", 0);
	chp_cache_check(c);
	chp_cache_destroy(c);
}

Test(cache, slots_have_indices)
{
	struct chp_cache *c = cache_of(10, 10, 1);
	struct chp_key key = key_of(c, "k", 1);

	cr_assert_eq(chp_cache_slots(c), 10 + CHP_HEADROOMS);
	for (uint32_t i = 0; i < chp_cache_slots(c); i++)
		cr_assert_null(chp_cache_slot(c, i));
	struct chp_slot *s = chp_cache_insert(c, &key);
	uint32_t used = 0;

	for (uint32_t i = 0; i < chp_cache_slots(c); i++) {
		if (chp_cache_slot(c, i) == NULL)
			continue;
		used++;
		cr_assert_eq(chp_cache_slot(c, i), s);
		cr_assert_eq(chp_cache_slot_index(c, s), i);
	}
	cr_assert_eq(used, 1);
	chp_cache_destroy(c);
}

/* Key and value together: 40 bytes are in the slot, 41 are in a block. */
Test(cache, the_inline_limit)
{
	struct chp_cache *c = cache_of(10, 10, 1);
	struct chp_key key = key_of(c, "12345678", 8);
	struct chp_slot *s = chp_cache_insert(c, &key);
	uint8_t value[33], out[8];

	memset(value, 'v', sizeof(value));
	for (int round = 0; round < 3; round++) {
		chp_cache_set(c, s, value, 32, 0);
		cr_assert_eq(s->flags & CHP_SLOT_EXTERNAL, 0);
		cr_assert_eq(stats_of(c).blocks, 0);
		expect_value(c, s, value, 32);
		chp_cache_set(c, s, value, 33, 0);
		cr_assert_neq(s->flags & CHP_SLOT_EXTERNAL, 0);
		cr_assert_eq(stats_of(c).blocks, 1);
		expect_value(c, s, value, 33);
		chp_cache_key(c, s, out);
		cr_assert_arr_eq(out, "12345678", 8);
		cr_assert_eq(chp_cache_find(c, &key), s);
		chp_cache_check(c);
	}
	chp_cache_destroy(c);
}

Test(cache, long_keys_and_long_values)
{
	struct chp_cache *c = cache_of(10, 100, 1);
	uint8_t bytes[CHP_KEY_BYTES_MAX], value[CHP_VALUE_BYTES_MAX], out[CHP_KEY_BYTES_MAX];
	const uint32_t lens[] = { 1, 39, 40, 41, 120, 121, 240, 241, 249, 250 };

	for (uint32_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)i;
	for (uint32_t i = 0; i < sizeof(value); i++)
		value[i] = (uint8_t)(i * 3);
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(lens); i++) {
		struct chp_key key = key_of(c, bytes, lens[i]);
		struct chp_slot *s = chp_cache_insert(c, &key);

		cr_assert_eq((s->flags & CHP_SLOT_EXTERNAL) != 0, lens[i] > CHP_SLOT_INLINE);
		chp_cache_key(c, s, out);
		cr_assert_arr_eq(out, bytes, lens[i]);
		chp_cache_set(c, s, value, sizeof(value), 0);
		expect_value(c, s, value, sizeof(value));
		chp_cache_key(c, s, out);
		cr_assert_arr_eq(out, bytes, lens[i]);
		chp_cache_set(c, s, NULL, 0, CHP_SLOT_TOMBSTONE);
		expect_value(c, s, "", 0);
		cr_assert_eq((s->flags & CHP_SLOT_EXTERNAL) != 0, lens[i] > CHP_SLOT_INLINE);
		cr_assert_eq(chp_cache_find(c, &key), s);
		chp_cache_check(c);
	}
	cr_assert_eq(stats_of(c).keys, CHP_ARRAY_LEN(lens));
	cr_assert_eq(stats_of(c).tombstones, CHP_ARRAY_LEN(lens));
	chp_cache_destroy(c);
}

Test(cache, version_flags_are_replaced_and_others_stay)
{
	struct chp_cache *c = cache_of(10, 10, 1);
	struct chp_key key = key_of(c, "k", 1);
	struct chp_slot *s = chp_cache_insert(c, &key);

	s->flags |= CHP_SLOT_BASE_ABSENT;
	chp_cache_set(c, s, NULL, 0, CHP_SLOT_TOMBSTONE | CHP_SLOT_RMW);
	cr_assert_eq(s->flags,
		     CHP_SLOT_USED | CHP_SLOT_BASE_ABSENT | CHP_SLOT_TOMBSTONE | CHP_SLOT_RMW | CHP_SLOT_REFERENCED);
	cr_assert_eq(stats_of(c).tombstones, 1);
	chp_cache_set(c, s, NULL, 0, CHP_SLOT_TOMBSTONE);
	cr_assert_eq(stats_of(c).tombstones, 1);
	chp_cache_set(c, s, (const uint8_t *)"v", 1, CHP_SLOT_BASE_UNKNOWN);
	cr_assert_eq(s->flags, CHP_SLOT_USED | CHP_SLOT_BASE_ABSENT | CHP_SLOT_BASE_UNKNOWN | CHP_SLOT_REFERENCED);
	cr_assert_eq(stats_of(c).tombstones, 0);
	chp_cache_check(c);
	chp_cache_destroy(c);
}

Test(cache, session_numbers_are_not_clients_keys)
{
	struct chp_cache *c = cache_of(10, 10, 1);
	uint64_t id = 77;
	struct chp_key session = session_key(c, &id);
	struct chp_key key = key_of(c, &id, sizeof(id));
	struct chp_digest plain = chp_digest_of(&id, sizeof(id), SEED);

	/* Clients compute their digests with the seed itself. */
	cr_assert(key.digest.lo == plain.lo && key.digest.hi == plain.hi);
	cr_assert(session.digest.lo != plain.lo);
	struct chp_slot *a = chp_cache_insert(c, &session);

	cr_assert_null(chp_cache_find(c, &key));
	/* Not even when the digests are the same. */
	struct chp_key forged = key;

	forged.digest = session.digest;
	cr_assert_null(chp_cache_find(c, &forged));
	struct chp_slot *b = chp_cache_insert(c, &key);

	cr_assert_neq(a, b);
	cr_assert_eq(chp_cache_find(c, &session), a);
	cr_assert_eq(chp_cache_find(c, &key), b);
	cr_assert_eq(stats_of(c).keys, 2);
	cr_assert_eq(stats_of(c).sessions, 1);
	chp_cache_set(c, a, NULL, 0, CHP_SLOT_SESSION);
	chp_cache_check(c);
	chp_cache_destroy(c);
}

Test(cache, admission_counts_keys_and_blocks)
{
	struct chp_cache *c = cache_of(2, 3, 1);
	uint8_t value[CHP_VALUE_BYTES_MAX] = { 0 };
	struct chp_key a = key_of(c, "a", 1), b = key_of(c, "b", 1);

	cr_assert(chp_cache_admits(c, 1, 39, true));
	cr_assert(chp_cache_admits(c, 1, 359, true), "three blocks");
	cr_assert_not(chp_cache_admits(c, 1, 360, true), "four blocks");
	struct chp_slot *s = chp_cache_insert(c, &a);

	cr_assert(chp_cache_admits(c, 1, 0, true));
	chp_cache_insert(c, &b);
	cr_assert_not(chp_cache_admits(c, 1, 0, true), "two keys are all");
	cr_assert(chp_cache_admits(c, 1, 359, false));
	chp_cache_set(c, s, value, 200, 0);
	cr_assert(chp_cache_admits(c, 1, 40, false), "the third block");
	cr_assert_not(chp_cache_admits(c, 1, 200, false));
	cr_assert(chp_cache_admits(c, 1, 39, false), "needs no block");
	chp_cache_set(c, s, value, 359, 0);
	cr_assert_not(chp_cache_admits(c, 1, 40, false));
	cr_assert(chp_cache_admits(c, 1, 39, false));
	cr_assert_not(chp_cache_admits(c, 250, 0, false));
	chp_cache_destroy(c);
}

/* CHP_HEADROOMS times the headroom in largest records fits behind a cache that admission calls full. */
Test(cache, headroom_is_there)
{
	struct chp_cache *c = cache_of(16, 40, 8);
	uint8_t bytes[CHP_KEY_BYTES_MAX] = { 0 }, value[CHP_VALUE_BYTES_MAX] = { 0 };
	uint32_t n = 0;

	for (; chp_cache_admits(c, 250, 41, true); n++) {
		bytes[0] = (uint8_t)n;
		struct chp_key key = key_of(c, bytes, 250);

		chp_cache_set(c, chp_cache_insert(c, &key), value, 41, 0);
	}
	cr_assert_eq(n, 13, "of three blocks each, 39 of 40");
	for (; n < 16; n++) {
		struct chp_key key = key_of(c, &n, 4);

		cr_assert(chp_cache_admits(c, 4, 36, true));
		chp_cache_insert(c, &key);
	}
	for (; n < 16 + CHP_HEADROOMS * 8; n++) {
		cr_assert(chp_cache_room(c) > 0);
		bytes[0] = (uint8_t)n;
		struct chp_key key = key_of(c, bytes, 250);

		chp_cache_set(c, chp_cache_insert(c, &key), value, sizeof(value), 0);
	}
	cr_assert_not(chp_cache_room(c) > 0);
	cr_assert_eq(stats_of(c).keys, chp_cache_slots(c));
	cr_assert_eq(stats_of(c).blocks, 39 + CHP_HEADROOMS * 8 * CHP_RECORD_BLOCKS_MAX);
	cr_assert_not(chp_cache_admits(c, 1, 1, true));
	cr_assert(chp_cache_admits(c, 1, 39, false), "needs no block, though there are too many");
	chp_cache_check(c);
	chp_cache_destroy(c);
}

/* What leaves the cache leaves nothing behind: neither slot nor blocks, and it can come again. */
Test(cache, a_removed_key_is_absent_and_can_return)
{
	struct chp_cache *c = cache_of(4, 40, 1);
	uint8_t value[CHP_VALUE_BYTES_MAX] = { 7 };
	struct chp_key a = key_of(c, "a", 1), b = key_of(c, "b", 1);
	struct chp_slot *slot = chp_cache_insert(c, &a), *other = chp_cache_insert(c, &b);

	chp_cache_set(c, slot, value, sizeof(value), 0);
	chp_cache_set(c, slot, NULL, 0, CHP_SLOT_RMW | CHP_SLOT_TOMBSTONE | CHP_SLOT_FORGET);
	cr_assert_eq(chp_cache_tombstones(c), 1);
	cr_assert(chp_cache_remove(c, slot));
	cr_assert_null(chp_cache_find(c, &a));
	cr_assert_eq(chp_cache_find(c, &b), other);
	cr_assert_eq(chp_cache_tombstones(c), 0);
	cr_assert_eq(stats_of(c).keys, 1);
	cr_assert_eq(stats_of(c).blocks, 0);
	slot = chp_cache_insert(c, &a);
	cr_assert_eq(slot->version, 0);
	cr_assert_eq(slot->value_len, 0);
	chp_cache_check(c);
	chp_cache_destroy(c);
}

/* Replicas that have forgotten different keys hold the same state. */
Test(cache, state_digest_does_not_see_what_may_be_forgotten)
{
	struct chp_cache *c = cache_of(4, 4, 1);
	struct chp_key a = key_of(c, "a", 1);
	uint64_t empty = chp_cache_state_digest(c);
	struct chp_slot *slot = chp_cache_insert(c, &a);

	chp_cache_set(c, slot, NULL, 0, CHP_SLOT_TOMBSTONE);
	cr_assert_eq(chp_cache_state_digest(c), empty, "a key that the datastore does not have");
	slot->version = 1;
	cr_assert_neq(chp_cache_state_digest(c), empty);
	chp_cache_set(c, slot, NULL, 0, CHP_SLOT_TOMBSTONE | CHP_SLOT_FORGET);
	cr_assert_eq(chp_cache_state_digest(c), empty);
	chp_cache_destroy(c);
}

Test(cache, is_over_when_it_holds_more_than_it_admits)
{
	struct chp_cache *c = cache_of(2, 4, 2);
	struct chp_key a = key_of(c, "a", 1), b = key_of(c, "b", 1), d = key_of(c, "d", 1);

	chp_cache_insert(c, &a);
	chp_cache_insert(c, &b);
	cr_assert_not(chp_cache_is_over(c));
	chp_cache_insert(c, &d);
	cr_assert(chp_cache_is_over(c));
	chp_cache_destroy(c);
}

/* The batch's look-up goes before its inserts: what an earlier message added must be found. */
Test(cache, bulk_then_insert_then_find)
{
	struct chp_cache *c = cache_of(10, 10, 1);
	struct chp_key a = key_of(c, "a", 1), again = a, b = key_of(c, "b", 1);
	struct chp_key *keys[] = { &a, &again, &b };
	struct chp_slot *slot_b = chp_cache_insert(c, &b);

	chp_cache_find_bulk(c, keys, 3);
	cr_assert_eq(a.pos, -1);
	cr_assert_eq(again.pos, -1);
	cr_assert_eq(b.pos, (int32_t)chp_cache_slot_index(c, slot_b));
	cr_assert_null(chp_cache_find(c, &a));
	struct chp_slot *slot_a = chp_cache_insert(c, &a);

	cr_assert_eq(chp_cache_find(c, &again), slot_a);
	cr_assert_eq(chp_cache_find(c, &b), slot_b);
	chp_cache_find_bulk(c, keys, 0);
	chp_cache_destroy(c);
}

/* Between a batch's look-up and its end keys may leave, come back elsewhere, and others may get their places. */
Test(cache, bulk_then_remove_then_find)
{
	struct chp_cache *c = cache_of(10, 10, 1);
	struct chp_key a = key_of(c, "a", 1), b = key_of(c, "b", 1), old = a, *keys[] = { &a, &old };
	struct chp_slot *place = chp_cache_insert(c, &a);

	chp_cache_find_bulk(c, keys, 2);
	cr_assert(chp_cache_remove(c, place));
	cr_assert_null(chp_cache_find(c, &old), "its place is free");
	cr_assert_eq(chp_cache_insert(c, &b), place, "the index gives free places out again");
	cr_assert_null(chp_cache_find(c, &old), "another key has its place");
	struct chp_slot *now = chp_cache_insert(c, &a);

	cr_assert_neq(now, place);
	cr_assert_eq(chp_cache_find(c, &old), now);
	cr_assert_eq(chp_cache_find(c, &b), place);
	chp_cache_destroy(c);
}

/* Short keys that are given one digest: the caller supplies it. */
Test(cache, keys_of_one_digest_are_told_apart)
{
	struct chp_cache *c = cache_of(40, 100, 1);
	struct chp_digest digest = { .lo = 1, .hi = 2 };
	struct chp_slot *slot[30];
	struct chp_key key[30], *keys[30];
	uint32_t name[30];

	for (uint32_t i = 0; i < 30; i++) {
		name[i] = i;
		key[i] = (struct chp_key){
			.bytes = (const uint8_t *)&name[i],
			.len = 4,
			.pos = -1,
			.digest = digest,
		};
		keys[i] = &key[i];
		cr_assert_null(chp_cache_find(c, &key[i]));
		slot[i] = chp_cache_insert(c, &key[i]);
		chp_cache_set(c, slot[i], key[i].bytes, i % 3 * 2, 0);
	}
	/* All but the first are under their own alternatives: only the first's digest was met. */
	for (uint32_t i = 0; i < 30; i++) {
		cr_assert_eq(chp_cache_find(c, &key[i]), slot[i]);
		cr_assert_eq((slot[i]->flags & CHP_SLOT_COLLIDED) != 0, i == 0);
		expect_value(c, slot[i], key[i].bytes, i % 3 * 2);
	}
	uint64_t met = stats_of(c).collisions;

	chp_cache_find_bulk(c, keys, 30);
	for (uint32_t i = 0; i < 30; i++) {
		cr_assert_eq(key[i].pos, (int32_t)chp_cache_slot_index(c, slot[0]));
		cr_assert_eq(chp_cache_find(c, &key[i]), slot[i]);
	}
	cr_assert_eq(stats_of(c).collisions, met + 29);
	chp_cache_destroy(c);
}

/* A key may be the beginning of another's key and value. */
/* The first of two keys with one digest leads to the second: it must stay, the second may go. */
Test(cache, a_key_that_leads_to_another_is_not_removed)
{
	struct chp_cache *c = cache_of(4, 4, 1);
	struct chp_key a = key_of(c, "a", 1), b = key_of(c, "b", 1);
	struct chp_slot *first = chp_cache_insert(c, &a);

	b.digest = a.digest;
	cr_assert_not_null(chp_cache_insert(c, &b));
	cr_assert_not(chp_cache_remove(c, first));
	cr_assert_eq(chp_cache_find(c, &a), first);
	cr_assert_not_null(chp_cache_find(c, &b));
	chp_cache_destroy(c);
}

Test(cache, a_key_is_not_its_beginning)
{
	struct chp_cache *c = cache_of(40, 100, 1);
	uint8_t bytes[60];
	struct chp_slot *slot[60];

	for (uint32_t i = 0; i < 60; i++)
		bytes[i] = (uint8_t)i;
	for (int pass = 0; pass < 2; pass++) {
		for (uint32_t len = 25; len < 60; len++) {
			struct chp_key key = key_of(c, bytes, len);

			key.digest = (struct chp_digest){ .lo = 1, .hi = 2 };
			if (pass == 1) {
				cr_assert_eq(chp_cache_find(c, &key), slot[len]);
				continue;
			}
			cr_assert_null(chp_cache_find(c, &key));
			slot[len] = chp_cache_insert(c, &key);
			chp_cache_set(c, slot[len], bytes + len, 60 - len, 0);
		}
	}
	chp_cache_destroy(c);
}

#define TWINS 40u

/* Anybody can send such keys: they must not end the process, whatever their number. */
Test(cache, made_collisions_are_survived)
{
	struct chp_cache *c = cache_of(2 * TWINS, 20 * TWINS, 1);
	static uint8_t bytes[TWINS][CHP_KEY_BYTES_MAX];
	struct chp_slot *slot[TWINS];
	uint32_t collided = 0;

	for (uint32_t i = 0; i < TWINS; i++) {
		chp_twin(SEED, i, bytes[i]);
		struct chp_key key = key_of(c, bytes[i], CHP_KEY_BYTES_MAX);

		for (uint32_t j = 0; j < 9; j++) {
			struct chp_digest a = chp_digest_of(bytes[0], CHP_KEY_BYTES_MAX, SEED + j);
			struct chp_digest b = chp_digest_of(bytes[i], CHP_KEY_BYTES_MAX, SEED + j);

			cr_assert(a.lo == b.lo && a.hi == b.hi, "not a collision: %u, %u", i, j);
		}
		cr_assert_null(chp_cache_find(c, &key));
		slot[i] = chp_cache_insert(c, &key);
		chp_cache_set(c, slot[i], (const uint8_t *)&i, sizeof(i), 0);
	}
	for (uint32_t i = 0; i < TWINS; i++) {
		struct chp_key key = key_of(c, bytes[i], CHP_KEY_BYTES_MAX);

		cr_assert_eq(chp_cache_find(c, &key), slot[i]);
		expect_value(c, slot[i], &i, sizeof(i));
		collided += (slot[i]->flags & CHP_SLOT_COLLIDED) != 0;
	}
	cr_assert_geq(collided, 9);
	chp_cache_check(c);
	chp_cache_destroy(c);
}

/* Replicas insert colliding keys in different orders and come to the same digest. */
Test(cache, state_digest_does_not_see_places)
{
	uint8_t bytes[20][CHP_KEY_BYTES_MAX];
	uint64_t digest[2];

	for (uint32_t order = 0; order < 2; order++) {
		struct chp_cache *c = cache_of(40, 400, 4);

		for (uint32_t n = 0; n < 20; n++) {
			uint32_t i = order == 0 ? n : 19 - n;

			chp_twin(SEED, i, bytes[i]);
			struct chp_key key = key_of(c, bytes[i], CHP_KEY_BYTES_MAX);
			struct chp_slot *s = chp_cache_insert(c, &key);

			s->version = i;
			s->state = (uint8_t)order;
			s->busy = order;
			if (order == 1) /* other blocks */
				chp_cache_set(c, s, bytes[i], 200, 0);
			chp_cache_set(c, s, bytes[i], i, 0);
		}
		digest[order] = chp_cache_state_digest(c);
		chp_cache_destroy(c);
	}
	cr_assert_eq(digest[0], digest[1]);
}

Test(cache, state_digest_sees_every_part)
{
	struct chp_cache *c = cache_of(10, 10, 1);
	struct chp_key key = key_of(c, "key", 3);
	uint64_t seen[7];

	seen[0] = chp_cache_state_digest(c);
	struct chp_slot *s = chp_cache_insert(c, &key);

	seen[1] = chp_cache_state_digest(c);
	s->version = 1;
	seen[2] = chp_cache_state_digest(c);
	chp_cache_set(c, s, (const uint8_t *)"v", 1, 0);
	seen[3] = chp_cache_state_digest(c);
	chp_cache_set(c, s, (const uint8_t *)"w", 1, 0);
	seen[4] = chp_cache_state_digest(c);
	chp_cache_set(c, s, (const uint8_t *)"w", 1, CHP_SLOT_RMW);
	seen[5] = chp_cache_state_digest(c);
	chp_cache_set(c, s, (const uint8_t *)"w\0", 2, CHP_SLOT_RMW);
	seen[6] = chp_cache_state_digest(c);
	for (uint32_t i = 0; i < 7; i++) {
		for (uint32_t j = 0; j < i; j++)
			cr_assert_neq(seen[i], seen[j], "%u and %u", i, j);
	}
	/* "ke" + "yw" is not "key" + "w". */
	struct chp_cache *d = cache_of(10, 10, 1);
	struct chp_key shorter = key_of(d, "ke", 2);
	struct chp_slot *t = chp_cache_insert(d, &shorter);

	t->version = 1;
	chp_cache_set(d, t, (const uint8_t *)"yw", 2, 0);
	cr_assert_neq(chp_cache_state_digest(d), seen[4]);
	chp_cache_destroy(c);
	chp_cache_destroy(d);
}

Test(cache, agrees_with_a_model_with_room)
{
	for (uint64_t seed = 1; seed <= 6; seed++)
		cache_model_run("model", CACHE_MODEL_KEYS, 12 * CACHE_MODEL_KEYS, 4000, seed);
}

Test(cache, agrees_with_a_model_when_full)
{
	for (uint64_t seed = 1; seed <= 6; seed++)
		cache_model_run("model", 100, 200, 4000, seed);
}

Test(cache, bad_sizes_are_refused)
{
	const struct chp_cache_config good = {
		.name = "test",
		.keys_max = 100,
		.value_blocks_max = 100,
		.headroom = 1,
		.memory = &chp_memory_libc,
	};
	struct chp_cache_config bad[5] = { good, good, good, good, good };

	bad[0].keys_max = 0;
	bad[1].keys_max = CHP_KEYS_MAX + 1;
	bad[2].value_blocks_max = CHP_BLOCKS_MAX;
	bad[3].headroom = CHP_KEYS_MAX;
	bad[4].name = "a-name-of-21-letters.";
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(bad); i++) {
		int err = 0;

		cr_assert_null(chp_cache_create(&bad[i], &err), "%u", i);
		cr_assert_eq(err, -EINVAL);
	}
	chp_cache_destroy(NULL);
}

Test(cache, a_cache_of_one_key_without_blocks)
{
	struct chp_cache *c = cache_of(1, 0, 0);
	struct chp_key key = key_of(c, "k", 1);

	cr_assert(chp_cache_admits(c, 1, 39, true));
	cr_assert_not(chp_cache_admits(c, 1, 40, true));
	chp_cache_insert(c, &key);
	cr_assert_not(chp_cache_admits(c, 1, 1, true));
	chp_cache_check(c);
	chp_cache_destroy(c);
}

Test(cache, memory_is_as_announced_and_given_back)
{
	struct chp_cache_config config = {
		.name = "test",
		.keys_max = 1000,
		.value_blocks_max = 500,
		.headroom = 10,
		.memory = &short_memory,
	};
	int err = 0;
	int enough;

	for (enough = 0;; enough++) {
		short_memory_left = enough;
		struct chp_cache *c = chp_cache_create(&config, &err);

		if (c != NULL) {
			chp_cache_destroy(c);
			break;
		}
		cr_assert_eq(err, -ENOMEM);
		cr_assert_eq(short_memory_held, 0);
	}
	cr_assert_eq(enough, 3, "the cache, its slots, its blocks");
	cr_assert_eq(short_memory_held, 0);

	short_memory_left = INT_MAX;
	short_memory_bytes = 0;
	chp_cache_destroy(chp_cache_create(&config, &err));
	/* What the index takes comes on top: test_index_rte.c compares that. */
	cr_assert_gt(chp_cache_bytes(&config), short_memory_bytes);
}

Test(cache, one_key_too_many_asserts, .signal = SIGABRT)
{
	struct chp_cache *c = cache_of(8, 0, 0);

	for (uint32_t i = 0; i < 9; i++) {
		struct chp_key key = key_of(c, &i, sizeof(i));

		chp_cache_insert(c, &key);
	}
}

Test(cache, a_key_added_twice_asserts, .signal = SIGABRT)
{
	struct chp_cache *c = cache_of(8, 0, 0);
	struct chp_key key = key_of(c, "k", 1);

	chp_cache_insert(c, &key);
	chp_cache_insert(c, &key);
}

Test(cache, a_key_keeps_its_name_space, .signal = SIGABRT)
{
	struct chp_cache *c = cache_of(8, 0, 0);
	struct chp_key key = key_of(c, "k", 1);

	chp_cache_set(c, chp_cache_insert(c, &key), NULL, 0, CHP_SLOT_SESSION);
}

Test(cache, a_wrong_count_is_found_by_check, .signal = SIGABRT)
{
	struct chp_cache *c = cache_of(8, 0, 0);
	struct chp_key key = key_of(c, "k", 1);

	chp_cache_insert(c, &key)->flags |= CHP_SLOT_TOMBSTONE;
	chp_cache_check(c);
}

Test(index, fills_to_the_last_entry)
{
	for (enum digest_kind kind = 0; kind < DIGEST_KINDS; kind++) {
		index_fill("fill", kind, 8);
		index_fill("fill", kind, 100);
		index_fill("fill", kind, kind == DIGEST_UNIFORM ? 10000 : 513);
	}
}

Test(index, churns)
{
	for (enum digest_kind kind = 0; kind < DIGEST_KINDS; kind++) {
		index_churn("churn", kind, 8, 2000, 1);
		index_churn("churn", kind, 300, 20000, 2);
	}
}

Test(index, refuses_bad_sizes)
{
	index_refusals();
}

/* ------------------------------------------------------------------ eviction */

static bool
may_leave(const void *arg, const struct chp_slot *s)
{
	const uint64_t *durable = arg;

	return s->version <= *durable;
}

Test(cache, the_clock_gives_a_second_chance_and_passes_by_what_must_stay)
{
	struct chp_cache *c = cache_of(10, 10, 1);
	struct chp_key used = key_of(c, "used", 4), idle = key_of(c, "idle", 4), dirty = key_of(c, "dirty", 5);
	struct chp_slot *s[3] = { chp_cache_insert(c, &used), chp_cache_insert(c, &idle), chp_cache_insert(c, &dirty) };
	const uint64_t durable = 4;
	struct chp_slot *v;

	s[0]->version = 3;
	s[1]->version = 4;
	s[2]->version = 5;
	chp_cache_touch(s[0]);
	cr_assert_eq(chp_cache_victim(c, chp_cache_slots(c), may_leave, &durable), s[1]);
	cr_assert(chp_cache_remove(c, s[1]));
	chp_cache_check(c);
	/* Not used again, it goes in the turn that finds its chance used up. */
	v = chp_cache_victim(c, 2 * chp_cache_slots(c), may_leave, &durable);
	cr_assert_eq(v, s[0]);
	s[0]->busy = 7;
	cr_assert_null(chp_cache_victim(c, 2 * chp_cache_slots(c), may_leave, &durable));
	s[0]->busy = CHP_SLOT_NO_BUSY;
	cr_assert_eq(stats_of(c).pinned, 2);
	cr_assert_eq(stats_of(c).evictions, 2);
	cr_assert_null(chp_cache_victim(c, 0, may_leave, &durable));
	chp_cache_destroy(c);
}

/* A cache of one key, with one that must stay. */
Test(cache, it_is_stuck_when_the_clock_went_round_and_none_could_leave)
{
	struct chp_cache *c = cache_of(1, 10, 1);
	struct chp_key key = key_of(c, "dirty", 5);
	const uint64_t none = 0, all = 9;
	uint32_t slots = chp_cache_slots(c);
	struct chp_slot *s;

	cr_assert_null(chp_cache_victim(c, slots, may_leave, &none));
	cr_assert_not(chp_cache_is_stuck(c), "there is room");
	s = chp_cache_insert(c, &key);
	s->version = 5;
	cr_assert_eq(chp_cache_victim(c, slots, may_leave, &all), s);
	cr_assert_null(chp_cache_victim(c, slots - 1, may_leave, &none));
	cr_assert_not(chp_cache_is_stuck(c), "one was not looked at");
	cr_assert_null(chp_cache_victim(c, 1, may_leave, &none));
	cr_assert(chp_cache_is_stuck(c));
	cr_assert_null(chp_cache_victim(c, UINT32_MAX / 2, may_leave, &none));
	cr_assert(chp_cache_is_stuck(c), "nor is it ever less");
	cr_assert_eq(chp_cache_victim(c, slots, may_leave, &all), s);
	cr_assert_not(chp_cache_is_stuck(c), "one may leave");
	cr_assert_null(chp_cache_victim(c, slots, may_leave, &none));
	cr_assert(chp_cache_remove(c, s));
	cr_assert_not(chp_cache_is_stuck(c), "there is room again");
	chp_cache_destroy(c);
}

Test(cache, sessions_never_leave_and_their_ends_are_counted_apart)
{
	struct chp_cache *c = cache_of(10, 10, 1);
	struct chp_key id = key_of(c, "12345678", 8), key = key_of(c, "gone", 4);
	const uint64_t durable = UINT64_MAX;
	struct chp_slot *s;

	id.session = true;
	id.digest = chp_cache_digest(c, id.bytes, id.len, true);
	s = chp_cache_insert(c, &id);
	chp_cache_set(c, s, NULL, 0, CHP_SLOT_SESSION | CHP_SLOT_TOMBSTONE);
	s = chp_cache_insert(c, &key);
	chp_cache_set(c, s, NULL, 0, CHP_SLOT_TOMBSTONE);
	cr_assert_eq(chp_cache_tombstones(c), 2);
	cr_assert_eq(chp_cache_session_tombstones(c), 1);
	cr_assert_eq(chp_cache_victim(c, chp_cache_slots(c), may_leave, &durable), s, "used, as all that may leave");
	cr_assert(chp_cache_remove(c, s));
	cr_assert_null(chp_cache_victim(c, 3 * chp_cache_slots(c), may_leave, &durable));
	chp_cache_check(c);
	chp_cache_destroy(c);
}
