/* SPDX-License-Identifier: BSD-3-Clause */
#include "sessions/sessions.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "base/limits.h"

#include <errno.h>
#include <string.h>

#define NO_SESSION UINT32_MAX
/* CHP_STATUS_OK of wire/client.h, which is above this layer. */
#define STATUS_OK 0u

int
chp_sessions_init(struct chp_sessions *t, uint32_t capacity, uint32_t window,
		  const struct chp_memory *memory)
{
	CHP_ASSERT_OP(capacity, >=, 1u);
	CHP_ASSERT_OP(capacity, <=, CHP_SESSIONS_MAX);
	CHP_ASSERT(chp_is_pow2(window));
	CHP_ASSERT_OP(window, <=, CHP_SESSION_WINDOW_MAX);
	uint32_t buckets = 2 * chp_pow2_up(capacity);

	*t = (struct chp_sessions){
		.session = memory->zalloc(capacity * sizeof(*t->session)),
		.record = memory->zalloc((size_t)capacity * window * sizeof(*t->record)),
		.bucket = memory->zalloc(buckets * sizeof(*t->bucket)),
		.capacity = capacity,
		.window = window,
		.bucket_mask = buckets - 1,
	};
	if (t->session == NULL || t->record == NULL || t->bucket == NULL) {
		chp_sessions_fini(t, memory);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < capacity; i++)
		t->session[i].next = i + 1 < capacity ? i + 1 : NO_SESSION;
	return 0;
}

void
chp_sessions_fini(struct chp_sessions *t, const struct chp_memory *memory)
{
	memory->free(t->session);
	memory->free(t->record);
	memory->free(t->bucket);
	*t = (struct chp_sessions){ .free = NO_SESSION };
}

/* Session numbers are versions, much alike: the high half of a product spreads them. */
static uint32_t
home(const struct chp_sessions *t, uint64_t id)
{
	return (uint32_t)((id * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & t->bucket_mask;
}

/* The bucket of a session, or the empty one where it would be. Half of all buckets are empty. */
static uint32_t
bucket_of(const struct chp_sessions *t, uint64_t id)
{
	uint32_t b = home(t, id);

	while (t->bucket[b] != 0 && t->session[t->bucket[b] - 1].id != id)
		b = (b + 1) & t->bucket_mask;
	return b;
}

struct chp_session *
chp_session_find(const struct chp_sessions *t, uint64_t id)
{
	uint32_t held = t->bucket[bucket_of(t, id)];

	return held == 0 ? NULL : &t->session[held - 1];
}

struct chp_session *
chp_session_open(struct chp_sessions *t, uint64_t id)
{
	CHP_ASSERT_OP(id, !=, 0u);
	uint32_t b = bucket_of(t, id);

	if (t->bucket[b] != 0) {
		t->session[t->bucket[b] - 1].is_guess = false;
		return &t->session[t->bucket[b] - 1];
	}
	CHP_ASSERT_OP(t->n, <, t->capacity);
	CHP_ASSERT_OP(t->free, <, t->capacity);
	uint32_t index = t->free;
	struct chp_session *s = &t->session[index];

	t->free = s->next;
	t->n++;
	t->bucket[b] = index + 1;
	*s = (struct chp_session){ .id = id, .next = NO_SESSION };
	return s;
}

static struct chp_record *
records_of(const struct chp_sessions *t, const struct chp_session *s)
{
	return &t->record[(size_t)(s - t->session) * t->window];
}

/* Empty a bucket and move back whatever probing would no longer reach past the hole. */
static void
bucket_remove(struct chp_sessions *t, uint32_t hole)
{
	for (uint32_t b = (hole + 1) & t->bucket_mask; t->bucket[b] != 0;
	     b = (b + 1) & t->bucket_mask) {
		uint32_t wanted = home(t, t->session[t->bucket[b] - 1].id);

		if (((b - wanted) & t->bucket_mask) >= ((b - hole) & t->bucket_mask)) {
			t->bucket[hole] = t->bucket[b];
			hole = b;
		}
	}
	t->bucket[hole] = 0;
}

void
chp_session_close(struct chp_sessions *t, uint64_t id)
{
	uint32_t b = bucket_of(t, id);

	if (t->bucket[b] == 0)
		return;
	uint32_t index = t->bucket[b] - 1;
	struct chp_session *s = &t->session[index];

	bucket_remove(t, b);
	memset(records_of(t, s), 0, t->window * sizeof(struct chp_record));
	*s = (struct chp_session){ .next = t->free };
	t->free = index;
	t->n--;
}

struct chp_record *
chp_session_record(const struct chp_sessions *t, const struct chp_session *s, uint64_t request)
{
	CHP_ASSERT_OP(s->id, !=, 0u);
	return &records_of(t, s)[request & (t->window - 1)];
}

/* The session of a write that passed here; a learner adds one whose opening it has not been sent yet. */
static struct chp_session *
session_of_write(struct chp_sessions *t, uint64_t id, bool learns)
{
	struct chp_session *s = id != 0 ? chp_session_find(t, id) : NULL;

	if (s != NULL || id == 0 || !learns || t->n == t->capacity)
		return s;
	s = chp_session_open(t, id);
	s->is_guess = true;
	return s;
}

void
chp_session_saw(struct chp_sessions *t, uint64_t session, uint64_t request, uint64_t version,
		uint64_t number, bool rmw, bool learns)
{
	const struct chp_session *s = session_of_write(t, session, learns);

	if (s == NULL)
		return;
	struct chp_record *r = chp_session_record(t, s, request);

	if (r->state == CHP_RECORD_EMPTY || r->request < request) {
		*r = (struct chp_record){ .request = request, .state = CHP_RECORD_SEEN };
	} else if (r->request > request || (r->state == CHP_RECORD_DONE && r->status == STATUS_OK)) {
		return;
	} else if (r->state == CHP_RECORD_DONE) {
		/* It failed when this replica was the session's home; a later home executed it. */
		*r = (struct chp_record){ .request = request, .state = CHP_RECORD_SEEN };
	} else if (r->version >= version) {
		/* An earlier try of this request may be replayed after the later one was seen. */
		return;
	}
	/* A pending record stays pending: whoever executes it here will answer it. */
	r->version = version;
	r->number = number;
	r->rmw = rmw;
	r->fate = CHP_FATE_OPEN;
}

void
chp_session_done(struct chp_sessions *t, uint64_t session, uint64_t request, uint8_t status, uint64_t version,
		 uint64_t number)
{
	const struct chp_session *s = session != 0 ? chp_session_find(t, session) : NULL;
	struct chp_record *r;

	if (s == NULL)
		return;
	r = chp_session_record(t, s, request);
	if (r->state != CHP_RECORD_EMPTY && r->request > request)
		return;
	*r = (struct chp_record){ .request = request,
				  .version = version,
				  .number = number,
				  .state = CHP_RECORD_DONE,
				  .status = status };
}

void
chp_session_settle(struct chp_sessions *t, uint64_t session, uint64_t request, uint64_t version,
		   enum chp_record_fate fate)
{
	const struct chp_session *s = session != 0 ? chp_session_find(t, session) : NULL;

	if (s == NULL)
		return;
	struct chp_record *r = chp_session_record(t, s, request);

	if (r->request == request && r->version == version && r->fate == CHP_FATE_OPEN)
		r->fate = (uint8_t)fate;
}

void
chp_session_copied(struct chp_sessions *t, uint64_t session, const struct chp_record *from)
{
	const struct chp_session *s = session_of_write(t, session, true);

	if (s == NULL)
		return;
	struct chp_record *r = chp_session_record(t, s, from->request);

	/* What this replica saw itself of the same or a later write is not older. */
	if (r->state != CHP_RECORD_EMPTY &&
	    (r->request > from->request ||
	     (r->request == from->request && r->version >= from->version)))
		return;
	*r = (struct chp_record){ .request = from->request,
				  .version = from->version,
				  .number = from->number,
				  .state = CHP_RECORD_SEEN,
				  .rmw = from->rmw,
				  .fate = from->fate };
}

void
chp_sessions_drop_guesses(struct chp_sessions *t)
{
	for (uint32_t i = 0; i < t->capacity; i++)
		if (t->session[i].id != 0 && t->session[i].is_guess)
			chp_session_close(t, t->session[i].id);
}

uint64_t
chp_sessions_digest(const struct chp_sessions *t)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < t->capacity; i++) {
		const struct chp_session *s = &t->session[i];

		if (s->id != 0)
			sum += chp_hash64(&s->id, sizeof(s->id), 0);
	}
	return sum;
}

/* Assert the records of one session's place in the table. */
static void
check_records(const struct chp_sessions *t, uint32_t index)
{
	for (uint32_t i = 0; i < t->window; i++) {
		const struct chp_record *r = &t->record[(size_t)index * t->window + i];

		CHP_ASSERT_OP(r->state, <=, CHP_RECORD_DONE);
		if (t->session[index].id == 0)
			CHP_ASSERT_OP(r->state, ==, CHP_RECORD_EMPTY);
		if (r->state != CHP_RECORD_EMPTY)
			CHP_ASSERT_OP(r->request & (t->window - 1), ==, i);
	}
}

void
chp_sessions_check(const struct chp_sessions *t)
{
	uint32_t used = 0, listed = 0, buckets = 0;

	for (uint32_t i = 0; i < t->capacity; i++) {
		const struct chp_session *s = &t->session[i];

		check_records(t, i);
		if (s->id == 0)
			continue;
		used++;
		CHP_ASSERT(chp_session_find(t, s->id) == s);
	}
	for (uint32_t b = 0; b <= t->bucket_mask; b++) {
		if (t->bucket[b] == 0)
			continue;
		buckets++;
		CHP_ASSERT_OP(t->bucket[b], <=, t->capacity);
		CHP_ASSERT_OP(t->session[t->bucket[b] - 1].id, !=, 0u);
	}
	for (uint32_t i = t->free; i != NO_SESSION; i = t->session[i].next) {
		CHP_ASSERT_OP(i, <, t->capacity);
		CHP_ASSERT_OP(t->session[i].id, ==, 0u);
		CHP_ASSERT_OP(listed, <, t->capacity);
		listed++;
	}
	CHP_ASSERT_OP(used, ==, t->n);
	CHP_ASSERT_OP(buckets, ==, t->n);
	CHP_ASSERT_OP(listed, ==, t->capacity - t->n);
}
