/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The client library against played replicas: three nodes with one store, the records of sessions, and a hook that says
 * for each request what goes wrong. The network and the clock are played, too: the program is linked with --wrap for
 * what the library asks of the system. Time passes when the library waits, so a slow machine changes no result.
 */
#include "base/bytes.h"
#include "base/digest.h"
#include "base/random.h"
#include "client/chaapar.h"
#include "wire/client.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

#define NODES      3u
#define SHARDS_MAX 4u
#define HASH       0x1234abcdu
#define KEYS       512u
#define RECORDS    8192u
#define EPOCH      UINT64_C(0x2fffffffe) /* the next but one has a lower half of 0 */

/* ---- the replicas ---- */

enum action {
	ANSWER = 0,
	DROP,       /* as if the request was lost */
	DROP_REPLY, /* executed, but the answer is lost */
	TWICE,      /* answered two times */
	REFUSE,     /* answered with seen->status and seen->number, not executed */
	REFUSE_LATE, /* the same, but the answer travels until just before the next one */
	GARBAGE,    /* many malformed replies, then the right one */
};

struct seen {
	uint32_t node, shard;
	uint64_t session, lowest, request, arg;
	uint32_t opcode, flags;
	uint32_t nth; /* of this (session, request, opcode): 1 at first */
	uint32_t epoch; /* as the datagram's header says */
	uint32_t in_datagram, datagram_len;
	uint8_t key[CHP_KEY_BYTES_MAX];
	uint32_t key_len;
	/* for REFUSE */
	uint32_t status;
	uint64_t number;
};

struct record {
	uint64_t session, request;
	uint32_t opcode, nth;
	bool executed;
	struct chp_reply_message m;
};

struct pair {
	uint8_t key[CHP_KEY_BYTES_MAX], value[CHP_VALUE_BYTES_MAX];
	uint32_t key_len, value_len;
	uint64_t version; /* 0: free */
	bool present;
};

struct datagram {
	uint8_t data[2048];
	uint32_t len;
};

struct fake {
	uint32_t shards, port_base, window, value_max;
	uint64_t seed;
	uint32_t hash;
	const char *info; /* instead of the right one */
	enum action (*hook)(struct fake *f, struct seen *s);
	/* The view. Only the home executes writes of sessions; what it has no record of only if the
	 * datagram says that the client knows of epoch `since`. */
	bool homed;
	uint32_t home, dead, refusing; /* the last two: node masks */
	uint64_t epoch[NODES], since;
	/* Or a leader of each shard, NODES: none: it executes the writes, whoever hears it can read. */
	bool led;
	uint32_t leader[SHARDS_MAX];
	uint64_t elected_ms; /* then node 1 leads every shard that has none */
	uint64_t rule[SHARDS_MAX];
	uint32_t asked, strayed; /* requests while there was none; writes that came to another */
	struct datagram late; /* an answer on its way; its length is 0 if there is none */
	uint32_t late_node, late_port;
	int late_to;
	bool late_waits;
	uint64_t full_until_ns; /* the sockets of handles take nothing before */
	uint32_t mtu, path_mtu; /* as INFO says; which the socket knows of */
	/* what happened */
	uint32_t lost_gets, lost_pings, lost_writes, stayed; /* at dead nodes; refused by the view */
	struct pair pair[KEYS];
	struct record record[RECORDS];
	uint32_t n_records;
	uint64_t version, session, lowest[NODES][64];
	uint64_t alive; /* sessions 1..63 that are known */
	uint32_t datagrams, executed, replayed, closed, opened, violations, dgram_requests_max;
	uint32_t len_max, mixed; /* reads in datagrams of a session */
	uint64_t user[4];        /* the hook's */
};

static struct fake *fake;

static struct pair *
find(struct fake *f, const uint8_t *key, uint32_t len)
{
	struct pair *room = NULL;

	for (uint32_t i = 0; i < KEYS; i++) {
		struct pair *p = &f->pair[i];

		if (p->version != 0 && p->key_len == len && memcmp(p->key, key, len) == 0)
			return p;
		if (p->version == 0 && room == NULL)
			room = p;
	}
	if (room == NULL)
		abort();
	memcpy(room->key, key, len);
	room->key_len = len;
	return room;
}

static uint32_t
write_pair(struct fake *f, struct pair *p, const uint8_t *value, uint32_t len)
{
	if (len > f->value_max)
		return CHP_STATUS_TOO_LARGE;
	memmove(p->value, value, len);
	p->value_len = len;
	p->version = ++f->version;
	p->present = true;
	return CHP_STATUS_OK;
}

static uint32_t
count(struct fake *f, struct pair *p, const struct chp_request *q, uint64_t *number)
{
	char text[24] = "";
	char *end;
	uint64_t n;

	if (p->value_len == 0 || p->value_len > 20)
		return CHP_STATUS_NOT_NUMBER;
	memcpy(text, p->value, p->value_len);
	n = strtoull(text, &end, 10);
	if (*end != '\0')
		return CHP_STATUS_NOT_NUMBER;
	if (q->opcode == CHP_OPCODE_INCR)
		n += q->arg;
	else
		n = n > q->arg ? n - q->arg : 0;
	*number = n;
	snprintf(text, sizeof(text), "%llu", (unsigned long long)n);
	return write_pair(f, p, (const uint8_t *)text, (uint32_t)strlen(text));
}

static uint32_t
splice(struct fake *f, struct pair *p, const struct chp_request *q)
{
	uint8_t both[2 * CHP_VALUE_BYTES_MAX];
	bool after = q->opcode == CHP_OPCODE_APPEND;

	memcpy(both + (after ? 0 : q->value_total), p->value, p->value_len);
	memcpy(both + (after ? p->value_len : 0), chp_request_value(q), q->value_total);
	return write_pair(f, p, both, p->value_len + q->value_total);
}

static uint32_t
execute(struct fake *f, const struct chp_request *q, struct chp_reply_message *m,
	const uint8_t **value, uint32_t *len)
{
	struct pair *p = find(f, chp_request_key(q), q->key_len);
	uint64_t number = 0;
	uint32_t status = CHP_STATUS_OK;

	if (!p->present && q->opcode != CHP_OPCODE_PUT && q->opcode != CHP_OPCODE_ADD)
		return CHP_STATUS_NOT_FOUND;
	m->version = p->version;
	switch (q->opcode) {
	case CHP_OPCODE_GET:
		m->flags = (q->flags & CHP_REQUEST_RELAXED) != 0 ? CHP_REPLY_RELAXED : 0;
		*value = p->value;
		*len = p->value_len;
		return status;
	case CHP_OPCODE_ADD:
		if (p->present)
			return CHP_STATUS_EXISTS;
		break;
	case CHP_OPCODE_CAS:
		if (p->version != q->arg)
			return CHP_STATUS_COMPARE_FAILED;
		break;
	default:
		break;
	}
	f->executed++;
	if (q->opcode == CHP_OPCODE_DELETE) {
		p->present = false;
		p->version = ++f->version;
	} else if (q->opcode == CHP_OPCODE_INCR || q->opcode == CHP_OPCODE_DECR) {
		status = count(f, p, q, &number);
	} else if (q->opcode == CHP_OPCODE_APPEND || q->opcode == CHP_OPCODE_PREPEND) {
		status = splice(f, p, q);
	} else {
		status = write_pair(f, p, chp_request_value(q), q->value_total);
	}
	m->version = p->version;
	m->number = number;
	return status;
}

static struct record *
record_of(struct fake *f, uint64_t session, const struct chp_request *q)
{
	for (uint32_t i = 0; i < f->n_records; i++) {
		struct record *r = &f->record[i];

		if (r->session == session && r->request == q->request && r->opcode == q->opcode)
			return r;
	}
	if (f->n_records == RECORDS)
		abort();
	f->record[f->n_records] =
		(struct record){ .session = session, .request = q->request, .opcode = q->opcode };
	return &f->record[f->n_records++];
}

static void
begin_reply(const struct fake *f, struct datagram *d, uint32_t node,
	    const struct chp_request_header *h)
{
	struct chp_reply_header r = { .prelude = { CHP_WIRE_MAGIC, CHP_WIRE_VERSION,
						   CHP_PACKET_REPLY, f->hash },
				      .session = h->session,
				      .epoch = f->epoch[node],
				      .shard = h->shard,
				      .node = (uint8_t)node };

	memcpy(d->data, &r, sizeof(r));
	d->len = sizeof(r);
}

static void
add_reply(struct datagram *d, const struct chp_reply_message *m, const void *value, uint32_t len)
{
	struct chp_reply_message r = *m;

	r.len = (uint16_t)chp_reply_bytes(len);
	r.value_total = len;
	memset(d->data + d->len, 0, r.len);
	memcpy(d->data + d->len, &r, sizeof(r));
	if (len > 0)
		memcpy(d->data + d->len + sizeof(r), value, len);
	d->len += r.len;
}

/* ---- the network and the clock ---- */

#define NS_PER_S      UINT64_C(1000000000)
#define NS_PER_MS     UINT64_C(1000000)
#define ROUND_TRIP_NS UINT64_C(50000)
#define CALL_NS       UINT64_C(1000) /* of asking the system for anything: who asks in a loop lets time pass */
#define FLYING_MAX    8192u

/* A reply on its way to the socket of a handle. */
struct flying {
	struct datagram d;
	struct sockaddr_in from;
	int to; /* -1: it has arrived */
	uint64_t due_ns;
};

/* In order of `due_ns`; the oldest are left out of it when they have arrived. */
static struct {
	uint64_t clock_ns;
	uint32_t first, end; /* modulo FLYING_MAX */
	struct flying reply[FLYING_MAX];
} net = { .clock_ns = NS_PER_S };

static void
send_reply(const struct fake *f, uint32_t node, uint32_t port, const struct datagram *d, int to)
{
	struct flying *r = &net.reply[net.end++ % FLYING_MAX];

	if (net.end - net.first > FLYING_MAX)
		abort();
	r->d = *d;
	r->from = (struct sockaddr_in){ .sin_family = AF_INET,
					.sin_port = htons((uint16_t)(f->port_base + port)),
					.sin_addr.s_addr = htonl(INADDR_LOOPBACK + node) };
	r->to = to;
	r->due_ns = net.clock_ns + ROUND_TRIP_NS;
}

static uint64_t
now_ms(void)
{
	return net.clock_ns / NS_PER_MS;
}

/* ---- what replicas do ---- */

/* Everything that a reply can be and must not; none of it may be believed. */
static void
send_garbage(const struct fake *f, uint32_t node, const struct chp_request_header *h, const struct chp_request *q,
	     int to)
{
	struct chp_reply_message m = { .opcode = q->opcode,
				       .status = CHP_STATUS_NOT_FOUND,
				       .request = q->request,
				       .number = 77,
				       .version = 88 };
	struct chp_random random = { .state = q->request };
	struct datagram good, d;

	begin_reply(f, &good, node, h);
	add_reply(&good, &m, "wrong", 5);
	for (uint32_t len = 1; len < good.len; len++) { /* truncated anywhere */
		d = good;
		d.len = len;
		send_reply(f, node, h->shard, &d, to);
	}
	for (uint32_t i = 0; i < 8; i++) { /* prelude: magic, version, kind, cluster */
		d = good;
		d.data[i] ^= (uint8_t)(1 + chp_random_below(&random, 255));
		send_reply(f, node, h->shard, &d, to);
	}
	for (uint32_t i = 0; i < 8; i++) { /* request numbers that are nobody's */
		d = good;
		d.data[sizeof(struct chp_reply_header) + 8 + i] ^= 0x40;
		send_reply(f, node, h->shard, &d, to);
	}
	d = good;
	((struct chp_reply_message *)(void *)(d.data + sizeof(struct chp_reply_header)))->len = 0;
	send_reply(f, node, h->shard, &d, to);
	d = good;
	((struct chp_reply_message *)(void *)(d.data + sizeof(struct chp_reply_header)))
		->value_total = UINT32_MAX;
	send_reply(f, node, h->shard, &d, to);
	if (q->opcode != CHP_OPCODE_GET) { /* a read's number says everything */
		d = good;
		((struct chp_reply_header *)(void *)d.data)->session ^= UINT64_C(1) << 40;
		send_reply(f, node, h->shard, &d, to);
	}
	d = good;
	((struct chp_reply_header *)(void *)d.data)->tag_len = 16;
	send_reply(f, node, h->shard, &d, to);
	d = good;
	((struct chp_reply_header *)(void *)d.data)->node = 200;
	send_reply(f, node, h->shard, &d, to);
	/* Right in every byte, from the wrong port and from the wrong node. */
	send_reply(f, node, f->shards, &good, to);
	send_reply(f, (node + 1) % NODES, h->shard, &good, to);
}

/* What two nodes get may overtake each other. */
static void
check_session(struct fake *f, uint32_t node, const struct chp_request_header *h,
	      const struct chp_request *q)
{
	/* Reads ride along in a session's datagram without a number of it. */
	if (h->session == 0 || q->opcode == CHP_OPCODE_GET || q->opcode == CHP_OPCODE_PING ||
	    q->opcode == CHP_OPCODE_QUORUM)
		return;
	if (h->session >= 64 || h->lowest == 0 || q->request < h->lowest ||
	    q->request - h->lowest >= f->window || h->lowest < f->lowest[node][h->session])
		f->violations++;
	else
		f->lowest[node][h->session] = h->lowest;
}

static void
serve(struct fake *f, const struct seen *s, const struct chp_request_header *h,
      const struct chp_request *q, struct record *r, struct datagram *d)
{
	struct chp_reply_message m = { .opcode = q->opcode, .request = q->request };
	const uint8_t *value = NULL;
	uint32_t len = 0;

	if (s->opcode == CHP_OPCODE_SESSION_OPEN) {
		if (!r->executed) {
			f->opened++;
			r->m.number = ++f->session;
			f->alive |= UINT64_C(1) << f->session;
		}
		m.number = r->m.number;
	} else if (s->opcode == CHP_OPCODE_QUORUM) {
		if (!f->led)
			m.status = CHP_STATUS_UNKNOWN_OP;
		else if (q->arg != CHP_QUORUM_ASK)
			f->rule[s->shard] = q->arg;
		m.number = f->rule[s->shard];
	} else if (s->opcode == CHP_OPCODE_SESSION_CLOSE) {
		f->closed++;
		f->alive &= ~(UINT64_C(1) << h->session);
	} else if (h->session != 0 && s->opcode != CHP_OPCODE_GET &&
		   (f->alive >> h->session & 1) == 0) {
		m.status = CHP_STATUS_SESSION_UNKNOWN;
		add_reply(d, &m, NULL, 0);
		return;
	} else if (s->opcode != CHP_OPCODE_PING) {
		if (r->executed && s->opcode != CHP_OPCODE_GET) {
			f->replayed++;
			add_reply(d, &r->m, NULL, 0);
			return;
		}
		m.status = (uint8_t)execute(f, q, &m, &value, &len);
	}
	r->executed = true;
	r->m = m;
	if (d->len + chp_reply_bytes(len) <= 1472)
		add_reply(d, &m, value, len);
	else
		f->violations++;
}

/* The same where shards have leaders. */
static uint32_t
leader_status(struct fake *f, struct seen *s)
{
	uint32_t *leader = &f->leader[s->shard];
	bool read = s->opcode == CHP_OPCODE_GET;

	if (s->opcode == CHP_OPCODE_PING || (read && (s->flags & CHP_REQUEST_RELAXED) != 0))
		return CHP_STATUS_OK;
	if (*leader == NODES && f->elected_ms != 0 && now_ms() >= f->elected_ms)
		*leader = 1;
	if (*leader == NODES) {
		f->asked++;
		return CHP_STATUS_NOT_SERVING;
	}
	if (read || s->node == *leader)
		return CHP_STATUS_OK;
	f->strayed += s->opcode != CHP_OPCODE_SESSION_OPEN;
	s->number = *leader;
	return CHP_STATUS_REDIRECT;
}

/* What a replica says before it looks at the key. */
static uint32_t
view_status(struct fake *f, struct seen *s, const struct chp_request_header *h,
	    const struct record *r)
{
	s->number = f->home;
	if (f->led)
		return leader_status(f, s);
	if (s->opcode == CHP_OPCODE_PING)
		return CHP_STATUS_OK;
	if ((f->refusing >> s->node & 1) != 0)
		return CHP_STATUS_NOT_SERVING;
	if (!f->homed || h->session == 0 || s->opcode == CHP_OPCODE_GET)
		return CHP_STATUS_OK;
	if (s->node != f->home || (!r->executed && (int32_t)(h->epoch - (uint32_t)f->since) < 0))
		return CHP_STATUS_REDIRECT;
	return CHP_STATUS_OK;
}

static void
count_lost(struct fake *f, uint32_t opcode)
{
	if (opcode == CHP_OPCODE_GET)
		f->lost_gets++;
	else if (opcode == CHP_OPCODE_PING)
		f->lost_pings++;
	else
		f->lost_writes++;
}

/* Each request is answered in a datagram of its own: SAFETY 27 allows any split. */
static void
on_request(struct fake *f, struct seen *s, const struct chp_request_header *h, const struct chp_request *q, int from)
{
	struct record *r = record_of(f, h->session, q);
	struct chp_reply_message m = { .opcode = q->opcode, .request = q->request };
	enum action a = ANSWER;
	struct datagram d;

	s->request = q->request;
	s->opcode = q->opcode;
	s->flags = q->flags;
	s->arg = q->arg;
	s->nth = ++r->nth;
	s->key_len = q->key_len;
	memcpy(s->key, chp_request_key(q), q->key_len);
	check_session(f, s->node, h, q);
	if (h->session != 0 && q->opcode == CHP_OPCODE_GET)
		f->mixed++;
	if (chp_request_check(q, CHP_KEY_BYTES_MAX, f->value_max) != CHP_STATUS_OK)
		f->violations++;
	if (f->hook != NULL)
		a = f->hook(f, s);
	if (a == DROP)
		return;
	if (a == ANSWER) {
		s->status = view_status(f, s, h, r);
		a = s->status != CHP_STATUS_OK ? REFUSE : ANSWER;
		f->stayed += a == REFUSE;
	}
	begin_reply(f, &d, s->node, h);
	if (a == REFUSE || a == REFUSE_LATE) {
		m.status = (uint8_t)s->status;
		m.number = s->number;
		m.version = f->seed;
		add_reply(&d, &m, NULL, 0);
	} else {
		if (a == GARBAGE)
			send_garbage(f, s->node, h, q, from);
		serve(f, s, h, q, r, &d);
	}
	if (a == REFUSE_LATE) {
		f->late = d;
		f->late_node = s->node;
		f->late_port = s->shard;
		f->late_to = from;
		return;
	}
	if (f->late.len > 0 && !f->late_waits) {
		send_reply(f, f->late_node, f->late_port, &f->late, f->late_to);
		f->late.len = 0;
	}
	if (a != DROP_REPLY)
		send_reply(f, s->node, s->shard, &d, from);
	if (a == TWICE)
		send_reply(f, s->node, s->shard, &d, from);
}

static void
info_text(const struct fake *f, char *to, size_t size, uint32_t node)
{
	snprintf(
		to, size,
		"{\"name\":\"test\",\"protocol\":\"fake\",\"hash\":%u,\"shards\":%u,\"hash_seed\":\"%llu\",\"port_base\":%u,"
		"\"mtu\":%u,\"key_bytes_max\":250,\"value_bytes_max\":%u,\"session_window\":%u,"
		"\"node\":%u,\"epoch\":1,\"members\":["
		"{\"id\":0,\"name\":\"n0\",\"address\":\"127.0.0.1\"},"
		"{\"id\":1,\"name\":\"n1\",\"address\":\"127.0.0.2\"},"
		"{\"id\":2,\"name\":\"n2\",\"address\":\"127.0.0.3\"}]}",
		f->hash, f->shards, (unsigned long long)f->seed, f->port_base, f->mtu, f->value_max,
		f->window, node);
}

static void
on_control(struct fake *f, uint32_t node, const struct chp_request_header *h, const struct chp_request *q, int from)
{
	struct chp_reply_message m = { .opcode = q->opcode, .request = q->request, .number = 3 };
	struct seen s = { .node = node, .opcode = q->opcode, .arg = q->arg, .request = q->request };
	struct datagram d;
	char text[1200];

	s.nth = ++record_of(f, 0, q)->nth;
	if (f->hook != NULL) {
		enum action a = f->hook(f, &s);

		if (a == DROP)
			return;
		if (a == REFUSE)
			m.number = s.number;
		if (q->opcode == CHP_OPCODE_STATUS)
			m.version = f->user[2];
	}
	if (q->opcode == CHP_OPCODE_INFO)
		info_text(f, text, sizeof(text), node);
	else
		snprintf(text, sizeof(text), "%s",
			 (const char *[]){ "{\"a\":", "[1,2", "]}" }[q->arg >> 16 & 3]);
	begin_reply(f, &d, node, h);
	if (q->opcode == CHP_OPCODE_INFO && f->info != NULL)
		add_reply(&d, &m, f->info, (uint32_t)strlen(f->info));
	else
		add_reply(&d, &m, text, (uint32_t)strlen(text));
	send_reply(f, node, f->shards, &d, from);
}

static void
on_datagram(struct fake *f, uint32_t node, uint32_t port, const uint8_t *data, uint32_t n, int from)
{
	const struct chp_request_header *h = (const void *)data;
	const struct chp_request *q;
	uint32_t offset = sizeof(*h), at = 0;
	struct seen s = { .node = node, .shard = port };

	f->datagrams++;
	if (chp_request_header_check(data, n, 0) != CHP_PACKET_OK || n > f->path_mtu - CHP_IP_UDP_BYTES)
		f->violations++;
	if (h->prelude.cluster_hash != 0 && h->prelude.cluster_hash != f->hash)
		return; /* another cluster's: dropped, as the real one does */
	s.session = h->session;
	s.lowest = h->lowest;
	s.epoch = h->epoch;
	s.datagram_len = n;
	while ((q = chp_request_next(data, n, &offset)) != NULL) {
		s.in_datagram = at++;
		if ((f->dead >> node & 1) != 0)
			count_lost(f, q->opcode);
		else if (port == f->shards)
			on_control(f, node, h, q, from);
		else
			on_request(f, &s, h, q, from);
	}
	if (offset != n || at == 0 || (port != f->shards && h->shard != port))
		f->violations++;
	if (at > f->dgram_requests_max)
		f->dgram_requests_max = at;
	if (n > f->len_max)
		f->len_max = n;
}

/* ---- the library's system calls ---- */

/* The next reply that comes to a socket, or NULL. */
static struct flying *
next_reply(int fd)
{
	while (net.first != net.end && net.reply[net.first % FLYING_MAX].to < 0)
		net.first++;
	for (uint32_t i = net.first; i != net.end; i++) {
		if (net.reply[i % FLYING_MAX].to == fd)
			return &net.reply[i % FLYING_MAX];
	}
	return NULL;
}

int __wrap_clock_gettime(clockid_t id, struct timespec *t);
ssize_t __wrap_getrandom(void *to, size_t len, unsigned int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *m, unsigned int n, int flags);
int __wrap_recvmmsg(int fd, struct mmsghdr *m, unsigned int n, int flags, struct timespec *t);
int __wrap_ppoll(struct pollfd *p, nfds_t n, const struct timespec *t, const sigset_t *mask);

int
__wrap_clock_gettime(clockid_t id, struct timespec *t)
{
	cr_assert_eq(id, CLOCK_MONOTONIC);
	net.clock_ns += CALL_NS;
	t->tv_sec = (time_t)(net.clock_ns / NS_PER_S);
	t->tv_nsec = (long)(net.clock_ns % NS_PER_S);
	return 0;
}

/* Each handle draws something else, and every run the same. */
ssize_t
__wrap_getrandom(void *to, size_t len, unsigned int flags)
{
	static struct chp_random random = { .state = 1 };
	uint8_t *bytes = to;

	cr_assert_eq(flags, 0u);
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)chp_random_u64(&random);
	return (ssize_t)len;
}

int
__wrap_sendmmsg(int fd, struct mmsghdr *m, unsigned int n, int flags)
{
	cr_assert_eq(flags, MSG_DONTWAIT);
	net.clock_ns += CALL_NS;
	if (net.clock_ns < fake->full_until_ns) {
		errno = EAGAIN;
		return -1;
	}
	for (unsigned int i = 0; i < n; i++) {
		const struct sockaddr_in *to = m[i].msg_hdr.msg_name;
		const uint32_t node = ntohl(to->sin_addr.s_addr) - INADDR_LOOPBACK;
		const uint32_t port = ntohs(to->sin_port) - fake->port_base;
		const uint32_t len = (uint32_t)m[i].msg_hdr.msg_iov->iov_len;

		cr_assert_eq(m[i].msg_hdr.msg_iovlen, 1u);
		if (len > fake->path_mtu - CHP_IP_UDP_BYTES) {
			errno = EMSGSIZE;
			return i > 0 ? (int)i : -1;
		}
		if (node < NODES && port <= fake->shards)
			on_datagram(fake, node, port, m[i].msg_hdr.msg_iov->iov_base, len, fd);
	}
	return (int)n;
}

int
__wrap_recvmmsg(int fd, struct mmsghdr *m, unsigned int n, int flags, struct timespec *t)
{
	unsigned int i;

	cr_assert(flags == MSG_DONTWAIT && t == NULL);
	net.clock_ns += CALL_NS;
	for (i = 0; i < n; i++) {
		struct flying *r = next_reply(fd);
		struct msghdr *h = &m[i].msg_hdr;
		size_t len;

		if (r == NULL || r->due_ns > net.clock_ns)
			break;
		len = r->d.len < h->msg_iov->iov_len ? r->d.len : h->msg_iov->iov_len;
		memcpy(h->msg_iov->iov_base, r->d.data, len);
		memcpy(h->msg_name, &r->from, sizeof(r->from));
		h->msg_namelen = sizeof(r->from);
		h->msg_flags = len < r->d.len ? MSG_TRUNC : 0;
		m[i].msg_len = (unsigned int)len;
		r->to = -1;
	}
	if (i > 0)
		return (int)i;
	errno = EAGAIN;
	return -1;
}

int
__wrap_ppoll(struct pollfd *p, nfds_t n, const struct timespec *t, const sigset_t *mask)
{
	const struct flying *r = next_reply(p->fd);
	uint64_t until = UINT64_MAX;

	cr_assert(n == 1 && mask == NULL);
	if (t != NULL)
		until = net.clock_ns + (uint64_t)t->tv_sec * NS_PER_S + (uint64_t)t->tv_nsec;
	if (r != NULL && r->due_ns < until)
		until = r->due_ns;
	if ((p->events & POLLOUT) != 0 && fake->full_until_ns < until)
		until = fake->full_until_ns;
	cr_assert_neq(until, UINT64_MAX, "it waits for ever");
	net.clock_ns += CALL_NS;
	if (net.clock_ns < until)
		net.clock_ns = until;
	p->revents = r != NULL && r->due_ns <= net.clock_ns ? POLLIN : 0;
	if ((p->events & POLLOUT) != 0 && fake->full_until_ns <= net.clock_ns)
		p->revents |= POLLOUT;
	return p->revents != 0;
}

/* ---- starting ---- */

/* Shards a power of two, so that the control port follows the last shard's. */
static void
start(uint32_t shards, uint32_t window, enum action (*hook)(struct fake *f, struct seen *s))
{
	struct fake *f = calloc(1, sizeof(*f));

	f->shards = shards;
	f->window = window;
	f->value_max = CHP_VALUE_BYTES_MAX;
	f->seed = UINT64_C(0xfedcba9876543210); /* beyond 2^53 */
	f->hash = HASH;
	f->hook = hook;
	for (uint32_t i = 0; i < NODES; i++)
		f->epoch[i] = EPOCH;
	f->since = EPOCH;
	f->port_base = 20000;
	f->mtu = f->path_mtu = 1500;
	fake = f;
}

static void
stop(void)
{
	cr_assert_eq(fake->violations, 0u, "%u requests that no replica should see",
		     fake->violations);
	free(fake);
}

static const char *
endpoints(void)
{
	static char text[64];

	snprintf(text, sizeof(text), "127.0.0.1:%u,127.0.0.2:%u", fake->port_base + fake->shards,
		 fake->port_base + fake->shards);
	return text;
}

static struct chaapar *
client(int node, uint32_t timeout_ms, bool only_node)
{
	struct chaapar_options o = CHAAPAR_OPTIONS_INIT;
	int err = 1;
	struct chaapar *c;

	o.node = node;
	o.timeout_ms = timeout_ms;
	o.only_node = only_node;
	c = chaapar_open(endpoints(), &o, &err);
	cr_assert_not_null(c, "open: %s", chaapar_strerror(err));
	cr_assert_eq(err, 0);
	return c;
}

/* What callbacks of a test were told. */
struct told {
	uint32_t n;
	uint32_t by_status[128];
	struct chaapar_result last;
};

static void
tell(struct chaapar *c, void *arg, const struct chaapar_result *r)
{
	struct told *t = arg;

	(void)c;
	t->n++;
	t->by_status[r->status]++;
	t->last = *r;
}

static void
drain(struct chaapar *c)
{
	while (chaapar_in_flight(c) > 0)
		cr_assert_geq(chaapar_poll(c, -1), 0);
}

/* ---- open ---- */

Test(client, open_learns_the_cluster)
{
	struct chaapar *c;
	const struct chaapar_info *i;

	start(2, 64, NULL);
	c = client(1, 1000, false);
	i = chaapar_info(c);
	cr_assert_str_eq(i->name, "test");
	cr_assert_str_eq(i->protocol, "fake");
	cr_assert_eq(i->hash, HASH);
	cr_assert_eq(i->shards, 2u);
	cr_assert_eq(i->hash_seed, UINT64_C(0xfedcba9876543210));
	cr_assert_eq(i->control_port, fake->port_base + 2);
	cr_assert_eq(i->n_members, 3u);
	cr_assert_str_eq(i->member[2].address, "127.0.0.3");
	cr_assert_eq(chaapar_node(c), 1u);
	cr_assert_eq(chaapar_shard_of(c, "abc", 3),
		     chp_shard_of(chp_digest_of("abc", 3, i->hash_seed), 2));
	chaapar_close(c);
	stop();
}

Test(client, open_refuses_bad_endpoints_and_options)
{
	static const char *const bad[] = { "",
					   ",",
					   ":7170",
					   "127.0.0.1:",
					   "127.0.0.1:0",
					   "127.0.0.1:65536",
					   "127.0.0.1:7x",
					   "127.0.0.1:-1",
					   "127.0.0.1,",
					   "127.0.0.1:123456789" };
	struct chaapar_options o = CHAAPAR_OPTIONS_INIT;
	int err;

	for (size_t i = 0; i < CHP_ARRAY_LEN(bad); i++) {
		err = 0;
		cr_assert_null(chaapar_open(bad[i], NULL, &err), "\"%s\"", bad[i]);
		cr_assert_eq(err, -EINVAL, "\"%s\": %s", bad[i], chaapar_strerror(err));
	}
	cr_assert_null(chaapar_open(NULL, NULL, &err));
	cr_assert_eq(err, -EINVAL);
	o.node = CHAAPAR_NODES_MAX;
	cr_assert_null(chaapar_open("127.0.0.1", &o, &err));
	cr_assert_eq(err, -EINVAL);
	o = (struct chaapar_options)CHAAPAR_OPTIONS_INIT;
	o.in_flight_max = CHAAPAR_IN_FLIGHT_MAX + 1;
	cr_assert_null(chaapar_open("127.0.0.1", &o, &err));
	cr_assert_eq(err, -EINVAL);
	cr_assert_null(chaapar_open("no-such-host.invalid", NULL, &err));
	cr_assert_eq(err, -ENOENT);
	cr_assert_null(chaapar_open("127.0.0.1:", NULL, NULL));
}

static enum action
silent_everywhere(struct fake *f, struct seen *s)
{
	(void)f;
	(void)s;
	return DROP;
}

static enum action
node_0_is_silent(struct fake *f, struct seen *s)
{
	(void)f;
	return s->node == 0 ? DROP : ANSWER;
}

Test(client, open_times_out_and_asks_the_next_endpoint)
{
	struct chaapar_options o = CHAAPAR_OPTIONS_INIT;
	struct chaapar *c;
	int err;

	start(1, 64, silent_everywhere);
	o.timeout_ms = 100;
	cr_assert_null(chaapar_open(endpoints(), &o, &err));
	cr_assert_eq(err, -ETIMEDOUT);
	fake->hook = node_0_is_silent;
	c = client(1, 5000, false);
	cr_assert_eq(chaapar_info(c)->node, 1u);
	chaapar_close(c);
	o.node = 7;
	o.timeout_ms = 5000;
	cr_assert_null(chaapar_open(endpoints(), &o, &err));
	cr_assert_eq(err, -ENOENT);
	stop();
}

#define MEMBERS "\"members\":[{\"id\":0,\"name\":\"n\",\"address\":\"127.0.0.1\"}]"
#define FRONT   "{\"name\":\"t\",\"hash\":1,\"shards\":1,\"hash_seed\":\"1\",\"port_base\":7168,"
#define MIDDLE  "\"mtu\":1500,\"key_bytes_max\":250,\"value_bytes_max\":1024,\"session_window\":4,"

Test(client, open_believes_no_impossible_description)
{
	static const char *const bad[] = {
		"",
		"{",
		"[]",
		"null",
		"{}",
		"{\"name\":\"t\"}",
		FRONT MIDDLE "\"node\":0,\"epoch\":1}",
		FRONT MIDDLE "\"node\":0,\"epoch\":1,\"members\":[]}",
		FRONT MIDDLE
		"\"node\":0,\"epoch\":1,\"members\":[{\"id\":64,\"name\":\"n\",\"address\":\"127.0.0.1\"}]}",
		FRONT MIDDLE
		"\"node\":0,\"epoch\":1,\"members\":[{\"id\":0,\"name\":\"n\",\"address\":\"host\"}]}",
		FRONT MIDDLE
		"\"node\":0,\"epoch\":1,\"members\":[{\"id\":0,\"name\":\"n\",\"address\":\"1.2.3.4\"},"
		"{\"id\":0,\"name\":\"m\",\"address\":\"1.2.3.5\"}]}",
		FRONT MIDDLE "\"node\":0,\"epoch\":-1," MEMBERS "}",
		FRONT MIDDLE "\"node\":-1,\"epoch\":1," MEMBERS "}",
		FRONT
		"\"mtu\":100,\"key_bytes_max\":250,\"value_bytes_max\":1024,\"session_window\":4,"
		"\"node\":0,\"epoch\":1," MEMBERS "}",
		FRONT
		"\"mtu\":1500,\"key_bytes_max\":251,\"value_bytes_max\":1024,\"session_window\":4,"
		"\"node\":0,\"epoch\":1," MEMBERS "}",
		FRONT
		"\"mtu\":1500,\"key_bytes_max\":250,\"value_bytes_max\":99999,\"session_window\":4,"
		"\"node\":0,\"epoch\":1," MEMBERS "}",
		FRONT
		"\"mtu\":1500,\"key_bytes_max\":250,\"value_bytes_max\":1024,\"session_window\":0,"
		"\"node\":0,\"epoch\":1," MEMBERS "}",
		"{\"name\":\"t\",\"hash\":0,\"shards\":1,\"hash_seed\":\"1\",\"port_base\":7168," MIDDLE
		"\"node\":0,\"epoch\":1," MEMBERS "}",
		"{\"name\":\"t\",\"hash\":1,\"shards\":65,\"hash_seed\":\"1\",\"port_base\":7168," MIDDLE
		"\"node\":0,\"epoch\":1," MEMBERS "}",
		"{\"name\":\"t\",\"hash\":1,\"shards\":1,\"hash_seed\":\"-1\",\"port_base\":7168," MIDDLE
		"\"node\":0,\"epoch\":1," MEMBERS "}",
		"{\"name\":\"t\",\"hash\":1,\"shards\":1,\"hash_seed\":\"99999999999999999999\","
		"\"port_base\":7168," MIDDLE "\"node\":0,\"epoch\":1," MEMBERS "}",
		"{\"name\":\"t\",\"hash\":1,\"shards\":1,\"hash_seed\":\"1\",\"port_base\":65535," MIDDLE
		"\"node\":0,\"epoch\":1," MEMBERS "}",
	};
	struct chaapar_options o = CHAAPAR_OPTIONS_INIT;
	struct chaapar *c;
	int err;

	start(1, 64, NULL);
	o.timeout_ms = 30;
	for (size_t i = 0; i < CHP_ARRAY_LEN(bad); i++) {
		fake->info = bad[i];
		err = 0;
		cr_assert_null(chaapar_open(endpoints(), &o, &err), "%s", bad[i]);
		cr_assert_eq(err, -EPROTO, "%s: %s", bad[i], chaapar_strerror(err));
	}
	/* What they differ from is good. */
	o.timeout_ms = 5000;
	fake->info = FRONT MIDDLE "\"node\":0,\"epoch\":1," MEMBERS "}";
	c = chaapar_open(endpoints(), &o, &err);
	cr_assert_not_null(c);
	chaapar_close(c);
	stop();
}

/* ---- operations ---- */

Test(client, every_operation_gives_its_result)
{
	struct chaapar_result r;
	struct chaapar *c;
	uint64_t version;

	start(2, 64, NULL);
	c = client(1, 5000, true); /* one that answers late is not asked twice */
	cr_assert_eq(chaapar_get_sync(c, "k", 1, &r), CHAAPAR_NOT_FOUND);
	cr_assert_eq(chaapar_replace_sync(c, "k", 1, "x", 1, &r), CHAAPAR_NOT_FOUND);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "five", 4, &r), CHAAPAR_OK);
	version = r.version;
	cr_assert_neq(version, 0u);
	cr_assert_eq(chaapar_get_sync(c, "k", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.version, version);
	cr_assert_eq(r.value_len, 4u);
	cr_assert_arr_eq(r.value, "five", 4);
	cr_assert_eq(r.node, 1);
	cr_assert(r.latency_ns >= ROUND_TRIP_NS && r.latency_ns < ROUND_TRIP_NS + 20 * CALL_NS);
	cr_assert_eq(chaapar_add_sync(c, "k", 1, "x", 1, &r), CHAAPAR_EXISTS);
	cr_assert_eq(chaapar_cas_sync(c, "k", 1, version + 1, "x", 1, &r), CHAAPAR_COMPARE_FAILED);
	cr_assert_eq(r.version, version);
	cr_assert_eq(chaapar_cas_sync(c, "k", 1, version, "six", 3, NULL), CHAAPAR_OK);
	cr_assert_eq(chaapar_append_sync(c, "k", 1, ">", 1, NULL), CHAAPAR_OK);
	cr_assert_eq(chaapar_prepend_sync(c, "k", 1, "<", 1, NULL), CHAAPAR_OK);
	cr_assert_eq(chaapar_get_sync(c, "k", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.value_len, 5u);
	cr_assert_arr_eq(r.value, "<six>", 5);
	cr_assert_eq(chaapar_incr_sync(c, "k", 1, 1, NULL), CHAAPAR_NOT_NUMBER);
	cr_assert_eq(chaapar_add_sync(c, "n", 1, "40", 2, NULL), CHAAPAR_OK);
	cr_assert_eq(chaapar_incr_sync(c, "n", 1, 5, &r), CHAAPAR_OK);
	cr_assert_eq(r.number, 45u);
	cr_assert_eq(chaapar_decr_sync(c, "n", 1, 3, &r), CHAAPAR_OK);
	cr_assert_eq(r.number, 42u);
	cr_assert_eq(chaapar_delete_sync(c, "k", 1, NULL), CHAAPAR_OK);
	cr_assert_eq(chaapar_delete_sync(c, "k", 1, NULL), CHAAPAR_NOT_FOUND);
	for (uint32_t node = 0; node < NODES; node++) {
		for (uint32_t shard = 0; shard < 2; shard++) {
			cr_assert_eq(chaapar_ping_sync(c, node, shard, &r), CHAAPAR_OK);
			cr_assert_eq(r.node, (int)node);
		}
	}
	cr_assert_eq(chaapar_ping_sync(c, NODES, 0, &r), CHAAPAR_BAD_REQUEST);
	cr_assert_eq(chaapar_ping(c, 0, 2, NULL, NULL), -ENOENT);
	chaapar_close(c);
	stop();
}

Test(client, largest_key_and_value_and_what_is_beyond)
{
	uint8_t key[CHP_KEY_BYTES_MAX + 1], value[CHP_VALUE_BYTES_MAX + 1];
	struct chaapar_result r;
	struct chaapar *c;

	memset(key, 0xff, sizeof(key));
	for (size_t i = 0; i < sizeof(value); i++)
		value[i] = (uint8_t)i;
	start(2, 64, NULL);
	c = client(0, 5000, false);
	cr_assert_eq(chaapar_put_sync(c, key, 250, value, 1024, NULL), CHAAPAR_OK);
	cr_assert_eq(chaapar_get_sync(c, key, 250, &r), CHAAPAR_OK);
	cr_assert_eq(r.value_len, 1024u);
	cr_assert_arr_eq(r.value, value, 1024);
	cr_assert_eq(chaapar_append_sync(c, key, 250, "x", 1, NULL), CHAAPAR_TOO_LARGE);
	cr_assert_eq(chaapar_put_sync(c, key, 251, value, 1, NULL), CHAAPAR_BAD_KEY);
	cr_assert_eq(chaapar_put_sync(c, key, 0, value, 1, NULL), CHAAPAR_BAD_KEY);
	cr_assert_eq(chaapar_put_sync(c, key, 1, value, 1025, NULL), CHAAPAR_TOO_LARGE);
	cr_assert_eq(chaapar_get(c, key, 0, NULL, NULL), -EINVAL);
	cr_assert_eq(chaapar_put(c, key, 1, value, 1025, NULL, NULL), -EMSGSIZE);
	cr_assert_eq(chaapar_put_sync(c, key, 1, NULL, 0, NULL), CHAAPAR_OK);
	cr_assert_eq(chaapar_get_sync(c, key, 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.value_len, 0u);
	chaapar_close(c);
	stop();
}

/* ---- datagrams ---- */

Test(client, requests_of_one_shard_share_a_datagram)
{
	struct told t = { 0 };
	struct chaapar *c;
	uint32_t before, after;
	char key[16], value[300];

	memset(value, 'v', sizeof(value));
	start(1, 64, NULL);
	c = client(0, 5000, true);
	cr_assert_eq(chaapar_put_sync(c, "first", 5, "", 0, NULL),
		     CHAAPAR_OK); /* opens the session */
	before = fake->datagrams;
	for (int i = 0; i < 20; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		cr_assert_eq(chaapar_put(c, key, strlen(key), "small", 5, tell, &t), 0);
	}
	drain(c);
	after = fake->datagrams;
	cr_assert_eq(t.by_status[CHAAPAR_OK], 20u);
	/* 20 requests of 40 bytes and a header; one more datagram only if an answer was slow. */
	cr_assert_eq(fake->dgram_requests_max, 20u);
	cr_assert_geq(after, before + 1);
	for (int i = 0; i < 20; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		cr_assert_eq(chaapar_put(c, key, strlen(key), value, sizeof(value), tell, &t), 0);
		cr_assert_eq(chaapar_get(c, key, strlen(key), tell, &t), 0);
	}
	fake->dgram_requests_max = 0;
	fake->len_max = 0;
	fake->mixed = 0;
	drain(c);
	cr_assert_eq(t.by_status[CHAAPAR_OK], 60u);
	cr_assert_gt(fake->mixed, 0u);
	cr_assert_leq(fake->len_max, 1472u);
	/* 4 of 336 bytes in each but the last; the gets of 40 bytes fill what is left of them. */
	cr_assert_gt(fake->dgram_requests_max, 4u);
	cr_assert_eq(fake->executed, 41u);
	chaapar_close(c);
	stop();
}

static enum action
first_put_is_lost(struct fake *f, struct seen *s)
{
	(void)f;
	return s->opcode == CHP_OPCODE_PUT && s->nth <= 2 ? DROP : ANSWER;
}

static enum action
first_incr_reply_is_lost(struct fake *f, struct seen *s)
{
	(void)f;
	return s->opcode == CHP_OPCODE_INCR && s->nth <= 2 ? DROP_REPLY : ANSWER;
}

Test(client, what_is_lost_is_sent_again_and_applied_once)
{
	struct chaapar_counters n;
	struct chaapar_result r;
	struct chaapar *c;

	start(1, 64, first_put_is_lost);
	c = client(0, 10000, false);
	cr_assert_eq(chaapar_put_sync(c, "n", 1, "1", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.retries, 2u);
	fake->hook = first_incr_reply_is_lost;
	cr_assert_eq(chaapar_incr_sync(c, "n", 1, 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.number, 2u); /* the record's answer, not a second execution's */
	cr_assert_eq(r.retries, 2u);
	fake->hook = NULL;
	cr_assert_eq(chaapar_incr_sync(c, "n", 1, 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.number, 3u);
	chaapar_get_counters(c, &n);
	cr_assert_eq(n.retransmits, 4u);
	cr_assert_eq(n.requests, 3u);
	cr_assert_eq(n.completed, 3u);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 3u);
	cr_assert_eq(fake->replayed, 2u);
	cr_assert_eq(fake->opened, 1u);
	stop();
}

static enum action
a_third_goes_wrong(struct fake *f, struct seen *s)
{
	struct chp_random random = { .state = s->request * 31 + s->nth * 7 + s->opcode +
					      f->user[0]++ };

	switch (chp_random_below(&random, 12)) {
	case 0:
	case 1:
		return DROP;
	case 2:
		return DROP_REPLY;
	case 3:
		return TWICE;
	default:
		return ANSWER;
	}
}

Test(client, heavy_loss_and_duplicates_change_no_count)
{
	struct told t = { 0 };
	struct chaapar_result r;
	struct chaapar *c;

	start(4, 16, NULL);
	c = client(2, 30000, true);
	for (int i = 0; i < 8; i++)
		cr_assert_eq(chaapar_put_sync(c, &"abcdefgh"[i], 1, "0", 1, NULL), CHAAPAR_OK);
	fake->hook = a_third_goes_wrong;
	for (int i = 0; i < 400; i++)
		cr_assert_eq(chaapar_incr(c, &"abcdefgh"[i % 8], 1, 1, tell, &t), 0);
	drain(c);
	fake->hook = NULL;
	cr_assert_eq(t.by_status[CHAAPAR_OK], 400u);
	for (int i = 0; i < 8; i++) {
		cr_assert_eq(chaapar_get_sync(c, &"abcdefgh"[i], 1, &r), CHAAPAR_OK);
		cr_assert_eq(r.value_len, 2u);
		cr_assert_arr_eq(r.value, "50", 2);
	}
	chaapar_close(c);
	cr_assert_eq(fake->executed, 408u);
	stop();
}

static enum action
all_twice(struct fake *f, struct seen *s)
{
	(void)f;
	(void)s;
	return TWICE;
}

Test(client, duplicated_answers_are_counted_and_ignored)
{
	struct chaapar_counters n;
	struct told t = { 0 };
	struct chaapar *c;

	start(1, 64, all_twice);
	c = client(0, 5000, false);
	for (int i = 0; i < 50; i++) {
		cr_assert_eq(chaapar_put(c, "k", 1, "v", 1, tell, &t), 0);
		cr_assert_eq(chaapar_get(c, "k", 1, tell, &t), 0);
		drain(c);
	}
	cr_assert_eq(t.n, 100u);
	/* The copy of the last answer may still be on its way. */
	chaapar_get_counters(c, &n);
	cr_assert_geq(n.late, 99u);
	chaapar_close(c);
	stop();
}

static enum action
garbage_first(struct fake *f, struct seen *s)
{
	(void)f;
	return s->opcode == CHP_OPCODE_PUT || s->opcode == CHP_OPCODE_GET ? GARBAGE : ANSWER;
}

Test(client, malformed_and_forged_answers_are_not_believed)
{
	struct chaapar_counters n;
	struct chaapar_result r;
	struct chaapar *c;

	start(1, 64, garbage_first);
	c = client(0, 5000, true);
	for (int i = 0; i < 20; i++) {
		cr_assert_eq(chaapar_put_sync(c, "k", 1, "right", 5, &r), CHAAPAR_OK);
		cr_assert_neq(r.version, 88u);
		cr_assert_eq(chaapar_get_sync(c, "k", 1, &r), CHAAPAR_OK);
		cr_assert_eq(r.value_len, 5u);
		cr_assert_arr_eq(r.value, "right", 5);
	}
	chaapar_get_counters(c, &n);
	cr_assert_gt(n.malformed, 1000u);
	cr_assert_gt(n.late, 100u);
	chaapar_close(c);
	stop();
}

/* ---- refusals ---- */

static enum action
busy_twice(struct fake *f, struct seen *s)
{
	if (s->opcode != CHP_OPCODE_PUT || f->user[0] == 2)
		return ANSWER;
	f->user[0]++;
	f->user[1] |= UINT64_C(1) << s->request;
	s->status = CHP_STATUS_BUSY;
	return REFUSE;
}

static enum action
refuse_put(struct fake *f, struct seen *s)
{
	if (s->opcode != CHP_OPCODE_PUT)
		return ANSWER;
	f->user[0]++;
	s->status = (uint32_t)f->user[3];
	return REFUSE;
}

Test(client, busy_is_tried_again_with_a_new_number)
{
	struct chaapar_result r;
	struct chaapar *c;

	start(1, 64, busy_twice);
	c = client(0, 5000, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_OK);
	cr_assert_eq(fake->user[1], 0x6u); /* numbers 1 and 2 were refused, so 3 was applied */
	cr_assert_eq(r.cause, CHAAPAR_BUSY);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 1u);
	stop();
}

Test(client, busy_until_the_time_out_is_reported_as_busy)
{
	struct chaapar_result r;
	struct chaapar *c;

	start(1, 4, refuse_put);
	fake->user[3] = CHP_STATUS_BUSY;
	c = client(0, 150, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_BUSY);
	cr_assert_not(chaapar_outcome_unknown(r.status));
	cr_assert_geq(r.retries, 2u); /* burnt numbers do not fill the window */
	chaapar_close(c);
	cr_assert_eq(fake->executed, 0u);
	stop();
}

static enum action
overload_three_times(struct fake *f, struct seen *s)
{
	(void)f;
	if ((s->opcode != CHP_OPCODE_PUT && s->opcode != CHP_OPCODE_GET) || s->nth > 3)
		return ANSWER;
	s->status = CHP_STATUS_OVERLOAD;
	return REFUSE;
}

Test(client, overload_is_tried_again_with_the_same_number)
{
	struct chaapar_counters n;
	struct chaapar_result r;
	struct chaapar *c;

	start(1, 64,
	      overload_three_times); /* counts sends of one number: another one would never pass */
	c = client(0, 5000, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.retries, 3u);
	cr_assert_eq(chaapar_get_sync(c, "k", 1, &r), CHAAPAR_OK);
	chaapar_get_counters(c, &n);
	cr_assert_eq(n.overload, 6u);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 1u);
	stop();
}

Test(client, final_refusals_are_reported_at_once)
{
	static const enum chaapar_status final[] = { CHAAPAR_FULL, CHAAPAR_UNKNOWN,
						     CHAAPAR_BAD_REQUEST, CHAAPAR_UNKNOWN_OP,
						     CHAAPAR_TOO_LARGE };
	struct chaapar_result r;
	struct chaapar *c;

	start(1, 64, refuse_put);
	c = client(0, 10000, false);
	for (size_t i = 0; i < CHP_ARRAY_LEN(final); i++) {
		fake->user[3] = final[i];
		cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), final[i]);
	}
	/* A status of the future says nothing that we could rely on. */
	fake->user[3] = 200;
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_UNKNOWN);
	cr_assert(chaapar_outcome_unknown(CHAAPAR_UNKNOWN));
	chaapar_close(c);
	stop();
}

/* Everything but opening at node 0 is sent to node 2. */
static enum action
redirect_to_2(struct fake *f, struct seen *s)
{
	if (s->node == 2 || s->opcode == CHP_OPCODE_SESSION_OPEN || s->opcode == CHP_OPCODE_INFO)
		return ANSWER;
	f->user[0]++;
	s->status = CHP_STATUS_REDIRECT;
	s->number = 2;
	return REFUSE;
}

static enum action
redirect_in_circles(struct fake *f, struct seen *s)
{
	if (s->opcode != CHP_OPCODE_PUT)
		return ANSWER;
	f->user[0]++;
	s->status = CHP_STATUS_REDIRECT;
	s->number = f->user[3] != 0 ? f->user[3] : (s->node + 1) % NODES;
	return REFUSE;
}

Test(client, redirects_are_followed_and_bounded)
{
	struct chaapar_counters n;
	struct chaapar_result r;
	struct chaapar *c;

	start(1, 64, redirect_to_2);
	c = client(0, 5000, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.node, 2);
	cr_assert_eq(chaapar_get_sync(c, "k", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.node, 2);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "w", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.retries, 0u); /* the session's home moved */
	chaapar_close(c);
	fake->hook = redirect_in_circles;
	fake->user[0] = 0;
	c = client(0, 200, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "x", 1, &r), CHAAPAR_TIMEOUT);
	cr_assert_eq(r.cause, CHAAPAR_REDIRECT);
	/* Back-off after each four hops: 200 ms hold some dozens, a storm would be thousands. */
	cr_assert_lt(fake->user[0], 300u);
	chaapar_get_counters(c, &n);
	cr_assert_gt(n.redirects, 4u);
	chaapar_close(c);
	fake->user[3] = 99; /* no such member: ask for INFO, go on */
	c = client(0, 200, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "x", 1, &r), CHAAPAR_TIMEOUT);
	chaapar_get_counters(c, &n);
	cr_assert_geq(n.info_fetched, 2u);
	chaapar_close(c);
	stop();
}

static enum action
node_0_does_not_serve(struct fake *f, struct seen *s)
{
	(void)f;
	if (s->node != 0 || s->opcode == CHP_OPCODE_INFO)
		return ANSWER;
	s->status = CHP_STATUS_NOT_SERVING;
	return REFUSE;
}

Test(client, not_serving_sends_reads_and_new_sessions_elsewhere)
{
	struct chaapar_result r;
	struct chaapar *c;

	start(1, 64, node_0_does_not_serve);
	c = client(0, 5000, false);
	cr_assert_eq(chaapar_get_sync(c, "k", 1, &r), CHAAPAR_NOT_FOUND);
	cr_assert_eq(r.node, 1);
	cr_assert_eq(r.cause, CHAAPAR_NOT_SERVING);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.node, 1);
	chaapar_close(c);
	/* A handle that may not leave the node says why it failed; its write was never sent. */
	c = client(0, 100, true);
	cr_assert_eq(chaapar_get_sync(c, "k", 1, &r), CHAAPAR_TIMEOUT);
	cr_assert_eq(r.cause, CHAAPAR_NOT_SERVING);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "w", 1, &r), CHAAPAR_UNSENT);
	cr_assert_eq(r.cause, CHAAPAR_NOT_SERVING);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 1u);
	stop();
}

/* ---- sessions ---- */

Test(client, an_expired_session_is_replaced_for_what_was_never_executed)
{
	struct chaapar_counters n;
	struct told t = { 0 };
	struct chaapar *c;

	start(1, 8, NULL);
	c = client(1, 5000, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, NULL), CHAAPAR_OK);
	fake->alive = 0;
	for (int i = 0; i < 30; i++)
		cr_assert_eq(chaapar_put(c, "k", 1, "w", 1, tell, &t), 0);
	drain(c);
	cr_assert_eq(t.by_status[CHAAPAR_OK], 30u);
	cr_assert_eq(t.last.node, 1);
	chaapar_get_counters(c, &n);
	cr_assert_eq(n.sessions_opened, 2u);
	cr_assert_eq(n.sessions_lost, 1u);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 31u);
	stop();
}

/* The put's first answer is lost, and its session is gone when it comes again. */
static enum action
session_dies_after_execution(struct fake *f, struct seen *s)
{
	if (s->opcode != CHP_OPCODE_PUT || s->session != 1)
		return ANSWER;
	if (s->nth > 1) {
		f->alive &= ~(UINT64_C(1) << s->session);
		return ANSWER;
	}
	return DROP_REPLY;
}

Test(client, a_write_that_may_have_been_executed_has_an_unknown_outcome)
{
	struct chaapar_result r;
	struct chaapar *c;

	start(1, 64, session_dies_after_execution);
	c = client(0, 5000, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_UNKNOWN);
	cr_assert_eq(r.cause, CHAAPAR_SESSION_UNKNOWN);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "w", 1, &r), CHAAPAR_OK);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 2u);
	stop();
}

static enum action
no_sessions(struct fake *f, struct seen *s)
{
	if (s->opcode != CHP_OPCODE_SESSION_OPEN)
		return ANSWER;
	s->status = (uint32_t)f->user[3];
	return REFUSE;
}

Test(client, a_session_that_cannot_be_opened)
{
	static const uint32_t status[][2] = { { CHP_STATUS_SESSIONS_FULL, CHAAPAR_SESSIONS_FULL },
					      { CHP_STATUS_BUSY, CHAAPAR_BUSY },
					      { CHP_STATUS_SESSION_UNKNOWN, CHAAPAR_UNSENT },
					      { CHP_STATUS_WRONG_SHARD, CHAAPAR_WRONG_SHARD },
					      { CHP_STATUS_OVERLOAD, CHAAPAR_UNSENT } };
	struct chaapar_result r;
	struct chaapar *c;

	start(1, 64, no_sessions);
	c = client(0, 150, false);
	for (size_t i = 0; i < CHP_ARRAY_LEN(status); i++) {
		fake->user[3] = status[i][0];
		cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), status[i][1], "%u: %s",
			     status[i][0], chaapar_status_name(r.status));
		cr_assert_not(chaapar_outcome_unknown(r.status));
	}
	fake->hook = NULL;
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_OK);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 1u);
	stop();
}

/* Number 1 is lost several times: nothing beyond the window may pass it. */
static enum action
number_1_is_slow(struct fake *f, struct seen *s)
{
	if (s->session == 0 || s->opcode != CHP_OPCODE_PUT)
		return ANSWER;
	if (s->request == 1 && s->nth <= 4)
		return DROP;
	if (s->request == 1)
		f->user[0] = 1;
	if (s->request > f->user[1] && f->user[0] == 0)
		f->user[1] = s->request;
	return ANSWER;
}

Test(client, never_more_numbers_in_flight_than_the_window)
{
	struct told t = { 0 };
	struct chaapar *c;

	start(1, 4, number_1_is_slow);
	c = client(0, 10000, false);
	for (int i = 0; i < 100; i++)
		cr_assert_eq(chaapar_put(c, "k", 1, "v", 1, tell, &t), 0);
	drain(c);
	cr_assert_eq(t.by_status[CHAAPAR_OK], 100u);
	chaapar_close(c);
	cr_assert_eq(fake->user[1], 4u); /* 2, 3 and 4 went ahead of 1, 5 did not */
	cr_assert_eq(fake->executed, 100u);
	stop();
}

/* ---- time-outs ---- */

static enum action
puts_are_lost(struct fake *f, struct seen *s)
{
	if (s->opcode == CHP_OPCODE_PUT)
		f->user[0]++;
	if (s->opcode == CHP_OPCODE_DELETE)
		f->user[1] = s->lowest;
	return s->opcode == CHP_OPCODE_PUT ? DROP : ANSWER;
}

Test(client, a_time_out_is_an_unknown_outcome_and_lowest_passes_it)
{
	struct chaapar_counters n;
	struct chaapar_result r;
	struct chaapar *c;

	start(1, 4, puts_are_lost);
	c = client(0, 60, true);
	for (int i = 0; i < 6; i++) { /* more than the window holds */
		cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_TIMEOUT);
		cr_assert(chaapar_outcome_unknown(r.status));
		cr_assert_eq(r.node, CHAAPAR_ANY_NODE);
	}
	cr_assert_gt(fake->user[0], 6u); /* sent more than once each */
	chaapar_close(c);
	c = client(0, 60, true);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, NULL), CHAAPAR_TIMEOUT);
	fake->hook = puts_are_lost;
	for (int tries = 0; tries < 100; tries++) {
		if (chaapar_delete_sync(c, "k", 1, &r) == CHAAPAR_NOT_FOUND)
			break;
	}
	cr_assert_eq(r.status, CHAAPAR_NOT_FOUND);
	cr_assert_geq(fake->user[1], 2u);
	chaapar_get_counters(c, &n);
	cr_assert_eq(n.timeouts, 1u);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 0u);
	stop();
}

/* ---- views ---- */

/* A view without a node, or with one, in which node `home` is the home of all sessions. */
static void
next_view(struct fake *f, uint32_t home)
{
	if (home != f->home)
		f->since = f->epoch[home] + 1;
	f->home = home;
	for (uint32_t i = 0; i < NODES; i++) {
		if ((f->dead >> i & 1) == 0)
			f->epoch[i]++;
	}
}

static void
start_homed(enum action (*hook)(struct fake *f, struct seen *s))
{
	start(1, 64, hook);
	fake->homed = true;
}

Test(client, a_session_survives_its_home_and_pays_once)
{
	struct chaapar_counters n;
	struct chaapar_result r;
	struct chaapar *c;

	start_homed(NULL);
	c = client(0, 10000, false);
	cr_assert_eq(chaapar_put_sync(c, "n", 1, "0", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.node, 0);
	for (uint32_t home = 1; home < NODES; home++) { /* twice: the epoch's lower half wraps */
		fake->dead = 1u << (home - 1);
		next_view(fake, home);
		for (uint64_t i = 1; i <= 100; i++) {
			cr_assert_eq(chaapar_incr_sync(c, "n", 1, 1, &r), CHAAPAR_OK);
			cr_assert_eq(r.number, 100 * (home - 1) + i);
			cr_assert_eq(r.node, (int)home);
		}
		/* One time-out, not a hundred; a slow machine may add a few. */
		cr_assert_eq(fake->lost_writes, 1u);
		cr_assert_eq(fake->stayed, 1u);
		fake->lost_writes = fake->stayed = 0;
	}
	chaapar_get_counters(c, &n);
	cr_assert_eq(n.failovers, 2u);
	cr_assert_eq(n.sessions_opened, 1u);
	cr_assert_eq(n.sessions_lost, 0u);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 201u);
	cr_assert_eq(fake->opened, 1u);
	stop();
}

/* The home falls silent after the third put of a batch; its successor is home at once. */
static enum action
home_dies_in_a_batch(struct fake *f, struct seen *s)
{
	if (s->opcode != CHP_OPCODE_INCR || s->node != 0)
		return ANSWER;
	if (++f->user[0] < 4)
		return ANSWER;
	if (f->user[0] == 8) { /* some were executed, and nobody was told */
		f->dead = 1;
		next_view(f, 1);
	}
	return DROP_REPLY;
}

Test(client, a_batch_at_a_dying_home_is_applied_once)
{
	struct told t = { 0 };
	struct chaapar_result r;
	struct chaapar *c;

	start_homed(NULL);
	c = client(0, 10000, false);
	cr_assert_eq(chaapar_put_sync(c, "n", 1, "0", 1, &r), CHAAPAR_OK);
	fake->hook = home_dies_in_a_batch;
	for (int i = 0; i < 100; i++)
		cr_assert_eq(chaapar_incr(c, "n", 1, 1, tell, &t), 0);
	drain(c);
	cr_assert_eq(t.by_status[CHAAPAR_OK], 100u);
	cr_assert_eq(t.last.node, 1);
	cr_assert_eq(chaapar_get_sync(c, "n", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.value_len, 3u);
	cr_assert_arr_eq(r.value, "100", 3);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 101u);
	stop();
}

/*
 * The old home refuses the cas at its last moment, in the old view, and that answer is slow: it comes
 * after the client has heard of the new view, just before the new home's answer.
 */
static enum action
late_refusal(struct fake *f, struct seen *s)
{
	if (s->opcode != CHP_OPCODE_CAS)
		return ANSWER;
	if (s->node != 0) {
		f->late_waits = (int32_t)(s->epoch - (uint32_t)f->since) < 0;
		return ANSWER;
	}
	f->dead = 1; /* so that its epoch, which its answer names, stays the old one */
	f->late_waits = true;
	next_view(f, 1);
	s->status = CHP_STATUS_COMPARE_FAILED;
	return REFUSE_LATE;
}

Test(client, an_answer_of_a_view_that_is_over_is_not_believed)
{
	struct chaapar_counters n;
	struct chaapar_result r;
	struct chaapar *c;

	start_homed(NULL);
	c = client(0, 10000, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_OK);
	fake->hook = late_refusal;
	cr_assert_eq(chaapar_cas_sync(c, "k", 1, r.version, "w", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.node, 1);
	chaapar_get_counters(c, &n);
	cr_assert_eq(n.stale, 1u);
	cr_assert_eq(n.redirects, 1u);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 2u);
	stop();
}

Test(client, a_home_in_a_newer_view_gets_the_request_again_at_once)
{
	struct chaapar_counters n;
	struct chaapar_result r;
	struct chaapar *c;

	start_homed(NULL);
	c = client(0, 10000, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_OK);
	/* It left and came back, as it were: the same node, home since a view that we do not know. */
	fake->since = fake->epoch[0] + 1;
	next_view(fake, 0);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "w", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.node, 0);
	cr_assert_eq(r.cause, CHAAPAR_REDIRECT);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "x", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.cause, CHAAPAR_OK);
	chaapar_get_counters(c, &n);
	cr_assert_eq(n.redirects, 1u);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 3u);
	stop();
}

static enum action
new_home_waits_for_replays(struct fake *f, struct seen *s)
{
	if (s->node != f->home || s->opcode != CHP_OPCODE_PUT || f->user[0] == 5 ||
	    (int32_t)(s->epoch - (uint32_t)f->since) < 0)
		return ANSWER;
	f->user[0]++;
	s->status = CHP_STATUS_OVERLOAD;
	return REFUSE;
}

Test(client, a_new_home_that_is_not_ready_is_waited_for)
{
	struct chaapar_counters n;
	struct chaapar_result r;
	struct chaapar *c;

	start_homed(NULL);
	c = client(0, 10000, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_OK);
	fake->hook = new_home_waits_for_replays;
	fake->dead = 1;
	next_view(fake, 2);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "w", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.node, 2);
	chaapar_get_counters(c, &n);
	cr_assert_eq(n.overload, 5u);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 2u);
	stop();
}

Test(client, a_home_that_does_not_serve_is_left_with_the_same_number)
{
	struct chaapar_result r;
	struct chaapar *c;

	start_homed(NULL);
	c = client(0, 10000, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_OK);
	fake->refusing = 1;
	next_view(fake, 1);
	for (int i = 0; i < 50; i++) {
		cr_assert_eq(chaapar_put_sync(c, "k", 1, "w", 1, &r), CHAAPAR_OK);
		cr_assert_eq(r.node, 1);
	}
	cr_assert_eq(fake->stayed, 1u);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 51u);
	cr_assert_eq(fake->opened, 1u);
	stop();
}

/* Executed, the answer is lost, and then nobody serves any more. */
static enum action
all_stop_after_execution(struct fake *f, struct seen *s)
{
	if (s->opcode != CHP_OPCODE_PUT)
		return ANSWER;
	if (f->user[0]++ == 0)
		return DROP_REPLY;
	f->refusing = 7;
	return ANSWER;
}

Test(client, not_serving_says_nothing_of_earlier_sendings)
{
	struct chaapar_result r;
	struct chaapar *c;

	start_homed(all_stop_after_execution);
	c = client(0, 300, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_TIMEOUT);
	cr_assert(chaapar_outcome_unknown(r.status));
	cr_assert_eq(r.cause, CHAAPAR_NOT_SERVING);
	/* Nor where it was refused by all, each time: the copies may still be on their way. */
	fake->stayed = 0;
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_TIMEOUT);
	cr_assert_eq(r.cause, CHAAPAR_NOT_SERVING);
	cr_assert_gt(fake->stayed, NODES, "all are asked, more than once");
	cr_assert_lt(fake->stayed, 100u, "but it is no storm");
	fake->refusing = 0;
	fake->hook = NULL;
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_OK);
	chaapar_close(c);
	cr_assert_eq(fake->opened, 1u);
	stop();
}

/* All but node 2 are dead and it says so: node 0 is home until the view changes. */
static enum action
view_changes_late(struct fake *f, struct seen *s)
{
	if (s->opcode == CHP_OPCODE_PUT && s->node == 2 && ++f->user[0] == f->user[1])
		next_view(f, 2);
	return ANSWER;
}

Test(client, a_dead_home_is_waited_for_until_the_view_changes)
{
	struct chaapar_counters n;
	struct told t = { 0 };
	struct chaapar_result r;
	struct chaapar *c;

	start_homed(view_changes_late);
	c = client(0, 20000, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_OK);
	fake->dead = 3;
	fake->user[1] = 100;
	for (int i = 0; i < 20; i++)
		cr_assert_eq(chaapar_put(c, "k", 1, "w", 1, tell, &t), 0);
	drain(c);
	cr_assert_eq(t.by_status[CHAAPAR_OK], 20u);
	cr_assert_eq(t.last.node, 2);
	chaapar_get_counters(c, &n);
	cr_assert_eq(n.redirects, 100u);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 21u);
	stop();
}

static enum action
a_third_goes_wrong_and_homes_move(struct fake *f, struct seen *s)
{
	if (s->opcode == CHP_OPCODE_INCR && f->user[1]++ % 100 == 99)
		next_view(f, (f->home + 1) % NODES);
	return a_third_goes_wrong(f, s);
}

Test(client, heavy_loss_and_moving_homes_change_no_count)
{
	struct told t = { 0 };
	struct chaapar_result r;
	struct chaapar *c;

	start_homed(NULL);
	c = client(1, 30000, false);
	cr_assert_eq(chaapar_put_sync(c, "a", 1, "0", 1, NULL), CHAAPAR_OK);
	fake->hook = a_third_goes_wrong_and_homes_move;
	for (int i = 0; i < 800; i++) {
		while (chaapar_incr(c, "a", 1, 1, tell, &t) == -EAGAIN)
			cr_assert_geq(chaapar_poll(c, -1), 0);
	}
	drain(c);
	fake->hook = NULL;
	cr_assert_eq(t.by_status[CHAAPAR_OK], 800u);
	cr_assert_eq(chaapar_get_sync(c, "a", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.value_len, 3u);
	cr_assert_arr_eq(r.value, "800", 3);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 801u);
	stop();
}

static enum action
slow_open(struct fake *f, struct seen *s)
{
	if (s->opcode == CHP_OPCODE_SESSION_OPEN && s->node == 0)
		f->user[0] = s->arg;
	if (s->opcode == CHP_OPCODE_SESSION_OPEN && s->node == 1)
		f->user[1] = s->arg;
	return s->opcode == CHP_OPCODE_SESSION_OPEN && s->node == 0 ? DROP : ANSWER;
}

Test(client, a_session_is_opened_at_the_next_member_if_one_is_silent)
{
	struct chaapar_result r;
	struct chaapar *c;

	start(1, 64, slow_open);
	c = client(0, 10000, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.node, 1);
	cr_assert_eq(fake->user[0], fake->user[1]); /* the nonce that tells opens apart */
	chaapar_close(c);
	cr_assert_eq(fake->opened, 1u);
	stop();
}

Test(client, reads_leave_a_silent_member_and_come_back)
{
	struct chaapar_result r = { .node = CHAAPAR_ANY_NODE };
	uint64_t end = now_ms() + 20000;
	struct chaapar *c;

	start_homed(NULL);
	c = client(0, 10000, false);
	cr_assert_eq(chaapar_get_sync(c, "k", 1, &r), CHAAPAR_NOT_FOUND);
	cr_assert_eq(r.node, 0);
	fake->dead = 1;
	for (int i = 0; i < 200 || fake->lost_pings == 0; i++) {
		cr_assert_eq(chaapar_get_sync(c, "k", 1, &r), CHAAPAR_NOT_FOUND);
		cr_assert_neq(r.node, 0);
		cr_assert_lt(now_ms(), end, "it is never asked whether it is back");
	}
	/* One read found out; whether it is back, the library asks without any request waiting. */
	cr_assert_eq(fake->lost_gets, 1u);
	fake->dead = 0;
	while (r.node != 0) {
		cr_assert_eq(chaapar_get_sync(c, "k", 1, &r), CHAAPAR_NOT_FOUND);
		cr_assert_lt(now_ms(), end, "reads do not come back");
	}
	chaapar_close(c);
	stop();
}

Test(client, reads_try_a_member_again_that_did_not_serve)
{
	struct chaapar_result r = { .node = CHAAPAR_ANY_NODE };
	uint64_t end = now_ms() + 20000;
	struct chaapar *c;

	start_homed(NULL);
	c = client(0, 10000, false);
	fake->refusing = 1;
	for (int i = 0; i < 200; i++) {
		cr_assert_eq(chaapar_get_sync(c, "k", 1, &r), CHAAPAR_NOT_FOUND);
		cr_assert_neq(r.node, 0);
	}
	cr_assert_eq(fake->stayed, 1u);
	fake->refusing = 0;
	while (r.node != 0) {
		cr_assert_eq(chaapar_get_sync(c, "k", 1, &r), CHAAPAR_NOT_FOUND);
		cr_assert_lt(now_ms(), end, "reads do not come back");
	}
	chaapar_close(c);
	stop();
}

Test(client, a_cluster_founded_anew_is_served_after_one_time_out)
{
	struct chaapar_result r;
	struct chaapar *c;
	enum chaapar_status status = CHAAPAR_TIMEOUT;

	start_homed(NULL);
	c = client(0, 200, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_OK);
	/* Epochs begin again, below what the session has seen. */
	fake->alive = 0;
	for (uint32_t i = 0; i < NODES; i++)
		fake->epoch[i] = 1;
	fake->since = 0;
	for (int tries = 0; tries < 20 && status != CHAAPAR_OK; tries++)
		status = chaapar_put_sync(c, "k", 1, "w", 1, &r);
	cr_assert_eq(status, CHAAPAR_OK);
	chaapar_close(c);
	stop();
}

Test(client, a_handle_that_must_stay_follows_its_session_and_returns)
{
	struct chaapar_result r;
	struct chaapar *c;

	start_homed(NULL);
	c = client(0, 10000, true);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_OK);
	next_view(fake, 2);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "w", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.node, 2);
	cr_assert_eq(chaapar_get_sync(c, "k", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.node, 0);
	fake->dead = 1u << 2;
	next_view(fake, 0);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "x", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.node, 0);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 3u);
	stop();
}

/* ---- leaders ---- */

static void
start_led(uint32_t shards, enum action (*hook)(struct fake *f, struct seen *s))
{
	start(shards, 64, hook);
	fake->led = true;
	for (uint32_t i = 0; i < shards; i++)
		fake->leader[i] = i % NODES;
}

/* A key of a shard. */
static const char *
key_in(struct chaapar *c, uint32_t shard)
{
	static char key[16];

	for (uint32_t i = 0;; i++) {
		int len = snprintf(key, sizeof(key), "k%u", i);

		if (chaapar_shard_of(c, key, (size_t)len) == shard)
			return key;
	}
}

Test(client, batches_go_to_the_leader_of_their_shard)
{
	struct chaapar_counters n;
	struct told t = { 0 };
	struct chaapar *c;
	char key[16];

	start_led(4, NULL);
	c = client(0, 10000, false);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 200; i++) {
			int len = snprintf(key, sizeof(key), "k%d", i);

			cr_assert_eq(chaapar_put(c, key, (size_t)len, "v", 1, tell, &t), 0);
		}
		drain(c);
	}
	cr_assert_eq(t.by_status[CHAAPAR_OK], 600u);
	chaapar_get_counters(c, &n);
	/* Who leads shards 1 and 2, the opening of their sessions found out; no write had to. */
	cr_assert_eq(n.redirects, 2u);
	cr_assert_eq(fake->strayed, 0u);
	cr_assert_gt(fake->dgram_requests_max, 8u);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 600u);
	stop();
}

Test(client, a_new_leader_costs_one_round_trip_once)
{
	struct chaapar_result r;
	struct chaapar *c;

	start_led(2, NULL);
	c = client(0, 10000, false);
	for (uint32_t shard = 0; shard < 2; shard++)
		cr_assert_eq(chaapar_put_sync(c, key_in(c, shard), 2, "v", 1, &r), CHAAPAR_OK);
	fake->leader[0] = 2;
	cr_assert_eq(chaapar_put_sync(c, key_in(c, 0), 2, "v", 1, &r), CHAAPAR_OK);
	cr_assert_eq(r.node, 2);
	cr_assert_eq(r.cause, CHAAPAR_REDIRECT);
	for (int i = 0; i < 50; i++) {
		uint32_t shard = (uint32_t)i % 2;

		cr_assert_eq(chaapar_put_sync(c, key_in(c, shard), 2, "v", 1, &r), CHAAPAR_OK);
		cr_assert_eq(r.node, shard == 0 ? 2 : 1);
		cr_assert_neq(r.cause, CHAAPAR_REDIRECT);
	}
	/* Reads stay where the handle wants them. */
	cr_assert_eq(chaapar_get_sync(c, key_in(c, 0), 2, &r), CHAAPAR_OK);
	cr_assert_eq(r.node, 0);
	chaapar_close(c);
	stop();
}

/* An election takes 300 ms. One request of each kind asks every few milliseconds; the others wait for it. */
Test(client, the_end_of_an_election_is_noticed_at_once)
{
	struct told writes = { 0 }, reads = { 0 };
	struct chaapar_result r;
	struct chaapar *c;

	start_led(1, NULL);
	c = client(0, 20000, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_OK);
	fake->leader[0] = NODES;
	fake->elected_ms = now_ms() + 300;
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_OK);
	/* At intervals that double up to 64 ms it would ask less than 12 times. */
	cr_assert_gt(fake->asked, 20u);
	cr_assert_lt(fake->asked, 100u);
	fake->asked = 0;
	fake->dead = 1;
	fake->leader[0] = NODES;
	fake->elected_ms = now_ms() + 300;
	for (int i = 0; i < 30; i++) {
		cr_assert_eq(chaapar_put(c, "k", 1, "w", 1, tell, &writes), 0);
		cr_assert_eq(chaapar_get(c, "k", 1, tell, &reads), 0);
	}
	drain(c);
	cr_assert_eq(writes.by_status[CHAAPAR_OK], 30u);
	cr_assert_eq(writes.last.node, 1);
	cr_assert_eq(reads.by_status[CHAAPAR_OK], 30u);
	/* All 60 calls doing so would ask 2,000 times. */
	cr_assert_lt(fake->asked, 900u);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 32u);
	stop();
}

/* Its followers name a dead leader until they notice: here the 30th time. */
static enum action
followers_notice_late(struct fake *f, struct seen *s)
{
	if (s->opcode == CHP_OPCODE_PUT && s->node != 0 && f->leader[0] == 0 && ++f->user[0] == 30)
		f->leader[0] = 2;
	return ANSWER;
}

Test(client, a_dead_leader_that_others_still_name)
{
	struct told t = { 0 };
	struct chaapar_result r;
	struct chaapar *c;

	start_led(1, NULL);
	c = client(0, 20000, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_OK);
	fake->hook = followers_notice_late;
	fake->dead = 1;
	for (int i = 0; i < 20; i++)
		cr_assert_eq(chaapar_put(c, "k", 1, "w", 1, tell, &t), 0);
	drain(c);
	cr_assert_eq(t.by_status[CHAAPAR_OK], 20u);
	cr_assert_eq(t.last.node, 2);
	for (int i = 0; i < 20; i++) {
		cr_assert_eq(chaapar_put_sync(c, "k", 1, "w", 1, &r), CHAAPAR_OK);
		cr_assert_eq(r.node, 2);
	}
	chaapar_close(c);
	cr_assert_eq(fake->executed, 41u);
	stop();
}

Test(client, relaxed_reads_need_no_leader_and_are_marked)
{
	struct chaapar_result r;
	struct chaapar *c;

	start_led(1, NULL);
	c = client(2, 200, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_OK);
	cr_assert_not(r.relaxed);
	cr_assert_eq(chaapar_get_sync(c, "k", 1, &r), CHAAPAR_OK);
	cr_assert_not(r.relaxed);
	fake->leader[0] = NODES;
	cr_assert_eq(chaapar_get_sync(c, "k", 1, &r), CHAAPAR_TIMEOUT);
	cr_assert_eq(r.cause, CHAAPAR_NOT_SERVING);
	cr_assert_eq(chaapar_get_relaxed_sync(c, "k", 1, &r), CHAAPAR_OK);
	cr_assert(r.relaxed);
	cr_assert_eq(r.value_len, 1u);
	chaapar_close(c);
	stop();
}

Test(client, quorum_rules_are_set_and_asked_at_the_leader)
{
	struct told t = { 0 };
	struct chaapar_result r;
	struct chaapar *c;

	start_led(2, NULL);
	c = client(2, 5000, false);
	cr_assert_eq(chaapar_quorum_sync(c, 1, CHAAPAR_QUORUM_ASK, &r), CHAAPAR_OK);
	cr_assert_eq(r.number, (uint64_t)CHAAPAR_QUORUM_MAJORITY);
	cr_assert_eq(r.node, 1);
	/* Among writes of the shard's session, whose leader it goes to as well. */
	cr_assert_eq(chaapar_put_sync(c, key_in(c, 1), 2, "v", 1, &r), CHAAPAR_OK);
	for (int i = 0; i < 20; i++) {
		cr_assert_eq(chaapar_put(c, key_in(c, 1), 2, "w", 1, tell, &t), 0);
		if (i == 10)
			cr_assert_eq(chaapar_quorum(c, 1, CHAAPAR_QUORUM_ALL, tell, &t), 0);
	}
	drain(c);
	cr_assert_eq(t.by_status[CHAAPAR_OK], 21u);
	cr_assert_eq(chaapar_quorum_sync(c, 1, CHAAPAR_QUORUM_ASK, &r), CHAAPAR_OK);
	cr_assert_eq(r.number, (uint64_t)CHAAPAR_QUORUM_ALL);
	cr_assert_eq(chaapar_quorum_sync(c, 0, CHAAPAR_QUORUM_ASK, &r), CHAAPAR_OK);
	cr_assert_eq(r.number, (uint64_t)CHAAPAR_QUORUM_MAJORITY);
	cr_assert_eq(chaapar_quorum(c, 2, CHAAPAR_QUORUM_ALL, tell, &t), -ENOENT);
	cr_assert_eq(chaapar_quorum(c, 0, (enum chaapar_quorum)3, tell, &t), -EINVAL);
	cr_assert_eq(chaapar_quorum_sync(c, 2, CHAAPAR_QUORUM_ALL, &r), CHAAPAR_BAD_REQUEST);
	fake->led = false;
	cr_assert_eq(chaapar_quorum_sync(c, 0, CHAAPAR_QUORUM_ALL, &r), CHAAPAR_UNKNOWN_OP);
	chaapar_close(c);
	stop();
}

/* ---- the cluster's shape changes ---- */

static enum action
check_shard(struct fake *f, struct seen *s)
{
	uint32_t shard;

	if (s->key_len == 0)
		return ANSWER;
	shard = chp_shard_of(chp_digest_of(s->key, s->key_len, f->seed), f->shards);
	if (shard == s->shard && f->user[3] == 0)
		return ANSWER;
	s->status = CHP_STATUS_WRONG_SHARD;
	s->number = (uint64_t)f->shards << 32 | shard;
	return REFUSE;
}

Test(client, a_wrong_shard_makes_the_client_learn_the_cluster_again)
{
	struct told t = { 0 };
	struct chaapar_result r;
	struct chaapar *c;
	char key[16];

	start(4, 64, check_shard);
	c = client(0, 5000, false);
	for (int i = 0; i < 20; i++) {
		snprintf(key, sizeof(key), "%d", i);
		cr_assert_eq(chaapar_put_sync(c, key, strlen(key), "v", 1, NULL), CHAAPAR_OK);
	}
	fake->seed = 99;
	for (int i = 0; i < 20; i++) {
		snprintf(key, sizeof(key), "%d", i);
		cr_assert_eq(chaapar_get(c, key, strlen(key), tell, &t), 0);
		cr_assert_eq(chaapar_put(c, key, strlen(key), "w", 1, tell, &t), 0);
	}
	drain(c);
	/* Writes that travelled when the new picture came have an unknown outcome. */
	cr_assert_eq(t.by_status[CHAAPAR_OK] + t.by_status[CHAAPAR_UNKNOWN], 40u);
	cr_assert_geq(t.by_status[CHAAPAR_OK], 20u);
	cr_assert_eq(chaapar_info(c)->hash_seed, 99u);
	cr_assert_eq(chaapar_put_sync(c, "x", 1, "v", 1, &r), CHAAPAR_OK);
	/* Replicas that contradict themselves: an error, not a loop. */
	fake->user[3] = 1;
	cr_assert_eq(chaapar_put_sync(c, "x", 1, "v", 1, &r), CHAAPAR_WRONG_SHARD);
	cr_assert_eq(chaapar_get_sync(c, "x", 1, &r), CHAAPAR_WRONG_SHARD);
	chaapar_close(c);
	stop();
}

Test(client, another_cluster_at_the_same_addresses_is_learned)
{
	struct chaapar_result r;
	struct chaapar *c;
	enum chaapar_status status = CHAAPAR_TIMEOUT;

	start(1, 64, NULL);
	c = client(0, 200, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, &r), CHAAPAR_OK);
	fake->hash = HASH + 1;
	fake->alive = 0; /* drops what names the old one, without a word */
	for (int tries = 0; tries < 20 && status != CHAAPAR_OK; tries++)
		status = chaapar_put_sync(c, "k", 1, "v", 1, &r);
	cr_assert_eq(status, CHAAPAR_OK);
	cr_assert_eq(chaapar_info(c)->hash, HASH + 1);
	chaapar_close(c);
	stop();
}

/* ---- the socket ---- */

Test(client, a_full_socket_is_waited_for)
{
	struct chaapar_counters n;
	struct told t = { 0 };
	struct chaapar *c;

	start(1, 64, NULL);
	c = client(0, 5000, false);
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, NULL), CHAAPAR_OK);
	fake->full_until_ns = net.clock_ns + NS_PER_MS;
	for (int i = 0; i < 200; i++)
		cr_assert_eq(chaapar_put(c, "k", 1, "v", 1, tell, &t), 0);
	drain(c);
	cr_assert_eq(t.by_status[CHAAPAR_OK], 200u);
	chaapar_get_counters(c, &n);
	cr_assert_eq(n.send_errors, 0u);
	cr_assert_eq(n.retransmits, 0u, "what waited for the socket was not sent twice");
	chaapar_close(c);
	cr_assert_eq(fake->executed, 201u);
	stop();
}

/* The cluster's MTU is larger than what the way from here carries. */
Test(client, a_datagram_too_large_for_the_way_is_sent_in_smaller_ones)
{
	struct chaapar_counters n;
	struct told t = { 0 };
	struct chaapar *c;

	start(1, 64, NULL);
	fake->mtu = 9000;
	c = client(0, 5000, false);
	for (int i = 0; i < 64; i++)
		cr_assert_eq(chaapar_put(c, "k", 1, "0123456789", 10, tell, &t), 0);
	drain(c);
	cr_assert_eq(t.by_status[CHAAPAR_OK], 64u);
	chaapar_get_counters(c, &n);
	cr_assert_eq(n.send_errors, 1u, "it learns from the first");
	cr_assert_eq(n.timeouts, 0u);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 64u);
	stop();
}

/* ---- the handle ---- */

Test(client, requests_in_flight_are_limited)
{
	struct chaapar_options o = CHAAPAR_OPTIONS_INIT;
	struct told t = { 0 };
	struct chaapar *c;

	start(1, 64, NULL);
	o.in_flight_max = 8;
	o.timeout_ms = 5000;
	c = chaapar_open(endpoints(), &o, NULL);
	cr_assert_not_null(c);
	for (int i = 0; i < 8; i++)
		cr_assert_eq(chaapar_put(c, "k", 1, "v", 1, tell, &t), 0);
	cr_assert_eq(chaapar_put(c, "k", 1, "v", 1, tell, &t), -EAGAIN);
	cr_assert_eq(chaapar_in_flight(c), 8u);
	cr_assert_eq(chaapar_wait_ns(c), 0); /* there is something to send */
	/* A synchronous call waits for room. */
	cr_assert_eq(chaapar_put_sync(c, "k", 1, "v", 1, NULL), CHAAPAR_OK);
	drain(c);
	cr_assert_eq(t.by_status[CHAAPAR_OK], 8u);
	cr_assert_eq(chaapar_poll(c, -1), 0);
	cr_assert_eq(chaapar_wait_ns(c), -1);
	chaapar_close(c);
	stop();
}

static void
chain(struct chaapar *c, void *arg, const struct chaapar_result *r)
{
	struct told *t = arg;

	cr_assert_eq(r->status, CHAAPAR_OK);
	cr_assert_eq(chaapar_poll(c, 0), -EDEADLK);
	cr_assert_eq(chaapar_get_sync(c, "k", 1, NULL), CHAAPAR_BAD_CALL);
	if (++t->n < 100)
		cr_assert_eq(chaapar_put(c, "k", 1, "v", 1, chain, t), 0);
}

Test(client, callbacks_may_submit_but_not_wait)
{
	struct told t = { 0 };
	struct chaapar *c;

	start(1, 64, NULL);
	c = client(0, 5000, false);
	cr_assert_eq(chaapar_put(c, "k", 1, "v", 1, chain, &t), 0);
	drain(c);
	cr_assert_eq(t.n, 100u);
	chaapar_close(c);
	cr_assert_eq(fake->executed, 100u);
	stop();
}

Test(client, an_event_loop_needs_only_descriptor_and_time)
{
	struct told t = { 0 };
	struct chaapar *c;

	start(1, 64, first_put_is_lost);
	c = client(0, 10000, false);
	cr_assert_eq(chaapar_put(c, "k", 1, "v", 1, tell, &t), 0);
	while (t.n == 0) {
		int64_t ns = chaapar_wait_ns(c);
		struct pollfd p = { .fd = chaapar_fd(c), .events = POLLIN };
		struct timespec wait = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };

		cr_assert_geq(ns, 0);
		cr_assert_geq(ppoll(&p, 1, &wait, NULL), 0);
		cr_assert_geq(chaapar_poll(c, 0), 0);
	}
	cr_assert_eq(t.by_status[CHAAPAR_OK], 1u);
	chaapar_close(c);
	stop();
}

Test(client, close_ends_what_is_in_flight_and_closes_sessions)
{
	struct told t = { 0 };
	struct chaapar *c;

	start(2, 64, NULL);
	c = client(0, 5000, false);
	cr_assert_eq(chaapar_put_sync(c, "a", 1, "v", 1, NULL), CHAAPAR_OK);
	cr_assert_eq(chaapar_put(c, "a", 1, "v", 1, tell, &t), 0);
	cr_assert_eq(chaapar_get(c, "a", 1, tell, &t), 0);
	chaapar_close(c);
	cr_assert_eq(t.by_status[CHAAPAR_CLOSED], 2u);
	cr_assert_eq(fake->closed, 1u);
	chaapar_close(NULL);
	/* Nobody answers: close gives up. */
	c = client(0, 5000, false);
	cr_assert_eq(chaapar_put_sync(c, "a", 1, "v", 1, NULL), CHAAPAR_OK);
	fake->hook = silent_everywhere;
	chaapar_close(c);
	stop();
}

static enum action
odd_parts(struct fake *f, struct seen *s)
{
	if (s->opcode != CHP_OPCODE_STATUS || f->user[3] == 0)
		return s->opcode == CHP_OPCODE_STATUS && s->nth == 1 && s->arg >> 16 == 1 ? DROP
											  : ANSWER;
	s->number = f->user[3];
	return REFUSE;
}

Test(client, status_is_put_together_from_its_parts)
{
	struct chaapar *c;
	char *text;

	start(2, 64, odd_parts);
	c = client(0, 5000, false);
	cr_assert_eq(chaapar_node_status(c, 1, 0, &text), CHAAPAR_OK);
	cr_assert_str_eq(text, "{\"a\":[1,2]}");
	free(text);
	cr_assert_eq(chaapar_node_status(c, 9, 0, &text), CHAAPAR_BAD_REQUEST);
	cr_assert_null(text);
	fake->user[3] = UINT64_MAX;
	cr_assert_eq(chaapar_node_status(c, 1, 0, &text), CHAAPAR_BAD_REQUEST);
	cr_assert_null(text);
	chaapar_close(c);
	stop();
}

/* The text becomes another one before its second part, user[1] times. */
static enum action
changing_parts(struct fake *f, struct seen *s)
{
	if (s->opcode == CHP_OPCODE_STATUS && s->arg >> 16 == 1 && s->nth == 1 && f->user[1] > 0) {
		f->user[1]--;
		f->user[2]++;
	}
	return ANSWER;
}

Test(client, parts_of_different_texts_are_not_put_together)
{
	struct told t = { 0 };
	struct chaapar *c;
	char *text;

	start(1, 64, changing_parts);
	fake->user[1] = 2;
	c = client(0, 5000, false);
	cr_assert_eq(chaapar_node_status(c, 1, 0, &text), CHAAPAR_OK);
	cr_assert_str_eq(text, "{\"a\":[1,2]}");
	cr_assert_eq(fake->user[1], 0u);
	free(text);
	fake->user[1] = 1000;
	cr_assert_eq(chaapar_node_status(c, 1, 0, &text), CHAAPAR_BUSY);
	cr_assert_null(text);
	/* The same by hand. */
	cr_assert_eq(chaapar_node_part(c, 2, 0, 0, tell, &t), 0);
	drain(c);
	cr_assert_eq(t.last.status, CHAAPAR_OK);
	cr_assert_eq(t.last.number, 3u);
	cr_assert_eq(t.last.node, 2);
	cr_assert_eq(chaapar_node_part(c, 9, 0, 0, tell, &t), -ENOENT);
	cr_assert_eq(chaapar_node_part(c, 0, 65536, 0, tell, &t), -EINVAL);
	cr_assert_eq(chaapar_node_part(c, 0, 0, 65536, tell, &t), -EINVAL);
	chaapar_close(c);
	stop();
}

Test(client, every_status_has_a_name_and_a_sentence)
{
	for (int s = 0; s < CHP_STATUS_COUNT; s++) {
		cr_assert_neq(strcmp(chaapar_status_name((enum chaapar_status)s), "status_?"), 0);
		cr_assert_null(strstr(chaapar_strerror(s), "this version"), "%d", s);
	}
	for (int s = CHAAPAR_TIMEOUT; s <= CHAAPAR_BAD_CALL; s++) {
		cr_assert_neq(strcmp(chaapar_status_name((enum chaapar_status)s), "status_?"), 0);
		cr_assert_not_null(chaapar_strerror(s));
	}
	cr_assert_not_null(strstr(chaapar_strerror(1000), "this version"));
	cr_assert_str_eq(chaapar_strerror(-ETIMEDOUT), "Connection timed out");
}
