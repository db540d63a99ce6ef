#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: a disk that was resized since a checkpoint is backed up right or not at all."""
from backup import Series, backup_xml, checkpoint_xml, disk_xml
from lab import Lab, main, test
from push import refused

MIB = 1 << 20


@test
def test_grown(lab: Lab) -> None:
    """The incremental has the new size and equals the disk; so do odd sizes, which end within a
    cluster and within a bitmap's granule."""
    vda = lab.disk("vda", 16 * MIB + 512)
    vm = lab.vm([vda])
    series = Series(vm)
    vm.writer(vda).random_ops(lab.rng, 15)
    vm.writer(vda).write(16 * MIB - 512, 1024, 0x77)
    series.run("c1")
    vm.resize(vda, 24 * MIB + 1024)
    vm.writer(vda).random_ops(lab.rng, 15)
    series.run("c2", {"vda": "c1"})
    vm.resize(vda, 40 * MIB)
    series.run("c3", {"vda": "c2"})
    vm.writer(vda).write(16 * MIB, 512, 0x11)
    series.run("c4", {"vda": "c3"})
    series.run("c5", {"vda": "c1"})
    vm.quit()
    for point in series.points:
        point.verify()


@test
def test_shrunk(lab: Lab) -> None:
    vda = lab.disk("vda", 32 * MIB)
    vm = lab.vm([vda])
    series = Series(vm)
    vm.writer(vda).write(0, 32 * MIB, 0x31)
    series.run("c1")
    vm.resize(vda, 16 * MIB)
    document = backup_xml([disk_xml("vda", lab.path("never.qcow2"), since="c1")])
    refused(vm, document, "'vda'", "shrunk", str(32 * MIB), str(16 * MIB), "backupmode='full'")
    series.run("c2")
    # Grown again, what was cut off reads as zeroes, which c1 has not recorded. Its own size is the
    # disk's again; that c2 is smaller tells.
    vm.resize(vda, 32 * MIB)
    refused(vm, document, "'vda'", "'c1'", "shrunk", "backupmode='full'")
    series.run("c3", {"vda": "c2"})
    vm.quit()
    for point in series.points:
        point.verify()


@test
def test_grown_in_a_chain(lab: Lab) -> None:
    """QEMU joins bitmaps of one size only: refused with that reason, and nothing is changed."""
    vda = lab.disk("vda", 16 * MIB)
    vm = lab.vm([vda])
    series = Series(vm)
    vm.writer(vda).random_ops(lab.rng, 10)
    series.run("c1")
    vm.snapshot(vda, ["c1"])
    vm.resize(vda, 24 * MIB)
    vm.writer(vda).random_ops(lab.rng, 10)
    refused(vm, backup_xml([disk_xml("vda", lab.path("never.qcow2"), since="c1")]), "'vda'",
            "'c1'", "another size", "backupmode='full'", checkpoint=checkpoint_xml("c2"))
    series.run("c2")
    vm.writer(vda).random_ops(lab.rng, 10)
    series.run("c3", {"vda": "c2"})
    vm.quit()
    for point in series.points:
        point.verify()


@test
def test_snapshot_of_a_smaller_disk(lab: Lab) -> None:
    """A checkpoint on the larger top only has nothing to do with what is below."""
    vda = lab.disk("vda", 16 * MIB)
    vm = lab.vm([vda])
    vm.writer(vda).random_ops(lab.rng, 10)
    vm.snapshot(vda)
    vm.resize(vda, 20 * MIB)
    series = Series(vm)
    series.run("c1")
    vm.writer(vda).random_ops(lab.rng, 10)
    series.run("c2", {"vda": "c1"})
    vm.quit()
    for point in series.points:
        point.verify()


main()
