#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: images encrypted with LUKS, qcow2 and plain, are backed up as what a guest sees in them,
the qcow2 ones incrementally, on and off; below an overlay too. A missing or wrong passphrase is
refused with the disk's name, nothing is changed, and no passphrase is where others could see it."""
from __future__ import annotations

import glob
import os

from lab import Disk, Lab, Model, Writer, main, test, wait_until
from repository import Point, Repository, check_words

SIZE = 6 << 20
PASSPHRASE = "open, sesame = 1"


class Encrypted:
    """An image that is encrypted, written to by qemu-io and compared by qemu-img."""

    def __init__(self, lab: Lab, name: str, fmt: str, secret: str, size: int = SIZE,
                 backing: Encrypted | None = None) -> None:
        self.lab, self.fmt, self.secret, self.below = lab, fmt, secret, backing
        unit = None if fmt == "luks" or backing else 1 << 16
        model = Model(size, unit)
        if backing:
            model.data[:] = backing.disk.model.data
        self.disk = Disk(name, lab.path(f"{name}.{fmt}"), model, fmt=fmt)
        options = ["key-secret=s,iter-time=10"] if fmt == "luks" else [
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"]
        under = ["-u", "-b", backing.disk.path, "-F", "qcow2"] if backing else []
        make = ["create", "-q", *self.object, "-f", fmt, "-o", options[0], *under, self.disk.path,
                size]
        # QEMU's measurement of CPU time fails now and then.
        wait_until(lambda: lab.tool("qemu-img", *make, check=False).rc == 0)
        if fmt == "luks":  # what was never written reads as noise
            self.writer().write(0, size, 0)

    @property
    def object(self) -> list[str]:
        return ["--object", f"secret,id=s,file={self.secret.replace(chr(44), chr(44) * 2)}"]

    def options(self, prefix: str = "", *, chain: bool = True) -> str:
        inner = "key-secret=s" if self.fmt == "luks" else \
            f"encrypt.format=luks,{prefix}encrypt.key-secret=s"
        text = (f"{prefix}driver={self.fmt},{prefix}file.driver=file,"
                f"{prefix}file.filename={self.disk.path},{prefix}{inner}")
        return text + ("," + self.below.options(f"{prefix}backing.") if self.below and chain else "")

    def argument(self, secret: str | None = None) -> str:
        return (f"--image={self.disk.name}={self.disk.path},secret={secret or self.secret},"
                f"format={self.fmt}")

    def writer(self) -> Writer:
        mode = "ignore" if self.disk.model.discard_unit is None else "unmap"
        more = f",discard={mode},file.discard={mode}"

        def do(command: str) -> str:
            said = self.lab.tool("qemu-io", *self.object, "--image-opts", self.options() + more,
                                 "-c", command, rc=(0, 1))
            return said.out + said.err

        return Writer(do, self.disk.model, self.lab.fresh(".content"),
                      zero_as_data=self.fmt == "luks")

    def change(self, count: int = 6) -> None:
        self.writer().random_ops(self.lab.rng, count, longest=1 << 18)

    def bitmaps(self) -> list[str]:
        said = self.lab.info(self.disk.path, "qcow2")
        return [one["name"] for one in said["format-specific"]["data"].get("bitmaps", [])]

    def assert_sound(self, names: int = 1) -> None:
        if self.fmt == "qcow2":
            self.lab.tool("qemu-img", "check", *self.object, "--image-opts", self.options())
            assert len(self.bitmaps()) <= names, self.bitmaps()


def backup(repo: Repository, images: list[Encrypted], *options: object) -> Point:
    return repo.backup_of([one.argument() for one in images],
                          {one.disk.name: one.disk.model for one in images}, *options)


def passphrase(lab: Lab) -> str:
    """In a folder whose name would be cut by who cuts carelessly."""
    os.makedirs(lab.path("keys, all"), exist_ok=True)
    return lab.file("keys, all/key", PASSPHRASE)


@test(timeout=180)
def test_chain(lab: Lab) -> None:
    secret = passphrase(lab)
    images = [Encrypted(lab, "vda", "qcow2", secret), Encrypted(lab, "vdb", "luks", secret, 3 << 20)]
    repo = Repository(lab)
    for number in range(4):
        for one in images:
            one.change(15 if number == 0 else 5)
        point = backup(repo, images, "--name", "web")
        assert point.modes == {"vda": "incremental" if number else "full", "vdb": "full"}, point.modes
        for one in images:
            one.assert_sound()
    repo.check_all()
    assert repo.verify()["damaged"] == 0
    # With a newline behind it, and one given relative to where the program runs.
    lab.file("newline", PASSPHRASE + "\n")
    lab.tidemark("disks", f"--image=vda={images[0].disk.path},secret=newline", cwd=lab.dir)
    # The bytes as they lie there, without a passphrase.
    plain = f"--image=vdb={images[1].disk.path},format=raw"
    report = lab.tidemark_json("backup", plain, "-r", repo.path, "--name", "cipher", rc=(0, 3))
    lab.tool("cmp", repo.restore(report["point"], "vdb", ".raw"), images[1].disk.path)


@test(timeout=180)
def test_on_and_off(lab: Lab) -> None:
    """A virtual machine that has the passphrase itself, and its description's <encryption>."""
    secret = passphrase(lab)
    images = [Encrypted(lab, "vda", "qcow2", secret), Encrypted(lab, "vdb", "luks", secret, 3 << 20)]
    xml = lab.file("domain.xml", "<domain type='kvm'><name>web</name><devices>" + "".join(
        f"<disk type='file' device='disk'><driver name='qemu' type='{fmt}'/><source file="
        f"'{one.disk.path}'><encryption format='luks'><secret type='passphrase' "
        f"uuid='0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f'/></encryption></source>"
        f"<target dev='{one.disk.name}' bus='virtio'/></disk>"
        for one, fmt in zip(images, ("qcow2", "raw"))) + "</devices></domain>")
    repo = Repository(lab)
    bare = [f"--image={one.disk.name}={one.disk.path},secret={secret}" for one in images]
    models = {one.disk.name: one.disk.model for one in images}
    for number in range(3):
        for one in images:
            one.change()
        point = repo.backup_of(bare, models, "--domain-xml", xml)  # the document has the formats
        assert point.modes["vda"] == ("incremental" if number else "full"), point.modes
        if number == 2:
            break
        socket = os.path.join(lab.sockets, "nbd-qmp")
        vm = lab.tool_popen("qemu-system-x86_64", *lab.firmware(), "-M", "q35", "-nodefaults",
                            "-display", "none", "-S", "-name", "web", *images[0].object, "-qmp",
                            f"unix:{socket},server=on,wait=off", *[
                                word for one in images for word in (
                                    "-blockdev", one.options().replace(
                                        "driver=", f"node-name={one.disk.name}-fmt,driver=", 1),
                                    "-device", f"virtio-blk-pci,id={one.disk.name},"
                                               f"drive={one.disk.name}-fmt")])
        wait_until(lambda: os.path.exists(socket))
        point = repo.backup_of(["--qmp", socket], models, "--domain-xml", xml)
        assert point.modes["vda"] == "incremental", point.report
        vm.terminate()
        vm.wait(30)
        os.path.exists(socket) and os.unlink(socket)
    repo.check_all()


@test(timeout=120)
def test_overlay(lab: Lab) -> None:
    """Both encrypted; the checkpoint below is removed, which reopens the image for writing."""
    secret = passphrase(lab)
    base = Encrypted(lab, "base", "qcow2", secret)
    base.disk.name = "vda"
    base.change(15)
    repo = Repository(lab)
    backup(repo, [base], "--name", "web")
    [checkpoint] = base.bitmaps()
    top = Encrypted(lab, "vda", "qcow2", secret, backing=base)
    lab.tool("qemu-img", "bitmap", "--add", *top.object, "--image-opts",
             top.options(chain=False), checkpoint)
    top.change()
    point = backup(repo, [top], "--name", "web")
    assert point.modes == {"vda": "incremental"}, point.report
    top.assert_sound()
    base.assert_sound()
    assert base.bitmaps() == [], "the superseded checkpoint stays below"
    top.change()
    assert backup(repo, [top], "--name", "web").modes == {"vda": "incremental"}
    repo.check_all()


@test
def test_refusals(lab: Lab) -> None:
    secret = passphrase(lab)
    repo = Repository(lab)
    wrong, empty = lab.file("wrong", "geheim"), lab.file("empty", "\n")
    for name, fmt in (("vda", "qcow2"), ("vdb", "luks")):
        one = Encrypted(lab, name, fmt, secret)
        one.change(10)
        before = lab.tool("sha256sum", one.disk.path).out
        bare = f"--image={name}={one.disk.path},format={fmt}"
        for argument, words in ((bare, ("encrypted", f"--image {name}=", "secret=")),
                                (one.argument(wrong), ("passphrase", wrong)),
                                (one.argument(empty), ("empty", empty)),
                                (one.argument(lab.path("none")), ("passphrase", "No such file"))):
            for verb in (["disks"], ["backup", "-r", repo.path, "--name", "web"],
                         ["checkpoint", "create", "c1"]):
                said = lab.tidemark(*verb, argument, rc=1)
                check_words(said.err, f"'{name}'", *words)
                assert "geheim" not in said.err
        assert before == lab.tool("sha256sum", one.disk.path).out
    assert not glob.glob(f"{lab.state}/domains/*/images.json")
    # An image of a guest that encrypts its disk itself is what it is.
    backup(repo, [one], "--name", "web")
    repo.check_all()


@test
def test_nobody_sees_it(lab: Lab) -> None:
    """Not on a command line, not in the state folder, not in a trace; a job's guard has it too."""
    one = Encrypted(lab, "vda", "qcow2", passphrase(lab))
    one.change(10)
    target = lab.path("push.qcow2")
    definition = lab.file("push.xml", f"""<domainbackup><disks><disk name='vda' type='file'>
        <target file='{target}'/></disk></disks></domainbackup>""")
    said = lab.tidemark("begin", f"--image=vda={os.path.basename(one.disk.path)},format=qcow2,"
                        f"secret={os.path.relpath(one.secret, lab.dir)}", definition, "--bandwidth",
                        "1M", env={"TIDEMARK_QMP_TRACE": "1"}, cwd=lab.dir)
    assert "object-add" in said.err and PASSPHRASE not in said.err
    lines = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as line:
                lines.append(line.read())
        except (FileNotFoundError, ProcessLookupError):
            continue
    assert any(b"tidemark-images-" in line for line in lines)
    assert not [line for line in lines if PASSPHRASE.encode() in line and b"python" not in line]
    lab.tool("grep", "-r", PASSPHRASE, lab.state, rc=1)
    # The guard ends the daemon.
    wait_until(lambda: not glob.glob(f"{lab.state}/domains/*/images.json"), 20)
    lab.compare(target, one.disk.model)
    one.assert_sound(0)


main()
