#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The leaders of ZAB: they are spread over the replicas; one is killed under load and no client waits much
# longer than an election; restarted without its memory it recovers before it has a voice; a follower is cut off and
# comes back without any change of view; the quorum rule changes at run time; reads at followers, strong and relaxed.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=survive.inc
. "$(dirname "$0")/survive.inc"

shards=3
election_ms=500 # what a node file has that does not say
# Silence is noticed after up to 1.25 election time-outs; messages, and a machine that has other things to do.
gap_ms=$((election_ms * 5 / 4 + 900))

# leaders: the node that leads each shard, as all that answer agree; fails while a shard has none.
leaders() {
	"${ctl[@]}" --json --timeout 500 cluster-health 2>/dev/null | "$python" -S -c '
import json, sys
shards = json.load(sys.stdin)["shards"]
print(*(s["leader"] for s in shards))
sys.exit(len(shards) != int(sys.argv[1]) or any(s["leader"] < 0 for s in shards))' "$shards"
}

# Leads nothing: the node that a test can cut off without an election.
idle_node() {
	local node
	for node in 0 1 2; do
		[[ " $(leaders) " == *" $node "* ]] || echo "$node"
	done
}

# key_of SHARD: a key that belongs there, as the replicas say.
key_of() { cat "$work/key$1"; }

word() { cut -d' ' -f$(($1 + 1)) <<<"$2"; }

# Which shard a key belongs to is seen in the shards' logs: the one that grows has it.
find_keys() {
	local i shard before after
	for ((i = 0; i < 40; i++)); do
		before=$(committed)
		"${ctl[@]}" put "probe$i" 0 >/dev/null
		after=$(committed)
		for ((shard = 0; shard < shards; shard++)); do
			[ "$(word $shard "$before")" = "$(word $shard "$after")" ] ||
				echo "probe$i" >"$work/key$shard"
		done
		[ "$(find "$work" -name 'key?' | wc -l)" = "$shards" ] && return
	done
	return 1
}

committed() {
	"${ctl[@]}" --json cluster-health | json /dev/stdin '" ".join(str(s["committed"]) for s in d["shards"])'
}

# Shards' epochs and the view: what an election or a change of view would change.
epochs() {
	"${ctl[@]}" --json cluster-health |
		json /dev/stdin 'd["epoch"], [(s["leader"], s["epoch"]) for s in d["shards"]]'
}

rule_is() {
	"${ctl[@]}" --timeout 1000 quorum >"$work/rules" && [ "$(grep -c ": $1," "$work/rules")" = "$shards" ]
}

up --protocol zab --shards $shards

# ---- three shards, three leaders
expect 0 "info" "${ctl[@]}" --json info
check "the protocol" is_json "$out" 'd["protocol"] == "zab"'
check "each replica leads a shard" test "$(leaders | tr ' ' '\n' | sort | paste -sd' ')" = "0 1 2"
expect 0 "health" "${ctl[@]}" cluster-health
check "it names leader and rule" has "$out" \
	'^  shard 2: leader n[0-2] .*, epoch [0-9]+, [0-9]+ committed, quorum majority$'
expect 0 "status --watch" "${ctl[@]}" status --watch --count 1
check "a line for each shard" has "$out" '^2 +n[0-2] +[0-9]+ +[0-9]+ +majority .*follower.*'

# ---- reads: strong at every replica, and relaxed, which are marked
for ((i = 0; i < 6; i++)); do
	expect 0 "write" "${ctl[@]}" --node $((i % 3)) put turn $i
	for node in 0 1 2; do
		expect 0 "read at replica $node" "${ctl[@]}" --json --node "$node" get turn
		check "the newest, from there, unmarked" is_json "$out" \
			"d['value'] == '$i' and d['node'] == $node and 'relaxed' not in d" || break
	done
done
expect 0 "a relaxed read" "${ctl[@]}" --json --node 1 get --relaxed turn
check "marked" is_json "$out" "d['relaxed'] and d['node'] == 1"

# ---- a leader dies under load
load_keys
start_load 2 --relaxed 10
read -r victim _ < <(leaders)
all_but "$victim"
before=$(stability "${others[@]}")
expect 0 "kill" "$cluster" kill "$victim"
check "all shards have leaders" wait_within 10 leaders
expect 1 "health" "${ctl[@]}" cluster-health
check "it says who is missing" has "$out" "n$victim .*no answer"
check "and is led by another" has_not "$out" "leader n$victim "
sleep 1 # of the load without it: nothing depends on how long

# ---- it comes back, with nothing in its memory
"${ctl[@]}" status --watch --interval 0.02 --count 400 >"$work/watched" 2>/dev/null &
watch=$!
begin=$(now_ms)
expect 0 "start again" "$cluster" start "$victim"
note "replica $victim started again, serves after $(($(now_ms) - begin)) ms"
wait_healthy
child=$(pgrep -P "$watch") && kill -INT "$child"
wait "$watch"
check "status said that it recovers" has "$work/watched" "n$victim recovering( -[0-9]+)? \(lost its memory: "
check "its first view had it as a learner" has "$work/watched" "voters n${others[0]} n${others[1]}, learners n$victim "
expect 0 "status" "${ctl[@]}" --json --node "$victim" status
check "it follows" is_json "$out" \
	'all(s["role"] in ("follower", "leader") and s["waiting"] == "" for s in d["nodes"][0]["shards"])'
check "and recovered every shard" is_json "$out" 'all(s["zab"]["recoveries"] == 1 for s in d["nodes"][0]["shards"])'
check "nobody else left the view" test "$(stability "${others[@]}")" = "$before"

# ---- a follower of all shards is cut off: no election, no view
follower=$(idle_node | head -n 1)
check "a replica that leads nothing" test -n "$follower"
before=$(epochs)
expect 0 "cut" "$cluster" cut "$follower"
expect 5 "a strong read at it" "${ctl[@]}" --node "$follower" --timeout 300 get turn
sleep 2 # beyond its election time-out, and the suspicion time of views
expect 0 "heal" "$cluster" heal
wait_healthy
end_load
check_clients 1
read -r _ _ _ longest < <(seen)
check "no client waited much longer than an election, $gap_ms ms" test "$longest" -le "$gap_ms"
check "the view and all leaders are the same" test "$(epochs)" = "$before" || epochs >&2
expect 0 "a read at it" "${ctl[@]}" --node "$follower" get turn
check "the value" is_output 5

# ---- the quorum rule
check "a key of each shard" find_keys
expect 0 "quorum" "${ctl[@]}" quorum
check "majority at first" rule_is majority
expect 0 "quorum of one shard" "${ctl[@]}" --json quorum all --shard 1
check "that one" is_json "$out" 'd["shards"][0]["shard"] == 1 and d["shards"][0]["quorum"] == "all"'
expect 0 "quorum all" "${ctl[@]}" quorum all
check "of all" rule_is all
expect 0 "a write" "${ctl[@]}" put "$(key_of 0)" 1
expect 0 "cut" "$cluster" cut "$follower"
for ((shard = 0; shard < shards; shard++)); do
	"${ctl[@]}" --timeout 20000 put "$(key_of $shard)" 2 >"$work/waits$shard" 2>&1 &
	waits[shard]=$!
done
expect 5 "no write without a voter" "${ctl[@]}" --timeout 500 put "$(key_of 0)" 9
check "they all wait" test ! -s "$work/waits0" -a ! -s "$work/waits1" -a ! -s "$work/waits2"
expect 0 "quorum majority" "${ctl[@]}" quorum majority
check "of all" rule_is majority
for ((shard = 0; shard < shards; shard++)); do
	check "what waited is committed" wait "${waits[shard]}" || cat "$work/waits$shard" >&2
	expect 0 "a write without a voter" "${ctl[@]}" put "$(key_of $shard)" 3
done
expect 0 "heal" "$cluster" heal
wait_healthy
expect 0 "a read at the one that was cut off" "${ctl[@]}" --node "$follower" get "$(key_of 2)"
check "the value" is_output 3

check_all
