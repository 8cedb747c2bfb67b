/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * start.h - what must be right before the first packet: addresses and lcores.
 *
 * Each function returns 0, or -1 with *error: one line that says what to change, and the exit code.
 */
#ifndef CHAAPAR_START_H
#define CHAAPAR_START_H

#include "config/config.h"
#include "pipeline/error.h"

/** Refuse a data address that a kernel interface in this network namespace holds. */
int start_address(const struct chp_cluster_config *cluster, const struct chp_node_config *node,
		  struct chp_error *error);

/** Every lcore of the node file must be one of EAL's. */
int start_lcores(const struct chp_node_config *node, struct chp_error *error);

#endif /* CHAAPAR_START_H */
