/* SPDX-License-Identifier: BSD-3-Clause */
#include "../../app/chaaparctl/zipf.h"

#include <criterion/criterion.h>

#define N 1000u
#define DRAWS 1000000u

static struct chp_random random_numbers = { 7 };
static uint32_t seen[N + 1];

static void
draw(double theta)
{
	struct load_zipf z;

	load_zipf_init(&z, N, theta);
	for (uint32_t i = 0; i < DRAWS; i++) {
		uint64_t rank = load_zipf_next(&z, &random_numbers);

		cr_assert(rank >= 1 && rank <= N);
		seen[rank]++;
	}
}

/* Ranks come as often as rank^-theta says, which load_zipf_share adds up. */
static void
expect_law(double theta)
{
	const struct load_zipf z = { .theta = theta, .n = N };
	double sum = 0;

	draw(theta);
	for (uint32_t k = 1; k <= N; k++) {
		sum += (double)seen[k] / DRAWS;
		if (k == 1 || k == 10 || k == 100 || k == N)
			cr_assert_float_eq(sum, load_zipf_share(&z, k), 0.003, "theta %f, first %u: %f, not %f", theta,
					   k, sum, load_zipf_share(&z, k));
	}
}

Test(zipf, below_one)
{
	expect_law(0.99);
}

Test(zipf, one)
{
	expect_law(1);
}

Test(zipf, above_one)
{
	expect_law(1.5);
}

Test(zipf, zero_is_uniform)
{
	expect_law(0);
}

Test(zipf, shares_are_those_of_the_law)
{
	const struct load_zipf z = { .theta = 1, .n = 4 };

	cr_assert_float_eq(load_zipf_share(&z, 0), 0, 1e-12);
	cr_assert_float_eq(load_zipf_share(&z, 1), 12.0 / 25, 1e-12);
	cr_assert_float_eq(load_zipf_share(&z, 4), 1, 1e-12);
}
