#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A host that cannot serve, in all the ways that a user meets: its replica's status and the host's own log say why, the
# cluster goes on without it, the host tries again by itself or is started again, and at last nothing that was
# acknowledged is missing from any of the three datastores. Redis has a test of its own.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=survive.inc
. "$(dirname "$0")/survive.inc"

keys=4000
turn=0

# Writes and reads at the replica without its host; of a key that is in its cache, and of many that are mostly not.
goes_on() {
	turn=$((turn + 1))
	expect 0 "a write without the host" "${ctl[@]}" --node 1 put probe "$turn"
	expect 0 "a read" "${ctl[@]}" --node 1 get probe
	check "its value" is_output "$turn"
	expect 0 "reads" "${ctl[@]}" --json --node 1 load --keys "$keys" --mix get=90,put=10 --ops 300 \
		--history "$work/turn$turn.history"
	check "all are answered" is_json "$out" 'd["timeouts"] == 0 and d["busy"] == 0'
}

stop_host() { expect 0 "stop host 1" "$cluster" stop-host 1; }
start_host() {
	: >"$CHAAPAR_CLUSTER_DIR/h1.log"
	expect 0 "start host 1" "$cluster" start-host 1
}
# All is well again with host 1 as it should be.
mend() {
	cp "$work/h1.command" "$work/h1.json" "$CHAAPAR_CLUSTER_DIR"
	start_host
	check "all is saved" wait_within 30 all_saved
}

# with_store JSON: host 1 is started with another "store".
with_store() {
	sed "s|\"store\": .*|\"store\": $1,|" "$work/h1.json" >"$CHAAPAR_CLUSTER_DIR/h1.json"
	start_host
}

# At level memory, so that writes go on; and with a cache that has a part of the keys.
up --hosts rocksdb --shards 1 --keys-max 2048 --value-blocks 2000 --host-grace 600
cp "$CHAAPAR_CLUSTER_DIR"/h1.{command,json} "$work"
store=$CHAAPAR_CLUSTER_DIR/h1.store/rocksdb
load_keys
check "all is saved" wait_within 20 all_saved

# ---- who does not belong together

[ -x "$build/chaapar-host-next" ] || die "$build/chaapar-host-next is missing: build it with 'make programs-e2e'"
stop_host
sed -i 's|/chaapar-host$|/chaapar-host-next|' "$CHAAPAR_CLUSTER_DIR/h1.command"
start_host
says_why refuses 'the host speaks version 2 of the channel, the replica 1'
goes_on
stop_host
cp "$work/h1.command" "$CHAAPAR_CLUSTER_DIR"

sed 's/"keys_max": 2048/"keys_max": 2049/' "$CHAAPAR_CLUSTER_DIR/cluster.json" >"$work/other.json"
sed -i "s|$CHAAPAR_CLUSTER_DIR/cluster.json|$work/other.json|" "$CHAAPAR_CLUSTER_DIR/h1.command"
start_host
says_why refuses "the host.s cluster file has hash [0-9a-f]{8}, the replica.s [0-9a-f]{8}: give both the same file"
goes_on
stop_host
cp "$work/h1.command" "$CHAAPAR_CLUSTER_DIR"

expect 0 "stop host 2" "$cluster" stop-host 2
with_store "{ \"type\": \"rocksdb\", \"path\": \"${store/h1/h2}\" }"
says_why refuses "the store is node 2's, we are node 1"
goes_on
stop_host
expect 0 "start host 2" "$cluster" start-host 2
mend

# ---- files of RocksDB that are damaged; each is put back as it was

# with_damage COMMAND...: what it does to the files of the datastore.
with_damage() {
	goes_on # so that something is in the log
	stop_host
	cp -r "$store" "$work/whole"
	"$@"
	start_host
}
put_back() {
	stop_host
	rm -rf "$store"
	mv "$work/whole" "$store"
	mend
}
# scratch FILE OFFSET BYTES: other bytes there.
scratch() { head -c "$3" /dev/zero | tr '\0' '\377' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
largest() { ls -S "$store"/*."$1" | head -n 1; }

with_damage eval 'scratch "$(ls "$store"/MANIFEST-*)" 20 100'
says_why refuses 'damaged: Corruption'
goes_on
put_back
if [ -n "${CHECK_LONG:-}" ]; then
	with_damage eval 'scratch "$(largest log)" 20 1'
	says_why refuses 'damaged: Corruption'
	put_back
	with_damage scratch "$store/CURRENT" 0 10
	says_why refuses 'damaged: Corruption'
	put_back
	with_damage rm "$store/CURRENT"
	says_why refuses 'has data and is not marked as a store of a replica'
	put_back
fi

# What is damaged inside of a table is found when it is read: the other replicas answer.
with_damage eval 'scratch "$(largest sst)" 20000 20000'
check "it is open" wait_within 15 is_node 1 "h['state'] == 'ready'"
expect 0 "all keys" "${ctl[@]}" --json --node 1 load --keys "$keys" --mix get=100 --ops "$keys" \
	--history "$work/damaged.history"
check "all are answered" is_json "$out" 'd["timeouts"] == 0 and d["busy"] == 0'
says_why down 'damaged: Corruption: block checksum'
goes_on
# It is given up, and copied from the others.
stop_host
rm -rf "$store" "$work/whole"
mend
check "the replica has left and is back" wait_within 10 \
	is_node 0 "m['epoch'] >= 4 and m['members'][1]['role'] == 'voter'"

# ---- a disk that is full, for a while

box=$(cut -d' ' -f1 "$CHAAPAR_CLUSTER_DIR/box")
user=()
[ "$(readlink "/proc/$box/ns/user")" = "$(readlink /proc/self/ns/user)" ] || user=(-U --preserve-credentials)
in_box=(nsenter -t "$box" "${user[@]}" -m -n --)
disk=$CHAAPAR_CLUSTER_DIR/h1.store/disk
mkdir "$disk"
stop_host
"${in_box[@]}" mount -t tmpfs -o size=32m tmpfs "$disk" && "${in_box[@]}" cp -r "$store" "$disk" || die "no small disk"
with_store "{ \"type\": \"rocksdb\", \"path\": \"$disk/rocksdb\" }"
check "all is saved" wait_within 30 all_saved
"${in_box[@]}" dd if=/dev/zero of="$disk/filler" bs=64k >/dev/null 2>&1 # until it is full
goes_on
says_why down 'disk full'
goes_on
check "versions wait" is_node 1 "h['backlog'] > 0"
"${in_box[@]}" rm "$disk/filler"
check "it goes on by itself" wait_within 20 all_saved
stop_host
"${in_box[@]}" sh -c "rm -rf '$store' && cp -r '$disk/rocksdb' '$store' && umount '$disk'" || die "no copy"
mend

# ---- S3, with what a user gets wrong

if [ -e "$root/build/npm/node_modules/s3rver" ] && command -v node >/dev/null; then
	in_n1=("${in_box[@]}" nsenter --net=/run/netns/n1 --)
	"${in_n1[@]}" ip link set lo up || die "no loopback"
	mkdir -p "$work/s3/kv"
	"${in_n1[@]}" node --openssl-legacy-provider "$root/tests/datastore/s3server.js" "$work/s3" 4568 kv \
		>"$work/s3.log" 2>&1 &
	servers+=($!)
	disown
	check "an S3 server" wait_within 20 "${in_n1[@]}" bash -c 'exec 3<>/dev/tcp/127.0.0.1/4568'
	s3='"type": "s3", "endpoint": "http://127.0.0.1:4568", "access_key": "S3RVER", "timeout_ms": 2000'
	stop_host
	with_store "{ $s3, \"bucket\": \"kv\", \"secret_key\": \"wrong\" }"
	says_why refuses '403 SignatureDoesNotMatch'
	goes_on
	stop_host
	with_store "{ $s3, \"bucket\": \"nothing\", \"secret_key\": \"S3RVER\" }"
	says_why refuses '404 NoSuchBucket'
	goes_on
	stop_host
	mend
fi

# ---- nothing is missing

wait_healthy
compare_stores
