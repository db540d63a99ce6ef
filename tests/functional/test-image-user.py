#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: who owns images can back them up without being root, with and without a runtime folder;
what they cannot read or write is named, with what to do."""
from __future__ import annotations

import glob
import json
import os
import pwd
import shutil

from lab import Disk, Lab, Skip, main, test
from repository import Repository, check_words, image_options
from run import run

SIZE = 4 << 20


class User:
    """The user nobody, with a home in the lab and a copy of the program."""

    def __init__(self, lab: Lab) -> None:
        lab.need("setpriv")
        if os.geteuid() != 0:
            raise Skip("needs root to become another user")
        self.lab, self.who = lab, pwd.getpwnam("nobody")
        self.home = lab.path("home")
        os.chmod(lab.dir, 0o711)
        if lab.sockets != lab.dir:
            os.chmod(lab.sockets, 0o711)
        for folder in ("", "/run", "/bin"):
            os.makedirs(self.home + folder, 0o700)
        self.own(self.home, f"{self.home}/run", f"{self.home}/bin")
        program = os.environ["TIDEMARK"]
        shutil.copy(program, f"{self.home}/bin/tidemark")
        for library in glob.glob(f"{os.path.dirname(program)}/src/libtidemark.so.[0-9]"):
            shutil.copy(library, f"{self.home}/bin/")
        self.environment = {"XDG_RUNTIME_DIR": f"{self.home}/run"}

    def own(self, *paths: str) -> None:
        for path in paths:
            os.chown(path, self.who.pw_uid, self.who.pw_gid)

    def run(self, *words: object, **how):
        env = {key: value for key, value in self.lab.env().items()
               if key not in ("TIDEMARK_STATE_DIR", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")}
        env |= {"HOME": self.home, "LD_LIBRARY_PATH": f"{self.home}/bin"} | self.environment
        return run(["setpriv", f"--reuid={self.who.pw_uid}", f"--regid={self.who.pw_gid}",
                    "--clear-groups", "--no-new-privs", *words], env=env, cwd=self.home, **how)

    def tidemark(self, *words: object, **how):
        return self.run(f"{self.home}/bin/tidemark", *words, **how)

    def disk(self, name: str, fmt: str) -> Disk:
        disk = self.lab.disk(name, SIZE, fmt=fmt, path=f"{self.home}/{name}.{fmt}")
        self.own(disk.path)
        return disk


@test(timeout=120)
def test_backup(lab: Lab) -> None:
    user = User(lab)
    disks = [user.disk("vda", "qcow2"), user.disk("vdb", "raw")]
    repo = f"{user.home}/repo"
    user.tidemark("init", "-r", repo)
    for number, runtime in enumerate((f"{user.home}/run", "", f"{user.home}/none")):
        user.environment = {"XDG_RUNTIME_DIR": runtime} if runtime else {}
        for disk in disks:
            lab.writer(disk).random_ops(lab.rng, 8, longest=1 << 18)
        said = user.tidemark("backup", *image_options(disks), "-r", repo, "--name", "web", "--json")
        report = json.loads(said.out)
        modes = {disk["name"]: disk["mode"] for disk in report["disks"]}
        assert modes == {"vda": "incremental" if number else "full", "vdb": "full"}, modes
        for disk in disks:
            out = f"{user.home}/{disk.name}.{number}.raw"
            user.tidemark("restore", "-r", repo, report["point"], "--disk", disk.name, "--to", out)
            lab.compare(out, disk.model, "raw")
        lab.check_image(disks[0].path)
    # By itself it looks for everything in the home.
    assert glob.glob(f"{user.home}/.local/state/tidemark/domains/*")
    for path in glob.glob(f"{user.home}/**", recursive=True):
        assert os.lstat(path).st_uid == user.who.pw_uid or "/bin/" in path, path
    assert not os.listdir(f"{user.home}/run")


@test(timeout=120)
def test_denied(lab: Lab) -> None:
    user = User(lab)
    disk = user.disk("vda", "qcow2")
    repo = f"{user.home}/repo"
    user.tidemark("init", "-r", repo)
    lab.writer(disk).random_ops(lab.rng, 8)
    ask = image_options([disk])
    os.chown(disk.path, 0, 0)
    os.chmod(disk.path, 0o600)
    for verb in (["backup", "-r", repo, "--name", "web"], ["disks"], ["checkpoint", "create", "c"]):
        said = user.tidemark(*verb, *ask, rc=1)
        check_words(said.err, "'vda'", disk.path, "Permission denied", "user")
    # It may be read: no checkpoint, and that is said.
    os.chmod(disk.path, 0o644)
    said = user.tidemark("backup", "-r", repo, "--name", "web", *ask, "--json", rc=(0, 3))
    [entry] = json.loads(said.out)["disks"]
    assert entry["mode"] == "full", entry
    said = user.tidemark("checkpoint", "create", "c", *ask, rc=1)
    check_words(said.err, "'vda'", "cannot be written")
    # Somebody else's process has it: that it is in use can be told, by whom cannot.
    other = lab.tool_popen("qemu-io", "-f", "qcow2", "-c", "write 0 512", "-c", "sleep 20000",
                           disk.path)
    try:
        for _ in range(100):
            said = user.tidemark("disks", *ask, check=False)
            if said.rc:
                break
        check_words(said.err, "'vda'", "in use", "another process")
    finally:
        other.kill()
        other.wait()
    # A passphrase that is not theirs.
    key = lab.file("key", "abc")
    os.chmod(key, 0o600)
    os.chown(disk.path, user.who.pw_uid, user.who.pw_gid)
    make = ["create", "-q", "-f", "qcow2", "--object", f"secret,id=s,file={key}", "-o",
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", disk.path, SIZE]
    while lab.tool("qemu-img", *make, check=False).rc:
        pass  # QEMU's measurement of CPU time fails now and then
    said = user.tidemark("disks", f"{ask[0]},secret={key}", rc=1)
    check_words(said.err, "'vda'", key, "Permission denied")


main()
