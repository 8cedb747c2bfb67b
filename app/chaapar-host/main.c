/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * main.c - the datastore interface: reads its configuration, starts the datastore's engine, EAL where the channel
 * needs it, and serves its replica until told to stop.
 */
#include "host.h"
#include "options.h"

#include "pipeline/eal.h"
#include "protocols/application.h"
#include "protocols/protocol.h"

#include <rte_eal.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

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

static bool
read_files(const struct options *o, struct chp_cluster_config *cluster, struct chp_node_config *node,
	   struct chp_host_file *file, struct chp_config_errors *errors)
{
	size_t len = 0;
	bool ok;
	char *text = chp_config_read_file(o->cluster_file, &len, errors);

	ok = text != NULL && chp_cluster_config_parse(text, len, o->cluster_file, chp_protocol_names(),
						      chp_application_names(), cluster, errors);
	free(text);
	if (!ok)
		return false;
	text = chp_config_read_file(o->node_file, &len, errors);
	ok = text != NULL && chp_node_config_parse(text, len, o->node_file, cluster, node, errors);
	free(text);
	if (!ok)
		return false;
	text = chp_config_read_file(o->host_file, &len, errors);
	ok = text != NULL && chp_host_file_parse(text, len, o->host_file, cluster, check_store, file, errors);
	free(text);
	return ok;
}

static int
read_config(const struct options *o, struct chp_cluster_config *cluster, struct chp_node_config *node,
	    struct chp_host_file *file, struct chp_error *error)
{
	static struct chp_config_errors errors; /* 14 KiB */
	uint32_t shown;

	if (read_files(o, cluster, node, file, &errors))
		return 0;
	shown = errors.n < CHP_CONFIG_ERRORS_MAX ? errors.n : CHP_CONFIG_ERRORS_MAX;
	for (uint32_t i = 0; i < shown; i++)
		(void)fprintf(stderr, "chaapar-host: %s\n", errors.text[i]);
	return chp_error_set(error, CHP_EXIT_USAGE, "%u error%s in the configuration", errors.n,
			     errors.n == 1 ? "" : "s");
}

static int
print_help(void)
{
	const struct chp_adapter *a;

	if (fputs(options_help, stdout) < 0)
		return CHP_EXIT_FAILURE;
	for (uint32_t i = 0; (a = chp_adapter_at(i)) != NULL; i++) {
		if (printf("  %-12s %s\n", a->name, a->text) < 0)
			return CHP_EXIT_FAILURE;
	}
	return CHP_EXIT_OK;
}

static int
print_config(const struct host *h)
{
	char *text = chp_host_file_print(h->file, host_bytes(h));
	int rc = text != NULL ? printf("%s\n", text) : -1;

	free(text);
	return rc > 0 ? CHP_EXIT_OK : CHP_EXIT_FAILURE;
}

/* ------------------------------------------------------------------ running */

/* EAL is there for ports; over other channels the program needs no rights and no memory of DPDK's. */
static int
start_eal(const struct options *o, const struct chp_host_file *file, struct chp_error *error)
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
	(void)fprintf(stderr, "chaapar-host: host of node %u (%s) of cluster \"%s\" %08x, channel %s: running\n",
		      h->node->node, h->cluster->member[h->node->node].name, h->cluster->name, h->cluster->hash,
		      chp_channel_kind_name(h->file->channel.channel));
	rc = host_run(h, &stopping, error);
	text = host_status(h);
	if (text != NULL)
		(void)fprintf(stderr, "%s\n", text);
	free(text);
	return rc;
}

static int
run(const struct options *o, struct host *h, struct chp_error *error)
{
	int rc;

	(void)signal(SIGPIPE, SIG_IGN);
	h->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (h->event_fd < 0)
		return chp_error_set(error, CHP_EXIT_RESOURCE, "no file descriptors");
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
	static struct host h;
	struct chp_error error = { 0 };
	struct options options;
	char message[256];
	int rc;

	if (!options_parse(argc, argv, &options, message)) {
		(void)fprintf(stderr, "chaapar-host: %s\n", message);
		return CHP_EXIT_USAGE;
	}
	if (options.action == OPTIONS_HELP)
		return print_help();
	if (options.action == OPTIONS_VERSION)
		return printf("chaapar-host %s\n", CHP_VERSION) > 0 ? CHP_EXIT_OK : CHP_EXIT_FAILURE;
	if (read_config(&options, &cluster, &node, &file, &error) != 0)
		return fail(&error);
	h = (struct host){ .cluster = &cluster, .node = &node, .file = &file, .event_fd = -1, .status_fd = -1 };
	h.adapter = chp_adapter_find(json_string_value(json_object_get(file.store, "type")));
	if (options.action == OPTIONS_PRINT)
		return print_config(&h);
	if (options.action == OPTIONS_CHECK)
		return printf("host of node %u (%s) of cluster \"%s\", hash %08x: the files are right\n", node.node,
			      cluster.member[node.node].name, cluster.name, cluster.hash) > 0
			       ? CHP_EXIT_OK
			       : CHP_EXIT_FAILURE;
	rc = run(&options, &h, &error);
	chp_host_file_free(&file);
	return rc == 0 ? CHP_EXIT_OK : fail(&error);
}
