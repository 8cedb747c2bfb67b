/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * store.h - a datastore as simple as can be: what it held at one moment is a table, and applying something to a table
 * is one of three functions. A store is two tables: what survives everything, and what it shows.
 */
#ifndef CHP_TESTS_SIM_STORE_H
#define CHP_TESTS_SIM_STORE_H

#include "base/bytes.h"
#include "base/limits.h"
#include "datastore/request.h"

#include <stdbool.h>
#include <stdint.h>

/* Keys of all clients, and what a scenario may use. */
#define SIM_STORED_MAX 40u

/* A version of a key, as a store keeps it. */
struct sim_stored {
	uint64_t life, version;
	uint32_t key_len, value_len;
	uint8_t flags; /* CHP_SLOT_RMW, CHP_SLOT_TOMBSTONE */
	uint8_t key[CHP_KEY_BYTES_MAX];
	uint8_t value[CHP_VALUE_BYTES_MAX];
};

/* What a store holds of a shard at one moment. */
struct sim_table {
	uint64_t life, batch, epoch, newest; /* the shard's record */
	uint32_t n;
	struct sim_stored item[SIM_STORED_MAX];
};

struct sim_store {
	struct sim_table durable; /* survives the store, its process and its machine */
	struct sim_table visible; /* that, and what has been applied since */
};

/** An item of a request, copied. */
void sim_stored_of(struct sim_stored *to, const struct chp_store_item *item);

/** What a table has of a key; NULL: nothing. */
const struct sim_stored *sim_table_find(const struct sim_table *t, const uint8_t *key, uint32_t len);

/** [SAFETY 29] A version of a key: kept where it is newer, by life and then by version. */
void sim_table_put(struct sim_table *t, const struct sim_stored *s);

/** The batch with this number is in. Batches that were sent again may be in already. */
void sim_table_batch(struct sim_table *t, uint64_t life, uint64_t batch);

/** A life begins. */
void sim_table_begin(struct sim_table *t, uint64_t life);

/** The shard has recorded an epoch. */
void sim_table_record(struct sim_table *t, uint64_t epoch);

/** Look a key up, as a request asks for it. */
void sim_table_read(const struct sim_table *t, struct chp_store_read *r);

/** A part of a scan. The cursor is the number of the next item: items of a table stay where they are. */
void sim_table_scan(const struct sim_table *t, struct chp_store_scan *scan);

/** Keys held; of those, deleted ones. */
uint32_t sim_table_tombstones(const struct sim_table *t);

/** What is told of a store when it is opened, and behind each batch. */
struct chp_store_record sim_table_summary(const struct sim_table *t);

#endif /* CHP_TESTS_SIM_STORE_H */
