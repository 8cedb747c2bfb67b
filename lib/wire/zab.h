/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * zab.h - the messages of ZAB: election, discovery, synchronisation, broadcast, reads, recovery.
 *
 * They ride on the reliable FIFO links between the replicas of one shard. Every message of a leader's
 * term names its epoch; whoever is not in that term ignores it. docs/protocols/zab.md says which message
 * of the papers each one is, docs/wire-protocol.md describes them byte by byte.
 */
#ifndef CHP_WIRE_ZAB_H
#define CHP_WIRE_ZAB_H

#include "wire/packet.h"

enum chp_zab_type {
	CHP_ZAB_LOOK = 0x20,       /* CEPOCH, to all: I have no leader; the candidate of this round may count on me */
	CHP_ZAB_NEWEPOCH = 0x21,   /* the leader of a new epoch to whoever may follow it */
	CHP_ZAB_ACKEPOCH = 0x22,   /* I follow; this is what my log holds */
	CHP_ZAB_PULL = 0x23,       /* a new leader to who has the newest history: send me what I lack */
	CHP_ZAB_HISTORY = 0x24,    /* the answer; the entries follow as PROPOSE */
	CHP_ZAB_NEWLEADER = 0x25,  /* make your log a prefix of mine (DIFF, TRUNC, SNAP); the rest follows */
	CHP_ZAB_ACKLD = 0x26,      /* my log is what NEWLEADER said */
	CHP_ZAB_PROPOSE = 0x27,    /* one entry of the log */
	CHP_ZAB_ACK = 0x28,        /* every entry up to this one is in my log */
	CHP_ZAB_COMMIT = 0x29,     /* every entry up to this one is committed */
	CHP_ZAB_BEAT = 0x2a,       /* the leader is alive and asks for a lease */
	CHP_ZAB_BEAT_ACK = 0x2b,   /* given */
	CHP_ZAB_READ = 0x2c,       /* a follower's sync: up to where must I have applied to answer reads? */
	CHP_ZAB_READ_INDEX = 0x2d, /* the answer */
	CHP_ZAB_RECOVER = 0x2e,    /* I lost my memory (SAFETY 23) */
	CHP_ZAB_RECOVERED = 0x2f,  /* what I know, for you */
	CHP_ZAB_FETCH = 0x30,      /* after a cold start, the leader to a source: what has your store of this key? */
	CHP_ZAB_FETCHED = 0x31,    /* the answer */
	CHP_ZAB_OFFER = 0x32,      /* a source to the leader: my store has this key of before the cold start */
};

/* What an entry of the log does. */
enum chp_zab_entry_flag {
	CHP_ZAB_SESSION = 1u << 2, /* the key is a session number; the bit of enum chp_slot_flag */
	CHP_ZAB_REMOVE = 1u << 1,  /* the key goes; the bit of a tombstone in enum chp_slot_flag, as stores get it */
	CHP_ZAB_NOTHING = 1u << 0, /* only the outcome for its client: the operation failed */
	CHP_ZAB_RULE = 1u << 3,    /* a switch of the quorum rule: number is enum chp_zab_rule; no key */
	/* What a store had before a cold start, for all: the key's version is `number`, as it was, not the index. */
	CHP_ZAB_RESTORED = 1u << 4,
};
#define CHP_ZAB_ENTRY_FLAGS_ALL 0x1fu

/* Whose acknowledgements commit an entry (SAFETY 28). */
enum chp_zab_rule {
	CHP_ZAB_MAJORITY = 0,
	CHP_ZAB_ALL = 1, /* all configured members */
};

/* Epochs, rounds and indices go on from what others said, and must not wrap. */
#define CHP_ZAB_EPOCH_MAX (UINT64_C(1) << 60)
#define CHP_ZAB_COUNT_MAX (UINT64_C(1) << 60)
/* The indices of a generation begin at generation << 52: above all versions of the one before (SAFETY 34). */
#define CHP_ZAB_GENERATION_SHIFT 52u
#define CHP_ZAB_INDEX_MAX (UINT64_C(1) << 63)

/* Epochs that one history names: more leaders than these never leave uncommitted entries in one log. */
#define CHP_ZAB_RUNS_MAX 16u

/* Entries from `first` to the next run's first, or to the end, are of one epoch. */
struct chp_zab_run {
	uint64_t epoch;
	uint64_t first;
} CHP_PACKED;

/* What a log holds, for who must find out what it has in common with another. */
struct chp_zab_history {
	uint64_t current_epoch; /* of the last leader whose whole history this was (the paper's f.a) */
	uint64_t last_epoch;    /* zxid of the last entry */
	uint64_t last;
	uint64_t committed;     /* common with every leader to come */
	uint32_t n_runs;        /* runs of the entries beyond committed, oldest first */
	uint32_t flags;         /* enum chp_zab_history_flag */
	struct chp_zab_run run[CHP_ZAB_RUNS_MAX];
} CHP_PACKED;

enum chp_zab_history_flag {
	CHP_ZAB_INCOMPLETE = 1u << 0, /* it was being copied to: what it holds is no prefix of anything */
};

enum chp_zab_look_flag {
	CHP_ZAB_JOIN = 1u << 0, /* no vote: the receiver leads, and is asked to begin anew with the sender */
};

struct chp_zab_look {
	struct chp_message message;
	uint64_t round;          /* that the vote is for; 0 = it is none */
	uint64_t accepted_epoch;
	uint64_t view;           /* of the sender: which incarnations it knows (SAFETY 23) */
	uint64_t look_flags;     /* enum chp_zab_look_flag */
} CHP_PACKED;

struct chp_zab_newepoch {
	struct chp_message message;
	uint64_t round;
	uint64_t epoch;
	uint64_t serial; /* of this leader's NEWEPOCHs to this follower; echoed */
} CHP_PACKED;

/* ACKEPOCH and PULL. */
struct chp_zab_ackepoch {
	struct chp_message message;
	uint64_t epoch;
	uint64_t view;
	uint64_t serial; /* ACKEPOCH: of the NEWEPOCH that it answers */
	struct chp_zab_history history;
} CHP_PACKED;

enum chp_zab_sync_flag {
	CHP_ZAB_SNAP = 1u << 0,     /* the log begins anew after `keep`; the state up to there is copied */
	CHP_ZAB_RULE_ALL = 1u << 1, /* with SNAP: the rule in force at `keep` is "all" */
	CHP_ZAB_BEYOND = 1u << 2,   /* HISTORY: my log does not reach back to what you have */
};

/* NEWLEADER and HISTORY. */
struct chp_zab_sync {
	struct chp_message message;
	uint64_t epoch;
	uint64_t keep;       /* entries beyond this one go; what follows is sent */
	uint64_t keep_epoch; /* epoch of that entry, with SNAP */
	uint64_t end;        /* the last entry that is sent before the log is whole */
	uint64_t sync_flags; /* enum chp_zab_sync_flag */
} CHP_PACKED;

struct chp_zab_propose {
	struct chp_message message;
	uint64_t epoch;       /* the sender's term */
	uint64_t entry_epoch; /* zxid of the entry */
	uint64_t index;
	uint64_t session;     /* (session, request) of the client's operation; 0 = none */
	uint64_t request;
	uint64_t number;      /* the client's numeric result; with CHP_ZAB_RULE the rule, _RESTORED the version */
	uint32_t value_total;
	uint8_t key_len;      /* 0..250 */
	uint8_t entry_flags;  /* enum chp_zab_entry_flag */
	uint8_t status;       /* enum chp_status of the operation */
	uint8_t reserved;     /* 0 */
	/* key_len bytes of key, then the value, then zeros up to a multiple of 8 */
} CHP_PACKED;

enum chp_zab_commit_flag {
	CHP_ZAB_UPTODATE = 1u << 0, /* the receiver's synchronisation is over (COMMITLD) */
};

/* ACK, ACKLD and COMMIT. */
struct chp_zab_index {
	struct chp_message message;
	uint64_t epoch;
	uint64_t index;
	uint64_t view;        /* ACKLD: as in LOOK */
	uint64_t index_flags; /* COMMIT: enum chp_zab_commit_flag */
	uint64_t durable;     /* level `datastore`: up to here in the sender's store; COMMIT: in those of a majority */
} CHP_PACKED;

enum chp_zab_beat_flag {
	CHP_ZAB_HOST_READY = 1u << 0, /* BEAT_ACK: the sender's store answers, if it leads it can load */
};

/* BEAT and BEAT_ACK, which says sent_ns again. */
struct chp_zab_beat {
	struct chp_message message;
	uint64_t epoch;
	uint64_t sent_ns;  /* on the leader's clock */
	uint64_t lease_ns; /* how long the leader wants to be sure that nobody else is one; 0 = not at all */
	uint64_t beat_flags; /* enum chp_zab_beat_flag */
} CHP_PACKED;

/* READ and READ_INDEX. */
struct chp_zab_read {
	struct chp_message message;
	uint64_t epoch;
	uint64_t id;    /* the follower's, echoed */
	uint64_t index; /* READ_INDEX: whoever has applied up to here may answer */
} CHP_PACKED;

struct chp_zab_recover {
	struct chp_message message;
	uint64_t id; /* of the round of questions, echoed */
} CHP_PACKED;

enum chp_zab_recovered_flag {
	CHP_ZAB_ESTABLISHED = 1u << 0, /* the sender leads its epoch, established by a quorum */
};

struct chp_zab_recovered {
	struct chp_message message;
	uint64_t id;
	uint64_t accepted_epoch;
	uint64_t last;      /* the last entry in the sender's log */
	uint64_t lease_ns;  /* the longest lease that the sender asks for or has given */
	uint64_t recovered_flags;
} CHP_PACKED;

/* FETCH and OFFER; the key follows, then zeros up to a multiple of 8. */
struct chp_zab_fetch {
	struct chp_message message; /* op: which of the sender's open ones */
	uint64_t epoch;
	uint32_t tag;               /* of this question, echoed */
	uint8_t key_len;            /* 1..250 */
	uint8_t reserved[3];        /* 0 */
} CHP_PACKED;

enum chp_zab_fetched_status {
	CHP_ZAB_FETCH_FOUND = 0,     /* as enum chp_load_status */
	CHP_ZAB_FETCH_TOMBSTONE = 1,
	CHP_ZAB_FETCH_ABSENT = 2,
	CHP_ZAB_FETCH_AGAIN = 3,     /* this cannot be told now */
	CHP_ZAB_FETCH_KNOWN = 4,     /* to an OFFER: the log has had this key since the cold start */
};

/* FETCHED; the value follows, then zeros up to a multiple of 8. */
struct chp_zab_fetched {
	struct chp_message message; /* op: of the FETCH or OFFER */
	uint64_t epoch;
	uint64_t version;           /* FOUND, TOMBSTONE */
	uint32_t tag;
	uint32_t value_total;       /* FOUND */
	uint32_t generation;        /* of the cluster, when the store got it */
	uint8_t status;             /* enum chp_zab_fetched_status */
	uint8_t reserved[3];        /* 0 */
} CHP_PACKED;

_Static_assert(sizeof(struct chp_zab_history) == 40 + 16 * CHP_ZAB_RUNS_MAX, "wire format");
_Static_assert(sizeof(struct chp_zab_look) == 40, "wire format");
_Static_assert(sizeof(struct chp_zab_sync) == 48, "wire format");
_Static_assert(sizeof(struct chp_zab_propose) == 64, "wire format");
_Static_assert(sizeof(struct chp_zab_index) == 48, "wire format");
_Static_assert(sizeof(struct chp_zab_beat) == 40, "wire format");
_Static_assert(sizeof(struct chp_zab_recovered) == 48, "wire format");
_Static_assert(sizeof(struct chp_zab_fetch) == 24, "wire format");
_Static_assert(sizeof(struct chp_zab_fetched) == 40, "wire format");

/* Bytes of a PROPOSE with this key and value. */
static inline uint32_t
chp_zab_propose_bytes(uint32_t key_len, uint32_t value_len)
{
	return chp_align_u32((uint32_t)sizeof(struct chp_zab_propose) + key_len + value_len, CHP_MESSAGE_ALIGN);
}

#define CHP_ZAB_PROPOSE_BYTES_MAX \
	((uint32_t)sizeof(struct chp_zab_propose) + ((CHP_RECORD_BYTES_MAX + 7u) & ~7u))

_Static_assert(sizeof(struct chp_peer_header) + CHP_ZAB_PROPOSE_BYTES_MAX <= CHP_PAYLOAD_BYTES_MIN,
	       "the largest PROPOSE fits one packet of the smallest MTU");

static inline const uint8_t *
chp_zab_propose_key(const struct chp_zab_propose *m)
{
	return (const uint8_t *)(m + 1);
}

static inline const uint8_t *
chp_zab_propose_value(const struct chp_zab_propose *m)
{
	return (const uint8_t *)(m + 1) + m->key_len;
}

/**
 * Whether a message, whose length chp_peer_check accepted, is a well-formed ZAB message.
 *
 * @param m          m->len bytes can be read
 * @param value_max  the cluster's largest value
 */
bool chp_zab_check(const struct chp_message *m, uint32_t value_max);

#endif /* CHP_WIRE_ZAB_H */
