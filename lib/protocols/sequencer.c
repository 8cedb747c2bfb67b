/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sequencer.c - the application "sequencer": each key is a sequence whose numbers are handed out once.
 */
#include "base/decimal.h"
#include "protocols/application.h"

/* Reserve arg numbers: the first of them is the result, what follows them is the new value. */
static void
reserve(uint64_t arg, const struct chp_current *now, uint32_t value_bytes_max, uint8_t *scratch,
	struct chp_outcome *out)
{
	uint64_t next = 0;

	/* Of an earlier life of the cluster's data with another application. */
	if (now->present && !chp_decimal_read(now->value, now->value_len, &next)) {
		out->status = CHP_STATUS_NOT_NUMBER;
		return;
	}
	out->number = next;
	/* A sequence that is used up stays so: a number is never handed out again. */
	if (__builtin_add_overflow(next, arg, &next)) {
		out->status = CHP_STATUS_TOO_LARGE;
		return;
	}
	out->value_len = chp_decimal_write(next, scratch);
	out->value = scratch;
	if (out->value_len > value_bytes_max)
		out->status = CHP_STATUS_TOO_LARGE;
}

static void
sequencer_evaluate(uint8_t opcode, uint64_t arg, const uint8_t *operand, uint32_t operand_len,
		   const struct chp_current *now, uint32_t value_bytes_max, uint8_t *scratch, struct chp_outcome *out)
{
	(void)operand;
	(void)operand_len;
	*out = (struct chp_outcome){ .status = CHP_STATUS_OK, .is_rmw = true };
	switch (opcode) {
	case CHP_OPCODE_INCR:
		reserve(arg, now, value_bytes_max, scratch, out);
		break;
	case CHP_OPCODE_DELETE:
		out->remove = true;
		if (!now->present)
			out->status = CHP_STATUS_NOT_FOUND;
		break;
	default:
		out->status = CHP_STATUS_UNKNOWN_OP;
	}
}

const struct chp_application chp_sequencer = {
	.name = "sequencer",
	.needs_value = 1u << CHP_OPCODE_INCR,
	.evaluate = sequencer_evaluate,
};
