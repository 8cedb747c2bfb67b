/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/shard.h"
#include "../support/short_memory.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/hermes.h"

#define MS UINT64_C(1000000)
#define NODES 3u
#define HASH 0x77u
#define PAYLOAD CHP_PAYLOAD_BYTES_MIN
#define BUFFERS 64u
#define HEADER ((uint32_t)sizeof(struct chp_peer_header))

struct packet {
	uint32_t from, to, len;
	uint8_t data[PAYLOAD];
};

struct answer {
	struct chp_reply reply;
	uint8_t value[CHP_VALUE_BYTES_MAX];
};

/* Replicas of one shard, all packets on their way, the answers of the last run. */
struct cluster {
	struct chp_shard_config config;
	struct chp_shard *shard[NODES];
	struct chp_view view;
	struct packet net[1024];
	uint32_t n;
	struct answer answer[CHP_BATCH_MAX];
	uint32_t n_answers;
	uint32_t all_answers; /* since the start */
	uint64_t now;
	uint64_t wake_ns; /* of the last run */
	uint64_t reads_until_ns; /* of the last run */
	uint64_t lease_until_ns;
};

static struct chp_shard_config
config_default(void)
{
	return (struct chp_shard_config){
		.protocol = &chp_hermes,
		.application = &chp_store,
		.memory = &chp_memory_libc,
		.name = "test",
		.cluster_hash = HASH,
		.shards = 1,
		.n_nodes = NODES,
		.hash_seed = 7,
		.payload_bytes_max = PAYLOAD,
		.key_bytes_max = CHP_KEY_BYTES_MAX,
		.value_bytes_max = 200,
		.keys_max = 64,
		.value_blocks_max = 64,
		.sessions_max = 8,
		.session_window = 4,
		.session_idle_ns = 1000 * MS,
		.credits = 8,
		.link_window = 16,
		.log_entries = 256,
		.log_blocks = 3 * CHP_RECORD_BLOCKS_MAX * NODES * 8,
		.ops = 16,
		.copy_bytes = 4096,
		.rto_ns_min = MS,
		.rto_ns_max = 16 * MS,
		.link_down_ns = CHP_NEVER,
	};
}

/* ------------------------------------------------------------------ running */

static uint8_t *
take_answer(void *frontend, const struct chp_reply *r)
{
	struct cluster *c = frontend;
	struct answer *a = &c->answer[c->n_answers++];

	cr_assert_leq(c->n_answers, CHP_BATCH_MAX);
	c->all_answers++;
	a->reply = *r;
	return a->value;
}

struct batch {
	struct chp_op *op;
	uint32_t n_ops;
	const struct packet *packet; /* one, or NULL */
	bool view;
	uint32_t reply_room; /* 0: plenty */
	uint32_t buffers;    /* 0: plenty */
};

static void
run(struct cluster *c, uint32_t n, struct batch b)
{
	static uint8_t bytes[BUFFERS][PAYLOAD];
	struct chp_buffer buffer[BUFFERS];
	struct chp_now now = { .ns = c->now, .lease_until_ns = c->lease_until_ns };
	struct chp_packet packet = { b.packet == NULL ? NULL : b.packet->data, b.packet == NULL ? 0 : b.packet->len };
	struct chp_events in = { .packet = &packet,
				 .n_packets = b.packet != NULL,
				 .op = b.op,
				 .n_ops = b.n_ops,
				 .view = b.view ? &c->view : NULL };
	struct chp_effects fx = { .buffer = buffer,
				  .n_buffers = b.buffers == 0 ? BUFFERS : b.buffers,
				  .reply = take_answer,
				  .frontend = c,
				  .reply_room = b.reply_room == 0 ? CHP_BATCH_MAX : b.reply_room };

	for (uint32_t i = 0; i < BUFFERS; i++)
		buffer[i] = (struct chp_buffer){ .data = bytes[i] };
	c->n_answers = 0;
	chp_shard_run(c->shard[n], &now, &in, &fx);
	chp_shard_check(c->shard[n]);
	cr_assert_leq(c->n_answers, fx.reply_room);
	cr_assert_leq(fx.n_used, fx.n_buffers);
	for (uint32_t i = 0; i < fx.n_used; i++) {
		struct packet *p = &c->net[c->n++];

		cr_assert_lt(c->n, CHP_ARRAY_LEN(c->net));
		chp_peer_seal(buffer[i].data, buffer[i].len);
		cr_assert_eq(chp_peer_check(buffer[i].data, buffer[i].len, HASH, NODES, c->config.shards),
			     CHP_PACKET_OK);
		p->from = n;
		p->to = buffer[i].peer;
		p->len = buffer[i].len;
		memcpy(p->data, buffer[i].data, p->len);
	}
	c->wake_ns = fx.wake_ns;
	c->reads_until_ns = fx.reads_until_ns;
}

/* The oldest packet on its way between two nodes, taken off. */
static bool
take_packet(struct cluster *c, uint32_t from, uint32_t to, struct packet *p)
{
	for (uint32_t i = 0; i < c->n; i++) {
		if (c->net[i].from != from || c->net[i].to != to)
			continue;
		*p = c->net[i];
		memmove(&c->net[i], &c->net[i + 1], (--c->n - i) * sizeof(*p));
		return true;
	}
	return false;
}

static void
deliver_from_to(struct cluster *c, uint32_t from, uint32_t to)
{
	struct packet p;

	while (take_packet(c, from, to, &p))
		run(c, to, (struct batch){ .packet = &p });
}

/* Everything arrives until nothing is on its way. Answers of all runs are lost but counted. */
static void
deliver(struct cluster *c)
{
	for (uint32_t rounds = 0; c->n > 0; rounds++) {
		cr_assert_lt(rounds, 1000);
		for (uint32_t a = 0; a < NODES; a++)
			for (uint32_t b = 0; b < NODES; b++)
				deliver_from_to(c, a, b);
	}
}

/* Time passes, until what was lost has been sent again. */
static void
settle(struct cluster *c)
{
	for (uint32_t i = 0; i < 20; i++) {
		c->now += 5 * MS;
		for (uint32_t n = 0; n < NODES; n++)
			run(c, n, (struct batch){ .n_ops = 0 });
		deliver(c);
	}
}

static struct cluster *
cluster_without_view(const struct chp_shard_config *config)
{
	struct cluster *c = calloc(1, sizeof(*c));

	cr_assert_not_null(c);
	c->config = *config;
	c->now = 1000 * MS;
	c->lease_until_ns = CHP_NEVER;
	c->view.epoch = 1;
	for (uint32_t n = 0; n < NODES; n++) {
		struct chp_shard_config sc = *config;
		int err = 0;

		sc.self = n;
		c->shard[n] = chp_shard_create(&sc, &err);
		cr_assert_not_null(c->shard[n]);
		c->view.voters |= chp_bit(n);
		c->view.incarnation[n] = 0x100 + n;
		c->view.writer[n] = (uint16_t)(n + 1);
	}
	return c;
}

static struct cluster *
cluster_of(const struct chp_shard_config *config)
{
	struct cluster *c = cluster_without_view(config);

	for (uint32_t n = 0; n < NODES; n++)
		run(c, n, (struct batch){ .view = true });
	deliver(c);
	return c;
}

static struct cluster *
cluster_default(void)
{
	struct chp_shard_config config = config_default();

	return cluster_of(&config);
}

static void
cluster_free(struct cluster *c)
{
	for (uint32_t n = 0; n < NODES; n++)
		chp_shard_destroy(c->shard[n]);
	free(c);
}

static struct chp_shard_stats
stats_of(const struct cluster *c, uint32_t n)
{
	struct chp_shard_stats stats;

	chp_shard_stats(c->shard[n], &stats);
	return stats;
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
op_in_session(uint8_t opcode, const char *key, const char *value, uint64_t session, uint64_t request)
{
	struct chp_op op = op_of(opcode, key, value);

	op.session = session;
	op.request = request;
	op.lowest = 1;
	return op;
}

/* Submit one operation. The answer given at once, or one with status CHP_STATUS_COUNT. */
static struct chp_reply
submit(struct cluster *c, uint32_t n, struct chp_op op)
{
	struct chp_reply none = { .status = CHP_STATUS_COUNT };

	run(c, n, (struct batch){ .op = &op, .n_ops = 1 });
	cr_assert_leq(c->n_answers, 1);
	return c->n_answers == 0 ? none : c->answer[0].reply;
}

/* The answer to the only operation that is open: deliver everything until it comes. */
static struct chp_reply
wait_answer(struct cluster *c)
{
	struct packet p;

	for (uint32_t i = 0; i < 1000; i++)
		for (uint32_t a = 0; a < NODES; a++)
			for (uint32_t b = 0; b < NODES; b++)
				while (take_packet(c, a, b, &p)) {
					struct chp_reply r;

					run(c, b, (struct batch){ .packet = &p });
					if (c->n_answers == 0)
						continue;
					cr_assert_eq(c->n_answers, 1);
					r = c->answer[0].reply;
					deliver(c);
					return r;
				}
	cr_assert_fail("no answer");
	return (struct chp_reply){ .status = CHP_STATUS_COUNT };
}

static struct chp_reply
complete(struct cluster *c, uint32_t n, struct chp_op op)
{
	struct chp_reply r = submit(c, n, op);

	return r.status == CHP_STATUS_COUNT ? wait_answer(c) : r;
}

static uint64_t
open_session(struct cluster *c, uint32_t n)
{
	struct chp_reply r = complete(c, n, op_of(CHP_OPCODE_SESSION_OPEN, "", NULL));

	cr_assert_eq(r.status, CHP_STATUS_OK);
	cr_assert_neq(r.number, 0);
	return r.number;
}

static void
expect_get(struct cluster *c, uint32_t n, const char *key, const char *value)
{
	struct chp_reply r = submit(c, n, op_of(CHP_OPCODE_GET, key, NULL));

	cr_assert_eq(r.status, value == NULL ? CHP_STATUS_NOT_FOUND : CHP_STATUS_OK);
	if (value != NULL) {
		cr_assert_eq(r.value_len, strlen(value));
		cr_assert_arr_eq(c->answer[0].value, value, r.value_len);
	}
}

/* ------------------------------------------------------------------ sessions (SAFETY 24) */

Test(shard, a_retry_is_answered_from_its_record)
{
	struct cluster *c = cluster_default();
	uint64_t session = open_session(c, 0);
	struct chp_reply first, second;

	complete(c, 0, op_of(CHP_OPCODE_PUT, "n", "10"));
	for (uint32_t n = 0; n < NODES; n++)
		cr_assert_eq(stats_of(c, n).sessions, 1);
	struct chp_op op = op_in_session(CHP_OPCODE_INCR, "n", NULL, session, 1);

	op.arg = 5;
	first = complete(c, 0, op);
	cr_assert_eq(first.status, CHP_STATUS_OK);
	cr_assert_eq(first.number, 15);
	second = submit(c, 0, op);
	cr_assert_eq(second.status, CHP_STATUS_OK);
	cr_assert_eq(second.number, 15);
	cr_assert_eq(second.version, first.version);
	cr_assert_eq(second.request, 1);
	cr_assert_eq(stats_of(c, 0).shard.retry_replayed, 1);
	expect_get(c, 1, "n", "15");
	cluster_free(c);
}

Test(shard, a_retry_of_what_still_runs_waits_for_that_answer)
{
	struct cluster *c = cluster_default();
	uint64_t session = open_session(c, 0);
	struct chp_op op = op_in_session(CHP_OPCODE_PUT, "x", "v", session, 1);
	uint32_t before = c->all_answers;

	cr_assert_eq(submit(c, 0, op).status, CHP_STATUS_COUNT);
	cr_assert_eq(submit(c, 0, op).status, CHP_STATUS_COUNT);
	cr_assert_eq(stats_of(c, 0).shard.retry_pending, 1);
	deliver(c);
	cr_assert_eq(c->all_answers, before + 1);
	cr_assert_eq(stats_of(c, 0).protocol.begun, 2, "the session's open and one put");
	cluster_free(c);
}

Test(shard, two_copies_of_a_request_in_one_batch_are_one)
{
	struct cluster *c = cluster_default();
	uint64_t session = open_session(c, 0);
	struct chp_op op[2];

	complete(c, 0, op_of(CHP_OPCODE_PUT, "n", "1"));
	op[0] = op[1] = op_in_session(CHP_OPCODE_APPEND, "n", "2", session, 1);
	run(c, 0, (struct batch){ .op = op, .n_ops = 2 });
	deliver(c);
	expect_get(c, 2, "n", "12");
	cluster_free(c);
}

Test(shard, a_refusal_is_remembered_too)
{
	struct cluster *c = cluster_default();
	uint64_t session = open_session(c, 0);
	struct chp_op op = op_in_session(CHP_OPCODE_REPLACE, "x", "v", session, 1);

	cr_assert_eq(submit(c, 0, op).status, CHP_STATUS_NOT_FOUND);
	complete(c, 0, op_of(CHP_OPCODE_PUT, "x", "there now"));
	cr_assert_eq(submit(c, 0, op).status, CHP_STATUS_NOT_FOUND);
	expect_get(c, 0, "x", "there now");
	cluster_free(c);
}

Test(shard, busy_is_remembered_certainly_not_applied)
{
	struct cluster *c = cluster_default();
	uint64_t session = open_session(c, 0);
	struct chp_op op = op_in_session(CHP_OPCODE_PUT, "late", "v", session, 1);

	for (uint32_t i = 0; i < c->config.credits; i++) {
		char key[8] = { 'k', (char)('0' + i) };

		cr_assert_eq(submit(c, 0, op_of(CHP_OPCODE_PUT, key, "v")).status, CHP_STATUS_COUNT);
	}
	cr_assert_eq(submit(c, 0, op).status, CHP_STATUS_BUSY);
	deliver(c);
	cr_assert_eq(submit(c, 0, op).status, CHP_STATUS_BUSY, "the same request is never applied later");
	expect_get(c, 0, "late", NULL);
	op.request = 2;
	cr_assert_eq(complete(c, 0, op).status, CHP_STATUS_OK);
	cluster_free(c);
}

Test(shard, a_session_has_a_window_of_requests)
{
	struct cluster *c = cluster_default();
	uint64_t session = open_session(c, 0);
	struct chp_op op = op_in_session(CHP_OPCODE_PUT, "x", "v", session, 4);

	cr_assert_eq(complete(c, 0, op).status, CHP_STATUS_OK);
	op.request = 5; /* lowest 1, window 4 */
	cr_assert_eq(submit(c, 0, op).status, CHP_STATUS_SESSION_WINDOW);
	cr_assert_eq(stats_of(c, 0).shard.session_window, 1);
	op.lowest = 2;
	cr_assert_eq(complete(c, 0, op).status, CHP_STATUS_OK);
	/* Below the lowest: the client has seen the answer, what comes is an old copy. */
	op.request = 1;
	cr_assert_eq(submit(c, 0, op).status, CHP_STATUS_COUNT);
	cr_assert_eq(stats_of(c, 0).shard.retry_stale, 1);
	/* An old copy with an old lowest does not move it back. */
	op.lowest = 1;
	cr_assert_eq(submit(c, 0, op).status, CHP_STATUS_COUNT);
	cr_assert_eq(stats_of(c, 0).shard.retry_stale, 2);
	cr_assert_eq(c->n, 0, "and nothing was sent");
	cluster_free(c);
}

Test(shard, unknown_and_closed_sessions_are_refused)
{
	struct cluster *c = cluster_default();
	uint64_t session = open_session(c, 0);

	cr_assert_eq(submit(c, 0, op_in_session(CHP_OPCODE_PUT, "x", "v", session + 1, 1)).status,
		     CHP_STATUS_SESSION_UNKNOWN);
	cr_assert_eq(complete(c, 0, op_in_session(CHP_OPCODE_SESSION_CLOSE, "", NULL, session, 1)).status,
		     CHP_STATUS_OK);
	cr_assert_eq(submit(c, 0, op_in_session(CHP_OPCODE_PUT, "x", "v", session, 2)).status,
		     CHP_STATUS_SESSION_UNKNOWN);
	cr_assert_eq(submit(c, 0, op_in_session(CHP_OPCODE_SESSION_CLOSE, "", NULL, session, 3)).status,
		     CHP_STATUS_SESSION_UNKNOWN);
	cr_assert_eq(submit(c, 0, op_in_session(CHP_OPCODE_SESSION_CLOSE, "", NULL, 0, 3)).status,
		     CHP_STATUS_SESSION_UNKNOWN);
	for (uint32_t n = 0; n < NODES; n++)
		cr_assert_eq(stats_of(c, n).sessions, 0);
	/* Reads need no session, whatever they name. */
	cr_assert_eq(submit(c, 0, op_in_session(CHP_OPCODE_GET, "x", NULL, session, 4)).status,
		     CHP_STATUS_NOT_FOUND);
	cr_assert_neq(open_session(c, 0), session, "numbers are never used again");
	cluster_free(c);
}

Test(shard, sessions_that_run_out_are_refused)
{
	struct chp_shard_config config = config_default();
	struct cluster *c;

	config.sessions_max = 2;
	c = cluster_of(&config);
	open_session(c, 0);
	open_session(c, 1);
	cr_assert_eq(submit(c, 2, op_of(CHP_OPCODE_SESSION_OPEN, "", NULL)).status, CHP_STATUS_SESSIONS_FULL);
	cluster_free(c);
}

Test(shard, many_opens_at_once_fit_behind_the_limit)
{
	struct chp_shard_config config = config_default();
	struct cluster *c;

	config.sessions_max = 1;
	c = cluster_of(&config);
	for (uint32_t n = 0; n < NODES; n++) {
		struct chp_op op[CHP_BATCH_MAX];

		for (uint32_t i = 0; i < CHP_BATCH_MAX; i++)
			op[i] = op_of(CHP_OPCODE_SESSION_OPEN, "", NULL);
		run(c, n, (struct batch){ .op = op, .n_ops = CHP_BATCH_MAX });
		cr_assert_eq(c->n_answers, CHP_BATCH_MAX - config.credits, "busy, the others are open");
	}
	deliver(c);
	for (uint32_t n = 0; n < NODES; n++)
		cr_assert_eq(stats_of(c, n).sessions, NODES * config.credits);
	cluster_free(c);
}

Test(shard, idle_sessions_expire_at_their_home_only)
{
	struct cluster *c = cluster_default();
	uint64_t a = open_session(c, 0), b = open_session(c, 1);

	c->now += 900 * MS;
	cr_assert_eq(complete(c, 0, op_in_session(CHP_OPCODE_PUT, "x", "v", a, 1)).status, CHP_STATUS_OK);
	c->now += 200 * MS;
	for (uint32_t n = 0; n < NODES; n++)
		run(c, n, (struct batch){ .n_ops = 0 });
	deliver(c);
	cr_assert_eq(stats_of(c, 0).shard.sessions_expired, 0, "it was used");
	cr_assert_eq(stats_of(c, 1).shard.sessions_expired, 1);
	cr_assert_eq(stats_of(c, 2).shard.sessions_expired, 0);
	for (uint32_t n = 0; n < NODES; n++)
		cr_assert_eq(stats_of(c, n).sessions, 1);
	cr_assert_eq(submit(c, 1, op_in_session(CHP_OPCODE_PUT, "x", "v", b, 1)).status,
		     CHP_STATUS_SESSION_UNKNOWN);
	c->now += 1000 * MS;
	run(c, 0, (struct batch){ .n_ops = 0 });
	deliver(c);
	cr_assert_eq(stats_of(c, 2).sessions, 0);
	cr_assert_eq(chp_shard_digest(c->shard[0]), chp_shard_digest(c->shard[2]));
	cluster_free(c);
}

Test(shard, others_send_a_session_to_its_home)
{
	struct cluster *c = cluster_default();
	uint64_t session = open_session(c, 2);
	struct chp_reply r = submit(c, 0, op_in_session(CHP_OPCODE_PUT, "x", "v", session, 1));

	cr_assert_eq(r.status, CHP_STATUS_REDIRECT);
	cr_assert_eq(r.number, 2);
	cr_assert_eq(submit(c, 1, op_in_session(CHP_OPCODE_SESSION_CLOSE, "", NULL, session, 1)).status,
		     CHP_STATUS_REDIRECT);
	cr_assert_eq(complete(c, 2, op_in_session(CHP_OPCODE_PUT, "x", "v", session, 1)).status, CHP_STATUS_OK);
	cluster_free(c);
}

/* ------------------------------------------------------------------ the epoch filter (SAFETY 11) */

Test(shard, an_old_epochs_packet_is_acknowledged_and_discarded)
{
	struct cluster *c = cluster_default();
	struct packet old, p = { .len = 0 };

	submit(c, 0, op_of(CHP_OPCODE_PUT, "x", "v"));
	cr_assert(take_packet(c, 0, 1, &old));
	c->view.epoch = 2;
	run(c, 1, (struct batch){ .view = true });
	while (take_packet(c, 1, 0, &p))
		;
	run(c, 1, (struct batch){ .packet = &old });
	cr_assert_eq(stats_of(c, 1).link[0].old_epoch, 1);
	cr_assert_eq(stats_of(c, 1).protocol.inv_received, 0);
	cr_assert(take_packet(c, 1, 0, &p));
	cr_assert_eq(((struct chp_peer_header *)(void *)p.data)->ack,
		     ((struct chp_peer_header *)(void *)old.data)->seq);
	cr_assert_eq(p.len, HEADER, "no ACK of the protocol's");
	/* What began in it used its credit up all the same: a new one was granted. */
	cr_assert_gt(((struct chp_peer_header *)(void *)p.data)->grant, c->config.credits);
	cluster_free(c);
}

Test(shard, a_newer_epochs_packet_is_held_until_the_view_comes)
{
	struct cluster *c = cluster_default();
	struct packet p, a;
	uint64_t seq;

	c->view.epoch = 2;
	run(c, 0, (struct batch){ .view = true });
	deliver_from_to(c, 0, 1);
	submit(c, 0, op_of(CHP_OPCODE_PUT, "x", "v"));
	cr_assert(take_packet(c, 0, 1, &p));
	seq = ((struct chp_peer_header *)(void *)p.data)->seq;
	run(c, 1, (struct batch){ .packet = &p });
	cr_assert_geq(stats_of(c, 1).link[0].new_epoch_held, 1);
	cr_assert_eq(stats_of(c, 1).protocol.inv_received, 0);
	cr_assert_neq(c->wake_ns, 0, "nothing can be done before the view comes");
	/* Its memory was the caller's. */
	memset(p.data, 0xee, sizeof(p.data));
	while (take_packet(c, 1, 0, &a))
		cr_assert_lt(((struct chp_peer_header *)(void *)a.data)->ack, seq, "not delivered, not acknowledged");
	run(c, 1, (struct batch){ .view = true });
	cr_assert_eq(stats_of(c, 1).protocol.inv_received, 1);
	cr_assert(take_packet(c, 1, 0, &a));
	cr_assert_eq(((struct chp_peer_header *)(void *)a.data)->ack, seq);
	run(c, 2, (struct batch){ .view = true });
	settle(c);
	expect_get(c, 1, "x", "v");
	cluster_free(c);
}

Test(shard, it_serves_only_as_a_voter_of_a_view)
{
	struct chp_shard_config config = config_default();
	struct cluster *c = cluster_without_view(&config);

	cr_assert_eq(chp_shard_epoch(c->shard[0]), 0);
	cr_assert_eq(submit(c, 0, op_of(CHP_OPCODE_GET, "x", NULL)).status, CHP_STATUS_NOT_SERVING);
	cr_assert_eq(submit(c, 0, op_of(CHP_OPCODE_PUT, "x", "v")).status, CHP_STATUS_NOT_SERVING);
	cr_assert_eq(submit(c, 0, op_of(CHP_OPCODE_PING, "", NULL)).status, CHP_STATUS_NOT_SERVING);
	c->view.voters = 3;
	c->view.learners = 4;
	for (uint32_t n = 0; n < NODES; n++)
		run(c, n, (struct batch){ .view = true });
	deliver(c);
	cr_assert_eq(submit(c, 2, op_of(CHP_OPCODE_GET, "x", NULL)).status, CHP_STATUS_NOT_SERVING);
	cr_assert_eq(stats_of(c, 2).shard.not_serving, 1);
	cr_assert_eq(complete(c, 0, op_of(CHP_OPCODE_PUT, "x", "v")).status, CHP_STATUS_OK);
	cr_assert_eq(stats_of(c, 2).protocol.inv_received, 1, "the learner has it");
	cluster_free(c);
}

Test(shard, a_shard_with_nothing_to_do_does_not_ask_to_be_run)
{
	struct chp_shard_config config = config_default();
	struct cluster *c = cluster_without_view(&config);

	run(c, 0, (struct batch){ .n_ops = 0 });
	run(c, 0, (struct batch){ .n_ops = 0 });
	cr_assert_gt(c->wake_ns, c->now, "without a view");
	for (uint32_t n = 0; n < NODES; n++)
		run(c, n, (struct batch){ .view = true });
	deliver(c);
	complete(c, 0, op_of(CHP_OPCODE_PUT, "x", "v"));
	for (uint32_t n = 0; n < NODES; n++) {
		run(c, n, (struct batch){ .n_ops = 0 });
		cr_assert_gt(c->wake_ns, c->now + MS, "at rest");
		cr_assert(chp_shard_is_idle(c->shard[n]));
	}
	cluster_free(c);
}

/* ------------------------------------------------------------------ packets and credits */

/* A peer that does what it likes: the link of node 0, in our hands. */
static struct chp_link *
rogue_link(struct cluster *c, uint32_t to)
{
	struct chp_link_config config = { .kind = CHP_PACKET_PEER,
					  .cluster_hash = HASH,
					  .self = 0,
					  .peer = to,
					  .window = c->config.link_window,
					  .payload_bytes_max = PAYLOAD,
					  .queue = 200,
					  .rto_ns_min = MS,
					  .rto_ns_max = 16 * MS,
					  .link_down_ns = CHP_NEVER };
	struct chp_link *l = calloc(1, sizeof(*l));

	cr_assert_not_null(l);
	cr_assert_eq(chp_link_init(l, &config, &chp_memory_libc), 0);
	chp_link_peer(l, c->view.incarnation[0], c->view.incarnation[to], c->now);
	return l;
}

static void
rogue_free(struct chp_link *l)
{
	chp_link_fini(l, &chp_memory_libc);
	free(l);
}

/* Its packets are consumed: what they acknowledge and grant is all that counts here. */
static void
rogue_listen(struct cluster *c, struct chp_link *l)
{
	struct packet p;

	while (take_packet(c, l->config.peer, 0, &p))
		if (chp_link_receive(l, p.data, p.len, c->now) == CHP_LINK_DELIVER)
			chp_link_delivered(l, c->now);
	c->n = 0;
}

/* n INVs of keys of four bytes in one packet. */
static void
rogue_invs(struct cluster *c, struct chp_link *l, uint32_t first, uint32_t n, uint8_t flags, struct packet *p)
{
	const uint32_t bytes = chp_hermes_inv_bytes(4, 4);
	uint8_t *at, *end;

	chp_link_open(l, n * bytes, c->view.epoch, &at, &end);
	for (uint32_t i = first; i < first + n; i++, at += bytes) {
		struct chp_hermes_inv inv = {
			.message = { .type = CHP_HERMES_INV, .flags = flags, .len = (uint16_t)bytes, .op = i % 8 },
			.generation = i,
			.key_len = 4,
			.version = chp_version_make(2, 1),
			.value_total = 4,
		};

		memcpy(at, &inv, sizeof(inv));
		memcpy(at + sizeof(inv), &i, 4);
		memcpy(at + sizeof(inv) + 4, "data", 4);
	}
	chp_link_close(l, at);
	p->from = 0;
	p->to = l->config.peer;
	p->len = chp_link_transmit(l, c->now, c->view.epoch, p->data);
	cr_assert_gt(p->len, HEADER);
	chp_peer_seal(p->data, p->len);
}

Test(shard, what_begins_beyond_its_grant_is_dropped_and_counted)
{
	struct chp_shard_config config = config_default();
	struct cluster *c = cluster_without_view(&config);
	struct chp_link *l = rogue_link(c, 1);
	struct packet p;

	run(c, 1, (struct batch){ .view = true });
	rogue_invs(c, l, 0, config.credits + 3, CHP_MESSAGE_BEGIN, &p);
	run(c, 1, (struct batch){ .packet = &p });
	cr_assert_eq(stats_of(c, 1).protocol.inv_received, config.credits);
	cr_assert_eq(stats_of(c, 1).link[0].bad_message, 3);
	/* What began was granted anew, and the link goes on. */
	rogue_listen(c, l);
	cr_assert_eq(l->peer_grant, 2 * config.credits);
	rogue_invs(c, l, 100, 1, CHP_MESSAGE_BEGIN, &p);
	run(c, 1, (struct batch){ .packet = &p });
	cr_assert_eq(stats_of(c, 1).protocol.inv_received, config.credits + 1);
	rogue_free(l);
	cluster_free(c);
}

Test(shard, grants_stop_before_the_log_is_full)
{
	struct chp_shard_config config = config_default();
	struct cluster *c;
	struct chp_link *l;
	struct packet p;
	uint32_t begun = 0;

	/* A peer that obeys and never ends what it began: no VAL, so nothing leaves the log. */
	config.ops = 300;
	config.keys_max = 1000;
	c = cluster_without_view(&config);
	l = rogue_link(c, 1);
	run(c, 1, (struct batch){ .view = true });
	rogue_listen(c, l);
	for (; begun < l->peer_grant; begun++) {
		rogue_invs(c, l, begun, 1, CHP_MESSAGE_BEGIN, &p);
		run(c, 1, (struct batch){ .packet = &p });
		rogue_listen(c, l);
		cr_assert_leq(begun, config.log_entries);
	}
	cr_assert_gt(begun, config.credits);
	cr_assert_eq(stats_of(c, 1).link[0].bad_message, 0);
	cr_assert_eq(stats_of(c, 1).protocol.overrun, 0);
	/* What all nodes may send again after a view change still has its room. */
	cr_assert_leq(stats_of(c, 1).log_next - stats_of(c, 1).log_head,
		      config.log_entries - NODES * config.credits);
	rogue_free(l);
	cluster_free(c);
}

Test(shard, messages_without_credit_can_exhaust_the_log_and_not_the_process)
{
	struct chp_shard_config config = config_default();
	struct cluster *c = cluster_without_view(&config);
	struct chp_link *l = rogue_link(c, 1);
	struct packet p;

	run(c, 1, (struct batch){ .view = true });
	for (uint32_t i = 0; i < 300; i++) {
		rogue_invs(c, l, i, 1, 0, &p);
		run(c, 1, (struct batch){ .packet = &p });
		rogue_listen(c, l);
	}
	cr_assert_gt(stats_of(c, 1).protocol.overrun, 0);
	rogue_free(l);
	cluster_free(c);
}

Test(shard, messages_that_the_protocol_does_not_accept_are_skipped)
{
	struct chp_shard_config config = config_default();
	struct cluster *c = cluster_without_view(&config);
	struct chp_link *l = rogue_link(c, 1);
	struct packet p;

	run(c, 1, (struct batch){ .view = true });
	rogue_invs(c, l, 0, 1, CHP_MESSAGE_BEGIN, &p);
	((struct chp_message *)(void *)(p.data + HEADER))->type = 0x7f;
	run(c, 1, (struct batch){ .packet = &p });
	cr_assert_eq(stats_of(c, 1).link[0].bad_message, 1);
	rogue_invs(c, l, 1, 1, CHP_MESSAGE_BEGIN, &p);
	run(c, 1, (struct batch){ .packet = &p });
	cr_assert_eq(stats_of(c, 1).protocol.inv_received, 1, "the link goes on");
	rogue_free(l);
	cluster_free(c);
}

Test(shard, packets_that_name_others_are_misdirected)
{
	struct cluster *c = cluster_default();
	struct packet p;
	struct chp_peer_header *h = (void *)p.data;

	submit(c, 0, op_of(CHP_OPCODE_PUT, "x", "v"));
	cr_assert(take_packet(c, 0, 1, &p));
	h->to = 2;
	run(c, 1, (struct batch){ .packet = &p });
	h->to = 1;
	h->shard = 1;
	run(c, 1, (struct batch){ .packet = &p });
	h->shard = 0;
	h->from = 1;
	run(c, 1, (struct batch){ .packet = &p });
	h->from = NODES;
	run(c, 1, (struct batch){ .packet = &p });
	cr_assert_eq(stats_of(c, 1).shard.misdirected, 4);
	cr_assert_eq(stats_of(c, 1).protocol.inv_received, 0);
	h->from = 0;
	run(c, 1, (struct batch){ .packet = &p });
	cr_assert_eq(stats_of(c, 1).protocol.inv_received, 1);
	cluster_free(c);
}

Test(shard, no_operation_begins_without_credits_of_all)
{
	struct cluster *c = cluster_default();
	uint32_t begun = 0;

	for (uint32_t i = 0; i < 3 * c->config.credits; i++) {
		char key[8] = { 'k', (char)('0' + i / 10), (char)('0' + i % 10) };

		begun += submit(c, 0, op_of(CHP_OPCODE_PUT, key, "v")).status == CHP_STATUS_COUNT;
	}
	cr_assert_eq(begun, c->config.credits);
	cr_assert_eq(stats_of(c, 0).protocol.busy, 2 * c->config.credits);
	cr_assert_eq(stats_of(c, 0).link_state[1].credits, 0);
	deliver(c);
	/* The last grants ride on what comes next, or come when they are asked for. */
	cr_assert_geq(stats_of(c, 0).link_state[1].credits, 1);
	cr_assert_eq(stats_of(c, 0).open_ops, 0);
	cluster_free(c);
}

/* ------------------------------------------------------------------ room for replies and packets */

Test(shard, the_cursor_stops_for_want_of_reply_room_and_goes_on)
{
	struct chp_shard_config config = config_default();
	struct cluster *c = cluster_of(&config);
	struct chp_op op[8];
	char key[8][2];
	struct packet p;
	uint32_t answers = 0;

	for (uint32_t i = 0; i < 8; i++) {
		key[i][0] = (char)('a' + i);
		key[i][1] = '\0';
		op[i] = op_of(CHP_OPCODE_PUT, key[i], "v");
	}
	run(c, 0, (struct batch){ .op = op, .n_ops = 8 });
	deliver_from_to(c, 0, 1);
	deliver_from_to(c, 0, 2);
	deliver_from_to(c, 1, 0);
	cr_assert(take_packet(c, 2, 0, &p), "eight ACKs in one packet");
	for (uint32_t i = 0; i < 8; i++) {
		run(c, 0, (struct batch){ .packet = i == 0 ? &p : NULL, .reply_room = 1 });
		memset(p.data, 0xee, sizeof(p.data)); /* it was the caller's */
		answers += c->n_answers;
		cr_assert_eq(c->n_answers, 1);
		if (i < 7)
			cr_assert_eq(c->wake_ns, 0, "more is ready");
	}
	cr_assert_eq(answers, 8);
	run(c, 0, (struct batch){ .reply_room = 1 });
	cr_assert_eq(c->n_answers, 0);
	deliver(c);
	expect_get(c, 1, "h", "v");
	cluster_free(c);
}

Test(shard, waiting_reads_are_answered_as_room_allows)
{
	struct cluster *c = cluster_default();
	struct chp_op op[8];
	uint32_t answers = 0;

	submit(c, 0, op_of(CHP_OPCODE_PUT, "x", "v"));
	deliver_from_to(c, 0, 1);
	for (uint32_t i = 0; i < 8; i++)
		op[i] = op_of(CHP_OPCODE_GET, "x", NULL);
	run(c, 1, (struct batch){ .op = op, .n_ops = 8 });
	cr_assert_eq(c->n_answers, 0);
	deliver_from_to(c, 0, 2);
	deliver_from_to(c, 2, 0);
	deliver_from_to(c, 1, 0);
	deliver_from_to(c, 0, 1);
	answers = c->n_answers;
	cr_assert_eq(answers, 8);
	cluster_free(c);

	c = cluster_default();
	submit(c, 0, op_of(CHP_OPCODE_PUT, "x", "v"));
	deliver_from_to(c, 0, 1);
	run(c, 1, (struct batch){ .op = op, .n_ops = 8 });
	deliver_from_to(c, 0, 2);
	deliver_from_to(c, 2, 0);
	deliver_from_to(c, 1, 0);
	struct packet p;

	answers = 0;
	while (take_packet(c, 0, 1, &p)) {
		run(c, 1, (struct batch){ .packet = &p, .reply_room = 3 });
		answers += c->n_answers;
	}
	cr_assert_eq(answers, 3);
	cr_assert_eq(c->wake_ns, 0);
	run(c, 1, (struct batch){ .reply_room = 3 });
	run(c, 1, (struct batch){ .reply_room = 3 });
	cr_assert_eq(c->n_answers, 2);
	cr_assert_neq(c->wake_ns, 0);
	cluster_free(c);
}

Test(shard, operations_have_their_room_before_messages)
{
	/* The caller promises one reply for each operation: a message may not take it. */
	struct cluster *c = cluster_default();
	struct chp_op op[2] = { op_of(CHP_OPCODE_GET, "y", NULL), op_of(CHP_OPCODE_GET, "z", NULL) };
	struct packet p;

	submit(c, 0, op_of(CHP_OPCODE_PUT, "x", "v"));
	deliver_from_to(c, 0, 1);
	deliver_from_to(c, 0, 2);
	deliver_from_to(c, 1, 0);
	cr_assert(take_packet(c, 2, 0, &p));
	run(c, 0, (struct batch){ .packet = &p, .op = op, .n_ops = 2, .reply_room = 2 });
	cr_assert_eq(c->n_answers, 2);
	cr_assert_eq(c->answer[0].reply.opcode, CHP_OPCODE_GET);
	cr_assert_eq(c->wake_ns, 0);
	run(c, 0, (struct batch){ .n_ops = 0 });
	cr_assert_eq(c->n_answers, 1);
	cr_assert_eq(c->answer[0].reply.opcode, CHP_OPCODE_PUT);
	cluster_free(c);
}

Test(shard, packets_wait_for_buffers_and_no_peer_starves)
{
	struct cluster *c = cluster_default();
	uint32_t to[NODES] = { 0, 0, 0 };
	struct packet p;

	submit(c, 0, op_of(CHP_OPCODE_PUT, "a", "v"));
	c->n = 0;
	c->now += 20 * MS;
	for (uint32_t i = 0; i < 6; i++) {
		struct chp_op op = op_of(CHP_OPCODE_PUT, (const char[][2]){ "b", "c", "d", "e", "f", "g" }[i], "v");

		run(c, 0, (struct batch){ .op = &op, .n_ops = 1, .buffers = 1 });
		cr_assert_eq(c->wake_ns, 0, "more packets wait");
	}
	for (uint32_t i = 0; i < 20 && c->wake_ns == 0; i++)
		run(c, 0, (struct batch){ .buffers = 1 });
	for (uint32_t n = 1; n < NODES; n++)
		while (take_packet(c, 0, n, &p))
			to[n]++;
	cr_assert_gt(to[1], 2);
	cr_assert_gt(to[2], 2);
	cluster_free(c);
}

/* ------------------------------------------------------------------ links */

Test(shard, a_reset_of_a_link_is_told_to_both_protocols)
{
	struct cluster *c = cluster_default();

	submit(c, 0, op_of(CHP_OPCODE_PUT, "x", "v"));
	deliver_from_to(c, 0, 2);
	c->n = 0; /* all else is lost with the link */
	chp_shard_reset_link(c->shard[0], 1);
	chp_shard_reset_link(c->shard[0], 0); /* to itself: nothing */
	run(c, 0, (struct batch){ .n_ops = 0 });
	cr_assert_eq(stats_of(c, 0).link_state[1].up, 0);
	cr_assert_eq(submit(c, 0, op_of(CHP_OPCODE_PUT, "y", "v")).status, CHP_STATUS_OVERLOAD,
		     "no credits of node 1 yet");
	deliver(c);
	settle(c);
	cr_assert(chp_shard_is_idle(c->shard[0]));
	cr_assert_eq(stats_of(c, 0).link_state[1].up, 1);
	cr_assert_eq(stats_of(c, 0).link_state[1].session, 2);
	cr_assert_eq(stats_of(c, 1).link[0].resets, 1);
	cr_assert_geq(stats_of(c, 0).protocol.resent, 1);
	cr_assert_eq(chp_shard_digest(c->shard[0]), chp_shard_digest(c->shard[1]));
	expect_get(c, 1, "x", "v");
	cr_assert_eq(complete(c, 1, op_of(CHP_OPCODE_PUT, "y", "v")).status, CHP_STATUS_OK);
	cluster_free(c);
}

Test(shard, a_silent_peers_link_is_reset_after_link_down)
{
	struct chp_shard_config config = config_default();
	struct cluster *c;

	config.link_down_ns = 30 * MS;
	c = cluster_of(&config);
	submit(c, 0, op_of(CHP_OPCODE_PUT, "x", "v"));
	for (uint64_t end = c->now + 40 * MS; c->now < end; c->now += MS)
		run(c, 0, (struct batch){ .n_ops = 0 });
	cr_assert_eq(stats_of(c, 0).link[1].resets, 1);
	cr_assert_eq(stats_of(c, 0).link[2].resets, 1);
	cr_assert_eq(stats_of(c, 0).open_ops, 1, "the write waits: only a view takes a member out");
	deliver(c);
	cr_assert_eq(stats_of(c, 0).open_ops, 0);
	expect_get(c, 2, "x", "v");
	cluster_free(c);
}

/* ------------------------------------------------------------------ requests that are wrong in themselves */

Test(shard, wrong_requests_have_their_own_status)
{
	struct chp_shard_config config = config_default();
	struct cluster *c;
	char big[256];
	uint32_t wrong = 0;

	config.shards = 4;
	config.key_bytes_max = 16;
	c = cluster_of(&config);
	memset(big, 'x', sizeof(big));
	big[255] = '\0';
	cr_assert_eq(submit(c, 0, op_of(CHP_OPCODE_PUT, "", "v")).status, CHP_STATUS_BAD_KEY);
	cr_assert_eq(submit(c, 0, op_of(CHP_OPCODE_PUT, "seventeen letters", "v")).status, CHP_STATUS_BAD_KEY);
	cr_assert_eq(submit(c, 0, op_of(CHP_OPCODE_PUT, "x", big)).status, CHP_STATUS_TOO_LARGE);
	cr_assert_eq(submit(c, 0, op_of(99, "x", "v")).status, CHP_STATUS_UNKNOWN_OP);
	cr_assert_eq(submit(c, 0, op_of(0, "x", "v")).status, CHP_STATUS_UNKNOWN_OP);
	for (uint32_t i = 0; i < 16; i++) {
		char key[8] = { 'k', (char)('a' + i) };
		struct chp_reply r = submit(c, 0, op_of(CHP_OPCODE_GET, key, NULL));
		uint32_t right = chp_shard_of(chp_digest_of(key, 2, config.hash_seed), 4);

		cr_assert_eq(r.status, right == 0 ? CHP_STATUS_NOT_FOUND : CHP_STATUS_WRONG_SHARD);
		if (right == 0)
			continue;
		cr_assert_eq(r.number, UINT64_C(4) << 32 | right);
		cr_assert_eq(r.version, config.hash_seed);
		wrong++;
	}
	cr_assert_gt(wrong, 0);
	cr_assert_eq(stats_of(c, 0).shard.wrong_shard, wrong);
	cr_assert_eq(stats_of(c, 0).protocol.begun, 0);
	cluster_free(c);
}

Test(shard, a_batch_of_right_and_wrong_answers_each)
{
	struct cluster *c = cluster_default();
	struct chp_op op[5] = {
		op_of(CHP_OPCODE_PUT, "", "v"),   op_of(CHP_OPCODE_GET, "x", NULL), op_of(CHP_OPCODE_PING, "", NULL),
		op_of(CHP_OPCODE_PUT, "x", "v"), op_of(CHP_OPCODE_GET, "x", NULL),
	};
	static const uint8_t status[] = { CHP_STATUS_BAD_KEY, CHP_STATUS_OK, CHP_STATUS_NOT_FOUND };

	for (uint32_t i = 0; i < 5; i++)
		op[i].request = i;
	run(c, 0, (struct batch){ .op = op, .n_ops = 5 });
	cr_assert_eq(c->n_answers, 3);
	for (uint32_t i = 0; i < 3; i++)
		cr_assert_eq(c->answer[i].reply.status, status[i]);
	cr_assert_eq(c->answer[2].reply.request, 1);
	deliver(c);
	cr_assert_eq(c->all_answers, 5, "the put, and the get that waited for it");
	cluster_free(c);
}

/* ------------------------------------------------------------------ life */

Test(shard, memory_that_runs_out_gives_an_error_and_leaks_nothing)
{
	struct chp_shard_config config = config_default();
	struct chp_shard *s = NULL;
	int err = 0, tried = 0;

	config.memory = &short_memory;
	for (; s == NULL; tried++) {
		short_memory_left = tried;
		s = chp_shard_create(&config, &err);
		if (s == NULL) {
			cr_assert_eq(err, -ENOMEM);
			cr_assert_eq(short_memory_held, 0);
		}
		cr_assert_lt(tried, 200);
	}
	cr_assert_gt(tried, 10);
	chp_shard_destroy(s);
	cr_assert_eq(short_memory_held, 0);
	chp_shard_destroy(NULL);
}

Test(shard, its_bytes_are_told_beforehand)
{
	struct chp_shard_config config = config_default();
	struct chp_shard_bytes bytes;
	struct chp_shard *s;
	int err = 0;

	chp_shard_bytes(&config, &bytes);
	cr_assert_eq(bytes.total, bytes.cache + bytes.log + bytes.sessions + bytes.links + bytes.ops);
	config.memory = &short_memory;
	s = chp_shard_create(&config, &err);
	cr_assert_not_null(s);
	cr_assert_lt(short_memory_bytes, bytes.total * 5 / 4);
	cr_assert_gt(short_memory_bytes, bytes.total / 2);
	chp_shard_destroy(s);
}

Test(shard, the_same_events_give_the_same_effects)
{
	struct cluster *a = cluster_default(), *b = cluster_default();

	for (uint32_t i = 0; i < 50; i++) {
		char key[8] = { 'k', (char)('0' + i % 7) };

		for (uint32_t k = 0; k < 2; k++) {
			struct cluster *c = k == 0 ? a : b;

			submit(c, i % NODES, op_of(i % 4 == 0 ? CHP_OPCODE_DELETE : CHP_OPCODE_PUT, key, "value"));
			if (i % 3 == 0)
				deliver(c);
		}
		cr_assert_eq(a->n, b->n);
		for (uint32_t k = 0; k < a->n; k++) {
			cr_assert_eq(a->net[k].len, b->net[k].len);
			cr_assert_arr_eq(a->net[k].data, b->net[k].data, a->net[k].len);
		}
	}
	deliver(a);
	deliver(b);
	cr_assert_eq(chp_shard_digest(a->shard[0]), chp_shard_digest(b->shard[2]));
	cluster_free(a);
	cluster_free(b);
}

Test(shard, the_log_is_compacted_as_writes_commit)
{
	struct cluster *c = cluster_default();

	for (uint32_t i = 0; i < 1000; i++) {
		char key[8] = { 'k', (char)('0' + i % 7) };

		cr_assert_eq(complete(c, i % NODES, op_of(CHP_OPCODE_PUT, key, "value")).status, CHP_STATUS_OK);
	}
	for (uint32_t n = 0; n < NODES; n++) {
		run(c, n, (struct batch){ .n_ops = 0 });
		cr_assert_eq(stats_of(c, n).log_head, stats_of(c, n).log_next);
		cr_assert_eq(stats_of(c, n).shard.log_compacted, 1000);
	}
	cluster_free(c);
}

/* ------------------------------------------------------------------ until when replies are good */

Test(shard, replies_that_tell_what_is_here_are_good_until_the_lease_ends)
{
	struct cluster *c = cluster_default();

	c->lease_until_ns = c->now + MS;
	cr_assert_eq(complete(c, 0, op_of(CHP_OPCODE_PUT, "x", "v")).status, CHP_STATUS_OK);
	run(c, 0, (struct batch){ .n_ops = 0 });
	cr_assert_eq(c->reads_until_ns, CHP_NEVER);
	cr_assert_eq(submit(c, 0, op_of(CHP_OPCODE_PING, "", NULL)).status, CHP_STATUS_OK);
	cr_assert_eq(c->reads_until_ns, CHP_NEVER);
	expect_get(c, 0, "x", "v");
	cr_assert_eq(c->reads_until_ns, c->lease_until_ns);
	expect_get(c, 0, "y", NULL);
	cr_assert_eq(c->reads_until_ns, c->lease_until_ns);
	cr_assert_eq(submit(c, 0, op_of(CHP_OPCODE_ADD, "x", "v")).status, CHP_STATUS_EXISTS);
	cr_assert_eq(c->reads_until_ns, c->lease_until_ns, "a comparison is a read");
	cr_assert_eq(submit(c, 0, op_of(CHP_OPCODE_PUT, "x", "w")).status, CHP_STATUS_COUNT);
	cr_assert_eq(c->reads_until_ns, CHP_NEVER, "of this run alone");
	c->now = c->lease_until_ns;
	cr_assert_eq(submit(c, 0, op_of(CHP_OPCODE_GET, "y", NULL)).status, CHP_STATUS_NOT_SERVING);
	cr_assert_eq(c->reads_until_ns, CHP_NEVER);
	cluster_free(c);
}

Test(shard, hermes_says_what_it_is)
{
	struct chp_shard_config config = config_default();
	struct cluster *c = cluster_without_view(&config);
	struct chp_protocol_status s;

	chp_shard_status(c->shard[2], &s);
	cr_assert_str_eq(s.role, "none");
	cr_assert_str_eq(s.waiting, "no view yet");
	c->view.voters = 3;
	c->view.learners = 4;
	for (uint32_t n = 0; n < NODES; n++)
		run(c, n, (struct batch){ .view = true });
	chp_shard_status(c->shard[2], &s);
	cr_assert_str_eq(s.role, "learner");
	cr_assert_str_eq(s.waiting, "copying keys and sessions from node 0");
	settle(c);
	chp_shard_status(c->shard[2], &s);
	cr_assert_str_eq(s.waiting, "complete, not a voter yet");
	chp_shard_status(c->shard[0], &s);
	cr_assert_str_eq(s.role, "coordinator");
	cr_assert_str_eq(s.quorum, "live");
	cr_assert_str_eq(s.waiting, "");
	cr_assert_eq(s.leader, CHP_NODES_MAX);
	cr_assert_eq(s.epoch, 1);
	cr_assert_eq(chp_shard_epoch(c->shard[0]), 1);
	cr_assert_eq(chp_shard_view_epoch(c->shard[0]), 1);
	cluster_free(c);
}

Test(shard, hermes_hands_out_numbers)
{
	struct chp_shard_config config = config_default();
	struct cluster *c;
	struct chp_op incr = op_of(CHP_OPCODE_INCR, "s", NULL);
	struct chp_reply r;

	config.application = &chp_sequencer;
	c = cluster_of(&config);
	incr.arg = 5;
	r = complete(c, 0, incr);
	cr_assert(r.status == CHP_STATUS_OK && r.number == 0);
	r = complete(c, 1, incr);
	cr_assert(r.status == CHP_STATUS_OK && r.number == 5);
	expect_get(c, 2, "s", "10");
	cr_assert_eq(complete(c, 0, op_of(CHP_OPCODE_PUT, "s", "0")).status, CHP_STATUS_UNKNOWN_OP);
	cr_assert_eq(complete(c, 2, op_of(CHP_OPCODE_DELETE, "s", NULL)).status, CHP_STATUS_OK);
	r = complete(c, 2, incr);
	cr_assert(r.status == CHP_STATUS_OK && r.number == 0, "a new sequence");
	cluster_free(c);
}

/* ------------------------------------------------------------------ a protocol that views do not fence */

/* Says what it is told to say, and remembers what the core asked of it. */
struct puppet {
	struct chp_protocol_env env;
	enum chp_status admits, answers;
	uint64_t number; /* with both */
	uint64_t epoch, sessions;
	bool is_home, decides;
	uint32_t asked, received;
	struct chp_op last;
	uint32_t submitted;
	char heard[64];
};

static void *
puppet_create(const struct chp_protocol_env *env)
{
	struct puppet *p = env->memory->zalloc(sizeof(*p));

	cr_assert_not_null(p);
	p->env = *env;
	return p;
}

static void
puppet_destroy(void *p)
{
	((struct puppet *)p)->env.memory->free(p);
}

static bool
puppet_accepts(const struct chp_message *m, uint32_t value_bytes_max)
{
	(void)value_bytes_max;
	return m->len == sizeof(*m);
}

static bool
puppet_key_of(const struct chp_message *m, struct chp_key *key)
{
	(void)m;
	(void)key;
	return false;
}

static void
puppet_step(void *p, const struct chp_now *now, const struct chp_peer_message *m, uint32_t n, struct chp_out *out)
{
	(void)now;
	(void)m;
	(void)out;
	((struct puppet *)p)->received += n;
}

static enum chp_status
puppet_admit(void *instance, const struct chp_now *now, const struct chp_op *op, uint64_t *number)
{
	struct puppet *p = instance;

	(void)now;
	p->asked += op->origin.frontend != UINT32_MAX; /* the core asks for itself, too */
	*number = p->number;
	return p->admits;
}

static void
puppet_write(struct puppet *p, const struct chp_op *op)
{
	struct chp_log_entry e = { .version = p->env.log->next };

	chp_log_commit(p->env.log, chp_log_append(p->env.log, &e, NULL, NULL, CHP_LOG_NONE, false));
	if (p->decides)
		chp_session_done(p->env.sessions, op->session, op->request, CHP_STATUS_NOT_FOUND, 70, 71);
}

static void
puppet_submit(void *instance, const struct chp_now *now, const struct chp_op *op, uint32_t n, struct chp_out *out)
{
	struct puppet *p = instance;

	(void)now;
	for (uint32_t i = 0; i < n; i++) {
		struct chp_reply r = { .origin = &op[i].origin,
				       .session = op[i].session,
				       .request = op[i].request,
				       .number = p->number,
				       .opcode = op[i].opcode,
				       .status = (uint8_t)p->answers };

		p->submitted++;
		p->last = op[i];
		if (op[i].opcode == CHP_OPCODE_PUT)
			puppet_write(p, &op[i]);
		if (op[i].opcode == CHP_OPCODE_SESSION_OPEN && p->answers == CHP_STATUS_OK) {
			memcpy(&r.number, op[i].key.bytes, sizeof(r.number));
			chp_session_open(p->env.sessions, r.number);
		}
		if (op[i].opcode == CHP_OPCODE_SESSION_CLOSE)
			chp_session_close(p->env.sessions, p->sessions);
		for (uint32_t peer = 0; peer < p->env.n_nodes; peer++)
			if (peer != p->env.self)
				*(struct chp_message *)chp_send(out, peer, sizeof(struct chp_message)) =
					(struct chp_message){ .type = 1, .len = sizeof(struct chp_message) };
		out->reply(out, &r);
	}
}

static bool
puppet_wake(void *p, const struct chp_now *now, struct chp_out *out)
{
	(void)p;
	(void)now;
	(void)out;
	return false;
}

static void
puppet_tick(void *p, const struct chp_now *now, struct chp_out *out)
{
	(void)puppet_wake(p, now, out);
}

static void
hear(struct puppet *p, const char *what, uint64_t of)
{
	const size_t used = strlen(p->heard);

	snprintf(p->heard + used, sizeof(p->heard) - used, "%s%llu ", what, (unsigned long long)of);
}

static void
puppet_view(void *p, const struct chp_now *now, const struct chp_view *v, struct chp_out *out)
{
	(void)now;
	(void)out;
	hear(p, "view", v->epoch);
}

static void
puppet_link_down(void *p, const struct chp_now *now, uint32_t peer, struct chp_out *out)
{
	(void)now;
	(void)out;
	hear(p, "down", peer);
}

static void
puppet_link_up(void *p, const struct chp_now *now, uint32_t peer, struct chp_out *out)
{
	(void)now;
	*(struct chp_message *)chp_send(out, peer, sizeof(struct chp_message)) =
		(struct chp_message){ .type = 1, .len = sizeof(struct chp_message) };
	hear(p, "up", peer);
}

static uint64_t
puppet_new_session(void *p)
{
	return ++((struct puppet *)p)->sessions;
}

static bool
puppet_is_home(const void *p, uint64_t session)
{
	(void)session;
	return ((const struct puppet *)p)->is_home;
}

static uint64_t
puppet_epoch(const void *p)
{
	return ((const struct puppet *)p)->epoch;
}

static void
puppet_status(const void *p, struct chp_protocol_status *out)
{
	*out = (struct chp_protocol_status){ .role = "puppet", .epoch = ((const struct puppet *)p)->epoch };
}

static bool
puppet_copy_done(const void *p)
{
	(void)p;
	return true;
}

static void
puppet_copy_progress(const void *p, struct chp_copy_progress *out)
{
	(void)p;
	*out = (struct chp_copy_progress){ .done = true };
}

static uint32_t
puppet_open_ops(const void *p)
{
	(void)p;
	return 0;
}

static void
puppet_check(const void *p)
{
	cr_assert_not_null(p);
}

static void
puppet_dump(const void *p, const struct chp_key *key, struct chp_text *t)
{
	(void)p;
	(void)key;
	chp_text_add(t, "puppet");
}

static const struct chp_protocol puppet = {
	.name = "puppet",
	.keeps_log = true,
	.create = puppet_create,
	.destroy = puppet_destroy,
	.accepts = puppet_accepts,
	.key_of = puppet_key_of,
	.step = puppet_step,
	.admit = puppet_admit,
	.submit = puppet_submit,
	.wake = puppet_wake,
	.tick = puppet_tick,
	.view = puppet_view,
	.link_down = puppet_link_down,
	.link_up = puppet_link_up,
	.new_session = puppet_new_session,
	.is_home = puppet_is_home,
	.epoch = puppet_epoch,
	.status = puppet_status,
	.copy_done = puppet_copy_done,
	.copy_progress = puppet_copy_progress,
	.open_ops = puppet_open_ops,
	.check = puppet_check,
	.dump = puppet_dump,
};

static struct puppet *
puppet_of(const struct cluster *c, uint32_t n)
{
	return (struct puppet *)(uintptr_t)chp_shard_instance(c->shard[n]);
}

static struct cluster *
cluster_of_puppets(void)
{
	struct chp_shard_config config = config_default();

	config.protocol = &puppet;
	config.application = &chp_sequencer;
	config.election_ns = 5 * MS;
	config.leader_lease_ns = 3 * MS;
	config.clock_drift_ppm = 17;
	return cluster_of(&config);
}

Test(admission, the_instance_gets_what_it_works_with)
{
	struct cluster *c = cluster_of_puppets();
	const struct puppet *p = puppet_of(c, 1);
	struct chp_protocol_status s;
	struct chp_commit_times times;

	cr_assert_eq(p->env.application, &chp_sequencer);
	cr_assert(p->env.election_ns == 5 * MS && p->env.leader_lease_ns == 3 * MS && p->env.clock_drift_ppm == 17);
	cr_assert(p->env.self == 1 && p->env.shard == 0 && p->env.n_nodes == NODES);
	p->env.zab_counters->elections = 4;
	cr_assert_eq(stats_of(c, 1).zab.elections, 4);
	for (uint64_t ns = 1; ns <= 100; ns++)
		chp_histogram_record(p->env.commit_ns, ns);
	chp_shard_commit_times(c->shard[1], &times);
	cr_assert(times.n == 100 && times.p1_ns == 1 && times.p50_ns == 50);
	cr_assert(times.p99_ns == 99 && times.max_ns == 100);
	chp_shard_status(c->shard[1], &s);
	cr_assert_str_eq(s.role, "puppet");
	cluster_free(c);
}

Test(admission, who_is_not_admitted_is_answered_by_the_core)
{
	static const uint8_t opcode[] = { CHP_OPCODE_GET, CHP_OPCODE_PUT, CHP_OPCODE_PING, CHP_OPCODE_QUORUM,
					  CHP_OPCODE_SESSION_OPEN };
	static const enum chp_status status[] = { CHP_STATUS_NOT_SERVING, CHP_STATUS_REDIRECT, CHP_STATUS_OVERLOAD,
						  CHP_STATUS_UNKNOWN_OP };
	struct cluster *c = cluster_of_puppets();
	struct puppet *p = puppet_of(c, 0);
	struct chp_shard_stats stats;

	p->number = 2;
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(opcode); i++) {
		const char *key = opcode[i] <= CHP_OPCODE_PUT ? "x" : "";

		for (uint32_t j = 0; j < CHP_ARRAY_LEN(status); j++) {
			struct chp_reply r;

			p->admits = status[j];
			r = submit(c, 0, op_of(opcode[i], key, NULL));
			cr_assert_eq(r.status, status[j]);
			cr_assert_eq(r.number, status[j] == CHP_STATUS_REDIRECT ? 2 : 0);
		}
	}
	cr_assert_eq(p->submitted, 0);
	cr_assert_eq(p->sessions, 0, "no number is used for what is refused");
	stats = stats_of(c, 0);
	cr_assert(stats.shard.not_serving == 5 && stats.shard.redirected == 5 && stats.shard.home_not_ready == 5);
	cluster_free(c);
}

Test(admission, a_request_that_is_wrong_in_itself_is_refused_first)
{
	struct cluster *c = cluster_of_puppets();
	struct puppet *p = puppet_of(c, 0);

	p->admits = CHP_STATUS_NOT_SERVING;
	cr_assert_eq(submit(c, 0, op_of(CHP_OPCODE_GET, "", NULL)).status, CHP_STATUS_BAD_KEY);
	cr_assert_eq(submit(c, 0, op_of(99, "x", NULL)).status, CHP_STATUS_UNKNOWN_OP);
	cr_assert_eq(submit(c, 0, op_of(0, "x", NULL)).status, CHP_STATUS_UNKNOWN_OP);
	cr_assert_eq(p->asked, 0);
	cluster_free(c);
}

Test(admission, the_quorum_operation_has_no_key_and_needs_no_session)
{
	struct cluster *c = cluster_of_puppets();
	struct puppet *p = puppet_of(c, 0);
	struct chp_op op[3] = { op_of(CHP_OPCODE_GET, "x", NULL), op_in_session(CHP_OPCODE_QUORUM, "", NULL, 77, 3),
				op_of(CHP_OPCODE_PUT, "x", "v") };

	op[1].arg = 1;
	p->number = 1;
	run(c, 0, (struct batch){ .op = op, .n_ops = 3 });
	cr_assert_eq(c->n_answers, 3);
	cr_assert_eq(c->answer[1].reply.opcode, CHP_OPCODE_QUORUM);
	cr_assert_eq(c->answer[1].reply.status, CHP_STATUS_OK);
	cr_assert_eq(c->answer[1].reply.number, 1);
	cr_assert_eq(submit(c, 0, op[1]).status, CHP_STATUS_OK);
	cr_assert(p->last.opcode == CHP_OPCODE_QUORUM && p->last.key.len == 0 && p->last.arg == 1);
	cluster_free(c);
}

Test(admission, a_record_is_looked_at_behind_it)
{
	struct cluster *c = cluster_of_puppets();
	struct puppet *p = puppet_of(c, 0);
	const uint64_t session = open_session(c, 0);
	const struct chp_op put = op_in_session(CHP_OPCODE_PUT, "x", "v", session, 1);

	cr_assert_eq(session, 1);
	cr_assert_eq(submit(c, 0, put).status, CHP_STATUS_OK);
	p->admits = CHP_STATUS_REDIRECT;
	cr_assert_eq(submit(c, 0, put).status, CHP_STATUS_REDIRECT);
	p->admits = CHP_STATUS_OK;
	cr_assert_eq(submit(c, 0, put).status, CHP_STATUS_OK);
	cr_assert_eq(p->submitted, 2, "open and one put");
	cr_assert_eq(stats_of(c, 0).shard.retry_replayed, 1);
	cr_assert_eq(submit(c, 0, op_in_session(CHP_OPCODE_PUT, "x", "v", 99, 1)).status, CHP_STATUS_SESSION_UNKNOWN);
	cluster_free(c);
}

Test(admission, what_a_log_decided_is_not_taken_back)
{
	struct cluster *c = cluster_of_puppets();
	struct puppet *p = puppet_of(c, 0);
	const uint64_t session = open_session(c, 0);
	struct chp_op put = op_in_session(CHP_OPCODE_PUT, "x", "v", session, 1);
	struct chp_reply r;

	p->answers = CHP_STATUS_REDIRECT;
	cr_assert_eq(submit(c, 0, put).status, CHP_STATUS_REDIRECT);
	cr_assert_eq(submit(c, 0, put).status, CHP_STATUS_REDIRECT, "it is tried again");
	cr_assert_eq(p->submitted, 3);
	p->decides = true;
	cr_assert_eq(submit(c, 0, put).status, CHP_STATUS_REDIRECT);
	r = submit(c, 0, put);
	cr_assert(r.status == CHP_STATUS_NOT_FOUND && r.version == 70 && r.number == 71);
	cr_assert_eq(p->submitted, 4);
	cluster_free(c);
}

Test(admission, a_refused_open_is_tried_again)
{
	struct cluster *c = cluster_of_puppets();
	struct puppet *p = puppet_of(c, 0);
	struct chp_op open = op_of(CHP_OPCODE_SESSION_OPEN, "", NULL);
	struct chp_reply r;

	open.arg = 12345;
	open.request = 7;
	p->answers = CHP_STATUS_REDIRECT;
	p->number = 2;
	cr_assert_eq(submit(c, 0, open).status, CHP_STATUS_REDIRECT);
	cr_assert_eq(submit(c, 0, open).status, CHP_STATUS_REDIRECT);
	p->answers = CHP_STATUS_OK;
	r = submit(c, 0, open);
	cr_assert_eq(r.status, CHP_STATUS_OK);
	cr_assert_eq(r.number, 3, "each try has a number of its own");
	r = submit(c, 0, open);
	cr_assert_eq(r.number, 3);
	cr_assert_eq(p->submitted, 3, "the last was a retry");
	cluster_free(c);
}

Test(admission, idle_sessions_are_closed_where_the_protocol_says)
{
	struct cluster *c = cluster_of_puppets();
	struct puppet *p = puppet_of(c, 0);
	const uint64_t idle = c->config.session_idle_ns, session = open_session(c, 0);

	cr_assert_eq(session, 1);
	c->now += 2 * idle;
	run(c, 0, (struct batch){ .n_ops = 0 });
	cr_assert_eq(stats_of(c, 0).sessions, 1, "it is not its home");
	p->is_home = true;
	p->epoch++;
	c->now += idle;
	run(c, 0, (struct batch){ .n_ops = 0 });
	cr_assert_eq(stats_of(c, 0).sessions, 1, "nobody knows how long it was idle elsewhere");
	c->now += idle;
	p->admits = CHP_STATUS_NOT_SERVING;
	run(c, 0, (struct batch){ .n_ops = 0 });
	cr_assert_eq(stats_of(c, 0).sessions, 1, "it could not close it now");
	c->now += idle / 2;
	p->admits = CHP_STATUS_OK;
	run(c, 0, (struct batch){ .n_ops = 0 });
	cr_assert_eq(stats_of(c, 0).sessions, 0);
	cr_assert_eq(stats_of(c, 0).shard.sessions_expired, 1);
	cluster_free(c);
}

Test(unfenced, a_view_leaves_links_alone)
{
	struct cluster *c = cluster_of_puppets();
	struct packet p;

	for (uint32_t n = 0; n < NODES; n++)
		puppet_of(c, n)->received = 0;
	submit(c, 0, op_of(CHP_OPCODE_PUT, "x", "v"));
	c->view.epoch = 2;
	c->view.writer[2] = 9; /* nothing that a link knows */
	run(c, 1, (struct batch){ .view = true });
	cr_assert(take_packet(c, 0, 1, &p));
	cr_assert_eq(((struct chp_peer_header *)(void *)p.data)->epoch, 0);
	run(c, 1, (struct batch){ .packet = &p });
	cr_assert_eq(puppet_of(c, 1)->received, 1, "sent in the view before");
	submit(c, 1, op_of(CHP_OPCODE_PUT, "x", "v"));
	deliver_from_to(c, 1, 0);
	cr_assert_eq(puppet_of(c, 0)->received, 1, "sent in a view that is not here yet");
	cr_assert_eq(chp_shard_view_epoch(c->shard[0]), 1);
	cr_assert_eq(chp_shard_view_epoch(c->shard[1]), 2);
	cr_assert_str_eq(puppet_of(c, 1)->heard, "view1 up0 up2 view2 ");
	deliver(c);
	for (uint32_t peer = 0; peer < NODES; peer += 2) {
		cr_assert_eq(stats_of(c, 1).link[peer].old_epoch, 0);
		cr_assert_eq(stats_of(c, 1).link[peer].new_epoch_held, 0);
	}
	cluster_free(c);
}

Test(unfenced, a_new_incarnation_gets_a_new_link)
{
	struct cluster *c = cluster_of_puppets();
	struct chp_shard_config config = c->config;
	int err = 0;

	chp_shard_destroy(c->shard[2]);
	config.self = 2;
	c->shard[2] = chp_shard_create(&config, &err);
	cr_assert_not_null(c->shard[2]);
	submit(c, 0, op_of(CHP_OPCODE_PUT, "x", "v")); /* of this node 2 hears nothing */
	c->view.epoch = 2;
	c->view.incarnation[2] = 0x999;
	for (uint32_t n = 0; n < NODES; n++)
		run(c, n, (struct batch){ .view = true });
	cr_assert_str_eq(puppet_of(c, 0)->heard, "view1 up1 up2 down2 view2 up2 ");
	cr_assert_str_eq(puppet_of(c, 2)->heard, "view2 up0 up1 ");
	deliver(c);
	settle(c);
	cr_assert_eq(puppet_of(c, 2)->received, 2, "what was sent from link_up on, once");
	cr_assert_eq(stats_of(c, 0).link_state[2].up, 1);
	cluster_free(c);
}

Test(unfenced, a_member_that_leaves_has_no_link)
{
	struct cluster *c = cluster_of_puppets();

	c->view.epoch = 2;
	c->view.voters = 3;
	c->view.incarnation[2] = 0;
	run(c, 0, (struct batch){ .view = true });
	cr_assert_str_eq(puppet_of(c, 0)->heard, "view1 up1 up2 down2 view2 ");
	submit(c, 0, op_of(CHP_OPCODE_PUT, "x", "v"));
	cr_assert_eq(stats_of(c, 0).link_state[2].queued, 0);
	cr_assert_gt(stats_of(c, 0).link_state[1].in_flight, 0);
	cr_assert(chp_shard_is_idle(c->shard[0]), "it does not wait for silent peers");
	cluster_free(c);
}

Test(unfenced, a_log_that_is_kept_leaves_room)
{
	struct cluster *c = cluster_of_puppets();
	struct chp_shard_stats stats;

	for (uint32_t i = 0; i < 3 * c->config.log_entries; i++) {
		cr_assert_eq(submit(c, 0, op_of(CHP_OPCODE_PUT, "x", "v")).status, CHP_STATUS_OK);
		deliver(c);
	}
	stats = stats_of(c, 0);
	cr_assert_eq(stats.log_next - stats.log_head, c->config.log_entries / 2);
	for (uint32_t peer = 1; peer < NODES; peer++)
		cr_assert_eq(stats_of(c, peer).link_state[0].credits, c->config.credits, "credits are granted");
	cr_assert(chp_shard_is_idle(c->shard[0]), "what is settled is no work");
	cluster_free(c);
}
