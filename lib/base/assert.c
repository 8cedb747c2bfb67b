/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/assert.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

_Noreturn void
chp_assert_fail(const char *expr, uint64_t a, uint64_t b, const char *file, int line)
{
	fprintf(stderr, "%s:%d: assertion failed: %s (%" PRIu64 ", %" PRIu64 ")\n", file, line, expr,
		a, b);
	fflush(stderr);
	abort();
}
