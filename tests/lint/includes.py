#!/usr/bin/env python3
"""Each folder of transport/ includes only folders below it, and the pure ones nothing that has a clock, a socket, memory or a thread in it.

Usage: includes.py ROOT. What the rules are for: DESIGN in docs/design; the order is that of the rooms, lowest first.
"""
import pathlib
import re
import sys

ORDER = ['base', 'mem', 'link', 'seal', 'wire', 'cc', 'flow', 'msg', 'peer', 'control', 'loop', 'api', 'coll']
PURE = {'wire', 'cc', 'flow', 'msg', 'peer'}
PURE_SYSTEM = {'assert.h', 'endian.h', 'limits.h', 'stdalign.h', 'stdbool.h', 'stddef.h', 'stdint.h', 'string.h'}
PURE_EXTRA = {'cc': {'math.h'}}  # congestion control may use floating point
# Pure rooms meet these two below them only as plain data.
PLAIN_DATA = {'mem/table.h'}
# Files of base that pure rooms must not see: they read the clock, format text or ask the machine.
IMPURE_BASE = {'base/clock.h', 'base/err.h', 'base/cpu.h', 'base/log.h'}
# control hands the loop one plain struct; nothing else of control is for other rooms below api.
LOOP_ONLY_CONTROL = {'control/session.h', 'control/control.h'}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def resolve(room, source, transport, name):
    """The path under transport/ or include/ that a quoted include means: a folder's own files may be named without the folder."""
    if (transport / name).exists() or name.startswith('tern/'):
        return name
    own = source.parent / name
    if own.exists():
        return own.resolve().relative_to(transport).as_posix()
    return name


def check_pure(room, quote, name):
    if quote == '<':
        if name not in PURE_SYSTEM | PURE_EXTRA.get(room, set()):
            return f'a pure room must not include <{name}>'
    elif name in IMPURE_BASE:
        return f'a pure room must not include {name}: time and text come from above'
    elif name.split('/')[0] in ('link', 'mem', 'seal') and name not in PLAIN_DATA:
        return f'a pure room must not include {name}: it meets links and memory through base/frame.h only'
    return None


def check(room, quote, name):
    """@return what is wrong with the include, or None"""
    if room == 'coll' and not (quote == '<' or name.startswith(('tern/', 'coll/'))):
        return f'coll uses include/tern only, like any user, not {name}'
    if quote == '"':
        other = name.split('/')[0]
        if other in ORDER and ORDER.index(other) > ORDER.index(room):
            return f'{name} is above {room}'
        if other == 'control' and room == 'loop' and name not in LOOP_ONLY_CONTROL:
            return f'loop knows control by session.h and control.h, not {name}'
        if name.startswith(('tests/', 'apps/', 'perf/')):
            return f'{name} is outside transport'
    return check_pure(room, quote, name) if room in PURE else None


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    transport = root / 'transport'
    files = includes = 0
    wrong = []
    for source in sorted(transport.rglob('*.[ch]')):
        room = source.relative_to(transport).parts[0]
        if room not in ORDER:
            wrong.append(f'{source.relative_to(root)}: {room} is no room of transport/')
            continue
        files += 1
        for number, line in enumerate(source.read_text().splitlines(), 1):
            found = INCLUDE.match(line)
            if not found:
                continue
            includes += 1
            name = resolve(room, source, transport, found[2]) if found[1] == '"' else found[2]
            text = check(room, found[1], name)
            if text:
                wrong.append(f'{source.relative_to(root)}:{number}: {text}')
    for source in sorted((root / 'apps').rglob('*.[ch]')):
        for number, line in enumerate(source.read_text().splitlines(), 1):
            found = INCLUDE.match(line)
            if found and found[1] == '"' and found[2].split('/')[0] in ORDER:
                wrong.append(f'{source.relative_to(root)}:{number}: programs use include/tern only, not {found[2]}')
    print(f'{files} files of transport/, {includes} includes, {len(wrong)} wrong')
    print('\n'.join(wrong))
    return 1 if wrong or not files else 0


sys.exit(main())
