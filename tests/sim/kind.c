/* SPDX-License-Identifier: BSD-3-Clause */
#include "kind.h"

#include "protocols/home.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

static const struct sim_kind *const kinds[] = { &sim_hermes, &sim_zab };

const struct sim_kind *
sim_kind_at(uint32_t i)
{
	return i < CHP_ARRAY_LEN(kinds) ? kinds[i] : NULL;
}

const struct sim_kind *
sim_kind_find(const char *name)
{
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(kinds); i++)
		if (strcmp(kinds[i]->protocol->name, name) == 0)
			return kinds[i];
	return NULL;
}

void
sim_print_version(FILE *out, const struct sim_kind *kind, const char *before, uint64_t version)
{
	if (version == 0)
		fprintf(out, "%s0", before);
	else if (kind->by_writer)
		fprintf(out, "%sv%" PRIu64 ".%u", before, chp_version_counter(version),
			(unsigned)(version & UINT16_MAX));
	else
		fprintf(out, "%sv%" PRIu64, before, version);
}

void
sim_print_session(FILE *out, uint64_t id)
{
	fprintf(out, "%" PRIu64 ".%" PRIu64, id >> CHP_SESSION_WRITER_SHIFT,
		id & ((UINT64_C(1) << CHP_SESSION_NODE_SHIFT) - 1));
}

void
sim_print_bytes(FILE *out, const uint8_t *bytes, uint32_t len)
{
	const uint32_t shown = 24;

	for (uint32_t i = 0; i < chp_min_u32(len, shown); i++)
		fputc(isprint(bytes[i]) ? bytes[i] : '.', out);
	if (len > shown)
		fprintf(out, "... %u bytes", len);
}
