#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A replica dies under load, one after the other: the rest go on within 3 seconds, in a view without it.
# Started again it comes back by itself, as a learner and then as a voter. No client sees an error.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=survive.inc
. "$(dirname "$0")/survive.inc"

victims="2 0" # node 0 is the one that proposes views
[ -n "${CHECK_LONG:-}" ] && victims="2 0 1 2 0 1"

up
load_keys
start_load 2
kills=0
for victim in $victims; do
	all_but "$victim"
	before=$(stability "${others[@]}")
	old=$(epoch "${others[0]}")
	kills=$((kills + 1))
	kill_one "$victim" "$kills"
	for node in "${others[@]}"; do
		check "replica $node has a view without it" wait_within 10 is_role "$node" "$victim" out
		expect 0 "a read at replica $node" "${ctl[@]}" --node "$node" get probe
		check "the value" is_output "$kills"
		expect 0 "a write at replica $node" "${ctl[@]}" --node "$node" put "probe$node" "$kills"
	done
	expect 1 "health" "${ctl[@]}" cluster-health
	check "it names the dead one" has "$out" "n$victim .*no answer"
	expect 5 "a read at the dead one" "${ctl[@]}" --node "$victim" --timeout 200 get probe

	start_one "$victim"
	check "and copied what is there" is_node "$victim" 'm["copy"]["done"] and m["copy"]["items"] >= 300'
	for node in 0 1 2; do
		expect 0 "a read at replica $node" "${ctl[@]}" --node "$node" get probe
		check "the value" is_output "$kills"
	done
	check "nobody else left the view" test "$(stability "${others[@]}")" = "$before"
done
end_load
check_clients "$kills"
writes_within 3000
check_all
