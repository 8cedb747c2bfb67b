/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the first view is, from what the stores of the members there are hold.
 */
#include "core/founding.h"

#include <criterion/criterion.h>
#include <string.h>

#define N 5u

static struct chp_founding_member member[N];
static struct chp_view v;

/* Five fresh members that hear each other, whose hosts hold nothing. */
static void
reset(void)
{
	memset(member, 0, sizeof(member));
	for (uint32_t i = 0; i < N; i++) {
		member[i].incarnation = 100 + i;
		member[i].is_fit = true;
		member[i].hears = 0x1f;
		member[i].host.is_there = true;
		member[i].host.shards = 1;
	}
}

/* A store that has recorded these epochs, in a life. */
static void
holds(uint32_t i, uint64_t recorded_min, uint64_t recorded_max, uint64_t life)
{
	member[i].host.recorded_min = recorded_min;
	member[i].host.recorded_max = recorded_max;
	member[i].host.life_min = member[i].host.life_max = life;
	member[i].host.has_items = true;
}

static enum chp_founding_result
found_by(bool keeps_members)
{
	enum chp_founding_result r = chp_founding_view(member, N, true, keeps_members, &v);

	if (r == CHP_FOUNDING_ALL || r == CHP_FOUNDING_PART)
		cr_assert(chp_founding_is_view(&v, N, true, keeps_members));
	return r;
}

static enum chp_founding_result
found(void)
{
	return found_by(false);
}

Test(founding, empty_stores_make_a_new_cluster_of_all)
{
	reset();
	cr_assert_eq(found(), CHP_FOUNDING_ALL);
	cr_assert_eq(v.epoch, 1);
	cr_assert_eq(v.voters, 0x1f);
	cr_assert_eq(v.learners, 0);
	cr_assert_eq(v.sources, 0);
	cr_assert_eq(v.next_writer, N + 1);
	for (uint32_t i = 0; i < N; i++) {
		cr_assert_eq(v.incarnation[i], 100 + i);
		cr_assert_eq(v.writer[i], i + 1);
	}
	/* Never of less than all: what is empty remembers nothing. */
	member[4].is_fit = false;
	cr_assert_eq(found(), CHP_FOUNDING_TOO_FEW);
}

Test(founding, without_hosts_it_is_all_or_nothing)
{
	reset();
	cr_assert_eq(chp_founding_view(member, N, false, false, &v), CHP_FOUNDING_ALL);
	cr_assert_eq(v.epoch, 1);
	cr_assert(chp_founding_is_view(&v, N, false, false));
	member[1].is_fit = false;
	for (uint32_t i = 0; i < N; i++)
		holds(i, 7, 7, 5);
	cr_assert_eq(chp_founding_view(member, N, false, false, &v), CHP_FOUNDING_TOO_FEW);
}

Test(founding, the_highest_recorded_epoch_makes_voters_and_sources)
{
	reset();
	holds(0, 7, 7, 1);
	holds(1, 9, 9, 4);
	holds(2, 9, 9, 1);
	holds(3, 8, 8, 12);
	cr_assert_eq(found(), CHP_FOUNDING_ALL);
	cr_assert_eq(v.voters, 0x06);
	cr_assert_eq(v.sources, 0x06);
	cr_assert_eq(v.learners, 0x19);
	cr_assert_eq(v.epoch, UINT64_C(1) << 20 | 1);
}

Test(founding, a_generation_is_above_all_that_any_store_knows)
{
	reset();
	for (uint32_t i = 0; i < N; i++)
		holds(i, 9, 9, 1);
	/* Node 3 had accepted a first view which nobody recorded. */
	holds(3, 9, 9, UINT64_C(3) << 20 | 1);
	cr_assert_eq(found(), CHP_FOUNDING_ALL);
	cr_assert_eq(v.epoch, UINT64_C(4) << 20 | 1);
	cr_assert_eq(v.sources, 0x1f);
	/* Also where nothing was ever stored. */
	reset();
	member[2].host.life_max = 1;
	cr_assert_eq(found(), CHP_FOUNDING_ALL);
	cr_assert_eq(v.epoch, UINT64_C(1) << 20 | 1);
	cr_assert_eq(v.sources, 0);
	cr_assert_eq(v.voters, 0x1f);
}

Test(founding, generations_end)
{
	reset();
	holds(0, 9, 9, (uint64_t)CHP_GENERATION_MAX << 20 | 5);
	cr_assert_eq(found(), CHP_FOUNDING_EXHAUSTED);
	holds(0, 9, 9, (uint64_t)(CHP_GENERATION_MAX - 1) << 20 | 5);
	cr_assert_eq(found(), CHP_FOUNDING_ALL);
	cr_assert_eq(v.epoch, (uint64_t)CHP_GENERATION_MAX << 20 | 1);
}

Test(founding, a_majority_whose_stores_remember_is_enough)
{
	reset();
	for (uint32_t i = 0; i < N; i++)
		holds(i, 9, 9, 1);
	member[0].is_fit = member[3].is_fit = false;
	cr_assert_eq(found(), CHP_FOUNDING_PART);
	cr_assert_eq(v.voters, 0x16);
	cr_assert_eq(v.incarnation[0], 0);
	cr_assert_eq(v.writer[0], 0);
	cr_assert_eq(v.writer[4], 5);
	/* One was emptied: it does not count, and is not in it. */
	memset(&member[4].host, 0, sizeof(member[4].host));
	member[4].host.is_there = true;
	cr_assert_eq(found(), CHP_FOUNDING_TOO_FEW);
	member[3].is_fit = true;
	cr_assert_eq(found(), CHP_FOUNDING_PART);
	cr_assert_eq(chp_view_live(&v), 0x0e);
	/* With all there it is, as a learner. */
	member[0].is_fit = true;
	cr_assert_eq(found(), CHP_FOUNDING_ALL);
	cr_assert_eq(v.learners, 0x10);
	cr_assert_eq(v.sources, 0x0f);
}

Test(founding, a_volatile_store_says_nothing_of_the_past)
{
	reset();
	for (uint32_t i = 0; i < N; i++)
		holds(i, 9, 9, 1);
	member[0].host.is_volatile = member[1].host.is_volatile = true;
	cr_assert_eq(found(), CHP_FOUNDING_ALL);
	cr_assert_eq(v.sources, 0x1c);
	cr_assert_eq(v.learners, 0x03);
	member[2].is_fit = false;
	cr_assert_eq(found(), CHP_FOUNDING_TOO_FEW);
	/* Where all are, it is a new cluster of a later generation. */
	for (uint32_t i = 0; i < N; i++)
		member[i].host.is_volatile = member[i].is_fit = true;
	cr_assert_eq(found(), CHP_FOUNDING_ALL);
	cr_assert_eq(v.sources, 0);
	cr_assert_eq(v.voters, 0x1f);
	cr_assert_eq(v.epoch, UINT64_C(1) << 20 | 1);
}

/* Shards record one after the other: who may have the newest of one of them is a source. */
Test(founding, shards_that_differ_are_all_read)
{
	reset();
	holds(0, 7, 9, 1);
	holds(1, 8, 8, 1);
	holds(2, 6, 7, 1);
	holds(3, 7, 8, 1);
	holds(4, 5, 5, 1);
	cr_assert_eq(found(), CHP_FOUNDING_ALL);
	/* Node 1 has recorded 8 in all: so no shard's best is below 8. */
	cr_assert_eq(v.sources, 0x0b);
	cr_assert_eq(v.learners, 0x14);
}

/* A generation that served, and ended before anybody had recorded it: those that began it have what it wrote. */
Test(founding, who_began_a_generation_that_nobody_recorded_is_read)
{
	reset();
	holds(0, 9, 9, UINT64_C(1) << 20 | 1);
	holds(1, 9, 9, UINT64_C(1) << 20 | 4);
	holds(2, 10, 10, 1);
	holds(3, 9, 9, 1);
	holds(4, 5, 5, UINT64_C(1) << 20 | 1);
	cr_assert_eq(found(), CHP_FOUNDING_ALL);
	cr_assert_eq(v.sources, 0x17);
	cr_assert_eq(v.epoch, UINT64_C(2) << 20 | 1);
	/* Recorded by one of them, it is complete there. */
	holds(1, UINT64_C(1) << 20 | 5, UINT64_C(1) << 20 | 5, UINT64_C(1) << 20 | 1);
	cr_assert_eq(found(), CHP_FOUNDING_ALL);
	cr_assert_eq(v.sources, 0x02);
	cr_assert_eq(v.learners, 0x1d);
}

Test(founding, who_is_not_heard_by_all_is_left_out)
{
	reset();
	for (uint32_t i = 0; i < N; i++)
		holds(i, 9, 9, 1);
	member[1].hears = 0x1f & ~0x10u;
	cr_assert_eq(found(), CHP_FOUNDING_PART);
	cr_assert_eq(chp_view_live(&v), 0x1d);
	member[0].hears = 0x1f & ~0x04u;
	cr_assert_eq(found(), CHP_FOUNDING_PART);
	cr_assert_eq(chp_view_live(&v), 0x1c);
	member[4].hears = member[3].hears = 0x1f & ~0x04u;
	cr_assert_eq(found(), CHP_FOUNDING_TOO_FEW);
}

Test(founding, views_that_cannot_be_first)
{
	struct chp_view good;

	reset();
	for (uint32_t i = 0; i < N; i++)
		holds(i, i < 3 ? 9 : 8, 9 - (i > 3), 1);
	cr_assert_eq(found(), CHP_FOUNDING_ALL);
	good = v;
	cr_assert_eq(good.sources, 0x0f);
	cr_assert_not(chp_founding_is_view(&good, N, false, false), "a later generation without hosts");
	v.epoch++;
	cr_assert_not(chp_founding_is_view(&v, N, true, false));
	v = good;
	v.epoch = 1;
	cr_assert_not(chp_founding_is_view(&v, N, true, false), "a new cluster has no sources");
	v = good;
	v.sources = 0;
	cr_assert_not(chp_founding_is_view(&v, N, true, false), "learners of whom?");
	v = good;
	v.sources = 0x07;
	cr_assert_not(chp_founding_is_view(&v, N, true, false));
	v = good;
	v.learners = 0x18;
	cr_assert_not(chp_founding_is_view(&v, N, true, false), "voter and learner");
	v = good;
	v.learners |= 0x20;
	cr_assert_not(chp_founding_is_view(&v, N, true, false), "no member");
	v = good;
	v.writer[2] = 1;
	cr_assert_not(chp_founding_is_view(&v, N, true, false));
	v = good;
	v.next_writer++;
	cr_assert_not(chp_founding_is_view(&v, N, true, false));
	v = good;
	v.incarnation[4] = 0;
	cr_assert_not(chp_founding_is_view(&v, N, true, false));
	v = good;
	v.voters = v.sources = 0x03;
	v.learners = 0;
	for (uint32_t i = 2; i < N; i++)
		v.incarnation[i] = v.writer[i] = 0;
	cr_assert_not(chp_founding_is_view(&v, N, true, false), "a minority");
	v.voters = v.sources = 0x01;
	v.learners = 0x06;
	v.incarnation[2] = 102;
	v.writer[2] = 3;
	cr_assert(chp_founding_is_view(&v, N, true, false), "one voter, two learners");
	v.epoch = ((uint64_t)CHP_GENERATION_MAX + 1) << 20 | 1;
	cr_assert_not(chp_founding_is_view(&v, N, true, false));
}

/* ---- protocols that keep their members: a leader's log, and all who remember are sources ---- */

Test(founding, empty_stores_make_a_new_cluster_of_a_log_too)
{
	reset();
	cr_assert_eq(found_by(true), CHP_FOUNDING_ALL);
	cr_assert_eq(v.epoch, 1);
	cr_assert_eq(v.voters, 0x1f);
	cr_assert_eq(v.sources, 0);
	member[3].is_fit = false;
	cr_assert_eq(found_by(true), CHP_FOUNDING_TOO_FEW);
}

Test(founding, with_a_log_all_vote_and_who_remembers_is_a_source)
{
	reset();
	for (uint32_t i = 0; i < N; i++)
		holds(i, 7 + i, 7 + i, 1);
	/* One that has a new disk: it votes, and its store has nothing to say. */
	member[4].host = (struct chp_membership_host){ .is_there = true, .shards = 1 };
	cr_assert_eq(found_by(true), CHP_FOUNDING_ALL);
	cr_assert_eq(v.epoch, chp_epoch_of_generation(1));
	cr_assert_eq(v.voters, 0x1f);
	cr_assert_eq(v.learners, 0);
	cr_assert_eq(v.sources, 0x0f, "whatever they had recorded: what was committed is in all of a majority");
	for (uint32_t i = 0; i < N; i++)
		cr_assert_eq(v.incarnation[i], 100 + i);
}

Test(founding, with_a_log_a_majority_that_remembers_begins)
{
	reset();
	for (uint32_t i = 0; i < N; i++)
		holds(i, 9, 9, 1);
	member[0].is_fit = member[2].is_fit = false;
	cr_assert_eq(found_by(true), CHP_FOUNDING_PART);
	cr_assert_eq(v.voters, 0x1a);
	cr_assert_eq(v.sources, 0x1a);
	cr_assert_eq(v.learners, 0);
	cr_assert_eq(v.incarnation[0], 0);
	/* Who remembers nothing does not make up for one who does. */
	member[3].host.life_min = member[3].host.life_max = 0;
	cr_assert_eq(found_by(true), CHP_FOUNDING_TOO_FEW);
	member[0].is_fit = true;
	cr_assert_eq(found_by(true), CHP_FOUNDING_PART);
	cr_assert_eq(v.voters, 0x13, "without it: it comes later, and gets a copy");
	cr_assert_eq(v.sources, 0x13);
}

Test(founding, with_a_log_a_volatile_store_is_no_source)
{
	reset();
	for (uint32_t i = 0; i < N; i++)
		holds(i, 9, 9, 1);
	member[1].host.is_volatile = true;
	cr_assert_eq(found_by(true), CHP_FOUNDING_ALL);
	cr_assert_eq(v.voters, 0x1f);
	cr_assert_eq(v.sources, 0x1d);
}

Test(founding, with_a_log_too_generations_end)
{
	reset();
	for (uint32_t i = 0; i < N; i++)
		holds(i, 9, 9, chp_epoch_of_generation(CHP_GENERATION_MAX));
	cr_assert_eq(found_by(true), CHP_FOUNDING_EXHAUSTED);
}

Test(founding, views_that_cannot_be_first_with_a_log)
{
	struct chp_view good;

	reset();
	for (uint32_t i = 0; i < 4; i++)
		holds(i, 9, 9, 1);
	cr_assert_eq(found_by(true), CHP_FOUNDING_ALL);
	good = v;
	cr_assert_eq(good.sources, 0x0f);
	cr_assert_not(chp_founding_is_view(&good, N, false, true), "a later generation without hosts");
	cr_assert_not(chp_founding_is_view(&good, N, true, false), "voters without data, and no log that brings it");
	v.voters = 0x0f;
	v.learners = 0x10;
	cr_assert_not(chp_founding_is_view(&v, N, true, true), "nobody learns: it votes, or comes later");
	v = good;
	v.sources = 0x2f;
	cr_assert_not(chp_founding_is_view(&v, N, true, true), "no member");
	v = good;
	v.epoch = 1;
	cr_assert_not(chp_founding_is_view(&v, N, true, true), "a new cluster has no sources");
	v = good;
	v.voters = v.sources = 0x03;
	for (uint32_t i = 2; i < N; i++)
		v.incarnation[i] = v.writer[i] = 0;
	cr_assert_not(chp_founding_is_view(&v, N, true, true), "a minority");
	v = good;
	v.voters = v.sources = 0x0f;
	v.incarnation[4] = v.writer[4] = 0;
	cr_assert(chp_founding_is_view(&v, N, true, true));
	v.sources = 0;
	cr_assert_not(chp_founding_is_view(&v, N, true, true), "who is to say what was before?");
}

/* ---- what shards say ---- */

Test(founding, a_host_is_there_when_all_shards_say_so)
{
	struct chp_host_status one = {
		.state = CHP_HOST_READY, .has_record = true, .epoch = 9, .life = 5, .log_fill_ppm = 10, .items = 1,
	};
	struct chp_host_status two = {
		.state = CHP_HOST_WAITING, .has_record = true, .epoch = 7, .life = 6, .log_fill_ppm = 20,
	};
	struct chp_membership_host h = { 0 };

	chp_membership_host_add(&h, &two);
	cr_assert_not(h.has_items);
	chp_membership_host_add(&h, &one);
	cr_assert(h.is_there);
	cr_assert_not(h.is_ready, "one waits");
	cr_assert(h.has_items);
	cr_assert_eq(h.shards, 2);
	cr_assert_eq(h.recorded_min, 7);
	cr_assert_eq(h.recorded_max, 9);
	cr_assert_eq(h.life_min, 5);
	cr_assert_eq(h.life_max, 6);
	cr_assert_eq(h.log_fill_ppm, 20);
	cr_assert_not(h.is_stuck);
	cr_assert_not(h.is_volatile);
	cr_assert_not(h.has_lost);

	two.cache_is_stuck = true;
	h = (struct chp_membership_host){ 0 };
	chp_membership_host_add(&h, &two);
	chp_membership_host_add(&h, &one);
	cr_assert(h.is_stuck, "one shard holds up the others");

	h = (struct chp_membership_host){ 0 };
	one.store_state = CHP_STORE_DOWN;
	chp_membership_host_add(&h, &one);
	cr_assert_not(h.is_there, "down");
	one.store_state = CHP_STORE_SLOW;
	chp_membership_host_add(&h, &one);
	cr_assert_not(h.is_there, "the other one is down");

	h = (struct chp_membership_host){ 0 };
	one.state = CHP_HOST_LOST_DATA;
	one.store_flags = CHP_STORE_VOLATILE | CHP_STORE_ALLOW_LOSS;
	chp_membership_host_add(&h, &one);
	cr_assert(h.has_lost);
	cr_assert_not(h.is_there);
	cr_assert_not(h.is_volatile, "its loss is allowed");
	one.store_flags = CHP_STORE_VOLATILE | CHP_STORE_SCANS;
	chp_membership_host_add(&h, &one);
	cr_assert(h.is_volatile);

	h = (struct chp_membership_host){ 0 };
	one = (struct chp_host_status){ .state = CHP_HOST_AWAY };
	chp_membership_host_add(&h, &one);
	cr_assert_not(h.is_there);
	cr_assert_not(h.is_ready);
}
