/* SPDX-License-Identifier: BSD-3-Clause */
#include "world.h"

#include <rte_eal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void
sim_eal_init(void)
{
	char *argv[] = { "sim", "--no-huge", "--no-shconf", "--no-pci", "--no-telemetry", "--iova-mode=va",
			 "-m", "512", "--lcores", "0@(0-1)", "--log-level=lib.eal:error" };

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		argv[9] = "0@0";
	if (rte_eal_init((int)CHP_ARRAY_LEN(argv), argv) < 0) {
		fprintf(stderr, "sim: EAL did not start\n");
		exit(1);
	}
}
