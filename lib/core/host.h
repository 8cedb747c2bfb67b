/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * host.h - the shard's end of the channel to its host: write-behind, loads, scans (paper 5.2; SAFETY 29-33).
 *
 * Part of a shard. It finds its host with HELLOs, keeps a reliable link to it (core/link.h), sends it what the log has
 * committed, moves the log's durability mark by what the host reports, and asks it for keys on behalf of the protocol.
 *
 * Write-behind. What is sent is a prefix of the log: positions in order, up to the first that is not committed (with
 * level `datastore`, where a write is committed when it is stored: up to the end). A batch is a run of positions,
 * closed by count, bytes or age. Within it only the newest entry of a key is sent (SAFETY 30): the batch becomes
 * durable as a whole, so no position is passed before its key's version, or a newer one, is. Sessions, entries without
 * a key and operations that failed are not sent. When the host or the channel comes back, everything from the mark on
 * is sent again; the store skips what it has.
 *
 * Pure: time is an argument, packets are written into the caller's buffers. Owner: the shard's lcore.
 */
#ifndef CHP_CORE_HOST_H
#define CHP_CORE_HOST_H

#include "core/link.h"
#include "protocols/protocol.h"
#include "wire/host.h"

enum chp_host_state_of_link {
	CHP_HOST_NONE = 0,  /* this cluster has no hosts */
	CHP_HOST_AWAY,      /* no answer: HELLOs go out */
	CHP_HOST_REFUSES,   /* it answers with REFUSED: text says why */
	CHP_HOST_WAITING,   /* welcomed; this shard has no view yet, or its life begins in the store */
	CHP_HOST_READY,
	CHP_HOST_LOST_DATA, /* welcomed by a store that holds less than it had reported durable (SAFETY 29) */
};

#define CHP_HOST_COUNTERS(X)                                                                     \
	X(puts, "versions sent to the host")                                                     \
	X(coalesced, "versions not sent because a newer one of their key was in the same batch") \
	X(batches, "batches sent")                                                               \
	X(bytes, "bytes of versions sent")                                                       \
	X(batches_by_count, "batches closed by count")                                           \
	X(batches_by_bytes, "batches closed by bytes")                                           \
	X(batches_by_age, "batches closed by age")                                               \
	X(batches_at_once, "batches closed because nothing else was on its way (datastore)")     \
	X(durable, "batches that the host reported durable")                                     \
	X(loads, "keys asked for")                                                               \
	X(loads_found, "of those, found")                                                        \
	X(loads_failed, "of those, that the store could not read")                               \
	X(loads_refused, "keys not asked for because too many loads were open")                  \
	X(loads_dropped, "loads whose answer nobody needed any more: a write or a peer told")    \
	X(scans, "parts of scans asked for")                                                     \
	X(items, "items of scans received")                                                      \
	X(hellos, "HELLOs sent")                                                                 \
	X(welcomes, "times the host welcomed this shard")                                        \
	X(refusals, "times the host refused this shard")                                         \
	X(silences, "times the host was given up because nothing came from it")                  \
	X(losses, "times the host was given up because the channel had lost it")                 \
	X(resends, "times everything that was not durable was sent again")                       \
	X(skipped, "log entries that a volatile store never got because it was away or slow")    \
	X(lost_data, "times the store held less than it had reported durable")                   \
	X(stale, "answers to what was not asked, or asked before the channel was lost")          \
	X(bad_message, "messages that were not well-formed")

struct chp_host_counters {
#define CHP_COUNTER_FIELD(name, help) uint64_t name;
	CHP_HOST_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
};

/* How the host is: for status, and for who decides whether this replica stays in the view (SAFETY 32). */
struct chp_host_status {
	enum chp_host_state_of_link state;
	uint32_t store_state;       /* enum chp_store_state */
	uint32_t store_flags;       /* enum chp_store_flag */
	uint64_t away_ns;           /* for how long neither WAITING nor READY, or its store DOWN; 0 = it is well */
	uint64_t backlog;           /* log positions committed and not durable */
	uint64_t oldest_ns;         /* age of the oldest of them, since it was first to go */
	uint64_t log_fill_ppm;      /* of the log: entries or blocks, whatever is fuller */
	bool cache_is_stuck;        /* the cache is full of what cannot leave it: chp_cache_is_stuck */
	uint64_t epoch;             /* recorded in the store */
	uint64_t life;              /* the newest that is durable in the store */
	bool has_begun;             /* that is our own in this view, and no other one is about to begin */
	uint64_t newest, items, tombstones, errors;
	bool has_record;            /* the store has been welcomed in this process: epoch says what it holds */
	char text[CHP_HOST_TEXT_BYTES]; /* why it is not READY or not OK; else the name of the store */
};

struct chp_host_config {
	struct chp_link_config link; /* of kind CHP_PACKET_HOST; silent for link_down_ns it is AWAY */
	uint32_t shards;
	uint64_t hash_seed;
	uint32_t key_bytes_max, value_bytes_max;
	uint64_t incarnation;
	bool is_durable;
	bool sends_open;           /* what is not committed goes, too: a write waits for its store to be committed */
	uint32_t batch_items, batch_bytes;
	uint64_t batch_age_ns;
	uint32_t loads_max;
	uint32_t busy_fill_percent;
};

/* A batch on its way: what it makes durable. */
struct chp_host_sent {
	uint64_t seq;
	uint64_t end;      /* every log position below is durable with it */
	uint64_t first_ns; /* when the first of it was ready to go */
	uint32_t bytes;    /* of its PUTs */
};
/* More than a host works off between two looks of ours: then batches wait in the log, where they get coalesced. */
#define CHP_HOST_BATCHES_MAX 64u

enum chp_host_load_state {
	CHP_LOAD_FREE = 0,
	CHP_LOAD_QUEUED,   /* to be asked, or asked again */
	CHP_LOAD_ASKED,
	CHP_LOAD_ANSWERED, /* about to be given to the protocol */
};

/* A key that was asked for. */
struct chp_host_open_load {
	uint32_t next;       /* in the list of free or queued ones */
	uint32_t before;     /* in that of queued ones */
	uint32_t generation; /* of the asking: answers to an earlier one are stale */
	uint8_t state;       /* enum chp_host_load_state */
	bool is_dropped;     /* asked, and nobody needs the answer: not asked again */
	uint8_t key_len;
	uint8_t key[CHP_KEY_BYTES_MAX];
};

enum chp_host_scan_state {
	CHP_SCAN_NONE = 0,
	CHP_SCAN_WANTED, /* to be asked */
	CHP_SCAN_ASKED,
	CHP_SCAN_FAILED, /* the channel was lost: the protocol will hear of it */
};

struct chp_host_open_scan {
	uint8_t state; /* enum chp_host_scan_state */
	uint8_t flags; /* enum chp_host_scan_flag */
	uint32_t bytes;
	uint32_t items; /* received of this part */
};

/* Where answers go in a call: the protocol's loaded(), scanned(), scan_end(). */
struct chp_host_sink {
	const struct chp_protocol *protocol;
	void *instance;
	const struct chp_now *now;
	struct chp_out *out;
	uint32_t kept;   /* replies that are promised to others than the host's messages */
};

struct chp_host {
	struct chp_backing backing; /* first: the protocol's calls come back with it */
	struct chp_host_config config;
	struct chp_host_counters counters;
	struct chp_log *log;
	struct chp_cache *cache;

	/* The channel. */
	struct chp_link link;
	uint8_t *at, *end;         /* of the link's open packet */
	bool is_linked;            /* welcomed, and heard of since */
	bool is_gone;              /* says the channel */
	bool has_lost;             /* the store holds less than it had reported durable */
	bool is_known;             /* it has been welcomed once */
	uint32_t number;           /* of the last HELLO */
	uint32_t number_floor;     /* answers to this and earlier ones are stale */
	uint64_t hello_ns, hello_wait_ns;
	uint64_t heard_ns;         /* when the host last spoke */
	uint64_t bad_ns;           /* since when it is away or cannot be used; 0 = it can */

	/* The store, as it says. */
	uint32_t store_flags, put_bytes, loads;
	uint32_t store_state;
	uint32_t refusal;          /* of the last answer */
	uint64_t epoch;            /* recorded */
	uint64_t newest, items, tombstones, errors;
	char name[CHP_HOST_TEXT_BYTES];
	char why[CHP_HOST_TEXT_BYTES]; /* of REFUSED, or of its state */

	/* Lives: the store's last one, the last one that we asked for, ours. 0 = none. */
	uint64_t stored_life, asked_life, life;
	uint64_t need_life;        /* an epoch: ours must be at least this, and of its generation */
	uint64_t lost_life;        /* ours must be above this: a store has forgotten it */
	bool in_view;
	uint64_t said_life;        /* asked for in this session of the link */

	/* Write-behind: log->mark <= sent <= ready <= log->next; [sent, ready) is the batch that is gathered. */
	uint64_t sent, ready;
	uint64_t first_ns;         /* when the first of it was ready to go; 0 = it is empty */
	uint32_t gathered_bytes;   /* before coalescing */
	uint32_t *note;            /* of the newest position of a key, by its slot: see is_replaced */
	uint32_t note_bits;        /* of a slot that say which */
	bool is_closed;            /* nothing is added any more: it goes as soon as there is room */
	bool is_more;              /* this run stopped before it had done what it could */
	bool has_gaps;             /* a volatile store did not get everything */
	uint32_t open_items, open_bytes; /* PUTs that no FLUSH has followed yet */
	bool has_saves;            /* some of them are of no log entry: chp_backing_save */
	uint64_t in_flight_bytes;  /* of the batches on their way and of the open PUTs */
	uint64_t last_seq;         /* of this life */
	uint64_t durable_seq;
	struct chp_host_sent batch[CHP_HOST_BATCHES_MAX]; /* ring, the oldest at first_batch */
	uint32_t first_batch, n_batches;

	/* RECORD. */
	uint64_t view_epoch;
	uint64_t record_at;        /* log position up to which everything must be durable; CHP_NEVER = not known yet */
	bool record_sent, is_recorded;
	bool counts_at_once;       /* see chp_host_view */

	/* Loads and scans. */
	struct chp_host_open_load *load;
	uint32_t load_bits;        /* of a token that are the index; the rest is the generation */
	uint32_t free_load;        /* first of a list; UINT32_MAX = none */
	uint32_t queued_first, queued_last;
	uint32_t n_loads, n_asked;
	struct chp_host_open_scan scan[CHP_SCANS];
	uint32_t n_scans_failed;
	struct chp_loaded loaded[CHP_BATCH_MAX];
	uint32_t n_loaded;
};

/** Without a configuration: a host that is not there, whose backing is not present. */
void chp_host_init_none(struct chp_host *h);

/** Allocate. Returns 0 or -ENOMEM; chp_host_fini in both cases. */
int chp_host_init(struct chp_host *h, const struct chp_host_config *config, struct chp_log *log,
		  struct chp_cache *cache, const struct chp_memory *memory);
void chp_host_fini(struct chp_host *h, const struct chp_memory *memory);

/** Bytes that chp_host_init takes. */
uint64_t chp_host_bytes(const struct chp_host_config *config);

/**
 * This replica is about to accept a first view of this epoch: its life must be at least that, durably, before it
 * does (SAFETY 34). Without effect once there is a view, and when the life is that already.
 */
void chp_host_found(struct chp_host *h, uint64_t epoch);

/**
 * A view begins; the protocol hears of it next.
 *
 * @param counts_at_once  not all is reconciled yet of what the stores held when this generation began: nobody records
 *                        anything before it is, and what is durable counts at once, because whoever begins cold again
 *                        reads a majority of the stores of those who began this generation (SAFETY 34)
 */
void chp_host_view(struct chp_host *h, uint64_t epoch, bool counts_at_once);

/** What the channel knows of the host: a process that ended is away at once, one that only hangs when it was silent. */
void chp_host_channel(struct chp_host *h, uint64_t now_ns, bool is_gone);

/** Take a packet that chp_host_check or chp_host_hello_check accepted. */
void chp_host_receive(struct chp_host *h, const struct chp_host_sink *to, const uint8_t *data, uint32_t len);

/** Deliver what waits: packets for which there was no room for replies, scans that failed. */
void chp_host_deliver_waiting(struct chp_host *h, const struct chp_host_sink *to);

/**
 * Look after the channel, send what is ready to go, move the log's mark where a volatile store needs it.
 *
 * @param copy_done  chp_protocol.copy_done, and the view has no sources: until all of them have reconciled what they
 *                   hold, no store has everything, and none is recorded to have it
 */
void chp_host_run(struct chp_host *h, uint64_t now_ns, bool copy_done);

/**
 * Write the next packet that must go now, HELLOs first.
 *
 * @param to  config.link.payload_bytes_max bytes
 * @return    bytes written, not sealed; 0 when nothing must go
 */
uint32_t chp_host_transmit(struct chp_host *h, uint64_t now_ns, uint8_t *to);

/** When chp_host_run is wanted without a new event; 0 = at once. */
uint64_t chp_host_wake_ns(const struct chp_host *h);

void chp_host_status(const struct chp_host *h, uint64_t now_ns, struct chp_host_status *out);

/** Name of a state for people. Static storage. */
const char *chp_host_state_name(enum chp_host_state_of_link state);

/** Whether nothing is unsaved, asked or on its way; true as well while the host is not READY. */
bool chp_host_is_idle(const struct chp_host *h);

/** Assert every invariant. Cold. */
void chp_host_verify(const struct chp_host *h);

#endif /* CHP_CORE_HOST_H */
