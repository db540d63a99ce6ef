#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: `tidemark disks` tells what QEMU has: each disk's name, size, chain and place, why one
cannot be backed up, and the health of every bitmap, with the keys that scripts rely on."""
from backup import checkpoint_xml
from lab import Lab, action, bitmap_add, main, test
from push import push

DISK = {"name", "device", "node", "format", "source", "size", "chain", "read_only", "removable",
        "empty", "iothread", "eligible", "why_not", "no_checkpoint", "checkpoints"}
BITMAP = {"name", "usable", "why_not", "dirty", "granularity", "persistent", "recording",
          "inconsistent", "busy", "images"}


def disks(vm, *options: str) -> dict[str, dict]:
    document = vm.lab.tidemark_json("disks", "--qmp", vm.address, *options)
    assert set(document) == {"disks"}
    return {row["name"]: row for row in document["disks"]}


@test
def test_keys_and_values(lab: Lab) -> None:
    vda = lab.disk("vda", (8 << 20) + 512, iothread=True)
    vdb = lab.disk("vdb", "4M", fmt="raw", bus="scsi")
    vm = lab.vm([vda, vdb], extra=["-device", "ide-cd,id=hdc,bus=ide.0"])
    vm.qmp.transaction(bitmap_add("vda-fmt", "c1"),
                       bitmap_add("vda-fmt", "c2", granularity=1 << 20, persistent=False))
    vm.writer(vda).write(0, 512)
    rows = disks(vm)
    assert set(rows) == {"vda", "vdb", "hdc"} and all(set(row) == DISK for row in rows.values())
    row = rows["vda"]
    assert row == {"name": "vda", "device": vm.entry(vda)["qdev"], "node": "vda-fmt",
                   "format": "qcow2", "source": vda.path, "size": (8 << 20) + 512, "chain": 1,
                   "read_only": False, "removable": False, "empty": False, "iothread": True,
                   "eligible": True, "why_not": None, "no_checkpoint": None,
                   "checkpoints": row["checkpoints"]}, row
    first, second = sorted(row["checkpoints"], key=lambda one: one["name"])
    assert first == {"name": "c1", "usable": True, "why_not": None, "dirty": 1 << 16,
                     "granularity": 1 << 16, "persistent": True, "recording": True,
                     "inconsistent": False, "busy": False, "images": 1}, first
    assert set(second) == BITMAP and second["dirty"] == second["granularity"] == 1 << 20
    assert not second["persistent"]
    assert rows["vdb"]["format"] == "raw" and rows["vdb"]["size"] == 4 << 20
    assert not rows["vdb"]["iothread"]
    empty = rows["hdc"]
    assert empty["empty"] and empty["size"] == 0 and not empty["eligible"]
    assert empty["node"] is empty["format"] is empty["source"] is None
    text = lab.tidemark("disks", "--qmp", vm.address).out.splitlines()
    assert [line.split()[0] for line in text if not line.startswith(" ")] == list(rows)
    assert any("not backed up: the drive is empty" in line for line in text), text


@test
def test_health_of_bitmaps(lab: Lab) -> None:
    vda = lab.disk("vda", "16M")
    vm = lab.vm([vda])
    add = [bitmap_add("vda-fmt", name) for name in ("whole", "crashed", "stopped", "gap", "below")]
    vm.qmp.transaction(*add)
    vm.qmp.command("block-dirty-bitmap-disable", node="vda-fmt", name="stopped")
    vm.writer(vda).write(0, 1 << 16)
    vm.snapshot(vda, ["whole"])
    vm.writer(vda).write(1 << 20, 1 << 16)
    vm.snapshot(vda, ["whole", "gap", "stopped"])
    vm.writer(vda).write(2 << 20, 1 << 16)
    row = disks(vm)["vda"]
    health = {one["name"]: one for one in row["checkpoints"]}
    assert row["chain"] == 3 and set(health) == {"whole", "crashed", "stopped", "gap", "below"}
    assert health["whole"]["usable"] and health["whole"]["images"] == 3
    assert health["whole"]["dirty"] == 3 << 16, health["whole"]
    for name, why in {"crashed": "not recorded", "below": "not recorded", "gap": "gap",
                      "stopped": "gap"}.items():
        assert not health[name]["usable"] and why in health[name]["why_not"], health[name]
        assert health[name]["images"] == (0 if why == "not recorded" else 1), health[name]
    text = lab.tidemark("disks", "--qmp", vm.address).out
    assert "checkpoint gap" in text and "not usable: " in text, text


@test
def test_inconsistent(lab: Lab) -> None:
    vm = lab.vm([lab.disk("vda", "8M")])
    vm.qmp.transaction(bitmap_add("vda-fmt", "c1"))
    vm.restart()
    vm.kill()
    vm.start()
    (one,) = disks(vm)["vda"]["checkpoints"]
    assert one["inconsistent"] and not one["usable"] and "inconsistent" in one["why_not"], one


@test
def test_while_jobs_run(lab: Lab) -> None:
    """Our own temporary bitmaps are not shown; what another tool's job holds is busy."""
    vda = lab.disk("vda", "16M")
    vm = lab.vm([vda])
    push(vm, "<domainbackup/>", checkpoint=checkpoint_xml("c1"))
    vm.writer(vda).write(0, 16 << 20)
    document = lab.file("b.xml", "<domainbackup><incremental>c1</incremental></domainbackup>")
    lab.tidemark("begin", "--qmp", vm.address, "--bandwidth", "1M", document,
                 lab.file("c.xml", checkpoint_xml("c2")))
    row = disks(vm)["vda"]
    assert {one["name"] for one in row["checkpoints"]} == {"c1", "c2"}, row
    assert row["node"] == "vda-fmt" and row["eligible"] and row["chain"] == 1, row
    lab.tidemark("abort", "--qmp", vm.address)
    vm.qmp.command("blockdev-add", driver="null-co", node_name="sink", size=16 << 20)
    vm.qmp.transaction(action("blockdev-backup", job_id="theirs", device="vda-fmt", target="sink",
                              sync="incremental", bitmap="c1", speed=1 << 20))
    (one,) = disks(vm)["vda"]["checkpoints"]
    assert one["busy"], one
    vm.qmp.command("job-cancel", id="theirs")


@test
def test_mirror_in_progress(lab: Lab) -> None:
    """Another tool's named job filter is looked through."""
    vda = lab.disk("vda", "16M")
    vm = lab.vm([vda])
    vm.qmp.transaction(bitmap_add("vda-fmt", "c1"))
    vm.qmp.command("blockdev-add", driver="null-co", node_name="sink", size=16 << 20)
    vm.qmp.command("blockdev-mirror", job_id="m", device="vda-fmt", target="sink", sync="full",
                   filter_node_name="their-filter")
    row = disks(vm)["vda"]
    assert (row["node"], row["chain"], row["format"]) == ("vda-fmt", 1, "qcow2"), row
    vm.qmp.command("job-cancel", id="m")


@test
def test_abort_of_a_job_nobody_remembers(lab: Lab) -> None:
    """The state was lost while a job ran: its parts are found by name and taken down, whatever
    the run is called (QEMU lists nodes in no helpful order, and a node is not removed in use)."""
    vda = lab.disk("vda", "8M")
    vm = lab.vm([vda])
    before = vm.inventory()
    for run in ("0a1b2c3d", "f0000000", "fffffff0"):
        target = lab.create(lab.path(f"{run}.qcow2"), "8M")
        vm.qmp.command("blockdev-add", driver="file", node_name=f"tmk-{run}-f0", filename=target)
        vm.qmp.command("blockdev-add", driver="qcow2", node_name=f"tmk-{run}-t0",
                       file=f"tmk-{run}-f0")
        vm.qmp.transaction(
            bitmap_add("vda-fmt", f"tmk-{run}-b0", persistent=False),
            action("blockdev-backup", job_id=f"tmk-{run}-j0", device="vda-fmt", sync="full",
                   target=f"tmk-{run}-t0", speed=1 << 16, auto_dismiss=False))
        lab.tidemark("abort", "--qmp", vm.address)
        assert vm.inventory() == before, (run, vm.inventory())
    assert "no backup job" in lab.tidemark("abort", "--qmp", vm.address, rc=1).err


main()
