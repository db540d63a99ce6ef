# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: a domain of libvirt's is backed up running and shut off as one chain of incrementals,
each disk exactly as it was, and of one instant while the guest writes on; a crash of QEMU costs a
full read and says so; and what libvirt knows of checkpoints stays what is on the disks."""
from __future__ import annotations

from lab import Guest, Lab, main, soak, test
from repository import Repository
from virt import Libvirt

SIZE = 8 << 20
INCREMENTAL = {"vda": "incremental", "vdb": "incremental"}


@test(timeout=180)
def test_one_chain_on_and_off(lab: Lab) -> None:
    """Running, shut off, running, killed, running, killed, shut off."""
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE + 1536)])
    repo = Repository(lab)
    vm.change(20)
    repo.backup(vm, rc=0).expect(vda="full", vdb="full")
    vm.assert_tidy(repo)
    for _ in range(2):
        vm.change()
        repo.backup(vm, rc=0).expect(**INCREMENTAL)
        vm.assert_tidy(repo)
    vm.change()
    vm.quit()
    for _ in range(2):
        vm.change()
        repo.backup(vm, rc=0).expect(**INCREMENTAL)
        vm.assert_tidy(repo)
    vm.change()
    vm.start()
    vm.change()
    repo.backup(vm, rc=0).expect(**INCREMENTAL)
    vm.assert_tidy(repo)
    vm.change()
    vm.restart()  # stores the bitmaps
    vm.change()
    for disk in vm.disks:
        vm.writer(disk).flush()
    vm.kill()

    vm.start()
    vm.change()
    point = repo.backup(vm, rc=3).expect(vda="full", vdb="full")
    assert all("inconsistent" in why for why in point.reasons.values()), point.reasons
    vm.assert_tidy(repo)
    vm.change()
    repo.backup(vm, rc=0).expect(**INCREMENTAL)
    for disk in vm.disks:
        vm.writer(disk).flush()
    vm.kill()
    point = repo.backup(vm, rc=3).expect(vda="full", vdb="full")
    assert all("gone" in why for why in point.reasons.values()), point.reasons  # never stored
    vm.assert_tidy(repo)
    vm.change()
    repo.backup(vm, rc=0).expect(**INCREMENTAL)
    vm.start()
    vm.change()
    repo.backup(vm, rc=0).expect(**INCREMENTAL)
    vm.assert_tidy(repo)
    repo.check_all()
    assert repo.verify()["damaged"] == 0


@test(timeout=180)
def test_the_guest_goes_on(lab: Lab) -> None:
    """A guest that writes all the time: every point is of one instant."""
    vm = Libvirt(lab).vm([lab.disk("vda"), lab.disk("vdb")], guest=Guest(pause_us=0))
    repo = Repository(lab)
    for number in range(soak(4, 40)):
        vm.guest.wait(100)
        point = repo.backup(vm, rc=0)
        point.expect(**(INCREMENTAL if number else {"vda": "full", "vdb": "full"}))
        vm.guest.check_cut([repo.restore(point, name, ".raw", "--verify") for name in point.models])
        vm.assert_tidy(repo)
    assert vm.guest.errors() == 0


@test(timeout=180)
def test_resized_and_restored(lab: Lab) -> None:
    """A resized disk is read in full where the bitmap cannot say; two repositories at once."""
    vm = Libvirt(lab).vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE)])
    one, two = Repository(lab, "one"), Repository(lab, "two")
    for repo in (one, two):
        vm.change()
        repo.backup(vm, rc=0).expect(vda="full", vdb="full")
    for repo in (one, two, two, one):
        vm.change()
        repo.backup(vm, rc=0).expect(**INCREMENTAL)
        vm.assert_tidy(repo)
    vm.resize(vm["vda"], SIZE + (3 << 20))
    vm.change()
    for repo in (one, two):
        point = repo.backup(vm)
        assert point.modes["vdb"] == "incremental", point.reasons
        vm.assert_tidy(repo)
    vm.change()
    for repo in (one, two):
        repo.backup(vm, rc=0).expect(**INCREMENTAL)
        repo.check_all()


main()
