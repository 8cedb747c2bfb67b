/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rocksdb.c - the embedded datastore: a RocksDB in a folder of this host.
 *
 * Column family `default` has the values under their keys, as any program reads them. Column family `chaapar` has what
 * is kept beside them: "i" the identity, "r" and a shard (2 bytes, big-endian) its record, "k", the shard and a
 * key that key's version. One call of write() is one WriteBatch with one sync of the write-ahead log: all batches of
 * a group commit cost one. docs/datastores.md has the layout byte by byte.
 *
 * After a failed write RocksDB refuses all others until it was opened again, since it can't know what reached the
 * disk. write() does that, when there is room on the disk. Until then reads go on.
 */
#include "base/text.h"
#include "datastore/batch.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <rocksdb/c.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define IDENTITY_KEY "i"
#define SHARD_BYTES 2u /* behind the letter */
#define META_KEY_BYTES_MAX (1u + SHARD_BYTES + CHP_KEY_BYTES_MAX)

/*
 * RocksDB 7.8 ends the process when it cannot write its log of what it does: an assertion that Debian leaves on. So by
 * default only the head of that log is written, when the store is opened, and that needs this much free. What else
 * opening writes, and some batches, fit in too.
 */
#define FREE_BYTES_MIN (8u << 20)
#define LOG_LEVEL_HEAD 5
/* Tables that are kept open, where the process may have as many files: each has 64 MiB and more. */
#define OPEN_FILES_MAX 16384
#define OPEN_FILES_MIN 64
/* A scan looks at this many versions in one call: those that are not asked for cost time too. */
#define SCAN_LOOKS_MAX 20000u

enum family { VALUES = 0, BESIDE = 1, FAMILIES = 2 };
static const char *const family_name[FAMILIES] = { "default", "chaapar" };

struct store {
	rocksdb_t *db; /* NULL: could not be opened again */
	rocksdb_column_family_handle_t *family[FAMILIES];
	rocksdb_options_t *options;
	rocksdb_writeoptions_t *sync;
	rocksdb_readoptions_t *readable;
	rocksdb_cache_t *cache;
	char *path;
	struct chp_store_identity id;
	struct chp_store_error error; /* why it failed; kind NONE when it did not */
	/* All functions hold it to read, opening again holds it to write. */
	pthread_rwlock_t lock;
	/*
	 * What is damaged stays so until somebody puts it right. What can be read is given out, but the store is not
	 * well again because another key is read next: the replica must hear that it cannot rely on it.
	 */
	atomic_int damage; /* enum damage */
	char damage_text[CHP_HOST_TEXT_BYTES];
};

enum damage { NOT_DAMAGED, BEING_NOTED, DAMAGED };

struct handle {
	struct store *store;
	rocksdb_writebatch_t *batch;
	struct chp_store_pick pick;
	/* Arrays for looking up many keys: n of each. */
	uint32_t room;
	const rocksdb_column_family_handle_t **family;
	const char **key;
	size_t *key_len;
	char **value;
	size_t *value_len;
	char **err;
	uint8_t (*name)[META_KEY_BYTES_MAX];
};

static const char *const keys[] = { "path", "create", "cache_mb", "write_buffer_mb", "log_dir", NULL };

struct config {
	const char *path;
	const char *log_dir;      /* of RocksDB's log of what it does; "" = none */
	bool create;
	uint64_t cache_mb;        /* of blocks that were read */
	uint64_t write_buffer_mb; /* of each family, in memory before it is written to a table */
};

static int
read_config(const json_t *json, struct config *c, struct chp_store_error *e)
{
	if (chp_store_keys(json, keys, e) < 0 || chp_store_get_text(json, "path", NULL, &c->path, e) < 0 ||
	    chp_store_get_text(json, "log_dir", "", &c->log_dir, e) < 0 ||
	    chp_store_get_bool(json, "create", true, &c->create, e) < 0 ||
	    chp_store_get_uint(json, "cache_mb", 1, 1u << 20, 64, &c->cache_mb, e) < 0)
		return -1;
	return chp_store_get_uint(json, "write_buffer_mb", 1, 1u << 16, 64, &c->write_buffer_mb, e);
}

static int
check(const json_t *json, struct chp_store_error *e)
{
	struct config c;

	return read_config(json, &c, e);
}

/* ------------------------------------------------------------------ errors */

/* The first text stays; later ones name other keys of maybe the same block. */
static void
note_damage(struct store *s, const struct chp_store_error *e)
{
	int none = NOT_DAMAGED;

	if (!atomic_compare_exchange_strong(&s->damage, &none, BEING_NOTED))
		return;
	memcpy(s->damage_text, e->text, sizeof(s->damage_text));
	atomic_store(&s->damage, DAMAGED);
}

/* For functions that have read what they were asked for. */
static int
check_damage(struct store *s, struct chp_store_error *e)
{
	return atomic_load(&s->damage) == DAMAGED ? chp_store_fail(e, CHP_STORE_ERROR_DOWN, "%s", s->damage_text) : 0;
}

/* Turn an error of RocksDB, which is freed, into one of ours. */
static int
failed(struct store *s, char *err, struct chp_store_error *e)
{
	if (strncmp(err, "Corruption", strlen("Corruption")) == 0) {
		chp_store_fail(e, CHP_STORE_ERROR_DOWN, "damaged: %.90s", err);
		note_damage(s, e);
	} else if (strstr(err, "No space left") != NULL)
		chp_store_fail(e, CHP_STORE_ERROR_DOWN, "disk full: %.90s", err);
	else if (strstr(err, "While lock file") != NULL || strstr(err, "lock hold by current process") != NULL)
		chp_store_fail(e, CHP_STORE_ERROR_DOWN, "%.40s is in use: %.60s", s->path, err);
	else
		chp_store_fail(e, CHP_STORE_ERROR_DOWN, "%.110s", err);
	rocksdb_free(err);
	return -1;
}

/* A failed write: no other is tried before the store was opened again. */
static int
broken(struct store *s, char *err, struct chp_store_error *e)
{
	failed(s, err, e);
	s->error = *e;
	return -1;
}

/* ------------------------------------------------------------------ open, close */

static void
close_db(struct store *s)
{
	for (int f = 0; f < FAMILIES; f++) {
		if (s->family[f] != NULL)
			rocksdb_column_family_handle_destroy(s->family[f]);
		s->family[f] = NULL;
	}
	if (s->db != NULL)
		rocksdb_close(s->db);
	s->db = NULL;
}

static void
close_store(void *store)
{
	struct store *s = store;

	close_db(s);
	rocksdb_options_destroy(s->options);
	rocksdb_writeoptions_destroy(s->sync);
	rocksdb_readoptions_destroy(s->readable);
	rocksdb_cache_destroy(s->cache);
	pthread_rwlock_destroy(&s->lock);
	free(s->path);
	free(s);
}

/* By itself RocksDB opens all tables, and fails when the process may open no more files: half are for it. */
static int
open_files_max(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur / 2 > OPEN_FILES_MAX)
		return OPEN_FILES_MAX;
	return files.rlim_cur / 2 > OPEN_FILES_MIN ? (int)(files.rlim_cur / 2) : OPEN_FILES_MIN;
}

static struct store *
new_store(const struct config *c, const struct chp_store_identity *id)
{
	struct store *s = calloc(1, sizeof(*s));
	rocksdb_block_based_table_options_t *table;

	if (s == NULL || (s->path = strdup(c->path)) == NULL) {
		free(s);
		return NULL;
	}
	s->id = *id;
	pthread_rwlock_init(&s->lock, NULL);
	s->cache = rocksdb_cache_create_lru((size_t)c->cache_mb << 20);
	s->sync = rocksdb_writeoptions_create();
	rocksdb_writeoptions_set_sync(s->sync, 1);
	s->readable = rocksdb_readoptions_create();
	s->options = rocksdb_options_create();
	rocksdb_options_set_create_if_missing(s->options, c->create);
	rocksdb_options_set_create_missing_column_families(s->options, 1);
	rocksdb_options_set_paranoid_checks(s->options, 1);
	/*
	 * What was synced is whole: an end that is cut off was never reported durable, but a record that is damaged
	 * anywhere else must be an error, not the silent end of the log.
	 */
	rocksdb_options_set_wal_recovery_mode(s->options, rocksdb_tolerate_corrupted_tail_records_recovery);
	rocksdb_options_set_write_buffer_size(s->options, (size_t)c->write_buffer_mb << 20);
	if (c->log_dir[0] != '\0')
		rocksdb_options_set_db_log_dir(s->options, c->log_dir);
	else
		rocksdb_options_set_info_log_level(s->options, LOG_LEVEL_HEAD);
	rocksdb_options_set_max_open_files(s->options, open_files_max());
	rocksdb_options_set_keep_log_file_num(s->options, 3);
	rocksdb_options_set_max_log_file_size(s->options, 4u << 20);
	table = rocksdb_block_based_options_create();
	rocksdb_block_based_options_set_block_cache(table, s->cache);
	/* Most versions that are looked up before a write are of keys that are not there yet. */
	rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom_full(10));
	rocksdb_options_set_block_based_table_factory(s->options, table);
	rocksdb_block_based_options_destroy(table);
	return s;
}

/* Another program's that has data and no family of ours: opened as ours it would get one, and its owner not open it. */
static int
check_foreign(struct store *s, struct chp_store_error *e)
{
	char *err = NULL;
	rocksdb_t *db = rocksdb_open_for_read_only(s->options, s->path, 0, &err);
	rocksdb_iterator_t *it;
	int rc = 0;

	if (err != NULL)
		return failed(s, err, e);
	it = rocksdb_create_iterator(db, s->readable);
	rocksdb_iter_seek_to_first(it);
	rocksdb_iter_get_error(it, &err);
	if (err != NULL)
		rc = failed(s, err, e);
	else if (rocksdb_iter_valid(it))
		rc = chp_store_refuse(e, CHP_HOST_BAD_CLUSTER,
				      "%.50s has data and is not marked as a store of a replica", s->path);
	rocksdb_iter_destroy(it);
	rocksdb_close(db);
	return rc;
}

/* Column families of others can't be opened with ours: it is not a folder for us. */
static int
check_families(struct store *s, struct chp_store_error *e)
{
	bool is_ours = false;
	char *err = NULL;
	size_t n;
	char **name = rocksdb_list_column_families(s->options, s->path, &n, &err);
	int rc = 0;

	if (err != NULL) {
		/* There is none yet, or opening it says what is wrong. */
		rocksdb_free(err);
		return 0;
	}
	for (size_t i = 0; i < n && rc == 0; i++) {
		is_ours = is_ours || strcmp(name[i], family_name[BESIDE]) == 0;
		if (strcmp(name[i], family_name[VALUES]) != 0 && strcmp(name[i], family_name[BESIDE]) != 0)
			rc = chp_store_refuse(e, CHP_HOST_BAD_CLUSTER,
					      "%.50s is another program's RocksDB: it has a column family %.20s",
					      s->path, name[i]);
	}
	rocksdb_list_column_families_destroy(name, n);
	return rc == 0 && !is_ours ? check_foreign(s, e) : rc;
}

/* Opening a store needs room on the disk, one that exists already too. */
static int
check_room(const struct store *s, struct chp_store_error *e)
{
	struct statvfs disk;
	uint64_t bytes;

	if (statvfs(s->path, &disk) < 0)
		return 0; /* opening it says what is wrong */
	bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
	if (bytes >= FREE_BYTES_MIN)
		return 0;
	return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "disk full: %" PRIu64 " KiB free at %.50s, %u KiB are needed",
			      bytes >> 10, s->path, FREE_BYTES_MIN >> 10);
}

static int
open_db(struct store *s, struct chp_store_error *e)
{
	const rocksdb_options_t *options[FAMILIES] = { s->options, s->options };
	char *err = NULL;

	if (check_families(s, e) < 0)
		return -1;
	s->db = rocksdb_open_column_families(s->options, s->path, FAMILIES, family_name, options, s->family, &err);
	if (err != NULL) {
		s->db = NULL;
		memset(s->family, 0, sizeof(s->family));
		return failed(s, err, e);
	}
	return 0;
}

/* Whether a family has no keys. */
static bool
is_empty(const struct store *s, enum family f)
{
	rocksdb_iterator_t *it = rocksdb_create_iterator_cf(s->db, s->readable, s->family[f]);
	bool empty;

	rocksdb_iter_seek_to_first(it);
	empty = !rocksdb_iter_valid(it);
	rocksdb_iter_destroy(it);
	return empty;
}

/* Whose it is; an empty one becomes ours. */
static int
claim(struct store *s, struct chp_store_error *e)
{
	char text[CHP_STORE_IDENTITY_BYTES];
	uint32_t len = chp_store_identity_text(&s->id, text);
	char *err = NULL, *found;
	size_t found_len;
	int rc;

	found = rocksdb_get_cf(s->db, s->readable, s->family[BESIDE], IDENTITY_KEY, 1, &found_len, &err);
	if (err != NULL)
		return failed(s, err, e);
	if (found != NULL) {
		rc = chp_store_identity_check(&s->id, found, found_len, e);
		rocksdb_free(found);
		return rc;
	}
	if (!is_empty(s, VALUES) || !is_empty(s, BESIDE))
		return chp_store_refuse(e, CHP_HOST_BAD_CLUSTER,
					"%.50s has data and is not marked as a store of a replica", s->path);
	rocksdb_put_cf(s->db, s->sync, s->family[BESIDE], IDENTITY_KEY, 1, text, len, &err);
	return err != NULL ? failed(s, err, e) : 0;
}

static void *
open_store(const json_t *json, const struct chp_store_identity *id, struct chp_store_error *e)
{
	struct config c;
	struct store *s;

	if (read_config(json, &c, e) < 0)
		return NULL;
	s = new_store(&c, id);
	if (s == NULL) {
		chp_store_fail(e, CHP_STORE_ERROR_DOWN, "no memory");
		return NULL;
	}
	if (c.create && mkdir(s->path, 0777) < 0 && errno != EEXIST) {
		chp_store_fail(e, CHP_STORE_ERROR_DOWN, "cannot make the folder %.50s: %s", s->path, strerror(errno));
		close_store(s);
		return NULL;
	}
	if (check_room(s, e) < 0 || open_db(s, e) < 0 || claim(s, e) < 0) {
		close_store(s);
		return NULL;
	}
	return s;
}

static void
describe(void *store, uint32_t *flags, char name[CHP_HOST_TEXT_BYTES])
{
	struct store *s = store;
	struct chp_text t = chp_text_of(name, CHP_HOST_TEXT_BYTES);

	*flags = CHP_STORE_SCANS;
	chp_text_add(&t, "rocksdb, each batch synced, %s", s->path);
}

/* After a failed write: the lock is held to write. */
static int
open_again(struct store *s, struct chp_store_error *e)
{
	if (check_room(s, e) < 0)
		return -1;
	close_db(s);
	if (open_db(s, e) < 0 || claim(s, e) < 0) {
		close_db(s);
		s->error = *e;
		return -1;
	}
	s->error.kind = CHP_STORE_ERROR_NONE;
	return 0;
}

/* Hold the lock to read, with the store open: to write after it failed, only when it could be opened again. */
static int
enter(struct store *s, bool to_write, struct chp_store_error *e)
{
	int rc = 0;

	pthread_rwlock_rdlock(&s->lock);
	if (to_write && s->error.kind != CHP_STORE_ERROR_NONE) {
		pthread_rwlock_unlock(&s->lock);
		pthread_rwlock_wrlock(&s->lock);
		if (s->error.kind != CHP_STORE_ERROR_NONE)
			rc = open_again(s, e);
		pthread_rwlock_unlock(&s->lock);
		if (rc < 0)
			return -1;
		pthread_rwlock_rdlock(&s->lock);
	}
	if (s->db == NULL) {
		*e = s->error;
		pthread_rwlock_unlock(&s->lock);
		return -1;
	}
	return 0;
}

/* ------------------------------------------------------------------ handles */

static void
detach(void *handle)
{
	struct handle *h = handle;

	rocksdb_writebatch_destroy(h->batch);
	chp_store_pick_free(&h->pick);
	free(h->family);
	free(h->key);
	free(h->key_len);
	free(h->value);
	free(h->value_len);
	free(h->err);
	free(h->name);
	free(h);
}

static void *
attach(void *store, struct chp_store_error *e)
{
	struct handle *h = calloc(1, sizeof(*h));

	if (h == NULL) {
		chp_store_fail(e, CHP_STORE_ERROR_DOWN, "no memory");
		return NULL;
	}
	h->store = store;
	h->batch = rocksdb_writebatch_create();
	return h;
}

/* Room for n keys to look up. */
static int
make_room(struct handle *h, uint32_t n, struct chp_store_error *e)
{
	uint32_t r[7];

	for (uint32_t i = 0; i < 7; i++)
		r[i] = h->room;
	if (!chp_store_grow((void **)&h->family, &r[0], n, sizeof(*h->family)) ||
	    !chp_store_grow((void **)&h->key, &r[1], n, sizeof(*h->key)) ||
	    !chp_store_grow((void **)&h->key_len, &r[2], n, sizeof(*h->key_len)) ||
	    !chp_store_grow((void **)&h->value, &r[3], n, sizeof(*h->value)) ||
	    !chp_store_grow((void **)&h->value_len, &r[4], n, sizeof(*h->value_len)) ||
	    !chp_store_grow((void **)&h->err, &r[5], n, sizeof(*h->err)) ||
	    !chp_store_grow((void **)&h->name, &r[6], n, sizeof(*h->name)))
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "no memory for %" PRIu32 " keys", n);
	h->room = r[0];
	return 0;
}

/* The name of a shard's record, or of a key's version, in the family beside the values. */
static size_t
name_of(uint8_t *to, char letter, uint32_t shard, const void *key, uint32_t key_len)
{
	to[0] = (uint8_t)letter;
	to[1] = (uint8_t)(shard >> 8);
	to[2] = (uint8_t)shard;
	if (key_len > 0)
		memcpy(to + 1 + SHARD_BYTES, key, key_len);
	return 1 + SHARD_BYTES + key_len;
}

static void
ask(struct handle *h, uint32_t i, enum family f, const void *key, size_t key_len)
{
	h->family[i] = h->store->family[f];
	h->key[i] = key;
	h->key_len[i] = key_len;
}

static void
ask_beside(struct handle *h, uint32_t i, char letter, uint32_t shard, const void *key, uint32_t key_len)
{
	ask(h, i, BESIDE, h->name[i], name_of(h->name[i], letter, shard, key, key_len));
}

static void
look_up(struct handle *h, uint32_t n)
{
	rocksdb_multi_get_cf(h->store->db, h->store->readable, h->family, n, h->key, h->key_len, h->value,
			     h->value_len, h->err);
}

static void
free_answers(struct handle *h, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		rocksdb_free(h->value[i]);
		rocksdb_free(h->err[i]);
	}
}

/* Take the error out of answer i. */
static int
answer_failed(struct handle *h, uint32_t i, struct chp_store_error *e)
{
	char *err = h->err[i];

	h->err[i] = NULL;
	return failed(h->store, err, e);
}

/* Answer i as a record: zeros where there is none. */
static int
record_answer(struct handle *h, uint32_t i, uint32_t shard, struct chp_store_record *r, struct chp_store_error *e)
{
	memset(r, 0, sizeof(*r));
	if (h->err[i] != NULL)
		return answer_failed(h, i, e);
	if (h->value[i] != NULL && !chp_store_record_read(h->value[i], h->value_len[i], r))
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "damaged: the record of shard %" PRIu32, shard);
	return 0;
}

/* Answer i as a version. Returns 1, 0 where there is none, -1 with an error. */
static int
meta_answer(struct handle *h, uint32_t i, struct chp_store_meta *m, struct chp_store_error *e)
{
	if (h->err[i] != NULL)
		return answer_failed(h, i, e);
	if (h->value[i] == NULL)
		return 0;
	if (!chp_store_meta_read(h->value[i], h->value_len[i], m))
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "damaged: the version of a key");
	return 1;
}

static int
load_record(void *handle, uint32_t shard, struct chp_store_record *r, struct chp_store_error *e)
{
	struct handle *h = handle;
	int rc;

	if (make_room(h, 1, e) < 0 || enter(h->store, false, e) < 0)
		return -1;
	ask_beside(h, 0, 'r', shard, NULL, 0);
	look_up(h, 1);
	rc = record_answer(h, 0, shard, r, e) < 0 ? -1 : check_damage(h->store, e);
	free_answers(h, 1);
	pthread_rwlock_unlock(&h->store->lock);
	return rc;
}

/* ------------------------------------------------------------------ write */

static void
put_beside(struct handle *h, char letter, uint32_t shard, const struct chp_store_item *item, const void *bytes,
	   size_t len)
{
	uint8_t name[META_KEY_BYTES_MAX];
	size_t name_len = name_of(name, letter, shard, item != NULL ? item->key : NULL,
				  item != NULL ? item->key_len : 0);

	rocksdb_writebatch_put_cf(h->batch, h->store->family[BESIDE], (const char *)name, name_len, bytes, len);
}

static void
put_item(struct handle *h, uint32_t shard, const struct chp_store_item *item)
{
	struct chp_store_meta meta = chp_store_meta_of(item);
	uint8_t bytes[CHP_STORE_META_BYTES];
	const char *key = (const char *)item->key;

	chp_store_meta_write(&meta, bytes);
	put_beside(h, 'k', shard, item, bytes, sizeof(bytes));
	if ((item->flags & CHP_HOST_TOMBSTONE) != 0)
		rocksdb_writebatch_delete_cf(h->batch, h->store->family[VALUES], key, item->key_len);
	else
		rocksdb_writebatch_put_cf(h->batch, h->store->family[VALUES], key, item->key_len,
					  (const char *)item->value, item->value_len);
}

/* Add to the WriteBatch what of a batch is newer than what is stored; its answers are 0: the record, then versions. */
static int
apply(struct handle *h, struct chp_store_batch *b, struct chp_store_error *e)
{
	struct chp_store_record stored;
	uint8_t bytes[CHP_STORE_RECORD_BYTES];

	if (record_answer(h, 0, b->shard, &stored, e) < 0 || chp_store_batch_begin(b, &stored, e) < 0)
		return -1;
	for (uint32_t i = 0; i < h->pick.n; i++) {
		const struct chp_store_item *item = chp_store_picked(&h->pick, b, i);
		struct chp_store_meta meta;
		int found = meta_answer(h, i + 1, &meta, e);

		if (found < 0)
			return -1;
		if (chp_store_batch_apply(b, item, found > 0 ? &meta : NULL))
			put_item(h, b->shard, item);
	}
	chp_store_record_write(b->after, bytes);
	put_beside(h, 'r', b->shard, NULL, bytes, sizeof(bytes));
	return 0;
}

/* Nobody else writes: what is looked up now is what the WriteBatch replaces. */
static int
prepare(struct handle *h, struct chp_store_batch *b, struct chp_store_error *e)
{
	int rc;

	if (chp_store_pick(&h->pick, b, e) < 0 || make_room(h, h->pick.n + 1, e) < 0)
		return -1;
	ask_beside(h, 0, 'r', b->shard, NULL, 0);
	for (uint32_t i = 0; i < h->pick.n; i++) {
		const struct chp_store_item *item = chp_store_picked(&h->pick, b, i);

		ask_beside(h, i + 1, 'k', b->shard, item->key, item->key_len);
	}
	look_up(h, h->pick.n + 1);
	rc = apply(h, b, e);
	free_answers(h, h->pick.n + 1);
	return rc;
}

static int
write_batches(void *handle, struct chp_store_batch *batch, uint32_t n, struct chp_store_error *e)
{
	struct handle *h = handle;
	struct store *s = h->store;
	char *err = NULL;
	int rc = 0;

	if (enter(s, true, e) < 0)
		return -1;
	rocksdb_writebatch_clear(h->batch);
	for (uint32_t i = 0; i < n && rc == 0; i++)
		rc = prepare(h, &batch[i], e);
	if (rc == 0)
		rocksdb_write(s->db, s->sync, h->batch, &err);
	if (err != NULL)
		rc = broken(s, err, e);
	pthread_rwlock_unlock(&s->lock);
	return rc;
}

/* ------------------------------------------------------------------ read, scan */

/* Put what was found together. Both answers are of one moment. */
static int
found(struct handle *h, uint32_t i, struct chp_store_read *r, struct chp_store_error *e)
{
	struct chp_store_meta meta;
	uint32_t v = 2 * i;

	r->found = CHP_STORE_FAILED;
	switch (meta_answer(h, v + 1, &meta, e)) {
	case 1: break;
	case 0: r->found = CHP_STORE_ABSENT; return 0;
	default: return -1;
	}
	if (h->err[v] != NULL)
		return answer_failed(h, v, e);
	r->version = meta.version;
	r->life = meta.life;
	r->flags = meta.flags;
	r->value_len = 0;
	if ((meta.flags & CHP_HOST_TOMBSTONE) != 0) {
		r->found = CHP_STORE_TOMBSTONE;
		return 0;
	}
	if (h->value[v] == NULL || h->value_len[v] > h->store->id.value_bytes_max)
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "another program has %s a value",
				      h->value[v] == NULL ? "removed" : "changed");
	memcpy(r->value, h->value[v], h->value_len[v]);
	r->value_len = (uint32_t)h->value_len[v];
	r->found = CHP_STORE_FOUND;
	return 0;
}

static int
read_keys(void *handle, struct chp_store_read *read, uint32_t n, struct chp_store_error *e)
{
	struct handle *h = handle;
	int rc = 0;

	for (uint32_t i = 0; i < n; i++)
		read[i].found = CHP_STORE_FAILED;
	if (make_room(h, 2 * n, e) < 0 || enter(h->store, false, e) < 0)
		return -1;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t shard = chp_store_shard(&h->store->id, read[i].key, read[i].key_len);

		ask(h, 2 * i, VALUES, read[i].key, read[i].key_len);
		ask_beside(h, 2 * i + 1, 'k', shard, read[i].key, read[i].key_len);
	}
	look_up(h, 2 * n);
	for (uint32_t i = 0; i < n; i++)
		if (found(h, i, &read[i], e) < 0)
			rc = -1;
	if (rc == 0)
		rc = check_damage(h->store, e);
	free_answers(h, 2 * n);
	pthread_rwlock_unlock(&h->store->lock);
	return rc;
}

/*
 * One version of a scan, with its value. Returns 1 to go on, 0 when there is no room, -1 with an error.
 */
static int
scan_one(struct handle *h, rocksdb_iterator_t *it, const rocksdb_readoptions_t *moment, struct chp_store_scan *scan,
	 struct chp_store_error *e)
{
	struct chp_store_meta meta;
	struct chp_store_item item;
	size_t name_len, len, value_len = 0;
	const char *name = rocksdb_iter_key(it, &name_len), *bytes = rocksdb_iter_value(it, &len);
	char *err = NULL, *value = NULL;
	bool room;

	if (!chp_store_meta_read(bytes, len, &meta) || name_len <= 1 + SHARD_BYTES || name_len > META_KEY_BYTES_MAX)
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "damaged: the version of a key");
	if (scan->only_old ? meta.life >= scan->life : meta.life != scan->life)
		return 1;
	item = (struct chp_store_item){ .key = (const uint8_t *)name + 1 + SHARD_BYTES,
					.key_len = (uint8_t)(name_len - 1 - SHARD_BYTES),
					.version = meta.version, .life = meta.life, .flags = meta.flags };
	if ((meta.flags & CHP_HOST_TOMBSTONE) == 0) {
		value = rocksdb_get_cf(h->store->db, moment, h->store->family[VALUES], (const char *)item.key,
				       item.key_len, &value_len, &err);
		if (err != NULL)
			return failed(h->store, err, e);
		if (value == NULL || value_len > h->store->id.value_bytes_max) {
			rocksdb_free(value);
			return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "another program has changed a value");
		}
	}
	item.value = (const uint8_t *)value;
	item.value_len = (uint32_t)value_len;
	room = chp_store_scan_add(scan, &item);
	rocksdb_free(value);
	return room;
}

static int
scan_from(struct handle *h, uint32_t shard, rocksdb_iterator_t *it, const rocksdb_readoptions_t *moment,
	  struct chp_store_scan *scan, struct chp_store_error *e)
{
	uint8_t prefix[META_KEY_BYTES_MAX];
	size_t prefix_len = name_of(prefix, 'k', shard, NULL, 0), len;
	const char *name;
	char *err = NULL;
	int rc = 1;

	/* The cursor is the name of the last version that was looked at. */
	rocksdb_iter_seek(it, scan->cursor.len > 0 ? (const char *)scan->cursor.bytes : (const char *)prefix,
			  scan->cursor.len > 0 ? scan->cursor.len : prefix_len);
	for (uint32_t looks = 0; rocksdb_iter_valid(it); rocksdb_iter_next(it)) {
		name = rocksdb_iter_key(it, &len);
		if (len < prefix_len || memcmp(name, prefix, prefix_len) != 0)
			break;
		if (len == scan->cursor.len && memcmp(name, scan->cursor.bytes, len) == 0)
			continue;
		if (looks++ == SCAN_LOOKS_MAX)
			return 0;
		rc = scan_one(h, it, moment, scan, e);
		if (rc <= 0)
			return rc;
		name = rocksdb_iter_key(it, &len);
		memcpy(scan->cursor.bytes, name, len);
		scan->cursor.len = (uint32_t)len;
	}
	rocksdb_iter_get_error(it, &err);
	if (err != NULL)
		return failed(h->store, err, e);
	scan->end = true;
	return 0;
}

static int
scan_items(void *handle, uint32_t shard, struct chp_store_scan *scan, struct chp_store_error *e)
{
	struct handle *h = handle;
	struct store *s = h->store;
	const rocksdb_snapshot_t *snapshot;
	rocksdb_readoptions_t *moment;
	rocksdb_iterator_t *it;
	int rc;

	if (enter(s, false, e) < 0)
		return -1;
	snapshot = rocksdb_create_snapshot(s->db);
	moment = rocksdb_readoptions_create();
	rocksdb_readoptions_set_snapshot(moment, snapshot);
	it = rocksdb_create_iterator_cf(s->db, moment, s->family[BESIDE]);
	rc = scan_from(h, shard, it, moment, scan, e);
	rocksdb_iter_destroy(it);
	rocksdb_readoptions_destroy(moment);
	rocksdb_release_snapshot(s->db, snapshot);
	pthread_rwlock_unlock(&s->lock);
	return rc;
}

const struct chp_adapter chp_adapter_rocksdb = {
	.name = "rocksdb",
	.text = "a RocksDB in a folder of this host; durable by a sync of its log for each batch",
	.check = check,
	.open = open_store,
	.describe = describe,
	.close = close_store,
	.attach = attach,
	.detach = detach,
	.load_record = load_record,
	.write = write_batches,
	.read = read_keys,
	.scan = scan_items,
};
