/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * assert.h - assertions that stay on in every build and print the values they compared.
 *
 * A failed assertion ends the process: a replica that no longer knows its own state must not answer,
 * and replication exists so that the others go on. CHP_VERIFY is for checks that cost more than O(1);
 * it is compiled in where CHP_VERIFY_ENABLED is 1 (tests, simulator, fuzzers).
 */
#ifndef CHP_BASE_ASSERT_H
#define CHP_BASE_ASSERT_H

#include <stdint.h>

#ifndef CHP_VERIFY_ENABLED
#define CHP_VERIFY_ENABLED 0
#endif

/**
 * Report a failed assertion on standard error and abort. Never returns.
 *
 * @param expr  the text of the condition
 * @param a, b  the two values compared; equal to 0 for a plain condition
 */
_Noreturn void chp_assert_fail(const char *expr, uint64_t a, uint64_t b, const char *file, int line);

#define CHP_ASSERT(cond)                                                            \
	do {                                                                        \
		if (__builtin_expect(!(cond), 0))                                   \
			chp_assert_fail(#cond, 0, 0, __FILE__, __LINE__);           \
	} while (0)

/* CHP_ASSERT_OP(used, <=, cap): prints both values when it fails. Integers only. */
#define CHP_ASSERT_OP(a, op, b)                                                     \
	do {                                                                        \
		if (__builtin_expect(!((a)op(b)), 0))                               \
			chp_assert_fail(#a " " #op " " #b, (uint64_t)(a), (uint64_t)(b), \
					__FILE__, __LINE__);                        \
	} while (0)

#define CHP_VERIFY(cond)                                                            \
	do {                                                                        \
		if (CHP_VERIFY_ENABLED)                                             \
			CHP_ASSERT(cond);                                           \
	} while (0)

#endif /* CHP_BASE_ASSERT_H */
