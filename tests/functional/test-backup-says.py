#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: what `tidemark backup` shows is what it does: the plan before, progress that fits any
terminal and is not torn (that of `wait` too), the result, and exit codes that a script can rely on;
`tidemark disks` foretells it."""
from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import termios
import time

from lab import Lab, main, test
from repository import Repository
from run import wait_until_caught

M = 1 << 20
DISK = {"name", "mode", "reason", "size", "used", "read", "changed", "new", "stored", "chunk_size",
        "base_point", "base_disk", "base_checkpoint", "checkpoint", "source", "format"}
WHOLE = {"point", "checkpoint", "domain", "uuid", "time", "finished", "host", "tool", "quiesced",
         "metadata", "disks", "files", "skipped", "left_out", "fallbacks", "pause_us", "elapsed_us",
         "dry_run"}


def on_terminal(lab: Lab, columns: int, *args: str) -> tuple[int, str]:
    """Runs the program on a terminal; its exit code and all it wrote there."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(lab.env() | {"TERM": "xterm"})
        program = os.environ["TIDEMARK"]
        os.execv(program, [program, *args])
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    out = b""
    while True:
        try:
            part = os.read(fd, 65536)
        except OSError:
            break
        if not part:
            break
        out += part
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), out.decode()


class Screen:
    """What a terminal shows after `text`: only what the program uses is understood."""

    def __init__(self, text: str, columns: int) -> None:
        self.lines, self.row, self.widest = [""], 0, 0
        for word in re.split(r"(\x1b\[\d*[AJ]|\r\n)", text):
            if word == "\r\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            elif word.endswith("A") and word.startswith("\x1b"):
                self.row -= int(word[2:-1])
                assert self.row >= 0, "drawn above the top"
            elif word == "\x1b[J":
                self.lines[self.row:] = [""]
            else:
                assert "\x1b" not in word and "\n" not in word, repr(word)
                assert not word or not self.lines[self.row], (self.lines[self.row], word)
                self.lines[self.row] += word
                if "[" in word:
                    self.widest = max(self.widest, len(word))
        assert self.widest < columns, self.widest


@test
def test_progress_on_a_terminal(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "48M"), lab.disk("vdb", "8M")])
    repo = Repository(lab)
    for start in range(0, 32, 4):
        vm.writer(vm["vda"]).write_random(start * M, 4 * M, lab.rng)
    arguments = ("backup", "--qmp", vm.address, "-r", repo.path, "--mode", "full")
    for columns in (60, 80, 200):
        rc, text = on_terminal(lab, columns, *arguments, "--bandwidth", "32M", "--quiesce",
                               "--agent", lab.path("none"))
        assert rc == 3, text
        assert text.count("\x1b[") > 4, repr(text)  # it was drawn over
        lines = Screen(text, columns).lines
        kinds = [line.split("  ")[0].strip() for line in lines if line]
        assert kinds[:2] == ["vda", "vdb"] and "full" in lines[0], lines
        assert "not quiesced" in lines[2], lines
        assert kinds[3:5] == ["vda", "vdb"] and "100%" in lines[3] and "100%" in lines[4], lines
        assert "new" in lines[3] or columns < 80, lines
        assert lines[5].startswith("point "), lines
        if columns == 200:
            assert "[####################]" in lines[3], lines
    rc, text = on_terminal(lab, 80, *arguments, "-q")
    assert rc == 0 and re.fullmatch(r"[0-9a-f]{16}\r\n", text), text


@test
def test_the_same_of_wait(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "16M"), lab.disk("vdb", "4M")])
    vm.writer(vm["vda"]).write_random(0, 8 * M, lab.rng)
    vm.writer(vm["vdb"]).write_random(0, 2 * M, lab.rng)
    lab.tidemark("begin", "--qmp", vm.address, "--bandwidth", "4M",
                 lab.file("push.xml", "<domainbackup/>"))
    rc, text = on_terminal(lab, 70, "wait", "--qmp", vm.address)
    assert rc == 0 and text.count("\x1b[") > 4, repr(text)
    lines = Screen(text, 70).lines
    assert [line.split("  ")[0] for line in lines[:2]] == ["vda", "vdb"], lines
    assert all("100%" in line for line in lines[:2]), lines
    assert lines[2].startswith("backup done: 2 disks"), lines
    rc, text = on_terminal(lab, 70, "wait", "--qmp", vm.address)
    assert rc == 0 and text.startswith("backup done: "), text  # it has ended: nothing to draw


@test(timeout=60)
def test_progress_elsewhere(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "48M")])
    repo = Repository(lab)
    for start in range(0, 24, 4):
        vm.writer(vm["vda"]).write_random(start * M, 4 * M, lab.rng)
    said = lab.tidemark("backup", "--qmp", vm.address, "-r", repo.path, "--bandwidth", "3M")
    progress = [line for line in said.err.splitlines() if line.startswith("tidemark: ")]
    assert len(progress) == 1 and "\x1b" not in said.err, said.err
    assert re.fullmatch(r"tidemark: vda +\d+%  \S+ MiB of 48.0 MiB  \S+ MiB/s  \S+ MiB new"
                        r"  0:\d\d left", progress[0]), progress
    assert "point " in said.out and "24.0 MiB" in said.out, said.out
    quiet = lab.tidemark("backup", "--qmp", vm.address, "-r", repo.path, "-q")
    assert quiet.err == "" and len(quiet.out) == 17, quiet


@test
def test_keys_and_plan(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "8M")])
    repo = Repository(lab)
    vm.writer(vm["vda"]).write_random(0, M, lab.rng)
    for dry in (True, False):
        document = lab.tidemark_json("backup", "--qmp", vm.address, "-r", repo.path,
                                     *(["--dry-run"] if dry else []))
        assert set(document) == WHOLE and set(document["disks"][0]) == DISK, document
        assert document["dry_run"] == dry and (document["point"] is None) == dry, document
        assert (document["checkpoint"] is None) == dry
    assert document["disks"][0]["reason"] == "new disk"
    assert 0 < document["pause_us"] < document["elapsed_us"]
    vm.writer(vm["vda"]).write_random(4 * M, 3 << 16, lab.rng)
    (row,) = lab.tidemark_json("disks", "--qmp", vm.address, "-r", repo.path)["disks"]
    auto = row["auto"]
    assert auto["mode"] == "incremental" and auto["read"] == 3 << 16, auto
    assert auto["base_point"] == document["point"], auto
    text = lab.tidemark("disks", "--qmp", vm.address, env={"TIDEMARK_REPO": repo.path}).out
    assert f"next backup  incremental, 192.0 KiB to read: {auto['reason']}\n" in text, text
    # One that the environment names and that is not there keeps nobody from seeing the disks.
    gone = lab.path("gone")
    said = lab.tidemark("disks", "--qmp", vm.address, env={"TIDEMARK_REPO": gone})
    assert "warning" in said.err and gone in said.err and said.out.startswith("vda"), said
    assert gone in lab.tidemark("disks", "--qmp", vm.address, "-r", gone, rc=1).err
    plan = lab.tidemark("backup", "--qmp", vm.address, "-r", repo.path, "--dry-run")
    assert plan.out == f"vda  incremental   192.0 KiB  {auto['reason']}\n" and not plan.err, plan
    made = lab.tidemark("backup", "--qmp", vm.address, "-r", repo.path)
    assert made.err == plan.out, made
    lines = made.out.splitlines()
    assert re.fullmatch(r"point [0-9a-f]{16} of domain 'vm0', 20\S+", lines[0]), lines
    assert lines[1].split() == ["DISK", "MODE", "READ", "NEW", "STORED", "WHY"], lines
    assert lines[2].startswith("vda   incremental   192.0 KiB   192.0 KiB "), lines
    assert lines[2].endswith(auto["reason"]), lines
    assert re.fullmatch(r"\d+\.\d s, the guest was held for \d+\.\d ms", lines[3]), lines


@test
def test_exit_codes(lab: Lab) -> None:
    """What is no disk by nature is not missed; a disk that was expected to be there is."""
    vda, vdb = lab.disk("vda", "4M"), lab.disk("vdb", "4M", style="drive")
    vm = lab.vm([vda, vdb], extra=["-device", "ide-cd,id=hdc,bus=ide.0"])
    repo = Repository(lab)
    arguments = ("backup", "--qmp", vm.address, "-r", repo.path)
    document = lab.tidemark_json(*arguments, rc=0)
    assert document["skipped"] == ["hdc: the drive is empty"], document
    text = lab.tidemark("disks", "--qmp", vm.address, "-r", repo.path).out
    assert text.count("next backup") == 2, text
    # One that could have been incremental.
    vm.qmp.command("block-dirty-bitmap-remove", node="vda-fmt", name=document["checkpoint"])
    said = lab.tidemark(*arguments, rc=3)
    assert "1 disk was read in full instead" in said.err and "is gone" in said.out, said
    assert lab.tidemark(*arguments, rc=0)
    vm.quit()
    for arguments, words in {
        ("--mode", "half"): "auto, full or incremental",
        ("--xml", "x", "--mode", "full"): "leave",
        ("--xml", "x", "--include", "vda"): "leave",
        ("--checkpoint", "a", "--no-checkpoint"): "exclude each other",
        ("--bandwidth", "0"): "no bandwidth",
        ("--bandwidth", "fast"): "no bandwidth",
        ("--quiesce",): "--agent",
        ("--agent", "/x"): "--quiesce",
        ("--agent", "/x", "--quiesce", "--agent-timeout", "-1"): "seconds",
        ("--scratch-timeout", "-1"): "seconds",
        ("--threads", "-1"): "threads",
        ("--threads", "1000"): "threads",
        ("surplus",): "too many",
    }.items():
        said = lab.tidemark("backup", "--qmp", vm.address, "-r", repo.path, *arguments, rc=2)
        assert words in said.err and "\nhint: " in said.err, said
    assert "--qmp" in lab.tidemark("backup", "-r", repo.path, rc=2).err
    assert "TIDEMARK_REPO" in lab.tidemark("backup", "--qmp", vm.address, rc=2).err


@test
def test_a_disk_that_is_missed(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "4M")], extra=[
        "-drive", f"file={lab.create(lab.path('t.qcow2'), '4M')},format=qcow2,if=none,id=tmp,"
        "snapshot=on", "-device", "virtio-blk-pci,id=vdt,drive=tmp"])
    repo = Repository(lab)
    said = lab.tidemark("backup", "--qmp", vm.address, "-r", repo.path, rc=3)
    assert "warning: disk vdt: it was started with snapshot=on" in said.err, said.err
    lab.tidemark("backup", "--qmp", vm.address, "-r", repo.path, "--exclude", "vdt", rc=0)


@test(timeout=60)
def test_interrupted_at_any_time(lab: Lab) -> None:
    """By either signal, on a terminal or not, also before anything was read."""
    vm = lab.vm([lab.disk("vda", "24M")])
    repo = Repository(lab)
    vm.writer(vm["vda"]).write_random(0, 4 * M, lab.rng)
    before = vm.inventory()
    for number, wait in enumerate((0.02, 0.1, 0, 0.5, 1.0)):
        child = lab.tidemark_popen("backup", "--qmp", vm.address, "-r", repo.path, "--json",
                                   "--bandwidth", "1M")
        if number > 1:  # before it opened the domain a signal just ends it
            wait_until_caught(child)
        time.sleep(wait)
        begun = time.monotonic()
        child.send_signal(signal.SIGTERM if number % 2 else signal.SIGINT)
        out, err = child.communicate(timeout=20)
        assert time.monotonic() - begun < 5
        if number > 1:
            assert child.returncode == 130 and '"cancelled"' in out, (child.returncode, out, err)
        repo.assert_tidy(vm)
        assert vm.inventory() == before
    repo.check(repo.backup(vm))


@test
def test_what_a_point_keeps(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "4M")])
    repo = Repository(lab)
    document = lab.file("domain.xml", f"<domain type='kvm'><name>other</name><devices><disk "
                        f"type='file'><source file='{vm['vda'].path}'/><target dev='sdq'/></disk>"
                        "</devices></domain>")
    point = lab.tidemark_json("backup", "--qmp", vm.address, "-r", repo.path, "--name", "web",
                              "--domain-xml", document)
    assert point["domain"] == "web" and point["disks"][0]["name"] == "sdq", point
    with open(document, encoding="ascii") as text:
        shown = lab.tidemark("show", "-r", repo.path, "web/latest", "--xml").out
        assert shown.strip() == text.read()
    # By another name it is the same disk.
    point = lab.tidemark_json("backup", "--qmp", vm.address, "-r", repo.path)
    disk = point["disks"][0]
    assert disk["mode"] == "incremental" and "there disk 'sdq'" in disk["reason"], disk


main()
