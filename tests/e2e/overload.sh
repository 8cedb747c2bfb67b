#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Clients offer one replica ten times what it can do, in datagrams as full as they can be. Its peers must
# not be harmed: no packet of theirs is dropped, no link is reset, writes at other replicas, which need the
# flooded one, go on; and when it is over, everything is as before.
#
# All of the flood is about one key: its writes go one after the other, a round trip each, so that a few
# CPUs are enough to send ten times of it and to fill every queue between the port and the key.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"

flood_s=5

# flood.py RATE SECONDS: so many requests a second to replica 0, three writes without a session to a read;
# nobody waits for the answers. Prints how many were sent in a second.
cat >"$work/flood.py" <<'PYTHON'
import socket, struct, sys, time

rate, seconds = float(sys.argv[1]), float(sys.argv[2])
header = struct.pack("<HBBIQQHBBI", 0x4843, 1, 3, 0, 0, 0, 0, 0, 0, 0)

def request(op, number, key, value):
    size = (32 + len(key) + len(value) + 7) // 8 * 8
    body = struct.pack("<BBHB3xQIIQ", op, 0, size, len(key), number, len(value), 0, 0) + key + value
    return body + bytes(size - len(body))

PER_DATAGRAM = 20
data = header + b"".join(request(1, i, b"flood", b"") if i % 4 == 0 else request(2, i, b"flood", bytes(32))
                         for i in range(1, PER_DATAGRAM + 1))
assert len(data) <= 1472
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("10.99.0.10", 7168))
start = time.monotonic()
sent, passed = 0, 0.0
while passed < seconds:
    if sent > passed * rate:
        time.sleep(0.0005)
    else:
        s.send(data)
        sent += PER_DATAGRAM
    passed = time.monotonic() - start
print(int(sent / passed))
PYTHON

up --shards 1 --lcores 3
before=$(identity 0)$(identity 1)$(identity 2)
session=(--clients 3 --keys 1000 --depth 4)
expect 0 "load before" "${ctl[@]}" --json load --preload "${session[@]}" --duration 2 --history "$work/0.history"
p50=$(json "$out" 'int(d["p50_us"])')
expect 0 "what a replica can do" "${ctl[@]}" --json --node 0 load --key-prefix c --clients 4 --depth 32 \
	--keys 1 --duration 2 --mix get=25,put=75
capacity=$(json "$out" 'int(d["ops_per_s"])')

"${ctl[@]}" --json --timeout 3000 load "${session[@]}" --duration $((flood_s + 4)) --report-interval 0.5 \
	--history "$work/1.history" >"$work/1.json" 2>"$work/1.lines" &
load=$!
check "the load runs" wait_for 20 has "$work/1.lines" '^run .* 1\.[0-9] s'
for half in 0 1; do
	"$cluster" exec "$python" -S "$work/flood.py" $((capacity * 6)) "$flood_s" >"$work/flood.$half" &
	floods[half]=$!
done
sleep 1
for node in 1 2; do
	for i in 1 2 3; do
		expect 0 "a write at replica $node meanwhile" \
			"${ctl[@]}" --node "$node" --timeout 5000 put "w$node" "$i"
	done
	expect 0 "ping of replica $node meanwhile" "${ctl[@]}" --node "$node" --timeout 1000 ping
done
check "flood" wait "${floods[0]}" && check "flood" wait "${floods[1]}"
offered=$(($(<"$work/flood.0") + $(<"$work/flood.1")))
check "$offered/s offered, ten times $capacity/s" test "$offered" -ge $((10 * capacity))
check "the load ends by itself" wait "$load"
check "it was answered all the time" is_json "$work/1.json" 'd["answered"] > 1000'

take_status
check "what there was no room for was refused" is_count busy -gt 1000 0
for counter in drop_peer_ring drop_control_ring drop_no_mbuf drop_crc drop_message links.resets \
	links.bad_message; do
	check "no $counter" is_count "$counter" -eq 0
done
check "the same processes as before" test "$(identity 0)$(identity 1)$(identity 2)" = "$before"
expect 0 "all replicas serve" "$cluster" status
# What had been admitted is done one after the other, then it is over.
idle() { take_status 0 && is_count open_ops -eq 0; }
check "the flooded replica gets through" wait_for 20 idle
expect 0 "load after" "${ctl[@]}" --json load "${session[@]}" --duration 2 --history "$work/2.history"
# Twice, and a ms for what else this machine does.
check "latency is as before, $p50 us" is_json "$out" "d['p50_us'] <= 2 * $p50 + 1000"
check "all of it is answered" is_json "$out" 'd["timeouts"] == 0 and d["busy"] == 0 and d["overload"] == 0'
check_histories
