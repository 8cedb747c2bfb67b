/* SPDX-License-Identifier: BSD-3-Clause */
/* RocksDB: a process that is killed, a damaged file, a full disk, another program's folder. */
#include "suite.h"

#include <rocksdb/c.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Writes batches until it is killed, and reports each that is durable. Opens the store in this process alone. */
static _Noreturn void
write_until_killed(struct suite *s, uint64_t least, int report)
{
	char text[32];

	suite_open(s);
	suite_check_crash_keys(s, least);
	if (s->record[0].life == 0)
		suite_begin(s, 0, 1);
	for (;;) {
		suite_put_crash_batch(s, s->record[0].batch + 1, text);
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

	suite_make_crash_keys(s);
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
	suite_check_crash_keys(s, done);
}

static void
damaged(struct suite *s)
{
	suite_begin(s, 0, 1);
	suite_make_crash_keys(s);
	suite_put_text(s, suite_crash_key[0], V(1), "value");
	suite_flush(s, 0);
	suite_close(s);
	suite_server(s, "damage");
	CHECK(!suite_try_open(s), "a damaged store was opened");
	CHECK(s->error.kind == CHP_STORE_ERROR_DOWN && strstr(s->error.text, "damaged") != NULL, "%s", s->error.text);
	suite_server(s, "repair");
	suite_open(s);
	suite_expect(s, suite_crash_key[0], 1, V(1), "value");
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

/* A disk that was not mounted. That its name has a "lock" in it says nothing. */
static void
no_folder(struct suite *s)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/blocks", json_string_value(json_object_get(s->config, "path")));
	suite_close(s);
	suite_configure(s, "create", json_false());
	suite_configure(s, "path", json_string(path));
	CHECK(!suite_try_open(s) && s->error.kind == CHP_STORE_ERROR_DOWN, "%d", s->error.kind);
	CHECK(strstr(s->error.text, "in use") == NULL && strstr(s->error.text, "does not exist") != NULL, "%s",
	      s->error.text);
	path[strlen(path) - strlen("/blocks")] = '\0';
	suite_configure(s, "path", json_string(path));
	suite_open(s);
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
	/* A column family more, and its owner could not open it any more. */
	db = rocksdb_open(o, json_string_value(json_object_get(s->config, "path")), &err);
	CHECK(err == NULL, "%s", err);
	rocksdb_close(db);
	rocksdb_options_destroy(o);
	rocksdb_writeoptions_destroy(w);
}

/* Until it fails for want of room; reads go on; it goes on when there is room again. */
static void
disk_full(struct suite *s)
{
	static char text[VALUE_MAX];
	uint64_t done = 0, start;

	suite_make_crash_keys(s);
	suite_begin(s, 0, 1);
	memset(text, 'x', sizeof(text));
	for (start = suite_now_ms(); suite_now_ms() < start + 30000; done++) {
		for (uint32_t i = 0; i < CRASH_KEYS; i++)
			suite_put(s, suite_crash_key[i], (uint32_t)strlen(suite_crash_key[i]), V(done + 1), text,
				  sizeof(text));
		if (suite_flush_try(s, 0) < 0)
			break;
	}
	CHECK(s->error.kind == CHP_STORE_ERROR_DOWN && strstr(s->error.text, "disk full") != NULL, "%s", s->error.text);
	for (uint32_t i = 0; i < 3; i++) {
		suite_put_text(s, suite_crash_key[0], V(done + 1), "after");
		CHECK(suite_flush_try(s, 0) < 0 && strstr(s->error.text, "disk full") != NULL, "%s", s->error.text);
		suite_expect_bytes(s, suite_crash_key[1], (uint32_t)strlen(suite_crash_key[1]), 1, V(done), text,
				   sizeof(text));
	}
	suite_server(s, "make_room");
	suite_put_text(s, suite_crash_key[0], V(done + 2), "after");
	suite_flush_until(s, 0, 10000);
	suite_expect(s, suite_crash_key[0], 1, V(done + 2), "after");
	suite_expect_bytes(s, suite_crash_key[1], (uint32_t)strlen(suite_crash_key[1]), 1, V(done), text, sizeof(text));
}

const struct suite_case suite_rocksdb[] = {
	{ "process killed", process_killed, "rocksdb", SUITE_OPENS },
	{ "damaged", damaged, "rocksdb", 0 },
	{ "in use", in_use, "rocksdb", 0 },
	{ "no folder", no_folder, "rocksdb", 0 },
	{ "foreign", foreign, "rocksdb", 0 },
	{ "disk full", disk_full, "rocksdb", SUITE_NAMED },
	{ NULL, NULL, NULL, 0 },
};
