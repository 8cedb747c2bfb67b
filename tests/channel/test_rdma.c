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

Test(rdma_refusals, another_cluster)
{
	struct chp_channel_config a = config_of(REPLICA, CHP_PAYLOAD_BYTES_MIN);
	struct chp_channel_config b = config_of(HOST, CHP_PAYLOAD_BYTES_MIN);

	b.cluster_hash = 0xabcd;
	expect_refused(&a, &b, "of another cluster, hash 0000abcd, ours is 00001234",
		       "of another cluster, hash 00001234, ours is 0000abcd");
}

Test(rdma_refusals, another_mtu)
{
	struct chp_channel_config a = config_of(REPLICA, CHP_PAYLOAD_BYTES_MIN);
	struct chp_channel_config b = config_of(HOST, CHP_PAYLOAD_BYTES_MAX);

	expect_refused(&a, &b, "packets of 9188 bytes, we of 1472", "packets of 1472 bytes, we of 9188");
}

Test(rdma_refusals, a_second_host_until_the_first_one_goes)
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

/* A connection by hand, with whatever private data; returns how it ended. */
static enum rdma_cm_event_type
connect_by_hand(struct chp_channel *ch, const void *data, uint8_t len)
{
	struct rdma_event_channel *events = rdma_create_event_channel();
	struct sockaddr_in to = {
		.sin_family = AF_INET,
		.sin_port = htons(SERVICE),
		.sin_addr = { htonl(address()) },
	};
	struct ibv_qp_init_attr attr = { .qp_type = IBV_QPT_RC, .cap = { 1, 1, 1, 1, 0 } };
	struct rdma_conn_param param = { .private_data = data, .private_data_len = len };
	enum rdma_cm_event_type type;
	struct rdma_cm_event *e;
	struct rdma_cm_id *id;
	uint64_t until_ns;

	cr_assert_not_null(events);
	cr_assert_eq(rdma_create_id(events, &id, NULL, RDMA_PS_TCP), 0);
	cr_assert_eq(rdma_resolve_addr(id, NULL, (struct sockaddr *)&to, 2000), 0);
	cr_assert_eq(rdma_get_cm_event(events, &e), 0);
	(void)rdma_ack_cm_event(e);
	cr_assert_eq(rdma_resolve_route(id, 2000), 0);
	cr_assert_eq(rdma_get_cm_event(events, &e), 0);
	(void)rdma_ack_cm_event(e);
	cr_assert_eq(rdma_create_qp(id, NULL, &attr), 0);
	cr_assert_eq(rdma_connect(id, &param), 0);
	for (until_ns = test_now_ns() + 200000000; test_now_ns() < until_ns;) {
		cr_assert_eq(chp_channel_state(ch, NULL), CHP_CHANNEL_DOWN);
		(void)usleep(1000);
	}
	cr_assert_eq(rdma_get_cm_event(events, &e), 0);
	type = e->event;
	(void)rdma_ack_cm_event(e);
	rdma_destroy_qp(id);
	(void)rdma_destroy_id(id);
	rdma_destroy_event_channel(events);
	return type;
}

Test(rdma_refusals, another_version_and_what_is_no_channel)
{
	/* Magic, version 9, is_host, refusal, cluster; docs/wire-protocol.md has the rest. */
	static const uint8_t version[48] = { 'C', 'C', 'H', 'R', 9, 0, 1, 0, 0x34, 0x12, 0, 0 };
	struct chp_channel_config config = config_of(REPLICA, CHP_PAYLOAD_BYTES_MIN);
	struct chp_channel *ch = open_one(&config);
	uint8_t bad[48];
	const char *text;

	cr_assert_eq(connect_by_hand(ch, version, sizeof(version)), RDMA_CM_EVENT_REJECTED);
	(void)chp_channel_state(ch, &text);
	cr_assert_not_null(strstr(text, "speaks version 9 of the channel, we 1"), "%s", text);
	cr_assert_eq(connect_by_hand(ch, "hello", 5), RDMA_CM_EVENT_REJECTED);
	(void)chp_channel_state(ch, &text);
	cr_assert_not_null(strstr(text, "not a channel"), "%s", text);
	/* Right in all but its ring: 0 slots. */
	memcpy(bad, version, sizeof(bad));
	bad[4] = CHP_CHANNEL_VERSION;
	bad[12] = CHP_PAYLOAD_BYTES_MIN & 0xff;
	bad[13] = CHP_PAYLOAD_BYTES_MIN >> 8;
	cr_assert_eq(connect_by_hand(ch, bad, sizeof(bad)), RDMA_CM_EVENT_REJECTED);
	(void)chp_channel_state(ch, &text);
	cr_assert_not_null(strstr(text, "a ring of 0 slots"), "%s", text);
	bad[6] = 0;
	cr_assert_eq(connect_by_hand(ch, bad, sizeof(bad)), RDMA_CM_EVENT_REJECTED);
	(void)chp_channel_state(ch, &text);
	cr_assert_not_null(strstr(text, "is a replica like this end"), "%s", text);
	cr_assert_eq(chp_channel_counter(ch, CHP_CHANNEL_refused), 4);
	cr_assert_eq(chp_channel_counter(ch, CHP_CHANNEL_ups), 0);
	chp_channel_close(ch);
}

Test(rdma_refusals, an_address_that_is_no_devices)
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

Test(rdma_refusals, nobody_listens)
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
