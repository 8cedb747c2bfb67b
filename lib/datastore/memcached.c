/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * memcached.c - the adapter "memcached": a memcached server, over its meta commands (1.6 and later).
 *
 * A memcached forgets: when it is restarted, and what it has no room for. So it is volatile (SAFETY 31): nothing may
 * leave the data cache because it is stored here, unless "allow_loss" is set.
 *
 * A value is an item under its key, as any client reads it. Beside it, under a name of ours, is an item with its
 * version, the key, and the number that memcached gave the value when it was stored (its "cas unique"): a pair of which
 * one half was replaced, or forgotten, does not fit together and counts as absent. Versions also name the draw that
 * their shard's record was made with: what a record that is gone has left counts for nothing.
 *
 * Every command is answered, and all commands of a step are sent before the first answer is waited for. The steps of a
 * write: look up versions; store values; store versions; store records. docs/datastores.md has the layout.
 */
#include "base/bytes.h"
#include "base/text.h"
#include "datastore/batch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define OURS "chaapar:"
#define IDENTITY "chaapar:identity"
/* What memcached takes as a key, and of how many bytes base64 makes that. */
#define NAME_LEN_MAX 250u
#define BASE64_FROM_MAX 186u
/* How often halves that do not fit are looked up: a key may be written all the time. */
#define READ_TRIES 4u
/* A line of an answer: far longer than any. */
#define LINE_LEN_MAX 2048u

struct config {
	const char *host, *path;
	uint64_t port, timeout_ms;
	bool allow_loss;
};

struct store {
	struct config config; /* texts are the JSON's */
	struct chp_store_identity id;
	char identity[CHP_STORE_IDENTITY_BYTES];
	uint32_t identity_len;
	char version[32];
};

/* Beside a value. */
struct beside {
	uint64_t draw; /* of the shard's record */
	uint64_t cas;  /* of the value; 0: a tombstone */
	uint8_t meta[CHP_STORE_META_BYTES];
	/* then the key */
} CHP_PACKED;

/* A shard's record. */
struct kept_record {
	uint64_t draw; /* at random, when the record is made */
	uint8_t record[CHP_STORE_RECORD_BYTES];
} CHP_PACKED;

struct bytes {
	char *at;
	uint32_t len, room;
};

/* The answer to a command. */
struct answer {
	char code[3];   /* HD, VA, EN, NS, EX, NF */
	uint64_t cas;
	uint32_t at, len; /* VA: the value, in the handle's `in` */
};

/* What a write knows of an item while its steps run. */
struct plan {
	const struct chp_store_item *item;
	uint64_t draw;
	uint64_t beside_cas; /* of the version that is replaced; 0: there is none */
	uint64_t value_cas;
};

struct handle {
	struct store *store;
	int fd; /* -1: not connected */
	uint64_t end_ms; /* of the call's time, unless something moves before */
	struct bytes out, in;
	struct answer *answer;
	uint32_t n_commands, answers_room;
	struct chp_store_pick pick;
	struct plan *plan;
	uint32_t n_plans, plans_room;
};

/* The record of a shard in a write. */
struct found_record {
	struct kept_record kept;
	struct chp_store_record record;
	uint64_t cas; /* 0: there is none yet */
};

static const char *const keys[] = { "host", "port", "path", "timeout_ms", "allow_loss", NULL };

static int
read_config(const json_t *json, struct config *c, struct chp_store_error *e)
{
	if (chp_store_keys(json, keys, e) < 0 || chp_store_get_text(json, "host", "127.0.0.1", &c->host, e) < 0 ||
	    chp_store_get_socket(json, "path", &c->path, e) < 0 ||
	    chp_store_get_uint(json, "port", 1, 65535, 11211, &c->port, e) < 0 ||
	    chp_store_get_uint(json, "timeout_ms", 10, 600000, 1000, &c->timeout_ms, e) < 0)
		return -1;
	return chp_store_get_bool(json, "allow_loss", false, &c->allow_loss, e);
}

static int
check(const json_t *json, struct chp_store_error *e)
{
	struct config c;

	return read_config(json, &c, e);
}

/* ------------------------------------------------------------------ a connection */

static uint64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void
disconnect(struct handle *h)
{
	if (h->fd >= 0)
		close(h->fd);
	h->fd = -1;
}

static int
broken(struct handle *h, const char *why, struct chp_store_error *e)
{
	const struct config *c = &h->store->config;

	disconnect(h);
	if (c->path[0] != '\0')
		return chp_store_fail(e, CHP_STORE_ERROR_SLOW, "memcached at %.60s: %.40s", c->path, why);
	return chp_store_fail(e, CHP_STORE_ERROR_SLOW, "memcached at %.50s:%" PRIu64 ": %.40s", c->host, c->port, why);
}

static int
late(struct handle *h, struct chp_store_error *e)
{
	char why[40];
	struct chp_text t = chp_text_of(why, sizeof(why));

	chp_text_add(&t, "no answer within %" PRIu64 " ms", h->store->config.timeout_ms);
	return broken(h, why, e);
}

static int
no_memory(struct handle *h, struct chp_store_error *e)
{
	disconnect(h); /* with what was put together */
	return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "no memory");
}

/* Wait until the socket can be read or written. Returns its events, or -1. */
static int
wait_for(struct handle *h, short events, struct chp_store_error *e)
{
	struct pollfd p = { .fd = h->fd, .events = events };
	uint64_t now = now_ms();
	int n;

	if (now >= h->end_ms)
		return late(h, e);
	n = poll(&p, 1, (int)(h->end_ms - now));
	if (n < 0 && errno != EINTR)
		return broken(h, strerror(errno), e);
	return n <= 0 ? 0 : p.revents;
}

static int
connect_address(struct handle *h, int family, const struct sockaddr *a, socklen_t len, struct chp_store_error *e)
{
	int on = 1, error = 0, ready = 0;
	socklen_t error_len = sizeof(error);

	h->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (h->fd < 0)
		return broken(h, strerror(errno), e);
	if (family != AF_UNIX)
		setsockopt(h->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(h->fd, a, len) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return broken(h, strerror(errno), e);
	while (ready == 0)
		ready = wait_for(h, POLLOUT, e);
	if (ready < 0)
		return -1;
	if (getsockopt(h->fd, SOL_SOCKET, SO_ERROR, &error, &error_len) < 0 || error != 0)
		return broken(h, strerror(error), e);
	return 0;
}

static int
connect_socket(struct handle *h, struct chp_store_error *e)
{
	const struct config *c = &h->store->config;
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
	struct sockaddr_un local = { .sun_family = AF_UNIX };
	struct chp_text t;
	char port[8];
	int rc;

	if (c->path[0] != '\0') {
		t = chp_text_of(local.sun_path, sizeof(local.sun_path));
		chp_text_add(&t, "%s", c->path);
		return connect_address(h, AF_UNIX, (const struct sockaddr *)&local, sizeof(local), e);
	}
	t = chp_text_of(port, sizeof(port));
	chp_text_add(&t, "%" PRIu64, c->port);
	rc = getaddrinfo(c->host, port, &hints, &list);
	if (rc != 0)
		return broken(h, gai_strerror(rc), e);
	rc = -1;
	for (const struct addrinfo *a = list; a != NULL && rc < 0; a = a->ai_next)
		rc = connect_address(h, a->ai_family, a->ai_addr, a->ai_addrlen, e);
	freeaddrinfo(list);
	return rc;
}

/* ------------------------------------------------------------------ commands */

static void
begin_commands(struct handle *h)
{
	h->out.len = 0;
	h->in.len = 0;
	h->n_commands = 0;
}

static bool
put_bytes(struct bytes *b, const void *bytes, size_t len)
{
	if (!chp_store_grow((void **)&b->at, &b->room, b->len + (uint32_t)len, 1))
		return false;
	memcpy(b->at + b->len, bytes, len);
	b->len += (uint32_t)len;
	return true;
}

/* A name of ours, or a user's key as memcached takes it. */
struct name {
	char text[NAME_LEN_MAX + 1];
	bool is_base64; /* of the key's bytes, which memcached stores */
};

static void
digest_name(struct name *n, const char *what, const struct store *s, const uint8_t *key, uint32_t key_len)
{
	struct chp_digest d = chp_digest_of(key, key_len, s->id.hash_seed);
	struct chp_text t = chp_text_of(n->text, sizeof(n->text));

	n->is_base64 = false;
	chp_text_add(&t, OURS "%s:%016" PRIx64 "%016" PRIx64, what, d.hi, d.lo);
}

static void
shard_name(struct name *n, uint32_t shard)
{
	struct chp_text t = chp_text_of(n->text, sizeof(n->text));

	n->is_base64 = false;
	chp_text_add(&t, OURS "record:%" PRIu32, shard);
}

static void
write_base64(char *to, const uint8_t *from, uint32_t len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	for (uint32_t i = 0; i < len; i += 3) {
		uint32_t left = len - i;
		uint32_t x = (uint32_t)from[i] << 16 | (left > 1 ? (uint32_t)from[i + 1] << 8 : 0) |
			     (left > 2 ? from[i + 2] : 0);

		*to++ = digits[x >> 18];
		*to++ = digits[x >> 12 & 63];
		*to++ = left > 1 ? digits[x >> 6 & 63] : '=';
		*to++ = left > 2 ? digits[x & 63] : '=';
	}
	*to = '\0';
}

/*
 * Where a user's key is: under itself, as far as memcached can. Blanks, control characters and bytes above 0x7e go
 * as base64, which memcached turns back. What is too long for that, or could be ours, is under its digest.
 */
static void
value_name(struct name *n, const struct store *s, const uint8_t *key, uint32_t key_len)
{
	bool plain = true;

	for (uint32_t i = 0; i < key_len; i++)
		plain = plain && key[i] > ' ' && key[i] < 0x7f;
	if ((key_len >= sizeof(OURS) - 1 && memcmp(key, OURS, sizeof(OURS) - 1) == 0) ||
	    (!plain && key_len > BASE64_FROM_MAX)) {
		digest_name(n, "key", s, key, key_len);
		return;
	}
	n->is_base64 = !plain;
	if (!plain) {
		write_base64(n->text, key, key_len);
		return;
	}
	memcpy(n->text, key, key_len);
	n->text[key_len] = '\0';
}

/* A command: word, name, flags, and for ms a value. */
static bool
command(struct handle *h, const char *word, const struct name *name, const char *flags, const void *value, size_t len)
{
	char line[NAME_LEN_MAX + 128];
	struct chp_text t = chp_text_of(line, sizeof(line));

	chp_text_add(&t, "%s %s", word, name->text);
	if (value != NULL)
		chp_text_add(&t, " %zu", len);
	chp_text_add(&t, " %s%s\r\n", flags, name->is_base64 ? " b" : "");
	h->n_commands++;
	return put_bytes(&h->out, line, (size_t)(t.at - line)) &&
	       (value == NULL || (put_bytes(&h->out, value, len) && put_bytes(&h->out, "\r\n", 2)));
}

static bool
get(struct handle *h, const struct name *name)
{
	return command(h, "mg", name, "v c", NULL, 0);
}

/* Store where the item is what it was: `cas` of it, 0 where there was none. */
static bool
store_over(struct handle *h, const struct name *name, uint64_t cas, const void *value, size_t len)
{
	char flags[40];
	struct chp_text t = chp_text_of(flags, sizeof(flags));

	if (cas == 0)
		chp_text_add(&t, "c ME"); /* add */
	else
		chp_text_add(&t, "c C%" PRIu64, cas);
	return command(h, "ms", name, flags, value, len);
}

/* ------------------------------------------------------------------ answers */

/* An answer that is an error. Whether the server still knows where a command begins is not known. */
static int
said(struct handle *h, const char *line, struct chp_store_error *e)
{
	disconnect(h);
	return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "memcached says: %.90s", line);
}

/*
 * Take one answer out of `in` at *at. Returns 1, 0 when it is not complete, -1 with an error.
 */
static int
parse(struct handle *h, uint32_t *at, struct answer *a, struct chp_store_error *e)
{
	char *line = h->in.at + *at, *end = memchr(line, '\n', h->in.len - *at), *c;
	uint32_t len, next;

	if (end == NULL)
		return h->in.len - *at < LINE_LEN_MAX ? 0 : broken(h, "an answer that is none", e);
	len = (uint32_t)(end - line) + 1;
	if (len < 4 || end[-1] != '\r' || (line[2] != ' ' && line[2] != '\r')) {
		*end = '\0';
		return said(h, line, e);
	}
	memset(a, 0, sizeof(*a));
	memcpy(a->code, line, 2);
	next = *at + len;
	if (strcmp(a->code, "VA") == 0) {
		a->len = (uint32_t)strtoul(line + 2, NULL, 10);
		a->at = next;
		if (a->len > h->in.room || h->in.len - next < a->len + 2) {
			if (a->len > (1u << 20))
				return broken(h, "a value of more than 1 MiB", e);
			return 0;
		}
		next += a->len + 2;
	}
	for (c = line + 2; c + 1 < end; c++)
		if (c[0] == ' ' && c[1] == 'c')
			a->cas = strtoull(c + 2, NULL, 10);
	*at = next;
	return 1;
}

/* A batch may take longer than the time-out: what counts is that nothing moves for so long. */
static void
moved(struct handle *h)
{
	h->end_ms = now_ms() + h->store->config.timeout_ms;
}

static int
receive_some(struct handle *h, struct chp_store_error *e)
{
	ssize_t n;

	if (!chp_store_grow((void **)&h->in.at, &h->in.room, h->in.len + 65536, 1))
		return no_memory(h, e);
	n = recv(h->fd, h->in.at + h->in.len, h->in.room - h->in.len, 0);
	if (n == 0)
		return broken(h, "it closes the connection", e);
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		return broken(h, strerror(errno), e);
	if (n > 0) {
		h->in.len += (uint32_t)n;
		moved(h);
	}
	return 0;
}

static int
send_some(struct handle *h, uint32_t *sent, struct chp_store_error *e)
{
	ssize_t n = send(h->fd, h->out.at + *sent, h->out.len - *sent, MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		return broken(h, strerror(errno), e);
	if (n > 0) {
		*sent += (uint32_t)n;
		moved(h);
	}
	return 0;
}

/*
 * Send all commands and take all answers, both at once: memcached stops reading while nobody takes its answers.
 */
static int
exchange(struct handle *h, struct chp_store_error *e)
{
	uint32_t sent = 0, taken = 0, at = 0;

	if (!chp_store_grow((void **)&h->answer, &h->answers_room, h->n_commands, sizeof(*h->answer)))
		return no_memory(h, e);
	while (taken < h->n_commands) {
		int events, rc;

		if (sent < h->out.len && send_some(h, &sent, e) < 0)
			return -1;
		events = wait_for(h, (short)(POLLIN | (sent < h->out.len ? POLLOUT : 0)), e);
		if (events < 0)
			return -1;
		if ((events & (POLLIN | POLLERR | POLLHUP)) != 0 && receive_some(h, e) < 0)
			return -1;
		do {
			rc = at < h->in.len && taken < h->n_commands ? parse(h, &at, &h->answer[taken], e) : 0;
			taken += rc > 0;
		} while (rc > 0);
		if (rc < 0)
			return -1;
	}
	return 0;
}

static bool
is(const struct answer *a, const char *code)
{
	return strcmp(a->code, code) == 0;
}

/* ------------------------------------------------------------------ meeting a server */

/* Whose it is. An empty server becomes ours when the store is opened, and only then. */
static int
look_at_identity(struct handle *h, bool is_first, struct chp_store_error *e)
{
	struct store *s = h->store;
	struct name name = { .text = IDENTITY };

	begin_commands(h);
	if ((is_first && !store_over(h, &name, 0, s->identity, s->identity_len)) || !get(h, &name))
		return no_memory(h, e);
	if (exchange(h, e) < 0)
		return -1;
	const struct answer *a = &h->answer[h->n_commands - 1];

	if (is(a, "EN"))
		return chp_store_fail(e, CHP_STORE_ERROR_LOST, "memcached has lost all data");
	if (chp_store_identity_check(&s->id, h->in.at + a->at, a->len, e) < 0)
		return -1;
	if (a->cas == 0)
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "memcached runs with -C: it must number its items");
	return 0;
}

static int
look_at_version(struct handle *h, struct chp_store_error *e)
{
	static const char question[] = "version\r\n";
	uint32_t sent = 0;
	char *end = NULL;

	begin_commands(h);
	if (!put_bytes(&h->out, question, sizeof(question) - 1))
		return no_memory(h, e);
	while (end == NULL) {
		if (send_some(h, &sent, e) < 0 || wait_for(h, POLLIN, e) < 0 || receive_some(h, e) < 0)
			return -1;
		end = h->in.len > 0 ? memchr(h->in.at, '\n', h->in.len) : NULL;
	}
	*end = '\0';
	if (strncmp(h->in.at, "VERSION 1.", strlen("VERSION 1.")) != 0 || strtoul(h->in.at + 10, NULL, 10) < 6)
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "memcached 1.6 or later is needed: %.40s", h->in.at);
	return 0;
}

/* At the beginning of each call. */
static int
begin_call(struct handle *h, bool is_first, struct chp_store_error *e)
{
	struct chp_text t;

	moved(h);
	if (h->fd >= 0)
		return 0;
	if (connect_socket(h, e) < 0)
		return -1;
	if (look_at_version(h, e) < 0) {
		disconnect(h);
		return -1;
	}
	if (is_first) {
		t = chp_text_of(h->store->version, sizeof(h->store->version));
		h->in.at[strcspn(h->in.at, "\r")] = '\0';
		chp_text_add(&t, "%.20s", h->in.at + strlen("VERSION "));
	}
	if (look_at_identity(h, is_first, e) < 0) {
		disconnect(h);
		return -1;
	}
	return 0;
}

static void
detach(void *handle)
{
	struct handle *h = handle;

	disconnect(h);
	free(h->out.at);
	free(h->in.at);
	free(h->answer);
	free(h->plan);
	chp_store_pick_free(&h->pick);
	free(h);
}

static void *
attach(void *store, struct chp_store_error *e)
{
	struct handle *h = calloc(1, sizeof(*h));

	if (h == NULL) {
		chp_store_fail(e, CHP_STORE_ERROR_DOWN, "no memory");
		return NULL;
	}
	h->store = store;
	h->fd = -1;
	return h;
}

static void *
open_store(const json_t *json, const struct chp_store_identity *id, struct chp_store_error *e)
{
	struct store *s = calloc(1, sizeof(*s));
	struct handle *h;
	int rc;

	if (s == NULL) {
		chp_store_fail(e, CHP_STORE_ERROR_DOWN, "no memory");
		return NULL;
	}
	s->id = *id;
	s->identity_len = chp_store_identity_text(id, s->identity);
	h = read_config(json, &s->config, e) == 0 ? attach(s, e) : NULL;
	rc = h != NULL ? begin_call(h, true, e) : -1;
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

	*flags = CHP_STORE_VOLATILE | (s->config.allow_loss ? CHP_STORE_ALLOW_LOSS : 0);
	chp_text_add(&t, "memcached %s, forgets", s->version);
}

static void
close_store(void *store)
{
	free(store);
}

/* ------------------------------------------------------------------ records */

/* A record from an answer; none: one that is not drawn yet. */
static int
record_of(struct handle *h, const struct answer *a, struct found_record *f, struct chp_store_error *e)
{
	memset(f, 0, sizeof(*f));
	if (is(a, "EN"))
		return 0;
	f->cas = a->cas;
	if (a->len != sizeof(f->kept))
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "memcached: a record is not one of ours");
	memcpy(&f->kept, h->in.at + a->at, sizeof(f->kept));
	if (!chp_store_record_read(f->kept.record, sizeof(f->kept.record), &f->record))
		return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "memcached: a record is not one of ours");
	return 0;
}

static int
load_record(void *handle, uint32_t shard, struct chp_store_record *r, struct chp_store_error *e)
{
	struct handle *h = handle;
	struct found_record f;
	struct name name;

	if (begin_call(h, false, e) < 0)
		return -1;
	begin_commands(h);
	shard_name(&name, shard);
	if (!get(h, &name))
		return no_memory(h, e);
	if (exchange(h, e) < 0 || record_of(h, &h->answer[0], &f, e) < 0)
		return -1;
	*r = f.record;
	return 0;
}

/* ------------------------------------------------------------------ write */

/* A version from an answer: whether it is this key's, and of this draw. */
static bool
beside_of(const struct handle *h, const struct answer *a, uint64_t draw, const void *key, uint32_t key_len,
	  struct beside *b, struct chp_store_meta *meta)
{
	if (!is(a, "VA") || a->len != sizeof(*b) + key_len)
		return false;
	memcpy(b, h->in.at + a->at, sizeof(*b));
	return b->draw == draw && memcmp(h->in.at + a->at + sizeof(*b), key, key_len) == 0 &&
	       chp_store_meta_read(b->meta, sizeof(b->meta), meta);
}

/* Step 1: a shard's record and its keys' versions; which items are newer is what the plan is made of. */
static int
look_up(struct handle *h, struct chp_store_batch *b, struct found_record *f, struct chp_store_error *e)
{
	struct name name;

	begin_commands(h);
	shard_name(&name, b->shard);
	if (chp_store_pick(&h->pick, b, e) < 0)
		return -1;
	if (!get(h, &name) || !chp_store_grow((void **)&h->plan, &h->plans_room, h->n_plans + h->pick.n,
					      sizeof(*h->plan)))
		return no_memory(h, e);
	for (uint32_t i = 0; i < h->pick.n; i++) {
		const struct chp_store_item *item = chp_store_picked(&h->pick, b, i);

		digest_name(&name, "meta", h->store, item->key, item->key_len);
		if (!get(h, &name))
			return no_memory(h, e);
	}
	if (exchange(h, e) < 0 || record_of(h, &h->answer[0], f, e) < 0 || chp_store_batch_begin(b, &f->record, e) < 0)
		return -1;
	while (f->kept.draw == 0)
		if (getrandom(&f->kept.draw, sizeof(f->kept.draw), 0) < 0)
			return chp_store_fail(e, CHP_STORE_ERROR_DOWN, "getrandom: %s", strerror(errno));
	for (uint32_t i = 0; i < h->pick.n; i++) {
		const struct chp_store_item *item = chp_store_picked(&h->pick, b, i);
		const struct answer *a = &h->answer[i + 1];
		struct chp_store_meta meta;
		struct beside have;
		bool is_ours = beside_of(h, a, f->kept.draw, item->key, item->key_len, &have, &meta);

		if (chp_store_batch_apply(b, item, is_ours ? &meta : NULL))
			h->plan[h->n_plans++] = (struct plan){ .item = item, .draw = f->kept.draw,
							       .beside_cas = is(a, "VA") ? a->cas : 0 };
	}
	return 0;
}

/* A record, over what was found. */
static bool
put_record(struct handle *h, uint32_t shard, struct found_record *f, const struct chp_store_record *r)
{
	struct name name;

	shard_name(&name, shard);
	chp_store_record_write(r, f->kept.record);
	return store_over(h, &name, f->cas, &f->kept, sizeof(f->kept));
}

/* Records and versions are only stored over what was found: nobody else writes, and an earlier try is not late. */
static int
check_stored(struct handle *h, uint32_t i, struct chp_store_error *e)
{
	if (is(&h->answer[i], "HD"))
		return 0;
	return chp_store_fail(e, CHP_STORE_ERROR_SLOW, "memcached: something was changed at the same time (%s)",
			      h->answer[i].code);
}

/*
 * Step 2: values, behind records that already have the newest version: should the rest never come, a version is
 * not newer than what its record says (SAFETY 4).
 */
static int
store_values(struct handle *h, const struct chp_store_batch *batch, uint32_t n, struct found_record *f,
	     struct chp_store_error *e)
{
	struct name name;
	bool ok = true;

	begin_commands(h);
	for (uint32_t i = 0; i < n && ok; i++) {
		struct chp_store_record raised = f[i].record;

		raised.newest = batch[i].after->newest;
		ok = put_record(h, batch[i].shard, &f[i], &raised);
	}
	for (uint32_t i = 0; i < h->n_plans && ok; i++) {
		const struct chp_store_item *item = h->plan[i].item;

		value_name(&name, h->store, item->key, item->key_len);
		if ((item->flags & CHP_HOST_TOMBSTONE) != 0)
			ok = command(h, "md", &name, "", NULL, 0);
		else
			ok = command(h, "ms", &name, "c", item->value_len > 0 ? item->value : (const void *)"",
				     item->value_len);
	}
	if (!ok)
		return no_memory(h, e);
	if (exchange(h, e) < 0)
		return -1;
	for (uint32_t i = 0; i < n; i++) {
		if (check_stored(h, i, e) < 0)
			return -1;
		f[i].cas = h->answer[i].cas;
	}
	for (uint32_t i = 0; i < h->n_plans; i++) {
		bool tombstone = (h->plan[i].item->flags & CHP_HOST_TOMBSTONE) != 0;

		if (!tombstone && check_stored(h, n + i, e) < 0)
			return -1;
		h->plan[i].value_cas = tombstone ? 0 : h->answer[n + i].cas;
	}
	return 0;
}

/* Step 3: versions. */
static int
store_versions(struct handle *h, struct chp_store_error *e)
{
	uint8_t bytes[sizeof(struct beside) + CHP_KEY_BYTES_MAX];
	struct name name;

	begin_commands(h);
	for (uint32_t i = 0; i < h->n_plans; i++) {
		const struct plan *p = &h->plan[i];
		struct chp_store_meta meta = chp_store_meta_of(p->item);
		struct beside b = { .draw = p->draw, .cas = p->value_cas };

		chp_store_meta_write(&meta, b.meta);
		memcpy(bytes, &b, sizeof(b));
		memcpy(bytes + sizeof(b), p->item->key, p->item->key_len);
		digest_name(&name, "meta", h->store, p->item->key, p->item->key_len);
		if (!store_over(h, &name, p->beside_cas, bytes, sizeof(b) + p->item->key_len))
			return no_memory(h, e);
	}
	if (exchange(h, e) < 0)
		return -1;
	for (uint32_t i = 0; i < h->n_plans; i++)
		if (check_stored(h, i, e) < 0)
			return -1;
	return 0;
}

/* Step 4: records. */
static int
store_records(struct handle *h, const struct chp_store_batch *batch, uint32_t n, struct found_record *f,
	      struct chp_store_error *e)
{
	begin_commands(h);
	for (uint32_t i = 0; i < n; i++)
		if (!put_record(h, batch[i].shard, &f[i], batch[i].after))
			return no_memory(h, e);
	if (exchange(h, e) < 0)
		return -1;
	for (uint32_t i = 0; i < n; i++)
		if (check_stored(h, i, e) < 0)
			return -1;
	return 0;
}

static int
write_batches(void *handle, struct chp_store_batch *batch, uint32_t n, struct chp_store_error *e)
{
	struct handle *h = handle;
	struct found_record f[CHP_STORE_BATCHES_MAX];

	if (begin_call(h, false, e) < 0)
		return -1;
	h->n_plans = 0;
	for (uint32_t i = 0; i < n; i++)
		if (look_up(h, &batch[i], &f[i], e) < 0)
			return -1;
	if (store_values(h, batch, n, f, e) < 0 || store_versions(h, e) < 0)
		return -1;
	return store_records(h, batch, n, f, e);
}

/* ------------------------------------------------------------------ read */

/* One key. Returns whether its two halves fit together, or there is none of it. */
static bool
found(const struct handle *h, const struct answer *beside, const struct answer *value, uint64_t draw,
      struct chp_store_read *r)
{
	struct chp_store_meta meta;
	struct beside b;

	r->value_len = 0;
	r->found = CHP_STORE_ABSENT;
	if (!beside_of(h, beside, draw, r->key, r->key_len, &b, &meta))
		return true;
	r->version = meta.version;
	r->life = meta.life;
	r->flags = meta.flags;
	if ((meta.flags & CHP_HOST_TOMBSTONE) != 0) {
		r->found = CHP_STORE_TOMBSTONE;
		return true;
	}
	if (!is(value, "VA") || value->cas != b.cas || value->len > h->store->id.value_bytes_max)
		return false;
	memcpy(r->value, h->in.at + value->at, value->len);
	r->value_len = value->len;
	r->found = CHP_STORE_FOUND;
	return true;
}

static bool
ask_for(struct handle *h, const struct chp_store_read *read, uint32_t n, const bool *used)
{
	struct name name;
	bool ok = true;

	begin_commands(h);
	for (uint32_t s = 0; s < h->store->id.shards && ok; s++) {
		shard_name(&name, s);
		ok = !used[s] || get(h, &name);
	}
	for (uint32_t i = 0; i < n && ok; i++) {
		digest_name(&name, "meta", h->store, read[i].key, read[i].key_len);
		ok = get(h, &name);
		value_name(&name, h->store, read[i].key, read[i].key_len);
		ok = ok && get(h, &name);
	}
	return ok;
}

static int
read_keys(void *handle, struct chp_store_read *read, uint32_t n, struct chp_store_error *e)
{
	struct handle *h = handle;
	bool used[CHP_SHARDS_MAX] = { false }, fits = false;
	uint64_t draw[CHP_SHARDS_MAX] = { 0 };
	struct found_record f;

	for (uint32_t i = 0; i < n; i++) {
		read[i].found = CHP_STORE_FAILED;
		used[chp_store_shard(&h->store->id, read[i].key, read[i].key_len)] = true;
	}
	if (begin_call(h, false, e) < 0)
		return -1;
	/* Halves that do not fit may have been looked up while they were written. */
	for (uint32_t try = 0; try < READ_TRIES && !fits; try++) {
		uint32_t at = 0;

		if (!ask_for(h, read, n, used))
			return no_memory(h, e);
		if (exchange(h, e) < 0)
			return -1;
		for (uint32_t s = 0; s < h->store->id.shards; s++)
			if (used[s]) {
				if (record_of(h, &h->answer[at++], &f, e) < 0)
					return -1;
				draw[s] = f.kept.draw;
			}
		fits = true;
		for (uint32_t i = 0; i < n; i++, at += 2)
			fits = found(h, &h->answer[at], &h->answer[at + 1],
				     draw[chp_store_shard(&h->store->id, read[i].key, read[i].key_len)], &read[i]) &&
			       fits;
	}
	return 0;
}

const struct chp_adapter chp_adapter_memcached = {
	.name = "memcached",
	.text = "a memcached server; volatile: it forgets",
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
};
