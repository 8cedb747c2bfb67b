/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Client datagrams, both directions: the request path as a replica takes it, through the native
 * frontend, with every operation answered; and replies as the client library reads them.
 */
#include "base/assert.h"
#include "frontends/native.h"

#include <string.h>

#define HASH 0x1234abcdu
#define SHARDS 4u
#define OPS_MAX 8u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint32_t sink;
static uint8_t replies[OPS_MAX][CHP_PAYLOAD_BYTES_MIN];

static void
read_replies(const uint8_t *data, uint32_t len, uint32_t hash)
{
	uint32_t offset = sizeof(struct chp_reply_header), sum = 0;
	const struct chp_reply_message *r;

	if (chp_reply_header_check(data, len, hash) != CHP_PACKET_OK)
		return;
	while ((r = chp_reply_next(data, len, &offset)) != NULL) {
		for (uint32_t i = 0; i < r->value_total; i++)
			sum += chp_reply_value(r)[i];
		CHP_ASSERT(chp_status_name(r->status) != NULL);
	}
	CHP_ASSERT_OP(offset, <=, len);
	sink = sum;
}

/* Answer an operation with the value it brought, and look at all of it. */
static void
answer(struct chp_native *f, const struct chp_op *op)
{
	struct chp_reply r = {
		.origin = &op->origin,
		.session = op->session,
		.request = op->request,
		.value_len = op->value_len,
		.opcode = op->opcode,
		.is_relaxed = op->is_relaxed,
	};
	uint8_t *to;

	CHP_ASSERT_OP(op->key.len, <=, CHP_KEY_BYTES_MAX);
	CHP_ASSERT_OP(op->value_len, <=, f->value_bytes_max);
	CHP_ASSERT(!op->is_relaxed || op->opcode == CHP_OPCODE_GET);
	CHP_ASSERT(op->opcode != CHP_OPCODE_QUORUM || (op->arg <= CHP_QUORUM_ASK && op->session == 0));
	for (uint32_t i = 0; i < op->key.len; i++)
		sink += op->key.bytes[i];
	to = chp_native_reply(f, &r);
	if (op->value_len > 0)
		memcpy(to, op->value, op->value_len);
}

static void
take_requests(const uint8_t *data, uint32_t len)
{
	static const uint8_t address[20] = { 10, 99, 0, 1 };
	struct chp_native_datagram datagram[OPS_MAX];
	struct chp_op op[OPS_MAX];
	struct chp_native f = {
		.datagram = datagram,
		.n_datagrams = OPS_MAX,
		.cluster_hash = HASH,
		.shard = 3,
		.shards = SHARDS,
		.hash_seed = 7,
		.key_bytes_max = CHP_KEY_BYTES_MAX,
		.value_bytes_max = CHP_VALUE_BYTES_MAX,
		.epoch = 1,
	};
	uint32_t offset = 0, before;

	for (uint32_t i = 0; i < OPS_MAX; i++)
		datagram[i] = (struct chp_native_datagram){ .data = replies[i],
							    .cap = sizeof(replies[i]) };
	do {
		before = offset;
		f.n_used = 0;
		uint32_t n = chp_native_parse(&f, data, len, &offset, address, op, OPS_MAX);

		CHP_ASSERT_OP(n, <=, OPS_MAX);
		for (uint32_t i = 0; i < n; i++)
			answer(&f, &op[i]);
		for (uint32_t i = 0; i < f.n_used; i++)
			read_replies(datagram[i].data, datagram[i].len, HASH);
		(void)chp_native_revoke_reads(&f);
		for (uint32_t i = 0; i < f.n_used; i++)
			read_replies(datagram[i].data, datagram[i].len, HASH);
	} while (offset < len && offset > before);
	CHP_ASSERT_OP(offset, ==, len);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t len = (uint32_t)size;

	if (size > CHP_PAYLOAD_BYTES_MAX + 64)
		return 0;
	if (chp_request_header_check(data, len, HASH) == CHP_PACKET_OK)
		take_requests(data, len);
	read_replies(data, len, HASH);
	read_replies(data, len, 0);
	return 0;
}
