/* SPDX-License-Identifier: BSD-3-Clause */
/* Rejection-inversion, Hoermann and Derflinger 1996. */
#include "zipf.h"

#include <math.h>

/* log1p(x) / x and expm1(x) / x, also where x is nearly 0. */
static double
log1p_over(double x)
{
	return fabs(x) > 1e-8 ? log1p(x) / x : 1 - x / 2;
}

static double
expm1_over(double x)
{
	return fabs(x) > 1e-8 ? expm1(x) / x : 1 + x / 2;
}

static double
h_integral(const struct load_zipf *z, double x)
{
	double l = log(x);

	return expm1_over((1 - z->theta) * l) * l;
}

static double
h_integral_inverse(const struct load_zipf *z, double x)
{
	double t = x * (1 - z->theta);

	return exp(log1p_over(t < -1 ? -1 : t) * x);
}

void
load_zipf_init(struct load_zipf *z, uint64_t n, double theta)
{
	*z = (struct load_zipf){ .theta = theta, .n = n };
	if (theta == 0)
		return;
	z->h_first = h_integral(z, 1.5) - 1;
	z->h_last = h_integral(z, (double)n + 0.5);
	z->s = 2 - h_integral_inverse(z, h_integral(z, 2.5) - pow(2, -theta));
}

uint64_t
load_zipf_next(const struct load_zipf *z, struct chp_random *random)
{
	if (z->theta == 0)
		return 1 + chp_random_below(random, z->n);
	for (;;) {
		double u01 = (double)(chp_random_u64(random) >> 11) / 9007199254740992.0; /* 2^53 */
		double u = z->h_last + u01 * (z->h_first - z->h_last);
		double x = h_integral_inverse(z, u), k = floor(x + 0.5);

		k = k < 1 ? 1 : k > (double)z->n ? (double)z->n : k;
		if (k - x <= z->s || u >= h_integral(z, k + 0.5) - pow(k, -z->theta))
			return (uint64_t)k;
	}
}

double
load_zipf_share(const struct load_zipf *z, uint64_t k)
{
	double all = 0, of_first = 0;

	for (uint64_t i = z->n; i > 0; i--) { /* the smallest first: less is lost in rounding */
		double p = pow((double)i, -z->theta);

		all += p;
		of_first += i <= k ? p : 0;
	}
	return of_first / all;
}
