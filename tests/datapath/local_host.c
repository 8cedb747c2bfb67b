/* SPDX-License-Identifier: BSD-3-Clause */
#include "local_host.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "channel/memory.h"
#include "datastore/datastore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BUFFERS 8u
#define PENDING_MAX (2u * CHP_DSI_REQUESTS_MAX)

/* One shard: its end, and its requests that the datastore has not looked at, in order. */
struct shard {
	struct chp_dsi *dsi;
	bool told; /* it knows of the store */
	struct chp_store_record record;
	struct chp_store_request *pending[PENDING_MAX], *done[PENDING_MAX];
	uint32_t n_pending, n_done;
	struct chp_dsi_packet packet[CHP_CHANNEL_BURST];
	uint32_t n_packets;
};

struct local_host {
	struct chp_cluster_config cluster;
	uint32_t node, speed;
	uint64_t incarnation;
	bool runs, forgets;
	const struct chp_adapter *adapter;
	void *store, *handle;
	struct chp_channel *end[2];
	struct shard shard[CHP_SHARDS_MAX];
	uint8_t buffer[BUFFERS][CHP_PAYLOAD_BYTES_MAX];
};

extern const struct chp_adapter chp_adapter_memory;

static uint64_t
now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static void
create_ends(struct local_host *h)
{
	const struct chp_cluster_config *c = &h->cluster;

	h->incarnation++;
	for (uint32_t i = 0; i < c->shards; i++) {
		const struct chp_dsi_config config = {
			.memory = &chp_memory_libc,
			.cluster_hash = c->hash,
			.node = h->node,
			.shard = i,
			.shards = c->shards,
			.hash_seed = c->hash_seed,
			.key_bytes_max = c->key_bytes_max,
			.value_bytes_max = c->value_bytes_max,
			.payload_bytes_max = c->mtu - CHP_IP_UDP_BYTES,
			.incarnation = h->incarnation,
			.put_bytes = 1u << 20,
			.loads = 1024,
			.scan_bytes = 65536,
			.window = 32,
			.queue = 128,
			.rto_ns_min = 1000000,
			.rto_ns_max = 200000000,
			.ack_delay_ns = 100000,
		};
		int err = 0;

		h->shard[i].dsi = chp_dsi_create(&config, &err);
		CHP_ASSERT(h->shard[i].dsi != NULL);
		h->shard[i].told = false;
	}
	h->runs = true;
}

struct local_host *
local_host_create(const struct chp_cluster_config *cluster, uint32_t node, bool allow_loss)
{
	struct local_host *h = calloc(1, sizeof(*h));
	json_t *config = json_pack("{sb}", "allow_loss", allow_loss);
	struct chp_store_identity id = {
		.node = node,
		.shards = cluster->shards,
		.hash_seed = cluster->hash_seed,
		.key_bytes_max = cluster->key_bytes_max,
		.value_bytes_max = cluster->value_bytes_max,
	};
	struct chp_store_error e;

	if (h == NULL || config == NULL)
		return NULL;
	h->cluster = *cluster;
	h->node = node;
	h->speed = LOCAL_HOST_FAST;
	h->incarnation = 0x2000 + 0x100 * node;
	(void)snprintf(id.cluster, sizeof(id.cluster), "%s", cluster->name);
	h->adapter = &chp_adapter_memory;
	h->store = h->adapter->open(config, &id, &e);
	json_decref(config);
	h->handle = h->store != NULL ? h->adapter->attach(h->store, &e) : NULL;
	if (h->handle == NULL ||
	    chp_channel_memory_pair(cluster->mtu - CHP_IP_UDP_BYTES, 0x99 + node, h->end) != 0)
		return NULL;
	create_ends(h);
	return h;
}

struct chp_channel *
local_host_channel(struct local_host *h)
{
	return h->end[0];
}

struct chp_channel *
local_host_end(struct local_host *h)
{
	return h->end[1];
}

void
local_host_speed(struct local_host *h, uint32_t requests)
{
	h->speed = requests;
}

void
local_host_forget(struct local_host *h)
{
	h->forgets = true;
}

const struct chp_store_record *
local_host_record(const struct local_host *h, uint32_t shard)
{
	return &h->shard[shard].record;
}

/* ------------------------------------------------------------------ the datastore */

static void
change(struct local_host *h, uint32_t index, struct chp_store_request *r)
{
	struct shard *s = &h->shard[index];
	struct chp_store_record after = s->record;
	struct chp_store_batch batch = { .shard = index, .before = &s->record, .after = &after };
	struct chp_store_error e;

	switch (r->type) {
	case CHP_STORE_BEGIN:
		after.life = r->life;
		after.batch = 0;
		break;
	case CHP_STORE_RECORD:
		after.epoch = r->epoch;
		break;
	default:
		CHP_ASSERT_OP(r->type, ==, CHP_STORE_WRITE);
		after.batch = r->seq;
		batch.item = r->item;
		batch.n_items = r->n_items;
		for (uint32_t i = 0; i < r->n_items; i++) {
			if (r->item[i].version >> 16 > after.newest)
				after.newest = r->item[i].version >> 16;
		}
		break;
	}
	if (!h->forgets)
		CHP_ASSERT(h->adapter->write(h->handle, &batch, 1, &e) == 0);
	s->record = r->record = after;
}

static void
serve(struct local_host *h, uint32_t index)
{
	struct shard *s = &h->shard[index];
	uint32_t n = chp_min_u32(s->n_pending, h->speed);
	struct chp_store_error e;

	for (uint32_t i = 0; i < n; i++) {
		struct chp_store_request *r = s->pending[i];

		if (r->type == CHP_STORE_READ)
			CHP_ASSERT(h->adapter->read(h->handle, r->read, r->n_reads, &e) == 0);
		else if (r->type == CHP_STORE_SCAN)
			CHP_ASSERT(h->adapter->scan(h->handle, index, r->scan, &e) == 0);
		else
			change(h, index, r);
		CHP_ASSERT_OP(s->n_done, <, PENDING_MAX);
		s->done[s->n_done++] = r;
	}
	s->n_pending -= n;
	memmove(s->pending, s->pending + n, s->n_pending * sizeof(s->pending[0]));
}

uint32_t
local_host_find(struct local_host *h, const char *key, void *value, uint32_t cap, uint32_t *value_len)
{
	static uint8_t room[CHP_VALUE_BYTES_MAX];
	struct chp_store_read r = { .key = (const uint8_t *)key, .value = room, .key_len = (uint8_t)strlen(key) };
	struct chp_store_error e;

	CHP_ASSERT(h->adapter->read(h->handle, &r, 1, &e) == 0);
	*value_len = r.found == CHP_STORE_FOUND ? r.value_len : 0;
	memcpy(value, room, chp_min_u32(*value_len, cap));
	return r.found;
}

/* ------------------------------------------------------------------ the process */

static bool
run_shard(struct local_host *h, uint32_t index)
{
	static const struct chp_store_info info = {
		.flags = CHP_STORE_VOLATILE | CHP_STORE_SCANS | CHP_STORE_ALLOW_LOSS,
		.name = "memory of this process",
	};
	struct shard *s = &h->shard[index];
	struct chp_dsi_buffer buffer[BUFFERS];
	struct chp_channel_packet packet[BUFFERS];
	struct chp_store_info described = info;
	struct chp_dsi_events in = {
		.packet = s->packet,
		.n_packets = s->n_packets,
		.done = s->done,
		.n_done = s->n_done,
		.info = s->told ? NULL : &described,
		.record = s->told ? NULL : &s->record,
	};
	struct chp_dsi_effects out = { .buffer = buffer, .n_buffers = BUFFERS };

	h->adapter->describe(h->store, &described.flags, described.name);
	for (uint32_t i = 0; i < BUFFERS; i++)
		buffer[i].data = h->buffer[i];
	chp_dsi_run(s->dsi, now_ns(), &in, &out);
	s->told = true;
	s->n_packets = s->n_done = 0;
	for (uint32_t i = 0; i < out.n_used; i++)
		packet[i] = (struct chp_channel_packet){ .data = buffer[i].data, .len = buffer[i].len };
	(void)chp_channel_send(h->end[1], packet, out.n_used);
	for (uint32_t i = 0; i < out.n_requests; i++) {
		CHP_ASSERT_OP(s->n_pending, <, PENDING_MAX);
		s->pending[s->n_pending++] = out.request[i];
	}
	return out.n_used + out.n_requests > 0;
}

bool
local_host_poll(struct local_host *h)
{
	struct chp_channel_packet packet[CHP_CHANNEL_BURST];
	uint32_t n, shard;
	bool work;

	if (!h->runs)
		return false;
	n = chp_channel_receive(h->end[1], packet, CHP_CHANNEL_BURST);
	work = n > 0;
	for (uint32_t i = 0; i < n; i++) {
		struct shard *s;

		if (!chp_dsi_shard_of(packet[i].data, packet[i].len, &shard) || shard >= h->cluster.shards)
			continue;
		s = &h->shard[shard];
		s->packet[s->n_packets++] = (struct chp_dsi_packet){ .data = packet[i].data, .len = packet[i].len };
	}
	for (uint32_t i = 0; i < h->cluster.shards; i++) {
		serve(h, i);
		work |= run_shard(h, i);
	}
	chp_channel_release(h->end[1], packet, n);
	return work;
}

void
local_host_kill(struct local_host *h)
{
	CHP_ASSERT(h->runs);
	chp_channel_memory_kill(h->end[1]);
	for (uint32_t i = 0; i < h->cluster.shards; i++) {
		h->shard[i].n_pending = h->shard[i].n_done = h->shard[i].n_packets = 0;
		chp_dsi_destroy(h->shard[i].dsi);
	}
	h->runs = false;
}

void
local_host_start(struct local_host *h)
{
	CHP_ASSERT(!h->runs);
	create_ends(h);
	chp_channel_memory_revive(h->end[1]);
}

void
local_host_destroy(struct local_host *h)
{
	if (h == NULL)
		return;
	if (h->runs)
		local_host_kill(h);
	h->adapter->detach(h->handle);
	h->adapter->close(h->store);
	chp_channel_close(h->end[0]);
	chp_channel_close(h->end[1]);
	free(h);
}
