/* SPDX-License-Identifier: BSD-3-Clause */
#include "host.h"

#include "base/bytes.h"
#include "protocols/view.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_US UINT64_C(1000)
/* States, refusals, the status socket. */
#define TICK_NS (NS_PER_S / 10)
/* How long nothing is printed after a line about the store: when its state changes, and when only the reason does. */
#define NEWS_NS NS_PER_S
#define SAME_NEWS_NS (10 * NS_PER_S)
/* Empty rounds before the first sleep. */
#define YIELDS 32u
/* How often packets are offered to a channel that is full. */
#define SEND_TRIES 4u
/* Packets that a link of the channel may keep, beyond its window. */
#define LINK_QUEUE_SPARE 192u

static uint64_t
clock_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* ------------------------------------------------------------------ starting */

static struct chp_dsi_config
dsi_config(const struct host *h, uint32_t shard)
{
	return (struct chp_dsi_config){ .memory = &chp_memory_libc,
					.cluster_hash = h->cluster->hash,
					.node = h->node->node,
					.shard = shard,
					.shards = h->cluster->shards,
					.hash_seed = h->cluster->hash_seed,
					.key_bytes_max = h->cluster->key_bytes_max,
					.value_bytes_max = h->cluster->value_bytes_max,
					.payload_bytes_max = h->cluster->mtu - CHP_IP_UDP_BYTES,
					.put_bytes = h->file->put_bytes,
					.loads = h->cluster->loads_max,
					.scan_bytes = h->file->scan_bytes,
					.window = h->cluster->link_window,
					.queue = h->cluster->link_window + LINK_QUEUE_SPARE,
					.rto_ns_min = h->node->rto_ns_min,
					.rto_ns_max = h->node->rto_ns_max,
					.ack_delay_ns = h->node->ack_delay_ns };
}

uint64_t
host_bytes(const struct host *h)
{
	const struct chp_dsi_config c = dsi_config(h, 0);

	return h->cluster->shards * chp_dsi_bytes(&c) + (uint64_t)HOST_BUFFERS * c.payload_bytes_max;
}

/* The engine's threads call it: something can be polled. */
static void
on_news(void *arg)
{
	struct host *h = arg;
	const uint64_t one = 1;

	atomic_store(&h->news, true);
	if (atomic_load(&h->sleeps))
		(void)!write(h->event_fd, &one, sizeof(one));
}

static struct chp_engine_config
engine_config(struct host *h)
{
	const struct chp_host_file *f = h->file;
	struct chp_engine_config c = { .adapter = h->adapter,
				       .store = f->store,
				       .readers = f->readers,
				       .retry_ns_min = f->retry_ns_min,
				       .retry_ns_max = f->retry_ns_max,
				       .down_ns = f->down_ns,
				       .stop_ns = f->stop_ns,
				       .wake = on_news,
				       .wake_arg = h };

	c.identity = (struct chp_store_identity){ .cluster_hash = h->cluster->hash,
						  .node = h->node->node,
						  .shards = h->cluster->shards,
						  .hash_seed = h->cluster->hash_seed,
						  .key_bytes_max = h->cluster->key_bytes_max,
						  .value_bytes_max = h->cluster->value_bytes_max };
	(void)snprintf(c.identity.cluster, sizeof(c.identity.cluster), "%s", h->cluster->name);
	return c;
}

int
host_start_store(struct host *h, struct chp_error *error)
{
	const struct chp_engine_config c = engine_config(h);
	uint64_t incarnation;
	int err = 0;

	if (getrandom(&incarnation, sizeof(incarnation), 0) != (ssize_t)sizeof(incarnation))
		return chp_error_set(error, CHP_EXIT_FAILURE, "no random numbers: %s", strerror(errno));
	h->is_open = false;
	h->info_version = 0;
	h->info = h->said = (struct chp_store_info){ .refusal = CHP_HOST_NO_STORE };
	h->starts++;
	for (uint32_t i = 0; i < h->cluster->shards; i++) {
		struct chp_dsi_config d = dsi_config(h, i);

		d.incarnation = incarnation >> 1 | 1;
		h->lane[i] = (struct host_lane){ .dsi = chp_dsi_create(&d, &err) };
		if (h->lane[i].dsi == NULL)
			return chp_error_set(error, CHP_EXIT_RESOURCE, "shard %u: %s", i, strerror(-err));
	}
	h->engine = chp_engine_start(&c, &err);
	if (h->engine == NULL)
		return chp_error_set(error, CHP_EXIT_RESOURCE, "no threads for the datastore: %s", strerror(-err));
	return 0;
}

/* Returns false when a thread hangs in the store: then what it may look at stays. */
static bool
stop_store(struct host *h)
{
	const bool ended = h->engine == NULL || chp_engine_stop(h->engine);

	h->engine = NULL;
	for (uint32_t i = 0; i < h->cluster->shards && ended; i++) {
		chp_dsi_destroy(h->lane[i].dsi);
		h->lane[i].dsi = NULL;
	}
	return ended;
}

int
host_open(struct host *h, struct chp_error *error)
{
	const struct chp_channel_keys *k = &h->file->channel;
	const struct chp_channel_config c = { .is_host = true,
					      .payload_bytes_max = h->cluster->mtu - CHP_IP_UDP_BYTES,
					      .name = "host",
					      .port = k->port,
					      .ring = k->ring,
					      .dma = strcmp(k->dma, "none") != 0 ? k->dma : NULL,
					      .address = k->address,
					      .service = k->service,
					      .cluster_hash = h->cluster->hash };
	const struct chp_channel_ops *ops = chp_channel_find(chp_channel_kind_name(k->channel));
	struct chp_channel_error why;

	h->memory = aligned_alloc(CHP_CACHE_LINE, chp_align_size((size_t)HOST_BUFFERS * c.payload_bytes_max,
								 CHP_CACHE_LINE));
	if (h->memory == NULL)
		return chp_error_set(error, CHP_EXIT_RESOURCE, "no memory");
	for (uint32_t i = 0; i < HOST_BUFFERS; i++)
		h->buffer[i].data = h->memory + (size_t)i * c.payload_bytes_max;
	if (ops == NULL)
		return chp_error_set(error, CHP_EXIT_USAGE, "this program was built without the channel \"%s\"",
				     chp_channel_kind_name(k->channel));
	h->channel = ops->open(&c, &why);
	if (h->channel == NULL)
		return chp_error_set(error, why.is_usage ? CHP_EXIT_USAGE : CHP_EXIT_RESOURCE, "%s", why.text);
	return host_status_open(h, error);
}

void
host_close(struct host *h)
{
	host_status_close(h);
	chp_channel_close(h->channel);
	h->channel = NULL;
	if (!stop_store(h))
		(void)fprintf(stderr, "chaapar-host: the datastore does not answer: not waiting for it\n");
	free(h->memory);
	h->memory = NULL;
}

void
host_print_ways(const struct host *h)
{
	const struct chp_channel_keys *k = &h->file->channel;

	if (k->channel == CHP_CHANNEL_KIND_PORT)
		(void)fprintf(stderr, "chaapar-host: waiting for the replica on port %s", k->port);
	else
		(void)fprintf(stderr, "chaapar-host: connecting to the replica over %s at %u.%u.%u.%u:%u",
			      chp_channel_kind_name(k->channel), k->address >> 24, k->address >> 16 & 255,
			      k->address >> 8 & 255, k->address & 255, k->service);
	if (h->file->status[0] != '\0')
		(void)fprintf(stderr, "; status at %s", h->file->status);
	(void)fprintf(stderr, ": running\n");
}

/* ------------------------------------------------------------------ packets */

static void
send_buffers(struct host *h, uint32_t n)
{
	struct chp_channel_packet packet[HOST_BUFFERS];
	uint32_t sent = 0;

	for (uint32_t i = 0; i < n; i++)
		packet[i] = (struct chp_channel_packet){ .data = h->buffer[i].data, .len = h->buffer[i].len };
	for (uint32_t tries = 0; sent < n && tries < SEND_TRIES; tries++) {
		if (tries > 0)
			(void)sched_yield();
		sent += chp_channel_send(h->channel, packet + sent, n - sent);
	}
	h->not_sent += n - sent;
}

/* For a shard that we do not have: another cluster's replica, or another version of its file. */
static void
answer_stray(struct host *h, const struct chp_channel_packet *p)
{
	const struct chp_dsi_config c = dsi_config(h, 0);

	h->strays++;
	h->buffer[0].len = chp_dsi_refuse_stray(&c, p->data, p->len, h->buffer[0].data);
	if (h->buffer[0].len > 0)
		send_buffers(h, 1);
}

static void
sort_packets(struct host *h, const struct chp_channel_packet *packet, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct host_lane *l;
		uint32_t shard;

		if (!chp_dsi_shard_of(packet[i].data, packet[i].len, &shard) || shard >= h->cluster->shards) {
			answer_stray(h, &packet[i]);
			continue;
		}
		l = &h->lane[shard];
		l->packet[l->n_packets++] = (struct chp_dsi_packet){ packet[i].data, packet[i].len };
	}
}

/* ------------------------------------------------------------------ the store */

static void
print_store(const struct chp_store_info *info)
{
	static const char *const names[CHP_STORE_STATES] = { "ok", "slow", "down" };

	if (info->refusal != CHP_HOST_OK)
		(void)fprintf(stderr, "chaapar-host: the datastore is not open: %s\n", info->text);
	else
		(void)fprintf(stderr, "chaapar-host: datastore (%s): %s%s%s\n", info->name, names[info->state],
			      info->text[0] != '\0' ? ": " : "", info->text);
}

/* What it remembers: whose it is was compared when it was opened. */
static void
print_records(struct host *h)
{
	uint64_t items = 0, tombstones = 0, life = 0, low = UINT64_MAX, high = 0;
	struct chp_store_record r;

	for (uint32_t i = 0; i < h->cluster->shards; i++) {
		chp_engine_record(h->engine, i, &r);
		items += r.items;
		tombstones += r.tombstones;
		life = chp_max_u64(life, r.life);
		low = chp_min_u64(low, r.epoch);
		high = chp_max_u64(high, r.epoch);
	}
	if (life == 0) {
		(void)fprintf(stderr, "chaapar-host: it is new: nothing is in it for node %u of cluster \"%s\"\n",
			      h->node->node, h->cluster->name);
		return;
	}
	(void)fprintf(stderr,
		      "chaapar-host: it is node %u's of cluster \"%s\", %u shard%s: %" PRIu64 " items, %" PRIu64
		      " of them deleted keys; life %" PRIu64 ", ",
		      h->node->node, h->cluster->name, h->cluster->shards, h->cluster->shards == 1 ? "" : "s", items,
		      tombstones, life);
	if (high == 0)
		(void)fprintf(stderr, "complete in no view yet\n");
	else if (low == high)
		(void)fprintf(stderr, "complete in view %" PRIu64 " (generation %" PRIu64 ")\n", low,
			      chp_generation(low));
	else
		(void)fprintf(stderr,
			      "complete in view %" PRIu64 " to %" PRIu64 " by shard (generation %" PRIu64 ")\n", low,
			      high, chp_generation(high));
}

/* A store that fails now with this key and then with that one is news only now and then. */
static void
print_news(struct host *h)
{
	const struct chp_store_info *said = &h->said, *is = &h->info;
	const bool is_other = said->state != is->state || said->refusal != is->refusal;

	const bool is_opened = !h->is_open && is->refusal == CHP_HOST_OK;

	if ((!is_other && strcmp(said->text, is->text) == 0) ||
	    (h->said_ns != 0 && !is_opened && h->now_ns < h->said_ns + (is_other ? NEWS_NS : SAME_NEWS_NS)))
		return;
	print_store(is);
	h->said = *is;
	h->said_ns = chp_max_u64(h->now_ns, 1);
}

static void
take_info(struct host *h)
{
	if (!chp_engine_info(h->engine, &h->info_version, &h->info))
		return;
	print_news(h);
	if (!h->is_open && h->info.refusal == CHP_HOST_OK)
		print_records(h);
	for (uint32_t i = 0; i < h->cluster->shards; i++) {
		h->lane[i].tell_info = true;
		h->lane[i].tell_record |= !h->is_open && h->info.refusal == CHP_HOST_OK;
	}
	h->is_open |= h->info.refusal == CHP_HOST_OK;
}

static void
take_completions(struct host *h)
{
	struct chp_store_request *done[64];
	uint32_t n;

	do {
		n = chp_engine_poll(h->engine, done, CHP_ARRAY_LEN(done));
		for (uint32_t i = 0; i < n; i++) {
			struct host_lane *l = &h->lane[done[i]->shard];

			l->done[l->n_done++] = done[i];
		}
	} while (n == CHP_ARRAY_LEN(done));
}

/* ------------------------------------------------------------------ rounds */

static void
run_lane(struct host *h, uint32_t shard)
{
	struct host_lane *l = &h->lane[shard];
	struct chp_store_record record;
	struct chp_dsi_events in = { .packet = l->packet,
				     .n_packets = l->n_packets,
				     .done = l->done,
				     .n_done = l->n_done,
				     .info = l->tell_info ? &h->info : NULL };
	struct chp_dsi_effects out = { .buffer = h->buffer, .n_buffers = HOST_BUFFERS };

	if (l->tell_record) {
		chp_engine_record(h->engine, shard, &record);
		in.record = &record;
	}
	chp_dsi_run(l->dsi, h->now_ns, &in, &out);
	l->n_packets = l->n_done = 0;
	l->tell_info = l->tell_record = false;
	l->wake_ns = out.wake_ns;
	chp_engine_submit(h->engine, out.request, out.n_requests);
	if (out.n_used > 0)
		send_buffers(h, out.n_used);
}

/* Returns whether anything happened. */
static bool
do_round(struct host *h)
{
	struct chp_channel_packet packet[CHP_CHANNEL_BURST];
	const uint32_t n = chp_channel_receive(h->channel, packet, CHP_CHANNEL_BURST);
	bool busy = n > 0;

	sort_packets(h, packet, n);
	if (atomic_exchange(&h->news, false)) {
		take_info(h);
		take_completions(h);
	}
	h->now_ns = clock_ns();
	for (uint32_t i = 0; i < h->cluster->shards; i++) {
		const struct host_lane *l = &h->lane[i];

		if (l->n_packets == 0 && l->n_done == 0 && !l->tell_info && l->wake_ns > h->now_ns)
			continue;
		run_lane(h, i);
		busy = true;
	}
	chp_channel_release(h->channel, packet, n);
	return busy;
}

static void
sleep_for(struct host *h, uint64_t ns)
{
	struct pollfd fd = { .fd = h->event_fd, .events = POLLIN };
	const struct timespec t = { (time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S) };
	uint64_t drop;

	atomic_store(&h->sleeps, true);
	/* Looked at again: news that came before `sleeps` was set wrote no event. */
	if (!atomic_load(&h->news) && ppoll(&fd, 1, &t, NULL) > 0)
		(void)!read(h->event_fd, &drop, sizeof(drop));
	atomic_store(&h->sleeps, false);
}

static void
be_idle(struct host *h)
{
	uint64_t wake = CHP_NEVER;

	if (h->file->idle == CHP_IDLE_SPIN)
		return;
	if (h->file->idle == CHP_IDLE_YIELD || ++h->idle_rounds < YIELDS) {
		(void)sched_yield();
		return;
	}
	for (uint32_t i = 0; i < h->cluster->shards; i++)
		wake = chp_min_u64(wake, h->lane[i].wake_ns);
	h->sleep_ns = chp_min_u64(chp_max_u64(2 * h->sleep_ns, NS_PER_US), h->file->idle_sleep_ns);
	if (wake > h->now_ns)
		sleep_for(h, chp_min_u64(h->sleep_ns, wake - h->now_ns));
}

/* ------------------------------------------------------------------ now and then */

static void
print_refusals(struct host *h)
{
	for (uint32_t i = 0; i < h->cluster->shards; i++) {
		struct host_lane *l = &h->lane[i];
		struct chp_dsi_status s;

		chp_dsi_status(l->dsi, &s);
		if (s.refused[0] != '\0' && strcmp(s.refused, l->refused) != 0)
			(void)fprintf(stderr, "chaapar-host: shard %u: a replica was refused: %s\n", i, s.refused);
		memcpy(l->refused, s.refused, sizeof(l->refused));
	}
}

/* Up or down; and while it stays down, whom it refuses or is refused by, each reason once. */
static int
check_channel(struct host *h, struct chp_error *error)
{
	const char *why = NULL;
	const enum chp_channel_state state = chp_channel_state(h->channel, &why);
	const uint64_t refused = chp_channel_counter(h->channel, CHP_CHANNEL_refused);
	const bool is_news = refused != h->refused && why != NULL && strcmp(why, h->channel_text) != 0;

	if (state == CHP_CHANNEL_BROKEN)
		return chp_error_set(error, CHP_EXIT_FAILURE, "the channel broke: %s", why != NULL ? why : "");
	if (state != h->channel_state || is_news) {
		(void)fprintf(stderr, "chaapar-host: the channel is %s%s%s\n", chp_channel_state_name(state),
			      why != NULL && why[0] != '\0' ? ": " : "", why != NULL ? why : "");
		(void)snprintf(h->channel_text, sizeof(h->channel_text), "%s", why != NULL ? why : "");
	}
	h->channel_state = state;
	h->refused = refused;
	return 0;
}

/* The store holds less than it had reported: its replica must hear of that, as after a restart of this program. */
static int
start_over(struct host *h, struct chp_error *error)
{
	(void)fprintf(stderr, "chaapar-host: the datastore is not what it was: %s. Starting over\n", h->info.text);
	if (!stop_store(h))
		return chp_error_set(error, CHP_EXIT_FAILURE, "the datastore does not answer");
	return host_start_store(h, error);
}

static int
tick(struct host *h, struct chp_error *error)
{
	if (h->now_ns < h->tick_ns)
		return 0;
	h->tick_ns = h->now_ns + TICK_NS;
	take_info(h); /* that the store hangs is seen only by who asks */
	print_news(h);
	print_refusals(h);
	host_status_answer(h);
	if (chp_engine_is_lost(h->engine) && start_over(h, error) != 0)
		return -1;
	return check_channel(h, error);
}

int
host_run(struct host *h, const atomic_bool *stop, struct chp_error *error)
{
	while (!atomic_load_explicit(stop, memory_order_relaxed)) {
		if (do_round(h)) {
			h->idle_rounds = 0;
			h->sleep_ns = 0;
		} else {
			be_idle(h);
		}
		if (tick(h, error) != 0)
			return -1;
	}
	return 0;
}
