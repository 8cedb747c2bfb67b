/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * zab_pending.h - which log entry is the newest proposed one of each key, at the leader.
 *
 * A leader turns an operation into a result against the newest proposed version of its key (SAFETY 26). What
 * is committed stands in the data cache; this table finds the rest. By digest: two keys of one digest only make
 * an operation wait until the other's entry is committed. Pure; nothing allocates after init.
 */
#ifndef CHP_PROTOCOLS_ZAB_PENDING_H
#define CHP_PROTOCOLS_ZAB_PENDING_H

#include "base/digest.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>

struct chp_zab_place {
	struct chp_digest digest;
	uint64_t index; /* 0: empty */
};

struct chp_zab_pending {
	struct chp_zab_place *place; /* open addressing */
	uint32_t mask;
	uint32_t n;
};

/** A table for up to `keys` keys. 0 or -ENOMEM. */
int chp_zab_pending_init(struct chp_zab_pending *t, uint32_t keys, const struct chp_memory *memory);
void chp_zab_pending_fini(struct chp_zab_pending *t, const struct chp_memory *memory);

/** Index of the newest proposed entry of this digest, 0 if there is none. */
uint64_t chp_zab_pending_find(const struct chp_zab_pending *t, const struct chp_digest *d);

/** An entry of this digest was proposed. There is room (asserted). */
void chp_zab_pending_set(struct chp_zab_pending *t, const struct chp_digest *d, uint64_t index);

/** The entry at `index` was applied: forget it, unless a newer one of its digest is there. */
void chp_zab_pending_applied(struct chp_zab_pending *t, const struct chp_digest *d, uint64_t index);

/** Forget everything. */
void chp_zab_pending_clear(struct chp_zab_pending *t);

#endif /* CHP_PROTOCOLS_ZAB_PENDING_H */
