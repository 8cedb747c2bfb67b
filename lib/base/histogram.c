/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/histogram.h"

#include "base/assert.h"

#include <string.h>

/* The last bucket is the one of UINT64_MAX: no value lies beyond. */
_Static_assert(CHP_HISTOGRAM_BUCKETS ==
		       ((63u - CHP_HISTOGRAM_BITS) << CHP_HISTOGRAM_BITS) + 2u * CHP_HISTOGRAM_SUB,
	       "every 64-bit number has a bucket");

void
chp_histogram_init(struct chp_histogram *h)
{
	memset(h, 0, sizeof(*h));
	h->min = UINT64_MAX;
}

void
chp_histogram_merge(struct chp_histogram *to, const struct chp_histogram *from)
{
	for (uint32_t i = 0; i < CHP_HISTOGRAM_BUCKETS; i++)
		to->bucket[i] += from->bucket[i];
	to->n += from->n;
	if (from->min < to->min)
		to->min = from->min;
	if (from->max > to->max)
		to->max = from->max;
}

/* The greatest value of a bucket. */
static uint64_t
bucket_last(uint32_t bucket)
{
	uint32_t shift;

	if (bucket < 2u * CHP_HISTOGRAM_SUB)
		return bucket;
	shift = (bucket >> CHP_HISTOGRAM_BITS) - 1;
	/* The sum of the two may be 2^64: then it wraps to 0 and the result is UINT64_MAX. */
	return ((uint64_t)(bucket - (shift << CHP_HISTOGRAM_BITS)) << shift) +
	       (UINT64_C(1) << shift) - 1;
}

/* A walk over the buckets: all values in those before `bucket` are `seen`. */
struct walk {
	uint32_t bucket;
	uint64_t seen;
};

/* Go on to the bucket of the share num / den, not less than the last one. */
static uint64_t
walk_to(const struct chp_histogram *h, struct walk *w, uint64_t num, uint64_t den)
{
	uint64_t rank, value;

	CHP_ASSERT_OP(den, >, 0u);
	CHP_ASSERT_OP(num, <=, den);
	if (h->n == 0)
		return 0;
	/* The least rank r, from 1, with r / n >= num / den. */
	rank = (uint64_t)(((unsigned __int128)h->n * num + den - 1) / den);
	if (rank == 0)
		return h->min;
	while (w->bucket < CHP_HISTOGRAM_BUCKETS && w->seen + h->bucket[w->bucket] < rank)
		w->seen += h->bucket[w->bucket++];
	CHP_ASSERT_OP(w->bucket, <, CHP_HISTOGRAM_BUCKETS);
	value = bucket_last(w->bucket);
	if (value < h->min)
		value = h->min;
	return value < h->max ? value : h->max;
}

uint64_t
chp_histogram_quantile(const struct chp_histogram *h, uint64_t num, uint64_t den)
{
	struct walk w = { 0 };

	return walk_to(h, &w, num, den);
}

void
chp_histogram_quantiles(const struct chp_histogram *h, const uint32_t *ppm, uint32_t n, uint64_t *value)
{
	struct walk w = { 0 };

	for (uint32_t i = 0; i < n; i++) {
		CHP_ASSERT(i == 0 || ppm[i] >= ppm[i - 1]);
		value[i] = walk_to(h, &w, ppm[i], 1000000);
	}
}
