# Shared by the comparisons in this folder; sourced by them. A namespace of their own, servers that never outlive a run, medians.

versus_say() { printf '%s\n' "$*" >&2; }

# versus_isolate SCRIPT ARGS...: runs the script again in namespaces with nothing but loopback, where no setting of ours outlives it and every process ends with it.
versus_isolate() {
	[ -n "${VERSUS_INSIDE:-}" ] && { ip link set lo up; return; }
	if [ "$(id -u)" = 0 ] && unshare --net --pid --fork --mount-proc true 2>/dev/null; then
		export VERSUS_INSIDE=1
		exec unshare --net --pid --fork --mount-proc --kill-child "$@"
	fi
	versus_say "not root: measuring in the host's own network namespace, with its congestion control and whatever else runs there"
}

# versus_need PROGRAM PACKAGE: installs it where it is missing and that is possible. Before versus_isolate: inside there is no network.
versus_need() {
	command -v "$1" >/dev/null && return 0
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { versus_say "SKIP $1: not installed, and only root can install it"; return 1; }
	versus_say "installing $2"
	timeout 120 apt-get install -y -q --no-install-recommends "$2" >/dev/null 2>&1 || { versus_say "SKIP $1: apt-get could not install $2"; return 1; }
}

VERSUS_PORT=21000
# What else runs on the machine should disturb as little as it can; the same for every program.
VERSUS_NICE=
nice -n -19 true 2>/dev/null && [ "$(nice -n -19 nice)" = -19 ] && VERSUS_NICE="nice -n -19"
# Where the kernel groups processes by session (sched_autogroup) nice counts within one only: the whole session is raised for as long as this runs. Without it, beside
# a build in another session, two processes at nice -19 lost 38 % of their cores; with it 3 %.
versus_group=$(sed -n 's/.* nice //p' /proc/self/autogroup 2>/dev/null)
[ -n "$VERSUS_NICE" ] && [ -n "$versus_group" ] && echo -19 2>/dev/null >/proc/self/autogroup
VERSUS_SERVER=
versus_dir=$(mktemp -d)
versus_end() {
	[ -n "$versus_group" ] && echo "$versus_group" 2>/dev/null >/proc/self/autogroup
	[ -n "$VERSUS_SERVER" ] && kill -9 "$VERSUS_SERVER" 2>/dev/null
	rm -rf "$versus_dir"
}
trap versus_end EXIT
trap 'exit 130' INT TERM

# versus_listening tcp|udp PORT: waits until something listens there, at most 3 s.
versus_listening() {
	local hex try state
	hex=$(printf ':%04X' "$2")
	[ "$1" = tcp ] && state=0A || state=07
	for try in $(seq 60); do
		awk -v p="$hex\$" -v s="$state" 'NR > 1 && $2 ~ p && $4 == s { found = 1 } END { exit !found }' "/proc/net/$1" "/proc/net/${1}6" 2>/dev/null && return 0
		sleep 0.05
	done
	return 1
}

# versus_serve tcp|udp COMMAND...: starts the server on its core; PORT in the command is the port it gets, VERSUS_PORT.
versus_serve() {
	local kind=$1
	shift
	VERSUS_PORT=$((VERSUS_PORT + 1))
	timeout -k 1 "${VERSUS_LIMIT:-30}" $VERSUS_NICE taskset -c "$CORE_SERVER" "${@//PORT/$VERSUS_PORT}" >"$versus_dir/server" 2>&1 &
	VERSUS_SERVER=$!
	versus_listening "$kind" "$VERSUS_PORT"
}

# versus_client SECONDS COMMAND...: runs the client on its core, prints what it prints.
versus_client() {
	local limit=$1
	shift
	timeout -k 1 "$limit" $VERSUS_NICE taskset -c "$CORE_CLIENT" "${@//PORT/$VERSUS_PORT}" 2>"$versus_dir/client"
}

versus_stop() {
	[ -n "$VERSUS_SERVER" ] || return 0
	kill "$VERSUS_SERVER" 2>/dev/null # timeout passes it on
	wait "$VERSUS_SERVER" 2>/dev/null
	VERSUS_SERVER=
}

# versus_json EXPRESSION: a number out of the JSON object d on standard input.
versus_json() { python3 -c 'import json, sys; d = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1" 2>/dev/null; }

# versus_keep NAME VALUE: one more sample; a value that is not a number is a failure, and its reason is shown once.
versus_keep() {
	if [[ "$2" =~ ^[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?$ ]]; then
		echo "$2" >>"$versus_dir/$1.samples"
	elif [ ! -e "$versus_dir/$1.failed" ]; then
		versus_say "FAILED $1: $(head -c 300 "$versus_dir/client" 2>/dev/null | tr '\n' ' ') $(tail -n 2 "$versus_dir/server" 2>/dev/null | head -c 300 | tr '\n' ' ')"
		touch "$versus_dir/$1.failed"
	fi
}

versus_median() {
	[ -s "$versus_dir/$1.samples" ] || return 1
	sort -g "$versus_dir/$1.samples" | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# versus_row NAME UNIT: median, lowest, highest, how many.
versus_row() {
	[ -s "$versus_dir/$1.samples" ] || { printf '%-26s %10s\n' "$1" "-"; return; }
	sort -g "$versus_dir/$1.samples" | awk -v name="$1" -v unit="$2" -v median="$(versus_median "$1")" '{ v[NR] = $1 }
		END { printf "%-26s %10.3f %-5s %10.3f %10.3f %6d %8.0f%%\n", name, median, unit, v[1], v[NR], NR, 100 * (v[NR] - v[1]) / median }'
}

# versus_ratio NAME OVER UNDER TARGET: of medians.
versus_ratio() {
	local over under
	if over=$(versus_median "$2") && under=$(versus_median "$3"); then
		awk -v n="$1" -v a="$over" -v b="$under" -v t="$4" 'BEGIN { printf "RATIO %s %.3f %s\n", n, a / b, t }'
	else
		echo "RATIO $1 - $4 (no value of ${over:+$3}${over:-$2})"
	fi
}
