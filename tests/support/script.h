/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * script.h - an input that is read as a script: what its bytes say, and 0 behind its end.
 */
#ifndef TESTS_SCRIPT_H
#define TESTS_SCRIPT_H

#include <stdint.h>

struct input {
	const uint8_t *at, *end;
};

static inline uint8_t
u8(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

static inline uint64_t
u64(struct input *in)
{
	uint64_t x = 0;

	for (uint32_t i = 0; i < 8; i++)
		x |= (uint64_t)u8(in) << 8 * i;
	return x;
}

/* Mostly `right`, sometimes a neighbour of it, seldom anything. */
static inline uint64_t
bent(struct input *in, uint64_t right)
{
	uint8_t how = u8(in);

	if (how < 200)
		return right;
	if (how < 250)
		return right + how - 225;
	return u64(in);
}

#endif /* TESTS_SCRIPT_H */
