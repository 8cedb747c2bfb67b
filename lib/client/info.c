/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The cluster's shape: asked of the endpoints at first and of any member later. Its JSON comes from
 * the network and is believed only as far as it fits the limits.
 */
#include "client/internal.h"

#include "base/digest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- endpoints ---- */

/* Where INFO is asked for when no port is given: S' of 2, 1, 4, 8 ... 64 shards at the default
 * base. */
static const uint16_t port_offset[] = { 2, 1, 4, 8, 16, 32, 64 };

static int
add_endpoint(struct chaapar *c, struct in_addr host, uint32_t port)
{
	if (c->n_endpoints == CHP_CLIENT_ENDPOINTS_MAX)
		return -EINVAL;
	c->endpoint[c->n_endpoints++] = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_addr = host,
		.sin_port = htons((uint16_t)port),
	};
	return 0;
}

static int
resolve(const char *host, struct in_addr *out)
{
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_DGRAM }, *found;
	struct sockaddr_in first;

	if (getaddrinfo(host, NULL, &hints, &found) != 0)
		return -ENOENT;
	memcpy(&first, found->ai_addr, sizeof(first));
	freeaddrinfo(found);
	*out = first.sin_addr;
	return 0;
}

static int
endpoint(struct chaapar *c, const char *text, size_t len)
{
	char host[256], port[8] = "", *end = port;
	const char *colon = memchr(text, ':', len);
	size_t host_len = colon != NULL ? (size_t)(colon - text) : len;
	size_t port_len = colon != NULL ? len - host_len - 1 : 0;
	struct in_addr address;
	unsigned long number;
	int err;

	if (host_len == 0 || host_len >= sizeof(host) || port_len >= sizeof(port))
		return -EINVAL;
	memcpy(host, text, host_len);
	host[host_len] = '\0';
	if (colon != NULL)
		memcpy(port, colon + 1, port_len);
	port[port_len] = '\0';
	number = strtoul(port, &end, 10);
	if (colon != NULL &&
	    (port[0] < '0' || port[0] > '9' || *end != '\0' || number == 0 || number > 65535))
		return -EINVAL;
	err = resolve(host, &address);
	if (err != 0 || colon != NULL)
		return err != 0 ? err : add_endpoint(c, address, (uint32_t)number);
	for (size_t i = 0; i < CHP_ARRAY_LEN(port_offset) && err == 0; i++)
		err = add_endpoint(c, address, CHAAPAR_PORT_BASE_DEFAULT + port_offset[i]);
	return err;
}

int
chp_info_endpoints(struct chaapar *c, const char *text)
{
	for (;;) {
		size_t len = strcspn(text, ",");
		int err = endpoint(c, text, len);

		if (err != 0)
			return err;
		if (text[len] == '\0')
			return 0;
		text += len + 1;
	}
}

/* After the endpoints come the members, of whom more may be known than were named. */
struct sockaddr_in
chp_info_address(const struct chaapar *c)
{
	uint32_t at = c->endpoint_next % (c->n_endpoints + chp_count_bits(c->members));
	struct sockaddr_in to = { .sin_family = AF_INET };
	uint64_t left = c->members;

	if (at < c->n_endpoints)
		return c->endpoint[at];
	for (at -= c->n_endpoints; at > 0; at--)
		left &= left - 1;
	to.sin_addr.s_addr = c->peer[chp_first_bit(left)].address;
	to.sin_port = htons((uint16_t)c->info.control_port);
	return to;
}

bool
chp_info_is_source(const struct chaapar *c, const struct sockaddr_in *from)
{
	for (uint32_t i = 0; i < c->n_endpoints; i++) {
		if (c->endpoint[i].sin_addr.s_addr == from->sin_addr.s_addr &&
		    c->endpoint[i].sin_port == from->sin_port)
			return true;
	}
	for (uint64_t left = c->members; left != 0; left &= left - 1) {
		if (c->peer[chp_first_bit(left)].address == from->sin_addr.s_addr &&
		    ntohs(from->sin_port) == c->info.control_port)
			return true;
	}
	return false;
}

/* ---- parsing ---- */

static bool
get_number(const json_t *object, const char *key, uint64_t min, uint64_t max, uint32_t *out)
{
	const json_t *v = json_object_get(object, key);
	json_int_t n = json_is_integer(v) ? json_integer_value(v) : -1;

	if (n < 0 || (uint64_t)n < min || (uint64_t)n > max)
		return false;
	*out = (uint32_t)n;
	return true;
}

static bool
get_name(const json_t *object, const char *key, char out[CHAAPAR_NAME_BYTES])
{
	const char *text = json_string_value(json_object_get(object, key));
	size_t len = text != NULL ? strlen(text) : 0;

	if (len == 0 || len >= CHAAPAR_NAME_BYTES)
		return false;
	memcpy(out, text, len + 1);
	return true;
}

/* Older replicas do not say. */
static bool
get_protocol(const json_t *object, struct chaapar_info *out)
{
	return json_object_get(object, "protocol") == NULL || get_name(object, "protocol", out->protocol);
}

/* A string of digits: JSON numbers lose what lies beyond 2^53 in many programs. */
static bool
get_seed(const json_t *object, uint64_t *out)
{
	const char *text = json_string_value(json_object_get(object, "hash_seed"));
	char *end;

	if (text == NULL || text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	*out = strtoull(text, &end, 10);
	return errno == 0 && *end == '\0';
}

static bool
get_members(const json_t *object, struct chaapar_info *out)
{
	const json_t *list = json_object_get(object, "members");
	uint64_t seen = 0;
	size_t n = json_array_size(list);

	if (n == 0 || n > CHAAPAR_NODES_MAX)
		return false;
	out->n_members = (uint32_t)n;
	for (size_t i = 0; i < n; i++) {
		const json_t *m = json_array_get(list, i);
		struct chaapar_member *to = &out->member[i];
		const char *text = json_string_value(json_object_get(m, "address"));
		struct in_addr address;

		if (!get_number(m, "id", 0, CHAAPAR_NODES_MAX - 1, &to->id) ||
		    !get_name(m, "name", to->name) || text == NULL ||
		    inet_pton(AF_INET, text, &address) != 1 || address.s_addr == 0 ||
		    (seen & chp_bit(to->id)) != 0)
			return false;
		inet_ntop(AF_INET, &address, to->address, sizeof(to->address));
		seen |= chp_bit(to->id);
	}
	return true;
}

int
chp_info_parse(const void *text, size_t len, struct chaapar_info *out)
{
	json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	const json_t *epoch = json_object_get(root, "epoch");
	bool ok;

	memset(out, 0, sizeof(*out));
	ok = get_name(root, "name", out->name) &&
	     get_number(root, "hash", 1, UINT32_MAX, &out->hash) &&
	     get_number(root, "shards", 1, CHP_SHARDS_MAX, &out->shards) &&
	     get_seed(root, &out->hash_seed) &&
	     get_number(root, "port_base", 1, 65535 - CHP_SHARDS_MAX - CHP_PORTS_EXTRA,
			&out->port_base) &&
	     get_number(root, "mtu", CHP_MTU_MIN, CHP_MTU_MAX, &out->mtu) &&
	     get_number(root, "key_bytes_max", 1, CHP_KEY_BYTES_MAX, &out->key_bytes_max) &&
	     get_number(root, "value_bytes_max", 1, CHP_VALUE_BYTES_MAX, &out->value_bytes_max) &&
	     get_number(root, "session_window", 1, CHP_SESSION_WINDOW_MAX, &out->session_window) &&
	     get_number(root, "node", 0, CHAAPAR_NODES_MAX - 1, &out->node) &&
	     get_protocol(root, out) &&
	     json_is_integer(epoch) && json_integer_value(epoch) >= 0 && get_members(root, out);
	if (ok) {
		out->epoch = (uint64_t)json_integer_value(epoch);
		out->control_port = out->port_base + chp_pow2_up(out->shards);
	}
	json_decref(root);
	return ok ? 0 : -EPROTO;
}

/* ---- fetching ---- */

void
chp_info_fetch(struct chaapar *c, uint64_t now)
{
	struct chp_call *call = chp_info_call(c);

	if (call->state != CHP_CALL_FREE)
		return;
	chp_call_start_own(call, CHP_OPCODE_INFO, 0);
	if (c->info_ns != 0 && now < c->info_ns + CHP_CLIENT_INFO_NS) {
		call->state = CHP_CALL_BACKOFF;
		chp_call_arm(c, call, c->info_ns + CHP_CLIENT_INFO_NS);
		return;
	}
	c->info_ns = now;
	chp_call_send(c, call);
}

static bool
same_shape(const struct chaapar_info *a, const struct chaapar_info *b)
{
	if (a->hash != b->hash || a->shards != b->shards || a->hash_seed != b->hash_seed ||
	    a->port_base != b->port_base || a->n_members != b->n_members)
		return false;
	for (uint32_t i = 0; i < a->n_members; i++) {
		if (a->member[i].id != b->member[i].id ||
		    strcmp(a->member[i].address, b->member[i].address) != 0)
			return false;
	}
	return true;
}

static void
take_members(struct chaapar *c)
{
	c->members = 0;
	memset(c->peer, 0, sizeof(c->peer));
	for (uint32_t i = 0; i < c->info.n_members; i++) {
		const struct chaapar_member *m = &c->info.member[i];

		inet_pton(AF_INET, m->address, &c->peer[m->id].address);
		c->members |= chp_bit(m->id);
	}
	if (c->node >= CHP_NODES_MAX || (c->members & chp_bit(c->node)) == 0)
		c->node =
			(uint8_t)c->info.member[chp_random_below(&c->random, c->info.n_members)].id;
	for (uint32_t i = 0; i < CHP_SHARDS_MAX; i++)
		c->shard[i].home = c->node;
}

/* The call goes where its key belongs now. */
static void
route(struct chaapar *c, struct chp_call *call)
{
	if (call->key_len > 0)
		call->shard = (uint16_t)chaapar_shard_of(c, call->bytes, call->key_len);
	if (!call->pinned && (c->members & chp_bit(call->node)) == 0)
		call->node = c->node;
	if (call->in_session)
		chp_call_wait(c, call);
	else
		chp_call_send(c, call);
}

/*
 * Another shape: all sessions are gone. What was sent in them has an unknown outcome, everything
 * else goes where it belongs now. Nothing is called back before the handle is consistent again.
 */
static void
take_shape(struct chaapar *c, const struct chaapar_info *info)
{
	for (uint32_t i = 0; i < CHP_SHARDS_MAX; i++) {
		struct chp_call *own = chp_session_call(c, i);

		if (own->state != CHP_CALL_FREE)
			chp_call_stop(c, own);
	}
	if (chp_probe_call(c)->state != CHP_CALL_FREE)
		chp_call_stop(c, chp_probe_call(c));
	for (uint32_t i = 0; i < c->options.in_flight_max; i++) {
		struct chp_call *call = &c->call[i];
		bool doomed = call->in_session && call->sent > 0;

		if (call->state == CHP_CALL_FREE)
			continue;
		chp_list_remove(&call->list);
		chp_call_release_number(c, call);
		call->state = doomed ? CHP_CALL_DOOMED : CHP_CALL_PARKED;
	}
	for (uint32_t i = 0; i < CHP_SHARDS_MAX; i++) {
		if (c->shard[i].state != CHP_SESSION_NONE)
			c->counters.sessions_lost++;
		chp_session_init(&c->shard[i]);
	}
	c->dirty = 0;
	c->info = *info;
	take_members(c);
	for (uint32_t i = 0; i < c->options.in_flight_max; i++) {
		if (c->call[i].state == CHP_CALL_PARKED)
			route(c, &c->call[i]);
	}
	for (uint32_t i = 0; i < c->options.in_flight_max; i++) {
		if (c->call[i].state == CHP_CALL_DOOMED)
			chp_call_finish(c, &c->call[i], CHAAPAR_UNKNOWN, NULL, CHAAPAR_ANY_NODE);
	}
}

void
chp_info_answer(struct chaapar *c, const struct chp_reply_message *m)
{
	struct chp_call *call = chp_info_call(c);
	struct chaapar_info info;
	int err = m->status == CHP_STATUS_OK
			  ? chp_info_parse(chp_reply_value(m), m->value_total, &info)
			  : -EPROTO;

	if (err != 0) {
		/* Ask another one. The time-out of who waits for it ends this. */
		c->info_error = err;
		c->endpoint_next++;
		chp_call_back_off(c, call, CHP_CALL_BACKOFF, CHP_CLIENT_BACKOFF_NS, chp_client_now());
		return;
	}
	chp_call_stop(c, call);
	c->counters.info_fetched++;
	c->payload_max = info.mtu - CHP_IP_UDP_BYTES;
	if (!c->have_info || !same_shape(&c->info, &info)) {
		c->have_info = true;
		take_shape(c, &info);
		return;
	}
	c->info = info;
	while (!chp_list_is_empty(&c->parked))
		route(c, chp_list_first(&c->parked));
}
