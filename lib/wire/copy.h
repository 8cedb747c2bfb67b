/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * copy.h - the messages that bring a learner up to date: common to all protocols that copy state per key.
 *
 * A learner asks one voter for a chunk (REQUEST) and gets the keys (ITEM) and the records of sessions (RECORD)
 * of that chunk and its END. message.op is the transfer: a number that the learner gives to each REQUEST,
 * so that what belongs to an earlier one is recognised.
 */
#ifndef CHP_WIRE_COPY_H
#define CHP_WIRE_COPY_H

#include "wire/packet.h"

enum chp_copy_type {
	CHP_COPY_REQUEST = 0x01,
	CHP_COPY_ITEM = 0x02,
	CHP_COPY_RECORD = 0x03,
	CHP_COPY_END = 0x04,
};

/* Learner to voter: send me a chunk. */
struct chp_copy_request {
	struct chp_message message;
	uint64_t cursor;   /* where the chunk begins, in the voter's own numbering; 0 = at the beginning */
	uint32_t bytes;    /* of ITEMs and RECORDs at most, if more than one; 1..CHP_COPY_BYTES_MAX */
	uint32_t reserved; /* 0 */
} CHP_PACKED;

/* What a version is: the bits of enum chp_slot_flag, and two more. */
enum chp_copy_item_flag {
	CHP_COPY_RMW = 1u << 0,
	CHP_COPY_TOMBSTONE = 1u << 1,    /* no value */
	CHP_COPY_SESSION = 1u << 2,      /* the key is a session number */
	CHP_COPY_BASE_UNKNOWN = 1u << 3,
	CHP_COPY_UNDER_WAY = 1u << 5,    /* not readable yet, nor sent: the learner must have it, or a newer one */
	CHP_COPY_FORGET = 1u << 6,       /* with CHP_COPY_TOMBSTONE */
	CHP_COPY_BASE_ABSENT = 1u << 7,  /* issued on an absent key */
};
#define CHP_COPY_VERSION_FLAGS                                                                           \
	(CHP_COPY_RMW | CHP_COPY_TOMBSTONE | CHP_COPY_SESSION | CHP_COPY_BASE_UNKNOWN | CHP_COPY_FORGET)

/* Voter to learner: a key that is readable there, or is named only: then without a value and any other flag. */
struct chp_copy_item {
	struct chp_message message;
	uint64_t version;
	uint16_t base_writer; /* with the flags: the version this one was issued on, see struct chp_slot */
	uint8_t key_len;      /* 1..250 */
	uint8_t item_flags;   /* enum chp_copy_item_flag */
	uint32_t value_total; /* bytes of the value */
	/* key_len bytes of key, then the value, then zeros up to a multiple of 8 */
} CHP_PACKED;

enum chp_copy_record_flag {
	CHP_COPY_RECORD_RMW = 1u << 0,       /* the write is a read-modify-write */
	CHP_COPY_RECORD_COMMITTED = 1u << 1, /* certainly applied */
	CHP_COPY_RECORD_UNKNOWN = 1u << 2,   /* may or may not have been applied, for ever */
	CHP_COPY_RECORD_DECIDED = 1u << 3,   /* by a log, with the status in bits 8..15; none of the others */
};
#define CHP_COPY_RECORD_FLAGS_ALL 0xfu
#define CHP_COPY_RECORD_STATUS_SHIFT 8u

/* Voter to learner: what is remembered of a session's request. */
struct chp_copy_record {
	struct chp_message message;
	uint64_t session;      /* not 0 */
	uint64_t request;
	uint64_t version;      /* that it wrote; 0 only with CHP_COPY_RECORD_UNKNOWN or _DECIDED */
	uint64_t number;       /* the client's numeric result */
	uint32_t record_flags; /* enum chp_copy_record_flag; with RMW one of COMMITTED and UNKNOWN */
	uint32_t reserved;     /* 0 */
} CHP_PACKED;

enum chp_copy_end_flag {
	CHP_COPY_DONE = 1u << 0, /* nothing follows this chunk: next = total */
};
#define CHP_COPY_END_FLAGS_ALL 0x1u

/* Voter to learner: the chunk is complete. */
struct chp_copy_end {
	struct chp_message message;
	uint64_t next;      /* the cursor of the next chunk; at most total */
	uint32_t items;     /* ITEMs and RECORDs of the chunk */
	uint32_t end_flags; /* enum chp_copy_end_flag */
	uint64_t digest;    /* sum over these of chp_hash64(message, message.len, 0) */
	uint64_t total;     /* the cursor at the end of everything */
} CHP_PACKED;

_Static_assert(sizeof(struct chp_copy_request) == 24, "wire format");
_Static_assert(sizeof(struct chp_copy_item) == 24, "wire format");
_Static_assert(sizeof(struct chp_copy_record) == 48, "wire format");
_Static_assert(sizeof(struct chp_copy_end) == 40, "wire format");
_Static_assert(offsetof(struct chp_copy_item, base_writer) == 16, "wire format");
_Static_assert(offsetof(struct chp_copy_item, value_total) == 20, "wire format");
_Static_assert(offsetof(struct chp_copy_record, record_flags) == 40, "wire format");
_Static_assert(offsetof(struct chp_copy_end, digest) == 24, "wire format");

/* Counters are 48 bits of a version; what follows a version must not wrap. */
#define CHP_COPY_COUNTER_MAX (UINT64_C(1) << 47)

/* Bytes of an ITEM with this key and value. */
static inline uint32_t
chp_copy_item_bytes(uint32_t key_len, uint32_t value_len)
{
	return chp_align_u32((uint32_t)sizeof(struct chp_copy_item) + key_len + value_len, CHP_MESSAGE_ALIGN);
}

/* The largest message of all. */
#define CHP_COPY_MESSAGE_BYTES_MAX                                                       \
	((uint32_t)sizeof(struct chp_copy_item) + ((CHP_RECORD_BYTES_MAX + 7u) & ~7u))

_Static_assert(sizeof(struct chp_peer_header) + CHP_COPY_MESSAGE_BYTES_MAX <= CHP_PAYLOAD_BYTES_MIN,
	       "the largest ITEM fits one packet of the smallest MTU");

static inline const uint8_t *
chp_copy_item_key(const struct chp_copy_item *m)
{
	return (const uint8_t *)(m + 1);
}

static inline const uint8_t *
chp_copy_item_value(const struct chp_copy_item *m)
{
	return (const uint8_t *)(m + 1) + m->key_len;
}

/* Whether a message type is one of these. */
static inline bool
chp_copy_is(const struct chp_message *m)
{
	return m->type >= CHP_COPY_REQUEST && m->type <= CHP_COPY_END;
}

/**
 * Whether a message, whose length chp_peer_check accepted, is a well-formed message of a copy.
 *
 * @param m            m->len bytes can be read
 * @param value_max    the cluster's largest value
 */
bool chp_copy_check(const struct chp_message *m, uint32_t value_max);

#endif /* CHP_WIRE_COPY_H */
