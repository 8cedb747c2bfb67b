/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/bytes.h"
#include "base/random.h"
#include "core/link.h"
#include "wire/host.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define MS UINT64_C(1000000)
#define US UINT64_C(1000)
#define HASH 0x1234u
#define PAYLOAD 256u
#define NET_MAX 4096u
#define HEADER ((uint32_t)sizeof(struct chp_peer_header))

/* A message that carries its number in the stream of its session. */
struct numbered {
	struct chp_message message;
	uint64_t number;
};

struct packet {
	uint64_t at_ns;
	uint64_t order;
	uint32_t to;
	uint32_t len;
	uint8_t data[PAYLOAD];
};

/* Two links and a network between them that loses, doubles and delays as it is told. */
struct pair {
	struct chp_link l[2];
	uint8_t *at[2], *end[2];
	uint64_t sent[2];     /* numbers written by this end, in its session */
	uint64_t received[2]; /* numbers received by this end: they must come in order */
	uint32_t resets[2];   /* seen by chp_link_receive at this end */
	struct packet net[NET_MAX];
	uint32_t n;
	uint64_t order;
	uint64_t now;
	struct chp_random random;
	uint32_t drop_ppm, duplicate_ppm, pause_ppm;
	uint64_t delay_ns_max;
	bool keep_rest; /* now and then a packet's second half is kept for later */
};

static struct chp_link_config
config_of(uint32_t self, uint32_t window)
{
	return (struct chp_link_config){
		.kind = CHP_PACKET_PEER,
		.cluster_hash = HASH,
		.self = self,
		.peer = 1 - self,
		.window = window,
		.payload_bytes_max = PAYLOAD,
		.queue = window + 64,
		.rto_ns_min = MS,
		.rto_ns_max = 32 * MS,
		.ack_delay_ns = 100 * US,
		.link_down_ns = CHP_NEVER,
	};
}

static struct pair *
pair_of(const struct chp_link_config *a, const struct chp_link_config *b)
{
	struct pair *p = calloc(1, sizeof(*p));

	cr_assert_not_null(p);
	p->now = 1000 * MS;
	cr_assert_eq(chp_link_init(&p->l[0], a, &chp_memory_libc), 0);
	cr_assert_eq(chp_link_init(&p->l[1], b, &chp_memory_libc), 0);
	chp_link_peer(&p->l[0], 100, 200, p->now);
	chp_link_peer(&p->l[1], 200, 100, p->now);
	return p;
}

static struct pair *
pair_with_window(uint32_t window)
{
	struct chp_link_config a = config_of(0, window), b = config_of(1, window);

	return pair_of(&a, &b);
}

static void
pair_free(struct pair *p)
{
	for (int i = 0; i < 2; i++) {
		chp_link_check(&p->l[i]);
		chp_link_fini(&p->l[i], &chp_memory_libc);
	}
	free(p);
}

/* ------------------------------------------------------------------ sending */

static void
write_message(struct pair *p, uint32_t end)
{
	struct numbered m = { .message = { .type = 1, .len = sizeof(m) }, .number = p->sent[end]++ };

	if (p->end[end] - p->at[end] < (ptrdiff_t)sizeof(m)) {
		chp_link_close(&p->l[end], p->at[end]);
		chp_link_open(&p->l[end], sizeof(m), 1, &p->at[end], &p->end[end]);
	}
	memcpy(p->at[end], &m, sizeof(m));
	p->at[end] += sizeof(m);
}

static void
close_packet(struct pair *p, uint32_t end)
{
	chp_link_close(&p->l[end], p->at[end]);
	p->at[end] = p->end[end] = NULL;
}

/* One message in a packet of its own. */
static void
write_packet(struct pair *p, uint32_t end)
{
	close_packet(p, end);
	write_message(p, end);
	close_packet(p, end);
}

/* The next packet that an end sends now; 0 bytes if none. It does not go anywhere by itself. */
static struct packet
next_packet(struct pair *p, uint32_t end)
{
	struct packet k = { .to = 1 - end };

	k.len = chp_link_transmit(&p->l[end], p->now, 1, k.data);
	if (k.len > 0) {
		chp_peer_seal(k.data, k.len);
		cr_assert_eq(chp_peer_check(k.data, k.len, HASH, 2, 1), CHP_PACKET_OK);
	}
	return k;
}

static const struct chp_peer_header *
header_of(const struct packet *k)
{
	return (const void *)k->data;
}

static void
put_on_net(struct pair *p, struct packet k)
{
	cr_assert_lt(p->n, NET_MAX);
	k.at_ns = p->now + 10 * US + chp_random_below(&p->random, p->delay_ns_max + 1);
	k.order = p->order++;
	p->net[p->n++] = k;
}

/* What the RX stage of who gets this packet answers when its ring fills up. */
static struct packet
pause_of(const struct packet *k, uint32_t pause_ms)
{
	struct packet a = { .to = 1 - k->to, .len = HEADER };

	chp_peer_pause(header_of(k), pause_ms, (void *)a.data);
	chp_peer_seal(a.data, a.len);
	cr_assert_eq(chp_peer_check(a.data, a.len, HASH, 2, 1), CHP_PACKET_OK);
	return a;
}

static void
send_all(struct pair *p, uint32_t end)
{
	struct packet k;

	close_packet(p, end);
	while ((k = next_packet(p, end)).len > 0) {
		if (chp_random_chance(&p->random, p->drop_ppm))
			continue;
		if (chp_random_chance(&p->random, p->duplicate_ppm))
			put_on_net(p, k);
		if (chp_random_chance(&p->random, p->pause_ppm))
			put_on_net(p, pause_of(&k, (uint32_t)chp_random_below(&p->random, 4)));
		put_on_net(p, k);
	}
}

/* ------------------------------------------------------------------ receiving */

static void
take_messages(struct pair *p, uint32_t end, const uint8_t *data, uint32_t len, uint32_t from)
{
	for (uint32_t at = from; at < len; at += (uint32_t)sizeof(struct numbered)) {
		const struct numbered *m = (const void *)(data + at);

		cr_assert_eq(m->number, p->received[end], "message %lu where %lu was due", m->number,
			     p->received[end]);
		p->received[end]++;
	}
}

static void
take_waiting(struct pair *p, uint32_t end)
{
	struct chp_link_rx *r;

	while ((r = chp_link_waiting(&p->l[end])) != NULL) {
		take_messages(p, end, r->bytes, r->len, r->offset);
		chp_link_delivered(&p->l[end], p->now);
	}
}

static enum chp_link_verdict
receive(struct pair *p, const struct packet *k)
{
	struct chp_link *l = &p->l[k->to];
	enum chp_link_verdict v;

	take_waiting(p, k->to);
	v = chp_link_receive(l, k->data, k->len, p->now);
	if (v == CHP_LINK_RESET) {
		p->resets[k->to]++;
		p->received[k->to] = p->sent[k->to] = 0;
		p->at[k->to] = p->end[k->to] = NULL;
		v = chp_link_receive(l, k->data, k->len, p->now);
		cr_assert_neq(v, CHP_LINK_RESET, "twice");
	}
	if (v == CHP_LINK_DELIVER && p->keep_rest && chp_random_chance(&p->random, 300000)) {
		/* As the shard does when it has no room for replies: the first message now, the rest later. */
		take_messages(p, k->to, k->data, HEADER + sizeof(struct numbered), HEADER);
		chp_link_keep(l, k->data, k->len, HEADER + sizeof(struct numbered));
	} else if (v == CHP_LINK_DELIVER) {
		take_messages(p, k->to, k->data, k->len, HEADER);
		chp_link_delivered(l, p->now);
		take_waiting(p, k->to);
	}
	chp_link_check(l);
	return v;
}

static void
receive_due(struct pair *p)
{
	for (;;) {
		uint32_t first = NET_MAX;

		for (uint32_t i = 0; i < p->n; i++)
			if (p->net[i].at_ns <= p->now &&
			    (first == NET_MAX || p->net[i].at_ns < p->net[first].at_ns ||
			     (p->net[i].at_ns == p->net[first].at_ns && p->net[i].order < p->net[first].order)))
				first = i;
		if (first == NET_MAX)
			return;
		struct packet k = p->net[first];

		p->net[first] = p->net[--p->n];
		receive(p, &k);
	}
}

/* Go on to whatever comes first, but not beyond `until`. */
static void
step(struct pair *p, uint64_t until)
{
	uint64_t next = until;

	for (uint32_t i = 0; i < p->n; i++)
		next = chp_min_u64(next, p->net[i].at_ns);
	for (uint32_t e = 0; e < 2; e++)
		next = chp_min_u64(next, chp_link_wake_ns(&p->l[e]));
	p->now = chp_max_u64(p->now, next);
	receive_due(p);
	for (uint32_t e = 0; e < 2; e++) {
		take_waiting(p, e);
		send_all(p, e);
	}
}

static void
run_for(struct pair *p, uint64_t ns)
{
	for (uint64_t until = p->now + ns; p->now < until;)
		step(p, until);
}

/* ------------------------------------------------------------------ any network: once, in order */

static void
random_traffic(uint64_t seed, uint32_t window, bool keep_rest)
{
	struct pair *p = pair_with_window(window);
	const uint64_t total = 300;
	uint64_t written[2] = { 0, 0 };

	p->random.state = seed;
	p->keep_rest = keep_rest;
	p->drop_ppm = (uint32_t)chp_random_below(&p->random, 400000);
	p->duplicate_ppm = (uint32_t)chp_random_below(&p->random, 400000);
	p->pause_ppm = (uint32_t)chp_random_below(&p->random, 200000);
	p->delay_ns_max = chp_random_below(&p->random, 5 * MS);
	while (written[0] < total || written[1] < total) {
		for (uint32_t e = 0; e < 2; e++) {
			uint64_t burst = chp_random_below(&p->random, 20);

			for (; burst > 0 && written[e] < total && chp_link_room(&p->l[e]) > 1; burst--) {
				write_message(p, e);
				written[e]++;
			}
		}
		step(p, p->now + chp_random_below(&p->random, 500 * US));
	}
	/* Even with all these faults it arrives; how long is a matter of luck, so time is generous. */
	for (uint32_t i = 0; i < 2000 && (p->received[0] < total || p->received[1] < total); i++)
		run_for(p, 100 * MS);
	cr_assert_eq(p->received[0], total);
	cr_assert_eq(p->received[1], total);
	/* Healed, both ends come to rest: everything is known to be acknowledged, nothing is sent any more. */
	p->drop_ppm = p->duplicate_ppm = p->pause_ppm = 0;
	run_for(p, 200 * MS);
	for (uint32_t e = 0; e < 2; e++) {
		cr_assert_eq(p->l[e].acked + 1, p->l[e].next);
		cr_assert_eq(chp_link_room(&p->l[e]), p->l[e].config.queue);
		cr_assert_eq(p->l[e].timer_ns, CHP_NEVER);
	}
	pair_free(p);
}

Test(link, every_message_is_delivered_once_and_in_order)
{
	for (uint64_t seed = 0; seed < 60; seed++)
		random_traffic(seed, (const uint32_t[]){ 1, 2, 5, 16, 64 }[seed % 5], seed % 3 == 0);
}

Test(link, a_window_of_one_packet_is_enough)
{
	for (uint64_t seed = 100; seed < 120; seed++)
		random_traffic(seed, 1, seed % 2 == 0);
}

Test(link, a_good_network_needs_no_retransmission)
{
	struct pair *p = pair_with_window(16);

	for (uint32_t i = 0; i < 1000; i++) {
		write_message(p, 0);
		if (i % 3 == 0)
			write_message(p, 1);
		if (i % 5 == 0)
			run_for(p, 30 * US);
	}
	run_for(p, 10 * MS);
	cr_assert_eq(p->received[1], 1000);
	cr_assert_eq(p->received[0], 334);
	for (uint32_t e = 0; e < 2; e++) {
		cr_assert_eq(p->l[e].counters.retransmits, 0);
		cr_assert_eq(p->l[e].counters.timeouts, 0);
		cr_assert_eq(p->l[e].counters.duplicates, 0);
		cr_assert_eq(p->l[e].cwnd, 16);
	}
	pair_free(p);
}

/* ------------------------------------------------------------------ packets and window */

Test(link, messages_share_a_packet_until_it_is_full)
{
	struct pair *p = pair_with_window(8);
	const uint32_t fit = (PAYLOAD - HEADER) / (uint32_t)sizeof(struct numbered);
	struct packet k;

	for (uint32_t i = 0; i < fit + 1; i++)
		write_message(p, 0);
	close_packet(p, 0);
	k = next_packet(p, 0);
	cr_assert_eq(k.len, HEADER + fit * sizeof(struct numbered));
	cr_assert_eq(header_of(&k)->seq, 1);
	k = next_packet(p, 0);
	cr_assert_eq(k.len, HEADER + sizeof(struct numbered));
	cr_assert_eq(header_of(&k)->seq, 2);
	cr_assert_eq(next_packet(p, 0).len, 0);
	pair_free(p);
}

Test(link, an_open_packet_without_messages_is_taken_back)
{
	struct pair *p = pair_with_window(8);
	uint8_t *at, *end;

	chp_link_open(&p->l[0], 100, 1, &at, &end);
	cr_assert_geq(end - at, 100);
	cr_assert_eq(chp_link_room(&p->l[0]), p->l[0].config.queue - 1);
	chp_link_close(&p->l[0], at);
	cr_assert_eq(chp_link_room(&p->l[0]), p->l[0].config.queue);
	chp_link_check(&p->l[0]);
	cr_assert_eq(next_packet(p, 0).len, 0);
	pair_free(p);
}

Test(link, no_more_than_a_window_is_in_flight)
{
	struct pair *p = pair_with_window(4);
	struct packet k[5];

	for (uint32_t i = 0; i < 10; i++)
		write_packet(p, 0);
	for (uint32_t i = 0; i < 4; i++)
		cr_assert_gt((k[i] = next_packet(p, 0)).len, 0);
	cr_assert_eq(next_packet(p, 0).len, 0);
	cr_assert_gt(chp_link_wake_ns(&p->l[0]), p->now, "a full window waits");
	/* One acknowledged, one more may go. */
	receive(p, &k[0]);
	p->now += 100 * US;
	k[4] = next_packet(p, 1);
	cr_assert_eq(header_of(&k[4])->ack, 1);
	receive(p, &k[4]);
	cr_assert_eq(chp_link_wake_ns(&p->l[0]), 0, "there is something to send at once");
	k[0] = next_packet(p, 0);
	cr_assert_eq(header_of(&k[0])->seq, 5);
	cr_assert_eq(next_packet(p, 0).len, 0);
	pair_free(p);
}

Test(link, packets_beyond_the_receivers_window_are_not_kept)
{
	struct pair *p = pair_with_window(4);
	struct packet k;

	write_packet(p, 0);
	k = next_packet(p, 0);
	((struct chp_peer_header *)(void *)k.data)->seq = 5;
	cr_assert_eq(receive(p, &k), CHP_LINK_NOTHING);
	cr_assert_eq(p->l[1].counters.beyond_window, 1);
	((struct chp_peer_header *)(void *)k.data)->seq = 4;
	cr_assert_eq(receive(p, &k), CHP_LINK_KEPT);
	pair_free(p);
}

/* ------------------------------------------------------------------ acknowledgements */

Test(link, an_acknowledgement_waits_for_ack_delay_for_a_packet_to_ride_on)
{
	struct pair *p = pair_with_window(16);
	struct packet k;

	write_packet(p, 0);
	k = next_packet(p, 0);
	receive(p, &k);
	cr_assert_eq(next_packet(p, 1).len, 0, "not yet");
	cr_assert_eq(chp_link_wake_ns(&p->l[1]), p->now + 100 * US);
	/* It rides on a message. */
	write_packet(p, 1);
	k = next_packet(p, 1);
	cr_assert_eq(header_of(&k)->ack, 1);
	cr_assert_gt(k.len, HEADER);
	p->now += 200 * US;
	cr_assert_eq(next_packet(p, 1).len, 0, "and needs no packet of its own");
	/* Without one it goes alone when its time has come. */
	write_packet(p, 0);
	k = next_packet(p, 0);
	receive(p, &k);
	p->now += 100 * US;
	k = next_packet(p, 1);
	cr_assert_eq(k.len, HEADER);
	cr_assert_eq(header_of(&k)->ack, 2);
	cr_assert_eq(header_of(&k)->seq, 0);
	pair_free(p);
}

Test(link, half_a_window_is_acknowledged_at_once)
{
	struct pair *p = pair_with_window(8);
	struct packet k;

	for (uint32_t i = 0; i < 4; i++)
		write_packet(p, 0);
	for (uint32_t i = 0; i < 3; i++) {
		k = next_packet(p, 0);
		receive(p, &k);
	}
	cr_assert_eq(next_packet(p, 1).len, 0);
	k = next_packet(p, 0);
	receive(p, &k);
	k = next_packet(p, 1);
	cr_assert_eq(k.len, HEADER);
	cr_assert_eq(header_of(&k)->ack, 4);
	pair_free(p);
}

Test(link, a_gap_is_told_at_once_and_selectively)
{
	struct pair *p = pair_with_window(16);
	struct packet k[5], a;

	for (uint32_t i = 0; i < 5; i++)
		write_packet(p, 0);
	for (uint32_t i = 0; i < 5; i++)
		k[i] = next_packet(p, 0);
	receive(p, &k[0]);
	cr_assert_eq(receive(p, &k[2]), CHP_LINK_KEPT);
	a = next_packet(p, 1);
	cr_assert_eq(header_of(&a)->ack, 1);
	cr_assert_eq(header_of(&a)->sack, 1, "bit 0: packet ack + 2");
	cr_assert_eq(receive(p, &k[4]), CHP_LINK_KEPT);
	a = next_packet(p, 1);
	cr_assert_eq(header_of(&a)->sack, 5, "packets 3 and 5");
	cr_assert_eq(p->received[1], 1);
	cr_assert_eq(receive(p, &k[1]), CHP_LINK_DELIVER);
	cr_assert_eq(p->received[1], 3);
	cr_assert_eq(p->l[1].counters.reordered, 2);
	pair_free(p);
}

Test(link, a_duplicate_is_acknowledged_again)
{
	struct pair *p = pair_with_window(16);
	struct packet k, a;

	write_packet(p, 0);
	k = next_packet(p, 0);
	receive(p, &k);
	p->now += MS;
	cr_assert_gt(next_packet(p, 1).len, 0); /* this acknowledgement is lost */
	cr_assert_eq(receive(p, &k), CHP_LINK_NOTHING);
	cr_assert_eq(p->received[1], 1);
	cr_assert_eq(p->l[1].counters.duplicates, 1);
	a = next_packet(p, 1);
	cr_assert_eq(a.len, HEADER);
	receive(p, &a);
	cr_assert_eq(p->l[0].acked, 1);
	pair_free(p);
}

Test(link, an_acknowledgement_of_what_was_never_sent_is_ignored)
{
	struct pair *p = pair_with_window(16);
	struct packet a;

	write_packet(p, 0);
	next_packet(p, 0);
	write_packet(p, 1);
	a = next_packet(p, 1);
	((struct chp_peer_header *)(void *)a.data)->ack = 2;
	((struct chp_peer_header *)(void *)a.data)->sack = UINT64_MAX;
	receive(p, &a);
	cr_assert_eq(p->l[0].acked, 0);
	cr_assert_eq(p->l[0].in_flight, 1);
	pair_free(p);
}

/* ------------------------------------------------------------------ loss */

Test(link, a_single_loss_is_sent_again_without_a_time_out)
{
	struct pair *p = pair_with_window(16);
	struct packet k[5], a;

	for (uint32_t i = 0; i < 5; i++)
		write_packet(p, 0);
	for (uint32_t i = 0; i < 5; i++)
		k[i] = next_packet(p, 0);
	receive(p, &k[0]);
	/* Packet 2 is lost. Two later ones may have overtaken it, the third says that it is lost. */
	for (uint32_t i = 2; i < 4; i++) {
		receive(p, &k[i]);
		a = next_packet(p, 1);
		receive(p, &a);
		cr_assert_eq(next_packet(p, 0).len, 0);
	}
	receive(p, &k[4]);
	a = next_packet(p, 1);
	receive(p, &a);
	k[1] = next_packet(p, 0);
	cr_assert_eq(header_of(&k[1])->seq, 2);
	receive(p, &k[1]);
	cr_assert_eq(p->received[1], 5);
	cr_assert_eq(p->l[0].counters.timeouts, 0);
	cr_assert_eq(p->l[0].counters.retransmits, 1);
	cr_assert_eq(p->l[0].cwnd, 8, "the window halves on loss");
	pair_free(p);
}

Test(link, losses_of_one_window_halve_it_once)
{
	struct pair *p = pair_with_window(16);
	struct packet k[16], a;

	for (uint32_t i = 0; i < 16; i++)
		write_packet(p, 0);
	for (uint32_t i = 0; i < 16; i++)
		k[i] = next_packet(p, 0);
	for (uint32_t i = 0; i < 16; i++)
		if (i != 2 && i != 5 && i != 9)
			receive(p, &k[i]);
	a = next_packet(p, 1);
	receive(p, &a);
	for (uint32_t i = 0; i < 3; i++) {
		k[i] = next_packet(p, 0);
		cr_assert_eq(header_of(&k[i])->seq, ((const uint64_t[]){ 3, 6, 10 })[i]);
	}
	cr_assert_eq(next_packet(p, 0).len, 0);
	cr_assert_eq(p->l[0].cwnd, 8);
	pair_free(p);
}

Test(link, the_window_grows_again)
{
	struct pair *p = pair_with_window(16);

	write_packet(p, 0);
	next_packet(p, 0);
	p->now += MS;
	next_packet(p, 0);
	cr_assert_eq(p->l[0].counters.timeouts, 1);
	cr_assert_eq(p->l[0].cwnd, 8);
	for (uint32_t i = 0; i < 400; i++) {
		write_packet(p, 0);
		run_for(p, 50 * US);
	}
	run_for(p, 100 * MS);
	cr_assert_eq(p->received[1], 401);
	cr_assert_eq(p->l[0].cwnd, 16);
	pair_free(p);
}

Test(link, the_time_out_backs_off_and_is_bounded)
{
	struct pair *p = pair_with_window(16);
	uint64_t sent_ns = p->now, wait_ns = MS;

	write_packet(p, 0);
	cr_assert_gt(next_packet(p, 0).len, 0);
	for (uint32_t i = 0; i < 8; i++) {
		struct packet k;

		cr_assert_eq(chp_link_wake_ns(&p->l[0]), sent_ns + wait_ns);
		p->now = sent_ns + wait_ns - 1;
		cr_assert_eq(next_packet(p, 0).len, 0, "not a nanosecond early");
		p->now++;
		k = next_packet(p, 0);
		cr_assert_eq(header_of(&k)->seq, 1);
		sent_ns = p->now;
		wait_ns = chp_min_u64(2 * wait_ns, 32 * MS);
	}
	cr_assert_eq(p->l[0].counters.timeouts, 8);
	cr_assert_eq(p->l[0].cwnd, 1);
	pair_free(p);
}

Test(link, a_retransmission_is_not_measured)
{
	struct pair *p = pair_with_window(16);
	struct packet k, a;

	write_packet(p, 0);
	next_packet(p, 0);
	p->now += 5 * MS;
	k = next_packet(p, 0);
	receive(p, &k);
	p->now += MS;
	a = next_packet(p, 1);
	receive(p, &a);
	cr_assert_eq(p->l[0].srtt_ns, 0, "which of the two sendings does it answer?");
	write_packet(p, 0);
	k = next_packet(p, 0);
	receive(p, &k);
	p->now += 300 * US;
	a = next_packet(p, 1);
	receive(p, &a);
	cr_assert_eq(p->l[0].srtt_ns, 300 * US);
	pair_free(p);
}

Test(link, the_time_out_follows_the_round_trip)
{
	struct pair *p = pair_with_window(16);

	p->delay_ns_max = 0;
	for (uint32_t i = 0; i < 50; i++) {
		struct packet k, a;

		write_packet(p, 0);
		k = next_packet(p, 0);
		p->now += 6 * MS;
		receive(p, &k);
		p->now += MS;
		a = next_packet(p, 1);
		receive(p, &a);
	}
	cr_assert_gt(p->l[0].rto_ns, 7 * MS);
	cr_assert_lt(p->l[0].rto_ns, 20 * MS);
	pair_free(p);
}

Test(link, when_the_peer_has_all_of_it_only_a_question_brings_its_acknowledgement)
{
	struct pair *p = pair_with_window(16);
	struct packet k[3], a, question;

	for (uint32_t i = 0; i < 3; i++)
		write_packet(p, 0);
	for (uint32_t i = 0; i < 3; i++)
		k[i] = next_packet(p, 0);
	receive(p, &k[1]);
	receive(p, &k[2]);
	a = next_packet(p, 1);
	receive(p, &a);
	/* The first packet arrives after all, and that acknowledgement is lost; so is the retransmission. */
	receive(p, &k[0]);
	p->now += MS;
	cr_assert_gt(next_packet(p, 1).len, 0);
	question = next_packet(p, 0);
	cr_assert_gt(question.len, 0);
	for (uint32_t i = 0; i < 10 && p->l[0].acked < 3; i++) {
		receive(p, &question);
		a = next_packet(p, 1);
		if (a.len > 0)
			receive(p, &a);
		p->now += 40 * MS;
		question = next_packet(p, 0);
	}
	cr_assert_eq(p->l[0].acked, 3);
	pair_free(p);
}

/* ------------------------------------------------------------------ who may talk to whom */

Test(link, nothing_is_accepted_or_sent_before_the_peer_is_known)
{
	struct chp_link_config c = config_of(0, 4);
	struct pair *p = pair_with_window(4);
	struct chp_link l;
	uint8_t *at, *end, buffer[PAYLOAD];
	struct packet k;

	write_packet(p, 1);
	k = next_packet(p, 1);
	cr_assert_eq(chp_link_init(&l, &c, &chp_memory_libc), 0);
	cr_assert_eq(chp_link_receive(&l, k.data, k.len, p->now), CHP_LINK_NOTHING);
	cr_assert_eq(l.counters.wrong_incarnation, 1);
	chp_link_open(&l, 16, 1, &at, &end);
	memset(at, 0, 16);
	chp_link_close(&l, at + 16);
	cr_assert_eq(chp_link_transmit(&l, p->now, 1, buffer), 0);
	cr_assert_eq(chp_link_wake_ns(&l), CHP_NEVER);
	cr_assert_not(chp_link_is_stuck(&l, CHP_NEVER - 1));
	chp_link_fini(&l, &chp_memory_libc);
	pair_free(p);
}

Test(link, packets_of_or_for_another_boot_are_dropped)
{
	struct pair *p = pair_with_window(4);
	struct packet k;

	write_packet(p, 0);
	k = next_packet(p, 0);
	chp_link_peer(&p->l[1], 201, 100, p->now);
	cr_assert_eq(receive(p, &k), CHP_LINK_NOTHING, "for my previous life");
	chp_link_peer(&p->l[1], 200, 101, p->now);
	cr_assert_eq(receive(p, &k), CHP_LINK_NOTHING, "from its previous life");
	cr_assert_eq(p->l[1].counters.wrong_incarnation, 2);
	cr_assert_eq(p->received[1], 0);
	chp_link_peer(&p->l[1], 200, 100, p->now);
	cr_assert_eq(receive(p, &k), CHP_LINK_DELIVER);
	pair_free(p);
}

Test(link, a_new_incarnation_starts_with_an_empty_link)
{
	struct pair *p = pair_with_window(4);
	struct packet k;

	for (uint32_t i = 0; i < 6; i++)
		write_packet(p, 0);
	next_packet(p, 0);
	chp_link_set_grant(&p->l[0], 7, p->now);
	chp_link_peer(&p->l[0], 100, 300, p->now);
	chp_link_check(&p->l[0]);
	cr_assert_eq(chp_link_room(&p->l[0]), p->l[0].config.queue);
	cr_assert_eq(p->l[0].grant, 0);
	cr_assert_eq(p->l[0].session, 1);
	write_packet(p, 0);
	k = next_packet(p, 0);
	cr_assert_eq(header_of(&k)->seq, 1);
	cr_assert_eq(header_of(&k)->to_incarnation, 300);
	pair_free(p);
}

/* ------------------------------------------------------------------ resets */

Test(link, a_reset_begins_a_session_that_both_ends_learn_of)
{
	struct pair *p = pair_with_window(4);
	struct packet old, k;

	write_packet(p, 0);
	write_packet(p, 0);
	old = next_packet(p, 0);
	chp_link_reset(&p->l[0], p->now);
	p->sent[0] = 0;
	cr_assert_eq(p->l[0].state, CHP_LINK_DOWN);
	cr_assert_eq(p->l[0].session, 2);
	cr_assert_eq(chp_link_room(&p->l[0]), p->l[0].config.queue);
	/* Until the peer has answered, messages go nowhere and a question is repeated. */
	write_packet(p, 0);
	p->sent[0] = 0;
	k = next_packet(p, 0);
	cr_assert_eq(k.len, HEADER);
	cr_assert(header_of(&k)->flags & CHP_PEER_ACK_NOW);
	cr_assert_eq(header_of(&k)->session, 2);
	cr_assert_eq(next_packet(p, 0).len, 0);
	cr_assert_neq(chp_link_wake_ns(&p->l[0]), CHP_NEVER);
	p->now = chp_link_wake_ns(&p->l[0]);
	cr_assert_eq(next_packet(p, 0).len, HEADER, "again");
	receive(p, &k);
	cr_assert_eq(p->resets[1], 1);
	cr_assert_eq(p->l[1].session, 2);
	cr_assert_eq(p->l[1].state, CHP_LINK_UP);
	/* What is left of the old session is dropped, and answered so that the sender learns of the new one. */
	cr_assert_eq(receive(p, &old), CHP_LINK_NOTHING);
	cr_assert_eq(p->l[1].counters.wrong_session, 1);
	k = next_packet(p, 1);
	cr_assert_eq(k.len, HEADER);
	receive(p, &k);
	cr_assert_eq(p->l[0].state, CHP_LINK_UP);
	write_packet(p, 0);
	k = next_packet(p, 0);
	cr_assert_eq(header_of(&k)->seq, 1);
	cr_assert_eq(receive(p, &k), CHP_LINK_DELIVER);
	pair_free(p);
}

Test(link, an_old_session_packet_makes_the_peer_learn_of_the_new_one)
{
	struct pair *p = pair_with_window(4);
	struct packet k;

	chp_link_reset(&p->l[0], p->now);
	cr_assert_gt(next_packet(p, 0).len, 0); /* lost */
	write_packet(p, 1);
	k = next_packet(p, 1);
	cr_assert_eq(receive(p, &k), CHP_LINK_NOTHING);
	k = next_packet(p, 0);
	cr_assert_gt(k.len, 0);
	receive(p, &k);
	cr_assert_eq(p->resets[1], 1);
	pair_free(p);
}

Test(link, resets_at_both_ends_at_once_meet_in_one_session)
{
	for (uint64_t seed = 0; seed < 40; seed++) {
		struct pair *p = pair_with_window(4);

		p->random.state = seed;
		p->delay_ns_max = 2 * MS;
		p->drop_ppm = 200000;
		for (uint32_t i = 0; i < 10; i++) {
			for (uint32_t e = 0; e < 2; e++) {
				if (chp_random_chance(&p->random, 300000)) {
					close_packet(p, e);
					chp_link_reset(&p->l[e], p->now);
					p->sent[e] = p->received[e] = 0;
				}
				if (p->l[e].state == CHP_LINK_UP)
					write_packet(p, e);
			}
			run_for(p, chp_random_below(&p->random, 3 * MS));
		}
		run_for(p, 500 * MS);
		cr_assert_eq(p->l[0].state, CHP_LINK_UP);
		cr_assert_eq(p->l[1].state, CHP_LINK_UP);
		cr_assert_eq(p->l[0].session, p->l[1].session);
		cr_assert_eq(p->received[0], p->sent[1]);
		cr_assert_eq(p->received[1], p->sent[0]);
		pair_free(p);
	}
}

Test(link, a_peer_that_is_silent_for_long_is_stuck)
{
	struct chp_link_config a = config_of(0, 4), b = config_of(1, 4);
	struct pair *p;
	uint64_t sent_ns;

	a.link_down_ns = 50 * MS;
	p = pair_of(&a, &b);
	p->now += 1000 * MS;
	cr_assert_not(chp_link_is_stuck(&p->l[0], p->now), "nothing is open");
	write_packet(p, 0);
	cr_assert_not(chp_link_is_stuck(&p->l[0], p->now), "nothing was sent");
	next_packet(p, 0);
	sent_ns = p->now;
	for (; p->now < sent_ns + 50 * MS; p->now += MS) {
		cr_assert_not(chp_link_is_stuck(&p->l[0], p->now));
		cr_assert_leq(chp_link_wake_ns(&p->l[0]), sent_ns + 50 * MS);
		next_packet(p, 0);
	}
	cr_assert(chp_link_is_stuck(&p->l[0], p->now));
	pair_free(p);
}

Test(link, a_full_queue_overflows_and_delivers_nothing_more)
{
	struct pair *p = pair_with_window(4);
	const uint32_t queue = p->l[0].config.queue;
	struct packet k, a;

	for (uint32_t i = 0; i < queue; i++)
		write_packet(p, 0);
	cr_assert_eq(chp_link_room(&p->l[0]), 0);
	cr_assert_not(p->l[0].overflow);
	write_packet(p, 0); /* this message finds no room */
	cr_assert(p->l[0].overflow);
	cr_assert(chp_link_is_stuck(&p->l[0], p->now));
	/* Room comes back before the link is reset: what follows the lost message must not be delivered. */
	k = next_packet(p, 0);
	receive(p, &k);
	p->now += MS;
	a = next_packet(p, 1);
	receive(p, &a);
	cr_assert_gt(chp_link_room(&p->l[0]), 0);
	write_packet(p, 0);
	for (uint32_t i = 0; i < 100; i++)
		step(p, p->now + 10 * MS); /* asserts that no number is skipped */
	cr_assert_eq(p->received[1], queue);
	chp_link_reset(&p->l[0], p->now);
	cr_assert_not(p->l[0].overflow);
	pair_free(p);
}

/* ------------------------------------------------------------------ credits */

static void
grant(struct pair *p, uint32_t end, uint64_t n)
{
	chp_link_set_grant(&p->l[end], n, p->now);
}

Test(link, a_grant_rides_on_any_packet)
{
	struct pair *p = pair_with_window(16);
	struct packet k;

	grant(p, 0, 10);
	write_packet(p, 0);
	k = next_packet(p, 0);
	cr_assert_eq(header_of(&k)->grant, 10);
	receive(p, &k);
	cr_assert_eq(p->l[1].peer_grant, 10);
	pair_free(p);
}

Test(link, a_grant_to_a_peer_that_has_none_goes_at_once)
{
	struct pair *p = pair_with_window(16);
	struct packet k;

	grant(p, 1, 4);
	k = next_packet(p, 1);
	receive(p, &k);
	grant(p, 0, 4);
	k = next_packet(p, 0);
	cr_assert_eq(k.len, HEADER);
	receive(p, &k);
	/* One of four used and given back: no hurry, it rides on the next packet. */
	p->l[0].peer_begun = 1;
	grant(p, 0, 5);
	cr_assert_eq(next_packet(p, 0).len, 0);
	cr_assert_eq(chp_link_wake_ns(&p->l[0]), CHP_NEVER);
	/* Three of five: soon. */
	p->l[0].peer_begun = 3;
	grant(p, 0, 7);
	cr_assert_eq(next_packet(p, 0).len, 0);
	cr_assert_eq(chp_link_wake_ns(&p->l[0]), p->now + 100 * US);
	p->now += 100 * US;
	k = next_packet(p, 0);
	cr_assert_eq(header_of(&k)->grant, 7);
	pair_free(p);
}

Test(link, a_grant_never_shrinks)
{
	struct pair *p = pair_with_window(16);
	struct packet first, second;

	grant(p, 0, 4);
	first = next_packet(p, 0);
	grant(p, 0, 9);
	write_packet(p, 0);
	second = next_packet(p, 0);
	receive(p, &second);
	receive(p, &first); /* late */
	cr_assert_eq(p->l[1].peer_grant, 9);
	grant(p, 0, 3);
	cr_assert_eq(p->l[0].grant, 9);
	pair_free(p);
}

Test(link, a_lost_grant_is_asked_for)
{
	struct pair *p = pair_with_window(16);
	struct packet k;

	cr_assert_eq(next_packet(p, 1).len, 0);
	cr_assert_eq(chp_link_wake_ns(&p->l[1]), p->now + MS, "out of credits: ask soon");
	grant(p, 0, 4);
	cr_assert_gt(next_packet(p, 0).len, 0); /* lost */
	p->now += MS;
	k = next_packet(p, 1);
	cr_assert_eq(k.len, HEADER);
	cr_assert(header_of(&k)->flags & CHP_PEER_ACK_NOW);
	receive(p, &k);
	k = next_packet(p, 0);
	cr_assert_eq(header_of(&k)->grant, 4);
	receive(p, &k);
	cr_assert_eq(p->l[1].peer_grant, 4);
	cr_assert_eq(next_packet(p, 1).len, 0);
	cr_assert_eq(chp_link_wake_ns(&p->l[1]), CHP_NEVER, "nothing more to ask");
	pair_free(p);
}

Test(link, credits_start_over_with_a_session)
{
	struct pair *p = pair_with_window(16);

	grant(p, 0, 4);
	grant(p, 1, 4);
	run_for(p, MS);
	cr_assert_eq(p->l[1].peer_grant, 4);
	p->l[1].begun = 3;
	chp_link_reset(&p->l[0], p->now);
	run_for(p, 20 * MS);
	for (uint32_t e = 0; e < 2; e++) {
		cr_assert_eq(p->l[e].session, 2);
		cr_assert_eq(p->l[e].peer_grant, 0);
		cr_assert_eq(p->l[e].begun, 0);
		grant(p, e, 4);
	}
	run_for(p, 20 * MS);
	cr_assert_eq(p->l[0].peer_grant, 4);
	cr_assert_eq(p->l[1].peer_grant, 4);
	pair_free(p);
}

/* ------------------------------------------------------------------ back-pressure */

Test(link, a_pause_holds_new_packets_until_it_ends_by_itself)
{
	struct pair *p = pair_with_window(16);
	struct packet k, pause;
	uint64_t end_ns;

	write_packet(p, 0);
	k = next_packet(p, 0);
	pause = pause_of(&k, 10);
	cr_assert_eq(receive(p, &pause), CHP_LINK_NOTHING);
	end_ns = p->now + 10 * MS;
	receive(p, &k);
	write_packet(p, 0);
	cr_assert_eq(next_packet(p, 0).len, 0);
	cr_assert_eq(chp_link_wake_ns(&p->l[0]), end_ns);
	p->now = end_ns - 1;
	cr_assert_eq(next_packet(p, 0).len, 0, "not a nanosecond early");
	p->now++;
	k = next_packet(p, 0);
	cr_assert_eq(header_of(&k)->seq, 2);
	cr_assert_eq(p->l[0].counters.pauses, 1);
	cr_assert_eq(p->l[0].counters.pauses_expired, 1);
	pair_free(p);
}

Test(link, a_pause_ends_when_the_peer_says_so)
{
	struct pair *p = pair_with_window(16);
	struct packet k, pause, resume;

	write_packet(p, 0);
	k = next_packet(p, 0);
	pause = pause_of(&k, 10);
	resume = pause_of(&k, 0);
	receive(p, &resume); /* none to end: nothing happens */
	cr_assert_eq(chp_link_wake_ns(&p->l[0]), p->now + MS);
	receive(p, &pause);
	write_packet(p, 0);
	p->now += 2 * MS;
	cr_assert_eq(next_packet(p, 0).len, 0);
	receive(p, &resume);
	cr_assert_eq(chp_link_wake_ns(&p->l[0]), 0);
	k = next_packet(p, 0);
	cr_assert_eq(header_of(&k)->seq, 2);
	cr_assert_eq(chp_link_wake_ns(&p->l[0]), p->now + MS, "what was in flight has its time from the end on");
	cr_assert_eq(p->l[0].counters.pauses, 1);
	cr_assert_eq(p->l[0].counters.pauses_expired, 0);
	cr_assert_eq(p->l[0].counters.timeouts, 0);
	pair_free(p);
}

Test(link, nothing_is_sent_again_during_a_pause)
{
	struct pair *p = pair_with_window(16);
	struct packet k[6], a, pause;
	uint64_t end_ns;

	for (uint32_t i = 0; i < 6; i++) {
		write_packet(p, 0);
		k[i] = next_packet(p, 0);
	}
	pause = pause_of(&k[0], 10);
	receive(p, &pause);
	end_ns = p->now + 10 * MS;
	p->now += 5 * MS; /* many times the time-out */
	cr_assert_eq(next_packet(p, 0).len, 0);
	/* Acknowledgements that show a gap, and news: what they ask for waits as well. */
	for (uint32_t i = 1; i < 6; i++)
		receive(p, &k[i]);
	a = next_packet(p, 1);
	receive(p, &a);
	cr_assert_eq(p->l[0].n_lost, 1);
	cr_assert_eq(next_packet(p, 0).len, 0);
	cr_assert_eq(chp_link_wake_ns(&p->l[0]), end_ns);
	/* But what the peer is owed goes: it is not what fills its ring. */
	write_packet(p, 1);
	a = next_packet(p, 1);
	receive(p, &a);
	p->now += MS;
	a = next_packet(p, 0);
	cr_assert_eq(a.len, HEADER);
	cr_assert_eq(header_of(&a)->ack, 1);
	p->now = end_ns;
	a = next_packet(p, 0);
	cr_assert_eq(header_of(&a)->seq, 1);
	cr_assert_eq(p->l[0].counters.timeouts, 0);
	cr_assert_eq(p->l[0].counters.retransmits, 1);
	pair_free(p);
}

Test(link, a_pause_cannot_stop_a_link)
{
	struct pair *p = pair_with_window(16);
	struct packet k, pause;

	/* The longest that a packet can say is bounded, */
	write_packet(p, 0);
	k = next_packet(p, 0);
	pause = pause_of(&k, CHP_PAUSE_MS_MAX);
	((struct chp_peer_header *)(void *)pause.data)->pause_ms = 255;
	chp_peer_seal(pause.data, pause.len);
	receive(p, &pause);
	write_packet(p, 0);
	cr_assert_eq(chp_link_wake_ns(&p->l[0]), p->now + CHP_PAUSE_MS_MAX * MS);
	/* and whether a link is stuck does not depend on pauses, however many. */
	p->l[0].config.link_down_ns = 200 * MS;
	for (uint32_t i = 0; i < 30 && !chp_link_is_stuck(&p->l[0], p->now); i++) {
		receive(p, &pause);
		p->now += 10 * MS;
		cr_assert_eq(next_packet(p, 0).len, 0);
	}
	cr_assert(chp_link_is_stuck(&p->l[0], p->now));
	chp_link_reset(&p->l[0], p->now);
	cr_assert_eq(p->l[0].paused_ns, 0);
	pair_free(p);
}

Test(link, a_pause_of_another_session_or_boot_is_ignored)
{
	struct pair *p = pair_with_window(16);
	struct packet k, pause, other;

	write_packet(p, 0);
	k = next_packet(p, 0);
	pause = pause_of(&k, 10);
	other = pause;
	((struct chp_peer_header *)(void *)other.data)->from_incarnation++;
	receive(p, &other);
	other = pause;
	((struct chp_peer_header *)(void *)other.data)->session++;
	cr_assert_eq(receive(p, &other), CHP_LINK_NOTHING, "a new session is not begun by a pause");
	cr_assert_eq(p->l[0].counters.wrong_incarnation, 1);
	cr_assert_eq(p->l[0].counters.pauses, 0);
	/* Down: the peer's shard has not agreed to the session, and what only its RX stage says must not look so. */
	chp_link_reset(&p->l[0], p->now);
	k = next_packet(p, 0);
	pause = pause_of(&k, 10);
	receive(p, &pause);
	cr_assert_eq(p->l[0].state, CHP_LINK_DOWN);
	cr_assert_eq(p->l[0].counters.pauses, 0);
	pair_free(p);
}

/* ------------------------------------------------------------------ time */

Test(link, wake_times_are_kept)
{
	/* An end that sleeps until its wake time and no longer misses nothing, and does not wake for nothing. */
	struct pair *p = pair_with_window(4);
	uint32_t wakes = 0, idle = 0;

	p->random.state = 3;
	p->drop_ppm = 100000;
	grant(p, 0, 4);
	grant(p, 1, 4);
	for (uint32_t i = 0; i < 200; i++) {
		write_packet(p, 0);
		for (uint64_t until = p->now + MS; p->now < until;) {
			uint64_t counters = p->l[0].counters.tx_packets + p->l[0].counters.tx_acks +
					    p->l[1].counters.tx_packets + p->l[1].counters.tx_acks;
			uint32_t n = p->n;

			step(p, until);
			wakes++;
			idle += p->now < until && p->n == n &&
				counters == p->l[0].counters.tx_packets + p->l[0].counters.tx_acks +
						    p->l[1].counters.tx_packets + p->l[1].counters.tx_acks;
		}
		if (chp_link_room(&p->l[0]) < 4)
			run_for(p, 200 * MS);
	}
	p->drop_ppm = 0;
	run_for(p, 200 * MS);
	cr_assert_eq(p->received[1], 200);
	cr_assert_leq(idle * 10, wakes, "%u of %u wakes did nothing", idle, wakes);
	pair_free(p);
}

Test(link, a_link_to_the_host_sends_packets_of_its_kind)
{
	struct chp_link_config c = config_of(2, 4);
	static struct chp_link l;
	uint8_t packet[PAYLOAD];
	uint32_t len;

	c.kind = CHP_PACKET_HOST;
	c.peer = 2;
	cr_assert_eq(chp_link_init(&l, &c, &chp_memory_libc), 0);
	chp_link_peer(&l, 100, 101, 0);
	chp_link_reset(&l, 0);
	len = chp_link_transmit(&l, MS, 0, packet);
	cr_assert_gt(len, 0);
	chp_peer_seal(packet, len);
	cr_assert_eq(chp_host_check(packet, len, c.cluster_hash, 2, 1), CHP_PACKET_OK);
	chp_link_fini(&l, &chp_memory_libc);
}
