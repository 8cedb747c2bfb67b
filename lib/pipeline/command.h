/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * command.h - the command line of the programs that start EAL: EAL's options, then "--", then ours; the cluster file
 * and the node file that it names; and what such a program says without EAL.
 *
 * Main thread.
 */
#ifndef CHP_PIPELINE_COMMAND_H
#define CHP_PIPELINE_COMMAND_H

#include "config/config.h"
#include "pipeline/error.h"

#include <stdbool.h>

enum chp_command_action {
	CHP_COMMAND_RUN,
	CHP_COMMAND_CHECK,   /* --check-config */
	CHP_COMMAND_PRINT,   /* --print-config */
	CHP_COMMAND_HELP,
	CHP_COMMAND_VERSION,
};

struct chp_command {
	enum chp_command_action action;
	const char *cluster_file;
	const char *node_file;
	const char *host_file; /* of 's' */
	bool bootstrap;        /* of 'b' */
	bool has_eal;          /* there was a "--" */
	int eal_argc;          /* argv[0] and what stands before "--" */
	char **eal_argv;
};

/**
 * Parse the command line. All programs have -c, -n, -h, -V and their long names.
 *
 * @param argv   changed: EAL's part is cut off behind its end
 * @param own    letters of what only some have: 's' is -s, --host FILE, and must be given; 'b' is -b, --bootstrap
 * @param error  one line that says what to change
 * @return       0, or -1 with *error
 */
int chp_command_parse(int argc, char **argv, const char *own, struct chp_command *out, struct chp_error *error);

/** Read the cluster file and the node file. Returns whether both are right; else *errors says what is wrong. */
bool chp_command_read(const struct chp_command *c, struct chp_cluster_config *cluster, struct chp_node_config *node,
		      struct chp_config_errors *errors);

/** Write what is wrong with files to standard error, a line each. *error is the last word only. Returns -1. */
int chp_command_wrong(const char *program, const struct chp_config_errors *errors, struct chp_error *error);

/**
 * What --version, --check-config and --print-config write.
 *
 * @param host  for --print-config: the host file as JSON, or NULL where there is none
 * @return      the exit code
 */
int chp_command_version(const char *program, const char *version);
int chp_command_checked(const struct chp_cluster_config *cluster, const struct chp_node_config *node);
int chp_command_print(const struct chp_cluster_config *cluster, const struct chp_node_config *node, const char *host);

#endif /* CHP_PIPELINE_COMMAND_H */
