/* SPDX-License-Identifier: BSD-3-Clause */
#include "caller.h"

#include "base/assert.h"
#include "base/digest.h"

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_lcore.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t caller_mac[6] = { 2, 0, 10, 0, 0, 200 };

static void
replica_mac(uint32_t replica, uint8_t mac[6])
{
	const uint8_t m[6] = { 2, 0, 10, 0, 0, (uint8_t)(replica + 1) };

	memcpy(mac, m, sizeof(m));
}

bool
caller_start_eal(const char *lcores)
{
	const char *const words[] = { "test",          "--lcores",     lcores,          "--no-huge",
				      "--no-shconf",   "--no-pci",     "--no-telemetry", "--iova-mode=va",
				      "-m",            "1024",         "--log-level=*:error" };
	static char copy[CHP_ARRAY_LEN(words)][64];
	static char *argv[CHP_ARRAY_LEN(words) + 1];

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(words); i++) {
		(void)snprintf(copy[i], sizeof(copy[i]), "%s", words[i]);
		argv[i] = copy[i];
	}
	return rte_eal_init((int)CHP_ARRAY_LEN(words), argv) >= 0;
}

int
caller_init(struct caller *c, struct local *l)
{
	*c = (struct caller){ .l = l };
	c->pool = rte_pktmbuf_pool_create("caller", 8191, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE,
					  (int)rte_socket_id());
	c->reply = calloc(CALLER_REPLIES_MAX, sizeof(*c->reply));
	return c->pool != NULL && c->reply != NULL ? 0 : -1;
}

static void
send_mbuf(struct caller *c, struct rte_mbuf *m)
{
	while (!ring_net_send(&c->l->net, m))
		(void)local_poll(c->l);
}

void
caller_send_raw(struct caller *c, const void *frame, uint32_t len)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(c->pool);

	CHP_ASSERT(m != NULL && len <= rte_pktmbuf_tailroom(m));
	memcpy(rte_pktmbuf_append(m, (uint16_t)len), frame, len);
	send_mbuf(c, m);
}

void
caller_begin(struct caller *c, uint32_t replica, uint32_t port, uint64_t session, uint64_t lowest,
	     uint16_t shard)
{
	struct chp_request_header h = {
		.prelude = { .magic = CHP_WIRE_MAGIC,
			     .version = CHP_WIRE_VERSION,
			     .kind = CHP_PACKET_REQUEST,
			     .cluster_hash = c->l->cluster.hash },
		.session = session,
		.lowest = lowest,
		.shard = shard,
		.epoch = (uint32_t)c->epoch,
	};

	CHP_ASSERT(c->m == NULL);
	while ((c->m = rte_pktmbuf_alloc(c->pool)) == NULL)
		(void)local_poll(c->l);
	c->replica = replica;
	c->port = port;
	memcpy(rte_pktmbuf_mtod_offset(c->m, uint8_t *, CHP_FRAME_BYTES), &h, sizeof(h));
	c->payload_len = sizeof(h);
}

void
caller_add(struct caller *c, uint8_t opcode, const char *key, const char *value, uint64_t arg,
	   uint64_t request)
{
	uint32_t key_len = key != NULL ? (uint32_t)strlen(key) : 0;
	uint32_t value_len = value != NULL ? (uint32_t)strlen(value) : 0;
	struct chp_request r = {
		.opcode = opcode,
		.len = (uint16_t)chp_request_bytes(key_len, value_len),
		.key_len = (uint8_t)key_len,
		.request = request,
		.value_total = value_len,
		.arg = arg,
	};
	uint8_t *at = rte_pktmbuf_mtod_offset(c->m, uint8_t *, CHP_FRAME_BYTES + c->payload_len);

	CHP_ASSERT_OP(request, <, CALLER_REPLIES_MAX);
	CHP_ASSERT_OP(c->payload_len + r.len, <=, CHP_PAYLOAD_BYTES_MIN);
	c->reply[request] = (struct caller_reply){ 0 };
	memset(at, 0, r.len);
	memcpy(at, &r, sizeof(r));
	if (key_len > 0)
		memcpy(at + sizeof(r), key, key_len);
	if (value_len > 0)
		memcpy(at + sizeof(r) + key_len, value, value_len);
	c->payload_len += r.len;
}

uint8_t *
caller_finish(struct caller *c)
{
	const struct chp_frame_from from = {
		.mac = { caller_mac[0], caller_mac[1], caller_mac[2], caller_mac[3], caller_mac[4],
			 caller_mac[5] },
		.address = CALLER_ADDRESS,
	};
	struct chp_address to = {
		.ip = chp_be32(0x0a000001u + c->replica),
		.port = chp_be16((uint16_t)(c->l->cluster.port_base + c->port)),
		.local_port = chp_be16(CALLER_PORT),
	};
	uint8_t *frame = rte_pktmbuf_mtod(c->m, uint8_t *);

	replica_mac(c->replica, to.mac);
	c->m->data_len = (uint16_t)(CHP_FRAME_BYTES + c->payload_len);
	c->m->pkt_len = c->m->data_len;
	chp_frame_build(frame, c->payload_len, &from, &to, true);
	return frame;
}

void
caller_send(struct caller *c)
{
	struct rte_mbuf *m = c->m;

	(void)caller_finish(c);
	c->m = NULL;
	send_mbuf(c, m);
}

static void
take_reply(struct caller *c, const struct chp_reply_header *h, const struct chp_reply_message *m)
{
	struct caller_reply *r = &c->reply[m->request];

	r->there = true;
	r->times++;
	r->status = m->status;
	r->opcode = m->opcode;
	r->node = h->node;
	c->epoch = h->epoch > c->epoch ? h->epoch : c->epoch;
	r->shard = h->shard;
	r->version = m->version;
	r->number = m->number;
	r->value_len = m->value_total;
	memcpy(r->value, chp_reply_value(m), m->value_total);
	c->n_replies++;
}

static void
take_frame(struct caller *c, struct rte_mbuf *m)
{
	const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *);
	const struct chp_frame_from self = { .address = CALLER_ADDRESS };
	const struct chp_frame *f = (const void *)frame;
	const uint8_t *data = frame + CHP_FRAME_BYTES;
	const struct chp_reply_message *r;
	enum chp_pipeline_counter why = 0;
	uint32_t len, offset = sizeof(struct chp_reply_header);

	if (chp_frame_classify(frame, m->data_len, &self, CHP_TRUST_NONE, &why) !=
	    CHP_FRAME_UDP) {
		c->others++;
		rte_pktmbuf_free(c->other);
		c->other = m;
		return;
	}
	len = chp_frame_payload_len(frame);
	if (f->udp.checksum == 0 || f->udp.to != chp_be16(CALLER_PORT) ||
	    memcmp(f->ether.to, caller_mac, sizeof(caller_mac)) != 0 ||
	    f->ip.fragment != chp_be16(0x4000) ||
	    chp_reply_header_check(data, len, c->l->cluster.hash) != CHP_PACKET_OK)
		c->bad_frames++;
	else
		while ((r = chp_reply_next(data, len, &offset)) != NULL && r->request < CALLER_REPLIES_MAX)
			take_reply(c, (const void *)data, r);
	if (offset != len)
		c->bad_frames++;
	rte_pktmbuf_free(m);
}

void
caller_receive(struct caller *c)
{
	struct rte_mbuf *m[32];
	uint32_t n;

	while ((n = ring_net_receive(&c->l->net, m, 32)) > 0) {
		for (uint32_t i = 0; i < n; i++)
			take_frame(c, m[i]);
	}
}

void
caller_poll(struct caller *c, uint32_t iterations)
{
	for (uint32_t i = 0; i < iterations; i++) {
		(void)local_poll(c->l);
		caller_receive(c);
	}
}

const struct caller_reply *
caller_wait(struct caller *c, uint64_t request)
{
	uint64_t end = rte_rdtsc() + 2 * rte_get_tsc_hz();

	while (!c->reply[request].there && rte_rdtsc() < end)
		caller_poll(c, 1);
	return c->reply[request].there ? &c->reply[request] : NULL;
}

uint32_t
caller_shard_of(const struct caller *c, const char *key)
{
	return chp_shard_of(chp_digest_of(key, (uint32_t)strlen(key), c->l->cluster.hash_seed),
			    c->l->cluster.shards);
}

static bool
is_not_now(uint8_t status)
{
	return status == CHP_STATUS_BUSY || status == CHP_STATUS_OVERLOAD || status == CHP_STATUS_NOT_SERVING;
}

const struct caller_reply *
caller_call(struct caller *c, uint32_t replica, uint8_t opcode, const char *key, const char *value,
	    uint64_t arg)
{
	uint64_t end = rte_rdtsc() + 2 * rte_get_tsc_hz();
	uint32_t shard = caller_shard_of(c, key);
	const struct caller_reply *r;

	do {
		caller_begin(c, replica, shard, 0, 0, (uint16_t)shard);
		caller_add(c, opcode, key, value, arg, 1);
		caller_send(c);
		r = caller_wait(c, 1);
	} while (r != NULL && is_not_now(r->status) && rte_rdtsc() < end);
	return r;
}
