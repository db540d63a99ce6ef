# SPDX-License-Identifier: LGPL-2.1-or-later
"""A socket before libvirtd's that loses connections at a call of the test's choice. As after a
restart, who connects again is served at once."""
from __future__ import annotations

import socket
import struct
import threading

from lab import Lab
from virt import Libvirt

# Source: libvirt, src/remote/remote_protocol.x
REMOTE_PROGRAM = 0x20008086
DOMAIN_ABORT_JOB, DOMAIN_GET_BLOCK_INFO, DOMAIN_GET_JOB_STATS = 164, 194, 298
DOMAIN_CHECKPOINT_LOOKUP_BY_NAME, DOMAIN_BACKUP_BEGIN, DOMAIN_BACKUP_GET_XML_DESC = 415, 421, 422


class Proxy:
    """Passes calls on to libvirtd, but for those at which it hangs up."""

    def __init__(self, lab: Lab, host: Libvirt) -> None:
        self.host = host
        self.lost = 0  # how many calls were
        self._call, self._times = 0, 0
        self._arrives: threading.Event | None = None
        path = lab.fresh(".sock")
        self.uri = f"qemu+unix:///system?socket={path}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(16)
        lab.on_close(self._listener.close)
        threading.Thread(target=self._serve, daemon=True).start()

    def lose(self, call: int, times: int = 1) -> None:
        """The next calls of that kind do not arrive, and their connections are lost."""
        self.lost, self._times, self._call, self._arrives = 0, times, call, None

    def lose_answer(self, call: int) -> threading.Event:
        """The connection of the next call of that kind is lost, and the call arrives all the same,
        when the event is set."""
        self.lose(call)
        self._arrives = threading.Event()
        return self._arrives

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self.host.socket)
            except OSError:
                client.close()
                continue
            for work in (self._ask, self._answer):
                threading.Thread(target=self._until_lost, args=(work, client, server),
                                 daemon=True).start()

    @staticmethod
    def _until_lost(work, client: socket.socket, server: socket.socket) -> None:
        try:
            while work(client, server):
                pass
        except OSError:
            pass
        for end in (client, server):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _ask(self, client: socket.socket, server: socket.socket) -> bool:
        """One message: its length, the program, its version, the call, …; False: it was lost."""
        head = _read(client, 4)
        body = _read(client, struct.unpack(">I", head)[0] - 4)
        program, _, call = struct.unpack(">III", body[:12])
        if program == REMOTE_PROGRAM and call == self._call and self.lost < self._times:
            self.lost += 1
            if not self._arrives:
                return False
            client.shutdown(socket.SHUT_RDWR)
            self._arrives.wait()
        server.sendall(head + body)
        return True

    @staticmethod
    def _answer(client: socket.socket, server: socket.socket) -> bool:
        data = server.recv(1 << 16)
        client.sendall(data)
        return bool(data)


def _read(end: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = end.recv(length - len(data))
        if not piece:
            raise OSError("the other end has left")
        data += piece
    return data
