/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * digest.h - the 128-bit digest of a key: its shard, its place in the index.
 *
 * XXH3-128 of the key's bytes with the cluster's hash seed (xxHash 0.8, a fixed specification, so that
 * clients in any language can compute it). The digest never stands for the key: the cache compares the
 * full key always.
 */
#ifndef CHP_BASE_DIGEST_H
#define CHP_BASE_DIGEST_H

#include <stdint.h>

struct chp_digest {
	uint64_t lo;
	uint64_t hi;
};

/**
 * Digest of a key.
 *
 * @param key   key_len bytes, any alignment; not kept
 * @param seed  the cluster's hash seed; seed + i gives the i-th alternative when digests collide
 */
struct chp_digest chp_digest_of(const void *key, uint32_t key_len, uint64_t seed);

/** 64-bit hash of any bytes, for configuration hashes and digests of state. */
uint64_t chp_hash64(const void *data, uint64_t len, uint64_t seed);

/** The shard of a key: `shards` is at least 1. */
static inline uint32_t
chp_shard_of(struct chp_digest d, uint32_t shards)
{
	return (uint32_t)(d.hi % shards);
}

#endif /* CHP_BASE_DIGEST_H */
