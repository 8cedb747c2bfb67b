/* SPDX-License-Identifier: BSD-3-Clause */
/* ZAB on whole shards: packets are handed over in memory, time is made by hand. */
#include "core/shard.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocols/zab_quorum.h"
#include "wire/zab.h"

#define MS UINT64_C(1000000)
#define HASH 0x77u
#define PAYLOAD CHP_PAYLOAD_BYTES_MIN
#define BUFFERS 256u
#define NONE UINT32_MAX
#define ELECTION_MS 100u
#define LEASE_MS 50u
/* The first epoch that anybody takes. */
#define FOUNDED_BY(n) (((n) + UINT64_C(1)) << 16 | ((n) + 1u))

/* A packet on its way. */
struct parcel {
	struct parcel *next;
	uint32_t from, len;
	uint8_t data[];
};

struct answer {
	bool is_given;
	uint32_t node;
	struct chp_reply reply;
	uint8_t value[CHP_VALUE_BYTES_MAX];
};

/* Replicas of one shard, what is on its way to each, and every answer, by the operation's tag. */
struct world {
	struct chp_shard_config config;
	struct chp_shard *shard[CHP_NODES_MAX];
	struct chp_view view;
	struct parcel *inbox[CHP_NODES_MAX];
	uint64_t wake_ns[CHP_NODES_MAX];
	uint64_t cut[CHP_NODES_MAX];  /* what goes from a node to these is lost */
	uint64_t held[CHP_NODES_MAX]; /* or waits until it is let go */
	uint64_t alive;
	uint64_t now;
	uint32_t reply_room;  /* 0: plenty */
	uint32_t check_every; /* runs from one check of all invariants to the next */
	uint32_t runs;
	uint32_t running;
	uint64_t reads_until_ns; /* of the last run */
	struct answer answer[4096];
	uint32_t tags;
};

static struct chp_shard_config
config_of(uint32_t n_nodes)
{
	const uint32_t credits = 8;

	return (struct chp_shard_config){
		.protocol = &chp_zab,
		.application = &chp_store,
		.memory = &chp_memory_libc,
		.name = "test",
		.cluster_hash = HASH,
		.shards = 1,
		.n_nodes = n_nodes,
		.hash_seed = 7,
		.payload_bytes_max = PAYLOAD,
		.key_bytes_max = CHP_KEY_BYTES_MAX,
		.value_bytes_max = 200,
		.keys_max = 64,
		.value_blocks_max = 64,
		.sessions_max = 8,
		.session_window = 4,
		.session_idle_ns = 100000 * MS,
		.credits = credits,
		.link_window = 16,
		.log_entries = chp_pow2_up(8 * n_nodes * credits),
		.log_blocks = 6 * CHP_RECORD_BLOCKS_MAX * n_nodes * credits,
		.ops = 16,
		.copy_bytes = 4096,
		.rto_ns_min = MS,
		.rto_ns_max = 16 * MS,
		.link_down_ns = 3 * ELECTION_MS * MS,
		.election_ns = ELECTION_MS * MS,
		.leader_lease_ns = LEASE_MS * MS,
		.clock_drift_ppm = 100,
	};
}

/* ------------------------------------------------------------------ running */

static uint8_t *
take_answer(void *frontend, const struct chp_reply *r)
{
	struct world *w = frontend;
	struct answer *a;
	uint32_t tag;

	memcpy(&tag, r->origin->address, sizeof(tag));
	cr_assert_lt(tag, w->tags);
	a = &w->answer[tag];
	cr_assert_not(a->is_given, "operation %u is answered twice", tag);
	a->is_given = true;
	a->node = w->running;
	a->reply = *r;
	a->reply.origin = NULL;
	return a->value;
}

static void
post(struct world *w, uint32_t from, const struct chp_buffer *b)
{
	struct parcel *p, **at = &w->inbox[b->peer];

	chp_peer_seal(b->data, b->len);
	cr_assert_eq(chp_peer_check(b->data, b->len, HASH, w->config.n_nodes, w->config.shards), CHP_PACKET_OK);
	if ((w->alive & chp_bit(b->peer)) == 0 || (w->cut[from] & chp_bit(b->peer)) != 0)
		return;
	p = malloc(sizeof(*p) + b->len);
	cr_assert_not_null(p);
	*p = (struct parcel){ .from = from, .len = b->len };
	memcpy(p->data, b->data, b->len);
	while (*at != NULL)
		at = &(*at)->next;
	*at = p;
}

static void
run(struct world *w, uint32_t n, const struct chp_packet *packet, uint32_t n_packets, struct chp_op *op,
    uint32_t n_ops, const struct chp_view *view)
{
	static uint8_t bytes[BUFFERS][PAYLOAD];
	struct chp_buffer buffer[BUFFERS];
	const struct chp_now now = { .ns = w->now };
	const struct chp_events in = { .packet = packet,
				       .n_packets = n_packets,
				       .op = op,
				       .n_ops = n_ops,
				       .view = view };
	struct chp_effects fx = { .buffer = buffer,
				  .n_buffers = BUFFERS,
				  .reply = take_answer,
				  .frontend = w,
				  .reply_room = w->reply_room == 0 ? CHP_BATCH_MAX : w->reply_room };

	for (uint32_t i = 0; i < BUFFERS; i++)
		buffer[i] = (struct chp_buffer){ .data = bytes[i] };
	w->running = n;
	chp_shard_run(w->shard[n], &now, &in, &fx);
	if (++w->runs % w->check_every == 0)
		chp_shard_check(w->shard[n]);
	for (uint32_t i = 0; i < fx.n_used; i++)
		post(w, n, &buffer[i]);
	w->wake_ns[n] = fx.wake_ns;
	w->reads_until_ns = fx.reads_until_ns;
}

/* What has come to a node of these senders, as one batch. False: nothing had. */
static bool
receive(struct world *w, uint32_t n, uint64_t senders)
{
	struct parcel *got[CHP_BATCH_MAX], **at = &w->inbox[n];
	struct chp_packet packet[CHP_BATCH_MAX];
	uint32_t count = 0;

	while (*at != NULL && count < CHP_BATCH_MAX) {
		struct parcel *p = *at;

		if ((senders & chp_bit(p->from)) == 0) {
			at = &p->next;
			continue;
		}
		*at = p->next;
		packet[count] = (struct chp_packet){ .data = p->data, .len = p->len };
		got[count++] = p;
	}
	if (count == 0)
		return false;
	run(w, n, packet, count, NULL, 0, NULL);
	while (count > 0)
		free(got[--count]);
	return true;
}

static uint64_t
not_held(const struct world *w, uint32_t to)
{
	uint64_t senders = 0;

	for (uint32_t n = 0; n < w->config.n_nodes; n++)
		if ((w->held[n] & chp_bit(to)) == 0)
			senders |= chp_bit(n);
	return senders;
}

/* Everything that may arrive does, until nothing is on its way and nothing due. */
static void
flow(struct world *w)
{
	bool more = true;

	for (uint32_t rounds = 0; more; rounds++) {
		cr_assert_lt(rounds, 2000, "it never comes to rest");
		more = false;
		for (uint64_t a = w->alive; a != 0; a &= a - 1) {
			const uint32_t n = chp_first_bit(a);

			if (receive(w, n, not_held(w, n))) {
				more = true;
			} else if (w->wake_ns[n] <= w->now) {
				run(w, n, NULL, 0, NULL, 0, NULL);
				more = true;
			}
		}
	}
}

static void
pass_in_steps(struct world *w, uint32_t ms, uint32_t step_ms)
{
	for (uint32_t t = 0; t < ms; t += step_ms) {
		w->now += step_ms * MS;
		flow(w);
	}
}

static void
pass(struct world *w, uint32_t ms)
{
	pass_in_steps(w, ms, 1);
}

static struct chp_shard *
new_shard(const struct world *w, uint32_t n)
{
	struct chp_shard_config c = w->config;
	struct chp_shard *s;
	int err = 0;

	c.self = n;
	s = chp_shard_create(&c, &err);
	cr_assert_not_null(s);
	return s;
}

static struct world *
world_of(const struct chp_shard_config *config)
{
	struct world *w = calloc(1, sizeof(*w));

	cr_assert_not_null(w);
	w->config = *config;
	w->now = 1000 * MS;
	w->check_every = 1;
	w->view.epoch = 1;
	for (uint32_t n = 0; n < config->n_nodes; n++) {
		w->shard[n] = new_shard(w, n);
		w->alive |= chp_bit(n);
		w->view.incarnation[n] = 0x100 + n;
		w->view.writer[n] = (uint16_t)(n + 1);
	}
	w->view.voters = w->alive;
	return w;
}

static void
enter(struct world *w)
{
	for (uint64_t a = w->alive; a != 0; a &= a - 1)
		run(w, chp_first_bit(a), NULL, 0, NULL, 0, &w->view);
}

static struct world *
started(const struct chp_shard_config *config)
{
	struct world *w = world_of(config);

	enter(w);
	pass_in_steps(w, 20, config->n_nodes > 8 ? 5 : 1);
	return w;
}

static struct world *
three(void)
{
	const struct chp_shard_config c = config_of(3);

	return started(&c);
}

static void
end(struct world *w)
{
	for (uint32_t n = 0; n < w->config.n_nodes; n++) {
		while (w->inbox[n] != NULL) {
			struct parcel *p = w->inbox[n];

			w->inbox[n] = p->next;
			free(p);
		}
		chp_shard_destroy(w->shard[n]);
	}
	free(w);
}

/* ------------------------------------------------------------------ faults */

static void
lose_inbox(struct world *w, uint32_t n, uint64_t senders)
{
	for (struct parcel **at = &w->inbox[n]; *at != NULL;) {
		struct parcel *p = *at;

		if ((senders & chp_bit(p->from)) == 0) {
			at = &p->next;
			continue;
		}
		*at = p->next;
		free(p);
	}
}

/* A node neither hears nor is heard. */
static void
cut_off(struct world *w, uint32_t n)
{
	for (uint32_t i = 0; i < w->config.n_nodes; i++) {
		w->cut[i] |= chp_bit(n);
		lose_inbox(w, i, chp_bit(n));
	}
	w->cut[n] = UINT64_MAX;
	lose_inbox(w, n, UINT64_MAX);
}

static void
join(struct world *w, uint32_t n)
{
	for (uint32_t i = 0; i < w->config.n_nodes; i++)
		w->cut[i] &= ~chp_bit(n);
	w->cut[n] = 0;
	for (uint32_t i = 0; i < w->config.n_nodes; i++)
		if (w->cut[i] == UINT64_MAX)
			w->cut[n] |= chp_bit(i);
}

static void
kill_node(struct world *w, uint32_t n)
{
	w->alive &= ~chp_bit(n);
	lose_inbox(w, n, UINT64_MAX);
}

/* A new process of a node that was killed, and the view that brings it as a learner. */
static void
restart(struct world *w, uint32_t n)
{
	chp_shard_destroy(w->shard[n]);
	w->shard[n] = new_shard(w, n);
	w->alive |= chp_bit(n);
	w->wake_ns[n] = CHP_NEVER;
	w->view.epoch++;
	w->view.incarnation[n] += 0x1000;
	w->view.voters &= ~chp_bit(n);
	w->view.learners |= chp_bit(n);
	enter(w);
}

/* The view that makes learners voters. */
static void
promote(struct world *w)
{
	w->view.epoch++;
	w->view.voters |= w->view.learners;
	w->view.learners = 0;
	enter(w);
}

/* ------------------------------------------------------------------ looking in */

static struct chp_zab_state
state_of(const struct world *w, uint32_t n)
{
	struct chp_zab_state s;

	chp_zab_inspect(chp_shard_instance(w->shard[n]), &s);
	return s;
}

static struct chp_zab_counters
zab_counters(const struct world *w, uint32_t n)
{
	struct chp_shard_stats stats;

	chp_shard_stats(w->shard[n], &stats);
	return stats.zab;
}

static struct chp_protocol_status
status_of(const struct world *w, uint32_t n)
{
	struct chp_protocol_status s;

	chp_shard_status(w->shard[n], &s);
	return s;
}

static bool
is_leading(const struct world *w, uint32_t n)
{
	const struct chp_zab_state s = state_of(w, n);

	return s.is_leader && s.phase == CHP_ZAB_BROADCAST && s.applied == s.committed;
}

/* The established leader of the newest epoch among some; NONE. */
static uint32_t
leader_among(const struct world *w, uint64_t nodes)
{
	uint32_t best = NONE;

	for (uint64_t a = nodes & w->alive; a != 0; a &= a - 1) {
		const uint32_t n = chp_first_bit(a);

		if (is_leading(w, n) &&
		    (best == NONE || state_of(w, n).current_epoch > state_of(w, best).current_epoch))
			best = n;
	}
	return best;
}

/* Time passes until one of these leads and the others follow it. */
static uint32_t
wait_leader(struct world *w, uint64_t nodes)
{
	for (uint32_t ms = 0; ms < 30 * ELECTION_MS; ms++) {
		const uint32_t leader = leader_among(w, nodes);
		uint64_t with = 0;

		for (uint64_t a = nodes & w->alive; leader != NONE && a != 0; a &= a - 1) {
			const struct chp_zab_state s = state_of(w, chp_first_bit(a));

			if (s.leader == leader && s.phase == CHP_ZAB_BROADCAST)
				with |= chp_bit(chp_first_bit(a));
		}
		if (leader != NONE && with == (nodes & w->alive))
			return leader;
		pass(w, 1);
	}
	cr_assert_fail("no leader");
	return NONE;
}

/* All of these hold the same log, as far as both reach, the same keys and the same sessions. */
static void
expect_equal(const struct world *w, uint64_t nodes)
{
	const uint32_t first = chp_first_bit(nodes);
	const struct chp_zab_state a = state_of(w, first);

	for (uint64_t p = nodes & (nodes - 1); p != 0; p &= p - 1) {
		const uint32_t n = chp_first_bit(p);
		const struct chp_zab_state b = state_of(w, n);

		cr_assert_eq(a.last, b.last, "logs of %u and %u end at %lu and %lu", first, n, a.last, b.last);
		cr_assert_eq(a.committed, b.committed);
		cr_assert_eq(a.applied, b.applied);
		cr_assert_eq(chp_shard_digest(w->shard[first]), chp_shard_digest(w->shard[n]),
			     "%u and %u hold different state", first, n);
		for (uint64_t i = chp_max_u64(a.first, b.first); i <= a.last; i++) {
			uint64_t epoch[2], digest[2];

			chp_zab_entry(chp_shard_instance(w->shard[first]), i, &epoch[0], &digest[0]);
			chp_zab_entry(chp_shard_instance(w->shard[n]), i, &epoch[1], &digest[1]);
			cr_assert(epoch[0] == epoch[1] && digest[0] == digest[1], "entry %lu differs", i);
		}
	}
}

/* ------------------------------------------------------------------ operations */

static struct chp_op
op_of(uint8_t opcode, const char *key, const char *value)
{
	return (struct chp_op){ .opcode = opcode,
				.key = { .bytes = (const uint8_t *)key, .len = (uint32_t)strlen(key) },
				.value = (const uint8_t *)value,
				.value_len = value == NULL ? 0 : (uint32_t)strlen(value) };
}

static struct chp_op
in_session(struct chp_op op, uint64_t session, uint64_t request)
{
	op.session = session;
	op.request = request;
	op.lowest = request > 3 ? request - 3 : 1;
	return op;
}

/* Hand operations to a node, in one run. Returns the tag of the first. */
static uint32_t
ask_all(struct world *w, uint32_t n, struct chp_op *op, uint32_t n_ops)
{
	const uint32_t tag = w->tags;

	for (uint32_t i = 0; i < n_ops; i++, w->tags++)
		memcpy(op[i].origin.address, &w->tags, sizeof(w->tags));
	cr_assert_leq(w->tags, CHP_ARRAY_LEN(w->answer));
	run(w, n, NULL, 0, op, n_ops, NULL);
	return tag;
}

static uint32_t
ask(struct world *w, uint32_t n, struct chp_op op)
{
	return ask_all(w, n, &op, 1);
}

static bool
is_answered(const struct world *w, uint32_t tag)
{
	return w->answer[tag].is_given;
}

static const struct answer *
answer_to(const struct world *w, uint32_t tag)
{
	cr_assert(is_answered(w, tag), "operation %u has no answer", tag);
	return &w->answer[tag];
}

static uint8_t
status_to(const struct world *w, uint32_t tag)
{
	return answer_to(w, tag)->reply.status;
}

/* Ask, and let everything arrive. */
static const struct answer *
complete(struct world *w, uint32_t n, struct chp_op op)
{
	const uint32_t tag = ask(w, n, op);

	flow(w);
	return answer_to(w, tag);
}

static uint64_t
put(struct world *w, uint32_t n, const char *key, const char *value)
{
	const struct answer *a = complete(w, n, op_of(CHP_OPCODE_PUT, key, value));

	cr_assert_eq(a->reply.status, CHP_STATUS_OK, "put: %s", chp_status_name(a->reply.status));
	return a->reply.version;
}

static void
expect_value(const struct answer *a, const char *value)
{
	cr_assert_eq(a->reply.status, value == NULL ? CHP_STATUS_NOT_FOUND : CHP_STATUS_OK, "get: %s",
		     chp_status_name(a->reply.status));
	if (value != NULL) {
		cr_assert_eq(a->reply.value_len, strlen(value));
		cr_assert_arr_eq(a->value, value, strlen(value));
	}
}

static void
expect_get(struct world *w, uint32_t n, const char *key, const char *value)
{
	expect_value(complete(w, n, op_of(CHP_OPCODE_GET, key, NULL)), value);
}

static struct chp_op
relaxed_get(const char *key)
{
	struct chp_op op = op_of(CHP_OPCODE_GET, key, NULL);

	op.is_relaxed = true;
	return op;
}

static struct chp_op
rule_op(uint64_t arg)
{
	return (struct chp_op){ .opcode = CHP_OPCODE_QUORUM, .arg = arg };
}

static uint64_t
open_session(struct world *w, uint32_t n)
{
	const struct answer *a = complete(w, n, op_of(CHP_OPCODE_SESSION_OPEN, "", NULL));

	cr_assert_eq(a->reply.status, CHP_STATUS_OK);
	cr_assert_neq(a->reply.number, 0);
	return a->reply.number;
}

#define N0 chp_bit(0)
#define N1 chp_bit(1)
#define N2 chp_bit(2)
#define ALL3 (N0 | N1 | N2)

/* ------------------------------------------------------------------ elections */

Test(zab, the_founding_leaders_are_spread_over_the_nodes)
{
	for (uint32_t shard = 0; shard < 4; shard++) {
		struct chp_shard_config c = config_of(3);
		struct world *w;

		c.shards = 4;
		c.shard = shard;
		w = started(&c);
		for (uint32_t n = 0; n < 3; n++) {
			const struct chp_zab_state s = state_of(w, n);

			cr_assert_eq(s.leader, shard % 3, "shard %u: node %u follows %u", shard, n, s.leader);
			cr_assert_eq(s.is_leader, n == shard % 3);
			cr_assert_eq(s.phase, CHP_ZAB_BROADCAST);
			cr_assert_eq(s.current_epoch, FOUNDED_BY(shard % 3));
			cr_assert_eq(s.round, 1);
		}
		cr_assert_str_eq(status_of(w, shard % 3).role, "leader");
		cr_assert_str_eq(status_of(w, (shard + 1) % 3).role, "follower");
		cr_assert_str_eq(status_of(w, 0).waiting, "");
		end(w);
	}
}

Test(zab, nobody_leads_or_serves_without_a_view_or_a_majority)
{
	const struct chp_shard_config c = config_of(3);
	struct world *w = world_of(&c);

	cr_assert_str_eq(status_of(w, 0).waiting, "no view");
	cr_assert_eq(complete(w, 0, op_of(CHP_OPCODE_PING, "", NULL))->reply.status, CHP_STATUS_NOT_SERVING);
	kill_node(w, 1);
	kill_node(w, 2);
	enter(w);
	pass(w, 10 * ELECTION_MS);
	cr_assert_eq(leader_among(w, ALL3), NONE);
	cr_assert_eq(complete(w, 0, op_of(CHP_OPCODE_PUT, "k", "v"))->reply.status, CHP_STATUS_NOT_SERVING);
	cr_assert_eq(complete(w, 0, op_of(CHP_OPCODE_GET, "k", NULL))->reply.status, CHP_STATUS_NOT_SERVING);
	cr_assert_eq(complete(w, 0, op_of(CHP_OPCODE_PING, "", NULL))->reply.status, CHP_STATUS_OK);
	cr_assert_eq(chp_shard_epoch(w->shard[0]), 0);
	cr_assert_not_null(strstr(status_of(w, 0).waiting, "no leader: 1 of 2 votes"));
	end(w);
}

Test(zab, the_next_in_the_circle_leads_when_the_leader_dies)
{
	struct world *w = three();

	put(w, 0, "k", "1");
	kill_node(w, 0);
	cr_assert_eq(wait_leader(w, ALL3), 1);
	expect_get(w, 1, "k", "1");
	put(w, 1, "k", "2");
	expect_equal(w, N1 | N2);
	cr_assert_gt(state_of(w, 1).current_epoch, FOUNDED_BY(0));
	cr_assert_eq(chp_shard_epoch(w->shard[1]), state_of(w, 1).current_epoch >> 16);
	cr_assert_eq(chp_shard_epoch(w->shard[2]), state_of(w, 1).current_epoch >> 16);
	end(w);
}

Test(zab, leadership_goes_round_the_circle_of_five)
{
	const struct chp_shard_config c = config_of(5);
	struct world *w = started(&c);

	put(w, 0, "k", "0");
	kill_node(w, 0);
	cr_assert_eq(wait_leader(w, w->alive), 1);
	put(w, 1, "k", "1");
	kill_node(w, 1);
	cr_assert_eq(wait_leader(w, w->alive), 2);
	put(w, 2, "k", "2");
	kill_node(w, 2); /* no majority is left */
	pass(w, 10 * ELECTION_MS);
	cr_assert_eq(leader_among(w, w->alive), NONE);
	cr_assert_eq(complete(w, 3, op_of(CHP_OPCODE_GET, "k", NULL))->reply.status, CHP_STATUS_NOT_SERVING);
	expect_value(complete(w, 3, relaxed_get("k")), "2");
	end(w);
}

/* [SAFETY 18] */
Test(zab, a_lease_that_was_given_forbids_to_vote)
{
	struct chp_shard_config c = config_of(3);
	struct world *w;

	c.leader_lease_ns = 5 * ELECTION_MS * MS; /* no configuration allows it: so that it is what counts here */
	w = started(&c);
	pass(w, ELECTION_MS);
	kill_node(w, 0);
	pass(w, 4 * ELECTION_MS);
	cr_assert_eq(leader_among(w, w->alive), NONE);
	cr_assert_eq(state_of(w, 1).phase, CHP_ZAB_LOOKING);
	cr_assert_eq(state_of(w, 1).current_epoch, FOUNDED_BY(0));
	cr_assert_eq(state_of(w, 1).accepted_epoch, FOUNDED_BY(0));
	wait_leader(w, w->alive);
	end(w);
}

Test(zab, a_follower_that_lost_its_leader_for_a_while_follows_it_again)
{
	struct world *w = three();
	uint64_t epoch;

	put(w, 0, "k", "1");
	epoch = state_of(w, 0).current_epoch;
	cut_off(w, 2);
	pass(w, 4 * ELECTION_MS);
	cr_assert_eq(state_of(w, 2).phase, CHP_ZAB_LOOKING);
	cr_assert(is_leading(w, 0));
	put(w, 0, "k", "2");
	join(w, 2);
	cr_assert_neq(wait_leader(w, ALL3), NONE);
	pass(w, 20);
	expect_equal(w, ALL3);
	cr_assert_leq(state_of(w, 0).current_epoch >> 16, (epoch >> 16) + 1,
			"at most one election for one who comes back");
	end(w);
}

Test(zab, a_follower_that_looked_while_its_links_stayed_up_follows_again)
{
	struct chp_shard_config c = config_of(3);
	struct world *w;

	c.link_down_ns = CHP_NEVER;
	w = started(&c);
	put(w, 0, "k", "1");
	for (uint32_t n = 0; n < 2; n++)
		w->held[n] = N2;
	pass(w, 3 * ELECTION_MS);
	cr_assert_eq(state_of(w, 2).phase, CHP_ZAB_LOOKING);
	put(w, 0, "k", "2");
	for (uint32_t n = 0; n < 2; n++)
		w->held[n] = 0;
	wait_leader(w, ALL3);
	pass(w, 20);
	expect_equal(w, ALL3);
	end(w);
}

/* ------------------------------------------------------------------ writes */

Test(zab, a_write_is_answered_when_a_majority_has_it)
{
	struct world *w = three();
	uint32_t tag;

	w->held[0] = N1 | N2;
	tag = ask(w, 0, op_of(CHP_OPCODE_PUT, "k", "v"));
	flow(w);
	cr_assert_not(is_answered(w, tag));
	cr_assert_eq(state_of(w, 0).last, 1);
	cr_assert_eq(state_of(w, 0).committed, 0);
	cr_assert(receive(w, 1, N0)); /* PROPOSE, and its ACK */
	cr_assert_eq(state_of(w, 1).last, 1);
	cr_assert_eq(state_of(w, 1).committed, 0);
	cr_assert(receive(w, 0, N1));
	cr_assert_eq(status_to(w, tag), CHP_STATUS_OK);
	cr_assert_eq(answer_to(w, tag)->reply.version, 1);
	cr_assert_eq(state_of(w, 2).last, 0, "the third is not needed");
	w->held[0] = 0;
	flow(w);
	expect_equal(w, ALL3);
	cr_assert_eq(state_of(w, 2).applied, 1);
	end(w);
}

Test(zab, versions_are_positions_in_the_one_order)
{
	struct world *w = three();

	cr_assert_eq(put(w, 0, "a", "1"), 1);
	cr_assert_eq(put(w, 0, "b", "1"), 2);
	cr_assert_eq(put(w, 0, "a", "2"), 3);
	cr_assert_eq(complete(w, 0, op_of(CHP_OPCODE_DELETE, "b", NULL))->reply.version, 4);
	cr_assert_eq(complete(w, 0, op_of(CHP_OPCODE_GET, "a", NULL))->reply.version, 3);
	expect_get(w, 0, "b", NULL);
	cr_assert_eq(put(w, 0, "b", "2"), 5);
	expect_equal(w, ALL3);
	end(w);
}

Test(zab, operations_in_flight_see_each_other)
{
	struct world *w = three();
	uint32_t tag[5];

	put(w, 0, "n", "10");
	w->held[0] = N1 | N2;
	for (uint32_t i = 0; i < 3; i++) {
		struct chp_op op = op_of(CHP_OPCODE_INCR, "n", NULL);

		op.arg = 5;
		tag[i] = ask(w, 0, op);
	}
	tag[3] = ask(w, 0, op_of(CHP_OPCODE_DELETE, "n", NULL));
	tag[4] = ask(w, 0, op_of(CHP_OPCODE_ADD, "n", "7"));
	w->held[0] = 0;
	flow(w);
	for (uint32_t i = 0; i < 3; i++)
		cr_assert_eq(answer_to(w, tag[i])->reply.number, 15 + 5 * i);
	cr_assert_eq(status_to(w, tag[3]), CHP_STATUS_OK);
	cr_assert_eq(status_to(w, tag[4]), CHP_STATUS_OK);
	expect_get(w, 0, "n", "7");
	expect_equal(w, ALL3);
	end(w);
}

Test(zab, a_follower_redirects_writes_to_its_leader)
{
	struct world *w = three();
	const struct answer *a = complete(w, 1, op_of(CHP_OPCODE_PUT, "k", "v"));

	cr_assert_eq(a->reply.status, CHP_STATUS_REDIRECT);
	cr_assert_eq(a->reply.number, 0);
	a = complete(w, 2, op_of(CHP_OPCODE_SESSION_OPEN, "", NULL));
	cr_assert_eq(a->reply.status, CHP_STATUS_REDIRECT);
	cr_assert_eq(state_of(w, 0).last, 0);
	end(w);
}

Test(zab, a_failed_comparison_is_in_the_log_and_known_to_the_next_leader)
{
	struct world *w = three();
	const uint64_t session = open_session(w, 0);
	const uint64_t version = put(w, 0, "k", "v");
	struct chp_op cas = in_session(op_of(CHP_OPCODE_CAS, "k", "x"), session, 1);
	const struct answer *a;

	cas.arg = version + 7;
	a = complete(w, 0, cas);
	cr_assert_eq(a->reply.status, CHP_STATUS_COMPARE_FAILED);
	cr_assert_eq(a->reply.version, version, "the version that it saw");
	cr_assert_eq(state_of(w, 2).last, 3);
	expect_equal(w, ALL3);
	put(w, 0, "k", "w");
	kill_node(w, 0);
	wait_leader(w, ALL3);
	cas.arg = version + 1; /* it would succeed now: but it was decided */
	a = complete(w, 1, cas);
	cr_assert_eq(a->reply.status, CHP_STATUS_COMPARE_FAILED);
	cr_assert_eq(a->reply.version, version);
	expect_get(w, 1, "k", "w");
	end(w);
}

Test(zab, a_retry_at_the_next_leader_gets_the_first_answer)
{
	struct world *w = three();
	const uint64_t session = open_session(w, 0);
	struct chp_op incr;
	uint32_t first;
	const struct answer *a;

	put(w, 0, "n", "1");
	incr = in_session(op_of(CHP_OPCODE_INCR, "n", NULL), session, 1);
	incr.arg = 1;
	w->held[1] = w->held[2] = N0; /* all have it, but the leader does not learn that */
	first = ask(w, 0, incr);
	flow(w);
	cr_assert_not(is_answered(w, first));
	kill_node(w, 0);
	wait_leader(w, ALL3);
	a = complete(w, 1, incr);
	cr_assert_eq(a->reply.status, CHP_STATUS_OK);
	cr_assert_eq(a->reply.number, 2);
	cr_assert_eq(a->reply.version, 3);
	expect_get(w, 1, "n", "2");
	end(w);
}

Test(zab, who_waits_for_a_leader_that_steps_down_is_told)
{
	struct world *w = three();
	const uint64_t session = open_session(w, 0);
	uint32_t plain, in, open, rule, read;

	pass(w, 2 * LEASE_MS);
	cut_off(w, 0);
	plain = ask(w, 0, op_of(CHP_OPCODE_PUT, "a", "1"));
	in = ask(w, 0, in_session(op_of(CHP_OPCODE_PUT, "b", "1"), session, 1));
	open = ask(w, 0, op_of(CHP_OPCODE_SESSION_OPEN, "", NULL));
	rule = ask(w, 0, rule_op(CHP_ZAB_ALL));
	pass(w, 3 * LEASE_MS / 2);
	read = ask(w, 0, op_of(CHP_OPCODE_GET, "a", NULL));
	cr_assert_not(is_answered(w, read), "its lease is over");
	pass(w, 4 * ELECTION_MS);
	cr_assert_not(state_of(w, 0).phase == CHP_ZAB_BROADCAST);
	cr_assert_eq(status_to(w, plain), CHP_STATUS_UNKNOWN_OUTCOME);
	cr_assert_eq(status_to(w, in), CHP_STATUS_NOT_SERVING);
	cr_assert_eq(status_to(w, open), CHP_STATUS_NOT_SERVING);
	cr_assert_eq(status_to(w, rule), CHP_STATUS_NOT_SERVING);
	cr_assert_eq(status_to(w, read), CHP_STATUS_NOT_SERVING);
	cr_assert_geq(zab_counters(w, 0).step_downs, 1);
	join(w, 0);
	wait_leader(w, ALL3);
	pass(w, 20);
	expect_equal(w, ALL3);
	/* The session goes on, at whoever leads; the request may come again. */
	cr_assert_eq(complete(w, leader_among(w, ALL3), in_session(op_of(CHP_OPCODE_PUT, "b", "2"), session, 1))
			     ->reply.status,
		     CHP_STATUS_OK);
	end(w);
}

Test(zab, more_than_the_credits_is_refused_and_certainly_not_applied)
{
	struct world *w = three();
	const uint32_t fit = w->config.credits - 1; /* the last place is a quorum switch's */
	const uint64_t session = open_session(w, 0);
	uint32_t tag[12];
	char key[8];

	w->held[0] = N1 | N2;
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(tag) - 1; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		tag[i] = ask(w, 0, op_of(CHP_OPCODE_PUT, key, "v"));
	}
	tag[11] = ask(w, 0, in_session(op_of(CHP_OPCODE_PUT, "s", "v"), session, 1));
	for (uint32_t i = fit; i < 11; i++)
		cr_assert_eq(status_to(w, tag[i]), CHP_STATUS_BUSY);
	cr_assert_eq(status_to(w, tag[11]), CHP_STATUS_OVERLOAD, "a session may send it again");
	w->held[0] = 0;
	flow(w);
	for (uint32_t i = 0; i < fit; i++)
		cr_assert_eq(status_to(w, tag[i]), CHP_STATUS_OK);
	expect_get(w, 0, "k9", NULL);
	cr_assert_eq(complete(w, 0, in_session(op_of(CHP_OPCODE_PUT, "s", "v"), session, 1))->reply.status,
		     CHP_STATUS_OK);
	expect_equal(w, ALL3);
	end(w);
}

Test(zab, what_is_committed_and_not_applied_yet_counts_as_open)
{
	struct chp_shard_config c = config_of(3);
	struct world *w;
	struct chp_op op[8];
	char key[16][8];
	uint32_t first = 0, second;

	c.credits = 9; /* of which one is a quorum switch's */
	w = started(&c);
	for (uint32_t i = 0; i < 16; i++) {
		snprintf(key[i], sizeof(key[i]), "k%u", i);
		op[i % 8] = op_of(CHP_OPCODE_PUT, key[i], "v");
		if (i == 7) {
			first = ask_all(w, 0, op, 8);
			w->reply_room = 1; /* so that what is committed now can be applied one by one only */
			receive(w, 1, N0);
			receive(w, 0, N1);
			cr_assert_eq(state_of(w, 0).committed, 8);
			cr_assert_eq(state_of(w, 0).applied, 1);
			w->reply_room = 8;
		}
	}
	second = ask_all(w, 0, op, 8);
	w->reply_room = 0;
	flow(w);
	for (uint32_t i = 0; i < 8; i++)
		cr_assert_eq(status_to(w, first + i), CHP_STATUS_OK);
	cr_assert_eq(status_to(w, second), CHP_STATUS_OK);
	for (uint32_t i = 1; i < 8; i++)
		cr_assert_eq(status_to(w, second + i), CHP_STATUS_BUSY);
	expect_equal(w, ALL3);
	end(w);
}

/* [SAFETY 13] */
Test(zab, a_dead_follower_never_stops_the_leader)
{
	struct world *w = three();
	char value[16];

	kill_node(w, 2);
	for (uint32_t i = 0; i < 1000; i++) {
		snprintf(value, sizeof(value), "%u", i);
		put(w, 0, i % 2 == 0 ? "a" : "b", value);
		if (i % 8 == 0)
			pass(w, 1);
	}
	cr_assert_eq(state_of(w, 0).current_epoch, FOUNDED_BY(0));
	expect_get(w, 0, "b", "999");
	expect_equal(w, N0 | N1);
	end(w);
}

Test(zab, a_slow_follower_never_stops_the_leader)
{
	struct world *w = three();

	/* It hears, but nothing that it says arrives: no credits, no acknowledgements. */
	w->cut[2] = N0;
	for (uint32_t i = 0; i < 500; i++) {
		put(w, 0, "a", "v");
		if (i % 8 == 0)
			pass(w, 1);
	}
	w->cut[2] = 0;
	wait_leader(w, ALL3);
	pass(w, 4 * ELECTION_MS);
	expect_equal(w, ALL3);
	end(w);
}

/* ------------------------------------------------------------------ synchronisation */

Test(zab, a_follower_that_missed_little_gets_the_difference)
{
	struct world *w = three();
	uint64_t before;

	put(w, 0, "a", "1");
	cut_off(w, 2);
	put(w, 0, "a", "2");
	put(w, 0, "b", "1");
	before = zab_counters(w, 0).syncs_diff;
	pass(w, 4 * ELECTION_MS);
	join(w, 2);
	wait_leader(w, ALL3);
	pass(w, 20);
	expect_equal(w, ALL3);
	cr_assert_gt(zab_counters(w, 0).syncs_diff + zab_counters(w, 1).syncs_diff +
			     zab_counters(w, 2).syncs_diff, before);
	cr_assert_eq(zab_counters(w, 0).syncs_snap + zab_counters(w, 1).syncs_snap, 0);
	end(w);
}

Test(zab, entries_that_no_leader_kept_are_dropped)
{
	struct world *w = three();
	uint32_t lost;

	put(w, 0, "a", "1");
	cut_off(w, 0);
	lost = ask(w, 0, op_of(CHP_OPCODE_PUT, "a", "lost"));
	ask(w, 0, op_of(CHP_OPCODE_PUT, "lost", "lost"));
	ask(w, 0, op_of(CHP_OPCODE_PUT, "more", "lost"));
	pass(w, 4 * ELECTION_MS);
	cr_assert_eq(wait_leader(w, N1 | N2), 1);
	put(w, 1, "a", "2");
	cr_assert_eq(state_of(w, 0).last, 4);
	join(w, 0);
	wait_leader(w, ALL3);
	pass(w, 20);
	expect_equal(w, ALL3);
	cr_assert_eq(status_to(w, lost), CHP_STATUS_UNKNOWN_OUTCOME);
	cr_assert_eq(zab_counters(w, 0).syncs_trunc + zab_counters(w, 1).syncs_trunc + zab_counters(w, 2).syncs_trunc,
		     1);
	expect_get(w, leader_among(w, ALL3), "a", "2");
	expect_get(w, leader_among(w, ALL3), "lost", NULL);
	end(w);
}

Test(zab, a_new_leader_fetches_what_a_follower_has_more)
{
	struct world *w = three();
	uint32_t tag;

	put(w, 0, "a", "1");
	w->cut[0] = N1; /* node 2 alone gets it, and its acknowledgement is lost */
	w->cut[2] = N0;
	tag = ask(w, 0, op_of(CHP_OPCODE_PUT, "a", "2"));
	ask(w, 0, op_of(CHP_OPCODE_PUT, "b", "2"));
	flow(w);
	cr_assert_not(is_answered(w, tag));
	cr_assert_eq(state_of(w, 2).last, 3);
	cr_assert_eq(state_of(w, 1).last, 1);
	kill_node(w, 0);
	w->cut[2] = 0;
	cr_assert_eq(wait_leader(w, ALL3), 1);
	cr_assert_eq(zab_counters(w, 1).pulls, 1);
	cr_assert_eq(state_of(w, 1).last, 3);
	expect_get(w, 1, "a", "2");
	expect_get(w, 1, "b", "2");
	put(w, 1, "c", "3");
	expect_equal(w, N1 | N2);
	end(w);
}

/* Log room for a few entries only. */
static struct chp_shard_config
config_short_log(void)
{
	struct chp_shard_config c = config_of(3);

	c.credits = 2;
	c.log_entries = 32;
	c.log_blocks = 3 * CHP_RECORD_BLOCKS_MAX * 3 * c.credits;
	return c;
}

Test(zab, a_follower_too_far_behind_for_the_log_gets_a_copy)
{
	const struct chp_shard_config c = config_short_log();
	struct world *w = started(&c);
	const uint64_t session = open_session(w, 0), gone = open_session(w, 0);
	char key[16];

	put(w, 0, "deleted", "1");
	cut_off(w, 2);
	cr_assert_eq(complete(w, 0, op_of(CHP_OPCODE_DELETE, "deleted", NULL))->reply.status, CHP_STATUS_OK);
	cr_assert_eq(complete(w, 0, in_session(op_of(CHP_OPCODE_SESSION_CLOSE, "", NULL), gone, 1))->reply.status,
		     CHP_STATUS_OK);
	for (uint32_t i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "key%u", i % 40);
		put(w, 0, key, "value");
	}
	cr_assert_eq(complete(w, 0, in_session(op_of(CHP_OPCODE_ADD, "key1", "x"), session, 1))->reply.status,
		     CHP_STATUS_EXISTS);
	cr_assert_gt(state_of(w, 0).first, state_of(w, 2).last + 1);
	pass(w, 4 * ELECTION_MS);
	join(w, 2);
	wait_leader(w, ALL3);
	pass(w, 4 * ELECTION_MS);
	cr_assert_geq(zab_counters(w, 0).syncs_snap + zab_counters(w, 1).syncs_snap, 1);
	expect_equal(w, ALL3);
	/* It knows the sessions as well: as a leader it answers from the copied record. */
	kill_node(w, 0);
	kill_node(w, 1);
	restart(w, 1);
	pass(w, 4 * ELECTION_MS);
	cr_assert_eq(leader_among(w, w->alive), NONE, "one who lost its memory is in no majority");
	end(w);
}

Test(zab, a_copied_record_answers_a_retry)
{
	const struct chp_shard_config c = config_short_log();
	struct world *w = started(&c);
	const uint64_t session = open_session(w, 0);
	struct chp_op incr = in_session(op_of(CHP_OPCODE_INCR, "n", NULL), session, 1);

	incr.arg = 1;
	put(w, 0, "n", "41");
	cut_off(w, 1);
	cr_assert_eq(complete(w, 0, incr)->reply.number, 42);
	for (uint32_t i = 0; i < 100; i++)
		put(w, 0, "k", "v");
	pass(w, 4 * ELECTION_MS);
	join(w, 1);
	wait_leader(w, ALL3);
	pass(w, 4 * ELECTION_MS);
	expect_equal(w, ALL3);
	for (uint32_t i = 0; leader_among(w, ALL3) != 1; i++) { /* until it leads */
		const uint32_t old = leader_among(w, ALL3);

		cr_assert_lt(i, 6);
		cut_off(w, old);
		pass(w, 6 * ELECTION_MS);
		join(w, old);
		wait_leader(w, ALL3);
		pass(w, 20);
	}
	cr_assert_eq(complete(w, 1, incr)->reply.number, 42);
	expect_get(w, 1, "n", "42");
	end(w);
}

/* ------------------------------------------------------------------ recovery */

/* [SAFETY 23] */
Test(zab, a_restarted_node_has_no_vote_and_no_acknowledgement_until_it_recovered)
{
	struct world *w = three();
	uint32_t tag;

	put(w, 0, "a", "1");
	kill_node(w, 2);
	pass(w, 10);
	restart(w, 2);
	cut_off(w, 0); /* the leader it should recover from is away */
	tag = ask(w, 0, op_of(CHP_OPCODE_PUT, "a", "2"));
	pass(w, 10 * ELECTION_MS);
	cr_assert_eq(state_of(w, 2).phase, CHP_ZAB_RECOVERING);
	cr_assert_not(chp_shard_copy_done(w->shard[2]));
	cr_assert_str_eq(status_of(w, 2).role, "recovering");
	cr_assert_not_null(strstr(status_of(w, 2).waiting, "lost its memory"));
	cr_assert_eq(leader_among(w, N1 | N2), NONE, "one vote is no majority");
	cr_assert_eq(complete(w, 2, relaxed_get("a"))->reply.status, CHP_STATUS_NOT_SERVING);
	cr_assert_eq(complete(w, 2, op_of(CHP_OPCODE_PING, "", NULL))->reply.status, CHP_STATUS_NOT_SERVING);
	cr_assert_eq(status_to(w, tag), CHP_STATUS_UNKNOWN_OUTCOME);
	join(w, 0);
	for (uint32_t ms = 0; !chp_shard_copy_done(w->shard[2]); ms++) {
		cr_assert_lt(ms, 40 * ELECTION_MS, "it never recovers: %s", status_of(w, 2).waiting);
		pass(w, 1);
	}
	wait_leader(w, ALL3);
	promote(w);
	pass(w, 20);
	expect_equal(w, ALL3);
	cr_assert_eq(zab_counters(w, 2).recoveries, 1);
	end(w);
}

Test(zab, a_recovered_node_counts_again)
{
	struct world *w = three();

	put(w, 0, "a", "1");
	kill_node(w, 2);
	put(w, 0, "a", "2");
	restart(w, 2);
	pass(w, LEASE_MS - 5);
	cr_assert_eq(state_of(w, 2).phase, CHP_ZAB_RECOVERING, "not before a lease that it may have given is over");
	pass(w, 4 * ELECTION_MS);
	cr_assert(chp_shard_copy_done(w->shard[2]));
	cr_assert_eq(state_of(w, 2).phase, CHP_ZAB_BROADCAST);
	promote(w);
	expect_equal(w, ALL3);
	kill_node(w, 1);
	put(w, 0, "a", "3");
	kill_node(w, 0);
	restart(w, 0);
	pass(w, 10 * ELECTION_MS);
	cr_assert_eq(leader_among(w, w->alive), NONE, "node 2 alone has not forgotten");
	end(w);
}

Test(zab, a_leader_that_restarts_recovers_from_the_next_one)
{
	struct world *w = three();

	put(w, 0, "a", "1");
	kill_node(w, 0);
	restart(w, 0);
	cr_assert_eq(wait_leader(w, N1 | N2), 1);
	put(w, 1, "a", "2");
	for (uint32_t ms = 0; !chp_shard_copy_done(w->shard[0]); ms++) {
		cr_assert_lt(ms, 40 * ELECTION_MS, "%s", status_of(w, 0).waiting);
		pass(w, 1);
	}
	promote(w);
	wait_leader(w, ALL3);
	pass(w, 20);
	expect_equal(w, ALL3);
	end(w);
}

Test(zab, recovery_by_a_copy_when_the_log_is_short)
{
	const struct chp_shard_config c = config_short_log();
	struct world *w = started(&c);
	const uint64_t session = open_session(w, 0);
	char key[16];

	for (uint32_t i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "key%u", i % 60);
		put(w, 0, key, "value");
	}
	kill_node(w, 1);
	restart(w, 1);
	for (uint32_t ms = 0; !chp_shard_copy_done(w->shard[1]); ms++) {
		cr_assert_lt(ms, 40 * ELECTION_MS, "%s", status_of(w, 1).waiting);
		if (ms % 4 == 0)
			put(w, 0, "busy", "yes"); /* writes go on meanwhile */
		pass(w, 1);
	}
	promote(w);
	pass(w, 50);
	expect_equal(w, ALL3);
	cr_assert_eq(state_of(w, 1).phase, CHP_ZAB_BROADCAST);
	cr_assert_eq(complete(w, 0, in_session(op_of(CHP_OPCODE_PUT, "s", "1"), session, 1))->reply.status,
		     CHP_STATUS_OK);
	end(w);
}

/* ------------------------------------------------------------------ reads */

Test(zab, the_leader_reads_at_once_under_its_lease_only)
{
	struct world *w = three();
	uint32_t tag;

	put(w, 0, "a", "1");
	pass(w, 30);
	tag = ask(w, 0, op_of(CHP_OPCODE_GET, "a", NULL));
	expect_value(answer_to(w, tag), "1");
	cr_assert_eq(zab_counters(w, 0).lease_reads, 1);
	cr_assert_gt(w->reads_until_ns, w->now);
	cr_assert_leq(w->reads_until_ns, w->now + LEASE_MS * MS);
	cr_assert_eq(state_of(w, 0).lease_until_ns, w->reads_until_ns);
	cut_off(w, 0);
	pass(w, LEASE_MS);
	tag = ask(w, 0, op_of(CHP_OPCODE_GET, "a", NULL));
	flow(w);
	cr_assert_not(is_answered(w, tag));
	cr_assert_eq(w->reads_until_ns, CHP_NEVER);
	end(w);
}

Test(zab, without_leases_a_quorum_confirms_each_read)
{
	struct chp_shard_config c = config_of(3);
	struct world *w;
	uint32_t tag, late;

	c.leader_lease_ns = 0;
	w = started(&c);
	put(w, 0, "a", "1");
	pass(w, 7);
	w->held[0] = N1 | N2;
	tag = ask(w, 0, op_of(CHP_OPCODE_GET, "a", NULL));
	cr_assert_not(is_answered(w, tag));
	w->now += MS;
	late = ask(w, 0, op_of(CHP_OPCODE_GET, "a", NULL));
	cr_assert(receive(w, 1, N0));
	cr_assert(receive(w, 0, N1));
	expect_value(answer_to(w, tag), "1");
	w->held[0] = 0;
	flow(w);
	expect_value(answer_to(w, late), "1");
	cr_assert_eq(zab_counters(w, 0).lease_reads, 0);
	cr_assert_eq(zab_counters(w, 0).confirmed_reads, 2);
	/* Cut off it answers nobody, and in the end says so. */
	cut_off(w, 0);
	pass(w, 1);
	tag = ask(w, 0, op_of(CHP_OPCODE_GET, "a", NULL));
	pass(w, ELECTION_MS);
	cr_assert_not(is_answered(w, tag));
	pass(w, 4 * ELECTION_MS);
	cr_assert_eq(status_to(w, tag), CHP_STATUS_NOT_SERVING);
	end(w);
}

Test(zab, a_read_at_a_follower_sees_every_write_that_was_answered)
{
	struct world *w = three();
	uint32_t wrote, read;

	put(w, 0, "a", "1");
	w->held[0] = N2;
	wrote = ask(w, 0, op_of(CHP_OPCODE_PUT, "a", "2"));
	flow(w);
	cr_assert_eq(status_to(w, wrote), CHP_STATUS_OK);
	read = ask(w, 2, op_of(CHP_OPCODE_GET, "a", NULL));
	flow(w);
	cr_assert_not(is_answered(w, read));
	expect_value(complete(w, 2, relaxed_get("a")), "1");
	w->held[0] = 0;
	flow(w);
	expect_value(answer_to(w, read), "2");
	cr_assert_not(answer_to(w, read)->reply.is_relaxed);
	cr_assert_eq(zab_counters(w, 2).sync_reads, 1);
	end(w);
}

Test(zab, relaxed_reads_are_marked_and_answered_by_everyone)
{
	struct world *w = three();

	put(w, 0, "a", "1");
	for (uint32_t n = 0; n < 3; n++) {
		const uint32_t tag = ask(w, n, relaxed_get("a"));

		expect_value(answer_to(w, tag), "1");
		cr_assert(answer_to(w, tag)->reply.is_relaxed);
		cr_assert_eq(w->reads_until_ns, CHP_NEVER);
		cr_assert_eq(zab_counters(w, n).relaxed_reads, 1);
	}
	cut_off(w, 2);
	put(w, 0, "a", "2");
	pass(w, 4 * ELECTION_MS);
	expect_value(complete(w, 2, relaxed_get("a")), "1");
	cr_assert_eq(complete(w, 2, op_of(CHP_OPCODE_GET, "a", NULL))->reply.status, CHP_STATUS_NOT_SERVING);
	end(w);
}

Test(zab, a_read_whose_question_is_lost_is_asked_again)
{
	struct world *w = three();
	uint32_t tag;

	put(w, 0, "a", "1");
	w->cut[2] = N0;
	tag = ask(w, 2, op_of(CHP_OPCODE_GET, "a", NULL));
	pass(w, 2);
	chp_shard_reset_link(w->shard[2], 0);
	w->cut[2] = 0;
	pass(w, 5 * ELECTION_MS);
	cr_assert(is_answered(w, tag));
	cr_assert(status_to(w, tag) == CHP_STATUS_OK || status_to(w, tag) == CHP_STATUS_REDIRECT ||
		  status_to(w, tag) == CHP_STATUS_NOT_SERVING);
	wait_leader(w, ALL3);
	expect_get(w, 2, "a", "1");
	end(w);
}

/* ------------------------------------------------------------------ the quorum rule */

static void
expect_rule(struct world *w, uint32_t n, uint64_t rule)
{
	const struct answer *a = complete(w, n, rule_op(2));

	cr_assert_eq(a->reply.status, CHP_STATUS_OK);
	cr_assert_eq(a->reply.number, rule);
}

/* [SAFETY 28] */
Test(zab, all_waits_for_a_dead_member_and_majority_frees)
{
	struct world *w = three();
	const struct answer *a;
	uint32_t blocked, freed;

	expect_rule(w, 0, CHP_ZAB_MAJORITY);
	a = complete(w, 0, rule_op(CHP_ZAB_ALL));
	cr_assert_eq(a->reply.status, CHP_STATUS_OK);
	cr_assert_eq(a->reply.number, CHP_ZAB_ALL);
	expect_rule(w, 0, CHP_ZAB_ALL);
	for (uint32_t n = 0; n < 3; n++) {
		cr_assert(state_of(w, n).all_rule);
		cr_assert_str_eq(status_of(w, n).quorum, "all");
	}
	put(w, 0, "a", "1");
	kill_node(w, 2);
	blocked = ask(w, 0, op_of(CHP_OPCODE_PUT, "a", "2"));
	pass(w, 4 * ELECTION_MS);
	cr_assert_not(is_answered(w, blocked));
	expect_get(w, 0, "a", "1");
	cr_assert_eq(state_of(w, 0).current_epoch, FOUNDED_BY(0), "the leader goes on leading");
	freed = ask(w, 0, rule_op(CHP_ZAB_MAJORITY));
	flow(w);
	cr_assert_eq(status_to(w, freed), CHP_STATUS_OK);
	cr_assert_eq(status_to(w, blocked), CHP_STATUS_OK);
	expect_rule(w, 0, CHP_ZAB_MAJORITY);
	put(w, 0, "a", "3");
	expect_equal(w, N0 | N1);
	cr_assert_eq(complete(w, 1, rule_op(2))->reply.status, CHP_STATUS_REDIRECT);
	cr_assert_eq(complete(w, 0, rule_op(3))->reply.status, CHP_STATUS_BAD_REQUEST);
	end(w);
}

/* Ask for more than there is room for under "all", while a member is dead; then switch. */
static void
expect_freed(struct world *w, struct chp_op op, uint32_t n, uint32_t fit)
{
	uint32_t first, freed;

	complete(w, 0, rule_op(CHP_ZAB_ALL));
	kill_node(w, 2);
	first = ask(w, 0, op);
	for (uint32_t i = 1; i < n; i++)
		cr_assert_eq(ask(w, 0, op), first + i);
	flow(w);
	for (uint32_t i = 0; i < n; i++) {
		cr_assert_eq(is_answered(w, first + i), i >= fit, "%u", i);
		if (i >= fit)
			cr_assert_eq(status_to(w, first + i), CHP_STATUS_BUSY);
	}
	freed = ask(w, 0, rule_op(CHP_ZAB_MAJORITY));
	flow(w);
	cr_assert_eq(status_to(w, freed), CHP_STATUS_OK);
	for (uint32_t i = 0; i < fit; i++)
		cr_assert_eq(status_to(w, first + i), CHP_STATUS_OK);
	put(w, 0, "b", "1");
	end(w);
}

/* [Z12] */
Test(zab, the_last_operation_in_flight_is_kept_for_what_frees_them)
{
	struct chp_shard_config c = config_of(3);

	c.ops = 4;
	expect_freed(started(&c), op_of(CHP_OPCODE_PUT, "a", "v"), 6, 3);
}

Test(zab, the_last_switch_is_kept_for_what_frees_them)
{
	struct chp_shard_config c = config_of(3);

	c.credits = 2 * CHP_ZAB_SWITCHES_MAX;
	c.log_entries = chp_pow2_up(8 * 3 * c.credits);
	c.log_blocks = 6 * CHP_RECORD_BLOCKS_MAX * 3 * c.credits;
	expect_freed(started(&c), rule_op(CHP_ZAB_ALL), CHP_ZAB_SWITCHES_MAX + 2, CHP_ZAB_SWITCHES_MAX - 1);
}

Test(zab, the_next_leader_takes_the_rule_from_its_log)
{
	struct world *w = three();
	uint32_t tag;

	complete(w, 0, rule_op(CHP_ZAB_ALL));
	put(w, 0, "a", "1");
	kill_node(w, 0);
	wait_leader(w, w->alive);
	expect_rule(w, 1, CHP_ZAB_ALL);
	tag = ask(w, 1, op_of(CHP_OPCODE_PUT, "a", "2"));
	pass(w, 20);
	cr_assert_not(is_answered(w, tag));
	restart(w, 0);
	pass(w, 4 * ELECTION_MS);
	cr_assert_eq(status_to(w, tag), CHP_STATUS_OK, "it recovered, and acknowledges");
	end(w);
}

Test(zab, the_rule_goes_with_a_copy)
{
	const struct chp_shard_config c = config_short_log();
	struct world *w = started(&c);

	complete(w, 0, rule_op(CHP_ZAB_ALL));
	for (uint32_t i = 0; i < 100; i++)
		put(w, 0, "k", "v");
	kill_node(w, 2);
	restart(w, 2);
	pass(w, 6 * ELECTION_MS);
	cr_assert(chp_shard_copy_done(w->shard[2]));
	cr_assert(state_of(w, 2).all_rule);
	put(w, 0, "k", "w");
	expect_equal(w, ALL3);
	end(w);
}

/* ------------------------------------------------------------------ sessions */

Test(zab, sessions_are_opened_used_and_closed_by_the_log)
{
	struct world *w = three();
	const uint64_t a = open_session(w, 0), b = open_session(w, 0);
	struct chp_op op;

	cr_assert_neq(a, b);
	cr_assert_eq(complete(w, 0, in_session(op_of(CHP_OPCODE_PUT, "k", "1"), a, 1))->reply.status, CHP_STATUS_OK);
	cr_assert_eq(complete(w, 0, in_session(op_of(CHP_OPCODE_PUT, "k", "2"), a, 1))->reply.version, 3,
		     "a retry is answered from the record");
	expect_get(w, 0, "k", "1");
	op = in_session(op_of(CHP_OPCODE_SESSION_CLOSE, "", NULL), b, 1);
	cr_assert_eq(complete(w, 0, op)->reply.status, CHP_STATUS_OK);
	cr_assert_eq(complete(w, 0, in_session(op_of(CHP_OPCODE_PUT, "k", "2"), b, 2))->reply.status,
		     CHP_STATUS_SESSION_UNKNOWN);
	expect_equal(w, ALL3);
	kill_node(w, 0);
	wait_leader(w, ALL3);
	cr_assert_neq(open_session(w, 1), b, "a number is never used again");
	cr_assert_eq(complete(w, 1, in_session(op_of(CHP_OPCODE_PUT, "k", "3"), a, 2))->reply.status, CHP_STATUS_OK);
	end(w);
}

Test(zab, the_leader_closes_idle_sessions_everywhere)
{
	struct chp_shard_config c = config_of(3);
	struct world *w;
	struct chp_shard_stats stats;

	c.session_idle_ns = 300 * MS;
	w = started(&c);
	open_session(w, 0);
	pass_in_steps(w, 1000, 5);
	for (uint32_t n = 0; n < 3; n++) {
		chp_shard_stats(w->shard[n], &stats);
		cr_assert_eq(stats.sessions, 0);
	}
	expect_equal(w, ALL3);
	end(w);
}

/* ------------------------------------------------------------------ sizes */

Test(zab, a_cluster_of_one)
{
	const struct chp_shard_config c = config_of(1);
	struct world *w = started(&c);
	const uint64_t session = open_session(w, 0);

	cr_assert(is_leading(w, 0));
	cr_assert_eq(put(w, 0, "a", "1"), 2);
	expect_get(w, 0, "a", "1");
	expect_value(complete(w, 0, relaxed_get("a")), "1");
	cr_assert_eq(complete(w, 0, in_session(op_of(CHP_OPCODE_PUT, "a", "2"), session, 1))->reply.status,
		     CHP_STATUS_OK);
	cr_assert_eq(complete(w, 0, rule_op(CHP_ZAB_ALL))->reply.status, CHP_STATUS_OK);
	put(w, 0, "a", "3");
	for (uint32_t i = 0; i < 300; i++)
		put(w, 0, "b", "v");
	cr_assert(is_leading(w, 0));
	end(w);
}

Test(zab, a_cluster_of_one_reads_with_leases_off)
{
	struct chp_shard_config c = config_of(1);
	struct world *w;

	c.leader_lease_ns = 0;
	w = started(&c);
	put(w, 0, "a", "1");
	expect_get(w, 0, "a", "1");
	end(w);
}

Test(zab, two_nodes_need_each_other)
{
	const struct chp_shard_config c = config_of(2);
	struct world *w = started(&c);
	uint32_t tag;

	put(w, 0, "a", "1");
	cut_off(w, 1);
	tag = ask(w, 0, op_of(CHP_OPCODE_PUT, "a", "2"));
	pass(w, 5 * ELECTION_MS);
	cr_assert_eq(status_to(w, tag), CHP_STATUS_UNKNOWN_OUTCOME);
	cr_assert_eq(leader_among(w, w->alive), NONE);
	join(w, 1);
	wait_leader(w, w->alive);
	pass(w, 20);
	expect_equal(w, N0 | N1);
	end(w);
}

/* "up to 64 nodes in the state table" */
Test(zab, sixty_four_nodes, .timeout = 120)
{
	struct chp_shard_config c = config_of(64);
	struct world *w;
	uint32_t leader, old;

	c.credits = 2;
	c.log_entries = 512;
	c.log_blocks = 3 * CHP_RECORD_BLOCKS_MAX * 64 * c.credits;
	w = world_of(&c);
	w->check_every = 97;
	enter(w);
	pass_in_steps(w, 20, 5);
	old = leader_among(w, UINT64_MAX);
	cr_assert_eq(old, 0);
	put(w, old, "a", "1");
	cr_assert_eq(complete(w, old, rule_op(CHP_ZAB_ALL))->reply.status, CHP_STATUS_OK);
	put(w, old, "a", "2");
	pass_in_steps(w, 10, 5);
	expect_equal(w, UINT64_MAX);
	kill_node(w, old);
	for (uint32_t ms = 0; (leader = leader_among(w, w->alive)) == NONE; ms += 5) {
		cr_assert_lt(ms, 20 * ELECTION_MS);
		pass_in_steps(w, 5, 5);
	}
	cr_assert_eq(leader, 1);
	pass_in_steps(w, 20, 5);
	cr_assert_eq(complete(w, leader, rule_op(CHP_ZAB_MAJORITY))->reply.status, CHP_STATUS_OK);
	expect_get(w, leader, "a", "2");
	put(w, leader, "a", "3");
	pass_in_steps(w, 10, 5);
	expect_equal(w, w->alive);
	expect_get(w, 63, "a", "3");
	end(w);
}
