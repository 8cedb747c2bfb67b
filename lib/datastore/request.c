/* SPDX-License-Identifier: BSD-3-Clause */
#include "datastore/request.h"

#include <string.h>

bool
chp_store_scan_add(struct chp_store_scan *s, const struct chp_store_item *item)
{
	const uint32_t bytes = chp_host_item_bytes(item->key_len, item->value_len);
	uint8_t *to = s->room + s->room_used;

	if (s->only_old ? item->life >= s->life : item->life != s->life)
		return true;
	if (s->n == s->n_max || (s->n > 0 && s->bytes + bytes > s->bytes_max) ||
	    s->room_bytes - s->room_used < item->key_len + item->value_len)
		return false;
	s->item[s->n] = *item;
	s->item[s->n].key = to;
	memcpy(to, item->key, item->key_len);
	to += item->key_len;
	s->item[s->n].value = to;
	if (item->value_len > 0)
		memcpy(to, item->value, item->value_len);
	s->room_used += item->key_len + item->value_len;
	s->bytes += bytes;
	s->n++;
	return true;
}

void
chp_store_scan_reset(struct chp_store_scan *s)
{
	s->n = s->bytes = s->room_used = 0;
	s->end = s->failed = false;
}
