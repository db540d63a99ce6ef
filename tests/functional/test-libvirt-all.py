# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: 'backup --all' makes a point of every domain of libvirt's, running or not, some at a time;
what goes wrong with one is not the others' trouble; those without disks are passed over; and
interrupted it leaves nothing behind and no guest held."""
from __future__ import annotations

import json
import signal

from lab import Lab, main, test, wait_until
from repository import Repository
from virt import Libvirt, VirtVm

SIZE = 8 << 20


def machines(lab: Lab, host: Libvirt, names: str) -> list[VirtVm]:
    vms = []
    for name in names.split():
        vm = host.vm([lab.disk("vda", SIZE, path=lab.path(f"{name}.qcow2"))], name=name)
        vm.change(10)
        vms.append(vm)
    return vms


def rows(out: str) -> dict[str, str]:
    return dict(line.split(None, 1) for line in out.splitlines()[1:])


def run_all(lab: Lab, host: Libvirt, repo: Repository, *options: object, **how):
    return lab.tidemark("backup", "--all", "-c", host.uri, "-r", repo.path, *options, **how)


@test
def test_all(lab: Lab) -> None:
    host = Libvirt(lab)
    vms = machines(lab, host, "one two three")
    vms[1].quit()
    bare = host.vm([], name="bare", start=False)
    drive = host.vm([], name="drive", start=False, devices=(
        "<disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>"))
    assert not bare.alive() and not drive.alive()
    repo = Repository(lab)
    result = run_all(lab, host, repo, "--dry-run")
    assert set(rows(result.out)) == {"one", "two", "three", "bare", "drive"}
    assert lab.tidemark_json("list", "-r", repo.path)["points"] == []

    result = run_all(lab, host, repo)
    said = rows(result.out)
    assert all("1 full" in said[vm.name] for vm in vms), result.out
    assert all("skipped: it has no disks" in said[name] for name in ("bare", "drive")), result.out
    assert all(f"{vm.name}  " in result.err for vm in vms), result.err
    for vm in vms:
        vm.change(3)
    document = json.loads(run_all(lab, host, repo, "--json", "--jobs", 3, "--exclude-domain",
                                  "three").out)
    found = {entry["domain"]: entry for entry in document["domains"]}
    assert set(found) == {"one", "two", "bare", "drive"}
    for vm in vms[:2]:
        entry = found[vm.name]
        assert entry["exit"] == 0 and entry["uuid"] == vm.uuid
        assert [disk["mode"] for disk in entry["result"]["disks"]] == ["incremental"]
        point = entry["result"]["point"]
        image = repo.restore(point, "vda")
        lab.compare(image, vm.disks[0].model)
    assert found["bare"]["exit"] is None and found["bare"]["skipped"] == "no disks"
    assert len(lab.tidemark_json("list", "-r", repo.path)["points"]) == 5
    repo.verify()


@test
def test_one_fails(lab: Lab) -> None:
    """The exit code tells the worst; an excluded domain that is not there is a warning."""
    host = Libvirt(lab)
    vms = machines(lab, host, "good bad")
    vms[1].virsh("backup-begin", lab.file("job.xml", (
        f"<domainbackup><disks><disk name='vda' type='file'><target file='{lab.path('x')}'/>"
        "</disk></disks></domainbackup>").replace("<domainbackup>", "<domainbackup mode='pull'>"
        f"<server transport='unix' socket='{host.monitors}/nbd'/>").replace("target", "scratch")))
    repo = Repository(lab)
    result = run_all(lab, host, repo, rc=1)
    said = rows(result.out)
    assert "1 full" in said["good"] and "failed: " in said["bad"], result.out
    assert "bad " in result.err and "error: " in result.err
    found = {entry["domain"]: entry
             for entry in json.loads(run_all(lab, host, repo, "--json", rc=1).out)["domains"]}
    assert found["bad"]["exit"] == 1 and found["bad"]["error"]["message"]
    assert found["good"]["exit"] == 0
    result = run_all(lab, host, repo, "--exclude-domain", "bad", "--exclude-domain", "gone", rc=3)
    assert "no domain 'gone' to exclude" in result.err and "bad" not in rows(result.out)
    vms[1].virsh("domjobabort")


@test
def test_interrupted(lab: Lab) -> None:
    host = Libvirt(lab)
    vms = machines(lab, host, "a b c")
    repo = Repository(lab)
    child = lab.tidemark_popen("backup", "--all", "-c", host.uri, "-r", repo.path, "--jobs", 2,
                               "--bandwidth", "64K")
    wait_until(lambda: all("scratch" in vm.virsh("backup-dumpxml", check=False).out
                           for vm in vms[:2]), 30, "two jobs run")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 130, (child.returncode, out, err)
    assert "not begun" in rows(out)["c"] and "failed" in rows(out)["a"], out
    for vm in vms:
        assert vm.virsh("backup-dumpxml", check=False).rc != 0
        assert vm.checkpoints() == [] and vm.state() == "running"
        vm.assert_clean()
    assert lab.tidemark_json("list", "-r", repo.path)["points"] == []
    run_all(lab, host, repo)
    repo.verify()


@test
def test_check(lab: Lab) -> None:
    """'check' on domains of libvirt's, running and not, leaves nothing of its trial behind."""
    host = Libvirt(lab)
    vm, = machines(lab, host, "one")
    repo = Repository(lab)
    for _ in range(2):
        report = lab.tidemark_json("check", *vm.domain, "-r", repo.path)
        assert report["problems"] == report["warnings"] == 0, report
        assert [entry["disk"] for entry in report["checks"] if entry["what"] == "disk"] == ["vda"]
        assert [entry["level"] for entry in report["checks"] if entry["what"] == "trial"] == ["ok"]
        assert vm.checkpoints() == [] or not vm.alive()
        if vm.alive():
            assert vm.virsh("backup-dumpxml", check=False).rc != 0
            vm.assert_clean()
            vm.quit()
    vm.start()
    report = lab.tidemark_json("check", *vm.domain, "-r", repo.path, "--quiesce", rc=3)
    agent, = [entry for entry in report["checks"] if entry["what"] == "agent"]
    assert agent["level"] == "warning" and "no channel" in agent["message"]
    report = lab.tidemark_json("check", "-c", host.uri, "-d", "none", "-r", repo.path, rc=1)
    assert [entry["what"] for entry in report["checks"] if entry["level"] == "problem"] == ["domain"]


@test
def test_usage(lab: Lab) -> None:
    repo = Repository(lab)
    for wrong in (["--all", "-d", "x"], ["--all", "--qmp", "/x"], ["--all", "--image", "a=b"],
                  ["--all", "--name", "x"], ["--all", "--xml", "x"], ["--all", "--agent", "x"],
                  ["--all", "--jobs", "-1"], ["--all", "--jobs", "100"],
                  ["-d", "x", "--jobs", "2"], ["-d", "x", "--exclude-domain", "y"]):
        assert "error: " in lab.tidemark("backup", "-r", repo.path, *wrong, rc=2).err
    result = lab.tidemark("backup", "--all", "-r", repo.path, "-c",
                          f"qemu+unix:///system?socket={lab.path('none')}", rc=1)
    assert "cannot connect" in result.err


main()
