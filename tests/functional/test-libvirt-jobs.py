# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: begin, status, wait, end and abort run libvirt's jobs as documents describe them: pushes
and pulls, of qcow2 and raw disks, in files and on devices, into new images and given ones, in full
and since a checkpoint. What is read or written is the disk at the instant of begin; virsh sees the
same job and the same checkpoints; nothing is left."""
from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree

from backup import Series, backup_xml, checkpoint_xml, disk_xml
from lab import Disk, Lab, Skip, main, test
from pull import Pull, pull_disk, pull_document, unix_server
from push import push, refused
from virt import Libvirt, VirtVm

SIZE = 8 << 20


def loop(lab: Lab, path: str) -> str:
    """A block device of a file."""
    made = lab.tool("losetup", "-f", "--show", path, check=False)
    if made.rc != 0:
        raise Skip(f"no loop device: {made.err.strip()}")
    device = made.out.strip()
    lab.on_close(lambda: lab.tool("losetup", "-d", device, check=False))
    return device


def on_device(lab: Lab, name: str, fmt: str) -> Disk:
    disk = lab.disk(name, SIZE, fmt=fmt)
    with open(disk.path, "ab") as image:
        image.truncate(2 * SIZE if fmt == "qcow2" else SIZE)
    disk.path = loop(lab, disk.path)
    return disk


def scene(lab: Lab) -> VirtVm:
    """Every kind of a disk: qcow2 and raw, in files and on devices."""
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE, fmt="raw"),
                          on_device(lab, "vdc", "qcow2"), on_device(lab, "vdd", "raw")])
    vm.change(10)
    return vm


def snapshots(vm: VirtVm) -> dict:
    return {disk.name: disk.model.snapshot() for disk in vm.disks}


@test(timeout=180)
def test_pull_of_every_kind(lab: Lab) -> None:
    """In full, then those that can since a checkpoint, with names of their own."""
    vm = scene(lab)
    pull = Pull(lab, vm)
    models = snapshots(vm)
    pull.run([pull_disk(disk.name, pull.scratch(disk.name)) for disk in vm.disks])
    assert "backup" in vm.virsh("domjobinfo").out.lower()
    vm.change()
    for name, model in models.items():
        pull.compare(name, model)
    vm.change()
    pull.end()
    assert not vm.job() and vm.checkpoints() == []

    spare = lab.path("spare.img")
    with open(spare, "wb") as image:
        image.truncate(4 * SIZE)
    models = snapshots(vm)
    names = ["vda", "vdc"]
    aligned = pull.run([pull_disk("vda", pull.scratch("vda")),
                        pull_disk("vdc", loop(lab, spare), kind="block")], checkpoint="monday",
                       recorded=names).out
    assert [disk.get("name") for disk in ElementTree.fromstring(aligned).iter("disk")
            if disk.get("backup") == "yes"] == names, aligned
    assert vm.checkpoints() == ["monday"]
    for name in names:
        pull.compare(name, models[name])
    pull.end()

    written = {}
    for name in names:
        vm.writer(vm[name]).write(SIZE - (1 << 20), 1 << 16)
        written[name] = (SIZE - (1 << 20), SIZE - (1 << 20) + (1 << 16))
    models = snapshots(vm)
    pull.run([pull_disk(name, pull.scratch(name), since="monday",
                        more=f"exportname='the/{name}' exportbitmap='changed in {name}'")
              for name in names], checkpoint="tuesday", recorded=names)
    status = lab.tidemark_json("status", *vm.domain)
    assert [disk["name"] for disk in status["disks"]] == names, status
    vm.change()
    for name in names:
        pull.compare(f"the/{name}", models[name])
        dirty = pull.dirty(f"the/{name}", f"changed in {name}")
        assert dirty == [written[name]], (dirty, written)
    assert sorted(vm.checkpoints()) == ["monday", "tuesday"]
    pull.end()
    for disk in vm.disks:
        vm.compare(disk)


@test(timeout=180)
def test_push_of_every_kind(lab: Lab) -> None:
    vm = scene(lab)
    spare = lab.path("spare.img")
    with open(spare, "wb") as image:
        image.truncate(4 * SIZE)
    device = loop(lab, spare)
    targets = {"vda": (lab.path("vda.full"), "qcow2"), "vdb": (lab.path("vdb.full"), "raw"),
               "vdc": (device, "qcow2"), "vdd": (lab.path("vdd.full"), "qcow2")}
    models = snapshots(vm)
    push(vm, backup_xml([disk_xml(name, path, fmt=fmt,
                                  kind="block" if path == device else "file")
                         for name, (path, fmt) in targets.items()]),
         checkpoint=checkpoint_xml("monday", ["vda", "vdc"]))
    assert vm.checkpoints() == ["monday"] and vm.checkpoint_disks("monday") == ["vda", "vdc"]
    for name, (path, fmt) in targets.items():
        lab.compare(path, models[name], fmt)

    # What changed since, over a copy of before.
    vm.change()
    models = snapshots(vm)
    images = {}
    for name in ("vda", "vdc"):
        images[name] = lab.path(f"{name}.inc")
        lab.tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", targets[name][0], "-F", "qcow2",
                 images[name], SIZE)
    push(vm, backup_xml([disk_xml(name, path) for name, path in images.items()], since="monday"),
         "--reuse-external", checkpoint=checkpoint_xml("tuesday", ["vda"]))
    for name, path in images.items():
        lab.compare(path, models[name], "qcow2")
    assert vm.checkpoint_disks("tuesday") == ["vda"]


@test(timeout=180)
def test_a_series(lab: Lab) -> None:
    """Pushes while the guest writes, each since the one before, and since older ones."""
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE)])
    series = Series(vm)
    vm.change(10)
    series.run("p1")
    for number in (2, 3, 4):
        vm.change()
        since = f"p{number - 1}"
        for disk in vm.disks:  # libvirt makes images without a backing file for what changed
            lab.tool("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b",
                     series.image(since, disk.name), series.image(f"p{number}", disk.name), SIZE)
        series.run(f"p{number}", {"vda": since, "vdb": since}, "--reuse-external",
                   during=vm.change)
    for point in series.points:
        point.verify()
    assert sorted(vm.checkpoints()) == ["p1", "p2", "p3", "p4"]

    # In the middle one is deleted: what it recorded goes to the one before.
    lab.tidemark("checkpoint", "delete", *vm.domain, "p3")
    assert sorted(vm.checkpoints()) == ["p1", "p2", "p4"]
    vm.change()
    for name, base in (("vda", "p2"), ("vdb", "p4")):
        lab.tool("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b",
                 series.image(base, name), series.image("p5", name), SIZE)
    series.run("p5", {"vda": "p2", "vdb": "p4"}, "--reuse-external")
    for point in series.points:
        point.verify()
    listed = lab.tidemark_json("checkpoint", "list", *vm.domain)
    assert {one["name"] for one in listed["checkpoints"]} == {"p1", "p2", "p4", "p5"}, listed
    lab.tidemark("checkpoint", "delete", *vm.domain, "p1", "--children")
    assert vm.checkpoints() == []
    vm.assert_clean()


@test(timeout=180)
def test_abort(lab: Lab) -> None:
    """Everything is as before begin, the checkpoint included; for virsh's end, too."""
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE)])
    pull = Pull(lab, vm)
    vm.change()
    pull.begin("keep")
    pull.end()
    before = {disk.name: vm.bitmap_names(disk) for disk in vm.disks}
    for since in ({}, {"vda": "keep", "vdb": "keep"}):
        pull.begin("gone", since)
        vm.change()
        pull.abort()
        assert vm.checkpoints() == ["keep"]
        assert before == {disk.name: vm.bitmap_names(disk) for disk in vm.disks}
    models = snapshots(vm)
    pull.begin("other")
    pull.compare("vda", models["vda"])
    said = lab.tidemark("begin", *vm.domain, lab.file("again.xml", "<domainbackup/>"), rc=1).err
    assert "runs already" in said and "hint: " in said, said
    vm.virsh("domjobabort")
    said = lab.tidemark("end", *vm.domain, check=False)
    vm.assert_clean()
    pull.begin("next", {"vda": "keep", "vdb": "keep"})
    vm.change()
    pull.end()
    vm.assert_clean()


@test(timeout=180)
def test_shut_off(lab: Lab) -> None:
    """The same documents, the same checkpoints, while nothing runs."""
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE)])
    pull = Pull(lab, vm)
    vm.change()
    pull.begin("p1")
    pull.end()
    vm.change()
    vm.quit()
    vm.change()
    models = snapshots(vm)
    pull.run([pull_disk(disk.name, since="p1") for disk in vm.disks], checkpoint="p2")
    for disk in vm.disks:
        pull.compare(disk.name, models[disk.name])
    assert vm.virsh("start", check=False).rc != 0, "started while its images are read"
    lab.tidemark("end", *vm.domain)
    assert sorted(vm.checkpoints()) == ["p1", "p2"]
    assert not os.path.exists(pull.socket)
    vm.change()
    images = {}
    for disk in vm.disks:
        images[disk.name] = lab.path(f"{disk.name}.push")
    document = lab.file("push.xml", backup_xml([disk_xml(n, p) for n, p in images.items()]))
    lab.tidemark("begin", *vm.domain, document)
    lab.tidemark("wait", *vm.domain)
    for disk in vm.disks:
        lab.compare(images[disk.name], disk.model, "qcow2")
    vm.start()
    vm.change()
    models = snapshots(vm)
    pull.begin("p3", {"vda": "p2", "vdb": "p1"})
    for name, model in models.items():
        pull.compare(name, model)
    pull.end()
    assert sorted(vm.checkpoints()) == ["p1", "p2", "p3"]
    lab.tidemark("checkpoint", "delete", *vm.domain, "p2")
    assert all(vm.bitmap_names(disk) == ["p1", "p3"] for disk in vm.disks)


@test(timeout=120)
def test_changed_while_shut_off(lab: Lab) -> None:
    """A job of a domain that is shut off is seen, read and ended though the domain has got other
    disks meanwhile. Only another one waits for its end."""
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE)])
    pull = Pull(lab, vm)
    vm.quit()
    vm.change()
    old, new = vm.disks[1], lab.disk("vdc", SIZE)
    for number, verb in enumerate(("end", "abort")):
        models = snapshots(vm)
        pull.run([], checkpoint=f"c{number}")
        disks = lab.tidemark_json("status", *vm.domain)["disks"]
        for _ in range(2):
            status = lab.tidemark_json("status", *vm.domain)
            assert status["state"] == "running" and status["disks"] == disks, status
            for name, model in models.items():
                pull.compare(name, model)
            vm.plug(new)
            vm.unplug(old)
            old, new = new, old
        said = lab.tidemark("begin", *vm.domain, lab.file("b.xml", "<domainbackup/>"), rc=1).err
        assert "a backup job runs" in said, said
        vm.plug(new)
        said = lab.tidemark("begin", *vm.domain, lab.file("b.xml", "<domainbackup/>"), rc=1).err
        assert "runs on other images" in said and "tidemark end" in said, said
        lab.tidemark(verb, *vm.domain)
        assert not os.path.exists(pull.socket)
        vm.unplug(new)
        assert vm.checkpoints() == ["c0"]
        for disk in vm.disks:
            assert vm.bitmap_names(disk) == ["c0"]
            lab.check_image(disk.path)
    vm.start()


@test(timeout=180)
def test_refused(lab: Lab) -> None:
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE)])
    here = lab.file("there.img", "the user's")
    image = lab.path("new.img")
    push(vm, backup_xml([disk_xml("vda", image)]), checkpoint=checkpoint_xml("c1"))
    refused(vm, backup_xml([disk_xml("vda", here)]), "vda", here, "exists")
    refused(vm, backup_xml([disk_xml("vda", lab.path("none"))]), "vda", "none",
            options=("--reuse-external",))
    refused(vm, backup_xml([disk_xml("vdx", lab.path("x"))]), "vdx")
    refused(vm, backup_xml([disk_xml("vda", lab.path("x"), since="nobody")]), "vda", "nobody")
    refused(vm, backup_xml([disk_xml("vda", lab.path("x"))]), "c1", "already",
            checkpoint=checkpoint_xml("c1"))
    refused(vm, backup_xml([disk_xml("vda", lab.path("x"))]), "bandwidth",
            options=("--bandwidth", "1M"))
    refused(vm, backup_xml([disk_xml("vda", "/no/such/folder/x")]), "/no/such/folder")
    refused(vm, backup_xml([disk_xml("vda", "/dev/not/there", kind="block")]), "/dev/not/there")
    with open(here, encoding="utf-8") as file:
        assert file.read() == "the user's"
    assert vm.checkpoints() == ["c1"]
    vm.virsh("checkpoint-delete", "c1")
    vm.assert_clean()


@test(timeout=120)
def test_not_onto_a_disk_of_its_own(lab: Lab) -> None:
    """A target or scratch that is a disk of the domain, or one of another target, by any name."""
    below = lab.disk("below", SIZE)
    lab.writer(below).random_ops(lab.rng, 10)
    overlay = lab.path("vda.qcow2")
    lab.tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", below.path, "-F", "qcow2", overlay)
    vda = Disk("vda", overlay, below.model.snapshot())
    vm = Libvirt(lab).vm([vda, on_device(lab, "vdb", "qcow2")])
    vm.change()
    link, hard = lab.path("link"), lab.path("hard")
    os.symlink(overlay, link)
    os.link(overlay, hard)
    reuse = ("--reuse-external",)
    for path in (overlay, link, hard, below.path, f"{lab.dir}/./vda.qcow2"):
        refused(vm, backup_xml([disk_xml("vdb", path)]), "vdb", options=reuse)
        refused(vm, backup_xml([disk_xml("vda", path)]), "vda", options=reuse)
        refused(vm, pull_document(unix_server(Pull(lab, vm).socket), [pull_disk("vdb", path)]),
                "vdb", options=reuse)
    for options in ((), reuse):
        refused(vm, backup_xml([disk_xml("vda", vm["vdb"].path, kind="block")]), "vda",
                options=options)
    twice = lab.path("twice.qcow2")
    refused(vm, backup_xml([disk_xml("vda", twice), disk_xml("vdb", twice)]), "twice.qcow2")
    for disk in vm.disks:
        vm.compare(disk)
    lab.compare(below.path, below.model)


main()
