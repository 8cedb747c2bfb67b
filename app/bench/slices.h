/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * slices.h - what is done in slices of time, and the middle one: who is stopped now and then, or waits for somebody who
 * is, has slices that say nothing of what is measured.
 */
#ifndef BENCH_SLICES_H
#define BENCH_SLICES_H

#include <stdint.h>

/* Of 5 ms, in 20 s; longer ones where it takes longer. */
#define SLICES_MAX 4096u
#define SLICE_S 0.005

struct slices {
	uint64_t ticks; /* of one */
	uint64_t begin, ops, cycles; /* of the present one */
	uint32_t n;
	double per_s[SLICES_MAX], cycles_per_op[SLICES_MAX];
};

/** @param now, ops, cycles  as in slices_look */
void slices_begin(struct slices *s, double seconds, uint64_t now, uint64_t ops, uint64_t cycles);

/**
 * Ends a slice when it is time. The numbers are since whenever.
 *
 * @param now     TSC
 * @param ops     operations that were answered
 * @param cycles  that were spent on them
 */
void slices_look(struct slices *s, uint64_t now, uint64_t ops, uint64_t cycles);

/** The medians; 0 without slices. Sorts them. */
double slices_per_s(struct slices *s);
double slices_cycles_per_op(struct slices *s);

#endif /* BENCH_SLICES_H */
