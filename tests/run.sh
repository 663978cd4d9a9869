#!/bin/bash
# The one test command: builds Tern in three ways, runs every test, and says how many passed, failed and were skipped (the last line).
#
#   tests/run.sh           everything
#   tests/run.sh --quick   one build with gcc and its tests: no sanitizers, no clang
#
# Works from any folder, without a terminal, and as any user when the packages are there; otherwise it installs them (root or sudo).
# Builds lie in build-test, build-asan, build-clang. Exit status: 0 when something ran and nothing failed. A test says what it could not do by exit status 77 and its
# last line, or, for a part of it, by a line "SKIP: reason".
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 2
cd "$root" || exit 2
exec </dev/null
. apps/deps.sh

# Random tests begin from the commit: each commit tries other cases, and a red run of it is red again. TERN_SEED chooses another.
: "${TERN_SEED:=$((0x$(git rev-parse --short=8 HEAD 2>/dev/null || echo 1)))}"
export TERN_SEED

quick=0
case ${1:-} in
'') ;;
--quick) quick=1 ;;
*) echo "usage: tests/run.sh [--quick]" >&2; exit 2 ;;
esac

passed=0 failed=0 skipped=0
summary=
log=$(mktemp) || exit 2
trap 'rm -f "$log"' EXIT

say() { printf '%s  %s\n' "$(date +%H:%M:%S)" "$*"; }

note_failed()
{
	failed=$((failed + 1))
	summary="$summary
FAIL  $1"
}

note_skipped()
{
	skipped=$((skipped + 1))
	summary="$summary
SKIP  $1"
}

# configure FOLDER OPTIONS...: a folder left by an earlier run is taken over when it still fits, otherwise made anew.
configure()
{
	local build=$1
	shift
	if [ -f "$build/build.ninja" ] && meson setup --reconfigure "$build" "$@" >"$log" 2>&1; then
		return 0
	fi
	rm -rf "$build"
	meson setup "$build" "$@" >"$log" 2>&1
}

# build NAME FOLDER OPTIONS...: one counted step. Every failure shows the end of its log.
build()
{
	local name=$1 folder=$2
	shift 2
	say "$name: building in $folder"
	if configure "$folder" "$@" && ninja -C "$folder" >"$log" 2>&1; then
		passed=$((passed + 1))
		return 0
	fi
	tail -n 40 "$log"
	note_failed "$name: does not build"
	return 1
}

# run NAME FOLDER OPTIONS-OF-MESON-TEST...
run()
{
	local name=$1 folder=$2 counts
	shift 2
	say "$name: testing"
	rm -f "$folder/meson-logs/testlog.json"
	# one at a time: tests that move data on two cores have both to themselves, so their time bounds mean something
	meson test -C "$folder" --no-rebuild --num-processes 1 -t 3 "$@" 2>&1 | grep -E '^ *[0-9]+/[0-9]+ ' || true
	counts=$(python3 tests/summary.py "$name" "$folder/meson-logs/testlog.json" 2>&1 >"$folder/summary.txt")
	cat "$folder/summary.txt"
	case $counts in
	*[!0-9\ ]* | '')
		echo "$counts"
		note_failed "$name: the tests left no result"
		return
		;;
	esac
	set -- $counts
	passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
	summary="$summary
$(grep -E '^(FAIL|SKIP)  ' "$folder/summary.txt")"
}

tern_deps build tests || say "going on with what is there"
tern_deps guest || say "going on without guests" # apart: a machine without qemu still runs all the rest

export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export ASAN_OPTIONS=detect_stack_use_after_return=0:abort_on_error=0
export CC=gcc
unset CFLAGS LDFLAGS DESTDIR

if build gcc build-test -Dwerror=true -Dbuildtype=debugoptimized; then
	run gcc build-test
fi
if [ $quick = 0 ]; then
	if build sanitizers build-asan -Dwerror=true -Dbuildtype=debugoptimized -Db_sanitize=address,undefined; then
		run sanitizers build-asan --suite unit --suite link --suite sim --timeout-multiplier 4
	fi
	if command -v clang >/dev/null; then
		CC=clang build clang build-clang -Dwerror=true -Dbuildtype=debugoptimized
	else
		note_skipped "clang: build with warnings as errors: clang is not installed"
	fi
fi

ran=$((passed + failed))
echo
grep -E '^(FAIL|SKIP)' <<<"$summary" || true
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$ran" -gt 0 ]
