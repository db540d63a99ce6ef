#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: images on block devices, qcow2 and raw, are backed up like files; one that a machine has
open, that is mounted or that is held exclusively is refused with who has it and left alone; and as
long as a backup reads one it can be neither mounted nor written by a machine."""
from __future__ import annotations

import glob
import os
import socket as sockets

from lab import Disk, Lab, Model, Skip, Writer, main, test, wait_until
from repository import Repository, check_words, image_options

SIZE = 6 << 20


class Devices:
    """Loop devices, detached at the end."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.paths = lab, []

    def __enter__(self) -> Devices:
        self.lab.need("losetup", "mount")
        return self

    def __exit__(self, *_: object) -> None:
        for path in self.paths:
            self.lab.tool("umount", "-l", path, check=False)
            self.lab.tool("losetup", "-d", path, check=False)

    def attach(self, size: int) -> str:
        file = self.lab.fresh(".loop")
        with open(file, "wb") as out:
            out.truncate(size)
        made = self.lab.tool("losetup", "--find", "--show", file, check=False)
        if made.rc:
            raise Skip("may not make loop devices")
        self.paths.append(made.out.strip())
        return self.paths[-1]

    def disk(self, name: str, fmt: str) -> Disk:
        path = self.attach(SIZE if fmt == "raw" else 2 * SIZE)
        if fmt == "qcow2":
            self.lab.create(path, SIZE, fmt)
        # What a discard does to a raw one is the device's affair: none is made of it.
        unit, discard = (1 << 16, "unmap") if fmt == "qcow2" else (None, "ignore")
        return Disk(name, path, Model(SIZE, unit), fmt=fmt, discard=discard, node=f"{name}-fmt")


def writer(lab: Lab, disk: Disk) -> Writer:
    mode = ["--image-opts", f"driver={disk.fmt},file.driver=host_device,file.filename={disk.path},"
            f"discard={disk.discard},file.discard={disk.discard}"]

    def do(command: str) -> str:
        said = lab.tool("qemu-io", *mode, "-c", command, rc=(0, 1))
        return said.out + said.err

    return Writer(do, disk.model, lab.fresh(".content"))


@test(timeout=120)
def test_chain(lab: Lab) -> None:
    with Devices(lab) as devices:
        disks = [devices.disk("vda", "qcow2"), devices.disk("vdb", "raw")]
        repo = Repository(lab)
        for number in range(4):
            for disk in disks:
                writer(lab, disk).random_ops(lab.rng, 6 if number else 20, longest=1 << 18)
            point = repo.backup_images(disks, "--name", "web")
            assert point.modes == {"vda": "incremental" if number else "full", "vdb": "full"}
            lab.check_image(disks[0].path)
        repo.check_all()
        assert repo.verify()["damaged"] == 0
        said = lab.tidemark("disks", f"--image=vda={disks[0].path}", rc=1)
        check_words(said.err, "looks like a qcow2 image", "format=qcow2")


def refused(lab: Lab, repo: Repository, disk: Disk, *words: str) -> None:
    with open(disk.path, "rb") as device:
        before = device.read()
    for verb in (["backup", "-r", repo.path, "--name", "web"], ["disks"],
                 ["checkpoint", "create", "c1"]):
        said = lab.tidemark(*verb, *image_options([disk]), rc=1)
        check_words(said.err, f"'{disk.name}'", "in use", disk.path, *words)
    with open(disk.path, "rb") as device:
        assert before == device.read()
    assert not glob.glob(f"{lab.state}/domains/*/images.json")


def answers(monitor: str) -> bool:
    """Is QEMU there, with all its disks open?"""
    with sockets.socket(sockets.AF_UNIX) as client:
        client.settimeout(5)
        return client.connect_ex(monitor) == 0 and client.recv(1) == b"{"


@test(timeout=120)
def test_in_use(lab: Lab) -> None:
    with Devices(lab) as devices:
        repo = Repository(lab)
        for fmt in ("qcow2", "raw"):
            disk = devices.disk("vda", fmt)
            # A machine, by another name of the same device.
            node = lab.fresh(".node")
            os.mknod(node, 0o600 | 0o060000, os.stat(disk.path).st_rdev)
            vm = lab.tool_popen("qemu-system-x86_64", *lab.firmware(), "-M", "q35", "-nodefaults",
                                "-display", "none", "-S", "-name", "guest=web", "-blockdev",
                                f"driver={fmt},node-name=n,file.driver=host_device,"
                                f"file.filename={disk.path}", "-device", "virtio-blk-pci,drive=n",
                                "-qmp", f"unix:{lab.path(fmt)},server=on,wait=off")
            wait_until(lambda: answers(lab.path(fmt)), what="QEMU's monitor answers")
            refused(lab, repo, disk, f"process {vm.pid}", "'web'")
            vm.terminate()
            vm.wait(30)
            with open(disk.path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_EXCL)):
                refused(lab, repo, disk, f"process {os.getpid()}")
            repo.backup_images([disk], "--name", fmt)


@test(timeout=120)
def test_mounted(lab: Lab) -> None:
    """And what is being backed up cannot be mounted."""
    lab.need("mkfs.ext4")
    with Devices(lab) as devices:
        repo = Repository(lab)
        disk = devices.disk("vda", "raw")
        folder = lab.path("mount point")
        os.mkdir(folder)
        lab.tool("mkfs.ext4", "-q", disk.path)
        if lab.tool("mount", disk.path, folder, check=False).rc:
            raise Skip("may not mount")
        refused(lab, repo, disk, f"'{folder}'")
        lab.tool("umount", folder)
        child = lab.tidemark_popen("backup", *image_options([disk]), "-r", repo.path, "--name", "w",
                                   "--bandwidth", "2M")
        wait_until(lambda: [one for one in glob.glob(f"{lab.state}/domains/*/job.json")
                            if '"phase": "running"' in open(one, encoding="utf-8").read()], 10)
        said = lab.tool("mount", disk.path, folder, check=False)
        assert said.rc != 0, "mounted while it was backed up"
        said = lab.tool("qemu-io", "-f", "raw", "-c", "write -P 1 0 64k", disk.path, check=False)
        assert "lock" in said.err + said.out, said
        _, err = child.communicate(timeout=30)
        assert child.returncode == 0, err
        lab.tool("mount", disk.path, folder)
        lab.tool("umount", folder)


main()
