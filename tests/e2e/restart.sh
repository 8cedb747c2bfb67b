#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Replicas that stop, die and come back: an orderly stop says what was counted; a dead replica stops
# writes, because this version cannot change the view, but not reads, and crashes nobody; and who comes
# back without memory is refused.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"

up
for i in 1 2 3; do
	expect 0 "put" "${ctl[@]}" put "quiet$i" "$i"
done

"${ctl[@]}" --json --timeout 500 load --preload --keys 300 --clients 6 --depth 4 --duration 6 \
	--history "$work/1.history" >"$work/1.json" 2>"$work/1.lines" &
load=$!
check "the load runs" wait_for 20 has "$work/1.lines" '^run .* 1\.[0-9] s'
others=$(identity 0)$(identity 1)
expect 0 "kill" "$cluster" kill 2
expect 1 "status" "$cluster" status
check "it says who is dead" has "$out" 'n2 .* killed'

# Keys that nobody was writing at that moment are read as before.
for node in 0 1; do
	for i in 1 2 3; do
		expect 0 "a read at replica $node" "${ctl[@]}" --node "$node" get "quiet$i"
		check "the value" is_output "$i"
	done
	expect 0 "ping replica $node" "${ctl[@]}" --node "$node" ping
	check "no write at replica $node" not "${ctl[@]}" --node "$node" --timeout 300 put new value 2>"$err"
	check "no answer, or no credits" has "$err" 'no answer|no room|not applied'
done
expect 5 "a read at the dead one" "${ctl[@]}" --node 2 --timeout 300 get quiet1
check "the load ends by itself" wait "$load"
check "it saw time-outs" is_json "$work/1.json" 'd["timeouts"] > 0 and d["answered"] > 100'
check "the others live" test "$(identity 0)$(identity 1)" = "$others"

# Its memory is gone: the others know that it is another process and say so.
expect 1 "start again" "$cluster" start 2
check "exit code 4" has "$err" 'exit code 4: refused by the cluster'
check "one line says why" has "$err" 'refused us: .* restart'
expect 1 "and again" "$cluster" start 2
check "exit code 4 again" has "$err" 'exit code 4'
for node in 0 1; do
	expect 0 "a read at replica $node" "${ctl[@]}" --node "$node" get quiet2
done
check "the others live" test "$(identity 0)$(identity 1)" = "$others"
check_histories

# An orderly stop, in the middle of work.
"${ctl[@]}" --timeout 300 load --keys 300 --clients 2 --mix get=100 --duration 2 >"$work/2.lines" 2>&1 &
load=$!
check "the load runs" wait_for 20 has "$work/2.lines" '^run '
expect 0 "stop" "$cluster" stop 0
check "exit code 0" test "$(<"$CHAAPAR_CLUSTER_DIR/n0.exit")" = 0
grep '^{.*}$' "$CHAAPAR_CLUSTER_DIR/n0.log" >"$work/last"
check "statistics of the node and of both shards" test "$(wc -l <"$work/last")" = 3
head -n 1 "$work/last" >"$work/last.json"
check "they are JSON" is_json "$work/last.json" 'd["node"] == 0 and d["counters"]["rx_packets"] > 0'
wait "$load"
check "the last one lives" test "$("${ctl[@]}" --node 1 get quiet3)" = 3
expect 0 "stop the last" "$cluster" stop 1
