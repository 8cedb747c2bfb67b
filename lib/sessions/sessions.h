/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sessions.h - what a shard remembers of its clients, so that a retry never applies twice (SAFETY 24).
 *
 * A session has a number that is never reused and a window of W records, one for each request that the
 * client may still ask about. A record is status, number and version, never a value. Cache pressure
 * never removes one. Sessions are opened and closed by replicated writes; this table is what those writes
 * and the INVs of clients' writes leave behind on every replica.
 *
 * Owner: one lcore; not thread-safe. Nothing allocates after chp_sessions_init.
 */
#ifndef CHP_SESSIONS_SESSIONS_H
#define CHP_SESSIONS_SESSIONS_H

#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>

enum chp_record_state {
	CHP_RECORD_EMPTY = 0,
	CHP_RECORD_PENDING = 1, /* this replica executes it: a retry waits for that answer */
	CHP_RECORD_SEEN = 2,    /* a peer executes or executed it: version says with what write */
	CHP_RECORD_DONE = 3,    /* answered, or decided by a log, with status, version, number */
};

/* What became of a read-modify-write that a peer sent (SAFETY 7); a plain write is never aborted. */
enum chp_record_fate {
	CHP_FATE_OPEN = 0,      /* its key is not Valid yet */
	CHP_FATE_COMMITTED = 1,
	CHP_FATE_ABORTED = 2,   /* overtaken before it was Valid anywhere: it may be executed again */
	CHP_FATE_UNKNOWN = 3,   /* overtaken, and nothing says which */
};

struct chp_record {
	uint64_t request;
	uint64_t version;  /* of the last try that was sent to the replicas; 0 = none was seen here */
	uint64_t number;
	uint8_t state;     /* enum chp_record_state */
	uint8_t status;    /* enum chp_status */
	uint8_t rmw;       /* the write is a read-modify-write */
	uint8_t fate;      /* enum chp_record_fate, of a read-modify-write in state SEEN */
	uint8_t is_asked;  /* state SEEN: a retry waits here for its key to become Valid */
	uint8_t reserved[3];
};

struct chp_session {
	uint64_t id;      /* 0: not in use */
	uint64_t lowest;  /* the client's lowest unanswered request */
	uint64_t used_ns; /* last request executed here */
	uint32_t next;    /* free list */
	uint32_t open_ops; /* operations of it that this replica executes now */
	bool is_guess;     /* known only from a request's record: its opening is still being copied */
};

struct chp_sessions {
	struct chp_session *session;
	struct chp_record *record; /* session i: record[i * window ..] */
	uint32_t *bucket;          /* open addressing by id: session index + 1, 0 = empty */
	uint32_t capacity;
	uint32_t window; /* power of two */
	uint32_t bucket_mask;
	uint32_t free;
	uint32_t n;
};

/** Allocate a table of `capacity` sessions of `window` records. Returns 0 or -ENOMEM. */
int chp_sessions_init(struct chp_sessions *t, uint32_t capacity, uint32_t window,
		      const struct chp_memory *memory);
void chp_sessions_fini(struct chp_sessions *t, const struct chp_memory *memory);

/** The session with this id, NULL if there is none. */
struct chp_session *chp_session_find(const struct chp_sessions *t, uint64_t id);

/** Add a session; finding it already there is no error. There is room by admission (asserted). */
struct chp_session *chp_session_open(struct chp_sessions *t, uint64_t id);

/** Remove a session and its records. Unknown: nothing. */
void chp_session_close(struct chp_sessions *t, uint64_t id);

/** The record that a request has or would take; its request field says whose it is. */
struct chp_record *chp_session_record(const struct chp_sessions *t, const struct chp_session *s,
				      uint64_t request);

/**
 * A write of (session, request) passed here with this version: remember it (SAFETY 25). Unknown sessions
 * and requests older than what the record's place holds are ignored. Never replaces CHP_RECORD_DONE of
 * the same request.
 *
 * @param learns  an unknown session is added: a learner may hear of a session's writes before its opening
 *                was copied. Without room it is ignored, as an unknown one.
 */
void chp_session_saw(struct chp_sessions *t, uint64_t session, uint64_t request, uint64_t version,
		     uint64_t number, bool rmw, bool learns);

/**
 * A log decided how a request ended: its record is DONE with that, whatever was there of it or of an older
 * request. Unknown sessions, and requests older than what the record's place holds, are ignored.
 */
void chp_session_done(struct chp_sessions *t, uint64_t session, uint64_t request, uint8_t status, uint64_t version,
		      uint64_t number);

/** What became of the read-modify-write with this version, if its record is here and open (SAFETY 7). */
void chp_session_settle(struct chp_sessions *t, uint64_t session, uint64_t request, uint64_t version,
			enum chp_record_fate fate);

/** Take over the record of a write that another replica remembers; as chp_session_saw with `learns`. */
void chp_session_copied(struct chp_sessions *t, uint64_t session, const struct chp_record *r);

/** The sessions that chp_session_saw guessed and nobody opened are removed: the copy is complete. */
void chp_sessions_drop_guesses(struct chp_sessions *t);

/** Order-independent digest of the session numbers: equal on all replicas at rest. */
uint64_t chp_sessions_digest(const struct chp_sessions *t);

/** Assert every invariant; O(capacity). */
void chp_sessions_check(const struct chp_sessions *t);

#endif /* CHP_SESSIONS_SESSIONS_H */
