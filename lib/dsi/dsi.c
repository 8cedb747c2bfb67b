/* SPDX-License-Identifier: BSD-3-Clause */
#include "dsi/dsi.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/mutation.h"
#include "base/text.h"

#include <errno.h>
#include <string.h>

#define NS_PER_S UINT64_C(1000000000)
#define HEADER_BYTES ((uint32_t)sizeof(struct chp_peer_header))
/* The least that a PUT or ITEM takes, with its key: bounds how many there can be. */
#define ITEM_BYTES_MIN ((uint32_t)(sizeof(struct chp_host_item) + CHP_MESSAGE_ALIGN))
/* Numbers for people: told again when they have changed, this often at most. */
#define STATE_NS NS_PER_S
/* Incarnations of the shard that were replaced, remembered for their late HELLOs. */
#define REPLACED 8u
/* Those with the store, and one that is gathered. */
#define WRITES (CHP_DSI_WRITES_OPEN + 1u)

_Static_assert((int)CHP_STORE_FOUND == (int)CHP_HOST_LOAD_FOUND && (int)CHP_STORE_FAILED == (int)CHP_HOST_LOAD_FAILED,
	       "the same numbers");

/* Tags of requests: what kind, and which of them. */
enum { TAG_WRITE = 0, TAG_READ = 16, TAG_SCAN = 32, TAG_BEGIN = 48, TAG_RECORD = 49 };

/* PUTs, gathered or with the store. Closed ones, up to the last FLUSH, come first. */
struct write {
	struct chp_store_request request;
	struct chp_store_item *item;
	uint8_t *bytes;
	uint32_t n, n_closed;
	uint32_t used;       /* of bytes */
	uint32_t held;       /* of messages: what put_bytes counts */
	uint32_t held_closed;
	uint32_t batches;    /* closed */
	uint64_t seq;        /* of the last closed one */
	uint64_t incarnation;
	bool is_out;         /* with the store */
};

/* A LOAD that has not gone to the store. */
struct load {
	uint32_t token;
	uint8_t key_len;
	uint8_t key[CHP_KEY_BYTES_MAX];
};

struct reads {
	struct chp_store_request request;
	struct chp_store_read read[CHP_DSI_READ_KEYS];
	struct load load[CHP_DSI_READ_KEYS];
	uint8_t *values;
	uint32_t n, sent;
	uint64_t session; /* whose they are: of another one nobody waits for the answer */
	bool is_out, is_done;
};

struct scan {
	struct chp_store_request request;
	struct chp_store_scan scan;
	uint32_t op, sent;
	uint64_t session;
	bool is_out, is_done;
};

/* What a shard asked for under one op. */
struct scan_op {
	struct chp_store_cursor cursor;
	bool has_cursor; /* it has begun, and there is more */
	bool is_open;    /* a part was asked for and not answered */
	bool from_start, only_old;
	uint32_t bytes;
};

struct chp_dsi {
	struct chp_dsi_config config;
	struct chp_dsi_counters counters;
	struct chp_link link;
	uint64_t now_ns;
	struct chp_dsi_effects *out;

	/* The store. */
	struct chp_store_info info;
	struct chp_store_record record;
	bool has_record;

	/* The shard. */
	uint64_t incarnation;            /* 0: none yet */
	uint64_t own_incarnation;        /* a new one for each of the shard's: no link begins twice */
	uint32_t hello_number;           /* of its newest HELLO */
	struct {
		uint64_t incarnation;
		uint32_t hello_number;
	} replaced[REPLACED];
	uint32_t n_replaced;
	uint64_t session;                /* counts incarnations and resets of the link */
	bool is_welcome;                 /* it was told what the store holds: packets of its link are taken */
	bool hello_waits;                /* for an answer */
	struct chp_host_hello hello;
	char refused[CHP_HOST_TEXT_BYTES];

	/* What is to be said as soon as the link has room. */
	uint64_t begun, durable, recorded; /* 0: nothing */
	uint64_t durable_batches;          /* reported with the next DURABLE, for statistics */
	bool state_waits;
	uint64_t state_ns;               /* when STATE was last sent */
	struct chp_store_record told;    /* what it said */
	uint64_t errors_told;
	uint8_t *at, *end;               /* of the link's open packet; NULL */

	/* Ordered requests. */
	uint64_t life;                   /* of what is written: begun, or about to */
	uint64_t flushed;                /* last seq of the shard in this life */
	uint64_t handed;                 /* last seq that the store was given */
	uint64_t begin_wanted;           /* a life; 0: none */
	uint64_t record_wanted;          /* an epoch; 0: none */
	uint64_t record_behind;          /* it goes to the store behind this seq */
	struct chp_store_request begin, write_record;
	bool begin_out, record_out;
	uint64_t begin_incarnation, record_incarnation;
	struct write write[WRITES];
	uint32_t gather;                 /* the one that PUTs go to */

	/* Loads: a ring of those that wait, and those in READs. */
	struct load *load;
	uint32_t load_mask, load_first, n_loads; /* waiting */
	uint32_t loads_open;                     /* all that were not answered */
	struct reads reads[CHP_DSI_READS_OPEN];

	struct scan_op scan_op[CHP_HOST_SCANS];
	uint8_t scan_wait[CHP_HOST_SCANS];       /* ops that wait, a queue */
	uint32_t scan_first, n_scans;
	struct scan scan[CHP_DSI_SCANS_OPEN];
};

/* ------------------------------------------------------------------ creation */

static uint32_t
put_items(const struct chp_dsi_config *c)
{
	return c->put_bytes / ITEM_BYTES_MIN;
}

static uint32_t
scan_items(const struct chp_dsi_config *c)
{
	return c->scan_bytes / ITEM_BYTES_MIN + 1;
}

static uint32_t
scan_room(const struct chp_dsi_config *c)
{
	return c->scan_bytes + CHP_RECORD_BYTES_MAX;
}

static size_t
value_room(const struct chp_dsi_config *c)
{
	return chp_align_u32(c->value_bytes_max + 1, CHP_CACHE_LINE);
}

static struct chp_link_config
link_config(const struct chp_dsi_config *c)
{
	return (struct chp_link_config){ .kind = CHP_PACKET_HOST,
					 .cluster_hash = c->cluster_hash,
					 .shard = c->shard,
					 .self = c->node,
					 .peer = c->node,
					 .window = c->window,
					 .payload_bytes_max = c->payload_bytes_max,
					 .queue = c->queue,
					 .rto_ns_min = c->rto_ns_min,
					 .rto_ns_max = c->rto_ns_max,
					 .ack_delay_ns = c->ack_delay_ns,
					 .link_down_ns = CHP_NEVER };
}

uint64_t
chp_dsi_bytes(const struct chp_dsi_config *c)
{
	const struct chp_link_config l = link_config(c);

	return sizeof(struct chp_dsi) + chp_link_bytes(&l) +
	       WRITES * ((uint64_t)put_items(c) * sizeof(struct chp_store_item) + c->put_bytes) +
	       (uint64_t)chp_pow2_up(c->loads) * sizeof(struct load) +
	       CHP_DSI_READS_OPEN * CHP_DSI_READ_KEYS * (uint64_t)value_room(c) +
	       CHP_DSI_SCANS_OPEN * ((uint64_t)scan_items(c) * sizeof(struct chp_store_item) + scan_room(c));
}

static bool
config_is_right(const struct chp_dsi_config *c)
{
	return c->incarnation != 0 && c->shards >= 1 && c->shard < c->shards && c->loads >= 1 &&
	       c->key_bytes_max >= 1 && c->key_bytes_max <= CHP_KEY_BYTES_MAX &&
	       c->value_bytes_max <= CHP_VALUE_BYTES_MAX && c->payload_bytes_max >= CHP_PAYLOAD_BYTES_MIN &&
	       c->payload_bytes_max <= CHP_PAYLOAD_BYTES_MAX && c->scan_bytes >= ITEM_BYTES_MIN &&
	       c->put_bytes >= chp_host_item_bytes(c->key_bytes_max, c->value_bytes_max);
}

static bool
create_parts(struct chp_dsi *d)
{
	const struct chp_dsi_config *c = &d->config;
	const struct chp_memory *m = c->memory;
	const struct chp_link_config l = link_config(c);
	bool ok = chp_link_init(&d->link, &l, m) == 0;

	for (uint32_t i = 0; i < WRITES; i++) {
		d->write[i].item = m->zalloc(put_items(c) * sizeof(struct chp_store_item));
		d->write[i].bytes = m->zalloc(c->put_bytes);
		ok = ok && d->write[i].item != NULL && d->write[i].bytes != NULL;
	}
	for (uint32_t i = 0; i < CHP_DSI_READS_OPEN; i++) {
		d->reads[i].values = m->zalloc(CHP_DSI_READ_KEYS * value_room(c));
		ok = ok && d->reads[i].values != NULL;
	}
	for (uint32_t i = 0; i < CHP_DSI_SCANS_OPEN; i++) {
		struct chp_store_scan *s = &d->scan[i].scan;

		s->n_max = scan_items(c);
		s->room_bytes = scan_room(c);
		s->item = m->zalloc(s->n_max * sizeof(struct chp_store_item));
		s->room = m->zalloc(s->room_bytes);
		ok = ok && s->item != NULL && s->room != NULL;
	}
	d->load_mask = chp_pow2_up(c->loads) - 1;
	d->load = m->zalloc(((size_t)d->load_mask + 1) * sizeof(struct load));
	return ok && d->load != NULL;
}

struct chp_dsi *
chp_dsi_create(const struct chp_dsi_config *config, int *err)
{
	struct chp_dsi *d;

	if (!config_is_right(config)) {
		*err = -EINVAL;
		return NULL;
	}
	*err = -ENOMEM;
	d = config->memory->zalloc(sizeof(*d));
	if (d == NULL)
		return NULL;
	d->config = *config;
	d->info.refusal = CHP_HOST_NO_STORE;
	chp_host_text(d->info.text, "the store is not open yet");
	if (!create_parts(d)) {
		chp_dsi_destroy(d);
		return NULL;
	}
	*err = 0;
	return d;
}

void
chp_dsi_destroy(struct chp_dsi *d)
{
	const struct chp_memory *m;

	if (d == NULL)
		return;
	m = d->config.memory;
	chp_link_fini(&d->link, m);
	for (uint32_t i = 0; i < WRITES; i++) {
		m->free(d->write[i].item);
		m->free(d->write[i].bytes);
	}
	for (uint32_t i = 0; i < CHP_DSI_READS_OPEN; i++)
		m->free(d->reads[i].values);
	for (uint32_t i = 0; i < CHP_DSI_SCANS_OPEN; i++) {
		m->free(d->scan[i].scan.item);
		m->free(d->scan[i].scan.room);
	}
	m->free(d->load);
	m->free(d);
}

/* ------------------------------------------------------------------ sessions */

/* Everything that came on the link so far and is not with the store is void; so are answers to it. */
static void
drop_session(struct chp_dsi *d)
{
	struct write *g = &d->write[d->gather];

	d->session++;
	g->n = g->n_closed = g->used = g->held = g->held_closed = g->batches = 0;
	d->begin_wanted = d->record_wanted = 0;
	d->begun = d->recorded = d->durable = 0;
	d->handed = d->flushed; /* nothing is left that a RECORD could wait for */
	d->n_loads = d->loads_open = 0;
	d->n_scans = 0;
	memset(d->scan_op, 0, sizeof(d->scan_op));
	for (uint32_t i = 0; i < CHP_DSI_READS_OPEN; i++) {
		if (d->reads[i].is_done) {
			d->reads[i].is_done = false;
			d->counters.orphans++;
		}
	}
	for (uint32_t i = 0; i < CHP_DSI_SCANS_OPEN; i++) {
		if (d->scan[i].is_done) {
			d->scan[i].is_done = false;
			d->counters.orphans++;
		}
	}
	d->at = d->end = NULL; /* the open packet went with the link's reset */
	d->state_waits = true;
	d->life = d->begin_out ? chp_max_u64(d->begin.life, d->record.life) : d->record.life;
}

/* The shard broke a rule: nothing that it says from here on has a meaning. It finds us again with HELLO. */
static void
reset_link(struct chp_dsi *d, uint64_t *why)
{
	(*why)++;
	chp_link_reset(&d->link, d->now_ns);
	drop_session(d);
}

static void
new_incarnation(struct chp_dsi *d, uint64_t incarnation)
{
	if (d->incarnation != 0) {
		d->replaced[d->n_replaced % REPLACED].incarnation = d->incarnation;
		d->replaced[d->n_replaced++ % REPLACED].hello_number = d->hello_number;
	}
	d->incarnation = incarnation;
	d->own_incarnation = d->config.incarnation + d->counters.incarnations++;
	chp_link_peer(&d->link, d->own_incarnation, incarnation, d->now_ns);
	drop_session(d);
	d->flushed = d->handed = 0;
	d->is_welcome = false;
}

/* ------------------------------------------------------------------ messages to the shard */

static void
close_packet(struct chp_dsi *d)
{
	if (d->at != NULL)
		chp_link_close(&d->link, d->at);
	d->at = d->end = NULL;
}

/* Room for a message of `bytes`, zeroed, its header filled in; NULL: there is none now. */
static void *
reserve(struct chp_dsi *d, uint8_t type, uint32_t op, uint32_t bytes)
{
	struct chp_message *m;

	if (d->at != NULL && (uint32_t)(d->end - d->at) < bytes)
		close_packet(d);
	if (d->at == NULL) {
		if (d->incarnation == 0 || d->link.state != CHP_LINK_UP || chp_link_room(&d->link) == 0)
			return NULL;
		chp_link_open(&d->link, bytes, 0, &d->at, &d->end);
	}
	m = (void *)d->at;
	memset(m, 0, bytes);
	*m = (struct chp_message){ .type = type, .len = (uint16_t)bytes, .op = op };
	d->at += bytes;
	return m;
}

static bool
say_life(struct chp_dsi *d)
{
	struct chp_host_life *m = reserve(d, CHP_HOST_BEGUN, CHP_OP_NONE, sizeof(*m));

	if (m == NULL)
		return false;
	m->life = d->begun;
	d->begun = 0;
	return true;
}

static bool
say_durable(struct chp_dsi *d)
{
	struct chp_host_batch *m = reserve(d, CHP_HOST_DURABLE, CHP_OP_NONE, sizeof(*m));

	if (m == NULL)
		return false;
	m->seq = d->durable;
	d->durable = 0;
	d->counters.durable += d->durable_batches;
	d->durable_batches = 0;
	return true;
}

static bool
say_recorded(struct chp_dsi *d)
{
	struct chp_host_record *m = reserve(d, CHP_HOST_RECORDED, CHP_OP_NONE, sizeof(*m));

	if (m == NULL)
		return false;
	m->epoch = d->recorded;
	d->recorded = 0;
	return true;
}

static bool
say_state(struct chp_dsi *d)
{
	struct chp_host_state *m = reserve(d, CHP_HOST_STATE, CHP_OP_NONE, sizeof(*m));

	if (m == NULL)
		return false;
	m->items = d->record.items;
	m->tombstones = d->record.tombstones;
	m->errors = d->info.errors;
	m->state = d->info.state;
	if (d->info.state != CHP_STORE_OK)
		memcpy(m->text, d->info.text, sizeof(m->text));
	d->told = d->record;
	d->errors_told = d->info.errors;
	d->state_waits = false;
	d->state_ns = d->now_ns;
	return true;
}

/* What a shard sees of a life: whether it is over. */
static uint8_t
flags_of(const struct chp_dsi *d, uint8_t flags, uint64_t life)
{
	const uint8_t kept = flags & (CHP_HOST_RMW | CHP_HOST_TOMBSTONE);

	return life < d->life ? kept | CHP_HOST_OLD : kept;
}

static bool
say_loaded(struct chp_dsi *d, const struct chp_store_read *r, uint32_t token)
{
	const bool has_version = r->found == CHP_STORE_FOUND || r->found == CHP_STORE_TOMBSTONE;
	const uint32_t value_len = r->found == CHP_STORE_FOUND ? r->value_len : 0;
	struct chp_host_loaded *m = reserve(d, CHP_HOST_LOADED, token, chp_host_loaded_bytes(value_len));

	if (m == NULL)
		return false;
	m->status = r->found;
	if (has_version) {
		m->version = r->version;
		m->item_flags = flags_of(d, r->flags, r->life);
		m->generation = (uint16_t)chp_host_generation(r->life);
	}
	m->value_len = value_len;
	if (value_len > 0)
		memcpy(m + 1, r->value, value_len);
	d->counters.found += r->found == CHP_STORE_FOUND;
	d->counters.tombstones += r->found == CHP_STORE_TOMBSTONE;
	d->counters.failed += r->found == CHP_STORE_FAILED;
	return true;
}

static void
say_loads(struct chp_dsi *d)
{
	for (uint32_t i = 0; i < CHP_DSI_READS_OPEN; i++) {
		struct reads *r = &d->reads[i];

		if (!r->is_done)
			continue;
		while (r->sent < r->n && say_loaded(d, &r->read[r->sent], r->load[r->sent].token)) {
			CHP_ASSERT_OP(d->loads_open, >, 0u);
			d->loads_open--;
			r->sent++;
		}
		if (r->sent < r->n)
			return;
		r->is_done = false;
	}
}

static bool
say_item(struct chp_dsi *d, uint32_t op, const struct chp_store_item *item)
{
	const uint32_t bytes = chp_host_item_bytes(item->key_len, item->value_len);
	struct chp_host_item *m;
	uint8_t *to;

	if (d->at != NULL && (uint32_t)(d->end - d->at) < bytes)
		close_packet(d);
	if (d->at == NULL && chp_link_bulk_bytes(&d->link) == 0)
		return false; /* room is left for the rest */
	m = reserve(d, CHP_HOST_ITEM, op, bytes);
	if (m == NULL)
		return false;
	m->version = item->version;
	m->value_len = item->value_len;
	m->key_len = item->key_len;
	m->item_flags = flags_of(d, item->flags, item->life);
	to = (uint8_t *)(m + 1);
	memcpy(to, item->key, item->key_len);
	if (item->value_len > 0)
		memcpy(to + item->key_len, item->value, item->value_len);
	d->counters.items++;
	return true;
}

static bool
say_scanned(struct chp_dsi *d, uint32_t op, uint32_t items, uint32_t flags)
{
	struct chp_host_scanned *m = reserve(d, CHP_HOST_SCANNED, op, sizeof(*m));

	if (m == NULL)
		return false;
	m->items = items;
	m->scanned_flags = flags;
	return true;
}

static void
say_scans(struct chp_dsi *d)
{
	for (uint32_t i = 0; i < CHP_DSI_SCANS_OPEN; i++) {
		struct scan *s = &d->scan[i];
		struct scan_op *op = &d->scan_op[s->op];
		uint32_t n = s->scan.failed ? 0 : s->scan.n;
		uint32_t flags = s->scan.failed ? CHP_HOST_SCAN_FAILED : s->scan.end ? CHP_HOST_SCAN_END : 0;

		if (!s->is_done)
			continue;
		while (s->sent < n && say_item(d, s->op, &s->scan.item[s->sent]))
			s->sent++;
		if (s->sent < n || !say_scanned(d, s->op, n, flags))
			continue;
		s->is_done = false;
		op->is_open = false;
		op->has_cursor = flags == 0;
		op->cursor = s->scan.cursor;
	}
}

static void
say_everything(struct chp_dsi *d)
{
	const bool news = d->record.items != d->told.items || d->record.tombstones != d->told.tombstones ||
			  d->info.errors != d->errors_told;

	if (d->incarnation == 0 || d->link.state != CHP_LINK_UP)
		return;
	if (news && d->now_ns >= d->state_ns + STATE_NS)
		d->state_waits = true;
	if (d->begun != 0 && !say_life(d))
		return;
	if (d->durable != 0 && !say_durable(d))
		return;
	if (d->recorded != 0 && !say_recorded(d))
		return;
	if (d->state_waits && !say_state(d))
		return;
	say_loads(d);
	say_scans(d);
	close_packet(d);
}

/* ------------------------------------------------------------------ messages of the shard */

/* A life begins when the store has it. A higher one may come before anything was put: a first view came to nothing. */
static bool
take_begin(struct chp_dsi *d, const struct chp_message *m)
{
	const uint64_t life = ((const struct chp_host_life *)(const void *)m)->life;

	if (life < d->life) {
		d->counters.late_begins++;
		return true;
	}
	if (life == d->record.life) {
		d->begun = life;
		return true;
	}
	if (life == d->life)
		return true; /* it is on its way */
	if (d->write[d->gather].n > 0)
		return false;
	d->life = life;
	d->flushed = d->handed = 0;
	d->begin_wanted = life;
	return true;
}

static void
add_put(struct write *w, const struct chp_store_item *from, uint32_t held)
{
	uint8_t *key = w->bytes + w->used;
	struct chp_store_item *item = &w->item[w->n++];

	memcpy(key, from->key, from->key_len);
	if (from->value_len > 0)
		memcpy(key + from->key_len, from->value, from->value_len);
	*item = *from;
	item->key = key;
	item->value = (from->flags & CHP_HOST_TOMBSTONE) != 0 ? NULL : key + from->key_len;
	w->used += from->key_len + from->value_len;
	w->held += held;
}

static bool
take_put(struct chp_dsi *d, const struct chp_message *m, bool *is_excess)
{
	const struct chp_host_item *p = (const void *)m;
	struct write *g = &d->write[d->gather];
	const struct chp_store_item item = { .key = chp_host_item_key(p),
					     .value = chp_host_item_value(p),
					     .version = p->version,
					     .life = d->life,
					     .value_len = p->value_len,
					     .key_len = p->key_len,
					     .flags = p->item_flags };

	if (d->life == 0)
		return false;
	if (g->held + m->len > d->config.put_bytes) {
		*is_excess = true;
		return false;
	}
	add_put(g, &item, m->len);
	d->counters.puts++;
	d->counters.put_bytes += m->len;
	return true;
}

static bool
take_flush(struct chp_dsi *d, const struct chp_message *m)
{
	const struct chp_host_batch *b = (const void *)m;
	struct write *g = &d->write[d->gather];

	if (b->items != g->n - g->n_closed || b->seq <= d->flushed)
		return false;
	if (b->seq <= d->record.batch && d->record.life == d->life)
		return false; /* the store is ahead of it */
	g->n_closed = g->n;
	g->held_closed = g->held;
	g->seq = d->flushed = b->seq;
	g->batches++;
	d->counters.batches++;
	if (CHP_MUTATED(S29_DURABLE_TOO_EARLY))
		d->durable = b->seq;
	return true;
}

static bool
take_load(struct chp_dsi *d, const struct chp_message *m, bool *is_excess)
{
	const struct chp_host_load *l = (const void *)m;
	struct load *to = &d->load[(d->load_first + d->n_loads) & d->load_mask];

	if (d->loads_open == d->config.loads) {
		*is_excess = true;
		return false;
	}
	to->token = m->op;
	to->key_len = l->key_len;
	memcpy(to->key, chp_host_load_key(l), l->key_len);
	d->n_loads++;
	d->loads_open++;
	d->counters.loads++;
	return true;
}

static bool
take_scan(struct chp_dsi *d, const struct chp_message *m, bool *is_excess)
{
	const struct chp_host_scan *s = (const void *)m;
	struct scan_op *op = &d->scan_op[m->op];

	if (op->is_open) {
		*is_excess = true;
		return false;
	}
	op->is_open = true;
	op->from_start = (s->scan_flags & CHP_HOST_SCAN_START) != 0;
	op->only_old = (s->scan_flags & CHP_HOST_SCAN_OLD) != 0;
	op->bytes = s->bytes;
	d->scan_wait[(d->scan_first + d->n_scans++) % CHP_HOST_SCANS] = (uint8_t)m->op;
	d->counters.scans++;
	return true;
}

static bool
take_record(struct chp_dsi *d, const struct chp_message *m)
{
	const uint64_t epoch = ((const struct chp_host_record *)(const void *)m)->epoch;

	if (d->life == 0)
		return false;
	d->record_wanted = chp_max_u64(d->record_wanted, epoch);
	d->record_behind = d->flushed;
	return true;
}

static bool
take_message(struct chp_dsi *d, const struct chp_message *m, bool *is_excess)
{
	if (!chp_host_message_check(m, true, d->config.key_bytes_max, d->config.value_bytes_max))
		return false;
	switch (m->type) {
	case CHP_HOST_BEGIN:
		return take_begin(d, m);
	case CHP_HOST_PUT:
		return take_put(d, m, is_excess);
	case CHP_HOST_FLUSH:
		return take_flush(d, m);
	case CHP_HOST_LOAD:
		return take_load(d, m, is_excess);
	case CHP_HOST_SCAN:
		return take_scan(d, m, is_excess);
	default:
		return take_record(d, m);
	}
}

/* Returns false when the link was reset: nothing behind counts. */
static bool
deliver(struct chp_dsi *d, const uint8_t *data, uint32_t len)
{
	for (uint32_t offset = HEADER_BYTES; offset < len;) {
		const struct chp_message *m = (const void *)(data + offset);
		bool is_excess = false;

		if (!take_message(d, m, &is_excess)) {
			reset_link(d, is_excess ? &d->counters.excess : &d->counters.bad_message);
			return false;
		}
		offset += m->len;
	}
	chp_link_delivered(&d->link, d->now_ns);
	return true;
}

/* ------------------------------------------------------------------ packets */

/*
 * Whether a HELLO was sent before what its sender said last. Incarnations have no order: which of two lives shows in
 * the numbers of its HELLOs, which go on to rise.
 */
static bool
is_late(const struct chp_dsi *d, const struct chp_host_hello *h)
{
	uint32_t seen = h->incarnation == d->incarnation ? d->hello_number : 0;

	for (uint32_t i = 0; i < REPLACED; i++) {
		if (d->replaced[i].incarnation == h->incarnation && d->replaced[i].hello_number > seen)
			seen = d->replaced[i].hello_number;
	}
	return h->number <= seen;
}

static void
receive_link(struct chp_dsi *d, const struct chp_dsi_packet *p)
{
	const struct chp_dsi_config *c = &d->config;
	const struct chp_peer_header *h = (const void *)p->data;
	enum chp_packet_error e = chp_host_check(p->data, p->len, c->cluster_hash, c->node, c->shards);
	enum chp_link_verdict v;
	struct chp_link_rx *r;

	if (e != CHP_PACKET_OK || h->shard != c->shard) {
		if (e == CHP_PACKET_OK || e == CHP_PACKET_CLUSTER || e == CHP_PACKET_NODE || e == CHP_PACKET_SHARD)
			d->counters.stray++;
		else
			d->counters.bad_packet++;
		return;
	}
	if (h->from_incarnation != d->incarnation || h->to_incarnation != d->own_incarnation) {
		d->counters.stray++;
		return;
	}
	v = chp_link_receive(&d->link, p->data, p->len, d->now_ns);
	if (v == CHP_LINK_RESET) {
		drop_session(d);
		v = chp_link_receive(&d->link, p->data, p->len, d->now_ns);
	}
	if (v != CHP_LINK_DELIVER || !deliver(d, p->data, p->len))
		return;
	while ((r = chp_link_waiting(&d->link)) != NULL) {
		if (!deliver(d, r->bytes, r->len))
			return;
	}
}

static void
receive_hello(struct chp_dsi *d, const struct chp_dsi_packet *p)
{
	const struct chp_host_hello *h = (const void *)p->data;

	if (chp_host_hello_check(p->data, p->len, 0) != CHP_PACKET_OK) {
		d->counters.bad_packet++;
		return;
	}
	if (h->type != CHP_HOST_HELLO || is_late(d, h)) {
		d->counters.stray++;
		return;
	}
	d->counters.hellos++;
	d->hello = *h;
	d->hello_waits = true;
}

static void
receive(struct chp_dsi *d, const struct chp_dsi_packet *p)
{
	uint8_t kind;

	if (chp_packet_kind_of(p->data, p->len, &kind) != CHP_PACKET_OK)
		d->counters.bad_packet++;
	else if (kind == CHP_PACKET_HOST_HELLO)
		receive_hello(d, p);
	else
		receive_link(d, p);
}

/* ------------------------------------------------------------------ HELLO */

static uint32_t
open_ordered(const struct chp_dsi *d)
{
	uint32_t n = (uint32_t)d->begin_out + (uint32_t)d->record_out;

	for (uint32_t i = 0; i < WRITES; i++)
		n += d->write[i].is_out;
	return n;
}

/* Who asks, against what this host serves. The text says both. */
static enum chp_host_refusal
judge(const struct chp_dsi_config *c, const struct chp_host_hello *h, struct chp_text *why)
{
	if (h->channel_version != CHP_CHANNEL_VERSION) {
		chp_text_add(why, "the host speaks version %u of the channel, the replica %u", CHP_CHANNEL_VERSION,
			     h->channel_version);
		return CHP_HOST_BAD_VERSION;
	}
	if (h->prelude.cluster_hash != c->cluster_hash || h->hash_seed != c->hash_seed ||
	    h->key_bytes_max != c->key_bytes_max || h->value_bytes_max != c->value_bytes_max ||
	    h->payload_bytes_max != c->payload_bytes_max) {
		chp_text_add(why, "the host's cluster file has hash %08x, the replica's %08x: give both the same file",
			     c->cluster_hash, h->prelude.cluster_hash);
		return CHP_HOST_BAD_CLUSTER;
	}
	if (h->node != c->node) {
		chp_text_add(why, "the host is node %u's, the replica is node %u", c->node, h->node);
		return CHP_HOST_BAD_NODE;
	}
	if (h->shard != c->shard || h->shards != c->shards) {
		chp_text_add(why, "the host has shard %u of %u, the replica asks for %u of %u", c->shard, c->shards,
			     h->shard, h->shards);
		return CHP_HOST_BAD_SHARD;
	}
	return CHP_HOST_OK;
}

/* REFUSED goes to whoever asked: with its own cluster hash, node and shard, or it would drop it. */
static uint32_t
write_refused(const struct chp_dsi_config *c, uint64_t incarnation, const struct chp_host_hello *h,
	      enum chp_host_refusal refusal, const char *text, uint8_t *to)
{
	struct chp_host_hello *r = (void *)to;

	*r = *h;
	r->type = CHP_HOST_REFUSED;
	r->channel_version = CHP_CHANNEL_VERSION;
	r->refusal = (uint8_t)refusal;
	r->incarnation = incarnation;
	r->to_incarnation = h->incarnation;
	r->shards = (uint16_t)c->shards;
	r->hash_seed = c->hash_seed;
	r->key_bytes_max = c->key_bytes_max;
	r->value_bytes_max = c->value_bytes_max;
	r->payload_bytes_max = c->payload_bytes_max;
	memset((uint8_t *)r + offsetof(struct chp_host_hello, store_flags), 0,
	       sizeof(*r) - offsetof(struct chp_host_hello, store_flags));
	chp_host_text(r->text, text);
	chp_peer_seal(r, sizeof(*r));
	return sizeof(*r);
}

static uint32_t
write_welcome(struct chp_dsi *d, uint8_t *to)
{
	struct chp_host_hello *w = (void *)to;

	*w = d->hello;
	w->type = CHP_HOST_WELCOME;
	w->incarnation = d->own_incarnation;
	w->to_incarnation = d->incarnation;
	w->store_flags = d->info.flags;
	w->put_bytes = d->config.put_bytes;
	w->loads = d->config.loads;
	w->life = d->record.life;
	w->batch = d->record.batch;
	w->epoch = d->record.epoch;
	w->newest = d->record.newest;
	w->items = d->record.items;
	w->tombstones = d->record.tombstones;
	chp_host_text(w->text, d->info.name);
	chp_peer_seal(w, sizeof(*w));
	return sizeof(*w);
}

static struct chp_dsi_buffer *
next_buffer(struct chp_dsi *d)
{
	return d->out->n_used < d->out->n_buffers ? &d->out->buffer[d->out->n_used++] : NULL;
}

static void
refuse(struct chp_dsi *d, enum chp_host_refusal refusal, const char *text)
{
	struct chp_dsi_buffer *b = next_buffer(d);

	d->hello_waits = false;
	d->counters.refusals++;
	chp_host_text(d->refused, text);
	b->len = write_refused(&d->config, d->incarnation != 0 ? d->own_incarnation : d->config.incarnation,
			       &d->hello, refusal, text, b->data);
}

/* The first thing of a run that is written: there is a buffer. */
static void
answer_hello(struct chp_dsi *d)
{
	char why[CHP_HOST_TEXT_BYTES];
	struct chp_text text = chp_text_of(why, sizeof(why));
	enum chp_host_refusal refusal = judge(&d->config, &d->hello, &text);
	struct chp_dsi_buffer *b;

	if (refusal == CHP_HOST_OK && (d->info.refusal != CHP_HOST_OK || !d->has_record)) {
		refusal = d->info.refusal != CHP_HOST_OK ? (enum chp_host_refusal)d->info.refusal
							 : CHP_HOST_NO_STORE;
		chp_text_add(&text, "%s", d->info.text);
	}
	if (refusal != CHP_HOST_OK) {
		refuse(d, refusal, why);
		return;
	}
	if (d->hello.incarnation != d->incarnation)
		new_incarnation(d, d->hello.incarnation);
	d->hello_number = d->hello.number;
	if (!d->is_welcome && open_ordered(d) > 0) {
		/* What the store holds is known when these are done. A store that is down may take for ever: say so. */
		if (d->info.state == CHP_STORE_DOWN) {
			chp_text_add(&text, "the store has not finished earlier writes: %s", d->info.text);
			refuse(d, CHP_HOST_NO_STORE, why);
		}
		return;
	}
	if (!d->is_welcome)
		d->life = d->record.life;
	d->is_welcome = true;
	d->refused[0] = '\0';
	d->hello_waits = false;
	d->counters.welcomes++;
	b = next_buffer(d);
	b->len = write_welcome(d, b->data);
}

/* ------------------------------------------------------------------ requests */

static void
hand_over(struct chp_dsi *d, struct chp_store_request *r, uint8_t type, uint32_t tag)
{
	CHP_ASSERT_OP(d->out->n_requests, <, CHP_DSI_REQUESTS_MAX);
	r->type = type;
	r->shard = (uint16_t)d->config.shard;
	r->tag = tag;
	r->life = d->life;
	r->next = NULL;
	d->out->request[d->out->n_requests++] = r;
}

static void
hand_begin(struct chp_dsi *d)
{
	if (d->begin_wanted == 0 || d->begin_out)
		return;
	d->begin_out = true;
	d->begin_incarnation = d->incarnation;
	hand_over(d, &d->begin, CHP_STORE_BEGIN, TAG_BEGIN);
	d->begin_wanted = 0;
	d->counters.begins++;
}

/* What is closed goes to the store; PUTs behind it begin the next. */
static void
hand_write(struct chp_dsi *d)
{
	struct write *g = &d->write[d->gather], *next = NULL;
	uint32_t i;

	if (g->n_closed == 0 || d->begin_wanted != 0)
		return;
	for (i = 0; i < WRITES && next == NULL; i++) {
		if (i != d->gather && !d->write[i].is_out)
			next = &d->write[i];
	}
	if (next == NULL)
		return;
	next->n = next->n_closed = next->used = next->held = next->held_closed = next->batches = 0;
	for (uint32_t k = g->n_closed; k < g->n; k++) {
		const struct chp_store_item *item = &g->item[k];

		add_put(next, item, chp_host_item_bytes(item->key_len, item->value_len));
	}
	if (g->n > g->n_closed)
		g->used = (uint32_t)(g->item[g->n_closed].key - g->bytes);
	g->n = g->n_closed;
	g->held = g->held_closed;
	g->is_out = true;
	g->incarnation = d->incarnation;
	g->request.item = g->item;
	g->request.n_items = g->n_closed;
	g->request.seq = d->handed = g->seq;
	hand_over(d, &g->request, CHP_STORE_WRITE, TAG_WRITE + d->gather);
	d->gather = (uint32_t)(next - d->write);
	d->counters.writes++;
}

static void
hand_record(struct chp_dsi *d)
{
	if (d->record_wanted == 0 || d->record_out || d->begin_wanted != 0 || d->handed < d->record_behind)
		return;
	d->record_out = true;
	d->record_incarnation = d->incarnation;
	d->write_record.epoch = d->record_wanted;
	hand_over(d, &d->write_record, CHP_STORE_RECORD, TAG_RECORD);
	d->record_wanted = 0;
	d->counters.records++;
}

static void
hand_reads(struct chp_dsi *d)
{
	for (uint32_t i = 0; i < CHP_DSI_READS_OPEN && d->n_loads > 0; i++) {
		struct reads *r = &d->reads[i];

		if (r->is_out || r->is_done)
			continue;
		r->n = chp_min_u32(d->n_loads, CHP_DSI_READ_KEYS);
		for (uint32_t k = 0; k < r->n; k++) {
			r->load[k] = d->load[d->load_first++ & d->load_mask];
			r->read[k] = (struct chp_store_read){ .key = r->load[k].key,
							      .key_len = r->load[k].key_len,
							      .value = r->values + k * value_room(&d->config),
							      .found = CHP_STORE_FAILED };
		}
		d->n_loads -= r->n;
		r->sent = 0;
		r->is_out = true;
		r->session = d->session;
		r->request.read = r->read;
		r->request.n_reads = r->n;
		hand_over(d, &r->request, CHP_STORE_READ, TAG_READ + i);
		d->counters.reads++;
	}
}

/* A scan that cannot go on is answered as if the store had said so. */
static void
hand_scan(struct chp_dsi *d, struct scan *s, uint32_t slot, uint32_t which)
{
	const struct scan_op *op = &d->scan_op[which];

	s->op = which;
	s->sent = 0;
	s->session = d->session;
	chp_store_scan_reset(&s->scan);
	s->scan.cursor.len = 0;
	if (!op->from_start)
		s->scan.cursor = op->cursor;
	s->scan.life = d->life;
	s->scan.only_old = op->only_old;
	s->scan.id = which;
	s->scan.bytes_max = chp_min_u32(op->bytes, d->config.scan_bytes);
	if ((d->info.flags & CHP_STORE_SCANS) == 0 || (!op->from_start && !op->has_cursor)) {
		s->scan.failed = true;
		s->is_done = true;
		return;
	}
	s->is_out = true;
	s->request.scan = &s->scan;
	hand_over(d, &s->request, CHP_STORE_SCAN, TAG_SCAN + slot);
}

static void
hand_scans(struct chp_dsi *d)
{
	for (uint32_t i = 0; i < CHP_DSI_SCANS_OPEN && d->n_scans > 0; i++) {
		if (d->scan[i].is_out || d->scan[i].is_done)
			continue;
		hand_scan(d, &d->scan[i], i, d->scan_wait[d->scan_first]);
		d->scan_first = (d->scan_first + 1) % CHP_HOST_SCANS;
		d->n_scans--;
	}
}

static void
hand_everything(struct chp_dsi *d)
{
	hand_begin(d);
	hand_write(d);
	hand_record(d);
	hand_reads(d);
	hand_scans(d);
}

/* ------------------------------------------------------------------ completions */

/* The shard that asked has gone, or will ask again. */
static bool
is_orphan(struct chp_dsi *d, uint64_t theirs, uint64_t ours)
{
	d->counters.orphans += theirs != ours;
	return theirs != ours;
}

static void
written(struct chp_dsi *d, struct write *w)
{
	CHP_ASSERT(w->is_out);
	w->is_out = false;
	d->record = w->request.record;
	if (is_orphan(d, w->incarnation, d->incarnation) || w->request.life != d->life)
		return;
	/* [SAFETY 29] Durable is what the store has completed, nothing else. */
	d->durable = chp_max_u64(d->durable, w->request.seq);
	d->durable_batches += w->batches;
}

static void
completed(struct chp_dsi *d, struct chp_store_request *r)
{
	CHP_ASSERT_OP(r->shard, ==, d->config.shard);
	if (r->tag == TAG_BEGIN) {
		CHP_ASSERT(d->begin_out);
		d->begin_out = false;
		d->record = r->record;
		if (!is_orphan(d, d->begin_incarnation, d->incarnation))
			d->begun = r->life;
	} else if (r->tag == TAG_RECORD) {
		CHP_ASSERT(d->record_out);
		d->record_out = false;
		d->record = r->record;
		if (!is_orphan(d, d->record_incarnation, d->incarnation))
			d->recorded = r->epoch;
	} else if (r->tag >= TAG_SCAN) {
		struct scan *s = &d->scan[r->tag - TAG_SCAN];

		CHP_ASSERT(s->is_out);
		s->is_out = false;
		s->is_done = !is_orphan(d, s->session, d->session);
	} else if (r->tag >= TAG_READ) {
		struct reads *l = &d->reads[r->tag - TAG_READ];

		CHP_ASSERT(l->is_out);
		l->is_out = false;
		l->is_done = !is_orphan(d, l->session, d->session);
	} else {
		written(d, &d->write[r->tag - TAG_WRITE]);
	}
}

static void
take_store_events(struct chp_dsi *d, const struct chp_dsi_events *in)
{
	if (in->info != NULL) {
		d->state_waits |= in->info->state != d->info.state || strcmp(in->info->text, d->info.text) != 0;
		d->info = *in->info;
		chp_host_text(d->info.text, in->info->text);
	}
	if (in->record != NULL) {
		d->record = d->told = *in->record;
		d->has_record = true;
	}
	for (uint32_t i = 0; i < in->n_done; i++)
		completed(d, in->done[i]);
}

/* ------------------------------------------------------------------ a run */

static uint64_t
next_wake(const struct chp_dsi *d, bool more)
{
	uint64_t wake = chp_link_wake_ns(&d->link);

	if (more)
		return 0;
	if (d->incarnation != 0 && d->link.state == CHP_LINK_UP && !d->state_waits &&
	    (d->record.items != d->told.items || d->record.tombstones != d->told.tombstones ||
	     d->info.errors != d->errors_told))
		wake = chp_min_u64(wake, d->state_ns + STATE_NS);
	return wake;
}

/* Returns whether there is more than there are buffers. */
static bool
transmit(struct chp_dsi *d)
{
	struct chp_dsi_effects *out = d->out;

	while (out->n_used < out->n_buffers) {
		struct chp_dsi_buffer *b = &out->buffer[out->n_used];

		b->len = chp_link_transmit(&d->link, d->now_ns, 0, b->data);
		if (b->len == 0)
			return false;
		chp_peer_seal(b->data, b->len);
		out->n_used++;
	}
	return true;
}

void
chp_dsi_run(struct chp_dsi *d, uint64_t now_ns, const struct chp_dsi_events *in, struct chp_dsi_effects *out)
{
	bool more;

	CHP_ASSERT_OP(out->n_buffers, >=, 1u);
	d->now_ns = now_ns;
	d->out = out;
	out->n_used = out->n_requests = 0;
	take_store_events(d, in);
	for (uint32_t i = 0; i < in->n_packets; i++)
		receive(d, &in->packet[i]);
	if (d->hello_waits)
		answer_hello(d);
	say_everything(d); /* first: that makes room for requests */
	if (d->has_record)
		hand_everything(d);
	say_everything(d); /* what hand_everything answered by itself */
	more = transmit(d);
	out->wake_ns = next_wake(d, more);
	d->out = NULL;
}

void
chp_dsi_status(const struct chp_dsi *d, struct chp_dsi_status *to)
{
	*to = (struct chp_dsi_status){ .counters = d->counters,
				       .link = d->link.counters,
				       .record = d->record,
				       .shard_incarnation = d->incarnation,
				       .loads = d->loads_open };
	for (uint32_t i = 0; i < WRITES; i++)
		to->put_bytes += d->write[i].is_out || i == d->gather ? d->write[i].held : 0;
	memcpy(to->refused, d->refused, sizeof(to->refused));
}

bool
chp_dsi_shard_of(const void *data, uint32_t len, uint32_t *shard)
{
	const struct chp_host_hello *hello = data;
	const struct chp_peer_header *h = data;
	uint8_t kind;

	if (len < HEADER_BYTES || chp_packet_kind_of(data, len, &kind) != CHP_PACKET_OK)
		return false;
	*shard = kind == CHP_PACKET_HOST_HELLO ? hello->shard : h->shard;
	return true;
}

uint32_t
chp_dsi_refuse_stray(const struct chp_dsi_config *config, const void *data, uint32_t len, uint8_t *to)
{
	const struct chp_host_hello *h = data;
	char why[CHP_HOST_TEXT_BYTES];
	struct chp_text text = chp_text_of(why, sizeof(why));
	enum chp_host_refusal refusal;

	if (chp_host_hello_check(data, len, 0) != CHP_PACKET_OK || h->type != CHP_HOST_HELLO)
		return 0;
	refusal = judge(config, h, &text);
	return refusal == CHP_HOST_OK ? 0 : write_refused(config, config->incarnation, h, refusal, why, to);
}

void
chp_dsi_check(const struct chp_dsi *d)
{
	uint32_t loads = d->n_loads;

	chp_link_check(&d->link);
	CHP_ASSERT(d->at == NULL && d->out == NULL);
	CHP_ASSERT(!d->write[d->gather].is_out);
	for (uint32_t i = 0; i < WRITES; i++) {
		const struct write *w = &d->write[i];

		CHP_ASSERT_OP(w->n_closed, <=, w->n);
		CHP_ASSERT_OP(w->n, <=, put_items(&d->config));
		CHP_ASSERT_OP(w->held, <=, d->config.put_bytes);
		CHP_ASSERT_OP(w->used, <=, w->held);
	}
	for (uint32_t i = 0; i < CHP_DSI_READS_OPEN; i++) {
		const struct reads *r = &d->reads[i];

		CHP_ASSERT(!(r->is_out && r->is_done));
		if ((r->is_out || r->is_done) && r->session == d->session)
			loads += r->n - r->sent;
	}
	CHP_ASSERT_OP(loads, ==, d->loads_open);
	CHP_ASSERT_OP(d->loads_open, <=, d->config.loads);
	CHP_ASSERT_OP(d->n_scans, <=, CHP_HOST_SCANS);
}
