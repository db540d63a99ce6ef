# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: libvirt's certificates and secrets do for Tidemark's jobs: pulls over TCP, plain and with
TLS, are read by who may; encrypted disks are backed up, and targets and scratches are encrypted
where the document says so."""
from __future__ import annotations

import os
import uuid

from backup import backup_xml, checkpoint_xml, disk_xml
from lab import Disk, Lab, Model, Skip, main, test, wait_until
from pki import make_authority
from pull import Pull, pull_disk
from push import push
from repository import Repository, check_words
from virt import Libvirt

SIZE = 8 << 20
PASSPHRASE = "correct horse"


@test(timeout=120)
def test_tcp_and_tls(lab: Lab) -> None:
    lab.need("nbdcopy", "openssl")
    authority, other = make_authority(lab, "pki"), make_authority(lab, "other")
    for name in os.listdir(authority):
        os.chmod(f"{authority}/{name}", 0o644)  # QEMU's user reads the server's key
    host = Libvirt(lab, conf=f'backup_tls_x509_cert_dir = "{authority}"\n'
                             "backup_tls_x509_verify = 1\n")
    vm = host.vm([lab.disk("vda", SIZE)])
    pull = Pull(lab, vm)
    port = 20000 + os.getpid() % 20000
    for number, tls in enumerate(("", " tls='yes'")):
        vm.change()
        model = vm["vda"].model.snapshot()
        server = f"<server transport='tcp' name='127.0.0.1' port='{port}'{tls}/>"
        pull.run([pull_disk("vda", pull.scratch("vda"), since="c0" if number else None,
                            more="exportname='the-disk'")], server=server, checkpoint=f"c{number}")
        vm.change()
        if tls:
            plain = lab.tool("nbdcopy", f"nbd://127.0.0.1:{port}/the-disk", lab.fresh(), rc=1)
            uri = f"nbds://127.0.0.1:{port}/the-disk?tls-certificates="
            wrong = lab.tool("nbdcopy", uri + other, lab.fresh(), rc=1)
            assert plain.err and wrong.err
            uri += authority
        else:
            uri = f"nbd://127.0.0.1:{port}/the-disk"
        raw = lab.fresh(".raw")
        lab.tool("nbdcopy", uri, raw)
        lab.compare(raw, model, "raw")
        pull.end()
    # An address that is not this host's: refused, and nothing is left.
    elsewhere = f"<server transport='tcp' name='192.0.2.1' port='{port}'/>"
    said = pull.run([pull_disk("vda", pull.scratch("vda"))], server=elsewhere, rc=1)
    check_words(said.err)
    vm.assert_clean()
    pull.assert_no_files()


def secret(lab: Lab, host: Libvirt, *, private: bool, more: str = "") -> str:
    """A secret of libvirt's with PASSPHRASE; its uuid."""
    name = str(uuid.uuid4())
    defined = host.virsh("secret-define", lab.file(
        "secret.xml", f"<secret ephemeral='no' private='{'yes' if private else 'no'}'>"
                      f"<uuid>{name}</uuid>{more}</secret>"), check=False)
    if "not supported by the connection driver" in defined.err:
        raise Skip("libvirt has no driver for secrets (libvirt-daemon-driver-secret)")
    assert defined.rc == 0, defined
    host.virsh("secret-set-value", name, "--file", lab.file("passphrase", PASSPHRASE), "--plain")
    return name


def luks(name: str, attribute: str = "uuid") -> str:
    """An <encryption> with that secret."""
    return (f"<encryption format='luks'><secret type='passphrase' {attribute}='{name}'/>"
            "</encryption>")


KEY = ["--object", f"secret,id=s,data={PASSPHRASE}"]


def encrypted(lab: Lab, path: str) -> str:
    """An image with PASSPHRASE, made by trial: QEMU's search for the right effort fails now and
    then."""
    def made() -> bool:
        how = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
        return lab.tool("qemu-img", "create", "-q", "-f", "qcow2", *KEY, "-o", how, path, SIZE,
                        check=False).rc == 0

    wait_until(made, 30, "an encrypted image")
    return path


def encrypted_disk(lab: Lab, name: str, inside: str) -> Disk:
    return Disk(name, encrypted(lab, lab.path(f"{name}.qcow2")), Model(SIZE, 1 << 16),
                options={"inside": inside})


@test(timeout=120)
def test_encrypted_disks(lab: Lab) -> None:
    """The disk, its scratch and the target of a push: each opened by a secret of libvirt's."""
    host = Libvirt(lab)
    inside = luks(secret(lab, host, private=True))
    vda = encrypted_disk(lab, "vda", inside)
    vm = host.vm([vda, lab.disk("vdb", SIZE)])
    repo = Repository(lab)
    for mode in ("full", "incremental", "incremental"):
        vm.change()
        repo.check(repo.backup(vm).expect(vda=mode, vdb=mode))
        repo.assert_tidy(vm)
    vm.change()
    target = encrypted(lab, lab.path("pushed.qcow2"))
    push(vm, backup_xml([disk_xml("vda", target, fmt="qcow2", inside=inside)]),
         "--reuse-external", checkpoint=checkpoint_xml("c1"))
    plain = lab.fresh(".raw")
    lab.tool("qemu-img", "convert", *KEY, "--image-opts", "-O", "raw",
             f"driver=qcow2,encrypt.key-secret=s,file.filename={target}", plain)
    lab.compare(plain, vda.model, "raw")
    pull = Pull(lab, vm)
    models = {disk.name: disk.model.snapshot() for disk in vm.disks}
    pull.run([pull_disk(disk.name, encrypted(lab, pull.scratch(disk.name)), fmt="qcow2",
                        inside=inside, since="c1") for disk in vm.disks], "--reuse-external")
    vm.change()
    for name, model in models.items():
        pull.compare(name, model)
    lab.tidemark("end", *vm.domain)
    vm.assert_clean()


@test(timeout=120)
def test_encrypted_and_shut_off(lab: Lab) -> None:
    """The chain goes on with the passphrases that libvirt gives away; a disk whose passphrase it
    keeps to itself, or does not know, is left out and named."""
    host = Libvirt(lab)
    volume = lab.path("vdb.qcow2")
    secret(lab, host, private=False, more=f"<usage type='volume'><volume>{volume}</volume></usage>")
    given = secret(lab, host, private=False)
    vm = host.vm([encrypted_disk(lab, "vda", luks(given)),
                  encrypted_disk(lab, "vdb", luks(volume, "usage")),
                  encrypted_disk(lab, "vdc", luks(secret(lab, host, private=True))),
                  lab.disk("vdd", SIZE)])
    repo = Repository(lab)
    vm.change()
    repo.check(repo.backup(vm, rc=0))
    rest = {"vda": "incremental", "vdb": "incremental", "vdd": "incremental"}
    for _ in range(2):
        vm.change()
        vm.quit()
        point = repo.backup(vm, rc=3).expect(**rest)
        [skipped] = point.report["skipped"]
        assert skipped.startswith("vdc: ") and "private" in skipped, skipped
        repo.check(point)
        repo.check(repo.backup(vm, rc=3).expect(**rest))
        vm.start()
        vm.change()
        repo.check(repo.backup(vm, rc=0))
        repo.assert_tidy(vm)
    # Its secret is forgotten while it is shut off; another's passphrase is no key.
    vm.quit()
    host.virsh("secret-set-value", given, "--file", lab.file("other", "another one"), "--plain")
    said = lab.tidemark("backup", *vm.domain, "-r", repo.path, check=False)
    assert said.rc == 1, said
    check_words(said.err, "vda", "passphrase does not open", "secret-set-value")
    host.virsh("secret-undefine", given)
    point = repo.backup(vm, rc=3)
    assert sorted(point.modes) == ["vdb", "vdd"], point.modes
    said = lab.tidemark("disks", *vm.domain)
    assert "secret" in said.out and PASSPHRASE not in said.out + said.err


main()
