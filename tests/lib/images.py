# SPDX-License-Identifier: LGPL-2.1-or-later
"""Powered-off disks: changing them, what is left of a daemon, a backup to disturb."""
from __future__ import annotations

import glob
import hashlib
import json
import os

from lab import Disk, Lab, Vm, wait_until
from repository import Point, Repository, image_options

SIZE = 8 << 20
XML = """<domain type='kvm'><name>web</name><uuid>{uuid}</uuid><devices>{disks}</devices></domain>"""


def domain_xml(lab: Lab, vm: Vm) -> str:
    disks = "".join(f"<disk type='file' device='disk'><driver name='qemu' type='{disk.fmt}'/>"
                    f"<source file='{disk.path}'/><target dev='{disk.name}' bus='virtio'/></disk>"
                    for disk in vm.disks)
    return lab.file("domain.xml", XML.format(uuid=vm.uuid, disks=disks))


def change(lab: Lab, disks: list[Disk], vm: Vm | None = None, count: int = 5) -> None:
    for disk in disks:
        writer = vm.writer(disk) if vm else lab.writer(disk)
        writer.random_ops(lab.rng, count, longest=1 << 18)


def folders(lab: Lab) -> set[str]:
    """The daemons' folders of the lab's state folder."""
    mine = hashlib.sha256(lab.state.encode()).hexdigest()[:8]
    return {name for base in ("/run", os.environ.get("XDG_RUNTIME_DIR", "/run"), "/tmp")
            for name in glob.glob(f"{base}/tidemark-images-{mine}-*")}


def assert_tidy(lab: Lab, disks: list[Disk], repo: Repository | None = None) -> None:
    """No daemon, no state of one, sound images with at most one checkpoint, and none of a job."""
    left = glob.glob(f"{lab.state}/domains/*/images.json") + glob.glob(
        f"{lab.state}/domains/*/job.json")
    assert not left, left
    for path in glob.glob(f"{lab.state}/domains/*/last.json"):
        with open(path, encoding="utf-8") as last:
            for entry in json.load(last)["undo"]:
                assert entry["op"] != "folder" or not os.path.exists(entry["path"]), entry
    for disk in disks:
        if disk.fmt != "qcow2":
            continue
        lab.check_image(disk.path)
        names = [one["name"] for one in bitmaps(lab, disk.path)]
        assert not [name for name in names if name.startswith("tmk-")], names
        if repo:
            assert len([name for name in names if name.startswith(repo.prefix)]) <= 1, names


def bitmaps(lab: Lab, path: str) -> list[dict]:
    specific = lab.info(path)["format-specific"]["data"]
    return specific.get("bitmaps", [])


def reasons(point: Point) -> dict[str, str]:
    return {disk["name"]: disk["reason"] for disk in point.report["disks"]}


def expect(point: Point, **modes: str) -> None:
    assert point.modes == modes, f"{point.modes}: {reasons(point)}"


def daemon_of(lab: Lab) -> tuple[str, int]:
    """The folder and the process of the lab's daemon."""
    [document] = glob.glob(f"{lab.state}/domains/*/images.json")
    with open(document, encoding="utf-8") as text:
        folder = json.load(text)["folder"]
    with open(f"{folder}/pid", encoding="utf-8") as text:
        return folder, int(text.read())


def wait_until_running(lab: Lab) -> None:
    wait_until(lambda: [path for path in glob.glob(f"{lab.state}/domains/*/job.json")
                        if '"phase": "running"' in open(path, encoding="utf-8").read()], 10)


class Scene:
    """Disks with a point, to which something was written since."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.repo = lab, Repository(lab)
        self.disks = [lab.disk("vda", SIZE), lab.disk("vdb", "4M"), lab.disk("vdc", "1M",
                                                                             fmt="raw")]
        change(lab, self.disks, count=20)
        self.repo.backup_images(self.disks, "--name", "web")

    @property
    def arguments(self) -> list[str]:
        return ["backup", *image_options(self.disks), "-r", self.repo.path, "--name", "web", "-q"]

    def prove(self) -> None:
        self.repo.backup_images(self.disks, "--name", "web")
        assert_tidy(self.lab, self.disks, self.repo)
        for point in self.repo.points[-2:]:
            self.repo.check(point)
