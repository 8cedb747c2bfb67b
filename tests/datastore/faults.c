/* SPDX-License-Identifier: BSD-3-Clause */
/* What every adapter must do when its server, its disk or its process is not well. */
#include "suite.h"

#include "base/bytes.h"

#include <inttypes.h>
#include <rocksdb/c.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define V(counter) ((uint64_t)(counter) << 16)
/* No function takes longer than this with the time-outs of the suite's configurations, whatever the server does. */
#define CALL_MS_MAX 5000u

/* ------------------------------------------------------------------ a server that dies */

#define CRASH_KEYS 64u

static char crash_key[CRASH_KEYS][64];

static void
make_crash_keys(const struct suite *s)
{
	for (uint32_t i = 0; i < CRASH_KEYS; i++)
		suite_key(s, 0, i, crash_key[i]);
}

/* Batch `seq` writes its number into every key. */
static void
put_crash_batch(struct suite *s, uint64_t seq, char text[32])
{
	snprintf(text, 32, "%" PRIu64, seq);
	for (uint32_t i = 0; i < CRASH_KEYS; i++)
		suite_put_text(s, crash_key[i], V(seq), text);
}

/* All keys have the number of one batch: that of the record, at least `least`. */
static void
check_crash_keys(struct suite *s, uint64_t least)
{
	uint64_t seq = s->record[0].batch;
	char text[32];

	CHECK(seq >= least, "batch %" PRIu64 " was reported durable, the store has %" PRIu64, least, seq);
	snprintf(text, sizeof(text), "%" PRIu64, seq);
	for (uint32_t i = 0; i < CRASH_KEYS && seq > 0; i++)
		suite_expect(s, crash_key[i], 1, V(seq), text);
}

/* A process that kills the server after some time. */
static pid_t
kill_later(struct suite *s, uint32_t ms)
{
	pid_t pid = fork();

	if (pid == 0) {
		suite_sleep_ms(ms);
		_exit(suite_server_try(s, "kill"));
	}
	return pid;
}

/*
 * kill -9 amid batches; it comes back, and the batch that failed is written again. What was reported durable is there,
 * and nothing is there by halves.
 */
static void
killed_and_back(struct suite *s)
{
	uint64_t done = 0;
	char text[32];
	int status;

	suite_open(s);
	make_crash_keys(s);
	suite_begin(s, 0, 1);
	for (uint32_t round = 0; round < 3; round++) {
		pid_t killer = kill_later(s, 50 + suite_random() % 150);

		do {
			put_crash_batch(s, done + 1, text);
			if (suite_flush_try(s, 0) < 0)
				break;
			done++;
		} while (true);
		CHECK(waitpid(killer, &status, 0) == killer && status == 0, "kill");
		CHECK(s->error.kind == CHP_STORE_ERROR_SLOW || s->error.kind == CHP_STORE_ERROR_DOWN, "%s",
		      s->error.text);
		CHECK(suite_look_up_try(s, crash_key[0], (uint32_t)strlen(crash_key[0])) < 0,
		      "read from a dead server");
		suite_server(s, "start");
		put_crash_batch(s, done + 1, text);
		suite_flush_until(s, 0, 10000);
		done++;
		check_crash_keys(s, done);
	}
	CHECK(done > 6, "only %" PRIu64 " batches were written", done);
	suite_close(s);
	suite_open(s);
	check_crash_keys(s, done);
}

/* A store that forgets says so, and begins anew. */
static void
killed_and_empty(struct suite *s)
{
	suite_open(s);
	suite_begin(s, 0, 1);
	make_crash_keys(s);
	suite_put_text(s, crash_key[0], V(1), "value");
	suite_flush(s, 0);
	suite_server(s, "kill");
	suite_server(s, "start");
	for (uint64_t end = suite_now_ms() + 10000;; suite_sleep_ms(20)) {
		suite_put_text(s, crash_key[0], V(2), "value");
		CHECK(suite_flush_try(s, 0) < 0, "an empty store takes the next batch");
		if (s->error.kind == CHP_STORE_ERROR_LOST)
			break;
		CHECK(suite_now_ms() < end, "%s", s->error.text);
	}
	suite_close(s);
	suite_open(s);
	CHECK(s->record[0].life == 0, "life %" PRIu64, s->record[0].life);
	suite_expect_absent(s, crash_key[0]);
	suite_begin(s, 0, 1);
	CHECK(suite_write(s, crash_key[0], V(1), "again"), "not newer than nothing");
	suite_expect(s, crash_key[0], 1, V(1), "again");
}

/* A server whose data was removed, or put back to an earlier state, while we run. */
static void
emptied(struct suite *s)
{
	suite_open(s);
	suite_begin(s, 0, 1);
	make_crash_keys(s);
	suite_put_text(s, crash_key[0], V(1), "value");
	suite_flush(s, 0);
	suite_server(s, "reset");
	suite_put_text(s, crash_key[0], V(2), "value");
	CHECK(suite_flush_try(s, 0) < 0 && s->error.kind == CHP_STORE_ERROR_LOST, "%d %s", s->error.kind,
	      s->error.text);
}

/* ------------------------------------------------------------------ a server that hangs or is not there */

static void
in_time(uint64_t start, const char *what)
{
	uint64_t ms = suite_now_ms() - start;

	CHECK(ms < CALL_MS_MAX, "%s takes %" PRIu64 " ms", what, ms);
}

static void
hangs(struct suite *s)
{
	uint64_t start;

	suite_open(s);
	suite_begin(s, 0, 1);
	make_crash_keys(s);
	suite_put_text(s, crash_key[0], V(1), "one");
	suite_flush(s, 0);
	suite_server(s, "pause");
	start = suite_now_ms();
	suite_put_text(s, crash_key[0], V(2), "two");
	CHECK(suite_flush_try(s, 0) < 0 && s->error.kind == CHP_STORE_ERROR_SLOW, "%d %s", s->error.kind,
	      s->error.text);
	in_time(start, "a write");
	start = suite_now_ms();
	CHECK(suite_look_up_try(s, crash_key[0], (uint32_t)strlen(crash_key[0])) < 0 ||
		      s->read.found == CHP_STORE_FAILED,
	      "read");
	in_time(start, "a read");
	suite_server(s, "resume");
	suite_put_text(s, crash_key[0], V(2), "two");
	suite_flush_until(s, 0, 10000);
	suite_expect(s, crash_key[0], 1, V(2), "two");
}

static void
not_there(struct suite *s)
{
	uint64_t start;

	suite_server(s, "kill");
	start = suite_now_ms();
	CHECK(!suite_try_open(s), "a store without a server");
	CHECK(s->error.kind == CHP_STORE_ERROR_SLOW || s->error.kind == CHP_STORE_ERROR_DOWN, "%s", s->error.text);
	in_time(start, "open");
	suite_server(s, "start");
	suite_open(s);
	suite_server(s, "pause");
	suite_close(s);
	start = suite_now_ms();
	CHECK(!suite_try_open(s), "a store without an answer");
	in_time(start, "open");
	suite_server(s, "resume");
	suite_open(s);
}

/* ------------------------------------------------------------------ rocksdb */

/* Writes batches until it is killed, and reports each that is durable. Opens the store in this process alone. */
static _Noreturn void
write_until_killed(struct suite *s, uint64_t least, int report)
{
	char text[32];

	suite_open(s);
	check_crash_keys(s, least);
	if (s->record[0].life == 0)
		suite_begin(s, 0, 1);
	for (;;) {
		put_crash_batch(s, s->record[0].batch + 1, text);
		suite_flush(s, 0);
		if (write(report, &s->record[0].batch, sizeof(uint64_t)) != sizeof(uint64_t))
			_exit(1);
	}
}

/* A writer that is killed: its store is opened by the next process. */
static void
process_killed(struct suite *s)
{
	uint64_t done = 0, seq;

	make_crash_keys(s);
	for (uint32_t round = 0; round < 5; round++) {
		int report[2], status;
		pid_t pid;

		CHECK(pipe(report) == 0, "pipe");
		pid = fork();
		if (pid == 0)
			write_until_killed(s, done, report[1]);
		close(report[1]);
		CHECK(read(report[0], &seq, sizeof(seq)) == sizeof(seq), "the writer does not begin");
		suite_sleep_ms(20 + suite_random() % 100);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		CHECK(WIFSIGNALED(status), "the writer ends by itself");
		do
			done = seq;
		while (read(report[0], &seq, sizeof(seq)) == sizeof(seq));
		close(report[0]);
	}
	suite_open(s);
	check_crash_keys(s, done);
}

static void
damaged(struct suite *s)
{
	suite_begin(s, 0, 1);
	make_crash_keys(s);
	suite_put_text(s, crash_key[0], V(1), "value");
	suite_flush(s, 0);
	suite_close(s);
	suite_server(s, "damage");
	CHECK(!suite_try_open(s), "a damaged store was opened");
	CHECK(s->error.kind == CHP_STORE_ERROR_DOWN && strstr(s->error.text, "damaged") != NULL, "%s", s->error.text);
	suite_server(s, "repair");
	suite_open(s);
	suite_expect(s, crash_key[0], 1, V(1), "value");
}

/* A second process, or a second `chaapar-host` by mistake. */
static void
in_use(struct suite *s)
{
	void *store = s->store, *handle = s->handle;

	CHECK(!suite_try_open(s), "opened twice");
	CHECK(s->error.kind == CHP_STORE_ERROR_DOWN && strstr(s->error.text, "in use") != NULL, "%s", s->error.text);
	s->store = store;
	s->handle = handle;
	suite_begin(s, 0, 1);
}

/* A folder of another program is left as it is. */
static void
foreign(struct suite *s)
{
	rocksdb_options_t *o = rocksdb_options_create();
	rocksdb_writeoptions_t *w = rocksdb_writeoptions_create();
	char *err = NULL;
	rocksdb_t *db;

	suite_close(s);
	suite_server(s, "reset");
	rocksdb_options_set_create_if_missing(o, 1);
	db = rocksdb_open(o, json_string_value(json_object_get(s->config, "path")), &err);
	CHECK(err == NULL, "%s", err);
	rocksdb_put(db, w, "theirs", 6, "value", 5, &err);
	rocksdb_close(db);
	CHECK(!suite_try_open(s) && s->error.kind == CHP_STORE_ERROR_REFUSED, "%s", s->error.text);
	rocksdb_options_destroy(o);
	rocksdb_writeoptions_destroy(w);
}

/* Until it fails for want of room; reads go on; it goes on when there is room again. */
static void
disk_full(struct suite *s)
{
	static char text[VALUE_MAX];
	uint64_t done = 0, start;

	make_crash_keys(s);
	suite_begin(s, 0, 1);
	memset(text, 'x', sizeof(text));
	for (start = suite_now_ms(); suite_now_ms() < start + 30000; done++) {
		for (uint32_t i = 0; i < CRASH_KEYS; i++)
			suite_put(s, crash_key[i], (uint32_t)strlen(crash_key[i]), V(done + 1), text, sizeof(text));
		if (suite_flush_try(s, 0) < 0)
			break;
	}
	CHECK(s->error.kind == CHP_STORE_ERROR_DOWN && strstr(s->error.text, "disk full") != NULL, "%s", s->error.text);
	for (uint32_t i = 0; i < 3; i++) {
		suite_put_text(s, crash_key[0], V(done + 1), "after");
		CHECK(suite_flush_try(s, 0) < 0 && strstr(s->error.text, "disk full") != NULL, "%s", s->error.text);
		suite_expect_bytes(s, crash_key[1], (uint32_t)strlen(crash_key[1]), 1, V(done), text, sizeof(text));
	}
	suite_server(s, "make_room");
	suite_put_text(s, crash_key[0], V(done + 2), "after");
	suite_flush_until(s, 0, 10000);
	suite_expect(s, crash_key[0], 1, V(done + 2), "after");
	suite_expect_bytes(s, crash_key[1], (uint32_t)strlen(crash_key[1]), 1, V(done), text, sizeof(text));
}

const struct suite_case suite_faults[] = {
	{ "killed and back", killed_and_back, NULL, SUITE_SERVER | SUITE_DURABLE | SUITE_OPENS },
	{ "killed and empty", killed_and_empty, "memcached", SUITE_SERVER | SUITE_OPENS },
	{ "emptied", emptied, NULL, SUITE_SERVER | SUITE_OPENS },
	{ "hangs", hangs, NULL, SUITE_SERVER | SUITE_OPENS },
	{ "not there", not_there, NULL, SUITE_SERVER | SUITE_OPENS },
	{ "process killed", process_killed, "rocksdb", SUITE_OPENS },
	{ "damaged", damaged, "rocksdb", 0 },
	{ "in use", in_use, "rocksdb", 0 },
	{ "foreign", foreign, "rocksdb", 0 },
	{ "disk full", disk_full, "rocksdb", SUITE_NAMED },
	{ NULL, NULL, NULL, 0 },
};
