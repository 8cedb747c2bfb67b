/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config.h - the two configuration files: the cluster file, identical on all nodes, and the node file.
 *
 * Both are JSON. Reading is pure: bytes in, a completely validated structure or a list of errors out, so
 * that everything wrong is found before EAL starts, and the parser is a fuzz target. Every error names
 * file, line, key, value and what was expected. Unknown keys are errors. docs/config.md lists every key.
 *
 * Thread rule: none of these functions shares state; use from any thread.
 */
#ifndef CHP_CONFIG_CONFIG_H
#define CHP_CONFIG_CONFIG_H

#include "base/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum chp_durability {
	CHP_DURABILITY_MEMORY = 0,    /* acknowledged when replicated in the memory of all live replicas */
	CHP_DURABILITY_DATASTORE = 1, /* and when the hosts of a majority of all members have stored it */
};

struct chp_member_config {
	char name[CHP_NAME_BYTES_MAX + 1];
	uint32_t address; /* IPv4, host byte order */
};

/* The cluster file. The cluster hash covers what members must agree on (SAFETY 37). */
struct chp_cluster_config {
	char name[CHP_NAME_BYTES_MAX + 1];
	char protocol[CHP_NAME_BYTES_MAX + 1]; /* checked against the names the caller knows */
	char application[CHP_NAME_BYTES_MAX + 1]; /* likewise */
	uint32_t shards;
	uint64_t hash_seed;
	uint32_t mtu;
	uint32_t port_base;         /* aligned to shards rounded up to a power of two */
	uint32_t key_bytes_max;
	uint32_t value_bytes_max;
	uint32_t keys_max;          /* per shard: keys (tombstones included) the data cache takes */
	uint32_t value_blocks_max;  /* per shard: 128-byte blocks for records too large for a slot */
	uint32_t sessions_max;      /* per shard */
	uint32_t session_window;    /* requests a session may have in flight; power of two */
	uint64_t session_idle_ns;   /* an idle session is closed after this */
	uint32_t credits;           /* operations one peer may have open, per (peer, shard) */
	uint32_t link_window;       /* packets a link may have in flight */
	bool hosts;                 /* each member has a host with a datastore behind its cache */
	enum chp_durability durability;
	/* With hosts; not covered by the hash. */
	uint32_t batch_items;       /* versions of a batch that is written behind, at most */
	uint32_t batch_bytes;
	uint64_t batch_age_ns;      /* after which a batch is sent though it is not full */
	uint32_t loads_max;         /* per shard: keys that may be asked for at the same time */
	uint64_t host_grace_ns;     /* a replica whose host is gone for longer leaves the view (SAFETY 32) */
	uint32_t busy_fill_percent; /* of the log, from which on operations are refused */
	uint32_t leave_fill_percent; /* of the log, from which on the replica leaves the view */
	uint32_t n_members;
	struct chp_member_config member[CHP_NODES_MAX]; /* by node id */
	uint32_t hash;              /* the cluster hash, never 0 */
};

enum chp_idle {
	CHP_IDLE_SPIN = 0,  /* dedicated cores */
	CHP_IDLE_YIELD = 1, /* sched_yield after an empty poll */
	CHP_IDLE_SLEEP = 2, /* yield at first, then sleeps of growing length */
};

/* How packets go to the other replicas. They are accepted either way. */
enum chp_peers {
	CHP_PEERS_UDP = 0,      /* over IPv4 and UDP, as to clients */
	CHP_PEERS_ETHERNET = 1, /* in Ethernet frames of our own; all members in one Ethernet */
};

enum chp_rx_checksum {
	CHP_RX_CHECKSUM_OFF = 0,     /* do not look: virtual links leave partial checksums */
	CHP_RX_CHECKSUM_VERIFY = 1,  /* compute IPv4 and UDP checksums here */
	CHP_RX_CHECKSUM_OFFLOAD = 2, /* the port computes them; refused where it can't */
};

enum chp_stage_kind {
	CHP_STAGE_RX = 0,
	CHP_STAGE_SHARD = 1,
	CHP_STAGE_TX = 2,
	CHP_STAGE_CONTROL = 3,
	CHP_STAGE_HOST = 4,
};

struct chp_stage_config {
	enum chp_stage_kind kind;
	uint32_t index; /* rx: queue; shard: shard; tx: queue; control, host: 0 */
};

#define CHP_QUEUES_MAX 16u
#define CHP_LCORES_MAX 128u
#define CHP_STAGES_PER_LCORE_MAX (CHP_SHARDS_MAX + 2u * CHP_QUEUES_MAX + 2u)

struct chp_lcore_config {
	uint32_t lcore;
	uint32_t n_stages;
	struct chp_stage_config stage[CHP_STAGES_PER_LCORE_MAX];
};

/* What moves packets between a replica and its host (channel/channel.h). */
enum chp_channel_kind {
	CHP_CHANNEL_KIND_PORT = 0, /* a DPDK port */
	CHP_CHANNEL_KIND_RDMA = 1,
};

/* The object that describes one end: "host" of the node file, "channel" of chaapar-host's file. */
struct chp_channel_keys {
	enum chp_channel_kind channel;
	char port[CHP_NAME_BYTES_MAX + 1]; /* port: its DPDK name */
	char dma[CHP_NAME_BYTES_MAX + 1];  /* port: DPDK name of a DMA device that copies large batches, or "none" */
	uint32_t address; /* rdma: IPv4 that the replica listens at, host byte order; 0 there: any */
	uint32_t service; /* rdma: its port number there */
	uint32_t ring;    /* packets under way in each direction; power of two */
};

/** "port", "rdma": what chp_channel_find wants. Static storage. */
const char *chp_channel_kind_name(enum chp_channel_kind kind);

/* The node file: what may differ from node to node. */
struct chp_node_config {
	uint32_t node;              /* id of this node: its index in the cluster file's members */
	char port[CHP_NAME_BYTES_MAX + 1]; /* DPDK port name, as net_af_xdp0 or 0000:03:00.0 */
	uint32_t prefix_len;        /* of the data network */
	uint32_t gateway;           /* IPv4, host byte order; 0 = none */
	enum chp_peers peers;
	enum chp_rx_checksum rx_checksum;
	bool steer;                 /* steer each shard's UDP port to queue = shard with rte_flow */
	enum chp_idle idle;
	uint64_t idle_sleep_ns;     /* longest sleep of CHP_IDLE_SLEEP */
	uint32_t n_lcores;
	struct chp_lcore_config lcore[CHP_LCORES_MAX];
	uint32_t n_rx, n_tx;        /* stages of each kind in lcore[], derived */
	uint32_t rx_pool, tx_pool, control_pool; /* mbufs; 0 in the file = computed, here never 0 */
	uint32_t rx_ring, tx_ring;  /* descriptors of the port's queues */
	uint32_t stage_ring;        /* entries of each ring between stages; power of two */
	uint32_t log_entries;       /* per shard; power of two */
	uint32_t log_blocks;        /* per shard: 128-byte blocks for log records too large for an entry */
	uint32_t ops;               /* per shard: client operations that may wait or run */
	uint64_t rto_ns_min, rto_ns_max; /* link retransmission time-out */
	uint64_t ack_delay_ns;      /* a link acknowledgement waits this long for a packet to ride on */
	uint64_t link_down_ns;      /* a link silent for this long, with packets unanswered, is reset */
	uint64_t suspect_ns;        /* a member silent for this long is suspected */
	uint64_t lease_ns;          /* how long a lease is asked for; below suspect_ns */
	uint64_t election_ns;       /* quorum protocols: a leader silent for this long is replaced */
	uint64_t leader_lease_ns;   /* how long a leader reads alone; 0 = it asks a quorum each time */
	uint32_t clock_drift_ppm;   /* how far the rate of any node's clock may be from true time */
	uint32_t copy_bytes;        /* per shard: of state that is asked for at a time, while it is copied */
	struct chp_channel_keys host; /* the channel to this node's host; only in a cluster with hosts */
};

#define CHP_CONFIG_ERRORS_MAX 32u
#define CHP_CONFIG_ERROR_BYTES 448u

/* Errors are added to what is there; the caller zeroes it first. */
struct chp_config_errors {
	uint32_t n; /* errors found; the first CHP_CONFIG_ERRORS_MAX are kept */
	char text[CHP_CONFIG_ERRORS_MAX][CHP_CONFIG_ERROR_BYTES]; /* "file:line: key: value: expected ..." */
};

/**
 * Parse and validate a cluster file.
 *
 * @param text, len  the file's bytes; not kept
 * @param file       its name, for messages
 * @param protocols  NULL-terminated names of the protocols that exist
 * @param applications  likewise
 * @param out        filled completely, defaults included, when there is no error
 * @return           true without errors; otherwise errors->n > 0 and out is unspecified
 */
bool chp_cluster_config_parse(const char *text, size_t len, const char *file,
			      const char *const *protocols, const char *const *applications,
			      struct chp_cluster_config *out, struct chp_config_errors *errors);

/** The same for a node file; it is checked against the cluster it belongs to. */
bool chp_node_config_parse(const char *text, size_t len, const char *file,
			   const struct chp_cluster_config *cluster, struct chp_node_config *out,
			   struct chp_config_errors *errors);

/**
 * Read a whole file of at most 1 MiB.
 *
 * @return  malloc'd bytes with a NUL behind them, len set; NULL with one error added
 */
char *chp_config_read_file(const char *file, size_t *len, struct chp_config_errors *errors);

enum chp_pool {
	CHP_POOL_RX = 0,      /* what ports receive into and rings to shards hold */
	CHP_POOL_TX = 1,      /* what shards send */
	CHP_POOL_CONTROL = 2, /* what the control lcore sends */
};

/**
 * mbufs that a pool must have so that full queues, rings and bursts can't empty it (SAFETY 15):
 * rx: per rx queue its descriptors and two bursts, 2048 more for net_af_xdp, which fills that many,
 * and the two rings (peers, clients) to every shard that runs on another lcore; tx: the descriptors
 * of every tx queue, and per shard its ring and 256 packets being filled; control: 1024. With a host, in rx and in tx
 * its ring and a burst for each shard; its queue, 64 and 256, where it shares an lcore with the host stage.
 *
 * @param n  with its stages and rings filled in; the pools' sizes are not looked at
 */
uint32_t chp_node_pool_min(const struct chp_cluster_config *c, const struct chp_node_config *n,
			   enum chp_pool which);

/** The index in lcore[] of the lcore that runs a stage; UINT32_MAX when none does. */
uint32_t chp_node_lcore_of(const struct chp_node_config *n, enum chp_stage_kind kind, uint32_t index);

/** The tx queue that a shard sends to: the first on its own lcore, else number shard modulo n_tx. */
uint32_t chp_node_tx_of_shard(const struct chp_node_config *n, uint32_t shard);

/** The cluster hash over everything that nodes must agree on; never 0. */
uint32_t chp_cluster_config_hash(const struct chp_cluster_config *c);

/**
 * The effective configuration, defaults included, as JSON that parses again to the same structures. That
 * of a node has one object more, "derived": memory, lcores, queues and rings; it is ignored when read.
 *
 * @return  malloc'd text without a newline at its end; NULL when memory is short
 */
char *chp_cluster_config_print(const struct chp_cluster_config *c);
char *chp_node_config_print(const struct chp_node_config *n, const struct chp_cluster_config *c);

#endif /* CHP_CONFIG_CONFIG_H */
