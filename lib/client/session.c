/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One session per shard, opened at the first write. Its home is the replica that executes its
 * requests: a retry applies once because it meets the record of the first try there. Which one is
 * home, the view says; the library only follows. Home is whoever was named last in a redirect or
 * answered as home; if it is silent, the next member is asked. A session is given up when nobody said
 * anything of it for a whole time-out, once its last number has ended.
 *
 * Exactly once needs two things of us (SAFETY 25). What we have seen of a newer view, the header of
 * each datagram says: a new home executes only what was sent in that knowledge. And from then on no
 * answer of an older view is believed: the old home's answer, late, would be a second one.
 */
#include "client/internal.h"

void
chp_session_init(struct chp_client_shard *s)
{
	s->state = CHP_SESSION_NONE;
	s->id = 0;
	s->next = s->lowest = 1;
	s->outstanding = 0;
	s->stuck = false;
	s->scout[0] = s->scout[1] = NULL;
	s->epoch = 0;
}

static void
open_session(struct chaapar *c, uint32_t shard)
{
	struct chp_client_shard *s = &c->shard[shard];
	struct chp_call *call = chp_session_call(c, shard);

	chp_session_init(s);
	s->state = CHP_SESSION_OPENING;
	chp_call_start_own(call, CHP_OPCODE_SESSION_OPEN, shard);
	call->node = chp_peer_choose(c, shard, call->submit_ns);
	call->arg = chp_random_u64(&c->random);
	chp_call_send(c, call);
}

void
chp_session_pump(struct chaapar *c, uint32_t shard, uint64_t now)
{
	struct chp_client_shard *s = &c->shard[shard];

	if (chp_list_is_empty(&s->waiting) || c->closing)
		return;
	if (s->state == CHP_SESSION_NONE)
		open_session(c, shard);
	if (s->state != CHP_SESSION_OPEN)
		return;
	if (c->peer[s->home].silent) /* as another shard's session found out: do not pay again */
		s->home = chp_peer_next(c, s->home, now);
	while (!chp_list_is_empty(&s->waiting) && s->next - s->lowest < c->info.session_window) {
		struct chp_call *call = chp_list_first(&s->waiting);

		call->number = s->next++;
		s->ring[call->number % CHP_SESSION_WINDOW_MAX] = call;
		s->outstanding++;
		chp_call_send(c, call);
	}
}

void
chp_session_lose(struct chaapar *c, uint32_t shard)
{
	struct chp_client_shard *s = &c->shard[shard];

	if (s->state != CHP_SESSION_OPEN)
		return;
	c->counters.sessions_lost++;
	s->state = s->outstanding > 0 ? CHP_SESSION_DRAINING : CHP_SESSION_NONE;
	c->dirty |= chp_bit(shard);
}

void
chp_session_abandon(struct chaapar *c, uint32_t shard)
{
	struct chp_client_shard *s = &c->shard[shard];
	struct chp_call *call = chp_session_call(c, shard);

	if (s->state != CHP_SESSION_OPENING || !chp_list_is_empty(&s->waiting) ||
	    (call->state != CHP_CALL_BACKOFF && call->state != CHP_CALL_RENEW))
		return;
	chp_call_stop(c, call);
	s->state = CHP_SESSION_NONE;
}

void
chp_session_refused(struct chaapar *c, uint32_t shard, uint8_t status)
{
	struct chp_list *waiting = &c->shard[shard].waiting;

	for (struct chp_list *l = waiting->next; l != waiting; l = l->next)
		((struct chp_call *)(void *)l)->cause = status;
}

void
chp_session_wake(struct chaapar *c, uint32_t shard, uint64_t now)
{
	struct chp_client_shard *s = &c->shard[shard];

	s->stuck = false;
	for (uint64_t n = s->lowest; n < s->next; n++) {
		struct chp_call *call = s->ring[n % CHP_SESSION_WINDOW_MAX];

		if (call == NULL)
			continue;
		if (call->state == CHP_CALL_BACKOFF ||
		    (call->state == CHP_CALL_SENT && call->node != s->home &&
		     chp_peer_is_avoided(c, call->node, now))) {
			call->expired = 0;
			chp_call_send(c, call);
		}
	}
}

void
chp_session_follow(struct chaapar *c, uint32_t shard, uint8_t node, uint64_t now)
{
	struct chp_client_shard *s = &c->shard[shard];
	bool moved = s->home != node;

	s->home = node;
	if (moved || s->stuck)
		chp_session_wake(c, shard, now);
}

void
chp_session_answer(struct chaapar *c, struct chp_call *call, const struct chp_reply_header *h,
		   const struct chp_reply_message *m)
{
	struct chp_client_shard *s = &c->shard[call->shard];
	uint64_t now = chp_client_now();

	if (call->opcode == CHP_OPCODE_SESSION_CLOSE) {
		chp_call_stop(c, call);
		s->state = CHP_SESSION_NONE;
		return;
	}
	if (m->status == CHP_STATUS_OK && m->number != 0) {
		chp_call_stop(c, call);
		s->state = CHP_SESSION_OPEN;
		s->id = m->number;
		s->home = h->node;
		s->epoch = h->epoch;
		s->heard_ns = now;
		c->counters.sessions_opened++;
		c->dirty |= chp_bit(call->shard);
		return;
	}
	/* Nobody waits any more for a session that cannot be had now. */
	if (chp_list_is_empty(&s->waiting)) {
		chp_call_stop(c, call);
		s->state = CHP_SESSION_NONE;
		return;
	}
	chp_call_release_number(c, call);
	chp_call_back_off(c, call, CHP_CALL_RENEW, CHP_CLIENT_BACKOFF_NS, now);
}

bool
chp_session_close_all(struct chaapar *c)
{
	bool any = false;

	for (uint32_t i = 0; i < c->info.shards; i++) {
		struct chp_client_shard *s = &c->shard[i];
		struct chp_call *call = chp_session_call(c, i);

		if (s->state != CHP_SESSION_OPEN)
			continue;
		any = true;
		chp_call_start_own(call, CHP_OPCODE_SESSION_CLOSE, i);
		call->in_session = true;
		call->number = s->next++;
		s->ring[call->number % CHP_SESSION_WINDOW_MAX] = call;
		s->outstanding++;
		chp_call_send(c, call);
	}
	return any;
}
