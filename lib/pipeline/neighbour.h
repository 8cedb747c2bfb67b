/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * neighbour.h - the MAC addresses of peers, or of the gateway for peers behind it.
 *
 * Pure but for one thing: the control lcore alone learns, TX stages read at the same time. A MAC address
 * is one 64-bit word, so that a reader sees the old or the new one. Clients need no entry: a reply goes
 * back to where its request came from.
 */
#ifndef CHP_PIPELINE_NEIGHBOUR_H
#define CHP_PIPELINE_NEIGHBOUR_H

#include "base/limits.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Requests begin at this interval and slow down to the longest while nobody answers. */
#define CHP_ARP_NS_MIN UINT64_C(50000000)
#define CHP_ARP_NS_MAX UINT64_C(5000000000)
/* A known address is asked again after this; it stays in use while there is no other answer. */
#define CHP_ARP_REFRESH_NS UINT64_C(30000000000)

/* Questions to a known MAC address before everybody is asked. */
#define CHP_ARP_TRIES 2u
/* Against another host with our address we say whose it is at most this often. */
#define CHP_ARP_DEFEND_NS UINT64_C(10000000)

struct chp_neighbour {
	uint32_t ip;    /* host byte order */
	uint64_t nodes; /* peers reached through it */
	uint8_t mac[6];
	bool known;
	uint32_t unanswered; /* requests since the last answer */
	uint64_t ask_ns;     /* when to ask next */
};

struct chp_neighbours {
	_Atomic(uint64_t) mac[CHP_NODES_MAX]; /* by node id; 0 = not known */
	struct chp_neighbour entry[CHP_NODES_MAX];
	uint32_t n;
};

/** No neighbours. */
void chp_neighbours_init(struct chp_neighbours *t);

/** A peer is reached through an address, its own or the gateway's; asking starts at now_ns. */
void chp_neighbours_add(struct chp_neighbours *t, uint32_t node, uint32_t ip, uint64_t now_ns);

/**
 * An ARP packet said so. Who has another MAC address than the known one is believed when that does not answer any
 * more: a second host with a member's address must not cut the member off.
 *
 * @return  whether the address is one of ours and its MAC address is a new one now
 */
bool chp_neighbours_learn(struct chp_neighbours *t, uint32_t ip, const uint8_t mac[6], uint64_t now_ns);

/**
 * The next address to ask for now; NULL when none is due. Ask mac when it is known and answered lately,
 * otherwise everybody: `known && unanswered <= CHP_ARP_TRIES`.
 */
const struct chp_neighbour *chp_neighbours_ask(struct chp_neighbours *t, uint64_t now_ns);

/** When chp_neighbours_ask will have something; CHP_NEVER if never. */
uint64_t chp_neighbours_wake_ns(const struct chp_neighbours *t);

/** The MAC address of a peer; false when it is not known. Any lcore. */
static inline bool
chp_neighbours_mac(const struct chp_neighbours *t, uint32_t node, uint8_t mac[6])
{
	uint64_t word = atomic_load_explicit(&t->mac[node], memory_order_relaxed);

	for (uint32_t i = 0; i < 6; i++)
		mac[i] = (uint8_t)(word >> (8 * i));
	return word != 0;
}

#endif /* CHP_PIPELINE_NEIGHBOUR_H */
