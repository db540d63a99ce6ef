#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: a pull that cannot be is refused without a trace; a disk that was resized or detached
meanwhile is noticed; every way to attach a disk works and is given back; names, ports and the dirty
map are exactly as promised."""
import os
import re
import socket

from lab import Guest, Lab, main, test, wait_until
from pull import Pull, RawClient, pull_disk, unix_server
from push import files_below


def refused(pull: Pull, disks: list[str], *words: str, options: tuple = (), server=None,
            checkpoint: str | None = "no", rc: int = 1) -> None:
    """Refused with these words and a hint, and nothing has changed."""
    before, on_disk = pull.vm.inventory(), files_below(pull.lab.dir)
    result = pull.run(disks, *options, server=server, checkpoint=checkpoint, rc=rc)
    assert pull.vm.inventory() == before, (before, pull.vm.inventory())
    assert files_below(pull.lab.dir) == on_disk, files_below(pull.lab.dir) ^ on_disk
    for word in (*words, "\nhint: "):
        assert word in result.err, f"no '{word}' in\n{result.err}"


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def one_disk(lab: Lab, **how):
    vm = lab.vm([lab.disk("vda", "8M", **how)])
    pull = Pull(lab, vm)
    return vm, pull, pull_disk("vda", pull.scratch("vda"))


@test(timeout=90)
def test_documents_that_cannot_be(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "8M"), lab.disk("vdb", "8M")])
    pull = Pull(lab, vm)
    vda, vdb = (pull_disk(name, pull.scratch(name)) for name in ("vda", "vdb"))
    named = [pull_disk(name, pull.scratch(name), more="exportname='same'")
             for name in ("vda", "vdb")]
    refused(pull, named, "vda", "vdb", "same")
    refused(pull, [vda, vda], "vda")
    refused(pull, [vda, pull_disk("vdz", pull.scratch("vdz"))], "vdz")
    refused(pull, [vda, pull_disk("vdb", pull.scratch("vda"))], "vda", "vdb", "same")
    refused(pull, [pull_disk("vda", pull.scratch("vda"), since="never")], "vda", "never")
    long = os.path.join(lab.sockets, "x" * 108)
    refused(pull, [vda], "too long", server=unix_server(long))
    result = pull.run([vda], server=unix_server("relative"), rc=1)
    assert "socket" in result.err, result.err
    refused(pull, [vda], "fd", server="<server transport='fd' fdgroup='x'/>")
    pull.begin("c1")
    pull.end()
    refused(pull, [vda, vdb], "c1", checkpoint="c1")
    vm.assert_clean()


@test(timeout=90)
def test_one_of_many_fails(lab: Lab) -> None:
    """What QEMU had begun for the others, also behind it, is taken back; then all of them work."""
    disks = [lab.disk(f"vd{letter}", "8M") for letter in "abcdef"]
    vm = lab.vm(disks, guest=Guest(slots=256))
    pull = Pull(lab, vm)
    for disk in disks:
        lab.create(pull.scratch(disk.name), "8M")
    bad = pull.scratch("vdc")
    lab.file(os.path.relpath(bad, lab.dir), "\0" * (8 << 20))
    parts = [pull_disk(disk.name, pull.scratch(disk.name)) for disk in disks]
    refused(pull, parts, "disk 'vdc'", bad, options=("--reuse-external",))
    vm.assert_clean()
    lab.create(bad, "8M")
    pull.run(parts, "--reuse-external", checkpoint="c1")
    lab.tidemark("end", "--qmp", vm.address)
    vm.assert_clean()
    assert all("c1" in vm.bitmaps(disk) for disk in disks)
    assert vm.guest.errors() == 0


@test
def test_compress_is_not_for_a_pull(lab: Lab) -> None:
    vm, pull, vda = one_disk(lab)
    for option in (["--compress"], ["--compression", "zstd"]):
        refused(pull, [vda], "a pull writes no target", "--compress", options=option, rc=2)
    vm.assert_clean()


@test
def test_wait_says_what_finishes_a_pull(lab: Lab) -> None:
    vm, pull, _ = one_disk(lab)
    waiting = ("wait", "--qmp", vm.address)
    for finish, rc in ((pull.end, 0), (pull.abort, 1)):
        pull.begin(f"c{rc}")
        said, silent = lab.path(f"said{rc}"), lab.path(f"silent{rc}")
        with open(said, "wb") as err, open(silent, "wb") as quiet:
            child = lab.tidemark_popen(*waiting, stderr=err)
            other = lab.tidemark_popen(*waiting, "--quiet", stderr=quiet)
            wait_until(lambda: b"tidemark end" in read(said), 10)
            assert child.poll() is None and other.poll() is None
            finish()
            assert child.wait(10) == rc and other.wait(10) == rc, (child.poll(), other.poll())
        assert read(said).count(b"a pull of 1 disk is running") == 1, read(said)
        assert b"pull" not in read(silent), read(silent)


@test(timeout=90)
def test_one_job_at_a_time(lab: Lab) -> None:
    vm, pull, vda = one_disk(lab)
    pull.begin("c1")
    document = lab.file("push.xml", f"<domainbackup><disks><disk name='vda' type='file'>"
                        f"<target file='{lab.path('push.qcow2')}'/></disk></disks></domainbackup>")
    pull.socket += "2"
    refused(pull, [pull_disk("vda", lab.path("second"))], "runs already")
    pull.socket = pull.socket[:-1]
    failed = lab.tidemark("begin", "--qmp", vm.address, document, rc=1)
    assert "runs already" in failed.err, failed.err
    pull.compare("vda", vm["vda"].model)  # untouched
    pull.end()
    # The same the other way round.
    vm.writer(vm["vda"]).write(0, 8 << 20, 3)
    lab.tidemark("begin", "--qmp", vm.address, "--bandwidth", "1M", document)
    refused(pull, [vda], "runs already")
    failed = lab.tidemark("end", "--qmp", vm.address, rc=1)
    assert "push" in failed.err and "hint: " in failed.err, failed.err
    lab.tidemark("abort", "--qmp", vm.address)
    vm.assert_clean()
    failed = lab.tidemark("end", "--qmp", vm.address, rc=1)
    assert "push" in failed.err or "no backup job" in failed.err, failed.err


@test(timeout=90)
def test_somebody_elses_nbd_server(lab: Lab) -> None:
    vm, pull, vda = one_disk(lab)
    other = os.path.join(lab.sockets, "other")
    vm.qmp.command("nbd-server-start", addr={"type": "unix", "data": {"path": other}})
    vm.qmp.command("block-export-add", {"type": "nbd", "id": "theirs", "node-name": "vda-fmt",
                                        "name": "theirs"})
    servers = [unix_server(pull.socket), "<server name='127.0.0.1'/>",
               "<server name='127.0.0.1' port='10999'/>"]
    for server in servers:
        refused(pull, [vda], "NBD server", server=server)
        failed = lab.tidemark("abort", "--qmp", vm.address, rc=1)
        assert "no backup job" in failed.err, failed.err
        client = RawClient(other)
        client.negotiate("theirs")  # it serves as before
        client.close()
    # Killed right before and after it tried, and aborted.
    for server in servers:
        traced = pull.run([vda], "--no-guard", server=server, rc=1,
                          env={"TIDEMARK_TEST_TRACE": "1"})
        names = re.findall(r"^testpoint \d+ (\S+)", traced.err, re.M)
        at = names.index("qmp:nbd-server-start") + 1
        for number in (at, at + 1):
            pull.run([vda], "--no-guard", server=server, rc=(1, -9),
                     env={"TIDEMARK_TEST_KILL_AT": str(number)})
            lab.tidemark("abort", "--qmp", vm.address, check=False)
            client = RawClient(other)
            client.negotiate("theirs")
            client.close()
            assert os.listdir(pull.folder) == []
    vm.qmp.command("block-export-del", id="theirs", mode="hard")
    vm.qmp.command("nbd-server-stop")
    vm.assert_clean()


@test(timeout=90)
def test_tcp(lab: Lab) -> None:
    vm, pull, vda = one_disk(lab)
    lab.need("nbdcopy")
    vm.writer(vm["vda"]).random_ops(lab.rng, 10)
    begun = pull.run([vda], server="<server transport='tcp' name='127.0.0.1'/>", checkpoint="c1")
    port = int(re.search(r"port='(\d+)'", begun.out).group(1))
    assert f"port='{port}'" in lab.tidemark("dumpxml", "--qmp", vm.address).out
    pull.compare("vda", vm["vda"].model, f"nbd://127.0.0.1:{port}/vda")
    # A client that says nothing does not keep the end.
    silent = socket.create_connection(("127.0.0.1", port))
    pull.end()
    silent.close()
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    refused(pull, [vda], str(port), server=f"<server name='127.0.0.1' port='{port}'/>")
    refused(pull, [vda], "192.0.2.1", server="<server name='192.0.2.1'/>")


@test(timeout=90)
def test_disk_resized_or_detached_meanwhile(lab: Lab) -> None:
    vda, sdb = lab.disk("vda", "8M"), lab.disk("sdb", "8M", bus="scsi")
    vm = lab.vm([vda, sdb])
    pull = Pull(lab, vm)
    pull.begin("c1", None, "--no-guard")
    vm.resize(vda, 16 << 20)
    failed = lab.tidemark("end", "--qmp", vm.address, rc=1)
    assert "vda" in failed.err and "resized" in failed.err, failed.err
    vm.assert_clean()
    pull.assert_no_files()
    assert "c1" not in vm.bitmaps(vda) and "c1" not in vm.bitmaps(sdb)
    pull.begin("c2")
    pull.compare("vda", vda.model)
    vm.qmp.command("device_del", id="sdb")
    vm.qmp.wait_event("DEVICE_DELETED", device="sdb")
    vm.disks.remove(sdb)
    failed = lab.tidemark("end", "--qmp", vm.address, rc=1)
    assert "sdb" in failed.err and "detached" in failed.err, failed.err
    vm.assert_clean()
    pull.assert_no_files()
    vm.qmp.command("blockdev-del", node_name="sdb-fmt")  # nothing holds it
    assert "c2" not in vm.bitmaps(vda)
    pull.begin("c3")
    pull.end()


@test(timeout=150)
def test_every_way_to_attach_a_disk(lab: Lab) -> None:
    lab.need("nbdcopy")
    disks = [lab.disk("vda", "4M", style="drive-if"), lab.disk("vdb", "4M", style="drive"),
             lab.disk("sdc", "4M", bus="scsi", style="drive"), lab.disk("hdd", "4M", bus="ide"),
             lab.disk("vdn", "4M", bus="nvme"),
             lab.disk("vdr", 4 << 20 | 512, fmt="raw")]
    vm = lab.vm(disks)
    rng = lab.rng
    pull = Pull(lab, vm)
    before = [(row["device"], row.get("qdev"), row["inserted"]["node-name"])
              for row in vm.qmp.command("query-block") if "inserted" in row]
    for name in ("c1", "c2"):
        for disk in disks:
            vm.writer(disk).random_ops(rng, 8)
        models = {disk.name: disk.model.snapshot() for disk in disks}
        # c2: each other disk from c1, the rest in full.
        since = {disk.name: "c1" for disk in disks[::2]} if name == "c2" else None
        pull.begin(name, since)
        for disk in disks:
            vm.writer(disk).random_ops(rng, 8)
            pull.compare(disk.name, models[disk.name])
        pull.end()
        after = [(row["device"], row.get("qdev"), row["inserted"]["node-name"])
                 for row in vm.qmp.command("query-block") if "inserted" in row]
        assert after == before, (before, after)
    vm.quit()
    for disk in disks:
        lab.compare(disk.path, disk.model, disk.fmt)


@test(timeout=90)
def test_filters_and_chains(lab: Lab) -> None:
    lab.need("nbdcopy")
    vda = lab.disk("vda", "8M")
    vm = lab.vm([vda])
    pull = Pull(lab, vm)
    vm.writer(vda).random_ops(lab.rng, 20)
    pull.begin("c1")
    pull.end()
    vm.snapshot(vda, ["c1"])
    vm.writer(vda).random_ops(lab.rng, 20)
    model = vda.model.snapshot()
    pull.begin("c2", {"vda": "c1"})
    vm.writer(vda).random_ops(lab.rng, 20)
    pull.compare("vda", model)
    pull.end()
    # A throttle filter that is below the device stays there.
    vm.qmp.command("object-add", {"qom-type": "throttle-group", "id": "group",
                                  "limits": {"iops-total": 10000}})
    vm.qmp.command("blockdev-add", {"driver": "throttle", "node-name": "slow", "file": vda.node,
                                    "throttle-group": "group"})
    path = vm.entry(vda)["qdev"].removesuffix("/virtio-backend")
    vm.qmp.command("qom-set", path=path, property="drive", value="slow")
    vda.node = "slow"  # what the device is on
    model = vda.model.snapshot()
    pull.begin("c3", {"vda": "c2"})
    vm.writer(vda).random_ops(lab.rng, 20)
    pull.compare("vda", model)
    pull.end()
    assert vm.node(vda) == "slow"


@test(timeout=120)
def test_dirty_map_is_exact(lab: Lab) -> None:
    """The map of the export is QEMU's own bitmap: what was written since, in whole granules, with
    names of the user's choice; not what was written after the instant."""
    lab.need("nbdinfo")
    for name, cluster, granule in (("vda", 65536, 65536), ("vdb", 4096, 4096),
                                   ("vdc", 1 << 20, 65536)):
        disk = lab.disk(name, "16M", cluster=cluster)
        vm = lab.vm([disk])
        pull = Pull(lab, vm)
        vm.writer(disk).write(0, 16 << 20, 5)
        pull.begin("c1")
        pull.end()
        granules: set[int] = set()

        def touch(count: int) -> None:
            for _ in range(count):
                offset = lab.rng.randrange(0, (16 << 20) - (1 << 17), 512)
                length = lab.rng.choice((512, 4096, 70000 // 512 * 512))
                vm.writer(disk).write(offset, length, lab.rng.randrange(1, 255))
                granules.update(range(offset // granule, (offset + length - 1) // granule + 1))

        touch(12)
        truth = set(granules)
        bitmap = vm.bitmaps(disk)["c1"]
        assert bitmap["granularity"] == granule and bitmap["count"] == len(truth) * granule
        begun = pull.run([pull_disk(name, pull.scratch(name), since="c1",
                                    more="exportname='a disk' exportbitmap='the map'")],
                         checkpoint="c2")
        assert "exportname='a disk'" in begun.out and "exportbitmap='the map'" in begun.out
        touch(12)
        found = {number for start, stop in pull.dirty("a%20disk", "the map")
                 for number in range(start // granule, (stop - 1) // granule + 1)}
        assert found == truth, (cluster, sorted(found ^ truth))
        pull.end()
        vm.close()


@test(timeout=60)
def test_paused_guest_stays_paused(lab: Lab) -> None:
    vda = lab.disk("vda", "8M")
    vm = lab.vm([vda], guest=Guest(slots=64), paused=True)
    pull = Pull(lab, vm)
    for verb in (pull.end, pull.abort):
        pull.begin("c1" if verb == pull.end else "c2")
        assert vm.status() != "running"
        verb()
        assert vm.status() != "running", vm.status()
    assert vm.guest.errors() == 0


main()
