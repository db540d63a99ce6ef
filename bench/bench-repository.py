#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Backups into a repository and restores from it, against others that do the same, interleaved.

    bench/bench-repository.py [--size 1G] [--rounds 5] [--from /usr] [--without PEER]… [--json]

The disk is a qcow2 with an ext4 of real files, --size of them in a disk twice as large, and is read
out of a QEMU that stands still, by everybody over NBD out of the same process: by tidemark through
the pull that it begins and ends itself, by the others through a plain export. Others are qemu-img
convert (-c, zstd), nbdcopy, borg (zstd,1, fixed 1 MiB) and restic; one that is not installed, or is
named by --without, is left out.

In each round everybody makes a full backup into a new repository, those who have one a second one
of the same, then tidemark increments of 1 % of the disk's clusters at random, then everybody
restores. Others that use the machine meanwhile are counted, not kept away. Printed are medians: wall seconds, CPU seconds of the client with its children and QEMU, the
largest resident set of one process; and the medians of each round's ratios beside what is aimed at.
Everything lies in TMPDIR, by default in memory: five times --size of it. TIDEMARK names the
program, else build/tidemark.
"""
import argparse
import json
import os
import random
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))
os.environ.setdefault("TIDEMARK", os.path.join(ROOT, "build", "tidemark"))
os.environ.setdefault("TMPDIR", "/dev/shm")

from lab import Guest, Lab, size_of  # noqa: E402
import run  # noqa: E402

CHUNK = 1 << 16
MIB = 1 << 20
TICKS = os.sysconf("SC_CLK_TCK")
PEERS = ("qemu-img", "nbdcopy", "borg", "restic")


@dataclass
class Sample:
    wall: float
    cpu: float        # of the client and its children
    qemu: float       # CPU of QEMU
    rss: float        # MiB
    others: float     # how much of the machine everybody else used
    stored: int = 0   # bytes that lie in the output

    @property
    def all_cpu(self) -> float:
        return self.cpu + self.qemu


def machine_busy() -> float:
    """CPU seconds that the machine has spent on anything."""
    with open("/proc/stat", encoding="utf-8") as stat:
        ticks = [int(word) for word in stat.readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / TICKS


def bytes_in(path: str) -> int:
    """The blocks of a file, or of all in a folder."""
    if not os.path.isdir(path):
        return os.stat(path).st_blocks * 512 if os.path.exists(path) else 0
    return sum(os.stat(os.path.join(folder, name)).st_blocks * 512
               for folder, _, names in os.walk(path) for name in names)


def remove(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.unlink(path)


class Files:
    """Real files in an order that is always the same, and what is left of them as fresh content."""

    def __init__(self, folder: str) -> None:
        found = []
        for at, folders, names in os.walk(folder):
            folders.sort()
            found += [os.path.join(at, name) for name in sorted(names)]
        random.Random(1).shuffle(found)
        self._left = iter(found)

    def take(self, size: int):
        """Files of `size` bytes in all."""
        for path in self._left:
            if os.path.islink(path) or not os.path.isfile(path) or not os.access(path, os.R_OK):
                continue
            size -= os.stat(path).st_size
            yield path
            if size <= 0:
                return
        raise SystemExit("too few files: choose another --from or a smaller --size")

    def fresh(self, count: int) -> list[bytes]:
        """`count` chunks of content that the disk does not have."""
        found: list[bytes] = []
        for path in self.take(1 << 62):
            with open(path, "rb") as file:
                while len(found) < count and len(data := file.read(CHUNK)) == CHUNK:
                    if any(data):
                        found.append(data)
            if len(found) == count:
                break
        return found


class Bench:
    """The disk, its machine, and everybody's ways to save and restore it."""

    def __init__(self, lab: Lab, size: int, folder: str, without: list[str]) -> None:
        self.lab = lab
        self.files = Files(folder)
        self.rng = random.Random(2)
        self.samples: dict[str, list[Sample]] = {}
        self.peers = [peer for peer in PEERS if peer not in without]
        for peer in list(self.peers):
            if not shutil.which(peer):
                print(f"no {peer}: left out", file=sys.stderr)
                self.peers.remove(peer)
        self.socket = os.path.join(lab.sockets, "peer")
        self.uri = f"nbd+unix:///vda?socket={self.socket}"
        self.disk = self._make_disk(size)
        self.size = self.disk.model.size
        self.disk.model.data = bytearray()  # nobody asks for it
        self.vm = lab.vm([self.disk], paused=True)
        self.env = lab.env() | {
            "TMPDIR": lab.dir, "XDG_CACHE_HOME": lab.path("cache"), "RESTIC_PASSWORD": "x",
            "BORG_BASE_DIR": lab.path("borg-base"), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}

    def _make_disk(self, size: int):
        lab, tree, raw = self.lab, self.lab.path("tree"), self.lab.path("disk.raw")
        os.mkdir(tree)
        for number, path in enumerate(self.files.take(size)):
            folder = os.path.join(tree, str(number // 500))
            os.makedirs(folder, exist_ok=True)
            shutil.copyfile(path, os.path.join(folder, f"{number}-{os.path.basename(path)}"))
        lab.tool("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, raw, f"{2 * size // MIB}M",
                 timeout=600)
        shutil.rmtree(tree)
        disk = lab.disk("vda", 2 * size)
        lab.tool("qemu-img", "convert", "-O", "qcow2", raw, disk.path, timeout=600)
        os.unlink(raw)
        return disk

    # Measuring --------------------------------------------------------------------------------

    def _qemu_cpu(self) -> float:
        with open(f"/proc/{self.vm.pid}/stat", encoding="utf-8") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def measure(self, name: str, command: str, output: str = "", want: tuple[int, ...] = (0,)) -> str:
        """Runs a shell command; returns what it said."""
        log = self.lab.path("said")
        with open(log, "w+", encoding="utf-8", errors="replace") as said:
            before, busy, begun = self._qemu_cpu(), machine_busy(), time.monotonic()
            # Through time(1), which is small: what forks from Python counts as large as Python is.
            child = run.popen(["time", "-q", "-f", "%M", "-o", self.lab.path("rss"), "bash", "-c",
                               f"set -o pipefail; {command}"], stdout=said, env=self.env,
                              stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(child.pid, 0)
            wall = time.monotonic() - begun
            cpu, qemu = usage.ru_utime + usage.ru_stime, self._qemu_cpu() - before
            others = (machine_busy() - busy - cpu - qemu) / wall / (os.cpu_count() or 1)
            child.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            text = said.read()
        if child.returncode not in want:
            raise SystemExit(f"{command}\nexit {child.returncode}\n{text}")
        with open(self.lab.path("rss"), encoding="utf-8") as rss:
            kib = int(rss.read())
        self.samples.setdefault(name, []).append(
            Sample(wall, cpu, qemu, kib / 1024, max(others, 0), bytes_in(output) if output else 0))
        return text

    def tidemark(self, name: str, words: list[object], output: str = "") -> dict:
        words = [os.environ["TIDEMARK"], *words, "--json", "-q"]
        return json.loads(self.measure(name, "exec " + shlex.join(map(str, words)), output, (0, 3)))

    def export(self, on: bool) -> None:
        """The disk for those who begin no pull."""
        ask = self.vm.qmp.command
        if on:
            ask("nbd-server-start", addr={"type": "unix", "data": {"path": self.socket}})
            ask("block-export-add", type="nbd", id="peer", node_name=self.disk.node, name="vda")
        else:
            ask("block-export-del", id="peer", mode="hard")
            ask("nbd-server-stop")

    # Ours -------------------------------------------------------------------------------------

    def fulls(self) -> None:
        repo = self.lab.path("repo")
        remove(repo)
        self.lab.tidemark("init", "-r", repo)
        words = ["backup", "--qmp", self.vm.address, "-r", repo, "--mode", "full"]
        self.tidemark("full", words, repo)
        self.tidemark("second full", words)

    def incrementals(self, count: int, facts: list[dict]) -> None:
        repo = self.lab.path("repo")
        words = ["backup", "--qmp", self.vm.address, "-r", repo, "--mode", "incremental"]
        clusters = self.size // CHUNK
        for number in range(count):
            chunks = self.files.fresh(max(1, clusters // 100))
            where = self.rng.sample(range(clusters), len(chunks))
            path = self.lab.path("content")
            for chunk, data in zip(where, chunks):
                with open(path, "wb") as out:
                    out.write(data)
                said = self.vm._qemu_io(f"-d {self.vm.entry(self.disk)['qdev']}",
                                        f"write -s {path} {chunk * CHUNK} {CHUNK}")
                assert f"wrote {CHUNK}" in said, said
            before = sum(os.stat(os.path.join(at, name)).st_size
                         for at, _, names in os.walk(repo) for name in names)
            report = self.tidemark("incremental", words)
            after = sum(os.stat(os.path.join(at, name)).st_size
                        for at, _, names in os.walk(repo) for name in names)
            disk = report["disks"][0]
            shown = self.lab.tidemark_json("show", "-r", repo, report["point"])
            facts.append({"number": number, "dirty": len(chunks) * CHUNK, "read": disk["read"],
                          "nodes": shown.get("metadata", 0),
                          "beside data": after - before - disk["stored"]})
        self.lab.tidemark("checkpoint", "delete", "--qmp", self.vm.address, report["checkpoint"])

    def restores(self) -> None:
        repo = self.lab.path("repo")
        name = self.lab.tidemark_json("list", "-r", repo)["points"][-1]["domain"]
        for fmt in ("raw", "qcow2"):
            out = self.lab.path(f"out.{fmt}")
            remove(out)
            self.tidemark(f"restore {fmt}", ["restore", "-r", repo, f"{name}/latest", "--disk", "vda",
                                             "--to", out, "--verify"], out)
            if len(self.samples[f"restore {fmt}"]) == 1:
                self.lab.tool("qemu-img", "compare", "-U", "-f", "qcow2", "-F", fmt, self.disk.path, out,
                              timeout=600)
            remove(out)

    # The others -------------------------------------------------------------------------------

    def peer_fulls(self, peer: str) -> None:
        out = self.lab.path(peer)
        remove(out)
        uri = shlex.quote(self.uri)
        if peer == "borg":
            run.run(["borg", "init", "-e", "none", out], env=self.env)
        elif peer == "restic":
            remove(self.lab.path("cache"))
            run.run(["restic", "init", "-q", "--repository-version", "2", "-r", out], env=self.env)
        self.export(True)
        if peer == "qemu-img":
            self.measure("qemu-img -c", f"exec qemu-img convert -c -O qcow2 -o compression_type=zstd "
                         f"{uri} {out}", out)
        elif peer == "nbdcopy":
            self.measure("nbdcopy", f"exec nbdcopy {uri} {out}", out)
            remove(out)
        elif peer == "borg":
            for name in ("borg", "borg second"):
                self.measure(name, f"nbdcopy {uri} - | borg create --compression zstd,1 --chunker-params "
                             f"fixed,{MIB} --stdin-name vda '{out}::{name.replace(' ', '-')}' -", out)
        else:
            for name in ("restic", "restic second"):
                self.measure(name, f"nbdcopy {uri} - | restic backup -q -r {out} --stdin "
                             "--stdin-filename vda", out)
        self.export(False)

    def peer_restores(self, peer: str) -> None:
        out, saved = self.lab.path("out.raw"), self.lab.path(peer)
        remove(out)
        if peer == "qemu-img":
            self.measure("qemu-img to raw", f"exec qemu-img convert -O raw {saved} {out}", out)
            remove(out)
            self.measure("qemu-img to qcow2", f"exec qemu-img convert -O qcow2 {saved} {out}", out)
        elif peer == "borg":
            self.measure("borg extract", f"borg extract --stdout '{saved}::borg' > {out}", out)
        elif peer == "restic":
            self.measure("restic dump", f"restic dump -q -r {saved} latest /vda > {out}", out)
        remove(out)
        remove(saved)

    def round(self, increments: int, facts: list[dict]) -> None:
        self.fulls()
        for peer in self.peers:
            self.peer_fulls(peer)
        self.incrementals(increments, facts)
        self.restores()
        for peer in self.peers:
            self.peer_restores(peer)


def pauses(rounds: int) -> list[float]:
    """For how many milliseconds a running guest was held still, by one backup each."""
    lab = Lab("bench")
    try:
        vm = lab.vm([lab.disk("vda", "64M")], guest=Guest(pause_us=0))
        vm.guest.wait(100)
        repo = lab.path("repo")
        lab.tidemark("init", "-r", repo)
        return [lab.tidemark_json("backup", "--qmp", vm.address, "-r", repo)["pause_us"] / 1000
                for _ in range(rounds)]
    finally:
        lab.close()


# What is aimed at ---------------------------------------------------------------------------------

@dataclass
class Row:
    what: str
    ours: str
    theirs: str
    value: float
    goal: float
    at_least: bool
    unit: str = "x"

    @property
    def reached(self) -> bool:
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        return (f"{self.what:44} {self.ours:>10} {self.theirs:>10}  {self.value:8.2f} {sign} "
                f"{self.goal:6.2f} {self.unit:3} {'yes' if self.reached else 'NO'}")


# Ours, theirs, which figure, what is aimed at, and whether more is better (theirs / ours) or less.
RATIOS = (
    ("full vs qemu-img convert -c: wall", "full", "qemu-img -c", "wall", 1.9, True),
    ("full vs qemu-img convert -c: CPU", "full", "qemu-img -c", "all_cpu", 0.70, False),
    ("full vs qemu-img convert -c: stored MiB", "full", "qemu-img -c", "stored", 1.05, False),
    ("full vs borg: wall", "full", "borg", "wall", 2.8, True),
    ("full vs restic: wall", "full", "restic", "wall", 5.0, True),
    ("full vs nbdcopy to raw: wall", "full", "nbdcopy", "wall", 2.2, False),
    ("second full vs borg: wall", "second full", "borg second", "wall", 4.0, True),
    ("second full vs restic: wall", "second full", "restic second", "wall", 5.5, True),
    ("restore raw --verify vs qemu-img: wall", "restore raw", "qemu-img to raw", "wall", 1.2, True),
    ("restore raw --verify vs borg: wall", "restore raw", "borg extract", "wall", 3.8, True),
    ("restore raw --verify vs restic: wall", "restore raw", "restic dump", "wall", 4.4, True),
)


def median(samples: list[Sample], figure: str) -> float:
    value = statistics.median(getattr(one, figure) for one in samples)
    return value / MIB if figure == "stored" else value


def judge(samples: dict[str, list[Sample]], facts: list[dict], held: list[float],
          size: int) -> list[Row]:
    rows = []
    for what, ours, theirs, figure, goal, at_least in RATIOS:
        if theirs not in samples:
            continue
        pairs = [(getattr(a, figure), getattr(b, figure))
                 for a, b in zip(samples[ours], samples[theirs])]
        value = statistics.median(b / a if at_least else a / b for a, b in pairs)
        rows.append(Row(what, f"{median(samples[ours], figure):.2f}",
                        f"{median(samples[theirs], figure):.2f}", value, goal, at_least))
    full = median(samples["full"], "wall")
    increment = median(samples["incremental"], "wall")
    dirty = facts[0]["dirty"]
    chunks = dirty // CHUNK
    read = max((fact["read"] for fact in facts), key=lambda n: abs(n - dirty))
    rows += [
        Row("incremental, 1 % at random: bytes read / dirty", str(read), str(dirty), read / dirty, 1,
            False),
        Row("incremental: wall, 3 % of the full + 50 ms", f"{increment:.3f}", f"{full:.2f}",
            increment * 1000, full * 30 + 50, False, "ms"),
        Row("first incremental: tree nodes, B a dirty chunk", "", "",
            statistics.median(fact["nodes"] for fact in facts if fact["number"] == 0) / chunks, 64 + 2 * size / (1 << 20) / chunks,
            False, "B"),
        Row("largest resident set", "", "",
            max(one.rss for name in ("full", "second full", "incremental", "restore raw")
                for one in samples[name]), 128, False, "MiB"),
        Row("guest held still", f"{max(held):.1f} max", "", statistics.median(held), 20, False, "ms"),
    ]
    return rows


def version(*words: str) -> str:
    try:
        said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return "none"
    found = re.search(r"\d+(\.\d+)+", said)
    return found.group() if found else "?"


def machine() -> dict[str, str]:
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        model = re.search(r"model name\s*: (.*)", info.read())
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    place = subprocess.run(["stat", "-f", "-c", "%T", os.environ["TMPDIR"]], capture_output=True,
                           text=True, check=False).stdout.strip()
    return {"cpu": f"{os.cpu_count()} x {model.group(1) if model else '?'}", "ram": f"{gib:.0f} GiB",
            "kernel": os.uname().release, "images on": place,
            "load before": f"{os.getloadavg()[0]:.1f}",
            "tidemark": version(os.environ["TIDEMARK"], "--version"),
            "qemu": version("qemu-system-x86_64", "--version"),
            "nbdcopy": version("nbdcopy", "--version"), "borg": version("borg", "--version"),
            "restic": version("restic", "version")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="1G", help="of the files (1G)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--increments", type=int, default=2, help="in a round (2)")
    parser.add_argument("--from", dest="folder", default="/usr", help="where the files are (/usr)")
    parser.add_argument("--without", action="append", default=[], choices=PEERS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    for needed in ("time", "mke2fs", "qemu-img"):
        if not shutil.which(needed):
            sys.exit(f"no {needed}: scripts/setup --bench installs it")
    about, facts, lab = machine(), [], Lab("bench")
    try:
        bench = Bench(lab, size_of(args.size), args.folder, args.without)
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
            bench.round(args.increments, facts)
    finally:
        lab.close()
    held = pauses(7)
    rows = judge(bench.samples, facts, held, bench.size)
    if args.json:
        print(json.dumps({"machine": about, "size": bench.size, "rows": [vars(row) | {
            "reached": row.reached} for row in rows], "facts": facts, "held ms": held,
            "samples": {name: [vars(one) for one in all_of] for name, all_of in
                        bench.samples.items()}}, indent=1))
        return
    print("; ".join(f"{key} {value}" for key, value in about.items()))
    print(f"disk of {bench.size >> 20} MiB with {args.size} of files, {args.rounds} rounds\n")
    print(f"{'':20} {'wall min / median / max':>24} {'CPU client':>10} {'QEMU':>6} {'RSS MiB':>8} "
          f"{'stored MiB':>10} {'others':>7}")
    for name, all_of in bench.samples.items():
        walls = [one.wall for one in all_of]
        print(f"{name:20} {min(walls):8.2f} {statistics.median(walls):7.2f} {max(walls):7.2f} "
              f"{median(all_of, 'cpu'):10.2f} {median(all_of, 'qemu'):6.2f} {median(all_of, 'rss'):8.0f} "
              f"{median(all_of, 'stored'):10.0f} {median(all_of, 'others'):7.0%}")
    print(f"\n{'':46} {'tidemark':>10} {'other':>10}  {'ratio':>8}    {'aim':>6}     reached")
    for row in rows:
        print(row)
    beside = statistics.median(fact["beside data"] for fact in facts) / (facts[0]["dirty"] // CHUNK)
    print(f"all that an incremental adds beside data (nodes, tables, index, manifest): {beside:.0f} "
          "bytes a dirty chunk")


main()
