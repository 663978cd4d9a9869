#!/usr/bin/env python3
"""What the pure rooms import from outside: nothing but memcpy and its like, by `nm` on the static library's objects.

Usage: imports.py NM LIBTERN.A. Object names begin with the room: wire_record.c.o.
"""
import re
import subprocess
import sys

ORDER = ['base', 'mem', 'link', 'seal', 'wire', 'cc', 'flow', 'msg', 'peer']
PURE = {'wire', 'cc', 'flow', 'msg', 'peer'}
IMPURE_BASE = {'base_clock', 'base_err', 'base_cpu', 'base_log'}  # they read the clock, format text or ask the machine
PLAIN_DATA = {'mem_table'}
HARMLESS = {'memcpy', 'memmove', 'memset', 'memcmp', 'memchr', 'strlen', 'strcmp', 'strncmp', '__assert_fail', '__stack_chk_fail',
            '_GLOBAL_OFFSET_TABLE_', '__popcountdi2', '__divti3', '__udivti3', '__memcpy_chk', '__memset_chk', '__memmove_chk'}
MATH = {'sqrt', 'cbrt', 'pow', 'exp', 'exp2', 'log', 'log2', 'fmin', 'fmax', 'floor', 'ceil', 'round', 'llround', 'lround', 'fabs'}  # cc only


def read(nm, library):
    """@return {object: (defined, undefined)}"""
    objects, now = {}, None
    for line in subprocess.run([nm, library], check=True, capture_output=True, text=True).stdout.splitlines():
        if line.endswith(':'):
            now = re.sub(r'\.c\.o$', '', line[:-1].split('/')[-1])
            objects[now] = (set(), set())
            continue
        fields = line.split()
        if len(fields) < 2 or now is None:
            continue
        kind, name = fields[-2], fields[-1]
        objects[now][1 if kind in 'Uw' else 0].add(name)
    return objects


def room_of(name):
    return name.split('_')[0]


def is_pure(name):
    if room_of(name) == 'base':
        return name not in IMPURE_BASE
    return room_of(name) in PURE or name in PLAIN_DATA


def main():
    objects = read(sys.argv[1], sys.argv[2])
    pure = {name for name in objects if is_pure(name)}
    wrong = []
    for name in sorted(pure):
        rank = ORDER.index(room_of(name))
        allowed = set(HARMLESS) | (MATH if room_of(name) == 'cc' else set())
        for other in pure:
            if ORDER.index(room_of(other)) <= rank:
                allowed |= objects[other][0]
        for symbol in sorted(objects[name][1] - allowed):
            owner = [o for o in objects if symbol in objects[o][0]]
            wrong.append(f'{name}: imports {symbol}' + (f' of {owner[0]}' if owner else ''))
    rooms = sorted({room_of(name) for name in pure})
    print(f'{len(pure)} pure objects in {", ".join(rooms)}; {len(wrong)} wrong imports')
    print('\n'.join(wrong))
    return 1 if wrong or 'wire' not in rooms else 0


sys.exit(main())
