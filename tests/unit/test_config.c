/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_config.c - the configuration files: defaults, every message, round trips, the cluster hash.
 *
 * Runs in the repository's root: it reads conf/ and docs/config.md too.
 */
#include "base/bytes.h"
#include "base/digest.h"
#include "base/random.h"
#include "config/config.h"
#include "config/json.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const protocols[] = { "hermes", "zab", NULL };
static const char *const applications[] = { "store", "sequencer", NULL };

static struct chp_cluster_config cluster, cluster_again;
static struct chp_node_config node, node_again;
static struct chp_config_errors errors;

/* Every key on a line of its own: the tables below say which. */
static const char cluster_text[] = "{\n"
				   "\"name\": \"local\",\n"          /* 2 */
				   "\"protocol\": \"hermes\",\n"     /* 3 */
				   "\"shards\": 2,\n"                /* 4 */
				   "\"hash_seed\": 7,\n"             /* 5 */
				   "\"mtu\": 1500,\n"                /* 6 */
				   "\"port_base\": 7168,\n"          /* 7 */
				   "\"key_bytes_max\": 250,\n"       /* 8 */
				   "\"value_bytes_max\": 1024,\n"    /* 9 */
				   "\"keys_max\": 1000000,\n"        /* 10 */
				   "\"value_blocks_max\": 262144,\n" /* 11 */
				   "\"sessions_max\": 1024,\n"       /* 12 */
				   "\"session_window\": 64,\n"       /* 13 */
				   "\"session_idle_s\": 3600,\n"     /* 14 */
				   "\"credits\": 256,\n"             /* 15 */
				   "\"link_window\": 32,\n"          /* 16 */
				   "\"application\": \"store\", "
				   "\"durability\": \"memory\",\n"   /* 17 */
				   "\"members\": [\n"                /* 18 */
				   "{ \"name\": \"n0\", \"address\": \"10.99.0.10\" },\n"
				   "{ \"name\": \"n1\", \"address\": \"10.99.0.11\" },\n"
				   "{ \"name\": \"n2\", \"address\": \"10.99.0.12\" }\n"
				   "]}\n";

static const char node_text[] = "{\n"
				"\"node\": 1,\n"                /* 2 */
				"\"port\": \"net_ring0\",\n"    /* 3 */
				"\"prefix_len\": 24,\n"         /* 4 */
				"\"gateway\": \"10.99.0.1\",\n" /* 5 */
				"\"rx_checksum\": \"off\",\n"   /* 6 */
				"\"steer\": false,\n"           /* 7 */
				"\"idle\": \"yield\",\n"        /* 8 */
				"\"idle_sleep_us\": 70,\n"      /* 9 */
				"\"lcores\": [\n"               /* 10 */
				"{ \"lcore\": 0, \"stages\": [\"control\", \"tx0\"] },\n"
				"{ \"lcore\": 3, \"stages\": [\"rx0\",\n" /* 12 */
				"\"shard0\"] },\n"                        /* 13 */
				"{ \"lcore\": 5, \"stages\": [\"shard1\"] }],\n"
				"\"pools\": { \"rx\": 8191,\n" /* 15 */
				"\"tx\": 0,\n"                 /* 16 */
				"\"control\": 1024 },\n"       /* 17 */
				"\"rx_ring\": 512,\n"          /* 18 */
				"\"tx_ring\": 256,\n"          /* 19 */
				"\"stage_ring\": 2048,\n"      /* 20 */
				"\"log_entries\": 16384,\n"    /* 21 */
				"\"log_blocks\": 20000,\n"     /* 22 */
				"\"ops\": 1000,\n"             /* 23 */
				"\"timers\": {\n"              /* 24 */
				"\"rto_min_us\": 2000,\n"      /* 25 */
				"\"rto_max_ms\": 100,\n"       /* 26 */
				"\"ack_delay_us\": 200,\n"     /* 27 */
				"\"link_down_ms\": 1000,\n"    /* 28 */
				"\"suspect_us\": 50000,\n"     /* 29 */
				"\"lease_us\": 20000,\n"       /* 30 */
				"\"election_us\": 70000, \"leader_lease_us\": 40000, "
				"\"clock_drift_ppm\": 100 },\n" /* 31 */
				"\"copy_chunk_bytes\": 8192\n" /* 32 */
				"}\n";

static bool
parse_cluster(const char *text)
{
	errors.n = 0;
	return chp_cluster_config_parse(text, strlen(text), "c.json", protocols, applications, &cluster, &errors);
}

/* Against the cluster that was parsed last. */
static bool
parse_node(const char *text)
{
	errors.n = 0;
	return chp_node_config_parse(text, strlen(text), "n.json", &cluster, &node, &errors);
}

static void
show_errors(void)
{
	for (uint32_t i = 0; i < errors.n && i < CHP_CONFIG_ERRORS_MAX; i++)
		fprintf(stderr, "  %s\n", errors.text[i]);
}

static void
need_cluster(const char *text)
{
	bool ok = parse_cluster(text);

	if (!ok)
		show_errors();
	cr_assert(ok);
	cr_assert_eq(errors.n, 0);
}

static void
need_node(const char *text)
{
	bool ok = parse_node(text);

	if (!ok)
		show_errors();
	cr_assert(ok);
	cr_assert_eq(errors.n, 0);
}

/* `base` with the first `from` replaced; static storage. */
static const char *
edit(const char *base, const char *from, const char *to)
{
	static char buffer[8192];
	const char *at = strstr(base, from);
	int n;

	cr_assert_not_null(at, "no %s in the text", from);
	n = snprintf(buffer, sizeof(buffer), "%.*s%s%s", (int)(at - base), base, to,
		     at + strlen(from));
	cr_assert(n > 0 && (size_t)n < sizeof(buffer));
	return buffer;
}

/* Exactly these errors, separated by newlines. */
static void
expect_errors(bool ok, const char *want)
{
	char have[CHP_CONFIG_ERRORS_MAX * CHP_CONFIG_ERROR_BYTES] = "";
	struct chp_line t = chp_line_init(have, sizeof(have));

	cr_expect_not(ok, "no error, but expected %s", want);
	cr_expect_gt(errors.n, 0);
	for (uint32_t i = 0; i < errors.n && i < CHP_CONFIG_ERRORS_MAX; i++)
		chp_line_add(&t, "|%s", errors.text[i]);
	cr_expect_str_eq(have, want, "\nhave %s\nwant %s", have, want);
}

struct bad {
	const char *from, *to;
	const char *error; /* "|" in front of each */
};

/* ---- the cluster file ---- */

Test(config, test_cluster_defaults)
{
	need_cluster("{\"name\":\"x\",\"members\":[{\"name\":\"a\",\"address\":\"10.0.0.1\"}]}");
	cr_expect_str_eq(cluster.name, "x");
	cr_expect_str_eq(cluster.protocol, "hermes");
	cr_expect_eq(cluster.shards, 1);
	cr_expect_eq(cluster.hash_seed, 0);
	cr_expect_eq(cluster.mtu, 1500);
	cr_expect_eq(cluster.port_base, 7168);
	cr_expect_eq(cluster.key_bytes_max, 250);
	cr_expect_eq(cluster.value_bytes_max, 1024);
	cr_expect_eq(cluster.keys_max, 1000000);
	cr_expect_eq(cluster.value_blocks_max, 262144);
	cr_expect_eq(cluster.sessions_max, 1024);
	cr_expect_eq(cluster.session_window, 64);
	cr_expect_eq(cluster.session_idle_ns, UINT64_C(3600000000000));
	cr_expect_eq(cluster.credits, 256);
	cr_expect_eq(cluster.link_window, 32);
	cr_expect_not(cluster.hosts);
	cr_expect_eq(cluster.durability, CHP_DURABILITY_MEMORY);
	cr_expect_eq(cluster.batch_items, 1024);
	cr_expect_eq(cluster.batch_bytes, 65536);
	cr_expect_eq(cluster.batch_age_ns, 500000);
	cr_expect_eq(cluster.loads_max, 1024);
	cr_expect_eq(cluster.host_grace_ns, UINT64_C(10000000000));
	cr_expect_eq(cluster.busy_fill_percent, 80);
	cr_expect_eq(cluster.leave_fill_percent, 95);
	cr_expect_eq(cluster.n_members, 1);
	cr_expect_str_eq(cluster.member[0].name, "a");
	cr_expect_eq(cluster.member[0].address, 0x0a000001);
	cr_expect_neq(cluster.hash, 0);
	cr_expect_eq(cluster.hash, chp_cluster_config_hash(&cluster));
}

Test(config, test_cluster_every_key_is_read)
{
	need_cluster(cluster_text);
	cr_expect_eq(cluster.shards, 2);
	cr_expect_eq(cluster.hash_seed, 7);
	cr_expect_eq(cluster.n_members, 3);
	cr_expect_str_eq(cluster.member[2].name, "n2");
	cr_expect_eq(cluster.member[2].address, 0x0a63000c);
}

Test(config, test_cluster_limits_are_inclusive)
{
	static const char *const good[][2] = {
		{ "\"shards\": 2", "\"shards\": 64" },
		{ "\"hash_seed\": 7", "\"hash_seed\": 9223372036854775807" },
		{ "1500", "9216" },
		{ "7168", "1024" },
		{ "7168", "65530" },
		{ "250", "8" },
		{ "\"value_bytes_max\": 1024", "\"value_bytes_max\": 1" },
		{ "\"keys_max\": 1000000", "\"keys_max\": 536868608" },
		{ "262144", "536870912" },
		{ "262144", "0" },
		{ "\"session_window\": 64", "\"session_window\": 1" },
		{ "\"session_window\": 64", "\"session_window\": 1024" },
		{ "\"credits\": 256", "\"credits\": 4096" },
		{ "\"link_window\": 32", "\"link_window\": 64" },
		{ "\"protocol\": \"hermes\"", "\"protocol\": \"zab\"" },
		{ "\"n1\"", "\"0123456789abcdefghijklmnopqrstuvwxyz_.-ABCDEFGHIJKLMNOPQRSTUVWX\"" },
		{ "10.99.0.11", "223.255.255.255" },
		{ "10.99.0.11", "1.0.0.1" },
	};

	for (size_t i = 0; i < CHP_ARRAY_LEN(good); i++)
		need_cluster(edit(cluster_text, good[i][0], good[i][1]));
}

#define NAME_EXPECTED "expected 1 to 63 characters of A-Z a-z 0-9 _ . -"
#define ADDRESS_EXPECTED "expected a unicast IPv4 address as \"10.99.0.10\""

static const struct bad bad_cluster[] = {
	{ "\"name\": \"local\",", "",
	  "|c.json:1: name: missing: expected the cluster's name, 1 to 63 characters of A-Z a-z "
	  "0-9 _ . -" },
	{ "\"local\"", "\"\"", "|c.json:2: name: \"\": " NAME_EXPECTED },
	{ "\"local\"", "\"a b\"", "|c.json:2: name: \"a b\": " NAME_EXPECTED },
	{ "\"local\"", "\"a:b\"", "|c.json:2: name: \"a:b\": " NAME_EXPECTED },
	{ "\"local\"", "\"\\u00e4\"", "|c.json:2: name: \"\\u00e4\": " NAME_EXPECTED },
	{ "\"local\"", "\"ä\"", "|c.json:2: name: \"\?\?\": " NAME_EXPECTED },
	{ "\"local\"", "5", "|c.json:2: name: 5: " NAME_EXPECTED },
	{ "\"local\"", "\"0123456789012345678901234567890123456789012345678901234567890123\"",
	  "|c.json:2: name: \"012345678901234567890123456789012345...: " NAME_EXPECTED },
	{ "\"hermes\"", "\"hermse\"",
	  "|c.json:3: protocol: \"hermse\": expected one of: hermes, zab" },
	{ "\"hermes\"", "null", "|c.json:3: protocol: null: " NAME_EXPECTED },
	{ "\"store\"", "\"sequencer\"", NULL },
	{ "\"application\": \"store\",", "", NULL },
	{ "\"store\"", "\"shop\"", "|c.json:17: application: \"shop\": expected one of: store, sequencer" },
	{ "\"store\"", "1", "|c.json:17: application: 1: " NAME_EXPECTED },
	{ "\"shards\": 2", "\"shards\": 0",
	  "|c.json:4: shards: 0: expected a whole number from 1 to 64" },
	{ "\"shards\": 2", "\"shards\": 65",
	  "|c.json:4: shards: 65: expected a whole number from 1 to 64" },
	{ "\"shards\": 2", "\"shards\": -1",
	  "|c.json:4: shards: -1: expected a whole number from 1 to 64" },
	{ "\"shards\": 2", "\"shards\": 2.0",
	  "|c.json:4: shards: 2.0: expected a whole number from 1 to 64" },
	{ "\"shards\": 2", "\"shards\": \"2\"",
	  "|c.json:4: shards: \"2\": expected a whole number from 1 to 64" },
	{ "\"shards\": 2", "\"shards\": [1, 2, 3]",
	  "|c.json:4: shards: a list of 3: expected a whole number from 1 to 64" },
	{ "\"shards\": 2", "\"shards\": {\"a\": 1}",
	  "|c.json:4: shards: an object: expected a whole number from 1 to 64" },
	{ "\"shards\": 2", "\"sh\\u0061rds\": 0",
	  "|c.json:4: shards: 0: expected a whole number from 1 to 64" },
	{ "\"hash_seed\": 7", "\"hash_seed\": -7",
	  "|c.json:5: hash_seed: -7: expected a whole number from 0 to 9223372036854775807" },
	{ "1500", "1499", "|c.json:6: mtu: 1499: expected a whole number from 1500 to 9216" },
	{ "1500", "9217", "|c.json:6: mtu: 9217: expected a whole number from 1500 to 9216" },
	{ "7168", "1023",
	  "|c.json:7: port_base: 1023: expected a whole number from 1024 to 65535" },
	{ "7168", "65536",
	  "|c.json:7: port_base: 65536: expected a whole number from 1024 to 65535" },
	{ "7168", "7169",
	  "|c.json:7: port_base: 7169: expected a multiple of 2 (2 shards, as a power of 2), such "
	  "as 7170" },
	{ "7168", "65532",
	  "|c.json:7: port_base: 65532: expected at most 65530: 3 ports must follow it" },
	{ "\"shards\": 2", "\"shards\": 33, \"port_base2\": 1",
	  "|c.json:4: port_base2: unknown key; did you mean \"port_base\"?" },
	{ "\"key_bytes_max\": 250", "\"key_bytes_max\": 7",
	  "|c.json:8: key_bytes_max: 7: expected a whole number from 8 to 250" },
	{ "\"key_bytes_max\": 250", "\"key_bytes_max\": 251",
	  "|c.json:8: key_bytes_max: 251: expected a whole number from 8 to 250" },
	{ "\"value_bytes_max\": 1024", "\"value_bytes_max\": 1025",
	  "|c.json:9: value_bytes_max: 1025: expected a whole number from 1 to 1024" },
	{ "1000000", "0", "|c.json:10: keys_max: 0: expected a whole number from 1 to 536870912" },
	{ "1000000", "536870912",
	  "|c.json:10: keys_max: 536870912: expected at most 536868608: 3 * 3 members * 256 "
	  "credits need slots too" },
	{ "262144", "536870913",
	  "|c.json:11: value_blocks_max: 536870913: expected a whole number from 0 to 536870912" },
	{ "\"sessions_max\": 1024", "\"sessions_max\": 0",
	  "|c.json:12: sessions_max: 0: expected a whole number from 1 to 1048576" },
	{ "\"session_window\": 64", "\"session_window\": 48",
	  "|c.json:13: session_window: 48: expected a power of two from 1 to 1024" },
	{ "\"session_window\": 64", "\"session_window\": 2048",
	  "|c.json:13: session_window: 2048: expected a power of two from 1 to 1024" },
	{ "\"session_window\": 64", "\"session_window\": 0",
	  "|c.json:13: session_window: 0: expected a power of two from 1 to 1024" },
	{ "3600", "0",
	  "|c.json:14: session_idle_s: 0: expected a whole number from 1 to 31536000" },
	{ "\"credits\": 256", "\"credits\": 4097",
	  "|c.json:15: credits: 4097: expected a whole number from 1 to 4096" },
	{ "\"link_window\": 32", "\"link_window\": 65",
	  "|c.json:16: link_window: 65: expected a whole number from 1 to 64" },
	{ "\"memory\"", "\"log\"",
	  "|c.json:17: durability: \"log\": not available yet; expected \"memory\" or \"datastore\"" },
	{ "\"memory\"", "\"datastore\"",
	  "|c.json:17: durability: \"datastore\": expected \"memory\", or \"hosts\": true" },
	{ "\"memory\"", "\"datastore\", \"hosts\": true", NULL },
	{ "\"memory\"", "\"disk\"", "|c.json:17: durability: \"disk\": expected \"memory\" or \"datastore\"" },
	{ "\"memory\"", "1", "|c.json:17: durability: 1: expected \"memory\" or \"datastore\"" },
	{ "\"memory\"", "\"memory\", \"hosts\": 1", "|c.json:17: hosts: 1: expected true or false" },
	{ "\"hermes\"", "\"zab\", \"hosts\": true", NULL },
	{ "\"hermes\"", "\"zab\", \"hosts\": true, \"durability\": \"datastore\"",
	  "|c.json:17: durability: key given twice; expected it once: it also stands on line 3" },
	{ "\"keys_max\": 1000000", "\"keys_max\": 2047, \"hosts\": true",
	  "|c.json:10: keys_max: 2047: expected keys_max (2047) to be at least 2 * sessions_max (1024) with hosts" },
	{ "\"keys_max\": 1000000", "\"keys_max\": 2048, \"hosts\": true", NULL },
	{ "\"keys_max\": 1000000", "\"keys_max\": 2047", NULL },
	{ "\"memory\"", "\"memory\", \"batch_items\": 0",
	  "|c.json:17: batch_items: 0: expected a whole number from 1 to 65536" },
	{ "\"memory\"", "\"memory\", \"batch_bytes\": 4095",
	  "|c.json:17: batch_bytes: 4095: expected a whole number from 4096 to 1048576" },
	{ "\"memory\"", "\"memory\", \"batch_age_us\": 1000001",
	  "|c.json:17: batch_age_us: 1000001: expected a whole number from 0 to 1000000" },
	{ "\"memory\"", "\"memory\", \"loads_max\": 0",
	  "|c.json:17: loads_max: 0: expected a whole number from 1 to 65536" },
	{ "\"memory\"", "\"memory\", \"host_grace_s\": 86401",
	  "|c.json:17: host_grace_s: 86401: expected a whole number from 1 to 86400" },
	{ "\"memory\"", "\"memory\", \"busy_fill_percent\": 95",
	  "|c.json:17: busy_fill_percent: 95: expected leave_fill_percent (95) to be more than busy_fill_percent "
	  "(95)" },
	{ "\"memory\"", "\"memory\", \"busy_fill_percent\": 50, \"leave_fill_percent\": 40",
	  "|c.json:17: leave_fill_percent: 40: expected leave_fill_percent (40) to be more than busy_fill_percent "
	  "(50)" },
	{ "\"memory\"", "\"memory\", \"leave_fill_percent\": 100",
	  "|c.json:17: leave_fill_percent: 100: expected a whole number from 11 to 99" },
	{ "{ \"name\": \"n1\", \"address\": \"10.99.0.11\" }", "7",
	  "|c.json:20: members[1]: 7: expected an object, { \"name\": ... }" },
	{ "\"n1\"", "\"n0\"",
	  "|c.json:20: members[1].name: \"n0\": expected a name of its own: member 0 has this "
	  "one" },
	{ "\"n1\"", "\"n 1\"", "|c.json:20: members[1].name: \"n 1\": " NAME_EXPECTED },
	{ "\"name\": \"n1\", ", "",
	  "|c.json:20: members[1].name: missing: expected the member's name, 1 to 63 characters of "
	  "A-Z a-z 0-9 _ . -" },
	{ "\"n1\",", "\"n1\", \"port\": 1,",
	  "|c.json:20: members[1].port: unknown key; expected one of name, address" },
	{ "10.99.0.12", "10.99.0.10",
	  "|c.json:21: members[2].address: \"10.99.0.10\": expected an address of its own: member "
	  "0 has this one" },
	{ "10.99.0.11", "10.99.0",
	  "|c.json:20: members[1].address: \"10.99.0\": " ADDRESS_EXPECTED },
	{ "10.99.0.11", "10.99.0.256",
	  "|c.json:20: members[1].address: \"10.99.0.256\": " ADDRESS_EXPECTED },
	{ "10.99.0.11", "n1.local",
	  "|c.json:20: members[1].address: \"n1.local\": " ADDRESS_EXPECTED },
	{ "10.99.0.11", "fe80::1",
	  "|c.json:20: members[1].address: \"fe80::1\": " ADDRESS_EXPECTED },
	{ "10.99.0.11", "none", "|c.json:20: members[1].address: \"none\": " ADDRESS_EXPECTED },
	{ "10.99.0.11", "0.0.0.0",
	  "|c.json:20: members[1].address: \"0.0.0.0\": " ADDRESS_EXPECTED },
	{ "10.99.0.11", "127.0.0.1",
	  "|c.json:20: members[1].address: \"127.0.0.1\": " ADDRESS_EXPECTED },
	{ "10.99.0.11", "224.0.0.1",
	  "|c.json:20: members[1].address: \"224.0.0.1\": " ADDRESS_EXPECTED },
	{ "10.99.0.11", "255.255.255.255",
	  "|c.json:20: members[1].address: \"255.255.255.255\": " ADDRESS_EXPECTED },
	{ "\"shards\": 2", "\"shrads\": 2",
	  "|c.json:4: shrads: unknown key; did you mean \"shards\"?" },
	{ "\"session_idle_s\"", "\"session_idle\"",
	  "|c.json:14: session_idle: unknown key; did you mean \"session_idle_s\"?" },
	{ "\"keys_max\"", "\"keys\"", "|c.json:10: keys: unknown key; did you mean \"keys_max\"?" },
	{ "\"mtu\": 1500", "\"mtu\": 1500, \"color\": 1",
	  "|c.json:6: color: unknown key; expected one of name, protocol, application, shards, hash_seed, mtu, "
	  "port_base, key_bytes_max, value_bytes_max, keys_max, value_blocks_max, sessions_max, "
	  "session_window, session_idle_s, credits, link_window, hosts, durability, batch_items, batch_bytes, "
	  "batch_age_us, loads_max, host_grace_s, busy_fill_percent, leave_fill_percent, members" },
	{ "\"mtu\": 1500", "\"mtu\": 1500, \"a\\nb\\u0007\": 1",
	  "|c.json:6: a\?b?: unknown key; expected one of name, protocol, application, shards, hash_seed, mtu, "
	  "port_base, key_bytes_max, value_bytes_max, keys_max, value_blocks_max, sessions_max, "
	  "session_window, session_idle_s, credits, link_window, hosts, durability, batch_items, batch_bytes, "
	  "batch_age_us, loads_max, host_grace_s, busy_fill_percent, leave_fill_percent, members" },
	{ "\"mtu\": 1500", "\"mtu\": 1500, \"derived\": {}",
	  "|c.json:6: derived: unknown key; expected one of name, protocol, application, shards, hash_seed, "
	  "mtu, port_base, key_bytes_max, value_bytes_max, keys_max, value_blocks_max, "
	  "sessions_max, session_window, session_idle_s, credits, link_window, hosts, durability, batch_items, "
	  "batch_bytes, batch_age_us, loads_max, host_grace_s, busy_fill_percent, leave_fill_percent, members" },
	/* Text that is not JSON, or not an object. */
	{ "\"shards\": 2,", "\"shards\": 2",
	  "|c.json:5: not JSON: '}' expected near '\"hash_seed\"'" },
	{ "\"shards\": 2,", "\"shards\": ,", "|c.json:4: not JSON: unexpected token near ','" },
	{ "\"shards\": 2,", "// two\n", "|c.json:4: not JSON: string or '}' expected near '/'" },
	{ "\"shards\": 2,", "\"shards\": 99999999999999999999,",
	  "|c.json:4: not JSON: too big integer near '99999999999999999999'" },
	{ "]}\n", "]}\n}", "|c.json:23: not JSON: end of file expected near '}'" },
	{ "\"mtu\": 1500,", "\"mtu\": 1500, \"shards\": 3,\n\"mtu\": 1501,",
	  "|c.json:6: shards: key given twice; expected it once: it also stands on line 4"
	  "|c.json:7: mtu: key given twice; expected it once: it also stands on line 6" },
	{ "\"name\": \"n1\"", "\"name\": \"n1\", \"n\\u0061me\": \"n3\"",
	  "|c.json:20: members[1].n\\u0061me: key given twice; expected it once: it also stands on "
	  "line 20" },
	{ "\"shards\": 2,", "\"shards\": 2, \"shards\": 3, oops",
	  "|c.json:4: not JSON: string or '}' expected near 'oops'" },
};

Test(config, test_cluster_every_error)
{
	for (size_t i = 0; i < CHP_ARRAY_LEN(bad_cluster); i++) {
		const struct bad *b = &bad_cluster[i];

		if (b->error)
			expect_errors(parse_cluster(edit(cluster_text, b->from, b->to)), b->error);
		else
			need_cluster(edit(cluster_text, b->from, b->to));
	}
}

Test(config, test_cluster_text_that_is_no_object)
{
	expect_errors(parse_cluster(""),
		      "|c.json:1: not JSON: '[' or '{' expected near end of file");
	expect_errors(parse_cluster("[1, 2]"),
		      "|c.json:1: a list of 2: expected an object, { \"key\": value, ... }");
	expect_errors(parse_cluster("17"), "|c.json:1: not JSON: '[' or '{' expected near '17'");
	expect_errors(
		parse_cluster("{}"),
		"|c.json:1: name: missing: expected the cluster's name, 1 to 63 characters of A-Z "
		"a-z 0-9 _ . -"
		"|c.json:1: members: missing: expected a list of members, { \"name\": ..., "
		"\"address\": ... }");
	errors.n = 0;
	cr_expect_not(chp_cluster_config_parse(NULL, 0, "c.json", protocols, applications, &cluster, &errors));
	errors.n = 0;
	cr_expect_not(chp_cluster_config_parse("{\"a\0b\":1}", 9, "c.json", protocols, applications, &cluster,
					       &errors));
	cr_expect_eq(errors.n, 1);
}

Test(config, test_cluster_text_too_long)
{
	char *text = calloc(1, CHP_JSON_BYTES_MAX + 2);

	cr_assert_not_null(text);
	memset(text, ' ', CHP_JSON_BYTES_MAX + 1);
	expect_errors(parse_cluster(text), "|c.json: 1048577 bytes: expected at most 1048576");
	free(text);
}

/* A file with n members, in turn of a protocol. */
static const char *
with_members(const char *protocol, uint32_t n)
{
	static char buffer[16384];
	struct chp_line t = chp_line_init(buffer, sizeof(buffer));

	chp_line_add(&t, "{ \"name\": \"x\", \"protocol\": \"%s\", \"members\": [", protocol);
	for (uint32_t i = 0; i < n; i++)
		chp_line_add(&t, "%s{ \"name\": \"n%u\", \"address\": \"10.0.0.%u\" }",
			     i > 0 ? "," : "", i, i + 1);
	chp_line_add(&t, "]}");
	cr_assert_not(t.cut);
	return buffer;
}

Test(config, test_cluster_credits_of_a_log)
{
	static const char text[] = "{ \"name\": \"x\", \"protocol\": \"%s\", \"credits\": %u, \"members\": "
				   "[{ \"name\": \"n\", \"address\": \"10.0.0.1\" }]}";
	char buffer[256];

	snprintf(buffer, sizeof(buffer), text, "hermes", 1u);
	need_cluster(buffer);
	snprintf(buffer, sizeof(buffer), text, "zab", 2u);
	need_cluster(buffer);
	snprintf(buffer, sizeof(buffer), text, "zab", 1u);
	expect_errors(parse_cluster(buffer), "|c.json:1: credits: 1: expected at least 2 with the protocol zab");
}

Test(config, test_cluster_member_counts)
{
	need_cluster(with_members("hermes", 1));
	need_cluster(with_members("hermes", CHP_REPLICAS_MAX));
	cr_expect_eq(cluster.n_members, CHP_REPLICAS_MAX);
	expect_errors(parse_cluster(with_members("hermes", 0)),
		      "|c.json:1: members: a list of 0: expected 1 to 8 members with the protocol "
		      "hermes");
	expect_errors(parse_cluster(with_members("hermes", 9)),
		      "|c.json:1: members: a list of 9: expected 1 to 8 members with the protocol "
		      "hermes");
	need_cluster(with_members("zab", CHP_NODES_MAX));
	cr_expect_eq(cluster.n_members, CHP_NODES_MAX);
	cr_expect_eq(cluster.member[63].address, 0x0a000040);
	expect_errors(parse_cluster(with_members("zab", 65)),
		      "|c.json:1: members: a list of 65: expected 1 to 64 members");
	expect_errors(parse_cluster("{ \"name\": \"x\", \"members\": {} }"),
		      "|c.json:1: members: an object: expected a list of members, { \"name\": ..., "
		      "\"address\": ... }");
}

Test(config, test_cluster_collects_all_errors_by_line)
{
	static const char text[] = "{ \"foo_bar\": 1,\n"
				   "\"shards\": 3, \"mtu\": 1,\n"
				   "\"members\": [\n"
				   "{ \"name\": \"a\", \"address\": \"10.0.0.1\" },\n"
				   "{ \"name\": \"a\", \"address\": \"10.0.0.1\" } ],\n"
				   "\"port_base\": 7169, \"name\": \"x\",\n"
				   "\"credit\": 3 }\n";

	expect_errors(
		parse_cluster(text),
		"|c.json:1: foo_bar: unknown key; expected one of name, protocol, application, shards, "
		"hash_seed, mtu, port_base, key_bytes_max, value_bytes_max, keys_max, "
		"value_blocks_max, sessions_max, session_window, session_idle_s, credits, "
		"link_window, hosts, durability, batch_items, batch_bytes, batch_age_us, loads_max, host_grace_s, "
		"busy_fill_percent, leave_fill_percent, members"
		"|c.json:2: mtu: 1: expected a whole number from 1500 to 9216"
		"|c.json:5: members[1].name: \"a\": expected a name of its own: member 0 has this "
		"one"
		"|c.json:5: members[1].address: \"10.0.0.1\": expected an address of its own: "
		"member 0 has this one"
		"|c.json:6: port_base: 7169: expected a multiple of 4 (3 shards, as a power of 2), "
		"such as 7172"
		"|c.json:7: credit: unknown key; did you mean \"credits\"?");
}

Test(config, test_errors_are_added_behind_those_of_another_file)
{
	errors.n = 0;
	cr_expect_not(chp_cluster_config_parse("{", 1, "b.json", protocols, applications, &cluster, &errors));
	cr_expect_not(chp_cluster_config_parse("[]", 2, "a.json", protocols, applications, &cluster, &errors));
	cr_assert_eq(errors.n, 2);
	cr_expect(strncmp(errors.text[0], "b.json:1: ", 10) == 0);
	cr_expect(strncmp(errors.text[1], "a.json:1: ", 10) == 0);
	/* Only what this call finds decides. */
	cr_expect(chp_cluster_config_parse(cluster_text, strlen(cluster_text), "c.json", protocols, applications,
					   &cluster, &errors));
	cr_expect_eq(errors.n, 2);
}

/* ---- the cluster hash ---- */

Test(config, test_hash_covers_what_members_must_agree_on)
{
	uint32_t seen[64], n = 0, n_free = 0;

	need_cluster(cluster_text);
	seen[n++] = cluster.hash;
	for (const struct chp_field *f = chp_cluster_fields; f->type != CHP_FIELD_END; f++) {
		char *at;

		if (f->type == CHP_FIELD_CUSTOM)
			continue;
		need_cluster(cluster_text);
		at = (char *)&cluster + f->offset;
		at[0] = (char)(at[0] + 1);
		seen[n] = chp_cluster_config_hash(&cluster);
		if (f->is_free) {
			cr_expect_eq(seen[n], seen[0], "%s is covered", f->key);
			n_free++;
			continue;
		}
		for (uint32_t i = 0; i < n; i++)
			cr_expect_neq(seen[n], seen[i], "%s is not covered", f->key);
		n++;
	}
	cr_expect_eq(n, 1 + 18);
	cr_expect_eq(n_free, 7);
}

Test(config, test_hash_ignores_members_and_spelling)
{
	uint32_t hash;

	need_cluster(cluster_text);
	hash = cluster.hash;
	need_cluster(edit(cluster_text, "10.99.0.12", "10.99.0.13"));
	cr_expect_eq(cluster.hash, hash);
	need_cluster(
		edit(cluster_text, ",\n{ \"name\": \"n2\", \"address\": \"10.99.0.12\" }", ""));
	cr_expect_eq(cluster.n_members, 2);
	cr_expect_eq(cluster.hash, hash);
	/* Defaults said or unsaid, order and white space make no difference. */
	need_cluster("{\"members\":[{\"address\":\"1.2.3.4\",\"name\":\"z\"}],\"hash_seed\":7,"
		     "\"shards\":2,\"name\":\"local\"}");
	cr_expect_eq(cluster.hash, hash);
}

/* Nodes of two builds must agree: whoever changes this value separates them. */
Test(config, test_hash_golden)
{
	/* As docs/config.md tells other implementations. */
	static const char text[] =
		"chaapar-cluster-1 digest=xxh3-128;name=local;protocol=hermes;application=store;shards=2;hash_seed=0;"
		"mtu=1500;port_base=7168;key_bytes_max=250;value_bytes_max=1024;keys_max=1000000;"
		"value_blocks_max=262144;sessions_max=1024;session_window=64;"
		"session_idle_s=3600000000000;credits=256;link_window=32;hosts=0;durability=memory;";
	uint64_t h = chp_hash64(text, strlen(text), 0);

	need_cluster("{\"name\":\"local\",\"shards\":2,\"members\":[{\"name\":\"n0\","
		     "\"address\":\"10.99.0.10\"}]}");
	cr_expect_eq(cluster.hash, 0x940f4d92, "0x%08x", cluster.hash);
	cr_expect_eq(cluster.hash, (uint32_t)(h ^ h >> 32));
}

/* ---- the node file ---- */

#define NODE_SMALL                                                                                 \
	"{\"node\":0,\"port\":\"net_null0\",\"lcores\":[{\"lcore\":1,\"stages\":"                  \
	"[\"control\",\"rx0\",\"shard0\",\"shard1\",\"tx0\"]}]}"

Test(config, test_node_defaults)
{
	need_cluster(cluster_text);
	need_node(NODE_SMALL);
	cr_expect_eq(node.node, 0);
	cr_expect_str_eq(node.port, "net_null0");
	cr_expect_eq(node.prefix_len, 24);
	cr_expect_eq(node.gateway, 0);
	cr_expect_eq(node.peers, CHP_PEERS_UDP);
	cr_expect_eq(node.rx_checksum, CHP_RX_CHECKSUM_VERIFY);
	cr_expect_not(node.steer);
	cr_expect_eq(node.idle, CHP_IDLE_SPIN);
	cr_expect_eq(node.idle_sleep_ns, 50000);
	cr_expect_eq(node.n_lcores, 1);
	cr_expect_eq(node.lcore[0].lcore, 1);
	cr_expect_eq(node.lcore[0].n_stages, 5);
	cr_expect_eq(node.lcore[0].stage[3].kind, CHP_STAGE_SHARD);
	cr_expect_eq(node.lcore[0].stage[3].index, 1);
	cr_expect_eq(node.n_rx, 1);
	cr_expect_eq(node.n_tx, 1);
	cr_expect_eq(node.rx_pool, 2047);      /* 1024 + 64 */
	cr_expect_eq(node.tx_pool, 4095);      /* 1024 + 2 * (1024 + 256) */
	cr_expect_eq(node.control_pool, 2047); /* 1024 */
	cr_expect_eq(node.rx_ring, 1024);
	cr_expect_eq(node.tx_ring, 1024);
	cr_expect_eq(node.stage_ring, 1024);
	cr_expect_eq(node.log_entries, 8192);
	cr_expect_eq(node.log_blocks, 11 * 2 * 3 * 256 + 16384);
	cr_expect_eq(node.ops, 4096);
	cr_expect_eq(node.rto_ns_min, 1000000);
	cr_expect_eq(node.rto_ns_max, 200000000);
	cr_expect_eq(node.ack_delay_ns, 100000);
	cr_expect_eq(node.link_down_ns, UINT64_C(3000000000));
	cr_expect_eq(node.suspect_ns, UINT64_C(1000000000));
	cr_expect_eq(node.lease_ns, 300000000);
	cr_expect_eq(node.election_ns, 500000000);
	cr_expect_eq(node.leader_lease_ns, 300000000);
	cr_expect_eq(node.clock_drift_ppm, 500);
	cr_expect_eq(node.copy_bytes, 65536);
}

Test(config, test_node_every_key_is_read)
{
	need_cluster(cluster_text);
	need_node(node_text);
	cr_expect_eq(node.node, 1);
	cr_expect_eq(node.gateway, 0x0a630001);
	cr_expect_eq(node.rx_checksum, CHP_RX_CHECKSUM_OFF);
	cr_expect_eq(node.idle, CHP_IDLE_YIELD);
	cr_expect_eq(node.idle_sleep_ns, 70000);
	cr_expect_eq(node.n_lcores, 3);
	cr_expect_eq(node.lcore[2].lcore, 5);
	cr_expect_eq(node.rx_pool, 8191);
	cr_expect_eq(node.tx_pool, 8191); /* 256 + 2 * (2048 + 256) */
	cr_expect_eq(node.control_pool, 1024);
	cr_expect_eq(node.rx_ring, 512);
	cr_expect_eq(node.tx_ring, 256);
	cr_expect_eq(node.stage_ring, 2048);
	cr_expect_eq(node.log_entries, 16384);
	cr_expect_eq(node.log_blocks, 20000);
	cr_expect_eq(node.ops, 1000);
	cr_expect_eq(node.rto_ns_min, 2000000);
	cr_expect_eq(node.rto_ns_max, 100000000);
	cr_expect_eq(node.ack_delay_ns, 200000);
	cr_expect_eq(node.link_down_ns, 1000000000);
	cr_expect_eq(node.suspect_ns, 50000000);
	cr_expect_eq(node.lease_ns, 20000000);
	cr_expect_eq(node.election_ns, 70000000);
	cr_expect_eq(node.leader_lease_ns, 40000000);
	cr_expect_eq(node.clock_drift_ppm, 100);
	cr_expect_eq(node.copy_bytes, 8192);
}

/* A default must never be an error, also where the cluster has the most credits. */
Test(config, test_node_defaults_follow_the_cluster)
{
	need_cluster(edit(cluster_text, "\"credits\": 256", "\"credits\": 4096"));
	need_node(NODE_SMALL);
	cr_expect_eq(node.log_entries, 65536); /* 4 * 3 * 4096, a power of two */
	cr_expect_eq(node.log_blocks, 11 * 2 * 3 * 4096 + 16384);
	cr_expect_eq(node.ops, 8192);
	need_cluster(
		edit(with_members("zab", 64), "\"members\"", "\"credits\": 4096, \"members\""));
	need_node(edit(NODE_SMALL, "\"shard1\",", ""));
	cr_expect_eq(node.log_entries, 1048576);
}

#define PORT_EXPECTED "expected 1 to 63 characters of A-Z a-z 0-9 _ . : -"
#define STAGE_EXPECTED                                                                             \
	"expected \"rx0\" to \"rx15\", \"shard0\" to \"shard1\", \"tx0\" to \"tx15\", "            \
	"\"control\" or \"host\""

static const struct bad bad_node[] = {
	{ "\"node\": 1,", "",
	  "|n.json:1: node: missing: expected the id of this node, its place in the cluster file's "
	  "members, a whole number from 0 to 63" },
	{ "\"node\": 1", "\"node\": 7",
	  "|n.json:2: node: 7: node id 7 is not in the cluster file: it has members 0 to 2" },
	{ "\"node\": 1", "\"node\": \"n1\"",
	  "|n.json:2: node: \"n1\": expected a whole number from 0 to 63" },
	{ "\"port\": \"net_ring0\",", "",
	  "|n.json:1: port: missing: expected the name of the DPDK port, as \"net_af_xdp0\", 1 to "
	  "63 characters of A-Z a-z 0-9 _ . : -" },
	{ "\"net_ring0\"", "\"eth 0\"", "|n.json:3: port: \"eth 0\": " PORT_EXPECTED },
	{ "\"prefix_len\": 24", "\"prefix_len\": 32",
	  "|n.json:4: prefix_len: 32: expected a whole number from 1 to 31" },
	{ "\"prefix_len\": 24,\n\"gateway\": \"10.99.0.1\"",
	  "\"prefix_len\": 31,\n\"gateway\": \"10.99.0.1\"",
	  "|n.json:5: gateway: \"10.99.0.1\": expected the address of a router in 10.99.0.10/31, "
	  "where this node is" },
	{ "\"prefix_len\": 24,\n\"gateway\": \"10.99.0.1\"", "\"prefix_len\": 31",
	  "|n.json:1: gateway: missing: expected a router's address: member 2 (10.99.0.12) is "
	  "outside 10.99.0.10/31" },
	{ "\"prefix_len\": 24,\n\"gateway\": \"10.99.0.1\"",
	  "\"prefix_len\": 30, \"gateway\": \"none\"",
	  "|n.json:4: prefix_len: 30: expected another prefix_len: member 1 (10.99.0.11) has no "
	  "host part in 10.99.0.8/30"
	  "|n.json:4: gateway: \"none\": expected a router's address: member 2 (10.99.0.12) is "
	  "outside 10.99.0.8/30" },
	{ "10.99.0.1", "10.98.0.1",
	  "|n.json:5: gateway: \"10.98.0.1\": expected the address of a router in 10.99.0.0/24, "
	  "where this node is" },
	{ "10.99.0.1", "10.99.0.255",
	  "|n.json:5: gateway: \"10.99.0.255\": expected the address of a router in 10.99.0.0/24, "
	  "where this node is" },
	{ "10.99.0.1", "10.99.0.12",
	  "|n.json:5: gateway: \"10.99.0.12\": expected a router's address: this is member 2" },
	{ "10.99.0.1", "router",
	  "|n.json:5: gateway: \"router\": expected a unicast IPv4 address as \"10.99.0.10\" or "
	  "\"none\"" },
	{ "\"off\"", "\"hardware\"",
	  "|n.json:6: rx_checksum: \"hardware\": expected \"off\", \"verify\" or \"offload\"" },
	{ "\"steer\": false", "\"steer\": 0", "|n.json:7: steer: 0: expected true or false" },
	{ "\"steer\": false", "\"steer\": true",
	  "|n.json:7: steer: true: expected one rx queue per shard: there are 1 and 2" },
	{ "\"steer\": false", "\"steer\": false, \"peers\": \"ethernet\"", NULL },
	{ "\"steer\": false", "\"steer\": false, \"peers\": \"rdma\"",
	  "|n.json:7: peers: \"rdma\": expected \"udp\" or \"ethernet\"" },
	{ "\"steer\": false", "\"peers\": \"ethernet\",\n\"steer\": true",
	  "|n.json:8: steer: true: expected one rx queue per shard: there are 1 and 2"
	  "|n.json:8: steer: true: expected false with \"peers\": \"ethernet\": ports steer by UDP port, which these "
	  "frames do not have" },
	{ "\"prefix_len\": 24,\n\"gateway\": \"10.99.0.1\"",
	  "\"prefix_len\": 31,\n\"peers\": \"ethernet\", \"gateway\": \"none\"",
	  "|n.json:5: peers: \"ethernet\": expected \"udp\": member 2 (10.99.0.12) is outside 10.99.0.10/31, where "
	  "only routers reach" },
	{ "\"yield\"", "\"nap\"",
	  "|n.json:8: idle: \"nap\": expected \"spin\", \"yield\" or \"sleep\"" },
	{ "\"idle_sleep_us\": 70", "\"idle_sleep_us\": 10001",
	  "|n.json:9: idle_sleep_us: 10001: expected a whole number from 1 to 10000" },
	/* Stages. */
	{ "\"shard0\"]", "\"shard2\"]",
	  "|n.json:13: lcores[1].stages[1]: \"shard2\": " STAGE_EXPECTED },
	{ "\"shard0\"]", "\"shard00\"]",
	  "|n.json:13: lcores[1].stages[1]: \"shard00\": " STAGE_EXPECTED },
	{ "\"shard0\"]", "\"shard\"]",
	  "|n.json:13: lcores[1].stages[1]: \"shard\": " STAGE_EXPECTED },
	{ "\"shard0\"]", "\"control0\"]",
	  "|n.json:13: lcores[1].stages[1]: \"control0\": " STAGE_EXPECTED },
	{ "\"shard0\"]", "\"rx16\"]",
	  "|n.json:13: lcores[1].stages[1]: \"rx16\": " STAGE_EXPECTED },
	{ "\"shard0\"]", "\"rx-1\"]",
	  "|n.json:13: lcores[1].stages[1]: \"rx-1\": " STAGE_EXPECTED },
	{ "\"shard0\"]", "\"tx4294967296\"]",
	  "|n.json:13: lcores[1].stages[1]: \"tx4294967296\": " STAGE_EXPECTED },
	{ "\"shard0\"]", "0]", "|n.json:13: lcores[1].stages[1]: 0: " STAGE_EXPECTED },
	{ "\"shard0\"]", "\"shard0\", \"shard1\"]",
	  "|n.json:14: lcores[2].stages[0]: \"shard1\": expected each stage once: it is also in "
	  "lcores[1]" },
	{ "\"shard0\"]", "\"tx1\"]",
	  "|n.json:10: lcores: a list of 3: expected every shard on an lcore: \"shard0\" of 2 is "
	  "on none" },
	{ "\"rx0\"", "\"rx1\"",
	  "|n.json:10: lcores: a list of 3: expected rx queues from 0 without a gap: \"rx0\" is on "
	  "no lcore" },
	{ "\"tx0\"", "\"tx1\"",
	  "|n.json:10: lcores: a list of 3: expected tx queues from 0 without a gap: \"tx0\" is on "
	  "no lcore" },
	{ "\"rx0\",", "\"rx0\", \"rx2\",",
	  "|n.json:10: lcores: a list of 3: expected rx queues from 0 without a gap: \"rx1\" is on "
	  "no lcore" },
	{ "\"control\", ", "",
	  "|n.json:10: lcores: a list of 3: expected one control stage: \"control\" is on no "
	  "lcore" },
	{ "[\"control\", \"tx0\"]", "[\"control\", \"control\", \"tx0\"]",
	  "|n.json:11: lcores[0].stages[1]: \"control\": expected each stage once: it is also in "
	  "lcores[0]" },
	{ "\"lcore\": 5", "\"lcore\": 3",
	  "|n.json:14: lcores[2].lcore: 3: expected each lcore once: it is also lcores[1]" },
	{ "\"lcore\": 5", "\"lcore\": 128",
	  "|n.json:14: lcores[2].lcore: 128: expected a whole number from 0 to 127" },
	{ "\"lcore\": 5, ", "",
	  "|n.json:14: lcores[2].lcore: missing: expected the number of an EAL lcore, a whole "
	  "number from 0 to 127" },
	{ "{ \"lcore\": 5, \"stages\": [\"shard1\"] }", "{ \"lcore\": 5 }",
	  "|n.json:14: lcores[2].stages: missing: expected a list of stages as [\"rx0\", "
	  "\"shard0\", \"tx0\"]" },
	{ "[\"shard1\"]", "[]",
	  "|n.json:14: lcores[2].stages: a list of 0: expected a list of 1 to 98 stages" },
	{ "[\"shard1\"]", "\"shard1\"",
	  "|n.json:14: lcores[2].stages: \"shard1\": expected a list of 1 to 98 stages" },
	{ "{ \"lcore\": 5, \"stages\": [\"shard1\"] }", "null",
	  "|n.json:14: lcores[2]: null: expected an object, { \"lcore\": ... }" },
	{ "\"lcore\": 5", "\"lcore\": 5, \"stage\": 0",
	  "|n.json:14: lcores[2].stage: unknown key; did you mean \"stages\"?" },
	/* Pools: rx 512 + 64, and two rings of 2048 to shard 1. */
	{ "8191", "4671",
	  "|n.json:15: pools.rx: 4671: expected at least 4672 mbufs for its queues, rings and "
	  "bursts" },
	{ "\"tx\": 0", "\"tx\": 4863",
	  "|n.json:16: pools.tx: 4863: expected at least 4864 mbufs for its queues, rings and "
	  "bursts" },
	{ "\"control\": 1024", "\"control\": 1023",
	  "|n.json:17: pools.control: 1023: expected at least 1024 mbufs for its queues, rings and "
	  "bursts" },
	{ "\"control\": 1024", "\"control\": -1",
	  "|n.json:17: pools.control: -1: expected a whole number from 0 to 268435455" },
	{ "\"control\": 1024", "\"ctrl\": 1024",
	  "|n.json:17: pools.ctrl: unknown key; expected one of rx, tx, control" },
	{ "\"pools\": { \"rx\": 8191,\n\"tx\": 0,\n\"control\": 1024 },", "\"pools\": 8191,",
	  "|n.json:15: pools: 8191: expected an object, { \"rx\": ... }" },
	{ "\"rx_ring\": 512", "\"rx_ring\": 500",
	  "|n.json:18: rx_ring: 500: expected a power of two from 64 to 32768" },
	{ "\"tx_ring\": 256", "\"tx_ring\": 32",
	  "|n.json:19: tx_ring: 32: expected a power of two from 64 to 32768" },
	{ "\"stage_ring\": 2048", "\"stage_ring\": 131072",
	  "|n.json:20: stage_ring: 131072: expected a power of two from 64 to 65536" },
	{ "16384", "16383",
	  "|n.json:21: log_entries: 16383: expected a power of two from 1 to 16777216" },
	{ "16384", "2048",
	  "|n.json:21: log_entries: 2048: expected at least 4096: 4 * 3 members * 256 credits, a "
	  "power of two" },
	{ "20000", "16895",
	  "|n.json:22: log_blocks: 16895: expected at least 16896: 11 * 2 * 3 members * 256 "
	  "credits" },
	{ "20000", "0", "|n.json:22: log_blocks: 0: expected a whole number from 1 to 1073741824" },
	{ "\"ops\": 1000", "\"ops\": 511",
	  "|n.json:23: ops: 511: expected at least 512: 2 * 256 credits" },
	{ "\"ops\": 1000", "\"ops\": 65537",
	  "|n.json:23: ops: 65537: expected a whole number from 1 to 65536" },
	/* Timers. */
	{ "\"rto_min_us\": 2000", "\"rto_min_us\": 9",
	  "|n.json:25: timers.rto_min_us: 9: expected a whole number from 10 to 1000000" },
	{ "\"rto_min_us\": 2000", "\"rto_min_us\": 100001",
	  "|n.json:26: timers.rto_max_ms: 100: expected rto_max_ms (100) to be at least rto_min_us "
	  "(100001)" },
	{ "\"ack_delay_us\": 200", "\"ack_delay_us\": 2000",
	  "|n.json:27: timers.ack_delay_us: 2000: expected ack_delay_us (2000) to be less than "
	  "rto_min_us (2000)" },
	{ "\"ack_delay_us\": 200,\n", "", NULL },
	{ "\"link_down_ms\": 1000", "\"link_down_ms\": 400",
	  "|n.json:28: timers.link_down_ms: 400: expected link_down_ms (400) to be more than 4 * "
	  "rto_max_ms (100)" },
	{ "\"rto_max_ms\": 100,\n\"ack_delay_us\": 200,\n\"link_down_ms\": 1000",
	  "\"rto_max_ms\": 1000",
	  "|n.json:26: timers.rto_max_ms: 1000: expected link_down_ms (3000) to be more than 4 * "
	  "rto_max_ms (1000)" },
	{ "\"rto_min_us\": 2000,", "\"rto_min\": 2000,",
	  "|n.json:25: timers.rto_min: unknown key; did you mean \"rto_min_us\"?" },
	{ "\"suspect_us\": 50000", "\"suspect_us\": 199",
	  "|n.json:29: timers.suspect_us: 199: expected a whole number from 200 to 60000000" },
	{ "\"lease_us\": 20000", "\"lease_us\": 99",
	  "|n.json:30: timers.lease_us: 99: expected a whole number from 100 to 10000000" },
	{ "\"lease_us\": 20000", "\"lease_us\": 10000001",
	  "|n.json:30: timers.lease_us: 10000001: expected a whole number from 100 to 10000000" },
	{ "\"lease_us\": 20000", "\"lease_us\": 50000",
	  "|n.json:30: timers.lease_us: 50000: expected lease_us (50000) to be less than suspect_us "
	  "(50000)" },
	{ "\"lease_us\": 20000", "\"lease_us\": 49999", NULL },
	{ "\"lease_us\": 20000,\n", "",
	  "|n.json:29: timers.suspect_us: 50000: expected lease_us (300000) to be less than suspect_us "
	  "(50000)" },
	{ "\"suspect_us\": 50000,\n", "", NULL },
	{ "\"clock_drift_ppm\": 100", "\"clock_drift_ppm\": 20001",
	  "|n.json:31: timers.clock_drift_ppm: 20001: expected a whole number from 0 to 20000" },
	{ "\"clock_drift_ppm\": 100", "\"clock_drift_ppm\": 0", NULL },
	{ "\"election_us\": 70000", "\"election_us\": 49",
	  "|n.json:31: timers.election_us: 49: expected a whole number from 50 to 60000000" },
	{ "\"election_us\": 70000, \"leader_lease_us\": 40000", "\"election_us\": 50, \"leader_lease_us\": 0", NULL },
	{ "\"leader_lease_us\": 40000", "\"leader_lease_us\": 10000001",
	  "|n.json:31: timers.leader_lease_us: 10000001: expected a whole number from 0 to 10000000" },
	{ "\"leader_lease_us\": 40000", "\"leader_lease_us\": 69985", NULL },
	{ "\"leader_lease_us\": 40000", "\"leader_lease_us\": 69987",
	  "|n.json:31: timers.leader_lease_us: 69987: expected leader_lease_us (69987), with twice the clocks' "
	  "drift 70000, to be less than election_us (70000), or 0 for none" },
	{ " \"leader_lease_us\": 40000,", "",
	  "|n.json:31: timers.election_us: 70000: expected leader_lease_us (300000), with twice the clocks' "
	  "drift 300060, to be less than election_us (70000), or 0 for none" },
	{ "\"leader_lease_us\": 40000", "\"leader_lease_us\": 0", NULL },
	{ "\"idle\": \"yield\",\n\"idle_sleep_us\": 70,", "\"idle\": \"sleep\",\n\"idle_sleep_us\": 8751,",
	  "|n.json:31: timers.election_us: 70000: expected election_us (70000) to be at least 8 * idle_sleep_us "
	  "(8751), or idle to be spin or yield" },
	{ "\"idle\": \"yield\",\n\"idle_sleep_us\": 70,", "\"idle\": \"sleep\",\n\"idle_sleep_us\": 8750,", NULL },
	{ "\"idle_sleep_us\": 70,", "\"idle_sleep_us\": 10000,", NULL },
	{ "\"copy_chunk_bytes\": 8192", "\"copy_chunk_bytes\": 1023",
	  "|n.json:32: copy_chunk_bytes: 1023: expected a whole number from 1024 to 1048576" },
	{ "\"steer\"", "\"shards\"",
	  "|n.json:7: shards: unknown key; expected one of node, port, prefix_len, gateway, "
	  "peers, rx_checksum, steer, idle, idle_sleep_us, lcores, pools, rx_ring, tx_ring, stage_ring, "
	  "log_entries, log_blocks, ops, copy_chunk_bytes, timers, host, derived" },
};

Test(config, test_node_every_error)
{
	need_cluster(cluster_text);
	for (size_t i = 0; i < CHP_ARRAY_LEN(bad_node); i++) {
		const struct bad *b = &bad_node[i];

		if (b->error)
			expect_errors(parse_node(edit(node_text, b->from, b->to)), b->error);
		else
			need_node(edit(node_text, b->from, b->to));
	}
	expect_errors(parse_node("{}"),
		      "|n.json:1: node: missing: expected the id of this node, its place in the "
		      "cluster file's members, a whole number from 0 to 63"
		      "|n.json:1: port: missing: expected the name of the DPDK port, as "
		      "\"net_af_xdp0\", 1 to 63 characters of A-Z a-z 0-9 _ . : -"
		      "|n.json:1: lcores: missing: expected a list of lcores, { \"lcore\": ..., "
		      "\"stages\": [...] }");
	expect_errors(parse_node(edit(NODE_SMALL, "[{", "[],\"x\":[{")),
		      "|n.json:1: x: unknown key; expected one of node, port, prefix_len, gateway, "
		      "peers, rx_checksum, steer, idle, idle_sleep_us, lcores, pools, rx_ring, tx_ring, "
		      "stage_ring, log_entries, log_blocks, ops, copy_chunk_bytes, timers, host, derived"
		      "|n.json:1: lcores: a list of 0: expected a list of 1 to 128 lcores");
}

Test(config, test_node_steer_with_a_queue_per_shard)
{
	need_cluster(cluster_text);
	need_node("{\"node\":2,\"port\":\"0000:03:00.0\",\"steer\":true,\"lcores\":["
		  "{\"lcore\":0,\"stages\":[\"control\"]},"
		  "{\"lcore\":1,\"stages\":[\"rx0\",\"shard0\",\"tx0\"]},"
		  "{\"lcore\":2,\"stages\":[\"rx1\",\"shard1\",\"tx1\"]}]}");
	cr_expect(node.steer);
	cr_expect_eq(node.n_rx, 2);
	cr_expect_eq(node.n_tx, 2);
	cr_expect_eq(chp_node_lcore_of(&node, CHP_STAGE_SHARD, 1), 2);
	cr_expect_eq(chp_node_lcore_of(&node, CHP_STAGE_RX, 2), UINT32_MAX);
	cr_expect_eq(chp_node_tx_of_shard(&node, 0), 0);
	cr_expect_eq(chp_node_tx_of_shard(&node, 1), 1);
	/* rx0 to shard 1 and rx1 to shard 0 have rings. */
	cr_expect_eq(chp_node_pool_min(&cluster, &node, CHP_POOL_RX), 2 * (1024 + 64) + 4 * 1024);
	cr_expect_eq(chp_node_pool_min(&cluster, &node, CHP_POOL_TX), 2 * 1024 + 2 * (1024 + 256));
}

Test(config, test_node_shards_without_tx_are_spread)
{
	need_cluster(cluster_text);
	need_node("{\"node\":2,\"port\":\"p\",\"lcores\":["
		  "{\"lcore\":0,\"stages\":[\"control\",\"rx0\",\"tx0\",\"tx1\"]},"
		  "{\"lcore\":1,\"stages\":[\"shard0\",\"shard1\"]}]}");
	cr_expect_eq(chp_node_tx_of_shard(&node, 0), 0);
	cr_expect_eq(chp_node_tx_of_shard(&node, 1), 1);
}

/* ---- hosts ---- */

#define HOST_CLUSTER edit(cluster_text, "\"memory\"", "\"datastore\", \"hosts\": true")
#define NODE_HOST                                                                                  \
	"{\"node\":0,\"port\":\"net_null0\",\"host\":{\"port\":\"net_vhost0\"},\"lcores\":["        \
	"{\"lcore\":0,\"stages\":[\"control\",\"rx0\",\"shard0\",\"tx0\"]},"                        \
	"{\"lcore\":1,\"stages\":[\"shard1\",\"host\"]}]}"

Test(config, test_node_host)
{
	need_cluster(HOST_CLUSTER);
	cr_expect(cluster.hosts);
	cr_expect_eq(cluster.durability, CHP_DURABILITY_DATASTORE);
	need_node(NODE_HOST);
	cr_expect_eq(node.host.channel, CHP_CHANNEL_KIND_PORT);
	cr_expect_str_eq(node.host.port, "net_vhost0");
	cr_expect_eq(node.host.ring, 1024);
	cr_expect_str_eq(node.host.dma, "none");
	cr_expect_eq(chp_node_lcore_of(&node, CHP_STAGE_HOST, 0), 1);
	/* A ring each way for shard 0, on another lcore, and the queues of shard 1. */
	cr_expect_eq(chp_node_pool_min(&cluster, &node, CHP_POOL_RX), 1024 + 64 + 2 * 1024 + 1056 + 96);
	cr_expect_eq(chp_node_pool_min(&cluster, &node, CHP_POOL_TX), 1024 + 2 * (1024 + 256) + 1056 + 288);
	need_node(edit(NODE_HOST, "{\"port\":\"net_vhost0\"}",
		       "{\"channel\":\"rdma\",\"address\":\"10.0.0.7\",\"service\":7170,\"ring\":256}"));
	cr_expect_eq(node.host.channel, CHP_CHANNEL_KIND_RDMA);
	cr_expect_eq(node.host.address, 0x0a000007);
	cr_expect_eq(node.host.service, 7170);
	cr_expect_eq(node.host.ring, 256);
	cr_expect_str_eq(chp_channel_kind_name(node.host.channel), "rdma");
	need_node(edit(NODE_HOST, "{\"port\":\"net_vhost0\"}", "{\"channel\":\"rdma\"}"));
	cr_expect_eq(node.host.address, 0);
	cr_expect_eq(node.host.service, 7471);
}

static const struct bad bad_host[] = {
	{ "\"host\":{\"port\":\"net_vhost0\"},", "",
	  "|n.json:1: host: missing: expected the channel to this node's host, { \"channel\": ... }: the cluster has "
	  "hosts" },
	{ "{\"port\":\"net_vhost0\"}", "\"none\"",
	  "|n.json:1: host: \"none\": expected the channel to this node's host, { \"channel\": ... }: the cluster "
	  "has hosts" },
	{ "{\"port\":\"net_vhost0\"}", "7", "|n.json:1: host: 7: expected an object, { \"channel\": ... }" },
	{ "{\"port\":\"net_vhost0\"}", "{}",
	  "|n.json:1: host.port: missing: expected the name of the DPDK port that leads to the host, as "
	  "\"net_vhost0\"" },
	{ "\"net_vhost0\"", "\"net null\"",
	  "|n.json:1: host.port: \"net null\": expected 1 to 63 characters of A-Z a-z 0-9 _ . : -" },
	{ "\"net_vhost0\"", "\"net_null0\"",
	  "|n.json:1: host.port: \"net_null0\": expected another port than that of the data network" },
	{ "{\"port\"", "{\"channel\":\"tcp\",\"port\"",
	  "|n.json:1: host.channel: \"tcp\": expected \"port\" or \"rdma\"" },
	{ "{\"port\"", "{\"ring\":100,\"port\"",
	  "|n.json:1: host.ring: 100: expected a power of two from 64 to 32768" },
	{ "{\"port\":\"net_vhost0\"", "{\"channel\":\"rdma\",\"service\":80",
	  "|n.json:1: host.service: 80: expected a whole number from 1024 to 65535" },
	{ "{\"port\"", "{\"prot\"",
	  "|n.json:1: host.prot: unknown key; did you mean \"port\"?"
	  "|n.json:1: host.port: missing: expected the name of the DPDK port that leads to the host, as "
	  "\"net_vhost0\"" },
	{ ",\"host\"]", "]",
	  "|n.json:1: lcores: a list of 2: expected one host stage: \"host\" is on no lcore and the cluster has "
	  "hosts" },
	{ ",\"host\"]", ",\"host\",\"host\"]",
	  "|n.json:1: lcores[1].stages[2]: \"host\": expected each stage once: it is also in lcores[1]" },
	{ ",\"host\"]", ",\"host0\"]", "|n.json:1: lcores[1].stages[1]: \"host0\": " STAGE_EXPECTED },
};

Test(config, test_node_host_every_error)
{
	need_cluster(HOST_CLUSTER);
	for (size_t i = 0; i < CHP_ARRAY_LEN(bad_host); i++)
		expect_errors(parse_node(edit(NODE_HOST, bad_host[i].from, bad_host[i].to)), bad_host[i].error);
	need_cluster(cluster_text);
	expect_errors(parse_node(NODE_HOST),
		      "|n.json:1: lcores: a list of 2: expected no host stage, or \"hosts\": true in the cluster file"
		      "|n.json:1: host: an object: expected \"none\", or \"hosts\": true in the cluster file");
}

/* The object of chaapar-host's own file: there the address is where to go. */
Test(config, test_channel_of_a_host)
{
	static const char good[] = "{\"channel\":\"rdma\",\"address\":\"10.0.0.7\"}", bad[] = "{\"channel\":\"rdma\"}";
	struct chp_channel_keys keys;
	struct chp_json_place root;
	struct chp_json_doc doc;

	errors.n = 0;
	cr_assert(chp_json_open(&doc, good, strlen(good), "h.json", &errors));
	root = chp_json_root(&doc);
	chp_channel_keys_read(&root, true, &keys);
	cr_expect_eq(errors.n, 0);
	cr_expect_eq(keys.address, 0x0a000007);
	cr_expect_str_eq(keys.port, "none");
	chp_json_close(&doc);
	cr_assert(chp_json_open(&doc, bad, strlen(bad), "h.json", &errors));
	root = chp_json_root(&doc);
	chp_channel_keys_read(&root, true, &keys);
	chp_json_close(&doc);
	expect_errors(false, "|h.json:1: address: missing: expected the address at which the replica listens");
}

/* net_af_xdp takes 2048 mbufs a queue: the computed pool must be larger than that. */
Test(config, test_node_pool_of_af_xdp)
{
	need_cluster(cluster_text);
	need_node(edit(NODE_SMALL, "net_null0", "net_af_xdp0"));
	cr_expect_eq(chp_node_pool_min(&cluster, &node, CHP_POOL_RX), 2048 + 1024 + 64);
	cr_expect_eq(node.rx_pool, 4095);
}

Test(config, test_node_members_beyond_a_router)
{
	const char *far = edit(cluster_text, "10.99.0.12", "10.98.0.12");

	need_cluster(far);
	expect_errors(
		parse_node(NODE_SMALL),
		"|n.json:1: gateway: missing: expected a router's address: member 2 (10.98.0.12) "
		"is outside 10.99.0.0/24");
	need_node(node_text);
	/* A host part of all ones, told where the file has a prefix_len or else at the node. */
	need_cluster(edit(cluster_text, "10.99.0.12", "10.99.0.255"));
	expect_errors(
		parse_node(NODE_SMALL),
		"|n.json:1: node: 0: expected another prefix_len: member 2 (10.99.0.255) has no "
		"host part in 10.99.0.0/24");
}

/* ---- printing ---- */

static void
round_trip_cluster(void)
{
	char *text = chp_cluster_config_print(&cluster), *again;
	bool ok;

	cr_assert_not_null(text);
	errors.n = 0;
	ok = chp_cluster_config_parse(text, strlen(text), "printed", protocols, applications, &cluster_again,
				      &errors);
	if (!ok)
		show_errors();
	cr_assert(ok);
	cr_assert_arr_eq(&cluster, &cluster_again, sizeof(cluster));
	again = chp_cluster_config_print(&cluster_again);
	cr_assert_str_eq(again, text);
	free(again);
	free(text);
}

static void
round_trip_node(void)
{
	char *text = chp_node_config_print(&node, &cluster), *again;
	bool ok;

	cr_assert_not_null(text);
	errors.n = 0;
	ok = chp_node_config_parse(text, strlen(text), "printed", &cluster, &node_again, &errors);
	if (!ok)
		show_errors();
	cr_assert(ok);
	cr_assert_arr_eq(&node, &node_again, sizeof(node));
	again = chp_node_config_print(&node_again, &cluster);
	cr_assert_str_eq(again, text);
	free(again);
	free(text);
}

Test(config, test_print_parses_to_the_same)
{
	need_cluster("{\"name\":\"x\",\"members\":[{\"name\":\"a\",\"address\":\"10.0.0.1\"}]}");
	round_trip_cluster();
	need_cluster(edit(cluster_text, "\"hash_seed\": 7", "\"hash_seed\": 9223372036854775807"));
	round_trip_cluster();
	need_cluster(with_members("zab", 64));
	round_trip_cluster();
	need_cluster(cluster_text);
	round_trip_cluster();
	need_node(NODE_SMALL);
	round_trip_node();
	need_node(node_text);
	round_trip_node();
	need_cluster(HOST_CLUSTER);
	round_trip_cluster();
	need_node(NODE_HOST);
	round_trip_node();
}

/* Every shard, queue and control stage on a random lcore. */
static const char *
random_node(struct chp_random *random, uint32_t shards)
{
	static char buffer[32768];
	struct chp_line t = chp_line_init(buffer, sizeof(buffer));
	struct chp_stage_config stage[CHP_STAGES_PER_LCORE_MAX];
	uint32_t n_lcores = 1 + (uint32_t)chp_random_below(random, 6), n = 0;
	uint32_t n_rx = 1 + (uint32_t)chp_random_below(random, CHP_QUEUES_MAX);
	uint32_t n_tx = 1 + (uint32_t)chp_random_below(random, CHP_QUEUES_MAX);
	uint32_t lcore_of[CHP_STAGES_PER_LCORE_MAX];

	for (uint32_t i = 0; i < n_rx; i++)
		stage[n++] = (struct chp_stage_config){ CHP_STAGE_RX, i };
	for (uint32_t i = 0; i < shards; i++)
		stage[n++] = (struct chp_stage_config){ CHP_STAGE_SHARD, i };
	for (uint32_t i = 0; i < n_tx; i++)
		stage[n++] = (struct chp_stage_config){ CHP_STAGE_TX, i };
	stage[n++] = (struct chp_stage_config){ CHP_STAGE_CONTROL, 0 };
	n_lcores = chp_min_u32(n_lcores, n);
	for (uint32_t i = 0; i < n; i++) /* the first few so that no lcore is empty */
		lcore_of[i] = i < n_lcores ? i : (uint32_t)chp_random_below(random, n_lcores);
	chp_line_add(&t, "{\"node\":0,\"port\":\"p\",\"lcores\":[");
	for (uint32_t l = 0; l < n_lcores; l++) {
		uint32_t k = 0;

		chp_line_add(&t, "%s{\"lcore\":%u,\"stages\":[", l > 0 ? "," : "", l * 3);
		for (uint32_t i = 0; i < n; i++) {
			char name[16];

			if (lcore_of[i] != l)
				continue;
			chp_stage_text(&stage[i], name);
			chp_line_add(&t, "%s\"%s\"", k++ > 0 ? "," : "", name);
		}
		chp_line_add(&t, "]}");
	}
	chp_line_add(&t, "],\"stage_ring\":%u,\"rx_ring\":%u}", 64u << chp_random_below(random, 11),
		     64u << chp_random_below(random, 10));
	cr_assert_not(t.cut);
	return buffer;
}

Test(config, test_print_round_trip_of_random_mappings)
{
	struct chp_random random = { .state = 1 };
	char shards[32];

	for (uint32_t i = 0; i < 200; i++) {
		uint32_t n = 1 + (uint32_t)chp_random_below(&random, CHP_SHARDS_MAX);

		(void)snprintf(shards, sizeof(shards), "\"shards\": %u", n);
		need_cluster(edit(cluster_text, "\"shards\": 2", shards));
		need_node(random_node(&random, n));
		cr_assert_geq(node.rx_pool, chp_node_pool_min(&cluster, &node, CHP_POOL_RX));
		cr_assert_geq(node.tx_pool, chp_node_pool_min(&cluster, &node, CHP_POOL_TX));
		round_trip_node();
	}
}

Test(config, test_print_derived)
{
	static const char *const lines[] = {
		"\"address\": \"10.99.0.11\"",
		"\"port net_ring0: 1 rx and 1 tx queues of 512 and 256 descriptors\"",
		"\"lcore 0: control (UDP port 7170), tx0 (queue 0)\"",
		"\"lcore 3: rx0 (queue 0), shard0 (UDP port 7168)\"",
		"\"lcore 5: shard1 (UDP port 7169)\"",
		"\"to other members: UDP\"",
		"\"any shard: UDP port 7171\"",
		"\"rx0 -> shard0: no ring, same lcore\"",
		"\"rx0 -> shard1: 2 rings of 2048, peers and clients\"",
		"\"shard0 -> tx0: ring of 2048\"",
		"\"shard1 -> tx0: ring of 2048\"",
		/* (1000000 + 1536) * 124 + (262144 + 1536 * 11) * 128 */
		"\"cache_bytes_per_shard\": 161084160",
		"\"log_bytes_per_shard\": 4657152",      /* (16384 + 20000) * 128 */
		"\"sessions_bytes_per_shard\": 2162688", /* 1024 * (64 + 32 * 64) */
		"\"bytes_per_mbuf\": 2432",              /* 2048 + 128 + 256 */
		"\"pools_bytes\": 42331392",             /* 17406 of them */
		"\"total_bytes\": 378139392",
		"\"total\": \"360.6 MiB\"",
	};
	char *text, hash[48];

	need_cluster(cluster_text);
	need_node(node_text);
	text = chp_node_config_print(&node, &cluster);
	cr_assert_not_null(text);
	for (size_t i = 0; i < CHP_ARRAY_LEN(lines); i++)
		cr_expect_not_null(strstr(text, lines[i]), "no %s in\n%s", lines[i], text);
	(void)snprintf(hash, sizeof(hash), "\"cluster_hash\": \"0x%08x\"", cluster.hash);
	cr_expect_not_null(strstr(text, hash));
	free(text);
}

Test(config, test_print_jumbo_mbufs)
{
	char *text;

	need_cluster(edit(cluster_text, "1500", "9000"));
	need_node(node_text);
	text = chp_node_config_print(&node, &cluster);
	cr_expect_not_null(strstr(text, "\"bytes_per_mbuf\": 9472")); /* 9026, to 64, + 384 */
	free(text);
}

/* The largest configuration there can be: the sums must not wrap. */
Test(config, test_print_largest)
{
	char *text;
	struct chp_random random = { .state = 7 };

	need_cluster(
		"{\"name\":\"x\",\"shards\":64,\"keys_max\":536800000,\"credits\":4096,"
		"\"value_blocks_max\":536870912,\"sessions_max\":1048576,"
		"\"session_window\":1024,\"mtu\":9216,\"members\":[{\"name\":\"a\","
		"\"address\":\"10.0.0.1\"}]}");
	need_node(random_node(&random, 64));
	text = chp_node_config_print(&node, &cluster);
	cr_expect_not_null(strstr(text, " TiB\""));
	free(text);
	round_trip_node();
}

/* "derived" of an older print may say anything. */
Test(config, test_derived_is_ignored)
{
	need_cluster(cluster_text);
	need_node(edit(NODE_SMALL, "{\"node\"", "{\"derived\":{\"memory\":[1,{}]},\"node\""));
	need_node(edit(NODE_SMALL, "{\"node\"", "{\"derived\":null,\"node\""));
}

/* ---- positions ---- */

Test(config, test_index_lines)
{
	static const char text[] = "{\"a\":1,\n"
				   " \"b\" : [ 10,\n"
				   "  { \"c\\\"\": \"x{[,\\\\\", \"d\":\n"
				   "     true }, [],\n"
				   "  [ [ 5 ], {} , null ] ],\n"
				   " \"\\u0061\\ud83d\\ude00\": { \"\\n\": -1.5e3 },\n"
				   " \"last\": \"\" }\n";
	static const struct {
		const char *path;
		uint32_t line;
	} want[] = {
		{ "", 1 },           { "a", 1 },
		{ "b", 2 },          { "b[0]", 2 },
		{ "b[1]", 3 },       { "b[1].c\"", 3 },
		{ "b[1].d", 3 },     { "b[2]", 4 },
		{ "b[2][0]", 0 },    { "b[3]", 5 },
		{ "b[3][0][0]", 5 }, { "b[3][2]", 5 },
		{ "b[3][3]", 0 },    { "b[4]", 0 },
		{ "aé", 0 },         { "a\xf0\x9f\x98\x80", 6 },
		{ "last", 7 },       { "none", 0 },
		{ "a.b", 0 },        { "a[0]", 0 },
		{ "b.a", 0 },        { "[0]", 0 },
		{ "b[", 0 },         { "b[x]", 0 },
		{ "b[-1]", 0 },      { "a\xf0\x9f\x98\x80.\n", 6 },
	};
	struct chp_json_index index;

	cr_assert(chp_json_index_init(&index, text, strlen(text)));
	for (size_t i = 0; i < CHP_ARRAY_LEN(want); i++)
		cr_expect_eq(chp_json_index_line(&index, text, want[i].path), want[i].line,
			     "%s: %u", want[i].path,
			     chp_json_index_line(&index, text, want[i].path));
	chp_json_index_fini(&index);
	chp_json_index_fini(&index);
}

/* Any bytes are safe, also what jansson would refuse. */
Test(config, test_index_of_anything)
{
	static const char letters[] = "{}[]\",:\\ \nu0a1e";
	struct chp_json_index index;
	struct chp_random random = { .state = 3 };
	char text[64];

	for (uint32_t i = 0; i < 50000; i++) {
		size_t len = chp_random_below(&random, sizeof(text));

		for (size_t j = 0; j < len; j++)
			text[j] = letters[chp_random_below(&random, sizeof(letters) - 1)];
		cr_assert(chp_json_index_init(&index, text, len));
		(void)chp_json_index_line(&index, text, "a[0].u");
		(void)chp_json_index_line(&index, text, "[1][0]");
		chp_json_index_fini(&index);
	}
}

/* ---- hostile files ---- */

Test(config, test_truncated_files_are_errors)
{
	for (size_t len = 0; len < strlen(cluster_text) - 2; len++) {
		errors.n = 0;
		cr_assert_not(chp_cluster_config_parse(cluster_text, len, "c.json", protocols, applications,
						       &cluster, &errors));
		cr_assert_eq(errors.n, 1);
	}
}

/* Bytes of valid files replaced at random: no crash, and what is accepted prints and parses again.
 */
Test(config, test_damaged_files)
{
	static const char letters[] = "{}[]\",:\\0123456789abcdnrstx. -";
	struct chp_random random = { .state = 5 };
	char text[2048];
	uint32_t accepted = 0;

	for (uint32_t i = 0; i < 4000; i++) {
		bool is_node = i % 2 != 0;
		size_t len = is_node ? strlen(node_text) : strlen(cluster_text);

		memcpy(text, is_node ? node_text : cluster_text, len + 1);
		for (uint64_t n = 1 + chp_random_below(&random, 3); n > 0; n--)
			text[chp_random_below(&random, len)] =
				letters[chp_random_below(&random, sizeof(letters) - 1)];
		if (is_node)
			need_cluster(cluster_text);
		if (is_node ? !parse_node(text) : !parse_cluster(text)) {
			cr_assert_gt(errors.n, 0);
			for (uint32_t j = 0; j < errors.n && j < CHP_CONFIG_ERRORS_MAX; j++)
				cr_assert_lt(strnlen(errors.text[j], CHP_CONFIG_ERROR_BYTES),
					     CHP_CONFIG_ERROR_BYTES);
			continue;
		}
		accepted++;
		if (is_node)
			round_trip_node();
		else
			round_trip_cluster();
	}
	cr_expect_gt(accepted, 100);
}

/* A file of nothing but wrong things: bounded time, the first errors kept, all counted. */
Test(config, test_many_errors_are_counted, .timeout = 20)
{
	size_t size = CHP_JSON_BYTES_MAX, len = 0;
	char *text = malloc(size);
	uint32_t n = 0;

	cr_assert_not_null(text);
	text[len++] = '{';
	while (len < size - 32)
		len += (size_t)snprintf(text + len, size - len, "%s\"k%u\":1", n > 0 ? "," : "", n),
			n++;
	text[len++] = '}';
	errors.n = 0;
	cr_expect_not(chp_cluster_config_parse(text, len, "c.json", protocols, applications, &cluster, &errors));
	cr_expect_eq(errors.n, n + 2); /* name and members are missing */
	for (uint32_t i = 0; i < CHP_CONFIG_ERRORS_MAX; i++)
		cr_expect(strncmp(errors.text[i], "c.json:1: k", 11) == 0);
	/* The same keys all twice. */
	len = 0;
	n = 0;
	text[len++] = '{';
	while (len < size - 32)
		len += (size_t)snprintf(text + len, size - len, "%s\"k%u\":1", n > 0 ? "," : "",
					n / 2),
			n++;
	text[len++] = '}';
	errors.n = 0;
	cr_expect_not(chp_cluster_config_parse(text, len, "c.json", protocols, applications, &cluster, &errors));
	cr_expect_eq(errors.n, n / 2);
	free(text);
}

Test(config, test_deep_nesting, .timeout = 20)
{
	size_t size = CHP_JSON_BYTES_MAX;
	char *text = malloc(size);

	cr_assert_not_null(text);
	memset(text, '[', size);
	memcpy(text, "{\"name\":", 8);
	errors.n = 0;
	cr_expect_not(chp_cluster_config_parse(text, size, "c.json", protocols, applications, &cluster, &errors));
	cr_expect_str_eq(errors.text[0],
			 "c.json:1: not JSON: maximum parsing depth reached near '['");
	memset(text + 8 + 2000, ']', 2000);
	text[8 + 4000] = '}';
	errors.n = 0;
	cr_expect_not(
		chp_cluster_config_parse(text, 8 + 4001, "c.json", protocols, applications, &cluster, &errors));
	cr_expect_str_eq(errors.text[0], "c.json:1: name: a list of 1: " NAME_EXPECTED);
	free(text);
}

Test(config, test_messages_fit_and_stay_on_one_line)
{
	char file[4096], key[600], text[2048];

	memset(file, 'f', sizeof(file));
	memcpy(file + sizeof(file) - 13, "/c\n\tluster.js", 14 - 1);
	file[sizeof(file) - 1] = '\0';
	memset(key, 'k', sizeof(key));
	key[sizeof(key) - 1] = '\0';
	(void)snprintf(text, sizeof(text), "{\n\"%s\": 1, \"shards\": \"%s\" }", key, key);
	errors.n = 0;
	cr_expect_not(
		chp_cluster_config_parse(text, strlen(text), file, protocols, applications, &cluster, &errors));
	cr_assert_eq(errors.n, 4);
	for (uint32_t i = 0; i < errors.n; i++) {
		cr_expect(strncmp(errors.text[i], "...ffff", 7) == 0);
		cr_expect_lt(strlen(errors.text[i]), CHP_CONFIG_ERROR_BYTES);
		cr_expect_null(strpbrk(errors.text[i], "\n\t"));
		cr_expect_not_null(strstr(errors.text[i], "/c??luster.j:"));
	}
	cr_expect_not_null(strstr(errors.text[3], "kk...: expected a whole number from 1 to 64"),
			   "%s", errors.text[3]);
	cr_expect_not_null(strstr(errors.text[2], "kkk...: unknown key; expected one of name"));
	cr_expect_str_eq(errors.text[2] + strlen(errors.text[2]) - 3, "...");
}

/* ---- memory that runs short ---- */

static uint32_t allocations_left;

static void *
short_malloc(size_t size)
{
	return allocations_left > 0 && allocations_left-- > 0 ? malloc(size) : NULL;
}

Test(config, test_print_when_memory_is_short)
{
	char *text = NULL;
	uint32_t n;

	need_cluster(cluster_text);
	need_node(node_text);
	json_set_alloc_funcs(short_malloc, free);
	for (n = 0; !text; n++) {
		allocations_left = n;
		text = chp_node_config_print(&node, &cluster);
	}
	free(text);
	cr_expect_gt(n, 50);
	text = NULL;
	for (n = 0; !text; n++) {
		allocations_left = n;
		text = chp_cluster_config_print(&cluster);
	}
	free(text);
	cr_expect_gt(n, 20);
}

Test(config, test_parse_when_memory_is_short)
{
	bool ok = false;
	uint32_t n;

	json_set_alloc_funcs(short_malloc, free);
	for (n = 0; !ok; n++) {
		allocations_left = n;
		ok = parse_cluster(cluster_text);
		cr_assert(ok || errors.n > 0);
	}
	cr_expect_gt(n, 20);
}

/* ---- files ---- */

Test(config, test_read_file)
{
	char name[] = "/tmp/chp_test_config_XXXXXX";
	int fd = mkstemp(name);
	size_t len = 0;
	char *text;

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, cluster_text, strlen(cluster_text)), (ssize_t)strlen(cluster_text));
	errors.n = 0;
	text = chp_config_read_file(name, &len, &errors);
	cr_assert_not_null(text);
	cr_expect_eq(errors.n, 0);
	cr_expect_eq(len, strlen(cluster_text));
	cr_expect_str_eq(text, cluster_text);
	free(text);
	cr_assert_eq(ftruncate(fd, CHP_JSON_BYTES_MAX), 0);
	text = chp_config_read_file(name, &len, &errors);
	cr_expect_not_null(text);
	cr_expect_eq(len, CHP_JSON_BYTES_MAX);
	free(text);
	cr_assert_eq(ftruncate(fd, CHP_JSON_BYTES_MAX + 1), 0);
	cr_expect_null(chp_config_read_file(name, &len, &errors));
	cr_expect_eq(errors.n, 1);
	cr_expect_not_null(
		strstr(errors.text[0], ": more than 1048576 bytes: expected a configuration"));
	cr_assert_eq(ftruncate(fd, 0), 0);
	text = chp_config_read_file(name, &len, &errors);
	cr_expect_not_null(text);
	cr_expect_eq(len, 0);
	free(text);
	close(fd);
	unlink(name);
	errors.n = 0;
	cr_expect_null(chp_config_read_file("/nonexistent/c.json", &len, &errors));
	cr_expect_str_eq(errors.text[0],
			 "/nonexistent/c.json: can't open it: No such file or directory");
	cr_expect_null(chp_config_read_file("/tmp", &len, &errors));
	cr_expect_str_eq(errors.text[1], "/tmp: can't read it: Is a directory");
}

/* ---- what ships with the program ---- */

static char *
need_file(const char *name)
{
	size_t len;
	char *text;

	errors.n = 0;
	text = chp_config_read_file(name, &len, &errors);
	cr_assert_not_null(text, "%s (run the tests in the repository's root)", errors.text[0]);
	return text;
}

Test(config, test_example_files)
{
	char *text = need_file("conf/cluster.json"), name[32];

	need_cluster(text);
	free(text);
	cr_expect_str_eq(cluster.name, "local");
	cr_expect_eq(cluster.n_members, 3);
	cr_expect_eq(cluster.shards, 2);
	for (uint32_t i = 0; i < cluster.n_members; i++) {
		(void)snprintf(name, sizeof(name), "conf/node%u.json", i);
		text = need_file(name);
		need_node(text);
		free(text);
		cr_expect_eq(node.node, i);
		cr_expect_eq(cluster.member[i].address, 0x0a630000 + 10 + i);
	}
}

/* Each key has a row in docs/config.md with its range. */
static void
check_docs(const char *docs, const struct chp_field *fields)
{
	for (; fields->type != CHP_FIELD_END; fields++) {
		char row[64], range[64];
		const char *at, *end;

		(void)snprintf(row, sizeof(row), "\n| `%s` |", fields->key);
		at = strstr(docs, row);
		cr_expect_not_null(at, "docs/config.md has no row for %s", fields->key);
		if (!at || (fields->type != CHP_FIELD_UINT && fields->type != CHP_FIELD_POW2))
			continue;
		(void)snprintf(range, sizeof(range), "%llu to %llu",
			       (unsigned long long)fields->min, (unsigned long long)fields->max);
		end = strchr(at + 1, '\n');
		at = strstr(at, range);
		cr_expect(at && at < end, "docs/config.md does not say %s: %s", fields->key, range);
	}
}

Test(config, test_docs_have_every_key)
{
	char *docs = need_file("docs/config.md");

	check_docs(docs, chp_cluster_fields);
	check_docs(docs, chp_member_fields);
	check_docs(docs, chp_node_fields);
	check_docs(docs, chp_lcore_fields);
	check_docs(docs, chp_pool_fields);
	check_docs(docs, chp_timer_fields);
	check_docs(docs, chp_channel_fields);
	check_docs(docs, chp_host_fields);
	free(docs);
}

/* The examples of docs/config.md are complete files: a cluster file and then a node file of it. */
Test(config, test_docs_examples)
{
	static const char fence[] = "\n```json\n";
	char *docs = need_file("docs/config.md"), *at = docs, *end;
	uint32_t clusters = 0, nodes = 0;

	while ((at = strstr(at, fence))) {
		at += strlen(fence);
		end = strstr(at, "\n```\n");
		cr_assert_not_null(end);
		*end = '\0';
		if (strstr(at, "\"members\"")) {
			need_cluster(at);
			clusters++;
		} else {
			need_node(at);
			round_trip_node();
			nodes++;
		}
		at = end + 1;
	}
	cr_expect_eq(clusters, 2);
	cr_expect_eq(nodes, 2);
	free(docs);
}
