/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * main.c - the consistency controller: reads its configuration, starts EAL, runs a pipeline until told
 * to stop.
 */
#include "options.h"
#include "start.h"

#include "pipeline/eal.h"
#include "pipeline/pipeline.h"
#include "pipeline/port.h"
#include "pipeline/telemetry.h"

#include <rte_eal.h>
#include <rte_launch.h>
#include <rte_lcore.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* For the signal handler only. */
static struct chp_pipeline *running;

static void
on_signal(int signal_number)
{
	(void)signal_number;
	chp_pipeline_stop(running);
}

static int
fail(const struct chp_error *error)
{
	(void)fprintf(stderr, "chaapar: %s\n", error->text);
	return error->exit_code;
}

/* Lines of the pipeline for people. */
static void
report(void *context, const char *line)
{
	(void)context;
	(void)fprintf(stderr, "chaapar: %s\n", line);
}

static int
print_config(const struct chp_cluster_config *cluster, const struct chp_node_config *node)
{
	char *c = chp_cluster_config_print(cluster), *n = chp_node_config_print(node, cluster);
	int rc = c != NULL && n != NULL ? 0 : -1;

	if (rc == 0)
		(void)printf("{\"cluster\": %s,\n\"node\": %s}\n", c, n);
	free(c);
	free(n);
	return rc == 0 && fflush(stdout) == 0 ? CHP_EXIT_OK : CHP_EXIT_FAILURE;
}

struct worker {
	struct chp_pipeline *pipeline;
	uint32_t index;
};

static int
work(void *argument)
{
	const struct worker *w = argument;

	chp_pipeline_run(w->pipeline, w->index);
	return 0;
}

/* Run every lcore of the node file until the pipeline stops; the main lcore here. */
static int
run(struct chp_pipeline *p, const struct chp_node_config *node, struct chp_error *error)
{
	static struct worker worker[CHP_LCORES_MAX];
	const struct worker *mine = NULL;
	int rc = 0;

	for (uint32_t i = 0; i < node->n_lcores && rc == 0; i++) {
		worker[i] = (struct worker){ .pipeline = p, .index = i };
		if (node->lcore[i].lcore == rte_get_main_lcore())
			mine = &worker[i];
		else
			rc = rte_eal_remote_launch(work, &worker[i], node->lcore[i].lcore);
	}
	if (rc != 0) {
		chp_pipeline_stop(p);
		(void)chp_error_set(error, CHP_EXIT_FAILURE, "an lcore does not start: %s", strerror(-rc));
	}
	if (mine != NULL)
		chp_pipeline_run(p, mine->index);
	rte_eal_mp_wait_lcore();
	return rc;
}

/* The last word: what `status` would have said. */
static void
print_statistics(struct chp_pipeline *p, uint32_t shards)
{
	static char text[CHP_TEXT_BYTES];

	for (uint32_t section = 0; section <= shards; section++) {
		if (chp_pipeline_status(p, section, text, sizeof(text)) < sizeof(text))
			(void)fprintf(stderr, "%s\n", text);
	}
}

/* A device that does not start is no error for EAL: what it said then is the reason. */
static int
find_port(const char *name, uint16_t *id, struct chp_error *error)
{
	size_t len;

	if (chp_port_find(name, id, error) == 0)
		return 0;
	len = strlen(error->text);
	if (chp_eal_complaint()[0] != '\0')
		(void)snprintf(error->text + len, sizeof(error->text) - len, "; EAL said: %s",
			       chp_eal_complaint());
	return -1;
}

static int
serve(const struct options *options, const struct chp_cluster_config *cluster,
      const struct chp_node_config *node, struct chp_error *error)
{
	struct sigaction stop = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };
	struct chp_pipeline_config config = {
		.cluster = cluster,
		.node = node,
		.name = "chaapar",
		.bootstrap = options->bootstrap,
		.version = CHP_VERSION,
		.report = report,
	};
	int code;

	if (start_lcores(node, error) != 0 || find_port(node->port, &config.port_id, error) != 0)
		return fail(error);
	while (config.incarnation == 0) {
		if (getrandom(&config.incarnation, sizeof(config.incarnation), 0) < 0 && errno != EINTR) {
			(void)chp_error_set(error, CHP_EXIT_FAILURE, "no random numbers: %s",
					    strerror(errno));
			return fail(error);
		}
	}
	running = chp_pipeline_create(&config, error);
	if (running == NULL)
		return fail(error);
	(void)sigaction(SIGTERM, &stop, NULL);
	(void)sigaction(SIGINT, &stop, NULL);
	chp_telemetry_start(running);
	(void)fprintf(stderr, "chaapar: node %u (%s) of cluster \"%s\" %08x on port %s: running\n",
		      node->node, cluster->member[node->node].name, cluster->name, cluster->hash,
		      node->port);
	code = run(running, node, error) == 0 ? chp_pipeline_exit_code(running) : fail(error);
	chp_telemetry_stop();
	(void)signal(SIGTERM, SIG_DFL);
	(void)signal(SIGINT, SIG_DFL);
	print_statistics(running, cluster->shards);
	chp_pipeline_destroy(running);
	return code;
}

int
main(int argc, char **argv)
{
	static struct chp_cluster_config cluster;
	static struct chp_node_config node;
	struct chp_error error = { 0 };
	struct options options;
	char message[256];
	int code;

	if (!options_parse(argc, argv, &options, message)) {
		(void)fprintf(stderr, "chaapar: %s\n", message);
		return CHP_EXIT_USAGE;
	}
	if (options.action == OPTIONS_HELP)
		return fputs(options_help, stdout) >= 0 ? CHP_EXIT_OK : CHP_EXIT_FAILURE;
	if (options.action == OPTIONS_VERSION)
		return printf("chaapar %s\n", CHP_VERSION) > 0 ? CHP_EXIT_OK : CHP_EXIT_FAILURE;
	if (start_config(options.cluster_file, options.node_file, &cluster, &node, &error) != 0)
		return fail(&error);
	if (options.action == OPTIONS_PRINT)
		return print_config(&cluster, &node);
	if (options.action == OPTIONS_CHECK)
		return printf("node %u (%s) of cluster \"%s\", hash %08x: both files are right\n", node.node,
			      cluster.member[node.node].name, cluster.name, cluster.hash) > 0
			       ? CHP_EXIT_OK
			       : CHP_EXIT_FAILURE;
	if (start_address(&cluster, &node, &error) != 0 ||
	    chp_eal_start(options.eal_argc, options.eal_argv, &error) != 0)
		return fail(&error);
	(void)signal(SIGPIPE, SIG_IGN);
	code = serve(&options, &cluster, &node, &error);
	(void)rte_eal_cleanup();
	return code;
}
