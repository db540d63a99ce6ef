# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: disks that are powered off are backed up like those of a running machine, and the chain
of incrementals goes on across both. What a crash left inconsistent, and what cannot have a
checkpoint, is read in full and says why. An image in use is refused, its user undisturbed."""
from __future__ import annotations

import glob
import json
import os

from images import (
    SIZE, Scene, assert_tidy, bitmaps, change, domain_xml, expect, folders, reasons,
    wait_until_running)
from lab import Disk, Lab, main, test, wait_until
from repository import Repository, image_options


@test(timeout=180)
def test_one_chain_on_and_off(lab: Lab) -> None:
    """Running, off, running, killed, off."""
    vm = lab.vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE + 1536)])
    repo, xml = Repository(lab), domain_xml(lab, vm)
    change(lab, vm.disks, vm, 20)
    expect(repo.backup(vm, "--domain-xml", xml), vda="full", vdb="full")
    change(lab, vm.disks, vm)
    vm.quit()

    change(lab, vm.disks)
    for _ in range(2):
        point = repo.backup_images(vm.disks, "--domain-xml", xml, rc=0)
        expect(point, vda="incremental", vdb="incremental")
        assert point.report["domain"] == "web"
        assert_tidy(lab, vm.disks, repo)
        change(lab, vm.disks)

    vm.start()
    change(lab, vm.disks, vm)
    expect(repo.backup(vm, "--domain-xml", xml), vda="incremental", vdb="incremental")
    repo.assert_tidy(vm)
    change(lab, vm.disks, vm)
    vm.restart()  # stores the bitmaps
    change(lab, vm.disks, vm)
    for disk in vm.disks:
        vm.writer(disk).flush()
    vm.kill()

    point = repo.backup_images(vm.disks, "--domain-xml", xml, rc=3)
    expect(point, vda="full", vdb="full")
    assert "inconsistent" in point.disk("vda")["reason"], reasons(point)
    assert_tidy(lab, vm.disks, repo)  # the bad bitmap is gone
    change(lab, vm.disks)
    expect(repo.backup_images(vm.disks, "--domain-xml", xml, rc=0), vda="incremental",
           vdb="incremental")
    repo.check_all()
    assert repo.verify()["damaged"] == 0
    assert not folders(lab), folders(lab)


@test
def test_without_a_description(lab: Lab) -> None:
    """Known again by their images alone; some of the disks, in another order, will do too."""
    disks = [lab.disk("vda", SIZE), lab.disk("vdb", SIZE), lab.disk("vdc", "1M", fmt="raw")]
    repo = Repository(lab)
    change(lab, disks, count=20)
    expect(repo.backup_images(disks, "--name", "web", rc=0), vda="full", vdb="full", vdc="full")
    change(lab, disks)
    expect(repo.backup_images(disks[1::-1], "--name", "web", rc=0), vda="incremental",
           vdb="incremental")
    change(lab, disks)
    point = repo.backup_images(disks, "--name", "web", rc=0)
    expect(point, vda="incremental", vdb="incremental", vdc="full")
    assert "checkpoint" in point.disk("vdc")["reason"], reasons(point)
    assert_tidy(lab, disks, repo)
    # Without a checkpoint, nothing is written to the images.
    sums = [lab.tool("sha256sum", disk.path).out for disk in disks]
    expect(repo.backup_images(disks, "--name", "web", "--no-checkpoint", rc=0),
           vda="incremental", vdb="incremental", vdc="full")
    assert sums == [lab.tool("sha256sum", disk.path).out for disk in disks]
    repo.backup_images(disks[2:], "--name", "web", rc=0)  # none that could have a checkpoint
    repo.check_all()
    assert repo.verify()["damaged"] == 0


@test
def test_other_formats(lab: Lab) -> None:
    """Read in full each time, and nothing is written to them."""
    disks = [lab.disk(f"vd{letter}", SIZE, fmt=fmt, discard="ignore", create=options)
             for letter, fmt, options in (("a", "vdi", []), ("b", "vhdx", []), ("c", "vmdk", []),
                                          ("d", "vpc", ["-o", "force_size=on"]), ("e", "qed", []))]
    repo = Repository(lab)
    for _ in range(2):
        change(lab, disks)
        sums = [lab.tool("sha256sum", disk.path).out for disk in disks]
        point = repo.backup_images(disks, "--name", "web")
        assert set(point.modes.values()) == {"full"}, point.modes
        assert sums == [lab.tool("sha256sum", disk.path).out for disk in disks]
    repo.check_all()


@test
def test_backing_chains(lab: Lab) -> None:
    """A template below two disks; an overlay without and one with the checkpoint of below."""
    template = lab.disk("template", SIZE)
    change(lab, [template], count=20)
    disks = []
    for name in ("vda", "vdb"):
        path = lab.path(f"{name}.qcow2")
        lab.tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", template.path, "-F", "qcow2", path)
        disks.append(Disk(name, path, template.model.snapshot(), node=f"{name}-fmt"))
        disks[-1].model.discard_unit = None
        disks[-1].discard = "ignore"
    repo = Repository(lab)
    ask = ["--name", "web"]
    change(lab, disks)
    expect(repo.backup_images(disks, *ask, rc=0), vda="full", vdb="full")
    change(lab, disks)
    expect(repo.backup_images(disks, *ask, rc=0), vda="incremental", vdb="incremental")
    names = {disk.name: [one["name"] for one in bitmaps(lab, disk.path)] for disk in disks}
    vm = lab.vm(disks)
    vm.snapshot(disks[0], names["vda"])
    vm.snapshot(disks[1])
    for disk in disks:
        disk.model.discard_unit, disk.discard = None, "ignore"
    vm.quit()
    change(lab, disks)
    expect(repo.backup_images(disks, *ask, rc=3), vda="incremental", vdb="full")
    assert_tidy(lab, disks, repo)
    for path in (lab.path("vda.qcow2"), lab.path("vdb.qcow2")):
        assert bitmaps(lab, path) == [], "the superseded checkpoint stays below"
    change(lab, disks)
    expect(repo.backup_images(disks, *ask, rc=0), vda="incremental", vdb="incremental")
    repo.check_all()
    assert repo.verify()["damaged"] == 0


@test
def test_in_use(lab: Lab) -> None:
    """The program names the machine that has the image, and nothing happens to either."""
    vm = lab.vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE, fmt="raw")])
    repo = Repository(lab)
    for disks in (vm.disks, vm.disks[1:]):
        for verb in ([*"backup -r".split(), repo.path, "--name", "web"], ["disks"],
                     ["checkpoint", "create", "c1"]):
            said = lab.tidemark(*verb, *image_options(disks), rc=1)
            assert "in use" in said.err, said.err
            assert any(disk.path in said.err for disk in disks), said.err
            assert f"process {vm.pid}" in said.err and f"'{vm.name}'" in said.err, said.err
            assert "hint:" in said.err
    vm.assert_clean()
    assert_tidy(lab, [])
    assert json.loads(repo.run("list", "--json").out)["points"] == []
    vm.quit()
    repo.backup_images(vm.disks, "--name", "web", rc=0)


@test
def test_no_machine_starts_meanwhile(lab: Lab) -> None:
    """As long as a backup reads, no QEMU writes to the images, raw ones included."""
    disks = [lab.disk("vda", SIZE), lab.disk("vdb", SIZE, fmt="raw")]
    repo = Repository(lab)
    for disk in disks:
        lab.writer(disk).write_random(0, 4 << 20, lab.rng)
        child = lab.tidemark_popen("backup", *image_options([disk]), "-r", repo.path, "--name", "w",
                                   "--bandwidth", "2M")
        wait_until(lambda: glob.glob(f"{lab.state}/domains/*/images.json"), 10)
        wait_until_running(lab)
        said = lab.tool("qemu-io", "-f", disk.fmt, "-c", "write -P 1 0 64k", disk.path, check=False)
        assert "lock" in said.err + said.out, said
        _, err = child.communicate(timeout=30)
        assert child.returncode == 0, err
        assert_tidy(lab, [disk], repo)


@test
def test_errors(lab: Lab) -> None:
    raw, qcow2 = lab.disk("vda", SIZE, fmt="raw"), lab.disk("vdb", SIZE)
    repo = Repository(lab)
    odd = lab.path("odd.img")
    os.link(qcow2.path, odd)
    broken = lab.file("broken.qcow2", "nothing")
    for image, words in ((f"vda={lab.path('none.qcow2')}", "No such file"),
                         (f"vda={lab.dir},format=raw", "neither a file"),
                         (f"vda={raw.path},format=qcow2", "format"),
                         (f"vda={broken}", "no qcow2 image"),
                         (f"vda={odd}", "format=qcow2"),
                         (f"vda={qcow2.path},format=nonsense", "nonsense")):
        for verb in (["disks"], ["backup", "-r", repo.path, "--name", "web"]):
            said = lab.tidemark(*verb, "--image", image, rc=1)
            assert words in said.err and "vda" in said.err and "hint:" in said.err, said.err
    for wrong in (["--image", raw.path], ["--image", "=x"],
                  ["--image", "vda=x", "--qmp", "y"]):
        lab.tidemark("disks", *wrong, rc=2)
    said = lab.tidemark("disks", "--image", "vda=x", "--image", "vda=y", rc=1)
    assert "two images" in said.err and "hint:" in said.err, said.err
    said = lab.tidemark("backup", "-r", repo.path, *image_options([raw]), rc=2)
    assert "--name" in said.err, said.err
    # Below the top.
    overlay = lab.path("overlay.qcow2")
    lab.tool("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", lab.path("gone"), "-F", "raw",
             overlay, SIZE)
    said = lab.tidemark("disks", "--image", f"vda={overlay}", rc=1)
    assert lab.path("gone") in said.err, said.err
    assert_tidy(lab, [qcow2])


@test
def test_read_only_files(lab: Lab) -> None:
    """They are backed up, without a checkpoint, and say so."""
    folder = lab.tmpfs("40M")
    disk = lab.disk("vda", SIZE, path=f"{folder}/vda.qcow2")
    repo = Repository(lab)
    change(lab, [disk], count=20)
    expect(repo.backup_images([disk], "--name", "web", rc=0), vda="full")
    change(lab, [disk])
    lab.tool("mount", "-o", "remount,ro", folder)
    expect(repo.backup_images([disk], "--name", "web"), vda="incremental")
    lab.tool("mount", "-o", "remount,rw", folder)
    change(lab, [disk])
    expect(repo.backup_images([disk], "--name", "web"), vda="incremental")
    repo.check_all()


@test(timeout=120)
def test_jobs(lab: Lab) -> None:
    """begin, status, end and abort: the daemon lives as long as the job, and a checkpoint stays
    only where the job ended well."""
    disks = [lab.disk("vda", SIZE), lab.disk("vdb", SIZE, fmt="raw")]
    ask = image_options(disks)
    change(lab, disks, count=20)
    socket = os.path.join(lab.sockets, "nbd")
    pull = lab.file("pull.xml", f"""<domainbackup mode='pull'>
        <server transport='unix' socket='{socket}'/></domainbackup>""")
    since = lab.file("since.xml", f"""<domainbackup mode='pull'><incremental>c1</incremental>
        <server transport='unix' socket='{socket}'/>
        <disks><disk name='vda'/><disk name='vdb' backup='no'/></disks></domainbackup>""")
    checkpoint = [lab.file(f"c{n}.xml", f"<domaincheckpoint><name>c{n}</name></domaincheckpoint>")
                  for n in (1, 2)]
    lab.tidemark("begin", *ask, pull, checkpoint[0])
    assert lab.tidemark_json("status", *ask)["state"] == "running"
    assert [d["name"] for d in lab.tidemark_json("disks", *ask)["disks"]] == ["vda", "vdb"]
    for disk in disks:
        copy = lab.fresh(".raw")
        lab.tool("qemu-img", "convert", "-O", "raw", f"nbd+unix:///{disk.name}?socket={socket}",
                 copy)
        lab.compare(copy, disk.model, "raw")
        said = lab.tool("qemu-io", "-f", disk.fmt, "-c", "write 0 64k", disk.path, check=False)
        assert "lock" in said.err + said.out, said
    said = lab.tidemark("begin", *ask, pull, rc=1)
    assert "runs already" in said.err, said.err
    lab.tidemark("end", *ask)
    assert lab.tidemark_json("status", *ask)["state"] == "done"
    assert_tidy(lab, disks)

    begin, length = 2 << 20, 65536
    lab.writer(disks[0]).write(begin, length, 9)
    lab.tidemark("begin", *ask, since, checkpoint[1])
    said = lab.tool("nbdinfo", "--map=qemu:dirty-bitmap:backup-vda", "--json",
                    f"nbd+unix:///vda?socket={socket}")
    dirty = [one for one in json.loads(said.out) if one["type"]]
    assert [(one["offset"], one["length"]) for one in dirty] == [(begin, length)], dirty
    lab.tidemark("abort", *ask)
    assert lab.tidemark_json("status", *ask)["state"] == "cancelled"
    assert_tidy(lab, disks)
    listed = lab.tidemark_json("checkpoint", "list", *ask)["checkpoints"]
    assert [one["name"] for one in listed] == ["c1"], listed
    assert listed[0]["disks"][0]["name"] == "vda" and len(listed[0]["disks"]) == 1, listed

    lab.tidemark("checkpoint", "create", *ask, "c3")
    lab.tidemark("checkpoint", "delete", *ask, "c1")
    assert [one["name"] for one in bitmaps(lab, disks[0].path)] == ["c3"]
    assert_tidy(lab, disks)


@test
def test_push(lab: Lab) -> None:
    disk = lab.disk("vda", SIZE)
    change(lab, [disk], count=20)
    ask = image_options([disk])
    for number, mode in enumerate(("", "<incremental>c0</incremental>")):
        target = lab.path(f"push{number}.qcow2")
        xml = lab.file("push.xml", f"""<domainbackup>{mode}<disks><disk name='vda' type='file'>
            <target file='{target}'/></disk></disks></domainbackup>""")
        lab.tidemark("begin", *ask, xml, lab.file(
            "c.xml", f"<domaincheckpoint><name>c{number}</name></domaincheckpoint>"))
        lab.tidemark("wait", *ask)
        lab.compare(target, disk.model)
        wait_until(lambda: not glob.glob(f"{lab.state}/domains/*/images.json"), 10)
        assert_tidy(lab, [disk])
        change(lab, [disk])


@test
def test_two_at_once(lab: Lab) -> None:
    """Another process looks while a backup reads, and another backup is refused."""
    scene = Scene(lab)
    lab.writer(scene.disks[0]).write_random(0, SIZE, lab.rng)
    child = lab.tidemark_popen(*scene.arguments, "--bandwidth", "2M")
    wait_until_running(lab)
    for _ in range(3):
        lab.tidemark("disks", *image_options(scene.disks))
    said = lab.tidemark(*scene.arguments, rc=1)
    assert "under way" in said.err, said.err
    other = image_options(scene.disks[:1])  # another domain
    lab.tidemark("disks", *other)
    said = lab.tidemark("checkpoint", "create", *other, "c1", rc=1)
    assert "in use" in said.err and "qemu-storage" in said.err, said.err
    lab.tidemark("checkpoint", "create", *image_options(scene.disks), "c1", rc=1)
    assert all(one["flags"] == ["auto"] for one in bitmaps(lab, scene.disks[0].path))
    assert child.poll() is None
    _, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert_tidy(lab, scene.disks, scene.repo)
    scene.prove()


main()
