# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: whatever kills a backup of powered-off disks, its daemon goes too, the images stay whole,
and the next backup works; while data are read not even a killed daemon costs a checkpoint. Who
reads an image meanwhile is waited for."""
from __future__ import annotations

import os
import signal
import time

import run
from images import (
    SIZE, Scene, assert_tidy, bitmaps, change, daemon_of, domain_xml, folders,
    wait_until_running)
from lab import Lab, diag, main, soak, test, wait_until
from repository import Repository, image_options


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
    daemon is killed with it. Either may cost the bitmaps where they were just being changed."""
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
        # To kill the daemon may leak clusters, which stay until they are looked for.
        repair = ["-r", "leaks"] if hard else []
        for disk in vm.disks:
            wait_until(lambda: lab.tool("qemu-img", "check", *repair, disk.path,
                                        check=False).rc == 0)
        vm.start()
        change(lab, vm.disks, vm)
        point = repo.backup(vm, "--domain-xml", xml)
        for disk in point.report["disks"]:
            if disk["mode"] != "incremental":
                # The daemon ends with the program, and where it was just about to change bitmaps
                # it may not have stored them: that is noticed, and costs a full read.
                diag(f"round {number}{', daemon killed' if hard else ''}: {disk['reason']}")
                assert hard or "inconsistent" in disk["reason"], disk
        repo.assert_tidy(vm)
        repo.check(point)
    vm.quit()
    lab.tidemark("disks", *image_options(vm.disks), "--domain-xml", xml)
    assert not folders(lab), folders(lab)


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
    run.stop(child.pid)
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
    wait_until_running(lab)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130, err
    assert_tidy(lab, scene.disks, scene.repo)
    assert not folders(lab)
    scene.prove()


main()
