# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: 'check' finds what would make a backup fail, names it and what to do, and calls sound what
is; its trial leaves nothing behind, in QEMU, beside the images and in the repository; and what it
says a backup then does."""
from __future__ import annotations

import os
import signal
import socket

from lab import Lab, main, soak, test
from repository import Repository, image_options

SIZE = 8 << 20


def check(lab: Lab, repo: str, *options: object, rc: int | tuple[int, ...] = 0) -> dict:
    report = lab.tidemark_json("check", "-r", repo, *options, rc=rc)
    levels = [entry["level"] for entry in report["checks"]]
    assert [levels.count(name) for name in ("ok", "warning", "problem")] \
        == [report["ok"], report["warnings"], report["problems"]]
    return report


def found(report: dict, what: str, level: str | None = None) -> list[dict]:
    return [entry for entry in report["checks"]
            if entry["what"] == what and level in (None, entry["level"])]


def only(report: dict, what: str, level: str, *words: str) -> dict:
    """The one check of this kind and level, with these words."""
    entries = found(report, what, level)
    assert len(entries) == 1, report
    for word in words:
        assert word in f"{entries[0]['message']} {entries[0]['hint']}", entries[0]
    if level != "ok":
        assert entries[0]["hint"], entries[0]
    return entries[0]


def files(folder: str) -> set[str]:
    return {os.path.join(base, name) for base, _, names in os.walk(folder) for name in names}


@test
def test_sound(lab: Lab) -> None:
    """All is well, on and off; before and after a backup; nothing changes by it."""
    vm = lab.vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE)])
    repo = Repository(lab)
    for disk in vm.disks:
        vm.writer(disk).random_ops(lab.rng, 20)
    for mode in ("full", "incremental"):
        before = files(repo.path)
        beside = {name for name in os.listdir(lab.dir) if "check-" in name}
        report = check(lab, repo.path, "--qmp", vm.address)
        assert report["warnings"] == report["problems"] == 0
        assert [entry["disk"] for entry in found(report, "disk")] == ["vda", "vdb"]
        assert all(mode in entry["message"] for entry in found(report, "disk"))
        only(report, "trial", "ok", "2 disks", "the guest was held")
        for what in ("domain", "state", "repository", "space", "scratch"):
            only(report, what, "ok")
        vm.assert_clean()
        assert files(repo.path) == before and not beside
        assert not [name for name in os.listdir(lab.dir) if "check-" in name]
        assert not found(check(lab, repo.path, "--qmp", vm.address, "--no-trial"), "trial")
        point = repo.backup(vm)
        assert set(point.modes.values()) == {mode}
        for disk in vm.disks:
            vm.writer(disk).random_ops(lab.rng, 3)
    said = lab.tidemark("check", "--qmp", vm.address, "-r", repo.path)
    assert all(line.startswith("ok: ") for line in said.out.splitlines()), said.out
    assert lab.tidemark("check", "--qmp", vm.address, "-r", repo.path, "-q").out == ""
    options = image_options(vm.disks)
    only(check(lab, repo.path, *options, rc=1), "domain", "problem")  # QEMU has them
    vm.quit()
    report = check(lab, repo.path, *options, "--name", vm.name)
    only(report, "trial", "ok", "2 disks")
    assert not found(report, "scratch")
    assert all("incremental" in entry["message"] for entry in found(report, "disk"))
    repo.backup_images(vm.disks, "--name", vm.name)
    repo.check_all()


@test
def test_what_is_not_there(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", SIZE)])
    repo = Repository(lab)
    report = check(lab, lab.path("none"), "--qmp", vm.address, rc=1)
    only(report, "repository", "problem", "none")
    only(report, "domain", "ok")
    assert not found(report, "trial")
    report = check(lab, repo.path, "--qmp", lab.path("none"), rc=1)
    only(report, "domain", "problem", "none")
    only(report, "repository", "ok")
    report = check(lab, repo.path, "--qmp", vm.address, "--scratch-dir", lab.path("none"), rc=1)
    only(report, "scratch", "problem", "is not there", "make the folder")
    only(report, "trial", "problem")
    vm.assert_clean()
    lab.tidemark("check", "--qmp", vm.address, rc=2)
    lab.tidemark("check", "-r", repo.path, rc=2)


@test
def test_disks(lab: Lab) -> None:
    """What cannot be backed up, or falls back, and why."""
    vm = lab.vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE, fmt="raw")])
    repo = Repository(lab)
    report = check(lab, repo.path, "--qmp", vm.address, rc=(0, 3))
    raw = [entry for entry in found(report, "disk") if entry["disk"] == "vdb"]
    assert len(raw) == 2 or report["warnings"] == 0, report
    repo.backup(vm)
    vm.quit()  # stores the bitmaps
    vm.start()
    vm.kill()
    vm.start()
    report = check(lab, repo.path, "--qmp", vm.address, rc=3)
    only(report, "checkpoint", "warning", "vda", "inconsistent", "tidemark checkpoint delete")
    fallen = [entry for entry in found(report, "disk", "warning") if entry["disk"] == "vda"]
    assert len(fallen) == 1 and "full: " in fallen[0]["message"], fallen
    point = repo.backup(vm, rc=3)
    assert point.modes["vda"] == "full"
    assert not [entry for entry in found(check(lab, repo.path, "--qmp", vm.address, rc=(0, 3)),
                                         "disk") if entry["disk"] == "vda"
                and entry["level"] != "ok"]
    report = check(lab, repo.path, "--qmp", vm.address, "--exclude", "vda", rc=(0, 3))
    assert {entry["disk"] for entry in found(report, "disk")} == {"vdb"}


@test
def test_room(lab: Lab) -> None:
    """Small file systems, for the repository and for scratch images."""
    small = lab.tmpfs("40M")
    vm = lab.vm([lab.disk("vda", SIZE)])
    vm.writer(vm.disks[0]).random_ops(lab.rng, 5)
    repo = Repository(lab, path=os.path.join(small, "repo"))
    report = check(lab, repo.path, "--qmp", vm.address, "--scratch-dir", small, rc=1)
    only(report, "space", "problem", "are free")
    only(report, "scratch", "problem", small, "--scratch-dir")
    vm.assert_clean()


@test
def test_job_runs(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", SIZE)])
    repo = Repository(lab)
    job = lab.file("job.xml", "<domainbackup mode='pull'><server transport='unix' "
                   f"socket='{lab.sockets}/nbd'/></domainbackup>")
    lab.tidemark("begin", "--qmp", vm.address, job)
    report = check(lab, repo.path, "--qmp", vm.address, rc=1)
    only(report, "domain", "problem", "a job runs", "tidemark status")
    assert not found(report, "trial")
    assert lab.tidemark_json("status", "--qmp", vm.address)["state"] == "running"
    lab.tidemark("end", "--qmp", vm.address)
    check(lab, repo.path, "--qmp", vm.address)
    vm.assert_clean()


@test
def test_agent(lab: Lab) -> None:
    """A socket behind which nobody answers."""
    vm = lab.vm([lab.disk("vda", SIZE)])
    repo = Repository(lab)
    path = os.path.join(lab.sockets, "ga")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        report = check(lab, repo.path, "--qmp", vm.address, "--quiesce", "--agent", path, rc=3)
    only(report, "agent", "warning")
    only(report, "trial", "ok")
    lab.tidemark("check", "--qmp", vm.address, "-r", repo.path, "--quiesce", rc=2)


@test
def test_state_folder(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", SIZE)])
    repo = Repository(lab)
    wrong = os.path.join(lab.file("file", ""), "state")
    report = check(lab, repo.path, "--qmp", vm.address, "--state-dir", wrong, rc=1)
    only(report, "state", "problem", wrong, "--state-dir")
    check(lab, repo.path, "--qmp", vm.address, "--state-dir", lab.path("not/yet"))


@test(timeout=180)
def test_killed(lab: Lab) -> None:
    """A trial that is killed at any step is tidied up by the next backup, which is exact."""
    vm = lab.vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE)])
    repo = Repository(lab)
    repo.backup(vm)
    options = ["check", "--qmp", vm.address, "-r", repo.path]
    steps = lab.tidemark(*options, env={"TIDEMARK_TEST_TRACE": "1"}).err.count("testpoint")
    assert steps > 20, steps
    every = soak(9, 1)
    for number in range(lab.rng.randrange(every) + 1, steps + 1, every):
        for disk in vm.disks:
            vm.writer(disk).random_ops(lab.rng, 2, longest=1 << 16)
        lab.tidemark(*options, env={"TIDEMARK_TEST_KILL_AT": str(number)},
                     rc=(0, -signal.SIGKILL))
        assert set(repo.backup(vm, rc=0).modes.values()) == {"incremental"}
        repo.assert_tidy(vm)
        assert not [name for name in os.listdir(lab.dir) if "check-" in name], number
    repo.check(repo.points[-1])


@test
def test_iothread(lab: Lab) -> None:
    """A disk that this QEMU cannot export is said to be, and not tried."""
    vm = lab.vm([lab.disk("vda", SIZE, iothread=True), lab.disk("vdb", SIZE)])
    repo = Repository(lab)
    old = lab.qemu_version() < (10, 0)
    report = check(lab, repo.path, "--qmp", vm.address, rc=3 if old else 0)
    assert len(found(report, "qemu", "warning")) == old
    only(report, "trial", "ok", "1 disk " if old else "2 disks")
    vm.assert_clean()


main()
