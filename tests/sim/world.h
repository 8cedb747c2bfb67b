/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * world.h - the simulator: replicas with the shipped membership and core, a network with every fault,
 * clients, in virtual time, all from one seed.
 *
 * One thread, one heap of events. A node is a process on a machine with a clock of its own: a control
 * stage (struct chp_membership) and a shard stage (struct chp_shard and the native frontend), driven
 * exactly as the DPDK pipeline drives them, each with its own inbox, pauses and time. Shards of a node
 * share nothing, so one shard a node is the whole program.
 *
 *   draw.c    what a seed means: a profile, sizes, rates, which faults, how many of them
 *   world.c   events, the network, the course of a run
 *   node.c    a process: its two stages, its clock, its end and its restart
 *   faults.c  which fault comes when, and how much the cluster must be able to bear
 *   watch.c   what must hold of views and leases over all nodes
 *   once.c    what must hold of requests over all nodes: each is executed once
 *   check.c   what must hold of data over all nodes, and at the end
 *   client.c  clients that follow the views
 *   host.c    a node's host, if the cluster has them: the shipped datastore interface (lib/dsi) over a channel that
 *             loses packets, in front of a store (store.c) that is slow, fails, or loses what it had not saved
 *   backed.c  what must hold of cache, log and store of a node
 *   cold.c    what becomes of the history when every node's memory is lost
 *   kind.h    what is one protocol's alone: hermes.c, each with its seeds' profiles and what must hold of it
 */
#ifndef CHP_TESTS_SIM_WORLD_H
#define CHP_TESTS_SIM_WORLD_H

#include "base/random.h"
#include "core/membership.h"
#include "core/shard.h"
#include "frontends/native.h"
#include "history/history.h"
#include "store.h"

#include <stdbool.h>
#include <stdint.h>

#define SIM_NODES_MAX 7u
#define SIM_CLIENTS_MAX 12u
#define SIM_INBOX_MAX 256u
#define SIM_BUFFERS_MAX 64u
#define SIM_DEPTH_MAX 8u
#define SIM_KEYS_MAX 24u
#define SIM_FAILURE_BYTES 1536u
#define SIM_PACKET_BYTES CHP_PAYLOAD_BYTES_MIN
/* Versions with which a request may be begun before one of them is executed, in what is remembered. */
#define SIM_TRIES_MAX 6u
/* Views that the control stage of a node has entered and its shard stage has not. */
#define SIM_VIEWS_MAX 16u
/*
 * In some seeds the driver gives the shard further views with the same members, as it sees when a member came and went
 * between two looks. Its epochs then count so many times as fast as the membership's. Dense views are how it is tested
 * that everything in flight survives them.
 */
#define SIM_EPOCHS 1024u
/* An epoch is the generation of a cluster, which rises with each cold start, and the number of a view in it, from 1. */
#define SIM_NUMBER(epoch) ((uint32_t)((epoch) & ((UINT64_C(1) << CHP_GENERATION_SHIFT) - 1)))
/* Views that may be decided or may come to be, at one time. */
#define SIM_POSSIBLE_MAX 64u
/* A number of this many milliseconds, as all the drawn times are. */
#define SIM_MS UINT64_C(1000000)
/* Sessions that no run can outlive: then nobody may be told that his is unknown. */
#define SIM_IDLE_NEVER_NS (UINT64_C(100000) * 1000 * SIM_MS)

/* What seeds are about, by turns: each protocol has so many profiles. */
#define SIM_PROFILES 8u

/* How much may fail. */
enum sim_budget {
	SIM_REPAIRABLE = 0, /* never more at a time than the cluster survives: it must be whole again in the end */
	SIM_ROLLING = 1,    /* one node after the other, each back before the next goes: the same */
	SIM_BEYOND = 2,     /* anything: what was answered must be right, nothing else */
};

struct sim_kind; /* kind.h */

/* What a seed draws. */
struct sim_config {
	const struct sim_kind *kind;
	uint64_t seed;
	uint32_t profile;              /* what it is about: of the kind's profiles, seed % SIM_PROFILES */
	uint32_t n_nodes, n_clients, n_keys, depth;
	uint32_t ops;                  /* client operations in the whole run */
	uint64_t think_ns;             /* between a client's looks at what it could do next */
	uint64_t faults_ns_min, faults_ns_max; /* faults go on for at least, at most */
	uint32_t drop_ppm, duplicate_ppm, corrupt_ppm, delay_ppm;
	uint64_t latency_ns_min, latency_ns_max, delay_ns_max;
	uint64_t uneven_ns_max;        /* that one way between two shards takes longer than another */
	uint32_t late_ppm;             /* of packets between nodes: very late, so that lives and views have passed */
	uint64_t late_ns_max;
	enum sim_budget budget;
	/* Each is drawn once a millisecond. */
	uint32_t pause_ppm, partition_ppm, reset_ppm, crash_ppm, trigger_ppm, client_cut_ppm, rate_ppm;
	uint32_t view_ppm;             /* another view with the same members */
	uint32_t ambush_ppm;           /* a crash while some of a node's packets are lost */
	uint32_t attack_ppm;           /* some fault at the node that matters most, if the kind has one */
	uint64_t ambush_ns_max;        /* from the first packet lost to the crash */
	uint32_t point_ppm;            /* of batches: a pause at a point of SAFETY 16 */
	uint64_t long_ns;              /* longest cut or pause that is to be noticed */
	uint64_t down_ns_max;          /* a crashed process stays away for at most */
	uint64_t lag_ns_max;           /* of the shard stage behind the control stage */
	bool every_view;               /* the shard stage sees them all; otherwise the newest */
	bool early_faults;             /* also while the first view forms */
	bool stays_dead;               /* one node is not there in the end: the others do without it */
	bool whole_pauses;             /* both stages of a process at once, as when the machine stands still */
	uint64_t suspect_ns, lease_ns;
	uint32_t clock_drift_ppm;
	uint32_t value_bytes_typical;
	uint32_t delete_ppm;           /* of operations, beyond the usual mix: keys come and go */
	uint32_t get_ppm, put_ppm;     /* of operations, beyond the usual mix */
	uint32_t rmw_ppm;              /* the same: what must not be done twice */
	uint32_t close_ppm;            /* of a client's idle moments: it closes its session */
	uint64_t retry_ns_min, retry_ns_max, retry_ns_cap; /* until a client asks again; doubles up to the cap */
	uint64_t patience_ns_min;      /* until a client gives up, at least */
	uint32_t roamer_ppm;           /* of clients: ask any node, without a session */
	uint32_t anywhere_ppm;         /* of a session's reads: ask any node */
	uint32_t relaxed_ppm;          /* of reads: however old, from any node */
	uint32_t quorum_ppm;           /* of a client's looks: it switches the quorum rule */
	struct chp_shard_config shard;
	bool trace;

	/* Hosts, with shard.has_host. Rates are drawn once a millisecond, those of requests for each. */
	uint64_t store_ns_min, store_ns_max; /* that a request takes */
	uint64_t slow_ns_max;          /* that it takes in a phase in which the store is slow */
	uint32_t store_fail_ppm;       /* of requests */
	uint32_t store_twice_ppm;      /* of requests: done, and said so, twice */
	uint32_t store_slow_ppm, store_down_ppm;
	uint32_t host_crash_ppm;       /* the host's process, with what its store has not saved */
	uint32_t machine_crash_ppm;    /* both: the host's and the node's */
	uint32_t cold_ppm;             /* all nodes at once */
	uint32_t channel_cut_ppm;
	bool channel_tells; /* a node hears at once that its host has died */
	bool forgets;                  /* the stores, which say so: volatile, as memcached */
	uint32_t floor_ppm;            /* floors rise, at one node more than at another */
	uint64_t host_down_ns_max;
	uint32_t put_bytes, loads;     /* that the host allows */
	uint64_t host_grace_ns, leave_fill_ppm; /* as in struct chp_membership_config */
};

enum sim_event_kind {
	SIM_RUN,      /* the shard stage */
	SIM_SEND,     /* what its last batch gave goes out */
	SIM_CONTROL,  /* the control stage */
	SIM_PACKET,
	SIM_MEMBERSHIP, /* a control packet */
	SIM_DATAGRAM,
	SIM_REPLY,
	SIM_CLIENT,
	SIM_RESTART,
	SIM_FAULTS,
	SIM_ACT,      /* a fault that was to come later; who: node, and action << 8 */
	SIM_EPOCH,    /* a node hears of the newest view with the members of its own */
	SIM_TO_HOST,  /* a packet on the channel of node `who` */
	SIM_FROM_HOST,
	SIM_HOST,     /* a host's process */
	SIM_STORE,    /* a request to its store is done */
	SIM_HOST_RESTART,
};

struct sim_packet {
	struct sim_packet *next; /* free list */
	uint32_t from, to, len;
	uint8_t data[SIM_PACKET_BYTES];
};

struct sim_event {
	uint64_t at_ns;
	uint64_t order; /* equal times: in order of creation */
	enum sim_event_kind kind;
	uint32_t who;
	struct sim_packet *packet;
};

struct sim_batch;

/* A thread of a process. */
struct sim_stage {
	uint64_t at_ns;           /* of the event that counts; CHP_NEVER: none */
	uint64_t paused_until_ns;
};

struct sim_node {
	bool alive;
	uint64_t incarnation;          /* that the process was started with */
	/* The machine's clock: what it showed at a true time, and its rate since. */
	uint64_t clock_base_ns, clock_offset_ns;
	int32_t clock_ppm;

	/* The control stage, and what it has told the shard stage. */
	struct chp_membership membership;
	struct sim_packet *control_inbox[SIM_INBOX_MAX];
	uint32_t n_control;
	struct sim_stage control;
	struct chp_view view;          /* epoch 0: none in the present life */
	struct chp_view next[SIM_VIEWS_MAX]; /* for the shard stage, in its epochs */
	uint32_t n_next;
	uint64_t next_epoch;           /* of the last of them that there was in this life */
	uint64_t view_at_ns;           /* when the shard stage sees them, and a new life */
	uint64_t lease_until_ns;
	uint32_t lives;
	uint64_t founding;             /* epoch of the first view that it wants to accept; 0: none */
	struct chp_host_status told;   /* what the control stage knows of the host */

	/* The shard stage. */
	struct chp_shard *shard;
	struct chp_native native;
	struct sim_batch *batch;
	struct sim_packet *peer_inbox[SIM_INBOX_MAX];
	struct sim_packet *client_inbox[SIM_INBOX_MAX];
	uint32_t n_peer, n_client;
	uint32_t client_offset;        /* within the first datagram of client_inbox */
	struct sim_stage run;
	struct chp_view shard_view;    /* that the shard is in */
	uint32_t shard_lives;
	uint32_t copied_life;          /* of the shard whose copy is complete */
	uint64_t sending_until_ns;     /* the last batch is not sent yet; 0: it is */
	uint64_t resume_ns;            /* when the run asked to be called again */
	uint64_t before_pause_ns, before_pause_lease_ns; /* what wrong code would have read; 0: no pause */
};

struct sim_host;
struct sim_backed;

enum sim_call_state { SIM_CALL_FREE = 0, SIM_CALL_OPEN };

/* One request of a client. */
struct sim_call {
	enum sim_call_state state;
	uint8_t opcode;
	bool anywhere;    /* asks another node each time */
	bool is_relaxed;  /* a read that may be old: no part of the history */
	bool once;        /* a write without a session: never sent again */
	uint32_t key;
	uint32_t value_len;
	uint32_t sends;
	uint64_t request, arg;
	uint64_t retry_ns, rto_ns, give_up_ns;
	uint32_t history; /* index; CHP_HISTORY_NONE for a session's open */
	uint8_t value[CHP_VALUE_BYTES_MAX];
};

struct sim_client {
	uint32_t home;         /* whom it asks: its session's home, as far as it knows */
	bool roams;            /* no session */
	bool closes;           /* its only call is the session's close */
	uint64_t session;      /* 0: none open */
	uint64_t generation;   /* of the cluster that opened it */
	uint64_t next_request; /* in the session */
	uint64_t open_ns;      /* no session is opened before: one was refused */
	uint64_t settle_ns;    /* when it asks for the rule "majority" again */
	uint64_t epoch;        /* newest seen in a reply */
	uint32_t silent;       /* sends in a row without an answer */
	uint32_t redirects;    /* in a row */
	uint64_t wake_ns;
	uint64_t seen_version[SIM_KEYS_MAX]; /* for cas */
	uint32_t written;      /* makes values unique */
	struct sim_call call[SIM_DEPTH_MAX + 1]; /* the last: a switch of the quorum rule, outside any session */
};

/* A view that was proposed or entered: the members it needs must not be lost. */
struct sim_possible {
	uint64_t epoch, voters;
	uint64_t incarnation[SIM_NODES_MAX];
	bool entered;
};

/* A fault that waits for a node to send a control packet, or a protocol's message, of a type. */
struct sim_trigger {
	uint32_t type;      /* enum chp_control_type, or of the kind's triggers; 0: none waits */
	bool is_message;
	uint32_t countdown;
	uint32_t action;    /* of faults.c */
	uint64_t expires_ns;
};

/* What a key began with after a cold start. */
struct sim_first {
	uint64_t version; /* 0: nothing */
	uint32_t history; /* index; CHP_HISTORY_NONE: it was deleted */
};

/* What became of a session's request. */
struct sim_request {
	uint64_t session, request;    /* session 0: not in use */
	uint64_t version;             /* it was executed with; 0: not yet, as far as anybody can know */
	uint64_t epoch;               /* of who executed it */
	uint64_t tried[SIM_TRIES_MAX]; /* it was begun with these before that */
	uint32_t n_tried;
};

struct sim_world {
	struct sim_config config;
	struct chp_random random;
	uint64_t now_ns;
	uint32_t events_now; /* at this time already */
	uint64_t order;
	struct sim_event *heap;
	uint32_t n_events, cap_events;
	struct sim_packet *free_packets;
	struct sim_node node[SIM_NODES_MAX];
	struct sim_host *host[SIM_NODES_MAX];     /* with shard.has_host */
	struct sim_backed *backed[SIM_NODES_MAX]; /* the same */
	struct sim_client client[SIM_CLIENTS_MAX];
	struct chp_view view;          /* scenarios give views by hand: the newest */

	/* Faults. */
	uint64_t cut_until_ns[SIM_NODES_MAX][SIM_NODES_MAX]; /* one way: from, to */
	uint64_t client_cut_until_ns[SIM_CLIENTS_MAX][SIM_NODES_MAX];
	uint64_t mute_until_ns[SIM_NODES_MAX];      /* its replies are lost */
	uint64_t uneven_ns[SIM_NODES_MAX][SIM_NODES_MAX];
	uint64_t channel_cut_until_ns[SIM_NODES_MAX][2]; /* to the host, from it */
	uint64_t disturbed_until_ns[SIM_NODES_MAX]; /* others may suspect it, for nothing that is lost */
	uint64_t flap_until_ns;
	uint32_t flap_a, flap_b;
	struct sim_trigger trigger;
	uint64_t roll_ns;              /* rolling: when the next node goes at the latest; 0: not drawn */
	uint32_t roll_next;
	struct sim_possible possible[SIM_POSSIBLE_MAX];
	uint32_t n_possible;
	uint64_t stay_dead;            /* nodes that are not restarted any more */
	uint64_t same_epoch;           /* the newest epoch of the membership, and its further views so far */
	uint32_t same_views;

	/* Views that were entered, by number - 1, since the cluster was founded, or began again after a cold start. */
	uint64_t generation;
	struct chp_view *entered;
	uint32_t n_entered, cap_entered;
	uint64_t writer[UINT16_MAX + 1]; /* incarnation that was given this number; 0: none */

	/* Requests, a hash table. */
	struct sim_request *request;
	uint32_t n_requests, cap_requests;
	void *watch;                   /* what the kind remembers */

	uint32_t issued;
	uint64_t faults_from_ns;       /* 0: faults have not begun */
	bool served;                   /* somebody was given an answer */
	bool refounded;                /* all was lost, and the cluster founded again: beyond repair */
	bool healed;                   /* liveness phase: no faults, no new operations */
	struct chp_history history;
	struct sim_first first[SIM_KEYS_MAX];
	uint64_t runs;
	bool undecided;
	struct {
		uint64_t views, same_views, crashes, restarts, rejoins, leases_lost, drops, cuts, pauses;
		uint64_t hosts_lost, writes_lost, writes_late, cold_starts;
	} seen;
	struct chp_protocol_counters protocol; /* of shards that are gone */
	struct chp_host_counters host_counters; /* the same */
	uint64_t evictions;            /* the same */
	uint64_t retransmits, resets;          /* the same */
	char failure[SIM_FAILURE_BYTES]; /* what went wrong first; empty */
};

struct sim_result {
	uint64_t runs, digest;
	uint64_t ops, ok;
	struct chp_protocol_counters protocol; /* summed over nodes */
	struct chp_host_counters host;
	uint64_t evictions, hosts_lost, writes_lost, writes_late, cold_starts;
	uint64_t retransmits, resets;
	uint64_t views, same_views, crashes, restarts, rejoins, leases_lost, drops;
	bool undecided;                /* a search of the history reached its limit and found nothing wrong */
	bool beyond_repair;            /* more was lost than the budget meant to allow, and the cluster stopped */
};

/* Whether clusters have hosts, where the protocol can have them. */
enum sim_hosts {
	SIM_HOSTS_MIXED = 0, /* every other eight seeds: all profiles by turns, both ways */
	SIM_HOSTS_NO,
	SIM_HOSTS_YES,
};

/** Draw a configuration from a seed. */
void sim_config_draw(struct sim_config *c, const struct sim_kind *kind, uint64_t seed, uint32_t n_nodes,
		     enum sim_hosts hosts);

/* Parts of drawing, for profiles. One of some numbers: */
uint32_t sim_one_of(struct chp_random *r, const uint32_t *choices, uint32_t n);
#define SIM_ONE_OF(r, ...)                            \
	sim_one_of(r, (const uint32_t[]){ __VA_ARGS__ }, \
		   (uint32_t)CHP_ARRAY_LEN(((const uint32_t[]){ __VA_ARGS__ })))
/** Suspicion after so long, and times that fit it: lease < suspicion < what is long, as a node file asks for. */
void sim_draw_times(struct sim_config *c, struct chp_random *r, uint64_t suspect_ns);
/** So many operations, while faults go on for so long. */
void sim_set_load(struct sim_config *c, uint32_t ops, uint64_t faults_ns);
/** Credits, and `times` the log that so many operations need at least. */
void sim_set_credits(struct sim_config *c, uint32_t credits, uint32_t times);
/** Nothing is refused for want of room, no session is idle for too long, little is lost. */
void sim_make_room(struct sim_config *c);

/**
 * Simulate one seed to its end: faults, healing, checks.
 *
 * @param failure  set to what went wrong, or to an empty string
 * @return         true when everything held
 */
bool sim_run(const struct sim_config *c, struct sim_result *result, char failure[SIM_FAILURE_BYTES]);

/* Parts of the world, for its files. */
void sim_fail(struct sim_world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_trace(const struct sim_world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_schedule(struct sim_world *w, uint64_t at_ns, enum sim_event_kind kind, uint32_t who,
		  struct sim_packet *packet);
struct sim_packet *sim_packet_take(struct sim_world *w);
void sim_packet_give(struct sim_world *w, struct sim_packet *p);
void sim_network_send(struct sim_world *w, struct sim_packet *p, enum sim_event_kind kind, uint32_t who);
uint64_t sim_latency(struct sim_world *w);

/* Processes. */
void sim_node_init(struct sim_world *w, uint32_t n);
void sim_node_fini(struct sim_world *w, uint32_t n);
void sim_node_start(struct sim_world *w, uint32_t n);
void sim_node_crash(struct sim_world *w, uint32_t n);
void sim_node_pause(struct sim_world *w, uint32_t n, bool control, bool shard, uint64_t ns);
void sim_node_resume(struct sim_world *w, uint32_t n);
void sim_node_arrives(struct sim_world *w, uint32_t n, enum sim_event_kind kind, struct sim_packet *p);
void sim_node_control(struct sim_world *w, uint32_t n, uint64_t at_ns);
void sim_node_run(struct sim_world *w, uint32_t n, uint64_t at_ns);
void sim_node_send(struct sim_world *w, uint32_t n, uint64_t at_ns);
void sim_node_run_soon(struct sim_world *w, uint32_t n, uint64_t at_ns);
void sim_node_control_soon(struct sim_world *w, uint32_t n, uint64_t at_ns);
/** The shard's epoch for a view of the membership, and back. */
static inline uint64_t
sim_shard_epoch(const struct sim_world *w, uint64_t epoch, uint32_t same)
{
	return w->config.view_ppm == 0 || epoch == 0
		       ? epoch
		       : epoch - SIM_NUMBER(epoch) + (SIM_NUMBER(epoch) - 1) * SIM_EPOCHS + same + 1;
}

static inline uint64_t
sim_membership_epoch(const struct sim_world *w, uint64_t epoch)
{
	return w->config.view_ppm == 0 || SIM_NUMBER(epoch) == 0
		       ? epoch
		       : epoch - SIM_NUMBER(epoch) + (SIM_NUMBER(epoch) - 1) / SIM_EPOCHS + 1;
}

/** The view of this epoch, if somebody has entered it; NULL otherwise. */
static inline const struct chp_view *
sim_entered(const struct sim_world *w, uint64_t epoch)
{
	const uint32_t number = SIM_NUMBER(epoch);

	return epoch >> CHP_GENERATION_SHIFT == w->generation && number > 0 && number <= w->n_entered &&
			       w->entered[number - 1].epoch != 0
		       ? &w->entered[number - 1]
		       : NULL;
}

/** The newest view that somebody has entered; NULL: none. */
static inline const struct chp_view *
sim_newest_view(const struct sim_world *w)
{
	return w->n_entered == 0 ? NULL : &w->entered[w->n_entered - 1];
}

/** The driver gives the shard another view with the members of its node's present one. */
void sim_node_same_view(struct sim_world *w, uint32_t n);
void sim_node_set_rate(struct sim_world *w, uint32_t n, int32_t ppm);
/** A node's clock at this moment. */
uint64_t sim_node_clock(const struct sim_world *w, uint32_t n);
/** Counters of a node's shard are kept when it goes. */
void sim_node_collect(struct sim_world *w, uint32_t n);

/* Faults. */
void sim_faults_tick(struct sim_world *w);
void sim_faults_act(struct sim_world *w, uint32_t who);
void sim_faults_heal(struct sim_world *w);
/** A node crashes, and comes back, if that can be borne. Whether it was there, and it could. */
bool sim_faults_lose(struct sim_world *w, uint32_t n);
/** A node is about to send a control packet. False: it does not come to that any more. */
bool sim_faults_on_send(struct sim_world *w, uint32_t n, const struct sim_packet *p);
/** The same for a shard's packet. */
bool sim_faults_on_packet(struct sim_world *w, uint32_t n, const struct sim_packet *p);
/** Whether those who are left can ever agree again: false after losses beyond the budget. */
bool sim_faults_repairable(const struct sim_world *w);
/** Whether there will be views again without the memory of `lost`, and if `disturbed` are dropped. */
bool sim_faults_views_bearable(const struct sim_world *w, uint64_t lost, uint64_t disturbed);
/** Whether all nodes that are to be there are the voters of one view, and know it. */
bool sim_faults_whole(const struct sim_world *w);

/* Views and leases: a node entered a view, or was born again. */
void sim_watch_view(struct sim_world *w, uint32_t n);
void sim_watch_lease(struct sim_world *w, uint32_t n);
void sim_watch_proposal(struct sim_world *w, const struct sim_packet *p);

/* Requests: a node executed one, or so a reply says; a node begins one, so that it may be executed later. */
void sim_once_executed(struct sim_world *w, uint32_t n, uint64_t epoch, uint64_t session, uint64_t request,
		       uint64_t version);
void sim_once_begun(struct sim_world *w, uint32_t n, uint64_t epoch, uint64_t session, uint64_t request,
		    uint64_t version);
void sim_once_reply(struct sim_world *w, uint32_t n, const uint8_t *data, uint32_t len);
void sim_once_forget(struct sim_world *w);

void sim_client_init(struct sim_world *w, uint32_t c);
void sim_client_wake(struct sim_world *w, uint32_t c);
void sim_client_reply(struct sim_world *w, uint32_t c, const struct sim_packet *p);
/** Bytes of a key that clients use, and its number again. */
uint32_t sim_client_key(uint32_t key, uint8_t to[CHP_KEY_BYTES_MAX]);
uint32_t sim_client_key_number(const uint8_t *key, uint32_t len);
/** Whether a client waits for a reply, and on what key: numbers of requests begin again in another session. */
bool sim_client_waits(const struct sim_world *w, uint32_t c, const struct chp_reply_header *h,
		      const struct chp_reply_message *r, uint32_t *key);
bool sim_clients_done(const struct sim_world *w);
/** What they wait for, for people. */
void sim_clients_dump(const struct sim_world *w, struct chp_text *t);
/** All that they have asked is given up: what became of it is not known. What packets may still bring about goes on. */
void sim_clients_give_up(struct sim_world *w);
void sim_clients_go_on(struct sim_world *w);
/** The world is healed, and somebody may be dead for good: writes must not wait for all. */
void sim_clients_settle(struct sim_world *w);

/* Hosts, if there are any: nothing happens otherwise. */
/** Whether a packet of a node's channel is whole. */
bool sim_channel_check(const struct chp_shard_config *s, uint32_t n, const uint8_t *data, uint32_t len);
void sim_host_init(struct sim_world *w, uint32_t n);
void sim_host_fini(struct sim_world *w, uint32_t n);
void sim_host_arrives(struct sim_world *w, uint32_t n, struct sim_packet *p);
void sim_host_run(struct sim_world *w, uint32_t n, uint64_t at_ns);
void sim_host_store(struct sim_world *w, uint32_t n);
void sim_host_start(struct sim_world *w, uint32_t n);
void sim_host_restart(struct sim_world *w, uint32_t n);
/** The process ends; with its machine, so does the store. */
void sim_host_crash(struct sim_world *w, uint32_t n, bool machine);
/** The same, and it comes back. */
void sim_host_lose(struct sim_world *w, uint32_t n, bool machine);
void sim_host_faults(struct sim_world *w);
void sim_host_heal(struct sim_world *w);
/** Whether everything that a node has to save is saved, and everything that it asked for was answered. */
bool sim_host_is_idle(const struct sim_world *w, uint32_t n);
void sim_host_dump(const struct sim_world *w, uint32_t n, struct chp_text *t);

/** Somebody enters the first view of another generation. */
void sim_cold_start(struct sim_world *w, const struct chp_view *v);
/** A view is entered, and the one before was to be reconciled: members may have gone with what they alone had. */
void sim_cold_lost(struct sim_world *w, const struct chp_view *before, const struct chp_view *v);
/** The version of a key in a node's cache; 0: it is not there. */
uint64_t sim_backed_cached(const struct sim_world *w, uint32_t n, uint32_t key);

/* What must hold of a node's cache, log and store: after a run, and over all nodes at rest. */
void sim_backed_init(struct sim_world *w, uint32_t n);
void sim_backed_fini(struct sim_world *w, uint32_t n);
void sim_backed_born(struct sim_world *w, uint32_t n);
void sim_backed_ran(struct sim_world *w, uint32_t n);
void sim_backed_end(struct sim_world *w);

/* Invariants over all nodes; every node's own are asserted now and then after its runs. */
void sim_check_agreement(struct sim_world *w);
void sim_check_history(struct sim_world *w);
void sim_check_end(struct sim_world *w, bool at_rest);

/* EAL, where the index needs one: once a process. */
void sim_eal_init(void);

/** Run scenario files: true when every one gives the text it expects. */
bool sim_scenarios(const struct sim_kind *kind, char **files, int n, bool rewrite);

#endif /* CHP_TESTS_SIM_WORLD_H */
