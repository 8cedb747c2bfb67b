/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Frames as a port may bring them: first the bytes as they are, then with addresses, checksums and the like
 * set right, so that everything behind them is reached. What is accepted must lie inside the frame, and is read.
 */
#include "base/assert.h"
#include "pipeline/frame.h"
#include "wire/packet.h"

#include <string.h>

#define HASH 0x1234abcdu
#define NODES 3u
#define SHARDS 4u
#define FRAME_MAX 2048u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct chp_frame_from self = { .mac = { 2, 0, 10, 0, 0, 1 }, .address = 0x0a000001 };
static volatile uint32_t sink;

static void
read_all(const uint8_t *at, uint32_t len)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < len; i++)
		sum += at[i];
	sink = sum;
}

static void
echo(const uint8_t *data, uint32_t len)
{
	static uint8_t copy[FRAME_MAX];
	enum chp_pipeline_counter why = 0;
	uint32_t out;

	memcpy(copy, data, len);
	out = chp_frame_echo(copy, &self);
	CHP_ASSERT_OP(out, <=, len);
	/* The reply is right in every checksum, and no request. */
	((struct chp_icmp *)(void *)copy)->ip.to = chp_be32(self.address);
	CHP_ASSERT(chp_frame_classify(copy, out, &self, CHP_TRUST_ALL, &why) != CHP_FRAME_ECHO);
}

static void
classify(const uint8_t *data, uint32_t len, enum chp_frame_trust trust)
{
	enum chp_pipeline_counter why = CHP_COUNT_COUNT;
	const uint8_t *packet;
	uint32_t packet_len;

	switch (chp_frame_classify(data, len, &self, trust, &why)) {
	case CHP_FRAME_UDP:
	case CHP_FRAME_DIRECT:
		packet = chp_frame_packet(data, &packet_len);
		CHP_ASSERT(packet > data && packet <= data + len && packet_len <= (uint32_t)(data + len - packet));
		read_all(packet, packet_len);
		(void)chp_peer_check(packet, packet_len, HASH, NODES, SHARDS);
		break;
	case CHP_FRAME_ARP:
		read_all(data, sizeof(struct chp_arp));
		break;
	case CHP_FRAME_ECHO:
		echo(data, len);
		break;
	case CHP_FRAME_DROPPED:
		CHP_ASSERT_OP(why, <, CHP_COUNT_COUNT);
		CHP_ASSERT(strncmp(chp_counter_name(why), "drop_", 5) == 0);
		break;
	}
}

/* What we build is what we accept, byte for byte. */
static void
round_trip(const uint8_t *data, uint32_t len)
{
	static uint8_t frame[FRAME_MAX + CHP_DIRECT_BYTES + 64];
	enum chp_pipeline_counter why = 0;
	const uint8_t *packet;
	uint32_t packet_len, padding;

	if (len < 4)
		return;
	padding = data[3] % 64;
	memset(frame, 0xee, sizeof(frame));
	memcpy(frame + CHP_DIRECT_BYTES, data, len);
	chp_frame_direct(frame, len, &self, self.mac, data[0], data[1], data[2]);
	CHP_ASSERT(chp_frame_classify(frame, CHP_DIRECT_BYTES + len + padding, &self, CHP_TRUST_NONE, &why) ==
		   CHP_FRAME_DIRECT);
	packet = chp_frame_packet(frame, &packet_len);
	CHP_ASSERT(packet_len == len && memcmp(packet, data, len) == 0);
	CHP_ASSERT(chp_frame_classify(frame, CHP_DIRECT_BYTES + len - 1, &self, CHP_TRUST_NONE, &why) ==
			   CHP_FRAME_DROPPED &&
		   why == CHP_COUNT_drop_direct_length);
}

/* The rest of a header set right, as far as the input has one. */
static void
repair(uint8_t *frame, uint32_t len)
{
	struct chp_frame *f = (void *)frame;

	if (len < sizeof(f->ether))
		return;
	memcpy(f->ether.to, self.mac, CHP_MAC_BYTES);
	if (len < sizeof(*f))
		return;
	if (f->ether.type == chp_be16(CHP_ETHER_DIRECT)) {
		struct chp_direct *d = (void *)frame;

		d->subtype = chp_be16(CHP_DIRECT_SUBTYPE);
		d->version = CHP_DIRECT_VERSION;
		return;
	}
	f->ip.version_ihl = 0x45;
	f->ip.to = chp_be32(self.address);
	f->ip.fragment = 0;
	f->ip.checksum = 0;
	f->ip.checksum = chp_internet_checksum(&f->ip, sizeof(f->ip), 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t copy[FRAME_MAX];
	uint32_t len = (uint32_t)(size < sizeof(copy) ? size : sizeof(copy));

	classify(data, len, CHP_TRUST_NONE);
	classify(data, len, CHP_TRUST_ALL);
	round_trip(data, len);
	memcpy(copy, data, len);
	repair(copy, len);
	classify(copy, len, CHP_TRUST_NONE);
	classify(copy, len, CHP_TRUST_ALL);
	return 0;
}
