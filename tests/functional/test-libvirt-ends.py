# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: whatever ends in the middle of a backup of libvirt's domain (libvirtd, QEMU, the domain
by virsh), the backup says what happened and what to do, and the next one cleans up behind it and is
exact. No answer of libvirt's is not taken for the end of a job. A job is not hurt by what libvirt
refuses meanwhile, and a saved domain not by a backup."""
from __future__ import annotations

import os
import signal
import socket as sockets
import stat
import xml.etree.ElementTree as ElementTree

from backup import checkpoint_xml
from lab import Lab, diag, main, test, wait_until
from pull import Pull, pull_document, unix_server
from repository import check_words
from virtproxy import (DOMAIN_ABORT_JOB, DOMAIN_BACKUP_BEGIN, DOMAIN_BACKUP_GET_XML_DESC,
                       DOMAIN_CHECKPOINT_LOOKUP_BY_NAME, DOMAIN_GET_BLOCK_INFO,
                       DOMAIN_GET_JOB_STATS, Proxy)
from virtscene import Scene


@test(timeout=120)
def test_whose_socket(lab: Lab) -> None:
    """A libvirt that can take the socket of the backup is given it, another has QEMU make it; only
    QEMU's user and we can reach it, and it ends with QEMU."""
    scene = Scene(lab)
    release = tuple(map(int, lab.tool("virsh", "--version").out.strip().split(".")))
    for killed in (False, True):
        child = scene.slow()
        server = ElementTree.fromstring(scene.vm.job()).find("server")
        diag(f"libvirt {release}: {server.attrib}")
        assert server.get("transport") == ("fd" if release >= (11, 4) else "unix"), server.attrib
        [folder] = scene.folders()
        folder = os.path.join("/run", folder)
        state = os.stat(folder)
        assert stat.S_IMODE(state.st_mode) == 0o700, oct(state.st_mode)
        assert state.st_uid == scene.host.user.pw_uid
        if killed:
            scene.vm.kill()
            with sockets.socket(sockets.AF_UNIX) as client:
                assert client.connect_ex(os.path.join(folder, "nbd")) != 0
        _, err = child.communicate(timeout=60)
        assert child.returncode == (1 if killed else 0), err
        assert scene.folders() == []
    scene.prove("")


@test(timeout=240)
def test_libvirtd_killed(lab: Lab) -> None:
    """While we read: the backup says so and fails, or gets through; the guest does not notice."""
    scene = Scene(lab)
    for number in (signal.SIGKILL, signal.SIGTERM):
        child = scene.slow()
        scene.host.kill(number)
        writer_ok = scene.vm.alive()
        _, err = child.communicate(timeout=90)
        diag(f"{number.name}: exit {child.returncode}: {err.strip()}")
        assert child.returncode in (0, 1) and writer_ok, err
        if child.returncode == 1:
            check_words(err, "libvirt")
        said = lab.tidemark(*scene.arguments, rc=1)
        check_words(said.err, "libvirt")
        scene.host.start()
        assert scene.vm.state() == "running"
        scene.prove("")
        scene.prove()
    # Killed and started again while we read.
    child = scene.slow()
    scene.host.restart()
    _, err = child.communicate(timeout=90)
    diag(f"restarted: exit {child.returncode}: {err.strip()}")
    if child.returncode:
        check_words(err)
    scene.prove("")
    scene.prove()
    # Between begin and end.
    pull = Pull(lab, scene.vm)
    models = {disk.name: disk.model.snapshot() for disk in scene.vm.disks}
    pull.begin("c1")
    scene.host.restart()
    scene.vm.change(2)
    for name, model in models.items():
        pull.compare(name, model)
    lab.tidemark("status", *scene.vm.domain)
    pull.end()
    scene.prove()
    scene.repo.check_all()


@test(timeout=120)
def test_connection_lost(lab: Lab) -> None:
    """At a call that tells whether the job is there, how it ended, or ends it: it is asked again.
    As long as nothing is known nothing is tidied up."""
    scene = Scene(lab)
    proxy = Proxy(lab, scene.host)
    through = ["-c", proxy.uri, "-d", scene.vm.name]
    models = {disk.name: disk.model for disk in scene.vm.disks}
    for call in (DOMAIN_ABORT_JOB, DOMAIN_BACKUP_GET_XML_DESC, DOMAIN_GET_JOB_STATS):
        scene.vm.change(2)
        proxy.lose(call)
        point = scene.repo.backup_of(through, models, rc=0)
        assert proxy.lost == 1
        scene.vm.assert_tidy(scene.repo)
        scene.repo.check(point.expect(vda="incremental", vdb="incremental"))
    # No answer at all.
    pull = Pull(lab, scene.vm)
    scene.vm.change(2)
    models = {name: model.snapshot() for name, model in models.items()}
    pull.begin("c1")
    scene.vm.change(2)
    for call, verbs in ((DOMAIN_BACKUP_GET_XML_DESC, ("status", "end", "abort")),
                        (DOMAIN_GET_BLOCK_INFO, ("end",))):
        for verb in verbs:
            proxy.lose(call, times=1000)
            check_words(lab.tidemark(verb, *through, rc=1).err, "cannot tell")
            proxy.lose(call, times=0)
            status = lab.tidemark_json("status", *scene.vm.domain)
            assert status["state"] == "running", (verb, status)
            assert "c1" in scene.vm.checkpoints()
    for name, model in models.items():
        pull.compare(name, model)
    pull.end()
    # A checkpoint that is there is not taken for a new one, to be removed with the failed job.
    proxy.lose(DOMAIN_CHECKPOINT_LOOKUP_BY_NAME)
    lab.tidemark("begin", *through, lab.file("b.xml", pull_document(unix_server(pull.socket), [])),
                 lab.file("c.xml", checkpoint_xml("c1")), rc=1)
    assert proxy.lost == 1
    lab.tidemark("abort", *scene.vm.domain, check=False)
    assert "c1" in scene.vm.checkpoints()
    lab.tidemark("checkpoint", "delete", *scene.vm.domain, "c1")
    scene.prove()


@test(timeout=120)
def test_connection_lost_at_begin(lab: Lab) -> None:
    """A job that begins when nobody waits for it any more is ours still, and ended; where it never
    begins nothing is in the way of the next."""
    scene = Scene(lab)
    proxy, pull = Proxy(lab, scene.host), Pull(lab, scene.vm)
    document = lab.file("b.xml", pull_document(unix_server(pull.socket), []))
    for arrives in (True, False):
        if arrives:
            comes = proxy.lose_answer(DOMAIN_BACKUP_BEGIN)
        else:
            proxy.lose(DOMAIN_BACKUP_BEGIN)
        said = lab.tidemark("begin", "-c", proxy.uri, "-d", scene.vm.name, document, rc=1)
        check_words(said.err, "libvirt does not begin the job")
        assert proxy.lost == 1 and not scene.vm.job()
        if arrives:
            comes.set()
            wait_until(lambda: os.path.exists(pull.socket), 20, "the job has begun")
            assert scene.vm.job()
        scene.prove()


@test(timeout=240)
def test_qemu_killed(lab: Lab) -> None:
    """The backup says that the domain has ended; the next one, off or on, is full and exact."""
    scene = Scene(lab)
    for running in (False, True):
        child = scene.slow()
        scene.vm.kill()
        _, err = child.communicate(timeout=60)
        assert child.returncode == 1, (child.returncode, err)
        check_words(err)
        diag(err.strip())
        if running:
            scene.vm.start()
        scene.prove("full")
        if not running:
            scene.vm.start()
        scene.prove()
    scene.repo.check_all()
    # A job by begin: status says it, end and abort do not hang, the next backup works.
    pull = Pull(lab, scene.vm)
    pull.begin("c1")
    for disk in scene.vm.disks:
        scene.vm.writer(disk).flush()
    scene.vm.kill()
    lab.tidemark("status", *scene.vm.domain, check=False)
    said = lab.tidemark("end", *scene.vm.domain, check=False)
    diag(f"end: {said.rc}: {said.err.strip()}")
    pull.assert_no_files()
    scene.vm.start()
    scene.prove("full")


@test(timeout=180)
def test_ended_by_virsh(lab: Lab) -> None:
    """destroy, with and without grace; domjobabort; each in the middle of a backup."""
    scene = Scene(lab)
    for way in (["destroy"], ["destroy", "--graceful"], ["domjobabort"]):
        child = scene.slow()
        scene.vm.virsh(*way)
        _, err = child.communicate(timeout=60)
        assert child.returncode == 1, (way, child.returncode, err)
        check_words(err)
        diag(f"{' '.join(way)}: {err.strip()}")
        if not scene.vm.alive():
            scene.vm.close()
            scene.prove("")
            scene.vm.start()
        scene.prove("")
    scene.prove()
    scene.repo.check_all()


@test(timeout=180)
def test_guest_shuts_down(lab: Lab) -> None:
    """A libvirt that can keeps the domain until its backup has ended; with others the backup says
    that it has gone."""
    keeps = "--preserve-domain-on-shutdown" in lab.tool("virsh", "help", "backup-begin").out
    diag(f"libvirt keeps the domain: {keeps}")
    scene = Scene(lab, switch=True)
    vm = scene.vm
    child = scene.slow()
    scene.switch_off()
    if keeps:
        wait_until(lambda: vm.state() == "paused", 20)
    _, err = child.communicate(timeout=60)
    diag(f"exit {child.returncode}: {err.strip()}")
    assert child.returncode == (0 if keeps else 1), err
    if keeps:
        for disk in vm.disks:
            lab.compare(scene.repo.restore(f"{vm.name}/latest", disk.name), disk.model, "qcow2")
    else:
        check_words(err, "has ended", "shut off")
    vm.wait_end(20)
    assert vm.state() == "shut off"
    scene.prove("incremental" if keeps else "")
    vm.start()
    scene.prove()
    # Of a pull the exports stay, too, until it is ended.
    pull = Pull(lab, vm)
    models = {disk.name: disk.model.snapshot() for disk in vm.disks}
    pull.begin("c1")
    scene.switch_off()
    if keeps:
        wait_until(lambda: vm.state() == "paused", 20)
        for name, model in models.items():
            pull.compare(name, model)
        lab.tidemark("end", *vm.domain)
        vm.wait_end(20)
    else:
        vm.wait_end(20)
        said = lab.tidemark("end", *vm.domain, check=False)
        diag(f"end: {said.rc}: {said.err.strip()}")
    pull.assert_no_files()
    scene.prove("incremental" if keeps else "")
    scene.repo.check_all()


@test(timeout=180)
def test_not_saved_meanwhile(lab: Lab) -> None:
    """libvirt refuses to save, migrate or snapshot a domain with a job; the job stays whole."""
    scene = Scene(lab)
    vm = scene.vm
    pull = Pull(lab, vm)
    models = {disk.name: disk.model.snapshot() for disk in vm.disks}
    pull.begin("c1")
    waiting = [lab.tool_popen("virsh", "-c", vm.host.uri, command, vm.name, *more)
               for command, *more in (["save", lab.path("saved")], ["managedsave"],
                                      ["snapshot-create", "--disk-only", "--no-metadata"])]
    # libvirt lets them wait for 30 s.
    assert all(child.wait(60) for child in waiting), [child.returncode for child in waiting]
    vm.virsh("checkpoint-delete", "c1")  # of the exports, which have bitmaps of their own, no part
    vm.change(3)
    for name, model in models.items():
        pull.compare(name, model)
    pull.end()
    scene.prove()
    scene.repo.check_all()


@test(timeout=180)
def test_saved_and_started_again(lab: Lab) -> None:
    """A saved domain's disks stay what its memory takes them for, and the chain goes on."""
    scene = Scene(lab)
    vm = scene.vm
    for _ in range(2):
        vm.change(2)
        vm.close()
        vm.virsh("managedsave")
        scene.repo.check(scene.repo.backup(vm))
        for disk in vm.disks:
            lab.compare(disk.path, disk.model, disk.fmt)
        vm.virsh("start")
        vm.connect()
        scene.prove()
    scene.repo.check_all()


main()
