#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves the lab itself: that its checks pass where they should, and that each of them can fail.

Needs QEMU, and nothing of the product.
"""
import os
import random
import shutil
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
from guest import BLOCK, MAGIC, MULT
from lab import (CutError, Guest, Lab, QmpError, Skip, ToolError, action, bitmap_add, main, soak,
                 test, wait_until)
import run


def refuses(kind, function, *args, **more) -> str:
    """`function` must raise `kind`; returns the message."""
    try:
        function(*args, **more)
    except kind as why:
        return str(why)
    raise AssertionError(f"{function.__qualname__} did not refuse")


# Model and image ------------------------------------------------------------------------------

def images(lab: Lab) -> list:
    """Disks on every bus, in every style and several formats."""
    return [
        lab.disk("vda", "16M"),
        lab.disk("vdb", "16M", cluster=4096, iothread=True, options={"detect-zeroes": "unmap"}),
        lab.disk("sda", "16M", bus="scsi"),
        lab.disk("hda", "16M", fmt="raw", bus="ide"),
        lab.disk("nvme0", "16M", bus="nvme", create=["-o", "extended_l2=on"]),
        lab.disk("old", "16M", style="drive"),
        lab.disk("older", "16M", style="drive-if", create=["-o", "compat=0.10"]),
        lab.disk("odd", 16 * 1024 * 1024 + 3 * 512, discard="ignore"),
    ]


@test
def test_model_equals_every_kind_of_disk_in_a_vm(lab):
    disks = images(lab)
    vm = lab.vm(disks)
    for disk in disks:
        vm.writer(disk).random_ops(lab.rng, soak(60, 1000))
    vm.stop()
    for disk in disks:
        vm.compare(disk)
    vm.quit()
    for disk in disks:
        lab.compare(disk.path, disk.model, disk.fmt)
        if disk.fmt != "raw":
            lab.check_image(disk.path)


@test
def test_model_equals_a_powered_off_disk(lab):
    for disk in (lab.disk("a", "4M"), lab.disk("b", "4M", fmt="raw")):
        lab.writer(disk).random_ops(lab.rng, 20)
        lab.writer(disk).write(0, 65536)
        lab.writer(disk).discard(32768, 65536)
        lab.compare(disk.path, disk.model, disk.fmt)


@test
def test_compare_sees_one_wrong_byte_and_a_wrong_size(lab):
    disk = lab.disk("vda", "4M")
    lab.writer(disk).write(65536 + 512, 1536, 7)
    truth = disk.model.snapshot()
    truth.data[65536 + 512 + 1535] ^= 1
    refuses(ToolError, lab.compare, disk.path, truth)
    assert truth.differs(disk.model) == [(65536, 65536)]
    truth = disk.model.snapshot()
    truth.resize(8 << 20)  # only zeroes more
    refuses(AssertionError, lab.compare, disk.path, truth)
    lab.compare(disk.path, disk.model)


@test
def test_random_ops_repeat_by_seed_and_cover_all_kinds(lab):
    said = []
    for _ in range(2):
        disk = lab.disk(f"d{len(said)}", "4M", path=lab.fresh())
        commands = []
        writer = lab.writer(disk)
        real = writer._run  # pylint: disable=protected-access
        writer._run = lambda command, run_it=real, seen=commands: seen.append(command) or \
            run_it(command)
        writer.random_ops(random.Random(5), 60, longest=1 << 17)
        said.append([" ".join(word for word in command.split() if "/" not in word)
                     for command in commands])
    assert said[0] == said[1]
    kinds = " ; ".join(said[0])
    for kind in ("write -P", "write -P 0x0 ", "write -s", "write -z ", "write -z -u", "discard"):
        assert kind in kinds, kind
    assert any(int(command.split()[-1]) % 4096 for command in said[0]), "no sub-cluster write"


@test
def test_writer_reports_a_failed_write_and_leaves_the_model(lab):
    disk = lab.disk("vda", "4M")
    refuses(AssertionError, lab.writer(disk).write, 4 << 20, 512)
    vm = lab.vm([disk])
    refuses(AssertionError, vm.writer(disk).write, 4 << 20, 512)
    full = lab.disk("vdb", "16M", path=os.path.join(lab.tmpfs("2m"), "vdb.qcow2"))
    vm.plug(full)
    why = refuses(AssertionError, vm.writer(full).write, 0, 8 << 20, 3)
    assert "No space left" in why, why
    assert not any(full.model.data)


@test
def test_discard_of_parts_of_clusters_is_modelled(lab):
    disks = [lab.disk("vda", "1M"), lab.disk("vdb", "1M", fmt="raw"),
             lab.disk("vdc", "1M", discard="ignore")]
    vm = lab.vm(disks)
    for disk in disks:
        writer = vm.writer(disk)
        writer.write(0, 1 << 20, 9)
        writer.discard(65536 - 512, 2 * 65536 + 1536)
        vm.compare(disk)
    assert [disk.model.data.count(0) for disk in disks] == [2 * 65536, 2 * 65536 + 1536, 0]


@test
def test_resize(lab):
    disk = lab.disk("vda", "4M")
    vm = lab.vm([disk])
    vm.writer(disk).write((4 << 20) - 512, 512)
    vm.resize(disk, 6 << 20)
    vm.writer(disk).write((6 << 20) - 512, 512)
    vm.compare(disk)


@test
def test_external_snapshots(lab):
    disks = [lab.disk("vda", "4M"), lab.disk("vdb", "4M", fmt="raw"),
             lab.disk("vdc", "4M", style="drive")]
    vm = lab.vm(disks)
    for disk in disks:
        for level in range(3):
            vm.writer(disk).random_ops(lab.rng, 15)
            vm.snapshot(disk, [f"b{level}"])
        vm.writer(disk).random_ops(lab.rng, 15)
        assert list(vm.bitmaps(disk)) == ["b2"]
        vm.compare(disk)
    vm.restart()
    for disk in disks:
        assert list(vm.bitmaps(disk)) == ["b2"]
        vm.writer(disk).random_ops(lab.rng, 15)
        vm.compare(disk)
    assert not vm.leftovers()


@test
def test_node_writer_writes_below_no_device(lab):
    vm = lab.vm([lab.disk("vda", "4M")])
    free = lab.disk("free", "4M")
    vm.qmp.command("blockdev-add", free.blockdev())
    vm.node_writer(free.node, free.model).random_ops(lab.rng, 10)
    vm.qmp.command("blockdev-del", node_name=free.node)
    lab.compare(free.path, free.model)


# The guest ------------------------------------------------------------------------------------

def frozen(lab: Lab, vm) -> list[str]:
    """Raw copies of a machine's disks, taken while it is paused."""
    vm.stop()
    for disk in vm.disks:
        vm.writer(disk).flush()
    raws = [lab.raw(disk.path, disk.fmt, shared=True) for disk in vm.disks]
    vm.cont()
    return raws


@test
def test_guest_on_three_disks_shows_one_instant(lab):
    disks = [lab.disk("vda"), lab.disk("vdb", bus="scsi"), lab.disk("vdc", iothread=True)]
    vm = lab.vm(disks, guest=Guest(slots=256, pause_us=0))
    for _ in range(soak(3, 50)):
        done = vm.guest.wait(300)  # more than all slots
        cut = vm.guest.check_cut(frozen(lab, vm))
        assert cut.heads[0] >= done, (cut, done)
    vm.assert_clean()
    assert vm.guest.errors() == 0


@test
def test_guest_runs_on_every_bus_and_style(lab):
    for more in ({"bus": "ide"}, {"bus": "nvme"}, {"style": "drive"}, {"style": "drive-if"},
                 {"fmt": "raw"}):
        disk = lab.disk(f"d{len(more)}", path=lab.fresh(), **more)
        vm = lab.vm([disk], guest=Guest(pause_us=0))
        vm.guest.wait(20)
        vm.guest.check_cut(frozen(lab, vm))
        vm.quit()


@test
def test_guest_runs_with_kvm(lab):
    if not lab.kvm():
        raise Skip("no usable /dev/kvm")
    vm = lab.vm([lab.disk("vda")], guest=Guest(), accel="kvm")
    vm.guest.wait(20)
    vm.guest.check_cut(frozen(lab, vm))


@test
def test_cut_of_two_instants_is_refused(lab):
    disks = [lab.disk("vda"), lab.disk("vdb")]
    vm = lab.vm(disks, guest=Guest(pause_us=0))
    vm.guest.wait(100)
    one = frozen(lab, vm)
    vm.guest.wait(100)
    two = frozen(lab, vm)
    vm.guest.check_cut(one)
    vm.guest.check_cut(two)
    for mix in ([one[0], two[1]], [two[0], one[1]]):
        why = refuses(CutError, vm.guest.check_cut, mix)
        assert "one instant" in why, why


@test
def test_cut_with_lost_torn_or_stale_blocks_is_refused(lab):
    guest = Guest(slots=64, spacing=4096)

    def block(n: int, start: int = 1, drive: int = 0x81) -> bytes:
        return struct.pack("<3I", MAGIC, drive, start) + struct.pack("<I", n) * (BLOCK // 4 - 3)

    def image(head: int, drive: int = 0x81) -> bytearray:
        data = bytearray(64 * 4096)
        for n in range(1, head + 1):
            at = n * MULT % 64 * 4096
            data[at:at + BLOCK] = block(n, drive=drive)
        return data

    def verdict(*disks: bytearray):
        paths = []
        for data in disks:
            paths.append(lab.fresh(".raw"))
            with open(paths[-1], "wb") as out:
                out.write(data)
        return guest.check_cut(paths)

    # Sound sets, from none written to several times round.
    for a, b, c in ((0, 0, 0), (1, 0, 0), (1, 1, 0), (9, 9, 8), (200, 199, 199), (200, 200, 200)):
        cut = verdict(image(a), image(b, 0x82), image(c, 0x83))
        assert cut.heads == [a, b, c], cut
    # Unsound ones.
    for a, b, c in ((9, 8, 9), (8, 9, 9), (9, 9, 7), (9, 7, 7), (0, 0, 1)):
        refuses(CutError, verdict, image(a), image(b, 0x82), image(c, 0x83))
    lost = image(200)
    at = 190 * MULT % 64 * 4096
    lost[at:at + BLOCK] = bytes(BLOCK)
    assert "slot" in refuses(CutError, verdict, lost)
    lost[at:at + BLOCK] = block(190 - 64)  # stale: the round before
    assert "slot" in refuses(CutError, verdict, lost)
    lost[at:at + BLOCK] = block(190)[:2048] + block(190 - 64)[2048:]
    assert "torn" in refuses(CutError, verdict, lost)
    lost[at:at + BLOCK] = block(191)
    assert "not its" in refuses(CutError, verdict, lost)
    assert "not its" in refuses(CutError, verdict, image(5, 0x82))
    # A second boot that has written to disk a only.
    again = image(9)
    at = 10 * MULT % 64 * 4096
    again[at:at + BLOCK] = block(10, start=10)
    assert verdict(again, image(9, 0x82)).heads == [10, 9]
    assert verdict(again, image(8, 0x82)).start == 10
    at = 11 * MULT % 64 * 4096
    again[at:at + BLOCK] = block(11, start=10)
    refuses(CutError, verdict, again, image(9, 0x82))


@test
def test_guest_continues_after_quit_and_kill(lab):
    disks = [lab.disk("vda"), lab.disk("vdb")]
    vm = lab.vm(disks, guest=Guest(pause_us=0))
    last = vm.guest.wait(50)
    vm.restart()
    assert vm.guest.start > last
    vm.guest.wait(50)
    vm.guest.check_cut(frozen(lab, vm))
    vm.kill()
    assert not vm.alive()
    vm.start()
    last = vm.guest.wait(50)
    cut = vm.guest.check_cut(frozen(lab, vm))
    assert cut.start == vm.guest.start and cut.heads[0] >= last


@test
def test_guest_reports_errors_and_pauses(lab):
    folder = lab.tmpfs("2m")
    disk = lab.disk("vda", path=f"{folder}/vda.qcow2", device={"werror": "report"})
    vm = lab.vm([disk], guest=Guest(pause_us=0))
    wait_until(vm.guest.errors, what="a failed guest write")
    vm.quit()
    vm = lab.vm([lab.disk("vda")], guest=Guest())
    vm.guest.wait(10)
    with vm.guest.watch() as watch:
        vm.stop()
        wait_until(lambda: watch.longest > 0.3)
        vm.cont()
        vm.guest.wait(10)
    refuses(AssertionError, lambda: (vm.stop(), vm.assert_running()))


@test
def test_guest_and_writer_share_a_disk(lab):
    guest = Guest(slots=64, spacing=4096, base=48 << 20)
    disk = lab.disk("vda")
    vm = lab.vm([disk], guest=guest)
    vm.writer(disk).random_ops(lab.rng, 50, stop=48 << 20)
    vm.guest.wait(50)
    raw = frozen(lab, vm)[0]
    guest.check_cut([raw])
    with open(raw, "rb") as data:
        assert data.read(48 << 20) == disk.model.data[:48 << 20]


# Machines -------------------------------------------------------------------------------------

@test
def test_hotplug_and_unplug(lab):
    vm = lab.vm([lab.disk("vda", "4M")], guest=Guest(slots=64))
    for bus in ("virtio", "scsi", "nvme"):
        disk = lab.disk(f"new-{bus}", "4M", bus=bus)
        vm.plug(disk)
        assert vm.node(disk) == disk.node
        vm.writer(disk).random_ops(lab.rng, 10)
        vm.unplug(disk)
        lab.compare(disk.path, disk.model)
        assert f"{disk.node}" not in vm.inventory()["nodes"]
    disk = lab.disk("threaded", "4M", iothread=True)
    vm.plug(disk)
    vm.writer(disk).random_ops(lab.rng, 10)
    vm.assert_running()


@test
def test_leftovers_see_everything(lab):
    disk = lab.disk("vda")
    vm = lab.vm([disk], guest=Guest())
    before = vm.inventory()
    vm.assert_clean()
    ask = vm.qmp.command
    sock = {"type": "unix", "data": {"path": f"{lab.sockets}/nbd"}}

    vm.qmp.transaction(bitmap_add(disk.node, "keep"), bitmap_add(disk.node, "tmk-b"))
    assert vm.leftovers() == [f"bitmap {disk.node}/tmk-b recording persistent"], vm.leftovers()
    assert vm.bitmaps(disk)["keep"]["recording"]
    ask("block-dirty-bitmap-remove", node=disk.node, name="tmk-b")
    vm.assert_clean()
    ask("block-dirty-bitmap-remove", node=disk.node, name="keep")

    target = lab.create(lab.fresh(), "64M")
    ask("blockdev-add", driver="qcow2", node_name="tmk-t",
        file={"driver": "file", "filename": target})
    ask("object-add", qom_type="throttle-group", id="tmk-o")
    ask("nbd-server-start", addr=sock)
    ask("block-export-add", type="nbd", id="tmk-e", node_name=disk.node)
    vm.qmp.transaction(action("blockdev-backup", job_id="tmk-j", device=disk.node, target="tmk-t",
                              sync="none", auto_dismiss=False))
    left = vm.leftovers()
    for what in ("job tmk-j", "node tmk-t", "export tmk-e", "object tmk-o", "nbd server"):
        assert what in left, (what, left)
    assert any("on node" in what for what in left), left  # the job's filter
    refuses(AssertionError, vm.assert_clean)

    ask("job-cancel", id="tmk-j")
    vm.qmp.wait_job("tmk-j")
    ask("job-dismiss", id="tmk-j")
    ask("block-export-del", id="tmk-e")
    vm.qmp.wait_event("BLOCK_EXPORT_DELETED", id="tmk-e")
    ask("nbd-server-stop")
    ask("object-del", id="tmk-o")
    ask("blockdev-del", node_name="tmk-t")
    vm.assert_clean()
    assert vm.inventory() == before, (before, vm.inventory())
    assert isinstance(vm.qmp.try_command("job-dismiss", id="none"), QmpError)


@test
def test_both_monitors_and_identity(lab):
    from lab import Qmp  # pylint: disable=import-outside-toplevel
    vm = lab.vm([lab.disk("vda", "4M")], name="web", paused=True,
                uuid="f81d4fae-7dec-11d0-a765-00a0c91e6bf6")
    product = Qmp(vm.address)
    assert product.command("query-name") == {"name": "web"}
    assert product.command("query-uuid")["UUID"] == vm.uuid
    assert product.version[:2] == lab.qemu_version()
    assert vm.status() == "prelaunch"
    product.close()
    vm.cont()
    assert vm.status() == "running"


@test
def test_a_qemu_that_cannot_start_says_why(lab):
    why = refuses(AssertionError, lab.vm, [lab.disk("vda", "4M")], extra=["-bogus"])
    assert "-bogus" in why, why


@test
def test_snapshot_cuts_the_backup_of_a_running_guest(lab):
    """The whole lab at work, without the product: QEMU's own backup of two disks is one instant,
    though the guest goes on."""
    disks = [lab.disk("vda"), lab.disk("vdb")]
    vm = lab.vm(disks, guest=Guest(pause_us=0))
    vm.guest.wait(100)
    targets = [lab.create(lab.fresh(), "64M") for _ in disks]
    for index, path in enumerate(targets):
        vm.qmp.command("blockdev-add", driver="qcow2", node_name=f"t{index}",
                       file={"driver": "file", "filename": path})
    vm.qmp.transaction(*[action("blockdev-backup", job_id=f"j{index}", device=disk.node,
                                target=f"t{index}", sync="full", auto_dismiss=False, speed=32 << 20)
                         for index, disk in enumerate(disks)])
    done = vm.guest.done()
    vm.guest.wait(100)
    for index in range(2):
        row = vm.qmp.wait_job(f"j{index}")
        assert "error" not in row, row
        vm.qmp.command("job-dismiss", id=f"j{index}")
        vm.qmp.command("blockdev-del", node_name=f"t{index}")
    cut = vm.guest.check_cut([lab.raw(path) for path in targets])
    assert cut.heads[0] <= done + 1, (cut, done)
    vm.assert_clean()


# Children -------------------------------------------------------------------------------------

@test
def test_program_under_test_in_its_environment(lab):
    env = {key: os.environ.pop(key, None) for key in ("TIDEMARK", "TIDEMARK_REPO")}
    try:
        refuses(AssertionError, lab.tidemark, "disks")
        os.environ["TIDEMARK_REPO"] = "/elsewhere"
        os.environ["TIDEMARK"] = script = lab.file(
            "program", '#!/bin/sh\necho "$TIDEMARK_STATE_DIR|$TIDEMARK_REPO|$EXTRA"\n'
            'echo oops >&2\nexit "$1"\n')
        os.chmod(script, 0o755)
        result = lab.tidemark(3, rc=3, env={"EXTRA": "x"})
        assert result.out == f"{lab.state}||x\n" and result.err == "oops\n"
        assert lab.tidemark(1, check=False).rc == 1
        why = refuses(ToolError, lab.tidemark, 1)
        assert "oops" in why and script in why
        refuses(ToolError, lab.tidemark, 0, rc=1)
        refuses(ToolError, lab.tidemark, run.SANITIZER_RC, check=False)
        for how, rc in (({"check": False}, 1), ({"rc": 1}, 1), ({"rc": (0, -9)}, 0)):
            assert lab.tidemark(rc, **how).rc == rc
        refuses(ToolError, lab.tool, "sh", "-c", "kill -9 $$", check=False)
        assert lab.tool("sh", "-c", "kill -9 $$", rc=(0, -9)).rc == -9
        child = lab.tidemark_popen(0)
        assert child.communicate(timeout=10)[1] == "oops\n"
    finally:
        for key, value in env.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value


@test
def test_orphans_are_found_and_ended(lab):
    lab.tool("sh", "-c", "sleep 1000 >/dev/null 2>&1 &")
    why = refuses(AssertionError, lab.check_end)
    assert "sleep 1000" in why
    pid = next(pid for pid, line in run.children().items() if line == "sleep 1000")
    lab.close()
    assert not os.path.exists(f"/proc/{pid}")


@test
def test_the_tap_of_a_failing_file(lab):
    here = os.path.dirname(os.path.abspath(__file__))
    script = lab.file("test-fails.py", f"""
import sys
sys.path.insert(0, {os.path.join(here, '..', 'lib')!r})
""" + """
from lab import Skip, main, test
import time
@test
def test_one_good(lab): pass
@test
def test_two_bad(lab):
    lab.file("x.log", "the log of it")
    assert 1 == 2, "arithmetic"
@test
def test_three_skipped(lab): raise Skip("no moon")
@test(timeout=1)
def test_four_slow(lab): time.sleep(60)
@test
def test_five_leaves_a_process(lab): lab.tool("sh", "-c", "sleep 1000 >/dev/null 2>&1 &")
main()
""")
    env = {**os.environ, "TMK_TEST_LOGS": lab.path("logs"), "TIDEMARK_SOAK": "0",
           "TMK_TEST_SLOW": "1"}
    result = run.run([sys.executable, script], rc=1, env=env)
    verdicts = [line for line in result.out.splitlines() if not line.startswith("#")]
    assert verdicts == ["1..5", "ok 1 - one good", "not ok 2 - two bad",
                        "ok 3 - three skipped # SKIP no moon", "not ok 4 - four slow",
                        "not ok 5 - five leaves a process"], result
    for word in ("arithmetic", "the log of it", "TMK_TEST_SEED", "timeout after 1 s",
                 "processes left running"):
        assert word in result.out, (word, result)
    assert len(os.listdir(lab.path("logs"))) == 3
    shutil.rmtree(lab.path("logs"))
    only = run.run([sys.executable, script, "one"], env=env)
    assert only.out.startswith("1..1\nok 1 - one good\n")


main()
