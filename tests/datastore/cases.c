/* SPDX-License-Identifier: BSD-3-Clause */
/* What every adapter must do while its server is well (datastore.h; SAFETY 29, 35). */
#include "suite.h"

#include "base/bytes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A version from a counter and a writer. */
#define BY(counter, writer) (((uint64_t)(counter) << 16) | (writer))
/* 120 characters: no Unix socket can have it. */
#define LONG_PATH TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN
#define TEN "/123456789"

static void
begin_all(struct suite *s, uint64_t life)
{
	for (uint32_t i = 0; i < SHARDS; i++)
		suite_begin(s, i, life);
}

static void
values(struct suite *s)
{
	uint8_t big[VALUE_MAX];

	for (uint32_t i = 0; i < sizeof(big); i++)
		big[i] = (uint8_t)(i * 7 + (i >> 8));
	begin_all(s, 1);
	suite_expect_absent(s, "nothing");
	CHECK(suite_write(s, "key", BY(1, 0), "value"), "not newer than nothing");
	suite_expect(s, "key", 1, BY(1, 0), "value");
	suite_write(s, "empty", BY(2, 0), "");
	suite_expect(s, "empty", 1, BY(2, 0), "");
	suite_put(s, "big", 3, BY(3, 0), big, sizeof(big));
	suite_flush(s, suite_shard(s, "big", 3));
	suite_expect_bytes(s, "big", 3, 1, BY(3, 0), big, sizeof(big));
	suite_put_text(s, "rmw", BY(4, 0), "7");
	s->item[0].flags |= CHP_HOST_RMW;
	suite_flush(s, suite_shard(s, "rmw", 3));
	suite_look_up(s, "rmw", 3);
	CHECK(s->read.flags == CHP_HOST_RMW, "flags %u", s->read.flags);
	suite_write(s, "key", BY(5, 0), "");
	suite_expect(s, "key", 1, BY(5, 0), "");
}

/* Newer wins, and nothing else does: versions are 64 bits, not a double's 53. */
static void
newer_wins(struct suite *s)
{
	const uint64_t high = BY(0xfffffffffffeu, 0xfffd);

	begin_all(s, 1);
	suite_write(s, "key", BY(5, 2), "first");
	CHECK(!suite_write(s, "key", BY(5, 2), "equal"), "equal is newer");
	CHECK(!suite_write(s, "key", BY(5, 1), "older"), "a lower writer is newer");
	CHECK(!suite_write(s, "key", BY(4, 9), "older"), "a lower counter is newer");
	suite_expect(s, "key", 1, BY(5, 2), "first");
	CHECK(suite_write(s, "key", BY(5, 3), "second"), "a higher writer is not newer");
	suite_expect(s, "key", 1, BY(5, 3), "second");
	CHECK(suite_write(s, "key", high, "high"), "not newer");
	CHECK(!suite_write(s, "key", high - 1, "by one"), "one less is newer");
	CHECK(suite_write(s, "key", high + 1, "one more"), "one more is not newer");
	CHECK(!suite_write(s, "key", high, "by one"), "one less is newer");
	suite_expect(s, "key", 1, high + 1, "one more");
	CHECK(s->record[suite_shard(s, "key", 3)].newest == high >> 16, "newest");
}

/* The newest of a key in a batch counts, whatever its place. */
static void
within_a_batch(struct suite *s)
{
	begin_all(s, 1);
	suite_put_text(s, "key", BY(2, 0), "two");
	suite_put_text(s, "key", BY(4, 0), "four");
	suite_put_text(s, "key", BY(3, 0), "three");
	suite_put_text(s, "key", BY(4, 0), "four again");
	suite_flush(s, suite_shard(s, "key", 3));
	suite_expect(s, "key", 1, BY(4, 0), "four");
	suite_put_text(s, "key", BY(5, 0), "five");
	suite_put_text(s, "key", BY(6, 0), NULL);
	suite_flush(s, suite_shard(s, "key", 3));
	suite_expect(s, "key", 1, BY(6, 0), NULL);
	suite_put_text(s, "key", BY(8, 0), "eight");
	suite_put_text(s, "key", BY(7, 0), NULL);
	suite_flush(s, suite_shard(s, "key", 3));
	suite_expect(s, "key", 1, BY(8, 0), "eight");
	CHECK(s->record[suite_shard(s, "key", 3)].items == 1 && s->record[suite_shard(s, "key", 3)].tombstones == 0,
	      "counts");
}

static void
tombstones(struct suite *s)
{
	const struct chp_store_record *r = &s->record[suite_shard(s, "key", 3)];

	begin_all(s, 1);
	suite_write(s, "key", BY(1, 0), "value");
	CHECK(r->items == 1 && r->tombstones == 0, "%" PRIu64 " %" PRIu64, r->items, r->tombstones);
	CHECK(suite_write(s, "key", BY(2, 0), NULL), "a tombstone is not newer");
	suite_expect(s, "key", 1, BY(2, 0), NULL);
	CHECK(r->items == 1 && r->tombstones == 1, "%" PRIu64 " %" PRIu64, r->items, r->tombstones);
	CHECK(!suite_write(s, "key", BY(1, 5), "older"), "older than the tombstone");
	suite_expect(s, "key", 1, BY(2, 0), NULL);
	CHECK(suite_write(s, "key", BY(3, 0), NULL), "a newer tombstone");
	CHECK(r->items == 1 && r->tombstones == 1, "%" PRIu64 " %" PRIu64, r->items, r->tombstones);
	suite_write(s, "key", BY(4, 0), "again");
	suite_expect(s, "key", 1, BY(4, 0), "again");
	CHECK(r->items == 1 && r->tombstones == 0, "%" PRIu64 " %" PRIu64, r->items, r->tombstones);
	/* Of a key that was never there. */
	suite_put_text(s, "key2", BY(5, 0), NULL);
	suite_flush(s, suite_shard(s, "key2", 4));
	suite_expect(s, "key2", 1, BY(5, 0), NULL);
	CHECK(s->record[suite_shard(s, "key2", 4)].tombstones == 1, "not counted");
}

static void
lives(struct suite *s)
{
	begin_all(s, 1);
	suite_write(s, "key", BY(9, 0), "first life");
	suite_write(s, "gone", BY(9, 0), "first life");
	suite_write(s, "gone", BY(10, 0), NULL);
	begin_all(s, 2);
	suite_expect(s, "key", 1, BY(9, 0), "first life");
	CHECK(suite_write(s, "key", BY(3, 0), "second life"), "a version of a later life is not newer");
	suite_expect(s, "key", 2, BY(3, 0), "second life");
	CHECK(suite_write(s, "gone", BY(3, 0), "second life"),
	      "a version of a later life is not newer than a tombstone");
	CHECK(!suite_write(s, "key", BY(2, 0), "older"), "older in the same life");
	suite_expect(s, "gone", 2, BY(3, 0), "second life");
	suite_close(s);
	suite_open(s);
	suite_expect(s, "key", 2, BY(3, 0), "second life");
	CHECK(s->record[0].life == 2, "life %" PRIu64, s->record[0].life);
}

/* Decimal digits do not grow into the next length by chance: 9 -> 10, 99 -> 100 in lives and versions. */
static void
long_numbers(struct suite *s)
{
	static const uint64_t life[] = {
		9, 10, 99, 100, 0xffffffffu, 0x100000000u, 0x1fffffffffffffu, 0x20000000000001u
	};

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(life); i++) {
		char text[32];

		suite_begin(s, suite_shard(s, "key", 3), life[i]);
		snprintf(text, sizeof(text), "%" PRIu64, life[i]);
		CHECK(suite_write(s, "key", 100 - i, text), "life %s is not newer", text);
		suite_expect(s, "key", life[i], 100 - i, text);
	}
}

static bool
same_record(const struct chp_store_record *a, const struct chp_store_record *b)
{
	return a->life == b->life && a->batch == b->batch && a->newest == b->newest && a->epoch == b->epoch &&
	       a->items == b->items && a->tombstones == b->tombstones;
}

static void
records(struct suite *s)
{
	uint32_t shard = suite_shard(s, "key", 3);
	struct chp_store_record zero = { 0 }, r, after;
	struct chp_store_batch b = { .shard = shard, .before = &s->record[shard], .after = &after };

	for (uint32_t i = 0; i < SHARDS; i++)
		CHECK(same_record(&s->record[i], &zero), "a record in an empty store");
	suite_begin(s, shard, 1);
	suite_write(s, "key", BY(7, 3), "value");
	CHECK(s->record[shard].batch == 1 && s->record[shard].newest == 7, "record");
	/* RECORD(epoch): no items, the same batch. */
	after = s->record[shard];
	after.epoch = 1u << 20 | 5;
	CHECK(s->adapter->write(s->handle, &b, 1, &s->error) == 0, "%s", s->error.text);
	s->record[shard] = after;
	CHECK(s->adapter->load_record(s->handle, shard, &r, &s->error) == 0, "%s", s->error.text);
	CHECK(same_record(&r, &s->record[shard]), "the record is another");
	after = s->record[shard];
	suite_close(s);
	suite_open(s);
	CHECK(same_record(&after, &s->record[shard]), "the record is another after opening again");
	CHECK(s->record[shard].items == 1 && s->record[shard].epoch == (1u << 20 | 5), "record");
	CHECK(same_record(&s->record[(shard + 1) % SHARDS], &zero), "another shard's record");
}

/* The answer to a batch was lost: it comes again. And one that was never expected. */
static void
the_same_again(struct suite *s)
{
	uint32_t shard = suite_shard(s, "key", 3);
	struct chp_store_record before;

	begin_all(s, 1);
	suite_write(s, "key", BY(1, 0), "one");
	before = s->record[shard];
	suite_write(s, "key", BY(2, 0), "two");
	s->record[shard] = before;
	suite_write(s, "key", BY(2, 0), "two");
	suite_expect(s, "key", 1, BY(2, 0), "two");
	CHECK(s->record[shard].batch == 2 && s->record[shard].items == 1, "record");
	suite_write(s, "key", BY(3, 0), "three");
	/* The store was put back to an earlier state, or we are not the only ones: as if batch 2 were the last. */
	s->record[shard].batch = 7;
	suite_put_text(s, "key", BY(4, 0), "four");
	suite_flush_fails(s, shard, CHP_STORE_ERROR_LOST, NULL);
	suite_expect(s, "key", 1, BY(3, 0), "three");
}

/* One call for batches of several shards. */
static void
several_shards(struct suite *s)
{
	struct chp_store_record after[SHARDS];
	struct chp_store_batch b[SHARDS];
	struct chp_store_item item[SHARDS][2];
	char key[SHARDS][2][64];

	begin_all(s, 3);
	for (uint32_t i = 0; i < SHARDS; i++) {
		after[i] = s->record[i];
		after[i].batch = 4 + i;
		after[i].newest = 10 + i;
		for (uint32_t k = 0; k < 2; k++)
			item[i][k] = (struct chp_store_item){ .key = (const uint8_t *)key[i][k],
							      .key_len = (uint8_t)suite_key(s, i, k, key[i][k]),
							      .value = (const uint8_t *)key[i][k], .value_len = 5,
							      .version = BY(10 + i, k), .life = 3 };
		b[i] = (struct chp_store_batch){ .shard = i, .item = item[i], .n_items = 2,
						 .before = &s->record[i], .after = &after[i] };
	}
	CHECK(s->adapter->write(s->handle, b, SHARDS, &s->error) == 0, "%s", s->error.text);
	suite_close(s);
	suite_open(s);
	for (uint32_t i = 0; i < SHARDS; i++) {
		CHECK(s->record[i].batch == 4 + i && s->record[i].newest == 10 + i && s->record[i].items == 2,
		      "record");
		for (uint32_t k = 0; k < 2; k++)
			suite_expect_bytes(s, item[i][k].key, item[i][k].key_len, 3, BY(10 + i, k), item[i][k].value,
					   5);
	}
}

static void
read_many(struct suite *s)
{
	enum { N = CHP_STORE_READS_MAX };
	static struct chp_store_read read[N];
	static uint8_t value[N][VALUE_MAX];
	static char key[N][64];
	uint32_t n = s->is_slow ? 48 : N;

	begin_all(s, 1);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t shard = i % SHARDS, len = suite_key(s, shard, i, key[i]);

		read[i] = (struct chp_store_read){ .key = (const uint8_t *)key[i], .key_len = (uint8_t)len,
						   .value = value[i], .found = 77 };
	}
	for (uint32_t shard = 0; shard < SHARDS; shard++) {
		for (uint32_t i = shard; i < n; i += SHARDS)
			if (i / SHARDS % 3 != 2) /* every third one is not there */
				suite_put(s, key[i], read[i].key_len, BY(i + 1, 0), i / SHARDS % 3 == 1 ? NULL : key[i],
					  read[i].key_len);
		suite_flush(s, shard);
	}
	CHECK(s->adapter->read(s->handle, read, n, &s->error) == 0, "%s", s->error.text);
	for (uint32_t i = 0; i < n; i++) {
		static const uint8_t want[] = { CHP_STORE_FOUND, CHP_STORE_TOMBSTONE, CHP_STORE_ABSENT };

		CHECK(read[i].found == want[i / SHARDS % 3], "%s: found %u", key[i], read[i].found);
		if (read[i].found != CHP_STORE_ABSENT)
			CHECK(read[i].version == BY(i + 1, 0), "%s: version %" PRIx64, key[i], read[i].version);
		if (read[i].found == CHP_STORE_FOUND)
			CHECK(read[i].value_len == read[i].key_len && memcmp(value[i], key[i], read[i].key_len) == 0,
			      "%s: value", key[i]);
	}
}

/* ------------------------------------------------------------------ keys */

struct key {
	uint32_t len;
	uint8_t byte[CHP_KEY_BYTES_MAX];
	bool seen;
};

static void
key_of_text(struct key *k, const char *text)
{
	k->len = (uint32_t)strlen(text);
	memcpy(k->byte, text, k->len);
}

/* Keys that some store or other could stumble over. */
static const char *const hard_text[] = {
	" ", "%", "%20", "/", "//", "a/", "a/b", "a", "/a", "a//b", ".", "..", "./a", "../a", "a/..",
	"a/./b", "~", "*", "?", "#", "a?b", "a&b=c", "a+b", "a b", "a%2Fb", "%00", "%/", "a\nb",
	"a\r\nb", "\x7f", "\"", "'", "\\", "{}", "chaapar", "chaapar:", "chaapar:0", "chaapar:identity",
	"chaapar:record:0", "chaapar:items:0", "chaapar:k:a", ".chaapar/", ".chaapar",
	".chaapar/identity", ".chaapar/record/0", "%2Echaapar/identity", "i", "r", "k", "b", "\xc3\xa9",
	"\xff\xfe", "k\x01", "KEY", "key", "Key",
};

/* And long ones, and every byte. Returns how many. */
static uint32_t
hard_keys(struct key *k, uint32_t step)
{
	uint32_t n = 0;

	for (; n < CHP_ARRAY_LEN(hard_text); n++)
		key_of_text(&k[n], hard_text[n]);
	for (uint32_t len = 0; len < 250; len += 31, n++) { /* zeros */
		k[n].len = len + 1;
		memset(k[n].byte, 0, k[n].len);
	}
	for (uint32_t i = 0; i < 8; i++, n++) { /* long ones, that differ in their end; readable and not */
		static const uint32_t lengths[] = { 186, 187, 200, 249, 250, 250, 232, 187 };

		k[n].len = lengths[i];
		memset(k[n].byte, i < 4 || i == 7 ? 'x' : 0x80, k[n].len);
		k[n].byte[k[n].len - 1] = (uint8_t)('0' + i);
		if (i == 7)
			k[n].byte[5] = '\0';
	}
	for (uint32_t i = 0; i < 256; i += step, n++) { /* every byte at the end of a key */
		k[n].len = 4;
		memcpy(k[n].byte, "zz.", 3);
		k[n].byte[3] = (uint8_t)i;
	}
	return n;
}

static void
mark_seen(void *arg, const struct chp_store_item *item)
{
	struct key *k = arg;

	for (; k->len > 0; k++)
		if (k->len == item->key_len && memcmp(k->byte, item->key, k->len) == 0) {
			CHECK(item->value_len == k->len && memcmp(item->value, k->byte, k->len) == 0, "value of %.*s",
			      (int)k->len, k->byte);
			k->seen = true;
			return;
		}
	CHECK(false, "a scan finds a key that was never written: %.*s", item->key_len, item->key);
}

static void
binary_keys(struct suite *s)
{
	static struct key k[512];
	uint32_t n = hard_keys(k, s->is_slow ? 7 : 1);

	begin_all(s, 1);
	for (uint32_t shard = 0; shard < SHARDS; shard++) {
		for (uint32_t i = 0; i < n; i++)
			if (suite_shard(s, k[i].byte, k[i].len) == shard)
				suite_put(s, k[i].byte, k[i].len, BY(i + 1, 0), k[i].byte, k[i].len);
		suite_flush(s, shard);
	}
	suite_close(s); /* nothing of our own was overwritten */
	suite_open(s);
	for (uint32_t i = 0; i < n; i++)
		suite_expect_bytes(s, k[i].byte, k[i].len, 1, BY(i + 1, 0), k[i].byte, k[i].len);
	if ((s->flags & CHP_STORE_SCANS) == 0)
		return;
	for (uint32_t shard = 0; shard < SHARDS; shard++)
		suite_scan(s, shard, 0, false, 4096, 64, mark_seen, k);
	for (uint32_t i = 0; i < n; i++)
		CHECK(k[i].seen, "a scan does not find %.*s, %" PRIu32 " bytes", (int)k[i].len, k[i].byte, k[i].len);
}

/* ------------------------------------------------------------------ scans */

struct sight {
	uint32_t of_life[3], tombstones, times[2048];
	uint64_t version[2048];
};

/* Values are the key's number as text. */
static void
count_item(void *arg, const struct chp_store_item *item)
{
	struct sight *t = arg;
	unsigned int i = 0;

	CHECK(item->life < 3, "life %" PRIu64, item->life);
	CHECK(item->key_len < 40 && sscanf((const char *)item->key, "key-%u-", &i) == 1 && i < 2048, "key %.*s",
	      item->key_len, item->key);
	t->of_life[item->life]++;
	t->times[i]++;
	t->version[i] = item->version;
	if ((item->flags & CHP_HOST_TOMBSTONE) != 0)
		t->tombstones++;
	else
		CHECK(item->value_len == 4 && memcmp(item->value, "abcd", 4) == 0, "value of %.*s", item->key_len,
		      item->key);
}

/* n keys of shard 0, from `first` on, in one batch; every tenth a tombstone. */
static void
write_keys(struct suite *s, uint32_t first, uint32_t n, uint64_t version)
{
	static char key[2048][64];

	for (uint32_t i = first; i < first + n; i++) {
		uint32_t len = suite_key(s, 0, i, key[i]);

		suite_put(s, key[i], len, version, i % 10 == 9 ? NULL : "abcd", 4);
	}
	suite_flush(s, 0);
}

/* Old ones and those of this life apart, in parts of one item, few, and many. */
static void
scans(struct suite *s)
{
	static const uint32_t bytes[] = { 1, 500, 100000 }, items[] = { 300, 7, 300 };
	const uint32_t n = s->is_slow ? 20 : 100;

	suite_begin(s, 0, 1);
	write_keys(s, 0, n + n / 2, BY(1, 0));
	suite_begin(s, 0, 2);
	write_keys(s, n, n, BY(1, 0));
	suite_begin(s, 1, 2);
	suite_put_text(s, "of another shard", BY(1, 0), "value");
	suite_flush(s, suite_shard(s, "of another shard", 16) == 0 ? 0 : 1);
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(bytes); i++) {
		struct sight old = { 0 }, now = { 0 };

		CHECK(suite_scan(s, 0, i, true, bytes[i], items[i], count_item, &old) == n, "%" PRIu32 " old",
		      old.of_life[1]);
		CHECK(old.of_life[1] == n && old.tombstones == n / 10, "%" PRIu32 " tombstones", old.tombstones);
		CHECK(suite_scan(s, 0, i, false, bytes[i], items[i], count_item, &now) == n,
		      "%" PRIu32 " of this life", now.of_life[2]);
		CHECK(now.of_life[2] == n && now.tombstones == n / 10, "%" PRIu32 " tombstones", now.tombstones);
		for (uint32_t k = 0; k < 2 * n; k++)
			CHECK(old.times[k] == (k < n) && now.times[k] == (k >= n), "key %" PRIu32, k);
	}
}

/* Two scans at a time, while others write: what was there from beginning to end comes. */
static void
scans_while_writing(struct suite *s)
{
	struct chp_store_scan a = { .id = 0 }, b = { .id = 64 };
	struct sight seen_a = { 0 }, seen_b = { 0 };
	uint32_t n = s->is_slow ? 60 : 600, next = n;

	suite_begin(s, 0, 2);
	write_keys(s, 0, n, BY(1, 0));
	while (!a.end || !b.end) {
		if (!a.end)
			suite_scan_part(s, 0, &a, 2000, 300, count_item, &seen_a);
		if (!b.end)
			suite_scan_part(s, 0, &b, 5000, 300, count_item, &seen_b);
		if (next < 2 * n)
			write_keys(s, next, n / 12, BY(2, 0));
		next += n / 12;
	}
	for (uint32_t k = 0; k < n; k++)
		CHECK(seen_a.times[k] > 0 && seen_b.times[k] > 0, "key %" PRIu32 " was not seen", k);
	/* From the beginning, although the last scan of that number did not end. */
	memset(&seen_a, 0, sizeof(seen_a));
	memset(&a, 0, sizeof(a));
	suite_scan_part(s, 0, &a, 2000, 300, count_item, &seen_a);
	memset(&seen_a, 0, sizeof(seen_a));
	suite_scan(s, 0, 0, false, 20000, 300, count_item, &seen_a);
	for (uint32_t k = 0; k < n; k++)
		CHECK(seen_a.times[k] > 0, "key %" PRIu32 " was not seen", k);
}

/* ------------------------------------------------------------------ whose it is */

static void
refuses(struct suite *s, enum chp_host_refusal refusal, const char *text)
{
	CHECK(!suite_try_open(s), "another's store was opened");
	CHECK(s->error.kind == CHP_STORE_ERROR_REFUSED && s->error.refusal == refusal, "kind %d refusal %d: %s",
	      s->error.kind, s->error.refusal, s->error.text);
	CHECK(strstr(s->error.text, text) != NULL, "%s", s->error.text);
}

static void
identity(struct suite *s)
{
	struct chp_store_identity ours = s->id;

	begin_all(s, 1);
	suite_write(s, "key", BY(1, 0), "value");
	suite_close(s);
	snprintf(s->id.cluster, sizeof(s->id.cluster), "another");
	refuses(s, CHP_HOST_BAD_CLUSTER, "another");
	s->id = ours;
	s->id.node++;
	refuses(s, CHP_HOST_BAD_NODE, "node");
	s->id = ours;
	s->id.shards++;
	refuses(s, CHP_HOST_BAD_SHARD, "shards");
	s->id = ours;
	s->id.hash_seed++;
	refuses(s, CHP_HOST_BAD_CLUSTER, "seed");
	s->id = ours;
	s->id.cluster_hash++; /* harmless */
	suite_open(s);
	suite_expect(s, "key", 1, BY(1, 0), "value");
}

static void
configuration(struct suite *s)
{
	static const struct {
		const char *type, *key, *value;
	} wrong[] = {
		{ "redis", "path", LONG_PATH },
		{ "redis", "username", "alone" },
		{ "memcached", "path", LONG_PATH },
		{ "s3", "endpoint", "10.0.0.5:9000" },
		{ "s3", "endpoint", "https://" },
		{ "s3", "endpoint", "http://10.0.0.5:9000/" },
		{ "s3", "endpoint", "http://10.0.0.5/path" },
		{ "s3", "bucket", "a/b" },
		{ "s3", "bucket", ".." },
		{ "s3", "region", "eu west" },
		{ "s3", "prefix", "/chaapar/" },
		{ "s3", "prefix", "a//b/" },
		{ "s3", "prefix", "../b/" },
		{ "s3", "prefix", "a/../b/" },
	};
	struct chp_store_error e = { 0 };
	json_t *c = json_copy(s->config);

	CHECK(s->adapter->check(s->config, &e) == 0, "%s", e.text);
	json_object_set_new(c, "frobnicate", json_true());
	CHECK(s->adapter->check(c, &e) < 0 && strstr(e.text, "frobnicate") != NULL, "%s", e.text);
	json_object_clear(c);
	for (uint32_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		json_t *w = json_copy(s->config);

		if (strcmp(wrong[i].type, s->adapter->name) == 0) {
			json_object_set_new(w, wrong[i].key, json_string(wrong[i].value));
			CHECK(s->adapter->check(w, &e) < 0 && strncmp(e.text, wrong[i].key, strlen(wrong[i].key)) == 0,
			      "%s %s: %s", wrong[i].key, wrong[i].value, e.text);
		}
		json_decref(w);
	}
	CHECK(chp_adapter_find(s->adapter->name) == s->adapter, "%s is not in the registry", s->adapter->name);
	json_decref(c);
}

/* ------------------------------------------------------------------ at random */

#define MODEL_KEYS_MAX 300u

struct model {
	char key[64];
	uint32_t len, shard;
	uint64_t life, version; /* life 0: absent */
	bool is_tombstone;
	uint32_t value_len;
	uint8_t value[64];
};

static uint32_t
model_keys(const struct suite *s)
{
	return s->is_slow ? 20 : MODEL_KEYS_MAX;
}

static void
random_batch(struct suite *s, struct model *m, uint32_t shard)
{
	static uint8_t value[256][64];
	uint32_t n = suite_random() % (s->is_slow ? 20 : 60);
	uint64_t newer = 0;

	for (uint32_t i = 0; i < n; i++) {
		struct model *k = &m[suite_random() % model_keys(s)];
		uint64_t version = BY(1 + suite_random() % 50, suite_random() % 3), life = s->record[shard].life;
		bool tombstone = suite_random() % 5 == 0;
		uint32_t len = suite_random() % sizeof(value[0]);

		if (k->shard != shard)
			continue;
		memset(value[i], (int)suite_random(), len);
		suite_put(s, k->key, k->len, version, tombstone ? NULL : value[i], len);
		if (!chp_store_is_newer(life, version, k->life, k->version))
			continue;
		newer++;
		k->life = life;
		k->version = version;
		k->is_tombstone = tombstone;
		k->value_len = len;
		memcpy(k->value, value[i], len);
	}
	CHECK(suite_flush(s, shard) <= newer, "more were newer than could be");
}

static void
compare_with_model(struct suite *s, const struct model *m)
{
	struct chp_store_record want[SHARDS] = { 0 };

	for (uint32_t i = 0; i < model_keys(s); i++) {
		if (m[i].life == 0) {
			suite_expect_absent(s, m[i].key);
			continue;
		}
		want[m[i].shard].items++;
		want[m[i].shard].tombstones += m[i].is_tombstone;
		suite_expect_bytes(s, m[i].key, m[i].len, m[i].life, m[i].version,
				   m[i].is_tombstone ? NULL : m[i].value, m[i].value_len);
	}
	for (uint32_t i = 0; i < SHARDS; i++)
		CHECK(s->record[i].items == want[i].items && s->record[i].tombstones == want[i].tombstones,
		      "shard %" PRIu32 ": %" PRIu64 " items %" PRIu64 " tombstones, not %" PRIu64 " %" PRIu64, i,
		      s->record[i].items, s->record[i].tombstones, want[i].items, want[i].tombstones);
}

static void
at_random(struct suite *s)
{
	static struct model m[MODEL_KEYS_MAX];

	for (uint32_t i = 0; i < model_keys(s); i++) {
		m[i].shard = i % SHARDS;
		m[i].len = suite_key(s, m[i].shard, i, m[i].key);
	}
	for (uint64_t life = 1; life <= 3; life++) {
		begin_all(s, life);
		for (uint32_t i = 0; i < (s->is_slow ? 5 : 20); i++)
			random_batch(s, m, suite_random() % SHARDS);
		compare_with_model(s, m);
		suite_close(s);
		suite_open(s);
	}
	compare_with_model(s, m);
}

/* As large as the shards' ends make them. */
static void
large_batches(struct suite *s)
{
	static char key[1024][64];
	static uint8_t value[VALUE_MAX];
	uint32_t n = s->is_slow ? 100 : 1024;

	begin_all(s, 1);
	for (uint32_t i = 0; i < n; i++)
		suite_put(s, key[i], suite_key(s, 0, i, key[i]), BY(1, 0), value, i % 64 == 0 ? VALUE_MAX : 32);
	CHECK(suite_flush(s, 0) == n, "not all were newer");
	for (uint32_t i = 0; i < n; i += 100)
		suite_expect_bytes(s, key[i], (uint32_t)strlen(key[i]), 1, BY(1, 0), value,
				   i % 64 == 0 ? VALUE_MAX : 32);
	CHECK(s->record[0].items == n, "%" PRIu64 " items", s->record[0].items);
}

/* Another program finds the values under their keys. */
static void
others_read(struct suite *s)
{
	begin_all(s, 1);
	suite_write(s, "apple", BY(1, 0), "red");
	suite_write(s, "pear", BY(1, 0), "green");
	suite_write(s, "plum", BY(1, 0), "blue");
	suite_write(s, "plum", BY(2, 0), NULL);
	suite_close(s);
	CHECK(suite_server_try(s, "holds apple red") == 0, "another program does not find apple");
	CHECK(suite_server_try(s, "holds pear green") == 0, "another program does not find pear");
	CHECK(suite_server_try(s, "holds plum") == 0, "another program finds a deleted key");
}

const struct suite_case suite_cases[] = {
	{ "configuration", configuration, NULL, 0 },
	{ "values", values, NULL, 0 },
	{ "newer wins", newer_wins, NULL, 0 },
	{ "within a batch", within_a_batch, NULL, 0 },
	{ "tombstones", tombstones, NULL, 0 },
	{ "lives", lives, NULL, SUITE_REOPENS },
	{ "long numbers", long_numbers, NULL, 0 },
	{ "records", records, NULL, SUITE_REOPENS },
	{ "the same again", the_same_again, NULL, 0 },
	{ "several shards", several_shards, NULL, SUITE_REOPENS },
	{ "read many", read_many, NULL, 0 },
	{ "binary keys", binary_keys, NULL, SUITE_REOPENS },
	{ "scans", scans, NULL, SUITE_SCANS },
	{ "scans while writing", scans_while_writing, NULL, SUITE_SCANS },
	{ "identity", identity, NULL, SUITE_REOPENS },
	{ "at random", at_random, NULL, SUITE_REOPENS },
	{ "large batches", large_batches, NULL, 0 },
	{ "others read", others_read, NULL, SUITE_REOPENS },
	{ NULL, NULL, NULL, 0 },
};
