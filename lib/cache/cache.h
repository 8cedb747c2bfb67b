/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cache.h - the data cache of one shard: keys, versions and values in the DPU's memory (paper 5.2).
 *
 * A key has a 64-byte slot. Key and value live in it when they fit in 40 bytes together, otherwise in a
 * chain of blocks. Slots never move. The full key is always compared, digests only find candidates.
 *
 * Room. `keys_max` and `value_blocks_max` bound what a coordinator admits. Behind them is headroom for
 * what peers may have begun at the same time, so that a peer's message is never refused
 * (docs/architecture.md, "Room"). With a datastore behind it the cache holds a part of the data: chp_cache_victim
 * finds what may leave. A slot of version 0 then says that the datastore does not have the key.
 *
 * Owner: one lcore; not thread-safe. Nothing allocates after chp_cache_create.
 */
#ifndef CHP_CACHE_CACHE_H
#define CHP_CACHE_CACHE_H

#include "base/blocks.h"
#include "base/digest.h"
#include "base/limits.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHP_SLOT_INLINE 40u
#define CHP_SLOT_NO_BUSY UINT32_MAX

enum chp_slot_flag {
	/* Properties of the version; the same bits as enum chp_inv_flag. */
	CHP_SLOT_RMW = 1u << 0,
	CHP_SLOT_TOMBSTONE = 1u << 1,
	CHP_SLOT_SESSION = 1u << 2,      /* the key is a session number, not a client's key */
	CHP_SLOT_BASE_UNKNOWN = 1u << 3,
	/* Properties of the slot. */
	CHP_SLOT_USED = 1u << 4,
	CHP_SLOT_EXTERNAL = 1u << 5,     /* key and value are in blocks */
	CHP_SLOT_FORGET = 1u << 6,       /* of the version: a tombstone that every replica may forget */
	CHP_SLOT_COLLIDED = 1u << 7,     /* another key has this digest: never leaves the cache */
	CHP_SLOT_BASE_ABSENT = 1u << 8,  /* the version was issued on an absent key */
	CHP_SLOT_REFERENCED = 1u << 9,   /* used since the clock last passed here */
};
#define CHP_SLOT_VERSION_FLAGS                                                                    \
	(CHP_SLOT_RMW | CHP_SLOT_TOMBSTONE | CHP_SLOT_SESSION | CHP_SLOT_BASE_UNKNOWN | CHP_SLOT_FORGET)

struct chp_slot {
	uint64_t version;     /* 48-bit counter | 16-bit writer; monotone for ever */
	uint32_t busy;        /* the protocol's record while it has one, or CHP_SLOT_NO_BUSY */
	uint32_t log_low;     /* lowest 32 bits of the newest log position of the key, see chp_backing_is_clean */
	uint16_t value_len;
	uint16_t base_writer; /* with the flags: the version this one was issued on */
	uint16_t flags;       /* enum chp_slot_flag */
	uint8_t state;        /* the protocol's; 0 is "at rest, readable" in every protocol */
	uint8_t key_len;
	uint8_t data[CHP_SLOT_INLINE]; /* key and value, or a u32 block index */
};

_Static_assert(sizeof(struct chp_slot) == CHP_CACHE_LINE, "one line");
_Static_assert(CHP_VALUE_BYTES_MAX <= UINT16_MAX, "value_len");

/* The version parts (SAFETY 1). */
#define CHP_WRITER_BITS 16u

static inline uint64_t
chp_version_make(uint64_t counter, uint16_t writer)
{
	return counter << CHP_WRITER_BITS | writer;
}

static inline uint64_t
chp_version_counter(uint64_t version)
{
	return version >> CHP_WRITER_BITS;
}

struct chp_cache_config {
	const char *name;          /* unique in the process, at most 20 characters */
	uint32_t keys_max;         /* admitted */
	uint32_t value_blocks_max; /* admitted */
	uint32_t headroom;         /* operations that peers and we may have in flight together */
	uint64_t seed;             /* of digests */
	const struct chp_memory *memory;
};

struct chp_cache_stats {
	uint64_t keys;       /* slots in use */
	uint64_t tombstones; /* of those, deleted keys */
	uint64_t sessions;   /* of those, session numbers */
	uint64_t blocks;     /* value blocks in use */
	uint64_t collisions; /* digests met that another key holds */
	uint64_t evictions;  /* keys that chp_cache_victim chose */
	uint64_t pinned;     /* slots that the clock met in its last turn and that could not leave */
};

/* A key as the cache wants it: bytes, digest and where the bulk look-up found the digest. */
struct chp_key {
	const uint8_t *bytes;
	uint32_t len;
	bool session;             /* a session number: its own name space */
	int32_t pos;              /* from chp_cache_find_bulk; -1 when not found or not asked */
	struct chp_digest digest; /* from chp_cache_digest */
};

struct chp_cache;

/** Create a cache. NULL with *err set to -ENOMEM or -EINVAL (limits.h). */
struct chp_cache *chp_cache_create(const struct chp_cache_config *config, int *err);

/** Accepts NULL. */
void chp_cache_destroy(struct chp_cache *c);

/** Bytes of memory that a cache of this configuration takes, the index included (estimated). */
size_t chp_cache_bytes(const struct chp_cache_config *config);

/** The digest of a key's bytes in its name space. */
struct chp_digest chp_cache_digest(const struct chp_cache *c, const uint8_t *bytes, uint32_t len,
				   bool session);

/**
 * Look up n keys at once, n at most CHP_BATCH_MAX, and prefetch their slots. Sets pos of each.
 *
 * Shape: two cache lines a key in the index, overlapped over the batch.
 */
void chp_cache_find_bulk(const struct chp_cache *c, struct chp_key *const *keys, uint32_t n);

/**
 * The slot of a key, NULL if absent. Follows key->pos; looks up again where that is not the key's place, as an
 * earlier message of the batch may have inserted it, or removed it.
 *
 * Owns: the slot is valid until the key leaves the cache; its address never changes.
 */
struct chp_slot *chp_cache_find(struct chp_cache *c, const struct chp_key *key);

/** Whether a coordinator may admit a new key (is_new) or a new value of this key. */
bool chp_cache_admits(const struct chp_cache *c, uint32_t key_len, uint32_t value_len, bool is_new);

/**
 * New keys with the largest record that surely fit now, headroom included. What is granted to peers is bounded
 * by it: replicas forget deleted keys at different times, so one may hold more keys than another admits.
 */
uint32_t chp_cache_room(const struct chp_cache *c);

/** Whether more keys are held than a coordinator admits. */
bool chp_cache_is_over(const struct chp_cache *c);

/** Whether it is time to evict: few keys or blocks are left of what a coordinator admits. */
bool chp_cache_is_tight(const struct chp_cache *c);

/**
 * Add an absent key with version 0, no value, state 0.
 *
 * @return  its slot. There is room as long as admission and credits were obeyed (asserted).
 */
struct chp_slot *chp_cache_insert(struct chp_cache *c, const struct chp_key *key);

/** Replace the value of a slot and its version flags (CHP_SLOT_VERSION_FLAGS). */
void chp_cache_set(struct chp_cache *c, struct chp_slot *s, const uint8_t *value, uint32_t len,
		   uint8_t version_flags);

/**
 * Take a key out of the cache: a tombstone that every replica may forget (SAFETY 6).
 *
 * @return  false when it must stay because another key's digest leads over it
 */
bool chp_cache_remove(struct chp_cache *c, struct chp_slot *s);

/** Slots that hold deleted keys; of those, session numbers. */
uint32_t chp_cache_tombstones(const struct chp_cache *c);
uint32_t chp_cache_session_tombstones(const struct chp_cache *c);

/** Slots that hold session numbers. */
uint32_t chp_cache_sessions(const struct chp_cache *c);

/** The slot was used: the clock passes it by once more. */
static inline void
chp_cache_touch(struct chp_slot *s)
{
	/* Written only where it changes: most reads are of what was used just before. */
	if ((s->flags & CHP_SLOT_REFERENCED) == 0)
		s->flags |= CHP_SLOT_REFERENCED;
}

/**
 * Find a slot to evict: CLOCK, a second chance for what was used since the hand last passed, unless everything was.
 * Session numbers, slots that the protocol has a record for and those whose digest another key shares never leave.
 *
 * @param looks  slots to look at, at most
 * @param may    whether this slot may leave: at rest and durable
 * @return       NULL if none was found; otherwise the caller removes it (chp_cache_remove)
 */
struct chp_slot *chp_cache_victim(struct chp_cache *c, uint32_t looks,
				  bool (*may)(const void *arg, const struct chp_slot *s), const void *arg);

/**
 * Whether it is time to evict, and no slot can leave: the clock has gone round since chp_cache_victim found one. What
 * is not saved, or is used by operations under way, has taken all room for new keys.
 */
bool chp_cache_is_stuck(const struct chp_cache *c);

/** Copy key or value out: the buffers hold key_len and value_len bytes. */
void chp_cache_key(const struct chp_cache *c, const struct chp_slot *s, uint8_t *to);
void chp_cache_value(const struct chp_cache *c, const struct chp_slot *s, uint8_t *to);

/** Bring a slot's line near, by index; the slot need not be in use. */
void chp_cache_prefetch(const struct chp_cache *c, uint32_t index);

/** Have the records of n keys fetched that chp_cache_find_bulk has looked up: what a new value replaces. */
void chp_cache_prefetch_records(const struct chp_cache *c, struct chp_key *const *keys, uint32_t n);

/** Slot by index 0..chp_cache_slots()-1; NULL where none is in use. */
struct chp_slot *chp_cache_slot(struct chp_cache *c, uint32_t index);
uint32_t chp_cache_slots(const struct chp_cache *c);

/** Index of a slot, stable while its key is in the cache. */
uint32_t chp_cache_slot_index(const struct chp_cache *c, const struct chp_slot *s);

void chp_cache_stats(const struct chp_cache *c, struct chp_cache_stats *out);

/**
 * Order-independent digest of every key, version and value: equal caches, equal digests. What may be
 * forgotten counts as absent. Cold.
 */
uint64_t chp_cache_state_digest(const struct chp_cache *c);

/** Assert every invariant; O(slots). */
void chp_cache_check(const struct chp_cache *c);

#endif /* CHP_CACHE_CACHE_H */
