#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# ZAB with RocksDB behind its replicas and a data set of eight times the cache: the host of a leader is killed under
# load and comes back; then every process dies at once, and the cluster begins again from what the datastores hold.
# Every answer is judged, and no acknowledged write is missing from any of the three datastores.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=survive.inc
. "$(dirname "$0")/survive.inc"

# is_role_of NODE ROLE: what it is in the one shard.
is_role_of() {
	"${ctl[@]}" --json --node "$1" --timeout 1000 status >"$work/role.json" 2>/dev/null &&
		[ "$(json "$work/role.json" "d['nodes'][0]['shards'][0]['role']")" = "$2" ]
}

keys=16384 # of one shard, whose cache has 2048

up --protocol zab --hosts rocksdb --durability datastore --shards 1 --keys-max 2048 --value-blocks 2048
load_keys
take_status
check "keys have left the caches" is_json "$work/status.json" \
	"all(n['shards'][0]['cache']['evictions'] > 1000 for n in d['nodes'])"

# Node 0 leads the first term, unless it was slow.
for leader in 0 1 2 none; do
	is_role_of "$leader" leader && break
done
check "one leads" test "$leader" != none
start_load 1
expect 0 "kill the host of the leader" "$cluster" kill-host "$leader"
check "another one leads" wait_within 20 is_role_of "$leader" follower
expect 0 "start it again" "$cluster" start-host "$leader"
check "it gets what it missed" wait_within 20 is_node "$leader" "h['state'] == 'ready'"
end_load
check_clients 1

for node in 0 1 2; do
	expect 0 "kill replica $node" "$cluster" kill "$node"
	expect 0 "kill its host" "$cluster" kill-host "$node"
done
for node in 0 1 2; do
	expect 0 "start its host" "$cluster" start-host "$node"
done
expect 0 "start them all" "$cluster" cold-start
check "a new generation" is_node 0 "m['epoch'] >> 20 == 1"
expect 0 "all keys" "${ctl[@]}" load --keys "$keys" --mix get=100 --ops "$keys" --history "$work/cold.history"
check_histories
note "$(head -n 1 "$out")"
compare_stores
