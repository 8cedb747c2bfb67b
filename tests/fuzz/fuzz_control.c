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
#define LEASE (300 * MS)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum choice {
	CHOICE_SOURCE = 3,      /* two bits: node id of the source address */
	CHOICE_RAW = 1 << 2,    /* leave checksum and incarnations alone */
	CHOICE_PAD = 1 << 3,    /* zeros up to the full payload */
	CHOICE_OTHER = 1 << 4,  /* the sender is another process of its id */
	CHOICE_VIEW = 1 << 5,   /* name the right incarnations in a view */
	CHOICE_LATER = 1 << 6,  /* time passes before: twice, and who is silent is suspected */
	CHOICE_BEHIND = 1 << 7, /* the sender is in the view before */
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

/* The view of a packet: its masks are the input's, its processes those of the view in force. */
static void
make_view(struct chp_control_view *v, uint8_t choices)
{
	struct chp_control_member *member = (void *)(v + 1);
	const struct chp_view *view = &m.view;
	bool first = v->header.type == CHP_CONTROL_FOUNDING || view->epoch == 0;
	uint16_t next_writer = first ? NODES + 1 : view->next_writer;

	v->epoch = first ? 1 : view->epoch + 1;
	v->voters = first ? (1u << NODES) - 1 : v->voters % (1u << NODES);
	v->learners = first ? 0 : v->learners % (1u << NODES) & ~v->voters;
	v->n_members = NODES;
	for (uint32_t i = 0; i < NODES; i++) {
		bool live = ((v->voters | v->learners) & chp_bit(i)) != 0;

		member[i].incarnation = !live ? 0 : i == 0 ? m.incarnation : 100 + i;
		member[i].writer = (uint16_t)(i + 1);
		if (live && !first && view->incarnation[i] != 0) {
			member[i].incarnation = view->incarnation[i];
			member[i].writer = view->writer[i];
		} else if (live && !first) {
			member[i].incarnation = i == 0 ? m.incarnation : m.peer[i].incarnation | 1;
			member[i].writer = next_writer++;
		}
	}
	v->next_writer = next_writer;
	if ((choices & CHOICE_OTHER) != 0 || first)
		member[v->header.from].incarnation = v->header.from_incarnation;
}

/* Ballots that may be answers to ours, or begin another. */
static uint64_t
make_ballot(uint64_t ballot, const struct chp_control_header *h)
{
	switch (h->type) {
	case CHP_CONTROL_PREPARE:
	case CHP_CONTROL_ACCEPT:
		return (ballot % 8 + 1) << 8 | h->from;
	case CHP_CONTROL_PROMISE:
	case CHP_CONTROL_ACCEPTED:
		return m.agreement.ballot;
	case CHP_CONTROL_REJECTED:
		return m.agreement.ballot + (ballot % 8 << 8);
	default:
		return 0;
	}
}

/* Make a packet say what this membership believes. */
static void
make_right(uint8_t *packet, uint32_t len, uint8_t choices, uint64_t now_ns)
{
	struct chp_control_header *h = (void *)packet;
	struct chp_control_view *v = (void *)packet;
	struct chp_control_ballot *b = (void *)packet;
	struct chp_control_heartbeat *beat = (void *)packet;
	struct chp_control_hello *hello = (void *)packet;
	uint32_t from = choices & CHOICE_SOURCE;

	h->prelude = (struct chp_prelude){
		.magic = CHP_WIRE_MAGIC,
		.version = CHP_WIRE_VERSION,
		.kind = CHP_PACKET_CONTROL,
		.cluster_hash = HASH,
	};
	h->from = (uint8_t)from;
	h->to = 0;
	h->tag_len = 0;
	h->from_incarnation = 100 + from;
	if (from < NODES && from > 0 && m.peer[from].incarnation != 0)
		h->from_incarnation = m.peer[from].incarnation;
	if ((choices & CHOICE_OTHER) != 0)
		h->from_incarnation += 10;
	h->to_incarnation = m.incarnation;
	h->epoch = m.view.epoch + h->epoch % 3;
	if (h->epoch > 0 && (choices & CHOICE_BEHIND) != 0)
		h->epoch--;
	if (h->type >= CHP_CONTROL_PREPARE && len >= sizeof(*b)) {
		b->epoch = h->epoch + 1;
		b->ballot = make_ballot(b->ballot, h);
	}
	if (h->type <= CHP_CONTROL_HELLO_SHORT && len >= sizeof(*hello) && hello->members_hash == 0)
		hello->members_hash = m.members_hash;
	if (h->type == CHP_CONTROL_HEARTBEAT || h->type == CHP_CONTROL_GRANT)
		beat->sent_ns = now_ns - beat->sent_ns % MS;
	if ((choices & CHOICE_VIEW) == 0 || len < chp_control_view_bytes(NODES) || from >= NODES)
		return;
	make_view(v, choices);
	v->ballot = make_ballot(v->ballot, h);
	v->accepted = h->type == CHP_CONTROL_PROMISE ? (v->accepted % 2 + 1) << 8 | 1 : 0;
}

/* Texts are made in every state. */
static void
look(uint64_t now_ns)
{
	char text[CHP_MEMBERSHIP_TEXT_BYTES];
	struct chp_text t = chp_text_of(text, sizeof(text));

	uint64_t until_ns = chp_membership_lease_until_ns(&m);

	chp_membership_check(&m);
	CHP_ASSERT(m.state == CHP_MEMBERSHIP_MEMBER || until_ns == 0);
	CHP_ASSERT_OP(until_ns, <=, now_ns + LEASE);
	chp_membership_waiting(&m, now_ns, &t);
	for (uint32_t i = 0; i < NODES; i++) {
		t = chp_text_of(text, sizeof(text));
		chp_membership_peer_text(&m, now_ns, i, &t);
	}
	while (chp_membership_report(&m) != NULL)
		;
}

/* A step of the detector at a time. */
static void
pass(uint64_t *now_ns, uint32_t steps)
{
	for (uint32_t i = 0; i < steps; i++) {
		*now_ns += steps == 1 ? MS : 101 * MS;
		chp_membership_tick(&m, *now_ns);
		send_all(*now_ns);
		chp_membership_check(&m);
	}
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
		.suspect_ns = 1000 * MS,
		.lease_ns = LEASE,
		.clock_drift_ppm = 500,
		.keeps_members = size / 2 % 2 == 1,
	};
	uint64_t now_ns = 1000 * MS;

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
			make_right(packet, len, choices, now_ns);
			chp_control_seal(packet, len);
		}
		pass(&now_ns, (choices & CHOICE_LATER) != 0 ? 6 : 1);
		chp_membership_set_ready(&m, now_ns, size % 3 == 0);
		chp_membership_receive(&m, now_ns, packet, len, choices & CHOICE_SOURCE);
		send_all(now_ns);
		look(now_ns);
	}
	return 0;
}
