/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * main.c - the consistency controller: reads its configuration, starts EAL, runs a pipeline until told
 * to stop.
 */
#include "start.h"

#include "pipeline/command.h"
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

static const char help[] =
	"chaapar - one replica of a strongly consistent key-value service, on a DPDK port\n"
	"\n"
	"  chaapar [EAL options] -- -c CLUSTER.json -n NODE.json [--bootstrap]\n"
	"  chaapar -c CLUSTER.json -n NODE.json --check-config | --print-config\n"
	"\n"
	"  -c, --cluster FILE   the cluster file, the same on all nodes (docs/config.md)\n"
	"  -n, --node FILE      the node file: this node's port, lcores, rings\n"
	"  -b, --bootstrap      this cluster starts for the first time: node 0 forms the first view when all\n"
	"                       members are there. Without it a node joins what exists, or begins again with\n"
	"                       what the datastores of the cluster hold. With it, too, where one holds anything.\n"
	"      --check-config   check the files and stop; needs no EAL options\n"
	"      --print-config   the effective configuration with defaults, memory and lcore map, as JSON\n"
	"  -h, --help           this text\n"
	"  -V, --version        the version\n"
	"\n"
	"EAL options that matter (docs/running.md):\n"
	"  -l 0,1               lcores; those of the node file must be among them\n"
	"  --in-memory          hugepages without files; or --no-huge --no-shconf without hugepages\n"
	"  --iova-mode=va -m N  N MiB of memory; --print-config says how much\n"
	"  --vdev=net_af_xdp0,iface=veth0   the port; or -a 0000:03:00.0 for a NIC\n"
	"\n"
	"Example, without hugepages:\n"
	"  chaapar -l 0 --no-huge --no-shconf --no-pci --iova-mode=va -m 1024 \\\n"
	"          --vdev=net_af_packet0,iface=veth0 -- -c cluster.json -n node0.json --bootstrap\n"
	"\n"
	"SIGTERM or SIGINT: orderly stop; a second one ends the program at once.\n"
	"Exit codes: 0 stopped cleanly, 1 failed while running, 2 usage or configuration, 3 port or memory,\n"
	"4 refused by the cluster.\n";

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
serve(const struct chp_command *options, const struct chp_cluster_config *cluster,
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
	static struct chp_config_errors errors; /* 14 KiB */
	struct chp_error error = { 0 };
	struct chp_command options;
	int code;

	if (chp_command_parse(argc, argv, "b", &options, &error) != 0)
		return fail(&error);
	if (options.action == CHP_COMMAND_HELP)
		return fputs(help, stdout) >= 0 && fflush(stdout) == 0 ? CHP_EXIT_OK : CHP_EXIT_FAILURE;
	if (options.action == CHP_COMMAND_VERSION)
		return chp_command_version("chaapar", CHP_VERSION);
	if (!chp_command_read(&options, &cluster, &node, &errors)) {
		(void)chp_command_wrong("chaapar", &errors, &error);
		return fail(&error);
	}
	if (options.action == CHP_COMMAND_PRINT)
		return chp_command_print(&cluster, &node, NULL);
	if (options.action == CHP_COMMAND_CHECK)
		return chp_command_checked(&cluster, &node);
	(void)signal(SIGPIPE, SIG_IGN); /* before EAL, which opens sockets that others may close */
	if (start_address(&cluster, &node, &error) != 0 ||
	    chp_eal_start(options.eal_argc, options.eal_argv, &error) != 0)
		return fail(&error);
	code = serve(&options, &cluster, &node, &error);
	(void)rte_eal_cleanup();
	return code;
}
