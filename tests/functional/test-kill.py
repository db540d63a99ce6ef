#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: killed with SIGKILL at any of its steps, tidemark leaves the guest running, and the next
call cleans up or goes on: no job, node, bitmap, secret or file stays, older checkpoints work.

The program counts its steps (every command to QEMU that changes something, every file made,
renamed or removed) and kills itself at the N-th, which the environment chooses."""
import os
import re
import signal

from backup import Series
from lab import Guest, Lab, main, soak, test


def steps(trace: str) -> list[str]:
    return re.findall(r"^testpoint \d+ (\S+)", trace, re.M)


def killed_at(lab: Lab, number: int, *args: object):
    return lab.tidemark(*args, env={"TIDEMARK_TEST_KILL_AT": str(number)},
                        rc=(0, -signal.SIGKILL))


def chosen(count: int) -> range:
    """All steps in a soak run, else every third, beginning anywhere."""
    return range(1, count + 1, soak(3, 1))


@test(timeout=280)
def test_begin_killed_at_each_step(lab: Lab) -> None:
    disks = [lab.disk("vda", "16M"), lab.disk("vdb", "16M")]
    vm = lab.vm(disks, guest=Guest(slots=256))
    series = Series(vm)
    series.run("c1")
    traced = series.begin("traced", {"vda": "c1"}, "--no-guard",
                          env={"TIDEMARK_TEST_TRACE": "1"})
    lab.tidemark("abort", "--qmp", vm.address)
    for disk in disks:
        assert not os.path.exists(series.image("traced", disk.name))
    before = vm.inventory()
    names = steps(traced.err)
    assert len(names) > 20, names
    for number in chosen(len(names)):
        series.begin("c2", {"vda": "c1"}, "--no-guard", rc=-signal.SIGKILL,
                              env={"TIDEMARK_TEST_KILL_AT": str(number)})
        where = f"step {number} {names[number - 1]}"
        vm.assert_running()
        lab.tidemark("abort", "--qmp", vm.address, check=False)
        vm.assert_clean()
        assert vm.inventory() == before, where
        left = [name for name in os.listdir(series.folder) if ".c2." in name]
        assert not left, f"{where}: {left}"
    series.run("c2", {"vda": "c1"})
    vm.quit()
    for disk in disks:
        lab.check_image(disk.path)
        lab.check_image(series.image("c2", disk.name))


@test(timeout=280)
def test_end_killed_at_each_step(lab: Lab) -> None:
    """The steps by which a finished job is settled, and by which one is aborted."""
    disks = [lab.disk("vda", "16M"), lab.disk("vdb", "16M")]
    vm = lab.vm(disks)
    series = Series(vm)
    rng = lab.rng
    series.run("c0")
    for disk in disks:
        vm.writer(disk).random_ops(rng, 20)

    def settle(env: dict[str, str]):
        return lab.tidemark("wait", "--qmp", vm.address, env=env,
                            rc=(0, -signal.SIGKILL))

    number, since, killed = 1, "c0", 0
    while True:
        name = f"w{number}"
        models = {disk.name: disk.model.snapshot() for disk in disks}
        series.begin(name, {"vda": since, "vdb": since}, "--no-guard")
        result = settle({"TIDEMARK_TEST_KILL_AT": str(number)})
        # Whoever comes next brings it to its end, and the result is the same.
        lab.tidemark("wait", "--qmp", vm.address)
        vm.assert_clean()
        for disk in disks:
            lab.compare(series.image(name, disk.name), models[disk.name])
            vm.writer(disk).random_ops(rng, 3)
        listed = lab.tidemark_json("checkpoint", "list", "--qmp", vm.address)["checkpoints"]
        assert [one["name"] for one in listed if one["current"]] == [name], listed
        since = name
        if result.rc != -signal.SIGKILL:
            break
        killed += 1
        number += soak(2, 1)
    assert killed >= 5, killed

    before, number = vm.inventory(), 1
    while True:
        series.begin("gone", {"vda": since}, "--no-guard", "--bandwidth", "1M")
        result = killed_at(lab, number, "abort", "--qmp", vm.address)
        lab.tidemark("abort", "--qmp", vm.address, check=False)
        vm.assert_clean()
        assert vm.inventory() == before
        assert not [one for one in os.listdir(series.folder) if ".gone." in one]
        if result.rc != -signal.SIGKILL:
            break
        number += soak(2, 1)

main()
