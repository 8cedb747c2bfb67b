/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client.h - the native client protocol over UDP: request and reply datagrams.
 *
 * A request datagram to port_base + s holds requests of shard s only, as many as fit; one to the
 * any-shard port holds a single request of any shard. Replies to one datagram may span several; each
 * names its request (SAFETY 27). docs/wire-protocol.md describes it byte by byte.
 */
#ifndef CHP_WIRE_CLIENT_H
#define CHP_WIRE_CLIENT_H

#include "wire/packet.h"

/* Operations. Everything below CHP_OPCODE_INFO is an operation on one key. */
enum chp_opcode {
	CHP_OPCODE_GET = 1,
	CHP_OPCODE_PUT = 2,
	CHP_OPCODE_DELETE = 3,
	CHP_OPCODE_CAS = 4,           /* arg: the version that get returned */
	CHP_OPCODE_ADD = 5,           /* only if absent */
	CHP_OPCODE_REPLACE = 6,       /* only if present */
	CHP_OPCODE_APPEND = 7,
	CHP_OPCODE_PREPEND = 8,
	CHP_OPCODE_INCR = 9,          /* arg: the delta; the value is an ASCII number */
	CHP_OPCODE_DECR = 10,
	CHP_OPCODE_SESSION_OPEN = 11, /* no key; arg: any number that tells this open from others */
	CHP_OPCODE_SESSION_CLOSE = 12, /* no key; closes the datagram's session */
	CHP_OPCODE_PING = 13,         /* no key; answered by the shard */
	CHP_OPCODE_QUORUM = 14,       /* no key, no session; arg: enum chp_quorum_rule; number: the rule in force */
	CHP_OPCODE_INFO = 32,         /* control port only: the cluster's shape as JSON */
	CHP_OPCODE_STATUS = 33,       /* control port only: counters as JSON; arg: the section */
};

/* How many acknowledgements commit an operation; the argument of CHP_OPCODE_QUORUM. */
enum chp_quorum_rule {
	CHP_QUORUM_MAJORITY = 0,
	CHP_QUORUM_ALL = 1, /* of the configured voters (SAFETY 28) */
	CHP_QUORUM_ASK = 2, /* only asks which of them is in force */
};

/* Of one request. Flags that a replica does not know may be ignored. */
enum chp_request_flag {
	CHP_REQUEST_RELAXED = 1u << 0, /* get: may be answered from this replica's state, however old */
};

/* Of one reply. */
enum chp_reply_flag {
	CHP_REPLY_RELAXED = 1u << 0, /* get: the answer may be older than the newest write */
};

/* How an operation ended. docs/wire-protocol.md says what a client does with each. */
enum chp_status {
	CHP_STATUS_OK = 0,
	CHP_STATUS_NOT_FOUND = 1,       /* the key is absent */
	CHP_STATUS_EXISTS = 2,          /* add: the key is present */
	CHP_STATUS_COMPARE_FAILED = 3,  /* cas: the key has another version */
	CHP_STATUS_NOT_NUMBER = 4,      /* incr, decr: the value is not an unsigned 64-bit number */
	CHP_STATUS_TOO_LARGE = 5,       /* value beyond the cluster's maximum, also after an append */
	CHP_STATUS_BAD_KEY = 6,         /* empty or longer than the cluster's maximum */
	CHP_STATUS_BAD_REQUEST = 7,     /* fields that contradict each other */
	CHP_STATUS_UNKNOWN_OP = 8,
	CHP_STATUS_WRONG_SHARD = 9,     /* number: shards << 32 | right shard; version: the hash seed */
	CHP_STATUS_BUSY = 10,           /* no room now: certainly not applied, also not later */
	CHP_STATUS_OVERLOAD = 11,       /* dropped before it was looked at: send it again, slower */
	CHP_STATUS_FULL = 12,           /* the data cache has no room for the key or value */
	CHP_STATUS_SESSION_UNKNOWN = 13, /* expired, closed or never opened: refused, not guessed */
	CHP_STATUS_SESSION_WINDOW = 14, /* request number too far above the lowest unanswered one */
	CHP_STATUS_SESSIONS_FULL = 15,  /* no room for another session */
	CHP_STATUS_UNKNOWN_OUTCOME = 16, /* may or may not have been applied; never tried again */
	CHP_STATUS_REDIRECT = 17,       /* number: the node to ask, which may be this one in a newer epoch */
	CHP_STATUS_NOT_SERVING = 18,    /* not a voter of a view, or no lease: nothing is said of earlier sends */
	CHP_STATUS_COUNT,               /* how many there are */
};

/** Name of a status, as "compare_failed"; "status_?" if unknown. Static storage. */
const char *chp_status_name(uint32_t status);

/** Name of a quorum rule, as "majority"; NULL if it is none that can be in force. Static storage. */
const char *chp_quorum_name(uint64_t rule);

/** Name of an operation, as "get"; NULL if unknown. Static storage. */
const char *chp_opcode_name(uint32_t opcode);

#define CHP_SHARD_ANY UINT16_MAX

struct chp_request_header {
	struct chp_prelude prelude; /* cluster_hash 0: the client does not know it yet */
	uint64_t session;           /* 0 = none: writes are then at least once */
	uint64_t lowest;            /* the session's lowest request number without an answer */
	uint16_t shard;             /* as the port says; CHP_SHARD_ANY on the any-shard port */
	uint8_t tag_len;            /* 0 in version 1 */
	uint8_t flags;              /* 0 */
	uint32_t epoch;             /* low half of the newest epoch that the client has seen in a reply; 0 = none */
} CHP_PACKED;

struct chp_request {
	uint8_t opcode;
	uint8_t flags;         /* enum chp_request_flag */
	uint16_t len;          /* bytes of the whole request, a multiple of 8 */
	uint8_t key_len;
	uint8_t reserved[3];   /* 0 */
	uint64_t request;      /* chosen by the client, echoed; in a session: 1, 2, 3, ... */
	uint32_t value_total;  /* bytes of the whole value */
	uint32_t value_offset; /* of the part in this message; 0 in version 1 */
	uint64_t arg;
	/* key, value, zeros up to a multiple of 8 */
} CHP_PACKED;

struct chp_reply_header {
	struct chp_prelude prelude;
	uint64_t session;
	uint64_t epoch;    /* rises when another replica may have begun to execute the session's requests */
	uint16_t shard;
	uint8_t node;      /* who answers */
	uint8_t tag_len;   /* 0 in version 1 */
	uint32_t reserved; /* 0 */
} CHP_PACKED;

struct chp_reply_message {
	uint8_t opcode;
	uint8_t status;
	uint16_t len;          /* bytes of the whole reply, a multiple of 8 */
	uint8_t flags;         /* enum chp_reply_flag */
	uint8_t reserved[3];   /* 0 */
	uint64_t request;
	uint32_t value_total;
	uint32_t value_offset;
	uint64_t version;      /* get: of the value; writes: the new version */
	uint64_t number;       /* incr, decr: the new number; session_open: the session; or by status */
	/* value, zeros up to a multiple of 8 */
} CHP_PACKED;

_Static_assert(sizeof(struct chp_request_header) == 32, "wire format");
_Static_assert(sizeof(struct chp_request) == 32, "wire format");
_Static_assert(sizeof(struct chp_reply_header) == 32, "wire format");
_Static_assert(sizeof(struct chp_reply_message) == 40, "wire format");

static inline uint32_t
chp_request_bytes(uint32_t key_len, uint32_t value_len)
{
	return chp_align_u32((uint32_t)sizeof(struct chp_request) + key_len + value_len,
			     CHP_MESSAGE_ALIGN);
}

static inline uint32_t
chp_reply_bytes(uint32_t value_len)
{
	return chp_align_u32((uint32_t)sizeof(struct chp_reply_message) + value_len,
			     CHP_MESSAGE_ALIGN);
}

static inline const uint8_t *
chp_request_key(const struct chp_request *r)
{
	return (const uint8_t *)(r + 1);
}

static inline const uint8_t *
chp_request_value(const struct chp_request *r)
{
	return (const uint8_t *)(r + 1) + r->key_len;
}

static inline const uint8_t *
chp_reply_value(const struct chp_reply_message *r)
{
	return (const uint8_t *)(r + 1);
}

/**
 * Check a request datagram's header: length, prelude, cluster (hash or 0), tag.
 *
 * @param hash  the cluster hash; a request may also carry 0
 * @return      CHP_PACKET_OK or the first thing wrong
 */
enum chp_packet_error chp_request_header_check(const void *data, uint32_t len, uint32_t hash);

/**
 * The next request of a datagram.
 *
 * @param data    the datagram, whose header was accepted
 * @param offset  in: where to look, sizeof(struct chp_request_header) at first; out: behind the request
 * @return        the request, whose len lies within the datagram; NULL at the end (offset == len) or
 *                when the rest is malformed (offset < len)
 */
const struct chp_request *chp_request_next(const void *data, uint32_t len, uint32_t *offset);

/**
 * Whether a request's fields fit each other and the limits.
 *
 * @param key_max, value_max  the cluster's maxima
 * @return  CHP_STATUS_OK, _UNKNOWN_OP, _BAD_KEY, _TOO_LARGE or _BAD_REQUEST, also for a relaxed write
 */
enum chp_status chp_request_check(const struct chp_request *r, uint32_t key_max, uint32_t value_max);

/** As the two above, for replies: the client's side. */
enum chp_packet_error chp_reply_header_check(const void *data, uint32_t len, uint32_t hash);
const struct chp_reply_message *chp_reply_next(const void *data, uint32_t len, uint32_t *offset);

#endif /* CHP_WIRE_CLIENT_H */
