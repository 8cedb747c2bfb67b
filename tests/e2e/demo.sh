#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The demo: as a whole; interrupted at several moments, from the keyboard (the whole process group) and by
# kill; with a replica that dies; and with ZAB. Whatever happens, it leaves nothing behind. CHECK_LONG=1 takes the
# demo at its full length and more moments.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"

export TMPDIR=$work/tmp # of the demo: whatever it leaves is found there
mkdir "$TMPDIR"

# Nobody runs the demo's replicas any more, and its directory is gone.
nothing_left() {
	local line
	line=$(find "$TMPDIR" -mindepth 1 | head -n 3)
	# The brackets keep grep's own command line out.
	line+=$(grep -lzs "[/]${TMPDIR#/}/chaapar-demo" /proc/[0-9]*/cmdline)
	[ -z "$line" ] || { echo "left: $line" >&2 && return 1; }
}

# Start it in a process group of its own, with signals as from a terminal.
demo() {
	: >"$out" # the last one's lines must not be taken for this one's
	setsid env --default-signal=INT,TERM,HUP "$root/tools/demo" "$@" >"$out" 2>&1 &
	pid=$!
}

short='clean  '
long='three replicas|n1 serves|loading  |clean  |lossy  |n1 gets SIGKILL|n1 is started|n2.s cable is back'
long+='|linearizable\?'
[ -n "${CHECK_LONG:-}" ] || export DEMO_PHASE_S=3
seconds=$((2 * ${DEMO_PHASE_S:-8} + 10)) # and as long as it takes to die and come back

demo
check "the whole demo" wait "$pid" || tail -n 20 "$out" >&2
grep -q 'permission to make user namespaces' "$out" && skip "$(tail -n 1 "$out")"
check "EAL's arguments" has "$out" '--vdev net_af_(xdp|packet)0,iface=data'
check "a line a second" test "$(grep -c ' op/s .* p50 .* p99 .* retransmits ' "$out")" -ge $((seconds - 3))
for event in 'n1 gets SIGKILL' "n2's cable is pulled"; do
	check "$event" has "$out" "^  >> $event"
done
check "writes go on, always" test "$(grep -c '^  >> writes to all shards are answered [0-9]* ms later' "$out")" = 3
check "a view without n1" has "$out" '^  >> view 2: voters n0 n2 '
check "a view without n2" has "$out" '^  >> view 5: voters n0 n1 '
for node in 1 2; do
	check "n$node is a learner" has "$out" "^  >> view [36]: .*, learner n$node "
	check "with a bar" has "$out" "^     n$node copies \[#*\.*\] +[0-9]+ %"
	check "and comes back" has "$out" "^  >> n$node serves again"
done
check "the view of all" has "$out" '^  >> view 7: voters n0 n1 n2 '
check "a host is killed" has "$out" '^  >> n0: host away, [1-9][0-9]* versions wait for it'
check "and gets what it missed" has "$out" '^  >> it has what it missed, [0-9]* ms later'
check "the datastores hold everything" has "$out" '^  all the same, and of [0-9]+ keys what was acknowledged last'
check "the verdict" has "$out" '^ *verdict: linearizable; no datastore misses anything'
check "nothing left" nothing_left

# With leaders: another one leads at once, and no view changes but for the one that comes back.
DEMO_PHASE_S=2 demo zab
check "the whole demo with ZAB" wait "$pid" || tail -n 20 "$out" >&2
check "a leader is killed" has "$out" '^  >> n[0-2], the leader of shard 1, gets SIGKILL'
check "another one leads" has "$out" '^  >> shard 1: n[0-2] leads, epoch [0-9]+'
check "writes go on, always" test "$(grep -c '^  >> writes to all shards are answered [0-9]* ms later' "$out")" = 3
check "it comes back as a learner" has "$out" '^  >> view 2: .*, learner n[0-2] '
check "and is a voter again" has "$out" '^  >> view 3: voters n0 n1 n2 '
check "no other view" has_not "$out" '^  >> view 4'
check "a host is killed" has "$out" '^  >> n0: host away, [1-9][0-9]* versions wait for it'
check "and gets what it missed" has "$out" '^  >> it has what it missed, [0-9]* ms later'
check "the datastores hold everything" has "$out" '^  all the same, and of [0-9]+ keys what was acknowledged last'
check "the verdict" has "$out" '^ *verdict: linearizable; no datastore misses anything; .*, and nobody left the view$'
check "nothing left" nothing_left

# What the demo prints just before the moment at which it is interrupted.
export DEMO_PHASE_S=3
moments=$short
[ -n "${CHECK_LONG:-}" ] && moments=$long
IFS="|" read -ra moments <<<"$moments"
for moment in "${moments[@]}"; do
	for how in one group; do
		demo
		check "the demo gets to '$moment'" wait_for 120 has "$out" "$moment"
		if [ $how = one ]; then kill -TERM "$pid"; else kill -INT -- "-$pid"; fi
		wait "$pid"
		code=$?
		# At the last moment it may have been done already.
		check "interrupted at '$moment' ($how)" test "$code" = 130 -o "$moment" = 'linearizable\?'
		check "nothing left after '$moment' ($how)" nothing_left
	done
done

# A replica that dies in the middle.
demo
check "the demo gets to work" wait_for 60 has "$out" 'clean  '
replica=$(cut -d' ' -f1 "$TMPDIR"/chaapar-demo.*/cluster/n1.pid)
kill -KILL "$replica"
wait "$pid"
check "exit code 1" test $? = 1
check "it says which" has "$out" 'n1 .* killed'
check "nothing left" nothing_left

# One that leaves the view when nobody expects it.
if [ -n "${CHECK_LONG:-}" ]; then
	demo
	check "the demo gets on" wait_for 120 has "$out" 'n1 serves again'
	kill -KILL "$(cut -d' ' -f1 "$TMPDIR"/chaapar-demo.*/cluster/n1.pid)"
	wait "$pid"
	check "exit code 1" test $? = 1
	check "nothing left" nothing_left
fi
