/* SPDX-License-Identifier: BSD-3-Clause */
/* An adapter in the engine: threads, group commit, tries again while the server is away. */
#include "suite.h"

#include "datastore/engine.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEYS 8u      /* of each shard */
#define READS 8u     /* requests under way, each of KEYS keys */
#define READERS 4u

struct writer {
	struct chp_store_request request;
	struct chp_store_item item[KEYS];
	char key[KEYS][64], text[32];
	uint64_t durable; /* the newest batch that completed */
	uint64_t handed;  /* the newest batch that was handed over */
	bool is_open;
};

struct reader {
	struct chp_store_request request;
	struct chp_store_read read[KEYS];
	uint8_t value[KEYS][VALUE_MAX];
	uint64_t least; /* what was durable when it was handed over */
	uint32_t shard;
	bool is_open;
};

struct bench {
	struct chp_engine *engine;
	struct writer writer[SHARDS];
	struct reader reader[READS];
	uint64_t reads, failed;
	bool is_volatile;
};

static void
hand_over(struct bench *b, struct chp_store_request *r)
{
	chp_engine_submit(b->engine, &r, 1);
}

/* The next batch of a shard: its number, in every key. */
static void
write_next(struct bench *b, uint32_t shard)
{
	struct writer *w = &b->writer[shard];
	uint64_t seq = ++w->handed;

	snprintf(w->text, sizeof(w->text), "%" PRIu64, seq);
	for (uint32_t i = 0; i < KEYS; i++)
		w->item[i] = (struct chp_store_item){ .key = (const uint8_t *)w->key[i],
						      .key_len = (uint8_t)strlen(w->key[i]),
						      .value = (const uint8_t *)w->text,
						      .value_len = (uint32_t)strlen(w->text),
						      .version = V(seq), .life = 1 };
	w->request = (struct chp_store_request){ .type = CHP_STORE_WRITE, .shard = (uint16_t)shard, .life = 1,
						 .seq = seq, .item = w->item, .n_items = KEYS };
	w->is_open = true;
	hand_over(b, &w->request);
}

static void
read_next(struct bench *b, struct reader *r)
{
	const struct writer *w;

	r->shard = suite_random() % SHARDS;
	w = &b->writer[r->shard];
	for (uint32_t i = 0; i < KEYS; i++)
		r->read[i] = (struct chp_store_read){ .key = (const uint8_t *)w->key[i],
						      .key_len = (uint8_t)strlen(w->key[i]), .value = r->value[i] };
	r->least = w->durable;
	r->request = (struct chp_store_request){ .type = CHP_STORE_READ, .shard = (uint16_t)r->shard,
						 .read = r->read, .n_reads = KEYS };
	r->is_open = true;
	hand_over(b, &r->request);
}

/* What was durable when it was asked for is there, or something newer that was handed over. */
static void
judge(struct bench *b, struct reader *r)
{
	for (uint32_t i = 0; i < KEYS; i++) {
		const struct chp_store_read *k = &r->read[i];
		char text[VALUE_MAX + 1];

		if (k->found == CHP_STORE_FAILED) {
			b->failed++;
			continue;
		}
		b->reads++;
		if (k->found == CHP_STORE_ABSENT) {
			/* A store that forgets may be between two halves of a newer version. */
			CHECK(r->least == 0 || b->is_volatile, "a key is gone");
			continue;
		}
		CHECK(k->version >= V(r->least) && k->version <= V(b->writer[r->shard].handed), "version %" PRIx64,
		      k->version);
		memcpy(text, k->value, k->value_len);
		text[k->value_len] = '\0';
		CHECK(k->version == V(strtoull(text, NULL, 10)), "version %" PRIx64 " has value %s", k->version, text);
	}
	r->is_open = false;
}

static void
poll_all(struct bench *b)
{
	struct chp_store_request *done[16];
	uint32_t n = chp_engine_poll(b->engine, done, 16);

	CHECK(!chp_engine_is_lost(b->engine), "data is lost");
	for (uint32_t i = 0; i < n; i++) {
		struct writer *w = &b->writer[done[i]->shard];

		if (done[i]->type == CHP_STORE_READ) {
			for (uint32_t r = 0; r < READS; r++)
				if (&b->reader[r].request == done[i])
					judge(b, &b->reader[r]);
			continue;
		}
		CHECK(done[i]->record.life == 1 && done[i]->record.batch == w->handed, "record");
		w->durable = w->handed;
		w->is_open = false;
	}
	if (n == 0)
		suite_sleep_ms(1);
}

static void
start_engine(struct suite *s, struct bench *b)
{
	const struct chp_engine_config c = { .adapter = s->adapter, .store = s->config, .identity = s->id,
					     .readers = READERS, .retry_ns_min = 10000000, .retry_ns_max = 100000000,
					     .down_ns = 1000000000, .stop_ns = 5000000000 };
	struct chp_store_info info = { .refusal = CHP_HOST_NO_STORE };
	uint64_t version = 0, end = suite_now_ms() + 10000;
	int err;

	b->engine = chp_engine_start(&c, &err);
	CHECK(b->engine != NULL, "engine: %d", err);
	while (!(chp_engine_info(b->engine, &version, &info) && info.refusal == CHP_HOST_OK)) {
		CHECK(suite_now_ms() < end, "not open: %s", info.text);
		suite_sleep_ms(5);
	}
	b->is_volatile = (info.flags & CHP_STORE_VOLATILE) != 0;
	for (uint32_t shard = 0; shard < SHARDS; shard++) {
		struct writer *w = &b->writer[shard];

		for (uint32_t i = 0; i < KEYS; i++)
			suite_key(s, shard, i, w->key[i]);
		w->request = (struct chp_store_request){ .type = CHP_STORE_BEGIN, .shard = (uint16_t)shard, .life = 1 };
		w->is_open = true;
		hand_over(b, &w->request);
	}
}

/* Writers and readers for some time. */
static void
work(struct bench *b, uint32_t ms)
{
	uint64_t end = suite_now_ms() + ms;

	while (suite_now_ms() < end) {
		for (uint32_t i = 0; i < SHARDS; i++)
			if (!b->writer[i].is_open)
				write_next(b, i);
		for (uint32_t i = 0; i < READS; i++)
			if (!b->reader[i].is_open)
				read_next(b, &b->reader[i]);
		poll_all(b);
	}
}

static void
finish(struct suite *s, struct bench *b)
{
	uint64_t end = suite_now_ms() + 20000;
	bool open = true;

	while (open) {
		open = false;
		for (uint32_t i = 0; i < SHARDS; i++)
			open = open || b->writer[i].is_open;
		for (uint32_t i = 0; i < READS; i++)
			open = open || b->reader[i].is_open;
		CHECK(suite_now_ms() < end, "requests do not complete");
		poll_all(b);
	}
	CHECK(chp_engine_stop(b->engine), "threads hang");
	suite_open(s);
	for (uint32_t i = 0; i < SHARDS; i++) {
		const struct writer *w = &b->writer[i];

		CHECK(w->durable > 0 && s->record[i].batch == w->durable, "batch %" PRIu64, s->record[i].batch);
		for (uint32_t k = 0; k < KEYS; k++)
			suite_expect(s, w->key[k], 1, V(w->durable), w->text);
	}
}

static void
in_the_engine(struct suite *s)
{
	static struct bench b;

	start_engine(s, &b);
	work(&b, s->is_slow ? 2500 : 1000);
	finish(s, &b);
	CHECK(b.failed == 0 && b.reads > 0, "%" PRIu64 " of %" PRIu64 " reads failed", b.failed, b.reads);
}

/* The server is killed and comes back, twice: writes wait, reads fail, nothing is lost. */
static void
killed_under_the_engine(struct suite *s)
{
	static struct bench b;

	start_engine(s, &b);
	for (uint32_t round = 0; round < 2; round++) {
		work(&b, 300);
		suite_server(s, "kill");
		work(&b, 200);
		suite_server(s, "start");
	}
	work(&b, 500);
	finish(s, &b);
	CHECK(b.failed > 0 && b.reads > 0, "%" PRIu64 " of %" PRIu64 " reads failed", b.failed, b.reads);
}

const struct suite_case suite_engine[] = {
	{ "in the engine", in_the_engine, NULL, SUITE_OPENS | SUITE_REOPENS },
	{ "killed under the engine", killed_under_the_engine, NULL, SUITE_OPENS | SUITE_SERVER | SUITE_DURABLE },
	{ NULL, NULL, NULL, 0 },
};
