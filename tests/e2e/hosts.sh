#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A host with RocksDB behind each replica, and a cache of a fifth of the data. At both levels of durability a host
# is killed under load and comes back; at level datastore then a replica, and at last all replicas lose their memory
# at once: they begin again from what the datastores hold. After each part no acknowledged write is missing from any
# of the three datastores.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=survive.inc
. "$(dirname "$0")/survive.inc"

keys=10000

# Each replica answers for many keys, most of which are not in its cache.
read_everywhere() {
	local node
	for node in 0 1 2; do
		expect 0 "keys at replica $node" "${ctl[@]}" --node "$node" load --keys "$keys" --mix get=100 \
			--ops $((keys * 2)) --history "$work/$1$node.history"
		check "all are answered" has_not "$out" 'answers:.* (timeout|unsent|unknown) '
	done
}

# lose_host [COMMAND...]: replica 1 loses its host under load, for a second and some.
lose_host() {
	expect 0 "kill a host" "$cluster" kill-host 1
	check "its replica sees that" wait_within 10 \
		is_node 1 "h['state'] == 'away' and h['channel']['state'] == 'down'"
	check "and says why" is_node 1 "h['text'] == 'no answer from the host'"
	sleep 1 # of load without it
	"$@"
	expect 1 "the cluster's state names it" "$cluster" status
	check "it names it" has "$out" 'n1 .*its host: killed'
	expect 0 "start it again" "$cluster" start-host 1
	check "it gets what it missed" wait_within 20 is_node 1 "h['state'] == 'ready'"
	wait_healthy # on a busy machine it was away for so long that it left: then the next loss would be one too many
}

# It had room for all that was written meanwhile. Else writes stand still for up to a fifth of the grace, 2 s, on a busy
# machine for longer than clients wait. (docs/durability.md, "Room while a host is away")
had_room() {
	take_status 1
	check "replica 1 has room" is_json "$work/status.json" "d['nodes'][0]['shards'][0]['cache']['pinned'] < 2000"
}
slowly=(--zipf 0.99 --rate 1000) # so that some seconds of writes fit into the cache

up --hosts rocksdb --shards 1 --keys-max 2048 --value-blocks 2000

# ---- durability "memory"

load_keys
for node in 0 1 2; do
	check "replica $node's datastore gets all keys" wait_within 10 is_node "$node" "h['items'] >= $keys"
	check "its channel is up" is_node "$node" "h['channel']['state'] == 'up' and h['durability'] == 'memory'"
done
start_load 1 "${slowly[@]}"
lose_host had_room
end_load
check_clients 0
writes_within 2500
mv "$work/load0.history" "$work/room.history"
start_load 1 --zipf 0.99 --timeout 20000 # without room
lose_host
end_load
check_clients 0
writes_within 10000 # the whole grace
compare_stores
mv "$work/load0.history" "$work/memory.history"

# ---- durability "datastore"; the stores are the same

sed -i 's/"durability": "memory"/"durability": "datastore"/' "$CHAAPAR_CLUSTER_DIR/cluster.json"
expect 0 "start them all" "$cluster" cold-start
check "a new generation" is_node 0 "m['epoch'] >> 20 == 1"
check "the other level" is_node 0 "h['durability'] == 'datastore'"
# Until then what only one of the datastores may have is asked of all of them, and that of a lost host is waited for.
check "all is reconciled" wait_within 20 is_node 0 "m['epoch'] & 0xfffff >= 2"
start_load 1 "${slowly[@]}"
lose_host had_room
expect 0 "kill a replica" "$cluster" kill 2
expect 0 "start it again" "$cluster" start 2
wait_healthy
end_load
check_clients 1
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
check "a new generation" is_node 0 "m['epoch'] >> 20 == 2"
read_everywhere after
check_histories
note "$(head -n 1 "$out")"
compare_stores
