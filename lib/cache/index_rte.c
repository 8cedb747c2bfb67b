/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * index_rte.c - the index of the data cache on DPDK's rte_hash.
 *
 * Without the flags for several writers rte_hash keeps no per-lcore caches of free positions, so it
 * hands out exactly 0..entries-1 (asserted at creation). With extendable buckets every one of them
 * can be used: an overflow bucket is linked only behind a full one, so entries / 8 of them suffice.
 * No flag for concurrent readers: an index has one owner, and no lock is then taken.
 */
#include "base/assert.h"
#include "base/limits.h"
#include "cache/index.h"

#include <errno.h>
#include <rte_errno.h>
#include <rte_hash.h>
#include <rte_lcore.h>
#include <string.h>

/*
 * Digests in one bulk look-up. Not RTE_HASH_LOOKUP_BULK_MAX: for 64 keys the library shifts 1 by
 * 64, and where none of them is in its first two buckets it then looks for none in the overflow
 * buckets (22.11, __bulk_lookup_l). 63 and 1 cost less than twice 32: 74 against 82 cycles for a
 * write among a million keys.
 */
#define BULK (RTE_HASH_LOOKUP_BULK_MAX - 1u)
_Static_assert(2 * (uint64_t)CHP_KEYS_MAX <= RTE_HASH_ENTRIES_MAX, "keys and headroom");

/* The handle is the hash table itself; the name in the header hides rte_ types from the cache. */
static struct rte_hash *
table(const struct chp_index *x)
{
	return (struct rte_hash *)(uintptr_t)x;
}

/* The digest is uniform: its low bits are as good as any hash of it. */
static hash_sig_t
signature(const struct chp_digest *d)
{
	return (hash_sig_t)d->lo;
}

struct chp_index *
chp_index_create(const char *name, uint32_t entries, int *err)
{
	struct rte_hash_parameters parameters = {
		.name = name,
		.entries = entries,
		.key_len = sizeof(struct chp_digest),
		.socket_id = (int)rte_socket_id(),
		.extra_flag = RTE_HASH_EXTRA_FLAGS_EXT_TABLE,
	};

	if (strlen(name) > CHP_INDEX_NAME_MAX || entries < CHP_INDEX_ENTRIES_MIN ||
	    entries > RTE_HASH_ENTRIES_MAX) {
		*err = -EINVAL;
		return NULL;
	}
	rte_errno = 0;
	struct rte_hash *h = rte_hash_create(&parameters);

	if (h == NULL) {
		/* A name that is taken is the caller's mistake, anything else is want of memory. */
		*err = rte_errno == EEXIST ? -EINVAL : -ENOMEM;
		return NULL;
	}
	CHP_ASSERT_OP((uint32_t)rte_hash_max_key_id(h), ==, entries);
	return (struct chp_index *)h;
}

void
chp_index_destroy(struct chp_index *x)
{
	rte_hash_free(table(x));
}

static void
lookup_bulk(const struct chp_index *x, const struct chp_digest *d, uint32_t n, int32_t *pos)
{
	const void *keys[BULK];
	hash_sig_t signatures[BULK];

	for (uint32_t i = 0; i < n; i++) {
		keys[i] = &d[i];
		signatures[i] = signature(&d[i]);
	}
	int rc = rte_hash_lookup_with_hash_bulk(table(x), keys, signatures, n, pos);

	CHP_ASSERT(rc == 0);
}

void
chp_index_lookup(const struct chp_index *x, const struct chp_digest *d, uint32_t n, int32_t *pos)
{
	CHP_ASSERT_OP(n, <=, CHP_BATCH_MAX);
	if (n == 1)
		pos[0] = rte_hash_lookup_with_hash(table(x), d, signature(d));
	for (uint32_t at = 0; n > 1 && at < n; at += BULK)
		lookup_bulk(x, d + at, n - at < BULK ? n - at : BULK, pos + at);
	for (uint32_t i = 0; i < n; i++)
		pos[i] = pos[i] < 0 ? -1 : pos[i];
}

uint32_t
chp_index_insert(struct chp_index *x, const struct chp_digest *d)
{
	int32_t pos = rte_hash_add_key_with_hash(table(x), d, signature(d));

	CHP_ASSERT(pos >= 0);
	return (uint32_t)pos;
}

void
chp_index_remove(struct chp_index *x, const struct chp_digest *d)
{
	int32_t pos = rte_hash_del_key_with_hash(table(x), d, signature(d));

	CHP_ASSERT(pos >= 0);
}
