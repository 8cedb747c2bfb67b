/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * memory.c - the adapter "memory": a table in this process, gone when it ends. For tests, and to measure the rest
 * without a datastore. The shortest complete adapter: begin here to write another.
 */
#include "datastore/datastore.h"

#include "base/bytes.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct entry {
	struct entry *next; /* in its bucket */
	struct chp_store_meta meta;
	uint32_t shard;
	uint32_t value_len;
	uint8_t *value;
	uint8_t key_len;
	uint8_t key[];
};

struct memory_store {
	struct chp_store_identity id;
	bool allow_loss;
	uint64_t delay_ns; /* that every call takes: a slow store */
	pthread_mutex_t lock; /* of everything below */
	struct entry **bucket;
	size_t n_buckets; /* a power of two */
	struct entry **entry; /* in the order of their first writing: a scan's cursor is an index */
	size_t n_entries, room;
	struct chp_store_record record[CHP_SHARDS_MAX];
};

static const char *const keys[] = { "allow_loss", "delay_us", NULL };

static int
read_config(const json_t *config, bool *allow_loss, uint64_t *delay_us, struct chp_store_error *e)
{
	if (chp_store_keys(config, keys, e) != 0 ||
	    chp_store_get_bool(config, "allow_loss", false, allow_loss, e) != 0)
		return -1;
	return chp_store_get_uint(config, "delay_us", 0, 10000000, 0, delay_us, e);
}

static int
memory_check(const json_t *config, struct chp_store_error *e)
{
	bool allow_loss;
	uint64_t delay_us;

	return read_config(config, &allow_loss, &delay_us, e);
}

static void
memory_close(void *store)
{
	struct memory_store *s = store;

	for (size_t i = 0; i < s->n_entries; i++) {
		free(s->entry[i]->value);
		free(s->entry[i]);
	}
	free(s->entry);
	free(s->bucket);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}

static void *
memory_open(const json_t *config, const struct chp_store_identity *id, struct chp_store_error *e)
{
	struct memory_store *s = calloc(1, sizeof(*s));
	uint64_t delay_us = 0;

	if (s == NULL || pthread_mutex_init(&s->lock, NULL) != 0) {
		free(s);
		(void)chp_store_fail(e, CHP_STORE_ERROR_DOWN, "no memory");
		return NULL;
	}
	s->id = *id;
	s->n_buckets = 1024;
	s->bucket = calloc(s->n_buckets, sizeof(struct entry *));
	if (s->bucket == NULL || read_config(config, &s->allow_loss, &delay_us, e) != 0) {
		if (s->bucket == NULL)
			(void)chp_store_fail(e, CHP_STORE_ERROR_DOWN, "no memory");
		memory_close(s);
		return NULL;
	}
	s->delay_ns = delay_us * 1000;
	return s;
}

static void
memory_describe(void *store, uint32_t *flags, char name[CHP_HOST_TEXT_BYTES])
{
	const struct memory_store *s = store;

	*flags = CHP_STORE_VOLATILE | CHP_STORE_SCANS | (s->allow_loss ? CHP_STORE_ALLOW_LOSS : 0);
	(void)strncpy(name, "memory of this process, lost with it", CHP_HOST_TEXT_BYTES - 1);
}

static void *
memory_attach(void *store, struct chp_store_error *e)
{
	(void)e;
	return store;
}

static void
memory_detach(void *handle)
{
	(void)handle;
}

static void
enter(struct memory_store *s)
{
	const struct timespec t = { (time_t)(s->delay_ns / 1000000000), (long)(s->delay_ns % 1000000000) };

	if (s->delay_ns > 0)
		(void)nanosleep(&t, NULL);
	(void)pthread_mutex_lock(&s->lock);
}

static struct entry **
bucket_of(const struct memory_store *s, struct chp_digest d)
{
	return &s->bucket[d.lo & (s->n_buckets - 1)];
}

static struct entry *
find(const struct memory_store *s, const uint8_t *key, uint32_t key_len)
{
	struct entry *n = *bucket_of(s, chp_digest_of(key, key_len, s->id.hash_seed));

	while (n != NULL && (n->key_len != key_len || memcmp(n->key, key, key_len) != 0))
		n = n->next;
	return n;
}

/* Twice the buckets, if memory allows; longer chains otherwise. */
static void
grow(struct memory_store *s)
{
	struct entry **bucket = calloc(2 * s->n_buckets, sizeof(struct entry *));

	if (bucket == NULL)
		return;
	free(s->bucket);
	s->bucket = bucket;
	s->n_buckets *= 2;
	for (size_t i = 0; i < s->n_entries; i++) {
		struct entry *n = s->entry[i];
		struct entry **b = bucket_of(s, chp_digest_of(n->key, n->key_len, s->id.hash_seed));

		n->next = *b;
		*b = n;
	}
}

static struct entry *
insert(struct memory_store *s, const uint8_t *key, uint8_t key_len)
{
	const struct chp_digest d = chp_digest_of(key, key_len, s->id.hash_seed);
	struct entry *n;

	if (s->n_entries == s->room) {
		const size_t room = s->room == 0 ? 1024 : 2 * s->room;
		struct entry **list = realloc(s->entry, room * sizeof(struct entry *));

		if (list == NULL)
			return NULL;
		s->entry = list;
		s->room = room;
	}
	n = calloc(1, sizeof(*n) + key_len);
	if (n == NULL)
		return NULL;
	n->shard = chp_shard_of(d, s->id.shards);
	n->key_len = key_len;
	memcpy(n->key, key, key_len);
	n->meta.flags = CHP_HOST_TOMBSTONE; /* of life 0: as if it had never been there */
	n->next = *bucket_of(s, d);
	*bucket_of(s, d) = n;
	s->entry[s->n_entries++] = n;
	if (s->n_entries > s->n_buckets)
		grow(s);
	return n;
}

static int
memory_load_record(void *handle, uint32_t shard, struct chp_store_record *r, struct chp_store_error *e)
{
	struct memory_store *s = handle;

	(void)e;
	enter(s);
	*r = s->record[shard];
	(void)pthread_mutex_unlock(&s->lock);
	return 0;
}

/* Everything that can fail, before anything changes: entries and values of a batch. */
static int
prepare(struct memory_store *s, const struct chp_store_batch *b, uint8_t **value)
{
	for (uint32_t i = 0; i < b->n_items; i++) {
		const struct chp_store_item *item = &b->item[i];

		if (find(s, item->key, item->key_len) == NULL && insert(s, item->key, item->key_len) == NULL)
			return -1;
		value[i] = item->value_len > 0 ? malloc(item->value_len) : NULL;
		if (item->value_len > 0 && value[i] == NULL)
			return -1;
	}
	return 0;
}

static void
apply(struct memory_store *s, struct chp_store_batch *b, uint8_t **value)
{
	struct chp_store_record *r = &s->record[b->shard];

	for (uint32_t i = 0; i < b->n_items; i++) {
		const struct chp_store_item *item = &b->item[i];
		struct entry *n = find(s, item->key, item->key_len);

		if (!chp_store_is_newer(item->life, item->version, n->meta.life, n->meta.version))
			continue;
		r->items += n->meta.life == 0;
		r->tombstones -= n->meta.life != 0 && (n->meta.flags & CHP_HOST_TOMBSTONE) != 0;
		r->tombstones += (item->flags & CHP_HOST_TOMBSTONE) != 0;
		n->meta = (struct chp_store_meta){ item->version, item->life, item->flags };
		free(n->value);
		n->value = value[i];
		value[i] = NULL;
		n->value_len = item->value_len;
		if (item->value_len > 0)
			memcpy(n->value, item->value, item->value_len);
		b->applied++;
	}
	b->after->items = r->items;
	b->after->tombstones = r->tombstones;
	*r = *b->after;
}

static bool
is_at(const struct chp_store_record *r, const struct chp_store_record *expected)
{
	return r->life == expected->life && r->batch == expected->batch;
}

static int
write_batch(struct memory_store *s, struct chp_store_batch *b, struct chp_store_error *e)
{
	const struct chp_store_record *r = &s->record[b->shard];
	uint8_t **value;
	int rc;

	b->applied = 0;
	if (!is_at(r, b->before) && !is_at(r, b->after))
		return chp_store_fail(e, CHP_STORE_ERROR_LOST, "the store is not as it was left");
	value = calloc((size_t)b->n_items + 1, sizeof(*value));
	rc = value == NULL ? -1 : prepare(s, b, value);
	if (rc == 0)
		apply(s, b, value);
	for (uint32_t i = 0; value != NULL && i < b->n_items; i++)
		free(value[i]);
	free(value);
	return rc == 0 ? 0 : chp_store_fail(e, CHP_STORE_ERROR_DOWN, "no memory");
}

static int
memory_write(void *handle, struct chp_store_batch *batch, uint32_t n, struct chp_store_error *e)
{
	struct memory_store *s = handle;
	int rc = 0;

	enter(s);
	for (uint32_t i = 0; i < n && rc == 0; i++)
		rc = write_batch(s, &batch[i], e);
	(void)pthread_mutex_unlock(&s->lock);
	return rc;
}

static int
memory_read(void *handle, struct chp_store_read *read, uint32_t n, struct chp_store_error *e)
{
	struct memory_store *s = handle;

	(void)e;
	enter(s);
	for (uint32_t i = 0; i < n; i++) {
		struct chp_store_read *r = &read[i];
		const struct entry *found = find(s, r->key, r->key_len);

		r->found = CHP_STORE_ABSENT;
		r->value_len = 0;
		if (found == NULL || found->meta.life == 0)
			continue;
		r->found = (found->meta.flags & CHP_HOST_TOMBSTONE) != 0 ? CHP_STORE_TOMBSTONE : CHP_STORE_FOUND;
		r->version = found->meta.version;
		r->life = found->meta.life;
		r->flags = found->meta.flags;
		r->value_len = found->value_len;
		if (found->value_len > 0)
			memcpy(r->value, found->value, found->value_len);
	}
	(void)pthread_mutex_unlock(&s->lock);
	return 0;
}

static int
memory_scan(void *handle, uint32_t shard, struct chp_store_scan *scan, struct chp_store_error *e)
{
	struct memory_store *s = handle;
	uint64_t at = 0;

	(void)e;
	if (scan->cursor.len == sizeof(at))
		memcpy(&at, scan->cursor.bytes, sizeof(at));
	enter(s);
	for (; at < s->n_entries; at++) {
		const struct entry *n = s->entry[at];
		const struct chp_store_item item = { .key = n->key,
						     .value = n->value,
						     .version = n->meta.version,
						     .life = n->meta.life,
						     .value_len = n->value_len,
						     .key_len = n->key_len,
						     .flags = n->meta.flags };

		if (n->shard == shard && n->meta.life != 0 && !chp_store_scan_add(scan, &item))
			break;
	}
	scan->end = at >= s->n_entries;
	(void)pthread_mutex_unlock(&s->lock);
	scan->cursor.len = sizeof(at);
	memcpy(scan->cursor.bytes, &at, sizeof(at));
	return 0;
}

const struct chp_adapter chp_adapter_memory = {
	.name = "memory",
	.text = "a table in this process, for tests",
	.check = memory_check,
	.open = memory_open,
	.describe = memory_describe,
	.close = memory_close,
	.attach = memory_attach,
	.detach = memory_detach,
	.load_record = memory_load_record,
	.write = memory_write,
	.read = memory_read,
	.scan = memory_scan,
};
