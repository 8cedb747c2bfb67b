/* SPDX-License-Identifier: BSD-3-Clause */
#include "pipeline/queue.h"

#include "base/assert.h"

#include <rte_malloc.h>

#include <errno.h>

int
chp_queue_init(struct chp_queue *q, uint32_t capacity, bool same)
{
	*q = (struct chp_queue){ .capacity = capacity, .mask = capacity - 1 };
	CHP_ASSERT(chp_is_pow2(capacity));
	if (same) {
		q->slot = rte_zmalloc(NULL, capacity * sizeof(*q->slot), CHP_CACHE_LINE);
		return q->slot != NULL ? 0 : -ENOMEM;
	}
	/* In memory of our own: several pipelines in a process need no unique names. */
	ssize_t bytes = rte_ring_get_memsize(2 * capacity);

	CHP_ASSERT(bytes > 0);
	q->ring = rte_zmalloc(NULL, (size_t)bytes, RTE_CACHE_LINE_SIZE);
	if (q->ring == NULL)
		return -ENOMEM;
	return rte_ring_init(q->ring, "chaapar", capacity,
			     RING_F_SP_ENQ | RING_F_SC_DEQ | RING_F_EXACT_SZ);
}

void
chp_queue_fini(struct chp_queue *q)
{
	struct rte_mbuf *m;

	if (q->ring != NULL || q->slot != NULL) {
		while (chp_queue_take(q, &m, 1) == 1)
			rte_pktmbuf_free(m);
	}
	rte_free(q->ring);
	rte_free(q->slot);
	*q = (struct chp_queue){ 0 };
}
