/* SPDX-License-Identifier: BSD-3-Clause */
#include "slices.h"

#include <rte_cycles.h>
#include <stdlib.h>

void
slices_begin(struct slices *s, double seconds, uint64_t now, uint64_t ops, uint64_t cycles)
{
	double slice = seconds / SLICES_MAX > SLICE_S ? seconds / SLICES_MAX : SLICE_S;

	s->ticks = (uint64_t)(slice * (double)rte_get_tsc_hz());
	s->begin = now;
	s->ops = ops;
	s->cycles = cycles;
	s->n = 0;
}

void
slices_look(struct slices *s, uint64_t now, uint64_t ops, uint64_t cycles)
{
	const double n = (double)(ops - s->ops);

	if (now - s->begin < s->ticks || s->n == SLICES_MAX)
		return;
	s->per_s[s->n] = n * (double)rte_get_tsc_hz() / (double)(now - s->begin);
	s->cycles_per_op[s->n] = n > 0 ? (double)(cycles - s->cycles) / n : 0;
	s->n++;
	s->begin = now;
	s->ops = ops;
	s->cycles = cycles;
}

static int
by_value(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double
median(double *value, uint32_t n)
{
	if (n == 0)
		return 0;
	qsort(value, n, sizeof(*value), by_value);
	return (value[(n - 1) / 2] + value[n / 2]) / 2;
}

double
slices_per_s(struct slices *s)
{
	return median(s->per_s, s->n);
}

double
slices_cycles_per_op(struct slices *s)
{
	return median(s->cycles_per_op, s->n);
}
