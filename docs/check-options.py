#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: every verb has a man page, and every option is in the page of its verb or, where all verbs
share it, in tidemark(1). A page tells all the ways in which its verb can be given a domain.

Usage: check-options.py TIDEMARK FOLDER-OF-PAGES
"""
import json
import pathlib
import subprocess
import sys


WAYS = {"qmp": "**--qmp** *ADDR*", "image": "**--image** *TARGET*", "domain": "**-d** *NAME*"}


def main():
    program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    common = (folder / "tidemark.rst").read_text(encoding="utf-8").split("COMMON OPTIONS\n")[1]
    common = common.split("EXIT STATUS\n")[0]
    missing = []
    for line in subprocess.run([program, "--describe"], check=True, stdout=subprocess.PIPE,
                               text=True).stdout.splitlines():
        row = json.loads(line)
        page = folder / f"tidemark-{row['verb'].split()[0]}.rst"
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        if not text:
            missing.append(f"{row['verb']}: no page {page.name}")
        for option in row.get("options", []):
            name = f"**--{option['long']}**"
            if name not in text and name not in common:
                missing.append(f"{row['verb']}: {name} is in no page")
            way = WAYS.get(option["long"], "")
            if way not in text:
                missing.append(f"{row['verb']}: {page.name} does not name {way}")
    print("\n".join(missing) or "every option is in its page")
    return 1 if missing else 0


sys.exit(main())
