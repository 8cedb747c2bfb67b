/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * memory.h - where long-lived memory comes from: hugepages in the program, malloc in tests.
 *
 * Used at start only: nothing allocates after that.
 */
#ifndef CHP_BASE_MEMORY_H
#define CHP_BASE_MEMORY_H

#include <stddef.h>

struct chp_memory {
	/* Zeroed memory aligned to 64 bytes, or NULL. */
	void *(*zalloc)(size_t bytes);
	/* Accepts NULL. */
	void (*free)(void *p);
};

/** Plain memory of the C library. */
extern const struct chp_memory chp_memory_libc;

#endif /* CHP_BASE_MEMORY_H */
