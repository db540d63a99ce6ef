#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: targets of every kind (new files of several formats, images that are there, block devices,
compressed ones) hold the disk afterwards, and combinations that could not are refused at once."""
import os

from backup import backup_xml, checkpoint_xml, disk_xml
from lab import Disk, Lab, Skip, Vm, main, size_of, test
from push import files_below, push, refused


def machine(lab: Lab, size: str = "24M") -> tuple[Vm, Disk]:
    vda = lab.disk("vda", size)
    vm = lab.vm([vda])
    vm.writer(vda).random_ops(lab.rng, 20)
    return vm, vda


def one(target: str, **more: str) -> str:
    return backup_xml([disk_xml("vda", target, **more)])


def loop(lab: Lab, size: str, fill: int = 0xEE) -> str:
    """A loop device full of garbage; goes with the lab."""
    path = lab.fresh(".loop")
    with open(path, "wb") as out:
        for _ in range(size_of(size) >> 20):
            out.write(bytes([fill]) * (1 << 20))
    if os.geteuid() != 0:
        raise Skip("may not make loop devices")
    result = lab.tool("losetup", "--find", "--show", path, check=False)
    if result.rc != 0:
        raise Skip("no loop device")
    return result.out.strip()


def detach(lab: Lab, device: str) -> None:
    lab.tool("losetup", "-d", device)


@test
def test_raw_file(lab: Lab) -> None:
    vm, vda = machine(lab)
    target = lab.path("a.raw")
    push(vm, one(target, fmt="raw"), checkpoint=checkpoint_xml("c1"))
    lab.compare(target, vda.model, "raw")
    vm.writer(vda).random_ops(lab.rng, 10)
    refused(vm, one(lab.path("b.raw"), fmt="raw", since="c1"), "'vda'", "raw", "--reuse-external")
    # The copy as of c1 is brought up to date by what changed since.
    push(vm, one(target, fmt="raw", since="c1"), "--reuse-external",
         checkpoint=checkpoint_xml("c2"))
    lab.compare(target, vda.model, "raw")
    vm.writer(vda).random_ops(lab.rng, 10)
    push(vm, one(target, fmt="raw", since="c2"), "--reuse-external")
    lab.compare(target, vda.model, "raw")


@test
def test_reused_images(lab: Lab) -> None:
    """What was in a reused image before does not show, where the backup is full."""
    vm, vda = machine(lab)
    for fmt in ("raw", "qcow2", "vmdk"):
        target = lab.create(lab.path(f"old.{fmt}"), vda.model.size, fmt)
        lab.tool("qemu-io", "-f", fmt, "-c", f"write -P 0xee 0 {vda.model.size}", target)
        push(vm, one(target, fmt=fmt), "--reuse-external",
             checkpoint=checkpoint_xml(f"c-{fmt}"))
        lab.compare(target, vda.model, fmt)
    vm.writer(vda).random_ops(lab.rng, 10)
    # An incremental into an image of the user's own making, over the last full one.
    top = lab.create(lab.path("top.qcow2"), None, "qcow2", "-b", lab.path("old.qcow2"), "-F",
                     "qcow2", "-o", "cluster_size=2M,lazy_refcounts=on")
    push(vm, one(top, since="c-qcow2"), "--reuse-external")
    lab.compare(top, vda.model)
    lab.check_image(top)
    assert lab.info(top)["cluster-size"] == 2 << 20


@test
def test_reuse_refusals(lab: Lab) -> None:
    vm, vda = machine(lab)
    reuse = ("--reuse-external",)
    refused(vm, one(lab.path("absent.qcow2")), "'vda'", "absent.qcow2", options=reuse)
    small = lab.create(lab.path("small.qcow2"), "8M")
    refused(vm, one(small), "'vda'", str(8 << 20), "qemu-img resize", options=reuse)
    refused(vm, one(small, fmt="raw"), "'vda'", options=reuse)
    other = lab.create(lab.path("x.raw"), vda.model.size, "raw")
    refused(vm, one(other, fmt="qcow2"), "'vda'", "x.raw", options=reuse)
    # An image of the domain itself, also below or by another name, is never written.
    os.symlink(vda.path, lab.path("alias.qcow2"))
    os.link(vda.path, lab.path("hard.qcow2"))
    for path in (vda.path, lab.path("alias.qcow2"), lab.path("hard.qcow2")):
        refused(vm, one(path), "'vda'", "own disk", options=reuse)
        refused(vm, one(path), "'vda'")
    vm.snapshot(vda)
    refused(vm, one(lab.path("vda.qcow2")), "own disk", options=reuse)
    refused(vm, one(small), "exists already")
    refused(vm, one(lab.path("no/such/folder.qcow2")), "no folder", "mkdir")
    twice = backup_xml([disk_xml("vda", lab.path("t")), disk_xml("vdb", lab.path("t"))])
    vm.plug(lab.disk("vdb", "1M"))
    refused(vm, twice, "same target")


@test
def test_reused_image_is_not_compressed(lab: Lab) -> None:
    """QEMU cannot overwrite clusters with compressed ones, and would tell only in the middle."""
    vm, vda = machine(lab)
    target = lab.create(lab.path("old.qcow2"), vda.model.size)
    lab.tool("qemu-io", "-f", "qcow2", "-c", f"write -P 0xee 0 {vda.model.size}", target)
    refused(vm, one(target), "'vda'", "compress", options=("--reuse-external", "--compress"))


@test
def test_formats(lab: Lab) -> None:
    """Other formats are QEMU's to write: equal afterwards, in size too, or refused at once."""
    vm, vda = machine(lab)
    done = []
    for fmt in ("vmdk", "vdi", "vpc", "qed", "qcow", "vhd", "luks", "cow", "bochs", "iso", "fat", "ploop"):
        target = lab.path(f"full.{fmt}")
        before, files = vm.inventory(), files_below(lab.dir)
        document = lab.file("document.xml", one(target, fmt=fmt))
        result = lab.tidemark("begin", "--qmp", vm.address, document, check=False)
        if result.rc == 0:
            lab.tidemark("wait", "--qmp", vm.address)
            truth = vda.model.save(lab.fresh(".model"))
            lab.tool("qemu-img", "compare", "-f", fmt, "-F", "raw", target, truth)
            if fmt != "vpc":  # its sizes are those of a disk's geometry
                assert lab.info(target, fmt)["virtual-size"] == vda.model.size, fmt
            done.append(fmt)
        else:
            assert result.rc == 1 and "'vda'" in result.err, result
            assert "hint: " in result.err or "document.xml:1:" in result.err, result
            assert files_below(lab.dir) == files
        assert vm.inventory() == before
    assert done == ["vmdk", "vdi", "vpc", "qed", "qcow"], done


@test
def test_sizes_that_formats_round(lab: Lab) -> None:
    """A disk of an odd size: formats that cannot be exactly as large are refused without a trace."""
    vda = lab.disk("vda", (8 << 20) + 512)
    vm = lab.vm([vda])
    vm.writer(vda).write((8 << 20) - 1024, 1536, 0x5A)
    for fmt in ("raw", "qcow2", "vmdk", "vdi", "vpc", "qed"):
        target = lab.path(f"full.{fmt}")
        files = files_below(lab.dir)
        document = lab.file("document.xml", one(target, fmt=fmt))
        result = lab.tidemark("begin", "--qmp", vm.address, document, check=False)
        if result.rc == 0:
            lab.tidemark("wait", "--qmp", vm.address)
            lab.compare(target, vda.model, fmt)
        else:
            assert fmt not in ("raw", "qcow2") and "hint: " in result.err, result
            assert files_below(lab.dir) == files
        vm.assert_clean()


@test
def test_block_device_as_raw(lab: Lab) -> None:
    """Larger than the disk: the disk's bytes come first, the rest of the device is not touched."""
    vm, vda = machine(lab)
    device = loop(lab, "32M")
    try:
        push(vm, one(device, fmt="raw", kind="block"), checkpoint=checkpoint_xml("c1"))
        truth = lab.path("truth.raw")
        vda.model.save(truth)
        lab.tool("cmp", "-n", str(vda.model.size), device, truth)
        with open(device, "rb") as tail:
            tail.seek(vda.model.size)
            assert tail.read() == b"\xEE" * (size_of("32M") - vda.model.size)
        vm.writer(vda).random_ops(lab.rng, 10)
        push(vm, one(device, fmt="raw", kind="block", since="c1"), "--reuse-external")
        vda.model.save(truth)
        lab.tool("cmp", "-n", str(vda.model.size), device, truth)
    finally:
        detach(lab, device)


@test
def test_block_device_as_qcow2(lab: Lab) -> None:
    vm, vda = machine(lab)
    device, next_one = loop(lab, "64M"), loop(lab, "32M")
    try:
        push(vm, one(device, kind="block"), checkpoint=checkpoint_xml("c1"))
        lab.compare(device, vda.model)
        lab.check_image(device)
        # Devices are not remembered as backing files: they are written over, time and again.
        vm.writer(vda).random_ops(lab.rng, 10)
        result = push(vm, one(next_one, kind="block", since="c1"))
        assert "rebase" in result.err, result.err
        lab.tool("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", device, "-F", "qcow2", next_one)
        lab.compare(next_one, vda.model)
        # Written a second time, nothing of the first remains.
        push(vm, one(device, kind="block"))
        lab.compare(device, vda.model)
    finally:
        detach(lab, device)
        detach(lab, next_one)


@test
def test_block_device_refusals(lab: Lab) -> None:
    vm, vda = machine(lab)
    refused(vm, one(lab.path("none"), kind="block"), "'vda'", "none")
    refused(vm, one(lab.file("plain", "x"), kind="block"), "no block device", "type='file'")
    small = loop(lab, "4M")
    try:
        refused(vm, one(small, fmt="raw", kind="block"), "'vda'", str(4 << 20),
                str(vda.model.size))
        vm.writer(vda).write(0, 16 << 20, 0x21)
        refused(vm, one(small, kind="block"), "'vda'", str(4 << 20))
        refused(vm, one(small), "exists already")  # a device is no file
        own = Disk("vdb", small, lab.disk("x", "4M", fmt="raw").model, fmt="raw", node="vdb-fmt")
        own.blockdev = lambda: {"driver": "raw", "node-name": "vdb-fmt", "file": {
            "driver": "host_device", "node-name": "vdb-file", "filename": small}}
        vm.plug(own)
        refused(vm, one(small, fmt="raw", kind="block"), "own disk 'vdb'")
        # The disk on a device can itself be backed up.
        vm.writer(own).write(0, 4 << 20, 0x42)
        push(vm, backup_xml([disk_xml("vdb", lab.path("vdb.qcow2"))]))
        lab.compare(lab.path("vdb.qcow2"), own.model)
        refused(vm, "<domainbackup/>", "'vdb'", checkpoint=checkpoint_xml("c1"))
    finally:
        vm.quit()
        detach(lab, small)


@test
def test_compression(lab: Lab) -> None:
    vda = lab.disk("vda", "32M")
    vm = lab.vm([vda])
    writer = vm.writer(vda)
    writer.write(0, 20 << 20, 0x41)
    writer.random_ops(lab.rng, 10)
    sizes = {}
    for name, options in {"plain": (), "default": ("--compress",),
                          "zlib": ("--compression", "zlib"),
                          "zstd": ("--compression", "zstd")}.items():
        target = lab.path(f"{name}.qcow2")
        push(vm, one(target), *options, checkpoint=checkpoint_xml(name))
        lab.compare(target, vda.model)
        lab.check_image(target)
        sizes[name] = os.stat(target).st_blocks * 512
        if name in ("zlib", "zstd"):
            found = lab.info(target)["format-specific"]["data"]["compression-type"]
            assert found == name, found
    assert all(sizes[name] * 2 < sizes["plain"] for name in sizes if name != "plain"), sizes
    writer.write(1 << 20, 4 << 20, 0x66)
    push(vm, one(lab.path("inc.qcow2"), since="zstd"), "--compression", "zstd")
    lab.compare(lab.path("inc.qcow2"), vda.model)
    assert os.stat(lab.path("inc.qcow2")).st_blocks * 512 < 1 << 20
    for fmt in ("raw", "vmdk"):
        refused(vm, one(lab.path("never"), fmt=fmt), "'vda'", fmt, "compress",
                options=("--compress",))
    lab.tidemark("begin", "--qmp", vm.address, "--compression", "lzma",
                 lab.file("x.xml", one(lab.path("never"))), rc=2)


@test
def test_seclabel_is_warned_of(lab: Lab) -> None:
    vm, vda = machine(lab)
    inside = "<seclabel model='dac' relabel='no'/>"
    result = push(vm, one(lab.path("a.qcow2"), inside=inside))
    assert "warning" in result.err and "'vda'" in result.err and "seclabel" in result.err, result
    assert inside in result.out, result.out
    lab.compare(lab.path("a.qcow2"), vda.model)


main()
