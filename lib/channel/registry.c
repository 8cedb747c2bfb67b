/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/bytes.h"
#include "channel/transports.h"

#include <string.h>

static const struct chp_channel_ops *const transports[] = { &chp_channel_port, &chp_channel_rdma };

const struct chp_channel_ops *
chp_channel_find(const char *name)
{
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(transports); i++) {
		if (strcmp(transports[i]->name, name) == 0)
			return transports[i];
	}
	return NULL;
}
