#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: what a backup reads, writes and takes of memory is in proportion to what changed, not to
the disk: of one of 16 TiB an incremental reads exactly what is dirty and writes little beside it;
`diff` lists exactly that, and restored disks are thin and right by `qemu-img compare`."""
from __future__ import annotations

import json
import os
import shutil
import time

from lab import Disk, Lab, Vm, diag, main, soak, test
from repository import Repository

CHUNK = 1 << 16
MIB = 1 << 20
TIB = 1 << 40
SIZE = 16 * TIB
RSS_MAX = 128 * MIB


class Sparse:
    """In place of a Model, which would hold all bytes: only which chunks were written."""

    def __init__(self, size: int) -> None:
        self.size, self.written = size, set()

    def write(self, offset: int, data: bytes) -> None:
        self.written |= set(range(offset // CHUNK, -(-(offset + len(data)) // CHUNK)))

    def zero(self, offset: int, length: int) -> None:
        self.written -= set(range(offset // CHUNK, (offset + length) // CHUNK))


def scatter(lab: Lab, vm: Vm, count: int) -> set[int]:
    """Writes `count` chunks at random places, a few of them side by side; returns which."""
    chunks = {0, SIZE // CHUNK - 1}
    while len(chunks) < count:
        chunks.add(lab.rng.randrange(SIZE // CHUNK))
        if len(chunks) < count and lab.rng.randrange(10) == 0:
            chunks.add((max(chunks) - 1))
    writer = vm.writer(vm["vda"])
    for chunk in chunks:
        writer.write_random(chunk * CHUNK, CHUNK, lab.rng)
    return chunks


def extents(chunks: set[int]) -> list[tuple[int, int]]:
    """(offset, length) of each run of chunks."""
    found: list[tuple[int, int]] = []
    for chunk in sorted(chunks):
        if found and sum(found[-1]) == chunk * CHUNK:
            found[-1] = (found[-1][0], found[-1][1] + CHUNK)
        else:
            found.append((chunk * CHUNK, CHUNK))
    return found


def measured(lab: Lab, *args: object) -> str:
    """Runs the program; it must succeed within the memory that it may take. Returns its output."""
    out = lab.fresh(".out")
    begun = time.monotonic()
    with open(out, "wb") as stdout, open(lab.fresh(".log"), "wb") as stderr:
        child = lab.tidemark_popen(*args, stdout=stdout, stderr=stderr)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    diag(f"{args[0]}: {usage.ru_maxrss >> 10} MiB, {time.monotonic() - begun:.1f} s, "
         f"{usage.ru_utime + usage.ru_stime:.1f} s of CPU")
    assert child.returncode == 0, child.returncode
    assert usage.ru_maxrss << 10 <= RSS_MAX, usage.ru_maxrss
    with open(out, encoding="utf-8") as text:
        return text.read()


def check_restored(lab: Lab, repo: Repository, point: str, truth: str, chunks: set[int]) -> None:
    image = lab.fresh(".qcow2")
    measured(lab, "restore", "-r", repo.path, point, "--disk", "vda", "--to", image)
    lab.tool("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", truth, image)
    lab.check_image(image)
    rows = json.loads(lab.tool("qemu-img", "map", "--output=json", "-f", "qcow2", image).out)
    data = {row["start"] // CHUNK + n for row in rows if row["data"] and not row["zero"]
            for n in range(row["length"] // CHUNK)}
    assert data == chunks, f"{len(data)} chunks of data, not {len(chunks)}"
    # A cluster of data and, at most, a table of its own for each; and room for the rest.
    used = lab.info(image, "qcow2")["actual-size"]
    assert used <= 2 * CHUNK * len(chunks) + 8 * MIB, used
    os.unlink(image)


@test(timeout=200)
def test_random_writes_to_16_tib(lab: Lab) -> None:
    path = lab.create(lab.path("vda.qcow2"), SIZE)
    vm = lab.vm([Disk("vda", path, Sparse(SIZE), node="vda-fmt")])
    repo = Repository(lab)
    backup = ("backup", "--qmp", vm.address, "-r", repo.path, "--json")
    first_chunks = scatter(lab, vm, 200)
    first = json.loads(measured(lab, *backup))
    (disk,) = first["disks"]
    assert disk["mode"] == "full" and disk["size"] == SIZE, disk
    assert disk["read"] == disk["new"] == disk["used"] == 200 * CHUNK, disk
    vm.assert_clean()
    vm.quit()
    truth = shutil.copy(path, lab.path("first.qcow2"))
    before = lab.tidemark_json("stats", "-r", repo.path)

    vm.start()
    count = soak(1000, 8000)
    second_chunks = scatter(lab, vm, count)
    second = json.loads(measured(lab, *backup))
    (disk,) = second["disks"]
    assert disk["mode"] == "incremental", disk
    assert disk["read"] == disk["changed"] == disk["new"] == count * CHUNK, disk
    assert disk["used"] == len(first_chunks | second_chunks) * CHUNK, disk
    vm.assert_clean()
    vm.quit()
    limit = 64 * count + 2 * MIB * SIZE // TIB
    after = lab.tidemark_json("stats", "-r", repo.path)
    lying = sum(os.path.getsize(os.path.join(folder, name))
                for folder, _, names in os.walk(repo.path) for name in names)
    beside = after["bytes"] - before["bytes"] - disk["stored"]
    diag(f"{count} chunks: {second['metadata']} bytes of nodes; {beside} of nodes, tables and index")
    assert lying == after["bytes"], (lying, after)
    assert 0 < second["metadata"] <= limit, second
    assert 0 < beside <= limit, (beside, limit)
    # Far less in truth, for so few: a small node for each chunk on two of the four levels.
    assert second["metadata"] <= beside <= 1024 * count, beside

    rows = json.loads(measured(lab, "diff", "-r", repo.path, first["point"], second["point"],
                               "--json"))
    found = [(row["offset"], row["length"]) for row in rows["disks"][0]["extents"]]
    assert found == extents(second_chunks)

    check_restored(lab, repo, first["point"], truth, first_chunks)
    check_restored(lab, repo, second["point"], path, first_chunks | second_chunks)
    measured(lab, "verify", "-r", repo.path)


@test(timeout=200)
def test_much_that_is_zero(lab: Lab) -> None:
    """Dirty, but nothing to read: 256 GiB that become zero, in the middle of some data."""
    path = lab.create(lab.path("vda.qcow2"), SIZE)
    vm = lab.vm([Disk("vda", path, Sparse(SIZE), node="vda-fmt")])
    repo = Repository(lab)
    backup = ("backup", "--qmp", vm.address, "-r", repo.path, "--json")
    writer = vm.writer(vm["vda"])
    for chunk in range(64):
        writer.write_random(3 * TIB + (chunk << 32), CHUNK, lab.rng)
    first = json.loads(measured(lab, *backup))
    assert first["disks"][0]["read"] == 64 * CHUNK, first
    step = 1 << 30
    for start in range(3 * TIB, 3 * TIB + (1 << 38), step):
        writer.zero(start, step, unmap=True)
    second = json.loads(measured(lab, *backup))
    (disk,) = second["disks"]
    assert disk["mode"] == "incremental" and disk["read"] == 0 and disk["new"] == 0, disk
    assert disk["used"] == 0 and second["metadata"] == 0, second
    vm.assert_clean()
    vm.quit()
    image = repo.restore(second["point"], "vda", ".qcow2")
    assert lab.info(image, "qcow2")["actual-size"] <= 2 * MIB


main()
