/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * index.h - from 16-byte key digests to positions 0..entries-1; the part of the data cache that rte_hash is.
 *
 * Two implementations with equal behaviour: lib/cache/index_rte.c (shipped) and
 * tests/support/index_malloc.c (sanitizer and fuzz builds: ASan cannot see rte_malloc memory). Positions
 * that the two hand out may differ; nothing may depend on them.
 *
 * Owner: one lcore; not thread-safe.
 */
#ifndef CHP_CACHE_INDEX_H
#define CHP_CACHE_INDEX_H

#include "base/digest.h"

#include <stdint.h>

/* The least index: rte_hash has buckets of 8. */
#define CHP_INDEX_ENTRIES_MIN 8u
/* Longest name: rte_hash puts 7 characters before it and rings take 28. */
#define CHP_INDEX_NAME_MAX 20u

struct chp_index;

/**
 * Create an index that always has room for `entries` digests.
 *
 * @param name     unique in the process, at most CHP_INDEX_NAME_MAX characters
 * @param entries  CHP_INDEX_ENTRIES_MIN or more
 * @return      the index, or NULL with *err set to -ENOMEM or -EINVAL
 */
struct chp_index *chp_index_create(const char *name, uint32_t entries, int *err);

/** Accepts NULL. */
void chp_index_destroy(struct chp_index *x);

/**
 * Look up n digests, n at most CHP_BATCH_MAX.
 *
 * @param pos  set for each: its position, or -1
 */
void chp_index_lookup(const struct chp_index *x, const struct chp_digest *d, uint32_t n, int32_t *pos);

/** Add a digest that is absent. Returns its position; the caller adds at most `entries` (asserted). */
uint32_t chp_index_insert(struct chp_index *x, const struct chp_digest *d);

/** Remove a digest that is present; its position is free from now on. */
void chp_index_remove(struct chp_index *x, const struct chp_digest *d);

#endif /* CHP_CACHE_INDEX_H */
