/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/decimal.h"

bool
chp_decimal_read(const uint8_t *text, uint32_t len, uint64_t *number)
{
	uint64_t n = 0;

	if (len == 0 || len > CHP_DECIMAL_BYTES_MAX)
		return false;
	for (uint32_t i = 0; i < len; i++) {
		uint64_t digit = (uint64_t)text[i] - '0';

		if (digit > 9 || __builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, digit, &n))
			return false;
	}
	*number = n;
	return true;
}

uint32_t
chp_decimal_write(uint64_t number, uint8_t *to)
{
	uint8_t digits[CHP_DECIMAL_BYTES_MAX];
	uint32_t len = 0;

	do {
		digits[len++] = (uint8_t)('0' + number % 10);
		number /= 10;
	} while (number > 0);
	for (uint32_t i = 0; i < len; i++)
		to[i] = digits[len - 1 - i];
	return len;
}
