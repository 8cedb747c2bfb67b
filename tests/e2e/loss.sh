#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Real processes under loss, duplication and reordering in all directions, with every stage on an lcore of
# its own: every answer must be linearizable, and afterwards all replicas hold the same.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"

up --lcores 4 --shards 2
before=$(identity 0) && before+=$(identity 1) && before+=$(identity 2)

expect 0 "loading" "${ctl[@]}" load --preload --keys 500 --ops 0 --clients 3 --history "$work/0.history"
expect 0 "impair" "$cluster" impair 5 3 15 2
expect 0 "status" "$cluster" status
check "status shows it" has "$out" 'loses 5 %, doubles 3 %, delays 15 % by 2 ms'

# Few keys, so that writers meet; values of every size, so that packets of messages are of every length.
for p in 1 2 3; do
	"${ctl[@]}" --json load --keys $((p * p * 20)) --clients 3 --depth 8 --value-bytes $((32 + 450 * (p - 1))) \
		--duration 8 --zipf 0.9 --history "$work/$p.history" >"$work/$p.json" 2>"$work/$p.err" &
	pids[p]=$!
done
for p in 1 2 3; do
	check "client process $p ends well" wait "${pids[p]}" || tail -n 3 "$work/$p.err" >&2
	check "it got answers" is_json "$work/$p.json" 'd["answered"] > 500 and d["retransmits"] > 0'
	# 1 s is many times what a lost packet or two cost.
	check "almost no time-outs" is_json "$work/$p.json" 'd["timeouts"] * 1000 <= d["answered"]'
done
expect 0 "heal" "$cluster" heal
expect 0 "all replicas serve" "$cluster" status
check "the same processes as before" test "$(identity 0)$(identity 1)$(identity 2)" = "$before"

take_status
for node in 0 1 2; do
	check "replica $node lost packets" is_count impair_dropped -gt 100 "$node"
	check "and sent some twice" is_count impair_duplicated -gt 50 "$node"
	check "and delayed some" is_count impair_delayed -gt 100 "$node"
	check "its links sent again" is_count links.retransmits -gt 10 "$node"
	check "and saw some twice" is_count links.duplicates -gt 10 "$node"
	check "and out of order" is_count links.reordered -gt 10 "$node"
done
check "no link was reset" is_count links.resets -eq 0
check "no message was malformed" is_count links.bad_message -eq 0
for counter in drop_crc drop_message drop_short drop_long drop_peer_ring drop_tx_port drop_no_mbuf \
	drop_udp_checksum drop_ip_checksum; do
	check "no $counter" is_count "$counter" -eq 0
done
check_histories

# Nothing is in flight any more: all replicas must answer the same, version and all.
for key in $(seq -f 'k%07g' 0 5); do
	answers=$(for node in 0 1 2; do
		"${ctl[@]}" --json --node "$node" get "$key" | sed 's/,"node":[0-9],"retries":[0-9]*//'
	done | sort -u)
	check "replicas agree on $key" test "$(wc -l <<<"$answers")" = 1 || echo "$answers" >&2
done
