#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Replicas that are stopped and started again: one after the other, as for a new version, without an error
# for anybody; too many at once, after which nobody serves, nobody makes up a state, and all say why; and
# all of them, which begins anew.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=survive.inc
. "$(dirname "$0")/survive.inc"

up
load_keys
start_load 1
for node in 0 1 2; do
	begin=$(now_ms)
	expect 0 "stop replica $node" "$cluster" stop "$node"
	check "exit code 0" test "$(<"$CHAAPAR_CLUSTER_DIR/n$node.exit")" = 0
	# Its last words.
	grep '^{.*}$' "$CHAAPAR_CLUSTER_DIR/n$node.log" >"$work/last"
	check "statistics of the node and of both shards" test "$(wc -l <"$work/last")" = 3
	head -n 1 "$work/last" >"$work/last.json"
	check "they are JSON" is_json "$work/last.json" "d['node'] == $node and d['counters']['rx_packets'] > 0"
	expect 0 "start it again" "$cluster" start "$node"
	wait_healthy
	note "replica $node stopped, started, a voter again: $(($(now_ms) - begin)) ms"
done
end_load
check_clients 3
check_all

# ---- a majority is lost

# waits NODE TEXT: neither serves nor ends, and says why.
waits() {
	check "replica $1 says why it waits" wait_within 10 \
		is_node "$1" "m['lease_ms'] == 0 and __import__('re').search('$2', m['waiting'])"
	expect 5 "a read at replica $1" "${ctl[@]}" --node "$1" --timeout 300 get k0000001
	expect 5 "a write at replica $1" "${ctl[@]}" --node "$1" --timeout 300 put probe value
}

expect 0 "put" "${ctl[@]}" put kept "by one replica"
expect 0 "kill" "$cluster" kill 0
expect 0 "kill" "$cluster" kill 1
before=$(stability 2)
waits 2 'no lease: node 0 .*not heard for'
expect 5 "health" "${ctl[@]}" cluster-health
check "down" has "$out" '^down: 0 of 3'
for node in 0 1; do
	expect 0 "start again" "$cluster" start "$node" --no-wait
done
for node in 0 1; do
	waits "$node" 'joining: node 2 .*must drop it first'
done
# They would have to agree on a view without themselves; no patience helps, nor does another start.
waits 2 'no lease: node 0 .*not heard for'
expect 0 "kill" "$cluster" kill 0
expect 0 "start again" "$cluster" start 0 --no-wait
waits 0 'joining: node 2'
check "who held the state still does" test "$(stability 2)" = "$before"
expect 5 "health" "${ctl[@]}" cluster-health

# ---- all are lost, too

expect 0 "kill" "$cluster" kill 2
waits 0 'waiting for node 2 .*not heard for|no member of the view|waiting for .*--bootstrap'
for node in 0 1; do
	expect 0 "stop" "$cluster" stop "$node"
done
expect 0 "down" "$cluster" down
up
expect 3 "nothing is left" "${ctl[@]}" get kept
