/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/client.h"

static const char *const status_name[CHP_STATUS_COUNT] = {
	[CHP_STATUS_OK] = "ok",
	[CHP_STATUS_NOT_FOUND] = "not_found",
	[CHP_STATUS_EXISTS] = "exists",
	[CHP_STATUS_COMPARE_FAILED] = "compare_failed",
	[CHP_STATUS_NOT_NUMBER] = "not_number",
	[CHP_STATUS_TOO_LARGE] = "too_large",
	[CHP_STATUS_BAD_KEY] = "bad_key",
	[CHP_STATUS_BAD_REQUEST] = "bad_request",
	[CHP_STATUS_UNKNOWN_OP] = "unknown_op",
	[CHP_STATUS_WRONG_SHARD] = "wrong_shard",
	[CHP_STATUS_BUSY] = "busy",
	[CHP_STATUS_OVERLOAD] = "overload",
	[CHP_STATUS_FULL] = "full",
	[CHP_STATUS_SESSION_UNKNOWN] = "session_unknown",
	[CHP_STATUS_SESSION_WINDOW] = "session_window",
	[CHP_STATUS_SESSIONS_FULL] = "sessions_full",
	[CHP_STATUS_UNKNOWN_OUTCOME] = "unknown_outcome",
	[CHP_STATUS_REDIRECT] = "redirect",
	[CHP_STATUS_NOT_SERVING] = "not_serving",
};

const char *
chp_status_name(uint32_t status)
{
	return status < CHP_STATUS_COUNT ? status_name[status] : "status_?";
}

static const char *const opcode_name[] = {
	[CHP_OPCODE_GET] = "get",
	[CHP_OPCODE_PUT] = "put",
	[CHP_OPCODE_DELETE] = "delete",
	[CHP_OPCODE_CAS] = "cas",
	[CHP_OPCODE_ADD] = "add",
	[CHP_OPCODE_REPLACE] = "replace",
	[CHP_OPCODE_APPEND] = "append",
	[CHP_OPCODE_PREPEND] = "prepend",
	[CHP_OPCODE_INCR] = "incr",
	[CHP_OPCODE_DECR] = "decr",
	[CHP_OPCODE_SESSION_OPEN] = "session_open",
	[CHP_OPCODE_SESSION_CLOSE] = "session_close",
	[CHP_OPCODE_PING] = "ping",
	[CHP_OPCODE_QUORUM] = "quorum",
	[CHP_OPCODE_INFO] = "info",
	[CHP_OPCODE_STATUS] = "status",
};

const char *
chp_opcode_name(uint32_t opcode)
{
	return opcode < CHP_ARRAY_LEN(opcode_name) ? opcode_name[opcode] : NULL;
}

const char *
chp_quorum_name(uint64_t rule)
{
	if (rule == CHP_QUORUM_MAJORITY)
		return "majority";
	return rule == CHP_QUORUM_ALL ? "all" : NULL;
}

/* What a request of each operation must and may have. */
enum shape {
	SHAPE_KEY = 1,
	SHAPE_VALUE = 2,
};

static const uint8_t opcode_shape[] = {
	[CHP_OPCODE_GET] = SHAPE_KEY,
	[CHP_OPCODE_PUT] = SHAPE_KEY | SHAPE_VALUE,
	[CHP_OPCODE_DELETE] = SHAPE_KEY,
	[CHP_OPCODE_CAS] = SHAPE_KEY | SHAPE_VALUE,
	[CHP_OPCODE_ADD] = SHAPE_KEY | SHAPE_VALUE,
	[CHP_OPCODE_REPLACE] = SHAPE_KEY | SHAPE_VALUE,
	[CHP_OPCODE_APPEND] = SHAPE_KEY | SHAPE_VALUE,
	[CHP_OPCODE_PREPEND] = SHAPE_KEY | SHAPE_VALUE,
	[CHP_OPCODE_INCR] = SHAPE_KEY,
	[CHP_OPCODE_DECR] = SHAPE_KEY,
	[CHP_OPCODE_STATUS] = 0,
};

static enum chp_packet_error
header_check(const void *data, uint32_t len, uint32_t header_len, uint32_t hash, uint8_t kind_wanted)
{
	const struct chp_prelude *p = data;
	uint8_t kind = 0;
	enum chp_packet_error e = chp_packet_kind_of(data, len, &kind);

	if (e != CHP_PACKET_OK)
		return e;
	if (kind != kind_wanted)
		return CHP_PACKET_KIND;
	if (len < header_len)
		return CHP_PACKET_SHORT;
	if (len > CHP_PAYLOAD_BYTES_MAX)
		return CHP_PACKET_LONG;
	if (p->cluster_hash != hash && hash != 0 && p->cluster_hash != 0)
		return CHP_PACKET_CLUSTER;
	return CHP_PACKET_OK;
}

enum chp_packet_error
chp_request_header_check(const void *data, uint32_t len, uint32_t hash)
{
	const struct chp_request_header *h = data;
	enum chp_packet_error e = header_check(data, len, sizeof(*h), hash, CHP_PACKET_REQUEST);

	if (e == CHP_PACKET_OK && h->tag_len != 0)
		return CHP_PACKET_AUTH;
	return e;
}

enum chp_packet_error
chp_reply_header_check(const void *data, uint32_t len, uint32_t hash)
{
	const struct chp_reply_header *h = data;
	enum chp_packet_error e = header_check(data, len, sizeof(*h), hash, CHP_PACKET_REPLY);

	if (e == CHP_PACKET_OK && h->tag_len != 0)
		return CHP_PACKET_AUTH;
	return e;
}

const struct chp_request *
chp_request_next(const void *data, uint32_t len, uint32_t *offset)
{
	const struct chp_request *r = (const void *)((const uint8_t *)data + *offset);
	uint32_t left = len - *offset;

	if (left < sizeof(*r) || r->len < sizeof(*r) || r->len > left ||
	    r->len % CHP_MESSAGE_ALIGN != 0)
		return NULL;
	*offset += r->len;
	return r;
}

enum chp_status
chp_request_check(const struct chp_request *r, uint32_t key_max, uint32_t value_max)
{
	uint8_t shape;

	if (chp_opcode_name(r->opcode) == NULL)
		return CHP_STATUS_UNKNOWN_OP;
	if (r->opcode == CHP_OPCODE_INFO || r->opcode == CHP_OPCODE_STATUS ||
	    (r->opcode >= CHP_OPCODE_SESSION_OPEN && r->opcode <= CHP_OPCODE_QUORUM))
		shape = 0;
	else
		shape = opcode_shape[r->opcode];
	if ((shape & SHAPE_KEY) != 0 && (r->key_len == 0 || r->key_len > key_max))
		return CHP_STATUS_BAD_KEY;
	if (r->value_total > value_max)
		return CHP_STATUS_TOO_LARGE;
	if (((shape & SHAPE_KEY) == 0 && r->key_len != 0) ||
	    ((shape & SHAPE_VALUE) == 0 && r->value_total != 0) || r->value_offset != 0 ||
	    r->len != chp_request_bytes(r->key_len, r->value_total))
		return CHP_STATUS_BAD_REQUEST;
	if (((r->flags & CHP_REQUEST_RELAXED) != 0 && r->opcode != CHP_OPCODE_GET) ||
	    (r->opcode == CHP_OPCODE_QUORUM && r->arg > CHP_QUORUM_ASK))
		return CHP_STATUS_BAD_REQUEST;
	return CHP_STATUS_OK;
}

const struct chp_reply_message *
chp_reply_next(const void *data, uint32_t len, uint32_t *offset)
{
	const struct chp_reply_message *r = (const void *)((const uint8_t *)data + *offset);
	uint32_t left = len - *offset;

	if (left < sizeof(*r) || r->len < sizeof(*r) || r->len > left ||
	    r->len % CHP_MESSAGE_ALIGN != 0 || r->value_offset != 0 || r->value_total > r->len ||
	    r->len != chp_reply_bytes(r->value_total))
		return NULL;
	*offset += r->len;
	return r;
}
