# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real guest that writes all the time, and the check that a set of images is of one instant.

What the guest does (guest.S): for n = start, start+1, …: it writes block n to disk a (BIOS drive
0x81), waits for the completion, writes block n to disk b (0x82), waits, then to disk c (0x83).
Disks that are not there are left out. A write that fails is tried again until it succeeds. Then it
pauses and goes on with n+1.

A block is 4096 bytes of 32-bit little-endian words: MAGIC, drive, start, then n in all the others.
It goes to slot (n * MULT) mod slots, at byte base + slot * spacing: MULT is odd and slots a power
of two, so consecutive numbers land far apart, and every slot is written once in `slots` numbers.

So a set of images shows one instant exactly when
  1. heads: with a, b, c the highest number on each disk, a >= b >= c >= a - 1;
  2. history: on each disk every number from max(start, head - slots + 1) to its head is in its
     slot, whole. A lost, late, torn or misplaced write breaks this even if the heads look fine.
`Guest.check_cut` verifies both on raw images. Every boot continues with a new `start`, above all
numbers on the disks; blocks of earlier boots are told apart by the `start` in them.

What the guest says on its serial port: 'B' once at boot, then 'a', 'b' or 'c' for each completed
write and 'E' for each failed one; '!' if there is no disk. So the count of 'a', plus start - 1, is
the number of the last write to disk a.
"""
from __future__ import annotations

import os
import struct
import threading
import time
from dataclasses import dataclass, field

import run

MAGIC = 0x4B4D4454  # 'TDMK'
MULT = 0x9E3779B1
BLOCK = 4096
DRIVES = "abc"
PARAMETERS = struct.Struct("<8I")
PARAMETERS_AT = 0x1D0


class CutError(AssertionError):
    """A set of images shows no single instant."""


@dataclass(frozen=True)
class Cut:
    """What check_cut found: the number of the boot, and the last number on each disk."""
    start: int
    heads: list[int]


@dataclass
class Guest:
    """Parameters of the guest, and its progress. A Guest belongs to one Vm.

    slots: how many blocks it writes in turn (a power of two); spacing: bytes from slot to slot (a
    power of two, 4096 or more); base: the byte of slot 0. The rest is free for a Writer.
    pause_us: the wait after each number; the BIOS makes a few ms of 1000; 0 means full speed.
    """
    slots: int = 4096
    spacing: int = 8192
    base: int = 0
    pause_us: int = 1000
    start: int = 1
    serial: str = field(default="", init=False)  # the file, set by Vm

    def __post_init__(self) -> None:
        for value in (self.slots, self.spacing):
            assert value > 0 and value & (value - 1) == 0, "a power of two"
        assert self.spacing >= BLOCK and self.base % 512 == 0

    # Booting ----------------------------------------------------------------------------------

    def make_boot_disk(self, folder: str) -> str:
        """Assembles guest.S, sets the parameters, and returns the path of a raw boot disk."""
        here = os.path.dirname(os.path.abspath(__file__))
        image = os.path.join(folder, "boot.raw")
        run.run(["gcc", "-m32", "-c", "-o", f"{image}.o", os.path.join(here, "guest.S")])
        run.run(["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-e", "_start",
                 "-o", image, f"{image}.o"])
        with open(image, "r+b") as boot:
            boot.seek(PARAMETERS_AT)
            boot.write(PARAMETERS.pack(MAGIC, self.start, self.start, MULT, self.slots - 1,
                                       self.base // 512,
                                       (self.spacing // 512).bit_length() - 1, self.pause_us))
            boot.truncate(1 << 20)
        return image

    # Progress ---------------------------------------------------------------------------------

    def said(self) -> str:
        """Everything that came from the serial port since this boot."""
        try:
            with open(self.serial, encoding="latin-1") as port:
                return port.read()
        except FileNotFoundError:
            return ""

    def done(self, disk: int = 0) -> int:
        """The number of the last completed write to a disk (start - 1 before the first)."""
        return self.start - 1 + self.said().count(DRIVES[disk])

    def errors(self) -> int:
        """How many writes failed."""
        return self.said().count("E")

    def wait(self, more: int = 50, timeout: float = 30) -> int:
        """Waits until `more` further numbers are written: proof that guest writes go on."""
        goal = self.done() + more
        run.wait_until(lambda: self.done() >= goal, timeout, f"{more} more guest writes")
        return self.done()

    def watch(self) -> Watch:
        """`with guest.watch() as w:` … `w.longest` is the longest time without a guest write."""
        return Watch(self.serial)

    # The check --------------------------------------------------------------------------------

    def check_cut(self, images: list[str]) -> Cut:
        """Verifies that raw images of disks a, b, c (or the first of them) show one instant."""
        disks = [self._read(path, 0x81 + index) for index, path in enumerate(images)]
        start = max((block[0] for disk in disks for block in disk.values()), default=self.start)
        heads = []
        for path, disk in zip(images, disks):
            head = max((n for of, n in disk.values() if of == start), default=start - 1)
            for n in range(max(start, head - self.slots + 1), head + 1):
                slot = n * MULT % self.slots
                if disk.get(slot) != (start, n):
                    raise CutError(f"{path}: head {head}, but slot {slot} has {disk.get(slot)} "
                                   f"(start, number) instead of number {n}")
            heads.append(head)
        falling = all(left >= right for left, right in zip(heads, heads[1:]))
        if not falling or heads[-1] < heads[0] - 1:
            raise CutError(f"heads {heads} are not of one instant")
        return Cut(start, heads)

    def last_number(self, images: list[str]) -> int:
        """The highest number on any of the raw images, 0 if none; checks nothing else."""
        found = (self._read(path, 0x81 + index) for index, path in enumerate(images))
        return max((n for disk in found for _, n in disk.values()), default=0)

    def _read(self, path: str, drive: int) -> dict[int, tuple[int, int]]:
        """slot → (start, n) of every block of ours; a torn or foreign block is a CutError."""
        found = {}
        with open(path, "rb") as image:
            for slot in range(self.slots):
                data = os.pread(image.fileno(), BLOCK, self.base + slot * self.spacing)
                magic, on, start, n = struct.unpack_from("<4I", data.ljust(16, b"\0"))
                if magic != MAGIC:
                    continue
                if data[12:] != struct.pack("<I", n) * (BLOCK // 4 - 3):
                    raise CutError(f"{path}: slot {slot}: torn block of number {n}")
                if on != drive or n * MULT % self.slots != slot:
                    raise CutError(f"{path}: slot {slot}: block {n} of drive {on:#x} is not its")
                found[slot] = (start, n)
        return found


class Watch:
    """Samples the size of the serial log to find the longest pause between guest writes."""

    def __init__(self, serial: str) -> None:
        self._serial = serial
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.longest = 0.0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_why) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        size, since = os.stat(self._serial).st_size, time.monotonic()
        while not self._over.wait(0.002):
            now, last = os.stat(self._serial).st_size, time.monotonic()
            self.longest = max(self.longest, last - since)
            if now != size:
                size, since = now, last
