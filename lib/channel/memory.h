/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * memory.h - a channel between two ends in one process, for tests: with loss, duplicates, and an end that dies.
 *
 * The ends belong to one thread, or to two, each with its own end; these impair and kill while the other one waits.
 */
#ifndef CHP_CHANNEL_MEMORY_H
#define CHP_CHANNEL_MEMORY_H

#include "channel/channel.h"

/* Packets that wait in one direction; a power of two. What comes beyond is not taken. */
#define CHP_CHANNEL_MEMORY_PACKETS 256u

/**
 * Make both ends, [0] the replica's and [1] the host's. Close both.
 *
 * @return  0 or -ENOMEM
 */
int chp_channel_memory_pair(uint32_t payload_bytes_max, uint64_t seed, struct chp_channel *end[2]);

/** From now on lose and duplicate what this end sends, in parts per million. */
void chp_channel_memory_impair(struct chp_channel *ch, uint32_t drop_ppm, uint32_t duplicate_ppm);

/**
 * As if the process of this end died, or came back: what was under way in both directions is lost, and the other end
 * sees it go down, or up. This end itself goes on to work when it is back.
 */
void chp_channel_memory_kill(struct chp_channel *ch);
void chp_channel_memory_revive(struct chp_channel *ch);

#endif /* CHP_CHANNEL_MEMORY_H */
