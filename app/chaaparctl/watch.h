/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * watch.h - status --watch.
 */
#ifndef CHAAPARCTL_WATCH_H
#define CHAAPARCTL_WATCH_H

#include "ctl.h"

/**
 * Print members and views at an interval, with ctl->c open.
 *
 * @param count  so often; 0: until a signal ends it
 * @return       an exit code
 */
int ctl_watch(struct ctl *ctl, double interval_s, uint64_t count);

#endif /* CHAAPARCTL_WATCH_H */
