/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * membership.h - who is in the cluster: forms the first view, replaces it when members fail or return,
 * gives and holds leases.
 *
 * A sans-IO state machine on the control lcore with packets of its own (wire/control.h), never behind
 * data. Time and randomness are arguments. docs/membership.md has the protocol and why it is safe.
 *
 *   first view     all configured members, fresh, node 0 with --bootstrap (SAFETY 21)
 *   next views     one Paxos instance an epoch among the voters before (SAFETY 20): core/agreement.h
 *   detection      heartbeats and a score for each peer: core/detector.h
 *   leases         from a majority of the voters, counted from sending (SAFETY 17): core/lease.h
 *
 * How the first view (epoch 1) forms. Each process has a random incarnation. Members send HELLO to all,
 * saying whom they hear. Node 0, started with --bootstrap, accepts a view that names an incarnation of
 * every configured member, once everybody hears everybody in packets of full size. FOUNDING goes to all;
 * who is named and has accepted nothing yet accepts too. Whoever knows that all named incarnations have
 * accepted is in the view, and tells the others (DECIDED). An incarnation accepts at most one first view,
 * ever, and a view is entered only after all it names accepted it: so two first views that were entered
 * have no process in common, whatever is lost, late, repeated, restarted or started twice. When a named
 * process went away before all accepted, the others are bound to a view that may never come. They then
 * become new incarnations themselves, as if restarted, which costs nothing: nobody has served anything. At
 * once where the view is known to be impossible (a named incarnation has accepted another one), otherwise
 * after CHP_MEMBERSHIP_ABANDON_NS in which the named incarnation was silent while another one of its node
 * id was heard.
 *
 * How a view follows another. The unsuspected voter with the lowest id proposes first, each further one
 * after another turn: the voters it does not suspect, learners that say READY promoted to voters, waiting
 * candidates admitted as learners. Nobody proposes to drop a majority. What an acceptor must see to:
 *
 *   - from accepting on, it gives no lease to whom the view drops (mutation S17_GRANT_AFTER_ACCEPT), and
 *     asks for none where that is itself;
 *   - it tells the proposer only when the leases that it gave to them are over on its clock (or its own,
 *     where it is dropped), and any lease that they may hold from the view before the present one: a
 *     lease's length after it entered this one (mutation P14_NO_WAIT_FOR_LEASES);
 *   - from telling on, it neither gives nor asks for leases in this view, so that none outlives the next
 *     view by more than a lease's length.
 *
 * So a view that is decided may be acted on at once: whoever it drops has no lease any more.
 *
 * How a member comes back. A process that learns of a view without its incarnation, because it restarted
 * or because it was cut off, drops its state, becomes a new incarnation (`lives` rises: the driver empties
 * its shards) and asks to be admitted by HELLO. The voters admit it as a learner once it is heard well and
 * hears everybody, and make it a voter when it says that its copy is complete. A node that is dropped
 * again and again waits longer each time, up to CHP_MEMBERSHIP_FLAP_WAITS suspicion times. While another
 * process with its node id is in the view it waits: it may be its own predecessor, which has yet to be
 * dropped. It gives up when that process is heard on and on after its own start.
 *
 * Protocols that keep their members (keeps_members): their shards elect leaders and live with silent replicas
 * themselves, so no view ever drops anybody for being silent. A view changes in two ways only. A process that
 * waits for the place of its predecessor, its heir, gets it as a learner once that is silent for suspect_ns,
 * in one view: the old incarnation out, the new one in. A learner that says READY is made a voter. Every
 * configured member is in every view, but those that a cold start began without and that have not come yet; voters
 * never become fewer than a majority of all configured members, and nobody asks for leases.
 *
 * Owner: the control lcore; not thread-safe. Nothing allocates.
 */
#ifndef CHP_CORE_MEMBERSHIP_H
#define CHP_CORE_MEMBERSHIP_H

#include "base/random.h"
#include "base/text.h"
#include "core/agreement.h"
#include "core/detector.h"
#include "core/founding.h"
#include "core/lease.h"
#include "protocols/view.h"
#include "wire/control.h"

#include <stdbool.h>
#include <stdint.h>

/* HELLO intervals. They start short after any news and double while nothing happens. */
#define CHP_MEMBERSHIP_HELLO_NS_MIN UINT64_C(20000000)
#define CHP_MEMBERSHIP_HELLO_NS_MAX UINT64_C(500000000)
/* A member not heard for this long counts as not heard, outside views: six of the longest intervals. */
#define CHP_MEMBERSHIP_ALIVE_NS UINT64_C(3000000000)
/* See "How the first view forms". */
#define CHP_MEMBERSHIP_ABANDON_NS UINT64_C(2000000000)
/* Short HELLOs in a row without a full-size one before an MTU black hole is reported. */
#define CHP_MEMBERSHIP_SHORTS_MAX 5u
/* Returns of an earlier incarnation before two processes with one node id are reported. */
#define CHP_MEMBERSHIP_RETURNS_MAX 3u
/* Refusals that name a living process with our node id before we give up. */
#define CHP_MEMBERSHIP_ALIVE_MAX 3u
/* Suspicion times that a node which keeps being dropped waits at most before it is admitted again. */
#define CHP_MEMBERSHIP_FLAP_WAITS 8u
/* Suspicion times after which a dropping is forgotten: a node that stayed for so long does not flap. */
#define CHP_MEMBERSHIP_FLAP_FORGET 32u
/* A lease that is lost again within this time is counted, not reported again. */
#define CHP_MEMBERSHIP_LEASE_REPORT_NS UINT64_C(5000000000)

/* The source of a packet is no member's address. */
#define CHP_MEMBERSHIP_NO_MEMBER UINT32_MAX

#define CHP_MEMBERSHIP_REPORTS 16u
/* A line: 64 node ids are 182 characters. */
#define CHP_MEMBERSHIP_TEXT_BYTES 384u
/* The last views that `status` shows. */
#define CHP_MEMBERSHIP_CHANGES 16u
#define CHP_MEMBERSHIP_WHY_BYTES 64u

enum chp_membership_state {
	CHP_MEMBERSHIP_FORMING = 0, /* in no view and none heard of; chp_membership_waiting says why */
	CHP_MEMBERSHIP_JOINING = 1, /* a view without this incarnation is in force: asks to be admitted */
	CHP_MEMBERSHIP_MEMBER = 2,  /* in the view, as voter or learner */
	CHP_MEMBERSHIP_REFUSED = 3, /* will never be admitted: exit code 4, `reason` says why */
};

struct chp_membership_config {
	uint32_t cluster_hash;
	uint32_t self, n_nodes;       /* node ids are 0..n_nodes-1 */
	uint32_t payload_bytes;       /* UDP payload of the cluster's MTU */
	uint64_t incarnation;         /* random, not 0; later ones are derived from it */
	bool bootstrap;               /* --bootstrap was given */
	uint32_t address[CHP_NODES_MAX]; /* IPv4 of members, host byte order */
	uint64_t suspect_ns;          /* a peer silent for this long is suspected */
	uint64_t lease_ns;            /* how long a lease is asked for; 1..CHP_LEASE_NS_MAX */
	uint32_t clock_drift_ppm;     /* how far a clock's rate may be from true time, on any node */
	bool keeps_members;           /* silence drops nobody; see above */
	/* Behind every replica is a host with a datastore. */
	bool has_hosts;
	uint64_t host_grace_ns;       /* how long a host may be away, and how long a cold start waits for more */
	uint64_t leave_fill_ppm;      /* of the log, from which on this replica leaves the view; 0 = never */
	uint64_t lease_ns_max;        /* no member asks for a longer lease; 0 = CHP_LEASE_NS_MAX */
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
	X(bad_view, "views that cannot be, or cannot follow the present one")                    \
	X(conflicts, "packets that contradict the view that this process is in or has accepted") \
	X(old_packets, "packets of another view, for another incarnation or from no voter")      \
	X(views, "views entered")                                                                \
	X(proposals, "ballots that this voter began")                                            \
	X(rejected, "proposals of this voter that a higher ballot ended")                        \
	X(suspected, "times that a member came under suspicion")                                 \
	X(admitted, "members that views admitted as learners while this node was in them")      \
	X(promoted, "learners that views made voters while this node was in them")              \
	X(reborn, "times that this process lost its place in the view and its state")           \
	X(leases_given, "leases given to other voters")                                          \
	X(leases_refused, "leases refused: a view is being agreed on, or the asker is in another") \
	X(leases_taken, "grants that extended this voter's lease")                               \
	X(leases_lost, "times that this voter's lease ran out")

struct chp_membership_counters {
#define CHP_COUNTER_FIELD(name, help) uint64_t name;
	CHP_MEMBERSHIP_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
	uint64_t dropped[CHP_PACKET_ERRORS]; /* by enum chp_packet_error */
};

/* What is known of one member. Read it for `status`; times are 0 for "never". */
struct chp_membership_peer {
	uint64_t incarnation;     /* of the view where that has the node, else the newest heard; 0 = none */
	uint64_t heard_ns;        /* any packet of that incarnation */
	uint64_t heard_full_ns;   /* a full-size HELLO of it */
	uint64_t hears_us_ns;     /* a packet of it that named our incarnation */
	uint64_t other_ns;        /* a packet of one that the first view we accepted does not name */
	uint64_t named_ns;        /* a packet of the one that the first view we accepted names */
	uint64_t epoch;           /* the view it is in */
	uint64_t its_heard;       /* node masks of its last HELLO */
	uint64_t its_heard_full;
	uint64_t previous;        /* the incarnation heard before this one */
	uint64_t lease_ns;        /* the longest lease that this incarnation asked for; 0 = never heard */
	uint32_t returns;         /* times that `previous` was heard again */
	uint32_t shorts;          /* its short HELLOs since its last full-size one */
	uint32_t our_shorts;      /* its HELLOs in a row that say: I hear you in short ones only */
	bool bootstrap;
	bool members_differ;      /* its member list is not ours */
	bool ready;               /* a learner that says its copy is complete, a source that it is reconciled */
	bool leaves;              /* it asks for a view without it */
	struct chp_membership_host host; /* what its HELLO says of it; is_there false: it has none */

	/* Coming and going, of this node id; never forgotten while this process is in a view. */
	uint64_t retired;         /* the last incarnation that a view dropped: it never comes back */
	uint64_t dropped_ns;      /* when that was */
	uint64_t admit_at_ns;     /* not to be admitted before */
	uint32_t drops;           /* in a row, each soon after the last */

	/* Sending. */
	uint64_t hello_at_ns, hello_interval_ns;
	uint64_t refuse_incarnation; /* whom a pending REFUSED is for, why, */
	enum chp_refused_reason refuse_reason;
	uint64_t refuse_heard_ns;    /* and when the process that stands in its way was heard; 0 = never */
	uint64_t grant_sent_ns, grant_lease_ns; /* what a pending GRANT answers */
	uint32_t due;                /* packets to send now: bit = enum chp_control_type */
	uint32_t reported;           /* reports made once already */
};

/* With keeps_members: a process that waits for the place that its predecessor has in the view. */
struct chp_membership_heir {
	uint64_t incarnation;    /* 0 = none */
	uint64_t heard_ns;       /* any packet of it */
	uint64_t heard_full_ns;  /* a full-size HELLO of it */
	uint64_t its_heard_full; /* node mask of its last HELLO */
	bool members_differ;     /* its member list is not ours */
};

/* A view that this process entered. */
struct chp_membership_change {
	uint64_t epoch, at_ns;
	uint64_t took_ns; /* since this voter wanted another view: agreement, without detection; 0 = it did not */
	uint64_t voters, learners;
	char why[CHP_MEMBERSHIP_WHY_BYTES]; /* "node 1 suspected; node 2 promoted" */
};

struct chp_membership {
	struct chp_membership_config config;
	struct chp_membership_counters counters;
	enum chp_membership_state state;
	uint64_t incarnation;          /* ours */
	uint32_t lives;                /* from 1; rises when a process that was in a view is reborn */
	uint32_t members_hash;
	uint64_t born_ns;              /* when this process or its present incarnation began */
	struct chp_random random;
	struct chp_membership_peer peer[CHP_NODES_MAX];
	struct chp_membership_heir heir[CHP_NODES_MAX];
	uint64_t heirs;                /* node mask: those of `heir` that there are */

	/* The first view. */
	struct chp_view founding;      /* the one that this incarnation accepts; epoch 0 = none */
	uint64_t founding_by;          /* node mask: named incarnations known to have accepted it */
	uint64_t founding_hosts;       /* node mask: named members whose host was known to be there then */
	uint64_t part_ns;              /* since when a cold start without some members could be; 0 = it could not */

	/* Our host. */
	struct chp_membership_host host;
	uint64_t host_away_ns;         /* since when it has not been ready in this view; 0 = it is */
	uint64_t stuck_ns;             /* since when, besides, a cache of this replica has no room left; 0 = has */
	bool leaves;                   /* we ask for a view without us */
	uint64_t joined_epoch;         /* of the view by which this incarnation came in */

	/* The view in force, and what comes after it. */
	struct chp_view view;          /* epoch 0 = none */
	uint64_t entered_ns;
	uint64_t known_epoch;          /* the newest view known, with or without us */
	struct chp_agreement agreement;
	uint64_t accepted_at_ns;       /* when what the agreement accepted may be told */
	uint64_t unasked_ns;           /* since when this voter asks for no lease in this view */
	uint64_t wanted_ns;            /* since when another view is wanted; 0 = it is not */
	uint64_t hold_ns;              /* no proposal before: another one is running, or was rejected */
	uint64_t resend_at_ns, give_up_at_ns; /* of our proposal */
	struct chp_detector detector;
	struct chp_detector heir_detector; /* hears heirs instead of members */

	/* Leases. */
	struct chp_lease lease;
	bool has_lease;                /* as of the last call: to notice its end */
	bool lost_reported;
	uint64_t lease_report_ns;

	/* Heartbeats and being a learner. */
	uint64_t heartbeat_ns;         /* interval */
	uint64_t heartbeat_at_ns;
	bool ready;                    /* see chp_membership_set_ready */

	/* Joining: what the members say. */
	uint64_t heard_view_ns;        /* a packet of somebody who is in a view */
	enum chp_refused_reason refused_reason; /* the last one; 0 = none */
	uint32_t refused_by;           /* node id */
	uint64_t refused_ns;
	uint64_t refused_heard_ns;     /* when, on our clock, the other process was heard; 0 = never */
	uint64_t alive_first_ns;       /* the first time that it was heard after our start */
	uint32_t alive;                /* refusals in which it had been heard again since */

	uint32_t unknown_reported;     /* as peer.reported, for addresses that are no member's */
	uint32_t next_send;            /* peer that chp_membership_transmit looks at next */
	char reason[CHP_MEMBERSHIP_TEXT_BYTES]; /* with CHP_MEMBERSHIP_REFUSED: why, for people */

	struct chp_membership_change change[CHP_MEMBERSHIP_CHANGES];
	uint32_t n_changes;            /* ever; entry = number % CHP_MEMBERSHIP_CHANGES */
	char report[CHP_MEMBERSHIP_REPORTS][CHP_MEMBERSHIP_TEXT_BYTES];
	uint32_t report_next, report_read; /* never wrap; entry = number % CHP_MEMBERSHIP_REPORTS */
};

/**
 * Start as a fresh process. A single member with bootstrap is in its view when this returns, with a lease
 * that never ends: it is a majority alone.
 *
 * @param now_ns  any monotonic clock, never 0, here and below
 */
void chp_membership_init(struct chp_membership *m, const struct chp_membership_config *config,
			 uint64_t now_ns);

/**
 * Take a packet of kind CHP_PACKET_CONTROL, any bytes. Wrong ones are counted, and reported once
 * where a person can do something about it. The view may be another one afterwards.
 *
 * @param from_address  node id that has the packet's source address, or CHP_MEMBERSHIP_NO_MEMBER
 */
void chp_membership_receive(struct chp_membership *m, uint64_t now_ns, const void *data,
			    uint32_t len, uint32_t from_address);

/** Let time pass. Call at chp_membership_wake_ns or earlier, any number of times. */
void chp_membership_tick(struct chp_membership *m, uint64_t now_ns);

/**
 * Write the next packet that must go out now, sealed. Call until it returns 0. A HEARTBEAT's lease counts
 * from now_ns, so it must not be later than the moment of sending (SAFETY 17).
 *
 * @param to    config.payload_bytes bytes
 * @param peer  set to the node id it goes to (its control port)
 * @return      bytes written; 0 when nothing must go
 */
uint32_t chp_membership_transmit(struct chp_membership *m, uint64_t now_ns, uint8_t *to,
				 uint32_t *peer);

/** When tick must be called without a new event; 0 when transmit has packets now. */
uint64_t chp_membership_wake_ns(const struct chp_membership *m);

/**
 * The view in force that names this incarnation; NULL while FORMING, JOINING or REFUSED. It changes with
 * any call of receive or tick, and after a rebirth (`lives`) it is gone: copy it.
 */
static inline const struct chp_view *
chp_membership_view(const struct chp_membership *m)
{
	return m->view.epoch == 0 ? NULL : &m->view;
}

/**
 * Reads may be served from this node's own state before this time: until then no view without this
 * incarnation is decided anywhere. 0 unless this is a voter; a time that is past when no majority of the
 * voters grants. CHP_NEVER in a cluster of one. With keeps_members there are no leases but that one.
 */
uint64_t chp_membership_lease_until_ns(const struct chp_membership *m);

/**
 * The driver says whether every shard has its complete copy, in the present life: a learner what it copies, a source
 * what it reconciles. Makes the voters promote it, or end the reconciliation; with hosts as soon as its stores have
 * recorded a view since it came in. Forgotten at rebirth, and not listened to while there is no view.
 */
void chp_membership_set_ready(struct chp_membership *m, uint64_t now_ns, bool ready);

/**
 * The driver says how its host is: once for every view, life or report of a shard that changes it, and again before it
 * gives a view to the shards. Without hosts never.
 */
void chp_membership_set_host(struct chp_membership *m, uint64_t now_ns, const struct chp_membership_host *h);

/**
 * The epoch of the first view that this process wants to accept: the driver has every shard begin a life of at least
 * this number in its store (SAFETY 34), which chp_membership_set_host will say. 0 = there is none, which takes nothing
 * back.
 */
uint64_t chp_membership_founding(const struct chp_membership *m);

/**
 * A packet of a shard's link came from this incarnation of a peer: it is alive. For display only;
 * the pipeline may call it for one packet in many.
 */
void chp_membership_peer_heard(struct chp_membership *m, uint64_t now_ns, uint32_t peer,
			       uint64_t incarnation);

/** Node mask of the members heard within CHP_MEMBERSHIP_ALIVE_NS, this node included. */
uint64_t chp_membership_heard(const struct chp_membership *m, uint64_t now_ns);

/** Node mask of the live members of the view that this node suspects; 0 without a view. */
uint64_t chp_membership_suspected(const struct chp_membership *m);

/**
 * The next line for the log, as "node at 10.99.0.12 belongs to another cluster ..."; NULL when
 * there is none. When more than CHP_MEMBERSHIP_REPORTS wait, the oldest are lost.
 *
 * Owns: valid until the next call of receive or tick.
 */
const char *chp_membership_report(struct chp_membership *m);

/**
 * Why this node does not serve, as "waiting for node 2 (10.99.0.12): never heard" or "no lease: node 1
 * (10.99.0.11) not heard for 2.1 s"; else the state, as "in view 3".
 */
void chp_membership_waiting(const struct chp_membership *m, uint64_t now_ns, struct chp_text *t);

/** What is known of one member, as "heard 12 ms ago, does not hear us". */
void chp_membership_peer_text(const struct chp_membership *m, uint64_t now_ns, uint32_t peer,
			      struct chp_text *t);

/** Assert every invariant; O(nodes). */
void chp_membership_check(const struct chp_membership *m);

#endif /* CHP_CORE_MEMBERSHIP_H */
