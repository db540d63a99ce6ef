# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: what cannot be done with a domain of libvirt's is refused with its reason and what to do,
and nothing is changed: no connection, no permission, no domain, no disks. Disks of kinds that
cannot be backed up are named and left out; the others are exact. A scratch that runs full costs the
backup, not the guest. Disks in an iothread do not cost the domain its life."""
from __future__ import annotations

import os

from backup import backup_xml, checkpoint_xml, disk_xml
from lab import Guest, Lab, main, test, wait_until
from pull import Pull, pull_disk
from repository import Repository, check_words
from virt import Libvirt

SIZE = 8 << 20


@test
def test_no_libvirt(lab: Lab) -> None:
    """No connection, no permission, no such domain; with a default URI, too."""
    host = Libvirt(lab)
    vm = host.vm([lab.disk("vda", SIZE)], start=False)
    repo = Repository(lab)
    for running in (False, True):
        if running:
            vm.start()
        said = lab.tidemark("disks", "-c", f"qemu+unix:///system?socket={lab.path('no')}", "-d",
                            vm.name, rc=1)
        check_words(said.err, "cannot connect to libvirt", lab.path("no"))
        for verb in (["disks"], ["backup", "-r", repo.path], ["status"], ["end"], ["abort"],
                     ["checkpoint", "list"], ["begin", lab.file("b.xml", "<domainbackup/>")]):
            said = lab.tidemark(*verb[:2 if verb[0] == "checkpoint" else 1], "-c", host.uri, "-d",
                                "nobody", *verb[2 if verb[0] == "checkpoint" else 1:], rc=1)
            check_words(said.err, "nobody")
        for uri in ("nonsense:///", "qemu:///nowhere"):
            check_words(lab.tidemark("disks", "-c", uri, "-d", vm.name, rc=1).err, uri)
        for name in (vm.name, vm.uuid):
            found = lab.tidemark_json("disks", "-c", host.uri, "-d", name)
            assert [disk["name"] for disk in found["disks"]] == ["vda"], found
        # Another user, who may not open the socket.
        said = lab.tool("setpriv", "--reuid=nobody", "--clear-groups", os.environ["TIDEMARK"],
                        "disks", *vm.domain, check=False)
        assert said.rc == 1, said
        check_words(said.err, "denied")
    lab.tidemark("disks", "-c", host.uri, rc=2)
    found = lab.tidemark_json("disks", "-c", "qemu:///system", "-d", vm.name)
    assert [disk["name"] for disk in found["disks"]] == ["vda"], found


@test
def test_no_disks(lab: Lab) -> None:
    host = Libvirt(lab)
    vm = host.vm([], start=False)
    repo = Repository(lab)
    for _ in range(2):
        check_words(lab.tidemark("backup", *vm.domain, "-r", repo.path, rc=1).err, "disk")
        lab.tidemark("disks", *vm.domain, check=False)
        if not vm.alive():
            vm.start()
    assert lab.tidemark_json("list", "-r", repo.path)["points"] == []
    vm.assert_clean()


@test(timeout=120)
def test_disks_of_other_kinds(lab: Lab) -> None:
    """Each is named with the reason why it is left out, running and shut off."""
    host = Libvirt(lab)
    images = {}
    for name in ("sdb", "fda", "sdd", "sde", "sdh"):
        images[name] = lab.create(lab.path(f"{name}.raw"), "1440K", "raw")
    socket = os.path.join(host.monitors, "remote")
    lab.tool_popen("qemu-nbd", "-t", "-f", "raw", "-k", socket, "-e", "4",
                   lab.create(lab.path("remote.raw"), "1M", "raw"))
    wait_until(lambda: os.path.exists(socket))
    host.public(socket)
    devices = f"""
<disk type='file' device='cdrom'><source file='{images['sdb']}'/><target dev='sdb' bus='sata'/>
<readonly/></disk>
<disk type='file' device='cdrom'><target dev='sdc' bus='sata'/><readonly/></disk>
<disk type='file' device='floppy'><driver name='qemu' type='raw'/><source file='{images['fda']}'/>
<target dev='fda' bus='fdc'/></disk>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{images['sdd']}'/>
<target dev='sdd' bus='scsi'/><readonly/></disk>
<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>
<source file='{images['sde']}'/><target dev='sde' bus='scsi'/><shareable/></disk>
<disk type='network' device='disk'><driver name='qemu' type='raw'/>
<source protocol='nbd'><host transport='unix' socket='{socket}'/></source>
<target dev='sdg' bus='scsi'/></disk>"""
    vm = host.vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE, fmt="raw")], devices=devices)
    repo = Repository(lab)
    others = {"sdb", "sdc", "fda", "sdd", "sde"}
    sums = {name: lab.tool("sha256sum", path).out for name, path in images.items()}
    for running in (True, True, False, False, True):
        if running != vm.alive():
            if running:
                vm.start()
            else:
                vm.quit()
        vm.change()
        listed = {disk["name"]: disk for disk in
                  lab.tidemark_json("disks", *vm.domain, "-r", repo.path)["disks"]}
        assert set(listed) >= others | {"vda", "vdb"}, listed
        point = repo.backup(vm, "--exclude", "sdg")
        assert set(point.models) == {"vda", "vdb"}, point.report
        why = dict(one.split(": ", 1) for one in point.report["skipped"])
        assert set(why) >= others and all(why.values()), point.report["skipped"]
    assert repo.points[-1].modes["vda"] == "incremental", repo.points[-1].reasons
    # The network's disk: it is in the point, or named as left out.
    if not vm.alive():
        vm.start()
    report = lab.tidemark_json("backup", *vm.domain, "-r", repo.path, rc=(0, 1, 3))
    assert "sdg" in str(report), report
    for name, before in sums.items():
        assert lab.tool("sha256sum", images[name]).out == before
    for name in ("sdb", "sdc", "sdd", "vdx"):
        said = lab.tidemark("begin", *vm.domain, lab.file("b.xml", backup_xml(
            [disk_xml(name, lab.path("never"))])), rc=1)
        check_words(said.err, f"'{name}'")
    assert not os.path.exists(lab.path("never"))
    repo.check_all()
    vm.assert_clean()


@test
def test_a_transient_domain(lab: Lab) -> None:
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE)], transient=True)
    repo = Repository(lab)
    for mode in ("full", "incremental", "incremental"):
        vm.change()
        repo.backup(vm, rc=0).expect(vda=mode)
        vm.assert_tidy(repo)
    vm.quit()
    check_words(lab.tidemark("backup", *vm.domain, "-r", repo.path, rc=1).err, vm.name)
    # The same again: the bitmap is on the disk, though libvirt has forgotten.
    vm.change()
    vm.start()
    vm.change()
    point = repo.backup(vm)
    vm.assert_tidy(repo)
    vm.change()
    repo.backup(vm, rc=0).expect(vda="incremental")
    assert point.modes["vda"] in ("full", "incremental")
    repo.check_all()


@test
def test_undefined_and_defined_again(lab: Lab) -> None:
    """libvirt has forgotten its checkpoints, the disks have not."""
    host = Libvirt(lab)
    vm = host.vm([lab.disk("vda", SIZE)])
    repo = Repository(lab)
    vm.change()
    repo.backup(vm)
    for running in (True, False):
        vm.change()
        vm.quit()
        host.virsh("undefine", vm.name, "--checkpoints-metadata")
        vm.define()
        if running:
            vm.start()
        vm.change()
        repo.backup(vm)
        vm.assert_tidy(repo)
        vm.change()
        repo.backup(vm, rc=0).expect(vda="incremental")
        vm.assert_tidy(repo)
        if not vm.alive():
            vm.start()
    repo.check_all()


@test(timeout=120)
def test_a_full_scratch(lab: Lab) -> None:
    """The guest goes on, the point is not made, and the next one is exact."""
    host = Libvirt(lab)
    folder = host.public(lab.tmpfs("1M"))
    guest = Guest(slots=512, spacing=65536, pause_us=0)
    vm = host.vm([lab.disk("vda", "32M")], guest=guest)
    repo = Repository(lab)
    guest.wait(600)
    lab.tidemark("backup", *vm.domain, "-r", repo.path, "-q")
    said = lab.tidemark("backup", *vm.domain, "-r", repo.path, "--mode", "full", "--bandwidth",
                        "4M", "--scratch-dir", folder, rc=1, timeout=80)
    check_words(said.err, "vda")
    assert guest.errors() == 0
    vm.assert_clean()
    assert os.listdir(folder) == []
    assert len(lab.tidemark_json("list", "-r", repo.path)["points"]) == 1
    report = lab.tidemark_json("backup", *vm.domain, "-r", repo.path, rc=0)
    assert report["disks"][0]["mode"] == "incremental"
    guest.check_cut([repo.restore(report["point"], "vda", ".raw", "--verify")])


@test(timeout=120)
def test_disks_in_an_iothread(lab: Lab) -> None:
    """A QEMU before 10 aborts when the client of such an export leaves: it never has one."""
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE, iothread=True), lab.disk("vdb", SIZE)])
    repo = Repository(lab)
    pid = vm.pid
    for number in range(3):
        vm.change()
        mode = "incremental" if number else "full"
        repo.backup(vm).expect(vda=mode, vdb=mode)
        assert vm.pid == pid
        vm.assert_tidy(repo)
    pull = Pull(lab, vm)
    models = {disk.name: disk.model.snapshot() for disk in vm.disks}
    pull.begin("p1")
    vm.change()
    for name, model in models.items():
        pull.compare(name, model)
    pull.end()
    image = lab.path("pushed")
    lab.tidemark("begin", *vm.domain, lab.file("b.xml", backup_xml([disk_xml("vda", image)])),
                 lab.file("c.xml", checkpoint_xml("c1", ["vda"])))
    lab.tidemark("wait", *vm.domain)
    lab.compare(image, vm["vda"].model)
    assert vm.pid == pid
    vm.change()
    vm.quit()
    repo.backup(vm).expect(vda="incremental", vdb="incremental")
    repo.check_all()


main()
