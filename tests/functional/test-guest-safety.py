#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: a target that is full, slow or gone breaks the backup, never the guest; and a QEMU that
ends during a backup leaves no half image and no checkpoint behind."""
import os
import socket

from backup import Series, backup_xml, checkpoint_xml, disk_xml
from lab import Guest, Lab, main, test, wait_until


def begin(lab: Lab, vm, targets: dict[str, str], *options: str, **how):
    document = backup_xml([disk_xml(name, path) for name, path in targets.items()])
    return lab.tidemark("begin", "--qmp", vm.address, *options, lab.file("full.xml", document),
                        lab.file("c.xml", checkpoint_xml("full")), **how)


def filled(lab: Lab, names: list[str], size: str) -> list:
    disks = [lab.disk(name, size) for name in names]
    for disk in disks:
        for start in range(0, disk.model.size, 1 << 20):
            lab.writer(disk).write(start, 1 << 20, 0x11)
    return disks


@test(timeout=120)
def test_target_running_full_never_leaves_the_guest_paused(lab: Lab) -> None:
    disks = filled(lab, ["vda", "vdb"], "24M")
    vm = lab.vm(disks, guest=Guest(slots=1024, spacing=16384))
    Series(vm).run("c1")
    small = lab.tmpfs("8M")
    before = vm.inventory()
    vm.guest.wait(20)
    with vm.guest.watch() as watch:
        begin(lab, vm, {"vda": f"{small}/vda.qcow2", "vdb": lab.path("vdb-full.qcow2")},
              "--no-space-check")
        failed = lab.tidemark("wait", "--qmp", vm.address, rc=1)
        vm.guest.wait(30)
    assert "vda" in failed.err and ("space" in failed.err or "full" in failed.err), failed.err
    assert "hint: " in failed.err
    assert vm.guest.errors() == 0, "the guest saw write errors"
    assert watch.longest < 5, f"the guest stood still for {watch.longest} s"
    vm.assert_clean()
    assert vm.inventory() == before
    assert os.listdir(small) == [] and not os.path.exists(lab.path("vdb-full.qcow2"))
    status = lab.tidemark_json("status", "--qmp", vm.address)
    assert status["state"] == "failed" and status["error"], status
    names = [one["name"] for one in
             lab.tidemark_json("checkpoint", "list", "--qmp", vm.address)["checkpoints"]]
    assert names == ["c1"], names


@test(timeout=120)
def test_target_filled_by_somebody_else_is_given_up_in_time(lab: Lab) -> None:
    """The job itself would fit; another process takes the room while it runs."""
    disks = filled(lab, ["vda"], "24M")
    vm = lab.vm(disks, guest=Guest(slots=1024, spacing=16384))
    small = lab.tmpfs("40M")
    begin(lab, vm, {"vda": f"{small}/vda.qcow2"}, "--bandwidth", "4M")
    with open(f"{small}/somebody", "wb") as other:
        try:
            while True:
                other.write(bytes(1 << 20))
                other.flush()
        except OSError:
            pass
    failed = lab.tidemark("wait", "--qmp", vm.address, rc=1)
    assert "full" in failed.err or "space" in failed.err, failed.err
    vm.assert_clean()
    assert vm.guest.errors() == 0
    assert os.listdir(small) == ["somebody"]


@test(timeout=120)
def test_nobody_watching_guest_goes_on_with_the_next_call(lab: Lab) -> None:
    """Without a guard the guest may be paused by its full target; the next look lets it go on."""
    disks = filled(lab, ["vda"], "24M")
    vm = lab.vm(disks, guest=Guest(slots=1024, spacing=16384))
    small = lab.tmpfs("2M")
    begin(lab, vm, {"vda": f"{small}/vda.qcow2"}, "--no-space-check", "--no-guard")
    try:
        wait_until(lambda: vm.status() == "io-error", 10)
    except AssertionError:
        pass  # the job may fail before a guest write meets it
    lab.tidemark("wait", "--qmp", vm.address, rc=1)
    vm.assert_clean()
    assert vm.guest.errors() == 0


@test(timeout=120)
def test_disks_that_have_other_names_now_are_still_looked_after(lab: Lab) -> None:
    """Begun with a description that calls the disk sdx, watched without it."""
    disks = filled(lab, ["vda"], "24M")
    vm = lab.vm(disks, guest=Guest(slots=1024, spacing=16384, pause_us=0))
    small = lab.tmpfs("2M")
    described = lab.file("dom.xml", f"""<domain><devices><disk type='file' device='disk'>
        <source file='{disks[0].path}'/><target dev='sdx'/></disk></devices></domain>""")
    begin(lab, vm, {"sdx": f"{small}/sdx.qcow2"}, "--no-space-check", "--no-guard",
          "--domain-xml", described)
    try:
        wait_until(lambda: vm.status() == "io-error", 10)
    except AssertionError:
        pass  # the job may fail before a guest write meets it
    lab.tidemark("wait", "--qmp", vm.address, rc=1)
    vm.assert_clean()
    assert vm.guest.errors() == 0 and os.listdir(small) == []


@test(timeout=120)
def test_on_tcp_a_silent_qemu_is_not_taken_for_gone(lab: Lab) -> None:
    """Who listens there cannot be told, so only the user can say that QEMU has ended."""
    disks = filled(lab, ["vda"], "24M")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp:127.0.0.1:{port}"
    vm = lab.vm(disks, extra=["-qmp", f"{address},server=on,wait=off"])
    target = lab.path("target.qcow2")
    document = lab.file("tcp.xml", backup_xml([disk_xml("vda", target)]))
    lab.tidemark("begin", "--qmp", address, "--bandwidth", "1M", "--no-guard", document)
    vm.kill()
    waited = lab.tidemark("wait", "--qmp", address, rc=1)
    assert "tidemark abort" in waited.err and os.path.exists(target), waited.err
    lab.tidemark("abort", "--qmp", address)
    assert not os.path.exists(target)


@test(timeout=120)
def test_not_enough_space_is_refused_before_anything_is_changed(lab: Lab) -> None:
    disks = filled(lab, ["vda"], "24M")
    vm = lab.vm(disks)
    before, small = vm.inventory(), lab.tmpfs("8M")
    failed = begin(lab, vm, {"vda": f"{small}/vda.qcow2"}, rc=1)
    assert "not enough space" in failed.err and "vda" in failed.err and small in failed.err
    assert vm.inventory() == before and os.listdir(small) == []


@test(timeout=120)
def test_qemu_killed_during_a_job(lab: Lab) -> None:
    disks = filled(lab, ["vda", "vdb"], "24M")
    vm = lab.vm(disks)
    series = Series(vm)
    series.run("c1")
    vm.restart()  # saves c1; a bitmap that was never saved would just be missing
    series.begin("c2", {"vda": "c1"}, "--bandwidth", "1M")
    vm.kill()
    failed = lab.tidemark("wait", "--qmp", vm.address, rc=1)
    assert "QEMU ended" in failed.err, failed.err
    for disk in disks:
        assert not os.path.exists(series.image("c2", disk.name))
    vm.start()
    vm.assert_clean()
    for disk in disks:
        assert "c2" not in vm.bitmaps(disk), vm.bitmaps(disk)
    # c1 missed its end, so it is inconsistent: refused for an incremental, and full works.
    refused = series.begin("c3", {"vda": "c1"}, rc=1)
    assert "vda" in refused.err and "inconsistent" in refused.err, refused.err
    series.run("c3")


@test(timeout=120)
def test_qemu_shut_down_during_a_job(lab: Lab) -> None:
    """A clean end saves the new checkpoint's bitmaps: they go when QEMU is there again."""
    disks = filled(lab, ["vda", "vdb"], "24M")
    vm = lab.vm(disks)
    series = Series(vm)
    series.run("c1")
    series.begin("c2", {"vda": "c1"}, "--bandwidth", "1M")
    vm.quit()
    lab.tidemark("wait", "--qmp", vm.address, rc=1)
    for disk in disks:
        assert not os.path.exists(series.image("c2", disk.name))
    vm.start()
    series.run("c3", {"vda": "c1", "vdb": "c1"})
    for disk in disks:
        assert set(vm.bitmaps(disk)) == {"c1", "c3"}, vm.bitmaps(disk)
    vm.quit()
    series.points[-1].verify()


@test(timeout=120)
def test_a_job_is_found_again_and_aborted_by_another_process(lab: Lab) -> None:
    disks = filled(lab, ["vda", "vdb"], "24M")
    vm = lab.vm(disks)
    series = Series(vm)
    series.run("c1")
    before = vm.inventory()
    begun = series.begin("c2", {"vda": "c1"}, "--bandwidth", "1M")
    dumped = lab.tidemark("dumpxml", "--qmp", vm.address)
    assert dumped.out == begun.out and "incremental='c1'" in dumped.out, dumped.out
    status = lab.tidemark_json("status", "--qmp", vm.address)
    assert status["state"] == "running" and status["checkpoint"] == "c2", status
    assert [disk["mode"] for disk in status["disks"]] == ["incremental", "full"], status
    assert status["disks"][1]["total"] == 24 << 20, status
    refused = series.begin("c3", {}, rc=1)
    assert "runs already" in refused.err and "tidemark abort" in refused.err, refused.err
    waiting = lab.tidemark_popen("wait", "--qmp", vm.address)
    lab.tidemark("abort", "--qmp", vm.address)
    out, err = waiting.communicate(timeout=20)
    assert waiting.returncode == 1 and "aborted" in err, err
    vm.assert_clean()
    assert vm.inventory() == before
    assert lab.tidemark_json("status", "--qmp", vm.address)["state"] == "cancelled"
    lab.tidemark("abort", "--qmp", vm.address, rc=1)
    for disk in disks:
        assert not os.path.exists(series.image("c2", disk.name))
    series.run("c2", {"vda": "c1"})
    vm.quit()
    series.points[-1].verify()


main()
