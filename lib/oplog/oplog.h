/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * oplog.h - the log manager of one shard: append, commit, compact (paper 5.2).
 *
 * Positions count from 1 and are this replica's own (SAFETY 36), unless its protocol makes them the same
 * everywhere. An entry is appended when a write is accepted; it may leave when it is committed and the durability
 * mark has passed it, and stays longer where chp_log_keep says so. Without a host the mark follows the commit.
 * Entries of one key may be chained, newest first, so that a version that becomes Valid commits the older ones
 * it replaces.
 *
 * Owner: one lcore; not thread-safe. Nothing allocates after chp_log_init.
 */
#ifndef CHP_OPLOG_OPLOG_H
#define CHP_OPLOG_OPLOG_H

#include "base/assert.h"
#include "base/blocks.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define CHP_LOG_NONE 0u
#define CHP_LOG_INLINE 64u

enum chp_log_flag {
	CHP_LOG_COMMITTED = 1u << 0,  /* its version, or a newer one of its key, is Valid */
	CHP_LOG_OPEN = 1u << 1,       /* a coordinator's own operation still needs it (SAFETY 8) */
	CHP_LOG_EXTERNAL = 1u << 2,   /* key and value are in blocks */
};

/* One log entry: 128 bytes. */
struct chp_log_entry {
	uint64_t version;
	uint64_t base;
	uint64_t session;  /* (session, request) of the client's write, 0 = none */
	uint64_t request;
	uint64_t number;   /* the client's numeric result */
	uint64_t older;    /* position of the key's previous uncommitted entry, or CHP_LOG_NONE */
	uint32_t slot;     /* index of the key's slot in the data cache */
	uint32_t value_len;
	uint32_t block;    /* with CHP_LOG_EXTERNAL */
	uint8_t key_len;       /* 0: the entry is about no key */
	uint8_t flags;         /* enum chp_log_flag */
	uint8_t version_flags; /* what the version is, in the protocol's own bits */
	uint8_t status;        /* how the client's operation ended, where the log decides that; else 0 */
	uint8_t data[CHP_LOG_INLINE];
};

_Static_assert(sizeof(struct chp_log_entry) == 2 * CHP_CACHE_LINE, "two lines");

struct chp_log {
	struct chp_log_entry *entry; /* ring: position p is entry[p & mask] */
	struct chp_blocks blocks;
	uint64_t head;               /* oldest position kept */
	uint64_t next;               /* position of the next append */
	uint64_t mark;               /* every position below is durable; may be compacted if committed */
	uint64_t unsettled;          /* entries not committed or still open */
	uint64_t base_epoch;         /* field `base` of the entry just before head; 0 = there was none */
	uint32_t keep_entries, keep_blocks; /* see chp_log_keep */
	uint32_t mask;
	bool mark_follows_commit;    /* no host: the durability mark is the commit */
};

/**
 * Allocate a log.
 *
 * @param entries  power of two
 * @return         0 or -ENOMEM
 */
int chp_log_init(struct chp_log *l, uint32_t entries, uint32_t blocks, bool mark_follows_commit,
		 const struct chp_memory *memory);
void chp_log_fini(struct chp_log *l, const struct chp_memory *memory);

/** Entries that can be appended now. */
static inline uint32_t
chp_log_room(const struct chp_log *l)
{
	return l->mask + 1 - (uint32_t)(l->next - l->head);
}

/** Entries that are not committed or still open. */
static inline uint64_t
chp_log_unsettled(const struct chp_log *l)
{
	return l->unsettled;
}

/**
 * Largest records that can be appended now: entries and blocks both bound it. What is granted to peers
 * as credits is counted in these.
 */
uint32_t chp_log_room_records(const struct chp_log *l);

/** Largest records that can be appended before it is fuller than this many percent; 0 when it is. */
uint32_t chp_log_room_until(const struct chp_log *l, uint32_t percent);

/** How full it is: of entries or blocks, whatever is fuller, in millionths. */
uint32_t chp_log_fill_ppm(const struct chp_log *l);

/**
 * Append an entry; the caller fills `e` but for older, block, flags and data, and has checked the room
 * (asserted).
 *
 * @param older  position of the key's newest uncommitted entry, or CHP_LOG_NONE
 * @param open   a coordinator's own operation: stays until chp_log_close
 * @return       its position
 */
uint64_t chp_log_append(struct chp_log *l, const struct chp_log_entry *e, const uint8_t *key,
			const uint8_t *value, uint64_t older, bool open);

/** Entry at a position that is still in the log (asserted). */
static inline struct chp_log_entry *
chp_log_at(const struct chp_log *l, uint64_t pos)
{
	CHP_ASSERT_OP(pos, >=, l->head);
	CHP_ASSERT_OP(pos, <, l->next);
	return &l->entry[pos & l->mask];
}

/** Copy an entry's key or value out. */
void chp_log_key(const struct chp_log *l, const struct chp_log_entry *e, uint8_t *to);
void chp_log_value(const struct chp_log *l, const struct chp_log_entry *e, uint8_t *to);

/**
 * Copy an entry's key and, right behind it, its value out, and zeros up to a multiple of 8 bytes.
 *
 * Shape: what is short, as most is, moves in words, without a call for each part of it.
 */
static inline void
chp_log_record(const struct chp_log *l, const struct chp_log_entry *e, uint8_t *to)
{
	const uint32_t len = e->key_len + e->value_len, words = len / 8, rest = len % 8;
	uint64_t word = 0;

	if ((e->flags & CHP_LOG_EXTERNAL) != 0) {
		memcpy(to + (size_t)words * 8, &word, rest > 0 ? 8 : 0);
		chp_blocks_get(&l->blocks, e->block, 0, to, len);
		return;
	}
	for (uint32_t i = 0; i < words; i++) {
		memcpy(&word, e->data + (size_t)i * 8, 8);
		memcpy(to + (size_t)i * 8, &word, 8);
	}
	if (rest == 0)
		return;
	memcpy(&word, e->data + (size_t)words * 8, 8);
	word &= (UINT64_C(1) << 8 * rest) - 1;
	memcpy(to + (size_t)words * 8, &word, 8);
}

/** Commit the entry at pos and the older uncommitted ones of its key. CHP_LOG_NONE does nothing. */
void chp_log_commit(struct chp_log *l, uint64_t pos);

/** The operation that held the entry at pos open is done with it. */
void chp_log_close(struct chp_log *l, uint64_t pos);

/** The host reports every position below `mark` durable. Never moves back. */
void chp_log_set_mark(struct chp_log *l, uint64_t mark);

/**
 * What is committed stays as long as it is among the newest `entries` and all entries together use at most
 * `blocks` blocks. 0, 0 at first: compaction drops all that it may.
 */
void chp_log_keep(struct chp_log *l, uint32_t entries, uint32_t blocks);

/** Drop the entries from position `next` on; none of them is committed, next >= head (asserted). */
void chp_log_truncate(struct chp_log *l, uint64_t next);

/**
 * Drop everything; the next append gets position `next`.
 *
 * @param base  base_epoch: field `base` of the entry that would be just before it
 */
void chp_log_restart(struct chp_log *l, uint64_t next, uint64_t base);

/**
 * Drop the committed, durable, closed prefix, but for what is kept.
 *
 * @param max  entries to look at, so that one call is bounded
 * @return     entries dropped
 */
uint32_t chp_log_compact(struct chp_log *l, uint32_t max);

/** Assert every invariant; O(entries). */
void chp_log_check(const struct chp_log *l);

#endif /* CHP_OPLOG_OPLOG_H */
