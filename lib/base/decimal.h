/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * decimal.h - unsigned 64-bit numbers as ASCII decimal text, as values of keys have them. Pure.
 */
#ifndef CHP_BASE_DECIMAL_H
#define CHP_BASE_DECIMAL_H

#include <stdbool.h>
#include <stdint.h>

/* Digits of the largest number. */
#define CHP_DECIMAL_BYTES_MAX 20u

/** Read a number: digits and nothing else. False if it is none, or too large. */
bool chp_decimal_read(const uint8_t *text, uint32_t len, uint64_t *number);

/** Write a number without leading zeros; returns its length, at most CHP_DECIMAL_BYTES_MAX. */
uint32_t chp_decimal_write(uint64_t number, uint8_t *to);

#endif /* CHP_BASE_DECIMAL_H */
