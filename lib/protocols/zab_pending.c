/* SPDX-License-Identifier: BSD-3-Clause */
#include "protocols/zab_pending.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <errno.h>
#include <string.h>

int
chp_zab_pending_init(struct chp_zab_pending *t, uint32_t keys, const struct chp_memory *memory)
{
	uint32_t places = 8;

	while (places < 2 * keys) /* at least half stay empty */
		places *= 2;
	*t = (struct chp_zab_pending){ .mask = places - 1 };
	t->place = memory->zalloc(places * sizeof(*t->place));
	return t->place == NULL ? -ENOMEM : 0;
}

void
chp_zab_pending_fini(struct chp_zab_pending *t, const struct chp_memory *memory)
{
	memory->free(t->place);
	t->place = NULL;
}

static uint32_t
home_of(const struct chp_zab_pending *t, const struct chp_digest *d)
{
	return (uint32_t)d->lo & t->mask;
}

/* The place of a digest, or the empty one where it would go. */
static uint32_t
place_of(const struct chp_zab_pending *t, const struct chp_digest *d)
{
	uint32_t i = home_of(t, d);

	while (t->place[i].index != 0 && (t->place[i].digest.lo != d->lo || t->place[i].digest.hi != d->hi))
		i = (i + 1) & t->mask;
	return i;
}

uint64_t
chp_zab_pending_find(const struct chp_zab_pending *t, const struct chp_digest *d)
{
	return t->place[place_of(t, d)].index;
}

void
chp_zab_pending_set(struct chp_zab_pending *t, const struct chp_digest *d, uint64_t index)
{
	const uint32_t i = place_of(t, d);

	if (t->place[i].index == 0) {
		CHP_ASSERT_OP(2 * t->n, <=, t->mask);
		t->n++;
	}
	CHP_ASSERT_OP(index, >, t->place[i].index);
	t->place[i] = (struct chp_zab_place){ .digest = *d, .index = index };
}

/* Empty a place and move back whatever probing would no longer reach past the hole. */
static void
empty(struct chp_zab_pending *t, uint32_t hole)
{
	for (uint32_t i = (hole + 1) & t->mask; t->place[i].index != 0; i = (i + 1) & t->mask) {
		const uint32_t wanted = home_of(t, &t->place[i].digest);

		if (((i - wanted) & t->mask) >= ((i - hole) & t->mask)) {
			t->place[hole] = t->place[i];
			hole = i;
		}
	}
	t->place[hole].index = 0;
	t->n--;
}

void
chp_zab_pending_applied(struct chp_zab_pending *t, const struct chp_digest *d, uint64_t index)
{
	const uint32_t i = place_of(t, d);

	if (t->place[i].index == index)
		empty(t, i);
}

void
chp_zab_pending_clear(struct chp_zab_pending *t)
{
	if (t->n > 0)
		memset(t->place, 0, ((size_t)t->mask + 1) * sizeof(*t->place));
	t->n = 0;
}
