#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""embed-schema.py OUT.c SCHEMA.rng...: schemas as C arrays, so that none is looked for at run time.

Each SCHEMA.rng becomes `const char schema_SCHEMA[]` and `const unsigned schema_SCHEMA_len`. An
<include> is replaced by what the named file (in the same folder) defines, and comments go, so
that what is embedded stands alone. With OUT.rng for a single schema, that text itself is written.
"""
import pathlib
import re
import sys

INCLUDE = re.compile(r'<include\s+href="([^"]+)"\s*/>')
COMMENT = re.compile(r'<!--.*?-->\s*', re.S)
GRAMMAR = re.compile(r'<grammar\b[^>]*>(.*)</grammar>', re.S)


def resolved(path):
    text = COMMENT.sub('', path.read_text(encoding='utf-8'))

    def body(match):
        inner = GRAMMAR.search(resolved(path.parent / match.group(1)))
        if inner is None:
            sys.exit(f'{match.group(1)}: no <grammar>')
        return '<div>' + inner.group(1) + '</div>'

    return INCLUDE.sub(body, text)


def array(name, text):
    data = text.encode('utf-8')
    rows = [', '.join(str(b) for b in data[i:i + 20]) for i in range(0, len(data), 20)]
    return (f'const char schema_{name}[] = {{\n  ' + ',\n  '.join(rows) + ', 0\n};\n'
            f'const unsigned schema_{name}_len = {len(data)};\n')


def main():
    out, schemas = pathlib.Path(sys.argv[1]), [pathlib.Path(arg) for arg in sys.argv[2:]]
    if out.suffix == '.rng':
        out.write_text(resolved(schemas[0]), encoding='utf-8')
        return
    lines = ['/* Made by scripts/embed-schema.py. */\n#include "conf/schema.h"\n']
    lines += [array(path.stem, resolved(path)) for path in schemas]
    out.write_text('\n'.join(lines), encoding='utf-8')


main()
