/* SPDX-License-Identifier: BSD-3-Clause */
/* eal.h - EAL for a test that opens ports. */
#ifndef TESTS_CHANNEL_EAL_H
#define TESTS_CHANNEL_EAL_H

#include "channel/channel.h"

#include <stdbool.h>

/** Start EAL without hugepages, with a virtual device or NULL. */
bool eal_start(const char *vdev);

/** Open one end over a port; NULL when it cannot be, and says why. */
struct chp_channel *eal_open(const char *port, bool is_host, uint32_t payload_bytes_max);

#endif /* TESTS_CHANNEL_EAL_H */
