#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Counts the tests of several runs.

Usage: tap-count.py [LABEL=]FILE…
       tap-count.py --why FILE    what the failed tests of a testlog.json had to say

FILE is a testlog.json of Meson, or (named *.tap) TAP, with or without a plan. Every TAP subtest
counts as one, and so does every test that speaks no TAP. A test that ended badly without saying
which subtest failed counts as failed once, and so does each planned subtest that did not run.
Prints a line for each run, failed and skipped tests by name, and last `N passed, N failed, N
skipped`. Exit 1 if any failed.
"""
from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, field

PLAN = re.compile(r"^1\.\.(\d+)(?:\s*#\s*skip\S*\s*(.*))?\s*$", re.I)
RESULT = re.compile(r"^(not )?ok\b\s*(\d+)?\s*(?:- )?(.*?)(?:\s*#\s*(skip\S*|todo)\b:?\s*(.*))?$",
                    re.I)
GOOD = ("OK", "EXPECTEDFAIL")


@dataclass
class Count:
    """The tests of a run."""
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def add(self, other: Count, prefix: str) -> None:
        """Adds the tests of another run, under a prefix."""
        self.passed += other.passed
        self.failed += [f"{prefix}: {name}" for name in other.failed]
        self.skipped += [f"{prefix}: {name}" for name in other.skipped]

    def __str__(self) -> str:
        return f"{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


def count_tap(name: str, text: str, ended_well: bool, how: str, *,
              plan_needed: bool = True) -> Count:
    """The subtests of one TAP producer, which ended as `how` says."""
    count = Count()
    planned, seen = None, 0
    for line in text.splitlines():
        if plan := PLAN.match(line):
            planned = int(plan[1])
            if planned == 0:
                count.skipped.append(f"{name}: {plan[2] or 'no reason given'}")
        elif line.startswith("Bail out!"):
            count.failed.append(f"{name}: {line}")
        elif found := RESULT.match(line):
            seen += 1
            bad, number, title, directive, reason = found.groups()
            title = title or number or str(seen)
            if name:
                title = f"{name}: {title}"
            directive = (directive or "").lower()
            if directive.startswith("skip"):
                count.skipped.append(f"{title}: {reason or 'no reason given'}")
            elif bad and directive != "todo":
                count.failed.append(title)
            else:
                count.passed += 1
    if planned is None:
        count.failed += [f"{name}: no plan"] * plan_needed
    elif seen < planned:
        count.failed += [f"{name}: a planned test did not run ({how})"] * (planned - seen)
    if not ended_well and not count.failed:
        count.failed.append(f"{name}: {how}")
    return count


def count_meson(path: str) -> Count:
    """The tests of a testlog.json: a JSON document a line."""
    total = Count()
    with open(path, encoding="utf-8", errors="replace") as log:
        for line in log:
            if not line.strip():
                continue
            row = json.loads(line)
            name = row["name"].split(":", 1)[-1]
            result = row["result"]
            how = f"{result}, exit code {row.get('returncode')}"
            said = row.get("stdout", "")
            if any(PLAN.match(text) for text in said.splitlines()):
                one = count_tap(name, said, result in (*GOOD, "SKIP"), how)
            elif result in GOOD:
                one = Count(passed=1)
            elif result == "SKIP":
                words = (said + row.get("stderr", "")).strip().splitlines()
                one = Count(skipped=[f"{name}: {words[-1] if words else 'no reason given'}"])
            else:
                one = Count(failed=[f"{name}: {how}"])
            total.passed += one.passed
            total.failed += one.failed
            total.skipped += one.skipped
    return total


def explain(path: str) -> None:
    """Prints the diagnostics before each failed subtest, and the ends of other failed tests."""
    with open(path, encoding="utf-8", errors="replace") as log:
        rows = [json.loads(line) for line in log if line.strip()]
    for row in rows:
        if row["result"] in (*GOOD, "SKIP"):
            continue
        lines = row.get("stdout", "").splitlines()
        bad = [index for index, line in enumerate(lines) if line.startswith("not ok")]
        for index in bad or [len(lines) - 1]:
            first = index
            while first > 0 and index - first < 50 and (not bad or lines[first - 1][:1] == "#"):
                first -= 1
            print("\n".join([row["name"] + ":", *(f"  {one[:300]}"
                                                  for one in lines[first:index + 1])]))
        if not bad:
            print("\n".join(f"  {one[:300]}"
                            for one in row.get("stderr", "").splitlines()[-50:]))


def main() -> int:
    """Counts the files of the command line."""
    if sys.argv[1:2] == ["--why"]:
        explain(sys.argv[2])
        return 0
    total = Count()
    for word in sys.argv[1:]:
        label, _, path = word.rpartition("=")
        label = label or os.path.basename(path)
        try:
            if path.endswith(".tap"):
                with open(path, encoding="utf-8", errors="replace") as tap:
                    lines = tap.read()
                one = count_tap("", lines, True, "", plan_needed=False)
            else:
                one = count_meson(path)
        except (OSError, ValueError, KeyError) as why:
            one = Count(failed=[f"unreadable result: {why}"])
        print(f"{label + ':':<12} {one}")
        total.add(one, label)
    for title, names in (("failed", total.failed), ("skipped", total.skipped)):
        if names:
            print(f"\n{title}:")
            print("\n".join(f"  {name}" for name in names))
    print(f"\n{total}")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
