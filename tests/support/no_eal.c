/* SPDX-License-Identifier: BSD-3-Clause */
/* Builds with the malloc index need no EAL. */
#include "../sim/world.h"

void
sim_eal_init(void)
{
}
