/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hermes_replica.h - one replica of Hermes without a core: messages, operations and answers in, messages and replies
 * out. What a call sent and answered is in the replica until the next one; every call ends with a check of all
 * invariants.
 */
#ifndef TESTS_HERMES_REPLICA_H
#define TESTS_HERMES_REPLICA_H

#include "protocols/application.h"
#include "protocols/copy.h"
#include "protocols/protocol.h"
#include "wire/copy.h"
#include "wire/hermes.h"

#define SELF 0u
#define NODES 3u
#define CREDITS 8u
#define KEYS 64u
#define VALUE_MAX 200u
#define LANE_BYTES 65536u
#define SEED UINT64_C(7) /* of digests */

struct sent {
	uint32_t to;
	union {
		struct chp_message message;
		struct chp_hermes_inv inv;
		struct chp_hermes_ack ack;
		struct chp_hermes_val val;
		struct chp_hermes_floor floor;
		struct chp_copy_request request;
		uint8_t bytes[CHP_HERMES_INV_BYTES_MAX];
	};
};

struct answer {
	struct chp_reply reply;
	uint8_t value[CHP_VALUE_BYTES_MAX];
};

struct replica {
	struct chp_out out; /* first: the protocol's calls come back with it */
	struct chp_backing no_backing; /* not present */
	struct chp_protocol_env env;
	struct chp_protocol_counters counters;
	struct chp_copy_counters copy_counters;
	struct chp_log log;
	struct chp_sessions sessions;
	struct chp_view view;
	struct chp_now now;
	void *p;
	uint8_t lane[NODES][LANE_BYTES];
	struct sent sent[512]; /* of the last call */
	uint32_t n_sent;
	struct answer answer[CHP_BATCH_MAX]; /* of the last call */
	uint32_t n_answers;
	bool keeps_floors; /* in `sent`, too */
	uint32_t items;    /* of a copy, and their digest, in the chunk so far */
	uint64_t digest;
};

struct replica_setup {
	uint32_t self;
	uint32_t keys_max, value_blocks_max;
	uint32_t loads_max;          /* with a datastore */
	struct chp_backing *backing; /* NULL: there is none */
};

/** A replica that has no view yet. */
struct replica *replica_of(const struct replica_setup *setup);

/** Node 0 without a datastore, in a view of all three; the peers have announced their floors. */
struct replica *replica_new(void);
void replica_free(struct replica *r);

/* ------------------------------------------------------------------ calls */

void begin_call(struct replica *r, uint32_t replies);

/** Collect what was sent, FLOORs apart, and check all invariants. */
void end_call(struct replica *r);
void wake(struct replica *r, uint32_t replies);
void enter_view(struct replica *r, uint64_t voters, uint64_t learners);
void step(struct replica *r, uint32_t from, const void *message);
void floor_from(struct replica *r, uint32_t from, uint64_t counter);

/* ------------------------------------------------------------------ what goes in */

/** v(2, 1): counter 2 by writer 1, node 0. */
uint64_t v(uint64_t counter, uint32_t writer);
struct chp_op op_of(struct replica *r, uint8_t opcode, const char *key, const char *value);
void submit_op(struct replica *r, struct chp_op op);
void submit(struct replica *r, uint8_t opcode, const char *key, const char *value);
struct sent inv_of(const char *key, uint64_t version, uint64_t base, uint8_t flags, const char *value, uint32_t op);

/** An INV with ticket 3. */
void inv(struct replica *r, uint32_t from, const char *key, uint64_t version, uint64_t base, uint8_t flags,
	 const char *value);

/** The peer's VAL for the operation of the last inv(). */
void val(struct replica *r, uint32_t from, uint64_t version);

/** The peer acknowledges an INV that we sent. */
void ack(struct replica *r, uint32_t from, const struct chp_hermes_inv *of);

/** Write a key and complete it: it is Valid at v(2, 1), or above what it was. */
void put_valid(struct replica *r, const char *key, const char *value);

/** An ITEM for the learner's REQUEST `transfer`, from node 1; what it was issued on is not known. */
void copy_item(struct replica *r, uint32_t transfer, const char *key, uint64_t version, const char *value);

/** The END of the transfer, whose only chunk had this item; it is the last. */
void copy_end(struct replica *r, uint32_t transfer);

/* ------------------------------------------------------------------ what comes out */

/** The transfer of the one REQUEST among what was sent. */
uint32_t transfer_asked(const struct replica *r);
void expect_state(struct replica *r, const char *key, const char *expected);
void expect_value(struct replica *r, const char *key, const char *value);
void expect_answer(struct replica *r, uint32_t i, uint8_t opcode, uint8_t status, uint64_t version);
void expect_inv(struct replica *r, uint32_t i, uint32_t to, uint64_t version, uint64_t base, uint8_t flags,
		const char *value);
void expect_ack(struct replica *r, uint32_t to, uint64_t version);
void expect_val(struct replica *r, uint32_t i, uint32_t to, uint64_t version);

#endif /* TESTS_HERMES_REPLICA_H */
