#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves what only the API has: disks of a running pull as block sources, a pull on a socket of its
own, the paths of a chain's images, and a checkpoint taken off some disks and left to the others."""
import glob
import json
import os
import re
import stat

from backup import checkpoint_xml
from lab import Lab, Vm, bitmap_add, main, test
from pull import Pull, pull_disk, pull_document, unix_server
from run import run


def tool(vm: Vm, *args: object, **how):
    return run([os.environ["DOMAIN_TOOL"], vm.address, *(str(arg) for arg in args)],
               env=vm.lab.env(), **how)


def begin(vm: Vm, disks: list[str], *checkpoint: str, **how):
    return tool(vm, "begin", vm.lab.file("own.xml", pull_document("", disks)), *checkpoint, **how)


def socket_of(vm: Vm) -> str:
    shown = vm.lab.tidemark("dumpxml", "--qmp", vm.address).out
    return re.search(r"socket='([^']*)'", shown).group(1)


def checkpoints(vm: Vm) -> dict[str, dict]:
    rows = vm.lab.tidemark_json("checkpoint", "list", "--qmp", vm.address)["checkpoints"]
    return {row["name"]: {"disks": [disk["name"] for disk in row["disks"]], **{
        key: row[key] for key in ("known", "parent")}} for row in rows}


def series(lab: Lab, vm: Vm) -> None:
    """A full pull and an incremental, each read through the API while the guest writes on."""
    folder = lab.path("scratch")
    os.mkdir(folder)
    disks = [disk.name for disk in vm.disks]
    raws = {name: lab.path(f"{name}.raw") for name in disks}
    before = vm.inventory()["nodes"]
    for number in range(3):
        for disk in vm.disks:
            vm.writer(disk).random_ops(lab.rng, 8)
        truth = {disk.name: disk.model.snapshot() for disk in vm.disks}
        begin(vm, [pull_disk(name, f"{folder}/{name}", since=f"c{number - 1}" if number else None)
                   for name in disks], f"c{number}")
        for disk in vm.disks:
            vm.writer(disk).random_ops(lab.rng, 8)
        place = os.path.dirname(socket_of(vm))
        assert stat.S_IMODE(os.stat(place).st_mode) == 0o700 and os.path.isdir(place), place
        for name in disks:
            said = tool(vm, "read", name, raws[name]).out.strip()
            assert (said == "full") == (number == 0), said
            lab.compare(raws[name], truth[name], "raw")
        gone = tool(vm, "read", "nosuch", lab.path("x"), rc=1).err
        assert gone.startswith("not-found:") and "its disks are: vda, vdb" in gone, gone
        lab.tidemark("end", "--qmp", vm.address)
        assert not os.path.exists(place), place
        assert os.listdir(folder) == []
        vm.assert_clean()
        assert vm.inventory()["nodes"] == before
    gone = tool(vm, "read", "vda", lab.path("x"), rc=1).err
    assert gone.startswith("not-found:") and "no pull job" in gone, gone


@test(timeout=120)
def test_disks_of_a_pull_without_a_server(lab: Lab) -> None:
    series(lab, lab.vm([lab.disk("vda", "8M"), lab.disk("vdb", "4M")]))


@test(timeout=120)
def test_the_same_staged(lab: Lab) -> None:
    series(lab, lab.vm([lab.disk("vda", "8M", iothread=True), lab.disk("vdb", "4M")]))


@test(timeout=60)
def test_own_server_odd_names_and_abort(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "4M")])
    vm.writer(vm["vda"]).random_ops(lab.rng, 5)
    truth = vm["vda"].model.snapshot()
    os.mkdir(lab.path("scratch"))
    odd = f"{lab.sockets}/a b%?#&=ü"
    tool(vm, "begin", lab.file("own.xml", pull_document(unix_server(odd), [
        pull_disk("vda", lab.path("scratch/vda"), more="exportname='r/o ?%#ü'")])))
    tool(vm, "read", "vda", lab.path("vda.raw"))
    lab.compare(lab.path("vda.raw"), truth, "raw")
    busy = tool(vm, "delete-from", "c", "vda", rc=1).err
    assert busy.startswith("busy:"), busy
    lab.tidemark("abort", "--qmp", vm.address)
    begin(vm, [pull_disk("vda", lab.path("scratch/vda"))])
    place = os.path.dirname(socket_of(vm))
    vm.kill()
    lab.tidemark("abort", "--qmp", vm.address)
    assert not os.path.exists(place) and os.listdir(lab.path("scratch")) == []


@test(timeout=60)
def test_over_tcp(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "4M")])
    os.mkdir(lab.path("scratch"))
    for number, host in enumerate(("127.0.0.1", "::1", "localhost")):
        vm.writer(vm["vda"]).random_ops(lab.rng, 5)
        truth = vm["vda"].model.snapshot()
        tool(vm, "begin", lab.file("tcp.xml", pull_document(f"<server name='{host}'/>", [
            pull_disk("vda", lab.path("scratch/vda"))])))
        tool(vm, "read", "vda", lab.path(f"{number}.raw"))
        lab.compare(lab.path(f"{number}.raw"), truth, "raw")
        lab.tidemark("end", "--qmp", vm.address)


@test(timeout=120)
def test_killed_at_each_step_leaves_no_folder(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "4M")])
    os.mkdir(lab.path("scratch"))
    document = lab.file("own.xml", pull_document("", [pull_disk("vda", lab.path("scratch/vda"))]))
    runtime = lab.path("run")  # where a user who is not root has it
    os.mkdir(runtime, 0o700)
    env = {**lab.env(), "XDG_RUNTIME_DIR": runtime}

    # Others may have such folders, too: only the one that the job's record names is ours.
    def folder() -> str | None:
        for record in glob.glob(f"{lab.state}/**/job.json", recursive=True):
            with open(record, encoding="utf-8") as file:
                return os.path.dirname(json.load(file)["socket"])
        return None

    command = [os.environ["DOMAIN_TOOL"], vm.address, "begin", document]
    lab.tidemark("disks", "--qmp", vm.address)  # makes the state folder
    trace = re.findall(r"^testpoint \d+ (\S+)", run(
        command, env={**env, "TIDEMARK_TEST_TRACE": "1"}).err, re.M)
    made = folder()
    assert "mkdir" in trace and made and os.path.isdir(made), (trace, made)
    lab.tidemark("end", "--qmp", vm.address)
    assert not os.path.exists(made), made
    for step in range(1, len(trace) + 1):
        run(command, env={**env, "TIDEMARK_TEST_KILL_AT": str(step)}, rc=-9)
        made = folder()
        assert made or step <= trace.index("mkdir"), "made before it was written down"
        lab.tidemark("abort", "--qmp", vm.address, check=False, env=env)
        assert not made or not os.path.exists(made), (step, made)
        assert os.listdir(runtime) == [], step
        assert os.listdir(lab.path("scratch")) == [], step


@test
def test_paths_of_images(lab: Lab) -> None:
    vda, vdb = lab.disk("vda", "4M"), lab.disk("vdb", "4M", fmt="raw")
    vm = lab.vm([vda, vdb], extra=["-device", "ide-cd,id=hdc,bus=ide.0", "-blockdev",
                                   "null-co,node-name=n,size=1048576,read-zeroes=on", "-device",
                                   "virtio-blk-pci,id=vdn,drive=n"])
    bottom = vda.path
    vm.snapshot(vda)
    rows = dict(line.split(" ", 1) if " " in line else (line, "")
                for line in tool(vm, "images").out.splitlines())
    assert rows == {"vda": f"{vda.path} {bottom}", "vdb": vdb.path, "hdc": "", "vdn": "-"}, rows
    assert vda.path != bottom


@test
def test_checkpoint_off_some_disks(lab: Lab) -> None:
    vm = lab.vm([lab.disk(name, "4M") for name in ("vda", "vdb", "vdc")])
    for name in ("c1", "c2", "c3"):
        lab.tidemark("checkpoint", "create", "--qmp", vm.address, name)
    tool(vm, "delete-from", "c2", "vda", "vdc", "gone")
    assert {disk.name: set(vm.bitmaps(disk)) for disk in vm.disks} == {
        "vda": {"c1", "c3"}, "vdb": {"c1", "c2", "c3"}, "vdc": {"c1", "c3"}}
    rows = checkpoints(vm)
    assert rows["c2"] == {"disks": ["vdb"], "known": True, "parent": "c1"}, rows
    tool(vm, "delete-from", "c2", "vda")  # it has none: nothing to do
    assert checkpoints(vm) == rows
    # A bitmap that its description does not cover is removed all the same.
    vm.qmp.transaction(bitmap_add("vda-fmt", "c2"))
    tool(vm, "delete-from", "c2", "vda")
    assert set(vm.bitmaps("vda-fmt")) == {"c1", "c3"} and checkpoints(vm) == rows
    tool(vm, "delete-from", "c2", "vdb")
    assert set(vm.bitmaps("vdb-fmt")) == {"c1", "c3"}
    rows = checkpoints(vm)
    assert set(rows) == {"c1", "c3"} and rows["c3"]["parent"] == "c1", rows
    assert lab.tidemark("checkpoint", "dumpxml", "--qmp", vm.address, "c2", rc=1)
    tool(vm, "delete-from", "c2", "vda", "vdb")  # gone already
    assert checkpoints(vm) == rows


@test
def test_checkpoint_without_description_inconsistent_and_below(lab: Lab) -> None:
    vda, vdb = lab.disk("vda", "4M"), lab.disk("vdb", "4M")
    vm = lab.vm([vda, vdb])
    vm.qmp.transaction(*(bitmap_add(f"{name}-fmt", "lost") for name in ("vda", "vdb")))
    assert not checkpoints(vm)["lost"]["known"]
    tool(vm, "delete-from", "lost", "vda")
    assert checkpoints(vm)["lost"]["disks"] == ["vdb"]
    vm.snapshot(vdb, ["lost"])  # now it is on two images
    tool(vm, "delete-from", "lost", "vdb")
    assert checkpoints(vm) == {}
    info = lab.tool("qemu-img", "info", "-U", "--output=json", "--backing-chain", vdb.path).out
    assert "lost" not in json.dumps(json.loads(info))
    lab.tidemark("checkpoint", "create", "--qmp", vm.address, "c1")
    vm.restart()
    vm.kill()
    vm.start()
    assert all(vm.bitmaps(disk)["c1"]["inconsistent"] for disk in vm.disks)
    tool(vm, "delete-from", "c1", "vda", "vdb")
    assert checkpoints(vm) == {} and not any(vm.bitmaps(disk) for disk in vm.disks)


main()
