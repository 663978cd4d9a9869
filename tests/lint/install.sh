#!/bin/bash
# A program outside the tree: installs into a scratch folder, finds Tern by pkg-config, compiles, links, runs.
# Usage: install.sh MESON BUILD_FOLDER VERSION "CC ..."
set -eu
meson=$1 build=$2 version=$3 cc=$4
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$meson" install -C "$build" --no-rebuild --destdir "$scratch/root" >"$scratch/log" 2>&1 || { cat "$scratch/log"; exit 1; }
pc=$(find "$scratch/root" -name tern.pc)
[ -n "$pc" ] || { echo "no tern.pc was installed"; cat "$scratch/log"; exit 1; }
lib=$(dirname "$(dirname "$pc")")
cat >"$scratch/hello.c" <<'C'
#include <stdio.h>
#include <string.h>
#include <tern/cc.h>
#include <tern/tern.h>

int main(void)
{
	printf("tern %s, %s\n", tern_version(), tern_error_text(TERN_EADDR));
	return strcmp(tern_version(), TERN_VERSION_TEXT) != 0;
}
C
export PKG_CONFIG_SYSROOT_DIR=$scratch/root PKG_CONFIG_LIBDIR=$lib/pkgconfig
have=$(pkg-config --modversion tern)
[ "$have" = "$version" ] || { echo "tern.pc says version $have, not $version"; exit 1; }
flags=$(pkg-config --cflags --libs tern)
echo "pkg-config: ${flags//$scratch/}"
$cc -std=c11 -Wall -Wextra -Werror "$scratch/hello.c" -o "$scratch/hello" $flags
said=$(LD_LIBRARY_PATH=$lib "$scratch/hello")
echo "$said"
case $said in "tern $version, "*) ;; *) echo "expected tern $version"; exit 1 ;; esac
