#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A data set of twenty times the cache, in front of RocksDB: clients that prefer some keys, then clients that do not.
# Every answer is judged; the replicas say how many reads the cache answered, and each key that was not there was asked
# for once however many waited. What was written last is in all datastores.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=survive.inc
. "$(dirname "$0")/survive.inc"

cache=2048 # of a shard with the usual number of sessions there is no smaller one
keys=$((20 * cache))

# Each datastore has all keys.
all_stored() {
	local node
	for node in 0 1 2; do
		is_node "$node" "h['items'] + h['tombstones'] >= $keys" || return 1
	done
}

# hits BEFORE AFTER: what the replicas have counted between two states: the share of reads that the cache answered, in
# percent; keys that were asked for; keys that left.
hits() {
	"$python" -S - "$1" "$2" <<-'PYTHON'
		import json, sys
		def sums(path):
		    reads = misses = loads = evictions = 0
		    for n in json.load(open(path))["nodes"]:
		        for s in n["shards"]:
		            p = s["protocol"]
		            reads += p["reads"]
		            misses += min(p["reads"], p["misses"], p["reads_parked"])
		            loads += s["host"]["counters"]["loads"]
		            evictions += s["cache"]["evictions"]
		    return reads, misses, loads, evictions
		reads, misses, loads, evictions = (b - a for a, b in zip(sums(sys.argv[1]), sums(sys.argv[2])))
		print(100 * (reads - misses) // max(reads, 1), loads, evictions)
	PYTHON
}

# phase NAME [OPTION]...: clients at all replicas for a while.
phase() {
	local what=$1
	shift
	take_status && mv "$work/status.json" "$work/before.json"
	expect 0 "$what load" "${ctl[@]}" --json load --clients 3 --depth 8 --keys "$keys" --duration 6 \
		--report-interval 0 --history "$work/$what.history" "$@"
	cp "$out" "$work/$what.json"
	check "clients get answers" is_json "$work/$what.json" "d['ops'] > 3000"
	check "nothing was refused, nobody waited too long" is_json "$work/$what.json" \
		"not {k for k, n in d['by_status'].items() if n > 0} & {'busy', 'full', 'overload', 'timeout', 'unknown'}"
	take_status
	read -r share loads evictions < <(hits "$work/before.json" "$work/status.json")
	note "$what: $share % of the reads from the cache, $loads loads, $evictions evictions," \
		"$(json "$work/$what.json" "round(d['ops_per_s'])") op/s"
}

up --hosts rocksdb --shards 1 --keys-max $cache --value-blocks $cache
load_keys
check "all is saved" wait_within 30 all_saved
check "the datastores hold all keys" wait_within 10 all_stored

phase uneven --zipf 0.99
check "most reads of preferred keys are hits" test "$share" -ge 35
check "others are not" test "$loads" -gt 500
uneven=$share
phase even
check "of all alike about a twentieth is" test "$share" -le 20
check "fewer than before" test $((share + 20)) -lt "$uneven"
check "the rest comes from the datastores" test "$loads" -gt 2000
check "keys leave the caches" test "$evictions" -gt 2000
for node in 0 1 2; do
	check "the cache holds no more than it should" is_json "$work/status.json" \
		"d['nodes'][$node]['shards'][0]['cache']['keys'] <= $cache + 2 * 3 * 256" # and room for all credits
done
check "nothing failed" is_count loads_failed -eq 0
check_histories
note "$(head -n 1 "$out")"
compare_stores
for node in 0 1 2; do
	check "datastore $node holds the keys" test "$(grep -c '^k0' "$work/store$node")" -ge $((keys * 9 / 10))
done
