/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench.c - three replicas and a load generator in one process, on one lcore, over net_ring.
 *
 * Every replica runs the pipeline that is shipped, polled in turn with the generator and the switch
 * between them. The pipelines account their own ticks; those of generator and switch are not in them.
 * One JSON object goes to standard output, everything else to standard error.
 */
#include "load.h"
#include "machine.h"

#include "base/assert.h"
#include "base/blocks.h"
#include "cache/cache.h"

#include <rte_cycles.h>
#include <rte_eal.h>

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Polls between two looks at how large a batch was, and before a phase counts. */
#define SAMPLE_POLLS 500u
#define WARM_UP_S 0.5

struct options {
	const char *protocol, *peers;
	uint32_t replicas, shards, keys, value_bytes, window;
	double duration_s;
};

struct result {
	double seconds;
	struct load_counts counts;
	uint64_t cycles[CHP_CYCLES_COUNT]; /* of all replicas */
};

static struct local cluster;
static struct load load;
static struct chp_histogram batches;

/* ------------------------------------------------------------------ command line */

static uint32_t
number(const char *name, const char *text, uint32_t min, uint32_t max)
{
	char *end;
	unsigned long long n = strtoull(text, &end, 10);

	if (end == text || *end != '\0' || n < min || n > max) {
		(void)fprintf(stderr, "bench: --%s: expected a number from %u to %u\n", name, min, max);
		exit(CHP_EXIT_USAGE);
	}
	return (uint32_t)n;
}

static void
parse(int argc, char **argv, struct options *o)
{
	static const struct option names[] = {
		{ "protocol", required_argument, NULL, 'p' },  { "replicas", required_argument, NULL, 'r' },
		{ "keys", required_argument, NULL, 'k' },      { "value-bytes", required_argument, NULL, 'v' },
		{ "duration-s", required_argument, NULL, 'd' }, { "shards", required_argument, NULL, 's' },
		{ "window", required_argument, NULL, 'w' },    { "peers", required_argument, NULL, 'e' },
		{ 0 },
	};
	int c, at = 0;

	*o = (struct options){ .protocol = "hermes", .replicas = 3, .shards = 1, .keys = 1000000,
			       .peers = "udp", .value_bytes = 32, .window = 256, .duration_s = 5 };
	while ((c = getopt_long(argc, argv, "", names, &at)) != -1) {
		if (c == '?') {
			(void)fprintf(stderr, "usage: bench [EAL options] -- [--protocol hermes] [--replicas 3] "
					      "[--shards 1] [--keys 1000000] [--value-bytes 32] "
					      "[--duration-s 5] [--window 256] [--peers udp|ethernet]\n");
			exit(CHP_EXIT_USAGE);
		}
		if (c == 'p')
			o->protocol = optarg;
		else if (c == 'e')
			o->peers = optarg;
		else if (c == 'r')
			o->replicas = number(names[at].name, optarg, 1, LOCAL_REPLICAS_MAX);
		else if (c == 's')
			o->shards = number(names[at].name, optarg, 1, CHP_SHARDS_MAX);
		else if (c == 'k')
			o->keys = number(names[at].name, optarg, 1000, 100000000);
		else if (c == 'v')
			o->value_bytes = number(names[at].name, optarg, 1, CHP_VALUE_BYTES_MAX);
		else if (c == 'w')
			o->window = number(names[at].name, optarg, 1, CHP_SESSION_WINDOW_MAX);
		else
			o->duration_s = number(names[at].name, optarg, 1, 3600);
	}
}

/* ------------------------------------------------------------------ phases */

static void
read_cycles(uint64_t cycles[CHP_CYCLES_COUNT])
{
	memset(cycles, 0, CHP_CYCLES_COUNT * sizeof(cycles[0]));
	for (uint32_t i = 0; i < cluster.options.replicas; i++) {
		for (uint32_t k = 0; k < cluster.node[i].n_lcores; k++) {
			uint64_t t[CHP_CYCLES_COUNT];

			chp_pipeline_cycles(cluster.replica[i], k, t);
			for (uint32_t j = 0; j < CHP_CYCLES_COUNT; j++)
				cycles[j] += t[j];
		}
	}
}

static void
poll_all(void)
{
	for (uint32_t i = 0; i < cluster.options.replicas; i++)
		(void)chp_pipeline_poll(cluster.replica[i], 0);
	load_poll(&load);
}

/* How many messages and operations one run of replica 0's shard 0 had. */
static void
sample_batch(void)
{
	static struct chp_shard_stats before, after;
	const struct chp_shard *s = chp_pipeline_shard(cluster.replica[0], 0);

	chp_shard_stats(s, &before);
	poll_all();
	chp_shard_stats(s, &after);
	if (after.shard.runs == before.shard.runs + 1)
		chp_histogram_record(&batches, after.shard.messages - before.shard.messages +
						       after.shard.ops - before.shard.ops);
}

static void
poll_for(double seconds, bool sample)
{
	uint64_t end = rte_rdtsc() + (uint64_t)(seconds * (double)rte_get_tsc_hz());

	while (rte_rdtsc() < end) {
		for (uint32_t i = 0; i < SAMPLE_POLLS; i++)
			poll_all();
		if (sample)
			sample_batch();
	}
}

static struct result
measure(enum load_mix mix, double seconds)
{
	uint64_t before[CHP_CYCLES_COUNT], begin;
	struct result r = { 0 };

	load_begin(&load, mix);
	poll_for(WARM_UP_S, false);
	load_begin(&load, mix);
	read_cycles(before);
	begin = rte_rdtsc();
	poll_for(seconds, mix == LOAD_WRITES);
	r.seconds = (double)(rte_rdtsc() - begin) / (double)rte_get_tsc_hz();
	read_cycles(r.cycles);
	for (uint32_t i = 0; i < CHP_CYCLES_COUNT; i++)
		r.cycles[i] -= before[i];
	r.counts = load.counts;
	return r;
}

static bool
preload(void)
{
	uint64_t hz = rte_get_tsc_hz(), begin = rte_rdtsc();

	load_begin(&load, LOAD_PRELOAD);
	while (!load_is_preloaded(&load)) {
		poll_all();
		if (rte_rdtsc() - begin > 120 * hz)
			return false;
	}
	(void)fprintf(stderr, "bench: %" PRIu64 " keys written in %.2f s, %" PRIu64 " refused, %" PRIu64
			      " failed, %" PRIu64 " sent again\n",
		      load.counts.writes, (double)(rte_rdtsc() - begin) / (double)hz, load.counts.refused,
		      load.counts.failed, load.counts.resent);
	return load.counts.failed == 0;
}

/* ------------------------------------------------------------------ the report */

static double
per(uint64_t cycles, uint64_t operations)
{
	return operations > 0 ? (double)cycles / (double)operations : 0;
}

static uint64_t
busy(const struct result *r)
{
	return r->cycles[CHP_CYCLES_PROTOCOL] + r->cycles[CHP_CYCLES_NETWORK] +
	       r->cycles[CHP_CYCLES_REST];
}

static double
quantile_us(const struct chp_histogram *h, uint64_t num, uint64_t den)
{
	return (double)chp_histogram_quantile(h, num, den) * 1e6 / (double)rte_get_tsc_hz();
}

static void
print(const struct options *o, const struct result *w, const struct result *r, const struct result *m,
      const struct chp_histogram *latency, const double rtt[2])
{
	char machine[192];
	uint64_t writes = w->counts.writes;
	double hz = (double)rte_get_tsc_hz();

	machine_name(machine, sizeof(machine));
	printf("{\"bench\":\"replicate\",\"protocol\":\"%s\",\"replicas\":%u,\"shards\":%u,\"keys\":%u,"
	       "\"key_bytes\":%u,\"value_bytes\":%u,\"window\":%u,\"mapping\":\"one lcore\",\"peers\":\"%s\",",
	       o->protocol, o->replicas, o->shards, o->keys, LOAD_KEY_BYTES, o->value_bytes, o->window,
	       o->peers);
	printf("\"writes_per_s\":%.0f,\"cycles_per_write\":%.1f,\"cycles_per_write_protocol\":%.1f,"
	       "\"cycles_per_write_network\":%.1f,\"cycles_per_write_rest\":%.1f,",
	       (double)writes / w->seconds, per(busy(w), writes),
	       per(w->cycles[CHP_CYCLES_PROTOCOL], writes), per(w->cycles[CHP_CYCLES_NETWORK], writes),
	       per(w->cycles[CHP_CYCLES_REST], writes));
	printf("\"cpu_us_per_write\":%.4f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,"
	       "\"max_us\":%.1f,\"batch_p50\":%" PRIu64 ",",
	       per(busy(w), writes) * 1e6 / hz, quantile_us(latency, 50, 100),
	       quantile_us(latency, 99, 100), quantile_us(latency, 999, 1000),
	       (double)latency->max * 1e6 / hz, chp_histogram_quantile(&batches, 50, 100));
	printf("\"reads_per_s\":%.0f,\"cycles_per_read\":%.1f,\"mixed_ops_per_s\":%.0f,"
	       "\"cycles_per_mixed_op\":%.1f,",
	       (double)r->counts.reads / r->seconds, per(busy(r), r->counts.reads),
	       (double)(m->counts.reads + m->counts.writes) / m->seconds,
	       per(busy(m), m->counts.reads + m->counts.writes));
	printf("\"refused\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"resent\":%" PRIu64 ",",
	       w->counts.refused + r->counts.refused + m->counts.refused,
	       w->counts.failed + r->counts.failed + m->counts.failed,
	       w->counts.resent + r->counts.resent + m->counts.resent);
	printf("\"tsc_hz\":%" PRIu64 ",", rte_get_tsc_hz());
	if (rtt[0] >= 0 && rtt[1] >= 0)
		printf("\"core_rtt_ns_before\":%.0f,\"core_rtt_ns_after\":%.0f,", rtt[0], rtt[1]);
	printf("\"hugepages\":%s,", rte_eal_has_hugepages() ? "true" : "false");
	printf("\"machine\":\"%s\",\"commit\":\"%s\"}\n", machine, CHP_COMMIT);
}

/* ------------------------------------------------------------------ main */

static int
create(const struct options *o, struct chp_error *error)
{
	uint32_t record = LOAD_KEY_BYTES + o->value_bytes;
	uint32_t blocks = record > CHP_SLOT_INLINE ? chp_blocks_for(record) : 0;
	uint32_t keys = o->keys / o->shards + o->keys / o->shards / 8 + 4096;
	struct local_options local = { .replicas = o->replicas, .shards = o->shards, .ring_entries = 8192 };
	struct load_options options = { .keys = o->keys, .value_bytes = o->value_bytes,
					.window = o->window };
	static char text[512], node[256];

	if (strcmp(o->protocol, "hermes") != 0)
		return chp_error_set(error, CHP_EXIT_USAGE, "there is no protocol \"%s\"", o->protocol);
	(void)snprintf(text, sizeof(text),
		       "\"keys_max\": %u, \"value_blocks_max\": %u, \"sessions_max\": 64, "
		       "\"session_window\": %u, \"credits\": %u, \"link_window\": %u,",
		       keys, keys * blocks + 1024, CHP_SESSION_WINDOW_MAX, 1024u, CHP_LINK_WINDOW_MAX);
	local.cluster = text;
	(void)snprintf(node, sizeof(node), LOCAL_PATIENT "\"peers\": \"%s\",", o->peers);
	local.node = node;
	if (local_create(&cluster, &local, error) != 0)
		return -1;
	if (!local_wait_serving(&cluster))
		return chp_error_set(error, CHP_EXIT_FAILURE, "the replicas form no view: %s",
				     cluster.last_report);
	return load_create(&load, &cluster, &options, error);
}

static int
run(const struct options *o)
{
	static struct chp_histogram latency;
	struct result writes, reads, mixed;
	double rtt[2];

	if (!preload()) {
		(void)fprintf(stderr, "bench: the keys could not be written\n");
		return CHP_EXIT_FAILURE;
	}
	chp_histogram_init(&batches);
	rtt[0] = machine_core_rtt_ns();
	writes = measure(LOAD_WRITES, o->duration_s);
	latency = load.latency;
	reads = measure(LOAD_READS, o->duration_s);
	mixed = measure(LOAD_MIXED, o->duration_s);
	rtt[1] = machine_core_rtt_ns();
	print(o, &writes, &reads, &mixed, &latency, rtt);
	return writes.counts.failed + reads.counts.failed + mixed.counts.failed == 0 ? CHP_EXIT_OK
										      : CHP_EXIT_FAILURE;
}

int
main(int argc, char **argv)
{
	int eal_args = rte_eal_init(argc, argv), code;
	struct chp_error error = { 0 };
	struct options o;

	if (eal_args < 0) {
		(void)fprintf(stderr, "bench: EAL does not start\n");
		return CHP_EXIT_RESOURCE;
	}
	argv[eal_args] = argv[0];
	parse(argc - eal_args, argv + eal_args, &o);
	if (create(&o, &error) != 0) {
		(void)fprintf(stderr, "bench: %s\n", error.text);
		code = error.exit_code;
	} else {
		code = run(&o);
	}
	load_destroy(&load);
	local_destroy(&cluster);
	(void)rte_eal_cleanup();
	return code;
}
