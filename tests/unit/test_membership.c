/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The membership among 1 to 7 nodes over a network in virtual time that loses, repeats, reorders
 * and delays. In every run a process never leaves or changes the view it entered, and
 * two views that were entered have no process in common.
 */
#include "core/membership.h"

#include <criterion/criterion.h>
#include <string.h>

#define MS UINT64_C(1000000)
#define S (1000 * MS)
#define NODES_MAX 7u
#define PROCESSES_MAX 64u
#define PACKETS_MAX 8192u
#define VIEWS_MAX 16u
#define PAYLOAD 1472u
#define HASH 0x1234abcdu

struct process {
	struct chp_membership m;
	uint32_t id;
	bool alive;
	uint64_t entered_incarnation; /* 0 while in no view */
};

struct packet {
	uint64_t at_ns;
	uint32_t from, to; /* node ids */
	uint32_t len;
	uint8_t data[PAYLOAD];
};

struct world {
	struct chp_random random;
	uint64_t now_ns;
	uint32_t n_nodes;
	struct process process[PROCESSES_MAX];
	uint32_t n_processes;
	uint32_t n_packets;
	uint32_t loss_ppm, duplicate_ppm, slow_ppm;
	uint32_t small_only;   /* node id whose outgoing path drops full-size packets; UINT32_MAX */
	uint64_t cut[NODES_MAX]; /* cut[i]: node mask that node i cannot send to */
	bool one_of_two;       /* a packet reaches one of the processes with its node id, not all */
	struct chp_view entered[VIEWS_MAX]; /* every different view that was entered */
	uint32_t n_entered;
};

static struct world w;
static struct packet packet[PACKETS_MAX]; /* on the way: w.n_packets, in no order */

static void
world_init(uint64_t seed, uint32_t n_nodes)
{
	memset(&w, 0, sizeof(w));
	w.random.state = seed;
	w.now_ns = 1 * S;
	w.n_nodes = n_nodes;
	w.small_only = UINT32_MAX;
}

/* Look at every process after every step. */
static void
check(struct process *p)
{
	const struct chp_view *v = chp_membership_view(&p->m);
	uint32_t i;

	chp_membership_check(&p->m);
	if (v == NULL) {
		cr_assert_eq(p->entered_incarnation, 0);
		return;
	}
	if (p->entered_incarnation != 0) {
		cr_assert_eq(p->entered_incarnation, p->m.incarnation);
		return;
	}
	p->entered_incarnation = p->m.incarnation;
	for (i = 0; i < w.n_entered; i++) {
		bool same = memcmp(&w.entered[i], v, sizeof(*v)) == 0;

		if (same)
			return;
		for (uint32_t n = 0; n < w.n_nodes; n++)
			cr_assert_neq(w.entered[i].incarnation[n], v->incarnation[n],
				      "two views share a process");
	}
	cr_assert_lt(w.n_entered, VIEWS_MAX);
	w.entered[w.n_entered++] = *v;
	for (i = 0; i < w.n_nodes; i++)
		cr_assert_eq(v->writer[i], i + 1);
}

static struct process *
start(uint32_t id, bool bootstrap)
{
	struct process *p = &w.process[w.n_processes++];
	struct chp_membership_config config = {
		.cluster_hash = HASH,
		.self = id,
		.n_nodes = w.n_nodes,
		.payload_bytes = PAYLOAD,
		.incarnation = chp_random_u64(&w.random) | 1,
		.bootstrap = bootstrap,
	};

	cr_assert_leq(w.n_processes, PROCESSES_MAX);
	for (uint32_t i = 0; i < w.n_nodes; i++)
		config.address[i] = 0x0a63000au + i;
	p->id = id;
	p->alive = true;
	chp_membership_init(&p->m, &config, w.now_ns);
	check(p);
	return p;
}

static void
start_all(void)
{
	for (uint32_t i = 0; i < w.n_nodes; i++)
		start(i, i == 0);
}

static void
put_packet(uint32_t from, uint32_t to, const uint8_t *data, uint32_t len)
{
	struct packet *k = &packet[w.n_packets++];
	uint64_t delay = chp_random_range(&w.random, MS / 20, 2 * MS);

	cr_assert_leq(w.n_packets, PACKETS_MAX);
	if (chp_random_chance(&w.random, w.slow_ppm))
		delay += chp_random_below(&w.random, 400 * MS);
	k->at_ns = w.now_ns + delay;
	k->from = from;
	k->to = to;
	k->len = len;
	memcpy(k->data, data, len);
}

static void
send_all(struct process *p)
{
	uint8_t data[PAYLOAD];
	uint32_t len, to;

	while ((len = chp_membership_transmit(&p->m, w.now_ns, data, &to)) != 0) {
		cr_assert_leq(len, PAYLOAD);
		cr_assert_neq(to, p->id);
		cr_assert_eq(chp_control_check(data, len, HASH, w.n_nodes), CHP_PACKET_OK);
		if (chp_random_chance(&w.random, w.loss_ppm) || (w.cut[p->id] & chp_bit(to)) != 0 ||
		    (w.small_only == p->id && len == PAYLOAD))
			continue;
		put_packet(p->id, to, data, len);
		if (chp_random_chance(&w.random, w.duplicate_ppm))
			put_packet(p->id, to, data, len);
	}
}

static void
deliver(const struct packet *k)
{
	uint32_t candidates = 0, chosen;

	for (uint32_t i = 0; i < w.n_processes; i++)
		candidates += w.process[i].alive && w.process[i].id == k->to;
	if (candidates == 0)
		return;
	chosen = (uint32_t)chp_random_below(&w.random, candidates);
	for (uint32_t i = 0; i < w.n_processes; i++) {
		struct process *p = &w.process[i];

		if (!p->alive || p->id != k->to)
			continue;
		if (w.one_of_two && chosen-- != 0)
			continue;
		chp_membership_receive(&p->m, w.now_ns, k->data, k->len, k->from);
		check(p);
		send_all(p);
	}
}

/* The next thing happens, at most until `until_ns`. False when there is nothing before. */
static bool
step(uint64_t until_ns)
{
	uint64_t at_ns = until_ns;
	struct process *wake = NULL;
	int64_t arrives = -1;

	for (uint32_t i = 0; i < w.n_packets; i++)
		if (packet[i].at_ns < at_ns) {
			at_ns = packet[i].at_ns;
			arrives = i;
		}
	for (uint32_t i = 0; i < w.n_processes; i++) {
		struct process *p = &w.process[i];
		uint64_t wake_ns = p->alive ? chp_membership_wake_ns(&p->m) : CHP_NEVER;

		if (wake_ns < at_ns) {
			at_ns = wake_ns;
			wake = p;
		}
	}
	w.now_ns = chp_max_u64(w.now_ns, at_ns);
	if (wake != NULL) {
		chp_membership_tick(&wake->m, w.now_ns);
		check(wake);
		send_all(wake);
		return true;
	}
	if (arrives < 0)
		return false;
	struct packet k = packet[arrives];

	packet[arrives] = packet[--w.n_packets];
	deliver(&k);
	return true;
}

static void
run_for(uint64_t ns)
{
	uint64_t until_ns = w.now_ns + ns;

	while (step(until_ns))
		;
	w.now_ns = until_ns;
}

static uint32_t
count(enum chp_membership_state state)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < w.n_processes; i++)
		n += w.process[i].alive && w.process[i].m.state == state;
	return n;
}

static bool
settled(void)
{
	return count(CHP_MEMBERSHIP_FORMING) == 0;
}

/* Run until nobody is forming any more. */
static bool
run_until_settled(uint64_t ns)
{
	uint64_t until_ns = w.now_ns + ns;

	while (!settled())
		if (!step(until_ns))
			return false;
	return true;
}

static void
random_faults(void)
{
	w.loss_ppm = (uint32_t)chp_random_below(&w.random, 300000);
	w.duplicate_ppm = (uint32_t)chp_random_below(&w.random, 200000);
	w.slow_ppm = (uint32_t)chp_random_below(&w.random, 300000);
}

static const char *
waiting(const struct process *p)
{
	static char text[CHP_MEMBERSHIP_TEXT_BYTES];
	struct chp_text t = chp_text_of(text, sizeof(text));

	chp_membership_waiting(&p->m, w.now_ns, &t);
	return text;
}

/* Whether a process ever reported a line that contains `part`. */
static bool
reported(struct process *p, const char *part)
{
	const char *line;
	bool found = false;

	while ((line = chp_membership_report(&p->m)) != NULL)
		found = found || strstr(line, part) != NULL;
	return found;
}

Test(membership, single_member_is_in_its_view_at_once_with_bootstrap)
{
	world_init(1, 1);
	struct process *p = start(0, true);

	check(p);
	cr_assert_eq(p->m.state, CHP_MEMBERSHIP_SERVING);
	cr_assert_eq(chp_membership_view(&p->m)->epoch, 1);
	cr_assert_eq(chp_membership_view(&p->m)->voters, 1);
	cr_assert_eq(chp_membership_view(&p->m)->incarnation[0], p->m.incarnation);
	cr_assert_eq(chp_membership_wake_ns(&p->m), CHP_NEVER);
}

Test(membership, without_bootstrap_there_is_no_view)
{
	for (uint32_t n = 1; n <= 3; n++) {
		world_init(n, n);
		for (uint32_t i = 0; i < n; i++)
			start(i, false);
		run_for(20 * S);
		cr_assert_eq(count(CHP_MEMBERSHIP_FORMING), n);
		for (uint32_t i = 0; i < n; i++)
			cr_assert(strstr(waiting(&w.process[i]), "--bootstrap") != NULL, "%s",
				  waiting(&w.process[i]));
	}
}

Test(membership, bootstrap_on_another_node_is_not_enough_and_is_reported)
{
	world_init(1, 3);
	start(0, false);
	start(1, true);
	start(2, false);
	run_for(5 * S);
	cr_assert_eq(count(CHP_MEMBERSHIP_FORMING), 3);
	cr_assert(reported(&w.process[0], "node 1 (10.99.0.11) was started with --bootstrap"));
}

Test(membership, a_quiet_network_forms_fast)
{
	for (uint32_t n = 2; n <= NODES_MAX; n++) {
		world_init(n, n);
		start_all();
		cr_assert(run_until_settled(S / 4), "%u nodes: %s", n, waiting(&w.process[0]));
		cr_assert_eq(count(CHP_MEMBERSHIP_SERVING), n);
		cr_assert_eq(w.n_entered, 1);
	}
}

Test(membership, all_members_are_needed)
{
	world_init(1, 3);
	start(0, true);
	struct process *one = start(1, false);

	run_for(10 * S);
	cr_assert_eq(count(CHP_MEMBERSHIP_FORMING), 2);
	cr_assert_str_eq(waiting(one), "waiting for node 2 (10.99.0.12): never heard");
	start(2, false);
	cr_assert(run_until_settled(2 * S));
	cr_assert_eq(count(CHP_MEMBERSHIP_SERVING), 3);
	cr_assert_str_eq(waiting(one), "in view 1");
}

Test(membership, a_bad_network_forms_one_view)
{
	for (uint64_t seed = 0; seed < 1500; seed++) {
		world_init(seed, 1 + (uint32_t)(seed % NODES_MAX));
		random_faults();
		for (uint32_t i = 0; i < w.n_nodes; i++) {
			start(i, i == 0 || chp_random_chance(&w.random, 300000));
			run_for(chp_random_below(&w.random, 50 * MS));
		}
		cr_assert(run_until_settled(60 * S), "seed %lu: %s", seed, waiting(&w.process[0]));
		cr_assert_eq(count(CHP_MEMBERSHIP_SERVING), w.n_nodes, "seed %lu", seed);
		cr_assert_eq(w.n_entered, 1, "seed %lu", seed);
	}
}

/* Processes die and start again at random until the first of them is in a view. */
Test(membership, restarts_while_forming)
{
	uint32_t refused = 0, abandoned = 0, runs = 1000;

	for (uint64_t seed = 0; seed < runs; seed++) {
		world_init(seed, 2 + (uint32_t)(seed % (NODES_MAX - 1)));
		random_faults();
		start_all();
		for (uint32_t restarts = 0; restarts < 8 && w.n_entered == 0; restarts++) {
			uint32_t i = (uint32_t)chp_random_below(&w.random, w.n_processes);
			uint64_t until_ns = w.now_ns + chp_random_below(&w.random, 200 * MS);

			while (w.n_entered == 0 && step(until_ns))
				;
			if (w.n_entered != 0 || !w.process[i].alive)
				continue;
			w.process[i].alive = false;
			start(w.process[i].id, w.process[i].id == 0);
		}
		cr_assert(run_until_settled(90 * S), "seed %lu: %s", seed, waiting(&w.process[0]));
		cr_assert_eq(w.n_entered, 1, "seed %lu", seed);
		cr_assert_geq(count(CHP_MEMBERSHIP_SERVING), 1u);
		/* Refused are only those whose earlier process accepted the view before it died. */
		for (uint32_t i = 0; i < w.n_processes; i++) {
			const struct process *p = &w.process[i];
			bool named = p->m.incarnation == w.entered[0].incarnation[p->id];

			if (p->alive)
				cr_assert_eq(p->m.state, named ? CHP_MEMBERSHIP_SERVING :
								 CHP_MEMBERSHIP_REFUSED);
			abandoned += (uint32_t)p->m.counters.abandoned;
		}
		refused += count(CHP_MEMBERSHIP_REFUSED);
	}
	cr_assert_lt(refused, runs / 10, "%u of %u", refused, runs);
	cr_assert_gt(abandoned, 0, "the hard case never came up");
}

Test(membership, restarts_after_forming_are_refused)
{
	for (uint64_t seed = 0; seed < 300; seed++) {
		uint32_t n = 2 + (uint32_t)(seed % (NODES_MAX - 1)), victim;

		world_init(seed, n);
		random_faults();
		start_all();
		/* Two in the view are enough, one of them will know; the rest may be on its way. */
		while (count(CHP_MEMBERSHIP_SERVING) < 2)
			cr_assert(step(w.now_ns + 60 * S));
		victim = (uint32_t)chp_random_below(&w.random, n);
		w.process[victim].alive = false;
		struct process *again = start(victim, victim == 0);

		cr_assert(run_until_settled(60 * S), "seed %lu: %s", seed, waiting(again));
		cr_assert_eq(w.n_entered, 1, "seed %lu", seed);
		cr_assert_eq(again->m.state, CHP_MEMBERSHIP_REFUSED, "seed %lu", seed);
		cr_assert_neq(again->m.refused_by, victim);
		cr_assert(strstr(again->m.reason, "refused us") != NULL);
		cr_assert_eq(chp_membership_wake_ns(&again->m), CHP_NEVER);
		cr_assert_eq(count(CHP_MEMBERSHIP_SERVING), n - 1);
	}
}

Test(membership, of_two_processes_with_one_id_one_is_refused)
{
	for (uint64_t seed = 0; seed < 600; seed++) {
		uint32_t n = 2 + (uint32_t)(seed % (NODES_MAX - 1));
		uint32_t twin = (uint32_t)chp_random_below(&w.random, n);

		world_init(seed, n);
		random_faults();
		w.one_of_two = seed % 2 == 0;
		start_all();
		run_for(chp_random_below(&w.random, 100 * MS));
		start(twin, twin == 0);
		cr_assert(run_until_settled(120 * S), "seed %lu n %u twin %u: %s", seed, n, twin,
			  waiting(&w.process[0]));
		cr_assert_eq(w.n_entered, 1, "seed %lu", seed);
		cr_assert_eq(count(CHP_MEMBERSHIP_SERVING), n, "seed %lu", seed);
		cr_assert_eq(count(CHP_MEMBERSHIP_REFUSED), 1, "seed %lu", seed);
	}
}

/* Anything at any time: only what must hold always is checked, see check(). */
Test(membership, chaos_never_enters_two_views_with_a_common_process)
{
	uint32_t formed = 0;

	for (uint64_t seed = 0; seed < 600; seed++) {
		world_init(seed, 2 + (uint32_t)(seed % 4));
		random_faults();
		w.one_of_two = seed % 3 == 0;
		start_all();
		for (uint32_t i = 0; i < 30; i++) {
			uint32_t k = (uint32_t)chp_random_below(&w.random, w.n_processes);

			run_for(chp_random_below(&w.random, 1500 * MS));
			w.cut[chp_random_below(&w.random, w.n_nodes)] =
				chp_random_u64(&w.random) & chp_random_u64(&w.random);
			w.process[k].alive = chp_random_chance(&w.random, 200000);
			start(w.process[k].id, chp_random_chance(&w.random, 500000));
		}
		formed += w.n_entered;
	}
	cr_assert_gt(formed, 100);
}

Test(membership, a_member_that_small_packets_alone_reach_is_reported_and_awaited)
{
	world_init(1, 3);
	w.small_only = 2;
	start_all();
	run_for(10 * S);
	cr_assert_eq(count(CHP_MEMBERSHIP_FORMING), 3);
	cr_assert_str_eq(waiting(&w.process[0]),
			 "waiting for node 2 (10.99.0.12): heard only in small packets (MTU?)");
	cr_assert_str_eq(waiting(&w.process[2]),
			 "waiting for node 0 (10.99.0.10): hears us only in small packets (MTU?)");
	cr_assert(reported(&w.process[1], "we hear node 2 (10.99.0.12) only in small packets"));
	cr_assert(reported(&w.process[2], "node 1 (10.99.0.11) hears us only in small packets"));
	cr_assert_gt(w.process[1].m.counters.short_only, 0);
	w.small_only = UINT32_MAX;
	cr_assert(run_until_settled(3 * S));
	cr_assert_eq(count(CHP_MEMBERSHIP_SERVING), 3);
}

Test(membership, one_way_cuts_are_named)
{
	world_init(1, 3);
	w.cut[1] = chp_bit(2);
	start_all();
	run_for(10 * S);
	cr_assert_eq(count(CHP_MEMBERSHIP_FORMING), 3);
	cr_assert_str_eq(waiting(&w.process[0]),
			 "waiting for node 2 (10.99.0.12): does not hear node 1 (10.99.0.11)");
	cr_assert_str_eq(waiting(&w.process[1]),
			 "waiting for node 2 (10.99.0.12): does not hear us");
	w.cut[1] = 0;
	cr_assert(run_until_settled(3 * S));
}

/* Let node 0 hear the HELLOs of a process with another configuration three times. */
static struct process *
meet_a_stranger(struct chp_membership_config *stranger, uint32_t from_address)
{
	struct chp_membership m;
	uint8_t data[PAYLOAD];
	uint32_t len, to;

	world_init(1, 3);
	struct process *p = start(0, true);

	stranger->n_nodes = stranger->n_nodes == 0 ? 3 : stranger->n_nodes;
	stranger->payload_bytes = PAYLOAD;
	stranger->incarnation = 77;
	chp_membership_init(&m, stranger, w.now_ns);
	chp_membership_tick(&m, w.now_ns);
	while ((len = chp_membership_transmit(&m, w.now_ns, data, &to)) != 0)
		if (to == 0)
			for (uint32_t i = 0; i < 3; i++)
				chp_membership_receive(&p->m, w.now_ns, data, len, from_address);
	return p;
}

Test(membership, strangers_are_counted_and_reported_once)
{
	struct chp_membership_config other = { .cluster_hash = 0xfeedf00d, .self = 1 };
	struct process *p = meet_a_stranger(&other, 1);
	const char *line = chp_membership_report(&p->m);

	cr_assert_str_eq(line, "node at 10.99.0.11 belongs to another cluster or has another "
			       "configuration: hash feedf00d, ours 1234abcd");
	cr_assert_null(chp_membership_report(&p->m));
	cr_assert_eq(p->m.counters.dropped[CHP_PACKET_CLUSTER], 6);
	cr_assert_eq(p->m.peer[1].incarnation, 0);

	p = meet_a_stranger(&other, CHP_MEMBERSHIP_NO_MEMBER);
	cr_assert(reported(p, "a node at an unlisted address belongs to another cluster"));

	struct chp_membership_config elsewhere = { .cluster_hash = HASH, .self = 2 };

	p = meet_a_stranger(&elsewhere, 1);
	cr_assert(reported(p, "node at 10.99.0.11 says it is node 2, which our cluster file has"));
	cr_assert_eq(p->m.counters.other_address, 6);
	cr_assert_eq(p->m.peer[2].incarnation, 0);

	struct chp_membership_config more = { .cluster_hash = HASH, .self = 5, .n_nodes = 6 };

	p = meet_a_stranger(&more, 1);
	cr_assert(reported(p, "says it is node 5"));
	cr_assert_eq(p->m.counters.dropped[CHP_PACKET_NODE], 6);

	struct chp_membership_config members = { .cluster_hash = HASH, .self = 1 };

	p = meet_a_stranger(&members, 1);
	cr_assert(reported(p, "has other members or addresses in its cluster file"));
	cr_assert(p->m.peer[1].members_differ);
}

Test(membership, two_processes_with_one_id_are_reported)
{
	world_init(1, 3);
	struct process *p = start(0, true);

	start(1, false);
	start(1, false);
	run_for(5 * S);
	cr_assert(reported(p, "two processes run as node 1 (10.99.0.11)"));
}

Test(membership, a_refusal_for_another_incarnation_is_ignored)
{
	world_init(1, 2);
	struct process *p = start(0, false);
	struct chp_control_refused r = {
		.header = {
			.prelude = {
				.magic = CHP_WIRE_MAGIC,
				.version = CHP_WIRE_VERSION,
				.kind = CHP_PACKET_CONTROL,
				.cluster_hash = HASH,
			},
			.from = 1,
			.to = 0,
			.type = CHP_CONTROL_REFUSED,
			.from_incarnation = 5,
			.to_incarnation = p->m.incarnation + 1,
			.epoch = 1,
		},
		.reason = CHP_REFUSED_NOT_IN_VIEW,
		.heard_ms = 12,
	};

	chp_control_seal(&r, sizeof(r));
	chp_membership_receive(&p->m, w.now_ns, &r, sizeof(r), 1);
	cr_assert_eq(p->m.state, CHP_MEMBERSHIP_FORMING);
	r.header.to_incarnation--;
	chp_control_seal(&r, sizeof(r));
	chp_membership_receive(&p->m, w.now_ns, &r, sizeof(r), 1);
	cr_assert_eq(p->m.state, CHP_MEMBERSHIP_REFUSED);
	cr_assert_eq(p->m.refused_by, 1);
	cr_assert_str_eq(p->m.reason,
			 "node 1 (10.99.0.11) refused us: in view 1 another process is node 0, "
			 "heard 12 ms ago: it still runs, or this is its restart");
}

Test(membership, peers_are_heard_through_their_links_too)
{
	char text[CHP_MEMBERSHIP_TEXT_BYTES];
	struct chp_text t = chp_text_of(text, sizeof(text));

	world_init(1, 3);
	start_all();
	cr_assert(run_until_settled(S));
	struct process *p = &w.process[0];

	run_for(S);
	cr_assert_eq(chp_membership_heard(&p->m, w.now_ns), 7);
	w.process[1].alive = w.process[2].alive = false;
	run_for(5 * S);
	cr_assert_eq(chp_membership_heard(&p->m, w.now_ns), 1);
	chp_membership_peer_heard(&p->m, w.now_ns, 1, w.process[1].m.incarnation + 1);
	cr_assert_eq(chp_membership_heard(&p->m, w.now_ns), 1);
	chp_membership_peer_heard(&p->m, w.now_ns, 1, w.process[1].m.incarnation);
	cr_assert_eq(chp_membership_heard(&p->m, w.now_ns), 3);
	chp_membership_peer_text(&p->m, w.now_ns + 12 * MS, 1, &t);
	cr_assert_str_eq(text, "heard 12 ms ago, does not hear us");
	cr_assert_eq(p->m.state, CHP_MEMBERSHIP_SERVING, "the view is fixed");
}
