#!/bin/bash
# RDMA beside perftest's programs, in the same guest (tests/guest: Debian's kernel, soft RoCE on both ends of a veth, one processor, one instruction a nanosecond, so that
# results repeat whatever this machine does): bandwidth and latency of RC, then RC against UC over 10 ms and 30 ms with loss. Last lines: ratios to the targets.
# Usage: rdma.sh [-q] [BUILD_DIR]; -q leaves out all but the ratios' cells.
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
quick=
while getopts q option; do
	case $option in
	q) quick=-q ;;
	*) echo "usage: $0 [-q] [BUILD_DIR]" >&2; exit 2 ;;
	esac
done
build=$(cd "${!OPTIND:-$here/../../build}" 2>/dev/null && pwd) || { echo "$0: no build folder; give it, as in $0 ../../build-release" >&2; exit 2; }
[ -x "$build/perf/tern-bw" ] || { echo "$0: $build/perf/tern-bw is missing; run ninja -C $build" >&2; exit 2; }
if [ -z "${VERSUS_GUEST:-}" ]; then
	export VERSUS_GUEST=1 TERN_GUEST=always # real devices have numbers of their own: run the programs there by hand
	exec "$here/../../tests/guest/run" -i 0 -t 1500 -e VERSUS_GUEST -- "$here/rdma.sh" $quick "$build"
fi

. "$here/common.sh"
CORE_CLIENT=0 CORE_SERVER=0 VERSUS_NICE= VERSUS_LIMIT=300
net=$here/../../tests/guest/rdmanet
export TERN_KEY=$versus_dir/key TERN_MODULES=$build/transport/link/rdma
"$build/apps/tern-key" "$TERN_KEY" >/dev/null || exit 1
RATE=500 # Mb/s of the contract; the wire is given a little more, so that loss is all that is wrong with it

# tern MODE PROGRAM ARGS...: JSON of a run between the two devices; TERN_MORE more of both addresses
tern() {
	local mode=$1 program=$build/perf/$2
	shift 2
	versus_serve tcp "$program" -1 -e --listen "rdma://10.9.0.2:PORT?private=1&dev=rxe1&mode=$mode$TERN_MORE" &&
		versus_client 290 "$program" -e "rdma://10.9.0.2:PORT?private=1&dev=rxe0&mode=$mode$TERN_MORE" --json "$@" >"$versus_dir/json"
	versus_stop
}

perftest() {
	local program=$1
	shift
	"$program" -F -d rxe1 -x 1 "$@" >"$versus_dir/server" 2>&1 &
	sleep 0.5
	"$program" -F -d rxe0 -x 1 "$@" 10.9.0.2 2>"$versus_dir/client" | awk '/^ *[0-9]+ +[0-9]+ / { line = $0 } END { print line }'
	wait $!
}

bandwidth='d["results"][0]["bits_per_second"] / 8e6'
touching='(d["results"][0]["client"]["copied_bytes"] + d["results"][0]["server"]["copied_bytes"]) / d["results"][0]["bytes"]'

tern rc tern-bw -s 1M -n 200
versus_keep rc_1M "$(versus_json "$bandwidth" <"$versus_dir/json")"
versus_keep rc_copies "$(versus_json "$touching" <"$versus_dir/json")"
tern uc tern-bw -s 1M -n 200
versus_keep uc_1M "$(versus_json "$bandwidth" <"$versus_dir/json")"
versus_keep uc_copies "$(versus_json "$touching" <"$versus_dir/json")"
versus_keep ib_1M "$(perftest ib_write_bw -s 1048576 -n 200 | awk '{ print $4 }')"
tern rc tern-lat -s 8 -n 1000
versus_keep rc_8B "$(versus_json 'd["results"][0]["t_typical_usec"]' <"$versus_dir/json")"
versus_keep ib_8B "$(perftest ib_send_lat -e -s 8 -n 1000 | awk '{ print $5 }')"

cat >"$versus_dir/contract.ini" <<INI
rate = ${RATE}Mbit
dedicated = yes
INI
TERN_MORE="&contract=$versus_dir/contract.ini"

# cell MODE RTT-ms LOSS-percent
cell() {
	local name=$1_$2ms_$3
	local n=96
	tc qdisc replace dev v0 root netem limit 250000 delay $(($2 / 2))ms rate $((RATE * 12 / 10))mbit loss "$3%"
	tc qdisc replace dev v1 root netem limit 250000 delay $(($2 / 2))ms rate $((RATE * 12 / 10))mbit loss "$3%"
	tern "$1" tern-bw -s 1M -n $n --timeout 100
	versus_keep "$name" "$(versus_json "$bandwidth" <"$versus_dir/json")"
	tc qdisc del dev v0 root
	tc qdisc del dev v1 root
}

if [ -n "$quick" ]; then
	for mode in rc uc; do cell $mode 10 0; cell $mode 10 0.1; done
else
	for rtt in 10 30; do for loss in 0 0.01 0.1 1; do for mode in rc uc; do cell $mode $rtt $loss; done; done; done
fi

echo "# guest $(uname -sr), one processor under icount; netem $((RATE * 12 / 10)) Mb/s, contract $RATE Mb/s"
printf '%-26s %10s %-5s\n' "#name" value unit
for name in rc_1M uc_1M ib_1M; do versus_row $name MB/s | cut -c1-43; done
for name in rc_8B ib_8B; do versus_row $name us | cut -c1-43; done
for rtt in 10 30; do for loss in 0 0.01 0.1 1; do for mode in rc uc; do
	[ -s "$versus_dir/${mode}_${rtt}ms_$loss.samples" ] && versus_row "${mode}_${rtt}ms_$loss" MB/s | cut -c1-43
done; done; done
echo 1 >"$versus_dir/one.samples"
versus_ratio rc_write_bw_1M rc_1M ib_1M '>=0.95'
versus_ratio rc_send_lat_8B rc_8B ib_8B '<=1.15'
versus_ratio rc_copies_a_byte rc_copies one '<=0.001'
versus_ratio uc_copies_a_byte uc_copies one '<=0.001'
versus_ratio uc_over_rc_10ms_1e-3 uc_10ms_0.1 rc_10ms_0.1 '>=5'
versus_ratio uc_1e-3_over_lossless_10ms uc_10ms_0.1 uc_10ms_0 '>=0.90'
