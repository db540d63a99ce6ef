#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: one push mixes full and incremental disks at one instant, and every chain it leaves is
the disk as of that instant, whatever the guest writes before, during and after."""
from backup import Series
from lab import Guest, Lab, Skip, main, soak, test


@test(timeout=150)
def test_three_disks_each_since_its_own_checkpoint(lab: Lab) -> None:
    """vda since c1, vdb since c2, a hot-plugged vdc in full, one new checkpoint c3."""
    vda, vdb = lab.disk("vda"), lab.disk("vdb", cluster=1 << 12)
    vm = lab.vm([vda, vdb])
    series, rng = Series(vm), lab.rng
    vm.writer(vda).random_ops(rng, 30)
    vm.writer(vdb).random_ops(rng, 30)
    series.run("c1")
    vm.writer(vda).random_ops(rng, 10)
    vm.writer(vdb).random_ops(rng, 10)
    series.run("c2", {"vda": "c1", "vdb": "c1"})
    vm.writer(vda).random_ops(rng, 10)
    vm.writer(vdb).random_ops(rng, 10)
    vdc = lab.disk("vdc", "48M")
    vm.plug(vdc)
    vm.writer(vdc).random_ops(rng, 20)

    def scribble() -> None:
        for disk in vm.disks:
            vm.writer(disk).random_ops(rng, 15)

    series.run("c3", {"vda": "c1", "vdb": "c2"}, "--bandwidth", "16M", during=scribble)
    scribble()
    # And once more, everything since c3: what was written during and after the job is in it.
    series.run("c4", {"vda": "c3", "vdb": "c3", "vdc": "c3"})
    for disk in vm.disks:
        names = {"c3", "c4"} | ({"c1", "c2"} if disk is not vdc else set())
        assert set(vm.bitmaps(disk)) == names, vm.bitmaps(disk)
    vm.quit()
    for point in series.points:
        point.verify()


def one_instant(lab: Lab, rounds: int, **options) -> None:
    disks = [lab.disk(name) for name in ("vda", "vdb", "vdc")]
    guest = Guest(pause_us=0)
    vm = lab.vm(disks, guest=guest, **options)
    guest.wait(200, timeout=60)
    series = Series(vm)
    since: dict[str, str] = {}
    for number in range(rounds):
        name = f"c{number}"
        series.run(name, since)
        since = {disk.name: name for disk in disks}
        guest.wait(100)
    assert guest.errors() == 0
    vm.quit()
    heads = [guest.check_cut([lab.raw(point.images[disk.name]) for disk in disks]).heads[0]
             for point in series.points]
    assert heads == sorted(heads) and len(set(heads)) == rounds, heads


@test(timeout=150)
def test_running_guest_sees_one_instant_across_disks(lab: Lab) -> None:
    one_instant(lab, 4)


@test(timeout=150)
def test_the_same_in_an_iothread_each(lab: Lab) -> None:
    extra = ["-object", "iothread,id=io1", "-object", "iothread,id=io2"]
    disks = [lab.disk("vda", device={"iothread": "io1"}), lab.disk("vdb", device={"iothread": "io2"}),
             lab.disk("vdc")]
    guest = Guest(pause_us=0)
    vm = lab.vm(disks, guest=guest, extra=extra)
    guest.wait(200)
    series = Series(vm)
    since: dict[str, str] = {}
    for number in range(soak(3, 40)):
        series.run(f"c{number}", since)
        since = {disk.name: f"c{number}" for disk in disks}
        guest.wait(7)
    assert guest.errors() == 0
    vm.quit()
    for point in series.points:
        guest.check_cut([lab.raw(point.images[disk.name]) for disk in disks])


@test(timeout=150)
def test_the_same_under_kvm(lab: Lab) -> None:
    if not lab.kvm():
        raise Skip("KVM does not work here")
    one_instant(lab, 2, accel="kvm")


main()
