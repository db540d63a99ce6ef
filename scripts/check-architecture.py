#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fails where docs/devel/architecture.rst does not say what a file of src/ or include/ is for.

A module is named there as ``module`` or ``module.h``; a part of one, called module_part, need not
be. A verb of the command line has the file of its name. Usage: check-architecture.py [ROOT]
"""
import pathlib
import re
import sys


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[1])
    text = (root / "docs/devel/architecture.rst").read_text(encoding="utf-8")
    named = {name.removesuffix(".h") for name in re.findall(r"``([a-z0-9_]+(?:\.h)?)``", text)}
    files = [path for path in (root / "src").rglob("*.[ch]") if path.parent.name != "cli"]
    files += (root / "include").rglob("*.h")
    missing = [path for path in sorted(files)
               if path.stem not in named and path.stem.rpartition("_")[0] not in named]
    for path in missing:
        print(f"{path.relative_to(root)}: docs/devel/architecture.rst does not say what it is")
    return 1 if missing else 0


sys.exit(main())
