/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * machine.h - what a figure was measured on.
 */
#ifndef BENCH_MACHINE_H
#define BENCH_MACHINE_H

#include <stddef.h>

/** The CPU's model name and how many there are, for JSON: no quotes in it. */
void machine_name(char *text, size_t size);

/**
 * Nanoseconds that a cache line takes to another CPU and back, the median of many; negative when there is
 * no other CPU. Virtual CPUs move: compare only runs with equal figures before and after.
 */
double machine_core_rtt_ns(void);

#endif /* BENCH_MACHINE_H */
