/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hermes.h - the messages of the Hermes protocol: INV, ACK, VAL, FLOOR for forgetting deleted keys, EVICTED and
 * STORED where a datastore is behind the cache.
 *
 * A negative acknowledgement of a read-modify-write is an INV with CHP_INV_NACK (protocols.md 6.1, rule
 * 5: it is a real INV and is processed as one).
 */
#ifndef CHP_WIRE_HERMES_H
#define CHP_WIRE_HERMES_H

#include "wire/packet.h"

enum chp_hermes_type {
	CHP_HERMES_INV = 0x10,
	CHP_HERMES_ACK = 0x11,
	CHP_HERMES_VAL = 0x12,
	CHP_HERMES_FLOOR = 0x13,
	CHP_HERMES_EVICTED = 0x14,
	CHP_HERMES_STORED = 0x15,
	CHP_HERMES_FETCH = 0x16,
	CHP_HERMES_FETCHED = 0x17,
};

/* What an INV's write is. The bits are a property of the version, kept with it in the cache. */
enum chp_inv_flag {
	CHP_INV_RMW = 1u << 0,       /* a read-modify-write: may be aborted by a concurrent write */
	CHP_INV_TOMBSTONE = 1u << 1, /* a delete: no value */
	CHP_INV_SESSION = 1u << 2,   /* the key is a session number, not a client's key */
	CHP_INV_BASE_UNKNOWN = 1u << 3, /* base does not say what it was issued on (SAFETY 7) */
	CHP_INV_NACK = 1u << 4,      /* refuses a read-modify-write; no ACK is expected */
	CHP_INV_REPLAY = 1u << 5,    /* replays a version that its sender did not validate */
	CHP_INV_FORGET = 1u << 6,    /* with CHP_INV_TOMBSTONE: once Valid the key may be forgotten */
};
#define CHP_INV_FLAGS_ALL 0x7fu

struct chp_hermes_inv {
	struct chp_message message;
	uint32_t generation;   /* of the op at its coordinator; echoed by the ACK */
	uint8_t key_len;       /* 1..250 */
	uint8_t inv_flags;
	uint16_t reserved;     /* 0 */
	uint64_t version;      /* ts: 48-bit counter | 16-bit writer */
	uint64_t base;         /* the version that it was issued on; 0 = the key was absent */
	uint64_t session;      /* (session, request) of the client's write; 0 = none */
	uint64_t request;
	uint64_t number;       /* the client's numeric result, kept with the session's record */
	uint32_t value_total;  /* bytes of the whole value */
	uint32_t value_offset; /* of the part in this message; 0 in version 1 */
	/* key_len bytes of key, then the value, then zeros up to a multiple of 8 */
} CHP_PACKED;

struct chp_hermes_ack {
	struct chp_message message;
	uint32_t generation;
	uint32_t reserved; /* 0 */
	uint64_t version;  /* of the INV acknowledged, whether it was adopted or not */
} CHP_PACKED;

/*
 * VAL names the coordinator's op, not the key: the receiver remembers what key the INV with that op was
 * about, so that a VAL costs no look-up. Links are FIFO, so an op's VAL comes before the op is reused.
 */
struct chp_hermes_val {
	struct chp_message message;
	uint32_t generation;
	uint32_t reserved; /* 0 */
	uint64_t version;
} CHP_PACKED;

/* From now on the sender gives absent keys versions above this counter (SAFETY 6). */
struct chp_hermes_floor {
	struct chp_message message; /* op: CHP_OP_NONE */
	uint64_t counter;
} CHP_PACKED;

/*
 * CHP_HERMES_EVICTED has the same form: every version that the sender has evicted has at most this counter, so that a
 * version above is newer than what it would find in its datastore (SAFETY 2, 3). CHP_HERMES_STORED has the form of an
 * ACK: the sender's datastore has that version or a newer one (SAFETY 33).
 */

/* What do you have of this key, in cache or datastore? (SAFETY 34) */
struct chp_hermes_fetch {
	struct chp_message message; /* op: the sender's, with generation for the answer */
	uint32_t generation;
	uint8_t key_len;            /* 1..250 */
	uint8_t reserved[3];        /* 0 */
	/* key_len bytes of key, then zeros up to a multiple of 8 */
} CHP_PACKED;

enum chp_hermes_fetched_status {
	CHP_HERMES_FETCH_FOUND = 0,
	CHP_HERMES_FETCH_TOMBSTONE = 1, /* deleted, at `version` */
	CHP_HERMES_FETCH_ABSENT = 2,
	CHP_HERMES_FETCH_AGAIN = 3,     /* cannot be told now: ask again */
	CHP_HERMES_FETCH_UNDER_WAY = 4, /* a write is: the key has no version above `version` yet */
};

struct chp_hermes_fetched {
	struct chp_message message;
	uint32_t generation;
	uint8_t status;       /* enum chp_hermes_fetched_status */
	uint8_t reserved[3];  /* 0 */
	uint64_t version;     /* 0 if ABSENT or AGAIN */
	uint64_t recorded;    /* the view up to which the sender's store had everything when its life began */
	uint32_t value_total; /* 0 unless FOUND */
	uint32_t stored_in;   /* generation of the cluster in which the sender's store got it; 0 unless it has it */
	/* the value, then zeros up to a multiple of 8 */
} CHP_PACKED;

_Static_assert(sizeof(struct chp_hermes_fetch) == 16, "wire format");
_Static_assert(sizeof(struct chp_hermes_fetched) == 40, "wire format");
_Static_assert(sizeof(struct chp_hermes_inv) == 64, "wire format");
_Static_assert(sizeof(struct chp_hermes_ack) == 24, "wire format");
_Static_assert(sizeof(struct chp_hermes_val) == 24, "wire format");
_Static_assert(sizeof(struct chp_hermes_floor) == 16, "wire format");

/* Counters are 48 bits of a version; a floor must leave room above it. */
#define CHP_HERMES_FLOOR_MAX (UINT64_C(1) << 47)

/* Bytes of an INV with this key and value. */
static inline uint32_t
chp_hermes_inv_bytes(uint32_t key_len, uint32_t value_len)
{
	return chp_align_u32((uint32_t)sizeof(struct chp_hermes_inv) + key_len + value_len,
			     CHP_MESSAGE_ALIGN);
}

#define CHP_HERMES_INV_BYTES_MAX                                                         \
	((uint32_t)sizeof(struct chp_hermes_inv) + ((CHP_RECORD_BYTES_MAX + 7u) & ~7u))

_Static_assert(sizeof(struct chp_peer_header) + CHP_HERMES_INV_BYTES_MAX <= CHP_PAYLOAD_BYTES_MIN,
	       "the largest INV fits one packet of the smallest MTU");

static inline const uint8_t *
chp_hermes_inv_key(const struct chp_hermes_inv *m)
{
	return (const uint8_t *)(m + 1);
}

static inline const uint8_t *
chp_hermes_inv_value(const struct chp_hermes_inv *m)
{
	return (const uint8_t *)(m + 1) + m->key_len;
}

/**
 * Whether a message, whose length chp_peer_check accepted, is a well-formed Hermes message.
 *
 * @param m            m->len bytes can be read
 * @param value_max    the cluster's largest value
 */
bool chp_hermes_check(const struct chp_message *m, uint32_t value_max);

#endif /* CHP_WIRE_HERMES_H */
