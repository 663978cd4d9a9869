#!/bin/bash
# Instructions that the engine spends on a data frame, both ends together: loss-free bulk, plain, counted by callgrind over the simulated link. Left out, by name: the
# simulator, copies (memcpy and base/copy.c), the harness. The same on every machine with the same compiler.
# Usage: engine.sh [-v] [BUILD_DIR [MTU]]; -v shows where they go. The last line is the ratio to the target in the design.
here=$(cd "$(dirname "$0")" && pwd)
verbose=
[ "$1" = -v ] && verbose=1 && shift
build=${1:-$here/../../build}
mtu=${2:-1500}
program=$build/perf/micro/engine_count
[ -x "$program" ] || { echo "$0: $program is missing; build it, or give the build folder" >&2; exit 2; }
command -v valgrind >/dev/null || { echo "SKIP engine_instructions_per_frame: valgrind is not installed"; exit 0; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# Collection is toggled on entering and leaving a function: on at loop_step, off inside what is left out (all of it is called inside loop_step only; elsewhere it would
# switch counting on). The set-up and the first round trips are taken off by counting a shorter run as well.
left_out='sim_tx sim_reap sim_rx sim_rx_free sim_from layout_spread layout_pack copy_bytes copy_segs'
toggles=(--toggle-collect=loop_step)
for name in $left_out; do
	toggles+=("--toggle-collect=$name")
done

# count BYTES: "instructions frames"
count() {
	timeout 300 valgrind --tool=callgrind "--callgrind-out-file=$dir/out.$1" "${toggles[@]}" "$program" "$1" "$mtu" >"$dir/print" 2>"$dir/valgrind" || {
		cat "$dir/print" "$dir/valgrind" >&2
		return 1
	}
	echo "$(sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$dir/valgrind") $(sed -n 's/^FRAMES //p' "$dir/print")"
}

small=$(count $((16 << 20))) && large=$(count $((80 << 20))) || exit 1
if [ -n "$verbose" ]; then
	callgrind_annotate --show-percs=no "$dir/out.$((80 << 20))" | sed -n '/file:function/,$p' | head -n 45
	sed -n 's/^# //p' "$dir/print"
fi
# memcpy is in libc under a name that depends on the processor: taken off by its own lines
memcpy_of() { callgrind_annotate --show-percs=no --threshold=100 "$dir/out.$1" | awk '/mem(cpy|move|set)/ { gsub(",", "", $1); sum += $1 } END { print sum + 0 }'; }
echo "$small $large $(memcpy_of $((16 << 20))) $(memcpy_of $((80 << 20)))" | awk '{
	printf "RATIO engine_instructions_per_frame %.1f <=350\n", ($3 - $1 - ($6 - $5)) / ($4 - $2) }'
