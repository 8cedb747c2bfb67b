/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Three replicas in one process over net_ring, in several mappings of stages to lcores, healthy and not.
 */
#include "caller.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_mempool.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define CLUSTER                                                                                    \
	"\"keys_max\": 4096, \"value_blocks_max\": 4096, \"sessions_max\": 64, "                    \
	"\"session_window\": 16, \"credits\": 64,"
#define NODE "\"rx_ring\": 256, \"tx_ring\": 256, \"stage_ring\": 256," LOCAL_PATIENT

/* Every stage on an lcore of its own: rings between all of them. */
#define FOUR_LCORES                                                                                \
	"[{ \"lcore\": 0, \"stages\": [\"rx0\"] }, { \"lcore\": 1, \"stages\": [\"shard0\"] }, "      \
	"{ \"lcore\": 2, \"stages\": [\"tx0\"] }, { \"lcore\": 3, \"stages\": [\"control\"] }]"
/* Two shards run to completion, each with its queue; packets of the other come over a ring. */
#define TWO_SHARDS                                                                                 \
	"[{ \"lcore\": 0, \"stages\": [\"rx0\", \"shard0\", \"tx0\", \"control\"] }, "                \
	"{ \"lcore\": 1, \"stages\": [\"rx1\", \"shard1\", \"tx1\"] }]"

static struct local l;
static struct caller c;

static void
start(const char *eal_lcores, struct local_options o)
{
	struct chp_error error = { 0 };

	cr_assert(caller_start_eal(eal_lcores));
	o.replicas = 3;
	o.shards = o.shards != 0 ? o.shards : 1;
	o.cluster = o.cluster != NULL ? o.cluster : CLUSTER;
	o.node = o.node != NULL ? o.node : NODE;
	cr_assert_eq(local_create(&l, &o, &error), 0, "%s", error.text);
	cr_assert_eq(caller_init(&c, &l), 0);
	cr_assert(local_wait_serving(&l));
}

static uint64_t
count(enum chp_pipeline_counter which)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < l.options.replicas; i++)
		sum += chp_pipeline_count(l.replica[i], which);
	return sum;
}

/* Valid until the next call. */
static const struct chp_shard_stats *
stats_of(uint32_t replica)
{
	static struct chp_shard_stats s;

	chp_shard_stats(chp_pipeline_shard(l.replica[replica], 0), &s);
	return &s;
}

static uint64_t
link_resets(void)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < l.options.replicas; i++) {
		const struct chp_shard_stats *s = stats_of(i);

		for (uint32_t k = 0; k < l.options.replicas; k++)
			sum += k != i ? s->link[k].resets : 0;
	}
	return sum;
}

/* Writes that the protocol put off: "overload", of which the rings of the datapath know nothing. */
static uint64_t
put_off(void)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < l.options.replicas; i++)
		sum += stats_of(i)->protocol.unstable;
	return sum;
}

/* What one replica acknowledged, every replica must answer. */
static void
put_and_get(uint32_t keys)
{
	const struct caller_reply *r;
	char key[16], value[600];

	for (uint32_t i = 0; i < keys; i++) {
		uint64_t version;

		(void)snprintf(key, sizeof(key), "key%u", i);
		memset(value, 'a' + (int)(i % 26), sizeof(value));
		value[i * 7 % 599] = '\0';
		r = caller_call(&c, i % 3, CHP_OPCODE_PUT, key, value, 0);
		cr_assert(r != NULL, "put %u", i);
		cr_assert_eq(r->status, CHP_STATUS_OK, "%s", chp_status_name(r->status));
		cr_assert_eq(r->node, i % 3);
		version = r->version;
		for (uint32_t k = 0; k < 3; k++) {
			r = caller_call(&c, k, CHP_OPCODE_GET, key, NULL, 0);
			cr_assert(r != NULL, "get %u", i);
			cr_assert_eq(r->status, CHP_STATUS_OK);
			cr_assert_eq(r->version, version);
			cr_assert_eq(r->value_len, strlen(value));
			cr_assert_arr_eq(r->value, value, strlen(value));
		}
	}
	cr_assert_eq(c.bad_frames, 0u);
}

/* Increments at all replicas at once: every number is handed out once. */
static void
count_together(uint32_t each)
{
	static uint8_t seen[4096];
	uint32_t shard = caller_shard_of(&c, "counter"), n = 3 * each;
	const struct caller_reply *r = caller_call(&c, 0, CHP_OPCODE_PUT, "counter", "0", 0);

	cr_assert(r != NULL && r->status == CHP_STATUS_OK);
	memset(seen, 0, sizeof(seen));
	for (uint32_t i = 0; i < n; i++) {
		caller_begin(&c, i % 3, shard, 0, 0, (uint16_t)shard);
		caller_add(&c, CHP_OPCODE_INCR, "counter", NULL, 1, 10 + i);
		caller_send(&c);
	}
	for (uint32_t i = 0; i < n; i++) {
		r = caller_wait(&c, 10 + i);
		cr_assert(r != NULL, "increment %u", i);
		if (r->status == CHP_STATUS_OK) {
			cr_assert(r->number >= 1 && r->number <= n, "%llu", (unsigned long long)r->number);
			cr_assert_eq(seen[r->number], 0, "%llu twice", (unsigned long long)r->number);
			seen[r->number] = 1;
		} else {
			cr_assert_eq(r->status, CHP_STATUS_BUSY, "%s", chp_status_name(r->status));
		}
		cr_assert_eq(r->times, 1u);
	}
}

static void
check_shards(void)
{
	for (uint32_t s = 0; s < l.options.shards; s++) {
		uint64_t digest = chp_shard_digest(chp_pipeline_shard(l.replica[0], s));

		for (uint32_t i = 0; i < l.options.replicas; i++) {
			chp_shard_check(chp_pipeline_shard(l.replica[i], s));
			cr_assert_eq(chp_shard_digest(chp_pipeline_shard(l.replica[i], s)), digest);
		}
	}
}

/* ------------------------------------------------------------------ mappings */

Test(replicas, run_to_completion_on_one_lcore)
{
	start("0", (struct local_options){ 0 });
	put_and_get(100);
	count_together(50);
	caller_poll(&c, 2000);
	check_shards();
	local_destroy(&l);
}

Test(replicas, a_ring_between_all_stages)
{
	start("0", (struct local_options){ .lcores = FOUR_LCORES });
	put_and_get(100);
	count_together(50);
	caller_poll(&c, 2000);
	check_shards();
	local_destroy(&l);
}

Test(replicas, two_shards_with_a_queue_each)
{
	start("0", (struct local_options){ .shards = 2, .queues = 2, .lcores = TWO_SHARDS });
	put_and_get(100);
	count_together(50);
	caller_poll(&c, 2000);
	check_shards();
	cr_assert_gt(chp_shard_epoch(chp_pipeline_shard(l.replica[2], 1)), 0u);
	local_destroy(&l);
}

/* Replica 2 gets little of its CPU: the others serve before the first credits of its links are there. */
static void
poll_unevenly(uint64_t iteration)
{
	for (uint32_t i = 0; i < 3; i++) {
		if (i != 2 || iteration % 1000 == 0)
			(void)chp_pipeline_poll(l.replica[i], 0);
	}
	(void)ring_net_poll(&l.net);
	caller_receive(&c);
}

Test(replicas, a_write_before_the_first_credits_of_a_peer_is_put_off)
{
	struct local_options o = { .replicas = 3, .shards = 1, .cluster = CLUSTER, .node = NODE };
	struct chp_error error = { 0 };
	uint64_t iteration = 0, end;
	const struct caller_reply *r;

	cr_assert(caller_start_eal("0"));
	cr_assert_eq(local_create(&l, &o, &error), 0, "%s", error.text);
	cr_assert_eq(caller_init(&c, &l), 0);
	end = rte_rdtsc() + 10 * rte_get_tsc_hz();
	while (!chp_pipeline_is_serving(l.replica[1]) && rte_rdtsc() < end)
		poll_unevenly(iteration++);
	cr_assert(chp_pipeline_is_serving(l.replica[1]));
	caller_begin(&c, 1, 0, 0, 0, 0);
	caller_add(&c, CHP_OPCODE_PUT, "key", "value", 0, 2);
	caller_send(&c);
	while (!c.reply[2].there && rte_rdtsc() < end)
		poll_unevenly(iteration++);
	cr_assert(c.reply[2].there);
	cr_assert_eq(c.reply[2].status, CHP_STATUS_OVERLOAD, "%s", chp_status_name(c.reply[2].status));
	cr_assert_eq(put_off(), 1u);
	cr_assert_eq(count(CHP_COUNT_overload), 0u);
	r = caller_call(&c, 1, CHP_OPCODE_PUT, "key", "value", 0);
	cr_assert(r != NULL && r->status == CHP_STATUS_OK);
	caller_poll(&c, 2000);
	check_shards();
	local_destroy(&l);
}

/* ------------------------------------------------------------------ real lcores */

struct worker {
	struct chp_pipeline *p;
	uint32_t index;
};

static int
work(void *argument)
{
	const struct worker *w = argument;

	chp_pipeline_run(w->p, w->index);
	return 0;
}

static void
pass_on(void)
{
	if (ring_net_poll(&l.net) == 0)
		sched_yield();
	caller_receive(&c);
}

/*
 * A write at each replica. On a busy machine a replica may be slow to send its first credits to others that serve
 * already; who is told "overload" for it sends again. Returns how often that was.
 */
static uint32_t
first_writes(void)
{
	uint64_t end = rte_rdtsc() + 10 * rte_get_tsc_hz();
	uint32_t again = 0;

	for (uint32_t i = 0; i < 3; i++) {
		const struct caller_reply *r = &c.reply[1000 + i];

		do {
			again += r->there;
			caller_begin(&c, i, 0, 0, 0, 0);
			caller_add(&c, CHP_OPCODE_PUT, "first", "value", 0, 1000 + i);
			caller_send(&c);
			while (!r->there && rte_rdtsc() < end)
				pass_on();
		} while (r->there && r->status == CHP_STATUS_OVERLOAD && rte_rdtsc() < end);
		cr_assert(r->there, "no answer from %u", i);
		cr_assert_eq(r->status, CHP_STATUS_OK, "%u: %s", i, chp_status_name(r->status));
	}
	return again;
}

/* The switch and the client run here, the replicas on twelve lcores that share two CPUs. */
Test(replicas, stages_on_lcores_of_their_own)
{
	struct local_options o = { .replicas = 3, .shards = 1, .cluster = CLUSTER, .node = NODE,
				   .lcores = FOUR_LCORES };
	static struct worker worker[12];
	struct chp_error error = { 0 };
	uint64_t end, before;
	uint32_t lcore = 1, serving = 0, sent = 0, ok = 0, again;

	cr_assert(caller_start_eal("(0-12)@(0,1)"));
	cr_assert_eq(local_create(&l, &o, &error), 0, "%s", error.text);
	cr_assert_eq(caller_init(&c, &l), 0);
	for (uint32_t i = 0; i < 12; i++) {
		worker[i] = (struct worker){ .p = l.replica[i / 4], .index = i % 4 };
		cr_assert_eq(rte_eal_remote_launch(work, &worker[i], lcore++), 0);
	}
	end = rte_rdtsc() + 10 * rte_get_tsc_hz();
	while (serving < 3 && rte_rdtsc() < end) {
		pass_on();
		serving = 0;
		for (uint32_t i = 0; i < 3; i++)
			serving += chp_pipeline_is_serving(l.replica[i]);
	}
	cr_assert_eq(serving, 3u);
	again = first_writes();
	before = c.n_replies;
	end = rte_rdtsc() + 10 * rte_get_tsc_hz();
	while (c.n_replies - before < 300 && rte_rdtsc() < end) {
		if (sent < 300 && sent - (c.n_replies - before) < 24) {
			caller_begin(&c, sent % 3, 0, 0, 0, 0);
			caller_add(&c, sent < 150 ? CHP_OPCODE_PUT : CHP_OPCODE_GET, "key",
				   sent < 150 ? "value" : NULL, 0, sent);
			caller_send(&c);
			sent++;
		}
		pass_on();
	}
	cr_assert_eq(c.n_replies - before, 300u);
	for (uint32_t i = 0; i < 300; i++) {
		uint8_t status = c.reply[i].status;

		ok += status == CHP_STATUS_OK;
		cr_assert(status == CHP_STATUS_OK || status == CHP_STATUS_BUSY ||
				  status == CHP_STATUS_NOT_SERVING ||
				  (i >= 150 && status == CHP_STATUS_NOT_FOUND),
			  "%u: %s", i, chp_status_name(status));
	}
	cr_assert_gt(ok, 100u);
	for (uint32_t i = 0; i < 3; i++)
		chp_pipeline_stop(l.replica[i]);
	for (serving = 3; serving > 0;) {
		(void)ring_net_poll(&l.net);
		serving = 0;
		for (uint32_t i = 0; i < 3; i++)
			serving += !chp_pipeline_is_stopped(l.replica[i]);
	}
	rte_eal_mp_wait_lcore();
	cr_assert_eq(put_off(), again);
	cr_assert_eq(count(CHP_COUNT_overload), 0u);
	check_shards();
	local_destroy(&l);
}

/* ------------------------------------------------------------------ overload */

/* Full datagrams of writes at replica 0, ten times as many as it can take in an iteration. */
static uint64_t
flood(uint32_t iterations)
{
	static char key[16];
	uint64_t sent = 0;

	for (uint32_t i = 0; i < iterations; i++) {
		for (uint32_t d = 0; d < 20; d++) {
			caller_begin(&c, 0, 0, 0, 0, 0);
			for (uint32_t k = 0; k < 25; k++, sent++) {
				(void)snprintf(key, sizeof(key), "k%u", (uint32_t)(sent % 1000));
				caller_add(&c, CHP_OPCODE_PUT, key, "v", 0, 1000 + sent % 60000);
			}
			caller_send(&c);
		}
		caller_poll(&c, 1);
	}
	return sent;
}

static void
overload(const char *lcores)
{
	const struct caller_reply *r;
	uint64_t peer_drops, sent;

	start("0", (struct local_options){ .lcores = lcores });
	(void)flood(100);
	/* In the middle of it the others still get through to replica 0, whose acknowledgement they need. */
	caller_begin(&c, 1, 0, 0, 0, 0);
	caller_add(&c, CHP_OPCODE_PUT, "other", "value", 0, 5);
	caller_send(&c);
	sent = flood(100);
	cr_assert(c.reply[5].there, "a write at another replica waits for the flood");
	cr_assert_eq(c.reply[5].status, CHP_STATUS_OK, "%s", chp_status_name(c.reply[5].status));
	caller_poll(&c, 5000);
	peer_drops = count(CHP_COUNT_drop_peer_ring) + count(CHP_COUNT_drop_tx_ring) +
		     count(CHP_COUNT_drop_tx_port) + count(CHP_COUNT_drop_control_ring);
	cr_assert_eq(peer_drops, 0u);
	cr_assert_gt(chp_pipeline_count(l.replica[0], CHP_COUNT_overload), 0u);
	cr_assert_eq(link_resets(), 0u);
	cr_assert_gt(c.n_replies, sent / 2);
	r = caller_call(&c, 0, CHP_OPCODE_GET, "other", NULL, 0);
	cr_assert(r != NULL && r->status == CHP_STATUS_OK);
	check_shards();
	local_destroy(&l);
}

Test(replicas, overload_by_clients_hurts_no_peer_on_one_lcore)
{
	overload(NULL);
}

Test(replicas, overload_by_clients_hurts_no_peer_with_rings)
{
	overload(FOUR_LCORES);
}

/* ------------------------------------------------------------------ faults */

/* Somebody holds every mbuf of the TX pool of replica 0. */
Test(replicas, out_of_mbufs_is_back_pressure)
{
	static struct rte_mbuf *held[65536];
	const struct caller_reply *r;
	struct rte_mempool *pool;
	uint32_t n = 0;

	start("0", (struct local_options){ 0 });
	pool = rte_mempool_lookup("n0.tx");
	cr_assert(pool != NULL);
	while (n < 65536 && (held[n] = rte_pktmbuf_alloc(pool)) != NULL)
		n++;
	cr_assert_gt(n, 256u);
	for (uint32_t i = 0; i < 2000; i++) {
		caller_begin(&c, 0, 0, 0, 0, 0);
		caller_add(&c, CHP_OPCODE_PUT, "key", "value", 0, 100 + i);
		caller_send(&c);
		caller_poll(&c, 1);
	}
	caller_poll(&c, 100);
	cr_assert_gt(chp_pipeline_count(l.replica[0], CHP_COUNT_tx_pool_short), 0u);
	for (uint32_t i = 0; i < n; i++)
		rte_pktmbuf_free(held[i]);
	caller_poll(&c, 5000);
	for (uint32_t i = 0; i < 2000; i++)
		cr_assert_leq(c.reply[100 + i].times, 1u);
	r = caller_call(&c, 0, CHP_OPCODE_PUT, "key", "after", 0);
	cr_assert(r != NULL && r->status == CHP_STATUS_OK);
	r = caller_call(&c, 1, CHP_OPCODE_GET, "key", NULL, 0);
	cr_assert(r != NULL && r->status == CHP_STATUS_OK && r->value_len == 5);
	cr_assert_eq(link_resets(), 0u);
	check_shards();
	local_destroy(&l);
}

/* Every nth packet between the replicas is lost, bytes of another are changed. */
static bool
lossy(void *context, uint32_t from, struct rte_mbuf *m)
{
	static uint32_t n;

	(void)context;
	if (from == 3 || rte_pktmbuf_mtod(m, const uint8_t *)[5] == 200 ||
	    m->data_len < CHP_FRAME_BYTES + sizeof(struct chp_peer_header))
		return true;
	n++;
	if (n % 23 == 5)
		*rte_pktmbuf_mtod_offset(m, uint8_t *, m->data_len - 1) ^= 0x40;
	return n % 17 != 3;
}

Test(replicas, links_repair_lost_and_changed_packets)
{
	start("0", (struct local_options){ .tap = lossy });
	put_and_get(200);
	cr_assert_gt(count(CHP_COUNT_drop_crc), 0u);
	caller_poll(&c, 200000);
	check_shards();
	local_destroy(&l);
}

Test(replicas, impairment_is_counted_and_survived)
{
	struct chp_impairment some = { .drop_ppm = 50000, .duplicate_ppm = 50000, .delay_ppm = 50000,
				       .delay_us = 300 };
	const struct chp_impairment none = { 0 };
	uint32_t answered = 0;
	uint64_t end;
	char key[16];

	start("0", (struct local_options){ 0 });
	for (uint32_t i = 0; i < 3; i++)
		chp_pipeline_impair(l.replica[i], &some);
	for (uint32_t i = 0; i < 500; i++) {
		(void)snprintf(key, sizeof(key), "key%u", i);
		caller_begin(&c, i % 3, 0, 0, 0, 0);
		caller_add(&c, CHP_OPCODE_PUT, key, "value", 0, 100 + i);
		caller_send(&c);
		caller_poll(&c, 20);
	}
	for (end = rte_rdtsc() + rte_get_tsc_hz(); rte_rdtsc() < end;)
		caller_poll(&c, 100);
	for (uint32_t i = 0; i < 500; i++)
		answered += c.reply[100 + i].there;
	cr_assert_gt(answered, 400u, "%u", answered);
	cr_assert_lt(answered, 500u);
	cr_assert_gt(count(CHP_COUNT_impair_dropped), 0u);
	cr_assert_gt(count(CHP_COUNT_impair_duplicated), 0u);
	cr_assert_gt(count(CHP_COUNT_impair_delayed), 0u);
	for (uint32_t i = 0; i < 3; i++)
		chp_pipeline_impair(l.replica[i], &none);
	caller_poll(&c, 20000);
	put_and_get(20);
	local_destroy(&l);
}

Test(replicas, a_cut_stops_writes_and_healing_resumes_them)
{
	const struct chp_impairment cut = { .cut = 1u << 1 }, none = { 0 };

	start("0", (struct local_options){ 0 });
	chp_pipeline_impair(l.replica[0], &cut);
	caller_begin(&c, 0, 0, 0, 0, 0);
	caller_add(&c, CHP_OPCODE_PUT, "key", "value", 0, 5);
	caller_send(&c);
	caller_poll(&c, 5000);
	cr_assert(!c.reply[5].there);
	cr_assert_gt(chp_pipeline_count(l.replica[0], CHP_COUNT_impair_cut), 0u);
	chp_pipeline_impair(l.replica[0], &none);
	cr_assert(caller_wait(&c, 5) != NULL);
	cr_assert_eq(c.reply[5].status, CHP_STATUS_OK);
	local_destroy(&l);
}

/* ------------------------------------------------------------------ the stop */

static bool
all_stopped(void)
{
	bool stopped = true;

	for (uint32_t i = 0; i < l.options.replicas; i++)
		stopped &= chp_pipeline_is_stopped(l.replica[i]);
	return stopped;
}

Test(replicas, an_orderly_stop_finishes_what_is_open)
{
	uint64_t end;

	start("0", (struct local_options){ 0 });
	caller_begin(&c, 0, 0, 0, 0, 0);
	for (uint32_t i = 0; i < 20; i++)
		caller_add(&c, CHP_OPCODE_PUT, "key", "value", 0, 100 + i);
	caller_send(&c);
	while (chp_pipeline_count(l.replica[0], CHP_COUNT_rx_client) == 0)
		(void)local_poll(&l);
	for (uint32_t i = 0; i < 3; i++)
		chp_pipeline_stop(l.replica[i]);
	caller_poll(&c, 2);
	caller_begin(&c, 0, 0, 0, 0, 0);
	caller_add(&c, CHP_OPCODE_PUT, "key", "late", 0, 200);
	caller_send(&c);
	end = rte_rdtsc() + rte_get_tsc_hz() / 2;
	while (!all_stopped() && rte_rdtsc() < end)
		caller_poll(&c, 1);
	cr_assert(all_stopped(), "half a second was not enough");
	for (uint32_t i = 0; i < 20; i++)
		cr_assert(c.reply[100 + i].there && c.reply[100 + i].status == CHP_STATUS_OK);
	cr_assert(c.reply[200].there);
	cr_assert_eq(c.reply[200].status, CHP_STATUS_NOT_SERVING);
	cr_assert_eq(chp_pipeline_exit_code(l.replica[0]), CHP_EXIT_OK);
	local_destroy(&l);
}

Test(replicas, a_stop_does_not_wait_for_the_dead)
{
	const struct chp_impairment cut = { .cut = 6 };
	uint64_t begin;

	start("0", (struct local_options){ 0 });
	chp_pipeline_impair(l.replica[0], &cut);
	caller_begin(&c, 0, 0, 0, 0, 0);
	caller_add(&c, CHP_OPCODE_PUT, "key", "value", 0, 5);
	caller_send(&c);
	caller_poll(&c, 100);
	begin = rte_rdtsc();
	chp_pipeline_stop(l.replica[0]);
	while (!chp_pipeline_is_stopped(l.replica[0]) && rte_rdtsc() - begin < 3 * rte_get_tsc_hz())
		caller_poll(&c, 1);
	cr_assert(chp_pipeline_is_stopped(l.replica[0]));
	cr_assert_geq((rte_rdtsc() - begin) * 10, rte_get_tsc_hz() * 9);
	local_destroy(&l);
}

/* ------------------------------------------------------------------ info, status, reports */

static json_t *
fetch(uint8_t opcode, uint32_t section)
{
	static char text[65536];
	uint32_t len = 0, part = 0, parts = 1;
	uint64_t version = 0;

	for (; part < parts; part++) {
		const struct caller_reply *r;

		caller_begin(&c, 0, l.options.shards, 0, 0, CHP_SHARD_ANY);
		caller_add(&c, opcode, NULL, NULL, section | (uint64_t)part << 16, 1);
		caller_send(&c);
		r = caller_wait(&c, 1);
		cr_assert(r != NULL);
		cr_assert_eq(r->status, CHP_STATUS_OK, "part %u: %s", part, chp_status_name(r->status));
		cr_assert(part == 0 || version == r->version);
		version = r->version;
		parts = (uint32_t)r->number;
		memcpy(text + len, r->value, r->value_len);
		len += r->value_len;
	}
	return json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
}

/*
 * The status of shard 0, once a number in it (or in an object of it) is so large. Its report is a tenth of a second old
 * or more, and a follower hears of the last commit with its leader's next sign of life.
 */
static json_t *
fetch_shard(const char *object, const char *key, json_int_t at_least)
{
	uint64_t end = rte_rdtsc() + 10 * rte_get_tsc_hz();

	for (;;) {
		json_t *shard = fetch(CHP_OPCODE_STATUS, 1);
		const json_t *in = object != NULL ? json_object_get(shard, object) : shard;

		cr_assert(shard != NULL);
		if (json_integer_value(json_object_get(in, key)) >= at_least)
			return shard;
		json_decref(shard);
		cr_assert_lt(rte_rdtsc(), end, "%s", key);
		caller_poll(&c, 1);
	}
}

Test(replicas, info_and_status_are_json)
{
	json_t *info, *node, *shard, *drops;

	start("0", (struct local_options){ 0 });
	put_and_get(10);
	info = fetch(CHP_OPCODE_INFO, 0);
	cr_assert(info != NULL);
	cr_assert_eq(json_integer_value(json_object_get(info, "hash")), (json_int_t)l.cluster.hash);
	cr_assert_eq(json_array_size(json_object_get(info, "members")), 3u);
	cr_assert_str_eq(json_string_value(json_object_get(info, "hash_seed")), "0");
	cr_assert_str_eq(json_string_value(json_object_get(info, "protocol")), "hermes");
	cr_assert_str_eq(json_string_value(json_object_get(info, "application")), "store");
	node = fetch(CHP_OPCODE_STATUS, 0);
	cr_assert(node != NULL);
	cr_assert_str_eq(json_string_value(json_object_get(node, "state")), "serving");
	cr_assert(json_is_true(json_object_get(json_object_get(node, "membership"), "serves")));
	drops = json_object_get(node, "drops");
	cr_assert(json_is_integer(json_object_get(drops, "drop_crc")));
	cr_assert_eq(json_array_size(json_object_get(node, "lcores")), 1u);
	shard = fetch_shard("cache", "keys", 10);
	cr_assert_eq(json_integer_value(json_object_get(json_object_get(shard, "cache"), "keys")), 10);
	cr_assert(json_is_object(json_object_get(json_object_get(shard, "links"), "2")));
	cr_assert_str_eq(json_string_value(json_object_get(shard, "role")), "coordinator");
	cr_assert_str_eq(json_string_value(json_object_get(shard, "quorum")), "live");
	cr_assert_str_eq(json_string_value(json_object_get(shard, "waiting")), "");
	cr_assert_eq(json_integer_value(json_object_get(shard, "leader")), -1);
	cr_assert_eq(json_integer_value(json_object_get(shard, "zab_epoch")), 1);
	cr_assert(json_is_integer(json_object_get(json_object_get(shard, "zab"), "elections")));
	cr_assert(json_is_integer(json_object_get(json_object_get(shard, "commit"), "p999_ns")));
	json_decref(info);
	json_decref(node);
	json_decref(shard);
	caller_begin(&c, 0, 1, 0, 0, CHP_SHARD_ANY);
	caller_add(&c, CHP_OPCODE_STATUS, NULL, NULL, 9, 1);
	caller_send(&c);
	cr_assert(caller_wait(&c, 1) != NULL);
	cr_assert_eq(c.reply[1].status, CHP_STATUS_BAD_REQUEST);
	local_destroy(&l);
}

/* Ask replica *at, and whom it names, until one of them leads. */
static void
put_at_leader(uint32_t *at)
{
	const struct caller_reply *r = caller_call(&c, *at, CHP_OPCODE_PUT, "key", "value", 0);

	for (uint32_t tries = 0; r != NULL && r->status == CHP_STATUS_REDIRECT && tries < 3; tries++) {
		cr_assert_lt(r->number, 3u);
		*at = (uint32_t)r->number;
		r = caller_call(&c, *at, CHP_OPCODE_PUT, "key", "value", 0);
	}
	cr_assert(r != NULL);
	cr_assert_eq(r->status, CHP_STATUS_OK, "%s", chp_status_name(r->status));
}

/* With a protocol that has a log and leaders: who may serve is what its shards say. */
Test(replicas, status_of_a_protocol_with_leaders)
{
	json_t *info, *node, *shard, *membership;
	const struct caller_reply *r;
	json_int_t leader;

	start("0", (struct local_options){ .protocol = "zab" });
	for (uint32_t i = 0, at = 0; i < 10; i++) {
		put_at_leader(&at);
		r = caller_call(&c, i % 3, CHP_OPCODE_GET, "key", NULL, 0);
		cr_assert(r != NULL);
		cr_assert_eq(r->status, CHP_STATUS_OK, "%s", chp_status_name(r->status));
		cr_assert_eq(r->version, i + 1, "its position in the log, at every replica");
	}
	info = fetch(CHP_OPCODE_INFO, 0);
	cr_assert_str_eq(json_string_value(json_object_get(info, "protocol")), "zab");
	shard = fetch_shard(NULL, "applied", 10);
	node = fetch(CHP_OPCODE_STATUS, 0);
	cr_assert_str_eq(json_string_value(json_object_get(node, "state")), "serving");
	membership = json_object_get(node, "membership");
	cr_assert(json_is_true(json_object_get(membership, "serves")));
	cr_assert_eq(json_integer_value(json_object_get(membership, "lease_ms")), 0);
	cr_assert_eq(json_integer_value(json_object_get(membership, "leases_given")), 0);
	leader = json_integer_value(json_object_get(shard, "leader"));
	cr_assert(leader >= 0 && leader < 3);
	cr_assert_str_eq(json_string_value(json_object_get(shard, "role")), leader == 0 ? "leader" : "follower");
	cr_assert_str_eq(json_string_value(json_object_get(shard, "quorum")), "majority");
	cr_assert_str_eq(json_string_value(json_object_get(shard, "waiting")), "");
	cr_assert_geq(json_integer_value(json_object_get(shard, "zab_epoch")), 1);
	json_decref(info);
	json_decref(node);
	json_decref(shard);
	local_destroy(&l);
}

static _Atomic(int) report_answer;

static void *
ask_report(void *argument)
{
	static struct chp_shard_report shard;
	static struct chp_node_report node;
	bool ok = chp_pipeline_report(argument, 0, &shard, &node);

	atomic_store(&report_answer, ok && node.epoch == 1 && node.count[CHP_COUNT_rx_packets] > 0 ? 1 : 2);
	return NULL;
}

Test(replicas, other_threads_get_reports)
{
	pthread_t thread;

	start("0", (struct local_options){ 0 });
	cr_assert_eq(pthread_create(&thread, NULL, ask_report, l.replica[0]), 0);
	while (atomic_load(&report_answer) == 0)
		caller_poll(&c, 1);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(atomic_load(&report_answer), 1);
	local_destroy(&l);
}

/* Ticks of 20,000 iterations of replica 0: what it accounted for, and what passed around them. */
static void
account(uint64_t *sum, uint64_t *tsc)
{
	uint64_t begin[CHP_CYCLES_COUNT], end[CHP_CYCLES_COUNT];

	*sum = *tsc = 0;
	chp_pipeline_cycles(l.replica[0], 0, begin);
	for (uint32_t i = 0; i < 20000; i++) {
		uint64_t t;

		if (i % 16 == 0) {
			caller_begin(&c, 0, 0, 0, 0, 0);
			caller_add(&c, CHP_OPCODE_PUT, "key", "value", 0, 1);
			caller_send(&c);
		}
		t = rte_rdtsc();
		(void)chp_pipeline_poll(l.replica[0], 0);
		*tsc += rte_rdtsc() - t;
		(void)chp_pipeline_poll(l.replica[1], 0);
		(void)chp_pipeline_poll(l.replica[2], 0);
		(void)ring_net_poll(&l.net);
		caller_receive(&c);
	}
	chp_pipeline_cycles(l.replica[0], 0, end);
	for (uint32_t i = 0; i < CHP_CYCLES_COUNT; i++) {
		cr_assert_gt(end[i], begin[i]);
		*sum += end[i] - begin[i];
	}
}

/*
 * The three categories are all that a busy iteration takes. Outside stand only the two clock reads and the
 * call, an eighth of it; a round in which this process lost its CPU just there is not counted.
 */
Test(replicas, cycles_add_up)
{
	uint64_t sum = 0, tsc = 1;

	start("0", (struct local_options){ 0 });
	for (uint32_t round = 0; round < 10 && sum * 10 < tsc * 6; round++) {
		account(&sum, &tsc);
		cr_assert_leq(sum, tsc);
	}
	cr_assert_geq(sum * 10, tsc * 6);
	local_destroy(&l);
}
