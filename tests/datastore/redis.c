/* SPDX-License-Identifier: BSD-3-Clause */
/* Redis: out of memory, loading, a replica, without its append-only file, with a password, another program's. */
#include "suite.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of "key". Another key is written as if it were in that shard: it is only looked at with another program. */
static uint32_t
shard_of(const struct suite *s)
{
	return suite_shard(s, "key", 3);
}

/* A batch of two keys fails like this. */
static void
write_fails(struct suite *s, enum chp_store_error_kind kind, const char *text)
{
	suite_put_text(s, "key", V(2), NULL);
	suite_put_text(s, "key3", V(2), "value");
	suite_flush_fails(s, shard_of(s), kind, text);
}

static void
then_succeeds(struct suite *s)
{
	suite_put_text(s, "key", V(2), NULL);
	suite_put_text(s, "key3", V(2), "value");
	suite_flush_until(s, shard_of(s), 10000);
	suite_expect(s, "key", 1, V(2), NULL);
	suite_server(s, "holds key3 value");
}

static void
out_of_memory(struct suite *s)
{
	suite_begin_key(s);
	suite_server(s, "config maxmemory 1");
	for (uint32_t i = 0; i < 3; i++)
		write_fails(s, CHP_STORE_ERROR_DOWN, "OOM");
	suite_server(s, "holds key value");
	suite_server(s, "holds key3");
	suite_server(s, "config maxmemory 0");
	then_succeeds(s);
}

static void
replica(struct suite *s)
{
	suite_begin_key(s);
	suite_server(s, "replica");
	for (uint32_t i = 0; i < 2; i++)
		write_fails(s, CHP_STORE_ERROR_DOWN, "READONLY");
	suite_server(s, "master");
	then_succeeds(s);
}

static void
loading(struct suite *s)
{
	suite_begin_key(s);
	for (uint32_t i = 0; i < 800; i++) { /* it looks up from loading every 1024 commands */
		suite_put_text(s, "key", V(i + 2), "value");
		suite_flush(s, shard_of(s));
	}
	suite_server(s, "kill");
	suite_server(s, "start_slowly");
	do { /* the first error is that the connection was cut */
		suite_put_text(s, "key", V(2000), "value");
		CHECK(suite_flush_try(s, shard_of(s)) < 0 && s->error.kind == CHP_STORE_ERROR_SLOW, "%s",
		      s->error.text);
	} while (strcasestr(s->error.text, "loading") == NULL);
	suite_put_text(s, "key", V(2000), "value");
	suite_flush_until(s, shard_of(s), 20000);
	suite_server(s, "holds key value");
	suite_server(s, "kill");
	suite_server(s, "start");
}

/* The first write finds that the script has gone, and loads it again. */
static void
scripts_flushed(struct suite *s)
{
	suite_begin_key(s);
	suite_server(s, "flush_scripts");
	suite_put_text(s, "key", V(2), "second");
	suite_flush(s, shard_of(s));
	suite_server(s, "holds key second");
}

/* It is refused where it may lose data, unless that is allowed; then it says so. */
static void
not_durable(struct suite *s)
{
	static const char *const setting[][3] = { { "appendfsync", "everysec", "always" },
						  { "no-appendfsync-on-rewrite", "yes", "no" },
						  { "maxmemory-policy", "allkeys-lru", "noeviction" },
						  { "appendonly", "no", "yes" } };
	char command[96];

	suite_close(s);
	for (uint32_t i = 0; i < 4; i++) {
		snprintf(command, sizeof(command), "config %s %s", setting[i][0], setting[i][1]);
		suite_server(s, command);
		CHECK(!suite_try_open(s), "opened with %s", command);
		CHECK(s->error.kind == CHP_STORE_ERROR_DOWN && strstr(s->error.text, setting[i][0]) != NULL, "%s",
		      s->error.text);
		suite_configure(s, "allow_loss", json_true());
		suite_open(s);
		CHECK((s->flags & CHP_STORE_VOLATILE) != 0 && (s->flags & CHP_STORE_ALLOW_LOSS) != 0, "flags %u",
		      s->flags);
		suite_close(s);
		suite_configure(s, "allow_loss", json_false());
		snprintf(command, sizeof(command), "config %s %s", setting[i][0], setting[i][2]);
		suite_server(s, command);
		suite_open(s);
		CHECK((s->flags & CHP_STORE_VOLATILE) == 0, "flags %u", s->flags);
		suite_close(s);
	}
}

static void
password(struct suite *s)
{
	suite_close(s);
	suite_server(s, "config requirepass secret");
	CHECK(!suite_try_open(s) && s->error.kind == CHP_STORE_ERROR_DOWN, "%s", s->error.text);
	CHECK(strstr(s->error.text, "NOAUTH") != NULL, "%s", s->error.text);
	suite_configure(s, "password", json_string("wrong"));
	CHECK(!suite_try_open(s) && strstr(s->error.text, "WRONGPASS") != NULL, "%s", s->error.text);
	suite_configure(s, "password", json_string("secret"));
	suite_open(s);
	suite_begin_key(s);
	suite_server(s, "no_password secret");
}

/* A server without that command says what it was given: that is no text for logs. */
static void
password_is_kept(struct suite *s)
{
	suite_close(s);
	suite_server(s, "kill");
	suite_server(s, "start --rename-command AUTH \"''\"");
	suite_configure(s, "password", json_string("s3cr3t"));
	CHECK(!suite_try_open(s) && strstr(s->error.text, "unknown command") != NULL, "%s", s->error.text);
	CHECK(strstr(s->error.text, "s3cr3t") == NULL, "%s", s->error.text);
	suite_server(s, "kill");
	suite_server(s, "start");
}

static void
foreign(struct suite *s)
{
	suite_close(s);
	suite_server(s, "reset");
	suite_server(s, "put theirs value");
	CHECK(!suite_try_open(s) && s->error.kind == CHP_STORE_ERROR_REFUSED, "%s", s->error.text);
	suite_configure(s, "db", json_integer(3));
	suite_open(s);
	suite_begin_key(s);
	suite_server(s, "holds theirs value");
}

/* What another program has done to a value is an error of that key. */
static void
meddled_with(struct suite *s)
{
	suite_meddle(s, "remove key", "removed");
}

/*
 * A call whose client gave up, executed behind what came after it: behind its own retry, and behind the record of an
 * epoch. It changes nothing.
 */
static void
late_call(struct suite *s)
{
	uint32_t shard = shard_of(s);
	struct chp_store_record before, after, epoch, now;
	struct chp_store_item item = { .key = (const uint8_t *)"key", .key_len = 3, .value = (const uint8_t *)"value",
				       .value_len = 5, .version = V(1), .life = 1 };
	struct chp_store_batch late = { .shard = shard, .item = &item, .n_items = 1, .before = &before,
					.after = &after };
	struct chp_store_batch record = { .shard = shard, .before = &after, .after = &epoch };

	suite_begin(s, shard, 1);
	before = after = s->record[shard];
	after.batch = 1;
	after.newest = 1;
	CHECK(s->adapter->write(s->handle, &late, 1, &s->error) == 0, "%s", s->error.text);
	epoch = after;
	epoch.epoch = 99999;
	CHECK(s->adapter->write(s->handle, &record, 1, &s->error) == 0, "%s", s->error.text);
	for (uint64_t of_late = 0; of_late <= 20000; of_late += 20000) {
		before.epoch = after.epoch = of_late;
		CHECK(s->adapter->write(s->handle, &late, 1, &s->error) == 0, "%s", s->error.text);
		CHECK(s->adapter->load_record(s->handle, shard, &now, &s->error) == 0, "%s", s->error.text);
		CHECK(now.epoch == 99999 && now.batch == 1 && now.items == 1, "epoch %" PRIu64, now.epoch);
	}
	epoch.epoch = 100000;
	CHECK(s->adapter->write(s->handle, &record, 1, &s->error) == 0, "%s", s->error.text);
	CHECK(s->adapter->load_record(s->handle, shard, &now, &s->error) == 0, "%s", s->error.text);
	CHECK(now.epoch == 100000, "epoch %" PRIu64, now.epoch);
}

/* Its record tells of all of a batch, or of nothing; what it was left with is taken again. */
static void
killed_amid(struct suite *s, struct chp_store_batch *b)
{
	struct chp_store_record *after = b->after, found;
	struct chp_store_item *item = (struct chp_store_item *)(uintptr_t)b->item;
	const struct chp_store_item *last = &item[b->n_items - 1]; /* that is read as of the shard in which it lies */
	pid_t killer = fork();
	int status;

	while (suite_shard(s, last->key, last->key_len) != 0)
		last--;
	if (killer == 0) {
		suite_sleep_ms(200);
		_exit(suite_server_try(s, "kill"));
	}
	do {
		after->batch = s->record[0].batch + 1;
		after->newest++;
		for (uint32_t i = 0; i < b->n_items; i++)
			item[i].version = V(after->newest);
		if (s->adapter->write(s->handle, b, 1, &s->error) < 0)
			break;
		s->record[0] = *after;
	} while (true);
	CHECK(waitpid(killer, &status, 0) == killer && status == 0, "kill");
	suite_server(s, "start");
	while (s->adapter->load_record(s->handle, 0, &found, &s->error) < 0)
		suite_sleep_ms(20);
	suite_look_up(s, last->key, last->key_len);
	CHECK(found.batch == s->record[0].batch || s->read.version == last->version,
	      "batch %" PRIu64 " without its end", found.batch);
	while (s->adapter->write(s->handle, b, 1, &s->error) < 0) {
		CHECK(s->error.kind == CHP_STORE_ERROR_SLOW, "%s", s->error.text);
		suite_sleep_ms(20);
	}
	suite_look_up(s, last->key, last->key_len);
	CHECK(s->read.version == last->version, "version %" PRIx64, s->read.version);
}

/*
 * As after an outage: all that waits is one batch. Redis is not at it for longer than the time-out; and when it is
 * killed meanwhile, the record does not tell of what is only a part.
 */
static void
huge_batch(struct suite *s)
{
	enum { N = 100000 };
	static struct chp_store_item item[N];
	static char key[N][24];
	struct chp_store_record after;
	struct chp_store_batch b = { .shard = 0, .item = item, .n_items = N, .before = &s->record[0], .after = &after };
	uint64_t end = suite_now_ms() + 15000;

	suite_begin(s, 0, 1);
	for (uint32_t i = 0; i < N; i++)
		item[i] = (struct chp_store_item){ .key = (const uint8_t *)key[i],
						   .value = (const uint8_t *)"value", .value_len = 5, .version = V(1),
						   .life = 1 };
	for (uint32_t i = 0; i < N; i++)
		item[i].key_len = (uint8_t)snprintf(key[i], sizeof(key[i]), "key-%" PRIu32, i);
	for (uint32_t round = 0; round < 2; round++) { /* the second time there is nothing newer */
		after = s->record[0];
		after.batch = 1;
		after.newest = 1;
		while (s->adapter->write(s->handle, &b, 1, &s->error) < 0) {
			CHECK(s->error.kind == CHP_STORE_ERROR_SLOW && suite_now_ms() < end, "%s", s->error.text);
			suite_sleep_ms(20);
		}
		CHECK(after.items == N, "%" PRIu64 " items", after.items);
		CHECK(round == 0 || b.applied == 0, "%" PRIu64 " applied", b.applied);
	}
	s->record[0] = after;
	suite_server(s, "holds key-0 value");
	suite_server(s, "holds key-99999 value");
	killed_amid(s, &b);
}

const struct suite_case suite_redis[] = {
	{ "out of memory", out_of_memory, "redis", 0 },
	{ "replica", replica, "redis", 0 },
	{ "loading", loading, "redis", 0 },
	{ "late call", late_call, "redis", 0 },
	{ "huge batch", huge_batch, "redis", 0 },
	{ "scripts flushed", scripts_flushed, "redis", 0 },
	{ "not durable", not_durable, "redis", 0 },
	{ "password", password, "redis", 0 },
	{ "password is kept", password_is_kept, "redis", 0 },
	{ "foreign", foreign, "redis", 0 },
	{ "meddled with", meddled_with, "redis", 0 },
	{ NULL, NULL, NULL, 0 },
};
