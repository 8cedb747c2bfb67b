/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/lease.h"

#include "base/assert.h"

#include <string.h>

#define PPM UINT64_C(1000000)

void
chp_lease_init(struct chp_lease *l)
{
	memset(l, 0, sizeof(*l));
}

void
chp_lease_give(struct chp_lease *l, uint32_t node, uint64_t incarnation, uint64_t until_ns)
{
	if (l->given_incarnation[node] != incarnation) {
		l->given_incarnation[node] = incarnation;
		l->given_until_ns[node] = 0;
	}
	l->given_until_ns[node] = chp_max_u64(l->given_until_ns[node], until_ns);
}

uint64_t
chp_lease_given_until(const struct chp_lease *l, uint32_t node, uint64_t incarnation)
{
	return l->given_incarnation[node] == incarnation ? l->given_until_ns[node] : 0;
}

uint64_t
chp_lease_held_ns(uint64_t lease_ns, uint32_t drift_ppm)
{
	CHP_ASSERT_OP(lease_ns, <=, CHP_LEASE_NS_MAX);
	CHP_ASSERT_OP(drift_ppm, <=, CHP_CLOCK_DRIFT_PPM_MAX);
	/* Rounded up: the holder never gains from rounding. */
	return lease_ns - (2 * lease_ns * drift_ppm + PPM - 1) / PPM;
}

void
chp_lease_take(struct chp_lease *l, uint32_t node, uint64_t until_ns)
{
	l->held_until_ns[node] = chp_max_u64(l->held_until_ns[node], until_ns);
}

uint64_t
chp_lease_until_granted(const struct chp_lease *l, uint32_t self, uint64_t nodes, uint32_t needed)
{
	uint64_t others = nodes & ~chp_bit(self), until_ns = CHP_NEVER;

	CHP_ASSERT((nodes & chp_bit(self)) != 0);
	/* The end of the longest grant that has enough before it: take the longest away, once for each other node. */
	for (; needed > 1 && others != 0; needed--) {
		uint32_t longest = chp_first_bit(others);

		for (uint64_t rest = others; rest != 0; rest &= rest - 1) {
			uint32_t i = chp_first_bit(rest);

			if (l->held_until_ns[i] > l->held_until_ns[longest])
				longest = i;
		}
		until_ns = l->held_until_ns[longest];
		others &= ~chp_bit(longest);
	}
	if (needed > 1)
		until_ns = 0;
	return chp_max_u64(until_ns, l->kept_until_ns);
}

uint64_t
chp_lease_until(const struct chp_lease *l, uint32_t self, uint64_t voters)
{
	return chp_lease_until_granted(l, self, voters, chp_count_bits(voters) / 2 + 1);
}

void
chp_lease_enter(struct chp_lease *l, uint64_t kept_until_ns)
{
	memset(l->held_until_ns, 0, sizeof(l->held_until_ns));
	l->kept_until_ns = kept_until_ns;
}
