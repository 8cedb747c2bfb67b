/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Three replicas in one process, each with a host and a datastore behind its cache: what is written arrives there, what
 * is not in the cache comes from there, hosts and channels die and come back.
 */
#include "caller.h"

#include "channel/memory.h"
#include "datastore/request.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <rte_cycles.h>
#include <stdio.h>
#include <string.h>

#define CLUSTER                                                                                    \
	"\"keys_max\": 4096, \"value_blocks_max\": 4096, \"sessions_max\": 64, "                    \
	"\"session_window\": 16, \"credits\": 64,"
/* A cache that holds a few of the keys. */
#define SMALL                                                                                      \
	"\"keys_max\": 200, \"value_blocks_max\": 200, \"sessions_max\": 64, \"session_window\": 16, " \
	"\"credits\": 32,"
#define RINGS "\"rx_ring\": 256, \"tx_ring\": 256, \"stage_ring\": 256,"
#define NODE RINGS LOCAL_PATIENT
#define SUSPICIOUS RINGS "\"timers\": { \"suspect_us\": 400000, \"lease_us\": 150000, \"link_down_ms\": 1000 },"
/* The host stage on an lcore of its own. */
#define TWO_LCORES                                                                                 \
	"[{ \"lcore\": 0, \"stages\": [\"rx0\", \"shard0\", \"tx0\", \"control\"] }, "                \
	"{ \"lcore\": 1, \"stages\": [\"host\"] }]"

static struct local l;
static struct caller c;

static void
start(struct local_options o)
{
	struct chp_error error = { 0 };

	cr_assert(caller_start_eal("0"));
	o.replicas = 3;
	o.shards = o.shards != 0 ? o.shards : 1;
	o.cluster = o.cluster != NULL ? o.cluster : CLUSTER;
	o.node = o.node != NULL ? o.node : NODE;
	o.hosts = true;
	cr_assert_eq(local_create(&l, &o, &error), 0, "%s", error.text);
	cr_assert_eq(caller_init(&c, &l), 0);
	cr_assert(local_wait_serving(&l));
}

/* Poll until a condition holds. */
#define WAIT_FOR(condition)                                                                        \
	do {                                                                                       \
		uint64_t until = rte_rdtsc() + 20 * rte_get_tsc_hz();                              \
		while (!(condition)) {                                                             \
			cr_assert_lt(rte_rdtsc(), until, "%s", #condition);                        \
			(void)local_poll(&l);                                                      \
		}                                                                                  \
	} while (0)

static const struct chp_host_status *
status_of(uint32_t replica, uint32_t shard)
{
	static struct chp_host_status s;
	uint64_t now = (uint64_t)((double)rte_rdtsc() / (double)rte_get_tsc_hz() * 1e9);

	chp_shard_host_status(chp_pipeline_shard(l.replica[replica], shard), now, &s);
	return &s;
}

/* Whether everything that was written is durable at every replica that runs. */
static bool
all_saved(void)
{
	for (uint32_t i = 0; i < l.options.replicas; i++) {
		for (uint32_t s = 0; s < l.options.shards && l.replica[i] != NULL; s++) {
			if (status_of(i, s)->state != CHP_HOST_READY || status_of(i, s)->backlog > 0)
				return false;
		}
	}
	return true;
}

static struct chp_shard_stats *
stats_of(uint32_t replica, uint32_t shard)
{
	static struct chp_shard_stats s;

	chp_shard_stats(chp_pipeline_shard(l.replica[replica], shard), &s);
	return &s;
}

static void
name_of(uint32_t i, char key[16], char value[64])
{
	(void)snprintf(key, 16, "key%u", i);
	(void)snprintf(value, 64, "value %u %*u", i, (int)(i % 40), i);
}

/* An operation that is tried again while the replica says that it has no room just now. */
static const struct caller_reply *
call(uint32_t replica, uint8_t opcode, const char *key, const char *value)
{
	uint64_t until = rte_rdtsc() + 20 * rte_get_tsc_hz();
	const struct caller_reply *r;

	do {
		r = caller_call(&c, replica, opcode, key, value, 0);
		cr_assert(r != NULL, "%s", key);
		for (uint32_t i = 0; i < 50; i++)
			(void)local_poll(&l);
	} while ((r->status == CHP_STATUS_BUSY || r->status == CHP_STATUS_FULL) && rte_rdtsc() < until);
	return r;
}

static void
put_keys(uint32_t first, uint32_t n)
{
	char key[16], value[64];

	for (uint32_t i = first; i < first + n; i++) {
		const struct caller_reply *r;

		name_of(i, key, value);
		r = call(i % 3, CHP_OPCODE_PUT, key, value);
		cr_assert_eq(r->status, CHP_STATUS_OK, "put %s: %s", key, chp_status_name(r->status));
	}
}

static void
get_keys(uint32_t first, uint32_t n)
{
	char key[16], value[64];

	for (uint32_t i = first; i < first + n; i++) {
		const struct caller_reply *r;

		name_of(i, key, value);
		r = call((i + 1) % 3, CHP_OPCODE_GET, key, NULL);
		cr_assert_eq(r->status, CHP_STATUS_OK, "get %s: %s", key, chp_status_name(r->status));
		cr_assert_eq(r->value_len, strlen(value));
		cr_assert_arr_eq(r->value, value, strlen(value));
	}
}

/* The datastore of a replica has these keys, raw. */
static void
expect_stored(uint32_t replica, uint32_t first, uint32_t n)
{
	char key[16], value[64], found[64];
	uint32_t len;

	for (uint32_t i = first; i < first + n; i++) {
		name_of(i, key, value);
		cr_assert_eq(local_host_find(l.host[replica], key, found, sizeof(found), &len), CHP_STORE_FOUND,
			     "%s at %u", key, replica);
		cr_assert_eq(len, strlen(value));
		cr_assert_arr_eq(found, value, len);
	}
}

static void
written_and_read(struct local_options o)
{
	char found[64];
	uint32_t len;

	start(o);
	put_keys(0, 300);
	get_keys(0, 300);
	cr_assert_eq(call(1, CHP_OPCODE_DELETE, "key7", NULL)->status, CHP_STATUS_OK);
	WAIT_FOR(all_saved());
	for (uint32_t i = 0; i < 3; i++) {
		expect_stored(i, 10, 290);
		cr_assert_eq(local_host_find(l.host[i], "key7", found, sizeof(found), &len), CHP_STORE_TOMBSTONE);
	}
	cr_assert_eq(c.bad_frames, 0u);
	cr_assert_eq(chp_pipeline_count(l.replica[0], CHP_COUNT_drop_host_ring), 0u);
	cr_assert_gt(chp_pipeline_count(l.replica[0], CHP_COUNT_tx_host), 0u);
	cr_assert_gt(chp_pipeline_count(l.replica[0], CHP_COUNT_rx_host), 0u);
	local_destroy(&l);
}

Test(host, what_is_written_arrives_at_every_datastore, .timeout = 100)
{
	written_and_read((struct local_options){ 0 });
}

Test(host, a_stage_on_an_lcore_of_its_own, .timeout = 100)
{
	written_and_read((struct local_options){ .lcores = TWO_LCORES });
}

Test(host, several_shards_share_the_channel, .timeout = 100)
{
	written_and_read((struct local_options){ .shards = 3 });
}

Test(host, a_lossy_channel, .timeout = 100)
{
	start((struct local_options){ 0 });
	for (uint32_t i = 0; i < 3; i++) {
		chp_channel_memory_impair(local_host_channel(l.host[i]), 50000, 20000);
		chp_channel_memory_impair(local_host_end(l.host[i]), 50000, 20000);
	}
	put_keys(0, 500);
	WAIT_FOR(all_saved());
	for (uint32_t i = 0; i < 3; i++)
		expect_stored(i, 0, 500);
	local_destroy(&l);
}

Test(host, a_data_set_of_ten_times_the_cache, .timeout = 100)
{
	uint64_t misses = 0;

	start((struct local_options){ .cluster = SMALL, .keep = true });
	put_keys(0, 2000);
	get_keys(0, 2000);
	for (uint32_t i = 0; i < 3; i++) {
		cr_assert_gt(stats_of(i, 0)->cache.evictions, 0u);
		cr_assert_leq(stats_of(i, 0)->cache.keys, 200u + 2 * 3 * 32);
		misses += stats_of(i, 0)->protocol.misses;
	}
	cr_assert_gt(misses, 1000u);
	local_destroy(&l);
}

Test(host, a_host_that_dies_gets_everything_when_it_is_back, .timeout = 100)
{
	start((struct local_options){ .keep = true });
	put_keys(0, 100);
	WAIT_FOR(all_saved());
	local_host_kill(l.host[1]);
	put_keys(100, 200);
	WAIT_FOR(status_of(1, 0)->state == CHP_HOST_AWAY);
	get_keys(0, 300);
	local_host_start(l.host[1]);
	WAIT_FOR(all_saved());
	for (uint32_t i = 0; i < 3; i++)
		expect_stored(i, 0, 300);
	local_destroy(&l);
}

Test(host, hosts_die_again_and_again_under_load, .timeout = 100)
{
	start((struct local_options){ .cluster = SMALL, .keep = true });
	for (uint32_t round = 0; round < 12; round++) {
		uint32_t victim = round % 3;

		put_keys(round * 50, 25);
		local_host_kill(l.host[victim]);
		put_keys(round * 50 + 25, 15);
		local_host_start(l.host[victim]);
		put_keys(round * 50 + 40, 10);
	}
	WAIT_FOR(all_saved());
	for (uint32_t i = 0; i < 3; i++)
		expect_stored(i, 0, 600);
	get_keys(0, 600);
	local_destroy(&l);
}

/* With the level `datastore` a majority of the stores has everything that was acknowledged. */
Test(host, durable_means_at_a_majority, .timeout = 100)
{
	uint32_t len, stored = 0;
	char found[64];

	start((struct local_options){ .cluster = CLUSTER "\"durability\": \"datastore\"," });
	put_keys(0, 100);
	for (uint32_t i = 0; i < 3; i++)
		local_host_speed(l.host[i], i == 0 ? LOCAL_HOST_FAST : 0);
	caller_begin(&c, 0, 0, 0, 0, 0);
	caller_add(&c, CHP_OPCODE_PUT, "slow", "1", 0, 5);
	caller_send(&c);
	for (uint32_t i = 0; i < 20000; i++)
		(void)local_poll(&l);
	cr_assert_not(c.reply[5].there, "acknowledged with one store of three");
	local_host_speed(l.host[2], LOCAL_HOST_FAST);
	cr_assert(caller_wait(&c, 5) != NULL);
	cr_assert_eq(c.reply[5].status, CHP_STATUS_OK);
	for (uint32_t i = 0; i < 3; i++)
		stored += local_host_find(l.host[i], "slow", found, sizeof(found), &len) == CHP_STORE_FOUND;
	cr_assert_eq(stored, 2u);
	local_host_speed(l.host[1], LOCAL_HOST_FAST);
	local_destroy(&l);
}

Test(host, a_replica_comes_back_with_its_own_datastore, .timeout = 100)
{
	struct chp_error error = { 0 };

	start((struct local_options){ .cluster = SMALL, .keep = true, .node = SUSPICIOUS });
	put_keys(0, 400);
	WAIT_FOR(all_saved());
	local_kill(&l, 2);
	WAIT_FOR(chp_shard_view_epoch(chp_pipeline_shard(l.replica[0], 0)) > 1);
	WAIT_FOR(chp_pipeline_is_serving(l.replica[0]) && chp_pipeline_is_serving(l.replica[1]));
	cr_assert_eq(local_start(&l, 2, &error), 0, "%s", error.text);
	cr_assert(local_wait_serving(&l));
	get_keys(0, 400);
	WAIT_FOR(all_saved());
	for (uint32_t i = 0; i < 3; i++)
		expect_stored(i, 0, 400);
	local_destroy(&l);
}

/* All replicas lose their memory; their hosts have everything (SAFETY 34). */
static void
begin_again(struct local_options o)
{
	struct chp_error error = { 0 };
	uint64_t epoch;

	o.keep = true;
	start(o);
	put_keys(0, 300);
	WAIT_FOR(all_saved());
	for (uint32_t round = 1; round <= 2; round++) {
		for (uint32_t i = 0; i < 3; i++)
			local_kill(&l, i);
		for (uint32_t i = 0; i < 3; i++)
			cr_assert_eq(local_start(&l, i, &error), 0, "%s", error.text);
		cr_assert(local_wait_serving(&l), "round %u", round);
		epoch = chp_shard_view_epoch(chp_pipeline_shard(l.replica[0], 0));
		cr_assert_eq(chp_generation(epoch), round);
		get_keys(0, 300);
		put_keys(0, 30);
		put_keys(300, 30);
		get_keys(0, 330);
		WAIT_FOR(all_saved() && status_of(0, 0)->epoch > epoch && status_of(1, 0)->epoch > epoch &&
			 status_of(2, 0)->epoch > epoch);
	}
	for (uint32_t i = 0; i < 3; i++)
		expect_stored(i, 0, 330);
	local_destroy(&l);
}

Test(host, a_cluster_without_memory_begins_again_from_its_hosts, .timeout = 100)
{
	begin_again((struct local_options){ .cluster = SMALL });
}

Test(host, so_does_one_with_several_shards, .timeout = 100)
{
	begin_again((struct local_options){ .shards = 2 });
}

Test(host, so_does_one_whose_writes_are_durable, .timeout = 100)
{
	begin_again((struct local_options){ .cluster = SMALL "\"durability\": \"datastore\"," });
}

/* A section of replica 0's status, which is some time old at most. */
static json_t *
section(uint32_t number)
{
	static char text[CHP_TEXT_BYTES];
	json_t *v;

	cr_assert_lt(chp_pipeline_status(l.replica[0], number, text, sizeof(text)), sizeof(text));
	v = json_loads(text, 0, NULL);
	cr_assert_not_null(v, "%s", text);
	return v;
}

static void
poll_for_a_second(void)
{
	const uint64_t until = rte_rdtsc() + rte_get_tsc_hz();

	while (rte_rdtsc() < until)
		(void)local_poll(&l);
}

/* What people see: of the node, and of a shard. */
Test(host, status_says_how_the_host_is, .timeout = 100)
{
	json_t *v, *h, *n;

	start((struct local_options){ .keep = true });
	put_keys(0, 50);
	WAIT_FOR(all_saved());
	poll_for_a_second();
	v = section(0);
	h = json_object_get(v, "host");
	cr_assert_str_eq(json_string_value(json_object_get(h, "state")), "ready");
	cr_assert_str_eq(json_string_value(json_object_get(h, "store")), "ok");
	cr_assert_eq(json_integer_value(json_object_get(h, "backlog")), 0);
	cr_assert_eq(json_integer_value(json_object_get(h, "items")), 50);
	cr_assert_str_eq(json_string_value(json_object_get(json_object_get(h, "channel"), "state")), "up");
	json_decref(v);
	v = section(1);
	n = json_object_get(json_object_get(v, "host"), "counters");
	cr_assert_geq(json_integer_value(json_object_get(n, "puts")), 50);
	cr_assert_gt(json_integer_value(json_object_get(n, "batches")), 0);
	cr_assert(json_is_integer(json_object_get(n, "coalesced")));
	n = json_object_get(v, "cache");
	cr_assert(json_is_real(json_object_get(n, "hit_pct")));
	cr_assert(json_is_integer(json_object_get(n, "evictions")) && json_is_integer(json_object_get(n, "pinned")));
	json_decref(v);
	local_host_kill(l.host[0]);
	WAIT_FOR(status_of(0, 0)->state == CHP_HOST_AWAY);
	cr_assert_gt(status_of(0, 0)->text[0], '\0');
	put_keys(50, 20);
	poll_for_a_second();
	v = section(0);
	h = json_object_get(v, "host");
	cr_assert_str_eq(json_string_value(json_object_get(h, "state")), "away");
	cr_assert_geq(json_integer_value(json_object_get(h, "backlog")), 20);
	cr_assert_geq(json_integer_value(json_object_get(h, "oldest_ms")), 500);
	cr_assert_gt(json_real_value(json_object_get(h, "log_fill_pct")), 0.0);
	json_decref(v);
	local_destroy(&l);
}

/* ---- what the other end of the channel may say, and what not ---- */

/* Put a packet before replica 0, as its host's end of the channel would, and see that it is dropped for this reason. */
static void
expect_drop(const void *data, uint32_t len, enum chp_pipeline_counter why)
{
	struct chp_channel_packet p = { .data = (void *)(uintptr_t)data, .len = len };
	uint64_t before = chp_pipeline_count(l.replica[0], why);

	cr_assert_eq(chp_channel_send(local_host_end(l.host[0]), &p, 1), 1);
	WAIT_FOR(chp_pipeline_count(l.replica[0], why) != before);
	cr_assert_eq(chp_pipeline_count(l.replica[0], why), before + 1);
}

Test(host, what_is_no_packet_of_the_host_is_dropped_and_counted, .timeout = 100)
{
	struct {
		struct chp_peer_header h;
		uint64_t more;
	} good = { .more = 0 }, p;
	struct chp_host_hello hello, bad;
	struct chp_channel_packet packet;

	start((struct local_options){ 0 });
	good.h = (struct chp_peer_header){
		.prelude = { CHP_WIRE_MAGIC, CHP_WIRE_VERSION, CHP_PACKET_HOST, l.cluster.hash },
		.from_incarnation = 1,
		.to_incarnation = 1,
		.session = 1,
	};
	expect_drop(&good, 1, CHP_COUNT_drop_short);
	expect_drop(&good, sizeof(good.h) - 1, CHP_COUNT_drop_short);
#define SPOILT(statement, len, which) \
	p = good;                     \
	statement;                    \
	chp_peer_seal(&p, len);       \
	expect_drop(&p, len, which)
	SPOILT(p.h.prelude.magic++, sizeof(p.h), CHP_COUNT_drop_magic);
	SPOILT(p.h.prelude.version++, sizeof(p.h), CHP_COUNT_drop_version);
	SPOILT(p.h.prelude.kind = CHP_PACKET_PEER, sizeof(p.h), CHP_COUNT_drop_kind);
	SPOILT(p.h.prelude.cluster_hash++, sizeof(p.h), CHP_COUNT_drop_cluster);
	SPOILT(p.h.tag_len = 1, sizeof(p.h), CHP_COUNT_drop_auth);
	SPOILT(p.h.from = 1, sizeof(p.h), CHP_COUNT_drop_node);
	SPOILT(p.h.to = 1, sizeof(p.h), CHP_COUNT_drop_node);
	SPOILT(p.h.shard = 1, sizeof(p.h), CHP_COUNT_drop_shard);
	SPOILT(p.h.shard = UINT16_MAX, sizeof(p.h), CHP_COUNT_drop_shard);
	SPOILT(p.h.epoch = 1, sizeof(p.h), CHP_COUNT_drop_message);
	SPOILT(p.more = 8, sizeof(p), CHP_COUNT_drop_message);
#undef SPOILT
	good.h.crc32c++;
	expect_drop(&good, sizeof(good.h), CHP_COUNT_drop_crc);
	hello = (struct chp_host_hello){
		.prelude = { CHP_WIRE_MAGIC, CHP_WIRE_VERSION, CHP_PACKET_HOST_HELLO, l.cluster.hash },
		.type = CHP_HOST_REFUSED,
		.channel_version = CHP_CHANNEL_VERSION,
		.refusal = CHP_HOST_BAD_NODE,
		.number = 1,
		.incarnation = 1,
		.to_incarnation = 1,
	};
#define SPOILT(statement, which)           \
	bad = hello;                       \
	statement;                         \
	chp_peer_seal(&bad, sizeof(bad));  \
	expect_drop(&bad, sizeof(bad), which)
	SPOILT(bad.shard = 1, CHP_COUNT_drop_shard);
	SPOILT(bad.shard = UINT16_MAX, CHP_COUNT_drop_shard);
	SPOILT(bad.refusal = CHP_HOST_REFUSALS, CHP_COUNT_drop_message);
	SPOILT(bad.incarnation = 0, CHP_COUNT_drop_message);
	SPOILT(memset(bad.text, 'x', sizeof(bad.text)), CHP_COUNT_drop_message);
#undef SPOILT
	/* One that is well-formed reaches the shard, which was never asked by it: stale, and the host stays. */
	chp_peer_seal(&hello, sizeof(hello));
	packet = (struct chp_channel_packet){ .data = (void *)&hello, .len = sizeof(hello) };
	cr_assert_eq(chp_channel_send(local_host_end(l.host[0]), &packet, 1), 1);
	put_keys(0, 30);
	WAIT_FOR(all_saved());
	cr_assert_gt(stats_of(0, 0)->host.stale, 0);
	local_destroy(&l);
}
