/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * control.h - the packets of membership: replica to replica, control port, kind CHP_PACKET_CONTROL.
 *
 * Every packet says what its sender is and knows at that moment, never "the next step": so any of
 * them may be lost, repeated, reordered or late. docs/wire-protocol.md describes them byte by byte.
 */
#ifndef CHP_WIRE_CONTROL_H
#define CHP_WIRE_CONTROL_H

#include "wire/packet.h"

enum chp_control_type {
	CHP_CONTROL_HELLO = 1,       /* who I am and whom I hear; padded to the full MTU */
	CHP_CONTROL_HELLO_SHORT = 2, /* without padding: tells an MTU black hole from silence */
	CHP_CONTROL_FOUNDING = 3,    /* this is the one first view that I will enter: accept it too */
	CHP_CONTROL_DECIDED = 4,     /* this view is in force */
	CHP_CONTROL_REFUSED = 5,     /* a view is in force and you are not in it: wait, or give up */
	CHP_CONTROL_HEARTBEAT = 6,   /* I am alive; give me a lease */
	CHP_CONTROL_GRANT = 7,       /* you have a lease from me */
	CHP_CONTROL_PREPARE = 8,     /* Paxos for the next view, phase 1: promise me this ballot */
	CHP_CONTROL_PROMISE = 9,     /* promised; this is what I accepted before, if anything */
	CHP_CONTROL_ACCEPT = 10,     /* phase 2: accept this view */
	CHP_CONTROL_ACCEPTED = 11,   /* accepted, and no lease that I gave to whom it drops still runs */
	CHP_CONTROL_REJECTED = 12,   /* I promised a higher ballot */
	CHP_CONTROL_TYPES,
};

/* The first 40 bytes of every control packet; up to `to` laid out as in chp_peer_header. */
struct chp_control_header {
	struct chp_prelude prelude;
	uint32_t crc32c;           /* of every byte of the packet but these four */
	uint8_t from;              /* node ids */
	uint8_t to;
	uint8_t type;              /* enum chp_control_type */
	uint8_t tag_len;           /* bytes of authentication tag at the end; 0 in version 1 */
	uint64_t from_incarnation; /* never 0 */
	uint64_t to_incarnation;   /* of the receiver, as the sender last heard it; 0 = never */
	uint64_t epoch;            /* the view that the sender is in; 0 = none */
} CHP_PACKED;

_Static_assert(sizeof(struct chp_control_header) == 40, "wire format");
_Static_assert(offsetof(struct chp_control_header, crc32c) == 8, "as in chp_peer_header");
_Static_assert(offsetof(struct chp_control_header, from) == 12, "as in chp_peer_header");

enum chp_hello_flag {
	CHP_HELLO_BOOTSTRAP = 1u << 0, /* the sender was started with --bootstrap */
	CHP_HELLO_HOST = 1u << 1,      /* its host is there: recorded_min and those behind it say what it holds */
	CHP_HELLO_ITEMS = 1u << 2,     /* with HOST: it holds something */
	CHP_HELLO_VOLATILE = 1u << 3,  /* with HOST: it may forget */
};
#define CHP_HELLO_FLAGS_ALL 0xfu

/* HELLO and HELLO_SHORT. Behind it HELLO has zeros up to the UDP payload of the cluster's MTU. */
struct chp_control_hello {
	struct chp_control_header header;
	uint8_t n_members;       /* members in the sender's cluster file */
	uint8_t flags;           /* enum chp_hello_flag */
	uint16_t payload_bytes;  /* UDP payload of the sender's MTU: the length of its HELLO */
	uint32_t members_hash;   /* of the member addresses in the sender's cluster file */
	uint64_t heard;          /* node mask: whom the sender hears */
	uint64_t heard_full;     /* whom it hears in packets of full size; of one that waits to be
				    admitted: those of them who hear it likewise */
	uint64_t recorded_min;   /* epochs that its shards' stores have recorded: the lowest, the highest */
	uint64_t recorded_max;
	uint64_t life_max;       /* the highest life that ever began in one of them */
} CHP_PACKED;

/* FOUNDING, DECIDED, ACCEPT, and PROMISE with something accepted; n_members times chp_control_member follow. */
struct chp_control_view {
	struct chp_control_header header;
	uint64_t epoch;     /* of the view */
	uint64_t ballot;    /* ACCEPT: of the proposal; PROMISE: the one promised; others 0 */
	uint64_t voters;    /* node masks */
	uint64_t learners;
	uint8_t n_members;
	uint8_t reserved;
	uint16_t next_writer; /* see struct chp_view */
	uint32_t reserved2;   /* 0 */
	uint64_t accepted;    /* PROMISE: the ballot at which the view was accepted; others 0 */
	uint64_t sources;     /* node mask; see struct chp_view */
} CHP_PACKED;

/* A ballot is round << 8 | node id: no two proposers share one, and 0 is none. */
#define CHP_CONTROL_ROUND_MAX ((UINT64_C(1) << 48) - 1)

/* PREPARE, ACCEPTED, REJECTED, and PROMISE with nothing accepted. */
struct chp_control_ballot {
	struct chp_control_header header;
	uint64_t epoch;     /* of the view that is being agreed on: the sender's and one */
	uint64_t ballot;    /* REJECTED: the one promised instead */
} CHP_PACKED;

enum chp_heartbeat_flag {
	CHP_HEARTBEAT_READY = 1u << 0,  /* its copy is complete: make the learner a voter; a source is reconciled */
	CHP_HEARTBEAT_HEARS = 1u << 1,  /* the sender hears the receiver: the way back works, too */
	CHP_HEARTBEAT_LEAVES = 1u << 2, /* its host is gone: go on without the sender (SAFETY 32) */
};
#define CHP_HEARTBEAT_FLAGS_ALL 0x7u

/*
 * HEARTBEAT, from members to the live members of the view, and from who waits to be admitted to all.
 * Answered at once by a GRANT when it asks a voter for a lease and may have one.
 */
struct chp_control_heartbeat {
	struct chp_control_header header;
	uint64_t sent_ns;   /* the sender's clock, never 0: what its lease counts from */
	uint64_t lease_ns;  /* that it asks for, or as a learner will ask for; 0 = asks for none */
	uint32_t flags;     /* enum chp_heartbeat_flag */
	uint32_t reserved;  /* 0 */
} CHP_PACKED;

/* GRANT: until lease_ns after this arrival of sent_ns, the sender accepts no view without the receiver. */
struct chp_control_grant {
	struct chp_control_header header;
	uint64_t sent_ns;   /* of the HEARTBEAT, unchanged */
	uint64_t lease_ns;
} CHP_PACKED;

struct chp_control_member {
	uint64_t incarnation; /* 0 = not in the view */
	uint16_t writer;      /* writer number of this incarnation */
	uint16_t reserved[3]; /* 0 */
} CHP_PACKED;

enum chp_refused_reason {
	CHP_REFUSED_ALIVE = 1,   /* another process with your node id is in the view, or before you */
	CHP_REFUSED_WAIT = 2,    /* you will be admitted, when you are heard well and hear every member */
	CHP_REFUSED_MEMBERS = 3, /* your cluster file has other members or addresses */
	CHP_REFUSED_WRITERS = 4, /* every writer number is used up: only a new cluster can take you */
	CHP_REFUSED_RETIRED = 5, /* your incarnation was in a view that is over: become a new one */
	CHP_REFUSED_VOTERS = 6,  /* too few voters are there, or would be without your predecessor: wait */
	CHP_REFUSED_HOST = 7,    /* you will be admitted when your host is there */
	CHP_REFUSED_REASONS,
};

/* REFUSED: valid only for the incarnation in header.to_incarnation. */
struct chp_control_refused {
	struct chp_control_header header;
	uint8_t reason;       /* enum chp_refused_reason */
	uint8_t reserved[3];  /* 0 */
	uint32_t heard_ms;    /* since the process in the view was heard; UINT32_MAX = never */
} CHP_PACKED;

_Static_assert(sizeof(struct chp_control_hello) == 88, "wire format");
_Static_assert(sizeof(struct chp_control_view) == 96, "wire format");
_Static_assert(sizeof(struct chp_control_ballot) == 56, "wire format");
_Static_assert(sizeof(struct chp_control_heartbeat) == 64, "wire format");
_Static_assert(sizeof(struct chp_control_grant) == 56, "wire format");
_Static_assert(sizeof(struct chp_control_member) == 16, "wire format");
_Static_assert(sizeof(struct chp_control_refused) == 48, "wire format");

#define CHP_CONTROL_VIEW_BYTES_MAX                   \
	((uint32_t)(sizeof(struct chp_control_view) + \
		    CHP_NODES_MAX * sizeof(struct chp_control_member)))

_Static_assert(CHP_CONTROL_VIEW_BYTES_MAX <= CHP_PAYLOAD_BYTES_MIN, "a view fits one packet");

static inline uint32_t
chp_control_view_bytes(uint32_t n_members)
{
	return (uint32_t)(sizeof(struct chp_control_view) +
			  n_members * sizeof(struct chp_control_member));
}

static inline const struct chp_control_member *
chp_control_view_members(const struct chp_control_view *v)
{
	return (const struct chp_control_member *)(v + 1);
}

/**
 * Check a CHP_PACKET_CONTROL completely: header, checksum, cluster, length and fields of its type.
 * What it says of incarnations and epochs is the membership's business.
 *
 * @param data   len bytes, any alignment
 * @param hash   the cluster hash expected
 * @param nodes  members of the cluster: from and to must be below, a view has exactly so many
 * @return       CHP_PACKET_OK or the first thing wrong
 */
enum chp_packet_error chp_control_check(const void *data, uint32_t len, uint32_t hash,
					uint32_t nodes);

/** Write the checksum into a finished control packet of len bytes. */
void chp_control_seal(void *data, uint32_t len);

#endif /* CHP_WIRE_CONTROL_H */
