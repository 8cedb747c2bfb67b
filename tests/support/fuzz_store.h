/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fuzz_store.h - the host behind a shard that is fuzzed: the shipped end of the channel (dsi/dsi.h) in front of the
 * simulator's store. It is honest, as a host is part of its replica, so the shard hears what a host can say and
 * nothing else. When things happen is the script's choice: requests are held and completed in any order, reads fail,
 * the channel is cut, the process begins anew with or without what was under way, the store is replaced.
 */
#ifndef TESTS_FUZZ_STORE_H
#define TESTS_FUZZ_STORE_H

#include "../sim/store.h"
#include "script.h"

#include "base/assert.h"
#include "core/shard.h"
#include "dsi/dsi.h"

#include <string.h>

/* First bytes of a script that say that there is a store; two bytes follow: the script's choice, the store's. */
#define STORE_FIRST 0xf9u
#define STORE_LAST 0xfdu
/* Packets in a run of either end. */
#define STORE_PACKETS 16u
/* So often an answer may bring the next question before the script goes on. */
#define STORE_ROUNDS 6u
#define STORE_TYPES ((uint32_t)CHP_STORE_SCAN)

enum store_choice {
	STORE_DURABLE = 1u << 0, /* level `datastore` */
	STORE_FORGETS = 1u << 1, /* volatile: nothing may be evicted */
	STORE_HAS_OLD = 1u << 2, /* it holds what an earlier life has left */
	STORE_COLD = 1u << 3,    /* a cold start: what all stores hold counts */
	STORE_HOLDS = 1u << 4,   /* and the bits above: BEGIN, WRITE, RECORD, READ are held at first */
};

struct store {
	bool is_present;
	uint8_t choice;
	struct chp_dsi_config config;
	struct chp_dsi *dsi;
	struct chp_store_info info;
	bool is_open, is_news; /* the record was told; info must be */
	bool is_gone;          /* the channel has lost it */
	bool fails;            /* to read */
	bool has_begun_first;  /* the first of those in order is visible */
	uint32_t held;         /* types of requests, as bits */
	struct sim_store kept;
	struct chp_store_request *pending[CHP_DSI_REQUESTS_MAX], *done[CHP_DSI_REQUESTS_MAX];
	uint32_t n_pending, n_done;
	uint8_t inbox[STORE_PACKETS][CHP_PAYLOAD_BYTES_MIN], outbox[STORE_PACKETS][CHP_PAYLOAD_BYTES_MIN];
	struct chp_dsi_packet from_shard[STORE_PACKETS];
	struct chp_packet to_shard[STORE_PACKETS];
	uint32_t n_from, n_to;
};

/* ---- what it keeps ---- */

static inline bool
store_in_order(const struct chp_store_request *r)
{
	return r->type == CHP_STORE_BEGIN || r->type == CHP_STORE_WRITE || r->type == CHP_STORE_RECORD;
}

/* A disk may be full: then a write waits for ever. */
static inline bool
store_has_room(const struct sim_table *t, const struct chp_store_request *r)
{
	return r->type != CHP_STORE_WRITE || t->n + r->n_items <= SIM_STORED_MAX;
}

static inline void
store_apply(struct sim_table *t, const struct chp_store_request *r)
{
	switch (r->type) {
	case CHP_STORE_BEGIN:
		sim_table_begin(t, r->life);
		break;
	case CHP_STORE_RECORD:
		sim_table_record(t, r->epoch);
		break;
	default:
		for (uint32_t i = 0; i < r->n_items; i++) {
			struct sim_stored s;

			sim_stored_of(&s, &r->item[i]);
			sim_table_put(t, &s);
		}
		sim_table_batch(t, r->life, r->seq);
	}
}

/* The first of those in order is applied, and may be read, before it is durable. */
static inline void
store_begin_first(struct store *s)
{
	for (uint32_t i = 0; i < s->n_pending && !s->has_begun_first; i++) {
		if (!store_in_order(s->pending[i]))
			continue;
		if (store_has_room(&s->kept.visible, s->pending[i])) {
			store_apply(&s->kept.visible, s->pending[i]);
			s->has_begun_first = true;
		}
		return;
	}
}

/* ---- requests ---- */

static inline void
store_read(struct store *s, struct chp_store_request *r, bool is_visible)
{
	const struct sim_table *t = is_visible ? &s->kept.visible : &s->kept.durable;

	for (uint32_t i = 0; r->type == CHP_STORE_READ && i < r->n_reads; i++) {
		if (s->fails)
			r->read[i].found = CHP_STORE_FAILED;
		else
			sim_table_read(t, &r->read[i]);
	}
	if (r->type != CHP_STORE_SCAN)
		return;
	if (s->fails)
		r->scan->failed = true;
	else
		sim_table_scan(&s->kept.durable, r->scan);
}

/* One request: of those in order only the first. Returns whether it is done. */
static inline bool
store_complete(struct store *s, uint32_t i, bool is_visible)
{
	struct chp_store_request *r = s->pending[i];

	if (store_in_order(r)) {
		for (uint32_t j = 0; j < i; j++)
			if (store_in_order(s->pending[j]))
				return false;
		if (!s->has_begun_first)
			return false;
		store_apply(&s->kept.durable, r);
		r->record = sim_table_summary(&s->kept.durable);
		s->has_begun_first = false;
	} else {
		store_read(s, r, is_visible);
	}
	memmove(&s->pending[i], &s->pending[i + 1], (--s->n_pending - i) * sizeof(s->pending[0]));
	s->done[s->n_done++] = r;
	store_begin_first(s);
	return true;
}

static inline void
store_complete_all(struct store *s)
{
	for (uint32_t i = 0; i < s->n_pending;)
		if ((s->held & 1u << s->pending[i]->type) != 0 || !store_complete(s, i, true))
			i++;
}

/* ---- the process ---- */

static inline void
store_start(struct store *s)
{
	int err = 0;

	s->config.incarnation += 1000; /* it uses a few in a row */
	s->dsi = chp_dsi_create(&s->config, &err);
	CHP_ASSERT(s->dsi != NULL);
	s->is_open = s->has_begun_first = false;
	s->is_news = true;
	s->n_pending = s->n_done = s->n_from = s->n_to = 0;
}

/* What was under way is lost, or it is done all the same. */
static inline void
store_restart(struct store *s, bool is_lost)
{
	if (is_lost)
		s->kept.visible = s->kept.durable;
	else
		s->kept.durable = s->kept.visible;
	chp_dsi_destroy(s->dsi);
	store_start(s);
}

static inline void
store_run(struct store *s, uint64_t now_ns)
{
	struct chp_dsi_buffer buffer[STORE_PACKETS];
	struct chp_store_record record;
	struct chp_dsi_events in = { .packet = s->from_shard, .n_packets = s->n_from };
	struct chp_dsi_effects out = { .buffer = buffer, .n_buffers = STORE_PACKETS };

	store_complete_all(s);
	in.done = s->done;
	in.n_done = s->n_done;
	if (s->is_news)
		in.info = &s->info;
	if (!s->is_open) {
		record = sim_table_summary(&s->kept.visible);
		in.record = &record;
	}
	s->is_open = true;
	s->is_news = false;
	for (uint32_t i = 0; i < STORE_PACKETS; i++)
		buffer[i] = (struct chp_dsi_buffer){ .data = s->outbox[i] };
	chp_dsi_run(s->dsi, now_ns, &in, &out);
	s->n_done = s->n_from = s->n_to = 0;
	for (uint32_t i = 0; i < out.n_requests; i++)
		s->pending[s->n_pending++] = out.request[i];
	store_begin_first(s);
	for (uint32_t i = 0; i < out.n_used && !s->is_gone; i++)
		s->to_shard[s->n_to++] = (struct chp_packet){ .data = s->outbox[i], .len = buffer[i].len };
}

/* A packet of the shard, sealed. */
static inline void
store_listen(struct store *s, const uint8_t *data, uint32_t len)
{
	if (s->is_gone || s->n_from == STORE_PACKETS)
		return;
	memcpy(s->inbox[s->n_from], data, len);
	s->from_shard[s->n_from] = (struct chp_dsi_packet){ .data = s->inbox[s->n_from], .len = len };
	s->n_from++;
}

/* Whether something happens as soon as both ends have their turn. */
static inline bool
store_is_busy(const struct store *s)
{
	if (s->n_to > 0)
		return true;
	for (uint32_t i = 0; i < s->n_pending; i++)
		if ((s->held & 1u << s->pending[i]->type) == 0 &&
		    (!store_in_order(s->pending[i]) || s->has_begun_first))
			return true;
	return false;
}

/* ---- the script ---- */

static inline void
store_step(struct store *s, struct input *in)
{
	const uint8_t what = u8(in) % 12u, choice = u8(in);

	switch (what) {
	case 0:
	case 1:
	case 2:
		s->held ^= 1u << (1 + choice % STORE_TYPES);
		break;
	case 3 ... 6:
		if (s->n_pending > 0)
			store_complete(s, choice / 2 % s->n_pending, choice % 2 == 0);
		break;
	case 7:
		s->fails = !s->fails;
		break;
	case 8:
		s->info.state = choice % CHP_STORE_STATES;
		s->info.errors++;
		s->is_news = true;
		break;
	case 9:
		s->is_gone = !s->is_gone;
		s->n_from = s->n_to = 0;
		break;
	case 10:
		store_restart(s, choice % 2 == 0);
		break;
	default:
		if (choice >= 128) /* another one, which has nothing */
			memset(&s->kept, 0, sizeof(s->kept));
		store_restart(s, true);
	}
}

/* What an earlier life has left: a few keys of one letter. */
static inline void
store_fill(struct store *s, struct input *in, uint32_t writer_bits)
{
	struct sim_table *t = &s->kept.visible;

	t->life = 7;
	t->epoch = u8(in) % 8u;
	t->batch = 3;
	for (uint32_t n = u8(in) % 8u; n > 0; n--) {
		const uint8_t key = u8(in), flags = u8(in);
		struct sim_stored item = { .life = 1 + flags / 16 % 7,
					   .version = (uint64_t)(1 + u8(in) % 16u) << writer_bits | 1,
					   .key_len = 1,
					   .flags = flags & (CHP_HOST_RMW | CHP_HOST_TOMBSTONE) };

		item.key[0] = (uint8_t)('a' + key % 6u);
		item.value_len = (flags & CHP_HOST_TOMBSTONE) != 0 ? 0 : key / 8u;
		memset(item.value, '5', item.value_len);
		sim_table_put(t, &item);
	}
	s->kept.durable = s->kept.visible;
}

/* The shard's configuration with this store behind it; the cache is smaller than what it may hold. */
static inline void
store_open(struct store *s, struct input *in, uint32_t writer_bits, struct chp_shard_config *c)
{
	s->is_present = true;
	s->choice = u8(in);
	s->held = (uint32_t)s->choice / STORE_HOLDS << CHP_STORE_BEGIN;
	if ((s->choice & STORE_DURABLE) != 0)
		s->choice &= (uint8_t)~STORE_FORGETS; /* nobody gives that level to such a store */
	s->info = (struct chp_store_info){
		.flags = CHP_STORE_SCANS | ((s->choice & STORE_FORGETS) != 0 ? CHP_STORE_VOLATILE : 0),
		.name = "a store of the fuzzer",
	};
	c->has_host = true;
	c->is_durable = (s->choice & STORE_DURABLE) != 0;
	c->incarnation = 77;
	c->keys_max = 4;
	c->batch_items = 2;
	c->batch_bytes = 2048;
	/* With level `datastore` one goes sooner where none is under way. */
	c->batch_age_ns = c->is_durable ? UINT64_C(100000) : 0;
	c->loads_max = 2;
	c->busy_fill_percent = 80;
	s->config = (struct chp_dsi_config){
		.memory = c->memory,
		.cluster_hash = c->cluster_hash,
		.node = c->self,
		.shards = c->shards,
		.hash_seed = c->hash_seed,
		.key_bytes_max = c->key_bytes_max,
		.value_bytes_max = c->value_bytes_max,
		.payload_bytes_max = c->payload_bytes_max,
		.put_bytes = 2048,
		.loads = 2,
		.scan_bytes = 200,
		.window = c->link_window,
		.queue = STORE_PACKETS,
		.rto_ns_min = c->rto_ns_min,
		.rto_ns_max = c->rto_ns_max,
		.ack_delay_ns = c->ack_delay_ns,
	};
	if ((s->choice & STORE_HAS_OLD) != 0)
		store_fill(s, in, writer_bits);
	store_start(s);
}

/* Whether the sources of a view are no more in the next one: this replica has reconciled what it has, if it is one. */
static inline void
store_next_sources(const struct chp_shard *shard, struct input *in, struct chp_view *v)
{
	const bool may_end = (v->sources & 1) == 0 || chp_shard_copy_done(shard);

	v->sources &= v->voters;
	if (v->sources != 0 && may_end && u8(in) % 2 == 0)
		v->sources = 0;
}

static inline void
store_close(struct store *s)
{
	chp_dsi_destroy(s->dsi);
}

#endif /* TESTS_FUZZ_STORE_H */
