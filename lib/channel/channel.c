/* SPDX-License-Identifier: BSD-3-Clause */
#include "channel/channel.h"

#include "base/assert.h"

const char *
chp_channel_counter_name(enum chp_channel_counter which)
{
	static const char *const name[] = {
#define CHP_COUNTER_FIELD(name, help) #name,
		CHP_CHANNEL_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
	};

	CHP_ASSERT_OP(which, <, CHP_CHANNEL_COUNTER_COUNT);
	return name[which];
}

const char *
chp_channel_counter_help(enum chp_channel_counter which)
{
	static const char *const help[] = {
#define CHP_COUNTER_FIELD(name, help) help,
		CHP_CHANNEL_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
	};

	CHP_ASSERT_OP(which, <, CHP_CHANNEL_COUNTER_COUNT);
	return help[which];
}

const char *
chp_channel_state_name(enum chp_channel_state state)
{
	static const char *const name[] = {
		[CHP_CHANNEL_DOWN] = "down",
		[CHP_CHANNEL_UP] = "up",
		[CHP_CHANNEL_BROKEN] = "broken",
	};

	CHP_ASSERT_OP(state, <=, CHP_CHANNEL_BROKEN);
	return name[state];
}
