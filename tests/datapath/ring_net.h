/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ring_net.h - an Ethernet in one process: net_ring ports of replicas, rings of clients, a learning switch.
 *
 * Ports 0 .. n_ports-1 are DPDK ports; one more, the outside, is a pair of rings for whoever plays the
 * clients. Nothing is copied but broadcasts.
 *
 * Owner: one thread calls ring_net_poll and uses the outside.
 */
#ifndef TESTS_RING_NET_H
#define TESTS_RING_NET_H

#include <rte_mbuf.h>
#include <rte_ring.h>

#include <stdbool.h>
#include <stdint.h>

#define RING_NET_PORTS_MAX 9u
#define RING_NET_QUEUES_MAX 4u
#define RING_NET_MACS_MAX 32u

struct ring_net {
	uint32_t n_ports;  /* DPDK ports; the outside is port n_ports */
	uint32_t n_queues; /* of each DPDK port, per direction */
	uint16_t port_id[RING_NET_PORTS_MAX];
	struct rte_ring *to[RING_NET_PORTS_MAX + 1][RING_NET_QUEUES_MAX];   /* towards the port */
	struct rte_ring *from[RING_NET_PORTS_MAX + 1][RING_NET_QUEUES_MAX]; /* what it sent */
	struct rte_mempool *pool; /* for copies of broadcasts */
	uint32_t n_macs;
	struct {
		uint8_t mac[6];
		uint32_t port;
	} known[RING_NET_MACS_MAX];
	uint64_t forwarded, flooded, lost; /* lost: the ring towards a port was full */
	/* Called for every frame before it is forwarded; false: drop it. May be NULL. */
	bool (*tap)(void *context, uint32_t from, struct rte_mbuf *m);
	void *tap_context;
};

/** Create the rings and DPDK ports. Returns 0 or -1. */
int ring_net_init(struct ring_net *n, uint32_t n_ports, uint32_t n_queues, uint32_t entries);

/** Forward what the ports sent, at most a burst from each queue. Returns frames taken. */
uint32_t ring_net_poll(struct ring_net *n);

/** Send a frame from the outside. False when the ring is full: the mbuf stays the caller's. */
bool ring_net_send(struct ring_net *n, struct rte_mbuf *m);

/** The next frames that came to the outside. */
uint32_t ring_net_receive(struct ring_net *n, struct rte_mbuf **m, uint32_t max);

#endif /* TESTS_RING_NET_H */
