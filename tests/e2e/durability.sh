#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The table of docs/durability.md row by row with real processes: hosts that are gone for long, stores that are lost,
# replicas that lose their memory together. With level `memory` everything had been saved, so nothing may be missing
# afterwards with either. CHECK_LONG=1 takes all rows and both levels, DURABILITY=datastore that level.
if [ -n "${CHECK_LONG:-}" ] && [ -z "${DURABILITY:-}" ]; then
	DURABILITY=memory "$0" && DURABILITY=datastore exec "$0"
	exit
fi
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=survive.inc
. "$(dirname "$0")/survive.inc"

keys=4000
rows=0
level=${DURABILITY:-memory}

# is_waiting NODE EXPRESSION: what a replica that is in no view waits for.
is_waiting() {
	"${ctl[@]}" --node "$1" --timeout 1000 status 2>/dev/null | grep -Eq "^  text .*$2"
}

each() {
	local node what=$1
	shift
	for node; do
		expect 0 "$what $node" "$cluster" "$what" "$node"
	done
}

restart() {
	local node
	for node; do
		expect 0 "start $node" "$cluster" start "$node" --no-wait
	done
}

# row WHAT: after the one before: all is well, everything is there, some of it is written anew.
row() {
	rows=$((rows + 1))
	wait_healthy
	check "all is saved" wait_within 30 all_saved
	expect 0 "every key is there" "${ctl[@]}" load --keys "$keys" --mix get=90,put=10 --ops $((keys * 2)) \
		--clients 3 --report-interval 0 --history "$work/row$rows.history"
	check "all are answered" has_not "$out" 'answers:.* (timeout|unsent|unknown) '
	check "all is saved" wait_within 30 all_saved
	note "$1"
}

up --hosts rocksdb --durability "$level" --host-grace 3 --shards 1 --keys-max 2048 --value-blocks 2048
load_keys

row "one host is gone for longer than host_grace_s"
each kill-host 1
check "its replica leaves the view" wait_within 30 is_role 0 1 out
check "and says what it waits for" wait_within 10 is_waiting 1 'when our host is there'
expect 0 "the others go on" "${ctl[@]}" put greeting hello
expect 0 "their misses too" "${ctl[@]}" --node 0 get k0000007
each start-host 1

row "a datastore is lost for good"
each kill-host 2
rm -rf "$CHAAPAR_CLUSTER_DIR/h2.store/rocksdb"
before=$(epoch 0)
each start-host 2
check "its replica leaves, and copies everything" wait_within 40 was_learner 0 2 "$before"
check "into the new one" wait_within 20 is_node 2 "h['items'] >= $keys"

row "all restart, a minority of the hosts does not come back"
each kill-host 2
each kill 0 1 2
restart 0 1
check "the two begin without it" wait_within 60 is_node 0 "m['epoch'] >> 20 == 1 and m['role'] == 'voter'"
expect 0 "and serve" "${ctl[@]}" put greeting "hello again"
each start-host 2
restart 2
last="hello again"

if [ -n "${CHECK_LONG:-}" ]; then
	row "a replica and its own host, at once"
	each kill 0
	each kill-host 0
	expect 0 "the others go on" "${ctl[@]}" put greeting "once more"
	each start-host 0
	restart 0

	row "all hosts gone"
	last="still here"
	expect 0 "a key that is in the caches" "${ctl[@]}" put greeting "$last"
	each kill-host 0 1 2
	expect 0 "is read" "${ctl[@]}" get greeting
	check "it is that" is_output "$last"
	if [ "$level" = memory ]; then
		last="without hosts"
		expect 0 "and written" "${ctl[@]}" put greeting "$last"
	else
		check "and not written" not "${ctl[@]}" --timeout 1000 put other "without hosts" 2>/dev/null
	fi
	check "which waits" is_node 0 "h['backlog'] > 0"
	each start-host 0 1 2

	row "two of three replicas restart at once"
	each kill 0 1
	restart 0 1
	check "it stands still" not wait_within 10 "${ctl[@]}" --timeout 500 get greeting
	check "what the third has is saved" wait_within 10 is_node 2 "h['backlog'] == 0"
	each kill 2
	restart 2
	check "a cold start" wait_within 60 is_node 0 "m['epoch'] >> 20 == 2"

	row "all restart, a majority of the hosts does not come back"
	each kill-host 1 2
	each kill 0 1 2
	restart 0 1 2
	check "it waits for a majority" not wait_within 18 is_node 0 "m['role'] == 'voter'"
	each start-host 1
	check "which is enough" wait_within 60 is_node 0 "m['epoch'] >> 20 == 3 and m['role'] == 'voter'"
	each start-host 2

	row "a second restart of all before the first has reconciled"
	each kill 0 1 2
	restart 0 1 2
	check "the first" wait_within 60 is_node 0 "m['epoch'] >> 20 == 4"
	each kill 0 1 2
	restart 0 1 2
	check "the second" wait_within 60 is_node 0 "m['epoch'] >> 20 == 5"
fi
row "that is all"
expect 0 "what was written last" "${ctl[@]}" get greeting
check "is there" is_output "$last"
check_histories
note "$(head -n 1 "$out")"
