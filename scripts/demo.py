# SPDX-License-Identifier: LGPL-2.1-or-later
"""The demonstration that scripts/demo runs, and its proofs.

A machine boots from vda, and its guest writes numbered blocks to vdb and vdc, one after the other,
as fast as it can: block n goes to a place that n decides, with contents that n decides. So the last
number on a restored disk says at which instant the backup was made, and everything else on the disk
follows from it: the demo computes each disk as of that number, adds what it wrote itself (through
QEMU, with contents of its own), and has `qemu-img compare` look for a difference. It never stops
the guest to do so.
"""
from __future__ import annotations

import os
import shlex
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from guest import BLOCK, MAGIC, MULT
from lab import Disk, Guest, Lab, Model, Vm, wait_until
from pull import Pull, covers, pull_disk, pull_document, unix_server

MIB = 1 << 20
GUEST_AREA = 32 * MIB  # on vdb and vdc the guest writes below, the demo above
GUEST_DRIVES = {"vdb": 0x81, "vdc": 0x82}
REPOSITORY = "repo"


@dataclass
class Taken:
    """A backup: what is known about its instant, and what it cost."""
    name: str  # of the point or the checkpoint
    models: dict[str, Model]  # without the guest's blocks until `truth` has added them
    before: int  # the guest's last write before the instant …
    after: int   # … and one behind it
    seconds: float = 0
    restored: float = 0
    report: dict = field(default_factory=dict)


class Demo:
    """The machine, what is known about its disks at each backup, and the verdicts."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.guest = Guest(pause_us=0)
        self.vm: Vm | None = None
        self.proved: list[str] = []
        self.failed: list[str] = []
        self.begun = time.monotonic()

    # Saying -----------------------------------------------------------------------------------

    def title(self, text: str) -> None:
        print(f"\n== {text}")

    def show(self, text: str, lines: int = 100) -> None:
        """Output of a program, its paths without the folder that all is in."""
        rows = text.replace(f"{self.lab.dir}/", "").rstrip("\n").splitlines()
        for row in rows[:lines]:
            print(f"   {row}")
        if len(rows) > lines > 0:
            print(f"   … {len(rows) - lines} lines more")

    def command(self, *words: str) -> None:
        print("\n$ " + shlex.join(words).replace(f"{self.lab.dir}/", ""))

    def run(self, *words: str, lines: int = 100) -> str:
        """Runs tidemark in the lab's folder, as a user would, and shows both."""
        self.command("tidemark", *words)
        result = self.lab.tidemark(*words, cwd=self.lab.dir)
        self.show(result.err + result.out, lines)
        return result.out

    def prove(self, text: str, check: Callable, *args) -> None:
        """One proof: `check` raises AssertionError where it does not hold."""
        try:
            check(*args)
        except AssertionError as why:
            self.failed.append(text)
            print(f"   NOT PROVED: {text}")
            self.show(str(why), 30)
        else:
            self.proved.append(text)
            print(f"   proved: {text}")

    # The machine ------------------------------------------------------------------------------

    def boot(self, name: str, guest: Guest, disks: list[Disk]) -> Vm:
        """Starts a machine from the first of the disks, and waits until its guest writes."""
        guest.serial = self.lab.path(f"{name}.serial")
        vm = self.lab.vm(disks, name=name, extra=["-serial", f"file:{guest.serial}"])
        guest.wait(20, timeout=60)
        return vm

    def start(self) -> None:
        """vda gets a boot sector with the guest, and the machine starts from it."""
        disks = [self.lab.disk(name, "64M") for name in ("vda", "vdb", "vdc")]
        with open(self.guest.make_boot_disk(self.lab.dir), "rb") as boot:
            sector = boot.read(512)
        path = self.lab.path("boot.sector")
        with open(path, "wb") as out:
            out.write(sector)
        self.lab.tool("qemu-io", "-f", "qcow2", "-c", f"write -s {path} 0 512", disks[0].path)
        disks[0].model.write(0, sector)
        self.vm = self.boot("vm1", self.guest, disks)
        version = ".".join(str(part) for part in self.lab.qemu_version())
        self.show(f"QEMU {version} ({self.vm.accel}) with qcow2 images, and a guest that boots"
                  " from vda and\nwrites to vdb and vdc, in turn, without end")

    def fill(self, disk: Disk, length: int) -> None:
        """`length` bytes that do not compress, above the guest's area."""
        for at in range(self.free(disk), self.free(disk) + length, MIB):
            self.vm.writer(disk).write_random(at, MIB, self.lab.rng)

    def change(self, count: int = 15) -> None:
        """Writes, zero-writes and discards of every kind on each disk, while the guest writes."""
        for disk in self.vm.disks:
            self.vm.writer(disk).random_ops(self.lab.rng, count, begin=self.free(disk))

    @staticmethod
    def free(disk: Disk) -> int:
        """Where the demo may write: not on the boot sector, not where the guest does."""
        return GUEST_AREA if disk.name in GUEST_DRIVES else MIB

    def models(self) -> dict[str, Model]:
        return {disk.name: disk.model.snapshot() for disk in self.vm.disks}

    def say_guest(self, watch, blocks: int) -> None:
        self.show(f"(the guest wrote {blocks} blocks meanwhile; its longest time without a write"
                  f" was {watch.longest * 1000:.0f} ms)")

    # Backups ----------------------------------------------------------------------------------

    def backup(self, *options: str, during: Callable | None = None) -> Taken:
        """A point in the repository. `during` changes the disks behind the instant."""
        words = ("backup", "--qmp", self.vm.address, "-r", REPOSITORY, *options)
        self.command("tidemark", *words)
        taken = Taken("", self.models(), self.guest.done(), 0)
        begun = time.monotonic()
        with self.guest.watch() as watch:
            child = self.lab.tidemark_popen(*words, cwd=self.lab.dir)
            if during:
                wait_until(lambda: self.state() == "running" or child.poll() is not None, 60)
                taken.after = self.guest.done()
                during()
            runs = child.poll() is None
            out, err = child.communicate(timeout=120)
            taken.seconds = time.monotonic() - begun
        taken.after = taken.after or self.guest.done()
        self.show(err + out)
        assert child.returncode == 0, f"tidemark backup ended with {child.returncode}"
        self.say_guest(watch, self.guest.done() - taken.before)
        points = self.lab.tidemark_json("list", "-r", REPOSITORY, cwd=self.lab.dir)["points"]
        taken.report, taken.name = points[-1], points[-1]["id"]
        if during:
            self.prove("the disks were changed while that backup ran", self.check, runs)
        self.prove("QEMU is left with checkpoints only, its guest running", self.vm.assert_clean)
        return taken

    def state(self) -> str:
        status = self.lab.tidemark_json("status", "--qmp", self.vm.address, rc=(0, 1))
        return status.get("state", "")

    def push(self, name: str, since: dict[str, str], *options: str,
             during: Callable | None = None) -> tuple[Taken, dict[str, str]]:
        """A push of every disk with checkpoint `name`; `since` says which are incremental."""
        images = {disk.name: self.lab.path(f"{disk.name}.{name}.qcow2") for disk in self.vm.disks}
        rows = ["<domainbackup>", "  <disks>"]
        for disk, path in images.items():
            start = f" incremental='{since[disk]}'" if disk in since else ""
            rows += [f"    <disk name='{disk}' type='file'{start}><target file='{path}'/></disk>"]
        self.document(f"{name}.xml", "\n".join(rows + ["  </disks>", "</domainbackup>", ""]))
        self.lab.file(f"{name}-checkpoint.xml",
                      f"<domaincheckpoint><name>{name}</name></domaincheckpoint>\n")
        taken = Taken(name, self.models(), self.guest.done(), 0)
        with self.guest.watch() as watch:
            self.run("begin", "--qmp", self.vm.address, *options, f"{name}.xml",
                     f"{name}-checkpoint.xml", lines=0)
            taken.after = self.guest.done()
            if during:
                during()
            self.run("wait", "--qmp", self.vm.address)
        self.say_guest(watch, self.guest.done() - taken.before)
        self.prove(f"{name}: QEMU is left with checkpoints only, its guest running",
                   self.vm.assert_clean)
        return taken, images

    def document(self, name: str, text: str) -> None:
        self.command("cat", name)
        self.lab.file(name, text)
        self.show(text)

    # Proofs -----------------------------------------------------------------------------------

    @staticmethod
    def check(holds: bool, why: str = "it is not so") -> None:
        assert holds, why

    def truth(self, model: Model, drive: int, head: int) -> Model:
        """A disk as it was right after the guest wrote block `head`."""
        disk, guest = model.snapshot(), self.guest
        for n in range(max(guest.start, head - guest.slots + 1), head + 1):
            slot = n * MULT % guest.slots
            block = struct.pack("<3I", MAGIC, drive, guest.start)
            disk.write(slot * guest.spacing, block + struct.pack("<I", n) * (BLOCK // 4 - 3))
        return disk

    def compare(self, taken: Taken, images: dict[str, str], fmt: str = "qcow2") -> None:
        """Images of one backup, restored: of one instant, the right one, and right to the byte."""
        lab, raws, which = self.lab, {}, taken.name[:8]
        for disk in GUEST_DRIVES:
            raws[disk] = lab.raw(images[disk], fmt)
        try:
            heads = self.guest.check_cut(list(raws.values())).heads
        except AssertionError as why:
            self.prove(f"{which}: vdb and vdc are of one instant", self.check, False, str(why))
            return
        self.prove(f"{which}: vdb ends with guest write {heads[0]}, vdc with {heads[1]}: one"
                   f" instant, that of the backup ({taken.before} to {taken.after})", self.check,
                   taken.before <= heads[1] and heads[0] <= taken.after + 1)
        for (disk, drive), head in zip(GUEST_DRIVES.items(), heads):
            taken.models[disk] = self.truth(taken.models[disk], drive, head)
            os.unlink(raws[disk])
        for disk, image in images.items():
            self.prove(f"{which}: {disk} is what it was then, in every byte (qemu-img compare)",
                       lab.compare, image, taken.models[disk], fmt)
        if fmt == "qcow2":
            self.prove(f"{which}: the images are in order (qemu-img check)",
                       lambda: [lab.check_image(image) for image in images.values()])

    # Ending -----------------------------------------------------------------------------------

    def table(self, points: list[Taken]) -> None:
        print(f"\n   {'point':18}{'disk':6}{'mode':13}{'size':>10}{'read':>10}{'new':>10}"
              f"{'stored':>10}{'backup':>9}{'restore':>9}")
        for point in points:
            for number, disk in enumerate(point.report["disks"]):
                sizes = "".join(f"{disk[key] / MIB:6.1f} MiB"
                                for key in ("size", "read", "new", "stored"))
                times = f"{point.seconds:7.1f} s{point.restored:7.1f} s" if not number else ""
                print(f"   {'' if number else point.name:18}{disk['name']:6}{disk['mode']:13}"
                      f"{sizes}{times}")

    def summary(self) -> bool:
        guest = self.guest
        self.title("The end")
        for text in self.failed:
            print(f"   NOT PROVED: {text}")
        print(f"   {len(self.proved)} of {len(self.proved) + len(self.failed)} proofs hold;"
              f" {guest.done()} guest writes, {guest.errors()} failed;"
              f" {time.monotonic() - self.begun:.0f} s")
        return not self.failed


def play_repository(demo: Demo) -> None:
    """Points in a repository: the main job."""
    lab = demo.lab
    demo.title("A repository, and a first backup of the running machine: everything is read")
    demo.run("init", "-r", REPOSITORY)
    first = demo.backup()

    demo.title("The disks change, one is plugged in; the second backup reads what changed, and the"
               " new disk")
    demo.change()
    vdd = lab.disk("vdd", "48M")
    demo.vm.plug(vdd)
    demo.fill(vdd, 24 * MIB)
    # What is written behind the instant must not be in the backup; the limit gives us the time.
    second = demo.backup("--bandwidth", "16M", during=demo.change)
    modes = {disk["name"]: disk["mode"] for disk in second.report["disks"]}
    right = dict.fromkeys(("vda", "vdb", "vdc"), "incremental") | {"vdd": "full"}
    demo.prove("vda, vdb and vdc were incremental, vdd was full", demo.check, modes == right,
               str(modes))
    demo.run("list", "-r", REPOSITORY)
    demo.run("verify", "-r", REPOSITORY)

    demo.title("Both points are restored, while the guest goes on")
    points = [first, second]
    folders = {point.name: f"restored-{number}" for number, point in enumerate(points, 1)}
    for point in points:
        begun = time.monotonic()
        demo.run("restore", "-r", REPOSITORY, point.name, "--to", folders[point.name])
        point.restored = time.monotonic() - begun
        demo.compare(point, {name: lab.path(f"{folders[point.name]}/{name}.qcow2")
                             for name in point.models})

    demo.title("What differs between them")
    demo.run("diff", "-r", REPOSITORY, first.name, second.name, lines=6)
    rows = lab.tidemark_json("diff", "-r", REPOSITORY, first.name, second.name,
                             cwd=lab.dir)["disks"]
    for name in first.models:
        found = joined([(extent["offset"], extent["length"]) for row in rows
                        if row["name"] == name for extent in row["extents"]])
        really = first.models[name].differs(second.models[name])
        total = sum(size for _, size in really) / MIB
        demo.prove(f"that is right for {name}: {total:.1f} MiB differ", demo.check, found == really,
                   f"{found}\nis not\n{really}")

    demo.title("The restored machine starts")
    folder = folders[second.name]
    demo.show(f"QEMU with {folder}/vda.qcow2, vdb.qcow2 and vdc.qcow2")
    disks = [Disk(name, lab.path(f"{folder}/{name}.qcow2"), second.models[name], node=f"{name}-fmt")
             for name in ("vda", "vdb", "vdc")]

    def boots() -> None:
        guest = Guest()
        vm = demo.boot("restored", guest, disks)
        vm.assert_running()
        vm.quit()
        assert guest.errors() == 0, "it could not write"

    demo.prove("it boots from the restored vda, and writes to vdb and vdc", boots)

    demo.title("What it cost")
    demo.table(points)
    demo.run("stats", "-r", REPOSITORY)


def play_push(demo: Demo) -> Taken:
    """Without a repository: images that QEMU writes, as libvirt's documents say."""
    demo.title("Without a repository: a push of all disks in full, with a checkpoint")
    taken, images = demo.push("c1", {})
    demo.compare(taken, images)
    demo.change()
    demo.title("A push that mixes both: vda, vdb and vdd since c1, vdc in full")
    taken, images = demo.push("c2", {"vda": "c1", "vdb": "c1", "vdd": "c1"}, "--bandwidth", "20M",
                              during=lambda: demo.change(5))
    demo.compare(taken, images)
    demo.run("checkpoint", "list", "--tree", "--size", "--qmp", demo.vm.address)
    return taken


def play_pull(demo: Demo, last: Taken) -> None:
    """The same, read by an NBD client. `last` is the backup with checkpoint c2."""
    lab = demo.lab
    demo.title("A pull: QEMU exports disks as of one instant, with a map of what changed since c2")
    demo.change()
    pull = Pull(lab, demo.vm)
    disks = [pull_disk(name, pull.scratch(name), since="c2") for name in GUEST_DRIVES]
    text = pull_document(unix_server(pull.socket), disks)
    for tag in ("<server", "<disks", "<disk ", "</disks", "</domain"):
        text = text.replace(tag, f"\n{tag}")
    demo.document("pull.xml", text + "\n")
    models = demo.models()
    taken = Taken("pull", {name: models[name] for name in GUEST_DRIVES}, demo.guest.done(), 0)
    demo.run("begin", "--qmp", demo.vm.address, "pull.xml", lines=0)
    taken.after = demo.guest.done()
    demo.change(5)
    maps, copies = {}, {}
    for name in GUEST_DRIVES:
        copies[name] = lab.path(f"{name}.pull.raw")
        maps[name] = pull.dirty(name, f"backup-{name}")
        demo.command("nbdcopy", pull.uri(name), f"{name}.pull.raw")
        lab.tool("nbdcopy", pull.uri(name), copies[name])
    demo.run("end", "--qmp", demo.vm.address)
    demo.compare(taken, copies, "raw")
    for name, found in maps.items():
        changed = last.models[name].differs(taken.models[name])
        demo.prove(f"pull: all that differs from c2 on {name} is in its map ({len(found)} extents,"
                   f" {sum(stop - start for start, stop in found) / MIB:.1f} MiB)", demo.check,
                   all(covers(found, start, start + length) for start, length in changed))
    demo.prove("pull: nothing is left of it", pull.assert_no_files)


def joined(extents: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(offset, length), neighbours as one."""
    out: list[tuple[int, int]] = []
    for offset, length in extents:
        if out and sum(out[-1]) == offset:
            length += out[-1][1]
            offset = out.pop()[0]
        out.append((offset, length))
    return out


def check_source(lab: Lab, disk: Disk) -> None:
    lab.check_image(disk.path)
    bitmaps = lab.info(disk.path)["format-specific"]["data"].get("bitmaps", [])
    names = [one["name"] for one in bitmaps]
    assert {"c1", "c2"} <= set(names) and len(names) == 3, names  # and the repository's
    assert not any("in-use" in one["flags"] for one in bitmaps), bitmaps


def play(demo: Demo) -> None:
    demo.title("A virtual machine with three disks")
    demo.start()
    for disk, length in zip(demo.vm.disks, (40, 20, 10)):
        demo.fill(disk, length * MIB)
    demo.run("disks", "--qmp", demo.vm.address)
    play_repository(demo)
    play_pull(demo, play_push(demo))

    demo.title("The machine ends")
    demo.prove("the guest wrote all the time, and none of its writes failed", lambda: demo.check(
        not demo.guest.errors() and demo.guest.wait(50) > 0))
    demo.vm.quit()
    for disk in demo.vm.disks:
        demo.prove(f"{disk.name}'s own image is in order, its checkpoints inside", check_source,
                   demo.lab, disk)
    demo.prove("no process is left", demo.lab.check_end)


def main() -> int:
    if "--keep" in sys.argv[1:]:
        os.environ["TMK_TEST_KEEP"] = "1"
    lab = Lab("demo")
    demo = Demo(lab)
    try:
        play(demo)
        good = demo.summary()
    except AssertionError as why:
        print(f"\ndemo: {why}\n{lab.keep_logs()}", file=sys.stderr)
        good = False
    finally:
        lab.close()
    return 0 if good else 1


sys.exit(main())
