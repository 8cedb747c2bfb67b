/* SPDX-License-Identifier: BSD-3-Clause */
#include "config/host.h"

#include "config/json.h"

#include <string.h>

#define US_NS UINT64_C(1000)
#define MS_NS UINT64_C(1000000)

static const char *const idle_names[] = { "spin", "yield", "sleep", NULL };

#define H chp_host_file
const struct chp_field chp_host_fields[] = {
	CHP_ROW_CUSTOM("channel", CHP_FIELD_REQUIRED, "the channel to the replica, { \"channel\": ... }"),
	CHP_ROW_CUSTOM("store", CHP_FIELD_REQUIRED, "the datastore, { \"type\": ... }"),
	CHP_ROW_CHOICE(H, idle, "idle", idle_names, NULL, CHP_IDLE_SLEEP, "what to do without work"),
	CHP_ROW_UINT(H, idle_sleep_ns, "idle_sleep_us", 1, 10000, 200, US_NS, "the longest sleep"),
	CHP_ROW_UINT(H, put_bytes, "put_bytes", 16384, 1u << 28, 4u << 20, 1,
		     "bytes of versions of a shard that are not durable yet"),
	CHP_ROW_UINT(H, scan_bytes, "scan_bytes", 2048, CHP_COPY_BYTES_MAX, 65536, 1, "bytes of one part of a scan"),
	CHP_ROW_UINT(H, readers, "readers", 1, CHP_HOST_READERS_MAX, 2, 1, "threads that read"),
	CHP_ROW_UINT(H, retry_ns_min, "retry_min_ms", 1, 10000, 10, MS_NS, "the first wait after an error"),
	CHP_ROW_UINT(H, retry_ns_max, "retry_max_ms", 1, 600000, 1000, MS_NS, "the longest wait after errors"),
	CHP_ROW_UINT(H, down_ns, "down_ms", 1, 600000, 3000, MS_NS, "errors for this long mean that the store is down"),
	CHP_ROW_UINT(H, stop_ns, "stop_ms", 1, 600000, 5000, MS_NS, "how long to wait at the end for a store"),
	CHP_ROW_CUSTOM("status", 0, "the path of a socket that tells the status"),
	CHP_ROW_IGNORED("derived"),
	{ .type = CHP_FIELD_END },
};
#undef H

/* What the adapter says against it, at the line of the key that it names. */
static void
check_store(const struct chp_json_place *store, chp_host_check_store *check)
{
	struct chp_json_place place = chp_json_key(store, "type");
	char why[CHP_CONFIG_ERROR_BYTES] = "", key[CHP_NAME_BYTES_MAX + 1] = "";
	const char *text = why, *colon;

	if (!json_is_object(store->value)) {
		chp_json_error(store, "expected an object, { \"type\": ... }");
		return;
	}
	if (!json_is_string(place.value)) {
		chp_json_error(&place, "expected the type of the store");
		return;
	}
	if (check(store->value, why))
		return;
	colon = strstr(why, ": ");
	if (colon != NULL && (size_t)(colon - why) < sizeof(key)) {
		memcpy(key, why, (size_t)(colon - why));
		place = chp_json_key(store, key);
		text = colon + 2;
	} else {
		place = *store;
	}
	chp_json_error(&place, "%s", text);
}

static void
read_status(const struct chp_json_place *root, struct chp_host_file *out)
{
	struct chp_json_place place = chp_json_key(root, "status");
	const char *path = json_string_value(place.value);

	if (place.value == NULL)
		return;
	if (path == NULL || path[0] != '/' || strlen(path) >= sizeof(out->status)) {
		chp_json_error(&place, "expected an absolute path of at most %zu characters", sizeof(out->status) - 1);
		return;
	}
	memcpy(out->status, path, strlen(path) + 1);
}

bool
chp_host_file_parse(const char *text, size_t len, const char *file, const struct chp_cluster_config *cluster,
		    chp_host_check_store *check, struct chp_host_file *out, struct chp_config_errors *errors)
{
	const uint32_t before = errors->n;
	struct chp_json_place root, place;
	struct chp_json_doc doc;

	memset(out, 0, sizeof(*out));
	if (!chp_json_open(&doc, text, len, file, errors))
		return false;
	root = chp_json_root(&doc);
	(void)chp_json_read(&root, chp_host_fields, out);
	if (!cluster->hosts)
		chp_json_error(&root, "the cluster has no hosts: expected \"hosts\": true in the cluster file");
	place = chp_json_key(&root, "channel");
	if (place.value != NULL)
		chp_channel_keys_read(&place, true, &out->channel);
	if (out->retry_ns_min > out->retry_ns_max) {
		place = chp_json_key(&root, "retry_max_ms");
		chp_json_error(&place, "expected at least retry_min_ms");
	}
	read_status(&root, out);
	place = chp_json_key(&root, "store");
	if (place.value != NULL) {
		check_store(&place, check);
		out->store = json_incref(place.value);
	}
	chp_json_close(&doc);
	if (errors->n != before)
		chp_host_file_free(out);
	return errors->n == before;
}

void
chp_host_file_free(struct chp_host_file *h)
{
	json_decref(h->store);
	h->store = NULL;
}
