/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * short_memory.h - memory that runs out after some allocations and counts what it gave.
 *
 * State of the test program: set short_memory_left, then use short_memory.
 */
#ifndef CHP_TESTS_SHORT_MEMORY_H
#define CHP_TESTS_SHORT_MEMORY_H

#include "base/memory.h"

#include <limits.h>

static int short_memory_left = INT_MAX; /* allocations that still succeed */
static int short_memory_held;           /* given and not taken back */
static size_t short_memory_bytes;       /* given since the start */

static inline void *
short_memory_zalloc(size_t bytes)
{
	if (short_memory_left == 0)
		return NULL;
	short_memory_left--;
	short_memory_held++;
	short_memory_bytes += bytes;
	return chp_memory_libc.zalloc(bytes);
}

static inline void
short_memory_free(void *p)
{
	short_memory_held -= p != NULL;
	chp_memory_libc.free(p);
}

static const struct chp_memory short_memory = {
	.zalloc = short_memory_zalloc,
	.free = short_memory_free,
};

#endif /* CHP_TESTS_SHORT_MEMORY_H */
