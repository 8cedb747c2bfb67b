/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * limits.h - every maximum of the system, each with its reason.
 *
 * A limit that a user can lower is a key of the configuration (docs/config.md); what stands here is
 * the largest value that key may have, or a limit that nobody can change.
 */
#ifndef CHP_BASE_LIMITS_H
#define CHP_BASE_LIMITS_H

/* Our structures are laid out for 64-byte lines, whatever the DPDK build says (arm64 Debian: 128). */
#define CHP_CACHE_LINE 64u

/* Members of a cluster: a node set is one 64-bit word. */
#define CHP_NODES_MAX 64u
/* Replicas of an all-live protocol: every write waits for all of them, so more is never useful. */
#define CHP_REPLICAS_MAX 8u
/* Shards: one per lcore that runs one; port_base is aligned to this or less, see CHP_PORTS_EXTRA. */
#define CHP_SHARDS_MAX 64u
/* UDP ports after the shards' own: control (port_base + S') and any-shard (+ 1), S' = S rounded up. */
#define CHP_PORTS_EXTRA 2u

/* Keys: 1..250 bytes, as memcached; the length fits one byte. */
#define CHP_KEY_BYTES_MAX 250u
/* Values: a message of the largest key and value must fit one packet of the smallest MTU. */
#define CHP_VALUE_BYTES_MAX 1024u
#define CHP_RECORD_BYTES_MAX (CHP_KEY_BYTES_MAX + CHP_VALUE_BYTES_MAX)

/* A packet's UDP payload. 9216 is the largest MTU that common switches carry. */
#define CHP_MTU_MIN 1500u
#define CHP_MTU_MAX 9216u
#define CHP_IP_UDP_BYTES 28u
#define CHP_PAYLOAD_BYTES_MIN (CHP_MTU_MIN - CHP_IP_UDP_BYTES)
#define CHP_PAYLOAD_BYTES_MAX (CHP_MTU_MAX - CHP_IP_UDP_BYTES)

/* Messages that the core hands to a protocol in one call: the bulk look-up of rte_hash takes 64. */
#define CHP_BATCH_MAX 64u

/* Packets a link may have in flight: the selective acknowledgement is one 64-bit word. */
#define CHP_LINK_WINDOW_MAX 64u
/* Operations a peer may have begun here and not finished, per (peer, shard). 16 bits of op index. */
#define CHP_CREDITS_MAX 4096u
/*
 * Room in a cache behind what is admitted, in what the whole cluster may have in flight. Once it may be taken for good:
 * who admits does not know of what others have admitted. What is sent again after a view change needs it once more, and
 * what peers are granted a third time (SAFETY 12).
 */
#define CHP_HEADROOMS 3u
/* Client operations that wait or run in one shard. */
#define CHP_OPS_MAX 65536u
/* Log entries of one shard: 16 Mi entries of 128 bytes are 2 GiB. */
#define CHP_LOG_ENTRIES_MAX (1u << 24)
/* Keys of one shard: the index into the slots is 32 bits and rte_hash takes 2^30 entries. */
#define CHP_KEYS_MAX (1u << 29)
/* Value blocks of one shard: indices are 32 bits, one value is "none". */
#define CHP_BLOCKS_MAX (1u << 30)
/* Bytes of state that a learner asks a peer for at a time: more would hold up what is behind it. */
#define CHP_COPY_BYTES_MAX (1u << 20)
/* Keys of one shard that may be asked for of the host at a time: a token has room for their index and a generation. */
#define CHP_LOADS_MAX 65536u
/* Sessions of one shard, and the requests one session may have in flight. */
#define CHP_SESSIONS_MAX (1u << 20)
#define CHP_SESSION_WINDOW_MAX 1024u

/* Tries of a read-modify-write that others overtake before the client is told "busy". */
#define CHP_RMW_TRIES_MAX 64u

/* Client packets that one shard takes in one batch before it looks at its peers again. */
#define CHP_BURST_MAX 32u

/* The cluster's name and other names in configuration files. */
#define CHP_NAME_BYTES_MAX 63u

#endif /* CHP_BASE_LIMITS_H */
