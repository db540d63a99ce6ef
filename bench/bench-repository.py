#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Backups into a repository and restores from it, against others that do the same, interleaved.

    bench/bench-repository.py [--size 1G] [--rounds 5] [--from /usr] [--without PEER]… [--json]

The disk is a qcow2 with an ext4 of real files, --size of them in a disk twice as large, and is read
out of a QEMU that stands still, by everybody over NBD out of the same process: by tidemark through
the pull that it begins and ends itself, by the others through a plain export. Others are qemu-img
convert (-c, zstd), nbdcopy, borg (zstd,1, fixed 1 MiB) and restic; one that is not installed, or is
named by --without, is left out.

In each round everybody makes a full backup into a new repository, those who have one a second one
of the same, then tidemark increments of 1 % of the disk's clusters at random, then everybody
restores. Others that use the machine meanwhile are counted, not kept away. Printed are medians: wall
seconds, CPU seconds of the client with its children and QEMU, the largest resident set of one
process; and the medians of each round's ratios beside what is aimed at.

Everything lies in TMPDIR, by default in memory: five times --size of it. Before the rounds as much
is written there and removed, since memory that the (virtual) machine has never used is slow at its
first touch: a first restore to tmpfs took three times as long as the second, all of it in the
kernel. TIDEMARK names the program, else build/tidemark.
"""
import json
import os
import random
import shlex
import shutil
import statistics
import sys

from harness import (CHUNK, MIB, Change, Files, Meter, Ratio, Row, Sample, compare, machine,
                     make_disk, median, need, parser, remove, tell, tell_json, touch_memory)
from lab import Guest, Lab, size_of
import run

PEERS = ("qemu-img", "nbdcopy", "borg", "restic")
ROOM = 5  # times --size, in TMPDIR


class Bench(Meter):
    """The disk, its machine, and everybody's ways to save and restore it."""

    def __init__(self, lab: Lab, size: int, folder: str, without: list[str]) -> None:
        super().__init__(lab, lab.env() | {
            "TMPDIR": lab.dir, "XDG_CACHE_HOME": lab.path("cache"), "RESTIC_PASSWORD": "x",
            "BORG_BASE_DIR": lab.path("borg-base"), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}, lambda: [self.vm.pid])
        self.files = Files(folder)
        self.rng = random.Random(2)
        self.peers = [peer for peer in PEERS if peer not in without]
        for peer in list(self.peers):
            if not shutil.which(peer):
                print(f"no {peer}: left out", file=sys.stderr)
                self.peers.remove(peer)
        self.socket = os.path.join(lab.sockets, "peer")
        self.uri = f"nbd+unix:///vda?socket={self.socket}"
        touch_memory(lab.dir, ROOM * size)
        self.room = 2 * size
        self.disk = make_disk(lab, self.files, size)
        self.size = 2 * size
        self.vm = lab.vm([self.disk], paused=True)

    def export(self, on: bool) -> None:
        """The disk for those who begin no pull."""
        ask = self.vm.qmp.command
        if on:
            ask("nbd-server-start", addr={"type": "unix", "data": {"path": self.socket}})
            ask("block-export-add", type="nbd", id="peer", node_name=self.disk.node, name="vda")
        else:
            ask("block-export-del", id="peer", mode="hard")
            ask("nbd-server-stop")

    # Ours -------------------------------------------------------------------------------------

    def fulls(self) -> None:
        repo = self.lab.path("repo")
        remove(repo)
        self.lab.tidemark("init", "-r", repo)
        words = ["backup", "--qmp", self.vm.address, "-r", repo, "--mode", "full"]
        self.tidemark("full", words, repo)
        self.tidemark("second full", words)

    def incrementals(self, count: int, facts: list[dict]) -> None:
        repo = self.lab.path("repo")
        words = ["backup", "--qmp", self.vm.address, "-r", repo, "--mode", "incremental"]
        for number in range(count):
            change = Change(self.lab, self.files, self.rng, self.size)
            change.write(self.vm, self.disk)
            before = sum(os.stat(os.path.join(at, name)).st_size
                         for at, _, names in os.walk(repo) for name in names)
            report = self.tidemark("incremental", words)
            after = sum(os.stat(os.path.join(at, name)).st_size
                        for at, _, names in os.walk(repo) for name in names)
            disk = report["disks"][0]
            shown = self.lab.tidemark_json("show", "-r", repo, report["point"])
            facts.append({"number": number, "dirty": change.bytes, "read": disk["read"],
                          "nodes": shown.get("metadata", 0),
                          "beside data": after - before - disk["stored"]})
        self.lab.tidemark("checkpoint", "delete", "--qmp", self.vm.address, report["checkpoint"])

    def restores(self) -> None:
        repo = self.lab.path("repo")
        name = self.lab.tidemark_json("list", "-r", repo)["points"][-1]["domain"]
        for fmt in ("raw", "qcow2"):
            out = self.lab.path(f"out.{fmt}")
            remove(out)
            self.tidemark(f"restore {fmt}", ["restore", "-r", repo, f"{name}/latest", "--disk", "vda",
                                             "--to", out, "--verify"], out)
            if len(self.samples[f"restore {fmt}"]) == 1:
                self.lab.tool("qemu-img", "compare", "-U", "-f", "qcow2", "-F", fmt, self.disk.path, out,
                              timeout=600)
            remove(out)

    # The others -------------------------------------------------------------------------------

    def peer_fulls(self, peer: str) -> None:
        out = self.lab.path(peer)
        remove(out)
        uri = shlex.quote(self.uri)
        if peer == "borg":
            run.run(["borg", "init", "-e", "none", out], env=self.env)
        elif peer == "restic":
            remove(self.lab.path("cache"))
            run.run(["restic", "init", "-q", "--repository-version", "2", "-r", out], env=self.env)
        self.export(True)
        if peer == "qemu-img":
            self.measure("qemu-img -c", f"exec qemu-img convert -c -O qcow2 -o compression_type=zstd "
                         f"{uri} {out}", out)
        elif peer == "nbdcopy":
            self.measure("nbdcopy", f"exec nbdcopy {uri} {out}", out)
            remove(out)
        elif peer == "borg":
            for name in ("borg", "borg second"):
                self.measure(name, f"nbdcopy {uri} - | borg create --compression zstd,1 --chunker-params "
                             f"fixed,{MIB} --stdin-name vda '{out}::{name.replace(' ', '-')}' -", out)
        else:
            for name in ("restic", "restic second"):
                self.measure(name, f"nbdcopy {uri} - | restic backup -q -r {out} --stdin "
                             "--stdin-filename vda", out)
        self.export(False)

    def peer_restores(self, peer: str) -> None:
        out, saved = self.lab.path("out.raw"), self.lab.path(peer)
        remove(out)
        if peer == "qemu-img":
            self.measure("qemu-img to raw", f"exec qemu-img convert -O raw {saved} {out}", out)
            remove(out)
            self.measure("qemu-img to qcow2", f"exec qemu-img convert -O qcow2 {saved} {out}", out)
        elif peer == "borg":
            self.measure("borg extract", f"borg extract --stdout '{saved}::borg' > {out}", out)
        elif peer == "restic":
            self.measure("restic dump", f"restic dump -q -r {saved} latest /vda > {out}", out)
        remove(out)
        remove(saved)

    def round(self, increments: int, facts: list[dict]) -> None:
        self.fulls()
        for peer in self.peers:
            self.peer_fulls(peer)
        self.incrementals(increments, facts)
        self.restores()
        for peer in self.peers:
            self.peer_restores(peer)


def pauses(rounds: int) -> list[float]:
    """For how many milliseconds a running guest was held still, by one backup each."""
    lab = Lab("bench")
    try:
        vm = lab.vm([lab.disk("vda", "64M")], guest=Guest(pause_us=0))
        vm.guest.wait(100)
        repo = lab.path("repo")
        lab.tidemark("init", "-r", repo)
        return [lab.tidemark_json("backup", "--qmp", vm.address, "-r", repo)["pause_us"] / 1000
                for _ in range(rounds)]
    finally:
        lab.close()


# What is aimed at ---------------------------------------------------------------------------------

RATIOS = (
    Ratio("full vs qemu-img convert -c: wall", "full", "qemu-img -c", "wall", 1.9, True),
    Ratio("full vs qemu-img convert -c: CPU", "full", "qemu-img -c", "all_cpu", 0.70, False),
    Ratio("full vs qemu-img convert -c: stored MiB", "full", "qemu-img -c", "stored", 1.05, False),
    Ratio("full vs borg: wall", "full", "borg", "wall", 2.8, True),
    Ratio("full vs restic: wall", "full", "restic", "wall", 5.0, True),
    Ratio("full vs nbdcopy to raw: wall", "full", "nbdcopy", "wall", 2.2, False),
    Ratio("second full vs borg: wall", "second full", "borg second", "wall", 4.0, True),
    Ratio("second full vs restic: wall", "second full", "restic second", "wall", 5.5, True),
    Ratio("restore raw --verify vs qemu-img: wall", "restore raw", "qemu-img to raw", "wall", 1.2, True),
    Ratio("restore raw --verify vs borg: wall", "restore raw", "borg extract", "wall", 3.8, True),
    Ratio("restore raw --verify vs restic: wall", "restore raw", "restic dump", "wall", 4.4, True),
)


def judge(samples: dict[str, list[Sample]], facts: list[dict], held: list[float],
          size: int) -> list[Row]:
    rows = compare(RATIOS, samples)
    full = median(samples["full"], "wall")
    increment = median(samples["incremental"], "wall")
    dirty = facts[0]["dirty"]
    chunks = dirty // CHUNK
    read = max((fact["read"] for fact in facts), key=lambda n: abs(n - dirty))
    rows += [
        Row("incremental, 1 % at random: bytes read / dirty", str(read), str(dirty), read / dirty, 1,
            False),
        Row("incremental: wall, 3 % of the full + 50 ms", f"{increment:.3f}", f"{full:.2f}",
            increment * 1000, full * 30 + 50, False, "ms"),
        Row("first incremental: tree nodes, B a dirty chunk", "", "",
            statistics.median(fact["nodes"] for fact in facts if fact["number"] == 0) / chunks,
            64 + 2 * size / (1 << 20) / chunks, False, "B"),
        Row("largest resident set", "", "",
            max(one.rss for name in ("full", "second full", "incremental", "restore raw")
                for one in samples[name]), 128, False, "MiB"),
        Row("guest held still", f"{max(held):.1f} max", "", statistics.median(held), 20, False, "ms"),
    ]
    return rows


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--without", action="append", default=[], choices=PEERS)
    args = options.parse_args()
    need("time", "mke2fs", "qemu-img")
    about = machine(nbdcopy=["nbdcopy", "--version"], borg=["borg", "--version"],
                    restic=["restic", "version"])
    facts: list[dict] = []
    lab = Lab("bench")
    try:
        bench = Bench(lab, size_of(args.size), args.folder, args.without)
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
            bench.round(args.increments, facts)
    finally:
        lab.close()
    held, samples = pauses(7), bench.samples
    rows = judge(samples, facts, held, bench.size)
    if args.json:
        tell_json(about, bench.size, rows, samples, facts=facts, **{"held ms": held})
        return
    tell(about, f"disk of {bench.size >> 20} MiB with {args.size} of files, {args.rounds} rounds",
         rows, samples)
    beside = statistics.median(fact["beside data"] for fact in facts) / (facts[0]["dirty"] // CHUNK)
    print(f"all that an incremental adds beside data (nodes, tables, index, manifest): {beside:.0f} "
          "bytes a dirty chunk")


main()
