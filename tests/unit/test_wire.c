/* SPDX-License-Identifier: BSD-3-Clause */
/* Peer packets, Hermes messages, client datagrams: what is accepted, and how errors are called. */
#include "base/crc32c.h"
#include "base/digest.h"
#include "core/membership.h"
#include "protocols/protocol.h"
#include "wire/client.h"
#include "wire/hermes.h"
#include "wire/packet.h"
#include "wire/zab.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define HASH 0x1234abcdu
#define NODES 3u
#define SHARDS 4u

static uint8_t k[CHP_PAYLOAD_BYTES_MAX + 8];
static uint32_t k_len;

/* ---- peer packets ---- */

static struct chp_peer_header *
make_peer(void)
{
	struct chp_peer_header *h = (void *)k;

	memset(k, 0, sizeof(k));
	*h = (struct chp_peer_header){
		.prelude = {
			.magic = CHP_WIRE_MAGIC,
			.version = CHP_WIRE_VERSION,
			.kind = CHP_PACKET_PEER,
			.cluster_hash = HASH,
		},
		.from = 1,
		.to = 0,
		.shard = 3,
		.from_incarnation = 101,
		.to_incarnation = 100,
		.epoch = 1,
		.session = 1,
		.seq = 1,
	};
	k_len = sizeof(*h);
	return h;
}

static void *
add_message(uint8_t type, uint32_t len)
{
	struct chp_message *m = (void *)(k + k_len);

	m->type = type;
	m->len = (uint16_t)len;
	m->op = 7;
	k_len += len;
	return m;
}

static enum chp_packet_error
check_peer(void)
{
	chp_peer_seal(k, k_len);
	return chp_peer_check(k, k_len, HASH, NODES, SHARDS);
}

Test(wire, crc32c_is_the_published_one)
{
	cr_assert_eq(chp_crc32c("123456789", 9, 0), 0xe3069283u);
}

Test(wire, error_names_are_all_there_and_different)
{
	for (uint32_t i = 0; i < CHP_PACKET_ERRORS; i++)
		for (uint32_t j = 0; j < i; j++)
			cr_assert_str_neq(chp_packet_error_name(i), chp_packet_error_name(j));
	cr_assert_str_eq(chp_packet_error_name(CHP_PACKET_CRC), "drop_crc");
}

Test(wire, a_peer_packet_is_accepted_with_and_without_messages)
{
	make_peer()->seq = 0;
	cr_assert_eq(check_peer(), CHP_PACKET_OK);
	make_peer();
	add_message(CHP_HERMES_ACK, 24);
	add_message(CHP_HERMES_VAL, 24);
	add_message(0xff, 8);
	cr_assert_eq(check_peer(), CHP_PACKET_OK);
}

Test(wire, a_packet_of_acknowledgement_only_has_no_messages)
{
	make_peer()->seq = 0;
	add_message(CHP_HERMES_ACK, 24);
	cr_assert_eq(check_peer(), CHP_PACKET_MESSAGE);
}

#define PEER_IS(error, ...)                                        \
	do {                                                       \
		struct chp_peer_header *h = make_peer();           \
		add_message(CHP_HERMES_ACK, 24);                   \
		__VA_ARGS__;                                       \
		cr_assert_eq(check_peer(), error, #__VA_ARGS__);   \
	} while (0)

Test(wire, peer_header_errors_are_named)
{
	PEER_IS(CHP_PACKET_MAGIC, h->prelude.magic = 0);
	PEER_IS(CHP_PACKET_VERSION, h->prelude.version = CHP_WIRE_VERSION + 1);
	PEER_IS(CHP_PACKET_KIND, h->prelude.kind = CHP_PACKET_CONTROL);
	PEER_IS(CHP_PACKET_CLUSTER, h->prelude.cluster_hash = 0);
	PEER_IS(CHP_PACKET_AUTH, h->tag_len = 8);
	PEER_IS(CHP_PACKET_NODE, h->from = NODES);
	PEER_IS(CHP_PACKET_NODE, h->to = NODES);
	PEER_IS(CHP_PACKET_NODE, h->to = h->from);
	PEER_IS(CHP_PACKET_SHARD, h->shard = SHARDS);
	PEER_IS(CHP_PACKET_OK, h->from = 2);
}

Test(wire, peer_lengths_are_checked)
{
	PEER_IS(CHP_PACKET_MESSAGE, (void)h; k_len -= 8);
	PEER_IS(CHP_PACKET_MESSAGE, (void)h; k_len += 7);
	PEER_IS(CHP_PACKET_MESSAGE, (void)h; add_message(1, 8); k[k_len - 6] = 0);
	PEER_IS(CHP_PACKET_MESSAGE, (void)h; add_message(1, 8); k[k_len - 6] = 12);
	PEER_IS(CHP_PACKET_MESSAGE, (void)h; add_message(1, 8); k[k_len - 6] = 16);
	PEER_IS(CHP_PACKET_LONG, (void)h; k_len = CHP_PAYLOAD_BYTES_MAX + 1);
	make_peer();
	for (uint32_t len = 0; len < sizeof(struct chp_peer_header); len++)
		cr_assert_eq(chp_peer_check(k, len, HASH, NODES, SHARDS), CHP_PACKET_SHORT);
}

Test(wire, every_changed_bit_of_a_peer_packet_is_noticed)
{
	make_peer();
	add_message(CHP_HERMES_ACK, 24);
	cr_assert_eq(check_peer(), CHP_PACKET_OK);
	for (uint32_t i = 0; i < k_len * 8; i++) {
		k[i / 8] ^= (uint8_t)(1u << i % 8);
		cr_assert_neq(chp_peer_check(k, k_len, HASH, NODES, SHARDS), CHP_PACKET_OK);
		k[i / 8] ^= (uint8_t)(1u << i % 8);
	}
}

/* ---- Hermes ---- */

static struct chp_hermes_inv *
make_inv(uint8_t key_len, uint32_t value_len)
{
	struct chp_hermes_inv *m;

	make_peer();
	m = add_message(CHP_HERMES_INV, chp_hermes_inv_bytes(key_len, value_len));
	m->message.flags = CHP_MESSAGE_BEGIN;
	m->key_len = key_len;
	m->value_total = value_len;
	m->version = 3 << 16 | 1;
	m->base = 2 << 16 | 3;
	return m;
}

#define INV_IS(wanted, ...)                                                             \
	do {                                                                            \
		struct chp_hermes_inv *m = make_inv(8, 32);                             \
		__VA_ARGS__;                                                            \
		cr_assert_eq(chp_hermes_check(&m->message, 64), wanted, #__VA_ARGS__);  \
	} while (0)

Test(wire, inv_fields_are_checked)
{
	INV_IS(true, (void)m);
	INV_IS(false, m->key_len = 0);
	INV_IS(false, m->key_len = 251);
	INV_IS(false, m->key_len = 7; m->value_total = 31; m->message.len -= 8);
	INV_IS(false, m->value_total = 65);
	INV_IS(false, m->value_total = UINT32_MAX);
	INV_IS(false, m->value_offset = 1);
	INV_IS(false, m->message.len += 8);
	INV_IS(false, m->message.len = sizeof(*m) - 8);
	INV_IS(false, m->inv_flags = CHP_INV_FLAGS_ALL + 1);
	INV_IS(false, m->inv_flags = CHP_INV_FORGET);
	INV_IS(false, m->version = 0);
	INV_IS(false, m->base = m->version);
	INV_IS(true, m->base = m->version; m->inv_flags = CHP_INV_BASE_UNKNOWN);
	INV_IS(true, m->base = 0);
	INV_IS(false, m->inv_flags = CHP_INV_TOMBSTONE);
	INV_IS(false, m->inv_flags = CHP_INV_SESSION); /* the key is eight zeros */
	INV_IS(true, m->inv_flags = CHP_INV_SESSION; ((uint8_t *)(m + 1))[7] = 1);
	INV_IS(true, m->version = CHP_HERMES_FLOOR_MAX << 16);
	INV_IS(false, m->version = (CHP_HERMES_FLOOR_MAX + 1) << 16);
	struct chp_hermes_inv *m = make_inv(9, 0);

	m->inv_flags = CHP_INV_TOMBSTONE;
	cr_assert(chp_hermes_check(&m->message, 64));
	m->inv_flags |= CHP_INV_FORGET;
	cr_assert(chp_hermes_check(&m->message, 64));
	m->inv_flags |= CHP_INV_SESSION;
	cr_assert_not(chp_hermes_check(&m->message, 64), "a session number has 8 bytes");
}

Test(wire, the_largest_inv_fits_the_smallest_mtu)
{
	struct chp_hermes_inv *m = make_inv(CHP_KEY_BYTES_MAX, CHP_VALUE_BYTES_MAX);

	cr_assert(chp_hermes_check(&m->message, CHP_VALUE_BYTES_MAX));
	cr_assert_leq(k_len, CHP_PAYLOAD_BYTES_MIN);
	cr_assert_eq(m->message.len, CHP_HERMES_INV_BYTES_MAX);
	cr_assert_eq(check_peer(), CHP_PACKET_OK);
	cr_assert_eq(chp_hermes_inv_value(m) - chp_hermes_inv_key(m), CHP_KEY_BYTES_MAX);
}

Test(wire, other_messages_have_one_length)
{
	for (uint32_t type = 0; type < 256; type++)
		for (uint32_t len = 8; len <= 40; len += 8) {
			bool short_one = type == CHP_HERMES_ACK || type == CHP_HERMES_VAL || type == CHP_HERMES_STORED;
			bool ok = (len == 24 && short_one) ||
				  (len == 16 && (type == CHP_HERMES_FLOOR || type == CHP_HERMES_EVICTED));

			make_peer();
			cr_assert_eq(chp_hermes_check(add_message((uint8_t)type, len), 64), ok);
		}
}

Test(wire, a_floor_leaves_room_above_it)
{
	struct chp_hermes_floor *m;

	make_peer();
	m = add_message(CHP_HERMES_FLOOR, sizeof(*m));
	m->counter = CHP_HERMES_FLOOR_MAX;
	cr_assert(chp_hermes_check(&m->message, 64));
	m->counter++;
	cr_assert_not(chp_hermes_check(&m->message, 64));
}

/* ---- ZAB ---- */

#define VALUE_MAX 100u

/* A message at the beginning of k, all of whose fields but type and length are 0. */
static void *
zab_message(uint8_t type, uint32_t len)
{
	memset(k, 0, sizeof(k));
	*(struct chp_message *)(void *)k = (struct chp_message){ .type = type, .len = (uint16_t)len,
								 .op = CHP_OP_NONE };
	return k;
}

static bool
zab_check(void)
{
	return chp_zab_check((const void *)k, VALUE_MAX);
}

#define ZAB_IS(ok, ...)                                      \
	do {                                                 \
		make();                                      \
		__VA_ARGS__;                                 \
		cr_assert_eq(zab_check(), ok, #__VA_ARGS__); \
	} while (0)

Test(wire, zab_messages_have_one_length_but_propose)
{
	static const struct {
		uint8_t type;
		uint32_t len;
	} shape[] = {
		{ CHP_ZAB_LOOK, sizeof(struct chp_zab_look) },
		{ CHP_ZAB_NEWEPOCH, sizeof(struct chp_zab_newepoch) },
		{ CHP_ZAB_ACKEPOCH, sizeof(struct chp_zab_ackepoch) },
		{ CHP_ZAB_PULL, sizeof(struct chp_zab_ackepoch) },
		{ CHP_ZAB_HISTORY, sizeof(struct chp_zab_sync) },
		{ CHP_ZAB_NEWLEADER, sizeof(struct chp_zab_sync) },
		{ CHP_ZAB_ACKLD, sizeof(struct chp_zab_index) },
		{ CHP_ZAB_ACK, sizeof(struct chp_zab_index) },
		{ CHP_ZAB_COMMIT, sizeof(struct chp_zab_index) },
		{ CHP_ZAB_BEAT, sizeof(struct chp_zab_beat) },
		{ CHP_ZAB_BEAT_ACK, sizeof(struct chp_zab_beat) },
		{ CHP_ZAB_READ, sizeof(struct chp_zab_read) },
		{ CHP_ZAB_READ_INDEX, sizeof(struct chp_zab_read) },
		{ CHP_ZAB_RECOVER, sizeof(struct chp_zab_recover) },
		{ CHP_ZAB_RECOVERED, sizeof(struct chp_zab_recovered) },
	};

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(shape); i++) {
		for (uint32_t len = 8; len <= 512; len += 8) {
			zab_message(shape[i].type, len);
			((struct chp_zab_newepoch *)(void *)k)->epoch = shape[i].type == CHP_ZAB_NEWEPOCH;
			cr_assert_eq(zab_check(), len == shape[i].len, "type %#x, %u bytes", shape[i].type, len);
		}
	}
	zab_message(CHP_ZAB_OFFER + 1, 16);
	cr_assert_not(zab_check());
	zab_message(CHP_ZAB_LOOK - 1, 40);
	cr_assert_not(zab_check());
}

Test(wire, zab_elections_are_bounded)
{
	struct chp_zab_look *look = (void *)k;
	struct chp_zab_newepoch *epoch = (void *)k;
	struct chp_zab_recovered *recovered = (void *)k;

#define make() zab_message(CHP_ZAB_LOOK, sizeof(*look))
	ZAB_IS(true, look->round = CHP_ZAB_COUNT_MAX);
	ZAB_IS(false, look->round = CHP_ZAB_COUNT_MAX + 1);
	ZAB_IS(true, look->accepted_epoch = CHP_ZAB_EPOCH_MAX);
	ZAB_IS(false, look->accepted_epoch = CHP_ZAB_EPOCH_MAX + 1);
	ZAB_IS(true, look->view = UINT64_MAX);
	ZAB_IS(true, look->look_flags = CHP_ZAB_JOIN);
	ZAB_IS(false, look->look_flags = 2);
	ZAB_IS(false, look->look_flags = UINT64_C(1) << 32);
#undef make
#define make() (zab_message(CHP_ZAB_NEWEPOCH, sizeof(*epoch)), epoch->epoch = 1)
	ZAB_IS(true, (void)0);
	ZAB_IS(false, epoch->epoch = 0);
	ZAB_IS(true, epoch->epoch = CHP_ZAB_EPOCH_MAX);
	ZAB_IS(false, epoch->epoch = CHP_ZAB_EPOCH_MAX + 1);
	ZAB_IS(true, epoch->round = CHP_ZAB_COUNT_MAX);
	ZAB_IS(false, epoch->round = CHP_ZAB_COUNT_MAX + 1);
#undef make
#define make() zab_message(CHP_ZAB_RECOVERED, sizeof(*recovered))
	ZAB_IS(true, recovered->accepted_epoch = CHP_ZAB_EPOCH_MAX);
	ZAB_IS(false, recovered->accepted_epoch = CHP_ZAB_EPOCH_MAX + 1);
	ZAB_IS(true, recovered->recovered_flags = CHP_ZAB_ESTABLISHED);
	ZAB_IS(false, recovered->recovered_flags = 2);
#undef make
}

/* 5 entries are committed, 6 and 7 are of epoch 2, 8 to 10 of epoch 4. */
static struct chp_zab_history *
make_history(uint8_t type)
{
	struct chp_zab_ackepoch *m = zab_message(type, sizeof(*m));

	m->history = (struct chp_zab_history){ .current_epoch = 4, .last_epoch = 4, .last = 10, .committed = 5,
					       .n_runs = 2, .run = { { 2, 6 }, { 4, 8 } } };
	return &m->history;
}

Test(wire, zab_histories_are_bounded)
{
	struct chp_zab_history *h;

#define make() (h = make_history(CHP_ZAB_PULL))
	ZAB_IS(true, h->flags = CHP_ZAB_INCOMPLETE);
	ZAB_IS(false, h->flags = 2);
	ZAB_IS(false, h->committed = 11);
	ZAB_IS(false, h->committed = 6);
	ZAB_IS(true, h->committed = 4);
	ZAB_IS(true, h->n_runs = 0);
	ZAB_IS(false, h->n_runs = 3);
	ZAB_IS(false, h->n_runs = CHP_ZAB_RUNS_MAX + 1);
	ZAB_IS(false, h->n_runs = UINT32_MAX);
	ZAB_IS(false, h->last = 7);
	ZAB_IS(true, h->last = 8);
	ZAB_IS(true, h->last = CHP_ZAB_INDEX_MAX);
	ZAB_IS(false, h->last = CHP_ZAB_INDEX_MAX + 1);
	ZAB_IS(false, h->last_epoch = 3);
	ZAB_IS(true, h->last_epoch = 5);
	ZAB_IS(false, h->run[0].first = 5);
	ZAB_IS(false, h->run[1].first = 6);
	ZAB_IS(true, h->run[1].first = 7);
	ZAB_IS(false, h->run[1].first = 11);
	ZAB_IS(false, h->run[0].epoch = 4);
	ZAB_IS(false, h->run[1].epoch = 5);
	ZAB_IS(false, h->run[1].epoch = 2);
#undef make
	make_history(CHP_ZAB_ACKEPOCH)->run[0].first = 5;
	cr_assert_not(zab_check());
	h = make_history(CHP_ZAB_ACKEPOCH);
	h->n_runs = CHP_ZAB_RUNS_MAX;
	h->last = h->last_epoch = CHP_ZAB_RUNS_MAX + 5;
	for (uint32_t i = 0; i < CHP_ZAB_RUNS_MAX; i++)
		h->run[i] = (struct chp_zab_run){ i + 1, i + 6 };
	cr_assert(zab_check());
}

Test(wire, zab_synchronisations_are_bounded)
{
	static const uint8_t type[] = { CHP_ZAB_NEWLEADER, CHP_ZAB_HISTORY };

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(type); i++) {
		struct chp_zab_sync *m = (void *)k;

#define make() (zab_message(type[i], sizeof(*m)), m->epoch = 3, m->keep = 5, m->keep_epoch = 3, m->end = 7)
		ZAB_IS(true, m->sync_flags = CHP_ZAB_SNAP | CHP_ZAB_RULE_ALL);
		ZAB_IS(true, m->sync_flags = CHP_ZAB_BEYOND);
		ZAB_IS(false, m->sync_flags = 8);
		ZAB_IS(true, m->keep = 7);
		ZAB_IS(false, m->keep = 8);
		ZAB_IS(true, m->end = 5);
		ZAB_IS(true, m->end = CHP_ZAB_INDEX_MAX);
		ZAB_IS(false, m->end = CHP_ZAB_INDEX_MAX + 1);
		ZAB_IS(true, m->keep = m->end = CHP_ZAB_INDEX_MAX);
		ZAB_IS(false, m->keep_epoch = 4);
		ZAB_IS(false, m->epoch = 2);
#undef make
	}
}

Test(wire, zab_flags_of_indices)
{
	struct chp_zab_index *m = (void *)k;

#define make() zab_message(CHP_ZAB_COMMIT, sizeof(*m))
	ZAB_IS(true, m->index_flags = CHP_ZAB_UPTODATE);
	ZAB_IS(false, m->index_flags = 2);
	ZAB_IS(true, m->index = UINT64_MAX);
#undef make
#define make() zab_message(CHP_ZAB_ACK, sizeof(*m))
	ZAB_IS(true, m->view = 7);
	ZAB_IS(false, m->index_flags = CHP_ZAB_UPTODATE);
#undef make
#define make() zab_message(CHP_ZAB_ACKLD, sizeof(*m))
	ZAB_IS(true, m->view = 7);
	ZAB_IS(false, m->index_flags = CHP_ZAB_UPTODATE);
#undef make
}

static struct chp_zab_propose *
make_propose(uint32_t key_len, uint32_t value_len, uint8_t flags)
{
	struct chp_zab_propose *m = zab_message(CHP_ZAB_PROPOSE, chp_zab_propose_bytes(key_len, value_len));

	m->epoch = 4;
	m->entry_epoch = 3;
	m->index = 9;
	m->key_len = (uint8_t)key_len;
	m->value_total = value_len;
	m->entry_flags = flags;
	memset(m + 1, 'k', key_len + value_len);
	return m;
}

static bool
is_entry(uint32_t key_len, uint32_t value_len, uint8_t flags)
{
	make_propose(key_len, value_len, flags);
	return zab_check();
}

Test(wire, zab_entries_are_of_a_kind)
{
	cr_assert(is_entry(1, 0, 0));
	cr_assert(is_entry(1, VALUE_MAX, 0));
	cr_assert_not(is_entry(1, VALUE_MAX + 1, 0));
	cr_assert(is_entry(CHP_KEY_BYTES_MAX, 1, 0));
	cr_assert_not(is_entry(CHP_KEY_BYTES_MAX + 1, 1, 0));
	cr_assert_not(is_entry(0, 0, 0), "without a key nothing changes");
	cr_assert_not(is_entry(0, 1, 0));
	cr_assert(is_entry(1, 0, CHP_ZAB_REMOVE));
	cr_assert_not(is_entry(1, 1, CHP_ZAB_REMOVE));
	cr_assert_not(is_entry(0, 0, CHP_ZAB_REMOVE));
	cr_assert(is_entry(1, 0, CHP_ZAB_NOTHING));
	cr_assert(is_entry(0, 0, CHP_ZAB_NOTHING));
	cr_assert_not(is_entry(1, 1, CHP_ZAB_NOTHING));
	cr_assert(is_entry(0, 0, CHP_ZAB_RULE));
	cr_assert_not(is_entry(1, 0, CHP_ZAB_RULE));
	cr_assert_not(is_entry(0, 1, CHP_ZAB_RULE));
	cr_assert_not(is_entry(1, 0, CHP_ZAB_REMOVE | CHP_ZAB_NOTHING));
	cr_assert_not(is_entry(0, 0, CHP_ZAB_RULE | CHP_ZAB_NOTHING));
	cr_assert_not(is_entry(0, 0, CHP_ZAB_RULE | CHP_ZAB_REMOVE));
	cr_assert_not(is_entry(1, 0, 0x10));
	cr_assert_not(is_entry(1, 0, 0x80));
	cr_assert(is_entry(8, 0, CHP_ZAB_SESSION));
	cr_assert(is_entry(8, 0, CHP_ZAB_SESSION | CHP_ZAB_REMOVE));
	cr_assert(is_entry(8, 0, CHP_ZAB_SESSION | CHP_ZAB_NOTHING));
	cr_assert_not(is_entry(8, 0, CHP_ZAB_SESSION | CHP_ZAB_RULE));
	cr_assert_not(is_entry(7, 0, CHP_ZAB_SESSION));
	cr_assert_not(is_entry(9, 0, CHP_ZAB_SESSION));
	memset(make_propose(8, 0, CHP_ZAB_SESSION) + 1, 0, 8);
	cr_assert_not(zab_check(), "no session has number 0");
}

Test(wire, zab_entries_are_bounded)
{
	struct chp_zab_propose *m;

#define make() (m = make_propose(3, 4, 0))
	ZAB_IS(false, m->index = 0);
	ZAB_IS(true, m->index = CHP_ZAB_INDEX_MAX);
	ZAB_IS(false, m->index = CHP_ZAB_INDEX_MAX + 1);
	ZAB_IS(false, m->entry_epoch = 0);
	ZAB_IS(true, m->entry_epoch = 4);
	ZAB_IS(false, m->entry_epoch = 5);
	ZAB_IS(true, m->status = CHP_STATUS_COUNT - 1);
	ZAB_IS(false, m->status = CHP_STATUS_COUNT);
	ZAB_IS(false, m->reserved = 1);
	ZAB_IS(true, m->number = UINT64_MAX);
	ZAB_IS(false, m->message.len -= 8);
	ZAB_IS(false, m->message.len += 8);
	ZAB_IS(false, m->message.len = 8);
	ZAB_IS(false, m->value_total = UINT32_MAX);
	ZAB_IS(false, m->key_len = 12);
#undef make
#define make() (m = make_propose(0, 0, CHP_ZAB_RULE))
	ZAB_IS(true, m->number = CHP_ZAB_ALL);
	ZAB_IS(false, m->number = CHP_ZAB_ALL + 1);
#undef make
}

/* Of no client, and in a version that the log is above. */
Test(wire, zab_entries_that_restore)
{
	struct chp_zab_propose *m;

#define make() (m = make_propose(8, 4, CHP_ZAB_RESTORED), m->number = 5)
	ZAB_IS(true, (void)0);
	ZAB_IS(true, m->number = 8);
	ZAB_IS(false, m->number = 9);
	ZAB_IS(false, m->number = UINT64_MAX);
	ZAB_IS(false, m->number = 0);
	ZAB_IS(false, m->session = 1);
	ZAB_IS(false, m->status = CHP_STATUS_EXISTS);
	ZAB_IS(false, m->entry_flags |= CHP_ZAB_SESSION);
	ZAB_IS(false, m->entry_flags |= CHP_ZAB_REMOVE);
#undef make
#define make() (m = make_propose(8, 0, CHP_ZAB_RESTORED | CHP_ZAB_REMOVE), m->number = 5)
	ZAB_IS(true, (void)0);
	ZAB_IS(false, m->entry_flags |= CHP_ZAB_NOTHING);
	ZAB_IS(false, m->entry_flags = CHP_ZAB_RESTORED | CHP_ZAB_NOTHING);
#undef make
#define make() (m = make_propose(0, 0, CHP_ZAB_RESTORED | CHP_ZAB_REMOVE), m->number = 5)
	ZAB_IS(false, (void)0);
	ZAB_IS(false, m->entry_flags = CHP_ZAB_RESTORED | CHP_ZAB_RULE; m->number = 1);
#undef make
}

Test(wire, zab_flags_of_beats)
{
	struct chp_zab_beat *m = (void *)k;

#define make() zab_message(CHP_ZAB_BEAT_ACK, sizeof(*m))
	ZAB_IS(true, m->beat_flags = CHP_ZAB_HOST_READY);
	ZAB_IS(false, m->beat_flags = 2);
#undef make
#define make() zab_message(CHP_ZAB_BEAT, sizeof(*m))
	ZAB_IS(true, m->lease_ns = UINT64_MAX);
	ZAB_IS(false, m->beat_flags = CHP_ZAB_HOST_READY);
#undef make
}

static struct chp_zab_fetch *
make_fetch(uint8_t type, uint32_t key_len)
{
	struct chp_zab_fetch *m = zab_message(type, chp_align_u32((uint32_t)sizeof(*m) + key_len, CHP_MESSAGE_ALIGN));

	m->epoch = 4;
	m->tag = UINT32_MAX;
	m->key_len = (uint8_t)key_len;
	memset(m + 1, 'k', key_len);
	return m;
}

Test(wire, zab_questions)
{
	static const uint8_t types[] = { CHP_ZAB_FETCH, CHP_ZAB_OFFER };

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(types); i++) {
		struct chp_zab_fetch *m;
		struct chp_key key = { 0 };

		for (uint32_t len = 1; len <= CHP_KEY_BYTES_MAX; len++) {
			m = make_fetch(types[i], len);
			cr_assert(zab_check(), "a key of %u bytes", len);
			cr_assert(chp_zab.key_of(&m->message, &key));
			cr_assert_eq(key.len, len);
			cr_assert_eq(key.bytes, k + sizeof(*m));
			cr_assert_not(key.session);
			m->message.len += CHP_MESSAGE_ALIGN;
			cr_assert_not(zab_check(), "%u bytes and more", len);
			m->message.len = (uint16_t)(m->message.len - 2 * CHP_MESSAGE_ALIGN);
			cr_assert_not(zab_check(), "%u bytes cut off", len);
		}
		for (uint32_t len = CHP_KEY_BYTES_MAX + 1; len <= UINT8_MAX; len++) {
			make_fetch(types[i], len);
			cr_assert_not(zab_check(), "a key of %u bytes", len);
		}
#define make() (m = make_fetch(types[i], 3))
		ZAB_IS(false, m->key_len = 0);
		ZAB_IS(true, m->key_len = 8);
		ZAB_IS(false, m->key_len = 9);
		ZAB_IS(true, m->message.op = 0);
		ZAB_IS(true, m->epoch = UINT64_MAX);
		for (uint32_t at = 0; at < sizeof(m->reserved); at++)
			ZAB_IS(true, m->reserved[at] = 1); /* not looked at */
		for (uint32_t len = 0; len < sizeof(*m); len += CHP_MESSAGE_ALIGN)
			ZAB_IS(false, m->message.len = (uint16_t)len);
		ZAB_IS(false, m->key_len = 0; m->message.len = sizeof(*m));
#undef make
	}
}

static struct chp_zab_fetched *
make_fetched(uint8_t status, uint64_t version, uint32_t value_len)
{
	struct chp_zab_fetched *m = zab_message(CHP_ZAB_FETCHED,
						chp_align_u32((uint32_t)sizeof(*m) + value_len, CHP_MESSAGE_ALIGN));

	m->epoch = 4;
	m->version = version;
	m->value_total = value_len;
	m->generation = 3;
	m->status = status;
	memset(m + 1, 'v', value_len);
	return m;
}

Test(wire, zab_answers_of_sources)
{
	struct chp_zab_fetched *m;

	for (uint32_t len = 0; len <= VALUE_MAX; len++) {
		m = make_fetched(CHP_ZAB_FETCH_FOUND, 5, len);
		cr_assert(zab_check(), "a value of %u bytes", len);
		m->message.len += CHP_MESSAGE_ALIGN;
		cr_assert_not(zab_check(), "%u bytes and more", len);
		m->message.len = (uint16_t)(m->message.len - 2 * CHP_MESSAGE_ALIGN);
		cr_assert_not(zab_check(), "%u bytes cut off", len);
	}
	make_fetched(CHP_ZAB_FETCH_FOUND, 5, VALUE_MAX + 1);
	cr_assert_not(zab_check());
#define make() (m = make_fetched(CHP_ZAB_FETCH_FOUND, 5, 4))
	ZAB_IS(false, m->version = 0);
	ZAB_IS(true, m->version = CHP_ZAB_INDEX_MAX - 1);
	ZAB_IS(false, m->version = CHP_ZAB_INDEX_MAX);
	ZAB_IS(false, m->value_total = UINT32_MAX);
	ZAB_IS(false, m->value_total = 0);
	ZAB_IS(true, m->generation = UINT32_MAX);
	ZAB_IS(false, m->status = CHP_ZAB_FETCH_TOMBSTONE);
	ZAB_IS(false, m->status = CHP_ZAB_FETCH_KNOWN + 1);
	for (uint32_t at = 0; at < sizeof(m->reserved); at++)
		ZAB_IS(true, m->reserved[at] = 1); /* not looked at */
	for (uint32_t len = 0; len <= sizeof(*m); len += CHP_MESSAGE_ALIGN)
		ZAB_IS(false, m->message.len = (uint16_t)len);
#undef make
	for (uint8_t status = CHP_ZAB_FETCH_TOMBSTONE; status <= CHP_ZAB_FETCH_KNOWN; status++) {
		const bool is_deleted = status == CHP_ZAB_FETCH_TOMBSTONE;

		make_fetched(status, is_deleted, 0);
		cr_assert(zab_check(), "status %u", status);
		make_fetched(status, !is_deleted, 0);
		cr_assert_not(zab_check(), "status %u", status);
		make_fetched(status, is_deleted, 4);
		cr_assert_not(zab_check(), "a value with status %u", status);
	}
}

/* ---- clients ---- */

static struct chp_request_header *
make_request(void)
{
	struct chp_request_header *h = (void *)k;

	memset(k, 0, sizeof(k));
	*h = (struct chp_request_header){
		.prelude = {
			.magic = CHP_WIRE_MAGIC,
			.version = CHP_WIRE_VERSION,
			.kind = CHP_PACKET_REQUEST,
			.cluster_hash = HASH,
		},
		.shard = 3,
	};
	k_len = sizeof(*h);
	return h;
}

static struct chp_request *
add_request(uint8_t opcode, uint8_t key_len, uint32_t value_len)
{
	struct chp_request *r = (void *)(k + k_len);

	r->opcode = opcode;
	r->len = (uint16_t)chp_request_bytes(key_len, value_len);
	r->key_len = key_len;
	r->value_total = value_len;
	r->request = 1;
	k_len += r->len;
	return r;
}

Test(wire, request_headers)
{
	struct chp_request_header *h = make_request();

	cr_assert_eq(chp_request_header_check(k, k_len, HASH), CHP_PACKET_OK);
	h->prelude.cluster_hash = 0;
	cr_assert_eq(chp_request_header_check(k, k_len, HASH), CHP_PACKET_OK, "not known yet");
	h->prelude.cluster_hash = HASH + 1;
	cr_assert_eq(chp_request_header_check(k, k_len, HASH), CHP_PACKET_CLUSTER);
	make_request()->tag_len = 1;
	cr_assert_eq(chp_request_header_check(k, k_len, HASH), CHP_PACKET_AUTH);
	make_request()->prelude.kind = CHP_PACKET_REPLY;
	cr_assert_eq(chp_request_header_check(k, k_len, HASH), CHP_PACKET_KIND);
	make_request()->prelude.magic = 0;
	cr_assert_eq(chp_request_header_check(k, k_len, HASH), CHP_PACKET_MAGIC);
	make_request()->prelude.version = 0;
	cr_assert_eq(chp_request_header_check(k, k_len, HASH), CHP_PACKET_VERSION);
	make_request();
	for (uint32_t len = 0; len < sizeof(*h); len++)
		cr_assert_eq(chp_request_header_check(k, len, HASH), CHP_PACKET_SHORT);
	cr_assert_eq(chp_request_header_check(k, CHP_PAYLOAD_BYTES_MAX + 1, HASH), CHP_PACKET_LONG);
}

Test(wire, requests_are_walked_to_the_end)
{
	uint32_t offset = sizeof(struct chp_request_header);

	make_request();
	struct chp_request *first = add_request(CHP_OPCODE_GET, 5, 0);
	struct chp_request *second = add_request(CHP_OPCODE_PUT, 250, 1024);

	cr_assert_eq(chp_request_next(k, k_len, &offset), first);
	cr_assert_eq(chp_request_next(k, k_len, &offset), second);
	cr_assert_eq(chp_request_key(second), (uint8_t *)second + 32);
	cr_assert_eq(chp_request_value(second), (uint8_t *)second + 282);
	cr_assert_eq(offset, k_len);
	cr_assert_null(chp_request_next(k, k_len, &offset));
	cr_assert_eq(offset, k_len);
	for (uint32_t len = k_len - 1; len > (uint32_t)((uint8_t *)second - k); len--) {
		offset = (uint32_t)((uint8_t *)second - k);
		cr_assert_null(chp_request_next(k, len, &offset));
		cr_assert_lt(offset, len, "malformed, not the end");
	}
	first->len = 0;
	offset = sizeof(struct chp_request_header);
	cr_assert_null(chp_request_next(k, k_len, &offset));
	first->len = 36;
	cr_assert_null(chp_request_next(k, k_len, &offset));
}

#define REQUEST_IS(status, op, key_len_, value_len_, ...)                                     \
	do {                                                                                  \
		make_request();                                                               \
		struct chp_request *r = add_request(op, key_len_, value_len_);                \
		__VA_ARGS__;                                                                  \
		cr_assert_eq(chp_request_check(r, 100, 64), status, #op " " #__VA_ARGS__);    \
	} while (0)

Test(wire, requests_are_checked)
{
	for (uint32_t op = 0; op < 256; op++) {
		bool key = op >= CHP_OPCODE_GET && op <= CHP_OPCODE_DECR;
		bool value = key && op != CHP_OPCODE_GET && op != CHP_OPCODE_DELETE &&
			     op != CHP_OPCODE_INCR && op != CHP_OPCODE_DECR;
		enum chp_status s = CHP_STATUS_OK;

		if (chp_opcode_name(op) == NULL)
			s = CHP_STATUS_UNKNOWN_OP;
		REQUEST_IS(s, (uint8_t)op, key ? 100 : 0, value ? 64 : 0, (void)r);
		if (s != CHP_STATUS_OK)
			continue;
		REQUEST_IS(key ? CHP_STATUS_BAD_KEY : CHP_STATUS_OK, (uint8_t)op, 0, 0, (void)r);
		REQUEST_IS(key ? CHP_STATUS_BAD_KEY : CHP_STATUS_BAD_REQUEST, (uint8_t)op, 101, 0,
			   (void)r);
		REQUEST_IS(value ? CHP_STATUS_OK : CHP_STATUS_BAD_REQUEST, (uint8_t)op,
			   key ? 1 : 0, 1, (void)r);
		REQUEST_IS(CHP_STATUS_TOO_LARGE, (uint8_t)op, key ? 1 : 0, 65, (void)r);
	}
	REQUEST_IS(CHP_STATUS_BAD_REQUEST, CHP_OPCODE_PUT, 5, 5, r->value_offset = 1);
	REQUEST_IS(CHP_STATUS_BAD_REQUEST, CHP_OPCODE_PUT, 5, 5, r->len += 8);
	REQUEST_IS(CHP_STATUS_BAD_REQUEST, CHP_OPCODE_PUT, 5, 5, r->value_total = 60);
	REQUEST_IS(CHP_STATUS_TOO_LARGE, CHP_OPCODE_PUT, 5, 5, r->value_total = UINT32_MAX);
}

Test(wire, only_reads_are_relaxed)
{
	for (uint8_t op = CHP_OPCODE_GET; op <= CHP_OPCODE_QUORUM; op++) {
		bool key = op <= CHP_OPCODE_DECR;

		REQUEST_IS(op == CHP_OPCODE_GET ? CHP_STATUS_OK : CHP_STATUS_BAD_REQUEST, op, key ? 5 : 0, 0,
			   r->flags = CHP_REQUEST_RELAXED);
		REQUEST_IS(CHP_STATUS_OK, op, key ? 5 : 0, 0, r->flags = 0x80); /* of a later version */
	}
}

Test(wire, quorum_rules)
{
	REQUEST_IS(CHP_STATUS_OK, CHP_OPCODE_QUORUM, 0, 0, r->arg = CHP_QUORUM_MAJORITY);
	REQUEST_IS(CHP_STATUS_OK, CHP_OPCODE_QUORUM, 0, 0, r->arg = CHP_QUORUM_ALL);
	REQUEST_IS(CHP_STATUS_OK, CHP_OPCODE_QUORUM, 0, 0, r->arg = CHP_QUORUM_ASK);
	REQUEST_IS(CHP_STATUS_BAD_REQUEST, CHP_OPCODE_QUORUM, 0, 0, r->arg = CHP_QUORUM_ASK + 1);
	REQUEST_IS(CHP_STATUS_BAD_REQUEST, CHP_OPCODE_QUORUM, 1, 0, r->arg = CHP_QUORUM_ASK);
	cr_assert_str_eq(chp_quorum_name(CHP_QUORUM_MAJORITY), "majority");
	cr_assert_str_eq(chp_quorum_name(CHP_QUORUM_ALL), "all");
	cr_assert_null(chp_quorum_name(CHP_QUORUM_ASK));
	cr_assert_null(chp_quorum_name(UINT64_MAX));
}

Test(wire, replies_are_walked_to_the_end)
{
	struct chp_reply_header *h = (void *)make_request();
	struct chp_reply_message *r;
	uint32_t offset = sizeof(*h);

	h->prelude.kind = CHP_PACKET_REPLY;
	cr_assert_eq(chp_reply_header_check(k, k_len, HASH), CHP_PACKET_OK);
	cr_assert_eq(chp_reply_header_check(k, k_len, 0), CHP_PACKET_OK, "any, while not known");
	cr_assert_eq(chp_reply_header_check(k, k_len, 1), CHP_PACKET_CLUSTER);
	h->tag_len = 4;
	cr_assert_eq(chp_reply_header_check(k, k_len, HASH), CHP_PACKET_AUTH);
	r = (void *)(k + k_len);
	r->value_total = 3;
	r->len = (uint16_t)chp_reply_bytes(3);
	k_len += r->len;
	cr_assert_eq(chp_reply_next(k, k_len, &offset), r);
	cr_assert_eq(offset, k_len);
	cr_assert_null(chp_reply_next(k, k_len, &offset));
	offset = sizeof(*h);
	cr_assert_null(chp_reply_next(k, k_len - 1, &offset));
	r->value_offset = 1;
	cr_assert_null(chp_reply_next(k, k_len, &offset));
	r->value_offset = 0;
	r->value_total = 9;
	cr_assert_null(chp_reply_next(k, k_len, &offset));
}

/* 40 + 0xfffffff9 is 33 in 32 bits, which rounds up to the 40 of a reply without a value. */
Test(wire, a_reply_whose_value_length_overflows_is_refused)
{
	struct chp_reply_message *r = (void *)(k + sizeof(struct chp_reply_header));
	uint32_t offset = sizeof(struct chp_reply_header);

	make_request();
	r->len = sizeof(*r);
	r->value_total = 0xfffffff9;
	cr_assert_null(chp_reply_next(k, offset + r->len, &offset));
}

Test(wire, names_of_statuses_and_operations)
{
	for (uint32_t i = 0; i < CHP_STATUS_COUNT; i++)
		for (uint32_t j = 0; j < i; j++)
			cr_assert_str_neq(chp_status_name(i), chp_status_name(j));
	cr_assert_str_eq(chp_status_name(CHP_STATUS_COUNT), "status_?");
	cr_assert_str_eq(chp_status_name(CHP_STATUS_UNKNOWN_OUTCOME), "unknown_outcome");
	cr_assert_str_eq(chp_opcode_name(CHP_OPCODE_SESSION_OPEN), "session_open");
	cr_assert_null(chp_opcode_name(0));
	cr_assert_str_eq(chp_opcode_name(CHP_OPCODE_QUORUM), "quorum");
	cr_assert_null(chp_opcode_name(15));
	cr_assert_null(chp_opcode_name(255));
}

/* ---- the worked example of docs/wire-protocol.md ---- */

static const char example_request[] =
	"43480103cdab3412010000000000010001000000000000000100000000000000"
	"0200300007000000010000000000000005000000000000000000000000000000"
	"757365723a343268656c6c6f00000000";

static const char example_inv[] =
	"43480101cdab3412e68227fd00010100a7a6a5a4a3a2a1a0b7b6b5b4b3b2b1b0"
	"0100000000000000010000000000000001000000000000000000000000000000"
	"0000000000000000000100000000000010015000000000000100000007000000"
	"0100020000000000000000000000000001000000000001000100000000000000"
	"00000000000000000500000000000000757365723a343268656c6c6f00000000";

static const char example_ack[] =
	"43480101cdab3412dfa05a7601000100b7b6b5b4b3b2b1b0a7a6a5a4a3a2a1a0"
	"0100000000000000010000000000000001000000000000000100000000000000"
	"0000000000000000000100000000000011001800000000000100000000000000"
	"0100020000000000";

static const char example_val[] =
	"43480101cdab34128afc115700010100a7a6a5a4a3a2a1a0b7b6b5b4b3b2b1b0"
	"0100000000000000010000000000000002000000000000000100000000000000"
	"0000000000000000000100000000000012001800000000000100000000000000"
	"0100020000000000";

static const char example_reply[] =
	"43480104cdab3412010000000000010001000000000000000100000000000000"
	"0200280000000000010000000000000000000000000000000100020000000000"
	"0000000000000000";

static const char example_hello_short[] =
	"43480102cdab3412c05019c100010200a7a6a5a4a3a2a1a00000000000000000"
	"00000000000000000301c0058b51142801000000000000000100000000000000"
	"000000000000000000000000000000000000000000000000";

static void
expect_bytes(const char *hex)
{
	char found[2 * 256 + 1] = "";

	cr_assert_leq(k_len, 256);
	for (uint32_t i = 0; i < k_len; i++)
		snprintf(found + 2 * i, 3, "%02x", k[i]);
	cr_assert_str_eq(found, hex);
}

#define NODE_0 UINT64_C(0xa0a1a2a3a4a5a6a7)
#define NODE_1 UINT64_C(0xb0b1b2b3b4b5b6b7)
#define SESSION UINT64_C(0x0001000000000001)
#define VERSION (2u << 16 | 1u)

static struct chp_peer_header *
make_example_peer(uint8_t from, uint64_t seq, uint64_t ack)
{
	struct chp_peer_header *h = make_peer();

	h->from = from;
	h->to = !from;
	h->shard = 1;
	h->from_incarnation = from == 0 ? NODE_0 : NODE_1;
	h->to_incarnation = from == 0 ? NODE_1 : NODE_0;
	h->seq = seq;
	h->ack = ack;
	h->grant = 256;
	return h;
}

Test(wire, example_client)
{
	struct chp_digest d = chp_digest_of("user:42", 7, 0);
	struct chp_request_header *q = make_request();
	struct chp_reply_header *h = (void *)k;
	struct chp_reply_message *r = (void *)(h + 1);

	cr_assert_eq(d.hi, UINT64_C(0x8763cfe7e8dd227b));
	cr_assert_eq(chp_shard_of(d, 2), 1);
	q->session = SESSION;
	q->lowest = 1;
	q->shard = 1;
	memcpy(add_request(CHP_OPCODE_PUT, 7, 5) + 1, "user:42hello", 12);
	expect_bytes(example_request);

	make_request();
	h->prelude.kind = CHP_PACKET_REPLY;
	h->session = SESSION;
	h->epoch = 1;
	h->shard = 1;
	h->node = 0;
	r->opcode = CHP_OPCODE_PUT;
	r->len = (uint16_t)chp_reply_bytes(0);
	r->request = 1;
	r->version = VERSION;
	k_len += r->len;
	expect_bytes(example_reply);
}

Test(wire, example_peers)
{
	struct chp_hermes_inv *inv;
	struct chp_hermes_ack *m;

	make_example_peer(0, 1, 0);
	inv = add_message(CHP_HERMES_INV, chp_hermes_inv_bytes(7, 5));
	inv->message.flags = CHP_MESSAGE_BEGIN;
	inv->message.op = 0;
	inv->generation = 1;
	inv->key_len = 7;
	inv->version = VERSION;
	inv->session = SESSION;
	inv->request = 1;
	inv->value_total = 5;
	memcpy(inv + 1, "user:42hello", 12);
	cr_assert_eq(check_peer(), CHP_PACKET_OK);
	cr_assert(chp_hermes_check(&inv->message, 1024));
	expect_bytes(example_inv);

	make_example_peer(1, 1, 1);
	m = add_message(CHP_HERMES_ACK, sizeof(*m));
	m->message.op = 0;
	m->generation = 1;
	m->version = VERSION;
	cr_assert_eq(check_peer(), CHP_PACKET_OK);
	expect_bytes(example_ack);

	make_example_peer(0, 2, 1);
	m = add_message(CHP_HERMES_VAL, sizeof(*m));
	m->message.op = 0;
	m->generation = 1;
	m->version = VERSION;
	cr_assert_eq(check_peer(), CHP_PACKET_OK);
	expect_bytes(example_val);
}

Test(wire, a_pause_answers_the_packet_of_a_peer)
{
	struct chp_peer_header asked, *h = (void *)k;

	make_example_peer(0, 2, 7);
	chp_peer_seal(k, k_len);
	asked = *h;
	chp_peer_pause(&asked, 10, h);
	k_len = sizeof(*h);
	chp_peer_seal(k, k_len);
	cr_assert_eq(check_peer(), CHP_PACKET_OK);
	cr_assert_eq(h->from, asked.to);
	cr_assert_eq(h->to, asked.from);
	cr_assert_eq(h->shard, asked.shard);
	cr_assert_eq(h->from_incarnation, asked.to_incarnation);
	cr_assert_eq(h->to_incarnation, asked.from_incarnation);
	cr_assert_eq(h->session, asked.session);
	cr_assert_eq(h->flags, CHP_PEER_PAUSE);
	cr_assert_eq(h->pause_ms, 10);
	/* Of what only the shard knows it says nothing. */
	cr_assert(h->seq == 0 && h->ack == 0 && h->sack == 0 && h->grant == 0);
	cr_assert_eq(k[44], 2, "bit 1 of flags");
	cr_assert_eq(k[47], 10, "behind tag_len");
}

Test(wire, example_hello)
{
	struct chp_membership_config config = {
		.cluster_hash = HASH,
		.n_nodes = 3,
		.payload_bytes = 1472,
		.incarnation = NODE_0,
		.bootstrap = true,
		.address = { 0x0a63000a, 0x0a63000b, 0x0a63000c },
		.suspect_ns = 1000000000,
		.lease_ns = 300000000,
		.clock_drift_ppm = 500,
	};
	struct chp_membership m;
	uint32_t to;

	chp_membership_init(&m, &config, 1);
	chp_membership_tick(&m, 1);
	do {
		k_len = chp_membership_transmit(&m, 1, k, &to);
		cr_assert_neq(k_len, 0);
	} while (k_len != sizeof(struct chp_control_hello) || to != 1);
	expect_bytes(example_hello_short);
}
