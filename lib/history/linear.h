/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * linear.h - is a history linearizable? Judged key by key.
 *
 * Each key is a register (exists, value, version) that starts absent. An operation takes effect at
 * one moment between its invocation and its completion, both included; one whose outcome is unknown
 * takes effect at some moment after its invocation or never. Each outcome has to be what that order
 * gives:
 *
 *   put          always                    get      the value, and its version if it names one
 *   add          the key is absent         delete, replace, append, prepend   the key exists
 *   cas          the key exists at exactly the expected version
 *   incr, decr   the key holds 1 to 20 ASCII digits below 2^64; incr wraps at 2^64, decr stops at
 *                0; the result is decimal without leading zeros
 *   fail         never applied. It tells something only with one of these reasons: not_found
 *                (absent; not of put and add), exists (of add), compare_failed (of cas: exists at
 *                another version), not_number (of incr, decr). A version that comes with the last
 *                three is the one seen.
 *
 * Versions: mutations of one key have distinct versions which grow in that same order. An operation
 * that saw a version saw what that mutation wrote. A not-found outcome names no version; one that
 * is given is ignored. Operations may lack versions (histories of other systems): then values alone
 * decide.
 *
 * How: first the order by version is tried as a witness and verified in full: real time, versions,
 * values, results; n log n. Where that fails, the common contradictions between two or three
 * operations are looked for (a stale read, a value that nothing wrote); what then remains, and keys
 * without versions, is searched (Wing and Gong's algorithm with Lowe's memory of configurations).
 * The problem is NP-complete, so a search may reach its limit: then the verdict is undecided, never
 * ok. The memory holds 128-bit hashes.
 *
 * Memory:  malloc, given back before the return: about 450 bytes for each operation of the key with
 *          the most, plus bytes_max for its search.
 * Threads: no shared state; any number of checks at once, also of one history that nobody changes.
 */
#ifndef CHP_HISTORY_LINEAR_H
#define CHP_HISTORY_LINEAR_H

#include "history/history.h"

#define CHP_LINEAR_STATES_MAX (UINT64_C(1) << 20) /* default */
#define CHP_LINEAR_BYTES_MAX (UINT64_C(1) << 29)  /* default */
#define CHP_LINEAR_TEXT_BYTES_MAX 8192u

enum chp_linear_verdict {
	CHP_LINEAR_OK = 0,
	CHP_LINEAR_UNDECIDED, /* a limit was reached and nothing wrong was found */
	CHP_LINEAR_VIOLATION,
};

enum chp_linear_fault {
	CHP_LINEAR_NO_FAULT = 0,
	CHP_LINEAR_NO_ORDER,      /* no order of the operations explains what they returned */
	CHP_LINEAR_VERSION_ORDER, /* none with growing versions does; without versions one may */
	CHP_LINEAR_VERSION_TWICE, /* two mutations of one key were given the same version */
};

/* Every 0 stands for the default. */
struct chp_linear_limits {
	uint64_t states_max;     /* configurations a search may try, above one an operation */
	uint64_t bytes_max;      /* memory for configurations and values that one search may hold */
	uint32_t violations_max; /* stop after so many keys with a violation; default 1 */
	bool search_only;        /* leave out all that spares a search: for tests and comparisons */
};

struct chp_linear_report {
	enum chp_linear_verdict verdict; /* the worst of all keys judged */
	enum chp_linear_fault fault;     /* of the first violation */
	uint32_t key;             /* of the first violation, else the first undecided; else NONE */
	uint32_t op;              /* one that cannot be placed; else CHP_HISTORY_NONE */
	uint64_t keys_by_version; /* found right by the order by version */
	uint64_t keys_by_search;  /* found right by a search */
	uint64_t keys_undecided;
	uint64_t keys_violated;
	uint64_t states;                      /* configurations visited by all searches */
	char text[CHP_LINEAR_TEXT_BYTES_MAX]; /* what is wrong with `key`, for people; "" when ok */
};

/**
 * Judge a history.
 *
 * @param h    not changed; keys are judged in order of first use
 * @param lim  NULL: all defaults
 * @param out  overwritten; set even on error, then without a verdict of its own (UNDECIDED)
 * @return     0 when there is a verdict, also a bad one; else a negative error
 *
 * Errors:   -ENOMEM
 */
int chp_linear_check(const struct chp_history *h, const struct chp_linear_limits *lim,
		     struct chp_linear_report *out);

/** Name of a verdict or fault, as "violation" and "version_order"; "?" if there is none. */
const char *chp_linear_verdict_name(uint32_t verdict);
const char *chp_linear_fault_name(uint32_t fault);

#endif /* CHP_HISTORY_LINEAR_H */
