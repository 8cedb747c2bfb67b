/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/hermes.h"

#include <string.h>

/* A session's number: 8 bytes, not 0. */
static bool
check_session_key(const struct chp_hermes_inv *inv)
{
	static const uint8_t none[sizeof(uint64_t)];

	return inv->key_len == sizeof(none) && memcmp(chp_hermes_inv_key(inv), none, sizeof(none)) != 0;
}

static bool
check_inv(const struct chp_message *m, uint32_t value_max)
{
	const struct chp_hermes_inv *inv = (const void *)m;

	if (m->len < sizeof(*inv))
		return false;
	if (inv->key_len == 0 || inv->key_len > CHP_KEY_BYTES_MAX || inv->value_total > value_max ||
	    inv->value_offset != 0)
		return false;
	if (m->len != chp_hermes_inv_bytes(inv->key_len, inv->value_total))
		return false;
	if ((inv->inv_flags & ~CHP_INV_FLAGS_ALL) != 0 || inv->version == 0 ||
	    inv->version >> 16 > CHP_HERMES_FLOOR_MAX) /* so that what follows it does not wrap */
		return false;
	if ((inv->inv_flags & CHP_INV_TOMBSTONE) != 0 && inv->value_total != 0)
		return false;
	if ((inv->inv_flags & (CHP_INV_TOMBSTONE | CHP_INV_FORGET)) == CHP_INV_FORGET)
		return false;
	if ((inv->inv_flags & CHP_INV_SESSION) != 0 && !check_session_key(inv))
		return false;
	return (inv->inv_flags & CHP_INV_BASE_UNKNOWN) != 0 || inv->base < inv->version;
}

static bool
check_fetch(const struct chp_message *message)
{
	const struct chp_hermes_fetch *m = (const void *)message;

	return m->message.len > sizeof(*m) && m->key_len >= 1 && m->key_len <= CHP_KEY_BYTES_MAX &&
	       m->message.len == chp_align_u32((uint32_t)sizeof(*m) + m->key_len, CHP_MESSAGE_ALIGN);
}

static bool
check_fetched(const struct chp_message *message, uint32_t value_max)
{
	const struct chp_hermes_fetched *m = (const void *)message;
	const bool is_stored = message->len >= sizeof(*m) && m->status <= CHP_HERMES_FETCH_TOMBSTONE;
	bool has_version;

	if (message->len < sizeof(*m) || m->status > CHP_HERMES_FETCH_UNDER_WAY || m->value_total > value_max)
		return false;
	has_version = is_stored || m->status == CHP_HERMES_FETCH_UNDER_WAY;
	if (has_version != (m->version != 0) || m->version >> 16 > CHP_HERMES_FLOOR_MAX)
		return false;
	if ((m->status != CHP_HERMES_FETCH_FOUND && m->value_total != 0) || (!is_stored && m->stored_in != 0))
		return false;
	return message->len == chp_align_u32((uint32_t)sizeof(*m) + m->value_total, CHP_MESSAGE_ALIGN);
}

bool
chp_hermes_check(const struct chp_message *m, uint32_t value_max)
{
	switch (m->type) {
	case CHP_HERMES_INV:
		return check_inv(m, value_max);
	case CHP_HERMES_ACK:
	case CHP_HERMES_STORED:
		return m->len == sizeof(struct chp_hermes_ack);
	case CHP_HERMES_VAL:
		return m->len == sizeof(struct chp_hermes_val);
	case CHP_HERMES_FLOOR:
	case CHP_HERMES_EVICTED:
		return m->len == sizeof(struct chp_hermes_floor) &&
		       ((const struct chp_hermes_floor *)(const void *)m)->counter <= CHP_HERMES_FLOOR_MAX;
	case CHP_HERMES_FETCH:
		return check_fetch(m);
	case CHP_HERMES_FETCHED:
		return check_fetched(m, value_max);
	default:
		return false;
	}
}
