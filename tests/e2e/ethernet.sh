#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Replicas over raw Ethernet, clients over UDP: under load, under loss, through a death and a return, nothing
# but ARP and frames of our own passes between replicas. Then one of them changes over to UDP while all serve.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=survive.inc
. "$(dirname "$0")/survive.inc"

replicas='(10.99.0.10 or 10.99.0.11 or 10.99.0.12)'

# record N: what passes the cable of replica N in a second, under load.
record() {
	local pid
	"$cluster" capture "$1" -q -n -s 64 -w "$work/n$1.pcap" 2>"$work/capture.log" &
	pid=$!
	wait_within 20 grep -q 'listening on' "$work/capture.log" || cat "$work/capture.log" >&2
	sleep 1
	kill -TERM $pid
	wait $pid
}

# recorded N FILTER: how many frames of that match.
recorded() { tcpdump -n -r "$work/n$1.pcap" "$2" 2>/dev/null | wc -l; }

mac_of() { "${ctl[@]}" --json --node "$1" status | sed -n 's/.*"name":"n'"$1"'"[^}]*"mac":"\([0-9a-f:]*\)".*/\1/p'; }

# is_direct: what every replica counted of its peers came without IPv4.
is_direct() {
	take_status
	check "frames of peers" is_count rx_direct -gt 1000
	check "none of them over UDP" is_count rx_mixed -eq 0
}

up --lcores 4 --peers ethernet
for node in 0 1 2; do
	expect 0 "status of replica $node" "${ctl[@]}" --json --node $node status
	check "says so" is_json "$out" 'd["nodes"][0]["node"]["peers"] == "ethernet"'
done
load_keys
start_load 1 --rate 3000 # a machine that is busy with itself would only test its scheduler
for node in 0 1 2; do
	record $node
	check "frames of our own at $node" test "$(recorded $node 'ether proto 0x88b5')" -gt 100
	check "and those of clients over UDP" test "$(recorded $node 'udp and host 10.99.0.1')" -gt 100
	check "no IPv4 between replicas" test "$(recorded $node "ip and src host $replicas and dst host $replicas")" = 0
done
is_direct

# Loss, in both directions of everything.
expect 0 "impair" "$cluster" impair 3 2 10 2
sleep 4
expect 0 "heal" "$cluster" heal
take_status
check "packets were lost" is_count impair_dropped -gt 100
check "and sent again" is_count links.retransmits -gt 10
check "and repaired: no link was reset" is_count links.resets -eq 0
for counter in drop_crc drop_message drop_short drop_long drop_node drop_direct_length drop_tx_port; do
	check "no $counter" is_count "$counter" -eq 0
done

# Death and return.
victim=2
before=$(stability 0 1)
old=$(epoch 0)
expect 0 "kill" "$cluster" kill $victim
begin=$(now_ms)
expect 0 "a write after replica $victim died" "${ctl[@]}" --timeout 3000 put probe 1
note "replica $victim killed, a write answered after $(($(now_ms) - begin)) ms"
check "a view without it" wait_within 10 is_role 0 $victim out
begin=$(now_ms)
expect 0 "start again" "$cluster" start $victim
note "started again, serves after $(($(now_ms) - begin)) ms"
wait_healthy
check "it was a learner first" was_learner 0 $victim "$old"
check "nobody else left the view" test "$(stability 0 1)" = "$before"
is_direct

# Back to UDP, one replica of three: it is understood, counted and named.
expect 0 "stop" "$cluster" stop 1
sed -i 's/"peers": "ethernet"/"peers": "udp"/' "$CHAAPAR_CLUSTER_DIR/n1.json"
expect 0 "start with UDP" "$cluster" start 1
wait_healthy
expect 0 "a write at it" "${ctl[@]}" --node 1 put probe 2
expect 0 "a read at another" "${ctl[@]}" --node 0 get probe
check "the value" is_output 2
record 0
check "it sends UDP" test "$(recorded 0 'udp and src host 10.99.0.11 and dst host 10.99.0.10')" -gt 10
check "and replica 0 as before" test "$(recorded 0 "ether proto 0x88b5 and ether src $(mac_of 0)")" -gt 10
take_status
for node in 0 1 2; do
	check "replica $node counts it" is_count rx_mixed -gt 10 $node
done
for node in 0 2; do
	check "n$node names it" has "$CHAAPAR_CLUSTER_DIR/n$node.log" 'n1 sends to its peers over UDP, this node'
done
for other in 0 2; do
	check "it names n$other" has "$CHAAPAR_CLUSTER_DIR/n1.log" "n$other sends to its peers over raw Ethernet"
done
end_load
check_clients 2
check_all
