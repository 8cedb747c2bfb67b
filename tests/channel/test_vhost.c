/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The conformance suite over vhost-user and virtio-user between two processes: once with the host here and the replica
 * in a process that is killed, and once the other way round.
 */
#include "conformance.h"
#include "eal.h"
#include "remote.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct side {
	struct transport transport;
	uint32_t near; /* the end that is in this process */
};

static char dir[] = "/tmp/chaapar-channel-XXXXXX";
static char path[64];
static struct remote *remote;

static const char *const port[2] = { "net_vhost0", "net_virtio_user0" };

static void
vdev_of(uint32_t which, char *text, size_t size)
{
	if (which == HOST)
		(void)snprintf(text, size, "net_virtio_user0,path=%s,server=1,queue_size=1024,in_order=1,mrg_rxbuf=0",
			       path);
	else
		(void)snprintf(text, size, "net_vhost0,iface=%s,client=1", path);
}

static struct chp_channel *
open_far(void *context)
{
	const struct side *s = context;
	uint32_t which = 1 - s->near;
	char vdev[160];

	vdev_of(which, vdev, sizeof(vdev));
	return eal_start(vdev) ? eal_open(port[which], which == HOST, s->transport.payload_bytes_max) : NULL;
}

static const struct side *
side_of(const struct transport *t)
{
	return (const struct side *)(const void *)t;
}

static void
begin(const struct transport *t, struct chp_channel *end[2])
{
	const struct side *s = side_of(t);
	char vdev[160];

	cr_assert_not_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/s", dir);
	remote = remote_create(open_far, (void *)(uintptr_t)s, s->near != HOST, t->payload_bytes_max);
	/* A front end that is the server waits in EAL for the other one. */
	end[1 - s->near] = remote_start(remote);
	vdev_of(s->near, vdev, sizeof(vdev));
	cr_assert(eal_start(vdev));
	end[s->near] = eal_open(port[s->near], s->near == HOST, t->payload_bytes_max);
	cr_assert_not_null(end[s->near]);
}

static void
stop(const struct transport *t, struct chp_channel *end[2], uint32_t which, bool is_kill)
{
	(void)t;
	remote_stop(remote, is_kill);
	end[which] = NULL;
	if (which == HOST)
		(void)unlink(path); /* a server leaves it behind, and it is in the way of the next */
}

static void
start(const struct transport *t, struct chp_channel *end[2], uint32_t which)
{
	(void)t;
	end[which] = remote_start(remote);
}

static void
finish(const struct transport *t, struct chp_channel *end[2])
{
	remote_destroy(remote);
	chp_channel_close(end[side_of(t)->near]);
	(void)unlink(path);
	(void)rmdir(dir);
}

#define SIDE(end)                                                                                          \
	{                                                                                                  \
		.transport = {                                                                             \
			.payload_bytes_max = CHP_PAYLOAD_BYTES_MIN,                                        \
			.sees_death = true,                                                                \
			.can_stop = { [1 - (end)] = true },                                                \
			.begin = begin,                                                                    \
			.stop = stop,                                                                      \
			.start = start,                                                                    \
			.near = (end),                                                                     \
			.finish = finish,                                                                  \
		},                                                                                         \
		.near = (end),                                                                             \
	}

static const struct side host = SIDE(HOST), replica = SIDE(REPLICA);

CONFORMANCE(vhost_host, &host.transport)
CONFORMANCE(vhost_replica, &replica.transport)
