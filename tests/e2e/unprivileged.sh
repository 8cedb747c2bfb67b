#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The same without root: a user namespace and AF_PACKET instead of AF_XDP.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2119
. "$(dirname "$0")/lib.sh"

as=()
if [ "$(id -u)" = 0 ]; then
	as=(setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs env "HOME=$work")
	chmod 777 "$work"
fi
"${as[@]}" unshare -U -r -mnp --fork true 2>/dev/null || skip "this machine forbids user namespaces"
"${as[@]}" test -x "$build/chaapar" -a -x "$cluster" || skip "another user cannot read this directory"

run=("${as[@]}" "$cluster")
ctl=("${run[@]}" exec chaaparctl)
finish_as_root() {
	local code=$?
	"${run[@]}" down >"$work/down.log" 2>&1
	(exit "$code")
	finish
}
trap finish_as_root EXIT

expect 1 "AF_XDP without root" "${run[@]}" up --driver af_xdp
check "one line says why" test "$(wc -l <"$err")" = 1
expect 0 "up" "${run[@]}" up
check "AF_PACKET" has "$out" '--vdev net_af_packet0,iface=data'
check "the replica is no root outside" test "$(stat -c %u "/proc/$(cut -d' ' -f1 "$CHAAPAR_CLUSTER_DIR/n0.pid")")" != 0
expect 0 "put" "${ctl[@]}" put greeting hello
expect 0 "get" "${ctl[@]}" --node 2 get greeting
check "the value" is_output hello
expect 0 "load" "${ctl[@]}" --json load --preload --keys 500 --clients 6 --duration 2 --history "$work/1.history"
expect 0 "impair" "${run[@]}" impair 5 2 10
expect 0 "load with loss" "${ctl[@]}" --json load --keys 500 --clients 6 --duration 2 --history "$work/2.history"
expect 0 "heal" "${run[@]}" heal
expect 0 "status" "${run[@]}" status
take_status
check "packets were lost" is_count impair_dropped -gt 50
check_histories
expect 0 "down" "${run[@]}" down
check "nothing is left" test ! -e "$CHAAPAR_CLUSTER_DIR"
