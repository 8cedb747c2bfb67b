/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * blocks.h - a pool of 128-byte blocks; records too large for their slot are chains of them.
 *
 * Every block is like every other, so room can be reserved exactly and never fragments: what was
 * promised to a peer is there (SAFETY 12). docs/decisions/0003-value-blocks.md has the reasons.
 *
 * Owner:  one lcore; not thread-safe.
 * Memory: allocated once by chp_blocks_init.
 */
#ifndef CHP_BASE_BLOCKS_H
#define CHP_BASE_BLOCKS_H

#include "base/bytes.h"
#include "base/limits.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>

#define CHP_BLOCK_BYTES 128u
#define CHP_BLOCK_PAYLOAD 120u
#define CHP_BLOCK_NONE UINT32_MAX

/* Blocks of a record of this many bytes; 0 for an empty one. */
static inline uint32_t
chp_blocks_for(uint32_t bytes)
{
	return (bytes + CHP_BLOCK_PAYLOAD - 1) / CHP_BLOCK_PAYLOAD;
}

/* Blocks of the largest record. */
#define CHP_RECORD_BLOCKS_MAX                                                        \
	((CHP_RECORD_BYTES_MAX + CHP_BLOCK_PAYLOAD - 1) / CHP_BLOCK_PAYLOAD)

struct chp_block {
	uint32_t next; /* block index or CHP_BLOCK_NONE */
	uint32_t in_use; /* 1 in a chain, 0 in the pool: misuse of a free block is caught at once */
	uint8_t payload[CHP_BLOCK_PAYLOAD];
};

struct chp_blocks {
	struct chp_block *block;
	uint32_t free; /* last freed first: its lines are still in the CPU's cache */
	uint32_t n;
	uint32_t n_free;
};

/** Allocate a pool of n blocks. Returns 0, or -ENOMEM. */
int chp_blocks_init(struct chp_blocks *b, uint32_t n, const struct chp_memory *memory);

/** Give the pool's memory back. Accepts a zeroed pool. */
void chp_blocks_fini(struct chp_blocks *b, const struct chp_memory *memory);

/**
 * Store the record that is the concatenation of two pieces, as a key and its value.
 *
 * @return  the first block, or CHP_BLOCK_NONE for an empty record. The caller has checked that n_free
 *          suffices (asserted).
 */
uint32_t chp_blocks_put(struct chp_blocks *b, const void *first, uint32_t first_len, const void *second,
			uint32_t second_len);

/** Copy len bytes from offset on of a chain that has them. */
void chp_blocks_get(const struct chp_blocks *b, uint32_t chain, uint32_t offset, void *to, uint32_t len);

/** Whether len bytes at offset of a chain are those at data. */
bool chp_blocks_equal(const struct chp_blocks *b, uint32_t chain, uint32_t offset, const void *data,
		      uint32_t len);

/** Free a chain; CHP_BLOCK_NONE is an empty one. */
void chp_blocks_free(struct chp_blocks *b, uint32_t chain);

/** Have the first block of a chain fetched; CHP_BLOCK_NONE is an empty one. */
static inline void
chp_blocks_prefetch(const struct chp_blocks *b, uint32_t chain)
{
	if (chain != CHP_BLOCK_NONE) {
		chp_prefetch(&b->block[chain]);
		chp_prefetch((const uint8_t *)&b->block[chain] + CHP_CACHE_LINE);
	}
}

/** Blocks of a chain, each asserted to be in use; cold. */
uint32_t chp_blocks_length(const struct chp_blocks *b, uint32_t chain);

/** Assert that the free blocks are those the pool counts; O(n). */
void chp_blocks_check(const struct chp_blocks *b);

#endif /* CHP_BASE_BLOCKS_H */
