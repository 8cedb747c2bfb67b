/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Peer packets: first the bytes as they are, then with prelude and checksum set right, so that
 * everything behind them is reached. What is accepted is walked to its last byte.
 */
#include "base/assert.h"
#include "wire/hermes.h"
#include "wire/zab.h"

#include <string.h>

#define HASH 0x1234abcdu
#define NODES 3u
#define SHARDS 4u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint32_t sink;

/* Key and value of a message that was accepted lie inside it. */
static void
walk_hermes(const struct chp_message *m)
{
	const struct chp_hermes_inv *inv = (const void *)m;

	if (m->type == CHP_HERMES_INV)
		CHP_ASSERT(chp_hermes_inv_value(inv) + inv->value_total <= (const uint8_t *)m + m->len);
}

static void
walk_zab(const struct chp_message *m)
{
	const uint8_t *end = (const uint8_t *)m + m->len;
	const struct chp_zab_propose *propose = (const void *)m;
	const struct chp_zab_fetch *fetch = (const void *)m;
	const struct chp_zab_fetched *fetched = (const void *)m;

	if (m->type == CHP_ZAB_PROPOSE)
		CHP_ASSERT(chp_zab_propose_value(propose) + propose->value_total <= end);
	else if (m->type == CHP_ZAB_FETCH || m->type == CHP_ZAB_OFFER)
		CHP_ASSERT((const uint8_t *)(fetch + 1) + fetch->key_len <= end);
	else if (m->type == CHP_ZAB_FETCHED)
		CHP_ASSERT((const uint8_t *)(fetched + 1) + fetched->value_total <= end);
}

static void
walk(const uint8_t *data, uint32_t len)
{
	uint32_t offset = sizeof(struct chp_peer_header), sum = 0;

	while (offset < len) {
		const struct chp_message *m = (const void *)(data + offset);
		const bool is_hermes = chp_hermes_check(m, CHP_VALUE_BYTES_MAX);
		const bool is_zab = chp_zab_check(m, CHP_VALUE_BYTES_MAX);

		CHP_ASSERT(!is_hermes || !is_zab);
		for (uint32_t i = 0; (is_hermes || is_zab) && i < m->len; i++)
			sum += data[offset + i];
		if (is_hermes)
			walk_hermes(m);
		if (is_zab)
			walk_zab(m);
		offset += m->len;
	}
	CHP_ASSERT_OP(offset, ==, len);
	sink = sum;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t copy[CHP_PAYLOAD_BYTES_MAX + 64];
	struct chp_peer_header *h = (void *)copy;
	uint32_t len = (uint32_t)(size < sizeof(copy) ? size : sizeof(copy));
	uint8_t kind;

	(void)chp_packet_kind_of(data, len, &kind);
	if (chp_peer_check(data, len, HASH, NODES, SHARDS) == CHP_PACKET_OK)
		walk(data, len);
	if (len < sizeof(*h))
		return 0;
	memcpy(copy, data, len);
	h->prelude = (struct chp_prelude){
		.magic = CHP_WIRE_MAGIC,
		.version = CHP_WIRE_VERSION,
		.kind = CHP_PACKET_PEER,
		.cluster_hash = HASH,
	};
	h->tag_len = 0;
	chp_peer_seal(copy, len);
	if (chp_peer_check(copy, len, HASH, NODES, SHARDS) == CHP_PACKET_OK)
		walk(copy, len);
	return 0;
}
