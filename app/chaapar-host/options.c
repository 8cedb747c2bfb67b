/* SPDX-License-Identifier: BSD-3-Clause */
#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

const char options_help[] =
	"chaapar-host - the datastore interface: keeps what a replica on its DPU cannot, in a datastore on its host\n"
	"\n"
	"  chaapar-host [EAL options] -- -c CLUSTER.json -n NODE.json -s HOST.json\n"
	"  chaapar-host -c CLUSTER.json -n NODE.json -s HOST.json --check-config | --print-config\n"
	"\n"
	"  -c, --cluster FILE   the cluster file, the same as the replica's (docs/config.md)\n"
	"  -n, --node FILE      the node file, the same as the replica's\n"
	"  -s, --host FILE      the host file: channel and datastore (docs/config.md, docs/datastores.md)\n"
	"      --check-config   check the files and stop; needs no EAL options, looks at no datastore\n"
	"      --print-config   the effective host file with defaults and memory, as JSON\n"
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

enum {
	OPTION_CHECK = 256,
	OPTION_PRINT,
};

static const struct option long_options[] = {
	{ "cluster", required_argument, NULL, 'c' },
	{ "node", required_argument, NULL, 'n' },
	{ "host", required_argument, NULL, 's' },
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
	case 's':
		out->host_file = optarg;
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

static bool
is_complete(const struct options *o, char error[256])
{
	const char *missing = o->cluster_file == NULL ? "-c CLUSTER.json"
			      : o->node_file == NULL  ? "-n NODE.json"
			      : o->host_file == NULL  ? "-s HOST.json"
						      : NULL;

	if (missing == NULL || o->action == OPTIONS_HELP || o->action == OPTIONS_VERSION)
		return true;
	(void)snprintf(error, 256, "%s is missing; see --help", missing);
	return false;
}

bool
options_parse(int argc, char **argv, struct options *out, char error[256])
{
	int split = 1, option;

	*out = (struct options){ .eal_argc = 1, .eal_argv = argv };
	while (split < argc && strcmp(argv[split], "--") != 0)
		split++;
	out->has_eal = split < argc;
	if (!out->has_eal)
		split = 0; /* everything is ours */
	optind = 1;
	opterr = 0;
	while ((option = getopt_long(argc - split, argv + split, "+:c:n:s:hV", long_options, NULL)) != -1) {
		const char *what = argv[split + optind - 1];

		if (option == ':') {
			(void)snprintf(error, 256, "option \"%s\" needs an argument", what);
			return false;
		}
		if (!take(option, out)) {
			(void)snprintf(error, 256, "unknown option \"%s\"%s", what,
				       out->has_eal ? "; see --help"
						    : ": EAL's options come first, then --, then ours; see --help");
			return false;
		}
	}
	if (optind < argc - split) {
		(void)snprintf(error, 256, "unexpected argument \"%s\"; see --help", argv[split + optind]);
		return false;
	}
	optind = opterr = 1; /* EAL parses with getopt too, and its messages name the option */
	if (out->has_eal) {
		out->eal_argc = split;
		argv[split] = NULL;
	}
	return is_complete(out, error);
}
