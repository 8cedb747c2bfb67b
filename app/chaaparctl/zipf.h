/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * zipf.h - ranks as Zipf's law has them, for load: without a table, for any theta. The benchmark has it, too.
 *
 * The state belongs to the caller; same random numbers, same ranks.
 */
#ifndef CHAAPARCTL_ZIPF_H
#define CHAAPARCTL_ZIPF_H

#include "base/random.h"

/* Ranks 1 to n with probability proportional to rank^-theta. */
struct load_zipf {
	double theta, h_first, h_last, s;
	uint64_t n;
};

/** @param theta  0: all alike */
void load_zipf_init(struct load_zipf *z, uint64_t n, double theta);

/** A rank from 1 to n; 1 is the most frequent. */
uint64_t load_zipf_next(const struct load_zipf *z, struct chp_random *random);

/** How often one of the first k ranks comes, 0 to 1: what a cache hits that holds just these. Takes n steps. */
double load_zipf_share(const struct load_zipf *z, uint64_t k);

#endif /* CHAAPARCTL_ZIPF_H */
