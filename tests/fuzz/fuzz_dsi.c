/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The host's end of a shard, with a hostile shard and a store that answers when and what it likes. Nothing may crash or
 * break an invariant, and DURABLE says only what the store has completed.
 *
 * The input is a script, see step(). By default the shard says what an honest one would, so that the interesting
 * lies come one at a time.
 */
#include "base/assert.h"
#include "base/bytes.h"
#include "dsi/dsi.h"

#include <string.h>

#define HASH 0x1234abcdu
#define NODE 0u
#define SHARD 1u
#define SHARDS 4u
#define PACKET_BYTES CHP_PAYLOAD_BYTES_MIN
#define BUFFERS 4u
#define STEPS_MAX 300u
#define US UINT64_C(1000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *at, *end;
};

static const struct chp_dsi_config config = {
	.memory = &chp_memory_libc,
	.cluster_hash = HASH,
	.node = NODE,
	.shard = SHARD,
	.shards = SHARDS,
	.hash_seed = 5,
	.key_bytes_max = 250,
	.value_bytes_max = 1024,
	.payload_bytes_max = PACKET_BYTES,
	.incarnation = 1000,
	.put_bytes = 4096,
	.loads = 20,
	.scan_bytes = 2048,
	.window = 8,
	.queue = 16,
	.rto_ns_min = 1000 * US,
	.rto_ns_max = 100000 * US,
	.ack_delay_ns = 100 * US,
};

static struct {
	struct chp_dsi *d;
	struct input in;
	uint64_t now_ns;
	struct chp_store_info info;
	struct chp_store_record record; /* of the store */
	bool tell_info, tell_record;
	struct chp_store_request *pending[64], *done[64];
	uint32_t n_pending, n_done;
	/* What the shard knows. */
	uint64_t incarnation, host_incarnation;
	uint32_t hello_number, session;
	uint64_t next, received, seq;
	uint32_t items; /* PUT and not FLUSHed */
	uint8_t packet[PACKET_BYTES];
	uint32_t len;
} w;

static uint8_t
byte(void)
{
	return w.in.at < w.in.end ? *w.in.at++ : 0;
}

/* A lie, now and then: what the script says instead of the truth. */
static uint64_t
or_else(uint64_t truth)
{
	const uint8_t b = byte();

	return b < 240 ? truth : b < 250 ? truth + b - 245 : (uint64_t)byte() << (byte() & 63);
}

/* ------------------------------------------------------------------ the end under test */

static void
listen(const uint8_t *data, uint32_t len)
{
	const struct chp_host_hello *hello = (const void *)data;
	const struct chp_peer_header *h = (const void *)data;
	uint8_t kind;

	CHP_ASSERT(chp_packet_kind_of(data, len, &kind) == CHP_PACKET_OK);
	if (kind == CHP_PACKET_HOST_HELLO) {
		CHP_ASSERT(chp_host_hello_check(data, len, 0) == CHP_PACKET_OK);
		if (hello->type == CHP_HOST_WELCOME && hello->to_incarnation == w.incarnation &&
		    hello->incarnation != w.host_incarnation) {
			w.host_incarnation = hello->incarnation;
			w.session = 1;
			w.next = 1;
			w.received = 0;
			w.items = 0;
			w.seq = hello->batch;
		}
		return;
	}
	CHP_ASSERT(chp_host_check(data, len, HASH, NODE, SHARDS) == CHP_PACKET_OK);
	if (h->session > w.session) {
		w.session = h->session;
		w.next = 1;
		w.received = 0;
		w.items = 0;
	}
	if (h->seq == w.received + 1)
		w.received++;
	for (uint32_t offset = sizeof(*h); offset < len;) {
		const struct chp_message *m = (const void *)(data + offset);

		CHP_ASSERT(chp_host_message_check(m, false, CHP_KEY_BYTES_MAX, CHP_VALUE_BYTES_MAX));
		if (m->type == CHP_HOST_DURABLE && w.incarnation == h->to_incarnation)
			CHP_ASSERT_OP(((const struct chp_host_batch *)(const void *)m)->seq, <=, w.record.batch);
		offset += m->len;
	}
}

static void
run(void)
{
	static uint8_t memory[BUFFERS][PACKET_BYTES];
	struct chp_dsi_buffer buffer[BUFFERS];
	const struct chp_dsi_packet packet = { w.packet, w.len };
	const struct chp_dsi_events in = { .packet = &packet,
					   .n_packets = w.len > 0,
					   .done = w.done,
					   .n_done = w.n_done,
					   .info = w.tell_info ? &w.info : NULL,
					   .record = w.tell_record && w.tell_info ? &w.record : NULL };
	struct chp_dsi_effects out = { .buffer = buffer, .n_buffers = 1 + (byte() & (BUFFERS - 1)) };

	for (uint32_t i = 0; i < BUFFERS; i++)
		buffer[i].data = memory[i];
	if (w.len > 0) {
		uint8_t to[PACKET_BYTES];
		uint32_t shard;

		(void)chp_dsi_shard_of(w.packet, w.len, &shard);
		(void)chp_dsi_refuse_stray(&config, w.packet, w.len, to);
	}
	chp_dsi_run(w.d, w.now_ns, &in, &out);
	chp_dsi_check(w.d);
	if (in.record != NULL)
		w.tell_record = false;
	w.tell_info = false;
	w.len = w.n_done = 0;
	for (uint32_t i = 0; i < out.n_requests; i++) {
		CHP_ASSERT_OP(w.n_pending, <, CHP_ARRAY_LEN(w.pending));
		w.pending[w.n_pending++] = out.request[i];
	}
	for (uint32_t i = 0; i < out.n_used; i++)
		listen(buffer[i].data, buffer[i].len);
}

/* ------------------------------------------------------------------ the shard */

static void
say_hello(void)
{
	struct chp_host_hello *h = (void *)w.packet;

	if (byte() > 200)
		w.incarnation = 1 + (byte() & 7);
	memset(w.packet, 0, sizeof(w.packet));
	*h = (struct chp_host_hello){
		.prelude = { CHP_WIRE_MAGIC, CHP_WIRE_VERSION, CHP_PACKET_HOST_HELLO, (uint32_t)or_else(HASH) },
		.type = CHP_HOST_HELLO,
		.channel_version = (uint8_t)or_else(CHP_CHANNEL_VERSION),
		.node = (uint8_t)or_else(NODE),
		.shard = (uint16_t)or_else(SHARD),
		.shards = (uint16_t)or_else(SHARDS),
		.number = (uint32_t)or_else(++w.hello_number),
		.incarnation = w.incarnation,
		.hash_seed = or_else(5),
		.key_bytes_max = 250,
		.value_bytes_max = 1024,
		.payload_bytes_max = PACKET_BYTES,
	};
	w.len = PACKET_BYTES;
	chp_peer_seal(w.packet, w.len);
}

static void *
add(uint8_t type, uint32_t op, uint32_t len)
{
	struct chp_message *m = (void *)(w.packet + w.len);

	if (w.len + len > PACKET_BYTES)
		return NULL;
	memset(m, 0, len);
	*m = (struct chp_message){ .type = type, .len = (uint16_t)len, .op = op };
	w.len += len;
	return m;
}

static void
add_put(void)
{
	const uint32_t key_len = 1 + (byte() & 3), value_len = byte() > 200 ? 1000 : byte() & 31;
	struct chp_host_item *m = add(CHP_HOST_PUT, CHP_OP_NONE, chp_host_item_bytes(key_len, value_len));

	if (m == NULL)
		return;
	m->version = or_else(UINT64_C(77) << 16);
	m->key_len = (uint8_t)key_len;
	m->value_len = value_len;
	if (value_len == 0)
		m->item_flags = CHP_HOST_TOMBSTONE;
	memset(m + 1, 'a' + (byte() & 7), key_len);
	w.items++;
}

static void
add_number(uint8_t type, uint64_t number)
{
	struct chp_host_life *life;
	struct chp_host_batch *batch;

	if (type == CHP_HOST_FLUSH) {
		batch = add(type, CHP_OP_NONE, sizeof(*batch));
		if (batch == NULL)
			return;
		batch->seq = number;
		batch->items = (uint32_t)or_else(w.items);
		w.items = 0;
		return;
	}
	life = add(type, CHP_OP_NONE, sizeof(*life));
	if (life != NULL)
		life->life = number;
}

static void
add_load(void)
{
	const uint32_t key_len = 1 + (byte() & 3);
	struct chp_host_load *m = add(CHP_HOST_LOAD, byte(), chp_host_load_bytes(key_len));

	if (m == NULL)
		return;
	m->key_len = (uint8_t)key_len;
	memset(m + 1, 'a' + (byte() & 7), key_len);
}

static void
add_scan(void)
{
	struct chp_host_scan *m = add(CHP_HOST_SCAN, (uint32_t)or_else(byte() & 7), sizeof(*m));

	if (m == NULL)
		return;
	m->bytes = (uint32_t)or_else(1 + byte() * 16);
	m->scan_flags = byte() & 3;
}

static void
say_messages(void)
{
	struct chp_peer_header *h = (void *)w.packet;
	const uint64_t seq = or_else(w.next);

	*h = (struct chp_peer_header){
		.prelude = { CHP_WIRE_MAGIC, CHP_WIRE_VERSION, CHP_PACKET_HOST, HASH },
		.from = NODE,
		.to = NODE,
		.shard = SHARD,
		.from_incarnation = or_else(w.incarnation),
		.to_incarnation = or_else(w.host_incarnation),
		.session = (uint32_t)or_else(w.session),
		.seq = seq,
		.ack = or_else(w.received),
	};
	w.len = sizeof(*h);
	for (uint32_t n = byte() & 15; n > 0; n--) {
		switch (byte() % 8) {
		case 0:
			add_number(CHP_HOST_BEGIN, or_else(w.record.life + 1));
			break;
		case 1:
			add_number(CHP_HOST_FLUSH, or_else(++w.seq));
			break;
		case 2:
			add_number(CHP_HOST_RECORD, or_else(1 + byte()));
			break;
		case 3:
			add_load();
			break;
		case 4:
			add_scan();
			break;
		case 5:
			(void)add(byte(), byte(), 8u + 8u * (byte() & 15));
			break;
		default:
			add_put();
			break;
		}
	}
	if (w.len == sizeof(*h))
		h->seq = 0;
	else if (seq == w.next)
		w.next++;
	chp_peer_seal(w.packet, w.len);
}

static void
say_anything(void)
{
	w.len = byte() * 4u;
	for (uint32_t i = 0; i < w.len; i++)
		w.packet[i] = byte();
}

/* ------------------------------------------------------------------ the store */

static void
answer_read(struct chp_store_request *r)
{
	for (uint32_t i = 0; i < r->n_reads; i++) {
		struct chp_store_read *k = &r->read[i];

		k->found = byte() & 3;
		k->version = UINT64_C(1) << 16;
		k->life = byte() & 3;
		k->flags = k->found == CHP_STORE_TOMBSTONE ? CHP_HOST_TOMBSTONE : 0;
		k->value_len = k->found == CHP_STORE_FOUND ? byte() * 4u : 0;
		memset(k->value, 'v', k->value_len);
	}
}

static void
answer_scan(struct chp_store_scan *s)
{
	static const uint8_t key[] = "some key", value[1024];

	s->failed = byte() > 240;
	s->end = byte() > 200;
	for (uint32_t n = byte(); n > 0; n--) {
		const struct chp_store_item item = { .key = key,
						     .value = value,
						     .version = UINT64_C(9) << 16,
						     .life = s->only_old ? s->life - (s->life > 0) : s->life,
						     .value_len = byte() * 4u,
						     .key_len = sizeof(key) };

		if (!chp_store_scan_add(s, &item))
			break;
	}
	s->cursor.len = 4;
}

/* READs and SCANs overtake; the rest is in order. */
static void
complete(void)
{
	uint32_t i = w.n_pending > 0 ? byte() % w.n_pending : 0;
	struct chp_store_request *r;

	if (w.n_pending == 0)
		return;
	if (w.pending[i]->type != CHP_STORE_READ && w.pending[i]->type != CHP_STORE_SCAN) {
		for (i = 0; w.pending[i]->type == CHP_STORE_READ || w.pending[i]->type == CHP_STORE_SCAN;)
			i++;
	}
	r = w.pending[i];
	memmove(&w.pending[i], &w.pending[i + 1], (--w.n_pending - i) * sizeof(w.pending[0]));
	CHP_ASSERT_OP(r->shard, ==, SHARD);
	if (r->type == CHP_STORE_BEGIN) {
		CHP_ASSERT_OP(r->life, >, w.record.life);
		w.record.life = r->life;
		w.record.batch = 0;
	} else if (r->type == CHP_STORE_WRITE) {
		CHP_ASSERT_OP(r->life, ==, w.record.life);
		CHP_ASSERT_OP(r->seq, >, w.record.batch);
		w.record.batch = r->seq;
		w.record.items += r->n_items;
	} else if (r->type == CHP_STORE_RECORD) {
		w.record.epoch = r->epoch;
	} else if (r->type == CHP_STORE_READ) {
		answer_read(r);
	} else {
		answer_scan(r->scan);
	}
	r->record = w.record;
	w.done[w.n_done++] = r;
}

static void
change_store(void)
{
	w.info.state = byte() % CHP_STORE_STATES;
	w.info.flags = byte() > 100 ? CHP_STORE_SCANS : 0;
	w.info.errors++;
	memset(w.info.text, 0, sizeof(w.info.text));
	w.info.text[0] = (char)byte();
	w.tell_info = true;
}

static void
step(void)
{
	switch (byte() % 10) {
	case 0:
		say_hello();
		break;
	case 1:
	case 2:
	case 3:
		say_messages();
		break;
	case 4:
	case 5:
	case 6:
		complete();
		return; /* several may be done in one run */
	case 7:
		change_store();
		break;
	case 8:
		say_anything();
		break;
	default:
		w.now_ns += US << (byte() & 31);
		break;
	}
	run();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int err;

	memset(&w, 0, sizeof(w));
	w.in = (struct input){ data, data + size };
	w.now_ns = 1000 * US;
	w.incarnation = 1;
	w.info.flags = CHP_STORE_SCANS;
	w.tell_info = w.tell_record = true;
	w.d = chp_dsi_create(&config, &err);
	CHP_ASSERT(w.d != NULL);
	run();
	for (uint32_t i = 0; i < STEPS_MAX && w.in.at < w.in.end; i++)
		step();
	chp_dsi_destroy(w.d);
	return 0;
}
