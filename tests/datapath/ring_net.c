/* SPDX-License-Identifier: BSD-3-Clause */
#include "ring_net.h"

#include "pipeline/frame.h"

#include <rte_eth_ring.h>
#include <rte_lcore.h>
#include <rte_prefetch.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define BURST 64u
#define NOWHERE UINT32_MAX

static struct rte_ring *
make_ring(const char *what, uint32_t port, uint32_t queue, uint32_t entries)
{
	char name[RTE_RING_NAMESIZE];

	(void)snprintf(name, sizeof(name), "net_%s%u.%u", what, port, queue);
	return rte_ring_create(name, entries, (int)rte_socket_id(), RING_F_SP_ENQ | RING_F_SC_DEQ);
}

int
ring_net_init(struct ring_net *n, uint32_t n_ports, uint32_t n_queues, uint32_t entries)
{
	*n = (struct ring_net){ .n_ports = n_ports, .n_queues = n_queues };
	if (n_ports > RING_NET_PORTS_MAX || n_queues > RING_NET_QUEUES_MAX)
		return -1;
	for (uint32_t p = 0; p <= n_ports; p++) {
		char name[32];
		int id;

		for (uint32_t q = 0; q < n_queues; q++) {
			n->to[p][q] = make_ring("to", p, q, entries);
			n->from[p][q] = make_ring("from", p, q, entries);
			if (n->to[p][q] == NULL || n->from[p][q] == NULL)
				return -1;
		}
		if (p == n_ports)
			break;
		(void)snprintf(name, sizeof(name), "replica%u", p);
		id = rte_eth_from_rings(name, n->to[p], n_queues, n->from[p], n_queues, rte_socket_id());
		if (id < 0)
			return -1;
		n->port_id[p] = (uint16_t)id;
	}
	n->pool = rte_pktmbuf_pool_create("net_copies", 2047, 64, 0, RTE_MBUF_DEFAULT_BUF_SIZE,
					  (int)rte_socket_id());
	return n->pool != NULL ? 0 : -1;
}

/* ------------------------------------------------------------------ the switch */

static uint32_t
port_of(const struct ring_net *n, const uint8_t mac[6])
{
	for (uint32_t i = 0; i < n->n_macs; i++) {
		if (memcmp(n->known[i].mac, mac, 6) == 0)
			return n->known[i].port;
	}
	return NOWHERE;
}

static void
learn(struct ring_net *n, const uint8_t mac[6], uint32_t port)
{
	if (port_of(n, mac) != NOWHERE || n->n_macs == RING_NET_MACS_MAX)
		return;
	memcpy(n->known[n->n_macs].mac, mac, 6);
	n->known[n->n_macs++].port = port;
}

/* As a NIC that steers by UDP port: packets of a shard always come to the same queue. */
static uint32_t
queue_of(const struct ring_net *n, uint32_t port, const struct rte_mbuf *m)
{
	const struct chp_frame *f = rte_pktmbuf_mtod(m, const void *);

	if (port == n->n_ports || n->n_queues == 1 || m->data_len < CHP_FRAME_BYTES ||
	    f->ether.type != chp_be16(0x0800))
		return 0;
	return chp_be16(f->udp.to) % n->n_queues;
}

static void
flood(struct ring_net *n, uint32_t from, struct rte_mbuf *m)
{
	n->flooded++;
	for (uint32_t p = 0; p <= n->n_ports; p++) {
		struct rte_mbuf *copy;

		if (p == from)
			continue;
		copy = rte_pktmbuf_copy(m, n->pool, 0, UINT32_MAX);
		if (copy == NULL || rte_ring_sp_enqueue(n->to[p][0], copy) != 0) {
			n->lost++;
			rte_pktmbuf_free(copy);
		}
	}
	rte_pktmbuf_free(m);
}

/* Frames in a row to the same queue go together. */
struct run {
	struct rte_ring *ring;
	uint32_t n;
	struct rte_mbuf *mbuf[BURST];
};

static void
flush(struct ring_net *n, struct run *r)
{
	uint32_t taken = r->n > 0 ? rte_ring_sp_enqueue_burst(r->ring, (void **)r->mbuf, r->n, NULL) : 0;

	n->forwarded += taken;
	n->lost += r->n - taken;
	if (taken < r->n)
		rte_pktmbuf_free_bulk(&r->mbuf[taken], r->n - taken);
	r->n = 0;
}

static void
forward(struct ring_net *n, uint32_t from, struct rte_mbuf *m, struct run *r)
{
	const struct chp_ether *e = rte_pktmbuf_mtod(m, const void *);
	uint32_t to;

	if (n->tap != NULL && !n->tap(n->tap_context, from, m)) {
		rte_pktmbuf_free(m);
		return;
	}
	to = (e->to[0] & 1) != 0 ? NOWHERE : port_of(n, e->to);
	if (to == NOWHERE) {
		learn(n, e->from, from);
		flood(n, from, m);
		return;
	}
	struct rte_ring *ring = n->to[to][queue_of(n, to, m)];

	if (ring != r->ring || r->n == BURST) {
		flush(n, r);
		r->ring = ring;
	}
	r->mbuf[r->n++] = m;
}

uint32_t
ring_net_poll(struct ring_net *n)
{
	struct run r = { .ring = NULL };
	uint32_t all = 0;

	for (uint32_t p = 0; p <= n->n_ports; p++) {
		for (uint32_t q = 0; q < n->n_queues; q++) {
			struct rte_mbuf *m[BURST];
			uint32_t got = rte_ring_sc_dequeue_burst(n->from[p][q], (void **)m, BURST, NULL);

			for (uint32_t i = 0; i < got; i++) {
				if (i + 4 < got)
					rte_prefetch0(rte_pktmbuf_mtod(m[i + 4], void *));
				forward(n, p, m[i], &r);
			}
			all += got;
		}
	}
	flush(n, &r);
	return all;
}

bool
ring_net_send(struct ring_net *n, struct rte_mbuf *m)
{
	return rte_ring_sp_enqueue(n->from[n->n_ports][0], m) == 0;
}

uint32_t
ring_net_receive(struct ring_net *n, struct rte_mbuf **m, uint32_t max)
{
	return rte_ring_sc_dequeue_burst(n->to[n->n_ports][0], (void **)m, max, NULL);
}
