/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Replicas over raw Ethernet: in every mapping, under loss, beside replicas that stay with UDP, through death
 * and return; and back-pressure, over both.
 */
#include "caller.h"

#include "base/assert.h"
#include "pipeline/stages.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <rte_cycles.h>

#include <stdio.h>
#include <string.h>

#define CLUSTER                                                                                    \
	"\"keys_max\": 4096, \"value_blocks_max\": 16384, \"sessions_max\": 64, "                   \
	"\"session_window\": 16, \"credits\": 64, \"link_window\": 64,"
#define RINGS "\"rx_ring\": 256, \"tx_ring\": 256, \"stage_ring\": 256,"
#define UDP RINGS LOCAL_PATIENT
#define ETHERNET UDP "\"peers\": \"ethernet\","
#define QUICK RINGS "\"timers\": { \"suspect_us\": 400000, \"lease_us\": 150000 },"
#define S rte_get_tsc_hz()

#define FOUR_LCORES                                                                                \
	"[{ \"lcore\": 0, \"stages\": [\"rx0\"] }, { \"lcore\": 1, \"stages\": [\"shard0\"] }, "      \
	"{ \"lcore\": 2, \"stages\": [\"tx0\"] }, { \"lcore\": 3, \"stages\": [\"control\"] }]"
#define TWO_SHARDS                                                                                 \
	"[{ \"lcore\": 0, \"stages\": [\"rx0\", \"shard0\", \"tx0\", \"control\"] }, "                \
	"{ \"lcore\": 1, \"stages\": [\"rx1\", \"shard1\", \"tx1\"] }]"

static struct local l;
static struct caller c;
static struct chp_error error;

/* What the network saw between replicas, and what it does to it. */
static struct {
	uint64_t udp, direct, pauses;
	uint32_t lose_one_in; /* 0: none */
	bool lose_pauses;
} net;

static bool
watch(void *context, uint32_t from, struct rte_mbuf *m)
{
	const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *);
	const struct chp_peer_header *h;
	static uint32_t n;
	bool direct = chp_frame_is_direct(frame);
	uint32_t len;

	(void)context;
	if (from == l.options.replicas || frame[5] == 200 || (frame[0] & 1) != 0 || m->data_len < 64)
		return true; /* of and to the caller, ARP */
	net.direct += direct;
	net.udp += !direct;
	h = (const void *)chp_frame_packet(frame, &len);
	if (h->prelude.kind == CHP_PACKET_PEER && (h->flags & CHP_PEER_PAUSE) != 0) {
		net.pauses++;
		if (net.lose_pauses)
			return false;
	}
	return net.lose_one_in == 0 || ++n % net.lose_one_in != 0;
}

static void
start(struct local_options o)
{
	cr_assert(caller_start_eal("0"));
	o.replicas = 3;
	o.shards = o.shards != 0 ? o.shards : 1;
	o.cluster = CLUSTER;
	o.node = o.node != NULL ? o.node : ETHERNET;
	o.tap = watch;
	cr_assert_eq(local_create(&l, &o, &error), 0, "%s", error.text);
	cr_assert_eq(caller_init(&c, &l), 0);
	cr_assert(local_wait_serving(&l));
}

static uint64_t
count(enum chp_pipeline_counter which)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < l.options.replicas; i++)
		sum += l.replica[i] != NULL ? chp_pipeline_count(l.replica[i], which) : 0;
	return sum;
}

/* A counter of all links of a replica's shard 0. */
static struct chp_link_counters
links_of(uint32_t replica)
{
	static struct chp_shard_stats s;
	struct chp_link_counters sum = { 0 };

	chp_shard_stats(chp_pipeline_shard(l.replica[replica], 0), &s);
	for (uint32_t k = 0; k < l.options.replicas; k++) {
		if (k == replica)
			continue;
#define ADD(name, help) sum.name += s.link[k].name;
		CHP_LINK_COUNTERS(ADD)
#undef ADD
	}
	return sum;
}

static void
put_and_get(uint32_t keys)
{
	const struct caller_reply *r;
	char key[16], value[600];

	for (uint32_t i = 0; i < keys; i++) {
		(void)snprintf(key, sizeof(key), "key%u", i);
		memset(value, 'a' + (int)(i % 26), sizeof(value));
		value[i * 7 % 599] = '\0';
		r = caller_call(&c, i % 3, CHP_OPCODE_PUT, key, value, 0);
		cr_assert(r != NULL, "put %u", i);
		cr_assert_eq(r->status, CHP_STATUS_OK, "%s", chp_status_name(r->status));
		for (uint32_t k = 0; k < 3; k++) {
			r = caller_call(&c, k, CHP_OPCODE_GET, key, NULL, 0);
			cr_assert(r != NULL, "get %u", i);
			cr_assert_eq(r->status, CHP_STATUS_OK);
			cr_assert_eq(r->value_len, strlen(value));
			cr_assert_arr_eq(r->value, value, strlen(value));
		}
	}
	cr_assert_eq(c.bad_frames, 0u);
}

/* At rest, all replicas hold the same. */
static void
check_shards(void)
{
	uint64_t end = rte_rdtsc() + 5 * S;
	bool equal = false;

	while (!equal && rte_rdtsc() < end) {
		caller_poll(&c, 1000);
		equal = true;
		for (uint32_t s = 0; s < l.options.shards; s++) {
			for (uint32_t i = 1; i < 3; i++)
				equal &= chp_shard_digest(chp_pipeline_shard(l.replica[i], s)) ==
					 chp_shard_digest(chp_pipeline_shard(l.replica[0], s));
		}
	}
	cr_assert(equal);
	for (uint32_t s = 0; s < l.options.shards; s++) {
		for (uint32_t i = 0; i < 3; i++)
			chp_shard_check(chp_pipeline_shard(l.replica[i], s));
	}
}

/* ------------------------------------------------------------------ replicas */

static void
all_direct(struct local_options o)
{
	start(o);
	put_and_get(100);
	check_shards();
	cr_assert_eq(net.udp, 0u, "replicas spoke UDP");
	cr_assert_gt(net.direct, 500u);
	/* The heartbeats of the start may still be on their way. */
	cr_assert_geq(net.direct, count(CHP_COUNT_rx_direct));
	cr_assert_gt(count(CHP_COUNT_rx_direct), net.direct - 100);
	cr_assert_eq(count(CHP_COUNT_rx_mixed), 0u);
	cr_assert_eq(count(CHP_COUNT_drop_node), 0u);
	cr_assert_eq(l.reports, 3u, "%s", l.last_report); /* that there is a view */
	local_destroy(&l);
}

Test(direct, run_to_completion_on_one_lcore)
{
	all_direct((struct local_options){ 0 });
}

Test(direct, a_ring_between_all_stages)
{
	all_direct((struct local_options){ .lcores = FOUR_LCORES });
}

/* They all come to queue 0, and those of shard 1 over a ring. */
Test(direct, two_shards_with_a_queue_each)
{
	all_direct((struct local_options){ .shards = 2, .queues = 2, .lcores = TWO_SHARDS });
}

Test(direct, links_repair_lost_packets)
{
	start((struct local_options){ 0 });
	net.lose_one_in = 13;
	put_and_get(150);
	net.lose_one_in = 0;
	check_shards();
	cr_assert_eq(net.udp, 0u);
	cr_assert_gt(links_of(0).retransmits + links_of(1).retransmits + links_of(2).retransmits, 10u);
	local_destroy(&l);
}

Test(direct, impairment_and_cuts_count_here_too)
{
	const struct chp_impairment cut = { .drop_ppm = 20000, .duplicate_ppm = 20000, .delay_ppm = 20000,
					    .delay_us = 300 };
	const struct chp_impairment none = { 0 };

	start((struct local_options){ 0 });
	for (uint32_t i = 0; i < 3; i++)
		chp_pipeline_impair(l.replica[i], &cut);
	for (uint64_t end = rte_rdtsc() + S / 2; rte_rdtsc() < end;) {
		caller_begin(&c, 0, 0, 0, 0, 0);
		caller_add(&c, CHP_OPCODE_PUT, "key", "value", 0, 100);
		caller_send(&c);
		caller_poll(&c, 20);
	}
	for (uint32_t i = 0; i < 3; i++)
		chp_pipeline_impair(l.replica[i], &none);
	cr_assert_gt(count(CHP_COUNT_impair_dropped), 0u);
	cr_assert_gt(count(CHP_COUNT_impair_duplicated), 0u);
	cr_assert_gt(count(CHP_COUNT_impair_delayed), 0u);
	caller_poll(&c, 20000);
	put_and_get(20);
	check_shards();
	cr_assert_eq(net.udp, 0u);
	local_destroy(&l);
}

/* What a replica's status says of a key of its top level. */
static bool
status_is(uint32_t replica, const char *key, const char *value)
{
	static char text[CHP_TEXT_BYTES];
	uint32_t len = chp_pipeline_status(l.replica[replica], 0, text, sizeof(text));
	json_t *status = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	const char *have = json_string_value(json_object_get(status, key));
	bool is = have != NULL && strcmp(have, value) == 0;

	json_decref(status);
	return is;
}

Test(direct, who_is_configured_otherwise_is_understood_and_reported)
{
	start((struct local_options){ .node_of = { [1] = UDP } });
	put_and_get(50);
	check_shards();
	cr_assert_gt(net.udp, 0u);
	cr_assert_gt(net.direct, 0u);
	for (uint32_t i = 0; i < 3; i++)
		cr_assert_gt(chp_pipeline_count(l.replica[i], CHP_COUNT_rx_mixed), 0u);
	/* Each says that there is a view; 0 and 2 say it of 1, and 1 of both, once. */
	cr_assert_eq(l.reports, 3u + 4u, "%s", l.last_report);
	cr_assert(status_is(0, "peers", "ethernet"));
	cr_assert(status_is(1, "peers", "udp"));
	local_destroy(&l);
}

/* A rolling change: one replica after the other is stopped and comes back with another node file. */
Test(direct, a_cluster_changes_over_while_it_serves)
{
	uint64_t before;

	start((struct local_options){ .node = QUICK });
	put_and_get(30);
	cr_assert_eq(net.direct, 0u);
	for (uint32_t i = 0; i < 3; i++) {
		uint64_t end = rte_rdtsc() + 10 * S;

		local_kill(&l, i);
		for (uint64_t ms = rte_rdtsc() + S; rte_rdtsc() < ms;)
			caller_poll(&c, 1);
		l.options.node_of[i] = QUICK "\"peers\": \"ethernet\",";
		cr_assert_eq(local_start(&l, i, &error), 0, "%s", error.text);
		while (!chp_pipeline_is_serving(l.replica[i]) && rte_rdtsc() < end)
			caller_poll(&c, 1);
		cr_assert(local_wait_serving(&l), "replica %u", i);
		put_and_get(10);
	}
	check_shards();
	before = net.udp;
	put_and_get(30);
	cr_assert_eq(net.udp, before, "somebody still speaks UDP");
	local_destroy(&l);
}

/* ------------------------------------------------------------------ back-pressure */

/* A shard of replica 0 that gets its CPU far too seldom, behind a ring of 64 packets. */
#define SLOW                                                                                       \
	"\"rx_ring\": 1024, \"tx_ring\": 1024, \"stage_ring\": 64, "                                 \
	"\"timers\": { \"suspect_us\": 20000000, \"lease_us\": 10000000, \"rto_min_us\": 20000 },"
#define FULL_VALUE_BYTES 1000u

static void
poll_slowly(uint32_t iteration, uint32_t every)
{
	for (uint32_t i = 0; i < 3; i++) {
		for (uint32_t k = 0; k < 4; k++) {
			if (i == 0 && k == 1 && iteration % every != 0)
				continue;
			(void)chp_pipeline_poll(l.replica[i], k);
		}
	}
	(void)ring_net_poll(&l.net);
	caller_receive(&c);
}

struct overload {
	uint64_t ok, dropped, retransmits, timeouts, pauses, resumes;
	double seconds;
};

/* Requests on their way: below the credits that replicas 1 and 2 have at replica 0, so that hardly any is refused. */
#define IN_FLIGHT 120u

/* What was counted so far is taken off (sign 0) or put on. */
static void
add_counters(struct overload *o, int sign)
{
	uint64_t one = sign != 0 ? 1 : UINT64_MAX;

	for (uint32_t i = 0; i < 3; i++) {
		struct chp_link_counters k = links_of(i);

		o->retransmits += one * k.retransmits;
		o->timeouts += one * k.timeouts;
	}
	o->dropped += one * count(CHP_COUNT_drop_peer_ring);
	o->pauses += one * count(CHP_COUNT_tx_pauses);
	o->resumes += one * count(CHP_COUNT_tx_resumes);
}

/* Writes of large values at replicas 1 and 2, as many as they take; each is a packet to replica 0. */
static struct overload
overload(uint32_t writes)
{
	static char value[FULL_VALUE_BYTES + 1];
	struct overload o = { 0 };
	uint64_t begin = rte_rdtsc(), before = c.n_replies;
	uint32_t sent = 0, iteration = 0;
	char key[16];

	memset(value, 'v', FULL_VALUE_BYTES);
	add_counters(&o, 0);
	while (c.n_replies - before < writes && rte_rdtsc() - begin < 60 * S) {
		uint32_t end = chp_min_u32(writes, (uint32_t)(c.n_replies - before) + IN_FLIGHT);

		for (uint32_t d = 0; d < 16 && sent < end; d++, sent++) {
			(void)snprintf(key, sizeof(key), "k%u", sent % 997);
			caller_begin(&c, 1 + sent % 2, 0, 0, 0, 0);
			caller_add(&c, CHP_OPCODE_PUT, key, value, 0, 1000 + sent);
			caller_send(&c);
		}
		poll_slowly(iteration++, 300);
	}
	for (uint32_t i = 0; i < sent; i++)
		o.ok += c.reply[1000 + i].there && c.reply[1000 + i].status == CHP_STATUS_OK;
	o.seconds = (double)(rte_rdtsc() - begin) / (double)S;
	add_counters(&o, 1);
	(void)fprintf(stderr,
		      "%lu written in %.2f s: %lu dropped, %lu sent again, %lu time-outs, %lu pauses, %lu resumes\n",
		      o.ok, o.seconds, o.dropped, o.retransmits, o.timeouts, o.pauses, o.resumes);
	return o;
}

static void
pressed(const char *node)
{
	struct overload without, with;

	start((struct local_options){ .lcores = FOUR_LCORES, .node = node });
	net.lose_pauses = true;
	without = overload(8000);
	net.lose_pauses = false;
	with = overload(8000);
	cr_assert_gt(without.ok, 4000u);
	cr_assert_gt(with.ok, 4000u);
	/* The ring of 64 packets is not enough for two windows of 64, */
	cr_assert_gt(without.dropped, 50u);
	cr_assert_gt(without.retransmits, 50u);
	/* unless the peers hear of it. */
	cr_assert_gt(with.pauses, 10u);
	cr_assert_gt(with.resumes, 10u);
	cr_assert_leq(4 * with.dropped, without.dropped);
	cr_assert_leq(4 * with.retransmits, without.retransmits);
	cr_assert_eq(links_of(1).resets + links_of(2).resets, 0u);
	check_shards();
	local_destroy(&l);
}

Test(direct, an_overloaded_shard_slows_its_peers)
{
	pressed(SLOW "\"peers\": \"ethernet\",");
}

Test(direct, an_overloaded_shard_slows_its_peers_over_udp)
{
	pressed(SLOW);
}
