/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * request.h - what a shard's end on the host (dsi/dsi.h) asks a datastore for, and what it gets: plain data.
 *
 * Requests are memory of the one who asks. They are handed to a driver, the engine (datastore/engine.h) with its
 * threads or a simulator, as pointers; the driver writes the results into them and hands the same pointers back. In
 * between the memory is the driver's: nobody else looks at it. `driver` and `next` are the driver's own.
 *
 * Order. BEGIN, WRITE and RECORD of a shard are executed and completed in the order in which they were handed over.
 * READs and SCANs may overtake them and each other. A READ finds what every WRITE that was completed before the READ
 * was handed over has stored; of one that is open, it finds all of it, nothing, or anything between.
 *
 * Success. BEGIN, WRITE and RECORD complete when they are durable, as far as this store can promise that, and in no
 * other way: a store that fails is tried again until it does not. READs and SCANs complete in bounded time, failed if
 * need be.
 */
#ifndef CHP_DATASTORE_REQUEST_H
#define CHP_DATASTORE_REQUEST_H

#include "wire/host.h"

#include <stdbool.h>
#include <stdint.h>

/* What a store keeps of a shard beside its items, changed atomically with each batch. */
struct chp_store_record {
	uint64_t life;   /* the last that began; 0 = none ever */
	uint64_t batch;  /* the last durable seq of that life; 0 = none yet */
	uint64_t newest; /* counter of the newest version ever held: version >> 16 */
	uint64_t epoch;  /* the last RECORDed; 0 = never */
	uint64_t items;  /* held, tombstones included. Exact, but for stores that forget of their own accord */
	uint64_t tombstones;
};

/* A version of a key. Pointers are borrowed, as each user says. */
struct chp_store_item {
	const uint8_t *key;
	const uint8_t *value; /* of a tombstone: NULL */
	uint64_t version;     /* 48-bit counter | 16-bit writer */
	uint64_t life;        /* in which it was stored; of a WRITE: that of the request */
	uint32_t value_len;
	uint8_t key_len;      /* 1..250 */
	uint8_t flags;        /* CHP_HOST_RMW, CHP_HOST_TOMBSTONE */
};

/** [SAFETY 29] Whether a version is applied over what is stored: the order is by life, then version. */
static inline bool
chp_store_is_newer(uint64_t life, uint64_t version, uint64_t stored_life, uint64_t stored_version)
{
	return life != stored_life ? life > stored_life : version > stored_version;
}

/* What a READ found; the numbers are those of a LOADED (enum chp_load_status). */
enum chp_store_found {
	CHP_STORE_FOUND = 0,
	CHP_STORE_TOMBSTONE = 1, /* deleted, at `version` */
	CHP_STORE_ABSENT = 2,
	CHP_STORE_FAILED = 3,    /* it cannot be read now: nothing is known */
};

/* One key of a READ. */
struct chp_store_read {
	const uint8_t *key; /* the asker's, valid until the request is completed */
	uint8_t *value;     /* the asker's room for a value: value_bytes_max of the identity */
	uint64_t version;   /* results from here on */
	uint64_t life;
	uint32_t value_len;
	uint8_t found;      /* enum chp_store_found */
	uint8_t flags;      /* CHP_HOST_RMW, CHP_HOST_TOMBSTONE */
	uint8_t key_len;    /* of the question */
};

/* Where an adapter's scan stands; only the adapter knows how. The longest key fits. */
#define CHP_STORE_CURSOR_BYTES 272u

struct chp_store_cursor {
	uint32_t len; /* 0: from the beginning */
	uint8_t bytes[CHP_STORE_CURSOR_BYTES];
};

/*
 * A part of a SCAN. The adapter adds items with chp_store_scan_add until one has no room any more or there are none,
 * and moves the cursor behind the last one that was taken.
 */
struct chp_store_scan {
	struct chp_store_cursor cursor; /* in: where to go on; out: behind the last item taken */
	uint64_t life;                  /* the shard's present one */
	bool only_old;                  /* items of lives below it only; otherwise of this life only */
	bool end;                       /* result: there is nothing behind these */
	bool failed;                    /* result: it cannot go on; the cursor is worth nothing */
	uint32_t id;                    /* names the scan within its shard: one part at a time is open */
	uint32_t bytes_max;             /* of chp_host_item_bytes, if there is more than one item */
	uint32_t bytes;                 /* so far */
	struct chp_store_item *item;    /* n_max; keys and values lie in `room` */
	uint32_t n, n_max;
	uint8_t *room;                  /* room_bytes: at least bytes_max, and the largest item */
	uint32_t room_bytes, room_used;
};

/**
 * Add an item to a part of a scan; key and value are copied. Items that are not asked for (only_old) are skipped as if
 * they were taken; whose shard they are is the adapter's business.
 *
 * @return  false when there is no room: the item comes again with the next part
 */
bool chp_store_scan_add(struct chp_store_scan *s, const struct chp_store_item *item);

/** Forget what was added to a part, to try it again from the cursor. */
void chp_store_scan_reset(struct chp_store_scan *s);

enum chp_store_request_type {
	CHP_STORE_BEGIN = 1,  /* life: a life begins: record is { life, batch 0, newest, epoch } */
	CHP_STORE_WRITE = 2,  /* items: apply what is newer, all or nothing; record.batch = seq */
	CHP_STORE_RECORD = 3, /* epoch: record.epoch = epoch */
	CHP_STORE_READ = 4,
	CHP_STORE_SCAN = 5,
};

struct chp_store_request {
	uint8_t type;       /* enum chp_store_request_type */
	uint16_t shard;
	uint32_t tag;       /* the asker's own */
	uint64_t life;      /* BEGIN: the new one; WRITE, RECORD: that of the shard */
	uint64_t seq;       /* WRITE: of the last batch in it. Rises within a life */
	uint64_t epoch;     /* RECORD */
	const struct chp_store_item *item; /* WRITE: n_items, in the order of their sending. One key may occur again */
	uint32_t n_items;
	uint32_t n_reads;
	struct chp_store_read *read;     /* READ */
	struct chp_store_scan *scan;     /* SCAN */
	struct chp_store_record record;  /* result of BEGIN, WRITE, RECORD: what the store has now */
	struct chp_store_request *next;  /* the driver's */
	void *driver;
};

/* How a store is: given to a shard's end at its creation and whenever it changes. */
struct chp_store_info {
	uint32_t state;    /* enum chp_store_state */
	uint32_t refusal;  /* enum chp_host_refusal: not CHP_HOST_OK before it was opened: text says why */
	uint32_t flags;    /* enum chp_store_flag */
	uint64_t errors;   /* so far */
	char name[CHP_HOST_TEXT_BYTES]; /* the adapter and what it promises, for people */
	char text[CHP_HOST_TEXT_BYTES]; /* why it is not OK; "" when it is */
};

#endif /* CHP_DATASTORE_REQUEST_H */
