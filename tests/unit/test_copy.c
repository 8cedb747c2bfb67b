/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The copy of a shard's state to a learner: sources and learners with caches and session tables of their own,
 * and between them queues in which messages can be lost, held back and changed. Node 0 is a learner.
 */
#include "base/random.h"
#include "protocols/copy.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODES 4u
#define KEYS 1024u
#define VALUE_MAX 700u
#define PACKET 1392u
#define QUEUE_BYTES (4u << 20)
#define PLENTY (1u << 20)

/* Messages on their way from one node to another, in order. */
struct queue {
	uint8_t *bytes;
	uint32_t head, tail;
};

/* Keys [first, end) are in the store of a member, as put() would make them; a place is a key. */
struct store {
	struct chp_backing backing; /* first: the scans come back with it */
	uint32_t first, end;
	struct {
		uint32_t at, bytes;
		bool is_asked;
	} scan[NODES];
	uint32_t starts; /* scans from the beginning */
	bool may_scan;
};

struct member {
	struct chp_out out; /* first: next_packet comes back with it */
	struct store store;
	uint8_t parts[NODES * CHP_COPY_PART_BYTES];
	struct chp_copy copy;
	struct chp_copy_counters counters;
	struct chp_cache *cache;
	struct chp_sessions sessions;
	struct chp_now now;
	uint8_t packet[NODES][PACKET];
	struct queue queue[NODES]; /* to whom */
	uint32_t bulk;             /* for every peer, in every run */
	uint32_t used[NODES];      /* bytes of packets opened in the last run */
	uint32_t room;             /* items that can still be applied */
	uint32_t self;
};

struct cluster {
	struct member *m[NODES];
	struct chp_view view;
};

/* ------------------------------------------------------------------ a protocol that only holds keys */

enum { VALID = 0, INVALID = 1 };

/* Versions of one key follow each other without gaps here: what is two above was written on what came between. */
static enum chp_copy_verdict
look(void *protocol, const struct chp_slot *s, uint64_t seen)
{
	(void)protocol;
	if (s->state == VALID)
		return CHP_COPY_SEND;
	return seen != 0 && s->version >= seen + 2 * chp_version_make(1, 0) ? CHP_COPY_SKIP : CHP_COPY_WAIT;
}

static struct chp_slot *
slot_of(struct member *m, struct chp_key *key)
{
	key->pos = -1;
	key->digest = chp_cache_digest(m->cache, key->bytes, key->len, key->session);
	return chp_cache_find(m->cache, key);
}

/* Give a key a version, if it is newer. */
static struct chp_slot *
set(struct member *m, struct chp_key key, const void *value, uint32_t len, uint64_t version, uint16_t base,
    uint8_t version_flags, bool base_absent)
{
	struct chp_slot *s = slot_of(m, &key);
	uint64_t id;

	if (s != NULL && s->version >= version)
		return s;
	if (s == NULL)
		s = chp_cache_insert(m->cache, &key);
	chp_cache_set(m->cache, s, value, len, version_flags);
	s->version = version;
	s->base_writer = base;
	s->state = VALID;
	s->flags = (uint16_t)((s->flags & ~CHP_SLOT_BASE_ABSENT) | (base_absent ? CHP_SLOT_BASE_ABSENT : 0));
	if (key.session) {
		memcpy(&id, key.bytes, sizeof(id));
		if ((version_flags & CHP_SLOT_TOMBSTONE) != 0)
			chp_session_close(&m->sessions, id);
		else
			chp_session_open(&m->sessions, id);
	}
	return s;
}

static bool
apply(void *protocol, const struct chp_peer_message *m, struct chp_out *out)
{
	struct member *member = protocol;
	const struct chp_copy_item *item = (const void *)m->message;

	cr_assert_eq((void *)out, (void *)member);
	if (member->room == 0)
		return false;
	member->room--;
	set(member, m->key, chp_copy_item_value(item), item->value_total, item->version, item->base_writer,
	    item->item_flags & CHP_COPY_VERSION_FLAGS, (item->item_flags & CHP_COPY_BASE_ABSENT) != 0);
	return true;
}

/* ------------------------------------------------------------------ members, queues */

static void
flush(struct member *m, uint32_t peer)
{
	struct chp_lane *lane = &m->out.lane[peer];
	struct queue *q = &m->queue[peer];
	uint32_t len;

	if (lane->at == NULL)
		return;
	for (const uint8_t *at = m->packet[peer]; at < lane->at;) {
		const struct chp_message *message = (const void *)at;

		cr_assert_eq(message->len % CHP_MESSAGE_ALIGN, 0);
		cr_assert(chp_copy_is(message));
		cr_assert(chp_copy_check(message, VALUE_MAX));
		at += message->len;
	}
	len = (uint32_t)(lane->at - m->packet[peer]);
	cr_assert_leq(q->tail + len, QUEUE_BYTES);
	memcpy(q->bytes + q->tail, m->packet[peer], len);
	q->tail += len;
	lane->at = lane->end = NULL;
}

static void
next_packet(struct chp_out *out, uint32_t peer, uint32_t bytes)
{
	struct member *m = (struct member *)out;

	cr_assert_leq(bytes, PACKET);
	flush(m, peer);
	out->lane[peer].at = m->packet[peer];
	out->lane[peer].end = m->packet[peer] + PACKET;
	m->used[peer] += PACKET;
}

/* One run of a member's shard; returns when it wants the next. */
static uint64_t
run(struct member *m)
{
	uint32_t before[NODES];

	memset(m->used, 0, sizeof(m->used));
	for (uint32_t n = 0; n < NODES; n++) {
		m->out.lane[n].bulk_bytes = m->bulk;
		before[n] = m->queue[n].tail;
	}
	m->out.wake_ns = CHP_NEVER;
	chp_copy_serve(&m->copy, &m->now, &m->out);
	for (uint32_t n = 0; n < NODES; n++) {
		flush(m, n);
		cr_assert_leq(m->queue[n].tail - before[n], m->bulk);
	}
	chp_copy_ask(&m->copy, &m->now, &m->out);
	for (uint32_t n = 0; n < NODES; n++)
		flush(m, n);
	chp_copy_verify(&m->copy);
	return m->out.wake_ns;
}

/* The message that comes next from one to another; NULL if none is on its way. */
static struct chp_message *
head(struct cluster *c, uint32_t from, uint32_t to)
{
	struct queue *q = &c->m[from]->queue[to];

	return q->head == q->tail ? NULL : (void *)(q->bytes + q->head);
}

static void
lose(struct cluster *c, uint32_t from, uint32_t to)
{
	struct queue *q = &c->m[from]->queue[to];

	q->head += head(c, from, to)->len;
	if (q->head == q->tail)
		q->head = q->tail = 0;
}

static void
receive(struct cluster *c, uint32_t from, uint32_t to, const struct chp_message *message)
{
	struct member *m = c->m[to];
	struct chp_peer_message pm = { .message = message, .from = (uint8_t)from };

	if (chp_copy_key_of(message, &pm.key)) {
		pm.key.pos = -1;
		pm.key.digest = chp_cache_digest(m->cache, pm.key.bytes, pm.key.len, pm.key.session);
	}
	chp_copy_receive(&m->copy, &m->now, &pm, &m->out);
	chp_copy_verify(&m->copy);
}

static void
deliver(struct cluster *c, uint32_t from, uint32_t to, uint32_t n)
{
	for (; n > 0 && head(c, from, to) != NULL; n--) {
		receive(c, from, to, head(c, from, to));
		lose(c, from, to);
	}
}

static void
deliver_all(struct cluster *c)
{
	for (uint32_t from = 0; from < NODES; from++)
		for (uint32_t to = 0; to < NODES; to++)
			deliver(c, from, to, UINT32_MAX);
}

static void
run_all(struct cluster *c)
{
	for (uint32_t n = 0; n < NODES; n++)
		run(c->m[n]);
}

/* Rounds of runs and deliveries until a learner is done. */
static uint32_t
finish(struct cluster *c, uint32_t learner)
{
	uint32_t rounds = 0;

	for (; !chp_copy_is_done(&c->m[learner]->copy); rounds++) {
		cr_assert_lt(rounds, 20000u);
		run_all(c);
		deliver_all(c);
		for (uint32_t n = 0; n < NODES; n++)
			c->m[n]->now.ns += 1000;
	}
	return rounds;
}

static void
enter_view(struct cluster *c, uint64_t voters, uint64_t learners)
{
	c->view.epoch++;
	c->view.voters = voters;
	c->view.learners = learners;
	for (uint32_t n = 0; n < NODES; n++) {
		for (uint32_t to = 0; to < NODES; to++)
			c->m[n]->queue[to].head = c->m[n]->queue[to].tail = 0;
		chp_copy_view(&c->m[n]->copy, &c->view);
		chp_copy_verify(&c->m[n]->copy);
	}
}

/* The link between two is reset, and comes up again. */
static void
reset_link(struct cluster *c, uint32_t a, uint32_t b)
{
	c->m[a]->queue[b].head = c->m[a]->queue[b].tail = 0;
	c->m[b]->queue[a].head = c->m[b]->queue[a].tail = 0;
	chp_copy_link_down(&c->m[a]->copy, b);
	chp_copy_link_down(&c->m[b]->copy, a);
	chp_copy_link_up(&c->m[a]->copy, b);
	chp_copy_link_up(&c->m[b]->copy, a);
}

static struct chp_copy_config
copy_config(struct member *m)
{
	return (struct chp_copy_config){ .cache = m->cache,
					 .sessions = &m->sessions,
					 .counters = &m->counters,
					 .protocol = m,
					 .look = look,
					 .apply = apply,
					 .self = m->self,
					 .n_nodes = NODES,
					 .chunk_bytes = 4096 };
}

static struct member *
member_new(uint32_t self)
{
	struct member *m = calloc(1, sizeof(*m));
	char name[16];
	struct chp_cache_config cache = { .name = name,
					  .keys_max = KEYS,
					  .value_blocks_max = 20000,
					  .headroom = 16 + 100 * self, /* so that each has a layout of its own */
					  .seed = 7 + self,
					  .memory = &chp_memory_libc };
	struct chp_copy_config config;
	int err = 0;

	cr_assert_not_null(m);
	snprintf(name, sizeof(name), "copy%u", self);
	m->cache = chp_cache_create(&cache, &err);
	cr_assert_not_null(m->cache);
	cr_assert_eq(chp_sessions_init(&m->sessions, 16, 8, &chp_memory_libc), 0);
	for (uint32_t n = 0; n < NODES; n++) {
		m->queue[n].bytes = malloc(QUEUE_BYTES);
		cr_assert_not_null(m->queue[n].bytes);
	}
	m->out.next_packet = next_packet;
	m->now.ns = 1000;
	m->bulk = PLENTY;
	m->room = UINT32_MAX;
	m->self = self;
	config = copy_config(m);
	chp_copy_init(&m->copy, &config);
	return m;
}

static struct cluster *
cluster_new(void)
{
	struct cluster *c = calloc(1, sizeof(*c));

	cr_assert_not_null(c);
	for (uint32_t n = 0; n < NODES; n++) {
		c->m[n] = member_new(n);
		c->view.incarnation[n] = 100 + n;
	}
	return c;
}

static void
cluster_free(struct cluster *c)
{
	for (uint32_t n = 0; n < NODES; n++) {
		struct member *m = c->m[n];

		chp_cache_check(m->cache);
		chp_sessions_check(&m->sessions);
		for (uint32_t to = 0; to < NODES; to++)
			free(m->queue[to].bytes);
		chp_sessions_fini(&m->sessions, &chp_memory_libc);
		chp_cache_destroy(m->cache);
		free(m);
	}
	free(c);
}

/* ------------------------------------------------------------------ what is copied */

static struct chp_key
key_of(char *text, uint32_t bytes, uint32_t i)
{
	int len = snprintf(text, bytes, "key-%u%s", i, i % 7 == 0 ? "-with-a-name-much-longer-than-others" : "");

	return (struct chp_key){ .bytes = (const uint8_t *)text, .len = (uint32_t)len };
}

/* Key i: of all kinds, some deleted, values up to VALUE_MAX in blocks and in slots. */
static void
put(struct member *m, uint32_t i, uint64_t version)
{
	char text[96];
	uint8_t value[VALUE_MAX];
	uint32_t len = i % 3 == 0 ? i % 20 : i * 13 % (VALUE_MAX + 1);
	uint8_t flags = i % 5 == 0 ? CHP_SLOT_RMW : 0;

	memset(value, (int)(i + version), sizeof(value));
	if (i % 11 == 0) {
		flags |= CHP_SLOT_TOMBSTONE | (i % 2 == 0 ? CHP_SLOT_FORGET : 0);
		len = 0;
	}
	flags |= i % 13 == 0 ? CHP_SLOT_BASE_UNKNOWN : 0;
	set(m, key_of(text, sizeof(text), i), value, len, version, (uint16_t)(i % 9), flags, i % 4 == 0);
}

static uint64_t
v(uint64_t counter)
{
	return chp_version_make(counter, 3);
}

static void
fill(struct cluster *c, uint64_t members, uint32_t keys)
{
	for (; members != 0; members &= members - 1)
		for (uint32_t i = 0; i < keys; i++)
			put(c->m[chp_first_bit(members)], i, v(10 + i));
}

/* All that a copy must carry, of every slot: independent of its place. */
static uint64_t
slots_digest(const struct member *m)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < chp_cache_slots(m->cache); i++) {
		const struct chp_slot *s = chp_cache_slot(m->cache, i);
		uint8_t bytes[CHP_KEY_BYTES_MAX + VALUE_MAX];
		uint64_t facts[4];

		if (s == NULL)
			continue;
		chp_cache_key(m->cache, s, bytes);
		chp_cache_value(m->cache, s, bytes + s->key_len);
		facts[0] = s->version;
		facts[1] = s->base_writer;
		facts[2] = s->flags & (CHP_SLOT_VERSION_FLAGS | CHP_SLOT_BASE_ABSENT);
		facts[3] = chp_hash64(bytes, (uint64_t)s->key_len + s->value_len, s->key_len);
		sum += chp_hash64(facts, sizeof(facts), 0);
	}
	return sum;
}

static void
expect_equal(const struct cluster *c, uint32_t a, uint32_t b)
{
	struct chp_cache_stats x, y;

	chp_cache_stats(c->m[a]->cache, &x);
	chp_cache_stats(c->m[b]->cache, &y);
	cr_assert_eq(x.keys, y.keys, "%lu and %lu keys", (unsigned long)x.keys, (unsigned long)y.keys);
	cr_assert_eq(x.tombstones, y.tombstones);
	cr_assert_eq(slots_digest(c->m[a]), slots_digest(c->m[b]));
	cr_assert_eq(chp_sessions_digest(&c->m[a]->sessions), chp_sessions_digest(&c->m[b]->sessions));
}

static void
set_session(struct member *m, uint64_t id, uint64_t version, uint8_t flags)
{
	const struct chp_key key = { .bytes = (const uint8_t *)&id, .len = sizeof(id), .session = true };

	set(m, key, NULL, 0, version, 0, CHP_SLOT_SESSION | flags, true);
}

static void
open_session(struct member *m, uint64_t id)
{
	set_session(m, id, v(5), 0);
}

static uint64_t
total_places(const struct member *m)
{
	return chp_cache_slots(m->cache) + (uint64_t)m->sessions.capacity * m->sessions.window;
}

static struct chp_record *
record_of(const struct member *m, uint64_t session, uint64_t request)
{
	const struct chp_session *s = chp_session_find(&m->sessions, session);

	cr_assert_not_null(s);
	return chp_session_record(&m->sessions, s, request);
}

/* ------------------------------------------------------------------ whole copies */

Test(copy, of_nothing)
{
	struct cluster *c = cluster_new();
	struct chp_copy_progress p;

	enter_view(c, 0xe, 0x1);
	cr_assert_not(chp_copy_is_done(&c->m[0]->copy));
	chp_copy_progress(&c->m[0]->copy, &p);
	cr_assert_not(p.done);
	cr_assert_eq(p.source, 1, "the next voter behind it");
	cr_assert_eq(p.total, 0, "nobody has said yet");
	finish(c, 0);
	chp_copy_progress(&c->m[0]->copy, &p);
	cr_assert(p.done);
	cr_assert_eq(p.at, p.total);
	cr_assert_eq(p.total, chp_cache_slots(c->m[1]->cache) + 16u * 8u);
	cr_assert_eq(p.items, 0);
	cr_assert_eq(c->m[0]->counters.requests, 1, "all of nothing is one chunk");
	expect_equal(c, 0, 1);
	for (uint32_t n = 1; n < NODES; n++)
		cr_assert(chp_copy_is_done(&c->m[n]->copy), "a voter has everything");
	/* It asks for nothing more. */
	run_all(c);
	cr_assert_null(head(c, 0, 1));
	cluster_free(c);
}

Test(copy, of_keys_values_and_tombstones)
{
	struct cluster *c = cluster_new();
	struct chp_copy_progress p;

	fill(c, 0x2, 900);
	enter_view(c, 0x2, 0x1);
	finish(c, 0);
	expect_equal(c, 0, 1);
	cr_assert_eq(chp_cache_state_digest(c->m[0]->cache), chp_cache_state_digest(c->m[1]->cache));
	cr_assert_gt(chp_cache_tombstones(c->m[0]->cache), 80);
	chp_copy_progress(&c->m[0]->copy, &p);
	cr_assert_eq(p.items, 900);
	cr_assert_gt(c->m[0]->counters.chunks_received, 50, "chunks are of 4096 bytes");
	cr_assert_eq(c->m[0]->counters.chunks_received, c->m[1]->counters.chunks_sent);
	cr_assert_eq(c->m[0]->counters.chunks_received, c->m[0]->counters.requests);
	cr_assert_eq(c->m[0]->counters.bytes_received, c->m[1]->counters.bytes_sent);
	cr_assert_eq(p.bytes, c->m[1]->counters.bytes_sent);
	cr_assert_eq(c->m[0]->counters.items_received, 900);
	cr_assert_eq(c->m[0]->counters.chunks_bad + c->m[0]->counters.stale + c->m[0]->counters.restarts, 0);
	cluster_free(c);
}

/* One message is always in a chunk, however small the chunk. */
Test(copy, in_chunks_of_one_byte)
{
	struct cluster *c = cluster_new();

	c->m[0]->copy.config.chunk_bytes = 1;
	fill(c, 0x2, 60);
	enter_view(c, 0x2, 0x1);
	finish(c, 0);
	expect_equal(c, 0, 1);
	cr_assert_eq(c->m[0]->counters.chunks_received, 60, "each of one key");
	cluster_free(c);
}

Test(copy, keeps_what_is_newer_here)
{
	struct cluster *c = cluster_new();
	char text[96];
	struct chp_key key = key_of(text, sizeof(text), 3);

	fill(c, 0x2, 20);
	set(c->m[0], key, "newer", 5, v(1000), 1, 0, false);
	enter_view(c, 0x2, 0x1);
	finish(c, 0);
	cr_assert_eq(slot_of(c->m[0], &key)->version, v(1000));
	cluster_free(c);
}

Test(copy, of_sessions_and_their_records)
{
	struct cluster *c = cluster_new();
	struct member *s = c->m[1], *l = c->m[0];
	static const struct {
		uint8_t state, status, rmw, fate;
		uint64_t version;
		bool comes;
		uint8_t comes_rmw, comes_fate;
	} cases[8] = {
		{ CHP_RECORD_SEEN, 0, 0, CHP_FATE_OPEN, 77, true, 0, CHP_FATE_OPEN },
		{ CHP_RECORD_SEEN, 0, 1, CHP_FATE_COMMITTED, 78, true, 1, CHP_FATE_COMMITTED },
		{ CHP_RECORD_SEEN, 0, 1, CHP_FATE_UNKNOWN, 79, true, 1, CHP_FATE_UNKNOWN },
		{ CHP_RECORD_SEEN, 0, 1, CHP_FATE_OPEN, 80, false, 0, 0 },
		{ CHP_RECORD_SEEN, 0, 1, CHP_FATE_ABORTED, 81, false, 0, 0 },
		{ CHP_RECORD_DONE, CHP_STATUS_OK, 1, CHP_FATE_OPEN, 82, true, 1, CHP_FATE_COMMITTED },
		{ CHP_RECORD_DONE, CHP_STATUS_UNKNOWN_OUTCOME, 1, CHP_FATE_OPEN, 0, true, 1, CHP_FATE_UNKNOWN },
		{ CHP_RECORD_PENDING, 0, 0, CHP_FATE_OPEN, 0, false, 0, 0 },
	};

	for (uint64_t id = 1; id <= 9; id++)
		open_session(s, id);
	chp_session_close(&s->sessions, 4); /* a hole in the table */
	open_session(l, 4);                 /* and another layout at the learner */
	chp_session_close(&l->sessions, 4);
	for (uint32_t i = 0; i < 8; i++)
		*record_of(s, 6, 16 + i) = (struct chp_record){ .request = 16 + i,
								.version = cases[i].version,
								.number = 500 + i,
								.state = cases[i].state,
								.status = cases[i].status,
								.rmw = cases[i].rmw,
								.fate = cases[i].fate };
	/* Answers of writes that changed nothing are not copied. */
	*record_of(s, 9, 7) = (struct chp_record){ .request = 7,
						   .state = CHP_RECORD_DONE,
						   .status = CHP_STATUS_NOT_FOUND };
	enter_view(c, 0x2, 0x1);
	finish(c, 0);
	for (uint32_t i = 0; i < 8; i++) {
		const struct chp_record *r = record_of(l, 6, 16 + i);

		if (!cases[i].comes) {
			cr_assert_eq(r->state, CHP_RECORD_EMPTY, "case %u", i);
			continue;
		}
		cr_assert_eq(r->state, CHP_RECORD_SEEN, "case %u", i);
		cr_assert_eq(r->request, 16 + i);
		cr_assert_eq(r->version, cases[i].version, "case %u", i);
		cr_assert_eq(r->number, 500 + i);
		cr_assert_eq(r->rmw, cases[i].comes_rmw, "case %u", i);
		cr_assert_eq(r->fate, cases[i].comes_fate, "case %u", i);
	}
	cr_assert_eq(record_of(l, 9, 7)->state, CHP_RECORD_EMPTY);
	cr_assert_eq(l->counters.records_received, 5);
	cr_assert_eq(s->counters.records_sent, 5);
	cluster_free(c);
}

/* ------------------------------------------------------------------ bounds of a run */

/* What is sent in a run stays within bulk_bytes, the ends of packets that nothing fitted into included. */
/* An operation that waits here may have been executed by a home in between: that is what its record says by then. */
Test(copy, of_records_of_what_waits)
{
	struct cluster *c = cluster_new();
	struct member *s = c->m[1], *l = c->m[0];
	static const struct {
		uint64_t version;
		uint8_t rmw, fate;
		bool comes;
	} cases[6] = {
		{ 77, 0, CHP_FATE_OPEN, true },       { 78, 1, CHP_FATE_COMMITTED, true },
		{ 79, 1, CHP_FATE_UNKNOWN, true },    { 80, 1, CHP_FATE_OPEN, false },
		{ 81, 1, CHP_FATE_ABORTED, false },   { 0, 0, CHP_FATE_OPEN, false },
	};

	open_session(s, 6);
	for (uint32_t i = 0; i < 6; i++)
		*record_of(s, 6, 16 + i) = (struct chp_record){ .request = 16 + i,
								.version = cases[i].version,
								.state = CHP_RECORD_PENDING,
								.rmw = cases[i].rmw,
								.fate = cases[i].fate };
	enter_view(c, 0x2, 0x1);
	finish(c, 0);
	for (uint32_t i = 0; i < 6; i++) {
		const struct chp_record *r = record_of(l, 6, 16 + i);

		cr_assert_eq(r->state, cases[i].comes ? CHP_RECORD_SEEN : CHP_RECORD_EMPTY, "case %u", i);
		if (!cases[i].comes)
			continue;
		cr_assert_eq(r->version, cases[i].version, "case %u", i);
		cr_assert_eq(r->rmw, cases[i].rmw, "case %u", i);
		cr_assert_eq(r->fate, cases[i].fate, "case %u", i);
	}
	cluster_free(c);
}

Test(copy, keeps_within_bulk_bytes)
{
	struct cluster *c = cluster_new();
	struct member *s = c->m[1];
	uint32_t limited = 0;

	c->m[0]->copy.config.chunk_bytes = CHP_COPY_BYTES_MAX;
	fill(c, 0x2, 300);
	s->bulk = 0;
	enter_view(c, 0x2, 0x1);
	run(c->m[0]);
	deliver_all(c);
	cr_assert_eq(run(s), CHP_NEVER, "acknowledgements will wake it");
	cr_assert_null(head(c, 1, 0));
	s->bulk = 5 * PACKET;
	for (uint32_t runs = 0; !chp_copy_is_done(&c->m[0]->copy); runs++) {
		cr_assert_lt(runs, 200u);
		bool is_limited = run(s) == CHP_NEVER && s->copy.asked != 0;

		cr_assert_leq(s->used[0], 6 * PACKET);
		cr_assert(!is_limited || s->used[0] >= 4 * PACKET);
		limited += is_limited;
		deliver(c, 1, 0, UINT32_MAX);
	}
	expect_equal(c, 0, 1);
	cr_assert_eq(c->m[0]->counters.requests, 1);
	cr_assert_gt(limited, 5);
	cluster_free(c);
}

/* The least that an idle link offers is enough for the largest item. */
Test(copy, one_message_at_a_time)
{
	struct cluster *c = cluster_new();
	char text[96];
	uint8_t value[VALUE_MAX] = { 1 };

	c->m[1]->bulk = chp_copy_item_bytes(5, VALUE_MAX);
	set(c->m[1], key_of(text, sizeof(text), 1), value, VALUE_MAX, v(9), 1, 0, false);
	fill(c, 0x2, 30);
	enter_view(c, 0x2, 0x1);
	finish(c, 0);
	expect_equal(c, 0, 1);
	cluster_free(c);
}

/* A large cache that is nearly empty is looked through in parts, one after the other without a pause. */
Test(copy, looks_at_a_bounded_number_of_places)
{
	struct cluster *c = cluster_new();
	struct member *s = c->m[1];
	uint32_t runs = 0, slots = chp_cache_slots(s->cache);

	put(s, 1, v(4));
	enter_view(c, 0x2, 0x1);
	run(c->m[0]);
	deliver_all(c);
	cr_assert_gt(slots, 2 * CHP_COPY_LOOKS_MAX);
	for (; run(s) == s->now.ns; runs++)
		cr_assert_leq(s->copy.serving[0].cursor, (uint64_t)(runs + 1) * CHP_COPY_LOOKS_MAX);
	cr_assert_eq(runs, slots / CHP_COPY_LOOKS_MAX);
	cr_assert_eq(s->copy.asked, 0);
	cr_assert_eq(s->out.wake_ns, CHP_NEVER);
	cluster_free(c);
}

/* ------------------------------------------------------------------ writes go on */

/* A source waits at a key that is not readable: the version before the write under way may exist nowhere else. */
Test(copy, waits_for_a_key_that_is_not_valid)
{
	struct cluster *c = cluster_new();
	struct member *s = c->m[1];
	char text[96];
	struct chp_key key = key_of(text, sizeof(text), 3);
	struct chp_slot *slot;

	put(s, 3, v(10));
	slot = slot_of(s, &key);
	slot->state = INVALID;
	enter_view(c, 0x2, 0x1);
	for (uint32_t i = 0; i < 20; i++) {
		cr_assert_eq(run(c->m[0]), CHP_NEVER);
		deliver_all(c);
		run(s);
		deliver_all(c);
	}
	cr_assert_eq(run(s), CHP_NEVER, "what makes the key Valid will wake it");
	cr_assert_not(chp_copy_is_done(&c->m[0]->copy));
	cr_assert_gt(s->counters.waits, 10);
	slot->state = VALID;
	finish(c, 0);
	expect_equal(c, 0, 1);
	cluster_free(c);
}

/* A key that is never met Valid does not stop the copy, once the learner surely has it. */
Test(copy, skips_a_key_that_is_written_all_the_time)
{
	struct cluster *c = cluster_new();
	struct member *s = c->m[1];
	char text[96];
	struct chp_key key = key_of(text, sizeof(text), 3);

	fill(c, 0x2, 10);
	slot_of(s, &key)->state = INVALID;
	enter_view(c, 0x2, 0x1);
	run(c->m[0]);
	deliver_all(c);
	for (uint64_t i = 1; i <= 2; i++) {
		for (uint32_t runs = 0; runs < 10; runs++)
			run(s);
		cr_assert_eq(s->counters.items_skipped, 0);
		put(c->m[0], 3, v(13 + i)); /* its INV reaches the learner */
		put(s, 3, v(13 + i));
		slot_of(s, &key)->state = INVALID;
	}
	finish(c, 0);
	cr_assert_eq(s->counters.items_skipped, 1);
	cr_assert_eq(s->counters.items_sent, 9);
	slot_of(s, &key)->state = VALID;
	expect_equal(c, 0, 1);
	cluster_free(c);
}

/* What the source saw of one key says nothing of the next. */
Test(copy, waits_for_each_key_anew)
{
	struct cluster *c = cluster_new();
	struct member *s = c->m[1];
	struct chp_slot *first = NULL, *second = NULL;

	fill(c, 0x2, 40);
	for (uint32_t i = 0; i < chp_cache_slots(s->cache) && second == NULL; i++) {
		struct chp_slot *slot = chp_cache_slot(s->cache, i);

		if (slot == NULL || (slot->flags & CHP_SLOT_TOMBSTONE) != 0)
			continue;
		slot->state = INVALID;
		slot->version = first == NULL ? v(10) : v(100);
		second = first == NULL ? NULL : slot;
		first = first == NULL ? slot : first;
	}
	cr_assert_not_null(second);
	enter_view(c, 0x2, 0x1);
	run(c->m[0]);
	deliver_all(c);
	for (uint32_t i = 0; i < 10; i++)
		run(s);
	first->state = VALID;
	for (uint32_t i = 0; i < 10; i++)
		run(s);
	cr_assert_eq(s->counters.items_skipped, 0);
	cr_assert_eq(s->copy.asked, 1, "it waits for the second");
	second->state = VALID;
	finish(c, 0);
	expect_equal(c, 0, 1);
	cluster_free(c);
}

/* A session that closes while its records are sent leaves the learner by its own closing; the others all come. */
Test(copy, session_closes_meanwhile)
{
	struct cluster *c = cluster_new();
	struct member *s = c->m[1], *l = c->m[0];

	for (uint64_t id = 1; id <= 3; id++) {
		open_session(s, id);
		for (uint64_t i = 0; i < 8; i++)
			*record_of(s, id, i) = (struct chp_record){ .request = i,
								    .version = v(50),
								    .state = CHP_RECORD_SEEN };
	}
	l->copy.config.chunk_bytes = CHP_COPY_BYTES_MAX;
	s->bulk = 3 * sizeof(struct chp_copy_record);
	enter_view(c, 0x2, 0x1);
	run(l);
	deliver_all(c);
	for (uint32_t i = 0; s->counters.records_sent == 0; i++) {
		cr_assert_lt(i, 50u);
		run(s);
	}
	cr_assert_leq(s->counters.records_sent, 3, "in the middle of the first session");
	for (uint32_t n = 0; n < 2; n++)
		set_session(c->m[n], 1, v(60), CHP_SLOT_TOMBSTONE);
	deliver_all(c);
	finish(c, 0);
	chp_sessions_drop_guesses(&l->sessions);
	for (uint64_t id = 2; id <= 3; id++)
		for (uint64_t i = 0; i < 8; i++)
			cr_assert_eq(record_of(l, id, i)->version, v(50));
	cr_assert_null(chp_session_find(&l->sessions, 1));
	expect_equal(c, 0, 1);
	cluster_free(c);
}

/* A write in progress: invalid at the source, then known to the learner, then valid at the source. */
struct write {
	uint32_t key;
	uint64_t version;
	bool active, is_at_learner;
};

/*
 * Writes begin, reach the learner, and end, at random times between the runs of a slow copy. Whenever the learner is
 * done, it has every committed version: it could answer reads as a voter.
 */
static void
write_during_copy(uint64_t seed, bool hot)
{
	enum { N = 40, WRITES = 6 };
	struct cluster *c = cluster_new();
	struct chp_random random = { seed };
	struct write w[WRITES] = { 0 };
	uint64_t committed[N] = { 0 };
	struct member *s = c->m[1], *l = c->m[0];
	char text[96];
	struct chp_key key;

	for (uint32_t i = 0; i < N; i += 2) {
		put(s, i, v(10));
		committed[i] = v(10);
	}
	s->bulk = 2000;
	enter_view(c, 0x2, 0x1);
	for (uint32_t step = 0; !chp_copy_is_done(&l->copy); step++) {
		struct write *x = &w[chp_random_below(&random, WRITES)];

		cr_assert_lt(step, 200000u);
		if (!x->active) {
			x->key = (uint32_t)chp_random_below(&random, hot ? 3 : N);
			key = key_of(text, sizeof(text), x->key);
			if (slot_of(s, &key) != NULL && slot_of(s, &key)->state == INVALID)
				continue;
			x->version = chp_max_u64(committed[x->key], v(10)) + v(1) - 3;
			x->active = true;
			x->is_at_learner = false;
			put(s, x->key, x->version);
			slot_of(s, &key)->state = INVALID;
		} else if (!x->is_at_learner) {
			put(l, x->key, x->version);
			x->is_at_learner = true;
		} else {
			key = key_of(text, sizeof(text), x->key);
			slot_of(s, &key)->state = VALID;
			committed[x->key] = x->version;
			x->active = false;
		}
		switch (chp_random_below(&random, hot ? 12 : 4)) {
		case 0:
			run(s);
			break;
		case 1:
			run(l);
			break;
		case 2:
			deliver(c, 1, 0, 1 + (uint32_t)chp_random_below(&random, 5));
			deliver(c, 0, 1, 1);
			break;
		default:
			break;
		}
	}
	for (uint32_t i = 0; i < N; i++) {
		key = key_of(text, sizeof(text), i);
		struct chp_slot *slot = slot_of(l, &key);

		cr_assert(committed[i] == 0 || (slot != NULL && slot->version >= committed[i]),
			  "seed %lu: key %u is older than what was committed", (unsigned long)seed, i);
	}
	cluster_free(c);
}

Test(copy, while_keys_are_written)
{
	for (uint64_t seed = 1; seed <= 150; seed++)
		write_during_copy(seed, seed % 2 == 0);
}

/* ------------------------------------------------------------------ views, links, losses */

/* The same source after a view change: the learner goes on where it was. */
Test(copy, goes_on_after_a_view_change)
{
	struct cluster *c = cluster_new();
	uint64_t cursor;

	fill(c, 0xe, 500);
	enter_view(c, 0xe, 0x1);
	for (uint32_t i = 0; i < 40; i++) {
		run_all(c);
		deliver_all(c);
	}
	cursor = c->m[0]->copy.cursor;
	cr_assert_gt(cursor, 0);
	cr_assert_not(chp_copy_is_done(&c->m[0]->copy));
	enter_view(c, 0x6, 0x1);
	cr_assert_eq(c->m[0]->copy.source, 1);
	cr_assert_eq(c->m[0]->copy.cursor, cursor);
	cr_assert_eq(c->m[1]->copy.asked, 0, "a view change loses all requests");
	run(c->m[0]);
	cr_assert_eq(((const struct chp_copy_request *)(const void *)head(c, 0, 1))->cursor, cursor);
	finish(c, 0);
	expect_equal(c, 0, 1);
	cr_assert_eq(c->m[0]->counters.restarts, 0);
	/* What was complete stays complete, also for who is promoted. */
	enter_view(c, 0x6, 0x1);
	cr_assert(chp_copy_is_done(&c->m[0]->copy));
	enter_view(c, 0x7, 0x0);
	cr_assert(chp_copy_is_done(&c->m[0]->copy));
	cluster_free(c);
}

/* The source leaves, or comes back without its memory: all again from the next voter. */
Test(copy, begins_anew_from_another_source)
{
	for (uint32_t again = 0; again < 2; again++) {
		struct cluster *c = cluster_new();

		fill(c, 0xe, 500);
		enter_view(c, 0xe, 0x1);
		for (uint32_t i = 0; i < 40; i++) {
			run_all(c);
			deliver_all(c);
		}
		cr_assert_gt(c->m[0]->copy.cursor, 0);
		if (again == 0) {
			enter_view(c, 0xc, 0x1);
			cr_assert_eq(c->m[0]->copy.source, 2);
		} else {
			/* A voter again, under a new incarnation, without having been seen away. */
			c->view.incarnation[1] = 999;
			enter_view(c, 0xe, 0x1);
			cr_assert_eq(c->m[0]->copy.source, 1);
		}
		cr_assert_eq(c->m[0]->copy.cursor, 0);
		finish(c, 0);
		expect_equal(c, 0, 2);
		cr_assert_eq(c->m[0]->counters.restarts, 1);
		cluster_free(c);
	}
}

Test(copy, source_is_next_in_a_circle)
{
	struct cluster *c = cluster_new();

	enter_view(c, 0x5, 0xa);
	cr_assert_eq(c->m[1]->copy.source, 2);
	cr_assert_eq(c->m[3]->copy.source, 0);
	cluster_free(c);
}

/* A new life of the learner: nothing of the old one counts. */
Test(copy, new_incarnation_copies_again)
{
	struct cluster *c = cluster_new();
	uint32_t transfer;

	fill(c, 0x2, 50);
	enter_view(c, 0x2, 0x1);
	finish(c, 0);
	c->view.incarnation[0] = 555;
	enter_view(c, 0x2, 0x1);
	cr_assert_not(chp_copy_is_done(&c->m[0]->copy));
	cr_assert_eq(c->m[0]->copy.cursor, 0);
	finish(c, 0);
	cr_assert_eq(c->m[0]->counters.items_received, 100);
	/* The same by its owner's word. What is still under way is of no transfer to come. */
	transfer = c->m[0]->copy.transfer;
	chp_copy_reset(&c->m[0]->copy);
	cr_assert_eq(c->m[0]->copy.transfer, transfer);
	cr_assert_not(chp_copy_is_done(&c->m[0]->copy));
	enter_view(c, 0x2, 0x1);
	finish(c, 0);
	cr_assert_eq(c->m[0]->counters.items_received, 150);
	expect_equal(c, 0, 1);
	cluster_free(c);
}

Test(copy, asks_again_after_a_link_reset)
{
	struct cluster *c = cluster_new();
	struct chp_random random = { 5 };

	fill(c, 0x2, 500);
	c->m[1]->bulk = 3000;
	enter_view(c, 0x2, 0x1);
	for (uint32_t resets = 0; resets < 60; resets++) {
		uint64_t cursor = c->m[0]->copy.cursor;

		for (uint32_t i = 0; i < 4; i++) {
			run_all(c);
			deliver(c, 0, 1, 1);
			deliver(c, 1, 0, (uint32_t)chp_random_below(&random, 9));
		}
		cr_assert_geq(c->m[0]->copy.cursor, cursor);
		if (!chp_copy_is_done(&c->m[0]->copy))
			reset_link(c, 0, 1);
		cr_assert_eq(c->m[1]->copy.asked, 0);
	}
	finish(c, 0);
	expect_equal(c, 0, 1);
	cr_assert_eq(c->m[0]->counters.chunks_bad, 0);
	cluster_free(c);
}

/* A source forgets the request of a peer whose link was reset: the rest would be lost, or late. */
Test(copy, source_stops_at_link_down)
{
	struct cluster *c = cluster_new();
	struct member *s = c->m[1];

	fill(c, 0x2, 500);
	s->bulk = 1500;
	enter_view(c, 0x2, 0x5);
	run_all(c);
	deliver_all(c);
	run(s);
	cr_assert_eq(s->copy.asked, 5);
	chp_copy_link_down(&s->copy, 0);
	cr_assert_eq(s->copy.asked, 4);
	reset_link(c, 0, 1);
	run(s);
	cr_assert_null(head(c, 1, 0));
	finish(c, 0);
	finish(c, 2);
	cluster_free(c);
}

/* The reset of another link changes nothing. */
Test(copy, other_links_do_not_matter)
{
	struct cluster *c = cluster_new();

	fill(c, 0x6, 50);
	enter_view(c, 0x6, 0x1);
	run(c->m[0]);
	reset_link(c, 0, 2);
	cr_assert_eq(run(c->m[0]), CHP_NEVER);
	deliver_all(c);
	cr_assert_eq(c->m[1]->copy.asked, 1);
	cr_assert_eq(c->m[0]->counters.requests, 1);
	cluster_free(c);
}

/* What belongs to an earlier request is recognised by its transfer number. */
Test(copy, ignores_late_answers)
{
	struct cluster *c = cluster_new();
	uint32_t stale;

	fill(c, 0x2, 20);
	enter_view(c, 0x2, 0x1);
	run(c->m[0]);
	deliver_all(c);
	while (run(c->m[1]) != CHP_NEVER)
		; /* answers are on their way when the learner asks again */
	chp_copy_link_up(&c->m[0]->copy, 1);
	run(c->m[0]);
	for (stale = 0; head(c, 1, 0) != NULL; stale++)
		deliver(c, 1, 0, 1);
	cr_assert_gt(stale, 3);
	cr_assert_eq(c->m[0]->counters.stale, stale);
	cr_assert_eq(c->m[0]->counters.items_received, 0);
	cr_assert_eq(c->m[0]->copy.cursor, 0);
	finish(c, 0);
	expect_equal(c, 0, 1);
	cluster_free(c);
}

/* Nobody but the source is believed; nor the source when its chunk ends before its beginning. */
Test(copy, believes_only_its_source)
{
	struct cluster *c = cluster_new();
	struct member *l = c->m[0];
	struct chp_copy_end e = { .message = { .type = CHP_COPY_END, .len = sizeof(e) },
				  .next = 5000,
				  .end_flags = CHP_COPY_DONE,
				  .total = 5000 };

	fill(c, 0x6, 200);
	enter_view(c, 0x6, 0x1);
	run(l);
	e.message.op = l->copy.transfer;
	receive(c, 2, 0, &e.message);
	cr_assert_eq(l->counters.stale, 1);
	cr_assert_not(chp_copy_is_done(&l->copy));
	while (l->counters.chunks_received < 2) {
		deliver_all(c);
		run_all(c);
	}
	deliver(c, 0, 1, UINT32_MAX);
	cr_assert(l->copy.is_open);
	e.message.op = l->copy.transfer;
	e.next = l->copy.cursor - 1;
	e.end_flags = 0;
	receive(c, 1, 0, &e.message);
	cr_assert_eq(l->counters.chunks_bad, 1);
	l->now.ns += CHP_COPY_PAUSE_NS;
	finish(c, 0);
	expect_equal(c, 0, 1);
	cluster_free(c);
}

/* Serve one chunk, change or lose one message of it, and expect that the chunk is asked for again. */
static void
spoil(uint32_t at, void (*change)(struct chp_message *m))
{
	struct cluster *c = cluster_new();
	struct member *l = c->m[0];
	uint64_t asked;

	fill(c, 0x2, 100);
	open_session(c->m[1], 3);
	*record_of(c->m[1], 3, 1) = (struct chp_record){ .request = 1, .version = 5, .state = CHP_RECORD_SEEN };
	enter_view(c, 0x2, 0x1);
	for (uint32_t i = 0; c->m[1]->copy.cursor == 0 && head(c, 1, 0) == NULL; i++) {
		cr_assert_lt(i, 10u);
		run_all(c);
		deliver(c, 0, 1, 1);
	}
	deliver(c, 1, 0, at);
	cr_assert_not_null(head(c, 1, 0));
	if (change == NULL) {
		cr_assert_neq(head(c, 1, 0)->type, CHP_COPY_END);
		lose(c, 1, 0);
	} else {
		change(head(c, 1, 0));
	}
	deliver(c, 1, 0, UINT32_MAX);
	cr_assert_eq(l->counters.chunks_bad, 1);
	cr_assert_eq(l->copy.cursor, 0, "the chunk does not count");
	asked = l->counters.requests;
	cr_assert_eq(run(l), l->now.ns + CHP_COPY_PAUSE_NS, "not at once");
	cr_assert_eq(l->counters.requests, asked);
	l->now.ns += CHP_COPY_PAUSE_NS;
	cr_assert_eq(run(l), CHP_NEVER);
	cr_assert_eq(l->counters.requests, asked + 1);
	finish(c, 0);
	cr_assert_eq(chp_sessions_digest(&l->sessions), chp_sessions_digest(&c->m[1]->sessions));
	cr_assert_eq(record_of(l, 3, 1)->version, 5);
	cr_assert_eq(l->counters.chunks_bad, 1);
	cluster_free(c);
}

static void
change_value(struct chp_message *m)
{
	((uint8_t *)m)[m->len - 9] ^= 0x20;
}

static void
change_type(struct chp_message *m)
{
	m->op++; /* taken for another transfer: as good as lost */
}

static void
change_end(struct chp_message *m)
{
	struct chp_copy_end *e = (void *)m;

	while (e->message.type != CHP_COPY_END)
		e = (void *)((uint8_t *)e + e->message.len);
	e->items++;
}

static void
change_next(struct chp_message *m)
{
	struct chp_copy_end *e = (void *)m;

	while (e->message.type != CHP_COPY_END)
		e = (void *)((uint8_t *)e + e->message.len);
	e->next = 0; /* it would go on for ever */
}

Test(copy, chunk_that_lost_a_message)
{
	spoil(0, NULL);
	spoil(2, NULL);
}

Test(copy, chunk_with_a_changed_message)
{
	spoil(3, change_value);
	spoil(1, change_type);
	spoil(0, change_end);
	spoil(0, change_next);
}

/* No room: the chunk is broken off, and asked for again after a pause, until there is room. */
Test(copy, learner_without_room)
{
	struct cluster *c = cluster_new();
	struct member *l = c->m[0];

	fill(c, 0x2, 30);
	l->room = 3;
	enter_view(c, 0x2, 0x1);
	run_all(c);
	for (uint32_t i = 0; i < 5; i++) {
		deliver_all(c);
		run_all(c);
	}
	cr_assert_eq(l->counters.no_room, 1);
	cr_assert_eq(l->counters.items_received, 4);
	cr_assert_eq(l->copy.cursor, 0);
	cr_assert_gt(l->counters.stale, 0, "the rest of the chunk");
	for (uint32_t i = 0; i < 3; i++) {
		l->now.ns += CHP_COPY_PAUSE_NS;
		cr_assert_eq(run(l), CHP_NEVER);
		for (uint32_t runs = 0; runs < 5; runs++) {
			deliver_all(c);
			run_all(c);
		}
		cr_assert_eq(l->counters.no_room, 2 + i);
	}
	l->room = UINT32_MAX;
	l->now.ns += CHP_COPY_PAUSE_NS;
	finish(c, 0);
	expect_equal(c, 0, 1);
	cluster_free(c);
}

/* ------------------------------------------------------------------ several */

Test(copy, two_learners_at_once)
{
	struct cluster *c = cluster_new();

	fill(c, 0x2, 700);
	for (uint64_t id = 1; id <= 5; id++)
		open_session(c->m[1], id);
	c->m[1]->bulk = 3000;
	enter_view(c, 0x2, 0x5);
	for (uint32_t i = 0; i < 60; i++) {
		run_all(c);
		deliver_all(c);
	}
	/* Neither waits for the other. */
	cr_assert_gt(c->m[0]->copy.cursor, 0);
	cr_assert_gt(c->m[2]->copy.cursor, 0);
	cr_assert_lt(c->m[0]->copy.items_copied, c->m[2]->copy.items_copied + 100);
	cr_assert_lt(c->m[2]->copy.items_copied, c->m[0]->copy.items_copied + 100);
	finish(c, 0);
	finish(c, 2);
	expect_equal(c, 0, 1);
	expect_equal(c, 2, 1);
	cluster_free(c);
}

/* The looks of a run are shared out over the runs, whoever comes first. */
Test(copy, no_learner_starves)
{
	struct cluster *c = cluster_new();
	struct member *s = c->m[1];

	enter_view(c, 0x2, 0xd);
	run_all(c);
	deliver_all(c);
	cr_assert_eq(s->copy.asked, 0xd);
	for (uint32_t i = 0; i < NODES; i++)
		cr_assert_eq(run(s), s->now.ns);
	for (uint32_t n = 0; n < NODES; n++)
		if (n != 1)
			cr_assert_gt(s->copy.serving[n].cursor, 0, "learner %u", n);
	finish(c, 0);
	finish(c, 2);
	finish(c, 3);
	cluster_free(c);
}

static void
request(struct cluster *c, uint32_t from, uint32_t to, uint64_t cursor)
{
	struct chp_copy_request r = { .message = { .type = CHP_COPY_REQUEST, .len = sizeof(r), .op = 7 },
				      .cursor = cursor,
				      .bytes = 1000 };

	receive(c, from, to, &r.message);
}

Test(copy, serves_learners_only)
{
	struct cluster *c = cluster_new();
	struct member *s = c->m[1];

	enter_view(c, 0x6, 0x1);
	request(c, 2, 1, 0); /* a voter */
	request(c, 3, 1, 0); /* not in the view */
	request(c, 0, 1, total_places(s) + 1);
	cr_assert_eq(s->counters.refused, 3);
	cr_assert_eq(s->copy.asked, 0);
	request(c, 0, 1, total_places(s));
	cr_assert_eq(s->copy.asked, 1);
	/* A learner has nothing to give. */
	enter_view(c, 0x2, 0x5);
	request(c, 2, 0, 0);
	cr_assert_eq(c->m[0]->counters.refused, 1);
	/* A member that is not in the view serves nobody and asks nobody. */
	enter_view(c, 0x4, 0x1);
	request(c, 0, 1, 0);
	cr_assert_eq(s->counters.refused, 4);
	cr_assert_eq(run(s), CHP_NEVER);
	cr_assert_null(head(c, 1, 0));
	cluster_free(c);
}

/* ------------------------------------------------------------------ the shape of messages */

static bool
accepts(const void *m)
{
	return chp_copy_check(m, VALUE_MAX);
}

/* One message, and each of its fields set to what is not allowed. */
#define REFUSES(good, change)                                                       \
	do {                                                                        \
		__typeof__(good) bad = (good);                                      \
		cr_assert(accepts(&bad));                                           \
		bad change;                                                         \
		cr_assert_not(accepts(&bad), #change);                              \
	} while (0)

/* ------------------------------------------------------------------ what is only in the source's datastore */

static bool
ask_scan(struct chp_backing *backing, uint32_t scan, bool from_start, bool only_old, uint32_t bytes)
{
	struct store *s = (struct store *)backing;

	cr_assert_lt(scan, NODES);
	cr_assert(!only_old, "what earlier lives left is not the cluster's");
	if (!backing->is_ready || s->scan[scan].is_asked)
		return false;
	if (from_start)
		s->scan[scan].at = s->first;
	s->starts += from_start;
	s->scan[scan].bytes = bytes;
	s->scan[scan].is_asked = true;
	return true;
}

static bool
may_scan(void *protocol)
{
	return ((struct member *)protocol)->store.may_scan;
}

/* A member gets a store with these keys. */
static void
give_store(struct member *m, uint32_t first, uint32_t end)
{
	struct chp_copy_config config = copy_config(m);

	m->store = (struct store){
		.backing = { .is_ready = true, .has_begun = true, .may_evict = true, .scan = ask_scan },
		.first = first,
		.end = end,
		.may_scan = true,
	};
	config.backing = &m->store.backing;
	config.parts = m->parts;
	config.may_scan = may_scan;
	chp_copy_init(&m->copy, &config);
}

/* Key i as a store has it: its version is that of fill(). */
static void
scanned(struct member *m, uint32_t scan, uint32_t i)
{
	char text[96];
	uint8_t value[VALUE_MAX];
	const struct chp_key key = key_of(text, sizeof(text), i);
	const bool is_deleted = i % 11 == 0;
	const struct chp_stored item = { .key = key.bytes,
					 .key_len = (uint8_t)key.len,
					 .value = value,
					 .value_len = is_deleted ? 0 : i % 300,
					 .version = v(10 + i),
					 .version_flags = is_deleted ? CHP_SLOT_TOMBSTONE | CHP_SLOT_RMW : 0 };

	memset(value, (int)i, sizeof(value));
	chp_copy_scanned(&m->copy, scan, &item);
}

/* The next part of a scan that was asked for. */
static void
serve_scan(struct member *m, uint32_t scan)
{
	struct store *s = &m->store;
	uint32_t bytes = 0;

	if (!s->scan[scan].is_asked)
		return;
	s->scan[scan].is_asked = false;
	for (; s->scan[scan].at < s->end; s->scan[scan].at++) {
		const uint32_t i = s->scan[scan].at;

		bytes += chp_copy_item_bytes(i % 7 == 0 ? 60 : 10, i % 11 == 0 ? 0 : i % 300);
		if (bytes > s->scan[scan].bytes)
			break;
		scanned(m, scan, i);
	}
	chp_copy_scan_end(&m->copy, scan, s->scan[scan].at == s->end, false);
}

static void
finish_stored(struct cluster *c, uint32_t learner, uint32_t source)
{
	for (uint32_t rounds = 0; !chp_copy_is_done(&c->m[learner]->copy); rounds++) {
		cr_assert_lt(rounds, 20000u);
		run_all(c);
		deliver_all(c);
		for (uint32_t scan = 0; scan < NODES; scan++)
			serve_scan(c->m[source], scan);
		for (uint32_t n = 0; n < NODES; n++)
			c->m[n]->now.ns += CHP_COPY_PAUSE_NS / 4;
	}
}

static void
expect_key(struct member *m, uint32_t i, uint64_t version)
{
	char text[96];
	struct chp_key key = key_of(text, sizeof(text), i);
	const struct chp_slot *s = slot_of(m, &key);

	cr_assert_not_null(s, "key %u", i);
	cr_assert_eq(s->version, version);
	cr_assert_eq((s->flags & CHP_SLOT_TOMBSTONE) != 0, i % 11 == 0);
}

Test(copy, of_what_is_only_in_the_store)
{
	struct cluster *c = cluster_new();

	give_store(c->m[1], 0, 400);
	fill(c, 1u << 1, 20); /* of those, in the cache */
	enter_view(c, 2, 1);
	finish_stored(c, 0, 1);
	for (uint32_t i = 0; i < 400; i++)
		expect_key(c->m[0], i, v(10 + i));
	cr_assert_eq(c->m[1]->store.starts, 1);
	cr_assert_eq(c->m[1]->counters.rescans, 0);
	cr_assert_eq(c->m[1]->counters.stored_sent, 380, "what the cache has is sent as it has it");
	cluster_free(c);
}

Test(copy, of_an_empty_store)
{
	struct cluster *c = cluster_new();

	give_store(c->m[1], 0, 0);
	fill(c, 1u << 1, 20);
	enter_view(c, 2, 1);
	finish_stored(c, 0, 1);
	expect_key(c->m[0], 19, v(29));
	cluster_free(c);
}

Test(copy, a_chunk_that_is_asked_for_again_does_not_scan_the_store_again)
{
	struct cluster *c = cluster_new();

	give_store(c->m[1], 0, 400);
	enter_view(c, 2, 1);
	/* Every chunk breaks off after some items, again and again. */
	for (uint32_t rounds = 0; !chp_copy_is_done(&c->m[0]->copy); rounds++) {
		cr_assert_lt(rounds, 20000u);
		c->m[0]->room = rounds % 3 == 0 ? 7 : 0;
		run_all(c);
		deliver_all(c);
		serve_scan(c->m[1], 0);
		c->m[0]->now.ns += CHP_COPY_PAUSE_NS;
	}
	for (uint32_t i = 0; i < 400; i++)
		expect_key(c->m[0], i, v(10 + i));
	cr_assert_gt(c->m[0]->counters.no_room, 10);
	cr_assert_eq(c->m[1]->store.starts, 1);
	cluster_free(c);
}

Test(copy, a_store_that_loses_its_place_is_looked_through_again)
{
	struct cluster *c = cluster_new();
	uint32_t failures = 0;

	give_store(c->m[1], 0, 400);
	enter_view(c, 2, 1);
	for (uint32_t rounds = 0; !chp_copy_is_done(&c->m[0]->copy); rounds++) {
		cr_assert_lt(rounds, 20000u);
		run_all(c);
		deliver_all(c);
		if (rounds % 5 == 4 && failures < 3 && c->m[1]->store.scan[0].is_asked) {
			failures++;
			c->m[1]->store.scan[0].is_asked = false;
			scanned(c->m[1], 0, 3);
			chp_copy_scan_end(&c->m[1]->copy, 0, false, true);
		}
		serve_scan(c->m[1], 0);
		c->m[0]->now.ns += CHP_COPY_PAUSE_NS;
	}
	for (uint32_t i = 0; i < 400; i++)
		expect_key(c->m[0], i, v(10 + i));
	cr_assert_eq(c->m[1]->store.starts, 1 + failures);
	cluster_free(c);
}

Test(copy, what_is_in_the_store_and_under_way_is_waited_for)
{
	struct cluster *c = cluster_new();
	char text[96];
	struct chp_key key = key_of(text, sizeof(text), 5);

	give_store(c->m[1], 0, 10);
	enter_view(c, 2, 1);
	for (uint32_t i = 0; i < 50 && !c->m[1]->store.scan[0].is_asked; i++) {
		run_all(c);
		deliver_all(c);
	}
	cr_assert(c->m[1]->store.scan[0].is_asked);
	/* The key is loaded and written: its new version is in the store already, and not committed. */
	put(c->m[1], 5, v(15));
	slot_of(c->m[1], &key)->state = INVALID;
	for (uint32_t i = 0; i < 20; i++) {
		serve_scan(c->m[1], 0);
		run_all(c);
		deliver_all(c);
	}
	cr_assert(!chp_copy_is_done(&c->m[0]->copy));
	cr_assert_null(slot_of(c->m[0], &key));
	key = key_of(text, sizeof(text), 5);
	slot_of(c->m[1], &key)->state = VALID;
	finish_stored(c, 0, 1);
	expect_key(c->m[0], 5, v(15));
	cluster_free(c);
}

Test(copy, the_store_is_not_looked_through_before_it_is_the_clusters)
{
	struct cluster *c = cluster_new();

	give_store(c->m[1], 0, 10);
	c->m[1]->store.may_scan = false;
	fill(c, 1u << 1, 3);
	enter_view(c, 2, 1);
	for (uint32_t i = 0; i < 20; i++) {
		run_all(c);
		deliver_all(c);
		serve_scan(c->m[1], 0);
	}
	cr_assert(!chp_copy_is_done(&c->m[0]->copy));
	cr_assert_eq(c->m[1]->store.starts, 0);
	c->m[1]->store.may_scan = true;
	finish_stored(c, 0, 1);
	expect_key(c->m[0], 9, v(19));
	cluster_free(c);
}

Test(copy, a_volatile_store_is_not_looked_through)
{
	struct cluster *c = cluster_new();

	give_store(c->m[1], 0, 10);
	c->m[1]->store.backing.may_evict = false;
	fill(c, 1u << 1, 3);
	enter_view(c, 2, 1);
	finish(c, 0);
	cr_assert_eq(c->m[1]->store.starts, 0);
	cluster_free(c);
}

Test(copy, more_items_than_were_asked_for_are_a_part_that_failed)
{
	struct cluster *c = cluster_new();

	give_store(c->m[1], 0, 100);
	enter_view(c, 2, 1);
	scanned(c->m[1], 0, 1); /* of no scan */
	chp_copy_scan_end(&c->m[1]->copy, 0, true, false);
	for (uint32_t i = 0; i < 50 && !c->m[1]->store.scan[0].is_asked; i++) {
		run_all(c);
		deliver_all(c);
	}
	cr_assert(c->m[1]->store.scan[0].is_asked);
	c->m[1]->store.scan[0].is_asked = false;
	for (uint32_t i = 0; i < 100; i++)
		scanned(c->m[1], 0, 299);
	chp_copy_scan_end(&c->m[1]->copy, 0, true, false);
	finish_stored(c, 0, 1);
	cr_assert_eq(c->m[1]->store.starts, 2);
	for (uint32_t i = 0; i < 100; i++)
		expect_key(c->m[0], i, v(10 + i));
	cluster_free(c);
}

Test(copy, of_stores_to_two_learners_at_once)
{
	struct cluster *c = cluster_new();

	give_store(c->m[1], 0, 200);
	enter_view(c, 2, 5);
	finish_stored(c, 0, 1);
	finish_stored(c, 2, 1);
	for (uint32_t i = 0; i < 200; i++) {
		expect_key(c->m[0], i, v(10 + i));
		expect_key(c->m[2], i, v(10 + i));
	}
	cr_assert_eq(c->m[1]->store.starts, 2);
	cluster_free(c);
}

/* ------------------------------------------------------------------ copies of protocols with a log */

static struct cluster *
cluster_by_log(void)
{
	struct cluster *c = cluster_new();

	for (uint32_t n = 0; n < NODES; n++)
		c->m[n]->copy.config.by_log = true;
	return c;
}

/* A session with a record of every status and state. */
static void
decide(struct member *m, uint64_t session)
{
	const struct chp_session *s = chp_session_open(&m->sessions, session);

	chp_session_done(&m->sessions, session, 1, CHP_STATUS_OK, 11, 21);
	chp_session_done(&m->sessions, session, 2, CHP_STATUS_COMPARE_FAILED, 12, 22);
	chp_session_done(&m->sessions, session, 3, CHP_STATUS_NOT_FOUND, 0, 0);
	chp_session_record(&m->sessions, s, 4)->state = CHP_RECORD_PENDING;
	chp_session_record(&m->sessions, s, 4)->request = 4;
}

Test(copy, by_log_takes_every_decided_record)
{
	struct cluster *c = cluster_by_log();
	struct member *l = c->m[0], *s = c->m[1];
	const struct chp_session *copied = chp_session_open(&l->sessions, 5);
	struct chp_record *r;
	struct chp_copy_progress p;

	decide(s, 5);
	decide(s, 6); /* the learner does not know it: its opening is in the log behind the copy's beginning */
	chp_session_done(&l->sessions, 5, 9, CHP_STATUS_OK, 90, 0);
	chp_copy_serve_to(&s->copy, 1);
	chp_copy_begin(&l->copy, 1);
	cr_assert_not(chp_copy_is_done(&l->copy));
	finish(c, 0);
	cr_assert_eq(s->counters.records_sent, 6);
	cr_assert_eq(l->counters.records_received, 6);
	r = chp_session_record(&l->sessions, copied, 9);
	cr_assert(r->request == 9 && r->version == 90, "what is newer here stays");
	r = chp_session_record(&l->sessions, copied, 2);
	cr_assert(r->state == CHP_RECORD_DONE && r->status == CHP_STATUS_COMPARE_FAILED && r->version == 12 &&
		  r->number == 22);
	r = chp_session_record(&l->sessions, copied, 3);
	cr_assert(r->state == CHP_RECORD_DONE && r->status == CHP_STATUS_NOT_FOUND && r->version == 0);
	cr_assert_eq(chp_session_record(&l->sessions, copied, 4)->state, CHP_RECORD_EMPTY, "nothing decided it");
	cr_assert_null(chp_session_find(&l->sessions, 6));
	chp_copy_progress(&l->copy, &p);
	cr_assert(p.done && p.source == 1 && p.at == p.total);
	cluster_free(c);
}

Test(copy, by_log_begins_and_stops_as_told)
{
	struct cluster *c = cluster_by_log();
	struct member *l = c->m[0];
	uint32_t transfer;

	decide(c->m[1], 5);
	decide(c->m[2], 5);
	run(l);
	cr_assert_null(head(c, 0, 1), "nobody told it to");
	chp_copy_begin(&l->copy, 1);
	run(l);
	transfer = l->copy.transfer;
	deliver(c, 0, 1, 1);
	cr_assert_eq(c->m[1]->counters.refused, 1, "nobody told the source to");
	chp_copy_begin(&l->copy, 2);
	cr_assert_eq(l->counters.restarts, 1);
	chp_copy_serve_to(&c->m[2]->copy, 1 | chp_bit(2) | chp_bit(3));
	cr_assert_eq(c->m[2]->copy.learners, 1 | chp_bit(3), "not itself");
	run(l);
	cr_assert_gt(l->copy.transfer, transfer);
	deliver(c, 0, 2, 1);
	cr_assert_eq(c->m[2]->copy.asked, 1);
	chp_copy_serve_to(&c->m[2]->copy, chp_bit(3));
	cr_assert_eq(c->m[2]->copy.asked, 0);
	run(c->m[2]);
	cr_assert_null(head(c, 2, 0), "it is served no more");
	chp_copy_stop(&l->copy);
	run(l);
	cr_assert_null(head(c, 0, 2));
	cr_assert_not(chp_copy_is_done(&l->copy));
	chp_copy_serve_to(&c->m[2]->copy, 1);
	chp_copy_begin(&l->copy, 2);
	cr_assert_eq(l->counters.restarts, 1, "it was not copying");
	finish(c, 0);
	chp_copy_begin(&l->copy, 2);
	cr_assert_not(chp_copy_is_done(&l->copy), "a copy that is complete counts for nothing in the next");
	cr_assert_eq(l->copy.cursor, 0);
	finish(c, 0);
	cluster_free(c);
}

Test(copy, records_of_the_other_kind_are_ignored)
{
	struct cluster *c = cluster_by_log();
	struct member *l = c->m[0];
	const struct chp_session *s = chp_session_open(&l->sessions, 5);
	struct chp_copy_record r = { .message = { .type = CHP_COPY_RECORD, .len = sizeof(r) },
				     .session = 5,
				     .request = 1,
				     .version = 9,
				     .record_flags = CHP_COPY_RECORD_COMMITTED };

	chp_copy_begin(&l->copy, 1);
	run(l);
	r.message.op = l->copy.transfer;
	receive(c, 1, 0, &r.message);
	cr_assert_eq(l->counters.stale, 1);
	cr_assert_eq(l->counters.records_received, 0);
	l->copy.config.by_log = false;
	r.record_flags = CHP_COPY_RECORD_DECIDED;
	receive(c, 1, 0, &r.message);
	cr_assert_eq(l->counters.stale, 2);
	cr_assert_eq(chp_session_record(&l->sessions, s, 1)->state, CHP_RECORD_EMPTY);
	cluster_free(c);
}

Test(copy_wire, requests_and_ends)
{
	struct chp_copy_request r = { .message = { .type = CHP_COPY_REQUEST, .len = sizeof(r) }, .bytes = 1 };
	struct chp_copy_end e = { .message = { .type = CHP_COPY_END, .len = sizeof(e) }, .next = 3, .total = 4 };
	struct chp_copy_end done = { .message = { .type = CHP_COPY_END, .len = sizeof(e) }, .next = 4, .total = 4 };

	REFUSES(r, .bytes = 0);
	REFUSES(r, .bytes = CHP_COPY_BYTES_MAX + 1);
	REFUSES(r, .message.len = 16);
	REFUSES(r, .message.len = 32);
	REFUSES(r, .message.type = 0);
	REFUSES(r, .message.type = 5);
	REFUSES(e, .next = 5);
	REFUSES(e, .next = 4);
	REFUSES(e, .end_flags = CHP_COPY_DONE);
	REFUSES(e, .end_flags = 2);
	REFUSES(e, .message.len = 48);
	cr_assert_not(accepts(&done), "done without saying so");
	done.end_flags = CHP_COPY_DONE;
	cr_assert(accepts(&done));
}

Test(copy_wire, records)
{
	struct chp_copy_record r = { .message = { .type = CHP_COPY_RECORD, .len = sizeof(r) },
					   .session = 1,
					   .version = 1,
					   .record_flags = CHP_COPY_RECORD_RMW | CHP_COPY_RECORD_COMMITTED };
	struct chp_copy_record other = r;

	REFUSES(r, .session = 0);
	REFUSES(r, .version = 0);
	REFUSES(r, .record_flags = 16);
	REFUSES(r, .record_flags = CHP_COPY_RECORD_COMMITTED | 1u << CHP_COPY_RECORD_STATUS_SHIFT);
	REFUSES(r, .record_flags = CHP_COPY_RECORD_DECIDED | CHP_COPY_RECORD_RMW);
	REFUSES(r, .record_flags = CHP_COPY_RECORD_DECIDED | CHP_STATUS_COUNT << CHP_COPY_RECORD_STATUS_SHIFT);
	REFUSES(r, .record_flags = CHP_COPY_RECORD_RMW);
	REFUSES(r, .record_flags = CHP_COPY_RECORD_COMMITTED | CHP_COPY_RECORD_UNKNOWN);
	REFUSES(r, .message.len = 40);
	other.record_flags = 0;
	cr_assert(accepts(&other));
	other.record_flags = CHP_COPY_RECORD_RMW | CHP_COPY_RECORD_UNKNOWN;
	other.version = 0;
	cr_assert(accepts(&other));
	other.record_flags = CHP_COPY_RECORD_DECIDED | CHP_STATUS_COMPARE_FAILED << CHP_COPY_RECORD_STATUS_SHIFT;
	cr_assert(accepts(&other));
}

struct item {
	struct chp_copy_item m;
	uint8_t data[1032];
} CHP_PACKED;

static struct item
item_of(uint8_t key_len, uint32_t value_len, uint8_t flags)
{
	struct item i = { .m = { .message = { .type = CHP_COPY_ITEM,
					      .len = (uint16_t)chp_copy_item_bytes(key_len, value_len) },
				 .version = v(1),
				 .key_len = key_len,
				 .item_flags = flags,
				 .value_total = value_len } };

	memset(i.data, 1, sizeof(i.data));
	return i;
}

Test(copy_wire, items)
{
	struct item i = item_of(8, 3, CHP_COPY_RMW | CHP_COPY_BASE_ABSENT);
	struct item session = item_of(8, 0, CHP_COPY_SESSION);

	REFUSES(i, .m.key_len = 0);
	REFUSES(i, .m.key_len = 251);
	REFUSES(i, .m.key_len = 20);
	REFUSES(i, .m.value_total = VALUE_MAX + 1);
	REFUSES(i, .m.value_total = 20);
	REFUSES(i, .m.version = 0);
	REFUSES(i, .m.version = chp_version_make(CHP_COPY_COUNTER_MAX + 1, 0));
	REFUSES(i, .m.item_flags = 0x10);
	REFUSES(i, .m.item_flags = 0x20);
	REFUSES(i, .m.item_flags = CHP_COPY_TOMBSTONE);
	REFUSES(i, .m.message.len = 16);
	REFUSES(session, .m.item_flags = CHP_COPY_SESSION | CHP_COPY_FORGET);
	REFUSES(session, .m.key_len = 7);
	memset(session.data, 0, 8);
	cr_assert_not(accepts(&session), "session 0");
	i = item_of(250, VALUE_MAX, CHP_COPY_BASE_UNKNOWN);
	cr_assert(accepts(&i));
	i = item_of(250, 0, CHP_COPY_TOMBSTONE | CHP_COPY_FORGET);
	cr_assert(accepts(&i));
}

Test(copy_wire, items_that_only_name_a_version)
{
	struct item i = item_of(8, 0, CHP_COPY_UNDER_WAY);

	cr_assert(accepts(&i));
	REFUSES(i, .m.item_flags = CHP_COPY_UNDER_WAY | CHP_COPY_RMW);
	REFUSES(i, .m.version = 0);
	REFUSES(i, .m.version = chp_version_make(CHP_COPY_COUNTER_MAX + 1, 0));
	i = item_of(8, 3, CHP_COPY_UNDER_WAY);
	cr_assert_not(accepts(&i), "with a value");
}
