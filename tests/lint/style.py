#!/usr/bin/env python3
"""The measurable part of the style: lengths of functions, files and lines, opening comments, and what must not be left behind.

Usage: style.py ROOT
"""
import pathlib
import re
import sys

FUNCTION_LINES, FILE_LINES, COLUMNS, COMMENT_COLUMNS = 70, 800, 150, 170  # a comment may end the word it has begun
FOLDERS = ['transport', 'include', 'apps', 'tests', 'perf', 'docs', '.ci']
CODE = {'.c', '.h'}
TEXT = CODE | {'.py', '.sh', '.md', '.build', '.ini', '.lua', '.map', '.txt'}
LEFT_BEHIND = re.compile(r'\b(TO' + r'DO|FIX' + r'ME|XX' + r'X)\b')
LOCAL_PATH = re.compile(r'(?<![\w.$}/-])/(ho' + r'me|Us' + r'ers|ro' + r'ot|wo' + r'rk)/\w')
DEFINITION = re.compile(r'^[A-Za-z_].*\)\s*$|^[\t ]+.*\)\s*$')


def code_columns(line):
    return len(line.expandtabs(8))


def check_functions(lines):
    """Kernel braces: a function is from { in the first column to } in the first column."""
    start = None
    for number, line in enumerate(lines, 1):
        if line == '{' and number > 1 and DEFINITION.match(lines[number - 2]):
            start = number
        elif start and line.startswith('}'):
            length = number - start - 1
            if length > FUNCTION_LINES:
                yield start, f'a function of {length} lines; at most {FUNCTION_LINES}'
            start = None


def is_comment(line):
    return bool(re.match(r'\s*(/\*|\*|//|#)', line)) or line.rstrip().endswith('*/')


def check(path):
    lines = path.read_text(errors='replace').splitlines()
    code = path.suffix in CODE
    if path.suffix != '.md' and len(lines) > FILE_LINES:
        yield len(lines), f'{len(lines)} lines; at most {FILE_LINES}'
    if code:
        yield from check_functions(lines)
        if not lines or not lines[0].startswith('/*'):
            yield 1, 'the file does not open with a comment that says what it is'
    for number, line in enumerate(lines, 1):
        if LEFT_BEHIND.search(line):
            yield number, 'a note to oneself is left behind'
        if LOCAL_PATH.search(line):
            yield number, 'a path of one machine'
        if code and line != line.rstrip():
            yield number, 'space at the end of the line'
        if code and code_columns(line) > (COMMENT_COLUMNS if is_comment(line) else COLUMNS):
            yield number, f'{code_columns(line)} columns; at most {COLUMNS}'


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    wrong, files = [], 0
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob('*')):
            if path.suffix not in TEXT or not path.is_file() or 'corpus' in path.parts:
                continue
            files += 1
            wrong += [f'{path.relative_to(root)}:{number}: {text}' for number, text in check(path)]
    print(f'{files} files, {len(wrong)} wrong')
    print('\n'.join(wrong))
    return 1 if wrong or not files else 0


sys.exit(main())
