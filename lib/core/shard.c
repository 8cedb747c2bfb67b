/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/shard.h"

#include "base/mutation.h"
#include "protocols/hermes.h"

#include <errno.h>
#include <string.h>

#define HEADER_BYTES ((uint32_t)sizeof(struct chp_peer_header))

/* Log entries that one run may drop: a run frees at least what it can append. */
#define COMPACT_MAX (4u * CHP_BATCH_MAX)
/* Idle sessions are looked for this often, so many at a time. */
#define EXPIRY_SCAN_NS UINT64_C(100000000)
#define EXPIRY_SCAN_MAX 64u
/* A host that is silent for so long is away, even where peers are given more time: it is one hop off. */
#define HOST_SILENT_NS UINT64_C(2000000000)
/* The frontend of operations that nobody outside asked for. */
#define FRONTEND_NONE UINT32_MAX

struct batch {
	struct chp_peer_message m[CHP_BATCH_MAX];
	struct chp_key *key[CHP_BATCH_MAX];
	uint32_t n, n_keys;
};

/* An open that was answered or is under way: its retry gets the same session. */
struct open_memory {
	uint64_t nonce;
	uint64_t id;      /* 0: none */
	uint64_t request; /* with the origin: which answer is this open's */
	struct chp_origin origin;
	bool done;
};
/* Opens remembered: more than clients retry at the same time. A forgotten one costs an idle session. */
#define OPENS_REMEMBERED 256u

struct chp_shard {
	struct chp_out out; /* first: the protocol's calls come back with it */
	struct chp_shard_config config;
	const struct chp_protocol *protocol;
	void *instance;
	struct chp_cache *cache;
	struct chp_log log;
	struct chp_sessions sessions;
	struct chp_link *link; /* by node id; our own is unused */
	struct chp_host host;
	struct chp_view view;
	struct chp_shard_counters counters;
	struct chp_protocol_counters protocol_counters;
	struct chp_copy_counters copy_counters;
	struct chp_zab_counters zab_counters;
	struct chp_histogram commit_ns;
	struct batch batch;

	/* Of the run in progress. */
	struct chp_effects *fx;
	const struct chp_now *now;
	uint32_t replies_for_ops; /* kept back from messages */
	uint64_t session_key[CHP_BATCH_MAX];

	struct open_memory opened[OPENS_REMEMBERED]; /* by nonce */
	uint32_t expiry_at;       /* session index where the scan goes on */
	uint64_t expiry_epoch;    /* the protocol's, in which idle sessions have been looked for */
	uint64_t expiry_ns, tick_ns;
	uint64_t resets;          /* links to reset in the next run */
	uint32_t first_link;      /* whose packets go first: changes so that none starves */
};

/* ------------------------------------------------------------------ lanes, credits */

static void
close_lane(struct chp_shard *s, uint32_t peer)
{
	struct chp_lane *lane = &s->out.lane[peer];

	chp_link_close(&s->link[peer], lane->at);
	lane->at = lane->end = NULL;
}

/* What packets carry as epoch: views fence nothing that has epochs of its own (SAFETY 11). */
static uint64_t
fence_of(const struct chp_shard *s)
{
	return s->protocol->is_fenced ? s->view.epoch : 0;
}

/* Whether a packet must wait for the view of its epoch. */
static bool
is_ahead(const struct chp_shard *s, const struct chp_peer_header *h)
{
	return s->protocol->is_fenced && h->epoch > s->view.epoch;
}

static void
next_packet(struct chp_out *out, uint32_t peer, uint32_t bytes)
{
	struct chp_shard *s = (struct chp_shard *)out;
	struct chp_lane *lane = &out->lane[peer];

	CHP_ASSERT(peer < s->config.n_nodes && peer != s->config.self);
	close_lane(s, peer);
	chp_link_open(&s->link[peer], bytes, fence_of(s), &lane->at, &lane->end);
}

static uint64_t
live_peers(const struct chp_shard *s)
{
	return chp_view_live(&s->view) & ~chp_bit(s->config.self);
}

/* Operations that the peers may begin here and have not. */
static uint64_t
granted_open(const struct chp_shard *s)
{
	uint64_t sum = 0;

	for (uint64_t p = live_peers(s); p != 0; p &= p - 1) {
		const struct chp_link *l = &s->link[chp_first_bit(p)];

		sum += l->grant - l->peer_begun;
	}
	return sum;
}

/*
 * Room in log and cache that is promised to nobody: what every operation open in the cluster could take when it is sent
 * again after a view change stays free always, as does what the peers were granted (SAFETY 12).
 */
static uint64_t
free_records(const struct chp_shard *s)
{
	uint64_t room = chp_min_u32(chp_log_room_records(&s->log), chp_cache_room(s->cache));
	uint64_t kept = (uint64_t)s->config.n_nodes * s->config.credits + granted_open(s);
	uint64_t free = room > kept ? room - kept : 0;

	/* Back-pressure of the store: what it has not saved fills the log. */
	if (s->host.backing.is_present)
		free = chp_min_u64(free, chp_log_room_until(&s->log, s->config.busy_fill_percent));
	return free;
}

static void
load_credits(struct chp_shard *s)
{
	s->out.ungranted = 0;
	for (uint64_t p = live_peers(s); p != 0; p &= p - 1) {
		uint32_t peer = chp_first_bit(p);
		const struct chp_link *l = &s->link[peer];

		s->out.lane[peer].credits = (uint32_t)(l->peer_grant - l->begun);
		if (l->peer_grant == 0)
			s->out.ungranted |= chp_bit(peer);
		s->out.lane[peer].bulk_bytes = chp_link_bulk_bytes(l);
	}
	s->out.lane[s->config.self].credits = (uint32_t)chp_min_u64(free_records(s), UINT32_MAX);
}

static void
settle_credits(struct chp_shard *s)
{
	for (uint64_t p = live_peers(s); p != 0; p &= p - 1) {
		uint32_t peer = chp_first_bit(p);

		s->link[peer].begun += s->out.lane[peer].begun;
		s->out.lane[peer].begun = 0;
	}
	s->out.lane[s->config.self].begun = 0;
}

/* Grant each peer its window again as far as the log has room beyond our own share of one window. */
static void
raise_grants(struct chp_shard *s)
{
	uint64_t room = free_records(s);

	room = room > s->config.credits ? room - s->config.credits : 0;
	for (uint64_t p = live_peers(s); p != 0; p &= p - 1) {
		struct chp_link *l = &s->link[chp_first_bit(p)];
		uint64_t more = s->config.credits - (l->grant - l->peer_begun);

		more = chp_min_u64(more, room);
		room -= more;
		chp_link_set_grant(l, l->grant + more, s->now->ns);
	}
}

/* ------------------------------------------------------------------ messages */

static void
flush_batch(struct chp_shard *s)
{
	struct batch *b = &s->batch;

	if (b->n == 0)
		return;
	for (uint32_t i = 0; i < b->n_keys; i++)
		b->key[i]->digest = chp_cache_digest(s->cache, b->key[i]->bytes, b->key[i]->len,
						     b->key[i]->session);
	if (b->n_keys > 0)
		chp_cache_find_bulk(s->cache, b->key, b->n_keys);
	s->counters.messages += b->n;
	s->protocol->step(s->instance, s->now, b->m, b->n, &s->out);
	b->n = b->n_keys = 0;
}

/* Messages that may still be taken: each may make a reply. */
static uint32_t
message_room(const struct chp_shard *s)
{
	uint32_t taken = s->batch.n + s->replies_for_ops;

	return s->out.replies_left > taken ? s->out.replies_left - taken : 0;
}

static void
add_message(struct chp_shard *s, const struct chp_message *message, uint32_t from)
{
	struct batch *b = &s->batch;
	struct chp_peer_message *m = &b->m[b->n++];

	m->message = message;
	m->from = (uint8_t)from;
	if (s->protocol->key_of(message, &m->key)) {
		m->key.pos = -1;
		b->key[b->n_keys++] = &m->key;
	}
	if (b->n == CHP_BATCH_MAX)
		flush_batch(s);
}

/* A message that begins an operation uses a credit, whatever becomes of it. */
static bool
take_message(struct chp_shard *s, struct chp_link *l, const struct chp_message *m)
{
	if ((m->flags & CHP_MESSAGE_BEGIN) != 0) {
		if (l->peer_begun >= l->grant && !CHP_MUTATED(S12_NO_CREDITS))
			return false;
		l->peer_begun++;
	}
	return s->protocol->accepts(m, s->config.value_bytes_max);
}

/*
 * Deliver a packet's messages from *offset on. Returns whether it is done; otherwise the rest, from
 * *offset on, must wait: for the view of its epoch or for room for replies.
 */
static bool
deliver(struct chp_shard *s, struct chp_link *l, const uint8_t *data, uint32_t len, uint32_t *offset)
{
	const struct chp_peer_header *h = (const void *)data;
	const bool old = h->epoch < fence_of(s);

	if (is_ahead(s, h))
		return false;
	l->counters.old_epoch += old;
	while (*offset < len) {
		const struct chp_message *m = (const void *)(data + *offset);

		if (!old && message_room(s) == 0) {
			flush_batch(s); /* most messages make no reply */
			if (message_room(s) == 0)
				return false;
		}
		*offset += m->len;
		if (!take_message(s, l, m))
			l->counters.bad_message++;
		else if (!old)
			add_message(s, m, l->config.peer);
	}
	return true;
}

static void
deliver_waiting(struct chp_shard *s, struct chp_link *l)
{
	struct chp_link_rx *r;

	while ((r = chp_link_waiting(l)) != NULL) {
		bool done = deliver(s, l, r->bytes, r->len, &r->offset);

		flush_batch(s); /* its memory is the link's, used again for a later packet */
		if (!done)
			return;
		chp_link_delivered(l, s->now->ns);
	}
}

static void
link_was_reset(struct chp_shard *s, uint32_t peer)
{
	/* The open packet went with the reset. */
	s->out.lane[peer].at = s->out.lane[peer].end = NULL;
	s->out.lane[peer].credits = 0;
	s->protocol->link_down(s->instance, s->now, peer, &s->out);
}

static void
reset_link(struct chp_shard *s, uint32_t peer)
{
	flush_batch(s);
	chp_link_reset(&s->link[peer], s->now->ns);
	link_was_reset(s, peer);
}

/* Where the host's answers go: to the protocol, behind all messages that came before. */
static struct chp_host_sink
host_sink(struct chp_shard *s)
{
	flush_batch(s);
	return (struct chp_host_sink){
		.protocol = s->protocol,
		.instance = s->instance,
		.now = s->now,
		.out = &s->out,
		.kept = s->replies_for_ops,
	};
}

/* Packets of both kinds name the shard; what else they name is the host end's to judge. */
static void
receive_from_host(struct chp_shard *s, const struct chp_packet *p)
{
	const struct chp_prelude *prelude = (const void *)p->data;
	const struct chp_peer_header *h = (const void *)p->data;
	const struct chp_host_hello *hello = (const void *)p->data;
	const uint32_t shard = prelude->kind == CHP_PACKET_HOST ? h->shard : hello->shard;
	struct chp_host_sink sink;

	if (!s->host.backing.is_present || shard != s->config.shard || p->len > s->config.payload_bytes_max) {
		s->counters.misdirected++;
		return;
	}
	sink = host_sink(s);
	chp_host_receive(&s->host, &sink, p->data, p->len);
}

static void
receive_packet(struct chp_shard *s, const struct chp_packet *p)
{
	const struct chp_peer_header *h = (const void *)p->data;
	const uint32_t peer = h->from;
	struct chp_link *l = &s->link[peer];
	enum chp_link_verdict v;
	uint32_t offset = HEADER_BYTES;
	bool was_down;

	if (peer >= s->config.n_nodes || peer == s->config.self || h->to != s->config.self ||
	    h->shard != s->config.shard || p->len > s->config.payload_bytes_max) {
		s->counters.misdirected++;
		return;
	}
	was_down = l->state == CHP_LINK_DOWN;
	v = chp_link_receive(l, p->data, p->len, s->now->ns);
	if (v == CHP_LINK_RESET) {
		flush_batch(s);
		link_was_reset(s, peer);
		was_down = true;
		v = chp_link_receive(l, p->data, p->len, s->now->ns);
	}
	if (was_down && l->state == CHP_LINK_UP) {
		flush_batch(s);
		close_lane(s, peer); /* what was written while it was down goes nowhere: not what comes now, too */
		s->protocol->link_up(s->instance, s->now, peer, &s->out);
	}
	if (v != CHP_LINK_DELIVER)
		return;
	if (!deliver(s, l, p->data, p->len, &offset)) {
		l->counters.new_epoch_held += is_ahead(s, h);
		chp_link_keep(l, p->data, p->len, offset);
		return;
	}
	chp_link_delivered(l, s->now->ns);
	deliver_waiting(s, l);
}

/* ------------------------------------------------------------------ client operations, sessions */

/* What a session executes at most once. */
static bool
is_write(uint8_t opcode)
{
	return opcode != CHP_OPCODE_GET && opcode != CHP_OPCODE_PING && opcode != CHP_OPCODE_QUORUM;
}

static uint8_t *
give_reply(struct chp_shard *s, const struct chp_reply *r)
{
	CHP_ASSERT_OP(s->out.replies_left, >, 0u);
	s->out.replies_left--;
	s->counters.replies++;
	if (r->origin->frontend == FRONTEND_NONE)
		return NULL;
	return s->fx->reply(s->fx->frontend, r);
}

/* A refused open is forgotten, so that its retry is tried again. */
static void
open_answered(struct chp_shard *s, const struct chp_reply *r)
{
	for (uint32_t i = 0; i < OPENS_REMEMBERED; i++) {
		struct open_memory *memory = &s->opened[i];

		if (memory->id == 0 || memory->done || memory->request != r->request ||
		    memcmp(&memory->origin, r->origin, sizeof(memory->origin)) != 0 ||
		    (r->status == CHP_STATUS_OK && memory->id != r->number))
			continue;
		if (r->status == CHP_STATUS_OK) {
			struct chp_session *session = chp_session_find(&s->sessions, memory->id);

			memory->done = true;
			if (session != NULL)
				session->used_ns = s->now->ns;
		} else {
			*memory = (struct open_memory){ 0 };
		}
	}
}

/* Nothing was begun: the same request may come again, here or at another home. */
static bool
is_final(uint8_t status)
{
	return status != CHP_STATUS_OVERLOAD && status != CHP_STATUS_REDIRECT && status != CHP_STATUS_NOT_SERVING;
}

static void
settle_record(struct chp_record *record, const struct chp_reply *r)
{
	if (is_final(r->status)) {
		record->state = CHP_RECORD_DONE;
		record->status = r->status;
		record->version = r->version;
		record->number = r->number;
	} else if (record->state != CHP_RECORD_DONE) {
		/* What was known of it stays known; and a peer's try of it may have come by meanwhile. */
		record->state = record->is_asked || record->version != 0 ? CHP_RECORD_SEEN : CHP_RECORD_EMPTY;
	}
	record->is_asked = 0;
}

/* The protocol's answer: remembered with the session, whatever it is, then given (SAFETY 24). */
static uint8_t *
take_reply(struct chp_out *out, const struct chp_reply *r)
{
	struct chp_shard *s = (struct chp_shard *)out;

	if (r->opcode == CHP_OPCODE_SESSION_OPEN)
		open_answered(s, r);
	if (r->session != 0 && is_write(r->opcode)) {
		struct chp_session *session = chp_session_find(&s->sessions, r->session);
		struct chp_record *record;

		if (session != NULL) {
			record = chp_session_record(&s->sessions, session, r->request);
			CHP_ASSERT_OP(session->open_ops, >, 0u);
			session->open_ops--;
			session->used_ns = s->now->ns;
			if (record->request == r->request)
				settle_record(record, r);
		}
	}
	return give_reply(s, r);
}

static void
answer(struct chp_shard *s, const struct chp_op *op, uint8_t status, uint64_t version, uint64_t number)
{
	struct chp_reply r = { .origin = &op->origin,
			       .session = op->session,
			       .request = op->request,
			       .version = version,
			       .number = number,
			       .opcode = op->opcode,
			       .status = status };

	give_reply(s, &r);
}

/* A retry of what a record here knows. True: the protocol must tell how it ended. */
static bool
check_old_record(struct chp_shard *s, struct chp_op *op, struct chp_session *session, struct chp_record *record)
{
	if (record->state == CHP_RECORD_DONE) {
		s->counters.retry_replayed++;
		answer(s, op, record->status, record->version, record->number);
		return false;
	}
	if (record->state == CHP_RECORD_PENDING || record->is_asked) {
		s->counters.retry_pending++;
		return false;
	}
	record->is_asked = 1;
	op->is_asked = true;
	session->open_ops++;
	session->used_ns = s->now->ns;
	return true;
}

/* The record of a request says what to do with it. True: it goes to the protocol. */
static bool
check_record(struct chp_shard *s, struct chp_op *op, struct chp_session *session)
{
	struct chp_record *record = chp_session_record(&s->sessions, session, op->request);
	const bool is_old = record->request == op->request && record->state != CHP_RECORD_EMPTY &&
			    !CHP_MUTATED(S24_NO_RECORD) &&
			    !(CHP_MUTATED(P45_PUT_RETRIED) && record->state == CHP_RECORD_SEEN && !record->rmw);

	if (is_old)
		return check_old_record(s, op, session, record);
	if (record->request > op->request) {
		s->counters.retry_stale++;
		return false;
	}
	*record = (struct chp_record){ .request = op->request, .state = CHP_RECORD_PENDING };
	session->open_ops++;
	session->used_ns = s->now->ns;
	return true;
}

/* [SAFETY 24] Whether a write of a session may be executed here; if not, it is answered or dropped. */
static bool
check_session(struct chp_shard *s, struct chp_op *op)
{
	struct chp_session *session = chp_session_find(&s->sessions, op->session);

	if (session == NULL) {
		s->counters.session_unknown++;
		answer(s, op, CHP_STATUS_SESSION_UNKNOWN, 0, 0);
		return false;
	}
	session->lowest = chp_max_u64(session->lowest, op->lowest);
	if (op->request < session->lowest) {
		s->counters.retry_stale++;
		return false;
	}
	if (op->request - session->lowest >= s->config.session_window) {
		s->counters.session_window++;
		answer(s, op, CHP_STATUS_SESSION_WINDOW, 0, 0);
		return false;
	}
	return check_record(s, op, session);
}

/* Number a new session. False: refused, or a retry of an open, which was answered if it is done. */
static bool
prepare_open(struct chp_shard *s, struct chp_op *op, uint64_t *id)
{
	struct open_memory *memory = &s->opened[op->arg % OPENS_REMEMBERED];

	if (op->arg != 0 && memory->nonce == op->arg &&
	    (!memory->done || chp_session_find(&s->sessions, memory->id) != NULL)) {
		if (memory->done)
			answer(s, op, CHP_STATUS_OK, 0, memory->id);
		s->counters.retry_pending += !memory->done;
		s->counters.retry_replayed += memory->done;
		return false;
	}
	if (s->sessions.n >= s->config.sessions_max) {
		answer(s, op, CHP_STATUS_SESSIONS_FULL, 0, 0);
		return false;
	}
	*id = s->protocol->new_session(s->instance);
	CHP_ASSERT_OP(*id, !=, 0u);
	*memory = (struct open_memory){ .nonce = op->arg, .id = *id, .request = op->request, .origin = op->origin };
	return true;
}

/* A session's open and close are writes of a key that is its number. */
static bool
prepare_session_op(struct chp_shard *s, struct chp_op *op, uint64_t *id)
{
	if (op->opcode == CHP_OPCODE_SESSION_OPEN) {
		if (!prepare_open(s, op, id))
			return false;
	} else {
		*id = op->session;
		if (*id == 0) {
			answer(s, op, CHP_STATUS_SESSION_UNKNOWN, 0, 0);
			return false;
		}
	}
	op->key = (struct chp_key){ .bytes = (const uint8_t *)id, .len = sizeof(*id), .session = true, .pos = -1 };
	op->key.digest = chp_cache_digest(s->cache, op->key.bytes, op->key.len, true);
	op->value_len = 0;
	return op->opcode == CHP_OPCODE_SESSION_OPEN || check_session(s, op);
}

/* Whether a key, its digest filled in, and a value may be asked for here. */
static bool
check_key(struct chp_shard *s, struct chp_op *op)
{
	uint32_t shard;

	if (op->key.len == 0 || op->key.len > s->config.key_bytes_max) {
		answer(s, op, CHP_STATUS_BAD_KEY, 0, 0);
		return false;
	}
	if (op->value_len > s->config.value_bytes_max) {
		answer(s, op, CHP_STATUS_TOO_LARGE, 0, 0);
		return false;
	}
	op->key.session = false;
	op->key.pos = -1;
	op->key.digest = chp_cache_digest(s->cache, op->key.bytes, op->key.len, false);
	shard = chp_shard_of(op->key.digest, s->config.shards);
	if (shard != s->config.shard) {
		s->counters.wrong_shard++;
		answer(s, op, CHP_STATUS_WRONG_SHARD, s->config.hash_seed,
		       (uint64_t)s->config.shards << 32 | shard);
		return false;
	}
	return true;
}

/* Whether this replica takes the operation now is the protocol's to say (contract: admit). */
static bool
admit(struct chp_shard *s, const struct chp_op *op)
{
	uint64_t number = 0;
	const enum chp_status status = s->protocol->admit(s->instance, s->now, op, &number);

	if (status == CHP_STATUS_OK)
		return true;
	s->counters.not_serving += status == CHP_STATUS_NOT_SERVING;
	s->counters.redirected += status == CHP_STATUS_REDIRECT;
	s->counters.home_not_ready += status == CHP_STATUS_OVERLOAD;
	answer(s, op, (uint8_t)status, 0, status == CHP_STATUS_REDIRECT ? number : 0);
	return false;
}

/* True: the operation goes to the protocol. False: it was answered, or dropped as a retry. */
static bool
prepare_op(struct chp_shard *s, struct chp_op *op, uint64_t *session_key)
{
	op->is_asked = false;
	if (op->opcode >= CHP_OPCODE_GET && op->opcode <= CHP_OPCODE_DECR)
		return check_key(s, op) && admit(s, op) &&
		       (op->session == 0 || !is_write(op->opcode) || check_session(s, op));
	switch (op->opcode) {
	case CHP_OPCODE_PING:
		if (admit(s, op))
			answer(s, op, CHP_STATUS_OK, 0, 0);
		return false;
	case CHP_OPCODE_QUORUM:
		op->key = (struct chp_key){ .pos = -1 };
		op->value_len = 0;
		return admit(s, op);
	case CHP_OPCODE_SESSION_OPEN:
		op->session = 0;
		return admit(s, op) && prepare_session_op(s, op, session_key);
	case CHP_OPCODE_SESSION_CLOSE:
		return admit(s, op) && prepare_session_op(s, op, session_key);
	default:
		answer(s, op, CHP_STATUS_UNKNOWN_OP, 0, 0);
		return false;
	}
}

static void
run_ops(struct chp_shard *s, struct chp_op *op, uint32_t n)
{
	struct chp_key *key[CHP_BATCH_MAX];
	uint32_t kept = 0, n_keys = 0;

	CHP_ASSERT_OP(n, <=, CHP_BATCH_MAX);
	s->counters.ops += n;
	for (uint32_t i = 0; i < n; i++) {
		if (!prepare_op(s, &op[i], &s->session_key[i]))
			continue;
		if (kept != i)
			op[kept] = op[i];
		if (op[kept].key.len > 0)
			key[n_keys++] = &op[kept].key;
		kept++;
	}
	if (kept == 0)
		return;
	if (n_keys > 0)
		chp_cache_find_bulk(s->cache, key, n_keys);
	s->protocol->submit(s->instance, s->now, op, kept, &s->out);
}

static void
close_session(struct chp_shard *s, uint64_t id)
{
	struct chp_op op = { .opcode = CHP_OPCODE_SESSION_CLOSE, .origin.frontend = FRONTEND_NONE };

	s->session_key[0] = id;
	op.key = (struct chp_key){ .bytes = (const uint8_t *)&s->session_key[0],
				   .len = sizeof(s->session_key[0]),
				   .session = true,
				   .pos = -1 };
	op.key.digest = chp_cache_digest(s->cache, op.key.bytes, op.key.len, true);
	s->counters.sessions_expired++;
	s->protocol->submit(s->instance, s->now, &op, 1, &s->out);
}

/* Another replica may have executed what a session asked for: how long each was idle begins anew. */
static void
follow_epoch(struct chp_shard *s)
{
	const uint64_t epoch = s->protocol->epoch(s->instance);

	if (epoch == s->expiry_epoch)
		return;
	s->expiry_epoch = epoch;
	for (uint32_t i = 0; i < s->sessions.capacity; i++)
		s->sessions.session[i].used_ns = 0;
}

/* Close sessions that have been idle for long: a replicated write like any close. */
static void
expire_sessions(struct chp_shard *s)
{
	const struct chp_op close = { .opcode = CHP_OPCODE_SESSION_CLOSE, .origin.frontend = FRONTEND_NONE };
	uint64_t number;

	if (s->now->ns < s->expiry_ns)
		return;
	s->expiry_ns = s->now->ns + EXPIRY_SCAN_NS;
	follow_epoch(s);
	if (s->protocol->admit(s->instance, s->now, &close, &number) != CHP_STATUS_OK)
		return;
	for (uint32_t i = 0; i < EXPIRY_SCAN_MAX && s->out.replies_left > 0; i++) {
		struct chp_session *session = &s->sessions.session[s->expiry_at];

		s->expiry_at = (s->expiry_at + 1) % s->sessions.capacity;
		if (session->id == 0 || session->open_ops > 0 || !s->protocol->is_home(s->instance, session->id))
			continue;
		if (session->used_ns == 0) /* opened, not used yet: its time begins now */
			session->used_ns = s->now->ns;
		else if (s->now->ns - session->used_ns >= s->config.session_idle_ns)
			close_session(s, session->id);
	}
}

/* ------------------------------------------------------------------ the run */

/*
 * Links to peers whose incarnation the view changes start over; the others go on. What was under way is lost for a
 * protocol that views fence: it hears of the view alone.
 */
static void
enter_view(struct chp_shard *s, const struct chp_view *v)
{
	const uint32_t self = s->config.self;
	uint64_t begun = 0;

	CHP_ASSERT_OP(v->epoch, >, s->view.epoch);
	CHP_ASSERT((chp_view_live(v) & chp_bit(self)) != 0);
	for (uint32_t n = 0; n < s->config.n_nodes; n++) {
		uint64_t incarnation = (chp_view_live(v) & chp_bit(n)) != 0 ? v->incarnation[n] : 0;
		struct chp_link *l = &s->link[n];

		if (n == self)
			continue;
		close_lane(s, n);
		if (l->peer_incarnation == incarnation && l->self_incarnation == v->incarnation[self])
			continue;
		if (l->peer_incarnation != 0 && !s->protocol->is_fenced)
			s->protocol->link_down(s->instance, s->now, n, &s->out);
		chp_link_peer(l, v->incarnation[self], incarnation, s->now->ns);
		s->out.lane[n].credits = 0;
		if (incarnation != 0)
			begun |= chp_bit(n);
	}
	s->view = *v;
	if (s->host.backing.is_present)
		chp_host_view(&s->host, v->epoch, v->sources != 0);
	s->protocol->view(s->instance, s->now, v, &s->out);
	if (s->protocol->is_fenced)
		return;
	for (; begun != 0; begun &= begun - 1)
		s->protocol->link_up(s->instance, s->now, chp_first_bit(begun), &s->out);
}

static void
receive_all(struct chp_shard *s, const struct chp_events *in)
{
	for (uint32_t n = 0; n < s->config.n_nodes; n++) {
		if (n == s->config.self)
			continue;
		if ((s->resets & chp_bit(n)) != 0 || chp_link_is_stuck(&s->link[n], s->now->ns))
			reset_link(s, n);
		deliver_waiting(s, &s->link[n]);
	}
	s->resets = 0;
	if (s->host.backing.is_present) {
		const struct chp_host_sink sink = host_sink(s);

		chp_host_deliver_waiting(&s->host, &sink);
	}
	for (uint32_t i = 0; i < in->n_packets; i++) {
		const struct chp_prelude *prelude = (const void *)in->packet[i].data;

		if (prelude->kind == CHP_PACKET_PEER)
			receive_packet(s, &in->packet[i]);
		else
			receive_from_host(s, &in->packet[i]);
	}
	flush_batch(s);
}

/* Everything that must go to a peer now, or to the host, as far as there are buffers. */
static void
transmit_to(struct chp_shard *s, uint32_t to)
{
	struct chp_effects *fx = s->fx;

	while (fx->n_used < fx->n_buffers) {
		struct chp_buffer *b = &fx->buffer[fx->n_used];

		if (to == CHP_TO_HOST)
			b->len = chp_host_transmit(&s->host, s->now->ns, b->data);
		else
			b->len = chp_link_transmit(&s->link[to], s->now->ns, fence_of(s), b->data);
		if (b->len == 0)
			return;
		b->peer = to;
		fx->n_used++;
	}
}

/* The host takes its turn in the place of this replica's own id. */
static void
transmit_all(struct chp_shard *s)
{
	s->first_link = (s->first_link + 1) % s->config.n_nodes;
	for (uint32_t i = 0; i < s->config.n_nodes; i++) {
		uint32_t n = (s->first_link + i) % s->config.n_nodes;

		if (n != s->config.self) {
			close_lane(s, n);
			transmit_to(s, n);
		} else if (s->host.backing.is_present) {
			transmit_to(s, CHP_TO_HOST);
		}
	}
}

/* When the next run is due without a new event. */
static uint64_t
next_deadline(const struct chp_shard *s, bool more)
{
	uint64_t wake = more ? 0 : chp_min_u64(s->tick_ns, s->expiry_ns);

	if (s->host.backing.is_present)
		wake = chp_min_u64(wake, chp_host_wake_ns(&s->host));

	for (uint32_t n = 0; n < s->config.n_nodes; n++) {
		const struct chp_link *l = &s->link[n];
		const struct chp_link_rx *r = n == s->config.self ? NULL : chp_link_waiting(l);

		if (n == s->config.self)
			continue;
		wake = chp_min_u64(wake, chp_link_wake_ns(l));
		if (r != NULL && !is_ahead(s, (const void *)r->bytes))
			wake = 0;
	}
	return wake;
}

void
chp_shard_run(struct chp_shard *s, const struct chp_now *now, const struct chp_events *in,
	      struct chp_effects *out)
{
	bool more;

	CHP_ASSERT_OP(in->n_ops, <=, out->reply_room);
	s->now = now;
	s->fx = out;
	s->counters.runs++;
	s->out.replies_left = out->reply_room;
	s->out.wake_ns = CHP_NEVER;
	s->out.reads_until_ns = CHP_NEVER;
	s->replies_for_ops = in->n_ops;
	if (in->founding != 0 && s->host.backing.is_present)
		chp_host_found(&s->host, in->founding);
	if (in->view != NULL)
		enter_view(s, in->view);
	receive_all(s, in);
	s->replies_for_ops = 0;
	chp_host_channel(&s->host, now->ns, in->host_is_gone);
	load_credits(s);
	run_ops(s, in->op, in->n_ops);
	more = s->protocol->wake(s->instance, now, &s->out);
	expire_sessions(s);
	if (now->ns >= s->tick_ns) {
		s->tick_ns = CHP_NEVER;
		s->protocol->tick(s->instance, now, &s->out);
	}
	s->tick_ns = chp_min_u64(s->tick_ns, s->out.wake_ns);
	settle_credits(s);
	if (s->host.backing.is_present)
		chp_host_run(&s->host, now->ns, s->view.sources == 0 && s->protocol->copy_done(s->instance));
	s->counters.log_compacted += chp_log_compact(&s->log, COMPACT_MAX);
	raise_grants(s);
	transmit_all(s);
	out->wake_ns = next_deadline(s, more);
	out->reads_until_ns = s->out.reads_until_ns;
}

void
chp_shard_raise_evicted(struct chp_shard *s, uint64_t counter)
{
	if (s->protocol == &chp_hermes)
		chp_hermes_raise_evicted(s->instance, counter);
}

void
chp_shard_reset_link(struct chp_shard *s, uint32_t peer)
{
	if (peer != s->config.self && s->link[peer].peer_incarnation != 0)
		s->resets |= chp_bit(peer);
}

/* ------------------------------------------------------------------ life */

static uint32_t
link_queue(const struct chp_shard_config *c)
{
	/*
	 * Packets with messages that may wait on one link: of our operations INV and VAL, of the peer's ACK or
	 * NACK, with level `datastore` STORED,
	 * each perhaps alone in its packet, and as much again re-sent after a view change.
	 */
	return 2 * CHP_LINK_WINDOW_MAX + (c->is_durable ? 6 : 4) * c->credits + 2 * CHP_BATCH_MAX;
}

static struct chp_link_config
link_config(const struct chp_shard_config *c, uint32_t peer)
{
	return (struct chp_link_config){
		.kind = CHP_PACKET_PEER,
		.cluster_hash = c->cluster_hash,
		.shard = c->shard,
		.self = c->self,
		.peer = peer,
		.window = c->link_window,
		.payload_bytes_max = c->payload_bytes_max,
		.queue = link_queue(c),
		.rto_ns_min = c->rto_ns_min,
		.rto_ns_max = c->rto_ns_max,
		.ack_delay_ns = c->ack_delay_ns,
		.link_down_ns = c->link_down_ns,
	};
}

static bool
has_host(const struct chp_shard_config *c)
{
	return c->has_host && c->protocol->is_backed;
}

static struct chp_host_config
host_config(const struct chp_shard_config *c)
{
	struct chp_link_config link = link_config(c, c->self);

	link.kind = CHP_PACKET_HOST;
	/* Bulk fills half a window at most; loads wait in their table where there is no room. */
	link.queue = 2 * CHP_LINK_WINDOW_MAX;
	link.link_down_ns = chp_min_u64(c->link_down_ns, HOST_SILENT_NS);
	return (struct chp_host_config){
		.link = link,
		.shards = c->shards,
		.hash_seed = c->hash_seed,
		.key_bytes_max = c->key_bytes_max,
		.value_bytes_max = c->value_bytes_max,
		.incarnation = c->incarnation,
		.is_durable = c->is_durable,
		.sends_open = c->is_durable && c->protocol->is_fenced,
		.batch_items = c->batch_items,
		.batch_bytes = c->batch_bytes,
		.batch_age_ns = c->batch_age_ns,
		.loads_max = c->loads_max,
		.busy_fill_percent = c->busy_fill_percent,
	};
}

static struct chp_cache_config
cache_config(const struct chp_shard_config *c)
{
	return (struct chp_cache_config){
		.name = c->name,
		.keys_max = c->keys_max,
		.value_blocks_max = c->value_blocks_max,
		.headroom = c->n_nodes * c->credits,
		.seed = c->hash_seed,
		.memory = c->memory,
	};
}

/* Sessions of the peers' concurrent opens fit behind the admitted ones, as keys do. */
static uint32_t
session_capacity(const struct chp_shard_config *c)
{
	return c->sessions_max + 2 * c->n_nodes * c->credits;
}

void
chp_shard_bytes(const struct chp_shard_config *c, struct chp_shard_bytes *out)
{
	struct chp_cache_config cache = cache_config(c);
	struct chp_link_config link = link_config(c, 0);

	out->cache = chp_cache_bytes(&cache);
	out->log = (uint64_t)c->log_entries * sizeof(struct chp_log_entry) +
		   (uint64_t)c->log_blocks * CHP_BLOCK_BYTES;
	out->sessions = session_capacity(c) *
			(sizeof(struct chp_session) + (uint64_t)c->session_window * sizeof(struct chp_record));
	out->links = (c->n_nodes - 1) * chp_link_bytes(&link);
	if (has_host(c)) {
		const struct chp_host_config host = host_config(c);

		out->links += chp_host_bytes(&host);
	}
	out->ops = (uint64_t)c->ops * (c->value_bytes_max + CHP_CACHE_LINE);
	out->total = out->cache + out->log + out->sessions + out->links + out->ops;
}

static int
create_links(struct chp_shard *s)
{
	s->link = s->config.memory->zalloc(s->config.n_nodes * sizeof(*s->link));
	if (s->link == NULL)
		return -ENOMEM;
	for (uint32_t n = 0; n < s->config.n_nodes; n++) {
		struct chp_link_config link = link_config(&s->config, n);

		if (n != s->config.self && chp_link_init(&s->link[n], &link, s->config.memory) != 0)
			return -ENOMEM;
	}
	return 0;
}

static int
create_host(struct chp_shard *s)
{
	const struct chp_host_config host = host_config(&s->config);

	chp_host_init_none(&s->host);
	if (!has_host(&s->config))
		return 0;
	return chp_host_init(&s->host, &host, &s->log, s->cache, s->config.memory);
}

/*
 * Half of the log is for what catches others up, but never what the credits of all nodes may need (free_records): a
 * log full of settled entries would leave no room for new ones. With a host it is half of what may be used before
 * clients are told that the shard is busy.
 */
static void
keep_log(struct chp_shard *s)
{
	const struct chp_shard_config *c = &s->config;
	const uint32_t needed = 2 * c->n_nodes * c->credits * CHP_RECORD_BLOCKS_MAX;
	const uint32_t spare = c->log_blocks > needed ? c->log_blocks - needed : 0;

	const uint32_t percent = has_host(c) ? c->busy_fill_percent / 2 : 50;

	chp_log_keep(&s->log, (uint32_t)((uint64_t)c->log_entries * percent / 100),
		     chp_min_u32((uint32_t)((uint64_t)c->log_blocks * percent / 100), spare));
}

static int
create_parts(struct chp_shard *s)
{
	const struct chp_shard_config *c = &s->config;
	const struct chp_cache_config cache = cache_config(c);
	struct chp_protocol_env env = {
		.log = &s->log,
		.sessions = &s->sessions,
		.backing = &s->host.backing,
		.counters = &s->protocol_counters,
		.copy_counters = &s->copy_counters,
		.zab_counters = &s->zab_counters,
		.commit_ns = &s->commit_ns,
		.application = c->application,
		.memory = c->memory,
		.shard = c->shard,
		.self = c->self,
		.n_nodes = c->n_nodes,
		.ops = c->ops,
		.credits = c->credits,
		.keys_max = c->keys_max,
		.value_bytes_max = c->value_bytes_max,
		.copy_bytes = c->copy_bytes,
		.loads_max = has_host(c) ? c->loads_max : 0,
		.election_ns = c->election_ns,
		.leader_lease_ns = c->leader_lease_ns,
		.clock_drift_ppm = c->clock_drift_ppm,
	};
	int err = 0;

	chp_histogram_init(&s->commit_ns);
	s->cache = chp_cache_create(&cache, &err);
	if (s->cache == NULL)
		return err;
	if (chp_log_init(&s->log, c->log_entries, c->log_blocks, !has_host(c), c->memory) != 0 ||
	    chp_sessions_init(&s->sessions, session_capacity(c), c->session_window, c->memory) != 0 ||
	    create_links(s) != 0 || create_host(s) != 0)
		return -ENOMEM;
	if (c->protocol->keeps_log)
		keep_log(s);
	env.cache = s->cache;
	s->instance = c->protocol->create(&env);
	return s->instance == NULL ? -ENOMEM : 0;
}

struct chp_shard *
chp_shard_create(const struct chp_shard_config *config, int *err)
{
	struct chp_shard *s = config->memory->zalloc(sizeof(*s));

	if (s == NULL) {
		*err = -ENOMEM;
		return NULL;
	}
	CHP_ASSERT(config->n_nodes >= 1 && config->n_nodes <= CHP_NODES_MAX);
	CHP_ASSERT_OP(config->self, <, config->n_nodes);
	CHP_ASSERT(config->application != NULL);
	CHP_ASSERT_OP(config->log_entries, >=, 4 * config->n_nodes * config->credits);
	CHP_ASSERT(!has_host(config) || (config->busy_fill_percent >= 1 && config->busy_fill_percent <= 100));
	s->config = *config;
	s->protocol = config->protocol;
	s->out.next_packet = next_packet;
	s->out.reply = take_reply;
	*err = create_parts(s);
	if (*err != 0) {
		chp_shard_destroy(s);
		return NULL;
	}
	return s;
}

void
chp_shard_destroy(struct chp_shard *s)
{
	const struct chp_memory *memory;

	if (s == NULL)
		return;
	memory = s->config.memory;
	if (s->instance != NULL)
		s->protocol->destroy(s->instance);
	for (uint32_t n = 0; s->link != NULL && n < s->config.n_nodes; n++)
		chp_link_fini(&s->link[n], memory);
	memory->free(s->link);
	chp_host_fini(&s->host, memory);
	chp_sessions_fini(&s->sessions, memory);
	chp_log_fini(&s->log, memory);
	chp_cache_destroy(s->cache);
	memory->free(s);
}

uint32_t
chp_shard_buffers_min(const struct chp_shard *s)
{
	return s->config.n_nodes + s->host.backing.is_present;
}

/* ------------------------------------------------------------------ looking in */

void
chp_shard_stats(const struct chp_shard *s, struct chp_shard_stats *out)
{
	memset(out, 0, sizeof(*out));
	out->shard = s->counters;
	out->protocol = s->protocol_counters;
	out->copy = s->copy_counters;
	out->zab = s->zab_counters;
	out->host = s->host.counters;
	out->host_link = s->host.link.counters;
	chp_cache_stats(s->cache, &out->cache);
	out->epoch = s->view.epoch;
	out->open_ops = s->protocol->open_ops(s->instance);
	out->sessions = s->sessions.n;
	out->log_head = s->log.head;
	out->log_next = s->log.next;
	out->log_capacity = s->log.mask + UINT64_C(1);
	for (uint32_t n = 0; n < s->config.n_nodes; n++) {
		const struct chp_link *l = &s->link[n];

		if (n == s->config.self)
			continue;
		out->link[n] = l->counters;
		out->link_state[n].session = l->session;
		out->link_state[n].in_flight = l->unsent - l->acked - 1;
		out->link_state[n].queued = l->next - l->unsent;
		out->link_state[n].credits = l->peer_grant - l->begun;
		out->link_state[n].rtt_ns = l->srtt_ns;
		out->link_state[n].up = l->peer_incarnation != 0 && l->state == CHP_LINK_UP;
	}
}

void
chp_shard_commit_times(const struct chp_shard *s, struct chp_commit_times *out)
{
#define CHP_COMMIT_FIELD(name, ppm) ppm,
	static const uint32_t share[] = { CHP_COMMIT_QUANTILES(CHP_COMMIT_FIELD) };
#undef CHP_COMMIT_FIELD

	_Static_assert(sizeof(*out) == sizeof(out->n) + CHP_ARRAY_LEN(share) * sizeof(uint64_t), "n, then these");
	out->n = s->commit_ns.n;
	chp_histogram_quantiles(&s->commit_ns, share, CHP_ARRAY_LEN(share), &out->p1_ns);
}

const struct chp_histogram *
chp_shard_commit_histogram(const struct chp_shard *s)
{
	return &s->commit_ns;
}

bool
chp_shard_copy_done(const struct chp_shard *s)
{
	return s->protocol->copy_done(s->instance);
}

void
chp_shard_copy_progress(const struct chp_shard *s, struct chp_copy_progress *out)
{
	s->protocol->copy_progress(s->instance, out);
}

void
chp_shard_host_status(const struct chp_shard *s, uint64_t now_ns, struct chp_host_status *out)
{
	chp_host_status(&s->host, now_ns, out);
	out->cache_is_stuck = out->state != CHP_HOST_NONE && chp_cache_is_stuck(s->cache);
}

uint64_t
chp_shard_epoch(const struct chp_shard *s)
{
	return s->protocol->epoch(s->instance);
}

uint64_t
chp_shard_view_epoch(const struct chp_shard *s)
{
	return s->view.epoch;
}

void
chp_shard_status(const struct chp_shard *s, struct chp_protocol_status *out)
{
	s->protocol->status(s->instance, out);
}

uint64_t
chp_shard_digest(const struct chp_shard *s)
{
	return chp_cache_state_digest(s->cache) ^ chp_sessions_digest(&s->sessions);
}

bool
chp_shard_is_idle(const struct chp_shard *s)
{
	if (s->protocol->open_ops(s->instance) != 0 || chp_log_unsettled(&s->log) != 0 || !chp_host_is_idle(&s->host))
		return false;
	/* Who lives with silent peers does not wait for them. */
	if (!s->protocol->is_fenced)
		return true;
	for (uint32_t n = 0; n < s->config.n_nodes; n++)
		if (n != s->config.self && s->link[n].peer_incarnation != 0 &&
		    (s->link[n].acked + 1 != s->link[n].next || chp_link_waiting(&s->link[n]) != NULL ||
		     s->link[n].state == CHP_LINK_DOWN))
			return false;
	return true;
}

void
chp_shard_check(const struct chp_shard *s)
{
	chp_cache_check(s->cache);
	chp_log_check(&s->log);
	chp_sessions_check(&s->sessions);
	for (uint32_t n = 0; n < s->config.n_nodes; n++)
		if (n != s->config.self)
			chp_link_check(&s->link[n]);
	chp_host_verify(&s->host);
	s->protocol->check(s->instance);
}

void
chp_shard_dump(const struct chp_shard *s, const char *key, struct chp_text *t)
{
	struct chp_key k = { .pos = -1 };

	if (key == NULL) {
		s->protocol->dump(s->instance, NULL, t);
		return;
	}
	k.bytes = (const uint8_t *)key;
	k.len = (uint32_t)strlen(key);
	k.digest = chp_cache_digest(s->cache, k.bytes, k.len, false);
	s->protocol->dump(s->instance, &k, t);
}

struct chp_cache *
chp_shard_cache(struct chp_shard *s)
{
	return s->cache;
}

const struct chp_log *
chp_shard_log(const struct chp_shard *s)
{
	return &s->log;
}

void *
chp_shard_instance(const struct chp_shard *s)
{
	return s->instance;
}
