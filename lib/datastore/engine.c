/* SPDX-License-Identifier: BSD-3-Clause */
#include "datastore/engine.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NS_PER_S UINT64_C(1000000000)
/* The writer, the scanner, the readers. */
#define THREADS_MAX (CHP_ENGINE_READERS_MAX + 2u)

/* Requests, first in first out. */
struct queue {
	struct chp_store_request *first, *last;
};

/* One side of the store, writing or reading, and how it fares. */
struct trouble {
	uint32_t state;    /* enum chp_store_state */
	uint64_t since_ns; /* of the first error after the last success */
	char text[CHP_HOST_TEXT_BYTES];
};

enum { WRITING = 0, READING = 1, SIDES = 2 };

struct chp_engine {
	struct chp_engine_config config;
	void *store; /* set before is_open */
	struct chp_store_record opened[CHP_SHARDS_MAX]; /* as found */
	struct chp_store_record record[CHP_SHARDS_MAX]; /* the writer's */
	atomic_bool is_open, is_lost, stopping;

	pthread_mutex_t lock; /* of the queues */
	pthread_cond_t ordered_some, reads_some, scans_some;
	struct queue ordered, reads, scans;

	pthread_mutex_t done_lock;
	struct queue done;
	atomic_bool has_done;

	pthread_mutex_t info_lock;
	struct chp_store_info info; /* state and text are put together when it is asked for */
	struct trouble trouble[SIDES];
	uint64_t version;
	bool hangs; /* as last told */

	_Atomic(uint64_t) busy_since[SIDES]; /* a call into the store that has not returned; 0: none. Reads: the last */
	struct {
#define CHP_COUNTER_FIELD(name, help) _Atomic(uint64_t) name;
		CHP_ENGINE_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
	} counters;

	pthread_t thread[THREADS_MAX];
	uint32_t n_threads;
};

static uint64_t
now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static struct timespec
timespec_of(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S) };
}

static void
count(_Atomic(uint64_t) *counter, uint64_t n)
{
	(void)atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static bool
is_stopping(const struct chp_engine *e)
{
	return atomic_load_explicit(&e->stopping, memory_order_acquire);
}

static void
wake_owner(const struct chp_engine *e)
{
	if (e->config.wake != NULL)
		e->config.wake(e->config.wake_arg);
}

/* ------------------------------------------------------------------ queues */

static void
queue_add(struct queue *q, struct chp_store_request *r)
{
	r->next = NULL;
	if (q->last != NULL)
		q->last->next = r;
	else
		q->first = r;
	q->last = r;
}

static struct chp_store_request *
queue_take(struct queue *q)
{
	struct chp_store_request *r = q->first;

	if (r != NULL) {
		q->first = r->next;
		if (q->first == NULL)
			q->last = NULL;
		r->next = NULL;
	}
	return r;
}

/* Wait for a request of a queue, for `ns` (0: for ever), and take it. NULL: there is none, or the engine ends. */
static struct chp_store_request *
wait_for_one(struct chp_engine *e, struct queue *q, pthread_cond_t *some, uint64_t ns)
{
	const struct timespec until = timespec_of(now_ns() + ns);
	struct chp_store_request *r;
	int rc = 0;

	(void)pthread_mutex_lock(&e->lock);
	while (q->first == NULL && !is_stopping(e) && rc == 0)
		rc = ns == 0 ? pthread_cond_wait(some, &e->lock) : pthread_cond_timedwait(some, &e->lock, &until);
	r = is_stopping(e) ? NULL : queue_take(q);
	(void)pthread_mutex_unlock(&e->lock);
	return r;
}

static void
complete(struct chp_engine *e, struct chp_store_request *r)
{
	bool was_empty;

	(void)pthread_mutex_lock(&e->done_lock);
	was_empty = e->done.first == NULL;
	queue_add(&e->done, r);
	atomic_store_explicit(&e->has_done, true, memory_order_release);
	(void)pthread_mutex_unlock(&e->done_lock);
	if (was_empty)
		wake_owner(e);
}

/* Sleep, unless the engine ends. All waits of the threads but those inside of the store are on e->lock. */
static void
pause_for(struct chp_engine *e, uint64_t ns)
{
	const uint64_t until = now_ns() + ns;
	const struct timespec t = timespec_of(until);

	(void)pthread_mutex_lock(&e->lock);
	while (!is_stopping(e) && now_ns() < until)
		(void)pthread_cond_timedwait(&e->ordered_some, &e->lock, &t);
	(void)pthread_mutex_unlock(&e->lock);
}

/* ------------------------------------------------------------------ how the store is */

static void
failed(struct chp_engine *e, uint32_t side, const struct chp_store_error *error)
{
	struct trouble *t = &e->trouble[side];
	const uint64_t now = now_ns();

	(void)pthread_mutex_lock(&e->info_lock);
	if (t->state == CHP_STORE_OK)
		t->since_ns = now;
	t->state = error->kind == CHP_STORE_ERROR_SLOW && now - t->since_ns < e->config.down_ns ? CHP_STORE_SLOW
											 : CHP_STORE_DOWN;
	memcpy(t->text, error->text, sizeof(t->text));
	e->info.errors++;
	e->version++;
	(void)pthread_mutex_unlock(&e->info_lock);
	if (error->kind == CHP_STORE_ERROR_LOST)
		atomic_store_explicit(&e->is_lost, true, memory_order_release);
	wake_owner(e);
}

static void
succeeded(struct chp_engine *e, uint32_t side)
{
	struct trouble *t = &e->trouble[side];
	bool is_news;

	(void)pthread_mutex_lock(&e->info_lock);
	is_news = t->state != CHP_STORE_OK;
	t->state = CHP_STORE_OK;
	t->text[0] = '\0';
	e->version += is_news;
	(void)pthread_mutex_unlock(&e->info_lock);
	if (is_news)
		wake_owner(e);
}

static void
enter(struct chp_engine *e, uint32_t side, uint64_t now)
{
	atomic_store_explicit(&e->busy_since[side], now, memory_order_relaxed);
}

static void
leave(struct chp_engine *e, uint32_t side)
{
	atomic_store_explicit(&e->busy_since[side], 0, memory_order_relaxed);
}

/* ------------------------------------------------------------------ opening */

static void
not_open(struct chp_engine *e, const struct chp_store_error *error)
{
	failed(e, WRITING, error);
	(void)pthread_mutex_lock(&e->info_lock);
	e->info.refusal = error->kind == CHP_STORE_ERROR_REFUSED ? error->refusal : CHP_HOST_NO_STORE;
	e->version++;
	(void)pthread_mutex_unlock(&e->info_lock);
}

/* A handle for the writer, and all records; NULL with *error. */
static void *
attach_writer(struct chp_engine *e, struct chp_store_error *error)
{
	const struct chp_adapter *a = e->config.adapter;
	void *handle = a->attach(e->store, error);

	for (uint32_t i = 0; handle != NULL && i < e->config.identity.shards; i++) {
		if (a->load_record(handle, i, &e->record[i], error) != 0) {
			a->detach(handle);
			return NULL;
		}
	}
	memcpy(e->opened, e->record, sizeof(e->opened));
	return handle;
}

static void
now_open(struct chp_engine *e)
{
	/* First: who reads in the info that the store is open may ask for records and hand over requests at once. */
	atomic_store_explicit(&e->is_open, true, memory_order_release);
	(void)pthread_mutex_lock(&e->info_lock);
	e->config.adapter->describe(e->store, &e->info.flags, e->info.name);
	e->info.refusal = CHP_HOST_OK;
	e->version++;
	(void)pthread_mutex_unlock(&e->info_lock);
	succeeded(e, WRITING);
	wake_owner(e);
}

/* Open the store, however long that takes. The writer's handle; NULL: the engine ends. */
static void *
open_store(struct chp_engine *e)
{
	const struct chp_adapter *a = e->config.adapter;
	uint64_t wait_ns = e->config.retry_ns_min;

	while (!is_stopping(e)) {
		struct chp_store_error error = { 0 };
		void *handle = NULL;

		count(&e->counters.opens, 1);
		enter(e, WRITING, now_ns());
		if (e->store == NULL)
			e->store = a->open(e->config.store, &e->config.identity, &error);
		if (e->store != NULL)
			handle = attach_writer(e, &error);
		leave(e, WRITING);
		if (handle != NULL) {
			now_open(e);
			return handle;
		}
		if (e->store != NULL && error.kind == CHP_STORE_ERROR_REFUSED) {
			a->close(e->store);
			e->store = NULL;
		}
		not_open(e, &error);
		pause_for(e, wait_ns);
		wait_ns = chp_min_u64(2 * wait_ns, e->config.retry_ns_max);
	}
	return NULL;
}

/* ------------------------------------------------------------------ writing */

/* What the shard's record is when this request is done. */
static struct chp_store_record
record_after(const struct chp_store_record *before, const struct chp_store_request *r)
{
	struct chp_store_record after = *before;

	if (r->type == CHP_STORE_BEGIN) {
		after.life = r->life;
		after.batch = 0;
	} else if (r->type == CHP_STORE_RECORD) {
		after.epoch = chp_max_u64(after.epoch, r->epoch);
	} else {
		after.batch = r->seq;
		for (uint32_t i = 0; i < r->n_items; i++)
			after.newest = chp_max_u64(after.newest, r->item[i].version >> 16);
	}
	return after;
}

/* One commit: the first request of every shard that has some. */
struct commit {
	struct chp_store_request *request[CHP_SHARDS_MAX];
	struct chp_store_batch batch[CHP_SHARDS_MAX];
	struct chp_store_record after[CHP_SHARDS_MAX];
	uint32_t n;
};

static void
take_commit(struct chp_engine *e, struct queue *waiting, struct commit *c)
{
	struct queue later = { 0 };
	struct chp_store_request *r;
	uint64_t has = 0;

	c->n = 0;
	while ((r = queue_take(waiting)) != NULL) {
		CHP_ASSERT_OP(r->shard, <, e->config.identity.shards);
		if ((has & chp_bit(r->shard)) != 0) {
			queue_add(&later, r);
			continue;
		}
		has |= chp_bit(r->shard);
		c->request[c->n++] = r;
	}
	*waiting = later;
}

static void
prepare(struct chp_engine *e, struct commit *c)
{
	for (uint32_t i = 0; i < c->n; i++) {
		const struct chp_store_request *r = c->request[i];
		const bool is_write = r->type == CHP_STORE_WRITE;

		c->after[i] = record_after(&e->record[r->shard], r);
		c->batch[i] = (struct chp_store_batch){ .shard = r->shard,
							.item = is_write ? r->item : NULL,
							.n_items = is_write ? r->n_items : 0,
							.before = &e->record[r->shard],
							.after = &c->after[i] };
	}
}

static void
committed(struct chp_engine *e, struct commit *c, uint64_t ns)
{
	count(&e->counters.commits, 1);
	count(&e->counters.writes, c->n);
	count(&e->counters.write_ns, ns);
	if (ns > atomic_load_explicit(&e->counters.write_ns_max, memory_order_relaxed))
		atomic_store_explicit(&e->counters.write_ns_max, ns, memory_order_relaxed);
	for (uint32_t i = 0; i < c->n; i++) {
		struct chp_store_request *r = c->request[i];

		count(&e->counters.items, c->batch[i].n_items);
		count(&e->counters.applied, c->batch[i].applied);
		e->record[r->shard] = c->after[i];
		r->record = c->after[i];
		complete(e, r);
	}
}

/* Try until it succeeds. False: the engine ends, or the store is not what it was. */
static bool
commit(struct chp_engine *e, void *handle, struct commit *c)
{
	uint64_t wait_ns = e->config.retry_ns_min;

	while (!is_stopping(e)) {
		struct chp_store_error error = { 0 };
		const uint64_t begin_ns = now_ns();
		int rc;

		prepare(e, c);
		enter(e, WRITING, begin_ns);
		rc = e->config.adapter->write(handle, c->batch, c->n, &error);
		leave(e, WRITING);
		if (rc == 0) {
			succeeded(e, WRITING);
			committed(e, c, now_ns() - begin_ns);
			return true;
		}
		count(&e->counters.write_errors, 1);
		failed(e, WRITING, &error);
		if (error.kind == CHP_STORE_ERROR_LOST)
			return false;
		pause_for(e, wait_ns);
		wait_ns = chp_min_u64(2 * wait_ns, e->config.retry_ns_max);
	}
	return false;
}

static void *
writer(void *arg)
{
	struct chp_engine *e = arg;
	struct commit *c = calloc(1, sizeof(*c));
	struct queue waiting = { 0 };
	void *handle = c != NULL ? open_store(e) : NULL;
	struct chp_store_request *r = NULL;

	while (handle != NULL) {
		if (waiting.first == NULL) {
			r = wait_for_one(e, &e->ordered, &e->ordered_some, 0);
			if (r == NULL)
				break;
			queue_add(&waiting, r);
		}
		(void)pthread_mutex_lock(&e->lock);
		while ((r = queue_take(&e->ordered)) != NULL)
			queue_add(&waiting, r);
		(void)pthread_mutex_unlock(&e->lock);
		take_commit(e, &waiting, c);
		if (!commit(e, handle, c))
			break;
	}
	if (handle != NULL)
		e->config.adapter->detach(handle);
	free(c);
	return NULL;
}

/* ------------------------------------------------------------------ reading */

static void
set_found(struct chp_store_request *r, uint8_t found)
{
	for (uint32_t i = 0; i < r->n_reads; i++) {
		r->read[i].found = found;
		r->read[i].value_len = 0;
	}
}

static bool
read_once(struct chp_engine *e, void *handle, struct chp_store_request *r)
{
	struct chp_store_error error = { 0 };
	const uint64_t begin_ns = now_ns();
	int rc;

	set_found(r, CHP_STORE_FAILED);
	enter(e, READING, begin_ns);
	rc = e->config.adapter->read(handle, r->read, r->n_reads, &error);
	leave(e, READING);
	count(&e->counters.read_calls, 1);
	count(&e->counters.read_ns, now_ns() - begin_ns);
	if (rc == 0) {
		succeeded(e, READING);
		return true;
	}
	count(&e->counters.read_errors, 1);
	failed(e, READING, &error);
	return false;
}

/* A thread that reads or scans. */
struct looker {
	void *handle;
	uint64_t again_ns; /* its last call failed: when it looks at the store again by itself. 0: it did not */
};

/* Attach when it is needed: a store that was away at first may be there now. */
static bool
attached(struct chp_engine *e, struct looker *l)
{
	struct chp_store_error error = { 0 };

	if (l->handle == NULL)
		l->handle = e->config.adapter->attach(e->store, &error);
	if (l->handle == NULL)
		failed(e, READING, &error);
	return l->handle != NULL;
}

static void
look(struct chp_engine *e, struct looker *l)
{
	struct chp_store_error error = { 0 };
	struct chp_store_record record;
	int rc = -1;

	if (attached(e, l)) {
		enter(e, READING, now_ns());
		rc = e->config.adapter->load_record(l->handle, 0, &record, &error);
		leave(e, READING);
		if (rc == 0)
			succeeded(e, READING);
		else
			failed(e, READING, &error);
	}
	l->again_ns = rc == 0 ? 0 : chp_min_u64(2 * l->again_ns, e->config.retry_ns_max);
}

/*
 * The next request of a queue; NULL: the engine ends. After an error the store is looked at until it works again:
 * who knows that it is down may ask for nothing, and then no request would ever show that it is not.
 */
static struct chp_store_request *
next_request(struct chp_engine *e, struct queue *q, pthread_cond_t *some, struct looker *l)
{
	struct chp_store_request *r;

	while ((r = wait_for_one(e, q, some, l->again_ns)) == NULL && !is_stopping(e))
		look(e, l);
	return r;
}

static void
detach(struct chp_engine *e, const struct looker *l)
{
	if (l->handle != NULL)
		e->config.adapter->detach(l->handle);
}

static void *
reader(void *arg)
{
	struct chp_engine *e = arg;
	struct chp_store_request *r;
	struct looker l = { 0 };

	while ((r = next_request(e, &e->reads, &e->reads_some, &l)) != NULL) {
		bool ok = false;

		count(&e->counters.reads, r->n_reads);
		for (uint32_t tries = 0; attached(e, &l) && !ok && tries < 2; tries++) {
			if (tries > 0)
				pause_for(e, e->config.retry_ns_min);
			ok = read_once(e, l.handle, r);
		}
		if (!ok)
			set_found(r, CHP_STORE_FAILED);
		l.again_ns = ok ? 0 : e->config.retry_ns_min;
		complete(e, r);
	}
	detach(e, &l);
	return NULL;
}

static void *
scanner(void *arg)
{
	struct chp_engine *e = arg;
	struct chp_store_request *r;
	struct looker l = { 0 };

	while ((r = next_request(e, &e->scans, &e->scans_some, &l)) != NULL) {
		struct chp_store_error error = { 0 };
		const struct chp_adapter *a = e->config.adapter;

		count(&e->counters.scans, 1);
		l.again_ns = e->config.retry_ns_min;
		chp_store_scan_reset(r->scan);
		if (!attached(e, &l) || a->scan == NULL || a->scan(l.handle, r->shard, r->scan, &error) != 0) {
			count(&e->counters.scan_errors, 1);
			if (error.kind != CHP_STORE_ERROR_NONE)
				failed(e, READING, &error);
			chp_store_scan_reset(r->scan);
			r->scan->failed = true;
		} else {
			succeeded(e, READING);
			l.again_ns = 0;
		}
		complete(e, r);
	}
	detach(e, &l);
	return NULL;
}

/* ------------------------------------------------------------------ the owner's side */

static int
init_locks(struct chp_engine *e)
{
	pthread_condattr_t attr;
	int rc = pthread_condattr_init(&attr);

	if (rc != 0)
		return -rc;
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_mutex_init(&e->lock, NULL);
	(void)pthread_mutex_init(&e->done_lock, NULL);
	(void)pthread_mutex_init(&e->info_lock, NULL);
	(void)pthread_cond_init(&e->ordered_some, &attr);
	(void)pthread_cond_init(&e->reads_some, &attr);
	(void)pthread_cond_init(&e->scans_some, &attr);
	(void)pthread_condattr_destroy(&attr);
	return 0;
}

/* Signals are the program's, not the threads': a connection that the other side closed must not end the process. */
static int
start_thread(struct chp_engine *e, void *(*run)(void *))
{
	sigset_t all, before;
	int rc;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&e->thread[e->n_threads], NULL, run, e);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc != 0)
		return -rc;
	e->n_threads++;
	return 0;
}

struct chp_engine *
chp_engine_start(const struct chp_engine_config *config, int *err)
{
	struct chp_engine *e = calloc(1, sizeof(*e));

	CHP_ASSERT(config->readers >= 1 && config->readers <= CHP_ENGINE_READERS_MAX);
	CHP_ASSERT(config->identity.shards >= 1 && config->identity.shards <= CHP_SHARDS_MAX);
	*err = -ENOMEM;
	if (e == NULL)
		return NULL;
	e->config = *config;
	e->info.refusal = CHP_HOST_NO_STORE;
	e->trouble[WRITING].state = CHP_STORE_SLOW;
	e->trouble[WRITING].since_ns = now_ns();
	chp_host_text(e->trouble[WRITING].text, "the store is being opened");
	e->version = 1;
	*err = init_locks(e);
	if (*err != 0) {
		free(e);
		return NULL;
	}
	*err = start_thread(e, writer);
	if (*err == 0)
		*err = start_thread(e, scanner);
	for (uint32_t i = 0; *err == 0 && i < config->readers; i++)
		*err = start_thread(e, reader);
	if (*err != 0) {
		(void)chp_engine_stop(e);
		return NULL;
	}
	return e;
}

void
chp_engine_submit(struct chp_engine *e, struct chp_store_request *const *request, uint32_t n)
{
	bool ordered = false, reads = false, scans = false;

	if (n == 0)
		return;
	CHP_ASSERT(atomic_load_explicit(&e->is_open, memory_order_acquire));
	(void)pthread_mutex_lock(&e->lock);
	for (uint32_t i = 0; i < n; i++) {
		if (request[i]->type == CHP_STORE_READ) {
			queue_add(&e->reads, request[i]);
			reads = true;
		} else if (request[i]->type == CHP_STORE_SCAN) {
			queue_add(&e->scans, request[i]);
			scans = true;
		} else {
			queue_add(&e->ordered, request[i]);
			ordered = true;
		}
	}
	(void)pthread_mutex_unlock(&e->lock);
	/* Several may wait: the writer in a pause, too, which looks at the time and goes on to wait. */
	if (ordered)
		(void)pthread_cond_broadcast(&e->ordered_some);
	if (reads)
		(void)pthread_cond_broadcast(&e->reads_some);
	if (scans)
		(void)pthread_cond_signal(&e->scans_some);
}

uint32_t
chp_engine_poll(struct chp_engine *e, struct chp_store_request **done, uint32_t n)
{
	uint32_t taken = 0;

	if (!atomic_load_explicit(&e->has_done, memory_order_acquire))
		return 0;
	(void)pthread_mutex_lock(&e->done_lock);
	while (taken < n && (done[taken] = queue_take(&e->done)) != NULL)
		taken++;
	atomic_store_explicit(&e->has_done, e->done.first != NULL, memory_order_relaxed);
	(void)pthread_mutex_unlock(&e->done_lock);
	return taken;
}

/* A call into the store that does not come back: nobody else would notice. */
static bool
hangs(const struct chp_engine *e)
{
	const uint64_t now = now_ns();

	if (e->config.adapter->has_timeouts)
		return false;
	for (uint32_t side = 0; side < SIDES; side++) {
		const uint64_t since = atomic_load_explicit(&e->busy_since[side], memory_order_relaxed);

		if (since != 0 && now > since && now - since > e->config.down_ns)
			return true;
	}
	return false;
}

bool
chp_engine_info(struct chp_engine *e, uint64_t *version, struct chp_store_info *info)
{
	const bool hang = hangs(e);
	const struct trouble *worst;
	bool is_news;

	(void)pthread_mutex_lock(&e->info_lock);
	if (hang != e->hangs)
		e->version++;
	e->hangs = hang;
	is_news = e->version != *version;
	*version = e->version;
	if (is_news) {
		worst = &e->trouble[e->trouble[READING].state > e->trouble[WRITING].state ? READING : WRITING];
		*info = e->info;
		info->state = worst->state;
		memcpy(info->text, worst->text, sizeof(info->text));
		if (hang && info->state != CHP_STORE_DOWN) {
			info->state = CHP_STORE_DOWN;
			chp_host_text(info->text, "the store does not answer");
		}
	}
	(void)pthread_mutex_unlock(&e->info_lock);
	return is_news;
}

void
chp_engine_record(const struct chp_engine *e, uint32_t shard, struct chp_store_record *r)
{
	CHP_ASSERT(atomic_load_explicit(&e->is_open, memory_order_acquire));
	*r = e->opened[shard];
}

bool
chp_engine_is_lost(const struct chp_engine *e)
{
	return atomic_load_explicit(&e->is_lost, memory_order_acquire);
}

void
chp_engine_stats(const struct chp_engine *e, struct chp_engine_counters *to)
{
#define CHP_COUNTER_FIELD(name, help) to->name = atomic_load_explicit(&e->counters.name, memory_order_relaxed);
	CHP_ENGINE_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
}

bool
chp_engine_stop(struct chp_engine *e)
{
	const struct timespec until = timespec_of(now_ns() + e->config.stop_ns);
	bool all = true;

	(void)pthread_mutex_lock(&e->lock);
	atomic_store_explicit(&e->stopping, true, memory_order_release);
	(void)pthread_cond_broadcast(&e->ordered_some);
	(void)pthread_cond_broadcast(&e->reads_some);
	(void)pthread_cond_broadcast(&e->scans_some);
	(void)pthread_mutex_unlock(&e->lock);
	for (uint32_t i = 0; i < e->n_threads; i++) {
		if (pthread_clockjoin_np(e->thread[i], NULL, CLOCK_MONOTONIC, &until) != 0) {
			(void)pthread_detach(e->thread[i]);
			all = false;
		}
	}
	if (!all)
		return false; /* they may come back and look at everything here */
	if (e->store != NULL)
		e->config.adapter->close(e->store);
	(void)pthread_mutex_destroy(&e->lock);
	(void)pthread_mutex_destroy(&e->done_lock);
	(void)pthread_mutex_destroy(&e->info_lock);
	(void)pthread_cond_destroy(&e->ordered_some);
	(void)pthread_cond_destroy(&e->reads_some);
	(void)pthread_cond_destroy(&e->scans_some);
	free(e);
	return true;
}
