#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: the exports of a pull are the disks as of one instant, whatever the guest writes
meanwhile, with an exact map of what changed; a scratch in trouble breaks the pull, not the guest."""
import os
import signal

from lab import Guest, Lab, Model, Skip, main, test, wait_until
from pull import Pull, covers, pull_disk, pull_document, unix_server


@test(timeout=150)
def test_exports_are_the_disks_as_of_the_instant(lab: Lab) -> None:
    lab.need("nbdcopy", "nbdinfo")
    vda, vdb = lab.disk("vda"), lab.disk("vdb", style="drive", bus="scsi")
    vm = lab.vm([vda, vdb])
    pull, rng = Pull(lab, vm), lab.rng

    def scribble(count: int = 15) -> None:
        for disk in vm.disks:
            vm.writer(disk).random_ops(rng, count)

    scribble(30)
    before = vm.inventory()["nodes"]
    models = {disk.name: disk.model.snapshot() for disk in vm.disks}
    begun = pull.begin("c1")
    assert "exportname='vda'" in begun.out and pull.socket in begun.out, begun.out
    scribble()
    for name, model in models.items():
        pull.compare(name, model)
    scribble()
    pull.compare("vda", models["vda"])
    status = lab.tidemark_json("status", "--qmp", vm.address)
    assert status["mode"] == "pull" and status["state"] == "running", status
    assert status["clients"] == 0, status
    shown = status["disks"][0]
    assert shown["export"] == "vda" and shown["done"] > 0 and shown["dirty"] > 0, shown
    assert "export 'vda'" in lab.tidemark("status", "--qmp", vm.address).out
    pull.end()
    pull.end()  # once more: the same answer
    assert vm.inventory()["nodes"] == before

    old = models
    models = {disk.name: disk.model.snapshot() for disk in vm.disks}
    begun = pull.begin("c2", {"vda": "c1"})
    assert "exportbitmap='backup-vda'" in begun.out, begun.out
    scribble()
    for name, model in models.items():
        pull.compare(name, model)
    dirty = pull.dirty("vda", "backup-vda")
    changed = old["vda"].differs(models["vda"])
    for start, length in changed:
        assert covers(dirty, start, start + length), f"{start} changed but is not in the map"
    pull.end()
    for disk in vm.disks:
        assert set(vm.bitmaps(disk)) == {"c1", "c2"}, vm.bitmaps(disk)
    vm.quit()
    for disk in vm.disks:
        lab.compare(disk.path, disk.model)
        lab.check_image(disk.path)


@test(timeout=120)
def test_one_instant_across_disks_of_a_writing_guest(lab: Lab) -> None:
    lab.need("nbdcopy")
    disks = [lab.disk(name, "32M") for name in ("vda", "vdb", "vdc")]
    vm = lab.vm(disks, guest=Guest(pause_us=0, slots=1024))
    pull = Pull(lab, vm)
    vm.guest.wait(100)
    for number in range(3):
        with vm.guest.watch() as watch:
            pull.begin(f"c{number}")
            vm.guest.wait(30)
        raws = []
        for disk in disks:
            raws.append(lab.fresh(".raw"))
            lab.tool("nbdcopy", pull.uri(disk.name), raws[-1])
        pull.end()
        vm.guest.check_cut(raws)
        assert watch.longest < 5, watch.longest
    assert vm.guest.errors() == 0


@test(timeout=120)
def test_scratch_running_full_breaks_the_pull_not_the_guest(lab: Lab) -> None:
    vda = lab.disk("vda")
    for start in range(0, vda.model.size, 1 << 20):
        lab.writer(vda).write(start, 1 << 20, 0x11)  # what was never written needs no copy
    vm = lab.vm([vda], guest=Guest(pause_us=0, slots=1024, spacing=65536))
    pull = Pull(lab, vm)
    vm.guest.wait(50)
    small = lab.tmpfs("2M")
    refused = pull.begin("c1", folder=small, rc=1)
    assert "not enough space" in refused.err and "vda" in refused.err, refused.err
    pull.begin("c1", None, "--no-space-check", folder=small)
    vm.guest.wait(300)
    with vm.guest.watch() as watch:
        said = lab.tidemark("status", "--qmp", vm.address, rc=1)
    assert "running" in said.out and "broken" in said.err and "\nhint: " in said.err, said
    assert watch.longest < 3, watch.longest
    failed = lab.tidemark("end", "--qmp", vm.address, rc=1)
    assert "scratch" in failed.err and "broken" in failed.err, failed.err
    lab.tidemark("end", "--qmp", vm.address, rc=1)
    assert lab.tidemark_json("status", "--qmp", vm.address)["state"] == "failed"
    vm.assert_clean()
    assert vm.guest.errors() == 0 and os.listdir(small) == []
    assert "c1" not in vm.bitmaps(vda)


@test(timeout=120)
def test_abort_and_errors(lab: Lab) -> None:
    vda = lab.disk("vda")
    vm = lab.vm([vda])
    pull = Pull(lab, vm)
    before = vm.inventory()
    pull.begin("c1")
    lab.tidemark("abort", "--qmp", vm.address)
    vm.assert_clean()
    assert vm.inventory() == before and os.listdir(pull.folder) == []
    assert not os.path.exists(pull.socket)
    with open(pull.socket, "w", encoding="ascii"):
        pass
    failed = pull.begin("c1", rc=1)
    assert "exists already" in failed.err, failed.err
    os.unlink(pull.socket)
    assert vm.inventory() == before and os.listdir(pull.folder) == []
    pull.begin("c1")
    vm.kill()
    lab.tidemark("end", "--qmp", vm.address, rc=1)
    assert os.listdir(pull.folder) == []


@test(timeout=120)
def test_iothreads(lab: Lab) -> None:
    """QEMU before 10 aborts when a client of such an export leaves: there copies are exported."""
    lab.need("nbdcopy", "nbdinfo")
    vda, vdb = lab.disk("vda", iothread=True), lab.disk("vdb")
    vm = lab.vm([vda, vdb])
    pull, rng = Pull(lab, vm), lab.rng
    staged = lab.qemu_version() < (10, 0)
    since: dict[str, str] = {}
    old: dict[str, Model] = {}
    for number in range(3):
        for disk in vm.disks:
            vm.writer(disk).write_random(number << 20, 1 << 20, rng)
        models = {disk.name: disk.model.snapshot() for disk in vm.disks}
        begun = pull.begin(f"c{number}", since)
        assert ("copied to their scratch images first" in begun.err) == staged, begun.err
        for disk in vm.disks:
            vm.writer(disk).write(0, 1 << 20, 9)
            pull.compare(disk.name, models[disk.name])
            if since:
                dirty = pull.dirty(disk.name, f"backup-{disk.name}")
                for start, stop in old[disk.name].differs(models[disk.name]):
                    assert any(low <= start and stop <= high for low, high in dirty), dirty
        pull.end()
        since, old = {disk.name: f"c{number}" for disk in vm.disks}, models


@test(timeout=120)
def test_staged_pull_is_undone(lab: Lab) -> None:
    """The copies of an iothread's disks: aborted while they run, while they are exported, and
    without room for them."""
    vda = lab.disk("vda", iothread=True)
    vm = lab.vm([vda])
    if lab.qemu_version() >= (10, 0):
        raise Skip("this QEMU exports such disks itself")
    pull = Pull(lab, vm)
    for start in range(0, vda.model.size, 1 << 20):
        vm.writer(vda).write(start, 1 << 20, 0x11)
    before = vm.inventory()
    begun = lab.tidemark_popen("begin", "--qmp", vm.address, "--bandwidth", "4M", lab.file(
        "slow.xml", pull_document(unix_server(pull.socket), [pull_disk("vda", pull.scratch("vda"))])))
    wait_until(lambda: vm.qmp.command("query-jobs"), 10)
    begun.send_signal(signal.SIGINT)
    _, err = begun.communicate(timeout=20)
    assert begun.returncode == 130 and "interrupted" in err, err
    assert vm.inventory() == before and os.listdir(pull.folder) == []
    pull.begin("c1")
    lab.tidemark("abort", "--qmp", vm.address)
    assert vm.inventory() == before and os.listdir(pull.folder) == []
    assert not os.path.exists(pull.socket)
    small = lab.tmpfs("8M")
    failed = pull.begin("c1", None, "--no-space-check", folder=small, rc=1)
    assert "vda" in failed.err and "hint: " in failed.err, failed.err
    assert vm.inventory() == before and os.listdir(small) == []


main()
