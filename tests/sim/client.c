/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The simulator's clients: sessions, several requests in flight, retries with the same number, and a
 * record of everything in the history. The same rules as libchaapar's, without sockets.
 *
 * A session's client goes where it is sent (REDIRECT), and on to the next node when one does not serve or does not
 * answer. It says in each request what the newest epoch is that it knows, and takes no answer to a write from an
 * earlier one: another home may have executed the request since. A roamer has no session: it reads from any node,
 * and sends a write once, if the network doubles nothing.
 */
#include "kind.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Redirections in a row after which a client waits for its next retry: two nodes may be of different views. */
#define REDIRECTS_MAX 4u

static void
wake_at(struct sim_world *w, uint32_t c, uint64_t at_ns)
{
	w->client[c].wake_ns = chp_max_u64(at_ns, w->now_ns);
	sim_schedule(w, w->client[c].wake_ns, SIM_CLIENT, c, NULL);
}

void
sim_client_init(struct sim_world *w, uint32_t c)
{
	struct sim_client *client = &w->client[c];

	client->home = c % w->config.n_nodes;
	client->roams = chp_random_chance(&w->random, w->config.roamer_ppm);
	client->next_request = 1;
	wake_at(w, c, SIM_MS + chp_random_below(&w->random, SIM_MS));
}

static bool
is_write(uint8_t opcode)
{
	return opcode != CHP_OPCODE_GET;
}

static bool
has_key(uint8_t opcode)
{
	return opcode != CHP_OPCODE_SESSION_OPEN && opcode != CHP_OPCODE_SESSION_CLOSE &&
	       opcode != CHP_OPCODE_QUORUM;
}

/* Whether a call is no request of its client's session. */
static bool
is_outside(const struct sim_client *client, const struct sim_call *call)
{
	return client->roams || call->opcode == CHP_OPCODE_SESSION_OPEN || call->opcode == CHP_OPCODE_QUORUM;
}

uint32_t
sim_client_key(uint32_t key, uint8_t to[CHP_KEY_BYTES_MAX])
{
	/* Short keys, and one of the largest length. */
	uint32_t len = key == 3 ? CHP_KEY_BYTES_MAX : 4;

	memset(to, 'k', len);
	to[len - 1] = (uint8_t)('a' + key);
	return len;
}

uint32_t
sim_client_key_number(const uint8_t *key, uint32_t len)
{
	return (uint32_t)(key[len - 1] - 'a');
}

/* Whether this is an answer to a call, and one that counts. */
static bool
answers(const struct sim_client *client, const struct sim_call *call, const struct chp_reply_header *h,
	const struct chp_reply_message *r)
{
	const bool roams = is_outside(client, call);

	if (call->state != SIM_CALL_OPEN || call->request != r->request || call->opcode != r->opcode ||
	    h->session != (roams ? 0 : client->session))
		return false;
	/* That somebody does not serve is so in whatever epoch. */
	return roams || !is_write(r->opcode) || h->epoch >= client->epoch || r->status == CHP_STATUS_NOT_SERVING;
}

bool
sim_client_waits(const struct sim_world *w, uint32_t c, const struct chp_reply_header *h,
		 const struct chp_reply_message *r, uint32_t *key)
{
	for (uint32_t i = 0; c < w->config.n_clients && i < SIM_DEPTH_MAX; i++) {
		if (answers(&w->client[c], &w->client[c].call[i], h, r)) {
			*key = w->client[c].call[i].key;
			return true;
		}
	}
	return false;
}

/* ------------------------------------------------------------------ sending */

static uint64_t
lowest_open(const struct sim_client *client)
{
	uint64_t lowest = client->next_request;

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(client->call); i++)
		if (client->call[i].state == SIM_CALL_OPEN && !is_outside(client, &client->call[i]))
			lowest = chp_min_u64(lowest, client->call[i].request);
	return lowest;
}

static uint32_t
write_request(const struct sim_call *call, uint8_t *to)
{
	uint8_t key[CHP_KEY_BYTES_MAX];
	uint32_t key_len = has_key(call->opcode) ? sim_client_key(call->key, key) : 0;
	uint32_t len = chp_request_bytes(key_len, call->value_len);
	struct chp_request *r = (void *)to;

	memset(to, 0, len);
	*r = (struct chp_request){ .opcode = call->opcode,
				   .flags = call->is_relaxed ? CHP_REQUEST_RELAXED : 0,
				   .len = (uint16_t)len,
				   .key_len = (uint8_t)key_len,
				   .request = call->request,
				   .value_total = call->value_len,
				   .arg = call->arg };
	memcpy(to + sizeof(*r), key, key_len);
	memcpy(to + sizeof(*r) + key_len, call->value, call->value_len);
	return len;
}

static void
send_datagram(struct sim_world *w, struct sim_packet *p, uint32_t to)
{
	p->to = to;
	sim_network_send(w, p, SIM_DATAGRAM, to);
}

static void
send_call(struct sim_world *w, uint32_t c, struct sim_call *call)
{
	struct sim_client *client = &w->client[c];
	struct sim_packet *p = sim_packet_take(w);
	struct chp_request_header *h = (void *)p->data;
	const bool roams = is_outside(client, call);

	*h = (struct chp_request_header){
		.prelude = { CHP_WIRE_MAGIC, CHP_WIRE_VERSION, CHP_PACKET_REQUEST, 0 },
		.session = roams ? 0 : client->session,
		.lowest = roams ? 0 : lowest_open(client),
		.epoch = (uint32_t)client->epoch,
	};
	p->from = c;
	p->len = (uint32_t)sizeof(*h) + write_request(call, p->data + sizeof(*h));
	call->sends++;
	call->retry_ns = w->now_ns + call->rto_ns;
	call->rto_ns = chp_min_u64(2 * call->rto_ns, w->config.retry_ns_cap);
	send_datagram(w, p, call->anywhere ? (uint32_t)chp_random_below(&w->random, w->config.n_nodes)
					   : client->home);
}

/* Until a request that somebody has just refused or that has a new home is sent again. */
static uint64_t
soon_ns(struct sim_world *w)
{
	return w->config.retry_ns_min / 2 + chp_random_below(&w->random, w->config.retry_ns_min);
}

/* Everything open at once, to a home that is new. */
static void
send_all(struct sim_world *w, uint32_t c)
{
	struct sim_client *client = &w->client[c];

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(client->call); i++) {
		struct sim_call *call = &client->call[i];

		if (call->state != SIM_CALL_OPEN || call->anywhere || call->once)
			continue;
		call->rto_ns = 2 * soon_ns(w);
		send_call(w, c, call);
	}
}

static void
go_next(struct sim_world *w, uint32_t c)
{
	struct sim_client *client = &w->client[c];

	client->home = (client->home + 1) % w->config.n_nodes;
	client->silent = 0;
}

/* ------------------------------------------------------------------ choosing operations */

static const struct {
	uint8_t opcode;
	uint8_t kind;
	uint8_t weight;
} mix[] = {
	{ CHP_OPCODE_GET, CHP_HISTORY_GET, 40 },         { CHP_OPCODE_PUT, CHP_HISTORY_PUT, 25 },
	{ CHP_OPCODE_DELETE, CHP_HISTORY_DELETE, 4 },    { CHP_OPCODE_CAS, CHP_HISTORY_CAS, 10 },
	{ CHP_OPCODE_ADD, CHP_HISTORY_ADD, 4 },          { CHP_OPCODE_REPLACE, CHP_HISTORY_REPLACE, 3 },
	{ CHP_OPCODE_APPEND, CHP_HISTORY_APPEND, 4 },    { CHP_OPCODE_PREPEND, CHP_HISTORY_PREPEND, 2 },
	{ CHP_OPCODE_INCR, CHP_HISTORY_INCR, 6 },        { CHP_OPCODE_DECR, CHP_HISTORY_DECR, 2 },
};

static uint32_t
index_in_mix(uint8_t opcode)
{
	uint32_t i = 0;

	while (mix[i].opcode != opcode)
		i++;
	return i;
}

/* Deletes, and adds that make the keys come back. */
static uint32_t
choose_churn(struct sim_world *w)
{
	return index_in_mix(chp_random_chance(&w->random, 500000) ? CHP_OPCODE_DELETE : CHP_OPCODE_ADD);
}

/* What shows it if it is done twice. */
static uint32_t
choose_rmw(struct sim_world *w)
{
	static const uint8_t opcodes[] = { CHP_OPCODE_INCR, CHP_OPCODE_INCR, CHP_OPCODE_APPEND, CHP_OPCODE_CAS };

	return index_in_mix(opcodes[chp_random_below(&w->random, CHP_ARRAY_LEN(opcodes))]);
}

static uint32_t
choose(struct sim_world *w)
{
	uint32_t at = (uint32_t)chp_random_below(&w->random, 100);

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(mix); i++) {
		if (at < mix[i].weight)
			return i;
		at -= mix[i].weight;
	}
	return 0;
}

static bool
has_value(uint8_t opcode)
{
	return opcode == CHP_OPCODE_PUT || opcode == CHP_OPCODE_CAS || opcode == CHP_OPCODE_ADD ||
	       opcode == CHP_OPCODE_REPLACE || opcode == CHP_OPCODE_APPEND || opcode == CHP_OPCODE_PREPEND;
}

/* Unique, so that a read tells what write it saw; the first key holds numbers. */
static void
choose_value(struct sim_world *w, uint32_t c, struct sim_call *call)
{
	struct sim_client *client = &w->client[c];
	uint32_t want = w->config.value_bytes_typical;
	int n;

	client->written++;
	if (call->key == 0 && call->opcode != CHP_OPCODE_APPEND && call->opcode != CHP_OPCODE_PREPEND)
		n = snprintf((char *)call->value, 24, "%u", (c + 1) * 1000000 + client->written * 1000);
	else
		n = snprintf((char *)call->value, 24, "<%u.%u>", c, client->written);
	call->value_len = (uint32_t)n;
	if (call->opcode == CHP_OPCODE_APPEND || call->opcode == CHP_OPCODE_PREPEND || call->key == 0)
		return;
	if (chp_random_chance(&w->random, 50000))
		want = w->config.shard.value_bytes_max;
	while (call->value_len < want && call->value_len < w->config.shard.value_bytes_max)
		call->value[call->value_len++] = '.';
}

/* What a client may ask for: a roamer only what need not be sent twice. */
static uint32_t
choose_operation(struct sim_world *w, uint32_t c)
{
	const struct sim_client *client = &w->client[c];

	if (client->roams && (w->config.duplicate_ppm != 0 || chp_random_chance(&w->random, 700000)))
		return 0;
	if (chp_random_chance(&w->random, w->config.delete_ppm))
		return choose_churn(w);
	if (chp_random_chance(&w->random, w->config.rmw_ppm))
		return choose_rmw(w);
	if (chp_random_chance(&w->random, w->config.put_ppm))
		return index_in_mix(CHP_OPCODE_PUT);
	return chp_random_chance(&w->random, w->config.get_ppm) ? 0 : choose(w);
}

static uint32_t
invoke(struct sim_world *w, uint32_t c, const struct sim_call *call, uint8_t kind)
{
	uint8_t key[CHP_KEY_BYTES_MAX];
	const struct chp_history_call h = { .t_ns = w->now_ns,
					    .client = c,
					    .req = w->issued,
					    .kind = kind,
					    .node = w->client[c].home,
					    .key = key,
					    .key_len = sim_client_key(call->key, key),
					    .value = has_value(call->opcode) ? call->value : NULL,
					    .value_len = call->value_len,
					    .arg = call->arg };

	return (uint32_t)chp_history_invoke(&w->history, &h);
}

static void
issue(struct sim_world *w, uint32_t c, struct sim_call *call)
{
	struct sim_client *client = &w->client[c];
	const uint32_t m = choose_operation(w, c);

	*call = (struct sim_call){ .state = SIM_CALL_OPEN,
				   .opcode = mix[m].opcode,
				   .key = (uint32_t)chp_random_below(&w->random, w->config.n_keys),
				   .request = client->next_request++,
				   .rto_ns = chp_random_range(&w->random, w->config.retry_ns_min,
							      w->config.retry_ns_max),
				   .give_up_ns = w->now_ns + chp_random_range(&w->random, w->config.patience_ns_min,
									      600 * SIM_MS) };
	call->once = client->roams && is_write(call->opcode);
	call->is_relaxed = !is_write(call->opcode) && w->config.relaxed_ppm != 0 &&
			   chp_random_chance(&w->random, w->config.relaxed_ppm);
	call->anywhere = client->roams || call->is_relaxed ||
			 (!is_write(call->opcode) && chp_random_chance(&w->random, w->config.anywhere_ppm));
	if (has_value(call->opcode))
		choose_value(w, c, call);
	if (call->opcode == CHP_OPCODE_CAS)
		call->arg = client->seen_version[call->key];
	if (call->opcode == CHP_OPCODE_INCR || call->opcode == CHP_OPCODE_DECR)
		call->arg = chp_random_range(&w->random, 1, 9);
	call->history = call->is_relaxed ? CHP_HISTORY_NONE : invoke(w, c, call, mix[m].kind);
	w->issued++;
	sim_trace(w, "client %u: %s key %u value %.*s arg %" PRIu64 " request %" PRIu64 "%s%s", c,
		  chp_opcode_name(call->opcode), call->key, (int)chp_min_u32(call->value_len, 24),
		  (const char *)call->value, call->arg, call->request, client->roams ? " (roams)" : "",
		  call->is_relaxed ? " (relaxed)" : "");
	send_call(w, c, call);
}

static void
open_session(struct sim_world *w, uint32_t c)
{
	struct sim_client *client = &w->client[c];
	struct sim_call *call = &client->call[0];

	client->next_request = 1;
	*call = (struct sim_call){ .state = SIM_CALL_OPEN,
				   .opcode = CHP_OPCODE_SESSION_OPEN,
				   .request = chp_random_u64(&w->random),
				   .rto_ns = w->config.retry_ns_max,
				   .history = CHP_HISTORY_NONE,
				   .give_up_ns = w->now_ns + 500 * SIM_MS };
	call->arg = call->request;
	send_call(w, c, call);
}

static void
close_session(struct sim_world *w, uint32_t c)
{
	struct sim_client *client = &w->client[c];
	struct sim_call *call = &client->call[0];

	client->closes = true;
	*call = (struct sim_call){ .state = SIM_CALL_OPEN,
				   .opcode = CHP_OPCODE_SESSION_CLOSE,
				   .request = client->next_request++,
				   .rto_ns = w->config.retry_ns_max,
				   .history = CHP_HISTORY_NONE,
				   .give_up_ns = w->now_ns + 500 * SIM_MS };
	sim_trace(w, "client %u closes session %" PRIx64, c, client->session);
	send_call(w, c, call);
}

/* The quorum rule by turns; what has no session may be done twice, which does not matter here. */
static void
switch_quorum(struct sim_world *w, uint32_t c, uint64_t rule)
{
	struct sim_client *client = &w->client[c];
	struct sim_call *call = &client->call[SIM_DEPTH_MAX];

	*call = (struct sim_call){ .state = SIM_CALL_OPEN,
				   .opcode = CHP_OPCODE_QUORUM,
				   .request = chp_random_u64(&w->random),
				   .arg = rule,
				   .rto_ns = w->config.retry_ns_max,
				   .history = CHP_HISTORY_NONE,
				   .give_up_ns = w->now_ns + 100 * SIM_MS };
	sim_trace(w, "client %u: quorum rule %s", c, chp_quorum_name(rule));
	send_call(w, c, call);
}

/* Whether this client sees to it that nobody waits for who is dead for good. */
static bool
settles(const struct sim_world *w, uint32_t c)
{
	return w->healed && c == 0 && w->config.quorum_ppm != 0 && w->stay_dead != 0;
}

/* ------------------------------------------------------------------ endings */

static void
complete(struct sim_world *w, uint32_t c, struct sim_call *call, enum chp_history_outcome outcome,
	 const struct chp_reply_message *r)
{
	struct chp_history_result h = { .t_ns = w->now_ns, .outcome = outcome, .node = CHP_HISTORY_NONE };
	static const uint8_t status_of[CHP_STATUS_COUNT] = {
		[CHP_STATUS_NOT_FOUND] = CHP_HISTORY_NOT_FOUND,
		[CHP_STATUS_EXISTS] = CHP_HISTORY_EXISTS,
		[CHP_STATUS_COMPARE_FAILED] = CHP_HISTORY_COMPARE_FAILED,
		[CHP_STATUS_NOT_NUMBER] = CHP_HISTORY_NOT_NUMBER,
	};

	call->state = SIM_CALL_FREE;
	if (call->opcode == CHP_OPCODE_SESSION_CLOSE) { /* done, or it may be at any time from now on */
		w->client[c].closes = false;
		w->client[c].session = 0;
	}
	if (call->history == CHP_HISTORY_NONE)
		return;
	if (r != NULL && outcome != CHP_HISTORY_UNKNOWN) {
		h.version = r->version;
		if (outcome == CHP_HISTORY_FAIL) {
			h.status = r->status < CHP_STATUS_COUNT && status_of[r->status] != 0
					   ? status_of[r->status]
					   : CHP_HISTORY_STATUS_OTHER;
			if (h.status == CHP_HISTORY_STATUS_OTHER || h.status == CHP_HISTORY_NOT_FOUND)
				h.version = CHP_HISTORY_NO_VERSION;
		}
		h.number = r->number;
		h.has_number = outcome == CHP_HISTORY_OK &&
			       (call->opcode == CHP_OPCODE_INCR || call->opcode == CHP_OPCODE_DECR);
		if (outcome == CHP_HISTORY_OK && call->opcode == CHP_OPCODE_GET) {
			h.value = chp_reply_value(r);
			h.value_len = r->value_total;
		}
		if (outcome == CHP_HISTORY_OK)
			w->client[c].seen_version[call->key] = r->version;
	}
	/* A get that found nothing is an answer. */
	if (call->opcode == CHP_OPCODE_GET && r != NULL && r->status == CHP_STATUS_NOT_FOUND) {
		h.outcome = CHP_HISTORY_OK;
		h.status = CHP_HISTORY_STATUS_NONE;
		h.version = CHP_HISTORY_NO_VERSION;
		h.value = NULL;
	}
	if (chp_history_complete(&w->history, call->history, &h) != 0)
		sim_fail(w, "history refused a completion");
}

/* The session is gone: what may have been executed is unknown, the rest was not. */
static void
lose_session(struct sim_world *w, uint32_t c)
{
	struct sim_client *client = &w->client[c];

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(client->call); i++)
		if (client->call[i].state == SIM_CALL_OPEN)
			complete(w, c, &client->call[i], CHP_HISTORY_UNKNOWN, NULL);
	client->session = 0;
	client->closes = false;
}

/*
 * The same request to another node, which may be the same one, now that its epoch is known. A roamer's write was not
 * begun, and what was sent is used up; it follows the leader a few times.
 */
static void
redirected(struct sim_world *w, uint32_t c, struct sim_call *call, const struct chp_reply_message *r)
{
	struct sim_client *client = &w->client[c];

	if (r->number >= w->config.n_nodes || (client->roams && w->config.kind->by_writer)) {
		sim_fail(w, "client %u was sent to node %" PRIu64, c, r->number);
		return;
	}
	client->home = (uint32_t)r->number;
	client->silent = 0;
	if (++client->redirects <= REDIRECTS_MAX && call->once)
		send_call(w, c, call);
	else if (client->redirects <= REDIRECTS_MAX)
		send_all(w, c);
	else if (call->once)
		complete(w, c, call, CHP_HISTORY_FAIL, r);
}

/* Nothing was begun. A roamer's write was not applied, since it was sent once; all else is asked again. */
static void
not_served(struct sim_world *w, uint32_t c, struct sim_call *call, const struct chp_reply_message *r,
	   uint32_t node)
{
	struct sim_client *client = &w->client[c];

	if (call->once) {
		complete(w, c, call, CHP_HISTORY_FAIL, r);
		return;
	}
	call->retry_ns = chp_min_u64(call->retry_ns, w->now_ns + soon_ns(w));
	call->rto_ns = 2 * soon_ns(w);
	if (r->status == CHP_STATUS_NOT_SERVING && node == client->home)
		go_next(w, c);
}

static void
session_unknown(struct sim_world *w, uint32_t c)
{
	/* An answer to a close that was sent twice is no surprise. */
	if (w->config.shard.session_idle_ns == SIM_IDLE_NEVER_NS && !w->refounded && !w->client[c].closes &&
	    w->client[c].generation == w->generation)
		sim_fail(w, "client %u was told that its session %" PRIx64 " is unknown", c, w->client[c].session);
	lose_session(w, c);
}

static void
opened(struct sim_world *w, uint32_t c, struct sim_call *call, const struct chp_reply_message *r, uint32_t node)
{
	struct sim_client *client = &w->client[c];

	if (r->status == CHP_STATUS_NOT_SERVING || r->status == CHP_STATUS_OVERLOAD) {
		not_served(w, c, call, r, node);
		return;
	}
	if (r->status == CHP_STATUS_REDIRECT) {
		redirected(w, c, call, r);
		return;
	}
	call->state = SIM_CALL_FREE;
	if (r->status != CHP_STATUS_OK) {
		client->open_ns = w->now_ns + chp_random_below(&w->random, 4 * SIM_MS);
		return;
	}
	client->session = r->number;
	client->generation = w->generation;
	client->home = node;
	w->served = true;
	sim_trace(w, "client %u: session %" PRIx64 " of node %u", c, r->number, node);
}

static void
answered(struct sim_world *w, uint32_t c, struct sim_call *call, const struct chp_reply_message *r, uint32_t node)
{
	const bool found = r->status == CHP_STATUS_OK || r->status == CHP_STATUS_NOT_FOUND;

	if (found && ((r->flags & CHP_REPLY_RELAXED) != 0) != call->is_relaxed)
		sim_fail(w, "client %u got a read that is%s relaxed and had asked for another", c,
			 call->is_relaxed ? " not" : "");
	if (call->opcode == CHP_OPCODE_SESSION_OPEN) {
		opened(w, c, call, r, node);
		return;
	}
	sim_trace(w, "client %u: request %" PRIu64 " %s by %u version %" PRIu64 ".%u value %.*s", c, r->request,
		  chp_status_name(r->status), node, chp_version_counter(r->version), (uint16_t)r->version,
		  (int)chp_min_u32(r->value_total, 24), (const char *)chp_reply_value(r));
	switch (r->status) {
	case CHP_STATUS_OK:
		w->served = true;
		complete(w, c, call, CHP_HISTORY_OK, r);
		break;
	case CHP_STATUS_OVERLOAD:
	case CHP_STATUS_NOT_SERVING:
		not_served(w, c, call, r, node);
		break;
	case CHP_STATUS_REDIRECT:
		redirected(w, c, call, r);
		break;
	case CHP_STATUS_UNKNOWN_OUTCOME:
		complete(w, c, call, CHP_HISTORY_UNKNOWN, r);
		break;
	case CHP_STATUS_SESSION_UNKNOWN:
		session_unknown(w, c);
		break;
	case CHP_STATUS_SESSION_WINDOW:
	case CHP_STATUS_WRONG_SHARD:
	case CHP_STATUS_BAD_REQUEST:
	case CHP_STATUS_UNKNOWN_OP:
		sim_fail(w, "client %u was told %s", c, chp_status_name(r->status));
		break;
	default:
		complete(w, c, call, CHP_HISTORY_FAIL, r);
	}
}

void
sim_client_reply(struct sim_world *w, uint32_t c, const struct sim_packet *p)
{
	struct sim_client *client = &w->client[c];
	const struct chp_reply_header *h = (const void *)p->data;
	const struct chp_reply_message *r;
	uint32_t offset = sizeof(*h);

	if (chp_reply_header_check(p->data, p->len, w->config.shard.cluster_hash) != CHP_PACKET_OK) {
		sim_fail(w, "client %u got a malformed reply", c);
		return;
	}
	client->epoch = chp_max_u64(client->epoch, h->epoch);
	if (h->node == client->home)
		client->silent = 0;
	while ((r = chp_reply_next(p->data, p->len, &offset)) != NULL) {
		if (r->status != CHP_STATUS_REDIRECT)
			client->redirects = 0;
		for (uint32_t i = 0; i < CHP_ARRAY_LEN(client->call); i++)
			if (answers(client, &client->call[i], h, r))
				answered(w, c, &client->call[i], r, h->node);
	}
	if (offset != p->len)
		sim_fail(w, "client %u got a reply that does not fill its datagram", c);
	wake_at(w, c, w->now_ns + chp_random_below(&w->random, SIM_MS / 10));
}

/* ------------------------------------------------------------------ the client's own time */

/* A call whose time has come: given up, or sent again, perhaps to somebody else. */
static void
retry(struct sim_world *w, uint32_t c, struct sim_call *call)
{
	struct sim_client *client = &w->client[c];

	if ((!w->healed || call->once) && w->now_ns >= call->give_up_ns) {
		complete(w, c, call, CHP_HISTORY_UNKNOWN, NULL);
		return;
	}
	if (w->now_ns < call->retry_ns)
		return;
	if (call->once) {
		call->retry_ns = call->give_up_ns;
		return;
	}
	if (!call->anywhere && ++client->silent > 2 + chp_random_below(&w->random, 2))
		go_next(w, c);
	client->redirects = 0;
	send_call(w, c, call);
}

static bool
is_idle(const struct sim_client *client)
{
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(client->call); i++)
		if (client->call[i].state == SIM_CALL_OPEN)
			return false;
	return true;
}

static void
issue_some(struct sim_world *w, uint32_t c)
{
	struct sim_client *client = &w->client[c];

	for (uint32_t i = 0; i < w->config.depth && w->issued < w->config.ops && !client->closes; i++)
		if (client->call[i].state == SIM_CALL_FREE &&
		    client->next_request - lowest_open(client) < w->config.shard.session_window &&
		    chp_random_chance(&w->random, 700000))
			issue(w, c, &client->call[i]);
}

void
sim_client_wake(struct sim_world *w, uint32_t c)
{
	struct sim_client *client = &w->client[c];
	uint64_t next_ns = CHP_NEVER;

	client->wake_ns = CHP_NEVER;
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(client->call); i++) {
		struct sim_call *call = &client->call[i];

		if (call->state == SIM_CALL_OPEN)
			retry(w, c, call);
	}
	if (!w->healed) {
		if (w->config.quorum_ppm != 0 && client->call[SIM_DEPTH_MAX].state == SIM_CALL_FREE &&
		    chp_random_chance(&w->random, w->config.quorum_ppm))
			switch_quorum(w, c, chp_random_below(&w->random, 2));
		if (client->session != 0 && is_idle(client) && chp_random_chance(&w->random, w->config.close_ppm))
			close_session(w, c);
		else if (client->roams || client->session != 0)
			issue_some(w, c);
		else if (client->call[0].state == SIM_CALL_FREE && w->now_ns >= client->open_ns)
			open_session(w, c);
		next_ns = w->now_ns + w->config.think_ns / 2 + chp_random_below(&w->random, w->config.think_ns);
	}
	if (settles(w, c)) {
		/* Again and again: a switch to "all" may still be under way. */
		if (w->now_ns >= client->settle_ns) {
			if (client->call[SIM_DEPTH_MAX].state == SIM_CALL_FREE)
				switch_quorum(w, c, CHP_QUORUM_MAJORITY);
			client->settle_ns = w->now_ns + 50 * SIM_MS;
		}
		next_ns = client->settle_ns;
	}
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(client->call); i++)
		if (client->call[i].state == SIM_CALL_OPEN)
			next_ns = chp_min_u64(next_ns, client->call[i].retry_ns);
	if (next_ns != CHP_NEVER)
		wake_at(w, c, next_ns);
}

void
sim_clients_dump(const struct sim_world *w, struct chp_text *t)
{
	for (uint32_t c = 0; c < w->config.n_clients; c++) {
		for (uint32_t i = 0; i < CHP_ARRAY_LEN(w->client[c].call); i++) {
			const struct sim_call *call = &w->client[c].call[i];

			if (call->state == SIM_CALL_OPEN)
				chp_text_add(t, "; client %u %s %u request %" PRIu64 " sent %u times to %u", c,
					     chp_opcode_name(call->opcode), call->key, call->request, call->sends,
					     w->client[c].home);
		}
	}
}

void
sim_clients_give_up(struct sim_world *w)
{
	for (uint32_t c = 0; c < w->config.n_clients; c++) {
		for (uint32_t i = 0; i < CHP_ARRAY_LEN(w->client[c].call); i++) {
			struct sim_call *call = &w->client[c].call[i];

			if (call->state == SIM_CALL_OPEN && !call->once)
				complete(w, c, call, CHP_HISTORY_UNKNOWN, NULL);
		}
		w->client[c].closes = false;
		w->client[c].session = 0;
	}
}

/* A roamer's write that is on its way, without a session, may be done by the cluster that comes after this. */
void
sim_clients_go_on(struct sim_world *w)
{
	for (uint32_t c = 0; c < w->config.n_clients; c++) {
		for (uint32_t i = 0; i < CHP_ARRAY_LEN(w->client[c].call); i++) {
			struct sim_call *call = &w->client[c].call[i];

			if (call->state != SIM_CALL_OPEN)
				continue;
			call->history = invoke(w, c, call, mix[index_in_mix(call->opcode)].kind);
			complete(w, c, call, CHP_HISTORY_UNKNOWN, NULL);
		}
	}
}

void
sim_clients_settle(struct sim_world *w)
{
	if (!settles(w, 0))
		return;
	for (uint32_t c = 0; c < w->config.n_clients; c++)
		w->client[c].call[SIM_DEPTH_MAX].state = SIM_CALL_FREE; /* one that waits must not switch back */
	wake_at(w, 0, w->now_ns);
}

bool
sim_clients_done(const struct sim_world *w)
{
	for (uint32_t c = 0; c < w->config.n_clients; c++)
		if (!is_idle(&w->client[c]))
			return false;
	return true;
}
