# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a disk must contain: a byte model, and a writer that changes model and disk alike.

The disk is written by QEMU's own qemu-io commands, inside a running VM or on a powered-off image;
the model is a plain bytearray. Whether both agree is for `qemu-img compare` to say (Lab.compare),
so that no reader of ours judges a writer of ours.
"""
from __future__ import annotations

import os
import random
import re
from collections.abc import Callable

SECTOR = 512
_CHUNK = 1 << 16
_ZEROES = bytes(_CHUNK)


class Model:
    """The bytes of a disk.

    `discard_unit` says what a discard does: whole aligned units inside its range become zero, the
    rest stays. It is the cluster of a qcow2 image (version 3; QEMU ignores parts of clusters), a
    sector for raw files, and None where the disk ignores discards.
    """

    def __init__(self, size: int, discard_unit: int | None = SECTOR) -> None:
        self.data = bytearray(size)
        self.discard_unit = discard_unit

    @property
    def size(self) -> int:
        return len(self.data)

    def write(self, offset: int, data: bytes) -> None:
        assert offset + len(data) <= self.size
        self.data[offset:offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        self.write(offset, bytes(length))

    def discard(self, offset: int, length: int) -> None:
        unit = self.discard_unit
        if unit is None:
            return
        start, stop = -(-offset // unit) * unit, (offset + length) // unit * unit
        if offset + length == self.size:
            stop = self.size  # a last cluster may be cut short by the end of the disk
        if start < stop:
            self.zero(start, stop - start)

    def resize(self, size: int) -> None:
        del self.data[size:]
        self.data.extend(bytes(size - self.size))

    def snapshot(self) -> Model:
        """What the disk contains now, kept while the disk goes on changing."""
        copy = Model(0, self.discard_unit)
        copy.data = bytearray(self.data)
        return copy

    def differs(self, other: Model) -> list[tuple[int, int]]:
        """The 64 KiB blocks in which two models differ, joined: (offset, length)."""
        extents: list[tuple[int, int]] = []
        for offset in range(0, max(self.size, other.size), _CHUNK):
            if self.data[offset:offset + _CHUNK] == other.data[offset:offset + _CHUNK]:
                continue
            if extents and sum(extents[-1]) == offset:
                extents[-1] = (extents[-1][0], extents[-1][1] + _CHUNK)
            else:
                extents.append((offset, _CHUNK))
        return extents

    def save(self, path: str) -> str:
        """Writes the model as a sparse raw image."""
        view = memoryview(self.data)
        with open(path, "wb") as image:
            for offset in range(0, self.size, _CHUNK):
                chunk = view[offset:offset + _CHUNK]
                if chunk != _ZEROES[:len(chunk)]:
                    os.pwrite(image.fileno(), chunk, offset)
            image.truncate(self.size)
        return path


class Writer:
    """Changes a disk as a guest would, and its model with it.

    `run` executes one qemu-io command and returns what that printed. Offsets and lengths are in
    bytes. An operation that QEMU refuses or fails raises AssertionError and leaves the model alone.
    With `zero_as_data`, zeroes are written as data.
    """

    def __init__(self, run: Callable[[str], str], model: Model, scratch: str, *,
                 zero_as_data: bool = False) -> None:
        self._run = run
        self.model = model
        self._scratch = scratch  # a file name for random contents
        self._zero_as_data = zero_as_data

    def write(self, offset: int, length: int, pattern: int = 0xA5) -> None:
        """Fills a range with one byte."""
        self._do(f"write -P {pattern:#x} {offset} {length}", length)
        self.model.write(offset, bytes([pattern]) * length)

    def write_random(self, offset: int, length: int, rng: random.Random) -> None:
        """Fills a range with bytes of `rng`, none of which compress."""
        data = rng.randbytes(length)
        with open(self._scratch, "wb") as content:
            content.write(data)
        self._do(f"write -s {self._scratch} {offset} {length}", length)
        self.model.write(offset, data)

    def zero(self, offset: int, length: int, *, unmap: bool = False) -> None:
        """Writes zeroes efficiently; with `unmap` the space may be given back."""
        if self._zero_as_data:
            self._do(f"write -P 0 {offset} {length}", length)
        else:
            self._do(f"write -z {'-u ' if unmap else ''}{offset} {length}", length)
        self.model.zero(offset, length)

    def discard(self, offset: int, length: int) -> None:
        """A discard is advice: while a job's filter is above the image, QEMU may leave units at
        the ends of the range as they were. Each unit must be zero or unchanged; the model follows
        what the disk says."""
        self._do(f"discard {offset} {length}", length)
        before = self.model.snapshot()
        self.model.discard(offset, length)
        if self._reads_zero(offset, length):
            return
        unit = self.model.discard_unit or length
        for start in range(offset - offset % unit, offset + length, unit):
            begin, end = max(start, offset), min(start + unit, offset + length)
            if not self._reads_zero(begin, end - begin):
                self.model.write(begin, bytes(before.data[begin:end]))

    def _reads_zero(self, offset: int, length: int) -> bool:
        return "verification failed" not in self._run(f"read -P 0 {offset} {length}")

    def flush(self) -> None:
        self._run("flush")

    def random_ops(self, rng: random.Random, count: int, *, begin: int = 0,
                   stop: int | None = None, longest: int = 1 << 20) -> None:
        """`count` operations of every kind at random places of [begin, stop).

        Half are aligned to 64 KiB, half to sectors only, with lengths down to one sector and odd
        ones such as 1536. Ranges overlap, so that a lost or reordered write shows.
        """
        stop = self.model.size if stop is None else stop
        for _ in range(count):
            unit = rng.choice((SECTOR, 1 << 16))
            length = min(longest, unit * rng.choice((1, 1, 2, 3, 5, 8, 15, 16, 33)), stop - begin)
            length -= length % SECTOR
            offset = begin + rng.randrange((stop - begin - length) // unit + 1) * unit
            kind = rng.randrange(10)
            if kind < 4:
                self.write(offset, length, rng.randrange(1, 256))
            elif kind < 6:
                self.write_random(offset, length, rng)
            elif kind == 6:
                self.write(offset, length, 0)  # zeroes that come as data
            elif kind < 9:
                self.zero(offset, length, unmap=kind == 8)
            else:
                self.discard(offset, length)

    def _do(self, command: str, length: int) -> None:
        said = self._run(command)
        if not re.search(rf"\b(wrote|discard) {length}/{length} bytes\b", said):
            raise AssertionError(f"qemu-io '{command}': {said.strip() or 'said nothing'}")
