/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * port.h - one DPDK port: find it, check that it can do what the configuration asks, start it.
 *
 * The same code for every type of port. What a type lacks is either not needed or refused with a line
 * that says what to change.
 */
#ifndef CHP_PIPELINE_PORT_H
#define CHP_PIPELINE_PORT_H

#include "config/config.h"
#include "pipeline/error.h"
#include "pipeline/frame.h"

#include <stdbool.h>
#include <stdint.h>

struct rte_flow;
struct rte_mempool;

struct chp_port {
	uint16_t id;
	bool started;
	bool rx_checksum;           /* the port reports what it found */
	bool tx_checksum;           /* the port computes IPv4 and UDP checksums */
	struct chp_frame_from self; /* MAC address, and the address of this node */
	uint32_t n_flows;
	struct rte_flow *flow[CHP_SHARDS_MAX];
};

/** Find a port by its DPDK name. 0, or -1 with *error naming the ports that exist. */
int chp_port_find(const char *name, uint16_t *id, struct chp_error *error);

/**
 * Configure and start a port: a queue for every RX and TX stage, the cluster's MTU, checksum offloads,
 * steering. A port without a MAC address (net_ring, net_null) uses 02:00 and its IPv4 address.
 *
 * @return  0, or -1 with *error; the port is stopped then
 */
int chp_port_start(struct chp_port *port, uint16_t id, const struct chp_cluster_config *cluster,
		   const struct chp_node_config *node, struct rte_mempool *rx_pool,
		   struct chp_error *error);

/** Stop a port. Accepts one that was never started. */
void chp_port_stop(struct chp_port *port);

#endif /* CHP_PIPELINE_PORT_H */
