/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A host: its process runs the shipped datastore interface as chaapar-host does, and a store serves what that asks
 * for, one write after the other, reads and scans whenever it likes. A write is applied first, so that reads may
 * see it, and durable later. What was not durable is lost with the process or with the machine; or it is done
 * all the same, when the store is a server of its own, after its client is gone.
 */
#include "host.h"

#include "kind.h"

#include "protocols/hermes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The least time between two runs of the process. */
#define PROCESS_NS UINT64_C(500)
#define BUFFERS_MAX 16u

enum step {
	STEP_FIRST,  /* a write is applied, a read looks */
	STEP_SECOND, /* a write is durable, a read is answered */
};

struct sim_job {
	struct sim_job *next;
	struct chp_store_request *request; /* NULL: who asked is gone */
	uint64_t at_ns;                    /* of its next step */
	enum step step;
	/* A write is copied: it may be done when nobody is there any more who asked for it. */
	uint8_t type;
	uint64_t life, seq, epoch;
	uint64_t before_life, before_batch; /* the record that it follows; as of its first step */
	uint32_t n_items;
	struct sim_stored item[];
};

/* ------------------------------------------------------------------ the process, when it runs */

static uint64_t
clock_of(const struct sim_world *w, const struct sim_host *h)
{
	return w->now_ns + h->clock_offset_ns;
}

static void
run_soon(struct sim_world *w, uint32_t n, uint64_t at_ns)
{
	struct sim_host *h = w->host[n];

	if (!h->alive || at_ns == CHP_NEVER)
		return;
	at_ns = chp_max_u64(at_ns, w->now_ns);
	if (at_ns >= h->at_ns)
		return;
	h->at_ns = at_ns;
	sim_schedule(w, at_ns, SIM_HOST, n, NULL);
}

bool
sim_channel_check(const struct chp_shard_config *s, uint32_t n, const uint8_t *data, uint32_t len)
{
	uint8_t kind = 0;

	if (chp_packet_kind_of(data, len, &kind) != CHP_PACKET_OK)
		return false;
	if (kind == CHP_PACKET_HOST_HELLO)
		return chp_host_hello_check(data, len, s->cluster_hash) == CHP_PACKET_OK;
	return chp_host_check(data, len, s->cluster_hash, n, s->shards) == CHP_PACKET_OK;
}

void
sim_host_arrives(struct sim_world *w, uint32_t n, struct sim_packet *p)
{
	struct sim_host *h = w->host[n];

	if (!h->alive || h->n_inbox == SIM_INBOX_MAX) {
		sim_packet_give(w, p);
		return;
	}
	h->inbox[h->n_inbox++] = p;
	run_soon(w, n, w->now_ns + chp_random_below(&w->random, 10 * PROCESS_NS));
}

/* ------------------------------------------------------------------ the store */

static bool
is_ordered(uint8_t type)
{
	return type == CHP_STORE_BEGIN || type == CHP_STORE_WRITE || type == CHP_STORE_RECORD;
}

/* How long the next step of a request takes. */
static uint64_t
step_ns(struct sim_world *w, const struct sim_host *h)
{
	const struct sim_config *c = &w->config;

	if (!w->healed && h->slow_until_ns > w->now_ns)
		return chp_random_below(&w->random, c->slow_ns_max);
	return chp_random_range(&w->random, c->store_ns_min, c->store_ns_max);
}

static void
set_step(struct sim_world *w, uint32_t n, struct sim_job *job, enum step step)
{
	job->step = step;
	job->at_ns = chp_max_u64(w->now_ns + step_ns(w, w->host[n]), w->host[n]->down_until_ns);
	sim_schedule(w, job->at_ns, SIM_STORE, n, NULL);
}

static void
submit(struct sim_world *w, uint32_t n, struct chp_store_request *r)
{
	const uint32_t items = r->type == CHP_STORE_WRITE ? r->n_items : 0;
	struct sim_job *job = calloc(1, sizeof(*job) + items * sizeof(job->item[0]));
	struct sim_job **end = &w->host[n]->job;

	CHP_ASSERT(job != NULL);
	job->request = r;
	job->type = r->type;
	job->life = r->life;
	job->seq = r->seq;
	job->epoch = r->epoch;
	job->n_items = items;
	for (uint32_t i = 0; i < items; i++) {
		CHP_ASSERT_OP(r->item[i].life, ==, r->life);
		sim_stored_of(&job->item[i], &r->item[i]);
	}
	while (*end != NULL)
		end = &(*end)->next;
	*end = job;
	set_step(w, n, job, STEP_FIRST);
}

static void
apply(struct sim_table *t, const struct sim_job *job)
{
	switch (job->type) {
	case CHP_STORE_BEGIN:
		sim_table_begin(t, job->life);
		break;
	case CHP_STORE_RECORD:
		sim_table_record(t, job->epoch);
		break;
	default:
		for (uint32_t i = 0; i < job->n_items; i++)
			sim_table_put(t, &job->item[i]);
		sim_table_batch(t, job->life, job->seq);
	}
}

static void
remove_job(struct sim_host *h, struct sim_job *job)
{
	struct sim_job **at = &h->job;

	while (*at != job)
		at = &(*at)->next;
	*at = job->next;
	free(job);
}

/* The request goes back to who asked for it. */
static void
complete(struct sim_world *w, uint32_t n, struct sim_job *job)
{
	struct sim_host *h = w->host[n];

	if (job->request != NULL) {
		CHP_ASSERT_OP(h->n_done, <, CHP_DSI_REQUESTS_MAX);
		h->done[h->n_done++] = job->request;
		run_soon(w, n, w->now_ns + PROCESS_NS);
	}
	remove_job(h, job);
}

/* A request that fails for now is tried again from its first step: what was done is done again. */
static bool
fails(struct sim_world *w, uint32_t n)
{
	struct sim_host *h = w->host[n];

	if (w->healed || (h->down_until_ns <= w->now_ns && !chp_random_chance(&w->random, w->config.store_fail_ppm)))
		return false;
	h->info.errors++;
	return true;
}

/* The record is not what this write follows: somebody else has written. False: the write is not done. */
static bool
follows(struct sim_world *w, uint32_t n, struct sim_job *job)
{
	struct sim_host *h = w->host[n];
	const struct sim_table *t = &h->store.visible;

	if (job->request != NULL) {
		job->before_life = h->life;
		job->before_batch = h->batch;
	}
	if (t->life == job->before_life && t->batch == job->before_batch)
		return true;
	sim_trace(w, "host %u: the store has life %" PRIu64 " batch %" PRIu64 " instead of %" PRIu64 " and %" PRIu64, n,
		  t->life, t->batch, job->before_life, job->before_batch);
	if (job->request == NULL)
		remove_job(h, job);
	else
		sim_host_restart(w, n); /* CHP_STORE_ERROR_LOST: everything starts over */
	return false;
}

static void
trace_item(const struct sim_world *w, uint32_t n, const char *what, const uint8_t *key, uint32_t key_len,
	   uint64_t version)
{
	sim_trace(w, "host %u %s key %u version %" PRIu64 ".%u", n, what, sim_client_key_number(key, key_len),
		  chp_version_counter(version), (uint16_t)version);
}

static void
step_write(struct sim_world *w, uint32_t n, struct sim_job *job)
{
	struct sim_host *h = w->host[n];

	if (job->step == STEP_FIRST) {
		if (!fails(w, n)) {
			if (!follows(w, n, job))
				return;
			apply(&h->store.visible, job);
			set_step(w, n, job, STEP_SECOND);
			/* Now it can be read, and is lost with the host. */
			h->is_doomed = !w->healed && w->faults_from_ns != 0 &&
				       chp_random_chance(&w->random, w->config.host_crash_ppm);
		} else {
			set_step(w, n, job, STEP_FIRST);
		}
		return;
	}
	/* It may fail to say so: then it is done, and done again. */
	apply(&h->store.durable, job);
	if (fails(w, n) || (!w->healed && chp_random_chance(&w->random, w->config.store_twice_ppm))) {
		set_step(w, n, job, STEP_SECOND);
		return;
	}
	sim_trace(w, "host %u: durable: type %u life %" PRIu64 " seq %" PRIu64 " epoch %" PRIu64 "%s", n, job->type,
		  job->life, job->seq, job->epoch, job->request == NULL ? ", nobody hears" : "");
	for (uint32_t i = 0; i < job->n_items; i++)
		trace_item(w, n, "writes", job->item[i].key, job->item[i].key_len, job->item[i].version);
	if (job->request != NULL) {
		job->request->record = sim_table_summary(&h->store.durable);
		h->life = h->store.visible.life;
		h->batch = h->store.visible.batch;
	}
	complete(w, n, job);
}

/* One key: as it is durable, or as it was applied. */
static void
look_up(struct sim_world *w, uint32_t n, struct chp_store_read *r)
{
	const struct sim_store *store = &w->host[n]->store;

	if (fails(w, n))
		r->found = CHP_STORE_FAILED;
	else
		sim_table_read(chp_random_chance(&w->random, 500000) ? &store->visible : &store->durable, r);
	trace_item(w, n,
		   r->found == CHP_STORE_FAILED	      ? "fails to read"
		   : r->found == CHP_STORE_ABSENT    ? "does not have"
		   : r->found == CHP_STORE_TOMBSTONE ? "reads deleted"
						     : "reads",
		   r->key, r->key_len, r->version);
}

static void
look_through(struct sim_world *w, uint32_t n, struct chp_store_scan *scan)
{
	if (fails(w, n))
		scan->failed = true;
	else
		sim_table_scan(&w->host[n]->store.durable, scan);
}

static void
step_read(struct sim_world *w, uint32_t n, struct sim_job *job)
{
	if (job->step == STEP_SECOND) {
		complete(w, n, job);
		return;
	}
	for (uint32_t i = 0; job->type == CHP_STORE_READ && i < job->request->n_reads; i++)
		look_up(w, n, &job->request->read[i]);
	if (job->type == CHP_STORE_SCAN)
		look_through(w, n, job->request->scan);
	set_step(w, n, job, STEP_SECOND);
}

/* The next job whose step is due: of those in order only the first. */
static struct sim_job *
next_due(const struct sim_world *w, const struct sim_host *h)
{
	bool ordered = false;

	for (struct sim_job *job = h->job; job != NULL; job = job->next) {
		const bool waits = is_ordered(job->type) && ordered && job->request != NULL;

		ordered = ordered || (is_ordered(job->type) && job->request != NULL);
		if (!waits && job->at_ns <= w->now_ns)
			return job;
	}
	return NULL;
}

void
sim_host_store(struct sim_world *w, uint32_t n)
{
	struct sim_host *h = w->host[n];
	struct sim_job *job;

	while ((job = next_due(w, h)) != NULL) {
		/* Reads end in bounded time, failed if need be. */
		if (h->down_until_ns > w->now_ns &&
		    (is_ordered(job->type) || chp_random_chance(&w->random, 500000)))
			set_step(w, n, job, job->step);
		else if (is_ordered(job->type))
			step_write(w, n, job);
		else
			step_read(w, n, job);
		if (h->is_doomed) {
			h->is_doomed = false;
			sim_host_lose(w, n, chp_random_chance(&w->random, 300000));
		}
	}
}

/* ------------------------------------------------------------------ the process runs */

static void
send_packets(struct sim_world *w, uint32_t n, struct sim_packet **out, const struct chp_dsi_effects *fx)
{
	for (uint32_t i = 0; i < fx->n_buffers; i++) {
		struct sim_packet *p = out[i];

		if (i >= fx->n_used) {
			sim_packet_give(w, p);
			continue;
		}
		p->from = p->to = n;
		p->len = fx->buffer[i].len;
		sim_network_send(w, p, SIM_FROM_HOST, n);
	}
}

static void
drop_inbox(struct sim_world *w, struct sim_host *h, uint32_t used)
{
	for (uint32_t i = 0; i < used; i++)
		sim_packet_give(w, h->inbox[i]);
	memmove(h->inbox, h->inbox + used, (h->n_inbox - used) * sizeof(h->inbox[0]));
	h->n_inbox -= used;
}

static void
give_requests(struct sim_world *w, uint32_t n, const struct chp_dsi_effects *fx)
{
	for (uint32_t i = 0; i < fx->n_requests; i++)
		submit(w, n, fx->request[i]);
}

static void
take_news(struct sim_host *h, struct chp_dsi_events *in, struct chp_store_record *record)
{
	if (!h->news)
		return;
	h->news = false;
	in->info = &h->info;
	if (h->is_open || h->info.refusal != CHP_HOST_OK)
		return;
	/* The store was opened: nobody has asked it for anything yet. */
	h->is_open = true;
	*record = sim_table_summary(&h->store.visible);
	in->record = record;
	h->life = record->life;
	h->batch = record->batch;
}

void
sim_host_run(struct sim_world *w, uint32_t n, uint64_t at_ns)
{
	struct sim_host *h = w->host[n];
	struct chp_dsi_packet packet[SIM_INBOX_MAX];
	struct chp_dsi_buffer buffer[BUFFERS_MAX];
	struct sim_packet *out[BUFFERS_MAX];
	struct chp_store_record record;
	struct chp_dsi_events in = { .packet = packet, .done = h->done };
	struct chp_dsi_effects fx = { .buffer = buffer };

	if (!h->alive || h->at_ns != at_ns)
		return;
	h->at_ns = CHP_NEVER;
	in.n_packets = (uint32_t)chp_random_range(&w->random, 0, h->n_inbox);
	in.n_done = h->n_done;
	for (uint32_t i = 0; i < in.n_packets; i++)
		packet[i] = (struct chp_dsi_packet){ h->inbox[i]->data, h->inbox[i]->len };
	fx.n_buffers = (uint32_t)chp_random_range(&w->random, 1, BUFFERS_MAX);
	for (uint32_t i = 0; i < fx.n_buffers; i++) {
		out[i] = sim_packet_take(w);
		buffer[i] = (struct chp_dsi_buffer){ .data = out[i]->data };
	}
	take_news(h, &in, &record);
	chp_dsi_run(h->dsi, clock_of(w, h), &in, &fx);
	h->n_done = 0;
	if (w->config.trace || w->order % 8 == 0)
		chp_dsi_check(h->dsi);
	drop_inbox(w, h, in.n_packets);
	send_packets(w, n, out, &fx);
	give_requests(w, n, &fx);
	h->resume_ns = fx.wake_ns == CHP_NEVER ? CHP_NEVER
					       : chp_max_u64(fx.wake_ns - chp_min_u64(fx.wake_ns, h->clock_offset_ns),
							     w->now_ns + PROCESS_NS);
	run_soon(w, n, h->n_inbox > 0 ? w->now_ns + PROCESS_NS : h->resume_ns);
}

/* ------------------------------------------------------------------ life */

static void
set_state(struct sim_world *w, uint32_t n, uint32_t state)
{
	struct sim_host *h = w->host[n];

	if (h->info.state == state)
		return;
	h->info.state = state;
	memset(h->info.text, 0, sizeof(h->info.text));
	if (state != CHP_STORE_OK)
		memcpy(h->info.text, "out of order", 12);
	h->news = true;
	run_soon(w, n, w->now_ns);
}

static void
create_dsi(struct sim_world *w, struct sim_host *h, uint32_t n)
{
	const struct chp_shard_config *s = &w->config.shard;
	const struct chp_dsi_config c = { .memory = s->memory,
					  .cluster_hash = s->cluster_hash,
					  .node = n,
					  .shard = s->shard,
					  .shards = s->shards,
					  .hash_seed = s->hash_seed,
					  .key_bytes_max = s->key_bytes_max,
					  .value_bytes_max = s->value_bytes_max,
					  .payload_bytes_max = s->payload_bytes_max,
					  .incarnation = chp_random_u64(&w->random) | 1,
					  .put_bytes = w->config.put_bytes,
					  .loads = w->config.loads,
					  .scan_bytes = 4096,
					  .window = s->link_window,
					  .queue = 2 * CHP_LINK_WINDOW_MAX,
					  .rto_ns_min = s->rto_ns_min,
					  .rto_ns_max = s->rto_ns_max,
					  .ack_delay_ns = s->ack_delay_ns };
	int err = 0;

	h->dsi = chp_dsi_create(&c, &err);
	CHP_ASSERT(h->dsi != NULL);
}

void
sim_host_start(struct sim_world *w, uint32_t n)
{
	struct sim_host *h = w->host[n];

	if (h->alive)
		return;
	sim_trace(w, "host %u starts", n);
	h->alive = true;
	h->clock_offset_ns = 1 + chp_random_below(&w->random, 1000 * 1000 * SIM_MS);
	create_dsi(w, h, n);
	h->info = (struct chp_store_info){ .flags = h->flags, .name = "a store of the simulator" };
	h->news = true;
	h->is_open = false;
	h->n_done = 0;
	h->at_ns = CHP_NEVER;
	run_soon(w, n, w->now_ns + step_ns(w, h));
}

/* What becomes of a write that was under way when the process ended. */
enum end { END_LOST, END_DONE, END_LATER };

/*
 * Reads are forgotten. The first write may be done, or done later, or never; the others were not begun. Only items are
 * written later: no adapter lets a life begin, or a view be recorded, behind the back of who comes next.
 */
static void
abandon_jobs(struct sim_world *w, uint32_t n, bool store_dies)
{
	struct sim_host *h = w->host[n];
	const enum end end = (enum end)chp_random_below(&w->random, 3);
	struct sim_job *job, *next;
	bool is_first = true;

	for (job = h->job; job != NULL; job = next) {
		const bool begun = is_first && is_ordered(job->type) && job->step == STEP_SECOND;

		next = job->next;
		is_first = is_first && !is_ordered(job->type);
		if (begun && end == END_DONE)
			apply(&h->store.durable, job);
		if (!begun || end != END_LATER || store_dies || job->type != CHP_STORE_WRITE) {
			/* Applied, and perhaps read by somebody; or on its way. */
			w->seen.writes_lost += job->type == CHP_STORE_WRITE && !(begun && end == END_DONE);
			remove_job(h, job);
			continue;
		}
		w->seen.writes_late++;
		job->request = NULL;
		set_step(w, n, job, STEP_FIRST);
	}
	if (store_dies && (h->flags & CHP_STORE_VOLATILE) != 0)
		memset(&h->store.durable, 0, sizeof(h->store.durable));
	h->store.visible = h->store.durable;
}

void
sim_host_crash(struct sim_world *w, uint32_t n, bool machine)
{
	struct sim_host *h = w->host[n];

	if (!h->alive)
		return;
	sim_trace(w, "host %u crashes%s", n, machine ? ", and its machine" : "");
	w->seen.hosts_lost++;
	abandon_jobs(w, n, machine);
	chp_dsi_destroy(h->dsi);
	h->dsi = NULL;
	h->alive = false;
	drop_inbox(w, h, h->n_inbox);
}

void
sim_host_restart(struct sim_world *w, uint32_t n)
{
	sim_host_crash(w, n, false);
	sim_host_start(w, n);
}

void
sim_host_init(struct sim_world *w, uint32_t n)
{
	w->host[n] = calloc(1, sizeof(*w->host[n]));
	CHP_ASSERT(w->host[n] != NULL);
	w->host[n]->flags = w->config.forgets ? CHP_STORE_VOLATILE : CHP_STORE_SCANS;
	sim_host_start(w, n);
}

void
sim_host_fini(struct sim_world *w, uint32_t n)
{
	if (w->host[n] == NULL)
		return;
	sim_host_crash(w, n, true);
	free(w->host[n]);
	w->host[n] = NULL;
}

bool
sim_host_is_idle(const struct sim_world *w, uint32_t n)
{
	const struct sim_host *h = w->host[n];
	struct chp_host_status status;

	if (h == NULL)
		return true;
	chp_shard_host_status(w->node[n].shard, sim_node_clock(w, n), &status);
	/* A store that may forget, and did not get everything, does not record that it has. */
	return h->alive && h->job == NULL && h->n_done == 0 && status.state == CHP_HOST_READY && status.backlog == 0 &&
	       (w->config.forgets || status.epoch == chp_shard_view_epoch(w->node[n].shard));
}

void
sim_host_dump(const struct sim_world *w, uint32_t n, struct chp_text *t)
{
	const struct sim_host *h = w->host[n];
	struct chp_host_status status;
	struct chp_cache_stats cache;

	chp_shard_host_status(w->node[n].shard, sim_node_clock(w, n), &status);
	chp_cache_stats(chp_shard_cache(w->node[n].shard), &cache);
	chp_text_add(t, " cache %" PRIu64 " of %u, sessions %" PRIu64 ", blocks %" PRIu64 ",%s%s host%s%s state %u",
		     cache.keys, w->config.shard.keys_max, cache.sessions, cache.blocks,
		     w->config.shard.is_durable ? " durable" : "", w->config.forgets ? " volatile" : "",
		     h->alive ? "" : " dead", h->job != NULL ? " busy" : "", status.state);
	chp_text_add(t, " epoch %" PRIu64 " backlog %" PRIu64, status.epoch, status.backlog);
}

/* ------------------------------------------------------------------ faults */

static void
cut_channel(struct sim_world *w, uint32_t n)
{
	const uint64_t until_ns = w->now_ns + chp_random_below(&w->random, 3 * w->config.long_ns);
	const uint32_t way = (uint32_t)chp_random_below(&w->random, 3); /* 0: to the host, 1: from it, 2: both */

	sim_trace(w, "the channel of %u is cut, way %u, until %" PRIu64 " us", n, way, until_ns / 1000);
	if (way != 1)
		w->channel_cut_until_ns[n][0] = until_ns;
	if (way != 0)
		w->channel_cut_until_ns[n][1] = until_ns;
}

void
sim_host_lose(struct sim_world *w, uint32_t n, bool machine)
{
	sim_host_crash(w, n, machine);
	sim_schedule(w, w->now_ns + chp_random_below(&w->random, w->config.host_down_ns_max), SIM_HOST_RESTART, n,
		     NULL);
}

/* The state that the store says it is in lags behind. */
static void
draw_states(struct sim_world *w, uint32_t n)
{
	struct sim_host *h = w->host[n];

	if (!h->alive || !chp_random_chance(&w->random, 200000))
		return;
	set_state(w, n, h->down_until_ns > w->now_ns   ? CHP_STORE_DOWN
			: h->slow_until_ns > w->now_ns ? CHP_STORE_SLOW
						       : CHP_STORE_OK);
}

/* [SAFETY 3] As if a key had left the cache with a version above all others of this node, or of all nodes. */
static void
raise_floor(struct sim_world *w, uint32_t n)
{
	void *instance = chp_shard_instance(w->node[n].shard);
	const uint64_t counter = chp_hermes_evicted(instance) + chp_random_below(&w->random, 20);

	sim_trace(w, "node %u has evicted up to %" PRIu64, n, counter);
	chp_hermes_raise_evicted(instance, counter);
	sim_node_run_soon(w, n, w->now_ns);
}

void
sim_host_faults(struct sim_world *w)
{
	const struct sim_config *c = &w->config;
	struct chp_random *r = &w->random;
	const uint32_t n = (uint32_t)chp_random_below(r, c->n_nodes);
	struct sim_host *h = w->host[n];

	if (chp_random_chance(r, c->channel_cut_ppm))
		cut_channel(w, n);
	if (chp_random_chance(r, c->store_slow_ppm))
		h->slow_until_ns = w->now_ns + chp_random_below(r, 3 * c->long_ns);
	if (chp_random_chance(r, c->store_down_ppm))
		h->down_until_ns = w->now_ns + chp_random_below(r, 3 * c->long_ns);
	if (chp_random_chance(r, c->host_crash_ppm))
		sim_host_lose(w, n, chp_random_chance(r, 300000));
	if (chp_random_chance(r, c->machine_crash_ppm) && sim_faults_lose(w, n))
		sim_host_lose(w, n, true);
	if (chp_random_chance(r, c->floor_ppm) && w->node[n].alive)
		raise_floor(w, n);
	for (uint32_t i = 0; i < c->n_nodes; i++)
		draw_states(w, i);
}

void
sim_host_heal(struct sim_world *w)
{
	memset(w->channel_cut_until_ns, 0, sizeof(w->channel_cut_until_ns));
	for (uint32_t n = 0; n < w->config.n_nodes && w->config.shard.has_host; n++) {
		w->host[n]->down_until_ns = w->host[n]->slow_until_ns = 0;
		if (w->host[n]->alive)
			set_state(w, n, CHP_STORE_OK);
		else
			sim_schedule(w, w->now_ns + chp_random_below(&w->random, SIM_MS), SIM_HOST_RESTART, n, NULL);
	}
}
