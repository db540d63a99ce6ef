# SPDX-License-Identifier: LGPL-2.1-or-later
"""Single pushes, run to their end, and pushes that must be refused without a trace."""
from __future__ import annotations

import os

from lab import Vm
from run import Result


def qmp_of(vm: Vm, address: str | None = None) -> list[str]:
    """The options that name the domain."""
    return ["--qmp", address] if address else vm.domain


def push(vm: Vm, document: str, *options: object, checkpoint: str | None = None,
         address: str | None = None) -> Result:
    """Begins the job of `document` (its text), waits until it has ended well and checks that QEMU
    is as before. Returns begin's Result. `checkpoint` is the text of a document."""
    lab = vm.lab
    files = [lab.file("push.xml", document)]
    if checkpoint:
        files.append(lab.file("push-checkpoint.xml", checkpoint))
    result = lab.tidemark("begin", *qmp_of(vm, address), *options, *files)
    lab.tidemark("wait", *qmp_of(vm, address))
    vm.assert_clean()
    return result


def files_below(folder: str) -> set[str]:
    """All files of a folder; sockets and logs, which the lab itself makes, left out."""
    return {os.path.join(where, name) for where, _, names in os.walk(folder) for name in names
            if not name.endswith((".log", ".xml", ".serial", ".content", ".probe"))
            and "/state/" not in f"{where}/"}


def refused(vm: Vm, document: str, *words: str, options: tuple = (),
            checkpoint: str | None = None) -> Result:
    """The job of `document` must be refused with an error that has all `words` and a hint, and
    nothing may have changed: not in QEMU, not in the folder."""
    lab = vm.lab
    files = [lab.file("refused.xml", document)]
    if checkpoint:
        files.append(lab.file("refused-checkpoint.xml", checkpoint))
    before, on_disk = vm.inventory(), files_below(lab.dir)
    result = lab.tidemark("begin", *qmp_of(vm), *options, *files, rc=1)
    assert vm.inventory() == before, f"{before}\n{vm.inventory()}\n{result}"
    assert files_below(lab.dir) == on_disk, files_below(lab.dir) ^ on_disk
    for word in (*words, "\nhint: "):
        assert word in result.err, f"no '{word}' in\n{result.err}"
    return result
