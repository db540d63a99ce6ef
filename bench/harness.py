# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the benchmarks share that compare programs with each other: a disk of real files, commands
whose cost is measured, and ratios beside what is aimed at.

Import it before the lab's modules: it sets where those are found, and TIDEMARK and TMPDIR where the
environment does not.
"""
import argparse
import json
import os
import random
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))
os.environ.setdefault("TIDEMARK", os.path.join(ROOT, "build", "tidemark"))
os.environ.setdefault("TMPDIR", "/dev/shm")

from lab import Disk, Lab  # noqa: E402
import run  # noqa: E402

CHUNK = 1 << 16
MIB = 1 << 20
TICKS = os.sysconf("SC_CLK_TCK")
LEFT_BEHIND_S = 30  # by when what a command leaves running has to end

# The lab is closed then too: gigabytes lie in memory.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def remove(path: str) -> None:
    """A file or a folder, if it is there."""
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.unlink(path)


def touch_memory(folder: str, size: int) -> None:
    """Writes `size` bytes and removes them: the first touch of a page that the (virtual) machine
    never used, or has given back since, takes several times as long as any later one."""
    size = min(size, shutil.disk_usage(folder).free - 64 * MIB)
    path, block = os.path.join(folder, "touched"), b"\xa5" * MIB
    try:
        with open(path, "wb", buffering=0) as file:
            for _ in range(max(size, 0) // MIB):
                file.write(block)
    finally:
        os.unlink(path)


# The disk ------------------------------------------------------------------------------------------

class Files:
    """Real files in an order that is always the same, and what is left of them as fresh content."""

    def __init__(self, folder: str) -> None:
        found = []
        for at, folders, names in os.walk(folder):
            folders.sort()
            found += [os.path.join(at, name) for name in sorted(names)]
        random.Random(1).shuffle(found)
        self._left = iter(found)

    def take(self, size: int) -> Iterator[str]:
        """Files of `size` bytes in all, and hardly more: none is larger than a quarter of that."""
        largest = size // 4
        for path in self._left:
            if os.path.islink(path) or not os.path.isfile(path) or not os.access(path, os.R_OK):
                continue
            if os.stat(path).st_size > largest:
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


def make_disk(lab: Lab, files: Files, size: int) -> Disk:
    """A qcow2 twice as large as `size`, with an ext4 of that much of files."""
    tree, raw = lab.path("tree"), lab.path("disk.raw")
    os.mkdir(tree)
    for number, path in enumerate(files.take(size)):
        folder = os.path.join(tree, str(number // 500))
        os.makedirs(folder, exist_ok=True)
        shutil.copyfile(path, os.path.join(folder, f"{number}-{os.path.basename(path)}"))
    lab.tool("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, raw, f"{2 * size // MIB}M", timeout=600)
    shutil.rmtree(tree)
    disk = lab.disk("vda", 2 * size)
    disk.model.data = bytearray()  # nobody asks for it
    lab.tool("qemu-img", "convert", "-O", "qcow2", raw, disk.path, timeout=600)
    os.unlink(raw)
    return disk


class Change:
    """1 % of a disk's chunks at random places, with fresh content, to be written to each copy."""

    def __init__(self, lab: Lab, files: Files, rng: random.Random, size: int) -> None:
        chunks = files.fresh(max(1, size // CHUNK // 100))
        self.bytes = len(chunks) * CHUNK
        self._folder = lab.path("content")
        self._places = rng.sample(range(size // CHUNK), len(chunks))
        remove(self._folder)
        os.mkdir(self._folder)
        for number, data in enumerate(chunks):
            with open(os.path.join(self._folder, str(number)), "wb") as out:
                out.write(data)

    def _commands(self) -> list[str]:
        return [f"write -s {self._folder}/{number} {place * CHUNK} {CHUNK}"
                for number, place in enumerate(self._places)]

    def write(self, vm, disk: Disk) -> None:
        """To a disk of a machine that runs or is paused."""
        device = vm.entry(disk)["qdev"]
        for command in self._commands():
            said = vm._qemu_io(f"-d {device}", command)
            assert f"wrote {CHUNK}" in said, said
        vm._qemu_io(f"-d {device}", "flush")

    def write_off(self, lab: Lab, disk: Disk) -> None:
        """To an image that no QEMU uses."""
        words = [word for command in self._commands() for word in ("-c", command)]
        said = lab.tool("qemu-io", "-f", disk.fmt, *words, disk.path, timeout=600).out
        assert said.count(f"wrote {CHUNK}/") == len(self._places), said


# Measuring -----------------------------------------------------------------------------------------

@dataclass
class Sample:
    wall: float
    cpu: float        # of the client and its children
    qemu: float       # CPU of QEMU and of other servers
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


def _stat(pid: int | str) -> list[str]:
    """The fields of /proc/PID/stat behind the name; none if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _offspring() -> set[int]:
    """Our children, dead ones too."""
    return {int(name) for name in os.listdir("/proc")
            if name.isdigit() and _stat(name)[1:2] == [str(os.getpid())]}


def _wait_left_behind(known: set[int]) -> float:
    """Waits for what a command has left running, which became ours; returns its CPU seconds."""
    cpu, limit = 0.0, time.monotonic() + LEFT_BEHIND_S
    while left := _offspring() - known:
        for pid in left:
            found, _, usage = os.wait4(pid, os.WNOHANG)
            if found:
                cpu += usage.ru_utime + usage.ru_stime
        if time.monotonic() > limit:
            raise SystemExit(f"still running: {[run.children().get(pid) for pid in left]}")
        time.sleep(0.002)
    return cpu


class Meter:
    """Runs commands and keeps what each cost. `servers` tells the processes that work for them."""

    def __init__(self, lab: Lab, env: dict[str, str], servers: Callable[[], list[int]]) -> None:
        self.lab, self.env, self._servers = lab, env, servers
        self.samples: dict[str, list[Sample]] = {}
        self.room = 0  # bytes of memory that are touched before each command

    def _servers_cpu(self) -> float:
        stats = [_stat(pid) for pid in self._servers()]
        return sum(int(fields[11]) + int(fields[12]) for fields in stats) / TICKS

    def measure(self, name: str, command: str, output: str = "", want: tuple[int, ...] = (0,)) -> str:
        """Runs a shell command; returns what it said. A server that it started and that ends by
        itself behind it counts as CPU, not as time."""
        touch_memory(self.lab.dir, self.room)
        log = self.lab.path("said")
        known = _offspring()
        with open(log, "w+", encoding="utf-8", errors="replace") as said:
            before, busy, begun = self._servers_cpu(), machine_busy(), time.monotonic()
            # Through time(1), which is small: what forks from Python counts as large as Python is.
            child = run.popen(["time", "-q", "-f", "%M", "-o", self.lab.path("rss"), "bash", "-c",
                               f"set -o pipefail; {command}"], stdout=said, env=self.env,
                              stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(child.pid, 0)
            wall = time.monotonic() - begun
            left = _wait_left_behind(known)
            took = time.monotonic() - begun
            cpu, qemu = usage.ru_utime + usage.ru_stime, self._servers_cpu() - before + left
            others = (machine_busy() - busy - cpu - qemu) / took / (os.cpu_count() or 1)
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


def median(samples: list[Sample], figure: str) -> float:
    value = statistics.median(getattr(one, figure) for one in samples)
    return value / MIB if figure == "stored" else value


# What is aimed at ----------------------------------------------------------------------------------

@dataclass
class Ratio:
    """Of two commands' figures: theirs / ours must reach `goal`, or ours / theirs stay below it.
    Without one it is only shown."""
    what: str
    ours: str
    theirs: str
    figure: str
    goal: float | None
    at_least: bool


@dataclass
class Row:
    what: str
    ours: str
    theirs: str
    value: float
    goal: float | None
    at_least: bool
    unit: str = "x"

    @property
    def reached(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    def __str__(self) -> str:
        begin = f"{self.what:44} {self.ours:>10} {self.theirs:>10}  {self.value:8.2f}"
        if self.goal is None:
            return f"{begin} {'':9} {self.unit:3}".rstrip()
        sign = ">=" if self.at_least else "<="
        return f"{begin} {sign} {self.goal:6.2f} {self.unit:3} {'yes' if self.reached else 'NO'}"


def compare(ratios: tuple[Ratio, ...], samples: dict[str, list[Sample]]) -> list[Row]:
    """A row for each ratio whose commands were run: the median of those of all rounds."""
    rows = []
    for one in ratios:
        if one.ours not in samples or one.theirs not in samples:
            continue
        pairs = [(getattr(a, one.figure), getattr(b, one.figure))
                 for a, b in zip(samples[one.ours], samples[one.theirs])]
        value = statistics.median(b / a if one.at_least else a / b for a, b in pairs)
        rows.append(Row(one.what, f"{median(samples[one.ours], one.figure):.2f}",
                        f"{median(samples[one.theirs], one.figure):.2f}", value, one.goal,
                        one.at_least))
    return rows


# Telling -------------------------------------------------------------------------------------------

def version(*words: str) -> str:
    try:
        said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return "none"
    found = re.search(r"\d+(\.\d+)+", said)
    return found.group() if found else "?"


def machine(**programs: list[str]) -> dict[str, str]:
    """What the machine is; the versions of tidemark, QEMU and these programs, each a command."""
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
            **{name: version(*words) for name, words in programs.items()}}


def parser(doc: str, rounds: int) -> argparse.ArgumentParser:
    """The options that all have."""
    made = argparse.ArgumentParser(description=doc.splitlines()[0])
    made.add_argument("--size", default="1G", help="of the files (1G)")
    made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument("--increments", type=int, default=2, help="in a round (2)")
    made.add_argument("--from", dest="folder", default="/usr", help="where the files are (/usr)")
    made.add_argument("--json", action="store_true")
    return made


def need(*programs: str) -> None:
    for program in programs:
        if not shutil.which(program):
            sys.exit(f"no {program}: scripts/setup --bench installs it")


def tell_json(about: dict, size: int, rows: list[Row], samples: dict[str, list[Sample]],
              **more: object) -> None:
    print(json.dumps({"machine": about, "size": size,
                      "rows": [vars(row) | {"reached": row.reached} for row in rows], **more,
                      "samples": {name: [vars(one) for one in all_of]
                                  for name, all_of in samples.items()}}, indent=1))


def tell(about: dict, what: str, rows: list[Row], samples: dict[str, list[Sample]]) -> None:
    print("; ".join(f"{key} {value}" for key, value in about.items()))
    print(f"{what}\n")
    print(f"{'':20} {'wall min / median / max':>24} {'CPU client':>10} {'QEMU':>6} {'RSS MiB':>8} "
          f"{'stored MiB':>10} {'others':>7}")
    for name, all_of in samples.items():
        walls = [one.wall for one in all_of]
        print(f"{name:20} {min(walls):8.2f} {statistics.median(walls):7.2f} {max(walls):7.2f} "
              f"{median(all_of, 'cpu'):10.2f} {median(all_of, 'qemu'):6.2f} {median(all_of, 'rss'):8.0f} "
              f"{median(all_of, 'stored'):10.0f} {median(all_of, 'others'):7.0%}")
    print(f"\n{'':46} {'tidemark':>10} {'other':>10}  {'ratio':>8}    {'aim':>6}     reached")
    for row in rows:
        print(row)
