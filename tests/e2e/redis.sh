#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Hosts with a Redis server each. One of the servers is killed under load: the cluster goes on from memory and says what
# is wrong; the server comes back and gets everything. Other programs read what is there as usual.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=survive.inc
. "$(dirname "$0")/survive.inc"

command -v redis-server >/dev/null || skip "redis-server is not installed"

# start_redis REPLICA [OPTION]...
start_redis() {
	mkdir -p "$work/redis$1"
	redis-server --port 0 --unixsocket "$work/redis$1.sock" --unixsocketperm 777 --dir "$work/redis$1" --save '' \
		--appendonly yes --appendfsync always "${@:2}" >"$work/redis$1.log" 2>&1 &
	servers[$1]=$!
	disown # nobody needs to hear that it was killed
	check "a Redis server" wait_within 10 redis-cli -s "$work/redis$1.sock" ping # also while it loads
}

# What the server of replica $1 has under a key, for anybody.
raw() { redis-cli -s "$work/redis$1.sock" get "$2"; }

for node in 0 1 2; do
	start_redis "$node"
done
echo "{ \"type\": \"redis\", \"path\": \"$work/redis{n}.sock\", \"timeout_ms\": 500 }" >"$work/store.json"
up --hosts "$work/store.json" --durability datastore
expect 0 "put" "${ctl[@]}" put greeting hello
for node in 0 1 2; do
	check "it is durable everywhere" wait_within 10 is_node "$node" "h['backlog'] == 0"
	check "its server has it, raw" test "$(raw "$node" greeting)" = hello
done
load_keys
start_load 1

kill -KILL "${servers[1]}"
check "the replica says so" wait_within 20 is_node 1 "h['store'] in ('slow', 'down') and h['errors'] > 0"
check "and what is wrong" is_node 1 "h['text'] != ''"
expect 0 "writes go on" "${ctl[@]}" put greeting "hello again"
expect 0 "reads at that replica, too" "${ctl[@]}" --node 1 get greeting
check "the new value" is_output "hello again"
check "what is not saved piles up" is_node 1 "h['backlog'] > 0 and h['oldest_ms'] > 0"
start_redis 1
check "all is well again" wait_within 30 is_node 1 "h['store'] == 'ok' and h['state'] == 'ready'"
end_load
check_clients 0
for node in 0 1 2; do
	check "all is saved" wait_within 20 is_node "$node" "h['backlog'] == 0"
	check "its server has the newest, raw" test "$(raw "$node" greeting)" = "hello again"
done
expect 0 "a delete" "${ctl[@]}" del greeting
check "is gone from the servers, too" wait_within 10 eval '[ -z "$(raw 0 greeting)$(raw 1 greeting)$(raw 2 greeting)" ]'
check_all
for node in 0 1 2; do
	redis-cli -s "$work/redis$node.sock" --raw eval "
		local lines = {}
		for _, key in ipairs(redis.call('keys', '*')) do
			if redis.call('type', key).ok == 'string' then
				lines[#lines + 1] = key .. ' : ' .. redis.call('get', key)
			end
		end
		return lines" 0 | grep -v '^chaapar:' >"$work/store$node"
done
no_write_is_missing

# ---- a server that cannot take what it gets, for a while: the replica says what the server says, and all goes on

# troubles STATE TEXT: with the server of replica 1, and the log of its host says so, too.
troubles() {
	expect 0 "a write" "${ctl[@]}" --node 1 put trouble "$2"
	says_why "$1" "$2"
	expect 0 "reads go on" "${ctl[@]}" --node 1 get trouble
	check "the value" is_output "$2"
}
# passed: and it gets all that it missed.
passed() { check "all is saved" wait_within 30 all_saved && check "it is there" test "$(raw 1 trouble)" = "$1"; }

redis-cli -s "$work/redis1.sock" config set maxmemory 1 >/dev/null
troubles down OOM
redis-cli -s "$work/redis1.sock" config set maxmemory 0 >/dev/null
passed OOM
redis-cli -s "$work/redis1.sock" replicaof 127.0.0.1 1 >/dev/null
troubles down READONLY
redis-cli -s "$work/redis1.sock" replicaof no one >/dev/null
passed READONLY
kill -KILL "${servers[1]}"
start_redis 1 --requirepass secret
troubles down NOAUTH
kill -KILL "${servers[1]}"
start_redis 1
passed NOAUTH

# ---- a server that does not promise what the hosts report

expect 0 "down" "$cluster" down
for node in 0 1 2; do
	redis-cli -s "$work/redis$node.sock" flushall >/dev/null
	redis-cli -s "$work/redis$node.sock" config set appendfsync everysec >/dev/null
done
"$cluster" up --hosts "$work/store.json" >"$work/up.log" 2>&1 &
up=$!
check "it is told why" wait_within 15 has "$CHAAPAR_CLUSTER_DIR/h0.log" 'appendfsync'
kill "$up" # it would wait for replicas that serve
check "which did not come up" not wait "$up"
