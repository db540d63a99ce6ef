#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compares bench-nbd with nbdcopy to null:, taking turns on one export, and times a dirty map.

Usage: bench-nbd.py BENCH-NBD [ROUNDS [FOLDER]]

The disk is a qcow2 of 2.3 GiB in FOLDER, /dev/shm by default, served by qemu-nbd and by
qemu-storage-daemon. The map is that of a bitmap with every other 64 KiB dirty, 220,000 extents.
Only numbers of an otherwise idle machine mean anything; the load is printed for that.
"""
import os
import statistics
import subprocess
import sys
import tempfile
import time


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def make_disk(path):
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "4G")
    run("qemu-io", "-f", "qcow2", path,
        *sum((["-c", f"write -q -P {i + 1} {i * 512}M 295M"] for i in range(8)), []))


def make_map(path, extents=220_000):
    run("qemu-img", "create", "-q", "-f", "qcow2", path, f"{extents * 64}k")
    run("qemu-img", "bitmap", "--add", "-f", "qcow2", path, "b")
    commands = "".join(f"write -q -z {i * 64}k 64k\n" for i in range(0, extents, 2))
    subprocess.run(["qemu-io", "-f", "qcow2", path], input=commands, text=True, check=True,
                   stdout=subprocess.DEVNULL)


class Server:
    def __init__(self, command, socket):
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self.uri = f"nbd+unix:///disk?socket={socket}"
        for _ in range(200):
            if subprocess.run(["nbdinfo", "--size", self.uri], capture_output=True).returncode == 0:
                return
            time.sleep(0.05)
        raise SystemExit(f"{command[0]} does not serve")

    def __enter__(self):
        return self.uri

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def qemu_nbd(disk, socket, *options):
    return Server(["qemu-nbd", "-r", "-t", "-e", "16", "-f", "qcow2", "-x", "disk", "-k", socket,
                   *options, disk], socket)


def storage_daemon(disk, socket):
    return Server(["qemu-storage-daemon",
                   "--blockdev", f"driver=file,node-name=file,filename={disk},read-only=on",
                   "--blockdev", "driver=qcow2,node-name=disk,file=file,read-only=on",
                   "--nbd-server", f"addr.type=unix,addr.path={socket},max-connections=16",
                   "--export", "type=nbd,id=e,node-name=disk,name=disk"], socket)


def compare(name, uri, bench, rounds):
    ours, theirs = [], []
    for i in range(rounds + 1):
        seconds, read, _ = run(bench, "read", uri).split()
        begin = time.monotonic()
        run("nbdcopy", uri, "null:")
        if i > 0:  # the first warms up
            theirs.append(int(read) / (time.monotonic() - begin) / 2**30)
            ours.append(int(read) / float(seconds) / 2**30)
    ours, theirs = statistics.median(ours), statistics.median(theirs)
    print(f"{name}: {ours:.2f} GiB/s, nbdcopy {theirs:.2f} GiB/s: {ours / theirs:.2f}x")


def main():
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    bench = sys.argv[1]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    base = sys.argv[3] if len(sys.argv) > 3 else "/dev/shm"
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory(dir=base, prefix="tmk-bench-") as folder:
        disk, many, socket = (os.path.join(folder, n) for n in ("disk", "map", "nbd"))
        make_disk(disk)
        with qemu_nbd(disk, socket) as uri:
            compare("qemu-nbd", uri, bench, rounds)
        os.unlink(socket) if os.path.exists(socket) else None
        with storage_daemon(disk, socket) as uri:
            compare("qemu-storage-daemon", uri, bench, rounds)
        os.unlink(socket) if os.path.exists(socket) else None
        make_map(many)
        with qemu_nbd(many, socket, "-B", "b") as uri:
            context = "qemu:dirty-bitmap:b"
            results = [run(bench, "map", uri, context).split() for _ in range(rounds)]
            seconds = statistics.median(float(r[0]) for r in results)
            begin = time.monotonic()
            run("nbdinfo", f"--map={context}", uri)
            print(f"map of {results[0][1]} extents: {seconds:.3f} s, "
                  f"nbdinfo --map {time.monotonic() - begin:.3f} s")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
