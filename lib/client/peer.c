/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which member to ask. One that is silent costs a time-out each time that it is asked, so it is
 * asked nothing but whether it is back, by a probe that no request waits for. One that says that it
 * does not serve costs a round trip: after a while a request tries it again.
 */
#include "client/internal.h"

bool
chp_peer_has_other(const struct chaapar *c)
{
	return !c->options.only_node && chp_count_bits(c->members) > 1;
}

/* Whether a call may go there without fear. */
static bool
is_good(const struct chp_client_node *p, uint64_t now)
{
	return p->avoid_ns == 0 || (!p->silent && p->avoid_ns <= now);
}

bool
chp_peer_is_avoided(const struct chaapar *c, uint8_t node, uint64_t now)
{
	return !is_good(&c->peer[node], now);
}

uint8_t
chp_peer_next(const struct chaapar *c, uint8_t node, uint64_t now)
{
	uint64_t upto = (chp_bit(node) << 1) - 1; /* the members up to this one come last */
	uint64_t round[2] = { c->members & ~upto, c->members & upto & ~chp_bit(node) };
	uint8_t due = node, any = node;

	if (c->options.only_node)
		return c->node;
	for (uint32_t i = 0; i < 2; i++) {
		for (uint64_t left = round[i]; left != 0; left &= left - 1) {
			uint8_t at = (uint8_t)chp_first_bit(left);

			if (is_good(&c->peer[at], now))
				return at;
			if (due == node && c->peer[at].avoid_ns <= now)
				due = at;
			if (any == node)
				any = at;
		}
	}
	return due != node ? due : any;
}

static void
probe(struct chaapar *c, uint8_t node, uint32_t shard)
{
	struct chp_call *call = chp_probe_call(c);

	if (call->state != CHP_CALL_FREE)
		return;
	chp_call_start_own(call, CHP_OPCODE_PING, shard);
	call->pinned = true;
	call->node = node;
	chp_call_send(c, call);
}

uint8_t
chp_peer_choose(struct chaapar *c, uint32_t shard, uint64_t now)
{
	const struct chp_client_node *p = &c->peer[c->node];
	bool due = p->avoid_ns <= now, silent = p->silent;

	if (p->avoid_ns == 0 || !chp_peer_has_other(c))
		return c->node;
	if (due) { /* one of those who ask finds out; the answer takes this back */
		chp_peer_failed(c, c->node, silent, now);
		if (!silent)
			return c->node;
		probe(c, c->node, shard);
	}
	return chp_peer_next(c, c->node, now);
}

void
chp_peer_failed(struct chaapar *c, uint8_t node, bool silent, uint64_t now)
{
	struct chp_client_node *p = &c->peer[node];

	if (silent && !p->silent)
		c->counters.failovers++;
	p->silent = p->silent || silent;
	if (p->avoid_ns > now)
		return; /* others of the same round trip have said so */
	p->avoid_ns = now + (CHP_CLIENT_AVOID_NS << p->failures);
	if (p->failures < CHP_CLIENT_AVOID_SHIFT_MAX)
		p->failures++;
}

void
chp_peer_heard(struct chaapar *c, uint8_t node, const struct chp_reply_message *m, uint64_t now)
{
	struct chp_client_node *p = &c->peer[node];
	bool was_silent = p->silent;

	p->heard_ns = now;
	p->silent = false;
	if (m->status == CHP_STATUS_NOT_SERVING) {
		chp_peer_failed(c, node, false, now);
	} else if (m->opcode != CHP_OPCODE_PING) {
		p->avoid_ns = 0;
		p->failures = 0;
	} else if (was_silent) {
		p->avoid_ns = 0; /* it lives; whether it serves is for a request to find out */
	}
}
