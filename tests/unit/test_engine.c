/* SPDX-License-Identifier: BSD-3-Clause */
/* The threads that run an adapter, over one that fails, hangs and is slow when a test wants it. */
#include "base/bytes.h"
#include "datastore/batch.h"
#include "datastore/engine.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define MS UINT64_C(1000000)
#define SHARDS 4u
/* Nothing here takes long; this ends a test that waits for what never comes. */
#define PATIENCE_S 20

extern const struct chp_adapter chp_adapter_memory;

/* ------------------------------------------------------------------ the adapter */

/* What it does next. Set by the test, read by the engine's threads. */
static struct {
	atomic_uint open_errors, record_errors, write_errors, read_errors, scan_errors; /* so many calls fail */
	atomic_uint kind;      /* enum chp_store_error_kind of them */
	atomic_bool hold_writes, hold_reads;
	atomic_uint held;      /* calls that wait for the end of the hold */
	atomic_uint writes, batches, most, closed, detached;
	pthread_mutex_t lock;
	pthread_cond_t released;
} fake = { .lock = PTHREAD_MUTEX_INITIALIZER, .released = PTHREAD_COND_INITIALIZER };

static sem_t news;

static bool
take(atomic_uint *n)
{
	unsigned int have = atomic_load(n);

	while (have > 0 && !atomic_compare_exchange_weak(n, &have, have - 1)) {
	}
	return have > 0;
}

static int
fails(struct chp_store_error *e, const char *what)
{
	const enum chp_store_error_kind kind = (enum chp_store_error_kind)atomic_load(&fake.kind);

	return kind == CHP_STORE_ERROR_REFUSED ? chp_store_refuse(e, CHP_HOST_BAD_NODE, "%s refused", what)
					       : chp_store_fail(e, kind, "%s failed", what);
}

static void
hold(atomic_bool *on)
{
	(void)pthread_mutex_lock(&fake.lock);
	atomic_fetch_add(&fake.held, 1);
	(void)sem_post(&news);
	while (atomic_load(on))
		(void)pthread_cond_wait(&fake.released, &fake.lock);
	atomic_fetch_sub(&fake.held, 1);
	(void)pthread_mutex_unlock(&fake.lock);
}

static void
release(atomic_bool *on)
{
	(void)pthread_mutex_lock(&fake.lock);
	atomic_store(on, false);
	(void)pthread_cond_broadcast(&fake.released);
	(void)pthread_mutex_unlock(&fake.lock);
}

static void *
fake_open(const json_t *config, const struct chp_store_identity *id, struct chp_store_error *e)
{
	if (take(&fake.open_errors)) {
		(void)fails(e, "open");
		return NULL;
	}
	return chp_adapter_memory.open(config, id, e);
}

static void
fake_close(void *store)
{
	atomic_fetch_add(&fake.closed, 1);
	chp_adapter_memory.close(store);
}

static void
fake_detach(void *handle)
{
	(void)handle;
	atomic_fetch_add(&fake.detached, 1);
}

static int
fake_load_record(void *handle, uint32_t shard, struct chp_store_record *r, struct chp_store_error *e)
{
	return take(&fake.record_errors) ? fails(e, "record") : chp_adapter_memory.load_record(handle, shard, r, e);
}

static int
fake_write(void *handle, struct chp_store_batch *batch, uint32_t n, struct chp_store_error *e)
{
	hold(&fake.hold_writes);
	atomic_fetch_add(&fake.writes, 1);
	atomic_fetch_add(&fake.batches, n);
	if (n > atomic_load(&fake.most))
		atomic_store(&fake.most, n);
	/* The worst kind of failure: it is stored, and nobody knows. */
	if (take(&fake.write_errors)) {
		(void)chp_adapter_memory.write(handle, batch, n, e);
		return fails(e, "write");
	}
	return chp_adapter_memory.write(handle, batch, n, e);
}

static int
fake_read(void *handle, struct chp_store_read *read, uint32_t n, struct chp_store_error *e)
{
	hold(&fake.hold_reads);
	return take(&fake.read_errors) ? fails(e, "read") : chp_adapter_memory.read(handle, read, n, e);
}

static int
fake_scan(void *handle, uint32_t shard, struct chp_store_scan *scan, struct chp_store_error *e)
{
	return take(&fake.scan_errors) ? fails(e, "scan") : chp_adapter_memory.scan(handle, shard, scan, e);
}

static struct chp_adapter adapter;

/* ------------------------------------------------------------------ the bench */

static struct chp_engine *engine;
static struct chp_engine_config config;
static struct chp_store_info info;
static uint64_t seen;
static struct chp_store_request *done[64];
static uint32_t n_done;

static void
on_news(void *arg)
{
	(void)arg;
	(void)sem_post(&news);
}

static void
start(void)
{
	int err;

	seen = 0;
	engine = chp_engine_start(&config, &err);
	cr_assert_not_null(engine);
	cr_assert_eq(err, 0);
}

static void
setup(void)
{
	adapter = chp_adapter_memory;
	adapter.open = fake_open;
	adapter.close = fake_close;
	adapter.detach = fake_detach;
	adapter.load_record = fake_load_record;
	adapter.write = fake_write;
	adapter.read = fake_read;
	adapter.scan = fake_scan;
	(void)sem_init(&news, 0, 0);
	config = (struct chp_engine_config){ .adapter = &adapter,
					     .store = json_object(),
					     .identity = { .cluster = "test", .shards = SHARDS, .hash_seed = 1 },
					     .readers = 2,
					     .retry_ns_min = MS / 10,
					     .retry_ns_max = 2 * MS,
					     .down_ns = 3600000 * MS,
					     .stop_ns = 10000 * MS,
					     .wake = on_news };
	atomic_store(&fake.kind, CHP_STORE_ERROR_SLOW);
}

static void
teardown(void)
{
	if (engine != NULL)
		cr_assert(chp_engine_stop(engine));
	json_decref((json_t *)(uintptr_t)config.store);
}

TestSuite(engine, .init = setup, .fini = teardown, .timeout = 60);

static void
poll_all(void)
{
	n_done += chp_engine_poll(engine, done + n_done, 64 - n_done);
	(void)chp_engine_info(engine, &seen, &info);
}

/* Wait until a condition holds; the engine says when it is worth looking. */
#define UNTIL(cond)                                                                    \
	do {                                                                           \
		struct timespec until_;                                                \
                                                                                       \
		(void)clock_gettime(CLOCK_REALTIME, &until_);                          \
		until_.tv_sec += PATIENCE_S;                                           \
		poll_all();                                                            \
		while (!(cond)) {                                                      \
			cr_assert_eq(sem_timedwait(&news, &until_), 0, "waits for " #cond); \
			poll_all();                                                    \
		}                                                                      \
	} while (0)

static void
start_open(void)
{
	start();
	UNTIL(info.refusal == CHP_HOST_OK && info.state == CHP_STORE_OK);
}

static struct chp_store_item
item_of(const char *key, const char *value, uint64_t counter)
{
	return (struct chp_store_item){ .key = (const uint8_t *)key,
					.value = (const uint8_t *)value,
					.version = counter << 16,
					.life = 1,
					.value_len = (uint32_t)strlen(value),
					.key_len = (uint8_t)strlen(key) };
}

static struct chp_store_request
write_of(uint32_t shard, uint64_t seq, const struct chp_store_item *item)
{
	return (struct chp_store_request){
		.type = CHP_STORE_WRITE, .shard = (uint16_t)shard, .life = 1, .seq = seq, .item = item, .n_items = 1
	};
}

static void
submit(struct chp_store_request *r)
{
	chp_engine_submit(engine, &r, 1);
}

static void
begin(uint32_t shard)
{
	struct chp_store_request r = { .type = CHP_STORE_BEGIN, .shard = (uint16_t)shard, .life = 1 };
	const uint32_t before = n_done;

	submit(&r);
	UNTIL(n_done == before + 1);
	cr_assert_eq(r.record.life, 1);
	n_done = before;
}

/* ------------------------------------------------------------------ tests */

Test(engine, writes_records_and_reads)
{
	struct chp_store_item item = item_of("key", "value", 77);
	struct chp_store_request write = write_of(2, 5, &item);
	struct chp_store_request record = { .type = CHP_STORE_RECORD, .shard = 2, .life = 1, .epoch = 9 };
	uint8_t value[64];
	struct chp_store_read r = { .key = (const uint8_t *)"key", .key_len = 3, .value = value };
	struct chp_store_request read = { .type = CHP_STORE_READ, .shard = 2, .read = &r, .n_reads = 1 };
	struct chp_engine_counters c;

	start_open();
	cr_assert_not_null(strstr(info.name, "memory"));
	begin(2);
	submit(&write);
	submit(&record);
	UNTIL(n_done == 2);
	cr_assert_eq(done[0], &write);
	cr_assert_eq(write.record.batch, 5);
	cr_assert_eq(write.record.newest, 77);
	cr_assert_eq(write.record.items, 1);
	cr_assert_eq(write.record.epoch, 0);
	cr_assert_eq(done[1], &record);
	cr_assert_eq(record.record.epoch, 9);
	cr_assert_eq(record.record.batch, 5);
	submit(&read);
	UNTIL(n_done == 3);
	cr_assert_eq(r.found, CHP_STORE_FOUND);
	cr_assert_eq(r.version, UINT64_C(77) << 16);
	cr_assert_eq(r.value_len, 5);
	cr_assert_eq(memcmp(value, "value", 5), 0);
	chp_engine_stats(engine, &c);
	cr_assert_eq(c.items, 1);
	cr_assert_eq(c.applied, 1);
	cr_assert_eq(c.reads, 1);
	cr_assert_eq(c.opens, 1);
}

Test(engine, what_waits_for_all_shards_is_one_commit)
{
	struct chp_store_item item = item_of("key", "value", 1);
	struct chp_store_request first = write_of(0, 1, &item), more[SHARDS + 1];

	start_open();
	for (uint32_t i = 0; i < SHARDS; i++)
		begin(i);
	atomic_store(&fake.most, 0);
	atomic_store(&fake.hold_writes, true);
	submit(&first);
	UNTIL(atomic_load(&fake.held) == 1);
	for (uint32_t i = 0; i < SHARDS; i++) {
		more[i] = write_of(i, 2, &item);
		submit(&more[i]);
	}
	more[SHARDS] = write_of(0, 3, &item);
	submit(&more[SHARDS]);
	release(&fake.hold_writes);
	UNTIL(n_done == SHARDS + 2);
	cr_assert_eq(atomic_load(&fake.most), SHARDS, "a batch of each shard in one commit");
	cr_assert_eq(done[0], &first);
	cr_assert_eq(done[n_done - 1], &more[SHARDS], "in order");
}

Test(engine, a_write_that_fails_is_tried_until_it_succeeds)
{
	struct chp_store_item item = item_of("key", "value", 1);
	struct chp_store_request write = write_of(0, 1, &item);
	struct chp_engine_counters c;

	start_open();
	begin(0);
	atomic_store(&fake.write_errors, UINT32_MAX);
	submit(&write);
	UNTIL(info.state == CHP_STORE_SLOW);
	cr_assert_str_eq(info.text, "write failed");
	atomic_store(&fake.write_errors, 0);
	UNTIL(n_done == 1);
	UNTIL(info.state == CHP_STORE_OK);
	cr_assert_str_empty(info.text);
	cr_assert_geq(info.errors, 1);
	cr_assert_eq(write.record.items, 1, "though it was stored more than once");
	chp_engine_stats(engine, &c);
	cr_assert_eq(c.write_errors, info.errors);
}

Test(engine, a_store_that_needs_help_is_down_at_once)
{
	struct chp_store_item item = item_of("key", "value", 1);
	struct chp_store_request write = write_of(0, 1, &item);

	start_open();
	begin(0);
	atomic_store(&fake.kind, CHP_STORE_ERROR_DOWN);
	atomic_store(&fake.write_errors, UINT32_MAX);
	submit(&write);
	UNTIL(info.state == CHP_STORE_DOWN);
	atomic_store(&fake.write_errors, 0);
	UNTIL(n_done == 1 && info.state == CHP_STORE_OK);
}

Test(engine, errors_that_do_not_end_are_down)
{
	struct chp_store_item item = item_of("key", "value", 1);
	struct chp_store_request write = write_of(0, 1, &item);

	config.down_ns = 5 * MS;
	start_open();
	begin(0);
	atomic_store(&fake.write_errors, UINT32_MAX);
	submit(&write);
	UNTIL(info.state == CHP_STORE_DOWN);
	atomic_store(&fake.write_errors, 0);
	UNTIL(n_done == 1 && info.state == CHP_STORE_OK);
}

Test(engine, a_store_that_is_not_there_is_opened_later)
{
	atomic_store(&fake.open_errors, UINT32_MAX);
	start();
	UNTIL(info.refusal == CHP_HOST_NO_STORE && strcmp(info.text, "open failed") == 0);
	atomic_store(&fake.open_errors, 0);
	UNTIL(info.refusal == CHP_HOST_OK && info.state == CHP_STORE_OK);
	cr_assert_geq(info.errors, 1);
}

/* As fast as an owner can be: in the very call that says that there is news. */
static _Atomic(struct chp_engine *) started;
static atomic_bool was_open;

static void
look_at_once(void *arg)
{
	struct chp_store_info now = { .refusal = CHP_HOST_NO_STORE };
	struct chp_store_record r;
	struct chp_engine *e;
	uint64_t none = 0;

	(void)arg;
	while ((e = atomic_load(&started)) == NULL) {
	}
	(void)chp_engine_info(e, &none, &now);
	if (now.refusal == CHP_HOST_OK && !atomic_exchange(&was_open, true)) {
		chp_engine_record(e, 0, &r);
		(void)sem_post(&news);
	}
}

Test(engine, what_is_said_to_be_open_can_be_used)
{
	config.wake = look_at_once;
	start();
	atomic_store(&started, engine);
	UNTIL(atomic_load(&was_open));
}

Test(engine, anothers_store_is_refused_and_looked_at_again)
{
	atomic_store(&fake.kind, CHP_STORE_ERROR_REFUSED);
	atomic_store(&fake.open_errors, UINT32_MAX);
	start();
	UNTIL(info.refusal == CHP_HOST_BAD_NODE);
	cr_assert_eq(info.state, CHP_STORE_DOWN);
	cr_assert_str_eq(info.text, "open refused");
	atomic_store(&fake.open_errors, 0);
	UNTIL(info.refusal == CHP_HOST_OK);
}

Test(engine, a_store_that_lost_something_is_not_written_any_more)
{
	struct chp_store_item item = item_of("key", "value", 1);
	struct chp_store_request write = write_of(0, 1, &item);

	start_open();
	begin(0);
	atomic_store(&fake.kind, CHP_STORE_ERROR_LOST);
	atomic_store(&fake.write_errors, 1);
	submit(&write);
	UNTIL(chp_engine_is_lost(engine));
	cr_assert(chp_engine_stop(engine));
	engine = NULL;
	cr_assert_eq(n_done, 0);
	cr_assert_eq(atomic_load(&fake.closed), 1);
}

Test(engine, a_read_that_fails_is_tried_once_more)
{
	uint8_t value[64];
	struct chp_store_read r = { .key = (const uint8_t *)"key", .key_len = 3, .value = value };
	struct chp_store_request read = { .type = CHP_STORE_READ, .read = &r, .n_reads = 1 };

	start_open();
	atomic_store(&fake.read_errors, 1);
	submit(&read);
	UNTIL(n_done == 1);
	cr_assert_eq(r.found, CHP_STORE_ABSENT);
	atomic_store(&fake.read_errors, 2);
	atomic_store(&fake.record_errors, UINT32_MAX); /* it stays so, until a read shows that it is over */
	submit(&read);
	UNTIL(n_done == 2);
	cr_assert_eq(r.found, CHP_STORE_FAILED);
	cr_assert_eq(info.state, CHP_STORE_SLOW);
	atomic_store(&fake.record_errors, 0); /* or the thread that failed says so again, whoever takes the next read */
	submit(&read);
	UNTIL(n_done == 3 && info.state == CHP_STORE_OK);
	cr_assert_eq(r.found, CHP_STORE_ABSENT);
}

/* Nobody asks for anything while a store is down, and what writes has nothing to write: it is found to work again. */
Test(engine, a_store_that_can_be_read_again_is_found_without_a_read)
{
	uint8_t value[64];
	struct chp_store_read r = { .key = (const uint8_t *)"key", .key_len = 3, .value = value };
	struct chp_store_request read = { .type = CHP_STORE_READ, .read = &r, .n_reads = 1 };

	start_open();
	atomic_store(&fake.kind, CHP_STORE_ERROR_DOWN);
	atomic_store(&fake.read_errors, 2);
	atomic_store(&fake.record_errors, UINT32_MAX);
	submit(&read);
	UNTIL(n_done == 1 && info.state == CHP_STORE_DOWN);
	cr_assert_eq(r.found, CHP_STORE_FAILED);
	atomic_store(&fake.record_errors, 0);
	UNTIL(info.state == CHP_STORE_OK);
}

Test(engine, a_store_that_can_be_scanned_again_is_found_without_a_scan)
{
	struct chp_store_item found[8];
	uint8_t room[2048];
	struct chp_store_scan s = { .life = 1, .bytes_max = 1000, .item = found, .n_max = 8, .room = room,
				    .room_bytes = sizeof(room) };
	struct chp_store_request scan = { .type = CHP_STORE_SCAN, .shard = 1, .scan = &s };

	start_open();
	atomic_store(&fake.kind, CHP_STORE_ERROR_DOWN);
	atomic_store(&fake.scan_errors, 1);
	submit(&scan);
	UNTIL(n_done == 1 && info.errors == 1 && info.state == CHP_STORE_OK);
	cr_assert(s.failed);
}

Test(engine, a_slow_read_holds_up_nothing_else)
{
	struct chp_store_item item = item_of("key", "value", 1);
	struct chp_store_request write = write_of(0, 1, &item);
	uint8_t value[64];
	struct chp_store_read r = { .key = (const uint8_t *)"key", .key_len = 3, .value = value };
	struct chp_store_request read = { .type = CHP_STORE_READ, .read = &r, .n_reads = 1 };

	start_open();
	begin(0);
	atomic_store(&fake.hold_reads, true);
	submit(&read);
	UNTIL(atomic_load(&fake.held) == 1);
	submit(&write);
	UNTIL(n_done == 1);
	cr_assert_eq(done[0], &write);
	release(&fake.hold_reads);
	UNTIL(n_done == 2);
	cr_assert_eq(done[1], &read);
}

Test(engine, a_scan_that_fails_says_so)
{
	struct chp_store_item item = item_of("key", "value", 1), found[8];
	uint8_t room[2048];
	const uint32_t shard = chp_store_shard(&config.identity, "key", 3);
	struct chp_store_scan s = { .life = 1, .bytes_max = 1000, .item = found, .n_max = 8, .room = room,
				    .room_bytes = sizeof(room) };
	struct chp_store_request scan = { .type = CHP_STORE_SCAN, .shard = (uint16_t)shard, .scan = &s };
	struct chp_store_request write = write_of(shard, 1, &item);

	start_open();
	begin(shard);
	submit(&write);
	UNTIL(n_done == 1);
	atomic_store(&fake.scan_errors, 1);
	submit(&scan);
	UNTIL(n_done == 2);
	cr_assert(s.failed);
	cr_assert_eq(s.n, 0);
	submit(&scan);
	UNTIL(n_done == 3);
	cr_assert_not(s.failed);
	cr_assert(s.end);
	cr_assert_eq(s.n, 1);
	cr_assert_eq(memcmp(found[0].key, "key", 3), 0);
}

/* S3 writes a large batch for minutes. */
Test(engine, a_long_call_of_a_store_with_time_outs_does_not_hang)
{
	struct chp_store_item item = item_of("key", "value", 1);
	struct chp_store_request write = write_of(0, 1, &item);
	struct timespec now, until;

	adapter.has_timeouts = true;
	config.down_ns = MS;
	start_open();
	begin(0);
	atomic_store(&fake.hold_writes, true);
	submit(&write);
	UNTIL(atomic_load(&fake.held) == 1);
	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += 5 * (long)MS;
	do {
		poll_all();
		cr_assert_eq(info.state, CHP_STORE_OK, "%s", info.text);
		(void)clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec * 1000000000 + now.tv_nsec < until.tv_sec * 1000000000 + until.tv_nsec);
	release(&fake.hold_writes);
	UNTIL(n_done == 1);
}

Test(engine, a_store_that_hangs_is_down_and_does_not_hold_up_the_end)
{
	/* Left behind with the thread that hangs: not this function's. */
	static struct chp_store_item item;
	static struct chp_store_request write;
	struct timespec from, to;

	config.down_ns = MS;
	config.stop_ns = 50 * MS;
	start_open();
	begin(0);
	item = item_of("key", "value", 1);
	write = write_of(0, 1, &item);
	atomic_store(&fake.hold_writes, true);
	submit(&write);
	UNTIL(atomic_load(&fake.held) == 1);
	/* Nothing is reported of a call that does not return: whoever asks is told. */
	while (info.state != CHP_STORE_DOWN)
		poll_all();
	cr_assert_str_eq(info.text, "the store does not answer");
	(void)clock_gettime(CLOCK_MONOTONIC, &from);
	cr_assert_not(chp_engine_stop(engine), "the requests' memory is still the store's");
	(void)clock_gettime(CLOCK_MONOTONIC, &to);
	cr_assert_lt(to.tv_sec - from.tv_sec, 5);
	cr_assert_eq(atomic_load(&fake.closed), 0);
	engine = NULL;
}

Test(engine, ends_with_requests_that_wait)
{
	struct chp_store_item item = item_of("key", "value", 1);
	struct chp_store_request write = write_of(0, 1, &item);

	start_open();
	begin(0);
	atomic_store(&fake.write_errors, UINT32_MAX);
	submit(&write);
	UNTIL(info.state == CHP_STORE_SLOW);
	cr_assert(chp_engine_stop(engine));
	engine = NULL;
	cr_assert_eq(atomic_load(&fake.closed), 1);
	cr_assert_eq(atomic_load(&fake.detached), 1, "the writer's; readers attach when they are needed");
}

/* ------------------------------------------------------------------ what adapters share */

Test(store_support, bytes_beside_the_data)
{
	const struct chp_store_meta m = { .version = 0x123456789abcdef0, .life = 7, .flags = CHP_HOST_TOMBSTONE };
	const struct chp_store_record r = { 1, 2, 3, 4, 5, 6 };
	uint8_t bytes[CHP_STORE_RECORD_BYTES];
	struct chp_store_record record;
	struct chp_store_meta meta;

	chp_store_meta_write(&m, bytes);
	cr_assert(chp_store_meta_read(bytes, CHP_STORE_META_BYTES, &meta));
	cr_assert_eq(meta.version, m.version);
	cr_assert_eq(meta.life, m.life);
	cr_assert_eq(meta.flags, m.flags);
	cr_assert_not(chp_store_meta_read(bytes, CHP_STORE_META_BYTES - 1, &meta));
	for (uint32_t i = 0; i < CHP_STORE_META_BYTES; i++) {
		bytes[i] ^= 4;
		cr_assert_not(chp_store_meta_read(bytes, CHP_STORE_META_BYTES, &meta), "byte %u", i);
		bytes[i] ^= 4;
	}
	chp_store_record_write(&r, bytes);
	cr_assert(chp_store_record_read(bytes, CHP_STORE_RECORD_BYTES, &record));
	cr_assert_eq(memcmp(&record, &r, sizeof(r)), 0);
	for (uint32_t i = 0; i < CHP_STORE_RECORD_BYTES; i++) {
		bytes[i] ^= 4;
		cr_assert_not(chp_store_record_read(bytes, CHP_STORE_RECORD_BYTES, &record), "byte %u", i);
		bytes[i] ^= 4;
	}
}

static void
expect_identity(const struct chp_store_identity *a, const struct chp_store_identity *b, enum chp_host_refusal refusal)
{
	char text[CHP_STORE_IDENTITY_BYTES];
	struct chp_store_error e = { 0 };
	const uint32_t len = chp_store_identity_text(a, text);

	cr_assert_eq(strlen(text), len);
	cr_assert_eq(chp_store_identity_check(b, text, len, &e), refusal == CHP_HOST_OK ? 0 : -1);
	cr_assert_eq(e.refusal, refusal, "%s", e.text);
	cr_assert(refusal == CHP_HOST_OK || e.kind == CHP_STORE_ERROR_REFUSED);
}

Test(store_support, identities)
{
	const struct chp_store_identity id = { .cluster = "one", .node = 1, .shards = 2, .hash_seed = UINT64_MAX };
	struct chp_store_identity other = id;
	struct chp_store_error e;

	expect_identity(&id, &id, CHP_HOST_OK);
	memset(other.cluster, 'x', sizeof(other.cluster) - 1);
	expect_identity(&other, &other, CHP_HOST_OK);
	expect_identity(&id, &other, CHP_HOST_BAD_CLUSTER);
	other = id;
	other.node = 2;
	expect_identity(&id, &other, CHP_HOST_BAD_NODE);
	other = id;
	other.shards = 4;
	expect_identity(&id, &other, CHP_HOST_BAD_SHARD);
	other = id;
	other.hash_seed = 3;
	expect_identity(&id, &other, CHP_HOST_BAD_CLUSTER);
	cr_assert_eq(chp_store_identity_check(&id, "hello", 5, &e), -1);
	cr_assert_eq(chp_store_identity_check(&id, "chaapar store format=9 x", 24, &e), -1);
	cr_assert_eq(e.refusal, CHP_HOST_BAD_VERSION);
	cr_assert_eq(chp_store_identity_check(&id, "chaapar store format=1 cluster=", 31, &e), -1);
}

Test(store_support, configuration)
{
	static const char *const keys[] = { "path", "size", "sync", NULL };
	json_t *c = json_pack("{s:s, s:s, s:i, s:b}", "type", "x", "path", "/tmp", "size", 5, "sync", 1);
	struct chp_store_error e = { 0 };
	const char *text;
	uint64_t n;
	bool on;

	cr_assert_eq(chp_store_keys(c, keys, &e), 0);
	cr_assert_eq(chp_store_get_text(c, "path", NULL, &text, &e), 0);
	cr_assert_str_eq(text, "/tmp");
	cr_assert_eq(chp_store_get_text(c, "nothing", "default", &text, &e), 0);
	cr_assert_str_eq(text, "default");
	cr_assert_eq(chp_store_get_text(c, "nothing", NULL, &text, &e), -1);
	cr_assert_str_eq(e.text, "nothing: expected a text");
	cr_assert_eq(chp_store_get_text(c, "size", NULL, &text, &e), -1);
	cr_assert_eq(chp_store_get_uint(c, "size", 1, 5, 2, &n, &e), 0);
	cr_assert_eq(n, 5);
	cr_assert_eq(chp_store_get_uint(c, "size", 1, 4, 2, &n, &e), -1);
	cr_assert_str_eq(e.text, "size: expected a number from 1 to 4");
	cr_assert_eq(chp_store_get_uint(c, "nothing", 1, 4, 2, &n, &e), 0);
	cr_assert_eq(n, 2);
	cr_assert_eq(chp_store_get_bool(c, "sync", false, &on, &e), 0);
	cr_assert(on);
	cr_assert_eq(chp_store_get_bool(c, "path", false, &on, &e), -1);
	(void)json_object_set_new(c, "sice", json_integer(1));
	cr_assert_eq(chp_store_keys(c, keys, &e), -1);
	cr_assert_str_eq(e.text, "sice: unknown key of this type of store");
	json_decref(c);
}

/* A batch that was torn has left a tombstone which no record counts: the next version of its key takes none away. */
Test(store_support, tombstones_are_not_fewer_than_none)
{
	struct chp_store_record before = { .life = 1, .batch = 4 }, after = { .life = 1, .batch = 5 };
	const struct chp_store_meta found = { .version = 7, .life = 1, .flags = CHP_HOST_TOMBSTONE };
	struct chp_store_item item = item_of("key", "value", 1);
	struct chp_store_batch b = { .item = &item, .n_items = 1, .before = &before, .after = &after };
	struct chp_store_error e;

	cr_assert_eq(chp_store_batch_begin(&b, &before, &e), 0);
	cr_assert(chp_store_batch_apply(&b, &item, &found));
	cr_assert_eq(after.tombstones, 0);
	item.version += 1 << 16;
	item.flags = CHP_HOST_TOMBSTONE;
	cr_assert(chp_store_batch_apply(&b, &item, &found));
	cr_assert_eq(after.tombstones, 0, "another, and the one that was not counted");
	cr_assert(chp_store_batch_apply(&b, &item, NULL));
	cr_assert_eq(after.tombstones, 1);
	cr_assert_eq(after.items, 1);
}

Test(store_support, an_array_grows_as_far_as_it_can)
{
	uint32_t *array = NULL, room = 0;

	cr_assert(chp_store_grow((void **)&array, &room, 100, sizeof(*array)));
	cr_assert_eq(room, 128);
	cr_assert_not(chp_store_grow((void **)&array, &room, UINT32_MAX, 1));
	cr_assert_eq(room, 128, "as it was");
	free(array);
}
