# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# What the end-to-end tests share. Each is a program of its own: exit code 0 passed, 1 failed, 77 skipped.
# Each has its own cluster (tools/cluster), namespaces included, so any number may run at once; whatever
# happens, nothing is left when it ends. A test goes on after a failed check and says how many failed.
set -u

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
build=${CHAAPAR_BUILD:-$root/build}
cluster=$root/tools/cluster
python=/usr/bin/python3 # Debian's, whatever else is in PATH
name=$(basename "$0" .sh)
work=$(mktemp -d "${TMPDIR:-/tmp}/chaapar-e2e-$name.XXXXXX") || exit 1
chmod 755 "$work"
export CHAAPAR_CLUSTER_DIR=$work/cluster
out=$work/out err=$work/err # of the last command that was checked
checks=0 failures=0
servers=() # pids of servers that a test starts beside the cluster: they end with it, if they live

# Last words of replicas and hosts, when something failed.
show_logs() {
	local log
	for log in "$CHAAPAR_CLUSTER_DIR"/[nh]?.log; do
		[ -e "$log" ] && grep -Ev '^(lib|\{|vhost_|virtio_|VHOST_)' "$log" | tail -n 15 | cut -c 1-300 |
			sed "s|^|  $(basename "$log" .log): |"
	done
}

finish() {
	local code=$?
	trap '' INT TERM HUP
	((failures > 0 && code != 77)) && code=1
	[ "$code" = 0 ] || [ "$code" = 77 ] || show_logs >&2
	[ ${#servers[@]} = 0 ] || kill -KILL "${servers[@]}" 2>/dev/null
	"$cluster" down >"$work/down.log" 2>&1 || { cat "$work/down.log" >&2 && code=1; }
	wait
	rm -rf "$work"
	[ "$code" = 77 ] || echo "$name: $checks checks, $failures failed"
	exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

# Nothing below makes sense any more.
die() {
	echo "$name: $*" >&2
	failures=$((failures + 1))
	exit 1
}

skip() {
	echo "$name: skipped: $*"
	exit 77
}

# check WHAT COMMAND...: the command must succeed.
check() {
	local what=$1
	shift
	checks=$((checks + 1))
	"$@" && return
	failures=$((failures + 1))
	echo "$name: FAILED: $what ($*)" >&2
	return 1
}

# expect CODE WHAT COMMAND...: the command must end with this exit code; $out and $err keep its output.
expect() {
	local want=$1 what=$2 code
	shift 2
	checks=$((checks + 1))
	timeout --foreground -k 5 60 "$@" >"$out" 2>"$err"
	code=$?
	[ "$code" = "$want" ] && return
	failures=$((failures + 1))
	echo "$name: FAILED: $what: exit code $code, not $want: ${*:0:12}" >&2
	head -n 5 "$out" "$err" | cut -c 1-300 >&2
	return 1
}

# has FILE TEXT: for check; an extended regular expression.
has() { grep -Eq -- "$2" "$1" || { head -n 5 "$1" | cut -c 1-300 >&2 && return 1; }; }
has_not() { ! grep -Eq -- "$2" "$1"; }

# The output of the last command, without its line feed, must be this text.
is_output() { [ "$(cat "$out")" = "$1" ] || { head -c 300 "$out" && return 1; }; }

# For check: the command must fail.
not() { ! "$@"; }

# wait_for SECONDS COMMAND...: until it succeeds.
wait_for() {
	local tries=$(($1 * 10))
	shift
	until "$@" >/dev/null 2>&1; do
		((tries-- > 0)) || return 1
		sleep 0.1
	done
}

# A cluster, or skip the test where none can be made.
up() {
	"$cluster" up "$@" >"$work/up.log" 2>&1 && return
	grep -q 'permission to make user namespaces' "$work/up.log" && skip "$(tail -n 1 "$work/up.log")"
	cat "$work/up.log" >&2
	die "the cluster does not start"
}

# The client's program, where the clients are; as a command of its own for `expect`.
ctl=("$cluster" exec chaaparctl)

# The start time and pid of a replica: the same process lives as long as this does not change.
identity() { cat "$CHAAPAR_CLUSTER_DIR/n$1.pid"; }

# Ask all replicas, or those in $1, what they counted: what is_count looks at afterwards.
take_status() {
	expect 0 "status" "${ctl[@]}" --json ${1:+--node "$1"} status && cp "$out" "$work/status.json"
}

# is_count NAME OPERATOR NUMBER [NODE]: the counter's sum over nodes, shards and links, or those of one
# node. NAME is as in status (drop_crc), of links with a dot (links.resets); operators are those of test.
is_count() {
	local n
	n=$("$python" -S - "$work/status.json" "$1" "${4:-}" <<-'PYTHON'
		import json, sys
		path, node = sys.argv[2].split("."), sys.argv[3]

		def total(d):
		    n = 0
		    for key, value in d.items():
		        if isinstance(value, list):
		            n += sum(total(x) for x in value if isinstance(x, dict))
		        elif isinstance(value, dict) and path[0] == key:
		            n += sum(link[path[1]] for link in value.values())
		        elif isinstance(value, dict):
		            n += total(value)
		        elif path == [key]:
		            n += value
		    return n

		with open(sys.argv[1]) as f:
		    nodes = json.load(f)["nodes"]
		print(sum(total(x) for x in nodes if node == "" or x["node"]["node"] == int(node)))
	PYTHON
	) || return 1
	test "$n" "$2" "$3" || { echo "$name: $1 is $n" >&2 && return 1; }
}

# json FILE EXPRESSION: evaluate it with d = what the file holds.
json() { "$python" -S -c 'import json, sys; d = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$1" "$2"; }

# is_json FILE EXPRESSION: it must be true.
is_json() { [ "$(json "$1" "$2")" = True ] || { cut -c 1-300 "$1" >&2 && return 1; }; }

# is_node NODE EXPRESSION: true of n, what this replica says of itself; m is its membership, h its host if it has one.
is_node() {
	local answer
	answer=$("${ctl[@]}" --json --node "$1" --timeout 1000 status 2>/dev/null) || return 1
	"$python" -S -c '
import json, re, sys
n = json.load(sys.stdin)["nodes"][0]["node"]
m, h = n["membership"], n.get("host")
sys.exit(not eval(sys.argv[1]))' "$2" <<<"$answer"
}

# Everything that was written is in every datastore.
all_saved() {
	local node
	for node in $(cut -c 2 "$CHAAPAR_CLUSTER_DIR/replicas"); do
		is_node "$node" "h['state'] == 'ready' and h['store'] == 'ok' and h['backlog'] == 0" || return 1
	done
}

# wait_all [SECONDS]: until every replica is a voter that may serve; at most 55, as expect waits for 60.
wait_all() { expect 0 "all replicas serve" "$cluster" wait "${1:-50}"; }

# The view and process of each replica, as one text: unchanged as long as nobody left, died or was reborn.
stability() {
	local i
	for i; do
		"${ctl[@]}" --json --node "$i" status | "$python" -S -c '
import json, sys
m = json.load(sys.stdin)["nodes"][0]["node"]["membership"]
print(m["incarnation"], m["lives"], m["state"], m["role"])'
	done
}

# The histories so far must be linearizable, as one.
check_histories() {
	check "the history is linearizable" "$build/chaaparctl" check "$work"/*.history >"$out" || cat "$out" >&2
}
