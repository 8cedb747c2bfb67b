#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The network breaks: a replica's cable, the way between it and the others only, one direction only. Who
# has no majority serves nothing and says why; the others go on within 3 seconds; healed, it comes back.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=survive.inc
. "$(dirname "$0")/survive.inc"

# go_on NODE: those but NODE go on, in a view without it.
go_on() {
	local node
	all_but "$1"
	check "a write without replica $1" wait_within 10 "${ctl[@]}" --timeout 1000 put probe "without $1"
	for node in "${others[@]}"; do
		check "replica $node has a view without it" wait_within 10 is_role "$node" "$1" out
		expect 0 "a read at replica $node" "${ctl[@]}" --node "$node" get probe
		check "the value" is_output "without $1"
	done
}

# come_back NODE: as another incarnation of the same process.
come_back() {
	local begin
	begin=$(now_ms)
	expect 0 "heal" "$cluster" heal
	wait_healthy
	note "$what: healthy $(($(now_ms) - begin)) ms after it was healed"
	check "the same process" test "$(identity "$1")" = "$process"
	check "reborn" is_node "$1" "m['lives'] == $((lives + 1))"
	check "it was a learner first" was_learner "${others[0]}" "$1" "$old"
	expect 0 "a read at it" "${ctl[@]}" --node "$1" get probe
	check "the value" is_output "without $1"
	check "nobody else left the view" test "$(stability "${others[@]}")" = "$before"
}

# remember NODE OTHER OTHER: what must not change.
remember() {
	process=$(identity "$1") old=$(epoch "$2")
	lives=$(stability "$1" | cut -d' ' -f2)
	before=$(stability "$2" "$3")
}

# At about the same moment: between the two it would only not hear one.
hide_both_from_0() {
	"$cluster" telemetry 1 /chaapar/cut,1 >/dev/null &
	"$cluster" telemetry 2 /chaapar/cut,1 >/dev/null && wait $!
}

up
load_keys
start_load 1

what="cable of n1 pulled"
remember 1 0 2
expect 0 "cut" "$cluster" cut 1
go_on 1
expect 5 "a read at the one that is cut off" "${ctl[@]}" --node 1 --timeout 300 get probe
expect 1 "tools/cluster status" "$cluster" status
check "says so" has "$out" 'n1 .* cut off'
expect 1 "health" "${ctl[@]}" cluster-health
check "says so" has "$out" 'degraded: 2 of 3'
check "and who" has "$out" 'n1 .*no answer; the others: heard [0-9]+ ms ago'
check "it has no lease" has <("$cluster" telemetry 1) '"lease_ns": ?0[,}]'
come_back 1

# The clients still reach it.
what="n2 cut off from the others"
remember 2 0 1
expect 0 "cut" "$cluster" cut 2 0 1
go_on 2
expect 5 "a read at a minority" "${ctl[@]}" --node 2 --timeout 500 get probe
check "it says why" has "$err" 'not serving'
expect 5 "a write at a minority" "${ctl[@]}" --node 2 --timeout 500 put probe minority
check "it says why" has "$err" 'not serving'
expect 0 "status" "${ctl[@]}" --node 2 status
check "says why" has "$out" 'no lease: node 0 .*not heard for'
expect 1 "health" "${ctl[@]}" cluster-health
check "says why" has "$out" 'n2 .*in view [0-9]+, others in [0-9]+'
come_back 2

# It is heard, but hears nobody: it cannot acknowledge a write, so the others must do without it.
what="n0 does not hear the others"
remember 0 1 2
check "cut one way" hide_both_from_0
go_on 0
expect 5 "a read at a minority" "${ctl[@]}" --node 0 --timeout 500 get probe
come_back 0

what="the others do not hear n0"
remember 0 1 2
expect 0 "cut one way" "$cluster" telemetry 0 /chaapar/cut,6
go_on 0
expect 5 "a read at a minority" "${ctl[@]}" --node 0 --timeout 500 get probe
come_back 0

end_load
check_clients 4
writes_within 3000
check_all
