#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: LUKS targets are what their secret opens and nothing else: qemu-img, given the passphrase
by other means, finds the disk in them; without the right one it, and a later job, are refused."""
import base64
import os

from backup import backup_xml, checkpoint_xml, disk_xml
from lab import Disk, Guest, Lab, Vm, main, test
from push import push, refused

UUID = "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f"
OTHER = "11111111-2222-3333-4444-555555555555"


def luks(secret: str, more: str = "") -> str:
    return f"<encryption format='luks'><secret type='passphrase' {secret}/>{more}</encryption>"


def by_uuid(uuid: str = UUID) -> str:
    return f"uuid='{uuid}'"


def machine(lab: Lab) -> tuple[Vm, Disk]:
    vda = lab.disk("vda", "12M")
    vm = lab.vm([vda])
    vm.writer(vda).random_ops(lab.rng, 15)
    vm.writer(vda).write_random(0, 4096, lab.rng)
    return vm, vda


def opened(lab: Lab, passphrase: bytes, images: list[tuple[str, str]]) -> list[str]:
    """Options by which qemu-img opens a chain: (path, 'qcow2' or 'luks' or 'plain'), top first."""
    secret = base64.b64encode(passphrase).decode()
    words = []
    for depth, (path, kind) in enumerate(images):
        at = "backing." * depth
        words += [f"{at}driver={'luks' if kind == 'luks' else 'qcow2'}",
                  f"{at}file.driver=file", f"{at}file.filename={path}"]
        if kind == "qcow2":
            words += [f"{at}encrypt.format=luks", f"{at}encrypt.key-secret=s"]
        elif kind == "luks":
            words += [f"{at}key-secret=s"]
    return ["--object", f"secret,id=s,data={secret},format=base64", "--image-opts",
            ",".join(words)]


def compare(lab: Lab, disk: Disk, passphrase: bytes, *images: tuple[str, str], rc: int = 0) -> None:
    truth = disk.model.save(lab.fresh(".model"))
    secret, data, mode, options = opened(lab, passphrase, list(images))
    plain = lab.fresh(".raw")
    result = lab.tool("qemu-img", "convert", secret, data, mode, "-O", "raw", options, plain,
                      check=False)
    assert (result.rc == 0) == (rc == 0), result
    if rc == 0:
        lab.tool("cmp", plain, truth)
        if images[0][1] != "plain" and any(disk.model.data[:64]):
            with open(images[0][0], "rb") as image:
                assert bytes(disk.model.data[:64]) not in image.read(), "written in the clear"


@test
def test_qcow2_and_raw_by_uuid_and_usage(lab: Lab) -> None:
    """Secrets from a file (plain and base64) and from a folder, by uuid and by usage."""
    vm, vda = machine(lab)
    odd = "p\u00e4ss\nin two, lines=".encode()
    table = lab.file("secrets", f"# of the tests\nuuid {OTHER} wrong\nuuid {UUID.upper()} pass word\n"
                     f"usage vol/a%b c base64:{base64.b64encode(odd).decode()}\n"
                     "usage vol other\n")
    folder = lab.path("secret.d")
    os.mkdir(folder)
    for name, value in ((UUID, b"from the folder\n"), ("vol%2Fa%25b c", odd)):
        with open(f"{folder}/{name}", "wb") as out:
            out.write(value)
    # Two of them with a cipher and an ivgen of the document's choice.
    ciphers = ("<cipher name='serpent' size='256' mode='cbc' hash='sha512'/>"
               "<ivgen name='essiv' hash='sha256'/>")
    wanted = {"cipher-alg": "serpent-256", "cipher-mode": "cbc", "ivgen-alg": "essiv",
              "ivgen-hash-alg": "sha256", "hash-alg": "sha512"}
    runs = [(table, by_uuid(), b"pass word", "qcow2", ciphers),
            (table, "usage='vol/a%b c'", odd, "raw", ""),
            (folder, by_uuid(UUID.upper()), b"from the folder", "raw", ciphers),
            (folder, "usage='vol/a%b c'", odd, "qcow2", "")]
    for number, (source, secret, passphrase, fmt, more) in enumerate(runs):
        target, kind = lab.path(f"{number}.{fmt}"), "luks" if fmt == "raw" else fmt
        inside = luks(secret, more)
        result = push(vm, backup_xml([disk_xml("vda", target, fmt=fmt, inside=inside)]),
                      "--secrets", source, checkpoint=checkpoint_xml(f"c{number}"))
        assert "pass word" not in result.out + result.err
        compare(lab, vda, passphrase, (target, kind))
        compare(lab, vda, b"wrong", (target, kind), rc=1)
        data = lab.info(target, kind)["format-specific"]["data"]
        data = data.get("encrypt", data)
        assert (wanted.items() <= data.items()) == bool(more), data
    assert lab.info(lab.path("0.qcow2"))["encrypted"]


@test
def test_incremental_over_encrypted(lab: Lab) -> None:
    """Both kinds below: the backing format must say what the image is, not what is in it."""
    vm, vda = machine(lab)
    secrets = ("--secrets", lab.file("secrets", f"uuid {UUID} abc\n"))
    for fmt, kind, above in (("qcow2", "qcow2", "qcow2"), ("raw", "luks", "plain")):
        base, top = lab.path(f"base.{fmt}"), lab.path(f"top-{fmt}.qcow2")
        push(vm, backup_xml([disk_xml("vda", base, fmt=fmt, inside=luks(by_uuid()))]), *secrets,
             checkpoint=checkpoint_xml(f"c-{fmt}"))
        vm.writer(vda).random_ops(lab.rng, 8)
        inside = luks(by_uuid()) if above == "qcow2" else ""
        push(vm, backup_xml([disk_xml("vda", top, since=f"c-{fmt}", inside=inside)]), *secrets)
        found = lab.info(top)
        assert found["backing-filename"] == f"base.{fmt}", found
        assert found["backing-filename-format"] == kind, found
        compare(lab, vda, b"abc", (top, above), (base, kind))


@test
def test_guest_goes_on(lab: Lab) -> None:
    """Making a key takes seconds, which must not be QEMU's: opening it has to be short, too."""
    guest = Guest(slots=256)
    vm = lab.vm([lab.disk("vda", "12M")], guest=guest)
    guest.wait(30)
    with guest.watch() as watch:
        push(vm, backup_xml([disk_xml("vda", lab.path("a"), inside=luks(by_uuid()))]),
             "--secrets", lab.file("secrets", f"uuid {UUID} abc\n"))
    # Without a load 0.2 s; made by QEMU itself, the key took 5 s.
    assert watch.longest < 3, f"{watch.longest:.2f} s without a guest write"


@test
def test_reused_luks(lab: Lab) -> None:
    """The image's own key is used: with another passphrase it cannot be opened."""
    vm, vda = machine(lab)
    secret = "secret,id=s,data=abc"
    for fmt, kind, options in (
            ("qcow2", "qcow2", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"),
            ("raw", "luks", "key-secret=s,iter-time=10")):
        target = lab.path(f"own.{kind}")
        make = ("create", "-q", "--object", secret, "-f", kind, "-o", options, target)
        # QEMU's measurement of CPU time fails now and then.
        while lab.tool("qemu-img", *make, vda.model.size, check=False).rc != 0:
            pass
        document = backup_xml([disk_xml("vda", target, fmt=fmt, inside=luks(by_uuid()))])
        refused(vm, document, "'vda'", options=(
            "--reuse-external", "--secrets", lab.file("bad.xml", f"uuid {UUID} xyz\n")))
        push(vm, document, "--reuse-external", "--secrets",
             lab.file("good.xml", f"uuid {UUID} abc\n"))
        compare(lab, vda, b"abc", (target, kind))


@test
def test_unknown_cipher(lab: Lab) -> None:
    vm, _ = machine(lab)
    secrets = ("--secrets", lab.file("secrets", f"uuid {UUID} abc\n"))
    unknown = luks(by_uuid(), "<cipher name='rot' size='13' mode='cbc' hash='md5'/>"
                              "<ivgen name='plain'/>")
    refused(vm, backup_xml([disk_xml("vda", lab.path("x"), inside=unknown)]), "'vda'", "rot-13",
            options=secrets)


@test
def test_refusals(lab: Lab) -> None:
    """Nothing is left, and no message holds a secret."""
    vm, _ = machine(lab)
    document = backup_xml([disk_xml("vda", lab.path("never"), inside=luks(by_uuid()))])
    usage = backup_xml([disk_xml("vda", lab.path("never"), inside=luks("usage='..'"))])
    refused(vm, document, "'vda'", UUID, "--secrets")
    empty = lab.path("empty")
    os.mkdir(empty)
    lab.file("empty/" + OTHER, "x")
    lab.file("empty/blank", "\n")
    others = lab.file("others", f"uuid {OTHER} geheim\nusage a b\nuuid {UUID}\nnonsense\n")
    for source in (lab.path("absent"), empty, others):
        result = refused(vm, document, "'vda'", UUID, options=("--secrets", source))
        assert "geheim" not in result.err
    refused(vm, usage, "'vda'", "'..'", options=("--secrets", empty))
    blank = backup_xml([disk_xml("vda", lab.path("never"), inside=luks("usage='blank'"))])
    refused(vm, blank, "'vda'", "blank", "empty", options=("--secrets", empty))
    good = lab.file("good", f"uuid {UUID} abc\n")
    refused(vm, document, "'vda'", "encrypted", "compress", options=("--secrets", good, "--compress"))
    vmdk = backup_xml([disk_xml("vda", lab.path("never"), fmt="vmdk", inside=luks(by_uuid()))])
    refused(vm, vmdk, "'vda'", "vmdk", "encrypted", options=("--secrets", good))


main()
