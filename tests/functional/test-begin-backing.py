#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: an incremental names the image that it is on top of, in a way that survives moving the
folder and any file name; where none is known it says so and how to add it."""
import os
import shutil

from backup import backup_xml, checkpoint_xml, disk_xml
from lab import Disk, Lab, Vm, main, test
from push import push


def machine(lab: Lab) -> tuple[Vm, Disk]:
    vda = lab.disk("vda", "16M")
    vm = lab.vm([vda])
    vm.writer(vda).random_ops(lab.rng, 15)
    return vm, vda


def backup(vm: Vm, target: str, name: str | None = None, since: str | None = None, **more):
    vm.writer(vm["vda"]).random_ops(vm.lab.rng, 5)
    return push(vm, backup_xml([disk_xml("vda", target, since=since, **more)]),
                checkpoint=checkpoint_xml(name) if name else None)


@test
def test_same_folder_is_relative(lab: Lab) -> None:
    vm, vda = machine(lab)
    os.mkdir(lab.path("a"))
    backup(vm, lab.path("a/1.qcow2"), "c1")
    backup(vm, lab.path("a/2.qcow2"), "c2", "c1")
    backup(vm, lab.path("a/3.qcow2"), None, "c2")
    assert lab.info(lab.path("a/3.qcow2"))["backing-filename"] == "2.qcow2"
    status = lab.tidemark_json("status", "--qmp", vm.address)["disks"][0]
    assert status["backing"] == lab.path("a/2.qcow2"), status
    shutil.move(lab.path("a"), lab.path("b"))
    lab.compare(lab.path("b/3.qcow2"), vda.model)


@test
def test_another_folder_is_absolute(lab: Lab) -> None:
    vm, vda = machine(lab)
    for name in ("a", "b"):
        os.mkdir(lab.path(name))
    backup(vm, lab.path("a/1.qcow2"), "c1")
    backup(vm, lab.path("b/2.qcow2"), None, "c1")
    assert lab.info(lab.path("b/2.qcow2"))["backing-filename"] == lab.path("a/1.qcow2")
    shutil.move(lab.path("b"), lab.path("c"))
    lab.compare(lab.path("c/2.qcow2"), vda.model)


@test
def test_names_that_qemu_could_take_for_something_else(lab: Lab) -> None:
    """Colons look like protocols; commas, percents, blanks and quotes need no care, or get it."""
    vm, vda = machine(lab)
    names = ["nbd:a", "json:{}", "file:x", "a,b=c", "100%41", "it's 1", "fat:rw:x", "ü", "-dash",
             "http:", "a b"]
    since = None
    for number, name in enumerate(names):
        target = lab.path(f"{name}.qcow2")
        backup(vm, target, f"c{number}", since)
        since = f"c{number}"
        lab.tool("qemu-img", "convert", "-O", "raw", "--image-opts",
                 f"driver=qcow2,file.driver=file,file.filename={target.replace(',', ',,')}",
                 lab.path("out.raw"))
        truth = vda.model.save(lab.path("truth.raw"))
        lab.tool("cmp", lab.path("out.raw"), truth)
    other = lab.path("proto:col")
    os.mkdir(other)
    backup(vm, f"{other}/x.qcow2", None, since)
    lab.tool("qemu-img", "compare", "-f", "raw", "-F", "qcow2", vda.model.save(truth),
             f"{other}/x.qcow2")


@test
def test_unknown_backing_is_warned_of(lab: Lab) -> None:
    """The checkpoint was made by itself, so that no image is of its instant; a raw copy is."""
    vm, vda = machine(lab)
    lab.tidemark("checkpoint", "create", "--qmp", vm.address, "c1")
    vda.model.save(lab.path("mine.raw"))
    result = backup(vm, lab.path("1.qcow2"), None, "c1")
    assert "warning" in result.err and "'c1'" in result.err, result
    assert f"qemu-img rebase -u -b PREVIOUS -F qcow2 '{lab.path('1.qcow2')}'" in result.err, result
    assert "backing-filename" not in lab.info(lab.path("1.qcow2"))
    lab.tool("qemu-img", "rebase", "-u", "-b", "mine.raw", "-F", "raw", lab.path("1.qcow2"))
    lab.compare(lab.path("1.qcow2"), vda.model)


@test
def test_backing_of_other_formats(lab: Lab) -> None:
    vm, vda = machine(lab)
    for fmt in ("raw", "vmdk", "vdi"):
        backup(vm, lab.path(f"1.{fmt}"), f"c-{fmt}", fmt=fmt)
        result = backup(vm, lab.path(f"2-{fmt}.qcow2"), None, f"c-{fmt}")
        assert "warning" not in result.err, result
        info = lab.info(lab.path(f"2-{fmt}.qcow2"))
        assert (info["backing-filename"], info["backing-filename-format"]) == (f"1.{fmt}", fmt)
        lab.compare(lab.path(f"2-{fmt}.qcow2"), vda.model)


@test
def test_backing_that_is_gone_is_warned_of(lab: Lab) -> None:
    """The previous backup was moved away: the name would lead nowhere."""
    vm, vda = machine(lab)
    backup(vm, lab.path("1.qcow2"), "c1")
    os.rename(lab.path("1.qcow2"), lab.path("archive.qcow2"))
    result = backup(vm, lab.path("2.qcow2"), "c2", "c1")
    assert "warning" in result.err and lab.path("1.qcow2") in result.err, result
    assert "rebase" in result.err, result
    lab.tool("qemu-img", "rebase", "-u", "-b", "archive.qcow2", "-F", "qcow2",
             lab.path("2.qcow2"))
    lab.compare(lab.path("2.qcow2"), vda.model)


@test
def test_checkpoint_kept_over_a_full_backup_in_between(lab: Lab) -> None:
    """Each names the image of the checkpoint it starts from, not the newest one."""
    vm, vda = machine(lab)
    backup(vm, lab.path("1.qcow2"), "c1")
    backup(vm, lab.path("2.qcow2"), "c2")
    backup(vm, lab.path("3.qcow2"), "c3", "c1")
    assert lab.info(lab.path("3.qcow2"))["backing-filename"] == "1.qcow2"
    lab.compare(lab.path("3.qcow2"), vda.model)
    # A job that covers other disks only must not lend its image.
    lab.tidemark("checkpoint", "delete", "--qmp", vm.address, "c1")
    result = backup(vm, lab.path("4.qcow2"), None, "c3")
    assert lab.info(lab.path("4.qcow2"))["backing-filename"] == "3.qcow2", result
    lab.compare(lab.path("4.qcow2"), vda.model)


main()
