# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest with Linux and two ext4 disks, which writes files, syncs them and says so.

Kernel, modules and busybox are Debian's, unpacked in a cache by scripts/fetch-debian.sh; the
initramfs is made here. In turn for n = 1, 2, …: file n is written to the first disk and synced, then
one to the second disk and synced, and only after each sync the serial port tells its name and
SHA-256. Older files are deleted (the disks are mounted with -o discard), after that was said too.
All the while something else overwrites random parts of a large file on each disk, without syncs.

So an image of one instant, after its journal was replayed,
  1. is in order;
  2. has every file that was said to be synced before, and was not said to be deleted until after,
     with that SHA-256;
  3. with a and b the highest numbers on both disks: b <= a <= b + 1, and whatever the first disk has
     with a number up to b is whole, for it was synced before file b of the other was made.
"""
from __future__ import annotations

import glob
import gzip
import hashlib
import os
import re
import subprocess

import run
from lab import Disk, Lab, Skip, Vm, wait_until

SUITE = "bookworm"
MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci",
           "virtio_blk")
KEPT = 24  # the number of files on each disk, about
INIT = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox mkdir -p /dev /proc /a /b
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
echo 0 > /proc/sys/kernel/printk
for module in MODULES; do insmod /$module.ko || echo "TROUBLE $module"; done
mount -t ext4 -o discard /dev/vda /a && mount -t ext4 -o discard /dev/vdb /b || echo TROUBLE mount
echo MOUNTED
if grep -q tmk=look /proc/cmdline; then
  for disk in a b; do
    cd /$disk/files
    for file in *; do sum=$(sha256sum < $file) && echo "HAS $disk $file ${sum%% *}"; done
  done
  cd /
  umount /a /b && echo LOOKED
  poweroff -f
fi
churn () {
  while :; do
    dd if=/dev/urandom of=/$1/churn bs=4k count=$((RANDOM % 16 + 1)) seek=$((RANDOM % 2048)) \\
      conv=notrunc 2>/dev/null || echo "TROUBLE churn"
    usleep 20000
  done
}
mkdir -p /a/files /b/files
churn a & churn b &
n=$(ls /a/files | sort -n | tail -n 1)
n=${n:-0}
while :; do
  n=$((n + 1))
  for disk in a b; do
    head -c $((RANDOM * 4 + 1)) /dev/urandom > /$disk/files/$n || echo "TROUBLE write"
    sum=$(sha256sum < /$disk/files/$n)
    sync || echo "TROUBLE sync"
    echo "SYNCED $disk $n ${sum%% *}"
    old=$((n - KEPT))
    if [ -e /$disk/files/$old ]; then
      echo "DELETE $disk $old"
      rm /$disk/files/$old
    fi
  done
done
"""


def _fetch(*packages: str) -> str:
    script = os.path.join(os.environ.get("TMK_SOURCE_ROOT") or os.getcwd(),
                          "scripts/fetch-debian.sh")
    result = subprocess.run([script, SUITE, "deb-only", *packages], text=True, check=False,
                            stdin=subprocess.DEVNULL, capture_output=True)
    if result.returncode == 77:
        raise Skip(result.stderr.strip().splitlines()[-1])
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def _cpio(entries: dict[str, tuple[int, bytes]]) -> bytes:
    """An archive in the format 'newc': name → (mode, content)."""
    out = bytearray()
    rows = [*entries.items(), ("TRAILER!!!", (0, b""))]
    for number, (name, (mode, content)) in enumerate(rows, 1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % value for value in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return bytes(out)


class Linux:
    """The material, and a machine with it; `disks` have a file system after `format`."""

    def __init__(self, lab: Lab, init: str = INIT, modules: tuple[str, ...] = MODULES) -> None:
        lab.need("mke2fs", "e2fsck", "debugfs")
        # The package of whatever kernel is newest has nothing but a link that names it.
        meta = _fetch("linux-image-cloud-amd64", "busybox-static")
        try:
            kernel = os.readlink(f"{meta}/usr/share/doc/linux-image-cloud-amd64")
        except OSError:
            raise Skip("linux-image-cloud-amd64 does not name its kernel") from None
        root = _fetch(os.path.basename(kernel))
        self.lab = lab
        self.kernel = glob.glob(f"{root}/boot/vmlinuz-*")[0]
        self.initrd = lab.path("initrd")
        self._boots = 0
        init = init.replace("MODULES", " ".join(modules)).replace("KEPT", str(KEPT))
        entries = {"bin": (0o40755, b""), "init": (0o100755, init.encode())}
        with open(f"{meta}/bin/busybox", "rb") as program:
            entries["bin/busybox"] = (0o100755, program.read())
        for module in modules:
            path, = glob.glob(f"{root}/lib/modules/*/kernel/drivers/*/{module}.ko")
            with open(path, "rb") as content:
                entries[f"{module}.ko"] = (0o100644, content.read())
        with open(self.initrd, "wb") as out:
            out.write(gzip.compress(_cpio(entries), 1))

    def format(self, disk: Disk) -> None:
        """Makes an ext4 file system on the image of a disk that no QEMU uses."""
        raw = self.lab.fresh(".raw")
        with open(raw, "wb") as image:
            image.truncate(disk.model.size)
        self.lab.tool("mke2fs", "-q", "-t", "ext4", "-F", raw)
        self.lab.tool("qemu-img", "convert", "-f", "raw", "-O", disk.fmt, raw, disk.path)
        os.unlink(raw)

    def boot(self, disks: list[Disk], *, look: bool = False) -> Booted:
        """Starts a machine that writes, or one that tells what it finds and powers off."""
        self._boots += 1
        serial = self.lab.path(f"linux-{self._boots}.serial")
        extra = ["-m", "160", "-serial", f"file:{serial}", "-kernel", self.kernel, "-initrd",
                 self.initrd, "-append",
                 f"console=ttyS0 quiet panic=-1 {'tmk=look' if look else ''}", "-no-reboot"]
        vm = self.lab.vm(disks, extra=extra, accel="tcg")  # a nested KVM may hang a kernel
        return Booted(vm, serial)


class Booted:
    """A machine with Linux, and what it says."""

    def __init__(self, vm: Vm, serial: str) -> None:
        self.vm, self.serial = vm, serial

    def said(self) -> list[list[str]]:
        """The words of each whole line."""
        with open(self.serial, encoding="latin-1") as port:
            text = port.read()
        lines = [line.split() for line in text[:text.rfind("\n") + 1].splitlines()]
        assert not any("TROUBLE" in line for line in lines), text[-2000:]
        return [line for line in lines if line]

    def wait(self, more: int, timeout: float = 60) -> None:
        """Waits for further files to be synced."""
        goal = len(self.synced()) + more
        wait_until(lambda: len(self.synced()) >= goal, timeout, f"{more} more synced files",
                   0.1)

    def synced(self) -> dict[tuple[str, int], str]:
        """(disk, number) → SHA-256 of all that was ever synced."""
        return self._sums("SYNCED")

    def has(self) -> dict[tuple[str, int], str]:
        """The same of what one that looks has found."""
        return self._sums("HAS")

    def deleted(self) -> set[tuple[str, int]]:
        """What may have been deleted by now."""
        return {(line[1], int(line[2])) for line in self.said() if line[0] == "DELETE"}

    def _sums(self, word: str) -> dict[tuple[str, int], str]:
        return {(line[1], int(line[2])): line[3] for line in self.said()
                if line[0] == word and len(line) == 4 and re.fullmatch("[0-9a-f]{64}", line[3])}


def files_in(lab: Lab, image: str) -> dict[int, str]:
    """number → SHA-256 of the files in a raw image, which is repaired as a mount would do: the
    journal is replayed, orphans are removed. More than that must not be needed."""
    lab.tool("e2fsck", "-p", "-f", image, rc=(0, 1))
    lab.tool("e2fsck", "-f", "-n", image, rc=0)
    folder = lab.fresh(".files")
    os.mkdir(folder)
    run.run(["debugfs", "-R", f"rdump /files {folder}", image])
    found = {}
    for name in os.listdir(f"{folder}/files"):
        with open(f"{folder}/files/{name}", "rb") as content:
            found[int(name)] = hashlib.sha256(content.read()).hexdigest()
    return found
