/* SPDX-License-Identifier: BSD-3-Clause */
#include "hosted.h"

#include "base/bytes.h"

#include <errno.h>
#include <inttypes.h>
#include <rte_cycles.h>
#include <rte_pause.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* An idle host sleeps, as chaapar-host does: it leaves the replicas the lines that it would look at all the time. */
#define IDLE_POLLS 64u
#define IDLE_SLEEP_NS 10000

static void *
poll_hosts(void *argument)
{
	const struct timespec nap = { .tv_nsec = IDLE_SLEEP_NS };
	struct hosted *h = argument;
	uint32_t idle = 0;

	while (!atomic_load_explicit(&h->stop, memory_order_relaxed)) {
		bool work = false;

		for (uint32_t i = 0; i < h->l->options.replicas; i++)
			work |= local_host_poll(h->l->host[i]);
		idle = work ? 0 : idle + 1;
		if (idle >= IDLE_POLLS)
			(void)nanosleep(&nap, NULL);
		else if (!work)
			rte_pause();
	}
	return NULL;
}

bool
hosted_start(struct hosted *h)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int here = sched_getcpu();
	pthread_attr_t attr;
	cpu_set_t other;

	if (cpus < 2 || here < 0 || pthread_attr_init(&attr) != 0)
		return false;
	CPU_ZERO(&other);
	CPU_SET((size_t)((here + 1) % (int)cpus), &other);
	for (uint32_t i = 0; i < h->l->options.replicas; i++)
		local_host_forget(h->l->host[i]);
	h->l->options.hosts_apart = true;
	atomic_store(&h->stop, false);
	h->has_thread = pthread_attr_setaffinity_np(&attr, sizeof(other), &other) == 0 &&
			pthread_create(&h->thread, &attr, poll_hosts, h) == 0;
	(void)pthread_attr_destroy(&attr);
	return h->has_thread;
}

void
hosted_stop(struct hosted *h)
{
	if (!h->has_thread)
		return;
	atomic_store(&h->stop, true);
	(void)pthread_join(h->thread, NULL);
	h->has_thread = false;
}

bool
hosted_pids(struct hosted *h, const char *text)
{
	for (h->n_pids = 0; *text != '\0'; h->n_pids++) {
		char *end;
		unsigned long n = strtoul(text, &end, 10);

		if (h->n_pids == LOCAL_REPLICAS_MAX || end == text || n == 0 || n > INT32_MAX ||
		    (*end != ',' && *end != '\0'))
			return false;
		h->pid[h->n_pids] = (int)n;
		text = end + (*end == ',');
	}
	return h->n_pids > 0;
}

/* Of all threads that it has, or had. */
static uint64_t
cpu_ns(int pid)
{
	struct timespec t;
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0)
		return 0;
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

void
hosted_read(const struct hosted *h, struct hosted_counts *out)
{
	static struct chp_shard_stats s;

	*out = (struct hosted_counts){ 0 };
	for (uint32_t i = 0; i < h->l->options.replicas * h->l->options.shards; i++) {
		chp_shard_stats(chp_pipeline_shard(h->l->replica[i / h->l->options.shards], i % h->l->options.shards),
				&s);
		out->reads += s.protocol.reads;
		out->misses += s.protocol.misses;
		out->loads += s.host.loads;
		out->found += s.host.loads_found;
		out->failed += s.host.loads_failed;
		out->evictions += s.cache.evictions;
		out->puts += s.host.puts;
		out->coalesced += s.host.coalesced;
		out->batches += s.host.batches;
	}
	for (uint32_t i = 0; i < h->n_pids; i++)
		out->host_ns += cpu_ns(h->pid[i]);
}

void
hosted_subtract(struct hosted_counts *from, const struct hosted_counts *before)
{
	from->reads -= before->reads;
	from->misses -= before->misses;
	from->loads -= before->loads;
	from->found -= before->found;
	from->failed -= before->failed;
	from->evictions -= before->evictions;
	from->puts -= before->puts;
	from->coalesced -= before->coalesced;
	from->batches -= before->batches;
	from->host_ns -= before->host_ns;
}

bool
hosted_is_saved(const struct hosted *h)
{
	uint64_t now_ns = (uint64_t)((double)rte_rdtsc() * 1e9 / (double)rte_get_tsc_hz());
	struct chp_host_status s;

	for (uint32_t i = 0; i < h->l->options.replicas * h->l->options.shards; i++) {
		chp_shard_host_status(chp_pipeline_shard(h->l->replica[i / h->l->options.shards],
							 i % h->l->options.shards),
				      now_ns, &s);
		if (s.state != CHP_HOST_READY || s.store_state != CHP_STORE_OK || s.backlog > 0)
			return false;
	}
	return true;
}

void
hosted_print(const struct hosted *h, const struct hosted_counts *c)
{
	printf("\"misses\":%" PRIu64 ",\"loads\":%" PRIu64 ",\"loads_found\":%" PRIu64 ",\"loads_failed\":%" PRIu64
	       ",\"evictions\":%" PRIu64 ",\"puts\":%" PRIu64 ",\"coalesced\":%" PRIu64 ",\"batches\":%" PRIu64 ",",
	       c->misses, c->loads, c->found, c->failed, c->evictions, c->puts, c->coalesced, c->batches);
	if (c->reads > 0)
		printf("\"hit_ratio\":%.4f,", 1 - (double)chp_min_u64(c->misses, c->reads) / (double)c->reads);
	if (h->n_pids > 0)
		printf("\"host_cpu_s\":%.4f,", (double)c->host_ns / 1e9);
}

static int
write_file(const char *directory, const char *name, char *text, struct chp_error *error)
{
	char path[512];
	FILE *f;
	int rc = -1;

	(void)snprintf(path, sizeof(path), "%s/%s.json", directory, name);
	f = text != NULL ? fopen(path, "w") : NULL;
	if (f != NULL)
		rc = fprintf(f, "%s\n", text) < 0 ? -1 : 0;
	if (f != NULL && fclose(f) != 0)
		rc = -1;
	free(text);
	return rc == 0 ? 0 : chp_error_set(error, CHP_EXIT_RESOURCE, "%s: %s", path, strerror(errno));
}

int
hosted_write_config(const struct local *l, const char *directory, struct chp_error *error)
{
	if (write_file(directory, "cluster", chp_cluster_config_print(&l->cluster), error) != 0)
		return -1;
	for (uint32_t i = 0; i < l->options.replicas; i++) {
		char name[16];

		(void)snprintf(name, sizeof(name), "n%u", i);
		if (write_file(directory, name, chp_node_config_print(&l->node[i], &l->cluster), error) != 0)
			return -1;
	}
	return 0;
}
