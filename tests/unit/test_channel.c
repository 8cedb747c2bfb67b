/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_channel.c - the channel between two ends in one process, which other tests stand on.
 */
#include "channel/memory.h"

#include <criterion/criterion.h>
#include <string.h>

#define PAYLOAD CHP_PAYLOAD_BYTES_MIN

static struct chp_channel *end[2];

static void
begin(void)
{
	cr_assert_eq(chp_channel_memory_pair(PAYLOAD, 7, end), 0);
}

static void
finish(void)
{
	chp_channel_close(end[0]);
	chp_channel_close(end[1]);
}

/* Send packets of one number each, as many as are taken. */
static uint32_t
send_numbers(struct chp_channel *ch, uint32_t first, uint32_t n)
{
	uint32_t number[CHP_CHANNEL_BURST];
	struct chp_channel_packet p[CHP_CHANNEL_BURST];

	cr_assert_leq(n, CHP_CHANNEL_BURST);
	for (uint32_t i = 0; i < n; i++) {
		number[i] = first + i;
		p[i] = (struct chp_channel_packet){ .data = (uint8_t *)&number[i], .len = sizeof(number[i]) };
	}
	return chp_channel_send(ch, p, n);
}

static uint32_t
number_of(const struct chp_channel_packet *p)
{
	uint32_t number;

	cr_assert_eq(p->len, sizeof(number));
	memcpy(&number, p->data, sizeof(number));
	return number;
}

TestSuite(channel_memory, .init = begin, .fini = finish);

Test(channel_memory, packets_arrive_in_order_both_ways)
{
	struct chp_channel_packet p[CHP_CHANNEL_BURST];

	for (uint32_t side = 0; side < 2; side++) {
		cr_assert_eq(send_numbers(end[side], 100, 5), 5);
		cr_assert_eq(chp_channel_receive(end[side], p, CHP_CHANNEL_BURST), 0);
		cr_assert_eq(chp_channel_receive(end[1 - side], p, CHP_CHANNEL_BURST), 5);
		for (uint32_t i = 0; i < 5; i++)
			cr_assert_eq(number_of(&p[i]), 100 + i);
		chp_channel_release(end[1 - side], p, 5);
	}
	cr_assert_eq(chp_channel_counter(end[0], CHP_CHANNEL_tx_packets), 5);
	cr_assert_eq(chp_channel_counter(end[0], CHP_CHANNEL_rx_bytes), 20);
	cr_assert_eq(chp_channel_state(end[0], NULL), CHP_CHANNEL_UP);
}

Test(channel_memory, the_largest_packet_passes_unchanged)
{
	static uint8_t sent[PAYLOAD];
	struct chp_channel_packet p = { .data = sent, .len = PAYLOAD };

	for (uint32_t i = 0; i < PAYLOAD; i++)
		sent[i] = (uint8_t)(i * 7 + i / 256);
	cr_assert_eq(chp_channel_send(end[0], &p, 1), 1);
	memset(&p, 0, sizeof(p));
	cr_assert_eq(chp_channel_receive(end[1], &p, 1), 1);
	cr_assert_eq(p.len, PAYLOAD);
	cr_assert_eq(memcmp(p.data, sent, PAYLOAD), 0);
	chp_channel_release(end[1], &p, 1);
}

Test(channel_memory, a_full_channel_takes_no_more_until_the_other_end_looks)
{
	struct chp_channel_packet p[CHP_CHANNEL_BURST];
	uint32_t sent = 0, n;

	while ((n = send_numbers(end[0], sent, CHP_CHANNEL_BURST)) > 0)
		sent += n;
	cr_assert_eq(sent, CHP_CHANNEL_MEMORY_PACKETS);
	cr_assert_eq(chp_channel_counter(end[0], CHP_CHANNEL_tx_full), 1);
	cr_assert_eq(chp_channel_receive(end[1], p, 3), 3);
	cr_assert_eq(send_numbers(end[0], sent, 8), 3);
	chp_channel_release(end[1], p, 3);
}

Test(channel_memory, what_is_not_released_stays_and_has_a_limit)
{
	struct chp_channel_packet p[CHP_CHANNEL_LENT_MAX + 1];
	uint32_t n = 0, got;

	for (uint32_t i = 0; i < CHP_CHANNEL_MEMORY_PACKETS; i += CHP_CHANNEL_BURST)
		cr_assert_eq(send_numbers(end[0], i, CHP_CHANNEL_BURST), CHP_CHANNEL_BURST);
	while ((got = chp_channel_receive(end[1], &p[n], CHP_CHANNEL_LENT_MAX + 1 - n)) > 0)
		n += got;
	cr_assert_eq(n, CHP_CHANNEL_LENT_MAX);
	for (uint32_t i = 0; i < n; i++)
		cr_assert_eq(number_of(&p[i]), i);
	chp_channel_release(end[1], &p[5], 1); /* in any order */
	cr_assert_eq(chp_channel_receive(end[1], &p[5], 2), 1);
	cr_assert_eq(number_of(&p[5]), CHP_CHANNEL_LENT_MAX);
	cr_assert_eq(number_of(&p[4]), 4);
	chp_channel_release(end[1], p, n);
}

Test(channel_memory, loss_and_duplicates_are_what_was_asked_for)
{
	struct chp_channel_packet p[CHP_CHANNEL_BURST];
	uint32_t got = 0, distinct = 0, last = UINT32_MAX;

	chp_channel_memory_impair(end[0], 200000, 100000);
	for (uint32_t i = 0; i < 10000; i += 10) {
		uint32_t n;

		cr_assert_eq(send_numbers(end[0], i, 10), 10);
		n = chp_channel_receive(end[1], p, CHP_CHANNEL_BURST);
		for (uint32_t k = 0; k < n; k++) {
			distinct += number_of(&p[k]) != last;
			last = number_of(&p[k]);
		}
		got += n;
		chp_channel_release(end[1], p, n);
	}
	cr_assert(distinct > 7700 && distinct < 8300, "%u", distinct);
	cr_assert(got - distinct > 650 && got - distinct < 950, "%u", got - distinct);
}

Test(channel_memory, an_end_that_dies_takes_what_was_under_way_and_comes_back)
{
	struct chp_channel_packet p[CHP_CHANNEL_BURST];

	cr_assert_eq(send_numbers(end[0], 0, 4), 4);
	chp_channel_memory_kill(end[1]);
	cr_assert_eq(chp_channel_state(end[0], NULL), CHP_CHANNEL_DOWN);
	cr_assert_eq(send_numbers(end[0], 4, 4), 4);
	cr_assert_eq(chp_channel_counter(end[0], CHP_CHANNEL_drop_tx_down), 4);
	chp_channel_memory_revive(end[1]);
	cr_assert_eq(chp_channel_state(end[0], NULL), CHP_CHANNEL_UP);
	cr_assert_eq(chp_channel_receive(end[1], p, CHP_CHANNEL_BURST), 0);
	cr_assert_eq(send_numbers(end[0], 8, 1), 1);
	cr_assert_eq(chp_channel_receive(end[1], p, CHP_CHANNEL_BURST), 1);
	cr_assert_eq(number_of(&p[0]), 8);
	chp_channel_release(end[1], p, 1);
	cr_assert_eq(chp_channel_counter(end[0], CHP_CHANNEL_downs), 1);
	cr_assert_eq(chp_channel_counter(end[0], CHP_CHANNEL_ups), 2);
}
