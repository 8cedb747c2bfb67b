/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * host_stage.c - the host stage: packets between the shards and the channel to the host, both ways.
 *
 * It owns the channel. Each packet is copied once, out of the channel's memory or into it: channels over RDMA have
 * memory of their own, and what passes here is batched. Whatever finds no room is dropped, and sent again by its link.
 */
#include "base/assert.h"
#include "pipeline/stages.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Bursts in one poll: what the shards of one lcore write at once goes out at once. */
#define BURSTS_MAX 4u

static void
drop(struct chp_host_stage *s, struct rte_mbuf *m, enum chp_pipeline_counter why)
{
	chp_count(&s->lcore->counters, why, 1);
	rte_pktmbuf_free(m);
}

/* ------------------------------------------------------------------ to the host */

/* Faults on purpose: a host is cut off by the bit of its own replica. */
static bool
survives(struct chp_host_stage *s)
{
	const struct chp_impair *impair = &s->p->impair;

	if (!atomic_load_explicit(&impair->on, memory_order_relaxed))
		return true;
	switch (chp_impair_draw(impair, s->impaired, s->p->node.node)) {
	case CHP_FATE_DROP:
		chp_count(&s->lcore->counters, CHP_COUNT_impair_dropped, 1);
		return false;
	case CHP_FATE_CUT:
		chp_count(&s->lcore->counters, CHP_COUNT_impair_cut, 1);
		return false;
	default:
		return true;
	}
}

static void
append(struct chp_host_stage *s, struct rte_mbuf *m)
{
	if (!survives(s)) {
		rte_pktmbuf_free(m);
		return;
	}
	chp_peer_seal(rte_pktmbuf_mtod_offset(m, uint8_t *, CHP_FRAME_BYTES), m->data_len - CHP_FRAME_BYTES);
	s->pending[s->n_pending++] = m;
}

/* A burst from the shards, each in its turn. */
static uint32_t
take(struct chp_host_stage *s)
{
	struct rte_mbuf *m[CHP_CHANNEL_BURST];
	uint32_t shards = s->p->cluster.shards, cap = CHP_CHANNEL_BURST - s->n_pending, n = 0;

	for (uint32_t i = 0; i < shards && n < cap; i++)
		n += chp_queue_take(&s->shard[(s->next_shard + i) % shards].from, &m[n], cap - n);
	s->next_shard = s->next_shard + 1 < shards ? s->next_shard + 1 : 0;
	for (uint32_t i = 0; i < n; i++)
		append(s, m[i]);
	return n;
}

/* Offer the channel what waits. The rest is offered again; meanwhile the rings fill up and lose what is too much. */
static bool
send_pending(struct chp_host_stage *s)
{
	struct chp_channel_packet packet[CHP_CHANNEL_BURST];
	uint32_t sent;

	for (uint32_t i = 0; i < s->n_pending; i++) {
		packet[i].data = rte_pktmbuf_mtod_offset(s->pending[i], uint8_t *, CHP_FRAME_BYTES);
		packet[i].len = s->pending[i]->data_len - CHP_FRAME_BYTES;
		packet[i].opaque = NULL;
	}
	sent = chp_channel_send(s->channel, packet, s->n_pending);
	if (sent > 0)
		rte_pktmbuf_free_bulk(s->pending, sent);
	s->n_pending -= sent;
	memmove(s->pending, s->pending + sent, s->n_pending * sizeof(s->pending[0]));
	chp_count(&s->lcore->counters, CHP_COUNT_tx_host, sent);
	return sent > 0;
}

static bool
transmit(struct chp_host_stage *s)
{
	bool work = false;

	for (uint32_t i = 0; i < BURSTS_MAX; i++) {
		uint32_t n = take(s);

		work |= n > 0;
		if (s->n_pending == 0) {
			if (n == 0)
				break;
			continue;
		}
		work |= send_pending(s);
		if (s->n_pending > 0)
			break;
	}
	return work;
}

/* ------------------------------------------------------------------ from the host */

/* What a packet is for us: its shard, or what is wrong with it. */
static enum chp_packet_error
check(const struct chp_host_stage *s, const struct chp_channel_packet *packet, uint32_t *shard)
{
	const struct chp_cluster_config *c = &s->p->cluster;
	enum chp_packet_error e;
	uint8_t kind;

	if (packet->len > s->p->payload_bytes_max)
		return CHP_PACKET_LONG;
	e = chp_packet_kind_of(packet->data, packet->len, &kind);
	if (e != CHP_PACKET_OK)
		return e;
	if (kind == CHP_PACKET_HOST) {
		*shard = ((const struct chp_peer_header *)(const void *)packet->data)->shard;
		return chp_host_check(packet->data, packet->len, c->hash, s->p->node.node, c->shards);
	}
	if (kind != CHP_PACKET_HOST_HELLO)
		return CHP_PACKET_KIND;
	e = chp_host_hello_check(packet->data, packet->len, c->hash);
	if (e != CHP_PACKET_OK)
		return e;
	*shard = ((const struct chp_host_hello *)(const void *)packet->data)->shard;
	return *shard < c->shards ? CHP_PACKET_OK : CHP_PACKET_SHARD;
}

static void
pass_on(struct chp_host_stage *s, const struct chp_channel_packet *packet)
{
	uint32_t shard = 0;
	enum chp_packet_error e = check(s, packet, &shard);
	struct rte_mbuf *m;

	if (e != CHP_PACKET_OK) {
		chp_count(&s->lcore->counters, chp_packet_error_counter(e), 1);
		return;
	}
	if (!survives(s))
		return;
	m = chp_mbuf_take(s->p->rx_pool);
	if (m == NULL) {
		chp_count(&s->lcore->counters, CHP_COUNT_drop_host_no_mbuf, 1);
		return;
	}
	memcpy(rte_pktmbuf_mtod_offset(m, uint8_t *, CHP_FRAME_BYTES), packet->data, packet->len);
	chp_mbuf_set_payload(m, packet->len);
	m->hash.usr = chp_tag(CHP_TAG_HOST, 0, shard);
	if (chp_queue_put(&s->shard[shard].to, &m, 1) == 1)
		chp_count(&s->lcore->counters, CHP_COUNT_rx_host, 1);
	else
		drop(s, m, CHP_COUNT_drop_host_ring);
}

/* Shards need not wait until a host has been silent for long when the channel knows that it is not there. */
static void
look_for_host(struct chp_host_stage *s)
{
	const bool is_gone = chp_channel_state(s->channel, NULL) != CHP_CHANNEL_UP;

	if (is_gone != atomic_load_explicit(&s->is_gone, memory_order_relaxed))
		atomic_store_explicit(&s->is_gone, is_gone, memory_order_relaxed);
}

static bool
receive(struct chp_host_stage *s)
{
	struct chp_channel_packet packet[CHP_CHANNEL_BURST];
	uint32_t n = chp_channel_receive(s->channel, packet, CHP_CHANNEL_BURST);

	for (uint32_t i = 0; i < n; i++)
		pass_on(s, &packet[i]);
	chp_channel_release(s->channel, packet, n);
	if (n == 0)
		look_for_host(s);
	return n > 0;
}

/* ------------------------------------------------------------------ the stage */

/* Control asks now and then what the channel says of itself. */
static void
publish_report(struct chp_host_stage *s)
{
	uint32_t wanted = atomic_load_explicit(&s->report_wanted, memory_order_acquire);
	const char *text;

	if (wanted == atomic_load_explicit(&s->report_done, memory_order_relaxed))
		return;
	s->report.state = chp_channel_state(s->channel, &text);
	(void)snprintf(s->report.text, sizeof(s->report.text), "%s", text);
	atomic_store_explicit(&s->report_done, wanted, memory_order_release);
}

bool
chp_host_poll(struct chp_host_stage *s)
{
	bool work = receive(s);

	work |= transmit(s);
	publish_report(s);
	chp_lap(s->lcore, CHP_CYCLES_NETWORK);
	return work;
}

int
chp_host_stage_init(struct chp_host_stage *s, struct chp_pipeline *p, uint32_t lcore, uint64_t shards_here)
{
	s->p = p;
	s->lcore = &p->lcore[lcore];
	s->impaired = rte_zmalloc(NULL, sizeof(*s->impaired), CHP_CACHE_LINE);
	if (s->impaired == NULL)
		return -ENOMEM;
	s->impaired->random.state = p->config.incarnation ^ UINT64_C(0x686f7374);
	for (uint32_t i = 0; i < p->cluster.shards; i++) {
		bool same = (shards_here & chp_bit(i)) != 0;

		if (chp_queue_init(&s->shard[i].to, same ? CHP_LOCAL_QUEUE : p->node.stage_ring, same) != 0 ||
		    chp_queue_init(&s->shard[i].from, same ? CHP_HOST_LOCAL_QUEUE : p->node.stage_ring, same) != 0)
			return -ENOMEM;
		p->shard[i].from_host = &s->shard[i].to;
		p->shard[i].to_host = &s->shard[i].from;
	}
	return 0;
}

int
chp_host_stage_open(struct chp_host_stage *s, struct chp_channel *given, struct chp_error *error)
{
	const struct chp_channel_keys *keys = &s->p->node.host;
	const struct chp_channel_ops *ops = chp_channel_find(chp_channel_kind_name(keys->channel));
	const struct chp_channel_config config = {
		.payload_bytes_max = s->p->payload_bytes_max,
		.name = s->p->name,
		.ring = keys->ring,
		.port = keys->port,
		.dma = strcmp(keys->dma, "none") != 0 ? keys->dma : NULL,
		.address = keys->address,
		.service = keys->service,
		.cluster_hash = s->p->cluster.hash,
	};
	struct chp_channel_error why = { 0 };

	s->channel = given;
	s->is_given = given != NULL;
	if (s->is_given)
		return 0;
	if (ops == NULL)
		return chp_error_set(error, CHP_EXIT_USAGE, "this program was built without the channel \"%s\"",
				     chp_channel_kind_name(keys->channel));
	s->channel = ops->open(&config, &why);
	if (s->channel == NULL)
		return chp_error_set(error, why.is_usage ? CHP_EXIT_USAGE : CHP_EXIT_RESOURCE, "%s", why.text);
	return 0;
}

void
chp_host_stage_fini(struct chp_host_stage *s)
{
	for (uint32_t i = 0; i < CHP_SHARDS_MAX; i++) {
		chp_queue_fini(&s->shard[i].to);
		chp_queue_fini(&s->shard[i].from);
	}
	if (s->n_pending > 0)
		rte_pktmbuf_free_bulk(s->pending, s->n_pending);
	if (!s->is_given)
		chp_channel_close(s->channel);
	rte_free(s->impaired);
}
