# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs libvirtd for virt.py, and is the parent of whatever it leaves running.

libvirtd starts each QEMU apart from itself and leaves it running when it ends. Those become
children of this process, which reaps them at once: libvirt takes a dead QEMU that nobody has
reaped for one that lives. It ends when all are gone; on SIGTERM, which it also gets when the test
dies of whatever, it ends them all first.
"""
from __future__ import annotations

import os
import signal
import sys

import run


def _end(*_args) -> None:
    while True:
        left = run.children()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if not left:
            os._exit(0)


def main() -> None:
    signal.signal(signal.SIGTERM, _end)
    run.die_with_parent(signal.SIGTERM)
    run.popen(sys.argv[1:])
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break


if __name__ == "__main__":
    main()
