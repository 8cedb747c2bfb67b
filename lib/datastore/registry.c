/* SPDX-License-Identifier: BSD-3-Clause */
/* The adapters that there are. A new one: its declaration, and its line in the list. */
#include "datastore/datastore.h"

#include "base/bytes.h"

#include <string.h>

extern const struct chp_adapter chp_adapter_rocksdb;
extern const struct chp_adapter chp_adapter_redis;
extern const struct chp_adapter chp_adapter_memcached;
extern const struct chp_adapter chp_adapter_s3;
extern const struct chp_adapter chp_adapter_memory;

static const struct chp_adapter *const adapters[] = {
	&chp_adapter_rocksdb,
	&chp_adapter_redis,
	&chp_adapter_memcached,
	&chp_adapter_s3,
	&chp_adapter_memory,
};

const struct chp_adapter *
chp_adapter_at(uint32_t i)
{
	return i < CHP_ARRAY_LEN(adapters) ? adapters[i] : NULL;
}

const struct chp_adapter *
chp_adapter_find(const char *name)
{
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(adapters); i++) {
		if (strcmp(adapters[i]->name, name) == 0)
			return adapters[i];
	}
	return NULL;
}
