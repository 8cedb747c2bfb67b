/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * zab_state.h - the state of an instance of ZAB, for the two files that share it: zab.c, the protocol, and zab_slow.c,
 * the datastore behind its cache. Nobody else includes it.
 */
#ifndef CHP_PROTOCOLS_ZAB_STATE_H
#define CHP_PROTOCOLS_ZAB_STATE_H

#include "protocols/copy.h"
#include "protocols/protocol.h"
#include "protocols/zab.h"
#include "protocols/zab_pending.h"
#include "protocols/zab_quorum.h"
#include "wire/zab.h"

#define CHP_ZAB_NONE UINT32_MAX


/* What a client operation waits for: the lists it can stand in, oldest first. */
enum chp_zab_wait {
	CHP_ZAB_OP_FREE = 0,
	CHP_ZAB_OP_CONFIRM, /* a read: for a quorum to confirm that we still led when it came */
	CHP_ZAB_OP_SYNC,    /* a read: for the leader's answer, then for the log to be applied up to it */
	CHP_ZAB_OP_STABLE,  /* a read, with its answer: for the stores of a majority to have it (SAFETY 33) */
	CHP_ZAB_OP_REFUSE,  /* for room to be told that we do not lead, or not follow, any more */
	CHP_ZAB_OP_LISTS
};

/* What a key's slot is. */
enum chp_zab_slot {
	CHP_ZAB_REST = 0,    /* applied; version 0: the datastore does not have the key */
	CHP_ZAB_LOADING = 1, /* the datastore, or after a cold start all sources, are asked for it; busy: the miss */
	CHP_ZAB_UNSAVED = 2, /* copied, and not yet durable in the datastore */
};

struct chp_zab_op {
	struct chp_origin origin;
	uint64_t session, request;
	uint64_t arg;
	/* CONFIRM, proposals: when it came; SYNC: number of the question that answers it; STABLE: index. */
	uint64_t at;
	uint64_t version, number; /* the answer, where that waits for stores */
	uint32_t next;
	uint32_t value_len;       /* of the operand, or of the answer */
	uint8_t opcode;
	uint8_t key_len;
	uint8_t status;
	bool is_begun;   /* a proposal */
	bool is_sure;    /* a read: that we led, or had caught up, after it came was confirmed */
	bool is_relaxed;
};

struct chp_zab_list {
	uint32_t head, tail;
};

/* A key that is not in the cache and is asked for. Its slot is LOADING, or at rest while its waiters are served. */
struct chp_zab_miss {
	uint32_t slot;   /* NONE: not in use */
	uint32_t token;  /* of the load, NONE: it has been answered */
	uint32_t fetch;  /* what other sources have is asked for, NONE */
	uint32_t next;   /* in the list of free or ready ones */
	struct chp_zab_list waiters;
	bool is_ready;   /* in that list: the key is known, or could not be loaded */
	bool is_again;   /* to be loaded anew */
};

/* After a cold start: what the sources have of a key (SAFETY 34). At the leader. */
struct chp_zab_asked {
	uint32_t miss;       /* NONE: not in use */
	uint32_t tag;
	uint64_t waiting;    /* sources that have not answered */
	uint64_t answered;
	uint64_t asked_ns;   /* who does not follow yet does not answer: asked again after an election time-out */
	uint64_t due;        /* whom to ask now, */
	uint64_t again;      /* or once more, later */
	uint64_t version;    /* the newest so far; 0 = none */
	uint32_t generation; /* in which a store got it */
	uint32_t value_len;
	bool is_deleted;
};
#define CHP_ZAB_FETCHES 32u

/* A leader's FETCH that waits for our store. By the leader's number of it. */
struct chp_zab_told {
	uint32_t token; /* NONE: not in use */
	uint32_t tag;
	uint32_t to;
};

/* A key that our store has of before the cold start, until the log has it. */
struct chp_zab_offer {
	struct chp_digest digest;
	uint32_t key_len; /* 0: not in use, or done */
	uint8_t key[CHP_KEY_BYTES_MAX];
};
#define CHP_ZAB_OFFERS 8u

/* Slots on their way to the store at a time. */
#define CHP_ZAB_SAVES 64u

/* The datastore behind the cache: zab_slow.c. */
struct chp_zab_slow {
	struct chp_zab_miss *miss;  /* [loads_max] */
	uint32_t free_miss;
	struct chp_zab_list ready;
	uint32_t *load_for;         /* by token: the miss, or loads_max + the FETCH that it is for, or NONE: stale */
	uint32_t n_again;           /* misses to be loaded anew */
	uint64_t again_ns;
	const struct chp_slot *keep; /* may not be evicted by the operation that is being admitted or applied */

	struct chp_zab_asked fetch[CHP_ZAB_FETCHES];
	uint8_t *fetch_value;       /* of fetch i: value_bytes_max */
	uint32_t n_fetches;
	uint64_t fetch_again_ns;
	struct chp_zab_told told[CHP_ZAB_FETCHES];

	/* Items of a copy that the store has yet to take. */
	uint32_t n_unsaved;
	uint64_t copied_until;      /* the newest of their versions: the copy is ahead of the log up to there */
	bool is_short;              /* of them some have left the cache: the store alone knows the newest of each key */
	struct {
		uint32_t slot[CHP_ZAB_SAVES];
		uint64_t version[CHP_ZAB_SAVES];
		uint32_t n, at;
		uint32_t losses;
		uint64_t number;
	} save;

	/* As a source: what our own store has of before the cold start. */
	struct chp_zab_offer offer[CHP_ZAB_OFFERS];
	uint32_t n_offers;
	uint8_t *parts;             /* see struct chp_copy_config; our own node's holds keys to offer */
	struct {
		uint64_t again_ns, offer_ns;
		uint32_t bytes, at;
		bool is_begun, is_asked, is_last, has_met;
		bool is_done;
	} old;
	uint64_t away_ns;           /* since when our store does not answer; 0: it does */
};

/* The state table: what is known of another node. */
struct chp_zab_peer {
	bool linked;              /* what is sent reaches it, sooner or later */
	uint64_t round;           /* of its last vote; 0 = none */
	uint64_t view;            /* which incarnations it knew then (SAFETY 23) */
	uint64_t accepted_epoch;  /* as it said last */
	struct chp_zab_history history; /* of its ACKEPOCH */

	/* As its leader. */
	uint64_t sent;            /* the next entry to send; 0 = it is not sent to */
	uint64_t acked;           /* every entry up to here is in its log */
	uint64_t commit_sent, stable_sent;
	uint64_t echo_ns;         /* when the newest BEAT was sent that it has answered; 0 = none */
	uint64_t read_id;         /* its open question; 0 = none */
	uint64_t read_ns;         /* when that came */
	bool uptodate_due;        /* it is to hear that its synchronisation is over */
	uint64_t asked;           /* NEWEPOCHs sent to it: only the answer to the last one counts */
	uint64_t durable;         /* every entry up to here is in its store */
	bool has_host;            /* its store answers */

	uint64_t heard_ns;

	/* Its answer to our RECOVER. */
	uint64_t last;
	bool established;
};

struct chp_zab {
	struct chp_protocol_env env;
	struct chp_view view;
	uint64_t generation;      /* of the cluster: cold starts so far */
	uint32_t quorum;          /* a majority of all configured members */

	/* Term. */
	enum chp_zab_phase phase;
	bool is_leader;
	bool recovering;          /* this incarnation may have forgotten what an earlier one promised */
	uint32_t leader;          /* node id; CHP_NODES_MAX: none */
	uint64_t round;
	uint64_t accepted_epoch;  /* f.p: nothing of an older epoch is accepted */
	uint64_t current_epoch;   /* f.a: the last epoch whose leader's history we have had as a whole */
	uint64_t established_epoch; /* the last one that we know to have been established */
	uint64_t deadline_ns;     /* without a sign of life of the leader by then it is given up */
	uint64_t promised_until_ns; /* [SAFETY 18] a lease that we gave: */
	uint32_t promised_to;     /* to this node */
	struct chp_zab_peer peer[CHP_NODES_MAX];

	/* Log. */
	struct chp_zab_quorum rule;
	uint64_t committed, applied;
	uint64_t answered;        /* clients of entries up to here were answered: applied, or `stable` as well */
	uint64_t stable;          /* level `datastore`: up to here in the stores of a majority (SAFETY 33) */
	uint64_t durable_sent;
	bool incomplete;          /* the state up to `applied` is being copied: it is no prefix of anything */
	bool clearing;            /* before that, the old one goes */
	uint32_t clear_at;
	struct chp_copy copy;

	/* As a leader. */
	uint64_t ackepoch;        /* node masks: ackeRecv, */
	uint64_t ackld;           /* ackldRecv */
	uint32_t pulling;         /* whose history we fetch; NONE */
	uint64_t pull_end;        /* up to this entry; CHP_NEVER = not known yet */
	uint64_t initial;         /* last entry of the history that we began with */
	uint64_t beat_at_ns;      /* when the next BEAT goes */
	uint64_t beat_ns;         /* when the last one went */
	uint64_t confirmed_ns;    /* a quorum said that we led at this time */
	struct chp_zab_pending pending;
	bool acks_changed;
	uint64_t sessions_opened; /* in this life */

	/* As a follower. */
	bool synced;              /* ACKLD was sent: entries are acknowledged */
	bool sync_begun;          /* NEWLEADER came: */
	uint64_t sync_end;        /* our log is whole when it is this long */
	uint64_t ack_sent;
	uint64_t read_id;         /* of our open or last question */
	uint64_t read_answered;   /* the last one that was answered, */
	uint64_t read_index;      /* with this */
	bool read_open;
	uint32_t pull_to;         /* the leader that fetches our history; NONE */
	uint64_t pull_next, pull_last;

	/* Recovery (SAFETY 23). */
	uint64_t recover_at_ns;   /* not before: the longest lease that an earlier incarnation may have given */
	uint64_t born_ns;
	uint64_t recover_id;      /* of the questions that are out; 0 = none */
	uint64_t answers;         /* node mask */
	uint32_t recover_from;    /* the leader to follow; NONE */
	uint64_t recover_index;   /* up to what it had proposed when it answered */
	uint64_t lease_max_ns;    /* the longest lease that anybody told of */

	/* Client operations. */
	struct chp_zab_op *op;
	uint8_t *op_key;          /* op i: CHP_KEY_BYTES_MAX bytes */
	uint32_t *waiter;         /* log position & mask: the operation that its entry answers, NONE */
	struct chp_zab_list list[CHP_ZAB_OP_LISTS];
	uint32_t n_open_ops;
	uint8_t *op_value;        /* with a datastore: op i: value_bytes_max bytes, operand or answer */
	uint8_t *operand;         /* of an operation that waited for its key */
	uint8_t *value;           /* the value of a pending entry */
	uint8_t *scratch;         /* an outcome's value */
	uint8_t *keys;            /* of the entries that are being applied */

	bool is_backed;
	struct chp_zab_slow slow;
};

/* ------------------------------------------------------------------ zab.c, for zab_slow.c */

uint8_t *chp_zab_key_of_op(const struct chp_zab *z, uint32_t i);
uint8_t *chp_zab_value_of_op(const struct chp_zab *z, uint32_t i);
void chp_zab_push(struct chp_zab *z, struct chp_zab_list *l, uint32_t i);
uint32_t chp_zab_pop(struct chp_zab *z, struct chp_zab_list *l);

/** Whether this leader serves: whatever earlier ones may have told their clients has been applied here. */
bool chp_zab_serves(const struct chp_zab *z);

/** An operation that waited for its key goes on, or is told that it could not be loaded. Makes one reply at most. */
void chp_zab_resume(struct chp_zab *z, const struct chp_now *now, uint32_t i, bool is_failed,
		    struct chp_out *out);

/** [SAFETY 34] Propose what stores had of a key before the cold start. False: there is no room now. */
bool chp_zab_restore(struct chp_zab *z, const struct chp_key *key, uint64_t version, const uint8_t *value,
		     uint32_t value_len, bool is_deleted, struct chp_out *out);

/* ------------------------------------------------------------------ zab_slow.c, for zab.c */

/** 0 or -ENOMEM; chp_zab_slow_fini in both cases. */
int chp_zab_slow_init(struct chp_zab *z);
void chp_zab_slow_fini(struct chp_zab *z);

/** Whether there is room for a new key, or a new value of one; evicts what it needs for that. */
bool chp_zab_make_room(struct chp_zab *z, uint32_t key_len, uint32_t value_len, bool is_new);

/** Whether any record can be put into the cache; evicts what it needs for that, but not `keep`. */
bool chp_zab_make_any_room(struct chp_zab *z, const struct chp_slot *keep);

/** Whether a key must be asked for: s is its slot or NULL. */
static inline bool
chp_zab_is_missing(const struct chp_zab *z, const struct chp_slot *s)
{
	return z->is_backed && (s == NULL || s->state == CHP_ZAB_LOADING);
}

/** The miss of a key that is missing, for its waiters; NULL: it cannot be asked for now. */
struct chp_zab_miss *chp_zab_ask(struct chp_zab *z, struct chp_slot *s, const struct chp_key *key);

/** An entry was applied to a slot. */
void chp_zab_slot_applied(struct chp_zab *z, struct chp_slot *s, const struct chp_digest *digest);

/** A key was copied into a slot. */
void chp_zab_slot_copied(struct chp_zab *z, struct chp_slot *s);

/** The term ends: who waits for a key is refused, and what only a leader asks is asked no more. */
void chp_zab_slow_leave(struct chp_zab *z);

/** The state is copied anew: nothing in cache and store counts any more. */
void chp_zab_slow_restart(struct chp_zab *z, const struct chp_now *now);

/** A link was reset: what was asked over it, or the answer, is lost. */
void chp_zab_slow_link_up(struct chp_zab *z, uint32_t node);

/** Each run, behind applying. True: there is more to do at once. */
bool chp_zab_slow_run(struct chp_zab *z, const struct chp_now *now, struct chp_out *out);

/** Whether what our store had of before a cold start is in the log; whether what was copied is in our store. */
bool chp_zab_slow_is_done(const struct chp_zab *z);

void chp_zab_on_fetch(struct chp_zab *z, const struct chp_peer_message *pm, struct chp_out *out);
void chp_zab_on_offer(struct chp_zab *z, const struct chp_peer_message *pm, struct chp_out *out);
void chp_zab_on_fetched(struct chp_zab *z, const struct chp_peer_message *pm);

/* struct chp_protocol's functions. */
void chp_zab_loaded(void *instance, const struct chp_now *now, const struct chp_loaded *l, uint32_t n,
		    struct chp_out *out);
void chp_zab_scanned(void *instance, const struct chp_now *now, uint32_t scan, const struct chp_stored *item,
		     struct chp_out *out);
void chp_zab_scan_end(void *instance, const struct chp_now *now, uint32_t scan, bool end, bool failed,
		      struct chp_out *out);

/** Assert every invariant; adds the operations that wait for keys to *ops. */
void chp_zab_slow_check(const struct chp_zab *z, uint32_t *ops);

#endif /* CHP_PROTOCOLS_ZAB_STATE_H */
