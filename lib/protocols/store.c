/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * store.c - the application "store": keys and values with memcached's operations.
 */
#include "base/assert.h"
#include "base/decimal.h"
#include "protocols/application.h"

#include <string.h>

/* incr wraps at 2^64, decr stops at 0, as memcached does. */
static void
add_number(uint8_t opcode, uint64_t arg, const struct chp_current *now, uint32_t value_bytes_max, uint8_t *scratch,
	   struct chp_outcome *out)
{
	uint64_t n;

	if (!chp_decimal_read(now->value, now->value_len, &n)) {
		out->status = CHP_STATUS_NOT_NUMBER;
		return;
	}
	if (opcode == CHP_OPCODE_INCR)
		n += arg;
	else
		n = n > arg ? n - arg : 0;
	out->number = n;
	out->value_len = chp_decimal_write(n, scratch);
	out->value = scratch;
	if (out->value_len > value_bytes_max)
		out->status = CHP_STATUS_TOO_LARGE;
}

static void
join(const uint8_t *first, uint32_t first_len, const uint8_t *second, uint32_t second_len, uint32_t value_bytes_max,
     uint8_t *scratch, struct chp_outcome *out)
{
	out->value_len = first_len + second_len;
	if (out->value_len > value_bytes_max) {
		out->status = CHP_STATUS_TOO_LARGE;
		return;
	}
	if (first_len > 0)
		memcpy(scratch, first, first_len);
	if (second_len > 0)
		memcpy(scratch + first_len, second, second_len);
	out->value = scratch;
}

static void
store_evaluate(uint8_t opcode, uint64_t arg, const uint8_t *operand, uint32_t operand_len,
	       const struct chp_current *now, uint32_t value_bytes_max, uint8_t *scratch, struct chp_outcome *out)
{
	*out = (struct chp_outcome){ .value = operand,
				     .value_len = operand_len,
				     .status = CHP_STATUS_OK,
				     .is_rmw = opcode != CHP_OPCODE_PUT };
	if (opcode == CHP_OPCODE_PUT)
		return;
	if (opcode == CHP_OPCODE_ADD) {
		if (now->present)
			out->status = CHP_STATUS_EXISTS;
		return;
	}
	if (opcode < CHP_OPCODE_DELETE || opcode > CHP_OPCODE_DECR) {
		out->status = CHP_STATUS_UNKNOWN_OP;
		return;
	}
	if (!now->present) {
		out->status = CHP_STATUS_NOT_FOUND;
		return;
	}
	switch (opcode) {
	case CHP_OPCODE_CAS:
		if (now->version != arg)
			out->status = CHP_STATUS_COMPARE_FAILED;
		break;
	case CHP_OPCODE_DELETE:
		out->remove = true;
		break;
	case CHP_OPCODE_APPEND:
		join(now->value, now->value_len, operand, operand_len, value_bytes_max, scratch, out);
		break;
	case CHP_OPCODE_PREPEND:
		join(operand, operand_len, now->value, now->value_len, value_bytes_max, scratch, out);
		break;
	case CHP_OPCODE_INCR:
	case CHP_OPCODE_DECR:
		add_number(opcode, arg, now, value_bytes_max, scratch, out);
		break;
	default:
		CHP_ASSERT_OP(opcode, ==, CHP_OPCODE_REPLACE);
	}
}

const struct chp_application chp_store = {
	.name = "store",
	.needs_value = 1u << CHP_OPCODE_APPEND | 1u << CHP_OPCODE_PREPEND | 1u << CHP_OPCODE_INCR |
		       1u << CHP_OPCODE_DECR,
	.is_blind = 1u << CHP_OPCODE_PUT,
	.evaluate = store_evaluate,
};
