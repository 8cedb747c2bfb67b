#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A replica's cable is pulled, shorter and longer than a link lives. Nothing may be lost or applied twice,
# and when the cable is back, everything goes on.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"

up
before=$(identity 0)$(identity 1)$(identity 2)
"${ctl[@]}" --json --timeout 1500 load --preload --keys 100 --clients 6 --depth 4 --duration 16 \
	--history "$work/1.history" >"$work/1.json" 2>"$work/1.lines" &
load=$!
check "the load runs" wait_for 20 has "$work/1.lines" '^run .* 1\.[0-9] s'

# Writes that can go on: within so many seconds.
writes() { wait_for "$1" "${ctl[@]}" --node "$2" --timeout 500 put probe value; }

expect 0 "cut" "$cluster" cut 1
expect 5 "a write" "${ctl[@]}" --node 0 --timeout 300 put probe value
expect 0 "heal" "$cluster" heal
check "writes go on" writes 5 0

expect 0 "cut for longer than link_down_ms" "$cluster" cut 2
# While it waits, the link is given up; from then on there are no credits and the answer is "busy".
check "no write is acknowledged" not "${ctl[@]}" --node 0 --timeout 5000 put probe value 2>"$err"
check "whether it was sent and lost, or refused" has "$err" 'no answer|no room|before the request could be sent|unknown'
take_status 0
check "the links were reset" is_count links.resets -gt 0 0
expect 0 "heal" "$cluster" heal
for node in 0 1 2; do
	check "writes go on at replica $node" writes 5 "$node"
done

check "the load ends by itself" wait "$load"
check "it got answers" is_json "$work/1.json" 'd["answered"] > 1000'
expect 0 "all replicas serve" "$cluster" status
check "the same processes as before" test "$(identity 0)$(identity 1)$(identity 2)" = "$before"
expect 0 "more load" "${ctl[@]}" load --keys 100 --clients 6 --depth 4 --duration 1 --history "$work/2.history"
check "all of it is answered" has_not "$out" 'unsent|unknown'
check_histories
