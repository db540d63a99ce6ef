# SPDX-License-Identifier: LGPL-2.1-or-later
"""Push backups as the tests make them: documents, runs, and the check of what was left.

    series = Series(vm)
    series.run("c1")                                   # all disks in full
    vm.writer(disk).write(0, 65536)
    point = series.run("c2", {"vda": "c1"})            # vda since c1, others in full
    point.verify()
"""
from __future__ import annotations

import os
from collections.abc import Callable
from xml.sax.saxutils import quoteattr

from lab import Lab, Vm
from model import Model


def disk_xml(name: str, target: str | None = None, *, since: str | None = None,
             mode: str | None = None, fmt: str | None = None, kind: str = "file",
             inside: str = "") -> str:
    """A <disk> of a push document."""
    words = f"<disk name={quoteattr(name)}"
    if target:
        words += f" type='{kind}'"
    if mode:
        words += f" backupmode='{mode}'"
    if since:
        words += f" incremental={quoteattr(since)}"
    if not target:
        return words + "/>"
    driver = f"<driver type='{fmt}'/>" if fmt else ""
    place = "dev" if kind == "block" else "file"
    return f"{words}>{driver}<target {place}={quoteattr(target)}>{inside}</target></disk>"


def backup_xml(disks: list[str], since: str | None = None) -> str:
    """A push document."""
    job = f"<incremental>{since}</incremental>" if since else ""
    return f"<domainbackup>{job}<disks>{''.join(disks)}</disks></domainbackup>"


def checkpoint_xml(name: str, disks: list[str] | None = None) -> str:
    """A <domaincheckpoint> of all disks, or of those named."""
    body = f"<disks>{''.join(f'<disk name={quoteattr(d)}/>' for d in disks)}</disks>" if disks else ""
    return f"<domaincheckpoint><name>{name}</name>{body}</domaincheckpoint>"


class Point:
    """One finished push: an image a disk, and what each disk was at that instant."""

    def __init__(self, lab: Lab, name: str, images: dict[str, str],
                 models: dict[str, Model]) -> None:
        self.lab, self.name, self.images, self.models = lab, name, images, models

    def verify(self) -> None:
        """Each chain equals its disk at the instant, and is in order."""
        for disk, image in self.images.items():
            self.lab.compare(image, self.models[disk])
            self.lab.check_image(image)


class Series:
    """Pushes of one machine, one after the other, into a folder."""

    def __init__(self, vm: Vm, folder: str | None = None) -> None:
        self.vm, self.lab = vm, vm.lab
        self.folder = folder or self.lab.path(f"backups-{vm.name}")
        os.makedirs(self.folder, exist_ok=True)
        self.points: list[Point] = []

    def document(self, name: str, since: dict[str, str]) -> str:
        """The path of a document that backs every disk up, those in `since` incrementally."""
        disks = [disk_xml(disk.name, self.image(name, disk.name), since=since.get(disk.name))
                 for disk in self.vm.disks]
        return self.lab.file(f"{self.vm.name}-{name}.xml", backup_xml(disks))

    def image(self, name: str, disk: str) -> str:
        return f"{self.folder}/{disk}.{name}.qcow2"

    def begin(self, name: str, since: dict[str, str] | None = None, *options: str, **how):
        """Begins a push of all disks with checkpoint `name`; returns the command's Result."""
        checkpoint = self.lab.file(f"{self.vm.name}-{name}-checkpoint.xml", checkpoint_xml(name))
        return self.lab.tidemark("begin", *self.vm.domain, *options,
                                 self.document(name, since or {}), checkpoint, **how)

    def run(self, name: str, since: dict[str, str] | None = None, *options: str,
            during: Callable[[], None] | None = None) -> Point:
        """Begins, lets `during` happen while the job runs, waits, and remembers the point."""
        models = {disk.name: disk.model.snapshot() for disk in self.vm.disks}
        self.begin(name, since, *options)
        if during:
            during()
        self.lab.tidemark("wait", *self.vm.domain)
        self.vm.assert_clean()
        images = {disk.name: self.image(name, disk.name) for disk in self.vm.disks}
        self.points.append(Point(self.lab, name, images, models))
        return self.points[-1]
