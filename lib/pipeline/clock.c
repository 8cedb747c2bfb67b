/* SPDX-License-Identifier: BSD-3-Clause */
#include "pipeline/clock.h"

#include "base/assert.h"

#include <time.h>

void
chp_clock_init(struct chp_clock *c)
{
	uint64_t hz = rte_get_tsc_hz();
	struct timespec t;
	int rc;

	CHP_ASSERT_OP(hz, >, 0u);
	rc = clock_gettime(CLOCK_MONOTONIC, &t);
	CHP_ASSERT_OP(rc, ==, 0);
	c->tsc = rte_rdtsc();
	c->ns = (uint64_t)t.tv_sec * CHP_NS_PER_S + (uint64_t)t.tv_nsec;
	c->scale = (CHP_NS_PER_S << 32) / hz;
}
