/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/detector.h"

#include "base/assert.h"

#include <string.h>

void
chp_detector_init(struct chp_detector *d, uint64_t suspect_ns, uint64_t now_ns)
{
	CHP_ASSERT_OP(suspect_ns, >=, CHP_DETECTOR_FULL);
	memset(d, 0, sizeof(*d));
	d->step_ns = suspect_ns / CHP_DETECTOR_FULL;
	d->next_ns = now_ns + d->step_ns;
	d->suspected = UINT64_MAX;
}

void
chp_detector_trust(struct chp_detector *d, uint32_t node)
{
	d->score[node] = CHP_DETECTOR_FULL;
	d->suspected &= ~chp_bit(node);
	d->heard |= chp_bit(node); /* the step that is running must not count against it */
}

void
chp_detector_distrust(struct chp_detector *d, uint32_t node)
{
	d->score[node] = 0;
	d->suspected |= chp_bit(node);
	d->heard &= ~chp_bit(node);
}

uint64_t
chp_detector_tick(struct chp_detector *d, uint64_t now_ns)
{
	uint64_t before = d->suspected;

	if (now_ns < d->next_ns)
		return 0;
	for (uint32_t i = 0; i < CHP_NODES_MAX; i++) {
		uint32_t score = d->score[i];

		if ((d->heard & chp_bit(i)) != 0)
			score = chp_min_u32(score + CHP_DETECTOR_HEARD, CHP_DETECTOR_FULL);
		else if (score > 0)
			score--;
		d->score[i] = (uint8_t)score;
		if (score == 0)
			d->suspected |= chp_bit(i);
		else if (score >= CHP_DETECTOR_RECOVERED)
			d->suspected &= ~chp_bit(i);
	}
	d->heard = 0;
	d->next_ns = now_ns + d->step_ns; /* not a multiple of the last one: what was slept is forgiven */
	return d->suspected & ~before;
}

void
chp_detector_check(const struct chp_detector *d)
{
	CHP_ASSERT_OP(d->step_ns, >, 0u);
	for (uint32_t i = 0; i < CHP_NODES_MAX; i++) {
		bool suspected = (d->suspected & chp_bit(i)) != 0;

		CHP_ASSERT_OP(d->score[i], <=, CHP_DETECTOR_FULL);
		CHP_ASSERT(d->score[i] != 0 || suspected);
		CHP_ASSERT(d->score[i] < CHP_DETECTOR_RECOVERED || !suspected);
	}
}
