/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/host.h"

#include "base/mutation.h"

#include <errno.h>
#include <string.h>

#define HEADER_BYTES ((uint32_t)sizeof(struct chp_peer_header))
#define NONE UINT32_MAX

/* HELLOs follow each other faster at first: a host that has just begun shall not wait long. */
#define HELLO_NS_MIN UINT64_C(20000000)
#define HELLO_NS_MAX UINT64_C(1000000000)
/* While all is well they tell that either end lives, and find a new process of the host at once. */
#define KEEP_ALIVE_NS UINT64_C(250000000)
/* Packets of the link that bulk leaves to what is small and must always go: FLUSH, BEGIN, SCAN, RECORD. */
#define ROOM_RESERVED 8u
/* Log positions that one run looks at: bounds it after a long absence of the host. */
#define POSITIONS_MAX 4096u
/* Positions of a batch differ in 16 bits: see note(). */
#define BATCH_ITEMS_MAX 65536u
/* Log entries that are fetched ahead: a batch goes long after they were written. */
#define AHEAD 8u
#define ITEM_FLAGS (CHP_HOST_RMW | CHP_HOST_TOMBSTONE)

_Static_assert((int)CHP_HOST_RMW == (int)CHP_SLOT_RMW && (int)CHP_HOST_TOMBSTONE == (int)CHP_SLOT_TOMBSTONE,
	       "version flags go to the store as they are");
_Static_assert((int)CHP_HOST_LOAD_FOUND == (int)CHP_LOAD_FOUND &&
		       (int)CHP_HOST_LOAD_TOMBSTONE == (int)CHP_LOAD_TOMBSTONE &&
		       (int)CHP_HOST_LOAD_ABSENT == (int)CHP_LOAD_ABSENT &&
		       (int)CHP_HOST_LOAD_FAILED == (int)CHP_LOAD_FAILED,
	       "the wire has the protocols' numbers");
_Static_assert(CHP_HOST_SCANS == CHP_SCANS, "scans on the wire");

static const char *const state_name[] = {
	[CHP_HOST_NONE] = "none",       [CHP_HOST_AWAY] = "away",   [CHP_HOST_REFUSES] = "refuses",
	[CHP_HOST_WAITING] = "waiting", [CHP_HOST_READY] = "ready", [CHP_HOST_LOST_DATA] = "lost data",
};

const char *
chp_host_state_name(enum chp_host_state_of_link state)
{
	CHP_ASSERT_OP(state, <, CHP_ARRAY_LEN(state_name));
	return state_name[state];
}

/* ------------------------------------------------------------------ where it stands */

/* Messages reach the host. */
static bool
is_up(const struct chp_host *h)
{
	return h->is_linked && h->link.state == CHP_LINK_UP;
}

/* Our life has begun in the store, and no other one is about to. */
static bool
has_begun(const struct chp_host *h)
{
	return h->life != 0 && h->life >= h->need_life && h->life >= h->asked_life &&
	       chp_host_generation(h->life) == chp_generation(h->need_life);
}

static enum chp_host_state_of_link
state_of(const struct chp_host *h)
{
	if (!h->backing.is_present)
		return CHP_HOST_NONE;
	if (!is_up(h))
		return !h->is_linked && h->refusal != CHP_HOST_OK ? CHP_HOST_REFUSES : CHP_HOST_AWAY;
	if (h->has_lost)
		return CHP_HOST_LOST_DATA;
	return h->in_view && has_begun(h) ? CHP_HOST_READY : CHP_HOST_WAITING;
}

/* Nothing may be sent to it that needs a store which keeps it. */
static bool
is_bad(const struct chp_host *h)
{
	const enum chp_host_state_of_link state = state_of(h);

	return (state != CHP_HOST_READY && state != CHP_HOST_WAITING) || h->store_state == CHP_STORE_DOWN;
}

/* [SAFETY 31] It may forget what it reported durable, and nobody has allowed that. */
static bool
is_volatile(const struct chp_host *h)
{
	return (h->store_flags & (CHP_STORE_VOLATILE | CHP_STORE_ALLOW_LOSS)) == CHP_STORE_VOLATILE;
}

/* What the protocol sees. */
static void
refresh(struct chp_host *h)
{
	struct chp_backing *b = &h->backing;

	b->is_ready = state_of(h) == CHP_HOST_READY && h->store_state != CHP_STORE_DOWN;
	b->has_begun = b->has_begun || (h->in_view && has_begun(h));
	b->may_evict = h->is_known && !is_volatile(h);
	b->has_lost = h->has_lost;
	b->durable = h->is_recorded || (h->counts_at_once && !h->has_gaps) ? h->log->mark : 0;
}

/* ------------------------------------------------------------------ writing messages */

static void
close_packet(struct chp_host *h)
{
	chp_link_close(&h->link, h->at);
	h->at = h->end = NULL;
}

/* Whether a message fits, and leaves so many packets for what is more important. */
static bool
can_say(const struct chp_host *h, uint32_t bytes, uint32_t reserve)
{
	return (uint32_t)(h->end - h->at) >= bytes || chp_link_room(&h->link) > reserve;
}

/* The caller has checked that there is room. */
static void *
take_room(struct chp_host *h, uint32_t bytes)
{
	void *m;

	if ((uint32_t)(h->end - h->at) < bytes) {
		close_packet(h);
		chp_link_open(&h->link, bytes, 0, &h->at, &h->end);
	}
	m = h->at;
	h->at += bytes;
	return m;
}

/* All but key and value are zeroed. */
static void *
say(struct chp_host *h, uint8_t type, uint32_t op, uint32_t header, uint32_t bytes)
{
	struct chp_message *m = take_room(h, bytes);

	memset(m, 0, header);
	*m = (struct chp_message){ .type = type, .len = (uint16_t)bytes, .op = op };
	return m;
}

/* What follows a key or value up to the message's end. */
static void
pad(const struct chp_host *h, uint8_t *from)
{
	memset(from, 0, (size_t)(h->at - from));
}

/* ------------------------------------------------------------------ loads */

static struct chp_host *
host_of(struct chp_backing *b)
{
	return (struct chp_host *)b;
}

static void
push_queued(struct chp_host *h, uint32_t index)
{
	struct chp_host_open_load *l = &h->load[index];

	l->state = CHP_LOAD_QUEUED;
	l->next = NONE;
	l->before = h->queued_last;
	if (h->queued_last == NONE)
		h->queued_first = index;
	else
		h->load[h->queued_last].next = index;
	h->queued_last = index;
}

static void
unqueue(struct chp_host *h, const struct chp_host_open_load *l)
{
	if (l->before == NONE)
		h->queued_first = l->next;
	else
		h->load[l->before].next = l->next;
	if (l->next == NONE)
		h->queued_last = l->before;
	else
		h->load[l->next].before = l->before;
}

static bool
begin_load(struct chp_backing *b, const struct chp_key *key, uint32_t *token)
{
	struct chp_host *h = host_of(b);
	struct chp_host_open_load *l;

	CHP_ASSERT(h->backing.is_present);
	if (h->free_load == NONE) {
		h->counters.loads_refused++;
		return false;
	}
	*token = h->free_load;
	l = &h->load[*token];
	h->free_load = l->next;
	h->n_loads++;
	h->counters.loads++;
	CHP_ASSERT_OP(key->len, <=, h->config.key_bytes_max);
	l->key_len = (uint8_t)key->len;
	l->is_dropped = false;
	memcpy(l->key, key->bytes, key->len);
	push_queued(h, *token);
	return true;
}

static void
end_load(struct chp_host *h, uint32_t index)
{
	struct chp_host_open_load *l = &h->load[index];

	l->state = CHP_LOAD_FREE;
	l->next = h->free_load;
	h->free_load = index;
	h->n_loads--;
}

static void
drop_load(struct chp_backing *b, uint32_t token)
{
	struct chp_host *h = host_of(b);
	struct chp_host_open_load *l = &h->load[token];

	CHP_ASSERT_OP(token, <, h->config.loads_max);
	CHP_ASSERT_OP(l->state, !=, CHP_LOAD_FREE);
	h->counters.loads_dropped++;
	l->is_dropped = true;
	if (l->state != CHP_LOAD_QUEUED)
		return; /* its answer ends it, or the end of the channel */
	unqueue(h, l);
	end_load(h, token);
}

/* What the host was asked it will be asked again (SAFETY 5: what it may still say of that is stale). */
static void
requeue_loads(struct chp_host *h)
{
	for (uint32_t i = 0; i < h->config.loads_max && h->n_asked > 0; i++) {
		if (h->load[i].state != CHP_LOAD_ASKED)
			continue;
		h->n_asked--;
		if (h->load[i].is_dropped)
			end_load(h, i);
		else
			push_queued(h, i);
	}
	CHP_ASSERT_OP(h->n_asked, ==, 0u);
}

static void
send_loads(struct chp_host *h)
{
	while (h->queued_first != NONE && h->n_asked < h->loads) {
		const uint32_t index = h->queued_first;
		struct chp_host_open_load *l = &h->load[index];
		const uint32_t bytes = chp_host_load_bytes(l->key_len);
		struct chp_host_load *m;
		uint8_t *key;

		if (!can_say(h, bytes, ROOM_RESERVED))
			return;
		unqueue(h, l);
		l->state = CHP_LOAD_ASKED;
		/* One bit less than there is: a token is never CHP_OP_NONE. */
		l->generation = (l->generation + 1) & (UINT32_MAX >> (h->load_bits + 1));
		h->n_asked++;
		m = say(h, CHP_HOST_LOAD, l->generation << h->load_bits | index, sizeof(*m), bytes);
		m->key_len = l->key_len;
		key = (uint8_t *)(m + 1);
		memcpy(key, l->key, l->key_len);
		pad(h, key + l->key_len);
	}
}

/* Give what was loaded to the protocol. A token is free again when the protocol has seen it, not before. */
static void
flush_loaded(struct chp_host *h, const struct chp_host_sink *to)
{
	const uint32_t n = h->n_loaded;

	if (n == 0)
		return;
	to->protocol->loaded(to->instance, to->now, h->loaded, n, to->out);
	for (uint32_t i = 0; i < n; i++)
		end_load(h, h->loaded[i].token);
	h->n_loaded = 0;
}

_Static_assert(CHP_HOST_GENERATION_SHIFT == CHP_GENERATION_SHIFT, "lives are epochs");

static void
take_loaded(struct chp_host *h, const struct chp_host_sink *to, const struct chp_host_loaded *m)
{
	const uint32_t index = m->message.op & ((1u << h->load_bits) - 1);
	struct chp_host_open_load *l = &h->load[index];

	if (index >= h->config.loads_max || l->state != CHP_LOAD_ASKED ||
	    m->message.op >> h->load_bits != l->generation) {
		h->counters.stale++;
		return;
	}
	l->state = CHP_LOAD_ANSWERED;
	h->n_asked--;
	h->counters.loads_found += m->status == CHP_HOST_LOAD_FOUND;
	h->counters.loads_failed += m->status == CHP_HOST_LOAD_FAILED;
	h->loaded[h->n_loaded++] = (struct chp_loaded){
		.token = index,
		.status = m->status,
		.is_old = (m->item_flags & CHP_HOST_OLD) != 0,
		.generation = m->generation,
		.version_flags = m->item_flags & ITEM_FLAGS,
		.version = m->version,
		.value = chp_host_loaded_value(m),
		.value_len = m->value_len,
	};
	if (h->n_loaded == CHP_BATCH_MAX)
		flush_loaded(h, to);
}

/* ------------------------------------------------------------------ scans */

static bool
begin_scan(struct chp_backing *b, uint32_t scan, bool from_start, bool only_old, uint32_t bytes)
{
	struct chp_host *h = host_of(b);
	struct chp_host_open_scan *s = &h->scan[scan];

	CHP_ASSERT_OP(scan, <, CHP_SCANS);
	if (!b->is_ready || s->state != CHP_SCAN_NONE)
		return false;
	*s = (struct chp_host_open_scan){
		.state = CHP_SCAN_WANTED,
		.flags = (uint8_t)((from_start ? CHP_HOST_SCAN_START : 0) | (only_old ? CHP_HOST_SCAN_OLD : 0)),
		.bytes = chp_min_u32(bytes > 0 ? bytes : 1, CHP_COPY_BYTES_MAX),
	};
	h->counters.scans++;
	return true;
}

static void
send_scans(struct chp_host *h)
{
	for (uint32_t i = 0; i < CHP_SCANS; i++) {
		struct chp_host_open_scan *s = &h->scan[i];
		struct chp_host_scan *m;

		if (s->state != CHP_SCAN_WANTED)
			continue;
		if (!can_say(h, sizeof(*m), 0))
			return;
		m = say(h, CHP_HOST_SCAN, i, sizeof(*m), sizeof(*m));
		m->bytes = s->bytes;
		m->scan_flags = s->flags;
		s->state = CHP_SCAN_ASKED;
	}
}

static void
fail_scans(struct chp_host *h)
{
	for (uint32_t i = 0; i < CHP_SCANS; i++) {
		struct chp_host_open_scan *s = &h->scan[i];

		if (s->state != CHP_SCAN_WANTED && s->state != CHP_SCAN_ASKED)
			continue;
		s->state = CHP_SCAN_FAILED;
		h->n_scans_failed++;
	}
}

static void
take_item(struct chp_host *h, const struct chp_host_sink *to, const struct chp_host_item *m)
{
	struct chp_host_open_scan *s = &h->scan[m->message.op];
	const struct chp_stored item = {
		.key = chp_host_item_key(m),
		.value = chp_host_item_value(m),
		.version = m->version,
		.value_len = m->value_len,
		.key_len = m->key_len,
		.version_flags = m->item_flags & ITEM_FLAGS,
		.is_old = (m->item_flags & CHP_HOST_OLD) != 0,
	};

	if (s->state != CHP_SCAN_ASKED) {
		h->counters.stale++;
		return;
	}
	s->items++;
	h->counters.items++;
	to->protocol->scanned(to->instance, to->now, m->message.op, &item, to->out);
}

static void
take_scanned(struct chp_host *h, const struct chp_host_sink *to, const struct chp_host_scanned *m)
{
	struct chp_host_open_scan *s = &h->scan[m->message.op];
	bool failed = (m->scanned_flags & CHP_HOST_SCAN_FAILED) != 0;

	if (s->state != CHP_SCAN_ASKED) {
		h->counters.stale++;
		return;
	}
	if (m->items != s->items) {
		h->counters.bad_message++; /* whatever is missing: nobody may count on the part */
		failed = true;
	}
	s->state = CHP_SCAN_NONE;
	to->protocol->scan_end(to->instance, to->now, m->message.op,
			       !failed && (m->scanned_flags & CHP_HOST_SCAN_END) != 0, failed, to->out);
}

static void
report_failed_scans(struct chp_host *h, const struct chp_host_sink *to)
{
	for (uint32_t i = 0; i < CHP_SCANS && h->n_scans_failed > 0; i++) {
		if (h->scan[i].state != CHP_SCAN_FAILED)
			continue;
		if (to->out->replies_left <= to->kept)
			return;
		h->scan[i].state = CHP_SCAN_NONE;
		h->n_scans_failed--;
		to->protocol->scan_end(to->instance, to->now, i, false, true, to->out);
	}
}

/* ------------------------------------------------------------------ write-behind */

/* Whether a position may go to the store, and whether there is anything to send for it. */
static bool
may_go(const struct chp_host *h, const struct chp_log_entry *e)
{
	return h->config.sends_open || (e->flags & CHP_LOG_COMMITTED) != 0;
}

/* Not what only says how a client's operation failed. */
static bool
is_stored(const struct chp_log_entry *e)
{
	return e->key_len > 0 && (e->version_flags & CHP_SLOT_SESSION) == 0 && e->status == 0;
}

/*
 * Of each key in the batch that is gathered the newest position is noted, 16 bits of it beside those bits of the slot
 * that do not say where. Keys may share a place: then some older one goes, too.
 */
static uint32_t *
note_of(const struct chp_host *h, uint32_t slot)
{
	return &h->note[slot & ((1u << h->note_bits) - 1)];
}

static uint32_t
note(const struct chp_host *h, uint32_t slot, uint64_t pos)
{
	return slot >> h->note_bits << 16 | (uint16_t)pos;
}

static bool
replaces(const struct chp_log_entry *newer, const struct chp_log_entry *e)
{
	return newer->slot == e->slot && newer->version > e->version && is_stored(newer);
}

/* What must not be: a newer version that goes in a later batch counts as well. */
static bool
is_replaced_later(const struct chp_host *h, const struct chp_log_entry *e)
{
	for (uint64_t pos = h->ready; pos < h->log->next; pos++)
		if (replaces(chp_log_at(h->log, pos), e))
			return true;
	return false;
}

/*
 * [SAFETY 30] A newer version of the key is in the same batch: the batch makes both positions durable, so the older
 * one need not go. The note says where to look, and may be of an earlier batch or another key; the log decides.
 */
static bool
is_replaced(const struct chp_host *h, uint64_t pos, const struct chp_log_entry *e)
{
	const uint32_t own = note(h, e->slot, pos), noted = *note_of(h, e->slot);
	uint64_t newest;

	if (CHP_MUTATED(S30_MARK_PASSES) && is_replaced_later(h, e))
		return true;
	/* One branch that mostly goes the same way: it is the noted one, or another key is. */
	if ((own ^ noted) - 1 >= UINT16_MAX || e->slot == NONE)
		return false;
	newest = pos + (uint16_t)(noted - own);
	return newest < h->ready && replaces(chp_log_at(h->log, newest), e);
}

static uint32_t
batch_bytes_max(const struct chp_host *h)
{
	return h->is_known ? chp_min_u32(h->config.batch_bytes, h->put_bytes) : h->config.batch_bytes;
}

/* Add what may go to the batch that is gathered, until it is full. Each position is looked at once here. */
static void
gather(struct chp_host *h, uint64_t now_ns)
{
	const uint32_t bytes_max = batch_bytes_max(h);

	while (!h->is_closed && h->ready < h->log->next) {
		const struct chp_log_entry *e = chp_log_at(h->log, h->ready);
		uint32_t bytes;

		chp_prefetch(&h->log->entry[(h->ready + AHEAD) & h->log->mask]);
		if (!may_go(h, e))
			return;
		bytes = is_stored(e) ? chp_host_item_bytes(e->key_len, e->value_len) : 0;
		if (h->gathered_bytes + bytes > bytes_max && h->gathered_bytes > 0) {
			h->is_closed = true;
			h->counters.batches_by_bytes++;
			return;
		}
		if (bytes > 0)
			*note_of(h, e->slot) = note(h, e->slot, h->ready);
		if (h->first_ns == 0)
			h->first_ns = now_ns;
		h->gathered_bytes += bytes;
		h->ready++;
		if (h->ready - h->sent >= h->config.batch_items) {
			h->is_closed = true;
			h->counters.batches_by_count++;
		}
	}
}

/* A batch that is not full goes when it is old; with level `datastore` when nothing is on its way, too. */
static void
close_by_age(struct chp_host *h, uint64_t now_ns)
{
	if (h->is_closed || h->ready == h->sent)
		return;
	if (now_ns - h->first_ns >= h->config.batch_age_ns) {
		h->is_closed = true;
		h->counters.batches_by_age++;
	} else if (h->config.is_durable && h->n_batches == 0) {
		h->is_closed = true;
		h->counters.batches_at_once++;
	}
}

static bool
can_put(const struct chp_host *h, uint32_t bytes)
{
	if (h->in_flight_bytes + bytes > h->put_bytes)
		return false;
	return (uint32_t)(h->end - h->at) >= bytes ||
	       (chp_link_bulk_bytes(&h->link) > 0 && chp_link_room(&h->link) > ROOM_RESERVED);
}

/* Returns where key and value go, one behind the other, and zeros behind them. The caller has checked that it can. */
static uint8_t *
put(struct chp_host *h, uint64_t version, uint8_t key_len, uint32_t value_len, uint32_t flags, uint32_t bytes)
{
	struct chp_host_item *m = take_room(h, bytes);

	*m = (struct chp_host_item){
		.message = { .type = CHP_HOST_PUT, .len = (uint16_t)bytes, .op = CHP_OP_NONE },
		.version = version,
		.value_len = value_len,
		.key_len = key_len,
		.item_flags = flags & ITEM_FLAGS,
	};
	h->open_items++;
	h->open_bytes += bytes;
	h->in_flight_bytes += bytes;
	h->counters.puts++;
	h->counters.bytes += bytes;
	return (uint8_t *)(m + 1);
}

/* What was sent becomes durable, and with it every log position below `end`. */
static void
flush(struct chp_host *h, uint64_t end)
{
	struct chp_host_sent *b = &h->batch[(h->first_batch + h->n_batches) % CHP_HOST_BATCHES_MAX];
	struct chp_host_batch *m = say(h, CHP_HOST_FLUSH, CHP_OP_NONE, sizeof(*m), sizeof(*m));

	CHP_ASSERT_OP(h->n_batches, <, CHP_HOST_BATCHES_MAX);
	m->seq = ++h->last_seq;
	m->items = h->open_items;
	*b = (struct chp_host_sent){ .seq = m->seq, .end = end, .first_ns = h->first_ns, .bytes = h->open_bytes };
	h->n_batches++;
	h->open_items = h->open_bytes = 0;
	h->has_saves = false;
	h->counters.batches++;
}

static bool
save(struct chp_backing *b, const struct chp_slot *s, uint64_t *number)
{
	struct chp_host *h = host_of(b);
	const uint32_t bytes = chp_host_item_bytes(s->key_len, s->value_len);
	uint8_t *key;

	if (!b->is_ready || h->n_batches == CHP_HOST_BATCHES_MAX || !can_put(h, bytes))
		return false;
	key = put(h, s->version, s->key_len, s->value_len, s->flags, bytes);
	chp_cache_key(h->cache, s, key);
	chp_cache_value(h->cache, s, key + s->key_len);
	pad(h, key + s->key_len + s->value_len);
	h->has_saves = true;
	*number = h->last_seq + 1; /* of the FLUSH that follows */
	return true;
}

/*
 * Such items do not wait for a batch to be full, nor keep the room that it needs. Of a batch that they stand in the
 * midst of no position is durable before its end: a newer version of a key may still be to come in it.
 */
static void
flush_saves(struct chp_host *h)
{
	const uint32_t last = (h->first_batch + h->n_batches - 1) % CHP_HOST_BATCHES_MAX;

	if (h->has_saves && h->n_batches < CHP_HOST_BATCHES_MAX && can_say(h, sizeof(struct chp_host_batch), 0))
		flush(h, h->n_batches > 0 ? h->batch[last].end : h->log->mark);
}

/* Nothing had to be sent for these positions: they are durable when what is before them is. */
static void
pass_over(struct chp_host *h)
{
	if (h->n_batches == 0)
		chp_log_set_mark(h->log, h->sent);
	else
		h->batch[(h->first_batch + h->n_batches - 1) % CHP_HOST_BATCHES_MAX].end = h->sent;
}

static void
end_batch(struct chp_host *h)
{
	if (h->open_items > 0)
		flush(h, h->sent);
	else
		pass_over(h);
	h->is_closed = false;
	h->gathered_bytes = 0;
	h->first_ns = 0;
}

/*
 * Send the closed batch, as far as there is room: bulk does not fill the link, and no more is on its way than the
 * host takes. Returns whether all of it went.
 */
static bool
send_batch(struct chp_host *h, uint32_t *positions)
{
	if (h->n_batches == CHP_HOST_BATCHES_MAX)
		return false;
	while (h->sent < h->ready) {
		const struct chp_log_entry *e = chp_log_at(h->log, h->sent);
		uint32_t bytes;

		if (*positions == 0) {
			h->is_more = true;
			return false;
		}
		chp_prefetch(&h->log->entry[(h->sent + AHEAD) & h->log->mask]);
		chp_prefetch(h->log->entry[(h->sent + AHEAD) & h->log->mask].data);
		bytes = chp_host_item_bytes(e->key_len, e->value_len);
		if (!is_stored(e)) {
			h->sent++;
		} else if (is_replaced(h, h->sent, e)) {
			h->counters.coalesced++;
			h->sent++;
		} else if (can_put(h, bytes)) {
			chp_log_record(h->log, e,
				       put(h, e->version, e->key_len, e->value_len, e->version_flags, bytes));
			h->sent++;
		} else {
			return false;
		}
		--*positions;
	}
	if (h->open_items > 0 && !can_say(h, sizeof(struct chp_host_batch), 0))
		return false;
	end_batch(h);
	return true;
}

static void
write_behind(struct chp_host *h, uint64_t now_ns)
{
	uint32_t positions = POSITIONS_MAX;

	for (;;) {
		gather(h, now_ns);
		close_by_age(h, now_ns);
		if (!h->is_closed || !send_batch(h, &positions))
			return;
	}
}

/* Everything that is not durable goes again, from the mark on. What was first stays the oldest. */
static void
rewind_log(struct chp_host *h)
{
	h->counters.resends += h->sent > h->log->mark || h->n_batches > 0;
	if (h->n_batches > 0)
		h->first_ns = h->batch[h->first_batch].first_ns;
	h->n_batches = h->first_batch = 0;
	h->sent = h->ready = h->log->mark;
	if (h->sent == h->log->next)
		h->first_ns = 0;
	h->is_closed = false;
	h->gathered_bytes = 0;
	h->open_items = h->open_bytes = 0;
	h->has_saves = false;
	h->backing.losses++;
	h->in_flight_bytes = 0;
}

/* [SAFETY 29, 30] The host reports batches durable, all up to one. */
static void
take_durable(struct chp_host *h, uint64_t seq)
{
	uint64_t mark = 0;

	while (seq <= h->last_seq && h->n_batches > 0 && h->batch[h->first_batch].seq <= seq) {
		const struct chp_host_sent *b = &h->batch[h->first_batch];

		mark = b->end;
		h->in_flight_bytes -= b->bytes;
		h->first_batch = (h->first_batch + 1) % CHP_HOST_BATCHES_MAX;
		h->n_batches--;
		h->counters.durable++;
	}
	if (mark == 0) {
		h->counters.stale++;
		return;
	}
	h->durable_seq = h->backing.saved = seq;
	chp_log_set_mark(h->log, mark);
}

/*
 * [SAFETY 31] A volatile store holds nobody up: where it is away or slow the mark follows the commit, as it does
 * without a host. What it did not get it never gets, so nothing is recorded any more.
 */
static void
leave_volatile_behind(struct chp_host *h)
{
	const uint64_t sent = chp_max_u64(h->sent, h->log->mark);
	uint64_t pos = h->log->mark;

	if (!is_volatile(h) || (state_of(h) == CHP_HOST_READY &&
				chp_log_fill_ppm(h->log) < h->config.busy_fill_percent * 10000u))
		return;
	while (pos < h->log->next && (chp_log_at(h->log, pos)->flags & CHP_LOG_COMMITTED) != 0)
		pos++;
	chp_log_set_mark(h->log, pos);
	if (pos <= sent)
		return;
	h->counters.skipped += pos - sent;
	h->has_gaps = true;
	h->sent = pos;
	if (pos < h->ready)
		return; /* the rest of what was gathered goes on */
	h->ready = pos;
	if (h->open_items == 0)
		end_batch(h);
	else
		h->is_closed = true;
}

/* Say what the store holds by now, for a cold start; once all from before the view is durable (SAFETY 34). */
static void
send_record(struct chp_host *h)
{
	struct chp_host_record *m;

	if (h->record_sent || h->has_gaps || h->record_at > h->log->mark || !can_say(h, sizeof(*m), 0))
		return;
	m = say(h, CHP_HOST_RECORD, CHP_OP_NONE, sizeof(*m), sizeof(*m));
	m->epoch = h->view_epoch;
	h->record_sent = true;
}

/* ------------------------------------------------------------------ lives */

void
chp_host_found(struct chp_host *h, uint64_t epoch)
{
	if (!h->in_view)
		h->need_life = chp_max_u64(h->need_life, epoch);
}

void
chp_host_view(struct chp_host *h, uint64_t epoch, bool counts_at_once)
{
	if (!h->in_view)
		h->need_life = epoch;
	h->in_view = true;
	h->view_epoch = epoch;
	h->record_at = CHP_NEVER;
	h->record_sent = h->is_recorded = false;
	h->counts_at_once = counts_at_once;
	refresh(h);
}

/* The first number for a life in the generation of this epoch that is above another one, and not below the epoch. */
static uint64_t
life_above(uint64_t life, uint64_t epoch)
{
	const uint64_t generation = chp_generation(epoch);
	uint64_t next;

	if (life < epoch)
		return epoch;
	if (chp_host_generation(life + 1) == generation)
		return life + 1;
	/* What is stored from now on must not count as of the generation that this number is of. */
	next = life >> CHP_GENERATION_SHIFT << CHP_GENERATION_SHIFT | CHP_HOST_LIFE_EARLIER |
	       generation << CHP_HOST_LIFE_EARLIER_SHIFT;
	return next > life ? next : next + (UINT64_C(1) << CHP_GENERATION_SHIFT);
}

/* The life to begin: one that was asked for, if the store may have begun it and it does, or one above all. */
static uint64_t
next_life(const struct chp_host *h)
{
	const uint64_t life = chp_max_u64(h->stored_life, h->lost_life);

	if (h->asked_life <= life)
		return life_above(life, h->need_life);
	if (h->asked_life >= h->need_life && chp_host_generation(h->asked_life) == chp_generation(h->need_life))
		return h->asked_life;
	return life_above(h->asked_life, h->need_life);
}

/* Begin our life in the store, or one that is newer than what membership counts on. */
static void
send_begin(struct chp_host *h)
{
	const uint64_t life = next_life(h);
	struct chp_host_life *m;

	if (h->need_life == 0 || has_begun(h) || h->said_life >= life || !can_say(h, sizeof(*m), 0))
		return;
	m = say(h, CHP_HOST_BEGIN, CHP_OP_NONE, sizeof(*m), sizeof(*m));
	m->life = h->asked_life = h->said_life = life;
}

/* A life of ours has begun in the store. */
static void
begin_life(struct chp_host *h, uint64_t life)
{
	CHP_ASSERT_OP(h->n_batches, ==, 0u);
	h->life = h->stored_life = life;
	h->last_seq = h->durable_seq = h->backing.saved = 0;
	h->backing.losses++;
	h->backing.newest = chp_max_u64(h->backing.newest, h->newest);
	if (!h->backing.has_begun)
		h->backing.recorded = h->epoch;
}

static void
take_begun(struct chp_host *h, uint64_t life)
{
	if (life <= h->stored_life || life > h->said_life)
		h->counters.stale++;
	else
		begin_life(h, life);
}

/* [SAFETY 29] Whether a store does not hold what it had reported durable, or is another one. */
static bool
holds_less(const struct chp_host *h, const struct chp_host_hello *m)
{
	if (h->asked_life == 0)
		return false; /* nothing there is ours */
	if (h->life != 0 && m->life == h->life)
		return m->batch < h->durable_seq;
	return m->life != h->stored_life && m->life != h->asked_life;
}

static void
take_life(struct chp_host *h, const struct chp_host_hello *m)
{
	h->has_lost = holds_less(h, m);
	if (h->has_lost) {
		h->counters.lost_data++;
		if (is_volatile(h) || !h->in_view) {
			/*
			 * It keeps nothing for us: all is in the cache, and goes into a new life. Or nothing was
			 * given to it yet: it had only begun a life that it has forgotten.
			 */
			h->has_lost = false;
			h->has_gaps = h->in_view;
			h->lost_life = chp_max_u64(h->lost_life, h->life);
			h->life = h->asked_life = 0;
		}
	} else if (m->life != h->life && m->life == h->asked_life && h->asked_life != 0) {
		begin_life(h, m->life); /* as we had asked; the answer was lost */
	}
	if (h->has_lost)
		return; /* what it should hold stays known, for the next that answers */
	h->stored_life = m->life;
	if (m->life == h->life)
		h->last_seq = chp_max_u64(h->last_seq, m->batch);
}

/* ------------------------------------------------------------------ the channel */

/* All that was on its way, in both directions, is lost. */
static void
lose_channel(struct chp_host *h)
{
	h->at = h->end = NULL;
	requeue_loads(h);
	fail_scans(h);
	rewind_log(h);
	h->said_life = 0;
	h->record_sent = h->is_recorded;
}

static void
restart(struct chp_backing *b, uint64_t now_ns, bool new_life)
{
	struct chp_host *h = host_of(b);

	if (is_up(h)) {
		chp_link_close(&h->link, h->at);
		chp_link_reset(&h->link, now_ns);
	}
	lose_channel(h);
	h->record_at = CHP_NEVER;
	h->record_sent = h->is_recorded = false;
	if (new_life && h->life != 0) {
		h->need_life = chp_max_u64(h->need_life, h->life + 1);
		b->has_begun = false;
	}
	if (h->has_lost) {
		h->has_lost = false;
		h->life = h->asked_life = 0;
	}
	refresh(h);
}

static void
give_up(struct chp_host *h, uint64_t now_ns)
{
	h->is_linked = false;
	h->number_floor = h->number;
	h->hello_ns = now_ns;
	h->hello_wait_ns = HELLO_NS_MIN;
	chp_link_close(&h->link, h->at);
	lose_channel(h);
}

/*
 * A link to this incarnation of the host. Its session is above all of this shard's before: whatever this host still
 * has of an earlier one it drops when it hears of this.
 */
static void
begin_link(struct chp_host *h, uint64_t incarnation, uint64_t now_ns)
{
	const uint32_t session = h->link.session;

	chp_link_peer(&h->link, h->config.incarnation, incarnation, now_ns);
	if (session > 0) {
		h->link.session = session;
		chp_link_reset(&h->link, now_ns);
	}
	h->is_linked = true;
}

static void
take_facts(struct chp_host *h, const struct chp_host_hello *m)
{
	h->items = m->items;
	h->tombstones = m->tombstones;
	memcpy(h->name, m->text, sizeof(h->name));
}

/* Some of them may get lost before an end that only has nothing to say is taken for dead. */
static uint64_t
keep_alive_ns(const struct chp_host *h)
{
	return chp_min_u64(KEEP_ALIVE_NS, h->config.link.link_down_ns / 4);
}

static void
take_welcome(struct chp_host *h, const struct chp_host_hello *m, uint64_t now_ns)
{
	h->heard_ns = now_ns;
	h->number_floor = m->number;
	take_facts(h, m);
	if (h->is_linked && h->link.peer_incarnation == m->incarnation)
		return;
	h->counters.welcomes++;
	h->hello_ns = now_ns + keep_alive_ns(h);
	h->refusal = CHP_HOST_OK;
	h->is_known = true;
	h->store_flags = m->store_flags;
	h->store_state = CHP_STORE_OK;
	h->put_bytes = m->put_bytes;
	h->loads = m->loads;
	h->newest = m->newest;
	h->epoch = m->epoch;
	h->is_recorded = h->is_recorded && m->epoch >= h->view_epoch;
	chp_link_close(&h->link, h->at);
	lose_channel(h);
	take_life(h, m);
	begin_link(h, m->incarnation, now_ns);
}

/* Answers to a HELLO of this shard that is not older than what became of the channel since. */
static void
take_hello(struct chp_host *h, const struct chp_host_hello *m, uint64_t now_ns)
{
	if (m->type == CHP_HOST_HELLO || m->node != h->config.link.self || m->to_incarnation != h->config.incarnation ||
	    m->number <= h->number_floor || m->number > h->number) {
		h->counters.stale++;
	} else if (m->type == CHP_HOST_WELCOME) {
		take_welcome(h, m, now_ns);
	} else if (h->is_linked) {
		h->counters.stale++; /* of another process: it is asked when this one is silent */
	} else {
		h->heard_ns = now_ns;
		h->number_floor = m->number;
		h->refusal = m->refusal;
		memcpy(h->why, m->text, sizeof(h->why));
		h->counters.refusals++;
	}
}

static void
take_state(struct chp_host *h, const struct chp_host_state *m)
{
	h->store_state = m->state;
	h->items = m->items;
	h->tombstones = m->tombstones;
	h->errors = m->errors;
	memcpy(h->why, m->text, sizeof(h->why));
}

static void
take_recorded(struct chp_host *h, uint64_t epoch)
{
	if (!h->record_sent || epoch > h->view_epoch) {
		h->counters.stale++;
		return;
	}
	h->epoch = chp_max_u64(h->epoch, epoch);
	h->is_recorded = epoch == h->view_epoch;
}

static void
take_message(struct chp_host *h, const struct chp_host_sink *to, const struct chp_message *m)
{
	const void *body = m;

	if (m->type != CHP_HOST_LOADED)
		flush_loaded(h, to); /* the protocol hears everything in order */
	switch (m->type) {
	case CHP_HOST_BEGUN:
		take_begun(h, ((const struct chp_host_life *)body)->life);
		break;
	case CHP_HOST_DURABLE:
		take_durable(h, ((const struct chp_host_batch *)body)->seq);
		break;
	case CHP_HOST_LOADED:
		take_loaded(h, to, body);
		break;
	case CHP_HOST_ITEM:
		take_item(h, to, body);
		break;
	case CHP_HOST_SCANNED:
		take_scanned(h, to, body);
		break;
	case CHP_HOST_RECORDED:
		take_recorded(h, ((const struct chp_host_record *)body)->epoch);
		break;
	default:
		take_state(h, body);
		break;
	}
}

/* Each message may make a reply. */
static bool
has_room(const struct chp_host *h, const struct chp_host_sink *to)
{
	return to->out->replies_left > to->kept + h->n_loaded;
}

/*
 * Deliver a packet's messages from *offset on. Returns whether it is done; otherwise the rest must wait for room for
 * replies.
 */
static bool
deliver(struct chp_host *h, const struct chp_host_sink *to, const uint8_t *data, uint32_t len, uint32_t *offset)
{
	bool done = true;

	while (*offset < len) {
		const struct chp_message *m = (const void *)(data + *offset);

		if (!has_room(h, to)) {
			flush_loaded(h, to); /* most messages make no reply */
			done = has_room(h, to);
			if (!done)
				break;
		}
		*offset += m->len;
		if (chp_host_message_check(m, false, h->config.key_bytes_max, h->config.value_bytes_max))
			take_message(h, to, m);
		else
			h->counters.bad_message++;
	}
	flush_loaded(h, to); /* the packet's memory is somebody else's */
	refresh(h);
	return done;
}

void
chp_host_deliver_waiting(struct chp_host *h, const struct chp_host_sink *to)
{
	struct chp_link_rx *r;

	if (!h->backing.is_present)
		return;
	report_failed_scans(h, to);
	while (h->is_linked && (r = chp_link_waiting(&h->link)) != NULL) {
		if (!deliver(h, to, r->bytes, r->len, &r->offset))
			return;
		chp_link_delivered(&h->link, to->now->ns);
	}
}

static void
receive_link(struct chp_host *h, const struct chp_host_sink *to, const uint8_t *data, uint32_t len)
{
	const struct chp_peer_header *header = (const void *)data;
	const uint64_t now_ns = to->now->ns;
	enum chp_link_verdict v;
	uint32_t offset = HEADER_BYTES;

	if (!h->is_linked) {
		h->counters.stale++;
		return;
	}
	if (header->from_incarnation == h->link.peer_incarnation && header->to_incarnation == h->link.self_incarnation)
		h->heard_ns = now_ns;
	v = chp_link_receive(&h->link, data, len, now_ns);
	if (v == CHP_LINK_RESET) {
		lose_channel(h);
		v = chp_link_receive(&h->link, data, len, now_ns);
	}
	if (v != CHP_LINK_DELIVER)
		return;
	if (!deliver(h, to, data, len, &offset)) {
		chp_link_keep(&h->link, data, len, offset);
		return;
	}
	chp_link_delivered(&h->link, now_ns);
	chp_host_deliver_waiting(h, to);
}

void
chp_host_receive(struct chp_host *h, const struct chp_host_sink *to, const uint8_t *data, uint32_t len)
{
	const struct chp_prelude *p = (const void *)data;

	CHP_ASSERT(h->backing.is_present);
	if (p->kind == CHP_PACKET_HOST)
		receive_link(h, to, data, len);
	else
		take_hello(h, (const void *)data, to->now->ns);
	refresh(h);
}

/* ------------------------------------------------------------------ the run */

void
chp_host_channel(struct chp_host *h, uint64_t now_ns, bool is_gone)
{
	if (!h->backing.is_present || is_gone == h->is_gone)
		return;
	h->is_gone = is_gone;
	if (is_gone && h->is_linked) {
		h->counters.losses++;
		give_up(h, now_ns);
		refresh(h);
	}
	if (!is_gone && !h->is_linked) { /* it need not wait for a HELLO that was put off again and again */
		h->hello_ns = now_ns;
		h->hello_wait_ns = HELLO_NS_MIN;
	}
}

static void
watch_channel(struct chp_host *h, uint64_t now_ns)
{
	if (!h->is_linked) {
		if (now_ns - h->heard_ns >= h->config.link.link_down_ns + HELLO_NS_MAX)
			h->refusal = CHP_HOST_OK; /* it does not even refuse any more */
		return;
	}
	if (now_ns - h->heard_ns >= h->config.link.link_down_ns) {
		h->counters.silences++;
		give_up(h, now_ns);
	} else if (chp_link_is_stuck(&h->link, now_ns)) {
		chp_link_reset(&h->link, now_ns);
		lose_channel(h);
	}
}

void
chp_host_run(struct chp_host *h, uint64_t now_ns, bool copy_done)
{
	const uint64_t durable = h->backing.durable;
	const bool was_ready = h->backing.is_ready;

	if (!h->backing.is_present)
		return;
	h->is_more = false;
	watch_channel(h, now_ns);
	leave_volatile_behind(h);
	if (h->record_at == CHP_NEVER && h->in_view && copy_done)
		h->record_at = h->log->next;
	if (is_up(h) && !h->has_lost)
		send_begin(h);
	if (state_of(h) == CHP_HOST_READY) {
		send_loads(h);
		send_scans(h);
		write_behind(h, now_ns);
		flush_saves(h);
		send_record(h);
	} else {
		gather(h, now_ns);
	}
	if (h->is_linked)
		close_packet(h);
	if (!is_bad(h))
		h->bad_ns = 0;
	else if (h->bad_ns == 0)
		h->bad_ns = now_ns;
	refresh(h);
	/* The protocol has had its turn in this run: it must look again. */
	h->is_more |= h->backing.durable != durable || h->backing.is_ready != was_ready;
}

static uint32_t
write_hello(struct chp_host *h, uint8_t *to)
{
	const struct chp_host_config *c = &h->config;
	struct chp_host_hello *m = (void *)to;

	memset(to, 0, c->link.payload_bytes_max);
	*m = (struct chp_host_hello){
		.prelude = { CHP_WIRE_MAGIC, CHP_WIRE_VERSION, CHP_PACKET_HOST_HELLO, c->link.cluster_hash },
		.type = CHP_HOST_HELLO,
		.channel_version = CHP_CHANNEL_VERSION,
		.node = (uint8_t)c->link.self,
		.shard = (uint16_t)c->link.shard,
		.shards = (uint16_t)c->shards,
		.number = ++h->number,
		.incarnation = c->incarnation,
		.hash_seed = c->hash_seed,
		.key_bytes_max = c->key_bytes_max,
		.value_bytes_max = c->value_bytes_max,
		.payload_bytes_max = c->link.payload_bytes_max,
	};
	h->counters.hellos++;
	return c->link.payload_bytes_max;
}

uint32_t
chp_host_transmit(struct chp_host *h, uint64_t now_ns, uint8_t *to)
{
	if (!h->backing.is_present)
		return 0;
	if (now_ns >= h->hello_ns) {
		if (h->is_linked) {
			h->hello_ns = now_ns + keep_alive_ns(h);
		} else {
			h->hello_ns = now_ns + h->hello_wait_ns;
			h->hello_wait_ns = chp_min_u64(2 * h->hello_wait_ns, HELLO_NS_MAX);
		}
		return write_hello(h, to);
	}
	return h->is_linked ? chp_link_transmit(&h->link, now_ns, 0, to) : 0;
}

uint64_t
chp_host_wake_ns(const struct chp_host *h)
{
	uint64_t wake = h->hello_ns;

	if (!h->backing.is_present)
		return CHP_NEVER;
	if (h->is_more || h->n_scans_failed > 0)
		return 0;
	if (!h->is_linked)
		return wake;
	if (chp_link_waiting(&h->link) != NULL)
		return 0;
	wake = chp_min_u64(wake, chp_link_wake_ns(&h->link));
	wake = chp_min_u64(wake, h->heard_ns + h->config.link.link_down_ns);
	if (state_of(h) == CHP_HOST_READY && !h->is_closed && h->ready > h->sent)
		wake = chp_min_u64(wake, h->first_ns + h->config.batch_age_ns);
	return wake;
}

/* ------------------------------------------------------------------ life */

void
chp_host_init_none(struct chp_host *h)
{
	memset(h, 0, sizeof(*h));
}

static struct chp_backing
backing_of(const struct chp_host_config *c)
{
	return (struct chp_backing){
		.is_present = true,
		.is_durable = c->is_durable,
		.load = begin_load,
		.drop_load = drop_load,
		.scan = begin_scan,
		.save = save,
		.restart = restart,
	};
}

/* Two for each version of a batch. */
static uint32_t
note_places(const struct chp_host_config *c)
{
	return chp_pow2_up(2 * c->batch_items);
}

int
chp_host_init(struct chp_host *h, const struct chp_host_config *c, struct chp_log *log, struct chp_cache *cache,
	      const struct chp_memory *memory)
{
	CHP_ASSERT(c->loads_max >= 1 && c->loads_max <= CHP_LOADS_MAX);
	CHP_ASSERT(c->batch_items >= 1 && c->batch_items <= BATCH_ITEMS_MAX && c->incarnation != 0);
	CHP_ASSERT_OP(c->link.kind, ==, CHP_PACKET_HOST);
	CHP_ASSERT(c->link.link_down_ns != CHP_NEVER);
	chp_host_init_none(h);
	h->backing = backing_of(c);
	h->config = *c;
	h->log = log;
	h->cache = cache;
	h->sent = h->ready = log->mark;
	h->hello_wait_ns = HELLO_NS_MIN;
	h->record_at = CHP_NEVER;
	h->free_load = h->queued_first = h->queued_last = NONE;
	while ((1u << h->load_bits) < c->loads_max)
		h->load_bits++;
	h->load = memory->zalloc(c->loads_max * sizeof(*h->load));
	h->note_bits = chp_first_bit(note_places(c));
	h->note = memory->zalloc(note_places(c) * sizeof(*h->note));
	if (h->load == NULL || h->note == NULL || chp_link_init(&h->link, &c->link, memory) != 0)
		return -ENOMEM;
	for (uint32_t i = c->loads_max; i-- > 0;) {
		h->load[i].next = h->free_load;
		h->free_load = i;
	}
	return 0;
}

void
chp_host_fini(struct chp_host *h, const struct chp_memory *memory)
{
	if (!h->backing.is_present)
		return;
	memory->free(h->load);
	memory->free(h->note);
	chp_link_fini(&h->link, memory);
	chp_host_init_none(h);
}

uint64_t
chp_host_bytes(const struct chp_host_config *c)
{
	return c->loads_max * sizeof(struct chp_host_open_load) + note_places(c) * sizeof(uint32_t) +
	       chp_link_bytes(&c->link);
}

/* ------------------------------------------------------------------ looking in */

static void
explain(const struct chp_host *h, enum chp_host_state_of_link state, struct chp_text *t)
{
	switch (state) {
	case CHP_HOST_AWAY:
		chp_text_add(t, "no answer from the host");
		break;
	case CHP_HOST_REFUSES:
		chp_text_add(t, "%s: %s", chp_host_refusal_name(h->refusal), h->why);
		break;
	case CHP_HOST_LOST_DATA:
		chp_text_add(t, "the store holds less than it had reported durable");
		break;
	case CHP_HOST_WAITING:
		chp_text_add(t, h->need_life == 0 ? "waiting for the first view" : "a life begins in the store");
		break;
	default:
		chp_text_add(t, "%s", h->store_state == CHP_STORE_OK ? h->name : h->why);
		break;
	}
}

void
chp_host_status(const struct chp_host *h, uint64_t now_ns, struct chp_host_status *out)
{
	const enum chp_host_state_of_link state = state_of(h);
	struct chp_text t = chp_text_of(out->text, sizeof(out->text));
	uint64_t unsaved, first_ns;

	memset(out, 0, sizeof(*out));
	out->state = state;
	if (state == CHP_HOST_NONE)
		return;
	explain(h, state, &t);
	unsaved = h->log->next - h->log->mark;
	first_ns = h->n_batches > 0 ? h->batch[h->first_batch].first_ns : h->first_ns;
	out->store_state = h->store_state;
	out->store_flags = h->store_flags;
	out->away_ns = h->bad_ns == 0 ? 0 : now_ns - h->bad_ns;
	out->backlog = unsaved > h->log->unsettled ? unsaved - h->log->unsettled : 0;
	out->oldest_ns = unsaved == 0 || first_ns == 0 ? 0 : now_ns - first_ns;
	out->log_fill_ppm = chp_log_fill_ppm(h->log);
	out->epoch = h->epoch;
	out->life = h->stored_life;
	out->has_begun = h->in_view && has_begun(h) && h->life == h->stored_life;
	out->newest = h->newest;
	out->items = h->items;
	out->tombstones = h->tombstones;
	out->errors = h->errors;
	out->has_record = h->is_known;
}

bool
chp_host_is_idle(const struct chp_host *h)
{
	if (state_of(h) != CHP_HOST_READY)
		return true;
	for (uint32_t i = 0; i < CHP_SCANS; i++)
		if (h->scan[i].state != CHP_SCAN_NONE)
			return false;
	return h->log->mark == h->log->next && h->n_batches == 0 && h->n_loads == 0 &&
	       (h->is_recorded || h->has_gaps || h->record_at == CHP_NEVER) && h->link.acked + 1 == h->link.next &&
	       chp_link_waiting(&h->link) == NULL;
}

static void
check_loads(const struct chp_host *h)
{
	uint32_t in[CHP_LOAD_ANSWERED + 1] = { 0 }, queued = 0, free = 0;

	for (uint32_t i = 0; i < h->config.loads_max; i++) {
		CHP_ASSERT_OP(h->load[i].state, <=, CHP_LOAD_ANSWERED);
		in[h->load[i].state]++;
	}
	for (uint32_t i = h->queued_first, before = NONE; i != NONE; before = i, i = h->load[i].next) {
		CHP_ASSERT_OP(h->load[i].state, ==, CHP_LOAD_QUEUED);
		CHP_ASSERT_OP(h->load[i].before, ==, before);
		queued++;
	}
	for (uint32_t i = h->free_load; i != NONE; i = h->load[i].next) {
		CHP_ASSERT_OP(h->load[i].state, ==, CHP_LOAD_FREE);
		free++;
	}
	CHP_ASSERT_OP(in[CHP_LOAD_QUEUED], ==, queued);
	CHP_ASSERT_OP(in[CHP_LOAD_FREE], ==, free);
	CHP_ASSERT_OP(in[CHP_LOAD_ASKED], ==, h->n_asked);
	CHP_ASSERT_OP(in[CHP_LOAD_ANSWERED], ==, 0u);
	CHP_ASSERT_OP(h->n_loads, ==, h->config.loads_max - free);
}

void
chp_host_verify(const struct chp_host *h)
{
	uint64_t bytes = h->open_bytes, seq = 0, end = 0;
	uint32_t failed = 0;

	if (!h->backing.is_present)
		return;
	CHP_ASSERT_OP(h->log->head, <=, h->sent);
	CHP_ASSERT_OP(h->sent, <=, h->ready);
	CHP_ASSERT_OP(h->ready, <=, h->log->next);
	CHP_ASSERT_OP(h->n_batches, <=, CHP_HOST_BATCHES_MAX);
	for (uint32_t i = 0; i < h->n_batches; i++) {
		const struct chp_host_sent *b = &h->batch[(h->first_batch + i) % CHP_HOST_BATCHES_MAX];

		CHP_ASSERT(b->seq > seq && b->seq <= h->last_seq && b->end >= end && b->end <= h->sent);
		seq = b->seq;
		end = b->end;
		bytes += b->bytes;
	}
	CHP_ASSERT_OP(bytes, ==, h->in_flight_bytes);
	CHP_ASSERT(h->in_flight_bytes == 0 || h->in_flight_bytes <= h->put_bytes);
	CHP_ASSERT_OP(h->durable_seq, <=, h->last_seq);
	CHP_ASSERT(h->at == NULL && h->n_loaded == 0);
	for (uint32_t i = 0; i < CHP_SCANS; i++)
		failed += h->scan[i].state == CHP_SCAN_FAILED;
	CHP_ASSERT_OP(failed, ==, h->n_scans_failed);
	check_loads(h);
	chp_link_check(&h->link);
}
