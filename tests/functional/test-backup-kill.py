# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: a backup that is killed at any step, whose QEMU is killed, whose repository or scratch
runs full, or whose store fails any one operation, costs nothing but itself: earlier points are
whole, and the next backup works, is exact, and leaves nothing of the one before."""
from __future__ import annotations

import os
import signal
import time

from lab import Guest, Lab, diag, main, soak, test, wait_until
from repository import Repository
from run import wait_until_caught

M = 1 << 20


class Scene:
    """A machine with a point, to which something was written since."""

    def __init__(self, lab: Lab, size: str = "8M", **how) -> None:
        self.lab = lab
        self.vm = lab.vm([lab.disk("vda", size), lab.disk("vdb", "4M")])
        self.repo = Repository(lab, **how)
        self.change(20)
        self.repo.backup(self.vm)

    def change(self, count: int = 4) -> None:
        for disk in self.vm.disks:
            self.vm.writer(disk).random_ops(self.lab.rng, count, longest=1 << 18)

    @property
    def arguments(self) -> list[str]:
        return ["backup", "--qmp", self.vm.address, "-r", self.repo.path, "-q"]

    def prove(self) -> None:
        """The next backup is exact and tidy, and the one before it is still what it was."""
        self.repo.backup(self.vm)
        self.repo.assert_tidy(self.vm)
        for point in self.repo.points[-2:]:
            self.repo.check(point)


def steps_of_a_backup(scene: Scene) -> list[str]:
    scene.change()
    traced = scene.lab.tidemark(*scene.arguments, env={"TIDEMARK_TEST_TRACE": "1"})
    return [line for line in traced.err.splitlines() if line.startswith("testpoint")]


@test(timeout=240)
def test_killed_at_every_step(lab: Lab) -> None:
    scene = Scene(lab)
    steps = steps_of_a_backup(scene)
    assert len(steps) > 20, steps
    diag(f"{len(steps)} steps")
    first = lab.rng.randrange(soak(6, 1)) + 1
    killed = 0
    for number in range(first, len(steps) + 1, soak(6, 1)):
        scene.change(2)
        said = lab.tidemark(*scene.arguments, env={"TIDEMARK_TEST_KILL_AT": str(number)},
                            rc=(0, -signal.SIGKILL))
        killed += said.rc != 0
        wait_until(lambda: scene.vm.status() == "running", 5)  # a watchdog lets it go on
        if number % 2:
            scene.change(2)
        scene.prove()
    assert killed > len(steps) // soak(6, 1) // 2
    assert scene.repo.verify()["damaged"] == 0
    scene.repo.check_all()


@test(timeout=240)
def test_killed_at_any_moment(lab: Lab) -> None:
    scene = Scene(lab, size="24M")
    scene.change(40)
    begun = time.monotonic()
    lab.tidemark(*scene.arguments, "--mode", "full")
    length = time.monotonic() - begun
    killed = 0
    for _ in range(soak(10, 100)):
        scene.change(2)
        child = lab.tidemark_popen(*scene.arguments, *lab.rng.choice(([], ["--mode", "full"])))
        time.sleep(lab.rng.random() * length)
        child.kill()
        killed += child.wait() == -signal.SIGKILL
        wait_until(lambda: scene.vm.status() == "running", 5)  # a watchdog lets it go on
        scene.prove()
    diag(f"killed {killed}")
    assert killed > 0
    assert scene.repo.verify()["damaged"] == 0


@test(timeout=240)
def test_interrupted(lab: Lab) -> None:
    """Ctrl-C cleans up at once: nothing is left even without a next backup."""
    scene = Scene(lab, size="24M")
    for _ in range(soak(4, 20)):
        scene.change(30)
        child = lab.tidemark_popen(*scene.arguments, "--bandwidth", "2M", "--mode", "full")
        wait_until_caught(child)
        time.sleep(lab.rng.random())
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
        assert child.returncode == 130, err
        scene.repo.assert_tidy(scene.vm)
    scene.prove()


@test(timeout=240)
def test_killed_machines(lab: Lab) -> None:
    scene = Scene(lab, size="16M")
    for number in range(soak(4, 20)):
        scene.change(20)
        child = lab.tidemark_popen(*scene.arguments, "--mode", "full", "--bandwidth", "8M")
        time.sleep(0.05 + lab.rng.random() * 1.2)
        scene.vm.kill()
        _, err = child.communicate(timeout=60)
        assert child.returncode in (0, 1), err
        if child.returncode == 1:
            assert "error:" in err and "hint:" in err, err
        scene.vm.start()
        scene.repo.backup(scene.vm)
        scene.repo.assert_tidy(scene.vm)
        scene.repo.check(scene.repo.points[-1])
        diag(f"{number}: {child.returncode}")
    scene.repo.check_all()


@test
def test_a_full_repository(lab: Lab) -> None:
    folder = lab.tmpfs("24M")
    scene = Scene(lab, size="64M", path=f"{folder}/repo")
    writer = scene.vm.writer(scene.vm["vda"])
    for number in range(12):
        writer.write_random(number * 4 * M, 3 * M, lab.rng)
    said = lab.tidemark(*scene.arguments, rc=1)
    assert "space" in said.err and "hint:" in said.err, said.err
    scene.repo.assert_tidy(scene.vm)
    assert scene.repo.verify()["damaged"] == 0
    scene.repo.check_all()
    lab.tool("mount", "-o", "remount,size=200M", folder)
    scene.prove()


@test
def test_a_full_scratch(lab: Lab) -> None:
    """The guest goes on, the point is not made, and the next one is exact."""
    folder = lab.tmpfs("1M")
    guest = Guest(slots=2048, spacing=65536, pause_us=0)
    vm = lab.vm([lab.disk("vda", "160M")], guest=guest)
    repo = Repository(lab)
    guest.wait(200)
    lab.tidemark("backup", "--qmp", vm.address, "-r", repo.path, "-q")
    said = lab.tidemark("backup", "--qmp", vm.address, "-r", repo.path, "--mode", "full",
                        "--bandwidth", "20M", "--scratch-dir", folder, rc=1, timeout=80)
    assert "vda" in said.err and "hint:" in said.err, said.err
    assert guest.errors() == 0
    vm.assert_clean()
    assert os.listdir(folder) == []
    assert len(lab.tidemark_json("list", "-r", repo.path)["points"]) == 1
    report = lab.tidemark_json("backup", "--qmp", vm.address, "-r", repo.path, rc=0)
    assert report["disks"][0]["mode"] == "incremental"
    guest.check_cut([repo.restore(report["point"], "vda", ".raw", "--verify")])


def forget_old(repo: Repository, keep: int = 3) -> None:
    """Removes the oldest points: to read them is an operation of the store too, so with each new
    one there would be another operation to fail, without end."""
    folder = os.path.join(repo.path, "points")
    names = sorted(os.listdir(folder), key=lambda name: os.stat(f"{folder}/{name}").st_mtime_ns)
    for name in names[:-keep]:
        os.unlink(os.path.join(folder, name))
    repo.points = [point for point in repo.points if point.id in names[-keep:]]


@test(timeout=240)
def test_a_store_that_fails(lab: Lab) -> None:
    """Each operation of the store fails once, before or after it was carried out."""
    scene = Scene(lab)
    failures = number = 0
    while True:
        number += lab.rng.randrange(soak(8, 1)) + 1
        scene.change(2)
        said = lab.tidemark(*scene.arguments, check=False, env={
            "TIDEMARK_TEST_STORE_FAILS_AT": f"{number}{lab.rng.choice(('', ',after'))}",
            "TIDEMARK_TEST_TRACE": "1"})
        if "store-fails" not in said.err:
            break
        failures += said.rc != 0
        assert said.rc in (0, 1, 3), said
        scene.prove()
        forget_old(scene.repo)
    diag(f"{number} operations, {failures} backups failed")
    assert failures > 3
    assert scene.repo.verify()["damaged"] == 0
    scene.repo.check_all()


main()
