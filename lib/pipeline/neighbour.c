/* SPDX-License-Identifier: BSD-3-Clause */
#include "pipeline/neighbour.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <string.h>

void
chp_neighbours_init(struct chp_neighbours *t)
{
	memset(t, 0, sizeof(*t));
}

void
chp_neighbours_add(struct chp_neighbours *t, uint32_t node, uint32_t ip, uint64_t now_ns)
{
	uint32_t i = 0;

	CHP_ASSERT_OP(node, <, CHP_NODES_MAX);
	while (i < t->n && t->entry[i].ip != ip)
		i++;
	CHP_ASSERT_OP(i, <, CHP_NODES_MAX);
	if (i == t->n)
		t->entry[t->n++] = (struct chp_neighbour){ .ip = ip, .ask_ns = now_ns };
	t->entry[i].nodes |= chp_bit(node);
}

bool
chp_neighbours_learn(struct chp_neighbours *t, uint32_t ip, const uint8_t mac[6], uint64_t now_ns)
{
	uint64_t word = 0;

	if ((mac[0] & 1) != 0) /* nobody's: broadcast or multicast */
		return false;
	for (uint32_t i = 0; i < 6; i++)
		word |= (uint64_t)mac[i] << (8 * i);
	for (uint32_t i = 0; i < t->n; i++) {
		struct chp_neighbour *e = &t->entry[i];
		bool is_new;

		if (e->ip != ip || word == 0)
			continue;
		is_new = !e->known || memcmp(e->mac, mac, sizeof(e->mac)) != 0;
		if (is_new && e->known && e->unanswered <= CHP_ARP_TRIES) {
			if (e->unanswered == 0)
				e->ask_ns = now_ns;
			return false;
		}
		memcpy(e->mac, mac, sizeof(e->mac));
		e->known = true;
		e->unanswered = 0;
		e->ask_ns = now_ns + CHP_ARP_REFRESH_NS;
		for (uint64_t left = e->nodes; left != 0; left &= left - 1)
			atomic_store_explicit(&t->mac[chp_first_bit(left)], word,
					      memory_order_relaxed);
		return is_new;
	}
	return false;
}

const struct chp_neighbour *
chp_neighbours_ask(struct chp_neighbours *t, uint64_t now_ns)
{
	for (uint32_t i = 0; i < t->n; i++) {
		struct chp_neighbour *e = &t->entry[i];
		uint32_t shift = e->unanswered < 7 ? e->unanswered : 7;

		if (now_ns < e->ask_ns)
			continue;
		e->unanswered++;
		e->ask_ns = now_ns + chp_min_u64(CHP_ARP_NS_MIN << shift, CHP_ARP_NS_MAX);
		return e;
	}
	return NULL;
}

uint64_t
chp_neighbours_wake_ns(const struct chp_neighbours *t)
{
	uint64_t wake = CHP_NEVER;

	for (uint32_t i = 0; i < t->n; i++)
		wake = chp_min_u64(wake, t->entry[i].ask_ns);
	return wake;
}
