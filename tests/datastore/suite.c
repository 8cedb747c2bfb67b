/* SPDX-License-Identifier: BSD-3-Clause */
#include "suite.h"

#include "base/bytes.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void
suite_failed(const char *file, int line, const char *what, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "%s:%d: %s: ", file, line, what);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	fflush(NULL);
	_exit(1);
}

int
suite_server_try(const struct suite *s, const char *verb)
{
	char command[512];
	int rc;

	fflush(NULL);
	snprintf(command, sizeof(command), "%s %s", s->server, verb);
	rc = system(command);
	return WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
}

void
suite_server(const struct suite *s, const char *verb)
{
	int rc = suite_server_try(s, verb);

	CHECK(rc == 0, "server %s gives %d", verb, rc);
}

uint64_t
suite_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void
suite_sleep_ms(uint32_t ms)
{
	struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };

	nanosleep(&t, NULL);
}

uint32_t
suite_random(void)
{
	static uint64_t x = 88172645463325252u;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return (uint32_t)(x >> 16);
}

/* ------------------------------------------------------------------ open, close */

bool
suite_try_open(struct suite *s)
{
	char name[CHP_HOST_TEXT_BYTES] = "";

	memset(&s->error, 0, sizeof(s->error));
	s->store = s->adapter->open(s->config, &s->id, &s->error);
	if (s->store == NULL) {
		CHECK(s->error.kind != CHP_STORE_ERROR_NONE && s->error.text[0] != '\0', "open fails without a reason");
		return false;
	}
	s->adapter->describe(s->store, &s->flags, name);
	CHECK(name[0] != '\0' && memchr(name, '\0', sizeof(name)) != NULL, "the store has no name");
	s->handle = s->adapter->attach(s->store, &s->error);
	CHECK(s->handle != NULL, "attach: %s", s->error.text);
	for (uint32_t i = 0; i < SHARDS; i++)
		CHECK(s->adapter->load_record(s->handle, i, &s->record[i], &s->error) == 0, "%s", s->error.text);
	return true;
}

void
suite_open(struct suite *s)
{
	CHECK(suite_try_open(s), "open: %s", s->error.text);
}

void
suite_close(struct suite *s)
{
	if (s->handle != NULL)
		s->adapter->detach(s->handle);
	if (s->store != NULL)
		s->adapter->close(s->store);
	s->handle = s->store = NULL;
}

void
suite_configure(struct suite *s, const char *key, json_t *value)
{
	CHECK(json_object_set_new(s->config, key, value) == 0, "%s", key);
}

/* ------------------------------------------------------------------ writing */

uint32_t
suite_shard(const struct suite *s, const void *key, uint32_t len)
{
	return chp_store_shard(&s->id, key, len);
}

uint32_t
suite_key(const struct suite *s, uint32_t shard, uint32_t i, char to[64])
{
	uint32_t len;

	for (uint32_t salt = 0;; salt++) {
		len = (uint32_t)snprintf(to, 64, "key-%" PRIu32 "-%" PRIu32, i, salt);
		if (suite_shard(s, to, len) == shard)
			return len;
	}
}

void
suite_put(struct suite *s, const void *key, uint32_t key_len, uint64_t version, const void *value, uint32_t len)
{
	CHECK(s->n_items < ITEMS_MAX, "batch too large");
	s->item[s->n_items++] = (struct chp_store_item){ .key = key,
							 .key_len = (uint8_t)key_len,
							 .value = value,
							 .value_len = value != NULL ? len : 0,
							 .version = version,
							 .flags = value == NULL ? CHP_HOST_TOMBSTONE : 0 };
}

void
suite_put_text(struct suite *s, const char *key, uint64_t version, const char *value)
{
	suite_put(s, key, (uint32_t)strlen(key), version, value, value != NULL ? (uint32_t)strlen(value) : 0);
}

/* What the record is after the batch of what was put. */
static struct chp_store_record
record_after(struct suite *s, uint32_t shard)
{
	struct chp_store_record after = s->record[shard];

	after.batch++;
	after.items = after.tombstones = UINT64_MAX; /* the adapter's to fill in */
	for (uint32_t i = 0; i < s->n_items; i++) {
		s->item[i].life = after.life;
		if (s->item[i].version >> 16 > after.newest)
			after.newest = s->item[i].version >> 16;
	}
	return after;
}

static int
flush_once(struct suite *s, uint32_t shard, uint64_t *applied)
{
	struct chp_store_record after = record_after(s, shard);
	struct chp_store_batch b = { .shard = shard, .item = s->item, .n_items = s->n_items,
				     .before = &s->record[shard], .after = &after };

	memset(&s->error, 0, sizeof(s->error));
	if (s->adapter->write(s->handle, &b, 1, &s->error) < 0) {
		CHECK(s->error.kind != CHP_STORE_ERROR_NONE && s->error.text[0] != '\0',
		      "write fails without a reason");
		return -1;
	}
	s->record[shard] = after;
	*applied = b.applied;
	return 0;
}

int
suite_flush_try(struct suite *s, uint32_t shard)
{
	uint64_t applied;
	int rc = flush_once(s, shard, &applied);

	s->n_items = 0;
	return rc;
}

uint64_t
suite_flush(struct suite *s, uint32_t shard)
{
	uint64_t applied = 0;

	CHECK(flush_once(s, shard, &applied) == 0, "write: %s", s->error.text);
	s->n_items = 0;
	return applied;
}

void
suite_flush_fails(struct suite *s, uint32_t shard, enum chp_store_error_kind kind, const char *text)
{
	CHECK(suite_flush_try(s, shard) < 0, "a write succeeds");
	CHECK(s->error.kind == kind && (text == NULL || strstr(s->error.text, text) != NULL), "%d %s", s->error.kind,
	      s->error.text);
}

void
suite_flush_until(struct suite *s, uint32_t shard, uint32_t ms)
{
	uint64_t end = suite_now_ms() + ms, applied;

	while (flush_once(s, shard, &applied) < 0) {
		CHECK(s->error.kind != CHP_STORE_ERROR_LOST && s->error.kind != CHP_STORE_ERROR_REFUSED, "%s",
		      s->error.text);
		CHECK(suite_now_ms() < end, "does not come back: %s", s->error.text);
		suite_sleep_ms(20);
	}
	s->n_items = 0;
}

bool
suite_write(struct suite *s, const char *key, uint64_t version, const char *value)
{
	suite_put_text(s, key, version, value);
	return suite_flush(s, suite_shard(s, key, (uint32_t)strlen(key))) == 1;
}

void
suite_begin(struct suite *s, uint32_t shard, uint64_t life)
{
	struct chp_store_record after = s->record[shard];
	struct chp_store_batch b = { .shard = shard, .before = &s->record[shard], .after = &after };

	after.life = life;
	after.batch = 0;
	after.items = after.tombstones = UINT64_MAX;
	CHECK(s->adapter->write(s->handle, &b, 1, &s->error) == 0, "begin: %s", s->error.text);
	s->record[shard] = after;
}

void
suite_begin_key(struct suite *s)
{
	suite_begin(s, suite_shard(s, "key", 3), 1);
	suite_write(s, "key", V(1), "value");
}

/* ------------------------------------------------------------------ reading */

int
suite_look_up_try(struct suite *s, const void *key, uint32_t len)
{
	memset(&s->error, 0, sizeof(s->error));
	memset(&s->read, 0xee, sizeof(s->read));
	s->read.key = key;
	s->read.key_len = (uint8_t)len;
	s->read.value = s->value;
	return s->adapter->read(s->handle, &s->read, 1, &s->error);
}

void
suite_look_up(struct suite *s, const void *key, uint32_t len)
{
	CHECK(suite_look_up_try(s, key, len) == 0 && s->read.found != CHP_STORE_FAILED, "read: %s", s->error.text);
}

void
suite_look_up_fails(struct suite *s, const char *key, const char *text)
{
	CHECK(suite_look_up_try(s, key, (uint32_t)strlen(key)) < 0 && s->read.found == CHP_STORE_FAILED, "found %u",
	      s->read.found);
	CHECK(strstr(s->error.text, text) != NULL, "%s", s->error.text);
}

void
suite_expect_bytes(struct suite *s, const void *key, uint32_t key_len, uint64_t life, uint64_t version,
		   const void *value, uint32_t len)
{
	const struct chp_store_read *r = &s->read;

	suite_look_up(s, key, key_len);
	CHECK(r->found == (value != NULL ? CHP_STORE_FOUND : CHP_STORE_TOMBSTONE), "%.*s: found %u", (int)key_len,
	      (const char *)key, r->found);
	CHECK(r->life == life && r->version == version, "%.*s: life %" PRIu64 " version %" PRIx64, (int)key_len,
	      (const char *)key, r->life, r->version);
	CHECK(r->flags == (value != NULL ? 0 : CHP_HOST_TOMBSTONE), "flags %u", r->flags);
	if (value != NULL)
		CHECK(r->value_len == len && memcmp(r->value, value, len) == 0, "%.*s: %" PRIu32 " bytes, not %" PRIu32,
		      (int)key_len, (const char *)key, r->value_len, len);
}

void
suite_expect(struct suite *s, const char *key, uint64_t life, uint64_t version, const char *value)
{
	suite_expect_bytes(s, key, (uint32_t)strlen(key), life, version, value,
			   value != NULL ? (uint32_t)strlen(value) : 0);
}

void
suite_expect_absent(struct suite *s, const char *key)
{
	suite_look_up(s, key, (uint32_t)strlen(key));
	CHECK(s->read.found == CHP_STORE_ABSENT, "%s: found %u", key, s->read.found);
}

void
suite_meddle(struct suite *s, const char *verb, const char *text)
{
	suite_begin_key(s);
	suite_server(s, verb);
	suite_look_up_fails(s, "key", text);
	suite_write(s, "key", V(2), "again");
	suite_expect(s, "key", 1, V(2), "again");
}

uint32_t
suite_scan_part(struct suite *s, uint32_t shard, struct chp_store_scan *scan, uint32_t bytes_max, uint32_t n_max,
		void (*seen)(void *arg, const struct chp_store_item *item), void *arg)
{
	scan->life = s->record[shard].life;
	scan->bytes_max = bytes_max;
	scan->n_max = n_max;
	scan->item = calloc(n_max, sizeof(*scan->item));
	scan->room_bytes = bytes_max + CHP_RECORD_BYTES_MAX;
	scan->room = malloc(scan->room_bytes);
	chp_store_scan_reset(scan);
	CHECK(s->adapter->scan(s->handle, shard, scan, &s->error) == 0, "scan: %s", s->error.text);
	CHECK(!scan->failed && scan->n <= n_max, "a part of %" PRIu32, scan->n);
	CHECK(scan->n <= 1 || scan->bytes <= bytes_max, "a part of %" PRIu32 " bytes", scan->bytes);
	for (uint32_t i = 0; i < scan->n; i++)
		seen(arg, &scan->item[i]);
	free(scan->item);
	free(scan->room);
	return scan->n;
}

uint32_t
suite_scan(struct suite *s, uint32_t shard, uint32_t id, bool only_old, uint32_t bytes_max, uint32_t n_max,
	   void (*seen)(void *arg, const struct chp_store_item *item), void *arg)
{
	struct chp_store_scan scan = { .id = id, .only_old = only_old };
	uint32_t n = 0, parts = 0;

	do {
		n += suite_scan_part(s, shard, &scan, bytes_max, n_max, seen, arg);
		CHECK(parts++ < 10000, "a scan without end");
	} while (!scan.end);
	return n;
}

/* ------------------------------------------------------------------ torn batches */

char suite_crash_key[CRASH_KEYS][64];

void
suite_make_crash_keys(const struct suite *s)
{
	for (uint32_t i = 0; i < CRASH_KEYS; i++)
		suite_key(s, 0, i, suite_crash_key[i]);
}

void
suite_put_crash_batch(struct suite *s, uint64_t seq, char text[32])
{
	snprintf(text, 32, "%" PRIu64, seq);
	for (uint32_t i = 0; i < CRASH_KEYS; i++)
		suite_put_text(s, suite_crash_key[i], seq << 16, text);
}

void
suite_check_crash_keys(struct suite *s, uint64_t least)
{
	uint64_t seq = s->record[0].batch;
	char text[32];

	CHECK(seq >= least, "batch %" PRIu64 " was reported durable, the store has %" PRIu64, least, seq);
	snprintf(text, sizeof(text), "%" PRIu64, seq);
	for (uint32_t i = 0; i < CRASH_KEYS && seq > 0; i++)
		suite_expect(s, suite_crash_key[i], 1, seq << 16, text);
}
