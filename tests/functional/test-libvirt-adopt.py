# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: bitmaps on a disk that libvirt does not know of are found and used, what was written since
is what an incremental reads, and a dry run tells nobody; a job that somebody ends while it is read
ends the backup, soon and with the reason."""
from __future__ import annotations

import shutil
import time

from lab import Lab, main, test, wait_until
from repository import Repository, check_words
from virt import Libvirt

SIZE = 16 << 20


@test
def test_metadata_lost(lab: Lab) -> None:
    """libvirt's descriptions go, as when a domain is defined anew, and ours, as on another host; the
    bitmaps stay."""
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE)])
    repo = Repository(lab)
    vm.change(10)
    first = repo.backup(vm)
    name, = vm.checkpoints()
    vm.change(3)
    vm.virsh("checkpoint-delete", name, "--metadata")
    shutil.rmtree(lab.state)
    assert vm.checkpoints() == []
    plan = lab.tidemark_json("backup", *vm.domain, "-r", repo.path, "--dry-run", rc=3)
    assert vm.checkpoints() == []
    for disk in plan["disks"]:
        assert "not known here" in disk["reason"] and name in disk["reason"], disk
    point = repo.backup(vm, rc=0)
    assert set(point.modes.values()) == {"incremental"}
    assert {disk["base_point"] for disk in point.report["disks"]} == {first.id}
    assert len(vm.checkpoints()) == 1 and name not in vm.checkpoints()
    repo.check_all()
    repo.verify()


@test
def test_no_bitmap_either(lab: Lab) -> None:
    """What is neither known nor there is asked for in vain, and the disk is read in full."""
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE)])
    repo = Repository(lab)
    repo.backup(vm)
    name, = vm.checkpoints()
    vm.virsh("checkpoint-delete", name)
    point = repo.backup(vm, rc=3)
    assert point.modes == {"vda": "full"} and "gone" in point.disk("vda")["reason"]
    assert name not in vm.checkpoints() and len(vm.checkpoints()) == 1
    repo.check_all()


@test
def test_job_ended_by_others(lab: Lab) -> None:
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE)])
    vm.change(60)
    repo = Repository(lab)
    child = lab.tidemark_popen("backup", *vm.domain, "-r", repo.path, "--bandwidth", "64K")
    wait_until(lambda: vm.virsh("backup-dumpxml", check=False).rc == 0, 20, "the job runs")
    time.sleep(0.5)
    vm.virsh("domjobabort")
    began = time.monotonic()
    _out, err = child.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert child.returncode == 1, (child.returncode, err)
    check_words(err, "ended")
    assert vm.checkpoints() == [] and vm.state() == "running"
    vm.assert_clean()
    point = repo.backup(vm)
    assert point.modes == {"vda": "full"}
    repo.check_all()


main()
