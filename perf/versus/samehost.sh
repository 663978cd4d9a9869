#!/bin/bash
# Two processes on one host, tern beside its peers in one go: bulk of 1 MiB messages and half the round-trip time of 8 bytes. Everything is interleaved, every
# program gets the same two cores, and what counts is the median of the rounds. The last lines are ratios to the targets in the design; times differ between
# machines, ratios less so. Usage: samehost.sh [-n ROUNDS] [BUILD_DIR]; as root it measures in a network namespace of its own.
here=$(cd "$(dirname "$0")" && pwd)
rounds=5
while getopts n: option; do
	case $option in
	n) rounds=$OPTARG ;;
	*) echo "usage: $0 [-n ROUNDS] [BUILD_DIR]" >&2; exit 2 ;;
	esac
done
build=$(cd "${!OPTIND:-$here/../../build}" 2>/dev/null && pwd) || { echo "$0: no build folder; give it, as in $0 ../../build-release" >&2; exit 2; }
bin=$build/perf
for program in tern-bw tern-lat micro/udp-loop micro/udp-pingpong; do
	[ -x "$bin/$program" ] || { echo "$0: $bin/$program is missing; run ninja -C $build" >&2; exit 2; }
done
. "$here/common.sh"
if [ -z "${VERSUS_INSIDE:-}" ]; then
	versus_need iperf3 iperf3
	versus_need ucx_perftest ucx-utils
	versus_need sockperf sockperf
fi
versus_isolate "$0" "$@"

LIMIT_S=170 # no round begins after this
CORE_CLIENT=${CORE_CLIENT:-0}
CORE_SERVER=${CORE_SERVER:-$(($(nproc) > 1 ? 1 : 0))}
# UCX takes the namespace's congestion control. CUBIC is the better one here (BBR cuts loopback by 2 to 4). Where a namespace may not choose it, the route can; it is
# set around UCX only, because it overrules iperf3's -C.
tcp_route=
if ! sysctl -q -w net.ipv4.tcp_congestion_control=cubic 2>/dev/null; then
	[ -n "${VERSUS_INSIDE:-}" ] && ip route replace local 127.0.0.1 dev lo table local src 127.0.0.1 congctl cubic 2>/dev/null && tcp_route=cubic
	[ -n "$tcp_route" ] && ip route replace local 127.0.0.1 dev lo table local src 127.0.0.1
fi
tcp_ucx=${tcp_route:-$(cat /proc/sys/net/ipv4/tcp_congestion_control)}
export TERN_KEY=$versus_dir/key
"$build/apps/tern-key" "$TERN_KEY" >/dev/null || exit 1

tern_bw() { # NAME OPTIONS...
	local name=$1
	shift
	versus_serve tcp "$bin/tern-bw" -1 --listen udp://127.0.0.1:PORT "$@" &&
		versus_keep "$name" "$(versus_client 20 "$bin/tern-bw" udp://127.0.0.1:PORT "$@" -s 1M -D 1 --json | versus_json 'd["results"][0]["bits_per_second"] / 8e9')"
	versus_stop
}

tern_lat() {
	local name=$1
	shift
	versus_serve tcp "$bin/tern-lat" -1 --listen udp://127.0.0.1:PORT "$@" &&
		versus_keep "$name" "$(versus_client 20 "$bin/tern-lat" udp://127.0.0.1:PORT "$@" -s 8 -D 500ms --json | versus_json 'd["results"][0]["t_typical_usec"]')"
	versus_stop
}

iperf() { # NAME CONGESTION_CONTROL STREAMS
	command -v iperf3 >/dev/null || return
	versus_serve tcp iperf3 -s -1 -p PORT &&
		versus_keep "$1" "$(versus_client 10 iperf3 -c 127.0.0.1 -p PORT -C "$2" -P "$3" -t 1 -J | versus_json 'd["end"]["sum_received"]["bits_per_second"] / 8e9')"
	versus_stop
}

# The last column but one of the line "Final" is the overall value: MB/s of 2^20, or us of half a round trip.
ucx() { # NAME TEST SIZE ROUNDS COLUMN SCALE
	command -v ucx_perftest >/dev/null || return
	[ -n "$tcp_route" ] && ip route replace local 127.0.0.1 dev lo table local src 127.0.0.1 congctl "$tcp_route"
	versus_serve tcp env UCX_TLS=tcp UCX_NET_DEVICES=lo UCX_WARN_UNUSED_ENV_VARS=n ucx_perftest -p PORT &&
		versus_keep "$1" "$(versus_client 20 env UCX_TLS=tcp UCX_NET_DEVICES=lo UCX_WARN_UNUSED_ENV_VARS=n ucx_perftest 127.0.0.1 -p PORT -t "$2" -s "$3" -n "$4" -w 100 |
			awk -v c="$5" -v s="$6" '/^Final:/ { print $c * s }')"
	versus_stop
	[ -n "$tcp_route" ] && ip route replace local 127.0.0.1 dev lo table local src 127.0.0.1
}

sock() {
	command -v sockperf >/dev/null || return
	versus_serve udp sockperf server -i 127.0.0.1 -p PORT --nonblocked &&
		versus_keep sockperf_udp "$(versus_client 10 sockperf ping-pong -i 127.0.0.1 -p PORT -t 1 -m 14 --nonblocked | sed -n 's/.*Summary: Latency is \([0-9.]*\) usec.*/\1/p')"
	versus_stop
}

bare_bulk() { # FRAME
	versus_keep "bare_gso_$1" "$(timeout -k 1 10 $VERSUS_NICE "$bin/micro/udp-loop" "$1" 0.7 "$CORE_CLIENT" "$CORE_SERVER" 2>"$versus_dir/client" | awk '{ print $2 / 8e9 }')"
}

bare_pingpong() {
	versus_keep bare_pingpong "$(timeout -k 1 10 $VERSUS_NICE "$bin/micro/udp-pingpong" 8 100000 "$CORE_CLIENT" "$CORE_SERVER" 2>"$versus_dir/client" | awk '{ print $2 }')"
}

start=$SECONDS
for ((round = 1; round <= rounds; round++)); do
	if ((SECONDS - start > LIMIT_S)); then
		versus_say "stopping after $((round - 1)) of $rounds rounds: $LIMIT_S s are over"
		break
	fi
	tern_bw tern_plain_1m --private
	bare_bulk 65507
	iperf iperf3_cubic_1 cubic 1
	tern_lat tern_plain_8 --private
	bare_pingpong
	ucx ucx_tcp_8 tag_lat 8 50000 3 1
	tern_bw tern_sealed_1m
	bare_bulk 8972
	iperf iperf3_cubic_8 cubic 8
	ucx ucx_tcp_1m tag_bw 1048576 2000 6 0.001048576
	tern_lat tern_sealed_8
	sock
	bare_bulk 1472
	iperf iperf3_bbr_1 bbr 1
	iperf iperf3_bbr_8 bbr 8
done

# best NAME...: the one with the highest median
best() {
	local name value most=0 which=$1
	for name in "$@"; do
		value=$(versus_median "$name") && awk -v a="$value" -v b="$most" 'BEGIN { exit !(a > b) }' && most=$value && which=$name
	done
	echo "$which"
}
best_tcp=$(best iperf3_cubic_1 iperf3_cubic_8 iperf3_bbr_1 iperf3_bbr_8)
best_bare=$(best bare_gso_1472 bare_gso_8972 bare_gso_65507)

echo "# $(uname -sr), $(nproc) cores, client on core $CORE_CLIENT, server on core $CORE_SERVER, ${VERSUS_NICE:-usual priority}, load $(cut -d' ' -f1-3 /proc/loadavg)"
echo "# TCP of UCX: $tcp_ucx; bulk in GB/s of 1 MiB messages (iperf3: its own 128 KiB), latency in us of half a round trip of 8 bytes (sockperf: 14)"
printf '%-26s %10s %-5s %10s %10s %6s %9s\n' "#name" median unit lowest highest rounds spread
for name in tern_plain_1m tern_sealed_1m bare_gso_1472 bare_gso_8972 bare_gso_65507 iperf3_cubic_1 iperf3_cubic_8 iperf3_bbr_1 iperf3_bbr_8 ucx_tcp_1m; do
	versus_row $name GB/s
done
for name in tern_plain_8 tern_sealed_8 bare_pingpong ucx_tcp_8 sockperf_udp; do
	versus_row $name us
done
echo "# best of iperf3: $best_tcp; best bare UDP loop: $best_bare"
versus_ratio udp_plain_vs_iperf3_best tern_plain_1m "$best_tcp" '>=1.0'
versus_ratio udp_plain_vs_bare_gso tern_plain_1m "$best_bare" '>=0.6'
versus_ratio sealed_vs_plain tern_sealed_1m tern_plain_1m '>=0.5'
versus_ratio half_rtt_vs_ucx_tcp tern_plain_8 ucx_tcp_8 '<=0.8'
versus_ratio half_rtt_vs_bare_pingpong tern_plain_8 bare_pingpong '<=1.5'
versus_median tern_plain_1m >/dev/null && versus_median tern_sealed_1m >/dev/null && versus_median tern_plain_8 >/dev/null
