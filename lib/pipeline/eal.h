/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * eal.h - start DPDK's environment, and say in one line why it does not start.
 *
 * Main thread, once.
 */
#ifndef CHP_PIPELINE_EAL_H
#define CHP_PIPELINE_EAL_H

#include "pipeline/error.h"

/**
 * Start EAL. What it prints is held back: when it fails, the line that says why becomes ours, otherwise it
 * goes to standard error.
 *
 * @return  0, or -1 with *error
 */
int chp_eal_start(int argc, char **argv, struct chp_error *error);

/** The first thing that EAL complained of, also when it started; "" if nothing. Static storage. */
const char *chp_eal_complaint(void);

#endif /* CHP_PIPELINE_EAL_H */
