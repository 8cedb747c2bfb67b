/* SPDX-License-Identifier: BSD-3-Clause */
#include "conformance.h"

#include "base/bytes.h"
#include "base/random.h"
#include "core/link.h"
#include "wire/host.h"

#include <malloc.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MS UINT64_C(1000000)
/* Longer than any of this takes on a machine that does ten other things. */
#define WAIT_NS (60000 * MS)
#define HASH 0x1234u

uint64_t
test_now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 * MS + (uint64_t)t.tv_nsec;
}

/* ------------------------------------------------------------------ one packet */

/* The bytes of a packet follow from its number: a prefix of any length may be compared. */
static void
fill(uint8_t *data, uint32_t len, uint64_t number)
{
	struct chp_random r = { .state = number };

	for (uint32_t at = 0; at < len; at += 8) {
		uint64_t word = at == 0 ? number : chp_random_u64(&r);

		memcpy(data + at, &word, len - at < 8 ? len - at : 8);
	}
}

static uint64_t
number_of(const struct chp_channel_packet *p)
{
	uint64_t number = 0;

	memcpy(&number, p->data, p->len < 8 ? p->len : 8);
	return number;
}

static void
check_content(const struct chp_channel_packet *p, uint64_t number)
{
	static uint8_t want[CHP_PAYLOAD_BYTES_MAX];

	fill(want, p->len, number);
	cr_assert_eq(memcmp(p->data, want, p->len), 0, "packet %lu of %u bytes changed", number, p->len);
	cr_assert_eq((uintptr_t)p->data % 2, 0);
}

static bool
send_one(struct chp_channel *ch, uint64_t number, uint32_t len)
{
	static uint8_t data[CHP_PAYLOAD_BYTES_MAX];
	struct chp_channel_packet p = { .data = data, .len = len };

	fill(data, len, number);
	return chp_channel_send(ch, &p, 1) == 1;
}

/* What arrives at an end is of no interest. */
static uint32_t
discard(struct chp_channel *ch)
{
	struct chp_channel_packet p[CHP_CHANNEL_BURST];
	uint32_t n = ch != NULL ? chp_channel_receive(ch, p, CHP_CHANNEL_BURST) : 0;

	if (n > 0)
		chp_channel_release(ch, p, n);
	return n;
}

static const char *
text_of(struct chp_channel *ch)
{
	const char *text = "closed";

	if (ch != NULL)
		(void)chp_channel_state(ch, &text);
	return text;
}

void
wait_up(struct chp_channel *end[2])
{
	uint64_t until_ns = test_now_ns() + WAIT_NS;

	while (chp_channel_state(end[0], NULL) != CHP_CHANNEL_UP ||
	       chp_channel_state(end[1], NULL) != CHP_CHANNEL_UP) {
		cr_assert_lt(test_now_ns(), until_ns, "replica: %s; host: %s", text_of(end[0]), text_of(end[1]));
		discard(end[0]);
		discard(end[1]);
		(void)usleep(100);
	}
}

void
wait_down(struct chp_channel *end[2], uint32_t which)
{
	uint64_t until_ns = test_now_ns() + WAIT_NS;

	while (chp_channel_state(end[which], NULL) != CHP_CHANNEL_DOWN) {
		cr_assert_lt(test_now_ns(), until_ns, "still up: %s", text_of(end[which]));
		discard(end[0]);
		discard(end[1]);
		(void)usleep(100);
	}
}

static void
begin(const struct transport *t, struct chp_channel *end[2])
{
	t->begin(t, end);
	wait_up(end);
}

/* ------------------------------------------------------------------ packets */

/* Whether a packet arrives, at once or soon. */
static bool
arrives(struct chp_channel *end[2], uint32_t to, uint64_t number, uint32_t len)
{
	uint64_t until_ns = test_now_ns() + 1000 * MS;
	struct chp_channel_packet p;

	do {
		if (chp_channel_receive(end[to], &p, 1) == 1) {
			uint8_t first = (uint8_t)number;
			bool is_it = p.len == len && p.data[0] == first;

			if (is_it)
				check_content(&p, number);
			chp_channel_release(end[to], &p, 1);
			if (is_it)
				return true;
		}
		discard(end[1 - to]);
	} while (test_now_ns() < until_ns);
	return false;
}

void
conformance_every_size_passes_unchanged_both_ways(const struct transport *t)
{
	struct chp_channel *end[2];

	begin(t, end);
	for (uint32_t len = 1; len <= t->payload_bytes_max; len++) {
		for (uint32_t from = 0; from < 2; from++) {
			bool arrived = false;

			for (uint32_t tries = 0; tries < 5 && !arrived; tries++) {
				cr_assert(tries == 0 || !t->is_lossless, "%u bytes were lost", len);
				cr_assert(send_one(end[from], len * UINT64_C(0x9e3779b97f4a7c15) + from, len));
				arrived = arrives(end, 1 - from, len * UINT64_C(0x9e3779b97f4a7c15) + from, len);
			}
			cr_assert(arrived, "%u bytes from end %u", len, from);
		}
	}
	t->finish(t, end);
}

/* Traffic of one direction: numbered packets of random sizes in random bursts. */
struct flow {
	struct chp_channel *from, *to;
	uint64_t sent, received; /* the numbers of the next */
	uint64_t lost;
	uint32_t n_held;
	struct chp_channel_packet held[CHP_CHANNEL_LENT_MAX];
	uint64_t held_number[CHP_CHANNEL_LENT_MAX];
};

static void
send_burst(struct flow *f, struct chp_random *random, uint32_t n, uint32_t len_max)
{
	static uint8_t data[CHP_CHANNEL_BURST][CHP_PAYLOAD_BYTES_MAX];
	struct chp_channel_packet p[CHP_CHANNEL_BURST];

	for (uint32_t i = 0; i < n; i++) {
		p[i] = (struct chp_channel_packet){
			.data = data[i],
			.len = (uint32_t)chp_random_range(random, 8, len_max),
		};
		fill(data[i], p[i].len, f->sent + i);
	}
	n = chp_channel_send(f->from, p, n);
	/* What was taken was read: nobody cares what becomes of the memory. */
	memset(data, 0xff, sizeof(data));
	f->sent += n;
}

static uint32_t
receive_burst(const struct transport *t, struct flow *f, uint32_t n)
{
	struct chp_channel_packet *p = &f->held[f->n_held];

	n = chp_channel_receive(f->to, p, chp_min_u32(n, CHP_CHANNEL_LENT_MAX - f->n_held));
	for (uint32_t i = 0; i < n; i++) {
		uint64_t number = number_of(&p[i]);

		check_content(&p[i], number);
		cr_assert_geq(number, f->received, "twice, or out of order");
		cr_assert(number == f->received || !t->is_lossless, "%lu came, %lu was lost", number, f->received);
		f->lost += number - f->received;
		f->received = number + 1;
		f->held_number[f->n_held++] = number;
	}
	return n;
}

/* Release some of what is held, in any order. */
static void
release_some(struct flow *f, struct chp_random *random, uint32_t n)
{
	for (; n > 0 && f->n_held > 0; n--) {
		uint32_t at = (uint32_t)chp_random_below(random, f->n_held);

		check_content(&f->held[at], f->held_number[at]);
		chp_channel_release(f->to, &f->held[at], 1);
		f->n_held--;
		f->held[at] = f->held[f->n_held];
		f->held_number[at] = f->held_number[f->n_held];
	}
}

/* Send until so many packets are held. */
static void
hold(const struct transport *t, struct flow *f, uint32_t n)
{
	struct chp_random random = { .state = 7 };
	uint64_t until_ns = test_now_ns() + WAIT_NS;

	while (f->n_held < n) {
		cr_assert_lt(test_now_ns(), until_ns);
		send_burst(f, &random, 1, t->payload_bytes_max);
		(void)receive_burst(t, f, n - f->n_held);
		discard(f->from);
	}
}

/* Until this many packets of each flow were sent, and what can arrive has. */
static void
run_flows(const struct transport *t, struct flow flow[2], uint64_t total, struct chp_random *random)
{
	uint64_t until_ns = test_now_ns() + WAIT_NS;
	uint32_t idle = 0;

	while (idle < 1000 && (flow[0].received < total || flow[1].received < total)) {
		bool moved = false;

		cr_assert_lt(test_now_ns(), until_ns);
		for (uint32_t i = 0; i < 2; i++) {
			struct flow *f = &flow[i];
			uint64_t n = chp_random_range(random, 1, CHP_CHANNEL_BURST);

			if (f->sent < total)
				send_burst(f, random, (uint32_t)chp_min_u64(n, total - f->sent), t->payload_bytes_max);
			n = chp_random_range(random, 1, CHP_CHANNEL_BURST);
			moved |= f->sent < total || receive_burst(t, f, (uint32_t)n) > 0;
			(void)receive_burst(t, f, (uint32_t)n);
			release_some(f, random, (uint32_t)chp_random_range(random, 0, CHP_CHANNEL_BURST));
		}
		idle = moved ? 0 : idle + 1;
		if (!moved)
			(void)usleep(100);
	}
	for (uint32_t i = 0; i < 2; i++) {
		release_some(&flow[i], random, CHP_CHANNEL_LENT_MAX);
		cr_assert(!t->is_lossless || flow[i].received == total, "%lu of %lu", flow[i].received, total);
		cr_assert_gt(flow[i].received, total / 2, "%lu of %lu", flow[i].received, total);
	}
}

void
conformance_bursts_of_all_sizes_pass_both_ways_at_once(const struct transport *t)
{
	struct chp_random random = { .state = 3 };
	struct chp_channel *end[2];
	struct flow *flow;

	begin(t, end);
	flow = calloc(2, sizeof(*flow));
	for (uint32_t i = 0; i < 2; i++) {
		flow[i].from = end[i];
		flow[i].to = end[1 - i];
	}
	run_flows(t, flow, 10000, &random);
	free(flow);
	t->finish(t, end);
}

void
conformance_a_full_channel_takes_no_more_and_goes_on_when_emptied(const struct transport *t)
{
	struct chp_random random = { .state = 4 };
	struct chp_channel *end[2];
	struct flow *flow;

	begin(t, end);
	flow = calloc(2, sizeof(*flow));
	for (uint32_t i = 0; i < 2; i++) {
		flow[i].from = end[i];
		flow[i].to = end[1 - i];
	}
	for (uint32_t round = 0; round < 6; round++) {
		struct flow *f = &flow[round & 1];
		uint64_t before = f->sent, until_ns = test_now_ns() + WAIT_NS;
		uint64_t full = chp_channel_counter(f->from, CHP_CHANNEL_tx_full);

		/* A ring of 1024 at each end and a full queue between them are less than this. */
		for (uint32_t i = 0; i < 256 && chp_channel_counter(f->from, CHP_CHANNEL_tx_full) == full; i++)
			send_burst(f, &random, CHP_CHANNEL_BURST, 64);
		cr_assert_gt(chp_channel_counter(f->from, CHP_CHANNEL_tx_full), full, "%lu packets and not full",
			     f->sent - before);
		while (f->received < f->sent) {
			cr_assert_lt(test_now_ns(), until_ns, "%lu of %lu", f->received, f->sent);
			if (receive_burst(t, f, CHP_CHANNEL_BURST) == 0) {
				if (!t->is_lossless && f->received > before)
					break;
				(void)usleep(100);
			}
			release_some(f, &random, CHP_CHANNEL_BURST);
		}
		release_some(f, &random, CHP_CHANNEL_LENT_MAX);
	}
	run_flows(t, flow, chp_max_u64(flow[0].sent, flow[1].sent) + 1000, &random);
	free(flow);
	t->finish(t, end);
}

void
conformance_what_is_held_stays_as_it_is_and_has_a_limit(const struct transport *t)
{
	struct chp_random random = { .state = 5 };
	struct chp_channel *end[2];
	struct flow *f;

	begin(t, end);
	for (uint32_t to = 0; to < 2; to++) {
		struct chp_channel_packet p;

		f = calloc(1, sizeof(*f));
		f->from = end[1 - to];
		f->to = end[to];
		hold(t, f, CHP_CHANNEL_LENT_MAX);
		/* Others wait, whatever comes. */
		for (uint32_t i = 0; i < 200; i++) {
			send_burst(f, &random, 4, t->payload_bytes_max);
			cr_assert_eq(chp_channel_receive(end[to], &p, 1), 0);
		}
		for (uint32_t i = 0; i < 20000 && f->n_held > 0; i++) {
			release_some(f, &random, 1 + i % 2);
			if (i % 3 > 0)
				(void)receive_burst(t, f, 1);
			discard(end[1 - to]);
		}
		while (f->n_held > 0 || receive_burst(t, f, CHP_CHANNEL_BURST) > 0)
			release_some(f, &random, 1);
		/* As often as one likes, and all in one call. */
		for (uint32_t i = 0; i < 3; i++) {
			hold(t, f, CHP_CHANNEL_LENT_MAX);
			chp_channel_release(f->to, f->held, CHP_CHANNEL_LENT_MAX);
			f->n_held = 0;
			discard(f->from);
		}
		while (discard(f->to) > 0)
			;
		free(f);
	}
	t->finish(t, end);
}

/* ------------------------------------------------------------------ links over it */

struct numbered {
	struct chp_message message;
	uint64_t number;
	uint8_t more[48];
};

/* A shard's link and the one of its host. */
struct links {
	struct chp_channel **end;
	struct chp_link l[2];
	uint64_t sent[2], received[2];
	struct chp_random random;
	uint32_t drop_ppm, duplicate_ppm;
	uint64_t dropped;
};

static struct links *
links_of(const struct transport *t, struct chp_channel *end[2])
{
	struct links *s = calloc(1, sizeof(*s));
	const struct chp_link_config config = {
		.kind = CHP_PACKET_HOST,
		.cluster_hash = HASH,
		.window = 64,
		.payload_bytes_max = t->payload_bytes_max,
		.queue = 128,
		.rto_ns_min = 5 * MS,
		.rto_ns_max = 100 * MS,
		.ack_delay_ns = MS,
		.link_down_ns = CHP_NEVER,
	};

	cr_assert_not_null(s);
	s->end = end;
	s->random.state = 6;
	for (uint32_t i = 0; i < 2; i++) {
		cr_assert_eq(chp_link_init(&s->l[i], &config, &chp_memory_libc), 0);
		chp_link_peer(&s->l[i], 100 + i, 101 - i, test_now_ns());
	}
	return s;
}

static void
links_free(struct links *s)
{
	for (uint32_t i = 0; i < 2; i++)
		chp_link_fini(&s->l[i], &chp_memory_libc);
	free(s);
}

static void
take_messages(struct links *s, uint32_t which, const uint8_t *data, uint32_t len)
{
	for (uint32_t at = sizeof(struct chp_peer_header); at < len; at += (uint32_t)sizeof(struct numbered)) {
		struct numbered m;

		memcpy(&m, data + at, sizeof(m));
		cr_assert_eq(m.number, s->received[which], "message %lu where %lu was due", m.number,
			     s->received[which]);
		s->received[which]++;
	}
}

static void
link_receive(struct links *s, uint32_t which)
{
	struct chp_channel_packet p[CHP_CHANNEL_BURST];
	uint32_t n = chp_channel_receive(s->end[which], p, CHP_CHANNEL_BURST);
	uint64_t now_ns = test_now_ns();
	struct chp_link *l = &s->l[which];
	struct chp_link_rx *waiting;

	for (uint32_t i = 0; i < n; i++) {
		cr_assert_eq(chp_host_check(p[i].data, p[i].len, HASH, 0, 1), CHP_PACKET_OK);
		if (chp_link_receive(l, p[i].data, p[i].len, now_ns) == CHP_LINK_DELIVER) {
			take_messages(s, which, p[i].data, p[i].len);
			chp_link_delivered(l, now_ns);
		}
		while ((waiting = chp_link_waiting(l)) != NULL) {
			take_messages(s, which, waiting->bytes, waiting->len);
			chp_link_delivered(l, now_ns);
		}
	}
	chp_channel_release(s->end[which], p, n);
}

static void
link_send(struct links *s, uint32_t which)
{
	static uint8_t data[CHP_PAYLOAD_BYTES_MAX];
	struct chp_channel_packet p = { .data = data };
	struct chp_link *l = &s->l[which];

	for (uint32_t i = 0; i < CHP_CHANNEL_BURST; i++) {
		p.len = chp_link_transmit(l, test_now_ns(), 0, data);
		if (p.len == 0)
			return;
		chp_peer_seal(data, p.len);
		if (chp_random_chance(&s->random, s->drop_ppm)) {
			s->dropped++;
			continue;
		}
		(void)chp_channel_send(s->end[which], &p, 1);
		if (chp_random_chance(&s->random, s->duplicate_ppm))
			(void)chp_channel_send(s->end[which], &p, 1);
	}
}

static void
write_messages(struct links *s, uint32_t which, uint64_t n)
{
	struct numbered m = { .message = { .type = 1, .len = sizeof(m), .op = CHP_OP_NONE } };
	struct chp_link *l = &s->l[which];
	uint8_t *at = NULL, *end = NULL;

	while (n > 0 && chp_link_room(l) > 2) {
		chp_link_open(l, sizeof(m), 0, &at, &end);
		for (; n > 0 && end - at >= (ptrdiff_t)sizeof(m); n--) {
			m.number = s->sent[which]++;
			memcpy(at, &m, sizeof(m));
			at += sizeof(m);
		}
		chp_link_close(l, at);
	}
}

/* Both links go on until both ends have received so many messages, or for so long. */
static void
run_links(struct links *s, uint64_t total, uint64_t ns)
{
	uint64_t until_ns = test_now_ns() + ns;

	while (s->received[0] < total || s->received[1] < total) {
		uint64_t before = s->received[0] + s->received[1];

		if (test_now_ns() >= until_ns)
			break;
		for (uint32_t i = 0; i < 2; i++) {
			uint64_t left = total > s->sent[i] ? total - s->sent[i] : 0;

			if (s->end[i] == NULL)
				continue;
			write_messages(s, i, chp_min_u64(left, chp_random_below(&s->random, 64)));
			link_send(s, i);
			link_receive(s, i);
		}
		if (s->received[0] + s->received[1] == before)
			(void)usleep(20);
	}
}

static void
expect_all(const struct links *s, uint64_t total)
{
	for (uint32_t i = 0; i < 2; i++) {
		cr_assert_eq(s->sent[i], total);
		cr_assert_eq(s->received[i], total, "%lu of %lu messages reached end %u", s->received[i], total, i);
	}
}

void
conformance_links_over_it_survive_loss_and_duplicates(const struct transport *t)
{
	struct chp_channel *end[2];
	struct links *s;

	begin(t, end);
	s = links_of(t, end);
	s->drop_ppm = 50000;
	s->duplicate_ppm = 10000;
	run_links(s, 20000, WAIT_NS);
	expect_all(s, 20000);
	cr_assert_gt(s->dropped, 10);
	links_free(s);
	t->finish(t, end);
}

/* ------------------------------------------------------------------ ends that go and come back */

/* What is under way arrives, and nobody looks at it. */
static void
wait_quiet(struct chp_channel *end[2])
{
	for (uint32_t i = 0; i < 100; i++)
		(void)usleep(discard(end[0]) + discard(end[1]) > 0 ? 100 : 10);
}

/* An end that is back sends, if it can, more than any ring takes, to one that holds packets of before. */
static void
return_to_what_is_held(struct chp_channel *end[2], uint32_t which)
{
	uint64_t until_ns = test_now_ns() + 500 * MS;
	uint32_t sent = 0;

	while (sent < 2048 && test_now_ns() < until_ns) {
		bool is_up = chp_channel_state(end[which], NULL) == CHP_CHANNEL_UP;

		/* Asked in any case: that is how it gets anywhere. */
		is_up &= chp_channel_state(end[1 - which], NULL) == CHP_CHANNEL_UP;
		if (is_up && send_one(end[which], ~UINT64_C(0), 1000))
			sent++;
		else if (sent > 0)
			break;
		else
			(void)usleep(1000);
	}
}

/* One end goes and comes back while the links above are at work. */
static void
interrupt(const struct transport *t, struct links *s, struct chp_channel *end[2], uint32_t which, bool is_kill)
{
	struct chp_random random = { .state = 8 };
	uint64_t downs = chp_channel_counter(end[1 - which], CHP_CHANNEL_downs);
	uint64_t drops = chp_channel_counter(end[1 - which], CHP_CHANNEL_drop_tx_down);
	uint64_t goal = chp_max_u64(s->sent[0], s->sent[1]) + 3000;
	struct flow f;

	run_links(s, goal, WAIT_NS);
	expect_all(s, goal);
	wait_quiet(end); /* acknowledgements may be under way: nothing must be that is not of the flow */
	/* What an end holds when the other one goes is its own still. */
	f = (struct flow){ .from = end[which], .to = end[1 - which] };
	hold(t, &f, 5);
	t->stop(t, end, which, is_kill);
	if (t->sees_death) {
		wait_down(end, 1 - which);
		cr_assert_eq(chp_channel_counter(end[1 - which], CHP_CHANNEL_downs), downs + 1);
		cr_assert(send_one(end[1 - which], 1, 100), "dropped, not refused");
		cr_assert_eq(chp_channel_counter(end[1 - which], CHP_CHANNEL_drop_tx_down), drops + 1);
	}
	run_links(s, goal + 500, 50 * MS); /* into the void */
	t->start(t, end, which);
	return_to_what_is_held(end, which);
	release_some(&f, &random, CHP_CHANNEL_LENT_MAX);
	wait_up(end);
	wait_quiet(end);
	run_links(s, goal + 3000, WAIT_NS);
	expect_all(s, goal + 3000);
}

/* Both go, and come back in this order. */
static void
interrupt_both(const struct transport *t, struct links *s, struct chp_channel *end[2], uint32_t first, bool is_kill)
{
	uint64_t goal = chp_max_u64(s->sent[0], s->sent[1]) + 3000;

	run_links(s, goal - 2500, 10 * MS); /* something is under way */
	t->stop(t, end, first, is_kill);
	t->stop(t, end, 1 - first, is_kill);
	t->start(t, end, first);
	t->start(t, end, 1 - first);
	wait_up(end);
	run_links(s, goal, WAIT_NS);
	expect_all(s, goal);
}

static void
come_and_go(const struct transport *t, bool is_kill)
{
	struct chp_channel *end[2];
	struct links *s;

	begin(t, end);
	s = links_of(t, end);
	for (uint32_t round = 0; round < 6; round++) {
		if (t->can_stop[round & 1])
			interrupt(t, s, end, round & 1, is_kill);
	}
	for (uint32_t first = 0; first < 2; first++) {
		if (t->can_stop[0] && t->can_stop[1])
			interrupt_both(t, s, end, first, is_kill);
	}
	cr_assert_gt(s->received[0], 0);
	links_free(s);
	t->finish(t, end);
}

void
conformance_an_end_that_closes_and_returns_is_found_again(const struct transport *t)
{
	come_and_go(t, false);
}

void
conformance_an_end_that_is_killed_and_returns_is_found_again(const struct transport *t)
{
	come_and_go(t, true);
}

/* ------------------------------------------------------------------ what it costs */

void
conformance_nothing_is_allocated_while_packets_pass(const struct transport *t)
{
	struct chp_random random = { .state = 9 };
	struct chp_channel *end[2];
	struct flow *flow;
	size_t before;

	begin(t, end);
	flow = calloc(2, sizeof(*flow));
	for (uint32_t i = 0; i < 2; i++) {
		flow[i].from = end[i];
		flow[i].to = end[1 - i];
	}
	run_flows(t, flow, 500, &random);
	before = mallinfo2().uordblks;
	run_flows(t, flow, 5000, &random);
	cr_assert_eq(mallinfo2().uordblks, before);
	free(flow);
	t->finish(t, end);
}

static uint64_t
cpu_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000 * MS + (uint64_t)t.tv_nsec;
}

/* Nothing in it runs by itself: whoever looks now and then, as an idle host does, pays for the looks and no more. */
void
conformance_an_idle_channel_costs_no_cpu(const struct transport *t)
{
	struct chp_channel *end[2], *near;
	uint64_t cpu = 0, wall = 0;

	begin(t, end);
	while (discard(end[0]) + discard(end[1]) > 0)
		;
	near = end[t->near];
	/* A virtual machine's time goes on while it does not run, its CPU time, too: then another look is fairer. */
	for (uint32_t tries = 0; cpu >= wall / 10; tries++) {
		cr_assert_lt(tries, 10, "%lu us of CPU in %lu us", cpu / 1000, wall / 1000);
		wall = test_now_ns();
		cpu = cpu_ns();
		for (uint32_t i = 0; i < 50; i++) {
			(void)usleep(10000);
			cr_assert_eq(discard(near), 0);
			cr_assert_eq(chp_channel_state(near, NULL), CHP_CHANNEL_UP);
		}
		cpu = cpu_ns() - cpu;
		wall = test_now_ns() - wall;
	}
	cr_assert_eq(chp_channel_state(end[1 - t->near], NULL), CHP_CHANNEL_UP);
	t->finish(t, end);
}
