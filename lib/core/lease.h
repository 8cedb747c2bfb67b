/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lease.h - the books of leases: grants that this node gave, grants that it holds (SAFETY 17).
 *
 * A grant is a promise of one voter to another: "for lease_ns from now I accept no view without you". With
 * such promises of a majority of the voters no view without the holder can be decided, so what it has is
 * what everybody has, and it may answer reads on its own.
 *
 * Clocks are not compared, only their rates matter: each may be off by drift_ppm from true time. The
 * giver counts lease_ns on its clock from the moment before the grant is sent. The holder counts from the
 * moment before it asked, lease_ns less twice the drift (pitfall P12): it asked before the giver gave, and
 * (1 - 2 d) / (1 - d) <= 1 / (1 + d), so its time is over no later than the giver's, in true time.
 *
 * docs/membership.md has the rules for who may give, and when. This file only keeps the books.
 *
 * Owner: the membership; not thread-safe. Nothing allocates.
 */
#ifndef CHP_CORE_LEASE_H
#define CHP_CORE_LEASE_H

#include "base/bytes.h"
#include "base/limits.h"

#include <stdint.h>

/* The longest lease. Fail-over takes at least as long as the lease, so nobody wants this much. */
#define CHP_LEASE_NS_MAX UINT64_C(10000000000)
/* The worst clock: twice this is what a holder gives away of its lease. */
#define CHP_CLOCK_DRIFT_PPM_MAX 100000u

struct chp_lease {
	/* Given, by node id: the last process that got one, and when it is over on our clock. */
	uint64_t given_incarnation[CHP_NODES_MAX];
	uint64_t given_until_ns[CHP_NODES_MAX];
	/* Held, by node id of the giver, in the present view; 0 = none. */
	uint64_t held_until_ns[CHP_NODES_MAX];
	uint64_t kept_until_ns; /* what was held when the present view was entered */
};

void chp_lease_init(struct chp_lease *l);

/**
 * Write down a grant, before it is sent. Grants stay in the books through view changes: what was promised
 * stays promised. An older process of the node needs no place: the view that has another one was decided
 * after its leases were over.
 */
void chp_lease_give(struct chp_lease *l, uint32_t node, uint64_t incarnation, uint64_t until_ns);

/** When the last grant given to this process is over; 0 when there was none. */
uint64_t chp_lease_given_until(const struct chp_lease *l, uint32_t node, uint64_t incarnation);

/** How much of a lease its holder may count, from the time it asked. */
uint64_t chp_lease_held_ns(uint64_t lease_ns, uint32_t drift_ppm);

/** A grant came from a voter of the present view. A later one that ends earlier changes nothing. */
void chp_lease_take(struct chp_lease *l, uint32_t node, uint64_t until_ns);

/**
 * Until when a majority of the voters has granted, this node always counting for itself. CHP_NEVER where
 * it is a majority alone. What was held in the view before counts on: it was decided with the same
 * promise that no view without this process comes before it is over.
 */
uint64_t chp_lease_until(const struct chp_lease *l, uint32_t self, uint64_t voters);

/**
 * Until when `needed` of these nodes have granted, this node always counting for itself. With less than `needed`
 * nodes, or grants, what was held before.
 */
uint64_t chp_lease_until_granted(const struct chp_lease *l, uint32_t self, uint64_t nodes, uint32_t needed);

/**
 * A new view was entered: grants of the old view are no longer added up.
 *
 * @param kept_until_ns  chp_lease_until of the old view where this node stays a voter, else 0
 */
void chp_lease_enter(struct chp_lease *l, uint64_t kept_until_ns);

#endif /* CHP_CORE_LEASE_H */
