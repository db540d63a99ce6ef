# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: block jobs of libvirt's between backups (snapshot, commit, pull, copy, of the active
layer and below) cost at most a full read of that disk: every point is exact, and what libvirt knows
of checkpoints stays what is on the disks. The verbs of checkpoints say what virsh says."""
from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

from backup import checkpoint_xml
from lab import Lab, diag, main, test
from repository import Repository
from virt import Libvirt, VirtVm

SIZE = 8 << 20


class Chain:
    """A domain with a disk that has three layers, the top with the checkpoint of a backup."""

    def __init__(self, lab: Lab) -> None:
        self.vm = Libvirt(lab).vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE)])
        self.repo = Repository(lab)
        self.disk = self.vm["vda"]
        self.layers = [self.disk.path]
        self.vm.change(10)
        self.repo.backup(self.vm)
        self.grow()

    def grow(self) -> None:
        """Up to three layers, all of them written to since the last backup."""
        while len(self.layers) < 3:
            self.vm.change(3)
            self.vm.snapshot(self.disk)
            self.layers.append(self.disk.path)
        self.vm.change(3)

    def virsh(self, verb: str, *options: object) -> None:
        self.vm.virsh(verb, "vda", *options, "--wait")

    def prove(self, what: str) -> None:
        """After the block job; the layers are what libvirt says they are."""
        self.vm.change(3)
        for number in range(2):
            point = self.repo.backup(self.vm)
            diag(f"{what}: {point.modes['vda']}: {point.reasons['vda']}")
            assert point.modes["vdb"] == "incremental", point.reasons
            assert not number or point.modes["vda"] == "incremental", point.reasons
            self.repo.check(point)
            self.vm.change(3)
        self.repo.assert_tidy(self.vm)


@test(timeout=180)
def test_commit(lab: Lab) -> None:
    chain = Chain(lab)
    low, middle, top = chain.layers
    chain.virsh("blockcommit", "--base", low, "--top", middle)
    chain.layers = [low, top]
    chain.prove("middle into base")
    chain.grow()
    low, middle, top = chain.layers
    chain.virsh("blockcommit", "--base", middle, "--active", "--pivot")
    chain.disk.path = middle
    chain.layers = [low, middle]
    chain.prove("active into middle")
    chain.grow()
    chain.virsh("blockcommit", "--active", "--pivot")
    chain.disk.path = low
    chain.layers = [low]
    chain.prove("all into base")
    chain.vm.quit()
    chain.vm.change(3)
    chain.repo.check(chain.repo.backup(chain.vm))
    chain.repo.check_all()


@test(timeout=180)
def test_pull(lab: Lab) -> None:
    chain = Chain(lab)
    low, _, top = chain.layers
    chain.virsh("blockpull", "--base", low)
    chain.layers = [low, top]
    chain.prove("middle into active")
    chain.grow()
    chain.virsh("blockpull")
    chain.layers = [chain.layers[-1]]
    chain.prove("all into active")
    chain.repo.check_all()


@test(timeout=180)
def test_copy(lab: Lab) -> None:
    """The disk moves to a new image, with and without what is below."""
    chain = Chain(lab)
    new = lab.path("copied.qcow2")
    chain.virsh("blockcopy", "--dest", new, "--format", "qcow2", "--transient-job", "--pivot")
    chain.disk.path = new
    chain.layers = [new]
    chain.prove("full copy")
    chain.grow()
    shallow = chain.vm.host.public(lab.create(lab.path("shallow.qcow2"), None, "qcow2", "-F",
                                              "qcow2", "-b", chain.layers[-2]), 0o644)
    chain.virsh("blockcopy", "--dest", shallow, "--shallow", "--reuse-external", "--format",
                "qcow2", "--transient-job", "--pivot")
    chain.disk.path = shallow
    chain.layers[-1] = shallow
    chain.prove("shallow copy")
    chain.repo.check_all()


@test(timeout=180)
def test_snapshots_while_shut_off(lab: Lab) -> None:
    """By qemu-img, and by libvirt with what it keeps about it; and gone back to one."""
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE)])
    repo = Repository(lab)
    vm.change()
    repo.backup(vm)
    vm.change()
    vm.quit()
    below = vm["vda"].path
    vm["vda"].path = lab.create(lab.path("over.qcow2"), None, "qcow2", "-F", "qcow2", "-b", below)
    vm.define()
    vm.change()
    repo.backup(vm)
    vm.start()
    vm.change()
    point = repo.backup(vm).expect(vda="incremental")
    repo.check_all()
    # The user goes back: what came after is undone, and no incremental may build on it.
    old = vm["vda"].model.snapshot()
    vm.quit()
    kept = lab.path("kept.qcow2")
    lab.tool("cp", vm["vda"].path, kept)
    vm.start()
    vm.change()
    repo.backup(vm).expect(vda="incremental")
    vm.change()
    vm.quit()
    lab.tool("cp", kept, vm["vda"].path)
    vm["vda"].model.data[:] = old.data
    for running in (False, True):
        if running:
            vm.start()
        vm.change()
        point = repo.backup(vm)
        diag(f"gone back: {point.modes}: {point.reasons}")
        repo.check(point)
    repo.check_all()


def names(vm: VirtVm, *options: str) -> list[str]:
    return vm.virsh("checkpoint-list", "--name", *options).out.split()


@test(timeout=120)
def test_checkpoint_verbs(lab: Lab) -> None:
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE)])
    for number, disks in enumerate((None, ["vda"], ["vdb", "vda"])):
        lab.tidemark("checkpoint", "create", *vm.domain,
                     lab.file("c.xml", checkpoint_xml(f"c{number}", disks)))
        vm.writer(vm["vda"]).write(number << 20, 1 << 20)
    lab.tidemark("checkpoint", "create", *vm.domain, "named")
    assert names(vm, "--topological") == ["c0", "c1", "c2", "named"]
    assert vm.checkpoint_disks("c1") == ["vda"] and vm.checkpoint_disks("c2") == ["vda", "vdb"]
    assert names(vm, "--roots") == ["c0"] and names(vm, "--leaves") == ["named"]
    listed = lab.tidemark_json("checkpoint", "list", *vm.domain)["checkpoints"]
    assert {one["name"] for one in listed} == {"c0", "c1", "c2", "named"}, listed
    assert "c2" in lab.tidemark("checkpoint", "list", *vm.domain, "--tree").out
    sizes = json.dumps(lab.tidemark_json("checkpoint", "list", *vm.domain, "--size"))
    assert str(2 << 20) in sizes, sizes
    ours = ElementTree.fromstring(lab.tidemark("checkpoint", "dumpxml", *vm.domain, "c1").out)
    theirs = ElementTree.fromstring(vm.virsh("checkpoint-dumpxml", "c1").out)
    for path in ("name", "creationTime", "parent/name"):
        assert ours.findtext(path) == theirs.findtext(path), path
    for verb in (["create", "c1"], ["delete", "none"], ["dumpxml", "none"]):
        said = lab.tidemark("checkpoint", verb[0], *vm.domain, verb[1], rc=1)
        assert verb[1] in said.err and "\nhint: " in said.err, said
    # Shut off: libvirt's are listed, one more is made and one deleted, both by virsh's count.
    vm.quit()
    lab.tidemark("checkpoint", "create", *vm.domain, "off")
    lab.tidemark("checkpoint", "delete", *vm.domain, "c1")
    assert sorted(names(vm)) == ["c0", "c2", "named", "off"]
    assert vm.bitmap_names(vm["vda"]) == ["c0", "c2", "named", "off"]
    vm.start()
    for name in ("off", "named", "c2", "c0"):
        vm.virsh("checkpoint-delete", name)
    assert vm.bitmap_names(vm["vda"]) == vm.bitmap_names(vm["vdb"]) == []
    vm.assert_clean()


main()
