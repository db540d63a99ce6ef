# SPDX-License-Identifier: LGPL-2.1-or-later
"""The test lab: a folder, tools, disks and machines for one test, and their end.

    from lab import Guest, Lab, Skip, main, test

    @test
    def test_something(lab: Lab) -> None:
        disk = lab.disk("vda", "64M")
        vm = lab.vm([disk], guest=Guest())
        lab.tidemark("begin", "--qmp", vm.address, lab.file("backup.xml", "<domainbackup/>"))
        vm.assert_clean()

    main()

Environment: TIDEMARK is the program under test. QEMU_ROOT is the root folder of another QEMU, as
unpacked from packages: its programs then run under its own loader and libraries, for the lab and,
through PATH, for the program under test. TMK_TEST_ACCEL=kvm runs machines with KVM; without it they
use TCG, which is everywhere, boots the guest in 0.2 s (a nested KVM: 6 s) and writes no slower.
"""
from __future__ import annotations

import functools
import glob
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable

import run
from guest import Cut, CutError, Guest
from model import Model, Writer
from qmp import Qmp, QmpError, action, bitmap_add
from run import Result, ToolError, wait_until
from tap import Skip, diag, main, soak, test
from vm import Disk, Vm

__all__ = ["Cut", "CutError", "Disk", "Guest", "Lab", "Model", "Qmp", "QmpError", "Result", "Skip",
           "ToolError", "Vm", "Writer", "action", "bitmap_add", "diag", "main", "size_of", "soak",
           "test", "wait_until"]

QEMU_PROGRAMS = ("qemu-system-x86_64", "qemu-img", "qemu-io", "qemu-nbd", "qemu-storage-daemon")


def size_of(text: str | int) -> int:
    """Bytes of '64M' and the like."""
    if isinstance(text, int):
        return text
    number, unit = re.fullmatch(r"(\d+)([KMGT]?)", text).groups()
    return int(number) << 10 * " KMGT".index(unit or " ")


@functools.cache
def _other_qemu(root: str) -> dict[str, list[str]]:
    """How to run each program of QEMU_ROOT: its loader with its libraries, then the program."""
    loaders = [path for where in ("usr/lib64", "lib64", "usr/lib/*-linux-gnu", "lib/*-linux-gnu")
               for path in glob.glob(f"{root}/{where}/ld-linux-x86-64.so.2")]
    assert loaders, f"QEMU_ROOT={root}: no loader"
    libraries = ":".join(path for where in ("usr/lib", "lib")
                         for path in glob.glob(f"{root}/{where}/x86_64-linux-gnu"))
    return {name: [loaders[0], "--library-path", libraries, f"{root}/usr/bin/{name}"]
            for name in QEMU_PROGRAMS}


class Lab:
    """What one test works with. `dir` is its folder, `sockets` one whose path is short."""

    def __init__(self, name: str = "lab") -> None:
        self.name = name
        self.dir = tempfile.mkdtemp(prefix="tmk-")
        self.sockets = self.dir if len(self.dir) < 60 else tempfile.mkdtemp(prefix="tmk-",
                                                                            dir="/tmp")
        self.root = os.path.abspath(os.environ["QEMU_ROOT"]) if os.environ.get("QEMU_ROOT") else ""
        self.state = self.path("state")
        self.seed = int(os.environ.get("TMK_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
        self.rng = random.Random(self.seed)
        self._vms: list[Vm] = []
        self._children: list[subprocess.Popen] = []
        self._mounts: list[str] = []
        self._closers: list[Callable[[], None]] = []
        self._count = 0
        self._commands: list[str] = []
        if self.root:
            self._make_wrappers()

    # Ends -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends every child of this process, by pid, and removes the folder."""
        for vm in self._vms:
            vm.close()
        for close in reversed(self._closers):
            close()
        for child in self._children:
            run.end(child)
        for pid in run.children():  # orphans: what our children left running
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        for mount in self._mounts:
            subprocess.run(["umount", "-l", mount], check=False)
        if os.environ.get("TMK_TEST_KEEP"):
            diag(f"kept: {self.dir}")
            return
        for folder in {self.dir, self.sockets}:
            shutil.rmtree(folder, ignore_errors=True)

    def check_end(self) -> None:
        """At the end of a test that passed: no process may be left that the test did not start.
        Those that look after a job see within a moment that it has ended."""
        ours = {vm.pid for vm in self._vms if vm.alive()}
        ours |= {child.pid for child in self._children}

        def left() -> dict[int, str]:
            return {pid: line for pid, line in run.children().items() if pid not in ours}

        try:
            wait_until(lambda: not left(), 3)
        except AssertionError:
            raise AssertionError(f"processes left running: {left()}") from None

    def keep_logs(self) -> str:
        """Saves the logs of a failed test; returns where, the seed and the ends of the logs."""
        base = os.environ.get("TMK_TEST_LOGS") or os.path.join(tempfile.gettempdir(),
                                                               "tidemark-test-logs")
        safe = re.sub(r"\W+", "-", self.name)
        os.makedirs(base, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=f"{safe}-", dir=base)
        with open(self.path("commands.log"), "w", encoding="utf-8") as log:
            log.write("\n\n".join(self._commands) + "\n")
        text = [f"seed {self.seed} (TMK_TEST_SEED); logs: {folder}"]
        for path in sorted(glob.glob(f"{self.dir}/*.log") + glob.glob(f"{self.dir}/*.serial")):
            shutil.copy(path, folder)
            with open(path, encoding="utf-8", errors="replace") as log:
                tail = log.read()[-1500:].splitlines()[-12:]
            text += [f"--- {os.path.basename(path)}"] + [line[:300] for line in tail]
        return "\n".join(text)

    def children(self) -> list[subprocess.Popen]:
        """The programs that the lab has started and not waited for."""
        return list(self._children)

    def on_close(self, close: Callable[[], None]) -> None:
        """Calls this when the lab ends, after its machines."""
        self._closers.append(close)

    # Files ------------------------------------------------------------------------------------

    def path(self, name: str) -> str:
        """A path in the lab's folder."""
        return os.path.join(self.dir, name)

    def file(self, name: str, text: str) -> str:
        """Writes a small file and returns its path."""
        with open(self.path(name), "w", encoding="utf-8") as out:
            out.write(text)
        return self.path(name)

    def fresh(self, suffix: str = "") -> str:
        """A path that nothing has yet."""
        self._count += 1
        return self.path(f"f{self._count}{suffix}")

    def tmpfs(self, size: str) -> str:
        """A small file system, to run out of. Skips the test where we may not mount."""
        folder = self.fresh(".fs")
        os.mkdir(folder)
        if os.geteuid() != 0 or run.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none",
                                         folder], check=False).rc != 0:
            raise Skip("may not mount a tmpfs")
        self._mounts.append(folder)
        return folder

    # Programs ---------------------------------------------------------------------------------

    def env(self) -> dict[str, str]:
        """The environment of every program that the lab runs."""
        env = {key: value for key, value in os.environ.items()
               if not key.startswith("TIDEMARK_") or key == "TIDEMARK_SOAK"}
        env |= {"LC_ALL": "C.UTF-8", "TIDEMARK_STATE_DIR": self.state}
        if self.root:
            env["PATH"] = f"{self.path('bin')}:{env['PATH']}"
            env["QEMU_MODULE_DIR"] = f"{self.root}/usr/lib/x86_64-linux-gnu/qemu"
        return env

    def argv(self, program: str) -> list[str]:
        """How to run a program; QEMU's come from QEMU_ROOT where that is set."""
        if self.root and program in QEMU_PROGRAMS:
            return list(_other_qemu(self.root)[program])
        return [program]

    def firmware(self) -> list[str]:
        """QEMU's options for the firmware of QEMU_ROOT."""
        folders = ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu")
        return [word for folder in folders if self.root
                for word in ("-L", f"{self.root}/{folder}")]

    def need(self, *programs: str) -> None:
        """Skips the test where a program is missing."""
        for program in programs:
            if not shutil.which(self.argv(program)[-1]):
                raise Skip(f"no {program}")

    def tool(self, program: str, *args: object, **how) -> Result:
        """Runs a tool; `how` as in run.run: check=False, rc=N, timeout=, stdin=, cwd=."""
        return run.run(self.argv(program) + [str(a) for a in args], env=self.env(), **how)

    def tool_popen(self, program: str, *args: object, **options) -> subprocess.Popen:
        """Starts a tool that goes on; it ends with the lab at the latest."""
        child = run.popen(self.argv(program) + [str(a) for a in args],
                          **{"env": self.env(), **options})
        self._children.append(child)
        return child

    def tidemark(self, *args: object, env: dict | None = None, **how) -> Result:
        """Runs the program under test; `how` as for `tool`."""
        try:
            result = run.run([self._program()] + [str(a) for a in args],
                             env={**self.env(), **(env or {})}, **how)
        except ToolError as why:
            self._commands.append(str(why.result))
            raise
        self._commands.append(str(result))
        return result

    def tidemark_json(self, *args: object, **how):
        """Runs the program with --json and returns the document."""
        return json.loads(self.tidemark(*args, "--json", **how).out)

    def tidemark_popen(self, *args: object, env: dict | None = None,
                       **options) -> subprocess.Popen:
        """Starts the program under test, its output in pipes, as text."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        child = run.popen([self._program()] + [str(a) for a in args],
                          env={**self.env(), **(env or {})}, **options)
        self._children.append(child)
        return child

    @staticmethod
    def _program() -> str:
        program = os.environ.get("TIDEMARK")
        if not program:
            raise AssertionError("TIDEMARK does not name the program under test")
        return os.path.abspath(program)

    def _make_wrappers(self) -> None:
        os.mkdir(self.path("bin"))
        for name in QEMU_PROGRAMS:
            wrapper = self.file(f"bin/{name}", f'#!/bin/sh\nexec {shlex.join(self.argv(name))} '
                                f'"$@"\n')
            os.chmod(wrapper, 0o755)

    # QEMU -------------------------------------------------------------------------------------

    def accel(self) -> str:
        """What machines run with unless they say otherwise."""
        return os.environ.get("TMK_TEST_ACCEL") or "tcg"

    def kvm(self) -> bool:
        """Whether a machine starts with KVM."""
        return _kvm(tuple(self.argv("qemu-system-x86_64") + self.firmware()))

    def qemu_version(self) -> tuple[int, int]:
        """(major, minor) of the QEMU under test."""
        return _version(tuple(self.argv("qemu-img")))

    def vm(self, disks: list[Disk], *, start: bool = True, **options) -> Vm:
        """A machine (see Vm for the options), started unless start=False."""
        options.setdefault("name", f"vm{self.count_vms()}")
        vm = Vm(self, disks, **options)
        self.add_vm(vm)
        return vm.start() if start else vm

    def add_vm(self, vm: Vm) -> None:
        """A machine that someone else made: it ends with the lab."""
        self._vms.append(vm)

    def count_vms(self) -> int:
        return len(self._vms)

    # Disks ------------------------------------------------------------------------------------

    def disk(self, name: str, size: str | int = "64M", *, fmt: str = "qcow2",
             create: list[str] | None = None, cluster: int = 1 << 16, path: str | None = None,
             discard: str = "unmap", style: str = "blockdev", **more) -> Disk:
        """A new empty disk and its image. `create` adds options to qemu-img create; `more` goes
        to Disk. The node is called NAME-fmt unless node= says otherwise."""
        path = path or self.path(f"{name}.{fmt}")
        self.create(path, size, fmt, *(create or []),
                    *(["-o", f"cluster_size={cluster}"] if fmt == "qcow2" else []))
        unit = None if discard != "unmap" else cluster if fmt == "qcow2" else 512
        more.setdefault("node", f"{name}-fmt" if style == "blockdev" else None)
        return Disk(name, path, Model(size_of(size), unit), fmt=fmt, discard=discard, style=style,
                    **more)

    def create(self, path: str, size: str | int | None = None, fmt: str = "qcow2",
               *options: str) -> str:
        """qemu-img create."""
        self.tool("qemu-img", "create", "-q", "-f", fmt, *options, path,
                  *([str(size)] if size is not None else []))
        return path

    def writer(self, disk: Disk) -> Writer:
        """Writes to the image of a disk that no QEMU uses."""
        mode = ["--image-opts", f"driver={disk.fmt},file.driver=file,file.filename={disk.path},"
                f"discard={disk.discard},file.discard={disk.discard}"]

        def do(command: str) -> str:
            # Exit code 1 is also the answer of a read that found other bytes; Writer looks itself.
            result = self.tool("qemu-io", *mode, "-c", command, rc=(0, 1))
            return result.out + result.err

        return Writer(do, disk.model, self.path(f"{disk.name}.content"))

    def raw(self, path: str, fmt: str = "qcow2", *, shared: bool = False) -> str:
        """Converts an image, with all below it, to a raw file; returns its path."""
        out = self.fresh(".raw")
        self.tool("qemu-img", "convert", *(["-U"] if shared else []), "-f", fmt, "-O", "raw", path,
                  out)
        return out

    # Verdicts ---------------------------------------------------------------------------------

    def info(self, path: str, fmt: str | None = None) -> dict:
        """qemu-img info of an image, in use or not."""
        mode = ["-f", fmt] if fmt else []
        return json.loads(self.tool("qemu-img", "info", "-U", "--output=json", *mode, path).out)

    def compare(self, path: str, model: Model, fmt: str = "qcow2", *,
                shared: bool = False) -> None:
        """`qemu-img compare` must find an image and a model alike, in size too."""
        size = self.info(path, fmt)["virtual-size"]
        assert size == model.size, f"{path}: {size} bytes, not {model.size}"
        truth = model.save(self.fresh(".model"))
        try:
            self.tool("qemu-img", "compare", *(["-U"] if shared else []), "-f", fmt, "-F", "raw",
                      path, truth)
        finally:
            os.unlink(truth)

    def check_image(self, path: str, fmt: str = "qcow2") -> None:
        """`qemu-img check` must find no error and no leak. Not for an image in use."""
        self.tool("qemu-img", "check", "-f", fmt, path)


@functools.cache
def _kvm(argv: tuple[str, ...]) -> bool:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    talk = '{"execute":"qmp_capabilities"}\n{"execute":"quit"}\n'
    probe = run.run([*argv, "-accel", "kvm", "-M", "q35", "-m", "16", "-nodefaults", "-display",
                     "none", "-S", "-qmp", "stdio"], check=False, stdin=talk, timeout=30)
    return probe.rc == 0


@functools.cache
def _version(argv: tuple[str, ...]) -> tuple[int, int]:
    said = run.run([*argv, "--version"]).out
    major, minor = re.search(r"version (\d+)\.(\d+)", said).groups()
    return int(major), int(minor)
