/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * options.h - the command line: EAL's options, then "--", then ours.
 */
#ifndef CHAAPAR_HOST_OPTIONS_H
#define CHAAPAR_HOST_OPTIONS_H

#include <stdbool.h>

enum options_action {
	OPTIONS_RUN,
	OPTIONS_CHECK, /* --check-config */
	OPTIONS_PRINT, /* --print-config */
	OPTIONS_HELP,
	OPTIONS_VERSION,
};

struct options {
	enum options_action action;
	const char *cluster_file;
	const char *node_file;
	const char *host_file;
	bool has_eal;    /* there was a "--" */
	int eal_argc;    /* argv[0] and what stands before "--" */
	char **eal_argv;
};

/**
 * Parse the command line.
 *
 * @param argv   changed: EAL's part is cut off behind its end
 * @param error  one line that says what to change
 * @return       whether it is right
 */
bool options_parse(int argc, char **argv, struct options *out, char error[256]);

extern const char options_help[];

#endif /* CHAAPAR_HOST_OPTIONS_H */
