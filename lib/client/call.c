/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/internal.h"

#include <string.h>

/* ---- the timer heap: the call that is due first is at heap[0] ---- */

static uint64_t
due(const struct chp_call *call)
{
	return chp_min_u64(call->timer_ns, call->deadline_ns);
}

static void
heap_set(struct chaapar *c, uint32_t at, struct chp_call *call)
{
	c->heap[at] = call;
	call->heap_at = at + 1;
}

static void
heap_up(struct chaapar *c, uint32_t at)
{
	struct chp_call *call = c->heap[at];

	while (at > 0) {
		uint32_t parent = (at - 1) / 2;

		if (due(c->heap[parent]) <= due(call))
			break;
		heap_set(c, at, c->heap[parent]);
		at = parent;
	}
	heap_set(c, at, call);
}

static void
heap_down(struct chaapar *c, uint32_t at)
{
	struct chp_call *call = c->heap[at];

	for (;;) {
		uint32_t child = 2 * at + 1;

		if (child >= c->heap_n)
			break;
		if (child + 1 < c->heap_n && due(c->heap[child + 1]) < due(c->heap[child]))
			child++;
		if (due(call) <= due(c->heap[child]))
			break;
		heap_set(c, at, c->heap[child]);
		at = child;
	}
	heap_set(c, at, call);
}

void
chp_call_arm(struct chaapar *c, struct chp_call *call, uint64_t timer_ns)
{
	CHP_ASSERT(call->state != CHP_CALL_FREE);
	call->timer_ns = timer_ns;
	if (call->heap_at == 0)
		heap_set(c, c->heap_n++, call);
	heap_up(c, call->heap_at - 1);
	heap_down(c, call->heap_at - 1);
}

void
chp_call_disarm(struct chaapar *c, struct chp_call *call)
{
	uint32_t at;
	struct chp_call *last;

	if (call->heap_at == 0)
		return;
	at = call->heap_at - 1;
	call->heap_at = 0;
	last = c->heap[--c->heap_n];
	if (last == call)
		return;
	heap_set(c, at, last);
	heap_up(c, at);
	heap_down(c, last->heap_at - 1);
}

/* ---- where a call goes next ---- */

static void
new_number(struct chaapar *c, struct chp_call *call)
{
	c->serial++;
	call->number = c->serial << CHP_CLIENT_SLOT_BITS | call->slot;
	call->sent = 0;
}

void
chp_call_send(struct chaapar *c, struct chp_call *call)
{
	struct chp_client_shard *s = &c->shard[call->shard];

	chp_list_remove(&call->list);
	call->state = CHP_CALL_TO_SEND;
	if (!call->in_session && call->number == 0)
		new_number(c, call);
	if (call->control) {
		chp_list_add_tail(&c->control, &call->list);
	} else {
		chp_list_add_tail(call->in_session ? &s->send : &s->plain, &call->list);
		c->dirty |= chp_bit(call->shard);
	}
	chp_call_arm(c, call, CHP_NEVER);
}

void
chp_call_wait(struct chaapar *c, struct chp_call *call)
{
	CHP_ASSERT(call->in_session && call->number == 0);
	chp_list_remove(&call->list);
	call->state = CHP_CALL_WAITING;
	call->sent = 0;
	chp_list_add_tail(&c->shard[call->shard].waiting, &call->list);
	c->dirty |= chp_bit(call->shard);
	chp_call_arm(c, call, CHP_NEVER);
}

void
chp_call_back_off(struct chaapar *c, struct chp_call *call, enum chp_call_state state,
		  uint64_t unit_ns, uint64_t now)
{
	uint64_t ns = unit_ns << chp_min_u32(call->refused, CHP_CLIENT_BACKOFF_SHIFT_MAX);

	chp_list_remove(&call->list);
	call->state = (uint8_t)state;
	call->refused++;
	call->hops = 0;
	chp_call_arm(c, call, now + ns + chp_random_below(&c->random, ns / 2));
}

bool
chp_call_scouts(struct chaapar *c, struct chp_call *call)
{
	struct chp_call **scout = &c->shard[call->shard].scout[call->in_session];

	if (*scout == NULL)
		*scout = call;
	return *scout == call;
}

/* Whether a call waits only because nobody served it. */
static bool
waits_for_service(const struct chaapar *c, const struct chp_call *call, uint64_t now)
{
	if (call->state == CHP_CALL_BACKOFF)
		return call->cause == CHAAPAR_NOT_SERVING || call->cause == CHAAPAR_REDIRECT;
	return call->state == CHP_CALL_SENT && chp_peer_is_avoided(c, call->node, now);
}

void
chp_call_served(struct chaapar *c, struct chp_call *call, uint8_t node, uint64_t now)
{
	struct chp_client_shard *s = &c->shard[call->shard];

	if (s->scout[call->in_session] != call)
		return;
	s->scout[call->in_session] = NULL;
	if (call->in_session) {
		chp_session_wake(c, call->shard, now);
		return;
	}
	for (uint32_t i = 0; i < c->options.in_flight_max + CHP_CLIENT_SLOTS_EXTRA; i++) {
		struct chp_call *other = &c->call[i];

		if (other == call || other->shard != call->shard || other->in_session ||
		    other->pinned || other->control || !waits_for_service(c, other, now))
			continue;
		other->node = node;
		other->expired = other->refused = 0;
		chp_call_send(c, other);
	}
}

void
chp_call_release_number(struct chaapar *c, struct chp_call *call)
{
	struct chp_client_shard *s = &c->shard[call->shard];

	uint64_t number = call->number;

	call->number = 0;
	call->sent = 0;
	if (!call->in_session || number == 0)
		return;
	CHP_ASSERT(s->ring[number % CHP_SESSION_WINDOW_MAX] == call);
	s->ring[number % CHP_SESSION_WINDOW_MAX] = NULL;
	s->outstanding--;
	while (s->lowest < s->next && s->ring[s->lowest % CHP_SESSION_WINDOW_MAX] == NULL)
		s->lowest++;
	if (s->outstanding == 0 && s->state == CHP_SESSION_DRAINING)
		s->state = CHP_SESSION_NONE;
	c->dirty |= chp_bit(call->shard); /* there may be room for one that waits */
}

/* ---- the end of a call ---- */

void
chp_call_stop(struct chaapar *c, struct chp_call *call)
{
	chp_call_disarm(c, call);
	chp_list_remove(&call->list);
	chp_call_release_number(c, call);
	if (c->shard[call->shard].scout[call->in_session] == call)
		c->shard[call->shard].scout[call->in_session] = NULL;
	call->state = CHP_CALL_FREE;
}

void
chp_call_start_own(struct chp_call *call, uint8_t opcode, uint32_t shard)
{
	CHP_ASSERT_OP(call->state, ==, CHP_CALL_FREE);
	call->opcode = opcode;
	call->own = true;
	call->pinned = false;
	call->in_session = false;
	call->relaxed = false;
	call->control = opcode == CHP_OPCODE_INFO;
	call->shard = (uint16_t)shard;
	call->key_len = 0;
	call->value_len = 0;
	call->arg = 0;
	call->cause = CHAAPAR_OK;
	call->sent = call->sent_total = call->expired = call->refused = call->hops = 0;
	call->number = 0;
	call->submit_ns = chp_client_now();
	call->deadline_ns = CHP_NEVER;
	call->callback = NULL;
}

void
chp_call_finish(struct chaapar *c, struct chp_call *call, enum chaapar_status status,
		const struct chp_reply_message *m, int node)
{
	chaapar_callback *callback = call->callback;
	bool outer = c->in_callback;
	struct chaapar_result r = {
		.status = status,
		.cause = call->cause,
		.latency_ns = chp_client_now() - call->submit_ns,
		.retries = call->sent_total > 0 ? call->sent_total - 1 : 0,
		.node = node,
	};

	CHP_ASSERT(!call->own);
	if (m != NULL) {
		r.relaxed = (m->flags & CHP_REPLY_RELAXED) != 0;
		r.version = m->version;
		r.number = m->number;
		if (status == CHAAPAR_OK) {
			r.value = chp_reply_value(m);
			r.value_len = m->value_total;
		}
	}
	chp_call_stop(c, call);
	chp_list_add_tail(&c->free, &call->list);
	if (call->in_session)
		chp_session_abandon(c, call->shard);
	c->in_flight--;
	c->counters.completed++;
	if (status == CHAAPAR_TIMEOUT || status == CHAAPAR_UNSENT)
		c->counters.timeouts++;
	if (callback != NULL) {
		c->in_callback = true;
		callback(c, call->callback_arg, &r);
		c->in_callback = outer;
	}
}

/* ---- timers ---- */

/*
 * The time is up. Giving up a number lets the session's lowest pass it: a copy of the request that
 * is still on its way is then dropped by the replica as long as a later datagram overtakes it, but
 * not otherwise. So what was sent even once has an unknown outcome, whatever refused it since: no
 * refusal speaks for an earlier sending.
 */
static void
on_deadline(struct chaapar *c, struct chp_call *call, uint64_t now)
{
	struct chp_client_shard *s = &c->shard[call->shard];
	enum chaapar_status status = CHAAPAR_TIMEOUT;

	if (call->sent == 0) {
		if (call->cause == CHAAPAR_BUSY || call->cause == CHAAPAR_SESSIONS_FULL ||
		    call->cause == CHAAPAR_WRONG_SHARD)
			status = (enum chaapar_status)call->cause;
		else if (call->in_session || call->sent_total == 0)
			status = CHAAPAR_UNSENT;
	} else if (call->in_session && s->heard_ns < call->first_ns &&
		   (!c->options.only_node || s->stale_ns >= call->first_ns)) {
		/* Nobody said anything of it for so long, or only of views before the one that we
		 * know: a cluster that was founded anew does not know the session. */
		chp_session_lose(c, call->shard);
	}
	if (status != CHAAPAR_BUSY && !call->pinned)
		chp_info_fetch(c, now); /* perhaps the cluster is another one by now */
	chp_call_finish(c, call, status, NULL, CHAAPAR_ANY_NODE);
}

/*
 * No answer came in time. Whoever said nothing at all since then is taken for dead: this call and those
 * that come after it go to the next member. A session's request may go to any, under its number: who
 * is not the session's home names the home. One that has said other things only lost this.
 */
static void
leave(struct chaapar *c, struct chp_call *call, uint64_t now)
{
	struct chp_client_shard *s = &c->shard[call->shard];
	uint8_t node = call->node;

	if (call->pinned || c->peer[node].heard_ns >= call->sent_ns) {
		if (!call->pinned && !call->in_session && call->expired % 2 == 0)
			call->node = chp_peer_next(c, node, now);
		return;
	}
	chp_peer_failed(c, node, true, now);
	(void)chp_call_scouts(c, call);
	if (!call->in_session)
		call->node = chp_peer_next(c, node, now);
	else if (s->home == node)
		s->home = chp_peer_next(c, node, now);
}

static void
on_silence(struct chaapar *c, struct chp_call *call, uint64_t now)
{
	struct chp_client_shard *s = &c->shard[call->shard];

	call->expired++;
	call->hops = 0;
	if (!call->own)
		c->counters.retransmits++;
	if (call->opcode == CHP_OPCODE_INFO) {
		if (c->have_info && c->in_flight == 0) {
			chp_call_stop(c, call); /* nobody needs it any more */
			return;
		}
		c->endpoint_next++;
	} else if (call->own && call->opcode == CHP_OPCODE_PING) {
		chp_call_stop(c, call); /* still silent */
		return;
	} else if (call->opcode == CHP_OPCODE_SESSION_OPEN && chp_list_is_empty(&s->waiting)) {
		chp_call_stop(c, call);
		s->state = CHP_SESSION_NONE;
		return;
	} else {
		leave(c, call, now);
	}
	chp_call_send(c, call);
}

static void
on_timer(struct chaapar *c, struct chp_call *call, uint64_t now)
{
	switch (call->state) {
	case CHP_CALL_SENT:
		on_silence(c, call, now);
		break;
	case CHP_CALL_BACKOFF:
		chp_call_send(c, call);
		break;
	case CHP_CALL_RENEW:
		if (call->in_session)
			chp_call_wait(c, call);
		else
			chp_call_send(c, call);
		break;
	default:
		CHP_ASSERT_OP(call->state, ==, CHP_CALL_FREE); /* no other state has a timer */
		break;
	}
}

void
chp_call_timers(struct chaapar *c, uint64_t now)
{
	while (c->heap_n > 0 && due(c->heap[0]) <= now) {
		struct chp_call *call = c->heap[0];

		if (call->deadline_ns <= now)
			on_deadline(c, call, now);
		else
			on_timer(c, call, now);
	}
}
