/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Both ends of a channel, core/host.c and dsi/dsi.c, with a network between them that loses, doubles and reorders, a
 * store that takes its time, and processes of both ends that die at any moment: what is called durable is stored,
 * nothing that was asked for goes unanswered, and in the end everything is saved.
 */
#include "base/bytes.h"
#include "base/random.h"
#include "core/host.h"
#include "dsi/dsi.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)
#define HASH 0x1234u
#define NODE 1u
#define SHARD 2u
#define SHARDS 4u
#define PAYLOAD CHP_PAYLOAD_BYTES_MIN
#define KEYS 24u
#define LOADS 8u
#define LOG 256u
#define NET 512u
#define PUT_BYTES 8192u
#define BUFFERS 4u
#define PENDING 32u

/* What the store has of a key; 0: nothing. */
struct stored {
	uint64_t life, version;
	uint8_t flags;
	uint32_t value_len;
	uint8_t value[CHP_VALUE_BYTES_MAX];
};

struct packet {
	uint64_t at_ns;
	uint32_t len;
	uint8_t data[PAYLOAD];
};

struct net {
	struct packet packet[NET];
	uint32_t n;
};

struct open_load {
	bool is_open;
	uint32_t key;
	uint64_t life, version; /* that were durable when the load was asked for */
};

struct world {
	struct chp_random random;
	struct chp_now now;
	uint32_t loss_ppm, duplicate_ppm;
	uint64_t cut_until_ns;
	bool is_durable;

	/* The shard. */
	struct chp_host h;
	struct chp_log log;
	struct chp_cache *cache;
	struct chp_out out;
	uint64_t shard_incarnation, counter, epoch;
	bool copy_done;
	uint64_t newest_of[KEYS], open_of[KEYS]; /* log positions: newest, newest that is uncommitted */
	uint64_t version_of[KEYS];               /* newest written in this life */
	struct open_load load[LOADS];
	bool scan_open;
	bool scanned[KEYS], is_expected[KEYS];
	bool scan_is_whole, scan_only_old;
	uint64_t scan_ends, loads_done;

	/* The host. */
	struct chp_dsi *d;
	uint64_t host_incarnation;
	struct chp_store_info info;
	bool tell_info;
	struct chp_store_request *pending[PENDING];
	uint32_t n_pending;
	bool is_stalled;

	/* The store: survives everything. */
	struct stored stored[KEYS];
	struct chp_store_record record;

	struct net to_host, to_shard;
	uint64_t marks, crashes;
};

static struct world *w;

static bool
chance(uint32_t percent)
{
	return chp_random_chance(&w->random, percent * 10000);
}

static uint32_t
below(uint32_t n)
{
	return (uint32_t)chp_random_below(&w->random, n);
}

/* ---- keys and values ---- */

static uint32_t
key_bytes(uint32_t key, uint8_t *to)
{
	/* Of all lengths, so that some are inline in the log and some are not. */
	const uint32_t len = 4 + key * 10;

	memset(to, 'k', len);
	to[0] = (uint8_t)('A' + key);
	return len;
}

static uint32_t
key_of(const uint8_t *bytes)
{
	const uint32_t key = bytes[0] - 'A';

	cr_assert_lt(key, KEYS);
	return key;
}

/* The value says what version it is of. */
static uint32_t
value_of(uint64_t version, uint8_t *to)
{
	const uint32_t len = 8 + (uint32_t)(version % 900);

	memset(to, (int)(version & 0xff), len);
	memcpy(to, &version, sizeof(version));
	return len;
}

static void
check_value(uint64_t version, uint8_t flags, const uint8_t *value, uint32_t len)
{
	uint8_t right[CHP_VALUE_BYTES_MAX];

	if ((flags & CHP_HOST_TOMBSTONE) != 0) {
		cr_assert_eq(len, 0);
		return;
	}
	cr_assert_eq(len, value_of(version, right));
	cr_assert_eq(memcmp(value, right, len), 0);
}

/* ---- the store ---- */

static void
apply(const struct chp_store_item *item)
{
	struct stored *s = &w->stored[key_of(item->key)];

	cr_assert(item->life >= s->life, "a life goes back");
	if (!chp_store_is_newer(item->life, item->version, s->life, s->version))
		return;
	s->life = item->life;
	s->version = item->version;
	s->flags = item->flags;
	s->value_len = item->value_len;
	if (item->value_len > 0)
		memcpy(s->value, item->value, item->value_len);
	w->record.newest = chp_max_u64(w->record.newest, item->version >> 16);
}

static void
read_key(struct chp_store_read *r)
{
	const struct stored *s = &w->stored[key_of(r->key)];

	if (chance(5)) {
		r->found = CHP_STORE_FAILED;
		return;
	}
	r->found = s->version == 0 ? CHP_STORE_ABSENT :
		   (s->flags & CHP_HOST_TOMBSTONE) != 0 ? CHP_STORE_TOMBSTONE : CHP_STORE_FOUND;
	r->version = s->version;
	r->life = s->life;
	r->flags = s->flags;
	r->value_len = s->value_len;
	memcpy(r->value, s->value, s->value_len);
}

static void
scan_keys(struct chp_store_scan *s)
{
	uint8_t key[CHP_KEY_BYTES_MAX];
	uint32_t at = s->cursor.len == 0 ? 0 : s->cursor.bytes[0];

	s->failed = chance(10);
	for (; at < KEYS && !s->failed; at++) {
		const struct stored *from = &w->stored[at];
		const struct chp_store_item item = { .key = key,
						     .key_len = (uint8_t)key_bytes(at, key),
						     .value = from->value,
						     .value_len = from->value_len,
						     .version = from->version,
						     .life = from->life,
						     .flags = from->flags };

		if (from->version != 0 && !chp_store_scan_add(s, &item))
			break;
	}
	s->cursor.len = 1;
	s->cursor.bytes[0] = (uint8_t)at;
	s->end = at == KEYS;
}

static void
execute(struct chp_store_request *r)
{
	switch (r->type) {
	case CHP_STORE_BEGIN:
		cr_assert(r->life > w->record.life, "a life begins twice");
		w->record.life = r->life;
		w->record.batch = 0;
		break;
	case CHP_STORE_WRITE:
		cr_assert_eq(r->life, w->record.life);
		cr_assert(r->seq > w->record.batch);
		for (uint32_t i = 0; i < r->n_items; i++)
			apply(&r->item[i]);
		w->record.batch = r->seq;
		break;
	case CHP_STORE_RECORD:
		w->record.epoch = chp_max_u64(w->record.epoch, r->epoch);
		break;
	case CHP_STORE_READ:
		for (uint32_t i = 0; i < r->n_reads; i++)
			read_key(&r->read[i]);
		break;
	default:
		scan_keys(r->scan);
		break;
	}
	r->record = w->record;
}

static bool
is_ordered(const struct chp_store_request *r)
{
	return r->type == CHP_STORE_BEGIN || r->type == CHP_STORE_WRITE || r->type == CHP_STORE_RECORD;
}

/* Complete a request: ordered ones in their order, the others in any. */
static struct chp_store_request *
complete_one(void)
{
	const uint32_t from = below(w->n_pending);
	uint32_t at = from;
	struct chp_store_request *r;

	for (uint32_t i = 0; i < from; i++)
		if (is_ordered(w->pending[i]) && is_ordered(w->pending[from])) {
			at = i;
			break;
		}
	r = w->pending[at];
	for (uint32_t i = at; i + 1 < w->n_pending; i++)
		w->pending[i] = w->pending[i + 1];
	w->n_pending--;
	execute(r);
	return r;
}

/* ---- the network ---- */

static void
transmit(struct net *n, const uint8_t *data, uint32_t len)
{
	uint32_t copies = chp_random_chance(&w->random, w->duplicate_ppm) ? 2 : 1;

	if (w->now.ns < w->cut_until_ns)
		return;
	for (; copies > 0; copies--) {
		struct packet *p = &n->packet[n->n];

		if (n->n == NET || chp_random_chance(&w->random, w->loss_ppm))
			continue;
		n->n++;
		p->at_ns = w->now.ns + chp_random_range(&w->random, 5 * US, chance(10) ? 3 * MS : 40 * US);
		p->len = len;
		memcpy(p->data, data, len);
	}
}

/* Take a packet that has arrived; false when none has. */
static bool
arrive(struct net *n, struct packet *to)
{
	for (uint32_t i = 0; i < n->n; i++) {
		if (n->packet[i].at_ns > w->now.ns)
			continue;
		*to = n->packet[i];
		n->packet[i] = n->packet[--n->n];
		return true;
	}
	return false;
}

/* ---- what the protocol is told ---- */

static void
take_loaded(void *p, const struct chp_now *now, const struct chp_loaded *l, uint32_t n, struct chp_out *out)
{
	(void)p;
	(void)now;
	(void)out;
	for (uint32_t i = 0; i < n; i++) {
		struct open_load *open = &w->load[l[i].token];
		const struct stored *s = &w->stored[open->key];

		cr_assert(open->is_open, "answered twice");
		open->is_open = false;
		w->loads_done++;
		if (l[i].status == CHP_LOAD_FAILED)
			continue;
		if (l[i].status == CHP_LOAD_ABSENT) {
			cr_assert_eq(open->version, 0, "it was there when it was asked for");
			continue;
		}
		/* Not older than what was durable when it was asked for, not newer than what there is. */
		cr_assert(!chp_store_is_newer(open->life, open->version, l[i].is_old ? 1 : w->h.life, l[i].version) ||
			  l[i].is_old);
		cr_assert(!l[i].is_old || open->life < w->h.life);
		cr_assert(l[i].is_old || l[i].version <= s->version);
		check_value(l[i].version, l[i].version_flags, l[i].value, l[i].value_len);
	}
}

static void
take_scanned(void *p, const struct chp_now *now, uint32_t scan, const struct chp_stored *item, struct chp_out *out)
{
	const uint32_t key = key_of(item->key);

	(void)p;
	(void)now;
	(void)out;
	cr_assert(scan == CHP_SCAN_OWN && w->scan_open);
	cr_assert_eq(item->is_old, w->scan_only_old);
	w->scanned[key] = true;
	check_value(item->version, item->version_flags, item->value, item->value_len);
}

static void
take_scan_end(void *p, const struct chp_now *now, uint32_t scan, bool end, bool failed, struct chp_out *out)
{
	(void)p;
	(void)now;
	(void)out;
	cr_assert(scan == CHP_SCAN_OWN && w->scan_open && !(end && failed));
	w->scan_open = false;
	w->scan_is_whole = w->scan_is_whole && !failed;
	if (!end)
		return;
	w->scan_ends++;
	for (uint32_t i = 0; i < KEYS && w->scan_is_whole; i++)
		cr_assert(!w->is_expected[i] || w->scanned[i], "key %u is missing", i);
	w->scan_is_whole = false;
}

static const struct chp_protocol protocol = {
	.name = "checks",
	.is_backed = true,
	.loaded = take_loaded,
	.scanned = take_scanned,
	.scan_end = take_scan_end,
};

/* ---- processes ---- */

static struct chp_link_config
link_config(void)
{
	return (struct chp_link_config){
		.kind = CHP_PACKET_HOST,
		.cluster_hash = HASH,
		.shard = SHARD,
		.self = NODE,
		.peer = NODE,
		.window = 16,
		.payload_bytes_max = PAYLOAD,
		.queue = 128,
		.rto_ns_min = MS,
		.rto_ns_max = 16 * MS,
		.ack_delay_ns = 100 * US,
		.link_down_ns = 200 * MS,
	};
}

static void
start_shard(void)
{
	const struct chp_cache_config cache = { .name = "ends",
						.keys_max = 2 * KEYS,
						.value_blocks_max = 1024,
						.headroom = 4,
						.memory = &chp_memory_libc };
	const struct chp_host_config config = { .link = link_config(),
						.shards = SHARDS,
						.key_bytes_max = CHP_KEY_BYTES_MAX,
						.value_bytes_max = CHP_VALUE_BYTES_MAX,
						.incarnation = ++w->shard_incarnation,
						.is_durable = w->is_durable,
						.batch_items = 1 + below(12),
						.batch_bytes = 200 + below(PUT_BYTES),
						.batch_age_ns = below(2000) * US,
						.loads_max = LOADS,
						.busy_fill_percent = 80 };
	int err = 0;

	w->cache = chp_cache_create(&cache, &err);
	cr_assert_not_null(w->cache);
	cr_assert_eq(chp_log_init(&w->log, LOG, 4096, false, &chp_memory_libc), 0);
	cr_assert_eq(chp_host_init(&w->h, &config, &w->log, w->cache, &chp_memory_libc), 0);
	memset(w->newest_of, 0, sizeof(w->newest_of));
	memset(w->open_of, 0, sizeof(w->open_of));
	memset(w->version_of, 0, sizeof(w->version_of));
	memset(w->load, 0, sizeof(w->load));
	w->scan_open = w->scan_is_whole = false;
	w->copy_done = chance(50);
	w->out.replies_left = 1u << 30;
}

static void
stop_shard(void)
{
	chp_host_fini(&w->h, &chp_memory_libc);
	chp_log_fini(&w->log, &chp_memory_libc);
	chp_cache_destroy(w->cache);
}

static void
start_host(void)
{
	const struct chp_dsi_config config = { .memory = &chp_memory_libc,
					       .cluster_hash = HASH,
					       .node = NODE,
					       .shard = SHARD,
					       .shards = SHARDS,
					       .key_bytes_max = CHP_KEY_BYTES_MAX,
					       .value_bytes_max = CHP_VALUE_BYTES_MAX,
					       .payload_bytes_max = PAYLOAD,
					       .incarnation = w->host_incarnation += 1000,
					       .put_bytes = PUT_BYTES,
					       .loads = 1 + below(2 * LOADS),
					       .scan_bytes = 2048,
					       .window = 16,
					       .queue = 64,
					       .rto_ns_min = MS,
					       .rto_ns_max = 16 * MS,
					       .ack_delay_ns = 100 * US };
	int err = 0;

	w->d = chp_dsi_create(&config, &err);
	cr_assert_not_null(w->d);
	w->tell_info = true;
}

/* The host's process dies: what it had given to the store may be done or not, in its order. */
static void
crash_host(void)
{
	uint32_t survives = below(w->n_pending + 1);

	for (uint32_t i = 0; i < survives; i++)
		if (is_ordered(w->pending[i]))
			execute(w->pending[i]);
	w->n_pending = 0;
	chp_dsi_destroy(w->d);
	w->crashes++;
	start_host();
}

/* The shard's process dies with all it had: what it called durable is still there, the rest need not be. */
static void
crash_shard(void)
{
	stop_shard();
	w->crashes++;
	start_shard();
}

/* ---- the shard's work ---- */

static struct chp_slot *
slot_of(const uint8_t *bytes, uint32_t len)
{
	struct chp_key key = { .bytes = bytes, .len = len, .pos = -1 };
	struct chp_slot *s;

	key.digest = chp_cache_digest(w->cache, bytes, len, false);
	s = chp_cache_find(w->cache, &key);
	return s != NULL ? s : chp_cache_insert(w->cache, &key);
}

static void
write_key(uint32_t k)
{
	const bool is_session = k >= KEYS;
	uint8_t key[CHP_KEY_BYTES_MAX], value[CHP_VALUE_BYTES_MAX];
	const uint32_t key_len = is_session ? 8 : key_bytes(k, key);
	const uint64_t version = ++w->counter << 16 | 7;
	struct chp_log_entry e = { .version = version, .key_len = (uint8_t)key_len };
	struct chp_slot *s;
	uint64_t pos;

	if (chp_log_room_records(&w->log) == 0)
		return;
	if (is_session) {
		memset(key, 's', 8);
		e.version_flags = CHP_SLOT_SESSION;
		e.slot = UINT32_MAX;
		pos = chp_log_append(&w->log, &e, key, NULL, CHP_LOG_NONE, false);
		chp_log_commit(&w->log, pos);
		return;
	}
	s = slot_of(key, key_len);
	e.slot = chp_cache_slot_index(w->cache, s);
	e.version_flags = chance(20) ? CHP_SLOT_TOMBSTONE : chance(50) ? CHP_SLOT_RMW : 0;
	e.value_len = (e.version_flags & CHP_SLOT_TOMBSTONE) != 0 ? 0 : value_of(version, value);
	pos = chp_log_append(&w->log, &e, key, value, w->open_of[k], false);
	s->log_low = (uint32_t)pos;
	w->newest_of[k] = w->open_of[k] = pos;
	w->version_of[k] = version;
}

static void
commit_key(uint32_t k)
{
	chp_log_commit(&w->log, w->open_of[k]);
	w->open_of[k] = CHP_LOG_NONE;
}

static void
load_key(uint32_t k)
{
	uint8_t bytes[CHP_KEY_BYTES_MAX];
	const struct chp_key key = { .bytes = bytes, .len = key_bytes(k, bytes) };
	uint32_t token;

	if (!chp_backing_load(&w->h.backing, &key, &token))
		return;
	cr_assert(!w->load[token].is_open, "a token is used twice");
	w->load[token] = (struct open_load){ .is_open = true,
					     .key = k,
					     .life = w->stored[k].life,
					     .version = w->stored[k].version };
}

static void
scan_part(void)
{
	const bool start = !w->scan_is_whole;
	const bool only_old = start ? chance(50) : w->scan_only_old;

	if (w->scan_open || !chp_backing_scan(&w->h.backing, CHP_SCAN_OWN, start, only_old, 1 + below(4000)))
		return;
	w->scan_open = true;
	if (!start)
		return;
	w->scan_is_whole = true;
	w->scan_only_old = only_old;
	memset(w->scanned, 0, sizeof(w->scanned));
	/* What is written while it runs may leave the old ones, nothing leaves this life's. */
	for (uint32_t i = 0; i < KEYS; i++)
		w->is_expected[i] = !only_old && w->stored[i].life == w->h.life && w->stored[i].version != 0;
}

static void
enter_view(void)
{
	chp_host_view(&w->h, ++w->epoch, false);
	if (chance(50))
		w->copy_done = true;
}

/* ---- invariants ---- */

/* [SAFETY 29, 30] Every position below the mark is stored, at its version or a newer one of this life. */
static void
check_mark(uint64_t from)
{
	for (uint64_t pos = from; pos < w->log.mark; pos++) {
		const struct chp_log_entry *e = chp_log_at(&w->log, pos);
		uint8_t key[CHP_KEY_BYTES_MAX];
		const struct stored *s;

		cr_assert(w->is_durable || (e->flags & CHP_LOG_COMMITTED) != 0);
		if ((e->version_flags & CHP_SLOT_SESSION) != 0)
			continue;
		chp_log_key(&w->log, e, key);
		s = &w->stored[key_of(key)];
		cr_assert_eq(s->life, w->h.life);
		cr_assert(s->version >= e->version, "position %lu is called durable and is not", (unsigned long)pos);
		w->marks++;
	}
}

static void
check_all(void)
{
	chp_host_verify(&w->h);
	chp_dsi_check(w->d);
	cr_assert_leq(w->h.backing.durable, w->log.mark);
	if (w->h.backing.durable > 0)
		cr_assert_geq(w->record.epoch, w->epoch);
	if (w->h.backing.has_begun)
		cr_assert_eq(w->record.life, w->h.life);
	cr_assert_neq(w->h.has_lost, true, "nothing was lost");
}

/* ---- a step ---- */

static void
run_shard(void)
{
	struct chp_host_sink sink = { .protocol = &protocol, .instance = w, .now = &w->now, .out = &w->out };
	const uint64_t mark = w->log.mark;
	uint8_t data[PAYLOAD];
	struct packet p;
	uint32_t len;

	chp_host_deliver_waiting(&w->h, &sink);
	while (arrive(&w->to_shard, &p)) {
		cr_assert(chp_host_check(p.data, p.len, HASH, NODE, SHARDS) == CHP_PACKET_OK ||
			  chp_host_hello_check(p.data, p.len, HASH) == CHP_PACKET_OK);
		chp_host_receive(&w->h, &sink, p.data, p.len);
	}
	chp_host_run(&w->h, w->now.ns, w->copy_done);
	check_mark(mark);
	chp_log_compact(&w->log, LOG);
	for (uint32_t i = 0; i < BUFFERS && (len = chp_host_transmit(&w->h, w->now.ns, data)) > 0; i++) {
		chp_peer_seal(data, len);
		transmit(&w->to_host, data, len);
	}
}

static void
run_host(void)
{
	static uint8_t memory[BUFFERS][PAYLOAD];
	static struct packet packet[NET];
	struct chp_dsi_packet packets[NET];
	struct chp_store_request *done[PENDING];
	struct chp_dsi_buffer buffer[BUFFERS];
	struct chp_dsi_events in = { .packet = packets, .done = done };
	struct chp_dsi_effects out = { .buffer = buffer, .n_buffers = BUFFERS };

	for (uint32_t i = 0; i < BUFFERS; i++)
		buffer[i].data = memory[i];
	while (in.n_packets < NET && arrive(&w->to_host, &packet[in.n_packets])) {
		packets[in.n_packets] = (struct chp_dsi_packet){ packet[in.n_packets].data,
								 packet[in.n_packets].len };
		in.n_packets++;
	}
	while (w->n_pending > 0 && !w->is_stalled && chance(50))
		done[in.n_done++] = complete_one();
	if (w->tell_info) {
		in.info = &w->info;
		in.record = &w->record;
		w->tell_info = false;
	}
	chp_dsi_run(w->d, w->now.ns, &in, &out);
	for (uint32_t i = 0; i < out.n_requests; i++) {
		cr_assert_lt(w->n_pending, PENDING);
		w->pending[w->n_pending++] = out.request[i];
	}
	for (uint32_t i = 0; i < out.n_used; i++)
		transmit(&w->to_shard, buffer[i].data, buffer[i].len);
}

static void
work(void)
{
	const uint32_t k = below(KEYS);

	for (uint32_t i = below(3); i > 0; i--)
		write_key(chance(10) ? KEYS : chance(60) ? below(3) : k);
	for (uint32_t i = below(6); i > 0; i--)
		commit_key(chance(60) ? below(3) : below(KEYS));
	if (chance(5))
		load_key(k);
	if (chance(3))
		scan_part();
	if (!w->h.in_view ? chance(2) : chp_random_chance(&w->random, 1000))
		enter_view();
	else if (!w->h.in_view && chance(2))
		chp_host_found(&w->h, w->epoch + 1);
	if (chance(1))
		w->copy_done = true;
}

static void
trouble(void)
{
	if (chp_random_chance(&w->random, 300))
		crash_host();
	if (chp_random_chance(&w->random, 150))
		crash_shard();
	if (chp_random_chance(&w->random, 150))
		w->cut_until_ns = w->now.ns + chp_random_below(&w->random, 700 * MS);
	if (chp_random_chance(&w->random, 2000))
		w->is_stalled = !w->is_stalled;
}

static void
step(void)
{
	w->now.ns += w->now.ns < w->cut_until_ns ? 5 * MS : chance(2) ? 2 * MS : 20 * US;
	run_shard();
	run_host();
	check_all();
}

static bool
is_at_rest(void)
{
	bool rest = w->h.in_view && w->h.backing.is_ready && chp_host_is_idle(&w->h) && w->log.mark == w->log.next &&
		    w->h.backing.durable == w->log.mark && !w->scan_open;

	for (uint32_t i = 0; i < LOADS; i++)
		rest = rest && !w->load[i].is_open;
	return rest;
}

/* Everybody lives and the network works: soon all is saved and answered. */
static void
come_to_rest(void)
{
	const uint64_t until_ns = w->now.ns + 20000 * MS;

	w->is_stalled = false;
	w->cut_until_ns = 0;
	w->loss_ppm = w->duplicate_ppm = 0;
	w->copy_done = true;
	if (!w->h.in_view)
		enter_view();
	for (uint32_t k = 0; k < KEYS; k++)
		commit_key(k);
	while (!is_at_rest()) {
		cr_assert_lt(w->now.ns, until_ns, "it does not come to rest");
		step();
	}
	for (uint32_t k = 0; k < KEYS; k++) {
		if (w->version_of[k] == 0)
			continue;
		cr_assert_eq(w->stored[k].life, w->h.life);
		cr_assert_eq(w->stored[k].version, w->version_of[k]);
	}
	cr_assert_eq(w->record.epoch, w->epoch);
}

static void
simulate(uint64_t seed, uint32_t steps, bool has_trouble)
{
	w = calloc(1, sizeof(*w));
	cr_assert_not_null(w);
	w->random.state = seed;
	w->now.ns = 1000 * MS;
	w->epoch = 1;
	w->is_durable = chance(30);
	w->loss_ppm = has_trouble && chance(70) ? below(200000) : 0;
	w->duplicate_ppm = has_trouble && chance(70) ? below(100000) : 0;
	w->info = (struct chp_store_info){ .flags = CHP_STORE_SCANS, .name = "a store" };
	start_shard();
	start_host();
	for (uint32_t i = 0; i < steps; i++) {
		work();
		if (has_trouble)
			trouble();
		step();
	}
	come_to_rest();
	cr_assert_gt(w->marks, 0);
	cr_assert_eq(w->h.counters.bad_message, 0);
	for (uint32_t i = 0; i < w->n_pending; i++)
		execute(w->pending[i]);
	w->n_pending = 0;
	stop_shard();
	chp_dsi_destroy(w->d);
	free(w);
}

Test(channel_ends, without_trouble)
{
	for (uint64_t seed = 1; seed <= 10; seed++)
		simulate(seed, 2000, false);
}

Test(channel_ends, with_losses_cuts_and_crashes)
{
	for (uint64_t seed = 1; seed <= 200; seed++)
		simulate(1000 + seed, 5000, true);
}
