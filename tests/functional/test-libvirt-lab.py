# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves the lab of the tests with libvirt (tests/lib/virt.py), without the product: what a writer
or the guest wrote is on the disks, domains outlive libvirtd but not the test, and what a backup
leaves behind is seen."""
from __future__ import annotations

import os
import subprocess
import sys

import run
from lab import Guest, Lab, main, test, wait_until
from virt import Libvirt

SIZE = 8 << 20


@test
def test_writes_arrive(lab: Lab) -> None:
    """By writer and guest, on every bus and format, through start, end and crash."""
    host = Libvirt(lab)
    disks = [lab.disk("vda", SIZE), lab.disk("sdb", SIZE, bus="scsi", fmt="raw"),
             lab.disk("vdc", SIZE, iothread=True)]
    vm = host.vm(disks)
    assert vm.status() == vm.state() == "running"
    for disk in disks:
        vm.writer(disk).random_ops(lab.rng, 30)
        vm.compare(disk)
    vm.quit()
    assert vm.state() == "shut off"
    for disk in disks:
        lab.compare(disk.path, disk.model, disk.fmt)
        lab.writer(disk).random_ops(lab.rng, 10)
    vm.start()
    for disk in disks:
        vm.writer(disk).random_ops(lab.rng, 10)
        vm.writer(disk).flush()
    vm.kill()
    assert vm.state() == "shut off" and not vm.alive()
    for disk in disks:
        lab.compare(disk.path, disk.model, disk.fmt)
    vm.start()
    vm.assert_clean()


@test
def test_the_guest_writes(lab: Lab) -> None:
    host = Libvirt(lab)
    vm = host.vm([lab.disk("vda"), lab.disk("vdb")], guest=Guest(slots=256, pause_us=0))
    last = vm.guest.wait(100)
    vm.assert_clean()
    vm.quit()
    cut = vm.guest.check_cut([lab.raw(disk.path, disk.fmt) for disk in vm.disks])
    assert cut.heads[0] >= last, (cut, last)
    vm.start()
    assert vm.guest.start > last
    vm.guest.wait(20)


@test
def test_domains_outlive_libvirtd(lab: Lab) -> None:
    host = Libvirt(lab)
    vm = host.vm([lab.disk("vda", SIZE)])
    pid, daemon = vm.pid, host.pid
    writer = vm.writer(vm["vda"])
    for number in (9, 15):
        writer.random_ops(lab.rng, 5)
        host.kill(number)
        assert vm.alive() and not host.alive()
        writer.random_ops(lab.rng, 5)
        host.start()
        assert vm.state() == "running" and vm.pid == pid and host.pid != daemon
        vm.compare(vm["vda"])
    host.kill()
    vm.kill()
    host.start()
    assert vm.state() == "shut off"


@test
def test_plugs_snapshots_and_sizes(lab: Lab) -> None:
    host = Libvirt(lab)
    vm = host.vm([lab.disk("vda", SIZE)], transient=True)
    for name, bus in (("sdb", "scsi"), ("vdc", "virtio")):
        disk = lab.disk(name, SIZE, bus=bus)
        vm.plug(disk)
        vm.writer(disk).random_ops(lab.rng, 10)
        vm.snapshot(disk)
        vm.writer(disk).random_ops(lab.rng, 10)
        vm.resize(disk, SIZE + (1 << 20))
        vm.writer(disk).write(SIZE, 1 << 20)
        vm.compare(disk)
    vm.assert_clean()
    vm.unplug(vm["sdb"])
    assert sorted(vm.targets()) == ["vda", "vdc"]
    vm.quit()
    assert vm.state() == ""


@test
def test_leftovers_are_seen(lab: Lab) -> None:
    host = Libvirt(lab)
    vm = host.vm([lab.disk("vda", SIZE)])
    folder = os.path.join(lab.dir, "s")
    os.mkdir(folder)
    job = lab.file("job.xml", f"<domainbackup mode='pull'><server transport='unix' "
                   f"socket='{host.public(folder)}/nbd'/></domainbackup>")
    point = lab.file("point.xml", "<domaincheckpoint><name>c1</name></domaincheckpoint>")
    vm.virsh("backup-begin", job, point)
    assert vm.checkpoints() == ["c1"] and vm.checkpoint_disks("c1") == ["vda"]
    left = " ".join(vm.leftovers())
    for what in ("job ", "export ", "node ", "libvirt's backup job", "nbd server"):
        assert what in left, (what, left)
    vm.virsh("domjobabort")
    wait_until(lambda: not vm.job())
    vm.assert_clean()


@test
def test_nothing_outlives_the_test(lab: Lab) -> None:
    """Not even one that is killed; nor is anything of the host's libvirt touched."""
    def host() -> list[str]:
        return [f"{name} {os.lstat(name).st_mtime_ns}" for name in
                ("/etc/libvirt", "/var/lib/libvirt/qemu", "/var/log/libvirt", "/run/libvirt")
                if os.path.exists(name)]

    before = host()
    here = os.path.dirname(os.path.abspath(__file__))
    script = lab.file("other.py", f"""
import sys, time
sys.path.insert(0, {os.path.join(here, '..', 'lib')!r})
from lab import Lab
from virt import Libvirt
lab = Lab()
vm = Libvirt(lab).vm([lab.disk("vda", "1M")])
print(lab.dir, vm.pid, vm.host.pid, flush=True)
time.sleep(60)
""")
    child = run.popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    folder, *pids = child.stdout.readline().split()
    assert folder.startswith("/tmp/tmk-"), folder
    assert all(os.path.exists(f"/proc/{pid}") for pid in pids), pids
    child.kill()
    child.wait()
    child.stdout.close()
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), what="their ends")
    lab.tool("rm", "-rf", folder)
    assert before == host(), (before, host())


main()
