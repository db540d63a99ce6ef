#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: `tidemark backup --quiesce` freezes the guest's file systems for the instant alone, however
long the disks are read: what the guest wrote as it froze is in the point, what it wrote as it thawed
is not; an agent that refuses, is silent or is not there costs a warning and exit code 3, no more; and
a backup that is killed or interrupted leaves no guest frozen.

The agent is played by the test (tests/lib/agent.py)."""
from __future__ import annotations

import json
import os
import signal

from agent import FREEZE, THAW, Agent
from lab import Lab, main, test, wait_until
from repository import Repository, check_words

M = 1 << 20
CHUNK = 1 << 16


class Case:
    """A machine with an agent, and a repository."""

    def __init__(self, lab: Lab, iothread: bool = False) -> None:
        self.lab = lab
        self.vda = lab.disk("vda", "24M", iothread=iothread)
        self.vm = lab.vm([self.vda])
        self.writer = self.vm.writer(self.vda)
        self.writer.write_random(M, 8 * M, lab.rng)
        self.agent = Agent(os.path.join(lab.sockets, "agent"))
        self.repo = Repository(lab)

    def arguments(self, *options: object) -> tuple:
        return ("backup", "--qmp", self.vm.address, "-r", self.repo.path, "--quiesce", "--agent",
                self.agent.path, *options)

    def write_at_freeze_and_thaw(self) -> None:
        """The first chunk tells whether the file systems were frozen."""
        self.agent.does[FREEZE] = lambda: self.writer.write(0, CHUNK, 0x51)
        self.agent.does[THAW] = lambda: self.writer.write(0, CHUNK, 0x52)

    def check_frozen(self, point: str) -> None:
        """The point is what the disk was between freeze and thaw."""
        model = self.vda.model.snapshot()
        model.write(0, bytes([0x51]) * CHUNK)
        self.lab.compare(self.repo.restore(point, "vda", ".qcow2", "--verify"), model)


def frozen_for_the_instant(lab: Lab, iothread: bool) -> None:
    case = Case(lab, iothread)
    case.write_at_freeze_and_thaw()
    for mode, options in (("full", ("--bandwidth", "4M")), ("incremental", ())):
        report = lab.tidemark_json(*case.arguments(*options), rc=0)
        assert report["quiesced"] is True and report["disks"][0]["mode"] == mode, report
        assert case.agent.commands() == [FREEZE, THAW] and not case.agent.frozen
        assert case.agent.frozen_for() < 2, case.agent.frozen_for()
        if options:  # it was read for far longer than it was frozen
            assert report["elapsed_us"] > 1_500_000 + 1e6 * case.agent.frozen_for(), report
        assert lab.tidemark_json("show", "-r", case.repo.path, report["point"])["quiesced"] is True
        case.vm.assert_clean()
        case.check_frozen(report["point"])
        case.agent.log.clear()
    assert lab.tidemark_json(*case.arguments("--dry-run"), rc=0)["point"] is None
    assert not case.agent.commands()  # for a plan nobody is frozen
    case.agent.close()


@test
def test_frozen_for_the_instant(lab: Lab) -> None:
    frozen_for_the_instant(lab, iothread=False)


@test
def test_disks_in_an_iothread(lab: Lab) -> None:
    """Where those are copied first: not until the copies are made."""
    frozen_for_the_instant(lab, iothread=True)


@test(timeout=60)
def test_an_agent_that_does_not(lab: Lab) -> None:
    """A point all the same, with a warning and exit code 3; nobody stays frozen."""
    case = Case(lab)
    agent = case.agent

    def check(*words: str) -> None:
        said = lab.tidemark(*case.arguments("--agent-timeout", "1", "--json"), rc=3)
        report = json.loads(said.out)
        assert report["quiesced"] is False and report["point"], report
        warnings = [line for line in said.err.splitlines() if "warning: " in line]
        assert len(warnings) == 1 and all(word in warnings[0] for word in words), said.err
        wait_until(lambda: not agent.frozen)
        case.vm.assert_clean()
        model = case.vda.model.snapshot()
        lab.compare(case.repo.restore(report["point"], "vda", ".raw"), model, "raw")
        case.writer.random_ops(lab.rng, 3)

    agent.refuses[FREEZE] = "a file system says no"
    check("a file system says no")
    agent.refuses.clear()
    agent.mute.add(FREEZE)  # it freezes, and does not say so
    check("agent")
    assert THAW in agent.commands()
    agent.mute = {"guest-sync-delimited", "guest-sync"}
    check("agent")
    agent.mute = set()
    agent.close()
    check("agent")


@test(timeout=60)
def test_nobody_stays_frozen(lab: Lab) -> None:
    """Refused before the instant, interrupted or killed while frozen."""
    case = Case(lab)
    agent = case.agent
    said = lab.tidemark(*case.arguments("--include", "vdx"), rc=1)
    check_words(said.err, "'vdx'")
    said = lab.tidemark(*case.arguments("--scratch-dir", lab.path("none")), rc=1)
    check_words(said.err, "no folder")
    assert not agent.frozen and FREEZE not in agent.commands(), agent.commands()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        child = []
        agent.does[FREEZE] = lambda: child[0].send_signal(number)  # pylint: disable=W0640
        child.append(lab.tidemark_popen(*case.arguments("--bandwidth", "2M")))
        _, err = child[0].communicate(timeout=30)
        killed = number == signal.SIGKILL
        assert child[0].returncode == (-number if killed else 130), (child[0].returncode, err)
        assert FREEZE in agent.commands()
        wait_until(lambda: not agent.frozen, 15)
        agent.log.clear()
        if not killed:
            case.vm.assert_clean()
    agent.does.clear()
    report = lab.tidemark_json(*case.arguments(), rc=0)  # it cleans up behind the one killed
    assert report["quiesced"] is True, report
    case.repo.assert_tidy(case.vm)
    assert lab.tidemark_json("list", "-r", case.repo.path)["points"][0]["id"] == report["point"]
    lab.compare(case.repo.restore(report["point"], "vda", ".raw"), case.vda.model, "raw")
    agent.close()


main()
