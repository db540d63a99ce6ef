#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: whatever way QEMU was given its disks, and wherever its monitor is, the right disks are
found under the right names, and a full and an incremental push of each equal the disk."""
import json
import os
import re
import shutil
import socket

from backup import Series, backup_xml, checkpoint_xml, disk_xml
from lab import Disk, Guest, Lab, Skip, Vm, main, test
from push import push, refused


def full_and_incremental(vm: Vm, count: int = 12) -> None:
    """Two pushes of all disks of the machine, with writes before, between and after."""
    series = Series(vm)
    for name, since in (("c1", {}), ("c2", {disk.name: "c1" for disk in vm.disks})):
        for disk in vm.disks:
            vm.writer(disk).random_ops(vm.lab.rng, count)
        series.run(name, since)
    for disk in vm.disks:
        vm.writer(disk).random_ops(vm.lab.rng, count)
    vm.quit()
    for point in series.points:
        point.verify()


def names(vm: Vm, *options: str) -> dict[str, dict]:
    """`tidemark disks`: name → row."""
    rows = vm.lab.tidemark_json("disks", "--qmp", vm.address, *options)["disks"]
    assert len({row["name"] for row in rows}) == len(rows), rows
    return {row["name"]: row for row in rows}


@test
def test_drives_with_auto_node_names(lab: Lab) -> None:
    vda, vdb = lab.disk("vda", style="drive"), lab.disk("vdb", style="drive-if")
    vm = lab.vm([vda, vdb])
    assert vm.node(vda).startswith("#block") and set(names(vm)) == {"vda", "vdb"}
    full_and_incremental(vm)


@test
def test_drive_with_copy_on_read_and_throttling(lab: Lab) -> None:
    """-drive copy-on-read=on puts a filter above the format node; throttling limits the device."""
    base = lab.path("base.qcow2")
    vda = lab.disk("vda", path=base)
    lab.writer(vda).random_ops(lab.rng, 10)
    top = lab.create(lab.path("top.qcow2"), None, "qcow2", "-b", base, "-F", "qcow2")
    vda = Disk("vda", top, vda.model, style="drive",
               options={"copy-on-read": "on", "throttling.iops-total": 5000})
    vm = lab.vm([vda])
    assert names(vm)["vda"]["format"] == "qcow2"
    full_and_incremental(vm)


@test
def test_filters_above_the_format_node(lab: Lab) -> None:
    """throttle and copy-on-read nodes: the checkpoint belongs below them."""
    vda = lab.disk("vda")
    vda.node = "vda-cor"
    extra = ["-object", "throttle-group,id=tg0,x-iops-total=5000"]
    stack = {"driver": "copy-on-read", "node-name": "vda-cor", "file": {
        "driver": "throttle", "throttle-group": "tg0", "node-name": "vda-throttle", "file": {
            **vda.blockdev(), "node-name": "vda-fmt"}}}
    vda.blockdev = lambda: stack
    vm = lab.vm([vda], extra=extra)
    assert names(vm)["vda"]["node"] == "vda-fmt"
    full_and_incremental(vm)


@test
def test_buses(lab: Lab) -> None:
    disks = [lab.disk(name, "16M", bus=bus) for name, bus in
             (("vda", "virtio"), ("sda", "scsi"), ("hda", "ide"), ("vdn", "nvme"))]
    vm = lab.vm(disks)
    rows = names(vm)
    assert set(rows) == {"vda", "sda", "hda", "vdn"}, rows
    assert not any(row["iothread"] for row in rows.values())
    full_and_incremental(vm, 8)


@test
def test_iothreads(lab: Lab) -> None:
    disks = [lab.disk("vda", "32M", iothread=True), lab.disk("sda", "32M", bus="scsi",
                                                            iothread=True),
             lab.disk("vdb", "32M")]
    vm = lab.vm(disks, guest=Guest(slots=256))
    rows = names(vm)
    assert [rows[disk.name]["iothread"] for disk in disks] == [True, True, False], rows
    series = Series(vm)
    series.run("c1")
    vm.guest.wait(30)
    series.run("c2", {disk.name: "c1" for disk in disks})
    vm.guest.wait(30)
    vm.quit()
    heads = [vm.guest.check_cut([lab.raw(point.images[disk.name]) for disk in disks]).heads[0]
             for point in series.points]
    assert heads[0] < heads[1], heads


@test
def test_default_document_takes_the_right_disks(lab: Lab) -> None:
    """<domainbackup/> with a checkpoint: every disk with a medium that is written to, into
    SOURCE.SUFFIX; not the cdroms, the read-only disk, the one with snapshot=on, the firmware."""
    lab.tool("truncate", "-s", "4M", lab.path("medium.iso"))
    lab.tool("truncate", "-s", "4M", lab.path("firmware.fd"))
    for name in ("ro", "thrown"):
        lab.create(lab.path(f"{name}.qcow2"), "8M")
    extra = ["-device", "ide-cd,id=hdc,bus=ide.0",
             "-drive", f"if=none,id=medium,media=cdrom,file={lab.path('medium.iso')},format=raw",
             "-device", "ide-cd,id=hdd,drive=medium,bus=ide.1",
             "-drive", f"if=none,id=ro0,readonly=on,file={lab.path('ro.qcow2')},format=qcow2",
             "-device", "virtio-blk-pci,id=vdr,drive=ro0",
             "-drive", f"if=none,id=t0,snapshot=on,file={lab.path('thrown.qcow2')},format=qcow2",
             "-device", "virtio-blk-pci,id=vdt,drive=t0",
             "-drive", f"if=pflash,file={lab.path('firmware.fd')},format=raw"]
    vda, vdb = lab.disk("vda", "16M"), lab.disk("vdb", "16M", fmt="raw")
    vm = lab.vm([vda, vdb], paused=True, extra=extra)
    rows = names(vm)
    why = {name: row["why_not"] for name, row in rows.items() if not row["eligible"]}
    assert set(rows) - set(why) == {"vda", "vdb"}, rows
    assert "empty" in why["hdc"] and "removable" in why["hdd"] and "read-only" in why["vdr"], why
    assert "snapshot=on" in why["vdt"] and "firmware" in why["pflash0"], why
    for disk in vm.disks:
        vm.writer(disk).random_ops(lab.rng, 10)
    result = push(vm, "<domainbackup/>", checkpoint=checkpoint_xml("first"))
    taken = re.findall(r"<disk name='(\w+)' backup='yes'", result.out)
    assert taken == ["vda", "vdb"], result.out
    assert f"<target file='{vda.path}.first'/>" in result.out, result.out
    lab.compare(f"{vda.path}.first", vda.model)
    lab.compare(f"{vdb.path}.first", vdb.model)
    # Asked for by name each of the others is refused, with the reason.
    for name, reason in {"hdd": "removable", "vdr": "read-only", "vdt": "snapshot=on",
                         "hdc": "no medium"}.items():
        refused(vm, backup_xml([disk_xml(name, lab.path("never.qcow2"))]), f"'{name}'", reason)


@test
def test_blockdev_firmware_is_no_disk(lab: Lab) -> None:
    lab.tool("truncate", "-s", "4M", lab.path("firmware.fd"))
    node = {"driver": "raw", "node-name": "fw", "file": {"driver": "file",
                                                          "filename": lab.path("firmware.fd")}}
    vda = lab.disk("vda", "8M")
    vm = lab.vm([vda], paused=True, extra=["-blockdev", json.dumps(node),
                                           "-machine", "pflash0=fw"])
    push(vm, "<domainbackup/>", checkpoint=checkpoint_xml("c1"))
    lab.compare(f"{vda.path}.c1", vda.model)
    assert not os.path.exists(lab.path("firmware.fd.c1"))


@test
def test_devices_without_ids(lab: Lab) -> None:
    """Without any id a disk is called by its node, which QEMU may have named '#block123'."""
    base = lab.path("base.qcow2")
    vda = lab.disk("device[0]", "16M", path=base)  # as in QOM, where the writer looks
    top = lab.create(lab.path("top.qcow2"), None, "qcow2", "-b", base, "-F", "qcow2")
    node = {"driver": "qcow2", "node-name": "mine", "discard": "unmap",
            "file": {"driver": "file", "filename": top}}
    vm = lab.vm([], extra=["-blockdev", json.dumps(node), "-device", "virtio-blk-pci,drive=mine"])
    assert set(names(vm)) == {"mine"}
    vm.writer(vda).random_ops(lab.rng, 8)
    # An active commit leaves the device on the base, whose node QEMU made.
    vm.qmp.command("block-commit", job_id="commit", device="mine")
    vm.qmp.wait_event("BLOCK_JOB_READY", device="commit")
    vm.qmp.command("job-complete", id="commit")
    vm.qmp.wait_job("commit")
    (name,) = names(vm)
    assert name.startswith("#block"), name
    vm.writer(vda).random_ops(lab.rng, 8)
    push(vm, "<domainbackup/>", checkpoint=checkpoint_xml("c1"))
    lab.compare(f"{base}.c1", vda.model)


LIBVIRT = {"virtio-disk0": "vda", "scsi0-0-0-1": "sdb", "ide0-1-0": "hdc", "ua-mine": "mine"}


@test
def test_libvirt_aliases_and_domain_xml(lab: Lab) -> None:
    """Ids as libvirt makes them are called by their targets; --domain-xml maps by alias first,
    then by the active image's path."""
    disks = [lab.disk(alias, "8M", bus=bus, node=f"libvirt-{number}-format")
             for number, (alias, bus) in enumerate(zip(LIBVIRT, ("virtio", "scsi", "ide",
                                                                 "virtio")), 1)]
    vm = lab.vm(disks)
    assert set(names(vm)) == set(LIBVIRT.values()), names(vm)
    xml = lab.file("domain.xml", f"""
        <domain type='kvm'><name>g</name><uuid>{vm.uuid}</uuid><devices>
        <disk type='file' device='disk'><source file='/elsewhere.qcow2'/>
          <target dev='vdx'/><alias name='virtio-disk0'/></disk>
        <disk type='file' device='disk'><source file='{disks[1].path}'/><target dev='sdy'/></disk>
        </devices></domain>""")
    rows = names(vm, "--domain-xml", xml)
    assert set(rows) == {"vdx", "sdy", "hdc", "mine"}, rows
    assert rows["vdx"]["source"] == disks[0].path and rows["sdy"]["source"] == disks[1].path
    vm.writer(disks[0]).random_ops(lab.rng, 8)
    document = backup_xml([disk_xml("vdx", lab.path("vdx.qcow2"))])
    push(vm, document, "--domain-xml", xml, checkpoint=checkpoint_xml("c1", ["vdx"]))
    lab.compare(lab.path("vdx.qcow2"), disks[0].model)


@test
def test_names_are_unique(lab: Lab) -> None:
    """Two aliases may stand for one target (a scsi and a sata disk), and a domain's target may be
    another disk's id: no two disks may be called the same, or the wrong one would be copied."""
    one = lab.disk("scsi0-0-0-0", "8M", bus="scsi")
    two = lab.disk("sata0-0-0", "16M", bus="ide")
    three = lab.disk("vdx", "24M")
    vm = lab.vm([one, two, three])
    rows = names(vm)
    assert {row["source"] for row in rows.values()} == {disk.path for disk in vm.disks}
    xml = lab.file("domain.xml", f"""
        <domain type='kvm'><name>g</name><uuid>{vm.uuid}</uuid><devices>
        <disk type='file' device='disk'><source file='{one.path}'/><target dev='vdx'/></disk>
        </devices></domain>""")
    rows = names(vm, "--domain-xml", xml)
    assert rows["vdx"]["source"] == one.path, rows


@test
def test_paused_machine_stays_paused(lab: Lab) -> None:
    vda = lab.disk("vda", "16M")
    vm = lab.vm([vda], paused=True)
    full_and_incremental_paused(vm)


def full_and_incremental_paused(vm: Vm) -> None:
    vda, series = vm["vda"], Series(vm)
    vm.writer(vda).random_ops(vm.lab.rng, 10)
    series.run("c1")
    assert vm.status() == "prelaunch"
    vm.cont()
    vm.stop()
    vm.writer(vda).random_ops(vm.lab.rng, 10)
    series.run("c2", {"vda": "c1"})
    assert vm.status() == "paused"
    vm.quit()
    for point in series.points:
        point.verify()


@test
def test_tcp_monitor(lab: Lab) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    vda = lab.disk("vda", "16M")
    vm = lab.vm([vda], extra=["-qmp", f"tcp:127.0.0.1:{port},server=on,wait=off"])
    address = f"tcp:127.0.0.1:{port}"
    vm.writer(vda).random_ops(lab.rng, 10)
    push(vm, backup_xml([disk_xml("vda", lab.path("a.qcow2"))]), address=address,
         checkpoint=checkpoint_xml("c1"))
    vm.writer(vda).random_ops(lab.rng, 10)
    push(vm, backup_xml([disk_xml("vda", lab.path("b.qcow2"), since="c1")]), address=address)
    lab.compare(lab.path("b.qcow2"), vda.model)


@test
def test_long_socket_path(lab: Lab) -> None:
    """Longer than a socket's address may be (108 bytes)."""
    folder = lab.path("/".join(["d" * 50] * 4))
    os.makedirs(folder)
    os.symlink(folder, f"{lab.sockets}/short")
    vda = lab.disk("vda", "8M")
    vm = lab.vm([vda], extra=["-qmp", f"unix:{lab.sockets}/short/m.qmp,server=on,wait=off"])
    vm.writer(vda).random_ops(lab.rng, 5)
    push(vm, backup_xml([disk_xml("vda", lab.path("a.qcow2"))]), address=f"{folder}/m.qmp",
         checkpoint=checkpoint_xml("c1"))
    lab.compare(lab.path("a.qcow2"), vda.model)


@test
def test_qemu_of_another_user(lab: Lab) -> None:
    """QEMU drops its privileges after its monitor listens: targets must be the user's it has."""
    if os.geteuid() != 0:
        raise Skip("not root")
    vda = lab.disk("vda", "16M")
    os.chmod(lab.dir, 0o777)
    shutil.chown(vda.path, "nobody", "nogroup")
    other = ["-runas", "nobody"] if lab.qemu_version() < (10, 0) else ["-run-with", "user=nobody"]
    vm = lab.vm([vda], extra=other)
    with open(f"/proc/{vm.pid}/status", encoding="utf-8") as status:
        uid = int(re.search(r"^Uid:\s+\d+\s+(\d+)", status.read(), re.M)[1])
    assert uid != 0
    folder = lab.path("out")
    os.mkdir(folder)
    for number, fmt in enumerate(("qcow2", "raw")):
        vm.writer(vda).random_ops(lab.rng, 8)
        target = f"{folder}/{fmt}"
        push(vm, backup_xml([disk_xml("vda", target, fmt=fmt)]),
             checkpoint=checkpoint_xml(f"c{number}"))
        found = os.stat(target)
        assert (found.st_uid, found.st_mode & 0o777) == (uid, 0o600), found
        lab.compare(target, vda.model, fmt)


main()
