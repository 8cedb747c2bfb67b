/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/host.h"

#include "base/assert.h"
#include "wire/copy.h"

#include <string.h>

#define STORE_FLAGS_ALL ((uint32_t)(CHP_STORE_VOLATILE | CHP_STORE_ALLOW_LOSS | CHP_STORE_SCANS))
#define ITEM_FLAGS_ALL ((uint32_t)(CHP_HOST_RMW | CHP_HOST_TOMBSTONE | CHP_HOST_OLD))
#define SCAN_FLAGS_ALL ((uint32_t)(CHP_HOST_SCAN_START | CHP_HOST_SCAN_OLD))

_Static_assert(CHP_HOST_BEGIN > 0x2f, "behind the types of protocols and copies");

static const char *const refusal_name[CHP_HOST_REFUSALS] = {
	[CHP_HOST_OK] = "ok",
	[CHP_HOST_BAD_VERSION] = "another version of the channel",
	[CHP_HOST_BAD_CLUSTER] = "another cluster",
	[CHP_HOST_BAD_NODE] = "another node",
	[CHP_HOST_BAD_SHARD] = "another number of shards",
	[CHP_HOST_NO_STORE] = "no store",
};

const char *
chp_host_refusal_name(enum chp_host_refusal r)
{
	CHP_ASSERT_OP(r, <, CHP_HOST_REFUSALS);
	return refusal_name[r];
}

void
chp_host_text(char *to, const char *from)
{
	uint32_t i = 0;

	for (; i < CHP_HOST_TEXT_BYTES - 1 && from[i] != '\0'; i++)
		to[i] = (uint8_t)from[i] < 0x20 || from[i] == 0x7f ? ' ' : from[i];
	memset(to + i, 0, CHP_HOST_TEXT_BYTES - i);
}

/* Ends, and would not move a terminal's cursor. */
static bool
check_text(const char *text)
{
	for (uint32_t i = 0; i < CHP_HOST_TEXT_BYTES; i++) {
		if (text[i] == '\0')
			return true;
		if ((uint8_t)text[i] < 0x20 || text[i] == 0x7f)
			return false;
	}
	return false;
}

/* ------------------------------------------------------------------ messages */

static bool
check_version(uint64_t version)
{
	return version != 0 && version >> 16 <= CHP_COPY_COUNTER_MAX;
}

/* A version that is there: RMW or not, deleted without a value, or not. */
static bool
check_item(const struct chp_message *m, bool to_host, uint32_t key_max, uint32_t value_max)
{
	const struct chp_host_item *item = (const void *)m;
	const uint32_t flags = to_host ? ITEM_FLAGS_ALL & ~(uint32_t)CHP_HOST_OLD : ITEM_FLAGS_ALL;

	if (m->len < sizeof(*item) || item->key_len == 0 || item->key_len > key_max || item->value_len > value_max)
		return false;
	if (m->len != chp_host_item_bytes(item->key_len, item->value_len) || item->reserved != 0)
		return false;
	if ((item->item_flags & ~flags) != 0 || !check_version(item->version))
		return false;
	if ((item->item_flags & CHP_HOST_TOMBSTONE) != 0 && item->value_len != 0)
		return false;
	return to_host ? m->op == CHP_OP_NONE : m->op < CHP_HOST_SCANS;
}

static bool
check_life(const struct chp_message *m)
{
	const struct chp_host_life *l = (const void *)m;

	return m->len == sizeof(*l) && m->op == CHP_OP_NONE && l->life != 0;
}

static bool
check_batch(const struct chp_message *m)
{
	const struct chp_host_batch *b = (const void *)m;

	return m->len == sizeof(*b) && m->op == CHP_OP_NONE && b->seq != 0 && b->reserved == 0 &&
	       (b->items != 0) == (m->type == CHP_HOST_FLUSH);
}

static bool
check_load(const struct chp_message *m, uint32_t key_max)
{
	static const uint8_t zeros[sizeof(((struct chp_host_load *)0)->reserved)];
	const struct chp_host_load *l = (const void *)m;

	return m->len >= sizeof(*l) && l->key_len != 0 && l->key_len <= key_max && m->op != CHP_OP_NONE &&
	       m->len == chp_host_load_bytes(l->key_len) && memcmp(l->reserved, zeros, sizeof(zeros)) == 0;
}

/* What is not there has no version and no value. */
static bool
check_loaded(const struct chp_message *m, uint32_t value_max)
{
	const struct chp_host_loaded *l = (const void *)m;

	if (m->len < sizeof(*l) || l->value_len > value_max || m->len != chp_host_loaded_bytes(l->value_len))
		return false;
	if (l->status >= CHP_HOST_LOAD_STATUSES || m->op == CHP_OP_NONE ||
	    (l->item_flags & ~ITEM_FLAGS_ALL) != 0)
		return false;
	switch (l->status) {
	case CHP_HOST_LOAD_FOUND:
		return check_version(l->version) && (l->item_flags & CHP_HOST_TOMBSTONE) == 0;
	case CHP_HOST_LOAD_TOMBSTONE:
		return check_version(l->version) && (l->item_flags & CHP_HOST_TOMBSTONE) != 0 && l->value_len == 0;
	default:
		return l->version == 0 && l->item_flags == 0 && l->value_len == 0 && l->generation == 0;
	}
}

static bool
check_scan(const struct chp_message *m)
{
	const struct chp_host_scan *s = (const void *)m;

	return m->len == sizeof(*s) && m->op < CHP_HOST_SCANS && (s->scan_flags & ~SCAN_FLAGS_ALL) == 0 &&
	       s->bytes != 0 && s->bytes <= CHP_COPY_BYTES_MAX;
}

/* The part is the last, or could not be told to its end, or neither. */
static bool
check_scanned(const struct chp_message *m)
{
	const struct chp_host_scanned *s = (const void *)m;

	return m->len == sizeof(*s) && m->op < CHP_HOST_SCANS &&
	       (s->scanned_flags == 0 || s->scanned_flags == CHP_HOST_SCAN_END ||
		s->scanned_flags == CHP_HOST_SCAN_FAILED);
}

static bool
check_record(const struct chp_message *m)
{
	const struct chp_host_record *r = (const void *)m;

	return m->len == sizeof(*r) && m->op == CHP_OP_NONE && r->epoch != 0;
}

static bool
check_state(const struct chp_message *m)
{
	const struct chp_host_state *s = (const void *)m;

	return m->len == sizeof(*s) && m->op == CHP_OP_NONE && s->state < CHP_STORE_STATES && s->reserved == 0 &&
	       check_text(s->text);
}

static bool
check_from_shard(const struct chp_message *m, uint32_t key_max, uint32_t value_max)
{
	switch (m->type) {
	case CHP_HOST_BEGIN:
		return check_life(m);
	case CHP_HOST_PUT:
		return check_item(m, true, key_max, value_max);
	case CHP_HOST_FLUSH:
		return check_batch(m);
	case CHP_HOST_LOAD:
		return check_load(m, key_max);
	case CHP_HOST_SCAN:
		return check_scan(m);
	case CHP_HOST_RECORD:
		return check_record(m);
	default:
		return false;
	}
}

bool
chp_host_message_check(const struct chp_message *m, bool to_host, uint32_t key_max, uint32_t value_max)
{
	if (m->flags != 0)
		return false;
	if (to_host)
		return check_from_shard(m, key_max, value_max);
	switch (m->type) {
	case CHP_HOST_BEGUN:
		return check_life(m);
	case CHP_HOST_DURABLE:
		return check_batch(m);
	case CHP_HOST_LOADED:
		return check_loaded(m, value_max);
	case CHP_HOST_ITEM:
		return check_item(m, false, key_max, value_max);
	case CHP_HOST_SCANNED:
		return check_scanned(m);
	case CHP_HOST_RECORDED:
		return check_record(m);
	case CHP_HOST_STATE:
		return check_state(m);
	default:
		return false;
	}
}

/* ------------------------------------------------------------------ packets */

enum chp_packet_error
chp_host_check(const void *data, uint32_t len, uint32_t hash, uint32_t node, uint32_t shards)
{
	const struct chp_peer_header *h = data;
	enum chp_packet_error e = chp_sealed_check(data, len, CHP_PACKET_HOST, sizeof(*h), hash);

	if (e != CHP_PACKET_OK)
		return e;
	if (h->tag_len != 0)
		return CHP_PACKET_AUTH;
	if (h->from != node || h->to != node)
		return CHP_PACKET_NODE;
	if (h->shard >= shards)
		return CHP_PACKET_SHARD;
	if (h->epoch != 0 || h->grant != 0 || h->pause_ms != 0 || (h->flags & ~CHP_PEER_ACK_NOW) != 0)
		return CHP_PACKET_MESSAGE;
	return chp_messages_check(h, len);
}

/* What only a WELCOME has; `text` has its own rule. */
static bool
is_empty(const struct chp_host_hello *h)
{
	return h->store_flags == 0 && h->put_bytes == 0 && h->loads == 0 && h->life == 0 && h->batch == 0 &&
	       h->epoch == 0 && h->newest == 0 && h->items == 0 && h->tombstones == 0;
}

static bool
check_welcome(const struct chp_host_hello *h)
{
	if ((h->store_flags & ~STORE_FLAGS_ALL) != 0)
		return false;
	if ((h->store_flags & (CHP_STORE_VOLATILE | CHP_STORE_ALLOW_LOSS)) == CHP_STORE_ALLOW_LOSS)
		return false;
	/* The largest PUT, and one LOAD, must always be possible. */
	if (h->put_bytes < chp_host_item_bytes(h->key_bytes_max, h->value_bytes_max) || h->loads == 0)
		return false;
	return h->newest <= CHP_COPY_COUNTER_MAX && (h->life != 0 || h->batch == 0);
}

static bool
check_sizes(const struct chp_host_hello *h)
{
	return h->key_bytes_max != 0 && h->key_bytes_max <= CHP_KEY_BYTES_MAX &&
	       h->value_bytes_max <= CHP_VALUE_BYTES_MAX && h->payload_bytes_max >= CHP_PAYLOAD_BYTES_MIN &&
	       h->payload_bytes_max <= CHP_PAYLOAD_BYTES_MAX;
}

static bool
check_hello(const struct chp_host_hello *h, uint32_t len)
{
	switch (h->type) {
	case CHP_HOST_HELLO:
		return len == h->payload_bytes_max && check_sizes(h) && h->to_incarnation == 0 &&
		       h->refusal == CHP_HOST_OK && is_empty(h) && h->text[0] == '\0';
	case CHP_HOST_WELCOME:
		return len == sizeof(*h) && check_sizes(h) && h->to_incarnation != 0 && h->refusal == CHP_HOST_OK &&
		       check_welcome(h) && check_text(h->text);
	case CHP_HOST_REFUSED:
		return len == sizeof(*h) && h->to_incarnation != 0 && h->refusal != CHP_HOST_OK &&
		       h->refusal < CHP_HOST_REFUSALS && is_empty(h) && check_text(h->text);
	default:
		return false;
	}
}

/* Of another version only what has to be answered is known: a HELLO, or that this is why it was refused. */
static bool
check_stranger(const struct chp_host_hello *h)
{
	return h->type == CHP_HOST_HELLO || (h->type == CHP_HOST_REFUSED && h->refusal == CHP_HOST_BAD_VERSION &&
					     h->to_incarnation != 0 && check_text(h->text));
}

enum chp_packet_error
chp_host_hello_check(const void *data, uint32_t len, uint32_t hash)
{
	const struct chp_host_hello *h = data;
	uint8_t kind;
	enum chp_packet_error e = chp_packet_kind_of(data, len, &kind);

	if (e != CHP_PACKET_OK)
		return e;
	e = chp_sealed_check(data, len, CHP_PACKET_HOST_HELLO, sizeof(*h), hash != 0 ? hash : h->prelude.cluster_hash);
	if (e != CHP_PACKET_OK)
		return e;
	if (h->incarnation == 0 || h->number == 0 ||
	    !(h->channel_version == CHP_CHANNEL_VERSION ? check_hello(h, len) : check_stranger(h)))
		return CHP_PACKET_MESSAGE;
	return CHP_PACKET_OK;
}
