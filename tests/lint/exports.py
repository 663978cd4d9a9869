#!/usr/bin/env python3
"""The shared library exports what the public headers declare: no symbol more, none less, all of them tern_*.

Usage: exports.py NM LIBTERN.SO INCLUDE_TERN_FOLDER
"""
import pathlib
import re
import subprocess
import sys


def declared(folder):
    """Functions and objects declared at the start of a line, {name: header}."""
    names = {}
    for header in sorted(pathlib.Path(folder).glob('*.h')):
        text = re.sub(r'/\*.*?\*/|//[^\n]*', '', header.read_text(), flags=re.S)
        for line in text.splitlines():
            if not re.match(r'[A-Za-z_]', line) or line.startswith(('typedef', 'static')):
                continue
            found = re.match(r'[\w\s*]+?\b(\w+)\s*\(', line) or re.match(r'extern\s+[\w\s*]+?\b(\w+)\s*(?:\[[^]]*\])?;', line)
            if found:
                names[found[1]] = header.name
    return names


def exported(nm, library):
    names = set()
    for line in subprocess.run([nm, '-D', '--defined-only', library], check=True, capture_output=True, text=True).stdout.splitlines():
        kind, name = line.split()[-2:]
        if kind != 'A':  # the version's own name
            names.add(name.split('@')[0])
    return names


def main():
    wanted, found = declared(sys.argv[3]), exported(sys.argv[1], sys.argv[2])
    wrong = [f'{name}: declared in {header}, not exported' for name, header in wanted.items() if name not in found]
    wrong += [f'{name}: exported, in no public header' for name in sorted(found) if name not in wanted]
    wrong += [f'{name}: public names begin with tern_' for name in sorted(found | set(wanted)) if not name.startswith('tern_')]
    print(f'{len(wanted)} declared, {len(found)} exported, {len(wrong)} wrong')
    print('\n'.join(wrong))
    return 1 if wrong or not wanted else 0


sys.exit(main())
