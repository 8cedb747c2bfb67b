/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * conformance.h - what every transport of the channel must do, as functions over two ends.
 *
 * A transport's test program describes how its two ends begin and end, and has CONFORMANCE(suite, &description) make a
 * Criterion test of each function. Ends are polled by one thread; one of them may live in another process (remote.h).
 */
#ifndef TESTS_CHANNEL_CONFORMANCE_H
#define TESTS_CHANNEL_CONFORMANCE_H

#include "channel/channel.h"

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdint.h>

enum { REPLICA = 0, HOST = 1 };

struct transport {
	uint32_t payload_bytes_max;
	bool is_lossless; /* what is taken arrives, once and in order, while both ends live */
	bool sees_death;  /* the state of an end says that the other one is gone */
	bool can_stop[2];
	uint32_t near;    /* an end that is in this process */

	/** Make both ends; asserts that it works. They need not have found each other. */
	void (*begin)(const struct transport *t, struct chp_channel *end[2]);

	/** End one, by closing it or by killing its process where it has one; end[which] is NULL then. */
	void (*stop)(const struct transport *t, struct chp_channel *end[2], uint32_t which, bool is_kill);

	/** Make it again. */
	void (*start)(const struct transport *t, struct chp_channel *end[2], uint32_t which);

	/** End both, those that are NULL already excepted. */
	void (*finish)(const struct transport *t, struct chp_channel *end[2]);
};

void conformance_every_size_passes_unchanged_both_ways(const struct transport *t);
void conformance_bursts_of_all_sizes_pass_both_ways_at_once(const struct transport *t);
void conformance_a_full_channel_takes_no_more_and_goes_on_when_emptied(const struct transport *t);
void conformance_what_is_held_stays_as_it_is_and_has_a_limit(const struct transport *t);
void conformance_links_over_it_survive_loss_and_duplicates(const struct transport *t);
void conformance_an_end_that_closes_and_returns_is_found_again(const struct transport *t);
void conformance_an_end_that_is_killed_and_returns_is_found_again(const struct transport *t);
void conformance_nothing_is_allocated_while_packets_pass(const struct transport *t);
void conformance_an_idle_channel_costs_no_cpu(const struct transport *t);

#define CONFORMANCE_TEST(suite, transport, name) \
	Test(suite, name)                        \
	{                                        \
		conformance_##name(transport);   \
	}

/* For ends that stay. */
#define CONFORMANCE_STEADY(suite, transport)                                                      \
	CONFORMANCE_TEST(suite, transport, every_size_passes_unchanged_both_ways)                 \
	CONFORMANCE_TEST(suite, transport, bursts_of_all_sizes_pass_both_ways_at_once)            \
	CONFORMANCE_TEST(suite, transport, a_full_channel_takes_no_more_and_goes_on_when_emptied) \
	CONFORMANCE_TEST(suite, transport, what_is_held_stays_as_it_is_and_has_a_limit)           \
	CONFORMANCE_TEST(suite, transport, links_over_it_survive_loss_and_duplicates)             \
	CONFORMANCE_TEST(suite, transport, nothing_is_allocated_while_packets_pass)               \
	CONFORMANCE_TEST(suite, transport, an_idle_channel_costs_no_cpu)

#define CONFORMANCE(suite, transport)                                                            \
	CONFORMANCE_STEADY(suite, transport)                                                      \
	CONFORMANCE_TEST(suite, transport, an_end_that_closes_and_returns_is_found_again)         \
	CONFORMANCE_TEST(suite, transport, an_end_that_is_killed_and_returns_is_found_again)

/** Poll both ends until each says that the other is there. */
void wait_up(struct chp_channel *end[2]);

/** Poll both until this one is down. */
void wait_down(struct chp_channel *end[2], uint32_t which);

/** Time of the machine. */
uint64_t test_now_ns(void);

#endif /* TESTS_CHANNEL_CONFORMANCE_H */
