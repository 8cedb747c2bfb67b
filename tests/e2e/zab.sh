#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# ZAB under load: who dies, is cut off or stands still leaves no view, and the others go on, with another
# leader if it led; who restarts comes back by itself in two views, as a learner and then as a voter. Without a majority
# nobody serves, and says why. No client sees an error, and all is linearizable.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=survive.inc
. "$(dirname "$0")/survive.inc"

victims="2 0" # node 0 is the one that proposes views
[ -n "${CHECK_LONG:-}" ] && victims="2 0 1 2 0 1"

# shards NODE EXPRESSION: true of s, what each shard of this replica says of itself.
shards() {
	local answer
	answer=$("${ctl[@]}" --json --node "$1" --timeout 1000 status 2>/dev/null) || return 1
	"$python" -S -c '
import json, sys
shards = json.load(sys.stdin)["nodes"][0]["shards"]
sys.exit(not shards or not all(eval(sys.argv[1]) for s in shards))' "$2" <<<"$answer"
}

# same_view EPOCH NODE...: these are still in it, and serve.
same_view() {
	local epoch=$1 node
	shift
	for node; do
		is_node "$node" "m['epoch'] == $epoch and m['serves'] and m['lives'] == 1" || return 1
	done
}

# next_load FAILURES [OPTION]...: what the clients saw of so many failures is judged; other clients go on.
parts=0
next_load() {
	local p
	end_load
	check_clients "$1"
	shift
	for p in 0 1; do
		mv "$work/load$p.history" "$work/part$parts-$p.history"
	done
	parts=$((parts + 1))
	start_load 2 "$@"
}

up --protocol zab
load_keys
start_load 2
check "every shard has a leader" wait_within 5 shards 0 "s['leader'] >= 0 and s['zab_epoch'] > 0"
check "and a rule" shards 0 "s['quorum'] == 'majority'"
check "and applies what is committed" wait_within 5 shards 0 "s['applied'] > 0 and s['role'] in ('leader', 'follower')"
check "membership gives no leases" is_node 0 "m['lease_ms'] == 0 and m['leases_given'] == 0"

# Cut off, then standing still, for longer than it takes to be suspected.
"$cluster" cut 1 >/dev/null
check "it is suspected" wait_within 10 is_node 0 "m['suspected'] == [1]"
expect 0 "a write without it" "${ctl[@]}" --timeout 5000 put probe cut
check "it says why it does not serve" wait_within 10 not same_view 1 1
"$cluster" heal >/dev/null
check "all serve, in the same view" wait_within 20 same_view 1 0 1 2
"$cluster" pause 0 >/dev/null
expect 0 "a write without the one that stands still" "${ctl[@]}" --timeout 5000 put probe pause
sleep 2
"$cluster" resume 0 >/dev/null
check "all serve, in the same view" wait_within 20 same_view 1 0 1 2

# Of three, two are cut off from each other and from the third: nobody serves, nobody leaves. The clients
# wait for longer than this test needs for that.
next_load 2 --timeout 30000
"$cluster" cut 1 >/dev/null
"$cluster" cut 2 >/dev/null
check "alone nobody serves" wait_within 10 is_node 0 "not m['serves']"
expect 5 "a write without a majority" "${ctl[@]}" --node 0 --timeout 300 put probe minority
"$cluster" heal >/dev/null
check "all serve, in the same view" wait_within 20 same_view 1 0 1 2

next_load 1
kills=0
for victim in $victims; do
	all_but "$victim"
	old=$(epoch "${others[0]}")
	kills=$((kills + 1))
	kill_one "$victim" "$kills"
	check "it is suspected" wait_within 10 is_node "${others[0]}" "m['suspected'] == [$victim]"
	for node in "${others[@]}"; do
		expect 0 "a read at replica $node" "${ctl[@]}" --node "$node" get probe
		check "the value" is_output "$kills"
		check "nobody leaves the view" is_role "$node" "$victim" voter
	done
	check "the view is the same" test "$(epoch "${others[0]}")" = "$old"
	expect 1 "health" "${ctl[@]}" cluster-health
	check "it names the dead one" has "$out" "n$victim .*no answer"

	start_one "$victim"
	check "two views later" test "$(epoch "${others[0]}")" = $((old + 2))
	check "it recovered" shards "$victim" "s['waiting'] == '' and s['applied'] > 0"
	expect 0 "a read at replica $victim" "${ctl[@]}" --node "$victim" get probe
	check "the value" is_output "$kills"
done
end_load
check_clients "$kills"
writes_within 3000
check_all
