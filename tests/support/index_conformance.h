/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * index_conformance.h - what every implementation of cache/index.h must do.
 */
#ifndef CHP_TESTS_INDEX_CONFORMANCE_H
#define CHP_TESTS_INDEX_CONFORMANCE_H

#include "base/bytes.h"
#include "base/digest.h"
#include "base/limits.h"
#include "base/random.h"
#include "cache/index.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

/* How digests are made from numbers: the last kinds all meet in one bucket. */
enum digest_kind {
	DIGEST_UNIFORM,
	DIGEST_LOW_BITS_EQUAL, /* rte_hash's whole signature */
	DIGEST_HIGH_ONLY,      /* lo is equal, hi counts: number 0 is the zero digest */
	DIGEST_KINDS
};

static inline struct chp_digest
index_digest(enum digest_kind kind, uint64_t number)
{
	struct chp_digest d = chp_digest_of(&number, sizeof(number), 7);

	if (kind == DIGEST_LOW_BITS_EQUAL)
		d.lo = d.lo << 32 | 0x1234abcd;
	else if (kind == DIGEST_HIGH_ONLY)
		d = (struct chp_digest){ .lo = 0, .hi = number };
	return d;
}

/* Assert that numbers [0, n) are found where pos says, -1 being absent; in batches of `batch`. */
static inline void
index_expect(const struct chp_index *x, enum digest_kind kind, const int32_t *pos, uint32_t n,
	     uint32_t batch)
{
	struct chp_digest d[CHP_BATCH_MAX];
	int32_t found[CHP_BATCH_MAX];

	for (uint32_t at = 0; at < n; at += batch) {
		uint32_t take = chp_min_u32(batch, n - at);

		for (uint32_t i = 0; i < take; i++)
			d[i] = index_digest(kind, at + i);
		chp_index_lookup(x, d, take, found);
		for (uint32_t i = 0; i < take; i++)
			cr_assert_eq(found[i], pos[at + i], "number %u: %d, not %d", at + i,
				     found[i], pos[at + i]);
	}
}

/* Fill to the last entry, look up, empty, fill again: positions are 0..entries-1, each once. */
static inline void
index_fill(const char *name, enum digest_kind kind, uint32_t entries)
{
	int err = 0;
	struct chp_index *x = chp_index_create(name, entries, &err);
	int32_t *pos = malloc(2 * (size_t)entries * sizeof(*pos));
	uint8_t *taken = malloc(entries);

	cr_assert_not_null(x);
	cr_assert(pos != NULL && taken != NULL);
	for (int round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < 2 * entries; i++)
			pos[i] = -1;
		for (uint32_t i = 0; i < entries; i++)
			taken[i] = 0;
		index_expect(x, kind, pos, 2 * entries, 64);
		for (uint32_t i = 0; i < entries; i++) {
			struct chp_digest d = index_digest(kind, i);
			uint32_t p = chp_index_insert(x, &d);

			cr_assert_lt(p, entries);
			cr_assert_eq(taken[p], 0, "position %u twice", p);
			taken[p] = 1;
			pos[i] = (int32_t)p;
		}
		index_expect(x, kind, pos, 2 * entries, 64);
		index_expect(x, kind, pos, chp_min_u32(2 * entries, 100), 1);
		index_expect(x, kind, pos, chp_min_u32(2 * entries, 1000), 7);
		for (uint32_t i = 0; i < entries; i++) {
			struct chp_digest d = index_digest(kind, (i * 7 + 3) % entries);

			chp_index_remove(x, &d);
		}
	}
	free(taken);
	free(pos);
	chp_index_destroy(x);
}

/* Insert and remove at random around fillings that drift from empty to full and back. */
static inline void
index_churn(const char *name, enum digest_kind kind, uint32_t entries, uint32_t steps,
	    uint64_t seed)
{
	int err = 0;
	struct chp_index *x = chp_index_create(name, entries, &err);
	uint32_t numbers = entries + entries / 2;
	int32_t *pos = malloc(numbers * sizeof(*pos));
	uint32_t *holder = calloc(entries, sizeof(*holder));
	struct chp_random r = { seed };
	uint32_t held = 0, times_full = 0;

	cr_assert_not_null(x);
	cr_assert(pos != NULL && holder != NULL);
	for (uint32_t i = 0; i < numbers; i++)
		pos[i] = -1;
	for (uint32_t step = 0; step < steps; step++) {
		uint32_t i = (uint32_t)chp_random_below(&r, numbers);
		struct chp_digest d = index_digest(kind, i);
		bool growing = step / (4 * numbers) % 2 == 0;
		bool insert = chp_random_chance(&r, growing ? 900000 : 100000);

		if (pos[i] < 0 && held < entries && insert) {
			uint32_t p = chp_index_insert(x, &d);

			cr_assert_lt(p, entries);
			cr_assert_eq(holder[p], 0, "position %u is still %u's", p, holder[p] - 1);
			holder[p] = i + 1;
			pos[i] = (int32_t)p;
			times_full += ++held == entries;
		} else if (pos[i] >= 0 && !insert) {
			chp_index_remove(x, &d);
			holder[pos[i]] = 0;
			pos[i] = -1;
			held--;
		}
		if (step % numbers == 0)
			index_expect(x, kind, pos, numbers, 64);
	}
	index_expect(x, kind, pos, numbers, 33);
	cr_assert_gt(times_full, 0, "the index was never full");
	free(holder);
	free(pos);
	chp_index_destroy(x);
}

static inline void
index_refusals(void)
{
	int err = 0;

	cr_assert_null(chp_index_create("small", CHP_INDEX_ENTRIES_MIN - 1, &err));
	cr_assert_eq(err, -EINVAL);
	err = 0;
	cr_assert_null(chp_index_create("large", 2 * CHP_KEYS_MAX + 1, &err));
	cr_assert_eq(err, -EINVAL);
	err = 0;
	cr_assert_null(chp_index_create("a-name-of-21-letters.", 8, &err));
	cr_assert_eq(err, -EINVAL);

	struct chp_index *x = chp_index_create("a-name-of-20-letters", CHP_INDEX_ENTRIES_MIN, &err);

	cr_assert_not_null(x);
	chp_index_lookup(x, NULL, 0, NULL);
	chp_index_destroy(x);
	chp_index_destroy(NULL);
}

#endif /* CHP_TESTS_INDEX_CONFORMANCE_H */
