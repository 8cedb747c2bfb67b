/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/crc32c.h"
#include "base/random.h"

#include <criterion/criterion.h>
#include <string.h>

static void
expect(const void *data, size_t len, uint32_t crc)
{
	cr_assert_eq(chp_crc32c(data, len, 0), crc, "%08x", chp_crc32c(data, len, 0));
	cr_assert_eq(chp_crc32c_portable(data, len, 0), crc);
}

/* The vectors of RFC 3720, appendix B.4. */
Test(crc32c, published_vectors)
{
	uint8_t b[48];

	expect("123456789", 9, 0xe3069283);
	expect("", 0, 0);
	memset(b, 0, 32);
	expect(b, 32, 0x8a9136aa);
	memset(b, 0xff, 32);
	expect(b, 32, 0x62a8ab43);
	for (int i = 0; i < 32; i++)
		b[i] = (uint8_t)i;
	expect(b, 32, 0x46dd794e);
	for (int i = 0; i < 32; i++)
		b[i] = (uint8_t)(31 - i);
	expect(b, 32, 0x113fdb5c);

	static const uint8_t scsi_read[48] = {
		0x01,	     0xc0,	  [16] = 0x14, [22] = 0x04,
		[27] = 0x14, [31] = 0x18, [32] = 0x28, [40] = 0x02,
	};
	expect(scsi_read, 48, 0xd9963a56);
}

Test(crc32c, equals_the_portable_one_at_every_length_and_alignment)
{
	uint8_t b[900]; /* more than two rounds of the interleaved parts */
	struct chp_random r = { 1 };

	for (size_t i = 0; i < sizeof(b); i++)
		b[i] = (uint8_t)chp_random_u64(&r);
	for (size_t offset = 0; offset < 16; offset++) {
		for (size_t len = 0; len <= sizeof(b) - offset; len++) {
			uint32_t start = (uint32_t)chp_random_u64(&r);

			cr_assert_eq(chp_crc32c(b + offset, len, start),
				     chp_crc32c_portable(b + offset, len, start));
		}
	}
}

Test(crc32c, parts_continue)
{
	uint8_t b[100];
	struct chp_random r = { 2 };

	for (size_t i = 0; i < sizeof(b); i++)
		b[i] = (uint8_t)chp_random_u64(&r);
	uint32_t whole = chp_crc32c(b, sizeof(b), 0);

	for (size_t cut = 0; cut <= sizeof(b); cut++)
		cr_assert_eq(chp_crc32c(b + cut, sizeof(b) - cut, chp_crc32c(b, cut, 0)), whole);
}

Test(crc32c, any_single_bit_changes_it)
{
	uint8_t b[64] = { 0 };
	uint32_t whole = chp_crc32c(b, sizeof(b), 0);

	for (size_t bit = 0; bit < 8 * sizeof(b); bit++) {
		b[bit / 8] ^= (uint8_t)(1u << bit % 8);
		cr_assert_neq(chp_crc32c(b, sizeof(b), 0), whole);
		b[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}
