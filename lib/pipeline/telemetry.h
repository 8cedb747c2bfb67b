/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * telemetry.h - commands of DPDK's telemetry socket, for monitoring and for tests that inject faults.
 *
 *   /chaapar/node                                     counters of the node
 *   /chaapar/shard,<n>                                counters of a shard and its links
 *   /chaapar/host,<n>                                 a shard's host, batches for it, and the channel
 *   /chaapar/impair,<drop>,<dup>,<delay>,<delay_us>   faults on purpose, in parts per million; none: show
 *   /chaapar/cut,<node mask>                          send nothing to these nodes; its own bit: nothing to its host
 *
 * Every leaf is a number, as collectors want it.
 */
#ifndef CHP_PIPELINE_TELEMETRY_H
#define CHP_PIPELINE_TELEMETRY_H

struct chp_pipeline;

/**
 * Register the commands for the one replica of this process. Without a telemetry socket (--no-telemetry)
 * they are registered and nobody asks.
 */
void chp_telemetry_start(struct chp_pipeline *p);

/** From now on the commands answer nothing. */
void chp_telemetry_stop(void);

#endif /* CHP_PIPELINE_TELEMETRY_H */
