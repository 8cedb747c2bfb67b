/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * suite.h - what the cases of the datastores' conformance suite have in common: a store under test, writing to it
 * and reading from it, and the script that starts and stops its server.
 *
 * Each case is a process of its own, on an empty store. What does not hold ends it.
 */
#ifndef CHP_TESTS_DATASTORE_SUITE_H
#define CHP_TESTS_DATASTORE_SUITE_H

#include "datastore/datastore.h"

/* The shards of the cluster that the suite plays. */
#define SHARDS 4u
#define VALUE_MAX CHP_VALUE_BYTES_MAX
#define ITEMS_MAX 4096u
/* The version of a key's n-th write, by replica 0. */
#define V(counter) ((uint64_t)(counter) << 16)

struct suite {
	const struct chp_adapter *adapter;
	json_t *config;
	const char *server; /* the command that controls the server: server VERB */
	struct chp_store_identity id;
	uint32_t flags;
	bool is_slow; /* each key is some requests: cases do less */
	void *store, *handle; /* NULL when closed */
	struct chp_store_record record[SHARDS];
	struct chp_store_error error; /* of the last call */
	/* A batch that is being put together. */
	struct chp_store_item item[ITEMS_MAX];
	uint32_t n_items;
	/* What the last look_up found. */
	struct chp_store_read read;
	uint8_t value[VALUE_MAX];
};

/* What a case needs of a store. */
enum suite_need {
	SUITE_REOPENS = 1u << 0, /* closes it and opens it again: not `memory` */
	SUITE_SCANS = 1u << 1,   /* lists what it holds */
	SUITE_SERVER = 1u << 2,  /* is a server, which can be stopped */
	SUITE_DURABLE = 1u << 3, /* keeps what it was given */
	SUITE_OPENS = 1u << 4,   /* that the case opens it itself */
	SUITE_NAMED = 1u << 5,   /* to be asked for by name: another server, or another disk */
};

struct suite_case {
	const char *name;
	void (*run)(struct suite *s);
	const char *only; /* for this adapter; NULL: for all */
	uint32_t needs;   /* enum suite_need */
};

extern const struct suite_case suite_cases[], suite_faults[], suite_engine[], suite_rocksdb[], suite_redis[],
	suite_memcached[], suite_s3[], suite_rate[];

/* Ends the case when cond is false: the text says what was found. */
#define CHECK(cond, ...) ((cond) ? (void)0 : suite_failed(__FILE__, __LINE__, #cond, __VA_ARGS__))
_Noreturn void suite_failed(const char *file, int line, const char *what, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/** Run the script that controls the server: "kill", "start", ... Must succeed. */
void suite_server(const struct suite *s, const char *verb);
/** The same; its exit code. */
int suite_server_try(const struct suite *s, const char *verb);

uint64_t suite_now_ms(void);
void suite_sleep_ms(uint32_t ms);
/** A random number; the same sequence in each run of a case. */
uint32_t suite_random(void);

/** Open the store and attach: must succeed / whether it did. The records are loaded. */
void suite_open(struct suite *s);
bool suite_try_open(struct suite *s);
void suite_close(struct suite *s);

/** The shard of a key. */
uint32_t suite_shard(const struct suite *s, const void *key, uint32_t len);
/** The i-th of many keys of a shard: text, as "key-17-3". Returns its length. */
uint32_t suite_key(const struct suite *s, uint32_t shard, uint32_t i, char to[64]);

/** Add an item to the batch; value NULL is a tombstone. Key and value are borrowed. */
void suite_put(struct suite *s, const void *key, uint32_t key_len, uint64_t version, const void *value, uint32_t len);
/** The same with text. */
void suite_put_text(struct suite *s, const char *key, uint64_t version, const char *value);

/** Write what was put as the next batch of the shard's life. 0, or -1 with s->error; n_items is 0 then. */
int suite_flush_try(struct suite *s, uint32_t shard);
/** Must succeed. Returns how many items were newer. */
uint64_t suite_flush(struct suite *s, uint32_t shard);
/** Write it again and again until it succeeds, which it must within ms. */
void suite_flush_until(struct suite *s, uint32_t shard, uint32_t ms);
/** Put one text, in a batch of its own. Returns whether it was newer. */
bool suite_write(struct suite *s, const char *key, uint64_t version, const char *value);
/** Writing what was put fails like this; text NULL: with whatever text. */
void suite_flush_fails(struct suite *s, uint32_t shard, enum chp_store_error_kind kind, const char *text);
/** Begin a life in a shard. */
void suite_begin(struct suite *s, uint32_t shard, uint64_t life);
/** Begin the first life in the shard of "key", and write that with "value" as its first version. */
void suite_begin_key(struct suite *s);

/** Read one key; the result is in s->read. -1 with s->error. */
int suite_look_up_try(struct suite *s, const void *key, uint32_t len);
void suite_look_up(struct suite *s, const void *key, uint32_t len);
/** It cannot be read, and this is said about it. */
void suite_look_up_fails(struct suite *s, const char *key, const char *text);
/** The server's verb changes "key" as another program would: reading it fails, for that reason, until it is written. */
void suite_meddle(struct suite *s, const char *verb, const char *text);
/** The key is there, at this version of this life, with this value; NULL: as a tombstone. */
void suite_expect(struct suite *s, const char *key, uint64_t life, uint64_t version, const char *value);
void suite_expect_absent(struct suite *s, const char *key);
void suite_expect_bytes(struct suite *s, const void *key, uint32_t key_len, uint64_t life, uint64_t version,
			const void *value, uint32_t len);

/** A scan in parts; seen() gets each item. Returns how many items came. */
uint32_t suite_scan(struct suite *s, uint32_t shard, uint32_t id, bool only_old, uint32_t bytes_max, uint32_t n_max,
		    void (*seen)(void *arg, const struct chp_store_item *item), void *arg);
/** One part of it. The caller keeps the cursor, in scan. Returns how many items came. */
uint32_t suite_scan_part(struct suite *s, uint32_t shard, struct chp_store_scan *scan, uint32_t bytes_max,
			 uint32_t n_max, void (*seen)(void *arg, const struct chp_store_item *item), void *arg);

/* Keys of shard 0 into which each batch writes its number: all have the number of one batch, or one was torn. */
#define CRASH_KEYS 16u
extern char suite_crash_key[CRASH_KEYS][64];
void suite_make_crash_keys(const struct suite *s);
/** Put batch `seq`; its text is the caller's until it is written. */
void suite_put_crash_batch(struct suite *s, uint64_t seq, char text[32]);
/** All keys have the number of the record's batch, which is at least `least`. */
void suite_check_crash_keys(struct suite *s, uint64_t least);

/** Set a key of the configuration: before the store is opened. */
void suite_configure(struct suite *s, const char *key, json_t *value);

#endif /* CHP_TESTS_DATASTORE_SUITE_H */
