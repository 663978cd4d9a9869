#!/usr/bin/env python3
"""Counts the results of one `meson test` and shows what failed and what was skipped, with reasons. Called by run.sh.

Usage: summary.py NAME TESTLOG.JSON. Text on stdout; on stderr the three numbers: passed failed skipped.
"""
import json
import sys

PASSED = {'OK', 'EXPECTEDFAIL'}
SKIPPED = {'SKIP'}
TAIL_LINES = 40


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else 'no reason given'


def reason(text):
    """Why a whole test was skipped: its last "SKIP: ..." line, otherwise its last line."""
    lines = [line for line in text.splitlines() if line.strip().startswith('SKIP:')]
    return last_line('\n'.join(lines) or text).removeprefix('SKIP:').strip()


def main():
    name, path = sys.argv[1], sys.argv[2]
    passed = failed = skipped = 0
    with open(path, encoding='utf-8', errors='replace') as log:
        tests = [json.loads(line) for line in log if line.strip()]
    for test in tests:
        title = f'{name}: {test["name"].split(":", 1)[-1]}'
        text = (test.get('stdout') or '') + (test.get('stderr') or '')
        if test['result'] in SKIPPED:
            skipped += 1
            print(f'SKIP  {title}: {reason(text)}')
            continue
        for line in text.splitlines():
            if line.strip().startswith('SKIP:'):
                skipped += 1
                print(f'SKIP  {title}: {line.strip().removeprefix("SKIP:").strip()}')
        if test['result'] in PASSED:
            passed += 1
            continue
        failed += 1
        print(f'FAIL  {title}: {test["result"].lower()}, exit status {test.get("returncode")}, {test.get("duration", 0):.1f} s')
        print('\n'.join('      | ' + line for line in text.splitlines()[-TAIL_LINES:]))
    print(passed, failed, skipped, file=sys.stderr)


main()
