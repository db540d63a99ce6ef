#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: what else goes on with a machine costs neither the guest's data nor its time: a pull is
refused while somebody's job would miss the guest's writes, a QEMU that storage held up lets its
guest go on, and a snapshot taken during a pull can be got rid of."""
from __future__ import annotations

import json
import os
import signal

import run
from backup import backup_xml
from lab import Lab, Vm, main, test, wait_until
from pull import Pull
from repository import Repository, check_words

M = 1 << 20


def add_image(lab: Lab, vm: Vm, name: str, size: str, **options: object) -> str:
    """A new image that QEMU has open as node `name`."""
    path = lab.create(lab.path(f"{name}.qcow2"), size)
    vm.qmp.command("blockdev-add", {"driver": "qcow2", "node-name": name,
                                    "file": {"driver": "file", "filename": path}, **options})
    return path


@test
def test_a_mirror_loses_nothing(lab: Lab) -> None:
    """QEMU does not say that a disk is on the mirror's filter: a pull would put the disk past it."""
    repo = Repository(lab)
    for mode in ("background", "write-blocking"):
        vm = lab.vm([lab.disk("vda", "16M"), lab.disk("vdb", "1M")])
        vm.writer(vm["vda"]).write_random(0, 2 * M, lab.rng)
        before = vm.inventory()
        copy = add_image(lab, vm, "copy", "16M")
        vm.qmp.command("blockdev-mirror", {"job-id": "move", "device": vm["vda"].node,
                                           "target": "copy", "sync": "full", "copy-mode": mode})
        vm.qmp.wait_event("BLOCK_JOB_READY")
        check_words(Pull(lab, vm).begin("c1", rc=1).err, "'move'", "mirror", "hint:")
        said = lab.tidemark("backup", *vm.domain, "-r", repo.path, rc=1)
        check_words(said.err, "'move'", "mirror", "hint:")
        vm.assert_clean()
        vm.writer(vm["vda"]).write_random(M, 2 * M, lab.rng)
        vm.qmp.command("block-job-complete", device="move")
        vm.qmp.wait_event("BLOCK_JOB_COMPLETED")
        vm.writer(vm["vda"]).write_random(4 * M, 2 * M, lab.rng)
        lab.compare(copy, vm["vda"].model, shared=True)
        repo.check(repo.backup(vm))
        assert vm.inventory() != before
        vm.kill()


@test(timeout=200)
def test_a_guest_that_is_stopped_late(lab: Lab) -> None:
    """QEMU flushes all disks when it stops the guest: storage that hangs holds it up, for longer
    than a reply is waited for."""
    remote = lab.create(lab.path("remote.raw"), "4M", "raw")
    socket = os.path.join(lab.sockets, "remote")
    server = lab.tool_popen("qemu-nbd", "--persistent", "-f", "raw", "-k", socket, remote)
    wait_until(lambda: os.path.exists(socket))
    vm = lab.vm([lab.disk("vda", "4M")], extra=[
        "-blockdev", json.dumps({"driver": "nbd", "node-name": "remote",
                                 "server": {"type": "unix", "path": socket}}),
        "-device", "virtio-blk-pci,id=vdn,drive=remote"])
    vm.qmp.command("human-monitor-command", {"command-line": "qemu-io -d "
                                             "/machine/peripheral/vdn/virtio-backend \"write 0 4k\""})
    run.stop(server.pid)
    document = lab.file("pull.xml", f"""<domainbackup mode='pull'>
        <server transport='unix' socket='{lab.sockets}/nbd'/><disks><disk name='vda'/>
        <disk name='vdn' backup='no'/></disks></domainbackup>""")
    said = lab.tidemark("begin", *vm.domain, document, rc=1)
    server.send_signal(signal.SIGCONT)
    check_words(said.err, "hold the guest still", "'stop'")
    wait_until(lambda: vm.status() == "running", 20)
    lab.tidemark("abort", *vm.domain)
    vm.assert_clean()
    assert vm.status() == "running"


@test
def test_a_snapshot_over_the_filter(lab: Lab) -> None:
    """QEMU lets a snapshot be taken of the node that it shows for the disk. The filter stays under
    it until the snapshot is committed; meanwhile the guest goes on, and it is said what to do."""
    vm = lab.vm([lab.disk("vda", "16M")])
    vda = vm["vda"]
    vm.writer(vda).write_random(0, 2 * M, lab.rng)
    pull = Pull(lab, vm)
    pull.begin("c1")
    shown = vm.node(vda)
    add_image(lab, vm, "over", "16M", backing=None)
    vm.qmp.command("blockdev-snapshot", node=shown, overlay="over")
    for verb in ("end", "abort"):
        said = lab.tidemark(verb, *vm.domain, rc=1)
        check_words(said.err, shown, "snapshot", "block-commit")
    vm.writer(vda).write_random(M, 2 * M, lab.rng)
    vm.qmp.command("block-commit", {"job-id": "back", "device": "over", "base-node": shown})
    vm.qmp.wait_event("BLOCK_JOB_READY")
    vm.qmp.command("block-job-complete", device="back")
    vm.qmp.wait_event("BLOCK_JOB_COMPLETED")
    vm.qmp.command("blockdev-del", {"node-name": "over"})
    lab.tidemark("end", *vm.domain, check=False)
    vm.assert_clean()
    lab.compare(vda.path, vda.model, shared=True)
    assert lab.tidemark_json("status", *vm.domain)["state"] != "running"


main()
