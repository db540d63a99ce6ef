# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: what a domain of libvirt's has besides disks (its document, the variables of its firmware,
the state of its TPM) is in each point, byte for byte, comes back beside the disks, and is verified;
what cannot be read is a warning that names it."""
from __future__ import annotations

import glob
import json
import os
import pwd
import shutil

from lab import Lab, Skip, main, test
from repository import Repository
from run import run
from stranger import Stranger
from virt import Libvirt, VirtVm

CODE, VARS = "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"
TPM = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"


class UefiVm(VirtVm):
    """A domain with UEFI firmware, whose variables lie in the lab."""

    @property
    def vars(self) -> str:
        return self.lab.path(f"{self.name}_VARS.fd")

    def xml(self) -> str:
        return super().xml().replace(
            "</os>", f"<loader readonly='yes' type='pflash'>{CODE}</loader>"
                     f"<nvram template='{VARS}'>{self.vars}</nvram></os>")

    @property
    def tpm(self) -> str:
        return f"/var/lib/libvirt/swtpm/{self.uuid}"


def uefi_vm(lab: Lab, host: Libvirt, *, tpm: bool = True) -> UefiVm:
    lab.need(*(["swtpm", "swtpm_setup"] if tpm else []))
    if not os.path.exists(CODE):
        raise Skip("no OVMF")
    shutil.copy(VARS, lab.path("uefi_VARS.fd"))
    host.public(lab.path("uefi_VARS.fd"), 0o600)
    vm = UefiVm(host, [lab.disk("vda", "16M")], name="uefi", devices=TPM if tpm else "")
    lab.add_vm(vm)
    vm.define()
    vm.start()
    return vm


class EfiVm(VirtVm):
    """A domain whose firmware, and the file of whose variables, libvirt chooses."""

    def xml(self) -> str:
        return super().xml().replace("<os>", "<os firmware='efi'>") \
            .replace("machine='pc'", "machine='q35'")

    @property
    def vars(self) -> str:
        return f"/var/lib/libvirt/qemu/nvram/{self.name}_VARS.fd"


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def below(folder: str) -> dict[str, bytes]:
    """Every file in there, but for locks."""
    return {os.path.relpath(os.path.join(base, name), folder): read(os.path.join(base, name))
            for base, _, names in os.walk(folder) for name in names if name != ".lock"}


@test
def test_files_come_back(lab: Lab) -> None:
    host = Libvirt(lab)
    vm = uefi_vm(lab, host)
    repo = Repository(lab)
    vm.qmp.command("stop")  # firmware and TPM stand still, so there is something to compare with
    point = repo.backup(vm)
    state = below(vm.tpm)
    expected = {("nvram", "uefi_VARS.fd"): read(vm.vars)}
    expected |= {("tpm", name): data for name, data in state.items()}
    assert len(expected) > 1 and any(expected[key] for key in expected if key[0] == "tpm")
    report = lab.tidemark_json("show", "-r", repo.path, point.id)
    assert {(file["role"], file["name"]): file["size"] for file in report["files"]} \
        == {key: len(data) for key, data in expected.items()}
    assert vm.uuid in report["domain_xml"] and "<domain" in report["domain_xml"]
    stranger = Stranger(repo.path)
    for (role, name), data in expected.items():
        assert stranger.file(point.id, role, name) == data
    to = lab.path("to")
    repo.run("restore", point.id, "--to", to, "--verify")
    assert read(f"{to}/uefi_VARS.fd") == expected["nvram", "uefi_VARS.fd"]
    assert below(f"{to}/tpm") == state
    assert os.stat(f"{to}/uefi_VARS.fd").st_mode & 0o777 == 0o600
    assert read(f"{to}/domain.xml").decode() == report["domain_xml"]
    lab.compare(f"{to}/vda.qcow2", point.models["vda"])
    said = repo.run("show", point.id).out
    assert "file 'uefi_VARS.fd': nvram" in said, said
    stats = lab.tidemark_json("stats", "-r", repo.path)
    assert stats["files"] == len(expected)
    # A domain that is defined anew has them, as far as libvirt can be told.
    clone = lab.path("clone")
    result = repo.run("restore", point.id, "--to", clone, "--define", "-c", host.uri, "--name",
                      "clone", rc=(0, 3))
    document = host.virsh("dumpxml", "--inactive", "clone").out
    assert f">{clone}/uefi_VARS.fd</nvram>" in document, document
    told = f"path='{clone}/tpm/tpm2'" in document
    assert told or f"copy '{clone}/tpm/tpm2' to '/var/lib/libvirt/swtpm/" in result.err, result.err
    assert result.rc == (0 if told else 3)
    # A second point of the same files stores none of them again.
    before = sum(len(data) for data in expected.values())
    again = repo.backup(vm)
    assert again.modes == {"vda": "incremental"}
    assert lab.tidemark_json("stats", "-r", repo.path)["pack_bytes"] - stats["pack_bytes"] < before
    repo.verify()


@test
def test_shut_off(lab: Lab) -> None:
    """The files are there as well when nothing runs."""
    host = Libvirt(lab)
    vm = uefi_vm(lab, host, tpm=False)
    vm.quit()
    repo = Repository(lab)
    point = repo.backup(vm)
    repo.run("restore", point.id, "--to", lab.path("to"))
    assert read(lab.path("to/uefi_VARS.fd")) == read(vm.vars)


@test
def test_missing(lab: Lab) -> None:
    """What cannot be read is named, and the point is made nevertheless."""
    host = Libvirt(lab)
    vm = uefi_vm(lab, host, tpm=False)
    repo = Repository(lab)
    os.rename(vm.vars, vm.vars + ".away")
    result = lab.tidemark("backup", *vm.domain, "-r", repo.path, rc=3)
    assert "warning: nvram" in result.err and "not in the point" in result.err, result.err
    report = lab.tidemark_json("backup", *vm.domain, "-r", repo.path, rc=3)
    assert len(report["left_out"]) == 1 and vm.vars in report["left_out"][0]
    assert report["files"] == [] and report["point"]
    repo.verify()


@test
def test_firmware_that_libvirt_chose(lab: Lab) -> None:
    """Where the variables are is in no document of a domain that is shut off."""
    if not os.path.exists(CODE):
        raise Skip("no OVMF")
    host = Libvirt(lab)
    vm = EfiVm(host, [lab.disk("vda", "16M")], name="efi")
    lab.add_vm(vm)
    vm.define()
    repo = Repository(lab)

    def kept(*domain: str, rc: int = 0) -> tuple[list[str], list[str]]:
        report = lab.tidemark_json("backup", *(domain or vm.domain), "-r", repo.path, rc=rc)
        return [file["name"] for file in report["files"]], report["left_out"]

    assert kept() == ([], [])  # there are none before it is started
    vm.start()
    assert kept() == (["efi_VARS.fd"], [])
    vm.quit()
    assert kept() == (["efi_VARS.fd"], [])
    assert kept("-c", f"qemu+unix:///session?socket={host.socket}", "-d", vm.name) \
        == (["efi_VARS.fd"], [])  # for root that is the system's
    point = lab.tidemark_json("list", "-r", repo.path)["points"][-1]["id"]
    repo.run("restore", point, "--to", lab.path("to"))
    assert read(lab.path("to/efi_VARS.fd")) == read(vm.vars)
    repo.run("restore", point, "--to", lab.path("clone"), "--define", "-c", host.uri, "--name",
             "clone")
    document = host.virsh("dumpxml", "--inactive", "clone").out
    assert f">{lab.path('clone/efi_VARS.fd')}</nvram>" in document, document
    newer = vm.vars.replace(".fd", ".qcow2")
    os.rename(vm.vars, newer)
    assert kept() == (["efi_VARS.qcow2"], [])
    os.rename(newer, vm.vars + ".away")
    files, left_out = kept(rc=3)
    assert not files and len(left_out) == 1 and vm.vars in left_out[0], left_out


@test
def test_variables_on_a_device(lab: Lab) -> None:
    host = Libvirt(lab)
    vm = uefi_vm(lab, host, tpm=False)
    vm.quit()
    document = vm.xml().replace(f"<nvram template='{VARS}'>{vm.vars}</nvram>",
                                "<nvram type='block'><source dev='/dev/none'/></nvram>")
    host.virsh("define", lab.file("block.xml", document))
    report = lab.tidemark_json("backup", *vm.domain, "-r", Repository(lab).path, rc=3)
    assert report["files"] == [] and len(report["left_out"]) == 1
    assert report["left_out"][0].startswith("nvram '/dev/none': it is no file"), report


def tpm_vm(lab: Lab, host: Libvirt) -> VirtVm:
    lab.need("swtpm", "swtpm_setup")
    return host.vm([lab.disk("vda", "16M")], name="tpm", devices=TPM)


@test
def test_tpm_missing(lab: Lab) -> None:
    vm = tpm_vm(lab, Libvirt(lab))
    place = f"/var/lib/libvirt/swtpm/{vm.uuid}"
    os.rename(place, place + ".away")
    repo = Repository(lab)
    for _ in range(2):
        report = lab.tidemark_json("backup", *vm.domain, "-r", repo.path, rc=3)
        assert len(report["left_out"]) == 1 and place in report["left_out"][0], report
        vm.kill()  # it had been started, so there should be one still


@test
def test_tpm_of_the_system(lab: Lab) -> None:
    """Where it is depends on whose libvirt it is, not on who asks."""
    lab.need("setpriv")
    host = Libvirt(lab)
    vm = tpm_vm(lab, host)
    vm.quit()
    who = pwd.getpwnam("nobody")
    home = lab.path("home")
    os.makedirs(home)
    program = shutil.copy(os.environ["TIDEMARK"], home)
    for library in glob.glob(f"{os.path.dirname(os.environ['TIDEMARK'])}/src/libtidemark.so.[0-9]"):
        shutil.copy(library, home)
    for path in (home, vm["vda"].path):
        os.chown(path, who.pw_uid, who.pw_gid)
    for path in (host.socket, os.path.dirname(host.socket)):
        os.chmod(path, 0o777)  # as if he were of the group libvirt
    env = {key: value for key, value in lab.env().items()
           if key not in ("TIDEMARK_STATE_DIR", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")}

    def tidemark(*words: object, **how):
        return run(["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups",
                    program, *words], env=env | {"HOME": home, "LD_LIBRARY_PATH": home}, **how)

    tidemark("init", "-r", f"{home}/repo")
    report = json.loads(tidemark("backup", *vm.domain, "-r", f"{home}/repo", "--json", rc=3).out)
    assert len(report["left_out"]) == 1, report
    assert f"tpm '/var/lib/libvirt/swtpm/{vm.uuid}" in report["left_out"][0], report


main()
