/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The operations of the public interface: what each asks for, at once or waiting for the end.
 */
#include "client/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What the application asks for, before it is a call. */
struct ask {
	uint8_t opcode;
	bool write;
	bool keyless; /* to the shard that is named */
	bool pinned;
	bool relaxed;
	bool control;
	uint8_t node;
	uint16_t shard;
	const void *key, *value;
	size_t key_len, value_len;
	uint64_t arg;
};

/* The slot keeps its bytes for its next call, so that allocation stops after a while. */
static int
copy_bytes(struct chp_call *call, const struct ask *a)
{
	uint32_t need = (uint32_t)(a->key_len + a->value_len);

	if (need > call->bytes_cap) {
		uint32_t cap = chp_pow2_up(need < 64 ? 64 : need);
		uint8_t *bytes = realloc(call->bytes, cap);

		if (bytes == NULL)
			return -ENOMEM;
		call->bytes = bytes;
		call->bytes_cap = cap;
	}
	if (a->key_len > 0)
		memcpy(call->bytes, a->key, a->key_len);
	if (a->value_len > 0)
		memcpy(call->bytes + a->key_len, a->value, a->value_len);
	call->key_len = (uint8_t)a->key_len;
	call->value_len = (uint32_t)a->value_len;
	return 0;
}

static int
submit(struct chaapar *c, const struct ask *a, chaapar_callback *callback, void *arg)
{
	struct chp_call *call;
	int err;

	if (!a->keyless && (a->key_len == 0 || a->key_len > c->info.key_bytes_max))
		return -EINVAL;
	if (a->value_len > c->info.value_bytes_max)
		return -EMSGSIZE;
	if (c->closing)
		return -ESHUTDOWN;
	if (chp_list_is_empty(&c->free))
		return -EAGAIN;
	call = chp_list_first(&c->free);
	err = copy_bytes(call, a);
	if (err != 0)
		return err;
	chp_list_remove(&call->list);
	c->in_flight++;
	c->counters.requests++;
	chp_call_start_own(call, a->opcode,
			   a->keyless ? a->shard : chaapar_shard_of(c, a->key, a->key_len));
	call->own = false;
	call->key_len = (uint8_t)a->key_len;
	call->value_len = (uint32_t)a->value_len;
	call->pinned = a->pinned;
	call->relaxed = a->relaxed;
	call->control = a->control;
	call->in_session = a->write;
	call->node = a->pinned ? a->node : c->node;
	if (!a->pinned && !a->write)
		call->node = chp_peer_choose(c, call->shard, call->submit_ns);
	call->arg = a->arg;
	call->deadline_ns = call->submit_ns + c->options.timeout_ms * CHP_MS;
	call->callback = callback;
	call->callback_arg = arg;
	if (a->write)
		chp_call_wait(c, call);
	else
		chp_call_send(c, call);
	return 0;
}

/* ---- waiting for the end ---- */

struct sync {
	bool done;
	struct chaapar_result result;
};

static void
on_sync(struct chaapar *c, void *arg, const struct chaapar_result *r)
{
	struct sync *s = arg;

	s->done = true;
	s->result = *r;
	if (r->value_len > 0)
		memcpy(c->sync_value, r->value, r->value_len);
	s->result.value = c->sync_value;
}

static enum chaapar_status
status_of_error(int err)
{
	switch (err) {
	case -EINVAL:
		return CHAAPAR_BAD_KEY;
	case -EMSGSIZE:
		return CHAAPAR_TOO_LARGE;
	case -ENOMEM:
		return CHAAPAR_NO_MEMORY;
	default:
		return CHAAPAR_BAD_REQUEST;
	}
}

static enum chaapar_status
run(struct chaapar *c, const struct ask *a, struct chaapar_result *result)
{
	struct sync s = { .result = { .node = CHAAPAR_ANY_NODE, .status = CHAAPAR_BAD_CALL } };
	int err = 0;

	if (!c->in_callback) {
		while ((err = submit(c, a, on_sync, &s)) == -EAGAIN) {
			/* Others fill the handle: wait until one of them ends. */
			err = chaapar_poll(c, -1);
			if (err < 0 && err != -EINTR)
				break;
		}
		if (err != 0)
			s.result.status = status_of_error(err);
		while (err == 0 && !s.done) {
			/* Errors of the socket pass, or the call's deadline does. */
			(void)chaapar_poll(c, -1);
		}
	}
	if (result != NULL)
		*result = s.result;
	return s.result.status;
}

/* ---- every operation twice ---- */

#define KEY   .key = key, .key_len = key_len
#define VALUE .value = value, .value_len = value_len

int
chaapar_get(struct chaapar *c, const void *key, size_t key_len, chaapar_callback *callback,
	    void *arg)
{
	struct ask a = { .opcode = CHP_OPCODE_GET, KEY };

	return submit(c, &a, callback, arg);
}

enum chaapar_status
chaapar_get_sync(struct chaapar *c, const void *key, size_t key_len, struct chaapar_result *result)
{
	struct ask a = { .opcode = CHP_OPCODE_GET, KEY };

	return run(c, &a, result);
}

int
chaapar_get_relaxed(struct chaapar *c, const void *key, size_t key_len, chaapar_callback *callback,
		    void *arg)
{
	struct ask a = { .opcode = CHP_OPCODE_GET, .relaxed = true, KEY };

	return submit(c, &a, callback, arg);
}

enum chaapar_status
chaapar_get_relaxed_sync(struct chaapar *c, const void *key, size_t key_len,
			 struct chaapar_result *result)
{
	struct ask a = { .opcode = CHP_OPCODE_GET, .relaxed = true, KEY };

	return run(c, &a, result);
}

int
chaapar_delete(struct chaapar *c, const void *key, size_t key_len, chaapar_callback *callback,
	       void *arg)
{
	struct ask a = { .opcode = CHP_OPCODE_DELETE, .write = true, KEY };

	return submit(c, &a, callback, arg);
}

enum chaapar_status
chaapar_delete_sync(struct chaapar *c, const void *key, size_t key_len,
		    struct chaapar_result *result)
{
	struct ask a = { .opcode = CHP_OPCODE_DELETE, .write = true, KEY };

	return run(c, &a, result);
}

int
chaapar_cas(struct chaapar *c, const void *key, size_t key_len, uint64_t version, const void *value,
	    size_t value_len, chaapar_callback *callback, void *arg)
{
	struct ask a = { .opcode = CHP_OPCODE_CAS, .write = true, .arg = version, KEY, VALUE };

	return submit(c, &a, callback, arg);
}

enum chaapar_status
chaapar_cas_sync(struct chaapar *c, const void *key, size_t key_len, uint64_t version,
		 const void *value, size_t value_len, struct chaapar_result *result)
{
	struct ask a = { .opcode = CHP_OPCODE_CAS, .write = true, .arg = version, KEY, VALUE };

	return run(c, &a, result);
}

#define OPERATION_WITH_VALUE(name, opcode_)                                                        \
	int chaapar_##name(struct chaapar *c, const void *key, size_t key_len, const void *value,  \
			   size_t value_len, chaapar_callback *callback, void *arg)                \
	{                                                                                          \
		struct ask a = { .opcode = opcode_, .write = true, KEY, VALUE };                   \
                                                                                                   \
		return submit(c, &a, callback, arg);                                               \
	}                                                                                          \
                                                                                                   \
	enum chaapar_status chaapar_##name##_sync(struct chaapar *c, const void *key,              \
						  size_t key_len, const void *value,               \
						  size_t value_len, struct chaapar_result *result) \
	{                                                                                          \
		struct ask a = { .opcode = opcode_, .write = true, KEY, VALUE };                   \
                                                                                                   \
		return run(c, &a, result);                                                         \
	}

OPERATION_WITH_VALUE(put, CHP_OPCODE_PUT)
OPERATION_WITH_VALUE(add, CHP_OPCODE_ADD)
OPERATION_WITH_VALUE(replace, CHP_OPCODE_REPLACE)
OPERATION_WITH_VALUE(append, CHP_OPCODE_APPEND)
OPERATION_WITH_VALUE(prepend, CHP_OPCODE_PREPEND)

#define OPERATION_WITH_DELTA(name, opcode_)                                                    \
	int chaapar_##name(struct chaapar *c, const void *key, size_t key_len, uint64_t delta, \
			   chaapar_callback *callback, void *arg)                              \
	{                                                                                      \
		struct ask a = { .opcode = opcode_, .write = true, .arg = delta, KEY };        \
                                                                                               \
		return submit(c, &a, callback, arg);                                           \
	}                                                                                      \
                                                                                               \
	enum chaapar_status chaapar_##name##_sync(struct chaapar *c, const void *key,          \
						  size_t key_len, uint64_t delta,              \
						  struct chaapar_result *result)               \
	{                                                                                      \
		struct ask a = { .opcode = opcode_, .write = true, .arg = delta, KEY };        \
                                                                                               \
		return run(c, &a, result);                                                     \
	}

OPERATION_WITH_DELTA(incr, CHP_OPCODE_INCR)
OPERATION_WITH_DELTA(decr, CHP_OPCODE_DECR)

/* ---- to one shard ---- */

_Static_assert((int)CHAAPAR_QUORUM_MAJORITY == (int)CHP_QUORUM_MAJORITY &&
		       (int)CHAAPAR_QUORUM_ALL == (int)CHP_QUORUM_ALL &&
		       (int)CHAAPAR_QUORUM_ASK == (int)CHP_QUORUM_ASK,
	       "the rules are the wire's");

static struct ask
ask_quorum(uint32_t shard, enum chaapar_quorum rule)
{
	return (struct ask){ .opcode = CHP_OPCODE_QUORUM,
			     .keyless = true,
			     .shard = (uint16_t)shard,
			     .arg = rule };
}

int
chaapar_quorum(struct chaapar *c, uint32_t shard, enum chaapar_quorum rule,
	       chaapar_callback *callback, void *arg)
{
	struct ask a = ask_quorum(shard, rule);

	if (shard >= c->info.shards)
		return -ENOENT;
	if ((unsigned)rule > CHAAPAR_QUORUM_ASK)
		return -EINVAL;
	return submit(c, &a, callback, arg);
}

enum chaapar_status
chaapar_quorum_sync(struct chaapar *c, uint32_t shard, enum chaapar_quorum rule,
		    struct chaapar_result *result)
{
	struct ask a = ask_quorum(shard, rule);

	if (shard >= c->info.shards || (unsigned)rule > CHAAPAR_QUORUM_ASK) {
		if (result != NULL)
			*result = (struct chaapar_result){ .status = CHAAPAR_BAD_REQUEST,
							   .node = CHAAPAR_ANY_NODE };
		return CHAAPAR_BAD_REQUEST;
	}
	return run(c, &a, result);
}

/* ---- to one replica ---- */

static bool
is_member(const struct chaapar *c, uint32_t node)
{
	return node < CHP_NODES_MAX && (c->members & chp_bit(node)) != 0;
}

int
chaapar_ping(struct chaapar *c, uint32_t node, uint32_t shard, chaapar_callback *callback,
	     void *arg)
{
	struct ask a = { .opcode = CHP_OPCODE_PING,
			 .keyless = true,
			 .pinned = true,
			 .node = (uint8_t)node,
			 .shard = (uint16_t)shard };

	if (!is_member(c, node) || shard >= c->info.shards)
		return -ENOENT;
	return submit(c, &a, callback, arg);
}

enum chaapar_status
chaapar_ping_sync(struct chaapar *c, uint32_t node, uint32_t shard, struct chaapar_result *result)
{
	struct ask a = { .opcode = CHP_OPCODE_PING,
			 .keyless = true,
			 .pinned = true,
			 .node = (uint8_t)node,
			 .shard = (uint16_t)shard };

	if (!is_member(c, node) || shard >= c->info.shards) {
		if (result != NULL)
			*result = (struct chaapar_result){ .status = CHAAPAR_BAD_REQUEST,
							   .node = CHAAPAR_ANY_NODE };
		return CHAAPAR_BAD_REQUEST;
	}
	return run(c, &a, result);
}

/* A section comes in parts of one reply each: arg = part << 16 | section, number = how many. */
static struct ask
ask_part(uint32_t node, uint32_t section, uint64_t part)
{
	return (struct ask){ .opcode = CHP_OPCODE_STATUS,
			     .keyless = true,
			     .pinned = true,
			     .control = true,
			     .node = (uint8_t)node,
			     .arg = part << 16 | section };
}

int
chaapar_node_part(struct chaapar *c, uint32_t node, uint32_t section, uint32_t part,
		  chaapar_callback *callback, void *arg)
{
	struct ask a = ask_part(node, section, part);

	if (!is_member(c, node))
		return -ENOENT;
	if (section > UINT16_MAX || part > UINT16_MAX)
		return -EINVAL;
	return submit(c, &a, callback, arg);
}

enum chaapar_status
chaapar_node_status(struct chaapar *c, uint32_t node, uint32_t section, char **text)
{
	uint64_t parts = 1, version = 0;
	uint32_t restarts = 0;
	struct chaapar_result r;
	char *all = NULL;
	size_t len = 0;

	*text = NULL;
	if (!is_member(c, node) || section > UINT16_MAX)
		return CHAAPAR_BAD_REQUEST;
	for (uint64_t part = 0; part < parts; part++) {
		struct ask a = ask_part(node, section, part);
		char *more;

		run(c, &a, &r);
		if (r.status == CHAAPAR_OK && part > 0 && r.version != version) {
			/* Another text: too many fetch some at the same time. */
			part = UINT64_MAX; /* the next one is 0 */
			len = 0;
			if (++restarts <= CHP_CLIENT_RESTARTS_MAX)
				continue;
			r.status = CHAAPAR_BUSY;
		}
		if (r.status == CHAAPAR_OK && (r.number == 0 || r.number > CHP_CLIENT_PARTS_MAX))
			r.status = CHAAPAR_BAD_REQUEST;
		more = r.status == CHAAPAR_OK ? realloc(all, len + r.value_len + 1) : NULL;
		if (more == NULL) {
			free(all);
			return r.status != CHAAPAR_OK ? r.status : CHAAPAR_NO_MEMORY;
		}
		parts = r.number;
		version = r.version;
		all = more;
		memcpy(all + len, r.value, r.value_len);
		len += r.value_len;
		all[len] = '\0';
	}
	*text = all;
	return CHAAPAR_OK;
}
