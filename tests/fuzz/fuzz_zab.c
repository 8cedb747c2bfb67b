/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A ZAB shard of node 0 whose peers are hostile: their packets pass chp_peer_check but say anything. Clients send
 * whatever the frontend would let through. Peers may ruin what their own cluster holds, but the shard must
 * neither crash nor break its invariants. With STORE_FIRST to STORE_LAST as first byte it has a host and a store, which
 * is honest.
 *
 * The input is a script, see run(). Peers can lie in every field; by default a field is what fits the shard's
 * state, which they look up, so that elections, synchronisations and copies come about and the interesting lies
 * come one at a time.
 */
#include "../support/fuzz_store.h"
#include "../support/script.h"

#include "base/assert.h"
#include "core/shard.h"
#include "wire/copy.h"
#include "wire/zab.h"

#include <stdlib.h>
#include <string.h>

#define HASH 0x1234abcdu
#define NODES_MAX 3u
#define KEYS 6u
#define PACKET_BYTES CHP_PAYLOAD_BYTES_MIN
#define VALUE_MAX 100u
#define BUFFERS 16u
#define REPLIES 8u
#define STEPS_MAX 200u
#define US UINT64_C(1000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a peer knows of its link to the shard, and what the shard last asked it. */
struct peer {
	uint64_t next;     /* sequence number of its next packet */
	uint64_t received; /* it has every packet up to this one */
	uint64_t grant;
	uint32_t session;
	uint32_t transfer; /* of the shard's last REQUEST */
	uint64_t cursor;   /* of its last END */
	uint64_t recover_id, read_id, sent_ns, serial;
	uint64_t items, digest; /* of the chunk that it sends */
	uint32_t asked, tag;    /* of the shard's last FETCH or OFFER */
};

struct world {
	struct chp_shard *shard;
	struct store store;
	uint64_t founding;
	struct chp_zab_state state;
	struct chp_view view;
	struct peer peer[NODES_MAX];
	uint32_t n_nodes;
	uint64_t now_ns;
	uint64_t session; /* a session that the shard opened */
	uint64_t version; /* newest version seen in a reply */
	uint64_t request;
	uint8_t packet[4][CHP_PAYLOAD_BYTES_MAX];
	struct chp_packet event[4];
	uint32_t n_events;
	uint8_t key[REPLIES][CHP_KEY_BYTES_MAX];
	uint8_t value[VALUE_MAX];
	struct chp_op op[REPLIES];
	uint32_t n_ops;
	uint32_t reply_room;
	const struct chp_view *new_view;
	uint32_t replies;
};

static struct world w;

/* ---- the shard's side ---- */

static uint8_t *
take_reply(void *frontend, const struct chp_reply *r)
{
	static uint8_t value[CHP_VALUE_BYTES_MAX];

	(void)frontend;
	CHP_ASSERT_OP(r->value_len, <=, VALUE_MAX);
	CHP_ASSERT_OP(r->status, <, CHP_STATUS_COUNT);
	CHP_ASSERT_OP(w.replies, <, w.reply_room);
	w.replies++;
	if (r->opcode == CHP_OPCODE_SESSION_OPEN && r->status == CHP_STATUS_OK)
		w.session = r->number;
	if (r->version != 0)
		w.version = r->version;
	return value;
}

/* A peer remembers what the shard asks it. */
static void
take_message(struct peer *p, const struct chp_message *m)
{
	switch (m->type) {
	case CHP_COPY_REQUEST:
		p->transfer = m->op;
		p->items = p->digest = 0;
		break;
	case CHP_COPY_END:
		p->cursor = ((const struct chp_copy_end *)(const void *)m)->next;
		break;
	case CHP_ZAB_NEWEPOCH:
		p->serial = ((const struct chp_zab_newepoch *)(const void *)m)->serial;
		break;
	case CHP_ZAB_RECOVER:
		p->recover_id = ((const struct chp_zab_recover *)(const void *)m)->id;
		break;
	case CHP_ZAB_READ:
		p->read_id = ((const struct chp_zab_read *)(const void *)m)->id;
		break;
	case CHP_ZAB_BEAT:
		p->sent_ns = ((const struct chp_zab_beat *)(const void *)m)->sent_ns;
		break;
	case CHP_ZAB_FETCH:
	case CHP_ZAB_OFFER:
		p->asked = m->op;
		p->tag = ((const struct chp_zab_fetch *)(const void *)m)->tag;
		break;
	default:
		break;
	}
}

static void
take_packet(const struct chp_buffer *b)
{
	const struct chp_peer_header *h = (const void *)b->data;
	struct peer *p = &w.peer[b->peer % CHP_TO_HOST];

	chp_peer_seal(b->data, b->len);
	if (b->peer == CHP_TO_HOST) {
		store_listen(&w.store, b->data, b->len);
		return;
	}
	CHP_ASSERT(chp_peer_check(b->data, b->len, HASH, w.n_nodes, 1) == CHP_PACKET_OK);
	CHP_ASSERT_OP(h->to, ==, b->peer);
	if (h->session != p->session)
		*p = (struct peer){ .next = 1, .session = h->session, .grant = 2 };
	if (h->seq == p->received + 1)
		p->received++;
	for (uint32_t at = sizeof(*h); at < b->len;) {
		const struct chp_message *m = (const void *)(b->data + at);

		CHP_ASSERT(chp_zab.accepts(m, VALUE_MAX)); /* what it says it would take itself */
		take_message(p, m);
		at += m->len;
	}
}

static void
run_once(void)
{
	static uint8_t bytes[BUFFERS][PACKET_BYTES];
	struct chp_buffer buffer[BUFFERS];
	struct chp_now now = { .ns = w.now_ns };
	struct chp_packet packet[STORE_PACKETS + CHP_ARRAY_LEN(w.event)];
	struct chp_events in = {
		.packet = packet,
		.n_packets = w.store.n_to + w.n_events,
		.op = w.op,
		.n_ops = w.n_ops,
		.view = w.new_view,
		.founding = w.founding,
		.host_is_gone = w.store.is_gone,
	};
	struct chp_effects out = {
		.buffer = buffer,
		.n_buffers = BUFFERS,
		.reply = take_reply,
		.reply_room = w.n_ops > w.reply_room ? w.n_ops : w.reply_room,
	};
	struct chp_protocol_status status;

	for (uint32_t i = 0; i < BUFFERS; i++)
		buffer[i] = (struct chp_buffer){ .data = bytes[i] };
	memcpy(packet, w.store.to_shard, w.store.n_to * sizeof(packet[0]));
	memcpy(packet + w.store.n_to, w.event, w.n_events * sizeof(packet[0]));
	w.replies = 0;
	w.reply_room = out.reply_room;
	chp_shard_run(w.shard, &now, &in, &out);
	chp_shard_check(w.shard);
	chp_zab_inspect(chp_shard_instance(w.shard), &w.state);
	chp_shard_status(w.shard, &status);
	CHP_ASSERT_OP(status.committed, <=, status.proposed);
	for (uint32_t i = 0; i < out.n_used; i++)
		take_packet(&buffer[i]);
	if (w.store.is_present)
		store_run(&w.store, w.now_ns);
	w.n_events = w.n_ops = 0;
	w.new_view = NULL;
	w.reply_room = REPLIES;
}

static void
run_shard(void)
{
	run_once();
	for (uint32_t i = 0; i < STORE_ROUNDS && store_is_busy(&w.store); i++)
		run_once();
}

/* ---- what peers say ---- */

static struct chp_message
header(uint8_t type, uint32_t len)
{
	return (struct chp_message){ .type = type, .len = (uint16_t)len, .op = CHP_OP_NONE };
}

static uint32_t
key_bytes(struct input *in, uint8_t *to)
{
	uint8_t which = u8(in);
	uint32_t len = which < 200 ? 1 : (which < 250 ? 60 : CHP_KEY_BYTES_MAX);

	memset(to, 'a' + which % (2 * KEYS), len); /* more than the shard admits */
	return len;
}

/* The epoch of the term, or the one to come. */
static uint64_t
an_epoch(struct input *in, uint64_t more)
{
	return bent(in, w.state.accepted_epoch + more);
}

static uint32_t
add_look(struct input *in, uint8_t *to)
{
	const uint8_t choice = u8(in);
	struct chp_zab_look *m = (void *)to;

	*m = (struct chp_zab_look){
		.message = header(CHP_ZAB_LOOK, sizeof(*m)),
		.round = (choice & 7) == 0 ? 0 : bent(in, w.state.round + choice / 8 % 2),
		.accepted_epoch = bent(in, w.state.accepted_epoch),
		.view = bent(in, w.view.epoch),
		.look_flags = (choice & 15) == 0 ? CHP_ZAB_JOIN : bent(in, 0),
	};
	return sizeof(*m);
}

static uint32_t
add_newepoch(struct input *in, uint8_t *to)
{
	struct chp_zab_newepoch *m = (void *)to;

	*m = (struct chp_zab_newepoch){
		.message = header(CHP_ZAB_NEWEPOCH, sizeof(*m)),
		.round = bent(in, w.state.round),
		.epoch = an_epoch(in, w.state.phase == CHP_ZAB_RECOVERING ? 0 : 1),
		.serial = u8(in),
	};
	return sizeof(*m);
}

static uint32_t
add_ackepoch(struct input *in, const struct peer *p, uint8_t type, uint8_t *to)
{
	struct chp_zab_ackepoch *m = (void *)to;
	struct chp_zab_history *h = &m->history;

	*m = (struct chp_zab_ackepoch){
		.message = header(type, sizeof(*m)),
		.epoch = an_epoch(in, 0),
		.view = bent(in, w.view.epoch),
		.serial = bent(in, p->serial),
	};
	h->current_epoch = bent(in, w.state.current_epoch);
	h->last_epoch = bent(in, w.state.last_epoch);
	h->last = bent(in, w.state.last);
	h->committed = bent(in, w.state.committed < h->last ? w.state.committed : h->last);
	h->flags = bent(in, 0) & CHP_ZAB_INCOMPLETE;
	h->n_runs = u8(in) % 4;
	for (uint32_t i = 0; i < h->n_runs; i++)
		h->run[i] = (struct chp_zab_run){ .epoch = bent(in, h->last_epoch + 1 + i - h->n_runs),
						  .first = bent(in, h->committed + 1 + i) };
	return sizeof(*m);
}

static uint32_t
add_sync(struct input *in, uint8_t type, uint8_t *to)
{
	const uint8_t flags = u8(in);
	struct chp_zab_sync *m = (void *)to;

	*m = (struct chp_zab_sync){
		.message = header(type, sizeof(*m)),
		.epoch = an_epoch(in, 0),
		.keep = bent(in, (flags & 8) != 0 ? w.state.last : w.state.committed),
		.keep_epoch = bent(in, w.state.last_epoch),
		.sync_flags = flags < 160 ? 0 : flags & 7,
	};
	m->end = bent(in, m->keep + flags / 16 % 4);
	return sizeof(*m);
}

static uint32_t
add_propose(struct input *in, uint8_t *to)
{
	static const uint32_t lens[] = { 0, 1, 20, VALUE_MAX, VALUE_MAX + 1 };
	struct chp_zab_propose *m = (void *)to;
	uint8_t key[CHP_KEY_BYTES_MAX];
	uint32_t key_len = key_bytes(in, key), value_len = lens[u8(in) % CHP_ARRAY_LEN(lens)], bytes;
	const uint8_t choice = u8(in), usual = w.store.is_present && choice >= 112 ? CHP_ZAB_RESTORED : 0;
	const uint8_t flags = choice < 128 ? usual : choice & CHP_ZAB_ENTRY_FLAGS_ALL;
	const bool is_restored = (flags & CHP_ZAB_RESTORED) != 0;
	const uint64_t session = bent(in, w.session + choice / 16 % 8);

	if ((flags & CHP_ZAB_SESSION) != 0) {
		key_len = sizeof(session);
		memcpy(key, &session, sizeof(session));
	}
	if ((flags & CHP_ZAB_RULE) != 0)
		key_len = 0;
	if ((flags & ~(CHP_ZAB_SESSION | (w.store.is_present ? CHP_ZAB_RESTORED : 0))) != 0)
		value_len = 0;
	bytes = chp_zab_propose_bytes(key_len, value_len);
	memset(m, 0, bytes);
	*m = (struct chp_zab_propose){
		.message = header(CHP_ZAB_PROPOSE, bytes),
		.epoch = an_epoch(in, 0),
		.entry_epoch = bent(in, w.state.accepted_epoch),
		.index = bent(in, w.state.last + 1 + choice % 4 * (choice % 16 > 7)),
		.session = bent(in, choice % 2 == 0 || is_restored ? 0 : w.session),
		.request = bent(in, w.request),
		.number = bent(in, is_restored ? 1 + choice % 8 : choice % 2),
		.value_total = value_len,
		.key_len = (uint8_t)key_len,
		.entry_flags = flags,
		.status = (uint8_t)bent(in, 0),
	};
	m->message.flags = u8(in) < 240 ? CHP_MESSAGE_BEGIN : 0;
	memcpy(m + 1, key, key_len);
	memset((uint8_t *)(m + 1) + key_len, '7', value_len);
	return bytes;
}

static uint32_t
add_index(struct input *in, uint8_t type, uint8_t *to)
{
	struct chp_zab_index *m = (void *)to;

	*m = (struct chp_zab_index){
		.message = header(type, sizeof(*m)),
		.epoch = an_epoch(in, 0),
		.index = bent(in, w.state.last),
		.view = bent(in, w.view.epoch),
		.index_flags = bent(in, type == CHP_ZAB_COMMIT ? u8(in) % 2 : 0),
	};
	if (w.store.is_present)
		m->durable = bent(in, w.state.last);
	return sizeof(*m);
}

static uint32_t
add_beat(struct input *in, const struct peer *p, uint8_t type, uint8_t *to)
{
	struct chp_zab_beat *m = (void *)to;

	*m = (struct chp_zab_beat){
		.message = header(type, sizeof(*m)),
		.epoch = an_epoch(in, 0),
		.sent_ns = bent(in, type == CHP_ZAB_BEAT_ACK ? p->sent_ns : w.now_ns),
		.lease_ns = bent(in, 5000 * US),
	};
	if (w.store.is_present && type == CHP_ZAB_BEAT_ACK)
		m->beat_flags = bent(in, CHP_ZAB_HOST_READY);
	return sizeof(*m);
}

static uint32_t
add_read(struct input *in, const struct peer *p, uint8_t type, uint8_t *to)
{
	struct chp_zab_read *m = (void *)to;

	*m = (struct chp_zab_read){
		.message = header(type, sizeof(*m)),
		.epoch = an_epoch(in, 0),
		.id = bent(in, p->read_id),
		.index = bent(in, w.state.applied),
	};
	return sizeof(*m);
}

static uint32_t
add_recover(struct input *in, uint8_t *to)
{
	struct chp_zab_recover *m = (void *)to;

	*m = (struct chp_zab_recover){ .message = header(CHP_ZAB_RECOVER, sizeof(*m)), .id = u8(in) };
	return sizeof(*m);
}

static uint32_t
add_recovered(struct input *in, const struct peer *p, uint8_t *to)
{
	struct chp_zab_recovered *m = (void *)to;

	*m = (struct chp_zab_recovered){
		.message = header(CHP_ZAB_RECOVERED, sizeof(*m)),
		.id = bent(in, p->recover_id),
		.accepted_epoch = bent(in, 3),
		.last = bent(in, 2),
		.lease_ns = bent(in, 1000 * US),
		.recovered_flags = u8(in) % 2,
	};
	return sizeof(*m);
}

/* FETCH or OFFER: a shard without a store has no use for them. */
static uint32_t
add_question(struct input *in, uint8_t type, uint8_t *to)
{
	struct chp_zab_fetch *m = (void *)to;
	uint8_t key[CHP_KEY_BYTES_MAX];
	const uint32_t key_len = key_bytes(in, key);
	const uint32_t bytes = chp_align_u32((uint32_t)sizeof(*m) + key_len, CHP_MESSAGE_ALIGN);

	memset(m, 0, bytes);
	*m = (struct chp_zab_fetch){
		.message = header(type, bytes),
		.epoch = an_epoch(in, 0),
		.tag = u8(in),
		.key_len = (uint8_t)key_len,
	};
	m->message.op = (uint32_t)bent(in, 0);
	memcpy(m + 1, key, key_len);
	return bytes;
}

static uint32_t
add_fetched(struct input *in, const struct peer *p, uint8_t *to)
{
	const uint8_t status = u8(in) % (CHP_ZAB_FETCH_KNOWN + 1);
	const uint32_t value_len = status == CHP_ZAB_FETCH_FOUND ? u8(in) % (VALUE_MAX + 2) : 0;
	struct chp_zab_fetched *m = (void *)to;
	const uint32_t bytes = chp_align_u32((uint32_t)sizeof(*m) + value_len, CHP_MESSAGE_ALIGN);

	memset(m, 0, bytes);
	*m = (struct chp_zab_fetched){
		.message = header(CHP_ZAB_FETCHED, bytes),
		.epoch = an_epoch(in, 0),
		.version = status <= CHP_ZAB_FETCH_TOMBSTONE ? bent(in, 1) : 0,
		.tag = w.store.is_present ? (uint32_t)bent(in, p->tag) : u8(in),
		.value_total = value_len,
		.generation = u8(in),
		.status = status,
	};
	m->message.op = (uint32_t)bent(in, p->asked);
	return bytes;
}

/* Bytes as they come, behind a header of the right length. */
static uint32_t
add_noise(struct input *in, uint8_t *to)
{
	struct chp_message *m = (void *)to;
	uint32_t len = 8 + 8 * (u8(in) % 16u);

	for (uint32_t i = 0; i < len; i++)
		to[i] = u8(in);
	m->len = (uint16_t)len;
	return len;
}

/* ---- the copy ---- */

static void
count(struct peer *p, const struct chp_message *m)
{
	p->items++;
	p->digest += chp_hash64(m, m->len, 0);
}

static uint32_t
add_request(struct input *in, const struct peer *p, uint8_t *to)
{
	struct chp_copy_request *m = (void *)to;

	*m = (struct chp_copy_request){
		.message = { .type = CHP_COPY_REQUEST, .len = sizeof(*m), .op = u8(in) },
		.cursor = bent(in, p->cursor),
		.bytes = (uint32_t)bent(in, 200),
	};
	return sizeof(*m);
}

static uint32_t
add_item(struct input *in, struct peer *p, uint8_t *to)
{
	struct chp_copy_item *m = (void *)to;
	uint8_t key[CHP_KEY_BYTES_MAX], choice = u8(in), flags = choice < 200 ? choice & CHP_COPY_SESSION : choice;
	uint32_t key_len = key_bytes(in, key), value_len = u8(in) % (VALUE_MAX + 2);
	const uint64_t session = bent(in, w.session + choice / 16 % 8);

	if ((flags & CHP_COPY_SESSION) != 0) {
		key_len = sizeof(session);
		memcpy(key, &session, sizeof(session));
		value_len = 0;
	}
	if ((flags & CHP_COPY_TOMBSTONE) != 0)
		value_len = 0;
	memset(m, 0, chp_copy_item_bytes(key_len, value_len));
	*m = (struct chp_copy_item){
		.message = { .type = CHP_COPY_ITEM,
			     .len = (uint16_t)chp_copy_item_bytes(key_len, value_len),
			     .op = (uint32_t)bent(in, p->transfer) },
		.version = bent(in, w.state.applied),
		.key_len = (uint8_t)key_len,
		.item_flags = flags,
		.value_total = value_len,
	};
	memcpy(m + 1, key, key_len);
	count(p, &m->message);
	return m->message.len;
}

static uint32_t
add_record(struct input *in, struct peer *p, uint8_t *to)
{
	struct chp_copy_record *m = (void *)to;

	*m = (struct chp_copy_record){
		.message = { .type = CHP_COPY_RECORD, .len = sizeof(*m), .op = (uint32_t)bent(in, p->transfer) },
		.session = bent(in, w.session),
		.request = bent(in, w.request),
		.version = bent(in, w.version),
		.record_flags = (uint32_t)bent(in, CHP_COPY_RECORD_DECIDED),
	};
	count(p, &m->message);
	return sizeof(*m);
}

static uint32_t
add_end(struct input *in, struct peer *p, uint8_t *to)
{
	struct chp_copy_end *m = (void *)to;

	*m = (struct chp_copy_end){
		.message = { .type = CHP_COPY_END, .len = sizeof(*m), .op = (uint32_t)bent(in, p->transfer) },
		.next = bent(in, 10),
		.items = (uint32_t)bent(in, p->items),
		.end_flags = u8(in) % 4 != 0,
		.digest = bent(in, p->digest),
	};
	m->total = bent(in, m->next + 1 - m->end_flags);
	return sizeof(*m);
}

static uint32_t
add_message(struct input *in, struct peer *p, uint8_t *to)
{
	const uint8_t type = u8(in) % 32;

	switch (type) {
	case 0:
	case 1:
		return add_look(in, to);
	case 2:
		return add_newepoch(in, to);
	case 3:
	case 4:
		return add_ackepoch(in, p, type == 3 ? CHP_ZAB_ACKEPOCH : CHP_ZAB_PULL, to);
	case 5:
	case 6:
		return add_sync(in, type == 5 ? CHP_ZAB_NEWLEADER : CHP_ZAB_HISTORY, to);
	case 7 ... 10:
		return add_propose(in, to);
	case 11:
	case 12:
	case 13:
		return add_index(in, type == 11 ? CHP_ZAB_ACK : (type == 12 ? CHP_ZAB_ACKLD : CHP_ZAB_COMMIT), to);
	case 14:
	case 15:
		return add_beat(in, p, type == 14 ? CHP_ZAB_BEAT : CHP_ZAB_BEAT_ACK, to);
	case 16:
	case 17:
		return add_read(in, p, type == 16 ? CHP_ZAB_READ : CHP_ZAB_READ_INDEX, to);
	case 18:
		return add_recover(in, to);
	case 19:
		return add_recovered(in, p, to);
	case 20:
		return add_request(in, p, to);
	case 21:
	case 22:
		return add_item(in, p, to);
	case 23:
		return add_record(in, p, to);
	case 24:
		return add_end(in, p, to);
	case 25:
		return add_noise(in, to);
	case 29:
	case 30:
		return add_question(in, type == 29 ? CHP_ZAB_FETCH : CHP_ZAB_OFFER, to);
	case 31:
		return add_fetched(in, p, to);
	default:
		return add_propose(in, to);
	}
}

static void
add_packet(struct input *in)
{
	uint32_t from = 1 + u8(in) % (w.n_nodes - 1), n = u8(in) % 8u, len;
	struct peer *p = &w.peer[from];
	uint8_t *to = w.packet[w.n_events];
	struct chp_peer_header *h = (void *)to;

	*h = (struct chp_peer_header){
		.prelude = {
			.magic = CHP_WIRE_MAGIC,
			.version = CHP_WIRE_VERSION,
			.kind = CHP_PACKET_PEER,
			.cluster_hash = HASH,
		},
		.from = (uint8_t)from,
		.to = 0,
		.from_incarnation = w.view.incarnation[from],
		.to_incarnation = w.view.incarnation[0],
		.session = (uint32_t)bent(in, p->session),
		.seq = bent(in, n == 0 ? 0 : p->next),
		.ack = bent(in, p->received),
		.sack = bent(in, 0),
		.grant = bent(in, p->grant),
	};
	len = sizeof(*h);
	for (uint32_t i = 0; i < n && len < CHP_PAYLOAD_BYTES_MAX - CHP_ZAB_PROPOSE_BYTES_MAX; i++)
		len += add_message(in, p, to + len);
	if (h->seq == 0)
		len = sizeof(*h);
	if (h->seq == p->next)
		p->next++;
	p->grant += u8(in) % 3u;
	chp_peer_seal(to, len);
	CHP_ASSERT(chp_peer_check(to, len, HASH, w.n_nodes, 1) == CHP_PACKET_OK);
	w.event[w.n_events++] = (struct chp_packet){ .data = to, .len = len };
}

/* ---- what clients say: all that the frontend lets through ---- */

static void
add_op(struct input *in)
{
	static const uint8_t others[] = { CHP_OPCODE_SESSION_OPEN, CHP_OPCODE_SESSION_CLOSE, CHP_OPCODE_QUORUM,
					  CHP_OPCODE_PING };
	struct chp_op *op = &w.op[w.n_ops];
	const uint8_t which = u8(in) % (CHP_OPCODE_DECR + 4u);
	const uint8_t opcode = which < CHP_OPCODE_DECR ? CHP_OPCODE_GET + which : others[which - CHP_OPCODE_DECR];
	const bool has_key = opcode <= CHP_OPCODE_DECR;
	const bool has_value = has_key && opcode != CHP_OPCODE_GET && opcode != CHP_OPCODE_DELETE &&
			       opcode < CHP_OPCODE_INCR;
	const uint8_t choice = u8(in);

	*op = (struct chp_op){
		.value = w.value,
		.value_len = has_value ? choice % (VALUE_MAX + 1) : 0,
		.opcode = opcode,
		.is_relaxed = opcode == CHP_OPCODE_GET && choice % 4 == 0,
		.arg = opcode == CHP_OPCODE_QUORUM ? choice % 3 : bent(in, w.version),
		.session = (choice & 128) != 0 ? bent(in, w.session) : 0,
		.lowest = bent(in, 1),
		.request = bent(in, ++w.request),
	};
	op->key.bytes = w.key[w.n_ops];
	if (has_key)
		op->key.len = key_bytes(in, w.key[w.n_ops]);
	w.n_ops++;
}

/* ---- the script ---- */

static void
change_view(struct input *in)
{
	const uint64_t all = (1u << w.n_nodes) - 1;
	const uint8_t choice = u8(in);

	w.view.epoch++;
	w.view.voters = all;
	w.view.learners = 0;
	for (uint32_t i = 1; i < w.n_nodes; i++) {
		if (((choice >> 2 * i) & 3) != 0)
			continue;
		/* Another process: its link starts over. */
		w.view.incarnation[i]++;
		w.view.voters &= ~chp_bit(i);
		w.view.learners |= chp_bit(i);
		w.peer[i] = (struct peer){ .next = 1, .session = 1, .grant = 2 };
	}
	store_next_sources(w.shard, in, &w.view);
	w.new_view = &w.view;
	run_shard();
}

static void
run(struct input *in)
{
	for (uint32_t i = 0; i < STEPS_MAX && in->at < in->end; i++) {
		uint8_t what = u8(in);

		switch (what % 16) {
		case 0 ... 6:
			add_packet(in);
			break;
		case 7 ... 10:
			add_op(in);
			break;
		case 11:
			w.reply_room = 1 + u8(in) % REPLIES;
			break;
		case 12:
			w.now_ns += UINT64_C(1) << u8(in) % 28u;
			break;
		case 13:
			chp_shard_reset_link(w.shard, 1 + u8(in) % (w.n_nodes - 1));
			break;
		case 14:
			run_shard();
			change_view(in);
			break;
		default:
			if (w.store.is_present)
				store_step(&w.store, in);
			run_shard();
		}
		if (w.n_events == CHP_ARRAY_LEN(w.event) || w.n_ops == REPLIES || what >= 128)
			run_shard();
	}
	run_shard();
}

/* The first view of those that have stores: of a new cluster, of a cold start, or a later one that we join. */
static void
begin_with_store(struct input *in)
{
	const uint64_t all = w.view.voters | w.view.learners;
	const bool has_old = (w.store.choice & STORE_HAS_OLD) != 0;

	w.view.next_writer = (uint16_t)(w.n_nodes + 1);
	if ((w.store.choice & STORE_COLD) != 0) {
		w.view.epoch = chp_epoch_of_generation(1) + (w.view.learners != 0);
		w.view.sources = (u8(in) | 2u) & all & ~UINT64_C(1);
		if (has_old)
			w.view.sources |= w.view.voters & 1;
	} else if (has_old) {
		w.view.epoch = 8;
		w.view.learners = 1;
		w.view.voters = all & ~UINT64_C(1);
	}
	if (!chp_epoch_is_first(w.view.epoch))
		return;
	w.founding = w.view.epoch;
	run_shard();
	w.founding = 0;
}

static void
start(struct input *in)
{
	const uint8_t first = u8(in);
	const bool has_store = first >= STORE_FIRST && first <= STORE_LAST;
	const uint8_t choice = has_store ? u8(in) : first;
	int err = 0;
	struct chp_shard_config c = {
		.protocol = &chp_zab,
		.application = &chp_store,
		.memory = &chp_memory_libc,
		.name = "fuzz",
		.cluster_hash = HASH,
		.shards = 1,
		.n_nodes = 2 + choice % 2,
		.payload_bytes_max = PACKET_BYTES,
		.key_bytes_max = CHP_KEY_BYTES_MAX,
		.value_bytes_max = VALUE_MAX,
		.keys_max = 8,
		.value_blocks_max = 16,
		.sessions_max = 2,
		.session_window = 2,
		.session_idle_ns = 1000 * 1000 * US,
		.copy_bytes = 100,
		.credits = 1 + choice / 2 % 2 * 3,
		.link_window = 1 + choice / 4 % 4,
		.ops = 1 + choice / 16 % 4 * 3,
		.rto_ns_min = 100 * US,
		.rto_ns_max = 2000 * US,
		.ack_delay_ns = 10 * US,
		.link_down_ns = choice >= 128 ? 20000 * US : CHP_NEVER,
		.election_ns = 10000 * US,
		.leader_lease_ns = (choice & 64) != 0 ? 5000 * US : 0,
		.clock_drift_ppm = 100,
	};

	c.log_entries = chp_pow2_up(4 * c.n_nodes * c.credits) << choice / 64 % 2 * 3;
	c.log_blocks = CHP_RECORD_BLOCKS_MAX * 3 * c.n_nodes * c.credits;
	memset(&w, 0, sizeof(w));
	w.n_nodes = c.n_nodes;
	w.now_ns = 1000 * US;
	w.reply_room = REPLIES;
	w.session = 1;
	memset(w.value, '1', sizeof(w.value)); /* up to 20 digits are a number */
	if (has_store)
		store_open(&w.store, in, 0, &c);
	w.shard = chp_shard_create(&c, &err);
	CHP_ASSERT(w.shard != NULL);
	w.view.epoch = 1;
	w.view.voters = (1u << c.n_nodes) - 1;
	if (choice / 8 % 2 != 0) { /* one that lost its memory */
		w.view.voters &= ~UINT64_C(1);
		w.view.learners = 1;
	}
	for (uint32_t i = 0; i < c.n_nodes; i++) {
		w.view.incarnation[i] = 100 + i;
		w.view.writer[i] = (uint16_t)(i + 1);
		w.peer[i] = (struct peer){ .next = 1, .session = 1, .grant = 2 };
	}
	if (has_store)
		begin_with_store(in);
	w.new_view = &w.view;
	run_shard();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, data + size };

	start(&in);
	run(&in);
	chp_shard_destroy(w.shard);
	store_close(&w.store);
	return 0;
}
