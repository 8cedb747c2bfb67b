/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hermes.h - what checkers may know of an instance of Hermes, and do to it.
 */
#ifndef CHP_PROTOCOLS_HERMES_H
#define CHP_PROTOCOLS_HERMES_H

#include <stdint.h>

/**
 * The highest counter of all versions that left the cache, or were stored in an earlier life: every key that this
 * replica's datastore has and its cache has not has at most this.
 */
uint64_t chp_hermes_evicted(const void *p);

/** Count all versions up to a counter as evicted, as if a key with such a version had left the cache just now. */
void chp_hermes_raise_evicted(void *p, uint64_t counter);

#endif /* CHP_PROTOCOLS_HERMES_H */
