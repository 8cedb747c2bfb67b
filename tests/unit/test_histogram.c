/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/histogram.h"
#include "base/random.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static struct chp_histogram h, other;

static void
setup(void)
{
	chp_histogram_init(&h);
	chp_histogram_init(&other);
}

Test(histogram, empty_answers_zero, .init = setup)
{
	cr_assert_eq(chp_histogram_quantile(&h, 1, 2), 0u);
	cr_assert_eq(chp_histogram_quantile(&h, 1, 1), 0u);
	cr_assert_eq(h.n, 0u);
}

Test(histogram, buckets_are_in_order_and_without_gaps)
{
	uint32_t last = 0;

	for (uint64_t v = 0; v < 100000; v++) {
		uint32_t b = chp_histogram_bucket(v);

		cr_assert(b == last || b == last + 1, "value %lu: bucket %u after %u",
			  (unsigned long)v, b, last);
		last = b;
	}
	for (uint32_t bit = 8; bit < 64; bit++) {
		uint64_t v = UINT64_C(1) << bit;

		cr_assert_eq(chp_histogram_bucket(v), chp_histogram_bucket(v - 1) + 1);
	}
	cr_assert_eq(chp_histogram_bucket(UINT64_MAX), CHP_HISTOGRAM_BUCKETS - 1);
}

Test(histogram, small_values_are_exact, .init = setup)
{
	for (uint64_t v = 0; v < 200; v++)
		chp_histogram_record(&h, v);
	cr_assert_eq(chp_histogram_quantile(&h, 0, 1), 0u);
	cr_assert_eq(chp_histogram_quantile(&h, 1, 2), 99u);
	cr_assert_eq(chp_histogram_quantile(&h, 99, 100), 197u);
	cr_assert_eq(chp_histogram_quantile(&h, 1, 1), 199u);
}

Test(histogram, many_quantiles_are_those_of_one_each, .init = setup)
{
	static const uint32_t ppm[] = { 0, 1, 10000, 10000, 500000, 999000, 1000000 };
	uint64_t value[7];
	struct chp_random random = { 5 };

	chp_histogram_quantiles(&h, ppm, 7, value);
	cr_assert(value[0] == 0 && value[6] == 0);
	for (uint32_t i = 0; i < 5000; i++)
		chp_histogram_record(&h, chp_random_u64(&random) >> (i % 60));
	chp_histogram_quantiles(&h, ppm, 7, value);
	for (uint32_t i = 0; i < 7; i++)
		cr_assert_eq(value[i], chp_histogram_quantile(&h, ppm[i], 1000000), "share %u", ppm[i]);
	cr_assert(value[0] < value[2] && value[2] < value[4] && value[4] < value[6]);
}

Test(histogram, never_saturates, .init = setup)
{
	chp_histogram_record(&h, 1);
	chp_histogram_record(&h, UINT64_MAX);
	chp_histogram_record(&h, UINT64_MAX - 1);
	cr_assert_eq(h.n, 3u);
	cr_assert_eq(h.min, 1u);
	cr_assert_eq(h.max, UINT64_MAX);
	cr_assert_eq(chp_histogram_quantile(&h, 1, 1), UINT64_MAX);
	cr_assert_eq(chp_histogram_quantile(&h, 1, 3), 1u);
	/* A tail of one hour among microseconds is seen, not cut (pitfall P44). */
	chp_histogram_init(&h);
	for (int i = 0; i < 999; i++)
		chp_histogram_record(&h, 1000);
	chp_histogram_record(&h, UINT64_C(3600000000000));
	cr_assert_eq(chp_histogram_quantile(&h, 1, 1), UINT64_C(3600000000000));
	cr_assert_leq(chp_histogram_quantile(&h, 99, 100), 1000u + 1000u / CHP_HISTOGRAM_SUB);
}

static int
compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

Test(histogram, quantiles_are_within_one_in_128_of_the_sorted_truth, .init = setup)
{
	enum { N = 20000 };
	static uint64_t value[N];
	static const uint64_t share[][2] = { { 1, 1000 }, { 1, 2 },      { 9, 10 },
					     { 99, 100 }, { 999, 1000 }, { 1, 1 } };
	struct chp_random random = { .state = 44 };

	for (int i = 0; i < N; i++) {
		value[i] = chp_random_u64(&random) >> chp_random_below(&random, 64);
		chp_histogram_record(&h, value[i]);
	}
	qsort(value, N, sizeof(value[0]), compare);
	for (size_t i = 0; i < sizeof(share) / sizeof(share[0]); i++) {
		uint64_t truth = value[(N * share[i][0] + share[i][1] - 1) / share[i][1] - 1];
		uint64_t got = chp_histogram_quantile(&h, share[i][0], share[i][1]);

		cr_assert_geq(got, truth);
		cr_assert_leq(got - truth, truth / CHP_HISTOGRAM_SUB);
	}
}

Test(histogram, merge_equals_recording_into_one, .init = setup)
{
	static struct chp_histogram both;
	struct chp_random random = { .state = 7 };

	chp_histogram_init(&both);
	for (int i = 0; i < 1000; i++) {
		uint64_t v = chp_random_below(&random, UINT64_C(1) << 40);

		chp_histogram_record(i % 3 == 0 ? &h : &other, v);
		chp_histogram_record(&both, v);
	}
	chp_histogram_merge(&h, &other);
	cr_assert_arr_eq(h.bucket, both.bucket, sizeof(both.bucket));
	cr_assert_eq(h.n, both.n);
	cr_assert_eq(h.min, both.min);
	cr_assert_eq(h.max, both.max);
	/* Merging an empty one changes nothing. */
	chp_histogram_init(&other);
	chp_histogram_merge(&h, &other);
	cr_assert_eq(h.n, both.n);
	cr_assert_eq(h.min, both.min);
	cr_assert_eq(h.max, both.max);
}
