#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A replica stands still for longer than the others wait for it, and wakes up with a view that is over. It
# must answer no read from it, not even those that were waiting at its port: it drops its state, becomes a
# new incarnation and comes back.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=survive.inc
. "$(dirname "$0")/survive.inc"

victims="1 0 2"
[ -n "${CHECK_LONG:-}" ] && victims="1 0 2 1 0 2 1 0 2"

up
load_keys
start_load 1

# Standing still for a moment changes nothing.
before=$(stability 0 1 2)
expect 0 "pause" "$cluster" pause 2
expect 0 "resume" "$cluster" resume 2
wait_healthy
[ "$(epoch 0)" = 1 ] || note "this machine took more than a second to resume a replica"
wakes=0 refused=0 answered=0
for victim in $victims; do
	all_but "$victim"
	before=$(stability "${others[@]}")
	old=$(epoch "${others[0]}")
	process=$(identity "$victim")
	lives=$(stability "$victim" | cut -d' ' -f2)
	wakes=$((wakes + 1))

	expect 0 "put" "${ctl[@]}" put probe "before $wakes"
	expect 0 "get" "${ctl[@]}" --node "$victim" get probe
	check "what it holds" is_output "before $wakes"
	expect 0 "pause" "$cluster" pause "$victim"
	begin=$(now_ms)
	expect 0 "a write without replica $victim" "${ctl[@]}" --timeout 5000 put probe "after $wakes"
	note "replica $victim stands still, a write answered after $(($(now_ms) - begin)) ms"
	for node in "${others[@]}"; do
		check "replica $node has a view without it" wait_within 10 is_role "$node" "$victim" out
	done
	expect 1 "tools/cluster status" "$cluster" status
	check "says that it stands still" has "$out" "n$victim .* stands still"

	# These wait at its port when it wakes up; more come while it does.
	pids=()
	for i in 0 1 2 3 4 5 6 7; do
		"${ctl[@]}" --node "$victim" --timeout $((500 + 100 * i)) get probe >"$work/get.$i" 2>/dev/null &
		pids[i]=$!
	done
	"${ctl[@]}" --json --node "$victim" --timeout 2000 load --clients 2 --depth 8 --keys "$keys" --mix get=100 \
		--duration 2 --history "$work/wake$wakes.history" >"$work/wake.json" 2>&1 &
	reader=$!
	check "requests wait at its port" wait_within 5 test -e "$work/wake$wakes.history"
	expect 0 "resume" "$cluster" resume "$victim"
	for i in 0 1 2 3 4 5 6 7; do
		if wait "${pids[i]}"; then
			answered=$((answered + 1))
			check "a read right after it woke up" test "$(<"$work/get.$i")" = "after $wakes"
		else
			refused=$((refused + 1))
		fi
	done
	wait "$reader"
	wait_healthy
	check "the same process" test "$(identity "$victim")" = "$process"
	check "reborn" is_node "$victim" "m['lives'] == $((lives + 1))"
	check "it was a learner first" was_learner "${others[0]}" "$victim" "$old"
	expect 0 "get" "${ctl[@]}" --node "$victim" get probe
	check "the new value" is_output "after $wakes"
	check "nobody else left the view" test "$(stability "${others[@]}")" = "$before"
done
note "reads at a replica that wakes up: $refused not answered in time, $answered with the new value"
end_load
check_clients "$wakes"
check_all
