/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What an answer means for its call. An answer belongs to a write when session and number are the
 * write's, to anything else when the number is, which names slot and serial; and only when it comes
 * from a member's port where such calls go. Every other one is late and counted.
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
 * The answer to a call that was sent twice tells no time (Karn). If none but such answers come, the
 * replica has become slower than we wait: wait longer until one answers the first sending.
 */
static void
measure(struct chp_client_node *p, const struct chp_call *call, uint64_t now)
{
	if (call->state != CHP_CALL_SENT || call->control)
		return;
	if (call->sent == 1) {
		take_sample(p, now - call->sent_ns, now);
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
	chp_call_back_off(c, call, CHP_CALL_RENEW, now);
}

/* Nothing is known of this number: the same again, later. */
static void
on_later(struct chaapar *c, struct chp_call *call, uint64_t now)
{
	chp_call_back_off(c, call, CHP_CALL_BACKOFF, now);
}

static void
on_not_serving(struct chaapar *c, struct chp_call *call, uint64_t now)
{
	c->counters.not_serving++;
	if (!call->in_session && !call->pinned) {
		call->node = chp_client_next_node(c, call->node);
		if (call->opcode == CHP_OPCODE_SESSION_OPEN)
			c->shard[call->shard].home = call->node;
	}
	on_later(c, call, now);
}

static void
on_redirect(struct chaapar *c, struct chp_call *call, uint64_t node, uint64_t now)
{
	c->counters.redirects++;
	if (node >= CHP_NODES_MAX || (c->members & chp_bit((uint32_t)node)) == 0) {
		chp_info_fetch(c, now); /* a member that we have not heard of */
		on_later(c, call, now);
		return;
	}
	if (call->pinned || ++call->hops > CHP_CLIENT_HOPS_MAX) {
		on_later(c, call, now);
		return;
	}
	call->node = (uint8_t)node;
	if (call->in_session || call->opcode == CHP_OPCODE_SESSION_OPEN)
		c->shard[call->shard].home = (uint8_t)node;
	chp_call_send(c, call);
}

/*
 * The session expired or was never known there. A call that was sent once was refused by this
 * answer; one that was sent more often may have been executed before the session went.
 */
static void
on_session_unknown(struct chaapar *c, struct chp_call *call, const struct chp_reply_header *h,
		   const struct chp_reply_message *m, uint64_t now)
{
	struct chp_client_shard *s = &c->shard[call->shard];
	uint8_t home = s->home;

	if (!call->in_session) {
		chp_call_finish(c, call, CHAAPAR_BAD_REQUEST, m, h->node);
		return;
	}
	chp_session_lose(c, call->shard);
	s->home = home; /* it answers: the next session can be there too */
	if (call->sent > 1) {
		chp_call_finish(c, call, CHAAPAR_UNKNOWN, m, h->node);
		return;
	}
	chp_call_release_number(c, call);
	if (++call->hops > CHP_CLIENT_HOPS_MAX)
		chp_call_back_off(c, call, CHP_CALL_RENEW, now);
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

/* Refusals after which the call goes on. They mean something only while an answer is awaited. */
static void
on_refusal(struct chaapar *c, struct chp_call *call, const struct chp_reply_header *h,
	   const struct chp_reply_message *m, uint64_t now)
{
	if (call->state != CHP_CALL_SENT) {
		c->counters.late++;
		return;
	}
	call->cause = m->status;
	call->expired = 0;
	switch (m->status) {
	case CHP_STATUS_OVERLOAD:
		c->counters.overload++;
		on_later(c, call, now);
		break;
	case CHP_STATUS_SESSION_WINDOW:
		on_later(c, call, now);
		break;
	case CHP_STATUS_REDIRECT:
		on_redirect(c, call, m->number, now);
		break;
	case CHP_STATUS_NOT_SERVING:
		on_not_serving(c, call, now);
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
	else if (call->own)
		chp_session_answer(c, call, m);
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
		on_final(c, call, h, m);
		break;
	}
}

void
chp_answer(struct chaapar *c, const struct chp_reply_header *h, const struct chp_reply_message *m,
	   const struct sockaddr_in *from, uint64_t now)
{
	bool numbered =
		h->session != 0 && m->opcode != CHP_OPCODE_GET && m->opcode != CHP_OPCODE_PING;
	struct chp_call *call = numbered ? find_in_session(c, h, m) : find_plain(c, m);

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
	if (h->node < CHP_NODES_MAX) {
		c->peer[h->node].heard_ns = now;
		measure(&c->peer[h->node], call, now);
	}
	if (call->in_session)
		c->shard[call->shard].heard_ns = now;
	if (call->opcode == CHP_OPCODE_SESSION_OPEN && m->status != CHP_STATUS_OK)
		chp_session_refused(c, call->shard, m->status);
	dispatch(c, call, h, m, now);
}
