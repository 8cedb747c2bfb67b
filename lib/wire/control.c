/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/control.h"

#include "base/assert.h"

/* The masks, members and length of ACCEPTED and DECIDED fit each other and the cluster. */
static bool
check_view(const struct chp_control_view *v, uint32_t len, uint32_t nodes)
{
	const struct chp_control_member *member = chp_control_view_members(v);
	uint64_t live = v->voters | v->learners;

	if (len < sizeof(*v) || v->n_members != nodes || len != chp_control_view_bytes(nodes))
		return false;
	if (v->epoch == 0 || v->voters == 0 || (v->voters & v->learners) != 0)
		return false;
	if (nodes < CHP_NODES_MAX && live >> nodes != 0)
		return false;
	for (uint32_t i = 0; i < nodes; i++)
		if ((member[i].incarnation != 0) != ((live & chp_bit(i)) != 0))
			return false;
	return true;
}

static bool
check_hello(const struct chp_control_hello *h, uint32_t len)
{
	if (len < sizeof(*h) || h->n_members == 0 || h->n_members > CHP_NODES_MAX ||
	    (h->flags & ~CHP_HELLO_FLAGS_ALL) != 0)
		return false;
	if (h->payload_bytes < CHP_PAYLOAD_BYTES_MIN || h->payload_bytes > CHP_PAYLOAD_BYTES_MAX)
		return false;
	return len == (h->header.type == CHP_CONTROL_HELLO ? h->payload_bytes : sizeof(*h));
}

static bool
check_body(const struct chp_control_header *h, uint32_t len, uint32_t nodes)
{
	const struct chp_control_refused *refused = (const void *)h;

	switch (h->type) {
	case CHP_CONTROL_HELLO:
	case CHP_CONTROL_HELLO_SHORT:
		return check_hello((const void *)h, len);
	case CHP_CONTROL_ACCEPTED:
	case CHP_CONTROL_DECIDED:
		return check_view((const void *)h, len, nodes);
	case CHP_CONTROL_REFUSED:
		return len == sizeof(*refused) && refused->reason != 0 &&
		       refused->reason < CHP_REFUSED_REASONS;
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
