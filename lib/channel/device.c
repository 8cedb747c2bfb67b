/* SPDX-License-Identifier: BSD-3-Clause */
#include "channel/device.h"

#include <rte_alarm.h>
#include <rte_cycles.h>
#include <rte_ethdev.h>

#include <errno.h>
#include <semaphore.h>
#include <stdbool.h>
#include <string.h>

/* How much later than virtio-user's alarms, which are due after 1 us, and longer than that. */
#define LATER_US 2u
#define DUE_US   10u

struct stop {
	uint16_t id;
	sem_t done;
};

static void
stop_here(void *argument)
{
	struct stop *s = argument;

	(void)rte_eth_dev_stop(s->id);
	(void)sem_post(&s->done);
}

/*
 * An alarm of virtio-user may be set already, and due after this one. The next is due after it, and both are by the
 * time that this returns: they run in turn, and no interrupt between them, which could set another.
 */
static void
stop_later(void *argument)
{
	if (rte_eal_alarm_set(LATER_US, stop_here, argument) == 0)
		rte_delay_us_block(DUE_US);
	else
		stop_here(argument);
}

static bool
is_virtio_user(uint16_t id)
{
	struct rte_eth_dev_info info;

	return rte_eth_dev_info_get(id, &info) == 0 && info.driver_name != NULL &&
	       strcmp(info.driver_name, "net_virtio_user") == 0;
}

/*
 * When the other end of virtio-user comes or goes, the interrupt thread runs a handler, and that sets an alarm, which
 * closes the socket and registers the handler for another. DPDK 22.11 does not wait for them: rte_eth_dev_stop leaves a
 * handler registered that is running, and nothing cancels the alarm. Both use the device after rte_eth_dev_close has
 * freed it, or leave a handler for a socket that was closed, which ends in rte_panic. Their names are not public, so
 * they cannot be waited for or cancelled here either. But all of them run in one thread: who stops the device there,
 * when no alarm of its is left, has nothing beside it and leaves nothing behind.
 */
void
chp_device_stop(uint16_t id)
{
	struct stop s = { .id = id };

	if (!is_virtio_user(id)) {
		(void)rte_eth_dev_stop(id);
		return;
	}
	(void)sem_init(&s.done, 0, 0);
	if (rte_eal_alarm_set(1, stop_later, &s) != 0)
		stop_here(&s);
	while (sem_wait(&s.done) != 0 && errno == EINTR)
		;
	(void)sem_destroy(&s.done);
}
