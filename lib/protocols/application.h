/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * application.h - what the replicated keys are for: how an operation on one key becomes what it writes.
 *
 * A protocol brings one order of writes to all replicas; what a write does to its key is the application's. It
 * turns an operation into an idempotent outcome against the newest state of the key (SAFETY 26), so that only
 * outcomes travel and every replica applies the same. Pure; no state; any thread.
 *
 * Reads and sessions are the protocols': get, session_open and session_close never come here.
 */
#ifndef CHP_PROTOCOLS_APPLICATION_H
#define CHP_PROTOCOLS_APPLICATION_H

#include "base/limits.h"
#include "wire/client.h"

#include <stdbool.h>
#include <stdint.h>

/* The newest state of a key that an operation acts on. */
struct chp_current {
	bool present;
	uint64_t version;
	const uint8_t *value; /* NULL if the operation is not in needs_value */
	uint32_t value_len;
};

/* What an operation does. Any status but OK: nothing changes. */
struct chp_outcome {
	const uint8_t *value; /* the operand, or in scratch */
	uint32_t value_len;
	uint64_t number;      /* the client's numeric result */
	uint8_t status;       /* enum chp_status */
	bool remove;          /* the key goes; otherwise it gets value */
	bool is_rmw;          /* what it does depends on the key's state */
};

struct chp_application {
	const char *name;
	/* Operations, as bits 1 << opcode, that look at the key's value: for others now->value may be NULL. */
	uint32_t needs_value;
	/* Operations, as bits, whose outcome does not depend on the key's state: they need not know it. */
	uint32_t is_blind;
	/**
	 * Turn one operation on one key into its outcome; UNKNOWN_OP for operations that it does not have.
	 *
	 * @param arg, operand     of the request; operand_len <= value_bytes_max
	 * @param value_bytes_max  no outcome's value is longer
	 * @param scratch          CHP_VALUE_BYTES_MAX bytes, which out->value may point into; not now->value's
	 */
	void (*evaluate)(uint8_t opcode, uint64_t arg, const uint8_t *operand, uint32_t operand_len,
			 const struct chp_current *now, uint32_t value_bytes_max, uint8_t *scratch,
			 struct chp_outcome *out);
};

/* Keys and values as in memcached: put, delete, cas, add, replace, append, prepend, incr, decr. */
extern const struct chp_application chp_store;

/*
 * Sequences of numbers, each handed out once: incr reserves arg of them and its number is the first, in a new
 * sequence 0; a get's value is the next number in ASCII decimal; delete forgets a sequence.
 */
extern const struct chp_application chp_sequencer;

/** Application by name; NULL if there is none. */
const struct chp_application *chp_application_find(const char *name);

/** NULL-terminated names of all applications. Static storage. */
const char *const *chp_application_names(void);

static inline bool
chp_application_needs_value(const struct chp_application *a, uint8_t opcode)
{
	return opcode < 32 && (a->needs_value >> opcode & 1u) != 0;
}

static inline bool
chp_application_is_blind(const struct chp_application *a, uint8_t opcode)
{
	return opcode < 32 && (a->is_blind >> opcode & 1u) != 0;
}

#endif /* CHP_PROTOCOLS_APPLICATION_H */
