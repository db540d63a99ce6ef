#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves that scripts/tap-count.py counts what ran, and calls failed what failed."""
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
from lab import main, test  # pylint: disable=wrong-import-position

COUNT = os.path.join(HERE, "..", "..", "scripts", "tap-count.py")


def count(lab, *rows: dict, rc: int = 0) -> list[str]:
    """Counts a made-up log; returns the lines said."""
    log = lab.file("testlog.json", "".join(
        json.dumps({"name": "tidemark:unit / x", "returncode": 0, **row}) + "\n" for row in rows))
    return lab.tool(sys.executable, COUNT, f"gcc={log}", rc=rc).out.splitlines()


@test
def test_subtests_and_plain_tests(lab):
    said = count(lab, {"result": "OK", "stdout": "# noise\n1..3\nok 1 /a\nok 2 - b\n"
                       "    not ok 1 - of a subtest below\nok 3 c # SKIP no moon\n"},
                 {"result": "OK"}, {"result": "SKIP", "stderr": "no sun\n"},
                 {"result": "EXPECTEDFAIL"},
                 {"result": "SKIP", "stdout": "1..0 # SKIP nothing here\n"})
    assert said[-1] == "4 passed, 0 failed, 3 skipped", said
    for reason in ("no moon", "no sun", "nothing here"):
        assert any(line.endswith(reason) for line in said), (reason, said)


@test
def test_failures_of_every_kind(lab):
    for row, failed in (
            ({"result": "FAIL", "stdout": "ok 1 - a\nnot ok 2 - b\n1..2\n"}, 1),
            ({"result": "FAIL"}, 1),
            ({"result": "UNEXPECTEDPASS"}, 1),
            ({"result": "TIMEOUT", "stdout": "1..4\nok 1 - a\n"}, 3),
            ({"result": "ERROR", "returncode": -11, "stdout": "1..1\nok 1 - a\n"}, 1),
            ({"result": "ERROR", "returncode": 1, "stdout": ""}, 1),
            ({"result": "ERROR", "stdout": "1..2\nok 1 - a\nBail out! no disk\n"}, 2),
            ({"result": "INTERRUPT"}, 1)):
        said = count(lab, row, {"result": "OK"}, rc=1)
        assert f" {failed} failed," in said[-1], (row, said)


@test
def test_why_shows_the_diagnostics_of_failures(lab):
    log = lab.file("testlog.json", "\n".join(json.dumps(row) for row in (
        {"name": "a", "result": "FAIL", "stdout": "1..2\n# fine\nok 1\n# broken\nnot ok 2\n"},
        {"name": "b", "result": "FAIL", "stdout": "said\n", "stderr": "warned\n"},
        {"name": "c", "result": "ERROR"}, {"name": "d", "result": "OK", "stdout": "quiet"})))
    said = lab.tool(sys.executable, COUNT, "--why", log).out
    assert said.split() == "a: # broken not ok 2 b: said warned c:".split(), said


@test
def test_todo_is_no_failure(lab):
    said = count(lab, {"result": "OK", "stdout": "1..1\nnot ok 1 - a # TODO later\n"})
    assert said[-1] == "1 passed, 0 failed, 0 skipped", said


@test
def test_steps_without_plan_and_unreadable_files(lab):
    steps = lab.file("steps.tap", "ok - setup\nnot ok - build\nok - format # SKIP no tool\n")
    said = lab.tool(sys.executable, COUNT, f"steps={steps}", rc=1).out.splitlines()
    assert said[-1] == "1 passed, 1 failed, 1 skipped", said
    empty = lab.file("empty.tap", "")
    assert lab.tool(sys.executable, COUNT, empty).out.endswith("0 passed, 0 failed, 0 skipped\n")
    broken = lab.file("broken.json", "{")
    lab.tool(sys.executable, COUNT, broken, rc=1)
    lab.tool(sys.executable, COUNT, lab.path("absent.json"), rc=1)


main()
