/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Hermes with a datastore behind its cache, at a single replica: eviction, loads, parked INVs, and level `datastore`.
 * The store is the test: it says when it answers, and what. Tests are named after the rules of SAFETY 1-5 and 33.
 */
#include "../support/hermes_replica.h"
#include "../support/twin.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOADS_MAX 8u
/* What the store held when its life began: every key that is not in the cache may have a version up to this. */
#define NEWEST 100u

struct store {
	struct chp_backing backing; /* first: the protocol's calls come back with it */
	struct {
		bool is_open;
		char key[CHP_KEY_BYTES_MAX + 1];
	} load[LOADS_MAX];
	uint32_t loads_max;
	uint32_t n_asked;
};

struct backed {
	struct store store;
	struct replica *r;
};

/* ------------------------------------------------------------------ a store */

static bool
ask_load(struct chp_backing *backing, const struct chp_key *key, uint32_t *token)
{
	struct store *s = (struct store *)backing;

	for (uint32_t i = 0; i < s->loads_max; i++) {
		if (s->load[i].is_open)
			continue;
		s->load[i].is_open = true;
		memcpy(s->load[i].key, key->bytes, key->len);
		s->load[i].key[key->len] = '\0';
		s->n_asked++;
		*token = i;
		return true;
	}
	return false;
}

/* As the core does: what a host that is away was asked for is not asked any more, another one may still answer. */
static void
drop_load(struct chp_backing *backing, uint32_t token)
{
	struct store *s = (struct store *)backing;

	cr_assert(s->load[token].is_open);
	if (!backing->is_ready)
		s->load[token].is_open = false;
}

static bool
ask_scan(struct chp_backing *backing, uint32_t scan, bool from_start, bool only_old, uint32_t bytes)
{
	(void)backing, (void)scan, (void)from_start, (void)only_old, (void)bytes;
	return false;
}

static bool
is_asked(const struct backed *b, const char *key)
{
	for (uint32_t i = 0; i < LOADS_MAX; i++)
		if (b->store.load[i].is_open && strcmp(b->store.load[i].key, key) == 0)
			return true;
	return false;
}

/* The answer to the open load of a key. */
static void
loaded(struct backed *b, const char *key, struct chp_loaded l)
{
	struct replica *r = b->r;

	cr_assert(is_asked(b, key), "nobody asks for %s", key);
	while (!b->store.load[l.token].is_open || strcmp(b->store.load[l.token].key, key) != 0)
		l.token++;
	b->store.load[l.token].is_open = false;
	begin_call(r, CHP_BATCH_MAX);
	chp_hermes.loaded(r->p, &r->now, &l, 1, &r->out);
	end_call(r);
	cr_assert_eq(r->n_answers, 0, "who waited is answered from wake()");
}

static void
found(struct backed *b, const char *key, uint64_t version, const char *value)
{
	loaded(b, key,
	       (struct chp_loaded){ .status = CHP_LOAD_FOUND,
				    .version = version,
				    .value = (const uint8_t *)value,
				    .value_len = (uint32_t)strlen(value) });
}

static void
not_found(struct backed *b, const char *key)
{
	loaded(b, key, (struct chp_loaded){ .status = CHP_LOAD_ABSENT });
}

static void
failed(struct backed *b, const char *key)
{
	loaded(b, key, (struct chp_loaded){ .status = CHP_LOAD_FAILED });
}

/* All that the log has is durable, and level `datastore` hears of it. */
static void
save(struct backed *b)
{
	chp_log_set_mark(&b->r->log, b->r->log.next);
	b->store.backing.durable = b->r->log.mark;
}

/* ------------------------------------------------------------------ a replica with a store */

static struct backed *
backed_created(uint32_t keys_max)
{
	struct backed *b = calloc(1, sizeof(*b));
	const struct replica_setup setup = { .self = SELF,
					     .keys_max = keys_max,
					     .value_blocks_max = 200,
					     .loads_max = LOADS_MAX,
					     .backing = &b->store.backing };

	cr_assert_not_null(b);
	b->store.loads_max = LOADS_MAX;
	b->store.backing = (struct chp_backing){
		.is_present = true, .load = ask_load, .drop_load = drop_load, .scan = ask_scan
	};
	b->r = replica_of(&setup);
	return b;
}

/* A voter in a view of all. */
static struct backed *
backed_in_view(uint32_t keys_max)
{
	struct backed *b = backed_created(keys_max);

	enter_view(b->r, 7, 0);
	floor_from(b->r, 1, 0);
	floor_from(b->r, 2, 0);
	return b;
}

static void
store_begins(struct backed *b)
{
	b->store.backing.is_ready = b->store.backing.has_begun = b->store.backing.may_evict = true;
	b->store.backing.newest = NEWEST;
	wake(b->r, CHP_BATCH_MAX);
}

/* With few keys: every key at rest that the store has leaves in each wake() if keys_max is 1. */
static struct backed *
backed_new(uint32_t keys_max)
{
	struct backed *b = backed_in_view(keys_max);

	store_begins(b);
	return b;
}

/* Level `datastore`. */
static struct backed *
durable_new(void)
{
	struct backed *b = backed_in_view(KEYS);

	b->store.backing.is_durable = true;
	store_begins(b);
	return b;
}

static void
backed_free(struct backed *b)
{
	replica_free(b->r);
	free(b);
}

static void
evicted_from(struct replica *r, uint32_t from, uint64_t counter)
{
	struct chp_hermes_floor m = { .message = { .type = CHP_HERMES_EVICTED, .len = sizeof(m), .op = CHP_OP_NONE },
				      .counter = counter };

	step(r, from, &m);
}

static void
stored_from(struct replica *r, uint32_t from, const struct chp_hermes_inv *of)
{
	struct chp_hermes_ack m = { .message = { .type = CHP_HERMES_STORED, .len = sizeof(m), .op = of->message.op },
				    .generation = of->generation,
				    .version = of->version };

	step(r, from, &m);
}

/* What the store has of a key comes into the cache. */
static void
load_key(struct backed *b, const char *key, uint64_t version, const char *value)
{
	submit(b->r, CHP_OPCODE_GET, key, NULL);
	found(b, key, version, value);
	wake(b->r, CHP_BATCH_MAX);
	expect_answer(b->r, 0, CHP_OPCODE_GET, CHP_STATUS_OK, version);
}

static bool
is_cached(struct backed *b, const char *key)
{
	struct chp_op op = op_of(b->r, CHP_OPCODE_GET, key, NULL);

	return chp_cache_find(b->r->env.cache, &op.key) != NULL;
}

static struct chp_hermes_inv
begun(struct replica *r)
{
	cr_assert_eq(r->n_sent, 2);
	cr_assert_eq(r->sent[0].message.type, CHP_HERMES_INV);
	return r->sent[0].inv;
}

static void
acked_by_all(struct replica *r, const struct chp_hermes_inv *m)
{
	ack(r, 1, m);
	ack(r, 2, m);
}

/* An operation on a session's number. */
static struct chp_op
session_op(struct replica *r, uint8_t opcode, const uint64_t *id)
{
	struct chp_op op = { .opcode = opcode,
			     .key = { .bytes = (const uint8_t *)id, .len = sizeof(*id), .session = true, .pos = -1 } };

	op.key.digest = chp_cache_digest(r->env.cache, op.key.bytes, op.key.len, true);
	return op;
}

static struct sent
session_inv(uint64_t id, uint64_t version, uint32_t op)
{
	struct sent s = inv_of("12345678", version, 0, CHP_INV_SESSION, "", op);

	memcpy(s.bytes + sizeof(s.inv), &id, sizeof(id));
	return s;
}

/* A peer's writes, under way, take all blocks that a coordinator may use. */
static void
fill_blocks(struct backed *b, const char *large)
{
	char key[16];

	for (uint32_t i = 0; chp_cache_admits(b->r->env.cache, 1, VALUE_MAX, false); i++) {
		snprintf(key, sizeof(key), "fill%u", i);
		inv(b->r, 1, key, v(NEWEST + 2 + i, 2), 0, 0, large);
		cr_assert_eq(b->r->n_sent, 1);
	}
}

/* ------------------------------------------------------------------ SAFETY 2 */

Test(hermes_backed, s2_a_write_to_an_absent_key_is_above_every_floor_and_does_not_wait)
{
	struct backed *b = backed_new(KEYS);

	submit(b->r, CHP_OPCODE_PUT, "x", "one");
	expect_inv(b->r, 0, 1, v(NEWEST + 2, 1), 0, CHP_INV_BASE_UNKNOWN, "one");
	evicted_from(b->r, 1, 500);
	evicted_from(b->r, 2, 300);
	submit(b->r, CHP_OPCODE_PUT, "y", "two");
	expect_inv(b->r, 0, 1, v(502, 1), 0, CHP_INV_BASE_UNKNOWN, "two");
	cr_assert_eq(b->store.n_asked, 0);
	backed_free(b);
}

Test(hermes_backed, s2_a_read_modify_write_loads_and_follows_what_it_loaded)
{
	struct backed *b = backed_new(KEYS);

	submit(b->r, CHP_OPCODE_APPEND, "x", "!");
	cr_assert_eq(b->r->n_sent, 0);
	found(b, "x", v(40, 2), "one");
	wake(b->r, CHP_BATCH_MAX);
	expect_inv(b->r, 0, 1, v(41, 1), v(40, 2), CHP_INV_RMW, "one!");
	backed_free(b);
}

Test(hermes_backed, s2_a_read_modify_write_of_what_nobody_has_begins_at_the_bottom)
{
	struct backed *b = backed_new(KEYS);

	submit(b->r, CHP_OPCODE_ADD, "x", "one");
	not_found(b, "x");
	wake(b->r, CHP_BATCH_MAX);
	expect_inv(b->r, 0, 1, v(1, 1), 0, CHP_INV_RMW, "one");
	/* Any concurrent write wins. */
	inv(b->r, 1, "x", v(NEWEST + 2, 2), 0, CHP_INV_BASE_UNKNOWN, "two");
	expect_ack(b->r, 1, v(NEWEST + 2, 2));
	expect_state(b->r, "x", "Invalid v102.2 own v1");
	backed_free(b);
}

Test(hermes_backed, s2_a_read_modify_write_of_a_deleted_key_follows_its_tombstone)
{
	struct backed *b = backed_new(KEYS);

	submit(b->r, CHP_OPCODE_ADD, "x", "one");
	loaded(b, "x", (struct chp_loaded){ .status = CHP_LOAD_TOMBSTONE,
					    .version = v(40, 2),
					    .version_flags = CHP_SLOT_RMW | CHP_SLOT_TOMBSTONE });
	wake(b->r, CHP_BATCH_MAX);
	expect_inv(b->r, 0, 1, v(41, 1), v(40, 2), CHP_INV_RMW, "one");
	backed_free(b);
}

/* ------------------------------------------------------------------ SAFETY 3 */

Test(hermes_backed, s3_an_inv_above_the_own_floor_is_adopted)
{
	struct backed *b = backed_new(KEYS);

	inv(b->r, 1, "x", v(NEWEST + 1, 2), 0, 0, "one");
	expect_ack(b->r, 1, v(NEWEST + 1, 2));
	expect_state(b->r, "x", "Invalid v101.2");
	cr_assert_eq(b->store.n_asked, 0);
	backed_free(b);
}

Test(hermes_backed, s3_another_inv_waits_for_the_stored_version_and_the_link_does_not)
{
	struct backed *b = backed_new(KEYS);
	struct sent s = inv_of("y", v(NEWEST + 1, 2), 0, 0, "", 4);

	/* Its counter equals the floor: the writer decides. */
	inv(b->r, 1, "x", v(NEWEST, 2), 0, 0, "one");
	cr_assert_eq(b->r->n_sent, 0, "not acknowledged");
	cr_assert(is_asked(b, "x"));
	expect_state(b->r, "x", "Loading v0.0 deleted");
	step(b->r, 1, &s.inv);
	cr_assert_eq(b->r->n_sent, 1, "what comes behind it is");
	found(b, "x", v(NEWEST, 1), "old");
	expect_ack(b->r, 1, v(NEWEST, 2));
	expect_state(b->r, "x", "Invalid v100.2");
	val(b->r, 1, v(NEWEST, 2));
	expect_value(b->r, "x", "one");
	cr_assert_eq(b->r->counters.inv_parked, 1);
	backed_free(b);
}

Test(hermes_backed, s3_an_inv_of_the_stored_version_is_acknowledged)
{
	struct backed *b = backed_new(KEYS);

	inv(b->r, 1, "x", v(50, 2), v(48, 2), CHP_INV_REPLAY, "one");
	found(b, "x", v(50, 2), "one");
	expect_ack(b->r, 1, v(50, 2));
	expect_state(b->r, "x", "Valid v50.2");
	backed_free(b);
}

Test(hermes_backed, s3_an_inv_older_than_the_stored_version_is_acknowledged_only)
{
	struct backed *b = backed_new(KEYS);

	inv(b->r, 1, "x", v(50, 2), v(48, 2), 0, "old");
	found(b, "x", v(60, 3), "new");
	expect_ack(b->r, 1, v(50, 2));
	expect_value(b->r, "x", "new");
	backed_free(b);
}

Test(hermes_backed, s3_an_rmw_older_than_the_stored_version_is_refused_with_it)
{
	struct backed *b = backed_new(KEYS);

	inv(b->r, 1, "x", v(50, 2), v(49, 2), CHP_INV_RMW, "old");
	loaded(b, "x", (struct chp_loaded){ .status = CHP_LOAD_FOUND,
					    .version = v(60, 3),
					    .version_flags = CHP_SLOT_RMW,
					    .value = (const uint8_t *)"new",
					    .value_len = 3 });
	cr_assert_eq(b->r->n_sent, 1);
	/* What the stored version was issued on is not known: nobody may conclude from it. */
	expect_inv(b->r, 0, 1, v(60, 3), 0, CHP_INV_RMW | CHP_INV_NACK | CHP_INV_BASE_UNKNOWN, "new");
	cr_assert_eq(b->r->counters.nacks, 1);
	backed_free(b);
}

Test(hermes_backed, s3_an_inv_of_a_key_that_the_store_has_not_is_adopted)
{
	struct backed *b = backed_new(KEYS);

	inv(b->r, 1, "x", v(1, 2), 0, CHP_INV_RMW, "one");
	not_found(b, "x");
	expect_ack(b->r, 1, v(1, 2));
	expect_state(b->r, "x", "Invalid v1.2");
	backed_free(b);
}

Test(hermes_backed, s3_what_an_earlier_life_left_counts_for_nothing)
{
	struct backed *b = backed_new(KEYS);

	inv(b->r, 1, "x", v(50, 2), 0, 0, "one");
	loaded(b, "x", (struct chp_loaded){ .status = CHP_LOAD_FOUND,
					    .is_old = true,
					    .version = v(60, 3),
					    .value = (const uint8_t *)"old",
					    .value_len = 3 });
	expect_ack(b->r, 1, v(50, 2));
	expect_state(b->r, "x", "Invalid v50.2");
	backed_free(b);
}

Test(hermes_backed, s3_several_invs_wait_in_their_order)
{
	struct backed *b = backed_new(KEYS);
	struct sent third = inv_of("x", v(54, 3), v(53, 2), CHP_INV_RMW, "three", 4);

	inv(b->r, 1, "x", v(52, 2), v(50, 1), 0, "two");
	step(b->r, 2, &third.inv);
	cr_assert_eq(b->r->n_sent, 0);
	cr_assert_eq(b->store.n_asked, 1);
	found(b, "x", v(50, 1), "one");
	cr_assert_eq(b->r->n_sent, 2);
	cr_assert_eq(b->r->sent[0].to, 1);
	cr_assert_eq(b->r->sent[0].ack.version, v(52, 2));
	cr_assert_eq(b->r->sent[1].to, 2);
	cr_assert_eq(b->r->sent[1].ack.version, v(54, 3));
	expect_state(b->r, "x", "Invalid v54.3");
	backed_free(b);
}

Test(hermes_backed, s3_a_newer_inv_ends_the_wait_of_the_others)
{
	struct backed *b = backed_new(KEYS);
	struct sent rmw = inv_of("x", v(60, 2), v(59, 2), CHP_INV_RMW, "rmw", 4);

	inv(b->r, 1, "x", v(50, 2), 0, 0, "one");
	step(b->r, 1, &rmw.inv);
	inv(b->r, 2, "x", v(NEWEST + 2, 3), 0, CHP_INV_BASE_UNKNOWN, "two");
	/* The oldest is acknowledged, the RMW refused: the key has a newer version now. */
	cr_assert_eq(b->r->n_sent, 3);
	cr_assert_eq(b->r->sent[0].message.type, CHP_HERMES_ACK);
	cr_assert_eq(b->r->sent[0].ack.version, v(50, 2));
	expect_inv(b->r, 1, 1, v(NEWEST + 2, 3), 0, CHP_INV_NACK | CHP_INV_BASE_UNKNOWN, "two");
	cr_assert_eq(b->r->sent[2].to, 2);
	cr_assert_eq(b->r->sent[2].ack.version, v(NEWEST + 2, 3));
	found(b, "x", v(40, 2), "old");
	cr_assert_eq(b->r->counters.loads_stale, 1);
	expect_state(b->r, "x", "Invalid v102.3");
	backed_free(b);
}

Test(hermes_backed, s3_a_nack_of_a_key_that_is_not_here_tells_nothing)
{
	struct backed *b = backed_new(KEYS);
	struct sent s = inv_of("x", v(50, 2), 0, CHP_INV_NACK, "one", CHP_OP_NONE);

	step(b->r, 1, &s.inv);
	cr_assert(!is_cached(b, "x"));
	cr_assert_eq(b->store.n_asked, 0);
	cr_assert_eq(b->r->counters.inv_stale, 1);
	backed_free(b);
}

Test(hermes_backed, s3_a_link_reset_drops_what_waited_and_its_ticket_can_be_used_again)
{
	struct backed *b = backed_new(KEYS);
	struct replica *r = b->r;

	inv(r, 1, "x", v(50, 2), 0, 0, "one");
	begin_call(r, CHP_BATCH_MAX);
	chp_hermes.link_down(r->p, &r->now, 1, &r->out);
	end_call(r);
	begin_call(r, CHP_BATCH_MAX);
	chp_hermes.link_up(r->p, &r->now, 1, &r->out);
	end_call(r);
	inv(r, 1, "y", v(52, 2), 0, 0, "two");
	found(b, "x", v(40, 1), "old");
	cr_assert_eq(r->n_sent, 0, "nobody waits for x any more");
	expect_state(r, "x", "Valid v40.1");
	not_found(b, "y");
	expect_ack(r, 1, v(52, 2));
	expect_state(r, "y", "Invalid v52.2");
	backed_free(b);
}

Test(hermes_backed, s3_a_view_drops_what_waited_and_it_comes_again)
{
	struct backed *b = backed_new(KEYS);

	inv(b->r, 1, "x", v(50, 2), 0, 0, "one");
	enter_view(b->r, 7, 0);
	cr_assert_eq(b->r->n_sent, 0, "nothing to replay: this replica has not adopted it");
	inv(b->r, 1, "x", v(50, 2), 0, 0, "one");
	cr_assert_eq(b->store.n_asked, 1, "the load is still open");
	found(b, "x", v(40, 1), "old");
	expect_ack(b->r, 1, v(50, 2));
	backed_free(b);
}

Test(hermes_backed, s3_a_ticket_that_is_used_again_forgets_what_waited_under_it)
{
	struct backed *b = backed_new(KEYS);

	inv(b->r, 1, "x", v(50, 2), v(49, 2), CHP_INV_RMW, "aborted");
	inv(b->r, 1, "y", v(NEWEST + 1, 2), 0, 0, "two");
	expect_ack(b->r, 1, v(NEWEST + 1, 2));
	found(b, "x", v(49, 2), "old");
	cr_assert_eq(b->r->n_sent, 0);
	expect_value(b->r, "x", "old");
	val(b->r, 1, v(NEWEST + 1, 2));
	expect_value(b->r, "y", "two");
	backed_free(b);
}

Test(hermes_backed, s3_a_ticket_that_a_session_uses_next_forgets_it_too)
{
	struct backed *b = backed_new(KEYS);
	const uint64_t id = 0x0002000000000005;
	struct sent s = session_inv(id, v(2, 2), 3);
	struct chp_op op = session_op(b->r, CHP_OPCODE_SESSION_CLOSE, &id);

	inv(b->r, 1, "x", v(50, 2), v(49, 2), CHP_INV_RMW, "aborted");
	step(b->r, 1, &s.inv);
	found(b, "x", v(49, 2), "old");
	cr_assert_eq(b->r->n_sent, 0);
	val(b->r, 1, v(2, 2));
	cr_assert_eq(b->r->counters.val_stale, 0);
	cr_assert_eq(chp_cache_find(b->r->env.cache, &op.key)->state, 0, "the session's number is Valid");
	backed_free(b);
}

/* ------------------------------------------------------------------ SAFETY 4 */

Test(hermes_backed, s4_nothing_is_served_before_the_newest_version_of_the_store_is_known)
{
	struct backed *b = backed_in_view(KEYS);
	struct chp_op put = op_of(b->r, CHP_OPCODE_PUT, "x", "one");
	struct chp_protocol_status status;
	uint64_t number;

	cr_assert_eq(chp_hermes.admit(b->r->p, &b->r->now, &put, &number), CHP_STATUS_NOT_SERVING);
	chp_hermes.status(b->r->p, &status);
	cr_assert_str_not_empty(status.waiting);
	store_begins(b);
	cr_assert_eq(chp_hermes.admit(b->r->p, &b->r->now, &put, &number), CHP_STATUS_OK);
	chp_hermes.status(b->r->p, &status);
	cr_assert_str_empty(status.waiting);
	/* The channel may be lost again: what is known stays known. */
	b->store.backing.is_ready = false;
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(chp_hermes.admit(b->r->p, &b->r->now, &put, &number), CHP_STATUS_OK);
	backed_free(b);
}

Test(hermes_backed, s4_what_the_store_held_counts_as_evicted_and_the_peers_hear_of_it)
{
	struct backed *b = backed_in_view(KEYS);

	wake(b->r, CHP_BATCH_MAX);
	for (uint32_t i = 0; i < b->r->n_sent; i++)
		cr_assert_neq(b->r->sent[i].message.type == CHP_HERMES_EVICTED && b->r->sent[i].floor.counter > 0,
			      true);
	store_begins(b);
	cr_assert_eq(b->r->n_sent, 2);
	for (uint32_t i = 0; i < 2; i++) {
		cr_assert_eq(b->r->sent[i].message.type, CHP_HERMES_EVICTED);
		cr_assert_eq(b->r->sent[i].floor.counter, NEWEST);
	}
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_sent, 0, "once");
	enter_view(b->r, 7, 0);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_sent, 2, "and in every view again");
	backed_free(b);
}

Test(hermes_backed, s4_an_inv_waits_however_new_while_the_newest_is_not_known)
{
	struct backed *b = backed_in_view(KEYS);

	inv(b->r, 1, "x", v(1000, 2), 0, 0, "one");
	cr_assert_eq(b->r->n_sent, 0);
	store_begins(b);
	/* A write of ours begins below what waits. */
	submit(b->r, CHP_OPCODE_PUT, "x", "two");
	cr_assert_eq(b->r->n_sent, 3);
	expect_inv(b->r, 0, 1, v(NEWEST + 2, 1), 0, CHP_INV_BASE_UNKNOWN, "two");
	cr_assert_eq(b->r->sent[1].ack.version, v(1000, 2));
	expect_state(b->r, "x", "Trans v1000.2 own v102");
	backed_free(b);
}

/* ------------------------------------------------------------------ SAFETY 5: what may not leave */

Test(hermes_backed, p60_what_the_store_has_not_yet_stays)
{
	struct backed *b = backed_new(1);

	put_valid(b->r, "x", "one");
	for (uint32_t i = 0; i < 4; i++)
		wake(b->r, CHP_BATCH_MAX);
	cr_assert(is_cached(b, "x"));
	save(b);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert(!is_cached(b, "x"));
	backed_free(b);
}

Test(hermes_backed, s5_a_key_that_is_not_valid_stays)
{
	struct backed *b = backed_new(1);
	struct chp_hermes_inv m;

	submit(b->r, CHP_OPCODE_PUT, "x", "one");
	m = begun(b->r);
	inv(b->r, 1, "y", v(NEWEST + 2, 2), 0, 0, "two");
	save(b);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert(is_cached(b, "x"));
	cr_assert(is_cached(b, "y"));
	acked_by_all(b->r, &m);
	val(b->r, 1, v(NEWEST + 2, 2));
	wake(b->r, CHP_BATCH_MAX);
	cr_assert(!is_cached(b, "x"));
	cr_assert(!is_cached(b, "y"));
	backed_free(b);
}

Test(hermes_backed, s5_a_key_that_is_waited_for_stays)
{
	struct backed *b = backed_new(1);

	submit(b->r, CHP_OPCODE_GET, "x", NULL);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert(is_cached(b, "x"), "its place, while it is loaded");
	found(b, "x", v(40, 2), "one");
	wake(b->r, 0);
	cr_assert(is_cached(b, "x"), "there was no room for the reply");
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_answers, 1);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert(!is_cached(b, "x"));
	backed_free(b);
}

Test(hermes_backed, s5_sessions_stay)
{
	struct backed *b = backed_new(1);
	const uint64_t id = 0x0001000000000005;
	struct chp_op op = session_op(b->r, CHP_OPCODE_SESSION_OPEN, &id);
	struct chp_hermes_inv m;

	submit_op(b->r, op);
	m = begun(b->r);
	acked_by_all(b->r, &m);
	save(b);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_not_null(chp_cache_find(b->r->env.cache, &op.key));
	backed_free(b);
}

Test(hermes_backed, s5_the_key_of_the_operation_that_makes_room_stays)
{
	struct backed *b = backed_new(KEYS);
	char large[VALUE_MAX + 1] = { 0 };

	memset(large, 'l', VALUE_MAX);
	load_key(b, "x", v(40, 2), "one");
	cr_assert(is_cached(b, "x"));
	fill_blocks(b, large);
	/* Its new value needs blocks, of which there are none: all that may leave does, but for itself. */
	submit(b->r, CHP_OPCODE_PUT, "x", large);
	expect_answer(b->r, 0, CHP_OPCODE_PUT, CHP_STATUS_OVERLOAD, v(40, 2));
	cr_assert(is_cached(b, "x"));
	backed_free(b);
}

/* A peer's write of a key that shares its digest with others, from INV to VAL. */
static void
put_twin(struct replica *r, uint32_t n, uint64_t version)
{
	struct sent s = inv_of("", version, 0, 0, "", 3);

	s.inv.key_len = CHP_KEY_BYTES_MAX;
	s.inv.message.len = (uint16_t)chp_hermes_inv_bytes(CHP_KEY_BYTES_MAX, 0);
	chp_twin(SEED, n, s.bytes + sizeof(s.inv));
	step(r, 1, &s.inv);
	expect_ack(r, 1, version);
	val(r, 1, version);
}

static bool
twin_is_cached(struct replica *r, uint32_t n)
{
	uint8_t bytes[CHP_KEY_BYTES_MAX];
	struct chp_key key = { .bytes = bytes, .len = sizeof(bytes), .pos = -1 };

	chp_twin(SEED, n, bytes);
	key.digest = chp_cache_digest(r->env.cache, bytes, sizeof(bytes), false);
	return chp_cache_find(r->env.cache, &key) != NULL;
}

Test(hermes_backed, s5_a_key_whose_digest_leads_over_another_stays)
{
	struct backed *b = backed_new(1);

	put_twin(b->r, 0, v(NEWEST + 2, 2));
	put_twin(b->r, 1, v(NEWEST + 4, 2));
	save(b);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert(twin_is_cached(b->r, 0), "the other would not be found without it");
	cr_assert(!twin_is_cached(b->r, 1));
	/* Nothing was lost by that: the second is loaded, the first is here. */
	put_twin(b->r, 1, v(NEWEST + 4096, 2));
	cr_assert(twin_is_cached(b->r, 0) && twin_is_cached(b->r, 1));
	backed_free(b);
}

Test(hermes_backed, s5_an_answer_that_a_write_overtook_is_dropped)
{
	struct backed *b = backed_new(KEYS);
	struct chp_hermes_inv m;

	submit(b->r, CHP_OPCODE_GET, "x", NULL);
	submit(b->r, CHP_OPCODE_PUT, "x", "one");
	expect_inv(b->r, 0, 1, v(NEWEST + 2, 1), 0, CHP_INV_BASE_UNKNOWN, "one");
	m = b->r->sent[0].inv;
	found(b, "x", v(40, 2), "old");
	cr_assert_eq(b->r->counters.loads_stale, 1);
	expect_state(b->r, "x", "Write v102.1 own v102");
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_answers, 0, "the read waits for the write");
	acked_by_all(b->r, &m);
	wake(b->r, CHP_BATCH_MAX);
	expect_answer(b->r, 0, CHP_OPCODE_GET, CHP_STATUS_OK, v(NEWEST + 2, 1));
	backed_free(b);
}

Test(hermes_backed, s5_a_new_load_of_the_key_takes_no_answer_of_the_one_before)
{
	struct backed *b = backed_new(1);
	struct chp_loaded l = { .status = CHP_LOAD_FOUND, .version = v(40, 2), .value = (const uint8_t *)"old",
				.value_len = 3 };

	submit(b->r, CHP_OPCODE_GET, "x", NULL); /* token 0 */
	put_valid(b->r, "x", "one");
	wake(b->r, CHP_BATCH_MAX);
	save(b);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert(!is_cached(b, "x"));
	submit(b->r, CHP_OPCODE_GET, "x", NULL); /* token 1 */
	loaded(b, "x", l);
	cr_assert_eq(b->r->counters.loads_stale, 1);
	expect_state(b->r, "x", "Loading v0.0 deleted");
	found(b, "x", v(NEWEST + 2, 1), "one");
	wake(b->r, CHP_BATCH_MAX);
	expect_answer(b->r, 0, CHP_OPCODE_GET, CHP_STATUS_OK, v(NEWEST + 2, 1));
	backed_free(b);
}

/* ------------------------------------------------------------------ pitfall P47: evicted versions */

Test(hermes_backed, p47_a_version_that_leaves_is_not_forgotten)
{
	struct backed *b = backed_new(1);
	uint64_t floor;

	put_valid(b->r, "x", "one");
	save(b);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert(!is_cached(b, "x"));
	cr_assert_eq(b->r->n_sent, 2);
	cr_assert_eq(b->r->sent[0].message.type, CHP_HERMES_EVICTED);
	floor = b->r->sent[0].floor.counter;
	cr_assert_geq(floor, NEWEST + 2);
	/* An INV that is older than what left waits for the load ... */
	inv(b->r, 1, "x", v(NEWEST + 1, 2), 0, 0, "old");
	cr_assert_eq(b->r->n_sent, 0);
	found(b, "x", v(NEWEST + 2, 1), "one");
	expect_ack(b->r, 1, v(NEWEST + 1, 2));
	wake(b->r, CHP_BATCH_MAX);
	cr_assert(!is_cached(b, "x"));
	/* ... and a write of ours is above. */
	submit(b->r, CHP_OPCODE_PUT, "x", "two");
	expect_inv(b->r, 0, 1, v(floor + 2, 1), 0, CHP_INV_BASE_UNKNOWN, "two");
	backed_free(b);
}

Test(hermes_backed, p47_a_link_that_comes_up_hears_of_what_left)
{
	struct backed *b = backed_new(1);
	struct replica *r = b->r;

	begin_call(r, CHP_BATCH_MAX);
	chp_hermes.link_down(r->p, &r->now, 1, &r->out);
	chp_hermes.link_up(r->p, &r->now, 1, &r->out);
	end_call(r);
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_sent, 1);
	cr_assert_eq(r->sent[0].to, 1);
	cr_assert_eq(r->sent[0].message.type, CHP_HERMES_EVICTED);
	cr_assert_eq(r->sent[0].floor.counter, NEWEST);
	backed_free(b);
}

Test(hermes_backed, p47_one_announcement_serves_many_that_leave)
{
	struct backed *b = backed_new(1);
	char key[8];

	put_valid(b->r, "x", "v");
	save(b);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_sent, 2);
	for (uint32_t i = 0; i < 20; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		load_key(b, key, v(NEWEST + 3 + i, 2), "v");
		wake(b->r, CHP_BATCH_MAX);
		cr_assert(!is_cached(b, key));
		cr_assert_eq(b->r->n_sent, 0, "nothing above what was announced has left");
	}
	backed_free(b);
}

/* ------------------------------------------------------------------ the slow path */

Test(hermes_backed, however_many_wait_for_a_key_it_is_loaded_once)
{
	struct backed *b = backed_new(KEYS);

	for (uint32_t i = 0; i < 5; i++)
		submit(b->r, CHP_OPCODE_GET, "x", NULL);
	submit(b->r, CHP_OPCODE_APPEND, "x", "!");
	inv(b->r, 1, "x", v(30, 2), 0, 0, "older");
	cr_assert_eq(b->store.n_asked, 1);
	cr_assert_eq(b->r->counters.misses, 6);
	found(b, "x", v(40, 2), "one");
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_answers, 5);
	for (uint32_t i = 0; i < 5; i++)
		expect_answer(b->r, i, CHP_OPCODE_GET, CHP_STATUS_OK, v(40, 2));
	expect_inv(b->r, 0, 1, v(41, 1), v(40, 2), CHP_INV_RMW, "one!");
	backed_free(b);
}

Test(hermes_backed, that_a_key_is_nowhere_is_remembered)
{
	struct backed *b = backed_new(KEYS);

	submit(b->r, CHP_OPCODE_GET, "x", NULL);
	not_found(b, "x");
	wake(b->r, CHP_BATCH_MAX);
	expect_answer(b->r, 0, CHP_OPCODE_GET, CHP_STATUS_NOT_FOUND, 0);
	expect_value(b->r, "x", NULL);
	submit(b->r, CHP_OPCODE_DELETE, "x", NULL);
	expect_answer(b->r, 0, CHP_OPCODE_DELETE, CHP_STATUS_NOT_FOUND, 0);
	cr_assert_eq(b->store.n_asked, 1);
	/* What overwrites it knows that it was absent. */
	submit(b->r, CHP_OPCODE_PUT, "x", "one");
	expect_inv(b->r, 0, 1, v(NEWEST + 2, 1), 0, 0, "one");
	backed_free(b);
}

Test(hermes_backed, that_a_key_is_nowhere_may_be_forgotten_at_any_time)
{
	struct backed *b = backed_new(1);

	b->store.backing.may_evict = false;
	submit(b->r, CHP_OPCODE_GET, "x", NULL);
	not_found(b, "x");
	wake(b->r, CHP_BATCH_MAX);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert(!is_cached(b, "x"));
	cr_assert_eq(b->r->n_sent, 0, "no version left");
	backed_free(b);
}

Test(hermes_backed, a_deleted_key_is_deleted_in_the_store_too)
{
	struct backed *b = backed_new(KEYS);

	submit(b->r, CHP_OPCODE_GET, "x", NULL);
	loaded(b, "x", (struct chp_loaded){ .status = CHP_LOAD_TOMBSTONE,
					    .version = v(40, 2),
					    .version_flags = CHP_SLOT_RMW | CHP_SLOT_TOMBSTONE });
	wake(b->r, CHP_BATCH_MAX);
	expect_answer(b->r, 0, CHP_OPCODE_GET, CHP_STATUS_NOT_FOUND, 0);
	expect_state(b->r, "x", "Valid v40.2 deleted");
	backed_free(b);
}

Test(hermes_backed, misses_beyond_the_limit_are_refused)
{
	struct backed *b = backed_new(KEYS);

	b->store.loads_max = 1;
	submit(b->r, CHP_OPCODE_GET, "x", NULL);
	submit(b->r, CHP_OPCODE_GET, "y", NULL);
	expect_answer(b->r, 0, CHP_OPCODE_GET, CHP_STATUS_OVERLOAD, 0);
	submit(b->r, CHP_OPCODE_INCR, "y", NULL);
	expect_answer(b->r, 0, CHP_OPCODE_INCR, CHP_STATUS_OVERLOAD, 0);
	cr_assert_eq(b->r->counters.misses_refused, 2);
	cr_assert(!is_cached(b, "y"));
	submit(b->r, CHP_OPCODE_GET, "x", NULL);
	cr_assert_eq(b->r->n_answers, 0, "one that is being loaded may be waited for");
	/* A write needs no load. */
	submit(b->r, CHP_OPCODE_PUT, "y", "one");
	expect_inv(b->r, 0, 1, v(NEWEST + 2, 1), 0, CHP_INV_BASE_UNKNOWN, "one");
	backed_free(b);
}

Test(hermes_backed, an_inv_that_finds_no_load_free_is_served_as_soon_as_there_is_one)
{
	struct backed *b = backed_new(KEYS);

	b->store.loads_max = 1;
	submit(b->r, CHP_OPCODE_GET, "x", NULL);
	inv(b->r, 1, "y", v(50, 2), 0, 0, "two");
	cr_assert(!is_asked(b, "y"));
	wake(b->r, CHP_BATCH_MAX);
	found(b, "x", v(40, 2), "one");
	b->r->now.ns += 1000000;
	wake(b->r, CHP_BATCH_MAX);
	cr_assert(is_asked(b, "y"));
	not_found(b, "y");
	expect_ack(b->r, 1, v(50, 2));
	backed_free(b);
}

Test(hermes_backed, what_nobody_waits_for_any_more_is_not_loaded)
{
	struct backed *b = backed_new(KEYS);
	struct replica *r = b->r;

	b->store.loads_max = 0;
	inv(r, 1, "x", v(50, 2), 0, 0, "one");
	begin_call(r, CHP_BATCH_MAX);
	chp_hermes.link_down(r->p, &r->now, 1, &r->out);
	end_call(r);
	r->now.ns += 2000000;
	wake(r, CHP_BATCH_MAX);
	cr_assert(!is_cached(b, "x"), "its record and slot are free again");
	cr_assert_eq(b->store.n_asked, 0);
	backed_free(b);
}

Test(hermes_backed, what_is_cached_is_read_while_others_wait)
{
	struct backed *b = backed_new(KEYS);

	put_valid(b->r, "x", "one");
	b->store.loads_max = 1;
	submit(b->r, CHP_OPCODE_GET, "y", NULL);
	submit(b->r, CHP_OPCODE_GET, "z", NULL);
	b->store.backing.is_ready = false;
	expect_value(b->r, "x", "one");
	submit(b->r, CHP_OPCODE_APPEND, "x", "!");
	cr_assert_eq(b->r->n_sent, 2);
	backed_free(b);
}

/* What a voter says when it is asked for the key of the FETCH that was sent last. */
static void
told(struct replica *r, uint8_t from, uint8_t status, uint64_t version, const char *value)
{
	struct {
		struct chp_hermes_fetched m;
		char value[8];
	} answer = { .m = { .message = { .type = CHP_HERMES_FETCHED,
					 .len = (uint16_t)(sizeof(answer.m) + (value == NULL ? 0u : 8u)),
					 .op = r->sent[r->n_sent - 1].message.op },
			    .status = status,
			    .version = version,
			    .value_total = value == NULL ? 0 : (uint32_t)strlen(value) } };

	cr_assert_eq(r->sent[r->n_sent - 1].message.type, CHP_HERMES_FETCH);
	memcpy(&answer.m.generation, (const uint8_t *)&r->sent[r->n_sent - 1].message + 8, 4);
	if (value != NULL)
		memcpy(answer.value, value, strlen(value));
	step(r, from, &answer.m);
	wake(r, CHP_BATCH_MAX);
}

Test(hermes_backed, s32_without_its_host_a_miss_is_answered_by_a_voter)
{
	struct backed *b = backed_new(KEYS);

	b->store.backing.is_ready = false;
	submit(b->r, CHP_OPCODE_GET, "x", NULL);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->counters.host_away, 1);
	told(b->r, 1, CHP_HERMES_FETCH_AGAIN, 0, NULL);
	cr_assert_eq(b->r->n_answers, 0);
	b->r->now.ns += 2000000;
	wake(b->r, CHP_BATCH_MAX);
	told(b->r, 2, CHP_HERMES_FETCH_FOUND, v(40, 2), "two");
	expect_answer(b->r, 0, CHP_OPCODE_GET, CHP_STATUS_OK, v(40, 2));
	cr_assert(is_cached(b, "x"));
	backed_free(b);
}

/* However long the host is away: what a voter told does not count among the loads that are open any more. */
Test(hermes_backed, s32_without_its_host_misses_do_not_run_out)
{
	struct backed *b = backed_new(KEYS);
	char key[16];

	b->store.backing.is_ready = false;
	b->store.loads_max = 2;
	for (uint32_t i = 0; i < 5; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		submit(b->r, CHP_OPCODE_GET, key, NULL);
		cr_assert_eq(b->r->n_answers, 0, "%s is refused", key);
		wake(b->r, CHP_BATCH_MAX);
		told(b->r, 1, CHP_HERMES_FETCH_FOUND, v(40 + i, 2), "two");
		expect_answer(b->r, 0, CHP_OPCODE_GET, CHP_STATUS_OK, v(40 + i, 2));
	}
	/* Nor do INVs that wait for what was there. */
	for (uint32_t i = 0; i < 5; i++) {
		snprintf(key, sizeof(key), "i%u", i);
		inv(b->r, 1, key, v(60 + i, 2), 0, 0, "new");
		wake(b->r, CHP_BATCH_MAX);
		told(b->r, 1, CHP_HERMES_FETCH_FOUND, v(40, 2), "old");
		expect_ack(b->r, 1, v(60 + i, 2));
	}
	cr_assert_eq(b->r->counters.misses_refused, 0);
	backed_free(b);
}

/*
 * Who is asked has the very write under way that waits here for its answer, and cannot tell before we acknowledge it.
 * What it had before, or has now, is no older than what we had: the newest INV that waits is the key's version.
 */
Test(hermes_backed, s32_without_its_host_an_inv_does_not_wait_for_itself)
{
	struct backed *b = backed_new(KEYS);
	struct replica *r = b->r;
	struct sent rmw = inv_of("x", v(55, 3), v(40, 2), CHP_INV_RMW, "rmw", 4);
	const uint64_t next = r->log.next;

	b->store.backing.is_ready = false;
	inv(r, 1, "x", v(50, 2), 0, CHP_INV_BASE_UNKNOWN, "old");
	step(r, 2, &rmw.inv);
	wake(r, CHP_BATCH_MAX);
	told(r, 1, CHP_HERMES_FETCH_UNDER_WAY, v(60, 3), NULL);
	cr_assert_eq(r->n_sent, 0, "something newer than all that waits may have been here");
	rmw = inv_of("x", v(60, 3), v(40, 2), 0, "new", 5);
	step(r, 2, &rmw.inv);
	r->now.ns += 2000000;
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->sent[0].to, 2);
	told(r, 2, CHP_HERMES_FETCH_UNDER_WAY, v(60, 3), NULL);
	cr_assert_eq(r->n_sent, 3);
	cr_assert(r->sent[0].message.type == CHP_HERMES_ACK && r->sent[0].to == 1);
	cr_assert_eq(r->sent[0].ack.version, v(50, 2));
	cr_assert(r->sent[1].message.type == CHP_HERMES_ACK && r->sent[1].to == 2);
	cr_assert_eq(r->sent[1].ack.version, v(60, 3));
	cr_assert(r->sent[2].message.type == CHP_HERMES_INV && r->sent[2].to == 2, "what was overtaken hears by what");
	expect_state(r, "x", "Invalid v60.3");
	cr_assert_eq(r->log.next, next + 1, "the newest is adopted, and nothing before it");
	backed_free(b);
}

/* Its link went meanwhile, and with it what waited. */
Test(hermes_backed, s32_an_inv_that_is_gone_is_not_taken)
{
	struct backed *b = backed_new(KEYS);
	struct replica *r = b->r;

	b->store.backing.is_ready = false;
	inv(r, 2, "x", v(50, 3), 0, CHP_INV_BASE_UNKNOWN, "new");
	submit(r, CHP_OPCODE_GET, "x", NULL);
	wake(r, CHP_BATCH_MAX);
	{
		struct chp_hermes_fetched m = { .message = { .type = CHP_HERMES_FETCHED,
							     .len = sizeof(m),
							     .op = r->sent[0].message.op },
						.status = CHP_HERMES_FETCH_UNDER_WAY,
						.version = v(50, 3) };

		memcpy(&m.generation, (const uint8_t *)&r->sent[0].message + 8, 4);
		step(r, 1, &m);
	}
	begin_call(r, CHP_BATCH_MAX);
	chp_hermes.link_down(r->p, &r->now, 2, &r->out);
	end_call(r);
	wake(r, CHP_BATCH_MAX);
	expect_answer(r, 0, CHP_OPCODE_GET, CHP_STATUS_OVERLOAD, 0);
	backed_free(b);
}

Test(hermes_backed, without_its_host_writes_go_on)
{
	struct backed *b = backed_new(KEYS);

	b->store.backing.is_ready = false;
	put_valid(b->r, "x", "one");
	expect_value(b->r, "x", "one");
	cr_assert_eq(b->store.n_asked, 0);
	backed_free(b);
}

Test(hermes_backed, who_waits_is_told_that_the_load_failed)
{
	struct backed *b = backed_new(KEYS);

	submit(b->r, CHP_OPCODE_GET, "x", NULL);
	submit(b->r, CHP_OPCODE_APPEND, "x", "!");
	failed(b, "x");
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_answers, 2);
	expect_answer(b->r, 0, CHP_OPCODE_GET, CHP_STATUS_OVERLOAD, 0);
	expect_answer(b->r, 1, CHP_OPCODE_APPEND, CHP_STATUS_OVERLOAD, 0);
	cr_assert(!is_cached(b, "x"), "nothing is known of it");
	cr_assert_eq(b->r->counters.loads_failed, 1);
	load_key(b, "x", v(40, 2), "one");
	backed_free(b);
}

Test(hermes_backed, an_inv_waits_until_the_load_succeeds)
{
	struct backed *b = backed_new(KEYS);

	submit(b->r, CHP_OPCODE_GET, "x", NULL);
	inv(b->r, 1, "x", v(50, 2), 0, 0, "one");
	for (uint32_t i = 0; i < 3; i++) {
		failed(b, "x");
		wake(b->r, CHP_BATCH_MAX);
		cr_assert_eq(b->r->n_answers, i == 0);
		cr_assert_eq(b->r->n_sent, 0);
		b->r->now.ns += 1000000;
		wake(b->r, CHP_BATCH_MAX);
	}
	cr_assert_eq(b->store.n_asked, 4);
	found(b, "x", v(40, 2), "old");
	expect_ack(b->r, 1, v(50, 2));
	backed_free(b);
}

Test(hermes_backed, a_write_that_comes_while_a_load_fails_goes_ahead)
{
	struct backed *b = backed_new(KEYS);
	struct chp_hermes_inv m;

	submit(b->r, CHP_OPCODE_GET, "x", NULL);
	failed(b, "x");
	submit(b->r, CHP_OPCODE_PUT, "x", "one");
	m = begun(b->r);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_answers, 0, "the read hears of the write");
	acked_by_all(b->r, &m);
	wake(b->r, CHP_BATCH_MAX);
	expect_answer(b->r, 0, CHP_OPCODE_GET, CHP_STATUS_OK, v(NEWEST + 2, 1));
	backed_free(b);
}

Test(hermes_backed, a_write_to_a_key_that_is_being_loaded_answers_the_invs_that_wait)
{
	struct backed *b = backed_new(KEYS);
	struct sent rmw = inv_of("x", v(50, 3), v(49, 3), CHP_INV_RMW, "rmw", 4);

	inv(b->r, 1, "x", v(50, 2), 0, 0, "one");
	step(b->r, 2, &rmw.inv);
	submit(b->r, CHP_OPCODE_PUT, "x", "two");
	/* To each peer our INV goes first. */
	cr_assert_eq(b->r->n_sent, 4);
	expect_inv(b->r, 0, 1, v(NEWEST + 2, 1), 0, CHP_INV_BASE_UNKNOWN, "two");
	cr_assert_eq(b->r->sent[1].ack.version, v(50, 2));
	expect_inv(b->r, 2, 2, v(NEWEST + 2, 1), 0, CHP_INV_BASE_UNKNOWN, "two");
	expect_inv(b->r, 3, 2, v(NEWEST + 2, 1), 0, CHP_INV_BASE_UNKNOWN | CHP_INV_NACK, "two");
	backed_free(b);
}

Test(hermes_backed, p56_a_parked_read_gets_no_value_that_is_under_way)
{
	struct backed *b = backed_new(KEYS);

	submit(b->r, CHP_OPCODE_GET, "x", NULL);
	inv(b->r, 1, "x", v(50, 2), 0, 0, "new");
	found(b, "x", v(40, 2), "old");
	expect_ack(b->r, 1, v(50, 2));
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_answers, 0, "neither the new value nor, after our ACK, the old one");
	val(b->r, 1, v(50, 2));
	wake(b->r, CHP_BATCH_MAX);
	expect_answer(b->r, 0, CHP_OPCODE_GET, CHP_STATUS_OK, v(50, 2));
	backed_free(b);
}

Test(hermes_backed, a_read_that_waited_needs_the_lease_when_it_is_answered)
{
	struct backed *b = backed_new(KEYS);

	submit(b->r, CHP_OPCODE_GET, "x", NULL);
	found(b, "x", v(40, 2), "old");
	b->r->now.lease_until_ns = b->r->now.ns;
	wake(b->r, CHP_BATCH_MAX);
	expect_answer(b->r, 0, CHP_OPCODE_GET, CHP_STATUS_NOT_SERVING, 0);
	backed_free(b);
}

Test(hermes_backed, a_loaded_value_that_finds_no_room_is_not_taken)
{
	struct backed *b = backed_new(KEYS);
	char large[VALUE_MAX + 1] = { 0 };

	memset(large, 'l', VALUE_MAX);
	submit(b->r, CHP_OPCODE_GET, "x", NULL);
	fill_blocks(b, large);
	found(b, "x", v(40, 2), large);
	wake(b->r, CHP_BATCH_MAX);
	expect_answer(b->r, 0, CHP_OPCODE_GET, CHP_STATUS_OVERLOAD, 0);
	cr_assert(!is_cached(b, "x"));
	cr_assert_eq(b->r->counters.loads_failed, 1);
	backed_free(b);
}

Test(hermes_backed, long_keys_are_loaded_and_leave)
{
	struct backed *b = backed_new(1);
	char key[CHP_KEY_BYTES_MAX + 1] = { 0 };
	struct chp_cache_stats stats;

	memset(key, 'k', CHP_KEY_BYTES_MAX);
	load_key(b, key, v(40, 2), "one");
	submit(b->r, CHP_OPCODE_GET, key, NULL);
	expect_answer(b->r, 0, CHP_OPCODE_GET, CHP_STATUS_OK, v(40, 2));
	wake(b->r, CHP_BATCH_MAX);
	cr_assert(!is_cached(b, key));
	chp_cache_stats(b->r->env.cache, &stats);
	cr_assert_eq(stats.blocks, 0);
	cr_assert_eq(stats.evictions, 1);
	backed_free(b);
}

/* ------------------------------------------------------------------ FULL or OVERLOAD */

Test(hermes_backed, a_cache_full_of_what_is_not_saved_is_overloaded)
{
	struct backed *b = backed_new(2);

	put_valid(b->r, "x", "one");
	put_valid(b->r, "y", "one");
	submit(b->r, CHP_OPCODE_PUT, "z", "one");
	expect_answer(b->r, 0, CHP_OPCODE_PUT, CHP_STATUS_OVERLOAD, 0);
	submit(b->r, CHP_OPCODE_GET, "z", NULL);
	expect_answer(b->r, 0, CHP_OPCODE_GET, CHP_STATUS_OVERLOAD, 0);
	save(b);
	submit(b->r, CHP_OPCODE_PUT, "z", "one");
	cr_assert_eq(b->r->n_sent, 2, "something left at once");
	cr_assert(is_cached(b, "z"));
	cr_assert(!is_cached(b, "x") || !is_cached(b, "y"));
	backed_free(b);
}

Test(hermes_backed, s31_behind_a_volatile_store_the_data_set_must_fit)
{
	struct backed *b = backed_new(2);

	b->store.backing.may_evict = false;
	put_valid(b->r, "x", "one");
	put_valid(b->r, "y", "one");
	save(b);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert(is_cached(b, "x") && is_cached(b, "y"));
	submit(b->r, CHP_OPCODE_PUT, "z", "one");
	expect_answer(b->r, 0, CHP_OPCODE_PUT, CHP_STATUS_FULL, 0);
	backed_free(b);
}

/* ------------------------------------------------------------------ SAFETY 7: bases that are not known */

Test(hermes_backed, s7_what_follows_an_unknown_version_decides_nothing)
{
	struct backed *b = backed_new(KEYS);
	struct chp_hermes_inv m;

	load_key(b, "x", v(40, 2), "a");
	submit(b->r, CHP_OPCODE_APPEND, "x", "!");
	m = begun(b->r);
	ack(b->r, 1, &m);
	inv(b->r, 2, "x", m.version, v(40, 2), CHP_INV_RMW | CHP_INV_REPLAY, "a!");
	inv(b->r, 1, "x", v(200, 2), 0, CHP_INV_BASE_UNKNOWN, "b");
	val(b->r, 1, v(200, 2));
	expect_answer(b->r, 0, CHP_OPCODE_APPEND, CHP_STATUS_UNKNOWN_OUTCOME, 0);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_sent, 0, "and it is not done again");
	backed_free(b);
}

Test(hermes_backed, s7_a_known_base_below_aborts_though_the_key_was_loaded)
{
	struct backed *b = backed_new(KEYS);

	load_key(b, "x", v(40, 2), "a");
	submit(b->r, CHP_OPCODE_APPEND, "x", "!");
	inv(b->r, 1, "x", v(42, 2), v(40, 2), 0, "b");
	val(b->r, 1, v(42, 2));
	wake(b->r, CHP_BATCH_MAX);
	expect_inv(b->r, 0, 1, v(43, 1), v(42, 2), CHP_INV_RMW, "b!");
	cr_assert_eq(b->r->counters.aborts, 1);
	backed_free(b);
}

Test(hermes_backed, an_overtaken_write_completes_though_its_key_left_the_cache)
{
	struct backed *b = backed_new(1);
	struct chp_hermes_inv m;

	submit(b->r, CHP_OPCODE_PUT, "x", "one");
	m = begun(b->r);
	inv(b->r, 1, "x", v(200, 2), 0, CHP_INV_BASE_UNKNOWN, "two");
	val(b->r, 1, v(200, 2));
	save(b);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert(!is_cached(b, "x"));
	/* A view sends it again, from the log. */
	enter_view(b->r, 7, 0);
	expect_inv(b->r, 0, 1, v(NEWEST + 2, 1), 0, CHP_INV_BASE_UNKNOWN, "one");
	ack(b->r, 1, &m);
	cr_assert_eq(b->r->n_answers, 0);
	ack(b->r, 2, &m);
	expect_answer(b->r, 0, CHP_OPCODE_PUT, CHP_STATUS_OK, v(NEWEST + 2, 1));
	cr_assert_eq(b->r->n_sent, 0, "no VAL");
	backed_free(b);
}

/* ------------------------------------------------------------------ SAFETY 33: level `datastore` */

Test(hermes_backed, s33_a_write_needs_every_replica_and_a_majority_of_stores)
{
	struct backed *b = durable_new();
	struct chp_hermes_inv m;

	submit(b->r, CHP_OPCODE_PUT, "x", "one");
	m = begun(b->r);
	stored_from(b->r, 1, &m);
	stored_from(b->r, 2, &m);
	cr_assert_eq(b->r->n_answers, 0, "stores alone do not do");
	acked_by_all(b->r, &m);
	expect_answer(b->r, 0, CHP_OPCODE_PUT, CHP_STATUS_OK, v(NEWEST + 2, 1));
	cr_assert_eq(b->r->n_sent, 2);
	expect_val(b->r, 0, 1, v(NEWEST + 2, 1));
	backed_free(b);
}

Test(hermes_backed, s33_the_own_store_counts_and_one_alone_does_not)
{
	struct backed *b = durable_new();
	struct chp_hermes_inv m;

	submit(b->r, CHP_OPCODE_PUT, "x", "one");
	m = begun(b->r);
	acked_by_all(b->r, &m);
	stored_from(b->r, 1, &m);
	stored_from(b->r, 1, &m);
	cr_assert_eq(b->r->n_answers, 0);
	expect_state(b->r, "x", "Write v102.1 own v102");
	b->store.backing.durable = b->r->log.next - 1; /* everything before it */
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_answers, 0);
	b->store.backing.durable = b->r->log.next;
	wake(b->r, CHP_BATCH_MAX);
	expect_answer(b->r, 0, CHP_OPCODE_PUT, CHP_STATUS_OK, v(NEWEST + 2, 1));
	backed_free(b);
}

Test(hermes_backed, s33_it_is_the_majority_of_all_that_are_configured)
{
	struct backed *b = durable_new();

	enter_view(b->r, 1, 0); /* the others are dead */
	submit(b->r, CHP_OPCODE_PUT, "x", "one");
	save(b);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_answers, 0, "one of three stores");
	backed_free(b);
}

Test(hermes_backed, s33_reports_must_match_ticket_generation_and_version)
{
	struct backed *b = durable_new();
	struct chp_hermes_inv m, other;

	submit(b->r, CHP_OPCODE_PUT, "x", "one");
	m = begun(b->r);
	acked_by_all(b->r, &m);
	stored_from(b->r, 1, &m);
	other = m;
	other.generation++;
	stored_from(b->r, 2, &other);
	other = m;
	other.version++;
	stored_from(b->r, 2, &other);
	other = m;
	other.message.op = 100000;
	stored_from(b->r, 2, &other);
	cr_assert_eq(b->r->n_answers, 0);
	cr_assert_eq(b->r->counters.ack_stale, 3);
	backed_free(b);
}

Test(hermes_backed, s33_a_view_begins_anew)
{
	struct backed *b = durable_new();
	struct chp_hermes_inv m;

	submit(b->r, CHP_OPCODE_PUT, "x", "one");
	m = begun(b->r);
	ack(b->r, 1, &m);
	stored_from(b->r, 1, &m);
	stored_from(b->r, 2, &m);
	b->store.backing.durable = 0; /* starts over at each view */
	enter_view(b->r, 7, 0);
	cr_assert_eq(b->r->n_sent, 2, "the INV is sent again");
	acked_by_all(b->r, &m);
	cr_assert_eq(b->r->n_answers, 0);
	stored_from(b->r, 1, &m);
	cr_assert_eq(b->r->n_answers, 0);
	stored_from(b->r, 2, &m);
	cr_assert_eq(b->r->n_answers, 1);
	backed_free(b);
}

Test(hermes_backed, s33_a_link_that_comes_up_gets_what_it_has_not_reported)
{
	struct backed *b = durable_new();
	struct replica *r = b->r;
	struct chp_hermes_inv m;

	submit(r, CHP_OPCODE_PUT, "x", "one");
	m = begun(r);
	acked_by_all(r, &m);
	stored_from(r, 2, &m);
	for (uint32_t peer = 1; peer <= 2; peer++) {
		begin_call(r, CHP_BATCH_MAX);
		chp_hermes.link_down(r->p, &r->now, peer, &r->out);
		chp_hermes.link_up(r->p, &r->now, peer, &r->out);
		end_call(r);
		cr_assert_eq(r->n_sent, peer == 1, "2 has acknowledged and reported");
	}
	stored_from(r, 1, &m);
	cr_assert_eq(r->n_answers, 1);
	backed_free(b);
}

Test(hermes_backed, s33_a_follower_reports_when_its_store_has_it)
{
	struct backed *b = durable_new();

	inv(b->r, 1, "x", v(NEWEST + 2, 2), 0, 0, "one");
	expect_ack(b->r, 1, v(NEWEST + 2, 2));
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_sent, 0);
	save(b);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_sent, 1);
	cr_assert_eq(b->r->sent[0].to, 1);
	cr_assert_eq(b->r->sent[0].message.type, CHP_HERMES_STORED);
	cr_assert_eq(b->r->sent[0].message.op, 3);
	cr_assert_eq(b->r->sent[0].ack.generation, 73);
	cr_assert_eq(b->r->sent[0].ack.version, v(NEWEST + 2, 2));
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_sent, 0, "once");
	/* Sent again, after a link reset for one: it is durable already. */
	inv(b->r, 1, "x", v(NEWEST + 2, 2), 0, 0, "one");
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_sent, 1);
	cr_assert_eq(b->r->sent[0].message.type, CHP_HERMES_STORED);
	backed_free(b);
}

Test(hermes_backed, s33_a_follower_reports_a_stale_inv_when_the_newer_version_is_durable)
{
	struct backed *b = durable_new();

	inv(b->r, 2, "x", v(NEWEST + 4, 3), 0, 0, "new");
	inv(b->r, 1, "x", v(NEWEST + 2, 2), 0, 0, "old");
	expect_ack(b->r, 1, v(NEWEST + 2, 2));
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_sent, 0, "neither is in the store");
	save(b);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_sent, 2);
	cr_assert_eq(b->r->sent[0].ack.version, v(NEWEST + 2, 2));
	cr_assert_eq(b->r->sent[1].ack.version, v(NEWEST + 4, 3));
	backed_free(b);
}

Test(hermes_backed, s33_a_follower_whose_view_is_not_recorded_reports_nothing)
{
	struct backed *b = durable_new();

	load_key(b, "x", v(50, 3), "new");
	inv(b->r, 1, "x", v(48, 2), 0, 0, "old");
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_sent, 0, "the version is durable, but not yet as one of this view");
	b->store.backing.durable = 1;
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_sent, 1);
	cr_assert_eq(b->r->sent[0].message.type, CHP_HERMES_STORED);
	backed_free(b);
}

Test(hermes_backed, s33_what_is_owed_is_dropped_with_link_and_view)
{
	struct backed *b = durable_new();
	struct replica *r = b->r;
	struct sent second = inv_of("y", v(NEWEST + 4, 3), 0, 0, "two", 3);

	inv(r, 1, "x", v(NEWEST + 2, 2), 0, 0, "one");
	step(r, 2, &second.inv);
	begin_call(r, CHP_BATCH_MAX);
	chp_hermes.link_down(r->p, &r->now, 1, &r->out);
	end_call(r);
	save(b);
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_sent, 1);
	cr_assert_eq(r->sent[0].to, 2);
	step(r, 2, &second.inv);
	enter_view(r, 7, 0);
	wake(r, CHP_BATCH_MAX);
	for (uint32_t i = 0; i < r->n_sent; i++)
		cr_assert_neq(r->sent[i].message.type, CHP_HERMES_STORED);
	backed_free(b);
}

Test(hermes_backed, s33_a_replay_needs_the_stores_too)
{
	struct backed *b = durable_new();
	struct replica *r = b->r;
	struct chp_hermes_inv m;

	inv(r, 1, "x", v(NEWEST + 2, 2), 0, 0, "one");
	enter_view(r, 5, 0); /* its writer is dead */
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->sent[0].message.type, CHP_HERMES_INV);
	m = r->sent[0].inv;
	cr_assert_eq(m.inv_flags, CHP_INV_REPLAY);
	ack(r, 2, &m);
	expect_state(r, "x", "Replay v102.2");
	save(b);
	wake(r, CHP_BATCH_MAX);
	expect_state(r, "x", "Replay v102.2");
	stored_from(r, 2, &m);
	expect_state(r, "x", "Valid v102.2");
	backed_free(b);
}

/* As many replays wait for stores as there may be: the others have to be heard of all the same (SAFETY 25). */
Test(hermes_backed, s33_replays_that_wait_for_stores_give_way)
{
	struct backed *b = durable_new();
	struct replica *r = b->r;
	struct sent sent[64];
	uint64_t seen = 0;
	char key[8];

	for (uint32_t i = 0; i < 2 * CREDITS; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		inv(r, 1, key, v(NEWEST + 2 + i, 2), 0, 0, "one");
	}
	enter_view(r, 5, 0); /* their writer is dead */
	r->keeps_floors = true;
	wake(r, CHP_BATCH_MAX);
	for (uint32_t n = 0; n < 2 * CREDITS; n++) {
		const uint32_t n_sent = r->n_sent;

		memcpy(sent, r->sent, n_sent * sizeof(*sent));
		for (uint32_t i = 0; i < n_sent; i++) {
			if (sent[i].message.type == CHP_HERMES_FLOOR)
				cr_assert_eq(seen, (UINT64_C(1) << 2 * CREDITS) - 1, "behind all replays");
			if (sent[i].message.type != CHP_HERMES_INV)
				continue;
			seen |= UINT64_C(1) << ((sent[i].inv.version >> CHP_WRITER_BITS) - NEWEST - 2);
			ack(r, 2, &sent[i].inv);
		}
		wake(r, CHP_BATCH_MAX);
	}
	cr_assert_eq(seen, (UINT64_C(1) << 2 * CREDITS) - 1, "all were replayed");
	backed_free(b);
}

Test(hermes_backed, s33_sessions_are_not_stored_and_wait_for_no_store)
{
	struct backed *b = durable_new();
	struct replica *r = b->r;
	const uint64_t id = 0x0001000000000005;
	struct sent theirs = session_inv(0x0002000000000007, v(2, 2), 5);
	struct chp_hermes_inv m;

	submit_op(r, session_op(r, CHP_OPCODE_SESSION_OPEN, &id));
	m = begun(r);
	/* Its close waits for it, in the queue. */
	submit_op(r, session_op(r, CHP_OPCODE_SESSION_CLOSE, &id));
	acked_by_all(r, &m);
	expect_answer(r, 0, CHP_OPCODE_SESSION_OPEN, CHP_STATUS_OK, m.version);
	wake(r, CHP_BATCH_MAX);
	m = begun(r);
	acked_by_all(r, &m);
	expect_answer(r, 0, CHP_OPCODE_SESSION_CLOSE, CHP_STATUS_OK, m.version);
	step(r, 1, &theirs.inv);
	save(b);
	wake(r, CHP_BATCH_MAX);
	for (uint32_t i = 0; i < r->n_sent; i++)
		cr_assert_neq(r->sent[i].message.type, CHP_HERMES_STORED);
	backed_free(b);
}

Test(hermes_backed, s33_closed_sessions_are_forgotten_though_no_store_has_them)
{
	struct backed *b = durable_new();
	struct replica *r = b->r;
	struct chp_hermes_inv m;
	struct chp_cache_stats stats;
	uint64_t id = 0x0001000000000005;

	for (uint32_t i = 0; i < KEYS / 8 + 1; i++, id++) {
		submit_op(r, session_op(r, CHP_OPCODE_SESSION_OPEN, &id));
		m = begun(r);
		acked_by_all(r, &m);
		submit_op(r, session_op(r, CHP_OPCODE_SESSION_CLOSE, &id));
		m = begun(r);
		acked_by_all(r, &m);
	}
	wake(r, CHP_BATCH_MAX); /* raises the floor */
	floor_from(r, 1, m.version >> CHP_WRITER_BITS);
	for (uint32_t n = 0; n < 40; n++) {
		wake(r, CHP_BATCH_MAX);
		const uint32_t sent = r->n_sent;
		struct sent s[16];

		cr_assert_lt(sent, CHP_ARRAY_LEN(s));
		memcpy(s, r->sent, sent * sizeof(*s));
		for (uint32_t i = 0; i < sent; i++)
			if (s[i].message.type == CHP_HERMES_INV)
				ack(r, s[i].to, &s[i].inv);
		floor_from(r, 1, 1u << 12);
		floor_from(r, 2, 1u << 12);
	}
	chp_cache_stats(r->env.cache, &stats);
	cr_assert_lt(stats.tombstones, KEYS / 8 + 1, "some are gone");
	cr_assert_gt(r->counters.forgotten, 0);
	backed_free(b);
}

/* ------------------------------------------------------------------ SAFETY 9, 35: a learner */

static struct backed *
learner_new(uint32_t keys_max, uint32_t *transfer)
{
	struct backed *b = backed_created(keys_max);

	enter_view(b->r, 6, 1);
	store_begins(b);
	*transfer = transfer_asked(b->r);
	return b;
}

Test(hermes_backed, s9_what_is_copied_goes_to_the_store_past_the_cache)
{
	uint32_t transfer;
	struct backed *b = learner_new(KEYS, &transfer);

	copy_item(b->r, transfer, "x", v(3000, 2), "one");
	cr_assert(!is_cached(b, "x"));
	cr_assert_eq(chp_log_at(&b->r->log, b->r->log.next - 1)->version, v(3000, 2));
	cr_assert_eq(chp_log_unsettled(&b->r->log), 0, "committed");
	/* The store may have it now: an INV that is not above waits. */
	inv(b->r, 1, "y", v(3000, 2), 0, 0, "two");
	cr_assert_eq(b->r->n_sent, 0);
	backed_free(b);
}

Test(hermes_backed, s9_a_copied_key_is_not_loaded_before_it_is_durable)
{
	uint32_t transfer;
	struct backed *b = learner_new(KEYS, &transfer);

	copy_item(b->r, transfer, "x", v(300, 2), "new");
	/* A write that was overtaken, sent again because of the view: nobody will validate it. */
	inv(b->r, 2, "x", v(298, 3), 0, 0, "old");
	for (uint32_t i = 0; i < 3; i++) {
		b->r->now.ns += 1000000;
		wake(b->r, CHP_BATCH_MAX);
		cr_assert(!is_asked(b, "x"), "the store does not have it yet");
	}
	save(b);
	b->r->now.ns += 1000000;
	wake(b->r, CHP_BATCH_MAX);
	found(b, "x", v(300, 2), "new");
	expect_ack(b->r, 2, v(298, 3));
	expect_state(b->r, "x", "Valid v300.2");
	backed_free(b);
}

Test(hermes_backed, s9_a_learner_is_complete_when_its_store_has_everything)
{
	uint32_t transfer;
	struct backed *b = learner_new(KEYS, &transfer);

	floor_from(b->r, 1, 0);
	floor_from(b->r, 2, 0);
	copy_item(b->r, transfer, "x", v(300, 2), "new");
	copy_end(b->r, transfer);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert(!chp_hermes.copy_done(b->r->p));
	save(b);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert(chp_hermes.copy_done(b->r->p));
	backed_free(b);
}

Test(hermes_backed, s9_what_left_the_cache_of_a_learner_does_not_come_back_older)
{
	uint32_t transfer;
	struct backed *b = learner_new(1, &transfer);

	inv(b->r, 2, "x", v(300, 3), 0, 0, "new");
	val(b->r, 2, v(300, 3));
	save(b);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert(!is_cached(b, "x"));
	copy_item(b->r, transfer, "x", v(298, 2), "old");
	cr_assert(!is_cached(b, "x"), "the store keeps the newer");
	backed_free(b);
}

Test(hermes_backed, s9_an_item_is_taken_over_an_older_write_that_nobody_validates)
{
	uint32_t transfer;
	struct backed *b = learner_new(KEYS, &transfer);

	inv(b->r, 2, "x", v(298, 3), 0, 0, "old");
	copy_item(b->r, transfer, "x", v(300, 2), "new");
	expect_state(b->r, "x", "Valid v300.2");
	cr_assert_eq(chp_log_unsettled(&b->r->log), 0);
	backed_free(b);
}

static void
item_named(struct replica *r, uint32_t transfer, const char *key, uint64_t version)
{
	struct {
		struct chp_copy_item item;
		uint8_t bytes[64];
	} m = { .item = { .message = { .type = CHP_COPY_ITEM, .op = transfer },
			  .version = version,
			  .key_len = (uint8_t)strlen(key),
			  .item_flags = CHP_COPY_UNDER_WAY } };

	m.item.message.len = (uint16_t)chp_copy_item_bytes(m.item.key_len, 0);
	memcpy(m.bytes, key, m.item.key_len);
	step(r, 1, &m);
}

Test(hermes_backed, s33_a_learner_goes_on_only_if_it_has_what_is_under_way_at_its_source)
{
	uint32_t transfer;
	struct backed *b = learner_new(KEYS, &transfer);

	inv(b->r, 2, "x", v(300, 3), 0, 0, "new");
	item_named(b->r, transfer, "x", v(300, 3));
	cr_assert_eq(b->r->copy_counters.no_room, 0);
	expect_state(b->r, "x", "Invalid v300.3");
	item_named(b->r, transfer, "x", v(302, 2));
	cr_assert_eq(b->r->copy_counters.no_room, 1, "the chunk is asked for again");
	cr_assert_eq(b->r->copy_counters.stale, 0);
	expect_state(b->r, "x", "Invalid v300.3");
	backed_free(b);
}

Test(hermes_backed, s33_a_learner_that_has_nothing_of_what_is_under_way_waits_for_it)
{
	uint32_t transfer;
	struct backed *b = learner_new(KEYS, &transfer);

	b->store.backing.is_ready = false;
	item_named(b->r, transfer, "x", v(300, 3));
	cr_assert_eq(b->r->copy_counters.no_room, 1);
	cr_assert(!is_cached(b, "x"));
	backed_free(b);
}

Test(hermes_backed, s33_what_is_under_way_may_have_left_the_cache_of_a_learner)
{
	uint32_t transfer;
	struct backed *b = learner_new(1, &transfer);

	inv(b->r, 2, "x", v(300, 3), 0, 0, "new");
	val(b->r, 2, v(300, 3));
	save(b);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert(!is_cached(b, "x"));
	item_named(b->r, transfer, "x", v(300, 3));
	cr_assert_eq(b->r->copy_counters.no_room, 1);
	found(b, "x", v(300, 3), "new");
	expect_state(b->r, "x", "Valid v300.3");
	backed_free(b);
}

/* What a source sends for its first chunk. */
static void
request_from(struct replica *r, uint32_t from)
{
	struct chp_copy_request m = { .message = { .type = CHP_COPY_REQUEST, .len = sizeof(m), .op = 77 },
				      .bytes = CHP_COPY_BYTES_MAX };

	step(r, from, &m);
}

static bool
is_named(const struct replica *r, uint64_t version)
{
	for (uint32_t i = 0; i < r->n_sent; i++) {
		const struct chp_copy_item *m = (const void *)r->sent[i].bytes;

		if (m->message.type == CHP_COPY_ITEM && m->item_flags == CHP_COPY_UNDER_WAY && m->version == version)
			return true;
	}
	return false;
}

/* The write needs the learner's store, which counts when the copy is complete. */
static void
a_source_with_a_write_under_way(struct backed *b)
{
	enter_view(b->r, 3, 4);
	inv(b->r, 1, "x", v(300, 2), 0, 0, "new");
	request_from(b->r, 2);
	for (uint32_t n = 0; n < NODES; n++)
		b->r->out.lane[n].bulk_bytes = 4096;
	wake(b->r, CHP_BATCH_MAX);
	cr_assert(!is_named(b->r, v(300, 2)), "perhaps it is on its way to the learner");
	for (uint32_t n = 0; n < NODES; n++)
		b->r->out.lane[n].bulk_bytes = 4096;
	wake(b->r, CHP_BATCH_MAX);
}

Test(hermes_backed, s33_a_source_names_what_may_wait_for_the_copy)
{
	struct backed *b = durable_new();

	a_source_with_a_write_under_way(b);
	cr_assert(is_named(b->r, v(300, 2)));
	backed_free(b);
}

Test(hermes_backed, without_level_datastore_a_source_waits_until_the_write_is_over)
{
	struct backed *b = backed_new(KEYS);

	a_source_with_a_write_under_way(b);
	cr_assert(!is_named(b->r, v(300, 2)));
	cr_assert_gt(b->r->copy_counters.waits, 1);
	backed_free(b);
}

Test(hermes_backed, s31_behind_a_volatile_store_a_learner_keeps_what_it_copies)
{
	uint32_t transfer;
	struct backed *b = learner_new(KEYS, &transfer);

	b->store.backing.may_evict = false;
	copy_item(b->r, transfer, "x", v(300, 2), "one");
	expect_state(b->r, "x", "Valid v300.2");
	backed_free(b);
}

Test(hermes_backed, s35_what_an_earlier_life_left_at_a_learner_is_not_known_to_be_absent)
{
	uint32_t transfer;
	struct backed *b = learner_new(KEYS, &transfer);
	struct replica *r = b->r;

	inv(r, 1, "x", v(50, 2), 0, 0, "one");
	begin_call(r, CHP_BATCH_MAX);
	chp_hermes.link_down(r->p, &r->now, 1, &r->out);
	end_call(r);
	loaded(b, "x", (struct chp_loaded){ .status = CHP_LOAD_FOUND, .is_old = true, .version = v(60, 3) });
	cr_assert(!is_cached(b, "x"), "its copy has yet to come");
	backed_free(b);
}

/* ------------------------------------------------------------------ SAFETY 34: a cold start */

static void
fetched_of(struct replica *r, uint32_t from, const struct sent *fetch, uint8_t status, uint64_t version,
	   const char *value, uint64_t recorded)
{
	const struct chp_hermes_fetch *asked = (const void *)fetch->bytes;
	struct {
		struct chp_hermes_fetched header;
		char bytes[64];
	} m = { .header = { .message = { .type = CHP_HERMES_FETCHED, .op = asked->message.op },
			    .generation = asked->generation,
			    .status = status,
			    .version = version,
			    .recorded = recorded,
			    .value_total = (uint32_t)strlen(value) } };

	m.header.message.len =
		(uint16_t)chp_align_u32((uint32_t)(sizeof(m.header) + strlen(value)), CHP_MESSAGE_ALIGN);
	memcpy(m.bytes, value, strlen(value));
	step(r, from, &m);
}

static void
fetched(struct replica *r, uint32_t from, const struct sent *fetch, uint8_t status, uint64_t version, const char *value)
{
	fetched_of(r, from, fetch, status, version, value, 0);
}

static void
fetch_from(struct replica *r, uint32_t from, const char *key)
{
	struct {
		struct chp_hermes_fetch header;
		char bytes[64];
	} m = { .header = { .message = { .type = CHP_HERMES_FETCH, .op = 5 },
			    .generation = 9,
			    .key_len = (uint8_t)strlen(key) } };

	m.header.message.len = (uint16_t)chp_align_u32((uint32_t)(sizeof(m.header) + strlen(key)), CHP_MESSAGE_ALIGN);
	memcpy(m.bytes, key, strlen(key));
	step(r, from, &m);
}

static void
expect_fetched(struct replica *r, uint32_t to, uint8_t status, uint64_t version, const char *value)
{
	const struct chp_hermes_fetched *m = (const void *)r->sent[0].bytes;

	cr_assert_eq(r->n_sent, 1);
	cr_assert_eq(r->sent[0].to, to);
	cr_assert_eq(m->message.type, CHP_HERMES_FETCHED);
	cr_assert_eq(m->message.op, 5);
	cr_assert_eq(m->generation, 9);
	cr_assert_eq(m->status, status);
	cr_assert_eq(m->version, version);
	cr_assert_eq(m->value_total, strlen(value));
	cr_assert_arr_eq(m + 1, value, strlen(value));
}

/* All three members' stores hold what an earlier life of the cluster left. */
static struct backed *
source_new(void)
{
	struct backed *b = backed_created(KEYS);

	b->r->view.sources = 7;
	enter_view(b->r, 7, 0);
	floor_from(b->r, 1, 0);
	floor_from(b->r, 2, 0);
	store_begins(b);
	evicted_from(b->r, 1, NEWEST + 10);
	evicted_from(b->r, 2, NEWEST + 20);
	return b;
}

static void
found_old(struct backed *b, const char *key, uint64_t version, const char *value)
{
	loaded(b, key,
	       (struct chp_loaded){ .status = CHP_LOAD_FOUND,
				    .is_old = true,
				    .version = version,
				    .value = (const uint8_t *)value,
				    .value_len = (uint32_t)strlen(value) });
}

/* A read of "x", of which our own store has what an earlier life left: the two others are asked, `asked`. */
static void
ask_sources(struct backed *b, struct sent asked[2])
{
	submit(b->r, CHP_OPCODE_GET, "x", NULL);
	found_old(b, "x", v(60, 1), "older");
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_sent, 2);
	memcpy(asked, b->r->sent, 2 * sizeof(*asked));
}

Test(hermes_backed, s34_nothing_is_served_before_the_newest_of_every_source_is_known)
{
	struct backed *b = backed_created(KEYS);
	struct chp_op put = op_of(b->r, CHP_OPCODE_PUT, "x", "one");
	uint64_t number;

	b->r->view.sources = 7;
	enter_view(b->r, 7, 0);
	store_begins(b);
	evicted_from(b->r, 1, 500);
	cr_assert_eq(chp_hermes.admit(b->r->p, &b->r->now, &put, &number), CHP_STATUS_NOT_SERVING);
	evicted_from(b->r, 2, 700);
	cr_assert_eq(chp_hermes.admit(b->r->p, &b->r->now, &put, &number), CHP_STATUS_OK);
	submit(b->r, CHP_OPCODE_PUT, "x", "one");
	expect_inv(b->r, 0, 1, v(702, 1), 0, CHP_INV_BASE_UNKNOWN, "one");
	backed_free(b);
}

Test(hermes_backed, s34_the_newest_of_all_sources_is_written_again_and_read)
{
	struct backed *b = source_new();
	struct replica *r = b->r;
	struct sent asked[2];
	struct chp_hermes_inv m;

	ask_sources(b, asked);
	cr_assert_eq(asked[0].message.type, CHP_HERMES_FETCH);
	fetched(r, 1, &asked[0], CHP_HERMES_FETCH_FOUND, v(70, 3), "newest");
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_sent + r->n_answers, 0, "one has not answered");
	fetched(r, 2, &asked[1], CHP_HERMES_FETCH_FOUND, v(65, 2), "newer");
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_sent, 2);
	expect_inv(r, 0, 1, v(70, 3), 0, CHP_INV_BASE_UNKNOWN, "newest");
	cr_assert_eq(r->n_answers, 0, "not before all have it");
	m = r->sent[0].inv;
	acked_by_all(r, &m);
	wake(r, CHP_BATCH_MAX);
	expect_answer(r, 0, CHP_OPCODE_GET, CHP_STATUS_OK, v(70, 3));
	backed_free(b);
}

Test(hermes_backed, s34_what_no_source_has_is_absent)
{
	struct backed *b = source_new();
	struct sent asked[2];

	submit(b->r, CHP_OPCODE_GET, "x", NULL);
	not_found(b, "x");
	wake(b->r, CHP_BATCH_MAX);
	memcpy(asked, b->r->sent, sizeof(asked));
	fetched(b->r, 1, &asked[0], CHP_HERMES_FETCH_ABSENT, 0, "");
	fetched(b->r, 2, &asked[1], CHP_HERMES_FETCH_ABSENT, 0, "");
	wake(b->r, CHP_BATCH_MAX);
	expect_answer(b->r, 0, CHP_OPCODE_GET, CHP_STATUS_NOT_FOUND, 0);
	backed_free(b);
}

Test(hermes_backed, s34_a_source_that_cannot_tell_is_asked_again)
{
	struct backed *b = source_new();
	struct replica *r = b->r;
	struct sent asked[2];

	submit(r, CHP_OPCODE_GET, "x", NULL);
	not_found(b, "x");
	wake(r, CHP_BATCH_MAX);
	memcpy(asked, r->sent, sizeof(asked));
	fetched(r, 1, &asked[0], CHP_HERMES_FETCH_AGAIN, 0, "");
	fetched(r, 2, &asked[1], CHP_HERMES_FETCH_ABSENT, 0, "");
	r->now.ns += 2000000;
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_sent, 1);
	cr_assert_eq(r->sent[0].to, 1);
	fetched(r, 1, &asked[0], CHP_HERMES_FETCH_ABSENT, 0, "");
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_answers, 1);
	/* An answer to what is not asked any more. */
	fetched(r, 1, &asked[0], CHP_HERMES_FETCH_FOUND, v(70, 3), "late");
	cr_assert_eq(r->counters.fetches_stale, 1);
	backed_free(b);
}

Test(hermes_backed, s34_an_inv_ends_the_question)
{
	struct backed *b = source_new();
	struct replica *r = b->r;
	struct sent asked[2];

	ask_sources(b, asked);
	inv(r, 1, "x", v(70, 3), 0, CHP_INV_BASE_UNKNOWN, "newest");
	expect_ack(r, 1, v(70, 3));
	fetched(r, 2, &asked[1], CHP_HERMES_FETCH_FOUND, v(65, 2), "newer");
	cr_assert_eq(r->counters.fetches_stale, 1);
	val(r, 1, v(70, 3));
	wake(r, CHP_BATCH_MAX);
	expect_answer(r, 0, CHP_OPCODE_GET, CHP_STATUS_OK, v(70, 3));
	backed_free(b);
}

Test(hermes_backed, s34_two_that_reconcile_one_key_agree)
{
	struct backed *b = source_new();
	struct replica *r = b->r;
	struct sent asked[2];

	ask_sources(b, asked);
	fetched(r, 1, &asked[0], CHP_HERMES_FETCH_FOUND, v(70, 3), "newest");
	fetched(r, 2, &asked[1], CHP_HERMES_FETCH_ABSENT, 0, "");
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_sent, 2);
	inv(r, 1, "x", v(70, 3), 0, CHP_INV_BASE_UNKNOWN, "newest");
	expect_ack(r, 1, v(70, 3));
	val(r, 1, v(70, 3));
	wake(r, CHP_BATCH_MAX);
	expect_answer(r, 0, CHP_OPCODE_GET, CHP_STATUS_OK, v(70, 3));
	backed_free(b);
}

Test(hermes_backed, s34_a_source_tells_what_its_store_or_cache_has)
{
	struct backed *b = source_new();
	struct replica *r = b->r;

	fetch_from(r, 1, "x");
	cr_assert_eq(r->n_sent, 0);
	/* What an earlier life left is told, and not taken for the key's version here. */
	found_old(b, "x", v(60, 1), "older");
	expect_fetched(r, 1, CHP_HERMES_FETCH_FOUND, v(60, 1), "older");
	cr_assert(!is_cached(b, "x"));
	inv(r, 2, "y", v(70, 3), 0, CHP_INV_BASE_UNKNOWN, "newest");
	not_found(b, "y");
	fetch_from(r, 1, "y");
	expect_fetched(r, 1, CHP_HERMES_FETCH_UNDER_WAY, v(70, 3), "");
	val(r, 2, v(70, 3));
	fetch_from(r, 1, "y");
	expect_fetched(r, 1, CHP_HERMES_FETCH_FOUND, v(70, 3), "newest");
	b->store.backing.is_ready = false;
	fetch_from(r, 1, "z");
	expect_fetched(r, 1, CHP_HERMES_FETCH_AGAIN, 0, "");
	backed_free(b);
}

Test(hermes_backed, s34_a_read_modify_write_follows_what_was_reconciled)
{
	struct backed *b = source_new();
	struct replica *r = b->r;
	struct sent asked[2];
	struct chp_hermes_inv m;

	submit(r, CHP_OPCODE_APPEND, "x", "!");
	found_old(b, "x", v(60, 1), "older");
	wake(r, CHP_BATCH_MAX);
	memcpy(asked, r->sent, sizeof(asked));
	fetched(r, 1, &asked[0], CHP_HERMES_FETCH_FOUND, v(70, 3), "newest");
	fetched(r, 2, &asked[1], CHP_HERMES_FETCH_ABSENT, 0, "");
	wake(r, CHP_BATCH_MAX);
	m = begun(r);
	acked_by_all(r, &m);
	wake(r, CHP_BATCH_MAX);
	expect_inv(r, 0, 1, v(71, 1), v(70, 3), CHP_INV_RMW, "newest!");
	backed_free(b);
}

Test(hermes_backed, s34_a_view_without_a_source_does_not_wait_for_it)
{
	struct backed *b = source_new();
	struct replica *r = b->r;
	struct sent asked[2];

	ask_sources(b, asked);
	fetched(r, 1, &asked[0], CHP_HERMES_FETCH_FOUND, v(55, 3), "oldest");
	enter_view(r, 3, 0);
	wake(r, CHP_BATCH_MAX);
	fetched(r, 1, &asked[0], CHP_HERMES_FETCH_FOUND, v(55, 3), "oldest");
	wake(r, CHP_BATCH_MAX);
	expect_inv(r, 0, 1, v(60, 1), 0, CHP_INV_BASE_UNKNOWN, "older");
	backed_free(b);
}

Test(hermes_backed, s34_when_all_is_reconciled_what_was_asked_of_sources_is_loaded)
{
	struct backed *b = source_new();
	struct replica *r = b->r;

	submit(r, CHP_OPCODE_GET, "x", NULL);
	found_old(b, "x", v(60, 1), "older");
	wake(r, CHP_BATCH_MAX);
	cr_assert_eq(r->n_sent, 2);
	r->view.sources = 0;
	enter_view(r, 7, 0);
	r->now.ns += 1000000;
	wake(r, CHP_BATCH_MAX);
	cr_assert(is_asked(b, "x"), "the own store has it now");
	found(b, "x", v(70, 3), "newest");
	wake(r, CHP_BATCH_MAX);
	expect_answer(r, 0, CHP_OPCODE_GET, CHP_STATUS_OK, v(70, 3));
	backed_free(b);
}

/* [Rank] What a store says that knows of more views of the generation counts, though it is that there is nothing. */
Test(hermes_backed, s34_what_is_left_of_a_key_that_is_gone_is_overwritten)
{
	struct backed *b = source_new();
	struct replica *r = b->r;
	struct sent asked[2];

	ask_sources(b, asked);
	fetched_of(r, 1, &asked[0], CHP_HERMES_FETCH_ABSENT, 0, "", 9);
	fetched(r, 2, &asked[1], CHP_HERMES_FETCH_ABSENT, 0, "");
	wake(r, CHP_BATCH_MAX);
	expect_inv(r, 0, 1, v(60, 1), 0, CHP_INV_BASE_UNKNOWN | CHP_INV_TOMBSTONE, "");
	backed_free(b);
}

Test(hermes_backed, s34_two_that_ask_each_other_tell_whose_word_it_is)
{
	struct backed *b = source_new();
	struct replica *r = b->r;
	struct sent asked[2];
	const struct chp_hermes_fetched *told;

	submit(r, CHP_OPCODE_GET, "x", NULL);
	not_found(b, "x");
	wake(r, CHP_BATCH_MAX);
	memcpy(asked, r->sent, sizeof(asked));
	fetched_of(r, 2, &asked[1], CHP_HERMES_FETCH_FOUND, v(70, 3), "newest", 9);
	fetch_from(r, 1, "x");
	expect_fetched(r, 1, CHP_HERMES_FETCH_FOUND, v(70, 3), "newest");
	told = (const void *)r->sent[0].bytes;
	cr_assert_eq(told->recorded, 9, "of the store that has it, not of ours");
	backed_free(b);
}

/* ------------------------------------------------------------------ SAFETY 33 and 34 */

/* A source at level `datastore`, in the first view of a generation; what it loads of "x" is reconciled: its INV. */
static struct chp_hermes_inv
reconciling(struct backed *b)
{
	struct replica *r = b->r;
	struct sent asked[2];

	b->store.backing.is_durable = true;
	ask_sources(b, asked);
	fetched(r, 1, &asked[0], CHP_HERMES_FETCH_ABSENT, 0, "");
	fetched(r, 2, &asked[1], CHP_HERMES_FETCH_ABSENT, 0, "");
	wake(r, CHP_BATCH_MAX);
	return begun(r);
}

Test(hermes_backed, s33_what_is_reconciled_is_told_when_a_majority_of_stores_has_it)
{
	struct backed *b = source_new();
	struct chp_hermes_inv m = reconciling(b);

	acked_by_all(b->r, &m);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_answers, 0, "one store alone may not be there the next time");
	save(b);
	wake(b->r, CHP_BATCH_MAX);
	cr_assert_eq(b->r->n_answers, 0);
	stored_from(b->r, 2, &m);
	wake(b->r, CHP_BATCH_MAX);
	expect_answer(b->r, 0, CHP_OPCODE_GET, CHP_STATUS_OK, v(60, 1));
	backed_free(b);
}

Test(hermes_backed, s33_after_the_first_view_only_what_is_reconciled_counts_on_stores)
{
	struct backed *b = source_new();
	struct replica *r = b->r;
	struct chp_hermes_inv m = reconciling(b), mine;

	r->view.epoch++; /* not the first any more */
	submit(r, CHP_OPCODE_PUT, "y", "new");
	mine = begun(r);
	enter_view(r, 3, 0);
	ack(r, 1, &mine);
	ack(r, 1, &m);
	stored_from(r, 1, &mine);
	save(b);
	stored_from(r, 1, &m);
	wake(r, CHP_BATCH_MAX);
	expect_state(r, "x", "Valid v60.1");
	expect_state(r, "y", "Write v122.1 own v122");
	/* Now stores have recorded a view. */
	r->view.sources = 0;
	enter_view(r, 3, 0);
	ack(r, 1, &mine);
	stored_from(r, 1, &mine);
	wake(r, CHP_BATCH_MAX);
	expect_state(r, "y", "Valid v122.1");
	backed_free(b);
}

Test(hermes_backed, s34_clients_leave_credits_for_what_has_to_be_reconciled)
{
	struct backed *b = source_new();
	struct replica *r = b->r;
	char key[8];

	b->store.backing.is_durable = true;
	for (uint32_t i = 0; i < CREDITS / 2; i++) {
		snprintf(key, sizeof(key), "y%u", i);
		submit(r, CHP_OPCODE_PUT, key, "new");
		cr_assert_eq(r->n_answers, 0);
	}
	submit(r, CHP_OPCODE_PUT, "z", "new");
	expect_answer(r, 0, CHP_OPCODE_PUT, CHP_STATUS_BUSY, 0);
	reconciling(b);
	backed_free(b);
}

Test(hermes_backed, s33_a_write_that_waits_for_stores_does_not_hold_the_log_up)
{
	struct backed *b = durable_new();
	struct replica *r = b->r;
	struct chp_hermes_inv mine;

	submit(r, CHP_OPCODE_PUT, "x", "mine");
	mine = begun(r);
	inv(r, 1, "y", v(300, 2), 0, 0, "theirs");
	for (uint32_t i = 0; i < 1000; i++) {
		const uint64_t version = v(302 + 2 * i, 3);

		inv(r, 2, "z", version, 0, 0, "others");
		val(r, 2, version);
		chp_log_set_mark(&r->log, r->log.next);
		wake(r, CHP_BATCH_MAX);
		chp_log_compact(&r->log, 64);
		cr_assert_lt(r->log.next - r->log.head, 100);
	}
	expect_state(r, "x", "Write v102.1 own v102");
	enter_view(r, 7, 0);
	expect_inv(r, 0, 1, v(NEWEST + 2, 1), 0, CHP_INV_BASE_UNKNOWN, "mine");
	acked_by_all(r, &mine);
	stored_from(r, 1, &mine);
	stored_from(r, 2, &mine);
	wake(r, CHP_BATCH_MAX);
	expect_state(r, "x", "Valid v102.1");
	expect_value(r, "x", "mine");
	expect_state(r, "y", "Replay v300.2");
	backed_free(b);
}
