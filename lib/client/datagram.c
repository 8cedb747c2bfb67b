/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/internal.h"

#include <errno.h>
#include <string.h>

/* ---- sending ---- */

static struct sockaddr_in
address_of(const struct chaapar *c, const struct chp_call *call)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	uint8_t node = call->in_session ? c->shard[call->shard].home : call->node;

	if (call->opcode == CHP_OPCODE_INFO)
		return chp_info_address(c);
	to.sin_addr.s_addr = c->peer[node].address;
	to.sin_port = htons(
		(uint16_t)(call->control ? c->info.control_port : c->info.port_base + call->shard));
	return to;
}

/* How long to wait for an answer that nothing was lost of. */
static uint64_t
first_rto(const struct chaapar *c, const struct chp_call *call)
{
	uint8_t node = call->in_session ? c->shard[call->shard].home : call->node;
	const struct chp_client_node *p;
	uint64_t mean, longest;

	if (call->control)
		return CHP_CLIENT_RTO_NS_START;
	/* A replica never heard of answers like the preferred one, as far as anybody knows. */
	p = &c->peer[c->peer[node].srtt_ns != 0 ? node : c->node];
	if (p->srtt_ns == 0)
		return CHP_CLIENT_RTO_NS_START;
	mean = p->srtt_ns + 4 * p->var_ns;
	longest = chp_max_u64(p->max_ns, p->max_before_ns);
	longest = chp_min_u64(longest + longest / 4, mean * CHP_CLIENT_RTT_MAX_FACTOR);
	return chp_max_u64(chp_max_u64(mean, longest), CHP_CLIENT_RTO_NS_MIN) << p->shift;
}

/* How long to wait now: longer after each wait in vain, but not much for one that may be dead. */
static uint64_t
rto_of(const struct chaapar *c, const struct chp_call *call)
{
	bool scout = c->shard[call->shard].scout[call->in_session] == call;
	uint64_t rto = first_rto(c, call), max = CHP_CLIENT_RTO_NS_MAX;
	uint32_t rounds = call->expired;

	if (!call->control && c->peer[call->node].silent && !call->pinned && chp_peer_has_other(c))
		max = chp_max_u64(rto, scout ? CHP_CLIENT_SCOUT_RETRY_NS_MAX : CHP_CLIENT_RETRY_NS_MAX);
	if (call->opcode == CHP_OPCODE_INFO)
		rounds /= c->n_endpoints; /* each time it asks somebody else */
	for (uint32_t i = 0; i < rounds && rto < max; i++)
		rto *= 2;
	return chp_min_u64(rto, chp_min_u64(max, CHP_CLIENT_RTO_NS_MAX));
}

static uint32_t
write_request(uint8_t *to, const struct chp_call *call)
{
	uint32_t used = (uint32_t)sizeof(struct chp_request) + call->key_len + call->value_len;
	uint32_t len = chp_request_bytes(call->key_len, call->value_len);
	struct chp_request r = {
		.opcode = call->opcode,
		.flags = call->relaxed ? CHP_REQUEST_RELAXED : 0,
		.len = (uint16_t)len,
		.key_len = call->key_len,
		.request = call->number,
		.value_total = call->value_len,
		.arg = call->arg,
	};

	memcpy(to, &r, sizeof(r));
	if (used > sizeof(r))
		memcpy(to + sizeof(r), call->bytes, used - sizeof(r));
	memset(to + used, 0, len - used);
	return len;
}

static void
mark_sent(struct chaapar *c, struct chp_call *call, uint64_t now)
{
	if (call->in_session)
		call->node = c->shard[call->shard].home;
	chp_list_remove(&call->list);
	call->state = CHP_CALL_SENT;
	if (call->sent++ == 0) {
		call->first_ns = now;
		call->first_node = call->node;
		call->asked = call->asked_again = 0;
	}
	call->asked_again |= call->asked & chp_bit(call->node);
	call->asked |= chp_bit(call->node);
	call->sent_total++;
	call->sent_ns = now;
	chp_call_arm(c, call, now + rto_of(c, call));
}

static bool
same_address(const struct sockaddr_in *a, const struct sockaddr_in *b)
{
	return a->sin_addr.s_addr == b->sin_addr.s_addr && a->sin_port == b->sin_port;
}

/* Move calls from the head of a list into the datagram while they fit and go to the same place. */
static uint32_t
fill(struct chaapar *c, uint8_t *data, uint32_t len, struct chp_list *list,
     const struct sockaddr_in *to, uint64_t now)
{
	while (!chp_list_is_empty(list)) {
		struct chp_call *call = chp_list_first(list);
		struct sockaddr_in next = address_of(c, call);

		if (len + chp_request_bytes(call->key_len, call->value_len) > c->payload_max ||
		    !same_address(&next, to))
			break;
		len += write_request(data + len, call);
		mark_sent(c, call, now);
		if (call->control)
			break; /* the control port takes one at a time */
	}
	return len;
}

/*
 * One datagram of calls from the head of a list that go to the same place. Reads use no numbers of
 * a session, so they ride along with its writes where both go to its home.
 */
static void
build(struct chaapar *c, struct chp_list *list, uint64_t now)
{
	struct chp_client_io *io = c->io;
	const struct chp_call *call = chp_list_first(list);
	struct chp_client_shard *s = &c->shard[call->shard];
	struct sockaddr_in to = address_of(c, call);
	struct chp_request_header h = {
		.prelude = { CHP_WIRE_MAGIC, CHP_WIRE_VERSION, CHP_PACKET_REQUEST,
			     call->opcode == CHP_OPCODE_INFO ? 0 : c->info.hash },
		.session = call->in_session ? s->id : 0,
		.lowest = call->in_session ? s->lowest : 0,
		.shard = call->control ? CHP_SHARD_ANY : call->shard,
		.epoch = call->control ? 0 : (uint32_t)s->epoch,
	};
	uint8_t *data = io->out[io->out_n];
	uint32_t len;

	memcpy(data, &h, sizeof(h));
	len = fill(c, data, sizeof(h), list, &to, now);
	CHP_ASSERT_OP(len, >, sizeof(h)); /* the largest request fits the smallest payload */
	if (h.session != 0)
		len = fill(c, data, len, &s->plain, &to, now);
	CHP_ASSERT_OP(len, <=, CHP_PAYLOAD_BYTES_MAX);
	io->out_addr[io->out_n] = to;
	io->out_iov[io->out_n].iov_len = len;
	io->out_n++;
}

/* Give the kernel what was built. True when nothing is left. */
static bool
push(struct chaapar *c)
{
	struct chp_client_io *io = c->io;

	while (io->out_head < io->out_n) {
		int n = sendmmsg(c->fd, io->out_msg + io->out_head, io->out_n - io->out_head,
				 MSG_DONTWAIT);

		if (n > 0) {
			io->out_head += (uint32_t)n;
			c->counters.datagrams_sent += (uint64_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN || errno == ENOBUFS)
			return false;
		/* This one cannot be sent: it counts as lost. The rest may go elsewhere. */
		if (errno == EMSGSIZE)
			c->payload_max = CHP_PAYLOAD_BYTES_MIN;
		c->counters.send_errors++;
		io->out_head++;
	}
	io->out_head = io->out_n = 0;
	return true;
}

/* Build and send a whole list. False when the socket is full. */
static bool
send_list(struct chaapar *c, struct chp_list *list, uint64_t now)
{
	while (!chp_list_is_empty(list)) {
		if (c->io->out_n == CHP_CLIENT_BURST && !push(c))
			return false;
		build(c, list, now);
	}
	return true;
}

bool
chp_client_flush(struct chaapar *c)
{
	uint64_t now = chp_client_now();

	if (!push(c) || !send_list(c, &c->control, now))
		return false;
	while (c->dirty != 0) {
		uint32_t shard = chp_first_bit(c->dirty);
		struct chp_client_shard *s = &c->shard[shard];

		chp_session_pump(c, shard, now);
		if (!send_list(c, &s->send, now) || !send_list(c, &s->plain, now))
			return false;
		c->dirty &= ~chp_bit(shard);
	}
	return push(c);
}

/* ---- receiving ---- */

static void
on_datagram(struct chaapar *c, const uint8_t *data, uint32_t len, const struct sockaddr_in *from,
	    uint64_t now)
{
	const struct chp_reply_header *h = (const void *)data;
	uint32_t offset = sizeof(*h);

	c->counters.datagrams_received++;
	if (chp_reply_header_check(data, len, 0) != CHP_PACKET_OK) {
		c->counters.malformed++;
		return;
	}
	while (offset < len) {
		const struct chp_reply_message *m = chp_reply_next(data, len, &offset);

		if (m == NULL) {
			c->counters.malformed++;
			return;
		}
		chp_answer(c, h, m, from, now);
	}
}

int
chp_client_receive(struct chaapar *c)
{
	struct chp_client_io *io = c->io;

	for (uint32_t burst = 0; burst < CHP_CLIENT_BURSTS_MAX; burst++) {
		uint64_t now;
		int n;

		for (uint32_t i = 0; i < CHP_CLIENT_BURST; i++)
			io->in_msg[i].msg_hdr.msg_namelen = sizeof(io->in_addr[i]);
		n = recvmmsg(c->fd, io->in_msg, CHP_CLIENT_BURST, MSG_DONTWAIT, NULL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		now = chp_client_now();
		for (uint32_t i = 0; i < (uint32_t)n; i++) {
			if ((io->in_msg[i].msg_hdr.msg_flags & MSG_TRUNC) != 0 ||
			    io->in_msg[i].msg_hdr.msg_namelen != sizeof(io->in_addr[i]))
				c->counters.malformed++;
			else
				on_datagram(c, io->in[i], io->in_msg[i].msg_len, &io->in_addr[i],
					    now);
		}
		if ((uint32_t)n < CHP_CLIENT_BURST)
			return 0;
	}
	return 0;
}
