/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * histogram.h - latencies in log-linear buckets: a quantile is never further off than 1 part in
 * 128.
 *
 * The buckets cover every 64-bit number, so nothing saturates: a latency of an hour lands in its
 * own bucket as one of a microsecond does. Least and greatest value are kept exactly.
 *
 * Owner:   whoever holds it; not thread-safe. Record in one per thread and merge.
 * Memory:  caller's, 58 KiB, no pointers; all zeros is not an empty one: call chp_histogram_init.
 */
#ifndef CHP_BASE_HISTOGRAM_H
#define CHP_BASE_HISTOGRAM_H

#include <stdint.h>

/* Each power of two is cut into 128 equal buckets; values below 128 have a bucket each. */
#define CHP_HISTOGRAM_BITS 7u
#define CHP_HISTOGRAM_SUB (1u << CHP_HISTOGRAM_BITS)
#define CHP_HISTOGRAM_BUCKETS ((64u - CHP_HISTOGRAM_BITS + 1u) * CHP_HISTOGRAM_SUB)

struct chp_histogram {
	uint64_t n;   /* values recorded */
	uint64_t min; /* UINT64_MAX when empty */
	uint64_t max; /* 0 when empty */
	uint64_t bucket[CHP_HISTOGRAM_BUCKETS];
};

/** Make it empty. */
void chp_histogram_init(struct chp_histogram *h);

/** The bucket of a value. */
static inline uint32_t
chp_histogram_bucket(uint64_t value)
{
	uint32_t shift;

	if (value < CHP_HISTOGRAM_SUB)
		return (uint32_t)value;
	shift = 63u - CHP_HISTOGRAM_BITS - (uint32_t)__builtin_clzll(value);
	return (shift << CHP_HISTOGRAM_BITS) + (uint32_t)(value >> shift);
}

/** Record one value, any number. */
static inline void
chp_histogram_record(struct chp_histogram *h, uint64_t value)
{
	h->bucket[chp_histogram_bucket(value)]++;
	h->n++;
	if (value < h->min)
		h->min = value;
	if (value > h->max)
		h->max = value;
}

/** Add everything that `from` recorded to `to`. */
void chp_histogram_merge(struct chp_histogram *to, const struct chp_histogram *from);

/**
 * A value that at least the share num / den of all values do not exceed.
 *
 * @param num, den  0 <= num <= den, den > 0; 999, 1000 is the 99.9th percentile
 * @return          the greatest value of the bucket where that share is reached, never above the
 *                  greatest recorded nor below the least; 0 when empty
 */
uint64_t chp_histogram_quantile(const struct chp_histogram *h, uint64_t num, uint64_t den);

/**
 * Several quantiles in one walk over the buckets.
 *
 * @param ppm    n shares in millionths, from 0 to 1000000, none less than the one before
 * @param value  n results, as of chp_histogram_quantile
 */
void chp_histogram_quantiles(const struct chp_histogram *h, const uint32_t *ppm, uint32_t n, uint64_t *value);

#endif /* CHP_BASE_HISTOGRAM_H */
