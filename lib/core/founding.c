/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/founding.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/mutation.h"

static uint64_t
all_of(uint32_t n_nodes)
{
	return UINT64_MAX >> (CHP_NODES_MAX - n_nodes);
}

void
chp_membership_host_add(struct chp_membership_host *h, const struct chp_host_status *s)
{
	const bool answers = s->has_record && s->store_state != CHP_STORE_DOWN;
	const bool is_there = answers && (s->state == CHP_HOST_WAITING || s->state == CHP_HOST_READY);
	const bool is_ready = answers && s->state == CHP_HOST_READY;
	const uint32_t forgets = CHP_STORE_VOLATILE, allowed = CHP_STORE_ALLOW_LOSS;

	h->is_there = is_there && (h->is_there || h->shards == 0);
	h->is_ready = is_ready && (h->is_ready || h->shards == 0);
	h->has_lost |= s->state == CHP_HOST_LOST_DATA;
	h->is_volatile |= (s->store_flags & (forgets | allowed)) == forgets;
	h->has_items |= s->items != 0 || s->newest != 0;
	h->recorded_min = h->shards == 0 ? s->epoch : chp_min_u64(h->recorded_min, s->epoch);
	h->recorded_max = chp_max_u64(h->recorded_max, s->epoch);
	h->life_min = h->shards == 0 ? s->life : chp_min_u64(h->life_min, s->life);
	h->life_max = chp_max_u64(h->life_max, s->life);
	h->log_fill_ppm = chp_max_u64(h->log_fill_ppm, s->log_fill_ppm);
	h->is_stuck |= s->cache_is_stuck;
	h->shards++;
}

/* The fit members that hear each other, each all the others: who does not hear one of them is left out. */
static uint64_t
who_is_fit(const struct chp_founding_member *member, uint32_t n_nodes)
{
	uint64_t fit = 0;

	for (uint32_t i = 0; i < n_nodes; i++) {
		if (member[i].is_fit)
			fit |= chp_bit(i);
	}
	for (uint32_t i = n_nodes; i-- > 0;) {
		if ((fit & ~member[i].hears) != 0)
			fit &= ~chp_bit(i);
	}
	return fit;
}

/* Whether what a store says of the past counts. One that was never in this cluster has nothing to say. */
static bool
remembers(const struct chp_membership_host *h)
{
	return !h->is_volatile && h->life_max != 0;
}

static uint64_t
who_remembers(const struct chp_founding_member *member, uint64_t fit)
{
	uint64_t who = 0;

	for (uint64_t rest = fit; rest != 0; rest &= rest - 1) {
		if (remembers(&member[chp_first_bit(rest)].host))
			who |= rest & -rest;
	}
	return who;
}

/*
 * The bounds that a store must reach to count: `recorded`, the highest epoch that some member has recorded in all of
 * its shards, or `life`: a life of a generation of which nobody has recorded anything yet. Such a one has perhaps
 * served for a while: what it wrote is in the stores of those who began it, whatever they had recorded before.
 */
static void
find_bounds(const struct chp_founding_member *member, uint64_t live, uint64_t *recorded, uint64_t *life)
{
	uint64_t newest = 0;

	*recorded = 0;
	for (uint64_t rest = who_remembers(member, live); rest != 0; rest &= rest - 1) {
		const struct chp_membership_host *h = &member[chp_first_bit(rest)].host;

		newest = chp_max_u64(newest, chp_generation(h->life_max));
		*recorded = chp_max_u64(*recorded, h->recorded_min);
	}
	*life = newest > chp_generation(*recorded) ? chp_epoch_of_generation(newest) : UINT64_MAX;
}

/* Epoch, voters, learners and sources of a view of `live`. False: every generation is used up. */
static bool
choose(const struct chp_founding_member *member, uint64_t live, bool is_all, bool keeps_members, struct chp_view *v)
{
	uint64_t known = 0, recorded, life;
	bool has_items = false;

	find_bounds(member, live, &recorded, &life);
	for (uint64_t rest = live; rest != 0; rest &= rest - 1) {
		const struct chp_membership_host *h = &member[chp_first_bit(rest)].host;

		known = chp_max_u64(known, chp_max_u64(h->life_max, h->recorded_max));
		has_items |= remembers(h) && h->has_items;
	}
	v->epoch = known == 0 ? 1 : chp_epoch_of_generation(chp_generation(known) + 1);
	v->voters = live;
	if (chp_generation(v->epoch) > CHP_GENERATION_MAX)
		return false;
	if (is_all && !has_items)
		return true;
	if (keeps_members) {
		v->sources = who_remembers(member, live);
		return true;
	}
	v->voters = 0;
	for (uint64_t rest = live; rest != 0; rest &= rest - 1) {
		const struct chp_membership_host *h = &member[chp_first_bit(rest)].host;
		const bool is_newest = h->recorded_max >= recorded || h->life_max >= life;

		if (remembers(h) && (is_newest || CHP_MUTATED(S34_OLD_SOURCE)))
			v->voters |= rest & -rest;
	}
	v->learners = live & ~v->voters;
	v->sources = v->voters;
	return true;
}

enum chp_founding_result
chp_founding_view(const struct chp_founding_member *member, uint32_t n_nodes, bool has_hosts, bool keeps_members,
		  struct chp_view *v)
{
	uint64_t live = who_is_fit(member, n_nodes);
	bool is_all = live == all_of(n_nodes);

	*v = (struct chp_view){ .epoch = 1, .voters = live, .next_writer = (uint16_t)(n_nodes + 1) };
	if (!is_all) {
		if (!has_hosts)
			return CHP_FOUNDING_TOO_FEW;
		live = who_remembers(member, live);
		if (2 * chp_count_bits(live) <= n_nodes && !(CHP_MUTATED(S34_MINORITY_FOUNDS) && live != 0))
			return CHP_FOUNDING_TOO_FEW;
	}
	if (has_hosts && !choose(member, live, is_all, keeps_members, v))
		return CHP_FOUNDING_EXHAUSTED;
	for (uint64_t rest = live; rest != 0; rest &= rest - 1) {
		uint32_t i = chp_first_bit(rest);

		v->incarnation[i] = member[i].incarnation;
		v->writer[i] = (uint16_t)(i + 1);
	}
	return is_all ? CHP_FOUNDING_ALL : CHP_FOUNDING_PART;
}

bool
chp_founding_is_view(const struct chp_view *v, uint32_t n_nodes, bool has_hosts, bool keeps_members)
{
	const uint64_t live = chp_view_live(v);

	if (!chp_epoch_is_first(v->epoch) || chp_generation(v->epoch) > (has_hosts ? CHP_GENERATION_MAX : 0) ||
	    v->next_writer != n_nodes + 1)
		return false;
	if ((live & ~all_of(n_nodes)) != 0 || (v->voters & v->learners) != 0 || v->voters == 0)
		return false;
	if (v->sources == 0 && v->voters != all_of(n_nodes))
		return false;
	if (keeps_members ? v->learners != 0 || (v->sources & ~v->voters) != 0
			  : v->sources != 0 && v->sources != v->voters)
		return false;
	if (v->sources != 0 && (v->epoch == 1 || 2 * chp_count_bits(live) <= n_nodes) &&
	    !CHP_MUTATED(S34_MINORITY_FOUNDS))
		return false;
	for (uint32_t i = 0; i < n_nodes; i++) {
		const bool is_live = (live & chp_bit(i)) != 0;

		if (v->writer[i] != (is_live ? i + 1 : 0) || (v->incarnation[i] != 0) != is_live)
			return false;
	}
	return true;
}
