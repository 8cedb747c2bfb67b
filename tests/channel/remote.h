/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * remote.h - a channel's end in another process, which does what this one tells it: a struct chp_channel like any other
 * for who uses it, that can be killed.
 *
 * A process with EAL, or with a connection, cannot fork one that wants its own. So the first thing is a process that
 * does nothing but fork.
 */
#ifndef TESTS_CHANNEL_REMOTE_H
#define TESTS_CHANNEL_REMOTE_H

#include "channel/channel.h"

struct remote;

/** Opens the end, in the other process. NULL: it exits, and the tests fail. */
typedef struct chp_channel *(*remote_open)(void *context);

/** Fork the forker. Before anything else that a fork would copy. */
struct remote *remote_create(remote_open open, void *context, bool is_host, uint32_t payload_bytes_max);

/** Start the process; it opens its end by itself, and this does not wait for it. */
struct chp_channel *remote_start(struct remote *r);

/** End it: it closes its channel, or it is killed. */
void remote_stop(struct remote *r, bool is_kill);

/** End the process, if there is one, and the forker. */
void remote_destroy(struct remote *r);

#endif /* TESTS_CHANNEL_REMOTE_H */
