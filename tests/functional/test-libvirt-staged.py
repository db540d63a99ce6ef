# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: while the disks of a pull are copied, because one is in an iothread, the job is neither
cut off nor anybody's to clean up: it is shown as running, others are refused, and an abort ends it.
Who copies then says so, and leaves what was begun meanwhile alone. Where he is killed it is cut
off. Where a transient domain has ended for good, who reads the copies tidies up."""
from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time

from backup import backup_xml, checkpoint_xml, disk_xml
from lab import Lab, Skip, main, test, wait_until
from pull import Pull, pull_disk, pull_document, unix_server
from repository import Repository, check_words
from virt import Libvirt, VirtVm

IN_FLIGHT = 64 << 20  # what QEMU copies at once, whatever the speed
SIZE = 160 << 20
SLOW = 1 << 16  # bytes a second


class Copying:
    """A domain of which a pull is begun that copies its disk for as long as is needed."""

    def __init__(self, lab: Lab) -> None:
        if lab.qemu_version() >= (10, 0):
            raise Skip("this QEMU need not copy")
        self.lab = lab
        self.vm: VirtVm = Libvirt(lab).vm([lab.disk("vda", SIZE, iothread=True)])
        self.vm.writer(self.vm["vda"]).write(0, SIZE)
        self.pull = Pull(lab, self.vm)
        self.document = lab.file("pull.xml", pull_document(
            unix_server(self.pull.socket), [pull_disk("vda", self.pull.scratch("vda"))]))
        self.checkpoint = lab.file("c.xml", checkpoint_xml("c1", ["vda"]))

    def begin(self) -> subprocess.Popen:
        """A begin that copies."""
        for _ in range(10):
            child = self.lab.tidemark_popen("begin", *self.vm.domain, self.document,
                                            self.checkpoint)
            while child.poll() is None:
                if self._slow_down():
                    wait_until(lambda: self.state() != "interrupted", 20, "it copies")
                    return child
            child.communicate()
            self.lab.tidemark("abort", *self.vm.domain)  # it was through too soon
        raise AssertionError("the copying cannot be slowed down")

    def _slow_down(self) -> bool:
        """Whether there is a job, slow now, with much still to be copied."""
        if not self.vm.qmp.command("query-block-jobs"):
            return False
        self.speed(SLOW)
        return any(job["len"] - job["offset"] > IN_FLIGHT + (8 << 20)
                   for job in self.vm.qmp.command("query-block-jobs"))

    def speed(self, rate: int) -> None:
        for job in self.vm.qmp.command("query-block-jobs"):
            self.vm.qmp.try_command("block-job-set-speed", device=job["device"], speed=rate)

    def state(self) -> str:
        return self.lab.tidemark_json("status", *self.vm.domain, rc=None, check=False)["state"]

    def hold(self, child: subprocess.Popen) -> None:
        """Stops it where it lets others look at the domain."""
        with open(os.path.join(self.lab.state, "domains", self.vm.uuid, "lock"), "rb") as lock:
            for _ in range(100):
                os.kill(child.pid, signal.SIGSTOP)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    os.kill(child.pid, signal.SIGCONT)
                    time.sleep(0.02)
        raise AssertionError("it never lets go of the lock")

    def push(self, **how):
        image = self.lab.path("pushed.qcow2")
        return self.lab.tidemark("begin", *self.vm.domain, self.lab.file(
            "push.xml", backup_xml([disk_xml("vda", image)])), **how)


def content(path: str) -> str:
    """Nothing where there is no such file."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@test(timeout=120)
def test_others_are_refused(lab: Lab) -> None:
    scene = Copying(lab)
    child = scene.begin()
    assert scene.state() == "running"
    check_words(scene.push(rc=1).err, "a backup job runs already")
    check_words(lab.tidemark("end", *scene.vm.domain, rc=1).err, "still being copied")
    repo = Repository(lab)
    check_words(lab.tidemark("backup", *scene.vm.domain, "-r", repo.path, rc=1).err, "runs already")
    said = lab.tidemark("check", *scene.vm.domain, "-r", repo.path, check=False)
    assert said.rc == 1 and "a job runs" in said.out, said.out
    assert scene.state() == "running"
    scene.speed(0)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, (out, err)
    scene.pull.compare("vda", scene.vm["vda"].model)
    scene.pull.end()
    assert scene.state() == "done" and scene.vm.checkpoints() == ["c1"]


@test(timeout=120)
def test_an_abort_ends_it(lab: Lab) -> None:
    scene = Copying(lab)
    child = scene.begin()
    scene.pull.abort()
    _, err = child.communicate(timeout=60)
    assert child.returncode == 1, err
    check_words(err, "while the disks were copied", "aborted")
    assert scene.state() == "cancelled"

    # One that notices late finds another job in the place of its own.
    child = scene.begin()
    scene.hold(child)
    scene.pull.abort()
    scene.push()
    os.kill(child.pid, signal.SIGCONT)
    _, err = child.communicate(timeout=60)
    check_words(err, "while the disks were copied")
    lab.tidemark("wait", *scene.vm.domain)
    lab.compare(lab.path("pushed.qcow2"), scene.vm["vda"].model)
    scene.vm.assert_clean()


@test(timeout=120)
def test_killed(lab: Lab) -> None:
    """Whether the copies become complete or not, the next job cleans up behind it."""
    scene = Copying(lab)
    for complete in (False, True):
        child = scene.begin()
        child.kill()
        child.wait()
        if complete:
            scene.speed(0)
            wait_until(lambda: not scene.vm.job(), 60, "the copies are complete")
        assert scene.state() == "interrupted"
        check_words(lab.tidemark("end", *scene.vm.domain, rc=1).err, "cut off", "'tidemark abort'")
        scene.push()
        scene.pull.assert_no_files()
        assert scene.vm.checkpoints() == []
        lab.tidemark("wait", *scene.vm.domain)
        lab.compare(lab.path("pushed.qcow2"), scene.vm["vda"].model)
        os.unlink(lab.path("pushed.qcow2"))
        scene.vm.assert_clean()


@test(timeout=120)
def test_a_transient_domain_ends(lab: Lab) -> None:
    """Nobody can name it any more, so the backup that reads the copies tidies up."""
    if lab.qemu_version() >= (10, 0):
        raise Skip("this QEMU need not copy")
    vm = Libvirt(lab).vm([lab.disk("vda", 4 << 20, iothread=True), lab.disk("vdb", 4 << 20)],
                         transient=True)
    for disk in vm.disks:
        vm.writer(disk).write_random(0, disk.model.size, lab.rng)
    repo = Repository(lab)
    folder = os.path.join(lab.state, "domains", vm.uuid)
    pid_file = os.path.join(folder, "libvirt-daemon.pid")
    child = lab.tidemark_popen("backup", *vm.domain, "-r", repo.path, "-q", "--bandwidth", "1M")
    record = os.path.join(folder, "libvirt-job.json")
    wait_until(lambda: "exported" in content(record) and '"running"' in content(record), 30)
    with open(pid_file, encoding="ascii") as file:
        daemon = f"/proc/{file.read().strip()}/cmdline"
    job = json.loads(content(record))
    assert pid_file in content(daemon) and os.path.exists(job["folder"])
    vm.kill()
    _, err = child.communicate(timeout=60)
    assert child.returncode == 1, err
    check_words(err, "has ended", vm.name)
    assert content(daemon) == ""  # it may not have been reaped
    for path in [pid_file, job["folder"], *[disk["target"] for disk in job["disks"]]]:
        assert not os.path.exists(path), path
    assert not os.path.exists(record)


main()
