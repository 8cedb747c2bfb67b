/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tx.c - the TX stage: checksums, headers (Ethernet, IPv4 and UDP, or Ethernet alone), burst. No protocol state.
 */
#include "base/assert.h"
#include "pipeline/stages.h"

#include <string.h>

static void
drop(struct chp_tx *s, struct rte_mbuf *m, enum chp_pipeline_counter why)
{
	chp_count(&s->lcore->counters, why, 1);
	rte_pktmbuf_free(m);
}

/*
 * Headers of a packet to a peer. Its CRC-32C covers every byte behind them, so the UDP checksum is left
 * out (0, "none"), which saves a pass over the packet at both ends.
 */
static void
write_udp(struct chp_tx *s, struct rte_mbuf *m, const uint8_t mac[CHP_MAC_BYTES])
{
	struct chp_pipeline *p = s->p;
	uint16_t port = chp_be16((uint16_t)(p->cluster.port_base + chp_tag_port(m)));
	struct chp_address to = {
		.ip = chp_be32(p->cluster.member[chp_tag_peer(m)].address),
		.port = port,
		.local_port = port,
	};

	memcpy(to.mac, mac, sizeof(to.mac));
	chp_frame_build(rte_pktmbuf_mtod(m, void *), m->data_len - CHP_FRAME_BYTES, &p->port.self, &to, false);
}

/* The same without IPv4 and UDP. The packet stays where it is: its header takes less of the room before it. */
static void
write_direct(struct chp_tx *s, struct rte_mbuf *m, const uint8_t mac[CHP_MAC_BYTES])
{
	struct chp_pipeline *p = s->p;
	bool control = chp_tag_kind_of(m) == CHP_TAG_CONTROL;
	void *frame = rte_pktmbuf_adj(m, (uint16_t)(CHP_FRAME_BYTES - CHP_DIRECT_BYTES));

	chp_frame_direct(frame, m->data_len - CHP_DIRECT_BYTES, &p->port.self, mac, p->node.node, chp_tag_peer(m),
			 control ? CHP_DIRECT_CONTROL : chp_tag_port(m));
}

static bool
finish_peer(struct chp_tx *s, struct rte_mbuf *m)
{
	struct chp_pipeline *p = s->p;
	uint8_t mac[CHP_MAC_BYTES];

	if (!chp_neighbours_mac(&p->neighbours, chp_tag_peer(m), mac)) {
		drop(s, m, CHP_COUNT_drop_tx_neighbour);
		return false;
	}
	if (chp_tag_kind_of(m) == CHP_TAG_PEER)
		chp_peer_seal(rte_pktmbuf_mtod_offset(m, uint8_t *, CHP_FRAME_BYTES), m->data_len - CHP_FRAME_BYTES);
	if (p->node.peers == CHP_PEERS_ETHERNET)
		write_direct(s, m, mac);
	else
		write_udp(s, m, mac);
	return true;
}

/* Headers of a reply to a client, with the checksum that its kernel checks. */
static void
finish_reply(struct chp_tx *s, struct rte_mbuf *m)
{
	uint8_t *frame = rte_pktmbuf_mtod(m, uint8_t *);
	bool offload = s->p->port.tx_checksum;
	struct chp_address to;

	memcpy(&to, frame, sizeof(to));
	chp_frame_build(frame, m->data_len - CHP_FRAME_BYTES, &s->p->port.self, &to, !offload);
	if (offload) {
		chp_frame_offload(frame);
		m->l2_len = sizeof(struct chp_ether);
		m->l3_len = sizeof(struct chp_ipv4);
		m->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_UDP_CKSUM;
	}
}

/* Whether the mbuf is still to be sent. */
static bool
finish(struct chp_tx *s, struct rte_mbuf *m)
{
	m->ol_flags = 0; /* what a port found when the mbuf was received */
	switch (chp_tag_kind_of(m)) {
	case CHP_TAG_PEER:
	case CHP_TAG_CONTROL:
		return finish_peer(s, m);
	case CHP_TAG_REPLY:
		finish_reply(s, m);
		return true;
	default:
		CHP_ASSERT_OP(chp_tag_kind_of(m), ==, CHP_TAG_FRAME);
		return true;
	}
}

static void
append(struct chp_tx *s, struct rte_mbuf *m)
{
	CHP_ASSERT_OP(s->n_pending, <, 2 * CHP_PORT_BURST);
	if (finish(s, m))
		s->pending[s->n_pending++] = m;
}

/* Append a packet with the faults that were asked for. */
static void
append_impaired(struct chp_tx *s, struct rte_mbuf *m)
{
	struct chp_pipeline *p = s->p;
	enum chp_tag_kind kind = chp_tag_kind_of(m);
	struct rte_mbuf *copy;

	if (kind == CHP_TAG_FRAME) {
		append(s, m);
		return;
	}
	switch (chp_impair_draw(&p->impair, s->delayed,
				kind == CHP_TAG_REPLY ? UINT32_MAX : chp_tag_peer(m))) {
	case CHP_FATE_DROP:
		drop(s, m, CHP_COUNT_impair_dropped);
		return;
	case CHP_FATE_CUT:
		drop(s, m, CHP_COUNT_impair_cut);
		return;
	case CHP_FATE_DELAY:
		if (chp_delayed_hold(s->delayed, &p->impair, m, chp_clock_ns(&p->clock))) {
			chp_count(&s->lcore->counters, CHP_COUNT_impair_delayed, 1);
			return;
		}
		break;
	case CHP_FATE_DUPLICATE:
		copy = rte_pktmbuf_copy(m, p->control_pool, 0, UINT32_MAX);
		if (copy != NULL) {
			copy->hash.usr = m->hash.usr;
			chp_count(&s->lcore->counters, CHP_COUNT_impair_duplicated, 1);
			append(s, copy);
		}
		break;
	case CHP_FATE_PASS:
		break;
	}
	append(s, m);
}

/* Give the port what waits. It owns the first `sent`; the rest is offered again (pitfall P20). */
static void
burst(struct chp_tx *s)
{
	struct chp_counters *c = &s->lcore->counters;
	uint64_t bytes = 0, now_ns;
	uint32_t sent;

	for (uint32_t i = 0; i < s->n_pending; i++)
		bytes += s->pending[i]->pkt_len;
	sent = rte_eth_tx_burst(s->p->port.id, (uint16_t)s->index, s->pending, (uint16_t)s->n_pending);
	if (sent == s->n_pending) {
		s->n_pending = 0;
		s->stalled_ns = 0;
		chp_count(c, CHP_COUNT_tx_packets, sent);
		chp_count(c, CHP_COUNT_tx_bytes, bytes);
		return;
	}
	for (uint32_t i = sent; i < s->n_pending; i++) {
		bytes -= s->pending[i]->pkt_len;
		s->pending[i - sent] = s->pending[i];
	}
	s->n_pending -= sent;
	chp_count(c, CHP_COUNT_tx_packets, sent);
	chp_count(c, CHP_COUNT_tx_bytes, bytes);
	now_ns = chp_clock_ns(&s->p->clock);
	if (sent > 0 || s->stalled_ns == 0) {
		s->stalled_ns = now_ns;
	} else if (now_ns - s->stalled_ns > CHP_TX_STALL_NS) {
		rte_pktmbuf_free_bulk(s->pending, s->n_pending);
		chp_count(c, CHP_COUNT_drop_tx_port, s->n_pending);
		s->n_pending = 0;
		s->stalled_ns = now_ns;
	}
}

/* Up to a burst from the inputs, each in its turn. */
static uint32_t
take(struct chp_tx *s, struct rte_mbuf **m, uint32_t cap)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->n_inputs && n < cap; i++) {
		uint32_t at = s->next_input + i;

		at = at < s->n_inputs ? at : at - s->n_inputs;
		n += chp_queue_take(s->input[at], &m[n], cap - n);
	}
	s->next_input = s->next_input + 1 < s->n_inputs ? s->next_input + 1 : 0;
	return n;
}

/* One burst. True when there may be more. */
static bool
poll_once(struct chp_tx *s, bool *work)
{
	struct rte_mbuf *m[CHP_PORT_BURST];
	uint32_t n = 0;

	if (s->n_pending <= CHP_PORT_BURST / 2) {
		uint32_t cap = CHP_PORT_BURST - s->n_pending;

		if (s->delayed->head != s->delayed->tail)
			n = chp_delayed_take(s->delayed, m, cap, chp_clock_ns(&s->p->clock));
		for (uint32_t i = 0; i < n; i++)
			append(s, m[i]);
		cap -= n;
		n = take(s, m, cap);
		if (atomic_load_explicit(&s->p->impair.on, memory_order_relaxed)) {
			for (uint32_t i = 0; i < n; i++)
				append_impaired(s, m[i]);
		} else {
			for (uint32_t i = 0; i < n; i++)
				append(s, m[i]);
		}
	}
	if (s->n_pending == 0) {
		*work |= n > 0;
		return n > 0;
	}
	*work = true;
	burst(s);
	return s->n_pending == 0 && n > 0;
}

/* A shard writes up to 256 packets in one batch: so many bursts empty its queue. */
#define BURSTS_MAX ((CHP_SPARE_PEER + CHP_SPARE_REPLY) / CHP_PORT_BURST)

bool
chp_tx_poll(struct chp_tx *s)
{
	bool work = false;

	for (uint32_t i = 0; i < BURSTS_MAX && poll_once(s, &work); i++)
		;
	chp_lap(s->lcore, CHP_CYCLES_NETWORK);
	return work;
}

void
chp_tx_fini(struct chp_tx *s)
{
	if (s->n_pending > 0)
		rte_pktmbuf_free_bulk(s->pending, s->n_pending);
	s->n_pending = 0;
	if (s->delayed != NULL)
		chp_delayed_fini(s->delayed);
	rte_free(s->delayed);
}
