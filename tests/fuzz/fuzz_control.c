/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Control packets into a membership of three or of one, in every state it can be in. The input
 * is a row of packets: u16 length, u8 source and choices, bytes. Most are given right checksums
 * and incarnations, so that they reach what is behind the checks.
 */
#include "base/assert.h"
#include "core/membership.h"

#include <string.h>

#define HASH 0x1234abcdu
#define NODES 3u
#define PAYLOAD CHP_PAYLOAD_BYTES_MIN
#define MS UINT64_C(1000000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum choice {
	CHOICE_SOURCE = 3,      /* two bits: node id of the source address */
	CHOICE_RAW = 1 << 2,    /* leave checksum and incarnations alone */
	CHOICE_PAD = 1 << 3,    /* zeros up to the full payload */
	CHOICE_OTHER = 1 << 4,  /* the sender is another process of its id */
	CHOICE_VIEW = 1 << 5,   /* name the right incarnations in a view */
	CHOICE_LATER = 1 << 6,  /* much time passes before */
};

static struct chp_membership m;

static void
send_all(uint64_t now_ns)
{
	static uint8_t to[PAYLOAD];
	uint32_t len, peer, n = 0;

	while ((len = chp_membership_transmit(&m, now_ns, to, &peer)) != 0) {
		CHP_ASSERT_OP(peer, <, NODES);
		CHP_ASSERT(chp_control_check(to, len, HASH, NODES) == CHP_PACKET_OK);
		n++;
		CHP_ASSERT_OP(n, <, 64u);
	}
}

/* Make a packet say what this membership believes. */
static void
make_right(uint8_t *packet, uint32_t len, uint8_t choices)
{
	struct chp_control_view *v = (void *)packet;
	struct chp_control_member *member = (void *)(v + 1);
	uint64_t other = (choices & CHOICE_OTHER) != 0 ? 10 : 0;

	v->header.prelude = (struct chp_prelude){
		.magic = CHP_WIRE_MAGIC,
		.version = CHP_WIRE_VERSION,
		.kind = CHP_PACKET_CONTROL,
		.cluster_hash = HASH,
	};
	v->header.from = choices & CHOICE_SOURCE;
	v->header.to = 0;
	v->header.tag_len = 0;
	v->header.from_incarnation = 100 + v->header.from + other;
	v->header.to_incarnation = m.incarnation;
	if ((choices & CHOICE_VIEW) == 0 || len < chp_control_view_bytes(NODES))
		return;
	v->epoch = 1;
	v->ballot = 0;
	v->voters = (1u << NODES) - 1;
	v->learners = 0;
	v->n_members = NODES;
	for (uint32_t i = 0; i < NODES; i++) {
		member[i].incarnation = i == 0 ? m.incarnation : 100 + i;
		member[i].writer = (uint16_t)(i + 1);
	}
	member[v->header.from].incarnation = v->header.from_incarnation;
}

/* Texts are made in every state. */
static void
look(uint64_t now_ns)
{
	char text[CHP_MEMBERSHIP_TEXT_BYTES];
	struct chp_text t = chp_text_of(text, sizeof(text));

	chp_membership_check(&m);
	chp_membership_waiting(&m, now_ns, &t);
	for (uint32_t i = 0; i < NODES; i++) {
		t = chp_text_of(text, sizeof(text));
		chp_membership_peer_text(&m, now_ns, i, &t);
	}
	while (chp_membership_report(&m) != NULL)
		;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t packet[CHP_PAYLOAD_BYTES_MAX + 64];
	struct chp_membership_config config = {
		.cluster_hash = HASH,
		.n_nodes = NODES,
		.payload_bytes = PAYLOAD,
		.incarnation = 100,
		.bootstrap = size % 2 == 0,
		.address = { 1, 2, 3 },
	};
	uint64_t now_ns = MS;

	chp_membership_init(&m, &config, now_ns);
	while (size >= 3) {
		uint32_t len = (uint32_t)(data[0] | data[1] << 8);
		uint8_t choices = data[2];

		data += 3;
		size -= 3;
		len = len > size ? (uint32_t)size : len;
		len = len > sizeof(packet) ? (uint32_t)sizeof(packet) : len;
		memset(packet, 0, sizeof(packet));
		memcpy(packet, data, len);
		data += len;
		size -= len;
		if ((choices & CHOICE_PAD) != 0)
			len = PAYLOAD;
		if ((choices & CHOICE_RAW) == 0 && len >= sizeof(struct chp_control_header)) {
			make_right(packet, len, choices);
			chp_control_seal(packet, len);
		}
		now_ns += (choices & CHOICE_LATER) != 0 ? 2500 * MS : MS;
		chp_membership_tick(&m, now_ns);
		chp_membership_receive(&m, now_ns, packet, len, choices & CHOICE_SOURCE);
		send_all(now_ns);
		look(now_ns);
	}
	return 0;
}
