# What Tern needs from the system, and its installation on Debian and Ubuntu. Sourced by apps/quickstart.sh and tests/run.sh; changes nothing by itself.
#
#   tern_deps build          to build the library and the programs
#   tern_deps build tests    and to build and run the tests
#   tern_deps guest          and those that need an RDMA device or another kernel, in a guest (tests/guest)

# Prints the packages for one purpose, a word each.
tern_packages()
{
	case $1 in
	build)
		echo gcc libc6-dev meson ninja-build pkg-config libssl-dev liburing-dev libck-dev libinih-dev libjansson-dev libxxhash-dev
		case $(dpkg --print-architecture) in amd64) echo libipsec-mb-dev ;; esac # frames are sealed by OpenSSL elsewhere
		;;
	tests)
		echo python3 binutils libcunit1-dev g++ clang iproute2 ethtool libdpdk-dev
		;;
	guest)
		echo libibverbs-dev librdmacm-dev ibverbs-providers perftest
		case $(dpkg --print-architecture) in amd64) echo qemu-system-x86 busybox-static cpio kmod xz-utils ;; esac # guests are emulated amd64
		;;
	*)
		echo "tern_packages: no such purpose: $1" >&2
		return 1
		;;
	esac
}

# Runs apt-get with root's rights, never asking anything. Uses sudo where we are not root; that may ask for a password on a terminal only.
tern_apt()
{
	local sudo=
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null || return 1
		if [ -t 2 ] && [ -z "${CI:-}" ]; then sudo=sudo; else sudo="sudo -n"; fi
	fi
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"
}

# Installs what is missing for the purposes named. Quick, and needs no rights, when nothing is. Returns 0 when all is there afterwards.
tern_deps()
{
	local purpose package log missing=
	if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
		echo "deps: not a Debian-like system; install meson, ninja, a C compiler and the libraries that meson names"
		return 0
	fi
	for purpose; do
		for package in $(tern_packages "$purpose"); do
			case $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) in
			installed) ;;
			*) missing="$missing $package" ;;
			esac
		done
	done
	[ -n "$missing" ] || return 0
	echo "deps: installing$missing"
	log=$(mktemp)
	# The lists of a fresh machine are empty, those of an old one name packages that are gone: update only then.
	if tern_apt install --no-install-recommends $missing >"$log" 2>&1 ||
	   { tern_apt update >>"$log" 2>&1; tern_apt install --no-install-recommends $missing >>"$log" 2>&1; }; then
		rm -f "$log"
		return 0
	fi
	tail -n 5 "$log"
	rm -f "$log"
	echo "deps: could not install; as root: apt-get install$missing"
	return 1
}
