/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * counters.h - what the pipeline counts: packets by kind, every drop by its cause, cycles by what for.
 *
 * One set per lcore, written by that lcore alone with relaxed stores and read by anyone with relaxed
 * loads: plain words, no read-modify-write. docs/troubleshooting.md says what to do about each.
 */
#ifndef CHP_PIPELINE_COUNTERS_H
#define CHP_PIPELINE_COUNTERS_H

#include "base/limits.h"

#include <stdatomic.h>
#include <stdint.h>

/* name, help. Those that begin with drop_ are packets that went nowhere. */
#define CHP_PIPELINE_COUNTERS(X)                                                                   \
	X(rx_packets, "frames taken from the port")                                                \
	X(rx_bytes, "bytes of them")                                                               \
	X(rx_peer, "packets of peers, passed to a shard")                                          \
	X(rx_direct, "frames of peers without IPv4, among rx_peer and rx_control")                 \
	X(rx_mixed, "packets of peers that came the other way, UDP or Ethernet, than this node's") \
	X(rx_client, "request datagrams, passed to a shard")                                       \
	X(rx_control, "packets passed to the control lcore")                                       \
	X(rx_host, "packets of the host, passed to a shard")                                       \
	X(drop_segments, "frames in more than one mbuf")                                           \
	X(drop_runt, "frames shorter than their headers")                                          \
	X(drop_vlan, "frames with a VLAN tag")                                                     \
	X(drop_ipv6, "IPv6 frames")                                                                \
	X(drop_ether_type, "frames of another Ethernet type")                                      \
	X(drop_arp, "ARP packets that are malformed")                                              \
	X(drop_ip_header, "IPv4 headers of another version or length")                             \
	X(drop_ip_options, "IPv4 packets with options")                                            \
	X(drop_ip_length, "IPv4 packets longer than their frame")                                  \
	X(drop_ip_checksum, "IPv4 headers with a wrong checksum")                                  \
	X(drop_ip_fragment, "IPv4 fragments")                                                      \
	X(drop_ip_protocol, "IPv4 packets that are neither UDP nor ICMP echo requests")            \
	X(drop_not_ours, "packets for another address")                                            \
	X(drop_direct_length, "frames of peers without IPv4 that are shorter than they say")       \
	X(drop_udp_length, "UDP lengths that contradict the IPv4 length")                          \
	X(drop_udp_checksum, "UDP datagrams with a wrong checksum")                                \
	X(drop_udp_port, "UDP datagrams to a port that nothing uses")                              \
	X(drop_short, "packets shorter than their header")                                         \
	X(drop_long, "packets longer than the cluster's MTU allows")                               \
	X(drop_magic, "packets that are not of this protocol")                                     \
	X(drop_version, "packets of another version of the protocol")                              \
	X(drop_kind, "packets of a kind that does not belong on their port")                       \
	X(drop_cluster, "packets of another cluster")                                              \
	X(drop_crc, "packets whose bytes changed on the way")                                      \
	X(drop_auth, "packets with an authentication tag, which this version does not know")       \
	X(drop_node, "packets of a node that is no member, has another address, or is not for us") \
	X(drop_shard, "packets of peers with a wrong shard number")                                \
	X(drop_message, "packets whose messages do not fit their length")                          \
	X(drop_peer_ring, "packets of peers dropped because a shard's ring was full")              \
	X(drop_client_ring, "request datagrams dropped because ring and TX were full")             \
	X(drop_control_ring, "packets dropped because the control lcore's ring was full")          \
	X(drop_host_ring, "packets of the host, or to it, dropped because a ring was full")        \
	X(drop_host_no_mbuf, "packets of the host dropped for want of an mbuf")                    \
	X(overload, "request datagrams answered \"overload\" because a shard's ring was full")     \
	X(stopping, "request datagrams answered \"not serving\" during an orderly stop")           \
	X(arp_requests, "ARP requests sent")                                                       \
	X(arp_replies, "ARP requests answered")                                                    \
	X(arp_learned, "times that a neighbour's MAC address was learnt or changed")               \
	X(arp_conflicts, "ARP packets of another host that uses our address")                      \
	X(icmp_replies, "ICMP echo requests answered")                                             \
	X(control_requests, "info and status requests answered")                                   \
	X(tx_packets, "frames given to the port")                                                  \
	X(tx_bytes, "bytes of them")                                                               \
	X(tx_host, "packets given to the channel to the host")                                     \
	X(drop_tx_port, "frames dropped because the port took none for 10 ms")                     \
	X(drop_tx_ring, "frames dropped because a ring to a TX stage was full")                    \
	X(drop_tx_neighbour, "packets to a peer whose MAC address is not known yet")               \
	X(tx_pauses, "times that a peer was asked to pause because a shard's ring filled up")      \
	X(tx_resumes, "times that it was asked to go on")                                          \
	X(tx_ring_short, "batches of a shard held back because its ring to TX was almost full")    \
	X(tx_pool_short, "batches of a shard with less mbufs to send from than it wanted")         \
	X(drop_no_mbuf, "control packets not sent for want of an mbuf")                            \
	X(impair_dropped, "packets dropped on purpose (impairment)")                               \
	X(impair_duplicated, "packets sent twice on purpose (impairment)")                         \
	X(impair_delayed, "packets delayed on purpose (impairment)")                               \
	X(impair_cut, "packets dropped because their link is cut on purpose")

enum chp_pipeline_counter {
#define CHP_COUNTER_FIELD(name, help) CHP_COUNT_##name,
	CHP_PIPELINE_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
	CHP_COUNT_COUNT, /* how many there are */
};

/* What an lcore's time goes to. Idle is polling without any work found. */
enum chp_cycles {
	CHP_CYCLES_PROTOCOL, /* inside chp_shard_run */
	CHP_CYCLES_NETWORK,  /* RX, TX and host stages: ports, headers, checksums */
	CHP_CYCLES_REST,     /* frontends, rings, buffers, control */
	CHP_CYCLES_IDLE,
	CHP_CYCLES_COUNT,
};

struct chp_counters {
	_Alignas(CHP_CACHE_LINE) _Atomic(uint64_t) count[CHP_COUNT_COUNT];
	_Atomic(uint64_t) cycles[CHP_CYCLES_COUNT]; /* TSC ticks */
};

/* Add to a counter of this lcore. */
static inline void
chp_count(struct chp_counters *c, enum chp_pipeline_counter which, uint64_t n)
{
	uint64_t old = atomic_load_explicit(&c->count[which], memory_order_relaxed);

	atomic_store_explicit(&c->count[which], old + n, memory_order_relaxed);
}

static inline void
chp_count_cycles(struct chp_counters *c, enum chp_cycles which, uint64_t ticks)
{
	uint64_t old = atomic_load_explicit(&c->cycles[which], memory_order_relaxed);

	atomic_store_explicit(&c->cycles[which], old + ticks, memory_order_relaxed);
}

/** Names as in the list, "drop_crc". Static storage. */
const char *chp_counter_name(enum chp_pipeline_counter which);

#endif /* CHP_PIPELINE_COUNTERS_H */
