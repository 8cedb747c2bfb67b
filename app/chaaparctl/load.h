/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load.h - the workload generator: what it was asked to do, its clients, what it counted.
 */
#ifndef CHAAPARCTL_LOAD_H
#define CHAAPARCTL_LOAD_H

#include "ctl.h"
#include "zipf.h"

#include "base/histogram.h"
#include "base/random.h"
#include "history/history.h"

#define LOAD_KINDS CHP_HISTORY_N_KINDS
#define LOAD_CLIENTS_MAX 1024u
#define LOAD_STATUSES 128u
#define LOAD_KEY_BYTES 64u
#define LOAD_VALUE_BYTES_MAX 1024u
/* "0123456789:0123456789": client and counter in hexadecimal. Shorter values would not be unique.
 * */
#define LOAD_VALUE_BYTES_MIN 21u

struct load_options {
	uint64_t keys, clients, depth, ops, value_bytes, rate, relaxed_pct;
	double duration_s, report_interval_s, theta;
	const char *prefix, *history, *timeline;
	uint32_t weight[LOAD_KINDS];
	uint32_t weight_sum;
	bool preload;
};

/* What ended in one step of the timeline. */
#define LOAD_STEP_NS UINT64_C(10000000)
struct load_step {
	uint64_t number; /* of LOAD_STEP_NS of the monotonic clock */
	uint64_t ops, writes, longest_ns;
};

struct load;
struct load_client;

/* One request in flight. */
struct load_slot {
	struct load_client *client;
	struct load_slot *next; /* idle ones of a client */
	struct chp_history_call call; /* key and value point to the two below */
	bool is_preload;
	bool is_relaxed; /* a get that may be old: no checker can judge it */
	bool then_cas; /* a get whose version the slot's next operation compares */
	uint32_t tries;
	uint64_t key_number;
	char key[LOAD_KEY_BYTES];
	char value[LOAD_VALUE_BYTES_MAX];
};

struct load_client {
	struct load *load;
	struct chaapar *c;
	struct load_slot *slot, *idle;
	uint64_t id;      /* unique among all processes of this machine */
	uint64_t req;     /* of the history */
	uint64_t counter; /* of values */
	struct chaapar_counters before; /* at the last report */
};

struct load {
	struct ctl *ctl;
	struct load_options o;
	struct load_client *client;
	uint32_t n_clients;
	FILE *history;
	bool history_failed;
	FILE *timeline;
	struct load_step step;
	bool issuing, preloading;
	uint64_t numeric_keys;
	uint64_t preload_next, preload_done, preload_failed;
	uint64_t issued, start_ns, end_ns, preload_ns, ran_ns;
	struct chp_random random;
	struct load_zipf zipf;
	/* counted */
	uint64_t ended, answered, interval_ended, errors, relaxed;
	uint64_t by_status[LOAD_STATUSES];
	struct chp_histogram interval, total, by_kind[LOAD_KINDS];
};

uint64_t load_now_ns(void);

/* ---- workload.c ---- */

/** Read "get=70,put=30". False after a report. */
bool load_mix_parse(const struct ctl *ctl, const char *text, struct load_options *o);

/** Submit the next operation of the mix in an idle slot. */
void load_next(struct load *l, struct load_slot *slot);

/** Submit the put of the next key to be loaded; false when there is none left. */
bool load_preload_next(struct load *l, struct load_slot *slot);

/* ---- report.c ---- */

/** Count the end of an operation and record it. */
void load_ended(struct load *l, const struct load_slot *slot, const struct chaapar_result *r);

/** Write the timeline's step that is being counted, if anything ended in it. */
void load_write_step(struct load *l);

/** The live line of what happened since the last one. */
void load_line(struct load *l, uint64_t now_ns, double interval_s);

/** The summary, as text or JSON. */
void load_summary(struct load *l);

#endif /* CHAAPARCTL_LOAD_H */
