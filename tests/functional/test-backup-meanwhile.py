#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: what happens to a machine while `tidemark backup` works (other jobs, other backups, disks
that are resized or taken away, a QEMU that hangs or dies, a scratch that runs full) costs at most
that one point: it is said what failed and what to do, the checkpoint from before stays, nothing is
left behind, and the next backup works."""
from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time

from backup import backup_xml, disk_xml
from lab import Lab, Vm, main, soak, test, wait_until
from repository import Repository, check_words

M = 1 << 20


def start(lab: Lab, vm: Vm, repo: Repository, *options: object) -> subprocess.Popen:
    """A full backup that takes some seconds, once it reads.

    Only exports are asked for: QEMU aborts (qcow2_get_specific_info) where it lists all nodes while
    the job of blockdev-create opens its new image."""
    child = lab.tidemark_popen("backup", "--qmp", vm.address, "-r", repo.path, "--mode", "full",
                               "--bandwidth", "3M", *options)
    wait_until(lambda: vm.qmp.command("query-block-exports"), 20)
    time.sleep(0.5)
    return child


def machine(lab: Lab) -> Vm:
    """Two disks, with something on them; vdb can be unplugged."""
    vm = lab.vm([lab.disk("vda", "16M"), lab.disk("vdb", "16M", bus="scsi")])
    for disk in vm.disks:
        vm.writer(disk).write_random(0, 6 * M, lab.rng)
    return vm


@test
def test_a_qemu_that_hangs_or_dies(lab: Lab) -> None:
    vm = machine(lab)
    repo = Repository(lab)
    first = repo.backup(vm, rc=0)
    vm.freeze()
    said = lab.tidemark("backup", "--qmp", vm.address, "-r", repo.path, rc=1)
    vm.thaw()
    check_words(said.err, "vm0.qmp", "QEMU hangs")
    vm.assert_clean()
    running = start(lab, vm, repo)
    vm.kill()
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1, err
    check_words(err, "QEMU", "nothing was lost")
    assert repo.verify()["points"] == 1
    repo.check(first)
    vm.start()
    point = repo.backup(vm, rc=3)
    assert set(point.modes.values()) == {"full"}, point.report
    assert not [name for name in os.listdir(lab.dir) if ".tidemark-" in name]
    repo.assert_tidy(vm)
    repo.check(point)


@test(timeout=120)
def test_another_client_that_looks(lab: Lab) -> None:
    """Management asks a monitor of its own what nodes there are, all the time: QEMU 7.2 aborts if
    that meets a blockdev-create of qcow2, while the new image is opened."""
    vm = machine(lab)
    repo = Repository(lab)
    over, count = threading.Event(), [0]

    def look() -> None:
        while not over.is_set() and vm.alive():
            try:
                vm.qmp.command("query-named-block-nodes", flat=True)
            except (EOFError, OSError):
                return  # it is gone
            count[0] += 1

    for iothread in (False, True):
        looker = threading.Thread(target=look)
        looker.start()
        try:
            for _ in range(soak(4, 100)):
                lab.tidemark("backup", "--qmp", vm.address, "-r", repo.path, rc=0)
        finally:
            over.set()
            looker.join()
        assert count[0] > 50 and vm.alive(), count
        vm.assert_clean()
        over.clear()
        if not iothread:
            vm = lab.vm([lab.disk("vdi", "8M", iothread=True)])


@test
def test_a_scratch_that_runs_full(lab: Lab) -> None:
    """The guest's write goes on."""
    vm = machine(lab)
    repo = Repository(lab)
    first = repo.backup(vm, rc=0)
    folder = lab.tmpfs("2M")
    running = start(lab, vm, repo, "--scratch-dir", folder, "--no-space-check")
    vm.writer(vm["vda"]).write_random(0, 6 * M, lab.rng)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1, err
    check_words(err, "'vda'", "scratch")
    vm.assert_clean()
    assert not os.listdir(folder)
    assert list(vm.bitmaps(vm["vda"])) == [first.report["checkpoint"]]
    assert set(repo.backup(vm, rc=0).modes.values()) == {"incremental"}
    repo.assert_tidy(vm)
    repo.check_all()


# ---- other jobs ---------------------------------------------------------------------------------

@test
def test_a_job_of_the_user(lab: Lab) -> None:
    vm = machine(lab)
    repo = Repository(lab)
    first = repo.backup(vm, rc=0)
    target = lab.path("target.qcow2")
    lab.tidemark("begin", "--qmp", vm.address, "--bandwidth", "1M",
                 lab.file("push.xml", backup_xml([disk_xml("vda", target)])))
    before = sorted(os.walk(repo.path))
    said = lab.tidemark("backup", "--qmp", vm.address, "-r", repo.path, rc=1)
    check_words(said.err, "a backup job runs already", "tidemark wait", "tidemark abort")
    assert lab.tidemark_json("status", "--qmp", vm.address)["state"] == "running"
    assert sorted(os.walk(repo.path)) == before
    assert list(vm.bitmaps("vda-fmt")) == [first.report["checkpoint"]]
    lab.tidemark("abort", "--qmp", vm.address)
    vm.assert_clean()
    assert set(repo.backup(vm, rc=0).modes.values()) == {"incremental"}


@test
def test_another_backup(lab: Lab) -> None:
    """The second is refused, the first goes on; also into another repository."""
    vm = machine(lab)
    repo, other = Repository(lab), Repository(lab, "other")
    running = start(lab, vm, repo)
    for where in (repo, other):
        said = lab.tidemark("backup", "--qmp", vm.address, "-r", where.path, "--json", rc=1)
        check_words(said.err, "another backup of this domain is under way", "tidemark status")
        assert json.loads(said.out)["error"]["code"] == "busy", said
    target = lab.path("target.qcow2")
    said = lab.tidemark("begin", "--qmp", vm.address,
                        lab.file("push.xml", backup_xml([disk_xml("vda", target)])), rc=1)
    check_words(said.err, "a backup job runs already")
    assert not os.path.exists(target)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, (out, err)
    point = re.match("point ([0-9a-f]{16}) ", out).group(1)
    for disk in vm.disks:
        lab.compare(repo.restore(point, disk.name), disk.model)
    vm.assert_clean()
    assert other.verify()["points"] == 0


@test(timeout=120)
def test_somebody_ends_its_job(lab: Lab) -> None:
    vm = machine(lab)
    repo = Repository(lab)
    first = repo.backup(vm, rc=0)
    for verb in ("abort", "end"):
        running = start(lab, vm, repo)
        lab.tidemark(verb, "--qmp", vm.address)
        _, err = running.communicate(timeout=60)
        assert running.returncode == 1, err
        check_words(err, "somebody ended the job", "begin again")
        vm.assert_clean()
        assert first.report["checkpoint"] in vm.bitmaps(vm["vda"])
        vm.writer(vm["vda"]).random_ops(lab.rng, 5)
        point = repo.backup(vm, rc=0)
        assert set(point.modes.values()) == {"incremental"}
        first = point
    repo.assert_tidy(vm)
    assert repo.verify()["points"] == 3
    repo.check_all()


# ---- the machine changes meanwhile --------------------------------------------------------------

@test
def test_resized_meanwhile(lab: Lab) -> None:
    """The point is refused. The checkpoint from before stays, but is of another size: full."""
    vm = machine(lab)
    repo = Repository(lab)
    first = repo.backup(vm, rc=0)
    running = start(lab, vm, repo)
    vm.resize(vm["vda"], 24 * M)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1, err
    check_words(err, "disk 'vda' was resized during the backup", "again")
    vm.assert_clean()
    for disk in vm.disks:
        assert list(vm.bitmaps(disk)) == [first.report["checkpoint"]], vm.bitmaps(disk)
    assert repo.verify()["points"] == 1
    point = repo.backup(vm, rc=3)
    assert point.modes == {"vda": "full", "vdb": "incremental"}
    assert "resized from 16777216 to 25165824" in point.disk("vda")["reason"], point.report
    repo.assert_tidy(vm)
    repo.check_all()


@test
def test_unplugged_meanwhile(lab: Lab) -> None:
    """A disk that goes while it is read, or waits to be: no point, and nothing left."""
    vm = machine(lab)
    repo = Repository(lab)
    first = repo.backup(vm, rc=0)
    disk = vm["vdb"]
    for options in ((), ("--include", "vdb")):
        running = start(lab, vm, repo, *options)
        vm.qmp.command("device_del", id="vdb")
        vm.qmp.wait_event("DEVICE_DELETED", device="vdb")
        vm.disks.remove(disk)
        _, err = running.communicate(timeout=60)
        assert running.returncode == 1, err
        check_words(err, "disk 'vdb'", "detached", "again")
        vm.assert_clean()
        assert not [name for name in os.listdir(lab.dir) if ".tidemark-" in name]
        assert list(vm.bitmaps("vdb-fmt")) == [first.report["checkpoint"]]
        # What is left of the machine is backed up; and with the disk back, all of it.
        assert repo.backup(vm, rc=0).modes == {"vda": "incremental"}
        vm.qmp.command("device_add", driver="scsi-hd", id="vdb", drive="vdb-fmt", bus="scsi.0")
        vm.disks.append(disk)
        vm.writer(disk).random_ops(lab.rng, 5)
        first = repo.backup(vm, rc=0)
        assert first.modes == {"vda": "incremental", "vdb": "incremental"}
    repo.assert_tidy(vm)
    repo.check_all()
    assert repo.verify()["damaged"] == 0


main()
