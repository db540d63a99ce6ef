# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pulls as the tests make them: documents, clients, and the check of what was left.

    pull = Pull(lab, vm)
    pull.begin("c1")                                   # all disks in full, checkpoint c1
    pull.compare("vda", model)                         # nbdcopy and qemu-img convert of the export
    pull.end()
"""
from __future__ import annotations

import json
import os
import socket as sockets
import struct
from xml.sax.saxutils import quoteattr

from backup import checkpoint_xml
from lab import Lab, Model, Vm

NBD_MAGIC, OPTION_MAGIC = 0x4E42444D41474943, 0x49484156454F5054
OPT_GO, REP_ACK, REP_INFO = 7, 1, 3


def pull_disk(name: str, scratch: str | None = None, *, since: str | None = None,
              kind: str = "file", fmt: str | None = None, more: str = "", inside: str = "") -> str:
    """A <disk> of a pull document; `more` are further attributes."""
    words = f"<disk name={quoteattr(name)}"
    if scratch:
        words += f" type='{kind}'"
    if since:
        words += f" incremental={quoteattr(since)}"
    words += f" {more}" if more else ""
    if not scratch:
        return words + "/>"
    driver = f"<driver type='{fmt}'/>" if fmt else ""
    place = "dev" if kind == "block" else "file"
    return f"{words}>{driver}<scratch {place}={quoteattr(scratch)}>{inside}</scratch></disk>"


def unix_server(path: str) -> str:
    return f"<server transport='unix' socket={quoteattr(path)}/>"


def pull_document(server: str, disks: list[str]) -> str:
    body = f"<disks>{''.join(disks)}</disks>" if disks else ""
    return f"<domainbackup mode='pull'>{server}{body}</domainbackup>"


class Pull:
    """Pulls of a machine, on one unix socket."""

    def __init__(self, lab: Lab, vm: Vm) -> None:
        self.lab, self.vm = lab, vm
        self.socket = os.path.join(vm.sockets, "nbd")
        self.folder = lab.path("scratch")
        os.makedirs(self.folder, exist_ok=True)

    def scratch(self, name: str) -> str:
        return f"{self.folder}/{name}.scratch"

    def run(self, disks: list[str], *options: str, server: str | None = None,
            checkpoint: str | None = None, recorded: list[str] | None = None, **how):
        """begin with a document of these <disk>s; `checkpoint` is the name of a new one, of all
        disks or those `recorded`."""
        document = pull_document(server or unix_server(self.socket), disks)
        files = [self.lab.file("pull.xml", document)]
        if checkpoint:
            files.append(self.lab.file("pull-c.xml", checkpoint_xml(checkpoint, recorded)))
        return self.lab.tidemark("begin", *self.vm.domain, *options, *files, **how)

    def begin(self, name: str, since: dict[str, str] | None = None, *options: str, folder=None,
              **how):
        """A pull of all disks with checkpoint `name`, those in `since` incrementally."""
        disks = [pull_disk(disk.name, f"{folder or self.folder}/{disk.name}.scratch",
                           since=(since or {}).get(disk.name)) for disk in self.vm.disks]
        return self.run(disks, *options, checkpoint=name, **how)

    def uri(self, name: str) -> str:
        return f"nbd+unix:///{name}?socket={self.socket}"

    def end(self, **how):
        result = self.lab.tidemark("end", *self.vm.domain, **how)
        self.vm.assert_clean()
        self.assert_no_files()
        return result

    def abort(self, **how):
        result = self.lab.tidemark("abort", *self.vm.domain, **how)
        self.vm.assert_clean()
        self.assert_no_files()
        return result

    def assert_no_files(self) -> None:
        assert not os.path.exists(self.socket), "the socket is left"
        assert os.listdir(self.folder) == [], os.listdir(self.folder)

    def compare(self, name: str, model: Model, uri: str | None = None) -> None:
        """The export, as two clients read it, is the model."""
        uri = uri or self.uri(name)
        raw = self.lab.fresh(".raw")
        self.lab.tool("nbdcopy", uri, raw)
        self.lab.compare(raw, model, "raw")
        os.unlink(raw)
        other = self.lab.fresh(".raw")
        self.lab.tool("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, other)
        self.lab.compare(other, model, "raw")
        os.unlink(other)

    def dirty(self, name: str, bitmap: str) -> list[tuple[int, int]]:
        """The dirty extents of an export's bitmap, joined: (start, stop)."""
        rows = json.loads(self.lab.tool("nbdinfo", "--json",
                                        f"--map=qemu:dirty-bitmap:{bitmap}", self.uri(name)).out)
        found: list[tuple[int, int]] = []
        for row in rows:
            if not row["type"] & 1:
                continue
            start, stop = row["offset"], row["offset"] + row["length"]
            if found and found[-1][1] == start:
                start = found.pop()[0]
            found.append((start, stop))
        return found


def covers(extents: list[tuple[int, int]], start: int, stop: int) -> bool:
    """Whether joined extents contain all of [start, stop)."""
    return any(low <= start and stop <= high for low, high in extents)


class RawClient:
    """An NBD client on a unix socket that does no more than it is told."""

    def __init__(self, path: str) -> None:
        self.socket = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        self.socket.settimeout(20)
        self.socket.connect(path)

    def negotiate(self, export: str) -> None:
        magic, option_magic, flags = struct.unpack(">QQH", self._read(18))
        assert magic == NBD_MAGIC and option_magic == OPTION_MAGIC and flags & 1
        name = export.encode()
        data = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
        self.socket.sendall(struct.pack(">I", 3)
                            + struct.pack(">QII", OPTION_MAGIC, OPT_GO, len(data)) + data)
        kind = REP_INFO
        while kind == REP_INFO:
            _, _, kind, length = struct.unpack(">QIII", self._read(20))
            self._read(length)
        assert kind == REP_ACK, kind

    def ask(self, offset: int, length: int) -> None:
        """Asks for a read, and takes no answer."""
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, offset, length))

    def is_cut_off(self) -> bool:
        """Whether the server has closed the connection (what it had sent is thrown away)."""
        self.socket.settimeout(5)
        try:
            while self.socket.recv(1 << 20):
                pass
            return True
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def close(self) -> None:
        self.socket.close()

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self.socket.recv(length - len(data))
            assert part, "the server left"
            data += part
        return data
