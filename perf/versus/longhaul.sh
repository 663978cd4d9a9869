#!/bin/bash
# A long link with damage on it, emulated between two processes on this host: 1 Gb/s, 30 ms round trip, one datagram in a thousand lost, sealed, 256 MiB. Goodput (from the
# first byte posted to the last one acknowledged, so one round trip of it is silence) over the contract's pinned limit, median of the rounds. The last line is
# the ratio to the target in the design. Usage: longhaul.sh [-n ROUNDS] [-m MTU] [-p] [BUILD_DIR]; -p polls instead of sleeping between frames.
here=$(cd "$(dirname "$0")" && pwd)
rounds=5 mtu=9000 wait=-e
while getopts n:m:p option; do
	case $option in
	n) rounds=$OPTARG ;;
	m) mtu=$OPTARG ;;
	p) wait= ;;
	*) echo "usage: $0 [-n ROUNDS] [-m MTU] [-p] [BUILD_DIR]" >&2; exit 2 ;;
	esac
done
build=$(cd "${!OPTIND:-$here/../../build}" 2>/dev/null && pwd) || { echo "$0: no build folder; give it, as in $0 ../../build-release" >&2; exit 2; }
[ -x "$build/perf/tern-bw" ] || { echo "$0: $build/perf/tern-bw is missing; run ninja -C $build" >&2; exit 2; }
. "$here/common.sh"
versus_isolate "$0" "$@"

LIMIT_S=170 # no round begins after this
export TERN_KEY=$versus_dir/key
"$build/apps/tern-key" "$TERN_KEY" >/dev/null || exit 1
cat >"$versus_dir/wan.ini" <<'INI'
[link]
delay = 15ms
rate = 1gbit 28b
limit = 4mib
loss = 0.001
INI
cat >"$versus_dir/contract.ini" <<'INI'
rate = 1Gbit
rtt = 30ms
dedicated = yes
INI
CORE_CLIENT=0-$(($(nproc) - 1)) # the emulated link has threads of its own
CORE_SERVER=$CORE_CLIENT
address="udp://127.0.0.1:PORT?mtu=$mtu&emu=$versus_dir/wan.ini"
start=$SECONDS
for ((round = 1; round <= rounds; round++)); do
	if ((SECONDS - start > LIMIT_S)); then
		versus_say "stopping after $((round - 1)) of $rounds rounds: $LIMIT_S s are over"
		break
	fi
	versus_serve tcp "$build/perf/tern-bw" -1 $wait --listen "$address" --contract "$versus_dir/contract.ini" &&
		versus_client 30 "$build/perf/tern-bw" $wait "$address" --contract "$versus_dir/contract.ini" -s 16M -n 16 --json >"$versus_dir/json"
	versus_stop
	versus_keep goodput "$(versus_json 'd["results"][0]["bits_per_second"] / 1e6 if d["results"][0]["iterations"] == 16 else None' <"$versus_dir/json")"
	limit=$(versus_json 'd["results"][0]["limit_bits_per_second"] / 1e6' <"$versus_dir/json")
	[ -n "$limit" ] && echo "$limit" >"$versus_dir/limit.samples"
done
echo "# $(uname -sr), $(nproc) cores, ${VERSUS_NICE:-usual priority}, load $(cut -d' ' -f1-3 /proc/loadavg), mtu $mtu, $([ -n "$wait" ] && echo sleeping || echo polling)"
printf '%-26s %10s %-5s %10s %10s %6s %9s\n' "#name" median unit lowest highest rounds spread
versus_row goodput Mb/s
versus_row limit Mb/s
versus_ratio emu_1g_30ms_1e-3 goodput limit '>=0.95'
versus_median goodput >/dev/null
