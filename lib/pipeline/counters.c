/* SPDX-License-Identifier: BSD-3-Clause */
#include "pipeline/counters.h"

#include "base/assert.h"

static const char *const counter_name[CHP_COUNT_COUNT] = {
#define CHP_COUNTER_FIELD(name, help) [CHP_COUNT_##name] = #name,
	CHP_PIPELINE_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
};

const char *
chp_counter_name(enum chp_pipeline_counter which)
{
	CHP_ASSERT_OP(which, <, CHP_COUNT_COUNT);
	return counter_name[which];
}
