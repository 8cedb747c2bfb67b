/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * membership.h - who is in the cluster: forms the first view, refuses whoever is not in it.
 *
 * A sans-IO state machine on the control lcore with packets of its own (wire/control.h), never
 * behind data. Time and randomness are arguments. The view is fixed once it is formed.
 *
 * How the first view (epoch 1) forms (SAFETY 21). Each process has a random incarnation. Members
 * send HELLO to all, saying whom they hear. Node 0, started with --bootstrap, accepts a view
 * that names an incarnation of every configured member, once everybody hears everybody in
 * packets of full size. ACCEPTED goes to all; who is named and has accepted nothing yet accepts
 * too. Whoever knows that all named incarnations have accepted is in the view, and tells the
 * others (DECIDED).
 *
 * Why it is safe: an incarnation accepts at most one first view, ever, and a view is entered
 * only after all it names accepted it. So two first views that were entered have no process in
 * common, whatever is lost, late, repeated, restarted or started twice. No time-out, ballot or
 * coordinator is involved.
 *
 * Why it ends: when a named process went away before all accepted, the others are bound to a
 * view that may never come. They then become new incarnations themselves, as if restarted, which
 * costs nothing: nobody has served anything. At once where the view is known to be impossible (a
 * named incarnation has accepted another one), otherwise after CHP_MEMBERSHIP_ABANDON_NS in
 * which the named incarnation was silent while another one of its node id was heard. A process
 * that is in a view never does this.
 *
 * Owner: the control lcore; not thread-safe. Nothing allocates.
 */
#ifndef CHP_CORE_MEMBERSHIP_H
#define CHP_CORE_MEMBERSHIP_H

#include "base/random.h"
#include "base/text.h"
#include "protocols/view.h"
#include "wire/control.h"

#include <stdbool.h>
#include <stdint.h>

/* HELLO intervals. They start short after any news and double while nothing happens. */
#define CHP_MEMBERSHIP_HELLO_NS_MIN UINT64_C(20000000)
#define CHP_MEMBERSHIP_HELLO_NS_MAX UINT64_C(500000000)
/* A member not heard for this long counts as not heard: six of the longest intervals. */
#define CHP_MEMBERSHIP_ALIVE_NS UINT64_C(3000000000)
/* See "Why it ends". */
#define CHP_MEMBERSHIP_ABANDON_NS UINT64_C(2000000000)
/* Short HELLOs in a row without a full-size one before an MTU black hole is reported. */
#define CHP_MEMBERSHIP_SHORTS_MAX 5u
/* Returns of an earlier incarnation before two processes with one node id are reported. */
#define CHP_MEMBERSHIP_RETURNS_MAX 3u

/* The source of a packet is no member's address. */
#define CHP_MEMBERSHIP_NO_MEMBER UINT32_MAX

#define CHP_MEMBERSHIP_REPORTS 8u
#define CHP_MEMBERSHIP_TEXT_BYTES 256u

enum chp_membership_state {
	CHP_MEMBERSHIP_FORMING = 0, /* in no view; chp_membership_waiting says why */
	CHP_MEMBERSHIP_SERVING = 1, /* in the view */
	CHP_MEMBERSHIP_REFUSED = 2, /* a view without this process is in force: exit code 4 */
};

struct chp_membership_config {
	uint32_t cluster_hash;
	uint32_t self, n_nodes;       /* node ids are 0..n_nodes-1 */
	uint32_t payload_bytes;       /* UDP payload of the cluster's MTU */
	uint64_t incarnation;         /* random, not 0; later ones are derived from it */
	bool bootstrap;               /* --bootstrap was given */
	uint32_t address[CHP_NODES_MAX]; /* IPv4 of members, host byte order */
};

#define CHP_MEMBERSHIP_COUNTERS(X)                                                               \
	X(rx_packets, "control packets accepted")                                                \
	X(tx_packets, "control packets sent")                                                    \
	X(other_address, "control packets whose node id does not belong to their address")      \
	X(other_members, "HELLOs of nodes with another member list")                             \
	X(short_only, "short HELLOs of peers whose full-size HELLOs do not arrive")              \
	X(new_incarnations, "times that a peer turned out to be another process than before")    \
	X(abandoned, "times that this process became a new incarnation to form a view")          \
	X(refused_sent, "refusals sent to processes that are not in the view")                   \
	X(bad_view, "views of a shape that this version does not know")                          \
	X(conflicts, "packets that contradict the view that this process is in or has accepted")

struct chp_membership_counters {
#define CHP_COUNTER_FIELD(name, help) uint64_t name;
	CHP_MEMBERSHIP_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
	uint64_t dropped[CHP_PACKET_ERRORS]; /* by enum chp_packet_error */
};

/* What is known of one member. Read it for `status`; times are 0 for "never". */
struct chp_membership_peer {
	uint64_t incarnation;     /* newest heard; 0 = never heard */
	uint64_t heard_ns;        /* any packet of that incarnation */
	uint64_t heard_full_ns;   /* a full-size HELLO of it */
	uint64_t hears_us_ns;     /* a packet of it that named our incarnation */
	uint64_t other_ns;        /* a packet of one that our accepted view does not name */
	uint64_t named_ns;        /* a packet of the one that our accepted view names */
	uint64_t epoch;           /* the view it is in */
	uint64_t its_heard;       /* node masks of its last HELLO */
	uint64_t its_heard_full;
	uint64_t previous;        /* the incarnation heard before this one */
	uint32_t returns;         /* times that `previous` was heard again */
	uint32_t shorts;          /* its short HELLOs since its last full-size one */
	uint32_t our_shorts;      /* its HELLOs in a row that say: I hear you in short ones only */
	bool bootstrap;
	bool members_differ;      /* its member list is not ours */

	/* Sending. */
	uint64_t hello_at_ns, hello_interval_ns;
	uint64_t refuse_incarnation; /* whom a pending REFUSED is for */
	uint8_t due;                 /* packets to send now: bit = enum chp_control_type */
	uint32_t reported;           /* reports made once already */
};

struct chp_membership {
	struct chp_membership_config config;
	struct chp_membership_counters counters;
	enum chp_membership_state state;
	uint64_t incarnation;          /* ours */
	uint32_t members_hash;
	struct chp_random random;
	struct chp_membership_peer peer[CHP_NODES_MAX];

	struct chp_view accepted;      /* the one that this incarnation accepts; epoch 0 = none */
	uint64_t accepted_by;          /* node mask: named incarnations known to have accepted it */
	uint64_t accepted_ns;
	struct chp_view view;          /* in force; epoch 0 = none */

	uint32_t unknown_reported;     /* as peer.reported, for addresses that are no member's */
	uint32_t refused_by;           /* node id, with CHP_MEMBERSHIP_REFUSED */
	uint32_t next_send;            /* peer that chp_membership_transmit looks at next */
	char reason[CHP_MEMBERSHIP_TEXT_BYTES]; /* with CHP_MEMBERSHIP_REFUSED: why, for people */

	char report[CHP_MEMBERSHIP_REPORTS][CHP_MEMBERSHIP_TEXT_BYTES];
	uint32_t report_next, report_read; /* never wrap; entry = number % CHP_MEMBERSHIP_REPORTS */
};

/**
 * Start as a fresh process. A single member with bootstrap is in its view when this returns.
 *
 * @param now_ns  any monotonic clock, never 0, here and below
 */
void chp_membership_init(struct chp_membership *m, const struct chp_membership_config *config,
			 uint64_t now_ns);

/**
 * Take a packet of kind CHP_PACKET_CONTROL, any bytes. Wrong ones are counted, and reported once
 * where a person can do something about it.
 *
 * @param from_address  node id that has the packet's source address, or CHP_MEMBERSHIP_NO_MEMBER
 */
void chp_membership_receive(struct chp_membership *m, uint64_t now_ns, const void *data,
			    uint32_t len, uint32_t from_address);

/** Let time pass. Call at chp_membership_wake_ns or earlier, any number of times. */
void chp_membership_tick(struct chp_membership *m, uint64_t now_ns);

/**
 * Write the next packet that must go out now, sealed. Call until it returns 0.
 *
 * @param to    config.payload_bytes bytes
 * @param peer  set to the node id it goes to (its control port)
 * @return      bytes written; 0 when nothing must go
 */
uint32_t chp_membership_transmit(struct chp_membership *m, uint64_t now_ns, uint8_t *to,
				 uint32_t *peer);

/** When tick must be called without a new event; 0 when transmit has packets now. */
uint64_t chp_membership_wake_ns(const struct chp_membership *m);

/** The view in force; NULL while there is none. It stays what it is for as long as m lives. */
static inline const struct chp_view *
chp_membership_view(const struct chp_membership *m)
{
	return m->view.epoch == 0 ? NULL : &m->view;
}

/**
 * A packet of a shard's link came from this incarnation of a peer: it is alive. For display only;
 * the pipeline may call it for one packet in many.
 */
void chp_membership_peer_heard(struct chp_membership *m, uint64_t now_ns, uint32_t peer,
			       uint64_t incarnation);

/** Node mask of the members heard within CHP_MEMBERSHIP_ALIVE_NS, this node included. */
uint64_t chp_membership_heard(const struct chp_membership *m, uint64_t now_ns);

/**
 * The next line for the log, as "node at 10.99.0.12 belongs to another cluster ..."; NULL when
 * there is none. When more than CHP_MEMBERSHIP_REPORTS wait, the oldest are lost.
 *
 * Owns: valid until the next call of receive or tick.
 */
const char *chp_membership_report(struct chp_membership *m);

/** Why there is no view yet, as "waiting for node 2 (10.99.0.12): never heard"; else the state. */
void chp_membership_waiting(const struct chp_membership *m, uint64_t now_ns, struct chp_text *t);

/** What is known of one member, as "heard 12 ms ago, does not hear us". */
void chp_membership_peer_text(const struct chp_membership *m, uint64_t now_ns, uint32_t peer,
			      struct chp_text *t);

/** Assert every invariant; O(nodes). */
void chp_membership_check(const struct chp_membership *m);

#endif /* CHP_CORE_MEMBERSHIP_H */
