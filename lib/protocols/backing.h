/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * backing.h - the datastore behind the data cache, as a protocol sees it (paper 5.2: fast path, slow path).
 *
 * The cache holds a part of the data. What is not in it may be in this replica's own datastore, which the host
 * keeps. What the log has committed is written behind by the core, without the protocol; the log's mark says how
 * far it is durable. The protocol asks for keys that are not in the cache, and may drop what is durable from it
 * (chp_backing_is_clean).
 *
 * A store keeps for every key its newest version and the *life* in which this replica stored it. A life begins when
 * this process enters its first view. What an earlier life has left is told apart (is_old):
 *   - in a learner it counts for nothing: only what this life has stored is the cluster's (SAFETY 35);
 *   - at a cold start it is a candidate: the newest of all hosts is the key's version (SAFETY 34).
 *
 * Owner: the shard's lcore. The functions are the core's (core/host.c), or a test's.
 */
#ifndef CHP_PROTOCOLS_BACKING_H
#define CHP_PROTOCOLS_BACKING_H

#include "cache/cache.h"
#include "oplog/oplog.h"

#include <stdbool.h>
#include <stdint.h>

/* What a store has of a key. */
enum chp_load_status {
	CHP_LOAD_FOUND = 0,
	CHP_LOAD_TOMBSTONE = 1, /* deleted, at `version` */
	CHP_LOAD_ABSENT = 2,    /* never stored here */
	CHP_LOAD_FAILED = 3,    /* the store cannot read it now: nothing is known */
};

/* The answer to a load; key and value die when the call returns. */
struct chp_loaded {
	uint32_t token;  /* that chp_backing_load gave */
	uint8_t status;  /* enum chp_load_status */
	bool is_old;     /* stored in an earlier life */
	uint8_t version_flags;
	uint16_t generation; /* of the cluster, when it was stored */
	uint64_t version;
	const uint8_t *value;
	uint32_t value_len;
};

/* An item of a scan; key and value die when the call returns. */
struct chp_stored {
	const uint8_t *key;
	const uint8_t *value;
	uint64_t version;
	uint32_t value_len;
	uint8_t key_len;
	uint8_t version_flags; /* CHP_SLOT_RMW, CHP_SLOT_TOMBSTONE */
	bool is_old;
};

struct chp_backing {
	bool is_present;  /* this cluster has hosts; constant. False: everything is in the cache, the rest is unused */
	bool is_durable;  /* level `datastore` (SAFETY 33): constant */
	bool is_ready;    /* the store answers and this life has begun there; falls and rises with the channel */
	bool has_begun;   /* this life has begun there, however the channel is now: newest is known */
	bool may_evict;   /* the store keeps what it was given (SAFETY 31); false until it has said so */
	bool has_lost;    /* it holds less than it had reported durable (SAFETY 29); until chp_backing_restart */
	/* The view up to which the store had everything when this life began; see RECORD in wire/host.h. */
	uint64_t recorded;
	uint64_t newest;  /* counter of the newest version that the store held when this life began (SAFETY 4) */
	/*
	 * Every log position below is durable in this replica's store, which has recorded that it has everything from
	 * before the present view, or cannot while the view has sources. Moves at most up to the log's mark; starts
	 * over at each view. For level `datastore`.
	 */
	uint64_t durable;
	/* For chp_backing_save: up to this number all is durable, unless `losses` has risen since it was given out. */
	uint64_t saved;
	uint32_t losses;

	/* The functions behind those below. */
	bool (*load)(struct chp_backing *b, const struct chp_key *key, uint32_t *token);
	void (*drop_load)(struct chp_backing *b, uint32_t token);
	bool (*scan)(struct chp_backing *b, uint32_t scan, bool from_start, bool only_old, uint32_t bytes);
	bool (*save)(struct chp_backing *b, const struct chp_slot *s, uint64_t *number);
	void (*restart)(struct chp_backing *b, uint64_t now_ns, bool new_life);
};

/**
 * Ask the store for a key. Answered once, by the protocol's loaded(), whatever happens to the channel meanwhile;
 * while the store is away, later; unless it is dropped. The key is copied.
 *
 * @param token  set to a number that is in use by no other open load, below the configuration's loads_max
 * @return       false when too many loads are open
 */
static inline bool
chp_backing_load(struct chp_backing *b, const struct chp_key *key, uint32_t *token)
{
	return b->load(b, key, token);
}

/**
 * The answer to an open load is not needed any more. What was not asked yet will not be, so that those who wait for a
 * host that is away do not run out of tokens; what was asked is answered as ever, or ends with the channel, unheard.
 */
static inline void
chp_backing_drop_load(struct chp_backing *b, uint32_t token)
{
	b->drop_load(b, token);
}

/* Scans that may run at the same time: one for each learner, by node id, and one of the replica's own. */
#define CHP_SCAN_OWN CHP_NODES_MAX
#define CHP_SCANS (CHP_NODES_MAX + 1u)

/**
 * Ask for the next part of everything that the store holds, in the store's own order: items with scanned(), then one
 * scan_end(). What is stored while a scan runs may or may not come. If the channel is lost meanwhile, scan_end() says
 * failed, and the scan must begin from the start.
 *
 * @param from_start  begin anew; otherwise behind the last part
 * @param only_old    items of earlier lives only; otherwise of this life only
 * @param bytes       of items at most, if more than one
 * @return            false when this scan's last part is still on its way, or the store is not ready
 */
static inline bool
chp_backing_scan(struct chp_backing *b, uint32_t scan, bool from_start, bool only_old, uint32_t bytes)
{
	return b->scan(b, scan, from_start, only_old, bytes);
}

/**
 * Have the store take what is in a slot and in no entry of the log: a key that was copied. Behind what was sent before,
 * and durable when b->saved reaches *number. When b->losses rises before that, it must be saved again.
 *
 * @return  false when it cannot go now: the store is not ready, or has enough to do
 */
static inline bool
chp_backing_save(struct chp_backing *b, const struct chp_slot *s, uint64_t *number)
{
	return b->save(b, s, number);
}

/**
 * The log was begun anew (chp_log_restart): nothing of it is on its way to the store.
 *
 * @param new_life  all that the store has counts as left by an earlier life from now on: the state is copied anew.
 *                  The store is not ready until that has begun there
 */
static inline void
chp_backing_restart(struct chp_backing *b, uint64_t now_ns, bool new_life)
{
	b->restart(b, now_ns, new_life);
}

/** Whether the log entry at `pos`, the newest of its slot, is durable. `low`: its lowest 32 bits, kept in the slot. */
static inline bool
chp_backing_is_clean(const struct chp_log *log, uint32_t low)
{
	/*
	 * A log is shorter than 2^32: an entry that is still there is exactly this far behind its end. One that left
	 * long ago may look as if it were there: the slot then stays a while longer.
	 */
	return (uint32_t)log->next - low > (uint32_t)(log->next - log->mark);
}

#endif /* CHP_PROTOCOLS_BACKING_H */
