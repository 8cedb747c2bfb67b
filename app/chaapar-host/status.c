/* SPDX-License-Identifier: BSD-3-Clause */
/* The status as JSON: on the status socket, one connection one answer, and at the end. */
#include "host.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static void
add(json_t *o, const char *key, uint64_t n)
{
	(void)json_object_set_new(o, key, json_integer((json_int_t)n));
}

/* Texts about datastores are cut to their length, maybe in the midst of a character; servers may say anything. */
static void
add_text(json_t *o, const char *key, const char *text)
{
	json_t *value = json_string(text);
	char plain[CHP_CHANNEL_TEXT_BYTES];
	uint32_t n = 0;

	if (value == NULL) { /* no UTF-8 */
		for (; text[n] != '\0' && n < sizeof(plain) - 1; n++)
			plain[n] = (uint8_t)text[n] < 0x80 ? text[n] : '?';
		plain[n] = '\0';
		value = json_string(plain);
	}
	(void)json_object_set_new(o, key, value);
}

static json_t *
channel_json(struct host *h)
{
	json_t *o = json_object();
	const char *why = NULL;

	add_text(o, "type", chp_channel_kind_name(h->file->channel.channel));
	if (h->channel == NULL)
		return o;
	add_text(o, "state", chp_channel_state_name(chp_channel_state(h->channel, &why)));
	add_text(o, "text", why != NULL ? why : "");
	for (uint32_t i = 0; i < CHP_CHANNEL_COUNTER_COUNT; i++)
		add(o, chp_channel_counter_name((enum chp_channel_counter)i),
		    chp_channel_counter(h->channel, (enum chp_channel_counter)i));
	add(o, "strays", h->strays);
	add(o, "not_sent", h->not_sent);
	return o;
}

static json_t *
store_json(struct host *h)
{
	static const char *const states[CHP_STORE_STATES] = { "ok", "slow", "down" };
	struct chp_engine_counters c = { 0 };
	json_t *o = json_object();

	if (h->engine != NULL)
		chp_engine_stats(h->engine, &c);
	add_text(o, "type", h->adapter->name);
	add_text(o, "name", h->info.name);
	add_text(o, "state", h->info.refusal != CHP_HOST_OK ? "not open" : states[h->info.state]);
	add_text(o, "text", h->info.text);
	(void)json_object_set_new(o, "volatile", json_boolean((h->info.flags & CHP_STORE_VOLATILE) != 0));
	(void)json_object_set_new(o, "allow_loss", json_boolean((h->info.flags & CHP_STORE_ALLOW_LOSS) != 0));
	add(o, "errors", h->info.errors);
	add(o, "starts", h->starts);
#define CHP_COUNTER_FIELD(name, help) add(o, #name, c.name);
	CHP_ENGINE_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
	return o;
}

static json_t *
shard_json(const struct host_lane *l, uint32_t shard)
{
	json_t *o = json_object(), *link = json_object();
	struct chp_dsi_status s;
	char text[24];

	chp_dsi_status(l->dsi, &s);
	add(o, "shard", shard);
	(void)snprintf(text, sizeof(text), "%016" PRIx64, s.shard_incarnation);
	add_text(o, "replica", s.shard_incarnation != 0 ? text : "none");
	add_text(o, "refused", s.refused);
	add(o, "life", s.record.life);
	add(o, "batch", s.record.batch);
	add(o, "newest", s.record.newest);
	add(o, "epoch", s.record.epoch);
	add(o, "items_held", s.record.items);
	add(o, "tombstones_held", s.record.tombstones);
	add(o, "put_bytes_open", s.put_bytes);
	add(o, "loads_open", s.loads);
#define CHP_COUNTER_FIELD(name, help) add(o, #name, s.counters.name);
	CHP_DSI_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
#define CHP_COUNTER_FIELD(name, help) add(link, #name, s.link.name);
	CHP_LINK_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
	(void)json_object_set_new(o, "link", link);
	return o;
}

char *
host_status(struct host *h)
{
	json_t *o = json_object(), *shards = json_array();
	char *text;

	add_text(o, "cluster", h->cluster->name);
	add(o, "node", h->node->node);
	(void)json_object_set_new(o, "channel", channel_json(h));
	(void)json_object_set_new(o, "store", store_json(h));
	for (uint32_t i = 0; i < h->cluster->shards; i++) {
		if (h->lane[i].dsi != NULL)
			(void)json_array_append_new(shards, shard_json(&h->lane[i], i));
	}
	(void)json_object_set_new(o, "shards", shards);
	text = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	return text;
}

/* ------------------------------------------------------------------ the socket */

int
host_status_open(struct host *h, struct chp_error *error)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct stat s;

	h->status_fd = -1;
	if (h->file->status[0] == '\0')
		return 0;
	_Static_assert(sizeof(a.sun_path) >= sizeof(h->file->status), "the path fits");
	memcpy(a.sun_path, h->file->status, sizeof(h->file->status));
	/* A killed process leaves its socket behind. */
	if (lstat(a.sun_path, &s) == 0 && S_ISSOCK(s.st_mode))
		(void)unlink(a.sun_path);
	h->status_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (h->status_fd < 0 || bind(h->status_fd, (const struct sockaddr *)&a, sizeof(a)) != 0 ||
	    listen(h->status_fd, 8) != 0)
		return chp_error_set(error, CHP_EXIT_RESOURCE, "status socket %s: %s", a.sun_path, strerror(errno));
	return 0;
}

void
host_status_answer(struct host *h)
{
	const int room = 1 << 20;
	char *text;
	int fd;

	if (h->status_fd < 0)
		return;
	fd = accept4(h->status_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return;
	text = host_status(h);
	if (text != NULL) {
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
		(void)!send(fd, text, strlen(text), MSG_NOSIGNAL);
		(void)!send(fd, "\n", 1, MSG_NOSIGNAL);
	}
	free(text);
	(void)close(fd);
}

void
host_status_close(struct host *h)
{
	if (h->status_fd < 0)
		return;
	(void)close(h->status_fd);
	(void)unlink(h->file->status);
	h->status_fd = -1;
}
