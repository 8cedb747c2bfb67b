/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * frame.h - Ethernet, ARP, IPv4, ICMP and UDP, and our own frames: what stands around our packets.
 *
 * Pure: bytes and lengths, no DPDK, no state. Numbers in these headers are big-endian. A frame that was
 * classified as UDP has a header of exactly CHP_FRAME_BYTES in front of its payload, one that was
 * classified as direct CHP_DIRECT_BYTES.
 */
#ifndef CHP_PIPELINE_FRAME_H
#define CHP_PIPELINE_FRAME_H

#include "base/bytes.h"
#include "base/limits.h"
#include "pipeline/counters.h"

#include <stdbool.h>
#include <stdint.h>

#define CHP_MAC_BYTES 6u

struct chp_ether {
	uint8_t to[CHP_MAC_BYTES];
	uint8_t from[CHP_MAC_BYTES];
	uint16_t type;
} CHP_PACKED;

struct chp_arp {
	struct chp_ether ether;
	uint16_t hardware, protocol;
	uint8_t hardware_len, protocol_len;
	uint16_t operation;
	uint8_t sender_mac[CHP_MAC_BYTES];
	uint32_t sender_ip;
	uint8_t target_mac[CHP_MAC_BYTES];
	uint32_t target_ip;
} CHP_PACKED;

struct chp_ipv4 {
	uint8_t version_ihl;
	uint8_t tos;
	uint16_t len;
	uint16_t id;
	uint16_t fragment;
	uint8_t ttl;
	uint8_t protocol;
	uint16_t checksum;
	uint32_t from;
	uint32_t to;
} CHP_PACKED;

struct chp_udp {
	uint16_t from;
	uint16_t to;
	uint16_t len;
	uint16_t checksum;
} CHP_PACKED;

/* Ethernet, IPv4 without options, UDP. */
struct chp_frame {
	struct chp_ether ether;
	struct chp_ipv4 ip;
	struct chp_udp udp;
} CHP_PACKED;

struct chp_icmp {
	struct chp_ether ether;
	struct chp_ipv4 ip;
	uint8_t type;
	uint8_t code;
	uint16_t checksum;
	uint32_t rest;
} CHP_PACKED;

/*
 * The first of the two EtherTypes that IEEE 802 gives to whoever experiments in a network of his own. Our own
 * would have to be bought; this one may be used by others, so the header behind it begins with what the standard
 * asks for in such protocols, a subtype and a version, and a frame with another subtype is nobody's error.
 */
#define CHP_ETHER_DIRECT 0x88b5u
#define CHP_DIRECT_SUBTYPE 0x4348u /* the bytes 'C' 'H' */
#define CHP_DIRECT_VERSION 1u

/*
 * Ethernet and the header of a packet between replicas without IPv4 and UDP. It says what their addresses and
 * ports would: from whom, to whom, for which shard, how long.
 */
struct chp_direct {
	struct chp_ether ether;
	uint16_t subtype;
	uint8_t version;
	uint8_t from;     /* node ids */
	uint8_t to;
	uint8_t reserved; /* 0 */
	uint16_t shard;   /* or CHP_DIRECT_CONTROL */
	uint16_t len;     /* bytes of the packet behind this header: Ethernet pads short frames */
} CHP_PACKED;

#define CHP_DIRECT_CONTROL 0xffffu

#define CHP_FRAME_BYTES ((uint32_t)sizeof(struct chp_frame))
#define CHP_DIRECT_BYTES ((uint32_t)sizeof(struct chp_direct))
_Static_assert(sizeof(struct chp_direct) == 24, "wire format");
_Static_assert(sizeof(struct chp_direct) < sizeof(struct chp_frame), "a packet between replicas fits either way");
_Static_assert(sizeof(struct chp_frame) == 42, "wire format");
_Static_assert(sizeof(struct chp_arp) == 42, "wire format");
_Static_assert(sizeof(struct chp_icmp) == 42, "wire format");

static inline uint16_t
chp_be16(uint16_t x)
{
	return __builtin_bswap16(x);
}

static inline uint32_t
chp_be32(uint32_t x)
{
	return __builtin_bswap32(x);
}

enum chp_frame_class {
	CHP_FRAME_UDP,     /* a whole UDP datagram to our address */
	CHP_FRAME_ARP,     /* a well-formed ARP packet for IPv4 over Ethernet */
	CHP_FRAME_ECHO,    /* a whole ICMP echo request to our address */
	CHP_FRAME_DIRECT,  /* a whole packet of a replica to our MAC address, without IPv4 */
	CHP_FRAME_DROPPED, /* anything else */
};

/* What the receiver knows about checksums. */
enum chp_frame_trust {
	CHP_TRUST_ALL,  /* do not look */
	CHP_TRUST_NONE, /* compute them */
};

/* Who we are: the constant part of the headers that we send. */
struct chp_frame_from {
	uint8_t mac[CHP_MAC_BYTES];
	uint32_t address; /* host byte order */
};

/**
 * Say what a frame is.
 *
 * @param data   len bytes
 * @param self   our addresses
 * @param trust  whether IPv4 and UDP checksums are computed; a UDP checksum of 0 is accepted always
 * @param why    set with CHP_FRAME_DROPPED: the counter of the cause
 *
 * Bytes behind the IPv4 packet, or behind the length of a direct frame, are padding. Afterwards
 * chp_frame_payload_len or chp_frame_packet gives the length of what is inside.
 */
enum chp_frame_class chp_frame_classify(const void *data, uint32_t len, const struct chp_frame_from *self,
					enum chp_frame_trust trust, enum chp_pipeline_counter *why);

/* Bytes of the datagram of a frame that is CHP_FRAME_UDP. */
static inline uint32_t
chp_frame_payload_len(const void *data)
{
	const struct chp_frame *f = data;

	return (uint32_t)chp_be16(f->udp.len) - (uint32_t)sizeof(struct chp_udp);
}

static inline uint8_t *
chp_frame_payload(void *data)
{
	return (uint8_t *)data + CHP_FRAME_BYTES;
}

/* Whether a frame that was classified came without IPv4. */
static inline bool
chp_frame_is_direct(const void *data)
{
	return ((const struct chp_ether *)data)->type == chp_be16(CHP_ETHER_DIRECT);
}

/* The packet of a replica in a frame that is CHP_FRAME_UDP or CHP_FRAME_DIRECT, and its length. */
static inline const uint8_t *
chp_frame_packet(const void *data, uint32_t *len)
{
	const struct chp_direct *d = data;

	if (chp_frame_is_direct(data)) {
		*len = chp_be16(d->len);
		return (const uint8_t *)data + CHP_DIRECT_BYTES;
	}
	*len = chp_frame_payload_len(data);
	return (const uint8_t *)data + CHP_FRAME_BYTES;
}

/* A UDP endpoint and the port that it talks to: what a reply to a datagram needs. Never looked into
 * outside the pipeline; 20 bytes as in struct chp_origin. */
struct chp_address {
	uint32_t ip;          /* big-endian, as in the frame */
	uint16_t port;        /* theirs, big-endian */
	uint16_t local_port;  /* ours, big-endian: a connected socket wants replies from where it sent */
	uint8_t mac[CHP_MAC_BYTES];
	uint8_t reserved[6];  /* 0: addresses are compared as bytes */
} CHP_PACKED;

_Static_assert(sizeof(struct chp_address) == 20, "struct chp_origin has room for it");

/** Where the datagram of a frame came from. */
void chp_frame_address(const void *data, struct chp_address *to);

/**
 * Write the headers of a datagram of payload_len bytes: DF set, IPv4 checksum computed.
 *
 * @param data         CHP_FRAME_BYTES and the payload behind them
 * @param udp_checksum whether to compute it, otherwise 0 ("none"), which IPv4 allows
 */
void chp_frame_build(void *data, uint32_t payload_len, const struct chp_frame_from *from,
		     const struct chp_address *to, bool udp_checksum);

/**
 * Write the header of a packet of payload_len bytes to another replica, without IPv4.
 *
 * @param data      CHP_DIRECT_BYTES and the packet behind them
 * @param from, to  node ids
 * @param shard     or CHP_DIRECT_CONTROL
 */
void chp_frame_direct(void *data, uint32_t payload_len, const struct chp_frame_from *self,
		      const uint8_t mac[CHP_MAC_BYTES], uint32_t from, uint32_t to, uint32_t shard);

/** Prepare the checksum fields for a port that computes them. */
void chp_frame_offload(void *data);

/** Turn an accepted echo request into its reply, in place. Returns the frame's length. */
uint32_t chp_frame_echo(void *data, const struct chp_frame_from *from);

enum chp_arp_operation {
	CHP_ARP_REQUEST = 1,
	CHP_ARP_REPLY = 2,
};

/**
 * Write an ARP packet of sizeof(struct chp_arp) bytes.
 *
 * @param mac  whom it goes to, also the target; NULL = broadcast, target unknown
 * @param ip   the target, host byte order
 */
void chp_frame_arp(void *data, enum chp_arp_operation operation, const struct chp_frame_from *from,
		   const uint8_t *mac, uint32_t ip);

/** The Internet checksum over len bytes, continued from a sum of 16-bit words (0 to start). */
uint16_t chp_internet_checksum(const void *data, uint32_t len, uint64_t sum);

#endif /* CHP_PIPELINE_FRAME_H */
