/* SPDX-License-Identifier: BSD-3-Clause */
#include "protocols/application.h"

#include "base/bytes.h"

#include <string.h>

/* Every application that the configuration can name. */
static const struct chp_application *const applications[] = { &chp_store, &chp_sequencer };
static const char *const names[] = { "store", "sequencer", NULL };

_Static_assert(CHP_ARRAY_LEN(names) == CHP_ARRAY_LEN(applications) + 1, "a name for each application");

const struct chp_application *
chp_application_find(const char *name)
{
	for (size_t i = 0; i < CHP_ARRAY_LEN(applications); i++)
		if (strcmp(applications[i]->name, name) == 0)
			return applications[i];
	return NULL;
}

const char *const *
chp_application_names(void)
{
	return names;
}
