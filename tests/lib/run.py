# SPDX-License-Identifier: LGPL-2.1-or-later
"""Running programs: results that explain themselves, and children that never outlive the test.

A child gets SIGKILL from the kernel when the test process dies, whatever it dies of. The test
process is also the reaper of orphans, so that what a child left behind becomes ours and can be
found (`children`) and ended by its pid. Nothing here signals a process that we did not start.
"""
from __future__ import annotations

import ctypes
import os
import re
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNS = 0x20000
# What the sanitizers of scripts/check exit with (exitcode= in their options): never an answer that
# a test could have expected.
SANITIZER_RC = 86

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@dataclass(frozen=True)
class Result:
    """How a program ended and what it said."""
    argv: list[str]
    rc: int
    out: str
    err: str

    def __str__(self) -> str:
        text = f"$ {shlex.join(self.argv)}\nexit {self.rc}"
        for name, body in (("stdout", self.out), ("stderr", self.err)):
            if body:
                text += f"\n--- {name}\n{body.rstrip()}"
        return text


class ToolError(AssertionError):
    """A program did not end as the test expected."""

    def __init__(self, result: Result, expected: object) -> None:
        super().__init__(f"expected {expected}\n{result}")
        self.result = result


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """The kernel sends this process a signal when its parent dies."""
    _libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


def popen(argv: list[str], **options) -> subprocess.Popen:
    """Starts a child that dies with us. stdin is empty unless it is given.

    The kernel ends it with the *thread* that started it: start nothing from short-lived threads.
    """
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen([str(a) for a in argv], preexec_fn=die_with_parent, **options)


def run(argv: list[str], *, check: bool = True, rc: int | tuple[int, ...] | None = None,
        env: dict | None = None, timeout: float = 120, stdin: str | None = None,
        cwd: str | None = None) -> Result:
    """Runs a program to its end.

    `rc` is the exit code the test wants, or several of which any will do; without it `check`
    decides whether that must be 0 or may be anything. A program that a signal ended fails the test
    unless `rc` names that signal (-9), and one whose sanitizer spoke always does.
    """
    argv = [str(a) for a in argv]
    child = popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=cwd,
                  text=True, errors="replace",
                  stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL)
    try:
        out, err = child.communicate(stdin, timeout=timeout)
    except BaseException as why:
        child.kill()
        out, err = child.communicate()
        if isinstance(why, subprocess.TimeoutExpired):
            raise ToolError(Result(argv, child.returncode, out, err),
                            f"an end within {timeout} s") from None
        raise
    result = Result(argv, child.returncode, out, err)
    wanted = (rc,) if isinstance(rc, int) else rc
    if result.rc == SANITIZER_RC or (result.rc < 0 and result.rc not in (wanted or ())):
        raise ToolError(result, "no crash")
    if wanted is not None and result.rc not in wanted:
        raise ToolError(result, f"exit code {rc}")
    if rc is None and check and result.rc != 0:
        raise ToolError(result, "success")
    return result


def end(child: subprocess.Popen, grace: float = 0) -> int:
    """Ends a child: SIGTERM and `grace` seconds where asked, then SIGKILL. Returns its code."""
    if child.poll() is None and grace:
        child.terminate()
        try:
            return child.wait(grace)
        except subprocess.TimeoutExpired:
            pass
    if child.poll() is None:
        child.kill()
    return child.wait()


def stop(pid: int) -> None:
    """SIGSTOP, and waits until no thread of that process runs any more: on a busy machine some go
    on for a while."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(state == "T" for state in _thread_states(pid)), what=f"stop of {pid}")


def wait_until_caught(child: subprocess.Popen, number: int = signal.SIGINT) -> None:
    """Waits until `child` has a handler for that signal (or has ended)."""
    def caught() -> bool:
        with open(f"/proc/{child.pid}/status", encoding="utf-8") as status:
            mask = re.search(r"^SigCgt:\s*([0-9a-f]+)", status.read(), re.M)
        return child.poll() is not None or bool(mask and int(mask[1], 16) >> (number - 1) & 1)
    wait_until(caught, what=f"a handler for signal {number}", step=0.005)


def _thread_states(pid: int) -> list[str]:
    states = []
    for name in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{name}/stat", encoding="utf-8", errors="replace") as stat:
                states.append(stat.read().rpartition(")")[2].split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that ended
    return states


def children() -> dict[int, str]:
    """The living children of this process, orphans it inherited included: pid → command line."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stat:
                state, parent = stat.read().rpartition(")")[2].split()[:2]
            if int(parent) != os.getpid() or state == "Z":
                continue
            with open(f"/proc/{name}/cmdline", encoding="utf-8", errors="replace") as line:
                found[int(name)] = line.read().replace("\0", " ").strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def own_mounts() -> None:
    """From now on the mounts of this process and its children are theirs alone."""
    if _libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def wait_until(condition, timeout: float = 10, what: str = "", step: float = 0.02):
    """Polls `condition` until it is true; returns what it returned."""
    limit = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > limit:
            raise AssertionError(f"not within {timeout} s: {what or condition}")
        time.sleep(step)
