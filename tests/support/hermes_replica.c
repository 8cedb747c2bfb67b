/* SPDX-License-Identifier: BSD-3-Clause */
#include "hermes_replica.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ a replica without a core */

static void
no_next_packet(struct chp_out *out, uint32_t peer, uint32_t bytes)
{
	(void)out;
	cr_assert_fail("%u bytes more than a lane has room for, to %u", bytes, peer);
}

static uint8_t *
take_reply(struct chp_out *out, const struct chp_reply *reply)
{
	struct replica *r = (struct replica *)out;
	struct answer *a = &r->answer[r->n_answers++];

	cr_assert_gt(out->replies_left, 0);
	out->replies_left--;
	a->reply = *reply;
	return a->value;
}

void
begin_call(struct replica *r, uint32_t replies)
{
	for (uint32_t n = 0; n < NODES; n++) {
		r->out.lane[n].at = r->lane[n];
		r->out.lane[n].end = r->lane[n] + LANE_BYTES;
		r->out.lane[n].begun = 0;
	}
	r->out.replies_left = replies;
	r->out.wake_ns = CHP_NEVER;
	r->n_sent = r->n_answers = 0;
}

void
end_call(struct replica *r)
{
	for (uint32_t n = 0; n < NODES; n++) {
		for (const uint8_t *at = r->lane[n]; at < r->out.lane[n].at;) {
			const struct chp_message *m = (const void *)at;
			struct sent *s = &r->sent[r->n_sent];

			cr_assert(chp_hermes.accepts(m, VALUE_MAX));
			cr_assert_eq(m->len % CHP_MESSAGE_ALIGN, 0);
			at += m->len;
			if (m->type == CHP_HERMES_FLOOR && !r->keeps_floors)
				continue;
			memcpy(s->bytes, m, m->len);
			s->to = n;
			r->n_sent++;
			cr_assert_lt(r->n_sent, CHP_ARRAY_LEN(r->sent));
		}
	}
	chp_hermes.check(r->p);
	chp_cache_check(r->env.cache);
	chp_log_check(&r->log);
}

void
wake(struct replica *r, uint32_t replies)
{
	begin_call(r, replies);
	chp_hermes.wake(r->p, &r->now, &r->out);
	end_call(r);
}

void
enter_view(struct replica *r, uint64_t voters, uint64_t learners)
{
	r->view.epoch++;
	r->view.voters = voters;
	r->view.learners = learners;
	begin_call(r, CHP_BATCH_MAX);
	chp_hermes.view(r->p, &r->now, &r->view, &r->out);
	end_call(r);
}

void
step(struct replica *r, uint32_t from, const void *message)
{
	struct chp_peer_message m = { .message = message, .from = (uint8_t)from };

	cr_assert(chp_hermes.accepts(message, VALUE_MAX));
	if (chp_hermes.key_of(message, &m.key)) {
		m.key.pos = -1;
		m.key.digest = chp_cache_digest(r->env.cache, m.key.bytes, m.key.len, m.key.session);
	}
	begin_call(r, CHP_BATCH_MAX);
	chp_hermes.step(r->p, &r->now, &m, 1, &r->out);
	end_call(r);
	cr_assert_leq(r->n_answers, 1, "a message makes at most one reply at once");
}

void
floor_from(struct replica *r, uint32_t from, uint64_t counter)
{
	struct chp_hermes_floor m = { .message = { .type = CHP_HERMES_FLOOR, .len = sizeof(m), .op = CHP_OP_NONE },
				      .counter = counter };

	step(r, from, &m);
}

/* Everything but the view. */
static void
create_parts(struct replica *r, const struct replica_setup *setup)
{
	const struct chp_cache_config cache = { .name = "hermes",
						.keys_max = setup->keys_max,
						.value_blocks_max = setup->value_blocks_max,
						.headroom = NODES * CREDITS,
						.seed = SEED,
						.memory = &chp_memory_libc };
	int err = 0;

	r->env = (struct chp_protocol_env){ .cache = chp_cache_create(&cache, &err),
					    .log = &r->log,
					    .sessions = &r->sessions,
					    .backing = setup->backing == NULL ? &r->no_backing : setup->backing,
					    .counters = &r->counters,
					    .memory = &chp_memory_libc,
					    .self = setup->self,
					    .n_nodes = NODES,
					    .ops = 32,
					    .copy_counters = &r->copy_counters,
					    .copy_bytes = 4096,
					    .application = &chp_store,
					    .credits = CREDITS,
					    .keys_max = setup->keys_max,
					    .loads_max = setup->loads_max,
					    .value_bytes_max = VALUE_MAX };
	cr_assert_not_null(r->env.cache);
	cr_assert_eq(chp_log_init(&r->log, 256, 1000, setup->backing == NULL, &chp_memory_libc), 0);
	cr_assert_eq(chp_sessions_init(&r->sessions, 16, 4, &chp_memory_libc), 0);
	r->p = chp_hermes.create(&r->env);
	cr_assert_not_null(r->p);
	r->out.next_packet = no_next_packet;
	r->out.reply = take_reply;
	r->now = (struct chp_now){ .ns = 1000, .lease_until_ns = CHP_NEVER };
	for (uint32_t n = 0; n < NODES; n++) {
		r->view.incarnation[n] = 100 + n;
		r->view.writer[n] = (uint16_t)(n + 1);
		r->out.lane[n].credits = 1000;
	}
}

struct replica *
replica_of(const struct replica_setup *setup)
{
	struct replica *r = calloc(1, sizeof(*r));

	cr_assert_not_null(r);
	create_parts(r, setup);
	return r;
}

struct replica *
replica_new(void)
{
	const struct replica_setup setup = { .self = SELF, .keys_max = KEYS, .value_blocks_max = 200 };
	struct replica *r = replica_of(&setup);

	enter_view(r, 7, 0);
	floor_from(r, 1, 0);
	floor_from(r, 2, 0);
	return r;
}

void
replica_free(struct replica *r)
{
	chp_hermes.destroy(r->p);
	chp_sessions_fini(&r->sessions, &chp_memory_libc);
	chp_log_fini(&r->log, &chp_memory_libc);
	chp_cache_destroy(r->env.cache);
	free(r);
}

/* ------------------------------------------------------------------ what goes in */

uint64_t
v(uint64_t counter, uint32_t writer)
{
	return chp_version_make(counter, (uint16_t)writer);
}

struct chp_op
op_of(struct replica *r, uint8_t opcode, const char *key, const char *value)
{
	struct chp_op op = { .opcode = opcode,
			     .key = { .bytes = (const uint8_t *)key, .len = (uint32_t)strlen(key), .pos = -1 },
			     .value = (const uint8_t *)value,
			     .value_len = value == NULL ? 0 : (uint32_t)strlen(value) };

	op.key.digest = chp_cache_digest(r->env.cache, op.key.bytes, op.key.len, false);
	return op;
}

void
submit_op(struct replica *r, struct chp_op op)
{
	begin_call(r, CHP_BATCH_MAX);
	chp_hermes.submit(r->p, &r->now, &op, 1, &r->out);
	end_call(r);
	cr_assert_leq(r->n_answers, 1);
}

void
submit(struct replica *r, uint8_t opcode, const char *key, const char *value)
{
	submit_op(r, op_of(r, opcode, key, value));
}

struct sent
inv_of(const char *key, uint64_t version, uint64_t base, uint8_t flags, const char *value, uint32_t op)
{
	struct sent s = { .inv = { .message = { .type = CHP_HERMES_INV, .op = op },
				   .generation = 70 + op,
				   .key_len = (uint8_t)strlen(key),
				   .inv_flags = flags,
				   .version = version,
				   .base = base,
				   .value_total = (uint32_t)strlen(value) } };

	s.inv.message.len = (uint16_t)chp_hermes_inv_bytes(s.inv.key_len, s.inv.value_total);
	memcpy(s.bytes + sizeof(s.inv), key, s.inv.key_len);
	memcpy(s.bytes + sizeof(s.inv) + s.inv.key_len, value, s.inv.value_total);
	return s;
}

void
inv(struct replica *r, uint32_t from, const char *key, uint64_t version, uint64_t base, uint8_t flags,
    const char *value)
{
	struct sent s = inv_of(key, version, base, flags, value, 3);

	step(r, from, &s.inv);
}

void
val(struct replica *r, uint32_t from, uint64_t version)
{
	struct chp_hermes_val m = { .message = { .type = CHP_HERMES_VAL, .len = sizeof(m), .op = 3 },
				    .generation = 73,
				    .version = version };

	step(r, from, &m);
}

void
ack(struct replica *r, uint32_t from, const struct chp_hermes_inv *of)
{
	struct chp_hermes_ack m = { .message = { .type = CHP_HERMES_ACK, .len = sizeof(m), .op = of->message.op },
				    .generation = of->generation,
				    .version = of->version };

	step(r, from, &m);
}

void
copy_item(struct replica *r, uint32_t transfer, const char *key, uint64_t version, const char *value)
{
	struct {
		struct chp_copy_item item;
		uint8_t bytes[512];
	} m = { .item = { .message = { .type = CHP_COPY_ITEM, .op = transfer },
			  .version = version,
			  .key_len = (uint8_t)strlen(key),
			  .item_flags = CHP_COPY_BASE_UNKNOWN,
			  .value_total = (uint32_t)strlen(value) } };

	m.item.message.len = (uint16_t)chp_copy_item_bytes(m.item.key_len, m.item.value_total);
	memcpy(m.bytes, key, m.item.key_len);
	memcpy(m.bytes + m.item.key_len, value, m.item.value_total);
	r->items++;
	r->digest += chp_hash64(&m, m.item.message.len, 0);
	step(r, 1, &m);
}

void
copy_end(struct replica *r, uint32_t transfer)
{
	struct chp_copy_end m = { .message = { .type = CHP_COPY_END, .len = sizeof(m), .op = transfer },
				  .next = 1,
				  .items = r->items,
				  .end_flags = CHP_COPY_DONE,
				  .digest = r->digest,
				  .total = 1 };

	step(r, 1, &m);
	cr_assert_eq(r->copy_counters.chunks_bad, 0);
}

uint32_t
transfer_asked(const struct replica *r)
{
	for (uint32_t i = 0; i < r->n_sent; i++)
		if (r->sent[i].message.type == CHP_COPY_REQUEST)
			return r->sent[i].message.op;
	cr_assert_fail("no REQUEST");
	return 0;
}

void
put_valid(struct replica *r, const char *key, const char *value)
{
	struct chp_hermes_inv m;

	submit(r, CHP_OPCODE_PUT, key, value);
	cr_assert_eq(r->n_sent, 2);
	m = r->sent[0].inv;
	ack(r, 1, &m);
	ack(r, 2, &m);
	cr_assert_eq(r->n_answers, 1);
	cr_assert_eq(r->answer[0].reply.status, CHP_STATUS_OK);
}

/* ------------------------------------------------------------------ what comes out */

void
expect_state(struct replica *r, const char *key, const char *expected)
{
	char text[128];
	struct chp_text t = chp_text_of(text, sizeof(text));
	struct chp_op op = op_of(r, CHP_OPCODE_GET, key, NULL);

	chp_hermes.dump(r->p, &op.key, &t);
	cr_assert_str_eq(text, expected);
}

void
expect_value(struct replica *r, const char *key, const char *value)
{
	submit(r, CHP_OPCODE_GET, key, NULL);
	cr_assert_eq(r->n_answers, 1);
	cr_assert_eq(r->answer[0].reply.status, value == NULL ? CHP_STATUS_NOT_FOUND : CHP_STATUS_OK);
	if (value != NULL) {
		cr_assert_eq(r->answer[0].reply.value_len, strlen(value));
		cr_assert_arr_eq(r->answer[0].value, value, strlen(value));
	}
}

void
expect_answer(struct replica *r, uint32_t i, uint8_t opcode, uint8_t status, uint64_t version)
{
	cr_assert_lt(i, r->n_answers);
	cr_assert_eq(r->answer[i].reply.opcode, opcode);
	cr_assert_eq(r->answer[i].reply.status, status);
	cr_assert_eq(r->answer[i].reply.version, version);
}

void
expect_inv(struct replica *r, uint32_t i, uint32_t to, uint64_t version, uint64_t base, uint8_t flags,
	   const char *value)
{
	const struct chp_hermes_inv *m = &r->sent[i].inv;

	cr_assert_lt(i, r->n_sent);
	cr_assert_eq(m->message.type, CHP_HERMES_INV);
	cr_assert_eq(r->sent[i].to, to);
	cr_assert_eq(m->version, version);
	cr_assert_eq(m->base, base);
	cr_assert_eq(m->inv_flags, flags);
	cr_assert_eq(m->value_total, strlen(value));
	cr_assert_arr_eq(chp_hermes_inv_value(m), value, strlen(value));
}

void
expect_ack(struct replica *r, uint32_t to, uint64_t version)
{
	cr_assert_eq(r->n_sent, 1);
	cr_assert_eq(r->sent[0].message.type, CHP_HERMES_ACK);
	cr_assert_eq(r->sent[0].to, to);
	cr_assert_eq(r->sent[0].ack.version, version);
	cr_assert_eq(r->sent[0].message.op, 3);
	cr_assert_eq(r->sent[0].ack.generation, 73);
}

void
expect_val(struct replica *r, uint32_t i, uint32_t to, uint64_t version)
{
	cr_assert_lt(i, r->n_sent);
	cr_assert_eq(r->sent[i].message.type, CHP_HERMES_VAL);
	cr_assert_eq(r->sent[i].to, to);
	cr_assert_eq(r->sent[i].val.version, version);
}
