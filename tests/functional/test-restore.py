#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: what `tidemark restore` brings back boots, wherever it goes; nothing that is there is
overwritten; too small, full, damaged or interrupted, it says why and leaves nothing behind."""
from __future__ import annotations

import glob
import json
import os
import re
import signal
import time

from lab import Disk, Guest, Lab, Model, Skip, Vm, main, soak, test, wait_until
from push import files_below
from repository import Repository

M = 1 << 20


def backed_up(lab: Lab, *sizes: str, operations: int = 40) -> tuple[Repository, Vm]:
    """A repository with a point of a machine with disks vda, vdb, …"""
    disks = [lab.disk(f"vd{letter}", size) for letter, size in zip("abc", sizes)]
    vm = lab.vm(disks)
    for disk in disks:
        vm.writer(disk).random_ops(lab.rng, operations)
    repo = Repository(lab)
    repo.backup(vm)
    return repo, vm


def loop(lab: Lab, size: int) -> str:
    """A loop device full of garbage; to be detached."""
    lab.need("losetup")
    path = lab.fresh(".loop")
    with open(path, "wb") as out:
        out.write(b"\xee" * size)
    result = lab.tool("losetup", "--find", "--show", path, check=False)
    if result.rc != 0:
        raise Skip("no loop device can be had")
    return result.out.strip()


def padded(model: Model, size: int) -> Model:
    """The same disk with zeroes behind it."""
    larger = model.snapshot()
    larger.resize(size)
    return larger


# ---- it is the machine ------------------------------------------------------------------------


def bootable(lab: Lab, name: str, guest: Guest, images: dict[str, str] | None = None) -> Vm:
    """A machine that boots from its own disk 'root', and writes to vda and vdb all the time."""
    disks = []
    if images is None:
        boot = guest.make_boot_disk(lab.dir)
        images = {"root": lab.path("root.qcow2")}
        lab.tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", boot, images["root"])
        for data in ("vda", "vdb"):
            images[data] = lab.create(lab.path(f"{data}.qcow2"), 33 * M)
    for disk, path in images.items():
        size = lab.info(path)["virtual-size"]
        disks.append(Disk(disk, path, Model(size), node=f"{disk}-fmt"))
    guest.serial = lab.path(f"{name}.serial")
    return lab.vm(disks, name=name, extra=["-serial", f"file:{guest.serial}"])


@test
def test_boots(lab: Lab) -> None:
    """Backed up while it writes, in full and then incrementally; restored, it starts again."""
    guest = Guest(slots=1024)
    vm = bootable(lab, "original", guest)
    guest.wait()
    repo = Repository(lab)
    points = []
    for _ in range(2):
        report = lab.tidemark_json("backup", "--qmp", vm.address, "-r", repo.path, "--name",
                                   "shop", rc=(0, 3))
        points.append(report["point"])
        guest.wait()
    vm.quit()
    cuts = []
    for point in points:
        folder = lab.fresh()
        said = repo.run("restore", point, "--to", folder)
        assert said.out.splitlines() == [f"{disk}\t{folder}/{disk}.qcow2"
                                         for disk in ("root", "vda", "vdb")], said
        images = {disk: f"{folder}/{disk}.qcow2" for disk in ("root", "vda", "vdb")}
        for image in images.values():
            lab.check_image(image)
        cuts.append(guest.check_cut([lab.raw(images["vda"]), lab.raw(images["vdb"])]))
        again = Guest(slots=1024)
        restored = bootable(lab, f"restored-{point}", again, images)
        again.wait()
        assert "B" in again.said()
        restored.quit()
    assert cuts[0].heads[0] < cuts[1].heads[0], cuts


@test
def test_folder(lab: Lab) -> None:
    """All disks, in both formats, from the newest point; the domain's XML beside them."""
    vm = lab.vm([lab.disk("vda", "24M"), lab.disk("vdb", 5 * M + 512, fmt="raw")], name="shop")
    text = ("<domain type='kvm'><name>shop</name><devices>"
            + "".join(f"<disk type='file' device='disk'><driver type='{disk.fmt}'/><source "
                      f"file='{disk.path}'/><target dev='{disk.name}'/></disk>" for disk in vm.disks)
            + "</devices></domain>\n")
    repo = Repository(lab)
    for _ in range(2):
        for disk in vm.disks:
            vm.writer(disk).random_ops(lab.rng, 30)
        point = repo.backup(vm, "--domain-xml", lab.file("domain.xml", text))
    for fmt in ("qcow2", "raw"):
        folder = lab.path(f"deep/below/{fmt}")
        said = lab.tidemark_json("restore", "-r", repo.path, "shop/latest", "--to", folder,
                                 "--format", fmt, "--verify")
        assert said["point"] == point.id
        assert said["disks"] == [{"name": disk.name, "target": f"{folder}/{disk.name}.{fmt}"}
                                 for disk in vm.disks], said
        assert said["size"] == sum(disk.model.size for disk in vm.disks) >= said["written"] > 0
        assert sorted(os.listdir(folder)) == sorted(["domain.xml"] + [f"{disk.name}.{fmt}"
                                                                     for disk in vm.disks])
        with open(f"{folder}/domain.xml", encoding="utf-8") as xml:
            assert xml.read() == text
        for disk in vm.disks:
            image = f"{folder}/{disk.name}.{fmt}"
            lab.compare(image, disk.model, fmt)
            assert os.stat(image).st_mode & 0o777 == 0o600
            # Thin: QEMU's own copy takes about as much.
            lab.tool("qemu-img", "convert", "-f", fmt, "-O", fmt, image, f"{image}.copy")
            taken, copied = (os.stat(path).st_blocks for path in (image, f"{image}.copy"))
            assert taken <= copied + 2048, (fmt, taken, copied)


# ---- where it goes ----------------------------------------------------------------------------


@test
def test_block_device(lab: Lab) -> None:
    repo, vm = backed_up(lab, "9M", "4M")
    if os.geteuid() != 0:
        raise Skip("may not make loop devices")
    for size in (9 * M, 14 * M, 9 * M - 512):
        device = loop(lab, size)
        try:
            if size >= 9 * M:
                repo.run("restore", repo.points[0].id, "--disk", "vda", "--to", device, "--verify")
                lab.compare(device, padded(vm["vda"].model, size), "raw")
                continue
            said = repo.run("restore", repo.points[0].id, "--disk", "vda", "--to", device, rc=1)
            assert str(size) in said.err and str(9 * M) in said.err, said
            with open(device, "rb") as disk:  # not a byte of it was touched
                assert disk.read() == b"\xee" * size
        finally:
            lab.tool("losetup", "-d", device)


@test
def test_device_in_use(lab: Lab) -> None:
    """A guest that has the device, or a file system on it, keeps it."""
    lab.need("mke2fs")
    repo, _vm = backed_up(lab, "4M")
    if os.geteuid() != 0:
        raise Skip("may not make loop devices")
    device = loop(lab, 4 * M)
    try:
        other = lab.vm([Disk("vdz", device, Model(4 * M), fmt="raw", node="vdz-fmt",
                             options={"file": {"driver": "host_device", "filename": device,
                                               "node-name": "vdz-file"}})])
        said = repo.run("restore", repo.points[0].id, "--disk", "vda", "--to", device, rc=1)
        assert "in use by QEMU" in said.err, said
        other.quit()
        lab.tool("mke2fs", "-q", "-F", device)
        folder = lab.fresh()
        os.mkdir(folder)
        lab.tool("mount", device, folder)
        try:
            said = repo.run("restore", repo.points[0].id, "--disk", "vda", "--to", device, rc=1)
            assert "busy" in said.err, said
        finally:
            lab.tool("umount", folder)
        repo.run("restore", repo.points[0].id, "--disk", "vda", "--to", device)
        lab.compare(device, repo.points[0].models["vda"], "raw")
    finally:
        lab.tool("losetup", "-d", device, check=False)


@test
def test_nbd(lab: Lab) -> None:
    """To an image that another program writes."""
    repo, vm = backed_up(lab, "20M")
    socket = f"{lab.sockets}/n"
    uri = f"nbd+unix:///?socket={socket}"
    for size in (20 * M, 31 * M, 20 * M - 512):
        image = lab.create(lab.fresh(".qcow2"), size)
        lab.tool("qemu-io", "-f", "qcow2", "-c", f"write -P 0xee 0 {size}", image)
        server = lab.tool_popen("qemu-nbd", "--persistent", "--shared", "4", "--discard", "unmap",
                                "-f", "qcow2", "-k", socket, image)
        wait_until(lambda: lab.tool("nbdinfo", "--can", "connect", uri, check=False).rc == 0)
        said = repo.run("restore", "vm0/latest", "--disk", "vda", "--to", uri,
                        rc=0 if size >= 20 * M else 1)
        server.terminate()
        server.wait()
        if size >= 20 * M:
            assert said.out == f"vda\t{uri}\n"
            lab.compare(image, padded(vm["vda"].model, size))
            lab.check_image(image)
            # Zeroes were made zero, not written.
            assert os.stat(image).st_blocks * 512 < size // 2 + M
        else:
            assert "too small" in said.err and "hint:" in said.err, said
            lab.tool("qemu-io", "-r", "-f", "qcow2", "-c", f"read -P 0xee 0 {size}", image)
        if os.path.exists(socket):
            os.unlink(socket)
    said = repo.run("restore", "vm0/latest", "--disk", "vda", "--to", uri, rc=1)
    assert socket in said.err, said


# ---- what is refused --------------------------------------------------------------------------


@test
def test_nothing_is_overwritten(lab: Lab) -> None:
    repo, _vm = backed_up(lab, "4M", "4M")
    point = repo.points[0].id
    folder = lab.fresh()
    os.mkdir(folder)
    mine = f"{folder}/vdb.qcow2"
    with open(mine, "w", encoding="utf-8") as out:
        out.write("mine")
    before = files_below(lab.dir)
    for more, code, words in (
            (["--to", folder], 1, [mine, "never overwritten"]),
            (["--disk", "vda", "--to", mine], 1, [mine]),
            (["--disk", "vda", "--to", folder], 1, ["folder"]),
            (["--disk", "vdc", "--to", f"{folder}/x"], 1, ["'vdc'", "vda, vdb"]),
            (["--to", mine], 2, ["--disk"]),
            (["--to", f"{repo.path}/config"], 1, ["no folder", "--disk"]),
            (["--to", f"{folder}/x.qcow2"], 2, ["--disk"]),
            (["--to", "nbd://localhost:1"], 2, ["--disk"]),
            (["--to", f"{folder}/x", "--format", "vmdk"], 2, ["'vmdk'", "qcow2"]),
            (["--disk", "vda"], 2, ["--to"]),
            (["--to", ""], 2, ["--to"]),
            (["--to", f"{folder}/x", "--threads", "-1"], 2, ["'-1'"]),
            (["--to", "/proc/x"], 1, ["/proc/x"])):
        said = repo.run("restore", point, *more, rc=code)
        assert not said.out and "hint:" in said.err or more[1] == "/proc/x", said
        for word in words:
            assert word in said.err, said
        assert files_below(lab.dir) == before
    said = repo.run("restore", "ffff", "--to", f"{folder}/x", rc=1)
    assert "ffff" in said.err
    with open(mine, encoding="utf-8") as text:
        assert text.read() == "mine"
    said = json.loads(repo.run("restore", point, "--to", folder, "--json", rc=1).out)
    assert said["error"]["code"] == "exists" and "damage" not in said


@test
def test_no_space(lab: Lab) -> None:
    repo, vm = backed_up(lab, "4M")
    vm.writer(vm["vda"]).write_random(0, 4 * M, lab.rng)
    repo.backup(vm)
    small = lab.tmpfs("2m")
    for suffix in (".qcow2", ".raw"):
        said = repo.run("restore", "vm0/latest", "--disk", "vda", "--to", f"{small}/x{suffix}", rc=1)
        assert "No space left" in said.err and "'vda'" in said.err, said
        assert os.listdir(small) == []


# ---- damage -----------------------------------------------------------------------------------


def objects_of(pack: bytes, kind: int) -> list[tuple[int, int]]:
    """Where the records of a kind begin in a pack, and how long they are."""
    table, entries = (int.from_bytes(pack[at:at + size], "little")
                      for at, size in ((len(pack) - 64 + 16, 8), (len(pack) - 64 + 24, 4)))
    rows = (pack[table + 48 * n:table + 48 * n + 48] for n in range(entries))
    return [(int.from_bytes(row[32:40], "little"), int.from_bytes(row[40:44], "little"))
            for row in rows if row[44] == kind]


@test
def test_damage(lab: Lab) -> None:
    """A bit that has changed in one chunk: that range is named, and nothing is left."""
    disk = lab.disk("vda", "12M")
    vm = lab.vm([disk, lab.disk("vdb", "4M")])
    vm.writer(disk).write_random(3 * M, 2 * M, lab.rng)
    vm.writer(vm["vdb"]).write(1 * M, M, 7)
    repo = Repository(lab)
    point = repo.backup(vm)
    packs = {path: open(path, "rb").read()
             for path in glob.glob(f"{repo.path}/packs/**", recursive=True) if os.path.isfile(path)}
    chunks = [(path, at, length) for path, pack in packs.items()
              for at, length in objects_of(pack, 1) if length > 60000]
    assert len(chunks) == 32, len(chunks)
    path, at, length = lab.rng.choice(chunks)
    os.chmod(path, 0o600)
    with open(path, "r+b") as pack:
        where = at + 56 + lab.rng.randrange(length - 56)
        pack.seek(where)
        pack.write(bytes([packs[path][where] ^ 1 << lab.rng.randrange(8)]))
    before = files_below(lab.dir)
    for more in (["--to", lab.path("to")], ["--disk", "vda", "--to", lab.path("x.raw")]):
        said = repo.run("restore", point.id, *more, rc=4)
        assert not said.out
        found = re.search(r"damaged: disk 'vda', 65536 bytes at (\d+): .*pack", said.err)
        assert found and 3 * M <= int(found[1]) < 5 * M, said
        assert "hint:" in said.err
        assert files_below(lab.dir) == before
    report = json.loads(repo.run("restore", point.id, "--to", lab.path("to"), "--json", rc=4).out)
    assert report["error"]["code"] == "damaged"
    (damage,) = report["damage"]
    assert (damage["point"], damage["disk"]) == (point.id, "vda")
    assert (damage["offset"], damage["length"]) == (int(found[1]), 65536)
    # The other disk is whole.
    image = repo.restore(point, "vdb")
    lab.compare(image, vm["vdb"].model)


# ---- given up ---------------------------------------------------------------------------------


@test
def test_interrupted(lab: Lab) -> None:
    """Ctrl-C at any moment: all there and right, or nothing."""
    disk = lab.disk("vda", "96M")
    vm = lab.vm([disk, lab.disk("vdb", "4M")])
    vm.writer(disk).write_random(0, 80 * M, lab.rng)
    repo = Repository(lab)
    point = repo.backup(vm)
    before = files_below(lab.dir)
    began = time.monotonic()
    repo.run("restore", point.id, "--to", lab.path("whole"))
    took = time.monotonic() - began
    for name in os.listdir(lab.path("whole")):
        os.unlink(lab.path(f"whole/{name}"))
    os.rmdir(lab.path("whole"))
    codes = []
    while len(codes) < soak(10, 100) or 130 not in codes:
        assert len(codes) < 300
        child = lab.tidemark_popen("restore", "-r", repo.path, point.id, "--to", lab.path("to"),
                                   "--format", lab.rng.choice(["raw", "qcow2"]))
        time.sleep(lab.rng.uniform(0.02, took))
        child.send_signal(lab.rng.choice([signal.SIGINT, signal.SIGTERM]))
        _out, err = child.communicate(timeout=30)
        codes.append(child.returncode)
        if child.returncode in (130, -signal.SIGINT, -signal.SIGTERM):  # before it took notice
            assert files_below(lab.dir) == before, err
            continue
        assert child.returncode == 0, err
        for image in glob.glob(lab.path("to/*")):
            fmt = image.rpartition(".")[2]
            lab.compare(image, vm[os.path.basename(image).partition(".")[0]].model, fmt)
            os.unlink(image)
        os.rmdir(lab.path("to"))


@test(timeout=280)
def test_killed_at_each_step(lab: Lab) -> None:
    """Killed, it can leave files. No image among them is taken for a good one that is not, and they
    stand in the way of the next restore, which goes elsewhere."""
    repo, vm = backed_up(lab, "6M", "4M")
    point = repo.points[0].id
    args = ("restore", "-r", repo.path, point, "--to")
    trace = lab.tidemark(*args, lab.path("traced"), env={"TIDEMARK_TEST_TRACE": "1"})
    names = re.findall(r"^testpoint \d+ (\S+)", trace.err, re.M)
    assert {"restore-mkdir", "sink-created", "sink-header", "restore-finished"} <= set(names), names
    for number in range(1, len(names) + 1):
        folder = lab.fresh()
        lab.tidemark(*args, folder, env={"TIDEMARK_TEST_KILL_AT": str(number)}, rc=-signal.SIGKILL)
        for image in glob.glob(f"{folder}/*.qcow2"):
            if lab.info(image)["format"] == "qcow2":
                lab.compare(image, vm[os.path.basename(image).partition(".")[0]].model)
                lab.check_image(image)
    repo.run("restore", point, "--to", lab.fresh())
    repo.check_all()


# ---- what is shown ----------------------------------------------------------------------------


@test
def test_output(lab: Lab) -> None:
    repo, _vm = backed_up(lab, "8M", "4M")
    said = repo.run("restore", "vm0/latest", "--to", lab.path("a"))
    assert said.out == f"vda\t{lab.path('a')}/vda.qcow2\nvdb\t{lab.path('a')}/vdb.qcow2\n"
    assert "restored 2 disks" in said.err
    said = repo.run("restore", "vm0/latest", "--to", lab.path("b"), "-q")
    assert said.err == "" and said.out.count("\n") == 2
    said = repo.run("restore", "vm0/latest", "--to", lab.path("c"), "-q", "--json")
    assert set(json.loads(said.out)) == {"point", "disks", "files", "domain", "size", "written",
                                         "elapsed_us"}
    lab.tidemark("restore", repo.points[0].id[:6], "--disk", "vda", "--to", lab.path("d.raw"),
                 env={"TIDEMARK_REPO": repo.path})


main()
