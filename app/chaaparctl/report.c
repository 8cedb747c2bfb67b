/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the workload generator counts and prints.
 */
#include "load.h"

#include <string.h>

/* ---- the end of one operation ---- */

static enum chp_history_status
reason(enum chaapar_status status)
{
	switch (status) {
	case CHAAPAR_NOT_FOUND:
		return CHP_HISTORY_NOT_FOUND;
	case CHAAPAR_EXISTS:
		return CHP_HISTORY_EXISTS;
	case CHAAPAR_COMPARE_FAILED:
		return CHP_HISTORY_COMPARE_FAILED;
	case CHAAPAR_NOT_NUMBER:
		return CHP_HISTORY_NOT_NUMBER;
	default:
		return CHP_HISTORY_STATUS_OTHER;
	}
}

static void
record(struct load *l, const struct chp_history_call *q, const struct chaapar_result *r,
       uint64_t now_ns)
{
	bool is_get = q->kind == CHP_HISTORY_GET;
	struct chp_history_result h = {
		.t_ns = now_ns,
		.outcome = CHP_HISTORY_OK,
		.node = r->node >= 0 ? (uint32_t)r->node : CHP_HISTORY_NONE,
		.version = r->version,
	};

	if (chaapar_outcome_unknown(r->status)) {
		h.outcome = CHP_HISTORY_UNKNOWN;
		h.version = CHP_HISTORY_NO_VERSION;
	} else if (r->status == CHAAPAR_OK && is_get) {
		h.value = r->value_len > 0 ? r->value : "";
		h.value_len = (uint32_t)r->value_len;
	} else if (r->status == CHAAPAR_NOT_FOUND && is_get) {
		h.version = CHP_HISTORY_NO_VERSION;
	} else if (r->status != CHAAPAR_OK) {
		h.outcome = CHP_HISTORY_FAIL;
		h.status = reason(r->status);
		if (h.status == CHP_HISTORY_STATUS_OTHER || h.status == CHP_HISTORY_NOT_FOUND)
			h.version = CHP_HISTORY_NO_VERSION;
	} else if (q->kind == CHP_HISTORY_INCR || q->kind == CHP_HISTORY_DECR) {
		h.has_number = true;
		h.number = r->number;
	}
	if (chp_history_write_result(l->history, q, &h) != 0)
		l->history_failed = true;
}

/* Whether a status is an answer about the key: what a correct run under load may give. */
static bool
is_answer(enum chaapar_status status)
{
	return status <= CHAAPAR_TOO_LARGE;
}

void
load_write_step(struct load *l)
{
	const struct load_step *step = &l->step;

	if (step->ops > 0)
		fprintf(l->timeline, "%llu,%llu,%llu,%llu\n",
			(unsigned long long)(step->number * (LOAD_STEP_NS / 1000000)),
			(unsigned long long)step->ops, (unsigned long long)step->writes,
			(unsigned long long)(step->longest_ns / 1000));
}

/* The timeline: milliseconds of the monotonic clock, what ended in the step, its writes, the longest wait in us. */
static void
count_step(struct load *l, bool is_write, uint64_t now_ns, uint64_t took_ns)
{
	struct load_step *step = &l->step;

	if (now_ns / LOAD_STEP_NS != step->number) {
		load_write_step(l);
		*step = (struct load_step){ .number = now_ns / LOAD_STEP_NS };
	}
	step->ops++;
	step->writes += is_write;
	if (took_ns > step->longest_ns)
		step->longest_ns = took_ns;
}

void
load_ended(struct load *l, const struct load_slot *slot, const struct chaapar_result *r)
{
	uint64_t now_ns = load_now_ns();

	l->relaxed += r->relaxed;
	if (l->history != NULL && !slot->is_relaxed)
		record(l, &slot->call, r, now_ns);
	l->answered += r->node != CHAAPAR_ANY_NODE;
	l->interval_ended++;
	chp_histogram_record(&l->interval, now_ns - slot->call.t_ns);
	if (!is_answer(r->status))
		l->errors++;
	if (slot->is_preload)
		return;
	if (l->timeline != NULL && is_answer(r->status))
		count_step(l, slot->call.kind != CHP_HISTORY_GET, now_ns, now_ns - slot->call.t_ns);
	l->ended++;
	l->by_status[r->status]++;
	chp_histogram_record(&l->total, now_ns - slot->call.t_ns);
	chp_histogram_record(&l->by_kind[slot->call.kind], now_ns - slot->call.t_ns);
}

/* ---- printing ---- */

static double
us(const struct chp_histogram *h, uint64_t num, uint64_t den)
{
	return (double)chp_histogram_quantile(h, num, den) / 1e3;
}

/* Sums of all clients' counters, all or since the last report. */
static void
sum(struct load *l, bool since, struct chaapar_counters *out)
{
	memset(out, 0, sizeof(*out));
	for (uint32_t i = 0; i < l->n_clients; i++) {
		struct load_client *client = &l->client[i];
		struct chaapar_counters now;

		chaapar_get_counters(client->c, &now);
		out->retransmits += now.retransmits - (since ? client->before.retransmits : 0);
		out->timeouts += now.timeouts - (since ? client->before.timeouts : 0);
		out->late += now.late;
		out->busy += now.busy;
		out->overload += now.overload;
		out->malformed += now.malformed;
		out->redirects += now.redirects;
		out->not_serving += now.not_serving;
		out->sessions_opened += now.sessions_opened;
		out->sessions_lost += now.sessions_lost;
		out->failovers += now.failovers;
		out->stale += now.stale;
		out->datagrams_sent += now.datagrams_sent;
		out->datagrams_received += now.datagrams_received;
		if (since)
			client->before = now;
	}
}

void
load_line(struct load *l, uint64_t now_ns, double interval_s)
{
	FILE *to = l->ctl->json ? stderr : stdout;
	struct chaapar_counters n;

	sum(l, true, &n);
	fprintf(to,
		"%s %6.1f s %9.0f op/s  p50 %8.0f us  p99 %8.0f us  "
		"retransmits %llu  timeouts %llu  errors %llu\n",
		l->preloading ? "load" : "run ", (double)(now_ns - l->start_ns) / 1e9,
		(double)l->interval_ended / interval_s, us(&l->interval, 1, 2),
		us(&l->interval, 99, 100), (unsigned long long)n.retransmits,
		(unsigned long long)n.timeouts, (unsigned long long)l->errors);
	fflush(to);
	l->interval_ended = 0;
	l->errors = 0;
	chp_histogram_init(&l->interval);
}

static json_t *
latency_json(const struct chp_histogram *h)
{
	return json_pack("{sI sf sf sf sf}", "ops", (json_int_t)h->n, "p50_us", us(h, 1, 2),
			 "p99_us", us(h, 99, 100), "p999_us", us(h, 999, 1000), "max_us",
			 us(h, 1, 1));
}

static void
summary_json(struct load *l, const struct chaapar_counters *n, double seconds)
{
	json_t *o = latency_json(&l->total), *status = json_object(), *kinds = json_object();

	for (uint32_t s = 0; s < LOAD_STATUSES; s++) {
		if (l->by_status[s] > 0)
			json_object_set_new(status, chaapar_status_name((enum chaapar_status)s),
					    json_integer((json_int_t)l->by_status[s]));
	}
	for (uint32_t k = 0; k < LOAD_KINDS; k++) {
		if (l->by_kind[k].n > 0)
			json_object_set_new(kinds, chp_history_kind_name(k),
					    latency_json(&l->by_kind[k]));
	}
	json_object_update_new(o, json_pack("{ss sf sf sI sI sI}", "bench", "load", "duration_s",
					    seconds, "ops_per_s",
					    seconds > 0 ? (double)l->ended / seconds : 0.0,
					    "answered", (json_int_t)l->answered, "preloaded",
					    (json_int_t)l->preload_done, "preload_failed",
					    (json_int_t)l->preload_failed));
	json_object_update_new(
		o, json_pack("{sf si sI sI sI}", "preload_s", (double)l->preload_ns / 1e9,
			     "clients", (int)l->n_clients, "depth", (json_int_t)l->o.depth, "keys",
			     (json_int_t)l->o.keys, "value_bytes", (json_int_t)l->o.value_bytes));
	json_object_update_new(
		o,
		json_pack("{sI sI sI sI sI sI sI sI sI so so}", "retransmits",
			  (json_int_t)n->retransmits, "timeouts", (json_int_t)n->timeouts, "late",
			  (json_int_t)n->late, "busy", (json_int_t)n->busy, "overload",
			  (json_int_t)n->overload, "malformed", (json_int_t)n->malformed,
			  "sessions_lost", (json_int_t)n->sessions_lost, "datagrams_sent",
			  (json_int_t)n->datagrams_sent, "datagrams_received",
			  (json_int_t)n->datagrams_received, "by_status", status, "by_op", kinds));
	json_object_update_new(
		o, json_pack("{sI sI sI sI sI}", "relaxed", (json_int_t)l->relaxed, "failovers",
			     (json_int_t)n->failovers, "redirects", (json_int_t)n->redirects,
			     "not_serving", (json_int_t)n->not_serving, "stale", (json_int_t)n->stale));
	ctl_json_print(o);
}

void
load_summary(struct load *l)
{
	double seconds = (double)l->ran_ns / 1e9;
	struct chaapar_counters n;

	sum(l, false, &n);
	if (l->ctl->json) {
		summary_json(l, &n, seconds);
		return;
	}
	if (l->o.preload)
		printf("loaded %llu keys in %.1f s\n",
		       (unsigned long long)(l->preload_done - l->preload_failed),
		       (double)l->preload_ns / 1e9);
	if (l->total.n == 0)
		return;
	printf("%llu operations in %.1f s, %.0f op/s\n", (unsigned long long)l->ended, seconds,
	       seconds > 0 ? (double)l->ended / seconds : 0.0);
	printf("  %-8s %10s %12s %12s %12s %12s\n", "", "ops", "p50 us", "p99 us", "p99.9 us",
	       "max us");
	for (uint32_t k = 0; k <= LOAD_KINDS; k++) {
		const struct chp_histogram *h = k < LOAD_KINDS ? &l->by_kind[k] : &l->total;

		if (h->n > 0)
			printf("  %-8s %10llu %12.0f %12.0f %12.0f %12.0f\n",
			       k < LOAD_KINDS ? chp_history_kind_name(k) : "all",
			       (unsigned long long)h->n, us(h, 1, 2), us(h, 99, 100),
			       us(h, 999, 1000), us(h, 1, 1));
	}
	printf("  answers:");
	for (uint32_t s = 0; s < LOAD_STATUSES; s++) {
		if (l->by_status[s] > 0)
			printf(" %s %llu", chaapar_status_name((enum chaapar_status)s),
			       (unsigned long long)l->by_status[s]);
	}
	if (l->relaxed > 0)
		printf("; %llu of them reads that may be old", (unsigned long long)l->relaxed);
	printf("\n  retransmits %llu, late or duplicate answers %llu, timeouts %llu, "
	       "busy %llu, overload %llu\n"
	       "  replicas silent %llu, redirects %llu, not serving %llu\n",
	       (unsigned long long)n.retransmits, (unsigned long long)n.late,
	       (unsigned long long)n.timeouts, (unsigned long long)n.busy,
	       (unsigned long long)n.overload, (unsigned long long)n.failovers,
	       (unsigned long long)n.redirects, (unsigned long long)n.not_serving);
}
