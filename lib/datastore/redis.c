/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * redis.c - the adapter "redis": a Redis server, over hiredis.
 *
 * Values are plain strings under their keys, as any client reads them. What is kept beside them has names that begin
 * with "chaapar:": the identity, and for each shard a hash with its record and one with the versions of its keys. A
 * user's key that begins so too is stored behind "chaapar:key:". docs/datastores.md has the layout byte by byte.
 *
 * A batch is a call of a script, which Redis executes as one: it compares the record, then versions, and changes
 * what is newer. A very large one is several, each of which looks for the one before: the last makes the record that of
 * the batch. A call that is executed late, after its client gave up, finds another record, or its own behind which
 * an epoch was recorded, and changes nothing.
 * All batches of a write() are in one pipeline. Redis answers when its append-only file is synced, with appendfsync
 * always: that is checked for each connection.
 */
#include "base/text.h"
#include "datastore/batch.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#define OURS "chaapar:"
#define IDENTITY "chaapar:identity"
#define ESCAPE "chaapar:key:" /* before a user's key that begins with OURS */
#define NAME_BYTES_MAX (sizeof(ESCAPE) - 1 + CHP_KEY_BYTES_MAX)

#define RUN_ID_LEN 40u
/*
 * Items of one call of the script. Redis does nothing else meanwhile: reads wait for it, and its answer must come
 * within the time-out, however large a batch is.
 */
#define PART_ITEMS 4000u
/* Names that a scan asks for at a time, and how often in one call: what is not asked for costs time too. */
#define SCAN_STEP "1000"
#define SCAN_STEPS_MAX 50u
/* Items of a scan that are fetched at a time: those that have no room any more were fetched in vain. */
#define SCAN_FETCH 64u

/*
 * KEYS: identity, record, versions, then the keys. ARGV: identity, life and batch before, life, batch, newest, epoch
 * after, which part of the batch this is, whether it is the last, then a version and a value for each key. Numbers are
 * decimal texts, compared as such, since Lua's have 53 bits only; versions have a fixed width, and no two keys are the
 * same. The first command that writes is an HSET: one of those that Redis refuses when it is out of memory, before
 * anything was changed.
 */
static const char script[] =
	"local id = redis.call('GET', KEYS[1])\n"
	"if id ~= ARGV[1] then return {'IDENTITY'} end\n"
	"local r = redis.call('HMGET', KEYS[2], 'life', 'batch', 'newest', 'items', 'tombstones', 'epoch',\n"
	"  'part')\n"
	"local life, batch = r[1] or '0', r[2] or '0'\n"
	"local function higher(a, b)\n"
	"  if #a > #b or #a == #b and a > b then return a else return b end\n"
	"end\n"
	"if not (life == ARGV[2] and batch == ARGV[3] or life == ARGV[4] and batch == ARGV[5]) then\n"
	"  return {'LOST', life, batch}\n"
	"end\n"
	"local of = ARGV[4] .. ' ' .. ARGV[5] .. ' '\n"
	"if ARGV[8] ~= '0' and r[7] ~= of .. ARGV[8] then return {'PART'} end\n"
	"local newest, epoch = higher(ARGV[6], r[3] or '0'), higher(ARGV[7], r[6] or '0')\n"
	"local items, tombstones, applied = tonumber(r[4] or '0'), tonumber(r[5] or '0'), 0\n"
	"for first = 4, #KEYS, 1000 do\n"
	"  local last = math.min(first + 999, #KEYS)\n"
	"  local old = redis.call('HMGET', KEYS[3], unpack(KEYS, first, last))\n"
	"  local metas, values, gone = {}, {}, {}\n"
	"  for i = first, last do\n"
	"    local have, meta = old[i - first + 1], ARGV[2 * i + 2]\n"
	"    if not have or meta:sub(1, 32) > have:sub(1, 32) then\n"
	"      local tombstone = meta:byte(33) == 116\n"
	"      metas[#metas + 1] = KEYS[i]\n"
	"      metas[#metas + 1] = meta\n"
	"      if tombstone then\n"
	"        gone[#gone + 1] = KEYS[i]\n"
	"        tombstones = tombstones + 1\n"
	"      else\n"
	"        values[#values + 1] = KEYS[i]\n"
	"        values[#values + 1] = ARGV[2 * i + 3]\n"
	"      end\n"
	"      if not have then items = items + 1\n"
	"      elseif have:byte(33) == 116 then tombstones = tombstones - 1 end\n"
	"      applied = applied + 1\n"
	"    end\n"
	"  end\n"
	"  if #metas > 0 then redis.call('HSET', KEYS[3], unpack(metas)) end\n"
	"  if #values > 0 then redis.call('MSET', unpack(values)) end\n"
	"  if #gone > 0 then redis.call('DEL', unpack(gone)) end\n"
	"end\n"
	"redis.call('HSET', KEYS[2], 'newest', newest,\n"
	"  'items', string.format('%.0f', items), 'tombstones', string.format('%.0f', tombstones))\n"
	"if ARGV[9] == '1' then\n"
	"  redis.call('HSET', KEYS[2], 'life', ARGV[4], 'batch', ARGV[5], 'epoch', epoch)\n"
	"  redis.call('HDEL', KEYS[2], 'part')\n"
	"else\n"
	"  redis.call('HSET', KEYS[2], 'part', of .. (tonumber(ARGV[8]) + 1))\n"
	"end\n"
	"return {'OK', applied, items, tombstones, newest}\n";

struct config {
	const char *host, *path;
	const char *username, *password;
	uint64_t port, db, timeout_ms;
	bool allow_loss;
};

struct store {
	struct config config; /* texts are the JSON's */
	struct chp_store_identity id;
	char identity[CHP_STORE_IDENTITY_BYTES];
	uint32_t identity_len;
	uint32_t flags;
	char version[32];
	char promise[CHP_HOST_TEXT_BYTES / 2]; /* why it is durable, or is not */
};

/* A name in Redis that waits to be fetched by a scan. */
struct name {
	struct name *next;
	uint32_t len;
	char byte[];
};

/* A scan that is not at its end. */
struct scan_state {
	uint32_t shard, id;
	uint64_t part;    /* the cursor: parts that were given */
	char cursor[24];  /* Redis's: behind the names below */
	bool is_last;     /* Redis has no more */
	char run_id[RUN_ID_LEN + 1]; /* Redis's cursor is worth something in this process of it */
	struct name *name, **tail;
};

/* A command that is put together. */
struct command {
	const char **arg;
	size_t *len;
	uint32_t n, arg_room, len_room;
};

/* Room for the texts that one key needs. */
struct words {
	char name[NAME_BYTES_MAX];
	char meta[CHP_STORE_META_TEXT_LEN + 1];
};

struct handle {
	struct store *store;
	redisContext *c; /* NULL: not connected */
	char run_id[RUN_ID_LEN + 1];
	char sha[41]; /* of the script, as the server names it */
	struct command command;
	struct words *words;
	uint32_t words_room;
	struct chp_store_pick pick;
	struct scan_state *scan;
	uint32_t n_scans, scans_room;
};

static const char *const keys[] = { "host", "port",       "path",       "username", "password",
				    "db",   "timeout_ms", "allow_loss", NULL };

static int
read_config(const json_t *json, struct config *c, struct chp_store_error *e)
{
	if (chp_store_keys(json, keys, e) < 0 || chp_store_get_text(json, "host", "127.0.0.1", &c->host, e) < 0 ||
	    chp_store_get_socket(json, "path", &c->path, e) < 0 ||
	    chp_store_get_text(json, "username", "", &c->username, e) < 0 ||
	    chp_store_get_text(json, "password", "", &c->password, e) < 0 ||
	    chp_store_get_uint(json, "port", 1, 65535, 6379, &c->port, e) < 0 ||
	    chp_store_get_uint(json, "db", 0, 1u << 20, 0, &c->db, e) < 0 ||
	    chp_store_get_uint(json, "timeout_ms", 10, 600000, 2000, &c->timeout_ms, e) < 0)
		return -1;
	if (c->username[0] != '\0' && c->password[0] == '\0')
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "username: expected a password, too");
	return chp_store_get_bool(json, "allow_loss", false, &c->allow_loss, e);
}

static int
check(const json_t *json, struct chp_store_error *e)
{
	struct config c;

	return read_config(json, &c, e);
}

/* ------------------------------------------------------------------ errors, commands, answers */

static void
disconnect(struct handle *h)
{
	if (h->c != NULL)
		redisFree(h->c);
	h->c = NULL;
}

/* The connection is of no use any more. */
static int
broken(struct handle *h, struct chp_store_error *e)
{
	const struct config *c = &h->store->config;
	char why[64];
	struct chp_text t = chp_text_of(why, sizeof(why));

	/* What a time-out of a socket is called. */
	if (h->c->err == REDIS_ERR_IO && strcmp(h->c->errstr, strerror(EAGAIN)) == 0)
		chp_text_add(&t, "no answer within %" PRIu64 " ms", c->timeout_ms);
	else
		chp_text_add(&t, "%.60s", h->c->errstr);
	disconnect(h);
	if (c->path[0] != '\0')
		return chp_store_fail(e, CHP_STORE_ERROR_SLOW, "redis at %.50s: %s", c->path, why);
	return chp_store_fail(e, CHP_STORE_ERROR_SLOW, "redis at %.40s:%" PRIu64 ": %s", c->host, c->port, why);
}

/* What Redis says instead of an answer. Some errors pass by themselves. */
static int
said(struct handle *h, const char *text, struct chp_store_error *e)
{
	static const char *const passing[] = { "LOADING", "BUSY", "TRYAGAIN", "MASTERDOWN" };
	static const char quotes[] = ", with args";
	enum chp_store_error_kind kind = CHP_STORE_ERROR_DOWN;
	int len;

	for (uint32_t i = 0; i < sizeof(passing) / sizeof(passing[0]); i++)
		if (strncmp(text, passing[i], strlen(passing[i])) == 0)
			kind = CHP_STORE_ERROR_SLOW;
	disconnect(h); /* the next call looks at the server again: it may be another by then */
	/* Of a command that it does not know it quotes the arguments: AUTH's are the password. */
	for (len = 0; len < 100 && text[len] != '\0' && strncmp(text + len, quotes, strlen(quotes)) != 0;)
		len++;
	return chp_store_fail(e, kind, "redis says: %.*s", len, text);
}

static int
no_memory(struct chp_store_error *e)
{
	return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "no memory");
}

static int
begin_command(struct command *c, uint32_t args, struct chp_store_error *e)
{
	c->n = 0;
	if (!chp_store_grow((void **)&c->arg, &c->arg_room, args, sizeof(*c->arg)) ||
	    !chp_store_grow((void **)&c->len, &c->len_room, args, sizeof(*c->len)))
		return no_memory(e);
	return 0;
}

static void
add(struct command *c, const void *bytes, size_t len)
{
	c->arg[c->n] = bytes;
	c->len[c->n++] = len;
}

static void
add_text(struct command *c, const char *text)
{
	add(c, text, strlen(text));
}

static int
send_command(struct handle *h, struct chp_store_error *e)
{
	struct command *c = &h->command;

	return redisAppendCommandArgv(h->c, (int)c->n, c->arg, c->len) == REDIS_OK ? 0 : broken(h, e);
}

/* The answer to the oldest command that was sent: NULL with an error. */
static redisReply *
answer(struct handle *h, struct chp_store_error *e)
{
	void *reply = NULL;

	if (redisGetReply(h->c, &reply) != REDIS_OK || reply == NULL) {
		broken(h, e);
		return NULL;
	}
	return reply;
}

/* An answer of this type; errors of Redis are errors. */
static redisReply *
answer_of(struct handle *h, int type, struct chp_store_error *e)
{
	redisReply *r = answer(h, e);

	if (r == NULL || r->type == type)
		return r;
	if (r->type == REDIS_REPLY_ERROR)
		said(h, r->str, e);
	else
		said(h, type == REDIS_REPLY_ARRAY && r->type == REDIS_REPLY_NIL ? "nil instead of a transaction" :
										 "an answer of an unexpected type", e);
	freeReplyObject(r);
	return NULL;
}

/* A short command of texts, NULL at the end, and its answer. */
static redisReply *
ask(struct handle *h, int type, struct chp_store_error *e, const char *const *word)
{
	uint32_t n = 0;

	while (word[n] != NULL)
		n++;
	if (begin_command(&h->command, n, e) < 0)
		return NULL;
	for (uint32_t i = 0; i < n; i++)
		add_text(&h->command, word[i]);
	return send_command(h, e) < 0 ? NULL : answer_of(h, type, e);
}

#define ASK(h, type, e, ...) ask(h, type, e, (const char *const[]){ __VA_ARGS__, NULL })

/* ------------------------------------------------------------------ what is checked of a server */

/* A line "name:value" of INFO, cut at `size`; "" if there is none. */
static void
info_line(const char *info, const char *name, char *to, size_t size)
{
	const char *at = info;
	size_t name_len = strlen(name), len = 0;

	while (at != NULL && strncmp(at, name, name_len) != 0) {
		at = strchr(at, '\n');
		at = at != NULL ? at + 1 : NULL;
	}
	if (at != NULL) {
		at += name_len;
		len = strcspn(at, "\r\n");
		len = len < size - 1 ? len : size - 1;
		memcpy(to, at, len);
	}
	to[len] = '\0';
}

static int
look_at_info(struct handle *h, char version[32], struct chp_store_error *e)
{
	redisReply *r = ASK(h, REDIS_REPLY_STRING, e, "INFO");
	char word[32];
	int rc = 0;

	if (r == NULL)
		return -1;
	info_line(r->str, "redis_version:", version, 32);
	info_line(r->str, "run_id:", h->run_id, sizeof(h->run_id));
	info_line(r->str, "loading:", word, sizeof(word));
	if (strcmp(word, "1") == 0)
		rc = chp_store_fail(e, CHP_STORE_ERROR_SLOW, "redis is loading its data");
	info_line(r->str, "role:", word, sizeof(word));
	if (rc == 0 && strcmp(word, "slave") == 0)
		rc = chp_store_fail(e, CHP_STORE_ERROR_DOWN, "redis says READONLY: it is a replica of another server");
	info_line(r->str, "cluster_enabled:", word, sizeof(word));
	if (rc == 0 && strcmp(word, "1") == 0)
		rc = chp_store_fail(e, CHP_STORE_ERROR_DOWN,
				    "redis is a node of a Redis Cluster, which has no transactions over all keys");
	freeReplyObject(r);
	return rc;
}

/* One setting: "" if it does not say. */
static int
setting(struct handle *h, const char *name, char to[32], struct chp_store_error *e)
{
	redisReply *r;

	to[0] = '\0';
	if (begin_command(&h->command, 3, e) < 0)
		return -1;
	add_text(&h->command, "CONFIG");
	add_text(&h->command, "GET");
	add_text(&h->command, name);
	if (send_command(h, e) < 0 || (r = answer(h, e)) == NULL)
		return -1;
	if (r->type == REDIS_REPLY_ARRAY && r->elements == 2 && r->element[1]->type == REDIS_REPLY_STRING &&
	    r->element[1]->len < 32)
		memcpy(to, r->element[1]->str, r->element[1]->len + 1);
	freeReplyObject(r);
	return 0;
}

/*
 * What the server promises. It is durable on its answer only if each write is synced before it, also while the
 * append-only file is written anew, and if it evicts nothing.
 */
static int
look_at_promise(struct handle *h, uint32_t *flags, char promise[CHP_HOST_TEXT_BYTES / 2], struct chp_store_error *e)
{
	static const struct {
		const char *name, *want;
	} must[] = { { "appendonly", "yes" }, { "appendfsync", "always" }, { "no-appendfsync-on-rewrite", "no" } };
	struct chp_text t = chp_text_of(promise, CHP_HOST_TEXT_BYTES / 2);
	char have[32];

	*flags = CHP_STORE_SCANS;
	for (uint32_t i = 0; i < sizeof(must) / sizeof(must[0]); i++) {
		if (setting(h, must[i].name, have, e) < 0)
			return -1;
		if (strcmp(have, must[i].want) != 0) {
			*flags |= CHP_STORE_VOLATILE | CHP_STORE_ALLOW_LOSS;
			chp_text_add(&t, "%s is \"%s\", not \"%s\"", must[i].name, have, must[i].want);
			return 0;
		}
	}
	if (setting(h, "maxmemory-policy", have, e) < 0)
		return -1;
	if (strncmp(have, "allkeys", strlen("allkeys")) == 0) {
		*flags |= CHP_STORE_VOLATILE | CHP_STORE_ALLOW_LOSS;
		chp_text_add(&t, "maxmemory-policy is \"%s\", not \"noeviction\"", have);
		return 0;
	}
	chp_text_add(&t, "appendfsync always");
	return 0;
}

/* Whose it is. An empty database becomes ours when the store is opened, and only then. */
static int
look_at_identity(struct handle *h, bool is_first, struct chp_store_error *e)
{
	struct store *s = h->store;
	redisReply *r;
	int rc = 0;

	r = is_first ? ASK(h, REDIS_REPLY_INTEGER, e, "DBSIZE") : NULL;
	if (is_first && r == NULL)
		return -1;
	if (is_first && r->integer == 0) {
		freeReplyObject(r);
		r = ASK(h, REDIS_REPLY_INTEGER, e, "SETNX", IDENTITY, s->identity);
		if (r == NULL)
			return -1;
	}
	freeReplyObject(r);
	if (begin_command(&h->command, 2, e) < 0)
		return -1;
	add_text(&h->command, "GET");
	add_text(&h->command, IDENTITY);
	if (send_command(h, e) < 0 || (r = answer(h, e)) == NULL)
		return -1;
	if (r->type == REDIS_REPLY_STRING)
		rc = chp_store_identity_check(&s->id, r->str, r->len, e);
	else if (r->type == REDIS_REPLY_ERROR)
		rc = said(h, r->str, e);
	else if (is_first)
		rc = chp_store_refuse(e, CHP_HOST_BAD_CLUSTER, "db %" PRIu64 " of redis has keys of another program",
				      s->config.db);
	else
		rc = chp_store_fail(e, CHP_STORE_ERROR_LOST,
				    "redis has lost all data: its database was emptied or replaced");
	freeReplyObject(r);
	return rc;
}

static int
log_in(struct handle *h, struct chp_store_error *e)
{
	const struct config *c = &h->store->config;
	redisReply *r;
	char db[24];
	struct chp_text t = chp_text_of(db, sizeof(db));

	if (c->password[0] != '\0') {
		r = c->username[0] != '\0' ? ASK(h, REDIS_REPLY_STATUS, e, "AUTH", c->username, c->password) :
					     ASK(h, REDIS_REPLY_STATUS, e, "AUTH", c->password);
		if (r == NULL)
			return -1;
		freeReplyObject(r);
	}
	chp_text_add(&t, "%" PRIu64, c->db);
	r = ASK(h, REDIS_REPLY_STATUS, e, "SELECT", db);
	freeReplyObject(r);
	return r != NULL ? 0 : -1;
}

static int
load_script(struct handle *h, struct chp_store_error *e)
{
	redisReply *r = ASK(h, REDIS_REPLY_STRING, e, "SCRIPT", "LOAD", script);

	if (r == NULL)
		return -1;
	if (r->len < sizeof(h->sha))
		memcpy(h->sha, r->str, r->len + 1);
	freeReplyObject(r);
	return 0;
}

/* Everything about a server that is new to us. The first connection says what the store is, others find the same. */
static int
meet(struct handle *h, bool is_first, struct chp_store_error *e)
{
	struct store *s = h->store;
	char version[32], promise[sizeof(s->promise)];
	uint32_t flags;

	if (log_in(h, e) < 0 || look_at_info(h, version, e) < 0 || look_at_promise(h, &flags, promise, e) < 0)
		return -1;
	if ((flags & CHP_STORE_VOLATILE) != 0 && !s->config.allow_loss)
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN,
				      "redis may lose data: %s; or set \"allow_loss\": true", promise);
	if (!is_first && flags != s->flags)
		return chp_store_fail(e, CHP_STORE_ERROR_LOST, "redis promises another durability than it did: %s",
				      promise);
	if (look_at_identity(h, is_first, e) < 0 || load_script(h, e) < 0)
		return -1;
	if (is_first) {
		s->flags = flags;
		memcpy(s->promise, promise, sizeof(s->promise));
		memcpy(s->version, version, sizeof(s->version));
	}
	return 0;
}

static int
connect_to(struct handle *h, bool is_first, struct chp_store_error *e)
{
	const struct config *c = &h->store->config;
	struct timeval t = { (time_t)(c->timeout_ms / 1000), (suseconds_t)(c->timeout_ms % 1000 * 1000) };

	if (h->c != NULL)
		return 0;
	h->c = c->path[0] != '\0' ? redisConnectUnixWithTimeout(c->path, t) :
				    redisConnectWithTimeout(c->host, (int)c->port, t);
	if (h->c == NULL)
		return no_memory(e);
	if (h->c->err != 0 || redisSetTimeout(h->c, t) != REDIS_OK)
		return broken(h, e);
	if (meet(h, is_first, e) < 0) {
		disconnect(h);
		return -1;
	}
	return 0;
}

/* ------------------------------------------------------------------ open, close, handles */

static void
forget_names(struct scan_state *s)
{
	while (s->name != NULL) {
		struct name *n = s->name;

		s->name = n->next;
		free(n);
	}
	s->tail = &s->name;
}

static void
detach(void *handle)
{
	struct handle *h = handle;

	disconnect(h);
	for (uint32_t i = 0; i < h->n_scans; i++)
		forget_names(&h->scan[i]);
	free(h->scan);
	free(h->command.arg);
	free(h->command.len);
	free(h->words);
	chp_store_pick_free(&h->pick);
	free(h);
}

static void *
attach(void *store, struct chp_store_error *e)
{
	struct handle *h = calloc(1, sizeof(*h));

	if (h == NULL)
		no_memory(e);
	else
		h->store = store;
	return h;
}

static void *
open_store(const json_t *json, const struct chp_store_identity *id, struct chp_store_error *e)
{
	struct store *s = calloc(1, sizeof(*s));
	struct handle *h;
	int rc;

	if (s == NULL) {
		no_memory(e);
		return NULL;
	}
	s->id = *id;
	s->identity_len = chp_store_identity_text(id, s->identity);
	h = read_config(json, &s->config, e) == 0 ? attach(s, e) : NULL;
	rc = h != NULL ? connect_to(h, true, e) : -1;
	if (h != NULL)
		detach(h);
	if (rc < 0) {
		free(s);
		return NULL;
	}
	return s;
}

static void
describe(void *store, uint32_t *flags, char name[CHP_HOST_TEXT_BYTES])
{
	struct store *s = store;
	struct chp_text t = chp_text_of(name, CHP_HOST_TEXT_BYTES);

	*flags = s->flags;
	chp_text_add(&t, "redis %s, %s%s", s->version, (s->flags & CHP_STORE_VOLATILE) != 0 ? "may lose data: " : "",
		     s->promise);
}

static void
close_store(void *store)
{
	free(store);
}

/* ------------------------------------------------------------------ names and numbers */

/* The name of a shard's record or versions. */
static void
shard_name(char to[32], const char *what, uint32_t shard)
{
	struct chp_text t = chp_text_of(to, 32);

	chp_text_add(&t, OURS "%s:%" PRIu32, what, shard);
}

/* The name of a key: itself, unless it could be one of ours. */
static const char *
name_of(const uint8_t *key, uint32_t key_len, char room[NAME_BYTES_MAX], size_t *len)
{
	*len = key_len;
	if (key_len < sizeof(OURS) - 1 || memcmp(key, OURS, sizeof(OURS) - 1) != 0)
		return (const char *)key;
	memcpy(room, ESCAPE, sizeof(ESCAPE) - 1);
	memcpy(room + sizeof(ESCAPE) - 1, key, key_len);
	*len = sizeof(ESCAPE) - 1 + key_len;
	return room;
}

/* The key of a name. */
static const uint8_t *
key_of(const char *name, size_t len, uint32_t *key_len)
{
	size_t skip =
		len >= sizeof(ESCAPE) - 1 && memcmp(name, ESCAPE, sizeof(ESCAPE) - 1) == 0 ? sizeof(ESCAPE) - 1 : 0;

	*key_len = (uint32_t)(len - skip);
	return (const uint8_t *)name + skip;
}

static bool
read_meta(const redisReply *r, struct chp_store_meta *m)
{
	return r->type == REDIS_REPLY_STRING && chp_store_meta_parse(r->str, r->len, m);
}

/* A number that is a text, or an integer, or not there: 0. */
static uint64_t
number(const redisReply *r)
{
	if (r->type == REDIS_REPLY_INTEGER)
		return (uint64_t)r->integer;
	return r->type == REDIS_REPLY_STRING ? strtoull(r->str, NULL, 10) : 0;
}

static int
load_record(void *handle, uint32_t shard, struct chp_store_record *record, struct chp_store_error *e)
{
	struct handle *h = handle;
	char name[32];
	redisReply *r;

	shard_name(name, "record", shard);
	if (connect_to(h, false, e) < 0)
		return -1;
	r = ASK(h, REDIS_REPLY_ARRAY, e, "HMGET", name, "life", "batch", "newest", "epoch", "items", "tombstones");
	if (r == NULL)
		return -1;
	*record = (struct chp_store_record){ .life = number(r->element[0]), .batch = number(r->element[1]),
					     .newest = number(r->element[2]), .epoch = number(r->element[3]),
					     .items = number(r->element[4]), .tombstones = number(r->element[5]) };
	freeReplyObject(r);
	return 0;
}

/* ------------------------------------------------------------------ write */

/* The texts of a batch that are no item's, until its command was sent. */
struct numbers {
	char text[8][24];
	char record[32], versions[32];
};

static void
add_number(struct command *c, char text[24], uint64_t x)
{
	struct chp_text t = chp_text_of(text, 24);

	chp_text_add(&t, "%" PRIu64, x);
	add_text(c, text);
}

static void
add_items(struct handle *h, const struct chp_store_batch *b, uint32_t first, uint32_t n)
{
	static const char nothing[] = "";

	for (uint32_t i = first; i < first + n; i++) {
		const struct chp_store_item *item = chp_store_picked(&h->pick, b, i);

		chp_store_meta_text(item, h->words[i].meta);
		add(&h->command, h->words[i].meta, CHP_STORE_META_TEXT_LEN);
		add(&h->command, item->value_len > 0 ? (const char *)item->value : nothing, item->value_len);
	}
}

/* Some of the items that were picked. */
static int
send_part(struct handle *h, const struct chp_store_batch *b, uint32_t first, uint32_t items, struct chp_store_error *e)
{
	struct command *c = &h->command;
	struct numbers n;

	if (begin_command(c, 15 + 3 * items, e) < 0)
		return -1;
	shard_name(n.record, "record", b->shard);
	shard_name(n.versions, "items", b->shard);
	add_text(c, "EVALSHA");
	add_text(c, h->sha);
	add_number(c, n.text[0], 3 + (uint64_t)items);
	add_text(c, IDENTITY);
	add_text(c, n.record);
	add_text(c, n.versions);
	for (uint32_t i = first; i < first + items; i++) {
		const struct chp_store_item *item = chp_store_picked(&h->pick, b, i);
		size_t len;
		const char *name = name_of(item->key, item->key_len, h->words[i].name, &len);

		add(c, name, len);
	}
	add(c, h->store->identity, h->store->identity_len);
	add_number(c, n.text[1], b->before->life);
	add_number(c, n.text[2], b->before->batch);
	add_number(c, n.text[3], b->after->life);
	add_number(c, n.text[4], b->after->batch);
	add_number(c, n.text[5], b->after->newest);
	add_number(c, n.text[6], b->after->epoch);
	add_number(c, n.text[7], first / PART_ITEMS);
	add_text(c, first + items == h->pick.n ? "1" : "0");
	add_items(h, b, first, items);
	return send_command(h, e);
}

static uint32_t
parts_of(uint32_t items)
{
	return items == 0 ? 1 : (items + PART_ITEMS - 1) / PART_ITEMS;
}

/* In *parts how many answers it will have. */
static int
send_batch(struct handle *h, const struct chp_store_batch *b, uint32_t *parts, struct chp_store_error *e)
{
	if (chp_store_pick(&h->pick, b, e) < 0)
		return -1;
	if (!chp_store_grow((void **)&h->words, &h->words_room, h->pick.n, sizeof(*h->words)))
		return no_memory(e);
	*parts = parts_of(h->pick.n);
	for (uint32_t i = 0; i < *parts; i++) {
		uint32_t first = i * PART_ITEMS, left = h->pick.n - first;

		if (send_part(h, b, first, left < PART_ITEMS ? left : PART_ITEMS, e) < 0)
			return -1;
	}
	return 0;
}

/* What the script says of a part of a batch. */
static int
understand(struct chp_store_batch *b, const redisReply *r, struct chp_store_error *e)
{
	const char *word = r->elements > 0 && r->element[0]->type == REDIS_REPLY_STRING ? r->element[0]->str : "";

	if (strcmp(word, "IDENTITY") == 0)
		return chp_store_fail(e, CHP_STORE_ERROR_LOST,
				      "redis has lost all data: its database was emptied or replaced");
	if (strcmp(word, "LOST") == 0 && r->elements == 3)
		return chp_store_fail(e, CHP_STORE_ERROR_LOST,
				      "shard %" PRIu32 ": redis is at life %" PRIu64 " batch %" PRIu64
				      ", not at %" PRIu64 " %" PRIu64 " where we left it",
				      b->shard, number(r->element[1]), number(r->element[2]), b->before->life,
				      b->before->batch);
	if (strcmp(word, "PART") == 0)
		return chp_store_fail(e, CHP_STORE_ERROR_SLOW, "redis has not taken a part of a batch");
	if (strcmp(word, "OK") != 0 || r->elements != 5)
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "redis gives an answer that is not our script's");
	b->applied += number(r->element[1]);
	b->after->items = number(r->element[2]);
	b->after->tombstones = number(r->element[3]);
	b->after->newest = number(r->element[4]);
	return 0;
}

/* All answers are taken, also behind an error: then the connection can be used on. 1: the server has no script. */
static int
take_answers(struct handle *h, struct chp_store_batch *batch, const uint32_t *parts, uint32_t n,
	     struct chp_store_error *e)
{
	struct chp_store_error first = { .kind = CHP_STORE_ERROR_NONE };
	bool no_script = false;
	int rc = 0;

	for (uint32_t i = 0, part = 0; i < n; i += part == 0) {
		redisReply *r = answer(h, e);
		int this = 0;

		if (r == NULL)
			return -1;
		batch[i].applied = part == 0 ? 0 : batch[i].applied;
		if (r->type == REDIS_REPLY_ERROR && strncmp(r->str, "NOSCRIPT", strlen("NOSCRIPT")) == 0)
			no_script = true;
		else if (r->type == REDIS_REPLY_ERROR)
			this = chp_store_fail(e, CHP_STORE_ERROR_NONE, "%s", r->str);
		else
			this = understand(&batch[i], r, e);
		if (this < 0 && rc == 0)
			first = *e;
		rc = rc < 0 ? rc : this;
		freeReplyObject(r);
		part = part + 1 < parts[i] ? part + 1 : 0;
	}
	*e = first;
	if (rc < 0 && first.kind == CHP_STORE_ERROR_NONE)
		return said(h, first.text, e);
	return rc < 0 ? rc : no_script;
}

static int
write_batches(void *handle, struct chp_store_batch *batch, uint32_t n, struct chp_store_error *e)
{
	uint32_t parts[CHP_STORE_BATCHES_MAX];
	struct handle *h = handle;
	int rc = 1;

	if (connect_to(h, false, e) < 0)
		return -1;
	for (uint32_t try = 0; try < 2 && rc == 1; try++) {
		if (try > 0 && load_script(h, e) < 0)
			return -1;
		for (uint32_t i = 0; i < n; i++)
			if (send_batch(h, &batch[i], &parts[i], e) < 0) {
				disconnect(h); /* with what was put together */
				return -1;
			}
		rc = take_answers(h, batch, parts, n, e);
	}
	return rc == 1 ? said(h, "NOSCRIPT: somebody removes our script", e) : rc;
}

/* ------------------------------------------------------------------ read */

/* Versions and values of one moment: MULTI, an HMGET for each shard in use, an MGET, EXEC. */
static int
ask_for(struct handle *h, const struct chp_store_read *read, const uint32_t *shard, uint32_t n,
	struct chp_store_error *e)
{
	struct command *c = &h->command;
	char name[32];
	size_t len;

	if (redisAppendCommand(h->c, "MULTI") != REDIS_OK)
		return broken(h, e);
	for (uint32_t s = 0; s < h->store->id.shards; s++) {
		shard_name(name, "items", s);
		c->n = 0;
		add_text(c, "HMGET");
		add_text(c, name);
		for (uint32_t i = 0; i < n; i++)
			if (shard[i] == s) {
				const char *of = name_of(read[i].key, read[i].key_len, h->words[i].name, &len);

				add(c, of, len);
			}
		if (c->n > 2 && send_command(h, e) < 0)
			return -1;
	}
	c->n = 0;
	add_text(c, "MGET");
	for (uint32_t i = 0; i < n; i++) {
		const char *of = name_of(read[i].key, read[i].key_len, h->words[i].name, &len);

		add(c, of, len);
	}
	if (send_command(h, e) < 0)
		return -1;
	return redisAppendCommand(h->c, "EXEC") == REDIS_OK ? 0 : broken(h, e);
}

/* The answer of EXEC: as many arrays as commands, behind "OK" and "QUEUED"s. */
static redisReply *
take_transaction(struct handle *h, uint32_t commands, struct chp_store_error *e)
{
	redisReply *r;

	for (uint32_t i = 0; i <= commands; i++) {
		r = answer_of(h, REDIS_REPLY_STATUS, e);
		if (r == NULL)
			return NULL;
		freeReplyObject(r);
	}
	r = answer_of(h, REDIS_REPLY_ARRAY, e);
	for (uint32_t i = 0; r != NULL && i < commands; i++)
		if (r->elements != commands || r->element[i]->type != REDIS_REPLY_ARRAY) {
			said(h, r->elements == commands && r->element[i]->type == REDIS_REPLY_ERROR ?
					r->element[i]->str : "a transaction of another length", e);
			freeReplyObject(r);
			return NULL;
		}
	return r;
}

/* One key: its version and its value. */
static int
found(const struct store *s, const redisReply *meta, const redisReply *value, struct chp_store_read *r,
      struct chp_store_error *e)
{
	struct chp_store_meta m;

	r->value_len = 0;
	if (meta->type == REDIS_REPLY_NIL) {
		r->found = CHP_STORE_ABSENT;
		return 0;
	}
	if (!read_meta(meta, &m))
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "redis: the version of a key is not one of ours");
	r->version = m.version;
	r->life = m.life;
	r->flags = m.flags;
	if ((m.flags & CHP_HOST_TOMBSTONE) != 0) {
		r->found = CHP_STORE_TOMBSTONE;
		return 0;
	}
	if (value->type != REDIS_REPLY_STRING && (s->flags & CHP_STORE_ALLOW_LOSS) != 0) {
		r->found = CHP_STORE_ABSENT; /* evicted */
		return 0;
	}
	if (value->type != REDIS_REPLY_STRING || value->len > s->id.value_bytes_max)
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "redis: another program has %s a value",
				      value->type == REDIS_REPLY_STRING ? "changed" : "removed");
	memcpy(r->value, value->str, value->len);
	r->value_len = (uint32_t)value->len;
	r->found = CHP_STORE_FOUND;
	return 0;
}

/* What EXEC gave, in the order of the keys. */
static int
sort_out(struct handle *h, const redisReply *r, struct chp_store_read *read, const uint32_t *shard, uint32_t n,
	 struct chp_store_error *e)
{
	const redisReply *values = r->element[r->elements - 1];
	uint32_t next[CHP_SHARDS_MAX] = { 0 }, command[CHP_SHARDS_MAX], commands = 0;
	bool used[CHP_SHARDS_MAX] = { false };
	int rc = 0;

	for (uint32_t i = 0; i < n; i++)
		used[shard[i]] = true;
	for (uint32_t s = 0; s < h->store->id.shards; s++)
		command[s] = used[s] ? commands++ : 0;
	for (uint32_t i = 0; i < n; i++) {
		const redisReply *metas = r->element[command[shard[i]]];
		uint32_t at = next[shard[i]]++;

		if (at >= metas->elements || i >= values->elements)
			return said(h, "an answer that is too short", e);
		if (found(h->store, metas->element[at], values->element[i], &read[i], e) < 0)
			rc = -1;
	}
	return rc;
}

static int
read_keys(void *handle, struct chp_store_read *read, uint32_t n, struct chp_store_error *e)
{
	struct handle *h = handle;
	uint32_t shard[CHP_STORE_READS_MAX], commands = 1;
	bool used[CHP_SHARDS_MAX] = { false };
	redisReply *r;
	int rc;

	for (uint32_t i = 0; i < n; i++) {
		read[i].found = CHP_STORE_FAILED;
		shard[i] = chp_store_shard(&h->store->id, read[i].key, read[i].key_len);
		commands += !used[shard[i]];
		used[shard[i]] = true;
	}
	if (connect_to(h, false, e) < 0 || begin_command(&h->command, n + 2, e) < 0)
		return -1;
	if (!chp_store_grow((void **)&h->words, &h->words_room, n, sizeof(*h->words)))
		return no_memory(e);
	if (ask_for(h, read, shard, n, e) < 0 || (r = take_transaction(h, commands, e)) == NULL)
		return -1;
	rc = sort_out(h, r, read, shard, n, e);
	freeReplyObject(r);
	return rc;
}

/* ------------------------------------------------------------------ scan */

/* The state of a scan: for a cursor of length 0 a new one. NULL with an error. */
static struct scan_state *
state_of(struct handle *h, uint32_t shard, const struct chp_store_scan *scan, struct chp_store_error *e)
{
	struct scan_state *s = NULL;
	uint64_t part = 0;

	for (uint32_t i = 0; i < h->n_scans && s == NULL; i++)
		if (h->scan[i].shard == shard && h->scan[i].id == scan->id)
			s = &h->scan[i];
	if (scan->cursor.len != 0) {
		memcpy(&part, scan->cursor.bytes, sizeof(part));
		if (s != NULL && part == s->part && strcmp(s->run_id, h->run_id) == 0)
			return s;
		chp_store_fail(e, CHP_STORE_ERROR_SLOW, "redis was started anew: the scan begins again");
		return NULL;
	}
	if (s == NULL) {
		struct scan_state *old = h->scan;

		if (!chp_store_grow((void **)&h->scan, &h->scans_room, h->n_scans + 1, sizeof(*h->scan))) {
			no_memory(e);
			return NULL;
		}
		/* They may have moved, and the place where an empty list ends with them. */
		for (uint32_t i = 0; i < h->n_scans && h->scan != old; i++)
			if (h->scan[i].name == NULL)
				h->scan[i].tail = &h->scan[i].name;
		s = &h->scan[h->n_scans++];
		s->name = NULL;
	}
	forget_names(s);
	s->shard = shard;
	s->id = scan->id;
	s->part = 0;
	s->is_last = false;
	memcpy(s->cursor, "0", 2);
	memcpy(s->run_id, h->run_id, sizeof(s->run_id));
	return s;
}

static int
append_name(struct scan_state *s, const redisReply *name, struct chp_store_error *e)
{
	struct name *n = malloc(sizeof(*n) + name->len);

	if (n == NULL)
		return no_memory(e);
	n->next = NULL;
	n->len = (uint32_t)name->len;
	memcpy(n->byte, name->str, name->len);
	*s->tail = n;
	s->tail = &n->next;
	return 0;
}

/* More names from Redis: of those items that are asked for. */
static int
more_names(struct handle *h, struct scan_state *s, const struct chp_store_scan *scan, struct chp_store_error *e)
{
	char versions[32];
	redisReply *r, *list;
	int rc = 0;

	shard_name(versions, "items", s->shard);
	r = ASK(h, REDIS_REPLY_ARRAY, e, "HSCAN", versions, s->cursor, "COUNT", SCAN_STEP);
	if (r == NULL)
		return -1;
	list = r->elements == 2 ? r->element[1] : NULL;
	if (list == NULL || list->type != REDIS_REPLY_ARRAY || r->element[0]->len >= sizeof(s->cursor)) {
		freeReplyObject(r);
		return said(h, "an answer to HSCAN that is none", e);
	}
	memcpy(s->cursor, r->element[0]->str, r->element[0]->len + 1);
	s->is_last = strcmp(s->cursor, "0") == 0;
	for (size_t i = 0; i + 1 < list->elements && rc == 0; i += 2) {
		struct chp_store_meta m;

		if (list->element[i]->len > NAME_BYTES_MAX || !read_meta(list->element[i + 1], &m))
			rc = chp_store_fail(e, CHP_STORE_ERROR_DOWN, "redis: the version of a key is not one of ours");
		else if (scan->only_old ? m.life < scan->life : m.life == scan->life)
			rc = append_name(s, list->element[i], e);
	}
	freeReplyObject(r);
	return rc;
}

/* Fetch what is next of a scan and add it. Returns 1 to go on, 0 when there is no room, -1 with an error. */
static int
add_fetched(struct handle *h, struct scan_state *s, struct chp_store_scan *scan, struct chp_store_error *e)
{
	struct chp_store_read read[SCAN_FETCH];
	uint32_t n = 0, key_len;
	uint8_t *values;
	int rc = 1;

	for (const struct name *name = s->name; name != NULL && n < SCAN_FETCH; name = name->next) {
		read[n].key = key_of(name->byte, name->len, &key_len);
		read[n++].key_len = (uint8_t)key_len;
	}
	values = malloc((size_t)n * h->store->id.value_bytes_max);
	if (values == NULL)
		return no_memory(e);
	for (uint32_t i = 0; i < n; i++)
		read[i].value = values + (size_t)i * h->store->id.value_bytes_max;
	if (read_keys(h, read, n, e) < 0)
		rc = -1;
	for (uint32_t i = 0; i < n && rc > 0; i++) {
		struct name *first = s->name;
		struct chp_store_item item = { .key = read[i].key, .key_len = read[i].key_len, .value = read[i].value,
					       .value_len = read[i].value_len, .version = read[i].version,
					       .life = read[i].life, .flags = read[i].flags };

		/* Absent: evicted since. */
		if (read[i].found != CHP_STORE_ABSENT && !chp_store_scan_add(scan, &item)) {
			rc = 0;
			break;
		}
		s->name = first->next;
		if (s->name == NULL)
			s->tail = &s->name;
		free(first);
	}
	free(values);
	return rc;
}

static int
scan_items(void *handle, uint32_t shard, struct chp_store_scan *scan, struct chp_store_error *e)
{
	struct handle *h = handle;
	struct scan_state *s;
	int rc = 1;

	if (connect_to(h, false, e) < 0 || (s = state_of(h, shard, scan, e)) == NULL)
		return -1;
	for (uint32_t steps = 0; rc > 0 && steps < SCAN_STEPS_MAX;) {
		if (s->name != NULL) {
			rc = add_fetched(h, s, scan, e);
		} else if (s->is_last) {
			scan->end = true;
			break;
		} else if (more_names(h, s, scan, e) < 0) {
			rc = -1;
		} else {
			steps++;
		}
	}
	if (rc < 0)
		return -1;
	s->part++;
	scan->cursor.len = sizeof(s->part);
	memcpy(scan->cursor.bytes, &s->part, sizeof(s->part));
	return 0;
}

const struct chp_adapter chp_adapter_redis = {
	.name = "redis",
	.text = "a Redis server; durable with appendfsync always, which is checked",
	.has_timeouts = true,
	.check = check,
	.open = open_store,
	.describe = describe,
	.close = close_store,
	.attach = attach,
	.detach = detach,
	.load_record = load_record,
	.write = write_batches,
	.read = read_keys,
	.scan = scan_items,
};
