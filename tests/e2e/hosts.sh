#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A host with RocksDB behind each replica, a cache of a fifth of the data, and durability at the datastores. Under
# load a host is killed and comes back, then a replica. At last all replicas lose their memory at once: they begin again
# from what the datastores hold, and no acknowledged write is missing.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=survive.inc
. "$(dirname "$0")/survive.inc"

keys=10000

# is_host NODE EXPRESSION: true of h, what this replica says of its host.
is_host() {
	local answer
	answer=$("${ctl[@]}" --json --node "$1" --timeout 1000 status 2>/dev/null) || return 1
	"$python" -S -c '
import json, sys
h = json.load(sys.stdin)["nodes"][0]["node"]["host"]
sys.exit(not eval(sys.argv[1]))' "$2" <<<"$answer"
}

# Everything that was written is in every datastore.
all_saved() {
	local node
	for node in 0 1 2; do
		is_host "$node" "h['state'] == 'ready' and h['store'] == 'ok' and h['backlog'] == 0" || return 1
	done
}

# Each replica answers for many keys, most of which are not in its cache.
read_everywhere() {
	local node
	for node in 0 1 2; do
		expect 0 "keys at replica $node" "${ctl[@]}" --node "$node" load --keys "$keys" --mix get=100 \
			--ops $((keys * 2)) --history "$work/$1$node.history"
		check "all are answered" has_not "$out" 'answers:.* (timeout|unsent|unknown) '
	done
}

up --hosts rocksdb --durability datastore --shards 1 --keys-max 2048 --value-blocks 2000
load_keys
for node in 0 1 2; do
	check "replica $node's datastore holds all keys" wait_within 10 is_host "$node" "h['items'] >= $keys"
	check "its channel is up" is_host "$node" "h['channel']['state'] == 'up' and h['durability'] == 'datastore'"
done
start_load 1 --zipf 0.99

expect 0 "kill a host" "$cluster" kill-host 1
check "its replica sees that" wait_within 10 is_host 1 "h['state'] == 'away' and h['channel']['state'] == 'down'"
check "and says why" is_host 1 "h['text'] == 'no answer from the host'"
sleep 1 # of load without it
expect 1 "the cluster's state names it" "$cluster" status
check "it names it" has "$out" 'n1 .*its host: killed'
expect 0 "start it again" "$cluster" start-host 1
check "it gets what it missed" wait_within 20 is_host 1 "h['state'] == 'ready'"

expect 0 "kill a replica" "$cluster" kill 2
expect 0 "start it again" "$cluster" start 2
wait_healthy
end_load
# Whoever asks the replica without its host for what is not in its cache waits for the host.
read -r answers unknown errors longest < <(seen)
note "clients: $answers answers, $unknown unknown outcomes, $errors errors, longest wait $longest ms"
check "the clients got answers" test "${answers:-0}" -gt 1000
check "few waited too long" test "$errors" -le 48
check "for nothing else" has_not <(grep -ho '"by_status":{[^}]*}' "$work"/load?.json) 'busy|full|overload|serving'
check "everything is saved" wait_within 20 all_saved
read_everywhere before
take_status
check "keys left the caches" is_count evictions -gt 10000
check "and came from the datastores" is_count loads_found -gt 10000
check "nothing was refused" is_count loads_failed -eq 0

# ---- all replicas lose their memory

for node in 0 1 2; do
	expect 0 "kill" "$cluster" kill "$node"
done
expect 0 "start them all" "$cluster" cold-start
check "a new generation" is_membership 0 "m['epoch'] >> 20 == 1"
read_everywhere after
check_histories
note "$(head -n 1 "$out")"

# ---- the datastores themselves, read by a stranger's tool

check "everything is reconciled and saved" wait_within 60 all_saved
for node in 0 1 2; do
	expect 0 "stop" "$cluster" stop "$node"
	expect 0 "stop its host" "$cluster" stop-host "$node"
	ldb --db="$CHAAPAR_CLUSTER_DIR/h$node.store/rocksdb" scan 2>/dev/null | sort >"$work/dump$node"
	check "datastore $node holds the keys" test "$(grep -c '^k0' "$work/dump$node")" -ge $((keys * 9 / 10))
	check "the same as the others" cmp "$work/dump0" "$work/dump$node"
done
