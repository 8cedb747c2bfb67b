/* SPDX-License-Identifier: BSD-3-Clause */
/* What the two ends of a channel say: what is accepted, and that each field is looked at. */
#include "wire/copy.h"
#include "wire/host.h"

#include <criterion/criterion.h>
#include <string.h>

#define HASH 0x1234abcdu
#define NODE 2u
#define SHARDS 4u

static uint8_t k[CHP_PAYLOAD_BYTES_MAX + 8];
static uint32_t k_len;

/* ---- messages: one buffer, made anew for each change ---- */

static void *
make_message(uint8_t type, uint32_t op, uint32_t len)
{
	struct chp_message *m = (void *)k;

	memset(k, 0, sizeof(k));
	*m = (struct chp_message){ .type = type, .len = (uint16_t)len, .op = op };
	return m;
}

static bool
to_host(void)
{
	return chp_host_message_check((const void *)k, true, CHP_KEY_BYTES_MAX, CHP_VALUE_BYTES_MAX);
}

static bool
from_host(void)
{
	return chp_host_message_check((const void *)k, false, CHP_KEY_BYTES_MAX, CHP_VALUE_BYTES_MAX);
}

static struct chp_host_item *
make_item(uint8_t type, uint32_t op, uint32_t key_len, uint32_t value_len)
{
	struct chp_host_item *m = make_message(type, op, chp_host_item_bytes(key_len, value_len));

	m->version = 5 << 16 | 1;
	m->key_len = (uint8_t)key_len;
	m->value_len = value_len;
	return m;
}

static struct chp_host_loaded *
make_loaded(uint8_t status, uint64_t version, uint8_t flags, uint32_t value_len)
{
	struct chp_host_loaded *m = make_message(CHP_HOST_LOADED, 7, chp_host_loaded_bytes(value_len));

	m->version = version;
	m->status = status;
	m->item_flags = flags;
	m->value_len = value_len;
	return m;
}

Test(wire_host, items_go_both_ways)
{
	make_item(CHP_HOST_PUT, CHP_OP_NONE, 250, 1024);
	cr_assert(to_host());
	cr_assert(!from_host());
	make_item(CHP_HOST_PUT, CHP_OP_NONE, 1, 0)->item_flags = CHP_HOST_TOMBSTONE | CHP_HOST_RMW;
	cr_assert(to_host());
	make_item(CHP_HOST_ITEM, CHP_HOST_SCANS - 1, 3, 4)->item_flags = CHP_HOST_OLD;
	cr_assert(from_host());
	cr_assert(!to_host());
}

Test(wire_host, each_field_of_an_item_is_looked_at)
{
	make_item(CHP_HOST_PUT, 1, 3, 4);
	cr_assert(!to_host(), "op");
	make_item(CHP_HOST_PUT, CHP_OP_NONE, 3, 4)->item_flags = CHP_HOST_OLD;
	cr_assert(!to_host(), "a PUT is never old");
	make_item(CHP_HOST_PUT, CHP_OP_NONE, 3, 4)->item_flags = 1u << 3;
	cr_assert(!to_host(), "flags");
	make_item(CHP_HOST_PUT, CHP_OP_NONE, 3, 4)->item_flags = CHP_HOST_TOMBSTONE;
	cr_assert(!to_host(), "deleted with a value");
	make_item(CHP_HOST_PUT, CHP_OP_NONE, 3, 4)->version = 0;
	cr_assert(!to_host(), "version");
	make_item(CHP_HOST_PUT, CHP_OP_NONE, 3, 4)->version = (CHP_COPY_COUNTER_MAX + 1) << 16;
	cr_assert(!to_host(), "a counter that cannot be topped");
	make_item(CHP_HOST_PUT, CHP_OP_NONE, 3, 4)->reserved = 1;
	cr_assert(!to_host(), "reserved");
	make_item(CHP_HOST_PUT, CHP_OP_NONE, 3, 4)->message.len += 8;
	cr_assert(!to_host(), "length");
	make_item(CHP_HOST_PUT, CHP_OP_NONE, 3, 4)->message.len = 16;
	cr_assert(!to_host(), "shorter than its header");
	make_item(CHP_HOST_PUT, CHP_OP_NONE, 3, 4)->message.flags = CHP_MESSAGE_BEGIN;
	cr_assert(!to_host(), "message flags");
	make_item(CHP_HOST_PUT, CHP_OP_NONE, 0, 4);
	cr_assert(!to_host(), "no key");
	make_item(CHP_HOST_PUT, CHP_OP_NONE, 251, 0);
	cr_assert(!to_host(), "key too long");
	make_item(CHP_HOST_PUT, CHP_OP_NONE, 3, 1025);
	cr_assert(!to_host(), "value too long");
	make_item(CHP_HOST_PUT, CHP_OP_NONE, 3, 0)->value_len = UINT32_MAX - 20;
	cr_assert(!to_host(), "a length that wraps");
	make_item(CHP_HOST_ITEM, CHP_HOST_SCANS, 3, 4);
	cr_assert(!from_host(), "no such scan");
}

Test(wire_host, the_cluster_may_allow_less)
{
	make_item(CHP_HOST_PUT, CHP_OP_NONE, 17, 4);
	cr_assert(!chp_host_message_check((const void *)k, true, 16, 100));
	make_item(CHP_HOST_PUT, CHP_OP_NONE, 16, 101);
	cr_assert(!chp_host_message_check((const void *)k, true, 16, 100));
	make_item(CHP_HOST_PUT, CHP_OP_NONE, 16, 100);
	cr_assert(chp_host_message_check((const void *)k, true, 16, 100));
}

Test(wire_host, lives_and_records)
{
	static const struct {
		uint8_t type;
		bool to_host;
	} of[] = { { CHP_HOST_BEGIN, true },
		   { CHP_HOST_BEGUN, false },
		   { CHP_HOST_RECORD, true },
		   { CHP_HOST_RECORDED, false } };

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(of); i++) {
		/* Both have the same shape. */
		struct chp_host_life *m = make_message(of[i].type, CHP_OP_NONE, sizeof(*m));

		cr_assert(!to_host() && !from_host(), "%u: life or epoch 0", of[i].type);
		m->life = 1;
		cr_assert_eq(to_host(), of[i].to_host, "%u", of[i].type);
		cr_assert_eq(from_host(), !of[i].to_host, "%u", of[i].type);
		m->message.op = 1;
		cr_assert(!to_host() && !from_host(), "%u: op", of[i].type);
		m->message.op = CHP_OP_NONE;
		m->message.len += 8;
		cr_assert(!to_host() && !from_host(), "%u: length", of[i].type);
	}
}

Test(wire_host, batches)
{
	struct chp_host_batch *m = make_message(CHP_HOST_FLUSH, CHP_OP_NONE, sizeof(*m));

	m->seq = 1;
	cr_assert(!to_host(), "an empty batch");
	m->items = 1;
	cr_assert(to_host());
	cr_assert(!from_host());
	m->reserved = 1;
	cr_assert(!to_host());
	m = make_message(CHP_HOST_DURABLE, CHP_OP_NONE, sizeof(*m));
	cr_assert(!from_host(), "seq 0");
	m->seq = 1;
	cr_assert(from_host());
	cr_assert(!to_host());
	m->items = 1;
	cr_assert(!from_host());
	m->items = 0;
	m->message.op = 3;
	cr_assert(!from_host());
}

Test(wire_host, loads)
{
	struct chp_host_load *m = make_message(CHP_HOST_LOAD, 7, chp_host_load_bytes(9));

	cr_assert(!to_host(), "no key");
	m->key_len = 9;
	cr_assert(to_host());
	cr_assert(!from_host());
	m->reserved[6] = 1;
	cr_assert(!to_host());
	m->reserved[6] = 0;
	m->key_len = 8;
	cr_assert(!to_host(), "length");
	m->key_len = 251;
	m->message.len = (uint16_t)chp_host_load_bytes(251);
	cr_assert(!to_host(), "key too long");
	m->key_len = 9;
	m->message.len = 8;
	cr_assert(!to_host(), "shorter than its header");
	m->message.len = (uint16_t)chp_host_load_bytes(9);
	m->message.op = CHP_OP_NONE;
	cr_assert(!to_host(), "no token");
}

Test(wire_host, what_was_loaded)
{
	make_loaded(CHP_HOST_LOAD_FOUND, 1 << 16, CHP_HOST_RMW | CHP_HOST_OLD, 1024);
	cr_assert(from_host());
	cr_assert(!to_host());
	make_loaded(CHP_HOST_LOAD_FOUND, 1 << 16, 0, 0);
	cr_assert(from_host());
	make_loaded(CHP_HOST_LOAD_TOMBSTONE, 1 << 16, CHP_HOST_TOMBSTONE, 0);
	cr_assert(from_host());
	make_loaded(CHP_HOST_LOAD_ABSENT, 0, 0, 0);
	cr_assert(from_host());
	make_loaded(CHP_HOST_LOAD_FAILED, 0, 0, 0);
	cr_assert(from_host());
}

Test(wire_host, each_field_of_what_was_loaded_is_looked_at)
{
	make_loaded(CHP_HOST_LOAD_FOUND, 0, 0, 4);
	cr_assert(!from_host(), "found without version");
	make_loaded(CHP_HOST_LOAD_FOUND, (CHP_COPY_COUNTER_MAX + 1) << 16, 0, 4);
	cr_assert(!from_host(), "a counter that cannot be topped");
	make_loaded(CHP_HOST_LOAD_FOUND, 1 << 16, CHP_HOST_TOMBSTONE, 0);
	cr_assert(!from_host(), "found, and deleted");
	make_loaded(CHP_HOST_LOAD_TOMBSTONE, 1 << 16, 0, 0);
	cr_assert(!from_host(), "deleted, and not");
	make_loaded(CHP_HOST_LOAD_TOMBSTONE, 1 << 16, CHP_HOST_TOMBSTONE, 4);
	cr_assert(!from_host(), "deleted, with a value");
	make_loaded(CHP_HOST_LOAD_ABSENT, 1 << 16, 0, 0);
	cr_assert(!from_host(), "absent, with a version");
	make_loaded(CHP_HOST_LOAD_ABSENT, 0, CHP_HOST_OLD, 0);
	cr_assert(!from_host(), "absent, with flags");
	make_loaded(CHP_HOST_LOAD_FAILED, 0, 0, 4);
	cr_assert(!from_host(), "failed, with a value");
	make_loaded(CHP_HOST_LOAD_STATUSES, 0, 0, 0);
	cr_assert(!from_host(), "status");
	make_loaded(CHP_HOST_LOAD_FOUND, 1 << 16, 1u << 7, 4);
	cr_assert(!from_host(), "flags");
	make_loaded(CHP_HOST_LOAD_FOUND, 1 << 16, 0, 1025);
	cr_assert(!from_host(), "value too long");
	make_loaded(CHP_HOST_LOAD_FOUND, 1 << 16, 0, 4)->generation = 3;
	cr_assert(from_host());
	make_loaded(CHP_HOST_LOAD_FOUND, 1 << 16, 0, 4)->message.len -= 8;
	cr_assert(!from_host(), "length");
	make_loaded(CHP_HOST_LOAD_FOUND, 1 << 16, 0, 0)->message.len = 8;
	cr_assert(!from_host(), "shorter than its header");
	make_loaded(CHP_HOST_LOAD_FOUND, 1 << 16, 0, 4)->message.op = CHP_OP_NONE;
	cr_assert(!from_host(), "no token");
}

Test(wire_host, scans)
{
	struct chp_host_scan *m = make_message(CHP_HOST_SCAN, CHP_HOST_SCANS - 1, sizeof(*m));

	cr_assert(!to_host(), "no bytes");
	m->bytes = CHP_COPY_BYTES_MAX;
	m->scan_flags = CHP_HOST_SCAN_START | CHP_HOST_SCAN_OLD;
	cr_assert(to_host());
	cr_assert(!from_host());
	m->bytes++;
	cr_assert(!to_host(), "too many bytes");
	m->bytes = 1;
	m->scan_flags = 1u << 2;
	cr_assert(!to_host(), "flags");
	m->scan_flags = 0;
	m->message.op = CHP_HOST_SCANS;
	cr_assert(!to_host(), "no such scan");
	m->message.op = 0;
	m->message.len += 8;
	cr_assert(!to_host(), "length");
}

Test(wire_host, scanned)
{
	struct chp_host_scanned *m = make_message(CHP_HOST_SCANNED, CHP_HOST_SCANS - 1, sizeof(*m));

	for (uint32_t flags = 0; flags < 8; flags++) {
		m->scanned_flags = flags;
		cr_assert_eq(from_host(), flags < 3, "flags %u", flags);
		cr_assert(!to_host());
	}
	m->scanned_flags = 0;
	m->message.op = CHP_HOST_SCANS;
	cr_assert(!from_host(), "no such scan");
	m->message.op = 0;
	m->message.len += 8;
	cr_assert(!from_host(), "length");
}

Test(wire_host, states)
{
	struct chp_host_state *m = make_message(CHP_HOST_STATE, CHP_OP_NONE, sizeof(*m));

	cr_assert(from_host());
	cr_assert(!to_host());
	m->state = CHP_STORE_STATES;
	cr_assert(!from_host(), "state");
	m->state = CHP_STORE_DOWN;
	m->reserved = 1;
	cr_assert(!from_host(), "reserved");
	m->reserved = 0;
	memset(m->text, 'x', sizeof(m->text));
	cr_assert(!from_host(), "text without an end");
	m->text[CHP_HOST_TEXT_BYTES - 1] = '\0';
	cr_assert(from_host());
	m->text[3] = '\n';
	cr_assert(!from_host(), "control characters");
	m->text[3] = 0x7f;
	cr_assert(!from_host(), "control characters");
	m->text[3] = 'x';
	m->message.op = 0;
	cr_assert(!from_host(), "op");
	m->message.op = CHP_OP_NONE;
	m->message.len -= 8;
	cr_assert(!from_host(), "length");
}

Test(wire_host, no_other_types)
{
	for (uint32_t type = 0; type < 256; type++) {
		make_message((uint8_t)type, CHP_OP_NONE, 8);
		cr_assert(!to_host() && !from_host(), "%u", type);
	}
}

Test(wire_host, texts_are_made_fit)
{
	char text[CHP_HOST_TEXT_BYTES], longer[CHP_HOST_TEXT_BYTES + 20];

	memset(text, 'z', sizeof(text));
	chp_host_text(text, "disk\nfull\x7f");
	cr_assert_str_eq(text, "disk full ");
	cr_assert_eq(text[sizeof(text) - 1], 0, "zeros behind");
	memset(longer, 'y', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	chp_host_text(text, longer);
	cr_assert_eq(strlen(text), CHP_HOST_TEXT_BYTES - 1);
}

/* ---- packets of the link ---- */

static struct chp_peer_header *
make_packet(uint64_t seq)
{
	struct chp_peer_header *h = (void *)k;

	memset(k, 0, sizeof(k));
	*h = (struct chp_peer_header){
		.prelude = { CHP_WIRE_MAGIC, CHP_WIRE_VERSION, CHP_PACKET_HOST, HASH },
		.from = NODE,
		.to = NODE,
		.shard = SHARDS - 1,
		.from_incarnation = 101,
		.to_incarnation = 100,
		.session = 1,
		.seq = seq,
	};
	k_len = sizeof(*h);
	return h;
}

static void
add_life(void)
{
	struct chp_host_life *m = (void *)(k + k_len);

	*m = (struct chp_host_life){ .message = { .type = CHP_HOST_BEGIN, .len = sizeof(*m), .op = CHP_OP_NONE },
				     .life = 1 };
	k_len += sizeof(*m);
}

static enum chp_packet_error
check_packet(void)
{
	chp_peer_seal(k, k_len);
	return chp_host_check(k, k_len, HASH, NODE, SHARDS);
}

Test(wire_host, packets)
{
	make_packet(0);
	cr_assert_eq(check_packet(), CHP_PACKET_OK);
	make_packet(1);
	add_life();
	cr_assert_eq(check_packet(), CHP_PACKET_OK);
	cr_assert_eq(chp_peer_check(k, k_len, HASH, 3, SHARDS), CHP_PACKET_KIND, "not a peer's");
	k[k_len - 1] ^= 1;
	cr_assert_eq(chp_host_check(k, k_len, HASH, NODE, SHARDS), CHP_PACKET_CRC);
	cr_assert_eq(chp_host_check(k, 7, HASH, NODE, SHARDS), CHP_PACKET_SHORT);
	cr_assert_eq(chp_host_check(k, 79, HASH, NODE, SHARDS), CHP_PACKET_SHORT);
	make_packet(0);
	add_life();
	cr_assert_eq(check_packet(), CHP_PACKET_MESSAGE, "messages without a sequence number");
	make_packet(1);
	add_life();
	k_len -= 8;
	cr_assert_eq(check_packet(), CHP_PACKET_MESSAGE, "a message that is cut off");
}

Test(wire_host, each_field_of_a_packet_is_looked_at)
{
	make_packet(0)->prelude.magic = 1;
	cr_assert_eq(check_packet(), CHP_PACKET_MAGIC);
	make_packet(0)->prelude.version++;
	cr_assert_eq(check_packet(), CHP_PACKET_VERSION);
	make_packet(0)->prelude.cluster_hash++;
	cr_assert_eq(check_packet(), CHP_PACKET_CLUSTER);
	make_packet(0)->prelude.kind = CHP_PACKET_PEER;
	cr_assert_eq(check_packet(), CHP_PACKET_KIND);
	make_packet(0)->tag_len = 16;
	cr_assert_eq(check_packet(), CHP_PACKET_AUTH);
	make_packet(0)->from = 1;
	cr_assert_eq(check_packet(), CHP_PACKET_NODE);
	make_packet(0)->to = 1;
	cr_assert_eq(check_packet(), CHP_PACKET_NODE);
	make_packet(0)->shard = SHARDS;
	cr_assert_eq(check_packet(), CHP_PACKET_SHARD);
	make_packet(0)->epoch = 1;
	cr_assert_eq(check_packet(), CHP_PACKET_MESSAGE);
	make_packet(0)->grant = 1;
	cr_assert_eq(check_packet(), CHP_PACKET_MESSAGE);
	make_packet(0)->pause_ms = 1;
	cr_assert_eq(check_packet(), CHP_PACKET_MESSAGE);
	make_packet(0)->flags = CHP_PEER_PAUSE;
	cr_assert_eq(check_packet(), CHP_PACKET_MESSAGE);
	make_packet(0)->flags = CHP_PEER_ACK_NOW;
	cr_assert_eq(check_packet(), CHP_PACKET_OK);
}

/* ---- hellos ---- */

static struct chp_host_hello *
make_hello(uint8_t type)
{
	struct chp_host_hello *h = (void *)k;

	memset(k, 0, sizeof(k));
	*h = (struct chp_host_hello){
		.prelude = { CHP_WIRE_MAGIC, CHP_WIRE_VERSION, CHP_PACKET_HOST_HELLO, HASH },
		.type = type,
		.channel_version = CHP_CHANNEL_VERSION,
		.node = NODE,
		.refusal = type == CHP_HOST_REFUSED ? CHP_HOST_NO_STORE : CHP_HOST_OK,
		.shard = 1,
		.shards = SHARDS,
		.number = 1,
		.incarnation = 100,
		.to_incarnation = type == CHP_HOST_HELLO ? 0 : 101,
		.hash_seed = 5,
		.key_bytes_max = 250,
		.value_bytes_max = 1024,
		.payload_bytes_max = CHP_PAYLOAD_BYTES_MIN,
	};
	k_len = type == CHP_HOST_HELLO ? CHP_PAYLOAD_BYTES_MIN : (uint32_t)sizeof(*h);
	if (type != CHP_HOST_WELCOME)
		return h;
	h->store_flags = CHP_STORE_SCANS;
	h->put_bytes = 65536;
	h->loads = 64;
	h->life = 3;
	h->batch = 17;
	h->epoch = 9;
	h->newest = 1000;
	h->items = 10;
	memcpy(h->text, "memory", sizeof("memory"));
	return h;
}

static enum chp_packet_error
check_hello(uint32_t hash)
{
	chp_peer_seal(k, k_len);
	return chp_host_hello_check(k, k_len, hash);
}

/* Each statement makes a hello of the type wrong in one way. */
#define WRONG(type, change)                                                                         \
	do {                                                                                        \
		struct chp_host_hello *h = make_hello(type);                                        \
                                                                                                    \
		change;                                                                             \
		cr_assert_eq(check_hello(HASH), CHP_PACKET_MESSAGE, "type %u: %s", type, #change); \
	} while (0)

Test(wire_host, hellos)
{
	for (uint8_t type = CHP_HOST_HELLO; type <= CHP_HOST_REFUSED; type++) {
		make_hello(type);
		cr_assert_eq(check_hello(HASH), CHP_PACKET_OK, "%u", type);
		cr_assert_eq(check_hello(HASH + 1), CHP_PACKET_CLUSTER, "%u", type);
		cr_assert_eq(check_hello(0), CHP_PACKET_OK, "%u", type);
		k[k_len - 1] ^= 1;
		cr_assert_eq(chp_host_hello_check(k, k_len, HASH), CHP_PACKET_CRC, "%u", type);
		cr_assert_eq(chp_host_hello_check(k, sizeof(struct chp_host_hello) - 1, HASH), CHP_PACKET_SHORT);
		make_hello(type)->prelude.kind = CHP_PACKET_HOST;
		cr_assert_eq(check_hello(HASH), CHP_PACKET_KIND, "%u", type);
		WRONG(type, h->incarnation = 0);
		WRONG(type, h->number = 0);
		WRONG(type, (void)h; k_len += 8);
		WRONG(type, memset(h->text, 'x', sizeof(h->text)));
	}
	WRONG(0, (void)h);
	WRONG(CHP_HOST_REFUSED + 1, (void)h);
}

Test(wire_host, sizes_in_hellos)
{
	for (uint8_t type = CHP_HOST_HELLO; type <= CHP_HOST_WELCOME; type++) {
		WRONG(type, h->key_bytes_max = 0);
		WRONG(type, h->key_bytes_max = 251);
		WRONG(type, h->value_bytes_max = 1025);
		WRONG(type, h->payload_bytes_max = CHP_PAYLOAD_BYTES_MIN - 8);
		WRONG(type, h->payload_bytes_max = CHP_PAYLOAD_BYTES_MAX + 8);
	}
	WRONG(CHP_HOST_HELLO, h->payload_bytes_max += 8);
}

Test(wire_host, only_a_welcome_says_what_the_store_is)
{
	static const uint8_t others[] = { CHP_HOST_HELLO, CHP_HOST_REFUSED };

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(others); i++) {
		WRONG(others[i], h->store_flags = CHP_STORE_SCANS);
		WRONG(others[i], h->put_bytes = 1);
		WRONG(others[i], h->loads = 1);
		WRONG(others[i], h->life = 1);
		WRONG(others[i], h->batch = 1);
		WRONG(others[i], h->epoch = 1);
		WRONG(others[i], h->newest = 1);
		WRONG(others[i], h->items = 1);
		WRONG(others[i], h->tombstones = 1);
	}
	WRONG(CHP_HOST_HELLO, h->to_incarnation = 1);
	WRONG(CHP_HOST_HELLO, h->refusal = CHP_HOST_NO_STORE);
	WRONG(CHP_HOST_HELLO, h->text[0] = 'x');
	WRONG(CHP_HOST_REFUSED, h->to_incarnation = 0);
	WRONG(CHP_HOST_REFUSED, h->refusal = CHP_HOST_OK);
	WRONG(CHP_HOST_REFUSED, h->refusal = CHP_HOST_REFUSALS);
}

Test(wire_host, welcomes)
{
	WRONG(CHP_HOST_WELCOME, h->to_incarnation = 0);
	WRONG(CHP_HOST_WELCOME, h->refusal = CHP_HOST_NO_STORE);
	WRONG(CHP_HOST_WELCOME, h->store_flags = 1u << 3);
	WRONG(CHP_HOST_WELCOME, h->store_flags = CHP_STORE_ALLOW_LOSS);
	WRONG(CHP_HOST_WELCOME, h->put_bytes = chp_host_item_bytes(250, 1024) - 1);
	WRONG(CHP_HOST_WELCOME, h->loads = 0);
	WRONG(CHP_HOST_WELCOME, h->newest = CHP_COPY_COUNTER_MAX + 1);
	WRONG(CHP_HOST_WELCOME, h->life = 0);
	WRONG(CHP_HOST_WELCOME, h->text[0] = '\t');
	make_hello(CHP_HOST_WELCOME)->store_flags = CHP_STORE_VOLATILE | CHP_STORE_ALLOW_LOSS;
	cr_assert_eq(check_hello(HASH), CHP_PACKET_OK);
	/* A store that nobody has used. */
	make_hello(CHP_HOST_WELCOME)->life = 0;
	((struct chp_host_hello *)(void *)k)->batch = 0;
	cr_assert_eq(check_hello(HASH), CHP_PACKET_OK);
}

Test(wire_host, another_version_can_be_refused)
{
	struct chp_host_hello *h = make_hello(CHP_HOST_HELLO);

	h->channel_version++;
	h->put_bytes = 7;
	k_len += 400;
	cr_assert_eq(check_hello(0), CHP_PACKET_OK, "a HELLO whose fields nobody knows");
	make_hello(CHP_HOST_WELCOME)->channel_version++;
	cr_assert_eq(check_hello(HASH), CHP_PACKET_MESSAGE);
	h = make_hello(CHP_HOST_REFUSED);
	h->channel_version++;
	cr_assert_eq(check_hello(HASH), CHP_PACKET_MESSAGE, "for another reason");
	h->refusal = CHP_HOST_BAD_VERSION;
	cr_assert_eq(check_hello(HASH), CHP_PACKET_OK);
	memset(h->text, 'x', sizeof(h->text));
	cr_assert_eq(check_hello(HASH), CHP_PACKET_MESSAGE);
}

Test(wire_host, names_of_refusals)
{
	for (uint32_t i = 0; i < CHP_HOST_REFUSALS; i++)
		for (uint32_t j = 0; j < i; j++)
			cr_assert_str_neq(chp_host_refusal_name(i), chp_host_refusal_name(j));
}
