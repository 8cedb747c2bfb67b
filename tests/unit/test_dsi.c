/* SPDX-License-Identifier: BSD-3-Clause */
/* One shard's end on the host, with a shard that says what a test wants and a store that answers when it wants. */
#include "base/bytes.h"
#include "base/random.h"
#include "datastore/datastore.h"
#include "dsi/dsi.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MS UINT64_C(1000000)
#define HASH 0x1234u
#define SEED 77u
#define PAYLOAD CHP_PAYLOAD_BYTES_MIN
#define SHARD_INCARNATION 0x51
#define HOST_INCARNATION 0x40
#define PUT_BYTES 8192u
#define LOADS 100u
#define NET 512u
#define HEARD 4096u

struct packet {
	uint32_t len;
	uint8_t data[PAYLOAD];
};

struct net {
	struct packet packet[NET];
	uint32_t first, n;
};

/* A message that the shard got. */
struct heard {
	struct chp_message message;
	uint8_t bytes[1400];
};

struct bench {
	struct chp_dsi_config config;
	struct chp_dsi *d;
	const struct chp_adapter *adapter;
	void *store;
	struct chp_store_record record;
	struct chp_store_info info;
	bool tell_info, tell_record;
	struct chp_store_request *pending[64], *done[64];
	uint32_t n_pending, n_done;

	struct chp_link link; /* the shard's */
	uint64_t incarnation;
	uint8_t *at, *end;
	struct net to_host, to_shard;
	struct chp_host_hello hello; /* the last answer */
	uint32_t n_hellos, hellos;
	struct heard *heard;
	uint32_t n_heard;
	uint64_t now, wake;
	struct chp_random random;
	uint32_t drop_ppm;
};

static struct bench b;

extern const struct chp_adapter chp_adapter_memory;

/* ------------------------------------------------------------------ the bench */

static void
create(uint64_t incarnation)
{
	int err = 0;

	b.config.incarnation = incarnation;
	b.d = chp_dsi_create(&b.config, &err);
	cr_assert_not_null(b.d);
	cr_assert_eq(err, 0);
	b.tell_info = b.tell_record = true;
}

static void
new_shard(uint64_t incarnation)
{
	const struct chp_link_config l = { .kind = CHP_PACKET_HOST,
					   .cluster_hash = HASH,
					   .shard = 1,
					   .self = 2,
					   .peer = 2,
					   .window = 32,
					   .payload_bytes_max = PAYLOAD,
					   .queue = 128,
					   .rto_ns_min = MS,
					   .rto_ns_max = 100 * MS,
					   .ack_delay_ns = MS / 10,
					   .link_down_ns = CHP_NEVER };

	if (b.incarnation != 0)
		chp_link_fini(&b.link, &chp_memory_libc);
	b.incarnation = incarnation;
	cr_assert_eq(chp_link_init(&b.link, &l, &chp_memory_libc), 0);
	b.at = b.end = NULL;
}

static void
setup(void)
{
	const struct chp_store_identity id = { .cluster = "test",
					       .node = 2,
					       .shards = 2,
					       .hash_seed = SEED,
					       .key_bytes_max = 250,
					       .value_bytes_max = 1024 };
	json_t *config = json_object();
	struct chp_store_error e;

	memset(&b, 0, sizeof(b));
	b.now = 1000 * MS;
	b.config = (struct chp_dsi_config){ .memory = &chp_memory_libc,
					    .cluster_hash = HASH,
					    .node = 2,
					    .shard = 1,
					    .shards = 2,
					    .hash_seed = SEED,
					    .key_bytes_max = 250,
					    .value_bytes_max = 1024,
					    .payload_bytes_max = PAYLOAD,
					    .put_bytes = PUT_BYTES,
					    .loads = LOADS,
					    .scan_bytes = 4096,
					    .window = 32,
					    .queue = 64,
					    .rto_ns_min = MS,
					    .rto_ns_max = 100 * MS,
					    .ack_delay_ns = MS / 10 };
	b.adapter = &chp_adapter_memory;
	b.store = b.adapter->open(config, &id, &e);
	json_decref(config);
	cr_assert_not_null(b.store);
	b.info = (struct chp_store_info){ .flags = CHP_STORE_SCANS, .name = "test store" };
	b.heard = calloc(HEARD, sizeof(*b.heard));
	b.random = (struct chp_random){ 1 };
	create(HOST_INCARNATION);
	new_shard(SHARD_INCARNATION);
}

static void
teardown(void)
{
	chp_dsi_destroy(b.d);
	chp_link_fini(&b.link, &chp_memory_libc);
	b.adapter->close(b.store);
	free(b.heard);
}

TestSuite(dsi, .init = setup, .fini = teardown);

static void
push(struct net *n, const void *data, uint32_t len)
{
	struct packet *p = &n->packet[(n->first + n->n) % NET];

	if (chp_random_below(&b.random, 1000000) < b.drop_ppm)
		return;
	cr_assert_lt(n->n, NET);
	memcpy(p->data, data, len);
	p->len = len;
	n->n++;
}

/* One run of the end under test, with everything that waits for it. */
static void
run_host(void)
{
	static uint8_t memory[4][PAYLOAD];
	struct chp_dsi_buffer buffer[4];
	struct chp_dsi_packet packet[NET];
	struct chp_dsi_events in = { .packet = packet,
				     .done = b.done,
				     .n_done = b.n_done,
				     .info = b.tell_info ? &b.info : NULL,
				     .record = b.tell_record && b.info.refusal == CHP_HOST_OK ? &b.record : NULL };
	struct chp_dsi_effects out = { .buffer = buffer, .n_buffers = 4 };

	for (uint32_t i = 0; i < 4; i++)
		buffer[i].data = memory[i];
	for (; in.n_packets < b.to_host.n; in.n_packets++) {
		struct packet *p = &b.to_host.packet[(b.to_host.first + in.n_packets) % NET];

		packet[in.n_packets] = (struct chp_dsi_packet){ p->data, p->len };
	}
	chp_dsi_run(b.d, b.now, &in, &out);
	chp_dsi_check(b.d);
	b.to_host.n = b.n_done = 0;
	if (in.record != NULL)
		b.tell_record = false;
	b.tell_info = false;
	for (uint32_t i = 0; i < out.n_requests; i++)
		b.pending[b.n_pending++] = out.request[i];
	for (uint32_t i = 0; i < out.n_used; i++)
		push(&b.to_shard, buffer[i].data, buffer[i].len);
	b.wake = out.wake_ns;
}

static void
hear(const uint8_t *data, uint32_t len)
{
	for (uint32_t offset = sizeof(struct chp_peer_header); offset < len;) {
		const struct chp_message *m = (const void *)(data + offset);

		cr_assert(chp_host_message_check(m, false, 250, 1024), "a message of type %02x", m->type);
		cr_assert_lt(b.n_heard, HEARD);
		memcpy(&b.heard[b.n_heard++], m, m->len);
		offset += m->len;
	}
	chp_link_delivered(&b.link, b.now);
}

static void
shard_packet(const struct packet *p)
{
	enum chp_link_verdict v;
	struct chp_link_rx *r;
	uint8_t kind;

	cr_assert_eq(chp_packet_kind_of(p->data, p->len, &kind), CHP_PACKET_OK);
	if (kind == CHP_PACKET_HOST_HELLO) {
		cr_assert_eq(chp_host_hello_check(p->data, p->len, 0), CHP_PACKET_OK);
		memcpy(&b.hello, p->data, sizeof(b.hello));
		b.n_hellos++;
		if (b.hello.type == CHP_HOST_WELCOME && b.link.peer_incarnation != b.hello.incarnation)
			chp_link_peer(&b.link, b.incarnation, b.hello.incarnation, b.now);
		return;
	}
	cr_assert_eq(chp_host_check(p->data, p->len, HASH, 2, 2), CHP_PACKET_OK);
	v = chp_link_receive(&b.link, p->data, p->len, b.now);
	if (v == CHP_LINK_RESET) {
		b.at = b.end = NULL;
		v = chp_link_receive(&b.link, p->data, p->len, b.now);
	}
	if (v != CHP_LINK_DELIVER)
		return;
	hear(p->data, p->len);
	while ((r = chp_link_waiting(&b.link)) != NULL)
		hear(r->bytes, r->len);
}

static void
run_shard(void)
{
	uint8_t data[PAYLOAD];
	uint32_t len;

	for (; b.to_shard.n > 0; b.to_shard.n--)
		shard_packet(&b.to_shard.packet[b.to_shard.first++ % NET]);
	if (b.at != NULL)
		chp_link_close(&b.link, b.at);
	b.at = b.end = NULL;
	while ((len = chp_link_transmit(&b.link, b.now, 0, data)) > 0) {
		chp_peer_seal(data, len);
		push(&b.to_host, data, len);
	}
}

/* Both ends run until neither has anything to say; the store does nothing. */
static void
settle(void)
{
	for (uint32_t i = 0; i < 200; i++) {
		run_shard();
		run_host();
		b.now += MS / 10;
	}
}

static struct chp_store_request *
serve_one(uint32_t index)
{
	struct chp_store_request *r = b.pending[index];
	struct chp_store_record after = b.record;
	struct chp_store_batch batch = { .shard = 1, .before = &b.record, .after = &after };
	struct chp_store_error e;

	memmove(&b.pending[index], &b.pending[index + 1], (--b.n_pending - index) * sizeof(b.pending[0]));
	if (r->type == CHP_STORE_READ) {
		cr_assert_eq(b.adapter->read(b.store, r->read, r->n_reads, &e), 0);
	} else if (r->type == CHP_STORE_SCAN) {
		cr_assert_eq(b.adapter->scan(b.store, 1, r->scan, &e), 0);
	} else {
		if (r->type == CHP_STORE_BEGIN)
			after = (struct chp_store_record){ .life = r->life, .epoch = after.epoch };
		if (r->type == CHP_STORE_RECORD)
			after.epoch = r->epoch;
		if (r->type == CHP_STORE_WRITE) {
			cr_assert_eq(r->life, b.record.life, "written in the life that has begun");
			cr_assert_gt(r->seq, b.record.batch);
			after.batch = r->seq;
			batch.item = r->item;
			batch.n_items = r->n_items;
		}
		cr_assert_eq(b.adapter->write(b.store, &batch, 1, &e), 0, "%s", e.text);
		b.record = r->record = after;
	}
	b.done[b.n_done++] = r;
	return r;
}

static void
serve_all(void)
{
	while (b.n_pending > 0) {
		while (b.n_pending > 0)
			(void)serve_one(0);
		settle();
	}
}

/* ------------------------------------------------------------------ what the shard says */

static struct chp_host_hello
hello_of(uint64_t incarnation)
{
	return (struct chp_host_hello){ .prelude = { CHP_WIRE_MAGIC, CHP_WIRE_VERSION, CHP_PACKET_HOST_HELLO, HASH },
					.type = CHP_HOST_HELLO,
					.channel_version = CHP_CHANNEL_VERSION,
					.node = 2,
					.shard = 1,
					.shards = 2,
					.number = ++b.hellos,
					.incarnation = incarnation,
					.hash_seed = SEED,
					.key_bytes_max = 250,
					.value_bytes_max = 1024,
					.payload_bytes_max = PAYLOAD };
}

static void
send_hello(const struct chp_host_hello *hello)
{
	uint8_t data[PAYLOAD] = { 0 };

	memcpy(data, hello, sizeof(*hello));
	chp_peer_seal(data, sizeof(data));
	push(&b.to_host, data, sizeof(data));
}

static void *
say(uint8_t type, uint32_t op, uint32_t bytes)
{
	struct chp_message *m;

	if (b.at != NULL && (uint32_t)(b.end - b.at) < bytes) {
		chp_link_close(&b.link, b.at);
		b.at = NULL;
	}
	if (b.at == NULL)
		chp_link_open(&b.link, bytes, 0, &b.at, &b.end);
	m = (void *)b.at;
	memset(m, 0, bytes);
	*m = (struct chp_message){ .type = type, .len = (uint16_t)bytes, .op = op };
	b.at += bytes;
	return m;
}

static void
say_begin(uint64_t life)
{
	struct chp_host_life *m = say(CHP_HOST_BEGIN, CHP_OP_NONE, sizeof(*m));

	m->life = life;
}

static void
say_put(const char *key, const char *value, uint64_t counter)
{
	const uint32_t key_len = (uint32_t)strlen(key), value_len = value != NULL ? (uint32_t)strlen(value) : 0;
	struct chp_host_item *m = say(CHP_HOST_PUT, CHP_OP_NONE, chp_host_item_bytes(key_len, value_len));

	m->version = counter << 16;
	m->key_len = (uint8_t)key_len;
	m->value_len = value_len;
	m->item_flags = value != NULL ? 0 : CHP_HOST_TOMBSTONE;
	memcpy(m + 1, key, key_len);
	if (value_len > 0)
		memcpy((uint8_t *)(m + 1) + key_len, value, value_len);
}

static void
say_flush(uint64_t seq, uint32_t items)
{
	struct chp_host_batch *m = say(CHP_HOST_FLUSH, CHP_OP_NONE, sizeof(*m));

	m->seq = seq;
	m->items = items;
}

static void
say_load(uint32_t token, const char *key)
{
	const uint32_t key_len = (uint32_t)strlen(key);
	struct chp_host_load *m = say(CHP_HOST_LOAD, token, chp_host_load_bytes(key_len));

	m->key_len = (uint8_t)key_len;
	memcpy(m + 1, key, key_len);
}

static void
say_scan(uint32_t op, uint32_t bytes, uint32_t flags)
{
	struct chp_host_scan *m = say(CHP_HOST_SCAN, op, sizeof(*m));

	m->bytes = bytes;
	m->scan_flags = flags;
}

static void
say_record(uint64_t epoch)
{
	struct chp_host_record *m = say(CHP_HOST_RECORD, CHP_OP_NONE, sizeof(*m));

	m->epoch = epoch;
}

/* The newest message of this type that was heard since `from`; NULL. */
static const void *
heard(uint8_t type, uint32_t from)
{
	const void *found = NULL;

	for (uint32_t i = from; i < b.n_heard; i++) {
		if (b.heard[i].message.type == type)
			found = &b.heard[i];
	}
	return found;
}

static uint64_t
durable(void)
{
	const struct chp_host_batch *m = heard(CHP_HOST_DURABLE, 0);

	return m != NULL ? m->seq : 0;
}

static void
join(void)
{
	const struct chp_host_hello hello = hello_of(b.incarnation);

	send_hello(&hello);
	settle();
	cr_assert_eq(b.hello.type, CHP_HOST_WELCOME, "%s", b.hello.text);
	cr_assert_eq(b.hello.number, b.hellos);
	cr_assert_eq(b.hello.to_incarnation, b.incarnation);
}

/* Welcomed, and life 1 has begun. */
static void
begin(void)
{
	join();
	say_begin(b.record.life + 1);
	settle();
	serve_all();
	cr_assert_not_null(heard(CHP_HOST_BEGUN, 0));
	b.n_heard = 0;
}

static struct chp_dsi_status
status(void)
{
	struct chp_dsi_status s;

	chp_dsi_status(b.d, &s);
	return s;
}

/* ------------------------------------------------------------------ HELLO */

Test(dsi, welcomes_and_says_what_the_store_holds)
{
	b.record = (struct chp_store_record){ .life = 7, .batch = 99, .newest = 1234, .epoch = 5, .items = 10,
					      .tombstones = 3 };
	join();
	cr_assert_eq(b.hello.life, 7);
	cr_assert_eq(b.hello.batch, 99);
	cr_assert_eq(b.hello.newest, 1234);
	cr_assert_eq(b.hello.epoch, 5);
	cr_assert_eq(b.hello.items, 10);
	cr_assert_eq(b.hello.tombstones, 3);
	cr_assert_eq(b.hello.put_bytes, PUT_BYTES);
	cr_assert_eq(b.hello.loads, LOADS);
	cr_assert_eq(b.hello.store_flags, CHP_STORE_SCANS);
	cr_assert_str_eq(b.hello.text, "test store");
	cr_assert_eq(b.hello.incarnation, HOST_INCARNATION);
	cr_assert_not_null(heard(CHP_HOST_STATE, 0), "how the store is follows at once");
}

static void
expect_refusal(const struct chp_host_hello *hello, enum chp_host_refusal refusal, const char *text)
{
	b.n_hellos = 0;
	send_hello(hello);
	settle();
	cr_assert_eq(b.n_hellos, 1);
	cr_assert_eq(b.hello.type, CHP_HOST_REFUSED);
	cr_assert_eq(b.hello.refusal, refusal, "%u: %s", b.hello.refusal, b.hello.text);
	cr_assert_not_null(strstr(b.hello.text, text), "%s", b.hello.text);
	cr_assert_eq(b.hello.to_incarnation, hello->incarnation);
	cr_assert_eq(b.hello.prelude.cluster_hash, hello->prelude.cluster_hash, "or its receiver would drop it");
	cr_assert_eq(b.hello.node, hello->node);
	cr_assert_eq(b.hello.shard, hello->shard);
	cr_assert_str_eq(status().refused, b.hello.text, "this side says why, too");
	cr_assert_eq(status().shard_incarnation, 0);
}

Test(dsi, refuses_strangers_and_says_why)
{
	struct chp_host_hello h = hello_of(9);

	h.channel_version = 2;
	expect_refusal(&h, CHP_HOST_BAD_VERSION, "version 1 of the channel, the replica 2");
	h = hello_of(9);
	h.prelude.cluster_hash = 0xabcd;
	expect_refusal(&h, CHP_HOST_BAD_CLUSTER, "hash 00001234, the replica's 0000abcd");
	h = hello_of(9);
	h.hash_seed = 1;
	expect_refusal(&h, CHP_HOST_BAD_CLUSTER, "same file");
	h = hello_of(9);
	h.node = 1;
	expect_refusal(&h, CHP_HOST_BAD_NODE, "node 2's, the replica is node 1");
	h = hello_of(9);
	h.shards = 4;
	expect_refusal(&h, CHP_HOST_BAD_SHARD, "shard 1 of 2, the replica asks for 1 of 4");
	join();
	cr_assert_str_empty(status().refused);
}

Test(dsi, refuses_while_the_store_cannot_be_used)
{
	struct chp_host_hello h = hello_of(9);

	b.info.refusal = CHP_HOST_BAD_NODE;
	chp_host_text(b.info.text, "the store is node 1's, we are node 2");
	expect_refusal(&h, CHP_HOST_BAD_NODE, "the store is node 1's");
	b.info.refusal = CHP_HOST_OK;
	b.info.text[0] = '\0';
	b.tell_info = true;
	join();
}

Test(dsi, a_hello_for_a_shard_that_is_not_there_is_answered)
{
	struct chp_host_hello h = hello_of(9);
	uint8_t data[PAYLOAD] = { 0 }, to[PAYLOAD];
	uint32_t shard;

	h.shard = 5;
	h.shards = 8;
	memcpy(data, &h, sizeof(h));
	chp_peer_seal(data, sizeof(data));
	cr_assert(chp_dsi_shard_of(data, sizeof(data), &shard));
	cr_assert_eq(shard, 5);
	cr_assert_eq(chp_dsi_refuse_stray(&b.config, data, sizeof(data), to), sizeof(h));
	cr_assert_eq(chp_host_hello_check(to, sizeof(h), HASH), CHP_PACKET_OK);
	cr_assert_eq(((struct chp_host_hello *)(void *)to)->refusal, CHP_HOST_BAD_SHARD);
	cr_assert_not(chp_dsi_shard_of(data, 20, &shard));
	data[100]++;
	cr_assert_eq(chp_dsi_refuse_stray(&b.config, data, sizeof(data), to), 0);
}

/* ------------------------------------------------------------------ batches */

Test(dsi, durable_is_what_the_store_completed)
{
	begin();
	say_put("a", "1", 10);
	say_put("b", "2", 11);
	settle();
	cr_assert_eq(b.n_pending, 0, "nothing is written before its FLUSH");
	say_flush(1, 2);
	settle();
	cr_assert_eq(b.n_pending, 1);
	cr_assert_eq(b.pending[0]->n_items, 2);
	cr_assert_eq(durable(), 0, "nothing is durable before the store says so");
	serve_all();
	cr_assert_eq(durable(), 1);
	cr_assert_eq(b.record.items, 2);
	cr_assert_eq(status().put_bytes, 0);
}

Test(dsi, a_slow_store_gets_several_batches_as_one)
{
	uint64_t seq = 0;

	begin();
	for (uint32_t i = 0; i < 20; i++) {
		say_put("k", "v", 100 + i);
		say_flush(++seq, 1);
		settle();
	}
	cr_assert_eq(b.n_pending, CHP_DSI_WRITES_OPEN, "so many at a time, in order");
	cr_assert_eq(b.pending[0]->seq, 1);
	cr_assert_eq(b.pending[1]->seq, 2);
	(void)serve_one(0);
	settle();
	cr_assert_eq(durable(), 1);
	cr_assert_eq(b.n_pending, 2);
	cr_assert_eq(b.pending[1]->seq, 20);
	cr_assert_eq(b.pending[1]->n_items, 18);
	(void)serve_one(0);
	settle();
	cr_assert_eq(durable(), 2);
	serve_all();
	cr_assert_eq(durable(), 20);
}

Test(dsi, puts_behind_the_flush_wait_for_theirs)
{
	begin();
	say_put("a", "1", 10);
	say_flush(1, 1);
	say_put("b", "2", 11);
	settle();
	cr_assert_eq(b.pending[0]->n_items, 1);
	say_put("c", NULL, 12);
	say_flush(2, 2);
	settle();
	cr_assert_eq(b.n_pending, 2);
	cr_assert_eq(b.pending[1]->n_items, 2);
	cr_assert_eq(memcmp(b.pending[1]->item[0].key, "b", 1), 0);
	cr_assert_eq(memcmp(b.pending[1]->item[0].value, "2", 1), 0);
	cr_assert_null(b.pending[1]->item[1].value);
	cr_assert_eq(b.pending[1]->item[1].flags, CHP_HOST_TOMBSTONE);
	serve_all();
	cr_assert_eq(b.record.items, 3);
	cr_assert_eq(b.record.tombstones, 1);
}

static void
expect_reset(uint64_t excess, uint64_t bad_message)
{
	settle();
	cr_assert_eq(status().counters.excess, excess);
	cr_assert_eq(status().counters.bad_message, bad_message);
	cr_assert_eq(status().link.resets, 1);
	cr_assert_eq(b.link.session, 2, "the shard knows");
}

Test(dsi, a_shard_that_sends_too_much_is_cut_off)
{
	char value[1001];

	memset(value, 'x', 1000);
	value[1000] = '\0';
	begin();
	for (uint32_t i = 0; i < 9; i++)
		say_put("k", value, 10 + i);
	expect_reset(1, 0);
	cr_assert_eq(status().put_bytes, 0);
	/* And goes on in a new session. */
	join();
	say_put("k", "v", 10);
	say_flush(1, 1);
	settle();
	serve_all();
	cr_assert_eq(durable(), 1);
}

Test(dsi, a_flush_that_does_not_fit_is_cut_off)
{
	begin();
	say_put("k", "v", 10);
	say_flush(1, 2);
	expect_reset(0, 1);
}

Test(dsi, a_seq_that_does_not_rise_is_cut_off)
{
	begin();
	say_put("k", "v", 10);
	say_flush(1, 1);
	settle();
	serve_all();
	say_put("k", "v", 11);
	say_flush(1, 1);
	expect_reset(0, 1);
}

Test(dsi, nothing_is_put_before_a_life)
{
	join();
	say_put("k", "v", 10);
	expect_reset(0, 1);
}

Test(dsi, too_many_loads_are_cut_off)
{
	begin();
	for (uint32_t i = 0; i < LOADS; i++)
		say_load(i, "k");
	settle();
	say_load(LOADS, "k");
	expect_reset(1, 0);
	serve_all(); /* what is with the store comes back and nobody waits for it */
	cr_assert_null(heard(CHP_HOST_LOADED, 0));
	cr_assert_gt(status().counters.orphans, 0);
}

/* ------------------------------------------------------------------ lives */

Test(dsi, a_life_begins_when_it_is_durable)
{
	const struct chp_host_life *m;

	join();
	say_begin(5);
	settle();
	cr_assert_null(heard(CHP_HOST_BEGUN, 0));
	say_begin(9); /* the first view came to nothing, another one follows */
	settle();
	cr_assert_eq(b.n_pending, 1);
	serve_all();
	m = heard(CHP_HOST_BEGUN, 0);
	cr_assert_eq(m->life, 9);
	cr_assert_eq(b.record.life, 9);
	b.n_heard = 0;
	say_begin(9);
	settle();
	cr_assert_eq(b.n_pending, 0);
	cr_assert_not_null(heard(CHP_HOST_BEGUN, 0), "the present one is answered at once");
	b.n_heard = 0;
	say_begin(3);
	settle();
	cr_assert_eq(b.n_pending, 0);
	cr_assert_null(heard(CHP_HOST_BEGUN, 0));
	cr_assert_eq(status().counters.late_begins, 1);
}

Test(dsi, what_an_earlier_life_left_is_old)
{
	const struct chp_host_loaded *m;

	begin();
	say_put("a", "1", 10);
	say_put("b", NULL, 11);
	say_flush(1, 2);
	settle();
	serve_all();
	new_shard(SHARD_INCARNATION + 1);
	begin();
	cr_assert_eq(b.record.life, 2);
	say_put("c", "3", 5);
	say_flush(1, 1);
	settle();
	serve_all();
	b.n_heard = 0;
	say_load(7, "a");
	settle();
	serve_all();
	m = heard(CHP_HOST_LOADED, 0);
	cr_assert_eq(m->message.op, 7);
	cr_assert_eq(m->status, CHP_HOST_LOAD_FOUND);
	cr_assert_eq(m->item_flags, CHP_HOST_OLD);
	cr_assert_eq(m->version, UINT64_C(10) << 16);
	cr_assert_eq(m->value_len, 1);
	cr_assert_eq(*chp_host_loaded_value(m), '1');
	say_load(8, "b");
	settle();
	serve_all();
	m = heard(CHP_HOST_LOADED, 0);
	cr_assert_eq(m->status, CHP_HOST_LOAD_TOMBSTONE);
	cr_assert_eq(m->item_flags, CHP_HOST_OLD | CHP_HOST_TOMBSTONE);
	say_load(9, "c");
	settle();
	serve_all();
	m = heard(CHP_HOST_LOADED, 0);
	cr_assert_eq(m->status, CHP_HOST_LOAD_FOUND);
	cr_assert_eq(m->item_flags, 0);
	say_load(10, "d");
	settle();
	serve_all();
	m = heard(CHP_HOST_LOADED, 0);
	cr_assert_eq(m->status, CHP_HOST_LOAD_ABSENT);
}

Test(dsi, an_epoch_is_recorded_behind_the_batches_before_it)
{
	begin();
	for (uint64_t seq = 1; seq <= 4; seq++) {
		say_put("k", "v", 10 + seq);
		say_flush(seq, 1);
		settle();
	}
	say_record(42);
	settle();
	for (uint32_t i = 0; i < b.n_pending; i++)
		cr_assert_neq(b.pending[i]->type, CHP_STORE_RECORD, "batches wait in front of it");
	(void)serve_one(0);
	settle();
	cr_assert_eq(b.pending[b.n_pending - 1]->type, CHP_STORE_RECORD);
	cr_assert_null(heard(CHP_HOST_RECORDED, 0));
	serve_all();
	cr_assert_not_null(heard(CHP_HOST_RECORDED, 0));
	cr_assert_eq(b.record.epoch, 42);
	cr_assert_eq(b.record.batch, 4);
}

/* ------------------------------------------------------------------ incarnations and sessions */

Test(dsi, a_new_incarnation_is_welcomed_when_earlier_writes_are_done)
{
	struct chp_host_hello h;

	begin();
	say_put("a", "1", 10);
	say_flush(1, 1);
	settle();
	say_put("b", "2", 11);
	say_flush(2, 1);
	settle();
	say_put("c", "3", 12);
	say_flush(3, 1);
	settle();
	cr_assert_eq(b.n_pending, 2);
	new_shard(SHARD_INCARNATION + 1);
	h = hello_of(SHARD_INCARNATION + 1);
	b.n_hellos = 0;
	send_hello(&h);
	settle();
	cr_assert_eq(b.n_hellos, 0, "what the store holds is not known yet");
	serve_all();
	settle();
	cr_assert_eq(b.n_hellos, 1);
	cr_assert_eq(b.hello.type, CHP_HOST_WELCOME);
	cr_assert_eq(b.hello.batch, 2, "the third never went to the store");
	cr_assert_eq(b.hello.incarnation, HOST_INCARNATION + 1, "no link begins twice");
	cr_assert_eq(b.hello.life, 1);
	cr_assert_eq(durable(), 0, "nobody waits for the old one's");
	/* A late HELLO of the one before changes nothing. */
	h = hello_of(SHARD_INCARNATION);
	h.number = 1;
	send_hello(&h);
	settle();
	cr_assert_eq(b.n_hellos, 1);
	cr_assert_eq(status().shard_incarnation, SHARD_INCARNATION + 1);
}

Test(dsi, a_late_hello_of_one_that_was_never_seen_does_no_lasting_harm)
{
	struct chp_host_hello dead = hello_of(SHARD_INCARNATION + 9);

	begin();
	send_hello(&dead);
	settle();
	cr_assert_eq(b.hello.to_incarnation, SHARD_INCARNATION + 9, "nobody can know");
	join();
	cr_assert_eq(status().shard_incarnation, SHARD_INCARNATION, "it lives: its numbers go on to rise");
	send_hello(&dead);
	settle();
	cr_assert_eq(status().shard_incarnation, SHARD_INCARNATION);
	say_put("k", "v", 10);
	say_flush(1, 1);
	settle();
	serve_all();
	cr_assert_eq(durable(), 1);
}

Test(dsi, an_epoch_does_not_wait_for_batches_that_a_reset_dropped)
{
	begin();
	for (uint64_t seq = 1; seq <= 3; seq++) {
		say_put("k", "v", 10 + seq);
		say_flush(seq, 1);
		settle();
	}
	chp_link_reset(&b.link, b.now);
	b.at = b.end = NULL;
	settle();
	serve_all();
	join();
	say_record(7);
	settle();
	serve_all();
	cr_assert_eq(b.record.epoch, 7);
	cr_assert_eq(b.record.batch, 2);
}

Test(dsi, a_store_that_is_down_is_no_silence)
{
	struct chp_host_hello h;

	begin();
	say_put("a", "1", 10);
	say_flush(1, 1);
	settle();
	b.info.state = CHP_STORE_DOWN;
	chp_host_text(b.info.text, "disk full");
	b.tell_info = true;
	settle();
	cr_assert_eq(((const struct chp_host_state *)heard(CHP_HOST_STATE, 0))->state, CHP_STORE_DOWN);
	cr_assert_str_eq(((const struct chp_host_state *)heard(CHP_HOST_STATE, 0))->text, "disk full");
	new_shard(SHARD_INCARNATION + 1);
	h = hello_of(SHARD_INCARNATION + 1);
	send_hello(&h);
	settle();
	cr_assert_eq(b.hello.type, CHP_HOST_REFUSED);
	cr_assert_eq(b.hello.refusal, CHP_HOST_NO_STORE);
	cr_assert_not_null(strstr(b.hello.text, "disk full"));
	serve_all();
	join();
	cr_assert_eq(b.hello.batch, 1);
}

Test(dsi, a_session_ends_what_was_not_with_the_store)
{
	begin();
	for (uint64_t seq = 1; seq <= 4; seq++) {
		say_put("k", "v", 10 + seq);
		say_flush(seq, 1);
		settle();
	}
	say_load(3, "k");
	settle();
	chp_link_reset(&b.link, b.now);
	b.at = b.end = NULL;
	settle();
	serve_all();
	cr_assert_eq(b.record.batch, 2);
	cr_assert_null(heard(CHP_HOST_LOADED, 0), "the shard asks again");
	join();
	cr_assert_eq(b.hello.batch, 2);
	say_put("k", "v", 14);
	say_flush(5, 1);
	settle();
	serve_all();
	cr_assert_eq(durable(), 5);
}

Test(dsi, a_restarted_host_goes_on_in_the_same_life)
{
	begin();
	say_put("k", "v", 10);
	say_flush(1, 1);
	settle();
	serve_all();
	chp_dsi_destroy(b.d);
	create(2 * HOST_INCARNATION);
	run_host();
	join();
	cr_assert_eq(b.hello.incarnation, 2 * HOST_INCARNATION);
	cr_assert_eq(b.hello.life, 1);
	cr_assert_eq(b.hello.batch, 1);
	say_put("k", "w", 11);
	say_flush(3, 1);
	settle();
	serve_all();
	cr_assert_eq(durable(), 3);
}

Test(dsi, a_hello_while_linked_is_answered_at_once_and_changes_nothing)
{
	begin();
	say_put("a", "1", 10);
	say_flush(1, 1);
	say_put("b", "2", 11);
	say_load(3, "a");
	say_scan(0, 1000, CHP_HOST_SCAN_START);
	settle();
	join();
	cr_assert_eq(b.hello.incarnation, HOST_INCARNATION);
	cr_assert_eq(b.hello.batch, 0);
	say_flush(2, 1);
	settle();
	serve_all();
	cr_assert_eq(durable(), 2);
	cr_assert_not_null(heard(CHP_HOST_LOADED, 0));
	cr_assert_not_null(heard(CHP_HOST_SCANNED, 0));
	cr_assert_eq(status().link.resets, 0);
	cr_assert_eq(status().counters.incarnations, 1);
}

/* ------------------------------------------------------------------ scans, state, loss */

static uint32_t
scan_part(uint32_t op, uint32_t bytes, uint32_t flags, uint32_t *end)
{
	const uint32_t from = b.n_heard;
	const struct chp_host_scanned *m;
	uint32_t n = 0;

	say_scan(op, bytes, flags);
	settle();
	serve_all();
	m = heard(CHP_HOST_SCANNED, from);
	cr_assert_not_null(m);
	cr_assert_eq(m->message.op, op);
	for (uint32_t i = from; i < b.n_heard; i++)
		n += b.heard[i].message.type == CHP_HOST_ITEM;
	cr_assert_eq(m->items, n);
	*end = m->scanned_flags;
	return n;
}

/* Keys of shard 1 only: the adapter gives no others. */
static uint32_t
put_many(uint32_t n, uint64_t *seq)
{
	uint32_t mine = 0;
	char key[16];

	for (uint32_t i = 0; i < n; i++) {
		(void)snprintf(key, sizeof(key), "key%u", i);
		mine += chp_shard_of(chp_digest_of(key, (uint32_t)strlen(key), SEED), 2) == 1;
		say_put(key, "some value", 100 + i);
		say_flush(++*seq, 1);
		settle();
		serve_all();
	}
	return mine;
}

Test(dsi, a_scan_gives_everything_in_parts)
{
	uint32_t mine, n = 0, end = 0, parts = 0;
	uint64_t seq = 0;

	begin();
	mine = put_many(60, &seq);
	cr_assert_gt(mine, 10);
	while (end == 0) {
		uint32_t got = scan_part(64, 200, parts == 0 ? CHP_HOST_SCAN_START : 0, &end);

		cr_assert_leq(got * chp_host_item_bytes(4, 10), 200);
		n += got;
		parts++;
	}
	cr_assert_eq(end, CHP_HOST_SCAN_END);
	cr_assert_eq(n, mine);
	cr_assert_gt(parts, 3);
	cr_assert_eq(scan_part(64, 200, 0, &end), 0);
	cr_assert_eq(end, CHP_HOST_SCAN_FAILED, "there was nothing to go on from");
	cr_assert_eq(scan_part(3, 4096, CHP_HOST_SCAN_START | CHP_HOST_SCAN_OLD, &end), 0, "nothing is old");
	cr_assert_eq(end, CHP_HOST_SCAN_END);
	new_shard(SHARD_INCARNATION + 1);
	begin();
	n = scan_part(3, 100000, CHP_HOST_SCAN_START | CHP_HOST_SCAN_OLD, &end);
	while (end == 0)
		n += scan_part(3, 100000, CHP_HOST_SCAN_OLD, &end);
	cr_assert_eq(n, mine, "now everything is");
	cr_assert_eq(scan_part(3, 100000, CHP_HOST_SCAN_START, &end), 0);
}

Test(dsi, a_store_that_cannot_list_says_so)
{
	uint32_t end;

	b.info.flags = 0;
	begin();
	cr_assert_eq(scan_part(0, 4096, CHP_HOST_SCAN_START, &end), 0);
	cr_assert_eq(end, CHP_HOST_SCAN_FAILED);
}

Test(dsi, many_scans_run_two_at_a_time)
{
	uint32_t done = 0;

	begin();
	for (uint32_t op = 0; op < CHP_HOST_SCANS; op++)
		say_scan(op, 1000, CHP_HOST_SCAN_START);
	settle();
	cr_assert_eq(b.n_pending, CHP_DSI_SCANS_OPEN);
	serve_all();
	for (uint32_t i = 0; i < b.n_heard; i++)
		done += b.heard[i].message.type == CHP_HOST_SCANNED;
	cr_assert_eq(done, CHP_HOST_SCANS);
}

Test(dsi, counts_are_told_now_and_then)
{
	const struct chp_host_state *m;

	begin();
	say_put("k", "v", 10);
	say_flush(1, 1);
	settle();
	serve_all();
	cr_assert_null(heard(CHP_HOST_STATE, 0));
	b.now += 1000 * MS;
	settle();
	m = heard(CHP_HOST_STATE, 0);
	cr_assert_not_null(m);
	cr_assert_eq(m->items, 1);
	cr_assert_eq(m->state, CHP_STORE_OK);
	cr_assert_eq(m->text[0], '\0');
}

Test(dsi, when_nothing_happens_nothing_is_due)
{
	begin();
	b.now += 5000 * MS;
	settle();
	cr_assert_gt(b.wake, b.now);
}

Test(dsi, survives_loss_and_a_lazy_store)
{
	uint64_t seq = 0, newest = 0, loads = 0, answers = 0;

	begin();
	b.drop_ppm = 100000;
	for (uint32_t round = 0; round < 3000; round++) {
		if (seq - durable() < 20 && chp_link_room(&b.link) > 8) {
			say_put("key", "value", ++newest);
			say_flush(++seq, 1);
			if (loads - answers < 50)
				say_load((uint32_t)loads++, "key");
		}
		run_shard();
		run_host();
		b.now += MS / 4;
		if (b.n_pending > 0 && chp_random_below(&b.random, 4) == 0)
			(void)serve_one(0);
		answers = 0;
		for (uint32_t i = 0; i < b.n_heard; i++)
			answers += b.heard[i].message.type == CHP_HOST_LOADED;
	}
	b.drop_ppm = 0;
	settle();
	serve_all();
	cr_assert_gt(seq, 100);
	cr_assert_eq(durable(), seq);
	cr_assert_eq(b.record.newest, 0, "the driver's, here nobody's");
	cr_assert_eq(b.record.items, 1);
	answers = 0;
	for (uint32_t i = 0; i < b.n_heard; i++)
		answers += b.heard[i].message.type == CHP_HOST_LOADED;
	cr_assert_eq(answers, loads, "each load is answered once");
	cr_assert_eq(status().link.resets, 0);
	cr_assert_lt(status().counters.writes, status().counters.batches, "group commit");
}

Test(dsi, bad_configurations_are_refused)
{
	struct chp_dsi_config c = b.config;
	int err = 0;

	cr_assert_gt(chp_dsi_bytes(&c), PUT_BYTES);
	c.put_bytes = 100;
	cr_assert_null(chp_dsi_create(&c, &err));
	cr_assert_eq(err, -EINVAL);
	c = b.config;
	c.shard = 2;
	cr_assert_null(chp_dsi_create(&c, &err));
	cr_assert_eq(err, -EINVAL);
}
