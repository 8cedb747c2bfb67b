/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bytes.h - small helpers on integers and memory: alignment, powers of two, node sets.
 *
 * Every function here is pure and may be called from any thread.
 */
#ifndef CHP_BASE_BYTES_H
#define CHP_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire format is little-endian, as is all we run on");

/* Structures that overlay packets: no padding, any alignment. */
#define CHP_PACKED __attribute__((packed))

#define CHP_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* Time that never comes. */
#define CHP_NEVER UINT64_MAX

/* x rounded up to a multiple of align, a power of two. */
static inline uint32_t
chp_align_u32(uint32_t x, uint32_t align)
{
	return (x + align - 1) & ~(align - 1);
}

static inline size_t
chp_align_size(size_t x, size_t align)
{
	return (x + align - 1) & ~(align - 1);
}

static inline bool
chp_is_pow2(uint64_t x)
{
	return x != 0 && (x & (x - 1)) == 0;
}

/* The least power of two that is at least x; 1 for 0. x is at most 2^31. */
static inline uint32_t
chp_pow2_up(uint32_t x)
{
	uint32_t p = 1;

	while (p < x)
		p <<= 1;
	return p;
}

static inline uint32_t
chp_min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static inline uint64_t
chp_min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t
chp_max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* A set of nodes is a mask: bit i is node i. */
static inline uint64_t
chp_bit(uint32_t node)
{
	return UINT64_C(1) << node;
}

static inline uint32_t
chp_count_bits(uint64_t mask)
{
	return (uint32_t)__builtin_popcountll(mask);
}

/* The lowest node of a set that is not empty. */
static inline uint32_t
chp_first_bit(uint64_t mask)
{
	return (uint32_t)__builtin_ctzll(mask);
}

static inline void
chp_prefetch(const void *p)
{
	__builtin_prefetch(p, 1, 3);
}

#endif /* CHP_BASE_BYTES_H */
