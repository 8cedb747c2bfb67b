/* SPDX-License-Identifier: BSD-3-Clause */
/* A shard's end of the channel, with a host that says what the test wants. */
#include "base/bytes.h"
#include "core/host.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS UINT64_C(1000000)
#define US UINT64_C(1000)
#define HASH 0x1234abcdu
#define NODE 1u
#define SHARD 2u
#define PAYLOAD CHP_PAYLOAD_BYTES_MIN
#define SHARD_INCARNATION UINT64_C(500)
#define HOST_INCARNATION UINT64_C(900)
#define LOADS 8u
#define HEARD_MAX 4096u
#define SILENT (2000 * MS)

/* A message from the shard, or what the protocol was told, as the test wants to look at it. */
struct heard {
	uint8_t type;
	uint32_t op;
	uint64_t number;  /* life, seq, epoch; version of a PUT */
	uint32_t items;
	uint32_t flags;
	char key[32];
	uint32_t value_len;
};

struct told {
	uint32_t token, status, scan;
	uint64_t version;
	uint8_t value0;
	bool is_item, is_end, end, failed, is_old;
};

struct bench {
	struct chp_host h;
	struct chp_log log;
	struct chp_cache *cache;
	struct chp_now now;
	struct chp_out out;
	bool copy_done;

	/* The other end. */
	struct chp_link theirs;
	uint8_t *at, *end;
	bool is_cut;              /* nothing arrives, in both directions */
	bool is_silent;           /* nothing that the host says arrives */
	uint32_t last_hello;      /* its number */
	uint32_t n_hellos;
	struct heard heard[HEARD_MAX];
	uint32_t n_heard, seen;   /* those before `seen` were looked at */
	struct chp_host_hello welcome; /* what it answers */

	/* The protocol. */
	struct told told[HEARD_MAX];
	uint32_t n_told;
	uint32_t reloads; /* loads that the protocol asks for from inside loaded() */
};

/* ---- a protocol that writes down what it is told ---- */

static void
write_loaded(void *p, const struct chp_now *now, const struct chp_loaded *l, uint32_t n, struct chp_out *out)
{
	struct bench *b = p;

	cr_assert(now == &b->now && out == &b->out);
	cr_assert_leq(n, CHP_BATCH_MAX);
	for (uint32_t i = 0; i < n; i++) {
		b->told[b->n_told++] = (struct told){ .token = l[i].token,
						      .status = l[i].status,
						      .version = l[i].version,
						      .is_old = l[i].is_old,
						      .value0 = l[i].value_len > 0 ? l[i].value[0] : 0 };
		out->replies_left--;
	}
	for (; b->reloads > 0; b->reloads--) {
		const struct chp_key key = { .bytes = (const uint8_t *)"again", .len = 5 };
		uint32_t token;

		cr_assert(chp_backing_load(&b->h.backing, &key, &token));
		for (uint32_t i = 0; i < n; i++)
			cr_assert_neq(token, l[i].token, "a token is in use until the call returns");
	}
}

static void
write_item(void *p, const struct chp_now *now, uint32_t scan, const struct chp_stored *item, struct chp_out *out)
{
	struct bench *b = p;

	(void)now;
	(void)out;
	b->told[b->n_told++] = (struct told){ .is_item = true,
					      .scan = scan,
					      .version = item->version,
					      .is_old = item->is_old,
					      .value0 = item->value[0] };
}

static void
write_scan_end(void *p, const struct chp_now *now, uint32_t scan, bool end, bool failed, struct chp_out *out)
{
	struct bench *b = p;

	(void)now;
	(void)out;
	b->told[b->n_told++] = (struct told){ .is_end = true, .scan = scan, .end = end, .failed = failed };
}

static const struct chp_protocol notebook = {
	.name = "notebook",
	.is_backed = true,
	.loaded = write_loaded,
	.scanned = write_item,
	.scan_end = write_scan_end,
};

static struct chp_host_sink
sink_of(struct bench *b)
{
	return (struct chp_host_sink){ .protocol = &notebook, .instance = b, .now = &b->now, .out = &b->out };
}

/* ---- the bench ---- */

static struct chp_link_config
link_config(void)
{
	return (struct chp_link_config){
		.kind = CHP_PACKET_HOST,
		.cluster_hash = HASH,
		.shard = SHARD,
		.self = NODE,
		.peer = NODE,
		.window = 32,
		.payload_bytes_max = PAYLOAD,
		.queue = 128,
		.rto_ns_min = MS,
		.rto_ns_max = 16 * MS,
		.ack_delay_ns = 100 * US,
		.link_down_ns = SILENT,
	};
}

static struct chp_host_config
config_of(void)
{
	return (struct chp_host_config){
		.link = link_config(),
		.shards = 4,
		.hash_seed = 77,
		.key_bytes_max = CHP_KEY_BYTES_MAX,
		.value_bytes_max = CHP_VALUE_BYTES_MAX,
		.incarnation = SHARD_INCARNATION,
		.batch_items = 4,
		.batch_bytes = 65536,
		.batch_age_ns = 500 * US,
		.loads_max = LOADS,
		.busy_fill_percent = 80,
	};
}

static struct bench *
bench_with(const struct chp_host_config *config)
{
	static uint32_t benches;
	char name[16];
	struct chp_cache_config cache = { .name = name,
					  .keys_max = 64,
					  .value_blocks_max = 1024,
					  .headroom = 4,
					  .memory = &chp_memory_libc };
	const struct chp_link_config link = link_config();
	struct bench *b = calloc(1, sizeof(*b));
	int err = 0;

	cr_assert_not_null(b);
	snprintf(name, sizeof(name), "host%u", benches++);
	b->cache = chp_cache_create(&cache, &err);
	cr_assert_not_null(b->cache);
	cr_assert_eq(chp_log_init(&b->log, 256, 1024, false, &chp_memory_libc), 0);
	cr_assert_eq(chp_host_init(&b->h, config, &b->log, b->cache, &chp_memory_libc), 0);
	cr_assert_eq(chp_link_init(&b->theirs, &link, &chp_memory_libc), 0);
	b->now.ns = 1000 * MS;
	b->out.replies_left = 1u << 30;
	b->copy_done = true;
	b->welcome = (struct chp_host_hello){
		.prelude = { CHP_WIRE_MAGIC, CHP_WIRE_VERSION, CHP_PACKET_HOST_HELLO, HASH },
		.type = CHP_HOST_WELCOME,
		.channel_version = CHP_CHANNEL_VERSION,
		.node = NODE,
		.shard = SHARD,
		.shards = 4,
		.incarnation = HOST_INCARNATION,
		.to_incarnation = SHARD_INCARNATION,
		.key_bytes_max = CHP_KEY_BYTES_MAX,
		.value_bytes_max = CHP_VALUE_BYTES_MAX,
		.payload_bytes_max = PAYLOAD,
		.store_flags = CHP_STORE_SCANS,
		.put_bytes = 65536,
		.loads = LOADS,
		.life = 6,
		.batch = 40,
		.epoch = 3,
		.newest = 1000,
		.items = 12,
		.tombstones = 2,
		.text = "a store",
	};
	return b;
}

static struct bench *
bench(void)
{
	const struct chp_host_config config = config_of();

	return bench_with(&config);
}

static void
done(struct bench *b)
{
	chp_host_verify(&b->h);
	chp_log_check(&b->log);
	chp_host_fini(&b->h, &chp_memory_libc);
	chp_link_fini(&b->theirs, &chp_memory_libc);
	chp_log_fini(&b->log, &chp_memory_libc);
	chp_cache_destroy(b->cache);
	free(b);
}

/* ---- the other end ---- */

static void
hear(struct bench *b, const struct chp_message *m)
{
	const void *body = m;
	const struct chp_host_item *item = body;
	const struct chp_host_load *load = body;
	const struct chp_host_batch *batch = body;
	struct heard *to = &b->heard[b->n_heard++];

	cr_assert_lt(b->n_heard, HEARD_MAX);
	cr_assert(chp_host_message_check(m, true, CHP_KEY_BYTES_MAX, CHP_VALUE_BYTES_MAX), "type %u", m->type);
	*to = (struct heard){ .type = m->type, .op = m->op };
	switch (m->type) {
	case CHP_HOST_PUT:
		to->number = item->version;
		to->flags = item->item_flags;
		to->value_len = item->value_len;
		snprintf(to->key, sizeof(to->key), "%.*s", item->key_len, (const char *)chp_host_item_key(item));
		break;
	case CHP_HOST_LOAD:
		snprintf(to->key, sizeof(to->key), "%.*s", load->key_len, (const char *)chp_host_load_key(load));
		break;
	case CHP_HOST_FLUSH:
		to->number = batch->seq;
		to->items = batch->items;
		break;
	case CHP_HOST_SCAN:
		to->number = ((const struct chp_host_scan *)body)->bytes;
		to->flags = ((const struct chp_host_scan *)body)->scan_flags;
		break;
	default:
		to->number = ((const struct chp_host_life *)body)->life;
		break;
	}
}

static void
hear_packet(struct bench *b, uint8_t *packet, uint32_t len)
{
	const struct chp_host_hello *hello = (const void *)packet;
	enum chp_link_verdict v;
	struct chp_link_rx *r;

	chp_peer_seal(packet, len);
	if (hello->prelude.kind == CHP_PACKET_HOST_HELLO) {
		cr_assert_eq(chp_host_hello_check(packet, len, HASH), CHP_PACKET_OK);
		cr_assert_eq(hello->incarnation, SHARD_INCARNATION);
		cr_assert(hello->node == NODE && hello->shard == SHARD && hello->shards == 4);
		b->last_hello = hello->number;
		b->n_hellos++;
		return;
	}
	cr_assert_eq(chp_host_check(packet, len, HASH, NODE, 4), CHP_PACKET_OK);
	v = chp_link_receive(&b->theirs, packet, len, b->now.ns);
	if (v == CHP_LINK_RESET) {
		b->at = b->end = NULL;
		v = chp_link_receive(&b->theirs, packet, len, b->now.ns);
	}
	if (v != CHP_LINK_DELIVER)
		return;
	for (uint32_t at = sizeof(struct chp_peer_header); at < len; at += ((struct chp_message *)(packet + at))->len)
		hear(b, (const void *)(packet + at));
	chp_link_delivered(&b->theirs, b->now.ns);
	while ((r = chp_link_waiting(&b->theirs)) != NULL) {
		for (uint32_t at = r->offset; at < r->len; at += ((struct chp_message *)(r->bytes + at))->len)
			hear(b, (const void *)(r->bytes + at));
		chp_link_delivered(&b->theirs, b->now.ns);
	}
}

/* The host says something on the link: it goes with the next step. */
static void *
say(struct bench *b, uint8_t type, uint32_t op, uint32_t bytes)
{
	struct chp_message *m;

	if ((uint32_t)(b->end - b->at) < bytes) {
		chp_link_close(&b->theirs, b->at);
		chp_link_open(&b->theirs, bytes, 0, &b->at, &b->end);
	}
	m = (void *)b->at;
	memset(m, 0, bytes);
	*m = (struct chp_message){ .type = type, .len = (uint16_t)bytes, .op = op };
	b->at += bytes;
	return m;
}

static void
say_number(struct bench *b, uint8_t type, uint64_t number)
{
	struct chp_host_life *m = say(b, type, CHP_OP_NONE, type == CHP_HOST_DURABLE ? sizeof(struct chp_host_batch) :
										       sizeof(*m));

	m->life = number;
}

static void
say_loaded(struct bench *b, uint32_t token, uint8_t status, uint64_t version)
{
	const uint32_t value_len = status == CHP_HOST_LOAD_FOUND ? 3 : 0;
	struct chp_host_loaded *m = say(b, CHP_HOST_LOADED, token, chp_host_loaded_bytes(value_len));

	m->status = status;
	m->version = version;
	m->value_len = value_len;
	m->item_flags = status == CHP_HOST_LOAD_TOMBSTONE ? CHP_HOST_TOMBSTONE : 0;
	if (value_len > 0)
		memcpy(m + 1, "xyz", value_len);
}

static void
say_item(struct bench *b, uint32_t scan, uint64_t version)
{
	struct chp_host_item *m = say(b, CHP_HOST_ITEM, scan, chp_host_item_bytes(1, 1));

	m->version = version;
	m->key_len = 1;
	m->value_len = 1;
	m->item_flags = CHP_HOST_OLD;
	memcpy(m + 1, "kv", 2);
}

static void
say_scanned(struct bench *b, uint32_t scan, uint32_t items, uint32_t flags)
{
	struct chp_host_scanned *m = say(b, CHP_HOST_SCANNED, scan, sizeof(*m));

	m->items = items;
	m->scanned_flags = flags;
}

static void
say_state(struct bench *b, uint32_t state, const char *text)
{
	struct chp_host_state *m = say(b, CHP_HOST_STATE, CHP_OP_NONE, sizeof(*m));

	m->state = state;
	m->items = 20;
	m->tombstones = 3;
	m->errors = 1;
	chp_host_text(m->text, text);
}

static void
deliver(struct bench *b, uint8_t *packet, uint32_t len)
{
	const struct chp_host_sink sink = sink_of(b);

	chp_peer_seal(packet, len);
	cr_assert(chp_host_check(packet, len, HASH, NODE, 4) == CHP_PACKET_OK ||
		  chp_host_hello_check(packet, len, HASH) == CHP_PACKET_OK);
	chp_host_receive(&b->h, &sink, packet, len);
}

/* A run of the shard's end, and everything that goes back and forth at once. */
static void
step(struct bench *b)
{
	const struct chp_host_sink sink = sink_of(b);
	uint8_t packet[PAYLOAD];
	uint32_t len, sent;

	do {
		sent = 0;
		chp_host_deliver_waiting(&b->h, &sink);
		chp_host_run(&b->h, b->now.ns, b->copy_done);
		while ((len = chp_host_transmit(&b->h, b->now.ns, packet)) > 0) {
			if (!b->is_cut)
				hear_packet(b, packet, len);
			sent++;
		}
		chp_link_close(&b->theirs, b->at);
		b->at = b->end = NULL;
		while ((len = chp_link_transmit(&b->theirs, b->now.ns, 0, packet)) > 0) {
			if (!b->is_cut && !b->is_silent)
				deliver(b, packet, len);
			sent++;
		}
		chp_host_verify(&b->h);
	} while (sent > 0);
}

/* Time passes in steps that leave nothing out. */
static void
pass(struct bench *b, uint64_t ns)
{
	const uint64_t until = b->now.ns + ns;

	while (b->now.ns < until) {
		b->now.ns = chp_min_u64(until, b->now.ns + 100 * US);
		step(b);
	}
}

static void
answer_hello(struct bench *b, const struct chp_host_hello *m, uint32_t number)
{
	struct chp_host_hello copy = *m;

	copy.number = number;
	deliver(b, (uint8_t *)&copy, sizeof(copy));
}

/* The host's process, a new one if the incarnation is, answers the last HELLO. */
static void
welcome(struct bench *b)
{
	if (b->theirs.peer_incarnation == 0 || b->theirs.self_incarnation != b->welcome.incarnation)
		chp_link_peer(&b->theirs, b->welcome.incarnation, SHARD_INCARNATION, b->now.ns);
	b->at = b->end = NULL;
	answer_hello(b, &b->welcome, b->last_hello);
}

/* The next message of a type that has not been looked at; NULL if none. All before it count as looked at. */
static const struct heard *
next(struct bench *b, uint8_t type)
{
	while (b->seen < b->n_heard)
		if (b->heard[b->seen++].type == type)
			return &b->heard[b->seen - 1];
	return NULL;
}

static uint32_t
count(const struct bench *b, uint8_t type)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->n_heard; i++)
		n += b->heard[i].type == type;
	return n;
}

static struct chp_host_status
status(const struct bench *b)
{
	struct chp_host_status s;

	chp_host_status(&b->h, b->now.ns, &s);
	return s;
}

/* Welcomed, in view 9, the life begun: 9, as the store's last one is below. */
static void
make_ready(struct bench *b)
{
	step(b);
	welcome(b);
	chp_host_view(&b->h, 9, false);
	step(b);
	say_number(b, CHP_HOST_BEGUN, 9);
	step(b);
	cr_assert_eq(status(b).state, CHP_HOST_READY);
	b->seen = b->n_heard;
}

static struct bench *
ready(void)
{
	struct bench *b = bench();

	make_ready(b);
	return b;
}

/* ---- the log ---- */

static struct chp_slot *
slot_of(struct bench *b, const char *name)
{
	struct chp_key key = { .bytes = (const uint8_t *)name, .len = (uint32_t)strlen(name), .pos = -1 };
	struct chp_slot *s;

	key.digest = chp_cache_digest(b->cache, key.bytes, key.len, false);
	s = chp_cache_find(b->cache, &key);
	return s != NULL ? s : chp_cache_insert(b->cache, &key);
}

static uint64_t
append_entry(struct bench *b, const char *name, uint8_t flags, uint32_t value_len)
{
	static const uint8_t value[CHP_VALUE_BYTES_MAX];
	struct chp_slot *s = slot_of(b, name);
	struct chp_log_entry e = { .version = b->log.next << 16 | 1,
				   .slot = chp_cache_slot_index(b->cache, s),
				   .key_len = (uint8_t)strlen(name),
				   .value_len = value_len,
				   .version_flags = flags };
	uint64_t pos = chp_log_append(&b->log, &e, (const uint8_t *)name, value, CHP_LOG_NONE, false);

	s->log_low = (uint32_t)pos;
	return pos;
}

static uint64_t
write_key(struct bench *b, const char *name)
{
	uint64_t pos = append_entry(b, name, 0, 5);

	chp_log_commit(&b->log, pos);
	return pos;
}

static void
durable(struct bench *b, uint64_t seq)
{
	say_number(b, CHP_HOST_DURABLE, seq);
	step(b);
}

#define ASSERT_PUT(b, name, pos)                                                                  \
	do {                                                                                      \
		const struct heard *m_ = next(b, CHP_HOST_PUT);                                   \
                                                                                                  \
		cr_assert_not_null(m_, "no PUT");                                                 \
		cr_assert_str_eq(m_->key, name);                                                  \
		cr_assert_eq(m_->number, (uint64_t)(pos) << 16 | 1, "%s: another version", name); \
	} while (0)

#define ASSERT_FLUSH(b, seq, n)                                          \
	do {                                                             \
		const struct heard *m_ = next(b, CHP_HOST_FLUSH);        \
                                                                         \
		cr_assert_not_null(m_, "no FLUSH");                      \
		cr_assert_eq(m_->number, seq, "%lu", (unsigned long)m_->number); \
		cr_assert_eq(m_->items, n, "%u items", m_->items);       \
	} while (0)

/* ---- the channel ---- */

Test(host, says_hello_until_it_is_welcomed)
{
	static const uint64_t at_ms[] = { 0, 20, 60, 140, 300, 620, 1260, 2260, 3260, 4260 };
	struct bench *b = bench();
	const uint64_t start = b->now.ns;

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(at_ms); i++) {
		b->now.ns = start + at_ms[i] * MS;
		if (i > 0) {
			b->now.ns -= 1;
			step(b);
			cr_assert_eq(b->n_hellos, i, "%u: too early", i);
			b->now.ns += 1;
			cr_assert_eq(chp_host_wake_ns(&b->h), b->now.ns);
		}
		step(b);
		cr_assert_eq(b->n_hellos, i + 1);
		cr_assert_eq(b->last_hello, i + 1);
		cr_assert_eq(status(b).state, CHP_HOST_AWAY);
	}
	cr_assert_eq(status(b).away_ns, 4260 * MS);
	cr_assert(!status(b).has_record);
	welcome(b);
	step(b);
	cr_assert_eq(status(b).state, CHP_HOST_WAITING);
	cr_assert_eq(status(b).away_ns, 0);
	cr_assert(status(b).has_record && status(b).epoch == 3 && status(b).life == 6 && status(b).newest == 1000);
	done(b);
}

Test(host, keeps_saying_hello_to_learn_of_a_new_process)
{
	struct bench *b = ready();
	const uint32_t n = b->n_hellos;

	pass(b, 1000 * MS);
	cr_assert_eq(b->n_hellos, n + 4);
	/* The same process answers: nothing changes. */
	b->welcome.items = 50;
	welcome(b);
	step(b);
	cr_assert_eq(b->h.counters.welcomes, 1);
	cr_assert_eq(status(b).state, CHP_HOST_READY);
	cr_assert_eq(status(b).items, 50);
	done(b);
}

Test(host, answers_that_are_late_or_for_others_are_stale)
{
	struct bench *b = bench();
	struct chp_host_hello m;

	step(b);
	pass(b, 30 * MS);
	cr_assert_eq(b->last_hello, 2);
	m = b->welcome;
	m.to_incarnation++;
	answer_hello(b, &m, 2);
	m = b->welcome;
	m.node++;
	answer_hello(b, &m, 2);
	answer_hello(b, &b->welcome, 3);
	cr_assert_eq(b->h.counters.stale, 3);
	cr_assert_eq(b->h.counters.welcomes, 0);
	answer_hello(b, &b->welcome, 2);
	cr_assert_eq(b->h.counters.welcomes, 1);
	/* A duplicate, and the answer of a process that is gone, to an earlier HELLO. */
	answer_hello(b, &b->welcome, 2);
	m = b->welcome;
	m.incarnation--;
	answer_hello(b, &m, 1);
	cr_assert_eq(b->h.counters.stale, 5);
	cr_assert_eq(b->h.counters.welcomes, 1);
	cr_assert_eq(b->h.link.peer_incarnation, HOST_INCARNATION);
	done(b);
}

static struct chp_host_hello
refused(const struct bench *b, uint8_t refusal, const char *text)
{
	struct chp_host_hello m = { .prelude = b->welcome.prelude,
				    .type = CHP_HOST_REFUSED,
				    .channel_version = CHP_CHANNEL_VERSION,
				    .node = NODE,
				    .refusal = refusal,
				    .shard = SHARD,
				    .shards = 4,
				    .incarnation = HOST_INCARNATION,
				    .to_incarnation = SHARD_INCARNATION };

	chp_host_text(m.text, text);
	return m;
}

Test(host, a_refusal_is_shown_and_asked_again)
{
	struct bench *b = bench();
	struct chp_host_hello m = refused(b, CHP_HOST_NO_STORE, "disk full");

	step(b);
	answer_hello(b, &m, b->last_hello);
	step(b);
	cr_assert_eq(status(b).state, CHP_HOST_REFUSES);
	cr_assert_str_eq(status(b).text, "no store: disk full");
	cr_assert_eq(b->h.counters.refusals, 1);
	pass(b, 30 * MS);
	cr_assert_eq(b->last_hello, 2);
	/* Another version of the channel is told, too. */
	m = refused(b, CHP_HOST_BAD_VERSION, "this is version 2");
	m.channel_version = CHP_CHANNEL_VERSION + 1;
	answer_hello(b, &m, b->last_hello);
	cr_assert_str_eq(status(b).text, "another version of the channel: this is version 2");
	pass(b, 60 * MS);
	welcome(b);
	step(b);
	cr_assert_eq(status(b).state, CHP_HOST_WAITING);
	/* Who is welcome does not listen to refusals of others. */
	pass(b, 250 * MS);
	answer_hello(b, &m, b->last_hello);
	cr_assert_eq(status(b).state, CHP_HOST_WAITING);
	done(b);
}

Test(host, a_host_that_refused_and_fell_silent_is_away)
{
	struct bench *b = bench();
	const struct chp_host_hello m = refused(b, CHP_HOST_NO_STORE, "disk full");

	step(b);
	answer_hello(b, &m, b->last_hello);
	pass(b, 2500 * MS);
	cr_assert_eq(status(b).state, CHP_HOST_REFUSES);
	pass(b, 600 * MS);
	cr_assert_eq(status(b).state, CHP_HOST_AWAY);
	done(b);
}

/* Who allows little silence hears more often: an idle host is not a dead one. */
Test(host, an_idle_host_is_not_given_up_however_little_silence_is_allowed)
{
	static const uint64_t down_ns[] = { 2 * MS, 20 * MS, 249 * MS, 251 * MS, 1000 * MS };

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(down_ns); i++) {
		struct chp_host_config config = config_of();
		struct bench *b;
		uint64_t hellos;

		config.link.link_down_ns = down_ns[i];
		b = bench_with(&config);
		make_ready(b);
		hellos = b->h.counters.hellos;
		for (uint32_t k = 0; k < 10000; k++) {
			uint32_t before = b->n_hellos;

			pass(b, 100 * US);
			if (b->n_hellos != before)
				welcome(b);
		}
		cr_assert_eq(b->h.counters.silences, 0, "%lu ms", down_ns[i] / MS);
		cr_assert_eq(status(b).state, CHP_HOST_READY);
		/* One may get lost. */
		hellos = b->h.counters.hellos - hellos;
		cr_assert_geq(hellos, 2 * 1000 * MS / down_ns[i]);
		cr_assert_leq(hellos, chp_max_u64(4, 1000 * MS / (down_ns[i] / 4)));
		/* And a silent one is still away in time. */
		b->is_cut = true;
		pass(b, down_ns[i] + MS);
		cr_assert_eq(status(b).state, CHP_HOST_AWAY, "%lu ms", down_ns[i] / MS);
		cr_assert_eq(b->h.counters.silences, 1);
		done(b);
	}
}

Test(host, a_silent_host_is_away)
{
	struct bench *b = ready();

	b->is_cut = true;
	pass(b, 1999 * MS);
	cr_assert_eq(status(b).state, CHP_HOST_READY);
	pass(b, 2 * MS);
	cr_assert_eq(status(b).state, CHP_HOST_AWAY);
	cr_assert(!b->h.backing.is_ready && b->h.backing.has_begun);
	cr_assert_eq(b->h.counters.silences, 1);
	pass(b, 3000 * MS);
	cr_assert_eq(status(b).away_ns, 3001 * MS);
	/* An answer from before the silence says nothing. */
	b->is_cut = false;
	answer_hello(b, &b->welcome, b->last_hello - 8);
	cr_assert_eq(status(b).state, CHP_HOST_AWAY);
	pass(b, 1000 * MS);
	b->welcome.life = 9;
	b->welcome.batch = 0;
	welcome(b);
	step(b);
	cr_assert_eq(status(b).state, CHP_HOST_READY, "the same process, the same life");
	cr_assert_eq(b->theirs.session, 2, "the link did not begin twice");
	cr_assert_eq(count(b, CHP_HOST_BEGIN), 1);
	done(b);
}

/* ---- lives ---- */

Test(host, a_life_begins_with_the_first_view)
{
	struct bench *b = bench();

	step(b);
	welcome(b);
	step(b);
	pass(b, 10 * MS);
	cr_assert_null(next(b, CHP_HOST_BEGIN));
	/* The store's last life is 6: a life of a view with a lower epoch is 7. */
	chp_host_view(&b->h, 2, false);
	step(b);
	cr_assert_eq(next(b, CHP_HOST_BEGIN)->number, 7);
	cr_assert_eq(status(b).state, CHP_HOST_WAITING);
	cr_assert(!b->h.backing.is_ready && !b->h.backing.has_begun);
	say_number(b, CHP_HOST_BEGUN, 8);
	say_number(b, CHP_HOST_BEGUN, 6);
	step(b);
	cr_assert_eq(b->h.counters.stale, 2);
	cr_assert_eq(status(b).state, CHP_HOST_WAITING);
	say_number(b, CHP_HOST_BEGUN, 7);
	step(b);
	cr_assert_eq(status(b).state, CHP_HOST_READY);
	cr_assert(b->h.backing.is_ready && b->h.backing.has_begun && b->h.backing.may_evict);
	cr_assert_eq(b->h.backing.newest, 1000);
	cr_assert_eq(b->h.backing.recorded, 3);
	cr_assert_eq(status(b).life, 7);
	/* Later views belong to the same life. */
	chp_host_view(&b->h, 30, false);
	step(b);
	cr_assert_null(next(b, CHP_HOST_BEGIN));
	cr_assert_eq(status(b).state, CHP_HOST_READY);
	done(b);
}

Test(host, a_founding_is_durable_before_the_view)
{
	struct bench *b = bench();

	step(b);
	welcome(b);
	chp_host_found(&b->h, 1u << 20 | 1);
	step(b);
	cr_assert_eq(next(b, CHP_HOST_BEGIN)->number, 1u << 20 | 1);
	cr_assert_eq(status(b).life, 6);
	say_number(b, CHP_HOST_BEGUN, 1u << 20 | 1);
	step(b);
	cr_assert_eq(status(b).life, 1u << 20 | 1);
	cr_assert_eq(status(b).state, CHP_HOST_WAITING);
	chp_host_found(&b->h, 1u << 20 | 1);
	step(b);
	cr_assert_null(next(b, CHP_HOST_BEGIN), "it has begun already");
	/* It came to nothing. */
	chp_host_found(&b->h, 2u << 20 | 1);
	step(b);
	cr_assert_eq(next(b, CHP_HOST_BEGIN)->number, 2u << 20 | 1);
	say_number(b, CHP_HOST_BEGUN, 2u << 20 | 1);
	chp_host_view(&b->h, 2u << 20 | 1, false);
	step(b);
	cr_assert_null(next(b, CHP_HOST_BEGIN));
	cr_assert_eq(status(b).state, CHP_HOST_READY);
	chp_host_found(&b->h, 9u << 20);
	step(b);
	cr_assert_null(next(b, CHP_HOST_BEGIN), "there is a view");
	done(b);
}

/* What is stored in a life counts as of the cluster's generation, not as of a first view that never came to be. */
Test(host, s34_a_life_is_of_the_generation_of_its_view)
{
	struct bench *b = bench();
	uint64_t life;

	b->welcome.life = 3u << 20 | 1;
	step(b);
	welcome(b);
	chp_host_view(&b->h, 1u << 20 | 7, false);
	step(b);
	life = next(b, CHP_HOST_BEGIN)->number;
	cr_assert_gt(life, 3u << 20 | 1);
	cr_assert_eq(chp_host_generation(life), 1);
	say_number(b, CHP_HOST_BEGUN, life);
	step(b);
	cr_assert_eq(status(b).state, CHP_HOST_READY);
	done(b);
}

/* One for each start of the process, however many there are. */
Test(host, s34_lives_of_an_earlier_generation_rise_for_ever)
{
	uint64_t life = 3u << 20 | 1;

	for (uint32_t i = 0; i < 600; i++) {
		struct bench *b = bench();
		uint64_t before = life;

		b->welcome.life = before;
		step(b);
		welcome(b);
		chp_host_view(&b->h, 1u << 20 | 7, false);
		step(b);
		life = next(b, CHP_HOST_BEGIN)->number;
		cr_assert_gt(life, before);
		cr_assert_eq(chp_host_generation(life), 1);
		done(b);
	}
}

Test(host, nothing_is_sent_while_another_life_is_about_to_begin)
{
	struct bench *b = bench();

	step(b);
	welcome(b);
	chp_host_found(&b->h, 10);
	step(b);
	say_number(b, CHP_HOST_BEGUN, 10);
	step(b);
	chp_host_found(&b->h, 20);
	step(b);
	/* The first founding came to something after all. */
	chp_host_view(&b->h, 10, false);
	for (uint32_t i = 0; i < 4; i++)
		write_key(b, "a");
	pass(b, MS);
	cr_assert_eq(status(b).state, CHP_HOST_WAITING);
	cr_assert_null(next(b, CHP_HOST_PUT));
	chp_link_reset(&b->theirs, b->now.ns);
	pass(b, MS);
	cr_assert_null(next(b, CHP_HOST_PUT));
	cr_assert_eq(b->heard[b->n_heard - 1].number, 20, "it is asked for again");
	say_number(b, CHP_HOST_BEGUN, 20);
	pass(b, MS);
	cr_assert_eq(status(b).state, CHP_HOST_READY);
	cr_assert_eq(status(b).life, 20);
	ASSERT_FLUSH(b, 1, 1);
	done(b);
}

Test(host, begin_is_said_again_after_a_reset_and_begun_may_have_been_lost)
{
	struct bench *b = bench();

	step(b);
	welcome(b);
	chp_host_view(&b->h, 9, false);
	step(b);
	cr_assert_eq(next(b, CHP_HOST_BEGIN)->number, 9);
	chp_link_reset(&b->theirs, b->now.ns);
	step(b);
	cr_assert_eq(next(b, CHP_HOST_BEGIN)->number, 9);
	/* The store has done it, its process died before it could say so. */
	pass(b, 300 * MS);
	b->welcome.incarnation++;
	b->welcome.life = 9;
	b->welcome.batch = 0;
	welcome(b);
	step(b);
	cr_assert_null(next(b, CHP_HOST_BEGIN));
	cr_assert_eq(status(b).state, CHP_HOST_READY);
	done(b);
}

/* ---- batches ---- */

Test(host, a_batch_is_closed_by_count)
{
	struct bench *b = ready();

	for (uint32_t i = 0; i < 3; i++)
		write_key(b, (const char *[]){ "a", "b", "c" }[i]);
	step(b);
	cr_assert_null(next(b, CHP_HOST_PUT));
	write_key(b, "d");
	write_key(b, "e");
	step(b);
	ASSERT_PUT(b, "a", 1);
	ASSERT_PUT(b, "b", 2);
	ASSERT_PUT(b, "c", 3);
	ASSERT_PUT(b, "d", 4);
	ASSERT_FLUSH(b, 1, 4);
	cr_assert_eq(b->seen, b->n_heard, "the fifth waits");
	cr_assert_eq(b->h.counters.batches_by_count, 1);
	cr_assert_eq(b->log.mark, 1);
	durable(b, 1);
	cr_assert_eq(b->log.mark, 5);
	cr_assert_eq(b->h.counters.durable, 1);
	done(b);
}

Test(host, a_batch_is_closed_by_age)
{
	struct bench *b = ready();
	const uint64_t start = b->now.ns;

	write_key(b, "a");
	step(b);
	cr_assert_eq(chp_host_wake_ns(&b->h), start + 500 * US);
	pass(b, 300 * US);
	write_key(b, "b");
	pass(b, 100 * US);
	cr_assert_null(next(b, CHP_HOST_PUT));
	cr_assert_eq(status(b).oldest_ns, 400 * US);
	pass(b, 100 * US);
	ASSERT_PUT(b, "a", 1);
	ASSERT_PUT(b, "b", 2);
	ASSERT_FLUSH(b, 1, 2);
	cr_assert_eq(b->h.counters.batches_by_age, 1);
	cr_assert_eq(status(b).backlog, 2);
	pass(b, 900 * US);
	cr_assert_eq(status(b).oldest_ns, 1400 * US, "it counts until it is durable");
	durable(b, 1);
	cr_assert_eq(status(b).oldest_ns, 0);
	cr_assert_eq(status(b).backlog, 0);
	cr_assert(chp_host_wake_ns(&b->h) > b->now.ns);
	done(b);
}

Test(host, a_batch_is_closed_by_bytes)
{
	struct chp_host_config config = config_of();
	struct bench *b;

	config.batch_items = 100;
	config.batch_bytes = 2 * chp_host_item_bytes(1, 100);
	b = bench_with(&config);
	make_ready(b);
	for (uint32_t i = 0; i < 3; i++)
		chp_log_commit(&b->log, append_entry(b, (const char *[]){ "a", "b", "c" }[i], 0, 100));
	step(b);
	ASSERT_PUT(b, "a", 1);
	ASSERT_PUT(b, "b", 2);
	ASSERT_FLUSH(b, 1, 2);
	cr_assert_eq(b->seen, b->n_heard);
	cr_assert_eq(b->h.counters.batches_by_bytes, 1);
	/* One that is larger than a batch may be goes alone. */
	chp_log_commit(&b->log, append_entry(b, "d", 0, 1024));
	step(b);
	ASSERT_PUT(b, "c", 3);
	ASSERT_FLUSH(b, 2, 1);
	write_key(b, "e");
	step(b);
	ASSERT_PUT(b, "d", 4);
	ASSERT_FLUSH(b, 3, 1);
	done(b);
}

Test(host, only_a_committed_prefix_goes)
{
	struct bench *b = ready();
	uint64_t open;

	write_key(b, "a");
	open = append_entry(b, "b", 0, 5);
	for (uint32_t i = 0; i < 5; i++)
		write_key(b, (const char *[]){ "c", "d", "e", "f", "g" }[i]);
	pass(b, 5 * MS);
	ASSERT_PUT(b, "a", 1);
	ASSERT_FLUSH(b, 1, 1);
	cr_assert_null(next(b, CHP_HOST_PUT), "the second is not committed");
	durable(b, 1);
	cr_assert_eq(b->log.mark, open);
	chp_log_commit(&b->log, open);
	step(b);
	ASSERT_PUT(b, "b", 2);
	done(b);
}

Test(host, flags_go_along_sessions_and_entries_without_key_do_not)
{
	struct bench *b = ready();
	struct chp_log_entry nothing = { .slot = UINT32_MAX };
	const struct heard *m;

	chp_log_commit(&b->log, append_entry(b, "session!", CHP_SLOT_SESSION, 0));
	chp_log_commit(&b->log, append_entry(b, "a", CHP_SLOT_RMW | CHP_SLOT_BASE_UNKNOWN, 5));
	chp_log_commit(&b->log, append_entry(b, "b", CHP_SLOT_TOMBSTONE | CHP_SLOT_FORGET, 0));
	chp_log_commit(&b->log, chp_log_append(&b->log, &nothing, NULL, NULL, CHP_LOG_NONE, false));
	step(b);
	m = next(b, CHP_HOST_PUT);
	cr_assert_str_eq(m->key, "a");
	cr_assert_eq(m->flags, CHP_HOST_RMW);
	m = next(b, CHP_HOST_PUT);
	cr_assert_str_eq(m->key, "b");
	cr_assert_eq(m->flags, CHP_HOST_TOMBSTONE);
	ASSERT_FLUSH(b, 1, 2);
	durable(b, 1);
	cr_assert_eq(b->log.mark, 5);
	/* A batch of nothing is no batch: it is durable when what is before it is. */
	write_key(b, "c");
	pass(b, MS);
	for (uint32_t i = 0; i < 4; i++)
		chp_log_commit(&b->log, append_entry(b, "session!", CHP_SLOT_SESSION, 0));
	pass(b, MS);
	ASSERT_FLUSH(b, 2, 1);
	cr_assert_null(next(b, CHP_HOST_FLUSH));
	cr_assert_eq(b->log.mark, 5);
	durable(b, 2);
	cr_assert_eq(b->log.mark, 10);
	chp_log_commit(&b->log, append_entry(b, "session!", CHP_SLOT_SESSION, 0));
	pass(b, MS);
	cr_assert_eq(b->log.mark, 11);
	done(b);
}

Test(host, the_newest_of_a_key_replaces_the_others_of_its_batch)
{
	struct bench *b = ready();

	write_key(b, "a");
	write_key(b, "b");
	write_key(b, "a");
	write_key(b, "a");
	write_key(b, "b"); /* in the next batch */
	pass(b, MS);
	ASSERT_PUT(b, "b", 2);
	ASSERT_PUT(b, "a", 4);
	ASSERT_FLUSH(b, 1, 2);
	ASSERT_PUT(b, "b", 5);
	ASSERT_FLUSH(b, 2, 1);
	cr_assert_eq(b->h.counters.coalesced, 2);
	cr_assert_eq(b->h.counters.puts, 3);
	/* [SAFETY 30] The mark passes what was replaced when what replaced it is durable. */
	cr_assert_eq(b->log.mark, 1);
	durable(b, 1);
	cr_assert_eq(b->log.mark, 5);
	durable(b, 2);
	cr_assert_eq(b->log.mark, 6);
	done(b);
}

Test(host, keys_that_share_a_note_are_both_sent)
{
	struct bench *b = ready();
	const uint32_t slot = chp_cache_slot_index(b->cache, slot_of(b, "a"));
	char name[2] = "b";

	/* The notes of a batch are two for each of its versions. */
	while ((chp_cache_slot_index(b->cache, slot_of(b, name)) - slot) % (2 * b->h.config.batch_items) != 0)
		name[0]++;
	cr_assert_eq(1u << b->h.note_bits, 2 * b->h.config.batch_items);
	write_key(b, "a");
	write_key(b, name);
	write_key(b, "a");
	write_key(b, name);
	pass(b, MS);
	ASSERT_PUT(b, "a", 1);
	ASSERT_PUT(b, "a", 3);
	ASSERT_PUT(b, name, 4);
	ASSERT_FLUSH(b, 1, 3);
	cr_assert_eq(b->h.counters.coalesced, 1);
	done(b);
}

Test(host, a_note_of_what_was_sent_before_replaces_nothing)
{
	struct bench *b = ready();

	for (uint32_t i = 0; i < 8; i++)
		write_key(b, "a");
	pass(b, MS);
	ASSERT_PUT(b, "a", 4);
	ASSERT_FLUSH(b, 1, 1);
	ASSERT_PUT(b, "a", 8);
	ASSERT_FLUSH(b, 2, 1);
	cr_assert_eq(b->h.counters.coalesced, 6);
	/* All of it goes again; the notes are of what went last. */
	b->seen = b->n_heard;
	chp_link_reset(&b->theirs, b->now.ns);
	b->at = b->end = NULL;
	step(b);
	ASSERT_PUT(b, "a", 4);
	ASSERT_FLUSH(b, 3, 1);
	ASSERT_PUT(b, "a", 8);
	ASSERT_FLUSH(b, 4, 1);
	done(b);
}

Test(host, an_entry_without_slot_is_never_replaced)
{
	struct bench *b = ready();
	struct chp_log_entry e = { .version = 1 << 16 | 1, .slot = UINT32_MAX, .key_len = 1, .value_len = 1 };

	chp_log_commit(&b->log, chp_log_append(&b->log, &e, (const uint8_t *)"a", (const uint8_t *)"v", 0, false));
	write_key(b, "a");
	pass(b, MS);
	ASSERT_PUT(b, "a", 1);
	ASSERT_PUT(b, "a", 2);
	ASSERT_FLUSH(b, 1, 2);
	done(b);
}

Test(host, a_slot_that_another_key_has_now_replaces_nothing)
{
	struct bench *b = ready();
	uint64_t pos = append_entry(b, "a", 0, 5);
	struct chp_slot *s = slot_of(b, "a");

	chp_log_commit(&b->log, pos);
	pos = write_key(b, "b");
	s->log_low = (uint32_t)pos;
	pass(b, MS);
	ASSERT_PUT(b, "a", 1);
	ASSERT_PUT(b, "b", 2);
	done(b);
}

Test(host, durable_is_cumulative_and_never_beyond_what_was_sent)
{
	struct bench *b = ready();
	const uint64_t stale = b->h.counters.stale;

	for (uint32_t i = 0; i < 12; i++)
		write_key(b, (const char *[]){ "a", "b", "c", "d" }[i % 4]);
	step(b);
	cr_assert_eq(count(b, CHP_HOST_FLUSH), 3);
	durable(b, 4);
	cr_assert_eq(b->log.mark, 1, "nobody sent a fourth batch");
	cr_assert_eq(b->h.counters.stale, stale + 1);
	durable(b, 2);
	cr_assert_eq(b->log.mark, 9);
	durable(b, 2);
	durable(b, 1);
	cr_assert_eq(b->log.mark, 9);
	cr_assert_eq(b->h.counters.stale, stale + 3);
	durable(b, 3);
	cr_assert_eq(b->log.mark, 13);
	cr_assert(!chp_host_is_idle(&b->h), "RECORD is on its way");
	done(b);
}

Test(host, no_more_is_on_its_way_than_the_host_takes)
{
	struct chp_host_config config = config_of();
	const uint32_t bytes = chp_host_item_bytes(1, 1000);
	struct bench *b;

	config.batch_items = 100;
	b = bench_with(&config);
	b->welcome.put_bytes = 3 * bytes + 8;
	make_ready(b);
	for (uint32_t i = 0; i < 8; i++)
		chp_log_commit(&b->log, append_entry(b, (const char *[]){ "a", "b", "c", "d", "e", "f", "g", "h" }[i],
						     0, 1000));
	step(b);
	cr_assert_eq(count(b, CHP_HOST_PUT), 3);
	ASSERT_FLUSH(b, 1, 3);
	pass(b, 5 * MS);
	cr_assert_eq(count(b, CHP_HOST_PUT), 3);
	durable(b, 1);
	cr_assert_eq(count(b, CHP_HOST_PUT), 6);
	durable(b, 2);
	pass(b, MS);
	cr_assert_eq(count(b, CHP_HOST_PUT), 8);
	durable(b, 3);
	cr_assert_eq(b->log.mark, 9);
	done(b);
}

Test(host, a_batch_longer_than_the_link_takes_goes_in_parts)
{
	struct chp_host_config config = config_of();
	struct bench *b;
	uint64_t first;

	config.batch_items = 200;
	config.batch_bytes = 1u << 20;
	b = bench_with(&config);
	b->welcome.put_bytes = 1u << 20;
	make_ready(b);
	for (uint32_t i = 0; i < 60; i++) {
		char name[8];

		snprintf(name, sizeof(name), "k%u", i);
		chp_log_commit(&b->log, append_entry(b, name, 0, 1024));
	}
	b->is_cut = true;
	pass(b, MS);
	first = b->h.counters.puts;
	cr_assert(first > 0 && first <= 16, "half a window: %lu", (unsigned long)first);
	cr_assert_eq(b->h.counters.batches, 0);
	b->is_cut = false;
	pass(b, 50 * MS);
	cr_assert_eq(count(b, CHP_HOST_PUT), 60);
	ASSERT_FLUSH(b, 1, 60);
	done(b);
}

Test(host, batches_on_their_way_are_bounded)
{
	struct bench *b = ready();

	for (uint32_t i = 0; i < CHP_HOST_BATCHES_MAX + 5; i++) {
		write_key(b, "a");
		pass(b, 600 * US);
	}
	cr_assert_eq(count(b, CHP_HOST_FLUSH), CHP_HOST_BATCHES_MAX);
	durable(b, 10);
	pass(b, MS);
	/* What waited is one batch by now, of 4 and 1. */
	cr_assert_eq(count(b, CHP_HOST_FLUSH), CHP_HOST_BATCHES_MAX + 2);
	done(b);
}

/* ---- the channel is lost ---- */

Test(host, after_a_reset_everything_that_is_not_durable_goes_again)
{
	struct bench *b = ready();

	for (uint32_t i = 0; i < 10; i++)
		write_key(b, (const char *[]){ "a", "b", "c", "d" }[i % 4]);
	step(b);
	durable(b, 1);
	b->seen = b->n_heard;
	chp_link_reset(&b->theirs, b->now.ns);
	b->at = b->end = NULL;
	/* A batch from before the reset completes: its number is of no more use. */
	step(b);
	cr_assert_eq(b->h.counters.resends, 1);
	ASSERT_PUT(b, "a", 5);
	ASSERT_PUT(b, "b", 6);
	ASSERT_PUT(b, "c", 7);
	ASSERT_PUT(b, "d", 8);
	ASSERT_FLUSH(b, 3, 4);
	durable(b, 2);
	cr_assert_eq(b->log.mark, 5);
	pass(b, MS);
	ASSERT_PUT(b, "a", 9);
	ASSERT_PUT(b, "b", 10);
	ASSERT_FLUSH(b, 4, 2);
	durable(b, 4);
	cr_assert_eq(b->log.mark, 11);
	done(b);
}

Test(host, a_new_process_of_the_host_gets_everything_that_is_not_durable)
{
	struct bench *b = ready();

	for (uint32_t i = 0; i < 9; i++)
		write_key(b, (const char *[]){ "a", "b", "c", "d" }[i % 4]);
	pass(b, MS);
	durable(b, 1);
	pass(b, 300 * MS);
	cr_assert_eq(b->h.n_batches, 2);
	/* It had made one more durable than it could report. */
	b->seen = b->n_heard;
	b->welcome.incarnation++;
	b->welcome.life = 9;
	b->welcome.batch = 2;
	welcome(b);
	pass(b, MS);
	cr_assert_eq(status(b).state, CHP_HOST_READY);
	cr_assert_eq(b->h.counters.welcomes, 2);
	ASSERT_PUT(b, "a", 5);
	ASSERT_FLUSH(b, 4, 4);
	ASSERT_PUT(b, "a", 9);
	ASSERT_FLUSH(b, 5, 1);
	cr_assert_eq(count(b, CHP_HOST_BEGIN), 1, "the life goes on");
	cr_assert_eq(b->log.mark, 5);
	durable(b, 5);
	cr_assert_eq(b->log.mark, 10);
	done(b);
}

Test(host, what_waits_while_it_is_away_keeps_its_age)
{
	struct bench *b = ready();

	write_key(b, "a");
	step(b);
	pass(b, MS);
	b->is_cut = true;
	pass(b, 5000 * MS);
	for (uint32_t i = 0; i < 6; i++)
		write_key(b, "b");
	pass(b, MS);
	cr_assert_eq(status(b).state, CHP_HOST_AWAY);
	cr_assert_eq(status(b).backlog, 7);
	cr_assert_eq(status(b).oldest_ns, 5002 * MS);
	cr_assert(chp_host_is_idle(&b->h), "nothing can be done about it");
	done(b);
}

static void
restart_host(struct bench *b, uint64_t life, uint64_t batch)
{
	pass(b, 300 * MS);
	b->welcome.incarnation++;
	b->welcome.life = life;
	b->welcome.batch = batch;
	welcome(b);
	pass(b, MS);
}

Test(host, a_store_that_holds_less_than_it_said_is_found_out)
{
	static const struct {
		uint64_t life, batch;
		bool lost;
	} of[] = { { 9, 1, false }, { 9, 0, true }, { 10, 0, true }, { 8, 7, true }, { 0, 0, true } };

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(of); i++) {
		struct bench *b = ready();

		write_key(b, "a");
		pass(b, MS);
		durable(b, 1);
		restart_host(b, of[i].life, of[i].batch);
		b->seen = b->n_heard;
		write_key(b, "b");
		pass(b, MS);
		cr_assert_eq(status(b).state, of[i].lost ? CHP_HOST_LOST_DATA : CHP_HOST_READY, "%u", i);
		cr_assert_eq(b->h.counters.lost_data, of[i].lost);
		cr_assert_eq(next(b, CHP_HOST_PUT) == NULL, of[i].lost, "nothing is given to a wrong store");
		cr_assert_eq(b->h.backing.is_ready, !of[i].lost);
		cr_assert_eq(status(b).away_ns > 0, of[i].lost);
		/* A second look makes it no better: what was reported durable counts, not what was seen last. */
		restart_host(b, of[i].life, of[i].batch);
		cr_assert_eq(status(b).state, of[i].lost ? CHP_HOST_LOST_DATA : CHP_HOST_READY, "%u", i);
		/* The right one comes back. */
		restart_host(b, 9, 1);
		cr_assert_eq(status(b).state, CHP_HOST_READY);
		done(b);
	}
}

/* ---- what is in a slot and in no entry of the log ---- */

/* Have a slot saved, with this version; 0: it cannot go now. */
static uint64_t
save_slot(struct bench *b, const char *name, uint64_t version, uint8_t flags)
{
	struct chp_slot *s = slot_of(b, name);
	uint64_t number = 0;

	chp_cache_set(b->cache, s, (const uint8_t *)"value", flags == 0 ? 5 : 0, flags);
	s->version = version;
	if (!chp_backing_save(&b->h.backing, s, &number))
		return 0;
	cr_assert_neq(number, 0);
	return number;
}

Test(host, what_no_entry_has_is_saved_at_once_under_a_number)
{
	struct bench *b = ready();
	const uint64_t first = save_slot(b, "x", 7, 0), second = save_slot(b, "gone", 8, CHP_SLOT_TOMBSTONE);
	const struct heard *m;

	cr_assert_eq(first, 1);
	cr_assert_eq(second, 1, "they go together");
	step(b);
	m = next(b, CHP_HOST_PUT);
	cr_assert_not_null(m);
	cr_assert_str_eq(m->key, "x");
	cr_assert_eq(m->number, 7);
	cr_assert_eq(m->value_len, 5);
	cr_assert_eq(m->flags, 0);
	m = next(b, CHP_HOST_PUT);
	cr_assert_not_null(m);
	cr_assert_str_eq(m->key, "gone");
	cr_assert_eq(m->flags, CHP_HOST_TOMBSTONE);
	ASSERT_FLUSH(b, 1, 2);
	cr_assert_lt(b->h.backing.saved, first);
	cr_assert_eq(save_slot(b, "y", 9, 0), 2);
	step(b);
	durable(b, 1);
	cr_assert_eq(b->h.backing.saved, 1);
	durable(b, 2);
	cr_assert_eq(b->h.backing.saved, 2);
	cr_assert_eq(b->log.mark, 1, "of the log nothing is durable by that");
	done(b);
}

Test(host, what_is_saved_makes_nothing_of_the_log_durable_before_its_batch_ends)
{
	struct bench *b = ready();

	write_key(b, "a");
	write_key(b, "b");
	step(b);
	cr_assert_eq(count(b, CHP_HOST_PUT), 0, "the batch is young");
	save_slot(b, "x", 7, 0);
	step(b);
	ASSERT_FLUSH(b, 1, 1);
	durable(b, 1);
	cr_assert_eq(b->h.backing.saved, 1);
	cr_assert_eq(b->log.mark, 1);
	pass(b, MS);
	ASSERT_PUT(b, "a", 1);
	ASSERT_PUT(b, "b", 2);
	ASSERT_FLUSH(b, 2, 2);
	/* Behind a batch of the log that is on its way. */
	save_slot(b, "y", 8, 0);
	step(b);
	durable(b, 2);
	cr_assert_eq(b->log.mark, 3);
	durable(b, 3);
	cr_assert_eq(b->log.mark, 3);
	cr_assert_eq(b->h.backing.saved, 3);
	done(b);
}

Test(host, nothing_is_saved_where_the_store_cannot_take_it)
{
	struct bench *b = bench();
	uint32_t n = 0;

	cr_assert_eq(save_slot(b, "x", 7, 0), 0, "no store");
	make_ready(b);
	b->is_cut = true;
	while (n < 1000 && save_slot(b, "x", 7 + n, 0) != 0) {
		b->now.ns += US;
		step(b);
		n++;
	}
	cr_assert(n >= 4 && n < 1000, "%u", n);
	cr_assert_leq(b->h.n_batches, CHP_HOST_BATCHES_MAX);
	b->is_cut = false;
	pass(b, 100 * MS);
	durable(b, n);
	cr_assert_eq(b->h.backing.saved, n);
	cr_assert_neq(save_slot(b, "x", 7 + n, 0), 0);
	step(b);
	done(b);
}

Test(host, what_was_being_saved_is_lost_with_the_channel)
{
	struct bench *b = ready();
	uint32_t losses = b->h.backing.losses;
	const uint64_t number = save_slot(b, "x", 7, 0);

	step(b);
	chp_link_reset(&b->theirs, b->now.ns);
	b->at = b->end = NULL;
	pass(b, MS);
	cr_assert_gt(b->h.backing.losses, losses);
	cr_assert_lt(b->h.backing.saved, number);
	cr_assert_eq(count(b, CHP_HOST_PUT), 1, "whoever asked for it has to ask again");
	cr_assert_gt(save_slot(b, "x", 7, 0), number, "a number is of one batch");
	/* A new process of the host, too. */
	step(b);
	losses = b->h.backing.losses;
	restart_host(b, 9, 0);
	cr_assert_gt(b->h.backing.losses, losses);
	done(b);
}

/* ---- the log begins anew ---- */

Test(host, a_state_that_is_copied_anew_begins_a_new_life_of_the_store)
{
	struct bench *b = ready();
	const struct heard *m;

	write_key(b, "a");
	pass(b, MS);
	durable(b, 1);
	write_key(b, "b");
	pass(b, MS);
	cr_assert_eq(b->h.n_batches, 1);
	chp_log_restart(&b->log, 1000, 0);
	chp_backing_restart(&b->h.backing, b->now.ns, true);
	cr_assert(!b->h.backing.is_ready);
	cr_assert(!b->h.backing.has_begun);
	cr_assert_eq(b->h.n_batches, 0);
	b->copy_done = false;
	b->seen = b->n_heard;
	pass(b, MS);
	m = next(b, CHP_HOST_BEGIN);
	cr_assert_not_null(m);
	cr_assert_gt(m->number, 9);
	cr_assert_eq(save_slot(b, "x", 7, 0), 0, "not into the old life");
	say_number(b, CHP_HOST_BEGUN, m->number);
	pass(b, MS);
	cr_assert(b->h.backing.is_ready);
	cr_assert_eq(b->h.backing.saved, 0);
	cr_assert_null(next(b, CHP_HOST_PUT), "nothing of the old log is left");
	cr_assert_eq(save_slot(b, "x", 7, 0), 1);
	step(b);
	durable(b, 1);
	cr_assert_null(next(b, CHP_HOST_RECORD), "the copy is not complete");
	/* Positions of the new log, and the record that it has everything. */
	write_key(b, "c");
	b->copy_done = true;
	pass(b, MS);
	durable(b, 2);
	cr_assert_eq(b->log.mark, 1001);
	pass(b, MS);
	cr_assert_not_null(next(b, CHP_HOST_RECORD));
	done(b);
}

Test(host, a_log_that_begins_anew_in_the_same_life_asks_for_none)
{
	struct bench *b = ready();

	write_key(b, "a");
	step(b);
	chp_log_restart(&b->log, 1000, 0);
	chp_backing_restart(&b->h.backing, b->now.ns, false);
	b->seen = b->n_heard;
	pass(b, MS);
	cr_assert(b->h.backing.is_ready);
	cr_assert_null(next(b, CHP_HOST_BEGIN));
	b->seen = 0;
	cr_assert_null(next(b, CHP_HOST_PUT));
	write_key(b, "b");
	pass(b, MS);
	durable(b, b->h.last_seq);
	cr_assert_eq(b->log.mark, 1001);
	done(b);
}

Test(host, a_store_that_lost_data_is_good_for_a_state_that_is_copied_anew)
{
	struct bench *b = ready();
	const struct heard *m;

	write_key(b, "a");
	pass(b, MS);
	durable(b, 1);
	restart_host(b, 4, 0);
	cr_assert_eq(status(b).state, CHP_HOST_LOST_DATA);
	cr_assert(b->h.backing.has_lost);
	chp_log_restart(&b->log, 1000, 0);
	chp_backing_restart(&b->h.backing, b->now.ns, true);
	cr_assert(!b->h.backing.has_lost);
	b->seen = b->n_heard;
	pass(b, 300 * MS);
	m = next(b, CHP_HOST_BEGIN);
	cr_assert_not_null(m);
	cr_assert_gt(m->number, 9, "above the one that was lost");
	say_number(b, CHP_HOST_BEGUN, m->number);
	pass(b, MS);
	cr_assert_eq(status(b).state, CHP_HOST_READY);
	cr_assert_neq(save_slot(b, "x", 7, 0), 0);
	step(b);
	done(b);
}

/* ---- loads ---- */

static uint32_t
load(struct bench *b, const char *name)
{
	const struct chp_key key = { .bytes = (const uint8_t *)name, .len = (uint32_t)strlen(name) };
	uint32_t token = UINT32_MAX;

	cr_assert(chp_backing_load(&b->h.backing, &key, &token));
	cr_assert_lt(token, LOADS);
	return token;
}

Test(host, keys_are_loaded)
{
	struct bench *b = ready();
	uint32_t token[4], op[4];

	for (uint32_t i = 0; i < 4; i++)
		token[i] = load(b, (const char *[]){ "a", "b", "c", "d" }[i]);
	step(b);
	for (uint32_t i = 0; i < 4; i++) {
		const struct heard *m = next(b, CHP_HOST_LOAD);

		cr_assert_str_eq(m->key, ((const char *[]){ "a", "b", "c", "d" })[i]);
		op[i] = m->op;
	}
	b->reloads = 2;
	say_loaded(b, op[3], CHP_HOST_LOAD_FAILED, 0);
	say_loaded(b, op[0], CHP_HOST_LOAD_FOUND, 5 << 16);
	say_loaded(b, op[2], CHP_HOST_LOAD_TOMBSTONE, 6 << 16);
	say_loaded(b, op[2], CHP_HOST_LOAD_TOMBSTONE, 6 << 16);
	say_loaded(b, op[1], CHP_HOST_LOAD_ABSENT, 0);
	step(b);
	cr_assert_eq(b->n_told, 4, "each once");
	cr_assert(b->told[0].token == token[3] && b->told[0].status == CHP_LOAD_FAILED);
	cr_assert(b->told[1].token == token[0] && b->told[1].status == CHP_LOAD_FOUND);
	cr_assert(b->told[1].version == 5 << 16 && b->told[1].value0 == 'x');
	cr_assert(b->told[2].token == token[2] && b->told[2].status == CHP_LOAD_TOMBSTONE);
	cr_assert(b->told[3].token == token[1] && b->told[3].status == CHP_LOAD_ABSENT);
	cr_assert_eq(b->h.counters.stale, 1);
	cr_assert_eq(b->h.counters.loads, 6);
	cr_assert_eq(b->h.counters.loads_found, 1);
	cr_assert_eq(b->h.counters.loads_failed, 1);
	cr_assert_str_eq(next(b, CHP_HOST_LOAD)->key, "again");
	cr_assert_not_null(next(b, CHP_HOST_LOAD));
	done(b);
}

Test(host, an_answer_finds_no_later_load_of_its_token)
{
	struct bench *b = ready();
	uint32_t token = load(b, "a"), op;

	step(b);
	op = next(b, CHP_HOST_LOAD)->op;
	say_loaded(b, op, CHP_HOST_LOAD_ABSENT, 0);
	step(b);
	cr_assert_eq(load(b, "b"), token, "the token is used again");
	step(b);
	say_loaded(b, op, CHP_HOST_LOAD_FOUND, 5 << 16);
	say_loaded(b, op + LOADS, CHP_HOST_LOAD_FOUND, 5 << 16);
	say_loaded(b, 12345 * LOADS + 7, CHP_HOST_LOAD_FOUND, 5 << 16);
	step(b);
	cr_assert_eq(b->n_told, 2, "the next generation is the right one");
	cr_assert_eq(b->h.counters.stale, 2);
	done(b);
}

Test(host, loads_are_bounded_here_and_there)
{
	const struct chp_key key = { .bytes = (const uint8_t *)"k", .len = 1 };
	struct bench *b = bench();
	uint32_t token;

	b->welcome.loads = 3;
	make_ready(b);
	for (uint32_t i = 0; i < LOADS; i++)
		load(b, "k");
	cr_assert(!chp_backing_load(&b->h.backing, &key, &token));
	cr_assert_eq(b->h.counters.loads_refused, 1);
	step(b);
	cr_assert_eq(count(b, CHP_HOST_LOAD), 3);
	say_loaded(b, next(b, CHP_HOST_LOAD)->op, CHP_HOST_LOAD_ABSENT, 0);
	step(b);
	cr_assert_eq(count(b, CHP_HOST_LOAD), 4);
	cr_assert(chp_backing_load(&b->h.backing, &key, &token));
	done(b);
}

Test(host, loads_outlive_the_channel)
{
	struct bench *b = bench();
	uint32_t a = load(b, "a"), op;

	make_ready(b);
	b->seen = 0;
	op = next(b, CHP_HOST_LOAD)->op;
	restart_host(b, 9, 0);
	cr_assert_str_eq(next(b, CHP_HOST_LOAD)->key, "a");
	cr_assert_neq(b->heard[b->seen - 1].op, op);
	say_loaded(b, op, CHP_HOST_LOAD_FOUND, 5 << 16);
	step(b);
	cr_assert_eq(b->n_told, 0, "asked before the channel was lost (SAFETY 5)");
	cr_assert_eq(b->h.counters.stale, 1);
	say_loaded(b, b->heard[b->seen - 1].op, CHP_HOST_LOAD_FOUND, 6 << 16);
	step(b);
	cr_assert_eq(b->n_told, 1);
	cr_assert(b->told[0].token == a && b->told[0].version == 6 << 16);
	done(b);
}

/* A process that ended is not waited for; one that only hangs falls silent. */
Test(host, a_host_that_the_channel_has_lost_is_away_at_once)
{
	struct bench *b = ready();
	uint32_t hellos;

	load(b, "a");
	step(b);
	chp_host_channel(&b->h, b->now.ns, true);
	cr_assert_eq(status(b).state, CHP_HOST_AWAY);
	cr_assert(!b->h.backing.is_ready);
	cr_assert(b->h.counters.losses == 1 && b->h.counters.silences == 0);
	b->is_cut = true;
	pass(b, 5000 * MS);
	hellos = (uint32_t)b->h.counters.hellos;
	b->is_cut = false;
	chp_host_channel(&b->h, b->now.ns, false);
	step(b);
	cr_assert_eq(b->h.counters.hellos, hellos + 1, "it is asked at once whether it is there");
	cr_assert_eq(status(b).state, CHP_HOST_AWAY);
	restart_host(b, 9, 0);
	cr_assert_eq(status(b).state, CHP_HOST_READY);
	cr_assert_str_eq(next(b, CHP_HOST_LOAD)->key, "a");
	cr_assert_eq(b->h.counters.losses, 1);
	done(b);
}

/* What was not asked yet is free at once; what was asked, when its answer has come. */
Test(host, a_load_that_nobody_needs_any_more_gives_its_token_back)
{
	struct bench *b = bench();
	uint32_t token[LOADS], op;

	b->welcome.loads = 1;
	make_ready(b);
	for (uint32_t i = 0; i < LOADS; i++)
		token[i] = load(b, i == LOADS - 1 ? "last" : "k");
	step(b);
	op = next(b, CHP_HOST_LOAD)->op;
	for (uint32_t i = 0; i < LOADS - 1; i++)
		chp_backing_drop_load(&b->h.backing, token[i]);
	chp_host_verify(&b->h);
	for (uint32_t i = 0; i < LOADS - 2; i++)
		cr_assert_neq(load(b, "again"), token[0], "the host may still answer it");
	say_loaded(b, op, CHP_HOST_LOAD_ABSENT, 0);
	step(b);
	cr_assert_eq(b->n_told, 1, "the protocol hears of it as ever");
	cr_assert_str_eq(next(b, CHP_HOST_LOAD)->key, "last", "what was dropped is not asked for");
	cr_assert_eq(load(b, "k"), token[0]);
	done(b);
}

Test(host, a_dropped_load_ends_with_the_channel)
{
	struct bench *b = ready();
	uint32_t token = load(b, "a");

	load(b, "b");
	step(b);
	chp_backing_drop_load(&b->h.backing, token);
	restart_host(b, 9, 0);
	cr_assert_eq(load(b, "c"), token);
	step(b);
	b->seen = 0;
	cr_assert_str_eq(next(b, CHP_HOST_LOAD)->key, "a");
	cr_assert_str_eq(next(b, CHP_HOST_LOAD)->key, "b");
	cr_assert_str_eq(next(b, CHP_HOST_LOAD)->key, "b", "asked again");
	cr_assert_str_eq(next(b, CHP_HOST_LOAD)->key, "c");
	done(b);
}

Test(host, answers_wait_for_room_for_replies)
{
	struct bench *b = ready();

	for (uint32_t i = 0; i < 3; i++)
		load(b, "a");
	step(b);
	for (uint32_t i = 0; i < 3; i++)
		say_loaded(b, next(b, CHP_HOST_LOAD)->op, CHP_HOST_LOAD_ABSENT, 0);
	b->out.replies_left = 2;
	step(b);
	cr_assert_eq(b->n_told, 2);
	cr_assert_eq(chp_host_wake_ns(&b->h), 0, "more is there");
	b->out.replies_left = 1;
	step(b);
	cr_assert_eq(b->n_told, 3);
	done(b);
}

/* ---- scans ---- */

Test(host, scans)
{
	struct bench *b = bench();
	const struct heard *m;

	cr_assert(!chp_backing_scan(&b->h.backing, CHP_SCAN_OWN, true, true, 100), "not ready");
	make_ready(b);
	cr_assert(chp_backing_scan(&b->h.backing, CHP_SCAN_OWN, true, true, 1u << 30));
	cr_assert(chp_backing_scan(&b->h.backing, 0, false, false, 0));
	cr_assert(!chp_backing_scan(&b->h.backing, CHP_SCAN_OWN, true, true, 100), "under way");
	step(b);
	m = next(b, CHP_HOST_SCAN);
	cr_assert(m->op == 0 && m->flags == 0 && m->number == 1);
	m = next(b, CHP_HOST_SCAN);
	cr_assert(m->op == CHP_SCAN_OWN && m->number == CHP_COPY_BYTES_MAX);
	cr_assert_eq(m->flags, CHP_HOST_SCAN_START | CHP_HOST_SCAN_OLD);
	say_item(b, CHP_SCAN_OWN, 5 << 16);
	say_item(b, 3, 5 << 16);
	say_item(b, CHP_SCAN_OWN, 6 << 16);
	say_scanned(b, CHP_SCAN_OWN, 2, CHP_HOST_SCAN_END);
	say_scanned(b, CHP_SCAN_OWN, 2, CHP_HOST_SCAN_END);
	say_scanned(b, 0, 0, 0);
	step(b);
	cr_assert_eq(b->n_told, 4);
	cr_assert(b->told[0].is_item && b->told[0].scan == CHP_SCAN_OWN && b->told[0].version == 5 << 16);
	cr_assert(b->told[0].is_old && b->told[0].value0 == 'v');
	cr_assert(b->told[2].is_end && b->told[2].end && !b->told[2].failed);
	cr_assert(b->told[3].is_end && b->told[3].scan == 0 && !b->told[3].end && !b->told[3].failed);
	cr_assert_eq(b->h.counters.stale, 2, "nobody asked");
	cr_assert_eq(b->h.counters.items, 2);
	cr_assert(chp_backing_scan(&b->h.backing, 0, false, false, 5));
	done(b);
}

Test(host, scans_fail_with_the_store_the_channel_or_a_part_that_is_missing)
{
	struct bench *b = ready();

	cr_assert(chp_backing_scan(&b->h.backing, 0, true, false, 100));
	cr_assert(chp_backing_scan(&b->h.backing, 1, true, false, 100));
	cr_assert(chp_backing_scan(&b->h.backing, 2, true, false, 100));
	step(b);
	say_scanned(b, 0, 0, CHP_HOST_SCAN_FAILED);
	say_item(b, 1, 5 << 16);
	say_scanned(b, 1, 2, CHP_HOST_SCAN_END);
	step(b);
	cr_assert(b->told[0].is_end && b->told[0].scan == 0 && b->told[0].failed && !b->told[0].end);
	cr_assert(b->told[2].is_end && b->told[2].scan == 1 && b->told[2].failed && !b->told[2].end);
	cr_assert_eq(b->h.counters.bad_message, 1);
	restart_host(b, 9, 0);
	cr_assert_eq(b->n_told, 4);
	cr_assert(b->told[3].is_end && b->told[3].scan == 2 && b->told[3].failed);
	cr_assert(chp_backing_scan(&b->h.backing, 2, true, false, 100));
	done(b);
}

/* ---- RECORD ---- */

Test(host, a_record_follows_what_was_there_before_the_view)
{
	struct bench *b = bench();

	b->copy_done = false;
	write_key(b, "a");
	make_ready(b);
	pass(b, MS);
	ASSERT_FLUSH(b, 1, 1);
	durable(b, 1);
	pass(b, MS);
	cr_assert_null(next(b, CHP_HOST_RECORD), "the copy is not complete");
	write_key(b, "b");
	b->copy_done = true;
	pass(b, MS);
	cr_assert_null(next(b, CHP_HOST_RECORD), "what was copied is not durable");
	cr_assert_eq(b->h.backing.durable, 0);
	durable(b, 2);
	cr_assert_eq(next(b, CHP_HOST_RECORD)->number, 9);
	cr_assert_eq(b->h.backing.durable, 0);
	say_number(b, CHP_HOST_RECORDED, 8);
	step(b);
	cr_assert_eq(b->h.backing.durable, 0, "another view's");
	say_number(b, CHP_HOST_RECORDED, 9);
	step(b);
	cr_assert_eq(b->h.backing.durable, 3);
	cr_assert_eq(status(b).epoch, 9);
	cr_assert_eq(b->h.backing.recorded, 3, "as the life began");
	cr_assert(chp_host_is_idle(&b->h));
	write_key(b, "c");
	pass(b, MS);
	durable(b, 3);
	cr_assert_eq(b->h.backing.durable, 4, "it follows the mark");
	/* The next view starts over. */
	write_key(b, "d");
	chp_host_view(&b->h, 10, false);
	cr_assert_eq(b->h.backing.durable, 0);
	pass(b, MS);
	cr_assert_null(next(b, CHP_HOST_RECORD));
	durable(b, 4);
	cr_assert_eq(next(b, CHP_HOST_RECORD)->number, 10);
	say_number(b, CHP_HOST_RECORDED, 9);
	say_number(b, CHP_HOST_RECORDED, 11);
	step(b);
	cr_assert_eq(b->h.backing.durable, 0);
	say_number(b, CHP_HOST_RECORDED, 10);
	step(b);
	cr_assert_eq(b->h.backing.durable, 5);
	done(b);
}

Test(host, a_record_is_sent_again_until_the_store_has_it)
{
	struct bench *b = ready();

	pass(b, MS);
	b->seen = 0;
	cr_assert_eq(next(b, CHP_HOST_RECORD)->number, 9);
	restart_host(b, 9, 0);
	cr_assert_eq(next(b, CHP_HOST_RECORD)->number, 9);
	say_number(b, CHP_HOST_RECORDED, 9);
	step(b);
	b->welcome.epoch = 9;
	restart_host(b, 9, 0);
	cr_assert_null(next(b, CHP_HOST_RECORD));
	cr_assert_eq(b->h.backing.durable, 1);
	done(b);
}

Test(host, the_protocol_looks_again_when_a_run_changes_what_it_sees)
{
	struct bench *b = bench();

	step(b);
	welcome(b);
	chp_host_view(&b->h, 1u << 20 | 1, true);
	step(b);
	say_number(b, CHP_HOST_BEGUN, 1u << 20 | 1);
	step(b);
	chp_log_commit(&b->log, append_entry(b, "session!", CHP_SLOT_SESSION, 0));
	chp_host_run(&b->h, b->now.ns, false);
	b->now.ns += 500 * US;
	chp_host_run(&b->h, b->now.ns, false);
	cr_assert_eq(b->h.backing.durable, 2, "nothing had to be sent");
	cr_assert_eq(chp_host_wake_ns(&b->h), 0);
	chp_host_run(&b->h, b->now.ns, false);
	cr_assert(chp_host_wake_ns(&b->h) > b->now.ns);
	b->now.ns += 2 * SILENT;
	chp_host_run(&b->h, b->now.ns, false);
	cr_assert(!b->h.backing.is_ready);
	cr_assert_eq(chp_host_wake_ns(&b->h), 0);
	done(b);
}

Test(host, in_the_first_view_of_a_generation_what_a_source_has_counts_at_once)
{
	struct bench *b = bench();

	b->copy_done = false;
	step(b);
	welcome(b);
	chp_host_view(&b->h, 1u << 20 | 1, true);
	step(b);
	say_number(b, CHP_HOST_BEGUN, 1u << 20 | 1);
	write_key(b, "a");
	pass(b, MS);
	cr_assert_eq(b->h.backing.durable, 1);
	durable(b, 1);
	cr_assert_eq(b->h.backing.durable, 2);
	cr_assert_null(next(b, CHP_HOST_RECORD), "it has not reconciled");
	/* Any later view has to be recorded. */
	chp_host_view(&b->h, 1u << 20 | 2, false);
	step(b);
	cr_assert_eq(b->h.backing.durable, 0);
	done(b);
}

/* ---- volatile stores, level datastore, states ---- */

static struct bench *
ready_volatile(uint32_t flags)
{
	struct bench *b = bench();

	b->welcome.store_flags = CHP_STORE_VOLATILE | flags;
	cr_assert(!b->h.backing.may_evict);
	make_ready(b);
	return b;
}

Test(host, a_volatile_store_permits_no_eviction_and_holds_nobody_up)
{
	struct bench *b = ready_volatile(0);

	cr_assert(!b->h.backing.may_evict);
	write_key(b, "a");
	pass(b, MS);
	ASSERT_FLUSH(b, 1, 1);
	cr_assert_eq(b->log.mark, 1, "while it answers, it is waited for");
	durable(b, 1);
	cr_assert_eq(b->log.mark, 2);
	/* Away: the mark follows the commit. */
	b->is_cut = true;
	pass(b, 2100 * MS);
	write_key(b, "b");
	write_key(b, "c");
	append_entry(b, "d", 0, 5);
	pass(b, MS);
	cr_assert_eq(b->log.mark, 4);
	cr_assert_eq(b->h.counters.skipped, 2);
	chp_log_compact(&b->log, 100);
	b->is_cut = false;
	pass(b, 1000 * MS);
	b->welcome.life = 9;
	b->welcome.batch = 1;
	b->seen = b->n_heard;
	welcome(b);
	step(b);
	chp_log_commit(&b->log, 4);
	chp_host_view(&b->h, 10, false);
	pass(b, MS);
	ASSERT_PUT(b, "d", 4);
	ASSERT_FLUSH(b, 2, 1);
	durable(b, 2);
	pass(b, MS);
	cr_assert_null(next(b, CHP_HOST_RECORD), "it does not have everything");
	cr_assert(chp_host_is_idle(&b->h));
	done(b);
}

Test(host, a_volatile_store_that_is_slow_is_left_behind_when_the_log_fills)
{
	struct bench *b = ready_volatile(0);
	const uint32_t busy = 256 * 80 / 100 + 1;

	for (uint32_t i = 0; i < busy - 1; i++)
		append_entry(b, "a", 0, 5);
	for (uint32_t i = 1; i < busy; i++)
		chp_log_commit(&b->log, i);
	pass(b, MS);
	cr_assert_eq(b->log.mark, 1);
	write_key(b, "a");
	step(b);
	cr_assert_eq(b->log.mark, busy + 1);
	chp_log_compact(&b->log, 256);
	durable(b, 2);
	cr_assert_eq(b->log.mark, busy + 1);
	/* It goes on with what comes now. */
	write_key(b, "b");
	pass(b, MS);
	cr_assert_eq(b->log.mark, busy + 1);
	durable(b, b->h.last_seq);
	cr_assert_eq(b->log.mark, busy + 2);
	done(b);
}

Test(host, a_volatile_store_that_forgot_begins_a_new_life)
{
	struct bench *b = ready_volatile(0);

	write_key(b, "a");
	pass(b, MS);
	durable(b, 1);
	b->seen = b->n_heard;
	restart_host(b, 0, 0);
	cr_assert_eq(b->h.counters.lost_data, 1);
	cr_assert_eq(next(b, CHP_HOST_BEGIN)->number, 10);
	say_number(b, CHP_HOST_BEGUN, 10);
	step(b);
	cr_assert_eq(status(b).state, CHP_HOST_READY);
	write_key(b, "b");
	pass(b, MS);
	ASSERT_PUT(b, "b", 2);
	ASSERT_FLUSH(b, 1, 1);
	durable(b, 1);
	cr_assert_eq(b->log.mark, 3);
	done(b);
}

Test(host, a_volatile_store_whose_losses_are_allowed_is_like_any_other)
{
	struct bench *b = ready_volatile(CHP_STORE_ALLOW_LOSS);

	cr_assert(b->h.backing.may_evict);
	b->is_cut = true;
	pass(b, 2100 * MS);
	write_key(b, "b");
	pass(b, MS);
	cr_assert_eq(b->log.mark, 1);
	done(b);
}

Test(host, level_datastore_sends_what_is_not_committed_and_at_once)
{
	struct chp_host_config config = config_of();
	struct bench *b;

	config.is_durable = config.sends_open = true;
	b = bench_with(&config);
	cr_assert(b->h.backing.is_durable);
	make_ready(b);
	append_entry(b, "a", 0, 5);
	append_entry(b, "a", 0, 5);
	step(b);
	ASSERT_PUT(b, "a", 2);
	ASSERT_FLUSH(b, 1, 1);
	cr_assert_eq(b->h.counters.batches_at_once, 1);
	append_entry(b, "b", 0, 5);
	step(b);
	cr_assert_null(next(b, CHP_HOST_PUT), "one is on its way: what comes now is gathered");
	durable(b, 1);
	ASSERT_PUT(b, "b", 3);
	cr_assert_eq(b->log.mark, 3);
	say_number(b, CHP_HOST_RECORDED, 9);
	step(b);
	cr_assert_eq(b->h.backing.durable, 3);
	cr_assert_eq(chp_log_compact(&b->log, 10), 0, "durable, not committed");
	done(b);
}

Test(host, a_store_that_is_down_is_not_ready)
{
	struct bench *b = ready();

	cr_assert_str_eq(status(b).text, "a store");
	say_state(b, CHP_STORE_SLOW, "retrying");
	step(b);
	cr_assert(b->h.backing.is_ready);
	cr_assert_eq(status(b).state, CHP_HOST_READY);
	cr_assert_str_eq(status(b).text, "retrying");
	say_state(b, CHP_STORE_DOWN, "no space left");
	step(b);
	cr_assert(!b->h.backing.is_ready);
	cr_assert_eq(status(b).state, CHP_HOST_READY);
	cr_assert_eq(status(b).store_state, CHP_STORE_DOWN);
	cr_assert_str_eq(status(b).text, "no space left");
	cr_assert(status(b).items == 20 && status(b).tombstones == 3 && status(b).errors == 1);
	pass(b, 10 * MS);
	cr_assert_eq(status(b).away_ns, 10 * MS);
	say_state(b, CHP_STORE_OK, "");
	step(b);
	cr_assert(b->h.backing.is_ready);
	cr_assert_eq(status(b).away_ns, 0);
	done(b);
}

Test(host, messages_that_are_not_well_formed_are_counted)
{
	struct bench *b = ready();
	struct chp_host_life *m = say(b, CHP_HOST_BEGIN, CHP_OP_NONE, sizeof(*m));

	m->life = 77;
	say_number(b, CHP_HOST_DURABLE, 0);
	say(b, 0xee, 1, 8);
	step(b);
	cr_assert_eq(b->h.counters.bad_message, 3);
	cr_assert_eq(status(b).state, CHP_HOST_READY);
	done(b);
}

Test(host, packets_of_a_host_that_has_not_welcomed_are_dropped)
{
	struct bench *b = bench();

	step(b);
	chp_link_peer(&b->theirs, HOST_INCARNATION, SHARD_INCARNATION, b->now.ns);
	say_number(b, CHP_HOST_BEGUN, 1);
	step(b);
	cr_assert_eq(b->h.counters.stale, 1);
	cr_assert_eq(status(b).state, CHP_HOST_AWAY);
	done(b);
}

Test(host, a_cluster_without_hosts_has_none)
{
	static struct chp_host h;
	struct chp_host_status s;
	uint8_t packet[PAYLOAD];

	chp_host_init_none(&h);
	cr_assert(!h.backing.is_present && !h.backing.is_ready && !h.backing.may_evict);
	chp_host_run(&h, 1, true);
	cr_assert_eq(chp_host_transmit(&h, 1, packet), 0);
	cr_assert_eq(chp_host_wake_ns(&h), CHP_NEVER);
	cr_assert(chp_host_is_idle(&h));
	chp_host_verify(&h);
	chp_host_status(&h, 1, &s);
	cr_assert_eq(s.state, CHP_HOST_NONE);
	chp_host_fini(&h, &chp_memory_libc);
	for (uint32_t i = 0; i <= CHP_HOST_LOST_DATA; i++)
		cr_assert_not_null(chp_host_state_name(i));
}
