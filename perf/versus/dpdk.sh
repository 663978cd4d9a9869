#!/bin/bash
# The dpdk link between two processes of one host, beside dpdk-testpmd on the same virtual device in the same run: memif, vhost and virtio-user, and af_xdp over veth beside the udp link.
# A frame's cost is compared with testpmd's (one sends, one receives and throws away) plus one memcpy of the frame, which placing it costs any receiver. Everything is
# interleaved on the same two cores. A virtual machine's cores may be near each other (one cache) or far, and change while this runs: only what was measured at one
# distance is held against each other, near if there is all of it, otherwise far. Rates are the best of the rounds: both ends poll, and a core that is taken away for
# milliseconds only ever adds; latency is the median. Three rounds take about 200 s. Last lines: ratios to the targets.
# Usage: dpdk.sh [-n ROUNDS] [-w memif,vhost,xdp] [BUILD_DIR]; wants root (namespaces, hugepages; both are given back).
here=$(cd "$(dirname "$0")" && pwd)
rounds=3
what=memif,vhost,xdp
while getopts n:w: option; do
	case $option in
	n) rounds=$OPTARG ;;
	w) what=$OPTARG ;;
	*) echo "usage: $0 [-n ROUNDS] [-w memif,vhost,xdp] [BUILD_DIR]" >&2; exit 2 ;;
	esac
done
build=$(cd "${!OPTIND:-$here/../../build}" 2>/dev/null && pwd) || { echo "$0: no build folder; give it, as in $0 ../../build-release" >&2; exit 2; }
for program in perf/tern-bw perf/tern-lat perf/micro/frame-copy perf/micro/core-distance perf/micro/dpdk-frame transport/link/dpdk/libtern-dpdk.so; do
	[ -x "$build/$program" ] || { echo "$0: $build/$program is missing; run ninja -C $build" >&2; exit 2; }
done
. "$here/common.sh"
[ "$(id -u)" = 0 ] || { versus_say "SKIP: only root may make namespaces and reserve hugepages"; exit 77; }
[ -n "${VERSUS_INSIDE:-}" ] || versus_need dpdk-testpmd dpdk-dev # Debian has testpmd there
versus_isolate "$0" "$@"

CORE_CLIENT=${CORE_CLIENT:-0}
CORE_SERVER=${CORE_SERVER:-$(($(nproc) > 1 ? 1 : 0))}
LIMIT_S=${LIMIT_S:-280} # no round begins that would end later
PAGES=300 # of 2 MiB
PAYLOADS="1400 8192" # of a frame; headers: ours 32, UDP 8, IP 20, Ethernet 14
XDP_MTUS="1500 3498" # the usual one, and the largest that af_xdp takes
export TERN_KEY=$versus_dir/key TERN_MODULES=$build/transport/link/dpdk
"$build/apps/tern-key" "$TERN_KEY" >/dev/null || exit 1
sock=$versus_dir/port.sock
pages=
tester=
xdp_a=vda$$ xdp_b=vdb$$

end() {
	[ -n "$tester" ] && kill -9 "$tester" 2>/dev/null
	versus_end
	[ -n "$pages" ] && echo "$pages" >/proc/sys/vm/nr_hugepages
	ip netns del $xdp_a 2>/dev/null
	ip netns del $xdp_b 2>/dev/null
}
trap end EXIT

# devices KIND: the EAL's arguments, and the two ends' vdevs; the server is started first
devices() {
	case $1 in
	memif)
		eal="--no-huge -m 256 --no-pci"
		server_dev="net_memif0,socket-abstract=no,socket=$sock,bsize=9216,role=server" client_dev="net_memif0,socket-abstract=no,socket=$sock,bsize=9216,role=client" ;;
	vhost | virtio) # vhost: the server sends (--read), its driver reads any memory; virtio: the client
		eal="--in-memory --single-file-segments --no-pci -m 256"
		server_dev="net_vhost0,iface=$sock" client_dev="net_virtio_user0,path=$sock,queue_size=1024" ;;
	esac
	rm -f "$sock"
}

# tern KIND PAYLOAD PROGRAM ARGS...: runs it between two processes, JSON in $versus_dir/json
tern() {
	devices "$1"
	local mtu=$(($2 + 60)) program=$build/perf/$3
	shift 3
	: >"$versus_dir/json"
	export TERN_DPDK_EAL=$eal
	versus_serve tcp "$program" -1 --listen "dpdk://10.9.0.1:7400?ctl=127.0.0.1:PORT&dev=$server_dev&mtu=$mtu" $private &&
		versus_client 20 "$program" "dpdk://10.9.0.1:7400?ctl=127.0.0.1:PORT&ip=10.9.0.2/24&dev=$client_dev&mtu=$mtu" $private --json "$@" >"$versus_dir/json"
	versus_stop
}

# distance: how far apart the cores are now, in $apart; before it was $was
distance() {
	was=$apart
	read -r apart cycles_a_ns < <(timeout 5 $VERSUS_NICE "$build/perf/micro/core-distance" "$CORE_CLIENT" "$CORE_SERVER" 5)
}

# keep NAME VALUE: as versus_keep, with the distance; both ends of the measurement must agree on it, or it counts in the table only
keep() {
	distance
	versus_keep "$1" "$2"
	[[ "$2" =~ ^[0-9] ]] && echo "$2 ${was:-$apart} $apart" >>"$versus_dir/$1.apart"
}

ns_a_frame='8e9 * PAYLOAD / d["results"][0]["bits_per_second"]'
bulk() { # NAME KIND PAYLOAD
	local way=
	[ "$2" = vhost ] && way=--read
	tern "$2" "$3" tern-bw -s 1M -D 400ms $way
	keep "$1" "$(versus_json "${ns_a_frame/PAYLOAD/$3}" <"$versus_dir/json")"
}

latency() { # NAME KIND
	tern "$2" 1400 tern-lat -s 8 -D 300ms
	keep "$1" "$(versus_json 'd["results"][0]["t_typical_usec"]' <"$versus_dir/json")"
}

# testpmd KIND PAYLOAD: ns a frame, of the best second. Who receives is started first and killed when the sender is done: memif and vhost do not always end well.
testpmd() {
	command -v dpdk-testpmd >/dev/null || return
	devices "$1"
	local common take=rxonly give=txonly reader=server try
	[ "$1" = vhost ] && take=txonly give=rxonly reader=client
	common="--total-num-mbufs=8192 --mbuf-size=9472 --stats-period 1 --no-mlockall --txd=1024 --rxd=1024 --txpkts=$(($2 + 74))"
	timeout -k 1 10 $VERSUS_NICE stdbuf -oL dpdk-testpmd --lcores "0@$CORE_SERVER,1@$CORE_SERVER" $eal --no-telemetry --file-prefix=versus_a --vdev "$server_dev" -- \
		$common --forward-mode=$take < <(exec sleep 9) >"$versus_dir/server" 2>&1 &
	tester=$!
	for try in $(seq 40); do
		grep -q "forwarding" "$versus_dir/server" && break
		sleep 0.05
	done
	timeout -k 1 4 $VERSUS_NICE stdbuf -oL dpdk-testpmd --lcores "0@$CORE_CLIENT,1@$CORE_CLIENT" $eal --no-telemetry --file-prefix=versus_b --vdev "$client_dev" -- \
		$common --forward-mode=$give < <(exec sleep 2.6) >"$versus_dir/client" 2>&1 &
	wait $! 2>/dev/null # the virtio-user side now and then hangs at its end
	kill "$tester" 2>/dev/null # timeout passes it on
	wait "$tester" 2>/dev/null
	tester=
	keep "testpmd_$1_$2" "$(awk '/Rx-pps:/ { bytes = $4 / 8; if ($2 > most && bytes > $2 * ('"$2"' + 60)) most = $2 } END { if (most) print 1e9 / most }' "$versus_dir/$reader")"
}

hugepages() {
	pages=$(cat /proc/sys/vm/nr_hugepages) || return 1
	echo $((pages + PAGES)) 2>/dev/null >/proc/sys/vm/nr_hugepages && [ "$(cat /proc/sys/vm/nr_hugepages)" -ge $((pages + PAGES)) ] && return
	versus_say "SKIP vhost: $((2 * PAGES)) MB of hugepages cannot be had here"
	echo "$pages" >/proc/sys/vm/nr_hugepages
	pages=
	return 1
}

# Two namespaces with a veth under test and one for control. Segmentation offload is off: nothing larger than the MTU crosses this Ethernet.
veths() {
	ip netns add $xdp_a && ip netns add $xdp_b && ip link add va netns $xdp_a type veth peer name vb netns $xdp_b &&
		ip link add ca netns $xdp_a type veth peer name cb netns $xdp_b && ip -n $xdp_a addr add 10.8.0.1/24 dev va && ip -n $xdp_b addr add 10.8.0.2/24 dev vb &&
		ip -n $xdp_a addr add 10.7.0.1/24 dev ca && ip -n $xdp_b addr add 10.7.0.2/24 dev cb || { versus_say "SKIP xdp: no namespaces or veth here"; return 1; }
	for link in va ca lo; do ip -n $xdp_a link set $link up; done
	for link in vb cb lo; do ip -n $xdp_b link set $link up; done
	ip netns exec $xdp_a ethtool -K va tx off tso off gso off gro off >/dev/null && ip netns exec $xdp_b ethtool -K vb tx off tso off gso off gro off >/dev/null
}

between() { # NAME SERVER_ADDRESS CLIENT_ADDRESS
	local try
	export TERN_DPDK_EAL="--no-huge -m 256 --no-pci"
	VERSUS_PORT=$((VERSUS_PORT + 1))
	timeout -k 1 30 $VERSUS_NICE ip netns exec $xdp_a taskset -c "$CORE_SERVER" "$build/perf/tern-bw" -1 --private --listen "$2" >"$versus_dir/server" 2>&1 &
	VERSUS_SERVER=$!
	for try in $(seq 60); do
		ip netns exec $xdp_a awk '$4 == "0A" { f = 1 } END { exit !f }' /proc/net/tcp && break
		sleep 0.05
	done
	keep "$1" "$(timeout -k 1 20 $VERSUS_NICE ip netns exec $xdp_b taskset -c "$CORE_CLIENT" "$build/perf/tern-bw" --private -s 1M -D 1 --json "$3" 2>"$versus_dir/client" |
		versus_json '8e6 * 2**20 / d["results"][0]["bits_per_second"]')"
	versus_stop
}

has() { [[ ",$what," == *",$1,"* ]]; }
kinds=
has memif && kinds=memif
has vhost && hugepages && kinds="$kinds vhost virtio"
has xdp && ! veths && what=${what//xdp/}

apart= cycles_a_ns= was=
distance
start=$SECONDS
for ((round = 1; round <= rounds; round++)); do
	took=$((round > 1 ? (SECONDS - start) / (round - 1) : 0))
	if ((SECONDS - start + took > LIMIT_S)); then
		versus_say "stopping after $((round - 1)) of $rounds rounds: another one would end after $LIMIT_S s"
		break
	fi
	for kind in $kinds; do
		for payload in $PAYLOADS; do
			private=--private
			bulk "tern_${kind}_$payload" "$kind" "$payload"
			testpmd "$kind" "$payload"
			bulk "tern_${kind}_$payload" "$kind" "$payload"
			private=
			bulk "sealed_${kind}_$payload" "$kind" "$payload"
			bulk "sealed_${kind}_$payload" "$kind" "$payload"
			versus_keep "memcpy_$payload" "$(timeout 10 $VERSUS_NICE "$build/perf/micro/frame-copy" "$payload" 0.2 "$CORE_SERVER" | awk '{ print $2 }')"
		done
		private=--private
		latency "half_rtt_$kind" "$kind"
	done
	if has xdp; then
		for mtu in $XDP_MTUS; do
			ip -n $xdp_a link set va mtu $mtu && ip -n $xdp_b link set vb mtu $mtu || versus_say "FAILED veth: no MTU of $mtu"
			between af_xdp_$mtu "dpdk://10.8.0.1:7400?ctl=10.7.0.1&dev=net_af_xdp0,iface=va" "dpdk://10.8.0.1:7400?ctl=10.7.0.1&dev=net_af_xdp0,iface=vb"
			between udp_$mtu "udp://10.8.0.1:7400?ctl=10.7.0.1" "udp://10.8.0.1:7400?ctl=10.7.0.1"
		done
	fi
done

# What is nearer than twice the nearest that was seen is near. classed NAME CLASS: its samples with the cores that far apart all the time
nearest=$(cat "$versus_dir"/*.apart 2>/dev/null | awk '{ print $2; print $3 }' | sort -g | head -n 1)
classed() { awk -v c="$2" -v d="${nearest:-0}" '{ a = $2 <= 2 * d; b = $3 <= 2 * d } a == b && a == (c == "near") { print $1 }' "$versus_dir/$1.apart" 2>/dev/null; }
best() { classed "$1" "$2" | sort -g | head -n 1; }

# together SAMPLES...: the class in which all of them have values, in $class
together() {
	local sample
	for class in near far; do
		for sample in "$@"; do [[ $sample == memcpy_* || -n "$(best "$sample" "$class")" ]] || continue 2; done
		return 0
	done
	return 1
}

# ratio NAME TARGET EXPRESSION SAMPLES...: $1, $2... in the expression are the best samples
ratio() {
	local name=$1 target=$2 expression=$3 sample values= class
	shift 3
	together "$@" || { echo "RATIO $name - $target (not all of $* were measured equally far apart)"; return; }
	for sample in "$@"; do
		if [[ $sample == memcpy_* ]]; then values="$values $(sort -g "$versus_dir/$sample.samples" | head -n 1)"; else values="$values $(best "$sample" "$class")"; fi
	done
	echo "$values" | awk -v n="$name" -v t="$target" "{ printf \"RATIO %s %.3f %s\n\", n, $expression, t }"
}

# rates NAME PAYLOAD: what the best sample means a second, and in cycles of the time stamp counter
rates() {
	local ns class
	together "$1" || return
	ns=$(best "$1" "$class")
	awk -v name="$1" -v ns="$ns" -v p="$2" -v c="$cycles_a_ns" -v class="$class" 'BEGIN { printf "%-26s %8.3f Mframes/s %7.2f GB/s %7.0f cycles a frame, %s\n", name, 1e3 / ns, p / ns, ns * c, class }'
}

echo "# $(uname -sr), $(nproc) cores, client on core $CORE_CLIENT, server on core $CORE_SERVER, ${VERSUS_NICE:-usual priority}, load $(cut -d' ' -f1-3 /proc/loadavg), DPDK $(pkg-config --modversion libdpdk 2>/dev/null)"
echo "# ns a frame of so many bytes of payload, 1 MiB messages; vhost: the vhost side sends, virtio: the virtio-user side; af_xdp, udp: us a message; the ratios take the lowest"
printf '%-26s %10s %-5s %10s %10s %6s %9s\n' "#name" median unit lowest highest rounds spread
for kind in $kinds; do
	for payload in $PAYLOADS; do
		for name in tern_${kind}_$payload sealed_${kind}_$payload testpmd_${kind}_$payload; do versus_row $name ns; done
	done
	versus_row half_rtt_$kind us
done
for payload in $PAYLOADS; do versus_row memcpy_$payload ns; done
echo "# the cores: near is up to $((2 * ${nearest:-0})) ns for a line's round trip; the lowest values, as the ratios take them:"
for kind in $kinds; do
	for payload in $PAYLOADS; do
		for name in tern_${kind}_$payload sealed_${kind}_$payload testpmd_${kind}_$payload; do rates $name $payload; done
	done
done
echo "# the link alone beside the bare driver, both ends on one core (dpdk-frame): cycles, then instructions by callgrind"
for kind in $kinds; do
	for payload in $PAYLOADS; do
		TERN_DPDK_EAL='' timeout 20 $VERSUS_NICE "$build/perf/micro/dpdk-frame" $kind $payload 100000 "$CORE_CLIENT" 2>/dev/null || versus_say "FAILED dpdk-frame $kind $payload"
	done
done
"$here/../micro/dpdk.sh" "$build" $PAYLOADS
has xdp && for mtu in $XDP_MTUS; do versus_row af_xdp_$mtu us; versus_row udp_$mtu us; done
for kind in $kinds; do
	echo "RATIO ${kind}_half_rtt_us $(versus_median half_rtt_$kind || echo -) <=3"
	for payload in $PAYLOADS; do
		ratio ${kind}_plain_vs_testpmd_$payload '<=1.25' '$1 / ($2 + $3)' tern_${kind}_$payload testpmd_${kind}_$payload memcpy_$payload
		ratio ${kind}_sealed_vs_plain_$payload '>=0.5' '$1 / $2' tern_${kind}_$payload sealed_${kind}_$payload
	done
done
has xdp && for mtu in $XDP_MTUS; do ratio af_xdp_vs_udp_mtu_$mtu '>=1.2' '$2 / $1' af_xdp_$mtu udp_$mtu; done
exit 0
