/* SPDX-License-Identifier: BSD-3-Clause */
#include "machine.h"

#include <rte_cycles.h>
#include <rte_pause.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS 20000u

void
machine_name(char *text, size_t size)
{
	FILE *f = fopen("/proc/cpuinfo", "r");
	char line[256], model[128] = "unknown";

	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		const char *colon = strchr(line, ':');

		if (strncmp(line, "model name", 10) != 0 || colon == NULL)
			continue;
		(void)snprintf(model, sizeof(model), "%.*s", (int)strcspn(colon + 2, "\n\"\\"), colon + 2);
		break;
	}
	if (f != NULL)
		(void)fclose(f);
	(void)snprintf(text, size, "%s, %ld CPUs", model, sysconf(_SC_NPROCESSORS_ONLN));
}

static struct {
	_Alignas(64) _Atomic(uint32_t) ping;
	_Alignas(64) _Atomic(uint32_t) pong;
} line_pair;

static void *
echo(void *argument)
{
	(void)argument;
	for (uint32_t i = 1; i <= ROUNDS; i++) {
		while (atomic_load_explicit(&line_pair.ping, memory_order_acquire) != i)
			rte_pause();
		atomic_store_explicit(&line_pair.pong, i, memory_order_release);
	}
	return NULL;
}

static int
by_value(const void *a, const void *b)
{
	uint64_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return (x > y) - (x < y);
}

static double
ping_pong(void)
{
	static uint64_t ticks[ROUNDS];

	for (uint32_t i = 1; i <= ROUNDS; i++) {
		uint64_t begin = rte_rdtsc();

		atomic_store_explicit(&line_pair.ping, i, memory_order_release);
		while (atomic_load_explicit(&line_pair.pong, memory_order_acquire) != i)
			rte_pause();
		ticks[i - 1] = rte_rdtsc() - begin;
	}
	qsort(ticks, ROUNDS, sizeof(ticks[0]), by_value);
	return (double)ticks[ROUNDS / 2] * 1e9 / (double)rte_get_tsc_hz();
}

double
machine_core_rtt_ns(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int here = sched_getcpu();
	pthread_attr_t attr;
	pthread_t thread;
	cpu_set_t other;
	double ns = -1;

	if (cpus < 2 || here < 0)
		return -1;
	CPU_ZERO(&other);
	CPU_SET((size_t)((here + 1) % (int)cpus), &other);
	atomic_store(&line_pair.ping, 0);
	atomic_store(&line_pair.pong, 0);
	if (pthread_attr_init(&attr) != 0)
		return -1;
	if (pthread_attr_setaffinity_np(&attr, sizeof(other), &other) == 0 &&
	    pthread_create(&thread, &attr, echo, NULL) == 0) {
		ns = ping_pong();
		(void)pthread_join(thread, NULL);
	}
	(void)pthread_attr_destroy(&attr);
	return ns;
}
