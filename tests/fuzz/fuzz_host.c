/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Packets of the channel between a replica and its host, in both directions: first the bytes as they are, then with
 * prelude and checksum set right. What is accepted is walked to its last byte.
 */
#include "base/assert.h"
#include "wire/host.h"

#include <string.h>

#define HASH 0x1234abcdu
#define NODE 0u
#define SHARDS 4u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint32_t sink;

static void
touch(const uint8_t *from, uint32_t len)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < len; i++)
		sum += from[i];
	sink = sum;
}

/* Key and value of a message that was accepted lie inside it. */
static void
walk_message(const struct chp_message *m)
{
	const uint8_t *end = (const uint8_t *)m + m->len;
	const struct chp_host_item *item = (const void *)m;
	const struct chp_host_load *load = (const void *)m;
	const struct chp_host_loaded *loaded = (const void *)m;

	touch((const uint8_t *)m, m->len);
	switch (m->type) {
	case CHP_HOST_PUT:
	case CHP_HOST_ITEM:
		CHP_ASSERT(chp_host_item_value(item) == chp_host_item_key(item) + item->key_len);
		CHP_ASSERT(chp_host_item_value(item) + item->value_len <= end);
		break;
	case CHP_HOST_LOAD:
		CHP_ASSERT(chp_host_load_key(load) + load->key_len <= end);
		break;
	case CHP_HOST_LOADED:
		CHP_ASSERT(chp_host_loaded_value(loaded) + loaded->value_len <= end);
		break;
	case CHP_HOST_STATE:
		CHP_ASSERT(memchr(((const struct chp_host_state *)(const void *)m)->text, 0, CHP_HOST_TEXT_BYTES));
		break;
	default:
		break;
	}
}

static void
walk(const uint8_t *data, uint32_t len)
{
	uint32_t offset = sizeof(struct chp_peer_header);

	while (offset < len) {
		const struct chp_message *m = (const void *)(data + offset);
		const bool up = chp_host_message_check(m, true, CHP_KEY_BYTES_MAX, CHP_VALUE_BYTES_MAX);
		const bool down = chp_host_message_check(m, false, CHP_KEY_BYTES_MAX, CHP_VALUE_BYTES_MAX);

		CHP_ASSERT(!(up && down));
		if (up || down)
			walk_message(m);
		offset += m->len;
	}
	CHP_ASSERT_OP(offset, ==, len);
}

static void
check_all(const uint8_t *data, uint32_t len)
{
	const struct chp_host_hello *h = (const void *)data;

	if (chp_host_check(data, len, HASH, NODE, SHARDS) == CHP_PACKET_OK)
		walk(data, len);
	if (chp_host_hello_check(data, len, HASH) != CHP_PACKET_OK)
		return;
	CHP_ASSERT(chp_host_hello_check(data, len, 0) == CHP_PACKET_OK);
	touch(data, len);
	if (h->type != CHP_HOST_HELLO) {
		CHP_ASSERT_OP(h->refusal, <, CHP_HOST_REFUSALS);
		touch((const uint8_t *)h->text, (uint32_t)strlen(h->text));
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t copy[CHP_PAYLOAD_BYTES_MAX + 64];
	struct chp_peer_header *h = (void *)copy;
	uint32_t len = (uint32_t)(size < sizeof(copy) ? size : sizeof(copy));

	check_all(data, len);
	if (len < sizeof(*h))
		return 0;
	memcpy(copy, data, len);
	h->prelude = (struct chp_prelude){
		.magic = CHP_WIRE_MAGIC,
		.version = CHP_WIRE_VERSION,
		.kind = data[0] % 2 == 0 ? CHP_PACKET_HOST : CHP_PACKET_HOST_HELLO,
		.cluster_hash = HASH,
	};
	chp_peer_seal(copy, len);
	check_all(copy, len);
	return 0;
}
