# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: whatever ends in the middle of a backup of libvirt's domain (libvirtd, QEMU, the domain
by virsh), the backup says what happened and what to do, and the next one cleans up behind it and is
exact. A job is not hurt by what libvirt refuses meanwhile, and a saved domain not by a backup."""
from __future__ import annotations

import signal

from lab import Lab, diag, main, test
from pull import Pull
from repository import check_words
from virtscene import Scene


@test(timeout=240)
def test_libvirtd_killed(lab: Lab) -> None:
    """While we read: the backup says so and fails, or gets through; the guest does not notice."""
    scene = Scene(lab)
    for number in (signal.SIGKILL, signal.SIGTERM):
        child = scene.slow()
        scene.host.kill(number)
        writer_ok = scene.vm.alive()
        _, err = child.communicate(timeout=90)
        diag(f"{number.name}: exit {child.returncode}: {err.strip()}")
        assert child.returncode in (0, 1) and writer_ok, err
        if child.returncode == 1:
            check_words(err, "libvirt")
        said = lab.tidemark(*scene.arguments, rc=1)
        check_words(said.err, "libvirt")
        scene.host.start()
        assert scene.vm.state() == "running"
        scene.prove("")
        scene.prove()
    # Killed and started again while we read.
    child = scene.slow()
    scene.host.restart()
    _, err = child.communicate(timeout=90)
    diag(f"restarted: exit {child.returncode}: {err.strip()}")
    if child.returncode:
        check_words(err)
    scene.prove("")
    scene.prove()
    # Between begin and end.
    pull = Pull(lab, scene.vm)
    models = {disk.name: disk.model.snapshot() for disk in scene.vm.disks}
    pull.begin("c1")
    scene.host.restart()
    scene.vm.change(2)
    for name, model in models.items():
        pull.compare(name, model)
    lab.tidemark("status", *scene.vm.domain)
    pull.end()
    scene.prove()
    scene.repo.check_all()


@test(timeout=240)
def test_qemu_killed(lab: Lab) -> None:
    """The backup says that the domain has ended; the next one, off or on, is full and exact."""
    scene = Scene(lab)
    for running in (False, True):
        child = scene.slow()
        scene.vm.kill()
        _, err = child.communicate(timeout=60)
        assert child.returncode == 1, (child.returncode, err)
        check_words(err)
        diag(err.strip())
        if running:
            scene.vm.start()
        scene.prove("full")
        if not running:
            scene.vm.start()
        scene.prove()
    scene.repo.check_all()
    # A job by begin: status says it, end and abort do not hang, the next backup works.
    pull = Pull(lab, scene.vm)
    pull.begin("c1")
    for disk in scene.vm.disks:
        scene.vm.writer(disk).flush()
    scene.vm.kill()
    lab.tidemark("status", *scene.vm.domain, check=False)
    said = lab.tidemark("end", *scene.vm.domain, check=False)
    diag(f"end: {said.rc}: {said.err.strip()}")
    pull.assert_no_files()
    scene.vm.start()
    scene.prove("full")


@test(timeout=180)
def test_ended_by_virsh(lab: Lab) -> None:
    """destroy, with and without grace; domjobabort; each in the middle of a backup."""
    scene = Scene(lab)
    for way in (["destroy"], ["destroy", "--graceful"], ["domjobabort"]):
        child = scene.slow()
        scene.vm.virsh(*way)
        _, err = child.communicate(timeout=60)
        assert child.returncode == 1, (way, child.returncode, err)
        check_words(err)
        diag(f"{' '.join(way)}: {err.strip()}")
        if not scene.vm.alive():
            scene.vm.close()
            scene.prove("")
            scene.vm.start()
        scene.prove("")
    scene.prove()
    scene.repo.check_all()


@test(timeout=180)
def test_not_saved_meanwhile(lab: Lab) -> None:
    """libvirt refuses to save, migrate or snapshot a domain with a job; the job stays whole."""
    scene = Scene(lab)
    vm = scene.vm
    pull = Pull(lab, vm)
    models = {disk.name: disk.model.snapshot() for disk in vm.disks}
    pull.begin("c1")
    waiting = [lab.tool_popen("virsh", "-c", vm.host.uri, command, vm.name, *more)
               for command, *more in (["save", lab.path("saved")], ["managedsave"],
                                      ["snapshot-create", "--disk-only", "--no-metadata"])]
    # libvirt lets them wait for 30 s.
    assert all(child.wait(60) for child in waiting), [child.returncode for child in waiting]
    vm.virsh("checkpoint-delete", "c1")  # of the exports, which have bitmaps of their own, no part
    vm.change(3)
    for name, model in models.items():
        pull.compare(name, model)
    pull.end()
    scene.prove()
    scene.repo.check_all()


@test(timeout=180)
def test_saved_and_started_again(lab: Lab) -> None:
    """A saved domain's disks stay what its memory takes them for, and the chain goes on."""
    scene = Scene(lab)
    vm = scene.vm
    for _ in range(2):
        vm.change(2)
        vm.close()
        vm.virsh("managedsave")
        scene.repo.check(scene.repo.backup(vm))
        for disk in vm.disks:
            lab.compare(disk.path, disk.model, disk.fmt)
        vm.virsh("start")
        vm.connect()
        scene.prove()
    scene.repo.check_all()


main()
