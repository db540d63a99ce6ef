# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: where the program is killed at any step of a backup of libvirt's domain, running or shut
off, or interrupted, that costs no more than this backup: the domain goes on, or can be started; the
next backup cleans up behind it, is incremental and exact."""
from __future__ import annotations

import signal
import time

from lab import Lab, diag, main, soak, test, wait_until
from run import wait_until_caught
from virtscene import Scene


@test(timeout=240)
def test_program_killed_at_every_step(lab: Lab) -> None:
    scene = Scene(lab)
    before = scene.folders()
    scene.vm.change(2)
    traced = lab.tidemark(*scene.arguments, env={"TIDEMARK_TEST_TRACE": "1"})
    steps = [line for line in traced.err.splitlines() if line.startswith("testpoint")]
    assert any("libvirt-begun" in step for step in steps), steps
    stride = soak(5, 1)
    killed = 0
    for number in range(lab.rng.randrange(stride) + 1, len(steps) + 1, stride):
        scene.vm.change(2)
        said = lab.tidemark(*scene.arguments, env={"TIDEMARK_TEST_KILL_AT": str(number)},
                            rc=(0, -signal.SIGKILL))
        killed += said.rc != 0
        assert scene.vm.status() == "running"
        scene.prove()
    diag(f"{killed} of {len(steps)} steps")
    assert killed > len(steps) // stride // 2
    assert scene.repo.verify()["damaged"] == 0
    assert scene.folders() == before, scene.folders()
    scene.repo.check_all()


@test(timeout=240)
def test_program_killed_while_it_is_shut_off(lab: Lab) -> None:
    """The domain can be started at once, or as soon as the next backup has looked."""
    scene = Scene(lab)
    scene.vm.quit()
    scene.vm.change(2)
    traced = lab.tidemark(*scene.arguments, env={"TIDEMARK_TEST_TRACE": "1"})
    steps = len([line for line in traced.err.splitlines() if line.startswith("testpoint")])
    stride = soak(9, 1)
    for number in range(lab.rng.randrange(stride) + 1, steps + 1, stride):
        scene.vm.change(2)
        lab.tidemark(*scene.arguments, env={"TIDEMARK_TEST_KILL_AT": str(number)},
                     rc=(0, -signal.SIGKILL))
        if number % 2:  # whatever held the images has gone with it
            wait_until(lambda: scene.vm.virsh("start", check=False).rc == 0, 15, "a start")
            scene.vm.connect()
            scene.prove("")
            scene.vm.quit()
        else:
            wait_until(lambda: not lab.tool("fuser", scene.vm["vda"].path, check=False).out, 15)
        scene.prove("")
    scene.prove()
    scene.repo.check_all()


@test(timeout=180)
def test_program_killed_and_then_shut_off(lab: Lab) -> None:
    """What the job left is put away when nothing runs any more, too."""
    scene = Scene(lab)
    for killed in (False, True):
        child = scene.slow()
        child.kill()
        child.wait()
        if killed:
            scene.vm.kill()
        else:
            scene.vm.quit()
        scene.prove("full" if killed else "incremental")
        scene.vm.start()
        scene.prove()
    scene.repo.check_all()


@test(timeout=180)
def test_interrupted(lab: Lab) -> None:
    """Ctrl-C cleans up at once: nothing is left even without a next backup."""
    scene = Scene(lab)
    before = scene.folders()
    for number in range(soak(3, 20)):
        if number == 2:
            scene.vm.quit()
        scene.vm.change(20)
        child = lab.tidemark_popen(*scene.arguments, "--bandwidth", "1M", "--mode", "full")
        wait_until_caught(child)
        time.sleep(lab.rng.random())
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
        assert child.returncode == 130, (child.returncode, err)
        scene.vm.assert_tidy(scene.repo)
        assert scene.folders() == before, scene.folders()
    scene.prove()


main()
