/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hosted.h - what a phase of the benchmark had to do with the hosts: misses, evictions, what they got, their CPU.
 */
#ifndef BENCH_HOSTED_H
#define BENCH_HOSTED_H

#include "../../tests/datapath/local.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Since the replicas began, of all replicas and shards together. */
struct hosted_counts {
	uint64_t reads, misses;           /* misses: operations that needed a key that was not in the cache */
	uint64_t loads, found, failed;    /* keys asked for at the hosts */
	uint64_t evictions;
	uint64_t puts, coalesced, batches; /* sent, not sent because a newer version went with the same batch */
	uint64_t host_ns;                 /* CPU time of the hosts' processes */
};

struct hosted {
	struct local *l;
	pthread_t thread;                 /* of hosts in this process, where they have one */
	bool has_thread;
	atomic_bool stop;
	uint32_t n_pids;
	int pid[LOCAL_REPLICAS_MAX]; /* of the hosts, where they are processes of their own */
};

/** Read "123,124". False when that is no list of processes. */
bool hosted_pids(struct hosted *h, const char *text);

/**
 * From now on the hosts, which are in this process, have a thread of their own on another CPU, and stores that keep
 * nothing. False when there is no other CPU.
 */
bool hosted_start(struct hosted *h);
void hosted_stop(struct hosted *h);

void hosted_read(const struct hosted *h, struct hosted_counts *out);
void hosted_subtract(struct hosted_counts *from, const struct hosted_counts *before);

/** Whether every host is there and has stored everything. */
bool hosted_is_saved(const struct hosted *h);

/** Members of a JSON object, with a comma behind each. */
void hosted_print(const struct hosted *h, const struct hosted_counts *c);

/** Write cluster.json and n0.json, n1.json, ... for chaapar-host into a directory. 0, or -1 with *error. */
int hosted_write_config(const struct local *l, const char *directory, struct chp_error *error);

#endif /* BENCH_HOSTED_H */
