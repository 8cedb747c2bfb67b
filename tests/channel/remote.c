/* SPDX-License-Identifier: BSD-3-Clause */
#include "remote.h"

#include "base/bytes.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* What passes a socket: orders to the forker, and to the process. */
enum order { START = 's', KILL = 'k', SEND = 'S', RECEIVE = 'R', RELEASE = 'L', STATE = 'T', CLOSE = 'C',
	     FAILED = 'F' };

/* Seen by both processes; the sockets say whose turn it is. */
struct shared {
	uint32_t n; /* packets of a call, and its result */
	enum chp_channel_state state;
	char text[CHP_CHANNEL_TEXT_BYTES];
	uint64_t count[CHP_CHANNEL_COUNTER_COUNT];
	struct chp_channel_packet packet[CHP_CHANNEL_LENT_MAX]; /* its own */
	uint8_t data[CHP_CHANNEL_BURST][CHP_PAYLOAD_BYTES_MAX];
};

/* A packet that was received there, here. */
struct copy {
	struct chp_channel_packet there;
	_Alignas(8) uint8_t data[CHP_PAYLOAD_BYTES_MAX];
};

struct remote {
	struct chp_channel ch;
	struct shared *shared;
	int forker, process; /* sockets */
	int theirs[2];       /* the other ends */
	pid_t pid;           /* the forker */
	bool is_running;
	remote_open open;
	void *context;
	uint32_t n_free;
	struct copy *free[CHP_CHANNEL_LENT_MAX];
	struct copy *copy;
};

/* ------------------------------------------------------------------ there */

static void
serve_one(struct chp_channel *ch, struct shared *s, char order)
{
	const char *text = NULL;

	if (order == SEND) {
		for (uint32_t i = 0; i < s->n; i++)
			s->packet[i].data = s->data[i];
		s->n = chp_channel_send(ch, s->packet, s->n);
	} else if (order == RECEIVE) {
		s->n = chp_channel_receive(ch, s->packet, s->n);
		for (uint32_t i = 0; i < s->n; i++)
			memcpy(s->data[i], s->packet[i].data, s->packet[i].len);
	} else if (order == RELEASE) {
		chp_channel_release(ch, s->packet, s->n);
	}
	s->state = chp_channel_state(ch, &text);
	strncpy(s->text, text, sizeof(s->text) - 1);
	for (uint32_t i = 0; i < CHP_CHANNEL_COUNTER_COUNT; i++)
		s->count[i] = chp_channel_counter(ch, i);
}

static void
serve(struct remote *r, int fd)
{
	struct chp_channel *ch;
	char order;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	ch = r->open(r->context);
	if (ch == NULL) {
		order = FAILED;
		(void)!write(fd, &order, 1);
		_exit(3);
	}
	while (read(fd, &order, 1) == 1 && order != CLOSE) {
		serve_one(ch, r->shared, order);
		if (write(fd, &order, 1) != 1)
			break;
	}
	chp_channel_close(ch);
	_exit(write(fd, &order, 1) == 1 ? 0 : 3);
}

static void
fork_and_kill(struct remote *r)
{
	pid_t pid = 0;
	char order;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(r->theirs[0], &order, 1) == 1) {
		if (pid > 0) {
			(void)kill(pid, SIGKILL);
			(void)waitpid(pid, NULL, 0);
			pid = 0;
		}
		if (order == START && (pid = fork()) == 0) {
			(void)close(r->theirs[0]);
			serve(r, r->theirs[1]);
		}
		if (write(r->theirs[0], &order, 1) != 1)
			break;
	}
	if (pid > 0) {
		(void)kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
	}
	_exit(0);
}

/* ------------------------------------------------------------------ here */

static void
order(int fd, char c)
{
	char answer;

	cr_assert_eq(write(fd, &c, 1), 1);
	cr_assert_eq(read(fd, &answer, 1), 1);
	cr_assert_eq(answer, c, "the other process cannot open its end");
}

/* A call there; its counters become ours. */
static void
call(struct remote *r, enum order what)
{
	cr_assert(r->is_running);
	order(r->process, (char)what);
	for (uint32_t i = 0; i < CHP_CHANNEL_COUNTER_COUNT; i++)
		atomic_store_explicit(&r->ch.count[i], r->shared->count[i], memory_order_relaxed);
}

static struct remote *
remote_of(struct chp_channel *ch)
{
	return (struct remote *)(void *)ch;
}

static uint32_t
remote_send(struct chp_channel *ch, const struct chp_channel_packet *packets, uint32_t n)
{
	struct remote *r = remote_of(ch);

	r->shared->n = chp_min_u32(n, CHP_CHANNEL_BURST);
	for (uint32_t i = 0; i < r->shared->n; i++) {
		r->shared->packet[i].len = packets[i].len;
		memcpy(r->shared->data[i], packets[i].data, packets[i].len);
	}
	call(r, SEND);
	return r->shared->n;
}

static uint32_t
remote_receive(struct chp_channel *ch, struct chp_channel_packet *packets, uint32_t n)
{
	struct remote *r = remote_of(ch);

	r->shared->n = chp_min_u32(n, CHP_CHANNEL_BURST);
	call(r, RECEIVE);
	for (uint32_t i = 0; i < r->shared->n; i++) {
		struct copy *c = r->free[--r->n_free];

		c->there = r->shared->packet[i];
		memcpy(c->data, r->shared->data[i], c->there.len);
		packets[i] = (struct chp_channel_packet){ .data = c->data, .len = c->there.len, .opaque = c };
	}
	return r->shared->n;
}

static void
remote_release(struct chp_channel *ch, const struct chp_channel_packet *packets, uint32_t n)
{
	struct remote *r = remote_of(ch);

	if (n == 0)
		return;
	r->shared->n = n;
	for (uint32_t i = 0; i < n; i++) {
		struct copy *c = packets[i].opaque;

		r->shared->packet[i] = c->there;
		r->free[r->n_free++] = c;
	}
	call(r, RELEASE);
}

static enum chp_channel_state
remote_state(struct chp_channel *ch, const char **text)
{
	struct remote *r = remote_of(ch);

	call(r, STATE);
	if (text != NULL)
		*text = r->shared->text;
	return r->shared->state;
}

static void
remote_close(struct chp_channel *ch)
{
	remote_stop(remote_of(ch), false);
}

static const struct chp_channel_ops remote_ops = {
	.name = "remote",
	.close = remote_close,
	.send = remote_send,
	.receive = remote_receive,
	.release = remote_release,
	.state = remote_state,
};

struct remote *
remote_create(remote_open open, void *context, bool is_host, uint32_t payload_bytes_max)
{
	struct remote *r = calloc(1, sizeof(*r));
	int a[2], b[2];

	cr_assert_not_null(r);
	r->ch.ops = &remote_ops;
	r->ch.is_host = is_host;
	r->ch.payload_bytes_max = payload_bytes_max;
	r->open = open;
	r->context = context;
	r->copy = calloc(CHP_CHANNEL_LENT_MAX, sizeof(*r->copy));
	r->shared = mmap(NULL, sizeof(*r->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert(r->copy != NULL && r->shared != MAP_FAILED);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, a), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, b), 0);
	r->forker = a[0];
	r->process = b[0];
	r->theirs[0] = a[1];
	r->theirs[1] = b[1];
	r->pid = fork();
	cr_assert_geq(r->pid, 0);
	if (r->pid == 0) {
		(void)close(a[0]);
		(void)close(b[0]);
		fork_and_kill(r);
	}
	(void)close(a[1]);
	(void)close(b[1]);
	return r;
}

struct chp_channel *
remote_start(struct remote *r)
{
	r->n_free = CHP_CHANNEL_LENT_MAX;
	for (uint32_t i = 0; i < CHP_CHANNEL_LENT_MAX; i++)
		r->free[i] = &r->copy[i];
	memset(r->shared->count, 0, sizeof(r->shared->count));
	order(r->forker, START);
	r->is_running = true;
	return &r->ch;
}

void
remote_stop(struct remote *r, bool is_kill)
{
	if (!r->is_running)
		return;
	r->is_running = false;
	if (!is_kill)
		order(r->process, CLOSE);
	order(r->forker, KILL);
}

void
remote_destroy(struct remote *r)
{
	remote_stop(r, true);
	(void)close(r->forker);
	(void)close(r->process);
	(void)waitpid(r->pid, NULL, 0);
	(void)munmap(r->shared, sizeof(*r->shared));
	free(r->copy);
	free(r);
}
