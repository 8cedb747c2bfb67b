/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dma.h - copies of packets by a DMA device of DPDK instead of the CPU, for port.c.
 *
 * A batch of copies is given to the device at once, the CPU does something else meanwhile, and waits for the rest. What
 * the device fails is copied by the CPU: nobody else notices.
 *
 * Owner: the thread that uses the channel.
 */
#ifndef CHP_CHANNEL_DMA_H
#define CHP_CHANNEL_DMA_H

#include "channel/channel.h"

struct chp_channel_dma;

/**
 * Start a device by its DPDK name.
 *
 * @return  NULL with *error: it does not exist, cannot copy, cannot reach all memory of this process (it must share
 *          virtual addresses, since senders' buffers may lie anywhere), or does not start
 */
struct chp_channel_dma *chp_channel_dma_open(const char *name, struct chp_channel_error *error);

/** Stop it. Accepts NULL. */
void chp_channel_dma_close(struct chp_channel_dma *d);

/** Begin to copy: up to CHP_CHANNEL_BURST copies before chp_channel_dma_finish. */
void chp_channel_dma_add(struct chp_channel_dma *d, void *to, const void *from, uint32_t len);
void chp_channel_dma_start(struct chp_channel_dma *d);

/**
 * Wait until everything that was added is copied.
 *
 * @return  copies that the device made; the CPU made the others. A device that does not finish in time is not
 *          used any more
 */
uint32_t chp_channel_dma_finish(struct chp_channel_dma *d);

#endif /* CHP_CHANNEL_DMA_H */
