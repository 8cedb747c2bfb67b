/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pool.h - memory from EAL: mbuf pools, and the allocator of the shards.
 */
#ifndef CHP_PIPELINE_POOL_H
#define CHP_PIPELINE_POOL_H

#include "base/memory.h"

#include <rte_mempool.h>

#include <stdint.h>

/* mbufs that one lcore may keep in a pool's cache: DPDK flushes at one and a half times this. */
#define CHP_POOL_CACHE 256u

/** EAL's heap: hugepages where EAL has them. */
extern const struct chp_memory chp_memory_rte;

/**
 * Create a pool of mbufs with room for frames of an MTU.
 *
 * @param name   unique in the process, at most 25 characters
 * @param mbufs  usable ones; what `lcores` lcores may keep in their caches comes on top
 * @return       NULL when memory is short
 */
struct rte_mempool *chp_pool_create(const char *name, uint32_t mbufs, uint32_t lcores, uint32_t mtu,
				    int socket);

#endif /* CHP_PIPELINE_POOL_H */
