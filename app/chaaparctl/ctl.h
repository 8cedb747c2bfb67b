/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ctl.h - what the commands of chaaparctl share: options, connecting, results, output.
 */
#ifndef CHAAPARCTL_CTL_H
#define CHAAPARCTL_CTL_H

#include "client/chaapar.h"

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum ctl_exit {
	CTL_OK = 0,
	CTL_ERROR = 1,
	CTL_USAGE = 2,
	CTL_NOT_FOUND = 3,
	CTL_COMPARE_FAILED = 4,
	CTL_NO_ANSWER = 5,
};

/* Values of long options; those of a command start at CTL_OPTION_OWN. */
enum ctl_option {
	CTL_OPTION_ENDPOINTS = 256,
	CTL_OPTION_CLUSTER,
	CTL_OPTION_NODE,
	CTL_OPTION_TIMEOUT,
	CTL_OPTION_JSON,
	CTL_OPTION_HELP,
	CTL_OPTION_VERSION,
	CTL_OPTION_OWN = 512,
};

#define CTL_OPTIONS_OWN_MAX 20

/* Time-outs where none is given: a request that must outlast a change of view, a look at a replica. */
#define CTL_TIMEOUT_MS 3000u
#define CTL_TIMEOUT_MS_OBSERVE 1000u

struct ctl;

struct ctl_command {
	const char *name;
	const char *arguments;
	const char *summary;
	const char *help; /* what it does, its options, examples */
	int (*run)(struct ctl *ctl, int argc, char **argv);
};

struct ctl {
	const struct ctl_command *command;
	const char *endpoints;
	const char *cluster_file;
	char *from_cluster; /* endpoints read from it */
	int node;           /* CHAAPAR_ANY_NODE: not given */
	uint32_t timeout_ms; /* 0: not given */
	bool json;
	struct chaapar *c;
};

extern const struct ctl_command ctl_commands[];

/* ---- main.c ---- */

/**
 * The next option of a command, common ones taken care of.
 *
 * @param own  the command's own long options, ended by a zeroed one; may be NULL
 * @return     val of an own option with optarg set; -1 at the end, optind at the first argument;
 *             '?' after an error that was reported: return CTL_USAGE; 'h' after help was printed:
 *             return CTL_OK
 */
int ctl_getopt(struct ctl *ctl, int argc, char **argv, const struct option *own);

/** Report wrong usage of the command. Returns CTL_USAGE. */
int ctl_usage(const struct ctl *ctl, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Report an error. Returns `code`. */
int ctl_fail(const struct ctl *ctl, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/** A whole decimal number from min to max. False and a report if it is none. */
bool ctl_number(const struct ctl *ctl, const char *what, const char *text, uint64_t min,
		uint64_t max, uint64_t *out);

/** A decimal fraction, not negative, below 1e9. False and a report if it is none. */
bool ctl_fraction(const struct ctl *ctl, const char *what, const char *text, double *out);

/* ---- connect.c ---- */

/**
 * Find out where the cluster is, from options and environment.
 *
 * @return  CTL_OK, or an exit code after a report
 */
int ctl_find_endpoints(struct ctl *ctl);

/** Report why chaapar_open failed. Returns an exit code. */
int ctl_open_failed(const struct ctl *ctl, int err);

/** Open ctl->c. Returns CTL_OK, or an exit code after a report. */
int ctl_connect(struct ctl *ctl);

/** The same with another time-out where none is given. */
int ctl_connect_within(struct ctl *ctl, uint32_t timeout_ms);

/** Name of a member; "?" if it is none. */
const char *ctl_member_name(const struct chaapar_info *info, int node);

/* ---- output.c ---- */

/** The exit code of a status. */
int ctl_exit_code(enum chaapar_status status);

/** Report a result that is not CHAAPAR_OK to people. */
void ctl_report(const struct ctl *ctl, const struct chaapar_result *r);

/** Set object.name to bytes, or object.name64 to their base64 if they are not UTF-8. */
void ctl_json_bytes(json_t *object, const char *name, const void *bytes, size_t len);

/** Print a JSON value and give it back. */
void ctl_json_print(json_t *value);

/** Base64 of bytes, malloc'd. */
char *ctl_base64(const void *bytes, size_t len);

/* ---- commands ---- */

int ctl_put(struct ctl *ctl, int argc, char **argv);
int ctl_get(struct ctl *ctl, int argc, char **argv);
int ctl_del(struct ctl *ctl, int argc, char **argv);
int ctl_cas(struct ctl *ctl, int argc, char **argv);
int ctl_incr(struct ctl *ctl, int argc, char **argv);
int ctl_quorum(struct ctl *ctl, int argc, char **argv);
int ctl_ping(struct ctl *ctl, int argc, char **argv);
int ctl_info(struct ctl *ctl, int argc, char **argv);
int ctl_status(struct ctl *ctl, int argc, char **argv);
int ctl_health(struct ctl *ctl, int argc, char **argv);
int ctl_check(struct ctl *ctl, int argc, char **argv);
int ctl_load(struct ctl *ctl, int argc, char **argv);
int ctl_help(struct ctl *ctl, int argc, char **argv);

#endif /* CHAAPARCTL_CTL_H */
