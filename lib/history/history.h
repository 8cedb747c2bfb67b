/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * history.h - what clients asked and what they were told, recorded, read and written as JSON lines.
 *
 * A history is an array of operations. Each is the pair of an invocation and its completion; one
 * whose completion is missing or says "unknown" may or may not have taken effect. linear.h judges a
 * history.
 *
 * The text form is one JSON object a line, one event each:
 *
 *   {"t":5,"client":1,"req":7,"type":"invoke","op":"put","key":"k","value":"v","node":0}
 *   {"t":9,"client":1,"req":7,"type":"ok","op":"put","key":"k","version":65536,"node":0}
 *
 *   t        ns, any origin, the same clock for all events            every event
 *   client   number of the client                                     every event
 *   req      number of the request, given once per client             every event
 *   type     invoke, ok, fail (certainly not applied), unknown        every event
 *   op       get put delete cas add replace append prepend incr decr  invoke; else checked
 *   key      bytes of the key                                         invoke; else checked
 *   value    what is written (invoke), what a get found (ok; null: nothing)
 *   expect   version a cas expects                                    invoke of cas
 *   delta    operand                                                  invoke of incr, decr
 *   version  version written by a mutation, seen by a get, or seen by an operation that failed
 *   number   result of incr, decr                                     optional
 *   status   why an operation failed: not_found, exists, compare_failed, not_number; any other word
 *            says only that it was not applied                        optional
 *   node     who was asked                                            optional
 *
 * Bytes that are not UTF-8 stand as base64 in key64 and value64 instead. Numbers are unsigned
 * 64-bit, plain or as a string of digits (many JSON tools lose digits above 2^53). Version 0 means
 * none. Other fields are skipped when their value is a string, a number, true, false or null.
 *
 * Owner:   whoever called chp_history_init; one thread at a time writes, any number may read.
 * Memory:  malloc; operations, keys and copies of all bytes are the history's until reset or fini.
 * Limits:  2^31 operations; lines of CHP_HISTORY_LINE_BYTES_MAX.
 */
#ifndef CHP_HISTORY_HISTORY_H
#define CHP_HISTORY_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A longer line is an error of the reader. 512 KiB of control characters need 3 MiB as JSON. */
#define CHP_HISTORY_LINE_BYTES_MAX (4u * 1024u * 1024u)
#define CHP_HISTORY_OPS_MAX (UINT32_C(1) << 31)

#define CHP_HISTORY_NEVER UINT64_MAX /* complete_ns of an operation that is still open */
#define CHP_HISTORY_NONE UINT32_MAX  /* no operation, no key, no node */
#define CHP_HISTORY_NO_VERSION UINT64_C(0)

enum chp_history_kind {
	CHP_HISTORY_GET = 0,
	CHP_HISTORY_PUT,
	CHP_HISTORY_DELETE,
	CHP_HISTORY_CAS,
	CHP_HISTORY_ADD,
	CHP_HISTORY_REPLACE,
	CHP_HISTORY_APPEND,
	CHP_HISTORY_PREPEND,
	CHP_HISTORY_INCR,
	CHP_HISTORY_DECR,
};
#define CHP_HISTORY_N_KINDS 10u

enum chp_history_outcome {
	CHP_HISTORY_OPEN = 0, /* no completion (yet): judged as unknown */
	CHP_HISTORY_OK,
	CHP_HISTORY_FAIL,    /* certainly not applied */
	CHP_HISTORY_UNKNOWN, /* applied or not, perhaps later */
};

/*
 * Why an operation failed. OTHER is every reason that says nothing about the key: busy, full, too
 * large.
 */
enum chp_history_status {
	CHP_HISTORY_STATUS_NONE = 0,
	CHP_HISTORY_NOT_FOUND,
	CHP_HISTORY_EXISTS,
	CHP_HISTORY_COMPARE_FAILED,
	CHP_HISTORY_NOT_NUMBER,
	CHP_HISTORY_STATUS_OTHER,
};

/* An invocation. All fields are the caller's; bytes are copied. */
struct chp_history_call {
	uint64_t t_ns;
	uint64_t client;
	uint64_t req;
	enum chp_history_kind kind;
	uint32_t node; /* CHP_HISTORY_NONE: not known */
	const void *key;
	const void *value; /* put, cas, add, replace, append, prepend: not NULL, even if empty */
	uint32_t key_len;
	uint32_t value_len;
	uint64_t arg; /* cas: version expected; incr, decr: operand; else 0 */
};

/* A completion. */
struct chp_history_result {
	uint64_t t_ns;
	enum chp_history_outcome outcome; /* OK, FAIL or UNKNOWN */
	enum chp_history_status status;   /* of FAIL */
	uint32_t node;                    /* CHP_HISTORY_NONE: as the invocation says */
	uint32_t value_len;
	const void *value; /* an OK get: what it found, NULL: nothing; else NULL */
	uint64_t version;  /* written, or seen; CHP_HISTORY_NO_VERSION: not known */
	uint64_t number;   /* OK incr, decr, if has_number */
	bool has_number;
};

/* One operation as the history holds it. */
struct chp_history_op {
	uint64_t invoke_ns;
	uint64_t complete_ns; /* CHP_HISTORY_NEVER while open */
	uint64_t client;
	uint64_t req;
	uint64_t arg;
	uint64_t version;
	uint64_t number;
	const uint8_t *value; /* argument of a write or result of a get; NULL: none */
	uint32_t value_len;
	uint32_t key;  /* index of the key */
	uint32_t next; /* next operation on this key, as recorded; CHP_HISTORY_NONE: last */
	uint32_t node;
	uint8_t kind;    /* enum chp_history_kind */
	uint8_t outcome; /* enum chp_history_outcome */
	uint8_t status;  /* enum chp_history_status */
	bool has_number;
};

struct chp_history_key {
	const uint8_t *bytes;
	uint64_t hash;
	uint32_t len;
	uint32_t first; /* its operations: first, then op[].next */
	uint32_t last;
	uint32_t n_ops;
};

struct chp_history_chunk;

/* Read the arrays freely; change them only through the functions below. */
struct chp_history {
	struct chp_history_op *op;
	struct chp_history_key *key;
	uint32_t *slot; /* open-addressed index of the keys: 0 free, else key + 1 */
	struct chp_history_chunk *chunk;
	struct chp_history_chunk *spare; /* chunks kept by reset */
	uint32_t n_ops;
	uint32_t ops_cap;
	uint32_t n_keys;
	uint32_t keys_cap;
	uint32_t slots_cap; /* 0 or a power of two */
};

struct chp_history_error {
	uint64_t line;  /* 1-based; 0: not about a line */
	char text[256]; /* "line 3: field \"t\": expected ...", always terminated */
};

/** Make an empty history. Errors: none; the first memory is taken by the first invocation. */
void chp_history_init(struct chp_history *h);

/** Give back all memory. Accepts a zeroed history; it may be used again as if just initialised. */
void chp_history_fini(struct chp_history *h);

/** Forget all operations but keep the memory for the next ones. Pointers into it become invalid. */
void chp_history_reset(struct chp_history *h);

/**
 * Record an invocation.
 *
 * @param c  copied; that a client gives a request number once only the reader checks
 * @return   index of the operation, for chp_history_complete; it counts from 0
 *
 * Owns:     h->op and h->key may move; indices stay
 * Errors:   -EINVAL the value is missing or not allowed, or the kind is not one; -ENOMEM;
 *           -EOVERFLOW more than CHP_HISTORY_OPS_MAX operations. The history is unchanged.
 */
int64_t chp_history_invoke(struct chp_history *h, const struct chp_history_call *c);

/**
 * Record the completion of an operation.
 *
 * @param idx  what chp_history_invoke returned
 * @return     0 or a negative error; the history is unchanged then
 *
 * Errors:   -EINVAL no such operation, completed before invoked, OPEN as outcome, or a value on
 *           anything but an OK get; -EALREADY it has a completion; -ENOMEM
 */
int chp_history_complete(struct chp_history *h, uint32_t idx, const struct chp_history_result *r);

/**
 * Replace the history by what a text says.
 *
 * @param text  len bytes of JSON lines, need not end in a line feed; not kept
 * @param err   NULL or where to say what is wrong
 * @return      0 or a negative error; the history then holds the operations before the faulty line
 *
 * Errors:   -EINVAL the text, see err; -ENOMEM; -EOVERFLOW too many operations
 */
int chp_history_parse(struct chp_history *h, const char *text, size_t len,
		      struct chp_history_error *err);

/** As chp_history_parse, from a stream up to its end. Errors: those, and -EIO the stream failed. */
int chp_history_read(struct chp_history *h, FILE *f, struct chp_history_error *err);

/**
 * One event as a line of text, line feed included.
 *
 * @param buf  gets at most cap - 1 bytes and a zero; may be NULL when cap is 0
 * @return     length of the whole line without the zero, as snprintf
 *
 * Errors:   none; a kind or outcome out of range is a caller's fault and asserted
 */
size_t chp_history_format_call(const struct chp_history_call *c, char *buf, size_t cap);
size_t chp_history_format_result(const struct chp_history_call *c,
				 const struct chp_history_result *r, char *buf, size_t cap);

/**
 * Write one event as a line, with one fwrite, so that threads that share a stream do not mix their
 * lines.
 *
 * @param c  the invocation, also for its completion; its value is not repeated there
 *
 * Errors:   -EIO the stream failed; -ENOMEM a line above 4 KiB and no memory
 */
int chp_history_write_call(FILE *f, const struct chp_history_call *c);
int chp_history_write_result(FILE *f, const struct chp_history_call *c,
			     const struct chp_history_result *r);

/** Write all events by time; reading them gives an equal history. Errors: -EIO, -ENOMEM. */
int chp_history_write(const struct chp_history *h, FILE *f);

/** Name of a kind, outcome or status as in the text form; "open", "none", "?" are not used there. */
const char *chp_history_kind_name(uint32_t kind);
const char *chp_history_outcome_name(uint32_t outcome);
const char *chp_history_status_name(uint32_t status);

/** A 64-bit hash of bytes, good for tables; not stable between releases. Errors: none. */
uint64_t chp_history_hash(const void *data, size_t len);

/** True if the bytes are well-formed UTF-8. */
bool chp_history_is_utf8(const void *data, size_t len);

#endif /* CHP_HISTORY_HISTORY_H */
