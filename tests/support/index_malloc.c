/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * index_malloc.c - the index of the data cache on plain memory, for sanitizers, fuzzers and tests.
 *
 * Open addressing with linear probing over twice as many buckets as entries, deletion by shifting
 * back. Positions are handed out from the last to the first, the last freed first: unlike
 * rte_hash's, so that nothing comes to depend on them.
 */
#include "base/assert.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "cache/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct chp_index {
	struct chp_digest *digest; /* by position */
	uint32_t *free;            /* positions, the next one last */
	uint32_t *bucket;          /* position + 1, 0 = empty */
	uint32_t n_free;
	uint32_t mask;
};

struct chp_index *
chp_index_create(const char *name, uint32_t entries, int *err)
{
	if (strlen(name) > CHP_INDEX_NAME_MAX || entries < CHP_INDEX_ENTRIES_MIN ||
	    entries > 2 * CHP_KEYS_MAX) {
		*err = -EINVAL;
		return NULL;
	}
	uint32_t buckets = 2 * chp_pow2_up(entries);
	struct chp_index *x = calloc(1, sizeof(*x));

	if (x != NULL) {
		x->digest = calloc(entries, sizeof(*x->digest));
		x->free = calloc(entries, sizeof(*x->free));
		x->bucket = calloc(buckets, sizeof(*x->bucket));
	}
	if (x == NULL || x->digest == NULL || x->free == NULL || x->bucket == NULL) {
		chp_index_destroy(x);
		*err = -ENOMEM;
		return NULL;
	}
	x->mask = buckets - 1;
	x->n_free = entries;
	for (uint32_t i = 0; i < entries; i++)
		x->free[i] = i;
	return x;
}

void
chp_index_destroy(struct chp_index *x)
{
	if (x == NULL)
		return;
	free(x->digest);
	free(x->free);
	free(x->bucket);
	free(x);
}

static uint32_t
home(const struct chp_index *x, const struct chp_digest *d)
{
	return (uint32_t)d->lo & x->mask;
}

/* The bucket of a digest, or the empty one where it would be. Half of all buckets are empty. */
static uint32_t
find(const struct chp_index *x, const struct chp_digest *d)
{
	uint32_t b = home(x, d);

	for (; x->bucket[b] != 0; b = (b + 1) & x->mask) {
		const struct chp_digest *held = &x->digest[x->bucket[b] - 1];

		if (held->lo == d->lo && held->hi == d->hi)
			break;
	}
	return b;
}

void
chp_index_lookup(const struct chp_index *x, const struct chp_digest *d, uint32_t n, int32_t *pos)
{
	CHP_ASSERT_OP(n, <=, CHP_BATCH_MAX);
	for (uint32_t i = 0; i < n; i++)
		pos[i] = (int32_t)x->bucket[find(x, &d[i])] - 1;
}

uint32_t
chp_index_insert(struct chp_index *x, const struct chp_digest *d)
{
	uint32_t b = find(x, d);

	CHP_ASSERT_OP(x->bucket[b], ==, 0u);
	CHP_ASSERT_OP(x->n_free, >, 0u);
	uint32_t pos = x->free[--x->n_free];

	x->digest[pos] = *d;
	x->bucket[b] = pos + 1;
	return pos;
}

void
chp_index_remove(struct chp_index *x, const struct chp_digest *d)
{
	uint32_t hole = find(x, d);

	CHP_ASSERT_OP(x->bucket[hole], !=, 0u);
	x->free[x->n_free++] = x->bucket[hole] - 1;
	/* Move back whatever probing would no longer reach past the hole. */
	for (uint32_t b = (hole + 1) & x->mask; x->bucket[b] != 0; b = (b + 1) & x->mask) {
		uint32_t wanted = home(x, &x->digest[x->bucket[b] - 1]);

		if (((b - wanted) & x->mask) >= ((b - hole) & x->mask)) {
			x->bucket[hole] = x->bucket[b];
			hole = b;
		}
	}
	x->bucket[hole] = 0;
}
