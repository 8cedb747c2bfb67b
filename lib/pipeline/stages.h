/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stages.h - the inside of a pipeline: its stages and what connects them. For lib/pipeline only.
 *
 * What a packet is to the next stage stands in mbuf->hash.usr (struct chp_tag) and in the frame itself:
 * RX leaves the headers in place, so that a shard finds there where a request came from; a shard writes
 * the address of a reply to where the headers will be, and TX writes the headers over it.
 */
#ifndef CHP_PIPELINE_STAGES_H
#define CHP_PIPELINE_STAGES_H

#include "channel/channel.h"
#include "pipeline/clock.h"
#include "pipeline/neighbour.h"
#include "pipeline/pipeline.h"
#include "pipeline/pool.h"
#include "pipeline/port.h"
#include "pipeline/queue.h"

#include <rte_ethdev.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>

/* Frames that one poll of a port takes or gives. */
#define CHP_PORT_BURST 32u
/* Request datagrams that wait for a shard on the same lcore: two bursts (chp_node_pool_min counts them). */
#define CHP_LOCAL_QUEUE (2u * CHP_BURST_MAX)
/* Packets of a shard for the host stage on the same lcore: all that a batch may write, twice (config/node.c). */
#define CHP_HOST_LOCAL_QUEUE (2u * CHP_SPARE_PEER)
/* Packets to the control lcore. Few: membership sends tens a second. */
#define CHP_CONTROL_RING 256u
/* Ordinary packets (requests, echo) that control takes in one iteration, beyond the urgent ones. */
#define CHP_CONTROL_BURST 8u
/* mbufs that a shard holds to write packets into; together 256 as chp_node_pool_min counts. */
#define CHP_SPARE_PEER 128u
#define CHP_SPARE_REPLY 128u
/* Views on their way to a shard. */
#define CHP_VIEW_RING 4u
/* The payload of our frames begins at a multiple of 64: 128 + 22 + 42. */
#define CHP_FRAME_PAD 22u
/* How soon control looks again at what it waits for of the shards. */
#define CHP_LOOK_NS CHP_NS_PER_MS
/* A port that takes nothing for so long loses what waits. */
#define CHP_TX_STALL_NS (10 * CHP_NS_PER_MS)
/*
 * When the ring of peers' packets to a shard is so full, peers are asked to pause, and when it is so empty, to go on:
 * the upper half is for what is on its way when they hear of it, the lower quarter keeps the shard busy meanwhile.
 */
#define CHP_PRESSED(capacity) ((capacity) / 2)
#define CHP_RELIEVED(capacity) ((capacity) / 4)
/* JSON texts being fetched part by part. */
#define CHP_TEXTS 4u
/* JSON bytes in one reply: with its headers it fits the smallest MTU. */
#define CHP_TEXT_PART 1200u

_Static_assert(CHP_TEXT_PART + sizeof(struct chp_reply_header) + sizeof(struct chp_reply_message) <=
		       CHP_PAYLOAD_BYTES_MIN,
	       "a part fits a packet");
_Static_assert((RTE_PKTMBUF_HEADROOM + CHP_FRAME_PAD + CHP_FRAME_BYTES) % 64 == 0, "alignment");

enum chp_tag_kind {
	/* to TX */
	CHP_TAG_PEER = 1, /* a packet of a shard's link: to be sealed */
	CHP_TAG_CONTROL,  /* a packet of membership: sealed */
	CHP_TAG_REPLY,    /* struct chp_address stands where the headers go */
	CHP_TAG_FRAME,    /* complete */
	/* to the host stage, and from it */
	CHP_TAG_HOST,
	/* to control */
	CHP_TAG_ARP,
	CHP_TAG_ECHO,
	CHP_TAG_MEMBERSHIP,
	CHP_TAG_REQUEST,
};

/* mbuf->hash.usr */
static inline uint32_t
chp_tag(enum chp_tag_kind kind, uint32_t peer, uint32_t port)
{
	return (uint32_t)kind | peer << 8 | port << 16;
}

static inline enum chp_tag_kind
chp_tag_kind_of(const struct rte_mbuf *m)
{
	return (enum chp_tag_kind)(m->hash.usr & 0xff);
}

static inline uint32_t
chp_tag_peer(const struct rte_mbuf *m)
{
	return m->hash.usr >> 8 & 0xff;
}

/* UDP port of both ends, counted from port_base. */
static inline uint32_t
chp_tag_port(const struct rte_mbuf *m)
{
	return m->hash.usr >> 16;
}

struct chp_lcore {
	struct chp_counters counters;
	uint64_t mark;    /* TSC of the last lap */
	uint64_t lap[CHP_CYCLES_IDLE];
	uint64_t wake_ns; /* earliest deadline of its stages */
};

/* Account the time since the last lap. */
static inline void
chp_lap(struct chp_lcore *l, enum chp_cycles what)
{
	uint64_t now = rte_rdtsc();

	l->lap[what] += now - l->mark;
	l->mark = now;
}

/* mbufs of one burst for one queue. */
struct chp_outgoing {
	struct chp_queue queue;
	uint32_t n;
	struct rte_mbuf *mbuf[CHP_PORT_BURST];
};

/* A peer that was asked to pause for the sake of a shard. */
struct chp_paused {
	uint64_t again_ns;             /* not to be asked again before */
	struct chp_peer_header answer; /* to what: incarnations and session of its link */
};

struct chp_rx {
	struct chp_pipeline *p;
	struct chp_lcore *lcore;
	uint32_t index;
	enum chp_frame_trust trust;
	struct chp_outgoing peers[CHP_SHARDS_MAX];
	struct chp_outgoing clients[CHP_SHARDS_MAX];
	uint64_t touched; /* shards that this burst has packets for */
	uint64_t pressed; /* shards for whose sake somebody was asked to pause, and not yet to go on */
	uint64_t paused_mask[CHP_SHARDS_MAX]; /* whom */
	struct chp_paused *paused;            /* [shards * members] */
	struct chp_queue urgent, ordinary; /* to control */
	struct chp_queue to_tx;            /* refusals, pauses */
	struct chp_delayed *delayed;
};

/*
 * What control tells a shard stage: a view, and the life of this process that it belongs to. A stage whose
 * shard is of another life first makes a new, empty one. Epoch 0 is no view: only that.
 */
struct chp_life_view {
	struct chp_view view;
	uint64_t founding; /* chp_membership_founding */
	uint32_t life;     /* struct chp_membership, lives */
};

struct chp_shard_stage {
	struct chp_pipeline *p;
	struct chp_lcore *lcore;
	struct chp_shard *core;
	struct chp_native native;
	uint32_t shard;
	uint32_t n_rx;
	uint32_t next_rx; /* whose clients are asked first */
	struct chp_queue *peers[CHP_QUEUES_MAX];
	struct chp_queue *clients[CHP_QUEUES_MAX];
	struct chp_queue to_tx;
	struct chp_queue *from_host, *to_host; /* NULL in a cluster without hosts */
	struct rte_ring *views; /* of struct chp_life_view */
	uint32_t life;          /* of `core` */
	uint64_t founding;      /* as control said last */
	bool host_is_gone;      /* as the host stage said last */
	uint64_t wake_ns;

	/* mbufs to write into: the first n of each are there. */
	uint32_t n_buffers, n_datagrams;
	struct chp_buffer buffer[CHP_SPARE_PEER];
	struct rte_mbuf *buffer_mbuf[CHP_SPARE_PEER];
	struct chp_native_datagram datagram[CHP_SPARE_REPLY];
	struct rte_mbuf *datagram_mbuf[CHP_SPARE_REPLY];

	/* The batch. */
	uint32_t n_packets, n_ops, n_held;
	struct chp_packet packet[2 * CHP_BURST_MAX]; /* of peers, and of the host */
	struct rte_mbuf *packet_mbuf[2 * CHP_BURST_MAX];
	struct chp_op op[CHP_BATCH_MAX];
	struct rte_mbuf *held[CHP_BURST_MAX]; /* datagrams that operations point into */
	struct rte_mbuf *partial;             /* a datagram that did not fit the last batch */
	uint32_t partial_offset;

	/* Written by this lcore: life << 1 | its copy is complete. What control may do depends on it. */
	_Atomic(uint64_t) told;
	/* Why there is no shard: a negative errno. `core` is NULL then, and the pipeline about to stop. */
	_Atomic(int) failed;
	_Atomic(uint32_t) report_wanted; /* written by control */
	_Atomic(uint32_t) report_done;   /* written by this lcore; equal: report is control's to read */
	struct chp_shard_report report;
	_Atomic(bool) serves;  /* its protocol waits for nothing, as of the last report */
	_Atomic(bool) drained; /* during a stop: nothing is open */
};

#define CHP_TX_INPUTS_MAX (CHP_SHARDS_MAX + CHP_QUEUES_MAX + 1u)

struct chp_tx {
	struct chp_pipeline *p;
	struct chp_lcore *lcore;
	uint32_t index;
	uint32_t n_inputs, next_input;
	struct chp_queue *input[CHP_TX_INPUTS_MAX];
	uint32_t n_pending; /* frames that the port did not take yet */
	struct rte_mbuf *pending[2 * CHP_PORT_BURST]; /* a burst may double by impairment */
	uint64_t stalled_ns; /* since when it takes nothing; 0 = it does */
	struct chp_delayed *delayed;
};

/* What a channel says of itself. */
struct chp_host_stage_report {
	enum chp_channel_state state;
	char text[CHP_CHANNEL_TEXT_BYTES];
};

struct chp_host_stage {
	struct chp_pipeline *p;
	struct chp_lcore *lcore;
	struct chp_channel *channel;
	bool is_given; /* by the creator of the pipeline: not ours to close */
	uint32_t next_shard;
	struct {
		struct chp_queue to, from;
	} shard[CHP_SHARDS_MAX];
	uint32_t n_pending; /* sealed, and not taken by the channel yet */
	struct rte_mbuf *pending[CHP_CHANNEL_BURST];
	struct chp_delayed *impaired; /* only its random numbers: nothing is held back here */
	_Atomic(bool) is_gone; /* the channel has lost the host: for the shards */
	_Atomic(uint32_t) report_wanted; /* written by control */
	_Atomic(uint32_t) report_done;   /* written by this lcore; equal: report is control's to read */
	struct chp_host_stage_report report;
};

/* A JSON text that a client fetches part by part. */
struct chp_text_slot {
	struct chp_address who;
	uint32_t section; /* UINT32_MAX: info */
	uint32_t len;
	uint64_t used; /* rises; 0 = empty */
	char *text;    /* CHP_TEXT_BYTES */
};

enum chp_mailbox_state {
	CHP_MAILBOX_FREE = 0,
	CHP_MAILBOX_CLAIMED = 1, /* a reader fills in what it wants */
	CHP_MAILBOX_ASKED = 2,   /* control's turn */
	CHP_MAILBOX_DONE = 3,    /* the reader's turn */
};

/* How other threads read what control knows. */
struct chp_mailbox {
	_Atomic(uint32_t) state;
	uint32_t shard;
	struct chp_shard_report shard_report;
	struct chp_node_report node_report;
};

struct chp_control {
	struct chp_pipeline *p;
	struct chp_lcore *lcore;
	struct chp_membership membership;
	struct chp_queue *urgent[CHP_QUEUES_MAX], *ordinary[CHP_QUEUES_MAX];
	struct chp_queue to_tx;
	struct {
		uint64_t epoch, founding;
		uint32_t life;
	} given[CHP_SHARDS_MAX];  /* the newest that is in the ring to each shard or went through it */
	uint32_t ready_life;      /* the life for which membership knows that all copies are complete */
	bool failure_reported;
	uint64_t timer_ns;        /* when to look at timers again */
	uint64_t report_ns;       /* when to ask the shards again */
	uint64_t stop_ns;         /* when a stop is over at the latest; 0 = none runs */
	uint64_t quiet_ns;        /* since when everything is drained; 0 = not yet */
	bool conflict_reported;
	uint64_t other_way;    /* node mask: who was reported to send to its peers in another way than this node */
	uint64_t defend_at_ns; /* our address, not before */
	struct chp_shard_report *report; /* [shards], the newest */
	struct chp_host_stage_report channel; /* likewise */
	struct chp_text_slot text[CHP_TEXTS];
	uint64_t text_used;
	struct chp_mailbox mailbox;
};

enum chp_pipeline_state {
	CHP_PIPELINE_RUNNING = 0,
	CHP_PIPELINE_DRAINING = 1, /* no new client requests */
	CHP_PIPELINE_STOPPED = 2,
};

struct chp_pipeline {
	struct chp_cluster_config cluster;
	struct chp_node_config node;
	struct chp_pipeline_config config;
	char name[16];
	struct chp_clock clock;
	struct chp_port port;
	uint32_t payload_bytes_max;
	uint32_t ports_shards; /* UDP ports for shards: shards rounded up to a power of two */
	struct rte_mempool *rx_pool, *tx_pool, *control_pool;
	struct chp_neighbours neighbours;
	struct chp_impair impair;
	uint64_t start_ns;
	_Atomic(bool) stop_asked;
	_Atomic(uint32_t) state; /* enum chp_pipeline_state */
	_Atomic(int) exit_code;
	_Atomic(uint64_t) epoch; /* of the view in force; 0 = none */
	/*
	 * Until when the shards may serve (SAFETY 17); 0 = they may not. Written by control after every event of
	 * membership, read by every shard with each batch. A lease must never meet a shard of another life than
	 * its own: control writes one only after every shard has told (`told`, release and acquire) that it is of
	 * the present life, and writes 0 before it gives the next life to the first of them through its ring. So
	 * whoever reads a lease of some life has entered that life before, and whoever entered the next one reads
	 * 0 or what was written after all had.
	 */
	_Alignas(CHP_CACHE_LINE) _Atomic(uint64_t) lease_until_ns;

	struct chp_lcore *lcore;       /* [node.n_lcores] */
	struct chp_rx *rx;             /* [node.n_rx] */
	struct chp_shard_stage *shard; /* [cluster.shards] */
	struct chp_tx *tx;             /* [node.n_tx] */
	struct chp_host_stage *host;   /* NULL in a cluster without hosts */
	struct chp_control *control;
};

static inline enum chp_pipeline_state
chp_pipeline_state_of(const struct chp_pipeline *p)
{
	return (enum chp_pipeline_state)atomic_load_explicit(&p->state, memory_order_acquire);
}

/* Whether views fence the protocol. Where not, they say who is who and the protocol who serves. */
static inline bool
chp_pipeline_is_fenced(const struct chp_pipeline *p)
{
	const struct chp_protocol *protocol = chp_protocol_find(p->cluster.protocol);

	return protocol == NULL || protocol->is_fenced;
}

/* One iteration of a stage each. True when there was work. */
bool chp_rx_poll(struct chp_rx *s);
bool chp_shard_poll(struct chp_shard_stage *s);
bool chp_tx_poll(struct chp_tx *s);
bool chp_control_poll(struct chp_control *s);
bool chp_host_poll(struct chp_host_stage *s);

/**
 * Connect the host stage with the shards, which exist.
 *
 * @param shards_here  mask of the shards on the same lcore
 * @return             0 or -ENOMEM
 */
int chp_host_stage_init(struct chp_host_stage *s, struct chp_pipeline *p, uint32_t lcore, uint64_t shards_here);

/** Open the channel of the node file, or take the given one over. 0, or -1 with *error. */
int chp_host_stage_open(struct chp_host_stage *s, struct chp_channel *given, struct chp_error *error);

/** The counter of what is wrong with a packet. */
enum chp_pipeline_counter chp_packet_error_counter(enum chp_packet_error e);

/** Make the stage's shard, empty and without a view. 0 or -errno, and `core` is NULL. */
int chp_shard_stage_begin(struct chp_shard_stage *s);

/* The parts of stages that hold something. */
void chp_shard_stage_fini(struct chp_shard_stage *s);
void chp_tx_fini(struct chp_tx *s);
void chp_host_stage_fini(struct chp_host_stage *s);

/* Give the mailbox its answer and the shards their questions (report.c). Control lcore. */
void chp_control_reports(struct chp_control *s, uint64_t now_ns);

/* Answer a request on the control port, in its own mbuf. False: drop it (counted). */
bool chp_control_request(struct chp_control *s, struct rte_mbuf *m);

/** JSON of an info request; as chp_pipeline_status. */
uint32_t chp_pipeline_info(const struct chp_pipeline *p, char *text, uint32_t cap);

/**
 * Turn a request datagram into a reply that refuses every request in it, in place.
 *
 * @return  false when it has none that could be answered
 */
bool chp_refuse(const struct chp_pipeline *p, struct rte_mbuf *m, uint32_t shard, enum chp_status status);

/** Prepare an mbuf from a pool for writing a payload; NULL when the pool is empty. */
struct rte_mbuf *chp_mbuf_take(struct rte_mempool *pool);

/** Set the length of a packet whose payload was written. */
static inline void
chp_mbuf_set_payload(struct rte_mbuf *m, uint32_t payload_len)
{
	m->data_len = (uint16_t)(CHP_FRAME_BYTES + payload_len);
	m->pkt_len = m->data_len;
}

#endif /* CHP_PIPELINE_STAGES_H */
