/* SPDX-License-Identifier: BSD-3-Clause */
/* What every adapter must do when its server dies, hangs, forgets, or is not there. */
#include "suite.h"

#include "base/bytes.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* No function takes longer than this with the time-outs of the suite's configurations, whatever the server does. */
#define CALL_MS_MAX 5000u

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
	suite_make_crash_keys(s);
	suite_begin(s, 0, 1);
	for (uint32_t round = 0; round < (s->is_slow ? 2 : 3); round++) {
		pid_t killer = kill_later(s, 50 + suite_random() % 150);

		do {
			suite_put_crash_batch(s, done + 1, text);
			if (suite_flush_try(s, 0) < 0)
				break;
			done++;
		} while (true);
		CHECK(waitpid(killer, &status, 0) == killer && status == 0, "kill");
		CHECK(s->error.kind == CHP_STORE_ERROR_SLOW || s->error.kind == CHP_STORE_ERROR_DOWN, "%s",
		      s->error.text);
		CHECK(suite_look_up_try(s, suite_crash_key[0], (uint32_t)strlen(suite_crash_key[0])) < 0,
		      "read from a dead server");
		suite_server(s, "start");
		suite_put_crash_batch(s, done + 1, text);
		suite_flush_until(s, 0, 10000);
		done++;
		suite_check_crash_keys(s, done);
	}
	CHECK(done >= 2, "only %" PRIu64 " batches were written", done);
	suite_close(s);
	suite_open(s);
	suite_check_crash_keys(s, done);
}

static void
open_with_key(struct suite *s)
{
	suite_open(s);
	suite_begin(s, 0, 1);
	suite_make_crash_keys(s);
	suite_put_text(s, suite_crash_key[0], V(1), "value");
	suite_flush(s, 0);
}

/* A store that forgets says so, and begins anew. */
static void
killed_and_empty(struct suite *s)
{
	open_with_key(s);
	suite_server(s, "kill");
	suite_server(s, "start");
	for (uint64_t end = suite_now_ms() + 10000;; suite_sleep_ms(20)) {
		suite_put_text(s, suite_crash_key[0], V(2), "value");
		CHECK(suite_flush_try(s, 0) < 0, "an empty store takes the next batch");
		if (s->error.kind == CHP_STORE_ERROR_LOST)
			break;
		CHECK(suite_now_ms() < end, "%s", s->error.text);
	}
	suite_close(s);
	suite_open(s);
	CHECK(s->record[0].life == 0, "life %" PRIu64, s->record[0].life);
	suite_expect_absent(s, suite_crash_key[0]);
	suite_begin(s, 0, 1);
	CHECK(suite_write(s, suite_crash_key[0], V(1), "again"), "not newer than nothing");
	suite_expect(s, suite_crash_key[0], 1, V(1), "again");
}

/* A server whose data was removed, or put back to an earlier state, while we run. */
static void
emptied(struct suite *s)
{
	open_with_key(s);
	suite_server(s, "reset");
	do { /* it may have cut the connection */
		suite_put_text(s, suite_crash_key[0], V(2), "value");
		CHECK(suite_flush_try(s, 0) < 0, "an empty store takes the next batch");
	} while (s->error.kind == CHP_STORE_ERROR_SLOW);
	CHECK(s->error.kind == CHP_STORE_ERROR_LOST, "%d %s", s->error.kind, s->error.text);
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

	open_with_key(s);
	suite_server(s, "pause");
	start = suite_now_ms();
	suite_put_text(s, suite_crash_key[0], V(2), "two");
	suite_flush_fails(s, 0, CHP_STORE_ERROR_SLOW, NULL);
	CHECK(strstr(s->error.text, " ms") != NULL || strstr(s->error.text, "milliseconds") != NULL, "no time-out: %s",
	      s->error.text);
	in_time(start, "a write");
	start = suite_now_ms();
	CHECK(suite_look_up_try(s, suite_crash_key[0], (uint32_t)strlen(suite_crash_key[0])) < 0 ||
		      s->read.found == CHP_STORE_FAILED,
	      "read");
	in_time(start, "a read");
	suite_server(s, "resume");
	suite_put_text(s, suite_crash_key[0], V(2), "two");
	suite_flush_until(s, 0, 10000);
	suite_expect(s, suite_crash_key[0], 1, V(2), "two");
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

const struct suite_case suite_faults[] = {
	{ "killed and back", killed_and_back, NULL, SUITE_SERVER | SUITE_DURABLE | SUITE_OPENS },
	{ "killed and empty", killed_and_empty, "memcached", SUITE_SERVER | SUITE_OPENS },
	{ "emptied", emptied, NULL, SUITE_SERVER | SUITE_OPENS },
	{ "hangs", hangs, NULL, SUITE_SERVER | SUITE_OPENS },
	{ "not there", not_there, NULL, SUITE_SERVER | SUITE_OPENS },
	{ NULL, NULL, NULL, 0 },
};
