#!/bin/bash
# What RDMA READ does on a long path, in the guest of rdma.sh (soft RoCE, 10 ms, 600 Mb/s, contract 500): perftest's reads with 1 and 16 outstanding, its writes, and tern's
# reads, which the owner answers by paced writes. First with a buffer of several BDP, then with one of 32 packets (1.7 ms): goodput, and what the queue dropped and held.
# Usage: rdma_read.sh [BUILD_DIR]
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
build=$(cd "${1:-$here/../../build}" 2>/dev/null && pwd) || { echo "$0: no build folder; give it, as in $0 ../../build-release" >&2; exit 2; }
[ -x "$build/perf/tern-bw" ] || { echo "$0: $build/perf/tern-bw is missing; run ninja -C $build" >&2; exit 2; }
if [ -z "${VERSUS_GUEST:-}" ]; then
	export VERSUS_GUEST=1 TERN_GUEST=always
	exec "$here/../../tests/guest/run" -i 0 -t 900 -e VERSUS_GUEST -- "$here/rdma_read.sh" "$build"
fi
. "$here/common.sh"
CORE_CLIENT=0 CORE_SERVER=0 VERSUS_NICE= VERSUS_LIMIT=200
export TERN_KEY=$versus_dir/key TERN_MODULES=$build/transport/link/rdma
"$build/apps/tern-key" "$TERN_KEY" >/dev/null || exit 1
printf 'rate = 500Mbit\ndedicated = yes\n' >"$versus_dir/contract.ini"
RTT_MS=10 RATE_MBIT=600

wire() {
	for i in v0 v1; do
		tc qdisc del dev $i root 2>/dev/null
		tc qdisc replace dev $i root handle 1: netem limit 250000 delay $((RTT_MS / 2))ms
		# the bottleneck and its buffer are apart from the delay, or the delay's packets would fill it
		tc qdisc replace dev $i parent 1:1 handle 2: tbf rate ${RATE_MBIT}mbit burst 16kb limit "$1"
	done
}

# Packets that the bottleneck of a device has dropped.
drops() { tc -s qdisc show dev "$1" | awk '/^qdisc tbf/ { t = 1 } t && /dropped/ { gsub(",", "", $7); print $7; exit }'; }

perftest() {
	local program=$1
	shift
	timeout 150 "$program" -F -d rxe1 -x 1 "$@" >"$versus_dir/server" 2>&1 &
	local server=$!
	sleep 0.5
	timeout 150 "$program" -F -d rxe0 -x 1 "$@" 10.9.0.2 2>"$versus_dir/client" | awk '/^ *[0-9]+ +[0-9]+ / { v = $4 } END { print v == "" ? "fails" : v }'
	kill $server 2>/dev/null
	wait $server 2>/dev/null
}

tern() {
	versus_serve tcp "$build/perf/tern-bw" -1 -e --listen "rdma://10.9.0.2:PORT?private=1&dev=rxe1&mode=rc&contract=$versus_dir/contract.ini" &&
		versus_client 190 "$build/perf/tern-bw" -e "rdma://10.9.0.2:PORT?private=1&dev=rxe0&mode=rc&contract=$versus_dir/contract.ini" --json --timeout 90 "$@" >"$versus_dir/json"
	versus_stop
	versus_json 'd["results"][0]["bits_per_second"] / 8e6' <"$versus_dir/json"
}

# row NAME QUEUE COMMAND...: QUEUE is the device whose queue the data passes
row() {
	local name=$1 queue=$2 value before
	shift 2
	before=$(drops "$queue")
	value=$("$@")
	printf '%-34s %10s MB/s %8s dropped\n' "$name" "$value" $(($(drops "$queue") - before))
}

for buffer in 8mb 131072; do
	wire $buffer
	echo "# guest $(uname -sr), icount; RTT $RTT_MS ms, $RATE_MBIT Mb/s, buffer $buffer bytes, contract of tern 500 Mb/s"
	for size in 65536 $([ $buffer = 8mb ] && echo 1048576); do # where 1 MiB at a time meets a small buffer, perftest does not end
		n=$((size == 65536 ? 400 : 60))
		row "ib_read_bw -o 1 -s $size" v1 perftest ib_read_bw -o 1 -s $size -n $n
		[ $size != 65536 ] || row "ib_read_bw -o 16 -s $size" v1 perftest ib_read_bw -o 16 -s $size -n $n # soft RoCE fails with 16 of 1 MiB
		row "ib_write_bw -s $size" v0 perftest ib_write_bw -s $size -n $n
		row "tern-bw --read -s $size" v1 tern --read -s $size -n $n
		row "tern-bw -s $size" v0 tern -s $size -n $n
	done
done
