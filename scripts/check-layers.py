#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fails where a file of src/ includes a header of a floor above its own, or of a neighbour.

A file may include headers of its own folder and of floors below. Folders on one floor do not know
each other. The command line sees only <tidemark/*.h> and util. See docs/devel/architecture.rst.
Usage: check-layers.py [SRC]
"""
import os
import re
import sys

FLOORS = {"util": 0, "conf": 1, "qmp": 1, "blk": 1, "format": 1, "objstore": 1,
          "hv": 2, "repo": 2, "engine": 3, "cli": 4}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def fault(folder, header):
    """Why a file in `folder` may not include `header`, or None."""
    other = header.split("/")[0]
    if "/" not in header:
        return "write the path from src/"
    if other not in FLOORS:
        return f"no such folder '{other}'"
    if other == folder:
        return None
    if folder == "cli":
        return None if other == "util" else "the command line sees only <tidemark/*.h> and util"
    if FLOORS[other] == FLOORS[folder]:
        return "folders on one floor do not know each other"
    if FLOORS[other] > FLOORS[folder]:
        return "floors point down"
    return None


def main():
    src = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "..", "src")
    faults = 0
    for base, _, names in os.walk(src):
        folder = os.path.relpath(base, src).split(os.sep)[0]
        if folder == ".":
            continue
        if folder not in FLOORS:
            print(f"{base}: a folder without a floor")
            faults += 1
            continue
        for name in sorted(names):
            if not name.endswith((".c", ".h")):
                continue
            path = os.path.join(base, name)
            with open(path, encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    found = INCLUDE.match(line)
                    why = found and fault(folder, found.group(1))
                    if why:
                        print(f"{path}:{number}: includes {found.group(1)}: {why}")
                        faults += 1
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
