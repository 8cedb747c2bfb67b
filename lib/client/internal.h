/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * internal.h - what the files of the client library share. Applications include chaapar.h only.
 *
 * A request is a `call`: a slot of a table made at open. Where a call is, its state says:
 *
 *   WAITING --number of the session--> TO_SEND --datagram--> SENT --answer--> FREE
 *      ^                                  ^                   |
 *      |                                  +--BACKOFF <--------+ overload, nobody serves
 *      +--RENEW <---------------------------------------------+ busy: the number is burnt
 *      +--PARKED <--------------------------------------------+ wrong_shard: until INFO was read
 *
 * Writes have a number of their shard's session and go to the session's home; everything else has a
 * number that holds its slot, no session, and a node of its own. A member that is silent or does not
 * serve is left alone for a while, and calls go to the next one at once, under the same number.
 *
 * When nobody serves a shard, one call of its session and one of the others is the scout: it goes on
 * asking at short intervals, the rest wait longer, and its answer wakes them.
 */
#ifndef CHP_CLIENT_INTERNAL_H
#define CHP_CLIENT_INTERNAL_H

#include "base/assert.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "base/random.h"
#include "client/chaapar.h"
#include "wire/client.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define CHP_MS UINT64_C(1000000)

/* Retransmission: RFC 6298's estimate with bounds that suit a data centre. */
#define CHP_CLIENT_RTO_NS_START (20 * CHP_MS)
#define CHP_CLIENT_RTO_NS_MIN (2 * CHP_MS)
#define CHP_CLIENT_RTO_NS_MAX (500 * CHP_MS)
/* The longest wait for one that may be dead: a new view is noticed within so long. */
#define CHP_CLIENT_RETRY_NS_MAX (64 * CHP_MS)
/* The same of a scout: an election takes from well under a millisecond to half a second. */
#define CHP_CLIENT_SCOUT_RETRY_NS_MAX (8 * CHP_MS)
/* A member in trouble is left alone for 16 ms at first, then for twice that, up to a second. */
#define CHP_CLIENT_AVOID_NS (16 * CHP_MS)
#define CHP_CLIENT_AVOID_SHIFT_MAX 6u
/*
 * Hundreds of answers come in one round trip, so that the mean forgets a slow phase at once. The
 * longest recent round trip does not; it counts up to a limit, because one pause must not slow all
 * recovery.
 */
#define CHP_CLIENT_RTT_WINDOW_NS (500 * CHP_MS)
#define CHP_CLIENT_RTT_MAX_FACTOR 8u
#define CHP_CLIENT_RTO_SHIFT_MAX 6u
/* After a refusal: 1 ms, doubling up to 64 ms, and up to half of it more by chance. */
#define CHP_CLIENT_BACKOFF_NS (1 * CHP_MS)
#define CHP_CLIENT_BACKOFF_SHIFT_MAX 6u
/* A scout's: 0.1 ms, up to 6.4 ms and half of it. */
#define CHP_CLIENT_SCOUT_NS (CHP_MS / 10)
/* Answers that send a call elsewhere, before it waits as after a refusal. */
#define CHP_CLIENT_HOPS_MAX 4u
/* INFO is not fetched more often than this: one wrong answer must not become a storm. */
#define CHP_CLIENT_INFO_NS (100 * CHP_MS)
#define CHP_CLIENT_CLOSE_NS (100 * CHP_MS)
/* Datagrams of one sendmmsg or recvmmsg, and of those in one poll before timers get their turn. */
#define CHP_CLIENT_BURST 32u
#define CHP_CLIENT_BURSTS_MAX 16u
/* 16 hosts without a port: seven ports are tried at each. */
#define CHP_CLIENT_ENDPOINTS_MAX (16u * 7u)
/* Replies that one section of STATUS may be split into: more is a broken replica. */
#define CHP_CLIENT_PARTS_MAX 1024u
/* Times that fetching it begins again because the text became another one on the way. */
#define CHP_CLIENT_RESTARTS_MAX 8u
/* A number without session is serial << 17 | slot: slots of calls, of each shard's session, of
 * INFO, of the probe. */
#define CHP_CLIENT_SLOT_BITS 17u
#define CHP_CLIENT_SLOTS_EXTRA (CHP_SHARDS_MAX + 2u)

_Static_assert(CHAAPAR_IN_FLIGHT_MAX + CHP_CLIENT_SLOTS_EXTRA <= 1u << CHP_CLIENT_SLOT_BITS,
	       "slot bits");
_Static_assert(CHAAPAR_NODES_MAX == CHP_NODES_MAX && CHAAPAR_SHARDS_MAX == CHP_SHARDS_MAX,
	       "the public limits are the cluster's");

struct chp_list {
	struct chp_list *next, *prev;
};

enum chp_call_state {
	CHP_CALL_FREE = 0,
	CHP_CALL_WAITING, /* in shard->waiting, for a session or room in its window */
	CHP_CALL_TO_SEND, /* in a send list */
	CHP_CALL_SENT,    /* timer: send again */
	CHP_CALL_BACKOFF, /* timer: send again with the same number */
	CHP_CALL_RENEW,   /* timer: again with a new number */
	CHP_CALL_PARKED,  /* in c->parked, until INFO was read */
	CHP_CALL_DOOMED,  /* its session is gone with the old cluster shape: about to be ended */
};

struct chp_call {
	struct chp_list list; /* first: a list's node is the call */
	uint8_t state;
	uint8_t opcode;
	uint8_t node;    /* whom to ask; in a session whom it was last sent to: the home is asked */
	uint8_t first_node; /* whom it was sent to first, under this number */
	uint8_t cause;   /* last refusal */
	bool in_session; /* a write, or the session's close */
	bool pinned;     /* this node and no other */
	bool control;    /* goes to the control port */
	bool relaxed;    /* a read that may be old */
	bool own;        /* the library's, not the application's: no callback, no deadline */
	uint8_t key_len;
	uint16_t shard;
	uint32_t value_len;
	uint32_t slot;
	uint32_t heap_at; /* place in the timer heap + 1; 0 = not there */
	uint32_t sent;    /* times under this number */
	uint32_t sent_total;
	uint32_t expired; /* times in a row that no answer came */
	uint32_t refused; /* times that the answer was "later" */
	uint32_t hops;
	uint64_t number; /* 0 = none yet */
	uint64_t asked, asked_again; /* node masks: sent to at least once, more than once */
	uint64_t arg;
	uint64_t submit_ns, first_ns, sent_ns, timer_ns, deadline_ns;
	uint8_t *bytes; /* key, then value; kept for the next call in this slot */
	uint32_t bytes_cap;
	chaapar_callback *callback;
	void *callback_arg;
};

enum chp_client_session_state {
	CHP_SESSION_NONE = 0,
	CHP_SESSION_OPENING,
	CHP_SESSION_OPEN,
	CHP_SESSION_DRAINING, /* lost: no new numbers; NONE when the last number has ended */
};

/* A shard as the client sees it: its session and what waits to go there. */
struct chp_client_shard {
	uint8_t state;        /* enum chp_client_session_state */
	uint8_t home;         /* whom to send the session's requests to */
	bool stuck;           /* calls wait because nobody serves the session: wake them when one does */
	uint64_t id;
	uint64_t epoch;       /* the newest in replies to the session's requests; 0 = none yet */
	uint64_t next;        /* number of the next request */
	uint64_t lowest;      /* lowest number without an end; next - lowest <= the window */
	uint64_t heard_ns;    /* last answer in this session that was believed */
	uint64_t stale_ns;    /* last one that was not, because its view is over */
	uint32_t outstanding; /* numbers without an end */
	struct chp_call *scout[2]; /* of the others, of the session; NULL: nobody was in trouble since the last */
	struct chp_call **ring; /* call of each such number, at number % CHP_SESSION_WINDOW_MAX */
	struct chp_list waiting;
	struct chp_list send;   /* in the session */
	struct chp_list plain;  /* without */
};

struct chp_client_node {
	uint32_t address; /* network byte order; 0: no such member */
	uint64_t srtt_ns, var_ns; /* 0: no measurement yet */
	uint64_t max_ns, max_before_ns; /* longest in this window and in the one before */
	uint64_t window_ns;       /* when this window began */
	uint64_t sampled_ns;      /* last measurement, or when the lack of one was noted */
	uint32_t shift;           /* the wait is doubled so often, until there is a measurement */
	uint64_t heard_ns;
	bool silent;              /* did not answer: nothing but a probe until it is heard again */
	uint32_t failures;        /* in a row */
	uint64_t avoid_ns;        /* leave it alone until then; 0: it is all right */
};

struct chaapar {
	int fd;
	bool in_callback;
	bool closing;
	bool have_info;
	int info_error; /* why the last description was of no use */
	uint8_t node;   /* preferred; CHP_NODES_MAX: none yet */
	struct chaapar_options options;
	struct chaapar_info info;
	uint32_t payload_max; /* bytes of a datagram */
	uint64_t members;     /* mask of node ids */
	struct chp_client_node peer[CHP_NODES_MAX];
	struct chp_client_shard shard[CHP_SHARDS_MAX];

	struct chp_call *call; /* in_flight_max, then one of each shard's session, INFO's, the probe */
	struct chp_list free;
	uint32_t in_flight;
	uint64_t serial;
	struct chp_call **heap;
	uint32_t heap_n;
	struct chp_list parked;
	struct chp_list control; /* calls to send to control ports */
	uint64_t dirty;          /* shards with something to send */

	struct sockaddr_in endpoint[CHP_CLIENT_ENDPOINTS_MAX];
	uint32_t n_endpoints, endpoint_next;
	uint64_t info_ns; /* last time that INFO was asked for */

	struct chp_random random;
	struct chaapar_counters counters;
	struct chp_client_io *io;
	uint8_t *sync_value; /* CHP_PAYLOAD_BYTES_MAX */
};

/* Datagrams on their way between handle and kernel. */
struct chp_client_io {
	struct mmsghdr out_msg[CHP_CLIENT_BURST], in_msg[CHP_CLIENT_BURST];
	struct iovec out_iov[CHP_CLIENT_BURST], in_iov[CHP_CLIENT_BURST];
	struct sockaddr_in out_addr[CHP_CLIENT_BURST], in_addr[CHP_CLIENT_BURST];
	uint32_t out_head, out_n; /* built and not sent: head .. n - 1 */
	uint8_t out[CHP_CLIENT_BURST][CHP_PAYLOAD_BYTES_MAX];
	uint8_t in[CHP_CLIENT_BURST][CHP_PAYLOAD_BYTES_MAX];
};

/* ---- lists ---- */

static inline void
chp_list_init(struct chp_list *l)
{
	l->next = l->prev = l;
}

static inline bool
chp_list_is_empty(const struct chp_list *l)
{
	return l->next == l;
}

static inline void
chp_list_add_tail(struct chp_list *l, struct chp_list *node)
{
	node->prev = l->prev;
	node->next = l;
	l->prev->next = node;
	l->prev = node;
}

/* Leaves the node pointing to itself: removing it again is harmless. */
static inline void
chp_list_remove(struct chp_list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	chp_list_init(node);
}

static inline struct chp_call *
chp_list_first(const struct chp_list *l)
{
	return (struct chp_call *)(void *)l->next;
}

uint64_t chp_client_now(void);

/* The call that opens or closes a shard's session, and the one that fetches INFO. */
static inline struct chp_call *
chp_session_call(struct chaapar *c, uint32_t shard)
{
	return &c->call[c->options.in_flight_max + shard];
}

static inline struct chp_call *
chp_info_call(struct chaapar *c)
{
	return &c->call[c->options.in_flight_max + CHP_SHARDS_MAX];
}

/* The call that asks a silent member whether it is back. */
static inline struct chp_call *
chp_probe_call(struct chaapar *c)
{
	return &c->call[c->options.in_flight_max + CHP_SHARDS_MAX + 1];
}

/* ---- call.c: slots, timers, the end of a call ---- */

/** Act on the call at this time, or at its deadline if that is earlier. CHP_NEVER: the deadline
 * only. */
void chp_call_arm(struct chaapar *c, struct chp_call *call, uint64_t timer_ns);
void chp_call_disarm(struct chaapar *c, struct chp_call *call);

/** Put a call into its send list. Without a session it gets a number if it has none. */
void chp_call_send(struct chaapar *c, struct chp_call *call);

/** Put a write into its shard's queue for a number. */
void chp_call_wait(struct chaapar *c, struct chp_call *call);

/**
 * Wait as after a refusal, then go on from `state`: CHP_CALL_BACKOFF or CHP_CALL_RENEW.
 *
 * @param unit_ns  the first wait, CHP_CLIENT_BACKOFF_NS or CHP_CLIENT_SCOUT_NS
 */
void chp_call_back_off(struct chaapar *c, struct chp_call *call, enum chp_call_state state,
		       uint64_t unit_ns, uint64_t now);

/** Whether a call in trouble is the one that finds out when its shard is served again: it becomes that
 * if there is none. */
bool chp_call_scouts(struct chaapar *c, struct chp_call *call);

/** A call was answered by a member: if others waited for that, send them there. */
void chp_call_served(struct chaapar *c, struct chp_call *call, uint8_t node, uint64_t now);

/** Take a number away from a call: it is burnt. */
void chp_call_release_number(struct chaapar *c, struct chp_call *call);

/**
 * End a call: its slot is free when the callback runs.
 *
 * @param m     the answer, or NULL
 * @param node  who gave it, or CHAAPAR_ANY_NODE
 */
void chp_call_finish(struct chaapar *c, struct chp_call *call, enum chaapar_status status,
		     const struct chp_reply_message *m, int node);

/** Stop one of the library's own calls. */
void chp_call_stop(struct chaapar *c, struct chp_call *call);

/** Start one of the library's own calls in its slot. */
void chp_call_start_own(struct chp_call *call, uint8_t opcode, uint32_t shard);

/** Do what is due. */
void chp_call_timers(struct chaapar *c, uint64_t now);

/* ---- peer.c: which member to ask ---- */

/** The member to ask after this one, good ones first; the same if there is no other. A handle that
 * must stay at its node is sent there. */
uint8_t chp_peer_next(const struct chaapar *c, uint8_t node, uint64_t now);

/** Whom a call that any member can answer goes to: the preferred one unless it is in trouble. */
uint8_t chp_peer_choose(struct chaapar *c, uint32_t shard, uint64_t now);

/** Whether there is another member that a call of this handle may go to. */
bool chp_peer_has_other(const struct chaapar *c);

/** Whether a member is to be left alone now. */
bool chp_peer_is_avoided(const struct chaapar *c, uint8_t node, uint64_t now);

/** A member gave no answer (silent) or does not serve: leave it alone for a while. */
void chp_peer_failed(struct chaapar *c, uint8_t node, bool silent, uint64_t now);

/** A member answered. */
void chp_peer_heard(struct chaapar *c, uint8_t node, const struct chp_reply_message *m,
		    uint64_t now);

/* ---- session.c ---- */

void chp_session_init(struct chp_client_shard *s);

/** Give numbers to writes that wait, opening a session first where there is none. */
void chp_session_pump(struct chaapar *c, uint32_t shard, uint64_t now);

/** The session is of no use any more: give out no numbers of it. */
void chp_session_lose(struct chaapar *c, uint32_t shard);

/** A write ended. If nobody waits any more for a session that was refused, do not try it again. */
void chp_session_abandon(struct chaapar *c, uint32_t shard);

/** A session could not be opened: remember why, for the writes that wait for it. */
void chp_session_refused(struct chaapar *c, uint32_t shard, uint8_t status);

/** The answer to the session's own call. */
void chp_session_answer(struct chaapar *c, struct chp_call *call, const struct chp_reply_header *h,
			const struct chp_reply_message *m);

/** A member answered as the session's home, or was named as it. */
void chp_session_follow(struct chaapar *c, uint32_t shard, uint8_t node, uint64_t now);

/** Something changed for the better: send again at once what waits or was sent to a member in
 * trouble. */
void chp_session_wake(struct chaapar *c, uint32_t shard, uint64_t now);

/** Begin to close every open session; true if there is any. */
bool chp_session_close_all(struct chaapar *c);

/* ---- datagram.c: what is sent and received ---- */

/** Build and send what is to be sent. True if the socket took everything. */
bool chp_client_flush(struct chaapar *c);

/** Take what has arrived. Returns 0 or a negative errno. */
int chp_client_receive(struct chaapar *c);

/* ---- answer.c ---- */

/** Take one reply message of a datagram whose header was accepted. */
void chp_answer(struct chaapar *c, const struct chp_reply_header *h,
		const struct chp_reply_message *m, const struct sockaddr_in *from, uint64_t now);

/* ---- info.c ---- */

/** Resolve "host:port,host". Errors: -EINVAL, -ENOENT. */
int chp_info_endpoints(struct chaapar *c, const char *text);

/** Fetch INFO unless that is under way. */
void chp_info_fetch(struct chaapar *c, uint64_t now);

/** Whom the next INFO goes to. */
struct sockaddr_in chp_info_address(const struct chaapar *c);

/** Whether an address is one that may answer INFO. */
bool chp_info_is_source(const struct chaapar *c, const struct sockaddr_in *from);

/** The answer to INFO. */
void chp_info_answer(struct chaapar *c, const struct chp_reply_message *m);

/**
 * Read a description of a cluster.
 *
 * @param text  len bytes of JSON
 * @return      0, or -EPROTO when it is no description that this library can use; out is
 *              unspecified
 */
int chp_info_parse(const void *text, size_t len, struct chaapar_info *out);

#endif /* CHP_CLIENT_INTERNAL_H */
