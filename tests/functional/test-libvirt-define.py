# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: a domain of libvirt's that is lost comes back from a point as it was and starts; with a
name of its own it starts beside the one that was backed up; where one of that name is there,
nothing is restored; and what the new domain does not have is said."""
from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ElementTree

from lab import Lab, main, test
from repository import Repository, check_words
from virt import Libvirt, VirtVm

SIZE = 8 << 20


def document(host: Libvirt, name: str) -> ElementTree.Element:
    return ElementTree.fromstring(host.virsh("dumpxml", "--inactive", name).out)


def sources(document: ElementTree.Element) -> dict[str, tuple]:
    """Of each disk: its image and format."""
    return {disk.find("target").get("dev"): (disk.find("source").get("file"),
                                             disk.find("driver").get("type"))
            for disk in document.iter("disk")}


def make(lab: Lab, host: Libvirt) -> VirtVm:
    vm = host.vm([lab.disk("vda", SIZE), lab.disk("sdb", SIZE, bus="scsi", fmt="raw")],
                 name="one")
    vm.change(20)
    return vm


@test
def test_lost_and_back(lab: Lab) -> None:
    host = Libvirt(lab)
    vm = make(lab, host)
    repo = Repository(lab)
    point = repo.backup(vm)
    was = document(host, "one")
    result = lab.tidemark("restore", "-r", repo.path, point.id, "--to", lab.path("no"),
                          "--define", "-c", host.uri, rc=1)
    check_words(result.err, "libvirt has a domain 'one' already", "--name", "nothing was restored")
    assert not os.path.exists(lab.path("no"))
    vm.quit()
    vm.virsh("undefine", "--checkpoints-metadata")
    for disk in vm.disks:
        os.unlink(disk.path)
    to = lab.path("to")
    report = lab.tidemark_json("restore", "-r", repo.path, point.id, "--to", to, "--define", "-c",
                               host.uri)
    assert report["domain"] == "one"
    now = document(host, "one")
    assert sources(now) == {"vda": (f"{to}/vda.qcow2", "qcow2"), "sdb": (f"{to}/sdb.qcow2", "qcow2")}
    for path in ("uuid", "memory", "vcpu", "os/type"):
        assert now.findtext(path) == was.findtext(path)
    assert [disk.find("target").attrib for disk in now.iter("disk")] \
        == [disk.find("target").attrib for disk in was.iter("disk")]
    host.virsh("start", "one")
    assert vm.state() == "running"
    for disk in vm.disks:
        lab.compare(f"{to}/{disk.name}.qcow2", point.models[disk.name], shared=True)
    host.virsh("destroy", "one")


@test
def test_beside(lab: Lab) -> None:
    """Both run at once; the new one has none of what two cannot have."""
    host = Libvirt(lab)
    mac = "52:54:00:aa:bb:cc"
    extra = lab.path("extra.qcow2")
    lab.create(extra, "1M")
    os.chmod(extra, 0o666)
    vm = host.vm([lab.disk("vda", SIZE)], name="one", devices=(
        f"<interface type='user'><mac address='{mac}'/></interface>"
        f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
        f"<source file='{extra}'/><target dev='vdz' bus='virtio'/></disk>"))
    vm.change(20)
    repo = Repository(lab)
    point = repo.backup(vm, "--exclude", "vdz")
    to = lab.path("to")
    result = lab.tidemark("restore", "-r", repo.path, point.id, "--to", to, "--format", "raw",
                          "--define", "-c", host.uri, "--name", "two & more", rc=3)
    assert "disk 'vdz' was not restored: the new domain does not have it" in result.err, result.err
    now, was = document(host, "two & more"), document(host, "one")
    assert sources(now) == {"vda": (f"{to}/vda.raw", "raw")}
    assert now.findtext("uuid") != was.findtext("uuid")
    assert now.find("devices/interface/mac").get("address") != mac
    host.virsh("start", "two & more")
    assert {vm.state(), host.virsh("domstate", "two & more").out.strip()} == {"running"}
    host.virsh("destroy", "two & more")
    lab.compare(f"{to}/vda.raw", point.models["vda"], "raw")
    vm.compare(vm.disks[0])
    # Once more is once too often.
    result = lab.tidemark("restore", "-r", repo.path, point.id, "--to", lab.path("again"),
                          "--define", "-c", host.uri, "--name", "two & more", rc=1)
    check_words(result.err, "already")
    assert not os.path.exists(lab.path("again"))


@test
def test_by_libvirts_schema(lab: Lab) -> None:
    """What the unit tests expect of rewriting is a domain by libvirt's own schema too. Only later ones
    know where a TPM's state is."""
    lab.need("virt-xml-validate")
    folder = os.path.join(os.environ["TMK_SOURCE_ROOT"], "tests/unit/data/xml")
    goldens = [name for name in os.listdir(folder) if name.startswith("rewrite.")]
    assert len(goldens) == 5, goldens
    for name in goldens:
        with open(os.path.join(folder, name), encoding="utf-8") as golden:
            text = re.sub("<source type='[a-z]+' path='[^']*'/>", "", golden.read())
        lab.tool("virt-xml-validate", lab.file(name, text), "domain")


@test
def test_no_document(lab: Lab) -> None:
    disk = lab.disk("vda", SIZE)
    host = Libvirt(lab)
    repo = Repository(lab)
    point = repo.backup_images([disk], "--name", "x")
    result = lab.tidemark("restore", "-r", repo.path, point.id, "--to", lab.path("to"), "--define",
                          "-c", host.uri, rc=1)
    check_words(result.err, "has no <domain> document")
    assert not os.path.exists(lab.path("to"))
    for wrong in (["--name", "x"], ["-c", "qemu:///system"], ["--define", "--disk", "vda"]):
        lab.tidemark("restore", "-r", repo.path, point.id, "--to", lab.path("to"), *wrong, rc=2)


main()
