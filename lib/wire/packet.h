/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * packet.h - what is inside a UDP datagram (or a raw Ethernet frame): the prelude of every packet and
 * the link header of packets between replicas. docs/wire-protocol.md describes it byte by byte.
 *
 * All numbers are little-endian. Structures here overlay packet memory at any alignment. This layer
 * knows bytes and lengths, no state: everything in it is a fuzz target.
 */
#ifndef CHP_WIRE_PACKET_H
#define CHP_WIRE_PACKET_H

#include "base/bytes.h"
#include "base/limits.h"

#include <stdint.h>

#define CHP_WIRE_MAGIC 0x4843u /* the bytes 'C' 'H' */
#define CHP_WIRE_VERSION 1u

/* What a packet is. The ports say which of them may arrive where. */
enum chp_packet_kind {
	CHP_PACKET_PEER = 1,    /* replica to replica, one shard: link header and messages */
	CHP_PACKET_CONTROL = 2, /* replica to replica, control lcore: see wire/control.h */
	CHP_PACKET_REQUEST = 3, /* client to replica: see wire/client.h */
	CHP_PACKET_REPLY = 4,   /* replica to client */
	CHP_PACKET_HOST = 5,    /* shard to host and back, on the channel: link header and messages, see wire/host.h */
	CHP_PACKET_HOST_HELLO = 6, /* the same way, before the link is there */
};

/* The first 8 bytes of every packet. */
struct chp_prelude {
	uint16_t magic;
	uint8_t version;
	uint8_t kind;
	uint32_t cluster_hash; /* SAFETY 37; 0 in a request of a client that does not know it yet */
} CHP_PACKED;

/*
 * The link header of a CHP_PACKET_PEER and a CHP_PACKET_HOST. Sequence numbers count packets of one direction of one
 * link in one session, from 1; seq 0 is a packet that carries no messages and is not acknowledged.
 */
struct chp_peer_header {
	struct chp_prelude prelude;
	uint32_t crc32c;           /* of every byte of the packet but these four */
	uint8_t from;              /* node ids */
	uint8_t to;
	uint16_t shard;
	uint64_t from_incarnation; /* boot of the sender */
	uint64_t to_incarnation;   /* boot of the receiver that the sender talks to */
	uint64_t epoch;            /* the sender's view; checked when messages are delivered */
	uint32_t session;          /* link session: rises with each reset of the link */
	uint16_t flags;            /* enum chp_peer_flag */
	uint8_t tag_len;           /* bytes of authentication tag at the packet's end; 0 in version 1 */
	uint8_t pause_ms;          /* with CHP_PEER_PAUSE */
	uint64_t seq;
	uint64_t ack;              /* every packet up to this one was delivered */
	uint64_t sack;             /* bit i: packet ack + 2 + i has arrived too */
	uint64_t grant;            /* operations the receiver of this packet may ever begin in this session */
} CHP_PACKED;

_Static_assert(sizeof(struct chp_prelude) == 8, "wire format");
_Static_assert(sizeof(struct chp_peer_header) == 80, "wire format");
_Static_assert(offsetof(struct chp_peer_header, crc32c) == 8, "wire format");
_Static_assert(offsetof(struct chp_peer_header, epoch) == 32, "wire format");
_Static_assert(offsetof(struct chp_peer_header, seq) == 48, "wire format");

enum chp_peer_flag {
	CHP_PEER_ACK_NOW = 1u << 0, /* the sender waits for an acknowledgement or a grant */
	/*
	 * Back-pressure: what this shard has received and not yet looked at piles up. Send nothing with messages for
	 * pause_ms, 0 = go on. Stands alone: seq is 0, and acknowledgements and grant are 0 and say nothing, because
	 * whoever sees the pile, the RX stage, does not know them.
	 */
	CHP_PEER_PAUSE = 1u << 1,
};

/*
 * How long a pause lasts that nobody ends. Long against what it takes to work off a ring, 1 ms or a few where the
 * shard's lcore has to wait for a CPU; short against link_down_ms and what clients wait, should the end get lost.
 */
#define CHP_PAUSE_MS 10u
/* Nobody may hold a link back for longer with one packet. */
#define CHP_PAUSE_MS_MAX 50u

/* The header of every message in a peer packet. Messages are multiples of 8 bytes. */
struct chp_message {
	uint8_t type;  /* a protocol's own numbers, see wire/hermes.h */
	uint8_t flags; /* enum chp_message_flag */
	uint16_t len;  /* bytes of the whole message, this header included */
	uint32_t op;   /* the operation at its coordinator that this is about, or CHP_OP_NONE */
} CHP_PACKED;

_Static_assert(sizeof(struct chp_message) == 8, "wire format");

#define CHP_OP_NONE UINT32_MAX
#define CHP_MESSAGE_ALIGN 8u

enum chp_message_flag {
	CHP_MESSAGE_BEGIN = 1u << 0, /* begins an operation: uses a credit (SAFETY 12) */
};

/* Why a packet is dropped before anything else looks at it. Names of counters are in packet.c. */
enum chp_packet_error {
	CHP_PACKET_OK = 0,
	CHP_PACKET_SHORT,         /* shorter than its header */
	CHP_PACKET_LONG,          /* longer than the cluster's MTU allows */
	CHP_PACKET_MAGIC,         /* not one of ours */
	CHP_PACKET_VERSION,       /* another version of the protocol */
	CHP_PACKET_KIND,          /* a kind that does not belong on this port */
	CHP_PACKET_CLUSTER,       /* another cluster's hash */
	CHP_PACKET_CRC,           /* bytes changed on the way */
	CHP_PACKET_AUTH,          /* an authentication tag, which version 1 does not have */
	CHP_PACKET_NODE,          /* node id that is not a member, or not for us */
	CHP_PACKET_SHARD,         /* shard number out of range */
	CHP_PACKET_MESSAGE,       /* a message's length does not fit */
	CHP_PACKET_ERRORS,        /* how many there are */
};

/** The counter name of an error, as in "drop_crc". Static storage. */
const char *chp_packet_error_name(enum chp_packet_error e);

/**
 * Check the prelude: length, magic, version.
 *
 * @param data  len bytes
 * @param kind  set to the packet's kind when the result is CHP_PACKET_OK
 * @return      CHP_PACKET_OK, _SHORT, _MAGIC or _VERSION
 */
enum chp_packet_error chp_packet_kind_of(const void *data, uint32_t len, uint8_t *kind);

/**
 * Check what all packets between replicas have in common: kind, length, cluster, checksum.
 *
 * @param header_len  bytes of this kind's header, which has its checksum where chp_peer_header has it
 * @return            CHP_PACKET_OK, or the first thing wrong up to _CRC
 */
enum chp_packet_error chp_sealed_check(const void *data, uint32_t len, enum chp_packet_kind kind,
				       uint32_t header_len, uint32_t hash);

/**
 * Check a CHP_PACKET_PEER completely: header, checksum, cluster, and that its messages' lengths fill it
 * exactly. What the header says of epochs, incarnations and sequence is the link's business.
 *
 * @param hash    the cluster hash expected
 * @param nodes   members of the cluster: from and to must be below
 * @param shards  shard must be below
 * @return        CHP_PACKET_OK or the first thing wrong
 */
enum chp_packet_error chp_peer_check(const void *data, uint32_t len, uint32_t hash, uint32_t nodes,
				     uint32_t shards);

/**
 * Check that the messages behind a link header fill a packet of len bytes exactly, each a multiple of 8 bytes, and
 * that there are none when seq is 0.
 *
 * @return  CHP_PACKET_OK or CHP_PACKET_MESSAGE
 */
enum chp_packet_error chp_messages_check(const struct chp_peer_header *h, uint32_t len);

/**
 * Write the packet without messages that answers one of a peer with "pause", see CHP_PEER_PAUSE.
 *
 * @param h         a packet that chp_peer_check accepted
 * @param pause_ms  at most CHP_PAUSE_MS_MAX; 0 ends a pause
 * @param to        not sealed
 */
void chp_peer_pause(const struct chp_peer_header *h, uint32_t pause_ms, struct chp_peer_header *to);

/** Write the checksum into a finished peer packet of len bytes. */
void chp_peer_seal(void *data, uint32_t len);

/** The checksum that chp_peer_seal writes. */
uint32_t chp_peer_crc(const void *data, uint32_t len);

#endif /* CHP_WIRE_PACKET_H */
