/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/blocks.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <errno.h>
#include <string.h>

_Static_assert(sizeof(struct chp_block) == CHP_BLOCK_BYTES, "two lines");

int
chp_blocks_init(struct chp_blocks *b, uint32_t n, const struct chp_memory *memory)
{
	CHP_ASSERT_OP(n, <=, CHP_BLOCKS_MAX);
	*b = (struct chp_blocks){ .free = CHP_BLOCK_NONE };
	if (n == 0)
		return 0;
	b->block = memory->zalloc((size_t)n * sizeof(*b->block));
	if (b->block == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		b->block[i].next = i + 1 < n ? i + 1 : CHP_BLOCK_NONE;
	b->free = 0;
	b->n = n;
	b->n_free = n;
	return 0;
}

void
chp_blocks_fini(struct chp_blocks *b, const struct chp_memory *memory)
{
	memory->free(b->block);
	*b = (struct chp_blocks){ .free = CHP_BLOCK_NONE };
}

static struct chp_block *
block_in_use(const struct chp_blocks *b, uint32_t index)
{
	CHP_ASSERT_OP(index, <, b->n);
	struct chp_block *block = &b->block[index];

	CHP_ASSERT_OP(block->in_use, ==, 1u);
	return block;
}

/* Copy len bytes, from offset on, of the concatenation of two pieces. */
static void
copy_pieces(uint8_t *to, uint32_t offset, uint32_t len, const uint8_t *first, uint32_t first_len,
	    const uint8_t *second)
{
	uint32_t from_first = 0;

	if (offset < first_len) {
		from_first = chp_min_u32(len, first_len - offset);
		memcpy(to, first + offset, from_first);
	}
	if (from_first < len)
		memcpy(to + from_first, second + (offset + from_first - first_len),
		       len - from_first);
}

uint32_t
chp_blocks_put(struct chp_blocks *b, const void *first, uint32_t first_len, const void *second,
	       uint32_t second_len)
{
	CHP_ASSERT_OP(first_len, <=, CHP_RECORD_BYTES_MAX);
	CHP_ASSERT_OP(second_len, <=, CHP_RECORD_BYTES_MAX - first_len);
	uint32_t len = first_len + second_len;

	if (len == 0)
		return CHP_BLOCK_NONE;
	CHP_ASSERT_OP(chp_blocks_for(len), <=, b->n_free);

	/* The first blocks of the free list are the chain: they are linked already. */
	uint32_t chain = b->free;
	uint32_t at = chain;

	for (uint32_t done = 0;;) {
		CHP_ASSERT_OP(at, <, b->n);
		struct chp_block *block = &b->block[at];
		uint32_t take = chp_min_u32(len - done, CHP_BLOCK_PAYLOAD);

		CHP_ASSERT_OP(block->in_use, ==, 0u);
		block->in_use = 1;
		copy_pieces(block->payload, done, take, first, first_len, second);
		b->n_free--;
		done += take;
		at = block->next;
		if (done == len) {
			block->next = CHP_BLOCK_NONE;
			break;
		}
	}
	b->free = at;
	return chain;
}

/* The block of a chain in which a byte is; *offset becomes its offset in that block's payload. */
static uint32_t
seek(const struct chp_blocks *b, uint32_t chain, uint32_t *offset)
{
	for (; *offset >= CHP_BLOCK_PAYLOAD; *offset -= CHP_BLOCK_PAYLOAD)
		chain = block_in_use(b, chain)->next;
	return chain;
}

void
chp_blocks_get(const struct chp_blocks *b, uint32_t chain, uint32_t offset, void *to, uint32_t len)
{
	uint8_t *out = to;

	if (len == 0)
		return;
	chain = seek(b, chain, &offset);
	while (len > 0) {
		const struct chp_block *block = block_in_use(b, chain);
		uint32_t take = chp_min_u32(len, CHP_BLOCK_PAYLOAD - offset);

		memcpy(out, block->payload + offset, take);
		out += take;
		len -= take;
		offset = 0;
		chain = block->next;
	}
}

bool
chp_blocks_equal(const struct chp_blocks *b, uint32_t chain, uint32_t offset, const void *data,
		 uint32_t len)
{
	const uint8_t *p = data;

	if (len == 0)
		return true;
	chain = seek(b, chain, &offset);
	while (len > 0) {
		const struct chp_block *block = block_in_use(b, chain);
		uint32_t take = chp_min_u32(len, CHP_BLOCK_PAYLOAD - offset);

		if (memcmp(p, block->payload + offset, take) != 0)
			return false;
		p += take;
		len -= take;
		offset = 0;
		chain = block->next;
	}
	return true;
}

void
chp_blocks_free(struct chp_blocks *b, uint32_t chain)
{
	if (chain == CHP_BLOCK_NONE)
		return;
	for (uint32_t at = chain;;) {
		struct chp_block *block = block_in_use(b, at);

		block->in_use = 0;
		b->n_free++;
		if (block->next == CHP_BLOCK_NONE) {
			block->next = b->free;
			break;
		}
		at = block->next;
	}
	b->free = chain;
}

uint32_t
chp_blocks_length(const struct chp_blocks *b, uint32_t chain)
{
	uint32_t n = 0;

	for (; chain != CHP_BLOCK_NONE; chain = block_in_use(b, chain)->next) {
		CHP_ASSERT_OP(n, <, b->n);
		n++;
	}
	return n;
}

void
chp_blocks_check(const struct chp_blocks *b)
{
	uint32_t listed = 0;
	uint32_t unused = 0;

	for (uint32_t at = b->free; at != CHP_BLOCK_NONE; at = b->block[at].next) {
		CHP_ASSERT_OP(at, <, b->n);
		CHP_ASSERT_OP(listed, <, b->n_free);
		CHP_ASSERT_OP(b->block[at].in_use, ==, 0u);
		listed++;
	}
	for (uint32_t i = 0; i < b->n; i++)
		unused += b->block[i].in_use == 0;
	CHP_ASSERT_OP(listed, ==, b->n_free);
	CHP_ASSERT_OP(unused, ==, b->n_free);
}
