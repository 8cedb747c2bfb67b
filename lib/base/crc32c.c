/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/crc32c.h"

#include <string.h>

#if defined(__SSE4_2__)
#include <nmmintrin.h>
#define CRC_BYTE(crc, b) _mm_crc32_u8(crc, b)
#define CRC_WORD(crc, w) ((uint32_t)_mm_crc32_u64(crc, w))
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#define CRC_BYTE(crc, b) __crc32cb(crc, b)
#define CRC_WORD(crc, w) __crc32cd(crc, w)
#endif

/* Reflected polynomial 0x1edc6f41, four bits at a time: small enough to check by eye. */
static const uint32_t nibble_table[16] = {
	0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
	0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

uint32_t
chp_crc32c_portable(const void *data, size_t len, uint32_t crc)
{
	const uint8_t *p = data;

	crc = ~crc;
	for (size_t i = 0; i < len; i++) {
		crc ^= p[i];
		crc = (crc >> 4) ^ nibble_table[crc & 15];
		crc = (crc >> 4) ^ nibble_table[crc & 15];
	}
	return ~crc;
}

uint32_t
chp_crc32c(const void *data, size_t len, uint32_t crc)
{
#ifdef CRC_WORD
	const uint8_t *p = data;

	crc = ~crc;
	for (; len >= 8; len -= 8, p += 8) {
		uint64_t w;

		memcpy(&w, p, sizeof(w));
		crc = CRC_WORD(crc, w);
	}
	for (; len > 0; len--, p++)
		crc = CRC_BYTE(crc, *p);
	return ~crc;
#else
	return chp_crc32c_portable(data, len, crc);
#endif
}
