/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * channel.h - moves packets between a replica, on the DPU, and the datastore interface, on its host.
 *
 * A packet is what a UDP payload is between replicas: a CHP_PACKET_HOST or CHP_PACKET_HOST_HELLO (wire/host.h), sealed
 * by its sender (chp_peer_seal writes the checksum of both kinds) and checked by its receiver (chp_host_check,
 * chp_host_hello_check). Packets of all shards share one channel.
 *
 * A channel may lose, duplicate and reorder packets, and throw them away when the other end is slow or gone: the links
 * of the shards (core/link.h) make that good. So a channel keeps nothing for later, has no acknowledgements, and says
 * with its state only what people and back-off want to know. What it never does is to change a packet, or to give one
 * that is longer than payload_bytes_max. Either end may die and come back as often as it likes: a channel goes down and
 * up by itself, in the other three calls, and is opened once.
 *
 * A transport is one file with a struct chp_channel_ops:
 *   port.c    an Ethernet device of DPDK: vhost and virtio-user, a scalable function towards a function of the host
 *   rdma.c    RDMA WRITE with immediate into a ring that the peer registered
 *   memory.c  both ends in one process, for tests
 *
 * Thread rule: one thread at a time uses a channel; after open() it may be another one than before. Only the counters
 * may be read by any thread at any time. Nothing blocks for longer than the system call that it is made of, but open()
 * and close(), which wait for devices.
 *
 * Memory: from open() to close(); nothing allocates between them, except to connect anew after the other end was lost.
 */
#ifndef CHP_CHANNEL_CHANNEL_H
#define CHP_CHANNEL_CHANNEL_H

#include "base/limits.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Packets that one call sends or receives at most; more wait for the next call. */
#define CHP_CHANNEL_BURST 32u
/* Received packets that the owner may hold at a time without releasing them: what a batch of one shard takes, twice. */
#define CHP_CHANNEL_LENT_MAX 128u
/* One line for people, what is wrong and what would be right. */
#define CHP_CHANNEL_TEXT_BYTES 256u

struct chp_channel_packet {
	uint8_t *data; /* received: valid until it is released, and the owner may write into it */
	uint32_t len;
	void *opaque;  /* received: the transport's; sent: not looked at */
};

enum chp_channel_state {
	CHP_CHANNEL_DOWN = 0,   /* the other end is not there */
	CHP_CHANNEL_UP = 1,     /* packets may arrive there; whether anybody looks at them, HELLO tells */
	CHP_CHANNEL_BROKEN = 2, /* this end cannot go on: the device is gone. Only close() is left to do */
};

/* name, help. Those that begin with drop_ are packets that went nowhere. */
#define CHP_CHANNEL_COUNTERS(X)                                                          \
	X(tx_packets, "packets given to the transport")                                  \
	X(tx_bytes, "bytes of them")                                                     \
	X(tx_bursts, "calls that sent something")                                        \
	X(tx_full, "calls that the transport did not take everything of")                \
	X(tx_no_buffer, "packets not taken for want of a buffer, among these")           \
	X(dma_copies, "packets copied by the DMA device")                                \
	X(rx_packets, "packets taken from the transport")                                \
	X(rx_bytes, "bytes of them")                                                     \
	X(rx_bursts, "calls that received something")                                    \
	X(ups, "times that the other end came")                                          \
	X(downs, "times that it was lost")                                               \
	X(refused, "connections refused, by either end: the state says why")             \
	X(drop_tx_down, "packets not sent because the other end is not there")           \
	X(drop_rx_runt, "frames or buffers shorter than their header")                   \
	X(drop_rx_type, "frames of another type, or of another version of this one")     \
	X(drop_rx_side, "frames of an end like this one: two replicas or two hosts are connected") \
	X(drop_rx_length, "packets that are shorter than they say, or longer than may be") \
	X(drop_rx_segments, "frames in more than one piece")

enum chp_channel_counter {
#define CHP_COUNTER_FIELD(name, help) CHP_CHANNEL_##name,
	CHP_CHANNEL_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
	CHP_CHANNEL_COUNTER_COUNT, /* how many there are */
};

/* Everything that any transport wants to know; each says what it looks at. Not kept after open(). */
struct chp_channel_config {
	bool is_host;               /* this is the end of chaapar-host; false: the replica's */
	uint32_t payload_bytes_max; /* of a packet: MTU - 28, CHP_PAYLOAD_BYTES_MIN..MAX, equal at both ends */
	const char *name;           /* unique in the process, at most 8 characters: names of pools */
	uint32_t ring;              /* packets under way in each direction, a power of two; 0: 1024 */
	/* port */
	const char *port;           /* DPDK's name of the device, as net_vhost0 */
	const char *dma;            /* DPDK's name of a DMA device that copies large batches; NULL: none */
	/* rdma: the replica listens, the host connects there. `ring` = buffers of each direction */
	uint32_t address;           /* IPv4 that the replica listens at, host byte order; 0 there: any */
	uint32_t service;           /* RDMA port number there */
	uint32_t cluster_hash;      /* an end with another one is refused */
};

/* What went wrong in open(). */
struct chp_channel_error {
	bool is_usage; /* the configuration asks for what cannot be; else a resource is missing */
	char text[CHP_CHANNEL_TEXT_BYTES];
};

struct chp_channel;

struct chp_channel_ops {
	const char *name; /* "port", "rdma", as in configuration files */

	/**
	 * Set up this end. The other one need not be there yet.
	 *
	 * @return  NULL with *error, one line that says what to change: a device that does not exist or is too small
	 *          for the packets, an address that is not ours, no memory. Nothing is left behind then
	 */
	struct chp_channel *(*open)(const struct chp_channel_config *config, struct chp_channel_error *error);

	/** Give up this end; received packets that were not released become invalid. */
	void (*close)(struct chp_channel *ch);

	/**
	 * Send packets. Their bytes are read before this returns: the memory stays the caller's. 1 <= len <=
	 * payload_bytes_max.
	 *
	 * @return  how many were taken, the first of them. The others may be offered again when the transport has
	 *          room, or dropped. While the other end is not there all are taken, and dropped (drop_tx_down)
	 */
	uint32_t (*send)(struct chp_channel *ch, const struct chp_channel_packet *packets, uint32_t n);

	/**
	 * Receive up to n packets: they are the caller's until it releases them. Also does what the transport has to
	 * do from time to time, so it is called while nothing is expected, too.
	 *
	 * @return  how many; 0 while CHP_CHANNEL_LENT_MAX are not released
	 */
	uint32_t (*receive)(struct chp_channel *ch, struct chp_channel_packet *packets, uint32_t n);

	/** Give back received packets, in any order, also in parts of what one call received. */
	void (*release)(struct chp_channel *ch, const struct chp_channel_packet *packets, uint32_t n);

	/** How the channel is. `text`, if not NULL: why, for people; valid until the next call. */
	enum chp_channel_state (*state)(struct chp_channel *ch, const char **text);
};

/* What all transports have; the first member of theirs. */
struct chp_channel {
	const struct chp_channel_ops *ops;
	uint32_t payload_bytes_max;
	bool is_host;
	/* Written by the owner with relaxed stores. */
	_Alignas(CHP_CACHE_LINE) _Atomic(uint64_t) count[CHP_CHANNEL_COUNTER_COUNT];
};

static inline void
chp_channel_count(struct chp_channel *ch, enum chp_channel_counter which, uint64_t n)
{
	uint64_t old = atomic_load_explicit(&ch->count[which], memory_order_relaxed);

	atomic_store_explicit(&ch->count[which], old + n, memory_order_relaxed);
}

/** Any thread. */
static inline uint64_t
chp_channel_counter(const struct chp_channel *ch, enum chp_channel_counter which)
{
	return atomic_load_explicit(&ch->count[which], memory_order_relaxed);
}

static inline void
chp_channel_close(struct chp_channel *ch)
{
	if (ch != NULL)
		ch->ops->close(ch);
}

static inline uint32_t
chp_channel_send(struct chp_channel *ch, const struct chp_channel_packet *packets, uint32_t n)
{
	return ch->ops->send(ch, packets, n);
}

static inline uint32_t
chp_channel_receive(struct chp_channel *ch, struct chp_channel_packet *packets, uint32_t n)
{
	return ch->ops->receive(ch, packets, n);
}

static inline void
chp_channel_release(struct chp_channel *ch, const struct chp_channel_packet *packets, uint32_t n)
{
	ch->ops->release(ch, packets, n);
}

static inline enum chp_channel_state
chp_channel_state(struct chp_channel *ch, const char **text)
{
	return ch->ops->state(ch, text);
}

/** A transport by its name in configuration files; NULL when there is none. */
const struct chp_channel_ops *chp_channel_find(const char *name);

/** Names as in the list, "drop_tx_down"; help likewise. Static storage. */
const char *chp_channel_counter_name(enum chp_channel_counter which);
const char *chp_channel_counter_help(enum chp_channel_counter which);

/** "down", "up", "broken". Static storage. */
const char *chp_channel_state_name(enum chp_channel_state state);

#endif /* CHP_CHANNEL_CHANNEL_H */
