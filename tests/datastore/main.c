/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The conformance suite of the datastores: conformance ADAPTER CONFIG SERVER [CASE]
 *
 * CONFIG is the adapter's JSON, SERVER the command that controls its server (tests/datastore/server). Each case runs
 * in a process of its own on an empty store; a line "ok NAME" or "FAILED NAME" for each.
 */
#include "suite.h"

#include "base/bytes.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CASE_SECONDS_MAX 60u

/* What an adapter is, before there is a store. */
static uint32_t
abilities(const struct chp_adapter *a)
{
	bool is_server = strcmp(a->name, "memory") != 0 && strcmp(a->name, "rocksdb") != 0;
	bool is_durable = strcmp(a->name, "memory") != 0 && strcmp(a->name, "memcached") != 0;

	return SUITE_OPENS | SUITE_NAMED | (strcmp(a->name, "memory") != 0 ? SUITE_REOPENS : 0) |
	       (a->scan != NULL ? SUITE_SCANS : 0) | (is_server ? SUITE_SERVER : 0) |
	       (is_durable ? SUITE_DURABLE : 0);
}

static void
run_child(struct suite *s, const struct suite_case *c)
{
	alarm(CASE_SECONDS_MAX);
	suite_server(s, "reset");
	if ((c->needs & SUITE_OPENS) == 0)
		suite_open(s);
	c->run(s);
	suite_close(s);
	fflush(NULL);
	_exit(0);
}

/* Returns whether it did not fail. */
static bool
run(struct suite *s, const struct suite_case *c)
{
	uint64_t start = suite_now_ms();
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0)
		run_child(s, c);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return false;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		printf("ok %s/%s %d ms\n", s->adapter->name, c->name, (int)(suite_now_ms() - start));
		return true;
	}
	if (WIFSIGNALED(status))
		printf("FAILED %s/%s: ended by signal %d\n", s->adapter->name, c->name, WTERMSIG(status));
	else
		printf("FAILED %s/%s\n", s->adapter->name, c->name);
	return false;
}

static bool
fits(const struct suite *s, const struct suite_case *c, const char *name)
{
	if (name != NULL ? strcmp(name, c->name) != 0 : (c->needs & SUITE_NAMED) != 0)
		return false;
	return (c->only == NULL || strcmp(c->only, s->adapter->name) == 0) && (c->needs & ~abilities(s->adapter)) == 0;
}

int
main(int argc, char **argv)
{
	static const struct suite_case *const all[] = { suite_cases, suite_faults,    suite_engine, suite_rocksdb,
							suite_redis, suite_memcached, suite_s3,     suite_rate };
	static struct suite s = { .id = { .cluster = "conformance", .cluster_hash = 7, .node = 2, .shards = SHARDS,
					  .hash_seed = 0xfedcba9876543210u, .key_bytes_max = CHP_KEY_BYTES_MAX,
					  .value_bytes_max = VALUE_MAX } };
	struct chp_store_error e;
	json_error_t je;
	uint32_t n = 0;
	bool ok = true;

	if (argc < 4 || argc > 5 || (s.adapter = chp_adapter_find(argv[1])) == NULL ||
	    (s.config = json_loads(argv[2], 0, &je)) == NULL) {
		fprintf(stderr, "usage: conformance ADAPTER CONFIG SERVER [CASE]\n");
		return 2;
	}
	if (s.adapter->check(s.config, &e) < 0) {
		fprintf(stderr, "conformance: %s\n", e.text);
		return 2;
	}
	s.server = argv[3];
	s.is_slow = strcmp(argv[1], "s3") == 0;
	signal(SIGPIPE, SIG_IGN); /* as chaapar-host does */
	for (uint32_t a = 0; a < CHP_ARRAY_LEN(all); a++)
		for (const struct suite_case *c = all[a]; c->name != NULL; c++)
			if (fits(&s, c, argc > 4 ? argv[4] : NULL)) {
				ok = run(&s, c) && ok;
				n++;
			}
	json_decref(s.config);
	return ok && n > 0 ? 0 : 1;
}
