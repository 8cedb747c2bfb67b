#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Every command and exit code of chaaparctl, and the tools around it, against real replicas.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"

up

key250=$(printf 'k%.0s' $(seq 250))
value1024=$(printf 'v%.0s' $(seq 1024))

# ---- put, get, del
expect 0 "put" "${ctl[@]}" put greeting hello
check "put prints the version" has "$out" '^ok version [0-9]+$'
for node in 0 1 2; do
	expect 0 "get at replica $node" "${ctl[@]}" --node "$node" get greeting
	check "what was put at replica $node" is_output hello
done
expect 0 "get --newline" "${ctl[@]}" get --newline greeting
check "one line" test "$(wc -l <"$out")" = 1
expect 3 "get of nothing" "${ctl[@]}" get nothing
check "it says so" has "$err" 'does not exist'
expect 3 "del of nothing" "${ctl[@]}" del nothing
expect 0 "del" "${ctl[@]}" del greeting
expect 3 "get of what was deleted" "${ctl[@]}" --node 2 get greeting
expect 0 "put over a tombstone" "${ctl[@]}" put greeting again
expect 0 "get of it" "${ctl[@]}" --node 1 get greeting
check "the new value" is_output again

# ---- values: standard input, limits, bytes that are no text
expect 0 "a value from standard input" bash -c 'printf "from\nstdin" | "$@"' - "${ctl[@]}" put stdin -
expect 0 "get of it" "${ctl[@]}" get stdin
check "byte by byte" is_output $'from\nstdin'
expect 0 "an empty value" "${ctl[@]}" put empty ''
expect 0 "get of it" "${ctl[@]}" get empty
check "nothing" is_output ''
expect 0 "bytes that are no text" bash -c 'printf "\\377\\000\\001" | "$@"' - "${ctl[@]}" put bytes
expect 0 "get of them" "${ctl[@]}" get bytes
check "all three" test "$(od -An -tx1 "$out" | tr -d ' ')" = ff0001
expect 0 "get of them as JSON" "${ctl[@]}" --json get bytes
check "base64" is_json "$out" 'd["value64"] == "/wAB" and "value" not in d'
expect 0 "the longest key and value" "${ctl[@]}" put "$key250" "$value1024"
expect 0 "get of it" "${ctl[@]}" --node 2 get "$key250"
check "all of it" is_output "$value1024"
expect 1 "a value that is too large" "${ctl[@]}" put big "${value1024}x"
check "it says so" has "$err" 'large|long'
expect 1 "append beyond the maximum" "${ctl[@]}" append "$key250" x
expect 1 "a key that is too long" "${ctl[@]}" put "${key250}k" x
expect 1 "an empty key" "${ctl[@]}" put '' x
expect 3 "nothing was written" "${ctl[@]}" get big

# ---- comparisons, other writes
expect 0 "put" "${ctl[@]}" put c one
expect 0 "cas --expect" "${ctl[@]}" cas --expect one c two
expect 4 "cas --expect with another value" "${ctl[@]}" cas --expect one c three
expect 0 "get --json" "${ctl[@]}" --json get c
version=$(json "$out" 'd["version"]')
check "value and node" is_json "$out" 'd["value"] == "two" and d["node"] in (0, 1, 2)'
expect 0 "cas --version" "${ctl[@]}" cas --version "$version" c three
expect 4 "cas with the version of before" "${ctl[@]}" --node 1 cas --version "$version" c four
expect 3 "cas on a missing key" "${ctl[@]}" cas --version 1 missing x
expect 0 "add" "${ctl[@]}" add a 1
expect 4 "add to what is there" "${ctl[@]}" add a 2
expect 0 "replace" "${ctl[@]}" replace a 7
expect 3 "replace of nothing" "${ctl[@]}" replace missing 7
expect 0 "incr" "${ctl[@]}" incr a 5
check "12" is_output 12
expect 0 "decr" "${ctl[@]}" --node 2 decr a 2
check "10" is_output 10
expect 0 "append" "${ctl[@]}" append a 1
expect 0 "prepend" "${ctl[@]}" --node 1 prepend a 2
expect 0 "get of it" "${ctl[@]}" get a
check "2101" is_output 2101
expect 1 "incr of no number" "${ctl[@]}" incr c
expect 3 "incr of nothing" "${ctl[@]}" incr missing

expect 0 "get --relaxed" "${ctl[@]}" --node 1 get --relaxed c
check "what is there" is_output three
expect 3 "get --relaxed of nothing" "${ctl[@]}" get --relaxed missing
expect 1 "quorum" "${ctl[@]}" quorum
check "this protocol has no choice" has "$err" 'shard 1: hermes has no choice'

# ---- ping, info, status
expect 0 "ping" "${ctl[@]}" --json ping
check "three replicas, two shards each" is_json "$out" \
	'len(d["pings"]) == 6 and all(p["answered"] == 1 for p in d["pings"])'
expect 0 "ping one replica, twice" "${ctl[@]}" --node 1 ping --count 2 --interval 0.1
check "only that one" has_not "$out" 'n[02]'
expect 0 "info" "${ctl[@]}" --json info
check "what it says" is_json "$out" \
	'(d["shards"] == 2 and d["protocol"] == "hermes" and d["epoch"] == 1 and
	[m["name"] for m in d["members"]] == ["n0", "n1", "n2"])'
expect 0 "status" "${ctl[@]}" status
check "for people" has "$out" '^== n2 '
check "roles of two shards" has "$out" '^  role +coordinator +coordinator$'
expect 0 "status --json" "${ctl[@]}" --json status
check "of three nodes, two shards each" is_json "$out" \
	'len(d["nodes"]) == 3 and all(len(n["shards"]) == 2 for n in d["nodes"])'
check "nobody dropped anything" is_json "$out" \
	'all(v == 0 for n in d["nodes"] for k, v in n["node"]["counters"].items()
	     if k.startswith("drop_")
	     and k not in ("drop_ip_protocol", "drop_tx_neighbour", "drop_ipv6", "drop_ether_type"))'

# ---- the cluster's health, and watching it
expect 0 "cluster-health" "${ctl[@]}" cluster-health
check "it says so" has "$out" '^healthy: 3 of 3 members serve, view 1 with 3 voters$'
expect 0 "cluster-health --json" "${ctl[@]}" --json cluster-health
check "of three" is_json "$out" 'd["health"] == "healthy" and d["serving"] == 3 and len(d["members"]) == 3'
check "voters with leases" is_json "$out" 'all(m["serves"] and m["role"] == "voter" and m["epoch"] == 1
	and m["lease_ms"] > 0 and m["why"] == "" for m in d["members"])'
expect 0 "status --watch" "${ctl[@]}" status --watch --count 2 --interval 0.1
check "two blocks" test "$(grep -c '^NODE' "$out")" = 2
check "a line for each member" test "$(grep -Ec '^[012] +n[012] .* voter +1 +[0-9]+ ms .* serves' "$out")" = 6
check "the view's history" has "$out" '^ +1 .* ago +voters n0 n1 n2'
check "nothing is drawn over where no terminal is" has_not "$out" $'\033'
expect 0 "status --watch on a terminal" \
	script -qec "'$cluster' exec chaaparctl status --watch --count 2 --interval 0.1" /dev/null
check "it is" has "$out" $'\033\\[H'
expect 0 "status --watch --json" "${ctl[@]}" --json status --watch --count 2 --interval 0.1
check "an object a line" test "$(wc -l <"$out")" = 2
head -n 1 "$out" >"$work/watch"
check "with what the members say" is_json "$work/watch" \
	'd["epoch"] == 1 and all(n["membership"]["role"] == "voter" for n in d["nodes"])'

# ---- load, check
expect 0 "load" "${ctl[@]}" load --preload --keys 200 --clients 3 --ops 3000 --history "$work/load.history"
check "a summary" has "$out" '^ *[0-9]+ operations in '
expect 0 "load with reads that may be old" "${ctl[@]}" --json load --keys 200 --ops 500 --mix get=1 \
	--relaxed 100 --history "$work/relaxed.history"
check "which are not recorded" test ! -s "$work/relaxed.history"
expect 0 "check" "${ctl[@]}" check "$work/load.history"
check "the verdict" has "$out" '^linearizable: '
# One answer becomes a value that nobody wrote.
"$python" -S - "$work/load.history" "$work/wrong" <<'PYTHON'
import json, sys
lines = open(sys.argv[1]).read().splitlines()
for i, line in enumerate(lines):
    d = json.loads(line)
    if d["type"] == "ok" and d["op"] == "get" and d.get("value"):
        d["value"] = "nobody wrote this"
        lines[i] = json.dumps(d)
        break
else:
    sys.exit("no get in the history")
open(sys.argv[2], "w").write("\n".join(lines) + "\n")
PYTHON
expect 1 "check of a false history" "${ctl[@]}" --json check "$work/wrong"
check "the verdict" is_json "$out" 'd["verdict"] == "violation"'
expect 1 "check of what is no history" "${ctl[@]}" check "$root/Makefile"
check "it names the line" has "$err" ':? *(line )?1'

# ---- wrong usage, help
expect 2 "no command" "${ctl[@]}"
expect 2 "an unknown command" "${ctl[@]}" frobnicate
expect 2 "an unknown option" "${ctl[@]}" get --frobnicate x
expect 2 "no key" "${ctl[@]}" get
expect 2 "two keys" "${ctl[@]}" get a b
expect 2 "a node that is no number" "${ctl[@]}" --node x get a
expect 2 "a node that is no member" "${ctl[@]}" --node 7 get a
expect 2 "cas without anything to compare" "${ctl[@]}" cas c x
expect 2 "a rule that is none" "${ctl[@]}" quorum most
expect 2 "a shard that is none" "${ctl[@]}" quorum all --shard 2
expect 2 "more than all" "${ctl[@]}" load --relaxed 101
expect 2 "--interval without --watch" "${ctl[@]}" status --interval 1
expect 2 "--all with --watch" "${ctl[@]}" status --watch --all
expect 2 "no time at all" "${ctl[@]}" status --watch --interval x
expect 2 "health of one replica" "${ctl[@]}" --node 1 cluster-health
expect 2 "health of something" "${ctl[@]}" cluster-health now
expect 2 "no endpoints" env -u CHAAPAR_ENDPOINTS "$build/chaaparctl" get a
expect 0 "help" "$build/chaaparctl" help
for command in put get del cas add replace append prepend incr decr quorum ping info status cluster-health \
	load check; do
	expect 0 "help $command" "$build/chaaparctl" help "$command"
	check "it shows how" has "$out" "^Usage: chaaparctl $command"
done
expect 0 "version" "$build/chaaparctl" --version
expect 0 "a cluster file instead of endpoints" "$cluster" exec env -u CHAAPAR_ENDPOINTS \
	chaaparctl --cluster "$CHAAPAR_CLUSTER_DIR/cluster.json" get a

# ---- nobody there
expect 5 "no answer" "$cluster" exec chaaparctl --endpoints 10.99.0.77 --timeout 200 get a
expect 5 "no answer from that one" "$cluster" exec chaaparctl --endpoints 10.99.0.77:7170 --timeout 200 ping

# ---- a member dies and comes back; then most of them are gone
health_is() { # CODE PATTERN
	"${ctl[@]}" cluster-health >"$work/health" 2>&1
	[ $? = "$1" ] && has "$work/health" "$2"
}
expect 0 "kill" "$cluster" kill 2
expect 1 "cluster-health without one" "${ctl[@]}" cluster-health
check "it says who" has "$out" '^  n2 .*no answer'
expect 0 "a write until the view changes" "${ctl[@]}" --timeout 20000 put survived yes
expect 0 "a read of it at its replica" "${ctl[@]}" --node 1 --timeout 5000 get survived
check "it is there" is_output yes
check "the view changes" wait_for 20 health_is 1 '2 of 3 members serve, view 2 with 2 voters'
expect 0 "status --watch" "${ctl[@]}" status --watch --count 1
check "it is out" has "$out" '^2 +n2 .* out .*no answer'
check "the views" has "$out" '^  2 .*voters n0 n1  \('
expect 0 "start" "$cluster" start 2
check "all are well" wait_for 20 health_is 0 'healthy: 3 of 3'
expect 0 "a read at the new one" "${ctl[@]}" --node 2 --timeout 5000 get survived
check "it has the copy" is_output yes
expect 0 "stop" "$cluster" stop 1
check "the view changes" wait_for 20 health_is 1 '2 of 3 members serve, view [0-9]+ with 2 voters'
expect 0 "kill" "$cluster" kill 2
check "a minority does not serve" wait_for 20 health_is 5 '^down: 0 of 3'
check "it says why" has "$work/health" '^  n0 .*no lease'
expect 5 "a write to a minority" "${ctl[@]}" --timeout 500 put lonely yes
expect 5 "a read from a minority" "${ctl[@]}" --node 0 --timeout 500 get survived
check "it says why" has "$err" 'not serving'
expect 0 "stop" "$cluster" stop 0
expect 5 "get when all are down" "${ctl[@]}" --timeout 300 get a
expect 5 "put when all are down" "${ctl[@]}" --timeout 300 put a b
expect 5 "ping when all are down" "${ctl[@]}" --timeout 300 ping
expect 5 "cluster-health when all are down" "${ctl[@]}" --timeout 300 --json cluster-health
check "JSON all the same" is_json "$out" 'd["health"] == "down"'

# ---- the tool for local clusters itself
expect 1 "a second cluster in the same place" "$cluster" up
expect 1 "status says that nobody serves" "$cluster" status
expect 2 "a replica that does not exist" "$cluster" kill 3
expect 2 "an unknown command" "$cluster" frobnicate
expect 2 "percentages of more than 100" "$cluster" impair 101 0 0
expect 0 "down" "$cluster" down
expect 0 "down again" "$cluster" down
expect 1 "status of nothing" "$cluster" status
check "no state is left" test ! -e "$CHAAPAR_CLUSTER_DIR"
