/* SPDX-License-Identifier: BSD-3-Clause */
#include "frontends/native.h"

#include "base/assert.h"

#include <criterion/criterion.h>
#include <string.h>

#define N 8u

static uint8_t memory[N][CHP_PAYLOAD_BYTES_MIN];
static struct chp_native_datagram datagram[N];
static struct chp_native f;
static uint8_t request[CHP_PAYLOAD_BYTES_MAX];
static uint32_t request_len;
static struct chp_op op[64];
static const uint8_t alice[20] = { 10, 0, 0, 1, 1 }, bob[20] = { 10, 0, 0, 2, 1 };

static void
setup(void)
{
	for (uint32_t i = 0; i < N; i++)
		datagram[i] = (struct chp_native_datagram){ .data = memory[i],
							    .cap = CHP_PAYLOAD_BYTES_MIN };
	memset(memory, 0xee, sizeof(memory));
	f = (struct chp_native){
		.datagram = datagram, .n_datagrams = N,   .cluster_hash = 0x1234, .shard = 1,
		.shards = 4,	      .hash_seed = 7,	  .key_bytes_max = 32,	  .value_bytes_max = 100,
		.node = 2,	      .epoch = 5,
	};
}

static void
begin(uint64_t session, uint16_t shard)
{
	struct chp_request_header h = {
		.prelude = { .magic = CHP_WIRE_MAGIC,
			     .version = CHP_WIRE_VERSION,
			     .kind = CHP_PACKET_REQUEST,
			     .cluster_hash = 0x1234 },
		.session = session,
		.lowest = 3,
		.shard = shard,
	};

	memcpy(request, &h, sizeof(h));
	request_len = sizeof(h);
}

static void
add(uint8_t opcode, const char *key, const char *value, uint64_t number)
{
	struct chp_request r = {
		.opcode = opcode,
		.len = (uint16_t)chp_request_bytes((uint32_t)strlen(key), (uint32_t)strlen(value)),
		.key_len = (uint8_t)strlen(key),
		.request = number,
		.value_total = (uint32_t)strlen(value),
		.arg = 77,
	};

	memset(request + request_len, 0, r.len);
	memcpy(request + request_len, &r, sizeof(r));
	memcpy(request + request_len + sizeof(r), key, strlen(key));
	memcpy(request + request_len + sizeof(r) + strlen(key), value, strlen(value));
	request_len += r.len;
}

static uint32_t
parse(uint32_t *offset, uint32_t cap)
{
	return chp_native_parse(&f, request, request_len, offset, alice, op, cap);
}

/* The i-th reply in a datagram. */
static const struct chp_reply_message *
reply_at(uint32_t d, uint32_t i)
{
	uint32_t offset = sizeof(struct chp_reply_header);
	const struct chp_reply_message *m = NULL;

	cr_assert_eq(chp_reply_header_check(datagram[d].data, datagram[d].len, 0x1234), CHP_PACKET_OK);
	for (uint32_t k = 0; k <= i; k++) {
		m = chp_reply_next(datagram[d].data, datagram[d].len, &offset);
		cr_assert(m != NULL);
	}
	return m;
}

TestSuite(native, .init = setup);

Test(native, requests_become_operations)
{
	uint32_t offset = 0;

	begin(9, 1);
	add(CHP_OPCODE_PUT, "key", "value", 4);
	add(CHP_OPCODE_GET, "other", "", 5);
	add(CHP_OPCODE_SESSION_CLOSE, "", "", 6);
	cr_assert_eq(parse(&offset, N), 3u);
	cr_assert_eq(offset, request_len);
	cr_assert_eq(f.n_used, 0u);
	cr_assert_eq(op[0].opcode, CHP_OPCODE_PUT);
	cr_assert_eq(op[0].key.len, 3u);
	cr_assert_arr_eq(op[0].key.bytes, "key", 3);
	cr_assert_eq(op[0].value_len, 5u);
	cr_assert_arr_eq(op[0].value, "value", 5);
	cr_assert_eq(op[0].session, 9u);
	cr_assert_eq(op[0].lowest, 3u);
	cr_assert_eq(op[0].request, 4u);
	cr_assert_eq(op[0].arg, 77u);
	cr_assert_arr_eq(op[0].origin.address, alice, 20);
	cr_assert_eq(op[1].key.len, 5u);
	cr_assert_eq(op[1].request, 5u);
	cr_assert_eq(f.counters.datagrams, 1u);
	cr_assert_eq(f.counters.requests, 3u);
}

Test(native, a_datagram_is_taken_in_pieces)
{
	uint32_t offset = 0, total = 0, calls = 0;

	begin(0, 1);
	for (uint32_t i = 0; i < 10; i++)
		add(CHP_OPCODE_GET, "key", "", i);
	while (offset < request_len) {
		uint32_t n = parse(&offset, 3);

		for (uint32_t i = 0; i < n; i++)
			cr_assert_eq(op[i].request, total + i);
		total += n;
		calls++;
	}
	cr_assert_eq(total, 10u);
	cr_assert_eq(calls, 4u);
	cr_assert_eq(f.counters.datagrams, 1u);
	cr_assert_eq(f.counters.requests, 10u);
}

Test(native, wrong_requests_are_answered_at_once)
{
	uint32_t offset = 0;
	char key[41], value[102];

	memset(key, 'k', sizeof(key) - 1);
	memset(value, 'v', sizeof(value) - 1);
	key[40] = value[101] = '\0';
	begin(0, 1);
	add(200, "key", "", 1);
	add(CHP_OPCODE_GET, "", "", 2);
	add(CHP_OPCODE_GET, key, "", 3);
	add(CHP_OPCODE_PUT, "key", value, 4);
	add(CHP_OPCODE_GET, "key", "value", 5);
	add(CHP_OPCODE_INFO, "", "", 6);
	add(CHP_OPCODE_PING, "", "", 7);
	add(CHP_OPCODE_GET, "key", "", 8);
	cr_assert_eq(parse(&offset, N), 2u);
	cr_assert_eq(op[0].request, 7u);
	cr_assert_eq(op[1].request, 8u);
	cr_assert_eq(f.n_used, 1u); /* one client: one datagram */
	cr_assert_eq(reply_at(0, 0)->status, CHP_STATUS_UNKNOWN_OP);
	cr_assert_eq(reply_at(0, 0)->opcode, 200);
	cr_assert_eq(reply_at(0, 1)->status, CHP_STATUS_BAD_KEY);
	cr_assert_eq(reply_at(0, 2)->status, CHP_STATUS_BAD_KEY);
	cr_assert_eq(reply_at(0, 3)->status, CHP_STATUS_TOO_LARGE);
	cr_assert_eq(reply_at(0, 4)->status, CHP_STATUS_BAD_REQUEST);
	cr_assert_eq(reply_at(0, 5)->status, CHP_STATUS_UNKNOWN_OP);
	cr_assert_eq(f.counters.refused, 6u);
}

Test(native, a_datagram_for_another_shard)
{
	uint32_t offset = 0, right = chp_shard_of(chp_digest_of("key", 3, 7), 4);

	begin(0, 3);
	add(CHP_OPCODE_GET, "key", "", 1);
	cr_assert_eq(parse(&offset, N), 0u);
	cr_assert_eq(reply_at(0, 0)->status, CHP_STATUS_WRONG_SHARD);
	cr_assert_eq(reply_at(0, 0)->number, (uint64_t)4 << 32 | right);
	cr_assert_eq(reply_at(0, 0)->version, 7u);
	offset = 0;
	begin(0, CHP_SHARD_ANY);
	add(CHP_OPCODE_GET, "key", "", 2);
	cr_assert_eq(parse(&offset, N - 1), 1u);
}

/* Whether this node serves, a voter with a lease, is the shard's to say. */
Test(native, a_ping_goes_to_the_shard)
{
	uint32_t offset = 0;

	f.epoch = 0;
	begin(0, 1);
	add(CHP_OPCODE_PING, "", "", 1);
	cr_assert_eq(parse(&offset, N), 1u);
	cr_assert_eq(op[0].opcode, CHP_OPCODE_PING);
	cr_assert_eq(f.n_used, 0u);
}

/* SAFETY 16: reads that were answered under a lease that is over by the time they would be sent. */
Test(native, reads_are_taken_back_without_a_lease)
{
	static const uint8_t secret[] = "secret";
	struct chp_origin origin = { .frontend = 0 };
	struct chp_reply r = { .origin = &origin, .opcode = CHP_OPCODE_GET, .version = 77, .value_len = 6 };
	uint32_t len, offset = sizeof(struct chp_reply_header);
	const struct chp_reply_message *m;

	memcpy(chp_native_reply(&f, &r), secret, 6);
	r = (struct chp_reply){ .origin = &origin, .opcode = CHP_OPCODE_GET, .status = CHP_STATUS_NOT_FOUND };
	chp_native_reply(&f, &r);
	r = (struct chp_reply){ .origin = &origin, .opcode = CHP_OPCODE_PUT, .version = 78 };
	chp_native_reply(&f, &r);
	cr_assert_eq(chp_native_revoke_reads(&f), 2u);
	cr_assert_eq(f.counters.revoked, 2u);
	len = f.datagram[0].len;
	for (uint32_t i = 0; i < 2; i++) {
		m = chp_reply_next(f.datagram[0].data, len, &offset);
		cr_assert_eq(m->status, CHP_STATUS_NOT_SERVING);
		cr_assert_eq(m->version, 0u);
		cr_assert_eq(m->value_total, 0u);
	}
	m = chp_reply_next(f.datagram[0].data, len, &offset);
	cr_assert_eq(m->status, CHP_STATUS_OK);
	cr_assert_eq(m->version, 78u);
	cr_assert_eq(offset, len);
	for (uint32_t i = 0; i + 6 <= len; i++)
		cr_assert_neq(memcmp(f.datagram[0].data + i, secret, 6), 0, "the value is gone");
}

/* A relaxed read promises nothing that a lease could take back. */
Test(native, relaxed_reads_are_marked_and_stay)
{
	struct chp_origin origin = { .frontend = 0 };
	struct chp_reply r = {
		.origin = &origin, .opcode = CHP_OPCODE_GET, .version = 77, .value_len = 3, .is_relaxed = true
	};

	memcpy(chp_native_reply(&f, &r), "old", 3);
	r = (struct chp_reply){ .origin = &origin, .opcode = CHP_OPCODE_GET, .version = 78, .value_len = 3 };
	memcpy(chp_native_reply(&f, &r), "new", 3);
	cr_assert_eq(chp_native_revoke_reads(&f), 1u);
	cr_assert_eq(reply_at(0, 0)->status, CHP_STATUS_OK);
	cr_assert_eq(reply_at(0, 0)->flags, CHP_REPLY_RELAXED);
	cr_assert_eq(reply_at(0, 0)->version, 77u);
	cr_assert_arr_eq(chp_reply_value(reply_at(0, 0)), "old", 3);
	cr_assert_eq(reply_at(0, 1)->status, CHP_STATUS_NOT_SERVING);
	cr_assert_eq(reply_at(0, 1)->flags, 0);
}

Test(native, flags_become_fields)
{
	uint32_t offset = 0, first;

	begin(9, 1);
	first = request_len;
	add(CHP_OPCODE_GET, "key", "", 1);
	((struct chp_request *)(void *)(request + first))->flags = CHP_REQUEST_RELAXED;
	add(CHP_OPCODE_GET, "key", "", 2);
	first = request_len;
	add(CHP_OPCODE_PUT, "key", "v", 3);
	((struct chp_request *)(void *)(request + first))->flags = CHP_REQUEST_RELAXED;
	cr_assert_eq(parse(&offset, N), 2u);
	cr_assert(op[0].is_relaxed);
	cr_assert_not(op[1].is_relaxed);
	cr_assert_eq(reply_at(0, 0)->status, CHP_STATUS_BAD_REQUEST);
}

/* It goes to the shard as an operation without key, and has no number of the session beside it. */
Test(native, a_quorum_rule_belongs_to_no_session)
{
	uint32_t offset = 0, first;

	begin(9, 1);
	first = request_len;
	add(CHP_OPCODE_QUORUM, "", "", 1);
	((struct chp_request *)(void *)(request + first))->arg = CHP_QUORUM_ALL;
	cr_assert_eq(parse(&offset, N), 1u);
	cr_assert_eq(op[0].opcode, CHP_OPCODE_QUORUM);
	cr_assert_eq(op[0].key.len, 0u);
	cr_assert_eq(op[0].session, 0u);
	cr_assert_eq(op[0].arg, CHP_QUORUM_ALL);
	offset = 0;
	begin(0, 1);
	add(CHP_OPCODE_QUORUM, "", "", 2); /* arg 77 is no rule */
	cr_assert_eq(parse(&offset, N), 0u);
	cr_assert_eq(reply_at(0, 0)->status, CHP_STATUS_BAD_REQUEST);
}

Test(native, a_malformed_rest_is_counted)
{
	uint32_t offset = 0;

	begin(0, 1);
	add(CHP_OPCODE_GET, "key", "", 1);
	request_len += 8; /* no request is so short */
	memset(request + request_len - 8, 0, 8);
	cr_assert_eq(parse(&offset, N), 1u);
	cr_assert_eq(offset, request_len);
	cr_assert_eq(f.counters.malformed, 1u);
}

/* Operations and answers together stay within cap: each operation needs room for its reply later. */
Test(native, answers_count_against_the_cap)
{
	uint32_t offset = 0, n;

	begin(0, 1);
	add(CHP_OPCODE_GET, "key", "", 1);
	add(99, "key", "", 2);
	add(CHP_OPCODE_GET, "key", "", 3);
	n = parse(&offset, 2);
	cr_assert_eq(n, 1u);
	cr_assert_eq(f.n_used, 1u);
	cr_assert_lt(offset, request_len);
	cr_assert_eq(parse(&offset, 1), 1u);
	cr_assert_eq(op[0].request, 3u);
	cr_assert_eq(offset, request_len);
}

static uint8_t *
give(const uint8_t address[20], uint64_t session, uint64_t number, uint32_t value_len)
{
	struct chp_origin origin = { .frontend = 0 };
	struct chp_reply r = {
		.origin = &origin,
		.session = session,
		.request = number,
		.version = 11,
		.number = 12,
		.value_len = value_len,
		.opcode = CHP_OPCODE_GET,
		.status = CHP_STATUS_OK,
	};

	memcpy(origin.address, address, 20);
	return chp_native_reply(&f, &r);
}

Test(native, replies_to_one_client_and_session_share_a_datagram)
{
	const struct chp_reply_header *h;

	memcpy(give(alice, 1, 1, 5), "hello", 5);
	give(bob, 1, 2, 0);
	memcpy(give(alice, 1, 3, 3), "abc", 3);
	give(alice, 2, 4, 0);
	cr_assert_eq(f.n_used, 3u);
	cr_assert_eq(reply_at(0, 0)->request, 1u);
	cr_assert_eq(reply_at(0, 1)->request, 3u);
	cr_assert_eq(reply_at(1, 0)->request, 2u);
	cr_assert_eq(reply_at(2, 0)->request, 4u);
	cr_assert_arr_eq(chp_reply_value(reply_at(0, 0)), "hello\0\0\0", 8); /* zeros up to 8 */
	cr_assert_arr_eq(datagram[0].address, alice, 20);
	cr_assert_arr_eq(datagram[1].address, bob, 20);
	h = (const void *)datagram[2].data;
	cr_assert_eq(h->session, 2u);
	cr_assert_eq(h->epoch, 5u);
	cr_assert_eq(h->shard, 1);
	cr_assert_eq(h->node, 2);
	cr_assert_eq(reply_at(0, 0)->version, 11u);
	cr_assert_eq(reply_at(0, 0)->number, 12u);
}

Test(native, a_full_datagram_is_followed_by_another)
{
	for (uint32_t i = 0; i < 4; i++)
		memset(give(alice, 1, i, CHP_VALUE_BYTES_MAX), 'x', CHP_VALUE_BYTES_MAX);
	cr_assert_eq(f.n_used, 4u);
	for (uint32_t i = 0; i < 4; i++) {
		cr_assert_leq(datagram[i].len, CHP_PAYLOAD_BYTES_MIN);
		cr_assert_eq(reply_at(i, 0)->request, i);
	}
	give(alice, 1, 9, 0);
	cr_assert_eq(f.n_used, 4u); /* the last one has room for a short one */
	cr_assert_eq(chp_native_room(&f), N - 4);
}

/* Hints of an earlier batch must not lead into datagrams of this one. */
Test(native, hints_survive_batches)
{
	for (uint32_t batch = 0; batch < 3; batch++) {
		f.n_used = 0;
		if (batch == 1)
			give(bob, 8, 1, 0);
		give(alice, 1, 1, 0);
		give(bob, 1, 2, 0);
		cr_assert_eq(f.n_used, batch == 1 ? 3u : 2u);
		for (uint32_t i = 0; i < f.n_used; i++)
			(void)reply_at(i, 0);
	}
}
