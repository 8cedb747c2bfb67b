/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Three replicas of Hermes, each with a small cache in front of a store of its own, and everything in any order:
 * messages, operations, loads that succeed or fail, write-behind, links that are reset, views. After every call all
 * invariants of the replica are checked; in the end what clients were told is compared with one order by version, and
 * the replicas with each other.
 */
#include "../support/hermes_replica.h"
#include "base/random.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPACE 20u     /* keys that clients use */
#define STEPS 20000u
#define OPS_MAX 4000u
#define QUEUE 4096u
#define LOADS 8u

struct item {
	uint64_t version;
	uint32_t len;
	uint8_t flags;
	uint8_t value[VALUE_MAX];
};

struct load {
	bool is_open;
	uint32_t key;
};

struct node {
	struct chp_backing backing; /* first: the protocol's calls come back with it */
	struct load load[LOADS];
	uint32_t loads_max;
	struct item item[SPACE];
	struct replica *r;
	struct node *nodes;
	uint32_t id;
	bool is_dead;
};

struct flight {
	uint64_t epoch;
	struct sent sent;
};

struct queue {
	struct flight *flight;
	uint32_t head, tail;
};

/* What a client asked for and was told. */
struct op {
	uint32_t key, node;
	uint64_t begun, ended; /* steps; 0: not ended */
	uint64_t version;
	uint32_t len;
	uint8_t opcode, status;
	char value[VALUE_MAX + 1]; /* of a read */
};

struct cluster {
	struct chp_random random;
	struct node node[NODES];
	struct queue queue[NODES][NODES];
	bool is_down[NODES][NODES];
	struct chp_view view;
	struct op op[OPS_MAX];
	uint32_t n_ops;
	uint64_t session, sessions_opened; /* the one that is open, if it was not refused */
	uint64_t step;
	bool is_durable;
};

struct world {
	uint32_t keys_max, loads_max;
	bool is_durable, kills;
};

/* ------------------------------------------------------------------ stores */

static void
name_key(uint32_t key, char *to)
{
	/* Some keys are long: they live in blocks. */
	snprintf(to, 64, key % 5 == 0 ? "a-long-key-that-does-not-fit-in-a-slot-of-the-cache-%02u" : "k%02u", key);
}

static uint32_t
number_of(const uint8_t *key, uint32_t len)
{
	return (uint32_t)(key[len - 2] - '0') * 10 + (uint32_t)(key[len - 1] - '0');
}

static bool
ask_load(struct chp_backing *backing, const struct chp_key *key, uint32_t *token)
{
	struct node *n = (struct node *)backing;

	for (uint32_t i = 0; i < n->loads_max; i++) {
		if (n->load[i].is_open)
			continue;
		n->load[i] = (struct load){ .is_open = true, .key = number_of(key->bytes, key->len) };
		*token = i;
		return true;
	}
	return false;
}

/* Some were not asked yet; the others are answered all the same. */
static void
drop_load(struct chp_backing *backing, uint32_t token)
{
	struct node *n = (struct node *)backing;

	if (n->load[token].key % 2 == 0)
		n->load[token].is_open = false;
}

static bool
ask_scan(struct chp_backing *backing, uint32_t scan, bool from_start, bool only_old, uint32_t bytes)
{
	(void)backing, (void)scan, (void)from_start, (void)only_old, (void)bytes;
	return false;
}

static void
store_entry(struct node *n, const struct chp_log_entry *e)
{
	uint8_t key[CHP_KEY_BYTES_MAX];
	struct item *item;

	if ((e->version_flags & CHP_SLOT_SESSION) != 0)
		return;
	chp_log_key(&n->r->log, e, key);
	item = &n->item[number_of(key, e->key_len)];
	if (item->version >= e->version)
		return;
	item->version = e->version;
	item->flags = e->version_flags & (CHP_SLOT_RMW | CHP_SLOT_TOMBSTONE);
	item->len = e->value_len;
	chp_log_value(&n->r->log, e, item->value);
}

/* Write some of the log behind: what is committed, and with level `datastore` what is not. */
static void
save(struct cluster *c, struct node *n, uint32_t most)
{
	struct chp_log *l = &n->r->log;
	uint64_t pos = l->mark;

	for (; pos < l->next && most > 0; pos++, most--) {
		const struct chp_log_entry *e = chp_log_at(l, pos);

		if (!c->is_durable && (e->flags & CHP_LOG_COMMITTED) == 0)
			break;
		store_entry(n, e);
	}
	chp_log_set_mark(l, pos);
	n->backing.durable = l->mark;
}

/* ------------------------------------------------------------------ calls and their effects */

static void
record_answer(struct cluster *c, const struct answer *a)
{
	struct op *op = &c->op[a->reply.request];

	if (a->reply.request == 0)
		return; /* of a session */
	cr_assert_lt(a->reply.request, c->n_ops);
	cr_assert_eq(op->ended, 0, "answered twice");
	op->ended = c->step;
	op->status = a->reply.status;
	op->version = a->reply.version;
	op->len = a->reply.value_len;
	memcpy(op->value, a->value, op->len);
	op->value[op->len] = '\0';
}

static void
flush(struct cluster *c, struct node *n)
{
	struct replica *r = n->r;

	for (uint32_t i = 0; i < r->n_sent; i++) {
		struct queue *q = &c->queue[n->id][r->sent[i].to];

		if (c->is_down[n->id][r->sent[i].to] || c->node[r->sent[i].to].is_dead)
			continue;
		cr_assert_lt(q->tail - q->head, QUEUE);
		q->flight[q->tail++ % QUEUE] = (struct flight){ .epoch = r->view.epoch, .sent = r->sent[i] };
	}
	for (uint32_t i = 0; i < r->n_answers; i++)
		record_answer(c, &r->answer[i]);
	r->n_sent = r->n_answers = 0;
	chp_log_compact(&r->log, 256);
	cr_assert_eq(r->counters.overrun, 0);
}

/* Operations may begin while every replica has room for all that is open. */
static void
set_credits(struct cluster *c, struct node *n)
{
	for (uint32_t i = 0; i < NODES; i++) {
		struct replica *to = c->node[i].r;
		const uint32_t room = chp_min_u32(chp_log_room_records(&to->log), chp_cache_room(to->env.cache));

		n->r->out.lane[i].credits = room > (NODES + 1) * CREDITS ? 1 : 0;
	}
}

static void
run_wake(struct cluster *c, struct node *n, uint32_t replies)
{
	set_credits(c, n);
	wake(n->r, replies);
	flush(c, n);
}

static void
deliver(struct cluster *c, uint32_t from, uint32_t to)
{
	struct queue *q = &c->queue[from][to];
	struct node *n = &c->node[to];
	struct flight f;

	if (q->head == q->tail || q->flight[q->head % QUEUE].epoch > n->r->view.epoch)
		return;
	f = q->flight[q->head++ % QUEUE];
	if (f.epoch < n->r->view.epoch)
		return;
	step(n->r, from, &f.sent.message);
	flush(c, n);
}

static void
answer_load(struct cluster *c, struct node *n, uint32_t token, bool fails)
{
	struct load *l = &n->load[token];
	const struct item *item = &n->item[l->key];
	struct chp_loaded answer = { .token = token,
				     .version = item->version,
				     .version_flags = item->flags,
				     .value = item->value,
				     .value_len = item->len };

	if (!l->is_open)
		return;
	l->is_open = false;
	if (fails)
		answer.status = CHP_LOAD_FAILED;
	else if (item->version == 0)
		answer.status = CHP_LOAD_ABSENT;
	else if ((item->flags & CHP_SLOT_TOMBSTONE) != 0)
		answer.status = CHP_LOAD_TOMBSTONE;
	begin_call(n->r, CHP_BATCH_MAX);
	chp_hermes.loaded(n->r->p, &n->r->now, &answer, 1, &n->r->out);
	end_call(n->r);
	flush(c, n);
}

static void
link_event(struct cluster *c, uint32_t at, uint32_t peer,
	   void (*event)(void *, const struct chp_now *, uint32_t, struct chp_out *))
{
	struct node *n = &c->node[at];

	if (n->is_dead)
		return;
	begin_call(n->r, CHP_BATCH_MAX);
	event(n->r->p, &n->r->now, peer, &n->r->out);
	end_call(n->r);
	flush(c, n);
}

static void
flip_link(struct cluster *c, uint32_t a, uint32_t b)
{
	const bool goes_down = !c->is_down[a][b];

	c->is_down[a][b] = c->is_down[b][a] = goes_down;
	c->queue[a][b].head = c->queue[a][b].tail;
	c->queue[b][a].head = c->queue[b][a].tail;
	link_event(c, a, b, goes_down ? chp_hermes.link_down : chp_hermes.link_up);
	link_event(c, b, a, goes_down ? chp_hermes.link_down : chp_hermes.link_up);
}

static void
enter(struct cluster *c, struct node *n)
{
	if (n->is_dead || n->r->view.epoch == c->view.epoch)
		return;
	n->backing.durable = 0;
	n->r->view = c->view;
	begin_call(n->r, CHP_BATCH_MAX);
	chp_hermes.view(n->r->p, &n->r->now, &n->r->view, &n->r->out);
	end_call(n->r);
	flush(c, n);
}

static bool
all_entered(const struct cluster *c)
{
	for (uint32_t i = 0; i < NODES; i++)
		if (!c->node[i].is_dead && c->node[i].r->view.epoch != c->view.epoch)
			return false;
	return true;
}

static void
kill_node(struct cluster *c, uint32_t id)
{
	c->node[id].is_dead = true;
	c->view.voters &= ~chp_bit(id);
	c->view.epoch++;
}

/* ------------------------------------------------------------------ operations */

static void
submit_random(struct cluster *c, struct node *n)
{
	static const uint8_t opcodes[] = { CHP_OPCODE_GET, CHP_OPCODE_GET,    CHP_OPCODE_GET,   CHP_OPCODE_PUT,
					   CHP_OPCODE_PUT, CHP_OPCODE_APPEND, CHP_OPCODE_APPEND, CHP_OPCODE_DELETE,
					   CHP_OPCODE_ADD };
	const uint32_t id = c->n_ops;
	struct op *op = &c->op[id];
	char key[64], value[VALUE_MAX + 1] = { 0 };
	struct chp_op request;
	uint64_t number;

	if (id == OPS_MAX)
		return;
	*op = (struct op){ .key = (uint32_t)chp_random_below(&c->random, SPACE),
			   .node = n->id,
			   .begun = c->step,
			   .opcode = opcodes[chp_random_below(&c->random, sizeof(opcodes))] };
	name_key(op->key, key);
	if (op->opcode == CHP_OPCODE_PUT || op->opcode == CHP_OPCODE_ADD)
		snprintf(value, sizeof(value), "%u%.*s;", id, (int)chp_random_below(&c->random, 60),
			 "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz");
	else if (op->opcode == CHP_OPCODE_APPEND)
		snprintf(value, sizeof(value), "%u;", id);
	request = op_of(n->r, op->opcode, key, value);
	request.request = id;
	if (chp_hermes.admit(n->r->p, &n->r->now, &request, &number) != CHP_STATUS_OK)
		return;
	c->n_ops++;
	set_credits(c, n);
	submit_op(n->r, request);
	flush(c, n);
}

/* A session comes and goes: it takes a slot, tickets and log entries, and never a store's time. */
static void
submit_session(struct cluster *c, struct node *n)
{
	const bool opens = c->session == 0;
	uint64_t id = opens ? UINT64_C(1) << 48 | ++c->sessions_opened : c->session;
	struct chp_op op = { .opcode = opens ? CHP_OPCODE_SESSION_OPEN : CHP_OPCODE_SESSION_CLOSE,
			     .key = { .bytes = (const uint8_t *)&id, .len = sizeof(id), .session = true, .pos = -1 } };
	uint64_t number;

	if (chp_hermes.admit(n->r->p, &n->r->now, &op, &number) != CHP_STATUS_OK)
		return;
	op.key.digest = chp_cache_digest(n->r->env.cache, op.key.bytes, op.key.len, true);
	set_credits(c, n);
	submit_op(n->r, op);
	flush(c, n);
	c->session = opens ? id : 0;
}

/* ------------------------------------------------------------------ a run */

static void
something_happens(struct cluster *c, const struct world *w)
{
	const uint32_t a = (uint32_t)chp_random_below(&c->random, NODES);
	const uint32_t b = (a + 1 + (uint32_t)chp_random_below(&c->random, NODES - 1)) % NODES;
	struct node *n = &c->node[a];
	const uint64_t what = chp_random_below(&c->random, 1000);

	c->step++;
	for (uint32_t i = 0; i < NODES; i++)
		c->node[i].r->now.ns += chp_random_below(&c->random, 200000);
	if (n->is_dead)
		return;
	if (c->is_down[a][b] && what < 20)
		flip_link(c, a, b);
	else if (!n->backing.is_ready && what < 40)
		n->backing.is_ready = true;
	else if (what < 480)
		deliver(c, b, a);
	else if (what < 560)
		submit_random(c, n);
	else if (what < 720)
		run_wake(c, n, (uint32_t)chp_random_below(&c->random, 6));
	else if (what < 850)
		answer_load(c, n, (uint32_t)chp_random_below(&c->random, w->loads_max),
			    chp_random_chance(&c->random, 150000));
	else if (what < 970)
		save(c, n, (uint32_t)chp_random_below(&c->random, 16));
	else if (what < 985)
		enter(c, n);
	else if (what < 990 && w->keys_max > 8)
		submit_session(c, n);
	else if (what == 991)
		n->backing.is_ready = false;
	else if (what == 992 && !c->is_down[a][b])
		flip_link(c, a, b);
	else if (what == 993 && all_entered(c))
		c->view.epoch++;
	else if (what == 994 && w->kills && c->step > STEPS / 2 && all_entered(c) && c->view.voters == 7)
		kill_node(c, a);
}

static bool
is_idle(const struct cluster *c)
{
	for (uint32_t i = 0; i < NODES; i++) {
		if (c->node[i].is_dead)
			continue;
		if (chp_hermes.open_ops(c->node[i].r->p) > 0 || chp_log_unsettled(&c->node[i].r->log) > 0)
			return false;
		for (uint32_t j = 0; j < NODES; j++)
			if (c->queue[j][i].head != c->queue[j][i].tail)
				return false;
	}
	return true;
}

/* Everything works again: what is open must end. */
static void
settle(struct cluster *c)
{
	for (uint32_t a = 0; a < NODES; a++) {
		c->node[a].backing.is_ready = true;
		for (uint32_t b = 0; b < a; b++)
			if (c->is_down[a][b])
				flip_link(c, a, b);
	}
	for (uint32_t round = 0; round < 2000 && (round < 10 || !is_idle(c)); round++) {
		c->step++;
		for (uint32_t a = 0; a < NODES; a++) {
			struct node *n = &c->node[a];

			n->r->now.ns += 200000;
			if (n->is_dead)
				continue;
			enter(c, n);
			for (uint32_t b = 0; b < NODES; b++)
				while (c->queue[b][a].head != c->queue[b][a].tail &&
				       c->queue[b][a].flight[c->queue[b][a].head % QUEUE].epoch <= n->r->view.epoch)
					deliver(c, b, a);
			for (uint32_t i = 0; i < LOADS; i++)
				answer_load(c, n, i, false);
			run_wake(c, n, CHP_BATCH_MAX);
			save(c, n, UINT32_MAX);
		}
	}
	cr_assert(is_idle(c), "something never ends");
}

/* ------------------------------------------------------------------ what clients were told */

static bool
has_part(const char *value, uint32_t id)
{
	char part[16];
	const char *at = value;

	snprintf(part, sizeof(part), "%u;", id);
	while ((at = strstr(at, part)) != NULL) {
		if (at == value || at[-1] == ';')
			return true;
		at++;
	}
	return (uint32_t)strtoul(value, NULL, 10) == id;
}

static uint32_t
parts(const char *value, uint32_t id)
{
	uint32_t n = 0;

	for (const char *at = value; *at != '\0'; at = strchr(at, ';') + 1)
		n += (uint32_t)strtoul(at, NULL, 10) == id;
	return n;
}

static bool
is_refused(const struct op *op)
{
	return op->ended != 0 && op->status != CHP_STATUS_OK && op->status != CHP_STATUS_UNKNOWN_OUTCOME;
}

static bool
has_written(const struct op *op)
{
	return op->opcode != CHP_OPCODE_GET && op->ended != 0 && op->status == CHP_STATUS_OK;
}

static bool
has_read(const struct op *op)
{
	return op->opcode == CHP_OPCODE_GET && op->ended != 0 && op->status == CHP_STATUS_OK;
}

/* What a read says against one other operation on the same key. */
static void
check_read(const struct cluster *c, uint32_t read, uint32_t other)
{
	const struct op *r = &c->op[read], *o = &c->op[other];

	if (has_read(o) && o->version == r->version)
		cr_assert_str_eq(r->value, o->value, "one version, two values");
	if (o->ended != 0 && o->ended < r->begun && (has_read(o) || has_written(o)))
		cr_assert_leq(o->version, r->version, "op %u read what was older than op %u", read, other);
	if (o->opcode == CHP_OPCODE_GET || o->opcode == CHP_OPCODE_DELETE)
		return;
	cr_assert_leq(parts(r->value, other), 1, "op %u was applied twice: %s", other, r->value);
	if (has_part(r->value, other)) {
		cr_assert(!is_refused(o), "op %u was refused and applied", other);
		cr_assert_leq(o->begun, r->ended);
		cr_assert(!has_written(o) || o->version <= r->version);
	}
}

/* What was appended to a value that is still there is there. */
static void
check_appended(const struct cluster *c, uint32_t read, uint32_t append)
{
	const struct op *r = &c->op[read], *a = &c->op[append], *base;

	if (a->opcode != CHP_OPCODE_APPEND || !has_written(a) || a->version > r->version)
		return;
	base = &c->op[strtoul(r->value, NULL, 10)];
	if (has_written(base) && base->version < a->version)
		cr_assert(has_part(r->value, append), "op %u v%lx is lost in v%lx: %s", append, a->version, r->version,
			  r->value);
}

static void
check_absent(const struct cluster *c, uint32_t read)
{
	const struct op *r = &c->op[read], *newest = NULL;

	for (uint32_t i = 1; i < c->n_ops; i++) {
		const struct op *o = &c->op[i];

		if (o->key == r->key && o->ended != 0 && o->ended < r->begun &&
		    (has_read(o) || (has_written(o) && o->opcode != CHP_OPCODE_DELETE)) &&
		    (newest == NULL || o->version > newest->version))
			newest = o;
	}
	for (uint32_t i = 1; i < c->n_ops && newest != NULL; i++) {
		const struct op *o = &c->op[i];

		if (o->key == r->key && o->opcode == CHP_OPCODE_DELETE && o->begun <= r->ended && !is_refused(o) &&
		    (!has_written(o) || o->version > newest->version))
			return;
	}
	cr_assert_null(newest, "op %u found nothing", read);
}

static void
check_written(const struct cluster *c, uint32_t write, uint32_t other)
{
	const struct op *w = &c->op[write], *o = &c->op[other];

	if (has_written(o) && other != write)
		cr_assert_neq(o->version, w->version, "ops %u and %u have one version", write, other);
	if (o->ended != 0 && o->ended < w->begun && (has_read(o) || has_written(o)))
		cr_assert_lt(o->version, w->version, "op %u wrote below op %u", write, other);
}

static void
check_history(const struct cluster *c)
{
	for (uint32_t i = 1; i < c->n_ops; i++) {
		const struct op *op = &c->op[i];

		cr_assert(op->ended != 0 || c->node[op->node].is_dead, "op %u was never answered", i);
		if (op->opcode == CHP_OPCODE_GET && op->status == CHP_STATUS_NOT_FOUND && op->ended != 0)
			check_absent(c, i);
		for (uint32_t j = 1; j < c->n_ops; j++) {
			if (c->op[j].key != op->key)
				continue;
			if (has_read(op)) {
				check_read(c, i, j);
				check_appended(c, i, j);
			} else if (has_written(op)) {
				check_written(c, i, j);
			}
		}
	}
}

/* What a replica has of a key, in its cache or else in its store. */
static struct item
newest_of(const struct node *n, uint32_t key)
{
	char name[64];
	struct item item = n->item[key];
	struct chp_op op;
	const struct chp_slot *s;

	name_key(key, name);
	op = op_of(n->r, CHP_OPCODE_GET, name, NULL);
	s = chp_cache_find(n->r->env.cache, &op.key);
	if (s != NULL && s->version != 0) {
		cr_assert_eq(s->version, item.version, "all is saved: node %u key %u", n->id, key);
		cr_assert_eq(s->value_len, item.len);
	}
	return item;
}

static void
check_replicas(const struct cluster *c)
{
	const struct node *first = NULL;

	for (uint32_t i = 0; i < NODES; i++) {
		const struct node *n = &c->node[i];

		if (n->is_dead)
			continue;
		if (first == NULL)
			first = n;
		for (uint32_t key = 0; key < SPACE; key++) {
			struct item a = newest_of(first, key), b = newest_of(n, key);

			cr_assert_eq(a.version, b.version, "key %u at nodes %u and %u", key, first->id, n->id);
			cr_assert_eq(a.len, b.len);
			cr_assert_arr_eq(a.value, b.value, a.len);
		}
	}
}

/* ------------------------------------------------------------------ worlds */

static struct cluster *
cluster_new(const struct world *w, uint64_t seed)
{
	struct cluster *c = calloc(1, sizeof(*c));

	cr_assert_not_null(c);
	c->random.state = seed;
	c->is_durable = w->is_durable;
	c->n_ops = 1; /* 0 is no number of a request */
	c->view = (struct chp_view){ .epoch = 1, .voters = 7 };
	for (uint32_t i = 0; i < NODES; i++) {
		struct node *n = &c->node[i];
		const struct replica_setup setup = { .self = i,
						     .keys_max = w->keys_max,
						     .value_blocks_max = 20,
						     .loads_max = w->loads_max,
						     .backing = &n->backing };

		c->view.incarnation[i] = 100 + i;
		c->view.writer[i] = (uint16_t)(i + 1);
		n->id = i;
		n->loads_max = w->loads_max;
		n->backing = (struct chp_backing){ .is_present = true,
						   .is_durable = w->is_durable,
						   .is_ready = true,
						   .may_evict = true,
						   .has_begun = true,
						   .load = ask_load,
						   .drop_load = drop_load,
						   .scan = ask_scan };
		n->r = replica_of(&setup);
		n->r->keeps_floors = true;
		for (uint32_t j = 0; j < NODES; j++) {
			c->queue[i][j].flight = calloc(QUEUE, sizeof(struct flight));
			cr_assert_not_null(c->queue[i][j].flight);
		}
	}
	return c;
}

static void
cluster_free(struct cluster *c)
{
	for (uint32_t i = 0; i < NODES; i++) {
		for (uint32_t j = 0; j < NODES; j++)
			free(c->queue[i][j].flight);
		replica_free(c->node[i].r);
	}
	free(c);
}

static void
run_world(const struct world *w, uint64_t seed)
{
	struct cluster *c = cluster_new(w, seed);

	for (uint32_t i = 0; i < STEPS; i++)
		something_happens(c, w);
	settle(c);
	check_history(c);
	check_replicas(c);
	cluster_free(c);
}

static void
run_worlds(struct world w)
{
	static const uint32_t keys[] = { 3, 8, 16 };
	const char *seeds = getenv("CHP_TEST_SEEDS");
	const uint64_t n = seeds == NULL ? 12 : strtoull(seeds, NULL, 10);

	for (uint64_t seed = 0; seed < n; seed++) {
		w.keys_max = keys[seed % 3];
		w.loads_max = seed % 2 == 0 ? 1 : LOADS;
		w.kills = seed % 4 == 3;
		cr_log_info("seed %lu", seed);
		run_world(&w, seed);
	}
}

Test(hermes_cluster, what_clients_are_told_has_one_order)
{
	run_worlds((struct world){ .is_durable = false });
}

Test(hermes_cluster, with_level_datastore_too)
{
	run_worlds((struct world){ .is_durable = true });
}
