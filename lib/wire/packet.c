/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/packet.h"

#include "base/assert.h"
#include "base/crc32c.h"

#include <string.h>

static const char *const error_name[CHP_PACKET_ERRORS] = {
	[CHP_PACKET_OK] = "ok",           [CHP_PACKET_SHORT] = "drop_short",
	[CHP_PACKET_LONG] = "drop_long",  [CHP_PACKET_MAGIC] = "drop_magic",
	[CHP_PACKET_VERSION] = "drop_version", [CHP_PACKET_KIND] = "drop_kind",
	[CHP_PACKET_CLUSTER] = "drop_cluster", [CHP_PACKET_CRC] = "drop_crc",
	[CHP_PACKET_AUTH] = "drop_auth",  [CHP_PACKET_NODE] = "drop_node",
	[CHP_PACKET_SHARD] = "drop_shard", [CHP_PACKET_MESSAGE] = "drop_message",
};

const char *
chp_packet_error_name(enum chp_packet_error e)
{
	CHP_ASSERT_OP(e, <, CHP_PACKET_ERRORS);
	return error_name[e];
}

enum chp_packet_error
chp_packet_kind_of(const void *data, uint32_t len, uint8_t *kind)
{
	const struct chp_prelude *p = data;

	if (len < sizeof(*p))
		return CHP_PACKET_SHORT;
	if (p->magic != CHP_WIRE_MAGIC)
		return CHP_PACKET_MAGIC;
	if (p->version != CHP_WIRE_VERSION)
		return CHP_PACKET_VERSION;
	*kind = p->kind;
	return CHP_PACKET_OK;
}

enum chp_packet_error
chp_messages_check(const struct chp_peer_header *h, uint32_t len)
{
	const uint8_t *at = (const uint8_t *)(h + 1);
	uint32_t left = len - (uint32_t)sizeof(*h);

	if (h->seq == 0 && left != 0)
		return CHP_PACKET_MESSAGE;
	while (left > 0) {
		const struct chp_message *m = (const void *)at;

		if (left < sizeof(*m) || m->len < sizeof(*m) || m->len > left ||
		    m->len % CHP_MESSAGE_ALIGN != 0)
			return CHP_PACKET_MESSAGE;
		at += m->len;
		left -= m->len;
	}
	return CHP_PACKET_OK;
}

enum chp_packet_error
chp_sealed_check(const void *data, uint32_t len, enum chp_packet_kind kind, uint32_t header_len,
		 uint32_t hash)
{
	const struct chp_peer_header *h = data; /* no field behind the checksum is looked at */
	uint8_t found = 0;
	enum chp_packet_error e = chp_packet_kind_of(data, len, &found);

	if (e != CHP_PACKET_OK)
		return e;
	if (found != kind)
		return CHP_PACKET_KIND;
	if (len < header_len)
		return CHP_PACKET_SHORT;
	if (len > CHP_PAYLOAD_BYTES_MAX)
		return CHP_PACKET_LONG;
	if (h->prelude.cluster_hash != hash)
		return CHP_PACKET_CLUSTER;
	if (h->crc32c != chp_peer_crc(data, len))
		return CHP_PACKET_CRC;
	return CHP_PACKET_OK;
}

enum chp_packet_error
chp_peer_check(const void *data, uint32_t len, uint32_t hash, uint32_t nodes, uint32_t shards)
{
	const struct chp_peer_header *h = data;
	enum chp_packet_error e = chp_sealed_check(data, len, CHP_PACKET_PEER, sizeof(*h), hash);

	if (e != CHP_PACKET_OK)
		return e;
	if (h->tag_len != 0)
		return CHP_PACKET_AUTH;
	if (h->from >= nodes || h->to >= nodes || h->from == h->to)
		return CHP_PACKET_NODE;
	if (h->shard >= shards)
		return CHP_PACKET_SHARD;
	return chp_messages_check(h, len);
}

void
chp_peer_pause(const struct chp_peer_header *h, uint32_t pause_ms, struct chp_peer_header *to)
{
	CHP_ASSERT_OP(pause_ms, <=, CHP_PAUSE_MS_MAX);
	*to = (struct chp_peer_header){
		.prelude = h->prelude,
		.from = h->to,
		.to = h->from,
		.shard = h->shard,
		.from_incarnation = h->to_incarnation,
		.to_incarnation = h->from_incarnation,
		.epoch = h->epoch,
		.session = h->session,
		.flags = CHP_PEER_PAUSE,
		.pause_ms = (uint8_t)pause_ms,
	};
}

uint32_t
chp_peer_crc(const void *data, uint32_t len)
{
	const uint32_t at = offsetof(struct chp_peer_header, crc32c);
	const uint32_t after = at + (uint32_t)sizeof(uint32_t);

	return chp_crc32c((const uint8_t *)data + after, len - after, chp_crc32c(data, at, 0));
}

void
chp_peer_seal(void *data, uint32_t len)
{
	struct chp_peer_header *h = data;

	CHP_ASSERT_OP(len, >=, sizeof(*h));
	h->crc32c = chp_peer_crc(data, len);
}
