/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dsi.h - the datastore interface of one shard: the host's end of the channel, as a pure state machine (paper 5.2).
 *
 *   events in (a batch)                          effects out
 *     packets of the shard   \                  / packets to the shard
 *     completed requests      >  chp_dsi_run() <  requests to the store
 *     now, the store's state /                  \ next deadline
 *
 * The other end is core/host.c; what they say is in wire/host.h. This end answers HELLO, keeps the reliable link
 * (core/link.h), gathers PUTs up to their FLUSH into batches, hands these to the store in order, several at a time
 * where it is behind (group commit), and reports DURABLE what the store has completed and nothing else. LOADs are
 * gathered into READs.
 *
 * Incarnations. A HELLO of a new incarnation of the shard ends everything of the one before: what was not handed to
 * the store yet is dropped, late completions are used for the record only. The WELCOME waits until every BEGIN, WRITE
 * and RECORD that was handed over is completed, so that it tells what the store holds. A HELLO of the same incarnation
 * is answered at once and changes nothing: the link's sessions tell both ends of resets, which void what is not with
 * the store yet. This end has a new incarnation for each of the shard's, so that no link begins twice.
 *
 * Room. This end never stops consuming its link. What a shard may send is bounded by what WELCOME said (put_bytes,
 * loads) and by CHP_SCANS; one that sends more has its link reset, counted. Everything this end says waits as a
 * few words of state until the link has room.
 *
 * Owner: one thread. Nothing allocates after chp_dsi_create. Same events, same effects, bit for bit.
 */
#ifndef CHP_DSI_DSI_H
#define CHP_DSI_DSI_H

#include "base/memory.h"
#include "core/link.h"
#include "datastore/request.h"
#include "wire/host.h"

struct chp_dsi;

struct chp_dsi_config {
	const struct chp_memory *memory;
	uint32_t cluster_hash;
	uint32_t node, shard, shards;
	uint64_t hash_seed;
	uint32_t key_bytes_max, value_bytes_max, payload_bytes_max;
	uint64_t incarnation;      /* random, not 0; of this process: the first of a row that is used */
	uint32_t put_bytes;        /* of PUTs that may be here and not durable; also the most of one batch */
	uint32_t loads;            /* LOADs that may be open */
	uint32_t scan_bytes;       /* of one part of a scan at most, whatever was asked for */
	uint32_t window, queue;    /* of the link, packets */
	uint64_t rto_ns_min, rto_ns_max, ack_delay_ns;
};

/* READs, WRITEs and SCANs that may be with the store at the same time. */
#define CHP_DSI_READS_OPEN 8u
#define CHP_DSI_READ_KEYS 64u
/* One is committed while the next waits in the store's queue; what comes meanwhile is gathered for a third. */
#define CHP_DSI_WRITES_OPEN 2u
#define CHP_DSI_SCANS_OPEN 2u
/* All of them, a BEGIN and a RECORD: what a run hands to the store at most. */
#define CHP_DSI_REQUESTS_MAX (CHP_DSI_READS_OPEN + CHP_DSI_WRITES_OPEN + CHP_DSI_SCANS_OPEN + 2u)

struct chp_dsi_packet {
	const uint8_t *data; /* any alignment; dies when the call returns */
	uint32_t len;
};

struct chp_dsi_events {
	const struct chp_dsi_packet *packet; /* from the channel, for this shard (chp_dsi_shard_of); checked here */
	uint32_t n_packets;
	struct chp_store_request *const *done; /* completed */
	uint32_t n_done;
	const struct chp_store_info *info;     /* the store's state, where it is new; copied. NULL: as before */
	/* With the first info whose refusal is CHP_HOST_OK: this shard's record; copied. Otherwise NULL. */
	const struct chp_store_record *record;
};

struct chp_dsi_buffer {
	uint8_t *data; /* config.payload_bytes_max bytes */
	uint32_t len;  /* set when used */
};

struct chp_dsi_effects {
	struct chp_dsi_buffer *buffer; /* n_buffers to write; the first n_used were written, sealed */
	uint32_t n_buffers;            /* at least 1 */
	uint32_t n_used;
	struct chp_store_request *request[CHP_DSI_REQUESTS_MAX]; /* n_requests for the store, in order */
	uint32_t n_requests;
	uint64_t wake_ns; /* call again at this time or earlier; 0 = at once, more is ready */
};

#define CHP_DSI_COUNTERS(X)                                                                  \
	X(hellos, "HELLOs received")                                                         \
	X(welcomes, "HELLOs answered with WELCOME")                                          \
	X(refusals, "HELLOs answered with REFUSED")                                          \
	X(incarnations, "new incarnations of the shard")                                     \
	X(puts, "versions received")                                                         \
	X(put_bytes, "bytes of them")                                                        \
	X(batches, "batches received")                                                       \
	X(writes, "writes handed to the store")                                              \
	X(durable, "batches reported durable")                                               \
	X(loads, "keys asked for")                                                           \
	X(found, "of those, found")                                                          \
	X(tombstones, "of those, deleted")                                                   \
	X(failed, "of those, that the store could not read")                                 \
	X(reads, "reads handed to the store")                                                \
	X(scans, "parts of scans asked for")                                                 \
	X(items, "items of scans sent")                                                      \
	X(begins, "lives begun")                                                             \
	X(late_begins, "BEGINs of a life before the present one, ignored")                   \
	X(records, "epochs recorded")                                                        \
	X(orphans, "completions for an earlier incarnation or session")                      \
	X(excess, "link resets because the shard sent more than it may")                     \
	X(bad_message, "link resets because of a message that makes no sense")               \
	X(stray, "packets of another cluster, node, shard or incarnation, dropped")          \
	X(bad_packet, "packets that are not well-formed, dropped")

struct chp_dsi_counters {
#define CHP_COUNTER_FIELD(name, help) uint64_t name;
	CHP_DSI_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
};

/* For status: a copy. */
struct chp_dsi_status {
	struct chp_dsi_counters counters;
	struct chp_link_counters link;
	struct chp_store_record record;
	uint64_t shard_incarnation; /* that was welcomed; 0: none yet */
	uint32_t put_bytes;         /* held now, not durable */
	uint32_t loads;             /* open now */
	char refused[CHP_HOST_TEXT_BYTES]; /* why the last HELLO was refused; "" if it was not */
};

/** Bytes that chp_dsi_create takes, for --print-config. */
uint64_t chp_dsi_bytes(const struct chp_dsi_config *config);

/**
 * Create. Whatever HELLOs come are refused until an info says that the store is open.
 *
 * @param err  set to -ENOMEM or -EINVAL when NULL is returned
 */
struct chp_dsi *chp_dsi_create(const struct chp_dsi_config *config, int *err);
/** No request may be with the store any more. Accepts NULL. */
void chp_dsi_destroy(struct chp_dsi *d);

/** Take events, all of them, write effects. */
void chp_dsi_run(struct chp_dsi *d, uint64_t now_ns, const struct chp_dsi_events *in, struct chp_dsi_effects *out);

void chp_dsi_status(const struct chp_dsi *d, struct chp_dsi_status *to);

/** What shard a packet of the channel names; false if it is too short to name one. Checks nothing else. */
bool chp_dsi_shard_of(const void *data, uint32_t len, uint32_t *shard);

/**
 * Answer a HELLO that names a shard which this host does not have: REFUSED, with the reason.
 *
 * @param to  config->payload_bytes_max bytes
 * @return    bytes written; 0 if the packet is no HELLO
 */
uint32_t chp_dsi_refuse_stray(const struct chp_dsi_config *config, const void *data, uint32_t len, uint8_t *to);

/** Assert every invariant; O(everything). */
void chp_dsi_check(const struct chp_dsi *d);

#endif /* CHP_DSI_DSI_H */
