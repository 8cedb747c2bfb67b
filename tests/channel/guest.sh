#!/bin/busybox sh
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=dash
#
# What tools/check-rdma runs in its virtual machine behind the conformance suite: a replica whose host it reaches by
# RDMA, with RocksDB and a cache that is too small. Under load the host is killed and comes back; then the replica is,
# which has nothing but the datastore to begin from. Every answer is judged. One replica, as the machine is a slow one:
# what several do is tests/e2e's.
#
# Prints "ok WHAT" or "FAILED: WHAT", and at the end "guest: cluster: N passed, M failed".

bin=/chaapar/build
d=/tmp/cluster
passed=0
failed=0
export CHAAPAR_ENDPOINTS=10.99.0.10

check() {
	what=$1
	shift
	if "$@" >$d/out 2>&1; then
		passed=$((passed + 1))
		echo "ok $what, $(cut -d' ' -f1 /proc/uptime) s"
	else
		failed=$((failed + 1))
		echo "FAILED: $what: $*"
		tail -n 3 $d/out
	fi
}

# until_ok SECONDS COMMAND...
until_ok() {
	end=$(($(cut -d. -f1 /proc/uptime) + $1))
	shift
	until "$@"; do
		[ "$(cut -d. -f1 /proc/uptime)" -lt $end ] || return 1
		sleep 0.2
	done
}

finish() {
	[ $failed = 0 ] || ctl status --json
	for f in $d/[hn]0.log; do
		[ $failed = 0 ] || { echo "$f:"; tail -n 12 $f; }
	done
	echo "guest: cluster: $passed passed, $failed failed"
	exit
}

# The replica's cable, and the RDMA device between it and its host.
network() {
	/usr/sbin/ip link add data type veth peer name client
	/usr/sbin/ip link set data up
	/usr/sbin/ip link set client up
	/usr/sbin/ip addr add 10.99.0.1/24 dev client
	ethtool -K client tx off >/dev/null
	/usr/sbin/ip link add pcie type dummy
	/usr/sbin/ip link set pcie mtu 4200 up
	/usr/sbin/ip addr add 10.2.0.1/24 dev pcie
	rdma link add rxe9 type rxe netdev pcie
}

# A cache for a third of the keys below. Timers for a machine that stands still now and then.
files() {
	cat >$d/cluster.json <<-EOF
	{ "name": "rdma", "shards": 2, "keys_max": 1000, "value_blocks_max": 1000, "sessions_max": 64,
	  "hosts": true, "durability": "datastore", "host_grace_s": 60,
	  "members": [ { "name": "n0", "address": "10.99.0.10" } ] }
	EOF
	cat >$d/n0.json <<-EOF
	{ "node": 0, "port": "net_af_packet0", "prefix_len": 24, "idle": "sleep", "rx_checksum": "verify",
	  "timers": { "suspect_us": 20000000, "lease_us": 6000000 },
	  "host": { "channel": "rdma", "address": "10.2.0.1" },
	  "lcores": [ { "lcore": 0, "stages": [ "rx0", "shard0", "shard1", "tx0", "control", "host" ] } ] }
	EOF
	cat >$d/h0.json <<-EOF
	{ "channel": { "channel": "rdma", "address": "10.2.0.1" },
	  "store": { "type": "rocksdb", "path": "$d/store" }, "idle": "sleep" }
	EOF
}

host() {
	$bin/chaapar-host -c $d/cluster.json -n $d/n0.json -s $d/h0.json >>$d/h0.log 2>&1 &
	host=$!
}

replica() {
	$bin/chaapar --lcores '0@(0)' --no-huge --no-shconf --no-pci --no-telemetry --iova-mode=va -m 160 \
		--vdev net_af_packet0,iface=data,blocksz=65536,framesz=2048,framecnt=1024,qdisc_bypass=1 \
		-- -c $d/cluster.json -n $d/n0.json --bootstrap >>$d/n0.log 2>&1 &
	replica=$!
}

second_host() {
	echo '{ "channel": { "channel": "rdma", "address": "10.2.0.1" }, "store": { "type": "memory" } }' >$d/h1.json
	$bin/chaapar-host -c $d/cluster.json -n $d/n0.json -s $d/h1.json >$d/h1.log 2>&1 &
	second=$!
	until_ok 20 grep -q "refused by the replica: another host is connected to it" $d/h1.log
	refused=$?
	kill $second
	wait $second
	cat $d/h1.log
	return $refused
}

ctl() { $bin/chaapar"ctl" "$@"; }
load() { ctl load --report-interval 0 --keys 3000 "$@"; }
value() { ctl get greeting | grep -q hello; }

mkdir -p $d /run
ln -s /run /var/run 2>/dev/null
network
files
check "configuration" $bin/chaapar-host -c $d/cluster.json -n $d/n0.json -s $d/h0.json --check-config
host
replica
check "it serves" until_ok 60 ctl cluster-health
[ $failed = 0 ] || finish
check "a value" ctl put greeting hello
check "a second host is refused, and says why" second_host
# More keys than the cache has room for.
load --preload --clients 2 --depth 8 --duration 8 --history $d/before >$d/load.log 2>&1 &
load=$!
sleep 4
kill -9 $host
sleep 1
host
wait $load
check "a load while the host is killed and returns" [ $? = 0 ]
kill -9 $replica
replica
check "it serves again, from what the datastore has" until_ok 60 ctl cluster-health
check "the value is still there" until_ok 10 value
check "reads of everything" load --ops 1500 --mix get=100 --history $d/after
# A cold start gives the keys new versions of the new generation: their values say whose they are.
sed -E -i 's/,"version":"?[0-9]+"?//' $d/after
check "every answer is right, before and after" ctl check $d/before $d/after
cat $d/out
ctl status --json | grep -o '"channel[^}]*}' | head -n 1
finish
