#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a real QEMU says of its disks, for test-hv-disks.c: writes qemuMAJOR-LAYOUT.json here.

    capture.py [COMMAND…]      COMMAND starts qemu-system-x86_64 (the default), with a loader in
                               front of it where another suite's QEMU was only unpacked

Each file holds the return values of query-block, query-blockstats and query-named-block-nodes, less
what nobody reads (counters, limits, caches) and with the folder of the images replaced by /images.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2] / "lib"))
from qmp import Qmp, action, bitmap_add  # noqa: E402

KEPT = {
    "block": {"device", "qdev", "type", "removable", "locked", "io-status", "tray_open",
              "inserted"},
    "inserted": {"node-name", "drv", "ro", "file", "backing_file"},
    "stats": {"device", "qdev", "node-name", "backing", "parent"},
    "node": {"node-name", "drv", "ro", "file", "image", "dirty-bitmaps"},
    "image": {"virtual-size", "actual-size", "filename", "format", "format-specific"},
    "format-specific": {"type", "data"},
    "data": {"compat", "data-file"},
}
INSIDE = {"inserted": "inserted", "backing": "stats", "parent": "stats", "image": "image",
          "format-specific": "format-specific", "data": "data"}


def trim(value, kind):
    """Only what KEPT names for this kind of object."""
    if isinstance(value, list):
        return [trim(entry, kind) for entry in value]
    return {key: trim(entry, INSIDE[key]) if key in INSIDE else entry
            for key, entry in value.items() if key in KEPT[kind]}


def image(name, *more, fmt="qcow2", size="1M"):
    subprocess.run(["qemu-img", "create", "-q", "-f", fmt, *more, name, size], check=True)


def bitmap(name, *bitmaps):
    for one in bitmaps:
        subprocess.run(["qemu-img", "bitmap", "--add", "-g", "64k", name, one], check=True)


def blockdev(name, file, driver="qcow2", **more):
    """A format node and a protocol node below it."""
    storage = {"driver": "file", "node-name": f"{name}-file", "filename": file}
    if more.get("read-only"):
        storage["read-only"] = True
    node = {"driver": driver, "node-name": name, "file": f"{name}-file", **more}
    return ["-blockdev", json.dumps(storage), "-blockdev", json.dumps(node)]


def layout_blockdev():
    """-blockdev: a chain of three, filters, every kind of device, ids and none."""
    image("base.qcow2")
    image("mid.qcow2", "-b", "base.qcow2", "-F", "qcow2")
    image("top.qcow2", "-b", "mid.qcow2", "-F", "qcow2")
    bitmap("mid.qcow2", "c1", "old")
    bitmap("top.qcow2", "c1", "c2")
    image("old.qcow2", "-o", "compat=0.10")
    for name in "scsi.qcow2", "nvme.qcow2", "anon.qcow2":
        image(name)
    image("job.qcow2", size="16M")
    for name in "plain.raw", "bare.raw", "readonly.raw", "medium.raw", "flash.raw":
        image(name, fmt="raw", size="128K" if name == "flash.raw" else "1M")
    bitmap("scsi.qcow2", "c1")
    bitmap("job.qcow2", "c1")
    subprocess.run(["qemu-io", "-c", "write -q 0 16M", "job.qcow2"], check=True)
    arguments = [
        "-M", "pc,pflash0=flash",
        *blockdev("flash", "flash.raw", "raw"),
        *blockdev("base", "base.qcow2"),
        *blockdev("mid", "mid.qcow2", backing="base"),
        *blockdev("top", "top.qcow2", backing="mid"),
        "-device", "virtio-blk-pci,drive=top,id=vda",
        "-device", "virtio-scsi-pci,id=scsi",
        "-object", "throttle-group,id=slow,x-iops-total=100",
        *blockdev("inner", "scsi.qcow2"),
        "-blockdev", "driver=throttle,node-name=limit,throttle-group=slow,file=inner",
        "-device", "scsi-hd,bus=scsi.0,drive=limit,id=sd",
        *blockdev("nv", "nvme.qcow2"), "-device", "nvme,drive=nv,serial=nv,id=nvme0",
        *blockdev("anon", "anon.qcow2"), "-device", "virtio-blk-pci,drive=anon",
        *blockdev("plain", "plain.raw", "raw"), "-device", "virtio-blk-pci,drive=plain,id=plain",
        "-blockdev", "driver=file,node-name=bare,filename=bare.raw",
        "-device", "virtio-blk-pci,drive=bare,id=bare",
        *blockdev("old", "old.qcow2"), "-device", "virtio-blk-pci,drive=old,id=v2",
        *blockdev("readonly", "readonly.raw", "raw", **{"read-only": True}),
        "-device", "virtio-blk-pci,drive=readonly,id=readonly",
        *blockdev("medium", "medium.raw", "raw", **{"read-only": True}),
        "-device", "ide-cd,bus=ide.0,unit=0,drive=medium,id=dvd",
        "-device", "ide-cd,bus=ide.1,unit=0,id=tray",
        *blockdev("job", "job.qcow2"), "-device", "virtio-blk-pci,drive=job,id=busy",
    ]

    def prepare(qmp):
        # A running backup puts a filter of its own, named by QEMU, on top of the disk.
        image("target.raw", fmt="raw", size="16M")
        qmp.command("blockdev-add", driver="file", node_name="target", filename="target.raw")
        qmp.transaction(
            bitmap_add("job", "tmk-0-b0", persistent=False, disabled=True),
            action("block-dirty-bitmap-merge", node="job", target="tmk-0-b0", bitmaps=["c1"]),
            action("blockdev-backup", job_id="tmk-0-busy", device="job", target="target",
                   sync="bitmap", bitmap="tmk-0-b0", bitmap_mode="never", auto_dismiss=False,
                   speed=1))
        qmp.command("block-dirty-bitmap-add", node="top", name="volatile")
        qmp.command("block-dirty-bitmap-disable", node="top", name="c2")
    return arguments, prepare


def layout_drive():
    """-drive: nodes that QEMU named itself, drives of machine types, snapshot=on."""
    for name in "virtio.qcow2", "id.qcow2", "ide.qcow2", "snapshot.qcow2", "deep.qcow2":
        image(name)
    image("over.qcow2", "-b", "deep.qcow2", "-F", "qcow2")
    for name in "floppy.raw", "flash.raw", "cd.raw", "unused.raw":
        image(name, fmt="raw", size="128K" if name == "flash.raw" else "1440K")
    bitmap("over.qcow2", "c1")
    return [
        "-M", "pc",
        "-drive", "if=pflash,format=raw,file=flash.raw",
        "-drive", "if=virtio,format=qcow2,file=virtio.qcow2",
        "-drive", "if=none,id=data,format=qcow2,file=over.qcow2,throttling.iops-total=100",
        "-device", "virtio-blk-pci,drive=data,id=named",
        "-drive", "if=none,id=drive-virtio-disk3,format=qcow2,file=id.qcow2",
        "-device", "virtio-blk-pci,drive=drive-virtio-disk3",
        "-drive", "if=ide,index=0,format=qcow2,file=ide.qcow2",
        "-drive", "if=ide,index=1,media=cdrom,format=raw,file=cd.raw",
        "-drive", "if=ide,index=2,media=cdrom",
        "-drive", "if=floppy,format=raw,file=floppy.raw",
        "-drive", "if=virtio,format=qcow2,file=snapshot.qcow2,snapshot=on",
        "-drive", "if=none,id=unused,format=raw,file=unused.raw",
        "-drive", "if=none,id=nothing",
    ], None


def layout_libvirt():
    """As libvirt starts QEMU: its node names and its device aliases."""
    arguments = ["-M", "q35", "-device", "virtio-scsi-pci,id=scsi0",
                 "-device", "qemu-xhci,id=usb"]
    devices = ["virtio-blk-pci,id=virtio-disk0", "virtio-blk-pci,id=ua-data",
               "scsi-hd,bus=scsi0.0,channel=0,scsi-id=0,lun=1,id=scsi0-0-0-1",
               "usb-storage,bus=usb.0,id=usb-disk26", "ide-hd,bus=ide.2,id=sata0-0-2"]
    for number, device in enumerate(devices, 1):
        image(f"disk{number}.qcow2")
        storage = {"driver": "file", "filename": f"disk{number}.qcow2", "auto-read-only": True,
                   "discard": "unmap", "node-name": f"libvirt-{number}-storage"}
        node = {"node-name": f"libvirt-{number}-format", "driver": "qcow2", "read-only": False,
                "file": f"libvirt-{number}-storage"}
        arguments += ["-blockdev", json.dumps(storage), "-blockdev", json.dumps(node),
                      "-device", f"{device},drive=libvirt-{number}-format"]
    bitmap("disk1.qcow2", "monday", "tuesday")
    return arguments + ["-device", "ide-cd,bus=ide.0,id=sata0-0-0"], None


def capture(command, layout):
    with tempfile.TemporaryDirectory() as folder:
        before = os.getcwd()
        os.chdir(folder)
        arguments, prepare = layout()
        # Paths below the folder are absolute, as they are wherever a backup is made.
        arguments = [one.replace("file=", f"file={folder}/") if one.startswith("if=") else
                     one.replace('"filename": "', f'"filename": "{folder}/')
                        .replace("filename=", f"filename={folder}/") for one in arguments]
        with subprocess.Popen([*command, "-S", "-nodefaults", "-display", "none", "-accel", "tcg",
                               "-qmp", f"unix:{folder}/qmp,server=on,wait=off",
                               *arguments]) as process:
            try:
                qmp = Qmp(f"{folder}/qmp", alive=lambda: process.poll() is None)
                if prepare:
                    prepare(qmp)
                found = {"block": trim(qmp.command("query-block"), "block"),
                         "blockstats": trim(qmp.command("query-blockstats"), "stats"),
                         "nodes": trim(qmp.command("query-named-block-nodes"), "node")}
                major = qmp.version[0]
            finally:
                process.kill()
        os.chdir(before)
        text = json.dumps(found, indent=1, sort_keys=True).replace(folder, "/images")
        name = layout.__name__.removeprefix("layout_")
        (HERE / f"qemu{major}-{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    for one in layout_blockdev, layout_drive, layout_libvirt:
        capture(sys.argv[1:] or ["qemu-system-x86_64"], one)
