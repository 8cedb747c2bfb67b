/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/control.h"

#include "base/assert.h"

/* A ballot names a member that proposes, in a round that exists. */
static bool
check_ballot(uint64_t ballot, uint32_t nodes)
{
	uint64_t round = ballot >> 8;

	return round != 0 && round <= CHP_CONTROL_ROUND_MAX && (ballot & 0xff) < nodes;
}

/* What is agreed on is what follows the sender's view; a sender without a view agrees on nothing. */
static bool
check_epoch(const struct chp_control_header *h, uint64_t epoch)
{
	return h->epoch != 0 && h->epoch != UINT64_MAX && epoch == h->epoch + 1;
}

/* The ballots of a view fit its type: only a proposal has one, only a promise two. */
static bool
check_ballots(const struct chp_control_view *v, uint32_t nodes)
{
	switch (v->header.type) {
	case CHP_CONTROL_ACCEPT:
		return check_epoch(&v->header, v->epoch) && check_ballot(v->ballot, nodes) &&
		       (v->ballot & 0xff) == v->header.from && v->accepted == 0;
	case CHP_CONTROL_PROMISE:
		return check_epoch(&v->header, v->epoch) && check_ballot(v->ballot, nodes) &&
		       check_ballot(v->accepted, nodes) && v->accepted <= v->ballot;
	default:
		return v->ballot == 0 && v->accepted == 0;
	}
}

/* The masks, members and length of a view fit each other and the cluster. */
static bool
check_view(const struct chp_control_view *v, uint32_t len, uint32_t nodes)
{
	const struct chp_control_member *member = chp_control_view_members(v);
	uint64_t live = v->voters | v->learners;

	if (len < sizeof(*v) || v->n_members != nodes || len != chp_control_view_bytes(nodes))
		return false;
	if (v->epoch == 0 || v->voters == 0 || (v->voters & v->learners) != 0 || (v->sources & ~live) != 0)
		return false;
	if (nodes < CHP_NODES_MAX && live >> nodes != 0)
		return false;
	for (uint32_t i = 0; i < nodes; i++)
		if ((member[i].incarnation != 0) != ((live & chp_bit(i)) != 0))
			return false;
	return check_ballots(v, nodes);
}

/* PREPARE, ACCEPTED, REJECTED and a PROMISE without a view. */
static bool
check_answer(const struct chp_control_ballot *b, uint32_t len, uint32_t nodes)
{
	if (len != sizeof(*b) || !check_epoch(&b->header, b->epoch) ||
	    !check_ballot(b->ballot, nodes))
		return false;
	return b->header.type != CHP_CONTROL_PREPARE || (b->ballot & 0xff) == b->header.from;
}

static bool
check_heartbeat(const struct chp_control_heartbeat *h, uint32_t len)
{
	return len == sizeof(*h) && h->sent_ns != 0 && (h->flags & ~CHP_HEARTBEAT_FLAGS_ALL) == 0;
}

static bool
check_grant(const struct chp_control_grant *g, uint32_t len)
{
	return len == sizeof(*g) && g->sent_ns != 0 && g->lease_ns != 0;
}

static bool
check_refused(const struct chp_control_refused *r, uint32_t len)
{
	return len == sizeof(*r) && r->reason != 0 && r->reason < CHP_REFUSED_REASONS;
}

static bool
check_hello(const struct chp_control_hello *h, uint32_t len)
{
	if (len < sizeof(*h) || h->n_members == 0 || h->n_members > CHP_NODES_MAX ||
	    (h->flags & ~CHP_HELLO_FLAGS_ALL) != 0 || h->recorded_min > h->recorded_max)
		return false;
	if (h->payload_bytes < CHP_PAYLOAD_BYTES_MIN || h->payload_bytes > CHP_PAYLOAD_BYTES_MAX)
		return false;
	return len == (h->header.type == CHP_CONTROL_HELLO ? h->payload_bytes : sizeof(*h));
}

static bool
check_body(const struct chp_control_header *h, uint32_t len, uint32_t nodes)
{
	switch (h->type) {
	case CHP_CONTROL_HELLO:
	case CHP_CONTROL_HELLO_SHORT:
		return check_hello((const void *)h, len);
	case CHP_CONTROL_FOUNDING:
	case CHP_CONTROL_DECIDED:
	case CHP_CONTROL_ACCEPT:
		return check_view((const void *)h, len, nodes);
	case CHP_CONTROL_REFUSED:
		return check_refused((const void *)h, len);
	case CHP_CONTROL_HEARTBEAT:
		return check_heartbeat((const void *)h, len);
	case CHP_CONTROL_GRANT:
		return check_grant((const void *)h, len);
	case CHP_CONTROL_PROMISE:
		if (len != sizeof(struct chp_control_ballot))
			return check_view((const void *)h, len, nodes);
		return check_answer((const void *)h, len, nodes);
	case CHP_CONTROL_PREPARE:
	case CHP_CONTROL_ACCEPTED:
	case CHP_CONTROL_REJECTED:
		return check_answer((const void *)h, len, nodes);
	default:
		return false;
	}
}

enum chp_packet_error
chp_control_check(const void *data, uint32_t len, uint32_t hash, uint32_t nodes)
{
	const struct chp_control_header *h = data;
	enum chp_packet_error e = chp_sealed_check(data, len, CHP_PACKET_CONTROL, sizeof(*h), hash);

	if (e != CHP_PACKET_OK)
		return e;
	if (h->tag_len != 0)
		return CHP_PACKET_AUTH;
	if (h->from >= nodes || h->to >= nodes || h->from == h->to)
		return CHP_PACKET_NODE;
	if (h->from_incarnation == 0 || !check_body(h, len, nodes))
		return CHP_PACKET_MESSAGE;
	return CHP_PACKET_OK;
}

void
chp_control_seal(void *data, uint32_t len)
{
	struct chp_control_header *h = data;

	CHP_ASSERT_OP(len, >=, sizeof(*h));
	h->crc32c = chp_peer_crc(data, len);
}
