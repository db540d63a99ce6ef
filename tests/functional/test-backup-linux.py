#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: of a Linux guest that writes files all the time, every point, full or incremental, is an
instant: both its file systems are in order once their journals are replayed, and have every file
that was synced before the backup began, by the SHA-256 that the guest itself has told; nothing of
the guest's fails meanwhile; and a restored machine boots and finds its files.

e2fsck, debugfs and the guest are the judges (tests/lib/linux.py)."""
from __future__ import annotations

import os

from lab import Lab, diag, main, soak, test
from linux import Booted, Linux, files_in
from repository import Repository

DISKS = {"a": "vda", "b": "vdb"}


class Expected:
    """What a point must have: synced before it began, and not deleted until it was done."""

    def __init__(self, guest: Booted) -> None:
        self.guest = guest
        self.files = guest.synced()

    def backup_done(self) -> None:
        for key in self.guest.deleted():
            self.files.pop(key, None)


def check_files(found: dict[tuple[str, int], str], expected: Expected) -> int:
    """The cut; returns for how many files a SHA-256 was known."""
    assert len(expected.files) >= 8, expected.files
    for (disk, number), digest in expected.files.items():
        assert found.get((disk, number)) == digest, f"{disk}: file {number}"
    a, b = (max(number for disk, number in found if disk == name) for name in "ab")
    assert b <= a <= b + 1, f"the last files are {a} and {b}: not of one instant"
    known = expected.guest.synced()
    sure = [(disk, number) for disk, number in found if number < b or (disk == "a" and number == b)]
    for key in sure:
        assert found[key] == known[key], key
    return len(sure)


def check_point(lab: Lab, repo: Repository, point: str,
                expected: Expected) -> dict[tuple[str, int], str]:
    """Both disks, restored; returns what they have."""
    found = {}
    for letter, name in DISKS.items():
        image = repo.restore(point, name, ".raw", "--verify")
        found |= {(letter, number): digest for number, digest in files_in(lab, image).items()}
        os.unlink(image)
    diag(f"{point}: {len(expected.files)} files expected, {check_files(found, expected)} compared")
    return found


def check_the_check(one: dict, other: dict, expected: Expected) -> None:
    """Disks of two points must not pass for one."""
    mixed = {key: digest for key, digest in one.items() if key[0] == "a"}
    mixed |= {key: digest for key, digest in other.items() if key[0] == "b"}
    try:
        check_files(mixed, expected)
    except AssertionError:
        return
    raise AssertionError("the check finds nothing")


def check_boots(lab: Lab, linux: Linux, repo: Repository, point: str, expected: Expected) -> None:
    """The restored disks in a machine like the one they are from."""
    disks = [lab.disk(f"new-{name}", "48M", path=lab.fresh(".qcow2")) for name in DISKS.values()]
    for disk, name in zip(disks, DISKS.values()):
        os.unlink(disk.path)
        repo.run("restore", point, "--disk", name, "--to", disk.path)
    looking = linux.boot(disks, look=True)
    looking.vm.wait_end(60)
    assert ["LOOKED"] in looking.said()
    check_files(looking.has(), expected)


def rounds(lab: Lab, count: int, iothread: bool) -> None:
    linux = Linux(lab)
    disks = [lab.disk("vda", "48M", iothread=iothread),
             lab.disk("vdb", "48M", fmt="raw", iothread=iothread)]
    for disk in disks:
        linux.format(disk)
    guest = linux.boot(disks)
    repo = Repository(lab)
    points: dict[str, Expected] = {}
    for number in range(count):
        guest.wait(8)
        expected = Expected(guest)
        report = lab.tidemark_json("backup", "--qmp", guest.vm.address, "-r", repo.path, rc=0)
        expected.backup_done()
        guest.vm.assert_clean()
        points[report["point"]] = expected
        mode = "incremental" if number else "full"
        assert [disk["mode"] for disk in report["disks"]] == [mode, mode], report
        if number:
            assert all(0 < disk["read"] < disk["size"] // 2 for disk in report["disks"]), report
    guest.wait(4)  # it goes on, and no write has failed
    # QEMU is killed, so the disk itself may have more than any point, and less than is said.
    guest.vm.kill()
    found = [check_point(lab, repo, point, expected) for point, expected in points.items()]
    check_the_check(found[0], found[1], points[list(points)[0]])
    assert repo.verify()["damaged"] == 0
    point, expected = list(points.items())[-1]
    check_boots(lab, linux, repo, point, expected)


@test(timeout=180)
def test_every_point_is_an_instant(lab: Lab) -> None:
    rounds(lab, soak(4, 60), iothread=False)


@test(timeout=180)
def test_of_disks_in_an_iothread(lab: Lab) -> None:
    """Where QEMU cannot export these, they are copied first."""
    rounds(lab, soak(3, 40), iothread=True)


main()
