#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: the scratch of a pull may be a file or a block device, made, reused or encrypted; one
that cannot serve is refused without a trace; and one that hangs breaks the pull, not the guest."""
import os
import signal
import subprocess
import time

import run
from lab import Guest, Lab, Skip, main, test
from pull import Pull, pull_disk
from push import files_below

LUKS = "<encryption format='luks'><secret type='passphrase' usage='scratch'/></encryption>"


def filled(lab: Lab, size: str = "16M", **how):
    """A machine whose disk is written all over, so that every guest write is copied before."""
    vda = lab.disk("vda", size)
    for start in range(0, vda.model.size, 1 << 20):
        lab.writer(vda).write_random(start, 1 << 20, lab.rng)
    vm = lab.vm([vda], **how)
    return vm, Pull(lab, vm)


def read_back(pull: Pull) -> None:
    """Guest writes of every kind do not show in the export."""
    vda = pull.vm.disks[0]
    model = vda.model.snapshot()
    pull.vm.writer(vda).random_ops(pull.lab.rng, 20)
    pull.compare(vda.name, model)


def refused(pull: Pull, disk: str, *words: str, options: tuple = ()) -> None:
    before, on_disk = pull.vm.inventory(), files_below(pull.lab.dir)
    result = pull.run([disk], *options, checkpoint="no", rc=1)
    assert pull.vm.inventory() == before, (before, pull.vm.inventory())
    assert files_below(pull.lab.dir) == on_disk, files_below(pull.lab.dir) ^ on_disk
    for word in (*words, "\nhint: "):
        assert word in result.err, f"no '{word}' in\n{result.err}"


class Device:
    """A loop device."""

    def __init__(self, lab: Lab, size: int) -> None:
        if os.geteuid() != 0:
            raise Skip("may not make a loop device")
        lab.need("losetup")
        file = lab.fresh(".dev")
        with open(file, "wb") as image:
            image.truncate(size)
        made = run.run(["losetup", "--show", "-f", file], check=False)
        if made.rc != 0:
            raise Skip(f"no loop device: {made.err.strip()}")
        self.path = made.out.strip()

    def close(self) -> None:
        subprocess.run(["losetup", "-d", self.path], check=False)


class Hanging:
    """A qcow2 file behind FUSE, served by a process that can be stopped: then it hangs."""

    def __init__(self, lab: Lab, size: int) -> None:
        lab.need("qemu-storage-daemon")
        self.path, below = lab.path("hanging.qcow2"), lab.path("below")
        with open(self.path, "wb"), open(below, "wb") as image:
            image.truncate(2 * size)
        self._daemon = run.popen(
            ["qemu-storage-daemon", "--blockdev", f"file,node-name=f,filename={below}", "--export",
             f"fuse,id=e,node-name=f,mountpoint={self.path},writable=on,growable=on"],
            stderr=subprocess.DEVNULL)
        try:
            run.wait_until(lambda: os.stat(self.path).st_size, 5)
        except AssertionError:
            self.close()
            raise Skip("no FUSE exports") from None
        lab.tool("qemu-img", "create", "-q", "-f", "qcow2", self.path, size)

    def hang(self) -> None:
        run.stop(self._daemon.pid)

    def go_on(self) -> None:
        self._daemon.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.go_on()
        run.end(self._daemon)
        subprocess.run(["umount", "-l", self.path], check=False, stderr=subprocess.DEVNULL)


@test(timeout=120)
def test_scratch_on_a_block_device(lab: Lab) -> None:
    vm, pull = filled(lab)
    device = Device(lab, 32 << 20)
    try:
        begun = pull.run([pull_disk("vda", device.path, kind="block")], checkpoint="c1")
        assert f"dev='{device.path}'" in begun.out, begun.out
        read_back(pull)
        disk, = lab.tidemark_json("status", "--qmp", vm.address)["disks"]
        assert 0 < disk["done"] < 32 << 20 and disk["done"] + disk["room"] == 32 << 20, disk
        pull.end()
        # Used a second time: what lies there from the first must not show.
        pull.run([pull_disk("vda", device.path, kind="block")], checkpoint="c2")
        read_back(pull)
        pull.abort()
        refused(pull, pull_disk("vda", lab.file("plain", "x"), kind="block"), "block device")
    finally:
        vm.close()
        device.close()


@test(timeout=120)
def test_reused_scratch(lab: Lab) -> None:
    vm, pull = filled(lab)
    size = vm["vda"].model.size
    mine = lab.create(lab.path("mine.qcow2"), size)
    disk = pull_disk("vda", mine)
    refused(pull, disk, "exists already")
    refused(pull, pull_disk("vda", lab.path("absent.qcow2")), "absent",
            options=("--reuse-external",))
    refused(pull, pull_disk("vda", lab.create(lab.path("small.qcow2"), "8M")), "bytes",
            options=("--reuse-external",))
    refused(pull, pull_disk("vda", lab.create(lab.path("raw.img"), size, "raw")), "vda",
            options=("--reuse-external",))
    pull.run([disk], "--reuse-external", checkpoint="c1")
    read_back(pull)
    pull.end()
    assert os.path.exists(mine)
    # It has data of the first pull now, which QEMU before 10 would export as the disk's.
    refused(pull, disk, "mine", "empty", options=("--reuse-external",))
    lab.create(mine, size)
    pull.run([disk], "--reuse-external", checkpoint="c2")
    read_back(pull)
    pull.abort()
    assert os.path.exists(mine)


@test(timeout=90)
def test_encrypted_scratch(lab: Lab) -> None:
    vm, pull = filled(lab, "8M")
    disk = pull_disk("vda", pull.scratch("vda"), inside=LUKS)
    os.mkdir(lab.path("keys"))
    lab.file("keys/scratch", "open sesame")
    refused(pull, disk, "secret")
    pull.run([disk], "--secrets", lab.path("keys"), checkpoint="c1")
    assert lab.info(pull.scratch("vda"))["encrypted"] is True
    assert os.stat(pull.scratch("vda")).st_mode & 0o777 == 0o600
    read_back(pull)
    pull.end()
    pull.run([disk], "--secrets", lab.path("keys"), checkpoint="c2")
    pull.abort()


@test(timeout=60)
def test_scratches_that_are_refused(lab: Lab) -> None:
    vm, pull = filled(lab, "2M")
    refused(pull, pull_disk("vda", lab.file("there", "data")), "exists already")
    refused(pull, pull_disk("vda", lab.path("no-folder/vda")), "no-folder")
    refused(pull, pull_disk("vda", vm["vda"].path), "vda")
    refused(pull, pull_disk("vda", lab.dir), "exists already")
    result = pull.run([pull_disk("vda", pull.scratch("vda"), fmt="raw")], rc=1)
    assert "qcow2" in result.err, result.err
    result = pull.run([pull_disk("vda", "relative")], rc=1)
    assert "absolute" in result.err or "invalid" in result.err, result.err
    pull.assert_no_files()
    vm.assert_clean()


@test(timeout=60)
def test_scratch_that_nobody_named(lab: Lab) -> None:
    vm, pull = filled(lab, "2M")
    for disks in ([pull_disk("vda")], []):
        begun = pull.run(disks, checkpoint="tuesday")
        path = f"{os.path.splitext(vm['vda'].path)[0]}.tuesday"
        made = [name for name in (path, f"{vm['vda'].path}.tuesday") if os.path.exists(name)]
        assert made and f"file='{made[0]}'" in begun.out, begun.out
        read_back(pull)
        pull.abort()
        assert not os.path.exists(made[0])


@test(timeout=120)
def test_scratch_that_hangs(lab: Lab) -> None:
    # Large and slow enough that when it hangs there are places left to save.
    vm, pull = filled(lab, "64M", guest=Guest(slots=1024, spacing=65536, pause_us=2000))
    scratch = Hanging(lab, vm["vda"].model.size)
    try:
        pull.run([pull_disk("vda", scratch.path)], "--scratch-timeout", "2", "--reuse-external",
                 checkpoint="c1")
        vm.guest.wait(5)
        with vm.guest.watch() as watch:
            vm.guest.wait(5)
            good = lab.tidemark("status", "--qmp", vm.address)
            scratch.hang()
            # Whoever asks does not make it worse: no question of ours goes to that storage in QEMU.
            for verb in ("status", "disks", "end", "abort", "status"):
                begun = time.monotonic()
                said = lab.tidemark(verb, "--qmp", vm.address, rc=1)
                assert time.monotonic() - begun < 8, verb
                assert "vda" in said.err and "\nhint: " in said.err, said.err
                assert verb == "status" or "does not answer" in said.err, said.err
            vm.guest.wait(60)
        assert watch.longest < 4, watch.longest
        assert "running" in good.out and not good.err, good
        assert vm.guest.errors() == 0
        scratch.go_on()
        said = lab.tidemark("status", "--qmp", vm.address, rc=1)
        assert "broken" in said.err, said.err
        failed = lab.tidemark("end", "--qmp", vm.address, rc=1)
        assert "broken" in failed.err and scratch.path in failed.err, failed.err
        vm.assert_clean()
        assert "c1" not in vm.bitmaps(vm["vda"])
        assert vm.guest.errors() == 0
        pull.begin("c2")
        pull.end()
    finally:
        scratch.go_on()
        vm.close()
        scratch.close()


@test(timeout=90)
def test_scratch_that_vanishes(lab: Lab) -> None:
    """Removed, or another file in its place: nobody knows what became of it."""
    vm, pull = filled(lab, "4M")
    for number, replaced in enumerate((False, True)):
        pull.begin(f"c{number}")
        assert lab.tidemark("status", "--qmp", vm.address).err == ""
        os.unlink(pull.scratch("vda"))
        if replaced:
            lab.file(os.path.relpath(pull.scratch("vda"), lab.dir), "mine")
        for verb in ("status", "end"):
            said = lab.tidemark(verb, "--qmp", vm.address, rc=1)
            assert "'vda'" in said.err and "is lost" in said.err, said.err
        vm.assert_clean()
        assert os.path.exists(pull.scratch("vda")) == replaced  # what is not ours stays
        assert f"c{number}" not in vm.bitmaps(vm["vda"])


@test(timeout=90)
def test_figures(lab: Lab) -> None:
    """What status shows while a pull runs and when it has ended, also without a checkpoint."""
    vm, pull = filled(lab)
    for checkpoint in (None, "c1"):
        pull.run([pull_disk("vda", pull.scratch("vda"))], checkpoint=checkpoint)
        for count in (0, 1, 2):
            if count:
                vm.writer(vm["vda"]).write(count << 21, 1 << 20, 7)
            disk, = lab.tidemark_json("status", "--qmp", vm.address)["disks"]
            assert disk["dirty"] == count << 20, disk
            assert count << 20 <= disk["done"] < (count << 20) + (1 << 20), disk
            assert abs(disk["room"] - os.statvfs(pull.folder).f_bavail * 4096) < 1 << 28, disk
            assert disk["state"] == "running", disk
        pull.end()
        status = lab.tidemark_json("status", "--qmp", vm.address)
        assert status["state"] == "done", status
        disk, = status["disks"]
        assert disk["state"] == "complete" and disk["dirty"] == 2 << 20, disk
        assert disk["done"] >= 2 << 20, disk
        shown = lab.tidemark("status", "--qmp", vm.address).out
        assert "complete" in shown and "room" not in shown, shown


main()
