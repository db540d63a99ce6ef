#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: over external snapshots an incremental starts from a bitmap only where the whole chain
has recorded, and then equals the disk; everything else is refused with the disk, the bitmap and a
way out, and nothing is changed."""
from backup import Series, backup_xml, checkpoint_xml, disk_xml
from lab import Disk, Lab, Vm, main, test
from push import push, refused


def begun(lab: Lab, *names: str) -> tuple[Vm, Series]:
    """A machine whose disks were backed up at checkpoint c1, with some content."""
    vm = lab.vm([lab.disk(name, "32M") for name in names or ("vda",)])
    for disk in vm.disks:
        vm.writer(disk).random_ops(lab.rng, 15)
    series = Series(vm)
    series.run("c1")
    return vm, series


def incremental(vm: Vm, disk: str = "vda", since: str = "c1") -> str:
    return backup_xml([disk_xml(disk, vm.lab.path("never.qcow2"), since=since)])


@test
def test_incremental_across_a_chain(lab: Lab) -> None:
    """Two snapshots, each with the checkpoint's bitmap added in the same transaction."""
    vm, series = begun(lab)
    vda = vm["vda"]
    for _ in range(2):
        vm.writer(vda).random_ops(lab.rng, 10)
        vm.snapshot(vda, ["c1"])
    vm.writer(vda).random_ops(lab.rng, 10)
    row = lab.tidemark_json("disks", "--qmp", vm.address)["disks"][0]
    assert row["chain"] == 3 and row["checkpoints"][0]["images"] == 3, row
    series.run("c2", {"vda": "c1"})
    vm.writer(vda).random_ops(lab.rng, 10)
    series.run("c3", {"vda": "c2"})
    # c2 lies on the top only, so that it goes on; c1 still goes through all three.
    series.run("c4", {"vda": "c1"})
    vm.quit()
    for point in series.points:
        point.verify()


@test
def test_snapshot_without_bitmap_is_refused(lab: Lab) -> None:
    vm, series = begun(lab, "vda", "vdb")
    vda, vdb = vm.disks
    vm.snapshot(vda)
    vm.writer(vda).random_ops(lab.rng, 5)
    vm.writer(vdb).random_ops(lab.rng, 5)
    refused(vm, incremental(vm), "'vda'", "'c1'", vda.path, "backupmode='full'",
            checkpoint=checkpoint_xml("c2"))
    # One disk's trouble stops a job of both; that disk in full does not hinder the other.
    refused(vm, backup_xml([disk_xml("vda"), disk_xml("vdb")], since="c1"), "'vda'", "'c1'")
    series.run("c2", {"vdb": "c1"})
    vm.quit()
    for point in series.points:
        point.verify()


@test
def test_gap_in_the_middle_is_refused(lab: Lab) -> None:
    vm, _ = begun(lab)
    vda, base = vm["vda"], vm["vda"].path
    vm.snapshot(vda)
    middle = vda.path
    vm.snapshot(vda, ["c1"])
    refused(vm, incremental(vm), "'vda'", "'c1'", "gap", middle, "backupmode='full'")
    row = lab.tidemark_json("disks", "--qmp", vm.address)["disks"][0]["checkpoints"][0]
    assert row["name"] == "c1" and not row["usable"] and middle in row["why_not"], row
    assert base != middle


@test
def test_bitmap_that_does_not_record_is_refused(lab: Lab) -> None:
    vm, _ = begun(lab)
    vda = vm["vda"]
    vm.qmp.command("block-dirty-bitmap-disable", node=vda.node, name="c1")
    vm.writer(vda).random_ops(lab.rng, 5)
    refused(vm, incremental(vm), "'vda'", "'c1'", "not recording", "backupmode='full'")
    vm.snapshot(vda, ["c1"])  # below an active one too
    refused(vm, incremental(vm), "'vda'", "'c1'", "not recording")


@test
def test_no_such_bitmap_is_refused(lab: Lab) -> None:
    vm, _ = begun(lab, "vda", "vdb")
    refused(vm, incremental(vm, "vdb", "other"), "'vdb'", "'other'", "backupmode='full'")
    # The description alone is not enough: here the bitmap was removed behind its back.
    vm.qmp.command("block-dirty-bitmap-remove", node=vm["vdb"].node, name="c1")
    refused(vm, incremental(vm, "vdb"), "'vdb'", "'c1'", "backupmode='full'")


@test
def test_inconsistent_after_a_crash(lab: Lab) -> None:
    """SIGKILL of QEMU: refused for that disk, in full it works beside an incremental of another,
    and `checkpoint delete` removes what is left."""
    vm, _ = begun(lab)
    vda, vdb = vm["vda"], lab.disk("vdb", "16M")
    vm.restart()  # now c1 is in use by QEMU, and stored as such
    vm.writer(vda).random_ops(lab.rng, 5)
    vm.kill()
    vm.disks.append(vdb)
    vm.start()
    assert vm.bitmaps(vda)["c1"].get("inconsistent"), vm.bitmaps(vda)
    refused(vm, incremental(vm), "'vda'", "'c1'", "inconsistent", "checkpoint delete c1")
    rows = lab.tidemark_json("checkpoint", "list", "--qmp", vm.address)["checkpoints"]
    assert [row["disks"][0]["usable"] for row in rows if row["name"] == "c1"] == [False], rows
    lab.tidemark("checkpoint", "create", "--qmp", vm.address, "c2",)
    vm.writer(vdb).random_ops(lab.rng, 10)
    document = backup_xml([disk_xml("vda", lab.path("a.qcow2"), mode="full"),
                           disk_xml("vdb", lab.path("b.qcow2"), since="c2")])
    # What the crash left of the disk is not known to the model: the image itself is the truth.
    vm.writer(vda).flush()
    truth = lab.raw(vda.path, shared=True)
    push(vm, document, checkpoint=checkpoint_xml("c3"))
    lab.tool("qemu-img", "compare", "-f", "qcow2", "-F", "raw", lab.path("a.qcow2"), truth)
    lab.compare(lab.path("b.qcow2"), vdb.model)  # all that vdb has was written since c2
    lab.tidemark("checkpoint", "delete", "--qmp", vm.address, "c1")
    assert set(vm.bitmaps(vda)) == {"c2", "c3"}, vm.bitmaps(vda)
    lab.tidemark("checkpoint", "create", "--qmp", vm.address, "c1")
    assert not vm.bitmaps(vda)["c1"].get("inconsistent")


@test
def test_inconsistent_below_a_snapshot(lab: Lab) -> None:
    """The crash hit the top image only; the bitmap below it is whole, and of no use."""
    vm, _ = begun(lab)
    vda = vm["vda"]
    vm.snapshot(vda, ["c1"])
    top = Disk("vda", vda.path, vda.model, node="vda-fmt",
               options={"backing": {"driver": "qcow2", "node-name": "vda-below", "file": {
                   "driver": "file", "filename": lab.path("vda.qcow2")}}})
    vm.quit()
    vm.disks[0] = top
    vm.start()
    vm.kill()
    vm.start()
    refused(vm, incremental(vm), "'vda'", "'c1'", "inconsistent")
    lab.tidemark("checkpoint", "delete", "--qmp", vm.address, "c1")
    assert not vm.bitmaps(top) and not vm.bitmaps("vda-below"), vm.inventory()


main()
