#!/bin/bash
# dpdk peers in two processes, and dpdk against udp: every byte checked (tern-bw --verify), both ways, sealed and not. What is set up (namespaces, hugepages,
# sockets, processes) goes when this ends, however it ends.
# Usage: dpdk.sh memif|vhost|packet|xdp|vlan|errors TERN_KEY_PROGRAM TERN_BW TERN_LAT MODULE_FOLDER
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
what=$1 key=$2 bw=$3 lat=$4
export TERN_MODULES=$5
failed=0
server=
pages=
dir=$(mktemp -d)
a=dpdka$$ b=dpdkb$$

clean() {
	[ -n "$server" ] && kill -9 "$server" 2>/dev/null
	[ -n "$pages" ] && hugepages -$pages
	ip netns del $a 2>/dev/null
	ip netns del $b 2>/dev/null
	rm -rf "$dir"
}
trap clean EXIT
trap 'exit 1' INT TERM

skip() { echo "skip: $1"; exit 77; }

printf 'leak:xsk_umem__create\n' >"$dir/leaks" # DPDK's, when it closes an af_xdp port
export TERN_KEY=$dir/key LSAN_OPTIONS=suppressions=$dir/leaks:print_suppressions=0
"$key" "$TERN_KEY" >/dev/null || exit 1

good() { echo "ok      $1"; }
bad() { echo "FAILED  $1"; failed=1; }

# where NAMESPACE: sets $in, what a command there begins with; "-": here
where() { if [ "$1" = - ]; then in=env; else in="ip netns exec $1"; fi; }

# serve WHERE PORT OPTIONS...: the server's standard error is in $dir/server. Returns 1 when it ended instead of listening
serve() {
	local port=$2 try in
	where "$1"
	shift 2
	TERN_DPDK_EAL="$eal $eal0" $in "$bw" --timeout=20s --listen "$@" >"$dir/server" 2>&1 &
	server=$!
	for try in $(seq 200); do
		$in awk -v p="$(printf ':%04X' "$port")\$" 'NR > 1 && $2 ~ p && $4 == "0A" { f = 1 } END { exit !f }' /proc/net/tcp && return 0
		kill -0 "$server" 2>/dev/null || break
		sleep 0.05
	done
	server=
	return 1
}

# move WHAT WHERE OPTIONS...: a client, which must succeed, and its server too
move() {
	local name=$1 in
	where "$2"
	shift 2
	TERN_DPDK_EAL="$eal $eal1" $in timeout -k 1 60 "$bw" --timeout=20s --verify "$@" >"$dir/out" 2>&1 || {
		bad "$name: client: $(tail -n 3 "$dir/out") server: $(tail -n 3 "$dir/server")"
		kill -9 "$server" 2>/dev/null
		wait "$server" 2>/dev/null
		server=
		rm -f "$dir"/*.sock # a killed memif server leaves it
		return
	}
	wait "$server" || bad "$name: server: $(tail -n 3 "$dir/server")"
	server=
	good "$name"
}

sets=("-s 1M -n 40 -b" "-s 256K -n 100 --private" "-s 64 -n 200" "-s 100K -n 20 --read")

# both_ways NAME WHERE0 PORT ADDRESS0 WHERE1 ADDRESS1: sealed and private, bursts and single bytes
both_ways() {
	local name=$1 where0=$2 port=$3 listen=$4 where1=$5 dial=$6 set
	for set in "${sets[@]}"; do
		case $set in *--private*) p=--private ;; *) p= ;; esac
		if ! serve "$where0" "$port" "$listen" -1 $p; then
			bad "$name: no server: $(cat "$dir/server")"
			return
		fi
		move "$name $set" "$where1" "$dial" $set
	done
}

# copies ROW PORT ADDRESS0 ADDRESS1: what large messages are copied, as that row of docs/copies.md has it
copies() {
	local row want
	row=$(awk -F'|' -v r="\`$1\`" 'index($2, r) { print $4, $5, $6, $7 }' "$here/../../docs/copies.md")
	[ -n "$row" ] || { bad "docs/copies.md has no row $1"; return; }
	serve - "$2" "$3" -1 --private || { bad "$1: no server: $(cat "$dir/server")"; return; }
	move "$1" - "$4" --private -s 1M -n 200 --json
	python3 - "$dir/out" $row <<'END' || bad "$1: docs/copies.md says $row; $(tr -d '\n' <"$dir/out" | head -c 900)"
import json, sys
text = open(sys.argv[1]).read()
r = json.loads(text[text.index("{"):text.rindex("}") + 1])["results"][0]
bytes = r["bytes"]
seen = [r["client"]["copied_bytes"], r["client"]["sealed_bytes"], r["server"]["copied_bytes"]]
sys.exit(any(not int(w) * bytes <= s <= int(w) * bytes + bytes // 8 for w, s in zip(sys.argv[2:5], seen)))
END
}

memif() {
	eal="--no-huge -m 192 --no-pci" eal0=
	sock=$dir/memif.sock
	base="net_memif0,socket-abstract=no,socket=$sock"
	l="dpdk://10.9.0.1:7411?ctl=127.0.0.1:$port&dev=$base,role=server" d="dpdk://10.9.0.1:7411?ctl=127.0.0.1:$port&ip=10.9.0.2/24&dev=$base,role=client"
	both_ways "memif" - $port "$l" - "$d"
	both_ways "memif, MTU 9000" - $port "$l,bsize=9216&mtu=9000" - "$d,bsize=9216&mtu=9000"
	l6="dpdk://[fd00:9::1]:7411?ctl=127.0.0.1:$port&dev=$base,role=server" d6="dpdk://[fd00:9::1]:7411?ctl=127.0.0.1:$port&ip6=fd00:9::2/64&dev=$base,role=client"
	both_ways "memif, IPv6" - $port "$l6" - "$d6"
	copies large_announced_dpdk_memif $port "$l" "$d"
	both_ways "memif, MTU from its buffers" - $port "$l,bsize=9216" - "$d,bsize=9216"
	killed "$l" "$d"
}

# The server is killed in mid-transfer: the client says so in words and ends; another server at the same place is reached again.
killed() {
	serve - $port "$1" || { bad "killed: no server: $(cat "$dir/server")"; return; }
	TERN_DPDK_EAL="$eal $eal1" "$bw" --timeout=20s "$2" -s 1M -D 30s >"$dir/out" 2>&1 &
	local client=$!
	sleep 1
	kill -9 "$server"
	wait "$server" 2>/dev/null
	server=
	wait $client
	case $? in 1) good "killed: the client ends: $(tail -n 1 "$dir/out")" ;; *) bad "killed: the client ends with $?: $(tail -n 3 "$dir/out")" ;; esac
	rm -f "$sock"
	serve - $port "$1" -1 || { bad "killed: no second server: $(cat "$dir/server")"; return; }
	move "killed: the next one is reached" - "$2" -s 1M -n 10
}

# hugepages BY: so many more than there are; others may do the same at the same time
hugepages() { flock /tmp/tern-hugepages.lock sh -c "echo \$((\$(cat /proc/sys/vm/nr_hugepages) + $1)) >/proc/sys/vm/nr_hugepages" 2>/dev/null; }

vhost() {
	hugepages 200 || skip "hugepages cannot be reserved here (needs root)"
	pages=200
	[ "$(awk '/HugePages_Free/ { print $2 }' /proc/meminfo)" -ge 200 ] || skip "no 400 MB of memory for hugepages"
	eal="--in-memory --single-file-segments --no-pci -m 160"
	l="dpdk://10.9.0.1:7411?ctl=127.0.0.1:$port&dev=net_vhost0,iface=$dir/vhost.sock"
	d="dpdk://10.9.0.1:7411?ctl=127.0.0.1:$port&ip=10.9.0.2/24&dev=net_virtio_user0,path=$dir/vhost.sock"
	both_ways "vhost" - $port "$l" - "$d"
	copies large_announced_dpdk_virtio $port "$l" "$d"
}

# The namespaces: v? the link under test, c? for control, udp's end without segmentation offload, which would put frames of 64 KiB on an Ethernet
veths() {
	ip netns add $a 2>"$dir/why" && ip netns add $b 2>>"$dir/why" || skip "no network namespaces: $(head -n 1 "$dir/why")"
	ip link add va netns $a type veth peer name vb netns $b 2>"$dir/why" && ip link add ca netns $a type veth peer name cb netns $b 2>>"$dir/why" ||
		skip "no veth: $(head -n 1 "$dir/why")"
	ip -n $a addr add 10.8.0.1/24 dev va && ip -n $b addr add 10.8.0.2/24 dev vb && ip -n $a addr add 10.7.0.1/24 dev ca && ip -n $b addr add 10.7.0.2/24 dev cb || exit 1
	for link in va ca lo; do ip -n $a link set $link up; done
	for link in vb cb lo; do ip -n $b link set $link up; done
	ip netns exec $b ethtool -K vb tx off tso off gso off gro off >/dev/null || skip "no ethtool"
	printf '[link]\nloss = 0.5%%\n' >"$dir/loss.ini"
}

# kernel DEV: dpdk in one namespace, udp in the other
kernel() {
	eal="--no-huge -m 192 --no-pci" eal0='' eal1=''
	local dev=$1 name=$2
	serve $a 7411 "dpdk://10.8.0.1:7411?ctl=10.7.0.1&dev=$dev" -1 || {
		grep -q "does not start\|no such port" "$dir/server" && skip "$name is refused: $(tail -n 1 "$dir/server")"
		bad "$name: no server: $(cat "$dir/server")"
		exit 1
	}
	move "$name: once" $b "udp://10.8.0.1:7411?ctl=10.7.0.1" -s 64K -n 4
	both_ways "$name: udp dials dpdk" $a 7411 "dpdk://10.8.0.1:7411?ctl=10.7.0.1&dev=$dev" $b "udp://10.8.0.1:7411?ctl=10.7.0.1"
	both_ways "$name: dpdk dials udp" $b 7411 "udp://10.8.0.2:7411?ctl=10.7.0.2" $a "dpdk://10.8.0.2:7411?ctl=10.7.0.2&dev=$dev"
	both_ways "$name: 0.5 % loss both ways" $a 7411 "dpdk://10.8.0.1:7411?ctl=10.7.0.1&dev=$dev&emu=$dir/loss.ini" $b \
		"udp://10.8.0.1:7411?ctl=10.7.0.1&emu=$dir/loss.ini"
	cut "$name"
}

# The link goes down in mid-transfer and comes back: nothing is lost but time.
cut() {
	local name=$1
	serve $b 7411 "udp://10.8.0.2:7411?ctl=10.7.0.2" -1 || { bad "$name: no server: $(cat "$dir/server")"; return; }
	(sleep 1; ip -n $b link set vb down; sleep 1; ip -n $b link set vb up) &
	local cutter=$!
	move "$name: down for a second in mid-transfer" $a "dpdk://10.8.0.2:7411?ctl=10.7.0.2&dev=$dev" -s 1M -D 4s
	wait $cutter
}

# Tagged frames: the kernel's VLAN device at the other end, with its own address, which the port under test takes part in by vlan=, or by taking over a VLAN device
vlan() {
	local dev=net_af_packet0,iface=va,framecnt=4096
	eal="--no-huge -m 192 --no-pci" eal0='' eal1=''
	sets=("-s 64K -n 10 -b" "-s 1K -n 20 --private") # also in a guest without an accelerator
	ip -n $b link add link vb name vb.5 type vlan id 5 2>"$dir/why" && ip -n $a link add link va name va.5 type vlan id 5 2>>"$dir/why" ||
		skip "no VLAN devices in this kernel: $(head -n 1 "$dir/why")"
	ip -n $b addr add 10.6.0.2/24 dev vb.5 && ip -n $b link set vb.5 up || exit 1
	ip netns exec $b ethtool -K vb.5 tx off tso off gso off gro off >/dev/null 2>&1
	both_ways "vlan=5: udp dials dpdk" $a 7411 "dpdk://10.6.0.1:7411?ctl=10.7.0.1&vlan=5&dev=$dev&ip=10.6.0.1/24" $b "udp://10.6.0.1:7411?ctl=10.7.0.1"
	both_ways "vlan=5: dpdk dials udp" $b 7411 "udp://10.6.0.2:7411?ctl=10.7.0.2" $a "dpdk://10.6.0.2:7411?ctl=10.7.0.2&vlan=5&dev=$dev&ip=10.6.0.1/24"
	ip -n $a addr add 10.6.0.3/24 dev va.5 && ip -n $a link set va.5 up || exit 1
	both_ways "if=va.5: udp dials dpdk" $a 7411 "dpdk://10.6.0.3:7411?ctl=10.7.0.1&dev=$dev&if=va.5" $b "udp://10.6.0.3:7411?ctl=10.7.0.1"
	both_ways "if=va.5: dpdk dials udp" $b 7411 "udp://10.6.0.2:7411?ctl=10.7.0.2" $a "dpdk://10.6.0.2:7411?ctl=10.7.0.2&dev=$dev&if=va.5"
}

# mtus MTU: of both interfaces
mtus() { ip -n $a link set va mtu $1 && ip -n $b link set vb mtu $1 || bad "an MTU of $1 is not taken by a veth"; }

# whole NAME BYTES: the client of the last move sent frames of so many
whole() { grep -q "peer/1 frame_bytes: $2 " "$dir/out" && good "$1: whole frames" || bad "$1: $(grep "peer/1 frame_bytes" "$dir/out")"; }

# large NAME MTU DEV: frames of the whole MTU pass, either way (each side finds out for itself what it may send)
large() {
	local name="$1, MTU $2" dev=$3
	mtus $2
	serve $b 7411 "udp://10.8.0.2:7411?ctl=10.7.0.2" -1 || { bad "$name: no server: $(cat "$dir/server")"; return; }
	move "$name, dpdk dials" $a "dpdk://10.8.0.2:7411?ctl=10.7.0.2&dev=$dev" -s 1M -n 40 -b -v
	whole "$name, dpdk dials" $(($2 - 28))
	serve $a 7411 "dpdk://10.8.0.1:7411?ctl=10.7.0.1&dev=$dev" -1 || { bad "$name: no server: $(cat "$dir/server")"; return; }
	move "$name, udp dials" $b "udp://10.8.0.1:7411?ctl=10.7.0.1" -s 1M -n 40 -b -v
	whole "$name, udp dials" $(($2 - 28))
}

# The kernel has no address there: the twin has it, and TCP goes through the port too
twin() {
	local dev=$1
	ip -n $a addr flush dev va
	both_ways "twin: udp dials dpdk" $a 7411 "dpdk://10.8.0.1:7411?dev=$dev&ip=10.8.0.1/24" $b "udp://10.8.0.1:7411"
	both_ways "twin: dpdk dials udp" $b 7411 "udp://10.8.0.2:7411" $a "dpdk://10.8.0.2:7411?dev=$dev&ip=10.8.0.1/24"
	[ -z "$(ip -n $a -o link | grep tern)" ] && good "the twin is gone" || bad "the twin is left: $(ip -n $a -o link)"
}

# says NAME PATTERN EAL ADDRESS: listening there (in $a when it is there) fails in these words
says() {
	local in=env
	ip netns list | grep -q "^$a\b" && where $a
	TERN_DPDK_EAL=$3 $in timeout -k 1 30 "$bw" --listen "$4" >"$dir/out" 2>&1
	local got=$?
	if [ $got = 1 ] && grep -Eq "$2" "$dir/out"; then good "$1"; else bad "$1: exit status $got: $(head -c 600 "$dir/out")"; fi
}

errors() {
	local huge="--no-huge -m 192 --no-pci" at=dpdk://10.9.0.1:7411 q
	q="ctl=127.0.0.1:$port"
	says "no port" "there is no port; bind a NIC" "$huge" "$at?$q"
	says "unknown port" "dev=net_nosuch0: no such port" "$huge" "$at?$q&dev=net_nosuch0"
	says "unknown device" "dev=0000:ff:1f.7: no such port" "$huge" "$at?$q&dev=0000:ff:1f.7"
	says "MTU beyond the port's" "an MTU of 9000 does not fit the buffers" "$huge" "$at?$q&mtu=9000&dev=net_memif0,socket-abstract=no,socket=$dir/e.sock,role=server"
	says "no such interface" "nosuch0" "$huge" "$at?$q&if=nosuch0&dev=net_ring0"
	says "bad option" "vlan=5000: give 1 to 4094" "$huge" "$at?$q&vlan=5000&dev=net_ring0"
	says "bad address" "ip=10.0.0.999/24: give an IPv4 address" "$huge" "$at?$q&ip=10.0.0.999/24&dev=net_ring0"
	says "bad EAL argument" "EAL does not start" "$huge --no-such-option" "$at?$q&dev=net_ring0"
	says "no address" "the port has no address; give ip=" "$huge" "dpdk://:7411?$q&dev=net_ring0"
	[ "$(cat /sys/kernel/mm/hugepages/*/free_hugepages | sort -n | tail -n 1)" = 0 ] && says "no hugepages" "no free hugepages; .*nr_hugepages.*--no-huge" "--no-pci" "$at?$q&dev=net_ring0"
	# in use by another process
	eal=$huge
	serve - $port "$at?$q&dev=net_memif0,socket-abstract=no,socket=$dir/e.sock,role=server" || { bad "in use: no server: $(cat "$dir/server")"; return; }
	says "port in use by another process" "in use|already|Failed" "$huge" "$at?ctl=127.0.0.1:$((port + 1))&dev=net_memif0,socket-abstract=no,socket=$dir/e.sock,role=server"
	kill -9 "$server"
	wait "$server" 2>/dev/null
	server=
	says "left by a killed server" "if its server was killed and left the file, remove $dir/e.sock" "$huge" \
		"$at?$q&dev=net_memif0,socket-abstract=no,socket=$dir/e.sock,role=server"
	TERN_MODULES=$dir says "without DPDK" "libtern-dpdk.so" "$huge" "$at?$q"
}

port=$((20000 + (RANDOM * 32768 + RANDOM) % 10000))
case $what in
memif) memif ;;
vhost) vhost ;;
packet) veths; dev=net_af_packet0,iface=va,framecnt=4096; kernel "$dev" af_packet
	at="dpdk://10.8.0.1:7411?ctl=10.7.0.1"
	says "MTU beyond the port's" "an MTU of 9000 does not fit the buffers of port net_af_packet0, 2048 bytes.* framesz=9216,blocksz=73728 in dev=" "$eal" "$at&mtu=9000&dev=$dev"
	says "MTU beyond the interface's" "an MTU of 1600 is larger than that of interface va, 1500; .* ip link set va mtu 1600" "$eal" "$at&mtu=1600&dev=$dev"
	says "buffers that leave a rest" "blocksz=4096 is no multiple of framesz=3072; give framesz=3072,blocksz=24576" "$eal" "$at&dev=$dev,framesz=3072"
	says "buffers beyond an mbuf" "framesz=65536 is more than an mbuf holds" "$eal" "$at&dev=$dev,framesz=65536,blocksz=65536"
	dev=net_af_packet0,iface=va,framesz=9216,blocksz=73728
	both_ways "af_packet: large buffers, MTU 1500" $a 7411 "$at&dev=$dev" $b "udp://10.8.0.1:7411?ctl=10.7.0.1"
	large af_packet 1902 net_af_packet0,iface=va
	large af_packet 9000 "$dev" ;;
xdp) veths; dev=net_af_xdp0,iface=va; kernel "$dev" af_xdp; twin "$dev"
	ip -n $a addr add 10.8.0.1/24 dev va
	at="dpdk://10.8.0.1:7411?ctl=10.7.0.1"
	large af_xdp 3498 "$dev" # what fits a page of 4 KiB beside its headers
	says "MTU beyond the port's" "an MTU of 3499 is larger than what port net_af_xdp0 takes, 3498" "$eal" "$at&mtu=3499&dev=$dev"
	mtus 1500
	ip -n $b link set vb mtu 9000
	says "an interface whose MTU XDP does not take" "does not start: .*XDP takes no interface whose MTU is near a page" "$eal" "$at&dev=$dev" ;;
vlan) veths; vlan ;;
errors) errors ;;
*) exit 2 ;;
esac
exit $failed
