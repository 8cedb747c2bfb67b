/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * node.c - the node file: its keys, the mapping of stages to lcores, and what must fit the cluster.
 */
#include "base/assert.h"
#include "base/blocks.h"
#include "base/bytes.h"
#include "config/json.h"

#include <stdio.h>
#include <string.h>

#define US_NS UINT64_C(1000)
#define MS_NS UINT64_C(1000000)

#define RING_MIN 64u
#define RING_MAX 65536u
#define DESCRIPTORS_MAX 32768u
#define LOG_ENTRIES_DEFAULT 8192u
#define LOG_BLOCKS_SPARE 16384u
#define OPS_DEFAULT 4096u
/* The most that any mapping needs, 16 queues and 64 shards with the largest rings, rounded up. */
#define POOL_MAX ((1u << 28) - 1)
/* mbufs that a shard may hold for packets it is filling, beyond its ring to TX. */
#define TX_MBUFS_PER_SHARD 256u
#define CONTROL_MBUFS 1024u
/* Queues between a shard and the host stage of the same lcore: from the host and to it. */
#define HOST_LOCAL_RX (2 * CHP_BURST_MAX)
#define HOST_LOCAL_TX 256u

/*
 * net_af_xdp fills its ring with 2048 mbufs of the rx pool, however short rx_ring is: with 2047 its
 * queue can't be set up. It also copies what it sends into mbufs of that pool, at most rx_ring of
 * them. Measured with DPDK 22.11.
 */
#define AF_XDP_FILL 2048u

/*
 * A leader's sign of life may be late by the longest sleep of its own lcore and by that of the follower's: with eight
 * of them in an election time-out, two signs of life fit between.
 */
#define ELECTION_SLEEPS 8u

#define STAGE_KINDS 5u
/* Above the data ports of a replica, and free of what IANA knows. */
#define RDMA_SERVICE_DEFAULT 7471u

static const char *const peers_names[] = { "udp", "ethernet", NULL };
static const char *const checksum_names[] = { "off", "verify", "offload", NULL };
static const char *const idle_names[] = { "spin", "yield", "sleep", NULL };
static const char *const stage_names[STAGE_KINDS] = {
	[CHP_STAGE_RX] = "rx",
	[CHP_STAGE_SHARD] = "shard",
	[CHP_STAGE_TX] = "tx",
	[CHP_STAGE_CONTROL] = "control",
	[CHP_STAGE_HOST] = "host",
};
static const char *const channel_names[] = { "port", "rdma", NULL };

#define N chp_node_config
const struct chp_field chp_node_fields[] = {
	CHP_ROW_UINT(N, node, "node", 0, CHP_NODES_MAX - 1, CHP_FIELD_REQUIRED, 1,
		     "the id of this node, its place in the cluster file's members"),
	CHP_ROW_PORT(N, port, "port", "the name of the DPDK port, as \"net_af_xdp0\""),
	CHP_ROW_UINT(N, prefix_len, "prefix_len", 1, 31, 24, 1,
		     "the prefix length of the data network"),
	CHP_ROW_ADDRESS(N, gateway, "gateway", 0,
			"the router for members outside the data network"),
	CHP_ROW_CHOICE(N, peers, "peers", peers_names, NULL, CHP_PEERS_UDP,
		       "how packets go to the other members"),
	CHP_ROW_CHOICE(N, rx_checksum, "rx_checksum", checksum_names, NULL, CHP_RX_CHECKSUM_VERIFY,
		       "who computes checksums of received packets"),
	CHP_ROW_BOOL(N, steer, "steer", false,
		     "whether the port steers each shard's packets to its queue"),
	CHP_ROW_CHOICE(N, idle, "idle", idle_names, NULL, CHP_IDLE_SPIN,
		       "what an lcore without work does"),
	CHP_ROW_UINT(N, idle_sleep_ns, "idle_sleep_us", 1, 10000, 50, US_NS, "the longest sleep"),
	CHP_ROW_CUSTOM("lcores", CHP_FIELD_REQUIRED,
		       "a list of lcores, { \"lcore\": ..., \"stages\": [...] }"),
	CHP_ROW_CUSTOM("pools", 0, "mbufs of each pool"),
	CHP_ROW_POW2(N, rx_ring, "rx_ring", RING_MIN, DESCRIPTORS_MAX, 1024,
		     "descriptors of an rx queue"),
	CHP_ROW_POW2(N, tx_ring, "tx_ring", RING_MIN, DESCRIPTORS_MAX, 1024,
		     "descriptors of a tx queue"),
	CHP_ROW_POW2(N, stage_ring, "stage_ring", RING_MIN, RING_MAX, 1024,
		     "entries of a ring between stages"),
	CHP_ROW_POW2(N, log_entries, "log_entries", 1, CHP_LOG_ENTRIES_MAX, CHP_FIELD_COMPUTED,
		     "log entries of a shard"),
	CHP_ROW_UINT(N, log_blocks, "log_blocks", 1, CHP_BLOCKS_MAX, CHP_FIELD_COMPUTED, 1,
		     "log blocks of a shard"),
	CHP_ROW_UINT(N, ops, "ops", 1, CHP_OPS_MAX, CHP_FIELD_COMPUTED, 1,
		     "client operations of a shard"),
	CHP_ROW_UINT(N, copy_bytes, "copy_chunk_bytes", 1024, CHP_COPY_BYTES_MAX, 65536, 1,
		     "bytes of a shard's state that are copied at a time"),
	CHP_ROW_CUSTOM("timers", 0, "times of the links, of failure detection and of leases"),
	CHP_ROW_CUSTOM("host", 0, "the channel to this node's host, { \"channel\": ... }"),
	/* --print-config writes it; what it says follows from the rest. */
	CHP_ROW_IGNORED("derived"),
	{ .type = CHP_FIELD_END },
};

const struct chp_field chp_pool_fields[] = {
	CHP_ROW_UINT(N, rx_pool, "rx", 0, POOL_MAX, CHP_FIELD_COMPUTED, 1, "mbufs to receive into"),
	CHP_ROW_UINT(N, tx_pool, "tx", 0, POOL_MAX, CHP_FIELD_COMPUTED, 1, "mbufs to send from"),
	CHP_ROW_UINT(N, control_pool, "control", 0, POOL_MAX, CHP_FIELD_COMPUTED, 1,
		     "mbufs of control"),
	{ .type = CHP_FIELD_END },
};

const struct chp_field chp_timer_fields[] = {
	CHP_ROW_UINT(N, rto_ns_min, "rto_min_us", 10, 1000000, 1000, US_NS, "the first time-out"),
	CHP_ROW_UINT(N, rto_ns_max, "rto_max_ms", 1, 60000, 200, MS_NS, "the longest time-out"),
	CHP_ROW_UINT(N, ack_delay_ns, "ack_delay_us", 0, 100000, 100, US_NS,
		     "how long an ack may wait"),
	CHP_ROW_UINT(N, link_down_ns, "link_down_ms", 1, 600000, 3000, MS_NS,
		     "silence that resets a link"),
	CHP_ROW_UINT(N, suspect_ns, "suspect_us", 200, 60000000, 1000000, US_NS,
		     "silence after which a member is suspected"),
	CHP_ROW_UINT(N, lease_ns, "lease_us", 100, 10000000, 300000, US_NS,
		     "how long a lease is asked for"),
	CHP_ROW_UINT(N, election_ns, "election_us", 50, 60000000, 500000, US_NS,
		     "silence after which a leader is replaced"),
	CHP_ROW_UINT(N, leader_lease_ns, "leader_lease_us", 0, 10000000, 300000, US_NS,
		     "how long a leader reads alone"),
	CHP_ROW_UINT(N, clock_drift_ppm, "clock_drift_ppm", 0, 20000, 500, 1,
		     "how far a clock's rate may be from true time"),
	{ .type = CHP_FIELD_END },
};
#undef N

#define K chp_channel_keys
const struct chp_field chp_channel_fields[] = {
	CHP_ROW_CHOICE(K, channel, "channel", channel_names, NULL, CHP_CHANNEL_KIND_PORT,
		       "what moves packets between replica and host"),
	CHP_ROW_PORT_DEFAULT(K, port, "port", "none", "the name of the DPDK port, as \"net_vhost0\""),
	CHP_ROW_PORT_DEFAULT(K, dma, "dma", "none", "the name of a DMA device, as \"dma_skeleton\""),
	CHP_ROW_ADDRESS(K, address, "address", 0, "the address that the replica listens at"),
	CHP_ROW_UINT(K, service, "service", 1024, UINT16_MAX, RDMA_SERVICE_DEFAULT, 1, "the RDMA port number there"),
	CHP_ROW_POW2(K, ring, "ring", RING_MIN, DESCRIPTORS_MAX, 1024, "packets under way in each direction"),
	{ .type = CHP_FIELD_END },
};
#undef K

const struct chp_field chp_lcore_fields[] = {
	CHP_ROW_UINT(chp_lcore_config, lcore, "lcore", 0, CHP_LCORES_MAX - 1, CHP_FIELD_REQUIRED, 1,
		     "the number of an EAL lcore"),
	CHP_ROW_CUSTOM("stages", CHP_FIELD_REQUIRED,
		       "a list of stages as [\"rx0\", \"shard0\", \"tx0\"]"),
	{ .type = CHP_FIELD_END },
};

_Static_assert(sizeof(enum chp_idle) == sizeof(uint32_t), "fields of 4 bytes");
_Static_assert(sizeof(enum chp_channel_kind) == sizeof(uint32_t), "fields of 4 bytes");
_Static_assert(sizeof(enum chp_peers) == sizeof(uint32_t), "fields of 4 bytes");
_Static_assert(sizeof(enum chp_rx_checksum) == sizeof(uint32_t), "fields of 4 bytes");
_Static_assert(CHP_QUEUES_MAX <= CHP_SHARDS_MAX, "struct seen has room for queues");

/* What is being read, and where each stage was seen first: number of its lcore in the list + 1. */
struct reader {
	const struct chp_cluster_config *cluster;
	struct chp_node_config *node;
	struct chp_json_place root;
	uint32_t seen[STAGE_KINDS][CHP_SHARDS_MAX];
	bool stages_ok; /* every entry of every list was a stage */
};

/* ---- stages ---- */

/* Whether there is one of a kind, and its name has no number. */
static bool
is_single(uint32_t kind)
{
	return kind == CHP_STAGE_CONTROL || kind == CHP_STAGE_HOST;
}

void
chp_stage_text(const struct chp_stage_config *s, char to[16])
{
	CHP_ASSERT_OP((uint32_t)s->kind, <, STAGE_KINDS);
	if (is_single(s->kind))
		(void)snprintf(to, 16, "%s", stage_names[s->kind]);
	else
		(void)snprintf(to, 16, "%s%u", stage_names[s->kind], s->index);
}

/* Stages of a kind that can exist. */
static uint32_t
stages_max(const struct reader *r, uint32_t kind)
{
	if (kind == CHP_STAGE_SHARD)
		return r->cluster->shards;
	return is_single(kind) ? 1 : CHP_QUEUES_MAX;
}

/* "rx0", "shard12", "tx3", "control", "host": a kind and, but for the last two, its number. */
static bool
parse_stage(const struct reader *r, const char *s, struct chp_stage_config *out)
{
	for (uint32_t kind = 0; kind < STAGE_KINDS; kind++) {
		size_t n = strlen(stage_names[kind]);
		const char *digits = s + n;
		uint32_t index = 0;

		if (strncmp(s, stage_names[kind], n) != 0)
			continue;
		*out = (struct chp_stage_config){ .kind = (enum chp_stage_kind)kind };
		if (is_single(kind))
			return *digits == '\0';
		n = strlen(digits);
		if (n < 1 || n > 3 || strspn(digits, "0123456789") != n ||
		    (digits[0] == '0' && n > 1))
			return false;
		for (; *digits; digits++)
			index = index * 10 + (uint32_t)(*digits - '0');
		out->index = index;
		return index < stages_max(r, kind);
	}
	return false;
}

/* One entry of "stages". */
static void
read_stage(struct reader *r, uint32_t lcore, const struct chp_json_place *place)
{
	struct chp_lcore_config *l = &r->node->lcore[lcore];
	const char *s = json_string_value(place->value);
	struct chp_stage_config stage;
	uint32_t *seen;

	if (!s || !parse_stage(r, s, &stage)) {
		r->stages_ok = false;
		chp_json_error(place,
			       "expected \"rx0\" to \"rx%u\", \"shard0\" to \"shard%u\", "
			       "\"tx0\" to \"tx%u\", \"control\" or \"host\"",
			       CHP_QUEUES_MAX - 1, r->cluster->shards - 1, CHP_QUEUES_MAX - 1);
		return;
	}
	seen = &r->seen[stage.kind][stage.index];
	if (*seen != 0) {
		chp_json_error(place, "expected each stage once: it is also in lcores[%u]",
			       *seen - 1);
		return;
	}
	*seen = lcore + 1;
	CHP_ASSERT_OP(l->n_stages, <, CHP_STAGES_PER_LCORE_MAX);
	l->stage[l->n_stages++] = stage;
}

static void
read_lcore(struct reader *r, uint32_t i, const struct chp_json_place *place)
{
	static const char *const lcore_key[] = { "lcore", NULL };
	struct chp_lcore_config *l = &r->node->lcore[i];
	uint64_t bad = chp_json_read(place, chp_lcore_fields, l);
	struct chp_json_place stages = chp_json_key(place, "stages");
	struct chp_json_place number = chp_json_key(place, "lcore");
	size_t n = json_array_size(stages.value);

	for (uint32_t j = 0; j < i && chp_fields_ok(chp_lcore_fields, bad, lcore_key); j++) {
		if (r->node->lcore[j].lcore == l->lcore) {
			chp_json_error(&number, "expected each lcore once: it is also lcores[%u]",
				       j);
			break;
		}
	}
	if (!chp_fields_ok(chp_lcore_fields, bad, lcore_key))
		l->lcore = UINT32_MAX; /* equal to no other */
	if (!stages.value) {
		r->stages_ok = false;
		return;
	}
	if (n < 1 || n > CHP_STAGES_PER_LCORE_MAX) {
		r->stages_ok = false;
		chp_json_error(&stages, "expected a list of 1 to %u stages",
			       CHP_STAGES_PER_LCORE_MAX);
		return;
	}
	for (uint32_t j = 0; j < n; j++) {
		struct chp_json_place stage = chp_json_item(&stages, j);

		read_stage(r, i, &stage);
	}
}

/* Stages seen of a kind. *missing: the lowest that was not, below `upto` or below a seen one. */
static uint32_t
count_stages(const struct reader *r, uint32_t kind, uint32_t upto, uint32_t *missing)
{
	uint32_t n = 0;

	*missing = UINT32_MAX;
	for (uint32_t i = 0; i < CHP_SHARDS_MAX; i++) {
		if (r->seen[kind][i] != 0) {
			n++;
			upto = i + 1 > upto ? i + 1 : upto;
		}
	}
	for (uint32_t i = 0; i < upto && *missing == UINT32_MAX; i++) {
		if (r->seen[kind][i] == 0)
			*missing = i;
	}
	return n;
}

static void
check_host_stage(const struct reader *r, const struct chp_json_place *list)
{
	bool seen = r->seen[CHP_STAGE_HOST][0] != 0;

	if (r->cluster->hosts && !seen)
		chp_json_error(list, "expected one host stage: \"host\" is on no lcore and the cluster has hosts");
	else if (!r->cluster->hosts && seen)
		chp_json_error(list, "expected no host stage, or \"hosts\": true in the cluster file");
}

/* Every shard, control, queues from 0 without a gap. That no stage is there twice is known. */
static void
check_stages(struct reader *r, const struct chp_json_place *list)
{
	uint32_t missing;

	(void)count_stages(r, CHP_STAGE_SHARD, r->cluster->shards, &missing);
	if (missing != UINT32_MAX)
		chp_json_error(list,
			       "expected every shard on an lcore: \"shard%u\" of %u is on none",
			       missing, r->cluster->shards);
	r->node->n_rx = count_stages(r, CHP_STAGE_RX, 1, &missing);
	if (missing != UINT32_MAX)
		chp_json_error(list,
			       "expected rx queues from 0 without a gap: \"rx%u\" is on no lcore",
			       missing);
	r->node->n_tx = count_stages(r, CHP_STAGE_TX, 1, &missing);
	if (missing != UINT32_MAX)
		chp_json_error(list,
			       "expected tx queues from 0 without a gap: \"tx%u\" is on no lcore",
			       missing);
	(void)count_stages(r, CHP_STAGE_CONTROL, 1, &missing);
	if (missing != UINT32_MAX)
		chp_json_error(list, "expected one control stage: \"control\" is on no lcore");
	check_host_stage(r, list);
}

/* @return  whether the mapping is complete and right, so that pools can be computed from it */
static bool
read_lcores(struct reader *r)
{
	struct chp_json_place list = chp_json_key(&r->root, "lcores");
	uint32_t before = r->root.doc->errors->n;
	size_t n = json_array_size(list.value);

	if (!list.value)
		return false; /* reported as missing */
	if (n < 1 || n > CHP_LCORES_MAX) {
		chp_json_error(&list, "expected a list of 1 to %u lcores", CHP_LCORES_MAX);
		return false;
	}
	r->stages_ok = true;
	r->node->n_lcores = (uint32_t)n;
	for (uint32_t i = 0; i < n; i++) {
		struct chp_json_place item = chp_json_item(&list, i);

		read_lcore(r, i, &item);
	}
	if (r->stages_ok) /* otherwise what is missing may be what was misspelt */
		check_stages(r, &list);
	return r->root.doc->errors->n == before;
}

uint32_t
chp_node_lcore_of(const struct chp_node_config *n, enum chp_stage_kind kind, uint32_t index)
{
	for (uint32_t i = 0; i < n->n_lcores; i++) {
		for (uint32_t j = 0; j < n->lcore[i].n_stages; j++) {
			const struct chp_stage_config *s = &n->lcore[i].stage[j];

			if (s->kind == kind && s->index == index)
				return i;
		}
	}
	return UINT32_MAX;
}

uint32_t
chp_node_tx_of_shard(const struct chp_node_config *n, uint32_t shard)
{
	uint32_t lcore = chp_node_lcore_of(n, CHP_STAGE_SHARD, shard);

	CHP_ASSERT(lcore != UINT32_MAX && n->n_tx > 0);
	for (uint32_t i = 0; i < n->lcore[lcore].n_stages; i++) {
		if (n->lcore[lcore].stage[i].kind == CHP_STAGE_TX)
			return n->lcore[lcore].stage[i].index;
	}
	return shard % n->n_tx;
}

/* ---- the channel to the host ---- */

const char *
chp_channel_kind_name(enum chp_channel_kind kind)
{
	CHP_ASSERT_OP((uint32_t)kind, <, CHP_ARRAY_LEN(channel_names) - 1);
	return channel_names[kind];
}

void
chp_channel_keys_read(const struct chp_json_place *object, bool is_host, struct chp_channel_keys *to)
{
	static const char *const port_keys[] = { "channel", "port", NULL };
	static const char *const rdma_keys[] = { "channel", "address", NULL };
	uint64_t bad = chp_json_read(object, chp_channel_fields, to);
	struct chp_json_place port = chp_json_key(object, "port");
	struct chp_json_place address = chp_json_key(object, "address");

	if (to->channel == CHP_CHANNEL_KIND_PORT && chp_fields_ok(chp_channel_fields, bad, port_keys) &&
	    strcmp(to->port, "none") == 0)
		chp_json_error(&port, "expected the name of the DPDK port that leads to the %s, as \"%s\"",
			       is_host ? "replica" : "host", is_host ? "net_virtio_user0" : "net_vhost0");
	if (to->channel == CHP_CHANNEL_KIND_RDMA && chp_fields_ok(chp_channel_fields, bad, rdma_keys) && is_host &&
	    to->address == 0)
		chp_json_error(&address, "expected the address at which the replica listens");
}

static void
read_host(struct reader *r)
{
	struct chp_json_place place = chp_json_key(&r->root, "host");
	const char *s = json_string_value(place.value);
	bool none = !place.value || (s && strcmp(s, "none") == 0);
	uint32_t before = r->root.doc->errors->n;

	if (!r->cluster->hosts) {
		if (!none)
			chp_json_error(&place, "expected \"none\", or \"hosts\": true in the cluster file");
		return;
	}
	if (none) {
		chp_json_error(&place, "expected the channel to this node's host, { \"channel\": ... }: %s",
			       "the cluster has hosts");
		return;
	}
	chp_channel_keys_read(&place, false, &r->node->host);
	if (r->root.doc->errors->n == before && r->node->host.channel == CHP_CHANNEL_KIND_PORT &&
	    strcmp(r->node->host.port, r->node->port) == 0) {
		place = chp_json_key(&place, "port");
		chp_json_error(&place, "expected another port than that of the data network");
	}
}

/* ---- pools (SAFETY 15) ---- */

/* What may be under way between the shards and the host stage in one direction: queues, and a burst that is held. */
static uint32_t
host_mbufs(const struct chp_cluster_config *c, const struct chp_node_config *n, uint32_t local)
{
	uint32_t host = chp_node_lcore_of(n, CHP_STAGE_HOST, 0), mbufs = 0;

	for (uint32_t s = 0; s < c->shards && host != UINT32_MAX; s++)
		mbufs += (chp_node_lcore_of(n, CHP_STAGE_SHARD, s) != host ? n->stage_ring : local) + CHP_BURST_MAX;
	return mbufs;
}

uint32_t
chp_node_pool_min(const struct chp_cluster_config *c, const struct chp_node_config *n,
		  enum chp_pool which)
{
	uint32_t rings = 0, per_queue = n->rx_ring + 2 * CHP_BURST_MAX;

	switch (which) {
	case CHP_POOL_RX:
		/* One ring for peers and one for clients, where rx stage and shard are apart. */
		for (uint32_t rx = 0; rx < n->n_rx; rx++) {
			uint32_t lcore = chp_node_lcore_of(n, CHP_STAGE_RX, rx);

			for (uint32_t s = 0; s < c->shards; s++)
				rings += chp_node_lcore_of(n, CHP_STAGE_SHARD, s) != lcore ? 2 : 0;
		}
		if (strncmp(n->port, "net_af_xdp", strlen("net_af_xdp")) == 0)
			per_queue += AF_XDP_FILL;
		return n->n_rx * per_queue + rings * n->stage_ring + host_mbufs(c, n, HOST_LOCAL_RX);
	case CHP_POOL_TX:
		return n->n_tx * n->tx_ring + c->shards * (n->stage_ring + TX_MBUFS_PER_SHARD) +
		       host_mbufs(c, n, HOST_LOCAL_TX);
	case CHP_POOL_CONTROL:
		break;
	}
	return CONTROL_MBUFS;
}

static void
check_pool(const struct chp_json_place *pools, const char *key, uint32_t need, uint32_t *mbufs)
{
	struct chp_json_place place = chp_json_key(pools, key);

	if (*mbufs == 0)
		*mbufs = chp_pow2_up(need + 1) - 1; /* the size that a mempool wastes least with */
	else if (*mbufs < need)
		chp_json_error(&place,
			       "expected at least %u mbufs for its queues, rings and bursts", need);
}

static void
read_pools(struct reader *r, bool lcores_ok)
{
	static const char *const keys[] = { "rx", "tx", "control" };
	struct chp_node_config *n = r->node;
	struct chp_json_place pools = chp_json_key(&r->root, "pools");
	uint32_t *mbufs[] = { &n->rx_pool, &n->tx_pool, &n->control_pool };

	(void)chp_json_read(&pools, chp_pool_fields, n);
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(keys) && lcores_ok; i++)
		check_pool(&pools, keys[i], chp_node_pool_min(r->cluster, n, (enum chp_pool)i),
			   mbufs[i]);
}

/* ---- the rest ---- */

/* The first place if the file has it, else the second: where to blame a pair of values. */
static void
pick(const struct chp_json_place *object, const char *first, const char *second,
     struct chp_json_place *out)
{
	*out = chp_json_key(object, first);
	if (!out->value)
		*out = chp_json_key(object, second);
}

/*
 * A lease must be over when its holder is suspected, or every view without a dead member would wait for
 * the rest of it.
 */
static void
check_lease(const struct reader *r, const struct chp_json_place *timers, uint64_t bad)
{
	static const char *const keys[] = { "suspect_us", "lease_us", NULL };
	const struct chp_node_config *n = r->node;
	struct chp_json_place place;

	if (!chp_fields_ok(chp_timer_fields, bad, keys) || n->lease_ns < n->suspect_ns)
		return;
	pick(timers, "lease_us", "suspect_us", &place);
	chp_json_error(&place, "expected lease_us (%llu) to be less than suspect_us (%llu)",
		       (unsigned long long)(n->lease_ns / US_NS),
		       (unsigned long long)(n->suspect_ns / US_NS));
}

/*
 * Who granted a leader its lease elects no other before that is over on its own clock (SAFETY 18): with a lease
 * that is longer than the election time-out, elections would wait for it.
 */
static void
check_leader_lease(const struct reader *r, const struct chp_json_place *timers, uint64_t bad)
{
	static const char *const keys[] = { "election_us", "leader_lease_us", "clock_drift_ppm", NULL };
	const struct chp_node_config *n = r->node;
	uint64_t given_ns = n->leader_lease_ns + n->leader_lease_ns * 2 * n->clock_drift_ppm / 1000000;
	struct chp_json_place place;

	if (!chp_fields_ok(chp_timer_fields, bad, keys) || given_ns < n->election_ns)
		return;
	pick(timers, "leader_lease_us", "election_us", &place);
	chp_json_error(&place,
		       "expected leader_lease_us (%llu), with twice the clocks' drift %llu, to be less than "
		       "election_us (%llu), or 0 for none",
		       (unsigned long long)(n->leader_lease_ns / US_NS), (unsigned long long)(given_ns / US_NS),
		       (unsigned long long)(n->election_ns / US_NS));
}

/* Lcores that sleep longer than leaders may be silent would elect and elect. */
static void
check_election(const struct reader *r, const struct chp_json_place *timers, uint64_t timers_bad, uint64_t node_bad)
{
	static const char *const timer_keys[] = { "election_us", NULL };
	static const char *const node_keys[] = { "idle", "idle_sleep_us", NULL };
	const struct chp_node_config *n = r->node;
	struct chp_json_place place = chp_json_key(timers, "election_us");

	if (!chp_fields_ok(chp_timer_fields, timers_bad, timer_keys) ||
	    !chp_fields_ok(chp_node_fields, node_bad, node_keys) || n->idle != CHP_IDLE_SLEEP ||
	    n->election_ns >= ELECTION_SLEEPS * n->idle_sleep_ns)
		return;
	if (!place.value)
		place = chp_json_key(&r->root, "idle_sleep_us");
	chp_json_error(&place,
		       "expected election_us (%llu) to be at least %u * idle_sleep_us (%llu), or idle to be spin or yield",
		       (unsigned long long)(n->election_ns / US_NS), ELECTION_SLEEPS,
		       (unsigned long long)(n->idle_sleep_ns / US_NS));
}

static void
read_timers(struct reader *r, uint64_t node_bad)
{
	static const char *const rto_keys[] = { "rto_min_us", "rto_max_ms", NULL };
	static const char *const ack_keys[] = { "rto_min_us", "ack_delay_us", NULL };
	static const char *const down_keys[] = { "rto_max_ms", "link_down_ms", NULL };
	struct chp_json_place timers = chp_json_key(&r->root, "timers");
	struct chp_node_config *n = r->node;
	uint64_t bad = chp_json_read(&timers, chp_timer_fields, n);
	struct chp_json_place place;

	if (chp_fields_ok(chp_timer_fields, bad, rto_keys) && n->rto_ns_max < n->rto_ns_min) {
		pick(&timers, "rto_max_ms", "rto_min_us", &place);
		chp_json_error(&place,
			       "expected rto_max_ms (%llu) to be at least rto_min_us (%llu)",
			       (unsigned long long)(n->rto_ns_max / MS_NS),
			       (unsigned long long)(n->rto_ns_min / US_NS));
	}
	if (chp_fields_ok(chp_timer_fields, bad, ack_keys) && n->ack_delay_ns >= n->rto_ns_min) {
		pick(&timers, "ack_delay_us", "rto_min_us", &place);
		chp_json_error(&place,
			       "expected ack_delay_us (%llu) to be less than rto_min_us (%llu)",
			       (unsigned long long)(n->ack_delay_ns / US_NS),
			       (unsigned long long)(n->rto_ns_min / US_NS));
	}
	if (chp_fields_ok(chp_timer_fields, bad, down_keys) &&
	    n->link_down_ns <= 4 * n->rto_ns_max) {
		pick(&timers, "link_down_ms", "rto_max_ms", &place);
		chp_json_error(&place,
			       "expected link_down_ms (%llu) to be more than 4 * rto_max_ms (%llu)",
			       (unsigned long long)(n->link_down_ns / MS_NS),
			       (unsigned long long)(n->rto_ns_max / MS_NS));
	}
	check_lease(r, &timers, bad);
	check_leader_lease(r, &timers, bad);
	check_election(r, &timers, bad, node_bad);
}

/* What peers may have begun needs entries and, for the largest records, blocks (SAFETY 12). */
static void
check_log(const struct reader *r)
{
	const struct chp_cluster_config *c = r->cluster;
	struct chp_node_config *n = r->node;
	uint32_t entries = chp_pow2_up(4 * c->n_members * c->credits);
	uint32_t blocks = CHP_RECORD_BLOCKS_MAX * 2 * c->n_members * c->credits;
	struct chp_json_place place;

	if (n->log_entries == 0)
		n->log_entries = entries > LOG_ENTRIES_DEFAULT ? entries : LOG_ENTRIES_DEFAULT;
	if (n->log_entries < entries) {
		place = chp_json_key(&r->root, "log_entries");
		chp_json_error(&place,
			       "expected at least %u: 4 * %u members * %u credits, a power of two",
			       entries, c->n_members, c->credits);
	}
	if (n->log_blocks == 0)
		n->log_blocks = blocks + LOG_BLOCKS_SPARE;
	if (n->log_blocks < blocks) {
		place = chp_json_key(&r->root, "log_blocks");
		chp_json_error(&place, "expected at least %u: %u * 2 * %u members * %u credits",
			       blocks, CHP_RECORD_BLOCKS_MAX, c->n_members, c->credits);
	}
	if (n->ops == 0)
		n->ops = 2 * c->credits > OPS_DEFAULT ? 2 * c->credits : OPS_DEFAULT;
	if (n->ops < 2 * c->credits) {
		place = chp_json_key(&r->root, "ops");
		chp_json_error(&place, "expected at least %u: 2 * %u credits", 2 * c->credits,
			       c->credits);
	}
}

/* Host parts of 0 and all ones are no node's, but in a network of only two (RFC 3021). */
static bool
is_host(uint32_t address, uint32_t mask)
{
	uint32_t host = address & ~mask;

	return ~mask == 1 || (host != 0 && host != ~mask);
}

static void
check_gateway(const struct reader *r, uint32_t own, uint32_t mask, const char *network)
{
	const struct chp_cluster_config *c = r->cluster;
	struct chp_json_place place = chp_json_key(&r->root, "gateway");
	uint32_t gateway = r->node->gateway;
	char address[16];

	for (uint32_t i = 0; i < c->n_members && gateway == 0 && r->node->peers == CHP_PEERS_UDP; i++) {
		if ((c->member[i].address & mask) == (own & mask))
			continue;
		chp_address_text(c->member[i].address, address);
		chp_json_error(&place, "expected a router's address: member %u (%s) is outside %s",
			       i, address, network);
		return;
	}
	if (gateway == 0)
		return;
	if ((gateway & mask) != (own & mask) || !is_host(gateway, mask))
		chp_json_error(&place, "expected the address of a router in %s, where this node is",
			       network);
	for (uint32_t i = 0; i < c->n_members; i++) {
		if (c->member[i].address == gateway)
			chp_json_error(&place, "expected a router's address: this is member %u", i);
	}
}

/* A frame without IPv4 goes no further than its Ethernet: no router passes it on. */
static void
check_peers(const struct reader *r, uint32_t own, uint32_t mask, const char *network)
{
	const struct chp_cluster_config *c = r->cluster;
	struct chp_json_place place = chp_json_key(&r->root, "peers");
	char address[16];

	for (uint32_t i = 0; i < c->n_members && r->node->peers == CHP_PEERS_ETHERNET; i++) {
		if ((c->member[i].address & mask) == (own & mask))
			continue;
		chp_address_text(c->member[i].address, address);
		chp_json_error(&place, "expected \"udp\": member %u (%s) is outside %s, where only routers reach",
			       i, address, network);
		return;
	}
}

static void
check_network(const struct reader *r, bool gateway_ok, bool peers_ok)
{
	const struct chp_cluster_config *c = r->cluster;
	const struct chp_node_config *n = r->node;
	uint32_t mask = UINT32_MAX << (32 - n->prefix_len), own = c->member[n->node].address;
	struct chp_json_place place;
	char address[16], network[24];

	chp_address_text(own & mask, address);
	(void)snprintf(network, sizeof(network), "%s/%u", address, n->prefix_len);
	pick(&r->root, "prefix_len", "node", &place);
	for (uint32_t i = 0; i < c->n_members; i++) {
		uint32_t a = c->member[i].address;

		if ((a & mask) != (own & mask) || is_host(a, mask))
			continue;
		chp_address_text(a, address);
		chp_json_error(&place,
			       "expected another prefix_len: member %u (%s) has no host part in %s",
			       i, address, network);
	}
	if (gateway_ok)
		check_gateway(r, own, mask, network);
	if (peers_ok)
		check_peers(r, own, mask, network);
}

/*
 * What ports can match in common ends at the EtherType: all frames of peers would come to queue 0, and its lcore
 * would quietly have the work of all.
 */
static void
check_steer(const struct reader *r, uint64_t bad)
{
	static const char *const keys[] = { "peers", "steer", NULL };
	struct chp_json_place place = chp_json_key(&r->root, "steer");

	if (chp_fields_ok(chp_node_fields, bad, keys) && r->node->steer && r->node->peers == CHP_PEERS_ETHERNET)
		chp_json_error(&place, "expected false with \"peers\": \"ethernet\": ports steer by UDP port, which "
			       "these frames do not have");
}

bool
chp_node_config_parse(const char *text, size_t len, const char *file,
		      const struct chp_cluster_config *cluster, struct chp_node_config *out,
		      struct chp_config_errors *errors)
{
	static const char *const network_keys[] = { "node", "prefix_len", NULL };
	static const char *const gateway_keys[] = { "gateway", NULL };
	static const char *const peers_keys[] = { "peers", NULL };
	struct reader r = { .cluster = cluster, .node = out };
	struct chp_json_place place;
	uint32_t before = errors->n;
	struct chp_json_doc doc;
	uint64_t bad;
	bool mapped;

	memset(out, 0, sizeof(*out));
	if (!chp_json_open(&doc, text, len, file, errors))
		return false;
	r.root = chp_json_root(&doc);
	bad = chp_json_read(&r.root, chp_node_fields, out);
	if (out->node >= cluster->n_members) {
		place = chp_json_key(&r.root, "node");
		chp_json_error(&place,
			       "node id %u is not in the cluster file: it has members 0 to %u",
			       out->node, cluster->n_members - 1);
	} else if (chp_fields_ok(chp_node_fields, bad, network_keys)) {
		check_network(&r, chp_fields_ok(chp_node_fields, bad, gateway_keys),
			      chp_fields_ok(chp_node_fields, bad, peers_keys));
	}
	mapped = read_lcores(&r);
	if (mapped && out->steer && out->n_rx != cluster->shards) {
		place = chp_json_key(&r.root, "steer");
		chp_json_error(&place, "expected one rx queue per shard: there are %u and %u",
			       out->n_rx, cluster->shards);
	}
	check_steer(&r, bad);
	read_pools(&r, mapped);
	check_log(&r);
	read_timers(&r, bad);
	read_host(&r);
	chp_json_close(&doc);
	return errors->n == before;
}
