# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: whatever ends in the middle of a backup of libvirt's domain (the program, libvirtd, QEMU,
the domain by virsh) costs no more than that backup: it says what happened and what to do, the
domain goes on where it can, the next backup cleans up behind it and is exact. Where the program was
killed or interrupted, it is incremental."""
from __future__ import annotations

import os
import signal
import subprocess
import time

from lab import Lab, diag, main, soak, test, wait_until
from pull import Pull
from repository import Repository, check_words
from virt import Libvirt

M = 1 << 20


class Scene:
    """A domain with a point, to which something was written since."""

    def __init__(self, lab: Lab, size: str = "8M") -> None:
        self.lab = lab
        self.host = Libvirt(lab)
        self.vm = self.host.vm([lab.disk("vda", size), lab.disk("vdb", "4M")])
        self.repo = Repository(lab)
        self.vm.change(20)
        self.repo.backup(self.vm, rc=0)

    @property
    def arguments(self) -> list[str]:
        return ["backup", *self.vm.domain, "-r", self.repo.path, "-q"]

    def slow(self, *options: str) -> subprocess.Popen:
        """A backup that takes some seconds, and has begun to read."""
        child = self.lab.tidemark_popen(*self.arguments, "--mode", "full", "--bandwidth", "2M",
                                        *options)
        wait_until(lambda: self.vm.job() or child.poll() is not None, 20)
        assert child.poll() is None, child.communicate()
        time.sleep(0.2 + self.lab.rng.random() / 2)
        return child

    def prove(self, mode: str = "incremental") -> None:
        """The next backup is exact and tidy, and the one before it is still what it was."""
        self.vm.change(3)
        point = self.repo.backup(self.vm)
        if mode:
            point.expect(vda=mode, vdb=mode)
        self.vm.assert_tidy(self.repo)
        for point in self.repo.points[-2:]:
            self.repo.check(point)

    def folders(self) -> list[str]:
        return [name for name in os.listdir("/run") if name.startswith("tidemark-")]


@test(timeout=240)
def test_program_killed_at_every_step(lab: Lab) -> None:
    scene = Scene(lab)
    before = scene.folders()
    scene.vm.change(2)
    traced = lab.tidemark(*scene.arguments, env={"TIDEMARK_TEST_TRACE": "1"})
    steps = [line for line in traced.err.splitlines() if line.startswith("testpoint")]
    assert any("libvirt-begun" in step for step in steps), steps
    stride = soak(5, 1)
    killed = 0
    for number in range(lab.rng.randrange(stride) + 1, len(steps) + 1, stride):
        scene.vm.change(2)
        said = lab.tidemark(*scene.arguments, env={"TIDEMARK_TEST_KILL_AT": str(number)},
                            rc=(0, -signal.SIGKILL))
        killed += said.rc != 0
        assert scene.vm.status() == "running"
        scene.prove()
    diag(f"{killed} of {len(steps)} steps")
    assert killed > len(steps) // stride // 2
    assert scene.repo.verify()["damaged"] == 0
    assert scene.folders() == before
    scene.repo.check_all()


@test(timeout=240)
def test_program_killed_while_it_is_shut_off(lab: Lab) -> None:
    """The domain can be started at once, or as soon as the next backup has looked."""
    scene = Scene(lab)
    scene.vm.quit()
    scene.vm.change(2)
    traced = lab.tidemark(*scene.arguments, env={"TIDEMARK_TEST_TRACE": "1"})
    steps = len([line for line in traced.err.splitlines() if line.startswith("testpoint")])
    stride = soak(9, 1)
    for number in range(lab.rng.randrange(stride) + 1, steps + 1, stride):
        scene.vm.change(2)
        lab.tidemark(*scene.arguments, env={"TIDEMARK_TEST_KILL_AT": str(number)},
                     rc=(0, -signal.SIGKILL))
        if number % 2:  # whatever held the images has gone with it
            wait_until(lambda: scene.vm.virsh("start", check=False).rc == 0, 15, "a start")
            scene.vm.connect()
            scene.prove("")
            scene.vm.quit()
        else:
            wait_until(lambda: not lab.tool("fuser", scene.vm["vda"].path, check=False).out, 15)
        scene.prove("")
    scene.prove()
    scene.repo.check_all()


@test(timeout=180)
def test_interrupted(lab: Lab) -> None:
    """Ctrl-C cleans up at once: nothing is left even without a next backup."""
    scene = Scene(lab)
    before = scene.folders()
    for number in range(soak(3, 20)):
        if number == 2:
            scene.vm.quit()
        scene.vm.change(20)
        child = lab.tidemark_popen(*scene.arguments, "--bandwidth", "1M", "--mode", "full")
        time.sleep(0.3 + lab.rng.random())
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
        assert child.returncode == 130, (child.returncode, err)
        scene.vm.assert_tidy(scene.repo)
        assert scene.folders() == before
    scene.prove()


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
