/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * queue.h - mbufs from one stage to another: an SP/SC ring between lcores, a plain array on the same one.
 *
 * One producer, one consumer. Both forms take and give in order and have an exact capacity, so that a
 * stage behaves the same in every mapping.
 */
#ifndef CHP_PIPELINE_QUEUE_H
#define CHP_PIPELINE_QUEUE_H

#include "base/bytes.h"
#include "base/limits.h"

#include <rte_mbuf.h>
#include <rte_ring.h>

#include <stdbool.h>
#include <stdint.h>

struct chp_queue {
	struct rte_ring *ring;  /* NULL: producer and consumer are the same lcore */
	struct rte_mbuf **slot; /* then: a ring without atomics */
	uint32_t mask, capacity;
	uint32_t head, tail;    /* taken, put; counted for ever */
};

/**
 * Make a queue.
 *
 * @param capacity  power of two
 * @param same      producer and consumer are the same lcore
 * @return          0 or -ENOMEM
 */
int chp_queue_init(struct chp_queue *q, uint32_t capacity, bool same);

/** Free the queue and what is in it. Accepts a zeroed one. */
void chp_queue_fini(struct chp_queue *q);

/** Put up to n mbufs; returns how many it took, the rest stays the caller's. */
static inline uint32_t
chp_queue_put(struct chp_queue *q, struct rte_mbuf *const *m, uint32_t n)
{
	if (q->ring != NULL)
		return rte_ring_sp_enqueue_burst(q->ring, (void *const *)m, n, NULL);
	n = chp_min_u32(n, q->capacity - (q->tail - q->head));
	for (uint32_t i = 0; i < n; i++)
		q->slot[q->tail++ & q->mask] = m[i];
	return n;
}

/** Take up to n mbufs; returns how many. */
static inline uint32_t
chp_queue_take(struct chp_queue *q, struct rte_mbuf **m, uint32_t n)
{
	if (q->ring != NULL)
		return rte_ring_sc_dequeue_burst(q->ring, (void **)m, n, NULL);
	n = chp_min_u32(n, q->tail - q->head);
	for (uint32_t i = 0; i < n; i++)
		m[i] = q->slot[q->head++ & q->mask];
	return n;
}

/** mbufs that the producer can surely put now. */
static inline uint32_t
chp_queue_room(const struct chp_queue *q)
{
	return q->ring != NULL ? rte_ring_free_count(q->ring) : q->capacity - (q->tail - q->head);
}

/** mbufs in the queue. */
static inline uint32_t
chp_queue_count(const struct chp_queue *q)
{
	return q->ring != NULL ? rte_ring_count(q->ring) : q->tail - q->head;
}

#endif /* CHP_PIPELINE_QUEUE_H */
