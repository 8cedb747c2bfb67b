/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/memory.h"

#include "base/bytes.h"
#include "base/limits.h"

#include <stdlib.h>
#include <string.h>

static void *
libc_zalloc(size_t bytes)
{
	size_t rounded = chp_align_size(bytes > 0 ? bytes : 1, CHP_CACHE_LINE);
	void *p = aligned_alloc(CHP_CACHE_LINE, rounded);

	if (p != NULL)
		memset(p, 0, rounded);
	return p;
}

const struct chp_memory chp_memory_libc = { .zalloc = libc_zalloc, .free = free };
