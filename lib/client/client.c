/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/internal.h"

#include "base/digest.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

/* Longer than it takes to leave a dead replica behind where cores are shared. */
#define TIMEOUT_MS_DEFAULT 3000u
#define IN_FLIGHT_DEFAULT  1024u
/* Room in the socket for the answers of many requests; the kernel may grant less. */
#define SOCKET_BYTES (1 << 20)

uint64_t
chp_client_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 * CHP_MS + (uint64_t)t.tv_nsec;
}

/* ---- open ---- */

static int
open_socket(struct chaapar *c)
{
	int bytes = SOCKET_BYTES, discover = IP_PMTUDISC_DO;

	c->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return -errno;
	/* Best effort: smaller buffers only lose more. Replicas drop fragments. */
	(void)setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
	(void)setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	(void)setsockopt(c->fd, IPPROTO_IP, IP_MTU_DISCOVER, &discover, sizeof(discover));
	return 0;
}

static void
init_io(struct chp_client_io *io)
{
	for (uint32_t i = 0; i < CHP_CLIENT_BURST; i++) {
		io->out_iov[i] = (struct iovec){ io->out[i], 0 };
		io->in_iov[i] = (struct iovec){ io->in[i], sizeof(io->in[i]) };
		io->out_msg[i].msg_hdr = (struct msghdr){
			.msg_name = &io->out_addr[i],
			.msg_namelen = sizeof(io->out_addr[i]),
			.msg_iov = &io->out_iov[i],
			.msg_iovlen = 1,
		};
		io->in_msg[i].msg_hdr = (struct msghdr){
			.msg_name = &io->in_addr[i],
			.msg_iov = &io->in_iov[i],
			.msg_iovlen = 1,
		};
	}
}

static int
init_tables(struct chaapar *c)
{
	uint32_t n = c->options.in_flight_max + CHP_CLIENT_SLOTS_EXTRA;

	c->call = calloc(n, sizeof(*c->call));
	c->heap = calloc(n, sizeof(struct chp_call *));
	c->io = calloc(1, sizeof(*c->io));
	c->sync_value = malloc(CHP_PAYLOAD_BYTES_MAX);
	if (c->call == NULL || c->heap == NULL || c->io == NULL || c->sync_value == NULL)
		return -ENOMEM;
	init_io(c->io);
	for (uint32_t i = 0; i < n; i++) {
		c->call[i].slot = i;
		chp_list_init(&c->call[i].list);
		if (i < c->options.in_flight_max)
			chp_list_add_tail(&c->free, &c->call[i].list);
	}
	for (uint32_t i = 0; i < CHP_SHARDS_MAX; i++) {
		struct chp_client_shard *s = &c->shard[i];

		chp_session_init(s);
		chp_list_init(&s->waiting);
		chp_list_init(&s->send);
		chp_list_init(&s->plain);
		s->ring = calloc(CHP_SESSION_WINDOW_MAX, sizeof(struct chp_call *));
		if (s->ring == NULL)
			return -ENOMEM;
	}
	return 0;
}

static void
destroy(struct chaapar *c)
{
	if (c->fd >= 0)
		close(c->fd);
	for (uint32_t i = 0; i < CHP_SHARDS_MAX; i++)
		free(c->shard[i].ring);
	for (uint32_t i = 0; c->call != NULL && i < c->options.in_flight_max; i++)
		free(c->call[i].bytes);
	free(c->call);
	free(c->heap);
	free(c->io);
	free(c->sync_value);
	free(c);
}

static int
set_options(struct chaapar *c, const struct chaapar_options *options)
{
	if (options != NULL)
		c->options = *options;
	else
		c->options.node = CHAAPAR_ANY_NODE;
	if (c->options.timeout_ms == 0)
		c->options.timeout_ms = TIMEOUT_MS_DEFAULT;
	if (c->options.in_flight_max == 0)
		c->options.in_flight_max = IN_FLIGHT_DEFAULT;
	if (c->options.node < CHAAPAR_ANY_NODE || c->options.node >= CHAAPAR_NODES_MAX ||
	    c->options.in_flight_max > CHAAPAR_IN_FLIGHT_MAX)
		return -EINVAL;
	c->node = c->options.node == CHAAPAR_ANY_NODE ? CHP_NODES_MAX : (uint8_t)c->options.node;
	return 0;
}

/* One turn: send, wait for the socket or the next timer but not beyond `until`, receive, time out,
 * send. */
static int
turn(struct chaapar *c, uint64_t until_ns)
{
	struct pollfd p = { .fd = c->fd, .events = POLLIN };
	uint64_t now = chp_client_now(), next = until_ns;
	int err = 0, received;

	if (!chp_client_flush(c))
		p.events |= POLLOUT;
	if (c->heap_n > 0)
		next = chp_min_u64(next,
				   chp_min_u64(c->heap[0]->timer_ns, c->heap[0]->deadline_ns));
	if (next > now) {
		uint64_t ns = next - now;
		struct timespec t = { .tv_sec = (time_t)(ns / (1000 * CHP_MS)),
				      .tv_nsec = (long)(ns % (1000 * CHP_MS)) };

		if (ppoll(&p, 1, next == CHP_NEVER ? NULL : &t, NULL) < 0)
			err = -errno;
	}
	received = chp_client_receive(c);
	chp_call_timers(c, chp_client_now());
	(void)chp_client_flush(c);
	return err != 0 ? err : received;
}

static int
learn(struct chaapar *c)
{
	uint64_t end = chp_client_now() + c->options.timeout_ms * CHP_MS;

	chp_info_fetch(c, chp_client_now());
	while (!c->have_info) {
		int err = turn(c, end);

		if (err != 0 && err != -EINTR)
			return err;
		if (!c->have_info && chp_client_now() >= end)
			return c->info_error != 0 ? c->info_error : -ETIMEDOUT;
	}
	if (c->options.node != CHAAPAR_ANY_NODE && c->node != (uint8_t)c->options.node)
		return -ENOENT;
	return 0;
}

struct chaapar *
chaapar_open(const char *endpoints, const struct chaapar_options *options, int *err)
{
	struct chaapar *c = calloc(1, sizeof(*c));
	int e = -ENOMEM, ignored;

	if (err == NULL)
		err = &ignored;
	if (c != NULL) {
		c->fd = -1;
		c->payload_max = CHP_PAYLOAD_BYTES_MIN;
		chp_list_init(&c->free);
		chp_list_init(&c->parked);
		chp_list_init(&c->control);
		if (getrandom(&c->random.state, sizeof(c->random.state), 0) < 0)
			c->random.state = chp_client_now();
		/* Numbers of an earlier handle on the same port must not look like ours. */
		c->serial = chp_random_u64(&c->random) >> 20;
		e = endpoints == NULL || endpoints[0] == '\0' ? -EINVAL : set_options(c, options);
		if (e == 0)
			e = chp_info_endpoints(c, endpoints);
		if (e == 0)
			e = init_tables(c);
		if (e == 0)
			e = open_socket(c);
		if (e == 0)
			e = learn(c);
	}
	*err = e;
	if (e != 0 && c != NULL) {
		destroy(c);
		c = NULL;
	}
	return c;
}

/* ---- close ---- */

static bool
any_open(const struct chaapar *c)
{
	for (uint32_t i = 0; i < c->info.shards; i++) {
		if (c->shard[i].state == CHP_SESSION_OPEN)
			return true;
	}
	return false;
}

void
chaapar_close(struct chaapar *c)
{
	uint64_t end;

	if (c == NULL)
		return;
	CHP_ASSERT(!c->in_callback);
	c->closing = true;
	for (uint32_t i = 0; i < c->options.in_flight_max; i++) {
		if (c->call[i].state != CHP_CALL_FREE)
			chp_call_finish(c, &c->call[i], CHAAPAR_CLOSED, NULL, CHAAPAR_ANY_NODE);
	}
	end = chp_client_now() + CHP_CLIENT_CLOSE_NS;
	if (chp_session_close_all(c)) {
		while (any_open(c) && chp_client_now() < end) {
			int err = turn(c, end);

			if (err != 0 && err != -EINTR)
				break;
		}
	}
	destroy(c);
}

/* ---- poll ---- */

void
chaapar_flush(struct chaapar *c)
{
	(void)chp_client_flush(c);
}

int
chaapar_poll(struct chaapar *c, int timeout_ms)
{
	uint64_t before = c->counters.completed, now = chp_client_now();
	uint64_t end = timeout_ms < 0 ? CHP_NEVER : now + (uint64_t)timeout_ms * CHP_MS;
	int err;

	if (c->in_callback)
		return -EDEADLK;
	do {
		if (timeout_ms < 0 && c->in_flight == 0)
			return 0;
		err = turn(c, end);
	} while (err == 0 && c->counters.completed == before && chp_client_now() < end);
	if (c->counters.completed == before && err != 0)
		return err;
	return (int)(c->counters.completed - before);
}

int
chaapar_fd(const struct chaapar *c)
{
	return c->fd;
}

int64_t
chaapar_wait_ns(const struct chaapar *c)
{
	uint64_t now, due;

	if (c->dirty != 0 || c->io->out_n > 0 || !chp_list_is_empty(&c->control))
		return 0;
	if (c->heap_n == 0)
		return -1;
	due = chp_min_u64(c->heap[0]->timer_ns, c->heap[0]->deadline_ns);
	if (due == CHP_NEVER)
		return -1;
	now = chp_client_now();
	return due > now ? (int64_t)(due - now) : 0;
}

uint32_t
chaapar_in_flight(const struct chaapar *c)
{
	return c->in_flight;
}

/* ---- what is known ---- */

const struct chaapar_info *
chaapar_info(const struct chaapar *c)
{
	return &c->info;
}

uint32_t
chaapar_node(const struct chaapar *c)
{
	return c->node;
}

uint32_t
chaapar_shard_of(const struct chaapar *c, const void *key, size_t key_len)
{
	return chp_shard_of(chp_digest_of(key, (uint32_t)key_len, c->info.hash_seed),
			    c->info.shards);
}

void
chaapar_get_counters(const struct chaapar *c, struct chaapar_counters *out)
{
	*out = c->counters;
}
