/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * shard_stage.c - the shard stage: batches of packets and requests into chp_shard_run, what it wrote to TX.
 *
 * Peers first. Clients get what room is left, at most CHP_BURST_MAX datagrams and CHP_BATCH_MAX operations
 * a batch. Nothing is taken that could not be answered: room in the ring to TX is looked at before.
 */
#include "base/assert.h"
#include "pipeline/stages.h"

#include <string.h>

struct rte_mbuf *
chp_mbuf_take(struct rte_mempool *pool)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(pool);

	if (m != NULL)
		m->data_off = RTE_PKTMBUF_HEADROOM + CHP_FRAME_PAD;
	return m;
}

/* ------------------------------------------------------------------ mbufs to write into */

static void
place_buffer(struct chp_shard_stage *s, uint32_t i, struct rte_mbuf *m)
{
	m->data_off = RTE_PKTMBUF_HEADROOM + CHP_FRAME_PAD;
	s->buffer_mbuf[i] = m;
	s->buffer[i].data = rte_pktmbuf_mtod_offset(m, uint8_t *, CHP_FRAME_BYTES);
}

static void
place_datagram(struct chp_shard_stage *s, uint32_t i, struct rte_mbuf *m)
{
	m->data_off = RTE_PKTMBUF_HEADROOM + CHP_FRAME_PAD;
	s->datagram_mbuf[i] = m;
	s->datagram[i].data = rte_pktmbuf_mtod_offset(m, uint8_t *, CHP_FRAME_BYTES);
	s->datagram[i].cap = s->p->payload_bytes_max;
}

/* Up to n mbufs from the TX pool: all at once, or as many as there are. */
static uint32_t
take_mbufs(struct chp_shard_stage *s, struct rte_mbuf **m, uint32_t n)
{
	uint32_t got = 0;

	if (n == 0 || rte_pktmbuf_alloc_bulk(s->p->tx_pool, m, n) == 0)
		return n;
	while (got < n && (m[got] = rte_pktmbuf_alloc(s->p->tx_pool)) != NULL)
		got++;
	chp_count(&s->lcore->counters, CHP_COUNT_tx_pool_short, 1);
	return got;
}

/* The first `used` of the buffers are gone: put others in their places. */
static void
refill_buffers(struct chp_shard_stage *s, uint32_t used)
{
	struct rte_mbuf *m[CHP_SPARE_PEER];
	uint32_t got = take_mbufs(s, m, used);

	for (uint32_t i = 0; i < got; i++)
		place_buffer(s, i, m[i]);
	for (; got < used && s->n_buffers > used; got++)
		place_buffer(s, got, s->buffer_mbuf[--s->n_buffers]);
	if (got < used)
		s->n_buffers = got;
}

static void
refill_datagrams(struct chp_shard_stage *s, uint32_t used)
{
	struct rte_mbuf *m[CHP_SPARE_REPLY];
	uint32_t got = take_mbufs(s, m, used);

	for (uint32_t i = 0; i < got; i++)
		place_datagram(s, i, m[i]);
	for (; got < used && s->n_datagrams > used; got++)
		place_datagram(s, got, s->datagram_mbuf[--s->n_datagrams]);
	if (got < used)
		s->n_datagrams = got;
}

/* After a shortage, and at the start. */
static void
fill_up(struct chp_shard_stage *s)
{
	struct rte_mbuf *m[CHP_SPARE_PEER + CHP_SPARE_REPLY];
	uint32_t want_buffers = CHP_SPARE_PEER - s->n_buffers;
	uint32_t want = want_buffers + CHP_SPARE_REPLY - s->n_datagrams;
	uint32_t got, i = 0;

	if (want == 0)
		return;
	got = take_mbufs(s, m, want);
	for (; i < got && i < want_buffers; i++)
		place_buffer(s, s->n_buffers++, m[i]);
	for (; i < got; i++)
		place_datagram(s, s->n_datagrams++, m[i]);
}

/* ------------------------------------------------------------------ in */

static void
take_peers(struct chp_shard_stage *s)
{
	s->n_packets = 0;
	for (uint32_t i = 0; i < s->n_rx && s->n_packets < CHP_BURST_MAX; i++) {
		struct chp_queue *q = s->peers[(s->next_rx + i) % s->n_rx];

		s->n_packets += chp_queue_take(q, &s->packet_mbuf[s->n_packets],
					       CHP_BURST_MAX - s->n_packets);
	}
	for (uint32_t i = 0; i < s->n_packets; i++) {
		const void *frame = rte_pktmbuf_mtod(s->packet_mbuf[i], const void *);

		s->packet[i].data = chp_frame_packet(frame, &s->packet[i].len);
	}
}

/* Packets of the host have room of their own: peers never keep them waiting, nor they peers. */
static void
take_host(struct chp_shard_stage *s)
{
	uint32_t first = s->n_packets;

	if (s->from_host == NULL)
		return;
	s->n_packets += chp_queue_take(s->from_host, &s->packet_mbuf[first], CHP_BURST_MAX);
	for (uint32_t i = first; i < s->n_packets; i++) {
		s->packet[i].data = rte_pktmbuf_mtod_offset(s->packet_mbuf[i], const uint8_t *, CHP_FRAME_BYTES);
		s->packet[i].len = s->packet_mbuf[i]->data_len - CHP_FRAME_BYTES;
	}
}

static struct rte_mbuf *
next_datagram(struct chp_shard_stage *s)
{
	struct rte_mbuf *m = s->partial;

	if (m != NULL) {
		s->partial = NULL;
		return m;
	}
	s->partial_offset = 0;
	for (uint32_t i = 0; i < s->n_rx; i++) {
		if (chp_queue_take(s->clients[(s->next_rx + i) % s->n_rx], &m, 1) == 1)
			return m;
	}
	return NULL;
}

/* Requests to operations, while there is room for their replies. */
static void
take_clients(struct chp_shard_stage *s)
{
	s->n_ops = s->n_held = 0;
	while (s->n_held < CHP_BURST_MAX && s->n_ops < CHP_BATCH_MAX) {
		uint32_t room = chp_native_room(&s->native);
		struct chp_address address;
		struct rte_mbuf *m;
		uint8_t *frame;
		uint32_t len;

		if (room <= s->n_ops || (m = next_datagram(s)) == NULL)
			break;
		frame = rte_pktmbuf_mtod(m, uint8_t *);
		len = chp_frame_payload_len(frame);
		chp_frame_address(frame, &address);
		s->n_ops += chp_native_parse(&s->native, chp_frame_payload(frame), len,
					     &s->partial_offset, (const uint8_t *)&address,
					     &s->op[s->n_ops],
					     chp_min_u32(CHP_BATCH_MAX, room) - s->n_ops);
		if (s->partial_offset < len) {
			s->partial = m;
			break;
		}
		s->held[s->n_held++] = m;
	}
}

/* ------------------------------------------------------------------ out */

/* How many mbufs may be written: what the ring to TX takes, clients never more than three quarters. */
static void
limit_room(struct chp_shard_stage *s, uint32_t *n_buffers)
{
	uint32_t room = chp_queue_room(&s->to_tx);
	uint32_t want = s->n_buffers + s->n_datagrams;

	*n_buffers = s->n_buffers;
	s->native.n_datagrams = s->n_datagrams;
	if (room >= want)
		return;
	chp_count(&s->lcore->counters, CHP_COUNT_tx_ring_short, 1);
	*n_buffers = chp_min_u32(s->n_buffers, room - room / 4);
	s->native.n_datagrams = chp_min_u32(s->n_datagrams, room - *n_buffers);
}

/* What finds no room is lost, and sent again by its link. */
static void
to_host(struct chp_shard_stage *s, struct rte_mbuf *m)
{
	CHP_ASSERT(s->to_host != NULL);
	m->hash.usr = chp_tag(CHP_TAG_HOST, 0, s->shard);
	if (chp_queue_put(s->to_host, &m, 1) == 1)
		return;
	chp_count(&s->lcore->counters, CHP_COUNT_drop_host_ring, 1);
	rte_pktmbuf_free(m);
}

static void
transmit(struct chp_shard_stage *s, uint32_t n_peer)
{
	struct rte_mbuf *out[CHP_SPARE_PEER + CHP_SPARE_REPLY];
	uint32_t n = 0, taken;

	for (uint32_t i = 0; i < n_peer; i++) {
		struct rte_mbuf *m = s->buffer_mbuf[i];

		CHP_ASSERT_OP(s->buffer[i].len, <=, s->p->payload_bytes_max);
		chp_mbuf_set_payload(m, s->buffer[i].len);
		if (s->buffer[i].peer == CHP_TO_HOST) {
			to_host(s, m);
			continue;
		}
		m->hash.usr = chp_tag(CHP_TAG_PEER, s->buffer[i].peer, s->shard);
		out[n++] = m;
	}
	for (uint32_t i = 0; i < s->native.n_used; i++) {
		struct rte_mbuf *m = s->datagram_mbuf[i];

		chp_mbuf_set_payload(m, s->datagram[i].len);
		memcpy(rte_pktmbuf_mtod(m, void *), s->datagram[i].address,
		       sizeof(s->datagram[i].address));
		m->hash.usr = chp_tag(CHP_TAG_REPLY, 0, 0);
		out[n++] = m;
	}
	taken = chp_queue_put(&s->to_tx, out, n);
	CHP_ASSERT_OP(taken, ==, n); /* there was room before, and only we put */
	if (n_peer > 0)
		refill_buffers(s, n_peer);
	if (s->native.n_used > 0)
		refill_datagrams(s, s->native.n_used);
}

/* ------------------------------------------------------------------ views and lives */

/*
 * This process dropped its state and is another incarnation (SAFETY 21): so does the shard, with all that the
 * stage remembers of it. Requests that were open get no answer; their clients ask again. Cold.
 */
static void
begin_life(struct chp_shard_stage *s, uint32_t life)
{
	int rc;

	chp_shard_destroy(s->core);
	atomic_store_explicit(&s->serves, false, memory_order_release);
	s->life = life;
	rc = chp_shard_stage_begin(s);
	rte_pktmbuf_free(s->partial);
	s->partial = NULL;
	s->partial_offset = 0;
	s->wake_ns = 0;
	atomic_store_explicit(&s->failed, rc, memory_order_release);
	if (rc == 0)
		atomic_store_explicit(&s->told, (uint64_t)life << 1, memory_order_release);
	else
		atomic_store_explicit(&s->drained, true, memory_order_release);
}

/* What control gave: at most one view a batch. */
static bool
take_view(struct chp_shard_stage *s, struct chp_view *view)
{
	struct chp_life_view next;

	if (rte_ring_sc_dequeue_elem(s->views, &next, sizeof(next)) != 0)
		return false;
	if (next.life != s->life)
		begin_life(s, next.life);
	if (next.founding != s->founding)
		s->wake_ns = 0;
	s->founding = next.founding;
	*view = next.view;
	return next.view.epoch != 0;
}

/* Control makes this node a voter when all its shards have told that their copies are complete. */
static void
tell_copy(struct chp_shard_stage *s)
{
	uint64_t done = (uint64_t)s->life << 1 | 1;

	if (atomic_load_explicit(&s->told, memory_order_relaxed) != done && chp_shard_copy_done(s->core))
		atomic_store_explicit(&s->told, done, memory_order_release);
}

/* ------------------------------------------------------------------ the batch */

static void
publish_report(struct chp_shard_stage *s)
{
	uint32_t wanted = atomic_load_explicit(&s->report_wanted, memory_order_acquire);

	if (wanted == atomic_load_explicit(&s->report_done, memory_order_relaxed))
		return;
	chp_shard_stats(s->core, &s->report.core);
	chp_shard_copy_progress(s->core, &s->report.copy);
	chp_shard_status(s->core, &s->report.status);
	chp_shard_commit_times(s->core, &s->report.commit);
	chp_shard_host_status(s->core, chp_clock_ns(&s->p->clock), &s->report.host);
	atomic_store_explicit(&s->serves, s->report.status.waiting[0] == '\0', memory_order_release);
	s->report.life = s->life;
	s->report.native = s->native.counters;
	atomic_store_explicit(&s->report_done, wanted, memory_order_release);
}

static void
run(struct chp_shard_stage *s, const struct chp_now *now, const struct chp_view *view, uint32_t n_buffers)
{
	struct chp_events in = {
		.packet = s->packet,
		.n_packets = s->n_packets,
		.op = s->op,
		.n_ops = s->n_ops,
		.view = view,
		.founding = s->founding,
		.host_is_gone = s->host_is_gone,
	};
	struct chp_effects out = {
		.buffer = s->buffer,
		.n_buffers = n_buffers,
		.reply = chp_native_reply,
		.frontend = &s->native,
		.reply_room = chp_native_room(&s->native),
	};

	CHP_ASSERT_OP(s->n_ops, <=, out.reply_room);
	chp_lap(s->lcore, CHP_CYCLES_REST);
	chp_shard_run(s->core, now, &in, &out);
	chp_lap(s->lcore, CHP_CYCLES_PROTOCOL);
	s->wake_ns = out.wake_ns;
	/* This core may have paused since the clock was read: what it read may not be the newest now (SAFETY 16). */
	if (out.reads_until_ns != CHP_NEVER && chp_clock_ns(&s->p->clock) >= out.reads_until_ns)
		(void)chp_native_revoke_reads(&s->native);
	tell_copy(s);
	if (s->n_packets > 0)
		rte_pktmbuf_free_bulk(s->packet_mbuf, s->n_packets);
	if (s->n_held > 0)
		rte_pktmbuf_free_bulk(s->held, s->n_held);
	transmit(s, out.n_used);
}

/* Returns whether there is news. */
static bool
look_for_host(struct chp_shard_stage *s)
{
	const struct chp_host_stage *host = s->p->host;
	const bool was_gone = s->host_is_gone;

	s->host_is_gone = host != NULL && atomic_load_explicit(&host->is_gone, memory_order_relaxed);
	return s->host_is_gone != was_gone;
}

bool
chp_shard_poll(struct chp_shard_stage *s)
{
	struct chp_pipeline *p = s->p;
	struct chp_view view;
	bool has_view = take_view(s, &view), work;
	struct chp_now now;
	uint32_t n_buffers;

	if (s->core == NULL)
		return false; /* control ends the program */
	publish_report(s);
	fill_up(s);
	limit_room(s, &n_buffers);
	s->native.n_used = 0;
	s->native.epoch = chp_shard_epoch(s->core);
	take_peers(s);
	take_host(s);
	take_clients(s);
	s->next_rx = s->next_rx + 1 < s->n_rx ? s->next_rx + 1 : 0;
	now.ns = chp_clock_ns(&p->clock); /* after the last event was taken (SAFETY 16) */
	now.lease_until_ns = atomic_load_explicit(&p->lease_until_ns, memory_order_acquire);
	work = look_for_host(s) || has_view || s->n_packets + s->n_ops + s->n_held + s->native.n_used > 0 ||
	       now.ns >= s->wake_ns;
	if (work)
		run(s, &now, has_view ? &view : NULL, n_buffers);
	if (chp_pipeline_state_of(p) != CHP_PIPELINE_RUNNING)
		atomic_store_explicit(&s->drained,
				      s->n_ops + s->n_held + s->native.n_used == 0 && s->partial == NULL &&
					      chp_shard_is_idle(s->core),
				      memory_order_release);
	s->lcore->wake_ns = chp_min_u64(s->lcore->wake_ns, s->wake_ns);
	chp_lap(s->lcore, CHP_CYCLES_REST);
	return work;
}

void
chp_shard_stage_fini(struct chp_shard_stage *s)
{
	for (uint32_t i = 0; i < s->n_buffers; i++)
		rte_pktmbuf_free(s->buffer_mbuf[i]);
	for (uint32_t i = 0; i < s->n_datagrams; i++)
		rte_pktmbuf_free(s->datagram_mbuf[i]);
	rte_pktmbuf_free(s->partial);
	chp_queue_fini(&s->to_tx);
	rte_free(s->views);
	chp_shard_destroy(s->core);
}
