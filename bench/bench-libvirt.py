#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Backups of a domain of libvirt's and restores, against virtnbdbackup, interleaved.

    bench/bench-libvirt.py [--size 1G] [--rounds 3] [--increments 2] [--fast none] [--json]

As root, for it runs a libvirtd of its own. Two domains have the same disk, a qcow2 with an ext4 of
real files, --size of them in a disk twice as large, and are paused: tidemark backs up one and
virtnbdbackup the other, since that refuses to where there is a checkpoint that it did not make.
What changes, changes alike in both.

In each round, begun without checkpoints: full backups, by tidemark into a new repository with the
default compression and into one with --fast, by virtnbdbackup --compress (lz4, one worker a disk:
its default); twice 1 % of the disk's clusters changed at random, and an incremental by each; the
newest restored, by tidemark with --verify to qcow2 and to raw, by virtnbdrestore to qcow2 (it has
no other). Then tidemark's domain is shut off: a full backup, a change, an incremental, and
qemu-img convert -c (zstd) of the same image. Whatever is restored in the first round is compared
with the image, byte for byte.

Printed is what bench-repository prints. The CPU of 'QEMU' is here libvirtd's too. A server that a
client starts (qemu-storage-daemon, qemu-nbd) and waits for counts as the client's; one that ends
behind it counts as QEMU, and not in the client's time. Everything lies in TMPDIR, by default in
memory: six times --size of it, written once before the rounds, as bench-repository does and for the
same reason. TIDEMARK names the program, else build/tidemark.
"""
import os
import random
import shlex
import sys

from harness import (Change, Files, Meter, Ratio, compare, machine, make_disk, need, parser,
                     remove, tell, tell_json, touch_memory)
from lab import Disk, Lab, Model, size_of
import run
from virt import Libvirt, VirtVm

IMAGES = "/mnt"
ROOM = 6  # times --size, in TMPDIR
RATIOS = (
    Ratio("full vs virtnbdbackup: wall", "full", "virtnbd full", "wall", 2.1, True),
    Ratio("full, --fast, vs virtnbdbackup: wall", "full fast", "virtnbd full", "wall", 2.6, True),
    Ratio("full vs virtnbdbackup: CPU", "full", "virtnbd full", "all_cpu", None, False),
    Ratio("full vs virtnbdbackup: stored MiB", "full", "virtnbd full", "stored", None, False),
    Ratio("full, --fast, vs virtnbdbackup: stored MiB", "full fast", "virtnbd full", "stored", None,
          False),
    Ratio("incremental vs virtnbdbackup: wall", "incremental", "virtnbd inc", "wall", 6.0, True),
    Ratio("incremental vs virtnbdbackup: CPU", "incremental", "virtnbd inc", "all_cpu", None, False),
    Ratio("restore --verify vs virtnbdrestore: wall", "restore qcow2", "virtnbdrestore", "wall", 5.0,
          True),
    Ratio("shut off: full vs running: wall", "off full", "full", "wall", None, False),
    Ratio("shut off: incremental vs running: wall", "off incremental", "incremental", "wall", None,
          False),
    Ratio("shut off: full vs qemu-img convert -c: wall", "off full", "qemu-img -c", "wall", 1.9, True),
    Ratio("shut off: full vs qemu-img convert -c: CPU", "off full", "qemu-img -c", "all_cpu", 0.70,
          False),
)


class Bench(Meter):
    """The two domains, and the ways to save and restore them."""

    def __init__(self, lab: Lab, size: int, folder: str, fast: str) -> None:
        self.host = Libvirt(lab)
        super().__init__(lab, lab.env() | {"TMPDIR": lab.dir}, self._servers_of_all)
        self.files = Files(folder)
        self.rng = random.Random(2)
        self.fast = fast
        self.size = 2 * size
        touch_memory(lab.dir, ROOM * size)
        self.room = 2 * size
        disk = make_disk(lab, self.files, size)
        lab.tool("cp", "--sparse=always", disk.path, lab.path("theirs.qcow2"))
        # The images seen elsewhere: what lies in /dev is a device to the lab, in /dev/shm too. The
        # mount is in the namespace that Libvirt made, and ends with us.
        run.run(["mount", "--bind", lab.dir, IMAGES])
        disk.path = os.path.join(IMAGES, os.path.basename(disk.path))
        copy = Disk("vda", os.path.join(IMAGES, "theirs.qcow2"), Model(0))
        self.ours = self.host.vm([disk], name="ours", paused=True)
        self.theirs = self.host.vm([copy], name="theirs", paused=True)
        self.repo = lab.path("repo")
        self.saved = lab.path("virtnbd")

    def _servers_of_all(self) -> list[int]:
        return [self.host.pid] + [vm.pid for vm in (self.ours, self.theirs) if vm.alive()]

    @property
    def disk(self) -> Disk:
        """The disk that tidemark backs up."""
        return self.ours.disks[0]

    def _drop_checkpoints(self, vm: VirtVm) -> None:
        """The newest last: libvirt merges what a deleted one recorded into the one before it."""
        for name in vm.virsh("checkpoint-list", "--name", "--topological").out.split():
            vm.virsh("checkpoint-delete", name)

    # Ours -------------------------------------------------------------------------------------

    def _backup(self, name: str, repo: str, mode: str, output: str = "") -> None:
        report = self.tidemark(name, ["backup", *self.ours.domain, "-r", repo, "--mode", mode], output)
        disk, = report["disks"]
        assert disk["mode"] == mode, disk

    def full(self, name: str, *options: str) -> None:
        remove(self.repo)
        self.lab.tidemark("init", "-r", self.repo, *options)
        self._backup(name, self.repo, "full", self.repo)

    def restore(self, fmt: str) -> None:
        out = self.lab.path(f"out.{fmt}")
        name = f"restore {fmt}"
        self.tidemark(name, ["restore", "-r", self.repo, f"{self.ours.name}/latest", "--disk", "vda",
                             "--to", out, "--verify"], out)
        self._check(name, self.disk, out, fmt)
        remove(out)

    def _check(self, name: str, disk: Disk, image: str, fmt: str) -> None:
        """That no wrong work was timed, in the first round."""
        if len(self.samples[name]) == 1:
            self.lab.tool("qemu-img", "compare", "-U", "-f", disk.fmt, "-F", fmt, disk.path, image,
                          timeout=600)

    def _check_newest(self, name: str) -> None:
        """The same of a backup whose restore is not timed."""
        if len(self.samples[name]) == 1:
            out = self.lab.path("check.raw")
            self.lab.tidemark("restore", "-r", self.repo, f"{self.ours.name}/latest", "--disk", "vda",
                              "--to", out, timeout=600)
            self._check(name, self.disk, out, "raw")
            remove(out)

    # virtnbdbackup ----------------------------------------------------------------------------

    def _virtnbd(self, name: str, program: str, *words: str, output: str) -> None:
        # Its URI has no transport: it wants a password for those.
        uri = f"qemu:///system?socket={self.host.socket}"
        self.measure(name, "exec " + shlex.join([program, "-U", uri, "-n", "-f", os.path.join(
            self.theirs.sockets, "virtnbd"), *words]), output)

    def virtnbd(self, name: str, level: str) -> None:
        scratch = self.lab.path("virtnbd-scratch")  # in memory, as tidemark's
        os.makedirs(scratch, exist_ok=True)
        self.host.public(scratch)
        self._virtnbd(name, "virtnbdbackup", "-d", self.theirs.name, "-l", level, "--compress",
                      "--scratchdir", scratch, "-o", self.saved, output=self.saved if level == "full" else "")

    def virtnbd_restore(self) -> None:
        out = self.lab.path("virtnbd-out")
        os.mkdir(out)
        self._virtnbd("virtnbdrestore", "virtnbdrestore", "-a", "restore", "-i", self.saved, "-o", out,
                      "-L", self.lab.path("virtnbdrestore.log"), output=out)
        disk = self.theirs.disks[0]
        self._check("virtnbdrestore", disk, os.path.join(out, os.path.basename(disk.path)), "qcow2")
        remove(out)

    # Rounds -----------------------------------------------------------------------------------

    def change(self) -> None:
        change = Change(self.lab, self.files, self.rng, self.size)
        for vm in (self.ours, self.theirs):
            if vm.alive():
                change.write(vm, vm.disks[0])
            else:
                change.write_off(self.lab, vm.disks[0])

    def running(self, increments: int) -> None:
        self.full("full fast", "--compression", self.fast)
        self._check_newest("full fast")
        self._drop_checkpoints(self.ours)
        self.full("full")
        remove(self.saved)
        self.virtnbd("virtnbd full", "full")
        for _ in range(increments):
            self.change()
            self._backup("incremental", self.repo, "incremental")
            self.virtnbd("virtnbd inc", "inc")
        for fmt in ("qcow2", "raw"):
            self.restore(fmt)
        self.virtnbd_restore()
        remove(self.saved)

    def shut_off(self) -> None:
        self._drop_checkpoints(self.ours)
        self._drop_checkpoints(self.theirs)
        self.ours.quit()
        self.full("off full")
        self.change()
        self._backup("off incremental", self.repo, "incremental")
        out = self.lab.path("out.qcow2")
        self.measure("qemu-img -c", "exec qemu-img convert -c -O qcow2 -o compression_type=zstd "
                     f"{self.disk.path} {out}", out)
        self._check("qemu-img -c", self.disk, out, "qcow2")
        remove(out)
        self._check_newest("off full")
        self.ours.start()
        self._drop_checkpoints(self.ours)


def main() -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--fast", default="none", metavar="HOW",
                         help="the fastest --compression of a repository (none; zstd:-3 stores as"
                         " much as lz4 does, and takes hardly less time than zstd:1)")
    args = options.parse_args()
    need("time", "mke2fs", "qemu-img", "virsh", "libvirtd", "virtnbdbackup", "virtnbdrestore")
    about = machine(libvirt=["libvirtd", "--version"], virtnbdbackup=["virtnbdbackup", "--version"])
    lab = Lab("bench")
    try:
        bench = Bench(lab, size_of(args.size), args.folder, args.fast)
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
            bench.running(args.increments)
            bench.shut_off()
    finally:
        lab.close()
    rows = compare(RATIOS, bench.samples)
    if args.json:
        tell_json(about, bench.size, rows, bench.samples, fast=args.fast)
        return
    tell(about, f"disk of {bench.size >> 20} MiB with {args.size} of files, {args.rounds} rounds, fast:"
         f" {args.fast}", rows, bench.samples)


main()
