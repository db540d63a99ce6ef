#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A push by tidemark against the same blockdev-backup issued by hand, in one run, interleaved.

    bench/bench-push.py [--size 2G] [--rounds 7]

Prints the median seconds of each and their ratio (by hand / tidemark: 1.00 is no loss; aim 0.98),
for a full push of one disk, and how long a running guest stood still at the instant of a push of
1, 4 and 16 disks (aim 20 ms). TIDEMARK names the program, else build/tidemark. Images lie in
TMPDIR, by default in memory.
"""
import argparse
import os
import statistics
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))
os.environ.setdefault("TIDEMARK", os.path.join(ROOT, "build", "tidemark"))
os.environ.setdefault("TMPDIR", "/dev/shm")

from backup import Series, backup_xml, checkpoint_xml, disk_xml  # noqa: E402
from lab import Guest, Lab, size_of  # noqa: E402


def by_hand(lab: Lab, vm, name: str, target: str) -> float:
    """What tidemark has QEMU do, as bare as can be: the same image, job and wait."""
    size = vm[name].model.size
    begun = time.monotonic()
    open(target, "xb").close()
    vm.qmp.command("blockdev-add", driver="file", node_name="hand-f", filename=target)
    vm.qmp.command("blockdev-create", job_id="hand-c",
                   options={"driver": "qcow2", "file": "hand-f", "size": size})
    vm.qmp.wait_job("hand-c")
    vm.qmp.command("job-dismiss", id="hand-c")
    vm.qmp.command("blockdev-add", driver="qcow2", node_name="hand", file="hand-f", backing=None)
    vm.qmp.command("blockdev-backup", job_id="hand-j", device=vm[name].node, target="hand",
                   sync="full", auto_dismiss=False)
    vm.qmp.wait_job("hand-j")
    vm.qmp.command("job-dismiss", id="hand-j")
    vm.qmp.command("blockdev-del", node_name="hand")
    vm.qmp.command("blockdev-del", node_name="hand-f")
    return time.monotonic() - begun


def by_tidemark(lab: Lab, vm, name: str, target: str) -> float:
    document = lab.file("bench.xml", backup_xml([disk_xml(name, target)]))
    begun = time.monotonic()
    lab.tidemark("begin", "--qmp", vm.address, "--no-guard", document)
    lab.tidemark("wait", "-q", "--qmp", vm.address)
    return time.monotonic() - begun


def throughput(size: str, rounds: int) -> None:
    lab = Lab("bench")
    try:
        disk = lab.disk("vda", size)
        for start in range(0, disk.model.size, 64 << 20):
            lab.tool("qemu-io", "-f", "qcow2", "-c", f"write -P {start >> 26 & 127 | 1} {start} 64M",
                     disk.path)
        vm = lab.vm([disk])
        times = {by_hand: [], by_tidemark: []}
        for number in range(rounds + 1):
            for way, taken in times.items():
                target = lab.path("target.qcow2")
                seconds = way(lab, vm, "vda", target)
                os.unlink(target)
                if number:  # the first round warms up
                    taken.append(seconds)
        hand, ours = (statistics.median(taken) for taken in times.values())
        mib = size_of(size) / (1 << 20)
        print(f"full push of {size}: by hand {hand:.3f} s ({mib / hand:.0f} MiB/s), tidemark "
              f"{ours:.3f} s ({mib / ours:.0f} MiB/s), ratio {hand / ours:.3f} (aim 0.98)")
    finally:
        lab.close()


def pause(disks: int, rounds: int) -> None:
    lab = Lab("bench")
    try:
        names = [f"vd{chr(97 + n)}" for n in range(disks)]
        vm = lab.vm([lab.disk(name, "64M") for name in names], guest=Guest(pause_us=0))
        vm.guest.wait(100)
        series, held, begins = Series(vm), [], []
        since: dict[str, str] = {}
        for number in range(rounds):
            vm.guest.wait(20)
            begun = time.monotonic()
            series.begin(f"c{number}", since, "--no-guard")
            begins.append((time.monotonic() - begun) * 1000)
            lab.tidemark("wait", "-q", "--qmp", vm.address)
            status = lab.tidemark_json("status", "--qmp", vm.address)
            held.append(status["pause_us"] / 1000)
            since = {name: f"c{number}" for name in names}
        print(f"{disks:2} disks: guest held still {statistics.median(held):.1f} ms, at most "
              f"{max(held):.1f} ms (aim 20); begin as a command {statistics.median(begins):.0f} ms")
    finally:
        lab.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="2G")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    throughput(args.size, args.rounds)
    for disks in (1, 4, 16):
        pause(disks, args.rounds)


main()
