/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The commands and what their help says.
 */
#include "ctl.h"

#define VALUE_HELP                                                              \
	"VALUE is an argument, or standard input when it is \"-\" or missing. Input\n" \
	"is taken byte by byte, line feeds included.\n"

static const char put_help[] =
	"Write a value, whether the key exists or not. Prints the new version.\n"
	VALUE_HELP
	"\n"
	"Examples:\n"
	"  chaaparctl put greeting hello\n"
	"  chaaparctl put config - < config.json\n"
	"  chaaparctl put -- -key -5          after \"--\" nothing is an option\n";

static const char add_help[] =
	"Write a value if the key does not exist; exit code 4 if it does.\n"
	VALUE_HELP
	"\n"
	"Example:\n"
	"  chaaparctl add lock/backup \"$(hostname)\" && run-backup\n";

static const char replace_help[] =
	"Write a value if the key exists; exit code 3 if it does not.\n"
	VALUE_HELP
	"\n"
	"Example:\n"
	"  chaaparctl replace greeting hi\n";

static const char append_help[] =
	"Add bytes to the end of the value of a key that exists.\n"
	VALUE_HELP
	"\n"
	"Example:\n"
	"  date | chaaparctl append visits\n";

static const char prepend_help[] =
	"Add bytes to the front of the value of a key that exists.\n"
	VALUE_HELP
	"\n"
	"Example:\n"
	"  chaaparctl prepend queue first,\n";

static const char get_help[] =
	"Print the value of a key, byte by byte. A line feed follows only on a\n"
	"terminal, or with --newline. Exit code 3 if the key does not exist.\n"
	"\n"
	"  --newline  end the output with a line feed\n"
	"  --relaxed  take what one replica has, at once, however old: no leader, lease or\n"
	"             other replica is asked; --json then has \"relaxed\": true\n"
	"  --json     {\"key\",\"value\",\"version\",\"node\",...}; value64, in base64,\n"
	"             instead of value if it is not UTF-8\n"
	"\n"
	"Examples:\n"
	"  chaaparctl get greeting\n"
	"  chaaparctl get image > image.png\n"
	"  chaaparctl --node 2 get greeting   ask replica 2: as new as from any other\n"
	"  chaaparctl --node 2 get --relaxed greeting   what replica 2 has now\n"
	"  version=$(chaaparctl get --json greeting | jq .version)\n";

static const char del_help[] =
	"Delete a key; exit code 3 if it does not exist.\n"
	"\n"
	"Example:\n"
	"  chaaparctl del greeting\n";

static const char cas_help[] =
	"Compare and set: write VALUE only if nobody changed the key meanwhile; exit\n"
	"code 4 if somebody did, 3 if the key does not exist.\n"
	VALUE_HELP
	"\n"
	"  --version V   the key must still have version V, as get --json shows it\n"
	"  --expect OLD  the key must have the value OLD: reads it and compares its version\n"
	"\n"
	"Examples:\n"
	"  chaaparctl cas --expect green light red\n"
	"  chaaparctl cas --version 131072 light red\n";

static const char incr_help[] =
	"Add N (default 1) to a value that is a decimal number from 0 to 2^64 - 1, and\n"
	"print the result. It wraps around at 2^64. The key must exist.\n"
	"\n"
	"Examples:\n"
	"  chaaparctl add visits 0; chaaparctl incr visits\n"
	"  chaaparctl incr visits 10\n";

static const char decr_help[] =
	"Take N (default 1) from a value that is a decimal number, and print the\n"
	"result. It stops at 0. The key must exist.\n"
	"\n"
	"Example:\n"
	"  chaaparctl decr tickets 2\n";

static const char quorum_help[] =
	"How many replicas must have a write before it is acknowledged: print the rule of\n"
	"each shard, or set it. The change is an entry of the shard's log, so that every\n"
	"write that is acknowledged after it is by the new rule. Only protocols with a\n"
	"leader (zab) have the choice; elections always take a majority.\n"
	"\n"
	"  majority   more than half of the configured voters\n"
	"  all        every configured voter: one that is dead stops all writes, until it\n"
	"             is back or the rule is changed\n"
	"  --shard N  of this shard only\n"
	"  --json     {\"shards\":[{\"shard\",\"status\",\"quorum\",\"node\"},...]}\n"
	"\n"
	"Exit code 0 if every shard answered, 5 if one did not in time, 1 otherwise. After 5\n"
	"the rule may have been set or not: ask, or set it again.\n"
	"\n"
	"Examples:\n"
	"  chaaparctl quorum\n"
	"  chaaparctl quorum all && chaaparctl put precious data\n"
	"  chaaparctl quorum majority --shard 1\n";

static const char ping_help[] =
	"Measure the round trip to every shard of every replica, or of one with --node.\n"
	"Exit code 5 if any never answered.\n"
	"\n"
	"  --count N     so many rounds (default 1)\n"
	"  --interval S  seconds between them (default 1)\n"
	"\n"
	"Examples:\n"
	"  chaaparctl ping\n"
	"  chaaparctl ping --count 10 --interval 0.1 --node 0\n";

static const char info_help[] = "Print the cluster's shape: name, shards, ports, limits, members.\n"
				"\n"
				"Example:\n"
				"  chaaparctl info --json | jq .members\n";

static const char status_help[] =
	"Print the state and counters of every replica, or of one with --node: a column\n"
	"for each shard: role, leader, what is committed, why it waits. Counters that are 0\n"
	"everywhere are left out.\n"
	"docs/troubleshooting.md explains them.\n"
	"\n"
	"With --watch: members, their roles, leases and suspicions, how far learners have\n"
	"copied, the last views, the leaders of shards; drawn again and again on a terminal, a block each time\n"
	"elsewhere. Ctrl-C ends it.\n"
	"\n"
	"  --all         print zeros too\n"
	"  --watch       members and views instead of counters\n"
	"  --interval S  seconds between two looks (default 1)\n"
	"  --count N     so many looks (default: no end)\n"
	"  --json        {\"nodes\":[{\"node\":{...},\"shards\":[{...},...]},...]}; with --watch\n"
	"                an object a line, {\"epoch\",\"nodes\":[{\"membership\":{...},...},...]}\n"
	"\n"
	"Examples:\n"
	"  chaaparctl status\n"
	"  chaaparctl status --watch --interval 0.2\n"
	"  chaaparctl status --node 1 --json | jq '.nodes[0].shards[].protocol.writes'\n";

static const char health_help[] =
	"Ask every member, say in a word how the cluster is and why.\n"
	"\n"
	"  healthy   every configured member is a voter of one view and serves\n"
	"  degraded  it serves, but not everywhere\n"
	"  down      it does not serve, or no majority of the view's voters answered\n"
	"\n"
	"Exit code 0 if it is healthy, 1 if degraded, 5 if down.\n"
	"\n"
	"  --json  {\"health\",\"epoch\",\"configured\",\"answered\",\"voters\",\"serving\",\n"
	"          \"members\":[{\"node\",\"name\",\"serves\",\"why\",...},...]}\n"
	"\n"
	"Examples:\n"
	"  chaaparctl cluster-health || echo 'look at the cluster'\n"
	"  until chaaparctl cluster-health; do sleep 1; done\n";

static const char check_help[] =
	"Judge a recorded history: could one copy of the data, serving one request at a\n"
	"time, have given all these answers? Several files are judged as one history.\n"
	"\"-\" is standard input. Exit code 0 if it is linearizable, 1 if it is not, or\n"
	"if that was too hard to decide.\n"
	"\n"
	"  --states N  work for one key at most, in states of the search\n"
	"\n"
	"Example:\n"
	"  chaaparctl load --duration 5 --history h.jsonl && chaaparctl check h.jsonl\n";

static const char load_help[] =
	"Generate load: clients that keep requests in flight, and measure. Ends early,\n"
	"but properly, on Ctrl-C.\n"
	"\n"
	"  --clients C          handles, spread over the replicas (default 1)\n"
	"  --depth D            requests in flight per client (default 16)\n"
	"  --duration S         run for so many seconds (default 10)\n"
	"  --ops N              or until N operations were issued; 0: only --preload\n"
	"  --keys N             keys (default 1000), and a tenth as many for numbers\n"
	"  --key-prefix P       keys are P and seven digits (default k)\n"
	"  --value-bytes B      bytes of a value, 21 to 1024 (default 32), all unique\n"
	"  --preload            first put every key once\n"
	"  --mix OP=WEIGHT,...  get put cas incr decr delete add replace append prepend;\n"
	"                       default get=70,put=20,cas=4,incr=3,delete=1,add=1,append=1\n"
	"  --relaxed P          P of 100 gets may be old (default 0); they are not recorded\n"
	"  --zipf THETA         prefer some keys, as 0.99; 0: all alike (default)\n"
	"  --history FILE       record every request and answer, for \"chaaparctl check\"\n"
	"  --timeline FILE      per 10 ms: milliseconds, answers, writes, longest wait in us\n"
	"  --rate N             at most so many operations a second\n"
	"  --report-interval S  seconds between live lines (default 1); 0: none\n"
	"\n"
	"Examples:\n"
	"  chaaparctl load --preload --keys 100000 --clients 6 --duration 20 --history h.jsonl\n"
	"  chaaparctl load --mix put=100 --value-bytes 512 --zipf 0.99 --json\n";

static const char help_help[] = "Print help on a command.\n"
				"\n"
				"Example:\n"
				"  chaaparctl help cas\n";

const struct ctl_command ctl_commands[] = {
	{ "put", "KEY [VALUE|-]", "write a value", put_help, ctl_put },
	{ "get", "KEY [--relaxed]", "read a value", get_help, ctl_get },
	{ "del", "KEY", "delete a key", del_help, ctl_del },
	{ "cas", "KEY [VALUE|-] --version V | --expect OLD", "write if nobody else did meanwhile",
	  cas_help, ctl_cas },
	{ "add", "KEY [VALUE|-]", "write if the key is absent", add_help, ctl_put },
	{ "replace", "KEY [VALUE|-]", "write if the key is present", replace_help, ctl_put },
	{ "append", "KEY [VALUE|-]", "add to the end of a value", append_help, ctl_put },
	{ "prepend", "KEY [VALUE|-]", "add to the front of a value", prepend_help, ctl_put },
	{ "incr", "KEY [N]", "add to a number", incr_help, ctl_incr },
	{ "decr", "KEY [N]", "take from a number", decr_help, ctl_incr },
	{ "quorum", "[majority|all] [--shard N]", "how many replicas a write waits for", quorum_help,
	  ctl_quorum },
	{ "ping", "[--count N] [--interval S]", "round trips to all replicas", ping_help,
	  ctl_ping },
	{ "info", "", "the cluster's shape", info_help, ctl_info },
	{ "status", "[--all] | --watch [--interval S] [--count N]",
	  "state and counters of the replicas", status_help, ctl_status },
	{ "cluster-health", "", "how the cluster is, for scripts", health_help, ctl_health },
	{ "load", "[OPTION]...", "generate load, measure, record", load_help, ctl_load },
	{ "check", "FILE...", "judge a recorded history", check_help, ctl_check },
	{ "help", "[COMMAND]", "help on a command", help_help, ctl_help },
	{ NULL, NULL, NULL, NULL, NULL },
};
