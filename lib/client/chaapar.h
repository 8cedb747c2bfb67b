/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * chaapar.h - the client library: a linearizable key-value service over ordinary UDP sockets.
 *
 *     int err;
 *     struct chaapar *c = chaapar_open("10.99.0.10,10.99.0.11", NULL, &err);
 *     struct chaapar_result r;
 *
 *     chaapar_put_sync(c, "k", 1, "v", 1, &r);
 *     if (chaapar_get_sync(c, "k", 1, &r) == CHAAPAR_OK)
 *             fwrite(r.value, 1, r.value_len, stdout);
 *     chaapar_close(c);
 *
 * A handle has one socket and no threads: work is done inside chaapar_poll and the *_sync calls.
 * Submitted requests to one shard leave in one datagram, as many as fit. Lost ones are sent again
 * with the same number, so that a write is applied once however often it travels. Requests in
 * flight at the same time have no order among each other: wait for the answer of the first where
 * order matters.
 *
 * Thread rule: one handle belongs to one thread at a time. Different handles share nothing.
 */
#ifndef CHAAPAR_H
#define CHAAPAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CHAAPAR_API __attribute__((visibility("default")))

/* Where an endpoint without a port is asked: at the control ports that clusters with this
 * port_base, the default, have: 7170 (of 2 shards), 7169 (of 1), then those of 4, 8, 16, 32, 64
 * shards. */
#define CHAAPAR_PORT_BASE_DEFAULT 7168

#define CHAAPAR_ANY_NODE (-1)
#define CHAAPAR_NODES_MAX 64
#define CHAAPAR_SHARDS_MAX 64
#define CHAAPAR_NAME_BYTES 64
/* More requests in flight than this are of no use: a session's window is 1,024 at most. */
#define CHAAPAR_IN_FLIGHT_MAX 65536

/* How a request ended. */
enum chaapar_status {
	CHAAPAR_OK = 0,
	/* Answers that say something about the key. Nothing was changed. */
	CHAAPAR_NOT_FOUND = 1,      /* the key is absent */
	CHAAPAR_EXISTS = 2,         /* add: the key is present */
	CHAAPAR_COMPARE_FAILED = 3, /* cas: the key has another version */
	CHAAPAR_NOT_NUMBER = 4,     /* incr, decr: the value is no unsigned 64-bit number */
	CHAAPAR_TOO_LARGE = 5,      /* the value, or what append makes of it, is too long */
	CHAAPAR_BAD_KEY = 6,        /* empty or longer than the maximum */
	/* Refusals. The operation was certainly not applied and will not be. What is "only as a
	 * cause" says nothing about the sendings of the request before the one that it refused. */
	CHAAPAR_BAD_REQUEST = 7,    /* the replica did not understand it */
	CHAAPAR_UNKNOWN_OP = 8,     /* the replica is of a version without this operation */
	CHAAPAR_WRONG_SHARD = 9,    /* replicas and library cannot agree where the key belongs */
	CHAAPAR_BUSY = 10,          /* no room until the time-out */
	CHAAPAR_OVERLOAD = 11,      /* only as a cause */
	CHAAPAR_FULL = 12,          /* the data cache has no room for the key or value */
	CHAAPAR_SESSION_UNKNOWN = 13, /* only as a cause */
	CHAAPAR_SESSION_WINDOW = 14, /* only as a cause */
	CHAAPAR_SESSIONS_FULL = 15, /* no room for another session */
	/* The outcome of a write is not known: it may have been applied, or not. */
	CHAAPAR_UNKNOWN = 16,
	CHAAPAR_REDIRECT = 17,      /* only as a cause */
	CHAAPAR_NOT_SERVING = 18,   /* only as a cause */
	CHAAPAR_TIMEOUT = 64,       /* no answer in time; a write may be applied, or not */
	CHAAPAR_CLOSED = 65,        /* the handle was closed before the answer; the same */
	/* Certainly not applied. */
	CHAAPAR_UNSENT = 66,        /* the time-out passed before it could be sent even once */
	CHAAPAR_NO_MEMORY = 67,     /* *_sync only */
	CHAAPAR_BAD_CALL = 68,      /* *_sync only: called inside a callback */
};

/* The result of a request. */
struct chaapar_result {
	enum chaapar_status status;
	/* The last refusal that a replica gave on the way, else CHAAPAR_OK: why a request timed
	 * out. */
	enum chaapar_status cause;
	/* get: the value. Valid inside the callback; after a *_sync call until the next call on the
	 * handle. */
	const void *value;
	size_t value_len;
	uint64_t version;    /* get: the value's; writes: the new one; a failed cas: the key's */
	uint64_t number;     /* incr, decr: the new number */
	uint64_t latency_ns; /* from the submission to the end */
	uint32_t retries;    /* times it was sent beyond the first */
	bool relaxed;        /* get: what was found may be older than the newest write */
	int node;            /* who answered; CHAAPAR_ANY_NODE: nobody */
};

struct chaapar;

/* Called once for each submitted request, from chaapar_poll, chaapar_close or a *_sync call. It may
 * submit requests; it must not poll, close or call *_sync. */
typedef void chaapar_callback(struct chaapar *c, void *arg, const struct chaapar_result *r);

struct chaapar_options {
	int node;               /* the replica to talk to; CHAAPAR_ANY_NODE: one by chance */
	bool only_node;         /* stay at `node` also when it does not answer; what only another
				 * replica can execute follows its redirects there */
	uint32_t timeout_ms;    /* of each request, and of chaapar_open; 0: 3000 */
	uint32_t in_flight_max; /* requests submitted and not ended; 0: 1024 */
};

/* How many replicas must have a write before it is acknowledged, where the protocol lets one choose. */
enum chaapar_quorum {
	CHAAPAR_QUORUM_MAJORITY = 0,
	CHAAPAR_QUORUM_ALL = 1, /* every voter of the cluster file: one that is dead stops all writes */
	CHAAPAR_QUORUM_ASK = 2, /* changes nothing */
};

#define CHAAPAR_OPTIONS_INIT { CHAAPAR_ANY_NODE, false, 0, 0 }

struct chaapar_member {
	uint32_t id;
	char name[CHAAPAR_NAME_BYTES];
	char address[16]; /* IPv4 */
};

/* The cluster, as a replica described it. */
struct chaapar_info {
	char name[CHAAPAR_NAME_BYTES];
	char protocol[CHAAPAR_NAME_BYTES]; /* "hermes", "zab"; empty: the replica does not say */
	uint32_t hash;           /* of the cluster's configuration */
	uint32_t shards;
	uint64_t hash_seed;
	uint32_t port_base;      /* UDP port of shard 0 */
	uint32_t control_port;
	uint32_t mtu;
	uint32_t key_bytes_max;
	uint32_t value_bytes_max;
	uint32_t session_window; /* writes that one handle may have in flight per shard */
	uint64_t epoch;
	uint32_t node;           /* who described it */
	uint32_t n_members;
	struct chaapar_member member[CHAAPAR_NODES_MAX];
};

struct chaapar_counters {
	uint64_t requests;           /* submitted */
	uint64_t completed;          /* ended */
	uint64_t datagrams_sent;
	uint64_t datagrams_received;
	uint64_t retransmits;        /* requests sent again because no answer came */
	uint64_t timeouts;           /* ended with CHAAPAR_TIMEOUT or CHAAPAR_UNSENT */
	uint64_t late;               /* answers to what had ended before, duplicates too */
	uint64_t malformed;          /* datagrams that are no valid reply of this cluster */
	uint64_t busy;               /* answers "busy" */
	uint64_t overload;           /* answers "overload" */
	uint64_t redirects;
	uint64_t not_serving;
	uint64_t sessions_opened;
	uint64_t sessions_lost;      /* expired, or given up because nobody answered in them */
	uint64_t info_fetched;       /* descriptions of the cluster taken */
	uint64_t send_errors;        /* datagrams that the kernel refused */
	uint64_t failovers;          /* times that a replica fell silent and others were asked */
	uint64_t stale;              /* answers to writes from a view that was over, not believed */
};

/**
 * Open a handle: ask the endpoints in turn for the cluster's shape until one answers.
 *
 * @param endpoints  "10.99.0.10:7170,host2": addresses or names of up to 16 replicas, each with its
 *                   control port (port_base + shards rounded up to a power of two) or without
 * @param options    NULL or CHAAPAR_OPTIONS_INIT with changes; copied
 * @param err        NULL or set to 0 or a negative errno
 * @return           the handle, or NULL
 *
 * Errors:  -EINVAL endpoints or options; -ENOENT a name is not known, or there is no such node;
 *          -ETIMEDOUT no endpoint answered; -EPROTO an endpoint answered what cannot be used;
 *          -ENOMEM; any error of socket()
 */
CHAAPAR_API struct chaapar *chaapar_open(const char *endpoints,
					 const struct chaapar_options *options, int *err);

/**
 * Close a handle. Requests that have not ended end with CHAAPAR_CLOSED. Sessions are closed if the
 * replica answers within 100 ms; otherwise they expire there. Accepts NULL.
 */
CHAAPAR_API void chaapar_close(struct chaapar *c);

/**
 * Submit a request. It leaves with the next chaapar_flush or chaapar_poll; the callback gets the
 * result.
 *
 * @param key, value  copied
 * @param callback    NULL: the result is of no interest
 * @return            0 or a negative errno; the callback is called only after 0
 *
 * Errors:  -EAGAIN in_flight_max requests are in flight: poll first; -EINVAL the key is empty or
 *          too long; -EMSGSIZE the value is beyond the cluster's maximum; -ESHUTDOWN the handle is
 *          being closed; -ENOMEM
 */
CHAAPAR_API int chaapar_get(struct chaapar *c, const void *key, size_t key_len,
			    chaapar_callback *callback, void *arg);
/** Read what one replica has, however old: no replica is asked but that one, which must have a complete
 * copy but neither a lease nor a leader. result->relaxed tells whether the answer is such a one. */
CHAAPAR_API int chaapar_get_relaxed(struct chaapar *c, const void *key, size_t key_len,
				    chaapar_callback *callback, void *arg);
CHAAPAR_API int chaapar_put(struct chaapar *c, const void *key, size_t key_len, const void *value,
			    size_t value_len, chaapar_callback *callback, void *arg);
CHAAPAR_API int chaapar_delete(struct chaapar *c, const void *key, size_t key_len,
			       chaapar_callback *callback, void *arg);
/** Write if the key still has this version, as a get returned it. */
CHAAPAR_API int chaapar_cas(struct chaapar *c, const void *key, size_t key_len, uint64_t version,
			    const void *value, size_t value_len, chaapar_callback *callback,
			    void *arg);
/** Write if the key is absent. */
CHAAPAR_API int chaapar_add(struct chaapar *c, const void *key, size_t key_len, const void *value,
			    size_t value_len, chaapar_callback *callback, void *arg);
/** Write if the key is present. */
CHAAPAR_API int chaapar_replace(struct chaapar *c, const void *key, size_t key_len,
				const void *value, size_t value_len, chaapar_callback *callback,
				void *arg);
CHAAPAR_API int chaapar_append(struct chaapar *c, const void *key, size_t key_len,
			       const void *value, size_t value_len, chaapar_callback *callback,
			       void *arg);
CHAAPAR_API int chaapar_prepend(struct chaapar *c, const void *key, size_t key_len,
				const void *value, size_t value_len, chaapar_callback *callback,
				void *arg);
/** Add to, or take from, a value that is a decimal number. incr wraps at 2^64, decr stops at 0. */
CHAAPAR_API int chaapar_incr(struct chaapar *c, const void *key, size_t key_len, uint64_t delta,
			     chaapar_callback *callback, void *arg);
CHAAPAR_API int chaapar_decr(struct chaapar *c, const void *key, size_t key_len, uint64_t delta,
			     chaapar_callback *callback, void *arg);
/** A round trip to one shard of one replica. Errors: also -ENOENT no such node or shard. */
CHAAPAR_API int chaapar_ping(struct chaapar *c, uint32_t node, uint32_t shard,
			     chaapar_callback *callback, void *arg);

/**
 * Set the rule by which one shard acknowledges writes, or ask for it. result->number is the rule in force
 * when it was executed. Setting it twice, as a retry may, is like setting it once. CHAAPAR_UNKNOWN_OP:
 * the cluster's protocol has no such choice.
 *
 * Errors:  also -ENOENT no such shard; -EINVAL no such rule
 */
CHAAPAR_API int chaapar_quorum(struct chaapar *c, uint32_t shard, enum chaapar_quorum rule,
			       chaapar_callback *callback, void *arg);

/** Send what was submitted. Errors: none; what the socket does not take leaves later. */
CHAAPAR_API void chaapar_flush(struct chaapar *c);

/**
 * Send, receive, retry, time out, call back. Returns when at least one request ended or the time is
 * up.
 *
 * @param timeout_ms  0: do not wait; negative: wait as long as any request is in flight
 * @return            requests that ended, or a negative errno
 *
 * Errors:  -EDEADLK called inside a callback; -EINTR a signal came first; any error of ppoll()
 */
CHAAPAR_API int chaapar_poll(struct chaapar *c, int timeout_ms);

/** For event loops: wait until the descriptor is readable or this time has passed, then call
 * chaapar_poll with 0. The time is -1 when nothing is in flight, else in nanoseconds. */
CHAAPAR_API int chaapar_fd(const struct chaapar *c);
CHAAPAR_API int64_t chaapar_wait_ns(const struct chaapar *c);

/** Requests submitted and not ended. */
CHAAPAR_API uint32_t chaapar_in_flight(const struct chaapar *c);

/**
 * The same operations, waiting for the end. Other requests in flight make progress meanwhile.
 *
 * @param result  NULL or filled
 * @return        result->status
 */
CHAAPAR_API enum chaapar_status chaapar_get_sync(struct chaapar *c, const void *key, size_t key_len,
						 struct chaapar_result *result);
CHAAPAR_API enum chaapar_status chaapar_get_relaxed_sync(struct chaapar *c, const void *key,
							 size_t key_len,
							 struct chaapar_result *result);
CHAAPAR_API enum chaapar_status chaapar_put_sync(struct chaapar *c, const void *key, size_t key_len,
						 const void *value, size_t value_len,
						 struct chaapar_result *result);
CHAAPAR_API enum chaapar_status chaapar_delete_sync(struct chaapar *c, const void *key,
						    size_t key_len, struct chaapar_result *result);
CHAAPAR_API enum chaapar_status chaapar_cas_sync(struct chaapar *c, const void *key, size_t key_len,
						 uint64_t version, const void *value,
						 size_t value_len, struct chaapar_result *result);
CHAAPAR_API enum chaapar_status chaapar_add_sync(struct chaapar *c, const void *key, size_t key_len,
						 const void *value, size_t value_len,
						 struct chaapar_result *result);
CHAAPAR_API enum chaapar_status chaapar_replace_sync(struct chaapar *c, const void *key,
						     size_t key_len, const void *value,
						     size_t value_len,
						     struct chaapar_result *result);
CHAAPAR_API enum chaapar_status chaapar_append_sync(struct chaapar *c, const void *key,
						    size_t key_len, const void *value,
						    size_t value_len,
						    struct chaapar_result *result);
CHAAPAR_API enum chaapar_status chaapar_prepend_sync(struct chaapar *c, const void *key,
						     size_t key_len, const void *value,
						     size_t value_len,
						     struct chaapar_result *result);
CHAAPAR_API enum chaapar_status chaapar_incr_sync(struct chaapar *c, const void *key,
						  size_t key_len, uint64_t delta,
						  struct chaapar_result *result);
CHAAPAR_API enum chaapar_status chaapar_decr_sync(struct chaapar *c, const void *key,
						  size_t key_len, uint64_t delta,
						  struct chaapar_result *result);
CHAAPAR_API enum chaapar_status chaapar_ping_sync(struct chaapar *c, uint32_t node, uint32_t shard,
						  struct chaapar_result *result);
CHAAPAR_API enum chaapar_status chaapar_quorum_sync(struct chaapar *c, uint32_t shard,
						    enum chaapar_quorum rule,
						    struct chaapar_result *result);

/**
 * Counters of one replica as JSON text.
 *
 * @param section  0: the node; 1 + s: its shard s
 * @param text     set to malloc'd text, for free(); NULL unless the result is CHAAPAR_OK
 */
CHAAPAR_API enum chaapar_status chaapar_node_status(struct chaapar *c, uint32_t node,
						    uint32_t section, char **text);

/**
 * The same without waiting, part by part: the result's value is the part's text and its number how
 * many parts there are. Parts of one text have the same version; begin again if it changes.
 *
 * Errors:  as of chaapar_ping; -EINVAL section or part is 65,536 or more
 */
CHAAPAR_API int chaapar_node_part(struct chaapar *c, uint32_t node, uint32_t section, uint32_t part,
				  chaapar_callback *callback, void *arg);

/** The cluster's shape as last fetched. Owns: valid until the next call on the handle. */
CHAAPAR_API const struct chaapar_info *chaapar_info(const struct chaapar *c);

/** The replica that this handle prefers. */
CHAAPAR_API uint32_t chaapar_node(const struct chaapar *c);

/** The shard of a key. */
CHAAPAR_API uint32_t chaapar_shard_of(const struct chaapar *c, const void *key, size_t key_len);

CHAAPAR_API void chaapar_get_counters(const struct chaapar *c, struct chaapar_counters *out);

/** Name of a status, as "not_found". Static storage. */
CHAAPAR_API const char *chaapar_status_name(enum chaapar_status status);

/** A sentence for people about a status, or about a negative errno that a call returned. */
CHAAPAR_API const char *chaapar_strerror(int status_or_errno);

/** Whether a write that ended like this may have been applied or not, and nobody can tell. */
CHAAPAR_API bool chaapar_outcome_unknown(enum chaapar_status status);

#ifdef __cplusplus
}
#endif

#endif /* CHAAPAR_H */
