/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Real pipelines whose view changes: a replica dies and comes back, is cut off, pauses; nobody serves without a
 * lease; a process that is reborn begins with empty shards, or ends when it cannot.
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
	"\"keys_max\": 4096, \"value_blocks_max\": 4096, \"sessions_max\": 64, "                    \
	"\"session_window\": 16, \"credits\": 64,"
/* Quicker than the default, and slow enough for two CPUs that others use, too. */
#define TIMERS "\"timers\": { \"suspect_us\": 400000, \"lease_us\": 150000, \"link_down_ms\": 1000 },"
#define NODE "\"rx_ring\": 256, \"tx_ring\": 256, \"stage_ring\": 256, \"copy_chunk_bytes\": 1024," TIMERS
#define S rte_get_tsc_hz()

/* Every stage on an lcore of its own: a test can let some of them pause. */
#define FOUR_LCORES                                                                                \
	"[{ \"lcore\": 0, \"stages\": [\"rx0\"] }, { \"lcore\": 1, \"stages\": [\"shard0\"] }, "      \
	"{ \"lcore\": 2, \"stages\": [\"tx0\"] }, { \"lcore\": 3, \"stages\": [\"control\"] }]"
#define LCORE_RX 0u
#define LCORE_SHARD 1u
#define LCORE_CONTROL 3u
#define ALL_LCORES 15u

static struct local l;
static struct caller c;
static struct chp_error error;

static void
start(struct local_options o)
{
	cr_assert(caller_start_eal("0"));
	o.replicas = 3;
	o.shards = o.shards != 0 ? o.shards : 1;
	o.cluster = CLUSTER;
	o.node = o.node != NULL ? o.node : NODE;
	cr_assert_eq(local_create(&l, &o, &error), 0, "%s", error.text);
	cr_assert_eq(caller_init(&c, &l), 0);
	cr_assert(local_wait_serving(&l));
}

static void
poll_for_ms(uint64_t ms)
{
	for (uint64_t end = rte_rdtsc() + S * ms / 1000; rte_rdtsc() < end;)
		caller_poll(&c, 1);
}

/* What a replica's status says of its membership. */
static json_t *
membership(uint32_t replica)
{
	static char text[CHP_TEXT_BYTES];
	uint32_t len = chp_pipeline_status(l.replica[replica], 0, text, sizeof(text));
	json_t *status, *m;

	cr_assert_lt(len, sizeof(text));
	status = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	cr_assert(status != NULL, "%s", text);
	m = json_incref(json_object_get(status, "membership"));
	json_decref(status);
	return m;
}

static uint64_t
number_of(uint32_t replica, const char *name)
{
	json_t *m = membership(replica);
	json_t *value = json_object_get(m, name);
	uint64_t n = (uint64_t)json_integer_value(value);

	cr_assert(json_is_integer(value), "%s", name);
	json_decref(m);
	return n;
}

static bool
is_text(uint32_t replica, const char *name, const char *text)
{
	json_t *m = membership(replica);
	const char *have = json_string_value(json_object_get(m, name));
	bool is = have != NULL && strcmp(have, text) == 0;

	json_decref(m);
	return is;
}

/* Poll until the replica is in a view of at least this epoch. */
static bool
wait_epoch(uint32_t replica, uint64_t epoch)
{
	for (uint64_t end = rte_rdtsc() + 10 * S; rte_rdtsc() < end; poll_for_ms(1)) {
		if (number_of(replica, "epoch") >= epoch)
			return true;
	}
	return false;
}

/* One request to replica's shard 0, with one look at what it answers; NULL when it says nothing in 300 ms. */
static const struct caller_reply *
ask(uint32_t replica, uint8_t opcode, const char *key, const char *value)
{
	uint32_t shard = caller_shard_of(&c, key);

	caller_begin(&c, replica, shard, 0, 0, (uint16_t)shard);
	caller_add(&c, opcode, key, value, 0, 7);
	caller_send(&c);
	for (uint64_t end = rte_rdtsc() + S * 3 / 10; !c.reply[7].there && rte_rdtsc() < end;)
		caller_poll(&c, 1);
	return c.reply[7].there ? &c.reply[7] : NULL;
}

/* Keys key0 ... with a value each, written at the living replicas in turn. */
static void
put_keys(uint32_t first, uint32_t n, const char *value)
{
	char key[16];

	for (uint32_t i = first, at = 0; i < first + n; i++) {
		uint64_t end = rte_rdtsc() + 5 * S;
		const struct caller_reply *r;

		do {
			at = (at + 1) % 3;
			caller_poll(&c, 1);
			cr_assert_lt(rte_rdtsc(), end, "nobody serves");
		} while (l.replica[at] == NULL || !chp_pipeline_is_serving(l.replica[at]));
		(void)snprintf(key, sizeof(key), "key%u", i);
		r = caller_call(&c, at, CHP_OPCODE_PUT, key, value, 0);
		cr_assert(r != NULL, "no answer to put %u at %u", i, at);
		cr_assert_eq(r->status, CHP_STATUS_OK, "put %u at %u: %s", i, at, chp_status_name(r->status));
	}
}

static void
get_keys(uint32_t replica, uint32_t first, uint32_t n, const char *value)
{
	char key[16];

	for (uint32_t i = first; i < first + n; i++) {
		const struct caller_reply *r;

		(void)snprintf(key, sizeof(key), "key%u", i);
		r = caller_call(&c, replica, CHP_OPCODE_GET, key, NULL, 0);
		cr_assert(r != NULL, "no answer to get %u at %u", i, replica);
		cr_assert_eq(r->status, CHP_STATUS_OK, "get %u at %u: %s", i, replica,
			     chp_status_name(r->status));
		cr_assert(r->value_len == strlen(value) && memcmp(r->value, value, r->value_len) == 0);
	}
}

static bool
are_equal(uint32_t shard)
{
	uint64_t digest = chp_shard_digest(chp_pipeline_shard(l.replica[0], shard));

	return digest == chp_shard_digest(chp_pipeline_shard(l.replica[1], shard)) &&
	       digest == chp_shard_digest(chp_pipeline_shard(l.replica[2], shard));
}

/* At rest, all replicas hold the same. */
static void
check_shards(void)
{
	uint64_t end = rte_rdtsc() + 5 * S;

	for (uint32_t s = 0; s < l.options.shards; s++) {
		do {
			poll_for_ms(50);
		} while (!are_equal(s) && rte_rdtsc() < end);
		cr_assert(are_equal(s), "shard %u", s);
		for (uint32_t i = 0; i < l.options.replicas; i++)
			chp_shard_check(chp_pipeline_shard(l.replica[i], s));
	}
	cr_assert_eq(c.bad_frames, 0u);
}

/* Nobody hears replica `of`, and it hears nobody; clients reach it. */
static void
cut_off(uint32_t of, bool is_cut)
{
	for (uint32_t i = 0; i < 3; i++) {
		struct chp_impairment to = { .cut = i == of ? 7u & ~(1u << of) : 1u << of };

		if (!is_cut)
			to.cut = 0;
		chp_pipeline_impair(l.replica[i], &to);
	}
}

/* ------------------------------------------------------------------ death and return */

static void
die_and_return(uint32_t who, struct local_options o)
{
	uint32_t other = (who + 1) % 3;
	json_t *m, *history, *copy;

	start(o);
	put_keys(0, 150, "before");
	local_kill(&l, who);
	cr_assert(wait_epoch(other, 2), "no view without replica %u", who);
	cr_assert(local_wait_serving(&l));
	put_keys(100, 150, "without it");
	get_keys(other, 0, 100, "before");
	get_keys((who + 2) % 3, 100, 150, "without it");

	cr_assert_eq(local_start(&l, who, &error), 0, "%s", error.text);
	for (uint32_t i = 0; !chp_pipeline_is_serving(l.replica[who]) && i < 200; i++) {
		put_keys(250 + i, 1, "while it copies");
		poll_for_ms(5);
	}
	cr_assert(local_wait_serving(&l));
	get_keys(who, 0, 100, "before");
	get_keys(who, 100, 150, "without it");
	get_keys(who, 250, 1, "while it copies");
	cr_assert(is_text(who, "role", "voter"));
	cr_assert_geq(number_of(who, "epoch"), 4u); /* without it, as a learner, as a voter */
	put_keys(0, 50, "after");
	get_keys(who, 0, 50, "after");
	poll_for_ms(300); /* reports of shards are a tenth of a second old */
	m = membership(who);
	history = json_object_get(m, "history");
	copy = json_object_get(m, "copy");
	cr_assert_geq(json_array_size(history), 2u);
	cr_assert(json_is_true(json_object_get(copy, "done")));
	cr_assert_eq(json_integer_value(json_object_get(copy, "progress_ppm")), 1000000);
	cr_assert_geq(json_integer_value(json_object_get(copy, "items")), 250);
	json_decref(m);
	check_shards();
	local_destroy(&l);
}

Test(survive, a_replica_dies_and_comes_back)
{
	die_and_return(2, (struct local_options){ 0 });
}

Test(survive, the_one_that_bootstrapped_dies_and_comes_back)
{
	die_and_return(0, (struct local_options){ .shards = 2 });
}

Test(survive, a_replica_dies_and_comes_back_with_rings)
{
	die_and_return(1, (struct local_options){ .lcores = FOUR_LCORES });
}

/* ------------------------------------------------------------------ leases */

Test(survive, who_is_cut_off_serves_nothing_and_is_reborn)
{
	const struct caller_reply *r;

	start((struct local_options){ 0 });
	put_keys(0, 50, "before");
	cut_off(2, true);
	cr_assert(wait_epoch(0, 2));
	cr_assert(wait_epoch(1, 2));
	cr_assert(!chp_pipeline_is_serving(l.replica[2]), "a view without it while it has a lease");
	r = ask(0, CHP_OPCODE_PUT, "key0", "after");
	cr_assert(r != NULL && r->status == CHP_STATUS_OK);
	r = ask(2, CHP_OPCODE_GET, "key0", NULL);
	cr_assert(r != NULL);
	cr_assert_eq(r->status, CHP_STATUS_NOT_SERVING, "%s", chp_status_name(r->status));
	cr_assert_eq(number_of(2, "lease_ms"), 0u);
	cr_assert_eq(number_of(2, "lives"), 1u);

	cut_off(2, false);
	cr_assert(local_wait_serving(&l));
	cr_assert_eq(number_of(2, "lives"), 2u);
	cr_assert(is_text(2, "role", "voter"));
	get_keys(2, 0, 1, "after");
	get_keys(2, 1, 49, "before");
	check_shards();
	local_destroy(&l);
}

/* Without a majority nobody serves, and nothing changes: when the others are back, so is the service. */
Test(survive, a_minority_keeps_its_view_and_its_state)
{
	const struct chp_impairment cut = { .cut = 7 }, none = { 0 };

	start((struct local_options){ 0 });
	put_keys(0, 20, "before");
	for (uint32_t i = 0; i < 3; i++)
		chp_pipeline_impair(l.replica[i], &cut);
	poll_for_ms(1200);
	for (uint32_t i = 0; i < 3; i++) {
		const struct caller_reply *r = ask(i, CHP_OPCODE_GET, "key1", NULL);

		cr_assert(!chp_pipeline_is_serving(l.replica[i]));
		cr_assert(r != NULL);
		cr_assert_eq(r->status, CHP_STATUS_NOT_SERVING, "%s", chp_status_name(r->status));
	}
	for (uint32_t i = 0; i < 3; i++)
		chp_pipeline_impair(l.replica[i], &none);
	cr_assert(local_wait_serving(&l));
	for (uint32_t i = 0; i < 3; i++) {
		get_keys(i, 0, 20, "before");
		cr_assert_eq(number_of(i, "epoch"), 1u);
		cr_assert_eq(number_of(i, "lives"), 1u);
	}
	put_keys(0, 20, "after");
	check_shards();
	local_destroy(&l);
}

/* Everything but these lcores of replica 2. */
static void
poll_others(uint32_t mask)
{
	for (uint32_t i = 0; i < 3; i++) {
		for (uint32_t k = 0; l.replica[i] != NULL && k < l.node[i].n_lcores; k++) {
			if (i != 2 || (mask & 1u << k) == 0)
				(void)chp_pipeline_poll(l.replica[i], k);
		}
	}
	(void)ring_net_poll(&l.net);
	caller_receive(&c);
}

/* SAFETY 16: it wakes up with an old view and a request; control has not run yet. */
Test(survive, who_paused_wakes_without_a_lease)
{
	const struct caller_reply *r;

	start((struct local_options){ .lcores = FOUR_LCORES });
	put_keys(0, 10, "before");
	for (uint64_t end = rte_rdtsc() + 10 * S; number_of(0, "epoch") < 2 && rte_rdtsc() < end;) {
		for (uint32_t i = 0; i < 100; i++)
			poll_others(ALL_LCORES);
	}
	for (uint64_t end = rte_rdtsc() + S; !chp_pipeline_is_serving(l.replica[0]) && rte_rdtsc() < end;)
		poll_others(ALL_LCORES);
	caller_begin(&c, 0, 0, 0, 0, 0);
	caller_add(&c, CHP_OPCODE_PUT, "key3", "after", 0, 5);
	caller_send(&c);
	for (uint64_t end = rte_rdtsc() + S; !c.reply[5].there && rte_rdtsc() < end;)
		poll_others(ALL_LCORES);
	cr_assert(c.reply[5].there);
	cr_assert_eq(c.reply[5].status, CHP_STATUS_OK, "%s", chp_status_name(c.reply[5].status));
	caller_begin(&c, 2, 0, 0, 0, 0);
	caller_add(&c, CHP_OPCODE_GET, "key3", NULL, 0, 6);
	caller_send(&c);
	for (uint64_t end = rte_rdtsc() + S; !c.reply[6].there && rte_rdtsc() < end;)
		poll_others(1u << LCORE_CONTROL);
	cr_assert(c.reply[6].there);
	cr_assert_eq(c.reply[6].status, CHP_STATUS_NOT_SERVING, "%s", chp_status_name(c.reply[6].status));
	cr_assert(local_wait_serving(&l));
	r = caller_call(&c, 2, CHP_OPCODE_GET, "key3", NULL, 0);
	cr_assert(r != NULL && r->status == CHP_STATUS_OK && r->value_len == 5);
	check_shards();
	local_destroy(&l);
}

/* SAFETY 16 again: the lease ends between the look at the clock and the end of the batch, as in a pause. */
Test(survive, reads_are_taken_back_when_the_lease_ends_in_their_batch)
{
	uint64_t revoked = 0, end;
	uint32_t refused = 0;
	struct chp_pipeline *p;

	start((struct local_options){ .lcores = FOUR_LCORES,
				      .node = "\"timers\": { \"suspect_us\": 1000000, \"lease_us\": 2000 }," });
	put_keys(0, 1, "value");
	p = l.replica[2];
	for (uint32_t try = 0; try < 2000 && revoked == 0; try++) {
		uint64_t left_ns = 200 + try % 20 * 1000, until_ns;

		for (end = rte_rdtsc() + S; !chp_pipeline_is_serving(p) && rte_rdtsc() < end;)
			caller_poll(&c, 1);
		caller_begin(&c, 2, 0, 0, 0, 0);
		for (uint64_t i = 0; i < 32; i++)
			caller_add(&c, CHP_OPCODE_GET, "key0", NULL, 0, 100 + i);
		caller_send(&c);
		(void)ring_net_poll(&l.net);
		(void)chp_pipeline_poll(p, LCORE_RX);
		until_ns = atomic_load(&p->lease_until_ns);
		while (chp_clock_ns(&p->clock) + left_ns < until_ns)
			;
		(void)chp_pipeline_poll(p, LCORE_SHARD);
		revoked = p->shard[0].native.counters.revoked;
		for (uint32_t i = 0; i < 20; i++)
			poll_others(1u << LCORE_CONTROL);
		refused = 0;
		for (uint64_t i = 0; i < 32; i++)
			refused += c.reply[100 + i].there && c.reply[100 + i].status == CHP_STATUS_NOT_SERVING;
	}
	cr_assert_gt(revoked, 0u);
	cr_assert_eq(refused, 32u, "%u of %llu", refused, (unsigned long long)revoked);
	local_destroy(&l);
}

/* ------------------------------------------------------------------ views and lives */

/* A shard that takes no views for a while gets the newest when it does, however many there were. */
Test(survive, a_slow_shard_gets_the_newest_view)
{
	uint64_t before, end;

	start((struct local_options){ .lcores = FOUR_LCORES });
	for (uint32_t i = 0; i < 3; i++) {
		before = number_of(2, "epoch");
		local_kill(&l, 1);
		for (end = rte_rdtsc() + 10 * S; number_of(2, "epoch") == before && rte_rdtsc() < end;) {
			for (uint32_t k = 0; k < 100; k++)
				poll_others(1u << LCORE_SHARD);
		}
		before = number_of(2, "epoch");
		cr_assert_eq(local_start(&l, 1, &error), 0, "%s", error.text);
		for (end = rte_rdtsc() + 10 * S; number_of(2, "epoch") == before && rte_rdtsc() < end;) {
			for (uint32_t k = 0; k < 100; k++)
				poll_others(1u << LCORE_SHARD);
		}
		cr_assert_gt(number_of(2, "epoch"), before);
	}
	cr_assert_geq(number_of(2, "epoch"), 7u); /* more than its ring takes */
	cr_assert(local_wait_serving(&l));
	cr_assert_eq(chp_shard_epoch(chp_pipeline_shard(l.replica[2], 0)), number_of(2, "epoch"));
	put_keys(0, 20, "after");
	check_shards();
	local_destroy(&l);
}

/* A reborn process whose shard finds no memory ends, and says why. */
Test(survive, without_memory_for_another_life_it_ends)
{
	uint64_t end;

	start((struct local_options){ 0 });
	cut_off(2, true);
	cr_assert(wait_epoch(0, 2));
	cr_assert(wait_epoch(1, 2));
	l.replica[2]->cluster.keys_max = 500000000;
	cut_off(2, false);
	for (end = rte_rdtsc() + 10 * S; !chp_pipeline_is_stopped(l.replica[2]) && rte_rdtsc() < end;)
		caller_poll(&c, 100);
	cr_assert(chp_pipeline_is_stopped(l.replica[2]));
	cr_assert_eq(chp_pipeline_exit_code(l.replica[2]), CHP_EXIT_RESOURCE);
	cr_assert(strstr(l.last_report, "shard 0 cannot begin anew") != NULL, "%s", l.last_report);
	cr_assert(chp_pipeline_is_serving(l.replica[0]) && chp_pipeline_is_serving(l.replica[1]));
	cr_assert(chp_pipeline_shard(l.replica[2], 0) == NULL);
	cr_assert_eq(number_of(2, "lives"), 2u);
	local_destroy(&l);
}

/* For the others an orderly stop is a death: they go on after the same time. */
Test(survive, who_stops_in_an_orderly_way_leaves_the_view)
{
	start((struct local_options){ 0 });
	put_keys(0, 10, "before");
	chp_pipeline_stop(l.replica[1]);
	for (uint64_t end = rte_rdtsc() + 3 * S; !chp_pipeline_is_stopped(l.replica[1]) && rte_rdtsc() < end;)
		caller_poll(&c, 1);
	cr_assert(chp_pipeline_is_stopped(l.replica[1]));
	cr_assert_eq(chp_pipeline_exit_code(l.replica[1]), CHP_EXIT_OK);
	local_kill(&l, 1);
	cr_assert(wait_epoch(0, 2));
	cr_assert(local_wait_serving(&l));
	put_keys(0, 10, "after");
	get_keys(2, 0, 10, "after");
	local_destroy(&l);
}
