#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: checkpoints by themselves are made on all disks at one instant, listed, described, deleted
and taken over again, and what is left of them when descriptions, bitmaps or QEMU are gone."""
import json
import os
import re
import shutil
import time

from backup import Series, backup_xml, checkpoint_xml, disk_xml
from lab import Disk, Lab, Vm, bitmap_add, main, test, wait_until
from push import push, refused


def checkpoint(vm: Vm, verb: str, *args: object, **how):
    return vm.lab.tidemark("checkpoint", verb, "--qmp", vm.address, *args, **how)


def listed(vm: Vm) -> dict[str, dict]:
    """name → row, in order."""
    return {row["name"]: row for row in
            json.loads(checkpoint(vm, "list", "--json").out)["checkpoints"]}


def parents(vm: Vm) -> dict[str, str | None]:
    return {name: row["parent"] for name, row in listed(vm).items()}


def machine(lab: Lab, *names: str) -> Vm:
    vm = lab.vm([lab.disk(name, "16M") for name in names or ("vda", "vdb")])
    for disk in vm.disks:
        vm.writer(disk).random_ops(lab.rng, 8)
    return vm


def lose_state(lab: Lab) -> None:
    """Removes the state folder; a guard that still looks may put something into it meanwhile."""
    def gone() -> bool:
        shutil.rmtree(lab.state, ignore_errors=True)
        return not os.path.exists(lab.state)

    wait_until(gone, 5)


@test
def test_create_by_name_document_and_default(lab: Lab) -> None:
    vm = machine(lab)
    assert checkpoint(vm, "create", "first").out == "first\n"
    document = lab.file("c.xml", "<domaincheckpoint><name>second</name><description>of vdb &lt;1&gt;"
                        "</description><disks><disk name='vdb' bitmap='b2'/></disks>"
                        "</domaincheckpoint>")
    assert checkpoint(vm, "create", document).out == "second\n"
    before = int(time.time())
    third = checkpoint(vm, "create").out.strip()
    assert before <= int(third) <= time.time(), third
    assert set(vm.bitmaps("vda-fmt")) == {"first", third}
    assert set(vm.bitmaps("vdb-fmt")) == {"first", "b2", third}
    assert all(row["persistent"] and row["recording"] for row in vm.bitmaps("vdb-fmt").values())
    rows = listed(vm)
    assert parents(vm) == {"first": None, "second": "first", third: "second"}, rows
    assert [disk["name"] for disk in rows["second"]["disks"]] == ["vdb"], rows
    assert rows["second"]["description"] == "of vdb <1>" and rows[third]["current"], rows
    assert all(row["known"] and re.fullmatch(r"20\d\d-\S+Z", row["created"])
               for row in rows.values())
    # A checkpoint whose bitmap has another name is as good a start.
    vm.writer(vm["vdb"]).random_ops(lab.rng, 5)
    truth = vm["vdb"].model.snapshot()
    push(vm, backup_xml([disk_xml("vdb", lab.path("i.qcow2"), since="second"),
                         disk_xml("vda", lab.path("f.qcow2"))]))
    assert lab.info(lab.path("i.qcow2"))["virtual-size"] == truth.size
    checkpoint(vm, "delete", "second")
    assert set(vm.bitmaps("vdb-fmt")) == {"first", third}


@test
def test_list_shows_tree_and_size(lab: Lab) -> None:
    vm = machine(lab)
    checkpoint(vm, "create", "a")
    vm.writer(vm["vda"]).write(0, 1 << 20)
    checkpoint(vm, "create", "b")
    vm.writer(vm["vdb"]).write(0, 1 << 16)
    rows = listed(vm)
    assert rows["a"]["size"] == (1 << 20) + (1 << 16) and rows["b"]["size"] == 1 << 16, rows
    plain = checkpoint(vm, "list").out.splitlines()
    assert [line.split()[0] for line in plain] == ["a", "b"] and "(current)" in plain[1], plain
    assert "MiB" not in plain[0]
    sized = checkpoint(vm, "list", "--size").out.splitlines()
    assert "1.1 MiB" in sized[0] and "64.0 KiB" in sized[1], sized
    tree = checkpoint(vm, "list", "--tree").out.splitlines()
    assert tree[0].startswith("a ") and tree[1].startswith("  b "), tree
    xml = checkpoint(vm, "dumpxml", "a", "--size").out
    assert "<disk name='vda' checkpoint='bitmap' bitmap='a' size='1114112'/>" not in xml, xml
    assert f"name='vda' checkpoint='bitmap' bitmap='a' size='{1 << 20}'" in xml, xml
    assert "size=" not in checkpoint(vm, "dumpxml", "a").out
    assert "<parent>" in checkpoint(vm, "dumpxml", "b").out
    lab.tidemark("xml", "validate", lab.file("d.xml", xml))


@test
def test_delete_links_children_to_the_parent(lab: Lab) -> None:
    vm = machine(lab)
    for name in "abcd":
        checkpoint(vm, "create", name)
    checkpoint(vm, "delete", "b")
    assert parents(vm) == {"a": None, "c": "a", "d": "c"}
    checkpoint(vm, "delete", "d")
    assert parents(vm) == {"a": None, "c": "a"} and listed(vm)["c"]["current"]
    checkpoint(vm, "create", "e")
    checkpoint(vm, "delete", "a")
    assert parents(vm) == {"c": None, "e": "c"}
    assert set(vm.bitmaps("vda-fmt")) == {"c", "e"} == set(vm.bitmaps("vdb-fmt"))
    checkpoint(vm, "create", "f")
    checkpoint(vm, "delete", "e", "--children")
    assert parents(vm) == {"c": None} and set(vm.bitmaps("vda-fmt")) == {"c"}
    checkpoint(vm, "delete", "c")
    assert not listed(vm) and not vm.bitmaps("vda-fmt")
    result = checkpoint(vm, "delete", "c", rc=1)
    assert "'c'" in result.err and "hint: " in result.err


@test
def test_others_go_on_when_one_is_deleted(lab: Lab) -> None:
    """Deleting the middle of three: an incremental since each of the others still is right."""
    vm = machine(lab)
    series = Series(vm)
    for name in ("a", "b", "c"):
        series.run(name)
        for disk in vm.disks:
            vm.writer(disk).random_ops(lab.rng, 6)
    checkpoint(vm, "delete", "b")
    series.run("d", {"vda": "a", "vdb": "c"})
    vm.quit()
    for point in series.points:
        point.verify()


@test
def test_redefine_after_the_state_was_lost(lab: Lab) -> None:
    vm = machine(lab)
    names = ["a", "b", "c"]
    for name in names:
        document = lab.file("c.xml", f"<domaincheckpoint><name>{name}</name><description>{name}!"
                            "</description><disks><disk name='vda' bitmap='of-{0}'/></disks>"
                            "</domaincheckpoint>".replace("{0}", name))
        checkpoint(vm, "create", document)
        vm.writer(vm["vda"]).random_ops(lab.rng, 4)
    before = {name: checkpoint(vm, "dumpxml", name).out for name in names}
    lose_state(lab)
    files = {name: lab.file(f"{name}.xml", text) for name, text in before.items()}
    result = checkpoint(vm, "create", "--redefine", files["b"], rc=1)
    assert "parent" in result.err and "'a'" in result.err and "hint: " in result.err, result
    for name in names:
        checkpoint(vm, "create", "--redefine", files[name])
    assert {name: checkpoint(vm, "dumpxml", name).out for name in names} == before
    assert list(listed(vm)) == names and all(row["known"] for row in listed(vm).values())
    push(vm, backup_xml([disk_xml("vda", lab.path("i.qcow2"), since="b")]))
    # Without the bitmaps a description is worth nothing.
    vm.qmp.command("block-dirty-bitmap-remove", node="vda-fmt", name="of-c")
    lose_state(lab)
    checkpoint(vm, "create", "--redefine", files["a"])
    checkpoint(vm, "create", "--redefine", files["b"])
    result = checkpoint(vm, "create", "--redefine", files["c"], rc=1)
    assert "'vda'" in result.err and "'of-c'" in result.err, result
    assert list(listed(vm)) == ["a", "b"]
    # A document for a new one is no description of an old one.
    plain = lab.file("plain.xml", checkpoint_xml("a"))
    checkpoint(vm, "create", "--redefine", plain, rc=1)
    checkpoint(vm, "create", "--redefine", rc=2)


@test
def test_rebuilt_from_the_bitmaps(lab: Lab) -> None:
    """Without descriptions the oldest is the one that has seen the most."""
    vm = machine(lab)
    series = Series(vm)
    for number, name in enumerate(["zz", "mm", "aa"]):
        series.run(name)
        for disk in vm.disks:
            vm.writer(disk).write(number << 20, 1 << 20, 7)
    lose_state(lab)
    assert parents(vm) == {"zz": None, "mm": "zz", "aa": "mm"}, parents(vm)
    rows = listed(vm)
    assert not any(row["known"] for row in rows.values()) and rows["aa"]["current"]
    assert "rebuilt" in checkpoint(vm, "list").out
    assert "checkpoint='bitmap' bitmap='mm'" in checkpoint(vm, "dumpxml", "mm").out
    document = backup_xml([disk_xml("vda", lab.path("i.qcow2"), since="mm"),
                           disk_xml("vdb", backup_disk := lab.path("j.qcow2"), since="mm")])
    result = push(vm, document, checkpoint=checkpoint_xml("new"))
    assert "rebase" in result.err, result  # which image was which is lost, too
    for image, disk in ((lab.path("i.qcow2"), "vda"), (backup_disk, "vdb")):
        lab.tool("qemu-img", "rebase", "-u", "-b", series.image("mm", disk), "-F", "qcow2", image)
        lab.compare(image, vm[disk].model)
    assert parents(vm)["new"] == "aa" and listed(vm)["new"]["known"]
    checkpoint(vm, "delete", "mm")
    assert set(vm.bitmaps("vda-fmt")) == {"zz", "aa", "new"} == set(listed(vm))


@test
def test_made_by_hand(lab: Lab) -> None:
    """A bitmap that libvirt or anybody else has added is a checkpoint."""
    vm = machine(lab)
    vm.qmp.transaction(*[bitmap_add(disk.node, "1699999999") for disk in vm.disks])
    truth = {disk.name: disk.model.save(lab.path(f"{disk.name}.truth")) for disk in vm.disks}
    row = listed(vm)["1699999999"]
    assert row["created"] == "2023-11-14T22:13:19Z" and len(row["disks"]) == 2, row
    for disk in vm.disks:
        vm.writer(disk).random_ops(lab.rng, 8)
    images = {disk.name: lab.path(f"{disk.name}.i.qcow2") for disk in vm.disks}
    push(vm, backup_xml([disk_xml(name, image) for name, image in images.items()],
                        since="1699999999"))
    for name, image in images.items():
        lab.tool("qemu-img", "rebase", "-u", "-b", truth[name], "-F", "raw", image)
        lab.compare(image, vm[name].model)


@test
def test_they_survive_a_restart_of_qemu(lab: Lab) -> None:
    vm = machine(lab)
    series = Series(vm)
    series.run("a")
    vm.writer(vm["vda"]).random_ops(lab.rng, 6)
    checkpoint(vm, "create", "b")
    before = {name: {**row, "size": 0} for name, row in listed(vm).items()}
    vm.restart()
    assert {name: {**row, "size": 0} for name, row in listed(vm).items()} == before
    for disk in vm.disks:
        vm.writer(disk).random_ops(lab.rng, 6)
    series.run("c", {"vda": "a", "vdb": "a"})
    vm.quit()
    for point in series.points:
        point.verify()


@test
def test_formats_that_cannot_store_them(lab: Lab) -> None:
    """raw and qcow2 of version 2: a checkpoint lasts until QEMU ends, and that is said."""
    vda, vdb = lab.disk("vda", "8M", fmt="raw"), lab.disk("vdb", "8M", create=["-o", "compat=0.10"])
    vdb.model.discard_unit = None  # version 2 has no zero clusters to discard to
    vm = lab.vm([vda, vdb, lab.disk("vdc", "8M")])
    vm.writer(vda).random_ops(lab.rng, 8)
    images = {name: lab.path(f"{name}.1") for name in ("vda", "vdb", "vdc")}
    result = push(vm, backup_xml([disk_xml(name, image) for name, image in images.items()]),
                  checkpoint=checkpoint_xml("c1"))
    assert "'vda'" in result.err and "'vdb'" in result.err and "'c1'" in result.err, result
    assert "'vdc'" not in result.err
    rows = {row["name"]: row for row in lab.tidemark_json("disks", "--qmp", vm.address)["disks"]}
    assert [rows[name]["checkpoints"][0]["persistent"] for name in rows] == [False, False, True]
    assert "lasts until QEMU ends" in lab.tidemark("disks", "--qmp", vm.address).out
    vm.writer(vda).random_ops(lab.rng, 8)
    push(vm, backup_xml([disk_xml("vda", lab.path("2"), since="c1")]))
    lab.compare(lab.path("2"), vda.model)
    vm.restart()
    refused(vm, backup_xml([disk_xml("vda", lab.path("3"), since="c1")]), "'vda'", "'c1'",
            "backupmode='full'")
    problems = {disk["name"]: disk["why_not"] for disk in listed(vm)["c1"]["disks"]}
    assert problems["vda"] and problems["vdb"] and not problems["vdc"], problems
    checkpoint(vm, "delete", "c1")
    assert not listed(vm) and not vm.bitmaps("vdc-fmt")


@test
def test_warning_of_create(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "8M", fmt="raw")])
    result = checkpoint(vm, "create", "c1")
    assert "vda" in result.err and "warning" in result.err, result


@test
def test_names(lab: Lab) -> None:
    vm = machine(lab)
    checkpoint(vm, "create", "there")
    before = vm.inventory()
    for name, word in {"there": "exists", ".hidden": "valid name", "a b": "valid name",
                       "tmk-x": "tmk-", "n" * 1024: ""}.items():
        result = checkpoint(vm, "create", name, rc=1)
        assert word in result.err and "hint: " in result.err, result
    vm.qmp.command("block-dirty-bitmap-add", node="vda-fmt", name="foreign")
    result = checkpoint(vm, "create", "foreign", rc=1)
    assert "'foreign'" in result.err and "hint: " in result.err, result
    vm.qmp.command("block-dirty-bitmap-remove", node="vda-fmt", name="foreign")
    # Names longer than a file's name may be.
    for length in (200, 201, 250, 255, 1023):
        checkpoint(vm, "create", "n" * length)
        assert listed(vm)["n" * length]["known"]
        checkpoint(vm, "delete", "n" * length)
        assert vm.inventory() == before, length
    document = lab.file("c.xml", "<domaincheckpoint><name>x</name><disks><disk name='vda' "
                        "bitmap='there'/></disks></domaincheckpoint>")
    result = checkpoint(vm, "create", document, rc=1)
    assert "'vda'" in result.err and "'there'" in result.err, result
    nodisk = lab.file("n.xml", checkpoint_xml("x", ["vdz"]))
    assert "vda" in checkpoint(vm, "create", nodisk, rc=1).err
    assert vm.inventory() == before and list(listed(vm)) == ["there"]


@test
def test_checkpoint_of_other_disks_than_the_backup(lab: Lab) -> None:
    """Fewer, more and entirely different ones, all at the backup's instant."""
    vm = machine(lab, "vda", "vdb", "vdc")

    def run(name: str, covered: list[str], disks: dict[str, str | None]) -> None:
        for disk in vm.disks:
            vm.writer(disk).random_ops(lab.rng, 5)
        push(vm, backup_xml([disk_xml(disk, lab.path(f"{disk}.{name}"), since=since)
                             for disk, since in disks.items()]),
             checkpoint=checkpoint_xml(name, covered))
        for disk in vm.disks:
            assert (name in vm.bitmaps(disk)) == (disk.name in covered), (name, disk.name)
        for disk in disks:
            lab.compare(lab.path(f"{disk}.{name}"), vm[disk].model)

    run("fewer", ["vda"], {"vda": None, "vdb": None})
    run("more", ["vda", "vdb", "vdc"], {"vda": "fewer"})
    run("others", ["vdc"], {"vda": "more", "vdb": None})
    # vdb has a bitmap of 'more', but no image of that instant.
    document = backup_xml([disk_xml("vdb", lab.path("x"), since="more")])
    assert "rebase" in push(vm, document).err
    refused(vm, backup_xml([disk_xml("vdb", lab.path("y"), since="fewer")]), "'vdb'", "'fewer'")
    refused(vm, backup_xml([disk_xml("vda", lab.path("y"))]), "'more'", "exists",
            checkpoint=checkpoint_xml("more"))
    refused(vm, backup_xml([disk_xml("vda", lab.path("y"))]), "covers no disk",
            checkpoint="<domaincheckpoint><name>none</name><disks><disk name='vda' "
                       "checkpoint='no'/></disks></domaincheckpoint>")


@test
def test_busy_while_a_job_runs(lab: Lab) -> None:
    vm = machine(lab)
    vm.writer(vm["vda"]).write(0, 16 << 20, 3)
    series = Series(vm)
    series.begin("c1", {}, "--bandwidth", "1M")
    assert list(listed(vm)) == ["c1"]
    for args in (("create", "x"), ("delete", "c1")):
        result = checkpoint(vm, *args, rc=1)
        assert "job" in result.err and "hint: " in result.err, result
    lab.tidemark("abort", "--qmp", vm.address)
    vm.assert_clean()
    assert not listed(vm) and not vm.bitmaps("vda-fmt")


def chained(vm: Vm, lab: Lab, style: str) -> list[str]:
    """Makes a chain of three images with bitmap c1 on each; returns their nodes, or paths."""
    base = lab.path("base.qcow2")
    lab.create(base, "8M")
    middle = lab.create(lab.path("middle.qcow2"), None, "qcow2", "-b", base, "-F", "qcow2")
    top = lab.create(lab.path("top.qcow2"), None, "qcow2", "-b", middle, "-F", "qcow2")
    for path in (base, middle, top):
        lab.tool("qemu-img", "bitmap", "--add", path, "c1")
    files = {"base": base, "middle": middle, "top": top}
    disk = Disk("vda", top, lab.disk("x", "8M").model, node="top")
    if style == "explicit":
        below = None
        for name, path in files.items():
            options = {"driver": "qcow2", "node-name": name, "read-only": name != "top",
                       "discard": "unmap", "backing": below,
                       "file": {"driver": "file", "filename": path, "node-name": f"{name}-file",
                                "discard": "unmap"}}
            if name != "top":
                options["file"]["read-only"] = True
            vm.qmp.command("blockdev-add", options)
            below = name
    else:
        disk.options = {} if style == "implicit" else {"backing": {
            "driver": "qcow2", "node-name": "middle", "read-only": True, "file": {
                "driver": "file", "filename": middle, "auto-read-only": True}, "backing": {
                    "driver": "qcow2", "node-name": "base", "file": {"driver": "file",
                                                                      "filename": base}}}}
        vm.qmp.command("blockdev-add", disk.blockdev())
    vm.qmp.command("device_add", driver="scsi-hd", id="vda", bus="scsi.0", drive="top")
    vm.disks.append(disk)
    return list(files.values())


@test
def test_delete_from_read_only_backing_images(lab: Lab) -> None:
    """Images below the top are open read-only, whichever way they were given, file nodes too:
    their bitmaps go all the same, and they are read-only again, with the options they had."""
    for style in ("explicit", "nested", "implicit"):
        vm = lab.vm([])
        paths = chained(vm, lab, style)

        def state() -> list:
            rows = vm.qmp.command("query-named-block-nodes", flat=True)
            return [(row["node-name"], row["file"], row["ro"], row["cache"],
                     row["detect_zeroes"]) for row in rows if row["file"] in paths]

        before = state()
        assert sum(row[2] for row in before) == 4, before
        assert listed(vm)["c1"]["disks"][0]["usable"]
        checkpoint(vm, "delete", "c1")
        assert not listed(vm) and state() == before, (style, before, state())
        disk = vm["vda"]
        vm.writer(disk).random_ops(lab.rng, 10)
        assert lab.tidemark_json("disks", "--qmp", vm.address)["disks"][0]["chain"] == 3
        vm.compare(disk)
        vm.quit()
        for path in paths:
            assert "bitmaps" not in lab.info(path)["format-specific"]["data"], (style, path)
            lab.check_image(path)


main()
