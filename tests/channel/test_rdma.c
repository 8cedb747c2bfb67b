/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The conformance suite over RDMA: both ends in this process, and each end here with the other one in a process that is
 * killed; and who is refused. Needs two RDMA devices: tools/check-rdma brings a machine that has them, and runs this.
 */
#include "channel/transports.h"
#include "conformance.h"
#include "remote.h"
#include "wire/host.h"

#include <arpa/inet.h>
#include <rdma/rdma_cma.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SERVICE 7471u
#define HASH 0x1234u

struct side {
	struct transport transport;
	uint32_t near; /* the end that is in this process; 2: both */
	struct remote *remote;
};

static uint32_t
address(void)
{
	const char *text = getenv("CHP_RDMA_ADDRESS");

	return text != NULL ? ntohl(inet_addr(text)) : 0x0a010101;
}

static struct chp_channel_config
config_of(uint32_t which, uint32_t payload_bytes_max)
{
	return (struct chp_channel_config){
		.is_host = which == HOST,
		.payload_bytes_max = payload_bytes_max,
		.name = "test",
		.ring = which == HOST ? 1024 : 128, /* they need not be equal */
		.address = address(),
		.service = SERVICE,
		.cluster_hash = HASH,
	};
}

static struct chp_channel *
open_one(const struct chp_channel_config *config)
{
	struct chp_channel_error error;
	struct chp_channel *ch = chp_channel_rdma.open(config, &error);

	cr_assert_not_null(ch, "%s", error.text);
	return ch;
}

static struct side *
side_of(const struct transport *t)
{
	return (struct side *)(uintptr_t)t;
}

static struct chp_channel *
open_far(void *context)
{
	const struct side *s = context;
	struct chp_channel_config config = config_of(1 - s->near, s->transport.payload_bytes_max);
	struct chp_channel_error error;

	return chp_channel_rdma.open(&config, &error);
}

static void
start(const struct transport *t, struct chp_channel *end[2], uint32_t which)
{
	struct side *s = side_of(t);
	struct chp_channel_config config = config_of(which, t->payload_bytes_max);

	end[which] = s->near == 2 || which == s->near ? open_one(&config) : remote_start(s->remote);
}

static void
begin(const struct transport *t, struct chp_channel *end[2])
{
	struct side *s = side_of(t);

	if (s->near < 2)
		s->remote = remote_create(open_far, s, s->near != HOST, t->payload_bytes_max);
	start(t, end, HOST);
	start(t, end, REPLICA);
}

static void
stop(const struct transport *t, struct chp_channel *end[2], uint32_t which, bool is_kill)
{
	struct side *s = side_of(t);

	if (s->near == 2)
		chp_channel_close(end[which]);
	else
		remote_stop(s->remote, is_kill);
	end[which] = NULL;
}

static void
finish(const struct transport *t, struct chp_channel *end[2])
{
	struct side *s = side_of(t);

	for (uint32_t i = 0; i < 2; i++) {
		if (s->near == 2 || i == s->near)
			chp_channel_close(end[i]);
	}
	if (s->near < 2)
		remote_destroy(s->remote);
}

#define SIDE(bytes, end, stops_replica, stops_host)                                                          \
	{                                                                                                  \
		.transport = {                                                                             \
			.payload_bytes_max = (bytes),                                                      \
			.is_lossless = true,                                                               \
			.sees_death = true,                                                                \
			.can_stop = { (stops_replica), (stops_host) },                                     \
			.begin = begin,                                                                    \
			.stop = stop,                                                                      \
			.start = start,                                                                    \
			.near = (end) & 1,                                                                 \
			.finish = finish,                                                                  \
		},                                                                                         \
		.near = (end),                                                                             \
	}

static struct side both = SIDE(CHP_PAYLOAD_BYTES_MAX, 2, true, true);
static struct side host = SIDE(CHP_PAYLOAD_BYTES_MIN, HOST, true, false);
static struct side replica = SIDE(CHP_PAYLOAD_BYTES_MIN, REPLICA, false, true);

CONFORMANCE(rdma, &both.transport)
CONFORMANCE(rdma_host, &host.transport)
CONFORMANCE(rdma_replica, &replica.transport)

/* ------------------------------------------------------------------ who is refused */

/* Open both ends so, and go on until one of them has refused or was refused; each says why. */
static void
expect_refused(const struct chp_channel_config *a, const struct chp_channel_config *b, const char *why_a,
	       const char *why_b)
{
	struct chp_channel *end[2] = { open_one(a), open_one(b) };
	uint64_t until_ns = test_now_ns() + 20 * UINT64_C(1000000000);
	const char *text;

	while (chp_channel_counter(end[0], CHP_CHANNEL_refused) == 0 ||
	       chp_channel_counter(end[1], CHP_CHANNEL_refused) == 0) {
		cr_assert_lt(test_now_ns(), until_ns);
		for (uint32_t i = 0; i < 2; i++)
			cr_assert_eq(chp_channel_state(end[i], NULL), CHP_CHANNEL_DOWN);
		(void)usleep(1000);
	}
	(void)chp_channel_state(end[0], &text);
	cr_assert_not_null(strstr(text, why_a), "%s", text);
	(void)chp_channel_state(end[1], &text);
	cr_assert_not_null(strstr(text, why_b), "%s", text);
	chp_channel_close(end[0]);
	chp_channel_close(end[1]);
}

Test(rdma_strangers, another_cluster)
{
	struct chp_channel_config a = config_of(REPLICA, CHP_PAYLOAD_BYTES_MIN);
	struct chp_channel_config b = config_of(HOST, CHP_PAYLOAD_BYTES_MIN);

	b.cluster_hash = 0xabcd;
	expect_refused(&a, &b, "of another cluster, hash 0000abcd, ours is 00001234",
		       "of another cluster, hash 00001234, ours is 0000abcd");
}

Test(rdma_strangers, another_mtu)
{
	struct chp_channel_config a = config_of(REPLICA, CHP_PAYLOAD_BYTES_MIN);
	struct chp_channel_config b = config_of(HOST, CHP_PAYLOAD_BYTES_MAX);

	expect_refused(&a, &b, "packets of 9188 bytes, we of 1472", "packets of 1472 bytes, we of 9188");
}

Test(rdma_strangers, a_second_host_until_the_first_one_goes)
{
	struct chp_channel_config config = config_of(HOST, CHP_PAYLOAD_BYTES_MIN);
	uint64_t until_ns = test_now_ns() + 20 * UINT64_C(1000000000);
	struct chp_channel *end[2], *second;
	const char *text = "";

	replica.near = 2;
	begin(&replica.transport, end);
	wait_up(end);
	second = open_one(&config);
	while (chp_channel_counter(second, CHP_CHANNEL_refused) == 0) {
		cr_assert_lt(test_now_ns(), until_ns);
		cr_assert_eq(chp_channel_state(end[REPLICA], NULL), CHP_CHANNEL_UP);
		cr_assert_eq(chp_channel_state(end[HOST], NULL), CHP_CHANNEL_UP);
		(void)chp_channel_state(second, &text);
		(void)usleep(1000);
	}
	cr_assert_not_null(strstr(text, "another host is connected"), "%s", text);
	chp_channel_close(end[HOST]);
	end[HOST] = second;
	wait_down(end, REPLICA);
	wait_up(end);
	finish(&replica.transport, end);
}

/* A connection by hand, as a host that is not one of ours. */
struct hand {
	struct rdma_event_channel *events;
	struct rdma_cm_id *id;
	enum rdma_cm_event_type type; /* how connecting ended */
	uint8_t answer[56];           /* private data that came with it */
};

static void
hand_next(struct hand *h)
{
	struct rdma_cm_event *e;

	cr_assert_eq(rdma_get_cm_event(h->events, &e), 0);
	h->type = e->event;
	if (e->event == RDMA_CM_EVENT_ESTABLISHED || e->event == RDMA_CM_EVENT_REJECTED)
		memcpy(h->answer, e->param.conn.private_data,
		       e->param.conn.private_data_len < 48 ? e->param.conn.private_data_len : 48);
	(void)rdma_ack_cm_event(e);
}

/* The channel goes on for so long. */
static void
poll_for(struct chp_channel *ch, uint64_t ms)
{
	struct chp_channel_packet p;

	for (uint64_t until_ns = test_now_ns() + ms * 1000000; test_now_ns() < until_ns;) {
		if (chp_channel_receive(ch, &p, 1) == 1)
			chp_channel_release(ch, &p, 1);
		(void)usleep(1000);
	}
}

static void
hand_connect(struct hand *h, struct chp_channel *ch, const void *data, uint8_t len)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET,
		.sin_port = htons(SERVICE),
		.sin_addr = { htonl(address()) },
	};
	struct ibv_qp_init_attr attr = { .qp_type = IBV_QPT_RC, .sq_sig_all = 1, .cap = { 4, 1, 1, 1, 16 } };
	struct rdma_conn_param param = { .private_data = data, .private_data_len = len, .retry_count = 7 };
	uint64_t until_ns = test_now_ns() + 20 * UINT64_C(1000000000);

	h->events = rdma_create_event_channel();
	cr_assert_not_null(h->events);
	cr_assert_eq(rdma_create_id(h->events, &h->id, NULL, RDMA_PS_TCP), 0);
	cr_assert_eq(rdma_resolve_addr(h->id, NULL, (struct sockaddr *)&to, 2000), 0);
	hand_next(h);
	cr_assert_eq(rdma_resolve_route(h->id, 2000), 0);
	hand_next(h);
	cr_assert_eq(rdma_create_qp(h->id, NULL, &attr), 0);
	cr_assert_eq(rdma_connect(h->id, &param), 0);
	poll_for(ch, 200);
	hand_next(h);
	/* Only now does the replica hear that the connection stands. */
	while (h->type == RDMA_CM_EVENT_ESTABLISHED && chp_channel_state(ch, NULL) != CHP_CHANNEL_UP) {
		cr_assert_lt(test_now_ns(), until_ns);
		poll_for(ch, 1);
	}
}

static void
hand_close(struct hand *h)
{
	rdma_destroy_qp(h->id);
	(void)rdma_destroy_id(h->id);
	rdma_destroy_event_channel(h->events);
}

/* Everything that connect_by_hand's private data says: docs/wire-protocol.md. */
static void
hello_by_hand(uint8_t hello[48])
{
	static const uint8_t head[12] = { 'C', 'C', 'H', 'R', CHP_CHANNEL_VERSION, 0, 1, 0, 0x34, 0x12, 0, 0 };
	const uint32_t sizes[] = { CHP_PAYLOAD_BYTES_MIN, 64, CHP_PAYLOAD_BYTES_MIN };

	memset(hello, 0, 48);
	memcpy(hello, head, sizeof(head));
	memcpy(hello + 12, sizes, sizeof(sizes));
}

static enum rdma_cm_event_type
connect_by_hand(struct chp_channel *ch, const void *data, uint8_t len)
{
	struct hand h;

	hand_connect(&h, ch, data, len);
	cr_assert_eq(chp_channel_state(ch, NULL), CHP_CHANNEL_DOWN);
	hand_close(&h);
	return h.type;
}

Test(rdma_strangers, another_version_and_what_is_no_channel)
{
	struct chp_channel_config config = config_of(REPLICA, CHP_PAYLOAD_BYTES_MIN);
	struct chp_channel *ch = open_one(&config);
	uint8_t hello[48];
	const char *text;

	hello_by_hand(hello);
	hello[4] = 9;
	cr_assert_eq(connect_by_hand(ch, hello, sizeof(hello)), RDMA_CM_EVENT_REJECTED);
	(void)chp_channel_state(ch, &text);
	cr_assert_not_null(strstr(text, "speaks version 9 of the channel, we 1"), "%s", text);
	cr_assert_eq(connect_by_hand(ch, "hello", 5), RDMA_CM_EVENT_REJECTED);
	(void)chp_channel_state(ch, &text);
	cr_assert_not_null(strstr(text, "not a channel"), "%s", text);
	hello_by_hand(hello);
	hello[16] = 65;
	cr_assert_eq(connect_by_hand(ch, hello, sizeof(hello)), RDMA_CM_EVENT_REJECTED);
	(void)chp_channel_state(ch, &text);
	cr_assert_not_null(strstr(text, "a ring of 65 slots"), "%s", text);
	hello_by_hand(hello);
	hello[6] = 0;
	cr_assert_eq(connect_by_hand(ch, hello, sizeof(hello)), RDMA_CM_EVENT_REJECTED);
	(void)chp_channel_state(ch, &text);
	cr_assert_not_null(strstr(text, "is a replica like this end"), "%s", text);
	cr_assert_eq(chp_channel_counter(ch, CHP_CHANNEL_refused), 4);
	cr_assert_eq(chp_channel_counter(ch, CHP_CHANNEL_ups), 0);
	chp_channel_close(ch);
}

/* ------------------------------------------------------------------ who is accepted and should not have been */

/* Write 8 bytes to where the replica said that its ring begins, with this immediate. */
static void
write_by_hand(struct hand *h, uint32_t imm)
{
	static uint8_t data[8];
	struct ibv_sge sge = { .addr = (uintptr_t)data, .length = sizeof(data) };
	struct ibv_send_wr *bad, wr = {
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = IBV_WR_RDMA_WRITE_WITH_IMM,
		.send_flags = IBV_SEND_INLINE,
		.imm_data = htonl(imm),
	};

	memcpy(&wr.wr.rdma.rkey, h->answer + 24, 4);
	memcpy(&wr.wr.rdma.remote_addr, h->answer + 32, 8);
	cr_assert_eq(ibv_post_send(h->id->qp, &wr, &bad), 0);
}

Test(rdma_strangers, a_packet_that_is_not_where_or_what_it_should_be_ends_the_connection)
{
	/* Right; then a slot that is not the next one, another length, no length, more than a slot. */
	static const uint32_t imm[] = { 8, 1u << 16 | 8, 9, 0, 0xffff, 0xffff0008 };
	struct chp_channel_config config = config_of(REPLICA, CHP_PAYLOAD_BYTES_MIN);
	struct chp_channel *ch = open_one(&config);
	uint8_t hello[48];
	const char *text;
	struct hand h;

	hello_by_hand(hello);
	for (uint32_t i = 0; i < sizeof(imm) / sizeof(imm[0]); i++) {
		hand_connect(&h, ch, hello, sizeof(hello));
		cr_assert_eq(h.type, RDMA_CM_EVENT_ESTABLISHED);
		cr_assert_eq(chp_channel_state(ch, NULL), CHP_CHANNEL_UP);
		write_by_hand(&h, imm[i]);
		poll_for(ch, 100);
		cr_assert_eq(chp_channel_counter(ch, CHP_CHANNEL_rx_packets), 1);
		cr_assert_eq(chp_channel_counter(ch, CHP_CHANNEL_drop_rx_length), i);
		if (i > 0) {
			cr_assert_eq(chp_channel_state(ch, &text), CHP_CHANNEL_DOWN);
			cr_assert_not_null(strstr(text, "writes what does not fit"), "%s", text);
		}
		hand_close(&h);
		poll_for(ch, 100);
	}
	chp_channel_close(ch);
}

Test(rdma_strangers, a_host_that_does_not_take_what_is_written_is_lost_though_nothing_is_sent)
{
	struct chp_channel_config config = config_of(REPLICA, CHP_PAYLOAD_BYTES_MIN);
	uint64_t until_ns = test_now_ns() + 20 * UINT64_C(1000000000);
	struct chp_channel *ch = open_one(&config);
	uint8_t hello[48];
	const char *text;
	struct hand h;

	hello_by_hand(hello); /* its key is 0, which is none */
	hand_connect(&h, ch, hello, sizeof(hello));
	cr_assert_eq(h.type, RDMA_CM_EVENT_ESTABLISHED);
	while (chp_channel_state(ch, &text) == CHP_CHANNEL_UP) {
		cr_assert_lt(test_now_ns(), until_ns);
		poll_for(ch, 10);
	}
	cr_assert_not_null(strstr(text, "the other end is lost: "), "%s", text);
	cr_assert_eq(chp_channel_counter(ch, CHP_CHANNEL_downs), 1);
	hand_close(&h);
	chp_channel_close(ch);
}

/* ------------------------------------------------------------------ addresses */

Test(rdma_strangers, an_address_that_is_no_devices)
{
	struct chp_channel_config config = config_of(REPLICA, CHP_PAYLOAD_BYTES_MIN);
	struct chp_channel_error error;
	struct chp_channel *ch;

	config.address = 0x0a090909;
	cr_assert_null(chp_channel_rdma.open(&config, &error));
	cr_assert_not_null(strstr(error.text, "cannot listen at 10.9.9.9:7471"), "%s", error.text);
	config = config_of(REPLICA, CHP_PAYLOAD_BYTES_MIN);
	ch = open_one(&config);
	cr_assert_null(chp_channel_rdma.open(&config, &error));
	cr_assert_not_null(strstr(error.text, "the service free"), "%s", error.text);
	chp_channel_close(ch);
}

Test(rdma_strangers, nobody_listens)
{
	struct chp_channel_config config = config_of(HOST, CHP_PAYLOAD_BYTES_MIN);
	uint64_t until_ns = test_now_ns() + 500000000;
	struct chp_channel *ch = open_one(&config);
	const char *text;

	while (test_now_ns() < until_ns) {
		cr_assert_eq(chp_channel_state(ch, &text), CHP_CHANNEL_DOWN);
		(void)usleep(1000);
	}
	cr_assert_not_null(strstr(text, "nobody listens at the replica's address"), "%s", text);
	chp_channel_close(ch);
}

/* ------------------------------------------------------------------ last, as its suite's name sees to */

Test(removal, a_device_that_goes_is_missed_and_asked_for_again)
{
	struct chp_channel *end[2];

	replica.near = 2;
	begin(&replica.transport, end);
	wait_up(end);
	/* rdma_rxe waits until nobody uses the device any more, so it comes to its end when this process does. */
	cr_assert_eq(system("rdma link delete rxe1 &"), 0);
	wait_down(end, REPLICA);
	wait_down(end, HOST);
	for (uint32_t i = 0; i < 2; i++) {
		poll_for(end[i], 1500);
		cr_assert_eq(chp_channel_state(end[i], NULL), CHP_CHANNEL_DOWN);
		cr_assert_eq(chp_channel_counter(end[i], CHP_CHANNEL_downs), 1);
	}
	finish(&replica.transport, end);
}
