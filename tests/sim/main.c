/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sim - run seeds, replay one, prove that mutations are caught, run text scenarios.
 *
 *   sim --seeds N [--first F] [--replicas R] [--jobs J]   many seeds; exit 1 and the seed at the first failure
 *   sim --seed S [--replicas R] [--trace]                 one seed, twice: equal runs have equal digests
 *   sim --mutations [--seeds N] [--jobs J]                each known bug must be found within N seeds
 *   sim --mutation NAME --seed S [--replicas R]           one seed with a known bug
 *   sim --scenarios FILE... [--rewrite]
 *
 * --protocol P, hermes where nothing else is said. --hosts yes|no: clusters with hosts, or without; otherwise both,
 * by turns. A mutation belongs to a protocol, and a scenario may name one.
 */
#include "kind.h"

#include "base/mutation.h"

#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef CHP_MUTATIONS
enum chp_mutation chp_mutation;
#endif

struct options {
	const struct sim_kind *kind;  /* NULL: not said */
	uint64_t seed, seeds, first;
	uint32_t replicas, jobs;
	enum sim_hosts hosts;
	const char *mutation;
	bool one, trace, mutations, scenarios, rewrite;
};

/* For the handler of SIGABRT: an assertion must say what seed it was. */
static uint64_t running_seed;
static uint32_t running_replicas;
static enum sim_hosts running_hosts;
static const char *running_protocol;

/* As an option, where it is not as usual. */
static const char *const hosts_text[] = { "", " --hosts no", " --hosts yes" };

static void
on_abort(int sig)
{
	char text[128];
	int n = snprintf(text, sizeof(text),
			 "sim: assertion failed at --protocol %s%s --replicas %u --seed %" PRIu64 "\n",
			 running_protocol, hosts_text[running_hosts], running_replicas, running_seed);

	if (n > 0 && write(STDERR_FILENO, text, (size_t)n) < 0)
		_exit(3);
	signal(sig, SIG_DFL);
	raise(sig);
}

static bool
run_seed(const struct sim_kind *kind, enum sim_hosts hosts, uint64_t seed, uint32_t replicas, bool trace,
	 struct sim_result *result)
{
	struct sim_config c;
	char failure[SIM_FAILURE_BYTES];

	running_seed = seed;
	running_replicas = replicas;
	running_hosts = hosts;
	running_protocol = kind->protocol->name;
	sim_config_draw(&c, kind, seed, replicas, hosts);
	c.trace = trace;
	if (sim_run(&c, result, failure))
		return true;
	fprintf(stderr, "sim: FAILED --protocol %s%s --replicas %u --seed %" PRIu64 ": %s\n", running_protocol,
		hosts_text[hosts], replicas, seed, failure);
	return false;
}

static void
add_result(struct sim_result *sum, const struct sim_result *r)
{
	sum->runs += r->runs;
	sum->ops += r->ops;
	sum->ok += r->ok;
	sum->retransmits += r->retransmits;
	sum->resets += r->resets;
	sum->views += r->views;
	sum->same_views += r->same_views;
	sum->crashes += r->crashes;
	sum->restarts += r->restarts;
	sum->rejoins += r->rejoins;
	sum->leases_lost += r->leases_lost;
	sum->drops += r->drops;
	sum->evictions += r->evictions;
	sum->hosts_lost += r->hosts_lost;
	sum->writes_lost += r->writes_lost;
	sum->writes_late += r->writes_late;
	sum->cold_starts += r->cold_starts;
#define ADD(name, help) sum->protocol.name += r->protocol.name;
	CHP_PROTOCOL_COUNTERS(ADD)
#undef ADD
#define ADD(name, help) sum->host.name += r->host.name;
	CHP_HOST_COUNTERS(ADD)
#undef ADD
}

/* Of a thousand seeds, so many may end with a history that no search could decide. */
#define UNDECIDED_PER_MILLE 10u
/*
 * And so many may lose more than was meant: members may suspect each other for a lost packet or two, just when another
 * crashes. Only the cluster's members know that then, so the simulator can't always avoid it.
 */
#define BEYOND_REPAIR_PER_MILLE 40u

static bool
too_many(const struct options *o, uint64_t n, uint64_t per_mille, const char *what)
{
	if (n * 1000 <= o->seeds * per_mille + 1000)
		return false;
	fprintf(stderr, "sim: FAILED: %" PRIu64 " %s\n", n, what);
	return true;
}

static void
print_sum(const struct sim_result *sum, uint64_t undecided, uint64_t beyond_repair)
{
	printf("sim: %" PRIu64 " undecided, %" PRIu64 " beyond repair; %" PRIu64 " runs, %" PRIu64
	       " operations (%" PRIu64 " ok), views %" PRIu64 " (and %" PRIu64 " the same), crashes %" PRIu64
	       ", restarts %" PRIu64 ", rejoins %" PRIu64 ", leases lost %" PRIu64 ", drops %" PRIu64
	       ", retransmits %" PRIu64
	       ", resets %" PRIu64 ", aborts %" PRIu64 ", resent %" PRIu64 ", replays %" PRIu64 ", forgotten %" PRIu64
	       ", unknown %" PRIu64 ", busy %" PRIu64 ", full %" PRIu64 "\n",
	       undecided, beyond_repair, sum->runs, sum->ops, sum->ok, sum->views, sum->same_views, sum->crashes,
	       sum->restarts, sum->rejoins, sum->leases_lost, sum->drops, sum->retransmits, sum->resets,
	       sum->protocol.aborts,
	       sum->protocol.resent, sum->protocol.replays, sum->protocol.forgotten, sum->protocol.unknown,
	       sum->protocol.busy, sum->protocol.full);
	if (sum->host.hellos != 0)
		printf("sim: hosts: %" PRIu64 " lost, %" PRIu64 " writes with them and %" PRIu64
		       " done behind them, %" PRIu64 " cold starts, %" PRIu64 " batches, %" PRIu64
		       " versions and %" PRIu64 " coalesced, %" PRIu64 " evictions, %" PRIu64 " misses, %" PRIu64
		       " loads, %" PRIu64 " of them failed and %" PRIu64 " stale, %" PRIu64 " INVs parked, %" PRIu64
		       " resends\n",
		       sum->hosts_lost, sum->writes_lost, sum->writes_late, sum->cold_starts,
		       sum->host.batches, sum->host.puts, sum->host.coalesced,
		       sum->evictions, sum->protocol.misses, sum->host.loads, sum->protocol.loads_failed,
		       sum->protocol.loads_stale, sum->protocol.inv_parked, sum->host.resends);
}

static bool
run_range(const struct options *o, uint64_t first, uint64_t step)
{
	struct sim_result sum = { 0 }, r;
	uint64_t undecided = 0, beyond_repair = 0;

	sim_eal_init();
	for (uint64_t seed = first; seed < o->first + o->seeds; seed += step) {
		if (!run_seed(o->kind, o->hosts, seed, o->replicas, false, &r))
			return false;
		add_result(&sum, &r);
		undecided += r.undecided;
		beyond_repair += r.beyond_repair;
	}
	if (too_many(o, undecided, UNDECIDED_PER_MILLE, "histories undecided") ||
	    too_many(o, beyond_repair, BEYOND_REPAIR_PER_MILLE, "clusters lost more than was meant"))
		return false;
	print_sum(&sum, undecided, beyond_repair);
	return true;
}

static int
run_many(const struct options *o)
{
	int failed = 0;

	fflush(NULL);
	for (uint32_t j = 0; j < o->jobs; j++) {
		pid_t pid = fork();

		if (pid < 0) {
			perror("sim: fork");
			return 1;
		}
		if (pid == 0) {
			bool ok = run_range(o, o->first + j, o->jobs);

			fflush(NULL);
			_exit(ok ? 0 : 1);
		}
	}
	for (uint32_t j = 0; j < o->jobs; j++) {
		int status = 0;

		wait(&status);
		failed += status != 0;
	}
	printf("sim: %s%s, %u replicas, seeds %" PRIu64 " to %" PRIu64 ": %s\n", o->kind->protocol->name,
	       hosts_text[o->hosts], o->replicas, o->first, o->first + o->seeds - 1,
	       failed == 0 ? "all hold" : "FAILED");
	return failed == 0 ? 0 : 1;
}

static int
run_one(const struct options *o)
{
	struct sim_result a, b;

	sim_eal_init();
	if (!run_seed(o->kind, o->hosts, o->seed, o->replicas, o->trace, &a) ||
	    !run_seed(o->kind, o->hosts, o->seed, o->replicas, false, &b))
		return 1;
	if (a.digest != b.digest) {
		fprintf(stderr, "sim: FAILED --seed %" PRIu64 ": two runs differ\n", o->seed);
		return 1;
	}
	printf("sim: seed %" PRIu64 " holds: %" PRIu64 " operations, %" PRIu64 " ok, digest %016" PRIx64 "\n", o->seed,
	       a.ops, a.ok, a.digest);
	return 0;
}

#ifdef CHP_MUTATIONS
static const struct {
	const char *protocol, *name, *text;
	bool hosts; /* looked for in clusters with hosts, otherwise in those without */
} mutation_text[] = {
	{ "hermes", "NONE", "nothing", false },
#define TEXT(name, text) { "hermes", #name, text, false },
	CHP_MUTATION_LIST_HERMES(TEXT)
#undef TEXT
#define TEXT(name, text) { "zab", #name, text, false },
	CHP_MUTATION_LIST_ZAB(TEXT)
#undef TEXT
#define TEXT(name, text) { "hermes", #name, text, true },
	CHP_MUTATION_LIST_HOSTS(TEXT)
#undef TEXT
#define TEXT(name, text) { "zab", #name, text, true },
	CHP_MUTATION_LIST_ZAB_HOSTS(TEXT)
#undef TEXT
};

/* What the unchanged code must pass first: a hunt that catches nothing proves nothing. */
#define BASELINE_SEEDS (10u * SIM_PROFILES)

/* Whose seeds find a mutation. */
static const struct sim_kind *
kind_of(uint32_t m)
{
	return sim_kind_find(mutation_text[m].protocol);
}

/* Where it is looked for; NULL: anywhere. */
static const struct sim_ground *
ground_of(uint32_t m)
{
	for (const struct sim_ground *g = kind_of(m)->grounds; g->mutation != CHP_MUTATION_NONE; g++)
		if (g->mutation == m)
			return g;
	return NULL;
}

/* The i-th seed of a hunt, and the replicas to run it with. */
static uint64_t
hunted_seed(const struct options *o, uint32_t m, uint64_t i, uint32_t *replicas)
{
	const struct sim_ground *g = ground_of(m);

	*replicas = g != NULL ? g->replicas : i % 4 == 2 ? 5 : 3;
	return g != NULL ? (o->first + i) * SIM_PROFILES + g->profile : o->first + i;
}

static enum sim_hosts
hunted_hosts(uint32_t m)
{
	return mutation_text[m].hosts ? SIM_HOSTS_YES : SIM_HOSTS_NO;
}

/* Seeds in a child, since an assertion is one way to be caught. Returns how many held before one was caught. */
static uint64_t
hunt(const struct options *o, const struct sim_kind *kind, uint32_t m, uint64_t seeds)
{
	uint64_t tried = seeds;
	int fd[2], status = 0;
	pid_t pid;

	fflush(NULL);
	if (pipe(fd) != 0 || (pid = fork()) < 0) {
		perror("sim: fork");
		exit(1);
	}
	if (pid == 0) {
		FILE *null = freopen("/dev/null", "w", stderr);
		struct sim_result r;

		(void)null;
		sim_eal_init(); /* here: children would share its memory */
		chp_mutation = (enum chp_mutation)m;
		for (uint64_t i = 0; i < seeds; i++) {
			uint32_t replicas;
			const uint64_t seed = hunted_seed(o, m, i, &replicas);

			if (write(fd[1], &i, sizeof(i)) != sizeof(i))
				_exit(3);
			if (!run_seed(kind, hunted_hosts(m), seed, replicas, false, &r))
				_exit(1);
		}
		_exit(0);
	}
	close(fd[1]);
	for (uint64_t i; read(fd[0], &i, sizeof(i)) == sizeof(i);)
		tried = i;
	close(fd[0]);
	waitpid(pid, &status, 0);
	return status == 0 ? seeds : tried;
}

static bool
fails_scenario(uint32_t m)
{
	char name[128];
	char *file = name;
	int status = 0;
	pid_t pid;

	snprintf(name, sizeof(name), "%s", ground_of(m)->scenario);
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		FILE *null = freopen("/dev/null", "w", stdout);

		(void)null;
		sim_eal_init();
		/* It must pass without, or failing with it says nothing. */
		if (!sim_scenarios(kind_of(m), &file, 1, false))
			_exit(2);
		chp_mutation = (enum chp_mutation)m;
		_exit(sim_scenarios(kind_of(m), &file, 1, false) ? 0 : 1);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 1;
}

/* Whether a mutation is caught. */
static bool
hunt_one(const struct options *o, uint32_t m)
{
	const struct sim_ground *g = ground_of(m);
	uint32_t replicas;
	uint64_t tried, seed;

	if (g != NULL && g->scenario != NULL) {
		const bool caught = fails_scenario(m);

		printf("mutation %-24s %s by %s: %s\n", mutation_text[m].name, caught ? "caught" : "MISSED",
		       g->scenario, mutation_text[m].text);
		return caught;
	}
	tried = hunt(o, kind_of(m), m, o->seeds);
	seed = hunted_seed(o, m, tried, &replicas);
	if (tried < o->seeds)
		printf("mutation %-24s caught by --protocol %s%s --replicas %u --seed %" PRIu64 ", the %" PRIu64
		       ". tried: %s\n",
		       mutation_text[m].name, mutation_text[m].protocol, hosts_text[hunted_hosts(m)], replicas, seed,
		       tried + 1,
		       mutation_text[m].text);
	else
		printf("mutation %-24s MISSED in %" PRIu64 " seeds: %s\n", mutation_text[m].name, o->seeds,
		       mutation_text[m].text);
	return tried < o->seeds;
}

/* Every step-th mutation, or of them those of one protocol. Returns how many were missed. */
static uint32_t
hunt_some(const struct options *o, uint32_t first, uint32_t step)
{
	uint32_t missed = 0;

	for (uint32_t m = first; m < CHP_MUTATION_COUNT; m += step) {
		if (o->kind == NULL || o->kind == kind_of(m))
			missed += !hunt_one(o, m);
		fflush(stdout);
	}
	return missed;
}

static int
run_mutations(const struct options *o)
{
	uint32_t missed = 0;

	for (uint32_t i = 0; sim_kind_at(i) != NULL; i++) {
		if ((o->kind != NULL && o->kind != sim_kind_at(i)) ||
		    hunt(o, sim_kind_at(i), CHP_MUTATION_NONE, BASELINE_SEEDS) == BASELINE_SEEDS)
			continue;
		fprintf(stderr, "sim: FAILED without a mutation: %s\n", sim_kind_at(i)->protocol->name);
		return 1;
	}
	fflush(NULL);
	for (uint32_t j = 0; j < o->jobs; j++) {
		pid_t pid = fork();

		if (pid < 0) {
			perror("sim: fork");
			return 1;
		}
		if (pid == 0)
			_exit((int)hunt_some(o, 1 + j, o->jobs));
	}
	for (uint32_t j = 0; j < o->jobs; j++) {
		int status = 0;

		wait(&status);
		missed += WIFEXITED(status) ? (uint32_t)WEXITSTATUS(status) : CHP_MUTATION_COUNT;
	}
	printf("mutations: %u known, %u missed\n", CHP_MUTATION_COUNT - 1, missed);
	return missed == 0 ? 0 : 1;
}
#endif

static bool
set_mutation(struct options *o, const char *name)
{
#ifdef CHP_MUTATIONS
	for (uint32_t m = 1; m < CHP_MUTATION_COUNT; m++) {
		if (strcmp(mutation_text[m].name, name) == 0) {
			chp_mutation = (enum chp_mutation)m;
			if (o->kind == NULL)
				o->kind = kind_of(m);
			o->hosts = hunted_hosts(m);
			return true;
		}
	}
	fprintf(stderr, "sim: no mutation %s\n", name);
#else
	(void)o;
	fprintf(stderr, "sim: %s: this build has no mutations, build/mut/sim has\n", name);
#endif
	return false;
}

static uint64_t
number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 10);

	if (*text == '\0' || *end != '\0') {
		fprintf(stderr, "sim: %s is not a number\n", text);
		exit(2);
	}
	return n;
}

static bool
parse_options(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "protocol", required_argument, NULL, 'p' }, { "seed", required_argument, NULL, 's' },
		{ "seeds", required_argument, NULL, 'n' },    { "first", required_argument, NULL, 'f' },
		{ "replicas", required_argument, NULL, 'r' }, { "jobs", required_argument, NULL, 'j' },
		{ "hosts", required_argument, NULL, 'h' },
		{ "mutation", required_argument, NULL, 'm' }, { "trace", no_argument, NULL, 't' },
		{ "mutations", no_argument, NULL, 'M' },      { "scenarios", no_argument, NULL, 'S' },
		{ "rewrite", no_argument, NULL, 'R' },        { NULL, 0, NULL, 0 },
	};
	bool known = true;
	int c;

	*o = (struct options){ .seeds = 200, .replicas = 3, .jobs = 1 };
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'p':
			o->kind = sim_kind_find(optarg);
			known = o->kind != NULL;
			break;
		case 's':
			o->seed = number(optarg);
			o->one = true;
			break;
		case 'n':
			o->seeds = number(optarg);
			break;
		case 'f':
			o->first = number(optarg);
			break;
		case 'r':
			o->replicas = (uint32_t)number(optarg);
			break;
		case 'j':
			o->jobs = (uint32_t)number(optarg);
			break;
		case 'h':
			o->hosts = strcmp(optarg, "yes") == 0 ? SIM_HOSTS_YES : SIM_HOSTS_NO;
			known = known && (o->hosts == SIM_HOSTS_YES || strcmp(optarg, "no") == 0);
			break;
		case 'm':
			o->mutation = optarg;
			break;
		case 't':
			o->trace = true;
			break;
		case 'M':
			o->mutations = true;
			break;
		case 'S':
			o->scenarios = true;
			break;
		case 'R':
			o->rewrite = true;
			break;
		default:
			return false;
		}
	}
	if (!known || o->replicas < 1 || o->replicas > SIM_NODES_MAX || o->jobs < 1) {
		fprintf(stderr, "sim: unknown protocol, replicas not 1 to %u, or hosts not yes or no\n", SIM_NODES_MAX);
		return false;
	}
	if (o->mutation != NULL && !set_mutation(o, o->mutation))
		return false;
	if (o->kind == NULL && !o->mutations)
		o->kind = &sim_hermes;
	return true;
}

int
main(int argc, char **argv)
{
	struct options o;

	if (!parse_options(argc, argv, &o))
		return 2;
	signal(SIGABRT, on_abort);
	if (o.scenarios) {
		sim_eal_init();
		return sim_scenarios(o.kind, argv + optind, argc - optind, o.rewrite) ? 0 : 1;
	}
#ifdef CHP_MUTATIONS
	if (o.mutations)
		return run_mutations(&o);
#else
	if (o.mutations)
		return set_mutation(&o, "--mutations") ? 0 : 2;
#endif
	return o.one ? run_one(&o) : run_many(&o);
}
