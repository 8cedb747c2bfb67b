/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a port may bring: every kind of bad frame is dropped and counted by its own cause, and nothing else
 * is counted.
 */
#include "caller.h"

#include "base/assert.h"

#include <criterion/criterion.h>
#include <string.h>

#define CLUSTER                                                                                    \
	"\"keys_max\": 4096, \"value_blocks_max\": 4096, \"sessions_max\": 64, "                    \
	"\"session_window\": 16, \"credits\": 64,"
#define NODE "\"rx_ring\": 256, \"tx_ring\": 256, \"stage_ring\": 256," LOCAL_PATIENT

static struct local l;
static struct caller c;

static void
start(const char *node)
{
	struct local_options o = { .replicas = 3, .shards = 1, .cluster = CLUSTER, .node = node };
	struct chp_error error = { 0 };

	cr_assert(caller_start_eal("0"));
	cr_assert_eq(local_create(&l, &o, &error), 0, "%s", error.text);
	cr_assert_eq(caller_init(&c, &l), 0);
	cr_assert(local_wait_serving(&l));
}

/* The sum of everything that replica 0 dropped. */
static uint64_t
all_drops(void)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < CHP_COUNT_COUNT; i++) {
		if (strncmp(chp_counter_name(i), "drop_", 5) == 0)
			sum += chp_pipeline_count(l.replica[0], i);
	}
	return sum;
}

/* A frame that is being spoilt: a good request or a good packet of a peer at first. */
struct subject {
	uint8_t bytes[2048];
	uint32_t len;
};

static struct chp_frame *
frame_of(struct subject *s)
{
	return (void *)s->bytes;
}

static void
good_request(struct subject *s)
{
	caller_begin(&c, 0, 0, 0, 0, 0);
	caller_add(&c, CHP_OPCODE_GET, "key", NULL, 0, 1);
	(void)caller_finish(&c);
	s->len = c.m->data_len;
	memcpy(s->bytes, rte_pktmbuf_mtod(c.m, const void *), s->len);
	rte_pktmbuf_free(c.m);
	c.m = NULL;
}

/* Headers anew for a payload of this length, right in every checksum. */
static void
rebuild(struct subject *s, uint32_t payload_len, uint32_t source, uint32_t port)
{
	const struct chp_frame_from from = { .mac = { 2, 0, 10, 0, 0, 200 }, .address = source };
	struct chp_address to = {
		.ip = chp_be32(0x0a000001),
		.port = chp_be16((uint16_t)(7168 + port)),
		.local_port = chp_be16(CALLER_PORT),
		.mac = { 2, 0, 10, 0, 0, 1 },
	};

	chp_frame_build(s->bytes, payload_len, &from, &to, true);
	s->len = CHP_FRAME_BYTES + payload_len;
}

static void
good_peer(struct subject *s)
{
	struct chp_peer_header h = {
		.prelude = { .magic = CHP_WIRE_MAGIC,
			     .version = CHP_WIRE_VERSION,
			     .kind = CHP_PACKET_PEER,
			     .cluster_hash = l.cluster.hash },
		.from = 1,
		.to = 0,
	};

	memset(s->bytes, 0, sizeof(s->bytes));
	memcpy(s->bytes + CHP_FRAME_BYTES, &h, sizeof(h));
	chp_peer_seal(s->bytes + CHP_FRAME_BYTES, sizeof(h));
	rebuild(s, sizeof(h), 0x0a000002, 0);
}

static struct chp_peer_header *
peer_of(struct subject *s)
{
	return (void *)(s->bytes + CHP_FRAME_BYTES);
}

static struct chp_request_header *
request_of(struct subject *s)
{
	return (void *)(s->bytes + CHP_FRAME_BYTES);
}

/* Send it; exactly this counter must rise, by one, and no other drop. */
static void
expect(struct subject *s, enum chp_pipeline_counter counter, const char *what)
{
	uint64_t before = chp_pipeline_count(l.replica[0], counter), all = all_drops();

	caller_send_raw(&c, s->bytes, s->len);
	caller_poll(&c, 4);
	if (counter == CHP_COUNT_rx_peer) /* real peers may talk at the same time */
		cr_expect_gt(chp_pipeline_count(l.replica[0], counter), before, "%s", what);
	else
		cr_expect_eq(chp_pipeline_count(l.replica[0], counter), before + 1, "%s: %s", what,
			     chp_counter_name(counter));
	cr_expect_eq(all_drops(), all + (strncmp(chp_counter_name(counter), "drop_", 5) == 0), "%s", what);
}

static void
fix_ip(struct subject *s)
{
	struct chp_frame *f = frame_of(s);

	f->ip.checksum = 0;
	f->ip.checksum = chp_internet_checksum(&f->ip, sizeof(f->ip), 0);
}

/* ------------------------------------------------------------------ the cases */

Test(rx, ethernet)
{
	static const struct {
		uint16_t type;
		enum chp_pipeline_counter counter;
	} cases[] = {
		{ 0x8100, CHP_COUNT_drop_vlan },
		{ 0x88a8, CHP_COUNT_drop_vlan },
		{ 0x86dd, CHP_COUNT_drop_ipv6 },
		{ 0x88cc, CHP_COUNT_drop_ether_type },
	};
	struct subject s;

	start(NODE);
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(cases); i++) {
		good_request(&s);
		frame_of(&s)->ether.type = chp_be16(cases[i].type);
		expect(&s, cases[i].counter, "type");
	}
	good_request(&s);
	s.len = 10;
	expect(&s, CHP_COUNT_drop_runt, "half an Ethernet header");
	good_request(&s);
	s.len = 30;
	expect(&s, CHP_COUNT_drop_runt, "half an IPv4 header");
	good_request(&s);
	expect(&s, CHP_COUNT_rx_client, "the good one");
	local_destroy(&l);
}

Test(rx, more_than_one_segment)
{
	uint64_t before;
	struct rte_mbuf *m, *tail;
	struct subject s;

	start(NODE);
	good_request(&s);
	m = rte_pktmbuf_alloc(c.pool);
	tail = rte_pktmbuf_alloc(c.pool);
	memcpy(rte_pktmbuf_append(m, (uint16_t)s.len), s.bytes, s.len);
	cr_assert(rte_pktmbuf_append(tail, 10) != NULL);
	cr_assert_eq(rte_pktmbuf_chain(m, tail), 0);
	before = chp_pipeline_count(l.replica[0], CHP_COUNT_drop_segments);
	cr_assert(ring_net_send(&l.net, m));
	caller_poll(&c, 4);
	cr_assert_eq(chp_pipeline_count(l.replica[0], CHP_COUNT_drop_segments), before + 1);
	local_destroy(&l);
}

Test(rx, ipv4)
{
	struct subject s;

	start(NODE);
	good_request(&s);
	frame_of(&s)->ip.version_ihl = 0x65;
	expect(&s, CHP_COUNT_drop_ip_header, "version 6");
	good_request(&s);
	frame_of(&s)->ip.version_ihl = 0x44;
	expect(&s, CHP_COUNT_drop_ip_header, "four words");
	good_request(&s);
	frame_of(&s)->ip.version_ihl = 0x46;
	expect(&s, CHP_COUNT_drop_ip_options, "six words");
	good_request(&s);
	frame_of(&s)->ip.len = chp_be16(1400);
	fix_ip(&s);
	expect(&s, CHP_COUNT_drop_ip_length, "longer than the frame");
	good_request(&s);
	frame_of(&s)->ip.len = chp_be16(19);
	fix_ip(&s);
	expect(&s, CHP_COUNT_drop_ip_length, "shorter than its header");
	good_request(&s);
	s.len -= 1;
	expect(&s, CHP_COUNT_drop_ip_length, "truncated");
	good_request(&s);
	frame_of(&s)->ip.checksum ^= 1;
	expect(&s, CHP_COUNT_drop_ip_checksum, "checksum");
	good_request(&s);
	frame_of(&s)->ip.fragment = chp_be16(0x2000);
	fix_ip(&s);
	expect(&s, CHP_COUNT_drop_ip_fragment, "first fragment");
	good_request(&s);
	frame_of(&s)->ip.fragment = chp_be16(185);
	fix_ip(&s);
	expect(&s, CHP_COUNT_drop_ip_fragment, "last fragment");
	good_request(&s);
	frame_of(&s)->ip.protocol = 6;
	fix_ip(&s);
	expect(&s, CHP_COUNT_drop_ip_protocol, "TCP");
	good_request(&s);
	frame_of(&s)->ip.to = chp_be32(0x0a000063);
	fix_ip(&s);
	expect(&s, CHP_COUNT_drop_not_ours, "another address");
	local_destroy(&l);
}

Test(rx, udp)
{
	struct subject s;

	start(NODE);
	good_request(&s);
	frame_of(&s)->udp.len = chp_be16(1400);
	expect(&s, CHP_COUNT_drop_udp_length, "longer than the packet");
	good_request(&s);
	frame_of(&s)->udp.len = chp_be16(7);
	expect(&s, CHP_COUNT_drop_udp_length, "shorter than its header");
	good_request(&s);
	s.bytes[s.len - 1] ^= 1;
	expect(&s, CHP_COUNT_drop_udp_checksum, "a changed byte");
	good_request(&s);
	frame_of(&s)->udp.checksum = 0;
	expect(&s, CHP_COUNT_rx_client, "no checksum");
	good_request(&s);
	memset(s.bytes + s.len, 0xee, 20);
	s.len += 20;
	expect(&s, CHP_COUNT_rx_client, "padding behind the packet");
	good_request(&s);
	rebuild(&s, s.len - CHP_FRAME_BYTES, CALLER_ADDRESS, 3);
	expect(&s, CHP_COUNT_drop_udp_port, "a port that nothing uses");
	local_destroy(&l);
}

Test(rx, checksums_are_not_looked_at_when_off)
{
	struct subject s;

	start(NODE "\"rx_checksum\": \"off\",");
	good_request(&s);
	s.bytes[s.len - 1] ^= 1;
	expect(&s, CHP_COUNT_rx_client, "a changed byte");
	good_request(&s);
	frame_of(&s)->ip.checksum ^= 1;
	expect(&s, CHP_COUNT_rx_client, "IPv4 checksum");
	local_destroy(&l);
}

Test(rx, requests)
{
	struct subject s;

	start(NODE);
	good_request(&s);
	rebuild(&s, 4, CALLER_ADDRESS, 0);
	expect(&s, CHP_COUNT_drop_short, "half a prelude");
	good_request(&s);
	rebuild(&s, 20, CALLER_ADDRESS, 0);
	expect(&s, CHP_COUNT_drop_short, "half a header");
	good_request(&s);
	rebuild(&s, 1473, CALLER_ADDRESS, 0);
	expect(&s, CHP_COUNT_drop_long, "beyond the MTU");
	good_request(&s);
	request_of(&s)->prelude.magic++;
	rebuild(&s, s.len - CHP_FRAME_BYTES, CALLER_ADDRESS, 0);
	expect(&s, CHP_COUNT_drop_magic, "magic");
	good_request(&s);
	request_of(&s)->prelude.version++;
	rebuild(&s, s.len - CHP_FRAME_BYTES, CALLER_ADDRESS, 0);
	expect(&s, CHP_COUNT_drop_version, "version");
	good_request(&s);
	request_of(&s)->prelude.kind = CHP_PACKET_REPLY;
	rebuild(&s, s.len - CHP_FRAME_BYTES, CALLER_ADDRESS, 0);
	expect(&s, CHP_COUNT_drop_kind, "a reply");
	good_request(&s);
	request_of(&s)->prelude.cluster_hash++;
	rebuild(&s, s.len - CHP_FRAME_BYTES, CALLER_ADDRESS, 0);
	expect(&s, CHP_COUNT_drop_cluster, "another cluster");
	good_request(&s);
	request_of(&s)->prelude.cluster_hash = 0;
	rebuild(&s, s.len - CHP_FRAME_BYTES, CALLER_ADDRESS, 0);
	expect(&s, CHP_COUNT_rx_client, "a client that does not know the cluster yet");
	good_request(&s);
	request_of(&s)->tag_len = 16;
	rebuild(&s, s.len - CHP_FRAME_BYTES, CALLER_ADDRESS, 0);
	expect(&s, CHP_COUNT_drop_auth, "a tag");
	good_request(&s);
	rebuild(&s, sizeof(struct chp_request_header), CALLER_ADDRESS, 1);
	expect(&s, CHP_COUNT_drop_message, "no request on the control port");
	local_destroy(&l);
}

static void
reseal(struct subject *s, uint32_t payload_len, uint32_t source, uint32_t port)
{
	chp_peer_seal(s->bytes + CHP_FRAME_BYTES, payload_len);
	rebuild(s, payload_len, source, port);
}

Test(rx, packets_of_peers)
{
	const uint32_t len = sizeof(struct chp_peer_header), peer = 0x0a000002;
	struct subject s;

	start(NODE);
	good_peer(&s);
	expect(&s, CHP_COUNT_rx_peer, "the good one");
	good_peer(&s);
	peer_of(&s)->ack ^= 1;
	rebuild(&s, len, peer, 0);
	expect(&s, CHP_COUNT_drop_crc, "a changed byte");
	good_peer(&s);
	peer_of(&s)->prelude.cluster_hash ^= 1;
	reseal(&s, len, peer, 0);
	expect(&s, CHP_COUNT_drop_cluster, "another cluster");
	good_peer(&s);
	peer_of(&s)->tag_len = 8;
	reseal(&s, len, peer, 0);
	expect(&s, CHP_COUNT_drop_auth, "a tag");
	good_peer(&s);
	peer_of(&s)->from = 7;
	reseal(&s, len, peer, 0);
	expect(&s, CHP_COUNT_drop_node, "no member");
	good_peer(&s);
	reseal(&s, len, 0x0a000003, 0);
	expect(&s, CHP_COUNT_drop_node, "another member's address");
	good_peer(&s);
	peer_of(&s)->to = 2;
	reseal(&s, len, peer, 0);
	expect(&s, CHP_COUNT_drop_node, "for another node");
	good_peer(&s);
	peer_of(&s)->shard = 1;
	reseal(&s, len, peer, 0);
	expect(&s, CHP_COUNT_drop_shard, "no such shard");
	good_peer(&s);
	peer_of(&s)->seq = 1;
	reseal(&s, len + 4, peer, 0);
	expect(&s, CHP_COUNT_drop_message, "half a message");
	good_peer(&s);
	rebuild(&s, len - 8, peer, 0);
	expect(&s, CHP_COUNT_drop_short, "half a header");
	good_peer(&s);
	reseal(&s, len, peer, 1);
	expect(&s, CHP_COUNT_drop_kind, "on the control port");
	good_peer(&s);
	reseal(&s, len, peer, 2);
	expect(&s, CHP_COUNT_drop_kind, "on the any-shard port");
	local_destroy(&l);
}

/* ------------------------------------------------------------------ raw Ethernet */

static struct chp_direct *
direct_of(struct subject *s)
{
	return (void *)s->bytes;
}

static struct chp_peer_header *
direct_peer_of(struct subject *s)
{
	return (void *)(s->bytes + CHP_DIRECT_BYTES);
}

/* A packet of replica 1 without messages, as it would come without IPv4. */
static void
good_direct(struct subject *s)
{
	const struct chp_frame_from from = { .mac = { 2, 0, 10, 0, 0, 2 } };
	const uint8_t to[CHP_MAC_BYTES] = { 2, 0, 10, 0, 0, 1 };
	uint8_t header[sizeof(struct chp_peer_header)];

	good_peer(s);
	memcpy(header, peer_of(s), sizeof(header));
	memset(s->bytes, 0, sizeof(s->bytes));
	memcpy(direct_peer_of(s), header, sizeof(header));
	chp_frame_direct(s->bytes, sizeof(header), &from, to, 1, 0, 0);
	s->len = CHP_DIRECT_BYTES + (uint32_t)sizeof(header);
}

static void
reseal_direct(struct subject *s, uint32_t payload_len)
{
	chp_peer_seal(s->bytes + CHP_DIRECT_BYTES, payload_len);
	direct_of(s)->len = chp_be16((uint16_t)payload_len);
	s->len = CHP_DIRECT_BYTES + payload_len;
}

Test(rx, raw_frames_of_peers)
{
	uint64_t direct, mixed;
	struct subject s;

	start(NODE);
	direct = chp_pipeline_count(l.replica[0], CHP_COUNT_rx_direct);
	mixed = chp_pipeline_count(l.replica[0], CHP_COUNT_rx_mixed);
	good_direct(&s);
	expect(&s, CHP_COUNT_rx_peer, "the good one, though this node sends over UDP");
	good_direct(&s);
	memset(s.bytes + s.len, 0xee, 20);
	s.len += 20;
	expect(&s, CHP_COUNT_rx_peer, "padding behind the packet");
	cr_expect_eq(chp_pipeline_count(l.replica[0], CHP_COUNT_rx_direct), direct + 2);
	cr_expect_eq(chp_pipeline_count(l.replica[0], CHP_COUNT_rx_mixed), mixed + 2);
	good_direct(&s);
	s.len = CHP_DIRECT_BYTES - 1;
	expect(&s, CHP_COUNT_drop_runt, "half a header of the frame");
	good_direct(&s);
	s.len--;
	expect(&s, CHP_COUNT_drop_direct_length, "truncated");
	good_direct(&s);
	direct_of(&s)->len = 0xffff;
	expect(&s, CHP_COUNT_drop_direct_length, "longer than the frame");
	good_direct(&s);
	direct_of(&s)->subtype ^= 1;
	expect(&s, CHP_COUNT_drop_ether_type, "somebody else's experiment");
	good_direct(&s);
	direct_of(&s)->ether.type = chp_be16(0x88b6);
	expect(&s, CHP_COUNT_drop_ether_type, "the other experimental EtherType");
	good_direct(&s);
	direct_of(&s)->version++;
	expect(&s, CHP_COUNT_drop_version, "another version of the frame");
	good_direct(&s);
	memmove(s.bytes + 16, s.bytes + 12, s.len - 12);
	memcpy(s.bytes + 12, (const uint8_t[]){ 0x81, 0, 0, 7 }, 4);
	s.len += 4;
	expect(&s, CHP_COUNT_drop_vlan, "a VLAN tag");
	local_destroy(&l);
}

Test(rx, raw_frames_for_and_from_others)
{
	struct subject s;

	start(NODE);
	good_direct(&s);
	direct_of(&s)->to = 2;
	expect(&s, CHP_COUNT_drop_node, "the frame says it is for another node");
	good_direct(&s);
	direct_of(&s)->from = 2;
	expect(&s, CHP_COUNT_drop_node, "the frame says it is from another node");
	good_direct(&s);
	direct_peer_of(&s)->from = direct_of(&s)->from = 7;
	reseal_direct(&s, sizeof(struct chp_peer_header));
	expect(&s, CHP_COUNT_drop_node, "no member");
	good_direct(&s);
	direct_peer_of(&s)->to = 2;
	reseal_direct(&s, sizeof(struct chp_peer_header));
	expect(&s, CHP_COUNT_drop_node, "the packet is for another node");
	good_direct(&s);
	direct_of(&s)->ether.from[5] = 3;
	expect(&s, CHP_COUNT_drop_node, "another member's MAC address");
	good_direct(&s);
	direct_of(&s)->ether.from[5] = 99;
	expect(&s, CHP_COUNT_drop_node, "a stranger's MAC address");
	good_direct(&s);
	direct_of(&s)->shard = chp_be16(CHP_DIRECT_CONTROL);
	((struct chp_prelude *)(void *)direct_peer_of(&s))->kind = CHP_PACKET_CONTROL;
	direct_of(&s)->ether.from[5] = 99;
	expect(&s, CHP_COUNT_drop_node, "a stranger's packet of membership");
	local_destroy(&l);
}

Test(rx, raw_frames_with_something_else_in_them)
{
	const uint32_t len = sizeof(struct chp_peer_header);
	struct subject s;

	start(NODE);
	good_direct(&s);
	direct_of(&s)->shard = chp_be16(1);
	expect(&s, CHP_COUNT_drop_shard, "the frame says another shard than the packet");
	good_direct(&s);
	direct_peer_of(&s)->shard = 1;
	direct_of(&s)->shard = chp_be16(1);
	reseal_direct(&s, len);
	expect(&s, CHP_COUNT_drop_shard, "no such shard");
	good_direct(&s);
	direct_of(&s)->shard = chp_be16(CHP_DIRECT_CONTROL);
	expect(&s, CHP_COUNT_drop_kind, "a packet of a shard for control");
	good_direct(&s);
	direct_peer_of(&s)->prelude.kind = CHP_PACKET_REQUEST;
	expect(&s, CHP_COUNT_drop_kind, "a request");
	good_direct(&s);
	direct_peer_of(&s)->ack ^= 1;
	expect(&s, CHP_COUNT_drop_crc, "a changed byte");
	good_direct(&s);
	direct_peer_of(&s)->prelude.magic ^= 1;
	expect(&s, CHP_COUNT_drop_magic, "magic");
	good_direct(&s);
	direct_peer_of(&s)->prelude.cluster_hash ^= 1;
	expect(&s, CHP_COUNT_drop_cluster, "another cluster");
	good_direct(&s);
	reseal_direct(&s, 1473);
	expect(&s, CHP_COUNT_drop_long, "longer than over UDP");
	good_direct(&s);
	direct_of(&s)->len = chp_be16((uint16_t)(len - 8));
	expect(&s, CHP_COUNT_drop_short, "half a header");
	good_direct(&s);
	direct_of(&s)->len = 0;
	expect(&s, CHP_COUNT_drop_short, "nothing");
	/* Last: from now on the switch knows a wrong way to replica 0's address. */
	good_direct(&s);
	memset(direct_of(&s)->ether.to, 0xff, CHP_MAC_BYTES);
	expect(&s, CHP_COUNT_drop_not_ours, "a broadcast");
	local_destroy(&l);
}

Test(rx, wrong_requests_get_a_status)
{
	char long_value[1100];
	static const struct {
		uint8_t opcode;
		const char *key, *value;
		uint16_t shard;
		uint8_t status;
	} cases[] = {
		{ 99, "key", NULL, 0, CHP_STATUS_UNKNOWN_OP },
		{ CHP_OPCODE_STATUS, NULL, NULL, 0, CHP_STATUS_UNKNOWN_OP },
		{ CHP_OPCODE_GET, NULL, NULL, 0, CHP_STATUS_BAD_KEY },
		{ CHP_OPCODE_GET, "key", "value", 0, CHP_STATUS_BAD_REQUEST },
		{ CHP_OPCODE_CAS, "missing", "value", 0, CHP_STATUS_NOT_FOUND },
		{ CHP_OPCODE_GET, "key", NULL, 7, CHP_STATUS_WRONG_SHARD },
		{ CHP_OPCODE_PING, NULL, NULL, 0, CHP_STATUS_OK },
	};

	start(NODE);
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(cases); i++) {
		const struct caller_reply *r;

		caller_begin(&c, 0, 0, 0, 0, cases[i].shard);
		caller_add(&c, cases[i].opcode, cases[i].key, cases[i].value, 1, 100 + i);
		caller_send(&c);
		r = caller_wait(&c, 100 + i);
		cr_assert(r != NULL, "case %u", i);
		cr_expect_eq(r->status, cases[i].status, "case %u: %s", i, chp_status_name(r->status));
		cr_expect_eq(r->opcode, cases[i].opcode);
	}
	memset(long_value, 'x', sizeof(long_value));
	long_value[1025] = '\0';
	caller_begin(&c, 0, 0, 0, 0, 0);
	caller_add(&c, CHP_OPCODE_PUT, "key", long_value, 0, 200);
	caller_send(&c);
	cr_assert(caller_wait(&c, 200) != NULL);
	cr_assert_eq(c.reply[200].status, CHP_STATUS_TOO_LARGE);
	local_destroy(&l);
}

/* ------------------------------------------------------------------ neighbours and echo */

static void
arp(uint32_t sender, const uint8_t mac[6], enum chp_arp_operation operation, uint32_t target)
{
	const struct chp_frame_from from = {
		.mac = { mac[0], mac[1], mac[2], mac[3], mac[4], mac[5] },
		.address = sender,
	};
	uint8_t frame[60] = { 0 };

	chp_frame_arp(frame, operation, &from, NULL, target);
	caller_send_raw(&c, frame, sizeof(frame));
	caller_poll(&c, 8);
}

Test(rx, arp_requests_are_answered)
{
	static const uint8_t mac[6] = { 2, 0, 10, 0, 0, 200 };
	const struct chp_arp *a;

	start(NODE);
	arp(CALLER_ADDRESS, mac, CHP_ARP_REQUEST, 0x0a000001);
	cr_assert(c.other != NULL);
	a = rte_pktmbuf_mtod(c.other, const void *);
	cr_assert_geq(c.other->data_len, 60);
	cr_assert_eq(a->operation, chp_be16(CHP_ARP_REPLY));
	cr_assert_eq(a->sender_ip, chp_be32(0x0a000001));
	cr_assert_eq(a->target_ip, chp_be32(CALLER_ADDRESS));
	cr_assert_arr_eq(a->ether.to, mac, 6);
	cr_assert_arr_eq(a->target_mac, mac, 6);
	cr_assert_eq(a->sender_mac[5], 1);
	cr_assert_eq(a->sender_mac[4], 0);
	local_destroy(&l);
}

Test(rx, a_gratuitous_arp_moves_a_peer_that_does_not_answer)
{
	static const uint8_t mac[6] = { 2, 0, 10, 0, 0, 77 };
	uint64_t before;

	start(NODE);
	before = chp_pipeline_count(l.replica[0], CHP_COUNT_arp_learned);
	arp(0x0a000002, mac, CHP_ARP_REQUEST, 0x0a000002);
	arp(0x0a000002, mac, CHP_ARP_REPLY, 0x0a000002);
	cr_assert_eq(chp_pipeline_count(l.replica[0], CHP_COUNT_arp_learned), before);
	local_kill(&l, 1);
	for (uint32_t i = 0; i < 100000 && chp_pipeline_count(l.replica[0], CHP_COUNT_arp_learned) == before; i++)
		arp(0x0a000002, mac, CHP_ARP_REPLY, 0x0a000002);
	cr_assert_eq(chp_pipeline_count(l.replica[0], CHP_COUNT_arp_learned), before + 1);
	arp(0x0a0000aa, mac, CHP_ARP_REPLY, 0x0a000001);
	cr_assert_eq(chp_pipeline_count(l.replica[0], CHP_COUNT_arp_learned), before + 1);
	local_destroy(&l);
}

Test(rx, another_host_with_our_address_is_reported)
{
	static const uint8_t mac[6] = { 2, 0, 10, 0, 0, 78 };
	uint32_t reports;

	start(NODE);
	reports = l.reports;
	arp(0x0a000001, mac, CHP_ARP_REPLY, 0x0a000001);
	arp(0x0a000001, mac, CHP_ARP_REPLY, 0x0a000001);
	cr_assert_eq(chp_pipeline_count(l.replica[0], CHP_COUNT_arp_conflicts), 2u);
	cr_assert_eq(l.reports, reports + 1);
	cr_assert(strstr(l.last_report, "02:00:0a:00:00:4e") != NULL, "%s", l.last_report);
	local_destroy(&l);
}

Test(rx, malformed_arp)
{
	struct subject s = { .len = 60 };
	const struct chp_frame_from from = { .mac = { 2 }, .address = CALLER_ADDRESS };

	start(NODE);
	chp_frame_arp(s.bytes, CHP_ARP_REQUEST, &from, NULL, 0x0a000001);
	((struct chp_arp *)(void *)s.bytes)->hardware = chp_be16(6);
	memcpy(s.bytes, (const uint8_t[]){ 2, 0, 10, 0, 0, 1 }, 6);
	expect(&s, CHP_COUNT_drop_arp, "not Ethernet");
	local_destroy(&l);
}

static void
make_echo(struct subject *s, uint32_t bytes)
{
	struct chp_icmp *i = (void *)s->bytes;

	good_request(s);
	i->ip.protocol = 1;
	i->ip.len = chp_be16((uint16_t)(20 + 8 + bytes));
	i->ip.checksum = 0;
	i->ip.checksum = chp_internet_checksum(&i->ip, 20, 0);
	i->type = 8;
	i->code = 0;
	i->rest = 0x12345678;
	memset(i + 1, 0x5a, bytes);
	i->checksum = 0;
	i->checksum = chp_internet_checksum(&i->type, 8 + bytes, 0);
	s->len = 14 + 20 + 8 + bytes;
}

Test(rx, echo_requests_are_answered)
{
	const struct chp_icmp *i;
	struct subject s;

	start(NODE);
	make_echo(&s, 57);
	caller_send_raw(&c, s.bytes, s.len);
	caller_poll(&c, 8);
	cr_assert(c.other != NULL);
	i = rte_pktmbuf_mtod(c.other, const void *);
	cr_assert_eq(i->type, 0);
	cr_assert_eq(i->rest, 0x12345678u);
	cr_assert_eq(i->ip.from, chp_be32(0x0a000001));
	cr_assert_eq(i->ip.to, chp_be32(CALLER_ADDRESS));
	cr_assert_eq(chp_internet_checksum(&i->ip, 20, 0), 0);
	cr_assert_eq(chp_internet_checksum(&i->type, 8 + 57, 0), 0);
	cr_assert_eq(c.other->data_len, s.len);
	cr_assert_eq(chp_pipeline_count(l.replica[0], CHP_COUNT_icmp_replies), 1u);
	make_echo(&s, 57);
	((struct chp_icmp *)(void *)s.bytes)->checksum ^= 1;
	expect(&s, CHP_COUNT_drop_ip_protocol, "wrong ICMP checksum");
	make_echo(&s, 57);
	frame_of(&s)->ip.fragment = chp_be16(0x2000);
	fix_ip(&s);
	expect(&s, CHP_COUNT_drop_ip_fragment, "a fragment of an echo request");
	local_destroy(&l);
}
