/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * print.c - the effective configuration as JSON, and what follows from it.
 */
#include "base/assert.h"
#include "base/blocks.h"
#include "base/bytes.h"
#include "config/host.h"
#include "config/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOT_BYTES 64u
#define LOG_ENTRY_BYTES 128u
/* rte_hash with 16-byte keys: measured, 57 to 62 bytes a key with its spare buckets. */
#define INDEX_BYTES_PER_KEY 60u
#define SESSION_BYTES 64u
#define SESSION_RECORD_BYTES 32u
/* struct rte_mbuf, the mempool's header and trailer. */
#define MBUF_OVERHEAD_BYTES 256u
/* DPDK's head room; what most drivers want at least; Ethernet header, FCS and two VLAN tags. */
#define MBUF_HEAD_ROOM 128u
#define MBUF_ROOM_MIN 2048u
#define FRAME_OVERHEAD_BYTES 26u
/* Of the channel to the host, beyond its rings (channel/port.c). */
#define CHANNEL_MBUFS 320u
#define PAGE_BYTES 4096u

/* JSON being built: the first failed allocation makes the whole fail. */
struct builder {
	bool failed;
};

static void
put(struct builder *b, json_t *object, const char *key, json_t *value)
{
	if (json_object_set_new(object, key, value) != 0)
		b->failed = true;
}

static void
put_number(struct builder *b, json_t *object, const char *key, uint64_t number)
{
	put(b, object, key, json_integer((json_int_t)number));
}

static void
append(struct builder *b, json_t *list, json_t *value)
{
	if (json_array_append_new(list, value) != 0)
		b->failed = true;
}

__attribute__((format(printf, 3, 4))) static void
append_line(struct builder *b, json_t *list, const char *format, ...)
{
	char buffer[4096 + 64]; /* a line of every stage there is */
	struct chp_line t = chp_line_init(buffer, sizeof(buffer));
	va_list args;

	va_start(args, format);
	chp_line_vadd(&t, format, args);
	va_end(args);
	append(b, list, json_string(buffer));
}

/* One row of a table; NULL for what has a function of its own. */
static json_t *
field_to_json(const struct chp_field *f, const void *from)
{
	uint64_t number;
	char address[16];

	switch (f->type) {
	case CHP_FIELD_UINT:
	case CHP_FIELD_POW2:
		return json_integer((json_int_t)(chp_field_number(f, from) / f->unit));
	case CHP_FIELD_BOOL:
		return json_boolean(chp_field_number(f, from));
	case CHP_FIELD_CHOICE:
		return json_string(f->choices[chp_field_number(f, from)]);
	case CHP_FIELD_NAME:
	case CHP_FIELD_PORT:
		return json_string((const char *)from + f->offset);
	case CHP_FIELD_ADDRESS:
		number = chp_field_number(f, from);
		if (number == 0)
			return json_string("none");
		chp_address_text((uint32_t)number, address);
		return json_string(address);
	case CHP_FIELD_CUSTOM:
	case CHP_FIELD_IGNORED:
	case CHP_FIELD_END:
		break;
	}
	return NULL;
}

/*
 * An object with the rows of a table, in its order. A row with a function of its own gets the value
 * that `custom` gives; ignored rows are left out.
 */
static json_t *
fields_to_json(struct builder *b, const struct chp_field *fields, const void *from,
	       json_t *(*custom)(struct builder *b, const char *key, const void *from))
{
	json_t *object = json_object();

	for (const struct chp_field *f = fields; f->type != CHP_FIELD_END; f++) {
		if (f->type == CHP_FIELD_IGNORED)
			continue;
		if (f->type == CHP_FIELD_CUSTOM)
			put(b, object, f->key, custom(b, f->key, from));
		else
			put(b, object, f->key, field_to_json(f, from));
	}
	return object;
}

/* The text of a value that is given up here. */
static char *
dump(struct builder *b, json_t *value)
{
	char *text = b->failed ? NULL : json_dumps(value, JSON_INDENT(2));

	json_decref(value);
	return text;
}

/* ---- the cluster file ---- */

static json_t *
cluster_custom(struct builder *b, const char *key, const void *from)
{
	const struct chp_cluster_config *c = from;
	json_t *members = json_array();

	CHP_ASSERT(strcmp(key, "members") == 0);
	for (uint32_t i = 0; i < c->n_members; i++)
		append(b, members, fields_to_json(b, chp_member_fields, &c->member[i], NULL));
	return members;
}

char *
chp_cluster_config_print(const struct chp_cluster_config *c)
{
	struct builder b = { 0 };

	return dump(&b, fields_to_json(&b, chp_cluster_fields, c, cluster_custom));
}

/* ---- the node file ---- */

static json_t *
lcore_custom(struct builder *b, const char *key, const void *from)
{
	const struct chp_lcore_config *l = from;
	json_t *stages = json_array();
	char stage[16];

	CHP_ASSERT(strcmp(key, "stages") == 0);
	for (uint32_t i = 0; i < l->n_stages; i++) {
		chp_stage_text(&l->stage[i], stage);
		append(b, stages, json_string(stage));
	}
	return stages;
}

static json_t *
node_custom(struct builder *b, const char *key, const void *from)
{
	const struct chp_node_config *n = from;
	json_t *lcores;

	if (strcmp(key, "pools") == 0)
		return fields_to_json(b, chp_pool_fields, n, NULL);
	if (strcmp(key, "timers") == 0)
		return fields_to_json(b, chp_timer_fields, n, NULL);
	if (strcmp(key, "host") == 0)
		return chp_node_lcore_of(n, CHP_STAGE_HOST, 0) == UINT32_MAX
			       ? json_string("none")
			       : fields_to_json(b, chp_channel_fields, &n->host, NULL);
	CHP_ASSERT(strcmp(key, "lcores") == 0);
	lcores = json_array();
	for (uint32_t i = 0; i < n->n_lcores; i++)
		append(b, lcores, fields_to_json(b, chp_lcore_fields, &n->lcore[i], lcore_custom));
	return lcores;
}

/* ---- what follows from both files ---- */

/* "123.4 MiB" */
static json_t *
human_bytes(uint64_t bytes)
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
	uint64_t tenths = bytes * 10;
	uint32_t unit = 0;
	char text[32];

	while (tenths >= 10240 && unit + 1 < CHP_ARRAY_LEN(units)) {
		tenths /= 1024;
		unit++;
	}
	(void)snprintf(text, sizeof(text), "%llu.%llu %s", (unsigned long long)(tenths / 10),
		       (unsigned long long)(tenths % 10), units[unit]);
	return json_string(text);
}

static json_t *
memory_to_json(struct builder *b, const struct chp_node_config *n,
	       const struct chp_cluster_config *c)
{
	/* What peers may have begun has slots and blocks behind the configured ones (SAFETY 12). */
	uint64_t headroom = (uint64_t)CHP_HEADROOMS * c->n_members * c->credits;
	uint64_t slots = c->keys_max + headroom;
	uint64_t blocks = c->value_blocks_max + headroom * CHP_RECORD_BLOCKS_MAX;
	uint64_t cache = slots * (SLOT_BYTES + INDEX_BYTES_PER_KEY) + blocks * CHP_BLOCK_BYTES;
	uint64_t log = (uint64_t)n->log_entries * LOG_ENTRY_BYTES +
		       (uint64_t)n->log_blocks * CHP_BLOCK_BYTES;
	uint64_t sessions = (uint64_t)c->sessions_max *
			    (SESSION_BYTES + (uint64_t)SESSION_RECORD_BYTES * c->session_window);
	uint32_t room = chp_align_u32(c->mtu + FRAME_OVERHEAD_BYTES, CHP_CACHE_LINE);
	uint64_t mbuf = (room > MBUF_ROOM_MIN ? room : MBUF_ROOM_MIN) + MBUF_HEAD_ROOM +
			MBUF_OVERHEAD_BYTES;
	uint64_t mbufs = (uint64_t)n->rx_pool + n->tx_pool + n->control_pool;
	/* Both rings of a port, what is lent and under way, a page each without hugepages. */
	uint64_t channel = c->hosts ? (2 * n->host.ring + CHANNEL_MBUFS) * (mbuf > PAGE_BYTES ? mbuf : PAGE_BYTES) : 0;
	uint64_t total = c->shards * (cache + log + sessions) + mbufs * mbuf + channel;
	json_t *o = json_object();

	put_number(b, o, "cache_bytes_per_shard", cache);
	put_number(b, o, "log_bytes_per_shard", log);
	put_number(b, o, "sessions_bytes_per_shard", sessions);
	put_number(b, o, "bytes_per_mbuf", mbuf);
	put_number(b, o, "pools_bytes", mbufs * mbuf);
	if (c->hosts)
		put_number(b, o, "channel_bytes", channel);
	put_number(b, o, "total_bytes", total);
	put(b, o, "total", human_bytes(total));
	return o;
}

/* One line an lcore. */
static void
add_lcores(struct builder *b, json_t *map, const struct chp_node_config *n,
	   const struct chp_cluster_config *c)
{
	for (uint32_t i = 0; i < n->n_lcores; i++) {
		const struct chp_lcore_config *l = &n->lcore[i];
		char buffer[4096], name[16];
		struct chp_line t = chp_line_init(buffer, sizeof(buffer));

		for (uint32_t j = 0; j < l->n_stages; j++) {
			const struct chp_stage_config *s = &l->stage[j];

			chp_stage_text(s, name);
			chp_line_add(&t, "%s%s", j > 0 ? ", " : "", name);
			if (s->kind == CHP_STAGE_RX || s->kind == CHP_STAGE_TX)
				chp_line_add(&t, " (queue %u)", s->index);
			else if (s->kind == CHP_STAGE_SHARD)
				chp_line_add(&t, " (UDP port %u)", c->port_base + s->index);
			else if (s->kind == CHP_STAGE_CONTROL)
				chp_line_add(&t, " (UDP port %u)",
					     c->port_base + chp_pow2_up(c->shards));
			else
				chp_line_add(&t, " (%s)", chp_channel_kind_name(n->host.channel));
		}
		append_line(b, map, "lcore %u: %s", l->lcore, buffer);
	}
}

/* One line for each pair of stages that hand packets over. */
static void
add_rings(struct builder *b, json_t *map, const struct chp_node_config *n,
	  const struct chp_cluster_config *c)
{
	for (uint32_t s = 0; s < c->shards; s++) {
		uint32_t lcore = chp_node_lcore_of(n, CHP_STAGE_SHARD, s);
		uint32_t tx = chp_node_tx_of_shard(n, s);

		for (uint32_t rx = 0; rx < n->n_rx; rx++) {
			if (chp_node_lcore_of(n, CHP_STAGE_RX, rx) == lcore)
				append_line(b, map, "rx%u -> shard%u: no ring, same lcore", rx, s);
			else
				append_line(b, map,
					    "rx%u -> shard%u: 2 rings of %u, peers and clients", rx,
					    s, n->stage_ring);
		}
		if (chp_node_lcore_of(n, CHP_STAGE_TX, tx) == lcore)
			append_line(b, map, "shard%u -> tx%u: no ring, same lcore", s, tx);
		else
			append_line(b, map, "shard%u -> tx%u: ring of %u", s, tx, n->stage_ring);
		if (!c->hosts)
			continue;
		if (chp_node_lcore_of(n, CHP_STAGE_HOST, 0) == lcore)
			append_line(b, map, "shard%u <-> host: no rings, same lcore", s);
		else
			append_line(b, map, "shard%u <-> host: rings of %u", s, n->stage_ring);
	}
}

static json_t *
derived_to_json(struct builder *b, const struct chp_node_config *n,
		const struct chp_cluster_config *c)
{
	json_t *o = json_object(), *map = json_array();
	char text[16];

	put(b, o, "cluster", json_string(c->name));
	(void)snprintf(text, sizeof(text), "0x%08x", c->hash);
	put(b, o, "cluster_hash", json_string(text));
	put(b, o, "name", json_string(c->member[n->node].name));
	chp_address_text(c->member[n->node].address, text);
	put(b, o, "address", json_string(text));
	put(b, o, "memory", memory_to_json(b, n, c));
	append_line(b, map, "port %s: %u rx and %u tx queues of %u and %u descriptors", n->port,
		    n->n_rx, n->n_tx, n->rx_ring, n->tx_ring);
	append_line(b, map, "to other members: %s",
		    n->peers == CHP_PEERS_ETHERNET ? "raw Ethernet, EtherType 0x88b5" : "UDP");
	append_line(b, map, "any shard: UDP port %u", c->port_base + chp_pow2_up(c->shards) + 1);
	add_lcores(b, map, n, c);
	add_rings(b, map, n, c);
	put(b, o, "map", map);
	return o;
}

char *
chp_node_config_print(const struct chp_node_config *n, const struct chp_cluster_config *c)
{
	struct builder b = { 0 };
	json_t *o = fields_to_json(&b, chp_node_fields, n, node_custom);

	CHP_ASSERT_OP(n->node, <, c->n_members);
	put(&b, o, "derived", derived_to_json(&b, n, c));
	return dump(&b, o);
}

/* ---- the host file ---- */

/* What is printed ends in logs and tickets: what lets people in is not, whatever adapter has it. */
static json_t *
without_secrets(const json_t *store)
{
	json_t *o = json_copy((json_t *)(uintptr_t)store);
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)store, key, value) {
		if (strstr(key, "password") != NULL || strstr(key, "secret") != NULL)
			(void)json_object_set_new(o, key, json_string("hidden"));
	}
	return o;
}

static json_t *
host_custom(struct builder *b, const char *key, const void *from)
{
	const struct chp_host_file *h = from;

	if (strcmp(key, "channel") == 0)
		return fields_to_json(b, chp_channel_fields, &h->channel, NULL);
	if (strcmp(key, "store") == 0)
		return without_secrets(h->store);
	CHP_ASSERT(strcmp(key, "status") == 0);
	return h->status[0] != '\0' ? json_string(h->status) : json_null();
}

char *
chp_host_file_print(const struct chp_host_file *h, uint64_t bytes)
{
	struct builder b = { 0 };
	json_t *o = fields_to_json(&b, chp_host_fields, h, host_custom), *derived = json_object();

	if (h->status[0] == '\0')
		(void)json_object_del(o, "status");
	put_number(&b, derived, "total_bytes", bytes);
	put(&b, derived, "total", human_bytes(bytes));
	put(&b, o, "derived", derived);
	return dump(&b, o);
}
