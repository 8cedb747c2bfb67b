/* SPDX-License-Identifier: BSD-3-Clause */
#include "pipeline/command.h"

#include "protocols/application.h"
#include "protocols/protocol.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ the command line */

enum {
	OPTION_CHECK = 256,
	OPTION_PRINT,
};

static const struct option long_options[] = {
	{ "cluster", required_argument, NULL, 'c' },
	{ "node", required_argument, NULL, 'n' },
	{ "host", required_argument, NULL, 's' },
	{ "bootstrap", no_argument, NULL, 'b' },
	{ "check-config", no_argument, NULL, OPTION_CHECK },
	{ "print-config", no_argument, NULL, OPTION_PRINT },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ 0 },
};

/* Of 's' and 'b' only those that the program has. */
static bool
take(int option, const char *own, struct chp_command *out)
{
	if ((option == 's' || option == 'b') && strchr(own, option) == NULL)
		return false;
	switch (option) {
	case 'c':
		out->cluster_file = optarg;
		return true;
	case 'n':
		out->node_file = optarg;
		return true;
	case 's':
		out->host_file = optarg;
		return true;
	case 'b':
		out->bootstrap = true;
		return true;
	case 'h':
		out->action = CHP_COMMAND_HELP;
		return true;
	case 'V':
		out->action = CHP_COMMAND_VERSION;
		return true;
	case OPTION_CHECK:
		out->action = CHP_COMMAND_CHECK;
		return true;
	case OPTION_PRINT:
		out->action = CHP_COMMAND_PRINT;
		return true;
	default:
		return false;
	}
}

static int
check_complete(const struct chp_command *c, const char *own, struct chp_error *error)
{
	const char *missing = c->cluster_file == NULL				    ? "-c CLUSTER.json"
			      : c->node_file == NULL				    ? "-n NODE.json"
			      : strchr(own, 's') != NULL && c->host_file == NULL ? "-s HOST.json"
										    : NULL;

	if (missing == NULL || c->action == CHP_COMMAND_HELP || c->action == CHP_COMMAND_VERSION)
		return 0;
	return chp_error_set(error, CHP_EXIT_USAGE, "%s is missing; see --help", missing);
}

int
chp_command_parse(int argc, char **argv, const char *own, struct chp_command *out, struct chp_error *error)
{
	int split = 1, option;

	*out = (struct chp_command){ .eal_argc = 1, .eal_argv = argv };
	while (split < argc && strcmp(argv[split], "--") != 0)
		split++;
	out->has_eal = split < argc;
	if (!out->has_eal)
		split = 0; /* everything is ours */
	optind = 1;
	opterr = 0;
	while ((option = getopt_long(argc - split, argv + split, "+:c:n:s:bhV", long_options, NULL)) != -1) {
		const char *what = argv[split + optind - 1];

		if (option == ':')
			return chp_error_set(error, CHP_EXIT_USAGE, "option \"%s\" needs an argument", what);
		if (!take(option, own, out))
			return chp_error_set(error, CHP_EXIT_USAGE, "unknown option \"%s\"%s", what,
					     out->has_eal ? "; see --help"
							  : ": EAL's options come first, then --, then ours; see "
							    "--help");
	}
	if (optind < argc - split)
		return chp_error_set(error, CHP_EXIT_USAGE, "unexpected argument \"%s\"; see --help",
				     argv[split + optind]);
	optind = opterr = 1; /* EAL parses with getopt too, and its messages name the option */
	if (out->has_eal) {
		out->eal_argc = split;
		argv[split] = NULL;
	}
	return check_complete(out, own, error);
}

/* ------------------------------------------------------------------ the files */

bool
chp_command_read(const struct chp_command *c, struct chp_cluster_config *cluster, struct chp_node_config *node,
		 struct chp_config_errors *errors)
{
	size_t len = 0;
	bool ok;
	char *text = chp_config_read_file(c->cluster_file, &len, errors);

	ok = text != NULL && chp_cluster_config_parse(text, len, c->cluster_file, chp_protocol_names(),
						      chp_application_names(), cluster, errors);
	free(text);
	if (!ok)
		return false;
	text = chp_config_read_file(c->node_file, &len, errors);
	ok = text != NULL && chp_node_config_parse(text, len, c->node_file, cluster, node, errors);
	free(text);
	return ok;
}

int
chp_command_wrong(const char *program, const struct chp_config_errors *errors, struct chp_error *error)
{
	const uint32_t shown = errors->n < CHP_CONFIG_ERRORS_MAX ? errors->n : CHP_CONFIG_ERRORS_MAX;

	for (uint32_t i = 0; i < shown; i++)
		(void)fprintf(stderr, "%s: %s\n", program, errors->text[i]);
	return chp_error_set(error, CHP_EXIT_USAGE, "%u error%s in the configuration", errors->n,
			     errors->n == 1 ? "" : "s");
}

/* ------------------------------------------------------------------ what is said */

/* Nothing is said by halves: a disk that is full is an error. */
static int
said(int written)
{
	return written > 0 && fflush(stdout) == 0 ? CHP_EXIT_OK : CHP_EXIT_FAILURE;
}

int
chp_command_version(const char *program, const char *version)
{
	return said(printf("%s %s\n", program, version));
}

int
chp_command_checked(const struct chp_cluster_config *cluster, const struct chp_node_config *node)
{
	return said(printf("node %u (%s) of cluster \"%s\", hash %08x: the files are right\n", node->node,
			   cluster->member[node->node].name, cluster->name, cluster->hash));
}

int
chp_command_print(const struct chp_cluster_config *cluster, const struct chp_node_config *node, const char *host)
{
	char *c = chp_cluster_config_print(cluster), *n = chp_node_config_print(node, cluster);
	int written = -1;

	if (c != NULL && n != NULL)
		written = printf("{\"cluster\": %s,\n\"node\": %s%s%s}\n", c, n, host != NULL ? ",\n\"host\": " : "",
				 host != NULL ? host : "");
	free(c);
	free(n);
	return said(written);
}
