/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * frame.h - the Ethernet frame around a packet of a channel over ports. Pure: bytes and lengths.
 *
 * A channel connects one replica and one host, so the header says only which end sent it. Whose replica, whose host,
 * and of what cluster stands in the packet, where the other end can answer it (wire/host.h).
 */
#ifndef CHP_CHANNEL_FRAME_H
#define CHP_CHANNEL_FRAME_H

#include "base/bytes.h"
#include "channel/channel.h"

/*
 * The second of the two EtherTypes that IEEE 802 gives to whoever experiments in a network of his own; frames between
 * replicas have the first, 0x88b5 (pipeline/frame.h). As there, subtype and version come first.
 */
#define CHP_ETHER_CHANNEL 0x88b6u
#define CHP_CHANNEL_SUBTYPE 0x4348u /* the bytes 'C' 'H' */
#define CHP_CHANNEL_FRAME_VERSION 1u

/* Numbers in this header are big-endian. */
struct chp_channel_frame {
	uint8_t to[6];
	uint8_t from[6];
	uint16_t type;
	uint16_t subtype;
	uint8_t version;
	uint8_t is_host; /* 1: sent by chaapar-host; 0: by a replica */
	uint16_t len;    /* bytes of the packet behind this header: Ethernet pads short frames */
	uint8_t reserved[4]; /* 0 */
} CHP_PACKED;

_Static_assert(sizeof(struct chp_channel_frame) == 24, "wire format; a packet behind it is aligned as the frame is");

#define CHP_CHANNEL_FRAME_BYTES ((uint32_t)sizeof(struct chp_channel_frame))
/* The least size of an Ethernet frame without its checksum: not every driver pads. */
#define CHP_ETHER_BYTES_MIN 60u

/**
 * Write the header of a packet of payload_len bytes, and zeros behind a short one.
 *
 * @param frame  with room for CHP_ETHER_BYTES_MIN
 * @param to     NULL: everybody
 * @return       bytes of the frame
 */
uint32_t chp_channel_frame_build(void *frame, uint32_t payload_len, bool is_host, const uint8_t from[6],
				 const uint8_t *to);

/**
 * Check a frame that arrived.
 *
 * @param is_host      which end this is
 * @param payload_len  set to the length of the packet, which begins CHP_CHANNEL_FRAME_BYTES into the frame
 * @return             CHP_CHANNEL_COUNTER_COUNT if it is one, else the counter of what is wrong
 */
enum chp_channel_counter chp_channel_frame_check(const void *frame, uint32_t len, bool is_host,
						 uint32_t payload_bytes_max, uint32_t *payload_len);

#endif /* CHP_CHANNEL_FRAME_H */
