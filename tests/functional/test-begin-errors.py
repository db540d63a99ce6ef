#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: what cannot be done is refused before anything is changed, with the disk, the reason and
a way out: QEMU, the folder and the older checkpoints are as before."""
import json
import os
import socket

from backup import Series, backup_xml, checkpoint_xml, disk_xml
from lab import Lab, Qmp, main, test


class Refusal:
    """A machine, and a check that a begin is refused and changes nothing."""

    def __init__(self, lab: Lab, vm) -> None:
        self.lab, self.vm = lab, vm
        self.folder = lab.path("targets")
        os.makedirs(self.folder, exist_ok=True)
        self.count = 0

    def target(self, name: str) -> str:
        return f"{self.folder}/{name}.qcow2"

    def __call__(self, document: str, *words: str, checkpoint: str | None = None,
                 options: tuple = (), code: str | None = None, rc: int = 1) -> str:
        self.count += 1
        before, files = self.vm.inventory(), sorted(os.listdir(self.folder))
        args = [self.lab.file(f"r{self.count}.xml", document)]
        if checkpoint:
            args.append(self.lab.file(f"r{self.count}-checkpoint.xml", checkpoint))
        result = self.lab.tidemark("begin", "--qmp", self.vm.address, *options, *args, "--json",
                                   rc=rc)
        for word in words:
            assert word in result.err, f"'{word}' not in: {result.err}"
        assert result.err.startswith("tidemark: error: "), result.err
        assert "\nhint: " in result.err, result.err
        if code:
            assert json.loads(result.out)["error"]["code"] == code, result.out
        assert self.vm.inventory() == before, words
        assert sorted(os.listdir(self.folder)) == files, words
        status = self.lab.tidemark_json("status", "--qmp", self.vm.address)
        assert status["state"] in ("none", "done"), status
        return result.err


@test(timeout=150)
def test_disks_checkpoints_and_targets(lab: Lab) -> None:
    vda, vdb = lab.disk("vda", "16M"), lab.disk("vdb", "16M")
    lab.create(lab.path("cd.raw"), "1M", "raw")
    vm = lab.vm([vda, vdb], extra=[
        "-drive", f"if=none,id=cdimg,media=cdrom,format=raw,readonly=on,file={lab.path('cd.raw')}",
        "-device", "ide-cd,id=hdc,drive=cdimg", "-device", "ide-cd,id=hdd,bus=ide.1"])
    refuse = Refusal(lab, vm)
    target = refuse.target

    refuse(backup_xml([disk_xml("vdx", target("x"))]), "vdx", code="not-found")
    refuse(backup_xml([disk_xml("vda", target("x")), disk_xml("vda", target("y"))]), "vda", "twice")
    refuse(backup_xml([disk_xml("vda", target("x"), mode="incremental")]), "vda", "incremental")
    refuse(backup_xml([disk_xml("vda", target("x"), since="c9")]), "vda", "c9",
           "there is no bitmap", "backupmode='full'", code="not-found")
    refuse(backup_xml([disk_xml("hdc", target("x"))]), "hdc", "backup='no'")
    refuse(backup_xml([disk_xml("hdd", target("x"))]), "hdd")
    refuse(backup_xml([disk_xml("vda", target("x")), disk_xml("vdb", target("x"))]), "vda", "vdb",
           "same target")
    refuse(backup_xml([disk_xml("vda", f"{refuse.folder}/no/such/x.qcow2")]), "vda", "no folder",
           code="not-found")
    refuse(backup_xml([disk_xml("vda", vdb.path)]), "vda", "vdb", "own disk")
    refuse(backup_xml([disk_xml("vda", vdb.path)]), "own disk", options=("--reuse-external",))
    refuse(backup_xml([disk_xml("vda", target("x"))]), "vda", options=("--reuse-external",),
           code="not-found")
    refuse("<domainbackup><disks><disk name='vda'/></disk></domainbackup>", "r", code="invalid")
    refuse("<domainbackup mode='push'><server transport='unix' socket='/x'/></domainbackup>")
    refuse("<domainbackup mode='sideways'/>")
    refuse(backup_xml([disk_xml("vda", target("x"), kind="block")]), "vda", code="not-found")

    lab.create(target("there"), "16M")
    refuse(backup_xml([disk_xml("vda", target("there"))]), "vda", "exists already",
           "--reuse-external", code="exists")
    os.symlink("/nowhere", f"{refuse.folder}/dangling")
    refuse(backup_xml([disk_xml("vda", f"{refuse.folder}/dangling")]), "exists already")
    lab.create(target("small"), "8M")
    refuse(backup_xml([disk_xml("vda", target("small"))]), "vda", "16777216", "8388608",
           options=("--reuse-external",), code="mismatch")
    refuse(backup_xml([disk_xml("vda", target("x"), kind="block")]), "vda")
    refuse(backup_xml([disk_xml("vda", target("there"), kind="block")]), "no block device")
    refuse(backup_xml([disk_xml("vda", target("x"), fmt="nonsense")]), ":1: ", code="invalid")
    refuse(backup_xml([disk_xml("vda", target("x"), fmt="bochs")]), "vda", "bochs")

    series = Series(vm)
    series.run("c1")
    refuse(backup_xml([disk_xml("vda", target("x"))]), "c1", "exists already",
           checkpoint=checkpoint_xml("c1"), code="exists")
    vm.qmp.command("block-dirty-bitmap-disable", node="vda-fmt", name="c1")
    refuse(backup_xml([disk_xml("vda", target("x"), since="c1")]), "vda", "c1", "not recording",
           code="inconsistent")
    vm.qmp.command("block-dirty-bitmap-add", node="vdb-fmt", name="c5", persistent=True)
    refuse(backup_xml([disk_xml("vdb", target("x"))]), "c5", "exists already",
           checkpoint=checkpoint_xml("c5"), code="exists")
    for fmt in ("raw", "qed", "vmdk"):
        refuse(backup_xml([disk_xml("vdb", target("x"), since="c1", fmt=fmt)]), "vdb", fmt)
    # An older checkpoint of another disk still works after all that.
    document = backup_xml([disk_xml("vdb", target("good"), since="c1")])
    lab.tidemark("begin", "--qmp", vm.address, lab.file("good.xml", document))
    lab.tidemark("wait", "--qmp", vm.address)
    vm.assert_clean()
    vm.quit()
    lab.compare(target("good"), vdb.model)


@test(timeout=60)
def test_the_second_disk_failing_takes_the_first_back(lab: Lab) -> None:
    """What only QEMU can know is found after vda's target was made: all of it goes again."""
    vm = lab.vm([lab.disk("vda", "16M"), lab.disk("vdb", "16M")])
    refuse = Refusal(lab, vm)
    refuse(backup_xml([disk_xml("vda", refuse.target("a")),
                       disk_xml("vdb", refuse.target("b"), fmt="bochs")]), "vdb",
           checkpoint=checkpoint_xml("c1"))


@test(timeout=60)
def test_monitors(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "16M")])
    document = lab.file("b.xml", "<domainbackup/>")
    busy = Qmp(vm.address)
    failed = lab.tidemark("begin", "--qmp", vm.address, document, rc=1)
    assert "monitor busy" in failed.err and "\nhint: " in failed.err, failed.err
    busy.close()
    gone = lab.tidemark("begin", "--qmp", lab.path("nothing.sock"), document, rc=1)
    assert "nothing.sock" in gone.err and "\nhint: " in gone.err, gone.err
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(lab.path("other.sock"))
        server.listen()
        odd = lab.tidemark_popen("disks", "--qmp", lab.path("other.sock"))
        peer, _ = server.accept()
        peer.sendall(b"220 mail.example ESMTP\r\n")
        out, err = odd.communicate(timeout=20)
        peer.close()
    assert odd.returncode == 1 and "error" in err, err
    for args in (["begin"], ["begin", "--qmp", vm.address], ["nonsense"], ["status", "--nonsense"],
                 ["status"], ["begin", "--bandwidth", "x", "--qmp", vm.address, document]):
        wrong = lab.tidemark(*args, rc=2)
        assert wrong.err.startswith("tidemark: error: "), wrong.err
        assert "hint: " in wrong.err, wrong.err


@test(timeout=60)
def test_state_folder_that_cannot_be_written(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "16M")])
    failed = lab.tidemark("disks", "--qmp", vm.address, "--state-dir", "/proc/tidemark", rc=1)
    assert "/proc/tidemark" in failed.err and "--state-dir" in failed.err, failed.err


@test(timeout=60)
def test_nothing_to_look_at(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "16M")])
    assert "no backup job" in lab.tidemark("status", "--qmp", vm.address).out
    assert lab.tidemark_json("status", "--qmp", vm.address)["state"] == "none"
    for verb in ("wait", "abort", "dumpxml", "end"):
        failed = lab.tidemark(verb, "--qmp", vm.address, rc=1)
        assert "no" in failed.err, failed.err


main()
