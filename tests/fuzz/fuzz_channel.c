/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A shard of a cluster of one whose host is hostile: its packets pass the checks of the wire but say anything. The
 * shard must neither crash nor break its invariants.
 *
 * The input is a script, see run(). The host can lie in every field; by default a field is what an honest host would
 * say, so that the interesting lies come one at a time: the life that was asked for, the last batch, the token of a
 * load that is open.
 */
#include "../support/script.h"

#include "base/assert.h"
#include "core/shard.h"

#include <stdlib.h>
#include <string.h>

#define HASH 0x1234abcdu
#define KEYS 12u
#define PACKET_BYTES CHP_PAYLOAD_BYTES_MIN
#define VALUE_MAX 100u
#define BUFFERS 8u
#define REPLIES 8u
#define TOKENS 8u
#define STEPS_MAX 200u
#define CHECK_EVERY 8u /* steps: it takes longer than they do */
#define INCARNATION 77u
#define US UINT64_C(1000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct world {
	struct chp_shard *shard;
	struct chp_view view;
	bool view_waits;
	uint64_t founding;
	uint64_t now_ns;
	uint64_t request;

	/* The host's end of the link, and what it has heard. */
	uint64_t incarnation, next, received;
	uint32_t session, number;
	uint64_t life, seq, epoch, version;
	uint32_t token[TOKENS], n_tokens;
	uint32_t scan;

	uint8_t packet[PACKET_BYTES];
	uint32_t len; /* 0: none is ready */
	uint8_t key[1], value[VALUE_MAX];
	struct chp_op op;
	bool has_op;
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
	return value;
}

static void
hear_message(const struct chp_message *m)
{
	const struct chp_host_life *number = (const void *)m;

	CHP_ASSERT(chp_host_message_check(m, true, CHP_KEY_BYTES_MAX, VALUE_MAX));
	switch (m->type) {
	case CHP_HOST_BEGIN:
		w.life = number->life;
		break;
	case CHP_HOST_PUT:
		w.version = ((const struct chp_host_item *)(const void *)m)->version;
		break;
	case CHP_HOST_FLUSH:
		w.seq = number->life;
		break;
	case CHP_HOST_LOAD:
		w.token[w.n_tokens++ % TOKENS] = m->op;
		break;
	case CHP_HOST_SCAN:
		w.scan = m->op;
		break;
	default:
		w.epoch = number->life;
		break;
	}
}

/* The host takes what the shard sent. */
static void
hear(uint8_t *data, uint32_t len)
{
	const struct chp_host_hello *hello = (const void *)data;
	const struct chp_peer_header *h = (const void *)data;

	chp_peer_seal(data, len);
	if (hello->prelude.kind == CHP_PACKET_HOST_HELLO) {
		CHP_ASSERT(chp_host_hello_check(data, len, HASH) == CHP_PACKET_OK);
		w.number = hello->number;
		return;
	}
	CHP_ASSERT(chp_host_check(data, len, HASH, 0, 1) == CHP_PACKET_OK);
	if (h->session != w.session) {
		w.session = h->session;
		w.next = 1;
		w.received = 0;
	}
	if (h->seq != w.received + 1)
		return;
	w.received++;
	for (uint32_t at = sizeof(*h); at < len; at += ((const struct chp_message *)(const void *)(data + at))->len)
		hear_message((const void *)(data + at));
}

static void
run_shard(void)
{
	static uint8_t memory[BUFFERS][PACKET_BYTES];
	const struct chp_now now = { .ns = w.now_ns, .lease_until_ns = CHP_NEVER };
	const struct chp_packet packet = { w.packet, w.len };
	struct chp_buffer buffer[BUFFERS];
	const struct chp_events in = { .packet = &packet, .n_packets = w.len > 0, .op = &w.op, .n_ops = w.has_op,
				       .view = w.view_waits ? &w.view : NULL, .founding = w.founding };
	struct chp_effects fx = { .buffer = buffer, .n_buffers = BUFFERS, .reply = take_reply, .reply_room = REPLIES };

	for (uint32_t i = 0; i < BUFFERS; i++)
		buffer[i].data = memory[i];
	w.replies = 0;
	chp_shard_run(w.shard, &now, &in, &fx);
	w.len = 0;
	w.has_op = w.view_waits = false;
	for (uint32_t i = 0; i < fx.n_used; i++) {
		CHP_ASSERT_OP(buffer[i].peer, ==, CHP_TO_HOST);
		hear(buffer[i].data, buffer[i].len);
	}
}

/* ---- what the host says ---- */

static void
hello(struct input *in)
{
	struct chp_host_hello *h = (void *)w.packet;
	const uint8_t how = u8(in);

	*h = (struct chp_host_hello){
		.prelude = { CHP_WIRE_MAGIC, CHP_WIRE_VERSION, CHP_PACKET_HOST_HELLO, HASH },
		.type = how % 8 == 7 ? CHP_HOST_REFUSED : CHP_HOST_WELCOME,
		.channel_version = CHP_CHANNEL_VERSION,
		.shards = 1,
		.number = (uint32_t)bent(in, w.number),
		.to_incarnation = INCARNATION,
		.key_bytes_max = CHP_KEY_BYTES_MAX,
		.value_bytes_max = VALUE_MAX,
		.payload_bytes_max = PACKET_BYTES,
	};
	if ((how & 0x10) != 0) {
		w.incarnation++;
		w.next = 1;
		w.received = 0;
	}
	h->incarnation = w.incarnation;
	if (h->type == CHP_HOST_REFUSED) {
		h->refusal = CHP_HOST_NO_STORE;
	} else {
		h->store_flags = (how & 0x20) == 0 ? CHP_STORE_SCANS : how >> 6 == 0 ? CHP_STORE_VOLATILE :
				 CHP_STORE_VOLATILE | CHP_STORE_ALLOW_LOSS;
		h->put_bytes = 400 + 16u * u8(in);
		h->loads = 1 + u8(in) % 8;
		h->life = bent(in, w.life);
		h->batch = h->life == 0 ? 0 : bent(in, w.seq);
		h->epoch = bent(in, w.epoch);
		h->newest = bent(in, w.version >> 16);
	}
	w.len = sizeof(*h);
}

static void *
message(uint32_t *len, uint8_t type, uint32_t op, uint32_t bytes)
{
	struct chp_message *m = (void *)(w.packet + *len);

	memset(m, 0, bytes);
	*m = (struct chp_message){ .type = type, .len = (uint16_t)bytes, .op = op };
	*len += bytes;
	return m;
}

static void
number(uint32_t *len, uint8_t type, uint64_t value)
{
	const uint32_t bytes = type == CHP_HOST_DURABLE ? sizeof(struct chp_host_batch) : sizeof(struct chp_host_life);
	struct chp_host_life *m = message(len, type, CHP_OP_NONE, bytes);

	m->life = value;
}

static void
loaded(struct input *in, uint32_t *len)
{
	const uint8_t how = u8(in);
	const uint8_t status = how % 4;
	const uint32_t value_len = status == CHP_HOST_LOAD_FOUND ? u8(in) % (VALUE_MAX + 1) : 0;
	struct chp_host_loaded *m = message(len, CHP_HOST_LOADED, (uint32_t)bent(in, w.token[(how >> 2) % TOKENS]),
					    chp_host_loaded_bytes(value_len));

	m->status = status;
	m->value_len = value_len;
	if (status > CHP_HOST_LOAD_TOMBSTONE)
		return;
	m->version = bent(in, w.version);
	m->item_flags = (uint8_t)((how & 0x40) != 0 ? CHP_HOST_OLD : 0) |
			(uint8_t)(status == CHP_HOST_LOAD_TOMBSTONE ? CHP_HOST_TOMBSTONE : 0);
}

static void
item(struct input *in, uint32_t *len)
{
	struct chp_host_item *m = message(len, CHP_HOST_ITEM, (uint32_t)bent(in, w.scan), chp_host_item_bytes(1, 1));

	m->version = bent(in, w.version);
	m->key_len = m->value_len = 1;
	m->item_flags = u8(in) % 8;
	memset(m + 1, 'a' + u8(in) % KEYS, 2);
	if ((m->item_flags & CHP_HOST_TOMBSTONE) != 0)
		m->value_len = 0;
}

static void
say(struct input *in, uint32_t *len)
{
	struct chp_host_scanned *scanned;
	struct chp_host_state *state;

	switch (u8(in) % 8) {
	case 0:
		number(len, CHP_HOST_BEGUN, bent(in, w.life));
		break;
	case 1:
	case 2:
		number(len, CHP_HOST_DURABLE, bent(in, w.seq));
		break;
	case 3:
	case 4:
		loaded(in, len);
		break;
	case 5:
		item(in, len);
		break;
	case 6:
		scanned = message(len, CHP_HOST_SCANNED, (uint32_t)bent(in, w.scan), sizeof(*scanned));
		scanned->items = u8(in) % 4;
		scanned->scanned_flags = u8(in) % 3;
		break;
	default:
		if (u8(in) % 2 == 0) {
			number(len, CHP_HOST_RECORDED, bent(in, w.epoch));
			break;
		}
		state = message(len, CHP_HOST_STATE, CHP_OP_NONE, sizeof(*state));
		state->state = u8(in) % CHP_STORE_STATES;
	}
}

static void
talk(struct input *in)
{
	struct chp_peer_header *h = (void *)w.packet;
	uint32_t len = sizeof(*h);

	*h = (struct chp_peer_header){
		.prelude = { CHP_WIRE_MAGIC, CHP_WIRE_VERSION, CHP_PACKET_HOST, HASH },
		.from_incarnation = w.incarnation,
		.to_incarnation = INCARNATION,
	};
	h->session = (uint32_t)bent(in, w.session);
	h->seq = bent(in, w.next);
	h->ack = bent(in, w.received);
	h->sack = bent(in, 0);
	if (h->session > w.session) {
		w.session = h->session;
		w.next = 1;
		w.received = 0;
	}
	if (h->seq == w.next)
		w.next++;
	for (uint32_t n = h->seq == 0 ? 0 : 1 + u8(in) % 4; n > 0; n--)
		say(in, &len);
	w.len = len;
}

/* ---- the script ---- */

static void
operation(struct input *in)
{
	static const uint8_t opcodes[] = { CHP_OPCODE_GET, CHP_OPCODE_PUT, CHP_OPCODE_DELETE, CHP_OPCODE_INCR,
					   CHP_OPCODE_CAS, CHP_OPCODE_SESSION_OPEN };

	w.key[0] = 'a' + u8(in) % KEYS;
	memset(w.value, u8(in), sizeof(w.value));
	w.op = (struct chp_op){ .value = w.value, .request = ++w.request };
	w.op.opcode = opcodes[u8(in) % CHP_ARRAY_LEN(opcodes)];
	w.op.value_len = u8(in) % (VALUE_MAX + 1);
	w.op.key = (struct chp_key){ .bytes = w.key, .len = 1 };
	if (w.op.opcode == CHP_OPCODE_SESSION_OPEN)
		w.op.arg = w.request;
	w.has_op = true;
}

static void
enter_view(void)
{
	w.view.epoch++;
	w.view.voters = 1;
	w.view.incarnation[0] = 5;
	w.view.writer[0] = 1;
	w.view.next_writer = 2;
	w.view.sources = 0;
	w.view_waits = true;
}

static void
step(struct input *in)
{
	switch (u8(in) % 8) {
	case 0:
	case 1:
		operation(in);
		break;
	case 2:
		hello(in);
		break;
	case 3:
	case 4:
	case 5:
		talk(in);
		break;
	case 6:
		w.now_ns += (uint64_t)u8(in) * u8(in) * 200 * US;
		break;
	default:
		if (u8(in) < 200 && w.view.epoch > 0)
			w.now_ns += 600 * US;
		else if (u8(in) % 4 == 0)
			w.founding = 1 + u8(in) % 8;
		else
			enter_view();
		break;
	}
	if (w.len > 0) {
		chp_peer_seal(w.packet, w.len);
		if (chp_host_check(w.packet, w.len, HASH, 0, 1) != CHP_PACKET_OK &&
		    chp_host_hello_check(w.packet, w.len, HASH) != CHP_PACKET_OK)
			w.len = 0;
	}
	w.now_ns += 20 * US;
	run_shard();
}

static struct chp_shard_config
config_of(uint8_t how)
{
	return (struct chp_shard_config){
		.protocol = &chp_hermes,
		.application = &chp_store,
		.memory = &chp_memory_libc,
		.name = "channel",
		.cluster_hash = HASH,
		.shards = 1,
		.n_nodes = 1,
		.payload_bytes_max = PACKET_BYTES,
		.key_bytes_max = CHP_KEY_BYTES_MAX,
		.value_bytes_max = VALUE_MAX,
		.keys_max = 8 + (how & 15),
		.value_blocks_max = 8 * CHP_RECORD_BLOCKS_MAX,
		.sessions_max = 4,
		.session_window = 4,
		.session_idle_ns = CHP_NEVER,
		.credits = 2,
		.link_window = 4,
		.log_entries = 32,
		.log_blocks = 32 * CHP_RECORD_BLOCKS_MAX,
		.ops = 8,
		.copy_bytes = 1000,
		.rto_ns_min = 1000 * US,
		.rto_ns_max = 16000 * US,
		.link_down_ns = 200000 * US,
		.has_host = true,
		.is_durable = (how & 16) != 0,
		.incarnation = INCARNATION,
		.batch_items = 1 + (how >> 5),
		.batch_bytes = 1000,
		.batch_age_ns = 500 * US,
		.loads_max = 4,
		.busy_fill_percent = 80,
	};
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, data + size };
	const struct chp_shard_config config = config_of(u8(&in));
	int err = 0;

	memset(&w, 0, sizeof(w));
	w.now_ns = 1000000 * US;
	w.incarnation = 900;
	w.session = 1;
	w.next = 1;
	w.version = 5 << 16 | 1;
	w.shard = chp_shard_create(&config, &err);
	CHP_ASSERT(w.shard != NULL);
	for (uint32_t i = 0; i < STEPS_MAX && in.at < in.end; i++) {
		step(&in);
		if (i % CHECK_EVERY == 0)
			chp_shard_check(w.shard);
	}
	chp_shard_check(w.shard);
	chp_shard_destroy(w.shard);
	return 0;
}
