/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A shard of node 0 whose peers are hostile: their packets pass chp_peer_check but say anything.
 * Clients send whatever the frontend would let through. The shard must neither crash nor break
 * its invariants. With STORE_FIRST to STORE_LAST as first byte it has a host and a store, which is honest.
 *
 * The input is a script, see run(). Peers can lie in every field; by default a field is what an
 * honest peer would say, so that the interesting lies come one at a time: the next sequence
 * number, an acknowledgement of all that was sent, an ACK of the INV that was last received.
 */
#include "../support/fuzz_store.h"
#include "../support/script.h"

#include "base/assert.h"
#include "core/shard.h"
#include "wire/copy.h"
#include "wire/hermes.h"

#include <stdlib.h>
#include <string.h>

#define HASH 0x1234abcdu
#define NODES_MAX 3u
#define KEYS 6u
#define PACKET_BYTES CHP_PAYLOAD_BYTES_MIN
#define VALUE_MAX 100u
#define BUFFERS 16u
#define REPLIES 8u
#define INVS 8u /* INVs of the shard that a peer remembers */
#define STEPS_MAX 200u
#define US UINT64_C(1000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a peer knows of its link to the shard. */
struct peer {
	uint64_t next;     /* sequence number of its next packet */
	uint64_t received; /* it has every packet up to this one */
	uint64_t grant;
	uint32_t session;
	uint32_t transfer; /* of the shard's last REQUEST */
	uint64_t cursor;   /* of its last END */
	struct chp_hermes_inv inv[INVS]; /* the last of the shard's INVs */
	uint32_t n_invs;
	uint32_t asked, generation; /* of the shard's last FETCH */
};

struct world {
	struct chp_shard *shard;
	struct store store;
	uint64_t founding;
	struct chp_view view;
	struct peer peer[NODES_MAX];
	uint32_t n_nodes;
	uint64_t now_ns;
	uint64_t lease_until_ns;
	uint64_t session; /* a session that the shard opened */
	uint64_t version; /* newest version seen in a reply or INV */
	uint64_t request;
	uint8_t packet[4][CHP_PAYLOAD_BYTES_MAX];
	struct chp_packet event[4];
	uint32_t n_events;
	uint8_t key[REPLIES][CHP_KEY_BYTES_MAX];
	uint8_t value[VALUE_MAX];
	struct chp_op op[REPLIES];
	uint32_t n_ops;
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
	CHP_ASSERT_OP(w.replies, <, REPLIES);
	w.replies++;
	if (r->opcode == CHP_OPCODE_SESSION_OPEN && r->status == CHP_STATUS_OK)
		w.session = r->number;
	if (r->version != 0)
		w.version = r->version;
	return value;
}

/* A peer takes what the shard sent: remembers its INVs, and how far the link has come. */
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
	if (h->session != p->session) {
		*p = (struct peer){ .next = 1, .session = h->session, .grant = p->grant };
		p->grant = 2;
	}
	if (h->seq == p->received + 1)
		p->received++;
	for (uint32_t at = sizeof(*h); at < b->len;) {
		const struct chp_message *m = (const void *)(b->data + at);

		if (m->type == CHP_HERMES_INV) {
			memcpy(&p->inv[p->n_invs++ % INVS], m, sizeof(p->inv[0]));
			w.version = p->inv[(p->n_invs - 1) % INVS].version;
		}
		if (m->type == CHP_HERMES_FETCH) {
			p->asked = m->op;
			p->generation = ((const struct chp_hermes_fetch *)(const void *)m)->generation;
		}
		if (m->type == CHP_COPY_REQUEST)
			p->transfer = m->op;
		if (m->type == CHP_COPY_END)
			p->cursor = ((const struct chp_copy_end *)(const void *)m)->next;
		at += m->len;
	}
}

static void
run_once(void)
{
	static uint8_t bytes[BUFFERS][PACKET_BYTES];
	struct chp_buffer buffer[BUFFERS];
	struct chp_now now = { .ns = w.now_ns, .lease_until_ns = w.lease_until_ns };
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
		.reply_room = REPLIES,
	};

	for (uint32_t i = 0; i < BUFFERS; i++)
		buffer[i] = (struct chp_buffer){ .data = bytes[i] };
	memcpy(packet, w.store.to_shard, w.store.n_to * sizeof(packet[0]));
	memcpy(packet + w.store.n_to, w.event, w.n_events * sizeof(packet[0]));
	w.replies = 0;
	chp_shard_run(w.shard, &now, &in, &out);
	chp_shard_check(w.shard);
	for (uint32_t i = 0; i < out.n_used; i++)
		take_packet(&buffer[i]);
	if (w.store.is_present)
		store_run(&w.store, w.now_ns);
	w.n_events = w.n_ops = 0;
	w.new_view = NULL;
}

static void
run_shard(void)
{
	run_once();
	for (uint32_t i = 0; i < STORE_ROUNDS && store_is_busy(&w.store); i++)
		run_once();
}

/* ---- what peers say ---- */

static uint32_t
key_bytes(struct input *in, uint8_t *to)
{
	uint8_t which = u8(in);
	uint32_t len = which < 200 ? 1 : (which < 250 ? 60 : CHP_KEY_BYTES_MAX);

	memset(to, 'a' + which % KEYS, len);
	return len;
}

static uint32_t
add_inv(struct input *in, uint8_t *to)
{
	static const uint32_t lens[] = { 0, 1, 20, VALUE_MAX, VALUE_MAX + 1, 1024 };
	struct chp_hermes_inv *m = (void *)to;
	uint8_t key[CHP_KEY_BYTES_MAX];
	uint32_t key_len = key_bytes(in, key), value_len = lens[u8(in) % CHP_ARRAY_LEN(lens)];
	uint8_t flags = u8(in) & CHP_INV_FLAGS_ALL;
	uint64_t session = bent(in, w.session);

	if ((flags & CHP_INV_SESSION) != 0) {
		key_len = sizeof(session);
		memcpy(key, &session, sizeof(session));
		value_len = 0;
	}
	if ((flags & CHP_INV_TOMBSTONE) != 0)
		value_len = 0;
	else
		flags &= (uint8_t)~CHP_INV_FORGET;
	memset(m, 0, chp_hermes_inv_bytes(key_len, value_len));
	m->message = (struct chp_message){
		.type = CHP_HERMES_INV,
		.flags = u8(in) & 1 ? CHP_MESSAGE_BEGIN : 0,
		.len = (uint16_t)chp_hermes_inv_bytes(key_len, value_len),
		.op = (uint32_t)bent(in, 0),
	};
	m->generation = u8(in);
	m->key_len = (uint8_t)key_len;
	m->inv_flags = flags;
	m->version = bent(in, w.version + (UINT64_C(2) << CHP_WRITER_BITS));
	m->base = bent(in, w.version);
	m->session = bent(in, 0);
	m->request = bent(in, 1);
	m->value_total = value_len;
	memcpy(m + 1, key, key_len);
	memset((uint8_t *)(m + 1) + key_len, '7', value_len);
	return m->message.len;
}

/* An ACK or STORED of an INV that this peer got, or a VAL. */
static uint32_t
add_answer(struct input *in, const struct peer *p, uint8_t type, uint8_t *to)
{
	struct chp_hermes_ack *m = (void *)to;
	const struct chp_hermes_inv *inv = &p->inv[(p->n_invs + INVS - 1 - u8(in) % INVS) % INVS];
	uint64_t version = type != CHP_HERMES_VAL ? inv->version : w.version;

	*m = (struct chp_hermes_ack){
		.message = {
			.type = type,
			.len = sizeof(*m),
			.op = (uint32_t)bent(in, type != CHP_HERMES_VAL ? inv->message.op : 0),
		},
		.generation = (uint32_t)bent(in, inv->generation),
		.version = bent(in, version),
	};
	return sizeof(*m);
}

/* The INV that the shard sent, back to it: as a NACK, a replay, or as if it were the peer's. */
static uint32_t
add_echo(struct input *in, const struct peer *p, uint8_t *to)
{
	struct chp_hermes_inv *m = (void *)to;
	uint8_t key[CHP_KEY_BYTES_MAX];
	uint32_t key_len = key_bytes(in, key);

	*m = p->inv[u8(in) % INVS];
	if ((m->inv_flags & CHP_INV_SESSION) != 0) {
		key_len = sizeof(w.session);
		memcpy(key, &w.session, sizeof(w.session));
	}
	m->message.type = CHP_HERMES_INV;
	m->message.flags = 0;
	m->message.len = (uint16_t)chp_hermes_inv_bytes(key_len, 0);
	m->key_len = (uint8_t)key_len;
	m->value_total = 0;
	m->inv_flags = m->inv_flags ^ (u8(in) & (CHP_INV_FLAGS_ALL ^ (uint8_t)CHP_INV_SESSION));
	m->version = bent(in, m->version);
	memset(m + 1, 0, m->message.len - sizeof(*m));
	memcpy(m + 1, key, key_len);
	return m->message.len;
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

/* FLOOR or EVICTED. */
static uint32_t
add_floor(struct input *in, uint8_t type, uint8_t *to)
{
	struct chp_hermes_floor *m = (void *)to;

	*m = (struct chp_hermes_floor){
		.message = { .type = type, .len = sizeof(*m), .op = CHP_OP_NONE },
		.counter = bent(in, w.version >> CHP_WRITER_BITS),
	};
	return sizeof(*m);
}

static uint32_t
add_fetch(struct input *in, uint8_t *to)
{
	struct chp_hermes_fetch *m = (void *)to;
	uint8_t key[CHP_KEY_BYTES_MAX];
	const uint32_t key_len = key_bytes(in, key);
	const uint32_t bytes = chp_align_u32((uint32_t)sizeof(*m) + key_len, CHP_MESSAGE_ALIGN);

	memset(m, 0, bytes);
	*m = (struct chp_hermes_fetch){
		.message = { .type = CHP_HERMES_FETCH, .len = (uint16_t)bytes, .op = (uint32_t)bent(in, 0) },
		.generation = u8(in),
		.key_len = (uint8_t)key_len,
	};
	memcpy(m + 1, key, key_len);
	return bytes;
}

static uint32_t
add_fetched(struct input *in, const struct peer *p, uint8_t *to)
{
	struct chp_hermes_fetched *m = (void *)to;
	const uint8_t status = u8(in) % (CHP_HERMES_FETCH_UNDER_WAY + 1);
	const uint32_t value_len = status == CHP_HERMES_FETCH_FOUND ? u8(in) % (VALUE_MAX + 2) : 0;
	const uint32_t bytes = chp_align_u32((uint32_t)sizeof(*m) + value_len, CHP_MESSAGE_ALIGN);
	const bool has_version = status <= CHP_HERMES_FETCH_TOMBSTONE || status == CHP_HERMES_FETCH_UNDER_WAY;

	memset(m, 0, bytes);
	*m = (struct chp_hermes_fetched){
		.message = { .type = CHP_HERMES_FETCHED, .len = (uint16_t)bytes, .op = (uint32_t)bent(in, p->asked) },
		.generation = (uint32_t)bent(in, p->generation),
		.status = status,
		.version = has_version ? bent(in, w.version) : 0,
		.recorded = bent(in, w.view.epoch),
		.value_total = value_len,
		.stored_in = status <= CHP_HERMES_FETCH_TOMBSTONE ? u8(in) % 2 : 0,
	};
	return bytes;
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
add_item(struct input *in, const struct peer *p, uint8_t *to)
{
	struct chp_copy_item *m = (void *)to;
	uint8_t key[CHP_KEY_BYTES_MAX], flags = u8(in);
	uint32_t key_len = key_bytes(in, key), value_len = u8(in) % (VALUE_MAX + 2);

	if ((flags & CHP_COPY_SESSION) != 0) {
		key_len = sizeof(w.session);
		memcpy(key, &w.session, sizeof(w.session));
		value_len = 0;
	}
	if ((flags & CHP_COPY_TOMBSTONE) != 0)
		value_len = 0;
	memset(m, 0, chp_copy_item_bytes(key_len, value_len));
	*m = (struct chp_copy_item){
		.message = { .type = CHP_COPY_ITEM,
			     .len = (uint16_t)chp_copy_item_bytes(key_len, value_len),
			     .op = (uint32_t)bent(in, p->transfer) },
		.version = bent(in, w.version),
		.base_writer = u8(in),
		.key_len = (uint8_t)key_len,
		.item_flags = flags,
		.value_total = value_len,
	};
	memcpy(m + 1, key, key_len);
	return m->message.len;
}

static uint32_t
add_record(struct input *in, const struct peer *p, uint8_t *to)
{
	struct chp_copy_record *m = (void *)to;

	*m = (struct chp_copy_record){
		.message = { .type = CHP_COPY_RECORD,
			     .len = sizeof(*m),
			     .op = (uint32_t)bent(in, p->transfer) },
		.session = bent(in, w.session),
		.request = bent(in, w.request),
		.version = bent(in, w.version),
		.record_flags = u8(in) % 8,
	};
	return sizeof(*m);
}

static uint32_t
add_end(struct input *in, const struct peer *p, uint8_t *to)
{
	struct chp_copy_end *m = (void *)to;

	*m = (struct chp_copy_end){
		.message = { .type = CHP_COPY_END,
			     .len = sizeof(*m),
			     .op = (uint32_t)bent(in, p->transfer) },
		.next = u8(in),
		.items = (uint32_t)bent(in, 0), /* an empty chunk has digest 0 */
		.end_flags = u8(in) % 2,
		.digest = bent(in, 0),
		.total = bent(in, 255),
	};
	return sizeof(*m);
}

static uint32_t
add_message(struct input *in, const struct peer *p, uint8_t *to)
{
	switch (u8(in) % (w.store.is_present ? 19 : 13)) {
	case 0:
	case 1:
		return add_inv(in, to);
	case 2:
	case 3:
		return add_answer(in, p, CHP_HERMES_ACK, to);
	case 4:
		return add_answer(in, p, CHP_HERMES_VAL, to);
	case 5:
	case 6:
		return add_echo(in, p, to);
	case 7:
		return add_floor(in, CHP_HERMES_FLOOR, to);
	case 8:
		return add_request(in, p, to);
	case 9:
		return add_item(in, p, to);
	case 10:
		return add_record(in, p, to);
	case 11:
		return add_end(in, p, to);
	case 13:
		return add_floor(in, CHP_HERMES_EVICTED, to);
	case 14:
	case 15:
		return add_answer(in, p, CHP_HERMES_STORED, to);
	case 16:
		return add_fetch(in, to);
	case 17:
	case 18:
		return add_fetched(in, p, to);
	default:
		return add_noise(in, to);
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
		.epoch = bent(in, w.view.epoch),
		.session = (uint32_t)bent(in, p->session),
		.flags = u8(in) & 1,
		.seq = bent(in, n == 0 ? 0 : p->next),
		.ack = bent(in, p->received),
		.sack = bent(in, 0),
		.grant = bent(in, p->grant),
	};
	len = sizeof(*h);
	for (uint32_t i = 0; i < n && len < CHP_PAYLOAD_BYTES_MAX - CHP_HERMES_INV_BYTES_MAX; i++)
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
	struct chp_op *op = &w.op[w.n_ops];
	uint8_t opcode = CHP_OPCODE_GET + u8(in) % CHP_OPCODE_PING;
	bool has_key = opcode <= CHP_OPCODE_DECR;
	bool has_value = has_key && opcode != CHP_OPCODE_GET && opcode != CHP_OPCODE_DELETE &&
			 opcode < CHP_OPCODE_INCR;
	uint8_t choice = u8(in);

	*op = (struct chp_op){
		.value = w.value,
		.value_len = has_value ? choice % (VALUE_MAX + 1) : 0,
		.opcode = opcode,
		.arg = bent(in, w.version),
		.session = (choice & 128) != 0 ? bent(in, w.session) : 0,
		.lowest = bent(in, 1),
		.request = bent(in, ++w.request),
		.epoch = (uint32_t)bent(in, w.view.epoch),
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
	uint64_t all = (1u << w.n_nodes) - 1;
	const bool learns = (w.view.learners & 1) != 0;
	const bool is_ready = !w.store.is_present || (w.view.sources == 0 && chp_shard_copy_done(w.shard));

	w.view.epoch++;
	if (learns && (u8(in) % 2 == 0 || !is_ready)) {
		w.view.voters = all & ~UINT64_C(1);
		w.view.learners = 1;
	} else {
		uint8_t live = (uint8_t)(u8(in) & all);

		w.view.voters = live | 1;
		w.view.learners = u8(in) & all & ~(uint64_t)live & ~UINT64_C(1);
	}
	store_next_sources(w.shard, in, &w.view);
	for (uint32_t i = 1; i < w.n_nodes; i++) {
		if ((chp_view_live(&w.view) & chp_bit(i)) == 0)
			continue;
		if (u8(in) % 4 == 0) { /* another process: its link starts over */
			w.view.incarnation[i]++;
			w.peer[i] = (struct peer){ .next = 1, .session = 1, .grant = 2 };
		}
	}
	w.new_view = &w.view;
	run_shard();
}

/* Mostly up to four seconds; sometimes the lease ends or comes back instead. */
static void
pass_time(uint8_t how)
{
	if (how >= 240)
		w.lease_until_ns = how % 2 == 0 ? CHP_NEVER : w.now_ns;
	else
		w.now_ns += UINT64_C(1) << how % 32u;
}

static void
run(struct input *in)
{
	for (uint32_t i = 0; i < STEPS_MAX && in->at < in->end; i++) {
		uint8_t what = u8(in);

		switch (what % 16) {
		case 0 ... 5:
			add_packet(in);
			break;
		case 6 ... 11:
			add_op(in);
			break;
		case 12:
			pass_time(u8(in));
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
begin_with_store(void)
{
	w.view.next_writer = (uint16_t)(w.n_nodes + 1);
	if ((w.store.choice & STORE_COLD) != 0) {
		w.view.epoch = chp_epoch_of_generation(1);
		w.view.sources = w.view.voters;
	} else if ((w.store.choice & STORE_HAS_OLD) != 0) {
		w.view.epoch = 8;
		w.view.learners = 1;
		w.view.voters &= ~UINT64_C(1);
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
		.protocol = &chp_hermes,
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
		.credits = 1 + choice / 2 % 2,
		.link_window = 1 + choice / 4 % 4,
		.ops = 1 + choice / 16 % 4,
		.rto_ns_min = 100 * US,
		.rto_ns_max = 2000 * US,
		.ack_delay_ns = 10 * US,
		.link_down_ns = choice >= 128 ? 20000 * US : CHP_NEVER,
	};

	c.log_entries = chp_pow2_up(4 * c.n_nodes * c.credits) << choice / 64 % 2 * 3;
	c.log_blocks = CHP_RECORD_BLOCKS_MAX * 3 * c.n_nodes * c.credits;
	memset(&w, 0, sizeof(w));
	w.n_nodes = c.n_nodes;
	w.now_ns = 1000 * US;
	w.lease_until_ns = CHP_NEVER;
	w.version = UINT64_C(2) << CHP_WRITER_BITS | 1;
	memset(w.value, '1', sizeof(w.value)); /* up to 20 digits are a number */
	if (has_store)
		store_open(&w.store, in, CHP_WRITER_BITS, &c);
	w.shard = chp_shard_create(&c, &err);
	CHP_ASSERT(w.shard != NULL);
	w.view.epoch = 1;
	w.view.voters = (1u << c.n_nodes) - 1;
	if (choice / 8 % 2 != 0) { /* a learner */
		w.view.voters &= ~UINT64_C(1);
		w.view.learners = 1;
	}
	for (uint32_t i = 0; i < c.n_nodes; i++) {
		w.view.incarnation[i] = 100 + i;
		w.view.writer[i] = (uint16_t)(i + 1);
		w.peer[i] = (struct peer){ .next = 1, .session = 1, .grant = 2 };
	}
	if (has_store)
		begin_with_store();
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
