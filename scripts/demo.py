# SPDX-License-Identifier: LGPL-2.1-or-later
"""The demonstration that scripts/demo runs, and its proofs.

A guest writes numbered blocks to vda and vdb, one after the other, as fast as it can: block n goes
to a place that n decides, with contents that n decides. So the last number on a restored disk says
at which instant the backup was made, and everything else on the disk follows from it: the demo
computes the whole disk as of that number, adds what it wrote itself (through QEMU, with contents of
its own), and has `qemu-img compare` look for a difference. It never stops the guest to do so.
"""
from __future__ import annotations

import os
import shlex
import struct
import sys
import time

from guest import BLOCK, MAGIC, MULT
from lab import Disk, Guest, Lab, Model, Vm

MIB = 1 << 20
GUEST_AREA = 32 * MIB  # the guest writes below, the demo above
ADDRESS = "vm0.qmp"


class Demo:
    """The machine, what is known about its disks at each backup, and the verdicts."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.guest = Guest(pause_us=0)
        self.vm: Vm | None = None
        self.points: list[dict] = []
        self.proofs: list[tuple[bool, str]] = []
        self.begun = time.monotonic()

    # Saying -----------------------------------------------------------------------------------

    def title(self, text: str) -> None:
        print(f"\n== {text}")

    def show(self, text: str) -> None:
        for line in text.rstrip("\n").splitlines():
            print(f"   {line}")

    def run(self, *words: str, quiet: bool = False) -> str:
        """Runs tidemark in the lab's folder, as a user would, and shows both."""
        print(f"\n$ tidemark {shlex.join(words)}")
        result = self.lab.tidemark(*words, cwd=self.lab.dir)
        if not quiet:
            self.show(result.out + result.err)
        return result.out

    def prove(self, text: str, check, *args) -> None:
        """One proof: `check` raises AssertionError where it does not hold."""
        try:
            check(*args)
            self.proofs.append((True, text))
        except AssertionError as why:
            self.proofs.append((False, text))
            self.show(f"NOT PROVED: {text}\n{why}")

    # The machine ------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts with KVM where that runs the guest, else with TCG."""
        disks = [self.lab.disk("vda", "128M"), self.lab.disk("vdb", "64M")]
        wanted = os.environ.get("TMK_TEST_ACCEL")
        accels = [wanted] if wanted else ["kvm", "tcg"] if self.lab.kvm() else ["tcg"]
        for accel in accels:
            self.vm = self.lab.vm(disks, guest=self.guest, accel=accel, name="vm0")
            try:
                self.guest.wait(20, timeout=30 if accel == accels[-1] else 12)
                break
            except AssertionError:
                if accel == accels[-1]:
                    raise
                self.vm.kill()
                for disk in disks:
                    self.lab.create(disk.path, disk.model.size, "qcow2")
        version = ".".join(str(part) for part in self.lab.qemu_version())
        self.show(f"QEMU {version} with {self.vm.accel}, monitor {ADDRESS}; a guest that writes to"
                  " vda and vdb without end")

    def fill(self, disk: Disk, count: int, *, below: int | None = None) -> None:
        """`count` writes, zero-writes and discards of every kind, outside the guest's area."""
        begin = GUEST_AREA if disk.name != "vdc" else 0
        self.vm.writer(disk).random_ops(self.lab.rng, count, begin=begin, stop=below)

    def random(self, disk: Disk, offset: int, length: int) -> None:
        for at in range(offset, offset + length, MIB):
            self.vm.writer(disk).write_random(at, MIB, self.lab.rng)

    # Backups ----------------------------------------------------------------------------------

    def push(self, name: str, since: dict[str, str], *options: str, during=None,
             show: bool = False) -> None:
        """One push of every disk with checkpoint `name`; `since` says which are incremental."""
        lab, vm = self.lab, self.vm
        images = {disk.name: lab.path(f"{disk.name}.{name}.qcow2") for disk in vm.disks}
        self.document(name, images, since)
        models = {disk.name: disk.model.snapshot() for disk in vm.disks}
        before, time0 = self.guest.done(), time.monotonic()
        with self.guest.watch() as watch:
            self.run("begin", "--qmp", ADDRESS, *options, f"{name}.xml",
                     f"{name}-checkpoint.xml", quiet=not show)
            after = self.guest.done()
            if during:
                during()
            if show:
                self.run("status", "--qmp", ADDRESS)
            self.run("wait", "--qmp", ADDRESS)
        status = lab.tidemark_json("status", "--qmp", vm.address)
        at_end = self.guest.done()
        self.show(f"disks held still for {status['pause_us'] / 1000:.1f} ms; longest time without a"
                  f" write of the guest: {watch.longest * 1000:.0f} ms; it wrote"
                  f" {at_end - before} blocks meanwhile")
        self.points.append({
            "name": name, "images": images, "models": models, "before": before, "after": after,
            "end": at_end, "pause": status["pause_us"], "seconds": time.monotonic() - time0,
            "since": since})
        self.prove(f"{name}: QEMU is left with checkpoints only, its guest running",
                   vm.assert_clean)

    def document(self, name: str, images: dict[str, str], since: dict[str, str]) -> None:
        rows = ["<domainbackup>", "  <disks>"]
        for disk, path in images.items():
            start = f" incremental='{since[disk]}'" if disk in since else ""
            rows += [f"    <disk name='{disk}' type='file'{start}>", f"      <target file='{path}'/>",
                     "    </disk>"]
        text = "\n".join(rows + ["  </disks>", "</domainbackup>", ""])
        checkpoint = f"<domaincheckpoint>\n  <name>{name}</name>\n</domaincheckpoint>\n"
        self.lab.file(f"{name}.xml", text)
        self.lab.file(f"{name}-checkpoint.xml", checkpoint)
        print(f"\n{name}.xml:")
        self.show(text)
        print(f"{name}-checkpoint.xml:")
        self.show(checkpoint)

    # Proofs -----------------------------------------------------------------------------------

    def expected(self, model: Model, drive: int, head: int) -> Model:
        """A disk as it was right after the guest wrote block `head`."""
        disk, guest = model.snapshot(), self.guest
        for n in range(max(guest.start, head - guest.slots + 1), head + 1):
            slot = n * MULT % guest.slots
            block = struct.pack("<3I", MAGIC, drive, guest.start)
            disk.write(slot * guest.spacing, block + struct.pack("<I", n) * (BLOCK // 4 - 3))
        return disk

    def restore(self, point: dict) -> None:
        lab, name = self.lab, point["name"]
        raws, started = {}, time.monotonic()
        for disk, image in point["images"].items():
            print(f"$ qemu-img convert -O raw {os.path.basename(image)} {disk}.{name}.raw")
            raws[disk] = lab.raw(image)
        point["restore"] = time.monotonic() - started
        try:
            cut = self.guest.check_cut([raws["vda"], raws["vdb"]])
            heads = dict(zip(("vda", "vdb"), cut.heads))
        except AssertionError as why:
            self.prove(f"{name}: vda and vdb are of one instant", self.fail, str(why))
            return
        point["heads"] = cut.heads
        self.prove(f"{name}: vda ends with guest write {cut.heads[0]}, vdb with {cut.heads[1]}:"
                   " one instant", lambda: None)
        self.prove(f"{name}: that is an instant of begin's (guest writes {point['before']} to"
                   f" {point['after']})", self.within, cut.heads, point)
        for number, (disk, image) in enumerate(point["images"].items()):
            truth = point["models"][disk]
            if disk in heads:
                truth = self.expected(truth, 0x81 + number, heads[disk])
            self.prove(f"{name}: {disk} restored = {disk} at that instant (qemu-img compare)",
                       lab.compare, raws[disk], truth, "raw")
            self.prove(f"{name}: {disk}'s image is in order (qemu-img check)", lab.check_image,
                       image)
            os.unlink(raws[disk])

    @staticmethod
    def within(heads: list[int], point: dict) -> None:
        low, high = point["before"], point["after"] + 1
        assert low <= heads[1] and heads[0] <= high, f"{heads} not in {low}…{high}"

    @staticmethod
    def fail(why: str) -> None:
        raise AssertionError(why)

    # Ending -----------------------------------------------------------------------------------

    def summary(self) -> bool:
        good = all(ok for ok, _ in self.proofs)
        self.title("What was proved")
        for ok, text in self.proofs:
            print(f"  {'yes' if ok else 'NO '}  {text}")
        print(f"\n  {'':6}{'disk':6}{'mode':10}{'disk size':>11}{'image size':>12}"
              f"{'disks held':>13}{'backup':>9}{'restore':>9}")
        for point in self.points:
            for number, (disk, image) in enumerate(point["images"].items()):
                since = point["since"].get(disk)
                times = ["", "", ""] if number else [
                    f"{point['pause'] / 1000:.1f} ms", f"{point['seconds']:.1f} s",
                    f"{point.get('restore', 0):.1f} s"]
                line = (f"  {'' if number else point['name']:6}{disk:6}"
                      f"{f'since {since}' if since else 'full':10}"
                      f"{point['models'][disk].size / MIB:7.0f} MiB"
                      f"{os.stat(image).st_blocks * 512 / MIB:8.1f} MiB"
                      f"{times[0]:>13}{times[1]:>9}{times[2]:>9}")
                print(line.rstrip())
        count = sum(ok for ok, _ in self.proofs)
        print(f"\n{count} of {len(self.proofs)} proofs hold; {self.guest.done()} guest writes,"
              f" {self.guest.errors()} failed; {time.monotonic() - self.begun:.0f} s")
        return good


def play(demo: Demo) -> None:
    lab = demo.lab
    demo.title("A virtual machine with two disks")
    demo.start()
    vm = demo.vm
    vda, vdb = vm.disks
    demo.random(vda, GUEST_AREA, 40 * MIB)
    demo.random(vdb, GUEST_AREA, 20 * MIB)
    demo.run("disks", "--qmp", ADDRESS)

    demo.title("A full backup of both, with checkpoint c1")
    demo.push("c1", {})

    demo.title("The disks change; an incremental backup since c1, with checkpoint c2")
    for disk in vm.disks:
        demo.fill(disk, 15)
    demo.push("c2", {"vda": "c1", "vdb": "c1"})

    demo.title("They change again, and a third disk is plugged in")
    for disk in vm.disks:
        demo.fill(disk, 15)
    vdc = lab.disk("vdc", "48M")
    vm.plug(vdc)
    demo.random(vdc, 0, 24 * MIB)
    demo.fill(vdc, 15)
    demo.run("disks", "--qmp", ADDRESS)

    demo.title("One mixed backup: vda since c1, vdb since c2, vdc in full, checkpoint c3")
    def during() -> None:
        for disk in vm.disks:
            demo.fill(disk, 8)  # after the instant: must not be in the backup

    demo.push("c3", {"vda": "c1", "vdb": "c2"}, "--bandwidth", "20M", during=during, show=True)
    demo.run("checkpoint", "list", "--tree", "--size", "--qmp", ADDRESS)
    demo.prove("the guest wrote all the time, and none of its writes failed", lambda: demo.fail(
        "there were errors") if demo.guest.errors() else demo.guest.wait(50))

    demo.title("The machine ends; every backup is restored with qemu-img alone")
    vm.quit()
    for point in demo.points:
        demo.restore(point)
    for disk in vm.disks:
        demo.prove(f"{disk.name}'s own image is in order, its checkpoints inside",
                   check_source, lab, disk, 1 if disk is vdc else 3)
    demo.prove("no process is left", lab.check_end)


def check_source(lab: Lab, disk: Disk, count: int) -> None:
    lab.check_image(disk.path)
    bitmaps = lab.info(disk.path)["format-specific"]["data"].get("bitmaps", [])
    names = sorted(one["name"] for one in bitmaps)
    assert names == ["c1", "c2", "c3"][3 - count:], names
    assert not any("in-use" in one["flags"] for one in bitmaps), bitmaps


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
