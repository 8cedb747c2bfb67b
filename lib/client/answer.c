/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What an answer means for its call. An answer belongs to a write when session and number are the
 * write's, to anything else when the number is, which names slot and serial; and only when it comes
 * from a member's port where such calls go. Every other one is late and counted. An answer to a write
 * that comes from a view before the newest that its session has heard of is not believed (SAFETY 25).
 */
#include "client/internal.h"

static struct chp_call *
find_in_session(struct chaapar *c, const struct chp_reply_header *h,
		const struct chp_reply_message *m)
{
	const struct chp_client_shard *s;
	struct chp_call *call;

	if (h->shard >= c->info.shards)
		return NULL;
	s = &c->shard[h->shard];
	if (h->session != s->id || m->request < s->lowest || m->request >= s->next)
		return NULL;
	call = s->ring[m->request % CHP_SESSION_WINDOW_MAX];
	return call != NULL && call->number == m->request ? call : NULL;
}

static struct chp_call *
find_plain(struct chaapar *c, const struct chp_reply_message *m)
{
	uint64_t slot = m->request & ((UINT64_C(1) << CHP_CLIENT_SLOT_BITS) - 1);
	struct chp_call *call;

	if (slot >= (uint64_t)c->options.in_flight_max + CHP_CLIENT_SLOTS_EXTRA)
		return NULL;
	call = &c->call[slot];
	if (call->state == CHP_CALL_FREE || call->in_session || call->number != m->request)
		return NULL;
	return call;
}

static bool
is_source(const struct chaapar *c, const struct chp_call *call, const struct chp_reply_header *h,
	  const struct sockaddr_in *from)
{
	uint32_t port = call->control ? c->info.control_port : c->info.port_base + call->shard;

	if (call->opcode == CHP_OPCODE_INFO)
		return chp_info_is_source(c, from);
	return h->node < CHP_NODES_MAX && (c->members & chp_bit(h->node)) != 0 &&
	       c->peer[h->node].address == from->sin_addr.s_addr && ntohs(from->sin_port) == port;
}

/* RFC 6298's mean and deviation, and the longest of the last one to two windows. */
static void
take_sample(struct chp_client_node *p, uint64_t rtt_ns, uint64_t now)
{
	uint64_t off = rtt_ns > p->srtt_ns ? rtt_ns - p->srtt_ns : p->srtt_ns - rtt_ns;

	if (now - p->window_ns > CHP_CLIENT_RTT_WINDOW_NS) {
		p->max_before_ns = p->max_ns;
		p->max_ns = 0;
		p->window_ns = now;
	}
	p->max_ns = chp_max_u64(p->max_ns, rtt_ns);
	if (p->srtt_ns == 0) {
		p->srtt_ns = chp_max_u64(rtt_ns, 1);
		p->var_ns = rtt_ns / 2;
		return;
	}
	p->var_ns = p->var_ns - p->var_ns / 4 + off / 4;
	p->srtt_ns = chp_max_u64(p->srtt_ns - p->srtt_ns / 8 + rtt_ns / 8, 1);
}

/*
 * The answer of a replica that was asked twice tells no time (Karn). If none but such answers come, it
 * has become slower than we wait: wait longer until it answers when it was asked once.
 */
static void
measure(struct chaapar *c, uint8_t node, const struct chp_call *call, uint64_t now)
{
	struct chp_client_node *p = &c->peer[node];

	if (call->state != CHP_CALL_SENT || (call->asked & chp_bit(node)) == 0)
		return;
	if ((call->asked_again & chp_bit(node)) == 0 &&
	    (node == call->node || node == call->first_node)) {
		take_sample(p, now - (node == call->node ? call->sent_ns : call->first_ns), now);
		p->shift = 0;
		p->sampled_ns = now;
	} else if (p->sampled_ns < call->first_ns) {
		p->shift = chp_min_u32(p->shift + 1, CHP_CLIENT_RTO_SHIFT_MAX);
		p->sampled_ns = now; /* those that travel together with this one count once */
	}
}

/* Certainly not applied under this number, which is burnt: try again with another one. */
static void
on_busy(struct chaapar *c, struct chp_call *call, uint64_t now)
{
	c->counters.busy++;
	call->cause = CHAAPAR_BUSY;
	chp_call_release_number(c, call);
	chp_call_back_off(c, call, CHP_CALL_RENEW, CHP_CLIENT_BACKOFF_NS, now);
}

/* Nothing is known of this number: the same again, later. */
static void
on_later(struct chaapar *c, struct chp_call *call, uint64_t now)
{
	chp_call_back_off(c, call, CHP_CALL_BACKOFF, CHP_CLIENT_BACKOFF_NS, now);
}

/* Nobody serves it, as far as we know. One call of many finds out when that is over. */
static void
on_nobody(struct chaapar *c, struct chp_call *call, uint64_t now)
{
	uint64_t unit_ns = chp_call_scouts(c, call) ? CHP_CLIENT_SCOUT_NS : CHP_CLIENT_BACKOFF_NS;
	struct chp_client_shard *s = &c->shard[call->shard];

	s->stuck = s->stuck || call->in_session;
	chp_call_back_off(c, call, CHP_CALL_BACKOFF, unit_ns, now);
}

/*
 * Who was asked does not serve: ask the next member, under the same number. At once if it is not known
 * to be in trouble too.
 */
static void
elsewhere(struct chaapar *c, struct chp_call *call, uint64_t now)
{
	struct chp_client_shard *s = &c->shard[call->shard];
	uint8_t node = call->node, next;

	if (call->pinned) {
		on_later(c, call, now);
		return;
	}
	chp_peer_failed(c, node, false, now);
	next = chp_peer_next(c, node, now);
	if (!call->in_session)
		call->node = next;
	else if (s->home == node)
		s->home = next;
	else
		next = s->home;
	if (next != node && !chp_peer_is_avoided(c, next, now) &&
	    ++call->hops <= CHP_CLIENT_HOPS_MAX) {
		chp_call_send(c, call);
		return;
	}
	on_nobody(c, call, now);
}

/*
 * That node executes it: the session's home, the shard's leader; or this one does and wants to see that we
 * know of its epoch. If that node is silent, whoever names it has not noticed yet: the scout tries it.
 */
static void
on_redirect(struct chaapar *c, struct chp_call *call, uint64_t node, uint64_t now)
{
	bool silent;

	c->counters.redirects++;
	if (node >= CHP_NODES_MAX || (c->members & chp_bit((uint32_t)node)) == 0) {
		chp_info_fetch(c, now); /* a member that we have not heard of */
		on_later(c, call, now);
		return;
	}
	if (call->pinned) {
		on_later(c, call, now);
		return;
	}
	silent = c->peer[node].silent;
	if (!call->in_session)
		call->node = (uint8_t)node;
	else if (silent)
		c->shard[call->shard].home = (uint8_t)node;
	else
		chp_session_follow(c, call->shard, (uint8_t)node, now);
	if (++call->hops <= CHP_CLIENT_HOPS_MAX && (!silent || chp_call_scouts(c, call)))
		chp_call_send(c, call);
	else
		on_nobody(c, call, now);
}

/*
 * The session expired or was never known there. A call that was sent once was refused by this
 * answer; one that was sent more often may have been executed before the session went.
 */
static void
on_session_unknown(struct chaapar *c, struct chp_call *call, const struct chp_reply_header *h,
		   const struct chp_reply_message *m, uint64_t now)
{
	if (!call->in_session) {
		chp_call_finish(c, call, CHAAPAR_BAD_REQUEST, m, h->node);
		return;
	}
	chp_session_lose(c, call->shard);
	if (call->sent > 1) {
		chp_call_finish(c, call, CHAAPAR_UNKNOWN, m, h->node);
		return;
	}
	chp_call_release_number(c, call);
	call->expired = 0;
	if (++call->hops > CHP_CLIENT_HOPS_MAX)
		chp_call_back_off(c, call, CHP_CALL_RENEW, CHP_CLIENT_BACKOFF_NS, now);
	else
		chp_call_wait(c, call);
}

/* Refused before anything else, and the key will never belong there: only our picture is wrong. */
static void
on_wrong_shard(struct chaapar *c, struct chp_call *call, const struct chp_reply_header *h,
	       const struct chp_reply_message *m, uint64_t now)
{
	if (call->pinned || ++call->hops > CHP_CLIENT_HOPS_MAX) {
		chp_call_finish(c, call, CHAAPAR_WRONG_SHARD, m, h->node);
		return;
	}
	chp_call_release_number(c, call);
	chp_list_remove(&call->list);
	call->state = CHP_CALL_PARKED;
	chp_list_add_tail(&c->parked, &call->list);
	chp_call_arm(c, call, CHP_NEVER);
	chp_info_fetch(c, now);
}

/* Whether a refusal is about the sender and not about the request. */
static bool
is_about_sender(uint8_t status)
{
	return status == CHP_STATUS_OVERLOAD || status == CHP_STATUS_REDIRECT ||
	       status == CHP_STATUS_NOT_SERVING;
}

/*
 * Refusals after which the call goes on. They mean something only while an answer is awaited, and what
 * is about one replica only while that one is asked. None says anything about earlier sendings.
 */
static void
on_refusal(struct chaapar *c, struct chp_call *call, const struct chp_reply_header *h,
	   const struct chp_reply_message *m, uint64_t now)
{
	if (call->state != CHP_CALL_SENT ||
	    (is_about_sender(m->status) && h->node != call->node)) {
		c->counters.late++;
		return;
	}
	call->cause = m->status;
	switch (m->status) {
	case CHP_STATUS_OVERLOAD:
		c->counters.overload++;
		call->expired = 0;
		on_later(c, call, now);
		break;
	case CHP_STATUS_SESSION_WINDOW:
		call->expired = 0;
		on_later(c, call, now);
		break;
	case CHP_STATUS_REDIRECT:
		on_redirect(c, call, m->number, now);
		break;
	case CHP_STATUS_NOT_SERVING:
		c->counters.not_serving++;
		elsewhere(c, call, now);
		break;
	case CHP_STATUS_SESSION_UNKNOWN:
		on_session_unknown(c, call, h, m, now);
		break;
	default:
		CHP_ASSERT_OP(m->status, ==, CHP_STATUS_WRONG_SHARD);
		on_wrong_shard(c, call, h, m, now);
		break;
	}
}

static void
on_final(struct chaapar *c, struct chp_call *call, const struct chp_reply_header *h,
	 const struct chp_reply_message *m)
{
	/* A status of a later version: whatever it means for a write, we cannot tell. */
	enum chaapar_status status =
		m->status < CHP_STATUS_COUNT ? (enum chaapar_status)m->status : CHAAPAR_UNKNOWN;

	if (call->opcode == CHP_OPCODE_INFO)
		chp_info_answer(c, m);
	else if (call->own && call->opcode == CHP_OPCODE_PING)
		chp_call_stop(c, call); /* that it answered is all */
	else if (call->own)
		chp_session_answer(c, call, h, m);
	else
		chp_call_finish(c, call, status, m, h->node);
}

/* Whether an answer ends what the library itself asked: only opening a session is tried again. */
static bool
is_final_for_own(const struct chp_call *call, uint8_t status)
{
	if (!call->own)
		return false;
	return call->opcode != CHP_OPCODE_SESSION_OPEN || status == CHP_STATUS_SESSION_UNKNOWN ||
	       status == CHP_STATUS_WRONG_SHARD;
}

static void
dispatch(struct chaapar *c, struct chp_call *call, const struct chp_reply_header *h,
	 const struct chp_reply_message *m, uint64_t now)
{
	if (is_final_for_own(call, m->status)) {
		on_final(c, call, h, m);
		return;
	}
	switch (m->status) {
	case CHP_STATUS_BUSY:
		if (call->in_session)
			chp_session_follow(c, call->shard, h->node, now);
		on_busy(c, call, now);
		break;
	case CHP_STATUS_OVERLOAD:
	case CHP_STATUS_SESSION_WINDOW:
	case CHP_STATUS_SESSION_UNKNOWN:
	case CHP_STATUS_REDIRECT:
	case CHP_STATUS_NOT_SERVING:
	case CHP_STATUS_WRONG_SHARD:
		on_refusal(c, call, h, m, now);
		break;
	default:
		if (call->in_session)
			chp_session_follow(c, call->shard, h->node, now);
		chp_call_served(c, call, h->node, now);
		on_final(c, call, h, m);
		break;
	}
}

/*
 * [SAFETY 25] Whether an answer to a session's request may be believed: not when it was given in a view
 * before one that we have heard of. From our next datagram on the home of the newer view executes the
 * request if nobody had; what the older one's answer reports, a failed comparison say, is then not
 * what happened.
 */
static bool
is_of_today(struct chaapar *c, struct chp_call *call, const struct chp_reply_header *h,
	    const struct chp_reply_message *m, uint64_t now)
{
	struct chp_client_shard *s = &c->shard[call->shard];

	if (h->epoch >= s->epoch) {
		bool newer = h->epoch > s->epoch;

		s->epoch = h->epoch;
		s->heard_ns = now;
		if (newer) {
			call->expired = 0;
			chp_session_wake(c, call->shard, now);
		}
		return true;
	}
	c->counters.stale++;
	s->stale_ns = now;
	if (call->state != CHP_CALL_SENT || call->node != h->node)
		return false;
	if (m->status == CHP_STATUS_NOT_SERVING) {
		c->counters.not_serving++;
		call->cause = m->status;
	}
	if (m->status == CHP_STATUS_OVERLOAD) { /* true in any view, and no reason to ask others */
		c->counters.overload++;
		call->cause = m->status;
		on_later(c, call, now);
	} else {
		elsewhere(c, call, now);
	}
	return false;
}

/* Whether requests of this kind have a number of the session whose datagram they are in. */
static bool
is_numbered(uint8_t opcode)
{
	return opcode != CHP_OPCODE_GET && opcode != CHP_OPCODE_PING && opcode != CHP_OPCODE_QUORUM;
}

void
chp_answer(struct chaapar *c, const struct chp_reply_header *h, const struct chp_reply_message *m,
	   const struct sockaddr_in *from, uint64_t now)
{
	struct chp_call *call = h->session != 0 && is_numbered(m->opcode) ? find_in_session(c, h, m) : find_plain(c, m);

	if (call == NULL || call->opcode != m->opcode || call->sent == 0 ||
	    !is_source(c, call, h, from)) {
		c->counters.late++;
		return;
	}
	/* Only INFO may come from a cluster of another shape: that is how we learn of it. */
	if (call->opcode != CHP_OPCODE_INFO && h->prelude.cluster_hash != c->info.hash) {
		c->counters.malformed++;
		return;
	}
	if (!call->control) { /* the control port answers also when no shard does */
		measure(c, h->node, call, now);
		chp_peer_heard(c, h->node, m, now);
	}
	if (call->in_session && !is_of_today(c, call, h, m, now))
		return;
	if (call->opcode == CHP_OPCODE_SESSION_OPEN && m->status != CHP_STATUS_OK)
		chp_session_refused(c, call->shard, m->status);
	dispatch(c, call, h, m, now);
}
