/* SPDX-License-Identifier: BSD-3-Clause */
#include "datastore/batch.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

bool
chp_store_grow(void **array, uint32_t *room, uint32_t n, size_t size)
{
	uint32_t want = *room > 0 ? *room : 64;
	void *bigger;

	if (n <= *room)
		return true;
	if (n > UINT32_MAX / 2)
		return false;
	while (want < n)
		want *= 2;
	bigger = realloc(*array, want * size);
	if (bigger == NULL)
		return false;
	*array = bigger;
	*room = want;
	return true;
}

static bool
same_key(const struct chp_store_item *a, const struct chp_store_item *b)
{
	return a->key_len == b->key_len && memcmp(a->key, b->key, a->key_len) == 0;
}

/* Where an item of this key stands in the table, or would. */
static uint32_t
find(const struct chp_store_pick *p, const struct chp_store_batch *b, const struct chp_store_item *item)
{
	uint32_t at = (uint32_t)chp_hash64(item->key, item->key_len, 0) & (p->table_room - 1);

	while (p->table[at] != 0 && !same_key(chp_store_picked(p, b, p->table[at] - 1), item))
		at = (at + 1) & (p->table_room - 1);
	return at;
}

int
chp_store_pick(struct chp_store_pick *p, const struct chp_store_batch *b, struct chp_store_error *e)
{
	/* At most half full, so that looking ends soon. Room is a power of two. */
	if (!chp_store_grow((void **)&p->item, &p->room, b->n_items, sizeof(*p->item)) ||
	    !chp_store_grow((void **)&p->table, &p->table_room, 2 * b->n_items + 1, sizeof(*p->table)))
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "no memory for a batch of %" PRIu32 " items",
				      b->n_items);
	memset(p->table, 0, p->table_room * sizeof(*p->table));
	p->n = 0;
	for (uint32_t i = 0; i < b->n_items; i++) {
		const struct chp_store_item *item = &b->item[i], *have;
		uint32_t at = find(p, b, item);

		if (p->table[at] == 0) {
			p->item[p->n++] = i;
			p->table[at] = p->n;
			continue;
		}
		have = chp_store_picked(p, b, p->table[at] - 1);
		if (chp_store_is_newer(item->life, item->version, have->life, have->version))
			p->item[p->table[at] - 1] = i;
	}
	return 0;
}

void
chp_store_pick_free(struct chp_store_pick *p)
{
	free(p->item);
	free(p->table);
	memset(p, 0, sizeof(*p));
}

int
chp_store_batch_begin(struct chp_store_batch *b, const struct chp_store_record *stored, struct chp_store_error *e)
{
	const struct chp_store_record *before = b->before, *after = b->after;

	if (!(stored->life == before->life && stored->batch == before->batch) &&
	    !(stored->life == after->life && stored->batch == after->batch))
		return chp_store_fail(e, CHP_STORE_ERROR_LOST,
				      "shard %" PRIu32 ": the store is at life %" PRIu64 " batch %" PRIu64
				      ", not at %" PRIu64 " %" PRIu64 " where we left it",
				      b->shard, stored->life, stored->batch, before->life, before->batch);
	b->after->items = stored->items;
	b->after->tombstones = stored->tombstones;
	if (stored->newest > after->newest)
		b->after->newest = stored->newest;
	b->applied = 0;
	return 0;
}

bool
chp_store_batch_apply(struct chp_store_batch *b, const struct chp_store_item *item,
		      const struct chp_store_meta *stored)
{
	bool was = stored != NULL && (stored->flags & CHP_HOST_TOMBSTONE) != 0;
	bool is = (item->flags & CHP_HOST_TOMBSTONE) != 0;

	if (stored != NULL && !chp_store_is_newer(item->life, item->version, stored->life, stored->version))
		return false;
	b->after->items += stored == NULL;
	b->after->tombstones += is;
	/* One that a torn batch left was not counted, where values and record do not change together. */
	b->after->tombstones -= was && b->after->tombstones > 0;
	b->applied++;
	return true;
}

static const char hex_digits[] = "0123456789abcdef";

static void
write_hex(char *to, uint64_t x)
{
	for (int i = 15; i >= 0; i--, x >>= 4)
		to[i] = hex_digits[x & 15];
}

static bool
read_hex(const char *from, uint64_t *x)
{
	*x = 0;
	for (uint32_t i = 0; i < 16; i++) {
		const char *at = from[i] != '\0' ? strchr(hex_digits, from[i]) : NULL;

		if (at == NULL)
			return false;
		*x = *x << 4 | (uint64_t)(at - hex_digits);
	}
	return true;
}

void
chp_store_meta_text(const struct chp_store_item *item, char to[CHP_STORE_META_TEXT_LEN + 1])
{
	write_hex(to, item->life);
	write_hex(to + 16, item->version);
	to[32] = (item->flags & CHP_HOST_TOMBSTONE) != 0 ? 't' : 'v';
	to[33] = (item->flags & CHP_HOST_RMW) != 0 ? 'r' : '-';
	to[34] = '\0';
}

bool
chp_store_meta_parse(const char *text, size_t len, struct chp_store_meta *m)
{
	if (len != CHP_STORE_META_TEXT_LEN || !read_hex(text, &m->life) || !read_hex(text + 16, &m->version) ||
	    (text[32] != 'v' && text[32] != 't') || (text[33] != 'r' && text[33] != '-'))
		return false;
	m->flags = (uint8_t)((text[32] == 't' ? CHP_HOST_TOMBSTONE : 0) | (text[33] == 'r' ? CHP_HOST_RMW : 0));
	return true;
}
