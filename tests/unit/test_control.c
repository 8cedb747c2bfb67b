/* SPDX-License-Identifier: BSD-3-Clause */
/* Control packets: what chp_control_check accepts, and that it names the first thing wrong. */
#include "wire/control.h"

#include <criterion/criterion.h>
#include <string.h>

#define HASH 0x1234abcdu
#define NODES 3u
#define PAYLOAD 1472u

/* A packet of any type with room to spoil it. */
union packet {
	struct chp_control_header header;
	struct chp_control_hello hello;
	struct chp_control_view view;
	struct chp_control_ballot ballot;
	struct chp_control_heartbeat heartbeat;
	struct chp_control_grant grant;
	struct chp_control_refused refused;
	uint8_t bytes[CHP_PAYLOAD_BYTES_MAX + 8];
};

static union packet k;
static uint32_t k_len;

static enum chp_packet_error
check_sealed(void)
{
	chp_control_seal(&k, k_len);
	return chp_control_check(&k, k_len, HASH, NODES);
}

#define BALLOT(round, node) ((uint64_t)(round) << 8 | (node))

static void
make_view(void)
{
	struct chp_control_member *member = (void *)(&k.view + 1);

	k.view.epoch = 5;
	k.view.voters = 7;
	k.view.n_members = NODES;
	k.view.next_writer = NODES + 1;
	for (uint32_t i = 0; i < NODES; i++)
		member[i] = (struct chp_control_member){
			.incarnation = 100 + i,
			.writer = (uint16_t)(i + 1),
		};
	k_len = chp_control_view_bytes(NODES);
}

static void
make_ballot(uint64_t ballot)
{
	k.ballot.epoch = 5;
	k.ballot.ballot = ballot;
	k_len = sizeof(k.ballot);
}

static void
make(enum chp_control_type type)
{
	memset(&k, 0, sizeof(k));
	k.header = (struct chp_control_header){
		.prelude = {
			.magic = CHP_WIRE_MAGIC,
			.version = CHP_WIRE_VERSION,
			.kind = CHP_PACKET_CONTROL,
			.cluster_hash = HASH,
		},
		.from = 0,
		.to = 2,
		.type = (uint8_t)type,
		.from_incarnation = 100,
		.to_incarnation = 102,
		.epoch = 4,
	};
	switch (type) {
	case CHP_CONTROL_HELLO:
	case CHP_CONTROL_HELLO_SHORT:
		k.hello.n_members = NODES;
		k.hello.payload_bytes = PAYLOAD;
		k_len = type == CHP_CONTROL_HELLO ? PAYLOAD : (uint32_t)sizeof(k.hello);
		break;
	case CHP_CONTROL_FOUNDING:
	case CHP_CONTROL_DECIDED:
		make_view();
		break;
	case CHP_CONTROL_ACCEPT:
		make_view();
		k.view.ballot = BALLOT(1, 0);
		break;
	case CHP_CONTROL_PREPARE:
		make_ballot(BALLOT(1, 0));
		break;
	case CHP_CONTROL_PROMISE:
	case CHP_CONTROL_ACCEPTED:
	case CHP_CONTROL_REJECTED:
		make_ballot(BALLOT(1, 2));
		break;
	case CHP_CONTROL_HEARTBEAT:
		k.heartbeat.sent_ns = 1;
		k_len = sizeof(k.heartbeat);
		break;
	case CHP_CONTROL_GRANT:
		k.grant.sent_ns = 1;
		k.grant.lease_ns = 1;
		k_len = sizeof(k.grant);
		break;
	case CHP_CONTROL_REFUSED:
		k.refused.reason = CHP_REFUSED_ALIVE;
		k_len = sizeof(k.refused);
		break;
	case CHP_CONTROL_TYPES:
		break;
	}
}

/* A PROMISE of who had accepted something. */
static void
make_promise(void)
{
	make(CHP_CONTROL_PROMISE);
	make_view();
	k.view.ballot = BALLOT(3, 2);
	k.view.accepted = BALLOT(2, 1);
}

static const enum chp_control_type types[] = {
	CHP_CONTROL_HELLO,   CHP_CONTROL_HELLO_SHORT, CHP_CONTROL_FOUNDING, CHP_CONTROL_DECIDED,
	CHP_CONTROL_REFUSED, CHP_CONTROL_HEARTBEAT,   CHP_CONTROL_GRANT,    CHP_CONTROL_PREPARE,
	CHP_CONTROL_PROMISE, CHP_CONTROL_ACCEPT,      CHP_CONTROL_ACCEPTED, CHP_CONTROL_REJECTED,
};

Test(control, every_type_is_accepted)
{
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(types); i++) {
		make(types[i]);
		cr_assert_eq(check_sealed(), CHP_PACKET_OK, "type %u", types[i]);
	}
	make_promise();
	cr_assert_eq(check_sealed(), CHP_PACKET_OK);
	cr_assert_eq(CHP_ARRAY_LEN(types), CHP_CONTROL_TYPES - 1, "all are tested");
}

/* Spoil one thing at a time, in the order in which they are looked at. */
Test(control, header_errors_are_named)
{
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(types); i++) {
		make(types[i]);
		k.header.prelude.magic++;
		cr_assert_eq(check_sealed(), CHP_PACKET_MAGIC);
		make(types[i]);
		k.header.prelude.version++;
		cr_assert_eq(check_sealed(), CHP_PACKET_VERSION);
		make(types[i]);
		k.header.prelude.kind = CHP_PACKET_PEER;
		cr_assert_eq(check_sealed(), CHP_PACKET_KIND);
		make(types[i]);
		k.header.prelude.cluster_hash++;
		cr_assert_eq(check_sealed(), CHP_PACKET_CLUSTER);
		make(types[i]);
		k.header.tag_len = 16;
		cr_assert_eq(check_sealed(), CHP_PACKET_AUTH);
		make(types[i]);
		k.header.from = NODES;
		cr_assert_eq(check_sealed(), CHP_PACKET_NODE);
		make(types[i]);
		k.header.to = NODES;
		cr_assert_eq(check_sealed(), CHP_PACKET_NODE);
		make(types[i]);
		k.header.to = k.header.from;
		cr_assert_eq(check_sealed(), CHP_PACKET_NODE);
		make(types[i]);
		k.header.from_incarnation = 0;
		cr_assert_eq(check_sealed(), CHP_PACKET_MESSAGE);
	}
}

Test(control, every_changed_byte_is_noticed)
{
	make_promise();
	cr_assert_eq(check_sealed(), CHP_PACKET_OK);
	for (uint32_t i = 0; i < k_len * 8; i++) {
		k.bytes[i / 8] ^= (uint8_t)(1u << i % 8);
		cr_assert_neq(chp_control_check(&k, k_len, HASH, NODES), CHP_PACKET_OK);
		k.bytes[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	cr_assert_eq(chp_control_check(&k, k_len, HASH, NODES), CHP_PACKET_OK);
}

Test(control, every_other_length_is_refused)
{
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(types); i++) {
		uint32_t right;

		make(types[i]);
		right = k_len;
		for (k_len = 0; k_len < sizeof(k); k_len++) {
			enum chp_packet_error e = CHP_PACKET_MESSAGE;

			if (k_len == right)
				continue;
			if (k_len < sizeof(k.header))
				e = CHP_PACKET_SHORT;
			else if (k_len > CHP_PAYLOAD_BYTES_MAX)
				e = CHP_PACKET_LONG;
			if (k_len >= sizeof(k.header))
				chp_control_seal(&k, k_len);
			cr_assert_eq(chp_control_check(&k, k_len, HASH, NODES), e, "type %u len %u",
				     types[i], k_len);
		}
	}
}

Test(control, unknown_types_are_refused)
{
	for (uint32_t type = 0; type < 256; type++) {
		if (type >= CHP_CONTROL_HELLO && type < CHP_CONTROL_TYPES)
			continue;
		make(CHP_CONTROL_REFUSED);
		k.header.type = (uint8_t)type;
		cr_assert_eq(check_sealed(), CHP_PACKET_MESSAGE);
	}
}

#define REFUSED_WHEN(type, ...)                                              \
	do {                                                                 \
		make(type);                                                  \
		__VA_ARGS__;                                                 \
		cr_assert_eq(check_sealed(), CHP_PACKET_MESSAGE, #__VA_ARGS__); \
	} while (0)

Test(control, hello_fields_are_checked)
{
	REFUSED_WHEN(CHP_CONTROL_HELLO, k.hello.n_members = 0);
	REFUSED_WHEN(CHP_CONTROL_HELLO, k.hello.n_members = CHP_NODES_MAX + 1);
	REFUSED_WHEN(CHP_CONTROL_HELLO, k.hello.flags = CHP_HELLO_FLAGS_ALL + 1);
	REFUSED_WHEN(CHP_CONTROL_HELLO, k.hello.payload_bytes++);
	REFUSED_WHEN(CHP_CONTROL_HELLO_SHORT, k.hello.payload_bytes = CHP_PAYLOAD_BYTES_MIN - 1);
	REFUSED_WHEN(CHP_CONTROL_HELLO_SHORT, k.hello.payload_bytes = CHP_PAYLOAD_BYTES_MAX + 1);
	/* Another member list is the membership's to report, not malformed. */
	make(CHP_CONTROL_HELLO);
	k.hello.n_members = NODES + 1;
	cr_assert_eq(check_sealed(), CHP_PACKET_OK);
}

Test(control, view_fields_are_checked)
{
	struct chp_control_member *member = (void *)(&k.view + 1);

	REFUSED_WHEN(CHP_CONTROL_FOUNDING, k.view.epoch = 0);
	REFUSED_WHEN(CHP_CONTROL_FOUNDING, k.view.voters = 0);
	REFUSED_WHEN(CHP_CONTROL_ACCEPT, k.view.voters = 15);
	REFUSED_WHEN(CHP_CONTROL_ACCEPT, k.view.voters |= UINT64_C(1) << 63);
	REFUSED_WHEN(CHP_CONTROL_ACCEPT, k.view.learners = 1);
	REFUSED_WHEN(CHP_CONTROL_DECIDED, k.view.ballot = BALLOT(1, 0));
	REFUSED_WHEN(CHP_CONTROL_FOUNDING, k.view.accepted = BALLOT(1, 0));
	REFUSED_WHEN(CHP_CONTROL_DECIDED, k.view.n_members = NODES - 1);
	REFUSED_WHEN(CHP_CONTROL_DECIDED, k.view.n_members = NODES + 1);
	REFUSED_WHEN(CHP_CONTROL_DECIDED, member[1].incarnation = 0);
	REFUSED_WHEN(CHP_CONTROL_DECIDED, k.view.voters = 5);
	make(CHP_CONTROL_DECIDED);
	k.view.voters = 5;
	k.view.learners = 2;
	cr_assert_eq(check_sealed(), CHP_PACKET_OK);
	k.view.learners = 0;
	member[1].incarnation = 0;
	cr_assert_eq(check_sealed(), CHP_PACKET_OK);
}

/* Ballots have a member as proposer and a round; what is agreed on follows the sender's view. */
Test(control, agreement_fields_are_checked)
{
	static const enum chp_control_type ballots[] = { CHP_CONTROL_PREPARE, CHP_CONTROL_PROMISE,
							 CHP_CONTROL_ACCEPTED, CHP_CONTROL_REJECTED };

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(ballots); i++) {
		REFUSED_WHEN(ballots[i], k.ballot.epoch = 4);
		REFUSED_WHEN(ballots[i], k.ballot.epoch = 6);
		REFUSED_WHEN(ballots[i], k.header.epoch = 0; k.ballot.epoch = 1);
		REFUSED_WHEN(ballots[i], k.header.epoch = UINT64_MAX; k.ballot.epoch = 0);
		REFUSED_WHEN(ballots[i], k.ballot.ballot = 0);
		REFUSED_WHEN(ballots[i], k.ballot.ballot = BALLOT(0, 0));
		REFUSED_WHEN(ballots[i], k.ballot.ballot = BALLOT(1, NODES));
		REFUSED_WHEN(ballots[i], k.ballot.ballot = BALLOT(CHP_CONTROL_ROUND_MAX + 1, 0));
		make(ballots[i]);
		k.ballot.ballot = BALLOT(CHP_CONTROL_ROUND_MAX, 0);
		cr_assert_eq(check_sealed(), CHP_PACKET_OK);
	}
	REFUSED_WHEN(CHP_CONTROL_PREPARE, k.ballot.ballot = BALLOT(1, 1));
	REFUSED_WHEN(CHP_CONTROL_ACCEPT, k.view.ballot = BALLOT(1, 1));
	REFUSED_WHEN(CHP_CONTROL_ACCEPT, k.view.ballot = 0);
	REFUSED_WHEN(CHP_CONTROL_ACCEPT, k.view.accepted = BALLOT(1, 0));
	REFUSED_WHEN(CHP_CONTROL_ACCEPT, k.view.epoch = 6);
	make_promise();
	k.view.accepted = 0;
	cr_assert_eq(check_sealed(), CHP_PACKET_MESSAGE, "a view that was accepted at no ballot");
	make_promise();
	k.view.accepted = BALLOT(4, 1);
	cr_assert_eq(check_sealed(), CHP_PACKET_MESSAGE, "accepted above the promise");
	make_promise();
	k.view.accepted = k.view.ballot;
	cr_assert_eq(check_sealed(), CHP_PACKET_OK);
}

Test(control, heartbeats_and_grants_are_checked)
{
	REFUSED_WHEN(CHP_CONTROL_HEARTBEAT, k.heartbeat.sent_ns = 0);
	REFUSED_WHEN(CHP_CONTROL_HEARTBEAT, k.heartbeat.flags = CHP_HEARTBEAT_FLAGS_ALL + 1);
	REFUSED_WHEN(CHP_CONTROL_GRANT, k.grant.sent_ns = 0);
	REFUSED_WHEN(CHP_CONTROL_GRANT, k.grant.lease_ns = 0);
	make(CHP_CONTROL_HEARTBEAT);
	k.heartbeat.flags = CHP_HEARTBEAT_READY;
	k.heartbeat.lease_ns = UINT64_MAX; /* the membership's to refuse */
	cr_assert_eq(check_sealed(), CHP_PACKET_OK);
}

Test(control, refusals_have_a_known_reason)
{
	REFUSED_WHEN(CHP_CONTROL_REFUSED, k.refused.reason = 0);
	REFUSED_WHEN(CHP_CONTROL_REFUSED, k.refused.reason = CHP_REFUSED_REASONS);
}

Test(control, the_largest_cluster_fits)
{
	struct chp_control_member *member = (void *)(&k.view + 1);

	make(CHP_CONTROL_DECIDED);
	k.view.n_members = CHP_NODES_MAX;
	k.view.voters = UINT64_MAX;
	for (uint32_t i = 0; i < CHP_NODES_MAX; i++)
		member[i].incarnation = 1 + i;
	k_len = chp_control_view_bytes(CHP_NODES_MAX);
	cr_assert_leq(k_len, CHP_PAYLOAD_BYTES_MIN);
	chp_control_seal(&k, k_len);
	cr_assert_eq(chp_control_check(&k, k_len, HASH, CHP_NODES_MAX), CHP_PACKET_OK);
	cr_assert_eq(chp_control_check(&k, k_len, HASH, NODES), CHP_PACKET_MESSAGE);
}

/* Packets arrive at any address. */
Test(control, alignment_does_not_matter)
{
	static uint8_t room[PAYLOAD + 16];

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(types); i++) {
		make(types[i]);
		chp_control_seal(&k, k_len);
		for (uint32_t shift = 1; shift < 16; shift++) {
			memcpy(room + shift, &k, k_len);
			cr_assert_eq(chp_control_check(room + shift, k_len, HASH, NODES),
				     CHP_PACKET_OK);
		}
	}
}
