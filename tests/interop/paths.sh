#!/bin/bash
# A peer behind two wires, of which one dies under a transfer and comes back: two namespaces, two veths, every byte checked (tern-bw --verify). A dead wire is one that
# drops in silence (a queue of no length at both ends): nobody gets an error. What is set up goes when this ends, however it ends.
# Usage: paths.sh TERN_KEY_PROGRAM TERN_BW
key=$1 bw=$2
failed=0
server= client=
dir=$(mktemp -d)
a=pathsa$$ b=pathsb$$

clean() {
	for pid in $server $client; do kill -9 "$pid" 2>/dev/null; done
	ip netns del $a 2>/dev/null
	ip netns del $b 2>/dev/null
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
[ "$(id -u)" = 0 ] && wires 2>"$dir/why" || { echo "skip: no namespaces or veth here: $(cat "$dir/why" 2>/dev/null)"; exit 77; }

cut() { tc -n $a qdisc replace dev w$1 root pfifo limit 0 && tc -n $b qdisc replace dev w$1 root pfifo limit 0; }
mend() { tc -n $a qdisc del dev w$1 root && tc -n $b qdisc del dev w$1 root; }
sent() { ip netns exec $a cat /sys/class/net/w"$1"/statistics/tx_bytes; }

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
printf 'rate = 200Mbit\ndedicated = yes\n' >"$dir/contract.ini"

# one NAME SERVER_OPTIONS CLIENT_OPTIONS: wire 2 dies and comes back, then wire 1 does, which carries the control connection too
one() {
	local name=$1 try address="udp://10.61.1.2:7400?also=10.61.2.2&cc=fixed&contract=$dir/contract.ini"
	ip netns exec $b "$bw" -v --timeout=20s -1 $2 --listen "udp://0.0.0.0:7400?cc=fixed&contract=$dir/contract.ini" >"$dir/server" 2>&1 &
	server=$!
	for try in $(seq 200); do
		ip netns exec $b awk '$2 ~ /:1CE8$/ && $4 == "0A" { f = 1 } END { exit !f }' /proc/net/tcp /proc/net/tcp6 && break
		sleep 0.05
	done
	ip netns exec $a "$bw" -v --timeout=20s --verify --json -D 270 -s 256K $2 $3 "$address" >"$dir/out" 2>"$dir/err" &
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

one sealed "" ""
one private --private ""
one "read, both ways" "" "--read -b"
exit $failed
