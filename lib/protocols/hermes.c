/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hermes.c - Hermes: leaderless, all-live, two phases (Katsarakis et al., ASPLOS'20; the paper's 5.2).
 *
 * Any replica coordinates a write: it invalidates the key everywhere (INV, with the value), and when all
 * live replicas have acknowledged (ACK) it validates it (VAL). Reads are local at a replica where the key
 * is Valid; otherwise they wait. Rules are numbered as in docs/protocols/hermes.md.
 *
 *   H1 read                      read()           H6 ACK                     on_ack()
 *   H2 write, H3 RMW             start()          H7 all acknowledged        commit()
 *   H4 INV of a write            on_inv()         H8 VAL                     on_val()
 *   H5 INV of an RMW, NACK       on_inv(), nack() H9 re-send, H10 replay     view(), link_up()
 *
 * Deleted keys leave the data cache once every replica agreed to forget them (SAFETY 6): forget(),
 * floor_stable(), docs/protocols/hermes.md "Forgetting".
 *
 * With a datastore behind the cache (protocols/backing.h) a key that is not in the cache may be in the store. What is
 * durable and at rest may leave the cache; no version that left is above `evicted`, so a write to an absent key goes
 * ahead above everybody's, and an INV above our own is newer than what the store has. A read, a read-modify-write and
 * an INV that is not wait for the key to be loaded: load(), on_absent_inv(), hermes_loaded(), evict()
 * (SAFETY 1-5; docs/protocols/hermes.md "Behind the cache"). With level `datastore` a write also needs the
 * stores of a majority of all configured members: owe_stored(), on_stored() (SAFETY 33).
 *
 * After a cold start (view.sources) what a store has of an earlier life is a candidate: the newest of all sources is
 * the key's version. Who needs a key, or finds an old one in its store, asks all sources and writes the newest to
 * all members: fetch(), conclude(), reconcile() (SAFETY 34).
 *
 * Deviations: no protocol retransmission (links are reliable), so the replay after a message-loss time-out
 * has become the replay after a view change or a link reset; a coordinator whose RMW was overtaken tries
 * it again itself; a VAL names the coordinator's ticket instead of the key.
 *
 * Invariants (hermes_check): a key without a record is Valid; the newest uncommitted log entry of a key
 * that is not Valid is its current version; a ticket in use has a slot, and a log entry if it is our own.
 */
#include "base/mutation.h"
#include "protocols/application.h"
#include "protocols/copy.h"
#include "protocols/hermes.h"
#include "protocols/home.h"
#include "protocols/protocol.h"
#include "wire/hermes.h"

#include <inttypes.h>
#include <string.h>

#define NONE UINT32_MAX

/* Replays open at a time, if there are as many credits: bounds what a view change adds to the links' queues at once. */
#define REPLAYS_MAX 64u

enum key_state {
	VALID = 0, /* readable */
	INVALID,   /* another's write is on its way */
	WRITE,     /* our own write is on its way */
	TRANS,     /* our own write is on its way and was overtaken by a newer one */
	REPLAY,    /* we replay another's write */
	LOADING,   /* not here: the datastore is asked for it */
};
static const char *const state_name[] = { "Valid", "Invalid", "Write", "Trans", "Replay", "Loading" };

/* What became of our RMW that a newer version overtook (SAFETY 7). */
enum fate { FATE_OPEN = 0, FATE_ABORTED, FATE_UNKNOWN };

/* A client operation that waits for its key, or whose write is open. */
struct client_op {
	struct chp_origin origin;
	uint64_t session, request;
	uint64_t arg;
	uint32_t next; /* in the key's queue or the free list */
	uint32_t value_len;
	uint8_t opcode;
	uint8_t tries;
	bool is_asked; /* see struct chp_op */
	bool moved;    /* its session had another home meanwhile, which may have executed it */
};

/* A write in progress that we coordinate: our own, or a replay of another's. Its index is its ticket. */
struct ticket {
	uint64_t version;
	uint64_t acked;      /* members that acknowledged this very version in this view */
	uint64_t stored;     /* members whose datastores have it, as reported in this view */
	uint64_t log;        /* position of its entry; held open while it is our own */
	uint64_t number;     /* the client's numeric result */
	uint64_t begun_ns;
	uint32_t slot;       /* NONE: overtaken, and its key may have left the cache */
	uint32_t op;         /* the client operation; NONE for a replay */
	uint32_t generation;
	uint8_t fate;
	bool used, rmw, replay;
	bool must_store; /* level `datastore`, and no session's number */
	bool reconciles; /* what a source had of an earlier generation is written again */
	bool is_replayed; /* we acknowledged somebody's replay of it: they may have committed it */
};

/* The queues that a key record can stand in. */
enum list_id {
	READY = 0,     /* Valid keys whose queue must be served */
	TO_REPLAY = 1, /* keys to replay when a ticket is free */
	TO_LOAD = 2,   /* keys to ask the datastore for when it takes another load */
	LISTS
};

/* An ACK that is owed: a FORGET is agreed to only when no older operation of ours is open on the key. */
struct owed_ack {
	uint64_t version;
	uint32_t op, generation;
	uint8_t to;
	bool is_owed;
};

/* A key that is not Valid, or has operations waiting. */
struct key_record {
	uint64_t log;        /* its newest uncommitted log entry */
	uint32_t slot;
	uint32_t generation;
	uint32_t own;        /* our open write in its present lineage, or NONE */
	uint32_t replay;     /* our replay of its present version, or NONE */
	uint32_t wait_head, wait_tail;
	uint32_t next[LISTS]; /* next[TO_REPLAY] also chains the free records */
	uint32_t load;        /* token of the load under way, or NONE */
	uint32_t parked_head, parked_tail; /* INVs that wait for it */
	uint32_t asked;       /* peers' FETCHes that wait for it */
	uint32_t fetch;       /* ours, or NONE */
	bool is_old;          /* it is loaded to be reconciled, whether anybody waits or not */
	bool is_failed;       /* it could not be loaded: who waits is told so */
	bool is_replayed;     /* all have acknowledged our replay of it in this view, which gave way to others */
	struct owed_ack owed;
	bool used;
	bool listed[LISTS];
};

/* What key the INV with a peer's ticket was about. */
struct inv_memory {
	uint32_t key;
	uint32_t generation;
};

/* An INV that waits until the datastore has told what there is of its key. By (peer, ticket), like inv_memory. */
struct parked_inv {
	uint32_t key;  /* record, or NONE: not in use */
	uint32_t next;
};

/* What a peer asks for and has to be loaded first. By (peer, its fetch). */
struct parked_fetch {
	uint32_t key; /* record, or NONE: not in use */
	uint32_t next;
	uint32_t generation;
};

/* A store, and when it got what it has. */
struct stored_where {
	uint64_t recorded;   /* the view up to which it had everything when its life began */
	uint32_t generation; /* of the cluster, in which it got this; 0 if it has nothing */
};

/* What the sources have of a key. Its index is the op of our FETCHes. */
struct fetch {
	uint32_t key;        /* record, or NONE: not in use */
	uint32_t generation;
	uint64_t waiting;    /* sources that have not answered */
	uint64_t due;        /* of those, who must be asked now */
	uint64_t again;      /* of those, who must be asked once more, later */
	uint64_t version;    /* the newest so far; 0 = none */
	uint64_t left;       /* what our own store has of an earlier life; 0 = nothing */
	struct stored_where from; /* the store that has it, or has not */
	uint32_t value_len;
	bool is_deleted;
	bool is_answered;    /* by anybody but ourselves */
	uint64_t under_way;  /* what a voter has under way, and nothing newer at rest; 0 = none */
};
/* Fetches open at a time. */
#define FETCHES 32u

/* A report that is owed to a coordinator when our datastore has what its INV brought. By (peer, ticket), too. */
struct owed_stored {
	uint64_t pos; /* log position that must be durable */
	uint64_t version;
	uint32_t generation;
	uint32_t next, before; /* in the order of owing */
	bool is_owed;
};

struct list {
	uint32_t head, tail;
};

struct hermes {
	struct chp_protocol_env env;
	struct chp_view view;
	struct chp_homes homes;
	uint64_t live;              /* of the view, ourselves included */
	uint64_t peers;             /* of those, the others: whose ACK a write needs */
	uint64_t ever_live;         /* members of this and earlier views, for a mutation */
	uint16_t writer;
	struct client_op *op;
	uint8_t *operand;           /* op i: value_bytes_max bytes, filled while it waits or may be retried */
	struct ticket *ticket;
	struct key_record *key;
	struct inv_memory *inv;     /* peer p, ticket t: inv[p * n_tickets + t] */
	uint32_t *free_tickets;
	uint32_t free_op, free_key;
	uint32_t n_tickets, n_free_tickets, n_keys, n_own, n_replays, n_open_ops;
	uint32_t n_reconciling;     /* of n_own */
	uint32_t replays_max;
	uint32_t n_unsaid;          /* keys to replay that have not been replayed in this view */
	uint32_t n_owed;
	uint64_t floor;             /* counter: every forgotten version is at most this */
	uint64_t peer_floor[CHP_NODES_MAX]; /* as announced in this view and link session */
	uint64_t floor_known;       /* peers that have announced one */
	uint64_t floor_due;         /* peers that must hear of ours, behind our replays */
	uint64_t settled;           /* the floor, equal everywhere, when a key was last forgotten */
	struct chp_copy copy;
	bool is_complete;           /* this replica has every key: it was so from the first view on, or copied them */
	uint32_t sweep_at;          /* slot where the search for tombstones goes on */
	struct list list[LISTS];

	/* With a datastore behind the cache. */
	bool is_backed;
	bool knows_evicted;         /* `evicted` covers what the datastore had when this life began (SAFETY 4) */
	uint64_t generation;        /* of the cluster: cold starts so far */
	uint64_t evicted;           /* counter: no version that left the cache, or was stored before, is above */
	uint64_t peers_evicted;     /* the highest that any peer has announced */
	uint64_t evicted_due;       /* peers that must hear of ours */
	uint64_t load_again_ns;     /* when to try again what could not be loaded */
	uint32_t *load_key;         /* by token: the record that waits, or NONE */
	struct parked_inv *parked;
	uint8_t *parked_bytes;      /* parked i: inv_bytes_max */
	uint32_t inv_bytes_max;
	uint32_t n_parked;
	bool is_short;              /* a key could not be loaded for want of a token: clients get none meanwhile */
	struct owed_stored *stored;
	uint64_t copied;            /* log position: what a copy brought is below; absence counts when it is durable */
	uint64_t *item_at;          /* [ITEM_PLACES]: log positions of a copy's items that went past the cache */
	uint64_t last_item;         /* the highest of them */
	uint8_t *copy_parts;        /* see struct chp_copy_config; our own node's holds keys to reconcile */
	struct fetch *fetch;        /* [FETCHES] */
	uint32_t n_fetches;         /* in use */
	uint8_t *fetch_value;       /* of fetch i: value_bytes_max */
	struct parked_fetch *asked; /* peer p, its fetch f: asked[p * FETCHES + f] */
	uint64_t evicted_known;     /* peers that have announced what they evicted in this view */
	uint64_t fetch_again_ns;
	struct {
		uint64_t again_ns;  /* the next look through the store */
		uint32_t bytes, at; /* of the part that is here, in copy_parts */
		uint32_t n;         /* keys being reconciled because the store has them */
		bool is_begun, is_asked, is_last, has_met; /* has_met: an old item in this look */
		bool is_done;
	} old;
	struct list owed_stored;
	const struct chp_slot *keep; /* may not be evicted by the operation that is being admitted */
	uint64_t durable_seen;      /* of backing->durable: tickets before it have been looked at */

	uint8_t *value;             /* a value being built */
	uint8_t *record;            /* a key and value read back from the log */
};

/* ------------------------------------------------------------------ pools and lists */

static struct chp_slot *
slot_at(const struct hermes *h, uint32_t index)
{
	return chp_cache_slot(h->env.cache, index);
}

static struct key_record *
record_of(const struct hermes *h, const struct chp_slot *s)
{
	return s->busy == CHP_SLOT_NO_BUSY ? NULL : &h->key[s->busy];
}

static struct key_record *
take_key(struct hermes *h, struct chp_slot *s)
{
	struct key_record *k = record_of(h, s);
	uint32_t i = h->free_key;

	if (k != NULL)
		return k;
	/* Keys in progress are bounded by credits, waiting ones by operations: see hermes_create. */
	CHP_ASSERT_OP(i, !=, NONE);
	k = &h->key[i];
	h->free_key = k->next[TO_REPLAY];
	*k = (struct key_record){ .slot = chp_cache_slot_index(h->env.cache, s),
				  .generation = k->generation + 1,
				  .log = CHP_LOG_NONE,
				  .own = NONE,
				  .replay = NONE,
				  .wait_head = NONE,
				  .wait_tail = NONE,
				  .load = NONE,
				  .parked_head = NONE,
				  .parked_tail = NONE,
				  .asked = NONE,
				  .fetch = NONE,
				  .used = true };
	s->busy = i;
	return k;
}

static uint32_t
index_of_key(const struct hermes *h, const struct key_record *k)
{
	return (uint32_t)(k - h->key);
}

static bool
is_listed(const struct key_record *k)
{
	return k->listed[READY] || k->listed[TO_REPLAY] || k->listed[TO_LOAD];
}

/* A key that is Valid and waited for by nobody needs no record. */
static void
release_key(struct hermes *h, struct key_record *k)
{
	struct chp_slot *s = slot_at(h, k->slot);

	if (s->state != VALID || k->wait_head != NONE || is_listed(k))
		return;
	CHP_ASSERT(k->load == NONE && k->parked_head == NONE && k->asked == NONE && k->fetch == NONE);
	CHP_ASSERT(k->own == NONE && k->replay == NONE && k->log == CHP_LOG_NONE);
	h->n_owed -= k->owed.is_owed; /* validated by others all the same: nothing is waited for */
	s->busy = CHP_SLOT_NO_BUSY;
	k->used = false;
	k->next[TO_REPLAY] = h->free_key;
	h->free_key = index_of_key(h, k);
}

/* Put a key at the end of a list that it is not in. */
static void
push(struct hermes *h, enum list_id id, struct key_record *k)
{
	struct list *l = &h->list[id];
	uint32_t i = index_of_key(h, k);

	k->listed[id] = true;
	h->n_unsaid += id == TO_REPLAY && !k->is_replayed;
	k->next[id] = NONE;
	if (l->head == NONE)
		l->head = i;
	else
		h->key[l->tail].next[id] = i;
	l->tail = i;
}

/* Take the first of a list that is not empty. */
static struct key_record *
pop(struct hermes *h, enum list_id id)
{
	struct key_record *k = &h->key[h->list[id].head];

	h->list[id].head = k->next[id];
	k->listed[id] = false;
	h->n_unsaid -= id == TO_REPLAY && !k->is_replayed;
	return k;
}

/* A Valid key whose queue must be served. */
static void
make_ready(struct hermes *h, struct key_record *k)
{
	if (k->wait_head != NONE && !k->listed[READY])
		push(h, READY, k);
}

static struct ticket *
take_ticket(struct hermes *h, uint32_t slot, uint64_t version)
{
	struct ticket *t;

	CHP_ASSERT_OP(h->n_free_tickets, >, 0u);
	t = &h->ticket[h->free_tickets[--h->n_free_tickets]];
	CHP_ASSERT(!t->used);
	*t = (struct ticket){ .slot = slot,
			      .version = version,
			      .op = NONE,
			      .generation = t->generation + 1,
			      .used = true };
	return t;
}

static uint32_t
index_of_ticket(const struct hermes *h, const struct ticket *t)
{
	return (uint32_t)(t - h->ticket);
}

static void
release_ticket(struct hermes *h, struct ticket *t)
{
	struct key_record *k = t->slot == NONE ? NULL : record_of(h, slot_at(h, t->slot));
	uint32_t i = index_of_ticket(h, t);

	if (k != NULL && k->own == i)
		k->own = NONE;
	if (k != NULL && k->replay == i)
		k->replay = NONE;
	if (t->replay) {
		h->n_replays--;
	} else {
		chp_log_close(h->env.log, t->log);
		h->n_own--;
		h->n_reconciling -= t->reconciles;
	}
	t->used = false;
	h->free_tickets[h->n_free_tickets++] = i;
}

static uint32_t
take_op(struct hermes *h, const struct chp_op *from)
{
	uint32_t i = h->free_op;
	struct client_op *op;

	if (i == NONE)
		return NONE;
	op = &h->op[i];
	h->free_op = op->next;
	*op = (struct client_op){ .origin = from->origin,
				  .session = from->session,
				  .request = from->request,
				  .arg = from->arg,
				  .next = NONE,
				  .value_len = from->value_len,
				  .opcode = from->opcode,
				  .is_asked = from->is_asked };
	h->n_open_ops++;
	return i;
}

static void
release_op(struct hermes *h, uint32_t i)
{
	h->op[i].next = h->free_op;
	h->free_op = i;
	h->n_open_ops--;
}

static uint8_t *
operand_of(const struct hermes *h, uint32_t op)
{
	return h->operand + (size_t)op * h->env.value_bytes_max;
}

/* Whether a key that is not in the cache may be in the datastore. Session numbers are never stored. */
static bool
is_behind(const struct hermes *h, bool is_session)
{
	return h->is_backed && !is_session;
}

/* Whether our datastore is one of those that hold the data, and it is not reconciled with the others everywhere. */
static bool
is_source(const struct hermes *h)
{
	return h->is_backed && (h->view.sources & chp_bit(h->env.self)) != 0;
}

/* Whether our datastore and cache have everything: a voter's do, once what it copied as a learner is durable. */
static bool
has_all(const struct hermes *h)
{
	return h->is_complete && h->env.log->mark >= h->copied;
}

/* ------------------------------------------------------------------ replies */

static void
reply_op(struct hermes *h, struct chp_out *out, uint32_t i, uint8_t status, uint64_t version, uint64_t number)
{
	const struct client_op *op = &h->op[i];
	struct chp_reply r = { .origin = &op->origin,
			       .session = op->session,
			       .request = op->request,
			       .version = version,
			       .number = number,
			       .opcode = op->opcode,
			       .status = status };

	out->reply(out, &r);
	release_op(h, i);
}

/* [H1] A read of a key that is Valid, under the lease. */
static void
read(struct hermes *h, const struct chp_now *now, struct chp_slot *s, struct chp_reply *r,
     struct chp_out *out)
{
	uint8_t *to;

	if (now->ns >= now->lease_until_ns && !CHP_MUTATED(P13_NO_LEASE_AT_ANSWER)) {
		r->status = CHP_STATUS_NOT_SERVING;
		out->reply(out, r);
		return;
	}
	chp_out_reads_until(out, now->lease_until_ns);
	h->env.counters->reads++;
	if (s != NULL)
		chp_cache_touch(s);
	if (s == NULL || (s->flags & CHP_SLOT_TOMBSTONE) != 0) {
		r->status = CHP_STATUS_NOT_FOUND;
		out->reply(out, r);
		return;
	}
	r->status = CHP_STATUS_OK;
	r->version = s->version;
	r->value_len = s->value_len;
	to = out->reply(out, r);
	chp_cache_value(h->env.cache, s, to);
}

/* ------------------------------------------------------------------ INV */

static uint64_t
base_of(const struct chp_slot *s)
{
	uint64_t step = (s->flags & CHP_SLOT_RMW) != 0 ? 1 : 2;

	if ((s->flags & (CHP_SLOT_BASE_ABSENT | CHP_SLOT_BASE_UNKNOWN)) != 0)
		return 0;
	return chp_version_make(chp_version_counter(s->version) - step, s->base_writer);
}

static void
write_inv(struct chp_out *out, uint32_t peer, const struct chp_hermes_inv *header, const uint8_t *key,
	  const uint8_t *value)
{
	uint8_t *m = chp_send(out, peer, header->message.len);
	uint32_t used = (uint32_t)sizeof(*header) + header->key_len + header->value_total;

	memcpy(m, header, sizeof(*header));
	memcpy(m + sizeof(*header), key, header->key_len);
	if (header->value_total > 0)
		memcpy(m + sizeof(*header) + header->key_len, value, header->value_total);
	memset(m + used, 0, header->message.len - used);
}

static struct chp_hermes_inv
inv_header(const struct chp_log_entry *e, uint32_t ticket, uint32_t generation, uint8_t message_flags,
	   uint8_t inv_flags)
{
	return (struct chp_hermes_inv){
		.message = { .type = CHP_HERMES_INV,
			     .flags = message_flags,
			     .len = (uint16_t)chp_hermes_inv_bytes(e->key_len, e->value_len),
			     .op = ticket },
		.generation = generation,
		.key_len = e->key_len,
		.inv_flags = e->version_flags | inv_flags,
		.version = e->version,
		.base = e->base,
		.session = e->session,
		.request = e->request,
		.number = e->number,
		.value_total = e->value_len,
	};
}

/* Send the INV of a log entry again, to some peers: needs no credit, room for it is always reserved. */
static void
send_from_log(struct hermes *h, uint64_t pos, struct chp_hermes_inv *header, uint64_t to, struct chp_out *out)
{
	const struct chp_log_entry *e = chp_log_at(h->env.log, pos);
	uint8_t *key = h->record, *value = h->record + CHP_KEY_BYTES_MAX;

	chp_log_key(h->env.log, e, key);
	chp_log_value(h->env.log, e, value);
	for (; to != 0; to &= to - 1)
		write_inv(out, chp_first_bit(to), header, key, value);
}

static void
send_ticket(struct hermes *h, const struct ticket *t, uint64_t to, struct chp_out *out)
{
	struct chp_hermes_inv inv =
		inv_header(chp_log_at(h->env.log, t->log), index_of_ticket(h, t), t->generation, 0,
			   t->replay ? CHP_INV_REPLAY : 0);

	send_from_log(h, t->log, &inv, to, out);
}

/* [H5] Refuse an RMW that is older than the key: an INV with what the key has. */
static void
nack(struct hermes *h, const struct chp_slot *s, uint32_t to, struct chp_out *out)
{
	const struct key_record *k = record_of(h, s);
	struct chp_log_entry e = { .version = s->version,
				   .base = base_of(s),
				   .value_len = s->value_len,
				   .key_len = s->key_len,
				   .version_flags = (uint8_t)(s->flags & CHP_SLOT_VERSION_FLAGS) };
	struct chp_hermes_inv inv;

	h->env.counters->nacks++;
	if (k != NULL && k->log != CHP_LOG_NONE) {
		inv = inv_header(chp_log_at(h->env.log, k->log), CHP_OP_NONE, 0, 0, CHP_INV_NACK);
		send_from_log(h, k->log, &inv, chp_bit(to), out);
		return;
	}
	/* The key is Valid: every live replica has this version and its session's record already. */
	inv = inv_header(&e, CHP_OP_NONE, 0, 0, CHP_INV_NACK);
	chp_cache_key(h->env.cache, s, h->record);
	chp_cache_value(h->env.cache, s, h->record + CHP_KEY_BYTES_MAX);
	write_inv(out, to, &inv, h->record, h->record + CHP_KEY_BYTES_MAX);
}

static void
send_ack(uint32_t op, uint32_t generation, uint64_t version, uint32_t to, struct chp_out *out)
{
	struct chp_hermes_ack *m = chp_send(out, to, sizeof(*m));

	*m = (struct chp_hermes_ack){
		.message = { .type = CHP_HERMES_ACK, .len = sizeof(*m), .op = op },
		.generation = generation,
		.version = version,
	};
}

/* Announce the floor where it is due: behind every replay, so that nothing older follows (SAFETY 6). */
static void
announce_floor(struct hermes *h, struct chp_out *out)
{
	if (h->n_unsaid > 0)
		return;
	for (uint64_t to = h->floor_due & h->peers; to != 0; to &= to - 1) {
		struct chp_hermes_floor *m = chp_send(out, chp_first_bit(to), sizeof(*m));

		*m = (struct chp_hermes_floor){
			.message = { .type = CHP_HERMES_FLOOR, .len = sizeof(*m), .op = CHP_OP_NONE },
			.counter = h->floor,
		};
	}
	h->floor_due = 0;
}

static void
send_val(struct hermes *h, const struct ticket *t, struct chp_out *out)
{
	for (uint64_t to = h->peers; to != 0; to &= to - 1) {
		struct chp_hermes_val *m = chp_send(out, chp_first_bit(to), sizeof(*m));

		*m = (struct chp_hermes_val){
			.message = { .type = CHP_HERMES_VAL, .len = sizeof(*m), .op = index_of_ticket(h, t) },
			.generation = t->generation,
			.version = t->version,
		};
	}
}

/* ------------------------------------------------------------------ a key changes */

/* A session number is a key: opening and closing it are replicated writes (SAFETY 24). */
static void
apply_session(struct hermes *h, const uint8_t *key, uint8_t version_flags)
{
	uint64_t id;

	memcpy(&id, key, sizeof(id));
	if ((version_flags & CHP_INV_TOMBSTONE) != 0)
		chp_session_close(h->env.sessions, id);
	else
		chp_session_open(h->env.sessions, id);
}

/* The slot gets a newer version. */
static void
set_slot(struct hermes *h, struct chp_slot *s, const struct chp_log_entry *e, const uint8_t *key, const uint8_t *value)
{
	CHP_ASSERT_OP(e->version, >, s->version);
	chp_cache_set(h->env.cache, s, value, e->value_len, e->version_flags);
	s->version = e->version;
	s->base_writer = (uint16_t)e->base;
	if (e->base == 0)
		s->flags |= CHP_SLOT_BASE_ABSENT;
	else
		s->flags &= (uint16_t)~CHP_SLOT_BASE_ABSENT;
	if ((e->version_flags & CHP_INV_SESSION) != 0)
		apply_session(h, key, e->version_flags);
}

/* The key gets a newer version: its slot, its log entry. The caller sets the state. */
static void
install(struct hermes *h, struct chp_slot *s, struct key_record *k, struct chp_log_entry *e, const uint8_t *key,
	const uint8_t *value, bool own)
{
	set_slot(h, s, e, key, value);
	e->slot = k->slot;
	k->log = chp_log_append(h->env.log, e, key, value, k->log, own);
	s->log_low = (uint32_t)k->log;
}

/* Our ticket is committed: answer its client, if it has one. */
static void
finish(struct hermes *h, struct ticket *t, struct chp_out *out)
{
	if (t->op != NONE) {
		h->env.counters->writes++;
		reply_op(h, out, t->op, CHP_STATUS_OK, t->version, t->number);
	}
	release_ticket(h, t);
}

/* Our RMW was overtaken for good: it waits again, first in the queue. */
static void
retry(struct hermes *h, struct key_record *k, struct ticket *t)
{
	struct client_op *op = &h->op[t->op];

	h->env.counters->aborts++;
	op->tries++;
	op->next = k->wait_head;
	k->wait_head = t->op;
	if (op->next == NONE)
		k->wait_tail = t->op;
	release_ticket(h, t);
}

/* What became of the key's present version, a read-modify-write, for whoever asks for its request (SAFETY 7). */
static void
settle(struct hermes *h, const struct key_record *k, enum chp_record_fate fate)
{
	const struct chp_log_entry *e = chp_log_at(h->env.log, k->log);

	if (e->session != 0)
		chp_session_settle(h->env.sessions, e->session, e->request, e->version, fate);
}

/*
 * The key is Valid at its present version. Every path to Valid comes through here (pitfall P57): it
 * commits the log, settles our own overtaken write and lets the queue go on.
 */
static void
become_valid(struct hermes *h, struct key_record *k, struct chp_out *out)
{
	struct chp_slot *s = slot_at(h, k->slot);

	s->state = VALID;
	if ((s->flags & CHP_SLOT_RMW) != 0)
		settle(h, k, CHP_FATE_COMMITTED);
	chp_log_commit(h->env.log, k->log);
	k->log = CHP_LOG_NONE;
	if (k->replay != NONE)
		release_ticket(h, &h->ticket[k->replay]);
	if (k->own != NONE) {
		struct ticket *t = &h->ticket[k->own];

		if (t->version == s->version) {
			finish(h, t, out);
		} else if (t->op == NONE) {
			release_ticket(h, t); /* a forget that was overtaken: the key is in use again */
		} else if (t->fate == FATE_ABORTED) {
			retry(h, k, t);
		} else if (t->fate == FATE_UNKNOWN) {
			h->env.counters->unknown++;
			reply_op(h, out, t->op, CHP_STATUS_UNKNOWN_OUTCOME, 0, 0);
			release_ticket(h, t);
		} else {
			k->own = NONE; /* older than the key; stays open until all have acknowledged it */
			if (is_behind(h, (s->flags & CHP_SLOT_SESSION) != 0))
				t->slot = NONE;
		}
	}
	make_ready(h, k);
	release_key(h, k);
}

/* [H7] All live members have acknowledged. */
static void
commit(struct hermes *h, struct ticket *t, struct chp_out *out)
{
	struct chp_slot *s;
	struct key_record *k;

	CHP_ASSERT_OP(t->fate, !=, FATE_ABORTED); /* what all acknowledged was not aborted */
	if (t->slot == NONE) {
		finish(h, t, out);
		return;
	}
	s = slot_at(h, t->slot);
	k = record_of(h, s);
	if (s->version == t->version && s->state != VALID) {
		send_val(h, t, out);
		become_valid(h, k, out); /* finishes the ticket */
		return;
	}
	/* Overtaken: no VAL, the newer write's coordinator validates the key (optimisation O1). */
	if (s->state == TRANS && k->own == index_of_ticket(h, t))
		s->state = INVALID;
	finish(h, t, out);
}

/*
 * [SAFETY 33, 34] Whether it counts in this view what stores have. A generation that is not reconciled counts on all
 * stores of its first view, whose members are all asked at the next cold start. Whoever is dropped meanwhile would be
 * asked, too, and its own word could not be told from what was committed without it: what is new waits until stores
 * have recorded a view. What is only written again is the same everywhere.
 */
static bool
stores_count(const struct hermes *h, const struct ticket *t)
{
	return h->view.sources == 0 || chp_epoch_is_first(h->view.epoch) || t->reconciles;
}

/* [SAFETY 33] Level `datastore`: the stores of a majority of all configured members have it, dead ones included. */
static bool
is_stored(const struct hermes *h, struct ticket *t)
{
	if (!t->must_store)
		return true;
	if (!stores_count(h, t))
		return false;
	if (t->log < h->env.backing->durable)
		t->stored |= chp_bit(h->env.self);
	return 2 * chp_count_bits(t->stored) > h->env.n_nodes;
}

static void
commit_if_acked(struct hermes *h, struct ticket *t, struct chp_out *out)
{
	uint64_t needed = h->peers; /* learners, too, from the view that admits them on (SAFETY 9) */

	if (CHP_MUTATED(S9_LEARNER_NOT_ACKING))
		needed &= h->view.voters;
	if (CHP_MUTATED(P32_DEAD_HOLD_WRITES))
		needed |= h->ever_live & ~chp_bit(h->env.self);
	if ((needed & ~t->acked) == 0 && is_stored(h, t))
		commit(h, t, out);
}

/* ------------------------------------------------------------------ behind the cache (SAFETY 1-5) */

static void take_inv(struct hermes *h, struct chp_slot *s, const struct chp_hermes_inv *inv, uint8_t from,
		     struct chp_out *out);

/* How far beyond what needs it `evicted` is raised: one announcement serves many keys that leave. */
#define EVICTED_STEP 1024u
/* Slots that one search for a victim looks at, and keys that one run evicts ahead of need. */
#define EVICT_LOOKS 256u
#define EVICT_MAX 32u
/* What could not be loaded is tried again after so long. */
#define LOAD_AGAIN_NS UINT64_C(1000000)
/* Items of a copy are remembered by so many parts of their digests until they are durable; a power of two. */
#define ITEM_PLACES 4096u

/* What may leave: a key at rest whose version the datastore has; what says that it has none may at any time. */
static bool
may_leave(const void *p, const struct chp_slot *s)
{
	const struct hermes *h = p;

	if (s->state != VALID || s == h->keep)
		return false;
	return s->version == 0 || (h->env.backing->may_evict && (chp_backing_is_clean(h->env.log, s->log_low) ||
								 CHP_MUTATED(P60_EVICT_UNSAVED)));
}

static void
raise_evicted(struct hermes *h, uint64_t counter)
{
	if (counter <= h->evicted)
		return;
	h->evicted = counter + EVICTED_STEP;
	h->evicted_due = h->peers;
}

/* Have one key leave the cache. Its version must not be forgotten: `evicted` is at least that (pitfall P47). */
static bool
evict(struct hermes *h)
{
	struct chp_slot *s = chp_cache_victim(h->env.cache, EVICT_LOOKS, may_leave, h);

	if (s == NULL)
		return false;
	if (!CHP_MUTATED(P47_EVICT_FORGETS_VERSION))
		raise_evicted(h, chp_version_counter(s->version));
	return chp_cache_remove(h->env.cache, s);
}

/* Whether there is room for a new key, or a new value of one; evicts what it needs for that. */
static bool
make_room(struct hermes *h, uint32_t key_len, uint32_t value_len, bool is_new)
{
	for (uint32_t i = 0; !chp_cache_admits(h->env.cache, key_len, value_len, is_new); i++)
		if (!h->is_backed || i == EVICT_MAX || !evict(h))
			return false;
	return true;
}

static void
evict_ahead(struct hermes *h)
{
	for (uint32_t i = 0; i < EVICT_MAX && chp_cache_is_tight(h->env.cache); i++)
		if (!evict(h))
			return;
}

static void
announce_evicted(struct hermes *h, struct chp_out *out)
{
	if (!h->knows_evicted)
		return;
	for (uint64_t to = h->evicted_due & h->peers; to != 0; to &= to - 1) {
		struct chp_hermes_floor *m = chp_send(out, chp_first_bit(to), sizeof(*m));

		*m = (struct chp_hermes_floor){
			.message = { .type = CHP_HERMES_EVICTED, .len = sizeof(*m), .op = CHP_OP_NONE },
			.counter = h->evicted,
		};
	}
	h->evicted_due = 0;
}

static void
on_evicted(struct hermes *h, const struct chp_peer_message *m)
{
	const struct chp_hermes_floor *floor = (const void *)m->message;

	h->peers_evicted = chp_max_u64(h->peers_evicted, floor->counter);
	h->evicted_known |= chp_bit(m->from);
}

/* [SAFETY 4] This life has begun in the datastore: what it held before is counted as evicted. */
static void
learn_evicted(struct hermes *h)
{
	if (h->knows_evicted || !h->env.backing->has_begun)
		return;
	h->knows_evicted = true;
	h->evicted = chp_max_u64(h->evicted, h->env.backing->newest);
	h->evicted_due = h->peers;
}

/* A new slot for a key that the datastore is asked for. There must be room for it. */
static struct key_record *
begin_loading(struct hermes *h, const struct chp_key *key)
{
	struct chp_slot *s = chp_cache_insert(h->env.cache, key);

	chp_cache_set(h->env.cache, s, NULL, 0, CHP_SLOT_TOMBSTONE);
	s->state = LOADING;
	return take_key(h, s);
}

static void
wait_for_token(struct hermes *h, struct key_record *k, uint32_t token)
{
	CHP_ASSERT_OP(token, <, h->env.loads_max);
	k->load = token;
	k->is_failed = false;
	h->load_key[token] = index_of_key(h, k);
}

/* Where the last item of a copy that went past the cache is remembered, with all others of this place. */
static uint32_t
item_place(const struct chp_key *key)
{
	return (uint32_t)key->digest.lo & (ITEM_PLACES - 1);
}

/* Ask for a key; if that cannot be done now, or the store does not have all of it yet, it is tried again soon. */
static void
load(struct hermes *h, struct key_record *k, const struct chp_key *key)
{
	uint32_t token;

	if (h->item_at[item_place(key)] >= h->env.log->mark) {
		push(h, TO_LOAD, k);
		return;
	}
	if (chp_backing_load(h->env.backing, key, &token)) {
		wait_for_token(h, k, token);
	} else {
		h->is_short = true;
		push(h, TO_LOAD, k);
	}
}

/* A peer's FETCH does not wait any more. */
static void
unask(struct hermes *h, uint32_t i)
{
	uint32_t *at;

	if (h->asked[i].key == NONE)
		return;
	at = &h->key[h->asked[i].key].asked;
	while (*at != i)
		at = &h->asked[*at].next;
	*at = h->asked[i].next;
	h->asked[i].key = NONE;
}

_Static_assert((int)CHP_HERMES_FETCH_FOUND == CHP_LOAD_FOUND && (int)CHP_HERMES_FETCH_TOMBSTONE == CHP_LOAD_TOMBSTONE &&
		       (int)CHP_HERMES_FETCH_ABSENT == CHP_LOAD_ABSENT,
	       "what a store says is what a peer is told");

static uint8_t
status_of(uint64_t version, bool is_deleted)
{
	if (version == 0)
		return CHP_HERMES_FETCH_ABSENT;
	return is_deleted ? CHP_HERMES_FETCH_TOMBSTONE : CHP_HERMES_FETCH_FOUND;
}

static uint8_t *
value_of_fetch(const struct hermes *h, const struct fetch *f)
{
	return h->fetch_value + (size_t)(f - h->fetch) * h->env.value_bytes_max;
}

static struct stored_where
stored_here(const struct hermes *h, uint64_t generation)
{
	return (struct stored_where){ .recorded = h->env.backing->recorded, .generation = (uint32_t)generation };
}

static void
send_fetched(struct stored_where from, uint32_t to, uint32_t op, uint32_t generation, uint8_t status, uint64_t version,
	     const uint8_t *value, uint32_t value_len, struct chp_out *out)
{
	const uint32_t used = (uint32_t)sizeof(struct chp_hermes_fetched) + value_len;
	const uint32_t bytes = chp_align_u32(used, CHP_MESSAGE_ALIGN);
	uint8_t *m = chp_send(out, to, bytes);
	const struct chp_hermes_fetched header = {
		.message = { .type = CHP_HERMES_FETCHED, .len = (uint16_t)bytes, .op = op },
		.generation = generation,
		.status = status,
		.version = version,
		.recorded = from.recorded,
		.value_total = value_len,
		.stored_in = status <= CHP_HERMES_FETCH_TOMBSTONE ? from.generation : 0,
	};

	memcpy(m, &header, sizeof(header));
	if (value_len > 0)
		memcpy(m + sizeof(header), value, value_len);
	memset(m + used, 0, bytes - used);
}

/* What a peer asks for cannot be told now. */
static void
say_again(const struct hermes *h, uint32_t to, uint32_t op, uint32_t generation, struct chp_out *out)
{
	send_fetched(stored_here(h, 0), to, op, generation, CHP_HERMES_FETCH_AGAIN, 0, NULL, 0, out);
}

/* The key is known, or waits for nothing any more: what the datastore or a source still says is stale (SAFETY 5). */
static void
stop_loading(struct hermes *h, struct key_record *k, struct chp_out *out)
{
	if (k->load != NONE) {
		h->load_key[k->load] = NONE;
		chp_backing_drop_load(h->env.backing, k->load);
	}
	k->load = NONE;
	if (k->fetch != NONE) {
		h->fetch[k->fetch].key = NONE;
		h->n_fetches--;
	}
	k->fetch = NONE;
	if (k->is_old)
		h->old.n--;
	k->is_old = false;
	/* Who asks is told to ask again: it will have the INV by then. */
	while (k->asked != NONE) {
		const uint32_t i = k->asked;

		unask(h, i);
		say_again(h, i / FETCHES, i % FETCHES, h->asked[i].generation, out);
	}
}

static void
unpark(struct hermes *h, uint32_t i)
{
	struct parked_inv *p = &h->parked[i];
	struct key_record *k;
	uint32_t before = NONE;

	/* Mostly there is none, which the next line would learn from memory that nobody else touches. */
	if (h->n_parked == 0 || p->key == NONE)
		return;
	k = &h->key[p->key];
	for (uint32_t at = k->parked_head; at != i; at = h->parked[at].next)
		before = at;
	if (before == NONE)
		k->parked_head = p->next;
	else
		h->parked[before].next = p->next;
	if (k->parked_tail == i)
		k->parked_tail = before;
	p->key = NONE;
	h->n_parked--;
}

/* The link's memory is not ours: the INV is copied. Its credit has reserved all that it will need. */
static void
park_inv(struct hermes *h, struct key_record *k, const struct chp_hermes_inv *inv, uint32_t from)
{
	const uint32_t i = from * h->n_tickets + inv->message.op;

	CHP_ASSERT_OP(inv->message.len, <=, h->inv_bytes_max);
	memcpy(h->parked_bytes + (size_t)i * h->inv_bytes_max, inv, inv->message.len);
	h->parked[i] = (struct parked_inv){ .key = index_of_key(h, k), .next = NONE };
	h->inv[i].key = NONE;
	if (k->parked_head == NONE)
		k->parked_head = i;
	else
		h->parked[k->parked_tail].next = i;
	k->parked_tail = i;
	h->n_parked++;
	h->env.counters->inv_parked++;
}

/* The key is here, in whatever way: the INVs that waited for it go on. Its record stays in use. */
static void
take_parked(struct hermes *h, struct key_record *k, struct chp_out *out)
{
	struct chp_slot *s = slot_at(h, k->slot);

	while (k->parked_head != NONE) {
		const uint32_t i = k->parked_head;
		const void *inv = h->parked_bytes + (size_t)i * h->inv_bytes_max;

		unpark(h, i);
		take_inv(h, s, inv, (uint8_t)(i / h->n_tickets), out);
	}
}

/*
 * [SAFETY 3] An INV of a key that is not here. Above `evicted` it is newer than all that this replica ever dropped and
 * is adopted. Otherwise it waits, the link does not, until the stored version is known. A NACK has nothing to tell:
 * whoever has an operation open on a key holds the key.
 */
static void
on_absent_inv(struct hermes *h, struct chp_slot *s, const struct chp_peer_message *m, struct chp_out *out)
{
	const struct chp_hermes_inv *inv = (const void *)m->message;
	/* Other sources are being asked what the key was: who sends an INV knows, and may wait for our ACK to tell. */
	const bool is_fetched = s != NULL && is_source(h) && record_of(h, s)->fetch != NONE;
	const bool is_newer =
		is_fetched || (h->knows_evicted && chp_version_counter(inv->version) > h->evicted);
	struct key_record *k;

	if ((inv->inv_flags & CHP_INV_NACK) != 0 || inv->message.op >= h->n_tickets) {
		h->env.counters->inv_stale++;
		return;
	}
	if (CHP_MUTATED(S3_ACK_AND_SKIP) && s == NULL && !is_newer) {
		send_ack(inv->message.op, inv->generation, inv->version, m->from, out);
		return;
	}
	if (is_newer) {
		if (s == NULL)
			s = chp_cache_insert(h->env.cache, &m->key);
		take_inv(h, s, inv, m->from, out);
		return;
	}
	k = s == NULL ? begin_loading(h, &m->key) : record_of(h, s);
	park_inv(h, k, inv, m->from);
	if (s == NULL)
		load(h, k, &m->key);
}

/* What a slot's newest version needs to be durable: a log position; 0 if it is. */
static uint64_t
newest_position(const struct hermes *h, const struct chp_slot *s)
{
	const uint64_t next = h->env.log->next;

	if (chp_backing_is_clean(h->env.log, s->log_low))
		return 0;
	return next - (uint32_t)((uint32_t)next - s->log_low);
}

static void
settle_stored(struct hermes *h, uint32_t i)
{
	struct owed_stored *o = &h->stored[i];

	if (!o->is_owed)
		return;
	if (o->before == NONE)
		h->owed_stored.head = o->next;
	else
		h->stored[o->before].next = o->next;
	if (o->next == NONE)
		h->owed_stored.tail = o->before;
	else
		h->stored[o->next].before = o->before;
	o->is_owed = false;
}

/* The coordinator of this INV is told when our datastore has its version, or the newer one that is here. */
static void
owe_stored(struct hermes *h, const struct chp_slot *s, const struct chp_hermes_inv *inv, uint32_t from)
{
	const uint32_t i = from * h->n_tickets + inv->message.op;

	if ((inv->inv_flags & CHP_INV_SESSION) != 0)
		return;
	settle_stored(h, i);
	h->stored[i] = (struct owed_stored){ .pos = newest_position(h, s),
					     .version = inv->version,
					     .generation = inv->generation,
					     .next = NONE,
					     .before = h->owed_stored.tail,
					     .is_owed = true };
	if (h->owed_stored.tail == NONE)
		h->owed_stored.head = i;
	else
		h->stored[h->owed_stored.tail].next = i;
	h->owed_stored.tail = i;
}

/* The datastore has more: tell whom it concerns, and look at our own. */
static void
report_stored(struct hermes *h, struct chp_out *out)
{
	const uint64_t durable = h->env.backing->durable;
	/* Tickets wait for that with level `datastore` only: with the other one they need not be looked through. */
	const uint32_t waiting = h->env.backing->is_durable ? h->n_tickets : 0;

	while (h->owed_stored.head != NONE && h->stored[h->owed_stored.head].pos < durable) {
		const uint32_t i = h->owed_stored.head;
		struct chp_hermes_ack *m = chp_send(out, i / h->n_tickets, sizeof(*m));

		*m = (struct chp_hermes_ack){
			.message = { .type = CHP_HERMES_STORED, .len = sizeof(*m), .op = i % h->n_tickets },
			.generation = h->stored[i].generation,
			.version = h->stored[i].version,
		};
		settle_stored(h, i);
	}
	if (durable == h->durable_seen)
		return;
	for (uint32_t i = 0; i < waiting; i++) {
		struct ticket *t = &h->ticket[i];

		if (out->replies_left == 0)
			return; /* the rest in the next run */
		if (t->used && t->must_store && t->fate == FATE_OPEN)
			commit_if_acked(h, t, out);
	}
	h->durable_seen = durable;
}

/* So many entries at most are written again in one run; and only in a log that is fuller than this many percent. */
#define RENEW_MAX 32u
#define RENEW_FILL_PERCENT 25u

/* What was under way at this position goes on at the end of the log. It is durable here. */
static void
renew(struct hermes *h, uint64_t pos)
{
	const struct chp_log_entry *old = chp_log_at(h->env.log, pos);
	struct chp_slot *s = old->slot == NONE ? NULL : slot_at(h, old->slot);
	struct key_record *k = s == NULL ? NULL : record_of(h, s);
	const bool is_newest = k != NULL && k->log == pos;
	const bool is_open = (old->flags & CHP_LOG_OPEN) != 0;
	uint8_t *key = h->record, *value = h->record + CHP_KEY_BYTES_MAX;
	struct chp_log_entry e = *old;
	uint64_t to;

	chp_log_key(h->env.log, old, key);
	chp_log_value(h->env.log, old, value);
	chp_log_commit(h->env.log, pos); /* with what it replaced: only the newest of a key is replayed */
	if (is_open)
		chp_log_close(h->env.log, pos);
	if (!is_newest && !is_open)
		return;
	if (!is_newest)
		e.slot = NONE;
	to = chp_log_append(h->env.log, &e, key, value, CHP_LOG_NONE, is_open);
	for (uint32_t i = 0; i < h->n_tickets; i++)
		if (h->ticket[i].used && h->ticket[i].log == pos)
			h->ticket[i].log = to;
	if (is_newest) {
		k->log = to;
		s->log_low = (uint32_t)to;
	} else {
		chp_log_commit(h->env.log, to); /* a newer one is on its way */
	}
}

/*
 * With level `datastore` a write may wait for long: until a majority of hosts is there, or a learner's copy complete.
 * All that was written meanwhile would stay in the log behind it, the copy as well, and nothing could go on.
 */
static void
renew_oldest(struct hermes *h)
{
	struct chp_log *log = h->env.log;

	for (uint32_t i = 0; i < RENEW_MAX && log->head < log->mark; i++) {
		const uint8_t flags = chp_log_at(log, log->head)->flags;

		if ((flags & (CHP_LOG_COMMITTED | CHP_LOG_OPEN)) == CHP_LOG_COMMITTED ||
		    log->next - log->head == chp_log_unsettled(log) ||
		    chp_log_room_until(log, RENEW_FILL_PERCENT) > 0 || chp_log_room_records(log) == 0)
			return;
		renew(h, log->head);
		if (chp_log_compact(log, 1) == 0)
			return; /* there is room enough for it to be kept */
	}
}

/* What an INV that overtakes a read-modify-write says of it: was it Valid where the INV was issued? */
static enum chp_record_fate
fate_of(uint64_t version, uint64_t base, uint8_t flags)
{
	if ((flags & CHP_INV_BASE_UNKNOWN) != 0 || base > version)
		return CHP_FATE_UNKNOWN;
	return base == version ? CHP_FATE_COMMITTED : CHP_FATE_ABORTED;
}

/* [SAFETY 7] A newer version overtakes our open RMW: what its base says of the RMW. */
static void
judge_rmw(struct hermes *h, struct ticket *t, const struct chp_hermes_inv *inv, struct chp_out *out)
{
	if (t->fate != FATE_OPEN)
		return;
	if (CHP_MUTATED(S7_ABORT_WITHOUT_BASE)) {
		t->fate = FATE_ABORTED;
		return;
	}
	switch (fate_of(t->version, inv->base, inv->inv_flags)) {
	case CHP_FATE_COMMITTED:
		finish(h, t, out); /* somebody saw it Valid */
		break;
	case CHP_FATE_ABORTED:
		t->fate = FATE_ABORTED;
		break;
	default:
		/* Whoever committed it needed our acknowledgement of a replay, and gets none from now on. */
		t->fate = t->is_replayed || (inv->inv_flags & CHP_INV_BASE_UNKNOWN) == 0 ? FATE_UNKNOWN : FATE_ABORTED;
	}
}

static void
adopt(struct hermes *h, struct chp_slot *s, const struct chp_hermes_inv *inv, struct chp_out *out)
{
	struct key_record *k = take_key(h, s);
	struct chp_log_entry e = { .version = inv->version,
				   .base = inv->base,
				   .session = inv->session,
				   .request = inv->request,
				   .number = inv->number,
				   .value_len = inv->value_total,
				   .key_len = inv->key_len,
				   .version_flags = inv->inv_flags & CHP_SLOT_VERSION_FLAGS };
	const bool was_loading = s->state == LOADING;
	bool rmw;

	stop_loading(h, k, out); /* what comes is newer than what the datastore has */
	if (k->replay != NONE)
		release_ticket(h, &h->ticket[k->replay]);
	/* The pending operation's own kind decides, never the flag of the key's version (pitfall P8). */
	rmw = k->own != NONE && (CHP_MUTATED(P8_FLAG_OF_KEY) ? (s->flags & CHP_SLOT_RMW) != 0
							     : h->ticket[k->own].rmw);
	if (rmw)
		judge_rmw(h, &h->ticket[k->own], inv, out);
	if (s->state != VALID && (s->flags & CHP_SLOT_RMW) != 0)
		settle(h, k, fate_of(s->version, inv->base, inv->inv_flags));
	install(h, s, k, &e, chp_hermes_inv_key(inv), chp_hermes_inv_value(inv), false);
	s->state = k->own != NONE && !rmw ? TRANS : INVALID;
	if (!was_loading)
		return;
	take_parked(h, k, out);
	if (CHP_MUTATED(P56_PARKED_UNCOMMITTED))
		make_ready(h, k);
}

/*
 * Whether a write of ours that is older than the key's version still waits for acknowledgements. An RMW that
 * was overtaken does not: it is never sent again, and what is on its way comes before our next message.
 */
static bool
has_older_open(const struct hermes *h, const struct chp_slot *s)
{
	uint32_t slot = chp_cache_slot_index(h->env.cache, s);

	for (uint32_t i = 0, seen = 0; seen < h->n_own; i++) {
		const struct ticket *t = &h->ticket[i];

		if (!t->used || t->replay)
			continue;
		seen++;
		if (t->slot == slot && t->version < s->version && t->fate == FATE_OPEN)
			return true;
	}
	return false;
}

/* Whether the ACK of this INV must wait; it is then remembered with the key. */
static bool
owe_ack(struct hermes *h, const struct chp_slot *s, const struct chp_hermes_inv *inv, uint8_t from)
{
	struct key_record *k = record_of(h, s);

	if ((inv->inv_flags & CHP_INV_FORGET) == 0 || k == NULL || inv->version != s->version ||
	    !has_older_open(h, s))
		return false;
	h->n_owed += !k->owed.is_owed;
	k->owed = (struct owed_ack){ .version = inv->version,
				     .op = inv->message.op,
				     .generation = inv->generation,
				     .to = from,
				     .is_owed = true };
	return true;
}

/* Whether a version would open a session for which there is no room. */
static bool
no_room_for_session(const struct hermes *h, uint8_t version_flags, const uint8_t *key)
{
	uint64_t id;

	if ((version_flags & (CHP_INV_SESSION | CHP_INV_TOMBSTONE)) != CHP_INV_SESSION ||
	    h->env.sessions->n < h->env.sessions->capacity)
		return false;
	memcpy(&id, key, sizeof(id));
	return chp_session_find(h->env.sessions, id) == NULL;
}

/*
 * Whether a version of a key that we do not have is older than what all agreed to forget (SAFETY 6). If it names
 * a base, its writer saw that Valid, so we had acknowledged it. If it names none but is not above the floor
 * when we last forgot, it had arrived here by then: what comes now is a late copy, a replay or a NACK. A learner, which
 * lacks keys for another reason, adopts: while there is one nothing is forgotten.
 */
static bool
is_forgotten(const struct hermes *h, const struct chp_hermes_inv *inv)
{
	return h->is_complete && (inv->base != 0 || chp_version_counter(inv->version) <= h->settled);
}

/* What a peer's (ticket, generation) is about, for its VAL. */
static void
remember_inv(struct hermes *h, const struct chp_slot *s, const struct chp_hermes_inv *inv, uint32_t from)
{
	struct inv_memory *memory = &h->inv[from * h->n_tickets + inv->message.op];
	struct key_record *k = s == NULL ? NULL : record_of(h, s);

	memory->key = k == NULL ? NONE : index_of_key(h, k);
	memory->generation = k == NULL ? 0 : k->generation;
}

/*
 * Whether a session that is not known here may be there all the same: this learner has not copied it yet. An INV that
 * waited for its key may come after its session's end.
 */
static bool
may_guess(const struct hermes *h, uint64_t session)
{
	struct chp_key key = { .bytes = (const uint8_t *)&session, .len = sizeof(session), .session = true, .pos = -1 };
	const struct chp_slot *s;

	if (h->is_complete || session == 0)
		return false;
	key.digest = chp_cache_digest(h->env.cache, key.bytes, key.len, true);
	s = chp_cache_find(h->env.cache, &key);
	return s == NULL || (s->flags & CHP_SLOT_TOMBSTONE) == 0;
}

/* [H4, H5] An INV whose key is here: s is its slot, not Loading; NULL: it counts as old news of a forgotten key. */
static void
take_inv(struct hermes *h, struct chp_slot *s, const struct chp_hermes_inv *inv, uint8_t from, struct chp_out *out)
{
	const bool is_nack = (inv->inv_flags & CHP_INV_NACK) != 0;

	if (s == NULL) {
		h->env.counters->inv_stale++;
	} else if (inv->version > s->version) {
		adopt(h, s, inv, out);
	} else if (inv->version < s->version) {
		h->env.counters->inv_stale++;
		if ((inv->inv_flags & CHP_INV_RMW) != 0 && !is_nack) {
			nack(h, s, from, out);
			return;
		}
	}
	if (is_nack)
		return;
	if (s != NULL && s->version == inv->version && s->state != VALID && record_of(h, s)->own != NONE)
		h->ticket[record_of(h, s)->own].is_replayed |= (inv->inv_flags & CHP_INV_REPLAY) != 0;
	if (inv->message.op < h->n_tickets)
		remember_inv(h, s, inv, from);
	/* Whether the value was adopted or not (SAFETY 25). */
	if (!CHP_MUTATED(S25_RECORD_ON_ADOPTION) || (s != NULL && s->version == inv->version))
		chp_session_saw(h->env.sessions, inv->session, inv->request, inv->version, inv->number,
				(inv->inv_flags & CHP_INV_RMW) != 0, may_guess(h, inv->session));
	if (h->env.backing->is_durable && inv->message.op < h->n_tickets && s != NULL)
		owe_stored(h, s, inv, from);
	if (s == NULL || !owe_ack(h, s, inv, from))
		send_ack(inv->message.op, inv->generation, inv->version, from, out);
}

static void
on_inv(struct hermes *h, const struct chp_peer_message *m, struct chp_out *out)
{
	const struct chp_hermes_inv *inv = (const void *)m->message;
	struct chp_slot *s = chp_cache_find(h->env.cache, &m->key);

	h->env.counters->inv_received++;
	/* Credits and headroom keep this room; a peer that does not obey them is not believed. */
	if (chp_log_room_records(h->env.log) == 0 || chp_cache_room(h->env.cache) == 0 || h->free_key == NONE ||
	    no_room_for_session(h, inv->inv_flags, chp_hermes_inv_key(inv))) {
		h->env.counters->overrun++;
		return;
	}
	/* A ticket that is used again has no use for what its last INV waited for: an aborted write's. */
	if (h->is_backed && inv->message.op < h->n_tickets)
		unpark(h, m->from * h->n_tickets + inv->message.op);
	if (is_behind(h, m->key.session)) {
		if (s == NULL || s->state == LOADING) {
			on_absent_inv(h, s, m, out);
			return;
		}
	} else if (s == NULL && (!is_forgotten(h, inv) || CHP_MUTATED(S6_STALE_INV))) {
		s = chp_cache_insert(h->env.cache, &m->key);
	}
	take_inv(h, s, inv, m->from, out);
}

/* [H6] What an ACK or STORED is about. It names ticket, generation and version: never a bare count (P1, SAFETY 10). */
static struct ticket *
ticket_of(struct hermes *h, const struct chp_peer_message *m)
{
	const struct chp_hermes_ack *ack = (const void *)m->message;
	struct ticket *t;

	if (ack->message.op >= h->n_tickets) {
		h->env.counters->ack_stale++;
		return NULL;
	}
	t = &h->ticket[ack->message.op];
	if (!t->used || ((t->generation != ack->generation || t->version != ack->version) &&
			 !CHP_MUTATED(P1_ACK_IGNORES_VERSION))) {
		h->env.counters->ack_stale++;
		return NULL;
	}
	if (t->fate == FATE_ABORTED) {
		h->env.counters->ack_stale++; /* an honest member refused it */
		return NULL;
	}
	return t;
}

static void
on_ack(struct hermes *h, const struct chp_peer_message *m, struct chp_out *out)
{
	struct ticket *t = ticket_of(h, m);

	if (t == NULL)
		return;
	t->acked |= chp_bit(m->from);
	commit_if_acked(h, t, out);
}

/* [SAFETY 33] A member's datastore has this version, or a newer one of its key. */
static void
on_stored(struct hermes *h, const struct chp_peer_message *m, struct chp_out *out)
{
	struct ticket *t = ticket_of(h, m);

	if (t == NULL)
		return;
	t->stored |= chp_bit(m->from);
	commit_if_acked(h, t, out);
}

/* [H8] A VAL of exactly the key's version (pitfall P5). */
static void
on_val(struct hermes *h, const struct chp_peer_message *m, struct chp_out *out)
{
	const struct chp_hermes_val *val = (const void *)m->message;
	const struct inv_memory *memory;
	struct key_record *k;
	struct chp_slot *s;

	if (val->message.op >= h->n_tickets) {
		h->env.counters->val_stale++;
		return;
	}
	memory = &h->inv[m->from * h->n_tickets + val->message.op];
	k = memory->key == NONE ? NULL : &h->key[memory->key];
	if (k == NULL || !k->used || k->generation != memory->generation) {
		h->env.counters->val_stale++;
		return;
	}
	s = slot_at(h, k->slot);
	if (s->state == VALID ||
	    (s->version != val->version && !CHP_MUTATED(P5_VAL_IGNORES_VERSION))) {
		h->env.counters->val_stale++;
		return;
	}
	become_valid(h, k, out);
}

/* ------------------------------------------------------------------ forgetting deleted keys */

/*
 * All floors are equal, and all that was begun under lower ones has arrived: announcements ride on the FIFO
 * links behind it. Only then may a read-modify-write of an absent key take a version just above the floor,
 * where every concurrent write beats it, and only then may keys be forgotten.
 */
static bool
floor_stable(const struct hermes *h)
{
	if ((h->peers & ~h->floor_known) != 0)
		return false;
	for (uint64_t p = h->peers; p != 0; p &= p - 1)
		if (h->peer_floor[chp_first_bit(p)] != h->floor)
			return false;
	return true;
}

static void
raise_floor(struct hermes *h, uint64_t counter, struct chp_out *out)
{
	if (counter <= h->floor)
		return;
	h->floor = counter;
	h->env.counters->floors++;
	h->floor_due = h->peers;
	announce_floor(h, out);
}

static void
on_floor(struct hermes *h, const struct chp_peer_message *m, struct chp_out *out)
{
	const struct chp_hermes_floor *floor = (const void *)m->message;

	h->peer_floor[m->from] = floor->counter;
	h->floor_known |= chp_bit(m->from);
	raise_floor(h, floor->counter, out);
}

/* The ACKs owed for FORGETs whose older operations have ended. */
static void
pay_owed_acks(struct hermes *h, struct chp_out *out)
{
	for (uint32_t i = 0; i < h->n_keys && h->n_owed > 0; i++) {
		struct key_record *k = &h->key[i];

		if (!k->used || !k->owed.is_owed || has_older_open(h, slot_at(h, k->slot)))
			continue;
		send_ack(k->owed.op, k->owed.generation, k->owed.version, k->owed.to, out);
		k->owed.is_owed = false;
		h->n_owed--;
	}
}

/* A key that all agreed to forget counts as absent; so does one that was never here, or that left the cache. */
static bool
is_absent(const struct chp_slot *s)
{
	return s == NULL || (s->flags & CHP_SLOT_FORGET) != 0 || s->version == 0;
}

/* ------------------------------------------------------------------ the copy for a learner (SAFETY 9) */

/*
 * Whether a key can be sent to a learner. While a write is on its way the learner might be left with neither it
 * nor what it replaces; once its base is newer than what the slot had when we first looked, all live members,
 * the learner among them, have acknowledged that base in this view. With level `datastore` the write may wait until the
 * learners' stores count, which they do when their copies are complete: there it is enough that the learner has it.
 */
static enum chp_copy_verdict
look_for_copy(void *p, const struct chp_slot *s, uint64_t seen)
{
	const struct hermes *h = p;

	/* Not here, or not anywhere: the datastore is looked through after the cache. */
	if (s->state == LOADING || s->version == 0)
		return CHP_COPY_SKIP;
	if (s->state == VALID)
		return CHP_COPY_SEND;
	if (seen != 0 && (s->flags & CHP_SLOT_BASE_UNKNOWN) == 0 && base_of(s) > seen)
		return CHP_COPY_SKIP;
	if (seen != 0 && h->env.backing->is_durable && (s->flags & CHP_SLOT_SESSION) == 0)
		return CHP_COPY_NAME;
	return CHP_COPY_WAIT;
}

static uint64_t
base_of_item(const struct chp_copy_item *item)
{
	uint64_t step = (item->item_flags & CHP_COPY_RMW) != 0 ? 1 : 2;

	if ((item->item_flags & (CHP_COPY_BASE_ABSENT | CHP_COPY_BASE_UNKNOWN)) != 0)
		return 0;
	return chp_version_make(chp_version_counter(item->version) - step, item->base_writer);
}

/*
 * A key that is not in the cache: our store may have something newer of this life, which was evicted. It keeps the
 * newer; the cache needs neither. Until the item is durable the key is not loaded: an INV may come that is older, of a
 * write that was overtaken and is sent again by the view.
 */
static void
store_only(struct hermes *h, struct chp_log_entry *e, const struct chp_key *key, const uint8_t *value)
{
	e->slot = NONE;
	h->last_item = chp_log_append(h->env.log, e, key->bytes, value, CHP_LOG_NONE, false);
	h->item_at[item_place(key)] = h->last_item;
	chp_log_commit(h->env.log, h->last_item);
	raise_evicted(h, chp_version_counter(e->version));
}

/* Whether an item can replace what is here: at rest, or a write under way, which it has overtaken. */
static bool
may_replace(const struct hermes *h, const struct chp_slot *s)
{
	return s == NULL || s->state == VALID ||
	       ((s->state == INVALID || s->state == REPLAY) && record_of(h, s)->own == NONE);
}

static bool
has_room_for_item(struct hermes *h, const struct chp_slot *s, const struct chp_key *key, uint32_t value_len)
{
	bool has_room;

	if (!h->is_backed)
		return chp_cache_room(h->env.cache) > 0;
	h->keep = s;
	has_room = make_room(h, key->len, value_len, s == NULL);
	h->keep = NULL;
	return has_room;
}

/*
 * The item takes the way of any write, through log and cache. It is committed, and what is promised to the peers of the
 * log is not touched. An older write under way counts as validated: its coordinator may have seen it overtaken, and
 * sends no VAL. A key that is being loaded is known first.
 */
static bool
install_item(struct hermes *h, struct chp_slot *s, const struct chp_key *key, struct chp_log_entry *e,
	     const uint8_t *value, struct chp_out *out)
{
	const uint32_t promised = (2 * h->env.n_nodes + 1) * h->env.credits;
	struct key_record *k;

	if (!may_replace(h, s) || chp_log_room_records(h->env.log) <= promised || h->free_key == NONE)
		return false;
	if (s == NULL && h->env.backing->may_evict) {
		store_only(h, e, key, value);
		return true;
	}
	if (!has_room_for_item(h, s, key, e->value_len))
		return false;
	if (s == NULL)
		s = chp_cache_insert(h->env.cache, key);
	k = take_key(h, s);
	if (k->replay != NONE)
		release_ticket(h, &h->ticket[k->replay]);
	if (s->state != VALID && (s->flags & CHP_SLOT_RMW) != 0)
		settle(h, k, fate_of(s->version, e->base, e->version_flags));
	install(h, s, k, e, key->bytes, value, false);
	s->state = INVALID;
	become_valid(h, k, out);
	return true;
}

/*
 * Whether this learner has a version that is under way at its source, or a newer one. If it left the cache it was
 * committed, and is in the store: it is loaded, to be here when the chunk is asked for again.
 */
static bool
has_version(struct hermes *h, const struct chp_slot *s, const struct chp_key *key, uint64_t version)
{
	uint32_t token;

	if (s != NULL)
		return s->version >= version;
	if (h->env.backing->is_ready && h->free_key != NONE && make_room(h, key->len, 0, true) &&
	    chp_backing_load(h->env.backing, key, &token))
		wait_for_token(h, begin_loading(h, key), token);
	return false;
}

/*
 * A version that is Valid at the source. What this learner has acknowledged itself is newer, or the same. Without a
 * datastore it mostly needs no log entry, being committed: the log's room is promised to the peers. False: no room, the
 * chunk is asked for again.
 */
static bool
apply_item(void *p, const struct chp_peer_message *m, struct chp_out *out)
{
	struct hermes *h = p;
	const struct chp_copy_item *item = (const void *)m->message;
	struct chp_slot *s = chp_cache_find(h->env.cache, &m->key);
	const bool is_stored = is_behind(h, m->key.session);
	struct chp_log_entry e = { .version = item->version,
				   .base = base_of_item(item),
				   .value_len = item->value_total,
				   .key_len = item->key_len,
				   .version_flags = item->item_flags & CHP_COPY_VERSION_FLAGS };

	if ((item->item_flags & CHP_COPY_UNDER_WAY) != 0)
		return is_stored && has_version(h, s, &m->key, item->version);
	if (s != NULL && s->version >= item->version)
		return true;
	/* What kind of store it is must be known before something is left to it alone. */
	if (h->is_complete || (is_stored && !h->knows_evicted) || chp_cache_room(h->env.cache) == 0 ||
	    no_room_for_session(h, e.version_flags, chp_copy_item_key(item)))
		return false;
	if (is_stored || (s != NULL && s->state != VALID))
		return install_item(h, s, &m->key, &e, chp_copy_item_value(item), out);
	if (s == NULL)
		s = chp_cache_insert(h->env.cache, &m->key);
	set_slot(h, s, &e, chp_copy_item_key(item), chp_copy_item_value(item));
	return true;
}

/*
 * What a store has from an earlier life counts for nothing to a learner before it is reconciled (SAFETY 34), and what
 * we copied ourselves is in our store first.
 */
static bool
may_scan(void *p)
{
	const struct hermes *h = p;

	return h->view.sources == 0 && has_all(h);
}

/* A learner that has copied everything, and has heard all that was under way when its view began, is complete. */
static void
complete_copy(struct hermes *h)
{
	if (h->is_complete || !chp_copy_is_done(&h->copy) || (h->peers & ~h->floor_known) != 0)
		return;
	/* What was left to the store must be there. */
	if (h->last_item >= h->env.log->mark)
		return;
	h->is_complete = true;
	h->copied = h->env.log->next;
	chp_sessions_drop_guesses(h->env.sessions);
}

/* ------------------------------------------------------------------ client operations */

/* What an operation would write. */
struct intent {
	const uint8_t *value;
	uint32_t value_len;
	uint64_t number;
	uint8_t version_flags;
	uint8_t status; /* anything but OK: answer this instead of writing */
};

/* An operation on a client's key is the application's affair; s is NULL or at rest. */
static struct intent
evaluate(struct hermes *h, const struct client_op *op, const struct chp_slot *s, const uint8_t *operand)
{
	const struct chp_application *application = h->env.application;
	struct chp_current now = { .present = s != NULL && (s->flags & CHP_SLOT_TOMBSTONE) == 0 };
	struct chp_outcome to;

	if (now.present) {
		now.version = s->version;
		now.value_len = s->value_len;
		if (chp_application_needs_value(application, op->opcode)) {
			chp_cache_value(h->env.cache, s, h->record);
			now.value = h->record;
		}
	}
	application->evaluate(op->opcode, op->arg, operand, op->value_len, &now, h->env.value_bytes_max, h->value,
			      &to);
	return (struct intent){ .value = to.value,
				.value_len = to.value_len,
				.number = to.number,
				.version_flags = (uint8_t)((to.is_rmw ? CHP_INV_RMW : 0u) |
							   (to.remove ? CHP_INV_TOMBSTONE : 0u)),
				.status = to.status };
}

static struct intent
intend(struct hermes *h, const struct client_op *op, const struct chp_slot *s, const uint8_t *operand)
{
	struct intent w = { .value = operand, .value_len = op->value_len, .status = CHP_STATUS_OK };

	switch (op->opcode) {
	case CHP_OPCODE_SESSION_OPEN:
		w.version_flags = CHP_INV_SESSION;
		break;
	case CHP_OPCODE_SESSION_CLOSE:
		w.version_flags = CHP_INV_SESSION | CHP_INV_TOMBSTONE;
		if (s == NULL || (s->flags & CHP_SLOT_TOMBSTONE) != 0)
			w.status = CHP_STATUS_SESSION_UNKNOWN;
		break;
	default:
		return evaluate(h, op, s, operand);
	}
	return w;
}

/*
 * What clients write may have to wait until all is reconciled (stores_count), which needs credits, too: half of them
 * are kept for it.
 */
static bool
is_share_used(const struct hermes *h, const struct chp_key *key)
{
	return h->view.sources != 0 && h->env.backing->is_durable && !key->session &&
	       h->n_own - h->n_reconciling >= h->env.credits / 2;
}

/* Busy and full are decided here, before the first INV: certainly not applied (SAFETY 12); so is "again later". */
static uint8_t
admit(struct hermes *h, const struct chp_slot *s, const struct chp_key *key, const struct intent *w,
      const struct client_op *op, const struct chp_out *out)
{
	const bool add = is_absent(s) && (w->version_flags & CHP_INV_RMW) != 0 && !is_behind(h, key->session);

	/* A round trip after a view change or link reset: nothing is wrong with the request. */
	if ((add && !floor_stable(h)) || (out->ungranted & h->live) != 0) {
		h->env.counters->unstable++;
		return CHP_STATUS_OVERLOAD;
	}
	if (op->tries > CHP_RMW_TRIES_MAX || h->n_own == h->env.credits || is_share_used(h, key) ||
	    (h->free_key == NONE && (s == NULL || s->busy == CHP_SLOT_NO_BUSY)) ||
	    (chp_out_credits(out, h->live) == 0 && !CHP_MUTATED(S12_NO_CREDITS))) {
		h->env.counters->busy++;
		return CHP_STATUS_BUSY;
	}
	/* What never leaves the cache gets half of it. */
	if (h->is_backed && key->session && s == NULL && chp_cache_sessions(h->env.cache) >= h->env.keys_max / 2 + 1) {
		h->env.counters->full++;
		return CHP_STATUS_FULL;
	}
	/* A tombstone takes no more room than the record it replaces: deletes work on a full cache. */
	if ((w->version_flags & CHP_INV_TOMBSTONE) == 0 && !make_room(h, key->len, w->value_len, s == NULL)) {
		h->env.counters->full++;
		/* Behind the cache there is room: what is in it will leave when the datastore has it. */
		return h->env.backing->may_evict && h->is_backed ? CHP_STATUS_OVERLOAD : CHP_STATUS_FULL;
	}
	return CHP_STATUS_OK;
}

/*
 * [H2, H3] Begin the write: version, slot, log, INV to all. The key is Valid, Loading or absent; i may be NONE; version
 * is 0, or one that is written again.
 */
static void
begin(struct hermes *h, const struct chp_now *now, uint32_t i, struct chp_slot *s, const struct chp_key *key,
      const struct intent *w, uint64_t version, struct chp_out *out)
{
	static const struct client_op nobody;
	const struct client_op *op = i == NONE ? &nobody : &h->op[i];
	const bool absent = is_absent(s) && !CHP_MUTATED(S6_NO_FLOOR);
	const bool behind = is_behind(h, key->session);
	/* Not in the cache, and nobody looked in the datastore: what it follows is not known. */
	const bool unknown = behind && (s == NULL || s->state == LOADING);
	const bool rmw = (w->version_flags & CHP_INV_RMW) != 0;
	struct chp_log_entry e = { .session = op->session,
				   .request = op->request,
				   .number = w->number,
				   .value_len = (w->version_flags & CHP_INV_TOMBSTONE) != 0 ? 0 : w->value_len,
				   .key_len = (uint8_t)key->len,
				   .version_flags = w->version_flags };
	struct chp_hermes_inv inv;
	struct key_record *k;
	struct ticket *t;

	if (unknown)
		e.version_flags |= CHP_INV_BASE_UNKNOWN;
	if (s == NULL)
		s = chp_cache_insert(h->env.cache, key);
	/* [SAFETY 2] Above everything that was forgotten; concurrent writes beat concurrent RMWs. */
	e.base = absent ? 0 : s->version;
	/* A forgotten key's slot may still be there, above a floor that a peer did not honour. */
	e.version = chp_version_counter(s->version);
	if (absent && !(behind && rmw))
		e.version = chp_max_u64(e.version, chp_max_u64(h->floor, chp_max_u64(h->evicted, h->peers_evicted)));
	e.version = version != 0 ? version : chp_version_make(e.version + (rmw ? 1 : 2), h->writer);
	k = take_key(h, s);
	stop_loading(h, k, out);
	t = take_ticket(h, k->slot, e.version);
	h->n_own++;
	install(h, s, k, &e, key->bytes, w->value, true);
	s->state = WRITE;
	t->log = k->log;
	t->op = i;
	t->rmw = rmw;
	t->number = w->number;
	t->must_store = behind && h->env.backing->is_durable;
	t->reconciles = version != 0;
	h->n_reconciling += t->reconciles;
	t->begun_ns = now->ns;
	k->own = index_of_ticket(h, t);
	inv = inv_header(&e, k->own, t->generation, CHP_MESSAGE_BEGIN, 0);
	for (uint64_t to = h->live; to != 0; to &= to - 1) {
		uint32_t peer = chp_first_bit(to);

		if (!CHP_MUTATED(S12_NO_CREDITS) || out->lane[peer].credits > 0)
			chp_out_begin(out, peer);
		if (peer != h->env.self)
			write_inv(out, peer, &inv, key->bytes, w->value);
	}
	h->env.counters->begun++;
	take_parked(h, k, out);
	commit_if_acked(h, t, out); /* a cluster of one */
}

/* The record of a client operation's request, if it has one. */
static struct chp_record *
record_of_op(struct hermes *h, const struct client_op *op)
{
	const struct chp_session *session = chp_session_find(h->env.sessions, op->session);
	struct chp_record *r = session == NULL ? NULL : chp_session_record(h->env.sessions, session, op->request);

	return r != NULL && r->request == op->request ? r : NULL;
}

/*
 * [SAFETY 25] The key is Valid: what became of a request that an earlier home had sent? A plain write was, or
 * will be for ever, right before what overtook it. True: answered. False: it was aborted everywhere and is
 * executed like a new one.
 */
static bool
answer_asked(struct hermes *h, uint32_t i, const struct chp_slot *s, struct chp_out *out)
{
	const bool is_here = s != NULL && s->state != LOADING; /* what left the cache was Valid */
	struct chp_record *r = record_of_op(h, &h->op[i]);

	h->env.counters->asked++;
	if (r != NULL && r->state == CHP_RECORD_SEEN && r->rmw && r->fate == CHP_FATE_ABORTED) {
		r->state = CHP_RECORD_PENDING;
		r->is_asked = 0;
		r->version = 0;
		h->op[i].is_asked = false;
		return false;
	}
	if (r != NULL && r->state == CHP_RECORD_SEEN &&
	    (r->rmw ? r->fate == CHP_FATE_COMMITTED : !is_here || s->version >= r->version)) {
		reply_op(h, out, i, CHP_STATUS_OK, r->version, r->number);
		return true;
	}
	h->env.counters->unknown++;
	reply_op(h, out, i, CHP_STATUS_UNKNOWN_OUTCOME, 0, 0);
	return true;
}

/*
 * Whether an operation that waited may still be executed here. Its client is sent to the present home, which
 * may be this node again: what it finds in the record then tells whether another home executed it meanwhile.
 * Without a lease even a failed comparison would be a read of what may be old; and what a session sent is its
 * present home's to execute.
 */
static bool
may_start(struct hermes *h, const struct chp_now *now, uint32_t i, struct chp_out *out)
{
	const struct client_op *op = &h->op[i];
	const uint32_t home = op->session == 0 ? h->env.self : chp_view_home(&h->view, op->session);

	if (home != h->env.self || op->moved) {
		h->env.counters->moved++;
		reply_op(h, out, i, CHP_STATUS_REDIRECT, 0, home);
		return false;
	}
	if (now->ns >= now->lease_until_ns && !CHP_MUTATED(P13_NO_LEASE_AT_ANSWER)) {
		reply_op(h, out, i, CHP_STATUS_NOT_SERVING, 0, 0);
		return false;
	}
	return true;
}

/* Do a write on a key that is Valid or absent: answer it at once or begin it. */
static void
start(struct hermes *h, const struct chp_now *now, uint32_t i, struct chp_slot *s, const struct chp_key *key,
      const uint8_t *operand, struct chp_out *out)
{
	const struct client_op *op = &h->op[i];
	struct intent w;

	if (op->is_asked && answer_asked(h, i, s, out))
		return;
	w = intend(h, op, s, operand);
	if (op->opcode == CHP_OPCODE_SESSION_OPEN)
		memcpy(&w.number, key->bytes, sizeof(w.number));
	if (w.status == CHP_STATUS_OK)
		w.status = admit(h, s, key, &w, op, out);
	else
		chp_out_reads_until(out, now->lease_until_ns); /* it tells what the key is */
	if (w.status != CHP_STATUS_OK) {
		reply_op(h, out, i, w.status, s == NULL ? 0 : s->version, w.number);
		return;
	}
	/* What may be overtaken and tried again keeps its operand. */
	if ((w.version_flags & CHP_INV_RMW) != 0 && operand != operand_of(h, i) && op->value_len > 0)
		memcpy(operand_of(h, i), operand, op->value_len);
	begin(h, now, i, s, key, &w, 0, out);
}

/*
 * No room for another operation: busy. An open that is refused says which one it was. A request that was executed
 * already is not busy: only its answer is.
 */
static void
refuse(struct hermes *h, const struct chp_op *op, struct chp_out *out)
{
	struct chp_reply r = { .origin = &op->origin,
			       .session = op->session,
			       .request = op->request,
			       .opcode = op->opcode,
			       .status = op->is_asked ? CHP_STATUS_OVERLOAD : CHP_STATUS_BUSY };

	if (op->opcode == CHP_OPCODE_SESSION_OPEN)
		memcpy(&r.number, op->key.bytes, sizeof(r.number));
	h->env.counters->busy++;
	out->reply(out, &r);
}

/* The key is not Valid, or others wait for it: wait in its queue, in order of arrival. */
static void
park(struct hermes *h, const struct chp_op *from, struct chp_slot *s, struct chp_out *out)
{
	struct key_record *k = record_of(h, s);
	uint32_t i = take_op(h, from);

	if (i == NONE) {
		refuse(h, from, out);
		return;
	}
	if (from->value_len > 0)
		memcpy(operand_of(h, i), from->value, from->value_len);
	if (k->wait_head == NONE)
		k->wait_head = i;
	else
		h->op[k->wait_tail].next = i;
	k->wait_tail = i;
	/* The key may be Valid and have its record for another reason: nothing else would serve the queue. */
	if (s->state == VALID)
		make_ready(h, k);
	if (from->opcode == CHP_OPCODE_GET)
		h->env.counters->reads_parked++;
	else
		h->env.counters->writes_parked++;
}

/*
 * The slow path: a read or a read-modify-write of a key that is not in the cache waits, with all others of the same
 * key, for one load. More keys than loads_max are not waited for.
 */
static void
wait_for_load(struct hermes *h, const struct chp_op *op, struct chp_slot *s, struct chp_out *out)
{
	struct chp_reply r = { .origin = &op->origin,
			       .session = op->session,
			       .request = op->request,
			       .opcode = op->opcode,
			       .status = CHP_STATUS_OVERLOAD };
	struct key_record *k;
	uint32_t token;

	h->env.counters->misses++;
	h->env.counters->host_away += !h->env.backing->is_ready;
	if (s == NULL) {
		if (h->is_short || h->free_op == NONE || h->free_key == NONE || !make_room(h, op->key.len, 0, true) ||
		    !chp_backing_load(h->env.backing, &op->key, &token)) {
			h->env.counters->misses_refused++;
			out->reply(out, &r);
			return;
		}
		k = begin_loading(h, &op->key);
		wait_for_token(h, k, token);
		s = slot_at(h, k->slot);
	}
	park(h, op, s, out);
}

static void
submit_one(struct hermes *h, const struct chp_now *now, const struct chp_op *op, struct chp_out *out)
{
	struct chp_slot *s = chp_cache_find(h->env.cache, &op->key);
	bool at_rest = s == NULL || s->busy == CHP_SLOT_NO_BUSY;
	uint32_t i;

	if (CHP_MUTATED(P56_READ_NOT_VALID) && op->opcode == CHP_OPCODE_GET)
		at_rest = true;
	if (CHP_MUTATED(P10_RMW_FROM_INVALID) && s != NULL && s->state == INVALID &&
	    h->key[s->busy].own == NONE && op->opcode != CHP_OPCODE_GET)
		at_rest = true;
	if (is_behind(h, op->key.session) && (s == NULL || s->state == LOADING) &&
	    !chp_application_is_blind(h->env.application, op->opcode) && !CHP_MUTATED(S3_RMW_WITHOUT_LOAD)) {
		wait_for_load(h, op, s, out);
		return;
	}
	if (s != NULL && s->state == LOADING)
		at_rest = true; /* a write that need not know what there was */
	if (!at_rest) {
		park(h, op, s, out);
		return;
	}
	if (op->opcode == CHP_OPCODE_GET) {
		struct chp_reply r = { .origin = &op->origin,
				       .session = op->session,
				       .request = op->request,
				       .opcode = op->opcode };

		read(h, now, s, &r, out);
		return;
	}
	i = take_op(h, op);
	if (i == NONE) {
		refuse(h, op, out);
		return;
	}
	h->keep = s;
	start(h, now, i, s, &op->key, op->value, out);
	h->keep = NULL;
}

static void
hermes_submit(void *p, const struct chp_now *now, const struct chp_op *op, uint32_t n, struct chp_out *out)
{
	CHP_ASSERT_OP(n, <=, CHP_BATCH_MAX);
	for (uint32_t i = 0; i < n; i++)
		submit_one(p, now, &op[i], out);
}

/* ACK and VAL come without a look-up: their slots' lines, last used a round trip ago, are fetched together. */
static void
prefetch_slots(const struct hermes *h, const struct chp_peer_message *m, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		const uint32_t op = m[i].message->op;

		if (op >= h->n_tickets)
			continue;
		if (m[i].message->type == CHP_HERMES_ACK) {
			if (h->ticket[op].slot != NONE)
				chp_cache_prefetch(h->env.cache, h->ticket[op].slot);
		} else if (m[i].message->type == CHP_HERMES_VAL) {
			uint32_t key = h->inv[m[i].from * h->n_tickets + op].key;

			if (key != NONE)
				chp_cache_prefetch(h->env.cache, h->key[key].slot);
		}
	}
}

static void on_fetch(struct hermes *h, const struct chp_peer_message *m, struct chp_out *out);
static void on_fetched(struct hermes *h, const struct chp_peer_message *m);

static void
hermes_step(void *p, const struct chp_now *now, const struct chp_peer_message *m, uint32_t n, struct chp_out *out)
{
	struct hermes *h = p;

	CHP_ASSERT_OP(n, <=, CHP_BATCH_MAX);
	prefetch_slots(h, m, n);
	for (uint32_t i = 0; i < n; i++) {
		if (chp_copy_is(m[i].message)) {
			chp_copy_receive(&h->copy, now, &m[i], out);
			continue;
		}
		switch (m[i].message->type) {
		case CHP_HERMES_INV:
			on_inv(h, &m[i], out);
			break;
		case CHP_HERMES_ACK:
			on_ack(h, &m[i], out);
			break;
		case CHP_HERMES_FLOOR:
			on_floor(h, &m[i], out);
			break;
		case CHP_HERMES_EVICTED:
			on_evicted(h, &m[i]);
			break;
		case CHP_HERMES_STORED:
			on_stored(h, &m[i], out);
			break;
		case CHP_HERMES_FETCH:
			on_fetch(h, &m[i], out);
			break;
		case CHP_HERMES_FETCHED:
			on_fetched(h, &m[i]);
			break;
		default:
			on_val(h, &m[i], out);
		}
	}
}

/* ------------------------------------------------------------------ what waited */

/*
 * Nobody but INVs can wait for this key any more. They cannot be refused: the key is asked for again. So is one that
 * must stay in the cache because another key's digest leads over it, or whose record stands in a list: left at rest it
 * would say that there is no such key.
 */
static void
give_up_loading(struct hermes *h, struct key_record *k, struct chp_out *out)
{
	struct chp_slot *s = slot_at(h, k->slot);

	stop_loading(h, k, out);
	if (k->parked_head != NONE || (s->flags & CHP_SLOT_COLLIDED) != 0 || is_listed(k)) {
		k->is_failed = false;
		if (!k->listed[TO_LOAD])
			push(h, TO_LOAD, k);
		return;
	}
	s->state = VALID;
	release_key(h, k);
	if (s->busy == CHP_SLOT_NO_BUSY)
		chp_cache_remove(h->env.cache, s);
}

/* Whether the first that waits for a key gets its answer now. */
static bool
may_answer(const struct hermes *h, const struct key_record *k, const struct chp_slot *s)
{
	if (CHP_MUTATED(P56_PARKED_UNCOMMITTED) && s->state == INVALID && h->op[k->wait_head].opcode == CHP_OPCODE_GET)
		return true;
	return s->state == VALID || (s->state == LOADING && k->is_failed);
}

/* Serve a Valid key's queue until a write begins, the queue ends or room for replies does. */
static void
serve_queue(struct hermes *h, const struct chp_now *now, struct key_record *k, struct chp_out *out)
{
	struct chp_slot *s = slot_at(h, k->slot);
	uint8_t bytes[CHP_KEY_BYTES_MAX];
	struct chp_key key = { .bytes = bytes, .len = s->key_len, .session = (s->flags & CHP_SLOT_SESSION) != 0 };

	chp_cache_key(h->env.cache, s, bytes);
	while (k->wait_head != NONE && out->replies_left > 0) {
		uint32_t i = k->wait_head;
		struct client_op *op = &h->op[i];

		if (!may_answer(h, k, s))
			return;
		k->wait_head = op->next;
		if (s->state == LOADING) {
			reply_op(h, out, i, CHP_STATUS_OVERLOAD, 0, 0);
		} else if (op->opcode == CHP_OPCODE_GET) {
			struct chp_reply r = { .origin = &op->origin,
					       .session = op->session,
					       .request = op->request,
					       .opcode = op->opcode };

			read(h, now, s, &r, out);
			release_op(h, i);
		} else if (may_start(h, now, i, out)) {
			start(h, now, i, s, &key, operand_of(h, i), out);
		}
	}
}

/* [H10] Replay the present version of a key that is not Valid. */
static void
start_replay(struct hermes *h, const struct chp_now *now, struct key_record *k, struct chp_out *out)
{
	struct chp_slot *s = slot_at(h, k->slot);
	struct ticket *t;

	t = take_ticket(h, k->slot, s->version);
	t->replay = true;
	t->log = k->log;
	t->rmw = (s->flags & CHP_SLOT_RMW) != 0;
	t->must_store = h->env.backing->is_durable && (s->flags & CHP_SLOT_SESSION) == 0;
	t->begun_ns = now->ns;
	h->n_replays++;
	k->replay = index_of_ticket(h, t);
	if (s->state == INVALID)
		s->state = REPLAY;
	h->env.counters->replays++;
	send_ticket(h, t, h->peers, out);
	commit_if_acked(h, t, out);
}

/* Whether the present version waits for somebody else's VAL, and nobody here is replaying it. */
static bool
needs_replay(const struct hermes *h, const struct key_record *k)
{
	const struct chp_slot *s = slot_at(h, k->slot);

	if (s->state == VALID || s->state == LOADING || k->replay != NONE)
		return false;
	return k->own == NONE || h->ticket[k->own].version != s->version;
}

/*
 * With level `datastore` a replay may wait for long after all have acknowledged it, for a learner's store perhaps,
 * which waits for all of us to have replayed everything. It gives way, and is replayed once more behind all others.
 */
static bool
set_aside(struct hermes *h)
{
	for (uint32_t i = 0; i < h->n_tickets; i++) {
		struct ticket *t = &h->ticket[i];
		struct chp_slot *s;
		struct key_record *k;

		if (!t->used || !t->replay || !t->must_store || (h->peers & ~t->acked) != 0)
			continue;
		s = slot_at(h, t->slot);
		k = record_of(h, s);
		if (k->listed[TO_REPLAY])
			continue;
		if (s->state == REPLAY)
			s->state = INVALID;
		release_ticket(h, t);
		k->is_replayed = true;
		push(h, TO_REPLAY, k);
		return true;
	}
	return false;
}

static void
start_replays(struct hermes *h, const struct chp_now *now, struct chp_out *out)
{
	while (h->list[TO_REPLAY].head != NONE && out->replies_left > 0) {
		struct key_record *k;

		if (h->n_replays == h->replays_max && (h->n_unsaid == 0 || !set_aside(h)))
			return;
		k = pop(h, TO_REPLAY);
		if (!needs_replay(h, k))
			release_key(h, k);
		else if (k->is_replayed && h->n_unsaid > 0)
			push(h, TO_REPLAY, k);
		else
			start_replay(h, now, k, out);
	}
}

/* A view of ourselves alone: what was open needs nobody's acknowledgement. */
static void
commit_alone(struct hermes *h, struct chp_out *out)
{
	for (uint32_t i = 0; i < h->n_tickets && h->n_own + h->n_replays > 0 && out->replies_left > 0; i++)
		if (h->ticket[i].used && h->ticket[i].fate == FATE_OPEN)
			commit_if_acked(h, &h->ticket[i], out);
}

/* A floor goes so far beyond what needs it that one announcement serves many deleted keys. */
#define FLOOR_STEP 1024u

/* Agree to forget a tombstone: a read-modify-write, so that any concurrent write wins over it. */
static void
forget(struct hermes *h, const struct chp_now *now, struct chp_slot *s, struct chp_out *out)
{
	uint8_t bytes[CHP_KEY_BYTES_MAX];
	struct chp_key key = { .bytes = bytes, .len = s->key_len, .session = (s->flags & CHP_SLOT_SESSION) != 0 };
	struct intent w = { .version_flags = (uint8_t)(CHP_INV_RMW | CHP_INV_TOMBSTONE | CHP_INV_FORGET |
						       (s->flags & CHP_SLOT_SESSION)) };

	/* The floor must be above the version that forgets, everywhere, before it is begun. */
	if (chp_version_counter(s->version) + 1 > h->floor) {
		raise_floor(h, chp_version_counter(s->version) + FLOOR_STEP, out);
		return;
	}
	/* Half of the credits stay with the clients. */
	if (!floor_stable(h) || h->free_key == NONE || h->n_own >= (h->env.credits + 1) / 2 ||
	    chp_out_credits(out, h->live) == 0)
		return;
	chp_cache_key(h->env.cache, s, bytes);
	begin(h, now, NONE, s, &key, &w, 0, out);
}

/* Slots looked at in one call while deleted keys are being forgotten, and how long until the next. */
#define SWEEP_SLOTS 64u
#define SWEEP_NS UINT64_C(100000)

/*
 * When an eighth of the cache holds deleted keys: one replica has them forgotten, each removes what was. Not
 * while there is a learner: what it is sent of a key may be older than the key's end, which it must still know.
 */
static void
sweep(struct hermes *h, const struct chp_now *now, struct chp_out *out)
{
	/* With a datastore only session numbers are forgotten: clients' keys leave by eviction, deleted or not. */
	const uint32_t n = h->is_backed ? chp_cache_session_tombstones(h->env.cache) :
					  chp_cache_tombstones(h->env.cache);

	if (h->view.learners != 0 || h->view.epoch == 0 || n == 0 ||
	    (n < h->env.keys_max / 8 + 1 && !chp_cache_is_over(h->env.cache)))
		return;
	chp_out_wake_at(out, now->ns + SWEEP_NS);
	for (uint32_t i = 0; i < SWEEP_SLOTS && out->replies_left > 0; i++) {
		struct chp_slot *s = slot_at(h, h->sweep_at);

		h->sweep_at = (h->sweep_at + 1) % chp_cache_slots(h->env.cache);
		if (s == NULL || (s->flags & CHP_SLOT_TOMBSTONE) == 0 || s->busy != CHP_SLOT_NO_BUSY ||
		    is_behind(h, (s->flags & CHP_SLOT_SESSION) != 0))
			continue;
		if ((s->flags & CHP_SLOT_FORGET) == 0) {
			if (chp_first_bit(h->view.voters) == h->env.self)
				forget(h, now, s, out);
		} else if (floor_stable(h) && !has_older_open(h, s)) {
			h->settled = h->floor;
			h->env.counters->forgotten += chp_cache_remove(h->env.cache, s);
		}
	}
}

static bool has_room_for(struct hermes *h, const struct key_record *k, const struct chp_loaded *l);
static void finish_loading(struct hermes *h, struct key_record *k, const struct chp_loaded *l, struct chp_out *out);
static void not_loaded(struct hermes *h, struct key_record *k, struct chp_out *out);

/* ------------------------------------------------------------------ cold start (SAFETY 34) */

/* What could not be told is asked for again after so long; the store is looked through again after so long. */
#define FETCH_AGAIN_NS UINT64_C(1000000)
#define LOOK_AGAIN_NS UINT64_C(10000000)

/* What was asked for or began to load is known: the slot is at rest with what it holds. */
static void
come_to_rest(struct hermes *h, struct key_record *k, struct chp_out *out)
{
	struct chp_slot *s = slot_at(h, k->slot);

	s->base_writer = 0;
	s->log_low = (uint32_t)h->env.log->mark - 1;
	s->state = VALID;
	take_parked(h, k, out);
	if (s->state == VALID)
		make_ready(h, k);
	release_key(h, k);
}

/*
 * How much a store knows of what was written in a generation: it has everything from before the view that it has
 * recorded. The first view of a generation counts for nothing: all its sources have the same right to be asked then.
 */
static uint64_t
rank_of(uint64_t recorded, uint64_t generation)
{
	if (recorded >> CHP_GENERATION_SHIFT < generation ||
	    (recorded >> CHP_GENERATION_SHIFT == generation && chp_epoch_is_first(recorded)))
		return 0;
	return recorded;
}

/*
 * A store's answer, version 0: it has nothing. Whether it counts more than what is known so far: what was written in a
 * later generation does; then what a store says that knows more of that generation; then the newer version.
 */
static bool
is_better(const struct fetch *f, uint64_t version, struct stored_where from)
{
	const uint64_t g = chp_max_u64(f->from.generation, from.generation);

	if (version != 0 && f->version != 0 && from.generation != f->from.generation)
		return from.generation > f->from.generation;
	if (rank_of(from.recorded, g) != rank_of(f->from.recorded, g))
		return rank_of(from.recorded, g) > rank_of(f->from.recorded, g);
	return version > f->version;
}

static void
take_better(struct hermes *h, struct fetch *f, uint64_t version, struct stored_where from, const uint8_t *value,
	    uint32_t value_len, bool is_deleted)
{
	if (!is_better(f, version, from))
		return;
	f->version = version;
	f->from = from;
	f->is_deleted = is_deleted;
	f->value_len = value_len;
	if (value_len > 0)
		memcpy(value_of_fetch(h, f), value, value_len);
}

/* A voter to ask for what our host would know, were it there; behind the one asked last. 0: there is nobody. */
static uint64_t
other_voter(const struct hermes *h, uint32_t last)
{
	const uint64_t others = h->view.voters & h->peers;
	const uint64_t behind = others & ~(chp_bit(last) | (chp_bit(last) - 1));

	return others == 0 ? 0 : chp_bit(chp_first_bit(behind != 0 ? behind : others));
}

/* Whom a key is asked of: after a cold start all sources; otherwise one voter, as our host is away (SAFETY 32). */
static void
ask_anew(struct hermes *h, struct fetch *f)
{
	f->waiting = is_source(h) ? h->view.sources & h->peers : other_voter(h, h->env.self);
	f->due = f->waiting;
	f->again = 0;
	f->is_answered = false;
	f->under_way = 0;
	if (is_source(h))
		return;
	/* Our datastore has said nothing: whatever the voter says is better. */
	f->version = 0;
	f->from = (struct stored_where){ 0 };
}

/*
 * A view begins while a key is being asked for. When all is reconciled our own datastore has it, and who has an INV of
 * it waiting must not wait for others, who may wait for the acknowledgement.
 */
static void
fetch_anew(struct hermes *h, struct fetch *f)
{
	struct key_record *k = f->key == NONE ? NULL : &h->key[f->key];

	if (k == NULL)
		return;
	if (is_source(h) || k->load != NONE) {
		ask_anew(h, f);
		return;
	}
	k->fetch = NONE;
	f->key = NONE;
	h->n_fetches--;
	if (!k->listed[TO_LOAD])
		push(h, TO_LOAD, k);
}

/* Ask others for a key; l is what our own datastore has, or NULL. False: too many keys are being asked for. */
static bool
fetch(struct hermes *h, struct key_record *k, const struct chp_loaded *l)
{
	for (uint32_t i = 0; i < FETCHES; i++) {
		struct fetch *f = &h->fetch[i];

		if (f->key != NONE)
			continue;
		*f = (struct fetch){ .key = index_of_key(h, k),
				     .generation = f->generation + 1,
				     .from = stored_here(h, 0) };
		ask_anew(h, f);
		f->left = l != NULL && l->status != CHP_LOAD_ABSENT ? l->version : 0;
		if (f->left != 0)
			take_better(h, f, l->version, stored_here(h, l->generation), l->value, l->value_len,
				    l->status == CHP_LOAD_TOMBSTONE);
		k->fetch = i;
		h->n_fetches++;
		h->env.counters->fetches++;
		return true;
	}
	return false;
}

/*
 * [SAFETY 32] Our host is away: what waits for it is asked of a live voter. What that one has at rest is what our
 * datastore has, too, or the key would not have left our cache.
 */
static void
ask_peers_instead(struct hermes *h)
{
	for (uint32_t token = 0; token < h->env.loads_max; token++) {
		struct key_record *k = h->load_key[token] == NONE ? NULL : &h->key[h->load_key[token]];

		if (k == NULL || k->fetch != NONE || (k->wait_head == NONE && k->parked_head == NONE))
			continue;
		if (!fetch(h, k, NULL))
			return;
	}
}

static void
send_fetches(struct hermes *h, const struct fetch *f, struct chp_out *out)
{
	const struct chp_slot *s = slot_at(h, h->key[f->key].slot);
	const uint32_t bytes = chp_align_u32((uint32_t)sizeof(struct chp_hermes_fetch) + s->key_len, CHP_MESSAGE_ALIGN);

	for (uint64_t to = f->due; to != 0; to &= to - 1) {
		uint8_t *m = chp_send(out, chp_first_bit(to), bytes);
		const struct chp_hermes_fetch header = {
			.message = { .type = CHP_HERMES_FETCH, .len = (uint16_t)bytes, .op = (uint32_t)(f - h->fetch) },
			.generation = f->generation,
			.key_len = s->key_len,
		};

		memset(m, 0, bytes);
		memcpy(m, &header, sizeof(header));
		chp_cache_key(h->env.cache, s, m + sizeof(header));
	}
}

/*
 * Another source asks what we have. What is under way it gets as an INV. Who only lacks its host has that INV already,
 * and is told that nothing newer was at rest: before that it would have been here.
 */
static void
on_fetch(struct hermes *h, const struct chp_peer_message *m, struct chp_out *out)
{
	const struct chp_hermes_fetch *from = (const void *)m->message;
	const uint32_t i = m->from * FETCHES + from->message.op;
	struct chp_slot *s = chp_cache_find(h->env.cache, &m->key);
	struct key_record *k;
	uint32_t token;

	if (!h->is_backed || from->message.op >= FETCHES)
		return;
	unask(h, i);
	if (s != NULL && s->state == VALID) {
		const bool is_gone = (s->flags & CHP_SLOT_TOMBSTONE) != 0;

		chp_cache_value(h->env.cache, s, h->record);
		send_fetched(stored_here(h, h->generation), m->from, from->message.op, from->generation,
			     status_of(s->version, is_gone), s->version, h->record, is_gone ? 0 : s->value_len, out);
		return;
	}
	k = s == NULL ? NULL : record_of(h, s);
	if (s != NULL && s->state == LOADING && k->fetch != NONE && is_source(h)) {
		const struct fetch *f = &h->fetch[k->fetch]; /* both ask: what our datastore has is in it */

		send_fetched(f->from, m->from, from->message.op, from->generation,
			     status_of(f->version, f->is_deleted), f->version, value_of_fetch(h, f), f->value_len, out);
		return;
	}
	if (s == NULL && h->env.backing->is_ready && h->free_key != NONE && make_room(h, m->key.len, 0, true) &&
	    chp_backing_load(h->env.backing, &m->key, &token)) {
		k = begin_loading(h, &m->key);
		wait_for_token(h, k, token);
	}
	if (s != NULL && s->state != LOADING && s->version != 0) {
		send_fetched(stored_here(h, 0), m->from, from->message.op, from->generation,
			     CHP_HERMES_FETCH_UNDER_WAY, s->version, NULL, 0, out);
		return;
	}
	if (k == NULL || k->load == NONE) {
		say_again(h, m->from, from->message.op, from->generation, out);
		return;
	}
	h->asked[i] = (struct parked_fetch){ .key = index_of_key(h, k),
					     .next = k->asked,
					     .generation = from->generation };
	k->asked = i;
}

static const struct chp_hermes_inv *
parked_at(const struct hermes *h, uint32_t i)
{
	return (const void *)(h->parked_bytes + (size_t)i * h->inv_bytes_max);
}

/* Whether an INV that waits for this key has at least this version. Not after a cold start: there all are asked. */
static bool
is_overtaken(const struct hermes *h, const struct key_record *k, uint64_t version)
{
	for (uint32_t i = k->parked_head; i != NONE && !is_source(h); i = h->parked[i].next)
		if (parked_at(h, i)->version >= version)
			return true;
	return false;
}

/*
 * A voter has this key under way, at a version that waits here, too, or an older one. What we ever had of the key was
 * acknowledged by that voter, so it is not newer: the newest INV that waits is the key's version. The others are old.
 */
static void
take_newest_parked(struct hermes *h, struct key_record *k, struct chp_out *out)
{
	struct chp_slot *s = slot_at(h, k->slot);
	uint32_t newest = k->parked_head;

	for (uint32_t i = newest; i != NONE; i = h->parked[i].next)
		if (parked_at(h, i)->version > parked_at(h, newest)->version)
			newest = i;
	stop_loading(h, k, out);
	s->base_writer = 0;
	s->log_low = (uint32_t)h->env.log->mark - 1;
	s->state = VALID;
	unpark(h, newest);
	take_inv(h, s, parked_at(h, newest), (uint8_t)(newest / h->n_tickets), out);
	take_parked(h, k, out);
	if (s->state == VALID)
		make_ready(h, k);
	release_key(h, k);
}

static void
on_fetched(struct hermes *h, const struct chp_peer_message *m)
{
	const struct chp_hermes_fetched *from = (const void *)m->message;
	struct fetch *f = from->message.op < FETCHES && h->is_backed ? &h->fetch[from->message.op] : NULL;

	if (f == NULL || f->key == NONE || f->generation != from->generation || (f->waiting & chp_bit(m->from)) == 0) {
		h->env.counters->fetches_stale++;
		return;
	}
	if (from->status == CHP_HERMES_FETCH_UNDER_WAY && is_overtaken(h, &h->key[f->key], from->version)) {
		f->waiting = 0;
		f->under_way = from->version;
		return;
	}
	if (from->status == CHP_HERMES_FETCH_AGAIN || from->status == CHP_HERMES_FETCH_UNDER_WAY) {
		if (!is_source(h))
			f->waiting = other_voter(h, m->from);
		f->again = is_source(h) ? f->again | chp_bit(m->from) : f->waiting;
		return;
	}
	f->waiting &= ~chp_bit(m->from);
	f->is_answered = true;
	take_better(h, f, from->version, (struct stored_where){ from->recorded, from->stored_in },
		    (const uint8_t *)(from + 1), from->value_total,
		    from->status == CHP_HERMES_FETCH_TOMBSTONE);
}

/* A voter has answered in our host's place. */
static void
take_fetched(struct hermes *h, struct key_record *k, const struct fetch *f, struct chp_out *out)
{
	const struct chp_loaded l = {
		.status = status_of(f->version, f->is_deleted),
		.version = f->version,
		.version_flags = f->is_deleted ? CHP_SLOT_TOMBSTONE : 0,
		.value = value_of_fetch(h, f),
		.value_len = f->value_len,
	};

	if (f->is_answered && has_room_for(h, k, &l))
		finish_loading(h, k, &l, out);
	else
		not_loaded(h, k, out);
}

/*
 * All sources have answered: the newest is the key's version, and is written again to all members, so that their
 * stores have it in this life. Nobody has it: the key is absent. Needs a credit like any write; false: there is none.
 */
static bool
conclude(struct hermes *h, const struct chp_now *now, struct fetch *f, struct chp_out *out)
{
	struct key_record *k = &h->key[f->key];
	struct chp_slot *s = slot_at(h, k->slot);
	uint8_t bytes[CHP_KEY_BYTES_MAX];
	const struct chp_key key = { .bytes = bytes, .len = s->key_len };
	const struct intent w = { .value = value_of_fetch(h, f),
				  .value_len = f->value_len,
				  /* Gone, says who knows more than our store: what is left there is overwritten. */
				  .version_flags = f->is_deleted || f->version == 0 ? CHP_INV_TOMBSTONE : 0 };

	if (f->under_way != 0 && is_overtaken(h, k, f->under_way)) {
		take_newest_parked(h, k, out);
		return true;
	}
	if (!is_source(h)) {
		take_fetched(h, k, f, out);
		return true;
	}
	if (f->version == 0 && f->left == 0) {
		stop_loading(h, k, out);
		come_to_rest(h, k, out);
		return true;
	}
	if ((out->ungranted & h->live) != 0 || h->n_own == h->env.credits ||
	    h->n_reconciling >= (h->env.credits + 1) / 2 || chp_out_credits(out, h->live) == 0 ||
	    !make_room(h, s->key_len, f->value_len, false))
		return false;
	chp_cache_key(h->env.cache, s, bytes);
	h->env.counters->reconciled++;
	begin(h, now, NONE, s, &key, &w, f->version != 0 ? f->version : f->left, out);
	return true;
}

static void
run_fetches(struct hermes *h, const struct chp_now *now, struct chp_out *out)
{
	const bool again = now->ns >= h->fetch_again_ns;
	bool waits = false;

	if (h->n_fetches == 0)
		return;
	for (uint32_t i = 0; i < FETCHES && out->replies_left > 0; i++) {
		struct fetch *f = &h->fetch[i];

		if (f->key == NONE)
			continue;
		if (again) {
			f->due |= f->again;
			f->again = 0;
		}
		send_fetches(h, f, out);
		f->due = 0;
		waits |= f->again != 0 || (f->waiting == 0 && !conclude(h, now, f, out));
	}
	if (again)
		h->fetch_again_ns = now->ns + FETCH_AGAIN_NS;
	if (waits)
		chp_out_wake_at(out, h->fetch_again_ns);
}

/* The keys of a part of our datastore that are still as an earlier life left them. False: there is no room for more. */
static bool
load_old(struct hermes *h)
{
	const uint8_t *keys = h->copy_parts + (size_t)h->env.self * CHP_COPY_PART_BYTES;

	while (h->old.at < h->old.bytes) {
		struct chp_key key = { .bytes = keys + h->old.at + 1, .len = keys[h->old.at], .pos = -1 };
		struct chp_slot *s;
		struct key_record *k;
		uint32_t token;

		key.digest = chp_cache_digest(h->env.cache, key.bytes, key.len, false);
		s = chp_cache_find(h->env.cache, &key);
		k = s != NULL && s->state == LOADING ? record_of(h, s) : NULL;
		if (s == NULL) {
			if (h->old.n >= FETCHES / 2 || h->free_key == NONE || !make_room(h, key.len, 0, true) ||
			    !chp_backing_load(h->env.backing, &key, &token))
				return false;
			k = begin_loading(h, &key);
			wait_for_token(h, k, token);
		}
		/* What is here otherwise is of this life, and will take the old item's place. */
		if (k != NULL && !k->is_old) {
			k->is_old = true;
			h->old.n++;
		}
		h->old.at += 1 + key.len;
	}
	return true;
}

/* Look through our datastore until nothing in it is of an earlier life. */
static void
reconcile(struct hermes *h, const struct chp_now *now, struct chp_out *out)
{
	if (h->old.is_done || !h->knows_evicted)
		return;
	if (!h->env.backing->may_evict) {
		h->old.is_done = h->env.backing->is_ready; /* a store that keeps nothing has nothing old */
		return;
	}
	if (!load_old(h)) {
		chp_out_wake_at(out, now->ns + FETCH_AGAIN_NS);
		return;
	}
	if (h->old.is_asked)
		return;
	if (h->old.is_last) {
		h->old.is_done = !h->old.has_met;
		h->old.is_last = h->old.is_begun = h->old.has_met = false;
		/* What was written again has to become durable first. */
		h->old.again_ns = now->ns + LOOK_AGAIN_NS;
	}
	if (now->ns < h->old.again_ns) {
		chp_out_wake_at(out, h->old.again_ns);
		return;
	}
	if (!chp_backing_scan(h->env.backing, CHP_SCAN_OWN, !h->old.is_begun, true, CHP_COPY_PART_BYTES))
		return;
	h->old.is_asked = h->old.is_begun = true;
	h->old.bytes = h->old.at = 0;
}

/* ------------------------------------------------------------------ what the datastore answers */

/* Nothing was learned of the key: who waits is told to try again. */
static void
not_loaded(struct hermes *h, struct key_record *k, struct chp_out *out)
{
	stop_loading(h, k, out);
	k->is_failed = true;
	if (k->wait_head != NONE)
		make_ready(h, k); /* they are answered from wake() */
	else
		give_up_loading(h, k, out);
}

/* The peers that asked what our datastore has of this key. */
static void
answer_fetches(struct hermes *h, struct key_record *k, const struct chp_loaded *l, struct chp_out *out)
{
	/* What an earlier life left counts after a cold start only; who has not all of its copy yet knows nothing. */
	const bool is_here = l->status != CHP_LOAD_ABSENT && (is_source(h) || !l->is_old);
	uint8_t answer = is_here ? l->status : CHP_HERMES_FETCH_ABSENT;

	if (!has_all(h))
		answer = CHP_HERMES_FETCH_AGAIN;
	while (k->asked != NONE) {
		const uint32_t i = k->asked;

		unask(h, i);
		send_fetched(stored_here(h, l->generation), i / FETCHES, i % FETCHES, h->asked[i].generation, answer,
			     answer <= CHP_HERMES_FETCH_TOMBSTONE ? l->version : 0, l->value,
			     answer == CHP_HERMES_FETCH_FOUND ? l->value_len : 0, out);
	}
}

/*
 * Our datastore does not tell what the key is, as other sources may have it, or something newer. An INV that waits does
 * tell: what comes here in this generation is above all that any source holds, or is what its sender has reconciled.
 */
static void
load_was_old(struct hermes *h, struct key_record *k, const struct chp_loaded *l, struct chp_out *out)
{
	if (k->parked_head != NONE)
		take_parked(h, k, out);
	else if (k->wait_head == NONE && !k->is_old)
		give_up_loading(h, k, out);
	else if (!fetch(h, k, l))
		push(h, TO_LOAD, k);
}

/* The key's version is known: the slot is at rest with it, unless what waited for it changes that at once. */
static void
finish_loading(struct hermes *h, struct key_record *k, const struct chp_loaded *l, struct chp_out *out)
{
	struct chp_slot *s = slot_at(h, k->slot);
	const uint8_t kept = l->version_flags & (CHP_SLOT_RMW | CHP_SLOT_TOMBSTONE);

	answer_fetches(h, k, l, out);
	if (is_source(h) && (l->status == CHP_LOAD_ABSENT || l->is_old)) {
		load_was_old(h, k, l, out);
		return;
	}
	/* Its store does not have everything yet: a learner learns nothing from what it has not. */
	if (!has_all(h) && (l->status == CHP_LOAD_ABSENT || l->is_old) &&
	    k->parked_head == NONE) {
		not_loaded(h, k, out);
		return;
	}
	stop_loading(h, k, out);
	if (l->status != CHP_LOAD_ABSENT && !l->is_old) {
		/* What it was issued on is not stored. */
		chp_cache_set(h->env.cache, s, l->value, l->value_len, kept | CHP_SLOT_BASE_UNKNOWN);
		s->version = l->version;
	}
	come_to_rest(h, k, out);
}

/* Whether the cache has room for what was loaded. */
static bool
has_room_for(struct hermes *h, const struct key_record *k, const struct chp_loaded *l)
{
	/* The INVs that wait for it have reserved room for as much. */
	return l->status != CHP_LOAD_FOUND || make_room(h, slot_at(h, k->slot)->key_len, l->value_len, false) ||
	       (k->parked_head != NONE && chp_cache_room(h->env.cache) > 0);
}

static void
hermes_loaded(void *p, const struct chp_now *now, const struct chp_loaded *l, uint32_t n, struct chp_out *out)
{
	struct hermes *h = p;

	CHP_ASSERT_OP(n, <=, CHP_BATCH_MAX);
	for (uint32_t i = 0; i < n; i++) {
		struct key_record *k;

		CHP_ASSERT_OP(l[i].token, <, h->env.loads_max);
		if (h->load_key[l[i].token] == NONE) {
			h->env.counters->loads_stale++; /* a write came first */
			continue;
		}
		k = &h->key[h->load_key[l[i].token]];
		h->load_key[k->load] = NONE;
		k->load = NONE;
		if (h->is_short)
			h->load_again_ns = 0; /* what could not be loaded before gets the token */
		if (l[i].status != CHP_LOAD_FAILED && has_room_for(h, k, &l[i])) {
			finish_loading(h, k, &l[i], out);
			continue;
		}
		h->env.counters->loads_failed++;
		not_loaded(h, k, out);
	}
	(void)now;
}

/* Keys that the datastore could not be asked for, or could not read, are asked for again. */
static void
load_again(struct hermes *h, const struct chp_now *now, struct chp_out *out)
{
	if (h->list[TO_LOAD].head == NONE) {
		h->is_short = false;
		return;
	}
	if (now->ns < h->load_again_ns) {
		chp_out_wake_at(out, h->load_again_ns);
		return;
	}
	h->load_again_ns = now->ns + LOAD_AGAIN_NS;
	h->is_short = false;
	for (uint32_t n = 0, last = h->list[TO_LOAD].tail; h->list[TO_LOAD].head != NONE && n != 1;) {
		struct key_record *k = pop(h, TO_LOAD);
		struct chp_slot *s = slot_at(h, k->slot);
		uint8_t bytes[CHP_KEY_BYTES_MAX];
		struct chp_key key = { .bytes = bytes, .len = s->key_len, .pos = -1 };

		n = index_of_key(h, k) == last;
		if (s->state != LOADING) {
			release_key(h, k);
			continue;
		}
		/* The INVs that waited were lost with their link or view: they come again, or never. */
		if (k->wait_head == NONE && k->parked_head == NONE && !k->is_old &&
		    (s->flags & CHP_SLOT_COLLIDED) == 0) {
			give_up_loading(h, k, out);
			continue;
		}
		chp_cache_key(h->env.cache, s, bytes);
		key.digest = chp_cache_digest(h->env.cache, bytes, key.len, false);
		load(h, k, &key);
	}
	if (h->list[TO_LOAD].head != NONE)
		chp_out_wake_at(out, h->load_again_ns);
}

static void
take_old(struct hermes *h, const struct chp_stored *item)
{
	uint8_t *to = h->copy_parts + (size_t)h->env.self * CHP_COPY_PART_BYTES + h->old.bytes;

	h->old.has_met = true;
	/* More than was asked for: the next look through the store meets it again. */
	if (h->old.bytes + 1 + item->key_len > CHP_COPY_PART_BYTES)
		return;
	*to = item->key_len;
	memcpy(to + 1, item->key, item->key_len);
	h->old.bytes += 1u + item->key_len;
}

static void
hermes_scanned(void *p, const struct chp_now *now, uint32_t scan, const struct chp_stored *item, struct chp_out *out)
{
	struct hermes *h = p;

	(void)now;
	(void)out;
	if (scan == CHP_SCAN_OWN)
		take_old(h, item);
	else
		chp_copy_scanned(&h->copy, scan, item);
}

static void
hermes_scan_end(void *p, const struct chp_now *now, uint32_t scan, bool end, bool failed, struct chp_out *out)
{
	struct hermes *h = p;

	(void)now;
	(void)out;
	if (scan != CHP_SCAN_OWN) {
		chp_copy_scan_end(&h->copy, scan, end, failed);
		return;
	}
	h->old.is_asked = false;
	h->old.is_last = end && !failed;
	h->old.is_begun = h->old.is_begun && !failed;
	h->old.has_met = h->old.has_met || failed;
}

static bool
hermes_wake(void *p, const struct chp_now *now, struct chp_out *out)
{
	struct hermes *h = p;

	if (h->peers == 0)
		commit_alone(h, out);
	if (h->n_owed > 0)
		pay_owed_acks(h, out);
	start_replays(h, now, out);
	announce_floor(h, out);
	if (h->is_backed) {
		learn_evicted(h);
		evict_ahead(h);
		announce_evicted(h, out);
		load_again(h, now, out);
		/*
		 * After a cold start what our own datastore has is a part of the answer. And a learner's does not have
		 * what a voter has: a version that was fetched would not be stored here.
		 */
		if (!h->env.backing->is_ready && !is_source(h) && has_all(h))
			ask_peers_instead(h);
		run_fetches(h, now, out);
		if (is_source(h))
			reconcile(h, now, out);
		report_stored(h, out);
		if (h->env.backing->is_durable)
			renew_oldest(h);
	}
	chp_copy_serve(&h->copy, now, out);
	chp_copy_ask(&h->copy, now, out);
	complete_copy(h);
	while (h->list[READY].head != NONE && out->replies_left > 0) {
		struct key_record *k = &h->key[h->list[READY].head];

		serve_queue(h, now, k, out);
		if (k->wait_head != NONE && may_answer(h, k, slot_at(h, k->slot)))
			break; /* no room for replies */
		pop(h, READY);
		if (k->is_failed && slot_at(h, k->slot)->state == LOADING)
			give_up_loading(h, k, out);
		else
			release_key(h, k);
	}
	sweep(h, now, out);
	if (h->is_backed && h->durable_seen != h->env.backing->durable)
		return true;
	return h->list[READY].head != NONE || (h->list[TO_REPLAY].head != NONE && h->n_replays < h->replays_max);
}

/* Only a view change takes a member out of the set that must acknowledge (pitfall P3). */
static void
hermes_tick(void *p, const struct chp_now *now, struct chp_out *out)
{
	struct hermes *h = p;
	const uint64_t impatient_ns = 2000000;

	if (!CHP_MUTATED(P3_TIMEOUT_SHRINKS_ACKS))
		return;
	chp_out_wake_at(out, now->ns + impatient_ns);
	for (uint32_t i = 0; i < h->n_tickets && out->replies_left > 0; i++) {
		struct ticket *t = &h->ticket[i];

		if (t->used && t->fate == FATE_OPEN && t->acked != 0 && now->ns > t->begun_ns + impatient_ns)
			commit(h, t, out);
	}
}

/* ------------------------------------------------------------------ views and links */

/* Another view: nobody has heard of any replay. */
static void
forget_replays(struct hermes *h)
{
	h->n_unsaid = 0;
	for (uint32_t i = 0; i < h->n_keys; i++) {
		h->key[i].is_replayed = false;
		h->n_unsaid += h->key[i].used && h->key[i].listed[TO_REPLAY];
	}
}

/* Every key that is not Valid is replayed, its writer alive or not (SAFETY 8). */
static void
queue_replays(struct hermes *h)
{
	for (uint32_t i = 0; i < h->n_keys; i++) {
		struct key_record *k = &h->key[i];

		if (!k->used || k->listed[TO_REPLAY] || !needs_replay(h, k))
			continue;
		push(h, TO_REPLAY, k);
	}
}

/* What was under way from a peer is lost: what its tickets meant, its floor, what we owe it. */
static void
forget_peer(struct hermes *h, uint32_t peer)
{
	for (uint32_t t = 0; t < h->n_tickets; t++)
		h->inv[peer * h->n_tickets + t].key = NONE;
	for (uint32_t t = 0; h->is_backed && t < h->n_tickets; t++) {
		unpark(h, peer * h->n_tickets + t); /* it will be sent again */
		settle_stored(h, peer * h->n_tickets + t);
	}
	for (uint32_t f = 0; h->is_backed && f < FETCHES; f++)
		unask(h, peer * FETCHES + f);
	h->evicted_known &= ~chp_bit(peer);
	h->floor_known &= ~chp_bit(peer);
	for (uint32_t i = 0; i < h->n_keys && h->n_owed > 0; i++) {
		struct owed_ack *owed = &h->key[i].owed;

		if (owed->is_owed && owed->to == peer) {
			owed->is_owed = false;
			h->n_owed--;
		}
	}
}

/* Replays of the old view are dropped; the keys are queued again. */
static void
drop_replays(struct hermes *h)
{
	for (uint32_t i = 0; i < h->n_tickets; i++) {
		struct ticket *t = &h->ticket[i];

		if (!t->used || !t->replay)
			continue;
		if (slot_at(h, t->slot)->state == REPLAY)
			slot_at(h, t->slot)->state = INVALID;
		release_ticket(h, t);
	}
}

/* The operations of a session that waited here through a view with another home for it, or may have. */
static void
mark_moved(struct hermes *h, struct client_op *op, const struct chp_view *old)
{
	if (op->session != 0 && op->session >> CHP_SESSION_WRITER_SHIFT != h->writer &&
	    (chp_view_home(&h->view, op->session) != h->env.self || h->view.epoch != old->epoch + 1))
		op->moved = true;
}

/*
 * What waits, and what was begun and may be overtaken and tried again: whoever is the home in between may execute the
 * same request, so it must not be begun here once more when the session comes back.
 */
static void
mark_all_moved(struct hermes *h, const struct chp_view *old)
{
	for (uint32_t i = 0; i < h->n_keys; i++)
		for (uint32_t op = h->key[i].used ? h->key[i].wait_head : NONE; op != NONE; op = h->op[op].next)
			mark_moved(h, &h->op[op], old);
	for (uint32_t i = 0; i < h->n_tickets; i++)
		if (h->ticket[i].used && h->ticket[i].op != NONE)
			mark_moved(h, &h->op[h->ticket[i].op], old);
}

/* [H9, SAFETY 8] Everything in flight is lost: re-send every own open write, replay every other. */
static void
hermes_view(void *p, const struct chp_now *now, const struct chp_view *v, struct chp_out *out)
{
	struct hermes *h = p;
	const struct chp_view old = h->view;

	(void)now;
	chp_homes_enter(&h->homes, &old, v, h->env.n_nodes);
	h->is_complete = h->is_complete || (v->voters & chp_bit(h->env.self)) != 0;
	h->view = *v;
	h->generation = v->epoch >> CHP_GENERATION_SHIFT;
	h->live = chp_view_live(v);
	h->ever_live |= h->live;
	h->peers = h->live & ~chp_bit(h->env.self);
	h->writer = v->writer[h->env.self];
	mark_all_moved(h, &old);
	for (uint32_t peer = 0; peer < h->env.n_nodes; peer++)
		forget_peer(h, peer);
	drop_replays(h);
	forget_replays(h);
	for (uint32_t i = 0; i < h->n_tickets; i++) {
		struct ticket *t = &h->ticket[i];

		if (!t->used || t->fate != FATE_OPEN)
			continue;
		if (CHP_MUTATED(S8_TRANS_NOT_RESENT) &&
		    (t->slot == NONE || slot_at(h, t->slot)->version != t->version))
			continue;
		if (!CHP_MUTATED(P9_RMW_ACKS_KEPT) || !t->rmw)
			t->acked = 0; /* of an RMW they must not count any more (pitfall P9) */
		t->stored = 0;
		h->env.counters->resent++;
		send_ticket(h, t, h->peers, out);
		if (CHP_MUTATED(P9_RMW_ACKS_KEPT) && t->rmw)
			commit_if_acked(h, t, out);
	}
	/* Behind everything that was begun under a lower floor. */
	h->floor_known = 0;
	h->floor_due = h->peers;
	h->evicted_due = h->peers;
	h->durable_seen = 0;
	for (uint32_t i = 0; h->is_backed && i < FETCHES; i++)
		fetch_anew(h, &h->fetch[i]);
	queue_replays(h);
	chp_copy_view(&h->copy, v);
}

static void
hermes_link_down(void *p, const struct chp_now *now, uint32_t peer, struct chp_out *out)
{
	struct hermes *h = p;

	(void)now;
	(void)out;
	forget_peer(h, peer);
	chp_copy_link_down(&h->copy, peer);
}

/* What was under way to the peer and from it is lost: INVs are sent again, lost VALs replaced by replays. */
static void
hermes_link_up(void *p, const struct chp_now *now, uint32_t peer, struct chp_out *out)
{
	struct hermes *h = p;

	(void)now;
	if ((h->peers & chp_bit(peer)) == 0)
		return;
	for (uint32_t i = 0; i < h->n_tickets; i++) {
		struct ticket *t = &h->ticket[i];

		if (!t->used || t->fate != FATE_OPEN ||
		    ((t->acked & chp_bit(peer)) != 0 && (!t->must_store || (t->stored & chp_bit(peer)) != 0)))
			continue;
		h->env.counters->resent++;
		send_ticket(h, t, chp_bit(peer), out);
	}
	h->floor_due |= chp_bit(peer);
	h->evicted_due |= chp_bit(peer);
	for (uint32_t i = 0; h->is_backed && i < FETCHES; i++)
		h->fetch[i].due |= h->fetch[i].waiting & chp_bit(peer);
	queue_replays(h);
	chp_copy_link_up(&h->copy, peer);
}

/* ------------------------------------------------------------------ life, checks */

static void
hermes_destroy(void *p)
{
	struct hermes *h = p;
	const struct chp_memory *memory;

	if (h == NULL)
		return;
	memory = h->env.memory;
	memory->free(h->op);
	memory->free(h->operand);
	memory->free(h->ticket);
	memory->free(h->key);
	memory->free(h->inv);
	memory->free(h->free_tickets);
	memory->free(h->load_key);
	memory->free(h->parked);
	memory->free(h->parked_bytes);
	memory->free(h->stored);
	memory->free(h->item_at);
	memory->free(h->copy_parts);
	memory->free(h->fetch);
	memory->free(h->fetch_value);
	memory->free(h->asked);
	memory->free(h->value);
	memory->free(h->record);
	memory->free(h);
}

/* What only a shard with a datastore needs. */
static bool
allocate_backed(struct hermes *h)
{
	const struct chp_memory *m = h->env.memory;
	const size_t n = (size_t)h->env.n_nodes * h->n_tickets;

	h->inv_bytes_max = chp_hermes_inv_bytes(CHP_KEY_BYTES_MAX, h->env.value_bytes_max);
	h->load_key = m->zalloc(h->env.loads_max * sizeof(*h->load_key));
	h->parked = m->zalloc(n * sizeof(*h->parked));
	h->parked_bytes = m->zalloc(n * h->inv_bytes_max);
	h->stored = m->zalloc(n * sizeof(*h->stored));
	h->item_at = m->zalloc(ITEM_PLACES * sizeof(*h->item_at));
	h->copy_parts = m->zalloc((size_t)h->env.n_nodes * CHP_COPY_PART_BYTES);
	h->fetch = m->zalloc(FETCHES * sizeof(*h->fetch));
	h->fetch_value = m->zalloc((size_t)FETCHES * h->env.value_bytes_max);
	h->asked = m->zalloc((size_t)h->env.n_nodes * FETCHES * sizeof(*h->asked));
	if (h->load_key == NULL || h->parked == NULL || h->parked_bytes == NULL || h->stored == NULL ||
	    h->item_at == NULL || h->copy_parts == NULL || h->fetch == NULL || h->fetch_value == NULL ||
	    h->asked == NULL)
		return false;
	for (uint32_t i = 0; i < FETCHES; i++)
		h->fetch[i].key = NONE;
	for (uint32_t i = 0; i < h->env.n_nodes * FETCHES; i++)
		h->asked[i].key = NONE;
	for (uint32_t i = 0; i < h->env.loads_max; i++)
		h->load_key[i] = NONE;
	for (size_t i = 0; i < n; i++)
		h->parked[i].key = NONE;
	return true;
}

static bool
allocate(struct hermes *h)
{
	const struct chp_protocol_env *env = &h->env;
	const struct chp_memory *m = env->memory;

	h->op = m->zalloc(env->ops * sizeof(*h->op));
	h->operand = m->zalloc((size_t)env->ops * env->value_bytes_max);
	h->ticket = m->zalloc(h->n_tickets * sizeof(*h->ticket));
	h->key = m->zalloc(h->n_keys * sizeof(*h->key));
	h->inv = m->zalloc((size_t)env->n_nodes * h->n_tickets * sizeof(*h->inv));
	h->free_tickets = m->zalloc(h->n_tickets * sizeof(*h->free_tickets));
	h->value = m->zalloc(CHP_VALUE_BYTES_MAX);
	h->record = m->zalloc(CHP_RECORD_BYTES_MAX);
	return h->op != NULL && h->operand != NULL && h->ticket != NULL && h->key != NULL &&
	       h->inv != NULL && h->free_tickets != NULL && h->value != NULL && h->record != NULL &&
	       (!h->is_backed || allocate_backed(h));
}

static void *
hermes_create(const struct chp_protocol_env *env)
{
	struct hermes *h = env->memory->zalloc(sizeof(*h));

	if (h == NULL)
		return NULL;
	h->env = *env;
	h->replays_max = chp_min_u32(REPLAYS_MAX, env->credits);
	h->n_tickets = env->credits + h->replays_max;
	/* A key that is not Valid has an uncommitted entry in the log; a Valid one is waited for by an operation. */
	h->n_keys = env->log->mask + 1 + env->ops;
	h->is_backed = env->loads_max > 0;
	h->owed_stored = (struct list){ NONE, NONE };
	/* One that is being loaded is waited for by an operation or by INVs; or was, and its load is still open. */
	if (h->is_backed)
		h->n_keys += env->n_nodes * h->n_tickets + env->loads_max;
	if (!allocate(h)) {
		hermes_destroy(h);
		return NULL;
	}
	for (uint32_t i = 0; i < h->n_tickets; i++)
		h->free_tickets[i] = h->n_tickets - 1 - i;
	h->n_free_tickets = h->n_tickets;
	for (uint32_t i = 0; i < h->n_keys; i++)
		h->key[i].next[TO_REPLAY] = i + 1 < h->n_keys ? i + 1 : NONE;
	for (uint32_t i = 0; i < env->ops; i++)
		h->op[i].next = i + 1 < env->ops ? i + 1 : NONE;
	for (uint32_t peer = 0; peer < env->n_nodes; peer++)
		forget_peer(h, peer);
	for (uint32_t i = 0; i < LISTS; i++)
		h->list[i] = (struct list){ NONE, NONE };
	chp_copy_init(&h->copy, &(struct chp_copy_config){
					.cache = env->cache,
					.sessions = env->sessions,
					.counters = env->copy_counters,
					.protocol = h,
					.look = look_for_copy,
					.apply = apply_item,
					.backing = h->is_backed ? env->backing : NULL,
					.parts = h->copy_parts,
					.may_scan = may_scan,
					.self = env->self,
					.n_nodes = env->n_nodes,
					.chunk_bytes = env->copy_bytes,
				});
	return h;
}

static bool
hermes_key_of(const struct chp_message *m, struct chp_key *key)
{
	const struct chp_hermes_inv *inv = (const void *)m;

	if (chp_copy_is(m))
		return chp_copy_key_of(m, key);
	if (m->type == CHP_HERMES_FETCH) {
		const struct chp_hermes_fetch *fetch = (const void *)m;

		*key = (struct chp_key){ .bytes = (const uint8_t *)(fetch + 1), .len = fetch->key_len };
		return true;
	}
	if (m->type != CHP_HERMES_INV)
		return false;
	key->bytes = chp_hermes_inv_key(inv);
	key->len = inv->key_len;
	key->session = (inv->inv_flags & CHP_INV_SESSION) != 0;
	return true;
}

static bool
hermes_accepts(const struct chp_message *m, uint32_t value_bytes_max)
{
	return chp_copy_is(m) ? chp_copy_check(m, value_bytes_max) : chp_hermes_check(m, value_bytes_max);
}

/* An announced floor stands behind every INV that its sender had to send again: SAFETY 25's REPLAYED. */
static bool
has_replays(const struct hermes *h)
{
	return (h->peers & ~h->floor_known) == 0;
}

/* A request whose INV waits for its key to be loaded has not left its record yet, though it is here. */
static bool
is_parked(const struct hermes *h, const struct chp_op *op)
{
	for (uint32_t i = 0; h->n_parked > 0 && i < h->env.n_nodes * h->n_tickets; i++) {
		const struct chp_hermes_inv *inv = (const void *)(h->parked_bytes + (size_t)i * h->inv_bytes_max);

		if (h->parked[i].key != NONE && inv->session == op->session && inv->request == op->request)
			return true;
	}
	return false;
}

/* Its own answer follows from its own copy only under a lease: a failed comparison is a read, too. */
static enum chp_status
hermes_admit(void *p, const struct chp_now *now, const struct chp_op *op, uint64_t *number)
{
	const struct hermes *h = p;

	if ((h->view.voters & chp_bit(h->env.self)) == 0 || now->ns >= now->lease_until_ns)
		return CHP_STATUS_NOT_SERVING;
	/* What the datastores hold must be known before anything is written above it (SAFETY 4, 34). */
	if (h->is_backed && (!h->knows_evicted || (h->view.sources & h->peers & ~h->evicted_known) != 0))
		return CHP_STATUS_NOT_SERVING;
	if (op->opcode == CHP_OPCODE_QUORUM) /* it is always all that are live */
		return CHP_STATUS_UNKNOWN_OP;
	if (op->session == 0 || op->opcode == CHP_OPCODE_GET || op->opcode == CHP_OPCODE_PING)
		return CHP_STATUS_OK;
	return chp_homes_admit(&h->homes, &h->view, h->env.self, op, has_replays(h) && !is_parked(h, op), number);
}

static uint64_t
hermes_new_session(void *p)
{
	struct hermes *h = p;

	return chp_homes_number(&h->homes, &h->view, h->env.self);
}

static bool
hermes_is_home(const void *p, uint64_t session)
{
	const struct hermes *h = p;

	return chp_view_home(&h->view, session) == h->env.self;
}

static uint64_t
hermes_epoch(const void *p)
{
	return ((const struct hermes *)p)->view.epoch;
}

static void
hermes_status(const void *p, struct chp_protocol_status *out)
{
	const struct hermes *h = p;
	const uint64_t self = chp_bit(h->env.self);
	struct chp_text t;

	*out = (struct chp_protocol_status){ .role = "none",
					     .leader = CHP_NODES_MAX,
					     .epoch = h->view.epoch,
					     .quorum = "live" };
	t = chp_text_of(out->waiting, sizeof(out->waiting));
	if ((h->view.voters & self) != 0)
		out->role = "coordinator";
	else if ((h->view.learners & self) != 0)
		out->role = "learner";
	if (h->view.epoch == 0)
		chp_text_add(&t, "no view yet");
	else if (!h->is_complete)
		chp_text_add(&t, "copying keys and sessions from node %u", h->copy.source);
	else if ((h->view.voters & self) == 0)
		chp_text_add(&t, "complete, not a voter yet");
	else if (h->is_backed && !h->knows_evicted)
		chp_text_add(&t, "the host has not answered yet");
	else if (is_source(h) && (h->view.sources & h->peers & ~h->evicted_known) != 0)
		chp_text_add(&t, "other members' hosts have not answered yet");
}

static bool
hermes_copy_done(const void *p)
{
	const struct hermes *h = p;

	return h->is_complete && (!is_source(h) || h->old.is_done);
}

static void
hermes_copy_progress(const void *p, struct chp_copy_progress *out)
{
	const struct hermes *h = p;

	chp_copy_progress(&h->copy, out);
	out->done = h->is_complete;
}

static uint32_t
hermes_open_ops(const void *p)
{
	return ((const struct hermes *)p)->n_open_ops;
}

static void
check_key(const struct hermes *h, const struct key_record *k)
{
	const struct chp_slot *s = slot_at(h, k->slot);

	CHP_ASSERT_OP(s->busy, ==, index_of_key(h, k));
	CHP_ASSERT(s->state != VALID || (k->log == CHP_LOG_NONE && k->own == NONE && k->replay == NONE));
	CHP_ASSERT(s->state != VALID || is_listed(k));
	CHP_ASSERT(s->state == LOADING || (k->load == NONE && k->parked_head == NONE));
	if (s->state == LOADING) {
		CHP_ASSERT(k->log == CHP_LOG_NONE && k->own == NONE && k->replay == NONE && s->version == 0);
		CHP_ASSERT(k->load != NONE || k->listed[TO_LOAD] || k->listed[READY] || k->fetch != NONE);
		CHP_ASSERT(k->fetch == NONE || h->fetch[k->fetch].key == index_of_key(h, k));
		return;
	}
	if (s->state != VALID)
		CHP_ASSERT_OP(chp_log_at(h->env.log, k->log)->version, ==, s->version);
	if (s->state == WRITE)
		CHP_ASSERT_OP(h->ticket[k->own].version, ==, s->version);
	if (s->state == TRANS)
		CHP_ASSERT(k->own != NONE && !h->ticket[k->own].rmw && h->ticket[k->own].version < s->version);
	if (s->state == REPLAY)
		CHP_ASSERT_OP(h->ticket[k->replay].version, ==, s->version);
}

static void
hermes_check(const void *p)
{
	const struct hermes *h = p;
	uint32_t busy = 0, records = 0, used = 0, unsaid = 0;

	for (uint32_t i = 0; i < chp_cache_slots(h->env.cache); i++) {
		const struct chp_slot *s = slot_at(h, i);

		if (s == NULL)
			continue;
		CHP_ASSERT(s->busy != CHP_SLOT_NO_BUSY || s->state == VALID);
		busy += s->busy != CHP_SLOT_NO_BUSY;
	}
	for (uint32_t i = 0; i < h->n_keys; i++) {
		if (!h->key[i].used)
			continue;
		records++;
		unsaid += h->key[i].listed[TO_REPLAY] && !h->key[i].is_replayed;
		check_key(h, &h->key[i]);
	}
	CHP_ASSERT_OP(unsaid, ==, h->n_unsaid);
	CHP_ASSERT_OP(busy, ==, records);
	for (uint32_t i = 0; i < h->n_tickets; i++) {
		const struct ticket *t = &h->ticket[i];

		if (!t->used)
			continue;
		used++;
		if (t->slot != NONE)
			CHP_ASSERT_OP(t->version, <=, slot_at(h, t->slot)->version);
		CHP_ASSERT_OP(chp_log_at(h->env.log, t->log)->version, ==, t->version);
		CHP_ASSERT(!t->replay || t->op == NONE);
	}
	CHP_ASSERT_OP(used, ==, h->n_own + h->n_replays);
	CHP_ASSERT_OP(used + h->n_free_tickets, ==, h->n_tickets);
}

static void
hermes_dump(const void *p, const struct chp_key *key, struct chp_text *t)
{
	const struct hermes *h = p;
	struct chp_slot *s;

	if (key == NULL) {
		chp_text_add(t, "own %u replays %u open_ops %u", h->n_own, h->n_replays, h->n_open_ops);
		return;
	}
	s = chp_cache_find(h->env.cache, key);
	if (s == NULL) {
		chp_text_add(t, "absent");
		return;
	}
	chp_text_add(t, "%s v%" PRIu64 ".%u", state_name[s->state], chp_version_counter(s->version),
		     (uint16_t)s->version);
	if ((s->flags & CHP_SLOT_TOMBSTONE) != 0)
		chp_text_add(t, " deleted");
	if (s->busy != CHP_SLOT_NO_BUSY && h->key[s->busy].own != NONE)
		chp_text_add(t, " own v%" PRIu64,
			     chp_version_counter(h->ticket[h->key[s->busy].own].version));
}

uint64_t
chp_hermes_evicted(const void *p)
{
	return ((const struct hermes *)p)->evicted;
}

void
chp_hermes_raise_evicted(void *p, uint64_t counter)
{
	struct hermes *h = p;

	h->evicted = chp_max_u64(h->evicted, counter);
	h->evicted_due = h->peers;
}

const struct chp_protocol chp_hermes = {
	.name = "hermes",
	.is_fenced = true,
	.is_backed = true,
	.create = hermes_create,
	.destroy = hermes_destroy,
	.accepts = hermes_accepts,
	.key_of = hermes_key_of,
	.step = hermes_step,
	.admit = hermes_admit,
	.submit = hermes_submit,
	.wake = hermes_wake,
	.loaded = hermes_loaded,
	.scanned = hermes_scanned,
	.scan_end = hermes_scan_end,
	.tick = hermes_tick,
	.view = hermes_view,
	.link_down = hermes_link_down,
	.link_up = hermes_link_up,
	.new_session = hermes_new_session,
	.is_home = hermes_is_home,
	.epoch = hermes_epoch,
	.status = hermes_status,
	.copy_done = hermes_copy_done,
	.copy_progress = hermes_copy_progress,
	.open_ops = hermes_open_ops,
	.check = hermes_check,
	.dump = hermes_dump,
};
