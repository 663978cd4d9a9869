#!/bin/bash
# A peer behind two wires, of which one dies under a transfer and comes back: two namespaces, two veths, every byte checked (tern-bw --verify). A dead wire is one that
# drops in silence (a queue of no length at both ends): nobody gets an error. What is set up goes when this ends, however it ends.
# With a mode it is over RDMA, between the four devices of tests/guest/rdmanet, where netem loses everything.
# Usage: paths.sh TERN_KEY_PROGRAM TERN_BW [rc|uc]
key=$1 bw=$2 mode=${3:-}
failed=0
server= client=
dir=$(mktemp -d)
a=pathsa$$ b=pathsb$$

clean() {
	for pid in $server $client; do kill -9 "$pid" 2>/dev/null; done
	[ -n "$mode" ] || { ip netns del $a; ip netns del $b; } 2>/dev/null
	rm -rf "$dir"
}
trap clean EXIT
trap 'exit 1' INT TERM

good() { echo "ok      $1"; }
bad() { echo "FAILED  $1"; failed=1; }

wires() {
	local i
	ip netns add $a && ip netns add $b || return 1
	for i in 1 2; do
		ip link add w$i netns $a type veth peer name w$i netns $b || return 1
		ip -n $a addr add 10.61.$i.1/24 dev w$i && ip -n $b addr add 10.61.$i.2/24 dev w$i || return 1
		ip -n $a link set w$i up && ip -n $b link set w$i up || return 1
	done
	ip -n $a link set lo up && ip -n $b link set lo up
}
[ -n "$mode" ] || { [ "$(id -u)" = 0 ] && wires 2>"$dir/why"; } || { echo "skip: no namespaces or veth here: $(cat "$dir/why" 2>/dev/null)"; exit 77; }

if [ -n "$mode" ]; then # wire 1: v0 and v1, wire 2: v2 and v3
	[ -e /sys/class/net/v3 ] || { echo "skip: the second wire is for the guest alone"; exit 77; }
	in_a= in_b= rate=100Mbit
	cut() { tc qdisc replace dev v$((2 * $1 - 2)) root netem loss 100% && tc qdisc replace dev v$((2 * $1 - 1)) root netem loss 100%; }
	mend() { tc qdisc del dev v$((2 * $1 - 2)) root && tc qdisc del dev v$((2 * $1 - 1)) root; }
	sent() { cat /sys/class/net/v$((2 * $1 - 2))/statistics/tx_bytes; }
	listen="rdma://0.0.0.0:7400?private=1&mode=$mode&dev=rxe1,rxe3&" dial="rdma://10.9.0.2:7400?also=10.9.1.2&private=1&mode=$mode&dev=rxe0,rxe2&"
else
	in_a="ip netns exec $a" in_b="ip netns exec $b" rate=200Mbit
	cut() { tc -n $a qdisc replace dev w$1 root pfifo limit 0 && tc -n $b qdisc replace dev w$1 root pfifo limit 0; }
	mend() { tc -n $a qdisc del dev w$1 root && tc -n $b qdisc del dev w$1 root; }
	sent() { ip netns exec $a cat /sys/class/net/w"$1"/statistics/tx_bytes; }
	listen="udp://0.0.0.0:7400?" dial="udp://10.61.1.2:7400?also=10.61.2.2&"
fi

# grows WIRE MIB: within 10 s so much more leaves by it
grows() {
	local from try
	from=$(sent "$1")
	for try in $(seq 200); do
		[ $(($(sent "$1") - from)) -gt $(($2 << 20)) ] && return
		kill -0 "$client" 2>/dev/null || break
		sleep 0.05
	done
	return 1
}

export TERN_KEY=$dir/key
"$key" "$TERN_KEY" >/dev/null || exit 1
# paced by the clock alone, whatever else the machine does
printf 'rate = %s\ndedicated = yes\n' $rate >"$dir/contract.ini"

# one NAME SERVER_OPTIONS CLIENT_OPTIONS: wire 2 dies and comes back, then wire 1 does, which carries the control connection too
one() {
	local name=$1 try address="${dial}cc=fixed&contract=$dir/contract.ini"
	$in_b "$bw" -v --timeout=20s -1 $2 --listen "${listen}cc=fixed&contract=$dir/contract.ini" >"$dir/server" 2>&1 &
	server=$!
	for try in $(seq 200); do
		$in_b awk '$2 ~ /:1CE8$/ && $4 == "0A" { f = 1 } END { exit !f }' /proc/net/tcp /proc/net/tcp6 && break
		sleep 0.05
	done
	$in_a "$bw" -v --timeout=20s --verify --json -D 270 -s 256K $2 $3 "$address" >"$dir/out" 2>"$dir/err" &
	client=$!
	if grows 1 8 && grows 2 8; then good "$name: both wires are used"; else bad "$name: both wires are used"; fi
	cut 2
	if grows 1 16; then good "$name: one dies, the other goes on"; else bad "$name: one dies, the other goes on"; fi
	mend 2
	if grows 2 8; then good "$name: it is used again"; else bad "$name: it is used again"; fi
	cut 1
	if grows 2 16; then good "$name: the first one dies"; else bad "$name: the first one dies"; fi
	mend 1
	if grows 1 8; then good "$name: and is used again"; else bad "$name: and is used again"; fi
	kill -INT $client # results so far; 4: so ended, all bytes right
	wait $client
	if [ $? = 4 ]; then good "$name: every byte is right"; else bad "$name: client: $(tail -n 30 "$dir/err") server: $(tail -n 3 "$dir/server")"; fi
	client=
	wait "$server" || bad "$name: server: $(tail -n 3 "$dir/server")"
	server=
}

if [ -n "$mode" ]; then
	one "$mode" "" ""
	one "$mode, read, both ways" "" "--read -b"
else
	one sealed "" ""
	one private --private ""
	one "read, both ways" "" "--read -b"
fi
exit $failed
