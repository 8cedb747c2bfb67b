/* SPDX-License-Identifier: BSD-3-Clause */
#include "channel/frame.h"

#include <string.h>

_Static_assert(CHP_CHANNEL_FRAME_BYTES - 14 <= CHP_IP_UDP_BYTES, "a packet that fits a datagram fits a frame");

static uint16_t
be16(uint32_t x)
{
	return __builtin_bswap16((uint16_t)x);
}

uint32_t
chp_channel_frame_build(void *frame, uint32_t payload_len, bool is_host, const uint8_t from[6], const uint8_t *to)
{
	struct chp_channel_frame *f = frame;
	uint32_t len = CHP_CHANNEL_FRAME_BYTES + payload_len;

	if (to != NULL)
		memcpy(f->to, to, sizeof(f->to));
	else
		memset(f->to, 0xff, sizeof(f->to));
	memcpy(f->from, from, sizeof(f->from));
	f->type = be16(CHP_ETHER_CHANNEL);
	f->subtype = be16(CHP_CHANNEL_SUBTYPE);
	f->version = CHP_CHANNEL_FRAME_VERSION;
	f->is_host = is_host;
	f->len = be16(payload_len);
	memset(f->reserved, 0, sizeof(f->reserved));
	if (len >= CHP_ETHER_BYTES_MIN)
		return len;
	memset((uint8_t *)frame + len, 0, CHP_ETHER_BYTES_MIN - len);
	return CHP_ETHER_BYTES_MIN;
}

enum chp_channel_counter
chp_channel_frame_check(const void *frame, uint32_t len, bool is_host, uint32_t payload_bytes_max,
			uint32_t *payload_len)
{
	const struct chp_channel_frame *f = frame;

	if (len < CHP_CHANNEL_FRAME_BYTES)
		return CHP_CHANNEL_drop_rx_runt;
	if (f->type != be16(CHP_ETHER_CHANNEL) || f->subtype != be16(CHP_CHANNEL_SUBTYPE) ||
	    f->version != CHP_CHANNEL_FRAME_VERSION)
		return CHP_CHANNEL_drop_rx_type;
	if (f->is_host != !is_host)
		return CHP_CHANNEL_drop_rx_side;
	*payload_len = be16(f->len);
	if (*payload_len == 0 || *payload_len > len - CHP_CHANNEL_FRAME_BYTES || *payload_len > payload_bytes_max)
		return CHP_CHANNEL_drop_rx_length;
	return CHP_CHANNEL_COUNTER_COUNT;
}
