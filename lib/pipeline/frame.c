/* SPDX-License-Identifier: BSD-3-Clause */
#include "pipeline/frame.h"

#include "base/assert.h"

#include <string.h>

#define ETHER_IPV4 0x0800u
#define ETHER_ARP 0x0806u
#define ETHER_VLAN 0x8100u
#define ETHER_QINQ 0x88a8u
#define ETHER_IPV6 0x86ddu

#define IP_VERSION_IHL 0x45u /* version 4, five words: no options */
#define IP_DF 0x4000u
#define IP_FRAGMENT 0x3fffu /* more fragments, and the offset */
#define IP_TTL 64u
#define IP_ICMP 1u
#define IP_UDP 17u
#define ICMP_ECHO_REQUEST 8u

uint16_t
chp_internet_checksum(const void *data, uint32_t len, uint64_t sum)
{
	const uint8_t *p = data;

	for (; len >= 4; len -= 4, p += 4) {
		uint32_t word;

		memcpy(&word, p, sizeof(word));
		sum += word;
	}
	if (len >= 2) {
		uint16_t half;

		memcpy(&half, p, sizeof(half));
		sum += half;
		p += 2;
		len -= 2;
	}
	if (len > 0)
		sum += *p;
	while (sum >> 16 != 0)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* The pseudo-header of UDP as a sum of words; the length in network order, as the words are. */
static uint64_t
pseudo_sum(const struct chp_ipv4 *ip, uint16_t udp_len_be)
{
	return (uint64_t)ip->from + ip->to + chp_be16(IP_UDP) + udp_len_be;
}

static bool
udp_checksum_ok(const struct chp_frame *f)
{
	uint32_t len = chp_be16(f->udp.len);

	return f->udp.checksum == 0 ||
	       chp_internet_checksum(&f->udp, len, pseudo_sum(&f->ip, f->udp.len)) == 0;
}

static enum chp_frame_class
drop(enum chp_pipeline_counter *why, enum chp_pipeline_counter cause)
{
	*why = cause;
	return CHP_FRAME_DROPPED;
}

static enum chp_frame_class
classify_arp(const void *data, uint32_t len, enum chp_pipeline_counter *why)
{
	const struct chp_arp *a = data;

	if (len < sizeof(*a) || a->hardware != chp_be16(1) || a->protocol != chp_be16(ETHER_IPV4) ||
	    a->hardware_len != CHP_MAC_BYTES || a->protocol_len != sizeof(uint32_t))
		return drop(why, CHP_COUNT_drop_arp);
	return CHP_FRAME_ARP;
}

static enum chp_frame_class
classify_udp(const struct chp_frame *f, uint32_t ip_len, enum chp_frame_trust trust,
	     enum chp_pipeline_counter *why)
{
	uint32_t room = ip_len - (uint32_t)sizeof(f->ip);

	if (room < sizeof(f->udp) || chp_be16(f->udp.len) < sizeof(f->udp) ||
	    chp_be16(f->udp.len) > room)
		return drop(why, CHP_COUNT_drop_udp_length);
	if (trust == CHP_TRUST_NONE && !udp_checksum_ok(f))
		return drop(why, CHP_COUNT_drop_udp_checksum);
	return CHP_FRAME_UDP;
}

static enum chp_frame_class
classify_icmp(const struct chp_icmp *i, uint32_t ip_len, enum chp_pipeline_counter *why)
{
	uint32_t room = ip_len - (uint32_t)sizeof(i->ip);

	if (room < sizeof(*i) - sizeof(i->ether) - sizeof(i->ip) || i->type != ICMP_ECHO_REQUEST ||
	    i->code != 0 || chp_internet_checksum(&i->type, room, 0) != 0)
		return drop(why, CHP_COUNT_drop_ip_protocol);
	return CHP_FRAME_ECHO;
}

static enum chp_frame_class
classify_ipv4(const void *data, uint32_t len, uint32_t address, enum chp_frame_trust trust,
	      enum chp_pipeline_counter *why)
{
	const struct chp_frame *f = data;
	uint32_t ip_len;

	if (len < sizeof(f->ether) + sizeof(f->ip))
		return drop(why, CHP_COUNT_drop_runt);
	ip_len = chp_be16(f->ip.len);
	if (f->ip.version_ihl != IP_VERSION_IHL)
		return drop(why, f->ip.version_ihl > IP_VERSION_IHL && f->ip.version_ihl <= 0x4f
					 ? CHP_COUNT_drop_ip_options
					 : CHP_COUNT_drop_ip_header);
	if (ip_len < sizeof(f->ip) || ip_len > len - sizeof(f->ether))
		return drop(why, CHP_COUNT_drop_ip_length);
	if (f->ip.to != chp_be32(address))
		return drop(why, CHP_COUNT_drop_not_ours);
	if (trust == CHP_TRUST_NONE && chp_internet_checksum(&f->ip, sizeof(f->ip), 0) != 0)
		return drop(why, CHP_COUNT_drop_ip_checksum);
	if ((f->ip.fragment & chp_be16(IP_FRAGMENT)) != 0)
		return drop(why, CHP_COUNT_drop_ip_fragment);
	if (f->ip.protocol == IP_UDP)
		return classify_udp(f, ip_len, trust, why);
	if (f->ip.protocol == IP_ICMP)
		return classify_icmp(data, ip_len, why);
	return drop(why, CHP_COUNT_drop_ip_protocol);
}

static enum chp_frame_class
classify_direct(const struct chp_direct *d, uint32_t len, const uint8_t mac[CHP_MAC_BYTES],
		enum chp_pipeline_counter *why)
{
	if (len < sizeof(*d))
		return drop(why, CHP_COUNT_drop_runt);
	if (d->subtype != chp_be16(CHP_DIRECT_SUBTYPE))
		return drop(why, CHP_COUNT_drop_ether_type); /* somebody else's experiment */
	if (d->version != CHP_DIRECT_VERSION)
		return drop(why, CHP_COUNT_drop_version);
	/* A switch floods what it has not learnt yet, and a port may be promiscuous. */
	if (memcmp(d->ether.to, mac, CHP_MAC_BYTES) != 0)
		return drop(why, CHP_COUNT_drop_not_ours);
	if (chp_be16(d->len) > len - sizeof(*d))
		return drop(why, CHP_COUNT_drop_direct_length);
	return CHP_FRAME_DIRECT;
}

enum chp_frame_class
chp_frame_classify(const void *data, uint32_t len, const struct chp_frame_from *self, enum chp_frame_trust trust,
		   enum chp_pipeline_counter *why)
{
	const struct chp_ether *e = data;

	if (len < sizeof(*e))
		return drop(why, CHP_COUNT_drop_runt);
	switch (chp_be16(e->type)) {
	case ETHER_IPV4:
		return classify_ipv4(data, len, self->address, trust, why);
	case CHP_ETHER_DIRECT:
		return classify_direct(data, len, self->mac, why);
	case ETHER_ARP:
		return classify_arp(data, len, why);
	case ETHER_VLAN:
	case ETHER_QINQ:
		return drop(why, CHP_COUNT_drop_vlan);
	case ETHER_IPV6:
		return drop(why, CHP_COUNT_drop_ipv6);
	default:
		return drop(why, CHP_COUNT_drop_ether_type);
	}
}

void
chp_frame_address(const void *data, struct chp_address *to)
{
	const struct chp_frame *f = data;

	*to = (struct chp_address){
		.ip = f->ip.from,
		.port = f->udp.from,
		.local_port = f->udp.to,
	};
	memcpy(to->mac, f->ether.from, CHP_MAC_BYTES);
}

void
chp_frame_build(void *data, uint32_t payload_len, const struct chp_frame_from *from,
		const struct chp_address *to, bool udp_checksum)
{
	struct chp_frame *f = data;
	uint32_t udp_len = payload_len + (uint32_t)sizeof(f->udp);

	CHP_ASSERT_OP(payload_len, <=, CHP_PAYLOAD_BYTES_MAX);
	memcpy(f->ether.to, to->mac, CHP_MAC_BYTES);
	memcpy(f->ether.from, from->mac, CHP_MAC_BYTES);
	f->ether.type = chp_be16(ETHER_IPV4);
	f->ip = (struct chp_ipv4){
		.version_ihl = IP_VERSION_IHL,
		.len = chp_be16((uint16_t)(udp_len + sizeof(f->ip))),
		.fragment = chp_be16(IP_DF),
		.ttl = IP_TTL,
		.protocol = IP_UDP,
		.from = chp_be32(from->address),
		.to = to->ip,
	};
	f->ip.checksum = chp_internet_checksum(&f->ip, sizeof(f->ip), 0);
	f->udp = (struct chp_udp){
		.from = to->local_port,
		.to = to->port,
		.len = chp_be16((uint16_t)udp_len),
	};
	if (udp_checksum) {
		f->udp.checksum =
			chp_internet_checksum(&f->udp, udp_len, pseudo_sum(&f->ip, f->udp.len));
		if (f->udp.checksum == 0)
			f->udp.checksum = 0xffff; /* 0 would mean "none" */
	}
}

void
chp_frame_direct(void *data, uint32_t payload_len, const struct chp_frame_from *self,
		 const uint8_t mac[CHP_MAC_BYTES], uint32_t from, uint32_t to, uint32_t shard)
{
	struct chp_direct *d = data;

	CHP_ASSERT_OP(payload_len, <=, CHP_PAYLOAD_BYTES_MAX);
	*d = (struct chp_direct){
		.ether.type = chp_be16(CHP_ETHER_DIRECT),
		.subtype = chp_be16(CHP_DIRECT_SUBTYPE),
		.version = CHP_DIRECT_VERSION,
		.from = (uint8_t)from,
		.to = (uint8_t)to,
		.shard = chp_be16((uint16_t)shard),
		.len = chp_be16((uint16_t)payload_len),
	};
	memcpy(d->ether.to, mac, CHP_MAC_BYTES);
	memcpy(d->ether.from, self->mac, CHP_MAC_BYTES);
}

void
chp_frame_offload(void *data)
{
	struct chp_frame *f = data;

	f->ip.checksum = 0;
	f->udp.checksum = (uint16_t)~chp_internet_checksum(NULL, 0, pseudo_sum(&f->ip, f->udp.len));
}

uint32_t
chp_frame_echo(void *data, const struct chp_frame_from *from)
{
	struct chp_icmp *i = data;
	uint32_t ip_len = chp_be16(i->ip.len);
	uint32_t asker = i->ip.from;

	memcpy(i->ether.to, i->ether.from, CHP_MAC_BYTES);
	memcpy(i->ether.from, from->mac, CHP_MAC_BYTES);
	i->ip.from = i->ip.to;
	i->ip.to = asker;
	i->ip.ttl = IP_TTL;
	i->ip.checksum = 0;
	i->ip.checksum = chp_internet_checksum(&i->ip, sizeof(i->ip), 0);
	i->type = 0;
	i->checksum = 0;
	i->checksum = chp_internet_checksum(&i->type, ip_len - (uint32_t)sizeof(i->ip), 0);
	return ip_len + (uint32_t)sizeof(i->ether);
}

void
chp_frame_arp(void *data, enum chp_arp_operation operation, const struct chp_frame_from *from,
	      const uint8_t *mac, uint32_t ip)
{
	struct chp_arp *a = data;

	if (mac != NULL)
		memcpy(a->ether.to, mac, CHP_MAC_BYTES);
	else
		memset(a->ether.to, 0xff, CHP_MAC_BYTES);
	memcpy(a->ether.from, from->mac, CHP_MAC_BYTES);
	a->ether.type = chp_be16(ETHER_ARP);
	a->hardware = chp_be16(1);
	a->protocol = chp_be16(ETHER_IPV4);
	a->hardware_len = CHP_MAC_BYTES;
	a->protocol_len = sizeof(uint32_t);
	a->operation = chp_be16((uint16_t)operation);
	memcpy(a->sender_mac, from->mac, CHP_MAC_BYTES);
	a->sender_ip = chp_be32(from->address);
	if (mac != NULL)
		memcpy(a->target_mac, mac, CHP_MAC_BYTES);
	else
		memset(a->target_mac, 0, CHP_MAC_BYTES);
	a->target_ip = chp_be32(ip);
}
