#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# STORM_S seconds of failures: one replica after the other dies, stands still or loses its network, and is
# given back, while clients run all through. Never more than a minority at a time: the next one waits until
# all are voters again. Nobody but the victim may leave the view, and one verdict covers all of it.
#
# STORM_S (30, with CHECK_LONG 600) and STORM_SEED choose how long and which failures; the seed is printed.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=survive.inc
. "$(dirname "$0")/survive.inc"

seconds=${STORM_S:-${CHECK_LONG:+600}}
seconds=${seconds:-30}
seed=${STORM_SEED:-$RANDOM$RANDOM}
RANDOM=$seed
declare -A count=([kill]=0 [stop]=0 [pause]=0 [cable]=0 [peers]=0)

# Which is gone for how long beyond being noticed. A part of the fault, nothing waits for it.
linger() { sleep "0.$((RANDOM % 10))"; }

fail_how() {
	case $1 in
	kill | stop) expect 0 "$1 $victim" "$cluster" "$1" "$victim" ;;
	pause) expect 0 "pause $victim" "$cluster" pause "$victim" ;;
	cable) expect 0 "cut $victim" "$cluster" cut "$victim" ;;
	peers) expect 0 "cut $victim off" "$cluster" cut "$victim" "${others[@]}" ;;
	esac
}

give_back() {
	case $1 in
	kill | stop) expect 0 "start $victim" "$cluster" start "$victim" --no-wait ;;
	pause) expect 0 "resume $victim" "$cluster" resume "$victim" ;;
	*) expect 0 "heal" "$cluster" heal ;;
	esac
}

up
load_keys
# A bounded history, whatever the machine can do.
start_load 3 --rate $((seconds > 120 ? 600 : 2000))
note "$seconds s, seed $seed"
end=$((SECONDS + seconds)) faults=0
kinds=(kill stop pause cable peers)
while ((SECONDS < end && failures == 0)); do
	# Each kind once before any comes again.
	((faults % 5 == 0)) && mapfile -t kinds < <(shuf --random-source=<(yes "$seed$faults") -e "${kinds[@]}")
	how=${kinds[faults % 5]} victim=$((RANDOM % 3))
	all_but "$victim"
	faults=$((faults + 1)) count[$how]=$((count[$how] + 1))
	before=$(stability "${others[@]}")
	fail_how "$how"
	check "a write after $how of replica $victim" wait_within 10 "${ctl[@]}" --timeout 1000 put probe "$faults"
	for node in "${others[@]}"; do
		check "replica $node has a view without it" wait_within 10 is_role "$node" "$victim" out
	done
	linger
	give_back "$how"
	wait_healthy
	check "nobody but replica $victim left the view" test "$(stability "${others[@]}")" = "$before"
	for node in 0 1 2; do
		expect 0 "a read at replica $node" "${ctl[@]}" --node "$node" get probe
		check "the value" is_output "$faults"
	done
done
note "$faults failures: ${count[kill]} killed, ${count[stop]} stopped, ${count[pause]} paused," \
	"${count[cable]} cables, ${count[peers]} cut off from the others"
end_load
check_clients "$faults"
writes_within 5000
check_all
