#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The requests that pktgen/requests makes for load generators: DPDK replays them against one replica over
# net_pcap, and what it answers is read back from the capture.
. "$(dirname "$0")/lib.sh"

cat >"$work/cluster.json" <<'JSON'
{ "name": "alone", "members": [ { "name": "n0", "address": "10.99.0.10" } ] }
JSON
cat >"$work/node.json" <<'JSON'
{ "node": 0, "port": "net_pcap0", "rx_checksum": "verify", "idle": "sleep",
  "lcores": [ { "lcore": 0, "stages": ["control", "rx0", "shard0", "tx0"] } ] }
JSON

check "makes requests" "$root/pktgen/requests" "$work/kv.pcap" --port 7170 --count 500 --keys 20 --writes 50 \
	--target-mac 02:00:0a:63:00:0a

"$build/chaapar" -l 0 --no-huge --no-shconf --no-pci --no-telemetry --iova-mode=va -m 1024 \
	--vdev="net_pcap0,rx_pcap=$work/kv.pcap,tx_pcap=$work/out.pcap,infinite_rx=1" \
	-- -c "$work/cluster.json" -n "$work/node.json" --bootstrap >"$work/log" 2>&1 &
pid=$!
# The answers reach the file when enough of them fill a buffer.
for _ in $(seq 100); do
	[ "$(stat -c %s "$work/out.pcap" 2>/dev/null || echo 0)" -gt 200000 ] && break
	kill -0 $pid 2>/dev/null || break
	read -rt 0.1 <> <(:)
done
kill -TERM $pid
wait $pid
check "stops cleanly" test $? = 0

counts=$("$python" - "$work/out.pcap" <<'PY'
import struct, sys
data, at, count = open(sys.argv[1], "rb").read(), 24, {}
while at + 16 <= len(data):
    size = struct.unpack_from("<I", data, at + 8)[0]
    frame = data[at + 16:at + 16 + size]
    at += 16 + size
    if len(frame) < 42 + 32 + 40 or frame[12:14] != b"\x08\x00" or frame[23] != 17:
        continue
    if struct.unpack_from("<HBB", frame, 42) != (0x4843, 1, 4):
        continue
    key = struct.unpack_from("<BB", frame, 42 + 32)
    count[key] = count.get(key, 0) + 1
print("ok_put=%d ok_get=%d" % (count.get((2, 0), 0), count.get((1, 0), 0)))
PY
)
echo "pktgen: $counts"
eval "$counts"
check "writes were answered ok" test "${ok_put:-0}" -gt 20
check "reads were answered ok" test "${ok_get:-0}" -gt 20
((failures > 0)) && cat "$work/log" >&2
exit 0
