/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Peer packets: first the bytes as they are, then with prelude and checksum set right, so that
 * everything behind them is reached. What is accepted is walked to its last byte.
 */
#include "base/assert.h"
#include "wire/hermes.h"

#include <string.h>

#define HASH 0x1234abcdu
#define NODES 3u
#define SHARDS 4u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint32_t sink;

static void
walk(const uint8_t *data, uint32_t len)
{
	uint32_t offset = sizeof(struct chp_peer_header), sum = 0;

	while (offset < len) {
		const struct chp_message *m = (const void *)(data + offset);

		if (chp_hermes_check(m, CHP_VALUE_BYTES_MAX)) {
			const struct chp_hermes_inv *inv = (const void *)m;

			for (uint32_t i = 0; i < m->len; i++)
				sum += data[offset + i];
			if (m->type == CHP_HERMES_INV) {
				const uint8_t *end = chp_hermes_inv_value(inv) + inv->value_total;

				CHP_ASSERT(end <= data + offset + m->len);
			}
		}
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
