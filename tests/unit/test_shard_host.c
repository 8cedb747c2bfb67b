/* SPDX-License-Identifier: BSD-3-Clause */
/* A shard of a cluster of one with its host: the protocol, the channel's two ends and a store, in one place. */
#include "base/bytes.h"
#include "core/shard.h"
#include "dsi/dsi.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS UINT64_C(1000000)
#define US UINT64_C(1000)
#define HASH 0x1234u
#define PAYLOAD CHP_PAYLOAD_BYTES_MIN
#define KEYS 1000u
#define BUFFERS 8u
#define PENDING 32u

struct stored {
	uint64_t life, version;
	uint8_t flags;
	uint32_t value_len;
	uint8_t value[64];
};

struct bench {
	struct chp_shard *s;
	struct chp_view view;
	uint64_t now, request, founding;
	bool view_waits;
	uint64_t wake_ns;
	struct chp_reply reply; /* the last */
	uint8_t value[CHP_VALUE_BYTES_MAX];
	uint32_t n_replies, n_host_packets;

	struct chp_dsi *d; /* NULL: no host */
	bool tell_info, is_stalled;
	struct chp_store_info info;
	struct chp_store_record record;
	struct chp_store_request *pending[PENDING];
	uint32_t n_pending;
	struct stored stored[KEYS];
};

static struct chp_shard_config
config_of(void)
{
	return (struct chp_shard_config){
		.protocol = &chp_hermes,
		.application = &chp_store,
		.memory = &chp_memory_libc,
		.name = "host",
		.cluster_hash = HASH,
		.shards = 1,
		.n_nodes = 1,
		.payload_bytes_max = PAYLOAD,
		.key_bytes_max = CHP_KEY_BYTES_MAX,
		.value_bytes_max = 64,
		.keys_max = 64,
		.value_blocks_max = 64,
		.sessions_max = 8,
		.session_window = 4,
		.session_idle_ns = CHP_NEVER,
		.credits = 8,
		.link_window = 16,
		.log_entries = 256,
		.log_blocks = 256 * CHP_RECORD_BLOCKS_MAX,
		.ops = 16,
		.copy_bytes = 4096,
		.rto_ns_min = MS,
		.rto_ns_max = 16 * MS,
		.link_down_ns = CHP_NEVER,
		.has_host = true,
		.incarnation = 77,
		.batch_items = 16,
		.batch_bytes = 4096,
		.batch_age_ns = 500 * US,
		.loads_max = 16,
		.busy_fill_percent = 80,
	};
}

static void
start_host(struct bench *b, uint64_t incarnation)
{
	const struct chp_dsi_config config = { .memory = &chp_memory_libc,
					       .cluster_hash = HASH,
					       .shards = 1,
					       .key_bytes_max = CHP_KEY_BYTES_MAX,
					       .value_bytes_max = 64,
					       .payload_bytes_max = PAYLOAD,
					       .incarnation = incarnation,
					       .put_bytes = 16384,
					       .loads = 16,
					       .scan_bytes = 2048,
					       .window = 16,
					       .queue = 64,
					       .rto_ns_min = MS,
					       .rto_ns_max = 16 * MS };
	int err = 0;

	b->d = chp_dsi_create(&config, &err);
	cr_assert_not_null(b->d);
	b->tell_info = true;
}

static struct bench *
bench_with(const struct chp_shard_config *config)
{
	struct bench *b = calloc(1, sizeof(*b));
	int err = 0;

	cr_assert_not_null(b);
	b->s = chp_shard_create(config, &err);
	cr_assert_not_null(b->s);
	b->now = 1000 * MS;
	b->info = (struct chp_store_info){ .flags = CHP_STORE_SCANS, .name = "a store" };
	b->view = (struct chp_view){ .epoch = 1, .voters = 1, .incarnation = { 5 }, .writer = { 1 }, .next_writer = 2 };
	b->view_waits = true;
	return b;
}

static void
done(struct bench *b)
{
	chp_shard_check(b->s);
	chp_shard_destroy(b->s);
	chp_dsi_destroy(b->d);
	free(b);
}

/* ---- the store ---- */

static struct stored *
stored_of(struct bench *b, const uint8_t *key)
{
	const uint32_t at = (uint32_t)strtoul((const char *)key + 1, NULL, 10);

	cr_assert_lt(at, KEYS);
	return &b->stored[at];
}

static void
write_items(struct bench *b, const struct chp_store_request *r)
{
	for (uint32_t i = 0; i < r->n_items; i++) {
		const struct chp_store_item *item = &r->item[i];
		struct stored *s = stored_of(b, item->key);

		if (!chp_store_is_newer(item->life, item->version, s->life, s->version))
			continue;
		*s = (struct stored){ item->life, item->version, item->flags, item->value_len, { 0 } };
		if (item->value_len > 0)
			memcpy(s->value, item->value, item->value_len);
	}
	b->record.batch = r->seq;
}

static void
execute(struct bench *b, struct chp_store_request *r)
{
	if (r->type == CHP_STORE_BEGIN) {
		b->record.life = r->life;
		b->record.batch = 0;
	} else if (r->type == CHP_STORE_WRITE) {
		write_items(b, r);
	} else if (r->type == CHP_STORE_RECORD) {
		b->record.epoch = r->epoch;
	}
	for (uint32_t i = 0; r->type == CHP_STORE_READ && i < r->n_reads; i++) {
		struct chp_store_read *read = &r->read[i];
		const struct stored *s = stored_of(b, read->key);

		read->found = s->version == 0 ? CHP_STORE_ABSENT :
			      (s->flags & CHP_HOST_TOMBSTONE) != 0 ? CHP_STORE_TOMBSTONE : CHP_STORE_FOUND;
		read->version = s->version;
		read->life = s->life;
		read->flags = s->flags;
		read->value_len = s->value_len;
		memcpy(read->value, s->value, s->value_len);
	}
	r->record = b->record;
}

/* ---- running ---- */

static uint8_t *
take_reply(void *frontend, const struct chp_reply *r)
{
	struct bench *b = frontend;

	b->reply = *r;
	b->n_replies++;
	return b->value;
}

/* A run of the host with the packets that the shard has sent; what it says goes to *packet. */
static void
run_host(struct bench *b, const struct chp_dsi_packet *from, uint32_t n, struct chp_packet *packet, uint32_t *n_packets)
{
	static uint8_t memory[BUFFERS][PAYLOAD];
	struct chp_store_request *completed[PENDING];
	struct chp_dsi_buffer buffer[BUFFERS];
	struct chp_dsi_events in = { .packet = from, .n_packets = n, .done = completed };
	struct chp_dsi_effects out = { .buffer = buffer, .n_buffers = BUFFERS };

	for (uint32_t i = 0; i < BUFFERS; i++)
		buffer[i].data = memory[i];
	for (; !b->is_stalled && in.n_done < b->n_pending; in.n_done++) {
		execute(b, b->pending[in.n_done]);
		completed[in.n_done] = b->pending[in.n_done];
	}
	if (in.n_done > 0)
		b->n_pending = 0;
	if (b->tell_info) {
		in.info = &b->info;
		in.record = &b->record;
	}
	b->tell_info = false;
	chp_dsi_run(b->d, b->now, &in, &out);
	for (uint32_t i = 0; i < out.n_requests; i++)
		b->pending[b->n_pending++] = out.request[i];
	for (uint32_t i = 0; i < out.n_used; i++)
		packet[i] = (struct chp_packet){ buffer[i].data, buffer[i].len };
	*n_packets = out.n_used;
}

static void
run(struct bench *b, struct chp_op *op, const struct chp_packet *packet, uint32_t n_packets)
{
	static uint8_t memory[BUFFERS][PAYLOAD];
	static struct chp_packet from_host[BUFFERS];
	struct chp_now now = { .ns = b->now, .lease_until_ns = CHP_NEVER };
	struct chp_buffer buffer[BUFFERS];
	struct chp_dsi_packet sent[BUFFERS];
	struct chp_events in = { .packet = packet, .n_packets = n_packets, .op = op, .n_ops = op != NULL };
	struct chp_effects fx = { .buffer = buffer, .n_buffers = BUFFERS, .reply = take_reply, .frontend = b,
				  .reply_room = CHP_BATCH_MAX };

	for (uint32_t i = 0; i < BUFFERS; i++)
		buffer[i].data = memory[i];
	in.founding = b->founding;
	if (b->view_waits)
		in.view = &b->view;
	b->view_waits = false;
	chp_shard_run(b->s, &now, &in, &fx);
	b->wake_ns = fx.wake_ns;
	for (uint32_t i = 0; i < fx.n_used; i++) {
		cr_assert_eq(buffer[i].peer, CHP_TO_HOST);
		chp_peer_seal(buffer[i].data, buffer[i].len);
		sent[i] = (struct chp_dsi_packet){ buffer[i].data, buffer[i].len };
	}
	b->n_host_packets = 0;
	if (b->d == NULL)
		return;
	run_host(b, sent, fx.n_used, from_host, &b->n_host_packets);
	if (b->n_host_packets > 0)
		run(b, NULL, from_host, b->n_host_packets);
}

static void
pass(struct bench *b, uint64_t ns)
{
	for (const uint64_t until = b->now + ns; b->now < until;) {
		b->now += 50 * US;
		run(b, NULL, NULL, 0);
	}
}

/* An operation, given time to be answered. Returns its status, or -1 without an answer. */
static int
ask(struct bench *b, uint8_t opcode, uint32_t key, const char *value)
{
	char name[16];
	struct chp_op op = { .opcode = opcode, .request = ++b->request };
	const uint32_t before = b->n_replies;

	snprintf(name, sizeof(name), "k%u", key);
	op.key = (struct chp_key){ .bytes = (const uint8_t *)name, .len = (uint32_t)strlen(name) + 1 };
	op.value = (const uint8_t *)value;
	op.value_len = value == NULL ? 0 : (uint32_t)strlen(value) + 1;
	b->now += 10 * US;
	run(b, &op, NULL, 0);
	for (uint32_t i = 0; i < 200 && b->n_replies == before; i++) {
		b->now += 50 * US;
		run(b, NULL, NULL, 0);
	}
	return b->n_replies == before ? -1 : b->reply.status;
}

static struct chp_host_status
status(const struct bench *b)
{
	struct chp_host_status s;

	chp_shard_host_status(b->s, b->now, &s);
	return s;
}

static struct chp_shard_stats
stats(const struct bench *b)
{
	struct chp_shard_stats s;

	chp_shard_stats(b->s, &s);
	return s;
}

static struct bench *
ready(const struct chp_shard_config *config)
{
	struct bench *b = bench_with(config);

	start_host(b, 500);
	pass(b, 5 * MS);
	cr_assert_eq(status(b).state, CHP_HOST_READY);
	return b;
}

Test(shard_host, a_cache_in_front_of_a_store_many_times_its_size)
{
	const struct chp_shard_config config = config_of();
	struct bench *b = ready(&config);
	char value[16];

	for (uint32_t i = 0; i < KEYS; i++) {
		int got;

		snprintf(value, sizeof(value), "v%u", i);
		while ((got = ask(b, CHP_OPCODE_PUT, i, value)) == CHP_STATUS_OVERLOAD || got == CHP_STATUS_BUSY)
			pass(b, MS);
		cr_assert_eq(got, CHP_STATUS_OK, "key %u: %d", i, got);
	}
	for (uint32_t i = 0; i < KEYS; i++) {
		snprintf(value, sizeof(value), "v%u", i);
		cr_assert_eq(ask(b, CHP_OPCODE_GET, i, NULL), CHP_STATUS_OK, "key %u", i);
		cr_assert_str_eq((const char *)b->value, value);
	}
	cr_assert_leq(stats(b).cache.keys, 64 + 8 + 16);
	cr_assert_geq(stats(b).host.loads, KEYS - 100);
	pass(b, 5 * MS);
	cr_assert(chp_shard_is_idle(b->s));
	for (uint32_t i = 0; i < KEYS; i++)
		cr_assert_neq(b->stored[i].version, 0);
	done(b);
}

Test(shard_host, a_log_that_fills_up_refuses_writes_and_loses_nothing)
{
	const struct chp_shard_config config = config_of();
	struct bench *b = ready(&config);
	uint32_t n = 0;
	int got;

	/* The host has gone: what is written stays in the log, up to 80 % of it. */
	pass(b, 5 * MS);
	chp_dsi_destroy(b->d);
	b->d = NULL;
	pass(b, 2300 * MS);
	while ((got = ask(b, CHP_OPCODE_PUT, n % 10, "before")) == CHP_STATUS_OK && n < 1000)
		n++;
	cr_assert(got == CHP_STATUS_BUSY || got == CHP_STATUS_OVERLOAD, "%d", got);
	cr_assert(n >= 190 && n <= 256 * 80 / 100, "%u", n);
	cr_assert_eq(status(b).state, CHP_HOST_AWAY);
	cr_assert_eq(status(b).backlog, n);
	cr_assert_geq(status(b).log_fill_ppm, 700000);
	cr_assert_eq(ask(b, CHP_OPCODE_GET, 3, NULL), CHP_STATUS_OK, "what is cached is read");
	/* It comes: everything outstanding goes, and writes go on. */
	start_host(b, 600);
	pass(b, 1500 * MS);
	cr_assert_eq(status(b).state, CHP_HOST_READY);
	cr_assert_eq(status(b).backlog, 0);
	cr_assert_eq(status(b).log_fill_ppm, 0);
	cr_assert_eq(ask(b, CHP_OPCODE_PUT, 5, "after"), CHP_STATUS_OK);
	pass(b, 5 * MS);
	for (uint32_t i = 0; i < 10; i++)
		cr_assert_str_eq((const char *)b->stored[i].value, i == 5 ? "after" : "before");
	cr_assert(stats(b).host.coalesced > 0);
	done(b);
}

Test(shard_host, level_datastore_answers_when_it_is_durable)
{
	struct chp_shard_config config = config_of();
	struct bench *b;

	config.is_durable = true;
	b = ready(&config);
	b->is_stalled = true;
	cr_assert_eq(ask(b, CHP_OPCODE_PUT, 1, "x"), -1, "the store has not done it");
	cr_assert_eq(b->stored[1].version, 0);
	b->is_stalled = false;
	pass(b, MS);
	cr_assert_eq(b->reply.status, CHP_STATUS_OK);
	cr_assert_str_eq((const char *)b->stored[1].value, "x");
	done(b);
}

Test(shard_host, it_is_idle_when_all_is_saved)
{
	const struct chp_shard_config config = config_of();
	struct bench *b = ready(&config);

	pass(b, 5 * MS);
	cr_assert(chp_shard_is_idle(b->s));
	cr_assert_eq(ask(b, CHP_OPCODE_PUT, 1, "x"), CHP_STATUS_OK);
	cr_assert(!chp_shard_is_idle(b->s));
	cr_assert(b->wake_ns <= b->now + 500 * US, "the batch grows old");
	pass(b, 5 * MS);
	cr_assert(chp_shard_is_idle(b->s));
	cr_assert_eq(status(b).epoch, 1);
	cr_assert_gt(stats(b).host_link.tx_packets, 0);
	done(b);
}

Test(shard_host, a_founding_reaches_the_store_before_there_is_a_view)
{
	const struct chp_shard_config config = config_of();
	struct bench *b = bench_with(&config);

	b->view_waits = false;
	b->founding = 1u << 20 | 1;
	start_host(b, 500);
	pass(b, 5 * MS);
	cr_assert_eq(status(b).state, CHP_HOST_WAITING);
	cr_assert_eq(status(b).life, 1u << 20 | 1);
	cr_assert_eq(b->record.life, 1u << 20 | 1);
	b->view.epoch = 1u << 20 | 1;
	b->view_waits = true;
	pass(b, 5 * MS);
	cr_assert_eq(status(b).state, CHP_HOST_READY);
	cr_assert_eq(b->record.life, 1u << 20 | 1, "it begins once");
	cr_assert_eq(b->record.epoch, 1u << 20 | 1);
	done(b);
}

Test(shard_host, packets_for_another_shard_or_without_a_host_are_misdirected)
{
	struct chp_shard_config config = config_of();
	struct chp_host_hello hello = { .prelude = { CHP_WIRE_MAGIC, CHP_WIRE_VERSION, CHP_PACKET_HOST_HELLO, HASH },
					.type = CHP_HOST_REFUSED,
					.channel_version = CHP_CHANNEL_VERSION,
					.shard = 1,
					.number = 1,
					.refusal = CHP_HOST_NO_STORE,
					.incarnation = 5,
					.to_incarnation = 77 };
	struct chp_peer_header header = { .prelude = { CHP_WIRE_MAGIC, CHP_WIRE_VERSION, CHP_PACKET_HOST, HASH },
					  .shard = 1 };
	struct chp_packet packet[2] = { { (const uint8_t *)&hello, sizeof(hello) },
					{ (const uint8_t *)&header, sizeof(header) } };
	struct bench *b = bench_with(&config);

	run(b, NULL, packet, 2);
	cr_assert_eq(stats(b).shard.misdirected, 2);
	cr_assert_eq(chp_shard_buffers_min(b->s), 2);
	done(b);
	config.has_host = false;
	b = bench_with(&config);
	hello.shard = header.shard = 0;
	run(b, NULL, packet, 2);
	cr_assert_eq(stats(b).shard.misdirected, 2);
	cr_assert_eq(stats(b).host.hellos, 0);
	cr_assert_eq(status(b).state, CHP_HOST_NONE);
	cr_assert_eq(chp_shard_buffers_min(b->s), 1);
	done(b);
}

Test(shard_host, a_protocol_that_is_not_backed_gets_no_host)
{
	struct chp_shard_config config = config_of();
	struct chp_protocol other = *config.protocol;
	struct bench *b;

	other.is_backed = false;
	config.protocol = &other;
	b = bench_with(&config);
	pass(b, 5 * MS);
	cr_assert_eq(stats(b).host.hellos, 0);
	cr_assert_eq(status(b).state, CHP_HOST_NONE);
	done(b);
}

Test(shard_host, its_memory_is_counted)
{
	struct chp_shard_config config = config_of();
	struct chp_shard_bytes with, without;

	chp_shard_bytes(&config, &with);
	config.has_host = false;
	chp_shard_bytes(&config, &without);
	cr_assert_geq(with.links, without.links + 128 * PAYLOAD);
	cr_assert_eq(with.total - without.total, with.links - without.links);
}
