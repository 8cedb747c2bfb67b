/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * detector.h - which peers are suspected to be dead: a score for each, with hysteresis.
 *
 * Time is cut into steps of a tenth of the suspicion time. A step in which a peer was heard adds 3 to its
 * score, up to 10; a silent one takes 1 away. At 0 the peer is suspected, and it stays so until its score
 * is back at 7, three heard steps: a peer that is heard now and then is suspected and stays so, it does
 * not flap. A full score takes the suspicion time to run out.
 *
 * A tick makes one step at most, however late it comes: a process that slept itself finds everybody silent,
 * and must not suspect them all at once when it wakes.
 *
 * Suspicion is a hint. It decides when a view is proposed, never who has a say in it (pitfall P4).
 *
 * Owner: the membership; not thread-safe. Nothing allocates.
 */
#ifndef CHP_CORE_DETECTOR_H
#define CHP_CORE_DETECTOR_H

#include "base/bytes.h"
#include "base/limits.h"

#include <stdbool.h>
#include <stdint.h>

#define CHP_DETECTOR_FULL 10u     /* silent steps from the full score to suspicion */
#define CHP_DETECTOR_HEARD 3u     /* what a heard step is worth: losing two heartbeats of three is borne */
#define CHP_DETECTOR_RECOVERED 7u /* from here on a suspect is trusted again */

struct chp_detector {
	uint64_t step_ns;
	uint64_t next_ns;   /* when the next step is due */
	uint64_t heard;     /* node masks: heard in this step */
	uint64_t suspected; /* suspected, or not trusted yet */
	uint8_t score[CHP_NODES_MAX];
};

/** Begin with nobody trusted. suspect_ns is at least CHP_DETECTOR_FULL. */
void chp_detector_init(struct chp_detector *d, uint64_t suspect_ns, uint64_t now_ns);

/**
 * A peer became a member: its time begins now, with a full score. Never having been heard counts as being
 * silent from here on (pitfall P50).
 */
void chp_detector_trust(struct chp_detector *d, uint32_t node);

/** Another process may stand behind this node id: it must first be heard for several steps. */
void chp_detector_distrust(struct chp_detector *d, uint32_t node);

/** A packet of the peer came. The caller has made sure that it is the process that is meant. */
static inline void
chp_detector_heard(struct chp_detector *d, uint32_t node)
{
	d->heard |= chp_bit(node);
}

/** Make a step if one is due, never more than one. Returns the nodes newly suspected. */
uint64_t chp_detector_tick(struct chp_detector *d, uint64_t now_ns);

/** Assert the invariants. */
void chp_detector_check(const struct chp_detector *d);

#endif /* CHP_CORE_DETECTOR_H */
