#!/bin/bash
# Tern's main job in two minutes: installs what is missing, builds, and sends a safetensors file between two sites over an emulated long link.
#
#   bash apps/quickstart.sh [SIZE]     SIZE of the file, default 256MiB
#
# The link: 1 Gb/s, 15 ms each way, one datagram in 10 000 lost in each direction. Both sites are processes here, with a key made for the occasion; frames are sealed.
# Works from any folder, as root or as a user (who needs sudo if packages are missing), asks nothing, and leaves nothing but the folder build/.
# Exit status: that of tern-copy; 1 if installing or building failed.
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
size=${1:-256MiB}
build=${TERN_BUILD:-$root/build}
work= receiver=

# Ends what was started here and nothing else, also after Ctrl-C.
clean_up()
{
	trap '' INT TERM
	if [ -n "$receiver" ]; then
		kill "$receiver" 2>/dev/null
		wait "$receiver" 2>/dev/null
	fi
	[ -z "$work" ] || rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step() { printf '== %s\n' "$*"; }

fail()
{
	printf 'quickstart: %s\n' "$*" >&2
	exit 1
}

quiet()
{
	"$@" >"$work/log" 2>&1 || {
		tail -n 25 "$work/log"
		return 1
	}
}

build_all()
{
	if [ ! -f "$build/build.ninja" ]; then
		quiet meson setup "$build" "$root" -Dtests=false || return 1
	fi
	quiet ninja -C "$build" apps/tern-key apps/tern-mksafetensors apps/tern-copy/tern-copy
}

make_link()
{
	# 28 bytes a datagram: the rate counts IP packets, as the contract's does
	cat >"$work/link.ini" <<-'INI'
	[link]
	delay = 15ms
	rate = 1gbit 28b
	limit = 4mib
	loss = 0.01%
	INI
	cat >"$work/contract.ini" <<-'INI'
	rate = 1Gbit
	rtt = 30ms
	dedicated = yes
	buffer = 4MiB
	mtu = 1500
	INI
}

# Starts the receiver on a port that is free: tries another when it is not.
start_receiver()
{
	local tries
	for tries in 1 2 3 4 5 6 7 8; do
		port=$((20000 + (RANDOM * 32768 + RANDOM) % 20000))
		address="udp://127.0.0.1:$port?emu=$work/link.ini"
		: >"$work/receiver.log"
		"$build/apps/tern-copy/tern-copy" --listen "$address" --once --contract "$work/contract.ini" "$work/there" >"$work/receiver.log" 2>&1 &
		receiver=$!
		while kill -0 "$receiver" 2>/dev/null; do
			grep -q '^listening' "$work/receiver.log" && return 0
			sleep 0.05
		done
		wait "$receiver"
		receiver=
		grep -q 'in use' "$work/receiver.log" || break
	done
	cat "$work/receiver.log"
	return 1
}

work=$(mktemp -d "${TMPDIR:-/tmp}/tern-quickstart.XXXXXX") || fail "no temporary folder: set TMPDIR"
mkdir "$work/here" "$work/there"

step "What Tern needs"
. "$root/apps/deps.sh"
tern_deps build || fail "packages are missing, see above"

step "Building in $build"
build_all || fail "the build failed, see above"

step "A safetensors file with made-up content"
"$build/apps/tern-mksafetensors" --bytes "$size" "$work/here/model.safetensors" || fail "cannot make the file"

step "A site key for the two sites, the link and its contract: 1 Gb/s, 30 ms round trip, 1e-4 loss each way, sealed"
export TERN_KEY=$work/site.key
quiet "$build/apps/tern-key" "$TERN_KEY" || fail "cannot make the key"
make_link
start_receiver || fail "the receiving site does not start"

step "Sending over the emulated link"
status=0
"$build/apps/tern-copy/tern-copy" --contract "$work/contract.ini" "$work/here/model.safetensors" "$address" || status=$?
if [ "$status" = 0 ]; then
	wait "$receiver" || status=$?
	receiver=
fi
[ "$status" = 0 ] || { cat "$work/receiver.log"; exit "$status"; }

step "Comparing both sites' files"
cmp "$work/here/model.safetensors" "$work/there/model.safetensors" || exit 3
echo "The same, byte for byte. The limit is 0.985 of the contract's rate, less headers; goodput counts the file's bytes, from the first sent to the last acknowledged."
