# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: others who use libvirt's backup jobs and checkpoints, and we, do not get into each
other's way: virsh, and virtnbdbackup, whose points and ours are both exact when both take turns on
one domain. Each can begin at the other's checkpoints, and deletes only its own."""
from __future__ import annotations

import os

from backup import backup_xml, checkpoint_xml, disk_xml
from lab import Lab, main, test
from pull import Pull
from push import push
from repository import Repository
from virt import Libvirt, VirtVm

SIZE = 8 << 20
INCREMENTAL = {"vda": "incremental", "vdb": "incremental"}


class Virtnbd:
    """Backups of a domain by virtnbdbackup, each to be restored and compared at the end."""

    def __init__(self, lab: Lab, vm: VirtVm) -> None:
        lab.need("virtnbdbackup", "virtnbdrestore")
        self.lab, self.vm = lab, vm
        self.folder = lab.path("virtnbd")
        # Its newer releases take what became zeroes in an incremental for holes, and restore what
        # was there before, unless they are told not to.
        exact = "--no-sparse-detection"
        self.exact = [exact] if exact in lab.tool("virtnbdbackup", "--help").out else []
        self.models: list[tuple[str, dict]] = []

    def run(self, level: str, **how):
        scratch = self.vm.host.public(self._folder())
        return self.lab.tool("virtnbdbackup", "-U", "qemu:///system", "-d", self.vm.name, "-l",
                             level, "-o", self.folder, "-n", "--scratchdir", scratch, "-f",
                             os.path.join(self.vm.sockets, "virtnbd"), *self.exact, **how)

    def backup(self, level: str) -> None:
        self.run(level)
        number = len(self.models)
        self.models.append((f"virtnbdbackup.{number}",
                            {disk.name: disk.model.snapshot() for disk in self.vm.disks}))

    def _folder(self) -> str:
        folder = self.lab.path("virtnbd-scratch")
        os.makedirs(folder, exist_ok=True)
        return folder

    def check(self) -> None:
        for checkpoint, models in self.models:
            out = self.lab.fresh(".restored")
            os.mkdir(out)
            self.lab.tool("virtnbdrestore", "-U", "qemu:///system", "-i", self.folder, "-o", out,
                          "-n", "-u", checkpoint, "-f", os.path.join(self.vm.sockets, "restore"),
                          "-L", self.lab.path("virtnbdrestore.log"))
            for name, model in models.items():
                self.lab.compare(f"{out}/{name}.qcow2", model, "qcow2")


@test(timeout=240)
def test_in_turn_with_virtnbdbackup(lab: Lab) -> None:
    """It refuses to begin or go on with a chain where there is a checkpoint that is not its own
    ("Foreign checkpoint found"): beside its chains ours are made without."""
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE)])
    repo, other = Repository(lab), Virtnbd(lab, vm)
    vm.change(10)
    other.backup("full")
    for _ in range(2):
        vm.change()
        repo.backup(vm, "--no-checkpoint").expect(vda="full", vdb="full")
        vm.assert_clean()
        vm.change()
        other.backup("inc")
    # Ours with one: theirs says so, changes nothing, and goes on once ours has gone.
    vm.change()
    repo.backup(vm).expect(vda="full", vdb="full")
    vm.assert_tidy(repo)
    ours = [name for name in vm.checkpoints() if name.startswith(repo.prefix)]
    assert len(ours) == 1 and len(vm.checkpoints()) == 4, vm.checkpoints()
    vm.change()
    said = other.run("inc", rc=1).err
    assert "Foreign checkpoint found" in said and ours[0] in said, said
    repo.backup(vm, rc=0).expect(**INCREMENTAL)
    vm.assert_tidy(repo)
    ours = [name for name in vm.checkpoints() if name.startswith(repo.prefix)]
    lab.tidemark("checkpoint", "delete", *vm.domain, *ours)
    vm.change()
    other.backup("inc")
    repo.check_all()
    other.check()


@test(timeout=240)
def test_copies_by_virtnbdbackup(lab: Lab) -> None:
    """Those need no checkpoint, and our chain goes on below them, running and shut off."""
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE)])
    repo, other = Repository(lab), Virtnbd(lab, vm)
    vm.change(10)
    repo.backup(vm, rc=0).expect(vda="full", vdb="full")
    for running in (True, True, False):
        vm.change()
        if not running:
            vm.quit()
        other.folder = lab.fresh(".virtnbd")
        other.backup("copy")
        vm.change()
        repo.backup(vm, rc=0).expect(**INCREMENTAL)
        vm.assert_tidy(repo)
        other.check()
        other.models.clear()
    repo.check_all()


@test(timeout=180)
def test_checkpoints_of_virsh(lab: Lab) -> None:
    """A checkpoint that virsh made is a start for us; one of ours for virsh."""
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE)])
    vm.change(10)
    base = {disk.name: lab.path(f"{disk.name}.base") for disk in vm.disks}
    vm.virsh("backup-begin",
             lab.file("full.xml", backup_xml([disk_xml(n, p) for n, p in base.items()])),
             lab.file("c.xml", checkpoint_xml("byvirsh")))
    lab.tidemark("wait", *vm.domain, check=False)
    vm.virsh("domjobinfo", "--completed", check=False)
    assert vm.checkpoints() == ["byvirsh"] and not vm.job()
    vm.change()
    listed = lab.tidemark_json("checkpoint", "list", *vm.domain)["checkpoints"]
    assert [one["name"] for one in listed] == ["byvirsh"], listed

    for disk in vm.disks:
        lab.tool("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base[disk.name],
                 lab.path(f"{disk.name}.inc"), SIZE)
    push(vm, backup_xml([disk_xml(disk.name, lab.path(f"{disk.name}.inc")) for disk in vm.disks],
                        since="byvirsh"), "--reuse-external", checkpoint=checkpoint_xml("byus"))
    for disk in vm.disks:
        lab.compare(lab.path(f"{disk.name}.inc"), disk.model)
    vm.change()
    pull = Pull(lab, vm)
    document = lab.file("virsh.xml", f"<domainbackup mode='pull'><incremental>byus</incremental>"
                        f"<server transport='unix' socket='{pull.socket}'/></domainbackup>")
    vm.virsh("backup-begin", document)
    for disk in vm.disks:
        pull.compare(disk.name, disk.model)
        assert pull.dirty(disk.name, f"backup-{disk.name}")
    vm.virsh("domjobabort")
    vm.virsh("checkpoint-delete", "byus")
    assert vm.bitmap_names(vm["vda"]) == ["byvirsh"]
    lab.tidemark("checkpoint", "delete", *vm.domain, "byvirsh")
    assert vm.bitmap_names(vm["vda"]) == vm.checkpoints() == []
    vm.assert_clean()


@test(timeout=180)
def test_a_job_that_is_not_ours(lab: Lab) -> None:
    """It is named and left alone, and works on to its end."""
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE)])
    repo, pull = Repository(lab), Pull(lab, vm)
    vm.change()
    repo.backup(vm)
    vm.change()
    model = vm["vda"].model.snapshot()
    vm.virsh("backup-begin", lab.file("virsh.xml", "<domainbackup mode='pull'><server "
             f"transport='unix' socket='{pull.socket}'/></domainbackup>"))
    for verb in (["backup", "-r", repo.path], ["begin", lab.file("b.xml", "<domainbackup/>")]):
        said = lab.tidemark(verb[0], *vm.domain, *verb[1:], rc=1).err
        assert "not tidemark's" in said and "hint: " in said, said
    for verb in ("end", "abort"):
        lab.tidemark(verb, *vm.domain, check=False)
        assert vm.job(), f"'{verb}' ended a job that is not ours"
    vm.change()
    pull.compare("vda", model)
    vm.virsh("domjobabort")
    repo.check(repo.backup(vm, rc=0).expect(vda="incremental"))
    vm.assert_tidy(repo)


@test(timeout=180)
def test_their_hand_on_ours(lab: Lab) -> None:
    """Our checkpoint is deleted by virsh, in part or whole: full, with the reason, and whole."""
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE)])
    repo = Repository(lab)
    vm.change()
    repo.backup(vm)
    ours = vm.checkpoints()[0]
    vm.virsh("checkpoint-delete", ours)
    vm.change()
    point = repo.backup(vm, rc=3).expect(vda="full", vdb="full")
    vm.assert_tidy(repo)
    ours = vm.checkpoints()[0]
    vm.virsh("checkpoint-delete", ours, "--metadata")  # its bitmaps stay
    vm.change()
    point = repo.backup(vm, rc=(0, 3))
    vm.assert_tidy(repo)
    ours = vm.checkpoints()[0]
    assert vm.qmp
    vm.qmp.command("block-dirty-bitmap-remove", node=vm.node(vm["vdb"]), name=ours)
    vm.change()
    point = repo.backup(vm, rc=3)
    assert point.modes["vdb"] == "full", point.reasons
    vm.assert_tidy(repo)
    vm.change()
    repo.backup(vm, rc=0).expect(**INCREMENTAL)
    vm.assert_tidy(repo)
    repo.check_all()


main()
