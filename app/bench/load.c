/* SPDX-License-Identifier: BSD-3-Clause */
#include "load.h"

#include "base/assert.h"
#include "base/digest.h"
#include "pipeline/frame.h"
#include "wire/client.h"

#include <rte_cycles.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>

#include <stdlib.h>
#include <string.h>

#define ADDRESS 0x0a0000c8u /* 10.0.0.200 */
#define PORT 40000u
#define BURST 64u
#define SLOTS CHP_SESSION_WINDOW_MAX
#define RESEND_MS 200u
/* For whom there was no room: as soon as a client of the library asks again. */
#define REFUSED_US 1000u

static const uint8_t mac[CHP_MAC_BYTES] = { 2, 0, 10, 0, 0, 200 };

enum slot_state {
	SLOT_FREE = 0,
	SLOT_OPEN = 1,
};

struct slot {
	uint64_t sent; /* TSC; 0: to be sent again */
	uint32_t key;
	uint8_t state, opcode;
};

struct load_connection {
	uint32_t replica, shard;
	uint32_t leader;       /* whom writes go to: its own replica, or whom a redirect named */
	uint64_t session;
	uint64_t rule;         /* the quorum rule in force, as it was told last */
	uint64_t next, lowest; /* request numbers, from 1 */
	uint32_t in_flight;
	uint64_t next_key;     /* LOAD_PRELOAD */
	uint32_t n_again;      /* of its keys, refused: to be written with other requests */
	uint32_t again[SLOTS];
	uint64_t turn;         /* LOAD_MISSES: the key that is read next */
	uint64_t resume;       /* TSC: after an answer "busy", when to ask for more */
	uint64_t check;        /* TSC: when to look for requests without an answer */
	struct slot slot[SLOTS];
};

/* A datagram being written. */
struct draft {
	struct rte_mbuf *m;
	uint8_t *payload;
	uint32_t len;
	uint32_t to; /* replica */
};

/* ------------------------------------------------------------------ writing */

static bool
begin(struct load *g, const struct load_connection *c, uint32_t to, struct draft *d)
{
	struct chp_request_header *h;

	d->to = to;
	d->m = rte_pktmbuf_alloc(g->pool);
	if (d->m == NULL)
		return false;
	d->payload = rte_pktmbuf_mtod_offset(d->m, uint8_t *, CHP_FRAME_BYTES);
	h = (void *)d->payload;
	*h = (struct chp_request_header){
		.prelude = { .magic = CHP_WIRE_MAGIC,
			     .version = CHP_WIRE_VERSION,
			     .kind = CHP_PACKET_REQUEST,
			     .cluster_hash = g->l->cluster.hash },
		.session = c->session,
		.lowest = c->lowest,
		.shard = (uint16_t)c->shard,
	};
	d->len = sizeof(*h);
	return true;
}

static bool
has_key(uint8_t opcode)
{
	return opcode == CHP_OPCODE_PUT || opcode == CHP_OPCODE_GET;
}

static uint32_t
request_bytes(const struct load *g, uint8_t opcode)
{
	return chp_request_bytes(has_key(opcode) ? g->options.key_bytes : 0,
				 opcode == CHP_OPCODE_PUT ? g->options.value_bytes : 0);
}

static void
write_key(const struct load *g, uint64_t number, uint8_t *to)
{
	memcpy(to, &number, sizeof(number));
	memset(to + sizeof(number), 'k', g->options.key_bytes - sizeof(number));
}

static void
add(const struct load *g, struct draft *d, const struct slot *s, uint64_t number)
{
	uint32_t value_len = s->opcode == CHP_OPCODE_PUT ? g->options.value_bytes : 0;
	uint32_t bytes = request_bytes(g, s->opcode);
	struct chp_request *r = (void *)(d->payload + d->len);

	*r = (struct chp_request){
		.opcode = s->opcode,
		.len = (uint16_t)bytes,
		.key_len = (uint8_t)(has_key(s->opcode) ? g->options.key_bytes : 0),
		.request = number,
		.value_total = value_len,
		.arg = has_key(s->opcode) ? number : s->key,
	};
	if (r->key_len > 0) {
		write_key(g, s->key, (uint8_t *)(r + 1));
		memset((uint8_t *)(r + 1) + r->key_len, (int)(number & 0x7f), bytes - sizeof(*r) - r->key_len);
	}
	d->len += bytes;
}

static void
send_draft(struct load *g, const struct load_connection *c, struct draft *d)
{
	const struct chp_frame_from from = {
		.mac = { mac[0], mac[1], mac[2], mac[3], mac[4], mac[5] },
		.address = ADDRESS,
	};
	uint16_t local_port = (uint16_t)(PORT + (uint32_t)(c - g->connection));
	struct chp_address to = {
		.ip = chp_be32(0x0a000001u + d->to),
		.port = chp_be16((uint16_t)(g->l->cluster.port_base + c->shard)),
		.local_port = chp_be16(local_port),
		.mac = { 2, 0, 10, 0, 0, (uint8_t)(d->to + 1) },
	};

	d->m->data_len = (uint16_t)(CHP_FRAME_BYTES + d->len);
	d->m->pkt_len = d->m->data_len;
	chp_frame_build(rte_pktmbuf_mtod(d->m, void *), d->len, &from, &to, false);
	if (!ring_net_send(&g->l->net, d->m))
		rte_pktmbuf_free(d->m); /* its requests are sent again later */
	d->m = NULL;
}

/* ------------------------------------------------------------------ what to ask for */

/* Of the n keys of its shard. */
static uint64_t
which_key(struct load *g, struct load_connection *c, uint32_t n)
{
	if (g->mix == LOAD_MISSES)
		return c->turn++ % n;
	if (g->mix == LOAD_HITS)
		return chp_random_below(&g->random, chp_min_u32(n, g->options.hot_keys));
	return load_zipf_next(&g->zipf[c->shard], &g->random) - 1;
}

static bool
choose(struct load *g, struct load_connection *c, struct slot *s)
{
	uint32_t n = g->n_shard_keys[c->shard];

	switch (g->mix) {
	case LOAD_NOTHING:
		return false;
	case LOAD_PRELOAD: /* the connections of a shard share its keys evenly */
		s->opcode = CHP_OPCODE_PUT;
		if (c->n_again > 0) {
			s->key = c->again[--c->n_again];
			return true;
		}
		if (c->next_key >= n)
			return false;
		s->key = g->shard_keys[c->shard][c->next_key];
		c->next_key += g->options.connections;
		return true;
	case LOAD_WRITES:
		s->opcode = CHP_OPCODE_PUT;
		break;
	case LOAD_READS:
	case LOAD_HITS:
	case LOAD_MISSES:
		s->opcode = CHP_OPCODE_GET;
		break;
	case LOAD_MIXED:
		s->opcode = chp_random_below(&g->random, 100) < g->options.writes_pct ? CHP_OPCODE_PUT
										       : CHP_OPCODE_GET;
		break;
	}
	s->key = g->shard_keys[c->shard][which_key(g, c, n)];
	return true;
}

static uint32_t
replica_for(const struct load *g, const struct load_connection *c, uint8_t opcode)
{
	if (opcode != CHP_OPCODE_GET || g->readers == LOAD_READ_LEADER)
		return c->leader;
	if (g->readers == LOAD_READ_FOLLOWERS && c->replica == c->leader)
		return (c->replica + 1) % g->l->options.replicas;
	return c->replica;
}

/* Fill the window of a connection with full datagrams; a rest waits until it is worth one. */
static void
fill(struct load *g, struct load_connection *c)
{
	uint64_t now = rte_rdtsc();
	struct draft draft[2] = { { .m = NULL }, { .m = NULL } }; /* of reads and writes, where they part */

	if (c->in_flight > g->options.window / 2 || now < c->resume)
		return;
	while (c->in_flight < g->options.window && c->next - c->lowest < SLOTS) {
		struct slot *s = &c->slot[c->next % SLOTS];
		struct draft *d;
		uint32_t to;

		CHP_ASSERT_OP(s->state, ==, SLOT_FREE);
		if (!choose(g, c, s))
			break;
		to = replica_for(g, c, s->opcode);
		d = &draft[to != c->leader];
		if (d->m != NULL && d->len + request_bytes(g, CHP_OPCODE_PUT) > CHP_PAYLOAD_BYTES_MIN)
			send_draft(g, c, d);
		if (d->m == NULL && !begin(g, c, to, d))
			break;
		add(g, d, s, c->next);
		s->state = SLOT_OPEN;
		s->sent = now;
		c->next++;
		c->in_flight++;
	}
	for (uint32_t i = 0; i < 2; i++)
		if (draft[i].m != NULL)
			send_draft(g, c, &draft[i]);
}

/* Requests whose datagram or answer was lost: the session makes a second try harmless. */
static void
resend(struct load *g, struct load_connection *c)
{
	uint64_t now = rte_rdtsc();

	if (now < c->check)
		return;
	c->check = now + g->resend_ticks;
	for (uint64_t n = c->lowest; n < c->next; n++) {
		struct slot *s = &c->slot[n % SLOTS];
		struct draft d;

		if (s->state != SLOT_OPEN || now - s->sent < g->resend_ticks ||
		    !begin(g, c, replica_for(g, c, s->opcode), &d))
			continue;
		add(g, &d, s, n);
		send_draft(g, c, &d);
		if (s->sent == 0)
			s->sent = now;
		else
			g->counts.resent++;
	}
}

/* ------------------------------------------------------------------ answers */

static void
answered(struct load *g, struct load_connection *c, const struct slot *s, const struct chp_reply_message *m,
	 uint64_t now)
{
	if (s->opcode == CHP_OPCODE_GET) {
		g->counts.reads++;
		chp_histogram_record(&g->read_latency, now - s->sent);
		return;
	}
	g->counts.writes++;
	chp_histogram_record(&g->write_latency, now - s->sent);
	if (s->opcode == CHP_OPCODE_SESSION_OPEN)
		c->session = m->number;
	else if (s->opcode == CHP_OPCODE_QUORUM)
		c->rule = m->number;
}

static void
on_reply(struct load *g, struct load_connection *c, const struct chp_reply_message *m, uint64_t now)
{
	struct slot *s = &c->slot[m->request % SLOTS];

	if (m->request < c->lowest || m->request >= c->next || s->state != SLOT_OPEN)
		return; /* answered before */
	if (m->status == CHP_STATUS_OK) {
		answered(g, c, s, m, now);
	} else if (m->status == CHP_STATUS_REDIRECT && m->number < g->l->options.replicas) {
		c->leader = (uint32_t)m->number;
		c->check = 0;
		s->sent = 0; /* goes there at once */
		g->counts.redirected++;
		return;
	} else if (m->status == CHP_STATUS_OVERLOAD || m->status == CHP_STATUS_NOT_SERVING) {
		s->sent = 0; /* comes with the next resend */
		c->check = chp_min_u64(c->check, now + g->refused_ticks);
		g->counts.refused++;
		return;
	} else if (m->status == CHP_STATUS_BUSY) {
		g->counts.refused++;
		c->resume = now + g->refused_ticks;
		if (g->mix == LOAD_PRELOAD)
			c->again[c->n_again++] = s->key;
	} else {
		g->counts.failed++;
	}
	s->state = SLOT_FREE;
	c->in_flight--;
	while (c->lowest < c->next && c->slot[c->lowest % SLOTS].state == SLOT_FREE)
		c->lowest++;
}

static void
receive(struct load *g)
{
	struct rte_mbuf *m[BURST];
	uint32_t n = ring_net_receive(&g->l->net, m, BURST);
	uint64_t now = rte_rdtsc();

	for (uint32_t i = 0; i < n; i++) {
		const uint8_t *frame = rte_pktmbuf_mtod(m[i], const uint8_t *);
		const struct chp_frame *f = (const void *)frame;
		uint32_t at = (uint32_t)chp_be16(f->udp.to) - PORT;
		uint32_t offset = sizeof(struct chp_reply_header), len;
		const struct chp_reply_message *r;

		if (m[i]->data_len < CHP_FRAME_BYTES || f->ether.type != chp_be16(0x0800) ||
		    at >= g->n_connections)
			continue; /* a broadcast */
		len = chp_frame_payload_len(frame);
		if (chp_reply_header_check(frame + CHP_FRAME_BYTES, len, g->l->cluster.hash) !=
		    CHP_PACKET_OK)
			continue;
		while ((r = chp_reply_next(frame + CHP_FRAME_BYTES, len, &offset)) != NULL)
			on_reply(g, &g->connection[at], r, now);
	}
	if (n > 0)
		rte_pktmbuf_free_bulk(m, n);
}

void
load_poll(struct load *g)
{
	receive(g);
	for (uint32_t i = 0; i < g->n_connections; i++) {
		fill(g, &g->connection[i]);
		resend(g, &g->connection[i]);
	}
	(void)ring_net_poll(&g->l->net);
}

/* ------------------------------------------------------------------ phases */

void
load_begin(struct load *g, enum load_mix mix, enum load_readers readers)
{
	g->mix = mix;
	g->readers = readers;
	g->counts = (struct load_counts){ 0 };
	chp_histogram_init(&g->read_latency);
	chp_histogram_init(&g->write_latency);
}

uint32_t
load_leader(const struct load *g, uint32_t shard)
{
	return g->connection[shard * g->options.connections].leader;
}

uint32_t
load_in_flight(const struct load *g)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < g->n_connections; i++)
		n += g->connection[i].in_flight;
	return n;
}

bool
load_is_preloaded(const struct load *g)
{
	for (uint32_t i = 0; i < g->n_connections; i++) {
		const struct load_connection *c = &g->connection[i];

		if (c->next_key < g->n_shard_keys[c->shard] || c->n_again > 0)
			return false;
	}
	return load_in_flight(g) == 0;
}

/* ------------------------------------------------------------------ start */

static int
sort_keys(struct load *g)
{
	uint32_t shards = g->l->cluster.shards;

	g->shard_keys = calloc(shards, sizeof(*g->shard_keys));
	g->n_shard_keys = calloc(shards, sizeof(*g->n_shard_keys));
	g->zipf = calloc(shards, sizeof(*g->zipf));
	if (g->shard_keys == NULL || g->n_shard_keys == NULL || g->zipf == NULL)
		return -1;
	for (uint32_t s = 0; s < shards; s++) {
		g->shard_keys[s] = malloc(g->options.keys * sizeof(**g->shard_keys));
		if (g->shard_keys[s] == NULL)
			return -1;
	}
	for (uint32_t i = 0; i < g->options.keys; i++) {
		uint8_t key[CHP_KEY_BYTES_MAX];
		uint32_t s;

		write_key(g, i, key);
		s = chp_shard_of(chp_digest_of(key, g->options.key_bytes, g->l->cluster.hash_seed), shards);
		g->shard_keys[s][g->n_shard_keys[s]++] = i;
	}
	for (uint32_t s = 0; s < shards; s++)
		load_zipf_init(&g->zipf[s], g->n_shard_keys[s], g->options.theta);
	return 0;
}

/* One request without a key. */
static bool
ask(struct load *g, struct load_connection *c, uint8_t opcode, uint32_t argument)
{
	struct slot *s = &c->slot[c->next % SLOTS];
	struct draft d;

	if (!begin(g, c, c->leader, &d))
		return false;
	*s = (struct slot){ .sent = rte_rdtsc(), .key = argument, .state = SLOT_OPEN, .opcode = opcode };
	add(g, &d, s, c->next++);
	c->in_flight++;
	send_draft(g, c, &d);
	return true;
}

/* Until every request is answered; false after 5 seconds. */
static bool
wait_for_answers(struct load *g)
{
	uint64_t end = rte_rdtsc() + 5 * rte_get_tsc_hz();

	while (load_in_flight(g) > 0 && rte_rdtsc() < end) {
		(void)local_poll(g->l);
		load_poll(g);
	}
	return load_in_flight(g) == 0;
}

/* Request 1 of every connection opens its session. */
static bool
open_sessions(struct load *g)
{
	load_begin(g, LOAD_NOTHING, LOAD_READ_OWN);
	for (uint32_t i = 0; i < g->n_connections; i++)
		if (!ask(g, &g->connection[i], CHP_OPCODE_SESSION_OPEN, i + 1)) /* who opens, for retries */
			return false;
	if (!wait_for_answers(g))
		return false;
	for (uint32_t i = 0; i < g->n_connections; i++)
		if (g->connection[i].session == 0)
			return false;
	return true;
}

bool
load_set_quorum(struct load *g, uint32_t rule)
{
	load_begin(g, LOAD_NOTHING, LOAD_READ_OWN);
	if (!wait_for_answers(g))
		return false;
	for (uint32_t i = 0; i < g->n_connections; i += g->options.connections) {
		g->connection[i].rule = CHP_QUORUM_ASK;
		if (!ask(g, &g->connection[i], CHP_OPCODE_QUORUM, rule))
			return false;
	}
	if (!wait_for_answers(g))
		return false;
	for (uint32_t i = 0; i < g->n_connections; i += g->options.connections)
		if (g->connection[i].rule != rule)
			return false;
	return true;
}

int
load_create(struct load *g, struct local *l, const struct load_options *options, struct chp_error *error)
{
	uint32_t replicas = l->options.replicas, shards = l->cluster.shards;

	*g = (struct load){ .l = l, .options = *options, .random = { 1 } };
	g->resend_ticks = rte_get_tsc_hz() / 1000 * RESEND_MS;
	g->refused_ticks = rte_get_tsc_hz() / 1000000 * REFUSED_US;
	g->n_connections = options->connections * shards;
	g->connection = calloc(g->n_connections, sizeof(*g->connection));
	g->pool = rte_pktmbuf_pool_create("load", 16383, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE,
					  (int)rte_socket_id());
	if (g->connection == NULL || g->pool == NULL || sort_keys(g) != 0)
		return chp_error_set(error, CHP_EXIT_RESOURCE, "no memory for the load generator");
	for (uint32_t i = 0; i < g->n_connections; i++) {
		struct load_connection *c = &g->connection[i];

		c->replica = c->leader = i % options->connections % replicas;
		c->shard = i / options->connections;
		c->next = c->lowest = 1;
		c->next_key = i % options->connections;
		c->turn = (uint64_t)g->n_shard_keys[c->shard] * c->next_key / options->connections;
	}
	if (!open_sessions(g))
		return chp_error_set(error, CHP_EXIT_FAILURE, "the replicas opened no sessions");
	return 0;
}

void
load_destroy(struct load *g)
{
	for (uint32_t s = 0; g->shard_keys != NULL && s < g->l->cluster.shards; s++)
		free(g->shard_keys[s]);
	free(g->shard_keys);
	free(g->n_shard_keys);
	free(g->zipf);
	free(g->connection);
}
