#!/bin/bash
# Instructions that a frame costs the dpdk link, sender and receiver, beside its bare driver: dpdk-frame over memif under callgrind. The same on every machine with the
# same compiler and DPDK (vector code that callgrind does not know is left out by DPDK itself). Usage: dpdk.sh [BUILD_DIR [PAYLOAD_BYTES...]]
here=$(cd "$(dirname "$0")" && pwd)
build=${1:-$here/../../build}
shift
program=$build/perf/micro/dpdk-frame
[ -x "$program" ] || { echo "$0: $program is missing; build it, with libdpdk-dev installed, or give the build folder" >&2; exit 2; }
command -v valgrind >/dev/null || { echo "SKIP dpdk_instructions: valgrind is not installed"; exit 0; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export TERN_MODULES=${TERN_MODULES:-$build/transport/link/dpdk}

for payload in "${@:-1400}"; do
	timeout 120 valgrind --tool=callgrind "--callgrind-out-file=$dir/out" "$program" memif "$payload" 20000 >"$dir/print" 2>"$dir/valgrind" || {
		tail -n 3 "$dir/print" "$dir/valgrind" >&2
		exit 1
	}
	frames=$(sed -n 's/^link.* \([0-9]*\) frames$/\1/p' "$dir/print")
	callgrind_annotate --inclusive=yes "$dir/out" | awk -v n="$frames" -v p="$payload" '
		match($0, /:(link|bare)_(tx|rx) /) { name = substr($0, RSTART + 1, RLENGTH - 2); gsub(",", "", $1); each[name] = $1 / n }
		END { printf "dpdk_instructions memif %d: link tx %.0f rx %.0f, bare driver tx %.0f rx %.0f\n", p, each["link_tx"], each["link_rx"], each["bare_tx"], each["bare_rx"] }'
done
