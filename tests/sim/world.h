/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * world.h - the simulator: replicas with the shipped core, a network with every fault, clients, in virtual
 * time, all from one seed.
 *
 * One thread, one heap of events. A node is a struct chp_shard and the native frontend, driven exactly as
 * the DPDK pipeline drives them: packets and datagrams collected into a batch, chp_shard_run, packets
 * sealed and checked on arrival. Shards of a node share nothing, so one shard a node is the whole program.
 */
#ifndef CHP_TESTS_SIM_WORLD_H
#define CHP_TESTS_SIM_WORLD_H

#include "base/random.h"
#include "core/shard.h"
#include "frontends/native.h"
#include "history/history.h"

#include <stdbool.h>
#include <stdint.h>

#define SIM_NODES_MAX 7u
#define SIM_CLIENTS_MAX 12u
#define SIM_INBOX_MAX 256u
#define SIM_BUFFERS_MAX 64u
#define SIM_DEPTH_MAX 8u
#define SIM_KEYS_MAX 12u
#define SIM_PACKET_BYTES CHP_PAYLOAD_BYTES_MIN

/* What a seed draws. */
struct sim_config {
	const struct chp_protocol *protocol;
	uint64_t seed;
	uint32_t n_nodes, n_clients, n_keys, depth;
	uint32_t ops;                  /* client operations in the whole run */
	uint32_t drop_ppm, duplicate_ppm, corrupt_ppm, delay_ppm;
	uint64_t latency_ns_min, latency_ns_max, delay_ns_max;
	uint32_t pause_ppm, partition_ppm, reset_ppm, view_ppm, crash_ppm; /* per millisecond */
	uint32_t max_crashes;
	uint32_t value_bytes_typical;
	uint32_t delete_ppm;           /* of operations, beyond the usual mix: keys come and go */
	struct chp_shard_config shard;
	bool trace;
};

enum sim_event_kind { SIM_RUN, SIM_PACKET, SIM_DATAGRAM, SIM_REPLY, SIM_CLIENT, SIM_VIEW, SIM_FAULTS };

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
	uint64_t epoch;
	struct sim_packet *packet;
};

struct sim_node {
	struct chp_shard *shard;
	struct chp_native native;
	struct sim_packet *peer_inbox[SIM_INBOX_MAX];
	struct sim_packet *client_inbox[SIM_INBOX_MAX];
	uint32_t n_peer, n_client;
	uint32_t client_offset;        /* within the first datagram of client_inbox */
	struct chp_view next_view;     /* epoch 0: none waits */
	uint64_t run_at_ns;            /* of the run event that counts; CHP_NEVER: none */
	uint64_t paused_until_ns;
	bool alive;
};

enum sim_call_state { SIM_CALL_FREE = 0, SIM_CALL_OPEN };

/* One request of a client. */
struct sim_call {
	enum sim_call_state state;
	uint8_t opcode;
	uint32_t key;
	uint32_t value_len;
	uint32_t sends;
	uint64_t request, arg;
	uint64_t retry_ns, rto_ns, give_up_ns;
	uint32_t history; /* index; CHP_HISTORY_NONE for a session's open */
	uint8_t value[CHP_VALUE_BYTES_MAX];
};

struct sim_client {
	uint32_t home;
	uint64_t session;      /* 0: none open */
	uint64_t next_request; /* in the session */
	uint64_t wake_ns;
	uint64_t seen_version[SIM_KEYS_MAX]; /* for cas */
	uint32_t written;      /* makes values unique */
	struct sim_call call[SIM_DEPTH_MAX];
};

struct sim_world {
	struct sim_config config;
	struct chp_random random;
	uint64_t now_ns;
	uint64_t order;
	struct sim_event *heap;
	uint32_t n_events, cap_events;
	struct sim_packet *free_packets;
	struct sim_node node[SIM_NODES_MAX];
	struct sim_client client[SIM_CLIENTS_MAX];
	struct chp_view view;          /* the newest that the oracle made */
	uint64_t cut_until_ns[SIM_NODES_MAX][SIM_NODES_MAX]; /* one way: from, to */
	uint32_t issued, crashes;
	bool healed;                   /* liveness phase: no faults, no new operations */
	struct chp_history history;
	uint64_t runs;
	bool undecided;
	char failure[512];             /* what went wrong first; empty */
};

struct sim_result {
	uint64_t runs, digest;
	uint64_t ops, ok;
	struct chp_protocol_counters protocol; /* summed over nodes */
	uint64_t retransmits, resets;
	bool undecided;                /* a search of the history reached its limit and found nothing wrong */
};

/** Draw a configuration from a seed. */
void sim_config_draw(struct sim_config *c, const struct chp_protocol *protocol, uint64_t seed, uint32_t n_nodes);

/**
 * Simulate one seed to its end: faults, healing, checks.
 *
 * @param failure  set to what went wrong, or to an empty string
 * @return         true when everything held
 */
bool sim_run(const struct sim_config *c, struct sim_result *result, char failure[512]);

/* Parts, for world.c, client.c, check.c. */
void sim_fail(struct sim_world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_trace(const struct sim_world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_schedule(struct sim_world *w, uint64_t at_ns, enum sim_event_kind kind, uint32_t who,
		  struct sim_packet *packet);
struct sim_packet *sim_packet_take(struct sim_world *w);
void sim_packet_give(struct sim_world *w, struct sim_packet *p);
uint64_t sim_latency(struct sim_world *w);

void sim_client_init(struct sim_world *w, uint32_t c);
void sim_client_wake(struct sim_world *w, uint32_t c);
void sim_client_reply(struct sim_world *w, uint32_t c, const struct sim_packet *p);
bool sim_clients_done(const struct sim_world *w);

/* Invariants over all nodes; every node's own are asserted after each of its runs. */
void sim_check_agreement(struct sim_world *w);
void sim_check_end(struct sim_world *w);

/* EAL, where the index needs one: once a process. */
void sim_eal_init(void);

/** Run scenario files: true when every one gives the text it expects. */
bool sim_scenarios(const struct chp_protocol *protocol, char **files, int n, bool rewrite);

#endif /* CHP_TESTS_SIM_WORLD_H */
