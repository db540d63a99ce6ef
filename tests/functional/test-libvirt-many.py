# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: several domains of libvirt's are backed up at the same time into one repository, running
and shut off, each exactly; what happens to one does not reach the others."""
from __future__ import annotations

import signal

from lab import Lab, main, test, wait_until
from repository import Repository
from virt import Libvirt

SIZE = 4 << 20


@test(timeout=180)
def test_two_at_once(lab: Lab) -> None:
    """One of them is killed in the middle, at last."""
    host = Libvirt(lab)
    vms = [host.vm([lab.disk(f"vd{name}", SIZE), lab.disk(f"sd{name}", SIZE, bus="scsi")])
           for name in "ab"]
    repo = Repository(lab)
    for number in range(3):
        for vm in vms:
            vm.change()
        children = [lab.tidemark_popen("backup", *vm.domain, "-r", repo.path, "-q", "--bandwidth",
                                       "3M") for vm in vms]
        said = [child.communicate(timeout=60) for child in children]
        assert [child.returncode for child in children] == [0, 0], said
        points = lab.tidemark_json("list", "-r", repo.path)["points"]
        assert len(points) == 2 * (number + 1), points
        for vm in vms:
            newest = max((one for one in points if one["domain"] == vm.name),
                         key=lambda one: one["time"])
            for disk in vm.disks:
                image = repo.restore(newest["id"], disk.name, ".raw", "--verify")
                lab.compare(image, disk.model, "raw")
            vm.assert_tidy(repo)
    for vm in vms:
        vm.change()
    children = [lab.tidemark_popen("backup", *vm.domain, "-r", repo.path, "-q", "--mode", "full",
                                   "--bandwidth", "3M") for vm in vms]
    wait_until(lambda: vms[0].job() or children[0].poll() is not None, 20)
    assert children[0].poll() is None, children[0].communicate()
    children[0].send_signal(signal.SIGKILL)
    said = [child.communicate(timeout=60) for child in children]
    assert children[1].returncode == 0, said
    for vm in vms:
        vm.change()
        repo.check(repo.backup(vm, rc=0).expect(**{disk.name: "incremental" for disk in vm.disks}))
        vm.assert_tidy(repo)


main()
