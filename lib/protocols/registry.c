/* SPDX-License-Identifier: BSD-3-Clause */
#include "protocols/protocol.h"

#include <string.h>

/* Every protocol that the configuration can name. */
static const struct chp_protocol *const protocols[] = { &chp_hermes, &chp_zab };
static const char *const names[] = { "hermes", "zab", NULL };

_Static_assert(CHP_ARRAY_LEN(names) == CHP_ARRAY_LEN(protocols) + 1, "a name for each protocol");

const struct chp_protocol *
chp_protocol_find(const char *name)
{
	for (size_t i = 0; i < CHP_ARRAY_LEN(protocols); i++)
		if (strcmp(protocols[i]->name, name) == 0)
			return protocols[i];
	return NULL;
}

const char *const *
chp_protocol_names(void)
{
	return names;
}
