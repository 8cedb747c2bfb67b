/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * datastore.h - the interface of an adapter: any datastore behind the data cache (docs/datastores.md).
 *
 * An adapter is one file lib/datastore/<name>.c with a `const struct chp_adapter`, and one line in registry.c. Its
 * functions block, take batches, and have time-outs: none goes on for much longer than the `timeout_ms` of its
 * configuration when nothing is answered. Threads, queues, retries, back-off and states are the engine's (engine.c).
 *
 * Objects. open() makes the *store*, once, on the main thread; it is shared. attach() makes a *handle* for one thread:
 * a connection, or just the store itself. A handle is used by one thread at a time, one function at a time. Functions
 * on different handles run at the same time: what they share in the store, they lock. After an error a handle stays
 * usable: an adapter connects again by itself in the next call.
 *
 * What must be kept (SAFETY 29):
 *   items    raw value under the raw key, so that other applications read it as usual; version, life and flags beside
 *            it, changed with it atomically. A tombstone has no value for others; its version stays.
 *   records  one for each shard, changed atomically with each batch
 *   identity one: whose store it is
 */
#ifndef CHP_DATASTORE_DATASTORE_H
#define CHP_DATASTORE_DATASTORE_H

#include "base/digest.h"
#include "base/limits.h"
#include "datastore/request.h"

#include <jansson.h>

/* Of what adapters write beside the user's data: identity, records, versions. */
#define CHP_STORE_FORMAT 1u

/* ------------------------------------------------------------------ errors */

enum chp_store_error_kind {
	CHP_STORE_ERROR_NONE = 0,
	CHP_STORE_ERROR_SLOW,    /* passes: time-out, busy, loading. Tried again; SLOW, after a while DOWN */
	CHP_STORE_ERROR_DOWN,    /* does not pass by itself: disk full, wrong credentials. Tried again; DOWN at once */
	CHP_STORE_ERROR_REFUSED, /* not our store: refusal says why. From open() and attach() mostly */
	/*
	 * The store holds less than it had reported durable (SAFETY 29), or other than this process wrote: it was
	 * replaced or restored while we run. Everything starts over from its records, as if this process had been
	 * restarted.
	 */
	CHP_STORE_ERROR_LOST,
};

struct chp_store_error {
	enum chp_store_error_kind kind;
	enum chp_host_refusal refusal; /* of REFUSED */
	char text[CHP_HOST_TEXT_BYTES]; /* one line for people: what is wrong, and what would be right */
};

/** Fill an error. Control characters of the text become '?'. Returns -1. */
int chp_store_fail(struct chp_store_error *e, enum chp_store_error_kind kind, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/** A REFUSED error. Returns -1. */
int chp_store_refuse(struct chp_store_error *e, enum chp_host_refusal refusal, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* ------------------------------------------------------------------ whose a store is */

struct chp_store_identity {
	char cluster[CHP_NAME_BYTES_MAX + 1]; /* name */
	uint32_t cluster_hash;                /* not part of it: changes with harmless settings. For messages */
	uint32_t node;
	uint32_t shards;
	uint64_t hash_seed;                   /* shards and seed say which shard a key belongs to */
	uint32_t key_bytes_max, value_bytes_max; /* not part of it: limits for buffers */
};

/** The shard of a key. */
static inline uint32_t
chp_store_shard(const struct chp_store_identity *id, const void *key, uint32_t key_len)
{
	return chp_shard_of(chp_digest_of(key, key_len, id->hash_seed), id->shards);
}

/* ------------------------------------------------------------------ what adapters keep beside the user's data */

/*
 * The same bytes in every store; each ends with a checksum, so that damage is noticed. Adapters may keep the
 * same facts in another form (fields of a hash, headers of an object) where that is more natural there.
 */

/* Beside an item: version, life, flags. */
struct chp_store_meta {
	uint64_t version;
	uint64_t life;
	uint8_t flags; /* CHP_HOST_RMW, CHP_HOST_TOMBSTONE */
};
#define CHP_STORE_META_BYTES 24u
void chp_store_meta_write(const struct chp_store_meta *m, uint8_t to[CHP_STORE_META_BYTES]);
/** Returns false for anything but what chp_store_meta_write wrote. */
bool chp_store_meta_read(const void *bytes, size_t len, struct chp_store_meta *m);

#define CHP_STORE_RECORD_BYTES 56u
void chp_store_record_write(const struct chp_store_record *r, uint8_t to[CHP_STORE_RECORD_BYTES]);
bool chp_store_record_read(const void *bytes, size_t len, struct chp_store_record *r);

/** The identity as one line of text, ends with 0; its length without that is returned. */
#define CHP_STORE_IDENTITY_BYTES 192u
uint32_t chp_store_identity_text(const struct chp_store_identity *id, char to[CHP_STORE_IDENTITY_BYTES]);
/** Compare what is in a store with who we are. Returns 0, or -1 with a REFUSED error that names both. */
int chp_store_identity_check(const struct chp_store_identity *id, const void *found, size_t len,
			     struct chp_store_error *e);

/* ------------------------------------------------------------------ adapters */

/*
 * A batch of one shard. `before` is what the store must have as the shard's record, `after` what it has then; items
 * and tombstones of `after` are filled in by the adapter, which sees what it replaces. A store over a network compares,
 * since it may be another than before: a stored life and batch that are neither `before`'s nor `after`'s is
 * CHP_STORE_ERROR_LOST. `after`'s: an earlier try of this batch did succeed, it is applied again, to the same end;
 * items and tombstones go on from what is stored.
 */
struct chp_store_batch {
	uint32_t shard;
	const struct chp_store_item *item; /* n_items, maybe none: then only the record changes */
	uint32_t n_items;                  /* a key that occurs again is applied again, if newer */
	const struct chp_store_record *before;
	struct chp_store_record *after;
	uint64_t applied;                  /* result: items that were newer; for statistics */
};

/* Keys of `read` that a call of read() gets at most, and batches that write() gets at most. */
#define CHP_STORE_READS_MAX 256u
#define CHP_STORE_BATCHES_MAX CHP_SHARDS_MAX

/*
 * All return 0, or -1 with *e. The configuration is the object "store" of HOST.json; "type" in it is the adapter's
 * name and has been looked at. Where memory is short: CHP_STORE_ERROR_DOWN.
 */
struct chp_adapter {
	const char *name;
	const char *text; /* for --help: one line */
	/*
	 * Each step of a call ends by itself, with an error if need be: a call that takes long is a large one, and does
	 * not hang. Without, one that takes longer than the engine's patience is shown as a store that does not answer.
	 */
	bool has_timeouts;

	/*
	 * Look at the configuration before anything starts: unknown keys, types, ranges. The helpers are
	 * chp_store_keys and its like below. e->text names the key: "path: ...".
	 */
	int (*check)(const json_t *config, struct chp_store_error *e);

	/*
	 * Open or create the store, claim it with our identity or refuse another's, and check what it promises of
	 * durability. Called again, with back-off, after any failure. NULL with *e.
	 */
	void *(*open)(const json_t *config, const struct chp_store_identity *id, struct chp_store_error *e);
	/* What was opened: flags, and the name and promise for people, as "redis 7.0, appendfsync always". */
	void (*describe)(void *store, uint32_t *flags, char name[CHP_HOST_TEXT_BYTES]);
	void (*close)(void *store); /* all handles were detached */

	/* A handle for one thread. It need not connect yet. NULL with *e. */
	void *(*attach)(void *store, struct chp_store_error *e);
	void (*detach)(void *handle);

	/* The record of a shard; all zeros where there is none. */
	int (*load_record)(void *handle, uint32_t shard, struct chp_store_record *r, struct chp_store_error *e);
	/*
	 * Apply n batches of different shards, each all or nothing, durable when 0 is returned. After an error
	 * nothing is known, and the same batches come again, with the same `before` and `after`, maybe with others.
	 */
	int (*write)(void *handle, struct chp_store_batch *batch, uint32_t n, struct chp_store_error *e);
	/* Look up n keys, of any shards. Where single keys fail: found = CHP_STORE_FAILED, and -1 or 0. */
	int (*read)(void *handle, struct chp_store_read *read, uint32_t n, struct chp_store_error *e);
	/*
	 * Fill a part of a scan of a shard's items. All scans come on one and the same handle: what a cursor cannot
	 * say may be kept there by (shard, scan->id), CHP_NODES_MAX + 1 ids a shard; a cursor of length 0 begins anew
	 * and ends what was kept. After a reconnect that loses such state, or for a cursor that means nothing any
	 * more: an error. NULL if the store cannot list; then describe() does not say CHP_STORE_SCANS.
	 */
	int (*scan)(void *handle, uint32_t shard, struct chp_store_scan *scan, struct chp_store_error *e);
};

/** The adapter of that name, or NULL. */
const struct chp_adapter *chp_adapter_find(const char *name);
/** One by one, for --help and messages; NULL behind the last. */
const struct chp_adapter *chp_adapter_at(uint32_t i);

/* ------------------------------------------------------------------ reading the configuration */

/*
 * For check() and open(). Each returns 0, or -1 with an error that names the key. A key that is not there gives the
 * default; REQUIRED: NULL as default text is an error.
 */

/** Refuse keys that are not in the list (NULL at its end); "type" always may be there. */
int chp_store_keys(const json_t *config, const char *const *keys, struct chp_store_error *e);
int chp_store_get_text(const json_t *config, const char *key, const char *def, const char **to,
		       struct chp_store_error *e);
int chp_store_get_uint(const json_t *config, const char *key, uint64_t min, uint64_t max, uint64_t def,
		       uint64_t *to, struct chp_store_error *e);
int chp_store_get_bool(const json_t *config, const char *key, bool def, bool *to, struct chp_store_error *e);
/** The path of a Unix socket, which must not be longer than one can be; "" where there is none. */
int chp_store_get_socket(const json_t *config, const char *key, const char **to, struct chp_store_error *e);

#endif /* CHP_DATASTORE_DATASTORE_H */
