#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a pull costs: its begin and end, the pause of the guest, and the guest's writes meanwhile.

    bench/bench-pull.py [--rounds 7] [--seconds 6]

Prints, in one run: begin and end of an idle machine's pull as commands (aim 150 ms together); how
long the guest was held still for 1, 4 and 16 disks (aim 20 ms); and the time of each 4 KiB write of a
guest that writes at random places, without a backup, while a pull of ours is read by nbdcopy, and
while one is made as libvirt does it (blockdev-backup sync=none into a scratch that is exported).
TIDEMARK names the program, else build/tidemark. Images lie in TMPDIR, by default in memory.
"""
import argparse
import os
import statistics
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))
os.environ.setdefault("TIDEMARK", os.path.join(ROOT, "build", "tidemark"))
os.environ.setdefault("TMPDIR", "/dev/shm")

from lab import Guest, Lab  # noqa: E402


def document(lab: Lab, vm, socket: str) -> str:
    disks = "".join(f"<disk name='{disk.name}' type='file'><scratch file='{lab.path(disk.name)}.s'/>"
                    "</disk>" for disk in vm.disks)
    return lab.file("pull.xml", f"<domainbackup mode='pull'><server transport='unix' "
                                f"socket='{socket}'/><disks>{disks}</disks></domainbackup>")


def timed(call) -> float:
    begun = time.monotonic()
    call()
    return (time.monotonic() - begun) * 1000


def begin_and_end(disks: int, rounds: int) -> None:
    lab = Lab("bench")
    try:
        vm = lab.vm([lab.disk(f"vd{chr(97 + n)}", "64M") for n in range(disks)],
                    guest=Guest(pause_us=0))
        vm.guest.wait(50)
        xml = document(lab, vm, os.path.join(lab.sockets, "nbd"))
        begins, ends, held = [], [], []
        for _ in range(rounds):
            begins.append(timed(lambda: lab.tidemark("begin", "--no-guard", "--qmp", vm.address, xml)))
            held.append(lab.tidemark_json("status", "--qmp", vm.address)["pause_us"] / 1000)
            ends.append(timed(lambda: lab.tidemark("end", "--qmp", vm.address)))
        print(f"{disks:2} disks: begin {statistics.median(begins):.0f} ms, end "
              f"{statistics.median(ends):.0f} ms, together "
              f"{statistics.median(map(sum, zip(begins, ends))):.0f} ms (aim 150 idle); guest held "
              f"{statistics.median(held):.1f} ms, at most {max(held):.1f} ms (aim 20)")
    finally:
        lab.close()


class Latency:
    """Times between the completions of guest writes, from the serial port through a pipe."""

    def __init__(self, path: str) -> None:
        self.times: list[float] = []
        self._pipe = os.open(path, os.O_RDWR)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            said = os.read(self._pipe, 4096)
            self.times.extend([time.monotonic()] * said.count(b"a"))

    def between(self, begun: float, ended: float) -> str:
        stamps = [at for at in self.times if begun <= at <= ended]
        gaps = sorted((b - a) * 1000 for a, b in zip(stamps, stamps[1:]))
        if len(gaps) < 10:
            return "too few writes"
        return (f"{len(gaps):6} writes, p50 {gaps[len(gaps) // 2]:.2f} ms, "
                f"p99 {gaps[len(gaps) * 99 // 100]:.2f} ms, max {gaps[-1]:.1f} ms")


def latency(seconds: float) -> None:
    lab = Lab("bench")
    try:
        disk = lab.disk("vda", "1G")
        for start in range(0, disk.model.size, 64 << 20):
            lab.tool("qemu-io", "-f", "qcow2", "-c", f"write -P 0x5a {start} 64M", disk.path)
        serial = lab.path("vm0-1.serial")
        os.mkfifo(serial)
        clock = Latency(serial)
        accel = "kvm" if lab.kvm() else "tcg"
        vm = lab.vm([disk], guest=Guest(pause_us=0, slots=16384, spacing=65536), accel=accel)
        deadline = time.monotonic() + 60
        while len(clock.times) < 100 and time.monotonic() < deadline:
            time.sleep(0.05)
        socket = os.path.join(lab.sockets, "nbd")
        xml = document(lab, vm, socket)

        def read_for(how: str) -> None:
            begun = time.monotonic()
            while time.monotonic() - begun < seconds:
                subprocess.run(["nbdcopy", f"nbd+unix:///vda?socket={socket}", "null:"], check=True)
            print(f"{how:28} {clock.between(begun, time.monotonic())}")

        begun = time.monotonic()
        time.sleep(seconds)
        print(f"{'no backup (' + accel + ')':28} {clock.between(begun, time.monotonic())}")
        lab.tidemark("begin", "--no-guard", "--qmp", vm.address, xml)
        read_for("pull by tidemark")
        lab.tidemark("end", "--qmp", vm.address)
        ask = vm.qmp.command
        scratch = lab.create(lab.path("hand.qcow2"), "1G")
        ask("blockdev-add", {"driver": "qcow2", "node-name": "hand", "backing": disk.node,
                             "file": {"driver": "file", "filename": scratch}})
        ask("blockdev-backup", job_id="hand", device=disk.node, target="hand", sync="none",
            auto_dismiss=False)
        ask("nbd-server-start", addr={"type": "unix", "data": {"path": socket}})
        ask("block-export-add", type="nbd", id="hand", node_name="hand", name="vda")
        read_for("pull by blockdev-backup")
    finally:
        lab.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=6)
    args = parser.parse_args()
    for disks in (1, 4, 16):
        begin_and_end(disks, args.rounds)
    latency(args.seconds)


main()
