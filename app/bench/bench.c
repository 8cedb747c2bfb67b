/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench.c - replicas and a load generator in one process, on one lcore, over net_ring.
 *
 * Every replica runs the pipeline that is shipped, polled in turn with the generator and the switch
 * between them. The pipelines account their own ticks; those of generator and switch are not in them.
 * One JSON object goes to standard output, everything else to standard error.
 *
 * Hosts of the replicas are polled in turn with them (--hosts memory), or have a thread on another CPU and a store
 * that keeps nothing (--hosts apart), or are processes of their own behind ports of DPDK net_vhost0, net_vhost1, ...
 * that EAL was told to make (--hosts port). For these --write-config writes the files.
 */
#include "hosted.h"
#include "load.h"
#include "machine.h"
#include "slices.h"

#include "base/assert.h"
#include "base/blocks.h"
#include "cache/cache.h"

#include <rte_cycles.h>
#include <rte_eal.h>

#include <getopt.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Polls between two looks at how large a batch was, and before a phase counts. */
#define SAMPLE_POLLS 500u
/* Polls between two looks at the clock while a phase counts. */
#define SLICE_POLLS 4u
#define WARM_UP_MS 500u
/* Keys of a shard in the phase "hits". */
#define HOT_KEYS 512u
/* Until all keys are written. */
#define PRELOAD_S 120u
/* Until hosts that are processes of their own have stored everything. */
#define SAVED_S 120u

/* What is measured, one after the other. */
enum phase {
	WRITES,
	READS,            /* each connection at its own replica */
	READS_AT_LEADER,  /* these two in protocols with one */
	READS_AT_FOLLOWERS,
	MIXED,
	HITS,             /* these three with hosts */
	MISSES,
	IDLE,
	PHASES,
};

static const struct {
	const char *name;
	enum load_mix mix;
} phases[PHASES] = {
	[WRITES] = { "writes", LOAD_WRITES },
	[READS] = { "reads", LOAD_READS },
	[READS_AT_LEADER] = { "reads-at-leader", LOAD_READS },
	[READS_AT_FOLLOWERS] = { "reads-at-followers", LOAD_READS },
	[MIXED] = { "mixed", LOAD_MIXED },
	[HITS] = { "hits", LOAD_HITS },
	[MISSES] = { "misses", LOAD_MISSES },
	[IDLE] = { "idle", LOAD_NOTHING },
};

struct options {
	const char *protocol, *peers, *quorum, *durability, *hosts, *host_pids, *write_config;
	uint32_t replicas, shards, keys, key_bytes, value_bytes, connections, window, writes_pct, duration_s;
	uint32_t warm_up_ms, cache_pct, batch_items;
	double zipf;
	uint32_t phases;     /* bits 1 << enum phase; 0: all that the protocol has */
	bool read_at_leader; /* in MIXED */
};

struct result {
	double seconds;
	struct load_counts counts;
	uint64_t cycles[CHP_CYCLES_COUNT]; /* of all replicas */
	struct chp_histogram read_latency, write_latency; /* ticks, as the generator sees it */
	struct chp_histogram commits; /* nanoseconds from proposal to commit, as the leaders see it */
	struct hosted_counts hosted;
	double per_s, cycles_per_op; /* of the middle slice of time */
};

static struct local cluster;
static struct load load;
static struct hosted hosted = { .l = &cluster };
static uint64_t hosts_ticks; /* spent in hosts of this process */
static struct chp_histogram batches;
static struct result result[PHASES];

/* ------------------------------------------------------------------ command line */

static void
usage(void)
{
	(void)fprintf(stderr, "usage: bench [EAL options] -- [--protocol hermes|zab] [--replicas 3] [--shards 1] "
			      "[--keys 1000000] [--key-bytes 8] [--value-bytes 32] [--connections REPLICAS] "
			      "[--window 256] [--duration-s 5] [--peers udp|ethernet] [--quorum majority|all] "
			      "[--writes-pct 50] [--read-at own|leader] [--phases writes,reads,reads-at-leader,"
			      "reads-at-followers,mixed,hits,misses,idle] [--warm-up-ms 500] [--zipf 0] "
			      "[--hosts memory|apart|port] [--cache-pct 0] [--batch-items 1024] "
			      "[--durability memory|datastore] [--host-pids N,...] [--write-config DIRECTORY]\n");
	exit(CHP_EXIT_USAGE);
}

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

/* A list of phases. */
static uint32_t
phases_of(const char *text)
{
	uint32_t mask = 0;

	while (*text != '\0') {
		size_t len = strcspn(text, ",");
		uint32_t i = 0;

		while (i < PHASES && (strlen(phases[i].name) != len || memcmp(phases[i].name, text, len) != 0))
			i++;
		if (i == PHASES)
			usage();
		mask |= 1u << i;
		text += len + (text[len] == ',');
	}
	return mask;
}

static const struct {
	const char *name;
	size_t offset;
	uint32_t min, max;
} numbers[] = {
	{ "replicas", offsetof(struct options, replicas), 1, LOCAL_REPLICAS_MAX },
	{ "shards", offsetof(struct options, shards), 1, CHP_SHARDS_MAX },
	{ "keys", offsetof(struct options, keys), 1000, 100000000 },
	{ "key-bytes", offsetof(struct options, key_bytes), LOAD_KEY_BYTES_MIN, CHP_KEY_BYTES_MAX },
	{ "value-bytes", offsetof(struct options, value_bytes), 1, CHP_VALUE_BYTES_MAX },
	{ "connections", offsetof(struct options, connections), 1, 1024 },
	{ "window", offsetof(struct options, window), 1, CHP_SESSION_WINDOW_MAX },
	{ "writes-pct", offsetof(struct options, writes_pct), 0, 100 },
	{ "duration-s", offsetof(struct options, duration_s), 1, 3600 },
	{ "warm-up-ms", offsetof(struct options, warm_up_ms), 0, 3600000 },
	{ "cache-pct", offsetof(struct options, cache_pct), 0, 100 }, /* 0: there is room for all keys */
	{ "batch-items", offsetof(struct options, batch_items), 1, 65536 },
};
#define N_NUMBERS ((uint32_t)(sizeof(numbers) / sizeof(numbers[0])))

/* Options are "--name value"; getopt_long's codes are those of `numbers`, then these. */
enum { PHASE_LIST = 'a', READ_AT, ZIPF, TEXTS };

/* Those that are texts have codes from TEXTS on. */
static const struct {
	const char *name;
	size_t offset;
} texts[] = {
	{ "protocol", offsetof(struct options, protocol) },
	{ "peers", offsetof(struct options, peers) },
	{ "quorum", offsetof(struct options, quorum) },
	{ "durability", offsetof(struct options, durability) },
	{ "hosts", offsetof(struct options, hosts) },
	{ "host-pids", offsetof(struct options, host_pids) },
	{ "write-config", offsetof(struct options, write_config) },
};
#define N_TEXTS ((uint32_t)(sizeof(texts) / sizeof(texts[0])))

static void
take_option(struct options *o, int c)
{
	char *end;

	if (c >= TEXTS) {
		*(const char **)(void *)((char *)o + texts[c - TEXTS].offset) = optarg;
	} else if (c == PHASE_LIST) {
		o->phases = phases_of(optarg);
	} else if (c == ZIPF) {
		o->zipf = strtod(optarg, &end);
		if (end == optarg || *end != '\0' || !(o->zipf >= 0 && o->zipf < 10))
			usage();
	} else if (strcmp(optarg, "leader") == 0 || strcmp(optarg, "own") == 0) {
		o->read_at_leader = optarg[0] == 'l';
	} else {
		usage();
	}
}

static void
check_options(struct options *o)
{
	if (o->connections == 0)
		o->connections = o->replicas;
	if (o->hosts != NULL && strcmp(o->hosts, "memory") != 0 && strcmp(o->hosts, "apart") != 0 &&
	    strcmp(o->hosts, "port") != 0)
		usage();
	if (o->host_pids != NULL && !hosted_pids(&hosted, o->host_pids))
		usage();
	if (o->hosts == NULL && (o->cache_pct != 0 || o->durability != NULL || o->write_config != NULL))
		usage();
	if (o->durability == NULL)
		o->durability = "memory";
}

static void
parse(int argc, char **argv, struct options *o)
{
	struct option names[N_NUMBERS + N_TEXTS + 4] = { 0 };
	int c;

	for (uint32_t i = 0; i < N_NUMBERS; i++)
		names[i] = (struct option){ numbers[i].name, required_argument, NULL, (int)i };
	for (uint32_t i = 0; i < N_TEXTS; i++)
		names[N_NUMBERS + i] = (struct option){ texts[i].name, required_argument, NULL, TEXTS + (int)i };
	names[N_NUMBERS + N_TEXTS] = (struct option){ "phases", required_argument, NULL, PHASE_LIST };
	names[N_NUMBERS + N_TEXTS + 1] = (struct option){ "read-at", required_argument, NULL, READ_AT };
	names[N_NUMBERS + N_TEXTS + 2] = (struct option){ "zipf", required_argument, NULL, ZIPF };
	*o = (struct options){ .protocol = "hermes", .peers = "udp", .replicas = 3, .shards = 1, .keys = 1000000,
			       .key_bytes = 8, .value_bytes = 32, .window = 256, .writes_pct = 50,
			       .duration_s = 5, .warm_up_ms = WARM_UP_MS, .batch_items = 1024 };
	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		if (c == '?')
			usage();
		if ((uint32_t)c < N_NUMBERS)
			*(uint32_t *)(void *)((char *)o + numbers[c].offset) =
				number(numbers[c].name, optarg, numbers[c].min, numbers[c].max);
		else
			take_option(o, c);
	}
	if (optind < argc)
		usage();
	check_options(o);
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
	uint64_t begin;

	for (uint32_t i = 0; i < cluster.options.replicas; i++)
		(void)chp_pipeline_poll(cluster.replica[i], 0);
	begin = rte_rdtsc();
	for (uint32_t i = 0; i < cluster.options.replicas; i++)
		if (cluster.host[i] != NULL && !cluster.options.hosts_apart)
			(void)local_host_poll(cluster.host[i]);
	hosts_ticks += rte_rdtsc() - begin;
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

/* What was answered, and what it took. */
static void
slice(struct slices *s, bool first, double seconds)
{
	uint64_t cycles[CHP_CYCLES_COUNT], ops = load.counts.reads + load.counts.writes, sum;

	read_cycles(cycles);
	sum = cycles[CHP_CYCLES_PROTOCOL] + cycles[CHP_CYCLES_NETWORK] + cycles[CHP_CYCLES_REST];
	if (first)
		slices_begin(s, seconds, rte_rdtsc() - hosts_ticks, ops, sum);
	else
		slices_look(s, rte_rdtsc() - hosts_ticks, ops, sum);
}

/* The measured time of a phase. */
static void
poll_measured(struct result *r, double seconds)
{
	static struct slices slices;
	uint64_t end = rte_rdtsc() + (uint64_t)(seconds * (double)rte_get_tsc_hz());

	slice(&slices, true, seconds);
	while (rte_rdtsc() < end) {
		for (uint32_t i = 0; i < SLICE_POLLS; i++)
			poll_all();
		slice(&slices, false, seconds);
	}
	r->per_s = slices_per_s(&slices);
	r->cycles_per_op = slices_cycles_per_op(&slices);
}

/* What the replicas have measured of commits since they began. */
static void
read_commits(struct chp_histogram *sum)
{
	chp_histogram_init(sum);
	for (uint32_t i = 0; i < cluster.options.replicas; i++)
		for (uint32_t s = 0; s < cluster.options.shards; s++)
			chp_histogram_merge(sum, chp_shard_commit_histogram(chp_pipeline_shard(cluster.replica[i], s)));
}

/* What came since. Of least and greatest only the buckets are known. */
static void
subtract(struct chp_histogram *h, const struct chp_histogram *before)
{
	for (uint32_t i = 0; i < CHP_HISTOGRAM_BUCKETS; i++)
		h->bucket[i] -= before->bucket[i];
	h->n -= before->n;
	h->min = 0;
	h->max = UINT64_MAX;
}

static enum load_readers
readers_of(enum phase phase, const struct options *o)
{
	if (phase == READS_AT_LEADER || (phase == MIXED && o->read_at_leader))
		return LOAD_READ_LEADER;
	return phase == READS_AT_FOLLOWERS ? LOAD_READ_FOLLOWERS : LOAD_READ_OWN;
}

static void
measure(enum phase phase, const struct options *o)
{
	static struct chp_histogram commits_before;
	static struct hosted_counts hosted_before;
	struct result *r = &result[phase];
	uint64_t before[CHP_CYCLES_COUNT], begin, hosts_before;

	load_begin(&load, phases[phase].mix, readers_of(phase, o));
	poll_for((double)o->warm_up_ms / 1e3, phase == WRITES);
	load_begin(&load, phases[phase].mix, readers_of(phase, o));
	read_cycles(before);
	read_commits(&commits_before);
	hosted_read(&hosted, &hosted_before);
	hosts_before = hosts_ticks;
	begin = rte_rdtsc();
	poll_measured(r, o->duration_s);
	/* Hosts have machines of their own. */
	r->seconds = (double)(rte_rdtsc() - begin - (hosts_ticks - hosts_before)) / (double)rte_get_tsc_hz();
	hosted_read(&hosted, &r->hosted);
	hosted_subtract(&r->hosted, &hosted_before);
	read_cycles(r->cycles);
	for (uint32_t i = 0; i < CHP_CYCLES_COUNT; i++)
		r->cycles[i] -= before[i];
	read_commits(&r->commits);
	subtract(&r->commits, &commits_before);
	r->counts = load.counts;
	r->read_latency = load.read_latency;
	r->write_latency = load.write_latency;
}

static bool
preload(void)
{
	uint64_t hz = rte_get_tsc_hz(), begin = rte_rdtsc();
	bool done;

	load_begin(&load, LOAD_PRELOAD, LOAD_READ_OWN);
	while (!(done = load_is_preloaded(&load)) && rte_rdtsc() - begin < PRELOAD_S * hz)
		poll_all();
	(void)fprintf(stderr, "bench: %" PRIu64 " keys written in %.2f s, %" PRIu64 " refused, %" PRIu64
			      " failed, %" PRIu64 " sent again\n",
		      load.counts.writes, (double)(rte_rdtsc() - begin) / (double)hz, load.counts.refused,
		      load.counts.failed, load.counts.resent);
	return done && load.counts.failed == 0;
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

/* The distribution as pairs [share, microseconds]: what a curve needs. */
static void
print_commits(const struct chp_histogram *h)
{
	static const uint32_t ppm[] = { 1000,   10000,  50000,  100000, 200000, 300000, 400000, 500000,  600000,
					700000, 800000, 900000, 950000, 990000, 995000, 999000, 999900, 1000000 };
	uint64_t ns[CHP_ARRAY_LEN(ppm)];

	if (h->n == 0)
		return;
	chp_histogram_quantiles(h, ppm, CHP_ARRAY_LEN(ppm), ns);
	printf("\"commits\":%" PRIu64 ",\"commit_p50_us\":%.2f,\"commit_p99_us\":%.2f,\"commit_cdf_us\":[",
	       h->n, (double)chp_histogram_quantile(h, 50, 100) / 1e3,
	       (double)chp_histogram_quantile(h, 99, 100) / 1e3);
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(ppm); i++)
		printf("%s[%.4f,%.2f]", i > 0 ? "," : "", (double)ppm[i] / 1e6, (double)ns[i] / 1e3);
	printf("],");
}

static void
print_writes(void)
{
	const struct result *w = &result[WRITES];
	const struct chp_histogram *latency = &w->write_latency;
	uint64_t writes = w->counts.writes;
	double hz = (double)rte_get_tsc_hz();

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
	print_commits(&w->commits);
}

/* @param suffix  of the names: "", "_leader", "_followers" */
static void
print_reads(enum phase phase, const char *suffix)
{
	const struct result *r = &result[phase];

	printf("\"reads%s_per_s\":%.0f,\"cycles_per_read%s\":%.1f,\"read%s_p50_us\":%.1f,\"read%s_p99_us\":%.1f,",
	       suffix, (double)r->counts.reads / r->seconds, suffix, per(busy(r), r->counts.reads), suffix,
	       quantile_us(&r->read_latency, 50, 100), suffix, quantile_us(&r->read_latency, 99, 100));
}

static void
print_mixed(const struct options *o)
{
	const struct result *m = &result[MIXED];

	printf("\"mixed_writes_pct\":%u,\"mixed_ops_per_s\":%.0f,\"cycles_per_mixed_op\":%.1f,"
	       "\"mixed_write_p50_us\":%.1f,\"mixed_read_p50_us\":%.1f,",
	       o->writes_pct, (double)(m->counts.reads + m->counts.writes) / m->seconds,
	       per(busy(m), m->counts.reads + m->counts.writes), quantile_us(&m->write_latency, 50, 100),
	       quantile_us(&m->read_latency, 50, 100));
}

static void
print_counts(void)
{
	struct load_counts sum = { 0 };

	for (uint32_t i = 0; i < PHASES; i++) {
		sum.refused += result[i].counts.refused;
		sum.failed += result[i].counts.failed;
		sum.resent += result[i].counts.resent;
		sum.redirected += result[i].counts.redirected;
	}
	printf("\"refused\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"resent\":%" PRIu64 ",\"redirected\":%" PRIu64 ",",
	       sum.refused, sum.failed, sum.resent, sum.redirected);
}

static void
print_hosts(const struct options *o)
{
	printf("\"hosts\":\"%s\",\"durability\":\"%s\",\"cache_pct\":%u,\"cache_keys\":%u,\"zipf\":%.2f,"
	       "\"batch_items\":%u,",
	       o->hosts, o->durability, o->cache_pct, cluster.cluster.keys_max * o->shards, o->zipf, o->batch_items);
	if (o->zipf > 0)
		printf("\"hit_ratio_perfect\":%.4f,", load_zipf_share(&load.zipf[0], cluster.cluster.keys_max));
}

/*
 * Each phase alone, and what it had to do with hosts. "seconds" are without those that hosts of this process took;
 * "per_s" and "cycles_per_op" are of the middle slice of time.
 */
static void
print_phases(const struct options *o)
{
	const char *separator = "";

	printf("\"phases\":[");
	for (uint32_t i = 0; i < PHASES; i++) {
		const struct result *r = &result[i];
		const struct chp_histogram *h = r->counts.writes > 0 ? &r->write_latency : &r->read_latency;

		if ((o->phases & 1u << i) == 0)
			continue;
		printf("%s{\"phase\":\"%s\",\"seconds\":%.4f,\"reads\":%" PRIu64 ",\"writes\":%" PRIu64
		       ",\"refused\":%" PRIu64 ",",
		       separator, phases[i].name, r->seconds, r->counts.reads, r->counts.writes, r->counts.refused);
		if (o->hosts != NULL)
			hosted_print(&hosted, &r->hosted);
		printf("\"per_s\":%.0f,\"cycles_per_op\":%.1f,\"replica_cpu_s\":%.4f,\"p50_us\":%.2f,\"p99_us\":%.2f}",
		       r->per_s, r->cycles_per_op, (double)busy(r) / (double)rte_get_tsc_hz(), quantile_us(h, 50, 100),
		       quantile_us(h, 99, 100));
		separator = ",";
	}
	printf("],");
}

static void
print(const struct options *o, const double rtt[2])
{
	char machine[192];

	machine_name(machine, sizeof(machine));
	printf("{\"bench\":\"replicate\",\"protocol\":\"%s\",\"replicas\":%u,\"shards\":%u,\"keys\":%u,"
	       "\"key_bytes\":%u,\"value_bytes\":%u,\"connections\":%u,\"window\":%u,\"mapping\":\"one lcore\","
	       "\"peers\":\"%s\",",
	       o->protocol, o->replicas, o->shards, o->keys, o->key_bytes, o->value_bytes, o->connections, o->window,
	       o->peers);
	if (o->quorum != NULL)
		printf("\"quorum\":\"%s\",", o->quorum);
	if ((o->phases & 1u << WRITES) != 0)
		print_writes();
	if ((o->phases & 1u << READS) != 0)
		print_reads(READS, "");
	if ((o->phases & 1u << READS_AT_LEADER) != 0)
		print_reads(READS_AT_LEADER, "_leader");
	if ((o->phases & 1u << READS_AT_FOLLOWERS) != 0)
		print_reads(READS_AT_FOLLOWERS, "_followers");
	if ((o->phases & 1u << MIXED) != 0)
		print_mixed(o);
	if (o->hosts != NULL)
		print_hosts(o);
	print_phases(o);
	print_counts();
	printf("\"tsc_hz\":%" PRIu64 ",", rte_get_tsc_hz());
	if (rtt[0] >= 0 && rtt[1] >= 0)
		printf("\"core_rtt_ns_before\":%.0f,\"core_rtt_ns_after\":%.0f,", rtt[0], rtt[1]);
	printf("\"hugepages\":%s,", rte_eal_has_hugepages() ? "true" : "false");
	printf("\"machine\":\"%s\",\"commit\":\"%s\"}\n", machine, CHP_COMMIT);
}

/* ------------------------------------------------------------------ main */

/* What the cluster is made of. The texts are static. */
static struct local_options
describe(const struct options *o)
{
	uint32_t record = o->key_bytes + o->value_bytes;
	uint32_t blocks = record > CHP_SLOT_INLINE ? chp_blocks_for(record) : 0;
	uint32_t keys = o->keys / o->shards + o->keys / o->shards / 8 + 4096;
	uint64_t batch_bytes = chp_min_u64(1u << 20, chp_max_u64(65536, (uint64_t)o->batch_items * (record + 64)));
	struct local_options local = { .replicas = o->replicas, .shards = o->shards, .protocol = o->protocol,
				       .ring_entries = 8192, .hosts = o->hosts != NULL, .keep = true };
	static char text[512], node[512], host[256];

	if (o->cache_pct != 0)
		keys = (uint32_t)((uint64_t)o->keys * o->cache_pct / 100 / o->shards);
	if (o->hosts != NULL)
		(void)snprintf(host, sizeof(host),
			       "\"durability\": \"%s\", \"batch_items\": %u, \"batch_bytes\": %" PRIu64 ",",
			       o->durability, o->batch_items, batch_bytes);
	if (o->hosts != NULL && strcmp(o->hosts, "port") == 0)
		local.host_ports = "net_vhost";
	(void)snprintf(text, sizeof(text),
		       "\"keys_max\": %u, \"value_blocks_max\": %u, \"sessions_max\": %u, "
		       "\"session_window\": %u, \"credits\": %u, \"link_window\": %u, %s",
		       keys, keys * blocks + 1024, o->connections < 64 ? 64 : 2 * o->connections,
		       CHP_SESSION_WINDOW_MAX, 1024u, CHP_LINK_WINDOW_MAX, host);
	local.cluster = text;
	(void)snprintf(node, sizeof(node), LOCAL_PATIENT "\"peers\": \"%s\",", o->peers);
	local.node = node;
	return local;
}

static int
create(const struct options *o, struct chp_error *error)
{
	struct local_options local = describe(o);
	struct load_options options = { .keys = o->keys, .key_bytes = o->key_bytes,
					.value_bytes = o->value_bytes, .connections = o->connections,
					.window = o->window, .writes_pct = o->writes_pct,
					.hot_keys = HOT_KEYS, .theta = o->zipf };

	if (chp_protocol_find(o->protocol) == NULL)
		return chp_error_set(error, CHP_EXIT_USAGE, "there is no protocol \"%s\"", o->protocol);
	if (local_create(&cluster, &local, error) != 0)
		return -1;
	if (!local_wait_serving(&cluster))
		return chp_error_set(error, CHP_EXIT_FAILURE, "the replicas form no view: %s",
				     cluster.last_report);
	if (load_create(&load, &cluster, &options, error) != 0)
		return -1;
	if (o->hosts != NULL && strcmp(o->hosts, "apart") == 0 && !hosted_start(&hosted))
		return chp_error_set(error, CHP_EXIT_RESOURCE, "no CPU for the hosts");
	return 0;
}

/* Until the hosts have stored what was written. */
static bool
save(const struct options *o)
{
	uint64_t end = rte_rdtsc() + SAVED_S * rte_get_tsc_hz();

	if (o->hosts == NULL)
		return true;
	load_begin(&load, LOAD_NOTHING, LOAD_READ_OWN);
	while (!hosted_is_saved(&hosted)) {
		poll_all();
		if (rte_rdtsc() > end)
			return false;
	}
	return true;
}

static bool
prepare(const struct options *o)
{
	if (!preload()) {
		(void)fprintf(stderr, "bench: the keys could not be written\n");
		return false;
	}
	if (!save(o)) {
		(void)fprintf(stderr, "bench: the hosts do not store what was written\n");
		return false;
	}
	if (o->quorum == NULL)
		return true;
	for (uint32_t rule = CHP_QUORUM_MAJORITY; rule <= CHP_QUORUM_ALL; rule++)
		if (strcmp(o->quorum, chp_quorum_name(rule)) == 0 && load_set_quorum(&load, rule))
			return true;
	(void)fprintf(stderr, "bench: the quorum rule cannot be \"%s\"\n", o->quorum);
	return false;
}

static int
run(struct options *o)
{
	uint64_t failed = 0;
	double rtt[2];

	/* Without a leader, reads are the same everywhere. */
	if (o->phases == 0)
		o->phases = strcmp(o->protocol, "zab") == 0 ? (1u << PHASES) - 1 - (1u << READS)
							     : 1u << WRITES | 1u << READS | 1u << MIXED;
	if (!prepare(o))
		return CHP_EXIT_FAILURE;
	chp_histogram_init(&batches);
	rtt[0] = machine_core_rtt_ns();
	for (enum phase p = WRITES; p < PHASES; p++) {
		if ((o->phases & 1u << p) == 0)
			continue;
		measure(p, o);
		failed += result[p].counts.failed;
	}
	rtt[1] = machine_core_rtt_ns();
	print(o, rtt);
	return failed == 0 ? CHP_EXIT_OK : CHP_EXIT_FAILURE;
}

static int
write_config(const struct options *o)
{
	struct local_options local = describe(o);
	struct chp_error error = { 0 };

	if (local_configure(&cluster, &local, &error) == 0 &&
	    hosted_write_config(&cluster, o->write_config, &error) == 0)
		return CHP_EXIT_OK;
	(void)fprintf(stderr, "bench: %s\n", error.text);
	return error.exit_code;
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
	if (o.write_config != NULL)
		return write_config(&o);
	if (create(&o, &error) != 0) {
		(void)fprintf(stderr, "bench: %s\n", error.text);
		code = error.exit_code;
	} else {
		code = run(&o);
	}
	hosted_stop(&hosted);
	load_destroy(&load);
	local_destroy(&cluster);
	(void)rte_eal_cleanup();
	return code;
}
