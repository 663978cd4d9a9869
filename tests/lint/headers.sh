#!/bin/bash
# Each public header compiles alone, as strict C11 and as C++17, without a warning, and twice in one file.
# Usage: headers.sh INCLUDE_FOLDER "CC ..." ["CXX ..."]
set -u
include=$1 cc=$2 cxx=${3:-}
flags="-Wall -Wextra -Werror -pedantic -fsyntax-only -I$include"
checked=0 failed=0
for header in "$include"/tern/*.h; do
	name=tern/$(basename "$header")
	text=$(printf '#include "%s"\n#include "%s"\n' "$name" "$name")
	if ! $cc -std=c11 $flags -x c - <<<"$text"; then
		echo "$name: not C11 by itself"
		failed=$((failed + 1))
	fi
	if [ -n "$cxx" ] && ! $cxx -std=c++17 $flags -x c++ - <<<"$text"; then
		echo "$name: not C++17 by itself"
		failed=$((failed + 1))
	fi
	checked=$((checked + 1))
done
echo "$checked headers, $failed wrong"
[ -n "$cxx" ] || echo "SKIP: C++17 half of the header check: no C++ compiler"
[ "$failed" = 0 ] && [ "$checked" -gt 0 ]
