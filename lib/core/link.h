/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * link.h - the reliable FIFO link of one shard to one peer, or to its host (DESIGN "Links"; SAFETY 11-15).
 *
 * The paper's application-specific network: packet sequence numbers, cumulative and selective
 * acknowledgements that ride on any packet, fast retransmit on a gap, a retransmission timer with
 * back-off, a window that halves on loss, the boot incarnations of both ends in every packet, credits for
 * operations. A link keeps its packets in buffers of its own until they are acknowledged; a
 * retransmission is a new packet with a fresh header.
 *
 * `ack` says what was delivered to the protocol, `sack` what has arrived beyond it. So at most a window
 * of packets waits at the receiver, and what waits is never thrown away but by a reset.
 *
 * Back-pressure: a peer that receives more than it can work off says "pause" (CHP_PEER_PAUSE), before it would
 * have to drop packets. Then no packet with messages goes out, new or again, and no retransmission timer fires:
 * what is on its way lies in the peer's rings. Acknowledgements still go. A pause ends when the peer says so or
 * by itself. Whether the peer is stuck (link_down_ns) does not depend on it.
 *
 * Pure: time is an argument, packets are written into the caller's buffers. Owner: one lcore.
 */
#ifndef CHP_CORE_LINK_H
#define CHP_CORE_LINK_H

#include "base/memory.h"
#include "wire/packet.h"

#include <stdbool.h>
#include <stdint.h>

struct chp_link_config {
	enum chp_packet_kind kind;    /* CHP_PACKET_PEER, or CHP_PACKET_HOST: self and peer are the same node then */
	uint32_t cluster_hash;
	uint32_t shard;
	uint32_t self, peer;          /* node ids */
	uint32_t window;              /* packets in flight, and kept at the receiver */
	uint32_t payload_bytes_max;   /* UDP payload of the MTU */
	uint32_t queue;               /* packets the sender can keep, window included */
	uint64_t rto_ns_min, rto_ns_max;
	uint64_t ack_delay_ns;
	uint64_t link_down_ns;        /* CHP_NEVER: never resets by itself */
};

#define CHP_LINK_COUNTERS(X)                                                                    \
	X(tx_packets, "packets with messages sent, retransmissions included")                   \
	X(tx_acks, "packets sent for an acknowledgement only")                                  \
	X(rx_packets, "packets with messages accepted")                                         \
	X(rx_acks, "packets received that carry no messages")                                   \
	X(retransmits, "packets sent again")                                                    \
	X(timeouts, "retransmission time-outs")                                                 \
	X(duplicates, "packets received again")                                                 \
	X(reordered, "packets that arrived before an earlier one")                              \
	X(beyond_window, "packets beyond the window, not kept")                                 \
	X(wrong_incarnation, "packets of or for another boot of a node")                        \
	X(wrong_session, "packets of an earlier session of the link")                           \
	X(resets, "resets of the link")                                                         \
	X(old_epoch, "packets of an old epoch, acknowledged and discarded")                     \
	X(pauses, "pauses that the peer asked for, prolongations included")                      \
	X(pauses_expired, "pauses that ended by themselves")                                    \
	X(new_epoch_held, "packets of a newer epoch, held until the view arrives")              \
	X(bad_message, "messages that the protocol does not accept, skipped")

struct chp_link_counters {
#define CHP_COUNTER_FIELD(name, help) uint64_t name;
	CHP_LINK_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
};

/* A packet of the sender, in a buffer of its own, header space in front of the messages. */
struct chp_link_tx {
	uint8_t *bytes;
	uint32_t len;       /* header and messages */
	uint32_t sends;
	uint64_t sent_ns;   /* last time */
	uint64_t order;     /* of its last sending among all sendings of the link */
	uint64_t epoch;     /* of its messages */
	bool sacked;        /* has arrived, though something before it has not */
	bool lost;          /* must be sent again */
};

/* A packet that waits at the receiver: out of order, of a newer epoch, or for want of reply room. */
struct chp_link_rx {
	uint8_t *bytes;
	uint32_t len;
	uint32_t offset; /* of the next message to deliver */
	bool present;
};

enum chp_link_state {
	CHP_LINK_UP = 0,
	CHP_LINK_DOWN = 1, /* was reset and the peer has not answered in the new session */
};

struct chp_link {
	struct chp_link_config config;
	struct chp_link_counters counters;
	uint64_t self_incarnation, peer_incarnation; /* 0 = not known yet: nothing is accepted */
	uint32_t session;
	enum chp_link_state state;
	bool overflow;        /* a message found no room: the link must be reset */

	/* Sender: packets acked + 1 .. next - 1 are kept; those from `unsent` on were never sent. */
	struct chp_link_tx *tx; /* ring by sequence number */
	uint32_t tx_mask;
	uint64_t acked, unsent, next;
	uint8_t **buffer;         /* free packet buffers, last freed first: their lines are still cached */
	uint32_t n_buffers;
	uint8_t *memory;          /* of all buffers */
	struct chp_link_tx *open; /* the packet that messages go to, next in sequence; NULL */
	uint8_t *scratch;         /* where messages for a link that is down go */
	uint32_t in_flight;       /* packets sent, not acknowledged, not taken as lost */
	uint32_t n_lost;
	uint64_t orders;          /* sendings so far */
	uint64_t order_arrived;   /* the latest sending known to have arrived */
	uint32_t cwnd;            /* packets in flight allowed now, 1..window */
	uint32_t cwnd_credit;     /* acknowledgements towards the next growth */
	uint64_t recover;         /* no second halving before this packet is acknowledged */
	uint64_t rto_ns, srtt_ns, rttvar_ns;
	uint64_t timer_ns;        /* retransmission time-out; CHP_NEVER when nothing is in flight */
	uint64_t paused_ns;       /* until when packets with messages wait because the peer asked for it; 0 */
	uint64_t progress_ns;     /* when the peer last acknowledged something new, or nothing was open */

	/* Receiver: packets up to `delivered` were delivered. */
	struct chp_link_rx *rx;   /* ring by sequence number, a window long */
	uint32_t rx_mask;
	uint64_t delivered;
	uint64_t highest;         /* highest sequence number that arrived */
	uint32_t ack_owed;        /* packets received since an acknowledgement was sent */
	uint64_t ack_at_ns;       /* when an acknowledgement must go; CHP_NEVER */
	uint64_t probe_ns;        /* when to ask for an acknowledgement of our own accord; CHP_NEVER */
	uint64_t probe_wait_ns;   /* from the next probe to the one after: doubles until the peer is heard */

	/* Credits, both directions (SAFETY 12). Cumulative, from 0 in each session. */
	uint64_t peer_grant;      /* operations we may ever begin */
	uint64_t begun;           /* operations we began */
	uint64_t grant;           /* operations the peer may ever begin */
	uint64_t peer_begun;      /* operations the peer began, as delivered */
	uint64_t grant_sent;      /* the grant that the peer was last told */
};

/** Bytes of packet memory that a link takes, for --print-config. */
uint64_t chp_link_bytes(const struct chp_link_config *config);

/** Allocate a link; nothing is accepted or sent until chp_link_peer. Returns 0 or -ENOMEM. */
int chp_link_init(struct chp_link *l, const struct chp_link_config *config, const struct chp_memory *memory);
void chp_link_fini(struct chp_link *l, const struct chp_memory *memory);

/**
 * Set the incarnations of both ends: the link starts empty, in session 1. Called when a view brings a new
 * incarnation of the peer.
 */
void chp_link_peer(struct chp_link *l, uint64_t self_incarnation, uint64_t peer_incarnation, uint64_t now_ns);

/** What chp_link_receive found. */
enum chp_link_verdict {
	CHP_LINK_NOTHING = 0,  /* an acknowledgement, a duplicate, or dropped (counted) */
	CHP_LINK_DELIVER = 1,  /* the packet is the next one: deliver its messages in place */
	CHP_LINK_KEPT = 2,     /* it was copied and waits for its turn */
	CHP_LINK_RESET = 3,    /* the peer began a new session: the link was reset, receive it again */
};

/**
 * Take a packet that chp_peer_check accepted: apply its acknowledgement and grant, decide on the rest.
 * After CHP_LINK_DELIVER the caller delivers the messages and calls chp_link_delivered, or keeps the rest
 * with chp_link_keep.
 */
enum chp_link_verdict chp_link_receive(struct chp_link *l, const uint8_t *data, uint32_t len, uint64_t now_ns);

/** The packet next in sequence was delivered completely. */
void chp_link_delivered(struct chp_link *l, uint64_t now_ns);

/** Keep the packet next in sequence; its messages before `offset` were delivered already. */
void chp_link_keep(struct chp_link *l, const uint8_t *data, uint32_t len, uint32_t offset);

/** The waiting packet that is next in sequence; NULL if it has not arrived. */
struct chp_link_rx *chp_link_waiting(const struct chp_link *l);

/**
 * Open a packet with room for `bytes` more bytes of messages of this epoch.
 *
 * @param at, end  set to the room; a link that is down gets memory whose contents go nowhere
 */
void chp_link_open(struct chp_link *l, uint32_t bytes, uint64_t epoch, uint8_t **at, uint8_t **end);

/** Close the open packet, if any: its messages end at `at`. Without messages it is taken back. */
void chp_link_close(struct chp_link *l, const uint8_t *at);

/** Packets that the sender can still open. */
uint32_t chp_link_room(const struct chp_link *l);

/**
 * Bytes of bulk messages that may be added now: they fill at most half a window of packets, in flight or waiting,
 * so that what else is sent waits for little.
 */
uint32_t chp_link_bulk_bytes(const struct chp_link *l);

/**
 * Write the next packet that must go out now: retransmissions first, then new packets within the window,
 * then an acknowledgement of its own when one is owed and due. The caller seals it (chp_peer_seal).
 *
 * @param to     config.payload_bytes_max bytes
 * @param epoch  the view in force, for packets without messages
 * @return       bytes written, 0 when nothing must go
 */
uint32_t chp_link_transmit(struct chp_link *l, uint64_t now_ns, uint64_t epoch, uint8_t *to);

/** When chp_link_transmit will have something without a new event; CHP_NEVER if never. */
uint64_t chp_link_wake_ns(const struct chp_link *l);

/** Raise what the peer may ever begin; it is told with the next packet, or soon by one of its own. */
void chp_link_set_grant(struct chp_link *l, uint64_t grant, uint64_t now_ns);

/** Whether the link must be reset: silent for link_down_ns with packets unanswered, or overflowed. */
bool chp_link_is_stuck(const struct chp_link *l, uint64_t now_ns);

/** Begin a new session: both directions are emptied, credits start over. */
void chp_link_reset(struct chp_link *l, uint64_t now_ns);

/** Assert every invariant; O(window + queue). */
void chp_link_check(const struct chp_link *l);

#endif /* CHP_CORE_LINK_H */
