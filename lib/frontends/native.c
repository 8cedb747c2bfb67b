/* SPDX-License-Identifier: BSD-3-Clause */
#include "frontends/native.h"

#include "base/assert.h"
#include "base/digest.h"

#include <string.h>

_Static_assert(CHP_ARRAY_LEN(((struct chp_native *)0)->recent) == CHP_NATIVE_RECENT, "hints");

/* Where the hint for a client's datagram stands: any function would do, a wrong hint costs a datagram. */
static uint32_t
hint_of(const uint8_t address[20], uint64_t session)
{
	uint64_t a;

	memcpy(&a, address, sizeof(a));
	a = (a ^ session) * UINT64_C(0x9e3779b97f4a7c15);
	return (uint32_t)(a >> 56) % CHP_NATIVE_RECENT;
}

static struct chp_native_datagram *
open_datagram(struct chp_native *f, const uint8_t address[20], uint64_t session)
{
	struct chp_native_datagram *d;
	struct chp_reply_header *h;

	CHP_ASSERT_OP(f->n_used, <, f->n_datagrams);
	d = &f->datagram[f->n_used++];
	CHP_ASSERT_OP(d->cap, >=, CHP_PAYLOAD_BYTES_MIN);
	memcpy(d->address, address, sizeof(d->address));
	d->session = session;
	h = (void *)d->data;
	*h = (struct chp_reply_header){
		.prelude = { .magic = CHP_WIRE_MAGIC,
			     .version = CHP_WIRE_VERSION,
			     .kind = CHP_PACKET_REPLY,
			     .cluster_hash = f->cluster_hash },
		.session = session,
		.epoch = f->epoch,
		.shard = (uint16_t)f->shard,
		.node = (uint8_t)f->node,
	};
	d->len = sizeof(*h);
	return d;
}

/* The datagram that a reply of `bytes` goes to: the client's open one while it has room. */
static struct chp_native_datagram *
datagram_for(struct chp_native *f, const uint8_t address[20], uint64_t session, uint32_t bytes)
{
	uint8_t *hint = &f->recent[hint_of(address, session)];

	if (*hint < f->n_used) {
		struct chp_native_datagram *d = &f->datagram[*hint];

		if (d->session == session && d->cap - d->len >= bytes &&
		    memcmp(d->address, address, sizeof(d->address)) == 0)
			return d;
	}
	if (f->n_used <= UINT8_MAX)
		*hint = (uint8_t)f->n_used;
	return open_datagram(f, address, session);
}

uint8_t *
chp_native_reply(void *frontend, const struct chp_reply *r)
{
	struct chp_native *f = frontend;
	uint32_t bytes = chp_reply_bytes(r->value_len);
	struct chp_native_datagram *d;
	struct chp_reply_message *m;

	CHP_ASSERT_OP(r->value_len, <=, CHP_VALUE_BYTES_MAX);
	d = datagram_for(f, r->origin->address, r->session, bytes);
	m = (void *)(d->data + d->len);
	d->len += bytes;
	if (bytes > sizeof(*m)) /* the zeros behind the value; the caller writes over the rest */
		memset((uint8_t *)m + bytes - CHP_MESSAGE_ALIGN, 0, CHP_MESSAGE_ALIGN);
	*m = (struct chp_reply_message){
		.opcode = r->opcode,
		.status = r->status,
		.flags = r->is_relaxed ? CHP_REPLY_RELAXED : 0,
		.len = (uint16_t)bytes,
		.request = r->request,
		.value_total = r->value_len,
		.version = r->version,
		.number = r->number,
	};
	return (uint8_t *)(m + 1);
}

/* Answer a request without asking the shard. */
static void
answer(struct chp_native *f, const uint8_t address[20], uint64_t session, const struct chp_request *r,
       enum chp_status status)
{
	struct chp_origin origin;
	struct chp_reply reply = {
		.origin = &origin,
		.session = session,
		.request = r->request,
		.opcode = r->opcode,
		.status = (uint8_t)status,
	};

	memcpy(origin.address, address, sizeof(origin.address));
	origin.frontend = 0;
	if (status == CHP_STATUS_WRONG_SHARD) {
		uint32_t right = chp_shard_of(
			chp_digest_of(chp_request_key(r), r->key_len, f->hash_seed), f->shards);

		reply.number = (uint64_t)f->shards << 32 | (r->key_len > 0 ? right : 0);
		reply.version = f->hash_seed;
	}
	chp_native_reply(f, &reply);
}

/* What to answer at once, or -1 for an operation that goes to the shard. */
static int
verdict(const struct chp_native *f, const struct chp_request_header *h, const struct chp_request *r)
{
	enum chp_status s = chp_request_check(r, f->key_bytes_max, f->value_bytes_max);

	if (s != CHP_STATUS_OK)
		return (int)s;
	if (r->opcode >= CHP_OPCODE_INFO) /* the control port's */
		return CHP_STATUS_UNKNOWN_OP;
	if (r->opcode == CHP_OPCODE_PING)
		return -1; /* whether it serves is the shard's to say */
	if (h->shard != f->shard && h->shard != CHP_SHARD_ANY)
		return CHP_STATUS_WRONG_SHARD;
	return -1;
}

static void
fill_op(struct chp_op *op, const struct chp_request_header *h, const struct chp_request *r,
	const uint8_t address[20])
{
	op->key = (struct chp_key){ .bytes = chp_request_key(r), .len = r->key_len, .pos = -1 };
	op->value = chp_request_value(r);
	op->value_len = r->value_total;
	op->opcode = r->opcode;
	op->arg = r->arg;
	/* It has no number of the session that it may travel with. */
	op->session = r->opcode == CHP_OPCODE_QUORUM ? 0 : h->session;
	op->lowest = h->lowest;
	op->request = r->request;
	op->epoch = h->epoch;
	op->is_relaxed = (r->flags & CHP_REQUEST_RELAXED) != 0;
	memcpy(op->origin.address, address, sizeof(op->origin.address));
	op->origin.frontend = 0;
}

uint32_t
chp_native_parse(struct chp_native *f, const uint8_t *data, uint32_t len, uint32_t *offset,
		 const uint8_t address[20], struct chp_op *op, uint32_t cap)
{
	const struct chp_request_header *h = (const void *)data;
	uint32_t used_before = f->n_used;
	uint32_t n = 0;

	CHP_ASSERT_OP(cap, <=, chp_native_room(f));
	if (*offset == 0) {
		f->counters.datagrams++;
		*offset = sizeof(*h);
	}
	while (n + f->n_used - used_before < cap && *offset < len) {
		const struct chp_request *r = chp_request_next(data, len, offset);
		int status;

		if (r == NULL) {
			f->counters.malformed++;
			*offset = len;
			break;
		}
		f->counters.requests++;
		status = verdict(f, h, r);
		if (status < 0) {
			fill_op(&op[n++], h, r, address);
			continue;
		}
		f->counters.refused++;
		answer(f, address, h->session, r, (enum chp_status)status);
	}
	return n;
}

/* Take back the reads of one datagram; what follows a value that is gone moves up. */
static uint32_t
revoke_in(struct chp_native_datagram *d)
{
	uint32_t to = sizeof(struct chp_reply_header), revoked = 0;

	for (uint32_t from = to; from < d->len;) {
		struct chp_reply_message *m = (void *)(d->data + from);
		uint32_t len = m->len;

		from += len;
		if (m->opcode == CHP_OPCODE_GET && (m->flags & CHP_REPLY_RELAXED) == 0 &&
		    (m->status == CHP_STATUS_OK || m->status == CHP_STATUS_NOT_FOUND)) {
			m->status = CHP_STATUS_NOT_SERVING;
			m->version = m->number = 0;
			m->value_total = 0;
			len = sizeof(*m);
			m->len = sizeof(*m);
			revoked++;
		}
		memmove(d->data + to, m, len);
		to += len;
	}
	d->len = to;
	return revoked;
}

uint32_t
chp_native_revoke_reads(struct chp_native *f)
{
	uint32_t revoked = 0;

	for (uint32_t i = 0; i < f->n_used; i++)
		revoked += revoke_in(&f->datagram[i]);
	f->counters.revoked += revoked;
	return revoked;
}
