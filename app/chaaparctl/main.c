/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * chaaparctl - client and operator's tool of Chaapar.
 */
#include "ctl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#ifndef CHP_VERSION
#define CHP_VERSION "unknown"
#endif

static const struct option common[] = {
	{ "endpoints", required_argument, NULL, CTL_OPTION_ENDPOINTS },
	{ "cluster", required_argument, NULL, CTL_OPTION_CLUSTER },
	{ "node", required_argument, NULL, CTL_OPTION_NODE },
	{ "timeout", required_argument, NULL, CTL_OPTION_TIMEOUT },
	{ "json", no_argument, NULL, CTL_OPTION_JSON },
	{ "help", no_argument, NULL, CTL_OPTION_HELP },
	{ "version", no_argument, NULL, CTL_OPTION_VERSION },
};
#define N_COMMON (sizeof(common) / sizeof(common[0]))

static const char overview_head[] = "Usage: chaaparctl [OPTION]... COMMAND [ARGUMENT]...\n"
				    "\n"
				    "Read, write and observe a Chaapar cluster.\n"
				    "\n"
				    "Commands:\n";

static const char overview_tail[] =
	"\n"
	"Options of every command:\n"
	"  --endpoints LIST   replicas to ask first, as 10.99.0.10:7170,10.99.0.11;\n"
	"                     one is enough. Default: $CHAAPAR_ENDPOINTS\n"
	"  --cluster FILE     take them from a cluster file instead\n"
	"  --node N           talk to replica N and no other\n"
	"  --timeout MS       give up after so long (default 3000; ping, info, status and\n"
	"                     cluster-health 1000)\n"
	"  --json             print JSON\n"
	"  --help             help on the command\n"
	"  --version          print the version\n"
	"\n"
	"Exit codes: 0 ok, 1 error, 2 wrong usage, 3 not found, 4 a comparison failed,\n"
	"5 no answer in time.\n"
	"\n"
	"Try:\n"
	"  export CHAAPAR_ENDPOINTS=10.99.0.10,10.99.0.11,10.99.0.12\n"
	"  chaaparctl put greeting hello && chaaparctl get greeting\n"
	"  chaaparctl help cas\n";

static void
vreport(const struct ctl *ctl, const char *format, va_list args)
{
	fprintf(stderr, "chaaparctl%s%s: ", ctl->command != NULL ? " " : "",
		ctl->command != NULL ? ctl->command->name : "");
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
}

int
ctl_usage(const struct ctl *ctl, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vreport(ctl, format, args);
	va_end(args);
	fprintf(stderr, "Try: chaaparctl help%s%s\n", ctl->command != NULL ? " " : "",
		ctl->command != NULL ? ctl->command->name : "");
	return CTL_USAGE;
}

int
ctl_fail(const struct ctl *ctl, int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vreport(ctl, format, args);
	va_end(args);
	return code;
}

bool
ctl_number(const struct ctl *ctl, const char *what, const char *text, uint64_t min, uint64_t max,
	   uint64_t *out)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && n >= min &&
	    n <= max) {
		*out = n;
		return true;
	}
	ctl_usage(ctl, "%s: expected a number from %llu to %llu, not \"%s\"", what,
		  (unsigned long long)min, (unsigned long long)max, text);
	return false;
}

bool
ctl_fraction(const struct ctl *ctl, const char *what, const char *text, double *out)
{
	char *end;

	errno = 0;
	*out = strtod(text, &end);
	/* Written so that NaN fails too. */
	if (end != text && *end == '\0' && errno == 0 && *out >= 0 && *out < 1e9)
		return true;
	ctl_usage(ctl, "%s: expected a number that is not negative, not \"%s\"", what, text);
	return false;
}

/* ---- help ---- */

static void
print_overview(void)
{
	fputs(overview_head, stdout);
	for (const struct ctl_command *c = ctl_commands; c->name != NULL; c++)
		printf("  %-14s %s\n", c->name, c->summary);
	fputs(overview_tail, stdout);
}

static void
print_help(const struct ctl_command *c)
{
	printf("Usage: chaaparctl %s %s\n\n%s\n", c->name, c->arguments, c->help);
	fputs("Options of every command, as --endpoints and --json: chaaparctl help\n",
	      stdout);
}

static const struct ctl_command *
find(const char *name)
{
	for (const struct ctl_command *c = ctl_commands; c->name != NULL; c++) {
		if (strcmp(c->name, name) == 0)
			return c;
	}
	return NULL;
}

int
ctl_help(struct ctl *ctl, int argc, char **argv)
{
	const struct ctl_command *c;
	int o = ctl_getopt(ctl, argc, argv, NULL);

	if (o != -1)
		return o == 'h' ? CTL_OK : CTL_USAGE;
	if (optind == argc) {
		print_overview();
		return CTL_OK;
	}
	c = find(argv[optind]);
	if (c == NULL)
		return ctl_usage(ctl, "no command \"%s\"", argv[optind]);
	print_help(c);
	return CTL_OK;
}

/* ---- options ---- */

/* An option that every command has. 0: taken; else what ctl_getopt returns. */
static int
take_common(struct ctl *ctl, int option)
{
	uint64_t n;

	switch (option) {
	case CTL_OPTION_ENDPOINTS:
		ctl->endpoints = optarg;
		return 0;
	case CTL_OPTION_CLUSTER:
		ctl->cluster_file = optarg;
		return 0;
	case CTL_OPTION_NODE:
		if (!ctl_number(ctl, "--node", optarg, 0, CHAAPAR_NODES_MAX - 1, &n))
			return '?';
		ctl->node = (int)n;
		return 0;
	case CTL_OPTION_TIMEOUT:
		if (!ctl_number(ctl, "--timeout", optarg, 1, 3600 * 1000, &n))
			return '?';
		ctl->timeout_ms = (uint32_t)n;
		return 0;
	case CTL_OPTION_JSON:
		ctl->json = true;
		return 0;
	case CTL_OPTION_HELP:
		if (ctl->command != NULL)
			print_help(ctl->command);
		else
			print_overview();
		return 'h';
	case CTL_OPTION_VERSION:
		printf("chaaparctl %s\n", CHP_VERSION);
		return 'h';
	default:
		return '?';
	}
}

/* getopt_long's own message names only the program. */
static int
bad_option(const struct ctl *ctl, char **argv, int option)
{
	const char *word = optind > 0 ? argv[optind - 1] : "";

	if (option == ':')
		ctl_usage(ctl, "%s needs a value", word);
	else
		ctl_usage(ctl, "no option \"%s\"", word);
	return '?';
}

int
ctl_getopt(struct ctl *ctl, int argc, char **argv, const struct option *own)
{
	struct option all[N_COMMON + CTL_OPTIONS_OWN_MAX + 1];
	size_t n = 0;

	/* The command's own come first: cas means something else by --version. */
	for (; own != NULL && own->name != NULL && n < CTL_OPTIONS_OWN_MAX; own++)
		all[n++] = *own;
	memcpy(&all[n], common, sizeof(common));
	memset(&all[n + N_COMMON], 0, sizeof(all[0]));
	opterr = 0;
	for (;;) {
		/* Before the command's name options stop at the first argument. */
		int o = getopt_long(argc, argv, ctl->command == NULL ? "+:" : ":", all, NULL);

		if (o == -1 || o >= CTL_OPTION_OWN)
			return o;
		if (o == '?' || o == ':')
			return bad_option(ctl, argv, o);
		o = take_common(ctl, o);
		if (o != 0)
			return o;
	}
}

int
main(int argc, char **argv)
{
	struct ctl ctl = { .node = CHAAPAR_ANY_NODE };
	int o = ctl_getopt(&ctl, argc, argv, NULL), code;

	if (o != -1)
		return o == 'h' ? CTL_OK : CTL_USAGE;
	if (optind == argc) {
		fputs("chaaparctl: no command\nTry: chaaparctl help\n", stderr);
		return CTL_USAGE;
	}
	ctl.command = find(argv[optind]);
	if (ctl.command == NULL)
		return ctl_usage(&ctl, "no command \"%s\"", argv[optind]);
	argc -= optind;
	argv += optind;
	optind = 0; /* start over, with the command as the program's name */
	code = ctl.command->run(&ctl, argc, argv);
	chaapar_close(ctl.c);
	free(ctl.from_cluster);
	if (fflush(stdout) != 0 && code == CTL_OK)
		code = ctl_fail(&ctl, CTL_ERROR, "cannot write: %s", strerror(errno));
	return code;
}
