#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: with --quiesce the guest's file systems are frozen at the instant and thawed right after
it, whatever happens: an agent that refuses, is silent or late only costs a warning and exit code 3,
and a kill at any step leaves no guest frozen.

There is no guest OS: the agent is played by the test (tests/lib/agent.py). What it writes to the
disk when it freezes must be in the backup, what it writes when it thaws must not."""
import os
import signal
import time

from agent import FREEZE, THAW, Agent
from backup import backup_xml, checkpoint_xml, disk_xml
from lab import Lab, Vm, main, test, wait_until


class Case:
    """A machine with an agent, and a push or pull of it."""

    def __init__(self, lab: Lab, pull: bool) -> None:
        self.lab, self.pull = lab, pull
        self.vda = lab.disk("vda", "8M")
        self.vm: Vm = lab.vm([self.vda])
        self.vm.writer(self.vda).random_ops(lab.rng, 10)
        self.agent = Agent(os.path.join(lab.sockets, "agent"))
        self.nbd = os.path.join(lab.sockets, "nbd")
        self.image = lab.path("image.qcow2")

    def begin(self, *options: object, rc: int = 0, **how):
        if self.pull:
            text = (f"<domainbackup mode='pull'><server transport='unix' socket='{self.nbd}'/>"
                    f"<disks><disk name='vda' type='file'><scratch file='{self.image}'/></disk>"
                    "</disks></domainbackup>")
        else:
            text = backup_xml([disk_xml("vda", self.image)])
        return self.lab.tidemark("begin", "--qmp", self.vm.address, "--quiesce", "--agent",
                                 self.agent.path, *options, self.lab.file("job.xml", text),
                                 self.lab.file("c.xml", checkpoint_xml("c1")), rc=rc, **how)

    def abort(self, **how) -> None:
        self.lab.tidemark("abort", "--qmp", self.vm.address, **how)
        self.vm.assert_clean()
        assert not os.path.exists(self.image)

    def thawed(self) -> None:
        wait_until(lambda: not self.agent.frozen, 10)


def both(lab: Lab, check) -> None:
    for pull in (False, True):
        case = Case(lab, pull)
        try:
            check(case)
        finally:
            case.vm.quit()
            case.agent.close()


@test(timeout=60)
def test_frozen_at_the_instant_and_no_longer(lab: Lab) -> None:
    lab.need("nbdcopy")

    def check(case: Case) -> None:
        writer = case.vm.writer(case.vda)
        case.agent.greeting = b'{"return": 5}\n{"half of a repl'
        case.agent.does[FREEZE] = lambda: writer.write(0, 65536, 0x51)
        case.agent.does[THAW] = lambda: writer.write(0, 65536, 0x52)
        begun = case.begin(env={"TIDEMARK_TEST_TRACE": "1"})
        assert "warning" not in begun.err and begun.out.startswith("<domainbackup"), begun
        assert case.agent.commands() == [FREEZE, THAW] and not case.agent.frozen
        assert case.agent.frozen_for() < 2, case.agent.frozen_for()
        names = [line.split(" ")[2] for line in begun.err.splitlines() if "testpoint" in line]
        order = ["agent:freeze:done", *(["qmp:stop"] if case.pull else []), "qmp:transaction",
                 "qmp:transaction:done", *(["qmp:cont:done"] if case.pull else []), "agent:thaw"]
        at = [len(names) - 1 - names[::-1].index(name) for name in order]
        assert at == sorted(at), names
        if not case.pull:
            lab.tidemark("wait", "--qmp", case.vm.address)
        status = lab.tidemark_json("status", "--qmp", case.vm.address)
        assert status["quiesced"] and 0 < status["frozen_us"] < 2e6, status
        shown = lab.tidemark("status", "--qmp", case.vm.address).out
        assert "frozen for" in shown, shown
        raw = lab.fresh(".raw")
        if case.pull:
            lab.tool("nbdcopy", f"nbd+unix:///vda?socket={case.nbd}", raw)
            lab.tidemark("end", "--qmp", case.vm.address)
        else:
            lab.tool("qemu-img", "convert", "-O", "raw", case.image, raw)
            os.unlink(case.image)
        with open(raw, "rb") as image:
            assert image.read(65536) == b"\x51" * 65536
        case.vm.assert_clean()

    both(lab, check)


@test(timeout=60)
def test_agents_that_do_not_play_along(lab: Lab) -> None:
    """The job goes on, a warning says why, the exit code is 3, nothing stays frozen."""
    def unquiesced(case: Case, *words: str, agent: str | None = None) -> None:
        options = ["--agent", agent] if agent else []
        begun = case.begin("--agent-timeout", "1", *options, rc=3)
        assert "<domainbackup" in begun.out, begun
        for word in ("warning", "not quiesced", *words):
            assert word in begun.err, f"no {word}: {begun}"
        assert not lab.tidemark_json("status", "--qmp", case.vm.address)["quiesced"]
        assert not case.agent.frozen
        lab.tidemark("abort", "--qmp", case.vm.address, check=False)
        case.vm.assert_clean()
        if os.path.exists(case.image):  # the push was done before
            os.unlink(case.image)
            lab.tidemark("checkpoint", "delete", "--qmp", case.vm.address, "c1")

    def check(case: Case) -> None:
        agent = case.agent
        agent.refuses[FREEZE] = "the hook has failed"
        unquiesced(case, "the hook has failed")
        assert agent.commands() == [FREEZE], agent.commands()
        agent.refuses.clear()
        agent.systems = 0
        unquiesced(case, "no file system")
        assert agent.commands() == [FREEZE, FREEZE, THAW], agent.commands()
        agent.systems = 1
        agent.mute = {"guest-sync-delimited"}
        unquiesced(case, "does not answer")
        assert agent.commands() == [FREEZE, FREEZE, THAW], agent.commands()
        unquiesced(case, "absent", agent=lab.path("absent"))

    both(lab, check)


@test(timeout=60)
def test_freeze_that_comes_too_late_is_thawed(lab: Lab) -> None:
    def check(case: Case) -> None:
        case.agent.does[FREEZE] = lambda: time.sleep(2.5)
        begin = time.monotonic()
        begun = case.begin("--agent-timeout", "1", "--no-guard", rc=3)
        assert time.monotonic() - begin < 5
        assert "not quiesced" in begun.err and "does not answer" in begun.err, begun.err
        wait_until(lambda: THAW in case.agent.commands(), 10)
        case.thawed()
        case.abort()

    both(lab, check)


@test(timeout=60)
def test_thaw_that_is_not_confirmed_is_tried_again(lab: Lab) -> None:
    case = Case(lab, True)
    case.agent.mute = {THAW}

    def speak() -> None:
        if case.agent.commands().count(THAW) == 2:
            case.agent.mute = set()

    case.agent.does[THAW] = speak
    begun = case.begin(rc=3)
    assert "did not confirm" in begun.err, begun.err
    wait_until(lambda: case.agent.commands().count(THAW) >= 2, 10)
    case.thawed()
    case.abort()
    case.agent.close()


@test(timeout=200)
def test_killed_at_each_step(lab: Lab) -> None:
    def check(case: Case) -> None:
        case.begin("--no-guard")  # the first makes folders, which counts as steps
        case.abort()
        trace = case.begin("--no-guard", env={"TIDEMARK_TEST_TRACE": "1"}).err
        case.abort()
        names = [line.split(" ")[2] for line in trace.splitlines() if "testpoint " in line]
        first, last = names.index("agent:freeze") + 1, names.index("agent:thaw:done") + 1
        assert last - first >= (8 if case.pull else 4), names
        froze = 0
        for step in range(first, last + 1):
            case.agent.log.clear()
            case.begin("--no-guard", rc=-signal.SIGKILL, env={"TIDEMARK_TEST_KILL_AT": str(step)})
            wait_until(lambda: THAW in case.agent.commands(), 10)
            case.thawed()
            froze += FREEZE in case.agent.commands()
            wait_until(lambda: case.vm.qmp.command("query-status")["running"], 10)
            case.abort()
        assert froze == last - first, froze

    both(lab, check)


@test
def test_failure_at_the_instant_thaws(lab: Lab) -> None:
    """The transaction fails: a bitmap of the checkpoint's name appears while the guest freezes."""
    def check(case: Case) -> None:
        node = case.vda.node
        case.agent.does[FREEZE] = lambda: case.vm.qmp.command("block-dirty-bitmap-add", node=node,
                                                              name="c1")
        failed = case.begin(rc=1)
        assert "c1" in failed.err, failed.err
        assert case.agent.commands() == [FREEZE, THAW] and not case.agent.frozen
        case.vm.assert_clean()
        case.vm.assert_running()
        assert not os.path.exists(case.image)

    both(lab, check)


@test
def test_usage(lab: Lab) -> None:
    for options in (["--quiesce"], ["--agent", "/x"],
                    ["--quiesce", "--agent", "/x", "--agent-timeout", "-1"],
                    ["--quiesce", "--agent", "/x", "--agent-timeout", "soon"]):
        lab.tidemark("begin", "--qmp", "/x", *options, "/dev/null", rc=2)


main()
