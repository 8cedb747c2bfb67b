#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A replica comes back to a cluster that holds a lot and goes on writing: as a learner, with a bar that
# grows. While it copies it dies again; then the one dies that it copies from. It ends as a voter that
# holds what the others hold, by itself, and no client notices.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=survive.inc
. "$(dirname "$0")/survive.inc"

keys=20000
learner=3

# Not done, but begun.
is_copying() {
	is_node "$learner" 'm["role"] == "learner" and 1 <= m["copy"]["items"] <= 12000'
}

# Start it, and wait until it copies.
begin_copy() {
	expect 0 "start it" "$cluster" start "$learner" --no-wait
	check "slow networks" wait_within 10 "$cluster" impair 0 0 100 10
	check "it copies" wait_within 30 is_copying || "${ctl[@]}" status --watch --count 1 >&2
}

up --replicas 4
load_keys
start_load 1 --rate 2000
before=$(stability 0 1 2)
old=$(epoch 0)
expect 0 "kill" "$cluster" kill "$learner"
check "a view without it" wait_within 10 is_role 0 "$learner" out

# In small pieces and over a slow network, so that there is time for what follows.
sed -i 's/"idle"/"copy_chunk_bytes": 2048, "idle"/' "$CHAAPAR_CLUSTER_DIR/n$learner.json"
begin_copy
expect 0 "status --watch" "${ctl[@]}" status --watch --count 1
check "shows how far it is" has "$out" "n$learner .* learner .* \[#*\.+\] +[0-9.]+ % +[0-9]+ items.* from node [012]"
expect 1 "health" "${ctl[@]}" cluster-health
expect 5 "a read at the learner" "${ctl[@]}" --node "$learner" --timeout 300 get k0000001
expect 5 "a write at the learner" "${ctl[@]}" --node "$learner" --timeout 300 put probe learner
expect 0 "a write elsewhere" "${ctl[@]}" --node 1 put probe 1

# Again from the beginning.
expect 0 "kill it while it copies" "$cluster" kill "$learner"
check "a view without it" wait_within 10 is_role 0 "$learner" out
begin_copy
check "nobody else left the view" test "$(stability 0 1 2)" = "$before"

# From somebody else.
source=$("${ctl[@]}" --json --node "$learner" status | sed -n 's/.*"source":\([012]\).*/\1/p')
all_but "${source:=0}"
before=$(stability "${others[@]}")
expect 0 "kill replica $source, its source" "$cluster" kill "$source"
begin=$(now_ms)
check "a view without it" wait_within 10 is_role "${others[0]}" "$source" out
expect 0 "the network is fast again" "$cluster" heal
expect 0 "a write" "${ctl[@]}" --timeout 3000 put probe 2
check "the copy comes to its end" wait_within 60 is_role "${others[0]}" "$learner" voter
note "voter $(($(now_ms) - begin)) ms after its source died"
check "from another source" is_node "$learner" \
	"m['copy']['done'] and m['copy']['source'] in (${others[0]}, ${others[1]})"
check "which it asked from the beginning" is_node "$learner" "m['copy']['restarts'] >= 1"
check "it was a learner first" was_learner "${others[0]}" "$learner" "$old"
expect 0 "a read at it" "${ctl[@]}" --node "$learner" get probe
check "the value" is_output 2

begin=$(now_ms)
expect 0 "start its source again" "$cluster" start "$source"
wait_healthy
note "$keys keys copied and serving $(($(now_ms) - begin)) ms after the start"
check "nobody else left the view" test "$(stability "${others[@]}")" = "$before"
end_load
check_clients 3
check_all
