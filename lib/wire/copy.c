/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/copy.h"

#include "wire/client.h"

#include <string.h>

static bool
check_request(const struct chp_message *m)
{
	const struct chp_copy_request *r = (const void *)m;

	return m->len == sizeof(*r) && r->bytes >= 1 && r->bytes <= CHP_COPY_BYTES_MAX;
}

/* A session's number: 8 bytes, not 0. */
static bool
check_session_key(const struct chp_copy_item *item)
{
	static const uint8_t none[sizeof(uint64_t)];

	return item->key_len == sizeof(none) && memcmp(chp_copy_item_key(item), none, sizeof(none)) != 0;
}

static bool
is_version(uint64_t version)
{
	return version != 0 && version >> 16 <= CHP_COPY_COUNTER_MAX;
}

static bool
check_item(const struct chp_message *m, uint32_t value_max)
{
	const struct chp_copy_item *item = (const void *)m;

	if (m->len < sizeof(*item))
		return false;
	if (item->key_len == 0 || item->key_len > CHP_KEY_BYTES_MAX || item->value_total > value_max)
		return false;
	if (m->len != chp_copy_item_bytes(item->key_len, item->value_total))
		return false;
	if ((item->item_flags & CHP_COPY_UNDER_WAY) != 0)
		return item->item_flags == CHP_COPY_UNDER_WAY && item->value_total == 0 && is_version(item->version);
	if ((item->item_flags & ~(CHP_COPY_VERSION_FLAGS | CHP_COPY_BASE_ABSENT)) != 0)
		return false;
	if (!is_version(item->version))
		return false;
	if ((item->item_flags & CHP_COPY_TOMBSTONE) != 0 && item->value_total != 0)
		return false;
	if ((item->item_flags & (CHP_COPY_TOMBSTONE | CHP_COPY_FORGET)) == CHP_COPY_FORGET)
		return false;
	return (item->item_flags & CHP_COPY_SESSION) == 0 || check_session_key(item);
}

static bool
check_record(const struct chp_message *m)
{
	const struct chp_copy_record *r = (const void *)m;
	uint32_t ends;

	if (m->len != sizeof(*r) || r->session == 0)
		return false;
	if ((r->record_flags & CHP_COPY_RECORD_DECIDED) != 0)
		return (r->record_flags & 0xffu) == CHP_COPY_RECORD_DECIDED &&
		       r->record_flags >> CHP_COPY_RECORD_STATUS_SHIFT < CHP_STATUS_COUNT;
	if ((r->record_flags & ~CHP_COPY_RECORD_FLAGS_ALL) != 0)
		return false;
	ends = r->record_flags & (CHP_COPY_RECORD_COMMITTED | CHP_COPY_RECORD_UNKNOWN);
	if (ends == (CHP_COPY_RECORD_COMMITTED | CHP_COPY_RECORD_UNKNOWN))
		return false;
	if ((r->record_flags & CHP_COPY_RECORD_RMW) != 0 && ends == 0)
		return false;
	return r->version != 0 || ends == CHP_COPY_RECORD_UNKNOWN;
}

static bool
check_end(const struct chp_message *m)
{
	const struct chp_copy_end *e = (const void *)m;

	if (m->len != sizeof(*e) || (e->end_flags & ~CHP_COPY_END_FLAGS_ALL) != 0 || e->next > e->total)
		return false;
	return ((e->end_flags & CHP_COPY_DONE) != 0) == (e->next == e->total);
}

bool
chp_copy_check(const struct chp_message *m, uint32_t value_max)
{
	switch (m->type) {
	case CHP_COPY_REQUEST:
		return check_request(m);
	case CHP_COPY_ITEM:
		return check_item(m, value_max);
	case CHP_COPY_RECORD:
		return check_record(m);
	case CHP_COPY_END:
		return check_end(m);
	default:
		return false;
	}
}
