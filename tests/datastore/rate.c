/* SPDX-License-Identifier: BSD-3-Clause */
/* How fast an adapter is, alone: for docs/datastores.md. Asked for by name: tests/datastore/run, CASE=rate. */
#include "suite.h"

#include "base/bytes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS 100000u
#define KEYS_SLOW 2000u
#define MS 2000u

static uint32_t
keys_of(const struct suite *s)
{
	return s->is_slow ? KEYS_SLOW : KEYS;
}

/* Batches of `size` keys at random, 8 bytes each with values of 32: puts a second. */
static void
write_rate(struct suite *s, uint32_t size, uint64_t *version)
{
	static uint64_t key[1024];
	static uint8_t value[32];
	uint64_t start = suite_now_ms(), n = 0, batches = 0, ms;

	do {
		for (uint32_t i = 0; i < size; i++) {
			key[i] = suite_random() % keys_of(s);
			suite_put(s, &key[i], sizeof(key[i]), ++*version << 16, value, sizeof(value));
		}
		suite_flush(s, 0);
		n += size;
		batches++;
		ms = suite_now_ms() - start;
	} while (ms < MS);
	printf("%s: batches of %" PRIu32 ": %" PRIu64 " puts/s, %" PRIu64 " us a batch\n", s->adapter->name, size,
	       n * 1000 / ms, ms * 1000 / batches);
}

static void
read_rate(struct suite *s)
{
	enum { N = 64 };
	static uint64_t key[N];
	static uint8_t value[N][VALUE_MAX];
	struct chp_store_read read[N];
	uint64_t start = suite_now_ms(), n = 0, ms;

	do {
		for (uint32_t i = 0; i < N; i++) {
			key[i] = suite_random() % keys_of(s);
			read[i] = (struct chp_store_read){ .key = (const uint8_t *)&key[i], .key_len = sizeof(key[i]),
							   .value = value[i] };
		}
		CHECK(s->adapter->read(s->handle, read, N, &s->error) == 0, "%s", s->error.text);
		n += N;
		ms = suite_now_ms() - start;
	} while (ms < MS);
	printf("%s: reads of %d: %" PRIu64 " keys/s\n", s->adapter->name, N, n * 1000 / ms);
}

/* Keys are all of one shard, as the cluster of one shard that this is. */
static void
rate(struct suite *s)
{
	static const uint32_t sizes[] = { 1, 8, 64, 256, 1024 };
	uint64_t version = 1;

	suite_close(s);
	suite_server(s, "reset");
	s->id.shards = 1;
	s->adapter->check(s->config, &s->error);
	s->store = s->adapter->open(s->config, &s->id, &s->error);
	CHECK(s->store != NULL, "%s", s->error.text);
	s->handle = s->adapter->attach(s->store, &s->error);
	suite_begin(s, 0, 1);
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(sizes); i++)
		write_rate(s, sizes[i], &version);
	read_rate(s);
}

const struct suite_case suite_rate[] = {
	{ "rate", rate, NULL, SUITE_NAMED },
	{ NULL, NULL, NULL, 0 },
};
