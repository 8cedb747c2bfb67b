/* SPDX-License-Identifier: BSD-3-Clause */
/* The host file: defaults, every message with its line, a round trip. */
#include "config/host.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct chp_cluster_config cluster = { .hosts = true };
static struct chp_config_errors errors;
static struct chp_host_file file;

/* What an adapter would say. */
static bool
check_store(const json_t *store, char why[CHP_CONFIG_ERROR_BYTES])
{
	const char *type = json_string_value(json_object_get(store, "type"));

	if (strcmp(type, "rocksdb") != 0) {
		(void)snprintf(why, CHP_CONFIG_ERROR_BYTES, "type: expected one of \"rocksdb\"");
		return false;
	}
	if (json_is_string(json_object_get(store, "path")))
		return true;
	(void)snprintf(why, CHP_CONFIG_ERROR_BYTES, "path: expected a text");
	return false;
}

static bool
parse(const char *text)
{
	errors.n = 0;
	return chp_host_file_parse(text, strlen(text), "host.json", &cluster, check_store, &file, &errors);
}

#define CHANNEL "\"channel\": { \"channel\": \"port\", \"port\": \"net_virtio_user0\" },\n"
#define STORE "\"store\": { \"type\": \"rocksdb\", \"path\": \"/x\" }"

Test(host_file, defaults)
{
	cr_assert(parse("{" CHANNEL STORE "}"), "%s", errors.text[0]);
	cr_assert_eq(file.channel.channel, CHP_CHANNEL_KIND_PORT);
	cr_assert_str_eq(file.channel.port, "net_virtio_user0");
	cr_assert_str_eq(json_string_value(json_object_get(file.store, "path")), "/x");
	cr_assert_eq(file.idle, CHP_IDLE_SLEEP);
	cr_assert_eq(file.idle_sleep_ns, 200000);
	cr_assert_eq(file.put_bytes, 4u << 20);
	cr_assert_eq(file.scan_bytes, 65536);
	cr_assert_eq(file.readers, 2);
	cr_assert_eq(file.retry_ns_min, 10000000);
	cr_assert_eq(file.retry_ns_max, 1000000000);
	cr_assert_eq(file.down_ns, UINT64_C(3000000000));
	cr_assert_eq(file.stop_ns, UINT64_C(5000000000));
	cr_assert_str_empty(file.status);
	chp_host_file_free(&file);
}

Test(host_file, what_is_printed_parses_again)
{
	struct chp_host_file again;
	char *text;

	cr_assert(parse("{ \"idle\": \"spin\", \"idle_sleep_us\": 7, \"put_bytes\": 20000, \"scan_bytes\": 3000,\n"
			"\"readers\": 5, \"retry_min_ms\": 2, \"retry_max_ms\": 3, \"down_ms\": 4, \"stop_ms\": 5,\n"
			"\"status\": \"/run/x.sock\",\n"
			"\"channel\": { \"channel\": \"rdma\", \"address\": \"10.0.0.1\", \"service\": 5000 },\n" STORE
			"}"),
		  "%s", errors.text[0]);
	again = file;
	text = chp_host_file_print(&file, 12345);
	cr_assert_not_null(text);
	cr_assert(parse(text), "%s in\n%s", errors.text[0], text);
	cr_assert(json_equal(again.store, file.store));
	chp_host_file_free(&again);
	again.store = file.store;
	cr_assert_eq(memcmp(&again, &file, sizeof(file)), 0, "%s", text);
	cr_assert_str_eq(file.status, "/run/x.sock");
	chp_host_file_free(&file);
	free(text);
}

static void
expect_error(const char *text, const char *message)
{
	cr_expect_not(parse(text), "%s", text);
	cr_expect_eq(errors.n, 1, "%u errors in %s: %s, %s", errors.n, text, errors.text[0], errors.text[1]);
	cr_expect_not_null(strstr(errors.text[0], message), "%s\nis not %s", errors.text[0], message);
	cr_expect_null(file.store);
}

Test(host_file, errors_name_line_and_key)
{
	expect_error("{\n" STORE "}", "host.json:1: channel: missing: expected the channel to the replica");
	expect_error("{\n" CHANNEL "\"idle\": \"spin\" }", "host.json:1: store: missing: expected the datastore");
	expect_error("{\n" CHANNEL STORE ",\n\"stores\": 1 }", "host.json:4: stores: ");
	expect_error("{\n" CHANNEL STORE ",\n\"readers\": 17 }", "host.json:4: readers: 17: ");
	expect_error("{\n" CHANNEL "\"store\": 5 }", "host.json:3: store: 5: expected an object");
	expect_error("{\n" CHANNEL "\"store\": { \"path\": \"/x\" } }",
		     "store.type: missing: expected the type of the store");
	expect_error("{\n" CHANNEL "\"store\": {\n\"type\": \"x\" } }",
		     "host.json:4: store.type: \"x\": expected one of \"rocksdb\"");
	expect_error("{\n" CHANNEL "\"store\": { \"type\": \"rocksdb\",\n\"path\": 1 } }",
		     "host.json:4: store.path: 1: expected a text");
	expect_error("{\n" CHANNEL "\"store\": { \"type\": \"rocksdb\" } }", "store.path: missing: expected a text");
	expect_error("{\n" CHANNEL STORE ",\n\"status\": \"x.sock\" }",
		     "host.json:4: status: \"x.sock\": expected an absolute");
	expect_error("{\n" CHANNEL STORE ",\n\"retry_min_ms\": 50,\n\"retry_max_ms\": 20 }",
		     "host.json:5: retry_max_ms: 20: ");
	expect_error("{\n\"channel\": { \"channel\": \"port\" },\n" STORE "}", "channel.port: ");
	expect_error("{\n\"channel\": { \"channel\": \"rdma\" },\n" STORE "}", "channel.address: ");
	expect_error("{", "host.json:1: ");
}

Test(host_file, what_lets_people_in_is_not_printed)
{
	char *text;

	cr_assert(parse("{" CHANNEL "\"store\": { \"type\": \"rocksdb\", \"path\": \"/x\", \"password\": \"pw-7\",\n"
			"\"secret_key\": \"sk-7\", \"access_key\": \"ak-7\" } }"),
		  "%s", errors.text[0]);
	text = chp_host_file_print(&file, 1);
	cr_assert_not_null(text);
	cr_expect_null(strstr(text, "pw-7"), "%s", text);
	cr_expect_null(strstr(text, "sk-7"), "%s", text);
	cr_expect_not_null(strstr(text, "ak-7"), "%s", text);
	cr_expect_not_null(strstr(text, "hidden"), "%s", text);
	cr_expect_str_eq(json_string_value(json_object_get(file.store, "password")), "pw-7", "the file's own stays");
	free(text);
	chp_host_file_free(&file);
}

Test(host_file, a_cluster_without_hosts_needs_none)
{
	static const struct chp_cluster_config none;
	const char *text = "{" CHANNEL STORE "}";

	errors.n = 0;
	cr_assert_not(chp_host_file_parse(text, strlen(text), "host.json", &none, check_store, &file, &errors));
	cr_assert_not_null(strstr(errors.text[0], "expected \"hosts\": true in the cluster file"));
}
