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

#ifdef CRC_WORD
/*
 * The CRC instruction takes one cycle but its result three: three parts of a buffer are computed side by
 * side and joined. Joining moves a register over the zeros of the parts behind it, which is linear: a
 * table for each of its eight nibbles, for 128 and 256 bytes of zeros (test_crc32c checks them).
 */
#define PART_BYTES 128u

static const uint32_t shift_128[8][16] = {
	{ 0x00000000, 0x6992cea2, 0xd3259d44, 0xbab753e6, 0xa3a74c79, 0xca3582db, 0x7082d13d, 0x19101f9f,
	  0x42a2ee03, 0x2b3020a1, 0x91877347, 0xf815bde5, 0xe105a27a, 0x88976cd8, 0x32203f3e, 0x5bb2f19c },
	{ 0x00000000, 0x8545dc06, 0x0f67cefd, 0x8a2212fb, 0x1ecf9dfa, 0x9b8a41fc, 0x11a85307, 0x94ed8f01,
	  0x3d9f3bf4, 0xb8dae7f2, 0x32f8f509, 0xb7bd290f, 0x2350a60e, 0xa6157a08, 0x2c3768f3, 0xa972b4f5 },
	{ 0x00000000, 0x7b3e77e8, 0xf67cefd0, 0x8d429838, 0xe915a951, 0x922bdeb9, 0x1f694681, 0x64573169,
	  0xd7c72453, 0xacf953bb, 0x21bbcb83, 0x5a85bc6b, 0x3ed28d02, 0x45ecfaea, 0xc8ae62d2, 0xb390153a },
	{ 0x00000000, 0xaa623e57, 0x51280a5f, 0xfb4a3408, 0xa25014be, 0x08322ae9, 0xf3781ee1, 0x591a20b6,
	  0x414c5f8d, 0xeb2e61da, 0x106455d2, 0xba066b85, 0xe31c4b33, 0x497e7564, 0xb234416c, 0x18567f3b },
	{ 0x00000000, 0x8298bf1a, 0x00dd08c5, 0x8245b7df, 0x01ba118a, 0x8322ae90, 0x0167194f, 0x83ffa655,
	  0x03742314, 0x81ec9c0e, 0x03a92bd1, 0x813194cb, 0x02ce329e, 0x80568d84, 0x02133a5b, 0x808b8541 },
	{ 0x00000000, 0x06e84628, 0x0dd08c50, 0x0b38ca78, 0x1ba118a0, 0x1d495e88, 0x167194f0, 0x1099d2d8,
	  0x37423140, 0x31aa7768, 0x3a92bd10, 0x3c7afb38, 0x2ce329e0, 0x2a0b6fc8, 0x2133a5b0, 0x27dbe398 },
	{ 0x00000000, 0x6e846280, 0xdd08c500, 0xb38ca780, 0xbffdfcf1, 0xd1799e71, 0x62f539f1, 0x0c715b71,
	  0x7a178f13, 0x1493ed93, 0xa71f4a13, 0xc99b2893, 0xc5ea73e2, 0xab6e1162, 0x18e2b6e2, 0x7666d462 },
	{ 0x00000000, 0xf42f1e26, 0xedb24abd, 0x199d549b, 0xde88e38b, 0x2aa7fdad, 0x333aa936, 0xc715b710,
	  0xb8fdb1e7, 0x4cd2afc1, 0x554ffb5a, 0xa160e57c, 0x6675526c, 0x925a4c4a, 0x8bc718d1, 0x7fe806f7 },
};

static const uint32_t shift_256[8][16] = {
	{ 0x00000000, 0xdcb17aa4, 0xbc8e83b9, 0x603ff91d, 0x7cf17183, 0xa0400b27, 0xc07ff23a, 0x1cce889e,
	  0xf9e2e306, 0x255399a2, 0x456c60bf, 0x99dd1a1b, 0x85139285, 0x59a2e821, 0x399d113c, 0xe52c6b98 },
	{ 0x00000000, 0xf629b0fd, 0xe9bf170b, 0x1f96a7f6, 0xd69258e7, 0x20bbe81a, 0x3f2d4fec, 0xc904ff11,
	  0xa8c8c73f, 0x5ee177c2, 0x4177d034, 0xb75e60c9, 0x7e5a9fd8, 0x88732f25, 0x97e588d3, 0x61cc382e },
	{ 0x00000000, 0x547df88f, 0xa8fbf11e, 0xfc860991, 0x541b94cd, 0x00666c42, 0xfce065d3, 0xa89d9d5c,
	  0xa837299a, 0xfc4ad115, 0x00ccd884, 0x54b1200b, 0xfc2cbd57, 0xa85145d8, 0x54d74c49, 0x00aab4c6 },
	{ 0x00000000, 0x558225c5, 0xab044b8a, 0xfe866e4f, 0x53e4e1e5, 0x0666c420, 0xf8e0aa6f, 0xad628faa,
	  0xa7c9c3ca, 0xf24be60f, 0x0ccd8840, 0x594fad85, 0xf42d222f, 0xa1af07ea, 0x5f2969a5, 0x0aab4c60 },
	{ 0x00000000, 0x4a7ff165, 0x94ffe2ca, 0xde8013af, 0x2c13b365, 0x666c4200, 0xb8ec51af, 0xf293a0ca,
	  0x582766ca, 0x125897af, 0xccd88400, 0x86a77565, 0x7434d5af, 0x3e4b24ca, 0xe0cb3765, 0xaab4c600 },
	{ 0x00000000, 0xb04ecd94, 0x6571edd9, 0xd53f204d, 0xcae3dbb2, 0x7aad1626, 0xaf92366b, 0x1fdcfbff,
	  0x902bc195, 0x20650c01, 0xf55a2c4c, 0x4514e1d8, 0x5ac81a27, 0xea86d7b3, 0x3fb9f7fe, 0x8ff73a6a },
	{ 0x00000000, 0x25bbf5db, 0x4b77ebb6, 0x6ecc1e6d, 0x96efd76c, 0xb35422b7, 0xdd983cda, 0xf823c901,
	  0x2833d829, 0x0d882df2, 0x6344339f, 0x46ffc644, 0xbedc0f45, 0x9b67fa9e, 0xf5abe4f3, 0xd0101128 },
	{ 0x00000000, 0x5067b052, 0xa0cf60a4, 0xf0a8d0f6, 0x4472b7b9, 0x141507eb, 0xe4bdd71d, 0xb4da674f,
	  0x88e56f72, 0xd882df20, 0x282a0fd6, 0x784dbf84, 0xcc97d8cb, 0x9cf06899, 0x6c58b86f, 0x3c3f083d },
};

static uint32_t
shift(const uint32_t table[8][16], uint32_t crc)
{
	uint32_t to = 0;

	for (uint32_t i = 0; i < 8; i++)
		to ^= table[i][crc >> (4 * i) & 15];
	return to;
}

static uint64_t
word_at(const uint8_t *p)
{
	uint64_t w;

	memcpy(&w, p, sizeof(w));
	return w;
}

/* Three parts of PART_BYTES. */
static uint32_t
crc_three(const uint8_t *p, uint32_t crc)
{
	uint32_t second = 0, third = 0;

	for (uint32_t i = 0; i < PART_BYTES; i += 8) {
		crc = CRC_WORD(crc, word_at(p + i));
		second = CRC_WORD(second, word_at(p + PART_BYTES + i));
		third = CRC_WORD(third, word_at(p + 2 * PART_BYTES + i));
	}
	return shift(shift_256, crc) ^ shift(shift_128, second) ^ third;
}
#endif

uint32_t
chp_crc32c(const void *data, size_t len, uint32_t crc)
{
#ifdef CRC_WORD
	const uint8_t *p = data;

	crc = ~crc;
	for (; len >= 3 * PART_BYTES; len -= 3 * PART_BYTES, p += 3 * PART_BYTES)
		crc = crc_three(p, crc);
	for (; len >= 8; len -= 8, p += 8)
		crc = CRC_WORD(crc, word_at(p));
	for (; len > 0; len--, p++)
		crc = CRC_BYTE(crc, *p);
	return ~crc;
#else
	return chp_crc32c_portable(data, len, crc);
#endif
}
