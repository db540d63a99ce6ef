#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: killed with SIGKILL at any of its steps, a pull's begin, end or abort leaves the guest
running, and the next call takes back or completes: no job, node, export, bitmap, file, socket or
server stays. The same where QEMU, or the process that looks after the job, goes."""
import os
import re
import signal

import run
from lab import Guest, Lab, Skip, main, soak, test, wait_until
from pull import Pull, pull_disk, unix_server

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


def names_of_children() -> set[str]:
    names = set()
    for pid in run.children():
        with open(f"/proc/{pid}/comm", encoding="ascii") as name:
            names.add(name.read().strip())
    return names


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


def lose_record(lab: Lab) -> None:
    lost = [os.path.join(where, "job.json") for where, _, names in os.walk(lab.state)
            if "job.json" in names]
    assert len(lost) == 1, lost
    os.unlink(lost[0])


@test(timeout=90)
def test_record_lost(lab: Lab) -> None:
    """What nobody remembers is found by its names: begin refuses, and abort takes it away."""
    vm, pull = machine(lab)
    before = vm.inventory()
    new = lab.qemu_version() >= (10, 0)
    for server in ("<server name='127.0.0.1'/>", unix_server(pull.socket)):
        disks = [pull_disk(disk.name, pull.scratch(disk.name)) for disk in vm.disks]
        pull.run(disks, server=server)
        lose_record(lab)
        said = pull.run(disks, server=server, rc=1)
        assert "not remembered" in said.err and "tidemark abort" in said.err, said.err
        lab.tidemark("abort", "--qmp", vm.address)
        said = lab.tidemark("abort", "--qmp", vm.address, rc=1)
        assert "no backup job" in said.err, said.err
        if "socket" not in server or new:
            assert vm.inventory() == before
            assert "tidemark-relay" not in names_of_children()
        else:  # stopped under clients that nobody can keep away, the server could freeze QEMU
            assert vm.nbd_server_runs()
            vm.qmp.command("nbd-server-stop")
            assert vm.inventory() == before
        for disk in vm.disks:  # these nobody knows to be ours
            os.unlink(pull.scratch(disk.name))
    assert vm.guest.errors() == 0


@test(timeout=90)
def test_record_of_copies_lost(lab: Lab) -> None:
    if lab.qemu_version() >= (10, 0):
        raise Skip("this QEMU exports disks of iothreads itself")
    vda = lab.disk("vda", "8M", iothread=True)
    vm = lab.vm([vda])
    pull = Pull(lab, vm)
    for lost in ("job.json", "daemon.pid"):
        pull.begin("c1")
        assert any("--pidfile" in line for line in run.children().values())
        lose_record(lab)
        if lost == "daemon.pid":
            for where, _, names in os.walk(lab.state):
                if lost in names:
                    os.unlink(os.path.join(where, lost))
        said = pull.begin("c2", rc=1)
        assert "daemon.pid" in said.err and "not remembered" in said.err, said.err
        lab.tidemark("abort", "--qmp", vm.address)
        assert not any("--pidfile" in line for line in run.children().values())
        assert not os.path.exists(pull.socket)
        vm.assert_clean()
        os.unlink(pull.scratch("vda"))
        lab.tidemark("checkpoint", "delete", "--qmp", vm.address, "c1")


main()
