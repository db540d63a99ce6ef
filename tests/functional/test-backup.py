# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: `tidemark backup` chooses for each disk by itself, reads and stores no more than it has to,
does what its options say, and what it says of a point is true; restores are thin and right."""
from __future__ import annotations

import json
import os
import random

from backup import backup_xml, disk_xml
from lab import Guest, Lab, main, test
from repository import Repository

M = 1 << 20
CHUNK = 1 << 16


def dirty_bytes(vm, name: str, checkpoint: str) -> int:
    return vm.bitmaps(vm[name])[checkpoint]["count"]


@test
def test_full_then_incremental(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "32M"), lab.disk("vdb", "16M")])
    repo = Repository(lab)
    vm.writer(vm["vda"]).random_ops(lab.rng, 40)
    vm.writer(vm["vdb"]).write_random(3 * M + 512, 100_000 // 512 * 512, lab.rng)
    first = repo.backup(vm, rc=0)
    assert first.modes == {"vda": "full", "vdb": "full"}
    assert first.report["checkpoint"].startswith(repo.prefix)
    repo.assert_tidy(vm)

    vm.writer(vm["vda"]).write_random(5 * M, 3 * CHUNK, lab.rng)
    vm.writer(vm["vda"]).write(9 * M + 512, 512, 7)
    vm.writer(vm["vda"]).zero(20 * M, 4 * CHUNK)
    dirty = {name: dirty_bytes(vm, name, first.report["checkpoint"]) for name in ("vda", "vdb")}
    packs = lab.tidemark_json("stats", "-r", repo.path)["packs"]
    second = repo.backup(vm, rc=0)
    assert second.modes == {"vda": "incremental", "vdb": "incremental"}
    vda, vdb = second.disk("vda"), second.disk("vdb")
    assert 4 * CHUNK <= vda["read"] <= dirty["vda"] == 8 * CHUNK, vda
    assert vdb["read"] == dirty["vdb"] == 0, vdb
    assert 0 < vda["new"] <= 4 * CHUNK and vda["stored"] > 0, vda
    assert vdb["new"] == vdb["stored"] == 0, vdb
    after = lab.tidemark_json("stats", "-r", repo.path)["packs"]
    assert after == packs + 1, "a small backup is one pack"
    repo.assert_tidy(vm)
    repo.check_all()
    assert repo.verify()["damaged"] == 0


@test
def test_second_full_stores_nothing(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "24M")])
    repo = Repository(lab)
    vm.writer(vm["vda"]).random_ops(lab.rng, 60)
    repo.backup(vm)
    before = repo.lab.tidemark_json("stats", "-r", repo.path)
    second = repo.backup(vm, "--mode", "full")
    after = repo.lab.tidemark_json("stats", "-r", repo.path)
    assert second.modes == {"vda": "full"}
    assert second.disk("vda")["new"] == 0
    assert after["objects"] == before["objects"], (before, after)
    repo.check_all()


@test
def test_alike_disks_are_stored_once(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "8M"), lab.disk("vdb", "8M")])
    content = lab.rng.randbytes(4 * M)
    for disk in vm.disks:
        writer = vm.writer(disk)
        writer.write(0, M, 1)
        path = lab.file("content", "")
        with open(path, "wb") as out:
            out.write(content)
        writer._do(f"write -s {path} {2 * M} {4 * M}", 4 * M)  # pylint: disable=protected-access
        disk.model.write(2 * M, content)
    repo = Repository(lab)
    point = repo.backup(vm)
    assert point.disk("vda")["new"] == 4 * M + CHUNK
    assert point.disk("vdb")["new"] == 0
    repo.check_all()


@test
def test_disks_are_chosen(lab: Lab) -> None:
    vm = lab.vm([lab.disk(name, "4M") for name in ("vda", "vdb", "vdc")])
    repo = Repository(lab)
    for disk in vm.disks:
        vm.writer(disk).random_ops(lab.rng, 5)
    assert set(repo.backup(vm, "--include", "vda", "--include", "vdb").modes) == {"vda", "vdb"}
    point = repo.backup(vm, "--exclude", "vda")
    assert point.modes == {"vdb": "incremental", "vdc": "full"}
    for disk in vm.disks:
        vm.writer(disk).random_ops(lab.rng, 5)
    # The disk that was left out goes on from where it was.
    point = repo.backup(vm)
    assert point.modes == dict.fromkeys(("vda", "vdb", "vdc"), "incremental"), point.report
    repo.assert_tidy(vm)
    repo.check_all()
    said = lab.tidemark("backup", "--qmp", vm.address, "-r", repo.path, "--include", "vdx", rc=1)
    assert "'vdx'" in said.err and "vda" in said.err


@test
def test_what_is_asked_for(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "4M"), lab.disk("vdb", "4M")])
    repo = Repository(lab)
    said = lab.tidemark("backup", "--qmp", vm.address, "-r", repo.path, "--mode", "incremental", rc=1)
    assert "vda" in said.err and "hint:" in said.err
    vm.assert_clean()
    repo.backup(vm, "--checkpoint", "mine")
    assert set(vm.bitmaps(vm["vda"])) == {"mine"}
    vm.writer(vm["vda"]).random_ops(lab.rng, 5)
    vm.writer(vm["vdb"]).random_ops(lab.rng, 5)
    document = lab.file("explicit.xml", "<domainbackup mode='pull'><server transport='unix' socket='"
                        + lab.sockets + "/own'/><disks><disk name='vda' backupmode='incremental' "
                        "incremental='mine'/><disk name='vdb' backupmode='full'/></disks>"
                        "</domainbackup>")
    point = repo.backup(vm, "--xml", document)
    assert point.modes == {"vda": "incremental", "vdb": "full"}
    wrong = lab.file("wrong.xml", f"<domainbackup><disks>{disk_xml('vda', lab.path('t'))}</disks>"
                     "</domainbackup>")
    said = lab.tidemark("backup", "--qmp", vm.address, "-r", repo.path, "--xml", wrong, rc=(1, 2))
    assert "hint:" in said.err
    vm.assert_clean()
    repo.check_all()


@test
def test_without_a_checkpoint(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "8M")])
    repo = Repository(lab)
    writer = vm.writer(vm["vda"])
    writer.random_ops(lab.rng, 9)
    first = repo.backup(vm)
    for _ in range(3):
        writer.random_ops(lab.rng, 5)
        point = repo.backup(vm, "--no-checkpoint")
        assert point.modes == {"vda": "incremental"} and point.report["checkpoint"] is None
        assert list(vm.bitmaps(vm["vda"])) == [first.report["checkpoint"]]
    writer.random_ops(lab.rng, 5)
    assert repo.backup(vm).modes == {"vda": "incremental"}
    repo.assert_tidy(vm)
    repo.check_all()


@test
def test_dry_run_changes_nothing(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "8M")])
    repo = Repository(lab)
    before = vm.inventory(), sorted(os.walk(repo.path))
    plan = lab.tidemark_json("backup", "--qmp", vm.address, "-r", repo.path, "--dry-run")
    assert plan["point"] is None and plan["disks"][0]["mode"] == "full"
    assert (vm.inventory(), sorted(os.walk(repo.path))) == before
    repo.backup(vm)
    vm.writer(vm["vda"]).write(0, 3 * CHUNK, 9)
    plan = lab.tidemark_json("backup", "--qmp", vm.address, "-r", repo.path, "--dry-run")
    assert plan["disks"][0]["mode"] == "incremental", plan
    assert plan["disks"][0]["read"] == 3 * CHUNK, plan


@test
def test_disks_that_changed_places(lab: Lab) -> None:
    """Both have a bitmap of the right name, and the same size; only the images tell them apart."""
    vda, vdb = lab.disk("vda", "4M"), lab.disk("vdb", "4M")
    vm = lab.vm([vda, vdb])
    repo = Repository(lab)
    for disk in vm.disks:
        vm.writer(disk).random_ops(lab.rng, 9)
    repo.backup(vm)
    vm.quit()
    vda.path, vdb.path = vdb.path, vda.path
    vda.model, vdb.model = vdb.model, vda.model
    vm.start()
    vm.writer(vda).random_ops(lab.rng, 3)
    point = repo.backup(vm)
    for disk in point.report["disks"]:
        if disk["mode"] == "incremental":  # then to the history of its image, under another name
            assert disk.get("base_disk", disk["name"]) != disk["name"], disk
    repo.check_all()

    # The same by renaming the files.
    vm.quit()
    other = lab.fresh()
    os.rename(vda.path, other)
    os.rename(vdb.path, vda.path)
    os.rename(other, vdb.path)
    vda.model, vdb.model = vdb.model, vda.model
    vm.start()
    assert repo.backup(vm).modes == {"vda": "full", "vdb": "full"}
    repo.check_all()


@test
def test_a_template_that_was_replaced(lab: Lab) -> None:
    """The overlay and its bitmap know nothing of it."""
    vm = lab.vm([lab.disk("vda", "8M")])
    vda = vm["vda"]
    vm.writer(vda).write(0, M, 1)
    template = vda.path
    vm.snapshot(vda)
    vm.writer(vda).write(4 * M, M, 2)
    repo = Repository(lab)
    repo.backup(vm)
    vm.quit()
    other = lab.create(lab.fresh(), "8M")
    lab.tool("qemu-io", "-c", f"write -P 8 {2 * M} {M}", other)
    os.rename(other, template)
    vda.model.zero(0, M)
    vda.model.write(2 * M, bytes([8]) * M)
    vm.start()
    point = repo.backup(vm)
    point.expect(vda="full")
    assert "below" in point.reasons["vda"], point.reasons
    repo.check(point)
    repo.backup(vm).expect(vda="incremental")


@test
def test_a_disk_of_two_machines(lab: Lab) -> None:
    """What the other one writes is in no bitmap here: it is left out, by name."""
    shared = lab.disk("vdb", "4M", fmt="raw", device={"share-rw": True})
    vm = lab.vm([lab.disk("vda", "4M"), shared])
    repo = Repository(lab)
    vm.writer(vm["vda"]).random_ops(lab.rng, 5)
    point = repo.backup(vm, rc=3)
    point.expect(vda="full")
    repo.check(point)
    said = lab.tidemark("disks", *vm.domain)
    assert "share-rw" in said.out, said.out
    document = lab.file("push.xml", backup_xml([disk_xml("vdb", lab.path("vdb.qcow2"))]))
    begun = lab.tidemark("begin", *vm.domain, document)
    assert "'vdb'" in begun.err and "share-rw" in begun.err, begun
    lab.tidemark("wait", *vm.domain)



@test
def test_a_killed_qemu(lab: Lab) -> None:
    """Its bitmaps are inconsistent: full, with the reason, and incremental again afterwards."""
    vm = lab.vm([lab.disk("vda", "8M"), lab.disk("vdb", "4M", fmt="raw")])
    repo = Repository(lab)
    vm.writer(vm["vda"]).random_ops(lab.rng, 9)
    repo.backup(vm)
    vm.restart()
    vm.kill()
    vm.start()
    point = repo.backup(vm, rc=3)
    assert point.modes == {"vda": "full", "vdb": "full"}
    assert "inconsistent" in point.disk("vda")["reason"], point.report
    repo.assert_tidy(vm)
    vm.writer(vm["vda"]).random_ops(lab.rng, 9)
    assert repo.backup(vm).modes == {"vda": "incremental", "vdb": "incremental"}
    repo.assert_tidy(vm)
    repo.check_all()


@test
def test_while_the_guest_writes(lab: Lab) -> None:
    """Three disks written in turn: every point is one cut through them."""
    guest = Guest(slots=256)
    vm = lab.vm([lab.disk(name, "4M") for name in ("vda", "vdb", "vdc")], guest=guest)
    repo = Repository(lab)
    for _ in range(4):
        guest.wait(20)
        report = lab.tidemark_json("backup", "--qmp", vm.address, "-r", repo.path, rc=0)
        vm.assert_clean()
        images = []
        for name in ("vda", "vdb", "vdc"):
            image = repo.restore(report["point"], name, ".raw", "--verify")
            images.append(image)
        guest.check_cut(images)
    assert {disk["mode"] for disk in report["disks"]} == {"incremental"}


def flip(path: str, offset: int) -> None:
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x10]))


def packs(repo: Repository) -> list[str]:
    """The packs' paths, the smallest first."""
    found = [os.path.join(folder, name) for folder, _, names in os.walk(f"{repo.path}/packs")
             for name in names]
    return sorted(found, key=os.path.getsize)


def nodes(repo: Repository) -> list[tuple[str, int]]:
    """Where the payloads of the full nodes are, roots behind what is below them: pack and offset."""
    found = []
    for path in packs(repo):
        with open(path, "rb") as file:
            data = file.read()
        at = 32
        while data[at + 8:at + 12] == data[40:44]:  # the magic that every record has
            if data[at + 12] == 2:
                found.append((path, at + 56))
            at += 56 + int.from_bytes(data[at + 16:at + 20], "little")
    return found


@test
def test_damage_is_healed(lab: Lab) -> None:
    """Chunks that were found damaged are stored anew by the next backup that meets them, which
    makes the old points whole, too."""
    vm = lab.vm([lab.disk("vda", "8M")])
    repo = Repository(lab)
    vm.writer(vm["vda"]).write_random(0, 3 * M, lab.rng)
    repo.backup(vm)
    largest = packs(repo)[-1]
    flip(largest, os.path.getsize(largest) // 2)
    repo.run("restore", repo.points[0].id, "--disk", "vda", "--to", lab.path("damaged.raw"), rc=4)
    assert not os.path.exists(lab.path("damaged.raw"))
    assert "vda" in repo.run("verify", rc=4).out
    healed = repo.backup(vm, "--mode", "full")
    assert healed.disk("vda")["new"] == CHUNK, healed.report
    assert repo.verify(healed.id)["damaged"] == 0
    repo.check_all()


@test
def test_lost_packs_are_made_up_for(lab: Lab) -> None:
    """What was in a pack that is gone is stored anew by the next full backup, without a verify in
    between."""
    vm = lab.vm([lab.disk("vda", "16M")])
    repo = Repository(lab)
    vm.writer(vm["vda"]).write_random(0, 5 * M, random.Random(7))
    repo.backup(vm)
    lost = packs(repo)
    # The same chunks elsewhere: a tree that has nothing of the one before, in a pack of its own.
    vm.writer(vm["vda"]).zero(0, 5 * M)
    vm.writer(vm["vda"]).write_random(8 * M, 5 * M, random.Random(7))
    second = repo.backup(vm, "--mode", "full")
    assert second.disk("vda")["new"] == 0, second.report
    for path in lost:
        os.unlink(path)
    third = repo.backup(vm, "--mode", "full", rc=0)
    assert third.disk("vda")["new"] == 5 * M, third.report
    for point in (second, third):
        assert repo.verify(point.id)["damaged"] == 0
        repo.check(point)


@test
def test_a_damaged_tree_is_not_built_upon(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "8M")])
    repo = Repository(lab)
    vm.writer(vm["vda"]).write_random(0, 3 * M, lab.rng)
    repo.backup(vm)
    [(pack, offset)] = nodes(repo)
    flip(pack, offset + 50)
    vm.writer(vm["vda"]).write(5 * M, CHUNK, 3)
    point = repo.backup(vm, rc=3)
    assert point.modes == {"vda": "full"} and "damaged" in point.disk("vda")["reason"]
    assert repo.verify(point.id)["damaged"] == 0
    repo.check(point)
    assert repo.backup(vm, rc=0).modes == {"vda": "incremental"}


@test
def test_damage_in_several_nodes(lab: Lab) -> None:
    """The backup meets one of them first, and makes the others anew although they would be the same,
    and nobody had noted them."""
    vm = lab.vm([lab.disk("vda", "48M")])
    for at in (0, 16 * M, 32 * M):  # three leaves
        vm.writer(vm["vda"]).write_random(at, M, lab.rng)
    for mode in ("full", "incremental"):
        repo = Repository(lab, f"repo-{mode}")
        repo.backup(vm)
        found = nodes(repo)
        assert len(found) == 4, found
        for pack, offset in found[:3]:
            flip(pack, offset + 50)
        if mode == "incremental":
            vm.writer(vm["vda"]).write(5 * M, CHUNK, 3)
        point = repo.backup(vm, "--mode", mode).expect(vda="full")
        assert repo.verify(point.id)["damaged"] == 0
        repo.check(point)
        if mode == "full":
            repo.check_all()  # the old point has all its nodes again, too


@test
def test_an_idle_disk_with_a_damaged_root(lab: Lab) -> None:
    """Nothing has changed, and verify has noted the root: it is stored again, from the tree where it
    can be read after all, else the disk is read in full."""
    vm = lab.vm([lab.disk("vda", "8M")])
    vm.writer(vm["vda"]).write_random(0, M, lab.rng)
    for well_again in (False, True):
        repo = Repository(lab, f"repo{well_again:d}")
        repo.backup(vm)
        [(pack, offset)] = nodes(repo)
        flip(pack, offset + 50)
        repo.run("verify", rc=4)
        if well_again:
            flip(pack, offset + 50)
        point = repo.backup(vm, rc=0 if well_again else 3)
        point.expect(vda="incremental" if well_again else "full")
        assert repo.verify(point.id)["damaged"] == 0
        repo.check_all()
        repo.backup(vm, rc=0).expect(vda="incremental")


@test
def test_what_is_said(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "4M")])
    repo = Repository(lab)
    vm.writer(vm["vda"]).random_ops(lab.rng, 9)
    first = repo.backup(vm, "--name", "web")
    vm.writer(vm["vda"]).write(M, CHUNK, 3)
    second = repo.backup(vm, "--name", "web")
    points = lab.tidemark_json("list", "-r", repo.path)["points"]
    assert [row["id"] for row in points] == [first.id, second.id]
    assert {row["domain"] for row in points} == {"web"}
    assert lab.tidemark_json("list", "-r", repo.path, "other")["points"] == []
    for spec in (second.id, second.id[:6], "web/latest", "web/" + points[1]["time"][:16]):
        shown = lab.tidemark_json("show", "-r", repo.path, spec)
        assert shown["id"] == second.id, spec
    rows = lab.tidemark_json("diff", "-r", repo.path, first.id, second.id)
    assert json.dumps(rows).count('"offset"') == 1 and str(M) in json.dumps(rows), rows
    for verb in (["show", "zzzz"], ["show", "web/1999"], ["restore", "ffff", "--to", lab.path("x")]):
        said = repo.run(verb[0], *verb[1:], rc=(1, 2))
        assert "error:" in said.err and "hint:" in said.err
    nowhere = lab.path("nowhere")
    said = lab.tidemark("backup", "--qmp", vm.address, "-r", nowhere, rc=1)
    assert "nowhere" in said.err and "tidemark init" in said.err
    vm.assert_clean()


main()
