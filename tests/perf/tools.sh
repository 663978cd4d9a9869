#!/bin/bash
# tern-lat and tern-bw as a person runs them: every way to move bytes with every byte checked, and every way to fail with its exit status. No speed is asserted.
# Usage: tools.sh TERN_KEY_PROGRAM TERN_LAT TERN_BW
key=$1 lat=$2 bw=$3
failed=0
server=
dir=$(mktemp -d)
trap '[ -n "$server" ] && kill -9 "$server" 2>/dev/null; rm -rf "$dir"' EXIT
export TERN_KEY=$dir/key
"$key" "$TERN_KEY" >/dev/null || exit 1

listening() { awk -v p="$(printf ':%04X' "$1")\$" 'NR > 1 && $2 ~ p && $4 == "0A" { found = 1 } END { exit !found }' /proc/net/tcp; }

# serve PROGRAM OPTIONS...: starts a server on a port nobody has; $port says which
serve() {
	local program=$1 try wait
	shift
	for try in 1 2 3 4 5; do
		port=$((20000 + (RANDOM * 32768 + RANDOM) % 10000))
		"$program" --listen "udp://127.0.0.1:$port" "$@" 2>"$dir/server" &
		server=$!
		for wait in $(seq 100); do
			listening "$port" && return 0
			kill -0 "$server" 2>/dev/null || break
			sleep 0.05
		done
		kill -9 "$server" 2>/dev/null
		wait "$server" 2>/dev/null
	done
	echo "FAILED: no server: $(cat "$dir/server")"
	exit 1
}

# expect STATUS WHAT COMMAND...
expect() {
	local want=$1 what=$2 got
	shift 2
	timeout -k 1 60 "$@" >"$dir/out" 2>"$dir/err"
	got=$?
	if [ "$got" = "$want" ]; then
		echo "ok      $what"
	else
		echo "FAILED  $what: exit status $got, not $want: $(head -c 400 "$dir/err")"
		failed=1
	fi
}

# says WHAT PATTERN: of the last command's output and errors
says() {
	grep -Eq "$2" "$dir/out" "$dir/err" && return
	echo "FAILED  $1: neither output nor error has \"$2\": $(head -c 400 "$dir/out" "$dir/err")"
	failed=1
}

ended() { # STATUS WHAT: the server's own end
	local got
	wait "$server"
	got=$?
	server=
	[ "$got" = "$1" ] && return
	echo "FAILED  $2: the server's exit status is $got, not $1: $(head -c 400 "$dir/server")"
	failed=1
}

serve "$bw"
to=udp://127.0.0.1:$port
for mode in '' --write --read; do
	for ways in '' -b; do
		expect 0 "bw ${mode:---send} ${ways:-one way}, 100 kB" "$bw" "$to" $mode $ways -s 100000 -n 50 -t 7 --verify
		expect 0 "bw ${mode:---send} ${ways:-one way}, 64 B, by time" "$bw" "$to" $mode $ways -s 64 -D 100ms --verify
	done
done
expect 0 "bw asleep" "$bw" "$to" -e -s 64K -n 50 --verify
expect 0 "bw with a thread" "$bw" "$to" --own-thread -s 64K -n 50 --verify
expect 0 "bw JSON" "$bw" "$to" -s 64K -n 50 --json
python3 -c 'import json, sys
r = json.load(open(sys.argv[1]))["results"][0]
assert r["bytes"] == 50 * 65536 and r["iterations"] == 50 and r["bits_per_second"] > 0 and r["client"]["sealed_bytes"] >= r["bytes"], r' "$dir/out" ||
	{ echo "FAILED  bw JSON: $(cat "$dir/out")"; failed=1; }
expect 1 "bw plain to a sealed server" "$bw" "$to" --private
says "bw plain to a sealed server" private=1
expect 1 "lat to a bw server" "$lat" "$to"
says "lat to a bw server" "this is tern-bw"
expect 4 "bw interrupted" timeout --preserve-status -s INT 0.7 "$bw" "$to" -D 30
[ "$(grep -c '^ 1048576' "$dir/out")" = 1 ] || { echo "FAILED  bw interrupted: no results so far"; failed=1; }
expect 0 "bw after all of that" "$bw" "$to" -s 64K -n 10 --verify
kill -INT "$server"
ended 0 "a server that is told to end"

# plain frames large enough to be received into place: a guess that was wrong must not cost a byte
serve "$bw" --private
for mtu in 4160 9000 16000 32768 65535; do
	expect 0 "bw plain, frames of $mtu" "$bw" "udp://127.0.0.1:$port?mtu=$mtu" --private -s 1M -n 300 --verify
	expect 0 "bw plain, both ways, frames of $mtu" "$bw" "udp://127.0.0.1:$port?mtu=$mtu" --private -b -s 300K -n 300 --verify
done
kill -INT "$server"
ended 0 "a plain server that is told to end"

serve "$lat" -1 --private
expect 0 "lat, sizes up to 8 MiB" "$lat" "udp://127.0.0.1:$port" --private -a -n 20 --warmup 2
[ "$(grep -c '^ [0-9]' "$dir/out")" = 23 ] || { echo "FAILED  lat, all sizes: $(cat "$dir/out")"; failed=1; }
ended 0 "a server that serves one client"
serve "$lat"
expect 0 "lat histogram and samples" "$lat" "udp://127.0.0.1:$port" -s 8 -n 100 -H -U
[ "$(grep -c '^[0-9]*, ' "$dir/out")" = 100 ] || { echo "FAILED  lat samples: $(head -c 300 "$dir/out")"; failed=1; }
(sleep 0.5; kill -9 "$server") &
expect 1 "lat when the server dies" "$lat" "udp://127.0.0.1:$port" -D 30 --timeout 5
says "lat when the server dies" "lost the other side|no answer"
wait
server=

expect 1 "nobody listens" "$bw" udp://127.0.0.1:1
says "nobody listens" "not reachable"
expect 2 "no address" "$bw"
expect 2 "a size out of bounds" "$lat" -s 16M udp://127.0.0.1:1
expect 2 "-n and -D" "$lat" -n 5 -D 5 udp://127.0.0.1:1
expect 0 --help "$bw" --help
expect 0 --version "$lat" --version
exit $failed
