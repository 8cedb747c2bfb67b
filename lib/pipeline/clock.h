/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * clock.h - nanoseconds from the CPU's time stamp counter, without a system call.
 *
 * Starts at CLOCK_MONOTONIC and runs at the counter's rate as EAL measured it. All lcores read the same
 * (invariant) counter. Only differences within one process are meaningful.
 */
#ifndef CHP_PIPELINE_CLOCK_H
#define CHP_PIPELINE_CLOCK_H

#include <rte_cycles.h>

#include <stdint.h>

#define CHP_NS_PER_S UINT64_C(1000000000)
#define CHP_NS_PER_MS UINT64_C(1000000)

struct chp_clock {
	uint64_t tsc;   /* at start */
	uint64_t ns;    /* at start */
	uint64_t scale; /* ns per tick, 32 bits behind the point */
};

/** Start a clock at the present CLOCK_MONOTONIC. EAL is running. */
void chp_clock_init(struct chp_clock *c);

static inline uint64_t
chp_clock_ns_of(const struct chp_clock *c, uint64_t tsc)
{
	return c->ns + (uint64_t)(((unsigned __int128)(tsc - c->tsc) * c->scale) >> 32);
}

static inline uint64_t
chp_clock_ns(const struct chp_clock *c)
{
	return chp_clock_ns_of(c, rte_rdtsc());
}

#endif /* CHP_PIPELINE_CLOCK_H */
