#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# tools/bench-recovery with few keys: so that it cannot rot, and its figures must make sense.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"

up --replicas 1 # or skip, where no namespaces can be made
"$cluster" down >/dev/null

expect 0 "bench-recovery" "$root/tools/bench-recovery" --keys 5000 --phase 2 --svg "$work/recovery.svg"
cp "$out" "$work/json"
check "one JSON object" test "$(wc -l <"$work/json")" = 1
check "what was run" is_json "$work/json" \
	'd["bench"] == "recovery" and d["replicas"] == 3 and d["keys"] == 5000 and bool(d["machine"] and d["commit"])'
check "writes went on after the view without it" is_json "$work/json" \
	'0 < d["kill_to_next_write_ms"] < 10000'
check "in about the suspicion time of a second" is_json "$work/json" '500 < d["kill_to_view_ms"] < 10000'
check "agreeing took a small part of it" is_json "$work/json" '0 < d["view_change_ms"] < 1000'
check "everything was copied" is_json "$work/json" 'd["copy_keys_per_s"] * d["copy_s"] >= 5000'
check "with load all the time" is_json "$work/json" \
	'min(d["writes_per_s_" + x] for x in ("before", "two_replicas", "while_copying", "after")) > 10'
check "a picture" grep -q '</svg>' "$work/recovery.svg"
cat "$work/json"
