/* SPDX-License-Identifier: BSD-3-Clause */
/* The adapters that there are. */
#include "datastore/datastore.h"

#include "base/bytes.h"

#include <string.h>

/* A new one is its line here: X(name) stands for chp_adapter_name. */
#define ADAPTERS(X)  \
	X(rocksdb)   \
	X(redis)     \
	X(memcached) \
	X(s3)        \
	X(memory)

#define DECLARE(name) extern const struct chp_adapter chp_adapter_##name;
ADAPTERS(DECLARE)

#define PLACE(name) &chp_adapter_##name,
static const struct chp_adapter *const adapters[] = { ADAPTERS(PLACE) };

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
