/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * batch.h - what adapters have in common that compare versions themselves: which items of a batch count, and what a
 * batch makes of the shard's record.
 *
 * No state is shared; a pick belongs to a handle.
 */
#ifndef CHP_DATASTORE_BATCH_H
#define CHP_DATASTORE_BATCH_H

#include "datastore/datastore.h"

/* The items of a batch that can count: of each key the newest. Zeroed before its first use. */
struct chp_store_pick {
	uint32_t *item;  /* n indices into the batch's items, in their order */
	uint32_t n;
	uint32_t room;   /* of item[] */
	uint32_t *table; /* open addressing by key: index into item[] + 1 */
	uint32_t table_room;
};

/** Pick what counts. Returns 0, or -1 where memory is short. */
int chp_store_pick(struct chp_store_pick *p, const struct chp_store_batch *b, struct chp_store_error *e);
void chp_store_pick_free(struct chp_store_pick *p);

static inline const struct chp_store_item *
chp_store_picked(const struct chp_store_pick *p, const struct chp_store_batch *b, uint32_t i)
{
	return &b->item[p->item[i]];
}

/**
 * Compare the shard's record in the store with what the batch expects (datastore.h, struct chp_store_batch), and let
 * the counts of `after` go on from it. Returns 0, or -1 with CHP_STORE_ERROR_LOST.
 */
int chp_store_batch_begin(struct chp_store_batch *b, const struct chp_store_record *stored, struct chp_store_error *e);

/**
 * Whether an item is newer than what the store has of its key (NULL: nothing). If it is, it is counted in the batch
 * and in the record that the batch leaves.
 */
bool chp_store_batch_apply(struct chp_store_batch *b, const struct chp_store_item *item,
			   const struct chp_store_meta *stored);

/** The version, life and flags of an item. */
static inline struct chp_store_meta
chp_store_meta_of(const struct chp_store_item *item)
{
	return (struct chp_store_meta){ .version = item->version, .life = item->life, .flags = item->flags };
}

/*
 * The same as text, for stores that are read by people: 16 digits of life, 16 of version, both hexadecimal and so in
 * the order of chp_store_is_newer, then v or t (tombstone), then r (RMW) or -.
 */
#define CHP_STORE_META_TEXT_LEN 34u
void chp_store_meta_text(const struct chp_store_item *item, char to[CHP_STORE_META_TEXT_LEN + 1]);
/** Returns false for anything but what chp_store_meta_text wrote. */
bool chp_store_meta_parse(const char *text, size_t len, struct chp_store_meta *m);

/** Make room for n elements of `size` bytes in an array that only grows; contents stay. False: no memory. */
bool chp_store_grow(void **array, uint32_t *room, uint32_t n, size_t size);

#endif /* CHP_DATASTORE_BATCH_H */
