/* SPDX-License-Identifier: BSD-3-Clause */
#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

const char options_help[] =
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
	"      --check-config   check both files and stop; needs no EAL options\n"
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

enum {
	OPTION_CHECK = 256,
	OPTION_PRINT,
};

static const struct option long_options[] = {
	{ "cluster", required_argument, NULL, 'c' },
	{ "node", required_argument, NULL, 'n' },
	{ "bootstrap", no_argument, NULL, 'b' },
	{ "check-config", no_argument, NULL, OPTION_CHECK },
	{ "print-config", no_argument, NULL, OPTION_PRINT },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ 0 },
};

static bool
take(int option, struct options *out)
{
	switch (option) {
	case 'c':
		out->cluster_file = optarg;
		return true;
	case 'n':
		out->node_file = optarg;
		return true;
	case 'b':
		out->bootstrap = true;
		return true;
	case 'h':
		out->action = OPTIONS_HELP;
		return true;
	case 'V':
		out->action = OPTIONS_VERSION;
		return true;
	case OPTION_CHECK:
		out->action = OPTIONS_CHECK;
		return true;
	case OPTION_PRINT:
		out->action = OPTIONS_PRINT;
		return true;
	default:
		return false;
	}
}

bool
options_parse(int argc, char **argv, struct options *out, char error[256])
{
	int split = 1, option;
	bool has_eal;

	*out = (struct options){ .eal_argc = 1, .eal_argv = argv };
	while (split < argc && strcmp(argv[split], "--") != 0)
		split++;
	has_eal = split < argc;
	if (!has_eal)
		split = 0; /* everything is ours */
	optind = 1;
	opterr = 0;
	while ((option = getopt_long(argc - split, argv + split, "+:c:n:bhV", long_options, NULL)) != -1) {
		const char *what = argv[split + optind - 1];

		if (option == ':') {
			(void)snprintf(error, 256, "option \"%s\" needs an argument", what);
			return false;
		}
		if (!take(option, out)) {
			(void)snprintf(error, 256, "unknown option \"%s\"%s", what,
				       has_eal ? "; see --help"
					       : ": EAL's options come first, then --, then ours; see "
						 "--help");
			return false;
		}
	}
	if (optind < argc - split) {
		(void)snprintf(error, 256, "unexpected argument \"%s\"; see --help", argv[split + optind]);
		return false;
	}
	optind = opterr = 1; /* EAL parses with getopt too, and its messages name the option */
	if (has_eal) {
		out->eal_argc = split;
		argv[split] = NULL;
	}
	if (out->action == OPTIONS_HELP || out->action == OPTIONS_VERSION)
		return true;
	if (out->cluster_file == NULL || out->node_file == NULL) {
		(void)snprintf(error, 256, "%s is missing; see --help",
			       out->cluster_file == NULL ? "-c CLUSTER.json" : "-n NODE.json");
		return false;
	}
	return true;
}
