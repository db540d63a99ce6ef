# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: disks of libvirt's domains come and go, are left out, get snapshots and templates, and
each is backed up in its own mode with its reason, exactly as it was."""
from __future__ import annotations

from lab import Disk, Lab, main, test
from repository import Repository
from virt import Libvirt

SIZE = 8 << 20
INCREMENTAL = {"vda": "incremental", "vdb": "incremental"}


@test(timeout=180)
def test_disks_come_and_go(lab: Lab) -> None:
    """A disk is plugged in each round, one detached, one left out of the middle point."""
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE)])
    repo = Repository(lab)
    vm.change(10)
    repo.backup(vm, rc=0).expect(vda="full")
    modes = {"vda": "incremental"}
    for name, bus in (("sdb", "scsi"), ("vdc", "virtio"), ("sdd", "scsi")):
        vm.plug(lab.disk(name, SIZE, bus=bus))
        vm.change()
        point = repo.backup(vm).expect(**modes, **{name: "full"})
        assert "new" in point.reasons[name], point.reasons
        vm.assert_tidy(repo)
        modes[name] = "incremental"
    vm.change()
    vm.unplug(vm["sdb"])
    del modes["sdb"]
    repo.backup(vm, rc=0).expect(**modes)
    vm.assert_tidy(repo)

    vm.change()
    repo.backup(vm, "--exclude", "vdc").expect(vda="incremental", sdd="incremental")
    vm.change()
    point = repo.backup(vm).expect(**modes)  # since its own last checkpoint
    vm.assert_tidy(repo)
    vm.quit()  # and what was plugged in is gone with QEMU
    vm.disks = [vm["vda"]]
    vm.change()
    repo.backup(vm).expect(vda="incremental")
    vm.start()
    vm.change()
    repo.backup(vm).expect(vda="incremental")
    repo.check_all()


@test(timeout=180)
def test_snapshots_and_templates(lab: Lab) -> None:
    """External snapshots between backups; an overlay over a template; running and shut off."""
    template = lab.disk("template", SIZE)
    lab.writer(template).random_ops(lab.rng, 20)
    overlay = lab.path("vdb.qcow2")
    lab.tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", template.path, "-F", "qcow2", overlay)
    vdb = Disk("vdb", overlay, template.model.snapshot())
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE), vdb, lab.disk("vdc", SIZE, fmt="raw")])
    repo = Repository(lab)
    vm.change(10)
    point = repo.backup(vm).expect(vda="full", vdb="full", vdc="full")
    for disk in vm.disks:
        for _ in range(2):
            vm.change()
            vm.snapshot(disk)
            vm.change()
            point = repo.backup(vm)
            assert point.modes["vda"] == point.modes["vdb"] == "incremental", point.reasons
            assert point.modes["vdc"] == "full" or disk.name == "vdc", point.reasons
    vm.change()
    point = repo.backup(vm).expect(**INCREMENTAL, vdc="incremental")
    vm.change()
    vm.quit()
    vm.change()
    repo.backup(vm).expect(**INCREMENTAL, vdc="incremental")
    vm.change()
    vm.start()
    vm.change()
    repo.backup(vm).expect(**INCREMENTAL, vdc="incremental")
    repo.check_all()


main()
