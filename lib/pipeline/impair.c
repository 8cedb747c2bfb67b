/* SPDX-License-Identifier: BSD-3-Clause */
#include "pipeline/impair.h"

#include "base/bytes.h"
#include "base/limits.h"

#include <rte_mbuf.h>

_Static_assert((CHP_IMPAIR_DELAYED_MAX & (CHP_IMPAIR_DELAYED_MAX - 1)) == 0, "masks");

void
chp_impair_set(struct chp_impair *i, const struct chp_impairment *to)
{
	atomic_store_explicit(&i->drop_ppm, to->drop_ppm, memory_order_relaxed);
	atomic_store_explicit(&i->duplicate_ppm, to->duplicate_ppm, memory_order_relaxed);
	atomic_store_explicit(&i->delay_ppm, to->delay_ppm, memory_order_relaxed);
	atomic_store_explicit(&i->delay_us, to->delay_us, memory_order_relaxed);
	atomic_store_explicit(&i->cut, to->cut, memory_order_relaxed);
	atomic_store_explicit(&i->on,
			      to->drop_ppm != 0 || to->duplicate_ppm != 0 || to->delay_ppm != 0 ||
				      to->cut != 0,
			      memory_order_relaxed);
}

void
chp_impair_get(const struct chp_impair *i, struct chp_impairment *to)
{
	to->drop_ppm = atomic_load_explicit(&i->drop_ppm, memory_order_relaxed);
	to->duplicate_ppm = atomic_load_explicit(&i->duplicate_ppm, memory_order_relaxed);
	to->delay_ppm = atomic_load_explicit(&i->delay_ppm, memory_order_relaxed);
	to->delay_us = atomic_load_explicit(&i->delay_us, memory_order_relaxed);
	to->cut = atomic_load_explicit(&i->cut, memory_order_relaxed);
}

enum chp_fate
chp_impair_draw(const struct chp_impair *i, struct chp_delayed *d, uint32_t peer)
{
	struct chp_impairment now;

	chp_impair_get(i, &now);
	if (peer < CHP_NODES_MAX && (now.cut & chp_bit(peer)) != 0)
		return CHP_FATE_CUT;
	if (chp_random_chance(&d->random, now.drop_ppm))
		return CHP_FATE_DROP;
	if (chp_random_chance(&d->random, now.duplicate_ppm))
		return CHP_FATE_DUPLICATE;
	if (chp_random_chance(&d->random, now.delay_ppm))
		return CHP_FATE_DELAY;
	return CHP_FATE_PASS;
}

bool
chp_delayed_hold(struct chp_delayed *d, const struct chp_impair *i, struct rte_mbuf *m, uint64_t now_ns)
{
	uint64_t delay_us = atomic_load_explicit(&i->delay_us, memory_order_relaxed);
	uint32_t at = d->tail % CHP_IMPAIR_DELAYED_MAX;

	if (d->tail - d->head == CHP_IMPAIR_DELAYED_MAX)
		return false;
	d->slot[at].mbuf = m;
	d->slot[at].ns = now_ns + delay_us * 1000;
	d->tail++;
	return true;
}

uint32_t
chp_delayed_take(struct chp_delayed *d, struct rte_mbuf **m, uint32_t n, uint64_t now_ns)
{
	uint32_t taken = 0;

	while (taken < n && d->head != d->tail) {
		uint32_t at = d->head % CHP_IMPAIR_DELAYED_MAX;

		if (d->slot[at].ns > now_ns)
			break;
		m[taken++] = d->slot[at].mbuf;
		d->head++;
	}
	return taken;
}

void
chp_delayed_fini(struct chp_delayed *d)
{
	for (; d->head != d->tail; d->head++)
		rte_pktmbuf_free(d->slot[d->head % CHP_IMPAIR_DELAYED_MAX].mbuf);
}
