/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/link.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/mutation.h"

#include <errno.h>
#include <string.h>

#define NS_PER_MS UINT64_C(1000000)
#define HEADER_BYTES ((uint32_t)sizeof(struct chp_peer_header))

/* A packet counts as lost when this many sendings after it have arrived: tolerates small reordering. */
#define REORDER_MAX 3u

uint64_t
chp_link_bytes(const struct chp_link_config *config)
{
	uint64_t buffers = (uint64_t)config->queue + 1 + chp_pow2_up(config->window + 1);

	return buffers * chp_align_u32(config->payload_bytes_max, CHP_CACHE_LINE) +
	       (uint64_t)chp_pow2_up(config->queue + 1) * sizeof(struct chp_link_tx);
}

int
chp_link_init(struct chp_link *l, const struct chp_link_config *config, const struct chp_memory *memory)
{
	const uint32_t tx_n = chp_pow2_up(config->queue + 1);
	const uint32_t rx_n = chp_pow2_up(config->window + 1);
	const size_t bytes = chp_align_u32(config->payload_bytes_max, CHP_CACHE_LINE);

	CHP_ASSERT(config->kind == CHP_PACKET_PEER || config->kind == CHP_PACKET_HOST);
	CHP_ASSERT(config->window >= 1 && config->window <= CHP_LINK_WINDOW_MAX);
	CHP_ASSERT_OP(config->queue, >=, config->window);
	memset(l, 0, sizeof(*l));
	l->config = *config;
	l->tx = memory->zalloc(tx_n * sizeof(*l->tx));
	l->rx = memory->zalloc(rx_n * sizeof(*l->rx));
	l->buffer = memory->zalloc(config->queue * sizeof(*l->buffer));
	l->memory = memory->zalloc((config->queue + 1 + rx_n) * bytes);
	if (l->tx == NULL || l->rx == NULL || l->buffer == NULL || l->memory == NULL) {
		chp_link_fini(l, memory);
		return -ENOMEM;
	}
	l->tx_mask = tx_n - 1;
	l->rx_mask = rx_n - 1;
	for (uint32_t i = 0; i < config->queue; i++)
		l->buffer[i] = l->memory + i * bytes;
	l->n_buffers = config->queue;
	l->scratch = l->memory + config->queue * bytes;
	for (uint32_t i = 0; i < rx_n; i++)
		l->rx[i].bytes = l->memory + (config->queue + 1 + i) * bytes;
	l->next = 1;
	l->unsent = 1;
	l->timer_ns = l->ack_at_ns = l->probe_ns = CHP_NEVER;
	return 0;
}

void
chp_link_fini(struct chp_link *l, const struct chp_memory *memory)
{
	memory->free(l->tx);
	memory->free(l->rx);
	memory->free(l->buffer);
	memory->free(l->memory);
	memset(l, 0, sizeof(*l));
}

static struct chp_link_tx *
tx_at(const struct chp_link *l, uint64_t seq)
{
	return &l->tx[seq & l->tx_mask];
}

static void
give_back(struct chp_link *l, struct chp_link_tx *t)
{
	l->buffer[l->n_buffers++] = t->bytes;
	t->bytes = NULL;
}

/* Empty both directions and start at sequence number 1 with no credits. */
static void
start_over(struct chp_link *l, uint64_t now_ns)
{
	for (uint64_t seq = l->acked + 1; seq < l->next; seq++)
		give_back(l, tx_at(l, seq));
	if (l->open != NULL)
		give_back(l, l->open);
	for (uint32_t i = 0; i <= l->rx_mask; i++)
		l->rx[i].present = false;
	l->open = NULL;
	l->overflow = false;
	l->acked = 0;
	l->unsent = l->next = 1;
	l->in_flight = l->n_lost = 0;
	l->order_arrived = l->orders;
	l->cwnd = l->config.window;
	l->cwnd_credit = 0;
	l->recover = 0;
	l->rto_ns = l->probe_wait_ns = l->config.rto_ns_min;
	l->timer_ns = l->ack_at_ns = l->probe_ns = CHP_NEVER;
	l->paused_ns = 0;
	l->progress_ns = now_ns;
	l->delivered = l->highest = 0;
	l->ack_owed = 0;
	l->peer_grant = l->begun = l->grant = l->peer_begun = l->grant_sent = 0;
}

void
chp_link_peer(struct chp_link *l, uint64_t self_incarnation, uint64_t peer_incarnation, uint64_t now_ns)
{
	l->self_incarnation = self_incarnation;
	l->peer_incarnation = peer_incarnation;
	l->session = 1;
	l->state = CHP_LINK_UP;
	l->srtt_ns = l->rttvar_ns = 0;
	start_over(l, now_ns);
}

void
chp_link_reset(struct chp_link *l, uint64_t now_ns)
{
	l->session++;
	l->state = CHP_LINK_DOWN;
	l->counters.resets++;
	start_over(l, now_ns);
	/* The peer learns of the new session from packets without messages, repeated until it answers. */
	l->probe_ns = now_ns;
}

/* ------------------------------------------------------------------ sender: acknowledgements */

/* What is in flight has its time from now on, or from the end of a pause. */
static void
arm_timer(struct chp_link *l, uint64_t now_ns)
{
	l->timer_ns = chp_max_u64(now_ns, l->paused_ns) + l->rto_ns;
}

static void
measure_rtt(struct chp_link *l, uint64_t rtt_ns)
{
	if (l->srtt_ns == 0) {
		l->srtt_ns = rtt_ns;
		l->rttvar_ns = rtt_ns / 2;
	} else {
		uint64_t error = rtt_ns > l->srtt_ns ? rtt_ns - l->srtt_ns : l->srtt_ns - rtt_ns;

		l->rttvar_ns = (3 * l->rttvar_ns + error) / 4;
		l->srtt_ns = (7 * l->srtt_ns + rtt_ns) / 8;
	}
}

static void
reset_rto(struct chp_link *l)
{
	l->rto_ns = chp_max_u64(l->srtt_ns + 4 * l->rttvar_ns, l->config.rto_ns_min);
	l->rto_ns = chp_min_u64(l->rto_ns, l->config.rto_ns_max);
}

/* A packet has arrived at the peer, as ack or sack tells for the first time. */
static void
arrived(struct chp_link *l, struct chp_link_tx *t, uint64_t now_ns)
{
	if (t->lost) {
		t->lost = false;
		l->n_lost--;
	} else {
		l->in_flight--;
	}
	l->order_arrived = chp_max_u64(l->order_arrived, t->order);
	if (t->sends == 1)
		measure_rtt(l, now_ns - t->sent_ns);
	if (l->cwnd < l->config.window && ++l->cwnd_credit >= l->cwnd) {
		l->cwnd++;
		l->cwnd_credit = 0;
	}
}

static void
take_as_lost(struct chp_link *l, struct chp_link_tx *t)
{
	t->lost = true;
	l->n_lost++;
	l->in_flight--;
}

static void
halve_window(struct chp_link *l, uint64_t seq)
{
	if (seq <= l->recover)
		return; /* one halving for all losses of one window */
	l->cwnd = l->cwnd > 1 ? l->cwnd / 2 : 1;
	l->cwnd_credit = 0;
	l->recover = l->unsent - 1;
}

/* Packets that at least REORDER_MAX later sendings overtook are lost. */
static void
find_losses(struct chp_link *l)
{
	for (uint64_t seq = l->acked + 1; seq < l->unsent; seq++) {
		struct chp_link_tx *t = tx_at(l, seq);

		if (!t->sacked && !t->lost && t->order + REORDER_MAX <= l->order_arrived) {
			take_as_lost(l, t);
			halve_window(l, seq);
		}
	}
}

static void
apply_ack(struct chp_link *l, const struct chp_peer_header *h, uint64_t now_ns)
{
	bool news = false;

	if (h->ack >= l->unsent)
		return; /* acknowledges what was never sent: not of this session's making */
	while (l->acked < h->ack) {
		struct chp_link_tx *t = tx_at(l, ++l->acked);

		if (!t->sacked)
			arrived(l, t, now_ns);
		give_back(l, t);
		news = true;
	}
	for (uint64_t bits = h->sack; bits != 0; bits &= bits - 1) {
		uint64_t seq = h->ack + 2 + chp_first_bit(bits);
		struct chp_link_tx *t = tx_at(l, seq);

		if (seq >= l->unsent)
			break;
		if (seq <= l->acked || t->sacked)
			continue;
		arrived(l, t, now_ns);
		t->sacked = true;
		news = true;
	}
	if (news) {
		l->progress_ns = now_ns;
		reset_rto(l);
		l->timer_ns = CHP_NEVER;
		if (l->acked + 1 < l->unsent)
			arm_timer(l, now_ns);
		if (h->sack != 0 || l->in_flight > 0)
			find_losses(l);
	}
}

/* ------------------------------------------------------------------ sender: pauses */

/*
 * A pause begins, goes on or is ended by the peer, and what is in flight gets its time anew. A pause also halves the
 * window, as the losses would that it prevents: otherwise its end would fill the same ring at once.
 */
static void
apply_pause(struct chp_link *l, const struct chp_peer_header *h, uint64_t now_ns)
{
	uint64_t ns = chp_min_u64(h->pause_ms, CHP_PAUSE_MS_MAX) * NS_PER_MS;

	/* Late, of an earlier session; or of one that the peer's shard has not taken part in. */
	if (h->session != l->session || l->state != CHP_LINK_UP)
		return;
	l->paused_ns = 0;
	if (ns > 0) {
		l->counters.pauses++;
		l->paused_ns = now_ns + ns;
		halve_window(l, l->unsent - 1);
	}
	if (l->timer_ns != CHP_NEVER)
		arm_timer(l, now_ns);
}

/* Whether packets with messages must wait. */
static bool
is_paused(struct chp_link *l, uint64_t now_ns)
{
	if (l->paused_ns == 0 || now_ns < l->paused_ns)
		return l->paused_ns != 0;
	l->paused_ns = 0;
	l->counters.pauses_expired++;
	return false;
}

/* ------------------------------------------------------------------ receiver */

static void
ack_by(struct chp_link *l, uint64_t at_ns)
{
	l->ack_at_ns = chp_min_u64(l->ack_at_ns, at_ns);
}

static void
copy_waiting(struct chp_link *l, const uint8_t *data, uint32_t len, uint32_t offset, uint64_t seq)
{
	struct chp_link_rx *r = &l->rx[seq & l->rx_mask];

	if (r->bytes != data)
		memcpy(r->bytes, data, len);
	r->len = len;
	r->offset = offset;
	r->present = true;
}

static enum chp_link_verdict
take_data(struct chp_link *l, const struct chp_peer_header *h, const uint8_t *data, uint32_t len,
	  uint64_t now_ns)
{
	if (CHP_MUTATED(LINK_NO_DEDUP) && h->seq == l->delivered && h->seq > 0)
		l->delivered--;
	if (h->seq <= l->delivered || l->rx[h->seq & l->rx_mask].present) {
		l->counters.duplicates++;
		if (!CHP_MUTATED(LINK_LOST_ACK))
			ack_by(l, now_ns);
		return CHP_LINK_NOTHING;
	}
	l->highest = chp_max_u64(l->highest, h->seq);
	l->counters.rx_packets++;
	if (h->seq == l->delivered + 1)
		return CHP_LINK_DELIVER;
	copy_waiting(l, data, len, HEADER_BYTES, h->seq);
	l->counters.reordered++;
	ack_by(l, now_ns);
	return CHP_LINK_KEPT;
}

enum chp_link_verdict
chp_link_receive(struct chp_link *l, const uint8_t *data, uint32_t len, uint64_t now_ns)
{
	const struct chp_peer_header *h = (const void *)data;

	if (l->peer_incarnation == 0 || ((h->from_incarnation != l->peer_incarnation ||
					  h->to_incarnation != l->self_incarnation) &&
					 !CHP_MUTATED(P52_ANY_INCARNATION))) {
		l->counters.wrong_incarnation++;
		return CHP_LINK_NOTHING;
	}
	if ((h->flags & CHP_PEER_PAUSE) != 0) {
		apply_pause(l, h, now_ns);
		return CHP_LINK_NOTHING;
	}
	if (h->session > l->session) {
		l->session = h->session - 1;
		chp_link_reset(l, now_ns);
		return CHP_LINK_RESET;
	}
	if (h->session < l->session) {
		l->counters.wrong_session++;
		ack_by(l, now_ns); /* so that the peer learns of the new session */
		return CHP_LINK_NOTHING;
	}
	if (l->state == CHP_LINK_DOWN) {
		l->state = CHP_LINK_UP;
		ack_by(l, now_ns);
	}
	apply_ack(l, h, now_ns);
	l->peer_grant = chp_max_u64(l->peer_grant, h->grant);
	l->probe_ns = CHP_NEVER;
	l->probe_wait_ns = l->rto_ns;
	if ((h->flags & CHP_PEER_ACK_NOW) != 0)
		ack_by(l, now_ns);
	if (h->seq == 0) {
		l->counters.rx_acks++;
		return CHP_LINK_NOTHING;
	}
	if (h->seq > l->delivered + l->config.window) {
		l->counters.beyond_window++;
		return CHP_LINK_NOTHING;
	}
	return take_data(l, h, data, len, now_ns);
}

void
chp_link_delivered(struct chp_link *l, uint64_t now_ns)
{
	l->delivered++;
	l->rx[l->delivered & l->rx_mask].present = false;
	if (++l->ack_owed * 2 >= l->config.window)
		ack_by(l, now_ns);
	else
		ack_by(l, now_ns + l->config.ack_delay_ns);
}

void
chp_link_keep(struct chp_link *l, const uint8_t *data, uint32_t len, uint32_t offset)
{
	copy_waiting(l, data, len, offset, l->delivered + 1);
}

struct chp_link_rx *
chp_link_waiting(const struct chp_link *l)
{
	struct chp_link_rx *r = &l->rx[(l->delivered + 1) & l->rx_mask];

	return r->present ? r : NULL;
}

/* ------------------------------------------------------------------ sender: packets */

void
chp_link_open(struct chp_link *l, uint32_t bytes, uint64_t epoch, uint8_t **at, uint8_t **end)
{
	struct chp_link_tx *t = tx_at(l, l->next);

	CHP_ASSERT(l->open == NULL);
	CHP_ASSERT_OP(HEADER_BYTES + bytes, <=, l->config.payload_bytes_max);
	if (l->state == CHP_LINK_DOWN || l->peer_incarnation == 0 || l->overflow || l->n_buffers == 0) {
		/*
		 * Credits bound what can be queued; if that is broken the link starts over, it never stops. Until
		 * then nothing may follow what found no room: the link is FIFO.
		 */
		if (l->n_buffers == 0)
			l->overflow = true;
		*at = l->scratch;
		*end = l->scratch + l->config.payload_bytes_max - HEADER_BYTES;
		return;
	}
	*t = (struct chp_link_tx){ .bytes = l->buffer[--l->n_buffers], .epoch = epoch };
	l->open = t;
	*at = t->bytes + HEADER_BYTES;
	*end = t->bytes + l->config.payload_bytes_max;
}

void
chp_link_close(struct chp_link *l, const uint8_t *at)
{
	struct chp_link_tx *t = l->open;

	if (t == NULL)
		return;
	l->open = NULL;
	t->len = (uint32_t)(at - t->bytes);
	if (t->len == HEADER_BYTES)
		give_back(l, t);
	else
		l->next++;
}

uint32_t
chp_link_room(const struct chp_link *l)
{
	return l->n_buffers;
}

uint32_t
chp_link_bulk_bytes(const struct chp_link *l)
{
	const uint32_t most = l->config.window > 1 ? l->config.window / 2 : 1;
	const uint64_t used = l->next - 1 - l->acked;

	if (l->state != CHP_LINK_UP || l->peer_incarnation == 0 || used >= most)
		return 0;
	return (most - (uint32_t)used) * (l->config.payload_bytes_max - HEADER_BYTES);
}

static uint64_t
sack_bits(const struct chp_link *l)
{
	uint64_t bits = 0;

	if (l->highest <= l->delivered + 1)
		return 0;
	for (uint32_t i = 0; i < 64 && l->delivered + 2 + i <= l->highest; i++)
		if (l->rx[(l->delivered + 2 + i) & l->rx_mask].present)
			bits |= UINT64_C(1) << i;
	return bits;
}

static void
write_header(struct chp_link *l, uint8_t *to, uint64_t seq, uint64_t epoch, uint16_t flags)
{
	struct chp_peer_header *h = (void *)to;

	*h = (struct chp_peer_header){
		.prelude = { CHP_WIRE_MAGIC, CHP_WIRE_VERSION, (uint8_t)l->config.kind, l->config.cluster_hash },
		.from = (uint8_t)l->config.self,
		.to = (uint8_t)l->config.peer,
		.shard = (uint16_t)l->config.shard,
		.from_incarnation = l->self_incarnation,
		.to_incarnation = l->peer_incarnation,
		.epoch = epoch,
		.session = l->session,
		.flags = flags,
		.seq = seq,
		.ack = CHP_MUTATED(LINK_FALSE_ACK) ? l->highest : l->delivered,
		.sack = sack_bits(l),
		.grant = l->grant,
	};
	l->grant_sent = l->grant;
	l->ack_owed = 0;
	l->ack_at_ns = CHP_NEVER;
}

/* Time-out: everything in flight that the peer is not known to have is sent again, slower. */
static void
time_out(struct chp_link *l, uint64_t now_ns)
{
	l->counters.timeouts++;
	for (uint64_t seq = l->acked + 1; seq < l->unsent; seq++) {
		struct chp_link_tx *t = tx_at(l, seq);

		if (!t->sacked && !t->lost)
			take_as_lost(l, t);
	}
	l->recover = 0;
	halve_window(l, l->unsent - 1);
	l->rto_ns = chp_min_u64(2 * l->rto_ns, l->config.rto_ns_max);
	arm_timer(l, now_ns);
	/* The peer may hold all of it already: then only a question brings its acknowledgement. */
	if (l->n_lost == 0)
		l->probe_ns = now_ns;
}

static uint32_t
send_packet(struct chp_link *l, uint64_t seq, uint64_t now_ns, uint8_t *to)
{
	struct chp_link_tx *t = tx_at(l, seq);

	memcpy(to + HEADER_BYTES, t->bytes + HEADER_BYTES, t->len - HEADER_BYTES);
	write_header(l, to, seq, t->epoch, 0);
	if (l->in_flight == 0 && l->acked + 1 == seq && t->sends == 0)
		l->progress_ns = now_ns;
	if (t->sends > 0)
		l->counters.retransmits++;
	t->sends++;
	t->sent_ns = now_ns;
	t->order = ++l->orders;
	l->in_flight++;
	l->counters.tx_packets++;
	if (l->timer_ns == CHP_NEVER)
		arm_timer(l, now_ns);
	return t->len;
}

static uint32_t
send_lost(struct chp_link *l, uint64_t now_ns, uint8_t *to)
{
	for (uint64_t seq = l->acked + 1; seq < l->unsent; seq++) {
		struct chp_link_tx *t = tx_at(l, seq);

		if (t->lost) {
			t->lost = false;
			l->n_lost--;
			return send_packet(l, seq, now_ns, to);
		}
	}
	CHP_ASSERT(false);
}

/* Out of credits, nothing on its way: only the peer's next grant helps, and that packet may be lost. */
static bool
is_starved(const struct chp_link *l)
{
	return l->config.kind == CHP_PACKET_PEER && l->peer_grant == l->begun && l->state == CHP_LINK_UP &&
	       l->acked + 1 == l->next;
}

uint32_t
chp_link_transmit(struct chp_link *l, uint64_t now_ns, uint64_t epoch, uint8_t *to)
{
	bool probe;

	if (l->peer_incarnation == 0)
		return 0;
	if (l->timer_ns <= now_ns)
		time_out(l, now_ns);
	if (!is_paused(l, now_ns) && l->in_flight < l->cwnd) {
		if (l->n_lost > 0)
			return send_lost(l, now_ns, to);
		if (l->unsent < l->next && l->unsent <= l->acked + l->config.window)
			return send_packet(l, l->unsent++, now_ns, to);
	}
	if (l->probe_ns == CHP_NEVER && is_starved(l))
		l->probe_ns = now_ns + l->probe_wait_ns;
	probe = l->probe_ns <= now_ns;
	if (!probe && l->ack_at_ns > now_ns)
		return 0;
	if (probe) {
		l->probe_wait_ns = chp_min_u64(2 * l->probe_wait_ns, l->config.rto_ns_max);
		l->probe_ns = now_ns + l->probe_wait_ns;
	}
	write_header(l, to, 0, epoch, probe ? CHP_PEER_ACK_NOW : 0);
	l->counters.tx_acks++;
	return HEADER_BYTES;
}

uint64_t
chp_link_wake_ns(const struct chp_link *l)
{
	uint64_t wake = chp_min_u64(chp_min_u64(l->timer_ns, l->ack_at_ns), l->probe_ns);

	if (l->peer_incarnation == 0)
		return CHP_NEVER;
	if (l->in_flight < l->cwnd &&
	    (l->n_lost > 0 || (l->unsent < l->next && l->unsent <= l->acked + l->config.window)))
		wake = chp_min_u64(wake, l->paused_ns);
	if (l->config.link_down_ns != CHP_NEVER && l->acked + 1 < l->unsent)
		wake = chp_min_u64(wake, l->progress_ns + l->config.link_down_ns);
	return wake;
}

void
chp_link_set_grant(struct chp_link *l, uint64_t grant, uint64_t now_ns)
{
	uint64_t left = l->grant_sent - l->peer_begun;

	if (grant <= l->grant)
		return;
	l->grant = grant;
	/* Tell it soon when it may be waiting: it knows of less than half of what it may begin. */
	if (left * 2 < grant - l->peer_begun)
		ack_by(l, now_ns + (left == 0 ? 0 : l->config.ack_delay_ns));
}

bool
chp_link_is_stuck(const struct chp_link *l, uint64_t now_ns)
{
	if (l->peer_incarnation == 0 || l->state == CHP_LINK_DOWN)
		return false;
	if (l->overflow)
		return true;
	return l->config.link_down_ns != CHP_NEVER && l->acked + 1 < l->unsent &&
	       now_ns >= l->progress_ns + l->config.link_down_ns;
}

void
chp_link_check(const struct chp_link *l)
{
	uint32_t in_flight = 0, lost = 0, kept = 0;

	CHP_ASSERT(l->acked < l->unsent && l->unsent <= l->next);
	CHP_ASSERT_OP(l->unsent - l->acked - 1, <=, l->config.window);
	CHP_ASSERT_OP(l->highest, <=, l->delivered + l->config.window);
	CHP_ASSERT(l->cwnd >= 1 || l->peer_incarnation == 0);
	CHP_ASSERT_OP(l->begun, <=, l->peer_grant);
	CHP_ASSERT_OP(l->grant_sent, <=, l->grant);
	for (uint64_t seq = l->acked + 1; seq < l->next; seq++) {
		const struct chp_link_tx *t = tx_at(l, seq);

		kept++;
		lost += t->lost;
		in_flight += seq < l->unsent && !t->lost && !t->sacked;
		CHP_ASSERT(t->bytes != NULL && t->len > HEADER_BYTES);
	}
	CHP_ASSERT_OP(in_flight, ==, l->in_flight);
	CHP_ASSERT_OP(lost, ==, l->n_lost);
	CHP_ASSERT_OP(kept + l->n_buffers + (l->open != NULL), ==, l->config.queue);
	CHP_ASSERT(in_flight == 0 || l->timer_ns != CHP_NEVER);
}
