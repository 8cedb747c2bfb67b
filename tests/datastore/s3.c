/* SPDX-License-Identifier: BSD-3-Clause */
/* S3: credentials, a bucket that is not there, another program's objects, crashes between the requests of a batch. */
#include "suite.h"

#include "base/bytes.h"
#include "datastore/sha256.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void
ignore(void *arg, const struct chp_store_item *item)
{
	(void)arg;
	(void)item;
}

static void
cannot_open(struct suite *s, const char *text)
{
	CHECK(!suite_try_open(s), "opened");
	CHECK(s->error.kind == CHP_STORE_ERROR_DOWN && strstr(s->error.text, text) != NULL, "%d %s", s->error.kind,
	      s->error.text);
}

static void
credentials(struct suite *s)
{
	suite_begin_key(s);
	suite_close(s);
	suite_configure(s, "secret_key", json_string("wrong"));
	cannot_open(s, "403 SignatureDoesNotMatch");
	suite_configure(s, "access_key", json_string("NOBODY"));
	cannot_open(s, "403 InvalidAccessKeyId");
	suite_configure(s, "access_key", json_string("S3RVER"));
	suite_configure(s, "secret_key", json_string("S3RVER"));
	suite_open(s);
	suite_expect(s, "key", 1, V(1), "value");
}

static void
no_bucket(struct suite *s)
{
	suite_begin_key(s);
	suite_server(s, "no_bucket");
	suite_put_text(s, "key", V(2), "value");
	suite_flush_fails(s, suite_shard(s, "key", 3), CHP_STORE_ERROR_DOWN, "404 NoSuchBucket");
	suite_look_up_fails(s, "key", "404 NoSuchBucket");
	suite_server(s, "bucket");
	suite_write(s, "key", V(2), "again");
	suite_expect(s, "key", 1, V(2), "again");
}

/* Two stores in one bucket, and other objects beside them. */
static void
prefixes(struct suite *s)
{
	suite_begin(s, suite_shard(s, "key", 3), 1);
	suite_write(s, "key", V(1), "without");
	suite_close(s);
	suite_configure(s, "prefix", json_string("some/where/"));
	suite_open(s);
	suite_expect_absent(s, "key");
	suite_begin(s, suite_shard(s, "key", 3), 1);
	suite_write(s, "key", V(7), "within");
	suite_expect(s, "key", 1, V(7), "within");
	suite_server(s, "holds some/where/key within");
	suite_server(s, "holds key without");
	suite_close(s);
	suite_configure(s, "prefix", json_string("theirs/"));
	suite_server(s, "put theirs/object value");
	CHECK(!suite_try_open(s) && s->error.kind == CHP_STORE_ERROR_REFUSED, "%s", s->error.text);
}

static void
meddled_with(struct suite *s)
{
	suite_meddle(s, "put key other", "another program");
}

/* The requests of a batch up to any of them, and then the whole batch: as if it had come once. */
static void
torn_delete(struct suite *s)
{
	struct chp_store_record before;
	uint32_t shard = suite_shard(s, "key", 3);

	suite_begin(s, shard, 1);
	suite_write(s, "key", V(1), "value");
	before = s->record[shard];
	suite_write(s, "key", V(2), NULL);
	/* The tombstone was written, and its object not deleted yet: the object counts, as before the batch. */
	suite_server(s, "put_version key old 00000000000000010000000000010000v-");
	suite_expect(s, "key", 1, V(1), "old");
	s->record[shard] = before;
	suite_write(s, "key", V(2), NULL);
	suite_expect(s, "key", 1, V(2), NULL);
	suite_server(s, "holds key");
}

/* The service sends some requests away, as it does when there are many: the rest of a call is not done again. */
static void
throttled(struct suite *s)
{
	static char key[40][64];
	uint32_t shard = 1, n = CHP_ARRAY_LEN(key);

	suite_begin(s, shard, 1);
	suite_server(s, "faults '{\"every\": 10, \"status\": 503, \"code\": \"SlowDown\"}'");
	for (uint32_t i = 0; i < n; i++)
		suite_put(s, key[i], suite_key(s, shard, i, key[i]), V(1), "value", 5);
	suite_flush_until(s, shard, 10000);
	CHECK(s->record[shard].items == n, "%" PRIu64 " items", s->record[shard].items);
	for (uint32_t i = 0; i < n; i++)
		suite_expect(s, key[i], 1, V(1), "value");
	suite_server(s, "faults '{\"every\": 1, \"status\": 503, \"code\": \"SlowDown\"}'");
	CHECK(suite_look_up_try(s, key[0], (uint32_t)strlen(key[0])) < 0 && s->error.kind == CHP_STORE_ERROR_SLOW,
	      "%d %s", s->error.kind, s->error.text);
	CHECK(strstr(s->error.text, "503") != NULL, "%s", s->error.text);
	suite_server(s, "faults");
}

/*
 * A request fails while another of the same batch is on its way. That one must have ended before anything is tried
 * again: else it may be carried out behind a newer version of its key.
 */
static void
late_put(struct suite *s)
{
	char key[2][64], fault[256];

	for (uint32_t i = 0; i < 2; i++)
		suite_key(s, 0, i, key[i]);
	suite_begin(s, 0, 1);
	snprintf(fault, sizeof(fault), "faults '{\"late\": \"%s\", \"ms\": 600, \"once\": \"%s\", \"status\": 400, "
		 "\"code\": \"Odd\"}'", key[0], key[1]);
	suite_server(s, fault);
	suite_put_text(s, key[0], V(1), "old");
	suite_put_text(s, key[1], V(1), "old");
	CHECK(suite_flush_try(s, 0) < 0 && strstr(s->error.text, "400 Odd") != NULL, "%s", s->error.text);
	suite_put_text(s, key[0], V(1), "old");
	suite_put_text(s, key[1], V(1), "old");
	suite_flush(s, 0);
	suite_write(s, key[0], V(2), "new");
	suite_sleep_ms(1000);
	suite_expect(s, key[0], 1, V(2), "new");
	suite_server(s, "faults");
}

/* What is between us and the service answers for it: not that a key is absent. */
static void
stranger(struct suite *s)
{
	suite_begin_key(s);
	suite_server(s, "faults '{\"stranger\": true}'");
	suite_look_up_fails(s, "key", "404");
	suite_put_text(s, "key", V(2), "value");
	suite_flush_fails(s, suite_shard(s, "key", 3), CHP_STORE_ERROR_DOWN, NULL);
	suite_server(s, "faults");
	suite_expect(s, "key", 1, V(1), "value");
}

/* More names that are no keys of ours than one list has. */
static void
litter(struct suite *s)
{
	struct chp_store_scan scan = { .id = 1 };
	uint32_t n = 0, parts = 0;

	suite_begin_key(s);
	suite_server(s, "litter 700");
	do {
		n += suite_scan_part(s, suite_shard(s, "key", 3), &scan, 10000, 10, ignore, NULL);
		CHECK(++parts < 20, "a scan without end");
	} while (!scan.end);
	CHECK(n == 1, "%" PRIu32 " items", n);
}

static void
hashes(struct suite *s)
{
	char text[CHP_SHA256_TEXT_LEN + 1], a[200];

	(void)s;
	chp_sha256_text("", 0, text);
	CHECK(strcmp(text, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855") == 0, "%s", text);
	chp_sha256_text("abc", 3, text);
	CHECK(strcmp(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") == 0, "%s", text);
	memset(a, 'a', sizeof(a));
	chp_sha256_text(a, 56, text);
	CHECK(strcmp(text, "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a") == 0, "%s", text);
	chp_sha256_text(a, 200, text);
	CHECK(strcmp(text, "c2a908d98f5df987ade41b5fce213067efbcc21ef2240212a41e54b5e7c28ae5") == 0, "%s", text);
}

const struct suite_case suite_s3[] = {
	{ "hashes", hashes, "s3", SUITE_OPENS },
	{ "credentials", credentials, "s3", 0 },
	{ "no bucket", no_bucket, "s3", 0 },
	{ "prefixes", prefixes, "s3", 0 },
	{ "meddled with", meddled_with, "s3", 0 },
	{ "torn delete", torn_delete, "s3", 0 },
	{ "litter", litter, "s3", 0 },
	{ "throttled", throttled, "s3", 0 },
	{ "late put", late_put, "s3", 0 },
	{ "stranger", stranger, "s3", 0 },
	{ NULL, NULL, NULL, 0 },
};
