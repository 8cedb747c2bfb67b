/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rx.c - the RX stage: poll, validate, classify, pass on to a shard or to control.
 *
 * Overload by clients never hurts peers: packets are told apart here, and each kind has a ring of its own.
 */
#include "base/assert.h"
#include "pipeline/stages.h"

#include <rte_prefetch.h>

#include <string.h>

#define PREFETCH_AHEAD 4u

static void
drop(struct chp_rx *s, struct rte_mbuf *m, enum chp_pipeline_counter why)
{
	chp_count(&s->lcore->counters, why, 1);
	rte_pktmbuf_free(m);
}

/* The counters of packet errors stand in the order of enum chp_packet_error. */
enum chp_pipeline_counter
chp_packet_error_counter(enum chp_packet_error e)
{
	_Static_assert(CHP_COUNT_drop_message - CHP_COUNT_drop_short ==
			       (int)CHP_PACKET_MESSAGE - (int)CHP_PACKET_SHORT,
		       "one counter for each error");
	CHP_ASSERT_OP(e, !=, CHP_PACKET_OK);
	return (enum chp_pipeline_counter)((int)CHP_COUNT_drop_short + (int)e - (int)CHP_PACKET_SHORT);
}

static void
drop_packet(struct chp_rx *s, struct rte_mbuf *m, enum chp_packet_error e)
{
	drop(s, m, chp_packet_error_counter(e));
}

/* ------------------------------------------------------------------ refusing clients */

bool
chp_refuse(const struct chp_pipeline *p, struct rte_mbuf *m, uint32_t shard, enum chp_status status)
{
	uint8_t *frame = rte_pktmbuf_mtod(m, uint8_t *);
	const uint8_t *data = chp_frame_payload(frame);
	const struct chp_request_header *h = (const void *)data;
	uint32_t len = chp_frame_payload_len(frame), offset = sizeof(*h), used;
	uint8_t reply[CHP_PAYLOAD_BYTES_MIN];
	struct chp_address address;
	const struct chp_request *r;
	struct chp_reply_header header = {
		.prelude = { .magic = CHP_WIRE_MAGIC,
			     .version = CHP_WIRE_VERSION,
			     .kind = CHP_PACKET_REPLY,
			     .cluster_hash = p->cluster.hash },
		.session = h->session,
		.epoch = atomic_load_explicit(&p->epoch, memory_order_relaxed),
		.shard = (uint16_t)shard,
		.node = (uint8_t)p->node.node,
	};

	used = sizeof(header);
	while (used + sizeof(struct chp_reply_message) <= sizeof(reply) &&
	       (r = chp_request_next(data, len, &offset)) != NULL) {
		struct chp_reply_message answer = {
			.opcode = r->opcode,
			.status = (uint8_t)status,
			.len = sizeof(answer),
			.request = r->request,
		};

		memcpy(reply + used, &answer, sizeof(answer));
		used += (uint32_t)sizeof(answer);
	}
	if (used == sizeof(header) || CHP_FRAME_BYTES + used > m->data_len + rte_pktmbuf_tailroom(m))
		return false;
	memcpy(reply, &header, sizeof(header));
	chp_frame_address(frame, &address);
	memcpy(frame, &address, sizeof(address));
	memcpy(chp_frame_payload(frame), reply, used);
	chp_mbuf_set_payload(m, used);
	m->hash.usr = chp_tag(CHP_TAG_REPLY, 0, 0);
	return true;
}

/* A client's datagram that the shard cannot take: tell the client while TX has room. */
static void
refuse(struct chp_rx *s, struct rte_mbuf *m, uint32_t shard, enum chp_status status,
       enum chp_pipeline_counter counter)
{
	if (chp_queue_room(&s->to_tx) == 0 || !chp_refuse(s->p, m, shard, status) ||
	    chp_queue_put(&s->to_tx, &m, 1) == 0) {
		drop(s, m, CHP_COUNT_drop_client_ring);
		return;
	}
	chp_count(&s->lcore->counters, counter, 1);
}

/* ------------------------------------------------------------------ back-pressure */

/* Ask a peer to pause, or to go on, with packets for a shard. If it gets lost: pauses end by themselves. */
static bool
send_pause(struct chp_rx *s, const struct chp_peer_header *answer, uint32_t pause_ms)
{
	struct rte_mbuf *m;

	if (chp_queue_room(&s->to_tx) == 0) {
		chp_count(&s->lcore->counters, CHP_COUNT_drop_tx_ring, 1);
		return false;
	}
	m = chp_mbuf_take(s->p->control_pool);
	if (m == NULL) {
		chp_count(&s->lcore->counters, CHP_COUNT_drop_no_mbuf, 1);
		return false;
	}
	chp_peer_pause(answer, pause_ms, rte_pktmbuf_mtod_offset(m, struct chp_peer_header *, CHP_FRAME_BYTES));
	chp_mbuf_set_payload(m, sizeof(*answer));
	m->hash.usr = chp_tag(CHP_TAG_PEER, answer->from, answer->shard);
	(void)chp_queue_put(&s->to_tx, &m, 1); /* there is room, and only we put */
	return true;
}

/*
 * A shard's ring fills up: whoever goes on to fill it is asked to pause, again when half of that is over. Done here
 * and not by the shard, which may be what does not get its CPU.
 */
static void
press(struct chp_rx *s, uint32_t shard, const struct chp_outgoing *o)
{
	uint64_t now_ns = chp_clock_ns(&s->p->clock);

	for (uint32_t i = 0; i < o->n; i++) {
		uint32_t len;
		const struct chp_peer_header *h =
			(const void *)chp_frame_packet(rte_pktmbuf_mtod(o->mbuf[i], const void *), &len);
		struct chp_paused *paused = &s->paused[shard * s->p->cluster.n_members + h->from];

		if (h->seq == 0 || now_ns < paused->again_ns || !send_pause(s, h, CHP_PAUSE_MS))
			continue;
		paused->answer = *h;
		paused->again_ns = now_ns + CHP_PAUSE_MS * CHP_NS_PER_MS / 2;
		s->paused_mask[shard] |= chp_bit(h->from);
		s->pressed |= chp_bit(shard);
		chp_count(&s->lcore->counters, CHP_COUNT_tx_pauses, 1);
	}
}

/* Whoever paused for shards that have worked off most of their rings may go on. */
static void
relieve(struct chp_rx *s)
{
	for (uint64_t left = s->pressed; left != 0; left &= left - 1) {
		uint32_t shard = chp_first_bit(left);
		const struct chp_queue *q = &s->peers[shard].queue;

		if (chp_queue_count(q) > CHP_RELIEVED(q->capacity))
			continue;
		for (uint64_t peers = s->paused_mask[shard]; peers != 0; peers &= peers - 1) {
			struct chp_paused *paused =
				&s->paused[shard * s->p->cluster.n_members + chp_first_bit(peers)];

			paused->again_ns = 0;
			if (send_pause(s, &paused->answer, 0))
				chp_count(&s->lcore->counters, CHP_COUNT_tx_resumes, 1);
		}
		s->paused_mask[shard] = 0;
		s->pressed &= ~chp_bit(shard);
	}
}

/* ------------------------------------------------------------------ passing on */

static void
flush_peers(struct chp_rx *s, uint32_t shard)
{
	struct chp_outgoing *o = &s->peers[shard];
	uint32_t taken;

	if (chp_queue_count(&o->queue) + o->n >= CHP_PRESSED(o->queue.capacity))
		press(s, shard, o); /* before: what was put is not ours any more */
	taken = chp_queue_put(&o->queue, o->mbuf, o->n);
	chp_count(&s->lcore->counters, CHP_COUNT_rx_peer, taken);
	for (uint32_t i = taken; i < o->n; i++)
		drop(s, o->mbuf[i], CHP_COUNT_drop_peer_ring);
	o->n = 0;
}

static void
flush_clients(struct chp_rx *s, uint32_t shard)
{
	struct chp_outgoing *o = &s->clients[shard];
	uint32_t taken = chp_queue_put(&o->queue, o->mbuf, o->n);

	chp_count(&s->lcore->counters, CHP_COUNT_rx_client, taken);
	for (uint32_t i = taken; i < o->n; i++)
		refuse(s, o->mbuf[i], shard, CHP_STATUS_OVERLOAD, CHP_COUNT_overload);
	o->n = 0;
}

static void
to_peers(struct chp_rx *s, uint32_t shard, struct rte_mbuf *m)
{
	struct chp_outgoing *o = &s->peers[shard];

	if (o->n == CHP_PORT_BURST)
		flush_peers(s, shard);
	o->mbuf[o->n++] = m;
	s->touched |= chp_bit(shard);
}

static void
to_clients(struct chp_rx *s, uint32_t shard, struct rte_mbuf *m)
{
	struct chp_outgoing *o = &s->clients[shard];

	if (o->n == CHP_PORT_BURST)
		flush_clients(s, shard);
	o->mbuf[o->n++] = m;
	s->touched |= chp_bit(shard);
}

static void
flush(struct chp_rx *s)
{
	for (; s->touched != 0; s->touched &= s->touched - 1) {
		uint32_t shard = chp_first_bit(s->touched);

		if (s->peers[shard].n > 0)
			flush_peers(s, shard);
		if (s->clients[shard].n > 0)
			flush_clients(s, shard);
	}
}

/* How a packet of a peer came: members that are configured differently understand each other, and it shows. */
static void
count_way(struct chp_rx *s, const struct rte_mbuf *m)
{
	bool direct = chp_frame_is_direct(rte_pktmbuf_mtod(m, const void *));

	if (direct)
		chp_count(&s->lcore->counters, CHP_COUNT_rx_direct, 1);
	if (direct != (s->p->node.peers == CHP_PEERS_ETHERNET))
		chp_count(&s->lcore->counters, CHP_COUNT_rx_mixed, 1);
}

static void
to_control(struct chp_rx *s, struct chp_queue *q, struct rte_mbuf *m, enum chp_tag_kind kind)
{
	m->hash.usr = chp_tag(kind, 0, 0);
	if (chp_queue_put(q, &m, 1) == 0)
		drop(s, m, CHP_COUNT_drop_control_ring);
	else
		chp_count(&s->lcore->counters, CHP_COUNT_rx_control, 1);
}

/* ------------------------------------------------------------------ what it is */

/* Whether the headers around a packet say the same of its sender as the packet does: his address, and his only. */
static bool
is_sender(const struct chp_pipeline *p, const void *frame, const struct chp_peer_header *h)
{
	const struct chp_direct *d = frame;
	const struct chp_frame *f = frame;
	uint8_t mac[CHP_MAC_BYTES];

	if (!chp_frame_is_direct(frame))
		return chp_be32(f->ip.from) == p->cluster.member[h->from].address;
	return d->from == h->from && d->to == h->to && chp_neighbours_mac(&p->neighbours, h->from, mac) &&
	       memcmp(d->ether.from, mac, sizeof(mac)) == 0;
}

static void
on_peer(struct chp_rx *s, struct rte_mbuf *m, uint32_t shard, const uint8_t *data, uint32_t len)
{
	const struct chp_pipeline *p = s->p;
	const struct chp_peer_header *h = (const void *)data;
	enum chp_packet_error e =
		chp_peer_check(data, len, p->cluster.hash, p->cluster.n_members, p->cluster.shards);

	if (e == CHP_PACKET_OK &&
	    (h->to != p->node.node || !is_sender(p, rte_pktmbuf_mtod(m, const void *), h)))
		e = CHP_PACKET_NODE;
	if (e == CHP_PACKET_OK && h->shard != shard)
		e = CHP_PACKET_SHARD;
	if (e != CHP_PACKET_OK) {
		drop_packet(s, m, e);
		return;
	}
	count_way(s, m);
	to_peers(s, shard, m);
}

/* A packet of membership. Who sent it is looked at there, to say so. */
static void
on_control(struct chp_rx *s, struct rte_mbuf *m)
{
	count_way(s, m);
	to_control(s, &s->urgent, m, CHP_TAG_MEMBERSHIP);
}

/* A request datagram that goes to a shard, with the faults that were asked for. */
static void
on_request(struct chp_rx *s, struct rte_mbuf *m, uint32_t shard)
{
	struct chp_pipeline *p = s->p;
	struct rte_mbuf *copy;

	if (chp_pipeline_state_of(p) != CHP_PIPELINE_RUNNING) {
		refuse(s, m, shard, CHP_STATUS_NOT_SERVING, CHP_COUNT_stopping);
		return;
	}
	if (atomic_load_explicit(&p->impair.on, memory_order_relaxed)) {
		switch (chp_impair_draw(&p->impair, s->delayed, UINT32_MAX)) {
		case CHP_FATE_DROP:
		case CHP_FATE_CUT:
			drop(s, m, CHP_COUNT_impair_dropped);
			return;
		case CHP_FATE_DELAY:
			m->hash.usr = shard;
			if (chp_delayed_hold(s->delayed, &p->impair, m, chp_clock_ns(&p->clock))) {
				chp_count(&s->lcore->counters, CHP_COUNT_impair_delayed, 1);
				return;
			}
			break;
		case CHP_FATE_DUPLICATE:
			copy = rte_pktmbuf_copy(m, p->rx_pool, 0, UINT32_MAX);
			if (copy != NULL) {
				chp_count(&s->lcore->counters, CHP_COUNT_impair_duplicated, 1);
				to_clients(s, shard, copy);
			}
			break;
		case CHP_FATE_PASS:
			break;
		}
	}
	to_clients(s, shard, m);
}

/* The any-shard port: the first request's key says whose it is; without a key, shard 0. */
static uint32_t
shard_of_request(const struct chp_pipeline *p, const uint8_t *data, uint32_t len)
{
	uint32_t offset = sizeof(struct chp_request_header);
	const struct chp_request *r = chp_request_next(data, len, &offset);

	if (r == NULL || r->key_len == 0 || sizeof(*r) + r->key_len > r->len)
		return 0;
	return chp_shard_of(chp_digest_of(chp_request_key(r), r->key_len, p->cluster.hash_seed),
			    p->cluster.shards);
}

/*
 * A hello of a node whose cluster file differs comes to another control port if its number of shards is
 * another one. Membership must see it all the same, to say so.
 */
static bool
is_foreign_hello(const struct chp_pipeline *p, uint32_t port, const uint8_t *data, uint32_t len)
{
	const struct chp_prelude *prelude = (const void *)data;
	uint8_t kind = 0;

	return port <= CHP_SHARDS_MAX && chp_packet_kind_of(data, len, &kind) == CHP_PACKET_OK &&
	       kind == CHP_PACKET_CONTROL && prelude->cluster_hash != p->cluster.hash;
}

static void
on_datagram(struct chp_rx *s, struct rte_mbuf *m)
{
	const struct chp_pipeline *p = s->p;
	const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *);
	const uint8_t *data = frame + CHP_FRAME_BYTES;
	uint32_t len = chp_frame_payload_len(frame);
	uint32_t port = (uint32_t)chp_be16(((const struct chp_frame *)(const void *)frame)->udp.to) -
			p->cluster.port_base;
	bool is_shard = port < p->cluster.shards;
	bool is_control = port == p->ports_shards, is_any = port == p->ports_shards + 1;
	uint8_t kind = 0;
	enum chp_packet_error e;

	if (is_foreign_hello(p, port, data, len)) {
		on_control(s, m);
		return;
	}
	if (!is_shard && !is_control && !is_any) {
		drop(s, m, CHP_COUNT_drop_udp_port);
		return;
	}
	e = chp_packet_kind_of(data, len, &kind);
	if (e == CHP_PACKET_OK && len > p->payload_bytes_max)
		e = CHP_PACKET_LONG;
	if (e == CHP_PACKET_OK && kind == CHP_PACKET_REQUEST)
		e = chp_request_header_check(data, len, p->cluster.hash);
	else if (e == CHP_PACKET_OK && !(kind == CHP_PACKET_PEER && is_shard) &&
		 !(kind == CHP_PACKET_CONTROL && is_control))
		e = CHP_PACKET_KIND;
	if (e != CHP_PACKET_OK)
		drop_packet(s, m, e);
	else if (kind == CHP_PACKET_PEER)
		on_peer(s, m, port, data, len);
	else if (kind == CHP_PACKET_CONTROL)
		on_control(s, m);
	else if (is_control)
		to_control(s, &s->ordinary, m, CHP_TAG_REQUEST);
	else
		on_request(s, m, is_shard ? port : shard_of_request(p, data, len));
}

/* A packet of a replica without IPv4: for a shard or for control. Clients never send these. */
static void
on_direct(struct chp_rx *s, struct rte_mbuf *m)
{
	const struct chp_direct *d = rte_pktmbuf_mtod(m, const void *);
	uint32_t shard = chp_be16(d->shard), len;
	bool is_control = shard == CHP_DIRECT_CONTROL;
	const uint8_t *data = chp_frame_packet(d, &len);
	uint8_t kind = 0;
	enum chp_packet_error e = chp_packet_kind_of(data, len, &kind);

	if (e == CHP_PACKET_OK && len > s->p->payload_bytes_max)
		e = CHP_PACKET_LONG;
	if (e == CHP_PACKET_OK && kind != (is_control ? CHP_PACKET_CONTROL : CHP_PACKET_PEER))
		e = CHP_PACKET_KIND;
	if (e == CHP_PACKET_OK && d->to != s->p->node.node)
		e = CHP_PACKET_NODE;
	if (e != CHP_PACKET_OK)
		drop_packet(s, m, e);
	else if (is_control)
		on_control(s, m);
	else
		on_peer(s, m, shard, data, len);
}

/*
 * What the port found, where it computes checksums; what it did not look at is computed here. Of a frame without IPv4
 * a port may say anything.
 */
static bool
trust_of(struct chp_rx *s, const struct rte_mbuf *m, enum chp_frame_trust *trust,
	 enum chp_pipeline_counter *why)
{
	const uint64_t good = RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_GOOD;

	*trust = s->trust;
	if (!s->p->port.rx_checksum ||
	    (m->data_len >= sizeof(struct chp_ether) && chp_frame_is_direct(rte_pktmbuf_mtod(m, const void *))))
		return true;
	if ((m->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_BAD) {
		*why = CHP_COUNT_drop_ip_checksum;
		return false;
	}
	if ((m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_BAD) {
		*why = CHP_COUNT_drop_udp_checksum;
		return false;
	}
	if ((m->ol_flags & good) == good)
		*trust = CHP_TRUST_ALL;
	return true;
}

static void
on_frame(struct chp_rx *s, struct rte_mbuf *m)
{
	enum chp_pipeline_counter why = CHP_COUNT_drop_segments;
	enum chp_frame_trust trust;
	enum chp_frame_class class = CHP_FRAME_DROPPED;

	if (m->nb_segs == 1 && trust_of(s, m, &trust, &why))
		class = chp_frame_classify(rte_pktmbuf_mtod(m, const void *), m->data_len,
					   &s->p->port.self, trust, &why);
	switch (class) {
	case CHP_FRAME_UDP:
		on_datagram(s, m);
		break;
	case CHP_FRAME_DIRECT:
		on_direct(s, m);
		break;
	case CHP_FRAME_ARP:
		to_control(s, &s->urgent, m, CHP_TAG_ARP);
		break;
	case CHP_FRAME_ECHO:
		to_control(s, &s->ordinary, m, CHP_TAG_ECHO);
		break;
	case CHP_FRAME_DROPPED:
		drop(s, m, why);
		break;
	}
}

/* Requests held back on purpose whose time has come. */
static uint32_t
release_delayed(struct chp_rx *s)
{
	struct rte_mbuf *m[CHP_PORT_BURST];
	uint32_t n;

	if (s->delayed->head == s->delayed->tail)
		return 0;
	n = chp_delayed_take(s->delayed, m, CHP_PORT_BURST, chp_clock_ns(&s->p->clock));
	for (uint32_t i = 0; i < n; i++)
		to_clients(s, m[i]->hash.usr, m[i]);
	return n;
}

bool
chp_rx_poll(struct chp_rx *s)
{
	struct chp_counters *c = &s->lcore->counters;
	struct rte_mbuf *m[CHP_PORT_BURST];
	uint64_t bytes = 0;
	uint32_t n, released;

	n = rte_eth_rx_burst(s->p->port.id, (uint16_t)s->index, m, CHP_PORT_BURST);
	released = release_delayed(s);
	if (s->pressed != 0)
		relieve(s);
	if (n + released == 0) {
		chp_lap(s->lcore, CHP_CYCLES_NETWORK);
		return false;
	}
	for (uint32_t i = 0; i < n && i < PREFETCH_AHEAD; i++)
		rte_prefetch0(rte_pktmbuf_mtod(m[i], void *));
	for (uint32_t i = 0; i < n; i++) {
		if (i + PREFETCH_AHEAD < n)
			rte_prefetch0(rte_pktmbuf_mtod(m[i + PREFETCH_AHEAD], void *));
		bytes += m[i]->pkt_len;
		on_frame(s, m[i]);
	}
	flush(s);
	chp_count(c, CHP_COUNT_rx_packets, n);
	chp_count(c, CHP_COUNT_rx_bytes, bytes);
	chp_lap(s->lcore, CHP_CYCLES_NETWORK);
	return true;
}
