/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * host.h - what the two ends of a channel say: a replica's shard, on the DPU, and the datastore interface, on its
 * host.
 *
 * Two kinds of packets. CHP_PACKET_HOST is a packet of a reliable link, with the header and the messages of a
 * CHP_PACKET_PEER (wire/packet.h); there is one link a shard, `from` and `to` are both the replica's node id, epoch,
 * grant and pause are 0. CHP_PACKET_HOST_HELLO stands before it: each end learns the other's incarnation and what
 * it is.
 *
 *   shard -> host   HELLO    repeated until answered, and again when the link was reset
 *   host -> shard   WELCOME  who the store is and what it holds; or REFUSED, with the reason
 *
 * Then, on the link:
 *
 *   shard -> host   BEGIN(life), PUT..., FLUSH(seq), LOAD, SCAN, RECORD(epoch)
 *   host -> shard   BEGUN, DURABLE(seq), LOADED, ITEM..., SCANNED, RECORDED, STATE
 *
 * PUTs before a FLUSH are one batch: durable together or not at all, in the order of batches. DURABLE(seq) says that
 * all batches up to seq are. docs/wire-protocol.md, "The channel", describes it byte by byte.
 */
#ifndef CHP_WIRE_HOST_H
#define CHP_WIRE_HOST_H

#include "wire/packet.h"

#ifndef CHP_CHANNEL_VERSION /* a test has a program of the next one */
#define CHP_CHANNEL_VERSION 1u
#endif

enum chp_host_hello_type {
	CHP_HOST_HELLO = 1,
	CHP_HOST_WELCOME = 2,
	CHP_HOST_REFUSED = 3,
};

/* Why a host refuses a replica; names in host.c. */
enum chp_host_refusal {
	CHP_HOST_OK = 0,
	CHP_HOST_BAD_VERSION = 1,  /* another version of the channel */
	CHP_HOST_BAD_CLUSTER = 2,  /* another cluster's hash, or the store is another cluster's */
	CHP_HOST_BAD_NODE = 3,     /* the store is another node's */
	CHP_HOST_BAD_SHARD = 4,    /* shard out of range, or the store has another number of shards */
	CHP_HOST_NO_STORE = 5,     /* the datastore cannot be used now: text says why; try again */
	CHP_HOST_REFUSALS,         /* how many there are */
};

/* What a store is. */
enum chp_store_flag {
	CHP_STORE_VOLATILE = 1u << 0,   /* may forget what it reported durable (SAFETY 31) */
	CHP_STORE_ALLOW_LOSS = 1u << 1, /* volatile, and the user allows that data is lost */
	CHP_STORE_SCANS = 1u << 2,      /* can list what it holds */
};

/* Texts end with 0 and have no control characters: chp_host_text makes them so. */
#define CHP_HOST_TEXT_BYTES 120u
/* Scans that one shard may run at the same time: the learners' and its own (CHP_SCANS in protocols/backing.h). */
#define CHP_HOST_SCANS (CHP_NODES_MAX + 1u)

/*
 * Incarnations. A shard has one for its life. It says HELLO until it is welcomed, and then now and then, so that it
 * learns when another process of its host has begun; an answer to a HELLO that it sent before something else became
 * of the channel is dropped by its number. The host's end gives itself an incarnation for each incarnation of
 * the shard that it turns to: a link between the same two incarnations is never begun twice, only reset. A HELLO of
 * the incarnation that it knows already it answers without touching the link. It welcomes another one when nothing
 * of the one before is on its way to the store any more, so that `newest`, `batch` and `life` are final.
 */

/*
 * CHP_PACKET_HOST_HELLO. Both directions; a HELLO is padded with zeros to payload_bytes_max, so that it arrives only
 * where packets of that size do. The fields up to `payload_bytes_max` stay where they are in every version of the
 * channel, and none has shorter packets; in a packet of another version nobody looks at more than is needed to refuse.
 */
struct chp_host_hello {
	struct chp_prelude prelude;
	uint32_t crc32c;           /* of every byte of the packet but these four */
	uint8_t type;              /* enum chp_host_hello_type */
	uint8_t channel_version;
	uint8_t node;
	uint8_t refusal;           /* REFUSED: enum chp_host_refusal */
	uint16_t shard, shards;
	uint32_t number;           /* of the HELLO, from 1; WELCOME, REFUSED: of the HELLO that is answered */
	uint64_t incarnation;      /* of the sender, see "Incarnations" */
	uint64_t to_incarnation;   /* WELCOME, REFUSED: of the HELLO that is answered; HELLO: 0 */
	uint64_t hash_seed;        /* of key digests, which say what shard a key belongs to */
	uint32_t key_bytes_max, value_bytes_max; /* the cluster's; WELCOME: as in the HELLO */
	uint32_t payload_bytes_max; /* WELCOME: as in the HELLO */
	/* The rest: WELCOME only, and `text` also in REFUSED. */
	uint32_t store_flags;      /* enum chp_store_flag */
	uint32_t put_bytes;        /* of PUTs that may be sent and not durable */
	uint32_t loads;            /* LOADs that may be open */
	uint64_t life;             /* the last that began here; 0 = none ever */
	uint64_t batch;            /* the last durable seq of that life */
	uint64_t epoch;            /* the last RECORDed; 0 = never */
	uint64_t newest;           /* counter of the newest version held */
	uint64_t items;            /* held, tombstones included; an estimate where counting is dear */
	uint64_t tombstones;
	char text[CHP_HOST_TEXT_BYTES]; /* WELCOME: the adapter and what it promises; REFUSED: why. Ends with 0 */
} CHP_PACKED;

_Static_assert(sizeof(struct chp_host_hello) == 240, "wire format");
_Static_assert(offsetof(struct chp_host_hello, crc32c) == 8, "wire format");

enum chp_host_type {
	CHP_HOST_BEGIN = 0x30,
	CHP_HOST_PUT = 0x31,
	CHP_HOST_FLUSH = 0x32,
	CHP_HOST_LOAD = 0x33,
	CHP_HOST_SCAN = 0x34,
	CHP_HOST_RECORD = 0x35,
	CHP_HOST_BEGUN = 0x38,
	CHP_HOST_DURABLE = 0x39,
	CHP_HOST_LOADED = 0x3a,
	CHP_HOST_ITEM = 0x3b,
	CHP_HOST_SCANNED = 0x3c,
	CHP_HOST_RECORDED = 0x3d,
	CHP_HOST_STATE = 0x3e,
};

/*
 * BEGIN, BEGUN: a life begins: what the store holds already is old from now on. Durable before BEGUN. `life` is
 * above WELCOME's. It may come again with a higher life before anything was PUT; with the present one it is answered
 * at once. A shard that was welcomed again in the same life, by a host that has begun it, sends none.
 */
struct chp_host_life {
	struct chp_message message; /* op: CHP_OP_NONE */
	uint64_t life;
} CHP_PACKED;

/*
 * PUT, ITEM: a version of a key. PUT: op is CHP_OP_NONE; applied where (life, version) is newer than what is stored.
 * ITEM: op is that of the SCAN.
 */
struct chp_host_item {
	struct chp_message message;
	uint64_t version;
	uint32_t value_len;
	uint8_t key_len;   /* 1..250 */
	uint8_t item_flags; /* enum chp_host_item_flag */
	uint16_t reserved; /* 0 */
	/* key_len bytes of key, then the value, then zeros up to a multiple of 8 */
} CHP_PACKED;

enum chp_host_item_flag {
	CHP_HOST_RMW = 1u << 0,       /* as CHP_SLOT_RMW */
	CHP_HOST_TOMBSTONE = 1u << 1, /* deleted: no value */
	CHP_HOST_OLD = 1u << 2,       /* ITEM, LOADED: stored in an earlier life */
};

/* FLUSH, DURABLE. seq counts batches of a life from 1. */
struct chp_host_batch {
	struct chp_message message; /* op: CHP_OP_NONE */
	uint64_t seq;
	uint32_t items;    /* FLUSH: PUTs of the batch, at least one; DURABLE: 0 */
	uint32_t reserved; /* 0 */
} CHP_PACKED;

/* LOAD: op is a token of the shard, not CHP_OP_NONE. */
struct chp_host_load {
	struct chp_message message;
	uint8_t key_len;
	uint8_t reserved[7]; /* 0 */
	/* key_len bytes, then zeros up to a multiple of 8 */
} CHP_PACKED;

enum chp_host_load_status {
	CHP_HOST_LOAD_FOUND = 0,
	CHP_HOST_LOAD_TOMBSTONE = 1, /* item_flags say so, too */
	CHP_HOST_LOAD_ABSENT = 2,    /* version and flags are 0, as when it */
	CHP_HOST_LOAD_FAILED = 3,    /* cannot be read now */
	CHP_HOST_LOAD_STATUSES,      /* how many there are */
};

/* LOADED: op is that of the LOAD. */
struct chp_host_loaded {
	struct chp_message message;
	uint64_t version;
	uint32_t value_len;
	uint8_t status;     /* enum chp_host_load_status: protocols/backing.h has the same numbers */
	uint8_t item_flags; /* enum chp_host_item_flag */
	uint16_t generation; /* chp_host_generation of the life in which it was stored */
	/* the value, then zeros up to a multiple of 8 */
} CHP_PACKED;

/* Lives are epochs of views: what is above these bits counts the cold starts (protocols/view.h). */
#define CHP_HOST_GENERATION_SHIFT 20u
/*
 * A life whose number is of a later generation than that of the cluster it takes part in, which has this bit: a store
 * that has begun a life for a first view that never came to be. Views of one generation are less than this.
 */
#define CHP_HOST_LIFE_EARLIER (UINT64_C(1) << 19)
#define CHP_HOST_LIFE_EARLIER_SHIFT 8u /* of the cluster's generation, 11 bits; the rest counts */

/** The generation of the cluster in which a replica lived this life. */
static inline uint64_t
chp_host_generation(uint64_t life)
{
	return (life & CHP_HOST_LIFE_EARLIER) == 0 ? life >> CHP_HOST_GENERATION_SHIFT
						   : (life >> CHP_HOST_LIFE_EARLIER_SHIFT) & 0x7ffu;
}

enum chp_host_scan_flag {
	CHP_HOST_SCAN_START = 1u << 0, /* from the beginning; otherwise behind the last part of this op */
	CHP_HOST_SCAN_OLD = 1u << 1,   /* items of earlier lives only; otherwise of this life only */
};

/* SCAN: op names the scan, CHP_SCANS at most at a time. */
struct chp_host_scan {
	struct chp_message message;
	uint32_t bytes;    /* of ITEMs at most, if more than one; 1..CHP_COPY_BYTES_MAX */
	uint32_t scan_flags;
} CHP_PACKED;

enum chp_host_scanned_flag {
	CHP_HOST_SCAN_END = 1u << 0,    /* nothing follows */
	CHP_HOST_SCAN_FAILED = 1u << 1, /* the store could not go on: begin again. Not with SCAN_END */
};

struct chp_host_scanned {
	struct chp_message message;
	uint32_t items;
	uint32_t scanned_flags;
} CHP_PACKED;

/*
 * RECORD, RECORDED: the store has everything that was committed before the view of this epoch, kept with the store:
 * a cold start takes what it holds from the stores with the highest. Comes behind the FLUSH of all that.
 */
struct chp_host_record {
	struct chp_message message; /* op: CHP_OP_NONE */
	uint64_t epoch;
} CHP_PACKED;

enum chp_store_state {
	CHP_STORE_OK = 0,
	CHP_STORE_SLOW = 1,  /* it answers, with errors that pass: retried */
	CHP_STORE_DOWN = 2,  /* it does not answer, or refuses: full disk, wrong credentials. Retried with back-off */
	CHP_STORE_STATES,    /* how many there are */
};

/* STATE: how the store is, whenever that changes; and what it holds. */
struct chp_host_state {
	struct chp_message message; /* op: CHP_OP_NONE */
	uint64_t items, tombstones;
	uint64_t errors;            /* of the store so far */
	uint32_t state;             /* enum chp_store_state */
	uint32_t reserved;          /* 0 */
	char text[CHP_HOST_TEXT_BYTES]; /* why; empty when OK */
} CHP_PACKED;

_Static_assert(sizeof(struct chp_host_life) == 16, "wire format");
_Static_assert(sizeof(struct chp_host_item) == 24, "wire format");
_Static_assert(sizeof(struct chp_host_batch) == 24, "wire format");
_Static_assert(sizeof(struct chp_host_load) == 16, "wire format");
_Static_assert(sizeof(struct chp_host_loaded) == 24, "wire format");
_Static_assert(sizeof(struct chp_host_scan) == 16, "wire format");
_Static_assert(sizeof(struct chp_host_scanned) == 16, "wire format");
_Static_assert(sizeof(struct chp_host_record) == 16, "wire format");
_Static_assert(sizeof(struct chp_host_state) == 160, "wire format");

/* Bytes of a PUT or ITEM with this key and value. */
static inline uint32_t
chp_host_item_bytes(uint32_t key_len, uint32_t value_len)
{
	return chp_align_u32((uint32_t)sizeof(struct chp_host_item) + key_len + value_len, CHP_MESSAGE_ALIGN);
}

/* Bytes of a LOAD of such a key. */
static inline uint32_t
chp_host_load_bytes(uint32_t key_len)
{
	return chp_align_u32((uint32_t)sizeof(struct chp_host_load) + key_len, CHP_MESSAGE_ALIGN);
}

/* Bytes of a LOADED with this value. */
static inline uint32_t
chp_host_loaded_bytes(uint32_t value_len)
{
	return chp_align_u32((uint32_t)sizeof(struct chp_host_loaded) + value_len, CHP_MESSAGE_ALIGN);
}

static inline const uint8_t *
chp_host_load_key(const struct chp_host_load *m)
{
	return (const uint8_t *)(m + 1);
}

static inline const uint8_t *
chp_host_loaded_value(const struct chp_host_loaded *m)
{
	return (const uint8_t *)(m + 1);
}

static inline const uint8_t *
chp_host_item_key(const struct chp_host_item *m)
{
	return (const uint8_t *)(m + 1);
}

static inline const uint8_t *
chp_host_item_value(const struct chp_host_item *m)
{
	return (const uint8_t *)(m + 1) + m->key_len;
}

/** Copy a text into CHP_HOST_TEXT_BYTES as packets want it: cut, without control characters, zeros behind. */
void chp_host_text(char *to, const char *from);

/** Whether a message, whose length was checked, is a well-formed one from a shard (to_host) or from a host. */
bool chp_host_message_check(const struct chp_message *m, bool to_host, uint32_t key_max, uint32_t value_max);

/**
 * Check a CHP_PACKET_HOST completely, as chp_peer_check does a CHP_PACKET_PEER: from and to must be `node`.
 *
 * @return  CHP_PACKET_OK or the first thing wrong
 */
enum chp_packet_error chp_host_check(const void *data, uint32_t len, uint32_t hash, uint32_t node, uint32_t shards);

/**
 * Check a CHP_PACKET_HOST_HELLO but for what its receiver answers with REFUSED: version, cluster, node, shard. Of
 * another version are accepted a HELLO and a REFUSED with CHP_HOST_BAD_VERSION, no WELCOME.
 *
 * @param hash  expected cluster hash, or 0: any, for a host that answers a stranger
 */
enum chp_packet_error chp_host_hello_check(const void *data, uint32_t len, uint32_t hash);

/** Name of a refusal for people. Static storage. */
const char *chp_host_refusal_name(enum chp_host_refusal r);

#endif /* CHP_WIRE_HOST_H */
