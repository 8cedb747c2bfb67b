/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * founding.h - what the first view of a cluster is: from which members there are, and what their hosts' stores hold.
 *
 * Without hosts: all configured members. With hosts a cluster may begin again after all replicas lost their memory,
 * from what their stores hold (a cold start, SAFETY 34). Then:
 *
 *   who takes part   all configured members, or those of a majority whose stores remember that they were in this
 *                    cluster: whatever was durable at a majority is known to one of them
 *   its epoch        the first of a generation above all that any of their stores knows of
 *   its voters       those whose stores have the highest recorded epoch, and those that began a generation of which
 *                    nobody has recorded anything yet: what others hold may have been superseded. The same are the
 *                    view's `sources`
 *   its learners     the others
 *
 * Protocols that keep their members (core/membership.h) have stores of one kind only: what a log committed, in its
 * order. There the newest version of any majority is the key's, so all who take part are voters, and those who
 * remember are sources, whatever they have recorded.
 *
 * A member's shards have a store each, which record an epoch one after the other. The highest epoch that some member
 * has recorded in all of its shards is a bound: each shard's best store is at a member that has recorded as much in
 * one of its shards at least. So these are the sources, and shards whose stores differ go by the epoch of each.
 *
 * Pure functions. docs/membership.md, "Cold start", has why two first views cannot both be entered.
 */
#ifndef CHP_CORE_FOUNDING_H
#define CHP_CORE_FOUNDING_H

#include "core/host.h"
#include "protocols/view.h"

#include <stdbool.h>
#include <stdint.h>

/* What the shards of one member say of their host, all together. Zeros: no shard has said anything. */
struct chp_membership_host {
	uint32_t shards;       /* that were added */
	bool is_there;         /* every shard's store answers, so all that follows is known */
	bool is_ready;         /* and works: this life has begun there */
	bool has_lost;         /* a store holds less than it had reported durable (SAFETY 29) */
	bool is_volatile;      /* a store may forget: what it says of the past does not count */
	bool has_items;        /* a store holds something */
	uint64_t recorded_min; /* epochs that the stores have recorded: the lowest, the highest */
	uint64_t recorded_max;
	uint64_t life_min;     /* lives that have begun in the stores */
	uint64_t life_max;
	uint64_t log_fill_ppm; /* of the fullest log */
	bool is_stuck;         /* a cache is full of what is not saved */
};

/** Add what one shard says. Begin with a host of zeros, and add every shard of this node. */
void chp_membership_host_add(struct chp_membership_host *h, const struct chp_host_status *s);

/* What the founder knows of one configured member. */
struct chp_founding_member {
	uint64_t incarnation;
	bool is_fit;           /* fresh, hears the founder and is heard by it; with hosts, its host is there */
	uint64_t hears;        /* node mask: whom it hears in packets of full size, itself included */
	struct chp_membership_host host;
};

enum chp_founding_result {
	CHP_FOUNDING_ALL = 0,    /* a view of all configured members */
	CHP_FOUNDING_PART,       /* of those whose stores remember, a majority: there may be more soon */
	CHP_FOUNDING_TOO_FEW,    /* none yet */
	CHP_FOUNDING_EXHAUSTED,  /* none ever: every generation is used up */
};

/**
 * The first view that the founder would have. Whom some other does not hear is left out.
 *
 * @param member  n_nodes of them
 * @param v       set for ALL and PART
 */
enum chp_founding_result chp_founding_view(const struct chp_founding_member *member, uint32_t n_nodes, bool has_hosts,
					   bool keeps_members, struct chp_view *v);

/** Whether a view is one that chp_founding_view may make. */
bool chp_founding_is_view(const struct chp_view *v, uint32_t n_nodes, bool has_hosts, bool keeps_members);

#endif /* CHP_CORE_FOUNDING_H */
