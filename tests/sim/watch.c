/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What must hold of views and leases over all nodes: one view for each epoch, most of the voters of one in the next,
 * no writer number twice, and no lease of anybody whom a view in force has dropped.
 */
#include "kind.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static bool
names(const struct chp_view *v, uint64_t mask, uint32_t n, uint64_t incarnation)
{
	return (mask & chp_bit(n)) != 0 && v->incarnation[n] == incarnation;
}

static bool
same_view(const struct sim_world *w, const struct chp_view *a, const struct chp_view *b)
{
	if (a->voters != b->voters || a->learners != b->learners || a->next_writer != b->next_writer)
		return false;
	for (uint32_t n = 0; n < w->config.n_nodes; n++)
		if ((chp_view_live(a) & chp_bit(n)) != 0 &&
		    (a->incarnation[n] != b->incarnation[n] || a->writer[n] != b->writer[n]))
			return false;
	return true;
}

/* ------------------------------------------------------------------ what may come to be in force */

static bool
same_possible(const struct sim_world *w, const struct sim_possible *a, const struct sim_possible *b)
{
	if (a->epoch != b->epoch || a->voters != b->voters)
		return false;
	for (uint32_t n = 0; n < w->config.n_nodes; n++)
		if ((a->voters & chp_bit(n)) != 0 && a->incarnation[n] != b->incarnation[n])
			return false;
	return true;
}

static void
add_possible(struct sim_world *w, const struct sim_possible *new)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < w->n_possible; i++) {
		struct sim_possible *p = &w->possible[i];

		if (same_possible(w, p, new)) {
			p->entered |= new->entered;
			return;
		}
		/* One is in force, so its rivals never will be; and nobody is in what is long past. */
		if ((new->entered && p->epoch == new->epoch) || p->epoch + SIM_POSSIBLE_MAX / 2 < new->epoch)
			continue;
		w->possible[kept++] = *p;
	}
	w->n_possible = kept;
	if (w->n_possible == SIM_POSSIBLE_MAX) {
		memmove(w->possible, w->possible + 1, (SIM_POSSIBLE_MAX - 1) * sizeof(*new));
		w->n_possible--;
	}
	w->possible[w->n_possible++] = *new;
}

void
sim_watch_proposal(struct sim_world *w, const struct sim_packet *packet)
{
	const struct chp_control_view *v = (const void *)packet->data;
	const struct chp_control_member *member = chp_control_view_members(v);
	struct sim_possible p = { 0 };

	if (v->header.type != CHP_CONTROL_ACCEPT)
		return;
	if (sim_entered(w, v->epoch) != NULL)
		return; /* decided already: the value can be no other */
	p.epoch = v->epoch;
	p.voters = v->voters;
	for (uint32_t n = 0; n < w->config.n_nodes; n++)
		p.incarnation[n] = member[n].incarnation;
	add_possible(w, &p);
}

/* ------------------------------------------------------------------ views */

/*
 * Another first view. It has nobody in common with the one before, whose members are all gone; they took with them
 * what they had acknowledged.
 */
static void
founded_again(struct sim_world *w, const struct chp_view *v)
{
	const struct chp_view *old = &w->entered[0];

	for (uint32_t n = 0; n < w->config.n_nodes; n++)
		if (old->incarnation[n] == v->incarnation[n])
			sim_fail(w, "two first views name the same incarnation of node %u", n);
	if (w->served) {
		w->refounded = true;
		if (w->config.budget != SIM_BEYOND)
			sim_fail(w, "a second first view was formed after the first had served");
	}
	w->n_entered = 0;
	w->n_possible = 0;
	w->same_epoch = 0;
	sim_once_forget(w);
	w->config.kind->forget(w);
	memset(w->writer, 0, sizeof(w->writer));
}

static void
check_writers(struct sim_world *w, const struct chp_view *v)
{
	for (uint64_t live = chp_view_live(v); live != 0; live &= live - 1) {
		const uint32_t n = chp_first_bit(live);
		uint64_t *of = &w->writer[v->writer[n]];

		if (v->writer[n] == 0 || (*of != 0 && *of != v->incarnation[n]))
			sim_fail(w, "view %" PRIu64 " gives node %u the writer number %u of another", v->epoch, n,
				 v->writer[n]);
		*of = v->incarnation[n];
	}
}

/* What the step from the view before did, and whether it may be. */
static void
check_step(struct sim_world *w, const struct chp_view *v)
{
	const struct chp_view *before;
	uint32_t kept = 0;

	before = sim_entered(w, v->epoch - 1);
	if (before == NULL)
		return;
	if (before->sources != 0)
		sim_cold_lost(w, before, v);
	for (uint64_t live = chp_view_live(before); live != 0; live &= live - 1) {
		const uint32_t n = chp_first_bit(live);
		const bool voted = (before->voters & chp_bit(n)) != 0;
		const bool votes = names(v, v->voters, n, before->incarnation[n]);

		w->seen.drops += !names(v, chp_view_live(v), n, before->incarnation[n]);
		w->seen.rejoins += !voted && votes;
		kept += voted && votes;
	}
	if (kept < chp_count_bits(before->voters) / 2 + 1)
		sim_fail(w, "view %" PRIu64 " keeps %u of the %u voters before", v->epoch, kept,
			 chp_count_bits(before->voters));
}

static void
record_view(struct sim_world *w, const struct chp_view *v)
{
	struct sim_possible p = { .epoch = v->epoch, .voters = v->voters, .entered = true };
	const uint32_t number = SIM_NUMBER(v->epoch);

	if (number > w->cap_entered) {
		uint32_t cap = chp_pow2_up(number + 16);

		w->entered = realloc(w->entered, cap * sizeof(*w->entered));
		CHP_ASSERT(w->entered != NULL);
		w->cap_entered = cap;
	}
	for (; w->n_entered < number; w->n_entered++)
		w->entered[w->n_entered].epoch = 0;
	w->entered[number - 1] = *v;
	memcpy(p.incarnation, v->incarnation, sizeof(p.incarnation));
	add_possible(w, &p);
	w->seen.views++;
	check_writers(w, v);
	check_step(w, v);
}

/* [SAFETY 17] A view is in force: nobody whom it dropped may still serve. */
static void
check_leases(struct sim_world *w, uint32_t by, const struct chp_view *v)
{
	for (uint32_t n = 0; n < w->config.n_nodes; n++) {
		const struct sim_node *node = &w->node[n];
		const uint64_t clock_ns = sim_node_clock(w, n);

		if (!node->alive || clock_ns >= node->lease_until_ns || node->view.epoch >= v->epoch ||
		    names(v, chp_view_live(v), n, node->membership.incarnation))
			continue;
		sim_fail(w, "node %u enters view %" PRIu64 ", and node %u, which is not in it, has a lease for %" PRIu64
			 " us more", by, v->epoch, n, (node->lease_until_ns - clock_ns) / 1000);
	}
}

void
sim_watch_view(struct sim_world *w, uint32_t n)
{
	const struct chp_view *v = &w->node[n].view;
	const struct chp_view *known;

	sim_trace(w, "node %u enters view %" PRIu64 ": voters %" PRIx64 " learners %" PRIx64, n, v->epoch, v->voters,
		  v->learners);
	if (SIM_NUMBER(v->epoch) == 0 || SIM_NUMBER(v->epoch) >= SIM_EPOCHS) {
		sim_fail(w, "view %" PRIu64 ": too many", v->epoch);
		return;
	}
	if (v->epoch >> CHP_GENERATION_SHIFT > w->generation)
		sim_cold_start(w, v);
	known = sim_entered(w, v->epoch);
	if (known != NULL && !same_view(w, known, v)) {
		if (v->epoch == 1)
			founded_again(w, v);
		else
			sim_fail(w, "two views of epoch %" PRIu64 ": voters %" PRIx64 " and %" PRIx64, v->epoch,
				 known->voters, v->voters);
		known = NULL;
	}
	if (known == NULL)
		record_view(w, v);
	check_leases(w, n, v);
}

/* The other way round: a lease that is taken or kept in spite of a view in force. */
void
sim_watch_lease(struct sim_world *w, uint32_t n)
{
	const struct sim_node *node = &w->node[n];
	const struct chp_view *newest = sim_newest_view(w);

	if (newest == NULL || sim_node_clock(w, n) >= node->lease_until_ns)
		return;
	if (chp_membership_view(&node->membership) == NULL)
		sim_fail(w, "node %u has a lease and no view", n);
	else if (chp_membership_view(&node->membership)->epoch < newest->epoch &&
		 !names(newest, chp_view_live(newest), n, node->membership.incarnation))
		sim_fail(w, "node %u has a lease, and view %" PRIu64 ", which is in force, does not name it", n,
			 newest->epoch);
}
