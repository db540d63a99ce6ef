# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: disks that are powered off are backed up like those of a running machine, and the chain
of incrementals goes on across both. What a crash left inconsistent, and what cannot have a
checkpoint, is read in full and says why. An image in use is refused, its user undisturbed. Whatever
kills the program, its daemon goes too, the images stay whole, and the next backup works."""
from __future__ import annotations

import glob
import hashlib
import json
import os
import signal
import time

from lab import Disk, Lab, Vm, diag, main, soak, test, wait_until
from repository import Point, Repository, image_options

SIZE = 8 << 20
XML = """<domain type='kvm'><name>web</name><uuid>{uuid}</uuid><devices>{disks}</devices></domain>"""


def domain_xml(lab: Lab, vm: Vm) -> str:
    disks = "".join(f"<disk type='file' device='disk'><driver name='qemu' type='{disk.fmt}'/>"
                    f"<source file='{disk.path}'/><target dev='{disk.name}' bus='virtio'/></disk>"
                    for disk in vm.disks)
    return lab.file("domain.xml", XML.format(uuid=vm.uuid, disks=disks))


def change(lab: Lab, disks: list[Disk], vm: Vm | None = None, count: int = 5) -> None:
    for disk in disks:
        writer = vm.writer(disk) if vm else lab.writer(disk)
        writer.random_ops(lab.rng, count, longest=1 << 18)


def folders(lab: Lab) -> set[str]:
    """The daemons' folders of the lab's state folder."""
    mine = hashlib.sha256(lab.state.encode()).hexdigest()[:8]
    return {name for base in ("/run", os.environ.get("XDG_RUNTIME_DIR", "/run"), "/tmp")
            for name in glob.glob(f"{base}/tidemark-images-{mine}-*")}


def assert_tidy(lab: Lab, disks: list[Disk], repo: Repository | None = None) -> None:
    """No daemon, no state of one, sound images with at most one checkpoint, and none of a job."""
    left = glob.glob(f"{lab.state}/domains/*/images.json") + glob.glob(
        f"{lab.state}/domains/*/job.json")
    assert not left, left
    for path in glob.glob(f"{lab.state}/domains/*/last.json"):
        with open(path, encoding="utf-8") as last:
            for entry in json.load(last)["undo"]:
                assert entry["op"] != "folder" or not os.path.exists(entry["path"]), entry
    for disk in disks:
        if disk.fmt != "qcow2":
            continue
        lab.check_image(disk.path)
        names = [one["name"] for one in bitmaps(lab, disk.path)]
        assert not [name for name in names if name.startswith("tmk-")], names
        if repo:
            assert len([name for name in names if name.startswith(repo.prefix)]) <= 1, names


def bitmaps(lab: Lab, path: str) -> list[dict]:
    specific = lab.info(path)["format-specific"]["data"]
    return specific.get("bitmaps", [])


def reasons(point: Point) -> dict[str, str]:
    return {disk["name"]: disk["reason"] for disk in point.report["disks"]}


def expect(point: Point, **modes: str) -> None:
    assert point.modes == modes, f"{point.modes}: {reasons(point)}"


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
        wait_until(lambda: [one for one in glob.glob(f"{lab.state}/domains/*/job.json")
                            if '"phase": "running"' in open(one, encoding="utf-8").read()], 10)
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


def daemon_of(lab: Lab) -> tuple[str, int]:
    """The folder and the process of the lab's daemon."""
    [document] = glob.glob(f"{lab.state}/domains/*/images.json")
    with open(document, encoding="utf-8") as text:
        folder = json.load(text)["folder"]
    with open(f"{folder}/pid", encoding="utf-8") as text:
        return folder, int(text.read())


def wait_until_running(lab: Lab) -> None:
    wait_until(lambda: [path for path in glob.glob(f"{lab.state}/domains/*/job.json")
                        if '"phase": "running"' in open(path, encoding="utf-8").read()], 10)


class Scene:
    """Disks with a point, to which something was written since."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.repo = lab, Repository(lab)
        self.disks = [lab.disk("vda", SIZE), lab.disk("vdb", "4M"), lab.disk("vdc", "1M",
                                                                             fmt="raw")]
        change(lab, self.disks, count=20)
        self.repo.backup_images(self.disks, "--name", "web")

    @property
    def arguments(self) -> list[str]:
        return ["backup", *image_options(self.disks), "-r", self.repo.path, "--name", "web", "-q"]

    def prove(self) -> None:
        self.repo.backup_images(self.disks, "--name", "web")
        assert_tidy(self.lab, self.disks, self.repo)
        for point in self.repo.points[-2:]:
            self.repo.check(point)


@test(timeout=240)
def test_killed_at_every_step(lab: Lab) -> None:
    scene = Scene(lab)
    change(lab, scene.disks)
    traced = lab.tidemark(*scene.arguments, env={"TIDEMARK_TEST_TRACE": "1"})
    steps = [line for line in traced.err.splitlines() if line.startswith("testpoint")]
    diag(f"{len(steps)} steps")
    assert len(steps) > 60, steps
    stride = soak(13, 1)
    incremental = 0
    for number in range(lab.rng.randrange(stride) + 1, len(steps) + 1, stride):
        change(lab, scene.disks, count=2)
        lab.tidemark(*scene.arguments, env={"TIDEMARK_TEST_KILL_AT": str(number)},
                     rc=(0, -signal.SIGKILL))
        # Its daemon ends too, and ends well: nothing has the images, no bitmap is inconsistent.
        wait_until(lambda: all(lab.tool("qemu-img", "check", disk.path, check=False).rc == 0
                               for disk in scene.disks[:2]), 10, f"step {number}")
        if number % 2:
            change(lab, scene.disks, count=2)
        scene.prove()
        incremental += scene.repo.points[-1].modes["vda"] == "incremental"
        assert not folders(lab), f"step {number}: {folders(lab)}"
    assert incremental == len(range(1, len(steps) + 1, stride)) or incremental > 5
    assert scene.repo.verify()["damaged"] == 0


@test(timeout=120)
def test_killed_and_started(lab: Lab) -> None:
    """What a killed backup of powered-off disks left is no trouble for the machine; nor if its
    daemon is killed with it, which may cost the bitmaps where they were just being changed."""
    vm = lab.vm([lab.disk("vda", SIZE), lab.disk("vdb", SIZE)])
    repo, xml = Repository(lab), domain_xml(lab, vm)
    change(lab, vm.disks, vm, 20)
    repo.backup(vm, "--domain-xml", xml)
    for number in range(soak(4, 30)):
        vm.quit()
        change(lab, vm.disks)
        child = lab.tidemark_popen("backup", *image_options(vm.disks), "-r", repo.path,
                                   "--domain-xml", xml)
        time.sleep(0.05 + lab.rng.random() * 0.4)
        hard = False
        if number % 2:
            try:
                os.kill(daemon_of(lab)[1], signal.SIGKILL)
                hard = True
            except (ValueError, FileNotFoundError, ProcessLookupError):
                pass  # not there yet, or no more
        child.kill()
        child.communicate()
        wait_until(lambda: lab.tool("qemu-io", "-c", "read 0 512", vm.disks[0].path,
                                    check=False).rc == 0)
        fine = (0, 3) if hard else (0,)  # a kill may leak clusters
        for disk in vm.disks:
            wait_until(lambda: lab.tool("qemu-img", "check", disk.path, check=False).rc in fine)
        vm.start()
        change(lab, vm.disks, vm)
        point = repo.backup(vm, "--domain-xml", xml)
        for disk in point.report["disks"]:
            assert disk["mode"] == "incremental" or hard, disk
        repo.assert_tidy(vm)
        repo.check(point)


@test
def test_a_killed_daemon(lab: Lab) -> None:
    """While data is read it costs the backup, and nothing else: the bitmaps are whole in the
    images, and the next backup is incremental."""
    scene = Scene(lab)
    for _ in range(2):
        lab.writer(scene.disks[0]).write_random(0, SIZE, lab.rng)
        change(lab, scene.disks)
        child = lab.tidemark_popen(*scene.arguments, "--bandwidth", "2M")
        wait_until_running(lab)
        folder, pid = daemon_of(lab)
        for disk in scene.disks[:2]:
            for one in bitmaps(lab, disk.path):
                assert one["flags"] == ["auto"], one  # not in use, as the file has it
        os.kill(pid, signal.SIGKILL)
        _, err = child.communicate(timeout=60)
        assert child.returncode == 1 and "hint:" in err, err
        assert not os.path.exists(folder)
        for disk in scene.disks[:2]:
            lab.check_image(disk.path)
        change(lab, scene.disks)
        scene.prove()
        assert scene.repo.points[-1].modes == {"vda": "incremental", "vdb": "incremental",
                                               "vdc": "full"}, scene.repo.points[-1].report


@test
def test_all_killed(lab: Lab) -> None:
    """The program and its daemon at once, as when the host goes down: the same."""
    scene = Scene(lab)
    lab.writer(scene.disks[0]).write_random(0, SIZE, lab.rng)
    child = lab.tidemark_popen(*scene.arguments, "--bandwidth", "2M")
    wait_until_running(lab)
    _, pid = daemon_of(lab)
    os.kill(child.pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    child.kill()
    child.communicate()
    change(lab, scene.disks)
    scene.prove()
    assert scene.repo.points[-1].modes["vda"] == "incremental", scene.repo.points[-1].report


@test
def test_a_killed_push(lab: Lab) -> None:
    disk = lab.disk("vda", SIZE)
    change(lab, [disk], count=20)
    lab.writer(disk).write_random(0, SIZE, lab.rng)
    ask = image_options([disk])
    target = lab.path("push.qcow2")
    xml = lab.file("push.xml", f"""<domainbackup><disks><disk name='vda' type='file'>
        <target file='{target}'/></disk></disks></domainbackup>""")
    names = [lab.file(f"c{n}.xml", f"<domaincheckpoint><name>c{n}</name></domaincheckpoint>")
             for n in range(2)]
    lab.tidemark("checkpoint", "create", *ask, "old")
    change(lab, [disk])
    lab.tidemark("begin", *ask, xml, names[0], "--bandwidth", "1M")
    _, pid = daemon_of(lab)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: lab.tidemark_json("status", *ask)["state"] != "running")
    lab.tidemark("abort", *ask, check=False)
    since = lab.file("since.xml", f"""<domainbackup><incremental>old</incremental><disks>
        <disk name='vda' type='file'><target file='{target}.2'/></disk></disks></domainbackup>""")
    lab.tidemark("begin", *ask, since, names[1])  # the checkpoint can be used
    lab.tidemark("wait", *ask)
    assert_tidy(lab, [disk])
    assert {one["name"] for one in bitmaps(lab, disk.path)} == {"old", "c1"}


@test
def test_aborted_push(lab: Lab) -> None:
    """The new checkpoint goes though its image was made read-only."""
    disk = lab.disk("vda", SIZE)
    lab.writer(disk).write_random(0, SIZE, lab.rng)
    ask = image_options([disk])
    xml = lab.file("push.xml", f"""<domainbackup><disks><disk name='vda' type='file'>
        <target file='{lab.path("push.qcow2")}'/></disk></disks></domainbackup>""")
    new = lab.file("c.xml", "<domaincheckpoint><name>c1</name></domaincheckpoint>")
    lab.tidemark("begin", *ask, xml, new, "--bandwidth", "1M")
    lab.tidemark("abort", *ask)
    assert_tidy(lab, [disk])
    assert bitmaps(lab, disk.path) == []


@test
def test_two_at_once(lab: Lab) -> None:
    """Another process looks while a backup reads, and another backup is refused."""
    scene = Scene(lab)
    lab.writer(scene.disks[0]).write_random(0, SIZE, lab.rng)
    child = lab.tidemark_popen(*scene.arguments, "--bandwidth", "2M")
    time.sleep(0.6)
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


@test(timeout=120)
def test_a_reader(lab: Lab) -> None:
    """Who has an image open read-only when a backup ends is waited for; who does not go costs no
    more than that what was superseded is removed by the next backup."""
    scene = Scene(lab)
    for seconds in (3, 60):
        lab.writer(scene.disks[0]).write_random(0, SIZE, lab.rng)
        child = lab.tidemark_popen(*scene.arguments, "--bandwidth", "4M")
        wait_until_running(lab)
        reader = lab.tool_popen("qemu-io", "-r", "-c", f"sleep {seconds}000", scene.disks[0].path)
        time.sleep(0.5)
        assert reader.poll() is None
        _, err = child.communicate(timeout=60)
        assert child.returncode in ((0,) if seconds == 3 else (0, 3)), err
        assert (reader.poll() is None) == (seconds == 60)
        reader.kill()
        reader.wait()
        if seconds == 3:
            assert_tidy(lab, scene.disks, scene.repo)
        change(lab, scene.disks)
        scene.prove()
        assert scene.repo.points[-1].modes["vda"] == "incremental", scene.repo.points[-1].report


@test
def test_interrupted_under_a_reader(lab: Lab) -> None:
    """The new checkpoint, which cannot be removed now, is removed by whoever comes next."""
    scene = Scene(lab)
    lab.writer(scene.disks[0]).write_random(0, SIZE, lab.rng)
    child = lab.tidemark_popen(*scene.arguments, "--bandwidth", "1M")
    wait_until_running(lab)
    reader = lab.tool_popen("qemu-io", "-r", "-c", "sleep 60000", scene.disks[0].path)
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode in (1, 130), err
    reader.kill()
    reader.wait()
    assert len(bitmaps(lab, scene.disks[0].path)) == 2
    change(lab, scene.disks)
    scene.prove()
    assert scene.repo.points[-1].modes["vda"] == "incremental", scene.repo.points[-1].report
    diag(err)


@test
def test_interrupted(lab: Lab) -> None:
    scene = Scene(lab)
    lab.writer(scene.disks[0]).write_random(0, SIZE, lab.rng)
    child = lab.tidemark_popen(*scene.arguments, "--bandwidth", "2M")
    time.sleep(1)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130, err
    assert_tidy(lab, scene.disks, scene.repo)
    assert not folders(lab)
    scene.prove()


main()
