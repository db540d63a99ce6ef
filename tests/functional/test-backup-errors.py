#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: whatever keeps `tidemark backup` from making a point is said with what failed, why and what
to do, by the exit code that scripts go by; the machine, its checkpoints and the repository are as
they were, and the next backup works."""
from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import json
import os
import socket
import struct

from lab import Lab, Skip, Vm, main, test
from repository import Repository, check_words

M = 1 << 20
CHUNK = 1 << 16


def listing(path: str) -> dict[str, str]:
    """Every file below a folder, and the SHA-256 of what is in it."""
    found = {}
    for folder, _, names in os.walk(path):
        for name in names:
            with open(os.path.join(folder, name), "rb") as content:
                found[os.path.join(folder, name)] = hashlib.sha256(content.read()).hexdigest()
    return found


class Refusal:
    """A machine and a repository, and a check that a backup is refused and leaves no trace."""

    def __init__(self, lab: Lab, vm: Vm, repo: Repository) -> None:
        self.lab, self.vm, self.repo = lab, vm, repo

    def __call__(self, *options: object, words: tuple[str, ...] = (), rc: int = 1,
                 qmp: str | None = None, path: str | None = None, code: str | None = None,
                 env: dict | None = None) -> str:
        path = self.repo.path if path is None else path
        before = self.vm.inventory(), listing(self.repo.path)
        said = self.lab.tidemark("backup", "--qmp", qmp or self.vm.address, "-r", path, *options,
                                 "--json", rc=rc, env=env)
        check_words(said.err, *words)
        if code:
            assert json.loads(said.out)["error"]["code"] == code, said
        assert (self.vm.inventory(), listing(self.repo.path)) == before, options
        self.vm.assert_clean()
        return said.err


def machine(lab: Lab, **more) -> Vm:
    """Two disks, with something on them."""
    vm = lab.vm([lab.disk("vda", "16M"), lab.disk("vdb", "16M", bus="scsi")], **more)
    for disk in vm.disks:
        vm.writer(disk).write_random(0, 6 * M, lab.rng)
    return vm


# ---- the repository -----------------------------------------------------------------------------

@test
def test_no_repository(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "4M")])
    repo = Repository(lab)
    refuse = Refusal(lab, vm, repo)
    said = lab.tidemark("backup", "--qmp", vm.address, rc=2)
    check_words(said.err, "no repository is named", "-r ", "$TIDEMARK_REPO")
    refuse(path="", rc=2, words=("-r names no folder",))
    refuse(path=lab.path("none"), code="not-found", words=("none'", "tidemark init"))
    assert not os.path.exists(lab.path("none"))
    os.mkdir(lab.path("empty"))
    refuse(path=lab.path("empty"), words=("empty' is no repository", "tidemark init"))
    os.mkdir(lab.path("other"))
    lab.file("other/file", "x")
    refuse(path=lab.path("other"), words=("other' is no repository",))
    assert os.listdir(lab.path("other")) == ["file"] and not os.listdir(lab.path("empty"))
    refuse(path=lab.file("plain", "x"), words=("plain", "Not a directory", "a repository is a folder"))
    assert not vm.bitmaps(vm["vda"])


def publish_config(repo: Repository, identity: str, change: dict) -> None:
    """Replaces a repository's config by hand, as docs/format/repository.rst has it."""
    name = ctypes.util.find_library("xxhash") or "libxxhash.so.0"
    try:
        xxh3 = ctypes.CDLL(name).XXH3_64bits
    except (OSError, AttributeError):
        raise Skip("no libxxhash with XXH3") from None
    xxh3.restype, xxh3.argtypes = ctypes.c_uint64, [ctypes.c_char_p, ctypes.c_size_t]
    config = {"format": 1, "requires": [], "id": identity, "hash": "sha-256", "chunk_size": CHUNK,
              "created": "2026-01-02T03:04:05.000000Z", "pack_size": 64 * M,
              "compression": {"codec": "zstd", "level": 1}, "encryption": None} | change
    plain = json.dumps(config).encode()
    digest = hashlib.sha256(hashlib.sha256(plain).digest() + bytes([16])).digest()
    rest = struct.pack("<IBBBBII", 0x524B4D54, 16, 0, 0, 0, len(plain), len(plain)) + digest + plain
    path = os.path.join(repo.path, "config")
    os.unlink(path)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", xxh3(rest, len(rest))) + rest)


@test
def test_a_repository_of_a_newer_version(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "4M")])
    repo = Repository(lab)
    refuse = Refusal(lab, vm, repo)
    identity = repo.id
    publish_config(repo, identity, {})
    repo.backup(vm, rc=0)  # what is made by hand is taken
    for change, words in (({"format": 2}, ("format 2", "newer version")),
                          ({"requires": ["telepathy"]}, ("telepathy", "newer version")),
                          ({"hash": "md5"}, ("md5", "newer version")),
                          ({"encryption": {"cipher": "rot13"}}, ("newer version",))):
        publish_config(repo, identity, change)
        refuse(code="unsupported", words=words)
    publish_config(repo, identity, {})
    with open(os.path.join(repo.path, "config"), "r+b") as config:
        config.seek(70)
        config.write(b"\0")
    refuse(rc=4, code="damaged", words=("config",))


@test
def test_a_repository_that_cannot_be_written(lab: Lab) -> None:
    """On a file system that is read-only; and with no room left."""
    vm = lab.vm([lab.disk("vda", "16M")])
    vm.writer(vm["vda"]).write_random(0, 12 * M, lab.rng)
    folder = lab.tmpfs("8M")
    repo = Repository(lab, path=f"{folder}/repo")
    refuse = Refusal(lab, vm, repo)
    lab.tool("mount", "-o", "remount,ro", folder)
    refuse(words=("Read-only file system", repo.path))
    assert lab.tidemark_json("list", "-r", repo.path)["points"] == []  # reading needs no more
    lab.tool("mount", "-o", "remount,rw", folder)
    said = lab.tidemark("backup", "--qmp", vm.address, "-r", repo.path, rc=1)
    check_words(said.err, "No space left")
    vm.assert_clean()
    assert not vm.bitmaps(vm["vda"])
    assert repo.verify()["damaged"] == 0
    lab.tool("mount", "-o", "remount,size=64M", folder)
    repo.check(repo.backup(vm, rc=0))


@test
def test_a_repository_of_another_user(lab: Lab) -> None:
    if os.geteuid() != 0:
        raise Skip("needs root, to be somebody else")
    lab.need("setpriv")
    vm = lab.vm([lab.disk("vda", "4M")])
    repo = Repository(lab)
    before = vm.inventory(), listing(repo.path)
    # Somebody who may reach the monitor, and nothing of the repository's.
    for path in (lab.dir, lab.sockets):
        os.chmod(path, 0o755)
    os.chmod(vm.address, 0o666)
    state = lab.path("state-of-nobody")
    os.mkdir(state)
    os.chown(state, 65534, 65534)
    program = os.path.abspath(os.environ["TIDEMARK"])
    if lab.tool("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program,
                "--version", check=False).rc != 0:
        raise Skip("nobody may run the program")
    said = lab.tool("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program,
                    "backup", "--qmp", vm.address, "-r", repo.path, "--state-dir", state, rc=1)
    check_words(said.err, "Permission denied", repo.path)
    assert (vm.inventory(), listing(repo.path)) == before
    vm.assert_clean()


# ---- what is asked for --------------------------------------------------------------------------

@test
def test_disks_that_cannot_be_had(lab: Lab) -> None:
    image = lab.create(lab.path("cd.raw"), "1M", "raw")
    vm = machine(lab, extra=[
        "-drive", f"if=none,id=cdimg,media=cdrom,format=raw,readonly=on,file={image}",
        "-device", "ide-cd,id=hdc,drive=cdimg", "-device", "ide-cd,id=hdd,bus=ide.1",
        "-drive", f"if=none,id=roimg,format=raw,readonly=on,file={image}",
        "-device", "virtio-blk-pci,id=vdr,drive=roimg"])
    repo = Repository(lab)
    refuse = Refusal(lab, vm, repo)
    for option in ("--include", "--exclude"):
        refuse(option, "vdx", code="not-found", words=("'vdx'", "vda, vdb"))
        refuse(option, "", code="not-found", words=("''", "vda, vdb"))
    refuse("--include", "hdc", words=("'hdc'", "removable", "leave --include hdc out"))
    refuse("--include", "hdd", words=("'hdd'", "empty"))
    refuse("--include", "vda", "--include", "vdr", words=("'vdr'", "read-only"))
    refuse("--include", "vda", "--exclude", "vda", rc=2, words=("'vda' is both", "--exclude vda"))
    refuse("--exclude", "vda", "--exclude", "vdb", words=("no disk to back up", "left out"))
    refuse("--mode", "incremental", words=("'vda'", "new disk", "--mode auto"))
    repo.check(repo.backup(vm, rc=0))


@test
def test_names_and_folders(lab: Lab) -> None:
    vm = machine(lab)
    repo = Repository(lab)
    refuse = Refusal(lab, vm, repo)
    repo.backup(vm, "--checkpoint", "mine", rc=0)
    refuse("--mode", "", rc=2)
    refuse("--checkpoint", "mine", code="exists", words=("'mine' exists already", "another name"))
    for name in ("a/b", "", ".hidden", "white space", "a\nb", "<x>"):
        refuse("--checkpoint", name, code="invalid", words=(f"'{name}'", "not a valid name", "use "))
    refuse("--checkpoint", "x" * 2000, words=("1023",))
    refuse("--checkpoint", "tmk-x", words=("tmk-",))
    refuse("--name", "", rc=2, words=("empty", "--name"))
    refuse("--scratch-dir", lab.path("none"), words=("no folder", "none'", "mkdir"))
    refuse("--scratch-dir", lab.file("plain", ""), words=("plain'",))
    # Scratch images that others have left.
    document = lab.file("explicit.xml", "<domainbackup mode='pull'><server transport='unix' "
                        f"socket='{lab.sockets}/own'/><disks><disk name='vda' type='file'>"
                        f"<scratch file='{lab.file('scratch', 'mine')}'/></disk></disks>"
                        "</domainbackup>")
    refuse("--xml", document, code="exists", words=("'vda'", "scratch' exists already"))
    with open(lab.path("scratch"), encoding="ascii") as scratch:
        assert scratch.read() == "mine"
    vm.writer(vm["vda"]).random_ops(lab.rng, 5)
    point = repo.backup(vm, "--name", "a/b", rc=0)
    assert set(point.modes.values()) == {"incremental"}
    assert lab.tidemark_json("show", "-r", repo.path, "a/b/latest")["id"] == point.id
    repo.check_all()


# ---- the monitor --------------------------------------------------------------------------------

@test
def test_a_monitor_that_does_not_answer(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "4M")])
    repo = Repository(lab)
    refuse = Refusal(lab, vm, repo)
    refuse(qmp=os.path.join(lab.sockets, "none"), code="not-found", words=("there is no socket", "-qmp"))
    dead = os.path.join(lab.sockets, "dead")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(dead)
    refuse(qmp=dead, code="gone", words=("nobody listens",))
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(os.path.join(lab.sockets, "mute"))
        mute.listen(1)
        refuse(qmp=os.path.join(lab.sockets, "mute"), words=("mute",))
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(vm.address)
        assert other.recv(4096).startswith(b'{"QMP"')
        refuse(code="busy", words=("monitor busy", "second -qmp socket"))
    with socket.socket() as free:  # a port where nobody listens
        free.bind(("127.0.0.1", 0))
        refuse(qmp=f"tcp:127.0.0.1:{free.getsockname()[1]}", words=("127.0.0.1",))
    repo.check(repo.backup(vm, rc=0))
    vm.quit()
    check_words(lab.tidemark("backup", "--qmp", vm.address, "-r", repo.path, rc=1).err, "vm0.qmp")
    assert repo.verify()["damaged"] == 0


main()
