/* SPDX-License-Identifier: BSD-3-Clause */
#include "protocols/copy.h"

#include "base/mutation.h"

#include <string.h>

_Static_assert(CHP_COPY_VERSION_FLAGS == CHP_SLOT_VERSION_FLAGS &&
		       (int)CHP_COPY_RMW == CHP_SLOT_RMW && (int)CHP_COPY_TOMBSTONE == CHP_SLOT_TOMBSTONE &&
		       (int)CHP_COPY_SESSION == CHP_SLOT_SESSION &&
		       (int)CHP_COPY_BASE_UNKNOWN == CHP_SLOT_BASE_UNKNOWN &&
		       (int)CHP_COPY_FORGET == CHP_SLOT_FORGET,
	       "the flags of a version are the same in messages and slots");

void
chp_copy_init(struct chp_copy *c, const struct chp_copy_config *config)
{
	CHP_ASSERT_OP(config->n_nodes, <=, CHP_NODES_MAX);
	CHP_ASSERT_OP(config->self, <, config->n_nodes);
	CHP_ASSERT(config->chunk_bytes >= 1 && config->chunk_bytes <= CHP_COPY_BYTES_MAX);
	*c = (struct chp_copy){ .config = *config, .source = CHP_NODES_MAX, .ask_bytes = config->chunk_bytes };
}

void
chp_copy_reset(struct chp_copy *c)
{
	const uint32_t transfer = c->transfer;

	/* Transfer numbers go on, so that nothing which is still under way is taken for an answer. */
	chp_copy_init(c, &c->config);
	c->transfer = transfer;
}

/* ------------------------------------------------------------------ views and links */

/* The next of a set behind a node, in a circle. */
static uint32_t
next_behind(uint64_t set, uint32_t node)
{
	uint64_t behind = set & ~(chp_bit(node) | (chp_bit(node) - 1));

	return chp_first_bit(behind != 0 ? behind : set);
}

/* Another source numbers its keys differently: all begins anew, and what is here already is skipped. */
static void
choose_source(struct chp_copy *c, const struct chp_view *v)
{
	CHP_ASSERT_OP(v->voters, !=, 0u);
	if (c->source < CHP_NODES_MAX && (v->voters & chp_bit(c->source)) != 0 &&
	    v->incarnation[c->source] == c->source_incarnation)
		return;
	if (c->source < CHP_NODES_MAX) {
		c->restarts++;
		c->config.counters->restarts++;
	}
	c->source = next_behind(v->voters, c->config.self);
	c->source_incarnation = v->incarnation[c->source];
	c->cursor = c->total = 0;
	c->pause_until_ns = 0;
}

void
chp_copy_view(struct chp_copy *c, const struct chp_view *v)
{
	const uint64_t self = chp_bit(c->config.self);

	CHP_ASSERT(!c->config.by_log);

	if ((chp_view_live(v) & self) != 0 && v->incarnation[c->config.self] != c->incarnation) {
		chp_copy_reset(c);
		c->incarnation = v->incarnation[c->config.self];
	}
	c->learners = (v->voters & self) != 0 ? v->learners & ~self : 0;
	c->asked = 0;
	c->is_open = false;
	c->is_done = c->is_done || (v->voters & self) != 0;
	c->is_learning = (v->learners & self) != 0 && !c->is_done;
	if (c->is_learning)
		choose_source(c, v);
}

void
chp_copy_serve_to(struct chp_copy *c, uint64_t peers)
{
	c->learners = peers & ~chp_bit(c->config.self);
	c->asked &= c->learners;
}

void
chp_copy_begin(struct chp_copy *c, uint32_t source)
{
	CHP_ASSERT(c->config.by_log);
	CHP_ASSERT(source < c->config.n_nodes && source != c->config.self);
	if (c->is_learning) {
		c->restarts++;
		c->config.counters->restarts++;
	}
	c->source = source;
	c->cursor = c->total = 0;
	c->pause_until_ns = 0;
	c->is_open = c->is_done = false;
	c->is_learning = true;
}

void
chp_copy_stop(struct chp_copy *c)
{
	c->is_learning = c->is_open = c->is_done = false;
}

void
chp_copy_link_down(struct chp_copy *c, uint32_t peer)
{
	c->asked &= ~chp_bit(peer);
}

void
chp_copy_link_up(struct chp_copy *c, uint32_t peer)
{
	if (peer == c->source)
		c->is_open = false; /* request or answer was lost with the old link */
}

/* ------------------------------------------------------------------ source: a chunk */

enum step {
	PASSED,  /* go on with the next place */
	FULL,    /* the chunk ends here */
	NO_ROOM, /* not in this run: the link has enough to do */
	WAITING, /* not in this run: the key is not readable */
};

/* Where the places of cache and session table end, and those of the store begin. */
static uint64_t
places_of(const struct chp_copy *c)
{
	const struct chp_sessions *t = c->config.sessions;

	return chp_cache_slots(c->config.cache) + (uint64_t)t->capacity * t->window;
}

/* Whether keys may be in the store and not in the cache; not known before the store has said what it is. */
static bool
has_store(const struct chp_copy *c)
{
	return c->config.backing != NULL && (c->config.backing->may_evict || !c->config.backing->has_begun);
}

/* Cursors behind the cache only count the items of a store: more than there can ever be, far from wrapping. */
#define CURSOR_MAX (UINT64_C(1) << 60)

/* How far the copy goes. The store's end is known when it is reached. */
static uint64_t
total_of(const struct chp_copy *c, uint32_t peer)
{
	const struct chp_copy_part *part = &c->part[peer];
	const uint64_t places = places_of(c);

	if (!has_store(c))
		return places;
	if (part->is_last && c->serving[peer].cursor == part->first + part->n)
		return c->serving[peer].cursor;
	return chp_max_u64(c->serving[peer].cursor, places) + 1;
}

static enum step
pass(struct chp_copy_serving *v)
{
	v->cursor++;
	v->seen = 0;
	return PASSED;
}

/* Whether `bytes` more go into this chunk and this run. One message always fits a chunk, or it would never end. */
static enum step
room_for(const struct chp_copy_serving *v, const struct chp_lane *lane, uint32_t bytes)
{
	if (v->items > 0 && bytes > v->bytes_left)
		return FULL;
	return bytes > lane->bulk_bytes ? NO_ROOM : PASSED;
}

static void *
send(struct chp_copy *c, uint32_t peer, uint32_t bytes, struct chp_out *out)
{
	struct chp_lane *lane = &out->lane[peer];
	const uint32_t left = (uint32_t)(lane->end - lane->at);
	/* What is left of a packet that is too full is used up as well: bulk_bytes stand for packets. */
	const uint32_t cost = left < bytes ? left + bytes : bytes;

	lane->bulk_bytes -= chp_min_u32(cost, lane->bulk_bytes);
	c->config.counters->bytes_sent += bytes;
	return chp_send(out, peer, bytes);
}

/* A message that is written completely counts for the chunk. */
static void
count(struct chp_copy_serving *v, const struct chp_message *m)
{
	v->items++;
	v->bytes_left -= chp_min_u32(m->len, v->bytes_left);
	v->digest += chp_hash64(m, m->len, 0);
}

static void
send_item(struct chp_copy *c, struct chp_copy_serving *v, const struct chp_slot *s, uint32_t peer,
	  struct chp_out *out)
{
	const uint32_t bytes = chp_copy_item_bytes(s->key_len, s->value_len);
	const uint32_t used = (uint32_t)sizeof(struct chp_copy_item) + s->key_len + s->value_len;
	struct chp_copy_item *m = send(c, peer, bytes, out);
	uint8_t *key = (uint8_t *)(m + 1);

	*m = (struct chp_copy_item){
		.message = { .type = CHP_COPY_ITEM, .len = (uint16_t)bytes, .op = v->transfer },
		.version = s->version,
		.base_writer = s->base_writer,
		.key_len = s->key_len,
		.item_flags = (uint8_t)(s->flags & CHP_SLOT_VERSION_FLAGS),
		.value_total = s->value_len,
	};
	if ((s->flags & CHP_SLOT_BASE_ABSENT) != 0)
		m->item_flags |= CHP_COPY_BASE_ABSENT;
	chp_cache_key(c->config.cache, s, key);
	chp_cache_value(c->config.cache, s, key + s->key_len);
	memset((uint8_t *)m + used, 0, bytes - used);
	count(v, &m->message);
	c->config.counters->items_sent++;
}

/* What is under way here, and should be at the learner. */
static void
name_item(struct chp_copy *c, struct chp_copy_serving *v, const struct chp_slot *s, uint32_t peer, struct chp_out *out)
{
	const uint32_t bytes = chp_copy_item_bytes(s->key_len, 0);
	struct chp_copy_item *m = send(c, peer, bytes, out);

	memset(m, 0, bytes);
	m->message = (struct chp_message){ .type = CHP_COPY_ITEM, .len = (uint16_t)bytes, .op = v->transfer };
	m->version = s->version;
	m->key_len = s->key_len;
	m->item_flags = CHP_COPY_UNDER_WAY;
	chp_cache_key(c->config.cache, s, (uint8_t *)(m + 1));
	count(v, &m->message);
	c->config.counters->items_named++;
}

static enum step
serve_slot(struct chp_copy *c, struct chp_copy_serving *v, const struct chp_slot *s, uint32_t peer, struct chp_out *out)
{
	enum chp_copy_verdict verdict;
	enum step room;

	if (s == NULL || (CHP_MUTATED(P47_COPY_NO_TOMBSTONES) && (s->flags & CHP_SLOT_TOMBSTONE) != 0))
		return pass(v);
	verdict = c->config.look(c->config.protocol, s, v->seen);
	switch (verdict) {
	case CHP_COPY_WAIT:
		if (v->seen == 0)
			v->seen = s->version;
		c->config.counters->waits++;
		return WAITING;
	case CHP_COPY_SKIP:
		c->config.counters->items_skipped++;
		return pass(v);
	case CHP_COPY_NAME:
	case CHP_COPY_SEND:
	default:
		break;
	}
	room = room_for(v, &out->lane[peer],
			chp_copy_item_bytes(s->key_len, verdict == CHP_COPY_NAME ? 0 : s->value_len));
	if (room != PASSED)
		return room;
	if (verdict == CHP_COPY_NAME)
		name_item(c, v, s, peer, out);
	else
		send_item(c, v, s, peer, out);
	return pass(v);
}

/*
 * What another home of the session would have to know. Not what is still open, here or at a peer: its INV
 * reaches the learner. Nor what was certainly not applied: it may be tried anew. What a peer's write said of a request
 * counts whether or not an operation still waits here for its turn at the same request, as it may where the home moved
 * away and came back.
 */
static bool
is_worth_sending(const struct chp_copy *c, const struct chp_record *r)
{
	if (c->config.by_log)
		return r->state == CHP_RECORD_DONE;
	if (r->state == CHP_RECORD_DONE)
		return r->status == CHP_STATUS_UNKNOWN_OUTCOME || (r->status == CHP_STATUS_OK && r->version != 0);
	return (r->state == CHP_RECORD_SEEN || r->state == CHP_RECORD_PENDING) &&
	       ((r->version != 0 && (!r->rmw || r->fate == CHP_FATE_COMMITTED)) || r->fate == CHP_FATE_UNKNOWN);
}

/* Only a read-modify-write ends with an outcome that nobody knows. */
static uint32_t
flags_of(const struct chp_copy *c, const struct chp_record *r)
{
	const bool is_done = r->state == CHP_RECORD_DONE;

	if (c->config.by_log)
		return CHP_COPY_RECORD_DECIDED | (uint32_t)r->status << CHP_COPY_RECORD_STATUS_SHIFT;
	if (is_done ? r->status == CHP_STATUS_UNKNOWN_OUTCOME : r->fate == CHP_FATE_UNKNOWN)
		return CHP_COPY_RECORD_RMW | CHP_COPY_RECORD_UNKNOWN;
	return (r->rmw ? CHP_COPY_RECORD_RMW : 0u) |
	       (is_done || r->fate == CHP_FATE_COMMITTED ? CHP_COPY_RECORD_COMMITTED : 0u);
}

static enum step
serve_record(struct chp_copy *c, struct chp_copy_serving *v, uint32_t peer, struct chp_out *out)
{
	const struct chp_sessions *t = c->config.sessions;
	const uint64_t at = v->cursor - chp_cache_slots(c->config.cache);
	const struct chp_session *s = &t->session[at / t->window];
	const struct chp_record *r = &t->record[at];
	struct chp_copy_record *m;
	enum step room;

	if (s->id == 0) {
		v->cursor += t->window - at % t->window;
		return PASSED;
	}
	if (!is_worth_sending(c, r))
		return pass(v);
	room = room_for(v, &out->lane[peer], sizeof(*m));
	if (room != PASSED)
		return room;
	m = send(c, peer, sizeof(*m), out);
	*m = (struct chp_copy_record){
		.message = { .type = CHP_COPY_RECORD, .len = sizeof(*m), .op = v->transfer },
		.session = s->id,
		.request = r->request,
		.version = r->version,
		.number = r->number,
		.record_flags = flags_of(c, r),
	};
	count(v, &m->message);
	c->config.counters->records_sent++;
	return pass(v);
}

/* ------------------------------------------------------------------ source: the store */

/* Whether all of the part that is held was sent. */
static bool
is_at_end(const struct chp_copy_part *part, const struct chp_copy_serving *v)
{
	return part->is_begun && !part->is_asked && v->cursor == part->first + part->n;
}

/*
 * The next part of the store, from cursor v->cursor on. Cursors only count: when the place in the store is lost, or the
 * learner asks for what was sent and is not held any more, all of it is looked through again.
 */
static enum step
ask_for_part(struct chp_copy *c, const struct chp_copy_serving *v, uint32_t peer)
{
	struct chp_copy_part *part = &c->part[peer];
	const bool goes_on = is_at_end(part, v);

	if (part->is_asked || !c->config.backing->may_evict || !c->config.may_scan(c->config.protocol) ||
	    !chp_backing_scan(c->config.backing, peer, !goes_on, false, CHP_COPY_PART_BYTES))
		return WAITING;
	c->config.counters->rescans += part->is_begun && !goes_on;
	*part = (struct chp_copy_part){ .first = v->cursor, .is_asked = true, .is_begun = true };
	return WAITING;
}

void
chp_copy_scanned(struct chp_copy *c, uint32_t learner, const struct chp_stored *item)
{
	struct chp_copy_part *part = &c->part[learner];
	const uint32_t bytes = chp_copy_item_bytes(item->key_len, item->value_len);
	const uint32_t used = (uint32_t)sizeof(struct chp_copy_item) + item->key_len + item->value_len;
	const struct chp_copy_item m = {
		.message = { .type = CHP_COPY_ITEM, .len = (uint16_t)bytes },
		.version = item->version,
		.key_len = item->key_len,
		/* What it was issued on is not stored. */
		.item_flags = (item->version_flags & (CHP_SLOT_RMW | CHP_SLOT_TOMBSTONE)) | CHP_COPY_BASE_UNKNOWN,
		.value_total = item->value_len,
	};
	uint8_t *to = c->config.parts + (size_t)learner * CHP_COPY_PART_BYTES + part->bytes;

	if (!part->is_asked || part->is_stale)
		return;
	/* More than was asked for: the part is of no use. */
	if (part->bytes + bytes > CHP_COPY_PART_BYTES) {
		part->is_stale = true;
		return;
	}
	memcpy(to, &m, sizeof(m));
	memcpy(to + sizeof(m), item->key, item->key_len);
	if (item->value_len > 0)
		memcpy(to + sizeof(m) + item->key_len, item->value, item->value_len);
	memset(to + used, 0, bytes - used);
	part->n++;
	part->bytes += bytes;
}

void
chp_copy_scan_end(struct chp_copy *c, uint32_t learner, bool end, bool failed)
{
	struct chp_copy_part *part = &c->part[learner];

	if (!part->is_asked)
		return;
	part->is_asked = false;
	part->is_last = end;
	if (failed || part->is_stale)
		*part = (struct chp_copy_part){ .is_begun = false };
}

/* Whether the ITEM that v->cursor names is held; moves there from the first of the part if the learner asks again. */
static bool
find_in_part(const struct chp_copy *c, const struct chp_copy_serving *v, uint32_t peer)
{
	struct chp_copy_part *part = (struct chp_copy_part *)&c->part[peer];
	const uint8_t *items = c->config.parts + (size_t)peer * CHP_COPY_PART_BYTES;

	if (part->is_asked || v->cursor < part->first || v->cursor >= part->first + part->n)
		return false;
	if (part->first + part->at > v->cursor)
		part->at = part->at_byte = 0;
	for (; part->first + part->at < v->cursor; part->at++)
		part->at_byte += ((const struct chp_message *)(const void *)(items + part->at_byte))->len;
	return true;
}

/* An item of the store; as the cache has it if it is there. */
static enum step
serve_stored(struct chp_copy *c, struct chp_copy_serving *v, uint32_t peer, struct chp_out *out)
{
	const struct chp_copy_item *item;
	const struct chp_slot *s;
	struct chp_key key = { .pos = -1 };
	struct chp_copy_item *m;
	enum step room;

	/* A chunk ends where a part does: what the learner may have to ask for once more is still held then. */
	if (!find_in_part(c, v, peer))
		return v->items > 0 && is_at_end(&c->part[peer], v) ? FULL : ask_for_part(c, v, peer);
	item = (const void *)(c->config.parts + (size_t)peer * CHP_COPY_PART_BYTES + c->part[peer].at_byte);
	key.bytes = chp_copy_item_key(item);
	key.len = item->key_len;
	key.digest = chp_cache_digest(c->config.cache, key.bytes, key.len, false);
	s = chp_cache_find(c->config.cache, &key);
	if (s != NULL && s->version >= item->version) /* perhaps not committed, though it is in the store */
		return serve_slot(c, v, s, peer, out);
	room = room_for(v, &out->lane[peer], item->message.len);
	if (room != PASSED)
		return room;
	m = send(c, peer, item->message.len, out);
	memcpy(m, item, item->message.len);
	m->message.op = v->transfer;
	count(v, &m->message);
	c->config.counters->stored_sent++;
	return pass(v);
}

static enum step
end_chunk(struct chp_copy *c, struct chp_copy_serving *v, uint32_t peer, struct chp_out *out)
{
	const uint64_t total = total_of(c, peer);
	struct chp_copy_end *m;

	if (out->lane[peer].bulk_bytes < sizeof(*m))
		return NO_ROOM;
	m = send(c, peer, sizeof(*m), out);
	*m = (struct chp_copy_end){
		.message = { .type = CHP_COPY_END, .len = sizeof(*m), .op = v->transfer },
		.next = v->cursor,
		.items = v->items,
		.end_flags = v->cursor == total ? CHP_COPY_DONE : 0u,
		.digest = v->digest,
		.total = total,
	};
	c->asked &= ~chp_bit(peer);
	c->config.counters->chunks_sent++;
	return FULL;
}

/* Send one peer what fits this run. Returns the places of cache and session table that are left to look at. */
static uint32_t
serve_peer(struct chp_copy *c, uint32_t peer, uint32_t looks, struct chp_out *out)
{
	struct chp_copy_serving *v = &c->serving[peer];
	const uint64_t places = places_of(c);
	const uint32_t slots = chp_cache_slots(c->config.cache);
	enum step step = PASSED;

	for (; looks > 0 && step == PASSED; looks--) {
		if (v->cursor == total_of(c, peer))
			step = FULL;
		else if (v->cursor < slots)
			step = serve_slot(c, v, chp_cache_slot(c->config.cache, (uint32_t)v->cursor), peer, out);
		else if (v->cursor < places)
			step = serve_record(c, v, peer, out);
		else if (v->from < places)
			step = FULL; /* asked for again it must not begin the store anew */
		else
			step = serve_stored(c, v, peer, out);
		if (step == FULL)
			step = end_chunk(c, v, peer, out);
	}
	return looks;
}

void
chp_copy_serve(struct chp_copy *c, const struct chp_now *now, struct chp_out *out)
{
	uint32_t looks = CHP_COPY_LOOKS_MAX;

	if (c->asked == 0)
		return;
	for (uint32_t i = 0; i < c->config.n_nodes && looks > 0; i++) {
		uint32_t peer = (c->first + i) % c->config.n_nodes;

		if ((c->asked & chp_bit(peer)) != 0 && out->lane[peer].bulk_bytes > 0)
			looks = serve_peer(c, peer, looks, out);
	}
	c->first = (c->first + 1) % c->config.n_nodes;
	if (looks == 0 && c->asked != 0)
		chp_out_wake_at(out, now->ns);
}

static void
on_request(struct chp_copy *c, const struct chp_peer_message *m)
{
	const struct chp_copy_request *r = (const void *)m->message;
	const uint64_t cursor_max = has_store(c) ? CURSOR_MAX : places_of(c);

	if ((c->learners & chp_bit(m->from)) == 0 || r->cursor > cursor_max) {
		c->config.counters->refused++;
		return;
	}
	if (r->cursor < places_of(c))
		c->part[m->from] = (struct chp_copy_part){ .is_asked = c->part[m->from].is_asked,
							   .is_stale = c->part[m->from].is_asked };
	c->serving[m->from] = (struct chp_copy_serving){ .from = r->cursor,
							 .cursor = r->cursor,
							 .transfer = r->message.op,
							 .bytes_left = r->bytes };
	c->asked |= chp_bit(m->from);
}

/* ------------------------------------------------------------------ learner */

/* The chunk is worth nothing: it is asked for again, but not at once. */
static void
break_off(struct chp_copy *c, const struct chp_now *now)
{
	c->is_open = false;
	c->pause_until_ns = now->ns + CHP_COPY_PAUSE_NS;
}

static void
on_item(struct chp_copy *c, const struct chp_now *now, const struct chp_peer_message *m, struct chp_out *out)
{
	const struct chp_copy_item *item = (const void *)m->message;

	if (c->config.by_log && (item->item_flags & CHP_COPY_UNDER_WAY) != 0) {
		c->config.counters->stale++; /* no source of this protocol sends it */
		return;
	}
	c->config.counters->items_received++;
	c->items_copied++;
	if (c->config.apply(c->config.protocol, m, out))
		return;
	c->config.counters->no_room++;
	c->ask_bytes -= c->ask_bytes / 2;
	break_off(c, now);
}

static void
on_record(struct chp_copy *c, const struct chp_peer_message *m)
{
	const struct chp_copy_record *from = (const void *)m->message;
	struct chp_record r = { .request = from->request,
				.version = from->version,
				.number = from->number,
				.state = CHP_RECORD_SEEN,
				.rmw = (from->record_flags & CHP_COPY_RECORD_RMW) != 0,
				.fate = CHP_FATE_OPEN };

	if (c->config.by_log != ((from->record_flags & CHP_COPY_RECORD_DECIDED) != 0)) {
		c->config.counters->stale++; /* no source of this protocol sends it */
		return;
	}
	c->config.counters->records_received++;
	c->items_copied++;
	if (c->config.by_log) {
		chp_session_done(c->config.sessions, from->session, from->request,
				 (uint8_t)(from->record_flags >> CHP_COPY_RECORD_STATUS_SHIFT), from->version,
				 from->number);
		return;
	}
	if ((from->record_flags & CHP_COPY_RECORD_COMMITTED) != 0)
		r.fate = CHP_FATE_COMMITTED;
	if ((from->record_flags & CHP_COPY_RECORD_UNKNOWN) != 0)
		r.fate = CHP_FATE_UNKNOWN;
	chp_session_copied(c->config.sessions, from->session, &r);
}

static void
on_end(struct chp_copy *c, const struct chp_now *now, const struct chp_copy_end *e)
{
	const bool is_done = (e->end_flags & CHP_COPY_DONE) != 0;

	/* A chunk that gets nowhere would be asked for for ever. */
	if (e->items != c->items || e->digest != c->digest || e->next < c->cursor ||
	    (e->next == c->cursor && !is_done)) {
		c->config.counters->chunks_bad++;
		break_off(c, now);
		return;
	}
	c->config.counters->chunks_received++;
	c->ask_bytes = chp_min_u32(2 * c->ask_bytes, c->config.chunk_bytes);
	c->cursor = e->next;
	c->total = e->total;
	c->is_open = false;
	if (is_done) {
		c->is_done = true;
		c->is_learning = false;
	}
}

void
chp_copy_receive(struct chp_copy *c, const struct chp_now *now, const struct chp_peer_message *m,
		 struct chp_out *out)
{
	const struct chp_message *message = m->message;

	if (message->type == CHP_COPY_REQUEST) {
		on_request(c, m);
		return;
	}
	if (!c->is_learning || !c->is_open || m->from != c->source || message->op != c->transfer) {
		c->config.counters->stale++;
		return;
	}
	c->config.counters->bytes_received += message->len;
	c->bytes_copied += message->len;
	if (message->type == CHP_COPY_END) {
		on_end(c, now, (const void *)message);
		return;
	}
	c->items++;
	c->digest += chp_hash64(message, message->len, 0);
	if (message->type == CHP_COPY_ITEM)
		on_item(c, now, m, out);
	else
		on_record(c, m);
}

void
chp_copy_ask(struct chp_copy *c, const struct chp_now *now, struct chp_out *out)
{
	struct chp_copy_request *m;

	if (!c->is_learning || c->is_open)
		return;
	if (now->ns < c->pause_until_ns) {
		chp_out_wake_at(out, c->pause_until_ns);
		return;
	}
	c->transfer++;
	c->items = 0;
	c->digest = 0;
	c->is_open = true;
	c->config.counters->requests++;
	m = chp_send(out, c->source, sizeof(*m));
	*m = (struct chp_copy_request){
		.message = { .type = CHP_COPY_REQUEST, .len = sizeof(*m), .op = c->transfer },
		.cursor = c->cursor,
		.bytes = c->ask_bytes,
	};
}

/* ------------------------------------------------------------------ for the protocol */

bool
chp_copy_key_of(const struct chp_message *m, struct chp_key *key)
{
	const struct chp_copy_item *item = (const void *)m;

	if (m->type != CHP_COPY_ITEM)
		return false;
	key->bytes = chp_copy_item_key(item);
	key->len = item->key_len;
	key->session = (item->item_flags & CHP_COPY_SESSION) != 0;
	return true;
}

bool
chp_copy_is_done(const struct chp_copy *c)
{
	return c->is_done;
}

void
chp_copy_progress(const struct chp_copy *c, struct chp_copy_progress *out)
{
	*out = (struct chp_copy_progress){ .done = c->is_done,
					   .source = c->source,
					   .at = c->cursor,
					   .total = c->total,
					   .items = c->items_copied,
					   .bytes = c->bytes_copied,
					   .restarts = c->restarts };
}

void
chp_copy_verify(const struct chp_copy *c)
{
	CHP_ASSERT_OP(c->asked & ~c->learners, ==, 0u);
	for (uint64_t p = c->asked; p != 0; p &= p - 1)
		CHP_ASSERT_OP(c->serving[chp_first_bit(p)].cursor, <=, total_of(c, chp_first_bit(p)));
	CHP_ASSERT(!c->is_learning || !c->is_done);
	CHP_ASSERT(!c->is_open || c->is_learning);
	CHP_ASSERT(!c->is_learning || (c->source < c->config.n_nodes && c->source != c->config.self));
	CHP_ASSERT_OP(c->cursor, <=, c->total);
}
