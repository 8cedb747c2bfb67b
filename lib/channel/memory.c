/* SPDX-License-Identifier: BSD-3-Clause */
#include "channel/memory.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/memory.h"
#include "base/random.h"

#include <errno.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* Packets that are at least so long are bulk. */
#define STREAM_BYTES_MIN 512u

/* Packets on their way to one end. */
struct direction {
	_Alignas(CHP_CACHE_LINE) _Atomic(uint32_t) head; /* taken, by the receiver; counted for ever */
	_Alignas(CHP_CACHE_LINE) _Atomic(uint32_t) tail; /* put, by the sender */
	uint32_t len[CHP_CHANNEL_MEMORY_PACKETS];
	uint8_t *data; /* slots of payload_bytes_max, rounded up to 8 */
};

struct pair {
	struct chp_random random; /* of faults */
	uint32_t slot_bytes;
	uint32_t n_open;
	bool alive[2];
	struct direction to[2];
};

struct end {
	struct chp_channel ch;
	struct pair *pair;
	uint32_t side;
	uint32_t drop_ppm, duplicate_ppm;
	bool was_up;
	uint32_t n_free;
	uint8_t *free[CHP_CHANNEL_LENT_MAX]; /* what the owner does not hold */
	uint8_t *lent;                       /* all of them */
};

static const struct chp_channel_ops memory_ops;

static struct end *
end_of(struct chp_channel *ch)
{
	CHP_ASSERT(ch->ops == &memory_ops);
	return (struct end *)(void *)ch;
}

static bool
is_up(const struct end *e)
{
	return e->pair->alive[0] && e->pair->alive[1];
}

/* Count what changed since this end looked last. */
static void
look(struct end *e)
{
	bool up = is_up(e);

	if (up != e->was_up)
		chp_channel_count(&e->ch, up ? CHP_CHANNEL_ups : CHP_CHANNEL_downs, 1);
	e->was_up = up;
}

static uint32_t
waiting(const struct direction *d)
{
	return atomic_load_explicit(&d->tail, memory_order_acquire) -
	       atomic_load_explicit(&d->head, memory_order_acquire);
}

/*
 * What is long goes past the caches: the other end's CPU has the lines of the packet before, and whoever waits for each
 * of them to write it waits longer than all else takes. A device that fetches what it sends does not wait for that,
 * either. Needs publish() behind it.
 */
static void
copy(uint8_t *to, const uint8_t *from, uint32_t len)
{
	uint32_t i = 0;

#if defined(__SSE2__)
	for (; len >= STREAM_BYTES_MIN && i + 16 <= len; i += 16)
		_mm_stream_si128((void *)(to + i), _mm_loadu_si128((const void *)(from + i)));
#endif
	memcpy(to + i, from + i, len - i);
}

static void
publish(struct direction *d, uint32_t tail)
{
#if defined(__SSE2__)
	_mm_sfence();
#endif
	atomic_store_explicit(&d->tail, tail, memory_order_release);
}

static void
put(const struct end *e, struct direction *d, uint32_t tail, const struct chp_channel_packet *p)
{
	const uint32_t at = tail & (CHP_CHANNEL_MEMORY_PACKETS - 1);

	copy(d->data + (size_t)at * e->pair->slot_bytes, p->data, p->len);
	d->len[at] = p->len;
}

/* Faults are drawn only where there are some: the generator is of both ends. */
static bool
strikes(struct end *e, uint32_t ppm)
{
	return ppm > 0 && chp_random_chance(&e->pair->random, ppm);
}

/* The other end's lines are asked for once in a burst, and it sees all of that at once. */
static uint32_t
memory_send(struct chp_channel *ch, const struct chp_channel_packet *packets, uint32_t n)
{
	struct end *e = end_of(ch);
	struct direction *d = &e->pair->to[1 - e->side];
	const uint32_t full = atomic_load_explicit(&d->head, memory_order_acquire) + CHP_CHANNEL_MEMORY_PACKETS;
	uint32_t i, tail = atomic_load_explicit(&d->tail, memory_order_relaxed);

	look(e);
	if (!is_up(e)) {
		chp_channel_count(ch, CHP_CHANNEL_drop_tx_down, n);
		return n;
	}
	for (i = 0; i < n && tail != full; i++) {
		CHP_ASSERT(packets[i].len > 0 && packets[i].len <= ch->payload_bytes_max);
		chp_channel_count(ch, CHP_CHANNEL_tx_bytes, packets[i].len);
		if (strikes(e, e->drop_ppm))
			continue;
		put(e, d, tail++, &packets[i]);
		if (strikes(e, e->duplicate_ppm) && tail != full) /* a duplicate that finds no room is none */
			put(e, d, tail++, &packets[i]);
	}
	if (i > 0)
		publish(d, tail);
	chp_channel_count(ch, CHP_CHANNEL_tx_packets, i);
	chp_channel_count(ch, CHP_CHANNEL_tx_bursts, i > 0 ? 1 : 0);
	chp_channel_count(ch, CHP_CHANNEL_tx_full, i < n ? 1 : 0);
	return i;
}

static uint32_t
memory_receive(struct chp_channel *ch, struct chp_channel_packet *packets, uint32_t n)
{
	struct end *e = end_of(ch);
	struct direction *d = &e->pair->to[e->side];
	uint32_t i, head = atomic_load_explicit(&d->head, memory_order_relaxed);

	look(e);
	n = chp_min_u32(chp_min_u32(n, CHP_CHANNEL_BURST), chp_min_u32(e->n_free, waiting(d)));
	for (i = 0; i < n; i++) {
		uint32_t at = head++ & (CHP_CHANNEL_MEMORY_PACKETS - 1);

		packets[i].data = packets[i].opaque = e->free[--e->n_free];
		packets[i].len = d->len[at];
		memcpy(packets[i].data, d->data + (size_t)at * e->pair->slot_bytes, d->len[at]);
		chp_channel_count(ch, CHP_CHANNEL_rx_bytes, packets[i].len);
	}
	atomic_store_explicit(&d->head, head, memory_order_release);
	chp_channel_count(ch, CHP_CHANNEL_rx_packets, n);
	chp_channel_count(ch, CHP_CHANNEL_rx_bursts, n > 0 ? 1 : 0);
	return n;
}

static void
memory_release(struct chp_channel *ch, const struct chp_channel_packet *packets, uint32_t n)
{
	struct end *e = end_of(ch);

	for (uint32_t i = 0; i < n; i++) {
		CHP_ASSERT_OP(e->n_free, <, CHP_CHANNEL_LENT_MAX);
		e->free[e->n_free++] = packets[i].opaque;
	}
}

static enum chp_channel_state
memory_state(struct chp_channel *ch, const char **text)
{
	struct end *e = end_of(ch);

	look(e);
	if (text != NULL)
		*text = is_up(e) ? "in this process" : "the other end died";
	return is_up(e) ? CHP_CHANNEL_UP : CHP_CHANNEL_DOWN;
}

static void
memory_close(struct chp_channel *ch)
{
	struct end *e = end_of(ch);
	struct pair *p = e->pair;

	chp_channel_memory_kill(ch);
	chp_memory_libc.free(e->lent);
	chp_memory_libc.free(e);
	if (--p->n_open > 0)
		return;
	chp_memory_libc.free(p->to[0].data);
	chp_memory_libc.free(p->to[1].data);
	chp_memory_libc.free(p);
}

static const struct chp_channel_ops memory_ops = {
	.name = "memory",
	.close = memory_close,
	.send = memory_send,
	.receive = memory_receive,
	.release = memory_release,
	.state = memory_state,
};

static struct end *
make_end(struct pair *p, uint32_t side, uint32_t payload_bytes_max)
{
	struct end *e = chp_memory_libc.zalloc(sizeof(*e));

	if (e == NULL)
		return NULL;
	e->ch.ops = &memory_ops;
	e->ch.payload_bytes_max = payload_bytes_max;
	e->ch.is_host = side == 1;
	e->pair = p;
	e->side = side;
	e->lent = chp_memory_libc.zalloc((size_t)CHP_CHANNEL_LENT_MAX * p->slot_bytes);
	for (; e->lent != NULL && e->n_free < CHP_CHANNEL_LENT_MAX; e->n_free++)
		e->free[e->n_free] = e->lent + (size_t)e->n_free * p->slot_bytes;
	p->to[side].data = chp_memory_libc.zalloc((size_t)CHP_CHANNEL_MEMORY_PACKETS * p->slot_bytes);
	p->alive[side] = true;
	p->n_open++;
	return e;
}

int
chp_channel_memory_pair(uint32_t payload_bytes_max, uint64_t seed, struct chp_channel *end[2])
{
	struct pair *p = chp_memory_libc.zalloc(sizeof(*p));
	struct end *e[2];

	if (p == NULL)
		return -ENOMEM;
	p->random.state = seed;
	p->slot_bytes = chp_align_u32(payload_bytes_max, CHP_CACHE_LINE);
	e[0] = make_end(p, 0, payload_bytes_max);
	e[1] = make_end(p, 1, payload_bytes_max);
	if (e[0] != NULL && e[1] != NULL && e[0]->lent != NULL && e[1]->lent != NULL && p->to[0].data != NULL &&
	    p->to[1].data != NULL) {
		end[0] = &e[0]->ch;
		end[1] = &e[1]->ch;
		return 0;
	}
	for (uint32_t i = 0; i < 2; i++) {
		if (e[i] != NULL)
			chp_memory_libc.free(e[i]->lent);
		chp_memory_libc.free(e[i]);
		chp_memory_libc.free(p->to[i].data);
	}
	chp_memory_libc.free(p);
	return -ENOMEM;
}

void
chp_channel_memory_impair(struct chp_channel *ch, uint32_t drop_ppm, uint32_t duplicate_ppm)
{
	struct end *e = end_of(ch);

	e->drop_ppm = drop_ppm;
	e->duplicate_ppm = duplicate_ppm;
}

void
chp_channel_memory_kill(struct chp_channel *ch)
{
	struct end *e = end_of(ch);

	e->pair->alive[e->side] = false;
	for (uint32_t i = 0; i < 2; i++)
		e->pair->to[i].head = e->pair->to[i].tail;
}

void
chp_channel_memory_revive(struct chp_channel *ch)
{
	struct end *e = end_of(ch);

	e->pair->alive[e->side] = true;
}
