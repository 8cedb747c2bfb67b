/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cluster.c - the cluster file: its keys, what they must agree on, and its hash.
 */
#include "base/assert.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "config/json.h"

#include <stdio.h>
#include <string.h>

#define SECOND_NS UINT64_C(1000000000)
#define US_NS UINT64_C(1000)
#define SESSION_IDLE_S_MAX (365u * 24 * 3600)

/* A hash seed is a JSON number, and jansson's integers are signed. */
#define HASH_SEED_MAX ((uint64_t)INT64_MAX)

/* Order of enum chp_durability. The level between them comes with the log on disk. */
static const char *const durability_names[] = { "memory", "datastore", NULL };
static const char *const durability_later[] = { "log", NULL };

/* Protocols in which every write waits for every live replica. */
static const char *const all_live_protocols[] = { "hermes", NULL };

#define C chp_cluster_config
const struct chp_field chp_cluster_fields[] = {
	CHP_ROW_NAME(C, name, "name", "the cluster's name"),
	CHP_ROW_NAME_DEFAULT(C, protocol, "protocol", "hermes", "the replication protocol"),
	CHP_ROW_NAME_DEFAULT(C, application, "application", "store", "what operations do"),
	CHP_ROW_UINT(C, shards, "shards", 1, CHP_SHARDS_MAX, 1, 1, "slices of the key space"),
	CHP_ROW_UINT(C, hash_seed, "hash_seed", 0, HASH_SEED_MAX, 0, 1, "the seed of key digests"),
	CHP_ROW_UINT(C, mtu, "mtu", CHP_MTU_MIN, CHP_MTU_MAX, 1500, 1, "the network's MTU"),
	CHP_ROW_UINT(C, port_base, "port_base", 1024, UINT16_MAX, 7168, 1, "the first UDP port"),
	CHP_ROW_UINT(C, key_bytes_max, "key_bytes_max", 8, CHP_KEY_BYTES_MAX, CHP_KEY_BYTES_MAX, 1,
		     "the longest key"),
	CHP_ROW_UINT(C, value_bytes_max, "value_bytes_max", 1, CHP_VALUE_BYTES_MAX,
		     CHP_VALUE_BYTES_MAX, 1, "the longest value"),
	CHP_ROW_UINT(C, keys_max, "keys_max", 1, CHP_KEYS_MAX, 1000000, 1, "keys of a shard"),
	CHP_ROW_UINT(C, value_blocks_max, "value_blocks_max", 0, CHP_BLOCKS_MAX / 2, 262144, 1,
		     "value blocks of a shard"),
	CHP_ROW_UINT(C, sessions_max, "sessions_max", 1, CHP_SESSIONS_MAX, 1024, 1,
		     "sessions of a shard"),
	CHP_ROW_POW2(C, session_window, "session_window", 1, CHP_SESSION_WINDOW_MAX, 64,
		     "requests a session may have in flight"),
	CHP_ROW_UINT(C, session_idle_ns, "session_idle_s", 1, SESSION_IDLE_S_MAX, 3600, SECOND_NS,
		     "how long a session may be idle"),
	CHP_ROW_UINT(C, credits, "credits", 1, CHP_CREDITS_MAX, 256, 1,
		     "operations a peer may have open"),
	CHP_ROW_UINT(C, link_window, "link_window", 1, CHP_LINK_WINDOW_MAX, 32, 1,
		     "packets a link may have in flight"),
	CHP_ROW_BOOL(C, hosts, "hosts", false, "whether each member has a host with a datastore"),
	CHP_ROW_CHOICE(C, durability, "durability", durability_names, durability_later,
		       CHP_DURABILITY_MEMORY, "when a write is acknowledged"),
	CHP_ROW_FREE(C, batch_items, "batch_items", 1, 65536, 1024, 1, "versions of a batch for the host"),
	CHP_ROW_FREE(C, batch_bytes, "batch_bytes", 4096, 1048576, 65536, 1, "bytes of a batch for the host"),
	CHP_ROW_FREE(C, batch_age_ns, "batch_age_us", 0, 1000000, 500, US_NS,
		     "how long a batch for the host may wait"),
	CHP_ROW_FREE(C, loads_max, "loads_max", 1, 65536, 1024, 1, "keys that a shard may ask its host for"),
	CHP_ROW_FREE(C, host_grace_ns, "host_grace_s", 1, 86400, 10, SECOND_NS,
		     "how long a replica stays in the view without its host"),
	CHP_ROW_FREE(C, busy_fill_percent, "busy_fill_percent", 10, 98, 80, 1,
		     "how full the log may be before operations are refused"),
	CHP_ROW_FREE(C, leave_fill_percent, "leave_fill_percent", 11, 99, 95, 1,
		     "how full the log may be before the replica leaves the view"),
	CHP_ROW_CUSTOM("members", CHP_FIELD_REQUIRED,
		       "a list of members, { \"name\": ..., \"address\": ... }"),
	{ .type = CHP_FIELD_END },
};
#undef C

const struct chp_field chp_member_fields[] = {
	CHP_ROW_NAME(chp_member_config, name, "name", "the member's name"),
	CHP_ROW_ADDRESS(chp_member_config, address, "address", CHP_FIELD_REQUIRED,
			"the member's address on the data network"),
	{ .type = CHP_FIELD_END },
};

_Static_assert(sizeof(enum chp_durability) == sizeof(uint32_t), "fields of 4 bytes");

static bool
is_one_of(const char *const *names, const char *name)
{
	for (; *names; names++) {
		if (strcmp(*names, name) == 0)
			return true;
	}
	return false;
}

/* The value of a key must be one of the names that the caller knows. */
static void
check_name(const struct chp_json_place *root, const char *key, const char *const *names, const char *name)
{
	struct chp_json_place place = chp_json_key(root, key);
	char buffer[CHP_CONFIG_ERROR_BYTES];
	struct chp_line known = chp_line_init(buffer, sizeof(buffer));

	if (is_one_of(names, name))
		return;
	for (uint32_t i = 0; names[i]; i++)
		chp_line_add(&known, "%s%s", i > 0 ? ", " : "", names[i]);
	chp_json_error(&place, "expected one of: %s", buffer);
}

/* Names and addresses must tell members apart. Wrong ones were reported and are empty here. */
static void
check_member(const struct chp_json_place *list, const struct chp_cluster_config *c, uint32_t id)
{
	const struct chp_member_config *m = &c->member[id];
	struct chp_json_place item = chp_json_item(list, id);
	struct chp_json_place name = chp_json_key(&item, "name");
	struct chp_json_place address = chp_json_key(&item, "address");

	for (uint32_t i = 0; m->name[0] && i < id; i++) {
		if (strcmp(c->member[i].name, m->name) == 0) {
			chp_json_error(&name, "expected a name of its own: member %u has this one",
				       i);
			break;
		}
	}
	for (uint32_t i = 0; m->address != 0 && i < id; i++) {
		if (c->member[i].address == m->address) {
			chp_json_error(&address,
				       "expected an address of its own: member %u has this one", i);
			break;
		}
	}
}

static void
read_members(const struct chp_json_place *root, struct chp_cluster_config *c)
{
	struct chp_json_place list = chp_json_key(root, "members");
	bool all_live = is_one_of(all_live_protocols, c->protocol);
	uint32_t max = all_live ? CHP_REPLICAS_MAX : CHP_NODES_MAX;
	size_t n = json_array_size(list.value);

	if (!list.value)
		return; /* reported as missing */
	if (!json_is_array(list.value))
		chp_json_error(&list,
			       "expected a list of members, { \"name\": ..., \"address\": ... }");
	else if (n < 1 || n > max)
		chp_json_error(&list, "expected 1 to %u members%s%s", max,
			       all_live ? " with the protocol " : "", all_live ? c->protocol : "");
	c->n_members = (uint32_t)(n < CHP_NODES_MAX ? n : CHP_NODES_MAX);
	for (uint32_t i = 0; i < c->n_members; i++) {
		struct chp_json_place item = chp_json_item(&list, i);

		(void)chp_json_read(&item, chp_member_fields, &c->member[i]);
		check_member(&list, c, i);
	}
}

/* The shards' ports start at a multiple of a power of two: one masked rule matches them all. */
static void
check_ports(const struct chp_json_place *root, const struct chp_cluster_config *c)
{
	struct chp_json_place place = chp_json_key(root, "port_base");
	uint32_t span = chp_pow2_up(c->shards);
	uint32_t last = (UINT16_MAX - CHP_PORTS_EXTRA - span) / span * span;
	uint32_t next = chp_min_u32(chp_align_u32(c->port_base, span), last);

	if (c->port_base % span != 0)
		chp_json_error(&place,
			       "expected a multiple of %u (%u shards, as a power of 2), such as %u",
			       span, c->shards, next);
	else if (c->port_base > last)
		chp_json_error(&place, "expected at most %u: %u ports must follow it", last,
			       span + CHP_PORTS_EXTRA - 1);
}

/* Beyond keys_max the cache keeps a slot for everything that peers may have begun (SAFETY 12). */
static void
check_keys(const struct chp_json_place *root, const struct chp_cluster_config *c)
{
	struct chp_json_place place = chp_json_key(root, "keys_max");
	uint32_t max = CHP_KEYS_MAX - CHP_HEADROOMS * c->n_members * c->credits;

	if (c->keys_max > max)
		chp_json_error(&place,
			       "expected at most %u: %u * %u members * %u credits need slots too",
			       max, CHP_HEADROOMS, c->n_members, c->credits);
}

/* Sessions never leave the cache: where it holds a part of the data, there must be room that others can have. */
static void
check_cache(const struct chp_json_place *root, const struct chp_cluster_config *c)
{
	struct chp_json_place place = chp_json_key(root, "keys_max");

	if (!place.value)
		place = chp_json_key(root, "sessions_max");
	if (c->hosts && c->keys_max < 2 * c->sessions_max)
		chp_json_error(&place, "expected keys_max (%u) to be at least 2 * sessions_max (%u) with hosts",
			       c->keys_max, c->sessions_max);
}

/* With a log the last place is kept for the switch to "majority", which must get through when all others wait. */
static void
check_credits(const struct chp_json_place *root, const struct chp_cluster_config *c)
{
	struct chp_json_place place = chp_json_key(root, "credits");

	if (c->credits < 2 && !is_one_of(all_live_protocols, c->protocol))
		chp_json_error(&place, "expected at least 2 with the protocol %s", c->protocol);
}

static void
check_hosts(const struct chp_json_place *root, const struct chp_cluster_config *c)
{
	struct chp_json_place durability = chp_json_key(root, "durability");

	if (!c->hosts && c->durability == CHP_DURABILITY_DATASTORE)
		chp_json_error(&durability, "expected \"memory\", or \"hosts\": true");
}

static void
check_fill(const struct chp_json_place *root, const struct chp_cluster_config *c)
{
	struct chp_json_place place = chp_json_key(root, "leave_fill_percent");

	if (!place.value)
		place = chp_json_key(root, "busy_fill_percent");
	if (c->leave_fill_percent <= c->busy_fill_percent)
		chp_json_error(&place, "expected leave_fill_percent (%u) to be more than busy_fill_percent (%u)",
			       c->leave_fill_percent, c->busy_fill_percent);
}

bool
chp_cluster_config_parse(const char *text, size_t len, const char *file,
			 const char *const *protocols, const char *const *applications,
			 struct chp_cluster_config *out, struct chp_config_errors *errors)
{
	static const char *const port_keys[] = { "shards", "port_base", NULL };
	static const char *const key_keys[] = { "keys_max", "credits", NULL };
	static const char *const cache_keys[] = { "keys_max", "sessions_max", "hosts", NULL };
	static const char *const credit_keys[] = { "protocol", "credits", NULL };
	static const char *const host_keys[] = { "hosts", "durability", NULL };
	static const char *const fill_keys[] = { "busy_fill_percent", "leave_fill_percent", NULL };
	static const char *const protocol_keys[] = { "protocol", NULL };
	static const char *const application_keys[] = { "application", NULL };
	uint32_t before = errors->n;
	struct chp_json_place root;
	struct chp_json_doc doc;
	uint64_t bad;

	memset(out, 0, sizeof(*out));
	if (!chp_json_open(&doc, text, len, file, errors))
		return false;
	root = chp_json_root(&doc);
	bad = chp_json_read(&root, chp_cluster_fields, out);
	if (chp_fields_ok(chp_cluster_fields, bad, protocol_keys))
		check_name(&root, "protocol", protocols, out->protocol);
	if (chp_fields_ok(chp_cluster_fields, bad, application_keys))
		check_name(&root, "application", applications, out->application);
	read_members(&root, out);
	if (chp_fields_ok(chp_cluster_fields, bad, port_keys))
		check_ports(&root, out);
	if (chp_fields_ok(chp_cluster_fields, bad, key_keys))
		check_keys(&root, out);
	if (chp_fields_ok(chp_cluster_fields, bad, cache_keys))
		check_cache(&root, out);
	if (chp_fields_ok(chp_cluster_fields, bad, credit_keys))
		check_credits(&root, out);
	if (chp_fields_ok(chp_cluster_fields, bad, host_keys))
		check_hosts(&root, out);
	if (chp_fields_ok(chp_cluster_fields, bad, fill_keys))
		check_fill(&root, out);
	out->hash = chp_cluster_config_hash(out);
	chp_json_close(&doc);
	return errors->n == before;
}

/*
 * SAFETY 37. The hash is over a text: one line for what code and not the file decides, then
 * "key=value" for every row of the table, so that a new key is covered without anyone thinking of
 * it. The members are left out, because they seed the first view, and what each member does for itself.
 */
uint32_t
chp_cluster_config_hash(const struct chp_cluster_config *c)
{
	char buffer[4096];
	struct chp_line t = chp_line_init(buffer, sizeof(buffer));
	uint32_t hash;
	uint64_t h;

	chp_line_add(&t, "chaapar-cluster-1 digest=xxh3-128;");
	for (const struct chp_field *f = chp_cluster_fields; f->type != CHP_FIELD_END; f++) {
		uint64_t number;

		if (f->type == CHP_FIELD_CUSTOM || f->is_free)
			continue;
		chp_line_add(&t, "%s=", f->key);
		if (f->type == CHP_FIELD_NAME) {
			chp_line_add(&t, "%s;", (const char *)c + f->offset);
			continue;
		}
		number = chp_field_number(f, c);
		if (f->type == CHP_FIELD_CHOICE)
			chp_line_add(&t, "%s;", f->choices[number]);
		else
			chp_line_add(&t, "%llu;", (unsigned long long)number);
	}
	CHP_ASSERT(!t.cut);
	h = chp_hash64(t.at, t.len, 0);
	hash = (uint32_t)(h ^ h >> 32);
	return hash != 0 ? hash : 1; /* 0 in a packet means "not known yet" */
}
