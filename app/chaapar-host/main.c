/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * main.c - the datastore interface: reads its configuration, starts the datastore's engine, EAL where the channel
 * needs it, and serves its replica until told to stop.
 */
#include "host.h"

#include "pipeline/command.h"
#include "pipeline/eal.h"

#include <rte_eal.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

static const char help[] =
	"chaapar-host - the datastore interface: keeps what a replica on its DPU cannot, in a datastore on its host\n"
	"\n"
	"  chaapar-host [EAL options] -- -c CLUSTER.json -n NODE.json -s HOST.json\n"
	"  chaapar-host -c CLUSTER.json -n NODE.json -s HOST.json --check-config | --print-config\n"
	"\n"
	"  -c, --cluster FILE   the cluster file, the same as the replica's (docs/config.md)\n"
	"  -n, --node FILE      the node file, the same as the replica's\n"
	"  -s, --host FILE      the host file: channel and datastore (docs/config.md, docs/datastores.md)\n"
	"      --check-config   check the files and stop; needs no EAL options, looks at no datastore\n"
	"      --print-config   the effective configuration with defaults and memory, as JSON\n"
	"  -h, --help           this text\n"
	"  -V, --version        the version\n"
	"\n"
	"EAL options are for the channel \"port\", which is a DPDK port, and only for that (docs/channel.md).\n"
	"\n"
	"Example, with a replica on the same machine:\n"
	"  rm -f /run/chaapar/h0.sock\n"
	"  chaapar-host -l 1 --no-huge --no-shconf --no-pci --iova-mode=va -m 64 --file-prefix h0 \\\n"
	"     --vdev=net_virtio_user0,path=/run/chaapar/h0.sock,server=1,queue_size=1024,in_order=1,mrg_rxbuf=0 \\\n"
	"     -- -c cluster.json -n node0.json -s host0.json\n"
	"\n"
	"It may be killed and started again at any time, and so may the replica. SIGTERM or SIGINT: orderly stop;\n"
	"a second one ends the program at once.\n"
	"Exit codes: 0 stopped cleanly, 1 failed while running, 2 usage or configuration, 3 port or memory.\n"
	"\n"
	"Datastores, \"type\" of \"store\" in the host file:\n";

static atomic_bool stopping;

static void
on_signal(int signal_number)
{
	(void)signal_number;
	atomic_store(&stopping, true);
}

static int
fail(const struct chp_error *error)
{
	(void)fprintf(stderr, "chaapar-host: %s\n", error->text);
	return error->exit_code;
}

/* ------------------------------------------------------------------ configuration */

/* The adapter's part of the host file. */
static bool
check_store(const json_t *store, char why[CHP_CONFIG_ERROR_BYTES])
{
	const char *type = json_string_value(json_object_get(store, "type"));
	const struct chp_adapter *a = chp_adapter_find(type), *other;
	struct chp_store_error e = { 0 };
	int n;

	if (a != NULL && a->check(store, &e) == 0)
		return true;
	if (a != NULL) {
		(void)snprintf(why, CHP_CONFIG_ERROR_BYTES, "%s", e.text);
		return false;
	}
	n = snprintf(why, CHP_CONFIG_ERROR_BYTES, "type: expected one of");
	for (uint32_t i = 0; (other = chp_adapter_at(i)) != NULL && n > 0 && n < (int)CHP_CONFIG_ERROR_BYTES; i++)
		n += snprintf(why + n, CHP_CONFIG_ERROR_BYTES - (size_t)n, "%s \"%s\"", i > 0 ? "," : "",
			      other->name);
	return false;
}

/* The host file says nothing without the cluster file, and is the last. */
static bool
read_files(const struct chp_command *c, struct chp_cluster_config *cluster, struct chp_node_config *node,
	   struct chp_host_file *file, struct chp_config_errors *errors)
{
	size_t len = 0;
	char *text;
	bool ok;

	if (!chp_command_read(c, cluster, node, errors))
		return false;
	text = chp_config_read_file(c->host_file, &len, errors);
	ok = text != NULL && chp_host_file_parse(text, len, c->host_file, cluster, check_store, file, errors);
	free(text);
	return ok;
}

static int
print_help(void)
{
	const struct chp_adapter *a;

	if (fputs(help, stdout) < 0)
		return CHP_EXIT_FAILURE;
	for (uint32_t i = 0; (a = chp_adapter_at(i)) != NULL; i++) {
		if (printf("  %-12s %s\n", a->name, a->text) < 0)
			return CHP_EXIT_FAILURE;
	}
	return fflush(stdout) == 0 ? CHP_EXIT_OK : CHP_EXIT_FAILURE;
}

static int
print_config(const struct host *h)
{
	char *text = chp_host_file_print(h->file, host_bytes(h));
	int code = text != NULL ? chp_command_print(h->cluster, h->node, text) : CHP_EXIT_FAILURE;

	free(text);
	return code;
}

/* ------------------------------------------------------------------ running */

/* EAL is there for ports; over other channels the program needs no rights and no memory of DPDK's. */
static int
start_eal(const struct chp_command *o, const struct chp_host_file *file, struct chp_error *error)
{
	if (file->channel.channel == CHP_CHANNEL_KIND_PORT)
		return chp_eal_start(o->eal_argc, o->eal_argv, error);
	if (o->has_eal && o->eal_argc > 1)
		return chp_error_set(error, CHP_EXIT_USAGE, "EAL options are for the channel \"port\", this is \"%s\"",
				     chp_channel_kind_name(file->channel.channel));
	return 0;
}

static int
serve(struct host *h, struct chp_error *error)
{
	struct sigaction stop = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };
	char *text;
	int rc;

	if (host_open(h, error) != 0)
		return -1;
	(void)sigaction(SIGTERM, &stop, NULL);
	(void)sigaction(SIGINT, &stop, NULL);
	host_print_ways(h);
	rc = host_run(h, &stopping, error);
	text = host_status(h);
	if (text != NULL)
		(void)fprintf(stderr, "%s\n", text);
	free(text);
	return rc;
}

static int
run(const struct chp_command *o, struct host *h, struct chp_error *error)
{
	int rc;

	(void)signal(SIGPIPE, SIG_IGN);
	h->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (h->event_fd < 0)
		return chp_error_set(error, CHP_EXIT_RESOURCE, "no file descriptors");
	(void)fprintf(stderr, "chaapar-host: host of node %u (%s) of cluster \"%s\" %08x: opening the datastore, %s\n",
		      h->node->node, h->cluster->member[h->node->node].name, h->cluster->name, h->cluster->hash,
		      h->adapter->name);
	/* Before EAL, which ties this thread to an lcore, and what it starts from then on with it. */
	rc = host_start_store(h, error);
	if (rc == 0)
		rc = start_eal(o, h->file, error);
	if (rc == 0)
		rc = serve(h, error);
	host_close(h);
	if (h->file->channel.channel == CHP_CHANNEL_KIND_PORT)
		(void)rte_eal_cleanup();
	return rc;
}

int
main(int argc, char **argv)
{
	static struct chp_cluster_config cluster;
	static struct chp_node_config node;
	static struct chp_host_file file;
	static struct chp_config_errors errors; /* 14 KiB */
	static struct host h;
	struct chp_error error = { 0 };
	struct chp_command options;
	int rc;

	if (chp_command_parse(argc, argv, "s", &options, &error) != 0)
		return fail(&error);
	if (options.action == CHP_COMMAND_HELP)
		return print_help();
	if (options.action == CHP_COMMAND_VERSION)
		return chp_command_version("chaapar-host", CHP_VERSION);
	if (!read_files(&options, &cluster, &node, &file, &errors)) {
		(void)chp_command_wrong("chaapar-host", &errors, &error);
		return fail(&error);
	}
	h = (struct host){ .cluster = &cluster, .node = &node, .file = &file, .event_fd = -1, .status_fd = -1 };
	h.adapter = chp_adapter_find(json_string_value(json_object_get(file.store, "type")));
	if (options.action == CHP_COMMAND_PRINT)
		return print_config(&h);
	if (options.action == CHP_COMMAND_CHECK)
		return chp_command_checked(&cluster, &node);
	rc = run(&options, &h, &error);
	chp_host_file_free(&file);
	return rc == 0 ? CHP_EXIT_OK : fail(&error);
}
