/* SPDX-License-Identifier: BSD-3-Clause */
/* The conformance suite over memory: both ends in one process, no device. */
#include "channel/memory.h"
#include "conformance.h"

/* An end that was stopped is only hidden: its memory is the pair's. */
static struct chp_channel *both[2];

static void
begin(const struct transport *t, struct chp_channel *end[2])
{
	cr_assert_eq(chp_channel_memory_pair(t->payload_bytes_max, 1, both), 0);
	end[0] = both[0];
	end[1] = both[1];
}

static void
stop(const struct transport *t, struct chp_channel *end[2], uint32_t which, bool is_kill)
{
	(void)t;
	(void)is_kill;
	chp_channel_memory_kill(both[which]);
	end[which] = NULL;
}

static void
start(const struct transport *t, struct chp_channel *end[2], uint32_t which)
{
	(void)t;
	chp_channel_memory_revive(both[which]);
	end[which] = both[which];
}

static void
finish(const struct transport *t, struct chp_channel *end[2])
{
	(void)t;
	(void)end;
	chp_channel_close(both[0]);
	chp_channel_close(both[1]);
}

static const struct transport memory = {
	.payload_bytes_max = CHP_PAYLOAD_BYTES_MAX,
	.is_lossless = true,
	.sees_death = true,
	.can_stop = { true, true },
	.begin = begin,
	.stop = stop,
	.start = start,
	.finish = finish,
};

CONFORMANCE(memory, &memory)
