#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# What is wrong at start is told in one line that says what to change, with the exit code for its kind: 2
# usage and configuration, 3 port and memory. Nodes that do not belong together say so, both.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"

# What runs in namespaces of its own, with a port and the files of conf/ for it.
starts() {
	cd "$work" || exit 1
	mount -t tmpfs tmpfs /run && ip link add data type veth peer name peer && ip link set data up || exit 1
	cp "$root"/conf/cluster.json .
	sed 's/net_af_xdp0/net_af_packet0/; s/"idle"/"rx_checksum": "verify", "idle"/' \
		"$root/conf/node0.json" >node0.json

	eal="--lcores (0-1)@(0-1) --no-huge --no-shconf --no-pci --iova-mode=va -m 700"
	port="--vdev=net_af_packet0,iface=data"
	files="-- -c cluster.json -n node0.json"
	program=chaapar

	# start CODE TEXT ARGUMENT...: the one line on standard error must have the text.
	start() {
		local code=$1 text=$2
		shift 2
		expect "$code" "exit code of: $program $*" "$build/$program" "$@"
		check "it says why" has "$err" "^$program: .*($text)" || head -n 5 "$err" >&2
		check "and little else" test "$(wc -l <"$err")" -le 5
	}
	# change FILE SED-SCRIPT: a copy of FILE with one thing else in it, as changed.json.
	change() { sed "$2" "$1" >changed.json; }

	# Usage. Words are meant to be split here and below.
	# shellcheck disable=SC2086
	{
		start 2 'CLUSTER.json is missing'
		start 2 'NODE.json is missing' $eal $port -- -c cluster.json
		start 2 'unexpected argument "extra"' $eal $port $files extra
		start 2 'unknown option "--frobnicate"' $eal $port $files --frobnicate
		start 2 'EAL .*frobnicate' $eal --frobnicate $port $files
		start 2 'EAL .*core' $eal -l nonsense $port $files
		start 2 'lcore 1 of the node file is not one of EAL' ${eal/(0-1)@(0-1)/0@(0-1)} $port $files

		# Configuration.
		start 2 'nonsense.json: .*No such file' $eal $port -- -c nonsense.json -n node0.json
		echo '{' >changed.json
		start 2 'changed.json:2: not JSON' $eal $port -- -c changed.json -n node0.json
		change node0.json 's/"node": 0/"node": 7/'
		start 2 'changed.json:2: node: 7: .*not in the cluster file' \
			$eal $port -- -c cluster.json -n changed.json
		change cluster.json 's/10.99.0.11/10.99.0.10/'
		start 2 'members\[1\].address: .*of its own' $eal $port -- -c changed.json -n node0.json
		change cluster.json 's/"shards"/"shrads"/'
		start 2 'shrads: unknown key; did you mean "shards"' $eal $port -- -c changed.json -n node0.json
		change node0.json 's/"idle"/"pools": { "rx": 100 }, "idle"/'
		start 2 'pools.rx: 100: expected at least [0-9]+ mbufs' $eal $port -- -c cluster.json -n changed.json
		expect 2 "--check-config" "$build/chaapar" -c cluster.json -n changed.json --check-config
		expect 0 "--check-config of right ones" "$build/chaapar" -c cluster.json -n node0.json --check-config
		expect 0 "--print-config" "$build/chaapar" -c cluster.json -n node0.json --print-config
		check "JSON" is_json "$out" \
			'd["cluster"]["shards"] == 2 and d["node"]["derived"]["memory"]["total_bytes"] > 0'

		# Ports and memory.
		start 3 'does not exist, nor does any other: add --vdev' $eal $files
		start 3 'does not exist; the ports that do: net_null0' $eal --vdev=net_null0 $files
		start 3 'does not exist.*No such device' $eal --vdev=net_af_packet0,iface=nonsense $files
		start 3 'nonsense' $eal --vdev=net_nonsense0 $files
		start 3 'needs [0-9]+ MiB|more memory .-m.' ${eal/-m 700/-m 64} $port $files
		change node0.json 's/verify/offload/'
		start 3 'does not compute checksums' $eal $port -- -c cluster.json -n changed.json
		change node0.json 's/"rx0",/"rx0", "rx1",/'
		start 3 'at most 1 receive queue' $eal $port -- -c cluster.json -n changed.json
		change cluster.json 's/"mtu": 1500/"mtu": 9000/'
		start 3 'MTU' $eal $port -- -c changed.json -n node0.json

		# The datastore interface.
		program=chaapar-host
		files="-c hosts.json -n host-node.json -s"
		sed 's/"protocol"/"hosts": true, "protocol"/' cluster.json >hosts.json
		sed 's/"tx0"/"tx0", "host"/; s/"idle"/"host": { "port": "net_vhost0" }, "idle"/' node0.json \
			>host-node.json
		channel='"channel": { "port": "net_null0" }'
		echo "{ $channel, \"store\": { \"type\": \"memory\" } }" >host.json
		start 2 'HOST.json is missing' -c hosts.json -n host-node.json
		start 2 'expected "hosts": true in the cluster file' -c cluster.json -n node0.json -s host.json
		echo "{ $channel, \"store\": { \"type\": \"oracle\" } }" >changed.json
		start 2 'changed.json:1: store.type: "oracle": expected one of "rocksdb", ' $files changed.json
		echo "{ $channel, \"store\": { \"type\": \"memory\", \"delay\": 1 } }" >changed.json
		start 2 'store.delay: 1: unknown key' $files changed.json
		channel='"channel": { "channel": "rdma", "address": "10.0.0.1" }'
		echo "{ $channel, \"store\": { \"type\": \"memory\" } }" >changed.json
		start 2 'EAL options are for the channel "port"' -l 0 -- $files changed.json
		start 3 'the port "net_null0" of the channel does not exist' $eal -- $files host.json
		expect 0 "--check-config" "$build/chaapar-host" $files host.json --check-config
		expect 0 "--print-config" "$build/chaapar-host" $files host.json --print-config
		check "JSON" is_json "$out" \
			'd["host"]["put_bytes"] == 4194304 and d["host"]["derived"]["total_bytes"] > 0'

		program=chaapar
		files="-- -c cluster.json -n node0.json"
		ip address add 10.99.0.10/24 dev data
		start 3 'the kernel holds .* address 10.99.0.10 on interface data' $eal $port $files
	}
	echo "$checks $failures" >result
}

if [ "${1:-}" = inside ]; then
	trap - EXIT
	rmdir "$work"
	work=$2 out=$2/out err=$2/err
	starts
	exit
fi

user=()
[ "$(id -u)" = 0 ] && unshare -mn true 2>/dev/null || user=(-U -r)
unshare "${user[@]}" -mn true 2>/dev/null || skip "needs root, or permission to make user namespaces"
unshare "${user[@]}" -mn "$0" inside "$work" || die "the checks did not run"
read -r checks failures <"$work/result"

# ---- another configuration

up
expect 0 "stop" "$cluster" stop 2
sed 's/"shards": 2/"shards": 2, "hash_seed": 7/' "$CHAAPAR_CLUSTER_DIR/cluster.json" >"$work/other.json"
sed -i "s|$CHAAPAR_CLUSTER_DIR/cluster.json|$work/other.json|" "$CHAAPAR_CLUSTER_DIR/n2.command"
"$cluster" start 2 >"$work/start" 2>&1 &
start=$!
for node in 0 1 2; do
	check "replica $node says so" wait_for 15 has "$CHAAPAR_CLUSTER_DIR/n$node.log" \
		'belongs to another cluster or has another configuration: hash [0-9a-f]{8}, ours [0-9a-f]{8}'
done
kill "$start" 2>/dev/null
expect 0 "the others go on" "${ctl[@]}" --node 0 --timeout 500 ping
expect 5 "the stranger does not serve" "${ctl[@]}" --node 2 --timeout 500 get x
wait "$start"
expect 0 "stop the stranger" "$cluster" stop 2

# ---- two processes with one id

sed -i "s|$work/other.json|$CHAAPAR_CLUSTER_DIR/cluster.json|" "$CHAAPAR_CLUSTER_DIR/n2.command"
expect 0 "start replica 2 as it should be" "$cluster" start 2
expect 0 "put" "${ctl[@]}" put kept value
before=$(identity 0)$(identity 1)$(identity 2)
"${ctl[@]}" load --preload --keys 100 --clients 3 --rate 500 --duration 12 --history "$work/1.history" \
	>"$work/lines" 2>&1 &
load=$!
check "the load runs" wait_for 20 has "$work/lines" '^run '

# Another machine at the same bridge, with the files of replica 2.
box=$(cut -d' ' -f1 "$CHAAPAR_CLUSTER_DIR/box")
[ "$(readlink "/proc/$box/ns/user")" = "$(readlink /proc/self/ns/user)" ] && user=() || user=(-U --preserve-credentials)
in_box=(nsenter -t "$box" "${user[@]}" -m -n -p --)
in_twin=("${in_box[@]}" nsenter --net=/run/netns/twin --)
"${in_box[@]}" ip netns add twin && "${in_box[@]}" ip link add twin type veth peer name data netns twin &&
	"${in_box[@]}" ip link set twin addrgenmode none master bridge up &&
	"${in_twin[@]}" ip link set data addrgenmode none up || die "no other machine"
mapfile -t words <"$CHAAPAR_CLUSTER_DIR/n2.command"
for i in "${!words[@]}"; do
	[ "${words[i]}" = n2 ] && words[i]=twin # --file-prefix
done
"${in_twin[@]}" "${words[@]}" >"$work/twin" 2>&1 &
twin=$!
for log in "$work/twin" "$CHAAPAR_CLUSTER_DIR/n2.log"; do
	check "$(basename "$log" .log) says so" wait_for 15 has "$log" \
		'another host with MAC address .* uses this node.s address'
done
for node in 0 1; do
	check "replica $node says so" wait_for 15 has "$CHAAPAR_CLUSTER_DIR/n$node.log" 'two processes run as node 2'
done
wait "$load"
check "the load ran" has "$work/lines" 'answers: ok '
check "and nobody noticed" has_not "$work/lines" 'answers:.* (timeout|unsent|unknown) '
check "the twin never was a member" has_not "$work/twin" 'view [0-9]+ is in force'
kill -TERM "$(pgrep -P "$twin")"
check "it ends" wait "$twin"
expect 0 "all are well" "${ctl[@]}" cluster-health
for node in 0 1 2; do
	expect 0 "get at replica $node" "${ctl[@]}" --node "$node" get kept
	check "the value" is_output value
done
check "the same processes as before" test "$(identity 0)$(identity 1)$(identity 2)" = "$before"
check_histories
