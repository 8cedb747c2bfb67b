/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * native.h - the native UDP frontend of one shard: request datagrams to operations, replies to datagrams.
 *
 * Replies to one client and session that are given in one batch share a datagram. The caller supplies the
 * buffers and sends what was filled. Pure; owner: the shard's lcore.
 */
#ifndef CHP_FRONTENDS_NATIVE_H
#define CHP_FRONTENDS_NATIVE_H

#include "protocols/protocol.h"
#include "wire/client.h"

#include <stdint.h>

/* Places for hints which datagram a client's replies go to; one byte each, any value is safe. */
#define CHP_NATIVE_RECENT 256u

/* A datagram for replies: the caller's buffer. */
struct chp_native_datagram {
	uint8_t *data;
	uint32_t cap;   /* at least CHP_PAYLOAD_BYTES_MIN */
	uint32_t len;   /* set when used */
	uint8_t address[20]; /* as in struct chp_origin; set when used */
	uint64_t session;
};

#define CHP_NATIVE_COUNTERS(X)                                             \
	X(datagrams, "request datagrams taken")                            \
	X(requests, "requests in them")                                    \
	X(refused, "requests answered with an error before the shard")     \
	X(revoked, "reads taken back because the lease had run out")       \
	X(malformed, "datagrams whose requests do not fit their lengths")

struct chp_native_counters {
#define CHP_COUNTER_FIELD(name, help) uint64_t name;
	CHP_NATIVE_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
};

struct chp_native {
	struct chp_native_counters counters;
	struct chp_native_datagram *datagram; /* n_datagrams to fill; the first n_used were */
	uint32_t n_datagrams;
	uint32_t n_used;
	uint32_t cluster_hash;
	uint32_t shard, shards;
	uint64_t hash_seed;
	uint32_t key_bytes_max, value_bytes_max;
	uint32_t node;
	uint64_t epoch; /* set by the caller before each batch; 0 = not serving */
	uint8_t recent[CHP_NATIVE_RECENT]; /* hints: hash of address and session -> datagram */
};

/**
 * Replies that can surely still be taken: each may need a datagram of its own.
 */
static inline uint32_t
chp_native_room(const struct chp_native *f)
{
	return f->n_datagrams - f->n_used;
}

/**
 * Turn a request datagram, whose header was accepted, into operations. Answered here: requests
 * that are wrong in themselves (status unknown_op, bad_key, too_large, bad_request) or whose datagram is
 * addressed to another shard (wrong_shard). Whether a key belongs to the shard is the core's to say.
 *
 * @param offset  in: 0 at first; out: where to go on when `cap` was reached; len when done
 * @param op      filled; views into data
 * @param cap     operations and answers that may be written: at most chp_native_room less the operations
 *                that the batch has already, since each of them gets a reply
 * @return        operations written
 */
uint32_t chp_native_parse(struct chp_native *f, const uint8_t *data, uint32_t len, uint32_t *offset,
			  const uint8_t address[20], struct chp_op *op, uint32_t cap);

/** The reply sink of chp_shard_run; `frontend` is a struct chp_native. */
uint8_t *chp_native_reply(void *frontend, const struct chp_reply *r);

/**
 * The lease ran out while the batch ran: its reads, already written, become NOT_SERVING without a value
 * (SAFETY 16); relaxed ones, which promise nothing, stay. Call after chp_shard_run, before the datagrams
 * are sent.
 *
 * @return  reads taken back
 */
uint32_t chp_native_revoke_reads(struct chp_native *f);

#endif /* CHP_FRONTENDS_NATIVE_H */
