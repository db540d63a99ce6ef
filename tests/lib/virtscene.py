# SPDX-License-Identifier: LGPL-2.1-or-later
"""A libvirt domain with a backup, of which the next one is cut short by something."""
from __future__ import annotations

import json
import os
import subprocess
import time

from lab import Lab, wait_until
from repository import Repository
from virt import Libvirt


class Scene:
    """A domain with a point, to which something was written since."""

    def __init__(self, lab: Lab, size: str = "8M", *, switch: bool = False) -> None:
        """With `switch` the guest has somebody who shuts it down: see switch_off."""
        self.lab = lab
        self.host = Libvirt(lab)
        self.vm = self.host.vm([lab.disk("vda", size), lab.disk("vdb", "4M")],
                               extra=self._switch() if switch else None)
        self.repo = Repository(lab)
        self.vm.change(20)
        self.repo.backup(self.vm, rc=0)

    @property
    def arguments(self) -> list[str]:
        return ["backup", *self.vm.domain, "-r", self.repo.path, "-q"]

    def _switch(self) -> list[str]:
        """A boot sector that waits for a key and then turns the machine off, as ACPI has it."""
        code = bytes.fromhex("b400 cd16"             # mov ah, 0; int 0x16
                             "ba0406 b80020 ef"      # mov dx, 0x604; mov ax, 0x2000; out dx, ax
                             "f4 ebfd")              # hlt; jmp
        path = self.lab.path("switch.raw")
        with open(path, "wb") as file:
            file.write(code.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
        self.host.public(path)
        return ["-blockdev", json.dumps({"driver": "raw", "node-name": "boot", "read-only": True,
                                         "file": {"driver": "file", "filename": path}}),
                "-device", json.dumps({"driver": "virtio-blk-pci", "id": "boot",
                                       "drive": "boot", "bootindex": 1, "addr": "0x1e"})]

    def switch_off(self) -> None:
        """The guest shuts down."""
        self.vm.virsh("send-key", "KEY_ENTER")

    def slow(self, *options: str) -> subprocess.Popen:
        """A backup that takes some seconds, and has begun to read. What was written is kept even
        if QEMU is killed."""
        for disk in self.vm.disks:
            self.vm.writer(disk).flush()
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
