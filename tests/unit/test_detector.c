/* SPDX-License-Identifier: BSD-3-Clause */
/* Scores of peers: when one is suspected, when no longer, and what sleeping does. */
#include "core/detector.h"

#include <criterion/criterion.h>
#include <string.h>

#define MS UINT64_C(1000000)
#define SUSPECT (1000 * MS)
#define STEP (SUSPECT / CHP_DETECTOR_FULL)

static struct chp_detector d;
static uint64_t now_ns;

static void
init(void)
{
	now_ns = 5 * SUSPECT;
	chp_detector_init(&d, SUSPECT, now_ns);
}

/* One step, in which the nodes of a mask are heard. */
static uint64_t
step(uint64_t heard)
{
	uint64_t suspects;

	for (; heard != 0; heard &= heard - 1)
		chp_detector_heard(&d, chp_first_bit(heard));
	now_ns += STEP;
	suspects = chp_detector_tick(&d, now_ns);
	chp_detector_check(&d);
	return suspects;
}

Test(detector, nobody_is_trusted_at_first)
{
	init();
	cr_assert_eq(d.suspected, UINT64_MAX);
	cr_assert_eq(step(0), 0, "nothing new");
}

Test(detector, silence_for_the_suspicion_time_and_no_less)
{
	init();
	chp_detector_trust(&d, 3);
	cr_assert_eq(d.suspected, ~chp_bit(3));
	/* The step in which it was trusted does not count against it. */
	for (uint32_t i = 0; i < CHP_DETECTOR_FULL; i++)
		cr_assert_eq(step(0), 0, "step %u", i);
	cr_assert_eq(step(0), chp_bit(3));
	cr_assert_eq(step(0), 0, "suspected once");
	cr_assert_eq(now_ns - 5 * SUSPECT, SUSPECT + 2 * STEP);
}

Test(detector, a_peer_that_is_heard_is_never_suspected)
{
	init();
	chp_detector_trust(&d, 0);
	chp_detector_trust(&d, 63);
	for (uint32_t i = 0; i < 1000; i++)
		cr_assert_eq(step(chp_bit(0)) & chp_bit(0), 0);
	cr_assert_eq(d.suspected & chp_bit(0), 0);
	cr_assert_neq(d.suspected & chp_bit(63), 0);
}

Test(detector, two_lost_heartbeats_of_three_are_borne)
{
	init();
	chp_detector_trust(&d, 1);
	for (uint32_t i = 0; i < 1000; i++)
		cr_assert_eq(step(i % 3 == 0 ? chp_bit(1) : 0), 0);
	cr_assert_eq(d.suspected & chp_bit(1), 0);
	/* Three of four are not. */
	for (uint32_t i = 0; i < 1000; i++)
		step(i % 5 == 0 ? chp_bit(1) : 0);
	cr_assert_neq(d.suspected & chp_bit(1), 0);
}

Test(detector, trust_comes_back_slowly)
{
	init();
	cr_assert_eq(step(chp_bit(1)), 0);
	step(chp_bit(1));
	cr_assert_neq(d.suspected & chp_bit(1), 0);
	step(chp_bit(1));
	cr_assert_eq(d.suspected & chp_bit(1), 0);
	/* And goes slowly: a silent step right after does not take it away. */
	step(0);
	step(0);
	cr_assert_eq(d.suspected & chp_bit(1), 0);
	for (uint32_t i = 0; i < 20; i++)
		step(0);
	cr_assert_neq(d.suspected & chp_bit(1), 0);
}

/* Heard now and then, as over a bad path: suspected once, not in turns. */
Test(detector, a_suspect_that_is_heard_now_and_then_stays_one)
{
	uint32_t times = 0;

	init();
	chp_detector_trust(&d, 1);
	for (uint32_t i = 0; i < 1000; i++)
		times += step(i % 5 == 0 ? chp_bit(1) : 0) != 0;
	cr_assert_eq(times, 1);
}

Test(detector, who_slept_suspects_nobody_when_it_wakes)
{
	init();
	chp_detector_trust(&d, 1);
	step(chp_bit(1));
	now_ns += 100 * SUSPECT;
	cr_assert_eq(chp_detector_tick(&d, now_ns), 0);
	for (uint32_t i = 0; i < 100; i++)
		cr_assert_eq(chp_detector_tick(&d, now_ns), 0, "a tick is a step at most");
	cr_assert_eq(d.next_ns, now_ns + STEP);
	cr_assert_eq(d.score[1], CHP_DETECTOR_FULL - 1);
}

Test(detector, ticks_between_steps_change_nothing)
{
	struct chp_detector before;

	init();
	chp_detector_trust(&d, 1);
	before = d;
	for (uint64_t ns = 0; ns < STEP; ns += STEP / 7)
		cr_assert_eq(chp_detector_tick(&d, now_ns + ns), 0);
	cr_assert_eq(memcmp(&before, &d, sizeof(d)), 0);
}

Test(detector, another_process_must_be_heard_first)
{
	init();
	chp_detector_trust(&d, 1);
	chp_detector_heard(&d, 1);
	chp_detector_distrust(&d, 1);
	cr_assert_neq(d.suspected & chp_bit(1), 0);
	step(0);
	cr_assert_eq(d.score[1], 0, "what was heard was another one");
}
