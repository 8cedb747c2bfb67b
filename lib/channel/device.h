/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * device.h - what Ethernet devices of DPDK need beyond ethdev's functions, whoever uses them: channels and the
 * pipeline's port.
 */
#ifndef CHP_CHANNEL_DEVICE_H
#define CHP_CHANNEL_DEVICE_H

#include <stdint.h>

/**
 * Stop a port so that it may be closed: nothing of DPDK's interrupt thread is at work with it or will be. Waits for
 * that thread. Not to be called by it.
 */
void chp_device_stop(uint16_t id);

#endif /* CHP_CHANNEL_DEVICE_H */
