/* SPDX-License-Identifier: BSD-3-Clause */
/* The conformance suite over two ports of one process, net_ring, each the other's end. */
#include "conformance.h"
#include "eal.h"

#include <rte_eth_ring.h>
#include <rte_ring.h>

#define ENTRIES 1024u

static void
start(const struct transport *t, struct chp_channel *end[2], uint32_t which)
{
	end[which] = eal_open(which == HOST ? "net_ring_host" : "net_ring_replica", which == HOST,
			      t->payload_bytes_max);
	cr_assert_not_null(end[which]);
}

static void
begin(const struct transport *t, struct chp_channel *end[2])
{
	struct rte_ring *to[2];

	cr_assert(eal_start(NULL));
	to[REPLICA] = rte_ring_create("to_replica", ENTRIES, 0, RING_F_SP_ENQ | RING_F_SC_DEQ);
	to[HOST] = rte_ring_create("to_host", ENTRIES, 0, RING_F_SP_ENQ | RING_F_SC_DEQ);
	cr_assert_geq(rte_eth_from_rings("replica", &to[REPLICA], 1, &to[HOST], 1, 0), 0);
	cr_assert_geq(rte_eth_from_rings("host", &to[HOST], 1, &to[REPLICA], 1, 0), 0);
	start(t, end, REPLICA);
	start(t, end, HOST);
}

static void
finish(const struct transport *t, struct chp_channel *end[2])
{
	(void)t;
	chp_channel_close(end[0]);
	chp_channel_close(end[1]);
}

static const struct transport ring = {
	.payload_bytes_max = CHP_PAYLOAD_BYTES_MIN,
	.is_lossless = true,
	.begin = begin,
	.finish = finish,
};

/* What waits in a ring is of the sender's pool: an end cannot go alone. test_vhost.c has ends that do. */
CONFORMANCE_STEADY(ring, &ring)
