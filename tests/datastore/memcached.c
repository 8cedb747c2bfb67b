/* SPDX-License-Identifier: BSD-3-Clause */
/* Memcached: it forgets everything, or one half of a key, or has no room. */
#include "suite.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* At once, with the connection left as it is. */
static void
flushed(struct suite *s)
{
	suite_begin_key(s);
	suite_server(s, "flush");
	suite_expect_absent(s, "key");
	suite_put_text(s, "key", V(2), "value");
	suite_flush_fails(s, suite_shard(s, "key", 3), CHP_STORE_ERROR_LOST, NULL);
}

/* A value without its version, a version without its value, and two that are not of the same write. */
static void
halves(struct suite *s)
{
	static const char *const fault[] = { "remove key", "put key other", "put key value" };

	suite_begin(s, suite_shard(s, "key", 3), 1);
	for (uint32_t i = 0; i < 3; i++) {
		suite_write(s, "key", V(2 * i + 1), "value");
		suite_expect(s, "key", 1, V(2 * i + 1), "value");
		suite_server(s, fault[i]);
		suite_expect_absent(s, "key");
		CHECK(suite_write(s, "key", V(2 * i + 2), "again"), "not newer");
		suite_expect(s, "key", 1, V(2 * i + 2), "again");
	}
}

/* What its record was made with is gone: what is left counts for nothing, however new it looks. */
static void
record_forgotten(struct suite *s)
{
	uint32_t shard = suite_shard(s, "key", 3);
	char command[64];

	suite_begin(s, shard, 5);
	suite_write(s, "key", V(9), "value");
	snprintf(command, sizeof(command), "remove chaapar:record:%" PRIu32, shard);
	suite_server(s, command);
	suite_expect_absent(s, "key");
	suite_close(s);
	suite_open(s);
	CHECK(s->record[shard].life == 0, "life %" PRIu64, s->record[shard].life);
	suite_begin(s, shard, 1);
	suite_expect_absent(s, "key");
	CHECK(suite_write(s, "key", V(1), "new"), "not newer than what was forgotten");
	suite_expect(s, "key", 1, V(1), "new");
}

/* A server that evicts nothing and is full says so. */
static void
full(struct suite *s)
{
	static char key[64][64], value[VALUE_MAX];
	uint32_t i;

	suite_close(s);
	suite_server(s, "kill");
	suite_server(s, "start_small");
	suite_open(s);
	suite_begin(s, 0, 1);
	for (i = 0; i < 1000; i++) {
		for (uint32_t k = 0; k < 64; k++)
			suite_put(s, key[k], suite_key(s, 0, i * 64 + k, key[k]), V(1), value, sizeof(value));
		if (suite_flush_try(s, 0) < 0)
			break;
	}
	CHECK(i < 1000 && s->error.kind == CHP_STORE_ERROR_DOWN, "%d %s", s->error.kind, s->error.text);
	CHECK(strstr(s->error.text, "out of memory") != NULL, "%s", s->error.text);
	suite_look_up(s, key[0], (uint32_t)strlen(key[0]));
	suite_server(s, "kill");
	suite_server(s, "start");
}

/* A batch that takes longer than the time-out, while its answers come: it is not begun again and again. */
static void
long_batch(struct suite *s)
{
	static char key[ITEMS_MAX][64], value[1000];

	suite_begin(s, 0, 1);
	suite_close(s);
	suite_configure(s, "timeout_ms", json_integer(10));
	for (uint64_t end = suite_now_ms() + 10000; !suite_try_open(s);)
		CHECK(suite_now_ms() < end, "%s", s->error.text);
	for (uint32_t i = 0; i < ITEMS_MAX; i++)
		suite_put(s, key[i], suite_key(s, 0, i, key[i]), V(1), value, sizeof(value));
	suite_flush_until(s, 0, 5000);
	suite_close(s);
	suite_configure(s, "timeout_ms", json_integer(500));
	suite_open(s);
	suite_expect_bytes(s, key[ITEMS_MAX - 1], (uint32_t)strlen(key[ITEMS_MAX - 1]), 1, V(1), value, sizeof(value));
}

const struct suite_case suite_memcached[] = {
	{ "flushed", flushed, "memcached", 0 },
	{ "halves", halves, "memcached", 0 },
	{ "record forgotten", record_forgotten, "memcached", 0 },
	{ "long batch", long_batch, "memcached", 0 },
	{ "full", full, "memcached", 0 },
	{ NULL, NULL, NULL, 0 },
};
