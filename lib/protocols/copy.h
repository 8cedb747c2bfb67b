/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * copy.h - brings a learner up to date in the background: keys, deleted ones included, and the records of
 * sessions (SAFETY 9). A protocol that needs it has a struct chp_copy and calls it. There are two ways:
 *
 * - Every write needs the acknowledgement of every live member, the learner too (Hermes): views say who copies from
 *   whom, in chp_copy_view, and the copy is complete by itself.
 * - A log has all writes (by_log): the protocol says who copies from whom, with chp_copy_begin, chp_copy_stop and
 *   chp_copy_serve_to. Keys and records are copied while they change; the learner then needs the log from where it
 *   was when its copy began, and applies of it what is newer than what it copied.
 *
 * The learner pulls: it asks one live voter, its source, for one chunk after the other, until the source says
 * DONE. What it has already, or has in a newer version, it skips, so a chunk may come twice and a change of the
 * source only costs time. A source looks through its cache slot by slot, then through its session table; writes
 * go on meanwhile.
 *
 * Why the first kind is complete when it is DONE. A key that is readable at the source (Valid) is sent. A key that is
 * not has a write in flight, and the version before it, which may be the newest committed one, is not there
 * any more. The learner must not become a voter that knows neither, so the source waits at such a key
 * until it is Valid again: then the learner has acknowledged the write, or gets it now. A key that is written
 * all the time is never met Valid; there it is enough that the protocol knows a version to be committed that came
 * while the source waited (CHP_COPY_SKIP). And a write may need the learner's datastore to have all before it can
 * be committed: there it is enough that the learner has adopted it, as the source has, since a version that a live
 * member has is never given up for an older one (CHP_COPY_NAME). All that is committed after the source has passed
 * the key needed the acknowledgement of the learner.
 *
 * With a datastore behind the cache (backing.h) the source looks through that last. What it met in the cache was sent;
 * what was not there was in the store then, and still is: only what is durable leaves the cache. A key of the
 * store that is in the cache is sent as the cache has it. What was written since the copy began the learner has
 * acknowledged. The learner takes items as committed versions, into its cache, log and so into its own store.
 *
 * Calls: chp_copy_link_* in the protocol's functions of these names; chp_copy_receive for
 * every message with chp_copy_is() (accepted by chp_copy_check, key by chp_copy_key_of); chp_copy_serve and
 * chp_copy_ask once in each run of the shard, after messages and operations.
 *
 * Owner: one lcore. No memory but the struct and what the configuration names; all outlive it. Bounded work
 * per call: CHP_COPY_LOOKS_MAX and the bulk_bytes of the lanes.
 */
#ifndef CHP_PROTOCOLS_COPY_H
#define CHP_PROTOCOLS_COPY_H

#include "protocols/protocol.h"
#include "wire/copy.h"

/* Places in cache and session table that one chp_copy_serve looks at: some microseconds. */
#define CHP_COPY_LOOKS_MAX 512u
/* A learner that had no room, or got a chunk that was not what its END says, waits this long. */
#define CHP_COPY_PAUSE_NS UINT64_C(20000000)

/* One part of a scan of the store, for one learner: more is not waited for at a time. At least the largest ITEM. */
#define CHP_COPY_PART_BYTES 8192u

/* What a source does with a key. */
enum chp_copy_verdict {
	CHP_COPY_SEND, /* readable: send it */
	CHP_COPY_WAIT, /* a write is in flight: ask again in the next run */
	CHP_COPY_SKIP, /* the learner has this key, in some version that came since the first question */
	CHP_COPY_NAME, /* the write in flight may wait for this copy: the learner says whether it has it */
};

#define CHP_COPY_COUNTERS(X)                                                                \
	X(items_sent, "keys sent to learners")                                              \
	X(items_received, "keys received as a learner")                                     \
	X(items_skipped, "keys not sent because the learner had acknowledged newer versions") \
	X(items_named, "keys not sent because writes were under way that the learner should have") \
	X(records_sent, "session records sent to learners")                                 \
	X(records_received, "session records received as a learner")                        \
	X(chunks_sent, "chunks completed for learners")                                     \
	X(chunks_received, "chunks received complete as a learner")                         \
	X(chunks_bad, "chunks that were not what their END says, asked for again")          \
	X(bytes_sent, "bytes of copies sent")                                               \
	X(bytes_received, "bytes of copies received")                                       \
	X(requests, "chunks asked for as a learner")                                        \
	X(waits, "runs in which a source waited for a key to become readable")              \
	X(no_room, "chunks broken off as a learner for want of room or a write, asked for again") \
	X(restarts, "copies begun anew from another source")                                \
	X(refused, "requests of nodes that are no learners, or for places that there are not") \
	X(stored_sent, "keys sent to learners that were in the datastore only")             \
	X(rescans, "times a datastore was looked through again for a learner")              \
	X(stale, "messages of a transfer that is over")

struct chp_copy_counters {
#define CHP_COPY_COUNTER_FIELD(name, help) uint64_t name;
	CHP_COPY_COUNTERS(CHP_COPY_COUNTER_FIELD)
#undef CHP_COPY_COUNTER_FIELD
};

struct chp_copy_config {
	struct chp_cache *cache;
	struct chp_sessions *sessions;
	struct chp_copy_counters *counters;
	void *protocol; /* the first argument of look and apply */
	/*
	 * What to do with a key. `seen` is the version that the slot had when this transfer first came to it, 0 the
	 * first time. SKIP only if a version above `seen` is certainly committed: it arrived in this view, so its
	 * commit needed the learner's acknowledgement in this view.
	 */
	enum chp_copy_verdict (*look)(void *protocol, const struct chp_slot *s, uint64_t seen);
	/*
	 * Take an ITEM: a version that was Valid at the source, with flags and base in struct chp_copy_item. Not
	 * newer than what is there: nothing. False when there is no room: the chunk is asked for again later. With
	 * CHP_COPY_UNDER_WAY nothing is taken: false when neither that version nor a newer one is here. Not by log.
	 */
	bool (*apply)(void *protocol, const struct chp_peer_message *m, struct chp_out *out);
	/* The datastore behind the cache, or NULL; and for each node CHP_COPY_PART_BYTES to hold a part of its scan. */
	struct chp_backing *backing;
	uint8_t *parts;
	/* With a datastore: whether all that it holds of this life is the cluster's; until then the copy waits. */
	bool (*may_scan)(void *protocol);
	uint32_t self;
	uint32_t n_nodes;
	uint32_t chunk_bytes; /* to ask for at a time */
	bool by_log;          /* records are what a log decided, whatever their status */
};

/* The part of the store that is being sent to one peer: ITEMs, in order, as they will be sent. */
struct chp_copy_part {
	uint64_t first;   /* cursor of the first of them */
	uint32_t n;       /* ITEMs in it */
	uint32_t bytes;
	uint32_t at;      /* the next to send, counted from the first */
	uint32_t at_byte;
	bool is_begun;    /* the scan has a place in the store to go on from */
	bool is_asked;    /* the next part is on its way */
	bool is_last;     /* nothing follows it */
	bool is_stale;    /* what is on its way is of no use any more: the learner began anew */
};

/* A chunk that we send to one peer. */
struct chp_copy_serving {
	uint64_t from;   /* where it began */
	uint64_t cursor; /* the place to look at next */
	uint64_t seen;   /* version of the slot there when we first waited for it; 0 = not yet */
	uint64_t digest;
	uint32_t transfer;
	uint32_t bytes_left;
	uint32_t items;
};

struct chp_copy {
	struct chp_copy_config config;
	uint64_t incarnation; /* our own in the view: with another one everything begins anew */
	bool is_done;

	/* As a source. */
	struct chp_copy_serving serving[CHP_NODES_MAX];
	struct chp_copy_part part[CHP_NODES_MAX];
	uint64_t learners;    /* who may ask us: of the view, none if we are no voter; or chp_copy_serve_to's */
	uint64_t asked;       /* of those, who wait for a chunk */
	uint32_t first;       /* who is served first: changes, so that none starves */

	/* As a learner. */
	uint32_t source;      /* node id, CHP_NODES_MAX: none yet */
	uint32_t transfer;    /* of the last REQUEST */
	uint64_t source_incarnation;
	uint64_t cursor;      /* in the source's numbering: everything before it is here */
	uint64_t total;       /* where the copy is complete; 0 = not known yet */
	uint64_t digest;      /* of the chunk so far */
	uint64_t pause_until_ns;
	uint32_t ask_bytes;   /* for the next chunk: halves when there was no room for one, so that each ends */
	uint64_t items_copied, bytes_copied, restarts;
	uint32_t items;       /* of the chunk so far */
	bool is_learning;     /* we copy and are not done */
	bool is_open;         /* the last REQUEST has no END yet */
};

void chp_copy_init(struct chp_copy *c, const struct chp_copy_config *config);

/** This node drops its state: whatever was copied counts for nothing. Its next view begins a new copy. */
void chp_copy_reset(struct chp_copy *c);

/**
 * The new view is in force, everything in flight is lost. An own incarnation that is not that of the last view
 * counts as chp_copy_reset. A learner goes on where it was if its source is still a
 * voter of the same incarnation; otherwise it begins anew at the next voter after it in cyclic order of ids.
 */
void chp_copy_view(struct chp_copy *c, const struct chp_view *v);

/** By log: the peers, as a mask, that may copy from this node. Chunks for others are broken off. */
void chp_copy_serve_to(struct chp_copy *c, uint64_t peers);

/** By log: this node copies everything from a source, from the beginning; whatever it copied before is void. */
void chp_copy_begin(struct chp_copy *c, uint32_t source);

/** By log: this node copies nothing any more, and chp_copy_is_done says no. What a copy brought stays. */
void chp_copy_stop(struct chp_copy *c);

/** The link to a peer was reset: what was under way on it is lost. A learner asks again when it is up. */
void chp_copy_link_down(struct chp_copy *c, uint32_t peer);
void chp_copy_link_up(struct chp_copy *c, uint32_t peer);

/** The key of an ITEM, as struct chp_protocol's key_of; false for the other messages. */
bool chp_copy_key_of(const struct chp_message *m, struct chp_key *key);

/**
 * A message with chp_copy_is(), accepted by chp_copy_check. May call apply. Sessions that were only guessed from
 * a record (sessions.h) stay: the protocol drops them when it is complete.
 */
void chp_copy_receive(struct chp_copy *c, const struct chp_now *now, const struct chp_peer_message *m,
		      struct chp_out *out);

/**
 * As a source: send what was asked for, within the bulk_bytes of each lane, which are used up. A lane whose link
 * is idle must have at least CHP_COPY_MESSAGE_BYTES_MAX of them, or nothing would ever be sent.
 *
 * Asks for another run at once when there is more to look at. Where bulk_bytes ended it, it does not: the
 * acknowledgements that make new ones cause a run.
 */
void chp_copy_serve(struct chp_copy *c, const struct chp_now *now, struct chp_out *out);

/** As a source: an item of the scan for `learner`, and the end of a part of it: struct chp_protocol's functions. */
void chp_copy_scanned(struct chp_copy *c, uint32_t learner, const struct chp_stored *item);
void chp_copy_scan_end(struct chp_copy *c, uint32_t learner, bool end, bool failed);

/** As a learner: ask for the next chunk if none is on its way. Needs no credit. */
void chp_copy_ask(struct chp_copy *c, const struct chp_now *now, struct chp_out *out);

/** Whether this node has everything: a complete copy, or it was a voter. True until it loses its state. */
bool chp_copy_is_done(const struct chp_copy *c);

void chp_copy_progress(const struct chp_copy *c, struct chp_copy_progress *out);

/** Assert all invariants. */
void chp_copy_verify(const struct chp_copy *c);

#endif /* CHP_PROTOCOLS_COPY_H */
