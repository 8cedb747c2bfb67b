/* SPDX-License-Identifier: BSD-3-Clause */
#include "store.h"

#include "base/assert.h"
#include "cache/cache.h"
#include <string.h>

static uint32_t
index_of(const struct sim_table *t, const uint8_t *key, uint32_t len)
{
	uint32_t i = 0;

	while (i < t->n && (t->item[i].key_len != len || memcmp(t->item[i].key, key, len) != 0))
		i++;
	return i;
}

void
sim_stored_of(struct sim_stored *to, const struct chp_store_item *item)
{
	CHP_ASSERT_OP(item->value_len, <=, sizeof(to->value));
	*to = (struct sim_stored){ .life = item->life,
				   .version = item->version,
				   .key_len = item->key_len,
				   .value_len = item->value_len,
				   .flags = item->flags };
	memcpy(to->key, item->key, item->key_len);
	if (item->value_len > 0)
		memcpy(to->value, item->value, item->value_len);
}

const struct sim_stored *
sim_table_find(const struct sim_table *t, const uint8_t *key, uint32_t len)
{
	const uint32_t i = index_of(t, key, len);

	return i < t->n ? &t->item[i] : NULL;
}

void
sim_table_put(struct sim_table *t, const struct sim_stored *s)
{
	const uint32_t i = index_of(t, s->key, s->key_len);

	CHP_ASSERT_OP(i, <, SIM_STORED_MAX);
	if (i < t->n && (t->item[i].life > s->life || (t->item[i].life == s->life && t->item[i].version >= s->version)))
		return;
	t->item[i] = *s;
	t->n += i == t->n;
	t->newest = chp_max_u64(t->newest, chp_version_counter(s->version));
}

void
sim_table_batch(struct sim_table *t, uint64_t life, uint64_t batch)
{
	if (life == t->life)
		t->batch = chp_max_u64(t->batch, batch);
}

void
sim_table_begin(struct sim_table *t, uint64_t life)
{
	if (life <= t->life)
		return;
	t->life = life;
	t->batch = 0;
}

void
sim_table_record(struct sim_table *t, uint64_t epoch)
{
	t->epoch = chp_max_u64(t->epoch, epoch);
}

void
sim_table_read(const struct sim_table *t, struct chp_store_read *r)
{
	const struct sim_stored *s = sim_table_find(t, r->key, r->key_len);

	if (s == NULL) {
		r->found = CHP_STORE_ABSENT;
		return;
	}
	r->found = (s->flags & CHP_HOST_TOMBSTONE) != 0 ? CHP_STORE_TOMBSTONE : CHP_STORE_FOUND;
	r->version = s->version;
	r->life = s->life;
	r->flags = s->flags;
	r->value_len = s->value_len;
	memcpy(r->value, s->value, s->value_len);
}

void
sim_table_scan(const struct sim_table *t, struct chp_store_scan *scan)
{
	uint32_t at = 0;

	if (scan->cursor.len != 0)
		memcpy(&at, scan->cursor.bytes, sizeof(at));
	for (; at < t->n; at++) {
		const struct sim_stored *s = &t->item[at];
		const struct chp_store_item item = { .key = s->key,
						     .value = s->value,
						     .version = s->version,
						     .life = s->life,
						     .value_len = s->value_len,
						     .key_len = (uint8_t)s->key_len,
						     .flags = s->flags };

		if (!chp_store_scan_add(scan, &item))
			break;
	}
	scan->end = at >= t->n;
	memcpy(scan->cursor.bytes, &at, sizeof(at));
	scan->cursor.len = sizeof(at);
}

uint32_t
sim_table_tombstones(const struct sim_table *t)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < t->n; i++)
		n += (t->item[i].flags & CHP_HOST_TOMBSTONE) != 0;
	return n;
}

struct chp_store_record
sim_table_summary(const struct sim_table *t)
{
	return (struct chp_store_record){ .life = t->life,
					  .batch = t->batch,
					  .newest = t->newest,
					  .epoch = t->epoch,
					  .items = t->n,
					  .tombstones = sim_table_tombstones(t) };
}
