#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: killed with SIGKILL at any of its steps, a pull's begin, end or abort leaves the guest
running, and the next call takes back or completes: no job, node, export, bitmap, file, socket or
server stays. The same where QEMU, or the process that looks after the job, goes."""
import os
import re
import signal

import run
from lab import Guest, Lab, main, soak, test, wait_until
from pull import Pull

KILLED = -signal.SIGKILL


def steps(trace: str) -> list[str]:
    return re.findall(r"^testpoint \d+ (\S+)", trace, re.M)


def machine(lab: Lab):
    """A machine with a checkpoint c1 on its two disks; its pull; and what it is like idle."""
    disks = [lab.disk("vda", "16M"), lab.disk("vdb", "16M", style="drive", bus="scsi")]
    vm = lab.vm(disks, guest=Guest(slots=256))
    pull = Pull(lab, vm)
    pull.begin("c1")
    pull.end()
    return vm, pull


def begun(pull: Pull, name: str = "c2"):
    pull.begin(name, {"vda": "c1"}, "--no-guard")


@test(timeout=280)
def test_begin_killed_at_each_step(lab: Lab) -> None:
    vm, pull = machine(lab)
    before = vm.inventory()
    traced = pull.begin("c2", {"vda": "c1"}, "--no-guard", env={"TIDEMARK_TEST_TRACE": "1"})
    pull.abort()
    assert vm.inventory() == before
    names = steps(traced.err)
    assert len(names) > 20, names
    held = range(names.index("qmp:stop") + 1, names.index("qmp:cont") + 2)
    chosen = set(range(1, len(names) + 1, soak(3, 1))) | set(held)
    for number in sorted(chosen):
        where = f"step {number} {names[number - 1]}"
        pull.begin("c2", {"vda": "c1"}, "--no-guard", rc=KILLED,
                   env={"TIDEMARK_TEST_KILL_AT": str(number)})
        # Also where it was killed while it held the guest: the watchdog lets that go on.
        wait_until(lambda: vm.status() == "running", 5, where)
        vm.guest.wait(5)
        lab.tidemark("abort", "--qmp", vm.address, check=False)
        vm.assert_clean()
        assert vm.inventory() == before, where
        assert not os.path.exists(pull.socket) and os.listdir(pull.folder) == [], where
    begun(pull)
    pull.end()
    assert vm.guest.errors() == 0
    assert set(vm.bitmaps(vm["vda"])) == {"c1", "c2"}
    vm.quit()
    for disk in vm.disks:
        lab.check_image(disk.path)


def killed_everywhere(lab: Lab, verb: str, keeps: bool) -> None:
    vm, pull = machine(lab)
    number, killed = 1, 0
    while True:
        before = vm.inventory()
        name = f"p{number}"
        begun(pull, name)
        result = lab.tidemark(verb, "--qmp", vm.address, rc=(0, KILLED),
                              env={"TIDEMARK_TEST_KILL_AT": str(number)})
        vm.assert_running()
        # Once it is done abort finds no job; end tells how the job ended as often as it is asked.
        lab.tidemark(verb, "--qmp", vm.address, rc=0 if keeps else (0, 1))
        vm.assert_clean()
        pull.assert_no_files()
        if keeps:
            for disk in vm.disks:
                assert name in vm.bitmaps(disk), (number, vm.bitmaps(disk))
        else:
            assert vm.inventory() == before, number
        if result.rc != KILLED:
            break
        killed += 1
        number += soak(3, 1)
    assert killed >= 5, killed
    assert vm.guest.errors() == 0


@test(timeout=280)
def test_end_killed_at_each_step(lab: Lab) -> None:
    killed_everywhere(lab, "end", True)


@test(timeout=280)
def test_abort_killed_at_each_step(lab: Lab) -> None:
    killed_everywhere(lab, "abort", False)


@test(timeout=120)
def test_abort_killed_after_begin_was(lab: Lab) -> None:
    """Two kills in a row: begin right before it writes down that the job runs, abort anywhere."""
    vm, pull = machine(lab)
    before = vm.inventory()
    traced = pull.begin("c2", None, "--no-guard", env={"TIDEMARK_TEST_TRACE": "1"})
    names = steps(traced.err)
    pull.abort()
    exports = [at for at, name in enumerate(names, 1) if name == "qmp:block-export-add"]
    number = 1
    while True:
        pull.begin("c2", None, "--no-guard", rc=KILLED,
                   env={"TIDEMARK_TEST_KILL_AT": str(exports[-1])})
        result = lab.tidemark("abort", "--qmp", vm.address, rc=(0, KILLED),
                              env={"TIDEMARK_TEST_KILL_AT": str(number)})
        lab.tidemark("abort", "--qmp", vm.address, check=False)
        vm.assert_clean()
        pull.assert_no_files()
        assert vm.inventory() == before, number
        if result.rc != KILLED:
            break
        number += soak(5, 1)


@test(timeout=120)
def test_qemu_gone_during_a_pull(lab: Lab) -> None:
    vm, pull = machine(lab)
    # vm.quit: QEMU stores the new checkpoint's bitmaps, which must go once it is back.
    for number, (how, verb) in enumerate([(vm.kill, "end"), (vm.kill, "abort"), (vm.quit, "end"),
                                          (vm.quit, "abort")]):
        name = f"gone{number}"
        pull.begin(name)
        how()
        # Who looks after the job may have seen to it already: then abort finds none.
        said = lab.tidemark(verb, "--qmp", vm.address, rc=1 if verb == "end" else (0, 1))
        assert verb == "abort" or "QEMU ended" in said.err, said.err
        pull.assert_no_files()
        vm.start()
        vm.assert_running()
        if verb == "end":  # the same answer as often as it is asked
            lab.tidemark("end", "--qmp", vm.address, rc=1)
        pull.begin(f"next{number}")
        pull.end()
        for disk in vm.disks:
            assert name not in vm.bitmaps(disk), vm.bitmaps(disk)


@test(timeout=90)
def test_qemu_started_anew_before_the_end(lab: Lab) -> None:
    vm, pull = machine(lab)
    for verb in ("end", "abort"):
        pull.begin("lost", None, "--no-guard")
        vm.kill()
        vm.start()
        said = lab.tidemark(verb, "--qmp", vm.address, rc=1 if verb == "end" else 0)
        assert verb == "abort" or "hint: " in said.err, said.err
        vm.assert_clean()
        pull.assert_no_files()
        for disk in vm.disks:
            assert "lost" not in vm.bitmaps(disk), vm.bitmaps(disk)


@test(timeout=60)
def test_no_process_is_left_behind(lab: Lab) -> None:
    """Nobody looks at a pull that is exported: a look while its storage hangs could stall QEMU."""
    vm, pull = machine(lab)
    pull.begin("c2")
    assert not [line for line in run.children().values() if "--guard" in line]
    pull.end()
    assert "c2" in vm.bitmaps(vm["vda"])


main()
