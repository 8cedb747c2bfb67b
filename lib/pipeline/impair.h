/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * impair.h - faults on purpose, for tests: drop, duplicate, delay, cut. netem cannot touch kernel bypass.
 *
 * Off by default and switched at run time by any thread. Applied where packets leave (to peers and to
 * clients) and to requests of clients where they arrive, so that both directions lose. ARP and ICMP are
 * left alone.
 */
#ifndef CHP_PIPELINE_IMPAIR_H
#define CHP_PIPELINE_IMPAIR_H

#include "base/random.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct rte_mbuf;
struct rte_mempool;

/* Packets that one stage holds back at most; more than that pass undelayed. Power of two. */
#define CHP_IMPAIR_DELAYED_MAX 1024u

struct chp_impairment {
	uint32_t drop_ppm;
	uint32_t duplicate_ppm;
	uint32_t delay_ppm;
	uint32_t delay_us;
	uint64_t cut; /* node mask: nothing goes to these peers */
};

/* The setting that stages read. */
struct chp_impair {
	_Atomic(uint32_t) drop_ppm, duplicate_ppm, delay_ppm, delay_us;
	_Atomic(uint64_t) cut;
	_Atomic(bool) on; /* any of them */
};

/** Switch. Any thread. */
void chp_impair_set(struct chp_impair *i, const struct chp_impairment *to);
void chp_impair_get(const struct chp_impair *i, struct chp_impairment *to);

enum chp_fate {
	CHP_FATE_PASS,
	CHP_FATE_DROP,
	CHP_FATE_CUT,
	CHP_FATE_DUPLICATE,
	CHP_FATE_DELAY,
};

/* What one stage holds back, in order of release. */
struct chp_delayed {
	struct chp_random random;
	uint32_t head, tail;
	struct {
		struct rte_mbuf *mbuf;
		uint64_t ns;
	} slot[CHP_IMPAIR_DELAYED_MAX];
};

/** Draw what happens to a packet; peer is a node id, or UINT32_MAX for a client. */
enum chp_fate chp_impair_draw(const struct chp_impair *i, struct chp_delayed *d, uint32_t peer);

/** Hold a packet back until now_ns + delay. False when full: the caller lets it pass. */
bool chp_delayed_hold(struct chp_delayed *d, const struct chp_impair *i, struct rte_mbuf *m,
		      uint64_t now_ns);

/** Up to n packets whose time has come. */
uint32_t chp_delayed_take(struct chp_delayed *d, struct rte_mbuf **m, uint32_t n, uint64_t now_ns);

/** Free what is held. */
void chp_delayed_fini(struct chp_delayed *d);

#endif /* CHP_PIPELINE_IMPAIR_H */
