# SPDX-License-Identifier: LGPL-2.1-or-later
"""A repository as the tests use it, with what each of its points must contain.

    repo = Repository(lab)
    point = repo.backup(vm)              # of all disks, with their models as of now
    repo.check(point)                    # restored, each disk is its model
    repo.verify()
"""
from __future__ import annotations

import os
from dataclasses import dataclass

from lab import Disk, Lab, Model, Vm


def image_options(disks: list[Disk]) -> list[str]:
    """How the program is told of powered-off disks."""
    return [f"--image={disk.name}={disk.path},format={disk.fmt}" for disk in disks]


@dataclass
class Point:
    """What a backup said, and what it must contain."""
    id: str
    report: dict
    models: dict[str, Model]

    @property
    def modes(self) -> dict[str, str]:
        return {disk["name"]: disk["mode"] for disk in self.report["disks"]}

    @property
    def reasons(self) -> dict[str, str]:
        return {disk["name"]: disk["reason"] for disk in self.report["disks"]}

    def expect(self, **modes: str) -> Point:
        """These disks are in it, read in these modes."""
        assert self.modes == modes, f"{self.modes}: {self.reasons}"
        return self

    def disk(self, name: str) -> dict:
        return next(disk for disk in self.report["disks"] if disk["name"] == name)


def check_words(err: str, *words: str) -> None:
    """One error with one hint, the last things that are said, and these words in them."""
    lines = err.rstrip("\n").splitlines()
    at = [n for n, line in enumerate(lines) if line.startswith("tidemark: error: ")]
    assert len(at) == 1, err
    assert [line for line in lines[at[0]:] if line.startswith("hint: ")] == lines[-1:], err
    for word in words:
        assert word in "\n".join(lines[at[0]:]), f"'{word}' not in: {err}"


class Repository:
    """A repository in the lab's folder."""

    def __init__(self, lab: Lab, name: str = "repo", *options: object,
                 path: str | None = None) -> None:
        self.lab = lab
        self.path = path or lab.path(name)
        self.points: list[Point] = []
        lab.tidemark("init", "-r", self.path, *options)

    @property
    def prefix(self) -> str:
        """How its checkpoints' names begin."""
        return f"tidemark-{self.id[:8]}-"

    @property
    def id(self) -> str:
        return self.lab.tidemark_json("stats", "-r", self.path)["id"]

    def run(self, verb: str, *args: object, **how):
        return self.lab.tidemark(verb, "-r", self.path, *args, **how)

    def backup(self, vm: Vm, *options: object, rc: int | tuple[int, ...] = (0, 3),
               env: dict | None = None) -> Point:
        """A backup of a machine that stands still; its disks' models are what it must contain."""
        return self.backup_of(vm.domain, {disk.name: disk.model for disk in vm.disks},
                              *options, rc=rc, env=env)

    def backup_images(self, disks: list[Disk], *options: object, rc: int | tuple[int, ...] = (0, 3),
                      env: dict | None = None) -> Point:
        """The same of disks that are powered off."""
        return self.backup_of(image_options(disks), {disk.name: disk.model for disk in disks},
                              *options, rc=rc, env=env)

    def backup_of(self, domain: list[str], models: dict[str, Model], *options: object,
                  rc: int | tuple[int, ...] = (0, 3), env: dict | None = None) -> Point:
        """A backup of the domain that these options name, with the models of its disks."""
        report = self.lab.tidemark_json("backup", *domain, "-r", self.path, *options, rc=rc,
                                        env=env)
        models = {disk["name"]: models[disk["name"]].snapshot() for disk in report["disks"]}
        point = Point(report["point"], report, models)
        self.points.append(point)
        return point

    def restore(self, point: Point | str, disk: str, suffix: str = ".qcow2",
                *options: object) -> str:
        """Restores one disk; returns the image."""
        name = point if isinstance(point, str) else point.id
        image = self.lab.fresh(suffix)
        self.run("restore", name, "--disk", disk, "--to", image, *options)
        return image

    def check(self, point: Point, suffix: str | None = None) -> None:
        """Every disk of a point, restored (to both formats in turn), is what it was."""
        for number, (name, model) in enumerate(point.models.items()):
            kind = suffix or (".qcow2", ".raw")[(number + len(self.points)) % 2]
            image = self.restore(point, name, kind, "--verify")
            self.lab.compare(image, model, kind[1:])
            if kind == ".qcow2":
                self.lab.check_image(image)
            os.unlink(image)

    def check_all(self) -> None:
        for point in self.points:
            self.check(point)

    def verify(self, *options: object) -> dict:
        return self.lab.tidemark_json("verify", "-r", self.path, *options)

    def checkpoints(self, vm: Vm) -> dict[str, list[str]]:
        """The names of this repository's bitmaps on each disk of a running machine."""
        return {disk.name: [name for name in vm.bitmaps(disk) if name.startswith(self.prefix)]
                for disk in vm.disks}

    def assert_tidy(self, vm: Vm) -> None:
        """Nothing is left of a job, and no disk has more than one checkpoint of this repository."""
        vm.assert_clean()
        for disk, names in self.checkpoints(vm).items():
            assert len(names) <= 1, f"disk {disk} has {names}"
        lying = [name for disk in vm.disks for name in os.listdir(os.path.dirname(disk.path))
                 if any(point.id in name for point in self.points)]
        assert not lying, f"scratch left: {lying}"
