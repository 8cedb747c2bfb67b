/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * transports.h - the transports that programs can name. A new one is a file and a line here and in registry.c.
 */
#ifndef CHP_CHANNEL_TRANSPORTS_H
#define CHP_CHANNEL_TRANSPORTS_H

#include "channel/channel.h"

extern const struct chp_channel_ops chp_channel_port;
extern const struct chp_channel_ops chp_channel_rdma;

#endif /* CHP_CHANNEL_TRANSPORTS_H */
