/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * caller.h - a client on the outside of a ring_net, byte by byte: for tests of the datapath.
 *
 * It checks of every reply what an ordinary client's kernel would: addresses, lengths, checksums.
 */
#ifndef TESTS_CALLER_H
#define TESTS_CALLER_H

#include "local.h"
#include "pipeline/frame.h"
#include "wire/client.h"

#include <stdbool.h>
#include <stdint.h>

#define CALLER_ADDRESS 0x0a0000c8u /* 10.0.0.200 */
#define CALLER_PORT 40000u
#define CALLER_REPLIES_MAX 65536u

struct caller_reply {
	bool there;
	uint8_t status, opcode, node;
	uint32_t times;   /* answered so often */
	uint16_t shard;
	uint32_t value_len;
	uint8_t value[CHP_PAYLOAD_BYTES_MIN];
	uint64_t version, number;
};

struct caller {
	struct local *l;
	struct rte_mempool *pool;
	struct rte_mbuf *m; /* the datagram being written */
	uint32_t payload_len, replica, port;
	uint64_t epoch; /* the newest seen in a reply */
	uint64_t n_replies, bad_frames, others;
	struct rte_mbuf *other; /* the newest frame that is no reply: ARP, ICMP */
	struct caller_reply *reply; /* by request number */
};

/** Start EAL as tests do: no hugepages, no files, little memory. Returns whether it started. */
bool caller_start_eal(const char *lcores);

/** Returns 0 or -1. */
int caller_init(struct caller *c, struct local *l);

/** A frame of `len` bytes as it is. */
void caller_send_raw(struct caller *c, const void *frame, uint32_t len);

/** Begin a datagram to port_base + port of a replica. */
void caller_begin(struct caller *c, uint32_t replica, uint32_t port, uint64_t session, uint64_t lowest,
		  uint16_t shard);

/** Add a request with a number below CALLER_REPLIES_MAX; forgets what was answered to it. */
void caller_add(struct caller *c, uint8_t opcode, const char *key, const char *value, uint64_t arg,
		uint64_t request);

/** Write the frame's headers; it can be changed through c->m before caller_send. */
uint8_t *caller_finish(struct caller *c);

/** Send the datagram that was begun (finishing it). */
void caller_send(struct caller *c);

/** Take replies from the network. */
void caller_receive(struct caller *c);

/** Poll everything until a request is answered; NULL after two seconds. */
const struct caller_reply *caller_wait(struct caller *c, uint64_t request);

/** Poll everything for so many iterations. */
void caller_poll(struct caller *c, uint32_t iterations);

/** One operation to the shard of its key at a replica, until an answer other than "not now" is there. */
const struct caller_reply *caller_call(struct caller *c, uint32_t replica, uint8_t opcode,
				       const char *key, const char *value, uint64_t arg);

/** The shard of a key. */
uint32_t caller_shard_of(const struct caller *c, const char *key);

#endif /* TESTS_CALLER_H */
